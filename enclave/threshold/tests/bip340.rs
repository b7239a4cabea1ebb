//! BIP-340 keys: what they sign verifies under the x coordinate of the child that an auditor
//! derives, whatever the parity of key, child and nonce; and what is no signature is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use casemate_proto::{
    DerivationPath, bip340, cbor,
    derive::{derive_bip340, derive_secp256k1},
};
use casemate_threshold::{
    Abort, Bip340SignRun, LiveBip340Key, Misbehaviour, Misuse, PartyId, Purpose, RunError,
    RunMessage, bip340_subject, ed25519_subject, verify_bip340, verify_ecdsa,
};
use common::{End, Net, World, key_ref, participants, party, permit_frost};
use frost_secp256k1_tr::keys::PublicKeyPackage;
use k256::{
    Scalar,
    elliptic_curve::{PrimeField, ops::Neg},
};

fn facts_of(keys: &BTreeMap<PartyId, LiveBip340Key>) -> ([u8; 33], [u8; 32]) {
    let root = keys.values().next().unwrap();
    (root.public_key().try_into().unwrap(), root.facts().chain_code)
}

/// The other point of the same x coordinate.
fn negated(key: [u8; 33]) -> [u8; 33] {
    let mut other = key;
    other[0] ^= 1;
    other
}

/// By k256 alone, from 32 bytes of key.
fn independently_valid(x: &[u8], message: &[u8], signature: &[u8; 64]) -> bool {
    let key = k256::schnorr::VerifyingKey::from_bytes(x).unwrap();
    let signature = k256::schnorr::Signature::try_from(signature.as_slice()).unwrap();
    key.verify_raw(message, &signature).is_ok()
}

#[test]
fn two_of_three_sign_with_every_pair_under_children_of_both_parities() {
    let mut world = World::new(3, 2, 1);
    let keys = world.bip340_live("btc");
    let (public_key, chain_code) = facts_of(&keys);
    let mut parities = BTreeMap::new();
    for (set, path) in [
        ([0, 1], "m"),
        ([0, 2], "m/0"),
        ([1, 2], "m/1"),
        ([0, 1], "m/2"),
        ([0, 2], "m/3"),
        ([1, 2], "m/0/7"),
        ([0, 1], "m/2147483647"),
    ] {
        let signature = world.frost_sign(&keys, &participants(&set), path, &[7; 32]);
        let path = DerivationPath::parse(path).unwrap();
        // what any wallet computes from the extended public key
        let plain = derive_secp256k1(&public_key, &chain_code, &path).unwrap();
        assert!(independently_valid(&plain.public_key[1..], &[7; 32], &signature.bytes));
        assert!(!independently_valid(&plain.public_key[1..], &[8; 32], &signature.bytes));
        // what the ledger computes
        let child = derive_bip340(&public_key, &chain_code, &path).unwrap();
        assert_eq!(signature.public_key, child.public_key);
        assert_eq!(child.negated, plain.public_key[0] == 3);
        *parities.entry(plain.public_key[0]).or_insert(0) += 1;
    }
    assert!(parities[&2] > 0 && parities[&3] > 0, "{parities:?}");
}

#[test]
fn three_of_five_sign_messages_of_any_length() {
    let mut world = World::new(5, 3, 2);
    let keys = world.bip340_live("btc");
    for (set, message) in [([0, 1, 2], vec![]), ([4, 2, 0], vec![1]), ([1, 3, 4], vec![2; 1000])] {
        let signature = world.frost_sign(&keys, &participants(&set), "m/3/1/4", &message);
        assert!(independently_valid(&signature.public_key[1..], &message, &signature.bytes));
    }
}

#[test]
fn every_generated_key_is_even_and_so_is_every_nonce_of_a_signature() {
    // a key or a nonce is odd in half of all cases: twelve of each leave 1 in 2048 for luck
    for seed in 0..12 {
        let mut world = World::new(2, 2, seed);
        let keys = world.bip340_live("btc");
        let (public_key, _) = facts_of(&keys);
        assert_eq!(public_key[0], bip340::EVEN);
        let signature = world.frost_sign(&keys, &participants(&[0, 1]), "m", &[9; 32]);
        assert!(independently_valid(&public_key[1..], &[9; 32], &signature.bytes));
    }
}

#[test]
fn a_child_under_another_chain_code_or_path_does_not_verify_it() {
    let mut world = World::new(3, 2, 3);
    let keys = world.bip340_live("btc");
    let (public_key, chain_code) = facts_of(&keys);
    let signature = world.frost_sign(&keys, &participants(&[0, 1]), "m/1", &[7; 32]);
    for (chain_code, path) in
        [(chain_code, "m"), (chain_code, "m/2"), (chain_code, "m/1/0"), ([0; 32], "m/1")]
    {
        let path = DerivationPath::parse(path).unwrap();
        let child = derive_bip340(&public_key, &chain_code, &path).unwrap();
        assert!(!verify_bip340(&child.public_key, &[7; 32], &signature.bytes), "{path}");
    }
}

fn order_minus(s: &[u8]) -> [u8; 32] {
    let s = Scalar::from_repr(<[u8; 32]>::try_from(s).unwrap().into()).unwrap();
    s.neg().to_bytes().into()
}

#[test]
fn signatures_with_an_invalid_r_or_s_are_refused() {
    let mut world = World::new(3, 2, 4);
    let keys = world.bip340_live("btc");
    let good = world.frost_sign(&keys, &participants(&[0, 1]), "m", &[7; 32]);
    let verifies = |bytes: &[u8; 64]| verify_bip340(&good.public_key, &[7; 32], bytes);
    assert!(verifies(&good.bytes));
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    let field = hex::decode("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f");
    let (order, field) = (order.unwrap(), field.unwrap());
    let with_r = |r: &[u8]| <[u8; 64]>::try_from([r, &good.bytes[32..]].concat()).unwrap();
    let with_s = |s: &[u8]| <[u8; 64]>::try_from([&good.bytes[..32], s].concat()).unwrap();
    let cases = [
        ("s is the order", with_s(&order)),
        ("s is zero", with_s(&[0; 32])),
        ("s is the largest number", with_s(&[0xff; 32])),
        ("s negated, which ECDSA takes", with_s(&order_minus(&good.bytes[32..]))),
        ("r is the field's size", with_r(&field)),
        ("r is zero", with_r(&[0; 32])),
        ("r is the largest number", with_r(&[0xff; 32])),
        ("all zeros", [0; 64]),
    ];
    for (case, bytes) in cases {
        assert!(!verifies(&bytes), "{case}");
    }
    for at in 0..64 {
        let mut flipped = good.bytes;
        flipped[at] ^= 1;
        assert!(!verifies(&flipped), "byte {at}");
    }
}

#[test]
fn keys_that_are_no_even_point_verify_nothing() {
    let mut world = World::new(3, 2, 5);
    let keys = world.bip340_live("btc");
    let good = world.frost_sign(&keys, &participants(&[0, 1]), "m", &[7; 32]);
    assert!(!verify_bip340(&negated(good.public_key), &[7; 32], &good.bytes), "the odd point");
    // BIP-340's own example of an x coordinate on no point
    let off_curve = hex::decode("eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34");
    for (case, x) in [("on no point", off_curve.unwrap()), ("too large", vec![0xff; 32])] {
        let key: [u8; 33] = [&[2], x.as_slice()].concat().try_into().unwrap();
        assert!(!verify_bip340(&key, &[7; 32], &good.bytes), "{case}");
        assert_eq!(bip340::x_only(&key), None, "{case}");
    }
    for first in [0, 4, 6, 7] {
        let mut key = good.public_key;
        key[0] = first;
        assert!(!verify_bip340(&key, &[7; 32], &good.bytes), "first byte {first}");
    }
}

#[test]
fn a_signature_of_one_secp256k1_scheme_is_none_of_the_other() {
    use k256::ecdsa::signature::hazmat::PrehashSigner;
    let mut world = World::new(3, 2, 6);
    let keys = world.bip340_live("btc");
    let schnorr = world.frost_sign(&keys, &participants(&[0, 1]), "m", &[7; 32]);
    assert!(!verify_ecdsa(&schnorr.public_key, &[7; 32], &schnorr.bytes));
    // one secret, both schemes: each signature counts for its own only
    let secret = k256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap();
    let sec1: [u8; 33] =
        secret.verifying_key().to_encoded_point(true).as_bytes().try_into().unwrap();
    let ecdsa: k256::ecdsa::Signature = secret.sign_prehash(&[7; 32]).unwrap();
    let ecdsa: [u8; 64] = ecdsa.to_bytes().into();
    assert!(verify_ecdsa(&sec1, &[7; 32], &ecdsa));
    let even = if sec1[0] == 2 { sec1 } else { negated(sec1) };
    assert!(!verify_bip340(&even, &[7; 32], &ecdsa));
    let schnorr = k256::schnorr::SigningKey::from_bytes(&[5; 32]).unwrap();
    let schnorr = schnorr.sign_raw(&[7; 32], &[0; 32]).unwrap().to_bytes();
    assert!(verify_bip340(&even, &[7; 32], &schnorr));
    assert!(!verify_ecdsa(&sec1, &[7; 32], &schnorr));
}

/// Runs a signature by parties 0, 1 and 4 of five, in which party 4's messages are changed once
/// the permits are there.
fn sign_with_a_liar(
    seed: u64,
    path: &str,
    mut lie: impl FnMut(&mut Vec<u8>),
) -> BTreeMap<PartyId, RunError> {
    let mut world = World::new(5, 3, seed);
    let keys = world.bip340_live("btc");
    let runs = world.frost_sign_runs(&keys, &participants(&[0, 1, 4]), path, b"x");
    let mut net = Net::new(runs, seed);
    net.start();
    net.pump(|_, p| vec![p]);
    permit_frost(&mut net, b"x");
    net.pump(|_, mut packet| {
        if packet.from == party(4) {
            let mut message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
            lie(&mut message.chunks[0].bytes);
            packet.bytes = cbor::encode(&message);
        }
        vec![packet]
    });
    let mut errors = BTreeMap::new();
    for (p, end) in net.ends() {
        if p == party(4) {
            assert!(end.is_done(), "{end:?}");
            continue;
        }
        let End::Failed(error) = end else { panic!("{end:?}") };
        errors.insert(p, error);
    }
    errors
}

#[test]
fn a_share_of_the_wrong_parity_is_blamed_on_its_sender() {
    for path in ["m", "m/0", "m/1", "m/2"] {
        // the share is the second half; its negative is what comes of negating key and nonces
        // where the others do not, or the other way round
        let errors = sign_with_a_liar(7, path, |chunk| {
            let wrong = order_minus(&chunk[32..]);
            chunk.truncate(32);
            chunk.extend_from_slice(&wrong);
        });
        assert_eq!(errors.len(), 2);
        for error in errors.values() {
            assert_eq!(error.culprits(), [party(4)]);
            let RunError::PeerMisbehaved { what, .. } = error else { panic!("{error}") };
            assert_eq!(*what, Misbehaviour::WrongSignatureShare);
        }
    }
}

#[test]
fn a_share_that_is_no_scalar_is_blamed_on_its_sender() {
    let errors = sign_with_a_liar(8, "m", |chunk| {
        chunk.truncate(32);
        chunk.extend_from_slice(&[0xff; 32]);
    });
    for error in errors.values() {
        assert_eq!(error.culprits(), [party(4)]);
        let RunError::PeerMisbehaved { what, .. } = error else { panic!("{error}") };
        assert_eq!(*what, Misbehaviour::Undecodable);
    }
}

#[test]
fn public_shares_of_the_other_parity_end_a_repair_for_all() {
    let mut world = World::new(3, 2, 9);
    let mut keys = world.bip340_live("btc");
    keys.remove(&party(1)).unwrap();
    let (_, runs) = world.frost_repair_runs(&keys, &[1]);
    let mut net = Net::new(runs, 9);
    net.start();
    net.pump(|_, mut packet| {
        let mut message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
        // both holders tell the party that lost its share the negatives of everything public
        if packet.to == party(1) {
            for chunk in message.chunks.iter_mut().filter(|chunk| chunk.lane == 0) {
                chunk.bytes = negated_public(&chunk.bytes);
            }
        }
        packet.bytes = cbor::encode(&message);
        vec![packet]
    });
    let ends = net.ends();
    assert!(ends.values().all(|end| !end.is_done()), "{ends:?}");
    let End::Failed(error) = &ends[&party(1)] else { panic!("{ends:?}") };
    assert_eq!(*error, RunError::Aborted { what: Abort::PublicKeyChanged });
}

fn negated_public(bytes: &[u8]) -> Vec<u8> {
    use frost_secp256k1_tr::keys::EvenY;
    let public = PublicKeyPackage::deserialize(bytes).unwrap();
    // said to be odd, it is negated
    public.into_even_y(Some(false)).serialize().unwrap()
}

#[test]
fn a_repaired_share_that_does_not_fit_ends_the_repair() {
    let mut world = World::new(3, 2, 10);
    let mut keys = world.bip340_live("btc");
    keys.remove(&party(1)).unwrap();
    let (_, runs) = world.frost_repair_runs(&keys, &[1]);
    let mut net = Net::new(runs, 10);
    net.start();
    net.pump(|_, mut packet| {
        let mut message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
        if packet.from == party(0) && packet.to == party(1) {
            for chunk in message.chunks.iter_mut().filter(|chunk| chunk.lane == 2) {
                chunk.bytes = order_minus(&chunk.bytes).to_vec();
            }
        }
        packet.bytes = cbor::encode(&message);
        vec![packet]
    });
    let ends = net.ends();
    assert!(ends.values().all(|end| !end.is_done()), "{ends:?}");
    let End::Failed(error) = &ends[&party(1)] else { panic!("{ends:?}") };
    assert_eq!(*error, RunError::Aborted { what: Abort::PublicKeyChanged });
}

#[test]
fn a_message_named_as_another_schemes_is_not_signed() {
    let mut world = World::new(3, 2, 11);
    let keys = world.bip340_live("btc");
    let set = participants(&[0, 1]);
    let (key, path) = (key_ref("btc", 0), DerivationPath::root());
    assert_ne!(bip340_subject(b"x"), ed25519_subject(b"x"));

    let subject = ed25519_subject(b"x");
    let purpose = Purpose::Bip340Sign { key: key.clone(), path: path.clone(), subject };
    let context = world.context(purpose, &set, 2);
    let claim = world.claim(&context, party(0));
    let key_of_0 = &keys[&party(0)];
    let run = Bip340SignRun::new(claim, key_of_0, b"x".to_vec(), &mut world.rng);
    assert_eq!(run.unwrap_err(), RunError::Misuse(Misuse::WrongMessage));

    let purpose = Purpose::Ed25519Sign { key, path, subject };
    let context = world.context(purpose, &set, 2);
    let claim = world.claim(&context, party(0));
    let run = Bip340SignRun::new(claim, key_of_0, b"x".to_vec(), &mut world.rng);
    let expected = Misuse::WrongPurpose { purpose: "ed25519-sign", expected: "bip340-sign" };
    assert_eq!(run.unwrap_err(), RunError::Misuse(expected));
}

#[test]
fn i4_no_share_of_a_bip340_signature_leaves_before_the_permit() {
    let mut world = World::new(3, 2, 12);
    let keys = world.bip340_live("btc");
    let runs = world.frost_sign_runs(&keys, &participants(&[0, 1]), "m", b"x");
    let mut net = Net::new(runs, 12);
    net.start();
    let share_lane = |bytes: &[u8]| {
        let message: RunMessage = cbor::decode(bytes, 1 << 20).unwrap();
        message.chunks.iter().any(|chunk| chunk.lane == 1)
    };
    net.pump(|_, packet| {
        assert!(!share_lane(&packet.bytes));
        vec![packet]
    });
    permit_frost(&mut net, b"x");
    assert!(net.queue.len() == 2 && net.queue.iter().all(|packet| share_lane(&packet.bytes)));
}

#[test]
fn i1_no_bip340_share_is_printed() {
    let mut world = World::new(2, 2, 13);
    let live = world.bip340_live("btc");
    let text = format!("{:?}", live[&party(0)]);
    assert!(text.contains("share: \"<redacted>\""), "{text}");
}

#[test]
fn sixteen_parties_fit_every_lane() {
    let mut world = World::new(16, 15, 14);
    let mut keys = world.bip340_live("btc");
    keys.remove(&party(3)).unwrap();
    let (holders, runs) = world.frost_repair_runs(&keys, &[3]);
    let pending = common::run_all(runs, 14);
    assert_eq!(pending.len(), holders.len());
}
