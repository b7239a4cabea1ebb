//! Domain-separated hashing: every hash names what it is a hash of.

use sha2::{Digest, Sha256};

use crate::ids::Hash32;

/// SHA-256 over `tag ‖ 0x00 ‖ (u64be length ‖ bytes)` for each part.
///
/// The length before each part keeps two lists of parts with the same concatenation apart; the
/// zero byte ends the tag, which therefore must not contain one.
#[must_use]
pub fn tagged_hash(tag: &str, parts: &[&[u8]]) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(tag.as_bytes());
    hasher.update([0]);
    for part in parts {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hasher.update(length.to_be_bytes());
        hasher.update(part);
    }
    Hash32::new(hasher.finalize().into())
}

/// What an enclave signs in place of a caller's message, so that a message can never be a
/// transaction: SHA-256("casemate/message/v1\0" ‖ genesis id ‖ message).
#[must_use]
pub fn message_digest(genesis: &crate::GenesisId, message: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"casemate/message/v1\0");
    hasher.update(genesis.as_bytes());
    hasher.update(message);
    hasher.finalize().into()
}

/// Plain SHA-256, for where an outside standard fixes the preimage.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
