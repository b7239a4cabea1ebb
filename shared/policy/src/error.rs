//! Why a text or a canonical form is not a policy: everything that is wrong with it, each with
//! its place.

use core::fmt;

use casemate_proto::{
    Millis, amount::AmountError, cbor::CborError, credential::CredentialError, ids::IdError,
    time::TimeError,
};

/// Everything that is wrong with a policy; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyErrors {
    /// In the order of the text, or of the places where there is none.
    pub errors: Vec<PolicyError>,
}

/// Most errors that are listed.
pub const MAX_ERRORS: usize = 100;

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// Line of the text, from 1, where known.
    pub line: Option<usize>,
    /// The field: `grant[x402].limits[0].window`; empty for the whole.
    pub place: String,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("{message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// Not the canonical form.
    #[error("not a policy's canonical form: {0}")]
    Encoding(CborError),
    /// A field that the format does not have.
    #[error("unknown field `{field}`; known here: {known}")]
    UnknownField {
        /// As written.
        field: String,
        /// What there is.
        known: String,
    },
    /// A field that must be there.
    #[error("field `{field}` is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// Of another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A number where an amount is written as text.
    #[error("amounts are written as decimal strings: `\"{input}\"`, not as the {found} {input}")]
    BareNumber {
        /// As written.
        input: String,
        /// Integer or float.
        found: &'static str,
    },
    /// Not an amount.
    #[error(transparent)]
    Amount(AmountError),
    /// Not a time.
    #[error(transparent)]
    Time(TimeError),
    /// Not a name.
    #[error(transparent)]
    Id(IdError),
    /// Not a public key.
    #[error(transparent)]
    Key(CredentialError),
    /// Text of another form.
    #[error("`{input}` is not {expected}")]
    Form {
        /// The beginning of the text.
        input: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Names what the policy does not have.
    #[error("no {what} `{name}` in this policy")]
    Unknown {
        /// A list, an asset, a principal.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Twice.
    #[error("{what} `{name}` is there twice")]
    Repeated {
        /// What.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// More than the format allows.
    #[error("{found} {what} where at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// A length of time out of its range.
    #[error("`{length}` is not between {min} and {max}")]
    LengthOutOfRange {
        /// As written.
        length: Millis,
        /// Shortest.
        min: Millis,
        /// Longest.
        max: Millis,
    },
    /// Another version of the format.
    #[error("version `{found}` is not known: this program knows version 1")]
    Version {
        /// As written.
        found: u64,
    },
    /// Actions that cannot be in one grant.
    #[error("`{first}` and `{second}` cannot be in one grant: {why}")]
    MixedActions {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What sets them apart.
        why: &'static str,
    },
    /// An asset that none of the grant's actions can be about, or the other way round.
    #[error("`{asset}` is {kind}, which {why}")]
    AssetKind {
        /// The asset.
        asset: String,
        /// A native asset or a token.
        kind: &'static str,
        /// What does not fit.
        why: &'static str,
    },
    /// Assets in one amount whose units differ.
    #[error(
        "`{first}` has {first_decimals} decimals and `{second}` has {second_decimals}: one amount cannot be meant for both"
    )]
    Decimals {
        /// One.
        first: String,
        /// Its digits.
        first_decimals: u8,
        /// The other.
        second: String,
        /// Its digits.
        second_decimals: u8,
    },
    /// A shared limit that two grants state differently.
    #[error("the shared limit `{name}` is stated otherwise in grant `{other}`")]
    SharedDiffers {
        /// The limit.
        name: String,
        /// The grant that was read before.
        other: String,
    },
    /// Anything else that contradicts itself or leaves out what safety needs.
    #[error("{0}")]
    Rule(Rule),
}

/// Rules that a policy must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// No `expires`.
    #[error("a policy needs `expires`, unless it says `unlimited = true`")]
    NoExpiry,
    /// No `sum` limit.
    #[error("a grant needs at least one `sum` limit, unless it says `unlimited = true`")]
    NoSum,
    /// No `count` limit where no sum is counted.
    #[error(
        "a grant for what moves no counted amount needs a `count` limit, unless it says `unlimited = true`"
    )]
    NoCount,
    /// A sum where nothing is counted.
    #[error("these actions move no counted amount: limit them with `count`")]
    SumOfNothing,
    /// A cap on an amount where none is counted.
    #[error("these actions move no counted amount")]
    NoAmount,
    /// An empty set.
    #[error("at least one is needed")]
    Empty,
    /// A deny rule that states nothing.
    #[error("a deny rule must state at least one of key, principal, action, asset, to")]
    DenyAll,
    /// No payee.
    #[error("field `to` is missing: payees, lists such as \"@payees.x402\", or \"*\" for anybody")]
    NoPayee,
    /// A payee where there is none.
    #[error("these actions have no payee")]
    NoPayeeMeant,
    /// No cap on the fee.
    #[error("a grant for transactions needs `max_fee_per_tx` in the native asset of each chain")]
    NoFeeCap,
    /// No limit on fees.
    #[error("a grant for transactions needs a `fee_limits` sum in the native asset of each chain")]
    NoFeeLimit,
    /// Fees where there is no transaction.
    #[error("these actions make no transaction, so they have no fee")]
    FeeOfNothing,
    /// Not the native asset of one of the grant's chains.
    #[error("fees are in the native asset of a chain of the grant's assets")]
    FeeAsset,
    /// No native asset.
    #[error("the registry has no native asset of this chain, in which fees are counted")]
    NoNative,
    /// No assets, or some where there are none.
    #[error("messages and raw hashes have no asset")]
    AssetOfNothing,
    /// No domain.
    #[error("typed data needs the token's `domain` pinned in the registry")]
    NoDomain,
    /// A domain of a native asset.
    #[error("a native asset has no EIP-712 domain")]
    NativeDomain,
    /// The zero address.
    #[error("the zero address is not an account")]
    ZeroAddress,
    /// `valid_for_max` where nothing has a validity.
    #[error("these actions carry no validity")]
    NoValidity,
    /// Hours that are none or all.
    #[error("hours begin and end at the same minute")]
    EmptyHours,
    /// Times that contradict each other.
    #[error("`not_before` is not before `expires`")]
    NeverInForce,
    /// Tiers out of order.
    #[error("tiers must ascend: each `upto` larger than the one before")]
    TierOrder,
    /// No approver.
    #[error("the number of approvals must be at least one")]
    NoApprovals,
    /// `passkey` of nobody.
    #[error("`passkey` needs `approvals`")]
    PasskeyOfNobody,
    /// A scope of shared limits.
    #[error("`per = \"group\"` is for limits with `shared`")]
    GroupNotShared,
    /// Neither or both.
    #[error("exactly one of `sum` and `count` is needed")]
    SumOrCount,
    /// One shared name twice in one grant.
    #[error("a grant states a shared limit once")]
    SharedTwice,
}
