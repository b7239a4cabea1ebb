//! A client against nodes that are not what they should be, and hosts that speak HTTP badly on purpose.
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

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use casemate_attestation_verify::{Refusal, TrustRoot, Unmet};
use casemate_client::{
    Client, ClientError, Cluster, ClusterError, Endpoint, KeyFault, KeyState, NodeFault,
};
use casemate_door::Reply;
use casemate_proto::KeyName;
use casemate_proto::manifest::Measurement;
use casemate_sim::{EnclaveSpec, SimHost};
use kit::{Fake, KEY, REGIONS};

/// What was wrong with the node at `at`.
async fn fault_at(client: &Client, at: usize) -> NodeFault {
    match client.attest(at, true).await {
        Err(ClientError::Node(failure)) => failure.fault,
        other => panic!("{other:?}"),
    }
}

fn unmet(fault: &NodeFault) -> &Unmet {
    match fault {
        NodeFault::Attestation(refusal) => match &**refusal {
            Refusal::Unmet(unmet) => unmet,
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

fn spec(number: u32, region: &str, pcr: u8) -> EnclaveSpec {
    EnclaveSpec::numbered(number, region, [[pcr; 48], [pcr + 1; 48], [pcr + 2; 48]])
}

#[tokio::test]
async fn an_honest_node_is_attested_over_a_nonce_of_the_clients_own() {
    let fake = Fake::start();
    let client = fake.client();
    let boot = client.attest(0, true).await.unwrap();
    assert_eq!((boot.node().as_str(), boot.region()), (REGIONS[0], REGIONS[0]));
    assert_ne!(client.attest(0, true).await.unwrap().document(), boot.document());
}

#[tokio::test]
async fn i9_a_node_of_another_image_region_or_role_is_refused() {
    let fake = Fake::start();
    let client = fake.client();
    let start = |spec: EnclaveSpec| fake.with(|world| Arc::new(world.host.start(spec)));
    for (nsm, what) in [
        (start(spec(0, REGIONS[0], 9)), "image"),
        (start(spec(0, "us-west-2", 1)), "region"),
        (start(spec(7, REGIONS[0], 1)), "role"),
        (start(EnclaveSpec::numbered(0, REGIONS[0], [[0; 48]; 3])), "debug"),
    ] {
        fake.node(REGIONS[0], |node| node.nsm = nsm);
        let fault = fault_at(&client, 0).await;
        let fits = match unmet(&fault) {
            Unmet::Measurement { .. } => what == "image",
            Unmet::Region { .. } => what == "region",
            Unmet::Pcr { index: 3, .. } => what == "role",
            Unmet::Debug { .. } => what == "debug",
            _ => false,
        };
        assert!(fits, "{what}: {fault}");
    }
}

#[tokio::test]
async fn i9_a_node_under_another_root_is_refused() {
    let fake = Fake::start();
    let client = fake.client();
    let host = SimHost::new().unwrap();
    fake.node(REGIONS[0], |node| node.nsm = Arc::new(host.start(spec(0, REGIONS[0], 1))));
    let fault = fault_at(&client, 0).await;
    assert!(matches!(fault, NodeFault::Attestation(_)), "{fault}");
}

#[tokio::test]
async fn i9_an_attestation_that_was_recorded_earlier_is_refused() {
    let fake = Fake::start();
    let client = fake.client();
    let old = fake.with(|world| world.attested(&world.nodes[&kit::name(REGIONS[0])], &[1; 32]));
    fake.lie_in_replies(move |_, reply| match reply {
        Reply::Attested(_) => Reply::Attested(Box::new(old.clone())),
        other => other,
    });
    let fault = fault_at(&client, 0).await;
    assert!(matches!(unmet(&fault), Unmet::Field { .. }), "{fault}");
}

#[tokio::test]
async fn i9_a_document_that_binds_other_keys_is_refused() {
    let fake = Fake::start();
    let client = fake.client();
    // the host's own key in an honest boot's record
    let key = ed25519_dalek::SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes();
    fake.lie_in_replies(move |_, reply| match reply {
        Reply::Attested(mut record) => {
            record.key = key;
            Reply::Attested(record)
        }
        other => other,
    });
    let fault = fault_at(&client, 0).await;
    assert!(matches!(unmet(&fault), Unmet::Field { .. }), "{fault}");
}

#[tokio::test]
async fn a_node_in_the_place_of_another_is_refused() {
    let fake = Fake::start();
    let client = fake.client();
    fake.with(|world| {
        let (a, b) = (world.nodes[&kit::name(REGIONS[0])].address, kit::name(REGIONS[1]));
        world.nodes.get_mut(&b).unwrap().address = a;
    });
    // a cluster file with two addresses swapped
    let addresses: Vec<_> = client.cluster().endpoints().to_vec();
    let swapped = vec![
        Endpoint::new(Some(kit::name(REGIONS[0])), addresses[1].url().as_str()).unwrap(),
        Endpoint::new(Some(kit::name(REGIONS[1])), addresses[0].url().as_str()).unwrap(),
    ];
    let root = fake.with(|world| TrustRoot::from_pem(&world.root_pem).unwrap());
    let cluster = Cluster::new(client.genesis_id(), root, swapped).unwrap();
    let client = Client::new(cluster, kit::settings()).unwrap();
    assert!(matches!(fault_at(&client, 0).await, NodeFault::OtherNode { .. }));
}

#[tokio::test]
async fn a_node_without_a_name_is_known_by_its_attestation() {
    let fake = Fake::start();
    let url = fake.with(|world| format!("http://{}", world.nodes[&kit::name(REGIONS[2])].address));
    let root = fake.with(|world| TrustRoot::from_pem(&world.root_pem).unwrap());
    let id = fake.with(|world| world.id);
    let cluster = Cluster::new(id, root, vec![Endpoint::new(None, &url).unwrap()]).unwrap();
    let client = Client::new(cluster, kit::settings()).unwrap();
    assert_eq!(client.attest(0, false).await.unwrap().node().as_str(), REGIONS[2]);
    let error = client.belief(true).await.unwrap_err();
    assert!(matches!(error, ClientError::TooFewNodes { have: 1, need: 2, .. }), "{error}");
}

#[tokio::test]
async fn another_genesis_is_refused_and_nothing_is_asked_of_it() {
    let (fake, other) = (Fake::start(), Fake::start());
    let root = fake.with(|world| TrustRoot::from_pem(&world.root_pem).unwrap());
    let id = fake.with(|world| world.id);
    let endpoints = other.cluster().endpoints().to_vec();
    let client = Client::new(Cluster::new(id, root, endpoints).unwrap(), kit::settings()).unwrap();
    let ClientError::NoGenesis { expected, failures } = client.belief(true).await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!(expected, id);
    assert!(failures.iter().all(|f| matches!(f.fault, NodeFault::OtherCluster { .. })));
    assert!(other.sent().is_empty());
}

#[tokio::test]
async fn a_genesis_under_another_root_than_the_pinned_one_is_refused() {
    let fake = Fake::start();
    let host = SimHost::new().unwrap();
    let root = TrustRoot::from_pem(&host.root_pem().unwrap()).unwrap();
    let cluster = fake.cluster();
    let cluster = Cluster::new(cluster.genesis_id(), root, cluster.endpoints().to_vec()).unwrap();
    let client = Client::new(cluster, kit::settings()).unwrap();
    let error = client.belief(true).await.unwrap_err();
    assert!(matches!(error, ClientError::Cluster(ClusterError::OtherRoot { .. })), "{error}");
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let fake = Fake::start();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let location = format!("location: http://{}/\r\n", elsewhere.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        fake.take_over(move |_, stream| {
            kit::respond(stream, status, &location, b"");
            true
        });
        let ClientError::NoGenesis { failures, .. } = fake.client().belief(true).await.unwrap_err()
        else {
            panic!()
        };
        assert!(failures.iter().all(|f| f.fault == NodeFault::Redirect { status }));
    }
    assert!(elsewhere.accept().is_err());
}

#[tokio::test]
async fn an_endless_body_is_cut_off_at_its_cap() {
    let fake = Fake::start();
    let written = Arc::new(AtomicUsize::new(0));
    for head in ["content-length: 99999999999\r\n\r\n", "\r\n"] {
        let counter = Arc::clone(&written);
        fake.take_over(move |_, stream| {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes());
            while stream.write_all(&[b' '; 65536]).is_ok() {
                counter.fetch_add(65536, Ordering::Relaxed);
            }
            true
        });
        let ClientError::NoGenesis { failures, .. } = fake.client().belief(true).await.unwrap_err()
        else {
            panic!()
        };
        assert!(failures.iter().all(|f| matches!(f.fault, NodeFault::TooLarge { .. })));
    }
    // what the sockets' buffers hold, and no more than that beside the cap
    assert!(written.load(Ordering::Relaxed) < 64 << 20);
}

#[tokio::test]
async fn a_slow_body_is_given_up_in_time() {
    let fake = Fake::start();
    fake.take_over(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    });
    let started = Instant::now();
    let settings =
        casemate_client::Settings { reply: Duration::from_millis(200), ..kit::settings() };
    let client = Client::new(fake.cluster(), settings).unwrap();
    let ClientError::NoGenesis { failures, .. } = client.belief(true).await.unwrap_err() else {
        panic!()
    };
    assert!(failures.iter().all(|f| matches!(f.fault, NodeFault::TimedOut { .. })));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn i13_a_key_is_proved_by_its_record() {
    let fake = Fake::start();
    let keys = fake.client().keys().await.unwrap();
    let [KeyState::Live(key)] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!(key.public_key(), fake.with(|world| world.public_key()));
    assert!(key.address().is_some());
}

fn other_key() -> Vec<u8> {
    let key = k256::ecdsa::SigningKey::from_slice(&[8; 32]).unwrap();
    key.verifying_key().to_encoded_point(true).as_bytes().to_vec()
}

#[tokio::test]
async fn i13_a_key_with_another_keys_proof_is_refused() {
    let fake = Fake::start();
    fake.lie_in_replies(|_, reply| match reply {
        Reply::Keys(mut keys) => {
            keys[0].live.as_mut().unwrap().public_key = other_key();
            Reply::Keys(keys)
        }
        other => other,
    });
    let ClientError::TooFewNodes { failures, .. } = fake.client().keys().await.unwrap_err() else {
        panic!()
    };
    assert!(
        failures
            .iter()
            .all(|f| matches!(f.fault, NodeFault::Key { fault: KeyFault::OtherRecord, .. }))
    );
}

#[tokio::test]
async fn i13_a_key_that_one_node_shows_without_proof_is_not_believed() {
    let fake = Fake::start();
    fake.node(REGIONS[0], |node| {
        node.replies = Some(Arc::new(|_, reply| match reply {
            Reply::Keys(mut keys) => {
                let mut false_one = keys[0].clone();
                false_one.name = KeyName::new("deposit").unwrap();
                let live = false_one.live.as_mut().unwrap();
                (live.public_key, live.receipt) = (other_key(), None);
                keys.push(false_one);
                Reply::Keys(keys)
            }
            other => other,
        }));
    });
    let client = fake.client();
    let name = KeyName::new("deposit").unwrap();
    // two honest lists may come first, which do not have it at all
    assert!(client.key(&name).await.is_err());
    let keys = client.keys().await.unwrap();
    assert!(!keys.iter().any(|k| *k.name() == name && matches!(k, KeyState::Live(_))), "{keys:?}");
}

#[tokio::test]
async fn i13_a_key_whose_record_is_no_longer_at_hand_is_believed_of_t_nodes() {
    let fake = Fake::start();
    fake.lie_in_replies(|_, reply| match reply {
        Reply::Keys(mut keys) => {
            keys[0].live.as_mut().unwrap().receipt = None;
            Reply::Keys(keys)
        }
        other => other,
    });
    let keys = fake.client().keys().await.unwrap();
    assert!(matches!(keys.as_slice(), [KeyState::Live(_)]), "{keys:?}");
}

#[tokio::test]
async fn i13_a_key_that_was_pinned_never_changes() {
    let fake = Fake::start();
    let client = fake.client();
    let name = KeyName::new(KEY).unwrap();
    let pinned = client.key(&name).await.unwrap();
    // even if t nodes are broken and prove it
    fake.with(|world| {
        world.key = k256::ecdsa::SigningKey::from_slice(&[8; 32]).unwrap();
        let live = world.live_entry();
        world.key_live = world.append(
            casemate_ledger::EntryBody::KeyLive(live),
            casemate_ledger::Verdict::accepted(),
        );
    });
    let error = client.keys().await.unwrap_err();
    assert!(matches!(error, ClientError::KeyChanged { .. }), "{error}");
    assert_eq!(client.key(&name).await.unwrap(), pinned);
}

#[tokio::test]
async fn a_list_that_has_a_key_twice_is_refused() {
    let fake = Fake::start();
    fake.lie_in_replies(|_, reply| match reply {
        Reply::Keys(mut keys) => {
            keys[0].live.as_mut().unwrap().receipt = None;
            let again = keys[0].clone();
            keys.push(again);
            Reply::Keys(keys)
        }
        other => other,
    });
    let ClientError::TooFewNodes { failures, .. } = fake.client().keys().await.unwrap_err() else {
        panic!()
    };
    assert!(
        failures.iter().all(|f| matches!(f.fault, NodeFault::Key { fault: KeyFault::Twice, .. }))
    );
}

#[tokio::test]
async fn a_reply_to_another_question_or_nonce_is_refused() {
    let fake = Fake::start();
    let client = fake.client();
    for at in 0..3 {
        client.attest(at, false).await.unwrap();
    }
    // a genuine reply of the right boot, to another nonce
    let recorded = Arc::new(fake.with(|world| {
        let reply =
            |node: &kit::Node| world.reply(node, casemate_api::ReplyKind::Cluster, &[1; 32]);
        world.nodes.values().map(reply).collect::<Vec<_>>()
    }));
    let turn = AtomicUsize::new(0);
    fake.take_over(move |asked, stream| {
        let cluster = asked.path.starts_with("/v1/cluster");
        if cluster {
            let at = turn.fetch_add(1, Ordering::Relaxed) % recorded.len();
            kit::respond(stream, 200, "", &recorded[at]);
        }
        cluster
    });
    let ClientError::TooFewNodes { failures, .. } = client.belief(true).await.unwrap_err() else {
        panic!()
    };
    assert!(failures.iter().all(|f| f.fault == NodeFault::NotTheBoot), "{failures:?}");
}

#[tokio::test]
async fn views_that_contradict_each_other_are_not_believed() {
    let fake = Fake::start();
    let turn = Arc::new(AtomicUsize::new(0));
    fake.lie_in_replies(move |_, reply| match reply {
        Reply::Cluster(mut view) => {
            // each node calls other boots current
            for boot in &mut view.boots {
                let at = u8::try_from(turn.fetch_add(1, Ordering::Relaxed) % 200).unwrap();
                boot.key =
                    ed25519_dalek::SigningKey::from_bytes(&[at; 32]).verifying_key().to_bytes();
            }
            Reply::Cluster(view)
        }
        other => other,
    });
    let error = fake.client().belief(true).await.unwrap_err();
    assert!(matches!(error, ClientError::Disagreement { .. }), "{error}");
}

#[tokio::test]
async fn one_node_that_lies_about_the_others_is_outvoted() {
    let fake = Fake::start();
    fake.node(REGIONS[0], |node| {
        node.replies = Some(Arc::new(|_, reply| match reply {
            Reply::Cluster(mut view) => {
                view.boots.clear();
                view.images = vec![Measurement { pcr0: [9; 48], pcr1: [9; 48], pcr2: [9; 48] }];
                view.change_head = casemate_proto::Hash32::new([9; 32]);
                view.now = casemate_proto::UnixMillis(0);
                Reply::Cluster(view)
            }
            other => other,
        }));
    });
    let client = fake.client();
    let (belief, _) = client.survey(Duration::from_secs(2)).await.unwrap();
    assert_eq!(belief.views().len(), 3);
    assert_eq!(belief.boots().count(), 3);
    assert_eq!(belief.change_head(), Some(fake.with(|world| world.change_head)));
    assert_eq!(belief.images(), fake.with(|world| world.images.clone()));
    let time = client.cluster_time().await.unwrap();
    assert!(time.0.abs_diff(kit::now().0) < 2_000);
}

#[tokio::test]
async fn an_image_that_t_nodes_no_longer_accept_is_refused_from_then_on() {
    let fake = Fake::start();
    let client = fake.client();
    client.belief(true).await.unwrap();
    fake.with(|world| {
        world.images = vec![Measurement { pcr0: [9; 48], pcr1: [9; 48], pcr2: [9; 48] }];
    });
    client.belief(true).await.unwrap();
    let fault = fault_at(&client, 0).await;
    assert!(matches!(unmet(&fault), Unmet::Measurement { .. }), "{fault}");
}
