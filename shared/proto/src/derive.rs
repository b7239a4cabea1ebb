//! Child public keys, from what is public: a key, its chain code and a path.
//!
//! Auditors and ledgers derive the key that a request names; the enclaves add the same tweak to
//! their shares.
//!
//! Secp256k1 follows BIP-32 for non-hardened steps (CKDpub), so any wallet library computes the
//! same addresses. Ed25519 has no such standard that works with shared keys; the tweak here is
//! Casemate's own: for a path other than `m`,
//!
//! ```text
//! tweak = SHA-512("casemate/derive/ed25519/v1\0" ‖ A ‖ chain code ‖ depth ‖ steps) mod ℓ
//! child = A + tweak·B
//! ```
//!
//! with A the 32-byte public key, the depth one byte and each step four bytes, big-endian. Path `m`
//! is the key itself. Ed25519 signs over the public key, so a signature by one child says nothing
//! under another.
//!
//! BIP-340 keys derive as secp256k1 keys do: the ledger has the even point of the key's two (first
//! byte 02), the steps of the path go from point to point with whatever parity each has, and the
//! child is the even point of the last one's two. So an extended public key of the 33 bytes and
//! the chain code gives the same x coordinates in any wallet. BIP-340 signs over the public key
//! too.

use curve25519_dalek::{
    EdwardsPoint, Scalar as EdwardsScalar, edwards::CompressedEdwardsY, traits::IsIdentity,
};
use hmac::{Hmac, Mac};
use k256::{
    ProjectivePoint, PublicKey, Scalar,
    elliptic_curve::{PrimeField, sec1::ToEncodedPoint},
};
use sha2::{Digest, Sha512};

use crate::{bip340, path::DerivationPath};

const ED25519_TAG: &[u8] = b"casemate/derive/ed25519/v1\0";

/// Why there is no child.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The parent is not a point of the curve's prime-order group, or is its neutral element.
    #[error("not a public key")]
    NotAKey,
    /// BIP-32 has no key here; one path in 2¹²⁷ is so.
    #[error("no key exists at path `{path}`")]
    NoChild {
        /// The path.
        path: DerivationPath,
    },
}

/// A secp256k1 child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedSecp256k1 {
    /// SEC1, compressed.
    pub public_key: [u8; 33],
    /// The child's own chain code.
    pub chain_code: [u8; 32],
    /// Child minus parent as a scalar, big-endian.
    pub tweak: [u8; 32],
}

/// An Ed25519 child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedEd25519 {
    /// The compressed point.
    pub public_key: [u8; 32],
    /// Child minus parent as a scalar, little-endian.
    pub tweak: [u8; 32],
}

/// A BIP-340 child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedBip340 {
    /// SEC1, compressed, first byte 02; the other 32 bytes are what verifiers take.
    pub public_key: [u8; 33],
    /// Child minus parent as a scalar, big-endian, before the child is made even.
    pub tweak: [u8; 32],
    /// Whether the child is the negative of parent plus tweak.
    pub negated: bool,
}

/// BIP-32's CKDpub along a path.
///
/// # Errors
/// If the key is none (SEC1, compressed), or there is no child.
#[expect(clippy::arithmetic_side_effects, reason = "arithmetic in a group does not overflow")]
pub fn derive_secp256k1(
    public_key: &[u8; 33],
    chain_code: &[u8; 32],
    path: &DerivationPath,
) -> Result<DerivedSecp256k1, DeriveError> {
    let no_child = || DeriveError::NoChild { path: path.clone() };
    let mut key = PublicKey::from_sec1_bytes(public_key).map_err(|_| DeriveError::NotAKey)?;
    let mut chain_code = *chain_code;
    let mut tweak = Scalar::ZERO;
    for step in path.steps() {
        let mut mac = <Hmac<Sha512> as Mac>::new_from_slice(&chain_code).map_err(|_| no_child())?;
        mac.update(key.to_encoded_point(true).as_bytes());
        mac.update(&step.to_be_bytes());
        let digest: [u8; 64] = mac.finalize().into_bytes().into();
        let (left, right) = digest.split_at(32);
        let left = <[u8; 32]>::try_from(left).map_err(|_| no_child())?;
        let step_tweak =
            Option::<Scalar>::from(Scalar::from_repr(left.into())).ok_or_else(no_child)?;
        let child = key.to_projective() + ProjectivePoint::GENERATOR * step_tweak;
        key = PublicKey::from_affine(child.to_affine()).map_err(|_| no_child())?;
        tweak += step_tweak;
        chain_code = <[u8; 32]>::try_from(right).map_err(|_| no_child())?;
    }
    let public_key = <[u8; 33]>::try_from(key.to_encoded_point(true).as_bytes())
        .map_err(|_| DeriveError::NotAKey)?;
    Ok(DerivedSecp256k1 { public_key, chain_code, tweak: tweak.to_bytes().into() })
}

/// The child of a BIP-340 key, as the module's head says.
///
/// # Errors
/// If the key is none, or is not the even one (first byte 02), or there is no child.
pub fn derive_bip340(
    public_key: &[u8; 33],
    chain_code: &[u8; 32],
    path: &DerivationPath,
) -> Result<DerivedBip340, DeriveError> {
    if bip340::x_only(public_key).is_none() {
        return Err(DeriveError::NotAKey);
    }
    let mut child = derive_secp256k1(public_key, chain_code, path)?;
    let first = child.public_key.first_mut().ok_or(DeriveError::NotAKey)?;
    let negated = *first != bip340::EVEN;
    *first = bip340::EVEN;
    Ok(DerivedBip340 { public_key: child.public_key, tweak: child.tweak, negated })
}

/// The child of an Ed25519 key, as the module's head says.
///
/// # Errors
/// If the key is none, or there is no child.
#[expect(clippy::arithmetic_side_effects, reason = "arithmetic in a group does not overflow")]
pub fn derive_ed25519(
    public_key: &[u8; 32],
    chain_code: &[u8; 32],
    path: &DerivationPath,
) -> Result<DerivedEd25519, DeriveError> {
    let compressed = CompressedEdwardsY(*public_key);
    let parent = compressed.decompress().ok_or(DeriveError::NotAKey)?;
    // decompression takes more than one encoding of some points
    if parent.compress() != compressed || parent.is_identity() || !parent.is_torsion_free() {
        return Err(DeriveError::NotAKey);
    }
    if path.is_root() {
        return Ok(DerivedEd25519 { public_key: *public_key, tweak: [0; 32] });
    }
    let mut hasher = Sha512::new();
    hasher.update(ED25519_TAG);
    hasher.update(public_key);
    hasher.update(chain_code);
    hasher.update([u8::try_from(path.steps().len()).unwrap_or(u8::MAX)]);
    for step in path.steps() {
        hasher.update(step.to_be_bytes());
    }
    let tweak = EdwardsScalar::from_bytes_mod_order_wide(&hasher.finalize().into());
    let child = parent + EdwardsPoint::mul_base(&tweak);
    if child.is_identity() {
        return Err(DeriveError::NoChild { path: path.clone() });
    }
    Ok(DerivedEd25519 { public_key: child.compress().to_bytes(), tweak: tweak.to_bytes() })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// The public steps of BIP-32's test vectors 1 and 2, taken out of their extended keys: parent
    /// key and chain code, step, child key and chain code.
    const BIP32: [(&str, &str, u32, &str, &str); 4] = [
        (
            "035a784662a4a20a65bf6aab9ae98a6c068a81c52e4b032c0fb5400c706cfccc56",
            "47fdacbd0f1097043b78c63c20c34ef4ed9a111d980047ad16282c7ae6236141",
            1,
            "03501e454bf00751f24b1b489aa925215d66af2234e3891c3b21a52bedb3cd711c",
            "2a7857631386ba23dacac34180dd1983734e444fdbf774041578e9b6adb37c19",
        ),
        (
            "0357bfe1e341d01c69fe5654309956cbea516822fba8a601743a012a7896ee8dc2",
            "04466b9cc8e161e966409ca52986c584f07e9dc81f735db683c3ff6ec7b1503f",
            2,
            "02e8445082a72f29b75ca48748a914df60622a609cacfce8ed0e35804560741d29",
            "cfb71883f01676f587d023cc53a35bc7f88f724b1f8c2892ac1275ac822a3edd",
        ),
        (
            "02e8445082a72f29b75ca48748a914df60622a609cacfce8ed0e35804560741d29",
            "cfb71883f01676f587d023cc53a35bc7f88f724b1f8c2892ac1275ac822a3edd",
            1_000_000_000,
            "022a471424da5e657499d1ff51cb43c47481a03b1e77f951fe64cec9f5a48f7011",
            "c783e67b921d2beb8f6b389cc646d7263b4145701dadd2161548a8b078e65e9e",
        ),
        (
            "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7",
            "60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689",
            0,
            "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea",
            "f0909affaa7ee7abe5dd4e100598d4dc53cd709d5a5c2cac40e7412f232f7c9c",
        ),
    ];

    #[test]
    fn bip32_public_steps_give_the_published_children() {
        for (key, chain, step, child, child_chain) in BIP32 {
            let path = DerivationPath::new(&[step]).unwrap();
            let derived = derive_secp256k1(&hex(key), &hex(chain), &path).unwrap();
            assert_eq!(hex::encode(derived.public_key), child);
            assert_eq!(hex::encode(derived.chain_code), child_chain);
        }
    }

    #[test]
    fn bip32_two_steps_at_once_are_the_same_and_sum_their_tweaks() {
        let (key, chain, ..) = BIP32[1];
        let path = DerivationPath::new(&[2, 1_000_000_000]).unwrap();
        let derived = derive_secp256k1(&hex(key), &hex(chain), &path).unwrap();
        assert_eq!(hex::encode(derived.public_key), BIP32[2].3);
        assert_eq!(hex::encode(derived.chain_code), BIP32[2].4);
        let tweak = Scalar::from_repr(derived.tweak.into()).unwrap();
        let parent = PublicKey::from_sec1_bytes(&hex::<33>(key)).unwrap();
        let child = parent.to_projective() + ProjectivePoint::GENERATOR * tweak;
        assert_eq!(child.to_encoded_point(true).as_bytes(), derived.public_key);
    }

    #[test]
    fn the_root_path_is_the_key_itself() {
        let (key, chain, ..) = BIP32[0];
        let derived = derive_secp256k1(&hex(key), &hex(chain), &DerivationPath::root()).unwrap();
        assert_eq!((derived.public_key, derived.tweak), (hex(key), [0; 32]));
        let ed = ed_key();
        let derived = derive_ed25519(&ed, &[7; 32], &DerivationPath::root()).unwrap();
        assert_eq!((derived.public_key, derived.tweak), (ed, [0; 32]));
    }

    fn ed_key() -> [u8; 32] {
        EdwardsPoint::mul_base(&EdwardsScalar::from(1234_u64)).compress().to_bytes()
    }

    #[test]
    fn ed25519_child_is_the_parent_plus_the_tweak() {
        let path = DerivationPath::parse("m/0/7").unwrap();
        let derived = derive_ed25519(&ed_key(), &[7; 32], &path).unwrap();
        let tweak = EdwardsScalar::from_canonical_bytes(derived.tweak).unwrap();
        let secret = EdwardsScalar::from(1234_u64) + tweak;
        assert_eq!(EdwardsPoint::mul_base(&secret).compress().to_bytes(), derived.public_key);
    }

    #[test]
    fn ed25519_children_are_pinned_and_differ_by_key_chain_code_and_path() {
        let child = |chain: u8, path: &str| {
            let path = DerivationPath::parse(path).unwrap();
            derive_ed25519(&ed_key(), &[chain; 32], &path).unwrap().public_key
        };
        let all =
            [child(7, "m/0"), child(7, "m/0/0"), child(7, "m/1"), child(8, "m/0"), child(7, "m")];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(hex::encode(child(7, "m/0/7")), PINNED_ED25519_CHILD);
    }

    /// Computed by a program that shares no code with this one.
    const PINNED_ED25519_CHILD: &str =
        "243ab05c8c980dd63902d3b7f76be9ad70af0434dc56c50fb46703ba5d2dbfee";

    #[test]
    fn keys_outside_the_prime_order_group_are_refused() {
        let path = DerivationPath::parse("m/0").unwrap();
        let mut not_canonical = [0xff; 32];
        not_canonical[31] = 0x7f;
        let identity = EdwardsPoint::default().compress().to_bytes();
        let torsion = curve25519_dalek::constants::EIGHT_TORSION[1];
        let mixed =
            (EdwardsPoint::mul_base(&EdwardsScalar::from(5_u64)) + torsion).compress().to_bytes();
        for bad in [not_canonical, identity, torsion.compress().to_bytes(), mixed] {
            assert_eq!(derive_ed25519(&bad, &[0; 32], &path), Err(DeriveError::NotAKey));
        }
        for bad in [[0; 33], [2; 33].map(|_: u8| 0xff)] {
            assert_eq!(derive_secp256k1(&bad, &[0; 32], &path), Err(DeriveError::NotAKey));
        }
    }
}
