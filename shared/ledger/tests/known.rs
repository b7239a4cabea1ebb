//! What whoever applies an entry has verified of it before: it saves work, and decides nothing.
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

use casemate_ledger::{Applied, Committed, Entry, EntryBody, Known, State, Verdict};
use casemate_proto::request::SignRequest;
use casemate_proto::signature::VerifiedSignature;
use casemate_proto::stamp::{Method, VerifiedStamp};
use casemate_proto::{DenialCode, Scheme, UnixMillis};
use kit::{Kit, PAYEE, Person, code, is_allowed, second};

/// Applies an entry to a copy of the state by itself, and to another with what is known of it.
fn both(state: &State, at: UnixMillis, body: &EntryBody, known: Known) -> (Applied, Applied) {
    let entry = || Committed::dangerous_assume(Entry { at, body: body.clone() }, None);
    let alone = state.clone().apply(&entry()).unwrap();
    (alone, state.clone().apply_knowing(&entry(), known).unwrap())
}

/// The same record either way, so the same verdict; which it is.
fn same(kit: &Kit, body: &EntryBody, known: Known) -> Verdict {
    let (alone, knowing) = both(&kit.state, kit.now, body, known);
    assert_eq!(alone.record, knowing.record);
    assert_eq!(alone.effects.len(), knowing.effects.len());
    knowing.verdict
}

fn parts(body: &EntryBody) -> (&casemate_proto::stamp::Stamp, &[u8]) {
    let EntryBody::Request { stamp, body } = body else { panic!("a request") };
    (stamp, body)
}

fn verified(kit: &Kit, body: &EntryBody) -> VerifiedStamp {
    let (stamp, body) = parts(body);
    kit.state.authenticate(stamp, body, kit.now).unwrap().stamp().clone()
}

fn knowing(stamp: &VerifiedStamp) -> Known {
    Known { stamp: Some(stamp.clone()), ..Known::default() }
}

fn request(kit: &mut Kit) -> (Person, SignRequest, EntryBody) {
    let (agent, request) = (kit.agent.clone(), kit.payment(PAYEE, 1_000_000));
    let entry = kit.request_entry(&agent, &request);
    (agent, request, entry)
}

#[test]
fn stamp_that_was_verified_before_is_as_good_as_one_that_is_verified_now() {
    let mut kit = Kit::ready();
    let (.., entry) = request(&mut kit);
    let stamp = verified(&kit, &entry);
    assert!(is_allowed(&same(&kit, &entry, knowing(&stamp))));
}

#[test]
fn i2_proof_of_a_stamp_vouches_for_no_other_stamp_body_or_signature() {
    let mut kit = Kit::ready();
    let (agent, _, entry) = request(&mut kit);
    let stamp = verified(&kit, &entry);
    let (own, body) = parts(&entry);
    let with = |change: &dyn Fn(&mut casemate_proto::stamp::Stamp)| {
        let mut stamp = own.clone();
        change(&mut stamp);
        EntryBody::Request { stamp, body: body.to_vec() }
    };
    for forged in [
        with(&|stamp| stamp.signature[7] ^= 1),
        with(&|stamp| stamp.nonce[0] ^= 1),
        with(&|stamp| stamp.expires_at = stamp.expires_at.saturating_add(second(1))),
        with(&|stamp| stamp.credential = kit.operator.public.id()),
    ] {
        assert_eq!(code(same(&kit, &forged, knowing(&stamp))), DenialCode::BadStamp);
    }
    // another body under the same stamp, and a stamp that is good for something else
    let other = kit.payment(PAYEE, 2_000_000).to_body().into_bytes();
    let forged = EntryBody::Request { stamp: own.clone(), body: other };
    assert_eq!(code(same(&kit, &forged, knowing(&stamp))), DenialCode::BadStamp);
    let approving = kit.stamp(&agent, Method::CreateApproval, body);
    let forged = EntryBody::Request { stamp: approving, body: body.to_vec() };
    assert_eq!(code(same(&kit, &forged, knowing(&stamp))), DenialCode::BadStamp);
}

#[test]
fn i2_stamp_that_has_run_out_is_refused_however_good_it_was() {
    let mut kit = Kit::ready();
    let (.., entry) = request(&mut kit);
    let stamp = verified(&kit, &entry);
    kit.pass(casemate_proto::stamp::MAX_LIFE);
    assert_eq!(code(same(&kit, &entry, knowing(&stamp))), DenialCode::BadStamp);
}

#[test]
fn i10_proof_of_a_signature_records_that_signature_and_no_other() {
    let scheme = Scheme::EcdsaSecp256k1;
    let mut kit = Kit::ready();
    let (agent, asked, entry) = request(&mut kit);
    let Verdict::Allowed(allowed) = kit.apply(entry) else { panic!("allowed") };
    let signature = kit.sign_whole(scheme, &allowed.digest);
    let key = kit.public_key(scheme);
    let prove = |kit: &Kit, digest: &[u8; 32]| {
        let signature = kit.sign_whole(scheme, digest);
        let plain = signature.first_chunk().unwrap();
        VerifiedSignature::verify(scheme, &key, digest, plain)
    };
    let signed = |signature: Vec<u8>| EntryBody::Signed {
        credential: agent.public.id(),
        request_id: asked.request_id,
        signature,
    };
    let knowing = |signature| Known { signature, ..Known::default() };
    let (own, other) = (prove(&kit, &allowed.digest), prove(&kit, &[9; 32]));
    assert!(own.is_some() && other.is_some());
    // a signature of something else, with the proof that it is one
    let elsewhere = kit.sign_whole(scheme, &[9; 32]);
    let verdict = same(&kit, &signed(elsewhere), knowing(other.clone()));
    assert!(matches!(verdict, Verdict::Denied(_)));
    for at in [0, 40, 64] {
        let mut wrong = signature.clone();
        wrong[at] ^= 1;
        let verdict = same(&kit, &signed(wrong), knowing(own.clone()));
        assert!(matches!(verdict, Verdict::Denied(_)), "byte {at}");
    }
    for known in [own, other, None] {
        let verdict = same(&kit, &signed(signature.clone()), knowing(known));
        assert!(matches!(verdict, Verdict::Accepted { .. }));
    }
}
