//! What an evaluation says.

use casemate_proto::{
    Amount, CredentialId, Denial, DerivationPath, GrantId, KeyName, ListId, PrincipalId,
    UnixMillis, denial::LimitRef,
};
use casemate_tx::{EvmAddress, Intent};
use minicbor::{Decode, Encode};

use crate::{
    charge::Charge,
    model::{AssetKey, Per},
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The key that should sign.
    pub key: &'a KeyName,
    /// The path below it.
    pub path: &'a DerivationPath,
    /// Who asks.
    pub principal: &'a PrincipalId,
    /// With which credential.
    pub credential: &'a CredentialId,
    /// The key's own EVM address at that path; `None` where it has none.
    pub signer: Option<EvmAddress>,
    /// What the payload does, as decoded from its bytes.
    pub intent: &'a Intent,
    /// Who has approved so far. What does not count is passed over.
    pub approvals: &'a [Approved],
    /// When the request was first evaluated: `now`, the first time.
    pub first_seen: UnixMillis,
}

/// An approval whose signature over this very request was verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Approved {
    /// Who.
    #[n(0)]
    pub principal: PrincipalId,
    /// With which credential.
    #[n(1)]
    pub credential: CredentialId,
    /// Whether by a passkey, its user verified.
    #[n(2)]
    pub passkey: bool,
    /// Ledger time of the approval.
    #[n(3)]
    pub at: UnixMillis,
}

/// A verdict.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Sign, once its charges are recorded.
    Allow(Allowance),
    /// Allowed but for people or time.
    Pending(Requirement),
    /// Do not sign.
    Deny(Denial),
}

/// Proof that [`crate::evaluate`] allowed something: nothing else makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is allowed and not charged escapes its limits"]
pub struct Allowance {
    grant: GrantId,
    tier: Option<u32>,
    charges: Vec<Charge>,
    counters: Vec<Counter>,
}

impl Allowance {
    pub(crate) const fn new(
        grant: GrantId,
        tier: Option<u32>,
        charges: Vec<Charge>,
        counters: Vec<Counter>,
    ) -> Self {
        Self { grant, tier, charges, counters }
    }
    /// The grant that allows it.
    #[must_use]
    pub const fn grant(&self) -> &GrantId {
        &self.grant
    }
    /// The tier, from 0, of a grant that has tiers.
    #[must_use]
    pub const fn tier(&self) -> Option<u32> {
        self.tier
    }
    /// What [`crate::ChargeBook::record`] must record.
    #[must_use]
    pub fn charges(&self) -> &[Charge] {
        &self.charges
    }
    /// Every limit that was checked, before and after.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }
}

/// A limit's window at the time of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Counter {
    /// The limit.
    #[n(0)]
    pub limit: LimitRef,
    /// Its scope.
    #[n(1)]
    pub per: Per,
    /// The name under which it is shared.
    #[n(2)]
    pub shared: Option<ListId>,
    /// The asset asked for, whose base units a sum is in.
    #[n(3)]
    pub asset: Option<AssetKey>,
    /// What the window held: base units for sums, a number for counts.
    #[n(4)]
    pub before: Amount,
    /// What it holds with this.
    #[n(5)]
    pub after: Amount,
}

/// What an otherwise allowed request still needs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Requirement {
    /// The grant.
    #[n(0)]
    pub grant: GrantId,
    /// Its tier, from 0.
    #[n(1)]
    pub tier: u32,
    /// How many approvals it takes.
    #[n(2)]
    pub needed: u32,
    /// By people of this list of approvers; `None` where only time is missing.
    #[n(3)]
    pub of: Option<ListId>,
    /// Whether each must be given with a passkey.
    #[n(4)]
    pub passkey: bool,
    /// How many it has.
    #[n(5)]
    pub have: u32,
    /// Before when it is not signed.
    #[n(6)]
    pub not_before: Option<UnixMillis>,
}
