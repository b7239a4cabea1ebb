//! Credentials: the public keys that requesters, approvers, governors and freezers sign with.

use core::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::ids::Hash32;

/// A credential's signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Algorithm {
    /// ECDSA over P-256 with SHA-256; signatures are r‖s, 64 bytes.
    #[n(1)]
    P256,
    /// Ed25519, 64-byte signatures.
    #[n(2)]
    Ed25519,
    /// A WebAuthn passkey with a P-256 key: it signs approvals only.
    #[n(3)]
    WebauthnP256,
}

impl Algorithm {
    /// The byte that stands for it in a credential id's preimage.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::P256 => 1,
            Self::Ed25519 => 2,
            Self::WebauthnP256 => 3,
        }
    }
    /// The name used in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::Ed25519 => "ed25519",
            Self::WebauthnP256 => "webauthn-p256",
        }
    }
    /// The algorithm of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::P256, Self::Ed25519, Self::WebauthnP256].into_iter().find(|a| a.name() == name)
    }
}

/// A credential's id: SHA-256(algorithm byte ‖ public key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct CredentialId(#[n(0)] pub Hash32);

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialId({})", self.0)
    }
}

/// A public key that is a valid point of its algorithm: 33 bytes SEC1 compressed for P-256,
/// 32 bytes for Ed25519 (not of small order).
///
/// It is read once, when it is made: finding a point's other coordinate would otherwise be a third of what verifying
/// a signature takes. It is its algorithm and bytes all the same: they alone are compared and encoded.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
    verifier: Verifier,
}

/// A key as the code reads it that verifies with it.
#[derive(Clone)]
enum Verifier {
    P256(ParsedPublicKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl Verifier {
    fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::P256 | Algorithm::WebauthnP256 => {
                // by both: who signs with such keys uses other libraries than who verifies
                p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok()?;
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).ok().map(Self::P256)
            }
            Algorithm::Ed25519 => {
                let array = <[u8; 32]>::try_from(bytes).ok()?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(&array).ok()?;
                (!key.is_weak()).then_some(Self::Ed25519(key))
            }
        }
    }
}

/// Why a public key or a signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not a key of the algorithm.
    #[error("`{input}` is not a {} public key: {} bytes of hex, a valid point", .algorithm.name(), .expected)]
    BadKey {
        /// The algorithm.
        algorithm: Algorithm,
        /// The beginning of the key as hex.
        input: String,
        /// How many bytes such a key has.
        expected: usize,
    },
    /// The signature does not verify.
    #[error("the signature does not verify under credential {credential}")]
    BadSignature {
        /// Whose key it was checked with.
        credential: CredentialId,
    },
    /// A passkey was used where only a plain signature is accepted.
    #[error("credential {credential} is a passkey, which signs approvals only")]
    PasskeyOnly {
        /// The passkey.
        credential: CredentialId,
    },
}

impl PublicKey {
    /// From an algorithm and the key's bytes, which are checked.
    ///
    /// # Errors
    /// If they are not a key of that algorithm.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, CredentialError> {
        let expected = if algorithm == Algorithm::Ed25519 { 32 } else { 33 };
        let wrong = || CredentialError::BadKey {
            algorithm,
            input: hex::encode(bytes).chars().take(80).collect(),
            expected,
        };
        if bytes.len() != expected {
            return Err(wrong());
        }
        let verifier = Verifier::new(algorithm, bytes).ok_or_else(wrong)?;
        Ok(Self { algorithm, bytes: bytes.to_vec(), verifier })
    }

    /// From an algorithm and hex, with or without `0x`.
    ///
    /// # Errors
    /// If they are not a key of that algorithm.
    pub fn from_hex(algorithm: Algorithm, text: &str) -> Result<Self, CredentialError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let bytes = hex::decode(digits).map_err(|_| CredentialError::BadKey {
            algorithm,
            input: text.chars().take(80).collect(),
            expected: if algorithm == Algorithm::Ed25519 { 32 } else { 33 },
        })?;
        Self::new(algorithm, &bytes)
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// Its id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        let preimage = [&[self.algorithm.code()][..], &self.bytes].concat();
        CredentialId(Hash32::new(crate::hash::sha256(&preimage)))
    }

    /// Checks a plain 64-byte signature over `message`. ECDSA takes either s: the signature is
    /// never an identifier here. Ed25519 is checked strictly (RFC 8032, canonical, no weak key).
    ///
    /// # Errors
    /// If it does not verify, or the credential is a passkey.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), CredentialError> {
        if self.algorithm == Algorithm::WebauthnP256 {
            return Err(CredentialError::PasskeyOnly { credential: self.id() });
        }
        self.verify_as_any(message, signature)
    }

    /// Checks a signature whatever the credential is for; a WebAuthn assertion's own
    /// signature is checked with it.
    pub(crate) fn verify_as_any(
        &self,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), CredentialError> {
        let verifies = match &self.verifier {
            Verifier::P256(key) => key.verify_sig(message, signature).is_ok(),
            Verifier::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_bytes(signature);
                key.verify_strict(message, &signature).is_ok()
            }
        };
        if verifies { Ok(()) } else { Err(CredentialError::BadSignature { credential: self.id() }) }
    }

    fn identity(&self) -> (Algorithm, &[u8]) {
        (self.algorithm, &self.bytes)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}
impl Eq for PublicKey {}
impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:0x{}", self.algorithm.name(), hex::encode(&self.bytes))
    }
}
impl<C> Encode<C> for PublicKey {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?;
        self.algorithm.encode(e, c)?;
        e.bytes(&self.bytes)?.ok()
    }
}
impl<'b, C> Decode<'b, C> for PublicKey {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        if d.array()? != Some(2) {
            return Err(decode::Error::message("a public key is an array of two").at(at));
        }
        let algorithm = Algorithm::decode(d, c)?;
        Self::new(algorithm, d.bytes()?)
            .map_err(|_| decode::Error::message("not a valid public key").at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_small_order_wrong_length_or_off_the_curve_are_refused() {
        assert!(PublicKey::new(Algorithm::Ed25519, &[0; 32]).is_err());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(PublicKey::new(Algorithm::Ed25519, &one).is_err());
        assert!(PublicKey::new(Algorithm::P256, &[2; 32]).is_err());
        assert!(PublicKey::new(Algorithm::P256, &[0xff; 33]).is_err());
    }

    /// Keys are read by one library and signatures verified by another: they must mean the same.
    #[test]
    fn p256_signatures_that_verify_are_those_that_verify_by_another_library() {
        use p256::ecdsa::signature::{Signer as _, Verifier as _};
        let order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
        let order = order.unwrap();
        for seed in 1..=20_u8 {
            let secret = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap();
            let theirs = *secret.verifying_key();
            let point = theirs.to_encoded_point(true);
            let ours = PublicKey::new(Algorithm::P256, point.as_bytes()).unwrap();
            let signature: p256::ecdsa::Signature = secret.sign(&[seed]);
            let plain: [u8; 64] = signature.to_bytes().into();
            let mut all = vec![plain, [0; 64], [0xff; 64]];
            if let Some(low) = signature.normalize_s() {
                all.push(low.to_bytes().into());
            } else {
                let high = p256::ecdsa::Signature::from_scalars(*signature.r(), -*signature.s());
                all.push(high.unwrap().to_bytes().into());
            }
            for half in [0..32, 32..64] {
                for bytes in [&[0; 32][..], &order[..], &[0xff; 32][..]] {
                    let mut changed = plain;
                    changed[half.clone()].copy_from_slice(bytes);
                    all.push(changed);
                }
            }
            for byte in 0..64 {
                let mut changed = plain;
                changed[byte] ^= seed;
                all.push(changed);
            }
            for (number, signature) in all.iter().enumerate() {
                let by_them = p256::ecdsa::Signature::from_slice(signature)
                    .is_ok_and(|signature| theirs.verify(&[seed], &signature).is_ok());
                assert_eq!(ours.verify(&[seed], signature).is_ok(), by_them, "{seed} {number}");
                // as it was made, and with its other s
                assert_eq!(by_them, number == 0 || number == 3, "{seed} {number}");
                assert!(ours.verify(&[seed, 0], signature).is_err(), "{seed} {number}");
            }
        }
    }
}
