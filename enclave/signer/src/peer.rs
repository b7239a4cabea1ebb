//! What enclaves say to one another: strict CBOR, capped, inside a channel that names the sender.
//!
//! A coordinator only *names* things here: an index, an attempt, who takes part, a pair of
//! triples. What is signed, with which key, path and epoch, each participant takes from its own
//! applied entry.

use casemate_ledger::entry::KeyLive;
use casemate_proto::cbor::{self, CborError};
use casemate_proto::governance::SignedStatement;
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, KeyName, NodeName, UnixMillis};
use casemate_threshold::RunId;
use casemate_threshold::message::MAX_MESSAGE_BYTES;
use minicbor::{Decode, Encode};

/// Most bytes of a message: a run's largest, with its envelope.
pub const MAX_PEER_MESSAGE: usize = MAX_MESSAGE_BYTES + 1024;

/// A message from one enclave to another.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PeerMessage {
    /// A protocol run's own message.
    #[n(0)]
    Run(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Make a pair of triples.
    #[n(1)]
    StartTriples {
        /// How many entries the sender has applied.
        #[n(0)]
        size: u64,
        /// The sender's own number for it, fresh.
        #[n(1)]
        number: u64,
        /// Exactly t nodes, the sender among them.
        #[n(2)]
        participants: Vec<NodeName>,
    },
    /// Sign what the entry at `index` allowed.
    #[n(2)]
    StartSign {
        /// The entry.
        #[n(0)]
        index: u64,
        /// Which attempt.
        #[n(1)]
        attempt: u8,
        /// Exactly t nodes, the sender among them.
        #[n(2)]
        participants: Vec<NodeName>,
        /// For ECDSA: the triples to use up.
        #[n(3)]
        triples: Option<Hash32>,
        /// The root of the sender's tree with that entry as its last leaf.
        #[n(4)]
        root: Hash32,
        /// The key's epoch, as the sender has it.
        #[n(5)]
        epoch: u64,
    },
    /// The sender does not take part in that attempt.
    #[n(3)]
    Declined {
        /// The entry.
        #[n(0)]
        index: u64,
        /// The attempt that was asked for.
        #[n(1)]
        attempt: u8,
        /// The lowest attempt that the sender could still take part in.
        #[n(2)]
        next: u8,
    },
    /// Make shares of a key.
    #[n(4)]
    StartKey(#[n(0)] StartKey),
    /// Sign a pending key's test message.
    #[n(5)]
    StartTest(#[n(0)] StartTest),
    /// A pending key's test signature.
    #[n(6)]
    Tested {
        /// The key.
        #[n(0)]
        name: KeyName,
        /// Which of its pending shares.
        #[n(1)]
        transcript: Hash32,
        /// Who made it.
        #[n(2)]
        participants: Vec<NodeName>,
        /// 64 bytes.
        #[cbor(n(3), with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// All tests are there: confirm this, which has no confirmations yet.
    #[n(7)]
    ConfirmKey(#[n(0)] KeyLive),
    /// The sender's boot's signature over what it was asked to confirm.
    #[n(8)]
    Confirmed {
        /// The key.
        #[n(0)]
        name: KeyName,
        /// Which of its pending shares.
        #[n(1)]
        transcript: Hash32,
        /// 64 bytes.
        #[cbor(n(2), with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// Cosign the checkpoint of this size.
    #[n(9)]
    Cosign {
        /// How many leaves.
        #[n(0)]
        size: u64,
        /// The sender's root at that size.
        #[n(1)]
        root: Hash32,
    },
    /// The sender's cosignature.
    #[n(10)]
    Cosigned {
        /// How many leaves.
        #[n(0)]
        size: u64,
        /// The sender's time.
        #[n(1)]
        at: UnixMillis,
        /// 64 bytes.
        #[cbor(n(2), with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// Sign the checkpoint of this size with the log's key.
    #[n(11)]
    StartLogSignature {
        /// How many leaves.
        #[n(0)]
        size: u64,
        /// The sender's root at that size.
        #[n(1)]
        root: Hash32,
        /// Exactly t nodes, the sender among them.
        #[n(2)]
        participants: Vec<NodeName>,
        /// The sender's own number for it, fresh.
        #[n(3)]
        number: u64,
        /// The key's epoch, as the sender has it.
        #[n(4)]
        epoch: u64,
    },
    /// A checkpoint to publish.
    #[n(12)]
    Checkpoint(#[n(0)] String),
    /// A freezer's word, passed on before it commits.
    #[n(13)]
    Freeze(#[n(0)] SignedStatement),
    /// The sender's boot, admitted not long ago, takes part from here on.
    #[n(14)]
    Here,
    /// The sender does not take part in making those shares.
    #[n(15)]
    KeyDeclined {
        /// The key.
        #[n(0)]
        name: KeyName,
        /// The number of the start.
        #[n(1)]
        number: u64,
        /// The lowest epoch that the sender has fresh.
        #[n(2)]
        next: u64,
    },
    /// Send the newest published checkpoint, if it is of more entries than this.
    #[n(16)]
    AskCheckpoint {
        /// How many entries the sender has published.
        #[n(0)]
        published: u64,
    },
    /// The sender has ended a run that makes or tests shares, without a result.
    #[n(17)]
    RunEnded {
        /// Which.
        #[n(0)]
        run: RunId,
    },
    /// Sign what the entry at `index` will allow, once it is applied: the sender appended it, and
    /// leads the first attempt.
    #[n(18)]
    StartAhead {
        /// Where the entry will stand.
        #[n(0)]
        index: u64,
        /// The entry's hash.
        #[n(1)]
        entry: Hash32,
        /// Exactly t nodes, the sender among them.
        #[n(2)]
        participants: Vec<NodeName>,
        /// For ECDSA: the triples to use up.
        #[n(3)]
        triples: Option<Hash32>,
        /// The root of the sender's tree with everything before that entry.
        #[n(4)]
        root: Hash32,
        /// The key's epoch, as the sender has it.
        #[n(5)]
        epoch: u64,
    },
    /// The sender has applied the entry and takes part in the attempt that was started ahead of it.
    #[n(19)]
    JoinedAhead {
        /// The entry.
        #[n(0)]
        index: u64,
        /// The root of the sender's tree with that entry as its last leaf.
        #[n(1)]
        root: Hash32,
    },
}

/// Make shares of a key: new ones where it is not live, else for the nodes that have none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StartKey {
    /// The key.
    #[n(0)]
    pub name: KeyName,
    /// The epoch to be.
    #[n(1)]
    pub epoch: u64,
    /// How many entries the sender has applied.
    #[n(2)]
    pub size: u64,
    /// The sender's own number for it, fresh.
    #[n(3)]
    pub number: u64,
    /// Every node's current boot, as the sender has it, in the roster's order.
    #[n(4)]
    pub boots: Vec<BootId>,
}

/// Sign a pending key's test message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StartTest {
    /// The key.
    #[n(0)]
    pub name: KeyName,
    /// Which of its pending shares.
    #[n(1)]
    pub transcript: Hash32,
    /// Exactly t nodes, the sender first.
    #[n(2)]
    pub participants: Vec<NodeName>,
    /// For ECDSA: the triples to use up.
    #[n(3)]
    pub triples: Option<Hash32>,
    /// How many entries the sender has applied.
    #[n(4)]
    pub size: u64,
    /// The sender's own number for it, fresh.
    #[n(5)]
    pub number: u64,
}

impl PeerMessage {
    /// Decodes a message.
    ///
    /// # Errors
    /// If the bytes are too many, malformed or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        cbor::decode(bytes, MAX_PEER_MESSAGE)
    }

    /// Its canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_survives_its_encoding_and_nothing_else_decodes() {
        let message = PeerMessage::StartSign {
            index: 7,
            attempt: 1,
            participants: vec![NodeName::new("a").unwrap(), NodeName::new("b").unwrap()],
            triples: None,
            root: Hash32::new([1; 32]),
            epoch: 0,
        };
        let bytes = message.encode();
        assert_eq!(PeerMessage::decode(&bytes), Ok(message));
        for cut in 0..bytes.len() {
            assert!(PeerMessage::decode(&bytes[..cut]).is_err());
        }
        assert!(PeerMessage::decode(&[bytes, vec![0]].concat()).is_err());
        let large = PeerMessage::Run(vec![0; MAX_PEER_MESSAGE]).encode();
        assert!(matches!(PeerMessage::decode(&large), Err(CborError::TooLarge { .. })));
    }
}
