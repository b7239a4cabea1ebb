//! Reading vectors, and recovering a signer with a library that the crate's path does not use.
#![allow(dead_code, unreachable_pub)]

use std::io::Read as _;
use std::path::PathBuf;

use casemate_tx::{EvmAddress, EvmSignature, evm_address_from_sec1};
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
