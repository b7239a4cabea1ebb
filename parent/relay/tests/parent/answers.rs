//! What the enclave answers, as HTTP has it.

use casemate_api::{Outcome, ReplyKind, reply, route};
use casemate_audit::{InclusionReceipt, Record, RecordFields};
use casemate_door::{
    Answer, FromEnclave, PendingAnswer, Query, Receipt, Reply, Signed, SignedDenial, SignedReply,
    Submission,
};
use casemate_ledger::entry::ApprovalProof;
use casemate_ledger::{Attachment, Verdict};
use casemate_proto::ids::Hash32;
use casemate_proto::webauthn::Assertion;
use casemate_proto::{BootId, Denial, DenialCode, Millis, RequestId, UnixMillis, cbor};

use crate::support::{JSON, Stage, change, credential, soon, stamp};

fn inclusion(index: u64) -> InclusionReceipt {
    let record = Record::new(RecordFields {
        index,
        time: UnixMillis(1),
        kind: "signed".to_owned(),
        entry: vec![1],
        verdict: vec![2],
        policy: None,
        counters: Vec::new(),
        previous_root: Hash32::new([0; 32]),
    })
    .unwrap();
    InclusionReceipt {
        leaf: record.leaf_bytes().to_vec(),
        proof: vec![Hash32::new([1; 32])],
        checkpoint: "note".to_owned(),
    }
}

fn signed() -> Answer {
    Answer::Signed(Box::new(Signed {
        digest: [9; 32],
        signature: vec![1; 64],
        public_key: vec![2; 32],
        raw_transaction: None,
        receipt: Receipt { allowed: inclusion(5), signed: inclusion(6) },
    }))
}

fn denial(code: DenialCode) -> Box<SignedDenial> {
    Box::new(SignedDenial {
        credential: Some(credential()),
        subject: Hash32::new([4; 32]),
        denial: Denial::new(code, "why"),
        at: UnixMillis(1),
        index: None,
        boot: BootId::new([5; 32]),
        signature: [6; 64],
    })
}

fn outcomes() -> Vec<(u16, Answer)> {
    let pending = PendingAnswer {
        document: Hash32::new([8; 32]),
        grant: None,
        have: 0,
        need: 2,
        not_before: None,
        expires: UnixMillis(9),
    };
    vec![
        (200, signed()),
        (200, Answer::Accepted { index: 4, verdict: Verdict::accepted() }),
        (200, Answer::Recorded { index: 4, signed_index: 5 }),
        (202, Answer::Pending(pending)),
        (403, Answer::Denied(denial(DenialCode::LimitExceeded))),
        (400, Answer::Denied(denial(DenialCode::Malformed))),
        (409, Answer::Denied(denial(DenialCode::RequestIdReused))),
        (413, Answer::Denied(denial(DenialCode::TooLarge))),
        (429, Answer::Denied(denial(DenialCode::RateLimited))),
        (410, Answer::Expired(denial(DenialCode::Expired))),
        (404, Answer::Unknown),
        (503, Answer::Busy { retry_after: Millis(1_001) }),
    ]
}

#[tokio::test]
async fn every_outcome_of_a_request_has_its_status_and_reads_back_unchanged() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    for (status, answer) in outcomes() {
        let enclave = async {
            let (ticket, submission) = control.submitted().await;
            let expected = Submission::Request { stamp: stamp(), body: b"{\"a\": 1}".to_vec() };
            assert_eq!(submission, expected);
            control.say(&FromEnclave::Answer { ticket, answer: answer.clone() }).await;
        };
        let (response, ()) = tokio::join!(parent.request("", b"{\"a\": 1}"), enclave);
        assert_eq!(response.status, status, "{answer:?}");
        assert_eq!(response.headers["cache-control"], "no-store");
        if let Answer::Busy { .. } = answer {
            assert_eq!(response.headers["retry-after"], "2");
        }
        if status >= 400 {
            response.code();
        }
        assert_eq!(Outcome::read(status, &response.body), Ok(Outcome::Answer(answer)));
    }
    assert!(parent.metric("casemate_answers_total{outcome=\"denied\"} 5").await);
}

#[tokio::test]
async fn state_of_a_request_is_asked_by_its_id_and_credential() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let id = RequestId::new([7; 16]);
    let enclave = async {
        let (ticket, submission) = control.submitted().await;
        let expected = Submission::Query { credential: credential(), request_id: id };
        assert_eq!(submission, expected);
        control.say(&FromEnclave::Answer { ticket, answer: Answer::Unknown }).await;
    };
    let path = route::request(&id, &credential());
    let (response, ()) = tokio::join!(parent.get(&path), enclave);
    assert_eq!((response.status, response.code().as_str()), (404, "unknown_request"));
}

#[tokio::test]
async fn approvals_by_stamp_and_by_passkey_reach_the_enclave() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let assertion = Assertion {
        credential: credential(),
        authenticator_data: vec![1; 37],
        client_data: b"{}".to_vec(),
        signature: vec![2; 70],
    };
    for proof in [
        ApprovalProof::Stamp(stamp()),
        ApprovalProof::Passkey { credential: credential(), assertion },
    ] {
        let (name, value) = casemate_api::header::of_approval(&proof);
        let enclave = async {
            let (ticket, submission) = control.submitted().await;
            let expected = Submission::Approval { body: b"{}".to_vec(), proof: proof.clone() };
            assert_eq!(submission, expected);
            control.say(&FromEnclave::Answer { ticket, answer: Answer::Unknown }).await;
        };
        let headers = [JSON, (name, value.as_str())];
        let (response, ()) = tokio::join!(parent.post("/v1/approvals", &headers, b"{}"), enclave);
        assert_eq!(response.status, 404);
    }
}

#[tokio::test]
async fn governance_reaches_the_enclave_with_its_policy() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let submission = Submission::Governance {
        signed: change(),
        attachment: Some(Attachment::Policy(vec![7; 300_000])),
    };
    let body = casemate_api::GovernanceBody::of(&submission).unwrap().to_body();
    let enclave = async {
        let (ticket, heard) = control.submitted().await;
        assert_eq!(heard, submission);
        let answer = Answer::Accepted { index: 3, verdict: Verdict::accepted() };
        control.say(&FromEnclave::Answer { ticket, answer }).await;
    };
    let (response, ()) = tokio::join!(parent.post("/v1/governance", &[JSON], &body), enclave);
    assert_eq!((response.status, &response.json()["index"]), (200, &3.into()));
}

#[tokio::test]
async fn replies_in_the_boots_hand_reach_the_asker_unchanged() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let nonce = [8; 32];
    for (kind, query, said) in [
        (ReplyKind::Keys, Query::Keys { nonce }, Reply::Keys(Vec::new())),
        (
            ReplyKind::PendingRequests,
            Query::PendingRequests { nonce },
            Reply::PendingRequests(Vec::new()),
        ),
    ] {
        let signed = SignedReply {
            reply: cbor::encode(&said),
            boot: BootId::new([2; 32]),
            signature: [3; 64],
        };
        let enclave = async {
            let (ticket, heard) = control.asked().await;
            assert_eq!(heard, query);
            control.say(&FromEnclave::Reply { ticket, reply: Some(signed.clone()) }).await;
        };
        let path = route::with_nonce(kind.route(), &nonce);
        let (response, ()) = tokio::join!(parent.get(&path), enclave);
        assert_eq!(response.status, 200);
        assert_eq!(reply::read(&response.body), Ok(signed));
    }
}

#[tokio::test]
async fn enclave_that_is_no_member_yet_is_not_ready_to_reply() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let enclave = async {
        let (ticket, _) = control.asked().await;
        control.say(&FromEnclave::Reply { ticket, reply: None }).await;
    };
    let path = route::with_nonce(route::ATTESTATION, &[1; 32]);
    let (response, ()) = tokio::join!(parent.get(&path), enclave);
    assert_eq!((response.status, response.code().as_str()), (503, "not_ready"));
    assert_eq!(response.headers["retry-after"], "1");
}

#[tokio::test]
async fn reply_to_another_query_is_not_shown() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let enclave = async {
        let (ticket, _) = control.asked().await;
        let reply = SignedReply {
            reply: cbor::encode(&Reply::Keys(Vec::new())),
            boot: BootId::new([2; 32]),
            signature: [3; 64],
        };
        control.say(&FromEnclave::Reply { ticket, reply: Some(reply) }).await;
    };
    let path = route::with_nonce(route::CLUSTER, &[1; 32]);
    let (response, ()) = tokio::join!(parent.get(&path), enclave);
    assert_eq!((response.status, response.code().as_str()), (500, "internal"));
}

#[tokio::test]
async fn answer_with_a_receipt_for_no_record_is_not_shown() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let mut answer = signed();
    if let Answer::Signed(signed) = &mut answer {
        signed.receipt.signed.leaf = vec![0];
    }
    let enclave = async {
        let (ticket, _) = control.submitted().await;
        control.say(&FromEnclave::Answer { ticket, answer: answer.clone() }).await;
    };
    let (response, ()) = tokio::join!(parent.request("", b"{}"), enclave);
    assert_eq!((response.status, response.code().as_str()), (500, "internal"));
}

#[tokio::test]
async fn malformed_requests_are_problems_and_never_reach_the_enclave() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let good = stamp().to_header();
    let stamped = ("casemate-stamp", good.as_str());
    let passkey = ("casemate-passkey", "v1.x.y.z.w");
    let text = ("content-type", "text/plain");
    let post = async |path: &str, headers: &[(&str, &str)]| {
        let response = parent.post(path, headers, b"{}").await;
        (response.status, response.code())
    };
    let requests = "/v1/requests";
    assert_eq!(post(requests, &[JSON]).await, (400, "bad_header".to_owned()));
    assert_eq!(post(requests, &[JSON, stamped, stamped]).await, (400, "bad_header".to_owned()));
    for bad in ["", "v1", "v2.a.b.c.d.e", "v1.a.b.c.d.e", &format!("{good}x")] {
        let headers = [JSON, ("casemate-stamp", bad)];
        assert_eq!(post(requests, &headers).await, (400, "bad_header".to_owned()), "{bad}");
    }
    assert_eq!(post(requests, &[stamped]).await, (415, "unsupported_media_type".to_owned()));
    assert_eq!(post(requests, &[text, stamped]).await, (415, "unsupported_media_type".to_owned()));
    for query in ["?wait=61", "?wait=-1", "?wait=", "?wait=1&wait=1", "?weit=1", "?wait=%ff", "?x"]
    {
        let path = format!("{requests}{query}");
        assert_eq!(post(&path, &[JSON, stamped]).await, (400, "bad_query".to_owned()), "{query}");
    }
    let approvals = "/v1/approvals";
    assert_eq!(post(approvals, &[JSON]).await, (400, "bad_header".to_owned()));
    assert_eq!(post(approvals, &[JSON, stamped, passkey]).await, (400, "bad_header".to_owned()));
    assert_eq!(post(approvals, &[JSON, passkey]).await, (400, "bad_header".to_owned()));
    assert_eq!(post("/v1/governance", &[JSON]).await, (400, "bad_body".to_owned()));
    for (path, code) in [
        ("/v1/requests/0x07?credential=0x01", "bad_query"),
        (&format!("/v1/requests/{}", RequestId::new([7; 16])), "bad_query"),
        (&format!("/v1/requests/{}?credential=0x01", RequestId::new([7; 16])), "bad_query"),
        ("/v1/requests/%ff?credential=0x01", "bad_query"),
        ("/v1/requests", "bad_query"),
        ("/v1/keys?nonce=0x00", "bad_query"),
        ("/v1/keys?nonce=", "bad_query"),
        (&format!("/v1/cluster?nonce=0x{}", "AB".repeat(32)), "bad_query"),
    ] {
        let response = parent.get(path).await;
        assert_eq!((response.status, response.code().as_str()), (400, code), "{path}");
    }
    for (path, status, code) in [
        ("/", 404, "not_found"),
        ("/v1", 404, "not_found"),
        ("/v1/requests/x/y", 404, "not_found"),
        ("/v2/requests", 404, "not_found"),
        ("/v1/approvals", 405, "method_not_allowed"),
    ] {
        let response = parent.get(path).await;
        assert_eq!((response.status, response.code().as_str()), (status, code), "{path}");
    }
    // the enclave has heard nothing of all that: the next thing it hears is this
    let (response, (ticket, _)) = tokio::join!(parent.request("?wait=0", b"last"), async {
        let heard = control.submitted().await;
        let Submission::Request { body, .. } = &heard.1 else { panic!("{heard:?}") };
        assert_eq!(body, b"last");
        heard
    });
    let _ = ticket;
    assert_eq!((response.status, response.code().as_str()), (504, "working"));
}

#[tokio::test]
async fn request_that_takes_longer_than_the_client_waits_is_still_working() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let (response, first) = tokio::join!(parent.request("?wait=0", b"{}"), control.submitted());
    assert_eq!((response.status, response.code().as_str()), (504, "working"));
    // the answer to the first comes late and is given to nobody, least of all to the second
    let second = async {
        let second = control.submitted().await;
        assert_ne!(second.0, first.0);
        control.say(&FromEnclave::Answer { ticket: first.0, answer: Answer::Unknown }).await;
        control.say(&FromEnclave::Answer { ticket: second.0, answer: signed() }).await;
    };
    let (response, ()) = tokio::join!(parent.request("", b"{}"), second);
    assert_eq!(response.status, 200);
    assert!(soon(parent.metric("casemate_late_answers_total 1")).await);
}
