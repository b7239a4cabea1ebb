//! New keys: generation among all nodes, tests that cover every share, everybody's confirmation.
//!
//! One node leads each key, by the index of the entry that asks for it. All nodes run the key
//! generation, which ends with all having echoed the same transcript. Then sets of t that together
//! cover every node sign a test message (the first of each set leads its test). With all tests at
//! hand the key's leader asks every boot to confirm exactly that, and proposes the entry. A share
//! is pending until that entry is applied; what is not in the end confirmed is dropped.

use std::collections::{BTreeMap, VecDeque};

use casemate_ledger::entry::KeyLive;
use casemate_proto::ids::Hash32;
use casemate_proto::{KeyName, Millis, NodeName, Scheme, UnixMillis};
use casemate_threshold::context::Purpose;
use casemate_threshold::{
    EcdsaKeygenRun, Ed25519KeygenRun, KeyEpoch, KeyFacts, KeyRef, LiveEcdsaKey, LiveEd25519Key,
    Participant, Participants, PendingEcdsaKey, PendingEd25519Key, RunContext, RunError, RunSpec,
};
use rand_core::RngCore as _;
use zeroize::Zeroize as _;

use crate::bounded::PerPeer;
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::runs::{AnyRun, Role};

/// Most generations of one key whose shares are pending at one time.
const MAX_PENDING: usize = 3;
/// Most starts of one peer that wait for their entry, their share or their triples.
const MAX_EARLY: usize = 128;
/// Most generations of one key that this boot has confirmed and no entry has decided yet.
const MAX_PROMISED: usize = 64;
/// How long a leader waits after a failure.
const RETRY: Millis = Millis(2_000);
/// How long a leader waits for its proposal before it proposes again.
pub(crate) const PROPOSE_AGAIN: Millis = Millis(3_000);
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
    pub(crate) fn facts(&self) -> &KeyFacts {
        match self {
            Self::Ecdsa(key) => key.facts(),
            Self::Ed25519(key) => key.facts(),
        }
    }
    pub(crate) fn public_key(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key.public_key(),
            Self::Ed25519(key) => key.public_key(),
        }
    }
    pub(crate) const fn scheme(&self) -> Scheme {
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
pub(crate) struct Candidate {
    pub(crate) share: Pending,
    pub(crate) tests: BTreeMap<Vec<NodeName>, [u8; 64]>,
    /// The sets whose test this node leads and has under way.
    pub(crate) testing: Vec<Vec<NodeName>>,
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

/// A key that governance asked for.
pub(crate) struct Job {
    pub(crate) name: KeyName,
    pub(crate) scheme: Scheme,
    pub(crate) entry: Hash32,
    pub(crate) next_attempt: u64,
    pub(crate) running: bool,
    pub(crate) retry_at: UnixMillis,
    pub(crate) candidates: VecDeque<Candidate>,
}

impl Job {
    pub(crate) fn candidate(&mut self, transcript: &Hash32) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|c| c.share.facts().transcript == *transcript)
    }
}

pub(crate) enum Early {
    Keygen(u64, u64),
    Test(StartTest),
}

/// Keys in the making, and the live shares.
pub(crate) struct Keygen {
    pub(crate) jobs: BTreeMap<u64, Job>,
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
        self.live.values().any(|key| matches!(key, Live::Ecdsa(_)))
    }
    pub(crate) fn job_of(&mut self, name: &KeyName) -> Option<(u64, &mut Job)> {
        self.jobs.iter_mut().find(|(_, job)| job.name == *name).map(|(index, job)| (*index, job))
    }
}

impl Node {
    /// Looks in the state for keys whose shares are to be made.
    pub(crate) fn find_jobs(&mut self, _now: UnixMillis) {}

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

    /// Whether a node's current boot holds a share of a key that is live here.
    pub(crate) fn holds(&self, key: &KeyName, name: &NodeName) -> bool {
        self.keygen.live(key).is_some_and(|live| self.is_holder(live, name))
    }
    /// Whether it holds a share of any key that signs with triples.
    pub(crate) fn holds_ecdsa(&self, name: &NodeName) -> bool {
        let mut keys = self.keygen.live.values();
        keys.any(|live| matches!(live, Live::Ecdsa(_)) && self.is_holder(live, name))
    }
    fn is_holder(&self, live: &Live, name: &NodeName) -> bool {
        let holders = match live {
            Live::Ecdsa(key) => &key.facts().holders,
            Live::Ed25519(key) => &key.facts().holders,
        };
        let party = self.roster.party(name);
        let boot = self.state.current_boot(name);
        party.zip(boot).is_some_and(|(party, boot)| holders.contains(&Participant { party, boot }))
    }

    /// Who leads a key: the same node whoever is reachable, since all are needed.
    pub(crate) fn key_leader(&self, index: u64) -> Option<NodeName> {
        let n = u64::try_from(self.roster.names().len()).ok()?;
        let at = usize::try_from(index.checked_rem(n)?).ok()?;
        self.roster.names().get(at).cloned()
    }
    pub(crate) fn leads_key(&self, index: u64) -> bool {
        self.key_leader(index).as_ref() == Some(self.roster.me())
    }

    pub(crate) fn drive_keygen(&mut self, now: UnixMillis) {
        let everybody_is_there = self.roster.live(now).len() == self.roster.names().len();
        let due: Vec<(u64, u64)> = self
            .keygen
            .jobs
            .iter_mut()
            .filter_map(|(index, job)| {
                job.candidates.retain(|c| c.promised || c.give_up_at > now);
                // one that was promised and got stuck stays, and does not hold up the next
                let none_fresh = job.candidates.iter().all(|c| c.give_up_at <= now);
                let idle = !job.running && none_fresh && job.retry_at <= now;
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
            let until = now.saturating_add(self.config.keygen_timeout);
            self.keygen.early.push(from, (Early::Keygen(index, attempt), until));
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
            || job.candidates.iter().filter(|c| c.promised).count() >= MAX_PROMISED
        {
            return false;
        }
        job.next_attempt = attempt.saturating_add(1);
        let (scheme, entry) = (job.scheme, job.entry);
        let key = KeyRef { name: job.name.clone(), epoch: KeyEpoch(0) };
        let purpose = match scheme {
            Scheme::EcdsaSecp256k1 => Purpose::EcdsaKeygen { key },
            Scheme::Ed25519 => Purpose::Ed25519Keygen { key },
            Scheme::Bip340Secp256k1 => Purpose::Bip340Keygen { key },
        };
        let spec = self.key_spec(purpose, participants, index, entry, attempt);
        let deadline = now.saturating_add(self.config.keygen_timeout);
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
                        Scheme::Bip340Secp256k1 => {
                            return Err(casemate_threshold::Misuse::WrongKey.into());
                        }
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

    pub(crate) fn key_spec(
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
        let give_up_at = now.saturating_add(self.config.keygen_timeout.saturating_mul(3));
        let Some(job) = self.keygen.jobs.get_mut(&index) else { return };
        job.running = false;
        if job.candidates.iter().filter(|c| !c.promised).count() >= MAX_PENDING
            && let Some(oldest) = job.candidates.iter().position(|c| !c.promised)
        {
            job.candidates.remove(oldest);
        }
        job.candidates.push_back(Candidate {
            share,
            tests: BTreeMap::new(),
            testing: Vec::new(),
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

    pub(crate) fn keygen_failed(&mut self, index: u64, now: UnixMillis) {
        if let Some(job) = self.keygen.jobs.get_mut(&index) {
            job.running = false;
            job.retry_at = now.saturating_add(RETRY);
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
