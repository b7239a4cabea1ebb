//! The handshake between nodes: what makes a channel, and each thing about a peer that must not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod kit;

use std::collections::BTreeSet;

use casemate_attestation_verify::{BoundField, Refusal, Unmet};
use casemate_channel::{Expected, IdentityError, LocalIdentity, Progress, Refused};
use casemate_proto::manifest::{BootRecord, GenesisRecord};
use casemate_proto::{Hash32, Incarnation, UnixMillis};
use casemate_sim::{EnclaveSpec, SimHost};
use kit::*;

/// Each of two nodes in turn has an enclave that was changed so: what the other refuses it for.
fn refusals_of(change: fn(&mut EnclaveSpec)) -> [Refused; 2] {
    refusals_at(NOW, change)
}

fn refusals_at(made: UnixMillis, change: fn(&mut EnclaveSpec)) -> [Refused; 2] {
    let altered = |number| {
        let mut enclave = enclave(number);
        change(&mut enclave);
        nsm_of(&HOST, enclave, made)
    };
    let (alpha, bravo) = (altered(0), altered(1));
    let dialled = undisturbed(&Party::honest(0).attested_by(&alpha), "bravo", &Party::honest(1));
    let answered = undisturbed(&Party::honest(0), "bravo", &Party::honest(1).attested_by(&bravo));
    [dialled.acceptor_refused(), answered.dialler_refused()]
}

#[test]
fn i9_two_nodes_attest_each_other_and_talk_both_ways() {
    let (dialler, acceptor) = (Party::honest(0), Party::honest(1));
    let both = undisturbed(&dialler, "bravo", &acceptor);
    let (mut a, bravo) = both.dialler.unwrap();
    let (mut b, alpha) = both.acceptor.unwrap().unwrap();
    for (peer, number, party) in [(&alpha, 0, &dialler), (&bravo, 1, &acceptor)] {
        let (record, _) = boot(number, u8::try_from(number).unwrap() + 1);
        assert_eq!(peer.node(), party.identity.node());
        assert_eq!(peer.boot(), party.identity.boot());
        assert_eq!(peer.boot_key(), &record.key);
        assert_eq!(peer.channel_key(), &record.channel_key);
        assert_eq!(peer.apply_version(), 1);
        assert_eq!(peer.measurement(), &measurement(IMAGE));
        assert_eq!(peer.scope(), &expected().scope);
        assert_eq!(peer.attested(), NOW);
    }
    for message in [b"".as_slice(), b"hello", &[7; 100_000]] {
        let frames = a.seal(message).unwrap();
        let opened: Vec<_> = frames.iter().filter_map(|frame| b.open(frame).unwrap()).collect();
        assert_eq!(opened, [message]);
        let frames = b.seal(message).unwrap();
        let opened: Vec<_> = frames.iter().filter_map(|frame| a.open(frame).unwrap()).collect();
        assert_eq!(opened, [message]);
    }
}

#[test]
fn an_attested_peer_is_of_its_own_boots_record_and_of_no_other() {
    let peer = undisturbed(&Party::honest(0), "bravo", &Party::honest(1)).dialler.unwrap().1;
    let (record, _) = boot(1, 2);
    assert!(peer.is_of(&record));
    assert!(peer.is_of(&BootRecord { evidence: vec![1, 2, 3], ..record.clone() }));
    for other in [
        BootRecord { node: name("alpha"), ..record.clone() },
        BootRecord { key: [1; 32], ..record.clone() },
        BootRecord { channel_key: [1; 32], ..record.clone() },
        BootRecord { nonce: [1; 32], ..record.clone() },
        BootRecord { apply_version: 2, ..record.clone() },
    ] {
        assert!(!peer.is_of(&other), "{other:?}");
    }
}

#[test]
fn i9_wrong_pcr0_is_refused() {
    for refused in refusals_of(|enclave| enclave.measurement[0][0] ^= 1) {
        assert!(matches!(unmet(refused).1, Unmet::Measurement { .. }));
    }
}

#[test]
fn i9_wrong_pcr1_is_refused() {
    for refused in refusals_of(|enclave| enclave.measurement[1][47] ^= 1) {
        assert!(matches!(unmet(refused).1, Unmet::Measurement { .. }));
    }
}

#[test]
fn i9_wrong_pcr2_is_refused() {
    for refused in refusals_of(|enclave| enclave.measurement[2][20] ^= 0x80) {
        assert!(matches!(unmet(refused).1, Unmet::Measurement { .. }));
    }
}

#[test]
fn i9_debug_pcrs_are_refused() {
    for refused in refusals_of(|enclave| enclave.measurement = [[0; 48]; 3]) {
        assert!(matches!(unmet(refused).1, Unmet::Debug { .. }));
    }
}

#[test]
fn i9_debug_pcrs_are_refused_even_where_they_are_on_the_list() {
    let debug = nsm_of(&HOST, EnclaveSpec { measurement: [[0; 48]; 3], ..enclave(0) }, NOW);
    let mut acceptor = Party::honest(1);
    acceptor.expected.images.insert(measurement([[0; 48]; 3]));
    let both = undisturbed(&Party::honest(0).attested_by(&debug), "bravo", &acceptor);
    assert!(matches!(unmet(both.acceptor_refused()).1, Unmet::Debug { .. }));
}

#[test]
fn i9_an_image_that_is_accepted_no_longer_is_refused() {
    let other = measurement([[0x20; 48], [0x21; 48], [0x22; 48]]);
    let mut acceptor = Party::honest(1);
    acceptor.expected.images = BTreeSet::from([other]);
    let both = undisturbed(&Party::honest(0), "bravo", &acceptor);
    assert!(matches!(unmet(both.acceptor_refused()).1, Unmet::Measurement { accepted: 1, .. }));
}

#[test]
fn i9_without_accepted_images_nobody_is_accepted() {
    let mut acceptor = Party::honest(1);
    acceptor.expected.images.clear();
    let both = undisturbed(&Party::honest(0), "bravo", &acceptor);
    assert_eq!(unmet(both.acceptor_refused()), (name("alpha"), Unmet::NothingAccepted));
}

#[test]
fn i9_another_region_is_refused() {
    for refused in refusals_of(|enclave| enclave.region = "ca-central-1".to_owned()) {
        assert!(matches!(unmet(refused).1, Unmet::Region { .. }));
    }
}

#[test]
fn i9_another_role_is_refused() {
    for refused in refusals_of(|enclave| enclave.role_arn = Some("arn:aws:iam::0:role/x".into())) {
        assert!(matches!(unmet(refused).1, Unmet::Pcr { index: 3, .. }));
    }
}

#[test]
fn i9_no_role_is_refused() {
    for refused in refusals_of(|enclave| enclave.role_arn = None) {
        assert!(matches!(unmet(refused).1, Unmet::Pcr { index: 3, .. }));
    }
}

#[test]
fn i9_another_trust_root_is_refused() {
    let elsewhere = SimHost::new().unwrap();
    let (alpha, bravo) = (nsm_of(&elsewhere, enclave(0), NOW), nsm_of(&elsewhere, enclave(1), NOW));
    let dialled = undisturbed(&Party::honest(0).attested_by(&alpha), "bravo", &Party::honest(1));
    let answered = undisturbed(&Party::honest(0), "bravo", &Party::honest(1).attested_by(&bravo));
    for refused in [dialled.acceptor_refused(), answered.dialler_refused()] {
        assert!(
            matches!(&refused, Refused::Attestation { refusal, .. }
                if matches!(**refusal, Refusal::Root { .. })),
            "{refused}"
        );
    }
}

#[test]
fn i9_stale_document_is_refused() {
    for refused in refusals_at(UnixMillis(NOW.0 - 60_001), |_| {}) {
        assert!(matches!(unmet(refused).1, Unmet::TooOld { max_age_ms: 60_000, .. }));
    }
    let just = nsm_of(&HOST, enclave(0), UnixMillis(NOW.0 - 60_000));
    let both = undisturbed(&Party::honest(0).attested_by(&just), "bravo", &Party::honest(1));
    both.acceptor.unwrap().expect("a minute is not too old");
}

#[test]
fn i9_document_from_the_future_is_refused() {
    for refused in refusals_at(UnixMillis(NOW.0 + 2_001), |_| {}) {
        assert!(matches!(unmet(refused).1, Unmet::FromTheFuture { tolerance_ms: 2_000, .. }));
    }
}

#[test]
fn i9_another_genesis_is_refused_by_name() {
    let mut dialler = Party::honest(0);
    dialler.expected.scope = Hash32::new([9; 32]);
    let both = undisturbed(&dialler, "bravo", &Party::honest(1));
    let (found, ours) = (Hash32::new([9; 32]), expected().scope);
    assert_eq!(both.acceptor_refused(), Refused::Scope { found, ours });
}

#[test]
fn i9_another_incarnation_is_refused_by_name() {
    let mut dialler = Party::honest(0);
    dialler.expected.incarnation = Incarnation(1);
    let both = undisturbed(&dialler, "bravo", &Party::honest(1));
    let (found, ours) = (Incarnation(1), Incarnation(0));
    assert_eq!(both.acceptor_refused(), Refused::Incarnation { found, ours });
}

#[test]
fn i9_a_boot_that_is_being_born_and_one_of_the_cluster_refuse_each_other() {
    let born = Expected::at_birth(manifest());
    assert_eq!(born.scope, GenesisRecord::manifest_hash(&manifest()));
    assert_eq!(born.images, expected().images);
    let mut dialler = Party::honest(0);
    dialler.expected = born;
    let both = undisturbed(&dialler, "bravo", &Party::honest(1));
    assert!(matches!(both.acceptor_refused(), Refused::Scope { .. }));
}

#[test]
fn i9_a_node_outside_the_roster_is_refused() {
    let mut dialler = Party::honest(0);
    let (record, secret) = boot(0, 1);
    dialler.identity =
        LocalIdentity::new(BootRecord { node: name("delta"), ..record }, secret).unwrap();
    let both = undisturbed(&dialler, "bravo", &Party::honest(1));
    assert_eq!(both.acceptor_refused(), Refused::UnknownNode { node: name("delta") });
}

#[test]
fn a_node_outside_the_roster_is_not_dialled() {
    let refused = Party::honest(0).dial("delta").unwrap_err();
    assert_eq!(refused, Refused::UnknownNode { node: name("delta") });
}

#[test]
fn i9_a_node_does_not_dial_itself() {
    let refused = Party::honest(0).dial("alpha").unwrap_err();
    assert_eq!(refused, Refused::Oneself { node: name("alpha") });
}

#[test]
fn i9_a_second_boot_of_the_node_itself_is_refused() {
    let mut twin = Party::honest(1);
    let (record, secret) = boot(1, 50);
    twin.identity = LocalIdentity::new(record, secret).unwrap();
    // as it would dial a node of its own name
    let (_, first) = Party::honest(0).dial("bravo").unwrap();
    assert!(twin.receive(twin.accept(), &first).is_ok(), "its own greeting is taken");
    let (_, first) = twin.dial("alpha").unwrap();
    let refused = Party::honest(1).receive(Party::honest(1).accept(), &first).unwrap_err();
    assert_eq!(refused, Refused::Oneself { node: name("bravo") });
}

#[test]
fn i9_a_greeting_for_another_node_is_refused() {
    let both = undisturbed(&Party::honest(0), "bravo", &Party::honest(2));
    let (found, ours) = (name("bravo"), name("charlie"));
    assert_eq!(both.acceptor_refused(), Refused::Misrouted { found, ours });
}

#[test]
fn i9_document_of_an_earlier_handshake_is_refused() {
    // the acceptor's: its nonce is the dialler's of that time
    let recorder = Recorder::of(nsm(1));
    let earlier = Party::honest(1).attested_by(&recorder);
    undisturbed(&Party::honest(0), "bravo", &earlier).dialler.unwrap();
    let replay = Replay(recorder.last());
    let fresh = Party { seed: 7, ..Party::honest(0) };
    let both = undisturbed(&fresh, "bravo", &Party::honest(1).attested_by(&replay));
    let (node, unmet_field) = unmet(both.dialler_refused());
    assert_eq!(node, name("bravo"));
    assert!(matches!(unmet_field, Unmet::Field { field: BoundField::Nonce, .. }));

    // the dialler's
    let recorder = Recorder::of(nsm(0));
    let earlier = Party::honest(0).attested_by(&recorder);
    undisturbed(&earlier, "bravo", &Party::honest(1)).acceptor.unwrap().unwrap();
    let replay = Replay(recorder.last());
    let fresh = Party { seed: 7, ..Party::honest(1) };
    let both = undisturbed(&Party::honest(0).attested_by(&replay), "bravo", &fresh);
    let (node, unmet_field) = unmet(both.acceptor_refused());
    assert_eq!(node, name("alpha"));
    assert!(matches!(unmet_field, Unmet::Field { field: BoundField::Nonce, .. }));
}

#[test]
fn i9_document_of_an_earlier_handshake_is_refused_even_under_a_repeated_nonce() {
    let recorder = Recorder::of(nsm(1));
    let earlier = Party::honest(1).attested_by(&recorder);
    undisturbed(&Party::honest(0), "bravo", &earlier).dialler.unwrap();
    let replay = Replay(recorder.last());
    // the dialler's generator gives the same bytes again; the acceptor's does not
    let later = Party { seed: 7, ..Party::honest(1) }.attested_by(&replay);
    let both = undisturbed(&Party::honest(0), "bravo", &later);
    assert_eq!(both.dialler_refused(), Refused::NotBound { node: name("bravo") });
}

#[test]
fn messages_of_one_handshake_do_not_fit_another() {
    let acceptor = Party::honest(1);
    let begin = |seed| {
        let dialler = Party { seed, ..Party::honest(0) };
        let (dialling, first) = dialler.dial("bravo").unwrap();
        let answered = acceptor.receive(acceptor.accept(), &first).unwrap();
        let Progress::Continue { handshake, send } = answered else { panic!("a channel") };
        (dialler, dialling, handshake, send)
    };
    let (dialler, dialling, answering, _) = begin(1);
    let (other, other_dialling, _, other_second) = begin(2);
    let refused = dialler.receive(dialling, &other_second).unwrap_err();
    assert_eq!(refused, Refused::NotAuthentic { message: 2 });
    let done = other.receive(other_dialling, &other_second).unwrap();
    let Progress::Done { send: Some(other_third), .. } = done else { panic!("no channel") };
    let refused = acceptor.receive(answering, &other_third).unwrap_err();
    assert_eq!(refused, Refused::NotAuthentic { message: 3 });
}

#[test]
fn a_boot_that_cannot_attest_itself_says_so_and_sends_nothing() {
    let acceptor = Party::honest(1).attested_by(&Failing);
    let both = undisturbed(&Party::honest(0), "bravo", &acceptor);
    let refused = both.acceptor_refused();
    assert!(matches!(refused, Refused::OwnAttestation(_)), "{refused}");
    let long = Replay(vec![1; 16 * 1024 + 1]);
    let both = undisturbed(&Party::honest(0), "bravo", &Party::honest(1).attested_by(&long));
    let refused = both.acceptor_refused();
    assert_eq!(refused, Refused::OwnDocument { len: 16 * 1024 + 1, max: 16 * 1024 });
}

#[test]
fn an_identity_has_the_secret_of_the_key_that_its_boot_attests() {
    let ((record, _), (_, other)) = (boot(0, 1), boot(1, 2));
    let refused = LocalIdentity::new(record, other).unwrap_err();
    assert_eq!(refused, IdentityError::ForeignSecret { node: name("alpha") });
}

#[test]
fn secrets_are_not_printed() {
    let party = Party::honest(0);
    let (_, secret) = boot(0, 1);
    let (dialling, _) = party.dial("bravo").unwrap();
    let (channel, _) = pair();
    let printed = format!("{:?} {dialling:?} {channel:?}", party.identity);
    assert!(printed.contains("<redacted>"), "{printed}");
    let list = format!("{:?}", secret.as_slice());
    let hexed = hex::encode(secret.as_slice());
    assert!(!printed.contains(list.trim_matches(['[', ']'])) && !printed.contains(&hexed));
    let (sealer, opener) = channel.split();
    assert!(format!("{sealer:?} {opener:?}").contains("<redacted>"));
}

#[test]
fn a_handshake_says_whom_it_is_with_as_far_as_that_is_claimed() {
    let (dialler, acceptor) = (Party::honest(0), Party::honest(1));
    let (dialling, first) = dialler.dial("bravo").unwrap();
    assert_eq!(dialling.claimed(), Some(&name("bravo")));
    assert_eq!(acceptor.accept().claimed(), None);
    let answered = acceptor.receive(acceptor.accept(), &first).unwrap();
    let Progress::Continue { handshake, .. } = answered else { panic!("a channel") };
    assert_eq!(handshake.claimed(), Some(&name("alpha")));
}
