//! A cluster of three nodes of which two sign, as processes, with a key of each scheme.

use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_api::ready::EnclaveStatus;
use casemate_api::{Ready, route};
use casemate_client::{Client, ClusterFile, Credential, Scope, Settings, Sign as _};
use casemate_dev::demo::cluster::{Answer, Nodes as _, Submission};
use casemate_dev::demo::payloads::{Authorization, USDC_BASE};
use casemate_dev::demo::people::{People, Who, random};
use casemate_dev::demo::temporary::Temporary;
use casemate_dev::demo::{DemoError, Tell};
use casemate_dev::network::Network;
use casemate_dev::processes::api::Api;
use casemate_dev::processes::birth::{Mother, bring_up, now, regions, route_through};
use casemate_dev::processes::claim::Claim;
use casemate_dev::processes::running::TRIPLE_STOCK;
use casemate_dev::processes::{Home, Part, Plan, PlannedNode, Program, Remote};
use casemate_ledger::Attachment;
use casemate_ledger::apply::LOG_KEY;
use casemate_policy::Policy;
use casemate_proto::governance::Change;
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::time::DAY;
use casemate_proto::{Amount, DerivationPath, KeyName, Millis, NodeName, RequestId, Scheme};
use casemate_tx::EvmAddress;
use tokio::runtime::Runtime;

use crate::scheme::{SCHEMES, key};
use crate::{BenchError, cpu};

/// How many nodes.
pub const NODES: u16 = 3;
/// How many of them sign.
pub const THRESHOLD: u16 = 2;
/// Who is paid.
const PAYEE: EvmAddress = EvmAddress([0xa4; 20]);
/// How long key generation may take.
const KEYS_WITHIN: Duration = Duration::from_secs(180);
/// How long it may take until nothing is under way any more.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);
/// A node says once a second how it is; what it says for longer than that is so.
const SURE_AFTER: Duration = Duration::from_millis(1_300);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most bytes of a node's figures.
const MAX_METRICS: usize = 1024 * 1024;

/// The cluster. Its processes and its folder are gone when this is dropped.
pub struct Cluster {
    // the processes end before the folder that they use
    remote: Remote,
    people: People,
    client: Client,
    nodes: Vec<Node>,
    payer: EvmAddress,
    runtime: Arc<Runtime>,
    _claim: Claim,
    _folder: Option<Temporary>,
}

/// A node as it is asked directly.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its API.
    pub api: Api,
}

impl core::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

fn cluster(what: impl Into<String>) -> BenchError {
    BenchError::Cluster { what: what.into() }
}

impl Cluster {
    /// Starts one and has its keys made. With a network, the parents reach each other through it.
    ///
    /// # Errors
    /// If it does not come up; its folder then stays, with the nodes' logs.
    pub fn up(
        program: &Program,
        runtime: &Arc<Runtime>,
        network: Option<&mut Network>,
        tell: &mut dyn Tell,
    ) -> Result<Self, BenchError> {
        let folder = Temporary::new()?;
        let (home, claim) = Home::create(folder.path(), false)?;
        match Self::begin(program, runtime, network, (&home, claim), tell) {
            Ok(begun) => Ok(Self { _folder: Some(folder), ..begun }),
            Err(error) => {
                let folder = folder.keep();
                tell.progress(&format!("the nodes' logs are in {}/NODE/*.log", folder.display()));
                Err(error)
            }
        }
    }

    fn begin(
        program: &Program,
        runtime: &Arc<Runtime>,
        network: Option<&mut Network>,
        (home, claim): (&Home, Claim),
        tell: &mut dyn Tell,
    ) -> Result<Self, BenchError> {
        let mut plan = Plan::new(u64::from(THRESHOLD), &regions(NODES), None)?;
        if let Some(network) = network {
            route_through(network, &mut plan, runtime)?;
        }
        let people = People::new()?;
        let nodes = plan
            .nodes
            .iter()
            .map(|node| {
                let name = node.name.to_string();
                let api = Api::new(node.url())
                    .map_err(|error| BenchError::Api { node: name.clone(), error })?;
                Ok(Node { name, api })
            })
            .collect::<Result<Vec<_>, BenchError>>()?;
        let mother = Mother {
            home: home.clone(),
            plan,
            program: program.clone(),
            watched: true,
            people: &people,
            network: None,
            runtime: Arc::clone(runtime),
            stop: &|| false,
        };
        let mut remote = bring_up(mother, tell)?;
        tell.progress("governance sets a policy and has a key of each scheme made");
        govern(&mut remote, &people)?;
        let payer = payer(&mut remote)?;
        let file = ClusterFile::load(&home.cluster_file()).map_err(DemoError::from)?;
        let pinned = casemate_client::Cluster::from_file(&file).map_err(DemoError::from)?;
        let client = Client::new(pinned, Settings::default())
            .map_err(|error| DemoError::Client(Box::new(error)))?;
        let runtime = Arc::clone(runtime);
        let (_claim, _folder) = (claim, None);
        let mut made = Self { remote, people, client, nodes, payer, runtime, _claim, _folder };
        made.settle()?;
        Ok(made)
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// The client that asks it.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }
    /// Its processes.
    pub(crate) const fn remote(&mut self) -> &mut Remote {
        &mut self.remote
    }
    /// How one node says that its enclave is, if it answers.
    pub(crate) fn status(&self, name: &NodeName) -> Option<EnclaveStatus> {
        let node = self.nodes.iter().find(|node| node.name == name.as_str())?;
        self.runtime.block_on(node.api.ready()).ok()?.enclave
    }
    /// What every stamp for it names.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.remote.scope()
    }
    /// For what waits.
    #[must_use]
    pub const fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Who asks.
    ///
    /// # Errors
    /// Never: everybody is there.
    pub fn requester(&self) -> Result<Credential, BenchError> {
        Ok(self.people.person(Who::Research)?.credential.clone())
    }

    /// What makes requests for signatures of a scheme, each with an id of its own.
    ///
    /// # Errors
    /// Never: the key's name is one.
    pub fn asks(&self, scheme: Scheme) -> Result<Asks, BenchError> {
        let key = KeyName::new(key(scheme)).map_err(DemoError::from)?;
        Ok(Asks { scheme, key, payer: self.payer })
    }

    /// CPU time that all enclaves and parents have used so far.
    ///
    /// # Errors
    /// If one of them is gone.
    pub fn cpu(&mut self) -> Result<Duration, BenchError> {
        self.remote.running().check()?;
        let mut processes = Vec::new();
        for part in Part::ALL {
            processes.extend(self.processes(part)?);
        }
        cpu::of(&processes)
    }

    fn processes(&mut self, part: Part) -> Result<Vec<u32>, BenchError> {
        let running = self.remote.running();
        let pid = |node: &PlannedNode| {
            let gone = || cluster(format!("has lost the {part} of node `{}`", node.name));
            running.home().pid(&node.name, part)?.ok_or_else(gone)
        };
        running.plan().nodes.iter().map(pid).collect()
    }

    /// The memory that the largest enclave and the largest parent have.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn memory(&mut self) -> Result<Memory, BenchError> {
        let mut largest = |part| {
            let all = self.processes(part)?.into_iter().map(cpu::memory);
            Ok::<u64, BenchError>(
                all.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0),
            )
        };
        Ok(Memory { enclave: largest(Part::Enclave)?, parent: largest(Part::Parent)? })
    }

    /// How every node says that it is.
    ///
    /// # Errors
    /// If one does not answer.
    pub fn ready(&self) -> Result<Vec<Ready>, BenchError> {
        let ask = |node: &Node| {
            let ready = self.runtime.block_on(node.api.ready());
            ready.map_err(|error| BenchError::Api { node: node.name.clone(), error })
        };
        self.nodes.iter().map(ask).collect()
    }

    /// Waits until every node has all its shares and a full stock of triples again, so that what was
    /// used up has been made anew. How long that takes shows in what it costs.
    ///
    /// # Errors
    /// If it does not come about.
    pub fn settle(&mut self) -> Result<(), BenchError> {
        let begun = Instant::now();
        let mut since = None;
        loop {
            self.remote.running().check()?;
            let settled = self.ready()?.iter().all(|node| {
                node.enclave.as_ref().is_some_and(|enclave| {
                    node.ready && enclave.shares == enclave.keys && enclave.triples >= TRIPLE_STOCK
                })
            });
            match (settled, since) {
                (false, _) => since = None,
                (true, None) => since = Some(Instant::now()),
                (true, Some(since)) if since.elapsed() >= SURE_AFTER => return Ok(()),
                (true, Some(_)) => {}
            }
            if begun.elapsed() > SETTLES_WITHIN {
                let seconds = SETTLES_WITHIN.as_secs();
                return Err(cluster(format!("had no full stock of triples within {seconds} s")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// How many pairs of triples were made so far, each by t nodes.
    ///
    /// # Errors
    /// If a node does not say so.
    pub fn pairs_made(&self) -> Result<u64, BenchError> {
        let mut runs = 0_u64;
        for node in &self.nodes {
            let failed = |error| BenchError::Api { node: node.name.clone(), error };
            let figures = self.runtime.block_on(node.api.get(route::METRICS, MAX_METRICS));
            let (_, text) = figures.map_err(failed)?;
            let text = String::from_utf8_lossy(&text);
            let count =
                counter(&text, "casemate_enclave_triple_runs_done_total").ok_or_else(|| {
                    cluster(format!("does not say how many triples node `{}` made", node.name))
                })?;
            runs = runs.saturating_add(count);
        }
        Ok(runs.checked_div(u64::from(THRESHOLD)).unwrap_or_default())
    }

    /// What it uses while nothing is asked, in such a time.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn idle(&mut self, time: Duration) -> Result<Idle, BenchError> {
        self.settle()?;
        let (before, since) = (self.cpu()?, Instant::now());
        std::thread::sleep(time);
        let (cpu, time) = (self.cpu()?.saturating_sub(before), since.elapsed());
        Ok(Idle { cpu, time })
    }
}

/// Memory in RAM, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The enclave with the most.
    pub enclave: u64,
    /// The parent with the most.
    pub parent: u64,
}

/// What a cluster uses while nothing is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// User and system time of all its processes.
    pub cpu: Duration,
    /// How long was looked.
    pub time: Duration,
}

impl Idle {
    /// What it would have used idle in another time.
    #[must_use]
    pub fn within(&self, time: Duration) -> Duration {
        let nanos = self.cpu.as_nanos().saturating_mul(time.as_nanos());
        let nanos = nanos.checked_div(self.time.as_nanos()).unwrap_or_default();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Makes requests for signatures of one key.
#[derive(Clone, Debug)]
pub struct Asks {
    scheme: Scheme,
    key: KeyName,
    payer: EvmAddress,
}

impl Asks {
    /// Another request than any before.
    #[must_use]
    pub fn another(&self) -> SignRequest {
        let payload = match self.scheme {
            Scheme::EcdsaSecp256k1 => {
                let seconds = now().0 / 1_000;
                Authorization {
                    from: self.payer,
                    to: PAYEE,
                    value: Amount::from(1_000_u64),
                    valid_after: seconds.saturating_sub(600),
                    valid_before: seconds.saturating_add(300),
                    nonce: random(),
                }
                .payload()
            }
            Scheme::Ed25519 | Scheme::Bip340Secp256k1 => Payload::Message(random::<64>().to_vec()),
        };
        SignRequest {
            request_id: RequestId::new(random()),
            key: self.key.clone(),
            path: DerivationPath::root(),
            payload,
        }
    }
}

/// The ECDSA key's address.
fn payer(remote: &mut Remote) -> Result<EvmAddress, BenchError> {
    let name = key(Scheme::EcdsaSecp256k1);
    let keys = remote.keys()?;
    let found = keys.iter().find(|key| key.name.as_str() == name);
    let missing = || cluster(format!("has no key `{name}`"));
    let key = found.ok_or_else(missing)?;
    Ok(casemate_tx::evm_address_from_sec1(&key.public_key).map_err(DemoError::from)?)
}

/// Has the genesis confirmed, the policy set and the keys made, the log's own among them: a cluster
/// has one, and what it costs to sign checkpoints belongs to what the system costs.
fn govern(remote: &mut Remote, people: &People) -> Result<(), BenchError> {
    change(remote, people, Change::ConfirmGenesis, None)?;
    let policy = policy(people)?;
    let attachment = Attachment::Policy(policy.canonical_bytes());
    let set = Change::SetPolicy { policy: policy.policy_hash() };
    change(remote, people, set, Some(attachment))?;
    let keys = SCHEMES.map(|scheme| (key(scheme), scheme));
    for (name, scheme) in [(LOG_KEY, Scheme::Ed25519)].into_iter().chain(keys) {
        let name = KeyName::new(name).map_err(DemoError::from)?;
        change(remote, people, Change::CreateKey { name, scheme }, None)?;
    }
    let since = Instant::now();
    while remote.keys()?.len() < SCHEMES.len() {
        if since.elapsed() > KEYS_WITHIN {
            let seconds = KEYS_WITHIN.as_secs();
            return Err(cluster(format!("did not make its keys within {seconds} s")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn change(
    remote: &mut Remote,
    people: &People,
    change: Change,
    attachment: Option<Attachment>,
) -> Result<(), BenchError> {
    let name = change.name();
    let (scope, head) = (remote.scope(), remote.change_head()?);
    let signed = people.sign_change(scope, head, change, remote.now())?;
    let ticket = remote.submit(0, Submission::Governance { signed, attachment })?;
    match remote.wait(ticket)? {
        Answer::Accepted => Ok(()),
        other => Err(cluster(format!("answered the change `{name}` with {other:?}"))),
    }
}

/// Limits that are counted and never reached.
fn policy(people: &People) -> Result<Policy, BenchError> {
    let person = people.person(Who::Research)?;
    let public = person.credential.public_key();
    let principal = person.principal;
    let mut text = format!(
        "version = 1\nname = \"benchmark\"\nexpires = \"{expires}\"\n\n\
         [asset.usdc_base]\nchain = \"eip155:8453\"\ntoken = \"{USDC_BASE}\"\ndecimals = 6\n\
         domain = {{ name = \"USD Coin\", version = \"2\" }}\n\n\
         [[principal]]\nid = \"{principal}\"\n\
         credentials = [{{ alg = \"{alg}\", public_key = \"{public_key}\" }}]\n\n\
         [list.payees.shops]\n\"eip155:8453\" = [\"{PAYEE}\"]\n",
        expires = now().saturating_add(Millis(DAY.0.saturating_mul(2))).to_rfc3339(),
        alg = public.algorithm().name(),
        public_key = hex::encode(public.as_bytes()),
    );
    for scheme in SCHEMES {
        let key = key(scheme);
        text.push_str(&format!(
            "\n[[grant]]\nid = \"{key}\"\nkey = \"{key}\"\nprincipals = [\"{principal}\"]\n"
        ));
        text.push_str(match scheme {
            Scheme::EcdsaSecp256k1 => {
                "allow = [\"eip3009.transfer_with_authorization\"]\nasset = \"usdc_base\"\n\
                 to = \"@payees.shops\"\nmax_per_tx = \"5\"\n\
                 limits = [{ sum = \"1000000\", window = \"24h\" }, { count = 100000, window = \"1h\" }]\n\
                 valid_for_max = \"10m\"\n"
            }
            Scheme::Ed25519 | Scheme::Bip340Secp256k1 => {
                "allow = [\"message\"]\nlimits = [{ count = 100000, window = \"1h\" }]\n"
            }
        });
    }
    Ok(Policy::from_toml(&text).map_err(DemoError::from)?)
}

/// A counter of OpenMetrics' text that has no labels.
fn counter(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_is_one_and_grants_every_key() {
        let policy = policy(&People::new().unwrap()).unwrap();
        let granted = &policy.doc().grants;
        assert_eq!(granted.len(), SCHEMES.len());
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "# TYPE x counter\nx_total 7\nx_total_more 9\n# EOF\n";
        assert_eq!(counter(text, "x_total"), Some(7));
        assert_eq!(counter(text, "x"), None);
    }

    #[test]
    fn idle_use_is_taken_in_proportion() {
        let idle = Idle { cpu: Duration::from_millis(40), time: Duration::from_secs(8) };
        assert_eq!(idle.within(Duration::from_secs(2)), Duration::from_millis(10));
        let none = Idle { cpu: Duration::ZERO, time: Duration::ZERO };
        assert_eq!(none.within(Duration::from_secs(2)), Duration::ZERO);
    }

    #[test]
    fn requests_differ_and_are_what_their_scheme_signs() {
        for scheme in SCHEMES {
            let key = KeyName::new(key(scheme)).unwrap();
            let asks = Asks { scheme, key, payer: EvmAddress([1; 20]) };
            let (one, other) = (asks.another(), asks.another());
            assert_ne!(one.request_id, other.request_id);
            assert_ne!(one.payload, other.payload);
            assert_eq!(scheme.signs_messages_only(), one.payload.kind() == "message");
        }
    }
}
