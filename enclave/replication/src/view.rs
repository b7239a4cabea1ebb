//! What the node shows of its applied state: replication reads it and never the state itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use casemate_ledger::State;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::Measurement;
use casemate_proto::{BootId, NodeName, UnixMillis};

/// How many of the newest roots a view carries. Entries are handed to the node in smaller lots, so
/// that no root is missed between two views.
pub const RECENT_ROOTS: usize = 64;

/// The applied state as replication needs it. The node publishes one after each entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedView {
    /// How many entries are applied.
    pub size: u64,
    /// The root of the tree over their records.
    pub root: Hash32,
    /// The newest sizes with their roots, oldest first, at most [`RECENT_ROOTS`].
    pub recent: Vec<(u64, Hash32)>,
    /// Each node's current boot.
    pub boots: Arc<BTreeMap<NodeName, BootId>>,
    /// Boots that were current once and never will be again.
    pub retired: Arc<BTreeSet<BootId>>,
    /// From when on the ledger takes another boot of each node.
    pub admits_from: Arc<BTreeMap<NodeName, UnixMillis>>,
    /// The images that are accepted now.
    pub images: Arc<BTreeSet<Measurement>>,
    /// The version of `apply`.
    pub version: u64,
    /// The ledger's time.
    pub time: UnixMillis,
}

impl AppliedView {
    /// The view of a state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let boots = (Arc::new(state.current_boots()), Arc::new(state.retired_boots().clone()));
        let admits_from = Arc::new(state.admits_from());
        Self::build(state, boots, admits_from, Arc::new(state.images().clone()))
    }

    /// The view of the same node's state some entries later; shares with this one what is the same.
    #[must_use]
    pub fn next(&self, state: &State) -> Self {
        // an admission is the only thing that changes boots, and it changes all that is said of them
        let retired = state.retired_boots();
        if retired.len() != self.retired.len() || *state.images() != *self.images {
            return Self::of(state);
        }
        let boots = (Arc::clone(&self.boots), Arc::clone(&self.retired));
        Self::build(state, boots, Arc::clone(&self.admits_from), Arc::clone(&self.images))
    }

    fn build(
        state: &State,
        (boots, retired): (Arc<BTreeMap<NodeName, BootId>>, Arc<BTreeSet<BootId>>),
        admits_from: Arc<BTreeMap<NodeName, UnixMillis>>,
        images: Arc<BTreeSet<Measurement>>,
    ) -> Self {
        Self {
            size: state.size(),
            root: state.root(),
            recent: state.recent_roots(RECENT_ROOTS).collect(),
            boots,
            retired,
            admits_from,
            images,
            version: state.version(),
            time: state.time(),
        }
    }

    /// Whether a boot is its node's current one.
    #[must_use]
    pub fn is_current(&self, boot: &BootId) -> bool {
        self.boots.values().any(|current| current == boot)
    }
}
