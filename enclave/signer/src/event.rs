//! What happens to a node, what it wants done, and how it is set up.

use std::sync::Arc;

use casemate_audit::TailError;
use casemate_audit::store::File;
use casemate_ledger::apply::StepError;
use casemate_ledger::{Attachment, Committed, Entry, EntryBody, StateError};
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, GenesisId, Millis, NodeName, UnixMillis};
use casemate_threshold::Misuse;
use zeroize::Zeroize as _;

use crate::answer::{Answer, Query, SignedReply, Submission, Ticket};

/// How a node works, within what the manifest allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// How many pairs of triples a node makes in advance for the set that it leads.
    pub triple_stock: usize,
    /// How many triple runs a node leads at one time when requests wait for them.
    pub triple_runs: usize,
    /// How long one attempt at a signature may take.
    pub attempt_timeout: Millis,
    /// How long a pair of triples may take.
    pub triple_timeout: Millis,
    /// How long a key generation may take.
    pub keygen_timeout: Millis,
    /// How often a checkpoint is published, at most.
    pub checkpoint_interval: Millis,
    /// Whether receipts are published beside the records.
    pub publish_receipts: bool,
    /// Most submissions that wait for an answer.
    pub max_waiting: usize,
    /// Most allowed requests that are not signed yet; above it new ones are told to come back.
    pub max_unsigned: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            triple_stock: 8,
            triple_runs: 4,
            attempt_timeout: Millis(5_000),
            triple_timeout: Millis(10_000),
            keygen_timeout: Millis(20_000),
            checkpoint_interval: Millis(1_000),
            publish_receipts: false,
            max_waiting: 2_048,
            max_unsigned: 512,
        }
    }
}

impl NodeConfig {
    /// The same for nodes whose round trips take at most so long: a protocol run that needs many of them must
    /// not be given up while it goes well. Only waiting becomes longer; what τ bounds it bounds still.
    #[must_use]
    pub fn for_round_trip(self, round_trip: Millis) -> Self {
        // a parent says how long: more than two seconds would only hold runs that have failed
        let round_trip = round_trip.min(Millis(2_000));
        // a signature takes a few round trips, a pair of triples about twenty, a key more
        let at_least = |usual: Millis, trips| usual.max(round_trip.saturating_mul(trips));
        Self {
            attempt_timeout: at_least(self.attempt_timeout, 10),
            triple_timeout: at_least(self.triple_timeout, 30),
            keygen_timeout: at_least(self.keygen_timeout, 60),
            ..self
        }
    }
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// Somebody outside asks something.
    Submit {
        /// What to answer under.
        ticket: Ticket,
        /// What is asked.
        submission: Submission,
    },
    /// Somebody outside asks to be told something.
    Ask {
        /// What to reply under.
        ticket: Ticket,
        /// What is asked. Attestation is not a node's to give: it has no NSM.
        query: Query,
    },
    /// The next entry is committed. In order, each once.
    Committed(Committed),
    /// The entries that commit from here on were appended by this boot. Told in its place among
    /// them, so that every node learns it at the same entry.
    Leader(BootId),
    /// Another boot leads replication, of whom nothing is committed yet. What was proposed to the one
    /// before may be lost.
    Elected,
    /// This boot leads replication and appended an entry that is not committed yet; everything
    /// before it is applied.
    Appended {
        /// Where it will stand in the ledger.
        index: u64,
        /// The entry.
        entry: Box<Entry>,
    },
    /// A peer sent this, inside its channel.
    Peer {
        /// The node at the channel's other end.
        from: NodeName,
        /// An encoded [`PeerMessage`](crate::PeerMessage).
        bytes: Bytes,
    },
    /// A peer's channel came up or went down.
    Link {
        /// The peer.
        node: NodeName,
        /// Whether it is up.
        up: bool,
    },
    /// Replication found that a peer's tree has another root than this node's at a size.
    Dispute {
        /// The peer.
        from: NodeName,
        /// How many leaves.
        size: u64,
        /// The peer's root.
        root: Hash32,
    },
    /// Time passed. Wanted every 100 ms or so.
    Tick,
}

/// What a node wants done.
#[must_use]
#[derive(Clone, Debug)]
pub enum Output {
    /// Propose an entry to replication.
    Propose {
        /// The entry's body; the leader stamps the time.
        body: EntryBody,
        /// What travels beside it.
        attachment: Option<Attachment>,
        /// By when, in the ledger's time, it has to be an entry; later it is not to be one.
        until: Option<UnixMillis>,
    },
    /// Send to a peer, through its channel. The bytes may hold secrets meant for that peer alone.
    Send {
        /// To whom.
        to: NodeName,
        /// An encoded [`PeerMessage`](crate::PeerMessage).
        bytes: Bytes,
    },
    /// Answer a submission.
    Answer {
        /// Which.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
    /// Reply to what was asked; `None`: not now, or not by this node.
    Reply {
        /// Which.
        ticket: Ticket,
        /// What.
        reply: Option<SignedReply>,
    },
    /// Another boot was admitted: what it needs to begin with. Only the newest of each node is
    /// worth keeping.
    Handover(Handover),
    /// Files for the auditors' store, in the order to write them.
    Publish(Vec<File>),
    /// Something happened that must not; the node does nothing from here on.
    Halt {
        /// What.
        reason: HaltReason,
    },
}

/// What an admitted boot begins with: the state right after the entry that admitted it. All
/// current nodes have the same snapshot; their tails differ by what each has published.
#[derive(Clone, PartialEq, Eq)]
pub struct Handover {
    /// Whose boot was admitted.
    pub node: NodeName,
    /// Which.
    pub boot: BootId,
    /// How many entries are applied, that one the last.
    pub size: u64,
    /// The tree's root there.
    pub root: Hash32,
    /// [`casemate_ledger::State::snapshot_hash`] of the snapshot.
    pub hash: Hash32,
    /// The state.
    pub snapshot: Arc<[u8]>,
    /// The right edge of the auditors' store, for [`crate::Node::join`], which checks it
    /// against the state.
    pub tail: Arc<[u8]>,
}

impl core::fmt::Debug for Handover {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Handover")
            .field("node", &self.node)
            .field("boot", &self.boot)
            .field("size", &self.size)
            .field("hash", &self.hash)
            .field("snapshot", &format_args!("<{} bytes>", self.snapshot.len()))
            .field("tail", &format_args!("<{} bytes>", self.tail.len()))
            .finish_non_exhaustive()
    }
}

/// Bytes from or for a channel. They may hold what a share is made of: printed as a length only,
/// and wiped when they go.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// These bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl core::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// Why a node halted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The ledger cannot be applied any further by this program.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Another boot of this node took this one's place.
    #[error("another boot of this node was admitted in place of this one")]
    Retired,
    /// Two nodes applied different things: one of them, or replication, is broken.
    #[error("node `{peer}` has root {theirs} at size {size}, this node has {ours}")]
    RootMismatch {
        /// Who says otherwise.
        peer: NodeName,
        /// At which size.
        size: u64,
        /// Its root.
        theirs: Hash32,
        /// Ours.
        ours: Hash32,
    },
    /// The records do not fit what was published before.
    #[error("the store cannot be written on: {0}")]
    Store(String),
}

/// Why a node cannot come to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BirthError {
    /// The genesis is refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The genesis names another boot for this node, or the node is not in it.
    #[error("the genesis does not name this boot as node `{node}`'s")]
    NotThisBoot {
        /// The node.
        node: NodeName,
    },
    /// The roster does not fit the threshold drivers.
    #[error(transparent)]
    Threshold(#[from] Misuse),
}

/// Why a boot cannot go on from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The state is another cluster's.
    #[error("the snapshot is of cluster {found}, not {expected}")]
    OtherGenesis {
        /// The cluster that this boot was configured for.
        expected: GenesisId,
        /// The snapshot's.
        found: GenesisId,
    },
    /// In the state this boot is not its node's current one.
    #[error("this boot is not the current boot of node `{node}` in the snapshot")]
    NotThisBoot {
        /// The node.
        node: NodeName,
    },
    /// The tail does not fit the state.
    #[error("the tail of the store: {0}")]
    Tail(#[from] TailError),
    /// The tail's policies or keys do not fit the state.
    #[error("the tail of the store: {reason}")]
    TailContent {
        /// In what.
        reason: String,
    },
    /// The roster does not fit the threshold drivers.
    #[error(transparent)]
    Threshold(#[from] Misuse),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_far_apart_wait_longer_for_runs_and_those_that_are_not_wait_as_always() {
        let usual = NodeConfig::default();
        assert_eq!(usual.for_round_trip(Millis(75)), usual);
        assert_eq!(usual.for_round_trip(Millis(300)), usual);
        let far = usual.for_round_trip(Millis(1_000));
        assert_eq!(far.attempt_timeout, Millis(10_000));
        assert_eq!(far.triple_timeout, Millis(30_000));
        assert_eq!(far.keygen_timeout, Millis(60_000));
        assert_eq!(usual.for_round_trip(Millis(u64::MAX)), usual.for_round_trip(Millis(2_000)));
    }
}
