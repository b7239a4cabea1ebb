//! From a permit to a signature.
//!
//! Every node that applies an allowed request holds a [`Permit`] for it. One of them leads: live
//! nodes take turns by the entry's index, and the next one takes over when an attempt's time runs
//! out. The leader names the attempt, t participants and, for ECDSA, a pair of triples that exactly
//! they made; every participant turns *its own* permit into an [`Attempt`] and takes digest, path,
//! key and epoch from there (I4). The leader's tree root with the entry as last leaf is compared
//! first: where they differ no share is made, and a node that t peers contradict halts.
//!
//! An entry that finds nothing else unsigned is led first by whoever appended it, and may have
//! been started ahead of its commit: see [`crate::ahead`].
//!
//! Within τ an entry is driven at most three times, each time with fresh one-time values. All
//! participants can end with the verified signature; the leader proposes it at once, the others make and
//! propose it if they do not see it recorded in time. It is shown to nobody before it is in the log (I10).

use std::collections::{BTreeMap, BTreeSet};

use casemate_ledger::permit::MAX_ATTEMPTS;
use casemate_ledger::{Attempt, EntryBody, Permit, RunBinding};
use casemate_proto::ids::Hash32;
use casemate_proto::signature::VerifiedSignature;
use casemate_proto::{CredentialId, KeyName, Millis, NodeName, RequestId, Scheme, UnixMillis};
use casemate_threshold::ecdsa::TriplePair;
use casemate_threshold::{
    Authorised, KeyEpoch, KeyRef, Misuse, RunContext, RunError, RunId, RunSpec, TriplePairId,
};

use crate::ahead::Ahead;
use crate::bounded::PerPeer;
use crate::event::Output;
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::runs::Role;
use crate::shares::{AnyRun, AnyStep, sign_purpose, subject, wants_triples};
use crate::starts::StartSign;
use crate::stats::Count;
use crate::tally::TallyError;

/// Most starts of one peer that wait for their entry or their triples.
const MAX_EARLY_STARTS: usize = 128;
/// How long a participant waits before it proposes a signature that the leader should have.
const PROPOSE_FALLBACK: Millis = Millis(2_000);
/// How long before the end of a run a participant makes the last step that it has left to the leader.
const LAST_MOMENT: Millis = Millis(500);
/// How long a node waits for its proposal of a signature before it proposes it again.
const PROPOSE_AGAIN: Millis = Millis(3_000);
/// What the nodes' places in the roster put between them when two led at once.
const STAGGER: Millis = Millis(250);

pub(crate) enum Phase {
    /// No attempt runs; none is led by this node before this time.
    Open { not_before: UnixMillis },
    /// An attempt runs.
    Running { run: RunId, attempt: u8 },
    /// The signature is there and is proposed from this time on.
    Made { signature: Vec<u8>, verified: Option<VerifiedSignature>, propose_at: UnixMillis },
}

pub(crate) struct Job {
    pub(crate) permit: Permit,
    /// Who leads first: who appended the entry, if nothing else was unsigned then.
    first: Option<NodeName>,
    since: UnixMillis,
    /// The lowest attempt that all whom this node heard of can still take part in.
    pub(crate) next: u8,
    /// Who failed this entry before: others are asked first.
    pub(crate) avoid: BTreeSet<NodeName>,
    /// How many of this node's attempts each peer has led.
    pub(crate) led: BTreeMap<NodeName, u8>,
    /// Whether this boot has counted it among what it released a share for.
    tallied: bool,
    pub(crate) phase: Phase,
}

/// What a run signs, and what it is bound to.
pub(crate) struct Bound {
    pub(crate) binding: RunBinding,
    pub(crate) scheme: Scheme,
    pub(crate) digest: [u8; 32],
    pub(crate) release_by: UnixMillis,
}

/// Everything allowed and not yet signed.
pub(crate) struct Signing {
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) early: PerPeer<(StartSign, UnixMillis)>,
    pub(crate) ahead: Option<Ahead>,
    /// A signature was recorded by the entry that is being applied.
    pub(crate) recorded: bool,
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            jobs: BTreeMap::new(),
            early: PerPeer::new(MAX_EARLY_STARTS),
            ahead: None,
            recorded: false,
        }
    }
}

impl Signing {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }
    /// The key of an allowed entry that is not signed yet.
    pub(crate) fn key(&self, index: u64) -> Option<&KeyName> {
        self.jobs.get(&index).map(|job| job.permit.key())
    }
}

/// The one place where a ledger's permit becomes leave to release a share: an [`Attempt`] exists
/// only for a committed, applied, allowed and charged entry, and is used up here.
#[expect(clippy::needless_pass_by_value, reason = "an attempt is used once")]
pub(crate) fn authorise(attempt: Attempt, run: RunId) -> Authorised {
    let subject = subject(attempt.scheme(), &attempt.digest());
    Authorised::dangerous_assert_committed_and_allowed(run, subject, attempt.release_by())
}

impl Node {
    /// An entry allowed a signature.
    pub(crate) fn allowed(&mut self, permit: Permit, now: UnixMillis) {
        let phase = Phase::Open { not_before: now };
        let (avoid, led) = (BTreeSet::new(), BTreeMap::new());
        // every node finds the same here: the log says what is unsigned, and who appended
        let first = self.signing.jobs.is_empty().then(|| self.appender()).flatten();
        let job = Job { permit, first, since: now, next: 0, avoid, led, tallied: false, phase };
        self.signing.jobs.insert(job.permit.index(), job);
    }

    /// The proof that this node verified a request's signature when it was made, if it was one of those
    /// who made it.
    pub(crate) fn verified_signature(
        &self,
        request: &(CredentialId, RequestId),
    ) -> Option<VerifiedSignature> {
        let mut jobs = self.signing.jobs.values();
        match &jobs.find(|job| job.permit.request() == *request)?.phase {
            Phase::Made { verified, .. } => verified.clone(),
            Phase::Open { .. } | Phase::Running { .. } => None,
        }
    }

    /// An entry's signature is in the log.
    pub(crate) fn signature_recorded(
        &mut self,
        credential: CredentialId,
        request_id: RequestId,
        now: UnixMillis,
    ) {
        let done: Vec<u64> = self
            .signing
            .jobs
            .iter()
            .filter(|(_, job)| job.permit.request() == (credential, request_id))
            .map(|(index, _)| *index)
            .collect();
        for index in done {
            self.drop_job(index, true, now);
        }
        self.signing.recorded = true;
        self.wait_for_receipt(credential, request_id);
    }

    fn drop_job(&mut self, index: u64, is_recorded: bool, now: UnixMillis) {
        if let Some(job) = self.signing.jobs.remove(&index)
            && let Phase::Running { run, .. } = job.phase
            && let Some(mut slot) = self.runs.end(&run)
        {
            if is_recorded && slot.run.is_complete() {
                self.went_well(&slot, now);
            }
            slot.run.burn();
        }
    }

    /// Burns every signing run: a freeze.
    pub(crate) fn burn_signing(&mut self, now: UnixMillis) {
        for id in self.runs.which(|slot| matches!(slot.role, Role::Sign { .. })) {
            self.end_run(id, &RunError::Burned, now);
        }
    }

    /// Looks at every job: leads what is this node's turn, proposes what is made, drops what is too
    /// late.
    pub(crate) fn drive_signing(&mut self, now: UnixMillis) {
        self.finish_what_is_late(now);
        let late: Vec<u64> = self
            .signing
            .jobs
            .iter()
            .filter(|(_, job)| {
                now > job.permit.release_by() && !matches!(job.phase, Phase::Made { .. })
                    // a made signature is kept a little longer, to be recorded
                    || now > job.permit.release_by().saturating_add(PROPOSE_AGAIN.saturating_mul(4))
            })
            .map(|(index, _)| *index)
            .collect();
        for index in late {
            self.drop_job(index, false, now);
        }
        let mut starved = false;
        let jobs: Vec<(u64, Scheme)> =
            self.signing.jobs.iter().map(|(index, job)| (*index, job.permit.scheme())).collect();
        for (index, scheme) in jobs {
            // the oldest that waits for triples gets the next ones; the others need not be looked at
            if !(starved && wants_triples(scheme)) {
                starved |= self.drive_job(index, now);
            }
        }
    }

    /// Makes the signatures whose last step was left to another who has not shown them in time.
    fn finish_what_is_late(&mut self, now: UnixMillis) {
        let runs: Vec<RunId> = self
            .signing
            .jobs
            .values()
            .filter(|job| now > job.permit.release_by())
            .filter_map(|job| match &job.phase {
                Phase::Running { run, .. } => Some(*run),
                Phase::Open { .. } | Phase::Made { .. } => None,
            })
            .collect();
        for run in runs {
            self.finish_run(run, now);
        }
    }

    /// Makes every signature whose last step was left to another: who was to propose it may have gone.
    pub(crate) fn finish_what_was_left(&mut self, now: UnixMillis) {
        for run in self.runs.which(|slot| matches!(slot.role, Role::Sign { .. })) {
            self.finish_run(run, now);
        }
    }

    /// Looks at one job. Whether it is this node's turn and only triples are missing.
    pub(crate) fn drive_job(&mut self, index: u64, now: UnixMillis) -> bool {
        let timeout = self.config.attempt_timeout.0.max(1);
        if self.is_frozen() {
            return false;
        }
        let Some(job) = self.signing.jobs.get(&index) else { return false };
        let turn = now.since(job.since).0.checked_div(timeout).unwrap_or(0);
        let able = |name: &NodeName| self.is_able(&job.permit, name);
        let first = job
            .first
            .as_ref()
            .filter(|first| turn == 0 && self.roster.is_live(first, now) && able(first));
        let leads = match first {
            Some(first) => first == self.roster.me(),
            None => {
                let leader = self.roster.leader(index.saturating_add(turn), now, able);
                leader.as_ref() == Some(self.roster.me())
            }
        };
        let Some(job) = self.signing.jobs.get_mut(&index) else { return false };
        match &mut job.phase {
            Phase::Made { signature, propose_at, .. } if *propose_at <= now => {
                *propose_at = now.saturating_add(PROPOSE_AGAIN);
                let (credential, request_id) = job.permit.request();
                let signature = signature.clone();
                // past this the ledger would refuse it, and still publish it
                let until = self.state.record_until(&job.permit);
                let body = EntryBody::Signed { credential, request_id, signature };
                self.out.push(Output::Propose { body, attachment: None, until: Some(until) });
            }
            Phase::Open { not_before } if leads && *not_before <= now => {
                return self.lead(index, now);
            }
            Phase::Running { run, .. } => {
                let run = *run;
                if self.was_left_too_long(&run, now) {
                    // whoever led has had its time to show the signature
                    self.finish_run(run, now);
                    self.propose_made(index, now);
                }
            }
            _ => {}
        }
        false
    }

    /// Whether the last step of a run was left to another, and it is time not to rely on that.
    fn was_left_too_long(&mut self, run: &RunId, now: UnixMillis) -> bool {
        self.runs.get_mut(run).is_some_and(|slot| {
            let is_late = |since| now.since(since) >= PROPOSE_FALLBACK;
            let is_over_soon = now.saturating_add(LAST_MOMENT) >= slot.run.deadline();
            slot.complete_since.is_some_and(|since| is_late(since) || is_over_soon)
        })
    }

    /// Proposes a signature that is made without waiting for who led.
    fn propose_made(&mut self, index: u64, now: UnixMillis) {
        if let Some(Job { phase: Phase::Made { propose_at, .. }, .. }) =
            self.signing.jobs.get_mut(&index)
        {
            *propose_at = now;
            self.drive_job(index, now);
        }
    }

    /// Whether a node can take part: it holds a share, and its boot has applied the entry itself. One
    /// that was admitted later has no permit for it.
    fn is_able(&self, permit: &Permit, name: &NodeName) -> bool {
        self.was_able(permit.key(), permit.at(), name)
    }

    pub(crate) fn was_able(&self, key: &KeyName, then: UnixMillis, name: &NodeName) -> bool {
        let admitted = self.state.boot(name).map(|boot| boot.admitted);
        self.holds(key, name) && admitted.is_some_and(|at| at <= then)
    }

    /// Leads an attempt, if this node has what it takes. If only triples are missing, asks for some
    /// and says so.
    fn lead(&mut self, index: u64, now: UnixMillis) -> bool {
        let Some(job) = self.signing.jobs.get(&index) else { return false };
        let (scheme, attempt) = (job.permit.scheme(), job.permit.next_attempt(job.next));
        let Some(epoch) = self.state.key_epoch(job.permit.key()) else { return false };
        if attempt >= MAX_ATTEMPTS || self.runs.is_full() {
            return false;
        }
        let t = usize::from(self.threshold);
        let able = |name: &NodeName| self.is_able(&job.permit, name);
        let Some(participants) = self.roster.own_set(t, &job.avoid, now, able) else {
            return false;
        };
        let Some(boots) = self.run_participants(&participants) else { return false };
        let Ok(root) = self.tree.root_at(index.saturating_add(1)) else { return false };
        let mut triples = None;
        if wants_triples(scheme) {
            let Some(pair) = self.triples.take_own(&boots) else {
                let starved = job.avoid.is_empty();
                self.triples_wanted(participants, now);
                return starved;
            };
            triples = Some(pair.0);
        }
        let named = participants.clone();
        let start =
            StartSign { index, attempt, participants: named, triples, root, epoch, ahead: None };
        if self.begin_sign(&start, true, now) {
            let StartSign { participants: named, .. } = start;
            let message = PeerMessage::StartSign {
                index,
                attempt,
                participants: named,
                triples,
                root,
                epoch,
            };
            self.send_first(&participants, &message);
        } else if let Some(pair) = triples {
            self.triples.give_back(boots, TriplePairId(pair));
        }
        false
    }

    /// Sends a start before the messages that the run itself put out already: the receiver then
    /// has the run when they come.
    pub(crate) fn send_first(&mut self, participants: &[NodeName], message: &PeerMessage) {
        let before = std::mem::take(&mut self.out);
        self.send_others(participants, message);
        self.out.extend(before);
    }

    /// Turns this node's own permit into an attempt and begins the run. Whether it began.
    pub(crate) fn begin_sign(&mut self, start: &StartSign, led: bool, now: UnixMillis) -> bool {
        if let Err(error) = self.may_release(start.index, now) {
            self.stats.count(Count::TallyRefused);
            tracing::error!(index = start.index, %error, "no share: this boot has released too much");
            return false;
        }
        let Some(job) = self.signing.jobs.get_mut(&start.index) else { return false };
        let attempt = match job.permit.attempt(
            &self.state,
            &self.boot_id,
            &start.participants,
            start.attempt,
            now,
        ) {
            Ok(attempt) => attempt,
            Err(error) => {
                tracing::debug!(index = start.index, %error, "no attempt");
                return false;
            }
        };
        // a newer attempt of the same entry takes the place of an older one
        if let Phase::Running { run, .. } = &job.phase {
            let run = *run;
            job.phase = Phase::Open { not_before: now };
            self.end_run(run, &RunError::Burned, now);
        }
        if let Err(error) = self.tally(start.index, now) {
            tracing::error!(index = start.index, %error, "no share: it cannot be counted");
            return false;
        }
        self.stats.count(Count::Released);
        match self.run_attempt(attempt, start, led, now) {
            Ok(run) => {
                // messages that came early may have ended it already, well or not
                if self.runs.get_mut(&run).is_some()
                    && let Some(job) = self.signing.jobs.get_mut(&start.index)
                {
                    job.phase = Phase::Running { run, attempt: start.attempt };
                }
                true
            }
            Err(error) => {
                tracing::debug!(index = start.index, %error, "attempt not begun");
                false
            }
        }
    }

    /// Whether this boot's own tally has room for an entry, or has counted it already.
    pub(crate) fn may_release(&self, index: u64, now: UnixMillis) -> Result<(), TallyError> {
        match self.signing.jobs.get(&index) {
            Some(job) if !job.tallied => self.tally.check(&self.state, &job.permit, now).map(drop),
            _ => Ok(()),
        }
    }

    /// Counts an entry, once for all its attempts: they are of one digest.
    pub(crate) fn tally(&mut self, index: u64, now: UnixMillis) -> Result<(), TallyError> {
        if let Some(job) = self.signing.jobs.get_mut(&index)
            && !job.tallied
        {
            let within = self.tally.check(&self.state, &job.permit, now)?;
            self.tally.record(&within)?;
            job.tallied = true;
        }
        Ok(())
    }

    fn run_attempt(
        &mut self,
        attempt: Attempt,
        start: &StartSign,
        led: bool,
        now: UnixMillis,
    ) -> Result<RunId, RunError> {
        let (binding, scheme, digest) =
            (attempt.binding().clone(), attempt.scheme(), attempt.digest());
        let what = Bound { binding, scheme, digest, release_by: attempt.release_by() };
        let then = move |run: &mut AnyRun, id| run.authorise(authorise(attempt, id), now).map(Some);
        self.run_bound(what, start.triples, led, now, then)
    }

    /// Begins the run that an attempt is bound to, or will be.
    pub(crate) fn run_bound(
        &mut self,
        what: Bound,
        triples: Option<Hash32>,
        led: bool,
        now: UnixMillis,
        then: impl FnOnce(&mut AnyRun, RunId) -> Result<Option<AnyStep>, RunError>,
    ) -> Result<RunId, RunError> {
        let Bound { binding, scheme, digest, release_by } = what;
        let set =
            self.roster.participants(&binding.participants).ok_or(Misuse::NotParticipating)?;
        let key = KeyRef { name: binding.key.clone(), epoch: KeyEpoch(binding.epoch) };
        let pair: Option<TriplePair> =
            triples.and_then(|id| self.triples.take(&set, &TriplePairId(id)));
        let purpose = sign_purpose(scheme, key, binding.path.clone(), digest, pair.as_ref())?;
        let context = RunContext::new(RunSpec {
            genesis: binding.genesis,
            incarnation: binding.incarnation,
            purpose,
            participants: set,
            threshold: self.threshold,
            log_index: binding.index,
            // the attempt's whole binding: the entry's hash is in it
            entry: binding.hash(),
            attempt: u64::from(binding.attempt),
        })?;
        // no step of the run is taken after this, so no share is released later
        let deadline = release_by.min(now.saturating_add(self.config.attempt_timeout));
        let role = Role::Sign { index: binding.index, led };
        let build = move |node: &mut Self, claim| {
            let live = node.keygen.live.get(&binding.key).ok_or(Misuse::WrongKey)?;
            let mut run = live.sign(claim, pair, digest.to_vec(), node.entropy.as_mut())?;
            if !led && node.runs.has_room() {
                // whoever leads shows the signature, and this node if it does not see it in time
                run.leave_last_step();
            }
            Ok(run)
        };
        self.begin_run(context, deadline, role, now, build, then)
    }

    /// An attempt made a signature, which the run has verified.
    pub(crate) fn signature_made(
        &mut self,
        index: u64,
        led: bool,
        (signature, verified): (Vec<u8>, Option<VerifiedSignature>),
        now: UnixMillis,
    ) {
        if let Some(job) = self.signing.jobs.get_mut(&index) {
            let propose_at = if led { now } else { now.saturating_add(PROPOSE_FALLBACK) };
            job.phase = Phase::Made { signature, verified, propose_at };
        }
        self.drive_job(index, now);
    }

    /// An attempt failed: the entry is open again, and this node leads the next one a little later
    /// than the nodes before it in the roster.
    pub(crate) fn attempt_failed(&mut self, index: u64, blamed: &[NodeName], now: UnixMillis) {
        let party = self.registry.me().party.number();
        let wait = STAGGER.saturating_mul(u64::from(party));
        self.ahead_failed(index);
        if let Some(job) = self.signing.jobs.get_mut(&index)
            && matches!(job.phase, Phase::Running { .. })
        {
            job.avoid.extend(blamed.iter().cloned());
            job.phase = Phase::Open { not_before: now.saturating_add(wait) };
        }
    }
}
