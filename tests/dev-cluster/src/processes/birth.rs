//! From an empty folder to a cluster that was born: root, manifest, configurations, processes.

use std::sync::Arc;

use casemate_proto::manifest::{Governance, Limits, Manifest};
use casemate_proto::time::HOUR;
use casemate_proto::{NodeName, UnixMillis};
use casemate_sim::SimHost;
use tokio::runtime::Runtime;

use super::home::write;
use super::remote::cluster_file;
use super::running::write_configurations;
use super::{DevError, Home, Part, Plan, Program, Remote, Running, machine};
use crate::demo::people::{People, QUORUM};
use crate::demo::{DELTA_OF_IMAGES, DemoError, TAU_OF_IMAGES, TAU_OF_PROCESSES, Tell};
use crate::in_process::REGIONS;
use crate::network::Network;

/// Most remembered requests of one credential: here one may be all that asks, a benchmark's among them.
const REQUESTS_OF_A_CREDENTIAL: u64 = 100_000;

/// What a cluster is born of.
pub struct Mother<'a> {
    /// Where it is to live: made, and nobody else's.
    pub home: Home,
    /// Its nodes.
    pub plan: Plan,
    /// What the processes run.
    pub program: Program,
    /// Whether the processes end when this one does.
    pub watched: bool,
    /// Everybody who has a key.
    pub people: &'a People,
    /// The proxies between the parents, with their seed, where there are any.
    pub network: Option<(Network, u64)>,
    /// For everything that waits.
    pub runtime: Arc<Runtime>,
    /// Says when to give up.
    pub stop: &'a dyn Fn() -> bool,
}

impl core::fmt::Debug for Mother<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mother").field("home", &self.home).finish_non_exhaustive()
    }
}

/// Names and regions of this many nodes, by name.
#[must_use]
pub fn regions(nodes: u16) -> Vec<(NodeName, String)> {
    let mut names: Vec<&str> = REGIONS.iter().copied().take(usize::from(nodes)).collect();
    names.sort_unstable();
    let both =
        names.into_iter().filter_map(|name| Some((NodeName::new(name).ok()?, name.to_owned())));
    both.collect()
}

/// A runtime for everything that waits.
///
/// # Errors
/// If the system has no threads for it.
pub fn runtime() -> Result<Arc<Runtime>, DevError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map(Arc::new).map_err(DevError::Runtime)
}

/// Starts the processes and waits until they are one cluster.
///
/// # Errors
/// If that does not come about; what was started is stopped.
pub fn bring_up(mother: Mother<'_>, tell: &mut dyn Tell) -> Result<Remote, DemoError> {
    let Mother { home, plan, program, watched, people, network, runtime, stop } = mother;
    let host = match &plan.guests {
        None => SimHost::new().map_err(DevError::from)?,
        Some(guests) => machine::root_at(&guests.root)?,
    };
    let manifest = manifest(&plan, &host, people)?;
    home.write_plan(&plan)?;
    machine::write_root(&home, &host)?;
    write_configurations(&home, &plan, &manifest)?;
    write(&home.readme(), readme(&home, &plan, &program).as_bytes())?;
    let (nodes, path) = (plan.nodes.len(), home.path().display().to_string());
    tell.progress(&format!("starts {nodes} enclaves and {nodes} parents in {path}"));
    let mut running = Running::start(home, plan, program, watched)?;
    tell.progress("the nodes attest each other and agree on their genesis");
    let genesis = running.wait_for_birth(&runtime, &manifest, tell, stop)?;
    running.wait_for_links(&runtime, stop)?;
    let pem = host.root_pem().map_err(DevError::from)?;
    let mut file = cluster_file(&manifest.name, &genesis, pem, &running);
    file.credentials = people.file_credentials()?;
    file.save(&running.home().cluster_file())?;
    Remote::new(running, network, genesis, &file, runtime)
}

/// What a development cluster is to be.
///
/// # Errors
/// If its image's measurement is none.
pub fn manifest(plan: &Plan, host: &SimHost, people: &People) -> Result<Manifest, DevError> {
    let governance = Governance { quorum: QUORUM, keys: people.governors(), loosening_delay: HOUR };
    let mut limits = Limits {
        tau: TAU_OF_PROCESSES,
        max_requests_per_credential: REQUESTS_OF_A_CREDENTIAL,
        ..Limits::default()
    };
    if plan.guests.is_some() {
        limits.tau = TAU_OF_IMAGES;
        limits.delta = DELTA_OF_IMAGES;
    }
    let manifest = machine::manifest(plan, host, governance, people.freezers(), limits)?;
    Ok(Manifest { recovery: people.recovery_keys(), ..manifest })
}

/// Puts a proxy before each way from one parent to another.
///
/// # Errors
/// If there are no ports left.
pub fn route_through(
    network: &mut Network,
    plan: &mut Plan,
    runtime: &Runtime,
) -> Result<(), DevError> {
    for node in &mut plan.nodes {
        for route in &mut node.peers {
            let way = runtime.block_on(network.route(route.address));
            route.address = way.map_err(|error| DevError::Port { port: 0, error })?;
        }
    }
    Ok(())
}

/// The time.
#[must_use]
pub fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixMillis(u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
}

/// What is in the folder, and how each process is started and stopped by hand.
fn readme(home: &Home, plan: &Plan, program: &Program) -> String {
    let mut text = format!(
        "A Casemate cluster for development: {} of {} nodes sign. Made by `casemate-dev up`.\n\n\
         cluster.json has everybody's keys in it, and root.der the simulated root's: neither is for anything\n\
         but development. Key shares are in the memory of the enclaves, and sealed in NODE/data/sealed: what is in\n\
         governors/ opens that in a cold recovery, and is for development only as well.\n\n\
         A process that is killed is started again by its command line. An enclave then is another boot, which\n\
         the others admit, and which gets its shares from them. So no more than {} of the {} nodes may be\n\
         gone, or on their way back, at one time.\n",
        plan.threshold,
        plan.nodes.len(),
        spare(plan),
        plan.nodes.len(),
    );
    for node in &plan.nodes {
        text.push_str(&format!("\n{}   {}\n", node.name, node.url()));
        for part in Part::ALL {
            text.push_str(&format!("  {}\n", program.command_line(home, &node.name, part)));
        }
        for part in Part::ALL {
            let (pid, log) = (home.pid_file(&node.name, part), home.log(&node.name, part));
            text.push_str(&format!(
                "  {part}: process id in {}, log in {}\n",
                pid.display(),
                log.display()
            ));
        }
    }
    text
}

/// How many nodes may be gone with signing going on.
#[must_use]
pub fn spare(plan: &Plan) -> usize {
    let threshold = usize::try_from(plan.threshold).unwrap_or(usize::MAX);
    let majority = plan.nodes.len().div_euclid(2).saturating_add(1);
    plan.nodes.len().saturating_sub(threshold.max(majority))
}
