//! The growing tree: its frontier, the hashes that proofs are made of, and the proofs.
//!
//! Two shapes of one tree. A [`Frontier`] holds only the roots of the complete subtrees that the
//! tree is made of: at most 64 hashes, enough to append and to know the root, and what a snapshot
//! carries. A [`Tree`] also keeps every hash from a *base* on, two for each leaf (64 bytes), from
//! which it proves inclusion of every leaf, and consistency of every size, from the base on. An
//! enclave moves the base forward ([`Tree::forget_before`]), as what is older is in the tiles of
//! the auditors' stores; a tree restored from a snapshot has its base there.
//!
//! A leaf can be *pinned* ([`Tree::pin`]): the at most 48 hashes beside its path stay when the
//! base moves past them, so that it can be proved for ever.
//!
//! Why the base works: in a proof for a leaf at or behind the base, each sibling either was
//! completed behind it, or is one of the complete subtrees of the frontier at the base.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use casemate_proto::Hash32;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::merkle::{ProofError, empty_root, node_hash, verify_inclusion};

/// Most leaves in a tree: 2⁴⁸ is 8,900 years at a thousand entries a second.
pub const MAX_SIZE: u64 = 1 << 48;

/// Why a proof or a root cannot be given, or a frontier is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The tree is smaller than asked for.
    #[error("the tree has {have} leaves, not the {size} asked for")]
    SizeOutside {
        /// The size asked for.
        size: u64,
        /// The size there is.
        have: u64,
    },
    /// The leaf is outside the tree of that size, or the first size is above the second.
    #[error("{index} is outside a tree of {size} leaves")]
    IndexOutside {
        /// The leaf's index, or the earlier size.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The hash is not kept here (it is in the tiles).
    #[error("hash {index} of level {level} is not kept here")]
    Missing {
        /// 0 for leaves.
        level: u8,
        /// Index within the level.
        index: u64,
    },
    /// The number of hashes is not that of a tree of this size.
    #[error("{hashes} hashes are not the frontier of a tree of {size} leaves")]
    NotAFrontier {
        /// The size.
        size: u64,
        /// How many hashes.
        hashes: usize,
    },
}

/// The roots of the complete subtrees that a tree is made of, the largest first: one for each bit
/// set in its size.
///
/// CBOR: `[size, [hash, …]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Hash32>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, hashes: Vec::new() }
    }

    /// From its size and hashes, the largest subtree first.
    ///
    /// # Errors
    /// If their number does not fit the size, or the size is above [`MAX_SIZE`].
    pub fn from_parts(size: u64, hashes: Vec<Hash32>) -> Result<Self, TreeError> {
        let expected = usize::try_from(size.count_ones()).ok();
        if size > MAX_SIZE || expected != Some(hashes.len()) {
            return Err(TreeError::NotAFrontier { size, hashes: hashes.len() });
        }
        Ok(Self { size, hashes })
    }

    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes, the largest subtree first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash32] {
        &self.hashes
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash32 {
        fold_right(&self.hashes)
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf: Hash32) {
        self.append_with(leaf, |_, _| ());
    }

    /// Appends a leaf by its hash and shows every hash that it completes, from level 0 up.
    fn append_with(&mut self, leaf: Hash32, mut completed: impl FnMut(u8, Hash32)) {
        let mut hash = leaf;
        let mut level = 0_u8;
        completed(level, hash);
        let mut rest = self.size;
        while rest & 1 == 1 {
            if let Some(left) = self.hashes.pop() {
                hash = node_hash(&left, &hash);
            }
            level = level.saturating_add(1);
            completed(level, hash);
            rest >>= 1;
        }
        self.hashes.push(hash);
        // sizes near the largest u64 are not reached by appending, and not accepted otherwise
        self.size = self.size.saturating_add(1);
    }
}

impl<C> Encode<C> for Frontier {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?.u64(self.size)?;
        self.hashes.encode(e, c)
    }
}
impl<'b, C> Decode<'b, C> for Frontier {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        if d.array()? != Some(2) {
            return Err(decode::Error::message("a frontier is an array of two").at(at));
        }
        let size = d.u64()?;
        let hashes = <Vec<Hash32>>::decode(d, c)?;
        Self::from_parts(size, hashes)
            .map_err(|_| decode::Error::message("not the frontier of a tree of that size").at(at))
    }
}

/// Where the hashes of complete subtrees are found: in memory, or in tiles.
pub trait HashStore {
    /// The root of the complete subtree over leaves `index · 2^level` to
    /// `(index + 1) · 2^level − 1`; `None` if it is not complete or not kept.
    fn hash(&self, level: u8, index: u64) -> Option<Hash32>;
}

/// A tree that grows and proves. See the module's head for what it keeps.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    base: u64,
    frontier: Frontier,
    levels: Vec<Level>,
    /// Leaves that stay provable.
    pins: BTreeSet<u64>,
    /// What their proofs need of before the base, by level and index.
    kept: BTreeMap<(u8, u64), Hash32>,
}

/// The hashes of one level from index `first` on, which is always even.
#[derive(Clone, Debug, Default)]
struct Level {
    first: u64,
    hashes: VecDeque<Hash32>,
}

impl Tree {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A tree that proves what is appended from here on.
    #[must_use]
    pub fn from_frontier(frontier: Frontier) -> Self {
        let base = frontier.size;
        let mut small_first = frontier.hashes.iter().rev().copied();
        let bits = u64::BITS.saturating_sub(base.leading_zeros());
        let levels = (0..bits)
            .map(|level| {
                let complete = base.checked_shr(level).unwrap_or(0);
                let kept = if complete & 1 == 1 { small_first.next() } else { None };
                Level { first: complete & !1, hashes: kept.into_iter().collect() }
            })
            .collect();
        Self { base, frontier, levels, ..Self::default() }
    }

    /// Appends a leaf by its hash and returns its index.
    pub fn append(&mut self, leaf: Hash32) -> u64 {
        let index = self.frontier.size;
        let levels = &mut self.levels;
        self.frontier.append_with(leaf, |level, hash| {
            let level = usize::from(level);
            if level == levels.len() {
                levels.push(Level::default());
            }
            if let Some(level) = levels.get_mut(level) {
                level.hashes.push_back(hash);
            }
        });
        index
    }

    /// How many leaves it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size
    }

    /// The first leaf, and the first size, that it can prove anything about.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> Hash32 {
        self.frontier.root()
    }

    /// What a snapshot carries.
    #[must_use]
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Drops what only proofs about leaves and sizes before `size` need, pinned leaves excepted.
    /// Sizes beyond the end count as the end.
    pub fn forget_before(&mut self, size: u64) {
        let base = size.min(self.size()).max(self.base);
        self.base = base;
        for (bits, level) in (0_u8..).zip(&mut self.levels) {
            let first = base.checked_shr(bits.into()).unwrap_or(0) & !1;
            let dropped = usize::try_from(first.saturating_sub(level.first)).unwrap_or(usize::MAX);
            let gone = level.hashes.drain(..dropped.min(level.hashes.len()));
            for (index, hash) in (level.first..).zip(gone) {
                if is_beside(&self.pins, bits, index) {
                    self.kept.insert((bits, index), hash);
                }
            }
            level.first = first.max(level.first);
        }
    }

    /// Keeps a leaf provable, wherever the base moves.
    ///
    /// # Errors
    /// If there is no such leaf, or it is before the base.
    pub fn pin(&mut self, index: u64) -> Result<(), TreeError> {
        let size = self.size();
        if index >= size {
            return Err(TreeError::IndexOutside { index, size });
        }
        if index < self.base && !self.pins.contains(&index) {
            return Err(TreeError::Missing { level: 0, index });
        }
        self.pins.insert(index);
        Ok(())
    }

    /// Pins a leaf from before the base by a proof that it is in the tree as it is now.
    ///
    /// # Errors
    /// If it is not shown to be.
    pub fn pin_proved(
        &mut self,
        leaf: &Hash32,
        index: u64,
        proof: &[Hash32],
    ) -> Result<(), ProofError> {
        let size = self.size();
        verify_inclusion(leaf, index, size, proof, &self.root())?;
        self.pins.insert(index);
        let mut from_top = proof.iter().rev();
        let (mut low, mut high) = (0, size);
        while let (Some(middle), Some(hash)) = (split(low, high), from_top.next()) {
            let (beside, width) = if index < middle {
                (middle, high.saturating_sub(middle))
            } else {
                (low, middle.saturating_sub(low))
            };
            // a range that is not full yet will be, behind the base
            if width.is_power_of_two() && beside.checked_rem(width) == Some(0) {
                let bits = u8::try_from(width.trailing_zeros()).unwrap_or(u8::MAX);
                self.kept.insert((bits, beside.checked_shr(bits.into()).unwrap_or(0)), *hash);
            }
            if index < middle { high = middle } else { low = middle }
        }
        Ok(())
    }

    /// Lets a pinned leaf go.
    pub fn unpin(&mut self, index: u64) {
        if self.pins.remove(&index) {
            let pins = &self.pins;
            self.kept.retain(|(level, at), _| is_beside(pins, *level, *at));
        }
    }

    /// The root it had with `size` leaves.
    ///
    /// # Errors
    /// If that is beyond the end or before the base.
    pub fn root_at(&self, size: u64) -> Result<Hash32, TreeError> {
        self.check_size(size)?;
        root_at(self, size)
    }

    /// A proof that leaf `index` is in the tree of `size` leaves, siblings from the leaf up.
    ///
    /// # Errors
    /// If there is no such leaf or size, or the leaf is before the base.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash32>, TreeError> {
        self.check_size(size)?;
        inclusion_proof(self, index, size)
    }

    /// A proof that the tree of `from` leaves is the beginning of that of `to` leaves.
    ///
    /// # Errors
    /// If there is no such size, or `from` is before the base.
    pub fn consistency_proof(&self, from: u64, to: u64) -> Result<Vec<Hash32>, TreeError> {
        self.check_size(to)?;
        consistency_proof(self, from, to)
    }

    const fn check_size(&self, size: u64) -> Result<(), TreeError> {
        let have = self.size();
        if size > have { Err(TreeError::SizeOutside { size, have }) } else { Ok(()) }
    }
}

impl HashStore for Tree {
    fn hash(&self, level: u8, index: u64) -> Option<Hash32> {
        let here = self.levels.get(usize::from(level)).and_then(|level| {
            let at = usize::try_from(index.checked_sub(level.first)?).ok()?;
            level.hashes.get(at).copied()
        });
        here.or_else(|| self.kept.get(&(level, index)).copied())
    }
}

/// Whether a subtree is beside the path of one of these leaves.
fn is_beside(leaves: &BTreeSet<u64>, level: u8, index: u64) -> bool {
    let first = |index: u64| index.checked_shl(level.into()).unwrap_or(u64::MAX);
    let beside = index ^ 1;
    let behind = first(beside.saturating_add(1));
    leaves.range(first(beside)..).next().is_some_and(|leaf| *leaf < behind)
}

/// The root of the tree's first `size` leaves.
///
/// # Errors
/// If a hash is missing.
pub fn root_at(store: &impl HashStore, size: u64) -> Result<Hash32, TreeError> {
    range_hash(store, 0, size)
}

/// A proof that leaf `index` is in the tree of `size` leaves (RFC 9162, 2.1.3.1), siblings from
/// the leaf up.
///
/// # Errors
/// If the leaf is outside that tree, or a hash is missing.
pub fn inclusion_proof(
    store: &impl HashStore,
    index: u64,
    size: u64,
) -> Result<Vec<Hash32>, TreeError> {
    if index >= size {
        return Err(TreeError::IndexOutside { index, size });
    }
    let mut path = Vec::new();
    let (mut low, mut high) = (0, size);
    while let Some(middle) = split(low, high) {
        if index < middle {
            path.push(range_hash(store, middle, high)?);
            high = middle;
        } else {
            path.push(range_hash(store, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// A proof that the tree of `from` leaves is the beginning of that of `to` leaves (RFC 9162,
/// 2.1.4.1). From the empty tree, or between equal sizes, it is empty.
///
/// # Errors
/// If `from` is larger than `to`, or a hash is missing.
pub fn consistency_proof(
    store: &impl HashStore,
    from: u64,
    to: u64,
) -> Result<Vec<Hash32>, TreeError> {
    if from > to {
        return Err(TreeError::IndexOutside { index: from, size: to });
    }
    let mut path = Vec::new();
    let (mut low, mut high) = (0, to);
    if from == 0 {
        return Ok(path);
    }
    while from != high {
        let Some(middle) = split(low, high) else { break };
        if from <= middle {
            path.push(range_hash(store, middle, high)?);
            high = middle;
        } else {
            path.push(range_hash(store, low, middle)?);
            low = middle;
        }
    }
    // a verifier of a complete earlier tree has its root already
    if low != 0 {
        path.push(range_hash(store, low, high)?);
    }
    path.reverse();
    Ok(path)
}

/// Where RFC 6962 splits the leaves `low..high`: behind the largest power of two smaller than
/// their number. `None` for fewer than two.
fn split(low: u64, high: u64) -> Option<u64> {
    let last = high.checked_sub(low)?.checked_sub(1)?;
    low.checked_add(1_u64.checked_shl(last.checked_ilog2()?)?)
}

/// The hash over leaves `low..high`, which begin a subtree: complete subtrees from the left.
fn range_hash(store: &impl HashStore, mut low: u64, high: u64) -> Result<Hash32, TreeError> {
    let mut parts = Vec::new();
    while let Some(bits) = high.saturating_sub(low).checked_ilog2() {
        let level = u8::try_from(bits).unwrap_or(u8::MAX);
        let index = low.checked_shr(bits).unwrap_or(0);
        parts.push(store.hash(level, index).ok_or(TreeError::Missing { level, index })?);
        low = low.saturating_add(1_u64.checked_shl(bits).unwrap_or(0));
    }
    Ok(fold_right(&parts))
}

fn fold_right(parts: &[Hash32]) -> Hash32 {
    let mut right_first = parts.iter().rev().copied();
    right_first.next().map_or_else(empty_root, |last| {
        right_first.fold(last, |right, left| node_hash(&left, &right))
    })
}
