//! Nodes that come back: another boot, admitted in the former one's place, whose shares its peers
//! give back.

use std::sync::{Arc, Mutex};

use casemate_audit::{Expectations, verify_store};
use casemate_dev::in_process::Cluster;
use casemate_ledger::keys::verify_signature;
use casemate_ledger::replay::Replayer;
use casemate_ledger::{Committed, Entry, EntryBody};
use casemate_proto::ids::Hash32;
use casemate_proto::{KeyName, Millis, NodeName, Scheme};
use casemate_signer::{Answer, Event, Output, PeerMessage};

use crate::kit::{Kit, Seen, check, key_name, signed};

/// Whether every running node has applied that every node holds a share of every key, and has its
/// own at hand.
fn all_hold_shares(cluster: &Cluster) -> bool {
    let nodes = cluster.names();
    cluster.running().iter().all(|name| {
        let node = cluster.node(name).unwrap();
        let (keys, shares) = node.keys();
        let state = node.state();
        keys == shares
            && state.keys().keys().all(|key| nodes.iter().all(|of| state.is_holder(key, of)))
    })
}

/// Whether, beyond that, no share that a boot which is gone held is worth anything.
fn all_are_fresh(cluster: &Cluster) -> bool {
    let mut live = cluster.any_state().unwrap().keys().values().filter_map(|k| k.live.as_ref());
    all_hold_shares(cluster) && live.all(|live| live.is_fresh)
}

fn until_all_are_fresh(kit: &mut Kit) {
    kit.cluster.work_until("fresh shares", |cluster| all_are_fresh(cluster)).unwrap();
}

pub fn until_all_hold_shares(kit: &mut Kit) {
    kit.cluster.work_until("shares at every node", |cluster| all_hold_shares(cluster)).unwrap();
}

fn epochs(kit: &Kit) -> Vec<(KeyName, u64, Vec<u8>)> {
    let state = kit.cluster.any_state().unwrap();
    let live = state.keys().iter().filter_map(|(name, key)| Some((name, key.live.as_ref()?)));
    live.map(|(name, live)| (name.clone(), live.epoch, live.public_key.clone())).collect()
}

fn ask_at(kit: &mut Kit, node: &NodeName, scheme: Scheme, text: &str) {
    let request = match scheme {
        Scheme::EcdsaSecp256k1 => kit.payment(100_000),
        _ => kit.message(text),
    };
    let submission = kit.submission(&kit.agent.clone(), &request);
    let answer = signed(kit.cluster.ask(node, submission).unwrap());
    check(kit, scheme, &answer);
}

fn verify(kit: &Kit, node: &NodeName) {
    let genesis = casemate_proto::cbor::encode(kit.cluster.genesis());
    let mut replay = Replayer::from_genesis(&genesis).unwrap();
    let expectations = Expectations::of(kit.cluster.genesis_id());
    let report = verify_store(kit.cluster.store_of(node).unwrap(), &expectations, &mut replay);
    assert!(report.is_verified(), "{node}: {:?}", report.findings());
}

#[test]
fn restarted_node_gets_its_shares_back_and_signs_when_one_that_never_restarted_is_gone() {
    let mut kit = Kit::ready();
    let [a, b, c] = [0, 1, 2].map(|at| kit.name(at));
    let before = epochs(&kit);
    kit.cluster.stop_node(&c).unwrap();
    ask_at(&mut kit, &a, Scheme::EcdsaSecp256k1, "");
    kit.cluster.restart_node(&c).unwrap();
    until_all_hold_shares(&mut kit);
    for ((name, _, key), (_, is, same)) in before.iter().zip(epochs(&kit)) {
        assert_eq!(*key, same, "{name}");
        assert!(is > 0, "{name}: a new epoch");
    }
    kit.cluster.stop_node(&b).unwrap();
    for asked in [&a, &c, &a, &c] {
        ask_at(&mut kit, asked, Scheme::EcdsaSecp256k1, "");
        let text = format!("{asked}, {}", kit.now());
        ask_at(&mut kit, asked, Scheme::Ed25519, &text);
    }
    // the log goes on, and what both write verifies from its beginning
    kit.cluster.store().unwrap();
    kit.pass(3_000);
    for node in [&a, &c] {
        assert_eq!(
            kit.cluster.node(node).unwrap().published(),
            kit.cluster.state(node).unwrap().size()
        );
        verify(&kit, node);
    }
    assert!(!kit.halted());
}

#[test]
fn each_node_can_restart_in_turn_until_no_boot_is_of_the_birth() {
    let mut kit = Kit::ready();
    for at in 0..3 {
        let name = kit.name(at);
        kit.cluster.stop_node(&name).unwrap();
        kit.pass(1_000);
        kit.cluster.restart_node(&name).unwrap();
        until_all_hold_shares(&mut kit);
        ask_at(&mut kit, &name, Scheme::EcdsaSecp256k1, "");
    }
    assert!(epochs(&kit).iter().all(|(_, epoch, _)| *epoch >= 3), "{:?}", epochs(&kit));
    kit.cluster.store().unwrap();
    kit.pass(3_000);
    for at in 0..3 {
        verify(&kit, &kit.name(at));
    }
    assert!(!kit.halted());
}

#[test]
fn shares_that_frost_gave_back_are_refreshed_and_sign_with_every_node() {
    let mut kit = Kit::ready();
    let [a, b, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&c).unwrap();
    kit.cluster.restart_node(&c).unwrap();
    until_all_hold_shares(&mut kit);
    let fresh = |kit: &Kit, name: &str| {
        let state = kit.cluster.any_state().unwrap();
        let live = state.keys()[&key_name(name)].live.clone().unwrap();
        (live.epoch, live.is_fresh)
    };
    assert_eq!(fresh(&kit, "notary"), (1, false), "given back as it was");
    assert_eq!(fresh(&kit, "agent-7"), (1, true), "reshared");
    ask_at(&mut kit, &c, Scheme::Ed25519, "in between");
    until_all_are_fresh(&mut kit);
    assert_eq!(fresh(&kit, "notary"), (2, true));
    assert_eq!(fresh(&kit, "agent-7"), (1, true));
    kit.pass(10_000);
    assert_eq!(fresh(&kit, "notary"), (2, true), "and that is all");
    kit.cluster.stop_node(&b).unwrap();
    for asked in [&a, &c] {
        ask_at(&mut kit, asked, Scheme::Ed25519, &format!("afterwards at {asked}"));
    }
    kit.cluster.store().unwrap();
    verify(&kit, &a);
    assert!(!kit.halted());
}

#[test]
fn signing_goes_on_while_shares_are_recovered() {
    let mut kit = Kit::ready();
    let [a, _, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&c).unwrap();
    // nobody learns that shares are to be made
    kit.watch_outputs(|seen| !matches!(seen, Seen::Peer(PeerMessage::StartKey(_))));
    kit.cluster.restart_node(&c).unwrap();
    for asked in [&a, &c] {
        ask_at(&mut kit, asked, Scheme::EcdsaSecp256k1, "");
        ask_at(&mut kit, asked, Scheme::Ed25519, &format!("at {asked}"));
    }
    let state = kit.cluster.state(&c).unwrap();
    assert!(state.keys().keys().all(|key| !state.is_holder(key, &c)));
    assert_eq!(kit.cluster.node(&c).unwrap().keys(), (3, 0));
    kit.cluster.intercept(Box::new(|_, _| true));
    until_all_hold_shares(&mut kit);
    assert!(!kit.halted());
}

#[test]
fn request_that_is_unsigned_when_its_key_gets_a_new_epoch_is_signed_in_it() {
    let mut kit = Kit::ready();
    let [_, _, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&c).unwrap();
    kit.cluster.restart_node(&c).unwrap();
    let agent = kit.agent.clone();
    let request = kit.payment(100_000);
    // no attempt begins before the new epochs are live
    let live = Arc::new(Mutex::new(false));
    let is_live = Arc::clone(&live);
    kit.watch_outputs(move |seen| {
        *is_live.lock().unwrap() || !matches!(seen, Seen::Peer(PeerMessage::StartSign { .. }))
    });
    let ticket = kit.submit(0, &agent, &request);
    until_all_hold_shares(&mut kit);
    assert!(kit.cluster.answer(ticket).is_none());
    *live.lock().unwrap() = true;
    let answer = signed(kit.cluster.wait(ticket).unwrap());
    check(&kit, Scheme::EcdsaSecp256k1, &answer);
}

#[test]
fn node_that_restarts_again_while_its_shares_are_recovered_gets_them_in_the_end() {
    let mut kit = Kit::ready();
    let [a, _, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&c).unwrap();
    for rounds in [3, 9, 40] {
        kit.pass(1_000);
        kit.cluster.restart_node(&c).unwrap();
        for _ in 0..rounds {
            kit.clock.pass(5);
            kit.cluster.pump();
        }
        kit.cluster.stop_node(&c).unwrap();
        ask_at(&mut kit, &a, Scheme::Ed25519, &format!("meanwhile {rounds}"));
    }
    kit.pass(1_000);
    kit.cluster.restart_node(&c).unwrap();
    until_all_hold_shares(&mut kit);
    let b = kit.name(1);
    kit.cluster.stop_node(&b).unwrap();
    ask_at(&mut kit, &c, Scheme::EcdsaSecp256k1, "");
    ask_at(&mut kit, &c, Scheme::Ed25519, "in the end");
    assert!(!kit.halted());
}

#[test]
fn two_of_five_that_lost_their_shares_get_them_back_together() {
    let mut kit = Kit::ready_with(|config| {
        config.nodes = 5;
        config.threshold = 3;
    });
    let names = kit.cluster.names();
    for name in &names[3..] {
        kit.cluster.stop_node(name).unwrap();
    }
    kit.pass(1_000);
    for name in &names[3..] {
        kit.cluster.restart_node(name).unwrap();
    }
    until_all_hold_shares(&mut kit);
    until_all_are_fresh(&mut kit);
    for name in &names[..2] {
        kit.cluster.stop_node(name).unwrap();
    }
    let requests = [kit.payment(1_000_000), kit.message("by those that came back, and one other")];
    for (request, scheme) in requests.iter().zip([Scheme::EcdsaSecp256k1, Scheme::Ed25519]) {
        let answer = signed(kit.agent_asks(4, request));
        let plain = answer.signature.first_chunk::<64>().unwrap();
        assert!(verify_signature(scheme, &answer.public_key, &answer.digest, plain));
    }
    assert!(!kit.halted());
}

#[test]
fn recovery_is_led_by_another_node_where_the_first_is_not_heard() {
    let mut kit = Kit::with_keys(&["casemate.log", "notary"], |config| {
        config.node.keygen_timeout = Millis(2_000);
    });
    let c = kit.name(2);
    let first = Arc::new(Mutex::new(None));
    let unheard = Arc::clone(&first);
    kit.cluster.intercept(Box::new(move |from, output| match Seen::of(output) {
        Seen::Peer(PeerMessage::StartKey(_)) => {
            *unheard.lock().unwrap().get_or_insert_with(|| from.clone()) != *from
        }
        _ => true,
    }));
    kit.cluster.stop_node(&c).unwrap();
    kit.cluster.restart_node(&c).unwrap();
    until_all_hold_shares(&mut kit);
    assert!(first.lock().unwrap().is_some());
    // epochs that came to nothing are not used again
    assert!(epochs(&kit).iter().any(|(_, epoch, _)| *epoch > 1), "{:?}", epochs(&kit));
}

#[test]
fn i7_second_boot_of_a_node_fences_the_first() {
    let mut kit = Kit::ready();
    let [a, b, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.pass(1_000);
    kit.cluster.restart_node(&c).unwrap();
    until_all_hold_shares(&mut kit);
    let size = kit.cluster.state(&a).unwrap().size();
    let entry = Entry { at: kit.now(), body: EntryBody::Tick };
    let now = kit.now();
    let former = kit.cluster.retired(&c).unwrap();
    assert!(former.is_halted());
    assert_eq!(former.keys().1, 0, "it holds no share any more");
    let said = former.handle(Event::Committed(Committed::dangerous_assume(entry, None)), now);
    assert!(said.is_empty() && former.state().size() < size);
    // the second one signs with the others
    kit.cluster.stop_node(&b).unwrap();
    ask_at(&mut kit, &c, Scheme::EcdsaSecp256k1, "");
}

#[test]
fn i6_retired_boot_that_was_not_told_gets_no_share_of_anybody() {
    let mut kit = Kit::with_keys(&["casemate.log", "notary"], |_| ());
    let [a, _, c] = [0, 1, 2].map(|at| kit.name(at));
    let old = kit.cluster.state(&a).unwrap().current_boot(&c).unwrap();
    kit.cluster.stop_node(&c).unwrap();
    kit.pass(1_000);
    // its shares do not come back yet
    kit.watch_outputs(|seen| !matches!(seen, Seen::Peer(PeerMessage::StartKey(_))));
    kit.cluster.restart_node(&c).unwrap();
    let request = kit.message("asked for by a boot that is gone");
    let index = kit.commit_unsigned(&request);
    let state = kit.cluster.any_state().unwrap();
    assert_ne!(state.current_boot(&c), Some(old));
    assert_eq!(state.size(), index + 1);
    let start = PeerMessage::StartSign {
        index,
        attempt: 2,
        participants: vec![a.clone(), c.clone()],
        triples: None,
        root: state.root(),
        epoch: 0,
    };
    let seen = kit.watch_outputs(|_| true);
    kit.cluster.inject(&c, &a, start.encode());
    kit.cluster.pump();
    let seen = seen.lock().unwrap();
    assert!(!seen.iter().any(|(name, seen)| *name == a && seen.is_run()));
    let declined = |seen: &Seen| matches!(seen, Seen::Peer(PeerMessage::Declined { index: at, attempt: 2, .. }) if *at == index);
    assert!(seen.iter().any(|(name, seen)| *name == a && declined(seen)), "{seen:?}");
}

#[test]
fn i6_new_boot_signs_for_no_entry_from_before_its_admission() {
    let mut kit = Kit::with_keys(&["casemate.log", "notary"], |_| ());
    let [a, _, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&c).unwrap();
    kit.pass(1_000);
    let request = kit.message("allowed before");
    let index = kit.commit_unsigned(&request);
    kit.watch_outputs(|seen| !matches!(seen, Seen::Peer(PeerMessage::StartSign { .. })));
    kit.cluster.restart_node(&c).unwrap();
    until_all_hold_shares(&mut kit);
    let state = kit.cluster.any_state().unwrap();
    assert!(!state.is_signed(&kit.agent.public.id(), &request.request_id));
    let epoch = state.key_epoch(&key_name("notary")).unwrap();
    let root = Hash32::new([0; 32]);
    let participants = vec![a.clone(), c.clone()];
    let start =
        PeerMessage::StartSign { index, attempt: 0, participants, triples: None, root, epoch };
    let seen = kit.watch_outputs(|seen| !matches!(seen, Seen::Peer(PeerMessage::StartSign { .. })));
    kit.cluster.inject(&a, &c, start.encode());
    kit.pass(200);
    let said: Vec<Seen> = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|(name, seen)| *name == c && seen.is_run())
        .map(|(_, seen)| seen.clone())
        .collect();
    assert!(said.is_empty());
}

#[test]
fn request_from_before_its_admission_is_answered_by_a_new_boot_once_the_others_have_signed() {
    let mut kit = Kit::with_keys(&["casemate.log", "notary"], |_| ());
    let [_, _, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&c).unwrap();
    kit.pass(1_000);
    let request = kit.message("allowed before");
    kit.commit_unsigned(&request);
    kit.cluster.restart_node(&c).unwrap();
    kit.cluster.intercept(Box::new(|_, _| true));
    let submission = kit.submission(&kit.agent.clone(), &request);
    match kit.cluster.ask(&c, submission).unwrap() {
        // the record that allowed it is older than what this boot can prove
        Answer::Recorded { .. } => {}
        Answer::Signed(answer) => check(&kit, Scheme::Ed25519, &answer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn freeze_that_is_obeyed_and_not_applied_reaches_a_node_that_comes_back() {
    let mut kit = Kit::with_keys(&["casemate.log", "notary"], |_| ());
    let [a, _, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&c).unwrap();
    let freeze = kit.freeze(1);
    kit.watch_outputs(|seen| !seen.is_statement());
    kit.cluster.submit(&a, casemate_signer::Submission::Statement(freeze)).unwrap();
    kit.pass(200);
    kit.cluster.restart_node(&c).unwrap();
    kit.pass(200);
    assert!(!kit.cluster.state(&c).unwrap().is_frozen(), "it is not applied");
    let request = kit.message("at the node that came back");
    let submission = kit.submission(&kit.agent.clone(), &request);
    let answer = kit.cluster.ask(&c, submission).unwrap();
    assert_eq!(crate::kit::code(answer), casemate_proto::DenialCode::Frozen);
}

#[test]
fn key_that_was_asked_for_while_a_node_was_down_is_generated_when_it_is_back() {
    let mut kit = Kit::with_keys(&["casemate.log"], |_| ());
    let c = kit.name(2);
    kit.cluster.stop_node(&c).unwrap();
    let change = casemate_proto::governance::Change::CreateKey {
        name: key_name("notary"),
        scheme: Scheme::Bip340Secp256k1,
    };
    kit.govern(change, None);
    kit.pass(2_000);
    assert_eq!(kit.cluster.any_state().unwrap().key_epoch(&key_name("notary")), None);
    kit.cluster.restart_node(&c).unwrap();
    kit.until_live("notary");
    until_all_hold_shares(&mut kit);
    assert!(!kit.halted());
}

#[test]
fn tail_with_a_flipped_byte_or_cut_short_is_refused() {
    use casemate_audit::StoreWriter;
    let mut kit = Kit::with_keys(&["casemate.log", "notary"], |_| ());
    let c = kit.name(2);
    let found = Arc::new(Mutex::new(None));
    let into = Arc::clone(&found);
    kit.cluster.intercept(Box::new(move |_, output| {
        if let Output::Handover(handover) = output {
            into.lock().unwrap().get_or_insert_with(|| handover.clone());
        }
        true
    }));
    kit.pass(3_000);
    kit.cluster.stop_node(&c).unwrap();
    let request = kit.message("not published when the node comes back");
    signed(kit.agent_asks(0, &request));
    kit.cluster.restart_node(&c).unwrap();
    let handover = found.lock().unwrap().take().unwrap();
    let genesis = casemate_proto::cbor::encode(kit.cluster.genesis());
    let (size, root, tail) = (handover.size, handover.root, &handover.tail);
    let whole = StoreWriter::from_tail(&genesis, tail, size, root).unwrap();
    assert!(!whole.waiting.is_empty() && !whole.pinned.is_empty());
    assert_eq!((whole.tree.size(), whole.tree.root()), (size, root));
    let mut refused = 0;
    for at in 0..tail.len() {
        let mut bent = tail.to_vec();
        bent[at] ^= 1 << (at % 8);
        assert!(StoreWriter::from_tail(&genesis, &bent, size, root).is_err(), "byte {at}");
        refused += 1;
    }
    assert!(refused > 1_000);
    for cut in (0..tail.len()).step_by(101) {
        assert!(StoreWriter::from_tail(&genesis, &tail[..cut], size, root).is_err());
    }
    assert!(StoreWriter::from_tail(&genesis, tail, size + 1, root).is_err());
    assert!(StoreWriter::from_tail(&genesis, tail, size, Hash32::new([0; 32])).is_err());
}
