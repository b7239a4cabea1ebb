//! Tile paths and contents as C2SP `tlog-tiles` gives them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

use std::collections::BTreeSet;

use casemate_audit::merkle::leaf_hash;
use casemate_audit::tile::{
    Tile, TileError, TileKind, encode_bundle, parse_bundle, parse_tile, tile_bytes, tiles_for,
};
use casemate_audit::tree::Tree;
use proptest::prelude::*;

fn paths(old: u64, new: u64) -> Vec<String> {
    tiles_for(old, new).map(|tile| tile.to_string()).collect()
}

#[test]
fn index_of_the_specification_has_its_path() {
    let tile = Tile::new(TileKind::Hashes(0), 1_234_067, 256).unwrap();
    assert_eq!(tile.to_string(), "tile/0/x001/x234/067");
    let partial = Tile::new(TileKind::Entries, 7, 200).unwrap();
    assert_eq!(partial.to_string(), "tile/entries/007.p/200");
    for tile in [tile, partial] {
        assert_eq!(Tile::parse(&tile.to_string()), Ok(tile));
    }
}

#[test]
fn tree_of_70000_has_the_tiles_of_the_specification() {
    let tiles: Vec<Tile> = tiles_for(0, 70_000).collect();
    let count =
        |kind, full| tiles.iter().filter(|t| t.kind() == kind && t.is_full() == full).count();
    assert_eq!((count(TileKind::Hashes(0), true), count(TileKind::Hashes(0), false)), (273, 1));
    assert_eq!((count(TileKind::Hashes(1), true), count(TileKind::Hashes(1), false)), (1, 1));
    assert_eq!((count(TileKind::Hashes(2), true), count(TileKind::Hashes(2), false)), (0, 1));
    assert_eq!((count(TileKind::Entries, true), count(TileKind::Entries, false)), (273, 1));
    assert_eq!(tiles.len(), 274 + 2 + 1 + 274);
    for path in ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"] {
        assert!(tiles.contains(&Tile::parse(path).unwrap()), "{path}");
    }
    assert_eq!(paths(0, 256), ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
}

#[test]
fn growing_tree_needs_only_what_changed() {
    assert_eq!(paths(0, 0), Vec::<String>::new());
    assert_eq!(paths(5, 5), Vec::<String>::new());
    assert_eq!(paths(5, 6), ["tile/0/000.p/6", "tile/entries/000.p/6"]);
    assert_eq!(
        paths(250, 260),
        [
            "tile/0/000",
            "tile/0/001.p/4",
            "tile/1/000.p/1",
            "tile/entries/000",
            "tile/entries/001.p/4"
        ]
    );
    assert_eq!(paths(260, 261), ["tile/0/001.p/5", "tile/entries/001.p/5"]);
}

#[test]
fn path_of_another_form_is_refused() {
    for bad in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/00/000",
        "tile/8/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/001/234",
        "tile/0/x001/x234",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/7/",
        "tile/entries/x1/000",
        "tile/data/000",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/7/001",
    ] {
        assert!(matches!(Tile::parse(bad), Err(TileError::BadPath { .. })), "{bad}");
    }
}

#[test]
fn bundle_of_another_length_is_refused() {
    let tile = Tile::new(TileKind::Entries, 0, 2).unwrap();
    let bytes = encode_bundle(&[b"one".as_slice(), b"".as_slice()]).unwrap();
    assert_eq!(bytes, b"\0\x03one\0\0");
    assert_eq!(parse_bundle(tile, &bytes).unwrap(), [b"one".as_slice(), b""]);
    for bad in [&bytes[..6], &bytes[..5], &bytes[..4], &bytes[..1], &[]] {
        assert!(matches!(parse_bundle(tile, bad), Err(TileError::WrongEntries { .. })), "{bad:?}");
    }
    let longer = [bytes.as_slice(), b"\0\0"].concat();
    assert!(matches!(
        parse_bundle(tile, &longer),
        Err(TileError::WrongEntries { at: 7, width: 2, .. })
    ));
    assert!(matches!(
        encode_bundle(&[vec![0; 65_536]]),
        Err(TileError::EntryTooLarge { at: 0, size: 65_536 })
    ));
    let full = vec![vec![7; 65_535]];
    let one = Tile::new(TileKind::Entries, 0, 1).unwrap();
    assert_eq!(parse_bundle(one, &encode_bundle(&full).unwrap()).unwrap(), full);
}

#[test]
fn tile_of_hashes_of_another_length_is_refused() {
    let tile = Tile::new(TileKind::Hashes(0), 0, 2).unwrap();
    assert_eq!(parse_tile(tile, &[7; 64]).unwrap().len(), 2);
    for size in [0, 32, 63, 65, 96] {
        let refused = parse_tile(tile, &vec![7; size]);
        assert!(matches!(refused, Err(TileError::WrongSize { .. })), "{size}");
    }
}

#[test]
fn tiles_of_a_level_are_roots_of_the_tiles_below() {
    let mut tree = Tree::new();
    for i in 0..600_u64 {
        tree.append(leaf_hash(&i.to_be_bytes()));
    }
    let upper = Tile::parse("tile/1/000.p/2").unwrap();
    let upper = parse_tile(upper, &tile_bytes(&tree, upper).unwrap()).unwrap();
    for (index, hash) in (0..).zip(upper) {
        let lower = Tile::new(TileKind::Hashes(0), index, 256).unwrap();
        let mut model = Tree::new();
        for hash in parse_tile(lower, &tile_bytes(&tree, lower).unwrap()).unwrap() {
            model.append(hash);
        }
        assert_eq!(model.root(), hash);
    }
    assert!(tile_bytes(&tree, Tile::parse("tile/0/002").unwrap()).is_err());
}

proptest! {
    #[test]
    fn every_tile_parses_back(level in 0_u8..8, index: u64, width in 1_u16..=256, entries: bool) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
        if let Ok(tile) = Tile::new(kind, index, width) {
            prop_assert_eq!(Tile::parse(&tile.to_string()), Ok(tile));
        }
        let small = Tile::new(kind, index >> 60, width).unwrap_or(Tile::new(kind, 0, width).unwrap());
        prop_assert_eq!(Tile::parse(&small.to_string()), Ok(small));
    }

    /// Written step by step or at once, the same files are there at the end.
    #[test]
    fn steps_add_up(sizes in prop::collection::vec(0_u64..3000, 1..6)) {
        let mut sizes = sizes;
        sizes.sort_unstable();
        let last = *sizes.last().unwrap();
        let mut written = BTreeSet::new();
        let mut old = 0;
        for new in sizes {
            let step: Vec<Tile> = tiles_for(old, new).collect();
            prop_assert!(step.iter().all(|tile| written.insert(*tile)), "nothing is written twice");
            old = new;
        }
        prop_assert!(tiles_for(0, last).all(|tile| written.contains(&tile)));
    }
}
