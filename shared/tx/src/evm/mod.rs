//! EVM transactions: unsigned bytes to intent, and a signature back into a raw transaction.
//!
//! Accepted, each as a wallet library serialises it for signing:
//!
//! | type | bytes |
//! |---|---|
//! | legacy with EIP-155 | `rlp([nonce, gasPrice, gasLimit, to, value, data, chainId, 0, 0])` |
//! | EIP-2930 | `0x01 ‖ rlp([chainId, nonce, gasPrice, gasLimit, to, value, data, accessList])` |
//! | EIP-1559 | `0x02 ‖ rlp([chainId, nonce, maxPriorityFeePerGas, maxFeePerGas, gasLimit, to, value, data, accessList])` |
//!
//! The digest is keccak-256 over the *encoding of the decoded fields*, which must also equal the
//! input byte for byte. Blob transactions (EIP-4844) and account delegations (EIP-7702) are
//! refused, as is a legacy transaction without a chain id, which every chain would accept.
//!
//! What no chain would include is refused too, since a limit is charged before a signature is
//! made: gas below the intrinsic cost, a tip above the highest price, creation code past
//! EIP-3860, nonces past EIP-2681.

mod calldata;
mod error;
mod fields;
mod signed;

use alloy_consensus::{
    SignableTransaction, Transaction as _, TxEip1559, TxEip2930, TxLegacy,
    transaction::RlpEcdsaEncodableTx as _,
};
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Bytes, TxKind, U256, keccak256};
use casemate_proto::{Amount, ChainId};

use crate::{Action, AssetRef, EvmAddress, EvmSignature, Intent, TxError};

pub use calldata::CalldataError;
pub use error::{EvmError, RlpProblem};
pub use signed::{SignedEvm, decode_signed_evm};

use fields::Fields;

/// The most bytes an unsigned transaction may have: 64 KiB, what a request's body may hold. (A
/// transaction of 128 KiB is the most that Ethereum's nodes relay.)
pub const MAX_TRANSACTION_BYTES: usize = 64 * 1024;
/// The largest chain id whose `35 + 2 × id + parity` fits 64 bits (EIP-2294).
pub const MAX_CHAIN_ID: u64 = u64::MAX / 2 - 36;
/// The most gas that a block's header may state: 2⁶³ − 1 (go-ethereum's `MaxGasLimit`).
pub const MAX_GAS_LIMIT: u64 = u64::MAX / 2;
/// The longest creation code (EIP-3860).
pub const MAX_INITCODE_BYTES: usize = 49_152;

/// The types of transaction that are signed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum TransactionType {
    /// Before EIP-2718, with the chain id of EIP-155.
    #[serde(rename = "legacy")]
    Legacy,
    /// With an access list (EIP-2930).
    #[serde(rename = "eip2930")]
    Eip2930,
    /// With a dynamic fee (EIP-1559).
    #[serde(rename = "eip1559")]
    Eip1559,
}

const LEGACY_FIELDS: &[&str] =
    &["nonce", "gasPrice", "gasLimit", "to", "value", "data", "chainId", "r", "s"];
const EIP2930_FIELDS: &[&str] =
    &["chainId", "nonce", "gasPrice", "gasLimit", "to", "value", "data", "accessList"];
const EIP1559_FIELDS: &[&str] = &[
    "chainId",
    "nonce",
    "maxPriorityFeePerGas",
    "maxFeePerGas",
    "gasLimit",
    "to",
    "value",
    "data",
    "accessList",
];
/// A signature's fields behind those of a typed transaction.
const SIGNATURE_FIELDS: usize = 3;

impl TransactionType {
    /// As it is called in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legacy => "a legacy transaction",
            Self::Eip2930 => "an EIP-2930 transaction",
            Self::Eip1559 => "an EIP-1559 transaction",
        }
    }

    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Legacy => LEGACY_FIELDS,
            Self::Eip2930 => EIP2930_FIELDS,
            Self::Eip1559 => EIP1559_FIELDS,
        }
    }

    /// Where the RLP list begins.
    const fn list_at(self) -> usize {
        match self {
            Self::Legacy => 0,
            Self::Eip2930 | Self::Eip1559 => 1,
        }
    }

    fn of(bytes: &[u8]) -> Result<Self, EvmError> {
        let first = *bytes.first().ok_or(EvmError::Empty)?;
        let refused = |name| EvmError::UnsupportedType { ty: first, name };
        match first {
            0x01 => Ok(Self::Eip2930),
            0x02 => Ok(Self::Eip1559),
            0xc0..=0xff => Ok(Self::Legacy),
            0x03 => Err(refused("a blob transaction (EIP-4844)")),
            0x04 => Err(refused("an account delegation (EIP-7702)")),
            0x05 => Err(refused("a delegation's authorization (EIP-7702)")),
            0x19 => Err(refused("a signed message or typed data (EIP-191, EIP-712)")),
            _ => Err(EvmError::UnknownType { first }),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Legacy(TxLegacy),
    Eip2930(TxEip2930),
    Eip1559(TxEip1559),
}

/// An unsigned transaction that passed every check, with the intent derived from it.
///
/// Made by [`decode_evm`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvmTransaction {
    body: Body,
    chain_id: u64,
    signing_hash: [u8; 32],
    intent: Intent,
    summary: TransactionSummary,
}

/// A transaction's fields as an approver sees them. Numbers are decimal strings in JSON, since
/// many readers of JSON keep only 53 bits.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TransactionSummary {
    /// The type of transaction.
    #[serde(rename = "type")]
    pub transaction_type: TransactionType,
    /// The chain's number (EIP-155).
    pub chain_id: Amount,
    /// The account's nonce.
    pub nonce: Amount,
    /// The account or contract that is called; `None` creates a contract.
    pub to: Option<EvmAddress>,
    /// Native asset that is sent, in wei.
    pub value: Amount,
    /// The most gas it may use.
    pub gas_limit: Amount,
    /// The highest price per gas, in wei; `gasPrice` before EIP-1559.
    pub max_fee_per_gas: Amount,
    /// The highest tip per gas, in wei; `None` before EIP-1559.
    pub max_priority_fee_per_gas: Option<Amount>,
    /// Gas limit × the highest price, in wei.
    pub max_fee: Amount,
    /// How many bytes of calldata or creation code.
    pub data_bytes: usize,
    /// The first four bytes of calldata, `0x`-prefixed, where there are that many.
    pub selector: Option<String>,
    /// How many addresses the access list names.
    pub access_list_addresses: usize,
    /// How many storage slots the access list names.
    pub access_list_slots: usize,
}

/// Decodes an unsigned transaction.
///
/// # Errors
/// [`TxError::Evm`], saying the field and the place, for anything but one canonical, unsigned
/// transaction of an accepted type that a chain could include.
pub fn decode_evm(unsigned: &[u8]) -> Result<EvmTransaction, TxError> {
    let body = Body::decode(unsigned)?;
    Ok(EvmTransaction::check(body)?)
}

impl EvmTransaction {
    /// What it does.
    #[must_use]
    pub const fn intent(&self) -> &Intent {
        &self.intent
    }

    /// The chain's number (EIP-155).
    #[must_use]
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Its fields, for people.
    #[must_use]
    pub const fn summary(&self) -> &TransactionSummary {
        &self.summary
    }

    /// What is signed: keccak-256 over the encoding of the decoded fields.
    #[must_use]
    pub const fn signing_hash(&self) -> [u8; 32] {
        self.signing_hash
    }

    /// The unsigned bytes, encoded from the decoded fields; they equal what was decoded.
    #[must_use]
    pub fn unsigned(&self) -> Vec<u8> {
        self.body.encode_unsigned()
    }

    /// The raw transaction with its signature, as `eth_sendRawTransaction` takes it.
    #[must_use]
    pub fn raw_signed(&self, signature: &EvmSignature) -> Vec<u8> {
        let mut out = Vec::new();
        let signature = signature.inner();
        match &self.body {
            Body::Legacy(tx) => tx.eip2718_encode(signature, &mut out),
            Body::Eip2930(tx) => tx.eip2718_encode(signature, &mut out),
            Body::Eip1559(tx) => tx.eip2718_encode(signature, &mut out),
        }
        out
    }

    /// The hash by which a chain knows the signed transaction.
    #[must_use]
    pub fn tx_hash(&self, signature: &EvmSignature) -> [u8; 32] {
        keccak256(self.raw_signed(signature)).0
    }

    fn check(body: Body) -> Result<Self, EvmError> {
        let common = body.common();
        if common.chain_id == 0 || common.chain_id > MAX_CHAIN_ID {
            return Err(EvmError::ChainId { chain_id: common.chain_id, max: MAX_CHAIN_ID });
        }
        if common.nonce == u64::MAX {
            return Err(EvmError::NonceTooLarge { nonce: common.nonce });
        }
        if let Some(priority) = common.max_priority_fee
            && priority > common.max_fee_per_gas
        {
            return Err(EvmError::PriorityFeeAboveMaxFee {
                priority,
                max_fee: common.max_fee_per_gas,
            });
        }
        check_gas(&common)?;
        let value = Amount::from_u256(common.value);
        let max_fee = Amount::from_u128(common.max_fee_per_gas)
            .checked_mul(common.gas_limit)
            .ok_or(EvmError::FeeOverflow)?;
        value.checked_add(max_fee).ok_or(EvmError::CostOverflow)?;

        let intent = read_intent(&common, value, max_fee)?;
        let summary = TransactionSummary {
            transaction_type: body.transaction_type(),
            chain_id: common.chain_id.into(),
            nonce: common.nonce.into(),
            to: recipient(common.to),
            value,
            gas_limit: common.gas_limit.into(),
            max_fee_per_gas: Amount::from_u128(common.max_fee_per_gas),
            max_priority_fee_per_gas: common.max_priority_fee.map(Amount::from_u128),
            max_fee,
            data_bytes: common.data.len(),
            selector: common.data.get(..4).map(|s| format!("0x{}", hex::encode(s))),
            access_list_addresses: common.access_list.map_or(0, |list| list.0.len()),
            access_list_slots: common.access_list.map_or(0, AccessList::storage_keys_count),
        };
        let (chain_id, signing_hash) = (common.chain_id, keccak256(body.encode_unsigned()).0);
        Ok(Self { body, chain_id, signing_hash, intent, summary })
    }
}

/// What all types have.
struct Common<'a> {
    chain_id: u64,
    nonce: u64,
    gas_limit: u64,
    max_fee_per_gas: u128,
    max_priority_fee: Option<u128>,
    to: TxKind,
    value: U256,
    data: &'a Bytes,
    access_list: Option<&'a AccessList>,
}

fn recipient(to: TxKind) -> Option<EvmAddress> {
    to.to().map(|address| EvmAddress(address.into_array()))
}

fn check_gas(common: &Common<'_>) -> Result<(), EvmError> {
    let gas_limit = common.gas_limit;
    if gas_limit == 0 {
        return Err(EvmError::GasLimitZero);
    }
    if gas_limit > MAX_GAS_LIMIT {
        return Err(EvmError::GasLimitTooLarge { gas_limit, max: MAX_GAS_LIMIT });
    }
    let size = common.data.len();
    if common.to.is_create() && size > MAX_INITCODE_BYTES {
        return Err(EvmError::InitcodeTooLarge { size, max: MAX_INITCODE_BYTES });
    }
    let intrinsic = intrinsic_gas(common);
    if gas_limit < intrinsic {
        return Err(EvmError::GasLimitBelowIntrinsic { gas_limit, intrinsic });
    }
    Ok(())
}

/// The gas that is used before the first instruction, as of Istanbul, Berlin and Shanghai
/// (EIP-2028, EIP-2930, EIP-3860). Later forks raise it (EIP-7623), which not every chain has.
fn intrinsic_gas(common: &Common<'_>) -> u64 {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let zeros = count(common.data.iter().filter(|&&b| b == 0).count());
    let others = count(common.data.len()).saturating_sub(zeros);
    let creation = if common.to.is_create() {
        count(common.data.len().div_ceil(32)).saturating_mul(2).saturating_add(32_000)
    } else {
        0
    };
    let (addresses, slots) = common
        .access_list
        .map_or((0, 0), |list| (count(list.0.len()), count(list.storage_keys_count())));
    [
        zeros.saturating_mul(4),
        others.saturating_mul(16),
        creation,
        addresses.saturating_mul(2_400),
        slots.saturating_mul(1_900),
    ]
    .into_iter()
    .fold(21_000, u64::saturating_add)
}

fn read_intent(common: &Common<'_>, value: Amount, max_fee: Amount) -> Result<Intent, EvmError> {
    let mut intent = Intent {
        action: Action::ContractCreation,
        chain: Some(ChainId::eip155(common.chain_id)),
        asset: None,
        payer: None,
        to: None,
        amount: Amount::ZERO,
        native_value: value,
        max_fee: Some(max_fee),
        domain: None,
        validity: None,
    };
    let Some(to) = recipient(common.to) else {
        return Ok(intent);
    };
    if common.data.is_empty() {
        intent.action = Action::EthNativeTransfer;
        intent.asset = Some(AssetRef::Native);
        intent.to = Some(to);
        intent.amount = value;
        intent.native_value = Amount::ZERO;
    } else if let Some(call) = calldata::read(common.data)? {
        intent.action = call.action;
        intent.asset = Some(AssetRef::Token(to));
        intent.payer = call.payer;
        intent.to = Some(call.to);
        intent.amount = call.amount;
    } else {
        intent.action = Action::ContractCall;
        intent.to = Some(to);
    }
    Ok(intent)
}

impl Body {
    /// Decodes the one canonical, unsigned form; what the fields say is not judged.
    fn decode(bytes: &[u8]) -> Result<Self, EvmError> {
        check_size(bytes)?;
        let ty = TransactionType::of(bytes)?;
        let mut fields = Fields::open(bytes, ty.list_at())?;
        let body = Self::read_unsigned(ty, &mut fields)?;
        // alloy-rlp refuses non-canonical encodings itself; this holds even where it should not
        same_bytes(&body.encode_unsigned(), bytes)?;
        Ok(body)
    }

    fn read_unsigned(ty: TransactionType, fields: &mut Fields<'_>) -> Result<Self, EvmError> {
        let (kind, expected) = (ty.name(), ty.fields().len());
        let got = fields.count(ty.fields())?;
        match ty {
            TransactionType::Legacy => {
                if got == 6 {
                    return Err(EvmError::NotReplayProtected);
                }
                if got != expected {
                    return Err(EvmError::FieldCount { kind, expected, got });
                }
                let mut tx = read_legacy(fields)?;
                tx.chain_id = Some(fields.next("chainId")?);
                // EIP-155 has zeros where the signature goes; anything else is one
                let (r, s): (U256, U256) = (fields.next("r")?, fields.next("s")?);
                if !r.is_zero() || !s.is_zero() {
                    return Err(EvmError::AlreadySigned { kind });
                }
                Ok(Self::Legacy(tx))
            }
            TransactionType::Eip2930 | TransactionType::Eip1559 => {
                if got == expected.saturating_add(SIGNATURE_FIELDS) {
                    return Err(EvmError::AlreadySigned { kind });
                }
                if got != expected {
                    return Err(EvmError::FieldCount { kind, expected, got });
                }
                read_typed(ty, fields)
            }
        }
    }

    const fn transaction_type(&self) -> TransactionType {
        match self {
            Self::Legacy(_) => TransactionType::Legacy,
            Self::Eip2930(_) => TransactionType::Eip2930,
            Self::Eip1559(_) => TransactionType::Eip1559,
        }
    }

    fn encode_unsigned(&self) -> Vec<u8> {
        match self {
            Self::Legacy(tx) => tx.encoded_for_signing(),
            Self::Eip2930(tx) => tx.encoded_for_signing(),
            Self::Eip1559(tx) => tx.encoded_for_signing(),
        }
    }

    fn common(&self) -> Common<'_> {
        match self {
            Self::Legacy(tx) => Common {
                chain_id: tx.chain_id.unwrap_or(0),
                nonce: tx.nonce,
                gas_limit: tx.gas_limit,
                max_fee_per_gas: tx.gas_price,
                max_priority_fee: None,
                to: tx.to,
                value: tx.value,
                data: &tx.input,
                access_list: None,
            },
            Self::Eip2930(tx) => Common {
                chain_id: tx.chain_id,
                nonce: tx.nonce,
                gas_limit: tx.gas_limit,
                max_fee_per_gas: tx.gas_price,
                max_priority_fee: None,
                to: tx.to,
                value: tx.value,
                data: &tx.input,
                access_list: tx.access_list(),
            },
            Self::Eip1559(tx) => Common {
                chain_id: tx.chain_id,
                nonce: tx.nonce,
                gas_limit: tx.gas_limit,
                max_fee_per_gas: tx.max_fee_per_gas,
                max_priority_fee: Some(tx.max_priority_fee_per_gas),
                to: tx.to,
                value: tx.value,
                data: &tx.input,
                access_list: tx.access_list(),
            },
        }
    }
}

fn check_size(bytes: &[u8]) -> Result<(), EvmError> {
    let size = bytes.len();
    if size > MAX_TRANSACTION_BYTES {
        return Err(EvmError::TooLarge { size, max: MAX_TRANSACTION_BYTES });
    }
    Ok(())
}

fn same_bytes(ours: &[u8], theirs: &[u8]) -> Result<(), EvmError> {
    if ours == theirs {
        return Ok(());
    }
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    Err(EvmError::NotCanonical { at })
}

/// The six fields of old, without a chain id.
fn read_legacy(fields: &mut Fields<'_>) -> Result<TxLegacy, EvmError> {
    Ok(TxLegacy {
        chain_id: None,
        nonce: fields.next("nonce")?,
        gas_price: fields.next("gasPrice")?,
        gas_limit: fields.next("gasLimit")?,
        to: fields.next_to()?,
        value: fields.next("value")?,
        input: fields.next("data")?,
    })
}

/// The fields of a typed transaction, up to the signature.
fn read_typed(ty: TransactionType, fields: &mut Fields<'_>) -> Result<Body, EvmError> {
    Ok(match ty {
        TransactionType::Legacy => Body::Legacy(read_legacy(fields)?),
        TransactionType::Eip2930 => Body::Eip2930(TxEip2930 {
            chain_id: fields.next("chainId")?,
            nonce: fields.next("nonce")?,
            gas_price: fields.next("gasPrice")?,
            gas_limit: fields.next("gasLimit")?,
            to: fields.next_to()?,
            value: fields.next("value")?,
            input: fields.next("data")?,
            access_list: fields.next("accessList")?,
        }),
        TransactionType::Eip1559 => Body::Eip1559(TxEip1559 {
            chain_id: fields.next("chainId")?,
            nonce: fields.next("nonce")?,
            max_priority_fee_per_gas: fields.next("maxPriorityFeePerGas")?,
            max_fee_per_gas: fields.next("maxFeePerGas")?,
            gas_limit: fields.next("gasLimit")?,
            to: fields.next_to()?,
            value: fields.next("value")?,
            input: fields.next("data")?,
            access_list: fields.next("accessList")?,
        }),
    })
}
