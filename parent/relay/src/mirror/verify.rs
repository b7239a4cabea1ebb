//! Whether a file from elsewhere is the log's own: held against a checkpoint's root, from the top
//! of the tree down.
//!
//! A full tile of hashes has one hash of its own, which the tile above it holds. The tiles of the
//! right edge are not full and have none; together they give the root.

use casemate_audit::tile::{FULL, Tile, TileKind, encode_bundle, parse_bundle, parse_tile};
use casemate_audit::{Checkpoint, Frontier, leaf_hash};
use casemate_proto::cbor;
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::recovery::{MAX_SIGNED_CERTIFICATE, SignedCertificate};

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

/// What a tile has to be.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// The full tile of hashes that has this hash.
    Tile(Hash32),
    /// The records that have these hashes.
    Records(Vec<Hash32>),
}

impl Expected {
    /// Whether these bytes are that.
    pub(super) fn fits(&self, tile: Tile, bytes: &[u8]) -> bool {
        match self {
            Self::Tile(expected) => parse_tile(tile, bytes).is_ok_and(|hashes| {
                let mut frontier = Frontier::new();
                hashes.into_iter().for_each(|hash| frontier.append(hash));
                frontier.root() == *expected
            }),
            Self::Records(hashes) => parse_bundle(tile, bytes).is_ok_and(|leaves| {
                leaves.iter().map(|leaf| leaf_hash(leaf)).eq(hashes.iter().copied())
            }),
        }
    }
}

/// Whether these bytes are what entries call by this hash: a policy, the genesis, or a recovery's
/// certificate, which is called by what its governors signed.
pub(super) fn is_attachment(hash: &Hash32, bytes: &[u8]) -> bool {
    if let Ok(signed) = cbor::decode::<SignedCertificate>(bytes, MAX_SIGNED_CERTIFICATE) {
        return signed.certificate.id() == *hash;
    }
    ["casemate/policy/v1", "casemate/genesis/v1"]
        .iter()
        .any(|tag| tagged_hash(tag, &[bytes]) == *hash)
}

/// The beginning of a full tile, as wide as this one; `None` if it is no tile.
pub(super) fn beginning(tile: Tile, full: &[u8]) -> Option<Vec<u8>> {
    let width = usize::from(tile.width());
    match tile.kind() {
        TileKind::Hashes(_) => {
            parse_tile(tile.full(), full).ok()?;
            full.get(..width.checked_mul(32)?).map(<[u8]>::to_vec)
        }
        TileKind::Entries => {
            let leaves = parse_bundle(tile.full(), full).ok()?;
            encode_bundle(leaves.get(..width)?).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use casemate_audit::Tree;
    use casemate_audit::tile::{tile_bytes, tiles_for};

    use super::*;

    /// Three levels of tiles.
    const SIZE: u64 = 65_536 + 300;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        for index in 0..SIZE {
            tree.append(leaf_hash(&index.to_be_bytes()));
        }
        tree
    }

    #[test]
    fn every_tile_of_a_log_is_held_against_its_root_and_no_other_passes() {
        let tree = tree();
        let bytes = |tile: Tile| tile_bytes(&tree, tile).unwrap();
        let checkpoint = Checkpoint { origin: "log".to_owned(), size: SIZE, root: tree.root() };
        let edge = edge(SIZE);
        let names: Vec<String> = edge.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["tile/0/257.p/44", "tile/1/001.p/1", "tile/2/000.p/1"]);
        let parts: Vec<Vec<u8>> = edge.iter().map(|tile| bytes(*tile)).collect();
        assert!(is_edge_of(&edge, &parts, &checkpoint));
        assert!(!is_edge_of(&edge, &parts[..2], &checkpoint));
        for at in 0..parts.len() {
            let mut altered = parts.clone();
            altered[at][0] ^= 1;
            assert!(!is_edge_of(&edge, &altered, &checkpoint), "{at}");
        }
        let mut full = 0;
        for tile in tiles_for(0, SIZE).filter(Tile::is_full) {
            let TileKind::Hashes(level) = tile.kind() else { continue };
            full += 1;
            let (parent, at) = parent_of(level, tile.index(), SIZE).unwrap();
            let above = parse_tile(parent, &bytes(parent)).unwrap();
            let expected = Expected::Tile(above[at]);
            let mut whole = bytes(tile);
            assert!(expected.fits(tile, &whole), "{tile}");
            whole[31] ^= 1;
            assert!(!expected.fits(tile, &whole), "{tile}");
            assert!(!expected.fits(tile, &whole[32..]), "{tile}");
        }
        assert_eq!(full, 257 + 1);
    }

    #[test]
    fn records_are_held_against_their_hashes_one_by_one_and_in_order() {
        let tile = Tile::new(TileKind::Entries, 0, 3).unwrap();
        let leaves = [b"a".as_slice(), b"bb", b"ccc"];
        let expected = Expected::Records(leaves.iter().map(|leaf| leaf_hash(leaf)).collect());
        assert!(expected.fits(tile, &encode_bundle(&leaves).unwrap()));
        for wrong in [
            vec![b"a".as_slice(), b"bb"],
            vec![b"a".as_slice(), b"ccc", b"bb"],
            vec![b"a".as_slice(), b"bb", b"ccd"],
            vec![b"a".as_slice(), b"bb", b"ccc", b"d"],
        ] {
            assert!(!expected.fits(tile, &encode_bundle(&wrong).unwrap()));
        }
    }

    #[test]
    fn beginning_of_a_full_tile_is_the_partial_one() {
        let tree = tree();
        let part = Tile::new(TileKind::Hashes(0), 3, 7).unwrap();
        let full = tile_bytes(&tree, part.full()).unwrap();
        assert_eq!(beginning(part, &full), Some(tile_bytes(&tree, part).unwrap()));
        assert_eq!(beginning(part, &full[1..]), None);
        let leaves: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let bundle = Tile::new(TileKind::Entries, 0, 2).unwrap();
        let whole = encode_bundle(&leaves).unwrap();
        assert_eq!(beginning(bundle, &whole), Some(encode_bundle(&leaves[..2]).unwrap()));
        assert_eq!(beginning(bundle, &whole[1..]), None);
    }

    #[test]
    fn attachment_is_known_by_its_name_alone() {
        let policy = tagged_hash("casemate/policy/v1", &[b"policy"]);
        assert!(is_attachment(&policy, b"policy"));
        assert!(!is_attachment(&policy, b"another"));
    }
}
