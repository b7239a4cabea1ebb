//! An in-memory network with a seeded scheduler, and a cluster of parties on it.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;

use casemate_proto::{BootId, DerivationPath, GenesisId, Hash32, Incarnation, KeyName, UnixMillis};
use casemate_threshold::{
    Authorised, Claim, EcdsaKeygenRun, EcdsaSignRun, EcdsaSignature, Ed25519KeygenRun,
    Ed25519SignRun, Ed25519Signature, KeyEpoch, KeyRef, LiveEcdsaKey, LiveEd25519Key, Outgoing,
    Participant, Participants, PartyId, PendingEcdsaKey, PendingEd25519Key, Purpose, Run,
    RunContext, RunError, RunRegistry, RunSpec, Step, TestSignature, TriplePair, TripleRun,
    covering_subsets, ed25519_subject,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

pub const NOW: UnixMillis = UnixMillis(1_000_000);
pub const DEADLINE: UnixMillis = UnixMillis(1_030_000);
pub const LATE: UnixMillis = UnixMillis(1_030_001);

pub fn party(n: u16) -> PartyId {
    PartyId::new(n).unwrap()
}

pub fn participant(n: u16, generation: u8) -> Participant {
    let mut boot = [generation; 32];
    boot[..2].copy_from_slice(&n.to_be_bytes());
    Participant { party: party(n), boot: BootId::new(boot) }
}

pub fn participants(numbers: &[u16]) -> Participants {
    Participants::new(numbers.iter().map(|&n| participant(n, 0)).collect()).unwrap()
}

pub fn key_ref(name: &str, epoch: u64) -> KeyRef {
    KeyRef { name: KeyName::new(name).unwrap(), epoch: KeyEpoch(epoch) }
}

/// One message under way.
#[derive(Clone)]
pub struct Packet {
    pub from: PartyId,
    pub to: PartyId,
    pub bytes: Vec<u8>,
}

/// How a run ended for one party.
#[derive(Debug)]
pub enum End<T> {
    Done(T),
    Failed(RunError),
    /// Neither done nor failed when no message was left.
    Stalled,
}

impl<T> End<T> {
    pub fn unwrap(self) -> T {
        match self {
            Self::Done(output) => output,
            Self::Failed(error) => panic!("{error}"),
            Self::Stalled => panic!("stalled"),
        }
    }
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// What went over the network and what was refused.
#[derive(Default)]
pub struct Stats {
    pub messages: usize,
    pub bytes: usize,
    pub largest: usize,
    pub refused: Vec<RunError>,
}

pub struct Net<R: Run> {
    pub runs: BTreeMap<PartyId, R>,
    pub ends: BTreeMap<PartyId, End<R::Output>>,
    pub queue: Vec<Packet>,
    pub rng: ChaCha20Rng,
    pub stats: Stats,
}

impl<R: Run> Net<R> {
    pub fn new(runs: Vec<R>, seed: u64) -> Self {
        Self {
            runs: runs.into_iter().map(|run| (run.me(), run)).collect(),
            ends: BTreeMap::new(),
            queue: Vec::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            stats: Stats::default(),
        }
    }

    pub fn absorb(&mut self, from: PartyId, result: Result<Step<R::Output>, RunError>) {
        match result {
            Ok(step) => {
                for Outgoing { to, bytes } in step.send {
                    self.stats.messages += 1;
                    self.stats.bytes += bytes.len();
                    self.stats.largest = self.stats.largest.max(bytes.len());
                    self.queue.push(Packet { from, to, bytes });
                }
                if let Some(output) = step.done {
                    assert!(self.ends.insert(from, End::Done(output)).is_none());
                }
            }
            Err(error) if error.burns() => {
                self.ends.entry(from).or_insert(End::Failed(error));
            }
            Err(error) => self.stats.refused.push(error),
        }
    }

    pub fn start(&mut self) {
        let parties: Vec<PartyId> = self.runs.keys().copied().collect();
        for p in parties {
            let result = self.runs.get_mut(&p).unwrap().start(NOW);
            self.absorb(p, result);
        }
    }

    /// Delivers in random order until nothing is left; `mangle` turns each packet into none, one or
    /// more.
    pub fn pump(&mut self, mut mangle: impl FnMut(&mut ChaCha20Rng, Packet) -> Vec<Packet>) {
        while !self.queue.is_empty() {
            let at = usize::try_from(self.rng.next_u64()).unwrap() % self.queue.len();
            let packet = self.queue.swap_remove(at);
            for packet in mangle(&mut self.rng, packet) {
                if let Some(run) = self.runs.get_mut(&packet.to) {
                    let result = run.receive(packet.from, &packet.bytes, NOW);
                    self.absorb(packet.to, result);
                }
            }
        }
    }

    pub fn ends(mut self) -> BTreeMap<PartyId, End<R::Output>> {
        for p in self.runs.keys() {
            self.ends.entry(*p).or_insert(End::Stalled);
        }
        self.ends
    }
}

/// Runs to the end over a network that only reorders.
pub fn run_all<R: Run>(runs: Vec<R>, seed: u64) -> BTreeMap<PartyId, R::Output> {
    let mut net = Net::new(runs, seed);
    net.start();
    net.pump(|_, p| vec![p]);
    assert!(net.stats.refused.is_empty(), "{:?}", net.stats.refused);
    net.ends().into_iter().map(|(p, end)| (p, end.unwrap())).collect()
}

/// A cluster of boots, each with its registry.
pub struct World {
    pub all: Participants,
    pub t: u16,
    pub registries: BTreeMap<PartyId, RunRegistry>,
    pub index: u64,
    pub rng: ChaCha20Rng,
}

impl World {
    pub fn new(n: u16, t: u16, seed: u64) -> Self {
        let all = Participants::new((0..n).map(|n| participant(n, 0)).collect()).unwrap();
        let registries =
            all.as_slice().iter().map(|p| (p.party, RunRegistry::new(p.party, p.boot))).collect();
        Self { all, t, registries, index: 0, rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    pub fn context(&mut self, purpose: Purpose, among: &Participants, t: u16) -> RunContext {
        self.index += 1;
        RunContext::new(RunSpec {
            genesis: GenesisId::new([7; 32]),
            incarnation: Incarnation(0),
            purpose,
            participants: among.clone(),
            threshold: t,
            log_index: self.index,
            entry: Hash32::new([8; 32]),
            attempt: 0,
        })
        .unwrap()
    }

    pub fn claim(&mut self, context: &RunContext, p: PartyId) -> Claim {
        self.registries.get_mut(&p).unwrap().claim(context.clone(), DEADLINE).unwrap()
    }

    pub fn seed(&mut self) -> u64 {
        self.rng.next_u64()
    }

    pub fn triples(&mut self, among: &Participants) -> BTreeMap<PartyId, TriplePair> {
        let t = u16::try_from(among.len()).unwrap();
        let context = self.context(Purpose::Triples, among, t);
        let runs =
            among.parties().map(|p| TripleRun::new(self.claim(&context, p)).unwrap()).collect();
        run_all(runs, self.seed())
    }

    pub fn ecdsa_keygen(&mut self, name: &str) -> BTreeMap<PartyId, PendingEcdsaKey> {
        let all = self.all.clone();
        let context = self.context(Purpose::EcdsaKeygen { key: key_ref(name, 0) }, &all, self.t);
        let mut runs = Vec::new();
        for p in all.parties() {
            let mut contribution = [0; 32];
            self.rng.fill_bytes(&mut contribution);
            runs.push(EcdsaKeygenRun::generate(self.claim(&context, p), contribution).unwrap());
        }
        run_all(runs, self.seed())
    }

    pub fn ecdsa_test(
        &mut self,
        pending: &BTreeMap<PartyId, PendingEcdsaKey>,
        among: &Participants,
    ) -> TestSignature {
        let mut pairs = self.triples(among);
        let first = pending.values().next().unwrap();
        let purpose = Purpose::EcdsaTest {
            key: first.facts().key.clone(),
            triples: pairs.values().next().unwrap().id(),
        };
        let context = self.context(purpose, among, first.facts().threshold);
        let mut runs = Vec::new();
        for p in among.parties() {
            let claim = self.claim(&context, p);
            runs.push(EcdsaSignRun::test(claim, &pending[&p], pairs.remove(&p).unwrap()).unwrap());
        }
        let signatures = run_all(runs, self.seed());
        TestSignature { signers: among.clone(), signature: signatures.values().next().unwrap().r_s }
    }

    pub fn ecdsa_go_live(
        &mut self,
        pending: BTreeMap<PartyId, PendingEcdsaKey>,
    ) -> BTreeMap<PartyId, LiveEcdsaKey> {
        let facts = pending.values().next().unwrap().facts().clone();
        let tests: Vec<TestSignature> = covering_subsets(&facts.holders, facts.threshold)
            .iter()
            .map(|set| self.ecdsa_test(&pending, set))
            .collect();
        let echoes = pending.iter().map(|(p, k)| (*p, k.echo())).collect();
        pending.into_iter().map(|(p, k)| (p, k.confirm(&echoes, &tests).unwrap())).collect()
    }

    pub fn ecdsa_live(&mut self, name: &str) -> BTreeMap<PartyId, LiveEcdsaKey> {
        let pending = self.ecdsa_keygen(name);
        self.ecdsa_go_live(pending)
    }

    /// Signing runs that have their triples and wait for nothing but messages and permits.
    pub fn ecdsa_sign_runs(
        &mut self,
        keys: &BTreeMap<PartyId, LiveEcdsaKey>,
        among: &Participants,
        path: &str,
        digest: [u8; 32],
    ) -> Vec<EcdsaSignRun> {
        let mut pairs = self.triples(among);
        let facts = keys.values().next().unwrap().facts().clone();
        let purpose = Purpose::EcdsaSign {
            key: facts.key.clone(),
            path: DerivationPath::parse(path).unwrap(),
            digest,
            triples: pairs.values().next().unwrap().id(),
        };
        let context = self.context(purpose, among, facts.threshold);
        among
            .parties()
            .map(|p| {
                let claim = self.claim(&context, p);
                EcdsaSignRun::new(claim, &keys[&p], pairs.remove(&p).unwrap()).unwrap()
            })
            .collect()
    }

    pub fn ecdsa_sign(
        &mut self,
        keys: &BTreeMap<PartyId, LiveEcdsaKey>,
        among: &Participants,
        path: &str,
        digest: [u8; 32],
    ) -> EcdsaSignature {
        let runs = self.ecdsa_sign_runs(keys, among, path, digest);
        let mut net = Net::new(runs, self.seed());
        net.start();
        net.pump(|_, p| vec![p]);
        assert!(net.ends.is_empty(), "nothing is signed without a permit");
        permit_ecdsa(&mut net, digest);
        net.pump(|_, p| vec![p]);
        one_signature(net.ends())
    }

    pub fn ed25519_keygen(&mut self, name: &str) -> BTreeMap<PartyId, PendingEd25519Key> {
        let all = self.all.clone();
        let context = self.context(Purpose::Ed25519Keygen { key: key_ref(name, 0) }, &all, self.t);
        let mut runs = Vec::new();
        for p in all.parties() {
            let mut contribution = [0; 32];
            self.rng.fill_bytes(&mut contribution);
            let claim = self.claim(&context, p);
            runs.push(Ed25519KeygenRun::generate(claim, contribution, &mut self.rng).unwrap());
        }
        run_all(runs, self.seed())
    }

    pub fn ed25519_test(
        &mut self,
        pending: &BTreeMap<PartyId, PendingEd25519Key>,
        among: &Participants,
    ) -> TestSignature {
        let facts = pending.values().next().unwrap().facts().clone();
        let purpose = Purpose::Ed25519Test { key: facts.key.clone() };
        let context = self.context(purpose, among, facts.threshold);
        let mut runs = Vec::new();
        for p in among.parties() {
            let claim = self.claim(&context, p);
            runs.push(Ed25519SignRun::test(claim, &pending[&p], &mut self.rng).unwrap());
        }
        let signatures = run_all(runs, self.seed());
        TestSignature {
            signers: among.clone(),
            signature: signatures.values().next().unwrap().bytes,
        }
    }

    pub fn ed25519_go_live(
        &mut self,
        pending: BTreeMap<PartyId, PendingEd25519Key>,
    ) -> BTreeMap<PartyId, LiveEd25519Key> {
        let facts = pending.values().next().unwrap().facts().clone();
        let tests: Vec<TestSignature> = covering_subsets(&facts.holders, facts.threshold)
            .iter()
            .map(|set| self.ed25519_test(&pending, set))
            .collect();
        let echoes = pending.iter().map(|(p, k)| (*p, k.echo())).collect();
        pending.into_iter().map(|(p, k)| (p, k.confirm(&echoes, &tests).unwrap())).collect()
    }

    pub fn ed25519_live(&mut self, name: &str) -> BTreeMap<PartyId, LiveEd25519Key> {
        let pending = self.ed25519_keygen(name);
        self.ed25519_go_live(pending)
    }

    pub fn ed25519_sign_runs(
        &mut self,
        keys: &BTreeMap<PartyId, LiveEd25519Key>,
        among: &Participants,
        path: &str,
        message: &[u8],
    ) -> Vec<Ed25519SignRun> {
        let facts = keys.values().next().unwrap().facts().clone();
        let purpose = Purpose::Ed25519Sign {
            key: facts.key.clone(),
            path: DerivationPath::parse(path).unwrap(),
            subject: ed25519_subject(message),
        };
        let context = self.context(purpose, among, facts.threshold);
        let mut runs = Vec::new();
        for p in among.parties() {
            let claim = self.claim(&context, p);
            runs.push(
                Ed25519SignRun::new(claim, &keys[&p], message.to_vec(), &mut self.rng).unwrap(),
            );
        }
        runs
    }

    pub fn ed25519_sign(
        &mut self,
        keys: &BTreeMap<PartyId, LiveEd25519Key>,
        among: &Participants,
        path: &str,
        message: &[u8],
    ) -> Ed25519Signature {
        let runs = self.ed25519_sign_runs(keys, among, path, message);
        let mut net = Net::new(runs, self.seed());
        net.start();
        net.pump(|_, p| vec![p]);
        assert!(net.ends.is_empty(), "nothing is signed without a permit");
        permit_ed25519(&mut net, message);
        net.pump(|_, p| vec![p]);
        one_signature(net.ends())
    }
}

pub fn permit_ecdsa(net: &mut Net<EcdsaSignRun>, digest: [u8; 32]) {
    let parties: Vec<PartyId> = net.runs.keys().copied().collect();
    for p in parties {
        let run = net.runs.get_mut(&p).unwrap();
        let permit = Authorised::dangerous_assert_committed_and_allowed(
            run.context().id(),
            Hash32::new(digest),
            DEADLINE,
        );
        let result = run.authorise(permit, NOW);
        net.absorb(p, result);
    }
}

pub fn permit_ed25519(net: &mut Net<Ed25519SignRun>, message: &[u8]) {
    let parties: Vec<PartyId> = net.runs.keys().copied().collect();
    for p in parties {
        let run = net.runs.get_mut(&p).unwrap();
        let permit = Authorised::dangerous_assert_committed_and_allowed(
            run.context().id(),
            ed25519_subject(message),
            DEADLINE,
        );
        let result = run.authorise(permit, NOW);
        net.absorb(p, result);
    }
}

/// The one signature that all parties ended with.
pub fn one_signature<T: Copy + PartialEq + std::fmt::Debug>(ends: BTreeMap<PartyId, End<T>>) -> T {
    let all: Vec<T> = ends.into_values().map(End::unwrap).collect();
    assert!(all.windows(2).all(|w| w[0] == w[1]), "{all:?}");
    all[0]
}
