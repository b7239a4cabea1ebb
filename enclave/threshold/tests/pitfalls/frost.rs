//! FROST's commitments and shares: who is named, and when nobody is.

use casemate_proto::cbor;
use casemate_threshold::{
    Abort, Ed25519SignRun, Misbehaviour, Run, RunError, RunMessage, RunRegistry, verify_ed25519,
};

use crate::common::{
    DEADLINE, End, NOW, Net, World, participant, participants, party, permit_frost,
};
use crate::edit;

#[test]
fn frost_names_who_sent_a_wrong_signature_share() {
    let mut world = World::new(5, 3, 23);
    let keys = world.ed25519_live("cold");
    let runs = world.frost_sign_runs(&keys, &participants(&[0, 1, 4]), "m/1", b"x");
    let mut net = Net::new(runs, 23);
    net.start();
    net.pump(|_, p| vec![p]);
    permit_frost(&mut net, b"x");
    net.pump(|_, mut packet| {
        if packet.from == party(4) {
            // the share is the second half; another scalar below the order
            packet.bytes = edit(&packet, |m| m.chunks[0].bytes[32] ^= 1);
        }
        vec![packet]
    });
    for (p, end) in net.ends() {
        if p == party(4) {
            let signature = end.unwrap();
            assert!(verify_ed25519(&signature.public_key, b"x", &signature.bytes));
            continue;
        }
        let End::Failed(error) = end else { panic!("{end:?}") };
        assert_eq!(error.culprits(), [party(4)]);
        assert!(matches!(
            error,
            RunError::PeerMisbehaved { what: Misbehaviour::WrongSignatureShare, .. }
        ));
    }
}

#[test]
fn frost_blames_nobody_where_signers_saw_different_commitments() {
    let mut world = World::new(5, 3, 24);
    let keys = world.ed25519_live("cold");
    let set = participants(&[0, 1, 4]);
    let runs = world.frost_sign_runs(&keys, &set, "m", b"x");
    let context = runs[0].context().clone();
    // party 4 commits to other nonces towards party 1
    let me = participant(4, 0);
    let claim = RunRegistry::new(me.party, me.boot).claim(context, DEADLINE).unwrap();
    let mut twin =
        Ed25519SignRun::new(claim, &keys[&party(4)], b"x".to_vec(), &mut world.rng).unwrap();
    let twins = twin.start(NOW).unwrap().send;
    let mut net = Net::new(runs, 24);
    net.start();
    net.pump(|_, mut packet| {
        if packet.from == party(4) && packet.to == party(1) {
            packet.bytes = twins.iter().find(|o| o.to == party(1)).unwrap().bytes.clone();
        }
        vec![packet]
    });
    permit_frost(&mut net, b"x");
    net.pump(|_, p| vec![p]);
    for (p, end) in net.ends() {
        let End::Failed(error) = end else { panic!("{p} {end:?}") };
        assert_eq!(error, RunError::Aborted { what: Abort::CommitmentsDiffer });
        assert!(error.culprits().is_empty());
    }
}

/// The library would read over the bytes, and they are part of what signers compare.
#[test]
fn frost_names_who_sent_bytes_behind_its_commitments() {
    let mut world = World::new(5, 3, 24);
    let keys = world.ed25519_live("cold");
    let runs = world.frost_sign_runs(&keys, &participants(&[0, 1, 4]), "m", b"x");
    let mut net = Net::new(runs, 24);
    net.start();
    net.pump(|_, mut packet| {
        if packet.from == party(4) && packet.to == party(1) {
            packet.bytes = edit(&packet, |m| m.chunks[0].bytes.push(0));
        }
        vec![packet]
    });
    permit_frost(&mut net, b"x");
    net.pump(|_, p| vec![p]);
    let ends = net.ends();
    let (_, End::Failed(error)) = ends.iter().find(|(p, _)| **p == party(1)).unwrap() else {
        panic!("it signs")
    };
    assert_eq!(error.culprits(), [party(4)]);
    assert!(matches!(error, RunError::PeerMisbehaved { what: Misbehaviour::Undecodable, .. }));
}

#[test]
fn i8_runs_of_one_key_never_repeat_a_nonce_commitment() {
    let mut world = World::new(3, 2, 25);
    let keys = world.ed25519_live("cold");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let runs = world.frost_sign_runs(&keys, &participants(&[0, 1]), "m", b"x");
        let mut net = Net::new(runs, 25);
        net.start();
        for packet in &net.queue {
            let message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
            assert!(seen.insert(message.chunks[0].bytes.clone()));
        }
    }
    assert_eq!(seen.len(), 40);
}
