//! An in-memory network with a seeded scheduler, and a cluster of parties on it.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;

use casemate_proto::{BootId, DerivationPath, GenesisId, Hash32, Incarnation, KeyName, UnixMillis};
use casemate_threshold::{
    Authorised, Claim, EcdsaKeygenRun, EcdsaSignRun, EcdsaSignature, KeyEpoch, KeyRef,
    LiveBip340Key, LiveEcdsaKey, LiveEd25519Key, LiveKey, Outgoing, Participant, Participants,
    PartyId, PendingEcdsaKey, PendingEd25519Key, PendingKey, Purpose, Run, RunContext, RunError,
    RunRegistry, RunSpec, Step, TestSignature, TriplePair, TripleRun, covering_subsets,
    frost::{FrostKeygen, FrostPublic, FrostRepair, FrostShare, FrostSign, FrostSignature, Suite},
    run::Driven,
};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

pub type Pending<S> = PendingKey<FrostShare<S>>;
pub type Live<S> = LiveKey<FrostShare<S>>;
pub type KeygenRun<S> = Driven<FrostKeygen<S>>;
pub type RepairRun<S> = Driven<FrostRepair<S>>;
pub type SignRun<S> = Driven<FrostSign<S>>;

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
    pub genesis: GenesisId,
    pub incarnation: Incarnation,
}

impl World {
    pub fn new(n: u16, t: u16, seed: u64) -> Self {
        let all = Participants::new((0..n).map(|n| participant(n, 0)).collect()).unwrap();
        let registries =
            all.as_slice().iter().map(|p| (p.party, RunRegistry::new(p.party, p.boot))).collect();
        let rng = ChaCha20Rng::seed_from_u64(seed);
        let (genesis, incarnation) = (GenesisId::new([7; 32]), Incarnation(0));
        Self { all, t, registries, index: 0, rng, genesis, incarnation }
    }

    /// The same world, of another cluster with boots of its own.
    pub fn belongs_to(&mut self, genesis: GenesisId, all: Participants) {
        self.registries =
            all.as_slice().iter().map(|p| (p.party, RunRegistry::new(p.party, p.boot))).collect();
        (self.genesis, self.all) = (genesis, all);
    }

    /// A later incarnation of it, with other boots.
    pub fn recovered(&mut self, incarnation: Incarnation, all: Participants) {
        self.belongs_to(self.genesis, all);
        self.incarnation = incarnation;
    }

    pub fn context(&mut self, purpose: Purpose, among: &Participants, t: u16) -> RunContext {
        self.index += 1;
        RunContext::new(RunSpec {
            genesis: self.genesis,
            incarnation: self.incarnation,
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

    pub fn frost_keygen<S: Purposes>(&mut self, name: &str) -> BTreeMap<PartyId, Pending<S>> {
        let all = self.all.clone();
        let context = self.context(S::keygen(key_ref(name, 0)), &all, self.t);
        let mut runs = Vec::new();
        for p in all.parties() {
            let mut contribution = [0; 32];
            self.rng.fill_bytes(&mut contribution);
            let claim = self.claim(&context, p);
            runs.push(KeygenRun::<S>::generate(claim, contribution, &mut self.rng).unwrap());
        }
        run_all(runs, self.seed())
    }

    pub fn frost_test<S: Purposes>(
        &mut self,
        pending: &BTreeMap<PartyId, Pending<S>>,
        among: &Participants,
    ) -> TestSignature {
        let facts = pending.values().next().unwrap().facts().clone();
        let context = self.context(S::test(facts.key.clone()), among, facts.threshold);
        let mut runs = Vec::new();
        for p in among.parties() {
            let claim = self.claim(&context, p);
            runs.push(SignRun::<S>::test(claim, &pending[&p], &mut self.rng).unwrap());
        }
        let signatures = run_all(runs, self.seed());
        TestSignature {
            signers: among.clone(),
            signature: signatures.values().next().unwrap().bytes,
        }
    }

    pub fn frost_go_live<S: Purposes>(
        &mut self,
        pending: BTreeMap<PartyId, Pending<S>>,
    ) -> BTreeMap<PartyId, Live<S>> {
        let facts = pending.values().next().unwrap().facts().clone();
        let tests: Vec<TestSignature> = covering_subsets(&facts.holders, facts.threshold)
            .iter()
            .map(|set| self.frost_test(&pending, set))
            .collect();
        let echoes = pending.iter().map(|(p, k)| (*p, k.echo())).collect();
        pending.into_iter().map(|(p, k)| (p, k.confirm(&echoes, &tests).unwrap())).collect()
    }

    pub fn frost_live<S: Purposes>(&mut self, name: &str) -> BTreeMap<PartyId, Live<S>> {
        let pending = self.frost_keygen(name);
        self.frost_go_live(pending)
    }

    pub fn frost_refresh<S: Purposes>(
        &mut self,
        keys: &BTreeMap<PartyId, Live<S>>,
    ) -> BTreeMap<PartyId, Pending<S>> {
        let facts = keys.values().next().unwrap().facts().clone();
        let next = key_ref(facts.key.name.as_str(), facts.key.epoch.0 + 1);
        let context = self.context(S::refresh(next), &facts.holders, facts.threshold);
        let mut runs = Vec::new();
        for (p, key) in keys {
            let claim = self.claim(&context, *p);
            runs.push(KeygenRun::<S>::refresh(claim, key, &mut self.rng).unwrap());
        }
        run_all(runs, self.seed())
    }

    /// The runs that give each of `lost` its share in a new boot, and the new epoch's holders.
    pub fn frost_repair_runs<S: Purposes>(
        &mut self,
        keys: &BTreeMap<PartyId, Live<S>>,
        lost: &[u16],
    ) -> (Participants, Vec<RepairRun<S>>) {
        let facts = keys.values().next().unwrap().facts().clone();
        let key = keys.values().next().unwrap().public_key();
        let known = FrostPublic {
            public_key: key.try_into().unwrap_or_else(|_| panic!("a key of another length")),
            chain_code: facts.chain_code,
        };
        let new_boots: Vec<Participant> = lost.iter().map(|p| participant(*p, 9)).collect();
        let new = |party| new_boots.iter().find(|new| new.party == party).copied();
        let list = facts.holders.as_slice().iter();
        let list = list.map(|p| new(p.party).unwrap_or(*p)).collect();
        let holders = Participants::new(list).unwrap();
        for new in &new_boots {
            self.registries.insert(new.party, RunRegistry::new(new.party, new.boot));
        }
        let next = key_ref(facts.key.name.as_str(), facts.key.epoch.0 + 1);
        let lost = new_boots.iter().map(|new| new.party).collect();
        let context = self.context(S::repair(next, lost), &holders, facts.threshold);
        let mut runs = Vec::new();
        for p in holders.parties() {
            let claim = self.claim(&context, p);
            let old = keys.get(&p).filter(|_| new(p).is_none());
            runs.push(RepairRun::<S>::new(claim, known.clone(), old, &mut self.rng).unwrap());
        }
        (holders, runs)
    }

    pub fn frost_sign_runs<S: Purposes>(
        &mut self,
        keys: &BTreeMap<PartyId, Live<S>>,
        among: &Participants,
        path: &str,
        message: &[u8],
    ) -> Vec<SignRun<S>> {
        let facts = keys.values().next().unwrap().facts().clone();
        let path = DerivationPath::parse(path).unwrap();
        let purpose = S::sign(facts.key.clone(), path, S::subject(message));
        let context = self.context(purpose, among, facts.threshold);
        let mut runs = Vec::new();
        for p in among.parties() {
            let claim = self.claim(&context, p);
            let message = message.to_vec();
            runs.push(SignRun::<S>::new(claim, &keys[&p], message, &mut self.rng).unwrap());
        }
        runs
    }

    pub fn frost_sign<S: Purposes>(
        &mut self,
        keys: &BTreeMap<PartyId, Live<S>>,
        among: &Participants,
        path: &str,
        message: &[u8],
    ) -> FrostSignature<S::PublicKey> {
        let runs = self.frost_sign_runs(keys, among, path, message);
        let mut net = Net::new(runs, self.seed());
        net.start();
        net.pump(|_, p| vec![p]);
        assert!(net.ends.is_empty(), "nothing is signed without a permit");
        permit_frost(&mut net, message);
        net.pump(|_, p| vec![p]);
        one_signature(net.ends())
    }

    pub fn ed25519_keygen(&mut self, name: &str) -> BTreeMap<PartyId, PendingEd25519Key> {
        self.frost_keygen(name)
    }

    pub fn ed25519_live(&mut self, name: &str) -> BTreeMap<PartyId, LiveEd25519Key> {
        self.frost_live(name)
    }

    pub fn bip340_live(&mut self, name: &str) -> BTreeMap<PartyId, LiveBip340Key> {
        self.frost_live(name)
    }
}

/// The purposes of a FROST scheme's runs.
pub trait Purposes: Suite {
    fn keygen(key: KeyRef) -> Purpose;
    fn refresh(key: KeyRef) -> Purpose;
    fn repair(key: KeyRef, lost: Vec<PartyId>) -> Purpose;
    fn sign(key: KeyRef, path: DerivationPath, subject: Hash32) -> Purpose;
    fn test(key: KeyRef) -> Purpose;
}

impl Purposes for Ed25519Sha512 {
    fn keygen(key: KeyRef) -> Purpose {
        Purpose::Ed25519Keygen { key }
    }
    fn refresh(key: KeyRef) -> Purpose {
        Purpose::Ed25519Refresh { key }
    }
    fn repair(key: KeyRef, lost: Vec<PartyId>) -> Purpose {
        Purpose::Ed25519Repair { key, lost }
    }
    fn sign(key: KeyRef, path: DerivationPath, subject: Hash32) -> Purpose {
        Purpose::Ed25519Sign { key, path, subject }
    }
    fn test(key: KeyRef) -> Purpose {
        Purpose::Ed25519Test { key }
    }
}

impl Purposes for Secp256K1Sha256TR {
    fn keygen(key: KeyRef) -> Purpose {
        Purpose::Bip340Keygen { key }
    }
    fn refresh(key: KeyRef) -> Purpose {
        Purpose::Bip340Refresh { key }
    }
    fn repair(key: KeyRef, lost: Vec<PartyId>) -> Purpose {
        Purpose::Bip340Repair { key, lost }
    }
    fn sign(key: KeyRef, path: DerivationPath, subject: Hash32) -> Purpose {
        Purpose::Bip340Sign { key, path, subject }
    }
    fn test(key: KeyRef) -> Purpose {
        Purpose::Bip340Test { key }
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

pub fn permit_frost<S: Suite>(net: &mut Net<SignRun<S>>, message: &[u8]) {
    let parties: Vec<PartyId> = net.runs.keys().copied().collect();
    for p in parties {
        let run = net.runs.get_mut(&p).unwrap();
        let permit = Authorised::dangerous_assert_committed_and_allowed(
            run.context().id(),
            S::subject(message),
            DEADLINE,
        );
        let result = run.authorise(permit, NOW);
        net.absorb(p, result);
    }
}

/// The one signature that all parties ended with.
pub fn one_signature<T: Clone + PartialEq + std::fmt::Debug>(ends: BTreeMap<PartyId, End<T>>) -> T {
    let all: Vec<T> = ends.into_values().map(End::unwrap).collect();
    assert!(all.windows(2).all(|w| w[0] == w[1]), "{all:?}");
    all[0].clone()
}
