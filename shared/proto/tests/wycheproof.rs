//! Wycheproof against `PublicKey::verify`: the two algorithms that credentials sign with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use casemate_proto::{Algorithm, PublicKey};
use serde_json::Value;

/// What ran: how many signatures verified, how many were refused, and how many have a length that
/// the type of a signature does not hold.
#[derive(Debug, PartialEq)]
struct Ran {
    valid: usize,
    refused: usize,
    wrong_length: usize,
}

/// Runs every test of a file; `bytes` gives a group's public key.
fn run(json: &str, algorithm: Algorithm, bytes: impl Fn(&Value) -> Vec<u8>) -> Ran {
    let file: Value = serde_json::from_str(json).unwrap();
    let mut ran = Ran { valid: 0, refused: 0, wrong_length: 0 };
    for group in file["testGroups"].as_array().unwrap() {
        let key = PublicKey::new(algorithm, &bytes(&group["publicKey"])).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let unhex = |field: &str| hex::decode(test[field].as_str().unwrap()).unwrap();
            let valid = match test["result"].as_str().unwrap() {
                "valid" => true,
                "invalid" => false,
                other => panic!("{other}: these files have no `acceptable` vectors"),
            };
            let Ok(signature) = <[u8; 64]>::try_from(unhex("sig")) else {
                assert!(!valid, "{test}");
                ran.wrong_length += 1;
                continue;
            };
            assert_eq!(key.verify(&unhex("msg"), &signature).is_ok(), valid, "{test}");
            *(if valid { &mut ran.valid } else { &mut ran.refused }) += 1;
        }
    }
    assert_eq!(
        u64::try_from(ran.valid + ran.refused + ran.wrong_length).unwrap(),
        file["numberOfTests"].as_u64().unwrap()
    );
    ran
}

#[test]
fn p256_signatures_verify_as_wycheproof_says() {
    let json =
        include_str!("../../../tests/vectors/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json");
    let ran = run(json, Algorithm::P256, |key| {
        let point = hex::decode(key["uncompressed"].as_str().unwrap()).unwrap();
        p256::EncodedPoint::from_bytes(point).unwrap().compress().as_bytes().to_vec()
    });
    assert_eq!(ran, Ran { valid: 173, refused: 68, wrong_length: 21 });
}

/// No deviation: the file marks as valid nothing that the strict check (canonical S, canonical
/// points, no key of small order) refuses.
#[test]
fn ed25519_signatures_verify_as_wycheproof_says() {
    let json = include_str!("../../../tests/vectors/wycheproof/ed25519_test.json");
    let ran =
        run(json, Algorithm::Ed25519, |key| hex::decode(key["pk"].as_str().unwrap()).unwrap());
    assert_eq!(ran, Ran { valid: 88, refused: 51, wrong_length: 12 });
}
