//! What a handshake's messages carry, in strict CBOR, and what its documents bind.

use casemate_proto::cbor::{self, CborError};
use casemate_proto::hash::tagged_hash;
use casemate_proto::manifest::{BootRecord, MAX_EVIDENCE};
use casemate_proto::{Hash32, Incarnation, NodeName};
use minicbor::{Decode, Encode};

/// The version of this protocol.
pub const VERSION: u64 = 1;
/// Noise's prologue: bytes that both sides must agree on before the first message.
pub const PROLOGUE: &[u8] = b"casemate/channel/v1";
/// Most bytes of an encoded [`Hello`].
pub const MAX_HELLO: usize = 256;
/// Most bytes of an encoded [`Proof`].
pub const MAX_PROOF: usize = MAX_EVIDENCE + 128;
/// Most bytes of an encoded [`Answer`].
pub const MAX_ANSWER: usize = MAX_HELLO + MAX_PROOF + 16;

/// Whom a side means. The dialler's goes in clear and is bound by Noise's handshake hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// [`VERSION`]. It stays in the first place in every version to come, so that one that is not
    /// spoken here can be named.
    #[n(0)]
    pub version: u64,
    /// The manifest's hash at birth, the genesis id afterwards.
    #[n(1)]
    pub scope: Hash32,
    /// The cluster's incarnation.
    #[n(2)]
    pub incarnation: Incarnation,
    /// The sender's node.
    #[n(3)]
    pub from: NodeName,
    /// The node that the sender means to reach.
    #[n(4)]
    pub to: NodeName,
    /// The sender's, fresh: what the other side's document must bear as its nonce.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
}

/// Which boot a side is; its node is in the [`Hello`], its channel key is Noise's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Proof {
    /// The boot's Ed25519 key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// The boot's nonce, as in its [`BootRecord`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The highest version of `apply` that its image has.
    #[n(2)]
    pub apply_version: u64,
    /// The attestation document, made for this handshake: see [`user_data`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub document: Vec<u8>,
}

/// The acceptor's message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Answer {
    /// Whom the acceptor means.
    #[n(0)]
    pub hello: Hello,
    /// Which boot it is.
    #[n(1)]
    pub proof: Proof,
}

/// Why a greeting cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It is of a version that is not spoken here.
    #[error("version `{found}`")]
    Version {
        /// Which.
        found: u64,
    },
    /// It is no greeting.
    #[error(transparent)]
    Malformed(#[from] CborError),
}

impl Hello {
    /// The greeting's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a greeting; of one of another version, its version.
    ///
    /// # Errors
    /// If it is of another version, or none at all.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        match version(bytes) {
            Some(found) if found != VERSION => Err(HelloError::Version { found }),
            _ => Ok(cbor::decode(bytes, MAX_HELLO)?),
        }
    }
}

/// The version that a greeting begins with.
fn version(bytes: &[u8]) -> Option<u64> {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.map().ok()??;
    (decoder.u64().ok()? == 0).then(|| decoder.u64().ok())?
}

impl Proof {
    /// The proof's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a proof. Nothing of it is believed yet.
    ///
    /// # Errors
    /// If it is malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        cbor::decode(bytes, MAX_PROOF)
    }
}

impl Answer {
    /// The answer's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads an answer. Nothing of it is believed yet.
    ///
    /// # Errors
    /// If it is malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        cbor::decode(bytes, MAX_ANSWER)
    }
}

/// Which side of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends the first message.
    Dial,
    /// Answers it.
    Accept,
}

impl Side {
    /// The word that a document binds.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dial => "dial",
            Self::Accept => "accept",
        }
    }
}

/// The user data of the document by which `boot` proves itself to the maker of `theirs`, having
/// greeted with `ours`: one direction of one handshake.
///
/// `transcript` is Noise's handshake hash after the message before the one that carries the
/// document: both greetings' bytes that were exchanged by then and the ephemeral keys are in it.
#[must_use]
pub fn user_data(
    side: Side,
    boot: &BootRecord,
    ours: &Hello,
    theirs: &Hello,
    transcript: &[u8; 32],
) -> Hash32 {
    let (dial, accept) = match side {
        Side::Dial => (ours, theirs),
        Side::Accept => (theirs, ours),
    };
    tagged_hash(
        "casemate/channel/v1",
        &[
            ours.scope.as_bytes(),
            &ours.incarnation.0.to_be_bytes(),
            side.name().as_bytes(),
            ours.from.as_str().as_bytes(),
            ours.to.as_str().as_bytes(),
            boot.id().as_bytes(),
            boot.user_data(&ours.scope).as_bytes(),
            &dial.nonce,
            &accept.nonce,
            transcript,
        ],
    )
}
