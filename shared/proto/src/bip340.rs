//! BIP-340: keys of 32 bytes and the check of a signature.
//!
//! A BIP-340 key is an x coordinate and means the even one of the curve's two points there. Ledger
//! and records hold the 33 bytes of that point (SEC1, compressed, first byte 02), because children
//! are derived from points; [`x_only`] is what verifiers and people take.
//!
//! There is one check for enclaves, ledgers and auditors: k256's, which shares no code with the
//! library that signs but the curve's arithmetic.

use k256::schnorr::{Signature, VerifyingKey};

/// First byte of a point's compressed form whose y is even.
pub const EVEN: u8 = 0x02;

/// The x coordinate of a key as the ledger has it; none if the 33 bytes are not an even point of
/// the curve.
#[must_use]
pub fn x_only(public_key: &[u8]) -> Option<[u8; 32]> {
    let (&first, x) = public_key.split_first()?;
    let x = <[u8; 32]>::try_from(x).ok()?;
    (first == EVEN && VerifyingKey::from_bytes(&x).is_ok()).then_some(x)
}

/// Whether `signature` (R.x‖s) is valid for `message` under the key of this x coordinate.
///
/// An x that is on no point, an r that is no field element and an s that is zero or not below the
/// order make it invalid.
#[must_use]
pub fn verify(x_only: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(x_only) else { return false };
    let Ok(signature) = Signature::try_from(signature.as_slice()) else { return false };
    key.verify_raw(message, &signature).is_ok()
}
