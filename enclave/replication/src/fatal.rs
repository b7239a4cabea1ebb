//! What must not happen, and the one place where it is told.
//!
//! Storage is at arm's length from openraft: it checks what it is told to do against what Raft may
//! do, and where the two differ this boot is over. The first reason stands; nothing is handed to the
//! node after it.

use std::sync::{Arc, Mutex, PoisonError};

use casemate_proto::BootId;
use tokio::sync::watch;

use crate::types::LogPosition;

/// Why replication has stopped for good. The node comes back as another boot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatalReason {
    /// The log was to be cut at or below what is committed here.
    #[error("the log was to be cut from index {from}, and is committed up to {committed}")]
    CommittedCut {
        /// The first index to go.
        from: u64,
        /// The last that is committed.
        committed: u64,
    },
    /// The vote was to fall: a promise to a later leader would be broken.
    #[error("the vote was to fall from term {held} to {offered}")]
    VoteFell {
        /// The term of the vote that is held.
        held: u64,
        /// The term of the one offered.
        offered: u64,
    },
    /// An entry does not follow the one before it.
    #[error("an entry at index {found} came where {wanted} follows")]
    Gap {
        /// The index that follows.
        wanted: u64,
        /// The index that came.
        found: u64,
    },
    /// An entry's term is below that of the entry before it.
    #[error("the entry at index {index} is older than the one before it")]
    Backwards {
        /// Where.
        index: u64,
    },
    /// What is said to be committed is not in the log.
    #[error("the entry at index {index} is said to be committed and is not in the log")]
    UnknownCommit {
        /// Where.
        index: u64,
    },
    /// Entries were to be forgotten that are not applied.
    #[error("the log was to be forgotten up to index {upto}, and is applied up to {applied:?}")]
    UnappliedPurge {
        /// Up to where.
        upto: u64,
        /// The last that is applied.
        applied: Option<u64>,
    },
    /// Entries were to be applied in another order than the log's.
    #[error("the entry at index {found} was to be applied where {wanted} follows")]
    ApplyGap {
        /// The index that follows.
        wanted: u64,
        /// The index that came.
        found: u64,
    },
    /// A leader's log has another entry where this boot has a committed one.
    #[error("boot `{from}` leads with another entry at index {index}, which is committed here")]
    Fork {
        /// The leader.
        from: BootId,
        /// Where.
        index: u64,
    },
    /// A membership names a boot that has no place in it.
    #[error("the membership at index {index} is refused: {reason}")]
    ForeignMembership {
        /// Where it stands.
        index: u64,
        /// What is wrong with it.
        reason: MembershipFault,
    },
    /// The first ledger entry is not this cluster's genesis.
    #[error("the ledger's first entry is not this cluster's genesis")]
    NotGenesis,
    /// This boot lacks entries that the leader no longer has. A running node takes no snapshot.
    #[error("this boot fell behind: it has the log up to {last:?}, the leader only from {kept:?}")]
    FellBehind {
        /// The last index here.
        last: Option<u64>,
        /// The last index that the leader has forgotten.
        kept: Option<LogPosition>,
    },
    /// The node that applies entries is gone.
    #[error("the node that applies entries is gone")]
    ApplierGone,
    /// The node applied something else than it was handed.
    #[error("the node has applied {found} entries where {wanted} were handed to it")]
    ApplierAhead {
        /// How many were handed to it.
        wanted: u64,
        /// How many it says it has applied.
        found: u64,
    },
    /// openraft itself stopped.
    #[error("replication stopped by itself: {reason}")]
    Stopped {
        /// What it says.
        reason: String,
    },
}

/// What is wrong with a membership.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipFault {
    /// No voters, too many sets of them, two boots for one node, or a boot of no node.
    #[error("it is malformed")]
    Malformed,
    /// A set of voters is not one boot for each node of the roster.
    #[error("its voters are not one boot for each node of the roster")]
    NotTheRoster,
    /// A boot is neither current nor retired by the swap under way.
    #[error("boot `{boot}` is neither current nor being replaced")]
    Stranger {
        /// Which.
        boot: BootId,
    },
}

/// Raised once by whoever finds it first, seen by everybody.
#[derive(Clone, Debug)]
pub(crate) struct Halt(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reason: Mutex<Option<FatalReason>>,
    raised: watch::Sender<bool>,
}

impl Halt {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { reason: Mutex::new(None), raised: watch::Sender::new(false) }))
    }

    /// Halts. A later reason than the first is dropped.
    pub(crate) fn raise(&self, reason: FatalReason) {
        let mut first = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            tracing::error!(%reason, "replication halts");
            *first = Some(reason);
        }
        drop(first);
        self.0.raised.send_replace(true);
    }

    /// Stops without a reason: the caller wants it.
    pub(crate) fn stop(&self) {
        self.0.raised.send_replace(true);
    }

    pub(crate) fn is_raised(&self) -> bool {
        *self.0.raised.borrow()
    }

    pub(crate) fn reason(&self) -> Option<FatalReason> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it is raised.
    pub(crate) async fn raised(&self) {
        // the sender lives as long as `self`, so this ends only when it is raised
        let _ = self.0.raised.subscribe().wait_for(|raised| *raised).await;
    }
}
