//! The node: one state machine over events, without I/O, clock or ambient randomness.
//!
//! Events are what replication commits, what peers send, what is submitted from outside, and time
//! passing. Outputs are what to propose, send, answer and publish. The order of a node's outputs is
//! the order in which a channel must deliver them.
//!
//! A host that withholds, delays or repeats any of it can stop the service; it cannot make a share
//! leave: that takes a [`casemate_ledger::Permit`], which applying a committed entry makes.

use std::collections::{BTreeMap, BTreeSet};

use casemate_audit::{StoreWriter, Tree};
use casemate_ledger::State;
use casemate_proto::governance::SignedStatement;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, GenesisRecord};
use casemate_proto::{BootId, NodeName, UnixMillis};
use casemate_threshold::{Misuse, Participants, RunError, RunRegistry};
use zeroize::Zeroize as _;

use crate::answer::Ticket;
use crate::boot::{BootSecret, Entropy};
use crate::checkpoints::Checkpoints;
use crate::event::{BirthError, Bytes, Event, HaltReason, JoinError, NodeConfig, Output};
use crate::keygen::Keygen;
use crate::log_signature::StartLog;
use crate::peer::PeerMessage;
use crate::publish::Publisher;
use crate::recovery::Sealed;
use crate::requests::Requests;
use crate::roster::Roster;
use crate::runs::Runs;
use crate::signing::Signing;
use crate::starts::StartSign;
use crate::stats::{Count, Stats, Timing};
use crate::tally::Tally;
use crate::triples::Triples;
use crate::views::Asks;

/// For how many of the newest leaves a node can give proofs, at 64 bytes each; for older ones the
/// auditors' stores can.
pub(crate) const KEPT_LEAVES: u64 = 1 << 20;
/// How often older ones are dropped.
pub(crate) const FORGET_EVERY: u64 = 4_096;

/// One node.
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) boot: BootSecret,
    pub(crate) boot_id: BootId,
    pub(crate) entropy: Box<dyn Entropy>,
    pub(crate) roster: Roster,
    pub(crate) threshold: u16,
    pub(crate) state: State,
    /// The hashes that proofs are made of; its frontier is the state's.
    pub(crate) tree: Tree,
    pub(crate) registry: RunRegistry,
    /// Runs that no entry causes, by the boot that asked: size and number in their ids are its
    /// own, so that it uses up nobody's room but its own.
    pub(crate) asked: BTreeMap<BootId, RunRegistry>,
    /// Runs that make and test shares, by the boot that leads. They may come at any time in a
    /// key's life, so that they must not share room with the entries' runs: those let go of what is
    /// older than the newest 65,536 of them.
    pub(crate) key_runs: BTreeMap<BootId, RunRegistry>,
    /// Boots that take part: those from the beginning, and others once they were heard.
    pub(crate) heard: BTreeSet<BootId>,
    /// The boot that appends what commits now.
    pub(crate) leader: Option<BootId>,
    /// Whom this boot has still to tell that it takes part.
    greet: BTreeSet<NodeName>,
    pub(crate) runs: Runs,
    pub(crate) signing: Signing,
    pub(crate) tally: Tally,
    pub(crate) triples: Triples,
    pub(crate) keygen: Keygen,
    pub(crate) requests: Requests,
    pub(crate) asks: Asks,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) publisher: Publisher,
    pub(crate) sealed: Sealed,
    pub(crate) stats: Stats,
    /// When the submissions came that are not answered yet; for the statistics only.
    submitted: BTreeMap<Ticket, UnixMillis>,
    /// Freezes that were obeyed on receipt and are not applied yet.
    pub(crate) early_freezes: BTreeMap<Hash32, (SignedStatement, UnixMillis)>,
    /// Numbers for runs that this boot proposes; never repeated.
    pub(crate) next_number: u64,
    /// Peers that named another root than this node's own.
    pub(crate) disputes: BTreeSet<NodeName>,
    pub(crate) halted: bool,
    pub(crate) out: Vec<Output>,
}

impl core::fmt::Debug for Node {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node")
            .field("name", self.roster.me())
            .field("boot", &self.boot_id)
            .field("size", &self.state.size())
            .field("halted", &self.halted)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// A node at its cluster's birth: checks the whole genesis, evidence of every boot included,
    /// and that it names this boot.
    ///
    /// # Errors
    /// If the genesis is refused or is not this boot's.
    pub fn birth(
        boot: BootSecret,
        name: &NodeName,
        record: &GenesisRecord,
        config: NodeConfig,
        entropy: Box<dyn Entropy>,
    ) -> Result<Self, BirthError> {
        let state = State::birth(record)?;
        if state.current_boot(name) != Some(boot.id(name)) {
            return Err(BirthError::NotThisBoot { node: name.clone() });
        }
        let publisher = Publisher::new(StoreWriter::new(&casemate_proto::cbor::encode(record)));
        let log = (state, Tree::new(), publisher);
        Ok(Self::with_log(boot, name, log, config, entropy)?)
    }

    /// A node from a snapshot: a boot that was admitted to a cluster that exists. Whoever calls this
    /// has learned the snapshot's hash from at least t other nodes over channels that this boot
    /// attested; what is checked here is that the state is of the cluster whose genesis this boot
    /// was configured with, that this boot is current in it, and that the tail leads to its tree.
    ///
    /// It has no share of any key until one is recovered for it, and no permit for any entry that
    /// the snapshot has applied.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn join(
        boot: BootSecret,
        name: &NodeName,
        genesis: &GenesisRecord,
        state: State,
        tail: &[u8],
        config: NodeConfig,
        entropy: Box<dyn Entropy>,
    ) -> Result<Self, JoinError> {
        let (expected, found) = (genesis.id(), state.genesis());
        if expected != found || genesis.manifest != *state.manifest() {
            return Err(JoinError::OtherGenesis { expected, found });
        }
        if state.current_boot(name) != Some(boot.id(name)) {
            return Err(JoinError::NotThisBoot { node: name.clone() });
        }
        let (publisher, tree) = Publisher::from_tail(genesis, tail, &state)?;
        let mut node = Self::with_log(boot, name, (state, tree, publisher), config, entropy)?;
        node.find_jobs(node.state.time());
        node.greet_others();
        Ok(node)
    }

    /// Tells all others that this boot takes part, once they are linked.
    pub(crate) fn greet_others(&mut self) {
        self.greet = self.roster.others().into_iter().collect();
    }

    pub(crate) fn with_log(
        boot: BootSecret,
        name: &NodeName,
        (state, tree, publisher): (State, Tree, Publisher),
        config: NodeConfig,
        entropy: Box<dyn Entropy>,
    ) -> Result<Self, Misuse> {
        let manifest = state.manifest();
        let names = manifest.nodes.iter().map(|node| node.name.clone()).collect();
        let threshold =
            u16::try_from(manifest.threshold).map_err(|_| Misuse::PartyNumber(u16::MAX))?;
        let roster = Roster::new(names, name.clone());
        let party = roster.party(name).ok_or(Misuse::NotParticipating)?;
        let boot_id = boot.id(name);
        let heard = roster.names().iter().filter_map(|name| state.current_boot(name)).collect();
        Ok(Self {
            config,
            boot,
            boot_id,
            entropy,
            roster,
            threshold,
            state,
            tree,
            registry: RunRegistry::new(party, boot_id),
            asked: BTreeMap::new(),
            key_runs: BTreeMap::new(),
            heard,
            leader: None,
            greet: BTreeSet::new(),
            runs: Runs::default(),
            signing: Signing::default(),
            tally: Tally::new(),
            triples: Triples::default(),
            keygen: Keygen::default(),
            requests: Requests::default(),
            asks: Asks::default(),
            checkpoints: Checkpoints::default(),
            publisher,
            sealed: Sealed::default(),
            stats: Stats::default(),
            submitted: BTreeMap::new(),
            early_freezes: BTreeMap::new(),
            next_number: 0,
            disputes: BTreeSet::new(),
            halted: false,
            out: Vec::new(),
        })
    }

    /// This node's name.
    #[must_use]
    pub const fn name(&self) -> &NodeName {
        self.roster.me()
    }
    /// This boot.
    #[must_use]
    pub const fn boot_id(&self) -> BootId {
        self.boot_id
    }
    /// The applied state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }
    /// Whether it has halted.
    #[must_use]
    pub const fn is_halted(&self) -> bool {
        self.halted
    }
    /// How many records are in the store.
    #[must_use]
    pub const fn published(&self) -> u64 {
        self.publisher.published()
    }
    /// Keys that are live, and of how many of them this boot holds a share.
    #[must_use]
    pub fn keys(&self) -> (u64, u64) {
        let live = self.state.keys().iter().filter(|(_, key)| key.live.is_some());
        live.fold((0_u64, 0_u64), |(all, own), (name, _)| {
            let held = u64::from(self.holds(name, self.roster.me()));
            (all.saturating_add(1), own.saturating_add(held))
        })
    }
    /// What it counted since its boot.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
    /// This boot's record with `evidence`: an attestation document over [`BootRecord::user_data`]
    /// with the genesis id as scope, and over the asker's nonce.
    #[must_use]
    pub fn attested_record(&self, evidence: Vec<u8>) -> BootRecord {
        self.boot.record(self.roster.me(), evidence)
    }
    /// How many pairs of triples are ready for the set that this node leads now.
    #[must_use]
    pub fn stocked(&self, now: UnixMillis) -> usize {
        self.stocking_set(now)
            .and_then(|set| self.run_participants(&set))
            .map_or(0, |set| self.triples.ready(&set))
    }
    /// Whether anything is under way: a run, an unsigned request, somebody who waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.runs.iter().next().is_none()
            && self.signing.is_empty()
            && self.requests.is_empty()
            && self.keygen.is_empty()
    }

    /// Takes one event at `now`, this node's own clock, and says what comes of it.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: UnixMillis) -> Vec<Output> {
        self.take(event, now);
        self.settle(now);
        self.outputs(now)
    }

    /// Takes one event of several that wait; [`Self::settle`] comes behind the last of them.
    pub fn take(&mut self, event: Event, now: UnixMillis) {
        if self.halted {
            return;
        }
        match event {
            Event::Submit { ticket, submission } => {
                self.stats.count(Count::Submitted);
                if self.submitted.len() <= self.config.max_waiting {
                    self.submitted.insert(ticket, now);
                }
                self.submit(ticket, submission, now);
            }
            Event::Ask { ticket, query } => self.ask(ticket, &query, now),
            Event::Committed(committed) => self.apply(&committed, now),
            Event::Leader(boot) => self.leader = Some(boot),
            Event::Elected => self.propose_again(now),
            Event::Appended { index, entry } => self.start_ahead(index, &entry, now),
            Event::Peer { from, bytes } => self.peer(&from, bytes.as_slice(), now),
            Event::Link { node, up } => {
                self.roster.set_link(&node, up);
                if up {
                    self.greet.insert(node.clone());
                    // it may have missed a freeze that is not applied yet
                    self.pass_freezes_on(&node);
                    self.tell_tests_again(&node);
                } else {
                    self.lost(&node, now);
                }
            }
            Event::Dispute { from, size, root } => self.disputed(from, size, root),
            Event::Tick => self.tick(now),
        }
    }

    /// Asks for one checkpoint over everything that the events before had applied.
    pub fn settle(&mut self, now: UnixMillis) {
        if std::mem::take(&mut self.checkpoints.due) && !self.halted {
            self.drive_checkpoints(now);
        }
    }

    /// What this node wants done since it was last asked.
    #[must_use]
    pub fn outputs(&mut self, now: UnixMillis) -> Vec<Output> {
        for to in std::mem::take(&mut self.greet) {
            self.send(&to, &PeerMessage::Here);
        }
        let out = std::mem::take(&mut self.out);
        for output in &out {
            if let Output::Answer { ticket, answer } = output {
                self.stats.answered(answer);
                if let Some(since) = self.submitted.remove(ticket) {
                    self.stats.time(Timing::Answer, now.since(since));
                }
            }
        }
        if self.halted {
            // whatever was about to be said rests on a state that is wrong somewhere
            return out.into_iter().filter(|o| matches!(o, Output::Halt { .. })).collect();
        }
        out
    }

    fn tick(&mut self, now: UnixMillis) {
        for id in self.runs.due(now) {
            let error = RunError::Expired { deadline: now, now };
            self.end_run(id, &error, now);
        }
        self.drive_signing(now);
        self.drive_keygen(now);
        self.drive_requests(now);
        self.drive_checkpoints(now);
        self.drive_asks(now);
        self.fill_stock(now);
    }

    /// Replication says that a peer has another root.
    fn disputed(&mut self, peer: NodeName, size: u64, theirs: Hash32) {
        let is_other = peer != *self.roster.me() && self.roster.party(&peer).is_some();
        if let (true, Ok(ours)) = (is_other, self.tree.root_at(size))
            && ours != theirs
        {
            self.dispute(peer, size, theirs, ours);
        }
    }

    /// A peer names another root than this node's own: it gets nothing that depends on one. The
    /// word of t peers halts this node, since one of t at least is honest; fewer could all be
    /// lying, and would otherwise stop every honest node with a message each.
    pub(crate) fn dispute(&mut self, peer: NodeName, size: u64, theirs: Hash32, ours: Hash32) {
        self.stats.count(Count::Disputes);
        self.disputes.insert(peer.clone());
        let disputing = u64::try_from(self.disputes.len()).unwrap_or(u64::MAX);
        if disputing >= self.state.manifest().threshold {
            self.halt(HaltReason::RootMismatch { peer, size, theirs, ours });
        }
    }

    /// Peers that named another root than this node's own, since it booted.
    #[must_use]
    pub const fn disputes(&self) -> &BTreeSet<NodeName> {
        &self.disputes
    }

    pub(crate) fn halt(&mut self, reason: HaltReason) {
        self.halted = true;
        for id in self.runs.which(|_| true) {
            if let Some(mut slot) = self.runs.end(&id) {
                slot.run.burn();
            }
        }
        // nothing here signs any more: the shares and all one-time values go
        self.signing = Signing::default();
        self.triples = Triples::default();
        self.keygen = Keygen::default();
        self.out.push(Output::Halt { reason });
    }

    fn peer(&mut self, from: &NodeName, bytes: &[u8], now: UnixMillis) {
        let Some(party) = self.roster.party(from) else { return };
        if from == self.roster.me() {
            return;
        }
        self.heard.extend(self.state.current_boot(from));
        let Ok(message) = PeerMessage::decode(bytes) else {
            tracing::warn!(%from, "malformed message dropped");
            return;
        };
        match message {
            PeerMessage::Run(mut bytes) => {
                self.run_message(party, &bytes, now);
                bytes.zeroize();
            }
            PeerMessage::StartTriples { size, number, participants } => {
                self.join_triples(from, size, number, participants, now);
            }
            PeerMessage::StartSign { index, attempt, participants, triples, root, epoch } => {
                let start =
                    StartSign { index, attempt, participants, triples, root, epoch, ahead: None };
                self.join_sign(from, start, now);
            }
            PeerMessage::StartAhead { index, entry, participants, triples, root, epoch } => {
                let start = StartSign {
                    index,
                    attempt: 0,
                    participants,
                    triples,
                    root,
                    epoch,
                    ahead: Some(entry),
                };
                self.join_sign(from, start, now);
            }
            PeerMessage::JoinedAhead { index, root } => {
                self.joined_ahead(from, index, root, now);
            }
            PeerMessage::Declined { index, attempt, next } => {
                self.declined(from, index, attempt, next, now);
            }
            PeerMessage::StartKey(start) => {
                let until = now.saturating_add(self.config.keygen_timeout);
                self.join_key(from, start, until, now);
            }
            PeerMessage::KeyDeclined { name, number, next } => {
                self.key_declined(from, &name, number, next, now);
            }
            PeerMessage::StartTest(start) => {
                let until = now.saturating_add(self.config.keygen_timeout);
                self.join_test(from, start, until, now);
            }
            PeerMessage::Tested { name, transcript, participants, signature } => {
                self.tested(&name, &transcript, participants, signature, now);
            }
            PeerMessage::ConfirmKey(live) => self.confirm_key(from, &live),
            PeerMessage::Confirmed { name, transcript, signature } => {
                self.confirmed(from, &name, &transcript, signature, now);
            }
            PeerMessage::Cosign { size, root } => self.cosign(from, size, root, now),
            PeerMessage::Cosigned { size, at, signature } => {
                self.cosigned(from, size, at, signature, now);
            }
            PeerMessage::StartLogSignature { size, root, participants, number, epoch } => {
                let start = StartLog { size, root, participants, number, epoch };
                self.join_log_signature(from, start, now);
            }
            PeerMessage::AskCheckpoint { published } => self.checkpoint_asked(from, published),
            PeerMessage::RunEnded { run } => self.run_ended(from, party, run, now),
            PeerMessage::Here => {}
            PeerMessage::Checkpoint(note) => self.checkpoint_made(&note, now),
            PeerMessage::Freeze(statement) => self.obey_freeze(&statement, now),
        }
    }

    pub(crate) fn send(&mut self, to: &NodeName, message: &PeerMessage) {
        self.out.push(Output::Send { to: to.clone(), bytes: Bytes::new(message.encode()) });
    }

    pub(crate) fn send_others(&mut self, participants: &[NodeName], message: &PeerMessage) {
        let others: Vec<NodeName> =
            participants.iter().filter(|name| *name != self.roster.me()).cloned().collect();
        for to in others {
            self.send(&to, message);
        }
    }

    /// Whether anything says stop: a freeze in force, or one that was received and is not yet
    /// committed.
    pub(crate) fn is_frozen(&self) -> bool {
        !casemate_proto::sabotaged!("freeze_ignored")
            && (self.state.is_frozen() || !self.early_freezes.is_empty())
    }

    pub(crate) fn fresh_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number = self.next_number.saturating_add(1);
        number
    }

    /// Exactly t current nodes with their boots, this one among them, as a run takes them.
    pub(crate) fn run_participants(&self, names: &[NodeName]) -> Option<Participants> {
        let boots =
            casemate_ledger::permit::current_participants(&self.state, &self.boot_id, names)
                .ok()?;
        self.roster.participants(&boots)
    }

    /// All nodes with their current boots.
    pub(crate) fn everybody(&self) -> Option<Participants> {
        let boots: Option<Vec<(NodeName, BootId)>> = self
            .roster
            .names()
            .iter()
            .map(|name| Some((name.clone(), self.state.current_boot(name)?)))
            .collect();
        self.roster.participants(&boots?)
    }
}
