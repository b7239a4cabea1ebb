//! A store's right edge: what a writer needs to go on where another writer stands.
//!
//! A node that begins from a snapshot of the ledger's state writes on a store whose files it never
//! saw. A peer gives it the edge of the tiles at the newest published checkpoint, the records that
//! are not published yet, and for a few older records (those that made keys live) a proof. None of
//! it is believed: everything is hashed again, up to the tree's root in a state that others vouch
//! for.
//!
//! ```text
//! tail = {0: published size,  1: [leaf, …]  of the bundle that is not full,
//!         2: [[hash, …], …]   of the tile that is not full, for each of 8 levels,
//!         3: [leaf, …]        records published by nobody yet, in order,
//!         4: {name: bytes, …} what travels beside those,
//!         5: {index: {0: leaf, 1: [hash, …]}, …}  older records with their proofs}
//! ```

use std::collections::{BTreeMap, VecDeque};

use casemate_proto::{Hash32, cbor};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::merkle::{ProofError, leaf_hash};
use crate::record::{Record, RecordError};
use crate::store::{StoreWriter, WriteError, frontier_of};
use crate::tree::{MAX_SIZE, Tree, TreeError};

/// Most bytes of a tail.
pub const MAX_TAIL: usize = 512 * 1024 * 1024;
/// Levels of tiles.
const LEVELS: usize = 8;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    published: u64,
    #[n(1)]
    leaves: Vec<ByteVec>,
    #[n(2)]
    edge: Vec<Vec<Hash32>>,
    #[n(3)]
    waiting: Vec<ByteVec>,
    #[n(4)]
    attached: BTreeMap<Hash32, ByteVec>,
    #[n(5)]
    pinned: BTreeMap<u64, Pinned>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Pinned {
    #[n(0)]
    leaf: ByteVec,
    #[n(1)]
    proof: Vec<Hash32>,
}

/// Why a tail is not that of a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// Not strict CBOR of a tail.
    #[error(transparent)]
    Cbor(#[from] cbor::CborError),
    /// Its parts are not those of a tree of its size.
    #[error("{what} {found}, where a tree of {size} leaves has {expected}")]
    Shape {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
        /// The published size.
        size: u64,
    },
    /// It is of more records than the tree has.
    #[error("{published} records are published of a tree that has {size}")]
    Ahead {
        /// How many are published.
        published: u64,
        /// How many the tree has.
        size: u64,
    },
    /// A record of the edge is not the one that its tile names.
    #[error("record {index} is not the one in the tile above it")]
    OtherLeaf {
        /// Its index.
        index: u64,
    },
    /// Not a record.
    #[error("leaf {index}: {why}")]
    Record {
        /// Its index.
        index: u64,
        /// Why.
        why: RecordError,
    },
    /// A record that does not extend the edge.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The edge is no tree's.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It leads to another tree.
    #[error("it leads to {size} leaves with root {root}, not to {expected_size} with {expected}")]
    OtherTree {
        /// To how many leaves.
        size: u64,
        /// To which root.
        root: Hash32,
        /// How many leaves there should be.
        expected_size: u64,
        /// Which root there should be.
        expected: Hash32,
    },
    /// An older record's proof fails.
    #[error("record {index}: {why}")]
    Proof {
        /// Its index.
        index: u64,
        /// Why.
        why: ProofError,
    },
}

/// A tail that was checked.
#[derive(Debug)]
pub struct Tail {
    /// Writes on where the newest published checkpoint ends; it has what travels beside the
    /// records that wait.
    pub writer: StoreWriter,
    /// The records that are not published yet.
    pub waiting: VecDeque<Record>,
    /// Proves from the published size on, and the pinned records.
    pub tree: Tree,
    /// Older records, by index, pinned in the tree.
    pub pinned: BTreeMap<u64, Record>,
}

impl StoreWriter {
    /// The tail of this writer's store, with the records that it has not been given yet, and with
    /// older leaves and their proofs in the tree that ends with those. `None` between a record and
    /// its checkpoint.
    #[must_use]
    pub fn tail<'a>(
        &self,
        waiting: impl IntoIterator<Item = &'a Record>,
        pinned: impl IntoIterator<Item = (u64, &'a [u8], Vec<Hash32>)>,
    ) -> Option<Vec<u8>> {
        if self.size() != self.committed {
            return None;
        }
        let mut edge = self.edge.clone();
        edge.resize(LEVELS, Vec::new());
        let bytes = |leaf: &[u8]| ByteVec::from(leaf.to_vec());
        Some(cbor::encode(&Wire {
            published: self.committed,
            leaves: self.leaves.iter().map(|leaf| bytes(leaf)).collect(),
            edge,
            waiting: waiting.into_iter().map(|record| bytes(record.leaf_bytes())).collect(),
            attached: self.attached.iter().map(|(name, b)| (*name, bytes(b))).collect(),
            pinned: pinned
                .into_iter()
                .map(|(index, leaf, proof)| (index, Pinned { leaf: bytes(leaf), proof }))
                .collect(),
        }))
    }

    /// Goes on from a peer's tail, checked against the tree that the state has. Where nothing is
    /// published yet, `genesis` will be. What travels beside entries is taken as it comes: who knows
    /// what its names hash checks it ([`Self::attached`]).
    ///
    /// # Errors
    /// If anything in it is not exactly what leads to that tree.
    pub fn from_tail(
        genesis: &[u8],
        bytes: &[u8],
        size: u64,
        root: Hash32,
    ) -> Result<Tail, TailError> {
        let wire: Wire = cbor::decode(bytes, MAX_TAIL)?;
        let published = wire.published;
        let ahead = TailError::Ahead { published, size };
        let expected = size.checked_sub(published).ok_or_else(|| ahead.clone())?;
        if size > MAX_SIZE {
            return Err(ahead);
        }
        let shape = |what, found, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(TailError::Shape { what, found, expected, size: published })
            }
        };
        let width = |level: usize| {
            let bits = u32::try_from(level).unwrap_or(u32::MAX).saturating_mul(8);
            usize::from(
                published
                    .checked_shr(bits)
                    .unwrap_or(0)
                    .to_le_bytes()
                    .first()
                    .copied()
                    .unwrap_or(0),
            )
        };
        shape("levels of tiles:", wire.edge.len(), LEVELS)?;
        for (level, hashes) in wire.edge.iter().enumerate() {
            shape("hashes of a level:", hashes.len(), width(level))?;
        }
        shape("records at the edge:", wire.leaves.len(), width(0))?;
        shape(
            "records that wait:",
            wire.waiting.len(),
            usize::try_from(expected).unwrap_or(usize::MAX),
        )?;
        let first = published.saturating_sub(u64::try_from(wire.leaves.len()).unwrap_or(0));
        for ((index, leaf), hash) in
            (first..).zip(&wire.leaves).zip(wire.edge.first().map_or(&[][..], Vec::as_slice))
        {
            if leaf_hash(leaf) != *hash {
                return Err(TailError::OtherLeaf { index });
            }
        }
        let frontier = frontier_of(published, &wire.edge)?;
        let mut tree = Tree::from_frontier(frontier.clone());
        let writer = Self {
            frontier,
            committed: published,
            leaves: wire.leaves.into_iter().map(Vec::from).collect(),
            edge: wire.edge,
            attached: wire.attached.into_iter().map(|(name, b)| (name, b.into())).collect(),
            pending: match published {
                0 => Self::new(genesis).pending,
                _ => Vec::new(),
            },
        };
        let parse = |index, leaf: &[u8]| {
            Record::parse(leaf).map_err(|why| TailError::Record { index, why })
        };
        // the records must be in order and each name the root before it, as when they are written
        let mut rehearsal = writer.clone();
        let mut waiting = VecDeque::with_capacity(wire.waiting.len());
        for (index, leaf) in (published..).zip(&wire.waiting) {
            let record = parse(index, leaf)?;
            rehearsal.append(&record)?;
            tree.append(record.leaf_hash());
            waiting.push_back(record);
        }
        if (tree.size(), tree.root()) != (size, root) {
            let (found, expected_size) = (tree.root(), size);
            let size = tree.size();
            return Err(TailError::OtherTree { size, root: found, expected_size, expected: root });
        }
        let mut pinned = BTreeMap::new();
        for (index, Pinned { leaf, proof }) in wire.pinned {
            let record = parse(index, &leaf)?;
            tree.pin_proved(&record.leaf_hash(), index, &proof)
                .map_err(|why| TailError::Proof { index, why })?;
            pinned.insert(index, record);
        }
        Ok(Tail { writer, waiting, tree, pinned })
    }

    /// What travels beside entries that are not handed out yet, by its name.
    #[must_use]
    pub const fn attached(&self) -> &BTreeMap<Hash32, Vec<u8>> {
        &self.attached
    }
}
