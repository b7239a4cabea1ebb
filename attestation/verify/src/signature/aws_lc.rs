//! The native back end.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use super::{PublicKey, VerifyEs384};
use crate::wire::SIGNATURE_BYTES;

pub(crate) struct AwsLc;

impl VerifyEs384 for AwsLc {
    fn verify(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.as_bytes())
            .verify(message, signature)
            .is_ok()
    }
}
