//! The control connection: configuration, tickets, and what happens when it breaks.

use casemate_door::frame::Phase;
use casemate_door::{Answer, FromEnclave, Reply, SignedReply, Ticket};
use casemate_proto::manifest::GenesisRecord;
use casemate_proto::{BootId, Millis, cbor};
use casemate_relay::Parent;

use crate::support::{
    FakeEnclave, Running, Stage, config, genesis, manifest, member, name, request_bytes, soon,
    stamp, until,
};

#[tokio::test]
async fn enclave_is_configured_and_given_the_genesis_once_it_is_known() {
    let Stage { parent, mut control, mut enclave, folder } = Stage::new().await;
    assert_eq!(control.configuration.node, name("a"));
    assert_eq!(control.configuration.manifest, cbor::encode(&manifest()));
    assert_eq!(control.configuration.triple_stock, Some(4));
    assert_eq!(control.configuration.round_trip_ms, Some(20));
    assert_eq!(control.configuration.genesis, None);
    assert_eq!(parent.get("/v1/genesis").await.status, 503);

    let record = cbor::encode(&genesis(&manifest(), 1));
    control.say(&FromEnclave::Genesis { record: record.clone() }).await;
    until(async || parent.get("/v1/genesis").await.status == 200).await;
    let shown = parent.get("/v1/genesis").await.json();
    assert_eq!(shown["genesis_id"], genesis(&manifest(), 1).id().to_hex());
    assert_eq!(shown["record"], format!("0x{}", hex::encode(&record)));
    let file = parent.data.join("genesis.cbor");
    until(async || file.exists()).await;
    assert_eq!(std::fs::read(&file).unwrap(), record);

    // on the next connection of this parent, and of the next one
    drop(control);
    let control = enclave.control().await;
    assert_eq!(control.configuration.genesis.as_deref(), Some(record.as_slice()));
    drop(control);
    parent.kill().await;
    let _parent = Running::start(config(folder.path())).await;
    let control = enclave.control().await;
    assert_eq!(control.configuration.genesis, Some(record));
}

#[tokio::test]
async fn enclave_of_another_cluster_is_refused_and_the_folder_keeps_its_own() {
    let Stage { parent, mut control, mut enclave, folder: _folder } = Stage::new().await;
    let own = cbor::encode(&genesis(&manifest(), 1));
    control.say(&FromEnclave::Genesis { record: own.clone() }).await;
    let file = parent.data.join("genesis.cbor");
    until(async || file.exists()).await;
    // the same again is nothing new
    control.say(&FromEnclave::Genesis { record: own.clone() }).await;
    let other = cbor::encode(&genesis(&manifest(), 50));
    control.say(&FromEnclave::Genesis { record: other }).await;
    assert!(control.is_closed().await);
    let control = enclave.control().await;
    assert_eq!(control.configuration.genesis, Some(own.clone()));
    assert_eq!(std::fs::read(&file).unwrap(), own);
}

#[tokio::test]
async fn enclave_of_another_manifest_is_refused() {
    let Stage { parent, mut control, mut enclave, folder: _folder } = Stage::new().await;
    let mut manifest = manifest();
    manifest.name = "another".to_owned();
    let record = cbor::encode(&genesis(&manifest, 1));
    control.say(&FromEnclave::Genesis { record }).await;
    assert!(control.is_closed().await);
    let control = enclave.control().await;
    assert_eq!(control.configuration.genesis, None);
    assert!(!parent.data.join("genesis.cbor").exists());
}

#[tokio::test]
async fn folder_of_another_cluster_or_with_a_broken_genesis_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/genesis.cbor");
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let mut manifest = manifest();
    manifest.name = "another".to_owned();
    let foreign: GenesisRecord = genesis(&manifest, 1);
    std::fs::write(&file, cbor::encode(&foreign)).unwrap();
    let error = Parent::bind(config(folder.path())).await.unwrap_err().to_string();
    let expected = format!(
        "`{}` is the genesis {} of another manifest than the one configured",
        file.display(),
        foreign.id()
    );
    assert_eq!(error, expected);
    std::fs::write(&file, b"junk").unwrap();
    let error = Parent::bind(config(folder.path())).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("`{}` is not a genesis record", file.display())), "{error}");
}

#[tokio::test]
async fn enclave_that_goes_away_in_the_middle_leaves_the_id_open() {
    let Stage { parent, mut control, mut enclave, folder: _folder } = Stage::new().await;
    let goes_away = async {
        control.submitted().await;
        drop(control);
    };
    let (response, ()) = tokio::join!(parent.request("", b"{}"), goes_away);
    assert_eq!((response.status, response.code().as_str()), (504, "working"));
    // the same again, at the enclave's next connection
    let mut control = enclave.member().await;
    until(async || parent.get("/readyz").await.status == 200).await;
    let answers = async {
        let (ticket, _) = control.submitted().await;
        control.say(&FromEnclave::Answer { ticket, answer: Answer::Unknown }).await;
    };
    let (response, ()) = tokio::join!(parent.request("", b"{}"), answers);
    assert_eq!(response.status, 404);
}

#[tokio::test]
async fn parent_that_is_restarted_in_the_middle_leaves_the_id_open() {
    let Stage { parent, mut control, mut enclave, folder } = Stage::new().await;
    let address = parent.http;
    let stamp = stamp().to_header();
    let bytes = request_bytes(
        "POST",
        "/v1/requests",
        &[("content-type", "application/json"), ("casemate-stamp", &stamp)],
        b"{}",
    );
    let asked = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    });
    let (first, _) = control.submitted().await;
    parent.kill().await;
    assert!(soon(asked).await.unwrap().is_empty());
    let parent = Running::start(config(folder.path())).await;
    let mut control = enclave.member().await;
    // an answer to the former parent's ticket is nobody's
    control.say(&FromEnclave::Answer { ticket: first, answer: Answer::Unknown }).await;
    until(async || parent.metric("casemate_late_answers_total 1").await).await;
    let answers = async {
        let (ticket, _) = control.submitted().await;
        let answer = Answer::Recorded { index: 1, signed_index: 2 };
        control.say(&FromEnclave::Answer { ticket, answer }).await;
    };
    let (response, ()) = tokio::join!(parent.request("", b"{}"), answers);
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn answers_go_to_whoever_asked_in_any_order() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let answers = async {
        let mut asked = Vec::new();
        for _ in 0..8 {
            let (ticket, submission) = control.submitted().await;
            let casemate_door::Submission::Request { body, .. } = submission else { panic!() };
            asked.push((ticket, body[0]));
        }
        asked.reverse();
        for (ticket, number) in asked {
            let answer = Answer::Recorded { index: number.into(), signed_index: 0 };
            control.say(&FromEnclave::Answer { ticket, answer }).await;
        }
    };
    let ask = async |number: u8| (number, parent.request("", &[number]).await);
    let asks =
        async { tokio::join!(ask(1), ask(2), ask(3), ask(4), ask(5), ask(6), ask(7), ask(8)) };
    let (all, ()) = tokio::join!(asks, answers);
    for (number, response) in <[_; 8]>::from(all) {
        assert_eq!(response.json()["index"], number);
    }
}

#[tokio::test]
async fn answers_under_unknown_or_the_wrong_kind_of_ticket_are_nobodys() {
    let Stage { parent, mut control, enclave: _enclave, folder: _folder } = Stage::new().await;
    let answers = async {
        let (ticket, _) = control.submitted().await;
        let reply = SignedReply {
            reply: cbor::encode(&Reply::Keys(Vec::new())),
            boot: BootId::new([2; 32]),
            signature: [3; 64],
        };
        let right = Answer::Recorded { index: 1, signed_index: 2 };
        for said in [
            FromEnclave::Reply { ticket, reply: Some(reply) },
            FromEnclave::Reply { ticket, reply: None },
            FromEnclave::Answer { ticket: Ticket(u64::MAX), answer: Answer::Unknown },
            FromEnclave::Answer { ticket, answer: right },
            // a second answer to the same
            FromEnclave::Answer { ticket, answer: Answer::Unknown },
        ] {
            control.say(&said).await;
        }
    };
    let (response, ()) = tokio::join!(parent.request("", b"{}"), answers);
    assert_eq!((response.status, &response.json()["outcome"]), (200, &"recorded".into()));
    until(async || parent.metric("casemate_late_answers_total 4").await).await;
}

#[tokio::test]
async fn malformed_and_oversized_frames_end_the_connection_and_a_new_one_is_made() {
    let Stage { parent, control, mut enclave, folder: _folder } = Stage::new().await;
    let mut control = control;
    for frame in [b"\0\0\0\x01\xff".as_slice(), b"\0\0\0\0", b"\xff\xff\xff\xff"] {
        control.say_bytes(frame).await;
        assert!(control.is_closed().await);
        control = enclave.control().await;
    }
    drop(control);
    let _control = enclave.member().await;
    until(async || parent.get("/readyz").await.status == 200).await;
}

#[tokio::test]
async fn ready_says_what_is_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let parent = Running::start(config(folder.path())).await;
    let failing = async || {
        let response = parent.get("/readyz").await;
        assert_eq!(response.status == 200, response.json()["ready"] == true);
        response.json()["failing"].to_string()
    };
    assert_eq!(failing().await, r#"["enclave","member","majority"]"#);
    assert_eq!(parent.get("/healthz").await.status, 200);
    let response = parent.request("", b"{}").await;
    assert_eq!((response.status, response.code().as_str()), (503, "not_ready"));

    let mut enclave = FakeEnclave::bind(folder.path());
    let mut control = enclave.control().await;
    let mut status = member();
    status.phase = Phase::Joining;
    status.majority_age = None;
    control.say(&FromEnclave::Status(Box::new(status.clone()))).await;
    until(async || failing().await == r#"["member","majority"]"#).await;
    assert_eq!(parent.get("/readyz").await.json()["enclave"]["phase"], "joining");
    status.phase = Phase::Member;
    status.majority_age = Some(Millis(5_001));
    control.say(&FromEnclave::Status(Box::new(status.clone()))).await;
    until(async || failing().await == r#"["majority"]"#).await;
    status.majority_age = Some(Millis(5_000));
    control.say(&FromEnclave::Status(Box::new(status))).await;
    until(async || failing().await == "[]").await;

    control.say(&FromEnclave::Refused { reason: "another manifest".to_owned() }).await;
    until(async || failing().await == r#"["configuration"]"#).await;
    assert_eq!(parent.get("/readyz").await.json()["detail"], "another manifest");
    control.say(&FromEnclave::Halted { reason: "a gap".to_owned() }).await;
    until(async || failing().await == r#"["halted","configuration"]"#).await;
    drop(control);
    until(async || failing().await.starts_with(r#"["enclave""#)).await;
}
