//! `casemate` against a cluster on sockets, and against what is not one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

#[path = "../../client/tests/kit/mod.rs"]
mod kit;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use casemate_client::cluster_file::{ClusterFile, FileCredential, NodeAddress, Role, SCHEMA};
use casemate_client::{Credential, Sign as _};
use casemate_door::{Answer, PendingRequestView};
use casemate_ledger::approvals::Document;
use casemate_ledger::payload;
use casemate_policy::Policy;
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{
    Algorithm, DenialCode, DerivationPath, Hash32, Incarnation, KeyName, PrincipalId, RequestId,
    UnixMillis,
};
use kit::{Fake, KEY, REGIONS};
use serde_json::Value;

struct Setting {
    fake: Fake,
    folder: tempfile::TempDir,
}

const ALICE: &str = "operator:alice";
const CAROL: &str = "treasurer:carol";

fn setting() -> Setting {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting { fake, folder };
    setting.write_cluster(|_| {});
    setting
}

impl Setting {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write_cluster(&self, change: impl FnOnce(&mut ClusterFile)) {
        let credential = |principal: &str, roles: &[Role], credential: &Credential| {
            let principal = PrincipalId::new(principal).unwrap();
            FileCredential::new(principal, roles.to_vec(), credential)
        };
        let new = || Credential::generate(Algorithm::Ed25519).unwrap();
        let mut file = self.fake.with(|world| ClusterFile {
            schema: SCHEMA.to_owned(),
            name: "fake".to_owned(),
            genesis_id: world.id,
            genesis: None,
            manifest: None,
            trust_root_pem: world.root_pem.clone(),
            images: Vec::new(),
            nodes: world
                .nodes
                .values()
                .map(|node| NodeAddress {
                    name: node.name.clone(),
                    url: format!("http://{}", node.address),
                    folder: None,
                })
                .collect(),
            credentials: vec![
                credential(ALICE, &[Role::Requester], &new()),
                credential(CAROL, &[Role::Approver], &new()),
                credential("governor", &[Role::Governor, Role::Freezer], &world.governor),
            ],
        });
        change(&mut file);
        file.save(&self.path("cluster.json")).unwrap();
    }

    /// Runs `casemate` with this cluster in the environment.
    fn casemate(&self, args: &[&str]) -> Output {
        casemate_in(self.folder.path(), &self.text("cluster.json"), args)
    }

    fn message(&self, text: &str) -> String {
        std::fs::write(self.path("message"), text).unwrap();
        self.text("message")
    }
}

fn casemate_in(folder: &Path, cluster: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_casemate"))
        .args(args)
        .env("CASEMATE_CLUSTER", cluster)
        .current_dir(folder)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", out(output), err(output)))
}
#[track_caller]
fn exits(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}{}", out(output), err(output));
}

/// A request of alice's that waits, under a policy with a tier that asks for carol.
fn pending(setting: &Setting) -> PendingRequestView {
    let alice = Credential::generate(Algorithm::Ed25519).unwrap();
    let key = |credential: &Credential| hex::encode(credential.public_key().as_bytes());
    let carol = Credential::generate(Algorithm::Ed25519).unwrap();
    let policy = format!(
        r#"
version = 1
name = "test"
expires = "2049-01-01T00:00:00Z"
[asset.eth]
chain = "eip155:1"
native = true
decimals = 18
[[principal]]
id = "{ALICE}"
credentials = [{{ alg = "ed25519", public_key = "{}" }}]
[[principal]]
id = "{CAROL}"
credentials = [{{ alg = "ed25519", public_key = "{}" }}]
[list.approvers.treasurers]
members = ["{CAROL}"]
[list.payees.treasury]
"eip155:1" = ["0x3333333333333333333333333333333333333333"]
[[grant]]
id = "treasury-eth"
key = "{KEY}"
principals = ["{ALICE}"]
allow = ["eth.native_transfer"]
asset = "eth"
to = "@payees.treasury"
max_fee_per_tx = "0.05"
limits = [{{ sum = "500", window = "7d" }}]
fee_limits = [{{ sum = "0.5", window = "24h" }}]
tiers = [{{ upto = "1" }}, {{ upto = "10", approvals = "1 of @treasurers" }}]
"#,
        key(&alice),
        key(&carol)
    );
    let policy = Policy::from_toml(&policy).unwrap_or_else(|error| panic!("{error}"));
    // 2 ETH to 0x33…33, EIP-1559
    let unsigned = "02ef018083010000850100000000825208943333333333333333333333333333333333333333881bc16d674ec8000080c0";
    let request = SignRequest {
        request_id: RequestId::new([7; 16]),
        key: KeyName::new(KEY).unwrap(),
        path: DerivationPath::root(),
        payload: Payload::Tx {
            chain: "eip155:1".parse().unwrap(),
            unsigned: hex::decode(unsigned).unwrap(),
        },
    };
    let body = request.to_body().into_bytes();
    let genesis = setting.fake.with(|world| world.id);
    let decoded = payload::decode(&genesis, &request.payload).unwrap();
    let principal = PrincipalId::new(ALICE).unwrap();
    let expires = UnixMillis(kit::now().0 + 3_600_000);
    let document = Document {
        genesis,
        incarnation: Incarnation(0),
        credential: alice.id(),
        request_id: request.request_id,
        principal: &principal,
        key: &request.key,
        path: &request.path,
        body_hash: Hash32::new(casemate_proto::hash::sha256(&body)),
        digest: decoded.digest,
        intent: &decoded.intent,
        policy: policy.policy_hash(),
        grant: &"treasury-eth".parse().unwrap(),
        tier: 1,
        expires,
    };
    let view = PendingRequestView {
        credential: alice.id(),
        request_id: request.request_id,
        principal: principal.clone(),
        document: document.hash(),
        body,
        have: 0,
        approved_by: Vec::new(),
        expires,
    };
    setting.fake.with(|world| {
        world.policy = Some((policy.policy_hash(), policy.canonical_bytes()));
        world.pending = vec![view.clone()];
    });
    view
}

#[test]
fn sign_prints_a_signature_that_verifies_and_the_same_id_gives_the_same() {
    let setting = setting();
    let message = setting.message("hello");
    let args = ["sign", "--key", KEY, "--as", ALICE, "--message", &message];
    let output = setting.casemate(&args);
    exits(&output, 0);
    assert!(out(&output).starts_with("signature    0x"), "{}", out(&output));
    let receipt = setting.text("receipt.json");
    let args =
        [&args[..], &["--idempotency-key", "order-1", "--json", "--receipt", &receipt]].concat();
    let (first, second) = (setting.casemate(&args), setting.casemate(&args));
    exits(&first, 0);
    let value = json(&first);
    assert_eq!(value["outcome"], "signed");
    assert_eq!(value["signature"], json(&second)["signature"]);
    assert_eq!(value["signature"].as_str().unwrap().len(), 132);
    let kept: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    assert_eq!(kept["record"], value["receipt"]["record"]);
    assert_eq!(setting.fake.with(|world| world.signed.len()), 2);
}

#[test]
fn denied_pending_and_unsettled_have_statuses_of_their_own() {
    let setting = setting();
    let message = setting.message("hello");
    let args = ["sign", "--key", KEY, "--as", ALICE, "--message", &message, "--json"];
    setting.fake.each(|node| {
        let name = node.name.clone();
        node.answers = Some(Arc::new(move |world, _| {
            let node = &world.nodes[&name];
            let (stamp, body) = node.asked.last().unwrap();
            let code = DenialCode::LimitExceeded;
            Answer::Denied(Box::new(world.denial(node, (stamp, body), code)))
        }));
    });
    let output = setting.casemate(&args);
    exits(&output, 2);
    let value = json(&output);
    assert_eq!((&value["code"], &value["settled"]), (&"limit_exceeded".into(), &true.into()));

    setting.fake.lie(|_, _| Answer::Busy { retry_after: casemate_proto::Millis(1) });
    let output = setting.casemate(&[&args[..], &["--timeout", "1s"]].concat());
    exits(&output, 4);
    assert_eq!(json(&output)["settled"], false);

    let view = pending(&setting);
    setting.fake.lie(|_, _| {
        Answer::Pending(casemate_door::PendingAnswer {
            document: Hash32::new([1; 32]),
            grant: None,
            have: 0,
            need: 1,
            not_before: None,
            expires: UnixMillis(1),
        })
    });
    let signer = setting.path("alice.key");
    let alice = Credential::generate(Algorithm::Ed25519).unwrap();
    alice.create(&signer).unwrap();
    setting.fake.with(|world| {
        world.pending = vec![PendingRequestView { credential: alice.id(), ..view.clone() }];
    });
    let tx = setting.text("tx");
    let Payload::Tx { unsigned, .. } = SignRequest::parse(&view.body).unwrap().payload else {
        panic!()
    };
    std::fs::write(&tx, format!("0x{}\n", hex::encode(unsigned))).unwrap();
    let id = view.request_id.to_string();
    let output = setting.casemate(&[
        "sign",
        "--key",
        KEY,
        "--credential",
        signer.to_str().unwrap(),
        "--tx",
        &tx,
        "--request-id",
        &id,
    ]);
    exits(&output, 3);
    assert!(out(&output).starts_with("pending"), "{}", out(&output));
    assert!(err(&output).contains(&format!("casemate approve {id}")), "{}", err(&output));
}

#[test]
fn approve_shows_what_is_approved_and_approves_only_what_makes_the_document() {
    let setting = setting();
    let view = pending(&setting);
    let id = view.request_id.to_string();
    let output = setting.casemate(&["requests", "show"]);
    exits(&output, 0);
    for part in [
        "2 eth",
        "0x3333333333333333333333333333333333333333",
        "treasury-eth, tier 1",
        "1 of @treasurers",
        ALICE,
    ] {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    // nobody at a terminal, and nobody said yes
    let output = setting.casemate(&["approve", &id, "--as", CAROL]);
    exits(&output, 1);
    assert!(err(&output).contains("--yes"), "{}", err(&output));
    assert!(setting.fake.with(|world| world.approved.is_empty()));
    // a node that shows another body than the document's, another expiry, another policy
    for (alter, named) in [("body", "document"), ("expires", "document"), ("request", "request")] {
        setting.fake.with(|world| {
            let shown = &mut world.pending[0];
            *shown = view.clone();
            match alter {
                "body" => {
                    let text = String::from_utf8(view.body.clone()).unwrap();
                    shown.body = text.replace("881bc16d674ec8", "881bc16d674ec9").into_bytes();
                }
                "expires" => shown.expires = UnixMillis(1),
                _ => {
                    shown.body = String::from_utf8(view.body.clone())
                        .unwrap()
                        .replace("0707", "0708")
                        .into_bytes()
                }
            }
        });
        let output = setting.casemate(&["approve", &id, "--as", CAROL, "--yes"]);
        exits(&output, 1);
        assert!(err(&output).contains(named), "{alter}: {}", err(&output));
    }
    assert!(setting.fake.with(|world| world.approved.is_empty()));
    setting.fake.with(|world| world.pending = vec![view.clone()]);
    let output = setting.casemate(&["approve", &id, "--as", CAROL, "--yes"]);
    exits(&output, 0);
    assert!(
        out(&output).contains("2 eth") && out(&output).ends_with("approved\n"),
        "{}",
        out(&output)
    );
    assert_eq!(setting.fake.with(|world| world.approved.len()), 1);
    let output = setting.casemate(&["approve", &id, "--as", CAROL, "--yes"]);
    exits(&output, 1);
    assert!(err(&output).contains("no request of that id waits"), "{}", err(&output));
}

#[test]
fn keys_are_listed_proved_and_made_by_the_governors_in_the_cluster_file() {
    let setting = setting();
    let output = setting.casemate(&["keys", "list", "--json"]);
    exits(&output, 0);
    let value = json(&output);
    assert_eq!(value["keys"][0]["name"], KEY);
    assert_eq!(
        value["keys"][0]["public_key"],
        format!("0x{}", hex::encode(setting.fake.with(|world| world.public_key())))
    );
    let args = ["keys", "create", "--scheme", "ecdsa-secp256k1", "--name", "deposit"];
    let output = setting.casemate(&args);
    exits(&output, 0);
    for part in ["key          deposit", "public key   0x", "address      0x"] {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    let output = setting.casemate(&["keys", "create", "--scheme", "rsa", "--name", "deposit"]);
    exits(&output, 1);
    assert!(err(&output).contains("bip340-secp256k1"), "{}", err(&output));
    setting.write_cluster(|file| file.credentials.clear());
    let output = setting.casemate(&args);
    exits(&output, 1);
    assert!(err(&output).contains("--governor FILE"), "{}", err(&output));
}

#[test]
fn policy_goes_from_its_text_over_signed_files_into_force() {
    let setting = setting();
    pending(&setting);
    let governor = setting.path("governor.key");
    setting.fake.with(|world| world.governor.create(&governor).unwrap());
    let bytes = setting.fake.with(|world| world.policy.clone().unwrap().1);
    let mut doc = Policy::from_canonical(&bytes).unwrap().doc().clone();
    let grant = doc.grants.values_mut().next().unwrap();
    *grant.max_fee_per_tx.values_mut().next().unwrap() = casemate_proto::Amount::from(1);
    let stricter = Policy::new(doc).unwrap();
    std::fs::write(setting.path("stricter.cbor"), stricter.canonical_bytes()).unwrap();

    let output = setting.casemate(&["policy", "propose", "stricter.cbor"]);
    exits(&output, 0);
    for part in
        ["tightens", "in force as soon as it is accepted", "1 of 1 governors", "change.cbor"]
    {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    let key = governor.to_str().unwrap();
    let output = setting.casemate(&[
        "policy",
        "sign",
        "change.cbor",
        "--key",
        key,
        "--policy",
        "stricter.cbor",
    ]);
    exits(&output, 1);
    assert!(err(&output).contains("--yes"), "{}", err(&output));
    let output = setting.casemate(&[
        "policy",
        "sign",
        "change.cbor",
        "--key",
        key,
        "--policy",
        "stricter.cbor",
        "--yes",
        "--out",
        "a.sig",
    ]);
    exits(&output, 0);
    let hash = stricter.policy_hash().to_string();
    assert!(out(&output).contains(&format!("sets policy {hash}")), "{}", out(&output));

    let output = setting.casemate(&["policy", "submit", "change.cbor", "a.sig"]);
    exits(&output, 1);
    assert!(err(&output).contains("is not among the files"), "{}", err(&output));
    let output = setting.casemate(&["policy", "submit", "change.cbor", "stricter.cbor", "a.sig"]);
    exits(&output, 0);
    assert!(out(&output).contains("in force     now"), "{}", out(&output));
    assert_eq!(setting.fake.with(|world| world.policy.clone().unwrap().0), stricter.policy_hash());
    // again: it is in force already, and no harm is done
    let output = setting.casemate(&["policy", "submit", "change.cbor", "stricter.cbor", "a.sig"]);
    exits(&output, 0);
    // a signature of somebody else, or under another change
    let stranger = Credential::generate(Algorithm::P256).unwrap();
    stranger.create(&setting.path("stranger.key")).unwrap();
    let args =
        ["policy", "sign", "change.cbor", "--key", "stranger.key", "--yes", "--out", "b.sig"];
    exits(&setting.casemate(&args), 0);
    let output = setting.casemate(&["policy", "submit", "change.cbor", "stricter.cbor", "b.sig"]);
    exits(&output, 1);
    assert!(err(&output).contains("not a governor"), "{}", err(&output));
    exits(&setting.casemate(&["policy", "propose", "stricter.cbor", "--out", "other.cbor"]), 0);
    let output = setting.casemate(&["policy", "submit", "other.cbor", "stricter.cbor", "a.sig"]);
    exits(&output, 1);
    assert!(err(&output).contains("it is under change"), "{}", err(&output));
}

#[test]
fn a_freeze_is_told_to_every_node_and_lifted_by_its_id() {
    let setting = setting();
    let output = setting.casemate(&["freeze", "--json"]);
    exits(&output, 0);
    let id = json(&output)["freeze"].as_str().unwrap().to_owned();
    let output = setting.casemate(&["status"]);
    exits(&output, 0);
    assert!(out(&output).contains(&format!("FROZEN       {id}")), "{}", out(&output));
    let output = setting.casemate(&["unfreeze", &id]);
    exits(&output, 0);
    assert!(!out(&output).contains("STILL FROZEN"), "{}", out(&output));
    assert!(setting.fake.with(|world| world.freezes.is_empty()));
    let output = setting.casemate(&["unfreeze", "0x12"]);
    exits(&output, 1);
    // the same freezer is heard, and has nothing to veto
    let output = setting.casemate(&["heartbeat"]);
    exits(&output, 0);
    assert!(out(&output).ends_with("heard\n"), "{}", out(&output));
    let output = setting.casemate(&["veto", &id]);
    exits(&output, 1);
    assert!(err(&output).contains("no such change waits"), "{}", err(&output));
}

#[test]
fn status_says_who_is_there_and_what_more_can_be_lost() {
    let setting = setting();
    let output = setting.casemate(&["status"]);
    exits(&output, 0);
    for part in [
        "boot         attested, current",
        "NONE IN FORCE",
        "one more node lost",
        "host says    NOT READY, failing: majority",
    ] {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    setting.fake.node(REGIONS[2], |node| {
        node.takeover = Some(Arc::new(|_, _| true));
    });
    let output = setting.casemate(&["status", "--json"]);
    exits(&output, 0);
    let value = json(&output);
    assert_eq!(value["survives_more_nodes_lost"], 0);
    assert_eq!(value["nodes"][2]["verified"], false);
    assert!(value["nodes"][2]["error"].as_str().unwrap().contains("not reachable"), "{value}");
    setting.fake.node(REGIONS[1], |node| {
        node.takeover = Some(Arc::new(|_, _| true));
    });
    let output = setting.casemate(&["status"]);
    exits(&output, 4);
    assert!(out(&output).contains("NOT VERIFIED"), "{}", out(&output));
    assert!(out(&output).contains("host says"), "{}", out(&output));
}

#[test]
fn attest_fetch_names_node_or_url_and_refuses_what_is_not_attested() {
    let setting = setting();
    let document = setting.text("document");
    let output = setting.casemate(&["attest", "fetch", "--node", REGIONS[1], "--out", &document]);
    exits(&output, 0);
    assert!(out(&output).contains(&format!("node {}", REGIONS[1])), "{}", out(&output));
    let (url, genesis, root) = setting.fake.with(|world| {
        let address = world.nodes[&kit::name(REGIONS[0])].address;
        (format!("http://{address}"), world.id.to_hex(), world.root_pem.clone())
    });
    let output = setting.casemate(&["attest", "fetch", "--node", &url, "--json"]);
    exits(&output, 0);
    assert_eq!(json(&output)["node"], REGIONS[0]);
    // by flags alone
    std::fs::write(setting.path("root.pem"), root).unwrap();
    let by_flags =
        ["attest", "fetch", "--node", &url, "--genesis", &genesis, "--trust-root", "root.pem"];
    exits(&setting.casemate(&by_flags), 0);
    // AWS's root is not the simulated one
    let output = setting.casemate(&by_flags[..6]);
    exits(&output, 1);
    assert!(err(&output).contains("root"), "{}", err(&output));
    let output = setting.casemate(&["attest", "fetch", "--node", "mars"]);
    exits(&output, 1);
    assert!(
        err(&output).contains("`mars`") && err(&output).contains(REGIONS[2]),
        "{}",
        err(&output)
    );
    setting.fake.node(REGIONS[1], |node| node.boot.nonce = [0; 32]);
    let nonce = setting.fake.with(|world| world.nodes[&kit::name(REGIONS[1])].boot.nonce);
    assert_eq!(nonce, [0; 32]);
    let host = casemate_sim::SimHost::new().unwrap();
    setting.fake.node(REGIONS[1], |node| {
        node.nsm = Arc::new(host.start(node.nsm.enclave().clone()));
    });
    let output = setting.casemate(&["attest", "fetch", "--node", REGIONS[1]]);
    exits(&output, 1);
    assert!(err(&output).contains("attestation is refused"), "{}", err(&output));
}

#[test]
fn audit_fetch_copies_a_store_and_goes_on_where_it_was_broken_off() {
    let setting = setting();
    pending(&setting);
    let message = setting.message("hello");
    exits(&setting.casemate(&["sign", "--key", KEY, "--as", ALICE, "--message", &message]), 0);
    setting.fake.with(|world| world.fetched.clear());
    let args = ["audit", "fetch", "--node", REGIONS[0], "--out", "store", "--json"];
    let output = setting.casemate(&args);
    exits(&output, 0);
    let store = setting.fake.with(|world| world.store());
    assert_eq!(json(&output)["size"], 4);
    for (path, bytes) in &store {
        if path != "checkpoint" && !path.starts_with("checkpoints/") {
            assert_eq!(&std::fs::read(setting.path("store").join(path)).unwrap(), bytes, "{path}");
        }
    }
    // one file is lost; nothing else is asked for again
    let tile = setting.path("store").join("tile/entries/000.p/4");
    std::fs::remove_file(&tile).unwrap();
    setting.fake.with(|world| world.fetched.clear());
    exits(&setting.casemate(&args), 0);
    assert!(tile.is_file());
    assert_eq!(
        setting.fake.with(|world| world.fetched.clone()),
        ["checkpoint", "tile/entries/000.p/4"]
    );
}

#[test]
fn a_node_that_lists_paths_outside_the_store_is_refused() {
    let setting = setting();
    setting.fake.take_over(|asked, stream| {
        let listing = asked.path.starts_with("/v1/store?");
        if listing {
            let body = br#"{"folder":"attachments","names":["../../escape"],"next":null}"#;
            kit::respond(stream, 200, "", body);
        }
        listing
    });
    let output = setting.casemate(&["audit", "fetch", "--out", "store"]);
    exits(&output, 1);
    assert!(err(&output).contains("not a file's name"), "{}", err(&output));
    assert!(!setting.path("escape").exists());
}

#[test]
fn no_cluster_a_missing_file_and_another_schema_are_one_clear_line() {
    let setting = setting();
    let run = |cluster: &str| casemate_in(setting.folder.path(), cluster, &["status"]);
    let output = run("");
    exits(&output, 1);
    assert!(err(&output).contains("--cluster FILE"), "{}", err(&output));
    let output = run("missing.json");
    exits(&output, 1);
    assert!(err(&output).contains("`missing.json`"), "{}", err(&output));
    let text = std::fs::read_to_string(setting.path("cluster.json")).unwrap();
    for (bad, named) in [
        (text.replace("cluster/1", "cluster/9"), "casemate.cluster/9"),
        (text.replace("\"nodes\"", "\"knots\""), "knots"),
        ("[]".to_owned(), "not a cluster file"),
        (text.replace("http://", "ftp://"), "is not a node's URL"),
        (text.replace("BEGIN CERTIFICATE", "BEGIN NOTHING"), "trust_root_pem"),
    ] {
        std::fs::write(setting.path("bad.json"), bad).unwrap();
        let output = run("bad.json");
        exits(&output, 1);
        assert!(err(&output).contains(named), "{named}: {}", err(&output));
        assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    }
}

#[test]
fn a_machine_without_root_certificates_asks_nodes_without_tls() {
    let setting = setting();
    let output = Command::new(env!("CARGO_BIN_EXE_casemate"))
        .args(["keys", "list"])
        .env("CASEMATE_CLUSTER", setting.text("cluster.json"))
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", setting.folder.path())
        .output()
        .unwrap();
    exits(&output, 0);
}

#[test]
fn a_cluster_file_of_another_cluster_is_refused() {
    let (setting, other) = (setting(), setting());
    let nodes = other.fake.with(|world| {
        world.nodes.values().map(|node| format!("http://{}", node.address)).collect::<Vec<_>>()
    });
    setting.write_cluster(|file| {
        for (node, url) in file.nodes.iter_mut().zip(nodes) {
            node.url = url;
        }
    });
    let message = setting.message("hello");
    let args = ["sign", "--key", KEY, "--as", ALICE, "--message", &message, "--timeout", "1s"];
    let output = setting.casemate(&args);
    assert_ne!(output.status.code(), Some(0));
    assert!(err(&output).contains("is pinned"), "{}", err(&output));
    assert!(other.fake.sent().is_empty());
    let output = setting.casemate(&["status"]);
    exits(&output, 1);
}

#[test]
fn nodes_that_are_not_there_are_a_status_of_their_own() {
    let setting = setting();
    setting.write_cluster(|file| {
        for node in &mut file.nodes {
            // nobody listens there: bound for a moment to find a free port
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            node.url = format!("http://{free}");
        }
    });
    for args in [
        &["status"][..],
        &["keys", "list"],
        &["attest", "fetch", "--node", REGIONS[0]],
        &["audit", "verify"],
        &["requests", "show"],
    ] {
        let output = setting.casemate(args);
        exits(&output, 4);
        assert!(err(&output).contains("not reachable"), "{args:?}: {}", err(&output));
    }
}

#[test]
fn unknown_principals_wrong_roles_and_wrong_files_are_named() {
    let setting = setting();
    let message = setting.message("hello");
    for (args, named) in [
        (vec!["--as", "operator:mallory", "--message", &message], "operator:mallory"),
        (vec!["--as", CAROL, "--message", &message], "as requester"),
        (vec!["--as", ALICE, "--message", "missing"], "`missing`"),
        (vec!["--as", ALICE, "--tx", &message], "`"),
        (vec!["--as", ALICE, "--typed-data", &message], "`"),
        (vec!["--as", ALICE, "--hash", "0x12"], "32 bytes"),
        (vec!["--credential", &message, "--message", &message], "`"),
        (vec!["--message", &message], "--as"),
    ] {
        let output = setting.casemate(&[&["sign", "--key", KEY][..], &args].concat());
        exits(&output, 1);
        assert!(err(&output).contains(named), "{args:?}: {}", err(&output));
    }
    assert!(setting.fake.sent().is_empty());
    let output = setting.casemate(&["sign", "--key", "none", "--as", ALICE, "--message", &message]);
    exits(&output, 1);
    assert!(err(&output).contains("no live key `none`"), "{}", err(&output));
}

#[test]
fn a_new_credential_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| casemate_in(folder.path(), "", args);
    let args = ["credential", "new", "--algorithm", "p256", "--out", "a.key"];
    let output = run(&args);
    exits(&output, 0);
    let shown = run(&["credential", "show", "a.key"]);
    exits(&shown, 0);
    assert_eq!(out(&shown), out(&output));
    let secret = std::fs::read_to_string(folder.path().join("a.key")).unwrap();
    let secret =
        serde_json::from_str::<Value>(&secret).unwrap()["secret"].as_str().unwrap().to_owned();
    assert!(!out(&output).contains(&secret[2..]));
    let again = run(&args);
    exits(&again, 1);
    assert!(err(&again).contains("a.key"), "{}", err(&again));
    let mut open = std::fs::metadata(folder.path().join("a.key")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o644);
    std::fs::set_permissions(folder.path().join("a.key"), open).unwrap();
    let output = run(&["credential", "show", "a.key"]);
    exits(&output, 1);
    assert!(err(&output).contains("chmod 600"), "{}", err(&output));
    exits(&run(&["credential", "new", "--algorithm", "rsa", "--out", "b.key"]), 1);
}
