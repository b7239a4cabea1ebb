//! Approvals: by whom, for what, under which policy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]
mod kit;

use casemate_ledger::Verdict;
use casemate_proto::ids::Hash32;
use casemate_proto::request::SignRequest;
use casemate_proto::{DenialCode, Millis};
use kit::{Kit, PAYEE, code, is_allowed, second};

fn pending(kit: &mut Kit, units: u64) -> (SignRequest, Hash32) {
    let operator = kit.operator.clone();
    let request = kit.payment(PAYEE, units);
    match kit.ask(&operator, &request) {
        Verdict::Pending(pending) => (request, pending.document),
        other => panic!("{other:?}"),
    }
}

fn approve(kit: &mut Kit, approver: usize, request: &SignRequest, document: Hash32) -> Verdict {
    let operator = kit.operator.clone();
    let who = kit.approvers[approver].clone();
    let entry = kit.approval(&who, &operator, request, document);
    kit.apply(entry)
}

#[test]
fn two_of_three_treasurers_make_a_request_signable() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit, 50_000_000);
    assert!(matches!(approve(&mut kit, 0, &request, document), Verdict::Pending(p) if p.have == 1));
    assert!(kit.permits.is_empty());
    assert!(is_allowed(&approve(&mut kit, 1, &request, document)));
    assert_eq!(kit.permits.len(), 1);
    assert_eq!(code(approve(&mut kit, 2, &request, document)), DenialCode::ApprovalMismatch);
}

#[test]
fn approver_on_no_list_does_not_count() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit, 50_000_000);
    assert_eq!(code(approve(&mut kit, 3, &request, document)), DenialCode::ApproverNotAllowed);
}

#[test]
fn one_approver_counts_once() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit, 50_000_000);
    approve(&mut kit, 0, &request, document);
    assert_eq!(code(approve(&mut kit, 0, &request, document)), DenialCode::ApproverNotAllowed);
}

#[test]
fn requester_cannot_approve_its_own_request() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit, 50_000_000);
    let operator = kit.operator.clone();
    let entry = kit.approval(&operator, &operator, &request, document);
    assert_eq!(code(kit.apply(entry)), DenialCode::ApproverNotAllowed);
}

#[test]
fn approval_of_another_document_is_refused() {
    let mut kit = Kit::ready();
    let (request, _) = pending(&mut kit, 50_000_000);
    let (_, other) = pending(&mut kit, 60_000_000);
    assert_eq!(code(approve(&mut kit, 0, &request, other)), DenialCode::ApprovalMismatch);
}

#[test]
fn approvals_are_void_once_the_policy_changes() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit, 50_000_000);
    approve(&mut kit, 0, &request, document);
    // a lower number tightens, so it is in force at once
    let tighter = kit.policy(&kit::POLICY.replace(r#"sum = "1000""#, r#"sum = "900""#));
    kit.set_policy(&tighter);
    assert_eq!(kit.state.policy().unwrap().1, tighter.policy_hash());
    assert_eq!(code(approve(&mut kit, 1, &request, document)), DenialCode::ApprovalMismatch);
}

#[test]
fn pending_request_expires() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit, 50_000_000);
    let life = kit.state.manifest().limits.approval_life;
    kit.pass(Millis(life.0));
    assert_eq!(code(approve(&mut kit, 0, &request, document)), DenialCode::Expired);
}

#[test]
fn delay_of_a_tier_holds_even_with_all_approvals() {
    let mut kit = Kit::ready();
    let operator = kit.operator.clone();
    let request = kit.payment_valid_for(PAYEE, 200_000_000, 86_400);
    let Verdict::Pending(waiting) = kit.ask(&operator, &request) else { panic!("pending") };
    for approver in 0..3 {
        let verdict = approve(&mut kit, approver, &request, waiting.document);
        assert!(matches!(verdict, Verdict::Pending(_)), "{verdict:?}");
    }
    kit.pass(second(3_599));
    assert!(matches!(kit.ask(&operator, &request), Verdict::Pending(_)));
    kit.pass(second(1));
    assert!(is_allowed(&kit.ask(&operator, &request)));
    assert!(matches!(kit.ask(&operator, &request), Verdict::Repeated { .. }));
    assert_eq!(kit.permits.len(), 1);
}

#[test]
fn waiting_requests_of_one_credential_are_bounded() {
    let mut kit = Kit::ready_with(|m| m.limits.max_pending_per_credential = 2);
    pending(&mut kit, 50_000_000);
    pending(&mut kit, 50_000_000);
    let operator = kit.operator.clone();
    let request = kit.payment(PAYEE, 50_000_000);
    assert_eq!(code(kit.ask(&operator, &request)), DenialCode::RateLimited);
}
