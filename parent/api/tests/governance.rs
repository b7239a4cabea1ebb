//! Governance bodies: what is submitted is exactly what was signed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use casemate_api::governance::{GovernanceBody, GovernanceError};
use casemate_api::{MAX_GOVERNANCE_BODY, MAX_REPLY_BODY, ReplyKind, reply};
use casemate_door::query::LiveKeyView;
use casemate_door::{KeyView, Reply, SignedReply, Submission};
use casemate_ledger::Attachment;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, MAX_POLICY, NamedSignature, SignedChange,
    SignedStatement,
};
use casemate_proto::ids::Hash32;
use casemate_proto::{
    BootId, CredentialId, GenesisId, Incarnation, KeyName, Scheme, UnixMillis, cbor,
};

fn signature() -> NamedSignature {
    NamedSignature { credential: CredentialId(Hash32::new([1; 32])), signature: [2; 64] }
}

fn change() -> SignedChange {
    SignedChange {
        envelope: ChangeEnvelope {
            genesis: GenesisId::new([3; 32]),
            incarnation: Incarnation(0),
            predecessor: Hash32::new([4; 32]),
            expires: UnixMillis(5),
            change: Change::SetPolicy { policy: Hash32::new([6; 32]) },
        },
        signatures: vec![signature()],
    }
}

fn statement() -> SignedStatement {
    SignedStatement {
        genesis: GenesisId::new([3; 32]),
        incarnation: Incarnation(0),
        at: UnixMillis(5),
        statement: FreezerStatement::Freeze { nonce: [7; 16] },
        by: signature(),
    }
}

#[test]
fn submissions_go_through_their_bodies_unchanged() {
    for submission in [
        Submission::Governance { signed: change(), attachment: None },
        Submission::Governance {
            signed: change(),
            attachment: Some(Attachment::Policy(vec![1, 2, 3])),
        },
        Submission::Statement(statement()),
    ] {
        let body = GovernanceBody::of(&submission).unwrap().to_body();
        assert_eq!(GovernanceBody::parse(&body), Ok(submission));
    }
}

#[test]
fn largest_policy_fits() {
    let attachment = Some(Attachment::Policy(vec![0; MAX_POLICY]));
    let submission = Submission::Governance { signed: change(), attachment };
    let body = GovernanceBody::of(&submission).unwrap().to_body();
    assert!(body.len() <= MAX_GOVERNANCE_BODY);
    assert_eq!(GovernanceBody::parse(&body), Ok(submission));
}

#[test]
fn bodies_that_submit_nothing_or_two_things_are_refused() {
    let change = format!("0x{}", hex::encode(cbor::encode(&change())));
    let statement = format!("0x{}", hex::encode(cbor::encode(&statement())));
    let parse = |body: String| GovernanceBody::parse(body.as_bytes());
    assert_eq!(parse("{}".to_owned()), Err(GovernanceError::NotOne));
    assert_eq!(parse(r#"{"policy":"0x00"}"#.to_owned()), Err(GovernanceError::NotOne));
    assert_eq!(
        parse(format!(r#"{{"change":"{change}","statement":"{statement}"}}"#)),
        Err(GovernanceError::NotOne)
    );
    assert_eq!(
        parse(format!(r#"{{"statement":"{statement}","policy":"0x00"}}"#)),
        Err(GovernanceError::PolicyAlone)
    );
    for malformed in [
        String::new(),
        "null".to_owned(),
        r#"["0x00"]"#.to_owned(),
        r#"{"change":7}"#.to_owned(),
        r#"{"change":"00"}"#.to_owned(),
        format!(r#"{{"change":"{change}","polcy":"0x00"}}"#),
        format!(r#"{{"change":"{change}","change":"{change}"}}"#),
        format!(r#"{{"change":"{change}"}} x"#),
    ] {
        let error = parse(malformed.clone()).unwrap_err();
        assert!(matches!(error, GovernanceError::Malformed { .. }), "{malformed:.60}: {error}");
    }
    for (field, body) in [
        ("change", r#"{"change":"0x"}"#.to_owned()),
        ("change", format!(r#"{{"change":"{change}00"}}"#)),
        ("change", format!(r#"{{"change":"{statement}"}}"#)),
        ("change", format!(r#"{{"change":"0x{}"}}"#, "00".repeat(17 * 1024))),
        ("statement", format!(r#"{{"statement":"{change}"}}"#)),
        (
            "policy",
            format!(r#"{{"change":"{change}","policy":"0x{}"}}"#, "00".repeat(MAX_POLICY + 1)),
        ),
    ] {
        match parse(body) {
            Err(GovernanceError::Field { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        GovernanceBody::parse(&vec![b' '; MAX_GOVERNANCE_BODY + 1]),
        Err(GovernanceError::TooLarge { .. })
    ));
}

fn signed_reply() -> SignedReply {
    let public_key =
        hex::decode("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap();
    let reply = Reply::Keys(vec![KeyView {
        name: KeyName::new("agent-7").unwrap(),
        scheme: Scheme::EcdsaSecp256k1,
        live: Some(LiveKeyView {
            public_key,
            chain_code: [1; 32],
            epoch: 0,
            index: 7,
            receipt: None,
            without_share: Vec::new(),
        }),
    }]);
    SignedReply { reply: cbor::encode(&reply), boot: BootId::new([2; 32]), signature: [3; 64] }
}

#[test]
fn signed_replies_go_through_their_bodies_unchanged_with_a_readable_part_beside() {
    let signed = signed_reply();
    let body = reply::body(ReplyKind::Keys, &signed).unwrap();
    assert_eq!(reply::read(&body), Ok(signed));
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    // the address of the private key 1
    assert_eq!(json["keys"][0]["live"]["address"], "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
}

#[test]
fn reply_to_another_query_or_no_reply_at_all_is_not_shown() {
    let mut signed = signed_reply();
    assert!(reply::body(ReplyKind::Cluster, &signed).is_err());
    signed.reply.push(0);
    assert!(reply::body(ReplyKind::Keys, &signed).is_err());
}

#[test]
fn malformed_and_oversized_replies_are_refused() {
    for body in
        ["", "{}", r#"{"signed_reply":"0xa0"}"#, r#"{"signed_reply":"0xa0","signed_reply":"0xa0"}"#]
    {
        assert!(reply::read(body.as_bytes()).is_err(), "{body}");
    }
    assert!(reply::read(&vec![b' '; MAX_REPLY_BODY + 1]).is_err());
}
