//! Documents that are malformed in one place, and what is found there.

use casemate_attestation_verify::{Evidence, Malformed, Refusal};
use casemate_sim::{DocumentSpec, PROTECTED_ES384, cbor, sig_structure};

use super::forge::Forge;

#[track_caller]
pub fn assert_malformed(outcome: Result<Evidence, Refusal>, expected: Malformed) {
    assert_eq!(outcome, Err(Refusal::Malformed(expected)));
}

/// Changes the document and expects that of it.
#[track_caller]
pub fn assert_broken(expected: Malformed, change: impl FnOnce(&mut DocumentSpec)) {
    assert_malformed(Forge::new().with_document(change), expected);
}

/// Sets one field of the payload and expects that of it.
#[track_caller]
pub fn assert_field(key: &str, value: Vec<u8>, expected: Malformed) {
    assert_broken(expected, |document| document.payload.set(key, value));
}

/// A signed document taken apart, to be put together in other ways.
pub struct Parts {
    pub protected: Vec<u8>,
    pub unprotected: Vec<u8>,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
}

impl Parts {
    pub fn new(forge: &Forge) -> Self {
        let issued = forge.host.issue(&forge.chain()).unwrap();
        let payload = forge.payload(&issued).encode();
        let signed = sig_structure(&PROTECTED_ES384, &payload);
        Self {
            protected: cbor::bytes(&PROTECTED_ES384),
            unprotected: cbor::map(&[]),
            payload: cbor::bytes(&payload),
            signature: cbor::bytes(&issued.leaf_key.sign_fixed(&signed).unwrap()),
        }
    }

    pub fn items(&self) -> [Vec<u8>; 4] {
        let Self { protected, unprotected, payload, signature } = self;
        [protected.clone(), unprotected.clone(), payload.clone(), signature.clone()]
    }
}
