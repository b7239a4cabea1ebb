//! Replication: openraft over the ledger, one member for each *boot*, everything in memory.
//!
//! A node's replication is openraft between four rooms of ours. `log_store` keeps log and vote and
//! checks what openraft does to them; `machine` hands committed entries to the node and waits for
//! it; `network` asks other boots and weighs their answers; `inbound` takes what they ask. Beside
//! them: `proposals` into the log, `membership` that follows the ledger, `elections` that only a
//! majority begins, `time` that no leader runs ahead of, `roots` that are compared, `pairs` that
//! commit without being told, and `beats` that nobody waits for.
//!
//! A cluster begins by [`genesis`]; a restarted node comes back through [`join`]. Both are pure state
//! machines. Nothing here opens a socket: messages leave as [`Out::Send`] and arrive by
//! [`Replication::receive`], over channels that attest whose they are.
//!
//! What Raft assumes of its members does not hold of a broken enclave: it can stop the ledger, or
//! have nodes halt. What else it gains is not decided here: each node applies entries by itself,
//! compares roots, and releases a share only by what it applied.

// the kit of the integration tests names this crate from outside
#[cfg(test)]
extern crate self as casemate_replication;

mod beats;
mod config;
mod core;
mod elections;
mod fatal;
pub mod genesis;
mod handle;
mod inbound;
pub mod join;
mod log_store;
mod machine;
mod membership;
mod network;
mod pairs;
mod pieces;
mod proposals;
mod roots;
mod time;
mod types;
mod view;
mod wire;

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions)]
mod tests;

pub use crate::core::{Start, StartAt, StartError};
pub use config::{Config, Timing};
pub use fatal::{FatalReason, MembershipFault};
pub use handle::{RaftStatus, Replication};
pub use machine::CommittedAt;
pub use proposals::ProposalRefused;
pub use time::ReadClock;
pub use types::{LogPosition, MembershipRecord, Position};
pub use view::{AppliedView, RECENT_ROOTS};
pub use wire::MAX_MESSAGE;

use casemate_ledger::{Committed, Entry};
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, NodeName};

/// What replication wants done.
#[derive(Debug)]
pub enum Out {
    /// Send to a boot, through its channel; lost if there is none. At most [`MAX_MESSAGE`] bytes. Messages
    /// to one boot must keep their order.
    Send {
        /// To which boot.
        to: BootId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Apply this entry and publish an [`AppliedView`]. In order, each once.
    Committed {
        /// The entry.
        committed: Box<Committed>,
        /// Where it stands: what a boot that it admits is told.
        at: CommittedAt,
    },
    /// This boot leads and appended a request, which is not committed yet; all ledger entries before
    /// it are applied. A hint, and told only of one that stands alone.
    Appended {
        /// Where it will stand in the ledger.
        index: u64,
        /// The entry.
        entry: Box<Entry>,
    },
    /// A boot that appends here claims another root than this node's own. Told once for each boot.
    RootMismatch {
        /// Which boot.
        from: BootId,
        /// Its node, where its channel is known.
        node: Option<NodeName>,
        /// At which size.
        size: u64,
        /// Its root.
        theirs: Hash32,
    },
    /// Replication has stopped for good. The last that is told.
    Fatal(FatalReason),
}
