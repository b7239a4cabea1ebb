//! Runs the program, and asks the clusters that it starts.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_api::{Outcome, route};
use casemate_client::credential::{random, stamp};
use casemate_client::{ClusterFile, Role, Scope};
use casemate_dev::demo::payloads::Transaction;
use casemate_dev::processes::api::Api;
use casemate_dev::processes::birth::now;
use casemate_dev::processes::{Home, Part, Plan};
use casemate_door::Answer;
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::stamp::Method;
use casemate_proto::{Amount, DerivationPath, Incarnation, KeyName, Millis, NodeName, RequestId};
use casemate_tx::EvmAddress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_casemate-dev");
/// A listed merchant of the development policy.
pub const MERCHANT: EvmAddress = EvmAddress([0xb0; 20]);
/// How long anything may take on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Clusters share the machine's processors: one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
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

/// Runs the program to its end: status, standard output, standard error.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Runs the program, which must succeed; what it said.
pub fn succeed(arguments: &[&str]) -> String {
    let (status, said, wrong) = run(arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {said}{wrong}");
    said
}

/// Runs the program, which must refuse with status 1 and one line that has these words.
pub fn refuse(arguments: &[&str], words: &[&str]) {
    let (status, said, wrong) = run(arguments);
    assert_eq!(status, Some(1), "{arguments:?}: {said}{wrong}");
    let errors: Vec<&str> = wrong.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{arguments:?}: {wrong}");
    assert!(wrong.ends_with(&format!("{}\n", errors[0])), "{arguments:?}: {wrong}");
    for word in words {
        assert!(errors[0].contains(word), "{arguments:?}: `{word}` is not in: {wrong}");
    }
}

/// The program in the background.
pub struct Background {
    process: std::process::Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Background {
    pub fn start(arguments: &[&str], temporary: &Path) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(arguments)
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(process.stdout.take().unwrap()), Box::new(process.stderr.take().unwrap())];
        for stream in streams {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.lock().unwrap().push(line);
                }
            });
        }
        Self { process, said }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    pub fn wait_for(&mut self, words: &str) {
        let since = Instant::now();
        while !self.said().contains(words) {
            let ended = self.process.try_wait().unwrap();
            let said = self.said();
            assert!(ended.is_none() || said.contains(words), "ended ({ended:?}): {said}");
            assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} for `{words}`: {said}");
            sleep(Duration::from_millis(50));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    pub fn wait(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("it ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A cluster that `up` started.
pub struct Cluster {
    pub up: Option<Background>,
    pub home: Home,
    pub plan: Plan,
    file: ClusterFile,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Cluster {
    pub fn up(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("cluster");
        let mut all = vec!["up", "--dir", dir.to_str().unwrap()];
        all.extend(arguments);
        let mut up = Background::start(&all, folder.path());
        up.wait_for("Ctrl-C ends it");
        let (home, plan) = Home::open(&dir).unwrap();
        let file = ClusterFile::load(&home.cluster_file()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { up: Some(up), home, plan, file, runtime, _folder: folder }
    }

    pub fn dir(&self) -> &str {
        self.home.path().to_str().unwrap()
    }
    pub fn name(&self, node: usize) -> NodeName {
        self.plan.nodes[node].name.clone()
    }
    pub fn pid(&self, node: usize, part: Part) -> Option<u32> {
        self.home.pid(&self.name(node), part).unwrap()
    }
    pub fn pids(&self) -> Vec<u32> {
        let nodes = 0..self.plan.nodes.len();
        nodes.flat_map(|node| Part::ALL.map(|part| self.pid(node, part))).flatten().collect()
    }

    /// Kills a process as `kill -9` does.
    pub fn kill(&self, node: usize, part: Part) {
        let pid = self.pid(node, part).unwrap();
        kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
        wait_until("it is gone", || self.pid(node, part).is_none());
    }

    /// The line that starts a process by hand, as the folder's README has it.
    pub fn command_line(&self, node: usize, part: Part) -> String {
        let text = std::fs::read_to_string(self.home.readme()).unwrap();
        let what = match part {
            Part::Enclave => format!(" enclave --dir {} --node {}", self.dir(), self.name(node)),
            Part::Parent => {
                let config = self.home.parent_config(&self.name(node));
                format!(" parent --config {}", config.display())
            }
        };
        text.lines().find(|line| line.contains(&what)).expect(&what).trim().to_owned()
    }

    pub fn api(&self, node: usize) -> Api {
        Api::new(self.plan.nodes[node].url()).unwrap()
    }

    /// What a node has at a path.
    pub fn get(&self, node: usize, path: &str) -> String {
        let (status, body) = self.runtime.block_on(self.api(node).get(path, 1 << 20)).unwrap();
        assert_eq!(status, 200, "{path}");
        String::from_utf8(body).unwrap()
    }

    /// Waits until a node serves, hears all others, and holds a share of every key.
    pub fn wait_until_whole(&self, node: usize) {
        let (api, since, mut last) = (self.api(node), Instant::now(), String::new());
        wait_until("a node is whole", || {
            let ready = self.runtime.block_on(api.ready());
            let whole = ready.as_ref().is_ok_and(|ready| {
                let others = self.plan.nodes.len() - 1;
                let enclave = ready.enclave.as_ref();
                ready.ready
                    && enclave.is_some_and(|enclave| {
                        enclave.keys > 0
                            && enclave.shares == enclave.keys
                            && enclave.linked.len() == others
                    })
            });
            last = format!("{ready:?}");
            whole || since.elapsed() > PATIENCE
        });
        assert!(since.elapsed() <= PATIENCE, "{last}");
    }

    /// The boot that a node says its enclave is.
    pub fn boot(&self, node: usize) -> Option<casemate_proto::BootId> {
        self.runtime.block_on(self.api(node).ready()).ok()?.enclave?.boot
    }

    /// A payment of some USDT by the settlement workflow, under a fresh id.
    pub fn payment(&self) -> SignRequest {
        let nonce = u64::from(u16::from_be_bytes(random()));
        let amount = Amount::from(1_000_000_u64);
        let payment = Transaction::usdt_transfer(nonce, MERCHANT, amount);
        self.request("payout", payment.payload())
    }
    /// A report to be signed with Ed25519.
    pub fn report(&self) -> SignRequest {
        self.request("notary", Payload::Message(random::<20>().to_vec()))
    }
    fn request(&self, key: &str, payload: Payload) -> SignRequest {
        SignRequest {
            request_id: RequestId::new(random()),
            key: KeyName::new(key).unwrap(),
            path: DerivationPath::root(),
            payload,
        }
    }

    /// Asks one node once, in the name of whoever may.
    pub fn ask(&self, node: usize, request: &SignRequest) -> Result<Outcome, String> {
        let (api, header, body) = self.prepared(node, request);
        let outcome = self.runtime.block_on(api.post(route::REQUESTS, header, body));
        outcome.map_err(|error| error.to_string())
    }

    /// Asks without waiting for the answer.
    pub fn ask_and_go(&self, node: usize, request: &SignRequest) {
        let (api, header, body) = self.prepared(node, request);
        self.runtime.spawn(async move {
            let _ = api.post(route::REQUESTS, header, body).await;
        });
    }

    fn prepared(
        &self,
        node: usize,
        request: &SignRequest,
    ) -> (Api, (&'static str, String), Vec<u8>) {
        let who = match request.key.as_str() {
            "notary" => "workflow:reports",
            _ => "workflow:settlement",
        };
        let credential = self.file.credential(who, Some(Role::Requester)).unwrap();
        let scope = Scope { genesis: self.file.genesis_id, incarnation: Incarnation(0) };
        let body = request.to_body().into_bytes();
        let stamp =
            stamp(&credential, scope, Method::CreateRequest, &body, now(), Millis(60_000)).unwrap();
        let header = (casemate_api::STAMP_HEADER, stamp.to_header());
        (self.api(node), header, body)
    }

    /// Asks one node until it is settled: signed, or known to be in the log.
    pub fn settle(&self, node: usize, request: &SignRequest) -> Answer {
        let (since, mut last) = (Instant::now(), None);
        while since.elapsed() < PATIENCE {
            match self.ask(node, request) {
                Ok(Outcome::Answer(answer @ (Answer::Signed(_) | Answer::Recorded { .. }))) => {
                    return answer;
                }
                Ok(Outcome::Answer(Answer::Denied(denied))) => panic!("{}", denied.denial),
                Ok(Outcome::Answer(Answer::Expired(denied))) => panic!("expired: {denied:?}"),
                other => last = Some(other),
            }
            sleep(Duration::from_millis(100));
        }
        panic!("not settled within {PATIENCE:?}: {last:?}");
    }

    /// Asks one node until it has signed; the signature.
    pub fn sign(&self, node: usize, request: &SignRequest) -> Vec<u8> {
        match self.settle(node, request) {
            Answer::Signed(signed) => signed.signature,
            other => panic!("{other:?}"),
        }
    }

    /// What is in the log, by its kind, that names this request: from a node's store, once that has all
    /// of the log.
    fn records_of(&self, node: usize, request: &SignRequest) -> Vec<String> {
        let api = self.api(node);
        let view = self.get(node, &route::with_nonce(route::CLUSTER, &random()));
        let view: serde_json::Value = serde_json::from_str(&view).unwrap();
        let size = view["cluster"]["size"].as_u64().unwrap();
        let store = casemate_dev::processes::api::RemoteStore::new(&api, &self.runtime);
        wait_until("the store has all of the log", || store.size().is_ok_and(|has| has >= size));
        let files = store.copy().unwrap();
        let id = request.request_id.as_bytes();
        let hex = request.request_id.to_hex();
        let mut found = Vec::new();
        for (path, bundle) in files.iter().filter(|(path, _)| path.starts_with("tile/entries/")) {
            let tile = casemate_audit::tile::Tile::parse(path).unwrap();
            for leaf in casemate_audit::tile::parse_bundle(tile, bundle).unwrap() {
                let record = casemate_audit::Record::parse(leaf).unwrap();
                let fields = record.fields();
                let entry = &fields.entry;
                let names = |needle: &[u8]| entry.windows(needle.len()).any(|part| part == needle);
                if names(id) || names(hex.as_bytes()) {
                    let verdict: casemate_ledger::Verdict =
                        casemate_proto::cbor::decode(&fields.verdict, fields.verdict.len())
                            .unwrap();
                    found.push(format!("{} {}", fields.kind, verdict.name()));
                }
            }
        }
        found
    }

    /// That the log allows this request once and has one signature for it. What a leader took and answered
    /// too late is proposed again, so that either may be in the log once more: as repeated, which changes nothing.
    pub fn assert_charged_and_signed_once(&self, node: usize, request: &SignRequest) {
        let records = self.records_of(node, request);
        for once in ["request allowed", "signed accepted"] {
            let times = records.iter().filter(|record| *record == once).count();
            assert_eq!(times, 1, "{once}: {records:?}");
        }
        let again = records.iter().filter(|record| record.ends_with(" repeated")).count();
        assert_eq!(records.len(), 2 + again, "{records:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // whatever a test that failed has left
        self.up = None;
        let _ = run(&["down", "--dir", self.dir()]);
    }
}

/// Whether a process is there.
pub fn is_alive(pid: u32) -> bool {
    kill(Pid::from_raw(pid.try_into().unwrap()), None).is_ok()
}

/// A port that somebody listens on, and who does.
pub fn taken_port() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

/// The clusters' folders within a folder for temporary ones.
pub fn folders(temporary: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(temporary).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}
