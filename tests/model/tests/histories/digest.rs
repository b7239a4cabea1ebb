//! What a request's signature is over and whether one verifies, written again from the formats'
//! descriptions: nothing here is the product's.

use casemate_proto::Scheme;
use ed25519_dalek::Verifier as _;
use sha2::{Digest as _, Sha256};

/// What is signed for a message.
pub fn message(genesis: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"casemate/message/v1\0");
    hash.update(genesis);
    hash.update(text);
    hash.finalize().into()
}

fn keccak(parts: &[&[u8]]) -> [u8; 32] {
    alloy_primitives::keccak256(parts.concat()).into()
}

fn word(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}

fn left(address: &[u8; 20]) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(address);
    word
}

pub fn address(hex_digits: &str) -> [u8; 20] {
    hex::decode(hex_digits.trim_start_matches("0x")).unwrap().try_into().unwrap()
}

/// A payment as EIP-3009 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub from: [u8; 20],
    pub to: [u8; 20],
    pub value: u64,
    pub after: u64,
    pub before: u64,
    pub nonce: [u8; 32],
}

/// What is signed for a payment of USDC on Base.
pub fn payment(payment: &Payment, token: &[u8; 20]) -> [u8; 32] {
    let domain_type = keccak(&[
        b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
    ]);
    let domain = keccak(&[
        &domain_type,
        &keccak(&[b"USD Coin"]),
        &keccak(&[b"2"]),
        &word(8453),
        &left(token),
    ]);
    let transfer_type = keccak(&[b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"]);
    let transfer = keccak(&[
        &transfer_type,
        &left(&payment.from),
        &left(&payment.to),
        &word(payment.value),
        &word(payment.after),
        &word(payment.before),
        &payment.nonce,
    ]);
    keccak(&[b"\x19\x01", &domain, &transfer])
}

/// The address of a secp256k1 key.
pub fn own_address(sec1: &[u8]) -> [u8; 20] {
    use k256::elliptic_curve::sec1::ToEncodedPoint as _;
    let key = k256::PublicKey::from_sec1_bytes(sec1).unwrap();
    let point = key.to_encoded_point(false);
    let hash = keccak(&[&point.as_bytes()[1..]]);
    hash[12..].try_into().unwrap()
}

/// Whether a signature verifies under a key.
pub fn verifies(scheme: Scheme, key: &[u8], digest: &[u8; 32], signature: &[u8]) -> bool {
    match scheme {
        Scheme::Ed25519 => {
            let (Ok(key), Ok(signature)) = (
                <[u8; 32]>::try_from(key).map(|key| ed25519_dalek::VerifyingKey::from_bytes(&key)),
                ed25519_dalek::Signature::from_slice(signature),
            ) else {
                return false;
            };
            key.is_ok_and(|key| key.verify(digest, &signature).is_ok())
        }
        Scheme::Bip340Secp256k1 => {
            let (Ok(key), Ok(signature)) = (
                k256::schnorr::VerifyingKey::from_bytes(&key[1..]),
                k256::schnorr::Signature::try_from(signature),
            ) else {
                return false;
            };
            key.verify_raw(digest, &signature).is_ok()
        }
        Scheme::EcdsaSecp256k1 => {
            use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
            let (Ok(key), Some(Ok(signature))) = (
                k256::ecdsa::VerifyingKey::from_sec1_bytes(key),
                signature.get(..64).map(k256::ecdsa::Signature::from_slice),
            ) else {
                return false;
            };
            key.verify_prehash(digest, &signature).is_ok()
        }
    }
}
