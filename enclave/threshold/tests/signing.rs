//! Keys made, tested, made live and used, by every kind of subset.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use casemate_proto::{
    DerivationPath,
    derive::{derive_ed25519, derive_secp256k1},
};
use casemate_threshold::{Purpose, Run, TripleRun, verify_ecdsa, verify_ed25519};
use common::{End, LATE, Net, World, participants, party, permit_frost};

#[test]
fn ecdsa_two_of_three_signs_with_every_pair_and_path() {
    let mut world = World::new(3, 2, 1);
    let keys = world.ecdsa_live("hot");
    let root = keys.values().next().unwrap();
    let public_key: [u8; 33] = root.public_key().try_into().unwrap();
    let chain_code = root.facts().chain_code;
    for (set, path) in [([0, 1], "m"), ([0, 2], "m/0/7"), ([1, 2], "m/2147483647")] {
        let digest = [u8::try_from(path.len()).unwrap(); 32];
        let signature = world.ecdsa_sign(&keys, &participants(&set), path, digest);
        let path = DerivationPath::parse(path).unwrap();
        let child = derive_secp256k1(&public_key, &chain_code, &path).unwrap();
        assert_eq!(signature.public_key, child.public_key);
        assert!(verify_ecdsa(&child.public_key, &digest, &signature.r_s));
        assert_eq!(recover(&digest, &signature.r_s, signature.recovery_id), child.public_key);
    }
}

fn recover(digest: &[u8; 32], r_s: &[u8; 64], id: u8) -> [u8; 33] {
    let signature = k256::ecdsa::Signature::from_slice(r_s).unwrap();
    let id = k256::ecdsa::RecoveryId::from_byte(id).unwrap();
    let key = k256::ecdsa::VerifyingKey::recover_from_prehash(digest, &signature, id).unwrap();
    key.to_encoded_point(true).as_bytes().try_into().unwrap()
}

#[test]
fn ecdsa_three_of_five_signs() {
    let mut world = World::new(5, 3, 2);
    let keys = world.ecdsa_live("hot");
    for set in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
        let digest = [9; 32];
        let signature = world.ecdsa_sign(&keys, &participants(&set), "m/1", digest);
        assert!(verify_ecdsa(&signature.public_key, &digest, &signature.r_s));
    }
}

#[test]
fn ed25519_two_of_three_signs_with_every_pair_and_path() {
    let mut world = World::new(3, 2, 3);
    let keys = world.ed25519_live("cold");
    let root = keys.values().next().unwrap();
    let public_key: [u8; 32] = root.public_key().try_into().unwrap();
    let chain_code = root.facts().chain_code;
    for (set, path) in [([0, 1], "m"), ([0, 2], "m/0/7"), ([1, 2], "m/2147483647")] {
        let signature = world.frost_sign(&keys, &participants(&set), path, b"a message");
        let path = DerivationPath::parse(path).unwrap();
        let child = derive_ed25519(&public_key, &chain_code, &path).unwrap();
        assert_eq!(signature.public_key, child.public_key);
        assert!(verify_ed25519(&child.public_key, b"a message", &signature.bytes));
    }
}

#[test]
fn ed25519_three_of_five_signs() {
    let mut world = World::new(5, 3, 4);
    let keys = world.ed25519_live("cold");
    for set in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
        let signature = world.frost_sign(&keys, &participants(&set), "m/3/1/4", b"");
        assert!(verify_ed25519(&signature.public_key, b"", &signature.bytes));
    }
}

#[test]
fn keys_made_twice_differ_in_public_key_and_chain_code() {
    let mut world = World::new(3, 2, 5);
    let (a, b) = (world.ecdsa_keygen("a"), world.ecdsa_keygen("b"));
    let (a, b) = (a.values().next().unwrap(), b.values().next().unwrap());
    assert_ne!(a.public_key(), b.public_key());
    assert_ne!(a.facts().chain_code, b.facts().chain_code);
    assert_ne!(a.echo(), b.echo());
}

#[test]
fn a_pair_of_triples_takes_few_messages_of_bounded_size() {
    for t in [2_u16, 3] {
        let mut world = World::new(t, t, 6);
        let all = world.all.clone();
        let context = world.context(Purpose::Triples, &all, t);
        let runs =
            all.parties().map(|p| TripleRun::new(world.claim(&context, p)).unwrap()).collect();
        let mut net = Net::new(runs, 6);
        net.start();
        net.pump(|_, p| vec![p]);
        assert!(net.ends.values().all(common::End::is_done));
        assert!(net.stats.largest <= casemate_threshold::message::MAX_MESSAGE_BYTES);
        assert!(net.stats.messages < 100 * usize::from(t));
    }
}

#[test]
fn frost_party_that_leaves_the_last_step_says_all_that_others_need_and_makes_it_when_asked() {
    let mut world = World::new(3, 2, 11);
    let keys = world.ed25519_live("cold");
    let set = participants(&[0, 2]);
    let mut runs = world.frost_sign_runs(&keys, &set, "m/0/7", &[3; 32]);
    runs[1].leave_last_step();
    let mut net = Net::new(runs, 5);
    net.start();
    net.pump(|_, p| vec![p]);
    assert!(net.runs.values().all(|run| !run.is_complete()), "no share yet");
    permit_frost(&mut net, &[3; 32]);
    net.pump(|_, p| vec![p]);
    let (one, other) = (party(0), party(2));
    assert!(net.ends.contains_key(&one) && !net.ends.contains_key(&other));
    let run = net.runs.get_mut(&other).unwrap();
    assert!(run.is_complete());
    // what is left tells nobody anything: no deadline ends it, and a late word of a peer does not either
    assert!(!run.expire(LATE), "it lacks nothing");
    assert!(run.receive(one, b"late", LATE).is_err());
    let step = run.finish(LATE).unwrap();
    assert!(step.send.is_empty() && !run.is_complete());
    let End::Done(first) = net.ends.remove(&one).unwrap() else { panic!("not done") };
    assert_eq!(step.done, Some(first));
}
