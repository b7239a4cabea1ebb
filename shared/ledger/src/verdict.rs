//! Verdicts: what `apply` decided about an entry. Part of the record, so of the log's leaves.

use casemate_policy::Allowance;
use casemate_proto::denial::LimitRef;
use casemate_proto::ids::Hash32;
use casemate_proto::{Denial, DerivationPath, GrantId, KeyName, PrincipalId, UnixMillis};
use minicbor::{Decode, Encode};

/// A signature is allowed: who asked, for what, and until when shares may be released.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Allowed {
    /// Who asked.
    #[n(0)]
    pub principal: PrincipalId,
    /// By which grant.
    #[n(1)]
    pub grant: GrantId,
    /// Which key.
    #[n(2)]
    pub key: KeyName,
    /// Which child of it.
    #[n(3)]
    pub path: DerivationPath,
    /// The key's epoch.
    #[n(4)]
    pub epoch: u64,
    /// What is signed, derived from the decoded payload.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// τ after the entry's time.
    #[n(6)]
    pub release_by: UnixMillis,
}

/// A request waits for approvals or for a delay.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pending {
    /// By which grant.
    #[n(0)]
    pub grant: GrantId,
    /// The approval document's hash: what approvers sign.
    #[n(1)]
    pub document: Hash32,
    /// Approvals so far that count.
    #[n(2)]
    pub have: u64,
    /// Approvals needed.
    #[n(3)]
    pub need: u64,
    /// Not before this time even with all approvals.
    #[n(4)]
    pub not_before: Option<UnixMillis>,
    /// When it expires.
    #[n(5)]
    pub expires: UnixMillis,
}

/// What `apply` decided.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// Sign. The limits are charged.
    #[n(0)]
    Allowed(#[n(0)] Allowed),
    /// Not yet.
    #[n(1)]
    Pending(#[n(0)] Pending),
    /// No.
    #[n(2)]
    Denied(#[n(0)] Denial),
    /// The same request as an earlier entry; its outcome stands.
    #[n(3)]
    Repeated {
        /// That entry's index.
        #[n(0)]
        index: u64,
    },
    /// Done: anything but a request for a signature.
    #[n(4)]
    Accepted {
        /// What it made true, by its id where it has one.
        #[n(0)]
        id: Option<Hash32>,
        /// Not before this time, if it waits. Where freezers watch, the delay begins only when one
        /// of them has seen the change, so it may be later.
        #[n(1)]
        effective: Option<UnixMillis>,
    },
}

impl Verdict {
    /// Accepted, with nothing more to say.
    #[must_use]
    pub const fn accepted() -> Self {
        Self::Accepted { id: None, effective: None }
    }
    /// `allowed`, `pending`, `denied`, `repeated` or `accepted`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Pending(_) => "pending",
            Self::Denied(_) => "denied",
            Self::Repeated { .. } => "repeated",
            Self::Accepted { .. } => "accepted",
        }
    }
}

/// The limits that an allowance was judged by, in the words of a record: what is counted, for
/// whom, over how long, and its sum before and after.
pub(crate) fn counters_of(allowance: &Allowance) -> Vec<casemate_audit::Counter> {
    let most = casemate_audit::record::MAX_COUNTERS;
    allowance
        .counters()
        .iter()
        .take(most)
        .map(|counter| {
            let (what, window) = match &counter.limit {
                LimitRef::PerTx { .. } => ("per_tx", None),
                LimitRef::Sum { window, .. } => ("sum", Some(*window)),
                LimitRef::Count { window, .. } => ("count", Some(*window)),
                LimitRef::Fee { .. } => ("fee", None),
                LimitRef::FeeSum { window, .. } => ("fee_sum", Some(*window)),
            };
            let mut scope = format!("{what} per={}", counter.per.name());
            if let Some(shared) = &counter.shared {
                scope.push_str(&format!(" shared={shared}"));
            }
            if let Some(asset) = &counter.asset {
                scope.push_str(&format!(" asset={asset}"));
            }
            if let Some(window) = window {
                scope.push_str(&format!(" window={window}"));
            }
            scope.truncate(casemate_audit::record::MAX_SCOPE);
            casemate_audit::Counter { scope, before: counter.before, after: counter.after }
        })
        .collect()
}
