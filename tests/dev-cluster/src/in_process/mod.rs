//! A whole cluster in one process: real nodes, a sequencer in place of replication, bytes handed
//! over in place of channels, simulated NSMs in place of hardware.
//!
//! What it is not: there is no boundary between the nodes, and whoever has this process has every
//! share. Its manifest says so (`Hardware::OneProcess`), and so does `audit custody`.
//!
//! It runs in rounds. In a round every node takes what is in its inbox, in order; what the nodes put
//! out is then routed, in the roster's order. So a run depends on the clock and the randomness alone,
//! also where the nodes of a round work on threads of their own. Time is the caller's: with a
//! [`ManualClock`] nothing waits.

mod clock;
mod restart;
mod sequencer;
mod setup;

use std::collections::{BTreeMap, VecDeque};

use casemate_audit::VerifierKey;
use casemate_audit::store::File;
use casemate_ledger::{EntryBody, State, StateError};
use casemate_proto::manifest::{BootRecord, GenesisRecord};
use casemate_proto::{GenesisId, NodeName, UnixMillis};
use casemate_signer::{
    Answer, BirthError, Bytes, Entropy, Event, HaltReason, Handover, JoinError, Node, NodeConfig,
    Output, Query, SignedReply, Submission, Ticket,
};
use casemate_sim::SimNsm;
use rand_core::OsRng;

pub use clock::{ManualClock, ReadClock, SystemClock};
pub use setup::{ClusterConfig, REGIONS};

use restart::Joining;
use sequencer::Sequencer;

/// How often nodes are told that time passes, in milliseconds.
const TICK_EVERY_MS: u64 = 50;
/// How long a caller waits for an answer, in milliseconds of the cluster's clock.
const PATIENCE_MS: u64 = 120_000;

/// Why a cluster does not come up or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// More nodes than there are regions to put them in, or fewer than a cluster has.
    #[error("a cluster here has 3 to {} nodes, not {nodes}", REGIONS.len())]
    Nodes {
        /// How many were asked for.
        nodes: usize,
    },
    /// A simulated NSM failed.
    #[error("simulated NSM: {0}")]
    Sim(#[from] casemate_sim::SimError),
    /// A node refuses the genesis.
    #[error(transparent)]
    Birth(#[from] BirthError),
    /// A boot refuses the state that it should begin with.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The state that a boot should begin with is none.
    #[error(transparent)]
    State(#[from] StateError),
    /// No node of that name, or it is stopped.
    #[error("node `{node}` is not there or is stopped")]
    NoSuchNode {
        /// Its name.
        node: NodeName,
    },
    /// The answer cannot come: its node was stopped.
    #[error("the answer to submission {} cannot come: its node is stopped", .ticket.0)]
    Lost {
        /// The submission.
        ticket: Ticket,
    },
    /// Nothing came in time.
    #[error("no {what} after {PATIENCE_MS} ms")]
    Patience {
        /// What was waited for.
        what: &'static str,
    },
}

/// What a cluster tells while it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// An entry is committed.
    Committed {
        /// Its index.
        index: u64,
        /// Its kind.
        kind: &'static str,
    },
    /// A node's store was brought up to date.
    Published {
        /// Whose store.
        node: NodeName,
    },
    /// A node was stopped.
    Stopped {
        /// Which.
        node: NodeName,
    },
    /// A node is a member again, with a new boot that holds no share yet.
    Joined {
        /// Which.
        node: NodeName,
    },
    /// A node halted by itself, which an honest cluster's never does.
    Halted {
        /// Which.
        node: NodeName,
        /// Why.
        reason: HaltReason,
    },
}

struct Member {
    name: NodeName,
    /// `None` once it is stopped: its memory is gone.
    node: Option<Node>,
    /// A boot that has asked to be admitted in its place.
    joining: Option<Joining>,
    /// Boots in whose place another was admitted while they ran.
    retired: Vec<Node>,
    nsm: SimNsm,
    inbox: VecDeque<Event>,
    store: BTreeMap<String, Vec<u8>>,
}

/// A cluster in this process.
pub struct Cluster {
    members: Vec<Member>,
    genesis: GenesisRecord,
    sequencer: Sequencer,
    clock: Box<dyn ReadClock>,
    parallel: bool,
    node_config: NodeConfig,
    entropy: fn(usize) -> Box<dyn Entropy>,
    answers: BTreeMap<Ticket, Answer>,
    asked: BTreeMap<Ticket, NodeName>,
    replies: BTreeMap<Ticket, Option<SignedReply>>,
    handovers: BTreeMap<NodeName, Handover>,
    next_ticket: u64,
    ticked_at: UnixMillis,
    watch: Box<dyn FnMut(Progress) + Send>,
    intercept: Option<Intercept>,
}

/// Sees every output before it is routed; what it answers `false` for is lost.
pub type Intercept = Box<dyn FnMut(&NodeName, &Output) -> bool + Send>;

impl core::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cluster").field("genesis", &self.genesis_id()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Boots the nodes and brings the cluster to its birth: the genesis is the log's first entry;
    /// governance has not confirmed it yet.
    ///
    /// # Errors
    /// If the configuration makes no cluster.
    pub fn up(config: ClusterConfig, clock: Box<dyn ReadClock>) -> Result<Self, ClusterError> {
        let (parallel, node_config, entropy) = (config.parallel, config.node, config.entropy);
        let (nodes, genesis) = setup::boot(config, clock.now())?;
        let members = nodes
            .into_iter()
            .map(|(node, nsm)| Member {
                name: node.name().clone(),
                node: Some(node),
                joining: None,
                retired: Vec::new(),
                nsm,
                inbox: VecDeque::new(),
                store: BTreeMap::new(),
            })
            .collect();
        let mut cluster = Self {
            members,
            sequencer: Sequencer::new(&genesis),
            ticked_at: UnixMillis(0),
            genesis,
            clock,
            parallel,
            node_config,
            entropy,
            answers: BTreeMap::new(),
            asked: BTreeMap::new(),
            replies: BTreeMap::new(),
            handovers: BTreeMap::new(),
            next_ticket: 0,
            watch: Box::new(|_| ()),
            intercept: None,
        };
        while cluster.pump() {}
        Ok(cluster)
    }

    /// Has `watch` told what happens from here on.
    pub fn watch(&mut self, watch: impl FnMut(Progress) + Send + 'static) {
        self.watch = Box::new(watch);
    }

    /// Puts the host between the nodes: it sees every output and may lose it.
    pub fn intercept(&mut self, intercept: Intercept) {
        self.intercept = Some(intercept);
    }

    /// Hands bytes to a node as if they came from a peer's channel: what a broken peer can do.
    pub fn inject(&mut self, from: &NodeName, to: &NodeName, bytes: Vec<u8>) {
        if let Some(member) = self.members.iter_mut().find(|m| m.name == *to && m.node.is_some()) {
            member.inbox.push_back(Event::Peer { from: from.clone(), bytes: Bytes::new(bytes) });
        }
    }

    /// Proposes an entry: what a broken enclave can do with replication.
    pub fn propose(&mut self, body: EntryBody) {
        self.sequencer.propose(body, None);
    }

    /// Another boot of a node, attested now, as an entry could admit it. Nothing runs it.
    ///
    /// # Errors
    /// If there is no such node or its NSM fails.
    pub fn another_boot(&self, name: &NodeName) -> Result<BootRecord, ClusterError> {
        let no_node = || ClusterError::NoSuchNode { node: name.clone() };
        let member = self.members.iter().find(|m| m.name == *name).ok_or_else(no_node)?;
        let (_, record) =
            setup::new_boot(name, &member.nsm, self.genesis_id(), self.now(), &mut OsRng)?;
        Ok(record)
    }

    /// How the cluster began.
    #[must_use]
    pub const fn genesis(&self) -> &GenesisRecord {
        &self.genesis
    }
    /// Its id.
    #[must_use]
    pub fn genesis_id(&self) -> GenesisId {
        self.genesis.id()
    }
    /// The cluster's time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }
    /// All nodes, in the roster's order, stopped ones too.
    #[must_use]
    pub fn names(&self) -> Vec<NodeName> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }
    /// The nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<NodeName> {
        self.members.iter().filter(|m| m.node.is_some()).map(|m| m.name.clone()).collect()
    }
    /// A running node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.members.iter().find(|member| member.name == *name)?.node.as_ref()
    }
    /// A running node's applied state.
    #[must_use]
    pub fn state(&self, name: &NodeName) -> Option<&State> {
        self.node(name).map(Node::state)
    }
    /// The applied state of the first node that runs.
    #[must_use]
    pub fn any_state(&self) -> Option<&State> {
        self.members.iter().find_map(|member| member.node.as_ref()).map(Node::state)
    }
    /// The keys that cosign checkpoints: one for each node's current boot.
    #[must_use]
    pub fn cosigners(&self) -> Vec<VerifierKey> {
        let Some(state) = self.any_state() else { return Vec::new() };
        let origin =
            casemate_audit::Origin { genesis: state.genesis(), incarnation: state.incarnation() };
        self.members
            .iter()
            .filter_map(|member| {
                let boot = state.current_boot(&member.name)?;
                let key = state.current_boot_key(&member.name)?;
                origin.boot_key(&boot, &key).ok()
            })
            .collect()
    }

    /// Submits something to a node. The answer comes to [`Self::wait`] or [`Self::answer`].
    ///
    /// # Errors
    /// If the node does not run.
    pub fn submit(
        &mut self,
        node: &NodeName,
        submission: Submission,
    ) -> Result<Ticket, ClusterError> {
        let ticket = Ticket(self.next_ticket);
        let member = self
            .members
            .iter_mut()
            .find(|member| member.name == *node && member.node.is_some())
            .ok_or_else(|| ClusterError::NoSuchNode { node: node.clone() })?;
        member.inbox.push_back(Event::Submit { ticket, submission });
        self.next_ticket = self.next_ticket.saturating_add(1);
        self.asked.insert(ticket, node.clone());
        Ok(ticket)
    }

    /// Takes an answer that has come.
    pub fn answer(&mut self, ticket: Ticket) -> Option<Answer> {
        let answer = self.answers.remove(&ticket)?;
        self.asked.remove(&ticket);
        Some(answer)
    }

    /// Works until the answer comes.
    ///
    /// # Errors
    /// If its node is stopped, or it does not come in time.
    pub fn wait(&mut self, ticket: Ticket) -> Result<Answer, ClusterError> {
        let mut answer = None;
        self.work_until("answer", |cluster| {
            answer = cluster.answer(ticket);
            let lost = !cluster.asked.contains_key(&ticket);
            answer.is_some() || lost
        })?;
        answer.ok_or(ClusterError::Lost { ticket })
    }

    /// Submits and waits.
    ///
    /// # Errors
    /// As [`Self::submit`] and [`Self::wait`].
    pub fn ask(&mut self, node: &NodeName, submission: Submission) -> Result<Answer, ClusterError> {
        let ticket = self.submit(node, submission)?;
        self.wait(ticket)
    }

    /// Works until `done`.
    ///
    /// # Errors
    /// If it is not done after two minutes of the cluster's clock.
    pub fn work_until(
        &mut self,
        what: &'static str,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), ClusterError> {
        let until = self.now().0.saturating_add(PATIENCE_MS);
        while !done(self) {
            if !self.pump() {
                if self.now().0 > until {
                    return Err(ClusterError::Patience { what });
                }
                self.clock.idle();
            }
        }
        Ok(())
    }

    /// Stops a node for good: its memory is gone, with all that it held. The others learn that
    /// their channels to it are down.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop_node(&mut self, name: &NodeName) -> Result<(), ClusterError> {
        self.stop_node_silently(name)?;
        for member in self.members.iter_mut().filter(|member| member.node.is_some()) {
            member.inbox.push_back(Event::Link { node: name.clone(), up: false });
        }
        Ok(())
    }

    /// Stops a node so that the others find out only by its silence.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop_node_silently(&mut self, name: &NodeName) -> Result<(), ClusterError> {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.name == *name && member.node.is_some())
            .ok_or_else(|| ClusterError::NoSuchNode { node: name.clone() })?;
        member.node = None;
        member.inbox.clear();
        let answers = &self.answers;
        self.asked.retain(|ticket, node| node != name || answers.contains_key(ticket));
        (self.watch)(Progress::Stopped { node: name.clone() });
        Ok(())
    }

    fn member(&mut self, name: &NodeName) -> Result<(usize, &mut Member), ClusterError> {
        let mut members = self.members.iter_mut().enumerate();
        members
            .find(|(_, member)| member.name == *name)
            .ok_or_else(|| ClusterError::NoSuchNode { node: name.clone() })
    }

    /// A boot in whose place another was admitted while it ran; the newest of them.
    pub fn retired(&mut self, name: &NodeName) -> Option<&mut Node> {
        self.member(name).ok()?.1.retired.last_mut()
    }

    /// Asks a node to be told something, and waits for the reply.
    ///
    /// # Errors
    /// If it does not run, or does not reply in time.
    pub fn query(
        &mut self,
        name: &NodeName,
        query: Query,
    ) -> Result<Option<SignedReply>, ClusterError> {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.saturating_add(1);
        let (_, member) = self.member(name)?;
        if member.node.is_none() {
            return Err(ClusterError::NoSuchNode { node: name.clone() });
        }
        member.inbox.push_back(Event::Ask { ticket, query });
        let mut reply = None;
        self.work_until("reply", |cluster| {
            reply = cluster.replies.remove(&ticket);
            reply.is_some()
        })?;
        Ok(reply.flatten())
    }

    /// The files of the first running node's store, once a checkpoint covers all that was done.
    ///
    /// # Errors
    /// If no checkpoint comes.
    pub fn store(&mut self) -> Result<&BTreeMap<String, Vec<u8>>, ClusterError> {
        self.work_until("checkpoint over the whole log", |cluster| {
            cluster
                .members
                .iter()
                .find_map(|member| member.node.as_ref())
                .is_none_or(|node| node.published() == node.state().size())
        })?;
        self.members
            .iter()
            .find(|member| member.node.is_some())
            .map(|member| &member.store)
            .ok_or(ClusterError::Patience { what: "running node" })
    }

    /// The files of one node's store as they are now; a stopped node's too.
    #[must_use]
    pub fn store_of(&self, name: &NodeName) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.members.iter().find(|member| member.name == *name).map(|member| &member.store)
    }

    /// One round. Whether anything was done.
    pub fn pump(&mut self) -> bool {
        let now = self.now();
        if now.0.saturating_sub(self.ticked_at.0) >= TICK_EVERY_MS {
            self.ticked_at = now;
            for member in self.members.iter_mut().filter(|member| member.node.is_some()) {
                member.inbox.push_back(Event::Tick);
            }
        }
        self.commit(now);
        let outputs = self.take_round(now);
        let worked = !outputs.is_empty();
        for (from, outputs) in outputs {
            for output in outputs {
                self.route(from, output);
            }
        }
        worked
    }

    /// Hands committed entries to the running nodes, if they are a majority.
    fn commit(&mut self, now: UnixMillis) {
        let running = self.members.iter().filter(|member| member.node.is_some()).count();
        for (index, entry, attachment) in self.sequencer.commit(running, self.members.len(), now) {
            (self.watch)(Progress::Committed { index, kind: entry.body.kind() });
            for member in &mut self.members {
                let event = || Event::Committed(sequencer::committed(&entry, attachment.as_ref()));
                if let Some(joining) = &mut member.joining {
                    joining.entries.push((index, event()));
                }
                if member.node.is_some() {
                    member.inbox.push_back(event());
                }
            }
        }
    }

    /// Every node takes what is in its inbox.
    fn take_round(&mut self, now: UnixMillis) -> Vec<(usize, Vec<Output>)> {
        fn take(member: &mut Member, now: UnixMillis) -> Vec<Output> {
            let Some(node) = &mut member.node else { return Vec::new() };
            let events = std::mem::take(&mut member.inbox);
            // together, as they wait
            events.into_iter().for_each(|event| node.take(event, now));
            node.settle(now);
            node.outputs(now)
        }
        let busy: Vec<(usize, &mut Member)> = self
            .members
            .iter_mut()
            .enumerate()
            .filter(|(_, member)| !member.inbox.is_empty())
            .collect();
        if !self.parallel || busy.len() < 2 {
            return busy.into_iter().map(|(at, member)| (at, take(member, now))).collect();
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = busy
                .into_iter()
                .map(|(at, member)| (at, scope.spawn(move || take(member, now))))
                .collect();
            // a node that panicked has lost its outputs; its threads' message is on the terminal
            workers
                .into_iter()
                .map(|(at, worker)| (at, worker.join().unwrap_or_default()))
                .collect()
        })
    }

    fn route(&mut self, from: usize, output: Output) {
        let Some(name) = self.members.get(from).map(|member| member.name.clone()) else { return };
        if self.intercept.as_mut().is_some_and(|sees| !sees(&name, &output)) {
            return;
        }
        match output {
            Output::Propose { body, attachment, .. } => self.sequencer.propose(body, attachment),
            Output::Send { to, bytes } => {
                let receiver = self.members.iter_mut().find(|m| m.name == to && m.node.is_some());
                if let Some(member) = receiver {
                    member.inbox.push_back(Event::Peer { from: name, bytes });
                }
            }
            Output::Answer { ticket, answer } => {
                if self.asked.contains_key(&ticket) {
                    self.answers.insert(ticket, answer);
                }
            }
            Output::Publish(files) => {
                self.write(from, files);
                (self.watch)(Progress::Published { node: name });
            }
            Output::Reply { ticket, reply } => {
                self.replies.insert(ticket, reply);
            }
            Output::Handover(handover) => {
                self.handovers.insert(handover.node.clone(), handover);
            }
            Output::Halt { reason } => {
                (self.watch)(Progress::Halted { node: name, reason });
            }
        }
    }

    fn write(&mut self, at: usize, files: Vec<File>) {
        if let Some(member) = self.members.get_mut(at) {
            member.store.extend(files);
        }
    }
}
