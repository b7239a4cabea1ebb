//! Why there is no channel, or no longer.

use casemate_attestation_verify as attestation;
use casemate_nsm::NsmError;
use casemate_proto::cbor::CborError;
use casemate_proto::{Hash32, Incarnation, NodeName};

/// Why a handshake ended without a channel. The caller closes the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A message is larger than any that belongs there.
    #[error("handshake message {message} has {len} bytes; at most {max} belong there")]
    Oversized {
        /// Counted from 1.
        message: u8,
        /// Its length.
        len: usize,
        /// The most.
        max: usize,
    },
    /// A message does not open: it was changed, or belongs to another handshake.
    #[error("handshake message {message} is not authentic")]
    NotAuthentic {
        /// Counted from 1.
        message: u8,
    },
    /// A message's key is a point of low order: whatever it is multiplied by, the result is zero.
    #[error("handshake message {message} holds a key of low order")]
    WeakKey {
        /// Counted from 1.
        message: u8,
    },
    /// What a message carries is not what belongs there.
    #[error("handshake message {message} is malformed: {error}")]
    Malformed {
        /// Counted from 1.
        message: u8,
        /// What is wrong.
        error: CborError,
    },
    /// The peer speaks another version of this protocol.
    #[error("the peer speaks version `{found}` of the channel, this boot version `{ours}`")]
    Version {
        /// The peer's.
        found: u64,
        /// Ours.
        ours: u64,
    },
    /// The peer means another cluster, or another stage of its life.
    #[error("the peer means the cluster `{found}`, this boot `{ours}`")]
    Scope {
        /// The peer's.
        found: Hash32,
        /// Ours.
        ours: Hash32,
    },
    /// The peer means another incarnation of the cluster.
    #[error("the peer means incarnation `{found}`, this boot `{ours}`")]
    Incarnation {
        /// The peer's.
        found: Incarnation,
        /// Ours.
        ours: Incarnation,
    },
    /// A node is not in the roster.
    #[error("node `{node}` is not in the roster")]
    UnknownNode {
        /// Which.
        node: NodeName,
    },
    /// The peer is this very node, or shows this boot's own key.
    #[error("the peer of node `{node}` is that node itself")]
    Oneself {
        /// Which.
        node: NodeName,
    },
    /// The peer means another node than this one.
    #[error("the peer means node `{found}`, and this is `{ours}`")]
    Misrouted {
        /// Whom the peer means.
        found: NodeName,
        /// This node.
        ours: NodeName,
    },
    /// Another node answered than the one that was dialled.
    #[error("node `{found}` answered where `{dialled}` was dialled")]
    OtherNode {
        /// Who was dialled.
        dialled: NodeName,
        /// Who answered.
        found: NodeName,
    },
    /// The peer's nonce is this side's own.
    #[error("the peer gave this side's own nonce back as its own")]
    ReflectedNonce,
    /// The peer's document is not evidence, or not what was expected of its node.
    #[error("the attestation of node `{node}` is refused: {refusal}")]
    Attestation {
        /// Which node the peer claims to be.
        node: NodeName,
        /// Why.
        refusal: Box<attestation::Refusal>,
    },
    /// The peer's document is genuine and of the right image and node, but binds another key,
    /// direction or handshake than this one.
    #[error("the document of node `{node}` was made for another key, direction or handshake")]
    NotBound {
        /// Which node the peer claims to be.
        node: NodeName,
    },
    /// This side could not attest itself.
    #[error("this boot cannot attest itself: {0}")]
    OwnAttestation(#[from] NsmError),
    /// This side's own document is too long for a handshake.
    #[error("this boot's own document has {len} bytes; at most {max} fit")]
    OwnDocument {
        /// Its length.
        len: usize,
        /// The most.
        max: usize,
    },
    /// The Noise library refused what this side asked of it.
    #[error("the handshake could not {what}")]
    Library {
        /// What was asked.
        what: &'static str,
    },
}

/// Why a channel is of no use any more. But for [`Broken::TooLong`] from a sealer, every one of
/// these ends both halves of the channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The channel ended before.
    #[error("the channel has ended")]
    Ended,
    /// A frame has more or fewer bytes than any frame has.
    #[error("frame {frame} has {len} bytes; {min} to {max} are a frame")]
    FrameLength {
        /// Counted from 0.
        frame: u64,
        /// Its length.
        len: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A frame does not open: it was changed, dropped, repeated or moved.
    #[error("frame {frame} is not authentic, or not the next one")]
    NotAuthentic {
        /// The frame that was expected, counted from 0.
        frame: u64,
    },
    /// A frame opens and is none that this protocol makes: the peer is not as it must be.
    #[error("frame {frame} {reason}")]
    Frame {
        /// Counted from 0.
        frame: u64,
        /// What is wrong, after "frame n".
        reason: &'static str,
    },
    /// A message is longer than a channel carries.
    #[error("a message of {len} bytes or more; at most {max} are carried")]
    TooLong {
        /// Its length as far as it is known.
        len: usize,
        /// The most.
        max: usize,
    },
    /// As many frames were sealed or opened as one channel's keys are good for: dial anew.
    #[error("the channel's keys have served {frames} frames")]
    Exhausted {
        /// How many.
        frames: u64,
    },
}

/// Why a boot cannot be given an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The secret is not the one behind the record's channel key.
    #[error("the channel secret is not that of the boot's record of node `{node}`")]
    ForeignSecret {
        /// Whose record.
        node: NodeName,
    },
}
