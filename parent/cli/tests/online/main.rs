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

mod adopting;
mod asking;
mod governing;
#[path = "../../../client/tests/kit/mod.rs"]
mod kit;
mod refusals;

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
