//! Signed raw transactions, as seen on a chain: what an auditor compares with the log.

use alloy_consensus::transaction::to_eip155_value;
use alloy_primitives::U256;

use crate::{EvmSignature, TxError};

use super::{
    Body, EvmError, EvmTransaction, SIGNATURE_FIELDS, TransactionType, check_size, fields::Fields,
    read_legacy, read_typed, same_bytes,
};

/// A signed transaction, taken apart. Whose signature it is has not been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEvm {
    /// What was signed, held to the same rules as what is to be signed.
    pub transaction: EvmTransaction,
    /// The signature.
    pub signature: EvmSignature,
}

/// Takes a raw signed transaction apart, of the types that [`super::decode_evm`] accepts.
///
/// # Errors
/// [`TxError::Evm`] for anything but one canonical, signed transaction of an accepted type.
pub fn decode_signed_evm(raw: &[u8]) -> Result<SignedEvm, TxError> {
    let (body, signature) = decode(raw)?;
    let transaction = EvmTransaction::check(body)?;
    same_bytes(&transaction.raw_signed(&signature), raw)?;
    Ok(SignedEvm { transaction, signature })
}

fn decode(raw: &[u8]) -> Result<(Body, EvmSignature), EvmError> {
    check_size(raw)?;
    let ty = TransactionType::of(raw)?;
    let mut fields = Fields::open(raw, ty.list_at())?;
    let kind = ty.name();
    let got = fields.count(ty.fields())?;
    match ty {
        TransactionType::Legacy => {
            let expected = ty.fields().len();
            if got != expected {
                return Err(EvmError::FieldCount { kind, expected, got });
            }
            let mut tx = read_legacy(&mut fields)?;
            let v: u64 = fields.next("v")?;
            let (r, s): (U256, U256) = (fields.next("r")?, fields.next("s")?);
            if r.is_zero() && s.is_zero() {
                return Err(EvmError::NotSigned { kind });
            }
            if matches!(v, 27 | 28) {
                return Err(EvmError::NotReplayProtected);
            }
            let chain_id = v.checked_sub(35).map(|v| v / 2).ok_or(EvmError::BadV { kind, v })?;
            tx.chain_id = Some(chain_id);
            let y_parity = u128::from(v) == to_eip155_value(true, Some(chain_id));
            Ok((Body::Legacy(tx), EvmSignature::from_scalars(r, s, y_parity)?))
        }
        TransactionType::Eip2930 | TransactionType::Eip1559 => {
            let unsigned = ty.fields().len();
            let expected = unsigned.saturating_add(SIGNATURE_FIELDS);
            if got == unsigned {
                return Err(EvmError::NotSigned { kind });
            }
            if got != expected {
                return Err(EvmError::FieldCount { kind, expected, got });
            }
            let body = read_typed(ty, &mut fields)?;
            let y_parity = match fields.next("yParity")? {
                0_u64 => false,
                1 => true,
                v => return Err(EvmError::BadV { kind, v }),
            };
            let (r, s): (U256, U256) = (fields.next("r")?, fields.next("s")?);
            Ok((body, EvmSignature::from_scalars(r, s, y_parity)?))
        }
    }
}
