//! Answers go to HTTP and back without losing a bit, and nothing else is read as one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use casemate_api::problem::Problem;
use casemate_api::{MAX_ANSWER, Outcome, PROBLEM_JSON, ParentCode, ReadError, Rendered};
use casemate_audit::{InclusionReceipt, Record, RecordFields};
use casemate_door::{Answer, PendingAnswer, Receipt, Signed, SignedDenial};
use casemate_ledger::Verdict;
use casemate_proto::denial::LimitRef;
use casemate_proto::ids::Hash32;
use casemate_proto::{
    Amount, BootId, CredentialId, Denial, DenialCode, GrantId, Millis, UnixMillis,
};
use serde_json::{Value, json};

fn hash(byte: u8) -> Hash32 {
    Hash32::new([byte; 32])
}

fn inclusion(index: u64) -> InclusionReceipt {
    let record = Record::new(RecordFields {
        index,
        time: UnixMillis(1),
        kind: "signed".to_owned(),
        entry: vec![1, 2, 3],
        verdict: vec![4],
        policy: None,
        counters: Vec::new(),
        previous_root: hash(0),
    })
    .unwrap();
    InclusionReceipt {
        leaf: record.leaf_bytes().to_vec(),
        proof: vec![hash(1), hash(2)],
        checkpoint: "casemate/…\n7\nroot=\n\n— a b\n".to_owned(),
    }
}

fn signed(signature: Vec<u8>) -> Answer {
    Answer::Signed(Box::new(Signed {
        digest: [9; 32],
        signature,
        public_key: vec![2; 33],
        raw_transaction: Some(vec![2, 0xf8]),
        receipt: Receipt { allowed: inclusion(5), signed: inclusion(6) },
    }))
}

fn ecdsa(v: u8) -> Vec<u8> {
    [vec![7; 64], vec![v]].concat()
}

fn denial(code: DenialCode) -> Box<SignedDenial> {
    let mut denial =
        Denial::new(code, "`200.00` is above `50.00`").by(&GrantId::new("x402").unwrap());
    denial.limit =
        Some(LimitRef::Sum { max: Amount::from(50_000_000), window: Millis(86_400_000) });
    denial.remaining = Some(Amount::from(3));
    denial.resets_at = Some(UnixMillis(1_763_629_200_000));
    Box::new(SignedDenial {
        credential: Some(CredentialId(hash(3))),
        subject: hash(4),
        denial,
        at: UnixMillis(1_763_629_100_000),
        index: Some(12),
        boot: BootId::new([5; 32]),
        signature: [6; 64],
    })
}

fn pending() -> Answer {
    Answer::Pending(PendingAnswer {
        document: hash(8),
        grant: Some(GrantId::new("treasury").unwrap()),
        have: 1,
        need: 2,
        not_before: Some(UnixMillis(5)),
        expires: UnixMillis(9),
    })
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&Rendered::of(answer).unwrap().body).unwrap()
}

fn read(status: u16, json: &Value) -> Result<Outcome, ReadError> {
    Outcome::read(status, &serde_json::to_vec(json).unwrap())
}

#[test]
fn every_answer_goes_through_http_unchanged_with_its_status() {
    let verdict = Verdict::Accepted { id: Some(hash(1)), effective: Some(UnixMillis(3)) };
    for (status, answer) in [
        (200, signed(ecdsa(0))),
        (200, signed(ecdsa(1))),
        (200, signed(vec![7; 64])),
        (200, Answer::Accepted { index: 4, verdict }),
        (200, Answer::Accepted { index: 4, verdict: Verdict::Repeated { index: 2 } }),
        (200, Answer::Recorded { index: 4, signed_index: 5 }),
        (202, pending()),
        (403, Answer::Denied(denial(DenialCode::LimitExceeded))),
        (409, Answer::Denied(denial(DenialCode::RequestIdReused))),
        (400, Answer::Denied(denial(DenialCode::Malformed))),
        (413, Answer::Denied(denial(DenialCode::TooLarge))),
        (429, Answer::Denied(denial(DenialCode::RateLimited))),
        (503, Answer::Denied(denial(DenialCode::Busy))),
        (410, Answer::Expired(denial(DenialCode::Expired))),
        (404, Answer::Unknown),
        (503, Answer::Busy { retry_after: Millis(1_500) }),
    ] {
        let rendered = Rendered::of(&answer).unwrap();
        assert_eq!(rendered.status, status, "{answer:?}");
        assert_eq!(rendered.content_type == PROBLEM_JSON, status >= 400, "{answer:?}");
        assert_eq!(Outcome::read(status, &rendered.body), Ok(Outcome::Answer(answer)));
    }
}

#[test]
fn every_denial_code_goes_through_http_unchanged() {
    for code in DenialCode::ALL {
        for answer in [Answer::Denied(denial(*code)), Answer::Expired(denial(*code))] {
            let rendered = Rendered::of(&answer).unwrap();
            let read = Outcome::read(rendered.status, &rendered.body);
            assert_eq!(read, Ok(Outcome::Answer(answer)));
        }
    }
}

#[test]
fn signature_has_the_wallets_v_and_the_receipt_the_documented_fields() {
    let json = json_of(&signed(ecdsa(1)));
    assert!(json["signature"].as_str().unwrap().ends_with("1c"));
    let mut fields: Vec<&str> =
        json["receipt"].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "checkpoint",
            "index",
            "proof",
            "record",
            "request_checkpoint",
            "request_index",
            "request_proof",
            "request_record"
        ]
    );
    assert_eq!(
        (&json["receipt"]["index"], &json["receipt"]["request_index"]),
        (&json!(6), &json!(5))
    );
}

#[test]
fn denial_is_readable_without_its_signed_form() {
    let json = json_of(&Answer::Denied(denial(DenialCode::LimitExceeded)));
    assert_eq!(json["type"], "urn:casemate:problem:limit_exceeded");
    assert_eq!(json["code"], "limit_exceeded");
    assert_eq!(json["outcome"], "denied");
    assert_eq!(json["grant"], "x402");
    assert_eq!(json["limit"], "50000000");
    assert_eq!(json["remaining"], "3");
    assert_eq!(json["resets_at"], "2025-11-20T09:00:00.000Z");
    assert_eq!(json["index"], 12);
}

#[test]
fn problem_of_the_parent_is_never_read_as_an_answer() {
    for code in ParentCode::ALL {
        let problem = Problem::new(*code, "why");
        let rendered = Rendered::of_problem(&problem);
        assert_eq!(
            Outcome::read(rendered.status, &rendered.body),
            Ok(Outcome::Problem(Box::new(problem)))
        );
    }
}

#[test]
fn denial_that_nobody_signed_is_the_parents_word_only() {
    let problem = Problem::new(DenialCode::LimitExceeded, "believe me");
    let read = Outcome::read(403, &problem.to_body()).unwrap();
    assert!(matches!(read, Outcome::Problem(_)), "{read:?}");
}

#[test]
fn denial_whose_readable_part_was_altered_is_refused() {
    let whole = json_of(&Answer::Denied(denial(DenialCode::LimitExceeded)));
    for (field, value) in [
        ("code", json!("frozen")),
        ("type", json!("urn:casemate:problem:frozen")),
        ("detail", json!("ask again with more")),
        ("outcome", json!("expired")),
        ("grant", json!("other")),
        ("limit", json!("1")),
        ("remaining", json!("999999999")),
        ("resets_at", json!("2020-01-01T00:00:00.000Z")),
        ("index", json!(13)),
    ] {
        let mut json = whole.clone();
        json[field] = value;
        assert_eq!(read(403, &json), Err(ReadError::Contradiction), "{field}");
    }
    for field in ["outcome", "signed_denial"] {
        let mut json = whole.clone();
        json.as_object_mut().unwrap().remove(field);
        assert_eq!(read(403, &json), Err(ReadError::Contradiction), "{field}");
    }
    let mut json = whole;
    json["signed_denial"] = json!("0xa0");
    assert!(matches!(read(403, &json), Err(ReadError::Cbor { field: "signed_denial", .. })));
}

#[test]
fn status_that_does_not_go_with_its_body_is_refused() {
    let pending = json_of(&pending());
    assert_eq!(read(200, &pending), Err(ReadError::Status { found: 200, expected: 202 }));
    let denied = json_of(&Answer::Denied(denial(DenialCode::Frozen)));
    assert_eq!(read(410, &denied), Err(ReadError::Status { found: 410, expected: 403 }));
    assert!(matches!(read(200, &denied), Err(ReadError::Malformed { .. })));
    assert!(matches!(read(403, &pending), Err(ReadError::Malformed { .. })));
}

#[test]
fn altered_signature_answers_are_refused() {
    let whole = json_of(&signed(ecdsa(0)));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut json = whole.clone();
        change(&mut json);
        read(200, &json)
    };
    assert!(with(&|_| ()).is_ok());
    for (name, outcome) in [
        ("digest of 31 bytes", with(&|j| j["digest"] = json!(format!("0x{}", "09".repeat(31))))),
        ("signature of 0 bytes", with(&|j| j["signature"] = json!("0x"))),
        (
            "signature of 63 bytes",
            with(&|j| j["signature"] = json!(format!("0x{}", "1b".repeat(63)))),
        ),
        (
            "signature of 66 bytes",
            with(&|j| j["signature"] = json!(format!("0x{}", "1b".repeat(66)))),
        ),
        ("v of the ledger", with(&|j| j["signature"] = json!(format!("0x{}01", "07".repeat(64))))),
        ("v beyond", with(&|j| j["signature"] = json!(format!("0x{}1d", "07".repeat(64))))),
        ("index", with(&|j| j["receipt"]["index"] = json!(7))),
        ("request index", with(&|j| j["receipt"]["request_index"] = json!(7))),
        ("record", with(&|j| j["receipt"]["record"] = json!("0xa0"))),
        ("request record", with(&|j| j["receipt"]["request_record"] = json!(null))),
        ("request proof", with(&|j| j["receipt"]["request_proof"] = json!(null))),
        ("request checkpoint", with(&|j| j["receipt"]["request_checkpoint"] = json!(null))),
        ("proof", with(&|j| j["receipt"]["proof"] = json!(["0x01"]))),
        ("negative index", with(&|j| j["receipt"]["index"] = json!(-1))),
        ("receipt", with(&|j| j["receipt"] = json!(null))),
        ("outcome", with(&|j| j["outcome"] = json!("Signed"))),
    ] {
        assert!(outcome.is_err(), "{name}: {outcome:?}");
    }
}

#[test]
fn accepted_answer_whose_readable_part_was_altered_is_refused() {
    let answer = Answer::Accepted { index: 4, verdict: Verdict::Repeated { index: 2 } };
    let mut json = json_of(&answer);
    json["decided"] = json!("accepted");
    assert_eq!(read(200, &json), Err(ReadError::Contradiction));
}

#[test]
fn unknown_fields_of_an_answer_are_ignored_and_repeated_ones_refused() {
    let mut json = json_of(&pending());
    json["more"] = json!({"in": "a newer version"});
    assert_eq!(read(202, &json), Ok(Outcome::Answer(pending())));
    let text = serde_json::to_string(&json).unwrap();
    let repeated = text.replacen(r#""have":1"#, r#""have":1,"have":2"#, 1);
    assert_ne!(text, repeated);
    let read = Outcome::read(202, repeated.as_bytes());
    assert!(matches!(read, Err(ReadError::Malformed { .. })), "{read:?}");
}

#[test]
fn answers_over_the_cap_not_json_or_deeply_nested_are_refused() {
    let body = vec![b' '; MAX_ANSWER + 1];
    assert!(matches!(Outcome::read(200, &body), Err(ReadError::TooLarge { .. })));
    for body in [
        "".to_owned(),
        "<html>502 Bad Gateway</html>".to_owned(),
        "null".to_owned(),
        "[".repeat(100_000),
        format!(r#"{{"outcome":{}"#, r#"{"a":"#.repeat(50_000)),
    ] {
        for status in [200, 502] {
            let read = Outcome::read(status, body.as_bytes());
            assert!(matches!(read, Err(ReadError::Malformed { .. })), "{body:.40}");
        }
    }
}
