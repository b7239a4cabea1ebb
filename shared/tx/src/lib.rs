//! Bytes to intent: what a payload does, read inside the enclave (invariant I3).
//!
//! Two decoders, [`decode_evm`] for unsigned transactions and [`decode_typed_data`] for EIP-712.
//! Both take the caller's bytes, build a value out of the fields they understand, derive the
//! digest **from that value** and never from the bytes, and refuse whatever the value does not
//! account for: trailing bytes, second encodings of one number, members that no type declares.
//! So nothing can be signed that the [`Intent`] in the policy's hands does not describe.
//!
//! A decoded value has private fields and no other constructor: holding an [`EvmTransaction`] or
//! a [`TypedData`] is the proof that the checks were made.

pub mod eip712;
pub mod evm;
pub mod intent;
pub mod signature;

use casemate_proto::DenialCode;

pub use eip712::{TypedData, TypedDataError, TypedDataSummary, decode_typed_data};
pub use evm::{
    EvmError, EvmTransaction, SignedEvm, TransactionSummary, decode_evm, decode_signed_evm,
};
pub use intent::{Action, AssetRef, Domain, EvmAddress, Intent, Validity};
pub use signature::{EvmSignature, SignatureError, evm_address_from_sec1};

/// Why a payload is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// As an EVM transaction.
    #[error("evm transaction: {0}")]
    Evm(#[from] EvmError),
    /// As EIP-712 typed data.
    #[error("typed data: {0}")]
    TypedData(#[from] TypedDataError),
}

impl TxError {
    /// The code that a requester is given.
    #[must_use]
    pub const fn denial_code(&self) -> DenialCode {
        match self {
            Self::Evm(EvmError::TooLarge { .. })
            | Self::TypedData(TypedDataError::TooLarge { .. }) => DenialCode::TooLarge,
            Self::Evm(_) | Self::TypedData(_) => DenialCode::Malformed,
        }
    }
}
