//! A network that reorders, drops, duplicates and changes messages: no panic, no wrong signature,
//! no two keys from one run, and what stalls is burned at its deadline.

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

use casemate_proto::cbor;
use casemate_threshold::{
    Abort, EcdsaKeygenRun, PartyId, Purpose, Run, RunError, RunMessage, TripleRun, verify_ecdsa,
};
use common::{
    End, KeygenRun, LATE, NOW, Net, Packet, Purposes, World, key_ref, participants, permit_ecdsa,
    permit_frost,
};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;

fn below(rng: &mut ChaCha20Rng, n: usize) -> usize {
    usize::try_from(rng.next_u64()).unwrap() % n
}

/// Drops, repeats or changes one message in `rate`.
fn hostile(rng: &mut ChaCha20Rng, packet: Packet, rate: usize) -> Vec<Packet> {
    if below(rng, rate) != 0 {
        return vec![packet];
    }
    match below(rng, 4) {
        0 => vec![],
        1 => vec![packet.clone(), packet],
        2 => vec![flip_a_bit(rng, packet)],
        _ => vec![change_a_chunk(rng, packet)],
    }
}

fn flip_a_bit(rng: &mut ChaCha20Rng, mut packet: Packet) -> Packet {
    let at = below(rng, packet.bytes.len());
    packet.bytes[at] ^= 1 << below(rng, 8);
    packet
}

/// What a dishonest participant can do: a well-formed envelope with another content.
fn change_a_chunk(rng: &mut ChaCha20Rng, mut packet: Packet) -> Packet {
    let mut message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
    let at = below(rng, message.chunks.len());
    let count = message.chunks.len();
    let chunk = &mut message.chunks[at];
    let length = chunk.bytes.len();
    match below(rng, 7) {
        0 => chunk.bytes[below(rng, length)] ^= 1 << below(rng, 8),
        // behind cait-sith's 28-byte header
        1 => {
            let from = 28.min(length - 1);
            let at = from + below(rng, length - from);
            chunk.bytes[at] = u8::try_from(rng.next_u32() & 0xff).unwrap();
        }
        2 => chunk.bytes.truncate(1 + below(rng, length)),
        3 => chunk.bytes.push(0),
        4 => chunk.private = !chunk.private,
        5 => chunk.lane = u8::try_from(below(rng, 16)).unwrap(),
        _ => {
            let other = below(rng, count);
            message.chunks.swap(at, other);
            message.sequence ^= u32::try_from(below(rng, 2)).unwrap();
        }
    }
    packet.bytes = cbor::encode(&message);
    packet
}

#[derive(Default, Debug)]
struct Tally {
    done: usize,
    failed: usize,
    stalled: usize,
    refused: usize,
    panics: usize,
}

/// Checks what every ending has in common and counts.
fn settle<R: Run>(net: Net<R>, tally: &mut Tally) -> BTreeMap<PartyId, R::Output> {
    let mut net = net;
    tally.refused += net.stats.refused.len();
    let parties: Vec<PartyId> = net.runs.keys().copied().collect();
    for p in &parties {
        let run = net.runs.get_mut(p).unwrap();
        let over = net.ends.contains_key(p);
        assert_eq!(run.expire(NOW), over, "a live run does not expire before its time");
        assert!(run.expire(LATE));
        if !over {
            assert_eq!(run.start(LATE).err(), Some(RunError::Burned));
        }
    }
    let mut outputs = BTreeMap::new();
    for (p, end) in net.ends() {
        match end {
            End::Done(output) => {
                tally.done += 1;
                outputs.insert(p, output);
            }
            End::Failed(error) => {
                assert!(error.burns());
                tally.failed += 1;
                if error == (RunError::Aborted { what: Abort::Panicked }) {
                    tally.panics += 1;
                }
            }
            End::Stalled => tally.stalled += 1,
        }
    }
    outputs
}

fn saw_everything(tally: &Tally) {
    assert!(
        tally.done > 0 && tally.failed > 0 && tally.stalled > 0 && tally.refused > 0,
        "the network was not hostile enough, or too hostile: {tally:?}"
    );
}

#[test]
fn ecdsa_keygen_ends_in_one_key_or_none() {
    let mut tally = Tally::default();
    for seed in 0..60 {
        let mut world = World::new(3, 2, seed);
        let all = world.all.clone();
        let context = world.context(Purpose::EcdsaKeygen { key: key_ref("k", 0) }, &all, 2);
        let runs = all
            .parties()
            .map(|p| EcdsaKeygenRun::generate(world.claim(&context, p), [9; 32]).unwrap())
            .collect();
        let mut net = Net::new(runs, seed);
        net.start();
        net.pump(|rng, p| hostile(rng, p, 12));
        let keys: Vec<_> = settle(net, &mut tally).into_values().collect();
        for pair in keys.windows(2) {
            assert_eq!(pair[0].public_key(), pair[1].public_key());
            assert_eq!(pair[0].facts(), pair[1].facts());
        }
    }
    saw_everything(&tally);
}

fn frost_keygen_ends_in_one_key_or_none<S: Purposes>() {
    let mut tally = Tally::default();
    for seed in 0..60 {
        let mut world = World::new(3, 2, seed);
        let all = world.all.clone();
        let context = world.context(S::keygen(key_ref("k", 0)), &all, 2);
        let mut runs = Vec::new();
        for p in all.parties() {
            let claim = world.claim(&context, p);
            runs.push(KeygenRun::<S>::generate(claim, [9; 32], &mut world.rng).unwrap());
        }
        let mut net = Net::new(runs, seed);
        net.start();
        net.pump(|rng, p| hostile(rng, p, 12));
        let keys: Vec<_> = settle(net, &mut tally).into_values().collect();
        for pair in keys.windows(2) {
            assert_eq!(pair[0].public_key(), pair[1].public_key());
            assert_eq!(pair[0].facts(), pair[1].facts());
        }
    }
    saw_everything(&tally);
}

#[test]
fn ed25519_keygen_ends_in_one_key_or_none() {
    frost_keygen_ends_in_one_key_or_none::<Ed25519Sha512>();
}

#[test]
fn bip340_keygen_ends_in_one_key_or_none() {
    frost_keygen_ends_in_one_key_or_none::<Secp256K1Sha256TR>();
}

#[test]
fn triples_end_in_pairs_of_one_name_or_none() {
    let mut tally = Tally::default();
    for seed in 0..24 {
        let mut world = World::new(2, 2, seed);
        let all = world.all.clone();
        let context = world.context(Purpose::Triples, &all, 2);
        let runs =
            all.parties().map(|p| TripleRun::new(world.claim(&context, p)).unwrap()).collect();
        let mut net = Net::new(runs, seed);
        net.start();
        net.pump(|rng, p| hostile(rng, p, 12));
        let pairs: Vec<_> = settle(net, &mut tally).into_values().collect();
        for pair in pairs.windows(2) {
            assert_eq!(pair[0].id(), pair[1].id());
        }
    }
    saw_everything(&tally);
}

#[test]
fn ecdsa_signing_ends_in_the_right_signature_or_none() {
    let mut tally = Tally::default();
    let mut world = World::new(3, 2, 1);
    let keys = world.ecdsa_live("hot");
    for seed in 0..30_u8 {
        let digest = [seed; 32];
        let runs = world.ecdsa_sign_runs(&keys, &participants(&[0, 2]), "m/4", digest);
        let mut net = Net::new(runs, u64::from(seed));
        net.start();
        if seed % 2 == 0 {
            net.pump(|rng, p| hostile(rng, p, 8));
        }
        permit_ecdsa(&mut net, digest);
        net.pump(|rng, p| hostile(rng, p, 8));
        for signature in settle(net, &mut tally).into_values() {
            assert!(verify_ecdsa(&signature.public_key, &digest, &signature.r_s));
        }
    }
    saw_everything(&tally);
}

fn frost_signing_ends_in_the_right_signature_or_none<S: Purposes>() {
    let mut tally = Tally::default();
    let mut world = World::new(5, 3, 1);
    let keys = world.frost_live::<S>("cold");
    for seed in 0..80_u8 {
        let message = [seed; 9];
        let runs = world.frost_sign_runs(&keys, &participants(&[0, 2, 3]), "m/4", &message);
        let mut net = Net::new(runs, u64::from(seed));
        net.start();
        if seed % 2 == 0 {
            net.pump(|rng, p| hostile(rng, p, 12));
        }
        permit_frost(&mut net, &message);
        net.pump(|rng, p| hostile(rng, p, 12));
        for signature in settle(net, &mut tally).into_values() {
            assert!(S::verify(&signature.public_key, &message, &signature.bytes));
        }
    }
    saw_everything(&tally);
}

#[test]
fn ed25519_signing_ends_in_the_right_signature_or_none() {
    frost_signing_ends_in_the_right_signature_or_none::<Ed25519Sha512>();
}

#[test]
fn bip340_signing_ends_in_the_right_signature_or_none() {
    frost_signing_ends_in_the_right_signature_or_none::<Secp256K1Sha256TR>();
}
