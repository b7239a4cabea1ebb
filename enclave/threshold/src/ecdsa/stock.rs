//! The stock of triples that idle time fills and signatures use up.
//!
//! In memory only, keyed by the set of boots that made them (one set's triples are of no use to
//! another), each named by the id that the whole set agreed on. Taking moves the pair out: there is
//! no way to look at one and leave it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use casemate_proto::BootId;

use super::TriplePair;
use crate::{party::Participants, purpose::TriplePairId};

/// Why a pair was not stocked; the pair is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StockError {
    /// A pair of this id is there, or was.
    #[error("triples {} are stocked or used already", .0.0)]
    Known(TriplePairId),
    /// The stock is full.
    #[error("{pairs} pairs of triples are stocked, which is the most")]
    Full {
        /// How many are there.
        pairs: usize,
    },
}

/// Triples made and not yet used, for every set of boots that this boot is in.
#[derive(Debug, Default)]
pub struct TripleStock {
    sets: BTreeMap<Participants, BTreeMap<TriplePairId, TriplePair>>,
    pairs: usize,
    used: BTreeSet<TriplePairId>,
    used_order: VecDeque<TriplePairId>,
}

impl TripleStock {
    /// Most pairs stocked, at about half a kilobyte each.
    pub const MAX_PAIRS: usize = 16_384;
    /// How many used ids are remembered. That a pair is used once does not rest on this memory (a
    /// pair moves, an id hashes fresh randomness of its maker): it is the second line.
    pub const MAX_USED: usize = 65_536;

    /// An empty stock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stocks a pair under its set and its id.
    ///
    /// # Errors
    /// If a pair of that id is there or was used, or the stock is full. Nothing is overwritten.
    pub fn put(&mut self, pair: TriplePair) -> Result<(), StockError> {
        if self.pairs >= Self::MAX_PAIRS {
            return Err(StockError::Full { pairs: self.pairs });
        }
        let id = pair.id;
        let was_used = self.used.contains(&id) && !casemate_proto::sabotaged!("triple_used_again");
        if was_used || self.sets.values().any(|set| set.contains_key(&id)) {
            return Err(StockError::Known(id));
        }
        self.sets.entry(pair.set.clone()).or_default().insert(id, pair);
        self.pairs = self.pairs.saturating_add(1);
        Ok(())
    }

    /// Moves a pair out for good; none if this set has no pair of that id.
    #[must_use]
    pub fn take(&mut self, set: &Participants, id: &TriplePairId) -> Option<TriplePair> {
        let pairs = self.sets.get_mut(set)?;
        let pair = pairs.remove(id)?;
        if pairs.is_empty() {
            self.sets.remove(set);
        }
        self.pairs = self.pairs.saturating_sub(1);
        self.mark_used(*id);
        Some(pair)
    }

    /// The ids of a set's pairs, in the same order on every member that has the same pairs.
    pub fn ids(&self, set: &Participants) -> impl Iterator<Item = TriplePairId> + '_ {
        self.sets.get(set).into_iter().flat_map(|pairs| pairs.keys().copied())
    }

    /// How many pairs a set has.
    #[must_use]
    pub fn count(&self, set: &Participants) -> usize {
        self.sets.get(set).map_or(0, BTreeMap::len)
    }

    /// Discards every pair of a set with a boot that `is_current` no longer knows; how many went.
    pub fn retain_boots(&mut self, is_current: impl Fn(&BootId) -> bool) -> usize {
        let stale: Vec<Participants> = self
            .sets
            .keys()
            .filter(|set| !set.as_slice().iter().all(|p| is_current(&p.boot)))
            .cloned()
            .collect();
        stale.iter().map(|set| self.discard(set)).fold(0, usize::saturating_add)
    }

    /// Discards everything: a key's epoch changed, and nothing made before may sign after it.
    pub fn clear(&mut self) -> usize {
        let all: Vec<Participants> = self.sets.keys().cloned().collect();
        all.iter().map(|set| self.discard(set)).fold(0, usize::saturating_add)
    }

    fn discard(&mut self, set: &Participants) -> usize {
        let pairs = self.sets.remove(set).unwrap_or_default();
        self.pairs = self.pairs.saturating_sub(pairs.len());
        for id in pairs.keys() {
            self.mark_used(*id);
        }
        pairs.len()
    }

    fn mark_used(&mut self, id: TriplePairId) {
        if self.used.insert(id) {
            self.used_order.push_back(id);
        }
        while self.used_order.len() > Self::MAX_USED {
            if let Some(oldest) = self.used_order.pop_front() {
                self.used.remove(&oldest);
            }
        }
    }
}
