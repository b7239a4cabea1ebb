//! Signatures of Casemate's keys, and the proof that one was verified.
//!
//! Whoever makes a signature verifies it, and whoever records one verifies it too. Where both are the same
//! enclave the second time says nothing new: a [`VerifiedSignature`] is the first one's result, holds everything that was
//! verified, and comes from nowhere but the check.

use crate::{Scheme, bip340};

/// Whether a plain signature is valid for a message: ECDSA r‖s with low s over a digest of 32 bytes,
/// Ed25519 strictly (no point of small order, S reduced, no cofactor), or BIP-340 under the x coordinate of an
/// even point.
#[must_use]
pub fn verify(scheme: Scheme, public_key: &[u8], message: &[u8], signature: &[u8; 64]) -> bool {
    match scheme {
        Scheme::EcdsaSecp256k1 => {
            use k256::ecdsa::signature::hazmat::PrehashVerifier;
            let (Ok(key), Ok(signature), 32) = (
                k256::ecdsa::VerifyingKey::from_sec1_bytes(public_key),
                k256::ecdsa::Signature::from_slice(signature),
                message.len(),
            ) else {
                return false;
            };
            signature.normalize_s().is_none() && key.verify_prehash(message, &signature).is_ok()
        }
        Scheme::Ed25519 => {
            let Ok(bytes) = <[u8; 32]>::try_from(public_key) else { return false };
            ed25519_dalek::VerifyingKey::from_bytes(&bytes).is_ok_and(|key| {
                key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
            })
        }
        Scheme::Bip340Secp256k1 => bip340::x_only(public_key)
            .is_some_and(|x_only| bip340::verify(&x_only, message, signature)),
    }
}

/// A signature that was found to be valid, with all that it was found to be valid for. Made by
/// [`VerifiedSignature::verify`] only.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedSignature {
    scheme: Scheme,
    public_key: Vec<u8>,
    message: Vec<u8>,
    signature: [u8; 64],
}

/// Without the signature: it is nobody's before its entry is in the log.
impl core::fmt::Debug for VerifiedSignature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VerifiedSignature").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl VerifiedSignature {
    /// Verifies a signature; `None` if it is not valid.
    #[must_use]
    pub fn verify(
        scheme: Scheme,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8; 64],
    ) -> Option<Self> {
        verify(scheme, public_key, message, signature).then(|| Self {
            scheme,
            public_key: public_key.to_vec(),
            message: message.to_vec(),
            signature: *signature,
        })
    }

    /// Whether it was this very signature, by this key, of this message, by this scheme, that was verified.
    #[must_use]
    pub fn is_of(
        &self,
        scheme: Scheme,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8; 64],
    ) -> bool {
        self.scheme == scheme
            && self.public_key == public_key
            && self.message == message
            && self.signature == *signature
    }

    /// The signature.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 64] {
        &self.signature
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn proof_is_of_exactly_what_was_verified() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        let (message, signature) = ([1; 32], key.sign(&[1; 32]).to_bytes());
        let scheme = Scheme::Ed25519;
        let verified = VerifiedSignature::verify(scheme, &public, &message, &signature).unwrap();
        assert!(verified.is_of(scheme, &public, &message, &signature));
        assert_eq!(verified.bytes(), &signature);
        let mut changed = signature;
        changed[40] ^= 1;
        assert!(!verified.is_of(scheme, &other, &message, &signature));
        assert!(!verified.is_of(scheme, &public, &[2; 32], &signature));
        assert!(!verified.is_of(scheme, &public, &message[1..], &signature));
        assert!(!verified.is_of(scheme, &public, &message, &changed));
        assert!(!verified.is_of(Scheme::Bip340Secp256k1, &public, &message, &signature));
        for (key, message, signature) in [
            (&other, message, signature),
            (&public, [2; 32], signature),
            (&public, message, changed),
        ] {
            assert_eq!(VerifiedSignature::verify(scheme, key, &message, &signature), None);
        }
    }

    #[test]
    fn ecdsa_signs_digests_of_32_bytes_only() {
        use k256::ecdsa::signature::hazmat::PrehashSigner as _;
        let key = k256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap();
        let public = key.verifying_key().to_sec1_bytes();
        for length in [16, 32, 48] {
            let digest = vec![3; length];
            let signature: k256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
            let signature = signature.normalize_s().unwrap_or(signature);
            let plain: [u8; 64] = signature.to_bytes().into();
            let valid = verify(Scheme::EcdsaSecp256k1, &public, &digest, &plain);
            assert_eq!(valid, length == 32);
        }
    }
}
