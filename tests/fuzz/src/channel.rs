//! What comes in over a channel's stream before there is a channel.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use casemate_channel::wire::{Answer, Hello, HelloError, Proof};
use casemate_channel::{Expected, Handshake, LocalIdentity, Progress};
use casemate_nsm::{Attest, NsmError, Wanted};
use casemate_proto::manifest::{
    Governance, Hardware, Independence, Limits, Manifest, Measurement, NodeSpec,
};
use casemate_proto::{Hash32, Incarnation, Millis, NodeName, UnixMillis};
use casemate_signer::BootSecret;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "channel_hello", run: channel_hello },
    Target { name: "channel_answer", run: channel_answer },
    Target { name: "channel_proof", run: channel_proof },
    Target { name: "channel_message", run: channel_message },
];

/// Any time: nothing here gets as far as a document's.
const NOW: UnixMillis = UnixMillis(1_795_165_200_000);

/// Two nodes and what each expects: the first dials, the second accepts.
pub struct Ends {
    dialler: LocalIdentity,
    acceptor: LocalIdentity,
    expected: Expected,
}

/// Stands for a security module whose documents nobody believes.
struct Unbelieved;

impl Attest for Unbelieved {
    fn attest(&self, _: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
        Ok(vec![0x84; 64])
    }
}

impl Ends {
    fn new() -> Option<Self> {
        let nodes: Vec<NodeName> = ["alpha", "bravo", "charlie"]
            .into_iter()
            .map(NodeName::new)
            .collect::<Result<_, _>>()
            .ok()?;
        let spec = |name: &NodeName| NodeSpec {
            name: name.clone(),
            region: "eu-west-1".to_owned(),
            pcr3: [3; 48],
        };
        let image = Measurement { pcr0: [4; 48], pcr1: [5; 48], pcr2: [6; 48] };
        let manifest = Manifest {
            version: 1,
            name: "fuzz".to_owned(),
            threshold: 2,
            nodes: nodes.iter().map(spec).collect(),
            measurements: vec![image.clone()],
            governance: Governance { quorum: 1, keys: Vec::new(), loosening_delay: Millis(0) },
            freezers: Vec::new(),
            limits: Limits::default(),
            independence: Independence::None,
            hardware: Hardware::Simulated,
            trust_root: Hash32::new([7; 32]),
            relying_party: None,
            recovery: None,
        };
        let identity = |seed, name: Option<&NodeName>| {
            let secret = BootSecret::generate(&mut ChaCha20Rng::from_seed([seed; 32]));
            let record = secret.record(name?, Vec::new());
            LocalIdentity::new(record, secret.dangerous_channel_secret()).ok()
        };
        Some(Self {
            dialler: identity(1, nodes.first())?,
            acceptor: identity(2, nodes.get(1))?,
            expected: Expected {
                manifest,
                images: BTreeSet::from([image]),
                scope: Hash32::new([0x6e; 32]),
                incarnation: Incarnation(0),
            },
        })
    }

    /// The dialler's handshake and first message, always the same.
    #[must_use]
    pub fn dial(&self) -> Option<(Handshake, Vec<u8>)> {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let (to, expected) = (self.acceptor.node(), self.expected.clone());
        Handshake::dial(&self.dialler, expected, to, &mut rng).ok()
    }

    /// What the acceptor makes of a first message, always the same.
    #[must_use]
    pub fn answer(&self, first: &[u8]) -> Option<Progress> {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let handshake = Handshake::accept(&self.acceptor, self.expected.clone(), &mut rng).ok()?;
        handshake.receive(first, &Unbelieved, NOW).ok()
    }
}

/// Two nodes.
pub static ENDS: LazyLock<Option<Ends>> = LazyLock::new(Ends::new);

/// What decodes has one encoding; an acceptor goes on only with a greeting that means it.
///
/// # Panics
/// If that does not hold.
pub fn channel_hello(data: &[u8]) {
    let hello = Hello::decode(data);
    match &hello {
        Ok(hello) => assert_eq!(hello.encode(), data, "two encodings of one greeting"),
        Err(HelloError::Version { found }) => assert_ne!(*found, 1, "a version that is spoken"),
        Err(HelloError::Malformed(_)) => {}
    }
    let Some(ends) = &*ENDS else { return };
    let Some((_, own)) = ends.dial() else { return };
    let key = own.first_chunk::<32>().copied().unwrap_or_default();
    match ends.answer(&[key.as_slice(), data].concat()) {
        Some(Progress::Continue { .. }) => {
            let means = hello.is_ok_and(|hello| {
                hello.to == *ends.acceptor.node()
                    && hello.from != hello.to
                    && ends.expected.manifest.node(&hello.from).is_some()
                    && hello.scope == ends.expected.scope
                    && hello.incarnation == ends.expected.incarnation
            });
            assert!(means, "an answer to a greeting that means another");
        }
        Some(Progress::Done { .. }) => panic_channel(),
        None => {}
    }
}

/// What decodes has one encoding.
///
/// # Panics
/// If it does not.
pub fn channel_answer(data: &[u8]) {
    if let Ok(answer) = Answer::decode(data) {
        assert_eq!(answer.encode(), data, "two encodings of one answer");
    }
}

/// What decodes has one encoding.
///
/// # Panics
/// If it does not.
pub fn channel_proof(data: &[u8]) {
    if let Ok(proof) = Proof::decode(data) {
        assert_eq!(proof.encode(), data, "two encodings of one proof");
    }
}

/// Bytes from the stream at each of the three places where a side waits: nobody who cannot have a
/// believed document made gets a channel.
///
/// # Panics
/// If that does not hold.
pub fn channel_message(data: &[u8]) {
    let Some(ends) = &*ENDS else { return };
    if let Some(Progress::Done { .. }) = ends.answer(data) {
        panic_channel();
    }
    let Some((dialling, first)) = ends.dial() else { return };
    assert!(dialling.receive(data, &Unbelieved, NOW).is_err(), "a second message");
    if let Some(Progress::Continue { handshake, .. }) = ends.answer(&first) {
        assert!(handshake.receive(data, &Unbelieved, NOW).is_err(), "a third message");
    }
}

/// A channel to a peer that nothing attested.
fn panic_channel() {
    assert!(ENDS.is_none(), "a channel to a peer that nothing attested");
}
