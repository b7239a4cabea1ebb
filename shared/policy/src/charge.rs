//! Charges: what was signed for, as facts that know nothing of grants.

use casemate_proto::{Amount, DerivationPath, KeyName, Millis, PrincipalId, UnixMillis};
use minicbor::{Decode, Encode};

use crate::model::AssetKey;

/// Longest window a limit may have: 31 days.
pub const MAX_WINDOW: Millis = Millis(31 * 86_400_000);
/// Shortest window a limit may have: one second.
pub const MIN_WINDOW: Millis = Millis(1_000);

/// One fact: at this time, so much was charged. Every signature makes one charge of kind
/// [`ChargeKind::Amount`] (of zero where nothing that is counted moves), and a transaction one
/// more, of kind [`ChargeKind::Fee`], in the chain's native asset.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Charge {
    /// Ledger time.
    #[n(0)]
    pub at: UnixMillis,
    /// The key.
    #[n(1)]
    pub key: KeyName,
    /// The path below it.
    #[n(2)]
    pub path: DerivationPath,
    /// Who asked.
    #[n(3)]
    pub principal: PrincipalId,
    /// Of what; `None` for messages and raw hashes.
    #[n(4)]
    pub asset: Option<AssetKey>,
    /// Amount or fee.
    #[n(5)]
    pub kind: ChargeKind,
    /// How much, in base units.
    #[n(6)]
    pub amount: Amount,
}

/// What a charge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum ChargeKind {
    /// What is moved, or approved to be moved.
    #[n(0)]
    Amount,
    /// The most that a transaction can cost.
    #[n(1)]
    Fee,
}

/// By how much every window is lengthened, so that the time at which a signature leaves cannot
/// matter: τ, within which a signature share is released after its entry's time, and twice δ, by
/// which two clocks may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Slack(#[n(0)] Millis);

impl Slack {
    /// None at all, for reading a policy as it is written.
    pub const ZERO: Self = Self(Millis(0));

    /// τ + 2δ.
    #[must_use]
    pub const fn new(tau: Millis, delta: Millis) -> Self {
        Self(tau.saturating_add(delta.saturating_mul(2)))
    }

    /// Its length.
    #[must_use]
    pub const fn length(self) -> Millis {
        self.0
    }

    /// A window's length with it.
    #[must_use]
    pub const fn lengthen(self, window: Millis) -> Millis {
        window.saturating_add(self.0)
    }
}
