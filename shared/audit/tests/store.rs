//! A store is written, verified, and broken in every way that a host could break it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use casemate_audit::note::SignedNote;
use casemate_audit::store::{
    CHECKPOINT, StoreWriter, WriteError, attachment_path, checkpoint_file, checkpoint_path,
    receipt_file,
};
use casemate_audit::tile::encode_bundle;
use casemate_audit::{Checkpoint, Expectations, Finding, Record, Report, verify_store};
use casemate_proto::{GenesisId, Hash32};
use proptest::prelude::*;
use support::*;

fn verify(store: &Store) -> Report {
    verify_with(store, &Expectations::of(origin().genesis))
}

fn verify_with(store: &Store, expectations: &Expectations) -> Report {
    verify_store(store, expectations, &mut Ledger::default())
}

/// 600 records with checkpoints on the way, signatures, receipts, an admission, an attachment.
fn node() -> Node {
    let mut node = Node::new();
    node.commit();
    node.fill(3);
    let signed = node.enter(b"sign 7");
    let receipt = node.receipt(&signed, &[1, 3]);
    node.put([receipt_file(signed.index(), &receipt)]);
    node.commit();
    node.attach(b"a policy");
    node.enter(b"admit 4");
    let signed = node.enter(b"sign 8");
    let receipt = node.receipt(&signed, &[4, 3]);
    node.put([receipt_file(signed.index(), &receipt)]);
    node.fill(249);
    node.commit();
    node.fill(344);
    node.commit();
    node
}

fn findings(store: &Store) -> Vec<Finding> {
    let report = verify(store);
    assert!(!report.is_verified());
    report.findings().to_vec()
}

#[test]
fn i10_whole_store_is_verified() {
    let node = node();
    let report = verify(&node.store);
    assert!(report.is_verified(), "{:#?}", report.findings());
    assert_eq!(report.size(), Some(600));
    assert_eq!(report.root(), Some(node.ledger.tree.root()));
    assert!(report.is_log_signed());
    assert_eq!(report.cosigners().len(), 2);
    let counts = report.counts();
    assert_eq!((counts.records, counts.replayed), (600, 600));
    assert_eq!((counts.checkpoints, counts.receipts), (6, 2));
    assert_eq!((counts.signatures, counts.signatures_with_receipt), (2, 2));
    assert_eq!((counts.bundles, counts.tiles), (3, 4));
    assert_eq!(counts.kinds["admit"], 1);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["counts"]["records"], 600);
    assert_eq!(json["verified"], true);
}

#[test]
fn empty_log_is_verified() {
    let mut node = Node::new();
    node.commit();
    let report = verify(&node.store);
    assert!(report.is_verified(), "{:#?}", report.findings());
    assert_eq!(report.size(), Some(0));
}

#[test]
fn store_without_checkpoint_is_not_verified() {
    assert_eq!(findings(&Store::new()), [Finding::Missing { path: CHECKPOINT.to_owned() }]);
}

#[test]
fn log_of_another_cluster_is_refused() {
    let other = Expectations::of(GenesisId::new([1; 32]));
    let report = verify_with(&node().store, &other);
    assert!(matches!(report.findings(), [Finding::OtherCluster { .. }]));
}

#[test]
fn i10_every_file_matters() {
    let store = node().store;
    for path in store.keys().filter(|path| *path != "genesis.cbor") {
        let gone = Store::from_iter(store.clone().into_iter().filter(|(p, _)| p != path));
        // a checkpoint or a receipt less is no lie; older partial tiles may be deleted
        let optional = path.starts_with("checkpoints/") || path.starts_with("receipts/");
        let old = path.contains(".p/") && !needed_at_600(path);
        assert_eq!(verify(&gone).is_verified(), optional || old, "without {path}");
        let mut flipped = store.clone();
        let bytes = flipped.get_mut(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert_eq!(verify(&flipped).is_verified(), old, "flipped in {path}");
        let mut longer = store.clone();
        longer.get_mut(path).unwrap().push(b'0');
        assert_eq!(verify(&longer).is_verified(), old, "longer {path}");
    }
}

fn needed_at_600(path: &str) -> bool {
    ["tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/002.p/88"].contains(&path)
}

#[test]
fn partial_tile_is_found_in_the_full_one_later() {
    let mut node = Node::new();
    node.fill(250);
    let at_250 = node.commit();
    node.fill(20);
    node.commit();
    let mut store = node.store.clone();
    store.insert(CHECKPOINT.to_owned(), at_250.to_string().into_bytes());
    store.retain(|path, _| !path.ends_with("270") && !path.contains(".p/250"));
    store.retain(|path, _| !path.starts_with("checkpoints/270"));
    let report = verify(&store);
    assert!(report.is_verified(), "{:#?}", report.findings());
    assert_eq!(report.size(), Some(250));
}

/// The host replaces a record and rebuilds every tile and checkpoint text, but cannot sign.
#[test]
fn replaced_record_is_found_by_replay_and_by_root() {
    let node = node();
    let mut store = node.store.clone();
    let bundle = "tile/entries/002.p/88";
    let mut leaves: Vec<Vec<u8>> = split(&store[bundle]);
    let record = Record::parse(&leaves[5]).unwrap();
    let mut fields = record.fields().clone();
    fields.verdict = vec![1];
    leaves[5] = Record::new(fields).unwrap().leaf_bytes().to_vec();
    store.insert(bundle.to_owned(), encode_bundle(&leaves).unwrap());
    let findings = findings(&store);
    let Finding::ReplayMismatch { index: 517, reason } = &findings[0] else {
        panic!("{findings:#?}")
    };
    assert_eq!(reason, "the verdict differs");
    assert!(findings.iter().any(|f| matches!(f, Finding::OtherRoot { size: 600, .. })));
    assert!(findings.iter().any(|f| matches!(f, Finding::WrongTile { .. })));
}

fn split(bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut leaves = vec![];
    let mut rest = bundle;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (leaf, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        leaves.push(leaf.to_vec());
        rest = behind;
    }
    leaves
}

#[test]
fn entry_that_cannot_be_applied_is_named() {
    let mut node = Node::new();
    node.fill(2);
    let mut ledger = node.ledger.clone();
    let record = ledger.apply_entry(casemate_proto::UnixMillis(9000), b"impossible").record;
    node.writer.append(&record).unwrap();
    let checkpoint = ledger.checkpoint();
    let files = node.writer.commit(&note(&checkpoint, &[1, 2], true)).unwrap();
    node.put(files);
    assert_eq!(
        findings(&node.store)[0],
        Finding::ReplayMismatch { index: 2, reason: "the entry is impossible".to_owned() }
    );
}

#[test]
fn record_in_the_past_is_named() {
    let mut node = Node::new();
    node.fill(3);
    let record = node.ledger.apply_entry(casemate_proto::UnixMillis(1999), b"tick").record;
    node.writer.append(&record).unwrap();
    node.commit();
    assert!(matches!(&findings(&node.store)[0], Finding::BadRecord { index: 3, .. }));
}

#[test]
fn split_view_is_shown_with_both_notes() {
    let mut node = node();
    let forged = Checkpoint { root: Hash32::new([9; 32]), ..node.ledger.checkpoint() };
    let forged = note(&forged, &[2, 3], false);
    node.put([checkpoint_file(&forged).unwrap()]);
    let findings = findings(&node.store);
    let shown = findings.iter().find_map(|finding| match finding {
        Finding::SplitView { size: 600, first, second, .. } => Some((first, second)),
        _ => None,
    });
    let (first, second) = shown.expect("a split view");
    assert_eq!(*second, forged.to_string());
    assert!(first.contains("\n600\n"));
}

#[test]
fn split_view_at_a_size_without_an_honest_checkpoint_is_shown_beside_the_newest() {
    let mut node = node();
    let forged = Checkpoint::new(&origin(), 100, Hash32::new([9; 32]));
    let forged = note(&forged, &[2, 3], false);
    node.put([checkpoint_file(&forged).unwrap()]);
    let newest = String::from_utf8(node.store[CHECKPOINT].clone()).unwrap();
    assert!(findings(&node.store).iter().any(|finding| matches!(
        finding,
        Finding::SplitView { size: 100, first, second, .. }
            if *first == newest && *second == forged.to_string()
    )));
}

/// The view shown in a receipt counts as one that was given out.
#[test]
fn split_view_in_a_receipt_is_shown() {
    let mut node = Node::new();
    node.fill(5);
    let mut twin = Node::new();
    twin.fill(4);
    let other = twin.enter(b"sign 9");
    let receipt = twin.receipt(&other, &[1, 2]);
    node.put([receipt_file(other.index(), &receipt)]);
    node.commit();
    let findings = findings(&node.store);
    assert!(findings.iter().any(|f| matches!(f, Finding::SplitView { size: 5, .. })));
    assert!(findings.iter().any(|f| matches!(f, Finding::BadReceipt { .. })));
}

#[test]
fn forged_checkpoint_without_signatures_is_no_split_view() {
    let mut node = node();
    let forged = Checkpoint { root: Hash32::new([9; 32]), ..node.ledger.checkpoint() };
    node.put([checkpoint_file(&note(&forged, &[2], false)).unwrap()]);
    let findings = findings(&node.store);
    assert!(findings.iter().any(|f| matches!(f, Finding::BadCheckpoint { size: 600, .. })));
    assert!(findings.iter().any(|f| matches!(f, Finding::OtherRoot { .. })));
    assert!(!findings.iter().any(|f| matches!(f, Finding::SplitView { .. })));
}

#[test]
fn i6_store_rolled_back_behind_a_checkpoint_given_out_is_found() {
    let node = node();
    let mut store = node.store.clone();
    let old = store.iter().find(|(path, _)| path.starts_with("checkpoints/256-")).unwrap();
    let old = old.1.clone();
    store.insert(CHECKPOINT.to_owned(), old);
    assert!(matches!(
        &findings(&store)[..],
        [Finding::StoreIsBehind { size: 600, newest: 256, .. }]
    ));
}

#[test]
fn i6_retired_boot_does_not_count_any_more() {
    let mut node = node();
    // boot 1 was retired by `admit 4`: with boot 2 alone it is not enough
    let checkpoint = node.ledger.checkpoint();
    for (boots, good) in [([1, 2], false), ([4, 2], true)] {
        let bytes = note(&checkpoint, &boots, true).to_string().into_bytes();
        node.put([(CHECKPOINT.to_owned(), bytes)]);
        assert_eq!(verify(&node.store).is_verified(), good, "{boots:?}");
    }
}

#[test]
fn log_key_is_checked_against_the_expected_one() {
    let node = node();
    let expected = |log_key| Expectations {
        log_key: Some(log_key),
        require_log_signature: true,
        ..Expectations::of(origin().genesis)
    };
    assert!(verify_with(&node.store, &expected(public(LOG))).is_verified());
    let report = verify_with(&node.store, &expected(public(9)));
    assert!(matches!(report.findings(), [Finding::OtherLogKey { .. }]));
    // without the log's signature the checkpoint holds, unless it is asked for
    let mut store = node.store.clone();
    let bare = note(&node.ledger.checkpoint(), &[2, 3], false).to_string().into_bytes();
    store.insert(CHECKPOINT.to_owned(), bare);
    let report = verify(&store);
    assert!(report.is_verified() && !report.is_log_signed());
    let report = verify_with(&store, &expected(public(LOG)));
    assert!(matches!(report.findings(), [Finding::BadCheckpoint { .. }]));
}

#[test]
fn more_cosigners_may_be_asked_for() {
    let expectations =
        Expectations { min_cosigners: Some(3), ..Expectations::of(origin().genesis) };
    let report = verify_with(&node().store, &expectations);
    assert!(!report.is_verified());
    assert!(report.findings().iter().all(|f| matches!(f, Finding::BadCheckpoint { .. })));
}

#[test]
fn attachment_lies_beside_the_tiles() {
    let mut node = Node::new();
    node.fill(4);
    let name = node.attach(b"a policy");
    node.commit();
    assert!(verify(&node.store).is_verified());
    let path = attachment_path(&name);
    node.store.insert(path.clone(), b"another".to_vec());
    assert!(matches!(&findings(&node.store)[..], [Finding::ReplayMismatch { index: 4, .. }]));
    node.store.remove(&path);
    let findings = findings(&node.store);
    assert_eq!(findings[0], Finding::Missing { path });
    assert!(matches!(findings[1], Finding::ReplayMismatch { index: 4, .. }));
}

#[test]
fn checkpoint_under_another_name_is_found() {
    let mut node = node();
    let path = checkpoint_path(600, &Hash32::new([9; 32]));
    let bytes = node.store[CHECKPOINT].clone();
    node.put([(path, bytes)]);
    assert!(matches!(&findings(&node.store)[..], [Finding::Malformed { .. }]));
}

#[test]
fn findings_are_capped_and_the_rest_counted() {
    let mut node = Node::new();
    node.commit();
    for number in 0..150 {
        node.put([(format!("receipts/{number}"), b"junk".to_vec())]);
    }
    let report = verify(&node.store);
    assert_eq!((report.findings().len(), report.more_findings()), (100, 50));
}

#[test]
fn writer_refuses_what_does_not_fit() {
    let mut node = Node::new();
    node.fill(2);
    let record = node.ledger.clone().apply_entry(casemate_proto::UnixMillis(0), b"tick").record;
    let mut fields = record.fields().clone();
    fields.index = 3;
    let late = Record::new(fields.clone()).unwrap();
    assert_eq!(node.writer.append(&late), Err(WriteError::OutOfTurn { expected: 2, found: 3 }));
    fields.index = 2;
    fields.previous_root = Hash32::new([1; 32]);
    let other = Record::new(fields).unwrap();
    assert!(matches!(node.writer.append(&other), Err(WriteError::OtherTree { index: 2, .. })));
    let other = Checkpoint { root: Hash32::new([1; 32]), ..node.ledger.checkpoint() };
    let refused = node.writer.commit(&note(&other, &[1, 2], true));
    assert!(matches!(refused, Err(WriteError::OtherCheckpoint { .. })));
}

#[test]
fn writer_does_not_resume_from_a_broken_store() {
    let node = node();
    for path in ["checkpoint", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/002.p/88"] {
        let mut store = node.store.clone();
        store.remove(path);
        let refused = StoreWriter::resume(&store);
        assert!(matches!(refused, Err(WriteError::Missing { .. })), "{path}");
    }
    let mut store = node.store.clone();
    store.get_mut("tile/1/000.p/2").unwrap()[0] ^= 1;
    let refused = StoreWriter::resume(&store);
    assert!(matches!(refused, Err(WriteError::OtherCheckpoint { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Steps and restarts of any size give a store that verifies, and the same tiles as one step.
    #[test]
    fn writer_in_steps_with_restarts_gives_the_same_store(steps in prop::collection::vec((0_usize..400, any::<bool>()), 1..5)) {
        let mut node = Node::new();
        let mut last: Option<SignedNote> = None;
        for (count, restart) in &steps {
            node.fill(*count);
            last = Some(node.commit());
            if *restart {
                node.writer = StoreWriter::resume(&node.store).unwrap();
            }
        }
        let report = verify(&node.store);
        prop_assert!(report.is_verified(), "{:#?}", report.findings());
        let mut at_once = Node::new();
        at_once.fill(steps.iter().map(|(count, _)| count).sum());
        at_once.commit();
        for (path, bytes) in &at_once.store {
            prop_assert_eq!(node.store.get(path), Some(bytes), "{}", path);
        }
        prop_assert_eq!(last.unwrap().to_string().into_bytes(), at_once.store[CHECKPOINT].clone());
    }
}
