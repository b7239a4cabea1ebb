//! Why bytes are not an unsigned transaction that Casemate signs.

use crate::signature::SignatureError;

use super::calldata::CalldataError;

/// Why bytes are refused as an EVM transaction. `at` is an offset into the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvmError {
    /// Nothing came.
    #[error("no bytes")]
    Empty,
    /// More bytes than a transaction may have.
    #[error("{size} bytes where at most {max} are allowed")]
    TooLarge {
        /// How many came.
        size: usize,
        /// How many may.
        max: usize,
    },
    /// A type of transaction that Casemate does not sign.
    #[error("type `{ty:#04x}` is {name}, which is not signed here")]
    UnsupportedType {
        /// The first byte.
        ty: u8,
        /// What it stands for.
        name: &'static str,
    },
    /// A first byte that stands for no known type (EIP-2718) and is no list.
    #[error("first byte `{first:#04x}` is neither a known transaction type nor an rlp list")]
    UnknownType {
        /// The first byte.
        first: u8,
    },
    /// Not canonical RLP, or a field of another type than its place demands.
    #[error("`{field}` at byte {at}: {problem}")]
    Rlp {
        /// The field's name.
        field: &'static str,
        /// Where it starts.
        at: usize,
        /// What is wrong.
        problem: RlpProblem,
    },
    /// Bytes behind the transaction.
    #[error("{extra} bytes behind the transaction, which ends at byte {at}")]
    Trailing {
        /// Where the transaction ends.
        at: usize,
        /// How many bytes follow.
        extra: usize,
    },
    /// Another number of fields than the type has.
    #[error("{got} fields where {kind} has {expected}")]
    FieldCount {
        /// The type of transaction.
        kind: &'static str,
        /// How many it has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// It carries a signature already; what is signed is the unsigned form.
    #[error("{kind} with a signature in it, where the unsigned form is expected")]
    AlreadySigned {
        /// The type of transaction.
        kind: &'static str,
    },
    /// It carries no signature, where the signed form is expected.
    #[error("{kind} without a signature, where the signed form is expected")]
    NotSigned {
        /// The type of transaction.
        kind: &'static str,
    },
    /// A legacy transaction without a chain id is valid on every chain (before EIP-155).
    #[error("legacy transaction without a chain id (before EIP-155), which any chain would accept")]
    NotReplayProtected,
    /// The decoded fields encode to other bytes.
    #[error("not in canonical form from byte {at}")]
    NotCanonical {
        /// The first byte that differs.
        at: usize,
    },
    /// Zero, or more than a legacy signature's `v` can carry (EIP-2294).
    #[error("`chainId` is `{chain_id}`, outside 1 to {max}")]
    ChainId {
        /// What came.
        chain_id: u64,
        /// The largest that may.
        max: u64,
    },
    /// An account's nonce never gets there (EIP-2681).
    #[error("`nonce` is `{nonce}`, which no account can reach (EIP-2681)")]
    NonceTooLarge {
        /// What came.
        nonce: u64,
    },
    /// No gas at all.
    #[error("`gasLimit` is 0")]
    GasLimitZero,
    /// More gas than a block can hold.
    #[error("`gasLimit` is `{gas_limit}`, more than any block holds ({max})")]
    GasLimitTooLarge {
        /// What came.
        gas_limit: u64,
        /// The largest that may.
        max: u64,
    },
    /// Less gas than the transaction costs before its first instruction.
    #[error(
        "`gasLimit` is `{gas_limit}`, below the {intrinsic} that the transaction costs before it runs"
    )]
    GasLimitBelowIntrinsic {
        /// What came.
        gas_limit: u64,
        /// What it costs.
        intrinsic: u64,
    },
    /// Gas limit times the highest price does not fit 256 bits.
    #[error("`gasLimit` × the highest price per gas does not fit 256 bits")]
    FeeOverflow,
    /// Value and highest fee together do not fit 256 bits.
    #[error("`value` + the highest fee does not fit 256 bits")]
    CostOverflow,
    /// The tip is above the highest total price (EIP-1559).
    #[error("`maxPriorityFeePerGas` is `{priority}`, above `maxFeePerGas`, which is `{max_fee}`")]
    PriorityFeeAboveMaxFee {
        /// The tip.
        priority: u128,
        /// The highest total price.
        max_fee: u128,
    },
    /// Longer than a contract's creation code may be (EIP-3860).
    #[error(
        "`data` is contract creation code of {size} bytes, where at most {max} are allowed (EIP-3860)"
    )]
    InitcodeTooLarge {
        /// How long it is.
        size: usize,
        /// How long it may be.
        max: usize,
    },
    /// A known selector with arguments that are not strictly encoded.
    #[error("`data`: {0}")]
    Calldata(#[from] CalldataError),
    /// A signed transaction's signature is out of range or malleable.
    #[error("signature: {0}")]
    Signature(#[from] SignatureError),
    /// A signed transaction's `v` is none that its type has.
    #[error("`v` is `{v}`, which {kind} does not have")]
    BadV {
        /// The type of transaction.
        kind: &'static str,
        /// What came.
        v: u64,
    },
}

/// What is wrong with an RLP item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RlpProblem {
    /// The item, or the number in it, is larger than its place allows.
    #[error("too large for its place")]
    TooLarge,
    /// An integer or a length that begins with a zero byte.
    #[error("leading zero")]
    LeadingZero,
    /// The length that is declared reaches past the end.
    #[error("reaches past the end of the input")]
    TooShort,
    /// A length or a single byte that has a shorter encoding.
    #[error("longer encoding than needed")]
    NotCanonical,
    /// A string of another length than its place demands.
    #[error("of another length than its place demands")]
    WrongLength,
    /// A string where a list belongs.
    #[error("a string where a list belongs")]
    NotAList,
    /// A list where a string belongs.
    #[error("a list where a string belongs")]
    NotAString,
    /// Anything else that the decoder refuses.
    #[error("not valid in its place")]
    Invalid,
}

impl From<alloy_rlp::Error> for RlpProblem {
    fn from(error: alloy_rlp::Error) -> Self {
        use alloy_rlp::Error;
        match error {
            Error::Overflow => Self::TooLarge,
            Error::LeadingZero => Self::LeadingZero,
            Error::InputTooShort => Self::TooShort,
            Error::NonCanonicalSingleByte | Error::NonCanonicalSize => Self::NotCanonical,
            Error::UnexpectedLength | Error::ListLengthMismatch { .. } => Self::WrongLength,
            Error::UnexpectedString => Self::NotAList,
            Error::UnexpectedList => Self::NotAString,
            Error::Custom(_) => Self::Invalid,
        }
    }
}
