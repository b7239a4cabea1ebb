//! Records, checkpoints, proofs, tiles, receipts, and what is seen on a chain.

use std::sync::LazyLock;

use casemate_audit::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use casemate_audit::reconcile::Seen;
use casemate_audit::tile::{Tile, TileKind, encode_bundle, parse_bundle};
use casemate_audit::{
    Checkpoint, CheckpointPolicy, CosignerSet, InclusionReceipt, Origin, Record, RecordFields,
    SignedNote, StoreWriter, Tree, VerifierKey, verify_checkpoint, verify_receipt,
};
use casemate_proto::{BootId, GenesisId, Hash32, Incarnation, UnixMillis};

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "checkpoint_note", run: checkpoint_note },
    Target { name: "record", run: record },
    Target { name: "inclusion_proof", run: inclusion_proof },
    Target { name: "tile_path", run: tile_path },
    Target { name: "entry_bundle", run: entry_bundle },
    Target { name: "receipt", run: receipt },
    Target { name: "seen_on_chain", run: seen_on_chain },
    Target { name: "store_tail", run: store_tail },
];

/// The log that `POLICY` is of.
pub const ORIGIN: Origin =
    Origin { genesis: GenesisId::new([0xab; 32]), incarnation: Incarnation(0) };

/// The base point of Ed25519, whose secret nobody has here.
const ED25519_POINT: [u8; 32] = {
    let mut point = [0x66; 32];
    point[0] = 0x58;
    point
};

/// One cosigner, who never signs.
static POLICY: LazyLock<Option<CheckpointPolicy>> = LazyLock::new(|| {
    let key = ORIGIN.boot_key(&BootId::new([1; 32]), &ED25519_POINT).ok()?;
    Some(CheckpointPolicy {
        origin: ORIGIN.to_string(),
        log_key: None,
        cosigners: CosignerSet::new(vec![key], 1).ok()?,
    })
});

/// A note is its bytes, its checkpoint is its text, and nothing here can have signed it.
pub fn checkpoint_note(data: &[u8]) {
    if let Ok(text) = core::str::from_utf8(data)
        && let Ok(key) = VerifierKey::parse(text)
    {
        assert_eq!(key.to_string(), text, "a second text for one key");
    }
    let Ok(note) = SignedNote::parse(data) else { return };
    assert_eq!(note.to_string().as_bytes(), data, "prints other bytes");
    assert_eq!(note.merged(&note), Ok(note.clone()), "is not itself");
    if let Ok(checkpoint) = Checkpoint::parse(note.text()) {
        assert_eq!(checkpoint.body(), note.text(), "a second text for one checkpoint");
    }
    let Some(policy) = POLICY.as_ref() else { return };
    assert!(verify_checkpoint(&note, policy).is_err(), "a forged checkpoint");
}

/// A record is its leaf.
pub fn record(data: &[u8]) {
    let Ok(record) = Record::parse(data) else { return };
    assert_eq!(record.leaf_bytes(), data, "another leaf");
    assert_eq!(Record::new(record.fields().clone()), Ok(record), "its own fields are refused");
}

/// The leaves of the tree that proofs are tried on.
const LEAVES: u64 = 256;

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let mut tree = Tree::new();
    for index in 0..LEAVES {
        tree.append(leaf_hash(&index.to_be_bytes()));
    }
    tree
});

/// The first two bytes say which proof; the rest is one. Only the honest one is accepted.
pub fn inclusion_proof(data: &[u8]) {
    let [first, second, proof @ ..] = data else { return };
    let (size, index) = (u64::from(*first).saturating_add(1), u64::from(*second));
    let (hashes, rest) = proof.as_chunks::<32>();
    if !rest.is_empty() {
        return;
    }
    let proof: Vec<Hash32> = hashes.iter().copied().map(Hash32::new).collect();
    let tree = &*TREE;
    let Ok(root) = tree.root_at(size) else { return };
    let leaf = leaf_hash(&index.to_be_bytes());
    let accepted = verify_inclusion(&leaf, index, size, &proof, &root).is_ok();
    let honest = tree.inclusion_proof(index, size).is_ok_and(|honest| honest == proof);
    assert_eq!(accepted, honest, "inclusion of {index} in {size}");
    let Ok(from_root) = tree.root_at(index) else { return };
    let accepted = verify_consistency(index, size, &proof, &from_root, &root).is_ok();
    let honest = tree.consistency_proof(index, size).is_ok_and(|honest| honest == proof);
    // from the empty tree there is nothing to prove
    assert_eq!(accepted, honest && index > 0, "from {index} to {size}");
}

/// A path that parses is the one path of its tile.
pub fn tile_path(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(tile) = Tile::parse(text) else { return };
    assert_eq!(tile.to_string(), text, "a second path for one tile");
    assert_eq!(Tile::new(tile.kind(), tile.index(), tile.width()), Ok(tile), "no tile of a tree");
}

/// The first byte says how many entries; what parses is written the same.
pub fn entry_bundle(data: &[u8]) {
    let [width, bundle @ ..] = data else { return };
    let Ok(tile) = Tile::new(TileKind::Entries, 0, u16::from(*width)) else { return };
    let Ok(leaves) = parse_bundle(tile, bundle) else { return };
    assert_eq!(leaves.len(), usize::from(*width), "another number of entries");
    assert_eq!(encode_bundle(&leaves).as_deref(), Ok(bundle), "other bytes");
}

/// A receipt is decoded strictly, and nothing here can have made one.
pub fn receipt(data: &[u8]) {
    let Ok(receipt) = InclusionReceipt::parse(data) else { return };
    assert_eq!(receipt.to_bytes(), data, "encodes to other bytes");
    let Some(policy) = POLICY.as_ref() else { return };
    assert!(verify_receipt(&receipt, policy).is_err(), "a forged receipt");
}

/// What is seen on a chain is read without a panic, and is found nowhere in an empty log.
pub fn seen_on_chain(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(seen) = Seen::parse(text) else { return };
    let found = casemate_audit::reconcile::reconcile([seen], &[]);
    assert_eq!((found.recorded.len(), found.unrecorded.len()), (0, 1), "found in an empty log");
}

/// A log of so many records.
#[must_use]
pub fn log(size: u64) -> (Vec<Record>, Tree) {
    let mut tree = Tree::new();
    let mut records = Vec::new();
    for index in 0..size {
        let fields = RecordFields {
            index,
            time: UnixMillis(index),
            kind: "tick".to_owned(),
            entry: vec![1, 2, 3],
            verdict: vec![4],
            policy: None,
            counters: Vec::new(),
            previous_root: tree.root(),
        };
        if let Ok(record) = Record::new(fields) {
            tree.append(record.leaf_hash());
            records.push(record);
        }
    }
    (records, tree)
}

/// The size of the log that tails are of.
pub const TAIL_OF: u64 = 9;

static LOG: LazyLock<Tree> = LazyLock::new(|| log(TAIL_OF).1);

/// A tail is one of this very log, and the only one with what it says; or it is refused.
pub fn store_tail(data: &[u8]) {
    let tree = &*LOG;
    let Ok(tail) = StoreWriter::from_tail(b"genesis", data, TAIL_OF, tree.root()) else { return };
    assert_eq!((tail.tree.size(), tail.tree.root()), (TAIL_OF, tree.root()), "another tree");
    let pinned: Vec<_> = tail
        .pinned
        .iter()
        .map(|(index, record)| {
            let proof = tail.tree.inclusion_proof(*index, TAIL_OF).unwrap_or_default();
            (*index, record.leaf_bytes(), proof)
        })
        .collect();
    let again = tail.writer.tail(&tail.waiting, pinned);
    assert_eq!(again.as_deref(), Some(data), "another tail of the same writer");
}
