//! What a node says of itself: in its boot's hand, with what a reader needs to check it.

use casemate_audit::{CheckpointPolicy, CosignerSet, Origin, verify_receipt};
use casemate_ledger::EntryBody;
use casemate_proto::{NodeName, Scheme};
use casemate_signer::{Answer, PeerMessage, Query, Reply, SignedReply};

use crate::kit::{Kit, Seen, signed};

const NONCE: [u8; 32] = [0x42; 32];

fn open(kit: &Kit, node: &NodeName, signed: &SignedReply) -> Option<Reply> {
    let state = kit.cluster.state(node).unwrap();
    signed.open(&state.genesis(), &NONCE, &state.current_boot_key(node)?)
}

fn ask(kit: &mut Kit, node: &NodeName, query: Query) -> Reply {
    let signed = kit.cluster.query(node, query).unwrap().expect("a reply");
    open(kit, node, &signed).expect("in the boot's hand")
}

/// The keys that a node shows, each with its record checked as a reader would.
fn proved_keys(kit: &mut Kit, node: &NodeName) -> Vec<(String, u64)> {
    let Reply::Keys(keys) = ask(kit, node, Query::Keys { nonce: NONCE }) else { panic!() };
    let state = kit.cluster.state(node).unwrap();
    let origin = Origin { genesis: state.genesis(), incarnation: state.incarnation() };
    let policy = CheckpointPolicy {
        origin: origin.to_string(),
        log_key: None,
        cosigners: CosignerSet::new(kit.cluster.cosigners(), 2).unwrap(),
    };
    keys.into_iter()
        .map(|key| {
            let live = key.live.expect("live");
            let proved = verify_receipt(&live.receipt.expect("a receipt"), &policy).unwrap();
            assert_eq!(proved.record().index(), live.index);
            let entry = casemate_ledger::Entry::decode(&proved.record().fields().entry).unwrap();
            let EntryBody::KeyLive(recorded) = entry.body else { panic!("{entry:?}") };
            assert_eq!(
                (recorded.name, recorded.epoch, recorded.public_key, recorded.chain_code),
                (key.name.clone(), live.epoch, live.public_key, live.chain_code)
            );
            (key.name.to_string(), live.epoch)
        })
        .collect()
}

#[test]
fn i13_keys_are_shown_with_their_records_under_a_checkpoint_of_t_boots() {
    let mut kit = Kit::ready();
    for at in 0..3 {
        let node = kit.name(at);
        let keys = proved_keys(&mut kit, &node);
        let expected = ["agent-7", "casemate.log", "notary"].map(|name| (name.to_owned(), 0));
        assert_eq!(keys, expected);
    }
}

#[test]
fn i13_restarted_node_proves_every_key_also_those_from_before_its_birth() {
    let mut kit = Kit::ready();
    let c = kit.name(2);
    kit.cluster.stop_node(&c).unwrap();
    kit.pass(2_000);
    // nothing is recovered: the records are from before this boot
    kit.watch_outputs(|seen| !matches!(seen, Seen::Peer(PeerMessage::StartKey(_))));
    kit.cluster.restart_node(&c).unwrap();
    let keys = proved_keys(&mut kit, &c);
    assert!(keys.len() == 3 && keys.iter().all(|(_, epoch)| *epoch == 0));
    let Reply::Keys(views) = ask(&mut kit, &c, Query::Keys { nonce: NONCE }) else { panic!() };
    for view in views {
        assert_eq!(view.live.unwrap().without_share, std::slice::from_ref(&c));
    }
    // and again when the node that gave it the records has a proof from another restart only
    kit.cluster.intercept(Box::new(|_, _| true));
    let [a, b] = [0, 1].map(|at| kit.name(at));
    for restarted in [&a, &b] {
        kit.cluster
            .work_until("shares", |cluster| {
                let node = cluster.node(&c).unwrap();
                node.keys().0 == node.keys().1
                    && cluster.running().iter().all(|n| cluster.node(n).unwrap().keys() == (3, 3))
            })
            .unwrap();
        kit.cluster.restart_node(restarted).unwrap();
        assert_eq!(proved_keys(&mut kit, restarted).len(), 3);
    }
}

#[test]
fn reply_is_worth_nothing_for_another_nonce_boot_or_content() {
    let mut kit = Kit::for_messages();
    let [a, b] = [0, 1].map(|at| kit.name(at));
    let reply = kit.cluster.query(&a, Query::Cluster { nonce: NONCE }).unwrap().unwrap();
    assert!(open(&kit, &a, &reply).is_some());
    let state = kit.cluster.state(&a).unwrap();
    let key = state.current_boot_key(&a).unwrap();
    assert!(reply.open(&state.genesis(), &[0; 32], &key).is_none());
    assert!(reply.open(&state.genesis(), &NONCE, &state.current_boot_key(&b).unwrap()).is_none());
    let mut bent = reply;
    bent.reply[10] ^= 1;
    assert!(open(&kit, &a, &bent).is_none());
}

#[test]
fn cluster_is_shown_as_the_node_has_applied_it() {
    let mut kit = Kit::for_messages();
    let [a, b, c] = [0, 1, 2].map(|at| kit.name(at));
    kit.cluster.stop_node(&b).unwrap();
    let Reply::Cluster(view) = ask(&mut kit, &a, Query::Cluster { nonce: NONCE }) else { panic!() };
    let state = kit.cluster.state(&a).unwrap();
    assert_eq!((view.size, view.root, view.node), (state.size(), state.root(), a.clone()));
    assert!(view.confirmed && view.freezes.is_empty() && view.pending_changes.is_empty());
    assert_eq!(view.policy, state.policy().map(|(_, hash)| hash));
    let boots: Vec<_> = view.boots.iter().map(|b| (b.node.clone(), b.reachable)).collect();
    assert_eq!(boots, [(a.clone(), true), (b, false), (c, true)]);
    assert_eq!(view.boots[0].key, state.current_boot_key(&a).unwrap());
    // attestation is not a node's to give
    let attest = kit.cluster.query(&a, Query::Attest { nonce: NONCE }).unwrap();
    assert!(attest.is_none());
    let record = kit.cluster.node(&a).unwrap().attested_record(vec![1]);
    assert_eq!(kit.cluster.state(&a).unwrap().current_boot(&a), Some(record.id()));
}

#[test]
fn pending_request_is_shown_until_it_is_signed_also_by_a_node_that_came_back() {
    let mut kit = Kit::ready();
    let [a, _, c] = [0, 1, 2].map(|at| kit.name(at));
    let operator = kit.operator.clone();
    let request = kit.payment(50_000_000);
    let Answer::Pending(pending) = kit.ask(0, &operator, &request) else { panic!("pending") };
    kit.cluster.stop_node(&c).unwrap();
    kit.pass(1_000);
    kit.cluster.restart_node(&c).unwrap();
    for node in [&a, &c] {
        let Reply::PendingRequests(views) =
            ask(&mut kit, node, Query::PendingRequests { nonce: NONCE })
        else {
            panic!()
        };
        let [view] = views.as_slice() else { panic!("{views:?}") };
        assert_eq!(view.body, request.to_body().into_bytes());
        assert_eq!((view.document, view.have), (pending.document, 0));
        // what it still needs is known to a node that was not there when it was asked for
        let submission = kit.submission(&operator, &request);
        let Answer::Pending(again) = kit.cluster.ask(node, submission).unwrap() else { panic!() };
        assert_eq!(again, pending);
    }
    for at in [0, 1] {
        let approver = kit.approvers[at].clone();
        let approval = kit.approval(&approver, &operator, &request, pending.document);
        kit.cluster.ask(&c, approval).unwrap();
    }
    let submission = kit.submission(&operator, &request);
    let answer = signed(kit.cluster.ask(&c, submission).unwrap());
    crate::kit::check(&kit, Scheme::EcdsaSecp256k1, &answer);
    let reply = ask(&mut kit, &c, Query::PendingRequests { nonce: NONCE });
    assert_eq!(reply, Reply::PendingRequests(Vec::new()));
}
