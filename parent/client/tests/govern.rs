//! Changes, statements and approvals: a host's word that one was recorded, or refused, is worth nothing.
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

use std::sync::Arc;
use std::time::Duration;

use casemate_api::Rendered;
use casemate_client::credential::{random, sign_change};
use casemate_client::{Client, ClientError};
use casemate_door::Answer;
use casemate_ledger::Verdict;
use casemate_proto::governance::{Change, FreezerStatement, SignedChange};
use casemate_proto::{Denial, DenialCode, KeyName, Millis, Scheme};
use kit::{Fake, REGIONS};

const PATIENT: Duration = Duration::from_secs(20);
const IMPATIENT: Duration = Duration::from_millis(400);

async fn change(fake: &Fake, client: &Client) -> SignedChange {
    let name = KeyName::new("deposit").unwrap();
    let change = Change::CreateKey { name, scheme: Scheme::EcdsaSecp256k1 };
    let envelope = client.envelope(change, Millis(60_000)).await.unwrap();
    let signatures = vec![fake.with(|world| sign_change(&world.governor, &envelope)).unwrap()];
    SignedChange { envelope, signatures }
}

/// These nodes refuse every change, in their own hand.
fn refuse_at(fake: &Fake, nodes: &[&str]) {
    for region in nodes {
        let (inner, name) = (fake.clone(), kit::name(region));
        fake.node(region, |node| {
            node.takeover = Some(Arc::new(move |asked, stream| {
                let refuses = asked.path == "/v1/governance";
                if refuses {
                    let denial = inner.with(|world| {
                        let submission = casemate_api::GovernanceBody::parse(&asked.body).unwrap();
                        let casemate_door::Submission::Governance { signed, .. } = submission
                        else {
                            panic!()
                        };
                        let said = Denial::new(DenialCode::GovernanceRefused, "it follows another");
                        world.denial_of(&name, None, signed.envelope.id(), said)
                    });
                    let rendered = Rendered::of(&Answer::Denied(Box::new(denial))).unwrap();
                    kit::respond(stream, rendered.status, "", &rendered.body);
                }
                refuses
            }));
        });
    }
}

#[tokio::test]
async fn a_change_is_done_when_enough_nodes_show_it_and_again_does_no_harm() {
    let fake = Fake::start();
    let client = fake.client();
    let signed = change(&fake, &client).await;
    for _ in 0..2 {
        let belief = client.submit_change(&signed, None, PATIENT).await.unwrap();
        assert_eq!(belief.change_head(), Some(signed.envelope.id()));
    }
    assert_eq!(fake.with(|world| world.made_keys.len()), 1);
}

#[tokio::test]
async fn one_node_that_is_behind_and_refuses_settles_no_change() {
    let fake = Fake::start();
    let client = fake.client();
    refuse_at(&fake, &REGIONS[..1]);
    for _ in 0..3 {
        let signed = change(&fake, &client).await;
        client.submit_change(&signed, None, PATIENT).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_that_enough_nodes_refuse_is_refused() {
    let fake = Fake::start();
    let client = fake.client();
    refuse_at(&fake, &REGIONS);
    let signed = change(&fake, &client).await;
    let error = client.submit_change(&signed, None, PATIENT).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(_)), "{error}");
    assert_eq!(error.denial_code(), Some(DenialCode::GovernanceRefused));
}

#[tokio::test]
async fn a_host_that_only_says_recorded_is_not_believed() {
    let fake = Fake::start();
    let client = fake.client();
    fake.take_over(|asked, stream| {
        let swallows = asked.path == "/v1/governance";
        if swallows {
            let answer = Answer::Accepted { index: 7, verdict: Verdict::accepted() };
            let rendered = Rendered::of(&answer).unwrap();
            kit::respond(stream, rendered.status, "", &rendered.body);
        }
        swallows
    });
    let signed = change(&fake, &client).await;
    let error = client.submit_change(&signed, None, IMPATIENT).await.unwrap_err();
    assert!(matches!(error, ClientError::NotSeen { .. }), "{error}");
    let statement = FreezerStatement::Freeze { nonce: random() };
    let governor = fake.with(|world| world.governor.clone());
    let freeze = client.statement(&governor, statement).await.unwrap();
    let error = client.submit_statement(&freeze, IMPATIENT).await.unwrap_err();
    assert!(matches!(error, ClientError::NotSeen { .. }), "{error}");
}

#[tokio::test]
async fn one_host_that_swallows_changes_does_not_keep_them_out() {
    let fake = Fake::start();
    let client = fake.client();
    fake.node(REGIONS[0], |node| {
        node.takeover = Some(Arc::new(|asked, stream| {
            let swallows = asked.path == "/v1/governance";
            if swallows {
                let answer = Answer::Accepted { index: 7, verdict: Verdict::accepted() };
                let rendered = Rendered::of(&answer).unwrap();
                kit::respond(stream, rendered.status, "", &rendered.body);
            }
            swallows
        }));
    });
    // whichever node comes first in turn
    for _ in 0..3 {
        let signed = change(&fake, &client).await;
        client.submit_change(&signed, None, PATIENT).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_without_a_quorum_or_for_another_cluster_is_not_sent() {
    let (fake, other) = (Fake::start(), Fake::start());
    let client = fake.client();
    let mut signed = change(&fake, &client).await;
    let foreign = change(&other, &other.client()).await;
    signed.signatures.clear();
    for bad in [&signed, &foreign] {
        let error = client.submit_change(bad, None, PATIENT).await.unwrap_err();
        assert!(matches!(error, ClientError::Change { .. }), "{error}");
    }
    assert!(fake.with(|world| world.made_keys.is_empty()));
}

#[tokio::test]
async fn a_freeze_reaches_every_node_that_is_there() {
    let fake = Fake::start();
    let client = fake.client();
    let governor = fake.with(|world| world.governor.clone());
    fake.node(REGIONS[1], |node| node.takeover = Some(Arc::new(|_, _| true)));
    let statement = FreezerStatement::Freeze { nonce: random() };
    let freeze = client.statement(&governor, statement).await.unwrap();
    let belief = client.submit_statement(&freeze, PATIENT).await.unwrap();
    let shows = |given: &&casemate_client::GivenView| {
        given.view.freezes.iter().any(|known| known.id == freeze.id())
    };
    assert!(belief.views().iter().filter(shows).count() >= 2);
}
