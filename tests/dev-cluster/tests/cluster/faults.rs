//! Nodes that stop, freezes, a minority, time that runs out.

use std::sync::{Arc, Mutex};

use casemate_ledger::{Attachment, EntryBody};
use casemate_proto::governance::Change;
use casemate_proto::{DenialCode, Scheme};
use casemate_signer::{Answer, Submission};

use crate::kit::{Kit, Seen, check, code, entries, key_name, signed};

#[test]
fn node_that_stops_in_the_middle_is_passed_over() {
    for silently in [false, true] {
        let mut kit = Kit::ready();
        let agent = kit.agent.clone();
        let mut tickets = Vec::new();
        for i in 0..6 {
            let request =
                if i % 2 == 0 { kit.payment(100_000) } else { kit.message(&format!("{i}")) };
            tickets.push(kit.submit(0, &agent, &request));
        }
        // far enough that attempts with the third node are under way
        for _ in 0..4 {
            kit.cluster.pump();
        }
        let third = kit.name(2);
        if silently {
            kit.cluster.stop_node_silently(&third).unwrap();
        } else {
            kit.cluster.stop_node(&third).unwrap();
        }
        for ticket in tickets {
            signed(kit.cluster.wait(ticket).unwrap());
        }
        let request = kit.payment(100_000);
        let answer = signed(kit.agent_asks(1, &request));
        check(&kit, Scheme::EcdsaSecp256k1, &answer);
        assert!(!kit.halted());
    }
}

#[test]
fn each_node_can_be_the_one_that_stops() {
    for gone in 0..3 {
        let mut kit = Kit::ready();
        let gone = kit.name(gone);
        kit.cluster.stop_node(&gone).unwrap();
        let asked = kit.cluster.running()[0].clone();
        for _ in 0..3 {
            let request = kit.payment(100_000);
            let submission = kit.submission(&kit.agent.clone(), &request);
            signed(kit.cluster.ask(&asked, submission).unwrap());
        }
    }
}

#[test]
fn i4_minority_commits_and_signs_nothing() {
    let mut kit = Kit::for_messages();
    for at in [1, 2] {
        let name = kit.name(at);
        kit.cluster.stop_node(&name).unwrap();
    }
    let before = entries(&kit);
    let request = kit.message("alone");
    assert!(matches!(kit.agent_asks(0, &request), Answer::Busy { .. }));
    assert_eq!(entries(&kit), before);
}

#[test]
fn freeze_is_obeyed_on_receipt_by_all_before_it_commits() {
    let mut kit = Kit::ready();
    let freeze = kit.freeze(1);
    let agent = kit.agent.clone();
    let request = kit.payment(1_000_000);
    let ticket = kit.submit(0, &agent, &request);
    // the request commits, the freeze never does
    let seen = kit.watch_outputs(|seen| !seen.is_statement());
    let node = kit.name(1);
    let freezing = kit.cluster.submit(&node, Submission::Statement(freeze)).unwrap();
    kit.pass(20_000);
    let state = kit.cluster.any_state().unwrap();
    assert!(!state.is_frozen(), "the freeze is not committed");
    assert!(state.request(&agent.public.id(), &request.request_id).is_some());
    assert!(!state.is_signed(&agent.public.id(), &request.request_id));
    assert!(kit.cluster.answer(ticket).is_none());
    assert!(matches!(kit.cluster.answer(freezing), Some(Answer::Busy { .. }) | None));
    assert!(!seen.lock().unwrap().iter().any(|(_, seen)| matches!(seen, Seen::Signed(_))));
}

#[test]
fn frozen_cluster_denies_and_signs_again_once_the_quorum_lifts_it() {
    let mut kit = Kit::for_messages();
    let freeze = kit.freeze(1);
    let id = freeze.id();
    let node = kit.name(0);
    let answer = kit.cluster.ask(&node, Submission::Statement(freeze.clone())).unwrap();
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    let request = kit.message("while frozen");
    assert_eq!(code(kit.agent_asks(1, &request)), DenialCode::Frozen);
    kit.govern(Change::Unfreeze { freeze: id }, None);
    let request = kit.message("after");
    signed(kit.agent_asks(1, &request));
    // the same freeze cannot be replayed by a host
    let answer = kit.cluster.ask(&node, Submission::Statement(freeze)).unwrap();
    assert_eq!(code(answer), DenialCode::GovernanceRefused);
    let request = kit.message("after the replay");
    signed(kit.agent_asks(2, &request));
}

#[test]
fn expired_is_said_only_once_the_ledger_can_record_no_signature_any_more() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.payment(1_000_000);
    // every signature that is made is lost on its way to the log
    let seen = kit.watch_outputs(|seen| !matches!(seen, Seen::Signed(_)));
    let ticket = kit.submit(0, &agent, &request);
    kit.pass(1_000);
    let signature = seen
        .lock()
        .unwrap()
        .iter()
        .find_map(|(_, seen)| match seen {
            Seen::Signed(body) => Some(body.clone()),
            _ => None,
        })
        .expect("a signature was proposed");
    let tau = kit.cluster.any_state().unwrap().manifest().limits.tau;
    kit.pass(tau.0);
    assert!(kit.cluster.answer(ticket).is_none(), "it could still be recorded");
    let answer = kit.cluster.wait(ticket).unwrap();
    let Answer::Expired(denial) = answer else { panic!("{answer:?}") };
    assert_eq!(denial.denial.code, DenialCode::Expired);
    // and now the lost signature comes after all
    kit.cluster.intercept(Box::new(|_, _| true));
    kit.cluster.propose(signature);
    kit.pass(100);
    let state = kit.cluster.any_state().unwrap();
    assert!(!state.is_signed(&agent.public.id(), &request.request_id));
    assert!(matches!(kit.agent_asks(1, &request), Answer::Expired(_)));
}

#[test]
fn key_generation_waits_for_the_node_that_is_missing_and_then_ends_well() {
    let mut kit = Kit::ready();
    // one message of the generation is lost: the attempt fails and another follows
    let mut lost = false;
    kit.cluster.intercept(Box::new(move |_, output| {
        let lose = !lost && Seen::of(output).is_run();
        lost |= lose;
        !lose
    }));
    let change = Change::CreateKey { name: key_name("second"), scheme: Scheme::EcdsaSecp256k1 };
    kit.govern(change, None);
    kit.until_live("second");
    assert!(!kit.halted());
}

#[test]
fn key_whose_entry_comes_late_still_has_all_its_shares() {
    let mut kit = Kit::born(|_| ());
    kit.govern(Change::ConfirmGenesis, None);
    // the hosts keep back the entry that everybody has confirmed for longer than a share waits
    let held = Arc::new(Mutex::new(None));
    let first = Arc::clone(&held);
    kit.cluster.intercept(Box::new(move |_, output| match Seen::of(output) {
        Seen::Proposed(body @ EntryBody::KeyLive(_)) => {
            first.lock().unwrap().get_or_insert(body);
            false
        }
        _ => true,
    }));
    let change = Change::CreateKey { name: key_name("notary"), scheme: Scheme::Ed25519 };
    kit.govern(change, None);
    kit.pass(70_000);
    let entry = held.lock().unwrap().take().expect("everybody confirmed");
    kit.cluster.intercept(Box::new(|_, _| true));
    kit.cluster.propose(entry);
    kit.until_live("notary");
    let policy = kit.policy();
    kit.govern(
        Change::SetPolicy { policy: policy.policy_hash() },
        Some(Attachment::Policy(policy.canonical_bytes())),
    );
    for at in 0..3 {
        let request = kit.message(&format!("led by another node each time: {at}"));
        let answer = signed(kit.agent_asks(at, &request));
        check(&kit, Scheme::Ed25519, &answer);
    }
}

#[test]
fn i6_retired_boot_halts_and_the_others_sign_without_its_node() {
    let mut kit = Kit::ready();
    kit.pass(1_500);
    let third = kit.name(2);
    let boot = kit.cluster.another_boot(&third).unwrap();
    let seen = kit.watch_outputs(|_| true);
    kit.cluster.propose(EntryBody::Admit(boot.clone()));
    while kit.cluster.pump() {}
    let state = kit.cluster.state(&kit.name(0)).unwrap();
    assert_eq!(state.current_boot(&third), Some(boot.id()), "the new boot is admitted");
    assert!(kit.cluster.node(&third).unwrap().is_halted(), "the old one says nothing any more");
    seen.lock().unwrap().clear();
    let asked = kit.name(1);
    for i in 0..6 {
        let request = if i % 2 == 0 { kit.payment(100_000) } else { kit.message(&format!("{i}")) };
        let submission = kit.submission(&kit.agent.clone(), &request);
        signed(kit.cluster.ask(&asked, submission).unwrap());
    }
    assert!(!seen.lock().unwrap().iter().any(|(name, _)| *name == third));
}
