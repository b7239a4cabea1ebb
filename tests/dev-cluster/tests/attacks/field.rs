//! The cluster that is attacked, and how soon it serves again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_api::Ready;
use casemate_client::credential::random;
use casemate_client::{
    Client, ClientError, Cluster, ClusterFile, Credential, KeyState, Role, Scope,
};
use casemate_client::{Settings, Sign as _};
use casemate_dev::demo::Tell;
use casemate_dev::demo::payloads::Transaction;
use casemate_dev::demo::people::{People, QUORUM};
use casemate_dev::network::{Network, Temper};
use casemate_dev::processes::api::Api;
use casemate_dev::processes::birth::{now, regions, route_through, runtime};
use casemate_dev::processes::claim::Claim;
use casemate_dev::processes::remote::cluster_file;
use casemate_dev::processes::running::write_configurations;
use casemate_dev::processes::{Home, Part, Plan, Program, Running, machine};
use casemate_policy::Policy;
use casemate_proto::governance::Change;
use casemate_proto::manifest::{GenesisRecord, Governance, Limits};
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::time::{DAY, HOUR};
use casemate_proto::{
    Amount, DerivationPath, Incarnation, KeyName, Millis, NodeName, RequestId, Scheme,
};
use casemate_sim::SimHost;
use casemate_tx::EvmAddress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use tokio::runtime::Runtime;

use crate::load::Book;

const PROGRAM: &str = env!("CARGO_BIN_EXE_casemate-dev");
/// How long anything may take on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How soon the cluster must sign again after the last fault. On a machine that does nothing else it
/// is a third of that; what it was is printed.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// How long a share may be released after its entry: shorter than a pause that is to be survived.
pub const TAU: Millis = Millis(10_000);
/// What may be paid on one path, in USDT.
pub const LIMIT: u64 = 30;
const MERCHANT: EvmAddress = EvmAddress([0xb0; 20]);
const POLICY: &str = r#"
version = 1
name = "attacks"
expires = "{{expires}}"

[asset.usdt]
chain = "eip155:1"
token = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
decimals = 6

[asset.eth]
chain = "eip155:1"
native = true
decimals = 18

{{principals}}
[list.payees.merchants]
"eip155:1" = ["{{merchant}}"]

[[grant]]
id = "notes"
key = "notary"
path = "m/*"
principals = ["workflow:reports"]
allow = ["message"]
limits = [{ count = 50000, window = "24h" }]

[[grant]]
id = "payout"
key = "payout"
path = "m/*"
principals = ["workflow:settlement"]
allow = ["erc20.transfer"]
asset = "usdt"
to = "@payees.merchants"
max_per_tx = "9"
limits = [{ sum = "{{limit}}", window = "24h", per = "path" }]
max_fee_per_tx = "0.002"
fee_limits = [{ sum = "100", window = "24h" }]
"#;

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

/// Waits until something is so. How long that took.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        sleep(Duration::from_millis(50));
    }
    since.elapsed()
}

/// A cluster under attack.
pub struct Field {
    // processes end before the network that they use, and that before the folder
    pub running: Running,
    pub network: Network,
    pub plan: Plan,
    pub home: Home,
    pub genesis: GenesisRecord,
    pub file: ClusterFile,
    pub runtime: Arc<Runtime>,
    /// Everything that was asked for, and what came of it.
    pub book: Book,
    client: Client,
    dice: ChaCha20Rng,
    folder: Option<tempfile::TempDir>,
    _claim: Claim,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Field {
    /// A cluster of three that signs with two, with two keys and the policy above.
    pub fn born() -> Self {
        Self::born_as(Some(alone()))
    }
    /// The same for a test that mostly waits.
    pub fn born_beside_others() -> Self {
        Self::born_as(None)
    }

    fn born_as(alone: Option<MutexGuard<'static, ()>>) -> Self {
        let seed = std::env::var("CASEMATE_ATTACK_SEED");
        let seed = seed.map_or_else(|_| u64::from_be_bytes(random()), |seed| seed.parse().unwrap());
        println!("seed {seed} (CASEMATE_ATTACK_SEED={seed} makes the same choices)");
        let folder = tempfile::tempdir().unwrap();
        let (home, claim) = Home::create(&folder.path().join("c"), false).unwrap();
        let mut plan = Plan::new(2, &regions(3), None).unwrap();
        let runtime = runtime().unwrap();
        let mut network = Network::new(seed, Temper::DEMO);
        route_through(&mut network, &mut plan, &runtime).unwrap();
        let (people, host) = (People::new().unwrap(), SimHost::new().unwrap());
        let governance =
            Governance { quorum: QUORUM, keys: people.governors(), loosening_delay: HOUR };
        let limits = Limits { tau: TAU, ..Limits::default() };
        let manifest =
            machine::manifest(&plan, &host, governance, people.freezers(), limits).unwrap();
        home.write_plan(&plan).unwrap();
        machine::write_root(&home, &host).unwrap();
        write_configurations(&home, &plan, &manifest).unwrap();
        let program = Program::new(PathBuf::from(PROGRAM));
        let mut running = Running::start(home.clone(), plan.clone(), program, true).unwrap();
        let genesis = running.wait_for_birth(&runtime, &manifest, &mut Quiet, &|| false).unwrap();
        let pem = host.root_pem().unwrap();
        let mut file = cluster_file(&manifest.name, &genesis, pem, &running);
        file.credentials = people.file_credentials().unwrap();
        let client = client(&file);
        let mut field = Self {
            running,
            network,
            plan,
            home,
            genesis,
            file,
            runtime,
            book: Book::default(),
            client,
            dice: ChaCha20Rng::seed_from_u64(seed),
            folder: Some(folder),
            _claim: claim,
            _alone: alone,
        };
        let born = Instant::now();
        field.govern(&people);
        println!("born and governed, with its keys, {:.1?} after the genesis", born.elapsed());
        field
    }

    fn govern(&mut self, people: &People) {
        let policy = Policy::from_toml(&self.policy()).unwrap();
        let bytes = policy.canonical_bytes();
        self.change(people, Change::ConfirmGenesis, None);
        self.change(people, Change::SetPolicy { policy: policy.policy_hash() }, Some(bytes));
        let keys = [
            ("casemate.log", Scheme::Ed25519),
            ("notary", Scheme::Ed25519),
            ("payout", Scheme::EcdsaSecp256k1),
        ];
        for (name, scheme) in keys {
            let name = KeyName::new(name).unwrap();
            self.change(people, Change::CreateKey { name, scheme }, None);
        }
        wait_until("the keys are live", || {
            let keys = self.runtime.block_on(self.client.keys()).unwrap_or_default();
            keys.len() == 3 && keys.iter().all(|key| matches!(key, KeyState::Live(_)))
        });
        (0..3).for_each(|node| self.wait_until_whole(node));
    }

    fn policy(&self) -> String {
        let principals: String = ["workflow:reports", "workflow:settlement"]
            .into_iter()
            .map(|id| {
                let credential = self.credential(id);
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
            ("{{limit}}", LIMIT.to_string()),
        ]
        .into_iter()
        .fold(POLICY.to_owned(), |text, (name, value)| text.replace(name, &value))
    }

    fn change(&self, people: &People, change: Change, policy: Option<Vec<u8>>) {
        let mut signed = None;
        wait_until("a change is in force", || {
            self.runtime
                .block_on(async {
                    if signed.is_none() {
                        let belief = self.client.belief(true).await.ok()?;
                        let (head, scope) = (belief.change_head()?, self.scope());
                        signed =
                            Some(people.sign_change(scope, head, change.clone(), now()).unwrap());
                    }
                    let submit =
                        self.client.submit_change(signed.as_ref()?, policy.clone(), PATIENCE);
                    match submit.await {
                        Ok(_) => Some(()),
                        // by a node that is behind
                        Err(ClientError::Refused(_)) => None,
                        Err(error) => panic!("{}: {error}", change.name()),
                    }
                })
                .is_some()
        });
    }

    pub const fn scope(&self) -> Scope {
        Scope { genesis: self.file.genesis_id, incarnation: Incarnation(0) }
    }
    pub fn credential(&self, who: &str) -> Credential {
        self.file.credential(who, Some(Role::Requester)).unwrap()
    }
    pub fn name(&self, node: usize) -> NodeName {
        self.plan.nodes[node].name.clone()
    }
    pub fn api(&self, node: usize) -> Api {
        Api::new(self.plan.nodes[node].url()).unwrap()
    }
    pub fn data(&self, node: usize) -> PathBuf {
        self.home.node(&self.name(node)).join("data")
    }
    /// A folder of this cluster's own for whatever a test needs.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    /// A number below `bound`, by the seed.
    pub fn roll(&mut self, bound: u32) -> u32 {
        self.dice.next_u32() % bound
    }
    /// Waits for a while that is at most so long, by the seed.
    pub fn wait_a_while(&mut self, most_ms: u32) {
        let wait = self.roll(most_ms);
        sleep(Duration::from_millis(wait.into()));
    }

    pub fn signal(&self, node: usize, part: Part, signal: Signal) {
        let pid = self.home.pid(&self.name(node), part).unwrap().expect("it runs");
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }
    /// Kills a process as `kill -9` does, if it runs.
    pub fn kill(&mut self, node: usize, part: Part) {
        let name = self.name(node);
        if let Some(pid) = self.home.pid(&name, part).unwrap() {
            kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
        }
        wait_until("it is gone", || self.home.pid(&name, part).unwrap().is_none());
        self.running.take_ended();
    }
    pub fn start(&mut self, node: usize, parts: &[Part]) {
        let name = self.name(node);
        self.running.start_node(&name, parts).unwrap();
    }

    pub fn ready(&self, node: usize) -> Option<Ready> {
        self.runtime.block_on(self.api(node).ready()).ok()
    }
    pub fn boot(&self, node: usize) -> Option<casemate_proto::BootId> {
        self.ready(node)?.enclave?.boot
    }
    /// The node that leads replication.
    pub fn leader(&self) -> usize {
        let mut leader = None;
        wait_until("somebody leads", || {
            let named = (0..3).find_map(|node| self.ready(node)?.enclave?.leader);
            leader = named.and_then(|name| self.plan.nodes.iter().position(|n| n.name == name));
            leader.is_some()
        });
        leader.unwrap()
    }
    /// Waits until a node serves, hears all others, and holds a share of every key.
    pub fn wait_until_whole(&self, node: usize) {
        let (since, mut last) = (Instant::now(), None);
        while since.elapsed() < PATIENCE {
            last = self.ready(node);
            let enclave = last.as_ref().filter(|ready| ready.ready);
            let enclave = enclave.and_then(|ready| ready.enclave.as_ref());
            let is_whole = |e: &casemate_api::ready::EnclaveStatus| {
                e.keys == 3 && e.shares == e.keys && e.linked.len() == 2
            };
            if enclave.is_some_and(is_whole) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("node {node} is not whole: {last:?}");
    }

    /// The faults are over: waits until the cluster signs, until every node does, and until every node
    /// has all its shares, and prints how long each took.
    pub fn back(&mut self, attack: &str) {
        let since = Instant::now();
        // another each time: what is not signed within τ never is
        wait_until("it signs", || self.sign(&Self::report(0)));
        let signs = since.elapsed();
        for node in 0..3 {
            wait_until("every node signs", || self.ask(node, &Self::report(0)));
        }
        let everywhere = since.elapsed();
        (0..3).for_each(|node| self.wait_until_whole(node));
        println!(
            "{attack}: signs {signs:.1?} after the last fault, at every node after \
             {everywhere:.1?}, with all shares after {:.1?}",
            since.elapsed()
        );
        assert!(signs < BACK_WITHIN, "{attack}: back after {signs:?}");
    }

    /// A report on a round's path, under a fresh id.
    pub fn report(round: u32) -> SignRequest {
        request("notary", round, Payload::Message(random::<20>().to_vec()))
    }
    /// A payment of so many USDT on a round's path, under a fresh id.
    pub fn payment(round: u32, usdt: u64) -> SignRequest {
        let nonce = u64::from(u16::from_be_bytes(random()));
        let payment = Transaction::usdt_transfer(nonce, MERCHANT, Amount::from(usdt * 1_000_000));
        request("payout", round, payment.payload())
    }
}

fn request(key: &str, round: u32, payload: Payload) -> SignRequest {
    SignRequest {
        request_id: RequestId::new(random()),
        key: KeyName::new(key).unwrap(),
        path: DerivationPath::new(&[round]).unwrap(),
        payload,
    }
}

/// A client that does not wait long for a node.
pub fn client(file: &ClusterFile) -> Client {
    let settings = Settings {
        connect: Duration::from_secs(1),
        reply: Duration::from_secs(3),
        answer: Duration::from_secs(8),
        belief_life: Duration::from_secs(5),
        first_pause: Duration::from_millis(50),
        longest_pause: Duration::from_millis(500),
        ..Settings::default()
    };
    Client::new(Cluster::from_file(file).unwrap(), settings).unwrap()
}

/// Copies a folder as it is.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&from, &to);
        } else {
            // what is written meanwhile may be gone by now
            let _ = std::fs::copy(from, to);
        }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take_if(|_| std::thread::panicking()) {
            println!("the nodes' logs are in {}/c/NODE/*.log", folder.keep().display());
        }
    }
}
