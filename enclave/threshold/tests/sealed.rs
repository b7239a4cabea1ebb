//! Shares that are sealed, and keys that sign again after a recovery.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;
#[path = "../../seal/tests/kit/mod.rs"]
mod kit;

use casemate_proto::recovery::RecoveryGranted;
use casemate_recovery::SealedBlob;
use casemate_seal::{OpenedShare, SealableShare};
use casemate_threshold::{
    KeyEpoch, KeyFacts, LiveEcdsaKey, LiveEd25519Key, Participant, Participants, RecoverError,
    Recovered,
};
use common::{World, party};
use kit::Kit;

/// The cluster's parties with the boots of one side of a recovery.
fn holders(boots: &[kit::Boot]) -> Participants {
    let of =
        |(number, boot): (u16, &kit::Boot)| Participant { party: party(number), boot: boot.id() };
    Participants::new((0..).zip(boots).map(of).collect()).unwrap()
}

/// A world whose parties are the kit's former boots, in the kit's cluster.
fn world(kit: &Kit, seed: u64) -> World {
    let mut world = World::new(3, 2, seed);
    world.belongs_to(kit.genesis.id(), holders(&kit.former));
    world
}

/// All three nodes seal; the boots of the recovery open.
fn recover(
    kit: &mut Kit,
    shares: Vec<Vec<SealableShare>>,
) -> (RecoveryGranted, Vec<Vec<OpenedShare>>) {
    let blobs: Vec<SealedBlob> =
        shares.into_iter().enumerate().map(|(node, shares)| kit.seal(node, shares)).collect();
    let named: Vec<_> = blobs.iter().map(Some).collect();
    let granted = kit.grant(kit.certificate(&named));
    let opened = blobs
        .iter()
        .enumerate()
        .map(|(node, blob)| {
            let releases = kit.releases(&granted, blob, &[0, 2]);
            kit.open(&granted, node, blob, &releases).unwrap()
        })
        .collect();
    (granted, opened)
}

fn as_it_was<'a>(
    facts: &'a KeyFacts,
    public_key: &'a [u8],
    granted: &'a RecoveryGranted,
    holders: &'a Participants,
    me: u16,
) -> Recovered<'a> {
    Recovered {
        granted,
        me: party(me),
        epoch: facts.key.epoch,
        public_key,
        chain_code: facts.chain_code,
        threshold: 2,
        former: &facts.holders,
        holders,
    }
}

#[test]
fn keys_of_every_scheme_sign_again_under_their_public_keys_after_a_recovery() {
    let mut kit = Kit::new();
    let mut world = world(&kit, 41);
    let (ecdsa, ed25519) = (world.ecdsa_live("hot"), world.ed25519_live("cold"));
    let bip340 = world.bip340_live("taproot");
    let shares = (0..3)
        .map(|n| {
            vec![
                ecdsa[&party(n)].to_sealable().unwrap(),
                ed25519[&party(n)].to_sealable().unwrap(),
                bip340[&party(n)].to_sealable().unwrap(),
            ]
        })
        .collect();
    let (granted, opened) = recover(&mut kit, shares);
    let new = holders(&kit.new);
    let mut again = (Vec::new(), Vec::new(), Vec::new());
    for (me, shares) in (0..).zip(opened) {
        // in the order of their names: cold, hot, taproot
        let [cold, hot, taproot] = <[OpenedShare; 3]>::try_from(shares).unwrap();
        let key = &ed25519[&party(me)];
        let public = key.public_key();
        let of = as_it_was(key.facts(), &public, &granted, &new, me);
        again.0.push((party(me), LiveEd25519Key::recovered(cold, &of).unwrap()));
        let key = &ecdsa[&party(me)];
        let public = key.public_key();
        let of = as_it_was(key.facts(), &public, &granted, &new, me);
        again.1.push((party(me), LiveEcdsaKey::recovered(hot, &of).unwrap()));
        let key = &bip340[&party(me)];
        let public = key.public_key();
        let of = as_it_was(key.facts(), &public, &granted, &new, me);
        again
            .2
            .push((party(me), casemate_threshold::LiveBip340Key::recovered(taproot, &of).unwrap()));
    }
    world.recovered(casemate_proto::Incarnation(1), new.clone());
    let two = Participants::new(new.as_slice()[1..].to_vec()).unwrap();
    let keys = again.1.into_iter().collect();
    let signature = world.ecdsa_sign(&keys, &two, "m", [7; 32]);
    let public = ecdsa[&party(0)].public_key();
    assert!(casemate_threshold::verify_ecdsa(&public, &[7; 32], &signature.r_s));

    let keys = again.0.into_iter().collect();
    let signature = world.frost_sign(&keys, &two, "m", &[8; 32]);
    let public = <[u8; 32]>::try_from(ed25519[&party(0)].public_key()).unwrap();
    assert!(casemate_threshold::verify_ed25519(&public, &[8; 32], &signature.bytes));

    let keys = again.2.into_iter().collect();
    let signature = world.frost_sign(&keys, &two, "m", &[9; 32]);
    let public = <[u8; 33]>::try_from(bip340[&party(0)].public_key()).unwrap();
    assert!(casemate_threshold::verify_bip340(&public, &[9; 32], &signature.bytes));
}

#[test]
fn a_share_that_was_sealed_before_its_epoch_was_live_is_the_epochs_share() {
    let mut kit = Kit::new();
    let mut world = world(&kit, 42);
    let pending = world.ed25519_keygen("cold");
    let shares = (0..3).map(|n| vec![pending[&party(n)].to_sealable().unwrap()]).collect();
    let (granted, opened) = recover(&mut kit, shares);
    let new = holders(&kit.new);
    let facts = pending[&party(0)].facts().clone();
    let public = pending[&party(0)].public_key();
    for (me, mut shares) in (0..).zip(opened) {
        let of = as_it_was(&facts, &public, &granted, &new, me);
        let key = LiveEd25519Key::recovered(shares.remove(0), &of).unwrap();
        assert_eq!(key.facts().transcript, facts.transcript);
        assert_eq!(key.facts().incarnation, casemate_proto::Incarnation(1));
        assert_eq!(key.facts().holders, new);
    }
}

#[test]
fn i6_a_share_that_is_not_what_the_ledger_says_makes_no_key() {
    let mut kit = Kit::new();
    let mut world = world(&kit, 43);
    let ecdsa = world.ecdsa_live("hot");
    let facts = ecdsa[&party(0)].facts().clone();
    let public = ecdsa[&party(0)].public_key();
    let new = holders(&kit.new);
    let stranger = [0; 33];
    let pair = Participants::new(new.as_slice()[1..].to_vec()).unwrap();
    type Change = fn(&mut Recovered<'_>);
    let cases: [(&str, Change); 6] = [
        ("epoch", |of| of.epoch = KeyEpoch(1)),
        ("threshold or chain code", |of| of.threshold = 3),
        ("threshold or chain code", |of| of.chain_code = [0; 32]),
        // of another node of the cluster
        ("", |of| of.me = party(2)),
        ("public key", |_| ()),
        ("successors", |_| ()),
    ];
    for (field, change) in cases {
        let shares =
            (0..3).map(|n| vec![ecdsa[&party(n)].to_sealable().unwrap()]).collect::<Vec<_>>();
        let (granted, mut opened) = recover(&mut kit, shares);
        let mut of = as_it_was(&facts, &public, &granted, &new, 0);
        change(&mut of);
        if field == "public key" {
            of.public_key = &stranger;
        }
        if field == "successors" {
            of.holders = &pair;
        }
        let result = LiveEcdsaKey::recovered(opened[0].remove(0), &of);
        match field {
            // an ECDSA share does not say whose it is: its first signature does, and the blob's boot
            "" => assert!(result.is_ok()),
            field => assert!(
                matches!(&result, Err(RecoverError::Other { field: at, .. }) if *at == field),
                "{result:?}"
            ),
        }
    }
}

#[test]
fn i6_a_frost_share_of_another_node_or_scheme_makes_no_key() {
    let mut kit = Kit::new();
    let mut world = world(&kit, 44);
    let keys = world.ed25519_live("cold");
    let facts = keys[&party(0)].facts().clone();
    let public = keys[&party(0)].public_key();
    let new = holders(&kit.new);
    let mut opened = || {
        let shares = (0..3).map(|n| vec![keys[&party(n)].to_sealable().unwrap()]).collect();
        recover(&mut kit, shares)
    };
    let (granted, mut shares) = opened();
    let of = as_it_was(&facts, &public, &granted, &new, 0);
    assert!(matches!(
        LiveEd25519Key::recovered(shares[1].remove(0), &of),
        Err(RecoverError::NoShare { .. })
    ));
    assert!(matches!(
        LiveEcdsaKey::recovered(shares[0].remove(0), &of),
        Err(RecoverError::Other { field: "scheme", .. })
    ));
    // the boots that held it must be those that the ledger names
    let (granted, mut shares) = opened();
    let of = Recovered { former: &new, ..as_it_was(&facts, &public, &granted, &new, 0) };
    assert!(matches!(
        LiveEd25519Key::recovered(shares[0].remove(0), &of),
        Err(RecoverError::Other { field: "set of holders", .. })
    ));
}
