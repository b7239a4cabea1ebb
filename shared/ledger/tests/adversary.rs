//! What a hostile host, requester, approver or freezer tries against the ledger, case by case.

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

use casemate_ledger::entry::ApprovalProof;
use casemate_ledger::verdict::Pending;
use casemate_ledger::{EntryBody, Verdict};
use casemate_proto::governance::{Change, FreezerStatement, QuorumError, SignedStatement};
use casemate_proto::ids::Hash32;
use casemate_proto::request::{ApprovalBody, MAX_BODY, SignRequest};
use casemate_proto::stamp::Method;
use casemate_proto::{DenialCode, Millis, Scheme, UnixMillis};
use kit::{Kit, PAYEE, code, is_allowed, key_name, second};

const FIFTY: u64 = 50_000_000;

fn ask(kit: &mut Kit, request: &SignRequest) -> Verdict {
    let operator = kit.operator.clone();
    kit.ask(&operator, request)
}

fn waits(verdict: Verdict) -> Pending {
    match verdict {
        Verdict::Pending(pending) => pending,
        other => panic!("{other:?}"),
    }
}

fn pending(kit: &mut Kit) -> (SignRequest, Hash32) {
    let request = kit.payment_valid_for(PAYEE, FIFTY, 86_400);
    let document = waits(ask(kit, &request)).document;
    (request, document)
}

fn approve(kit: &mut Kit, approver: usize, request: &SignRequest, document: Hash32) -> Verdict {
    let (operator, who) = (kit.operator.clone(), kit.approvers[approver].clone());
    let entry = kit.approval(&who, &operator, request, document);
    kit.apply(entry)
}

fn statement_at(kit: &Kit, at: UnixMillis, statement: FreezerStatement) -> SignedStatement {
    let mut signed = kit.statement(statement);
    signed.at = at;
    signed.by = kit.freezer.sign(&SignedStatement::signing_bytes(&signed.id()));
    signed
}

#[test]
fn i11_approval_of_a_credential_that_was_revoked_since_does_not_count() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit);
    assert_eq!(waits(approve(&mut kit, 0, &request, document)).have, 1);
    let credential = kit.approvers[0].public.id();
    kit.govern(Change::RevokeCredential { credential });
    assert_eq!(waits(approve(&mut kit, 1, &request, document)).have, 1);
    assert!(kit.permits.is_empty());
    assert!(is_allowed(&approve(&mut kit, 2, &request, document)));
}

#[test]
fn i11_request_of_a_credential_that_was_revoked_since_is_not_signed() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit);
    approve(&mut kit, 0, &request, document);
    let credential = kit.operator.public.id();
    kit.govern(Change::RevokeCredential { credential });
    let last = approve(&mut kit, 1, &request, document);
    assert_eq!(code(last), DenialCode::UnknownCredential);
    assert!(kit.permits.is_empty());
    assert!(kit.state.charges().is_empty());
}

#[test]
fn i11_approval_under_an_earlier_policy_does_not_count_when_the_request_is_asked_again() {
    let mut kit = Kit::ready();
    let (request, first) = pending(&mut kit);
    assert_eq!(waits(approve(&mut kit, 0, &request, first)).have, 1);
    let next = kit.policy(&kit::POLICY.replace(r#"sum = "1000""#, r#"sum = "2000""#));
    kit.set_policy(&next);
    kit.heartbeat();
    kit.pass(second(3_600));
    kit.accept(EntryBody::Tick);
    assert_eq!(kit.state.policy().unwrap().1, next.policy_hash());
    let again = waits(ask(&mut kit, &request));
    assert_eq!(again.have, 0);
    assert_ne!(again.document, first);
    // nor does it come back with the first approval of the new document
    assert_eq!(waits(approve(&mut kit, 1, &request, again.document)).have, 1);
    assert!(kit.permits.is_empty());
    assert!(is_allowed(&approve(&mut kit, 0, &request, again.document)));
}

#[test]
fn i11_revoked_governor_signs_nothing_and_a_quorum_is_always_left() {
    let mut kit = Kit::ready();
    let create = |name| Change::CreateKey { name: key_name(name), scheme: Scheme::Ed25519 };
    let credential = kit.governors[0].public.id();
    kit.govern(Change::RevokeCredential { credential });
    let with_revoked = kit.signed_change(create("x"));
    assert!(matches!(kit.apply(EntryBody::Governance(with_revoked)), Verdict::Denied(_)));
    kit.governors.rotate_left(1);
    kit.govern(create("y"));
    let credential = kit.governors[0].public.id();
    let last = kit.signed_change(Change::RevokeCredential { credential });
    assert!(matches!(kit.apply(EntryBody::Governance(last)), Verdict::Denied(_)));
    kit.govern(create("z"));
}

#[test]
fn i12_asking_again_does_not_lengthen_what_is_remembered() {
    let mut kit = Kit::ready();
    let (request, document) = pending(&mut kit);
    let until = |kit: &Kit| {
        let credential = kit.operator.public.id();
        kit.state.request(&credential, &request.request_id).unwrap().forget_at
    };
    let before = until(&kit);
    for _ in 0..50 {
        waits(ask(&mut kit, &request));
    }
    approve(&mut kit, 0, &request, document);
    assert_eq!(until(&kit), before);
    assert!(is_allowed(&approve(&mut kit, 1, &request, document)));
    assert_eq!(until(&kit), before);
}

#[test]
fn i12_refused_approvals_of_one_credential_stop_becoming_entries() {
    let mut kit = Kit::ready_with(|m| m.limits.max_denials_per_minute = 3);
    let (request, document) = pending(&mut kit);
    approve(&mut kit, 0, &request, document);
    for _ in 0..3 {
        assert_eq!(code(approve(&mut kit, 0, &request, document)), DenialCode::ApproverNotAllowed);
    }
    let entry = kit.approval(&kit.approvers[0], &kit.operator, &request, document);
    let EntryBody::Approval { body, proof } = &entry else { panic!("approval") };
    let refused = kit.state.authenticate_approval(body, proof, kit.now).unwrap_err();
    assert_eq!(refused.code, DenialCode::RateLimited);
    assert!(is_allowed(&approve(&mut kit, 1, &request, document)));
}

#[test]
fn freezer_whose_clock_is_fast_can_freeze_and_veto() {
    let mut kit = Kit::ready();
    let next = kit.policy(&kit::POLICY.replace(r#"sum = "1000""#, r#"sum = "2000""#));
    kit.set_policy(&next);
    let change = *kit.state.pending_changes().keys().next().unwrap();
    let at = kit.now.saturating_add(second(3_600));
    let veto = statement_at(&kit, at, FreezerStatement::Veto { change });
    kit.accept(EntryBody::Statement(veto));
    assert!(kit.state.pending_changes().is_empty());
    let freeze = statement_at(&kit, at, FreezerStatement::Freeze { nonce: [1; 16] });
    kit.accept(EntryBody::Statement(freeze));
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
}

#[test]
fn freeze_given_while_an_earlier_one_is_lifted_outlasts_it() {
    let mut kit = Kit::ready();
    let first = kit.freeze(1);
    // the quorum has signed this already; a host delivers it after the second freeze
    let lift = kit.signed_change(Change::Unfreeze { freeze: first });
    let second = kit.freeze(2);
    kit.accept(EntryBody::Governance(lift));
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
    kit.govern(Change::Unfreeze { freeze: second });
    assert!(is_allowed(&kit.pay(1)));
    for nonce in 3..7 {
        kit.freeze(nonce);
    }
    let one_more = kit.statement(FreezerStatement::Freeze { nonce: [7; 16] });
    assert!(matches!(kit.apply(EntryBody::Statement(one_more)), Verdict::Denied(_)));
}

#[test]
fn heartbeat_of_the_future_is_refused() {
    let mut kit = Kit::ready();
    let at = kit.now.saturating_add(second(3_600));
    let (size, root) = (kit.state.size(), kit.state.root());
    let heartbeat = FreezerStatement::Heartbeat { size, root, pending: Vec::new() };
    let signed = statement_at(&kit, at, heartbeat);
    assert!(matches!(kit.apply(EntryBody::Statement(signed)), Verdict::Denied(_)));
}

/// An entry without a record halts whoever applies it: a single freezer must not make one.
#[test]
fn i12_heartbeat_with_an_endless_list_is_no_statement() {
    let mut kit = Kit::ready();
    kit.pass(second(1));
    let (size, root) = (kit.state.size(), kit.state.root());
    let listing = |count: usize| FreezerStatement::Heartbeat {
        size,
        root,
        pending: vec![Hash32::new([3; 32]); count],
    };
    let endless = kit.statement(listing(2_000));
    assert_eq!(
        endless.verify(kit.state.manifest()).unwrap_err(),
        QuorumError::TooManyListed { count: 2_000 }
    );
    let long = kit.statement(listing(1_000));
    assert!(matches!(kit.apply(EntryBody::Statement(long)), Verdict::Denied(_)));
    let full = kit.statement(listing(casemate_proto::governance::MAX_LISTED));
    kit.accept(EntryBody::Statement(full));
}

#[test]
fn i12_silence_after_silence_is_one_freeze_to_lift() {
    let mut kit = Kit::ready_with(|m| m.limits.dead_man = Some(second(3_600)));
    for _ in 0..5 {
        kit.pass(second(3_601));
        kit.accept(EntryBody::Tick);
        kit.heartbeat();
    }
    assert_eq!(kit.state.freezes().len(), 1);
    let freeze = *kit.state.freezes().keys().next().unwrap();
    kit.govern(Change::Unfreeze { freeze });
    assert!(is_allowed(&kit.pay(1)));
    kit.pass(second(3_601));
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
}

/// The largest bodies, and those whose denial quotes the most, still have a record.
#[test]
fn i12_no_body_makes_an_entry_without_a_record() {
    let mut kit = Kit::ready();
    let (agent, operator) = (kit.agent.clone(), kit.operator.clone());
    let request = kit.payment(PAYEE, 1);
    let mut padded = request.to_body();
    padded.push_str(&" ".repeat(MAX_BODY - padded.len()));
    let quoting = |what: &str| {
        format!(
            r#"{{"request_id":"{}","key":"{what}","kind":"message","input":"0x"}}"#,
            request.request_id
        )
    };
    let wide = quoting(&"\u{1f600}".repeat(10_000));
    let escaped = quoting(&"\\u0001".repeat(7_000));
    let control = "{\"\u{fffd}".repeat(9_000);
    for body in [padded, wide, escaped, control] {
        let body = body.into_bytes();
        assert!(body.len() <= MAX_BODY);
        let stamp = kit.stamp(&agent, Method::CreateRequest, &body);
        kit.apply(EntryBody::Request { stamp, body });
    }
    assert_eq!(kit.permits.len(), 1);
    let (request, document) = pending(&mut kit);
    let credential = operator.public.id();
    let approval = ApprovalBody { credential, request_id: request.request_id, document };
    let mut body = approval.to_body();
    body.push_str(&" ".repeat(MAX_BODY - body.len()));
    let body = body.into_bytes();
    let who = kit.approvers[0].clone();
    let proof = ApprovalProof::Stamp(kit.stamp(&who, Method::CreateApproval, &body));
    assert_eq!(waits(kit.apply(EntryBody::Approval { body, proof })).have, 1);
}

/// Time that a leader sets back does not reopen a window, and time that jumps opens it once.
#[test]
fn i5_window_holds_whatever_times_entries_carry() {
    let mut kit = Kit::ready();
    let start = kit.now;
    let mut charged: Vec<(UnixMillis, u64)> = Vec::new();
    for step in 0..400_u64 {
        // forwards and backwards, by a generator that every run repeats
        let jump = step.wrapping_mul(6_364_136_223_846_793_005).rotate_left(21) % 30_000_000;
        kit.now =
            start.saturating_add(Millis(step * 2_000_000 + jump)).saturating_sub(second(9_000));
        // the request is made at the ledger's own time, so that its stamp is valid
        let (entry_time, ledger) = (kit.now, kit.state.time());
        kit.now = entry_time.max(ledger);
        let request = kit.payment(PAYEE, 3_000_000 + step % 2_000_000);
        let agent = kit.agent.clone();
        let entry = kit.request_entry(&agent, &request);
        kit.now = entry_time;
        if is_allowed(&kit.apply(entry)) {
            charged.push((kit.state.time(), 3_000_000 + step % 2_000_000));
        }
        if step % 50 == 0 {
            let bytes = kit.state.to_snapshot();
            kit.state = casemate_ledger::State::from_snapshot(&bytes).unwrap();
        }
    }
    assert!(charged.len() > 20, "{}", charged.len());
    let window = Millis(86_400_000).saturating_add(kit.state.slack());
    for (last, _) in &charged {
        let within = |at: UnixMillis| at <= *last && last.since(at) < window;
        let sum: u64 = charged.iter().filter(|(at, _)| within(*at)).map(|(_, n)| n).sum();
        assert!(sum <= 20_000_000, "{sum} before {last}");
    }
}
