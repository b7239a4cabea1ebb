//! What a signing run needs before it says the one thing that makes a signature possible.

use casemate_proto::{Hash32, UnixMillis};

use crate::{context::RunId, error::Misuse};

/// The word that a committed, allowed entry permits exactly this run to sign exactly this, until
/// `release_by` (invariant I4).
///
/// This crate cannot see the ledger, so it cannot check that; it checks that run and subject are
/// the run's own, that the time has not passed, and that there is one permit for a run. The name of
/// the constructor marks the single place that may call it: the signer's code that turns the
/// ledger's permit, which only applying an entry makes, into this. It is neither `Clone` nor
/// `Copy`.
#[derive(Debug)]
pub struct Authorised {
    run: RunId,
    subject: Hash32,
    release_by: UnixMillis,
}

impl Authorised {
    /// Asserts that the entry which causes `run` is committed, that this node's own evaluation
    /// allows it, and that its limits are charged.
    ///
    /// `subject` is the ECDSA digest, or [`crate::ed25519_subject`] or
    /// [`crate::bip340_subject`] of the message.
    /// `release_by` is the entry's time plus τ.
    #[must_use]
    pub const fn dangerous_assert_committed_and_allowed(
        run: RunId,
        subject: Hash32,
        release_by: UnixMillis,
    ) -> Self {
        Self { run, subject, release_by }
    }
}

impl Authorised {
    pub(crate) const fn release_by(&self) -> UnixMillis {
        self.release_by
    }

    pub(crate) fn check(
        &self,
        run: RunId,
        subject: Hash32,
        permitted: bool,
        now: UnixMillis,
    ) -> Result<(), Misuse> {
        if self.run != run || self.subject != subject {
            return Err(Misuse::WrongPermit { permit: self.run, run });
        }
        if now > self.release_by {
            return Err(Misuse::PermitExpired { release_by: self.release_by, now });
        }
        if permitted {
            return Err(Misuse::PermitRepeated(run));
        }
        Ok(())
    }
}
