//! Published vectors against the verification that every signature passes before it is returned,
//! and RFC 9591's against the library as it is driven here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeMap;

use casemate_threshold::{frost::Suite, verify_ecdsa, verify_ed25519};
use frost_core::{
    CheaterDetection, Field, Group, Identifier, SigningPackage, VerifyingKey,
    keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare},
    round1::{Nonce, NonceCommitment, SigningCommitments, SigningNonces},
    round2,
};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use serde_json::Value;
use sha2::{Digest, Sha256};

const WYCHEPROOF_ED25519: &str =
    include_str!("../../../tests/vectors/wycheproof/ed25519_test.json");
const WYCHEPROOF_ECDSA: &str =
    include_str!("../../../tests/vectors/wycheproof/ecdsa_secp256k1_sha256_bitcoin_test.json");
const RFC_8032: &str = include_str!("../../../tests/vectors/ed25519/TESTVECTORS_first256.txt");
const RFC_9591: &str = include_str!("../../../tests/vectors/frost/ed25519_vectors.json");
const ED25519_DKG: &str = include_str!("../../../tests/vectors/frost/ed25519_vectors_dkg.json");
const TAPROOT: &str = include_str!("../../../tests/vectors/frost/secp256k1-tr_vectors.json");
const TAPROOT_DKG: &str =
    include_str!("../../../tests/vectors/frost/secp256k1-tr_vectors_dkg.json");

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn tests(json: &str) -> Vec<(Value, Value)> {
    let root: Value = serde_json::from_str(json).unwrap();
    let mut out = Vec::new();
    for group in root["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            out.push((group["publicKey"].clone(), test.clone()));
        }
    }
    out
}

#[test]
fn wycheproof_ed25519_verdicts_are_ours() {
    let mut counts = BTreeMap::new();
    for (key, test) in tests(WYCHEPROOF_ED25519) {
        let key: [u8; 32] = bytes(&key["pk"]).try_into().unwrap();
        let ours = <[u8; 64]>::try_from(bytes(&test["sig"]))
            .is_ok_and(|sig| verify_ed25519(&key, &bytes(&test["msg"]), &sig));
        let result = test["result"].as_str().unwrap().to_owned();
        assert_eq!(ours, result == "valid", "{test}");
        *counts.entry(result).or_insert(0) += 1;
    }
    assert!(counts["valid"] > 50 && counts["invalid"] > 50, "{counts:?}");
}

#[test]
fn wycheproof_secp256k1_verdicts_are_ours_high_s_included() {
    let mut counts = BTreeMap::new();
    for (key, test) in tests(WYCHEPROOF_ECDSA) {
        let key = bytes(&key["uncompressed"]);
        let digest: [u8; 32] = Sha256::digest(bytes(&test["msg"])).into();
        let ours = k256::ecdsa::Signature::from_der(&bytes(&test["sig"]))
            .is_ok_and(|sig| verify_ecdsa(&key, &digest, &sig.to_bytes().into()));
        let result = test["result"].as_str().unwrap().to_owned();
        assert_eq!(ours, result == "valid", "{test}");
        *counts.entry(result).or_insert(0) += 1;
        let flags = test["flags"].to_string();
        if flags.contains("SignatureMalleabilityBitcoin") {
            assert!(!ours, "high s");
            *counts.entry("high s".to_owned()).or_insert(0) += 1;
        }
    }
    assert!(counts["valid"] > 50 && counts["invalid"] > 50 && counts["high s"] > 0, "{counts:?}");
}

#[test]
fn rfc_8032_signatures_verify_and_do_not_with_a_flipped_bit() {
    let mut count = 0_usize;
    for line in RFC_8032.lines().filter(|l| !l.trim().is_empty()) {
        let fields: Vec<&str> = line.split(':').collect();
        let key: [u8; 32] = hex::decode(fields[1]).unwrap().try_into().unwrap();
        let message = hex::decode(fields[2]).unwrap();
        let mut signature: [u8; 64] = hex::decode(&fields[3][..128]).unwrap().try_into().unwrap();
        assert!(verify_ed25519(&key, &message, &signature), "{line}");
        signature[count % 64] ^= 1 << (count % 8);
        assert!(!verify_ed25519(&key, &message, &signature), "{line}");
        count += 1;
    }
    assert_eq!(count, 128);
}

fn identifier<S: Suite>(value: &Value) -> Identifier<S> {
    let number = value.as_u64().or_else(|| value.as_str().and_then(|s| s.parse().ok())).unwrap();
    Identifier::try_from(u16::try_from(number).unwrap()).unwrap()
}

/// Signs with the vector's keys and nonces; every share and the signature must be the published
/// ones, and ours to verify.
fn shares_and_signature_are_reproduced<S: Suite>(json: &str) {
    let root: Value = serde_json::from_str(json).unwrap();
    let inputs = &root["inputs"];
    let key_bytes = bytes(&inputs["verifying_key_key"]);
    let verifying_key = VerifyingKey::<S>::deserialize(&key_bytes).unwrap();
    let public_key = S::PublicKey::try_from(key_bytes).ok().unwrap();
    let message = bytes(&inputs["message"]);
    let threshold: u16 = root["config"]["MIN_PARTICIPANTS"].as_str().unwrap().parse().unwrap();

    let mut packages = BTreeMap::new();
    let mut public = BTreeMap::new();
    for share in inputs["participant_shares"].as_array().unwrap() {
        let id = identifier(&share["identifier"]);
        let secret = SigningShare::<S>::deserialize(&bytes(&share["participant_share"])).unwrap();
        public.insert(id, VerifyingShare::from(secret));
        packages.insert(id, KeyPackage::new(id, secret, secret.into(), verifying_key, threshold));
    }
    let public = PublicKeyPackage::new(public, verifying_key, Some(threshold));

    let mut nonces = BTreeMap::new();
    let mut commitments = BTreeMap::new();
    for output in root["round_one_outputs"]["outputs"].as_array().unwrap() {
        let id = identifier(&output["identifier"]);
        let nonce = |name: &str| Nonce::<S>::deserialize(&bytes(&output[name])).unwrap();
        let commitment = |name: &str| NonceCommitment::deserialize(&bytes(&output[name])).unwrap();
        let pair = SigningNonces::from_nonces(nonce("hiding_nonce"), nonce("binding_nonce"));
        let expected = SigningCommitments::new(
            commitment("hiding_nonce_commitment"),
            commitment("binding_nonce_commitment"),
        );
        assert_eq!(*pair.commitments(), expected);
        commitments.insert(id, expected);
        nonces.insert(id, pair);
    }
    let package = SigningPackage::new(commitments, &message);
    let mut shares = BTreeMap::new();
    for output in root["round_two_outputs"]["outputs"].as_array().unwrap() {
        let id = identifier(&output["identifier"]);
        let share = round2::sign(&package, &nonces[&id], &packages[&id]).unwrap();
        assert_eq!(share.serialize(), bytes(&output["sig_share"]));
        shares.insert(id, share);
    }
    assert_eq!(shares.len(), usize::from(threshold));
    let signature =
        frost_core::aggregate_custom(&package, &shares, &public, CheaterDetection::AllCheaters)
            .unwrap();
    let signature: [u8; 64] = signature.serialize().unwrap().try_into().unwrap();
    assert_eq!(signature.to_vec(), bytes(&root["final_output"]["sig"]));
    assert!(S::verify(&public_key, &message, &signature));
    assert!(!S::verify(&public_key, b"another", &signature));
}

#[test]
fn rfc_9591_shares_and_signature_are_reproduced_and_verify() {
    shares_and_signature_are_reproduced::<Ed25519Sha512>(RFC_9591);
}

#[test]
fn taproot_shares_and_signature_are_reproduced_and_verify_as_bip_340() {
    shares_and_signature_are_reproduced::<Secp256K1Sha256TR>(TAPROOT);
}

/// Party 1's last step of a key generation; what it yields.
fn dkg_vector_is_reproduced<S: Suite>(json: &str) -> (KeyPackage<S>, PublicKeyPackage<S>) {
    use frost_core::keys::{
        VerifiableSecretSharingCommitment,
        dkg::{self, round1, round2},
    };
    let root: Value = serde_json::from_str(json).unwrap();
    let inputs = &root["inputs"];
    let mut commitments = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut second = BTreeMap::new();
    for number in ["1", "2", "3"] {
        let party = &inputs[number];
        let points = party["vss_commitments"].as_array().unwrap().iter().map(bytes);
        let commitment = VerifiableSecretSharingCommitment::<S>::deserialize(points).unwrap();
        commitments.insert(number, commitment.clone());
        if number != "1" {
            let id = identifier(&party["identifier"]);
            let proof = frost_core::Signature::deserialize(&bytes(&party["proof_of_knowledge"]));
            first.insert(id, round1::Package::new(commitment, proof.unwrap()));
            // what party 1 got from this one
            let share = &inputs["1"]["signing_shares"][number];
            let share = SigningShare::deserialize(&bytes(share)).unwrap();
            second.insert(id, round2::Package::new(share));
        }
    }
    let me = identifier(&inputs["1"]["identifier"]);
    type FieldOf<S> = <<S as frost_core::Ciphersuite>::Group as Group>::Field;
    let scalar = |name: &str| {
        let bytes = bytes(&inputs["1"][name]);
        let bytes = <FieldOf<S> as Field>::Serialization::try_from(bytes.as_slice());
        FieldOf::<S>::deserialize(&bytes.ok().unwrap()).unwrap()
    };
    // the polynomial's value at 1
    let own = scalar("signing_key") + scalar("coefficient");
    let secret = round2::SecretPackage::new(me, commitments["1"].clone(), own, 2, 3);
    let (package, public) = dkg::part3(&secret, &first, &second).unwrap();
    assert_eq!(package.signing_share().serialize(), bytes(&inputs["1"]["signing_share"]));
    assert_eq!(public.verifying_key().serialize().unwrap(), bytes(&inputs["verifying_key"]));
    let mut count = 0;
    for number in ["1", "2", "3"] {
        let id = identifier(&inputs[number]["identifier"]);
        let share = public.verifying_shares()[&id].serialize().unwrap();
        assert_eq!(share, bytes(&inputs[number]["verifying_share"]));
        count += 1;
    }
    assert_eq!(count, 3);
    (package, public)
}

#[test]
fn frost_dkg_vector_gives_the_published_share_and_key() {
    dkg_vector_is_reproduced::<Ed25519Sha512>(ED25519_DKG);
}

#[test]
fn taproot_dkg_vector_gives_an_odd_key_that_is_made_even_with_all_its_shares() {
    let (package, public) = dkg_vector_is_reproduced::<Secp256K1Sha256TR>(TAPROOT_DKG);
    let key = public.verifying_key().serialize().unwrap();
    assert_eq!(key[0], 3, "the vector's key is odd");
    let (even, even_public) = Secp256K1Sha256TR::normal(package.clone(), public.clone());
    let mut expected = key;
    expected[0] = 2;
    assert_eq!(even_public.verifying_key().serialize().unwrap(), expected);
    assert_eq!(even.verifying_key(), even_public.verifying_key());
    assert_eq!(VerifyingShare::from(*even.signing_share()), *even.verifying_share());
    for (id, share) in even_public.verifying_shares() {
        let mut old = public.verifying_shares()[id].serialize().unwrap();
        old[0] ^= 1;
        assert_eq!(share.serialize().unwrap(), old);
    }
    // and what is even stays
    let (again, again_public) = Secp256K1Sha256TR::normal(even.clone(), even_public.clone());
    assert_eq!((again, again_public), (even, even_public));
}
