//! What this boot released shares for, counted by itself: the second line behind exact limits (I5).
//!
//! The ledger's book is the first: an entry is charged before anything is signed for it. That rests
//! on replication. Here each boot keeps a book of its own, of the entries that it released a share
//! for since its birth or admission, and releases nothing beyond a limit of the policy in force, even
//! if what it is told is committed says otherwise.

use casemate_ledger::{Permit, State};
use casemate_policy::{BookError, Charge, ChargeBook, Slack, within_limits};
use casemate_proto::{Denial, UnixMillis};

/// Why a share is not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TallyError {
    /// Without a policy nothing is.
    #[error("no policy is in force")]
    NoPolicy,
    /// A limit would be exceeded by what this boot has released.
    #[error("{}", .0.detail)]
    Limit(Box<Denial>),
    /// The book takes nothing more.
    #[error(transparent)]
    Book(#[from] BookError),
}

/// What this boot released shares for, each at the time of its release by this boot's clock, and
/// with windows of exactly their length. The ledger's windows are longer by τ + 2δ, so that whatever
/// it allows rightly is allowed here; only what it allows wrongly is not.
pub(crate) struct Tally {
    book: ChargeBook,
}

/// An entry's charges that are within every limit, to be recorded with the release.
#[must_use]
pub(crate) struct Within(Vec<Charge>);

impl Tally {
    pub(crate) fn new() -> Self {
        Self { book: ChargeBook::new(Slack::ZERO) }
    }

    /// Whether a share for this entry may be released now beside all that were.
    pub(crate) fn check(
        &self,
        state: &State,
        permit: &Permit,
        now: UnixMillis,
    ) -> Result<Within, TallyError> {
        let (policy, _) = state.policy().ok_or(TallyError::NoPolicy)?;
        let at = now.max(self.book.latest());
        let charges = permit.charges().iter().map(|charge| Charge { at, ..charge.clone() });
        let charges: Vec<Charge> = charges.collect();
        within_limits(policy, permit.grant(), &charges, &self.book, at, Slack::ZERO)
            .map_err(|denial| TallyError::Limit(Box::new(denial)))?;
        Ok(Within(charges))
    }

    /// A share is about to be released.
    pub(crate) fn record(&mut self, within: &Within) -> Result<(), TallyError> {
        Ok(self.book.record(&within.0)?)
    }
}
