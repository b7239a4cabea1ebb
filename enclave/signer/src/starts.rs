//! A leader's word that an attempt begins, and what becomes of it at those who take part.
//!
//! A participant takes from it nothing but who leads whom, with which triples: digest, path, key and epoch are its
//! own permit's. One that is early waits; one that cannot be joined is declined at once, so that the leader need
//! not wait for it.

use casemate_ledger::permit::MAX_ATTEMPTS;
use casemate_proto::ids::Hash32;
use casemate_proto::{NodeName, UnixMillis};
use casemate_threshold::{RunError, TriplePairId};

use crate::node::Node;
use crate::peer::PeerMessage;
use crate::runs::Role;
use crate::shares::wants_triples;
use crate::signing::{Job, Phase};

/// A leader's word, as it came.
#[derive(Clone, Debug)]
pub(crate) struct StartSign {
    pub(crate) index: u64,
    pub(crate) attempt: u8,
    pub(crate) participants: Vec<NodeName>,
    pub(crate) triples: Option<Hash32>,
    /// The leader's root: with the entry as its last leaf, or before it if it started ahead.
    pub(crate) root: Hash32,
    pub(crate) epoch: u64,
    /// The entry's hash, if the leader started ahead of its commit.
    pub(crate) ahead: Option<Hash32>,
}

impl StartSign {
    /// How many leaves the leader's root is over.
    const fn size(&self) -> u64 {
        match self.ahead {
            Some(_) => self.index,
            None => self.index.saturating_add(1),
        }
    }
}

impl Node {
    /// Somebody leads an attempt with this node in it.
    pub(crate) fn join_sign(&mut self, from: &NodeName, start: StartSign, now: UnixMillis) {
        let until = now.saturating_add(self.config.attempt_timeout);
        self.try_join_sign(from, start, until, now);
    }

    /// Joins, or keeps the start until then if what it needs is not here yet.
    fn try_join_sign(
        &mut self,
        from: &NodeName,
        start: StartSign,
        until: UnixMillis,
        now: UnixMillis,
    ) {
        let named = |name: &NodeName| start.participants.contains(name);
        if !named(from)
            || !named(self.roster.me())
            || self.run_participants(&start.participants).is_none()
        {
            return;
        }
        let (index, attempt) = (start.index, start.attempt);
        if index >= self.state.size() {
            self.keep_start(from, start, until);
            return;
        }
        let size = start.size();
        match self.tree.root_at(size) {
            Ok(ours) if ours != start.root => {
                return self.dispute(from.clone(), size, start.root, ours);
            }
            Ok(_) => {}
            // older than what this boot began with
            Err(_) => return self.decline(from, index, attempt),
        }
        // what is made here needs no further attempt
        if let Some(Job { phase: Phase::Running { run, .. }, .. }) = self.signing.jobs.get(&index) {
            self.finish_run(*run, now);
        }
        // signed, too late, or from before this boot's admission
        let Some(job) = self.signing.jobs.get(&index) else {
            return self.decline(from, index, attempt);
        };
        if start.ahead.is_some_and(|entry| entry != job.permit.entry()) {
            return self.decline(from, index, attempt);
        }
        let with_triples = wants_triples(job.permit.scheme());
        if matches!(job.phase, Phase::Made { .. }) || start.triples.is_some() != with_triples {
            return;
        }
        match self.state.key_epoch(job.permit.key()) {
            Some(epoch) if start.epoch == epoch => {}
            // an entry made it live that is not applied here yet
            Some(epoch) if start.epoch > epoch => return self.keep_start(from, start, until),
            _ => return self.decline(from, index, attempt),
        }
        if let Some(id) = start.triples {
            let has = self
                .run_participants(&start.participants)
                .is_some_and(|set| self.triples.has(&set, &TriplePairId(id)));
            if !has {
                if self
                    .run_participants(&start.participants)
                    .is_some_and(|set| self.triples.is_making(&set))
                {
                    self.keep_start(from, start, until);
                } else {
                    self.decline(from, index, attempt);
                }
                return;
            }
        }
        let may_lead = job.led.get(from).copied().unwrap_or(0) < self.attempts_of_a_peer();
        if self.is_frozen() || !may_lead {
            return self.decline(from, index, attempt);
        }
        let is_fresh = |job: &Job| job.permit.next_attempt(attempt) == attempt;
        let was_fresh = is_fresh(job);
        let before = std::mem::take(&mut self.out);
        let begun = self.begin_sign(&start, false, now);
        let run = std::mem::replace(&mut self.out, before);
        if begun && start.ahead.is_some() {
            self.say_joined(from, index);
        }
        self.out.extend(run);
        if let Some(job) = self.signing.jobs.get_mut(&index)
            && was_fresh
            && !is_fresh(job)
        {
            let led = job.led.entry(from.clone()).or_default();
            *led = led.saturating_add(1);
        }
        if !begun {
            self.decline(from, index, attempt);
        }
    }

    /// How many of an entry's attempts at this node one peer may lead: t - 1 peers together must
    /// not be able to use up all, for then they could have a limit charged and nothing signed.
    fn attempts_of_a_peer(&self) -> u8 {
        let others = self.threshold.saturating_sub(1).max(1);
        let each = u16::from(MAX_ATTEMPTS).saturating_sub(1).checked_div(others);
        each.and_then(|each| u8::try_from(each).ok()).unwrap_or(1).max(1)
    }

    fn keep_start(&mut self, from: &NodeName, start: StartSign, until: UnixMillis) {
        self.signing.early.push(from, (start, until));
    }

    fn decline(&mut self, to: &NodeName, index: u64, attempt: u8) {
        let next = self.signing.jobs.get(&index).map_or(u8::MAX, |job| job.permit.next_attempt(0));
        self.send(to, &PeerMessage::Declined { index, attempt, next });
    }

    /// Starts that waited for an entry or for triples get another look.
    pub(crate) fn resume_early_starts(&mut self, now: UnixMillis) {
        for (from, (start, until)) in self.signing.early.take() {
            if now <= until {
                self.try_join_sign(&from, start, until, now);
            }
        }
    }

    /// A participant does not take part: this node's attempt is over, the next number is higher.
    pub(crate) fn declined(
        &mut self,
        from: &NodeName,
        index: u64,
        attempt: u8,
        next: u8,
        now: UnixMillis,
    ) {
        let Some(party) = self.roster.party(from) else { return };
        if attempt == 0 {
            self.ahead_declined(party, index, now);
        }
        let Some(job) = self.signing.jobs.get_mut(&index) else { return };
        let Phase::Running { run, attempt: running } = &job.phase else { return };
        let run = *run;
        if *running != attempt {
            return;
        }
        let mine = self.runs.get_mut(&run).is_some_and(|slot| {
            matches!(slot.role, Role::Sign { led: true, .. })
                && slot.participants.contains_party(party)
        });
        if mine {
            if next < MAX_ATTEMPTS {
                job.next = job.next.max(next);
            }
            job.avoid.insert(from.clone());
            self.end_run(run, &RunError::Burned, now);
        }
    }
}
