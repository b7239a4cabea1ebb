//! New keys: generation among all nodes, tests that cover every share, everybody's confirmation.
//!
//! One node leads each key, by the index of the entry that asks for it. All nodes run the key
//! generation, which ends with all having echoed the same transcript. Then sets of t that together
//! cover every node sign a test message (the first of each set leads its test). With all tests at
//! hand the key's leader asks every boot to confirm exactly that, and proposes the entry. A share
//! is pending until that entry is applied; what is not in the end confirmed is dropped.

use std::collections::{BTreeMap, VecDeque};

use casemate_ledger::EntryBody;
use casemate_ledger::entry::{Confirmation, KeyLive, TestSignature};
use casemate_ledger::keys::verify_signature;
use casemate_proto::ids::Hash32;
use casemate_proto::{KeyName, Millis, NodeName, Scheme, UnixMillis};
use casemate_threshold::context::Purpose;
use casemate_threshold::ecdsa::TriplePair;
use casemate_threshold::{
    EcdsaKeygenRun, EcdsaSignRun, Ed25519KeygenRun, Ed25519SignRun, KeyEpoch, KeyFacts, KeyRef,
    LiveEcdsaKey, LiveEd25519Key, Misuse, Participants, PendingEcdsaKey, PendingEd25519Key,
    RunContext, RunError, RunSpec, TriplePairId, covering_subsets,
};
use rand_core::RngCore as _;
use zeroize::Zeroize as _;

use crate::node::{Bounded, Node, Output};
use crate::peer::PeerMessage;
use crate::runs::{AnyRun, Role};

/// Most generations of one key whose shares are pending at one time.
const MAX_PENDING: usize = 3;
/// Most starts that wait for their entry, their share or their triples.
const MAX_EARLY: usize = 128;
/// How long a leader waits after a failure.
const RETRY: Millis = Millis(2_000);
/// How long a leader waits for its proposal before it proposes again.
const PROPOSE_AGAIN: Millis = Millis(3_000);
/// How far a leader's attempt may be ahead of the one expected.
const MAX_ATTEMPT_JUMP: u64 = 1_000;

/// A share that may not sign yet.
pub(crate) enum Pending {
    Ecdsa(Box<PendingEcdsaKey>),
    Ed25519(Box<PendingEd25519Key>),
}

/// A share that signs, given a permit.
pub(crate) enum Live {
    Ecdsa(Box<LiveEcdsaKey>),
    Ed25519(Box<LiveEd25519Key>),
}

impl Pending {
    fn facts(&self) -> &KeyFacts {
        match self {
            Self::Ecdsa(key) => key.facts(),
            Self::Ed25519(key) => key.facts(),
        }
    }
    fn public_key(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key.public_key(),
            Self::Ed25519(key) => key.public_key(),
        }
    }
    const fn scheme(&self) -> Scheme {
        match self {
            Self::Ecdsa(_) => Scheme::EcdsaSecp256k1,
            Self::Ed25519(_) => Scheme::Ed25519,
        }
    }
}

/// A start of a test, as it came.
#[derive(Clone, Debug)]
pub(crate) struct StartTest {
    pub(crate) name: KeyName,
    pub(crate) transcript: Hash32,
    pub(crate) participants: Vec<NodeName>,
    pub(crate) triples: Option<Hash32>,
    pub(crate) number: u64,
}

/// Shares that were generated, and how far their confirmation has come.
struct Candidate {
    share: Pending,
    tests: BTreeMap<Vec<NodeName>, [u8; 64]>,
    /// The sets whose test this node leads and has under way.
    testing: Vec<Vec<NodeName>>,
    /// At the leader: what is being confirmed, and by whom so far.
    confirming: Option<KeyLive>,
    confirmed: BTreeMap<NodeName, [u8; 64]>,
    propose_at: UnixMillis,
    give_up_at: UnixMillis,
}

/// A key that governance asked for.
struct Job {
    name: KeyName,
    scheme: Scheme,
    entry: Hash32,
    next_attempt: u64,
    running: bool,
    retry_at: UnixMillis,
    candidates: VecDeque<Candidate>,
}

impl Job {
    fn candidate(&mut self, transcript: &Hash32) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|c| c.share.facts().transcript == *transcript)
    }
}

enum Early {
    Keygen(u64, u64),
    Test(StartTest),
}

/// Keys in the making, and the live shares.
pub(crate) struct Keygen {
    jobs: BTreeMap<u64, Job>,
    live: BTreeMap<KeyName, Live>,
    early: Bounded<(NodeName, Early, UnixMillis)>,
}

impl Default for Keygen {
    fn default() -> Self {
        Self { jobs: BTreeMap::new(), live: BTreeMap::new(), early: Bounded::new(MAX_EARLY) }
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
        self.live.values().any(|key| matches!(key, Live::Ecdsa(_)))
    }
    fn job_of(&mut self, name: &KeyName) -> Option<(u64, &mut Job)> {
        self.jobs.iter_mut().find(|(_, job)| job.name == *name).map(|(index, job)| (*index, job))
    }
}

impl Node {
    /// An entry asks for a key.
    pub(crate) fn key_wanted(
        &mut self,
        name: KeyName,
        scheme: Scheme,
        index: u64,
        entry: Hash32,
        now: UnixMillis,
    ) {
        let job = Job {
            name,
            scheme,
            entry,
            next_attempt: 0,
            running: false,
            retry_at: now,
            candidates: VecDeque::new(),
        };
        self.keygen.jobs.insert(index, job);
        self.resume_early_keygen(now);
        self.drive_keygen(now);
    }

    /// Who leads a key: the same node whoever is reachable, since all are needed.
    fn key_leader(&self, index: u64) -> Option<NodeName> {
        let n = u64::try_from(self.roster.names().len()).ok()?;
        let at = usize::try_from(index.checked_rem(n)?).ok()?;
        self.roster.names().get(at).cloned()
    }
    fn leads_key(&self, index: u64) -> bool {
        self.key_leader(index).as_ref() == Some(self.roster.me())
    }

    pub(crate) fn drive_keygen(&mut self, now: UnixMillis) {
        let everybody_is_there = self.roster.live(now).len() == self.roster.names().len();
        let due: Vec<(u64, u64)> = self
            .keygen
            .jobs
            .iter_mut()
            .filter_map(|(index, job)| {
                job.candidates.retain(|c| c.give_up_at > now);
                let idle = !job.running && job.candidates.is_empty() && job.retry_at <= now;
                idle.then_some((*index, job.next_attempt))
            })
            .collect();
        for (index, attempt) in due {
            if everybody_is_there && self.leads_key(index) && self.begin_keygen(index, attempt, now)
            {
                let names = self.roster.others();
                self.send_first(&names, &PeerMessage::StartKeygen { index, attempt });
            }
        }
        self.drive_tests(now);
        self.drive_confirmations(now);
    }

    /// The key's leader begins a generation.
    pub(crate) fn join_keygen(
        &mut self,
        from: &NodeName,
        index: u64,
        attempt: u64,
        now: UnixMillis,
    ) {
        if self.key_leader(index).as_ref() != Some(from) {
            return;
        }
        if index >= self.state.size() {
            let until = now.saturating_add(self.config.run_timeout);
            self.keygen.early.push((from.clone(), Early::Keygen(index, attempt), until));
            return;
        }
        self.begin_keygen(index, attempt, now);
    }

    fn begin_keygen(&mut self, index: u64, attempt: u64, now: UnixMillis) -> bool {
        let Some(participants) = self.everybody() else { return false };
        let Some(job) = self.keygen.jobs.get_mut(&index) else { return false };
        if attempt < job.next_attempt
            || attempt.saturating_sub(job.next_attempt) > MAX_ATTEMPT_JUMP
            || job.running
        {
            return false;
        }
        job.next_attempt = attempt.saturating_add(1);
        let (scheme, entry) = (job.scheme, job.entry);
        let key = KeyRef { name: job.name.clone(), epoch: KeyEpoch(0) };
        let purpose = match scheme {
            Scheme::EcdsaSecp256k1 => Purpose::EcdsaKeygen { key },
            Scheme::Ed25519 => Purpose::Ed25519Keygen { key },
        };
        let spec = self.key_spec(purpose, participants, index, entry, attempt);
        let deadline = now.saturating_add(self.config.run_timeout);
        let begun = RunContext::new(spec).map_err(RunError::from).and_then(|context| {
            self.begin_run(
                context,
                deadline,
                Role::Keygen { index },
                now,
                |node, claim| {
                    let mut contribution = [0; 32];
                    node.entropy.fill_bytes(&mut contribution);
                    let run = match scheme {
                        Scheme::EcdsaSecp256k1 => AnyRun::EcdsaKeygen(Box::new(
                            EcdsaKeygenRun::generate(claim, contribution)?,
                        )),
                        Scheme::Ed25519 => AnyRun::Ed25519Keygen(Box::new(
                            Ed25519KeygenRun::generate(claim, contribution, &mut node.entropy)?,
                        )),
                    };
                    contribution.zeroize();
                    Ok(run)
                },
                |_, _| Ok(None),
            )
        });
        match begun {
            Ok(_) => {
                if let Some(job) = self.keygen.jobs.get_mut(&index) {
                    job.running = true;
                }
                true
            }
            Err(error) => {
                tracing::warn!(index, %error, "key generation not begun");
                false
            }
        }
    }

    fn key_spec(
        &self,
        purpose: Purpose,
        participants: Participants,
        index: u64,
        entry: Hash32,
        attempt: u64,
    ) -> RunSpec {
        RunSpec {
            genesis: self.state.genesis(),
            incarnation: self.state.incarnation(),
            purpose,
            participants,
            threshold: self.threshold,
            log_index: index,
            entry,
            attempt,
        }
    }

    pub(crate) fn key_made(&mut self, index: u64, share: Pending, now: UnixMillis) {
        let give_up_at = now.saturating_add(self.config.run_timeout.saturating_mul(3));
        let Some(job) = self.keygen.jobs.get_mut(&index) else { return };
        job.running = false;
        if job.candidates.len() >= MAX_PENDING {
            job.candidates.pop_front();
        }
        job.candidates.push_back(Candidate {
            share,
            tests: BTreeMap::new(),
            testing: Vec::new(),
            confirming: None,
            confirmed: BTreeMap::new(),
            propose_at: now,
            give_up_at,
        });
        self.resume_early_keygen(now);
        self.drive_tests(now);
    }

    pub(crate) fn keygen_failed(&mut self, index: u64, now: UnixMillis) {
        if let Some(job) = self.keygen.jobs.get_mut(&index) {
            job.running = false;
            job.retry_at = now.saturating_add(RETRY);
        }
    }

    /// The sets that test a key, by name.
    fn test_sets(&self) -> Vec<Vec<NodeName>> {
        let Some(all) = self.everybody() else { return Vec::new() };
        let subsets = covering_subsets(&all, self.threshold);
        subsets.iter().map(|set| self.roster.names_of(set)).collect()
    }

    /// Leads the tests that are this node's to lead.
    pub(crate) fn drive_tests(&mut self, now: UnixMillis) {
        if self.keygen.jobs.is_empty() {
            return;
        }
        let sets: Vec<Vec<NodeName>> = self
            .test_sets()
            .into_iter()
            .filter(|set| set.first() == Some(self.roster.me()))
            .collect();
        let wanted: Vec<(KeyName, Hash32, Scheme, Vec<NodeName>)> = self
            .keygen
            .jobs
            .values()
            .flat_map(|job| job.candidates.iter())
            .flat_map(|candidate| {
                let facts = candidate.share.facts();
                sets.iter()
                    .filter(|set| {
                        !candidate.tests.contains_key(*set) && !candidate.testing.contains(set)
                    })
                    .map(|set| {
                        let scheme = candidate.share.scheme();
                        (facts.key.name.clone(), facts.transcript, scheme, set.clone())
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        for (name, transcript, scheme, set) in wanted {
            let triples = match scheme {
                Scheme::Ed25519 => None,
                Scheme::EcdsaSecp256k1 => match self
                    .run_participants(&set)
                    .and_then(|boots| self.triples.take_own(&boots))
                {
                    Some(id) => Some(id.0),
                    None => {
                        if !self.triples.is_making(&set) {
                            self.lead_triples(set, now);
                        }
                        continue;
                    }
                },
            };
            let number = self.fresh_number();
            let start = StartTest { name, transcript, participants: set, triples, number };
            if self.begin_test(&start, true, now) {
                if let Some((_, job)) = self.keygen.job_of(&start.name)
                    && let Some(candidate) = job.candidate(&transcript)
                    && !candidate.tests.contains_key(&start.participants)
                {
                    candidate.testing.push(start.participants.clone());
                }
                let StartTest { name, transcript, participants, triples, number } = start;
                let to = participants.clone();
                let message =
                    PeerMessage::StartTest { name, transcript, participants, triples, number };
                self.send_first(&to, &message);
            }
        }
    }

    /// The first of a set begins its test.
    pub(crate) fn join_test(&mut self, from: &NodeName, start: StartTest, now: UnixMillis) {
        if start.participants.first() != Some(from)
            || !self.test_sets().contains(&start.participants)
            || !start.participants.contains(self.roster.me())
        {
            return;
        }
        let has_share = self
            .keygen
            .job_of(&start.name)
            .is_some_and(|(_, job)| job.candidate(&start.transcript).is_some());
        let has_triples = start.triples.is_none_or(|id| {
            self.run_participants(&start.participants)
                .is_some_and(|set| self.triples.has(&set, &TriplePairId(id)))
        });
        if has_share && has_triples {
            self.begin_test(&start, false, now);
        } else {
            let until = now.saturating_add(self.config.run_timeout);
            self.keygen.early.push((from.clone(), Early::Test(start), until));
        }
    }

    /// Starts that waited get another look.
    pub(crate) fn resume_early_keygen(&mut self, now: UnixMillis) {
        for (from, early, until) in self.keygen.early.take() {
            if now > until {
                continue;
            }
            match early {
                Early::Keygen(index, attempt) => self.join_keygen(&from, index, attempt, now),
                Early::Test(start) => self.join_test(&from, start, now),
            }
        }
    }

    fn begin_test(&mut self, start: &StartTest, led: bool, now: UnixMillis) -> bool {
        match self.try_begin_test(start, led, now) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(key = %start.name, %error, "test not begun");
                false
            }
        }
    }

    fn try_begin_test(
        &mut self,
        start: &StartTest,
        led: bool,
        now: UnixMillis,
    ) -> Result<(), RunError> {
        let set = self.run_participants(&start.participants).ok_or(Misuse::NotParticipating)?;
        let (index, job) = self.keygen.job_of(&start.name).ok_or(Misuse::WrongKey)?;
        let scheme = job.scheme;
        let key = KeyRef { name: start.name.clone(), epoch: KeyEpoch(0) };
        let pair: Option<TriplePair> =
            start.triples.and_then(|id| self.triples.take(&set, &TriplePairId(id)));
        let purpose = match (scheme, &pair) {
            (Scheme::EcdsaSecp256k1, Some(pair)) => Purpose::EcdsaTest { key, triples: pair.id() },
            (Scheme::EcdsaSecp256k1, None) => return Err(Misuse::WrongTriples.into()),
            (Scheme::Ed25519, _) => Purpose::Ed25519Test { key },
        };
        let spec = self.key_spec(purpose, set, index, start.transcript, start.number);
        let deadline = now.saturating_add(self.config.run_timeout);
        let role = Role::Test { name: start.name.clone(), transcript: start.transcript, led };
        let transcript = start.transcript;
        self.begin_run(
            RunContext::new(spec)?,
            deadline,
            role,
            now,
            move |node, claim| {
                let candidate = node
                    .keygen
                    .jobs
                    .get_mut(&index)
                    .and_then(|job| job.candidate(&transcript))
                    .ok_or(Misuse::WrongKey)?;
                match (&candidate.share, pair) {
                    (Pending::Ecdsa(key), Some(pair)) => {
                        Ok(AnyRun::EcdsaSign(Box::new(EcdsaSignRun::test(claim, key, pair)?)))
                    }
                    (Pending::Ed25519(key), None) => {
                        let run = Ed25519SignRun::test(claim, key, &mut node.entropy)?;
                        Ok(AnyRun::Ed25519Sign(Box::new(run)))
                    }
                    _ => Err(Misuse::WrongKey.into()),
                }
            },
            |_, _| Ok(None),
        )?;
        Ok(())
    }

    pub(crate) fn test_made(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        participants: Vec<NodeName>,
        signature: [u8; 64],
        led: bool,
        now: UnixMillis,
    ) {
        if !led {
            return;
        }
        let Some((index, job)) = self.keygen.job_of(name) else { return };
        if let Some(candidate) = job.candidate(transcript) {
            candidate.tests.insert(participants.clone(), signature);
            candidate.testing.retain(|set| *set != participants);
        }
        if self.leads_key(index) {
            self.drive_confirmations(now);
        } else if let Some(leader) = self.key_leader(index) {
            let (name, transcript) = (name.clone(), *transcript);
            self.send(&leader, &PeerMessage::Tested { name, transcript, participants, signature });
        }
    }

    pub(crate) fn test_failed(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        led: bool,
        now: UnixMillis,
    ) {
        if led
            && let Some((_, job)) = self.keygen.job_of(name)
            && let Some(candidate) = job.candidate(transcript)
        {
            candidate.testing.clear();
            self.drive_tests(now);
        }
    }

    /// At the key's leader: a test that another node led.
    pub(crate) fn tested(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        participants: Vec<NodeName>,
        signature: [u8; 64],
        now: UnixMillis,
    ) {
        if !self.test_sets().contains(&participants) {
            return;
        }
        let Some((_, job)) = self.keygen.job_of(name) else { return };
        let Some(candidate) = job.candidate(transcript) else { return };
        candidate.tests.entry(participants).or_insert(signature);
        self.drive_confirmations(now);
    }

    /// At keys' leaders: asks for confirmations when all tests are there, proposes when all have
    /// confirmed.
    fn drive_confirmations(&mut self, now: UnixMillis) {
        let sets = self.test_sets();
        let roster = self.roster.names().to_vec();
        let leading: Vec<u64> =
            self.keygen.jobs.keys().copied().filter(|index| self.leads_key(*index)).collect();
        let mut ask = Vec::new();
        for index in leading {
            let Some(job) = self.keygen.jobs.get_mut(&index) else { continue };
            for candidate in &mut job.candidates {
                if candidate.confirming.is_none()
                    && let Some(live) = key_live_of(candidate, &sets)
                {
                    candidate.confirming = Some(live.clone());
                    ask.push(live);
                }
                let Some(live) = &candidate.confirming else { continue };
                if candidate.confirmed.len() < roster.len() || candidate.propose_at > now {
                    continue;
                }
                candidate.propose_at = now.saturating_add(PROPOSE_AGAIN);
                let mut live = live.clone();
                live.confirmations = candidate
                    .confirmed
                    .iter()
                    .map(|(node, signature)| Confirmation {
                        node: node.clone(),
                        signature: *signature,
                    })
                    .collect();
                let body = EntryBody::KeyLive(live);
                self.out.push(Output::Propose { body, attachment: None });
            }
        }
        for live in ask {
            let me = self.roster.me().clone();
            let others = self.roster.others();
            self.send_others(&others, &PeerMessage::ConfirmKey(live.clone()));
            if let Some(signature) = self.confirmation_of(&live) {
                self.confirmed(&me, &live.name, &live.transcript, signature, now);
            }
        }
    }

    /// This boot's word for a key, if everything in it is what this node has, and the tests hold.
    fn confirmation_of(&mut self, live: &KeyLive) -> Option<[u8; 64]> {
        let sets = self.test_sets();
        let (_, job) = self.keygen.job_of(&live.name)?;
        let candidate = job.candidate(&live.transcript)?;
        let facts = candidate.share.facts();
        let same = live.scheme == candidate.share.scheme()
            && live.epoch == facts.key.epoch.0
            && live.public_key == candidate.share.public_key()
            && live.chain_code == facts.chain_code
            && live.confirmations.is_empty()
            && live.tests.iter().map(|test| &test.participants).eq(sets.iter());
        let holds = |test: &TestSignature| {
            self.state.test_digest(live, &test.participants).is_some_and(|digest| {
                verify_signature(live.scheme, &live.public_key, &digest, &test.signature)
            })
        };
        let message = live.confirm_message(&self.state.genesis());
        (same && live.tests.iter().all(holds)).then(|| self.boot.sign(&message))
    }

    /// The key's leader asks for this boot's confirmation.
    pub(crate) fn confirm_key(&mut self, from: &NodeName, live: &KeyLive) {
        let Some((index, _)) = self.keygen.job_of(&live.name) else { return };
        if self.key_leader(index).as_ref() != Some(from) {
            return;
        }
        if let Some(signature) = self.confirmation_of(live) {
            let (name, transcript) = (live.name.clone(), live.transcript);
            self.send(from, &PeerMessage::Confirmed { name, transcript, signature });
        } else {
            tracing::warn!(key = %live.name, %from, "key not confirmed: it is not what this node has");
        }
    }

    /// At the key's leader: a confirmation.
    pub(crate) fn confirmed(
        &mut self,
        from: &NodeName,
        name: &KeyName,
        transcript: &Hash32,
        signature: [u8; 64],
        now: UnixMillis,
    ) {
        let genesis = self.state.genesis();
        let Some(key) = self
            .state
            .current_boot_key(from)
            .and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(&key).ok())
        else {
            return;
        };
        let Some((_, job)) = self.keygen.job_of(name) else { return };
        let Some(candidate) = job.candidate(transcript) else { return };
        let Some(live) = &candidate.confirming else { return };
        let parsed = ed25519_dalek::Signature::from_bytes(&signature);
        if key.verify_strict(&live.confirm_message(&genesis), &parsed).is_ok() {
            candidate.confirmed.insert(from.clone(), signature);
            self.drive_confirmations(now);
        }
    }

    /// The entry that makes a key live is applied: the pending share of that transcript becomes
    /// the live one, all others are dropped.
    pub(crate) fn key_live(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        live: &KeyLive,
        now: UnixMillis,
    ) {
        let Some((index, _)) = self.keygen.job_of(name) else { return };
        let Some(job) = self.keygen.jobs.remove(&index) else { return };
        for id in self.runs.which(|slot| match &slot.role {
            Role::Keygen { index: at } => *at == index,
            Role::Test { name: of, .. } => of == name,
            _ => false,
        }) {
            self.end_run(id, &RunError::Burned, now);
        }
        let found = job
            .candidates
            .into_iter()
            .find(|candidate| candidate.share.facts().transcript == *transcript);
        let Some(candidate) = found else {
            tracing::error!(key = %name, "this node has no share of the key that went live");
            return;
        };
        // every boot signed that it saw this transcript, or the entry would not have applied
        let echoes = candidate
            .share
            .facts()
            .holders
            .parties()
            .map(|party| (party, live.transcript))
            .collect();
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
        let confirmed = match candidate.share {
            Pending::Ecdsa(key) => {
                key.confirm(&echoes, &tests).map(|key| Live::Ecdsa(Box::new(key)))
            }
            Pending::Ed25519(key) => {
                key.confirm(&echoes, &tests).map(|key| Live::Ed25519(Box::new(key)))
            }
        };
        match confirmed {
            Ok(key) => {
                self.keygen.live.insert(name.clone(), key);
            }
            Err(error) => tracing::error!(key = %name, %error, "the share does not go live"),
        }
    }

    /// Nodes with their current boots, whether or not this one is among them.
    fn run_set(&self, names: &[NodeName]) -> Option<Participants> {
        let boots: Option<Vec<_>> =
            names.iter().map(|name| Some((name.clone(), self.state.current_boot(name)?))).collect();
        self.roster.participants(&boots?)
    }
}

/// What everybody is to confirm, once every set has signed its test.
fn key_live_of(candidate: &Candidate, sets: &[Vec<NodeName>]) -> Option<KeyLive> {
    let facts = candidate.share.facts();
    let tests: Option<Vec<TestSignature>> = sets
        .iter()
        .map(|set| {
            let signature = *candidate.tests.get(set)?;
            Some(TestSignature { participants: set.clone(), signature })
        })
        .collect();
    Some(KeyLive {
        name: facts.key.name.clone(),
        scheme: candidate.share.scheme(),
        epoch: facts.key.epoch.0,
        public_key: candidate.share.public_key(),
        chain_code: facts.chain_code,
        transcript: facts.transcript,
        tests: tests?,
        confirmations: Vec::new(),
    })
}
