//! What the dice make a history of, and the cluster that it begins with.

use std::collections::BTreeMap;

use casemate_proto::manifest::{
    Governance, Hardware, Independence, Limits, Manifest, Measurement, NodeSpec, RecoveryKeys,
};
use casemate_proto::{Hash32, KeyName, Millis, NodeName, Scheme, hash::sha256};
use casemate_recovery::RecoverySecretKey;
use casemate_replication::FatalReason;
use casemate_sim::{EnclaveSpec, SimHost, SimNsm};

use crate::dice::Dice;
use crate::host::Act;
use crate::people::{COLD, LOG, NOTARY, PAYER, People, Terms};
use crate::reference::Cap;

/// What a history is like.
#[derive(Clone, Debug)]
pub struct Shape {
    pub nodes: usize,
    pub threshold: u64,
    /// Keys that are made, the log's first.
    pub keys: Vec<(&'static str, Scheme)>,
    pub tau: Millis,
    pub delta: Millis,
    pub dead_man: Option<Millis>,
    /// The first policy's, then those that may come later. None is wider than the first.
    pub terms: Vec<Terms>,
    /// What the host does in this history, each with its weight.
    pub acts: Vec<(Act, u64)>,
    /// About how often it does something.
    pub every: u64,
    /// For how long.
    pub lasts: u64,
    /// The machine whose clock may be wrong by more than δ.
    pub liar: usize,
    /// Whether the host does what no cluster survives.
    pub merciless: bool,
    /// What it does to the cluster's birth, if it cares.
    pub birth: Option<BirthPlan>,
    /// When all of its enclaves are lost at once, or seem to be.
    pub recoveries: Vec<RecoveryPlan>,
}

/// A cold recovery.
#[derive(Clone, Debug)]
pub struct RecoveryPlan {
    /// How long after the beginning, or the recovery before.
    pub after: u64,
    /// The originals are paused only, and go on after so long.
    pub paused: Option<u64>,
    /// How many enclaves are started for each node.
    pub sets: usize,
    /// The governors are shown a ledger from some time before.
    pub older: bool,
    /// For how long the certificate is good.
    pub life: u64,
    /// One boot that the certificate names is not given what it waits for.
    pub withheld: bool,
}

impl RecoveryPlan {
    fn of(dice: &mut Dice, merciless: bool) -> Self {
        Self {
            after: dice.between(4_000, 25_000),
            paused: dice.percent(40).then(|| dice.between(1_000, 25_000)),
            sets: dice.between(1, 3) as usize,
            older: dice.percent(35),
            life: dice.between(3_000, 12_000),
            withheld: merciless && dice.percent(30),
        }
    }
}

/// A birth under attack.
#[derive(Clone, Debug)]
pub struct BirthPlan {
    /// For how long the host disturbs it.
    pub lasts: u64,
    /// About how often it does something.
    pub every: u64,
    /// Most enclaves that run for one node at a time.
    pub twins: usize,
    /// Whether it begins with as many for each node, in as many parts that do not hear each other.
    pub parts: bool,
    /// Whether it leaves off before the cluster is asked for anything. A merciless one may not.
    pub leaves_off: bool,
}

impl Shape {
    pub fn of(dice: &mut Dice) -> Self {
        let (nodes, threshold) = match dice.below(20) {
            0 => (5, 3),
            1 => (4, 3),
            2 => (4, 2),
            _ => (3, 2),
        };
        let merciless = dice.percent(35);
        let mut keys = vec![(LOG, Scheme::Ed25519), (NOTARY, Scheme::Ed25519)];
        if dice.percent(25) {
            keys.push((COLD, Scheme::Bip340Secp256k1));
        }
        if dice.percent(5) {
            keys.push((PAYER, Scheme::EcdsaSecp256k1));
        }
        let window = Millis(dice.between(8, 30) * 1_000);
        let first = Terms { name: 1, count: dice.between(2, 9), sum: dice.between(4, 20), window };
        let lower = Terms { name: 1, count: first.count - 1, ..first };
        let renamed = Terms { name: 2, ..first };
        let acts: Vec<(Act, u64)> = Act::ALL
            .iter()
            .filter(|_| dice.percent(60))
            .copied()
            .collect::<Vec<Act>>()
            .into_iter()
            .map(|act| (act, dice.between(1, 6)))
            .collect();
        Self {
            nodes,
            threshold,
            keys,
            tau: Millis(dice.between(4, 9) * 1_000),
            delta: Millis(dice.between(2, 10) * 100),
            dead_man: dice.percent(25).then_some(Millis(20_000)),
            terms: vec![first, lower, renamed],
            acts,
            every: dice.between(300, 2_500),
            lasts: dice.between(20, 70) * 1_000,
            liar: dice.below(16) as usize,
            birth: dice.percent(25).then(|| BirthPlan {
                lasts: dice.between(500, 15_000),
                every: dice.between(50, 1_200),
                twins: dice.between(2, 4) as usize,
                parts: dice.percent(40),
                leaves_off: !merciless || dice.percent(80),
            }),
            recoveries: match dice.below(100) {
                0..15 => vec![RecoveryPlan::of(dice, merciless)],
                15..17 => {
                    vec![RecoveryPlan::of(dice, merciless), RecoveryPlan::of(dice, merciless)]
                }
                _ => Vec::new(),
            },
            merciless,
        }
    }

    /// What may be signed with each key in a window.
    pub fn caps(&self) -> BTreeMap<KeyName, Cap> {
        let widest = self.terms[0];
        let cap = |amount| Cap { window: widest.window, amount };
        [
            // two grants of one key, each with its limit: a limit counts the key's whoever asks
            (NOTARY, cap(widest.count)),
            (COLD, cap(widest.count)),
            (PAYER, cap(widest.sum * 1_000_000)),
        ]
        .into_iter()
        .map(|(name, cap)| (KeyName::new(name).unwrap(), cap))
        .collect()
    }
}

/// What a cluster is to be born of.
pub struct Ground {
    pub names: Vec<NodeName>,
    pub nsms: Vec<SimNsm>,
    pub manifest: Manifest,
}

pub fn ground(shape: &Shape, people: &People) -> Ground {
    let host = SimHost::new().unwrap();
    let image = [[0x10; 48], [0x11; 48], [0x12; 48]];
    let names: Vec<NodeName> = (0..shape.nodes)
        .map(|at| NodeName::new(&format!("node-{}", char::from(b'a' + at as u8))).unwrap())
        .collect();
    let nsms: Vec<SimNsm> = (0..shape.nodes)
        .map(|at| host.start(EnclaveSpec::numbered(at as u32, "eu-west-1", image)))
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
    let manifest = Manifest {
        version: 1,
        name: "model".to_owned(),
        threshold: shape.threshold,
        nodes,
        measurements: vec![Measurement { pcr0: image[0], pcr1: image[1], pcr2: image[2] }],
        governance: Governance {
            quorum: 2,
            keys: people.governors.iter().map(|person| person.public.clone()).collect(),
            loosening_delay: Millis(3_000),
        },
        freezers: people.freezers.iter().map(|person| person.public.clone()).collect(),
        limits: Limits {
            tau: shape.tau,
            delta: shape.delta,
            dead_man: shape.dead_man,
            ..Limits::default()
        },
        independence: Independence::None,
        hardware: Hardware::Simulated,
        trust_root: Hash32::new(sha256(host.root_der())),
        relying_party: None,
        recovery: (!shape.recoveries.is_empty()).then(|| RecoveryKeys {
            keys: people.recovery.iter().map(RecoverySecretKey::public).collect(),
        }),
    };
    Ground { names, nsms, manifest }
}

/// What ends an honest enclave's replication although nothing is broken.
pub const fn is_expected(reason: &FatalReason) -> bool {
    // it was out of reach for longer than the others keep entries
    matches!(reason, FatalReason::FellBehind { .. })
}
