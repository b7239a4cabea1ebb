//! The node: one state machine over events, without I/O, clock or ambient randomness.
//!
//! Events are what replication commits, what peers send, what is submitted from outside, and time
//! passing. Outputs are what to propose, send, answer and publish. The order of a node's outputs is
//! the order in which a channel must deliver them.
//!
//! A host that withholds, delays or repeats any of it can stop the service; it cannot make a share
//! leave: that takes a [`casemate_ledger::Permit`], which applying a committed entry makes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use casemate_audit::{StoreWriter, Tree};
use casemate_ledger::apply::StepError;
use casemate_ledger::{Attachment, Committed, Effect, EntryBody, State, StateError};
use casemate_proto::governance::SignedStatement;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::GenesisRecord;
use casemate_proto::{BootId, Millis, NodeName, UnixMillis};
use casemate_threshold::{
    Misuse, Participants, PartyId, RunContext, RunError, RunId, RunRegistry, peek_run,
};

use crate::answer::{Answer, Submission, Ticket};
use crate::boot::{BootSecret, Entropy};
use crate::checkpoints::Checkpoints;
use crate::keygen::Keygen;
use crate::peer::PeerMessage;
use crate::publish::Publisher;
use crate::requests::Requests;
use crate::roster::Roster;
use crate::runs::{AnyRun, AnyStep, Made, Role, Runs, Slot};
use crate::signing::Signing;
use crate::triples::Triples;

/// How a node works, within what the manifest allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// How many pairs of triples a node makes in advance for the set that it leads.
    pub triple_stock: usize,
    /// How many triple runs a node leads at one time when requests wait for them.
    pub triple_runs: usize,
    /// How long one attempt at a signature may take.
    pub attempt_timeout: Millis,
    /// How long a key generation, or a pair of triples, may take.
    pub run_timeout: Millis,
    /// How often a checkpoint is published, at most.
    pub checkpoint_interval: Millis,
    /// Whether receipts are published beside the records.
    pub publish_receipts: bool,
    /// Most submissions that wait for an answer.
    pub max_waiting: usize,
    /// Most allowed requests that are not signed yet; above it new ones are told to come back.
    pub max_unsigned: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            triple_stock: 8,
            triple_runs: 4,
            attempt_timeout: Millis(5_000),
            run_timeout: Millis(20_000),
            checkpoint_interval: Millis(1_000),
            publish_receipts: false,
            max_waiting: 2_048,
            max_unsigned: 512,
        }
    }
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// Somebody outside asks something.
    Submit {
        /// What to answer under.
        ticket: Ticket,
        /// What is asked.
        submission: Submission,
    },
    /// The next entry is committed. In order, each once.
    Committed(Committed),
    /// A peer sent this, inside its channel.
    Peer {
        /// The node at the channel's other end.
        from: NodeName,
        /// An encoded [`PeerMessage`].
        bytes: Vec<u8>,
    },
    /// A peer's channel came up or went down.
    Link {
        /// The peer.
        node: NodeName,
        /// Whether it is up.
        up: bool,
    },
    /// Time passed. Wanted every 100 ms or so.
    Tick,
}

/// What a node wants done.
#[must_use]
#[derive(Clone, Debug)]
pub enum Output {
    /// Propose an entry to replication.
    Propose {
        /// The entry's body; the leader stamps the time.
        body: EntryBody,
        /// What travels beside it.
        attachment: Option<Attachment>,
    },
    /// Send to a peer, through its channel. The bytes may hold secrets meant for that peer alone.
    Send {
        /// To whom.
        to: NodeName,
        /// An encoded [`PeerMessage`].
        bytes: Bytes,
    },
    /// Answer a submission.
    Answer {
        /// Which.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
    /// Files for the auditors' store, in the order to write them.
    Publish(Vec<casemate_audit::store::File>),
    /// Something happened that must not; the node does nothing from here on.
    Halt {
        /// What.
        reason: HaltReason,
    },
}

/// Bytes for a channel: printed as a length only, since they may hold what a share is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl core::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// Why a node halted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The ledger cannot be applied any further by this program.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Two nodes applied different things: one of them, or replication, is broken.
    #[error("node `{peer}` has root {theirs} at size {size}, this node has {ours}")]
    RootMismatch {
        /// Who says otherwise.
        peer: NodeName,
        /// At which size.
        size: u64,
        /// Its root.
        theirs: Hash32,
        /// Ours.
        ours: Hash32,
    },
    /// The records do not fit what was published before.
    #[error("the store cannot be written on: {0}")]
    Store(String),
}

/// Why a node cannot come to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BirthError {
    /// The genesis is refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The genesis names another boot for this node, or the node is not in it.
    #[error("the genesis does not name this boot as node `{node}`'s")]
    NotThisBoot {
        /// The node.
        node: NodeName,
    },
    /// The roster does not fit the threshold drivers.
    #[error(transparent)]
    Threshold(#[from] Misuse),
}

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
    pub(crate) runs: Runs,
    pub(crate) signing: Signing,
    pub(crate) triples: Triples,
    pub(crate) keygen: Keygen,
    pub(crate) requests: Requests,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) publisher: Publisher,
    /// Freezes that were obeyed on receipt and are not applied yet.
    pub(crate) early_freezes: BTreeMap<Hash32, (SignedStatement, UnixMillis)>,
    /// Numbers for runs that this boot proposes; never repeated.
    pub(crate) next_number: u64,
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
        let boot_id = boot.id(name);
        if state.current_boot(name) != Some(boot_id) {
            return Err(BirthError::NotThisBoot { node: name.clone() });
        }
        let names = record.manifest.nodes.iter().map(|node| node.name.clone()).collect();
        let roster = Roster::new(names, name.clone());
        let party =
            roster.party(name).ok_or_else(|| BirthError::NotThisBoot { node: name.clone() })?;
        let threshold =
            u16::try_from(record.manifest.threshold).map_err(|_| Misuse::PartyNumber(u16::MAX))?;
        let genesis = casemate_proto::cbor::encode(record);
        Ok(Self {
            config,
            boot,
            boot_id,
            entropy,
            roster,
            threshold,
            state,
            tree: Tree::new(),
            registry: RunRegistry::new(party, boot_id),
            runs: Runs::default(),
            signing: Signing::default(),
            triples: Triples::default(),
            keygen: Keygen::default(),
            requests: Requests::default(),
            checkpoints: Checkpoints::default(),
            publisher: Publisher::new(StoreWriter::new(&genesis)),
            early_freezes: BTreeMap::new(),
            next_number: 0,
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
    /// How many pairs of triples are ready for the set that this node leads now.
    #[must_use]
    pub fn stocked(&self, now: UnixMillis) -> usize {
        self.roster
            .own_set(usize::from(self.threshold), now)
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

    /// Takes one event at `now`, this node's own clock.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: UnixMillis) -> Vec<Output> {
        if self.halted {
            return Vec::new();
        }
        match event {
            Event::Submit { ticket, submission } => self.submit(ticket, submission, now),
            Event::Committed(committed) => self.apply(&committed, now),
            Event::Peer { from, bytes } => self.peer(&from, &bytes, now),
            Event::Link { node, up } => {
                self.roster.set_link(&node, up);
                if !up {
                    self.lost(&node, now);
                }
            }
            Event::Tick => self.tick(now),
        }
        let out = std::mem::take(&mut self.out);
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
        self.fill_stock(now);
    }

    pub(crate) fn halt(&mut self, reason: HaltReason) {
        self.halted = true;
        for id in self.runs.which(|_| true) {
            if let Some(mut slot) = self.runs.end(&id) {
                slot.run.burn();
            }
        }
        self.out.push(Output::Halt { reason });
    }

    fn apply(&mut self, committed: &Committed, now: UnixMillis) {
        let applied = match self.state.apply(committed) {
            Ok(applied) => applied,
            Err(error) => return self.halt(error.into()),
        };
        let index = self.tree.append(applied.record.leaf_hash());
        self.publisher.record(&applied.record, committed);
        if let EntryBody::Statement(signed) = &committed.entry().body {
            self.early_freezes.remove(&signed.id());
        }
        for effect in applied.effects {
            self.effect(effect, committed, index, now);
        }
        self.answer_entry(&committed.entry().body, index, &applied.verdict, now);
        self.resume_early_starts(now);
        self.drive_signing(now);
        self.drive_checkpoints(now);
    }

    fn effect(&mut self, effect: Effect, committed: &Committed, index: u64, now: UnixMillis) {
        match effect {
            Effect::Sign(permit) => self.allowed(permit, now),
            Effect::SignatureRecorded { credential, request_id } => {
                self.signature_recorded(credential, request_id, index);
            }
            Effect::Decided { .. }
            | Effect::GenesisConfirmed
            | Effect::PolicyInForce { .. }
            | Effect::Unfrozen { .. }
            | Effect::BootAdmitted { .. }
            | Effect::VersionRaised { .. } => {}
            Effect::GenerateKey { name, scheme } => {
                self.key_wanted(name, scheme, index, committed.entry().hash(), now);
            }
            Effect::KeyLive { name, transcript, .. } => {
                if let EntryBody::KeyLive(live) = &committed.entry().body {
                    self.key_live(&name, &transcript, live, now);
                }
            }
            Effect::Frozen { .. } => self.burn_signing(now),
            Effect::BootRetired { boot, .. } => {
                let gone =
                    |slot: &Slot| slot.participants.as_slice().iter().any(|p| p.boot == boot);
                for id in self.runs.which(gone) {
                    self.end_run(id, &RunError::Burned, now);
                }
                let state = &self.state;
                self.triples.retain_boots(|boot| state.is_current(boot));
            }
        }
    }

    fn peer(&mut self, from: &NodeName, bytes: &[u8], now: UnixMillis) {
        let Some(party) = self.roster.party(from) else { return };
        if from == self.roster.me() {
            return;
        }
        let Ok(message) = PeerMessage::decode(bytes) else {
            tracing::warn!(%from, "malformed message dropped");
            return;
        };
        self.roster.heard(from);
        match message {
            PeerMessage::Run(bytes) => self.run_message(party, &bytes, now),
            PeerMessage::StartTriples { size, number, participants } => {
                self.join_triples(from, size, number, participants, now);
            }
            PeerMessage::StartSign { index, attempt, participants, triples, root } => {
                let start =
                    crate::signing::StartSign { index, attempt, participants, triples, root };
                self.join_sign(from, start, now);
            }
            PeerMessage::Declined { index, attempt, next } => {
                self.declined(from, index, attempt, next, now);
            }
            PeerMessage::StartKeygen { index, attempt } => {
                self.join_keygen(from, index, attempt, now);
            }
            PeerMessage::StartTest { name, transcript, participants, triples, number } => {
                let start =
                    crate::keygen::StartTest { name, transcript, participants, triples, number };
                self.join_test(from, start, now);
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
            PeerMessage::StartLogSignature { size, root, participants, number } => {
                self.join_log_signature(from, size, root, participants, number, now);
            }
            PeerMessage::Checkpoint(note) => self.checkpoint_made(&note, now),
            PeerMessage::Freeze(statement) => self.obey_freeze(&statement, false, now),
        }
    }

    pub(crate) fn send(&mut self, to: &NodeName, message: &PeerMessage) {
        self.out.push(Output::Send { to: to.clone(), bytes: Bytes(message.encode()) });
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
        self.state.is_frozen() || !self.early_freezes.is_empty()
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

    /// Claims a run's id, builds the run, makes its first step, and `then` whatever else must
    /// happen before the first message of a peer is read.
    pub(crate) fn begin_run(
        &mut self,
        context: RunContext,
        deadline: UnixMillis,
        role: Role,
        now: UnixMillis,
        build: impl FnOnce(&mut Self, casemate_threshold::Claim) -> Result<AnyRun, RunError>,
        then: impl FnOnce(&mut AnyRun, RunId) -> Result<Option<AnyStep>, RunError>,
    ) -> Result<RunId, RunError> {
        let id = context.id();
        let participants = context.participants().clone();
        let claim = self.registry.claim(context, deadline)?;
        let mut run = build(self, claim)?;
        let mut steps = vec![run.start(now)?];
        steps.extend(then(&mut run, id)?);
        let slot = Slot { run, role, participants, heard: BTreeSet::new() };
        let early = self.runs.insert(id, slot);
        for step in steps {
            self.take_step(id, step, now);
        }
        for (from, bytes) in early {
            self.deliver(id, from, &bytes, now);
        }
        Ok(id)
    }

    fn run_message(&mut self, from: PartyId, bytes: &[u8], now: UnixMillis) {
        let Ok(id) = peek_run(bytes) else { return };
        if self.runs.get_mut(&id).is_some() {
            self.deliver(id, from, bytes, now);
        } else {
            self.runs.keep_early(id, from, bytes, now);
        }
    }

    fn deliver(&mut self, id: RunId, from: PartyId, bytes: &[u8], now: UnixMillis) {
        let Some(slot) = self.runs.get_mut(&id) else { return };
        match slot.run.receive(from, bytes, now) {
            Ok(step) => {
                slot.heard.insert(from);
                self.take_step(id, step, now);
            }
            Err(error) if error.burns() => self.end_run(id, &error, now),
            Err(error) => tracing::debug!(run = %id, %error, "message refused"),
        }
    }

    fn take_step(&mut self, id: RunId, step: AnyStep, now: UnixMillis) {
        for outgoing in step.send {
            if let Some(to) = self.roster.name(outgoing.to).cloned() {
                self.send(&to, &PeerMessage::Run(outgoing.bytes));
            }
        }
        let Some(made) = step.done else { return };
        if let Some(slot) = self.runs.end(&id) {
            self.made(slot, made, now);
        }
    }

    fn made(&mut self, slot: Slot, made: Made, now: UnixMillis) {
        match (slot.role, made) {
            (Role::Triples { mine }, Made::Pair(pair)) => self.pair_made(pair, mine, now),
            (Role::Sign { index, led }, Made::Ecdsa(signature)) => {
                let mut bytes = signature.r_s.to_vec();
                bytes.push(signature.recovery_id);
                self.signature_made(index, led, bytes, now);
            }
            (Role::Sign { index, led }, Made::Ed25519(signature)) => {
                self.signature_made(index, led, signature.bytes.to_vec(), now);
            }
            (Role::Test { name, transcript, led }, Made::Ecdsa(signature)) => {
                let names = self.roster.names_of(&slot.participants);
                self.test_made(&name, &transcript, names, signature.r_s, led, now);
            }
            (Role::Test { name, transcript, led }, Made::Ed25519(signature)) => {
                let names = self.roster.names_of(&slot.participants);
                self.test_made(&name, &transcript, names, signature.bytes, led, now);
            }
            (Role::Keygen { index }, Made::EcdsaKey(key)) => {
                self.key_made(index, crate::keygen::Pending::Ecdsa(Box::new(key)), now);
            }
            (Role::Keygen { index }, Made::Ed25519Key(key)) => {
                self.key_made(index, crate::keygen::Pending::Ed25519(Box::new(key)), now);
            }
            (Role::Log { size, led }, Made::Ed25519(signature)) => {
                self.log_signature_made(size, led, signature.bytes, now);
            }
            _ => tracing::error!("a run made what its kind does not make"),
        }
    }

    /// Ends a run that failed. Its one-time values are gone.
    pub(crate) fn end_run(&mut self, id: RunId, error: &RunError, now: UnixMillis) {
        let Some(mut slot) = self.runs.end(&id) else { return };
        slot.run.burn();
        tracing::debug!(run = %id, role = ?slot.role, %error, "run ended without a result");
        if matches!(error, RunError::Expired { .. }) {
            let silent: Vec<PartyId> = slot
                .participants
                .others(self.registry.me().party)
                .filter(|party| !slot.heard.contains(party))
                .collect();
            for party in silent {
                if let Some(name) = self.roster.name(party).cloned() {
                    self.roster.suspect(&name, now);
                }
            }
        }
        match slot.role {
            Role::Triples { mine } => self.pair_failed(&slot.participants, mine, now),
            Role::Sign { index, .. } => self.attempt_failed(index, now),
            Role::Keygen { index } => self.keygen_failed(index, now),
            Role::Test { name, transcript, led } => self.test_failed(&name, &transcript, led, now),
            Role::Log { size, led } => self.log_signature_failed(size, led),
        }
    }

    /// A peer's channel went down: nothing that needs it goes on.
    fn lost(&mut self, node: &NodeName, now: UnixMillis) {
        let Some(party) = self.roster.party(node) else { return };
        for id in self.runs.which(|slot| slot.participants.contains_party(party)) {
            self.end_run(id, &RunError::Burned, now);
        }
        self.drive_signing(now);
    }
}

/// A queue that refuses when it is full.
#[derive(Debug)]
pub(crate) struct Bounded<T> {
    items: VecDeque<T>,
    most: usize,
}

impl<T> Bounded<T> {
    pub(crate) const fn new(most: usize) -> Self {
        Self { items: VecDeque::new(), most }
    }
    /// Whether there was room.
    pub(crate) fn push(&mut self, item: T) -> bool {
        let room = self.items.len() < self.most;
        if room {
            self.items.push_back(item);
        }
        room
    }
    pub(crate) fn take(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.items)
    }
}

/// What a map that must not grow without end is capped by.
pub(crate) fn cap<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, most: usize) {
    while map.len() > most {
        map.pop_first();
    }
}
