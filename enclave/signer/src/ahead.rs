//! A signing run that starts before its entry is committed.
//!
//! ```text
//! leader                                  participant
//! appends the entry ────────────────────► holds it, and applies it once it is committed
//! starts ahead: commitments or presign ─► its own, its root with the entry, and its share
//! applies the entry once it is committed
//! same root? ─► its share ─► the signature
//! ```
//!
//! Who leads replication knows an entry before anybody else, and when nothing else is unsigned it
//! starts the entry's first attempt at once. What goes ahead makes no signature possible: FROST's
//! commitments, or ECDSA's presignature, both bound to this entry's run. The share waits at each node
//! for what it always waits for: the committed entry, applied there, allowed, charged, and turned
//! into an attempt of that node's own permit (I4). Nobody but the leader begins before that.
//!
//! The leader names the root of its tree before the entry; a participant compares it, and answers with
//! its own root with the entry. The leader gives its share only when all of them are its own root.
//!
//! An entry that does not become what was foreseen burns the run and what it had made (I8); the next
//! attempt has another number.

use std::collections::BTreeMap;

use casemate_ledger::Entry;
use casemate_proto::ids::Hash32;
use casemate_proto::{NodeName, UnixMillis};
use casemate_threshold::{PartyId, RunError, RunId, TriplePairId};

use crate::node::Node;
use crate::peer::PeerMessage;
use crate::shares::wants_triples;
use crate::signing::{Bound, Phase, authorise};
use crate::stats::Count;

/// The run that was started ahead. One at a time.
pub(crate) struct Ahead {
    index: u64,
    entry: Hash32,
    /// The hash of what it is bound to.
    binding: Hash32,
    run: RunId,
    others: Vec<NodeName>,
    /// The roots of those who joined, with the entry as the last leaf.
    joined: BTreeMap<NodeName, Hash32>,
    /// Nothing is left of it but that its number is used.
    is_burned: bool,
}

impl Node {
    /// The node whose boot appends what commits now.
    pub(crate) fn appender(&self) -> Option<NodeName> {
        let leader = self.leader?;
        let names = self.roster.names().iter();
        names.into_iter().find(|name| self.state.current_boot(name) == Some(leader)).cloned()
    }

    /// This boot appended an entry: starts its first attempt, if it is likely to be this node's.
    pub(crate) fn start_ahead(&mut self, index: u64, entry: &Entry, now: UnixMillis) {
        let is_next = index == self.state.size();
        let is_leader = self.leader == Some(self.boot_id);
        if !is_next || !is_leader || !self.signing.jobs.is_empty() || self.is_frozen() {
            return;
        }
        self.burn_ahead(now);
        let Some(foreseen) = self.state.foresee(entry) else { return };
        let t = usize::from(self.threshold);
        let able = |name: &NodeName| self.was_able(foreseen.key(), foreseen.at(), name);
        if self.runs.is_full() || !able(self.roster.me()) {
            return;
        }
        let Some(participants) = self.roster.own_set(t, &Default::default(), now, able) else {
            return;
        };
        let Ok(binding) = foreseen.binding(&self.state, &self.boot_id, &participants) else {
            return;
        };
        let Some(boots) = self.run_participants(&participants) else { return };
        let mut triples = None;
        if wants_triples(foreseen.scheme()) {
            let Some(pair) = self.triples.take_own(&boots) else { return };
            triples = Some(pair.0);
        }
        let (hash, epoch, root) = (binding.hash(), binding.epoch, self.state.root());
        let what = Bound {
            binding,
            scheme: foreseen.scheme(),
            digest: foreseen.digest(),
            release_by: foreseen.release_by(),
        };
        // no permit yet: the run goes as far as it gets without one
        match self.run_bound(what, triples, true, now, |_, _| Ok(None)) {
            Ok(run) => {
                let (entry, others) = (foreseen.entry(), self.others_of(&participants));
                let (named, joined) = (participants.clone(), BTreeMap::new());
                self.signing.ahead = Some(Ahead {
                    index,
                    entry,
                    binding: hash,
                    run,
                    others,
                    joined,
                    is_burned: false,
                });
                let participants = named.clone();
                let message =
                    PeerMessage::StartAhead { index, entry, participants, triples, root, epoch };
                self.send_first(&named, &message);
            }
            Err(error) => {
                tracing::debug!(index, %error, "not started ahead");
                if let Some(pair) = triples {
                    self.triples.give_back(boots, TriplePairId(pair));
                }
            }
        }
    }

    fn others_of(&self, participants: &[NodeName]) -> Vec<NodeName> {
        participants.iter().filter(|name| *name != self.roster.me()).cloned().collect()
    }

    /// Tells the leader that this node takes part, and with which root.
    pub(crate) fn say_joined(&mut self, to: &NodeName, index: u64) {
        if let Ok(root) = self.tree.root_at(index.saturating_add(1)) {
            self.send(to, &PeerMessage::JoinedAhead { index, root });
        }
    }

    /// A participant has applied the entry, perhaps before this node knows that it is committed.
    pub(crate) fn joined_ahead(
        &mut self,
        from: &NodeName,
        index: u64,
        root: Hash32,
        now: UnixMillis,
    ) {
        if let Some(ahead) = &mut self.signing.ahead
            && ahead.index == index
            && ahead.others.contains(from)
        {
            ahead.joined.insert(from.clone(), root);
            self.release_ahead(now);
        }
    }

    /// The entry at this index is applied: the run that was started ahead of it becomes its first
    /// attempt, or is burned.
    pub(crate) fn settle_ahead(&mut self, index: u64, now: UnixMillis) {
        let Some(ahead) = self.signing.ahead.as_ref().filter(|ahead| ahead.index <= index) else {
            return;
        };
        let (at, run, burned) = (ahead.index, ahead.run, ahead.is_burned);
        let goes_on = self.signing.jobs.get(&at).is_some_and(
            |job| matches!(job.phase, Phase::Running { run: running, .. } if running == run),
        );
        if at < index && goes_on {
            // it is an attempt already, and what else is applied while the others join is no reason
            return;
        }
        let is_it = at == index
            && self.signing.jobs.get(&at).is_some_and(|job| job.permit.entry() == ahead.entry);
        let Some(job) = self.signing.jobs.get_mut(&at).filter(|_| is_it) else {
            return self.burn_ahead(now);
        };
        if burned {
            job.next = job.next.max(1);
            self.signing.ahead = None;
        } else {
            job.phase = Phase::Running { run, attempt: 0 };
            self.release_ahead(now);
        }
    }

    /// Gives this node's share if the entry is applied and all others have this node's root.
    fn release_ahead(&mut self, now: UnixMillis) {
        let Some(ahead) = &self.signing.ahead else { return };
        let (index, run, binding) = (ahead.index, ahead.run, ahead.binding);
        if ahead.joined.len() < ahead.others.len() || index >= self.state.size() {
            return;
        }
        let size = index.saturating_add(1);
        let Ok(ours) = self.tree.root_at(size) else { return };
        let other = ahead.joined.iter().find(|(_, root)| **root != ours);
        if let Some((peer, theirs)) = other.map(|(peer, root)| (peer.clone(), *root)) {
            self.end_run(run, &RunError::Burned, now);
            return self.dispute(peer, size, theirs, ours);
        }
        let is_running = self.signing.jobs.get(&index).is_some_and(
            |job| matches!(job.phase, Phase::Running { run: running, .. } if running == run),
        );
        if !is_running || self.is_frozen() {
            return;
        }
        if let Err(error) = self.permit_ahead(index, run, binding, now) {
            tracing::debug!(index, %error, "what was started ahead goes no further");
            self.end_run(run, &error, now);
        }
    }

    /// Turns this node's permit into the attempt that the run was started for.
    fn permit_ahead(
        &mut self,
        index: u64,
        run: RunId,
        binding: Hash32,
        now: UnixMillis,
    ) -> Result<(), RunError> {
        if let Err(error) = self.may_release(index, now) {
            self.stats.count(Count::TallyRefused);
            tracing::error!(index, %error, "no share: this boot has released too much");
            return Err(RunError::Burned);
        }
        let Some(ahead) = &self.signing.ahead else { return Err(RunError::Burned) };
        let mut participants = ahead.others.clone();
        participants.push(self.roster.me().clone());
        let Some(job) = self.signing.jobs.get_mut(&index) else { return Err(RunError::Burned) };
        let attempt = job
            .permit
            .attempt(&self.state, &self.boot_id, &participants, 0, now)
            .inspect_err(|error| tracing::debug!(index, %error, "no attempt"))
            .map_err(|_| RunError::Burned)?;
        if attempt.binding().hash() != binding {
            return Err(RunError::Burned);
        }
        if let Err(error) = self.tally(index, now) {
            tracing::error!(index, %error, "no share: it cannot be counted");
            return Err(RunError::Burned);
        }
        let slot = self.runs.get_mut(&run).ok_or(RunError::Burned)?;
        let step = slot.run.authorise(authorise(attempt, run), now)?;
        self.stats.count(Count::Released);
        self.signing.ahead = None;
        self.take_step(run, step, now);
        Ok(())
    }

    /// A participant does not take part in what was started ahead.
    pub(crate) fn ahead_declined(&mut self, party: PartyId, index: u64, now: UnixMillis) {
        let Some(ahead) = &self.signing.ahead else { return };
        let is_one = self.roster.name(party).is_some_and(|name| ahead.others.contains(name));
        // once the entry is applied it is an attempt like any other
        if is_one && ahead.index == index && !self.signing.jobs.contains_key(&index) {
            self.end_run(ahead.run, &RunError::Burned, now);
        }
    }

    /// The run that was started ahead of this entry has ended without a signature. Its number is used.
    pub(crate) fn ahead_failed(&mut self, index: u64) {
        let Some(ahead) = self.signing.ahead.as_mut().filter(|ahead| ahead.index == index) else {
            return;
        };
        match self.signing.jobs.get_mut(&index) {
            Some(job) => {
                job.next = job.next.max(1);
                self.signing.ahead = None;
            }
            None => ahead.is_burned = true,
        }
    }

    /// Burns the run that was started ahead: another entry came, or this one allows nothing.
    fn burn_ahead(&mut self, now: UnixMillis) {
        if let Some(ahead) = self.signing.ahead.take() {
            self.end_run(ahead.run, &RunError::Burned, now);
        }
    }
}
