//! What a parent and its enclave say to each other.
//!
//! An enclave has one door: the parent's connections over vsock. On the port [`CONTROL_PORT`] the
//! two speak the frames of [`frame`]: strict CBOR, one value a frame, capped. On [`PEER_PORT`] the parent
//! names a link in a [`frame::PeerHello`] and from then on relays the bytes of a channel that it
//! cannot read.
//!
//! The parent is untrusted. What it passes in is a [`Submission`] or a [`Query`] of somebody
//! outside, checked inside; what it passes out is signed, or proved by the log, so that it cannot be
//! made up on the way ([`Answer`], [`SignedReply`]).

pub mod answer;
pub mod frame;
pub mod query;
pub mod submission;

pub use answer::{Answer, PendingAnswer, Receipt, Signed, SignedDenial};
pub use frame::{
    CONTROL_PORT, Configuration, FromEnclave, MAX_FRAME, MAX_PEER_FRAME, PEER_PORT, PeerHello,
    RecoveryPiece, Status, StoreFile, ToEnclave,
};
pub use query::{
    BootView, ClusterView, FreezeView, KeyView, PendingChangeView, PendingRequestView, Query,
    Reply, SignedReply,
};
pub use submission::{Submission, Ticket};
