//! The way of a request through the cluster.

use casemate_ledger::Verdict;
use casemate_ledger::keys::verify_signature;
use casemate_proto::governance::Change;
use casemate_proto::{DenialCode, Millis, Scheme};
use casemate_signer::{Answer, Submission};

use crate::kit::{Kit, check, code, entries, key_name, signed};

#[test]
fn message_is_signed_with_ed25519() {
    let mut kit = Kit::for_messages();
    let request = kit.message("a report");
    let answer = signed(kit.agent_asks(0, &request));
    check(&kit, Scheme::Ed25519, &answer);
    assert!(!kit.halted());
}

#[test]
fn typed_data_is_signed_with_ecdsa_by_the_key_that_the_log_names() {
    let mut kit = Kit::ready();
    let request = kit.payment(1_000_000);
    let answer = signed(kit.agent_asks(1, &request));
    check(&kit, Scheme::EcdsaSecp256k1, &answer);
    assert_eq!(answer.signature.len(), 65);
    let live = kit.cluster.any_state().unwrap().keys()[&key_name("agent-7")].live.clone().unwrap();
    assert_eq!(answer.public_key, live.public_key);
    assert!(!kit.halted());
}

#[test]
fn three_of_five_sign() {
    let mut kit = Kit::ready_with(|config| {
        config.nodes = 5;
        config.threshold = 3;
    });
    let requests = [kit.payment(1_000_000), kit.message("x")];
    for (request, scheme) in requests.iter().zip([Scheme::EcdsaSecp256k1, Scheme::Ed25519]) {
        let answer = signed(kit.agent_asks(4, request));
        let plain = answer.signature.first_chunk::<64>().unwrap();
        assert!(verify_signature(scheme, &answer.public_key, &answer.digest, plain));
    }
    assert!(!kit.halted());
}

#[test]
fn same_request_at_every_node_at_once_is_one_signature_and_one_charge() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.payment(5_000_000);
    let tickets: Vec<_> = (0..3).map(|at| kit.submit(at, &agent, &request)).collect();
    let answers: Vec<_> =
        tickets.into_iter().map(|ticket| signed(kit.cluster.wait(ticket).unwrap())).collect();
    assert!(answers.iter().all(|answer| answer.signature == answers[0].signature));
    // 20 USDC in 24 h: three more payments of 5 fit only if one was charged
    for _ in 0..3 {
        let request = kit.payment(5_000_000);
        signed(kit.agent_asks(0, &request));
    }
    let request = kit.payment(1);
    assert_eq!(code(kit.agent_asks(0, &request)), DenialCode::LimitExceeded);
}

#[test]
fn request_again_is_answered_from_the_log_without_a_new_entry() {
    let mut kit = Kit::ready();
    let request = kit.payment(1_000_000);
    let first = signed(kit.agent_asks(0, &request));
    let before = entries(&kit);
    for at in 0..3 {
        let again = signed(kit.agent_asks(at, &request));
        check(&kit, Scheme::EcdsaSecp256k1, &again);
        assert_eq!(again.signature, first.signature);
    }
    assert_eq!(entries(&kit), before);
    let query =
        Submission::Query { credential: kit.agent.public.id(), request_id: request.request_id };
    let node = kit.name(2);
    assert_eq!(signed(kit.cluster.ask(&node, query).unwrap()).signature, first.signature);
}

#[test]
fn same_id_with_another_body_is_refused_without_an_entry() {
    let mut kit = Kit::ready();
    let request = kit.payment(1_000_000);
    signed(kit.agent_asks(0, &request));
    let before = entries(&kit);
    let mut other = kit.payment(1_000_001);
    other.request_id = request.request_id;
    assert_eq!(code(kit.agent_asks(0, &other)), DenialCode::RequestIdReused);
    assert_eq!(entries(&kit), before);
}

#[test]
fn payment_above_a_tier_waits_for_two_others_and_is_then_signed() {
    let mut kit = Kit::ready();
    let operator = kit.operator.clone();
    let request = kit.payment(50_000_000);
    let pending = match kit.ask(0, &operator, &request) {
        Answer::Pending(pending) => pending,
        other => panic!("not pending: {other:?}"),
    };
    assert_eq!((pending.have, pending.need), (0, 2));
    let node = kit.name(1);
    let own = kit.approval(&operator, &operator, &request, pending.document);
    let refused = kit.cluster.ask(&node, own).unwrap();
    assert_eq!(code(refused), DenialCode::ApproverNotAllowed);
    for (at, wanted) in [(0, "pending"), (1, "allowed")] {
        let approver = kit.approvers[at].clone();
        let approval = kit.approval(&approver, &operator, &request, pending.document);
        match kit.cluster.ask(&node, approval).unwrap() {
            Answer::Accepted { verdict, .. } => assert_eq!(verdict.name(), wanted),
            other => panic!("{other:?}"),
        }
    }
    let answer = signed(kit.ask(2, &operator, &request));
    check(&kit, Scheme::EcdsaSecp256k1, &answer);
}

#[test]
fn request_of_an_unknown_credential_never_becomes_an_entry() {
    let mut kit = Kit::ready();
    let before = entries(&kit);
    let stranger = crate::kit::Person::new(99);
    let request = kit.payment(1_000_000);
    assert_eq!(code(kit.ask(0, &stranger, &request)), DenialCode::UnknownCredential);
    let mut submission = kit.submission(&kit.agent.clone(), &request);
    if let Submission::Request { body, .. } = &mut submission {
        body.push(b' ');
    }
    let node = kit.name(0);
    assert_eq!(code(kit.cluster.ask(&node, submission).unwrap()), DenialCode::BadStamp);
    assert_eq!(entries(&kit), before);
}

#[test]
fn change_without_a_quorum_never_becomes_an_entry() {
    let mut kit = Kit::for_messages();
    let before = entries(&kit);
    let change = Change::CreateKey { name: key_name("other"), scheme: Scheme::Ed25519 };
    let mut signed = kit.signed_change(change);
    signed.signatures.pop();
    let node = kit.name(0);
    let answer =
        kit.cluster.ask(&node, Submission::Governance { signed, attachment: None }).unwrap();
    assert_eq!(code(answer), DenialCode::GovernanceRefused);
    assert_eq!(entries(&kit), before);
}

#[test]
fn i12_node_with_too_much_to_do_says_so_and_takes_no_entry() {
    let mut kit = Kit::with_keys(&["notary"], |config| config.node.max_unsigned = 1);
    let agent = kit.agent.clone();
    let requests = [kit.message("one"), kit.message("two")];
    let tickets = requests.map(|request| kit.submit(0, &agent, &request));
    signed(kit.cluster.wait(tickets[0]).unwrap());
    assert!(matches!(kit.cluster.wait(tickets[1]).unwrap(), Answer::Busy { .. }));
    let request = kit.message("two");
    signed(kit.agent_asks(0, &request));
}

#[test]
fn many_requests_at_once_are_all_signed() {
    let mut kit = Kit::ready_with(|config| config.parallel = true);
    let agent = kit.agent.clone();
    let mut tickets = Vec::new();
    for i in 0..40 {
        let request =
            if i % 4 == 0 { kit.payment(100_000) } else { kit.message(&format!("note {i}")) };
        tickets.push(kit.submit(i % 3, &agent, &request));
    }
    for ticket in tickets {
        signed(kit.cluster.wait(ticket).unwrap());
    }
    assert!(!kit.halted());
}

#[test]
fn stock_of_triples_is_filled_when_idle_and_used_once() {
    let mut kit = Kit::ready_with(|config| config.node.triple_stock = 2);
    kit.pass(1_000);
    let now = kit.now();
    let stocked = |kit: &Kit| -> usize {
        let nodes = kit.cluster.names();
        nodes.iter().map(|name| kit.cluster.node(name).unwrap().stocked(now)).sum()
    };
    assert_eq!(stocked(&kit), 6);
    let agent = kit.agent.clone();
    let request = kit.payment(1_000_000);
    let ticket = kit.submit(0, &agent, &request);
    while kit.cluster.pump() {}
    assert!(kit.cluster.answer(ticket).is_some(), "signed with what is in stock");
    assert_eq!(stocked(&kit), 5);
}

#[test]
fn verdict_of_a_change_says_when_it_comes_into_force() {
    let mut kit = Kit::for_messages();
    let policy = kit.policy();
    let signed = kit.signed_change(Change::SetPolicy { policy: policy.policy_hash() });
    let attachment = Some(casemate_ledger::Attachment::Policy(policy.canonical_bytes()));
    let node = kit.name(0);
    match kit.cluster.ask(&node, Submission::Governance { signed, attachment }).unwrap() {
        Answer::Accepted { verdict: Verdict::Accepted { effective, .. }, .. } => {
            // the same policy again loosens nothing
            assert!(effective.is_none_or(|at| at <= kit.now().saturating_add(Millis(3_600_000))));
        }
        other => panic!("{other:?}"),
    }
}
