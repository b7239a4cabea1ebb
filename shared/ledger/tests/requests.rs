//! Requests: what is charged, remembered, repeated, refused.

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

use casemate_ledger::requests::Outcome;
use casemate_ledger::{EntryBody, Verdict};
use casemate_proto::request::Payload;
use casemate_proto::stamp::Method;
use casemate_proto::{Amount, DenialCode, DerivationPath, Millis, Scheme};
use kit::{Kit, OTHER_PAYEE, PAYEE, Person, code, denial, is_allowed, key_name, second};

const DAY: Millis = Millis(86_400_000);

#[test]
fn i2_nothing_is_allowed_without_a_policy() {
    let mut kit = Kit::unborn(|_| {});
    let id = kit.state.genesis();
    kit.accept(EntryBody::Genesis { id });
    assert_eq!(code(kit.pay(1)), DenialCode::NoPolicy);
    assert!(kit.permits.is_empty());
}

#[test]
fn i5_sum_over_a_window_is_exact_to_the_unit() {
    let mut kit = Kit::ready();
    for _ in 0..4 {
        assert!(is_allowed(&kit.pay(5_000_000)));
    }
    let over = denial(kit.pay(1));
    assert_eq!(over.code, DenialCode::LimitExceeded);
    assert_eq!(over.remaining, Some(Amount::ZERO));
    assert_eq!(over.grant.as_ref().map(|g| g.as_str()), Some("x402"));
    let resets = over.resets_at.expect("time alone makes room");
    // the window is lengthened by tau + 2 delta, so that the time of release cannot matter
    assert_eq!(resets, kit::START.saturating_add(DAY).saturating_add(kit.state.slack()));
    kit.now = resets.saturating_sub(Millis(1));
    assert_eq!(code(kit.pay(1)), DenialCode::LimitExceeded);
    kit.now = resets;
    assert!(is_allowed(&kit.pay(5_000_000)));
}

#[test]
fn i4_charge_comes_before_the_permit_and_stays_when_nobody_signs() {
    let mut kit = Kit::ready();
    for _ in 0..4 {
        kit.pay(5_000_000);
    }
    assert_eq!(kit.permits.len(), 4);
    kit.permits.clear();
    kit.pass(second(3_600));
    assert_eq!(code(kit.pay(1)), DenialCode::LimitExceeded);
}

#[test]
fn repeated_request_gets_its_first_outcome_and_is_charged_once() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.payment(PAYEE, 5_000_000);
    assert!(is_allowed(&kit.ask(&agent, &request)));
    let index = kit.state.size() - 1;
    for _ in 0..10 {
        assert_eq!(kit.ask(&agent, &request), Verdict::Repeated { index });
    }
    assert_eq!(kit.permits.len(), 1);
    assert_eq!(kit.state.charges().len(), 1);
}

#[test]
fn same_id_with_another_body_is_refused_and_charges_nothing() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let first = kit.payment(PAYEE, 1_000_000);
    let mut second = kit.payment(PAYEE, 2_000_000);
    second.request_id = first.request_id;
    assert!(is_allowed(&kit.ask(&agent, &first)));
    assert_eq!(code(kit.ask(&agent, &second)), DenialCode::RequestIdReused);
    assert_eq!(kit.state.charges().len(), 1);
}

#[test]
fn same_id_of_another_credential_is_another_request() {
    let mut kit = Kit::ready();
    let request = kit.payment(PAYEE, 1_000_000);
    let (agent, operator) = (kit.agent.clone(), kit.operator.clone());
    assert!(is_allowed(&kit.ask(&agent, &request)));
    assert!(matches!(kit.ask(&operator, &request), Verdict::Pending(_)));
}

#[test]
fn denial_is_remembered_while_its_stamp_could_be_replayed() {
    let mut kit = Kit::ready();
    for _ in 0..4 {
        kit.pay(5_000_000);
    }
    let agent = kit.agent.clone();
    // made just before the window has room again, and replayed just after
    kit.now = kit::START.saturating_add(DAY).saturating_add(kit.state.slack());
    kit.now = kit.now.saturating_sub(second(1));
    let request = kit.payment(PAYEE, 5_000_000);
    let entry = kit.request_entry(&agent, &request);
    assert_eq!(code(kit.apply(entry.clone())), DenialCode::LimitExceeded);
    kit.pass(second(2));
    assert_eq!(code(kit.apply(entry)), DenialCode::LimitExceeded);
    assert!(is_allowed(&kit.pay(5_000_000)));
}

#[test]
fn later_stamp_of_a_denied_request_cannot_be_kept_back_and_replayed() {
    let mut kit = Kit::ready();
    for _ in 0..4 {
        kit.pay(5_000_000);
    }
    let agent = kit.agent.clone();
    let room = kit::START.saturating_add(DAY).saturating_add(kit.state.slack());
    kit.now = room.saturating_sub(second(90));
    let request = kit.payment(PAYEE, 5_000_000);
    let first = kit.request_entry(&agent, &request);
    // a retry that the client stamped for the longest life before it knew of the denial
    let body = request.to_body().into_bytes();
    let scope = kit.state.stamp_scope(Method::CreateRequest);
    let expires_at = kit.now.saturating_add(casemate_proto::stamp::MAX_LIFE);
    let credential = agent.public.id();
    let preimage = casemate_proto::stamp::Stamp::preimage(
        &scope,
        &credential,
        kit.now,
        expires_at,
        &[6; 16],
        &body,
    );
    let signature = ed25519_dalek::Signer::sign(&agent.key, &preimage).to_bytes();
    let stamp = casemate_proto::stamp::Stamp {
        credential,
        issued_at: kit.now,
        expires_at,
        nonce: [6; 16],
        signature,
    };
    assert_eq!(code(kit.apply(first)), DenialCode::LimitExceeded);
    kit.now = expires_at.saturating_sub(Millis(1));
    assert_eq!(code(kit.apply(EntryBody::Request { stamp, body })), DenialCode::LimitExceeded);
}

#[test]
fn unsigned_entry_expires_after_tau_and_its_id_answers_expired() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.payment(PAYEE, 1_000_000);
    kit.ask(&agent, &request);
    let (credential, id) = (agent.public.id(), request.request_id);
    assert!(matches!(kit.state.outcome(&credential, &id, kit.now), Some(Outcome::Allowed(_))));
    let tau = kit.state.manifest().limits.tau;
    kit.pass(Millis(tau.0 + 1));
    assert!(matches!(kit.state.outcome(&credential, &id, kit.now), Some(Outcome::Expired)));
    // asked again with a fresh stamp: still the same entry, still expired, no second permit
    assert!(matches!(kit.ask(&agent, &request), Verdict::Repeated { .. }));
    assert_eq!(kit.permits.len(), 1);
}

#[test]
fn signature_is_recorded_once_and_only_if_it_verifies() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.payment(PAYEE, 1_000_000);
    let Verdict::Allowed(allowed) = kit.ask(&agent, &request) else { panic!("allowed") };
    let signature = kit.sign_whole(Scheme::EcdsaSecp256k1, &allowed.digest);
    let entry = |signature: Vec<u8>| EntryBody::Signed {
        credential: agent.public.id(),
        request_id: request.request_id,
        signature,
    };
    for (at, mask) in [(0, 1), (40, 1), (64, 1), (64, 0x80)] {
        let mut wrong = signature.clone();
        wrong[at] ^= mask;
        assert!(matches!(kit.apply(entry(wrong)), Verdict::Denied(_)), "byte {at}");
    }
    assert!(matches!(kit.apply(entry(signature[..64].to_vec())), Verdict::Denied(_)));
    kit.accept(entry(signature.clone()));
    assert!(kit.state.is_signed(&agent.public.id(), &request.request_id));
    assert!(matches!(kit.apply(entry(signature)), Verdict::Repeated { .. }));
}

#[test]
fn signature_is_not_recorded_once_its_request_may_have_been_answered_expired() {
    for (late, accepted) in [(0, true), (1, false)] {
        let mut kit = Kit::ready();
        let agent = kit.agent.clone();
        let request = kit.payment(PAYEE, 1_000_000);
        let Verdict::Allowed(allowed) = kit.ask(&agent, &request) else { panic!("allowed") };
        let signature = kit.sign_whole(Scheme::EcdsaSecp256k1, &allowed.digest);
        kit.now = allowed.release_by.saturating_add(Millis(kit.state.slack().0 + late));
        let credential = agent.public.id();
        let verdict =
            kit.apply(EntryBody::Signed { credential, request_id: request.request_id, signature });
        assert_eq!(matches!(verdict, Verdict::Accepted { .. }), accepted, "{verdict:?}");
    }
}

#[test]
fn signature_for_a_request_that_was_denied_or_never_made_is_refused() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.payment(OTHER_PAYEE, 1_000_000);
    assert_eq!(code(kit.ask(&agent, &request)), DenialCode::PayeeNotListed);
    let digest = [1; 32];
    let signature = kit.sign_whole(Scheme::EcdsaSecp256k1, &digest);
    for id in [request.request_id, kit.next_id()] {
        let entry = EntryBody::Signed {
            credential: agent.public.id(),
            request_id: id,
            signature: signature.clone(),
        };
        assert!(matches!(kit.apply(entry), Verdict::Denied(_)));
    }
}

#[test]
fn unknown_and_foreign_credentials_are_refused() {
    let mut kit = Kit::ready();
    let stranger = Person::new(99);
    let request = kit.payment(PAYEE, 1);
    assert_eq!(code(kit.ask(&stranger, &request)), DenialCode::UnknownCredential);
    let body = request.to_body().into_bytes();
    let mut stamp = kit.stamp(&stranger, Method::CreateRequest, &body);
    stamp.credential = kit.agent.public.id();
    assert_eq!(code(kit.apply(EntryBody::Request { stamp, body })), DenialCode::BadStamp);
}

#[test]
fn stamp_for_another_method_or_another_body_is_refused() {
    let mut kit = Kit::ready();
    let request = kit.payment(PAYEE, 1);
    let agent = kit.agent.clone();
    let body = request.to_body().into_bytes();
    let stamp = kit.stamp(&agent, Method::CreateApproval, &body);
    assert_eq!(
        code(kit.apply(EntryBody::Request { stamp, body: body.clone() })),
        DenialCode::BadStamp
    );
    let stamp = kit.stamp(&agent, Method::CreateRequest, &body);
    let mut other = body;
    other.push(b' ');
    assert_eq!(code(kit.apply(EntryBody::Request { stamp, body: other })), DenialCode::BadStamp);
}

#[test]
fn expired_stamp_is_refused() {
    let mut kit = Kit::ready();
    let request = kit.payment(PAYEE, 1);
    let agent = kit.agent.clone();
    let entry = kit.request_entry(&agent, &request);
    kit.pass(second(61));
    assert_eq!(code(kit.apply(entry)), DenialCode::BadStamp);
}

#[test]
fn malformed_and_oversized_bodies_are_refused_and_remembered_nowhere() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    for (body, expected) in [
        (b"{".to_vec(), DenialCode::Malformed),
        (vec![b' '; casemate_proto::request::MAX_BODY + 1], DenialCode::TooLarge),
    ] {
        let stamp = kit.stamp(&agent, Method::CreateRequest, &body);
        assert_eq!(code(kit.apply(EntryBody::Request { stamp, body })), expected);
    }
    assert!(kit.state.charges().is_empty());
}

#[test]
fn unknown_and_reserved_keys_are_refused_alike() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    for name in ["nothing", "casemate.log"] {
        let request = kit.request(name, Payload::Message(vec![1]));
        assert_eq!(code(kit.ask(&agent, &request)), DenialCode::UnknownKey, "{name}");
    }
}

#[test]
fn i13_cluster_key_cannot_be_asked_to_sign_even_when_live() {
    let mut kit = Kit::ready();
    kit.govern(casemate_proto::governance::Change::CreateKey {
        name: key_name(casemate_ledger::apply::LOG_KEY),
        scheme: Scheme::Ed25519,
    });
    let live = kit.key_live(casemate_ledger::apply::LOG_KEY, Scheme::Ed25519, 0);
    kit.accept(EntryBody::KeyLive(live));
    let agent = kit.agent.clone();
    let request = kit.request(casemate_ledger::apply::LOG_KEY, Payload::Message(vec![1]));
    assert_eq!(code(kit.ask(&agent, &request)), DenialCode::UnknownKey);
}

#[test]
fn ed25519_key_signs_messages_only() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.request("notary", Payload::Message(b"hello".to_vec()));
    let Verdict::Allowed(allowed) = kit.ask(&agent, &request) else { panic!("allowed") };
    assert_eq!(
        allowed.digest,
        casemate_proto::hash::message_digest(&kit.state.genesis(), b"hello")
    );
    let request = kit.request("notary", Payload::Hash([1; 32]));
    assert_eq!(code(kit.ask(&agent, &request)), DenialCode::WrongScheme);
}

#[test]
fn i3_raw_hash_is_denied_unless_a_grant_names_it() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let request = kit.request("agent-7", Payload::Hash([1; 32]));
    assert_eq!(code(kit.ask(&agent, &request)), DenialCode::RawHash);
}

#[test]
fn path_outside_the_grant_is_refused() {
    let mut kit = Kit::ready();
    let agent = kit.agent.clone();
    let mut request = kit.payment(PAYEE, 1);
    request.path = DerivationPath::parse("m/1").unwrap();
    let refused = code(kit.ask(&agent, &request));
    assert!(matches!(refused, DenialCode::BadPath | DenialCode::NoGrant), "{refused}");
}

#[test]
fn denials_of_one_credential_are_rate_limited_and_leave_others_alone() {
    let mut kit = Kit::ready_with(|m| m.limits.max_denials_per_minute = 5);
    let agent = kit.agent.clone();
    for _ in 0..5 {
        let request = kit.payment(OTHER_PAYEE, 1);
        assert_eq!(code(kit.ask(&agent, &request)), DenialCode::PayeeNotListed);
    }
    let request = kit.payment(PAYEE, 1);
    assert!(kit.state.is_rate_limited(&agent.public.id(), kit.now));
    assert_eq!(code(kit.ask(&agent, &request)), DenialCode::RateLimited);
    let operator = kit.operator.clone();
    assert!(matches!(kit.ask(&operator, &request), Verdict::Pending(_)));
    kit.pass(second(60));
    let request = kit.payment(PAYEE, 1);
    assert!(is_allowed(&kit.ask(&agent, &request)));
}

#[test]
fn i12_full_table_denies_and_never_evicts() {
    let mut kit = Kit::ready_with(|m| m.limits.max_requests_per_credential = 3);
    let agent = kit.agent.clone();
    let first = kit.payment(PAYEE, 1);
    assert!(is_allowed(&kit.ask(&agent, &first)));
    for _ in 0..2 {
        assert!(is_allowed(&kit.pay(1)));
    }
    assert_eq!(code(kit.pay(1)), DenialCode::TableFull);
    assert!(matches!(kit.ask(&agent, &first), Verdict::Repeated { .. }));
    let memory = kit.state.manifest().limits.request_memory;
    kit.pass(Millis(memory.0 + 600_000));
    assert!(is_allowed(&kit.pay(1)));
}

#[test]
fn ledger_time_never_goes_back() {
    let mut kit = Kit::ready();
    for _ in 0..4 {
        kit.pay(5_000_000);
    }
    let before = kit.state.time();
    kit.now = kit.now.saturating_sub(second(30));
    let verdict = kit.pay(1);
    assert_eq!(code(verdict), DenialCode::LimitExceeded);
    assert_eq!(kit.state.time(), before);
}
