//! Shares: of new keys, and of live keys for nodes that came back without one.
//!
//! What is to be made is read off the applied state: a key that governance asked for and that is
//! not live is *generated*; a live key of which some node's current boot holds no share is
//! *recovered*, for a new epoch among all nodes, by those that hold one. Until the new epoch is live
//! the old shares sign, among those that have them.
//!
//! One node leads: live nodes that can take turns by the key's name and the time, so that another
//! follows where one fails. It begins once it is linked with all. It only names the key, the epoch and
//! the boots; each node takes everything else from its own state, and declines what differs from it,
//! or what it cannot take part in because a link of its own is down. All nodes run the
//! protocol, which ends with all having echoed the same transcript. Whoever ends such a run early tells
//! the others, who then end it as well, so that the leader can begin anew at once. Then sets of t that together
//! cover every node sign a test message (the first of each set leads its test). With all tests at
//! hand the leader asks every boot to confirm exactly that, and proposes the entry. A share is
//! pending until that entry is applied; what is not in the end confirmed is dropped. Old shares are
//! deleted on applying it. The number of an epoch that came to nothing is not used again.

use std::collections::{BTreeMap, VecDeque};

use casemate_ledger::apply::LOG_KEY;
use casemate_ledger::entry::KeyLive;
use casemate_proto::hash::{sha256, tagged_hash};
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, KeyName, Millis, NodeName, Scheme, UnixMillis};
use casemate_threshold::Purpose;
use casemate_threshold::{
    KeyEpoch, KeyRef, Misuse, Participants, RunContext, RunError, RunId, RunSpec,
};

use crate::bounded::PerPeer;
use crate::node::Node;
use crate::peer::{PeerMessage, StartKey, StartTest};
use crate::runs::Role;
use crate::shares::{Live, Pending, Recovery, Task};
use crate::stats::Count;

/// Most sets of shares of one key that are pending at one time.
const MAX_PENDING: usize = 3;
/// Most sets of shares of one key that this boot has confirmed and no entry has decided yet.
const MAX_PROMISED: usize = 64;
/// Most keys that one node leads at one time.
const MAX_LED: usize = 4;
/// Most keys that this node takes part in at one time for one leader.
const MAX_JOINED: usize = 16;
/// Most starts of one peer that wait for their entry, their share or their triples.
const MAX_EARLY: usize = 128;
/// How long a leader waits after a failure at most; a peer that takes part already is not asked by
/// the same leader more often.
const RETRY: Millis = Millis(2_000);
/// How long it waits after the first failure: most often a link had just not been up.
const FIRST_RETRY: Millis = Millis(250);
/// How long shares that are there sign before others take their place.
const PAUSE: Millis = Millis(2_000);
/// How long a leader waits for its proposal before it proposes again.
pub(crate) const PROPOSE_AGAIN: Millis = Millis(3_000);
/// How long shares wait for a boot that was admitted and has not been heard.
const BOOT_PATIENCE: Millis = Millis(5_000);
/// How far a leader's epoch may be ahead of the one expected here.
const MAX_EPOCH_JUMP: u64 = 1 << 20;

/// Shares that were made, and how far their confirmation has come.
pub(crate) struct Candidate {
    pub(crate) share: Pending,
    /// The run that made it.
    pub(crate) run: RunId,
    /// Who began it, and gathers tests and confirmations.
    pub(crate) leader: NodeName,
    /// The epoch that it was made from.
    pub(crate) replaces: Option<u64>,
    pub(crate) tests: BTreeMap<Vec<NodeName>, [u8; 64]>,
    /// The sets whose test this node leads and has under way.
    pub(crate) testing: Vec<Vec<NodeName>>,
    /// When this node leads the next test, after one that failed.
    pub(crate) test_at: UnixMillis,
    pub(crate) test_failures: u32,
    /// At the leader: what is being confirmed, and by whom so far.
    pub(crate) confirming: Option<KeyLive>,
    pub(crate) confirmed: BTreeMap<NodeName, [u8; 64]>,
    pub(crate) propose_at: UnixMillis,
    pub(crate) give_up_at: UnixMillis,
    pub(crate) ask_again_at: UnixMillis,
    /// Whether this boot has confirmed it. The entry may be applied at any time from then on, so
    /// the share stays until one decides, or until a boot that confirmed it is gone.
    pub(crate) promised: bool,
}

/// A run that makes shares.
struct Running {
    leader: NodeName,
    since: UnixMillis,
}

/// A key whose shares are to be made.
pub(crate) struct Job {
    since: UnixMillis,
    /// The lowest epoch that this boot has not seen begun.
    next_epoch: u64,
    running: Option<Running>,
    retry_at: UnixMillis,
    failures: u32,
    pub(crate) candidates: VecDeque<Candidate>,
}

impl Job {
    pub(crate) fn candidate(&mut self, transcript: &Hash32) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|c| c.share.facts().transcript == *transcript)
    }
    /// Whether something is under way; a set of shares that was promised and got stuck stays, and
    /// does not hold up the next.
    fn is_busy(&self, now: UnixMillis) -> bool {
        self.running.is_some() || self.candidates.iter().any(|c| c.give_up_at > now)
    }
}

pub(crate) enum Early {
    Key(StartKey),
    Test(StartTest),
}

/// Shares in the making, and those that sign.
pub(crate) struct Keygen {
    pub(crate) jobs: BTreeMap<KeyName, Job>,
    pub(crate) live: BTreeMap<KeyName, Live>,
    pub(crate) early: PerPeer<(Early, UnixMillis)>,
}

impl Default for Keygen {
    fn default() -> Self {
        Self { jobs: BTreeMap::new(), live: BTreeMap::new(), early: PerPeer::new(MAX_EARLY) }
    }
}

impl Keygen {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
    /// The share that signs for a key.
    pub(crate) fn live(&self, name: &KeyName) -> Option<&Live> {
        self.live.get(name)
    }
    /// Whether there is a use for triples.
    pub(crate) fn has_ecdsa(&self) -> bool {
        self.live.values().any(Live::wants_triples)
    }
    pub(crate) fn candidate(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
    ) -> Option<&mut Candidate> {
        self.jobs.get_mut(name)?.candidate(transcript)
    }
}

impl Node {
    /// Looks in the state for keys whose shares are to be made.
    pub(crate) fn find_jobs(&mut self, now: UnixMillis) {
        let names: Vec<KeyName> = self.state.keys().keys().cloned().collect();
        for name in names {
            self.find_job(&name, now);
        }
    }

    /// The same for one key. Those that it waited for get another look.
    pub(crate) fn find_job(&mut self, name: &KeyName, now: UnixMillis) {
        if self.task(name).is_none() {
            self.keygen.jobs.remove(name);
            return;
        }
        let next_epoch = self.state.key_epoch(name).map_or(0, |epoch| epoch.saturating_add(1));
        // runs of the epoch before have just been burned: what was signed has time to be signed
        let pause = if self.is_missing(name) { Millis(0) } else { PAUSE };
        self.keygen.jobs.entry(name.clone()).or_insert_with(|| Job {
            since: now,
            next_epoch,
            running: None,
            retry_at: now.saturating_add(pause),
            failures: 0,
            candidates: VecDeque::new(),
        });
    }

    /// Whether some node's current boot holds no share of a key, or nobody does.
    fn is_missing(&self, name: &KeyName) -> bool {
        !self.roster.names().iter().all(|node| self.state.is_holder(name, node))
    }

    /// What is to be made of a key now, by the applied state.
    fn task(&self, name: &KeyName) -> Option<(Scheme, Task)> {
        let key = self.state.keys().get(name)?;
        let Some(live) = &key.live else { return Some((key.scheme, Task::Generate)) };
        let (holders, lost): (Vec<NodeName>, Vec<NodeName>) =
            self.roster.names().iter().cloned().partition(|n| self.state.is_holder(name, n));
        // with fewer than t the shares are gone, and nothing here brings them back
        let is_done = lost.is_empty() && live.is_fresh;
        if is_done || holders.len() < usize::from(self.threshold) {
            return None;
        }
        let recovery = Recovery {
            epoch: live.epoch,
            public_key: live.public_key.clone(),
            chain_code: live.chain_code,
            holders: self.run_set(&holders)?,
            lost: lost.iter().filter_map(|node| self.roster.party(node)).collect(),
        };
        Some((key.scheme, Task::Recover(recovery)))
    }

    /// Whether a node's current boot holds a share of a key, by the ledger; of this node, whether
    /// it is at hand.
    pub(crate) fn holds(&self, key: &KeyName, name: &NodeName) -> bool {
        let at_hand = || {
            let epoch = self.keygen.live(key).map(|live| live.facts().key.epoch.0);
            epoch.is_some() && epoch == self.state.key_epoch(key)
        };
        self.state.is_holder(key, name) && (name != self.roster.me() || at_hand())
    }
    /// Whether it holds a share of any key that signs with triples.
    pub(crate) fn holds_ecdsa(&self, name: &NodeName) -> bool {
        let mut keys = self.keygen.live.iter();
        keys.any(|(key, live)| live.wants_triples() && self.holds(key, name))
    }

    /// Whether it is this node's turn to have a key's shares made. Who has waited for longer than a
    /// run lasts makes room for the next.
    fn leads_key(&self, name: &KeyName, since: UnixMillis, now: UnixMillis) -> bool {
        let turn = self.config.keygen_timeout.0.saturating_add(RETRY.0).max(1);
        let turns = now.since(since).0.checked_div(turn).unwrap_or(0);
        let [first, ..] = sha256(name.as_str().as_bytes());
        let is_new = self.state.key_epoch(name).is_none();
        let able = |node: &NodeName| is_new || self.holds(name, node);
        self.roster.leader(turns.saturating_add(u64::from(first)), now, able).as_ref()
            == Some(self.roster.me())
    }

    /// Whether every node can take part: all are reachable, and a boot that was admitted a moment
    /// ago has been heard.
    fn all_are_there(&self, now: UnixMillis) -> bool {
        let takes_part = |name: &NodeName| {
            let Some(boot) = self.state.boot(name) else { return false };
            name == self.roster.me()
                || self.heard.contains(&boot.id)
                || now.since(boot.admitted) >= BOOT_PATIENCE
        };
        self.roster.live(now).len() == self.roster.names().len()
            && self.roster.names().iter().all(takes_part)
    }

    pub(crate) fn drive_keygen(&mut self, now: UnixMillis) {
        if self.keygen.jobs.is_empty() {
            return;
        }
        self.resume_early_keygen(now);
        for job in self.keygen.jobs.values_mut() {
            job.candidates.retain(|c| c.promised || c.give_up_at > now);
        }
        self.lead_keys(now);
        self.drive_tests(now);
        self.drive_confirmations(now);
    }

    /// Begins what is this node's to begin: what somebody lacks first, and of that the log's key.
    fn lead_keys(&mut self, now: UnixMillis) {
        let (busy, mut due): (Vec<_>, Vec<_>) =
            self.keygen.jobs.iter().partition(|(_, job)| job.is_busy(now));
        let mut room = MAX_LED.saturating_sub(busy.len());
        if room == 0 || !self.all_are_there(now) {
            return;
        }
        due.retain(|(name, job)| job.retry_at <= now && self.leads_key(name, job.since, now));
        due.sort_by_key(|(name, _)| (!self.is_missing(name), name.as_str() != LOG_KEY));
        let due: Vec<(KeyName, u64)> =
            due.into_iter().map(|(name, job)| (name.clone(), job.next_epoch)).collect();
        for (name, epoch) in due {
            if room == 0 {
                return;
            }
            let Some(boots) = self.boots() else { return };
            let (size, number) = (self.state.size(), self.fresh_number());
            let start = StartKey { name, epoch, size, number, boots };
            let me = self.roster.me().clone();
            if self.begin_key(&me, &start, now) {
                let others = self.roster.others();
                self.send_first(&others, &PeerMessage::StartKey(start));
                room = room.saturating_sub(1);
            } else {
                self.key_failed(&start.name, now);
            }
        }
    }

    /// Every node's current boot, in the roster's order.
    fn boots(&self) -> Option<Vec<BootId>> {
        self.roster.names().iter().map(|name| self.state.current_boot(name)).collect()
    }

    /// A peer has a key's shares made, with this node. Kept until then if it is of a later state.
    pub(crate) fn join_key(
        &mut self,
        from: &NodeName,
        start: StartKey,
        until: UnixMillis,
        now: UnixMillis,
    ) {
        if start.size > self.state.size() {
            self.keygen.early.push(from, (Early::Key(start), until));
            return;
        }
        let is_new = self.state.key_epoch(&start.name).is_none();
        let able = is_new || self.state.is_holder(&start.name, from);
        // what is sent to a peer that is not linked yet is lost, and the run with it
        let begun = able
            && self.roster.names().iter().all(|name| self.roster.is_linked(name))
            && self.boots().as_ref() == Some(&start.boots)
            && self.has_room_for(from, &start.name, now)
            && self.begin_key(from, &start, now);
        if !begun {
            let StartKey { name, number, .. } = start;
            let next = self.keygen.jobs.get(&name).map_or(0, |job| job.next_epoch);
            self.send(from, &PeerMessage::KeyDeclined { name, number, next });
        }
    }

    /// Whether a peer may have a key begun here: within its allowance, not while another's is under
    /// way, and its own again only a little later, since then the last one failed.
    fn has_room_for(&mut self, from: &NodeName, name: &KeyName, now: UnixMillis) -> bool {
        let of = |job: &Job| job.running.as_ref().is_some_and(|running| running.leader == *from);
        let joined = self.keygen.jobs.values().filter(|job| of(job)).count();
        let Some(running) = self.keygen.jobs.get(name).and_then(|job| job.running.as_ref()) else {
            return joined < MAX_JOINED;
        };
        if running.leader != *from || now.since(running.since) < RETRY {
            return false;
        }
        let former = |role: &Role| matches!(role, Role::Key { name: of, .. } if of == name);
        for id in self.runs.which(|slot| former(&slot.role)) {
            self.end_run(id, &RunError::Burned, now);
        }
        true
    }

    fn begin_key(&mut self, leader: &NodeName, start: &StartKey, now: UnixMillis) -> bool {
        match self.try_begin_key(leader, start, now) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(key = %start.name, epoch = start.epoch, %error, "shares not begun");
                false
            }
        }
    }

    fn try_begin_key(
        &mut self,
        leader: &NodeName,
        start: &StartKey,
        now: UnixMillis,
    ) -> Result<(), RunError> {
        let name = start.name.clone();
        let (scheme, task) = self.task(&name).ok_or(Misuse::WrongKey)?;
        let participants = self.everybody().ok_or(Misuse::NotParticipating)?;
        let job = self.keygen.jobs.get_mut(&name).ok_or(Misuse::WrongKey)?;
        // a new key's shares are all of epoch 0, and differ by their transcripts
        let fits = match task {
            Task::Generate => start.epoch == 0,
            Task::Recover(_) => {
                start.epoch.checked_sub(job.next_epoch).is_some_and(|ahead| ahead <= MAX_EPOCH_JUMP)
            }
        };
        let promised = job.candidates.iter().filter(|c| c.promised).count();
        if !fits || job.running.is_some() || promised >= MAX_PROMISED {
            return Err(RunError::Burned);
        }
        if matches!(task, Task::Recover(_)) {
            job.next_epoch = start.epoch.saturating_add(1);
        }
        let key = KeyRef { name: name.clone(), epoch: KeyEpoch(start.epoch) };
        let purpose = task.purpose(scheme, key, self.threshold)?;
        let boot = self.state.current_boot(leader).ok_or(Misuse::NotParticipating)?;
        // no entry causes it: the boot that leads keeps its numbers apart from the others'
        let by = tagged_hash("casemate/key-run-by/v1", &[boot.as_bytes()]);
        let spec = self.key_spec(purpose, participants, start.size, by, start.number);
        let deadline = now.saturating_add(self.config.keygen_timeout);
        let role = Role::Key { name: name.clone(), leader: leader.clone(), number: start.number };
        // messages that came early may end it before this returns
        job_running(&mut self.keygen, &name, Some(Running { leader: leader.clone(), since: now }));
        let old = name.clone();
        let begun = RunContext::new(spec).map_err(RunError::from).and_then(|context| {
            self.begin_run(
                context,
                deadline,
                role,
                now,
                |node, claim| {
                    if casemate_proto::sabotaged!("old_shares_deleted_early") {
                        let share = node.keygen.live.remove(&old);
                        return task.run(scheme, claim, share.as_ref(), node.entropy.as_mut());
                    }
                    task.run(scheme, claim, node.keygen.live.get(&old), node.entropy.as_mut())
                },
                |_, _| Ok(None),
            )
        });
        if begun.is_err() {
            job_running(&mut self.keygen, &name, None);
        }
        begun.map(drop)
    }

    /// A peer does not take part in what this node leads: it is over, and the next one has a number
    /// that all have fresh.
    pub(crate) fn key_declined(
        &mut self,
        from: &NodeName,
        name: &KeyName,
        number: u64,
        next: u64,
        now: UnixMillis,
    ) {
        let me = self.roster.me();
        let mine = self.runs.which(|slot| {
            matches!(&slot.role, Role::Key { name: of, leader, number: run }
                if of == name && leader == me && *run == number)
        });
        let is_recovery = self.state.key_epoch(name).is_some();
        if let (false, true, Some(job)) =
            (mine.is_empty(), is_recovery, self.keygen.jobs.get_mut(name))
            && next.saturating_sub(job.next_epoch) <= MAX_EPOCH_JUMP
        {
            job.next_epoch = job.next_epoch.max(next);
        }
        for id in mine {
            tracing::info!(key = %name, %from, "a node does not take part in making its shares");
            self.end_run(id, &RunError::Burned, now);
        }
    }

    pub(crate) fn key_spec(
        &self,
        purpose: Purpose,
        participants: Participants,
        size: u64,
        entry: Hash32,
        number: u64,
    ) -> RunSpec {
        RunSpec {
            genesis: self.state.genesis(),
            incarnation: self.state.incarnation(),
            purpose,
            participants,
            threshold: self.threshold,
            log_index: size,
            entry,
            attempt: number,
        }
    }

    pub(crate) fn share_made(
        &mut self,
        name: &KeyName,
        leader: NodeName,
        run: RunId,
        share: Pending,
        now: UnixMillis,
    ) {
        let give_up_at = now.saturating_add(self.config.keygen_timeout.saturating_mul(3));
        let replaces = self.state.key_epoch(name);
        let Some(job) = self.keygen.jobs.get_mut(name) else { return };
        job.running = None;
        if job.candidates.iter().filter(|c| !c.promised).count() >= MAX_PENDING
            && let Some(oldest) = job.candidates.iter().position(|c| !c.promised)
        {
            job.candidates.remove(oldest);
        }
        job.candidates.push_back(Candidate {
            share,
            run,
            leader,
            replaces,
            tests: BTreeMap::new(),
            testing: Vec::new(),
            test_at: now,
            test_failures: 0,
            confirming: None,
            confirmed: BTreeMap::new(),
            propose_at: now,
            give_up_at,
            ask_again_at: now,
            promised: false,
        });
        self.resume_early_keygen(now);
        self.drive_tests(now);
    }

    pub(crate) fn key_failed(&mut self, name: &KeyName, now: UnixMillis) {
        if let Some(job) = self.keygen.jobs.get_mut(name) {
            job.running = None;
            job.retry_at = now.saturating_add(retry_after(job.failures));
            job.failures = job.failures.saturating_add(1);
        }
    }

    /// A participant of the run that made a share has none of it: that share never goes live, since
    /// every boot would have to confirm it. One that this boot has confirmed stays until an entry
    /// decides.
    pub(crate) fn candidate_ended(&mut self, from: &NodeName, run: RunId, now: UnixMillis) {
        let of = |c: &Candidate| c.run == run && !c.promised;
        let found = self.keygen.jobs.iter().find(|(_, job)| job.candidates.iter().any(of));
        let Some(name) = found.map(|(name, _)| name.clone()) else { return };
        tracing::info!(key = %name, %run, %from, "a node has no share of those that were made");
        if let Some(job) = self.keygen.jobs.get_mut(&name) {
            job.candidates.retain(|candidate| !of(candidate));
        }
        let others = self.roster.others();
        self.send_others(&others, &PeerMessage::RunEnded { run });
        self.key_failed(&name, now);
    }

    /// The entry that makes an epoch live is applied: the pending share of that transcript becomes
    /// the one that signs, the one before and all others are dropped.
    pub(crate) fn key_live(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        live: &KeyLive,
        now: UnixMillis,
    ) {
        let job = self.keygen.jobs.remove(name);
        let former = self.keygen.live.remove(name);
        let signs = |index: &u64| self.signing.key(*index) == Some(name);
        for id in self.runs.which(|slot| match &slot.role {
            Role::Key { name: of, .. } | Role::Test { name: of, .. } => of == name,
            Role::Sign { index, .. } => signs(index),
            Role::Log { .. } => name.as_str() == LOG_KEY,
            Role::Triples { .. } => false,
        }) {
            self.end_run(id, &RunError::Burned, now);
        }
        self.find_job(name, now);
        let found = job
            .into_iter()
            .flat_map(|job| job.candidates)
            .find(|candidate| candidate.share.facts().transcript == *transcript);
        let Some(candidate) = found else {
            tracing::error!(key = %name, "this node has no share of the epoch that went live");
            return;
        };
        // every boot signed that it saw this transcript, or the entry would not have applied
        let holders = candidate.share.facts().holders.clone();
        let echoes = holders.parties().map(|party| (party, live.transcript)).collect();
        let tests: Vec<_> = live
            .tests
            .iter()
            .filter_map(|test| {
                Some(casemate_threshold::TestSignature {
                    signers: self.run_set(&test.participants)?,
                    signature: test.signature,
                })
            })
            .collect();
        match candidate.share.confirm(&echoes, &tests) {
            Ok(key) => {
                self.keygen.live.insert(name.clone(), key);
                if former.is_none() && candidate.replaces.is_some() {
                    self.stats.count(Count::Recovered);
                }
            }
            Err(error) => tracing::error!(key = %name, %error, "the share does not go live"),
        }
        self.drive_signing(now);
    }

    /// Nodes with their current boots, whether or not this one is among them.
    pub(crate) fn run_set(&self, names: &[NodeName]) -> Option<Participants> {
        let boots: Option<Vec<_>> =
            names.iter().map(|name| Some((name.clone(), self.state.current_boot(name)?))).collect();
        self.roster.participants(&boots?)
    }
}

/// How long to wait after so many failures: shortly at first, and not for longer than [`RETRY`].
pub(crate) fn retry_after(failures: u32) -> Millis {
    let factor = 1_u64.checked_shl(failures).unwrap_or(u64::MAX);
    FIRST_RETRY.saturating_mul(factor).min(RETRY)
}

fn job_running(keygen: &mut Keygen, name: &KeyName, running: Option<Running>) {
    if let Some(job) = keygen.jobs.get_mut(name) {
        job.running = running;
    }
}
