//! Denials: the closed list of reasons for which Casemate does not sign, and what goes with one.

use minicbor::{Decode, Encode};

use crate::{Amount, GrantId, Millis, UnixMillis};

macro_rules! denial_codes {
    ($($(#[$doc:meta])* $variant:ident = $n:literal, $name:literal;)+) => {
        /// Why a request was denied or refused: a closed list. A code never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(index_only)]
        pub enum DenialCode {
            $($(#[$doc])* #[n($n)] $variant,)+
        }
        impl DenialCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// The code as users see it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

denial_codes! {
    /// The cluster is frozen.
    Frozen = 0, "frozen";
    /// No policy is in force.
    NoPolicy = 1, "no_policy";
    /// The policy in force has expired.
    PolicyExpired = 2, "policy_expired";
    /// The body, transaction or typed data is malformed, or not what it says it is.
    Malformed = 3, "malformed";
    /// A body or field is larger than its cap.
    TooLarge = 4, "too_large";
    /// No key of that name.
    UnknownKey = 5, "unknown_key";
    /// The credential is not registered, or was revoked.
    UnknownCredential = 6, "unknown_credential";
    /// The stamp is malformed, expired, of another cluster or does not verify.
    BadStamp = 7, "bad_stamp";
    /// The key's scheme cannot sign this kind of request.
    WrongScheme = 8, "wrong_scheme";
    /// No grant allows this key, path, principal, action and asset.
    NoGrant = 9, "no_grant";
    /// More than one grant matches: the policy is ambiguous here.
    AmbiguousGrant = 10, "ambiguous_grant";
    /// A deny rule matches.
    DenyRule = 11, "deny_rule";
    /// Everything but the payee matches a grant.
    PayeeNotListed = 12, "payee_not_listed";
    /// The token or asset is not in the policy's registry.
    UnknownAsset = 13, "unknown_asset";
    /// The EIP-712 domain is not the one that the policy pins.
    DomainMismatch = 14, "domain_mismatch";
    /// The payer named in the payload is not the signing key's address.
    WrongPayer = 15, "wrong_payer";
    /// Above the grant's cap for one transaction.
    OverPerTxCap = 16, "over_per_tx_cap";
    /// A limit over a window of time would be exceeded.
    LimitExceeded = 17, "limit_exceeded";
    /// Above the cap on the fee of one transaction, or no such cap is set.
    FeeTooHigh = 18, "fee_too_high";
    /// Outside the grant's hours.
    OutsideHours = 19, "outside_hours";
    /// The authorization is valid for longer than the grant allows, or its times contradict each
    /// other.
    ValidityTooLong = 20, "validity_too_long";
    /// The authorization has expired, or the request has.
    Expired = 21, "expired";
    /// The grant is not yet in force or has expired.
    GrantExpired = 22, "grant_expired";
    /// The amount is above the grant's highest tier.
    OverTiers = 23, "over_tiers";
    /// A raw hash, which no grant names.
    RawHash = 24, "raw_hash";
    /// This kind of call is denied unless a grant names it (approve, permit, contract creation …).
    ActionNotAllowed = 25, "action_not_allowed";
    /// The same request id was used for another body.
    RequestIdReused = 26, "request_id_reused";
    /// The table of remembered requests is full.
    TableFull = 27, "table_full";
    /// No pending request of that id.
    UnknownRequest = 28, "unknown_request";
    /// The approver is the requester, is not on the grant's list, or has approved already.
    ApproverNotAllowed = 29, "approver_not_allowed";
    /// The approval is for another document, or the request is not pending.
    ApprovalMismatch = 30, "approval_mismatch";
    /// Arithmetic overflow; amounts that large are never signed.
    Overflow = 31, "overflow";
    /// Too many pending or recent requests of this credential.
    RateLimited = 32, "rate_limited";
    /// The node cannot serve now; ask again or ask another node.
    Busy = 33, "busy";
    /// The path may not be used with this grant, or is malformed.
    BadPath = 34, "bad_path";
    /// The deployment cannot sign this message kind yet with the key's state: not live, or retired.
    KeyNotLive = 35, "key_not_live";
    /// A governance change was refused.
    GovernanceRefused = 36, "governance_refused";
    /// The request was allowed before a cold recovery, and whether it was signed is not known: its
    /// signature may be in what was lost of the log.
    OutcomeUnknown = 37, "outcome_unknown";
}

impl DenialCode {
    /// Whether a denial with this code stands for its request id: the cluster remembers it for as
    /// long as a stamp made before the denial could be replayed. After any other code the same id
    /// may still be decided otherwise, so a client asks again under the same id and never under
    /// another.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(
            self,
            Self::NoPolicy
                | Self::PolicyExpired
                | Self::UnknownCredential
                | Self::BadStamp
                | Self::TableFull
                | Self::RateLimited
                | Self::Busy
                | Self::UnknownRequest
                | Self::ApproverNotAllowed
                | Self::ApprovalMismatch
                | Self::RequestIdReused
                | Self::GovernanceRefused
                | Self::OutcomeUnknown
        )
    }
}

impl core::fmt::Display for DenialCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Which limit stopped a request, and what it was set to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LimitRef {
    /// The cap on one transaction.
    #[n(0)]
    PerTx {
        /// Base units.
        #[n(0)]
        max: Amount,
    },
    /// The sum over a window.
    #[n(1)]
    Sum {
        /// Base units.
        #[n(0)]
        max: Amount,
        /// The window's length.
        #[n(1)]
        window: Millis,
    },
    /// The number of signatures over a window.
    #[n(2)]
    Count {
        /// How many.
        #[n(0)]
        max: u64,
        /// The window's length.
        #[n(1)]
        window: Millis,
    },
    /// The cap on the fee of one transaction, in the native asset.
    #[n(3)]
    Fee {
        /// Base units.
        #[n(0)]
        max: Amount,
    },
    /// The sum of fees over a window, in the native asset.
    #[n(4)]
    FeeSum {
        /// Base units.
        #[n(0)]
        max: Amount,
        /// The window's length.
        #[n(1)]
        window: Millis,
    },
}

/// A denial: as structured as a signature, and recorded like one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Denial {
    /// The reason.
    #[n(0)]
    pub code: DenialCode,
    /// The grant that decided, where one was selected.
    #[n(1)]
    pub grant: Option<GrantId>,
    /// The limit that was hit.
    #[n(2)]
    pub limit: Option<LimitRef>,
    /// What is left under that limit: base units for sums, a number for counts.
    #[n(3)]
    pub remaining: Option<Amount>,
    /// When the same request could next pass, where time alone can make it.
    #[n(4)]
    pub resets_at: Option<UnixMillis>,
    /// For a person: what was wrong, with which input. Capped.
    #[n(5)]
    pub detail: String,
}

impl Denial {
    /// Most characters of a detail.
    pub const MAX_DETAIL: usize = 300;

    /// A denial that no grant or limit decided.
    #[must_use]
    pub fn new(code: DenialCode, detail: impl core::fmt::Display) -> Self {
        let detail = detail.to_string().chars().take(Self::MAX_DETAIL).collect();
        Self { code, grant: None, limit: None, remaining: None, resets_at: None, detail }
    }

    /// The same, naming the grant that decided.
    #[must_use]
    pub fn by(mut self, grant: &GrantId) -> Self {
        self.grant = Some(grant.clone());
        self
    }
}

impl core::fmt::Display for Denial {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}
