//! A cluster of processes as the demo sees it: over HTTP, from outside.
//!
//! What the demo believes of the cluster it asks by way of the client, which verifies: attestation,
//! keys, who cosigns, changes. What it submits it sends by itself, to the node that it names and once,
//! since much of it is what no honest client would send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_api::header::STAMP_HEADER;
use casemate_api::{Outcome, ProblemCode, route};
use casemate_client::{
    Belief, Client, ClientError, ClusterFile, KeyState, NodeAddress, Scope, Settings,
};
use casemate_ledger::Attachment;
use casemate_ledger::entry::ApprovalProof;
use casemate_ledger::state::RESERVED_PREFIX;
use casemate_proto::governance::SignedChange;
use casemate_proto::manifest::{GenesisRecord, Manifest, Measurement};
use casemate_proto::{BootId, Denial, Hash32, Millis, NodeName, UnixMillis, cbor};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::api::{Api, ApiError, RemoteStore};
use super::{Part, Running};
use crate::demo::DemoError;
use crate::demo::cluster::{
    Answer, Cosigner, Faults, Health, Key, Nodes, Submission, Ticket, read_door,
};
use crate::network::{Counts, Network};

/// How long a question to the cluster is asked again where it has no answer: while nodes come and go.
const ASK_WITHIN: Duration = Duration::from_secs(30);
/// How long a change may take.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may be behind the others while they are well.
const BEHIND_AT_MOST: Duration = Duration::from_secs(5);
/// How long the store may lag behind the log.
const STORE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// When a node that did not answer may be asked again.
const RETRY_AFTER: Millis = Millis(300);

/// A cluster of processes, seen from outside.
#[derive(Debug)]
pub struct Remote {
    // processes end before the network that they use
    running: Running,
    network: Option<(Network, u64)>,
    genesis: GenesisRecord,
    client: Client,
    apis: Vec<Api>,
    /// Keys of boots that at least t nodes called current at some time: whose denials are believed.
    boots: BTreeMap<BootId, [u8; 32]>,
    restarted: Vec<usize>,
    asked: BTreeMap<u64, JoinHandle<Result<Outcome, ApiError>>>,
    decided: BTreeMap<u64, Answer>,
    next_ticket: u64,
    runtime: Arc<Runtime>,
}

/// The cluster file of a cluster that was born.
#[must_use]
pub fn cluster_file(
    name: &str,
    genesis: &GenesisRecord,
    trust_root_pem: String,
    running: &Running,
) -> ClusterFile {
    let node = |node: &super::PlannedNode| NodeAddress {
        name: node.name.clone(),
        url: node.url(),
        folder: Some(node.name.as_str().into()),
    };
    ClusterFile {
        schema: casemate_client::cluster_file::SCHEMA.to_owned(),
        name: name.to_owned(),
        genesis_id: genesis.id(),
        genesis: Some(casemate_client::cluster_file::Blob::inline(&cbor::encode(genesis))),
        manifest: None,
        trust_root_pem,
        images: Vec::new(),
        nodes: running.plan().nodes.iter().map(node).collect(),
        credentials: Vec::new(),
    }
}

impl Remote {
    /// A cluster that was born, by its cluster file.
    ///
    /// # Errors
    /// If the file contradicts itself or no HTTP client can be made.
    pub fn new(
        running: Running,
        network: Option<(Network, u64)>,
        genesis: GenesisRecord,
        file: &ClusterFile,
        runtime: Arc<Runtime>,
    ) -> Result<Self, DemoError> {
        let cluster = casemate_client::Cluster::from_file(file)?;
        // the demo changes the cluster faster than anybody would, and wants to see that
        let settings = Settings {
            belief_life: Duration::ZERO,
            stragglers: Duration::from_millis(500),
            ..Settings::default()
        };
        let client = Client::new(cluster, settings).map_err(failed)?;
        let apis = running.plan().nodes.iter().map(|node| Api::new(node.url()));
        let apis = apis.collect::<Result<_, ApiError>>().map_err(no_api)?;
        Ok(Self {
            running,
            network,
            genesis,
            client,
            apis,
            boots: BTreeMap::new(),
            restarted: Vec::new(),
            asked: BTreeMap::new(),
            decided: BTreeMap::new(),
            next_ticket: 0,
            runtime,
        })
    }

    /// Which cluster it is.
    #[must_use]
    pub fn genesis(&self) -> casemate_proto::GenesisId {
        self.genesis.id()
    }

    /// The processes.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }
    /// The processes alone.
    #[must_use]
    pub fn into_running(self) -> Running {
        self.running
    }

    fn name(&self, node: usize) -> Result<NodeName, DemoError> {
        let found = self.running.plan().nodes.get(node).map(|node| node.name.clone());
        found.ok_or(DemoError::Missing { what: "node", name: node.to_string() })
    }

    fn api(&self, node: usize) -> Result<&Api, DemoError> {
        self.apis.get(node).ok_or(DemoError::Missing { what: "node", name: node.to_string() })
    }

    /// Asks until there is an answer.
    fn patiently<T>(
        &self,
        mut ask: impl FnMut(&Runtime, &Client) -> Result<T, ClientError>,
    ) -> Result<T, DemoError> {
        let since = Instant::now();
        loop {
            match ask(&self.runtime, &self.client) {
                Ok(answer) => return Ok(answer),
                Err(error) if since.elapsed() > self.within(ASK_WITHIN) => {
                    return Err(failed(error));
                }
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// A time in which something must be done, by what this cluster runs on.
    fn within(&self, usual: Duration) -> Duration {
        usual.saturating_mul(self.running.plan().patience())
    }

    fn belief(&mut self) -> Result<Arc<Belief>, DemoError> {
        let belief = self.patiently(|runtime, client| runtime.block_on(client.belief(true)))?;
        for (boot, key) in belief.boots().map(|(_, boot)| boot).zip(belief.cosigners()) {
            self.boots.insert(boot, *key.public_key());
        }
        Ok(belief)
    }

    /// The image that a node attests, over a nonce made for this question, under the cluster's root; with
    /// the document.
    ///
    /// # Errors
    /// If it gives no attestation that can be believed.
    pub fn attested(&self, node: usize) -> Result<(Measurement, Vec<u8>), DemoError> {
        let boot = self.patiently(|runtime, client| runtime.block_on(client.attest(node, true)))?;
        Ok((boot.measurement().clone(), boot.document().to_vec()))
    }

    fn ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.saturating_add(1);
        ticket
    }

    /// Submits a change until it is applied. A node that is behind refuses what follows a change that
    /// it has not applied yet: then the same change is submitted again, which is accepted once.
    fn change(&self, signed: &SignedChange, policy: Option<Vec<u8>>) -> Result<(), DemoError> {
        let since = Instant::now();
        loop {
            let submit =
                self.client.submit_change(signed, policy.clone(), self.within(CHANGE_WITHIN));
            match self.runtime.block_on(submit) {
                Ok(_) => return Ok(()),
                Err(ClientError::Refused(_)) if since.elapsed() < self.within(BEHIND_AT_MOST) => {
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// What came back, as far as it is to be believed.
    fn read(&mut self, outcome: Result<Outcome, ApiError>) -> Result<Answer, DemoError> {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return Ok(busy(error.to_string(), RETRY_AFTER)),
        };
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Problem(problem) => {
                let reason = problem.to_string();
                return Ok(match ProblemCode::from_name(&problem.code) {
                    Some(ProblemCode::Denial(code)) if (400..500).contains(&problem.status) => {
                        let denial = Denial::new(code, &reason);
                        Answer::Denied { denial, index: None }
                    }
                    _ => busy(reason, problem.retry_after_ms.map_or(RETRY_AFTER, Millis)),
                });
            }
        };
        if let casemate_door::Answer::Denied(denied) | casemate_door::Answer::Expired(denied) =
            &answer
        {
            if !self.boots.contains_key(&denied.boot) {
                self.belief()?;
            }
            let key = self.boots.get(&denied.boot);
            if !key.is_some_and(|key| denied.verify(&self.genesis.id(), key)) {
                let reason = "a denial that no current boot has signed".to_owned();
                return Ok(busy(reason, RETRY_AFTER));
            }
        }
        read_door(answer)
    }
}

fn busy(reason: String, retry_after: Millis) -> Answer {
    Answer::Busy { reason, retry_after }
}

fn failed(error: ClientError) -> DemoError {
    DemoError::Client(Box::new(error))
}

fn no_api(error: ApiError) -> DemoError {
    DemoError::Cluster { what: format!("cannot be asked: {error}") }
}

impl Nodes for Remote {
    fn names(&self) -> Vec<NodeName> {
        self.running.plan().nodes.iter().map(|node| node.name.clone()).collect()
    }
    fn threshold(&self) -> u64 {
        self.genesis.manifest.threshold
    }
    fn manifest(&self) -> Manifest {
        self.genesis.manifest.clone()
    }
    fn scope(&self) -> Scope {
        Scope { genesis: self.genesis.id(), incarnation: casemate_proto::Incarnation(0) }
    }
    fn patience(&self) -> u32 {
        self.running.plan().patience()
    }
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn submit(&mut self, node: usize, what: Submission) -> Result<Ticket, DemoError> {
        let ticket = self.ticket();
        let (path, header, body) = match what {
            Submission::Request { stamp, body } => {
                (route::REQUESTS, (STAMP_HEADER, stamp.to_header()), body)
            }
            Submission::Approval { body, proof: ApprovalProof::Stamp(stamp) } => {
                (route::APPROVALS, (STAMP_HEADER, stamp.to_header()), body)
            }
            Submission::Approval { .. } => {
                return Err(DemoError::Missing { what: "passkey", name: "of the demo".to_owned() });
            }
            Submission::Governance { signed, attachment } => {
                let policy = attachment.and_then(|attachment| match attachment {
                    Attachment::Policy(bytes) => Some(bytes),
                    Attachment::Genesis(_) | Attachment::Recovery(_) => None,
                });
                self.change(&signed, policy)?;
                self.decided.insert(ticket, Answer::Accepted);
                return Ok(Ticket(ticket));
            }
        };
        let api = self.api(node)?.clone();
        let ask = async move { api.post(path, header, body).await };
        self.asked.insert(ticket, self.runtime.spawn(ask));
        Ok(Ticket(ticket))
    }

    fn wait(&mut self, Ticket(ticket): Ticket) -> Result<Answer, DemoError> {
        if let Some(answer) = self.decided.remove(&ticket) {
            return Ok(answer);
        }
        let missing = || DemoError::Missing { what: "submission", name: ticket.to_string() };
        let asked = self.asked.remove(&ticket).ok_or_else(missing)?;
        match self.runtime.block_on(asked) {
            Ok(outcome) => self.read(outcome),
            Err(error) => Ok(busy(error.to_string(), RETRY_AFTER)),
        }
    }

    fn stop(&mut self, node: usize) -> Result<(), DemoError> {
        let name = self.name(node)?;
        self.running.kill_node(&name);
        Ok(())
    }

    fn work(&mut self, time: Millis) {
        std::thread::sleep(Duration::from_millis(time.0));
    }

    fn change_head(&mut self) -> Result<Hash32, DemoError> {
        let disagree =
            || DemoError::Cluster { what: "does not agree on its last change".to_owned() };
        self.belief()?.change_head().ok_or_else(disagree)
    }

    fn keys(&mut self) -> Result<Vec<Key>, DemoError> {
        let states = self.patiently(|runtime, client| runtime.block_on(client.keys()))?;
        let keys = states.into_iter().filter_map(|state| match state {
            KeyState::Live(key) if !key.name().as_str().starts_with(RESERVED_PREFIX) => Some(Key {
                name: key.name().clone(),
                scheme: key.scheme(),
                public_key: key.public_key().to_vec(),
                epoch: key.epoch(),
            }),
            _ => None,
        });
        let mut keys: Vec<Key> = keys.collect();
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(keys)
    }

    fn cosigners(&mut self) -> Result<Vec<Cosigner>, DemoError> {
        let belief = self.belief()?;
        let both = belief.boots().zip(belief.cosigners());
        Ok(both.map(|((node, _), key)| Cosigner { node: node.clone(), key: key.clone() }).collect())
    }

    fn store(&mut self) -> Result<BTreeMap<String, Vec<u8>>, DemoError> {
        // what at least one node has applied by now: all that was answered before
        let goal = self.belief()?.views().iter().map(|given| given.view.size).max().unwrap_or(0);
        // a node that was there all the time has all of the log at hand
        let count = self.apis.len();
        let order = (0..count)
            .filter(|node| !self.restarted.contains(node))
            .chain(self.restarted.iter().copied());
        let order: Vec<usize> = order.collect();
        let since = Instant::now();
        loop {
            for node in &order {
                let store = RemoteStore::new(self.api(*node)?, &self.runtime);
                if store.size().is_ok_and(|size| size >= goal) {
                    return store.copy().map_err(|error| DemoError::Cluster {
                        what: format!("does not give its store: {error}"),
                    });
                }
            }
            if since.elapsed() > self.within(STORE_WITHIN) {
                let what = format!("gives no checkpoint over all of its {goal} records");
                return Err(DemoError::Cluster { what });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn faults(&mut self) -> Option<&mut dyn Faults> {
        // without a network of its own, or machines, it is not the demo that asks
        let asked = self.network.is_some() || self.running.plan().guests.is_some();
        asked.then_some(self)
    }
}

impl Faults for Remote {
    fn start(&mut self, node: usize) -> Result<(), DemoError> {
        let name = self.name(node)?;
        self.running.start_node(&name, &Part::ALL)?;
        self.restarted.push(node);
        Ok(())
    }

    fn health(&mut self, node: usize) -> Option<Health> {
        let ready = self.runtime.block_on(self.apis.get(node)?.ready()).ok()?;
        let enclave = ready.enclave?;
        Some(Health {
            ready: ready.ready,
            boot: enclave.boot,
            keys: enclave.keys,
            shares: enclave.shares,
            linked: enclave.linked,
        })
    }

    fn set_hostile(&mut self, hostile: bool) {
        if let Some((network, _)) = &self.network {
            network.set_hostile(hostile);
        }
    }

    fn seed(&self) -> u64 {
        self.network.as_ref().map_or(0, |(_, seed)| *seed)
    }

    fn counts(&self) -> Counts {
        self.network.as_ref().map(|(network, _)| network.counts()).unwrap_or_default()
    }

    fn check_processes(&mut self) -> Result<(), DemoError> {
        Ok(self.running.check()?)
    }
}
