//! Roots: whether a leader that appends has applied the same as this node.
//!
//! Each append carries how many entries the leader has applied and the root of its tree there. Where
//! this node has come as far, it compares. A difference is told to the node, which asks who of the two
//! is alone with it and halts; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::BootId;
use casemate_proto::ids::Hash32;

use crate::view::AppliedView;

/// How many of the newest roots are kept.
const KEPT: usize = 4_096;
/// For how many boots a claim waits.
const CLAIMS: usize = 64;

/// This node's roots, and what others claim.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    known: BTreeMap<u64, Hash32>,
    size: u64,
    /// Claims ahead of this node, one for each boot: the first one stands until it is reached, so
    /// that a leader that is always ahead is compared all the same.
    waiting: BTreeMap<BootId, (u64, Hash32)>,
    /// Who was told of already.
    told: BTreeSet<BootId>,
}

/// A boot claims another root than this node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) from: BootId,
    pub(crate) size: u64,
    pub(crate) theirs: Hash32,
}

impl Roots {
    /// Takes the node's newest roots. Gives the claims that turn out to differ.
    pub(crate) fn absorb(&mut self, view: &AppliedView) -> Vec<Mismatch> {
        self.known.extend(view.recent.iter().copied());
        if view.size > 0 {
            self.known.insert(view.size, view.root);
        }
        self.size = self.size.max(view.size);
        while self.known.len() > KEPT {
            self.known.pop_first();
        }
        let reached: Vec<(BootId, (u64, Hash32))> = self
            .waiting
            .iter()
            .filter(|(_, (size, _))| *size <= self.size)
            .map(|(from, claim)| (*from, *claim))
            .collect();
        reached
            .into_iter()
            .filter_map(|(from, (size, theirs))| {
                self.waiting.remove(&from);
                self.compare(Mismatch { from, size, theirs })
            })
            .collect()
    }

    /// Takes a claim. Gives it back if it differs from this node's root of that size.
    pub(crate) fn claim(&mut self, from: BootId, size: u64, theirs: Hash32) -> Option<Mismatch> {
        if size > self.size {
            if self.waiting.len() < CLAIMS {
                self.waiting.entry(from).or_insert((size, theirs));
            }
            return None;
        }
        self.compare(Mismatch { from, size, theirs })
    }

    fn compare(&mut self, claim: Mismatch) -> Option<Mismatch> {
        let ours = self.known.get(&claim.size)?;
        if *ours == claim.theirs || self.told.len() >= CLAIMS {
            return None;
        }
        self.told.insert(claim.from).then_some(claim)
    }
}
