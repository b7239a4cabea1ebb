//! The back end for wasm32.

use p384::ecdsa::{Signature, VerifyingKey, signature::Verifier};

use super::{PublicKey, VerifyEs384};
use crate::wire::SIGNATURE_BYTES;

pub(crate) struct RustCrypto;

impl VerifyEs384 for RustCrypto {
    fn verify(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let Ok(key) = VerifyingKey::from_sec1_bytes(key.as_bytes()) else { return false };
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        key.verify(message, &signature).is_ok()
    }
}
