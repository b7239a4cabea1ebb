//! A cluster that seals, its folder, and the commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_api::{Outcome, Ready, STAMP_HEADER, route};
use casemate_client::credential::{random, stamp};
use casemate_client::{ClusterFile, Role, Scope, Sign as _};
use casemate_dev::demo::Tell;
use casemate_dev::demo::payloads::Transaction;
use casemate_dev::demo::people::{People, QUORUM};
use casemate_dev::processes::api::Api;
use casemate_dev::processes::birth::{now, regions, runtime};
use casemate_dev::processes::claim::Claim;
use casemate_dev::processes::remote::cluster_file;
use casemate_dev::processes::running::write_configurations;
use casemate_dev::processes::{Home, Part, Plan, Program, Running, machine};
use casemate_proto::manifest::{Governance, Limits};
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::stamp::Method;
use casemate_proto::time::{DAY, HOUR};
use casemate_proto::{Amount, DerivationPath, Incarnation, KeyName, Millis, NodeName, RequestId};
use casemate_sim::SimHost;
use casemate_tx::EvmAddress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::runtime::Runtime;

const PROGRAM: &str = env!("CARGO_BIN_EXE_casemate-dev");
/// How long anything may take on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(120);
const MERCHANT: EvmAddress = EvmAddress([0xb0; 20]);
const POLICY: &str = include_str!("policy.toml");
/// The nodes sign within this after an entry, and their clocks differ by at most that: a window is
/// lengthened by both.
const TAU: Millis = Millis(6_000);
const DELTA: Millis = Millis(1_000);

struct Quiet;

impl Tell for Quiet {
    fn progress(&mut self, _: &str) {}
    fn say(&mut self, _: &str) {}
}

/// Clusters share the machine's processors: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        sleep(Duration::from_millis(50));
    }
}

/// What a command said, and with which status it ended.
#[derive(Debug)]
pub struct Said {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// It did what it was told.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.status, Some(0), "{}{}", self.out, self.err);
        self.out
    }
    /// It refused in one line that has these words.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.status, Some(1), "{}{}", self.out, self.err);
        let line = self.err.strip_prefix("casemate: ").unwrap_or_else(|| panic!("{}", self.err));
        assert_eq!(line.trim_end().lines().count(), 1, "{}", self.err);
        for word in words {
            assert!(line.contains(word), "`{word}` is not in: {line}");
        }
    }
    /// The value of its line of this name.
    #[track_caller]
    pub fn value(out: &str, name: &str) -> String {
        let line = out.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {out}")).trim().to_owned()
    }
}

/// A cluster of three that signs with two and seals, its people, and its folder.
pub struct Ground {
    pub running: Running,
    pub plan: Plan,
    pub home: Home,
    pub file: ClusterFile,
    pub runtime: Arc<Runtime>,
    folder: tempfile::TempDir,
    _claim: Claim,
    _alone: MutexGuard<'static, ()>,
}

impl Ground {
    /// Born and governed, with keys of which every node has sealed its share.
    pub fn born() -> Self {
        let alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let (home, claim) = Home::create(&folder.path().join("c"), false).unwrap();
        let plan = Plan::new(2, &regions(3), None).unwrap();
        let runtime = runtime().unwrap();
        let (people, host) = (People::with_recovery().unwrap(), SimHost::new().unwrap());
        let governance =
            Governance { quorum: QUORUM, keys: people.governors(), loosening_delay: HOUR };
        let limits = Limits { tau: TAU, delta: DELTA, ..Limits::default() };
        let mut manifest =
            machine::manifest(&plan, &host, governance, people.freezers(), limits).unwrap();
        manifest.recovery = people.recovery_keys();
        home.write_plan(&plan).unwrap();
        machine::write_root(&home, &host).unwrap();
        write_configurations(&home, &plan, &manifest).unwrap();
        let program = Program::new(PathBuf::from(PROGRAM));
        let mut running = Running::start(home.clone(), plan.clone(), program, true).unwrap();
        let genesis = running.wait_for_birth(&runtime, &manifest, &mut Quiet, &|| false).unwrap();
        running.wait_for_links(&runtime, &|| false).unwrap();
        let pem = host.root_pem().unwrap();
        let mut file = cluster_file(&manifest.name, &genesis, pem, &running);
        file.credentials = people.file_credentials().unwrap();
        file.save(&home.cluster_file()).unwrap();
        people.write_recovery(&home.governors(), genesis.id()).unwrap();
        let ground =
            Self { running, plan, home, file, runtime, folder, _claim: claim, _alone: alone };
        ground.govern();
        ground
    }

    fn govern(&self) {
        self.run(&["change", "confirm-genesis"]).done();
        std::fs::write(self.path("policy.toml"), self.policy()).unwrap();
        let (policy, change) = (self.text("policy.toml"), self.text("change.cbor"));
        self.run(&["policy", "propose", &policy, "--out", &change]).done();
        let mut submit = vec!["policy".to_owned(), "submit".to_owned(), change.clone(), policy];
        for number in [1, 3] {
            let (who, out) = (format!("governor:{number}"), self.text(&format!("{number}.sig")));
            let cluster = self.home.cluster_file();
            let cluster = cluster.to_str().unwrap();
            let sign = ["policy", "sign", &change, "--as", &who, "--cluster", cluster];
            self.run(&[&sign[..], &["--out", &out, "--yes"]].concat()).done();
            submit.push(out);
        }
        self.run(&submit.iter().map(String::as_str).collect::<Vec<_>>()).done();
        for (name, scheme) in
            [("casemate.log", "ed25519"), ("notary", "ed25519"), ("payout", "ecdsa-secp256k1")]
        {
            let scheme = ["--scheme", scheme, "--name", name, "--timeout", "100s"];
            self.run(&[&["keys", "create"], &scheme[..]].concat()).done();
        }
        (0..3).for_each(|node| self.wait_until_whole(node));
        // a share is on the disk within a second of its epoch
        wait_until("everything is sealed", || {
            (0..3)
                .all(|node| self.newest_blob(node).is_some_and(|blob| blob.header.keys.len() == 3))
        });
    }

    fn policy(&self) -> String {
        let principals: String = ["workflow:reports", "workflow:settlement"]
            .into_iter()
            .map(|id| {
                let credential = self.file.credential(id, Some(Role::Requester)).unwrap();
                let key = credential.public_key();
                let (alg, key) = (key.algorithm().name(), hex::encode(key.as_bytes()));
                format!(
                    "[[principal]]\nid = \"{id}\"\n\
                     credentials = [{{ alg = \"{alg}\", public_key = \"{key}\" }}]\n\n"
                )
            })
            .collect();
        [
            ("{{expires}}", now().saturating_add(DAY).to_rfc3339()),
            ("{{principals}}", principals),
            ("{{merchant}}", MERCHANT.to_string()),
        ]
        .into_iter()
        .fold(POLICY.to_owned(), |text, (name, value)| text.replace(name, &value))
    }

    pub fn name(&self, node: usize) -> NodeName {
        self.plan.nodes[node].name.clone()
    }
    pub fn data(&self, node: usize) -> PathBuf {
        self.home.node(&self.name(node)).join("data")
    }
    /// A file of this test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
    /// A governor's file.
    pub fn governor(&self, number: usize, kind: &str) -> PathBuf {
        self.home.governors().join(format!("governor-{number}.{kind}"))
    }

    pub fn newest_blob(&self, node: usize) -> Option<casemate_recovery::SealedBlob> {
        let mut paths: Vec<_> = std::fs::read_dir(self.data(node).join("sealed"))
            .ok()?
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        casemate_recovery::SealedBlob::decode(&std::fs::read(paths.pop()?).unwrap()).ok()
    }

    // what a host does

    /// Kills a process as `kill -9` does, if it runs.
    pub fn kill(&mut self, node: usize, part: Part) {
        let name = self.name(node);
        if let Some(pid) = self.home.pid(&name, part).unwrap() {
            kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
        }
        wait_until("it is gone", || self.home.pid(&name, part).unwrap().is_none());
        self.running.take_ended();
    }
    pub fn start(&mut self, node: usize, part: Part) {
        let name = self.name(node);
        self.running.start_node(&name, &[part]).unwrap();
    }
    /// All enclaves at once, with kill -9.
    pub fn kill_all_enclaves(&mut self) {
        for node in 0..3 {
            let name = self.name(node);
            let pid = self.home.pid(&name, Part::Enclave).unwrap().unwrap();
            kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
        }
        (0..3).for_each(|node| self.kill(node, Part::Enclave));
    }

    // what an operator and governors do

    /// Runs `casemate` for this cluster.
    pub fn run(&self, arguments: &[&str]) -> Said {
        let output = Command::new(PROGRAM)
            .arg("casemate")
            .args(arguments)
            .env("CASEMATE_CLUSTER", self.home.cluster_file())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
    pub fn recover(&self, arguments: &[&str]) -> Said {
        self.run(&[&["recover"], arguments].concat())
    }
    /// `--node NAME=FOLDER` for each of these.
    pub fn nodes(&self, nodes: &[usize]) -> Vec<String> {
        let node = |node: &usize| {
            ["--node".to_owned(), format!("{}={}", self.name(*node), self.data(*node).display())]
        };
        nodes.iter().flat_map(node).collect()
    }
    pub fn with_nodes(&self, nodes: &[usize], arguments: &[&str]) -> Said {
        let nodes = self.nodes(nodes);
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        self.recover(&[arguments, &nodes].concat())
    }
    pub fn certify(&self, bundle: &str, more: &[&str]) -> Said {
        let out = self.text(bundle);
        self.with_nodes(&[0, 1, 2], &[&["certify", "--out", &out], more].concat())
    }
    pub fn sign(&self, number: usize, bundle: &str, more: &[&str]) -> Said {
        let (who, bundle) = (format!("governor:{number}"), self.text(bundle));
        let record = self.governor(number, "record");
        let record = record.to_str().unwrap();
        let store = self.data(0).join("store");
        let store = store.to_str().unwrap();
        let arguments =
            ["sign", "--as", &who, "--record", record, "--bundle", &bundle, "--store", store];
        self.recover(&[&arguments[..], &["--yes"], more].concat())
    }
    pub fn release(&self, number: usize, bundle: &str, more: &[&str]) -> Said {
        let (key, record) =
            (self.governor(number, "recovery-key"), self.governor(number, "record"));
        let (key, record) = (key.to_str().unwrap(), record.to_str().unwrap());
        let bundle = self.text(bundle);
        let arguments =
            ["release", "--recovery-key", key, "--record", record, "--bundle", &bundle, "--yes"];
        self.recover(&[&arguments[..], more].concat())
    }
    pub fn hand_over(&self, bundle: &str, more: &[&str]) -> Said {
        let bundle = self.text(bundle);
        self.with_nodes(&[0, 1, 2], &[&["start", "--bundle", &bundle], more].concat())
    }

    /// Prepares all folders and starts all enclaves; they offer themselves.
    pub fn offered(&mut self) {
        self.with_nodes(&[0, 1, 2], &["prepare"]).done();
        (0..3).for_each(|node| self.start(node, Part::Enclave));
        self.wait_for_offers();
    }
    pub fn wait_for_offers(&self) {
        wait_until("all enclaves offer themselves", || {
            (0..3).all(|node| self.data(node).join("recovery/offer.cbor").exists())
        });
    }

    // what clients see

    pub fn ready(&self, node: usize) -> Option<Ready> {
        let api = Api::new(self.plan.nodes[node].url()).unwrap();
        self.runtime.block_on(api.ready()).ok()
    }
    /// Waits until a node serves, hears all others, and holds a share of every key.
    pub fn wait_until_whole(&self, node: usize) {
        let (since, mut last) = (Instant::now(), None);
        while since.elapsed() < PATIENCE {
            last = self.ready(node);
            let enclave = last.as_ref().filter(|ready| ready.ready);
            let enclave = enclave.and_then(|ready| ready.enclave.as_ref());
            if enclave.is_some_and(|enclave| {
                enclave.keys > 0 && enclave.shares == enclave.keys && enclave.linked.len() == 2
            }) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("node {} is not whole: {last:?}", self.name(node));
    }
    /// Waits until everything that any node has applied is in every store.
    pub fn wait_until_published(&self) {
        wait_until("everything is in the stores", || {
            let applied: Option<Vec<u64>> =
                (0..3).map(|node| Some(self.ready(node)?.enclave?.size)).collect();
            let newest = applied.and_then(|sizes| sizes.into_iter().max());
            newest.is_some() && (0..3).all(|node| self.size_of_store(node) == newest)
        });
    }
    /// What the checkpoint in a node's store says: as much as a recovery finds there.
    fn size_of_store(&self, node: usize) -> Option<u64> {
        let checkpoint = self.data(node).join("store/checkpoint");
        std::fs::read_to_string(checkpoint).ok()?.lines().nth(1)?.parse().ok()
    }
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[arguments, &["--json"]].concat()).done();
        serde_json::from_str(&said).unwrap()
    }
    /// Name, scheme and public key of each key, as proved.
    pub fn keys(&self) -> Vec<[String; 3]> {
        let keys = self.json(&["keys", "list"]);
        let text = |key: &Value, field: &str| key[field].as_str().unwrap().to_owned();
        let keys = keys["keys"].as_array().unwrap();
        keys.iter().map(|key| ["name", "scheme", "public_key"].map(|f| text(key, f))).collect()
    }

    /// A payment of so many USDT from the key `payout` at a path.
    pub fn payment(path: &str, usdt: u64) -> SignRequest {
        let nonce = u64::from(u16::from_be_bytes(random()));
        let amount = Amount::from(usdt * 1_000_000);
        SignRequest {
            request_id: RequestId::new(random()),
            key: KeyName::new("payout").unwrap(),
            path: DerivationPath::parse(path).unwrap(),
            payload: Transaction::usdt_transfer(nonce, MERCHANT, amount).payload(),
        }
    }
    /// A report to be signed with Ed25519.
    pub fn report() -> SignRequest {
        SignRequest {
            request_id: RequestId::new(random()),
            key: KeyName::new("notary").unwrap(),
            path: DerivationPath::root(),
            payload: Payload::Message(random::<20>().to_vec()),
        }
    }
    /// The request as its asker stamps it for an incarnation: what a host could keep and send later.
    pub fn stamped(&self, request: &SignRequest, incarnation: u64) -> (String, Vec<u8>) {
        let who = match request.key.as_str() {
            "notary" => "workflow:reports",
            _ => "workflow:settlement",
        };
        let credential = self.file.credential(who, Some(Role::Requester)).unwrap();
        let scope = Scope { genesis: self.file.genesis_id, incarnation: Incarnation(incarnation) };
        let body = request.to_body().into_bytes();
        let stamp = stamp(&credential, scope, Method::CreateRequest, &body, now(), Millis(290_000))
            .unwrap();
        (stamp.to_header(), body)
    }
    /// Sends what was stamped to a node.
    pub fn send(&self, node: usize, (stamp, body): (String, Vec<u8>)) -> Result<Outcome, String> {
        let api = Api::new(self.plan.nodes[node].url()).unwrap();
        let sent = self.runtime.block_on(api.post(route::REQUESTS, (STAMP_HEADER, stamp), body));
        sent.map_err(|error| error.to_string())
    }
    /// Asks a node until it is settled: the signature, or the denial's code.
    pub fn ask(
        &self,
        node: usize,
        request: &SignRequest,
        incarnation: u64,
    ) -> Result<Vec<u8>, String> {
        use casemate_door::Answer;
        let (since, mut last) = (Instant::now(), String::new());
        while since.elapsed() < PATIENCE {
            match self.send(node, self.stamped(request, incarnation)) {
                Ok(Outcome::Answer(Answer::Signed(signed))) => return Ok(signed.signature),
                Ok(Outcome::Answer(Answer::Denied(denied) | Answer::Expired(denied))) => {
                    return Err(denied.denial.code.name().to_owned());
                }
                // by the former boots: its signature is in the store
                Ok(Outcome::Answer(Answer::Recorded { .. })) => return Err("recorded".to_owned()),
                other => last = format!("{other:?}"),
            }
            sleep(Duration::from_millis(100));
        }
        panic!("not settled within {PATIENCE:?}: {last}");
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // what the processes said, for whoever looks why
        for node in 0..3 {
            for part in Part::ALL {
                let log = std::fs::read_to_string(self.home.log(&self.name(node), part));
                let log = log.unwrap_or_default();
                let from = log.lines().count().saturating_sub(60);
                let end: Vec<&str> = log.lines().skip(from).collect();
                eprintln!("{part} of {}:\n{}\n", self.name(node), end.join("\n"));
            }
        }
    }
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
