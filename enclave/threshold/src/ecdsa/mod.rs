//! ECDSA over secp256k1 by cait-sith 0.8.0.
//!
//! Key generation, resharing, triples, presigning and signing are the library's; its rules are
//! ours to keep: see `docs/decisions/0004-cait-sith.md` for each and where it is kept.

mod keygen;
mod sign;
mod stock;
mod triples;

use k256::{
    AffinePoint, PublicKey, Scalar,
    ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier},
    elliptic_curve::sec1::ToEncodedPoint,
};
use zeroize::Zeroizing;

pub use keygen::{EcdsaKeygen, EcdsaKeygenRun, EcdsaPublic};
pub use sign::{EcdsaSign, EcdsaSignRun, EcdsaSignature};
pub use stock::{StockError, TripleStock};
pub use triples::{TriplePair, TripleRun, Triples};

use crate::{key, run::sealed::Sealed};

/// A share of a secp256k1 key.
pub struct EcdsaShare {
    pub(crate) secret: Zeroizing<Scalar>,
    pub(crate) public: AffinePoint,
}

/// A secp256k1 key that may not sign yet.
pub type PendingEcdsaKey = key::PendingKey<EcdsaShare>;
/// A secp256k1 key that signs, given a permit.
pub type LiveEcdsaKey = key::LiveKey<EcdsaShare>;

impl std::fmt::Debug for EcdsaShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EcdsaShare(<redacted>)")
    }
}

impl EcdsaShare {
    /// The group's public key: SEC1, compressed.
    pub(crate) fn sec1(&self) -> [u8; 33] {
        sec1(&self.public)
    }
}

pub(crate) fn sec1(point: &AffinePoint) -> [u8; 33] {
    let mut out = [0; 33];
    let encoded = point.to_encoded_point(true);
    // the identity, which no run yields, has one byte and stays zeros, which decode as no key
    if let Ok(bytes) = <[u8; 33]>::try_from(encoded.as_bytes()) {
        out = bytes;
    }
    out
}

impl Sealed for EcdsaShare {}

impl key::Share for EcdsaShare {
    const SCHEME: casemate_proto::Scheme = casemate_proto::Scheme::EcdsaSecp256k1;

    fn public_key(&self) -> Vec<u8> {
        self.sec1().to_vec()
    }

    fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        verify_ecdsa(&self.sec1(), digest, signature)
    }
}

/// Whether `signature` (r‖s) is valid for a digest under a SEC1 public key, with s in the lower
/// half of the group's order: the other half is refused, so that a signature has one form.
#[must_use]
pub fn verify_ecdsa(public_key: &[u8], digest: &[u8; 32], signature: &[u8; 64]) -> bool {
    let Ok(key) = PublicKey::from_sec1_bytes(public_key) else { return false };
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    signature.normalize_s().is_none()
        && VerifyingKey::from(key).verify_prehash(digest, &signature).is_ok()
}
