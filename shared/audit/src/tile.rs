//! C2SP `tlog-tiles`: how the tree and its leaves are laid out in files of at most 256 items.
//!
//! `tile/<L>/<N>[.p/<W>]` holds `W` (256 where not given) hashes of tree level 8·L from index
//! 256·N on; `tile/entries/<N>[.p/<W>]` holds the leaves under the hash tile of level 0 with the
//! same N, each behind its length as 16 bits, big endian.

use core::fmt;

use casemate_proto::Hash32;

use crate::record::MAX_LEAF;
use crate::tree::{HashStore, TreeError};

/// Most items in a tile.
pub const FULL: u16 = 256;
/// How many levels of the tree one level of tiles spans.
const HEIGHT: u32 = 8;
/// Levels of tiles above which no tree that fits 64 bits reaches.
const LEVELS: u8 = 8;

/// Why something is not a tile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Not a tile's path.
    #[error("`{input}` is not a tile's path, such as `tile/0/x001/234` or `tile/entries/000.p/7`")]
    BadPath {
        /// The beginning of the text.
        input: String,
    },
    /// A tile that no tree has.
    #[error("there is no tile of level {level}, index {index} and width {width}")]
    NoSuchTile {
        /// The level.
        level: u8,
        /// The index.
        index: u64,
        /// The width.
        width: u16,
    },
    /// A tile of hashes with another number of bytes.
    #[error("`{tile}` has {size} bytes, not 32 for each of {width} hashes")]
    WrongSize {
        /// Which.
        tile: Tile,
        /// How many bytes it has.
        size: usize,
        /// How many hashes it should have.
        width: u16,
    },
    /// A bundle of entries that ends too early or too late.
    #[error("`{tile}` does not hold exactly {width} entries: wrong from byte {at}")]
    WrongEntries {
        /// Which.
        tile: Tile,
        /// How many it should hold.
        width: u16,
        /// Where it goes wrong.
        at: usize,
    },
    /// An entry that a bundle cannot hold.
    #[error("entry {at} of the bundle has {size} bytes where at most {max} are allowed", max = MAX_LEAF)]
    EntryTooLarge {
        /// Its place in the bundle.
        at: usize,
        /// Its size.
        size: usize,
    },
}

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes, of the tree's level eight times this.
    Hashes(u8),
    /// Leaves.
    Entries,
}

/// The name of a tile: what it holds, its index from 0, and how many items it has (1 to 256).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl Tile {
    /// A tile by what it holds, index and width.
    ///
    /// # Errors
    /// If the width is not 1 to 256, or the tile is beyond every tree.
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        let level = match kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        let bits = u32::from(level).saturating_add(1).saturating_mul(HEIGHT);
        let beyond = index.leading_zeros() < bits;
        if level >= LEVELS || beyond || width == 0 || width > FULL {
            return Err(TileError::NoSuchTile { level, index, width });
        }
        Ok(Self { kind, index, width })
    }

    /// What it holds.
    #[must_use]
    pub const fn kind(&self) -> TileKind {
        self.kind
    }
    /// Its index, from 0.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }
    /// How many items it has.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }
    /// Whether it will never change again.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == FULL
    }
    /// The same tile once it is full: where a partial one may be found later.
    #[must_use]
    pub const fn full(&self) -> Self {
        Self { kind: self.kind, index: self.index, width: FULL }
    }

    /// Parses a path.
    ///
    /// # Errors
    /// If it is not a tile's path in its one form.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        parse_path(path)
            .filter(|tile| tile.to_string() == path)
            .ok_or_else(|| TileError::BadPath { input: path.chars().take(80).collect() })
    }

    /// The index, in its level, of its first item.
    const fn first(&self) -> u64 {
        self.index.saturating_mul(256)
    }
}

fn parse_path(path: &str) -> Option<Tile> {
    // the longest: seven groups of an index, the level and the width
    if path.len() > 64 {
        return None;
    }
    let (path, width) = match path.rsplit_once(".p/") {
        Some((path, width)) => (path, width.parse().ok().filter(|&width| width < FULL)?),
        None => (path, FULL),
    };
    let (kind, number) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(level.parse().ok()?),
    };
    let index = number.replace(['/', 'x'], "").parse().ok()?;
    Tile::new(kind, index, width).ok()
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        f.write_str(&groups.join("/"))?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// The tiles of a tree of `new` leaves that one of `old` leaves does not have as they are: hashes
/// from level 0 up, then entries; for each, the full ones and then the partial one.
pub fn tiles_for(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    let hashes = (0..LEVELS).map(TileKind::Hashes);
    hashes.chain([TileKind::Entries]).flat_map(move |kind| {
        let level = if let TileKind::Hashes(level) = kind { level } else { 0 };
        let shift = u32::from(level).saturating_mul(HEIGHT);
        let items = |size: u64| size.checked_shr(shift).unwrap_or(0);
        let (had, have) = (items(old), items(new));
        let full = (had / 256..have / 256).map(move |index| Tile { kind, index, width: FULL });
        let width = u16::try_from(have % 256).unwrap_or(0);
        let partial = (width > 0 && have > had).then_some(Tile { kind, index: have / 256, width });
        full.chain(partial)
    })
}

/// The bytes of a tile of hashes.
///
/// # Errors
/// If a hash is missing. A tile of entries holds no hashes: use [`encode_bundle`].
pub fn tile_bytes(store: &impl HashStore, tile: Tile) -> Result<Vec<u8>, TreeError> {
    let level = match tile.kind {
        TileKind::Hashes(level) => level.saturating_mul(8),
        TileKind::Entries => 0,
    };
    let mut bytes = Vec::with_capacity(usize::from(tile.width).saturating_mul(32));
    for offset in 0..u64::from(tile.width) {
        let index = tile.first().saturating_add(offset);
        let hash = store.hash(level, index).ok_or(TreeError::Missing { level, index })?;
        bytes.extend_from_slice(hash.as_bytes());
    }
    Ok(bytes)
}

/// The hashes in a tile.
///
/// # Errors
/// If it does not have the size for exactly its width.
pub fn parse_tile(tile: Tile, bytes: &[u8]) -> Result<Vec<Hash32>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != usize::from(tile.width) {
        return Err(TileError::WrongSize { tile, size: bytes.len(), width: tile.width });
    }
    Ok(hashes.iter().copied().map(Hash32::new).collect())
}

/// The bytes of a bundle of entries.
///
/// # Errors
/// If an entry has more than 65,535 bytes.
pub fn encode_bundle<L: AsRef<[u8]>>(leaves: &[L]) -> Result<Vec<u8>, TileError> {
    let mut bytes = Vec::new();
    for (at, leaf) in leaves.iter().enumerate() {
        let leaf = leaf.as_ref();
        let length = u16::try_from(leaf.len())
            .map_err(|_| TileError::EntryTooLarge { at, size: leaf.len() })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(leaf);
    }
    Ok(bytes)
}

/// The leaves in a bundle of entries.
///
/// # Errors
/// If it does not hold exactly as many as its width.
pub fn parse_bundle(tile: Tile, bytes: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let mut leaves = Vec::with_capacity(usize::from(tile.width));
    let mut rest = bytes;
    let wrong = |rest: &[u8]| TileError::WrongEntries {
        tile,
        width: tile.width,
        at: bytes.len().saturating_sub(rest.len()),
    };
    for _ in 0..tile.width {
        let (length, behind) = rest.split_first_chunk::<2>().ok_or_else(|| wrong(rest))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (leaf, behind) = behind.split_at_checked(length).ok_or_else(|| wrong(rest))?;
        leaves.push(leaf);
        rest = behind;
    }
    if rest.is_empty() { Ok(leaves) } else { Err(wrong(rest)) }
}
