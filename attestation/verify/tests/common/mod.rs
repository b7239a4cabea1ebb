//! The genuine documents in `tests/vectors/attestation` and what is known of each.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod chain;
pub mod forge;
pub mod parts;

use std::{collections::BTreeMap, fs, path::PathBuf};

use casemate_attestation_verify::{AWS_NITRO_ENCLAVES_G1_PEM, Expectations, Pcr, TrustRoot};
use serde::Deserialize;

/// A document and the fields that other implementations read from it.
pub struct Genuine {
    pub bytes: Vec<u8>,
    pub known: Known,
}

#[derive(Deserialize)]
pub struct Known {
    pub name: String,
    pub length: usize,
    pub verified: bool,
    pub module_id: String,
    pub timestamp_ms: u64,
    pub pcrs: BTreeMap<String, String>,
    pub debug_pcr0_1_2_all_zero: bool,
    pub fields: Fields,
    pub leaf_not_after: String,
    pub chain_not_after: Vec<String>,
    pub region: String,
    pub payload_map_indefinite_length: bool,
    pub high_s: bool,
}

#[derive(Deserialize)]
pub struct Fields {
    pub public_key: Field,
    pub user_data: Field,
    pub nonce: Field,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Field {
    Word(String),
    Bytes {
        len: usize,
        #[serde(default)]
        hex: String,
    },
}

impl Field {
    /// The field as the verifier gives it: null and empty are absent.
    pub fn value(&self) -> Option<Vec<u8>> {
        match self {
            Self::Word(word) => {
                assert_eq!(word, "null");
                None
            }
            Self::Bytes { len, hex } => {
                let bytes = hex::decode(hex).unwrap();
                assert_eq!(bytes.len(), *len);
                Some(bytes).filter(|bytes| !bytes.is_empty())
            }
        }
    }
}

impl Known {
    pub fn pcrs(&self) -> BTreeMap<u8, Pcr> {
        self.pcrs.iter().map(|(index, hex)| (index.parse().unwrap(), pcr(hex))).collect()
    }
}

pub fn pcr(hex: &str) -> Pcr {
    Pcr::new(hex::decode(hex).unwrap().try_into().unwrap())
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/attestation")
}

/// Every document of the folder, in the order of their names.
pub fn all() -> Vec<Genuine> {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|path| {
            let known = fs::read_to_string(path.with_extension("json")).unwrap();
            let known: Known = serde_json::from_str(&known).unwrap();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len(), known.length, "{}", known.name);
            Genuine { bytes, known }
        })
        .collect()
}

/// Those whose signature is good; never none.
pub fn genuine() -> Vec<Genuine> {
    let genuine: Vec<_> = all().into_iter().filter(|document| document.known.verified).collect();
    assert!(genuine.len() >= 18, "{} genuine documents", genuine.len());
    genuine
}

pub fn named(name: &str) -> Genuine {
    all().into_iter().find(|document| document.known.name == name).unwrap()
}

pub fn aws() -> TrustRoot {
    TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM).unwrap()
}

/// Signature and chain alone.
pub fn anything() -> Expectations {
    Expectations::dangerous_any_measurement().dangerous_allow_debug()
}
