//! The handshake: three messages, of which each side sends what convinces the other.

use casemate_attestation_verify as attestation;
use casemate_nsm::{Attest, Wanted};
use casemate_proto::manifest::{BootRecord, MAX_EVIDENCE, Measurement, NodeSpec};
use casemate_proto::{Millis, NodeName, UnixMillis};
use rand_core::{CryptoRng, RngCore};
use snow::HandshakeState;
use zeroize::Zeroizing;

use crate::noise::{self, TAG};
use crate::wire::{
    Answer, Hello, HelloError, MAX_ANSWER, MAX_HELLO, MAX_PROOF, PROLOGUE, Proof, Side, VERSION,
    user_data,
};
use crate::{AttestedPeer, Channel, Expected, LocalIdentity, Refused};

/// How old the document of a proof may be. It is made within the handshake: what takes longer was
/// held back.
pub const MAX_PROOF_AGE: Millis = Millis(60_000);

/// Bytes of a key in a message, and of one that is sealed.
const KEY: usize = 32;
const SEALED_KEY: usize = KEY + TAG;
/// Most bytes of each message.
const MAX_MESSAGES: [usize; 3] =
    [KEY + MAX_HELLO, KEY + SEALED_KEY + MAX_ANSWER + TAG, SEALED_KEY + MAX_PROOF + TAG];
/// Most bytes of any message of a handshake.
pub const MAX_HANDSHAKE_MESSAGE: usize = KEY + SEALED_KEY + MAX_ANSWER + TAG;

/// A handshake that waits for the peer's next message. It is consumed by each one; an error leaves
/// nothing behind.
#[must_use]
pub struct Handshake {
    state: Box<State>,
}

/// What a message of the peer leads to.
#[must_use]
#[derive(Debug)]
pub enum Progress {
    /// The handshake goes on.
    Continue {
        /// Waits for the next message.
        handshake: Handshake,
        /// To send now.
        send: Vec<u8>,
    },
    /// The peer is attested.
    Done {
        /// The channel to it.
        channel: Channel,
        /// Who it is.
        peer: Box<AttestedPeer>,
        /// To send before any frame. The dialler has it, by which the acceptor knows the dialler.
        send: Option<Vec<u8>>,
    },
}

struct State {
    noise: HandshakeState,
    /// Without evidence.
    boot: BootRecord,
    expected: Expected,
    /// This side's, fresh.
    nonce: [u8; 32],
    stage: Stage,
}

enum Stage {
    /// Waits for the answer of the node that it greeted.
    Dialled(Hello),
    /// Waits for a greeting.
    Accepting,
    /// Waits for the dialler's proof.
    Answered { ours: Hello, theirs: Hello },
}

impl core::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let stage = match self.state.stage {
            Stage::Dialled(_) => "dialled",
            Stage::Accepting => "accepting",
            Stage::Answered { .. } => "answered",
        };
        f.debug_struct("Handshake")
            .field("node", &self.state.boot.node)
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// Begins a handshake with the node `to`; the bytes are the first message.
    ///
    /// # Errors
    /// If `to` is this node or not in the roster.
    pub fn dial<R: CryptoRng + RngCore + ?Sized>(
        identity: &LocalIdentity,
        expected: Expected,
        to: &NodeName,
        rng: &mut R,
    ) -> Result<(Self, Vec<u8>), Refused> {
        if *to == identity.boot.node {
            return Err(Refused::Oneself { node: to.clone() });
        }
        expected.node(to)?;
        let mut state = State::new(Side::Dial, identity, expected, rng)?;
        let ours = state.hello(to);
        let message = state.write(&ours.encode())?;
        state.stage = Stage::Dialled(ours);
        Ok((Self { state: Box::new(state) }, message))
    }

    /// Waits for the greeting of whichever node dials.
    ///
    /// # Errors
    /// If the library refuses its parameters.
    pub fn accept<R: CryptoRng + RngCore + ?Sized>(
        identity: &LocalIdentity,
        expected: Expected,
        rng: &mut R,
    ) -> Result<Self, Refused> {
        let state = State::new(Side::Accept, identity, expected, rng)?;
        Ok(Self { state: Box::new(state) })
    }

    /// The node at the other end, as far as it has said: nothing is proved before the end.
    #[must_use]
    pub fn claimed(&self) -> Option<&NodeName> {
        match &self.state.stage {
            Stage::Dialled(ours) => Some(&ours.to),
            Stage::Accepting => None,
            Stage::Answered { theirs, .. } => Some(&theirs.from),
        }
    }

    /// Takes the peer's next message.
    ///
    /// # Errors
    /// If the message or what it carries is refused, or this boot cannot attest itself. The
    /// handshake is over; nothing is sent.
    pub fn receive(
        self,
        message: &[u8],
        attest: &dyn Attest,
        now: UnixMillis,
    ) -> Result<Progress, Refused> {
        let mut state = self.state;
        match core::mem::replace(&mut state.stage, Stage::Accepting) {
            Stage::Accepting => state.answer(message, attest),
            Stage::Dialled(ours) => state.conclude(&ours, message, attest, now),
            Stage::Answered { ours, theirs } => state.admit(&ours, &theirs, message, now),
        }
    }
}

impl Expected {
    fn node(&self, name: &NodeName) -> Result<&NodeSpec, Refused> {
        self.manifest.node(name).ok_or_else(|| Refused::UnknownNode { node: name.clone() })
    }
}

impl State {
    fn new<R: CryptoRng + RngCore + ?Sized>(
        side: Side,
        identity: &LocalIdentity,
        expected: Expected,
        rng: &mut R,
    ) -> Result<Self, Refused> {
        let mut ephemeral = Zeroizing::new([0; KEY]);
        rng.fill_bytes(ephemeral.as_mut_slice());
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let noise = noise::handshake(side, PROLOGUE, &identity.secret, ephemeral)
            .map_err(|_| Refused::Library { what: "begin" })?;
        Ok(Self { noise, boot: identity.boot.clone(), expected, nonce, stage: Stage::Accepting })
    }

    /// The acceptor's turn, on the first message.
    fn answer(
        mut self: Box<Self>,
        message: &[u8],
        attest: &dyn Attest,
    ) -> Result<Progress, Refused> {
        let payload = self.read(1, message)?;
        let theirs = self.greeting(1, Hello::decode(&payload).map_err(|e| hello_error(1, e))?)?;
        let ours = self.hello(&theirs.from);
        let proof = self.prove(Side::Accept, &ours, &theirs, attest)?;
        let send = self.write(&Answer { hello: ours.clone(), proof }.encode())?;
        self.stage = Stage::Answered { ours, theirs };
        Ok(Progress::Continue { handshake: Handshake { state: self }, send })
    }

    /// The dialler's turn, on the second message.
    fn conclude(
        mut self: Box<Self>,
        ours: &Hello,
        message: &[u8],
        attest: &dyn Attest,
        now: UnixMillis,
    ) -> Result<Progress, Refused> {
        let transcript = self.transcript()?;
        let payload = self.read(2, message)?;
        let Answer { hello, proof } =
            Answer::decode(&payload).map_err(|error| Refused::Malformed { message: 2, error })?;
        let theirs = self.greeting(2, hello)?;
        if theirs.from != ours.to {
            return Err(Refused::OtherNode { dialled: ours.to.clone(), found: theirs.from });
        }
        let peer = self.verify(Side::Accept, ours, &theirs, proof, &transcript, now)?;
        let proof = self.prove(Side::Dial, ours, &theirs, attest)?;
        let send = self.write(&proof.encode())?;
        Ok(Progress::Done { channel: self.channel()?, peer: Box::new(peer), send: Some(send) })
    }

    /// The acceptor's turn, on the third message.
    fn admit(
        mut self: Box<Self>,
        ours: &Hello,
        theirs: &Hello,
        message: &[u8],
        now: UnixMillis,
    ) -> Result<Progress, Refused> {
        let transcript = self.transcript()?;
        let payload = self.read(3, message)?;
        let proof =
            Proof::decode(&payload).map_err(|error| Refused::Malformed { message: 3, error })?;
        let peer = self.verify(Side::Dial, ours, theirs, proof, &transcript, now)?;
        Ok(Progress::Done { channel: self.channel()?, peer: Box::new(peer), send: None })
    }

    /// This side's greeting.
    fn hello(&self, to: &NodeName) -> Hello {
        Hello {
            version: VERSION,
            scope: self.expected.scope,
            incarnation: self.expected.incarnation,
            from: self.boot.node.clone(),
            to: to.clone(),
            nonce: self.nonce,
        }
    }

    /// The peer's greeting, if it means what this side means.
    fn greeting(&self, message: u8, theirs: Hello) -> Result<Hello, Refused> {
        let ours = &self.expected;
        if theirs.version != VERSION {
            return Err(hello_error(message, HelloError::Version { found: theirs.version }));
        }
        if theirs.scope != ours.scope {
            return Err(Refused::Scope { found: theirs.scope, ours: ours.scope });
        }
        if theirs.incarnation != ours.incarnation {
            let (found, ours) = (theirs.incarnation, ours.incarnation);
            return Err(Refused::Incarnation { found, ours });
        }
        if theirs.from == self.boot.node {
            return Err(Refused::Oneself { node: theirs.from });
        }
        ours.node(&theirs.from)?;
        if theirs.to != self.boot.node {
            return Err(Refused::Misrouted { found: theirs.to, ours: self.boot.node.clone() });
        }
        if theirs.nonce == self.nonce {
            return Err(Refused::ReflectedNonce);
        }
        Ok(theirs)
    }

    /// This boot's proof for the maker of `theirs`, as the conversation stands.
    fn prove(
        &self,
        side: Side,
        ours: &Hello,
        theirs: &Hello,
        attest: &dyn Attest,
    ) -> Result<Proof, Refused> {
        let bound = user_data(side, &self.boot, ours, theirs, &self.transcript()?);
        let document = attest.attest(Wanted {
            user_data: Some(bound.as_bytes()),
            nonce: Some(&theirs.nonce),
            public_key: None,
        })?;
        if document.len() > MAX_EVIDENCE {
            return Err(Refused::OwnDocument { len: document.len(), max: MAX_EVIDENCE });
        }
        let BootRecord { key, nonce, apply_version, .. } = self.boot;
        Ok(Proof { key, nonce, apply_version, document })
    }

    /// Who the peer is, if its proof holds. Its boot is put together from the static key that Noise
    /// proved, so that no other key's document fits.
    fn verify(
        &self,
        side: Side,
        ours: &Hello,
        theirs: &Hello,
        proof: Proof,
        transcript: &[u8; 32],
        now: UnixMillis,
    ) -> Result<AttestedPeer, Refused> {
        let node = &theirs.from;
        let Proof { key, nonce, apply_version, document } = proof;
        let channel_key = *self
            .noise
            .get_remote_static()
            .and_then(<[u8]>::first_chunk)
            .ok_or(Refused::Library { what: "name the peer's key" })?;
        let boot = BootRecord {
            node: node.clone(),
            key,
            channel_key,
            nonce,
            apply_version,
            evidence: Vec::new(),
        };
        if channel_key == self.boot.channel_key || key == self.boot.key {
            return Err(Refused::Oneself { node: node.clone() });
        }
        let bound = user_data(side, &boot, theirs, ours, transcript);
        let spec = self.expected.node(node)?;
        let expectations =
            attestation::Expectations::measured_as(self.expected.images.iter().map(pcrs_of))
                .with_pcr(3, attestation::Pcr::new(spec.pcr3))
                .with_region(spec.region.clone())
                .with_nonce(ours.nonce)
                .with_user_data(*bound.as_bytes());
        let manifest = &self.expected.manifest;
        let root = attestation::TrustRoot::from_fingerprint(*manifest.trust_root.as_bytes());
        let at = attestation::At::Now {
            now: attestation::UnixMillis::new(now.0),
            freshness: attestation::Freshness {
                max_age_ms: Some(MAX_PROOF_AGE.0),
                future_tolerance_ms: manifest.limits.delta.0,
            },
        };
        let evidence = attestation::verify(&document, &root, &expectations, at)
            .map_err(|refusal| attestation_error(node, refusal))?;
        let attestation::Measurement { pcr0, pcr1, pcr2 } = evidence.measurement();
        Ok(AttestedPeer {
            boot,
            scope: self.expected.scope,
            measurement: Measurement {
                pcr0: *pcr0.as_bytes(),
                pcr1: *pcr1.as_bytes(),
                pcr2: *pcr2.as_bytes(),
            },
            attested: UnixMillis(evidence.timestamp().get()),
        })
    }

    fn transcript(&self) -> Result<[u8; 32], Refused> {
        self.noise
            .get_handshake_hash()
            .try_into()
            .map_err(|_| Refused::Library { what: "name its transcript" })
    }

    /// Opens the peer's message, whose place in the handshake is `number`.
    fn read(&mut self, number: u8, message: &[u8]) -> Result<Vec<u8>, Refused> {
        let max = usize::from(number)
            .checked_sub(1)
            .and_then(|at| MAX_MESSAGES.get(at))
            .copied()
            .unwrap_or_default();
        if message.len() > max {
            return Err(Refused::Oversized { message: number, len: message.len(), max });
        }
        let mut payload = vec![0; message.len()];
        let len = self.noise.read_message(message, &mut payload).map_err(|error| match error {
            snow::Error::Dh => Refused::WeakKey { message: number },
            _ => Refused::NotAuthentic { message: number },
        })?;
        payload.truncate(len);
        Ok(payload)
    }

    /// This side's next message.
    fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut message = vec![0; MAX_HANDSHAKE_MESSAGE];
        let len = self.noise.write_message(payload, &mut message).map_err(|error| match error {
            // only the acceptor multiplies by a key that it has read and not yet used
            snow::Error::Dh => Refused::WeakKey { message: 1 },
            _ => Refused::Library { what: "write a message" },
        })?;
        message.truncate(len);
        Ok(message)
    }

    fn channel(self: Box<Self>) -> Result<Channel, Refused> {
        let transport = self
            .noise
            .into_stateless_transport_mode()
            .map_err(|_| Refused::Library { what: "end" })?;
        Ok(Channel::new(transport))
    }
}

fn pcrs_of(measurement: &Measurement) -> attestation::Measurement {
    let Measurement { pcr0, pcr1, pcr2 } = measurement;
    let [pcr0, pcr1, pcr2] = [pcr0, pcr1, pcr2].map(|pcr| attestation::Pcr::new(*pcr));
    attestation::Measurement { pcr0, pcr1, pcr2 }
}

fn hello_error(message: u8, error: HelloError) -> Refused {
    match error {
        HelloError::Version { found } => Refused::Version { found, ours: VERSION },
        HelloError::Malformed(error) => Refused::Malformed { message, error },
    }
}

/// What the document binds is said apart from what it is.
fn attestation_error(node: &NodeName, refusal: attestation::Refusal) -> Refused {
    match refusal {
        attestation::Refusal::Unmet(attestation::Unmet::Field {
            field: attestation::BoundField::UserData,
            ..
        }) => Refused::NotBound { node: node.clone() },
        refusal => Refused::Attestation { node: node.clone(), refusal: Box::new(refusal) },
    }
}
