//! ES384: ECDSA on P-384 with SHA-384, over one internal interface with two back ends.
//!
//! Natively that is aws-lc-rs; on wasm32, where it does not build, RustCrypto's p384. The choice
//! follows from the target alone, never from a feature. Both are compiled in the tests of this crate
//! and compared on good, altered and degenerate signatures.
//!
//! High-S signatures are accepted: close to half of the genuine documents carry one. A signature is
//! therefore malleable, and a document's hash is no identifier.

#[cfg(not(target_arch = "wasm32"))]
mod aws_lc;
#[cfg(any(test, target_arch = "wasm32"))]
mod rustcrypto;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use aws_lc::AwsLc as Backend;
#[cfg(target_arch = "wasm32")]
pub(crate) use rustcrypto::RustCrypto as Backend;

use crate::wire::SIGNATURE_BYTES;

/// Length of an uncompressed SEC1 point on P-384: `04 ‖ x ‖ y`.
const PUBLIC_KEY_BYTES: usize = 97;
/// SEC1's first byte of an uncompressed point.
const UNCOMPRESSED: u8 = 0x04;

/// A key in the one form that both back ends read alike: aws-lc-rs also takes the hybrid form (`06` or
/// `07` first), which p384 refuses.
pub(crate) struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// Takes an uncompressed SEC1 point, which need not lie on the curve.
    pub(crate) fn from_uncompressed(point: &[u8]) -> Option<Self> {
        let point: [u8; PUBLIC_KEY_BYTES] = point.try_into().ok()?;
        (point.first() == Some(&UNCOMPRESSED)).then_some(Self(point))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Verifies ES384 signatures.
pub(crate) trait VerifyEs384 {
    /// Whether `signature` (r ‖ s) is valid for `message` under `key`. A point off the curve verifies
    /// nothing.
    fn verify(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool;
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a big-endian subtraction of test values")]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use proptest::prelude::*;

    use super::{aws_lc::AwsLc, rustcrypto::RustCrypto, *};

    /// The order of P-384's group, big-endian (SEC 2, section 2.5.1).
    const ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffff\
                         c7634d81f4372ddf581a0db248b0a77aecec196accc52973";

    fn order() -> [u8; 48] {
        hex::decode(ORDER).unwrap().try_into().unwrap()
    }

    fn subtract(a: &[u8; 48], b: &[u8]) -> [u8; 48] {
        let mut difference = [0; 48];
        let mut borrow = 0i16;
        for index in (0..48).rev() {
            let digit = i16::from(a[index]) - i16::from(b[index]) - borrow;
            borrow = i16::from(digit < 0);
            difference[index] = u8::try_from(digit.rem_euclid(256)).unwrap();
        }
        difference
    }

    fn join(r: &[u8], s: &[u8]) -> [u8; SIGNATURE_BYTES] {
        [r, s].concat().try_into().unwrap()
    }

    struct Signed {
        key: [u8; PUBLIC_KEY_BYTES],
        message: Vec<u8>,
        signature: [u8; SIGNATURE_BYTES],
    }

    fn sign(message: &[u8]) -> Signed {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let signature = pair.sign(&SystemRandom::new(), message).unwrap();
        Signed {
            key: pair.public_key().as_ref().try_into().unwrap(),
            message: message.to_vec(),
            signature: signature.as_ref().try_into().unwrap(),
        }
    }

    fn both(key: &[u8; 97], message: &[u8], signature: &[u8; 96]) -> bool {
        let Some(key) = PublicKey::from_uncompressed(key) else { return false };
        let aws_lc = AwsLc::verify(&key, message, signature);
        assert_eq!(aws_lc, RustCrypto::verify(&key, message, signature), "the back ends differ");
        aws_lc
    }

    #[test]
    fn both_back_ends_accept_a_signature_with_either_s() {
        let Signed { key, message, signature } = sign(b"casemate");
        let (r, s) = signature.split_at(48);
        assert!(both(&key, &message, &signature));
        assert!(both(&key, &message, &join(r, &subtract(&order(), s))));
    }

    #[test]
    fn both_back_ends_refuse_a_flip_in_every_byte_of_the_signature_and_the_key() {
        let Signed { key, message, signature } = sign(b"casemate");
        for index in 0..signature.len() {
            let mut altered = signature;
            altered[index] ^= 0x01;
            assert!(!both(&key, &message, &altered), "byte {index} of the signature");
        }
        for index in 0..key.len() {
            let mut altered = key;
            altered[index] ^= 0x01;
            assert!(!both(&altered, &message, &signature), "byte {index} of the key");
        }
    }

    #[test]
    fn both_back_ends_refuse_zero_and_unreduced_scalars() {
        let Signed { key, message, signature } = sign(b"casemate");
        let (r, s) = signature.split_at(48);
        let zero = [0; 48];
        for (r, s) in [
            (r, &zero[..]),
            (&zero[..], s),
            (&zero[..], &zero[..]),
            (&order()[..], s),
            (r, &order()[..]),
            (&[0xff; 48][..], s),
            (r, &[0xff; 48][..]),
        ] {
            assert!(!both(&key, &message, &join(r, s)));
        }
    }

    #[test]
    fn a_key_in_any_form_but_the_uncompressed_is_refused() {
        let Signed { key, .. } = sign(b"casemate");
        assert!(PublicKey::from_uncompressed(&key).is_some());
        for first in (0..=u8::MAX).filter(|first| *first != UNCOMPRESSED) {
            let mut altered = key;
            altered[0] = first;
            assert!(PublicKey::from_uncompressed(&altered).is_none(), "first byte {first:#04x}");
        }
        let parity = [2 + (key[96] & 1)];
        assert!(PublicKey::from_uncompressed(&[&parity, &key[1..49]].concat()).is_none());
        assert!(PublicKey::from_uncompressed(&[&key[..], &[0]].concat()).is_none());
        assert!(PublicKey::from_uncompressed(&[]).is_none());
    }

    #[test]
    fn both_back_ends_refuse_a_point_off_the_curve() {
        let Signed { message, signature, .. } = sign(b"casemate");
        let mut off = [0; PUBLIC_KEY_BYTES];
        off[0] = UNCOMPRESSED;
        assert!(!both(&off, &message, &signature));
        assert!(!both(&[UNCOMPRESSED; PUBLIC_KEY_BYTES], &message, &signature));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn both_back_ends_agree_on_messages_and_altered_bytes(
            message in proptest::collection::vec(any::<u8>(), 0..200),
            index in 0usize..96,
            mask in 1u8..,
        ) {
            let Signed { key, message, mut signature } = sign(&message);
            prop_assert!(both(&key, &message, &signature));
            signature[index] ^= mask;
            prop_assert!(!both(&key, &message, &signature));
        }
    }
}
