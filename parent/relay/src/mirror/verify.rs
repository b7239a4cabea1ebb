//! Whether a file from elsewhere is the log's own: held against a checkpoint's root, from the top
//! of the tree down.
//!
//! A full tile of hashes has one hash of its own, which the tile above it holds. The tiles of the
//! right edge are not full and have none; together they give the root.

use casemate_audit::store::MAX_TILE;
use casemate_audit::tile::{FULL, Tile, TileKind, encode_bundle, parse_bundle, parse_tile};
use casemate_audit::{Checkpoint, Frontier, leaf_hash};
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;

/// Items of a full tile.
const WIDTH: u64 = 256;
/// Levels of tiles, above which no tree reaches.
pub(super) const LEVELS: u8 = 8;

fn items(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level).saturating_mul(8)).unwrap_or(0)
}

/// The tile at a level of a tree of this size that is not full, if there is one.
fn partial(level: u8, size: u64) -> Option<Tile> {
    let items = items(level, size);
    let width = u16::try_from(items % WIDTH).ok()?;
    // a width of zero is no tile
    Tile::new(TileKind::Hashes(level), items / WIDTH, width).ok()
}

/// The tiles of hashes at the right edge of a tree of this size, from the lowest level up.
pub(super) fn edge(size: u64) -> Vec<Tile> {
    (0..LEVELS).filter_map(|level| partial(level, size)).collect()
}

/// Whether these are the tiles of a checkpoint's right edge.
pub(super) fn is_edge_of(tiles: &[Tile], parts: &[Vec<u8>], checkpoint: &Checkpoint) -> bool {
    if tiles.len() != parts.len() {
        return false;
    }
    let mut hashes = Vec::new();
    for (tile, bytes) in tiles.iter().zip(parts).rev() {
        let Ok(part) = parse_tile(*tile, bytes) else { return false };
        let mut frontier = Frontier::new();
        part.into_iter().for_each(|hash| frontier.append(hash));
        hashes.extend_from_slice(frontier.hashes());
    }
    Frontier::from_parts(checkpoint.size, hashes)
        .is_ok_and(|frontier| frontier.root() == checkpoint.root)
}

/// The tile that holds the hash of a full tile, and where in it.
pub(super) fn parent_of(level: u8, index: u64, size: u64) -> Option<(Tile, usize)> {
    let above = level.checked_add(1)?;
    let (parent, at) = (index / WIDTH, usize::try_from(index % WIDTH).ok()?);
    let edge = partial(above, size).filter(|edge| edge.index() == parent);
    let tile = match edge {
        Some(edge) => edge,
        None => Tile::new(TileKind::Hashes(above), parent, FULL).ok()?,
    };
    Some((tile, at))
}

/// Whether these bytes are the full tile with this hash.
pub(super) fn is_tile_of(tile: Tile, bytes: &[u8], expected: &Hash32) -> bool {
    let Ok(hashes) = parse_tile(tile, bytes) else { return false };
    let mut frontier = Frontier::new();
    hashes.into_iter().for_each(|hash| frontier.append(hash));
    frontier.root() == *expected
}

/// Whether these bytes are the records with these hashes.
pub(super) fn is_bundle_of(tile: Tile, bytes: &[u8], hashes: &[Hash32]) -> bool {
    let Ok(leaves) = parse_bundle(tile, bytes) else { return false };
    leaves.iter().map(|leaf| leaf_hash(leaf)).eq(hashes.iter().copied())
}

/// Whether these bytes are what entries call by this hash: a policy, or the genesis.
pub(super) fn is_attachment(hash: &Hash32, bytes: &[u8]) -> bool {
    ["casemate/policy/v1", "casemate/genesis/v1"]
        .iter()
        .any(|tag| tagged_hash(tag, &[bytes]) == *hash)
}

/// The beginning of a full tile, as wide as this one; `None` if it is no tile.
pub(super) fn beginning(tile: Tile, full: Vec<u8>) -> Option<Vec<u8>> {
    let width = usize::from(tile.width());
    if full.len() > MAX_TILE {
        return None;
    }
    match tile.kind() {
        TileKind::Hashes(_) => {
            parse_tile(tile.full(), &full).ok()?;
            full.get(..width.checked_mul(32)?).map(<[u8]>::to_vec)
        }
        TileKind::Entries => {
            let leaves = parse_bundle(tile.full(), &full).ok()?;
            encode_bundle(leaves.get(..width)?).ok()
        }
    }
}
