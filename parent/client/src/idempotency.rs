//! What follows from a caller's own idempotency key, so that a retry cannot pay twice.
//!
//! ```text
//! request id    = the first 16 bytes of H("casemate/idempotency/v1", genesis, credential, key)
//! EIP-3009 nonce = H("casemate/eip3009-nonce/v1", genesis, credential, key)
//! ```
//!
//! with `H` the tagged hash. A caller that crashed and does not know whether it asked asks again
//! under the same key: the cluster gives the same outcome for the same request id, and the token's
//! contract takes one authorization for each nonce.

use casemate_proto::hash::tagged_hash;
use casemate_proto::{CredentialId, GenesisId, RequestId};

/// Most bytes of an idempotency key.
pub const MAX_KEY: usize = 255;

/// Not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {MAX_KEY} bytes; this has {size}")]
pub struct IdempotencyKeyError {
    /// How many it has.
    pub size: usize,
}

/// A caller's own name for one payment or one request, the same at every retry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdempotencyKey(Vec<u8>);

impl IdempotencyKey {
    /// Takes any bytes, such as an order's number.
    ///
    /// # Errors
    /// If they are none or too many.
    pub fn new(key: impl Into<Vec<u8>>) -> Result<Self, IdempotencyKeyError> {
        let key = key.into();
        match key.len() {
            1..=MAX_KEY => Ok(Self(key)),
            size => Err(IdempotencyKeyError { size }),
        }
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self, genesis: &GenesisId, credential: &CredentialId) -> RequestId {
        let hash = self.hash("casemate/idempotency/v1", genesis, credential);
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        RequestId::new(id)
    }

    /// The nonce of an EIP-3009 authorization.
    #[must_use]
    pub fn eip3009_nonce(&self, genesis: &GenesisId, credential: &CredentialId) -> [u8; 32] {
        self.hash("casemate/eip3009-nonce/v1", genesis, credential)
    }

    fn hash(&self, tag: &str, genesis: &GenesisId, credential: &CredentialId) -> [u8; 32] {
        let parts: [&[u8]; 3] = [genesis.as_bytes(), credential.0.as_bytes(), &self.0];
        *tagged_hash(tag, &parts).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_proto::Hash32;

    /// The vector of docs/FORMATS.md, computed by a program that shares no code with this one.
    #[test]
    fn derivation_is_as_documented() {
        let key = IdempotencyKey::new("order-4711").unwrap();
        let genesis = GenesisId::new([0x11; 32]);
        let credential = CredentialId(Hash32::new([0x22; 32]));
        assert_eq!(key.request_id(&genesis, &credential).to_hex(), VECTOR_ID);
        assert_eq!(hex::encode(key.eip3009_nonce(&genesis, &credential)), VECTOR_NONCE);
    }
    const VECTOR_ID: &str = "0x7e03b1160308ad650b4b0c90a8e15c69";
    const VECTOR_NONCE: &str = "069c4d817397f44bee9bd8cee5d9d6254c008a7af070b61f0d36b58645d0a731";

    #[test]
    fn cluster_credential_and_key_each_change_both() {
        let derive = |genesis: u8, credential: u8, key: &str| {
            let key = IdempotencyKey::new(key).unwrap();
            let credential = CredentialId(Hash32::new([credential; 32]));
            let genesis = GenesisId::new([genesis; 32]);
            (key.request_id(&genesis, &credential), key.eip3009_nonce(&genesis, &credential))
        };
        let base = derive(1, 1, "a");
        assert_eq!(base, derive(1, 1, "a"));
        for other in [derive(2, 1, "a"), derive(1, 2, "a"), derive(1, 1, "b")] {
            assert!(base.0 != other.0 && base.1 != other.1);
        }
    }

    #[test]
    fn empty_and_long_keys_are_refused() {
        assert_eq!(IdempotencyKey::new(""), Err(IdempotencyKeyError { size: 0 }));
        assert!(IdempotencyKey::new([7; MAX_KEY]).is_ok());
        assert_eq!(IdempotencyKey::new([7; 256]), Err(IdempotencyKeyError { size: 256 }));
    }
}
