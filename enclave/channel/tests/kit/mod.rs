//! A cluster of three nodes on one simulated platform, and a way to run handshakes between them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod forger;

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex};

use casemate_attestation_verify::{Refusal, Unmet};
use casemate_channel::{
    AttestedPeer, Channel, Expected, Handshake, LocalIdentity, Progress, Refused,
};
use casemate_nsm::{Attest, NsmError, Wanted};
use casemate_proto::manifest::{
    BootRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement, NodeSpec,
};
use casemate_proto::{Algorithm, Hash32, Incarnation, Millis, NodeName, PublicKey, UnixMillis};
use casemate_sim::{ClockedNsm, EnclaveSpec, SimHost};
use curve25519_dalek::montgomery::MontgomeryPoint;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use zeroize::Zeroizing;

/// 2026-11-20T09:00:00Z.
pub const NOW: UnixMillis = UnixMillis(1_795_165_200_000);
/// PCR0, PCR1 and PCR2 of the one image.
pub const IMAGE: [[u8; 48]; 3] = [[0x10; 48], [0x11; 48], [0x12; 48]];
const NODES: [(&str, &str); 3] =
    [("alpha", "us-east-1"), ("bravo", "eu-west-1"), ("charlie", "ap-southeast-1")];

/// Stands for AWS. Its key is made once: that is the slow part.
pub static HOST: LazyLock<SimHost> = LazyLock::new(|| SimHost::new().unwrap());
/// The security modules of the nodes' enclaves; their certificates are made once.
static NSMS: LazyLock<Vec<ClockedNsm>> =
    LazyLock::new(|| (0..3).map(|number| nsm_of(&HOST, enclave(number), NOW)).collect());

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// The enclave of the `number`th node.
pub fn enclave(number: usize) -> EnclaveSpec {
    EnclaveSpec::numbered(u32::try_from(number).unwrap(), NODES[number].1, IMAGE)
}

pub fn nsm_of(host: &SimHost, enclave: EnclaveSpec, at: UnixMillis) -> ClockedNsm {
    host.start(enclave).with_clock(move || at.0)
}

/// The platform's module of the `number`th node.
pub fn nsm(number: usize) -> &'static dyn Attest {
    &NSMS[number]
}

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub fn measurement([pcr0, pcr1, pcr2]: [[u8; 48]; 3]) -> Measurement {
    Measurement { pcr0, pcr1, pcr2 }
}

pub fn manifest() -> Manifest {
    let governor = PublicKey::new(Algorithm::Ed25519, &{
        use curve25519_dalek::constants::ED25519_BASEPOINT_COMPRESSED;
        ED25519_BASEPOINT_COMPRESSED.to_bytes()
    });
    let manifest = Manifest {
        version: 1,
        name: "channels".to_owned(),
        threshold: 2,
        nodes: (0..3)
            .map(|number| NodeSpec {
                name: name(NODES[number].0),
                region: NODES[number].1.to_owned(),
                pcr3: enclave(number).pcrs()[3].1,
            })
            .collect(),
        measurements: vec![measurement(IMAGE)],
        governance: Governance {
            quorum: 1,
            keys: vec![governor.unwrap()],
            loosening_delay: Millis(0),
        },
        freezers: Vec::new(),
        limits: Limits::default(),
        independence: Independence::Regions,
        hardware: Hardware::Simulated,
        trust_root: Hash32::new(casemate_proto::hash::sha256(HOST.root_der())),
        relying_party: None,
        recovery: None,
    };
    manifest.check().unwrap();
    manifest
}

/// What every node of the cluster expects.
pub fn expected() -> Expected {
    Expected {
        images: BTreeSet::from([measurement(IMAGE)]),
        scope: Hash32::new([0x6e; 32]),
        incarnation: Incarnation(0),
        manifest: manifest(),
    }
}

/// A boot's record and its channel secret.
pub fn boot(number: usize, seed: u8) -> (BootRecord, Zeroizing<[u8; 32]>) {
    let mut rng = rng(seed);
    let mut draw = || {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    let (key, secret, nonce) = (draw(), Zeroizing::new(draw()), draw());
    let record = BootRecord {
        node: name(NODES[number].0),
        key,
        channel_key: MontgomeryPoint::mul_base_clamped(*secret).to_bytes(),
        nonce,
        apply_version: 1,
        evidence: Vec::new(),
    };
    (record, secret)
}

pub fn identity(number: usize) -> LocalIdentity {
    let (record, secret) = boot(number, u8::try_from(number).unwrap() + 1);
    LocalIdentity::new(record, secret).unwrap()
}

/// One side of a handshake: who it is, what it expects, what attests it, its clock.
pub struct Party<'a> {
    pub identity: LocalIdentity,
    pub expected: Expected,
    pub attest: &'a dyn Attest,
    pub now: UnixMillis,
    pub seed: u8,
}

impl Party<'static> {
    /// An honest node.
    pub fn honest(number: usize) -> Self {
        Self {
            identity: identity(number),
            expected: expected(),
            attest: nsm(number),
            now: NOW,
            seed: 100 + u8::try_from(number).unwrap(),
        }
    }
}

impl<'a> Party<'a> {
    pub fn attested_by(self, attest: &'a dyn Attest) -> Self {
        Self { attest, ..self }
    }

    pub fn dial(&self, to: &str) -> Result<(Handshake, Vec<u8>), Refused> {
        Handshake::dial(&self.identity, self.expected.clone(), &name(to), &mut rng(self.seed))
    }

    pub fn accept(&self) -> Handshake {
        Handshake::accept(&self.identity, self.expected.clone(), &mut rng(self.seed)).unwrap()
    }

    pub fn receive(&self, handshake: Handshake, message: &[u8]) -> Result<Progress, Refused> {
        handshake.receive(message, self.attest, self.now)
    }
}

/// What came of a handshake at each side that reached an end.
#[derive(Debug)]
pub struct Both {
    pub dialler: Result<(Channel, AttestedPeer), Refused>,
    /// `None`: the dialler sent it nothing more.
    pub acceptor: Option<Result<(Channel, AttestedPeer), Refused>>,
}

/// Runs a handshake; every message may be changed on the way.
pub fn run(
    dialler: &Party<'_>,
    to: &str,
    acceptor: &Party<'_>,
    mut relay: impl FnMut(u8, &mut Vec<u8>),
) -> Both {
    let (dialling, mut first) = match dialler.dial(to) {
        Ok(begun) => begun,
        Err(refused) => return Both { dialler: Err(refused), acceptor: None },
    };
    relay(1, &mut first);
    let (answering, mut second) = match acceptor.receive(acceptor.accept(), &first) {
        Ok(Progress::Continue { handshake, send }) => (handshake, send),
        Ok(Progress::Done { .. }) => panic!("a channel after one message"),
        Err(refused) => {
            return Both { dialler: Err(gone()), acceptor: Some(Err(refused)) };
        }
    };
    relay(2, &mut second);
    let (dialled, mut third) = match dialler.receive(dialling, &second) {
        Ok(Progress::Done { channel, peer, send }) => ((channel, *peer), send.unwrap()),
        Ok(Progress::Continue { .. }) => panic!("a fourth message"),
        Err(refused) => return Both { dialler: Err(refused), acceptor: None },
    };
    relay(3, &mut third);
    let admitted = match acceptor.receive(answering, &third) {
        Ok(Progress::Done { channel, peer, send: None }) => Ok((channel, *peer)),
        Ok(_) => panic!("the acceptor has nothing more to send"),
        Err(refused) => Err(refused),
    };
    Both { dialler: Ok(dialled), acceptor: Some(admitted) }
}

/// What a dialler is left with whose peer closed the stream.
fn gone() -> Refused {
    Refused::Library { what: "go on: the acceptor has closed the stream" }
}

/// A handshake that nobody disturbs.
pub fn undisturbed(dialler: &Party<'_>, to: &str, acceptor: &Party<'_>) -> Both {
    run(dialler, to, acceptor, |_, _| {})
}

/// A channel between two honest nodes: the dialler's end, the acceptor's end.
pub fn pair() -> (Channel, Channel) {
    let both = undisturbed(&Party::honest(0), "bravo", &Party::honest(1));
    (both.dialler.unwrap().0, both.acceptor.unwrap().unwrap().0)
}

impl Both {
    /// Why the acceptor refused.
    #[track_caller]
    pub fn acceptor_refused(self) -> Refused {
        self.acceptor.expect("the acceptor was asked").expect_err("the acceptor refuses")
    }

    /// Why the dialler refused.
    #[track_caller]
    pub fn dialler_refused(self) -> Refused {
        self.dialler.expect_err("the dialler refuses")
    }
}

/// The refusal of a document that is genuine, and of which node.
#[track_caller]
pub fn unmet(refused: Refused) -> (NodeName, Unmet) {
    match refused {
        Refused::Attestation { node, refusal } => match *refusal {
            Refusal::Unmet(unmet) => (node, unmet),
            other => panic!("not for what it says: {other}"),
        },
        other => panic!("not for its attestation: {other}"),
    }
}

/// Keeps the documents that a module makes.
pub struct Recorder<'a> {
    module: &'a dyn Attest,
    documents: Mutex<Vec<Vec<u8>>>,
}

impl<'a> Recorder<'a> {
    pub fn of(module: &'a dyn Attest) -> Self {
        Self { module, documents: Mutex::default() }
    }

    pub fn last(&self) -> Vec<u8> {
        self.documents.lock().unwrap().last().unwrap().clone()
    }
}

impl Attest for Recorder<'_> {
    fn attest(&self, wanted: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
        let document = self.module.attest(wanted)?;
        self.documents.lock().unwrap().push(document.clone());
        Ok(document)
    }
}

/// Gives a document from before, whatever is asked.
pub struct Replay(pub Vec<u8>);

impl Attest for Replay {
    fn attest(&self, _: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
        Ok(self.0.clone())
    }
}

/// A module that does not serve.
pub struct Failing;

impl Attest for Failing {
    fn attest(&self, _: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
        Err(NsmError::Failed { what: "attest", reason: "internal error".to_owned() })
    }
}
