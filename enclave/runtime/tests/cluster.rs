//! Enclaves with their real door, channels and replication, and a parent of a few lines between them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "cluster/parent.rs"]
mod parent;
#[path = "cluster/recovery.rs"]
mod recovery;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_door::frame::Phase;
use casemate_door::{
    CONTROL_PORT, Configuration, MAX_FRAME, PEER_PORT, Query, Reply, Status, Submission, Ticket,
    ToEnclave,
};
use casemate_proto::credential::PublicKey;
use casemate_proto::governance::{Change, ChangeEnvelope, NamedSignature, SignedChange};
use casemate_proto::hash::sha256;
use casemate_proto::manifest::{
    GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement, NodeSpec,
    RecoveryKeys,
};
use casemate_proto::{
    Algorithm, Hash32, Incarnation, KeyName, Millis, NodeName, Scheme, UnixMillis,
};
use casemate_recovery::RecoverySecretKey;
use casemate_replication::ReadClock;
use casemate_runtime::{Platform, Settings, SystemClock, Trust, serve};
use casemate_sim::{EnclaveSpec, SimHost};
use casemate_transport::{Address, Listener};
use ed25519_dalek::{Signer as _, SigningKey};
use parent::{Known, parent, pipe};
use rand_core::OsRng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const REGIONS: [&str; 3] = ["ap-southeast-1", "eu-west-1", "us-east-1"];
const IMAGE: [[u8; 48]; 3] = [[1; 48], [2; 48], [3; 48]];

struct NodeUnderTest {
    name: NodeName,
    /// Which incarnation its parent configures it for, and whether it is to begin it.
    incarnation: (u64, bool),
    socket: PathBuf,
    known: Arc<Mutex<Known>>,
    tasks: Vec<JoinHandle<()>>,
    ask: Option<tokio::sync::mpsc::UnboundedSender<ToEnclave>>,
}

/// Both governors of a cluster that can be recovered.
fn governors() -> [(SigningKey, PublicKey); 2] {
    let second = SigningKey::from_bytes(&[8; 32]);
    let public = PublicKey::new(Algorithm::Ed25519, second.verifying_key().as_bytes()).unwrap();
    [governor(), (second, public)]
}

fn recovery_key(seed: u8) -> RecoverySecretKey {
    RecoverySecretKey::from_bytes(zeroize::Zeroizing::new([seed; 32])).unwrap()
}

/// Who alone governs, and the governor's public key.
fn governor() -> (SigningKey, PublicKey) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = PublicKey::new(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap();
    (key, public)
}

struct Bench {
    host: SimHost,
    manifest: Manifest,
    nodes: Vec<NodeUnderTest>,
    links: Vec<JoinHandle<()>>,
    /// What each node starts with.
    images: [[[u8; 48]; 3]; 3],
    /// By how much the enclaves' system clocks are ahead.
    ahead: Millis,
    /// Whether the last two nodes are not joined again where their link ends.
    hold: tokio::sync::watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

/// The image that comes after it.
const NEXT_IMAGE: [[u8; 48]; 3] = [[4; 48], [5; 48], [3; 48]];

/// What comes after the third is another enclave of the third's node.
fn spec(at: usize, image: [[u8; 48]; 3]) -> EnclaveSpec {
    let at = at.min(2);
    EnclaveSpec::numbered(u32::try_from(at).unwrap(), REGIONS[at], image)
}

fn measured(image: [[u8; 48]; 3]) -> Measurement {
    Measurement { pcr0: image[0], pcr1: image[1], pcr2: image[2] }
}

/// A system's clock that is ahead of the security module's.
struct Astray(Millis);

impl ReadClock for Astray {
    fn now(&self) -> UnixMillis {
        SystemClock.now().saturating_add(self.0)
    }
}

impl Bench {
    fn new() -> Self {
        let host = SimHost::new().unwrap();
        let nodes = (0..3)
            .map(|at| NodeSpec {
                name: NodeName::new(REGIONS[at]).unwrap(),
                region: REGIONS[at].to_owned(),
                pcr3: spec(at, IMAGE).pcrs()[3].1,
            })
            .collect();
        let (_, governor) = governor();
        let manifest = Manifest {
            version: 1,
            name: "runtime".to_owned(),
            threshold: 2,
            nodes,
            measurements: vec![measured(IMAGE)],
            governance: Governance {
                quorum: 1,
                keys: vec![governor],
                loosening_delay: Millis(1_000),
            },
            freezers: Vec::new(),
            limits: Limits::default(),
            independence: Independence::Regions,
            hardware: Hardware::Simulated,
            trust_root: Hash32::new(sha256(host.root_der())),
            relying_party: None,
            recovery: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let nodes = REGIONS
            .iter()
            .map(|region| NodeUnderTest {
                name: NodeName::new(region).unwrap(),
                incarnation: (0, false),
                socket: folder.path().join(region),
                known: Arc::default(),
                tasks: Vec::new(),
                ask: None,
            })
            .collect();
        let (hold, _) = tokio::sync::watch::channel(false);
        Self {
            host,
            manifest,
            nodes,
            links: Vec::new(),
            images: [IMAGE; 3],
            ahead: Millis(0),
            hold,
            _folder: folder,
        }
    }

    fn platform(&self, at: usize) -> Platform {
        let clock = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::try_from(now.as_millis()).unwrap()
        };
        Platform {
            attest: Arc::new(self.host.start(spec(at, self.images[at.min(2)])).with_clock(clock)),
            clock: Arc::new(Astray(self.ahead)),
            entropy: Box::new(|| Ok(Box::new(OsRng))),
            trust: Trust {
                root: Hash32::new(sha256(self.host.root_der())),
                hardware: Hardware::Simulated,
            },
            settings: Settings { status: Duration::from_millis(100), ..Settings::default() },
        }
    }

    /// The same with two governors, who can recover it.
    fn recoverable() -> Self {
        let mut bench = Self::new();
        let governance = &mut bench.manifest.governance;
        governance.keys = governors().into_iter().map(|(_, public)| public).collect();
        governance.quorum = 2;
        let keys = [101, 102].map(|seed| recovery_key(seed).public()).to_vec();
        bench.manifest.recovery = Some(RecoveryKeys { keys });
        bench
    }

    /// Starts a boot of a node and the control half of its parent.
    fn start(&mut self, at: usize) {
        let platform = self.platform(at);
        let manifest = casemate_proto::cbor::encode(&self.manifest);
        let node = &mut self.nodes[at];
        let genesis = node.known.lock().unwrap().genesis.clone();
        let (files, sealed) = {
            let mut known = node.known.lock().unwrap();
            (std::mem::take(&mut known.files), known.sealed.take())
        };
        let kept = Known { genesis: genesis.clone(), files, sealed, ..Known::default() };
        *node.known.lock().unwrap() = kept;
        let address = Address::unix(&node.socket).unwrap();
        let door = Listener::bind(&address, &[CONTROL_PORT, PEER_PORT]).unwrap();
        node.tasks.push(tokio::spawn(async move {
            // it ends when its task is stopped
            let _ = serve(door, platform).await;
        }));
        let configuration = Configuration {
            node: node.name.clone(),
            manifest,
            genesis,
            triple_stock: Some(0),
            round_trip_ms: Some(75),
            incarnation: Incarnation(node.incarnation.0),
            recovers: node.incarnation.1,
        };
        let (ask, asked) = tokio::sync::mpsc::unbounded_channel();
        ask.send(ToEnclave::Configure(configuration)).unwrap();
        node.ask = Some(ask);
        node.tasks.push(tokio::spawn(parent(node.socket.clone(), asked, Arc::clone(&node.known))));
    }

    async fn stop(&mut self, at: usize) {
        for task in self.nodes[at].tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    /// Joins every pair of nodes, again and again.
    fn link(&mut self) {
        for dialler in 0..3 {
            for acceptor in dialler + 1..3 {
                let (from, to) = (&self.nodes[dialler], &self.nodes[acceptor]);
                self.links.push(tokio::spawn(pipe(
                    from.socket.clone(),
                    to.socket.clone(),
                    to.name.clone(),
                    ((dialler, acceptor) == (1, 2)).then(|| self.hold.subscribe()),
                )));
            }
        }
    }

    fn status(&self, at: usize) -> Option<Status> {
        self.nodes[at].known.lock().unwrap().status.clone()
    }

    /// Has changes made through a node, each on top of the one before, beginning with the first of all.
    async fn govern(&self, at: usize, changes: Vec<Change>) {
        self.govern_after(at, None, changes).await;
    }

    /// The same after another change. The last one's id.
    async fn govern_after(&self, at: usize, after: Option<Hash32>, changes: Vec<Change>) -> Hash32 {
        let record = self.nodes[at].known.lock().unwrap().genesis.clone().unwrap();
        let record: GenesisRecord = casemate_proto::cbor::decode(&record, MAX_FRAME).unwrap();
        let quorum = usize::try_from(self.manifest.governance.quorum).unwrap();
        let genesis = record.id();
        let mut predecessor = after.unwrap_or(Hash32::new(*genesis.as_bytes()));
        for (before, change) in (self.count(at, "answers_accepted")..).zip(changes) {
            let expires = UnixMillis(self.status(at).unwrap().now.0 + 600_000);
            let incarnation = Incarnation(self.nodes[at].incarnation.0);
            let envelope = ChangeEnvelope { genesis, incarnation, predecessor, expires, change };
            predecessor = envelope.id();
            let message = envelope.signing_bytes();
            let sign = |(key, public): &(SigningKey, PublicKey)| NamedSignature {
                credential: public.id(),
                signature: key.sign(&message).to_bytes(),
            };
            let signatures = governors().iter().take(quorum).map(sign).collect();
            let signed = SignedChange { envelope, signatures };
            let submission = Submission::Governance { signed, attachment: None };
            let submit = ToEnclave::Submit { ticket: Ticket(before), submission };
            self.nodes[at].ask.as_ref().unwrap().send(submit).unwrap();
            self.until("changed", |bench| bench.count(at, "answers_accepted") > before).await;
        }
        predecessor
    }

    fn count(&self, at: usize, name: &str) -> u64 {
        let counters = self.status(at).unwrap().counters;
        counters.iter().find(|(counter, _)| counter == name).unwrap().1
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(Duration::from_secs(60), wait).await.is_err() {
            let all: Vec<_> = (0..3).map(|at| self.status(at)).collect();
            panic!("not {what}: {all:?}");
        }
    }

    fn are_members(&self, nodes: &[usize]) -> bool {
        nodes.iter().all(|at| {
            self.status(*at).is_some_and(|status| {
                status.phase == Phase::Member
                    && status.leader.is_some()
                    && status.majority_age.is_some_and(|age| age < Millis(2_000))
            })
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_three_boots_are_born_into_one_genesis_and_a_restarted_one_is_admitted() {
    let mut bench = Bench::new();
    bench.link();
    (0..3).for_each(|at| bench.start(at));
    bench.until("members", |bench| bench.are_members(&[0, 1, 2])).await;
    let genesis: Vec<_> =
        bench.nodes.iter().map(|n| n.known.lock().unwrap().genesis.clone().unwrap()).collect();
    assert!(genesis.iter().all(|other| *other == genesis[0]));
    let boot = bench.status(2).unwrap().boot;

    bench.stop(2).await;
    bench.until("going on", |bench| bench.are_members(&[0, 1])).await;
    bench.start(2);
    bench.until("admitted", |bench| bench.are_members(&[0, 1, 2])).await;
    let status = bench.status(2).unwrap();
    assert_ne!(status.boot, boot, "a restart is another boot");
    assert!(status.size >= 2);

    // the restarted one and one that never was stopped are a majority
    bench.stop(0).await;
    bench.until("two members", |bench| bench.are_members(&[1, 2])).await;
    bench.start(0);
    bench.until("all back", |bench| bench.are_members(&[0, 1, 2])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_nodes_are_rolled_to_another_image_once_governance_has_accepted_it_and_not_before() {
    let mut bench = Bench::new();
    bench.link();
    (0..3).for_each(|at| bench.start(at));
    bench.until("members", |bench| bench.are_members(&[0, 1, 2])).await;
    let head = bench.govern_after(0, None, vec![Change::ConfirmGenesis]).await;

    bench.images[2] = NEXT_IMAGE;
    bench.stop(2).await;
    bench.start(2);
    bench.until("going on", |bench| bench.are_members(&[0, 1])).await;
    sleep(Duration::from_secs(4)).await;
    let status = bench.status(2).unwrap();
    assert_eq!((status.phase, status.linked.len()), (Phase::Joining, 0), "nobody accepted it");

    let accept = Change::AcceptImage { measurement: measured(NEXT_IMAGE) };
    let head = bench.govern_after(0, Some(head), vec![accept]).await;
    bench.until("the first is rolled", |bench| bench.are_members(&[0, 1, 2])).await;
    for at in [1, 0] {
        bench.images[at] = NEXT_IMAGE;
        bench.stop(at).await;
        bench.start(at);
        bench.until("the next is rolled", |bench| bench.are_members(&[0, 1, 2])).await;
    }

    // what is retired does not come back, and what all run now still does
    let retire = Change::RetireImage { measurement: measured(IMAGE) };
    bench.govern_after(2, Some(head), vec![retire]).await;
    bench.images[0] = IMAGE;
    bench.stop(0).await;
    bench.start(0);
    bench.until("going on", |bench| bench.are_members(&[1, 2])).await;
    sleep(Duration::from_secs(4)).await;
    let status = bench.status(0).unwrap();
    assert_eq!((status.phase, status.linked.len()), (Phase::Joining, 0), "it was retired");
    bench.images[0] = NEXT_IMAGE;
    bench.stop(0).await;
    bench.start(0);
    bench.until("all back", |bench| bench.are_members(&[0, 1, 2])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_link_of_a_boot_whose_image_is_retired_is_closed() {
    let mut bench = Bench::new();
    bench.manifest.measurements = vec![measured(IMAGE), measured(NEXT_IMAGE)];
    bench.images = [NEXT_IMAGE; 3];
    bench.link();
    (0..3).for_each(|at| bench.start(at));
    bench.until("members", |bench| bench.are_members(&[0, 1, 2])).await;

    // another enclave for the last node, with the older image: linked, and kept out
    bench.images[2] = IMAGE;
    let third = &bench.nodes[2];
    let (name, socket) = (third.name.clone(), third.socket.with_extension("twin"));
    let genesis = third.known.lock().unwrap().genesis.clone();
    let known = Arc::new(Mutex::new(Known { genesis, ..Known::default() }));
    let twin = NodeUnderTest {
        name: name.clone(),
        incarnation: (0, false),
        socket: socket.clone(),
        known,
        tasks: Vec::new(),
        ask: None,
    };
    bench.nodes.push(twin);
    bench.start(3);
    let from = bench.nodes[0].socket.clone();
    bench.links.push(tokio::spawn(pipe(from, socket, name, None)));
    let linked = |bench: &Bench| bench.status(3).is_some_and(|status| !status.linked.is_empty());
    bench.until("linked", linked).await;

    let retire = Change::RetireImage { measurement: measured(IMAGE) };
    bench.govern(0, vec![Change::ConfirmGenesis, retire]).await;
    bench.until("cut off", |bench| !linked(bench)).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!linked(&bench), "nor linked again");
    assert!(bench.are_members(&[0, 1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_asked_for_right_after_the_birth_is_made_once_all_are_linked_again() {
    let mut bench = Bench::new();
    bench.link();
    bench.start(1);
    bench.start(2);
    let linked = |at: usize, to: usize| {
        move |bench: &Bench| {
            let name = &bench.nodes[to].name;
            bench.status(at).is_some_and(|status| status.linked.contains(name))
        }
    };
    bench.until("linked at the birth", linked(1, 2)).await;
    bench.hold.send_replace(true);
    bench.start(0);
    bench.until("a member", |bench| bench.are_members(&[0])).await;
    let name = KeyName::new("notary").unwrap();
    let create = Change::CreateKey { name, scheme: Scheme::Ed25519 };
    bench.govern(0, vec![Change::ConfirmGenesis, create]).await;
    sleep(Duration::from_millis(1_500)).await;
    assert!(!linked(1, 2)(&bench), "a link of the birth is none of the cluster's");
    assert_eq!(bench.status(0).unwrap().keys, 0);

    bench.hold.send_replace(false);
    let since = std::time::Instant::now();
    let is_live = |bench: &Bench| {
        (0..3).all(|at| bench.status(at).is_some_and(|s| (s.keys, s.shares) == (1, 1)))
    };
    bench.until("a key", is_live).await;
    for at in 0..3 {
        assert_eq!(bench.count(at, "key_runs_expired"), 0, "no run has waited in vain");
    }
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_of_no_node_of_the_roster_is_refused_and_another_is_taken() {
    let mut bench = Bench::new();
    bench.nodes[0].name = NodeName::new("nobody").unwrap();
    bench.start(0);
    let refused = |bench: &Bench| bench.nodes[0].known.lock().unwrap().refused.clone();
    bench.until("refused", |bench| refused(bench).is_some()).await;
    assert_eq!(refused(&bench).unwrap(), "the manifest has no node `nobody`");
    let manifest = casemate_proto::cbor::encode(&bench.manifest);
    let node = NodeName::new(REGIONS[0]).unwrap();
    let configuration = Configuration {
        node,
        manifest,
        genesis: None,
        triple_stock: None,
        round_trip_ms: None,
        incarnation: Incarnation(0),
        recovers: false,
    };
    bench.nodes[0].ask.as_ref().unwrap().send(ToEnclave::Configure(configuration)).unwrap();
    let at_birth = |bench: &Bench| bench.status(0).is_some_and(|s| s.phase == Phase::Birth);
    bench.until("at its birth", at_birth).await;
}

/// What a host says of whose documents count, against what the enclave was built to believe.
async fn refusal_of(change: impl FnOnce(&mut Manifest)) -> String {
    let mut bench = Bench::new();
    change(&mut bench.manifest);
    bench.start(0);
    let refused = |bench: &Bench| bench.nodes[0].known.lock().unwrap().refused.clone();
    bench.until("refused", |bench| refused(bench).is_some()).await;
    let waits = |bench: &Bench| bench.status(0).is_some_and(|s| s.phase == Phase::Waiting);
    bench.until("waiting still", waits).await;
    refused(&bench).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_manifest_that_names_another_root_than_the_enclave_was_built_with_is_refused() {
    let other = SimHost::new().unwrap();
    let other = Hash32::new(sha256(other.root_der()));
    let said = refusal_of(|manifest| manifest.trust_root = other).await;
    let expected = format!("the manifest trusts the root {}", other.to_hex());
    assert!(said.starts_with(&expected), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_manifest_that_calls_simulated_nodes_nitro_is_refused() {
    let said = refusal_of(|manifest| manifest.hardware = Hardware::Nitro).await;
    assert_eq!(
        said,
        "the manifest says `nitro` of its nodes' hardware, and this enclave's root vouches for \
         `simulated`"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_enclave_whose_clock_goes_astray_follows_the_security_module_s_time() {
    let mut bench = Bench::new();
    bench.ahead = Millis(60_000);
    bench.start(0);
    let is_right = |bench: &Bench| {
        let now = SystemClock.now();
        bench.status(0).is_some_and(|status| status.now.since(now) < Millis(2_000))
    };
    bench.until("right", is_right).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_attestation_for_an_asker_bears_the_askers_nonce_and_binds_the_boots_key() {
    let mut bench = Bench::new();
    bench.link();
    (0..3).for_each(|at| bench.start(at));
    bench.until("members", |bench| bench.are_members(&[0, 1, 2])).await;
    let nonce = [9; 32];
    let ask = ToEnclave::Ask { ticket: Ticket(1), query: Query::Attest { nonce } };
    bench.nodes[1].ask.as_ref().unwrap().send(ask).unwrap();
    bench.until("a reply", |b| !b.nodes[1].known.lock().unwrap().replies.is_empty()).await;
    let (ticket, reply) = bench.nodes[1].known.lock().unwrap().replies.remove(0);
    assert_eq!(ticket, Ticket(1));
    let genesis = bench.status(1).unwrap().genesis.unwrap();
    let reply = reply.unwrap();
    let Ok(Reply::Attested(record)) = casemate_proto::cbor::decode(&reply.reply, MAX_FRAME) else {
        panic!("not an attestation")
    };
    assert_eq!(reply.open(&genesis, &nonce, &record.key), Some(Reply::Attested(record.clone())));
    assert_eq!(reply.open(&genesis, &[8; 32], &record.key), None);
    let scope = Hash32::new(*genesis.as_bytes());
    let user_data = record.user_data(&scope);
    let within = |part: &[u8]| record.evidence.windows(part.len()).any(|window| window == part);
    assert!(within(user_data.as_bytes()) && within(&nonce));
}
