//! The processes of a cluster that this process started.

use std::time::{Duration, Instant};

use casemate_proto::manifest::GenesisRecord;
use casemate_proto::{NodeName, cbor};

use super::api::{Api, ApiError};
use super::home::write;
use super::process::last_line;
use super::{Child, DevError, Home, Part, Plan, PlannedNode, Program};
use crate::demo::Tell;

/// How long the nodes may take to find each other and begin.
const BORN_WITHIN: Duration = Duration::from_secs(90);
/// How many looks in a row must find every link up.
const STEADY_LOOKS: u32 = 12;
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often somebody who waits is told.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Pairs of triples that a parent asks its enclave to keep. What is left of a stock when a demo ends was
/// made for nothing.
pub const TRIPLE_STOCK: u64 = 2;
/// How far nodes are from each other, as their parents say: on one machine, or as far as a benchmark lets
/// them seem.
const ROUND_TRIP_MS: u64 = 75;

/// The processes of a cluster. They end when this is dropped, unless they are let go.
#[derive(Debug)]
pub struct Running {
    home: Home,
    plan: Plan,
    program: Program,
    watched: bool,
    children: Vec<Child>,
}

impl Running {
    /// Starts all of a plan's processes. With `watched` they end when this process does, however that
    /// ends.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start(
        home: Home,
        plan: Plan,
        program: Program,
        watched: bool,
    ) -> Result<Self, DevError> {
        let names: Vec<NodeName> = plan.nodes.iter().map(|node| node.name.clone()).collect();
        let mut running = Self { home, plan, program, watched, children: Vec::new() };
        for name in &names {
            running.start_node(name, &Part::ALL)?;
        }
        Ok(running)
    }

    /// Starts parts of a node.
    ///
    /// # Errors
    /// If one does not start, or runs already.
    pub fn start_node(&mut self, node: &NodeName, parts: &[Part]) -> Result<(), DevError> {
        for part in parts {
            let mut child = start(&self.program, &self.home, node, *part, self.watched)?;
            child.wait_for_claim()?;
            self.children.push(child);
        }
        Ok(())
    }

    /// Kills a node: neither part learns anything of it.
    pub fn kill_node(&mut self, node: &NodeName) {
        let (gone, left): (Vec<Child>, Vec<Child>) =
            std::mem::take(&mut self.children).into_iter().partition(|child| child.node() == node);
        self.children = left;
        gone.into_iter().for_each(Child::kill);
    }

    /// That all the processes that were started, and not killed, still run.
    ///
    /// # Errors
    /// Naming one that does not, with what it said last.
    pub fn check(&mut self) -> Result<(), DevError> {
        self.children.iter_mut().try_for_each(Child::check)
    }

    /// The processes that have ended since this was last asked, and how.
    pub fn take_ended(&mut self) -> Vec<(NodeName, Part, String)> {
        let mut ended = Vec::new();
        self.children.retain_mut(|child| match child.ended() {
            None => true,
            Some(how) => {
                ended.push((child.node().clone(), child.part(), how));
                false
            }
        });
        ended
    }

    /// Waits until every node gives the same genesis record, and it is of this cluster.
    ///
    /// # Errors
    /// If a process ends or it takes too long.
    pub fn wait_for_birth(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        manifest: &casemate_proto::manifest::Manifest,
        tell: &mut dyn Tell,
        stop: &dyn Fn() -> bool,
    ) -> Result<GenesisRecord, DevError> {
        let (since, mut told) = (Instant::now(), Instant::now());
        loop {
            let mut records = Vec::new();
            let mut waiting = Vec::new();
            for node in &self.plan.nodes {
                match runtime.block_on(ask_genesis(node)) {
                    Ok(record) => records.push(record),
                    Err(_) => waiting.push(node.name.to_string()),
                }
            }
            if let (true, Some(first)) = (waiting.is_empty(), records.first()) {
                if records.iter().all(|record| record == first) && first.manifest == *manifest {
                    return Ok(first.clone());
                }
                return Err(DevError::Malformed {
                    path: self.home.path().to_owned(),
                    reason: "its nodes give genesis records that differ".to_owned(),
                });
            }
            self.check()?;
            if stop() {
                return Err(DevError::Interrupted);
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                let waiting = waiting.join(", ");
                tell.progress(&format!("the nodes attest each other; still waiting for {waiting}"));
            }
            let within = BORN_WITHIN.saturating_mul(self.plan.patience());
            if since.elapsed() > within {
                let last: Vec<String> = self
                    .plan
                    .nodes
                    .iter()
                    .flat_map(|node| Part::ALL.map(|part| self.home.log(&node.name, part)))
                    .map(|log| format!("\n  {}: {}", log.display(), last_line(&log)))
                    .collect();
                return Err(DevError::Patience {
                    what: format!("the cluster was not born: waiting for {}", waiting.join(", ")),
                    seconds: within.as_secs(),
                    hint: last.concat(),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until every node hears every other one and goes on doing so: the channels of the birth
    /// give way to others, and what is begun meanwhile is lost with them.
    ///
    /// # Errors
    /// If a process ends or it takes too long.
    pub fn wait_for_links(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), DevError> {
        let (since, mut steady) = (Instant::now(), 0_u32);
        while steady < STEADY_LOOKS {
            let others = self.plan.nodes.len().saturating_sub(1);
            let linked = self.plan.nodes.iter().all(|node| {
                let ready = runtime.block_on(async { Api::new(node.url())?.ready().await });
                let enclave =
                    ready.ok().filter(|ready| ready.ready).and_then(|ready| ready.enclave);
                enclave.is_some_and(|enclave| enclave.linked.len() == others)
            });
            steady = if linked { steady.saturating_add(1) } else { 0 };
            self.check()?;
            if stop() {
                return Err(DevError::Interrupted);
            }
            let within = BORN_WITHIN.saturating_mul(self.plan.patience());
            if since.elapsed() > within {
                return Err(DevError::Patience {
                    what: "the nodes do not all hear one another".to_owned(),
                    seconds: within.as_secs(),
                    hint: "; their `readyz` says what is in the way".to_owned(),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// The folder.
    #[must_use]
    pub const fn home(&self) -> &Home {
        &self.home
    }
    /// What was planned.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Leaves the processes running. They must not be watched.
    pub fn let_go(mut self) {
        self.children.clear();
    }

    /// Tells every process to end, all at once, and waits for them.
    pub fn stop(mut self) {
        self.stop_all();
    }

    fn stop_all(&mut self) {
        let children = std::mem::take(&mut self.children);
        children.iter().for_each(Child::tell_to_end);
        children.into_iter().for_each(Child::stop);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_all();
    }
}

async fn ask_genesis(node: &PlannedNode) -> Result<GenesisRecord, ApiError> {
    Api::new(node.url())?.genesis().await
}

/// Starts a part of a node, unless it runs.
///
/// # Errors
/// If it runs, or does not start.
pub fn start(
    program: &Program,
    home: &Home,
    node: &NodeName,
    part: Part,
    watched: bool,
) -> Result<Child, DevError> {
    if let Some(pid) = home.pid(node, part)? {
        return Err(DevError::PartRuns { node: node.clone(), part, pid });
    }
    program.start(home, node, part, watched)
}

/// Writes what the parents are started with: the manifest and each one's configuration.
///
/// # Errors
/// If something cannot be written.
pub fn write_configurations(
    home: &Home,
    plan: &Plan,
    manifest: &casemate_proto::manifest::Manifest,
) -> Result<(), DevError> {
    write(&home.manifest(), &cbor::encode(manifest))?;
    for node in &plan.nodes {
        write(&home.parent_config(&node.name), parent_config(plan, node).as_bytes())?;
    }
    Ok(())
}

/// A parent's configuration. Names are of letters, digits and `-`, and addresses are numbers, so nothing
/// in it needs quoting.
fn parent_config(plan: &Plan, node: &PlannedNode) -> String {
    let mut text = format!(
        "# of node {name}, as `casemate-dev up` wrote it\n\
         node = \"{name}\"\nmanifest = \"../manifest.cbor\"\nfolder = \"data\"\n\
         enclave = \"unix:enclave.sock\"\nhttp = \"{http}\"\nrelay = \"{relay}\"\n\
         triple_stock = {TRIPLE_STOCK}\nround_trip_ms = {round_trip_ms}\n",
        name = node.name,
        http = node.http,
        relay = node.relay,
        round_trip_ms = plan.guests.as_ref().map_or(ROUND_TRIP_MS, |guests| guests.round_trip_ms),
    );
    for route in &node.peers {
        let peer = plan.nodes.iter().find(|peer| peer.name == route.to);
        text.push_str(&format!("\n[peers.{}]\nrelay = \"{}\"\n", route.to, route.address));
        if let Some(peer) = peer {
            text.push_str(&format!("http = \"{}\"\n", peer.url()));
        }
    }
    text
}
