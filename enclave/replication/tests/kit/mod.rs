//! Boots with their replication in one process: real ledger states behind a network that can be
//! cut, slowed, shuffled and corrupted. Time is tokio's, paused.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_ledger::{Effect, EntryBody, State, Verdict};
use casemate_proto::governance::{Change, ChangeEnvelope, NamedSignature, SignedChange};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement,
    NodeSpec,
};
use casemate_proto::{Algorithm, BootId, Millis, NodeName, PublicKey, UnixMillis};
use casemate_replication::{
    AppliedView, CommittedAt, Config, FatalReason, Out, ReadClock, Replication, Start, StartAt,
};
use casemate_sim::{EnclaveSpec, SimHost, SimNsm};
use ed25519_dalek::{Signer, SigningKey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub const START: UnixMillis = UnixMillis(1_795_168_800_000);

/// A cluster that does not run: names, attestation, a genesis.
pub struct World {
    pub host: SimHost,
    pub names: Vec<NodeName>,
    pub nsms: Vec<SimNsm>,
    pub manifest: Manifest,
    pub governor: SigningKey,
    serial: AtomicU64,
}

impl World {
    pub fn new(n: usize, t: u64) -> Self {
        let host = SimHost::new().unwrap();
        let image = [[0x10; 48], [0x11; 48], [0x12; 48]];
        let names: Vec<NodeName> = (0..n)
            .map(|i| NodeName::new(&format!("node-{}", char::from(b'a' + i as u8))).unwrap())
            .collect();
        let nsms: Vec<SimNsm> = (0..n)
            .map(|i| host.start(EnclaveSpec::numbered(i as u32, "eu-west-1", image)))
            .collect();
        let nodes = names
            .iter()
            .zip(&nsms)
            .map(|(name, nsm)| NodeSpec {
                name: name.clone(),
                region: "eu-west-1".to_owned(),
                pcr3: nsm.enclave().pcrs()[3].1,
            })
            .collect();
        let governor = SigningKey::from_bytes(&[9; 32]);
        let key = PublicKey::new(Algorithm::Ed25519, governor.verifying_key().as_bytes()).unwrap();
        let manifest = Manifest {
            version: 1,
            name: "test".to_owned(),
            threshold: t,
            nodes,
            measurements: vec![Measurement { pcr0: image[0], pcr1: image[1], pcr2: image[2] }],
            governance: Governance { quorum: 1, keys: vec![key], loosening_delay: Millis(1_000) },
            freezers: Vec::new(),
            limits: Limits::default(),
            independence: Independence::None,
            hardware: Hardware::Simulated,
            trust_root: Hash32::new(casemate_proto::hash::sha256(host.root_der())),
            relying_party: None,
            recovery: None,
        };
        Self { host, names, nsms, manifest, governor, serial: AtomicU64::new(0) }
    }

    /// A fresh boot of a node, attested for `scope`, with its key.
    pub fn boot(&self, node: usize, scope: &Hash32, at: UnixMillis) -> (BootRecord, SigningKey) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let mut seed = [0x40; 32];
        seed[..8].copy_from_slice(&serial.to_be_bytes());
        let key = SigningKey::from_bytes(&seed);
        let mut record = BootRecord {
            node: self.names[node].clone(),
            key: key.verifying_key().to_bytes(),
            channel_key: seed,
            nonce: seed,
            apply_version: casemate_ledger::APPLY_VERSION,
            evidence: Vec::new(),
        };
        let user_data = record.user_data(scope);
        record.evidence =
            self.nsms[node].attest(Some(user_data.as_bytes()), None, None, at.0).unwrap();
        (record, key)
    }

    pub fn birth_scope(&self) -> Hash32 {
        GenesisRecord::manifest_hash(&self.manifest)
    }

    pub fn genesis(&self) -> GenesisRecord {
        let scope = self.birth_scope();
        let boots = (0..self.names.len()).map(|i| self.boot(i, &scope, START).0).collect();
        GenesisRecord { manifest: self.manifest.clone(), boots, at: START }
    }

    pub fn change(&self, state: &State, at: UnixMillis, change: Change) -> EntryBody {
        let envelope = ChangeEnvelope {
            genesis: state.genesis(),
            incarnation: state.incarnation(),
            predecessor: state.change_head(),
            expires: at.saturating_add(Millis(600_000)),
            change,
        };
        let message = envelope.signing_bytes();
        let signature = NamedSignature {
            credential: PublicKey::new(
                Algorithm::Ed25519,
                self.governor.verifying_key().as_bytes(),
            )
            .unwrap()
            .id(),
            signature: self.governor.sign(&message).to_bytes(),
        };
        EntryBody::Governance(SignedChange { envelope, signatures: vec![signature] })
    }
}

/// A clock that follows tokio's, with an offset.
pub struct SimClock {
    start: Instant,
    offset: AtomicI64,
}

impl SimClock {
    pub fn new(start: Instant) -> Arc<Self> {
        Arc::new(Self { start, offset: AtomicI64::new(0) })
    }
    pub fn shift(&self, millis: i64) {
        self.offset.store(millis, Ordering::Relaxed);
    }
}

impl ReadClock for SimClock {
    fn now(&self) -> UnixMillis {
        let elapsed = self.start.elapsed().as_millis() as u64;
        let now = START.0 + 60_000 + elapsed;
        UnixMillis(now.saturating_add_signed(self.offset.load(Ordering::Relaxed)))
    }
}

/// What a network does to messages.
#[derive(Clone, Debug)]
pub struct Weather {
    pub delay: Duration,
    pub jitter: Duration,
    /// Of a thousand.
    pub lost: u64,
    /// Of a thousand; a flipped bit ends its channel.
    pub flipped: u64,
    /// Whether messages of one pair may pass each other.
    pub reorders: bool,
    /// What a line carries in a millisecond; as much as comes if `None`.
    pub bytes_per_ms: Option<u64>,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(3),
            lost: 0,
            flipped: 0,
            reorders: false,
            bytes_per_ms: None,
        }
    }
}

struct NetState {
    boots: BTreeMap<BootId, Replication>,
    names: BTreeMap<BootId, NodeName>,
    cut: BTreeSet<(BootId, BootId)>,
    weather: Weather,
    seed: u64,
    last: BTreeMap<(BootId, BootId), Instant>,
    pub sent: u64,
    pub largest: usize,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Net(Arc<Mutex<NetState>>);

impl Net {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(NetState {
            boots: BTreeMap::new(),
            names: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            seed: seed | 1,
            last: BTreeMap::new(),
            sent: 0,
            largest: 0,
        })))
    }

    pub fn weather(&self, weather: Weather) {
        self.0.lock().unwrap().weather = weather;
    }

    pub fn sent(&self) -> (u64, usize) {
        let net = self.0.lock().unwrap();
        (net.sent, net.largest)
    }

    pub fn send(&self, from: BootId, to: BootId, bytes: Vec<u8>) {
        let mut net = self.0.lock().unwrap();
        net.sent += 1;
        net.largest = net.largest.max(bytes.len());
        if net.cut.contains(&(from, to)) || !net.boots.contains_key(&to) {
            return;
        }
        let weather = net.weather.clone();
        let mut dice = || {
            net.seed ^= net.seed << 13;
            net.seed ^= net.seed >> 7;
            net.seed ^= net.seed << 17;
            net.seed
        };
        if dice() % 1_000 < weather.lost {
            return;
        }
        if dice() % 1_000 < weather.flipped {
            // a channel's seal is broken by it: the channel closes, and another is made
            drop(net);
            self.bounce(from, to);
            return;
        }
        let jitter = weather.jitter.as_micros() as u64;
        let jitter = if jitter == 0 { 0 } else { dice() % jitter };
        let mut at = Instant::now() + weather.delay + Duration::from_micros(jitter);
        if !weather.reorders {
            let last = net.last.entry((from, to)).or_insert(at);
            at = at.max(*last + Duration::from_micros(1));
            if let Some(rate) = weather.bytes_per_ms {
                // what is before it leaves the line first
                at += Duration::from_micros(bytes.len() as u64 * 1_000 / rate);
            }
            *last = at;
        }
        drop(net);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            let target = this.0.lock().unwrap().boots.get(&to).cloned();
            if let Some(target) = target {
                target.receive(from, &bytes);
            }
        });
    }

    fn bounce(&self, a: BootId, b: BootId) {
        let this = self.clone();
        tokio::spawn(async move {
            for up in [false, true] {
                let (names, boots) = {
                    let net = this.0.lock().unwrap();
                    (net.names.clone(), net.boots.clone())
                };
                for (own, other) in [(a, b), (b, a)] {
                    if let Some(replication) = boots.get(&own) {
                        replication.link(other, names[&other].clone(), up);
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    fn add(&self, boot: BootId, name: NodeName, replication: Replication) {
        let mut net = self.0.lock().unwrap();
        for (other, peer) in &net.boots {
            peer.link(boot, name.clone(), true);
            replication.link(*other, net.names[other].clone(), true);
        }
        net.boots.insert(boot, replication);
        net.names.insert(boot, name);
    }

    pub fn remove(&self, boot: BootId) {
        let mut net = self.0.lock().unwrap();
        if let Some(replication) = net.boots.remove(&boot) {
            replication.stop();
        }
        let name = net.names[&boot].clone();
        for peer in net.boots.values() {
            peer.link(boot, name.clone(), false);
        }
    }

    /// Cuts both ways between two boots, telling both or leaving them in the dark.
    pub fn cut(&self, a: BootId, b: BootId, told: bool) {
        let mut net = self.0.lock().unwrap();
        net.cut.insert((a, b));
        net.cut.insert((b, a));
        if told {
            net.boots[&a].link(b, net.names[&b].clone(), false);
            net.boots[&b].link(a, net.names[&a].clone(), false);
        }
    }

    /// Lets nothing of one boot through to another, which goes on being heard. Nobody is told.
    pub fn deafen(&self, boot: BootId, to: BootId) {
        self.0.lock().unwrap().cut.insert((to, boot));
    }

    pub fn heal(&self) {
        let mut net = self.0.lock().unwrap();
        net.cut.clear();
        for (a, replication) in &net.boots {
            for (b, name) in &net.names {
                if a != b && net.boots.contains_key(b) {
                    replication.link(*b, name.clone(), true);
                }
            }
        }
    }
}

/// What a node's thread would be: applies what is committed to a real ledger.
pub struct Applier {
    pub state: State,
    pub entries: Vec<Hash32>,
    pub verdicts: Vec<Verdict>,
    pub at: Vec<CommittedAt>,
    /// Snapshots taken right after admissions: boot, size, bytes and place.
    pub admitted: Vec<(BootId, u64, Vec<u8>, CommittedAt)>,
    pub fatal: Option<FatalReason>,
    pub mismatches: Vec<(BootId, u64)>,
    pub refused: u64,
}

/// A boot that runs.
pub struct Boot {
    pub index: usize,
    pub name: NodeName,
    pub id: BootId,
    pub replication: Replication,
    pub applier: Arc<Mutex<Applier>>,
    pub clock: Arc<SimClock>,
}

impl Boot {
    pub fn size(&self) -> u64 {
        self.applier.lock().unwrap().state.size()
    }
    pub fn root(&self) -> Hash32 {
        self.applier.lock().unwrap().state.root()
    }
    pub fn fatal(&self) -> Option<FatalReason> {
        self.applier.lock().unwrap().fatal.clone()
    }
    pub fn leads(&self) -> bool {
        self.replication.status().is_leader
    }
    pub fn entries(&self) -> Vec<Hash32> {
        self.applier.lock().unwrap().entries.clone()
    }
}

pub struct Cluster {
    pub world: World,
    pub genesis: GenesisRecord,
    pub net: Net,
    pub start: Instant,
    pub config: Config,
    pub boots: Vec<Boot>,
}

impl Cluster {
    pub async fn born(n: usize, t: u64) -> Self {
        Self::born_with(n, t, |_| {}).await
    }

    pub async fn born_with(n: usize, t: u64, change: impl FnOnce(&mut Config)) -> Self {
        let world = World::new(n, t);
        let genesis = world.genesis();
        let mut config = Config::new(world.manifest.limits.delta);
        change(&mut config);
        let mut cluster = Self {
            world,
            genesis,
            net: Net::new(7),
            start: Instant::now(),
            config,
            boots: Vec::new(),
        };
        for index in 0..n {
            let state = State::birth(&cluster.genesis).unwrap();
            let id = cluster.genesis.boots[index].id();
            cluster.add(index, id, state, StartAt::Genesis).await;
        }
        cluster
    }

    pub async fn add(&mut self, index: usize, id: BootId, state: State, at: StartAt) {
        let name = self.world.names[index].clone();
        let (out, inbox) = mpsc::channel(1_024);
        let first = AppliedView::of(&state);
        let (views, applied) = watch::channel(first);
        let clock = SimClock::new(self.start);
        let replication = Replication::start(Start {
            at,
            genesis: self.genesis.clone(),
            me: id,
            node: name.clone(),
            config: self.config,
            clock: clock.clone(),
            out,
            applied,
        })
        .await
        .unwrap();
        let applier = Arc::new(Mutex::new(Applier {
            state,
            entries: Vec::new(),
            verdicts: Vec::new(),
            at: Vec::new(),
            admitted: Vec::new(),
            fatal: None,
            mismatches: Vec::new(),
            refused: 0,
        }));
        tokio::spawn(run_node(id, inbox, views, Arc::clone(&applier), self.net.clone()));
        self.net.add(id, name.clone(), replication.clone());
        self.boots.push(Boot { index, name, id, replication, applier, clock });
    }

    /// Lets simulated time pass until something holds; fails after a simulated while.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.within(60, what, holds).await;
    }

    pub async fn within(&self, seconds: u64, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !holds(self) {
            if Instant::now() > end {
                self.print();
                panic!("not within {seconds} s: {what}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn print(&self) {
        for boot in &self.boots {
            eprintln!(
                "{}: size {} {:?} members {:?}",
                boot.name,
                boot.size(),
                boot.replication.status(),
                boot.replication.members().len()
            );
        }
    }

    pub fn leader(&self) -> Option<&Boot> {
        let mut leaders: Vec<&Boot> = self.boots.iter().filter(|b| b.leads()).collect();
        leaders.sort_by_key(|b| b.replication.status().term);
        leaders.pop()
    }

    pub async fn led(&self) -> &Boot {
        self.until("a leader with the genesis applied", |c| {
            c.leader().is_some() && c.boots.iter().all(|b| b.size() > 0)
        })
        .await;
        self.leader().unwrap()
    }

    /// Proposes ticks at a boot and lets them be applied by all of `at`.
    pub async fn ticks(&self, from: usize, count: u64, at: &[usize]) {
        let target = at.iter().map(|i| self.boots[*i].size()).max().unwrap() + count;
        let end = Instant::now() + Duration::from_secs(60);
        let mut proposed = Instant::now();
        for _ in 0..count {
            let _ = self.boots[from].replication.propose(EntryBody::Tick, None);
        }
        while at.iter().any(|i| self.boots[*i].size() < target) {
            if Instant::now() > end {
                self.print();
                panic!("ticks were not applied");
            }
            if proposed.elapsed() > Duration::from_secs(4) {
                proposed = Instant::now();
                for _ in self.boots[from].size()..target {
                    let _ = self.boots[from].replication.propose(EntryBody::Tick, None);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everybody in `at` has the same entries and root.
    pub async fn agree(&self, at: &[usize]) {
        self.until("the same size everywhere", |c| {
            at.iter().all(|i| c.boots[*i].size() == c.boots[at[0]].size())
        })
        .await;
        for i in at {
            assert_eq!(self.boots[*i].root(), self.boots[at[0]].root());
            assert_eq!(self.boots[*i].fatal(), None);
        }
    }

    pub fn others(&self, index: usize) -> Vec<usize> {
        (0..self.boots.len()).filter(|i| *i != index).collect()
    }

    pub fn place(&self, id: BootId) -> usize {
        self.boots.iter().position(|b| b.id == id).unwrap()
    }

    /// Cuts one boot from all others.
    pub fn isolate(&self, index: usize, told: bool) {
        for other in self.others(index) {
            self.net.cut(self.boots[index].id, self.boots[other].id, told);
        }
    }
}

async fn run_node(
    me: BootId,
    mut inbox: mpsc::Receiver<Out>,
    views: watch::Sender<AppliedView>,
    applier: Arc<Mutex<Applier>>,
    net: Net,
) {
    while let Some(out) = inbox.recv().await {
        match out {
            Out::Send { to, bytes } => net.send(me, to, bytes),
            Out::Committed { committed, at } => {
                let mut node = applier.lock().unwrap();
                node.entries.push(committed.entry().hash());
                let applied = node.state.apply(&committed).unwrap();
                node.verdicts.push(applied.verdict);
                for effect in &applied.effects {
                    if let Effect::BootAdmitted { boot, .. } = effect {
                        let (size, bytes) = (node.state.size(), node.state.to_snapshot());
                        node.admitted.push((*boot, size, bytes, at.clone()));
                    }
                }
                node.at.push(at);
                let next = views.borrow().next(&node.state);
                drop(node);
                views.send_replace(next);
            }
            Out::RootMismatch { from, size, .. } => {
                applier.lock().unwrap().mismatches.push((from, size));
            }
            Out::Fatal(reason) => applier.lock().unwrap().fatal = Some(reason),
            Out::Appended { .. } => {}
        }
    }
}
