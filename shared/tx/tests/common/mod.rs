//! Reading vectors, recovering a signer, and building RLP by hand.
#![allow(dead_code, unreachable_pub)]

pub mod typed_data;

use std::io::Read as _;
use std::path::PathBuf;

use alloy_rlp::{Encodable, Header};
use casemate_tx::{
    EvmAddress, EvmError, EvmSignature, TxError, TypedDataError, evm_address_from_sec1,
};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use serde_json::Value;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name)
}

pub fn read_json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

pub fn read_gz(name: &str) -> Value {
    let file = std::fs::File::open(path(name)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

pub fn recover(digest: [u8; 32], signature: &EvmSignature) -> EvmAddress {
    let r_s = Signature::from_slice(&signature.r_s()).unwrap();
    let id = RecoveryId::new(signature.y_parity(), false);
    let key = VerifyingKey::recover_from_prehash(&digest, &r_s, id).unwrap();
    evm_address_from_sec1(&key.to_sec1_bytes()).unwrap()
}

/// The refusal of a transaction.
pub fn evm_error(result: Result<impl core::fmt::Debug, TxError>) -> EvmError {
    match result {
        Err(TxError::Evm(error)) => error,
        other => panic!("not refused as a transaction: {other:?}"),
    }
}

/// The refusal of typed data.
pub fn typed_data_error(result: Result<impl core::fmt::Debug, TxError>) -> TypedDataError {
    match result {
        Err(TxError::TypedData(error)) => error,
        other => panic!("not refused as typed data: {other:?}"),
    }
}

/// One RLP item.
pub fn item(value: impl Encodable) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// A list of items that are encoded already.
pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let payload = items.concat();
    let mut out = Vec::new();
    Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend(payload);
    out
}

/// What the built transactions call.
pub const TOKEN: [u8; 20] = [0x83; 20];
/// Whom they pay.
pub const PAYEE: [u8; 20] = [0x22; 20];

/// The fields of an EIP-1559 transaction of 1 wei, each an RLP item: chainId, nonce,
/// maxPriorityFeePerGas, maxFeePerGas, gasLimit, to, value, data, accessList.
pub fn eip1559_fields() -> Vec<Vec<u8>> {
    vec![
        item(8_453_u64),
        item(7_u64),
        item(1_000_u64),
        item(2_000_u64),
        item(100_000_u64),
        item(PAYEE.as_slice()),
        item(1_u64),
        item([].as_slice()),
        list(&[]),
    ]
}

/// Its bytes.
pub fn eip1559(fields: &[Vec<u8>]) -> Vec<u8> {
    [vec![2], list(fields)].concat()
}

/// The bytes of that transaction with one field replaced.
pub fn eip1559_with(index: usize, field: Vec<u8>) -> Vec<u8> {
    let mut fields = eip1559_fields();
    fields[index] = field;
    eip1559(&fields)
}

/// The fields of the same as a legacy transaction: nonce, gasPrice, gasLimit, to, value, data,
/// chainId, r, s.
pub fn legacy_fields() -> Vec<Vec<u8>> {
    vec![
        item(7_u64),
        item(2_000_u64),
        item(100_000_u64),
        item(PAYEE.as_slice()),
        item(1_u64),
        item([].as_slice()),
        item(8_453_u64),
        item(0_u64),
        item(0_u64),
    ]
}

/// A call of the token without value.
pub fn token_call(data: &[u8]) -> Vec<u8> {
    let mut fields = eip1559_fields();
    fields[5] = item(TOKEN.as_slice());
    fields[6] = item(0_u64);
    fields[7] = item(data);
    eip1559(&fields)
}

/// A selector and words.
pub fn calldata(selector: [u8; 4], words: &[[u8; 32]]) -> Vec<u8> {
    [selector.as_slice(), words.concat().as_slice()].concat()
}

/// An address as an ABI word.
pub fn address_word(address: [u8; 20]) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address);
    word
}

/// A number as an ABI word.
pub fn number_word(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}
