//! Protocol runs in progress: one table for all kinds, and the messages that came too early.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use casemate_proto::ids::Hash32;
use casemate_proto::{KeyName, Millis, NodeName, UnixMillis};
use casemate_threshold::{
    Claim, Misuse, Participants, PartyId, RunContext, RunError, RunId, RunRegistry, peek_run,
};
use zeroize::Zeroize as _;

use crate::event::Bytes;
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::shares::{AnyRun, AnyStep, Made};
use crate::stats::Went;

/// Most runs at one time.
pub(crate) const MAX_RUNS: usize = 512;
/// Most bytes that one peer's early messages may take.
const MAX_EARLY_BYTES: usize = 2 * 1024 * 1024;
/// Most early messages of one peer.
const MAX_EARLY_MESSAGES: usize = 512;
/// How long an early message waits.
const EARLY_LIFE: Millis = Millis(10_000);
/// How many ended runs are remembered, so that what comes late is not taken for early.
const REMEMBERED: usize = 4096;

/// What a run is to this node.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Two triples. Their leader asked for them and alone says what uses them.
    Triples { leader: NodeName },
    /// The signature that the entry at this index allowed.
    Sign { index: u64, led: bool },
    /// A pending share's test.
    Test { name: KeyName, transcript: Hash32, leader: NodeName },
    /// A key's shares, new ones or for those that lost theirs; the leader's number for it.
    Key { name: KeyName, leader: NodeName, number: u64 },
    /// The log key's signature of the checkpoint of this size.
    Log { size: u64, leader: NodeName },
}

impl Role {
    /// Whether it makes or tests shares.
    const fn is_of_shares(&self) -> bool {
        matches!(self, Self::Key { .. } | Self::Test { .. })
    }
}

/// A run with what this node knows of it.
pub(crate) struct Slot {
    pub(crate) run: AnyRun,
    pub(crate) role: Role,
    pub(crate) participants: Participants,
    pub(crate) since: UnixMillis,
    /// Who has been heard in it.
    pub(crate) heard: BTreeSet<PartyId>,
    /// Since when nothing is missing but the last step, which is left to another.
    pub(crate) complete_since: Option<UnixMillis>,
}

struct Early {
    from: PartyId,
    bytes: Bytes,
    until: UnixMillis,
}

/// The table of runs.
#[derive(Default)]
pub(crate) struct Runs {
    slots: BTreeMap<RunId, Slot>,
    early: BTreeMap<RunId, Vec<Early>>,
    early_use: BTreeMap<PartyId, (usize, usize)>,
    ended: BTreeSet<RunId>,
    ended_order: VecDeque<RunId>,
}

impl Runs {
    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= MAX_RUNS
    }
    /// Whether runs may stay that could be over.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < MAX_RUNS / 2
    }
    pub(crate) fn get_mut(&mut self, id: &RunId) -> Option<&mut Slot> {
        self.slots.get_mut(id)
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RunId, &Slot)> {
        self.slots.iter()
    }

    /// Puts a run in and gives what came for it already.
    pub(crate) fn insert(&mut self, id: RunId, slot: Slot) -> Vec<(PartyId, Bytes)> {
        self.slots.insert(id, slot);
        let early = self.early.remove(&id).unwrap_or_default();
        for message in &early {
            self.forget_use(message.from, message.bytes.as_slice().len());
        }
        early.into_iter().map(|message| (message.from, message.bytes)).collect()
    }

    /// Takes a run out for good.
    pub(crate) fn end(&mut self, id: &RunId) -> Option<Slot> {
        if self.ended.insert(*id) {
            self.ended_order.push_back(*id);
        }
        while self.ended_order.len() > REMEMBERED {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
        self.slots.remove(id)
    }

    /// Keeps a message whose run is not known here yet, within the sender's allowance.
    pub(crate) fn keep_early(&mut self, id: RunId, from: PartyId, bytes: &[u8], now: UnixMillis) {
        if self.ended.contains(&id) {
            return;
        }
        let (messages, used) = self.early_use.get(&from).copied().unwrap_or_default();
        let used = used.saturating_add(bytes.len());
        if messages >= MAX_EARLY_MESSAGES || used > MAX_EARLY_BYTES {
            return;
        }
        self.early_use.insert(from, (messages.saturating_add(1), used));
        let until = now.saturating_add(EARLY_LIFE);
        self.early.entry(id).or_default().push(Early {
            from,
            bytes: Bytes::new(bytes.to_vec()),
            until,
        });
    }

    fn forget_use(&mut self, from: PartyId, bytes: usize) {
        if let Some((messages, used)) = self.early_use.get_mut(&from) {
            *messages = messages.saturating_sub(1);
            *used = used.saturating_sub(bytes);
        }
    }

    /// Drops early messages that nobody came for, and gives the runs whose time is over.
    pub(crate) fn due(&mut self, now: UnixMillis) -> Vec<RunId> {
        let mut dropped = Vec::new();
        self.early.retain(|_, messages| {
            messages.retain(|message| {
                let keep = message.until > now;
                if !keep {
                    dropped.push((message.from, message.bytes.as_slice().len()));
                }
                keep
            });
            !messages.is_empty()
        });
        for (from, bytes) in dropped {
            self.forget_use(from, bytes);
        }
        self.slots
            .iter_mut()
            .filter_map(|(id, slot)| slot.run.is_over(now).then_some(*id))
            .collect()
    }

    /// The runs that `choose` picks.
    pub(crate) fn which(&self, choose: impl Fn(&Slot) -> bool) -> Vec<RunId> {
        self.slots.iter().filter(|(_, slot)| choose(slot)).map(|(id, _)| *id).collect()
    }
}

impl Node {
    /// Claims a run's id, builds the run, makes its first step, and `then` whatever else must
    /// happen before the first message of a peer is read.
    pub(crate) fn begin_run(
        &mut self,
        context: RunContext,
        deadline: UnixMillis,
        role: Role,
        now: UnixMillis,
        build: impl FnOnce(&mut Self, Claim) -> Result<AnyRun, RunError>,
        then: impl FnOnce(&mut AnyRun, RunId) -> Result<Option<AnyStep>, RunError>,
    ) -> Result<RunId, RunError> {
        if self.runs.is_full() {
            return Err(RunError::Burned);
        }
        let id = context.id();
        let participants = context.participants().clone();
        let claim = self.claim(context, &role, deadline)?;
        let mut run = build(self, claim)?;
        let mut steps = vec![run.start(now)?];
        steps.extend(then(&mut run, id)?);
        self.stats.run(&role, Went::Begun, Millis(0));
        let (heard, complete_since) = (BTreeSet::new(), None);
        let slot = Slot { run, role, participants, since: now, heard, complete_since };
        let early = self.runs.insert(id, slot);
        for step in steps {
            self.take_step(id, step, now);
        }
        for (from, bytes) in early {
            self.deliver(id, from, bytes.as_slice(), now);
        }
        Ok(id)
    }

    /// Takes a run's id for good: from the entries' registry, or from that of the boot that asks.
    fn claim(
        &mut self,
        context: RunContext,
        role: &Role,
        deadline: UnixMillis,
    ) -> Result<Claim, Misuse> {
        let me = self.registry.me();
        let (leader, registries) = match role {
            Role::Sign { .. } => return self.registry.claim(context, deadline),
            Role::Triples { leader } | Role::Log { leader, .. } => (leader, &mut self.asked),
            Role::Key { leader, .. } | Role::Test { leader, .. } => (leader, &mut self.key_runs),
        };
        let boot = self.state.current_boot(leader).ok_or(Misuse::NotParticipating)?;
        let fresh = || RunRegistry::new(me.party, me.boot);
        registries.entry(boot).or_insert_with(fresh).claim(context, deadline)
    }

    pub(crate) fn run_message(&mut self, from: PartyId, bytes: &[u8], now: UnixMillis) {
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

    pub(crate) fn take_step(&mut self, id: RunId, step: AnyStep, now: UnixMillis) {
        for outgoing in step.send {
            if let Some(to) = self.roster.name(outgoing.to).cloned() {
                let mut message = PeerMessage::Run(outgoing.bytes);
                self.send(&to, &message);
                if let PeerMessage::Run(bytes) = &mut message {
                    bytes.zeroize();
                }
            }
        }
        let Some(made) = step.done else {
            if let Some(slot) = self.runs.get_mut(&id)
                && slot.run.is_complete()
            {
                slot.complete_since.get_or_insert(now);
            }
            return;
        };
        if let Some(slot) = self.runs.end(&id) {
            self.went_well(&slot, now);
            self.made(id, slot, made, now);
        }
    }

    /// A run ended with its result, here or at another of the participants.
    pub(crate) fn went_well(&mut self, slot: &Slot, now: UnixMillis) {
        self.stats.run(&slot.role, Went::Done, now.since(slot.since));
        for name in self.roster.names_of(&slot.participants) {
            self.roster.proved_itself(&name);
        }
    }

    /// Makes the last step of a run where it was left to another. Whether the run is over by that.
    pub(crate) fn finish_run(&mut self, id: RunId, now: UnixMillis) -> bool {
        let Some(slot) = self.runs.get_mut(&id).filter(|slot| slot.run.is_complete()) else {
            return false;
        };
        match slot.run.finish(now) {
            Ok(step) => {
                let is_over = step.done.is_some();
                self.take_step(id, step, now);
                is_over
            }
            Err(error) => {
                self.give_up_run(id, &error, now);
                true
            }
        }
    }

    fn made(&mut self, id: RunId, slot: Slot, made: Made, now: UnixMillis) {
        match (slot.role, made) {
            (Role::Triples { leader }, Made::Pair(pair)) => self.pair_made(*pair, &leader, now),
            (Role::Sign { index, led }, Made::Signature(signature, verified)) => {
                self.signature_made(index, led, (signature, verified), now);
            }
            (Role::Test { name, transcript, leader }, Made::Signature(signature, _)) => {
                if leader == *self.roster.me()
                    && let Some(signature) = signature.first_chunk::<64>()
                {
                    let names = self.roster.names_of(&slot.participants);
                    self.test_made(&name, &transcript, names, *signature, now);
                }
            }
            (Role::Key { name, leader, .. }, Made::Share(share)) => {
                self.share_made(&name, leader, id, share, now);
            }
            (Role::Log { size, leader }, Made::Signature(signature, _)) => {
                let led = leader == *self.roster.me();
                if let Ok(signature) = <[u8; 64]>::try_from(signature) {
                    self.log_signature_made(size, led, signature, now);
                }
            }
            _ => tracing::error!("a run made what its kind does not make"),
        }
    }

    /// Ends a run that failed. Its one-time values are gone. One that lacked nothing but what was left to
    /// another ends with its result instead, whatever became of the other.
    pub(crate) fn end_run(&mut self, id: RunId, error: &RunError, now: UnixMillis) {
        if !self.finish_run(id, now) {
            self.give_up_run(id, error, now);
        }
    }

    fn give_up_run(&mut self, id: RunId, error: &RunError, now: UnixMillis) {
        let Some(mut slot) = self.runs.end(&id) else { return };
        slot.run.burn();
        let late = matches!(error, RunError::Expired { .. });
        let went = if late { Went::Late } else { Went::Failed };
        self.stats.run(&slot.role, went, now.since(slot.since));
        tracing::debug!(run = %id, role = ?slot.role, %error, "run ended without a result");
        let mut blamed: Vec<NodeName> =
            error.culprits().iter().filter_map(|party| self.roster.name(*party).cloned()).collect();
        if late {
            for party in slot.participants.others(self.registry.me().party) {
                if let Some(name) = self.roster.name(party).cloned()
                    && !slot.heard.contains(&party)
                {
                    self.roster.suspect(&name, now);
                    blamed.push(name);
                }
            }
        }
        if slot.role.is_of_shares() {
            // those who cannot end well without this node need not wait for it
            let others = self.roster.names_of(&slot.participants);
            self.send_others(&others, &PeerMessage::RunEnded { run: id });
        }
        match slot.role {
            Role::Triples { leader } => self.pair_failed(&leader, &slot.participants, now),
            Role::Sign { index, .. } => self.attempt_failed(index, &blamed, now),
            Role::Key { name, .. } => self.key_failed(&name, now),
            Role::Test { name, transcript, leader } => {
                if leader == *self.roster.me() {
                    let set = self.roster.names_of(&slot.participants);
                    self.test_failed(&name, &transcript, &set, now);
                }
            }
            Role::Log { size, leader } => {
                self.log_signature_failed(size, leader == *self.roster.me());
            }
        }
    }

    /// A participant has ended a run that makes or tests shares: it has no result any more, and
    /// whoever leads may begin the next. A participant that says nothing can do as much, only more
    /// slowly; the word of anybody else, or of a run of another kind, ends nothing.
    pub(crate) fn run_ended(
        &mut self,
        from: &NodeName,
        party: PartyId,
        run: RunId,
        now: UnixMillis,
    ) {
        let ends = self.runs.get_mut(&run).is_some_and(|slot| {
            slot.role.is_of_shares() && slot.participants.contains_party(party)
        });
        if ends {
            tracing::info!(%run, %from, "a participant has ended a run");
            self.end_run(run, &RunError::Burned, now);
        } else {
            self.candidate_ended(from, run, now);
        }
    }

    /// A peer's channel went down: nothing that needs it goes on.
    pub(crate) fn lost(&mut self, node: &NodeName, now: UnixMillis) {
        let Some(party) = self.roster.party(node) else { return };
        for id in self.runs.which(|slot| slot.participants.contains_party(party)) {
            self.end_run(id, &RunError::Burned, now);
        }
        self.drive_signing(now);
    }
}
