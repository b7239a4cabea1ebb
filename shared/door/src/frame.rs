//! The frames on a door's two ports.

use casemate_proto::manifest::MAX_GENESIS;
use casemate_proto::{BootId, GenesisId, Incarnation, Millis, NodeName, UnixMillis};
use minicbor::{Decode, Encode};

use crate::answer::Answer;
use crate::query::{Query, SignedReply};
use crate::submission::{Submission, Ticket};

/// The vsock port of the control connection.
pub const CONTROL_PORT: u32 = 5005;
/// The vsock port of peer links, one connection each.
pub const PEER_PORT: u32 = 5006;
/// Most bytes of a control frame: a policy with its envelope, or a full tile of the log.
pub const MAX_FRAME: usize = 18 * 1024 * 1024;
/// Most bytes of a frame on a peer link, which is a Noise message.
pub const MAX_PEER_FRAME: usize = 65_535;
/// Most bytes of the configuration's genesis record.
pub const MAX_CONFIGURED_GENESIS: usize = MAX_GENESIS;

/// First on a peer connection, from the parent; then it relays bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PeerHello {
    /// A link to that node is open: begin the handshake.
    #[n(0)]
    Dial {
        /// The node that is dialled.
        #[n(0)]
        to: NodeName,
    },
    /// Some node has dialled: wait for its handshake.
    #[n(1)]
    Accept,
}

/// What the enclave is told at its start. None of it is believed further than it is checked: the
/// manifest is what the genesis id commits to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Configuration {
    /// Which node of the roster this enclave is.
    #[n(0)]
    pub node: NodeName,
    /// The encoded manifest.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub manifest: Vec<u8>,
    /// The encoded genesis record, where the cluster has been born; the enclave then asks its peers
    /// to admit it. Without one it takes part in the birth.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub genesis: Option<Vec<u8>>,
    /// Pairs of triples to keep in stock for each set of signers; left out: the default.
    #[n(3)]
    pub triple_stock: Option<u64>,
    /// The longest round trip between any two nodes, in milliseconds: replication's times follow from
    /// it. Left out: what suits regions on several continents.
    #[n(4)]
    pub round_trip_ms: Option<u64>,
    /// The cluster's incarnation: 0 where it was never recovered. An enclave that is told another than
    /// its peers' reaches none of them.
    #[n(5)]
    pub incarnation: Incarnation,
    /// Whether this enclave is to begin that incarnation, by a recovery, and not to join it.
    #[n(6)]
    pub recovers: bool,
}

/// What a host hands over to a boot that is to begin an incarnation, in pieces that fit a frame. Pieces of
/// one kind are put together in the order in which they come; a release is a piece of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RecoveryPiece {
    /// First: what came before is forgotten.
    #[n(0)]
    Begin,
    /// Of the signed certificate.
    #[n(1)]
    Certificate(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Of the ledger's snapshot that it names.
    #[n(2)]
    Snapshot(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Of the right edge of the auditors' store at that ledger's size.
    #[n(3)]
    Tail(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Of the sealed blob that this boot is to open.
    #[n(4)]
    Blob(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A governor's release.
    #[n(5)]
    Release(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Last: begin.
    #[n(6)]
    End,
}

/// From the parent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToEnclave {
    /// Once, first. Repeated after the parent restarts, when it must be the same.
    #[n(0)]
    Configure(#[n(0)] Configuration),
    /// Somebody submits something.
    #[n(1)]
    Submit {
        /// To answer under; chosen by the parent, unique on this connection.
        #[n(0)]
        ticket: Ticket,
        /// What.
        #[n(1)]
        submission: Submission,
    },
    /// Somebody asks something.
    #[n(2)]
    Ask {
        /// To reply under.
        #[n(0)]
        ticket: Ticket,
        /// What.
        #[n(1)]
        query: Query,
    },
    /// Files up to and including this batch are on the disk.
    #[n(3)]
    Stored {
        /// The batch's number.
        #[n(0)]
        batch: u64,
    },
    /// A piece of what a recovery begins with.
    #[n(4)]
    Recover(#[n(0)] RecoveryPiece),
}

/// From the enclave.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FromEnclave {
    /// The configuration is refused, and why. The enclave waits for another.
    #[n(0)]
    Refused {
        /// For people.
        #[n(0)]
        reason: String,
    },
    /// The cluster is born, or this boot belongs to it: keep this and give it at the next start.
    #[n(1)]
    Genesis {
        /// The encoded genesis record.
        #[cbor(n(0), with = "minicbor::bytes")]
        record: Vec<u8>,
    },
    /// To [`ToEnclave::Submit`].
    #[n(2)]
    Answer {
        /// The submission's.
        #[n(0)]
        ticket: Ticket,
        /// The answer.
        #[n(1)]
        answer: Answer,
    },
    /// To [`ToEnclave::Ask`]; `None`: not now, the node is not a member yet.
    #[n(3)]
    Reply {
        /// The query's.
        #[n(0)]
        ticket: Ticket,
        /// The reply.
        #[n(1)]
        reply: Option<SignedReply>,
    },
    /// Files for the auditors' store, in the order to write them. Sent again on the next connection
    /// if it is not acknowledged.
    #[n(4)]
    Publish {
        /// Counts up from 0 in each boot.
        #[n(0)]
        batch: u64,
        /// The files.
        #[n(1)]
        files: Vec<StoreFile>,
    },
    /// Every second or so, and when something changes.
    #[n(5)]
    Status(#[n(0)] Box<Status>),
    /// The enclave has stopped for good: something happened that must not. Start it anew.
    #[n(6)]
    Halted {
        /// For people.
        #[n(0)]
        reason: String,
    },
    /// A boot that was configured for a recovery offers itself; said again with newer evidence.
    #[n(7)]
    Offer {
        /// The encoded [`casemate_proto::recovery::RecoveryOffer`].
        #[cbor(n(0), with = "minicbor::bytes")]
        offer: Vec<u8>,
    },
    /// What this boot sealed last: keep it, and the few before it. Said again on the next connection.
    #[n(8)]
    Sealed {
        /// The encoded blob.
        #[cbor(n(0), with = "minicbor::bytes")]
        blob: Vec<u8>,
    },
    /// The recovery has begun: at its next start this node joins that incarnation.
    #[n(9)]
    Recovered {
        /// Which.
        #[n(0)]
        incarnation: Incarnation,
    },
}

/// A file of the auditors' store.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoreFile {
    /// Where, within the store: parts of letters, digits, `-`, `.` and `_` with `/` between.
    #[n(0)]
    pub path: String,
    /// What.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// Where a boot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Phase {
    /// Has no configuration.
    #[n(0)]
    Waiting,
    /// Takes part in its cluster's birth.
    #[n(1)]
    Birth,
    /// Asks to be admitted.
    #[n(2)]
    Joining,
    /// Is a member: a current boot.
    #[n(3)]
    Member,
    /// Has halted.
    #[n(4)]
    Halted,
    /// Waits for a certificate to begin an incarnation with.
    #[n(5)]
    Recovering,
}

/// How an enclave is. For operating only: nothing in it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Status {
    /// Where it stands.
    #[n(0)]
    pub phase: Phase,
    /// Its boot.
    #[n(1)]
    pub boot: Option<BootId>,
    /// Its cluster.
    #[n(2)]
    pub genesis: Option<GenesisId>,
    /// Its clock.
    #[n(3)]
    pub now: UnixMillis,
    /// Entries applied.
    #[n(4)]
    pub size: u64,
    /// Records that a cosigned checkpoint covers and the store was given.
    #[n(5)]
    pub published: u64,
    /// The node that leads replication, as far as this one knows.
    #[n(6)]
    pub leader: Option<NodeName>,
    /// Time since a majority was last heard from; `None`: never.
    #[n(7)]
    pub majority_age: Option<Millis>,
    /// Nodes whose channel is up.
    #[n(8)]
    pub linked: Vec<NodeName>,
    /// Live keys.
    #[n(9)]
    pub keys: u64,
    /// Live keys that this boot holds a share of.
    #[n(10)]
    pub shares: u64,
    /// Pairs of triples ready for the set that this node leads.
    #[n(11)]
    pub triples: u64,
    /// Whether a freeze is obeyed.
    #[n(12)]
    pub frozen: bool,
    /// What it counted since its boot, by name; names are of a closed list in the enclave and hold
    /// nothing of any request.
    #[n(13)]
    pub counters: Vec<(String, u64)>,
    /// Durations since its boot in milliseconds, by name: for each of [`BUCKETS_MS`] how many were at
    /// most that long, then how many in all, then their sum.
    #[n(14)]
    pub durations: Vec<(String, Vec<u64>)>,
}

/// Upper bounds of the buckets of a [`Status`]'s durations, in milliseconds.
pub const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];
