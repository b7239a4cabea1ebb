//! A peer that says whatever a test has it say. It shares no code with the channel but the wire
//! types: Noise is snow's own, and what its documents bind is written out here once more.

use casemate_channel::wire::{Answer, Hello, Proof};
use casemate_channel::{Channel, Handshake, Progress, Refused};
use casemate_nsm::{Attest, Wanted};
use casemate_proto::hash::tagged_hash;
use casemate_proto::manifest::BootRecord;
use casemate_proto::{Hash32, Incarnation, NodeName};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore as _;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState, TransportState};

use super::{Party, boot, name, nsm, rng};

/// What a document binds.
#[derive(Clone, Debug)]
pub struct Bound {
    pub scope: Hash32,
    pub incarnation: u64,
    pub side: &'static str,
    pub own: NodeName,
    pub other: NodeName,
    pub boot: [u8; 32],
    pub boot_data: [u8; 32],
    pub dial_nonce: [u8; 32],
    pub accept_nonce: [u8; 32],
    pub transcript: [u8; 32],
}

impl Bound {
    pub fn user_data(&self) -> Hash32 {
        tagged_hash(
            "casemate/channel/v1",
            &[
                self.scope.as_bytes(),
                &self.incarnation.to_be_bytes(),
                self.side.as_bytes(),
                self.own.as_str().as_bytes(),
                self.other.as_str().as_bytes(),
                &self.boot,
                &self.boot_data,
                &self.dial_nonce,
                &self.accept_nonce,
                &self.transcript,
            ],
        )
    }
}

/// How a forger departs from the truth: by default, not at all.
pub struct Forgery<'a> {
    /// The node that it is, as which it is attested and greets.
    pub number: usize,
    /// Gives the documents.
    pub attest: &'a dyn Attest,
    /// Changes its greeting, the victim's beside it where it was seen.
    pub hello: &'a dyn Fn(&mut Hello),
    /// Changes what its document binds.
    pub bound: &'a dyn Fn(&mut Bound),
    /// Changes the nonce that its document bears.
    pub nonce: &'a dyn Fn(&mut [u8; 32]),
    /// Changes its proof.
    pub proof: &'a dyn Fn(&mut Proof),
}

pub fn truthful(number: usize) -> Forgery<'static> {
    Forgery {
        number,
        attest: nsm(number),
        hello: &|_| {},
        bound: &|_| {},
        nonce: &|_| {},
        proof: &|_| {},
    }
}

/// A dialler or acceptor in the middle of a handshake.
pub struct Forger<'a> {
    forgery: Forgery<'a>,
    pub noise: HandshakeState,
    record: BootRecord,
    pub ours: Hello,
}

impl<'a> Forger<'a> {
    fn new(forgery: Forgery<'a>, victim: &Party<'_>, dials: bool) -> Self {
        let secret = boot(forgery.number, u8::try_from(forgery.number).unwrap() + 1).1;
        Self::with_key(forgery, victim, dials, &secret)
    }

    /// One that shows this static key, whatever its proof says.
    fn with_key(forgery: Forgery<'a>, victim: &Party<'_>, dials: bool, secret: &[u8; 32]) -> Self {
        let number = forgery.number;
        let (record, _) = boot(number, u8::try_from(number).unwrap() + 1);
        let mut ours = Hello {
            version: 1,
            scope: victim.expected.scope,
            incarnation: victim.expected.incarnation,
            from: record.node.clone(),
            to: victim.identity.node().clone(),
            nonce: [0x77; 32],
        };
        (forgery.hello)(&mut ours);
        let noise = snows_own(dials, secret, 77);
        Self { forgery, noise, record, ours }
    }

    /// Its first message, as a dialler of this victim.
    pub fn dial(forgery: Forgery<'a>, victim: &Party<'_>) -> (Self, Vec<u8>) {
        let mut forger = Self::new(forgery, victim, true);
        let hello = forger.ours.encode();
        let message = write(&mut forger.noise, &hello);
        (forger, message)
    }

    /// The victim's answer.
    pub fn read_answer(&mut self, message: &[u8]) -> Answer {
        Answer::decode(&read(&mut self.noise, message)).unwrap()
    }

    /// Its last message as a dialler.
    pub fn prove(&mut self, theirs: &Hello) -> Vec<u8> {
        let proof = self.proof("dial", theirs).encode();
        write(&mut self.noise, &proof)
    }

    /// Its message as an acceptor, on the victim's first.
    pub fn answer(forgery: Forgery<'a>, victim: &Party<'_>, message: &[u8]) -> (Self, Vec<u8>) {
        let mut forger = Self::new(forgery, victim, false);
        let message = forger.reply(message);
        (forger, message)
    }

    /// An acceptor that shows this static key, whatever its proof says.
    pub fn begin(forgery: Forgery<'a>, victim: &Party<'_>, secret: &[u8; 32]) -> Self {
        Self::with_key(forgery, victim, false, secret)
    }

    /// Its message as an acceptor.
    pub fn reply(&mut self, message: &[u8]) -> Vec<u8> {
        let theirs = Hello::decode(&read(&mut self.noise, message)).unwrap();
        let proof = self.proof("accept", &theirs);
        let answer = Answer { hello: self.ours.clone(), proof }.encode();
        write(&mut self.noise, &answer)
    }

    /// The same, with its documents from elsewhere.
    pub fn attested_by<'b>(self, attest: &'b dyn Attest) -> Forger<'b>
    where
        'a: 'b,
    {
        let Self { forgery, noise, record, ours } = self;
        Forger { forgery: Forgery { attest, ..forgery }, noise, record, ours }
    }

    fn proof(&self, side: &'static str, theirs: &Hello) -> Proof {
        let (ours, record) = (&self.ours, &self.record);
        let (dial, accept) = if side == "dial" { (ours, theirs) } else { (theirs, ours) };
        let mut bound = Bound {
            scope: theirs.scope,
            incarnation: theirs.incarnation.0,
            side,
            own: record.node.clone(),
            other: theirs.from.clone(),
            boot: *record.id().as_bytes(),
            boot_data: *record.user_data(&theirs.scope).as_bytes(),
            dial_nonce: dial.nonce,
            accept_nonce: accept.nonce,
            transcript: self.noise.get_handshake_hash().try_into().unwrap(),
        };
        (self.forgery.bound)(&mut bound);
        let mut nonce = theirs.nonce;
        (self.forgery.nonce)(&mut nonce);
        let user_data = bound.user_data();
        let wanted =
            Wanted { user_data: Some(user_data.as_bytes()), nonce: Some(&nonce), public_key: None };
        let mut proof = Proof {
            key: record.key,
            nonce: record.nonce,
            apply_version: record.apply_version,
            document: self.forgery.attest.attest(wanted).unwrap(),
        };
        (self.forgery.proof)(&mut proof);
        proof
    }

    /// Its transport, once the handshake is over.
    pub fn transport(self) -> TransportState {
        self.noise.into_transport_mode().unwrap()
    }
}

/// A forger dials a victim: what the victim makes of it, and the forger's transport.
pub fn dial(
    forgery: Forgery<'_>,
    victim: &Party<'_>,
) -> Result<(TransportState, Channel), Refused> {
    let (mut forger, first) = Forger::dial(forgery, victim);
    let Progress::Continue { handshake, send } = victim.receive(victim.accept(), &first)? else {
        panic!("a channel after one message");
    };
    let theirs = forger.read_answer(&send).hello;
    let third = forger.prove(&theirs);
    match victim.receive(handshake, &third)? {
        Progress::Done { channel, .. } => Ok((forger.transport(), channel)),
        Progress::Continue { .. } => panic!("a fourth message"),
    }
}

/// A victim dials a node and reaches a forger.
pub fn accept(
    forgery: Forgery<'_>,
    victim: &Party<'_>,
    to: &str,
) -> Result<(TransportState, Channel), Refused> {
    let (dialling, first) = victim.dial(to)?;
    let (mut forger, second) = Forger::answer(forgery, victim, &first);
    match victim.receive(dialling, &second)? {
        Progress::Done { channel, send, .. } => {
            read(&mut forger.noise, &send.unwrap());
            Ok((forger.transport(), channel))
        }
        Progress::Continue { .. } => panic!("a third message"),
    }
}

/// A greeting of the first node to the second.
pub fn hello() -> Hello {
    Hello {
        version: 1,
        scope: Hash32::new([0x6e; 32]),
        incarnation: Incarnation(0),
        from: name("alpha"),
        to: name("bravo"),
        nonce: [0x77; 32],
    }
}

/// An acceptor's answer to a first message that carries these bytes.
pub fn greet(victim: &Party<'_>, payload: &[u8]) -> Result<(Handshake, Vec<u8>), Refused> {
    let mut noise = snows_own(true, &[5; 32], 78);
    match victim.receive(victim.accept(), &write(&mut noise, payload))? {
        Progress::Continue { handshake, send } => Ok((handshake, send)),
        Progress::Done { .. } => panic!("a channel after one message"),
    }
}

pub fn read(noise: &mut HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; message.len()];
    let len = noise.read_message(message, &mut payload).unwrap();
    payload.truncate(len);
    payload
}

pub fn write(noise: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; payload.len() + 200];
    let len = noise.write_message(payload, &mut message).unwrap();
    message.truncate(len);
    message
}

/// A handshake by snow's own functions.
pub fn snows_own(dials: bool, secret: &[u8], seed: u8) -> HandshakeState {
    let parameters = "Noise_XX_25519_ChaChaPoly_SHA256".parse().unwrap();
    let builder = Builder::with_resolver(parameters, Box::new(SnowsOwn(seed)))
        .prologue(b"casemate/channel/v1")
        .unwrap()
        .local_private_key(secret)
        .unwrap();
    if dials { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
}

/// snow's own functions with a generator from a seed.
struct SnowsOwn(u8);

struct Seeded(ChaCha20Rng);

impl Random for Seeded {
    fn try_fill_bytes(&mut self, wanted: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(wanted);
        Ok(())
    }
}

impl CryptoResolver for SnowsOwn {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded(rng(self.0))))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}
