//! New shares for a kept key: refresh, resharing to other parties and thresholds, repair.

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

use casemate_threshold::{
    EcdsaKeygenRun, EcdsaPublic, Ed25519Public, LiveEcdsaKey, Misuse, Participant, Participants,
    PartyId, PendingEcdsaKey, Purpose, RunError, RunRegistry, verify_ecdsa,
};
use common::{Purposes, World, key_ref, participant, participants, party, run_all};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;

fn public_of(key: &LiveEcdsaKey) -> EcdsaPublic {
    EcdsaPublic {
        public_key: key.public_key().try_into().unwrap(),
        chain_code: key.facts().chain_code,
    }
}

/// Reshares among `to`, the givers being those of `from` that are in `to`.
fn reshare(
    world: &mut World,
    keys: &BTreeMap<PartyId, LiveEcdsaKey>,
    from: &Participants,
    to: &Participants,
    t: u16,
) -> BTreeMap<PartyId, PendingEcdsaKey> {
    let old = keys.values().next().unwrap();
    let known = public_of(old);
    let epoch = old.facts().key.epoch.0 + 1;
    let purpose = Purpose::EcdsaReshare {
        key: key_ref("hot", epoch),
        from: from.clone(),
        from_threshold: old.facts().threshold,
    };
    let context = world.context(purpose, to, t);
    let mut runs = Vec::new();
    for p in to.as_slice() {
        world.registries.insert(p.party, RunRegistry::new(p.party, p.boot));
        let claim = world.claim(&context, p.party);
        let share = from.contains(p).then(|| &keys[&p.party]);
        runs.push(EcdsaKeygenRun::reshare(claim, &known, share).unwrap());
    }
    run_all(runs, world.seed())
}

#[test]
fn ecdsa_refresh_keeps_the_public_key_and_signs() {
    let mut world = World::new(3, 2, 1);
    let keys = world.ecdsa_live("hot");
    let all = world.all.clone();
    let public = public_of(&keys[&party(0)]);
    let pending = reshare(&mut world, &keys, &all, &all, 2);
    let new = world.ecdsa_go_live(pending);
    assert_eq!(public_of(&new[&party(1)]), public);
    let signature = world.ecdsa_sign(&new, &participants(&[0, 2]), "m/1", [3; 32]);
    assert!(verify_ecdsa(&signature.public_key, &[3; 32], &signature.r_s));
}

#[test]
fn ecdsa_reshare_to_three_of_five_and_back_to_two_of_three_signs() {
    let mut world = World::new(3, 2, 2);
    let keys = world.ecdsa_live("hot");
    let public = public_of(&keys[&party(0)]);
    let (three, five) = (world.all.clone(), participants(&[0, 1, 2, 3, 4]));
    let pending = reshare(&mut world, &keys, &three, &five, 3);
    let wider = world.ecdsa_go_live(pending);
    assert_eq!((wider.len(), public_of(&wider[&party(4)])), (5, public.clone()));
    let signature = world.ecdsa_sign(&wider, &participants(&[1, 3, 4]), "m", [3; 32]);
    assert!(verify_ecdsa(&public.public_key, &[3; 32], &signature.r_s));

    let back = participants(&[2, 3, 4]);
    let pending = reshare(&mut world, &wider, &five, &back, 2);
    let narrower = world.ecdsa_go_live(pending);
    assert_eq!(public_of(&narrower[&party(3)]), public);
    let signature = world.ecdsa_sign(&narrower, &participants(&[2, 4]), "m", [4; 32]);
    assert!(verify_ecdsa(&public.public_key, &[4; 32], &signature.r_s));
}

#[test]
fn ecdsa_lost_share_is_given_back_to_a_new_boot() {
    let mut world = World::new(3, 2, 3);
    let keys = world.ecdsa_live("hot");
    let public = public_of(&keys[&party(0)]);
    let givers = participants(&[0, 2]);
    let new_boot = participant(1, 9);
    let mut list = givers.as_slice().to_vec();
    list.push(new_boot);
    let holders = Participants::new(list).unwrap();
    let pending = reshare(&mut world, &keys, &givers, &holders, 2);
    let new = world.ecdsa_go_live(pending);
    assert_eq!(public_of(&new[&party(1)]), public);
    let pair = Participants::new(vec![participant(0, 0), new_boot]).unwrap();
    let signature = world.ecdsa_sign(&new, &pair, "m/0", [5; 32]);
    assert!(verify_ecdsa(&signature.public_key, &[5; 32], &signature.r_s));
}

#[test]
fn ecdsa_reshare_with_fewer_than_t_old_holders_is_refused() {
    let mut world = World::new(3, 2, 4);
    let keys = world.ecdsa_live("hot");
    // party 1 and 2 come back with new boots: only party 0 still holds a share
    let list = vec![participant(0, 0), participant(1, 9), participant(2, 9)];
    let to = Participants::new(list).unwrap();
    let purpose = Purpose::EcdsaReshare {
        key: key_ref("hot", 1),
        from: world.all.clone(),
        from_threshold: 2,
    };
    let context = world.context(purpose, &to, 2);
    let claim = world.claim(&context, party(0));
    let key = &keys[&party(0)];
    let error = EcdsaKeygenRun::reshare(claim, &public_of(key), Some(key)).unwrap_err();
    assert!(matches!(error, RunError::Misuse(_)), "{error}");
}

#[test]
fn ecdsa_reshare_to_the_same_or_an_earlier_epoch_is_refused() {
    let mut world = World::new(3, 2, 5);
    let keys = world.ecdsa_live("hot");
    let all = world.all.clone();
    for (name, epoch) in [("hot", 0), ("cold", 1)] {
        let purpose = Purpose::EcdsaReshare {
            key: key_ref(name, epoch),
            from: all.clone(),
            from_threshold: 2,
        };
        let context = world.context(purpose, &all, 2);
        let claim = world.claim(&context, party(0));
        let key = &keys[&party(0)];
        let error = EcdsaKeygenRun::reshare(claim, &public_of(key), Some(key)).unwrap_err();
        assert_eq!(error, RunError::Misuse(Misuse::WrongKey), "{name} {epoch}");
    }
}

#[test]
fn ecdsa_reshare_from_the_wrong_public_key_aborts_at_everybody() {
    let mut world = World::new(3, 2, 6);
    let keys = world.ecdsa_live("hot");
    let others = world.ecdsa_live("hot");
    // the giver's own share does not fit what the ledger says
    let all = world.all.clone();
    let purpose =
        Purpose::EcdsaReshare { key: key_ref("hot", 1), from: all.clone(), from_threshold: 2 };
    let context = world.context(purpose, &all, 2);
    let claim = world.claim(&context, party(0));
    let error =
        EcdsaKeygenRun::reshare(claim, &public_of(&others[&party(0)]), Some(&keys[&party(0)]))
            .unwrap_err();
    assert_eq!(error, RunError::Misuse(Misuse::WrongKey));
}

fn refreshes_keep_the_key<S: Purposes>() {
    for (n, t) in [(3, 2), (5, 3)] {
        let mut world = World::new(n, t, 7);
        let keys = world.frost_live::<S>("cold");
        let public = keys[&party(0)].public_key();
        let pending = world.frost_refresh(&keys);
        let new = world.frost_go_live(pending);
        assert_eq!(new[&party(0)].public_key(), public);
        assert_eq!(new[&party(0)].facts().chain_code, keys[&party(0)].facts().chain_code);
        let pending = world.frost_refresh(&new);
        let newer = world.frost_go_live(pending);
        let set: Vec<u16> = (1..=t).collect();
        let signature = world.frost_sign(&newer, &participants(&set), "m/5", b"x");
        assert!(S::verify(&signature.public_key, b"x", &signature.bytes));
    }
}

#[test]
fn ed25519_refresh_keeps_the_public_key_and_signs() {
    refreshes_keep_the_key::<Ed25519Sha512>();
}

#[test]
fn bip340_refresh_keeps_the_public_key_and_signs() {
    refreshes_keep_the_key::<Secp256K1Sha256TR>();
}

#[test]
fn ed25519_old_and_new_shares_together_sign_nothing() {
    let mut world = World::new(3, 2, 8);
    let mut keys = world.ed25519_live("cold");
    let pending = world.frost_refresh(&keys);
    let mut new = world.frost_go_live(pending);
    let mixed = BTreeMap::from([
        (party(0), keys.remove(&party(0)).unwrap()),
        (party(1), new.remove(&party(1)).unwrap()),
    ]);
    let facts = mixed[&party(0)].facts().clone();
    let purpose = Purpose::Ed25519Sign {
        key: facts.key,
        path: casemate_proto::DerivationPath::root(),
        subject: casemate_threshold::ed25519_subject(b"x"),
    };
    let context = world.context(purpose, &participants(&[0, 1]), 2);
    let claim = world.claim(&context, party(1));
    let error = casemate_threshold::Ed25519SignRun::new(
        claim,
        &mixed[&party(1)],
        b"x".to_vec(),
        &mut world.rng,
    )
    .unwrap_err();
    assert_eq!(error, RunError::Misuse(Misuse::WrongKey));
}

fn repairs_give_a_share_to_a_new_boot<S: Purposes>() {
    let cases: [(u16, u16, &[u16]); 6] = [
        (3, 2, &[1]),
        (5, 3, &[0]),
        (5, 3, &[4]),
        (5, 3, &[1, 4]),
        (4, 2, &[0, 1]),
        (6, 2, &[0, 2, 3, 5]),
    ];
    for (n, t, lost) in cases {
        let mut world = World::new(n, t, 9);
        let mut keys = world.frost_live::<S>("cold");
        for lost in lost {
            keys.remove(&party(*lost)).unwrap();
        }
        let (holders, runs) = world.frost_repair_runs(&keys, lost);
        let pending = run_all(runs, world.seed());
        assert_eq!(pending.len(), usize::from(n));
        let new = world.frost_go_live(pending);
        let mut signers: Vec<Participant> = lost.iter().map(|p| participant(*p, 9)).collect();
        signers.truncate(usize::from(t));
        let missing = usize::from(t).saturating_sub(signers.len());
        let others = holders.as_slice().iter().filter(|p| !lost.contains(&p.party.number()));
        signers.extend(others.rev().take(missing));
        let set = Participants::new(signers).unwrap();
        let signature = world.frost_sign(&new, &set, "m/5", b"x");
        assert!(S::verify(&signature.public_key, b"x", &signature.bytes));
    }
}

#[test]
fn ed25519_lost_share_is_repaired_to_a_new_boot() {
    repairs_give_a_share_to_a_new_boot::<Ed25519Sha512>();
}

#[test]
fn bip340_lost_share_is_repaired_to_a_new_boot() {
    repairs_give_a_share_to_a_new_boot::<Secp256K1Sha256TR>();
}

#[test]
fn repair_with_fewer_than_t_shares_left_does_not_begin() {
    let mut world = World::new(3, 2, 9);
    let keys = world.frost_live::<Ed25519Sha512>("cold");
    let facts = keys.values().next().unwrap().facts().clone();
    let known = Ed25519Public {
        public_key: keys.values().next().unwrap().public_key().try_into().unwrap(),
        chain_code: facts.chain_code,
    };
    for lost in [vec![], vec![0, 1], vec![1, 0], vec![0, 0], vec![7]] {
        let lost = lost.into_iter().map(party).collect();
        let purpose = Purpose::Ed25519Repair { key: key_ref("cold", 1), lost };
        let context = world.context(purpose, &facts.holders, facts.threshold);
        let claim = world.claim(&context, party(2));
        let old = keys.get(&party(2));
        let run =
            casemate_threshold::Ed25519RepairRun::new(claim, known.clone(), old, &mut world.rng);
        assert!(matches!(run, Err(RunError::Misuse(_))));
    }
}
