//! An auditor's store: the folder that a node's parent writes and that anybody verifies offline.
//!
//! ```text
//! genesis.cbor                     how the cluster began
//! checkpoint                       the newest signed checkpoint
//! tile/<L>/<N>[.p/<W>]             hashes (C2SP tlog-tiles)
//! tile/entries/<N>[.p/<W>]         records
//! attachments/<hash>               what entries only name, by its hash: policies
//! checkpoints/<size>-<root>        every checkpoint given out: two roots of one size show a split view
//! receipts/<index>-<hash>          receipts given out, where they are kept
//! ```
//!
//! It is a log of C2SP `tlog-tiles` with a few files beside it, so monitors that know nothing of
//! Casemate can read it. The host that writes it is not trusted: whoever reads it checks all of it
//! (see `verify`).

use core::fmt;
use std::collections::BTreeMap;

use casemate_proto::Hash32;
use casemate_proto::hash::sha256;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{MAX_NOTE, NoteError, SignedNote};
use crate::receipt::InclusionReceipt;
use crate::record::{MAX_LEAF, Record};
use crate::tile::{
    FULL, Tile, TileError, TileKind, encode_bundle, parse_bundle, parse_tile, tiles_for,
};
use crate::tree::{Frontier, MAX_SIZE, TreeError};

/// How the cluster began.
pub const GENESIS: &str = "genesis.cbor";
/// The newest checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The folder of all checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The folder of receipts.
pub const RECEIPTS: &str = "receipts";
/// Most bytes of a tile or a bundle of entries.
pub const MAX_TILE: usize = 256 * (MAX_LEAF + 2);

/// Most bytes of an attachment.
pub const MAX_ATTACHMENT: usize = 16 * 1024 * 1024;

/// A file to write: its path within the store, and what is in it.
pub type File = (String, Vec<u8>);

/// Where a checkpoint that was given out is kept.
#[must_use]
pub fn checkpoint_path(size: u64, root: &Hash32) -> String {
    format!("{CHECKPOINTS}/{size}-{}", hex::encode(root.as_bytes()))
}

/// Where the attachment that entries call by this hash is kept.
#[must_use]
pub fn attachment_path(name: &Hash32) -> String {
    format!("attachments/{}", hex::encode(name.as_bytes()))
}

/// The file that keeps a receipt for the record with this index.
#[must_use]
pub fn receipt_file(index: u64, receipt: &InclusionReceipt) -> File {
    let bytes = receipt.to_bytes();
    (format!("{RECEIPTS}/{index:012}-{}", hex::encode(sha256(&bytes))), bytes)
}

/// The file that keeps a checkpoint.
///
/// # Errors
/// If the note is no checkpoint.
pub fn checkpoint_file(note: &SignedNote) -> Result<File, CheckpointError> {
    let checkpoint = Checkpoint::parse(note.text())?;
    let path = checkpoint_path(checkpoint.size, &checkpoint.root);
    Ok((path, note.to_string().into_bytes()))
}

/// Reading a store.
pub trait StoreRead {
    /// Why a file cannot be read.
    type Error: fmt::Display;

    /// The bytes of the file at `path`, `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or has more than `max` bytes (which must not be read first).
    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The names of the files in `folder`, in order; none if there is no such folder.
    ///
    /// # Errors
    /// If it cannot be listed.
    fn list(&self, folder: &str) -> Result<Vec<String>, Self::Error>;
}

/// A file of a store in memory that is larger than was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file has {size} bytes, more than {max}")]
pub struct FileTooLarge {
    /// How many it has.
    pub size: usize,
    /// The most it may have.
    pub max: usize,
}

/// A store in memory: paths and contents.
impl StoreRead for BTreeMap<String, Vec<u8>> {
    type Error = FileTooLarge;

    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, FileTooLarge> {
        match self.get(path) {
            Some(bytes) if bytes.len() > max => Err(FileTooLarge { size: bytes.len(), max }),
            found => Ok(found.cloned()),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, FileTooLarge> {
        let names = self.keys().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }
}

/// Reads a tile or bundle, or the full one that a partial one became the beginning of, and says
/// which.
///
/// # Errors
/// If it cannot be read.
pub fn read_tile<S: StoreRead>(store: &S, tile: Tile) -> Result<Option<(Tile, Vec<u8>)>, S::Error> {
    if let Some(bytes) = store.read(&tile.to_string(), MAX_TILE)? {
        return Ok(Some((tile, bytes)));
    }
    if tile.is_full() {
        return Ok(None);
    }
    let full = tile.full();
    Ok(store.read(&full.to_string(), MAX_TILE)?.map(|bytes| (full, bytes)))
}

/// Why a store cannot be written on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A record out of turn.
    #[error("record {found} comes where record {expected} is due")]
    OutOfTurn {
        /// The index due.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// A record that extends another tree.
    #[error("record {index} extends a tree with root {found}, not {expected}")]
    OtherTree {
        /// The record's index.
        index: u64,
        /// The root here.
        expected: Hash32,
        /// The root it names.
        found: Hash32,
    },
    /// A checkpoint of another tree than the records written.
    #[error("the checkpoint has {size} leaves and root {root}, the records {have} and {have_root}")]
    OtherCheckpoint {
        /// The checkpoint's size.
        size: u64,
        /// The checkpoint's root.
        root: Hash32,
        /// How many records there are.
        have: u64,
        /// Their root.
        have_root: Hash32,
    },
    /// Not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Not a note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A tile of the store to continue is wrong.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// The tree of the store to continue is too large.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file of the store to continue is missing.
    #[error("`{path}` is missing")]
    Missing {
        /// Which.
        path: String,
    },
    /// A file of the store to continue cannot be read.
    #[error("`{path}` cannot be read: {reason}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Turns records and checkpoints into a store's files, a step at a time. It keeps the right edge
/// of the tree only: at most 256 records, and 256 hashes for each level of tiles.
#[derive(Clone, Debug, Default)]
pub struct StoreWriter {
    pub(crate) frontier: Frontier,
    /// The size at the last commit.
    pub(crate) committed: u64,
    /// The leaves of the bundle that is not full.
    pub(crate) leaves: Vec<Vec<u8>>,
    /// The hashes of the tile of each level that is not full.
    pub(crate) edge: Vec<Vec<Hash32>>,
    /// Files that are complete but not handed out.
    pub(crate) pending: Vec<File>,
    /// What travels beside entries that are not handed out, by its name.
    pub(crate) attached: BTreeMap<Hash32, Vec<u8>>,
}

impl StoreWriter {
    /// A new store, with the genesis that goes into it.
    #[must_use]
    pub fn new(genesis: &[u8]) -> Self {
        Self { pending: vec![(GENESIS.to_owned(), genesis.to_vec())], ..Self::default() }
    }

    /// Continues a store from its newest checkpoint.
    ///
    /// # Errors
    /// If a file that this needs is missing or contradicts the checkpoint.
    pub fn resume<S: StoreRead>(store: &S) -> Result<Self, WriteError> {
        let read = |path: &str| match store.read(path, MAX_NOTE) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(WriteError::Missing { path: path.to_owned() }),
            Err(error) => {
                Err(WriteError::Unreadable { path: path.to_owned(), reason: error.to_string() })
            }
        };
        let note = SignedNote::parse(&read(CHECKPOINT)?)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        let size = checkpoint.size;
        if size > MAX_SIZE {
            return Err(TreeError::NotAFrontier { size, hashes: 0 }.into());
        }
        let mut writer = Self { committed: size, ..Self::default() };
        for level in 0..8 {
            let hashes = match partial(size, TileKind::Hashes(level)) {
                None => Vec::new(),
                Some(tile) => {
                    let (found, bytes) = required_tile(store, tile)?;
                    let mut hashes = parse_tile(found, &bytes)?;
                    hashes.truncate(usize::from(tile.width()));
                    hashes
                }
            };
            writer.edge.push(hashes);
        }
        writer.frontier = frontier_of(size, &writer.edge)?;
        if let Some(tile) = partial(size, TileKind::Entries) {
            let (found, bytes) = required_tile(store, tile)?;
            let leaves = parse_bundle(found, &bytes)?;
            let width = usize::from(tile.width());
            writer.leaves = leaves.into_iter().take(width).map(<[u8]>::to_vec).collect();
        }
        writer.check(&checkpoint)?;
        Ok(writer)
    }

    /// How many records it has been given.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// If it is not the next, or extends another tree.
    pub fn append(&mut self, record: &Record) -> Result<(), WriteError> {
        let (index, expected) = (record.index(), self.frontier.size());
        if index != expected {
            return Err(WriteError::OutOfTurn { expected, found: index });
        }
        let (root, found) = (self.frontier.root(), record.fields().previous_root);
        if found != root {
            return Err(WriteError::OtherTree { index, expected: root, found });
        }
        self.leaves.push(record.leaf_bytes().to_vec());
        self.frontier.append(record.leaf_hash());
        if self.leaves.len() == usize::from(FULL) {
            let bundle = encode_bundle(&self.leaves)?;
            let tile = Tile::new(TileKind::Entries, index / 256, FULL)?;
            self.pending.push((tile.to_string(), bundle));
            self.leaves.clear();
        }
        self.push_hash(record.leaf_hash(), index)
    }

    /// Takes what travels beside an entry, by the hash that the entry calls it.
    pub fn attach(&mut self, name: &Hash32, bytes: &[u8]) {
        self.attached.insert(*name, bytes.to_vec());
    }

    /// Adds a leaf's hash to the tiles, and full tiles' roots to the tiles above.
    fn push_hash(&mut self, leaf: Hash32, index: u64) -> Result<(), WriteError> {
        let (mut hash, mut at) = (leaf, index);
        for level in 0_u8..8 {
            let slot = usize::from(level);
            if self.edge.len() <= slot {
                self.edge.push(Vec::new());
            }
            let Some(edge) = self.edge.get_mut(slot) else { break };
            edge.push(hash);
            if edge.len() < usize::from(FULL) {
                break;
            }
            at /= 256;
            let tile = Tile::new(TileKind::Hashes(level), at, FULL)?;
            self.pending.push((tile.to_string(), hash_bytes(edge)));
            let mut root = Frontier::new();
            edge.drain(..).for_each(|hash| root.append(hash));
            hash = root.root();
        }
        Ok(())
    }

    /// The files that bring the store to this checkpoint, in the order to write them: the
    /// checkpoint itself comes last, so that a store that was being written when its host died
    /// is whole up to the checkpoint before.
    ///
    /// # Errors
    /// If the checkpoint is not of exactly the records given.
    pub fn commit(&mut self, note: &SignedNote) -> Result<Vec<File>, WriteError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        self.check(&checkpoint)?;
        let mut files = core::mem::take(&mut self.pending);
        let attached = core::mem::take(&mut self.attached);
        files.extend(attached.into_iter().map(|(name, bytes)| (attachment_path(&name), bytes)));
        for tile in tiles_for(self.committed, checkpoint.size).filter(|tile| !tile.is_full()) {
            let bytes = match tile.kind() {
                TileKind::Entries => encode_bundle(&self.leaves)?,
                TileKind::Hashes(level) => {
                    hash_bytes(self.edge.get(usize::from(level)).map_or(&[][..], Vec::as_slice))
                }
            };
            files.push((tile.to_string(), bytes));
        }
        self.committed = checkpoint.size;
        let (path, bytes) = checkpoint_file(note)?;
        files.push((path, bytes.clone()));
        files.push((CHECKPOINT.to_owned(), bytes));
        Ok(files)
    }

    fn check(&self, checkpoint: &Checkpoint) -> Result<(), WriteError> {
        let (size, root) = (checkpoint.size, checkpoint.root);
        let (have, have_root) = (self.frontier.size(), self.frontier.root());
        if (size, root) == (have, have_root) {
            Ok(())
        } else {
            Err(WriteError::OtherCheckpoint { size, root, have, have_root })
        }
    }
}

/// The frontier of a tree whose tiles that are not full hold these hashes, from level 0 up: the
/// complete subtrees under such a tile are the frontier of its hashes.
pub(crate) fn frontier_of(size: u64, edge: &[Vec<Hash32>]) -> Result<Frontier, TreeError> {
    let parts: Vec<Hash32> = edge
        .iter()
        .rev()
        .flat_map(|hashes| {
            let mut part = Frontier::new();
            hashes.iter().for_each(|hash| part.append(*hash));
            part.hashes().to_vec()
        })
        .collect();
    Frontier::from_parts(size, parts)
}

/// The tile of this kind that is not full in a tree of `size` leaves, if there is one.
fn partial(size: u64, kind: TileKind) -> Option<Tile> {
    let level = if let TileKind::Hashes(level) = kind { level } else { 0 };
    let items = size.checked_shr(u32::from(level).saturating_mul(8)).unwrap_or(0);
    // a width of zero is no tile
    Tile::new(kind, items / 256, u16::try_from(items % 256).unwrap_or(0)).ok()
}

fn required_tile<S: StoreRead>(store: &S, tile: Tile) -> Result<(Tile, Vec<u8>), WriteError> {
    let path = tile.to_string();
    match read_tile(store, tile) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(WriteError::Missing { path }),
        Err(error) => Err(WriteError::Unreadable { path, reason: error.to_string() }),
    }
}

fn hash_bytes(hashes: &[Hash32]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}
