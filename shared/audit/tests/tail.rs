//! A store's tail: another writer goes on from it alike, and nothing bent is taken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use std::collections::BTreeMap;

use casemate_audit::{Checkpoint, Record, StoreWriter, Tail, TailError};
use casemate_proto::Hash32;
use minicbor::bytes::ByteVec;
use support::{Ledger, note, origin};

/// A store with `published` records, and `waiting` more; records 0 and 7 are proved.
struct Stood {
    writer: StoreWriter,
    ledger: Ledger,
    waiting: Vec<Record>,
    tail: Vec<u8>,
    pins: Vec<(u64, Record)>,
}

fn stood(published: u64, waiting: u64) -> Stood {
    let mut ledger = Ledger::default();
    let mut writer = StoreWriter::new(b"genesis");
    let mut pins = Vec::new();
    let mut enter = |ledger: &mut Ledger, index: u64| {
        let time = casemate_proto::UnixMillis(index);
        let record = ledger.apply_entry(time, format!("tick {index}").as_bytes()).record;
        if index == 0 || index == 7 {
            pins.push((index, record.clone()));
        }
        record
    };
    for index in 0..published {
        let record = enter(&mut ledger, index);
        writer.append(&record).unwrap();
    }
    if published > 0 {
        writer.commit(&note(&ledger.checkpoint(), &[2, 3], false)).unwrap();
    }
    let waiting: Vec<Record> =
        (published..published + waiting).map(|index| enter(&mut ledger, index)).collect();
    writer.attach(&Hash32::new([9; 32]), b"a policy");
    let size = ledger.tree.size();
    let proofs: Vec<_> = pins
        .iter()
        .map(|(index, record)| {
            let proof = ledger.tree.inclusion_proof(*index, size).unwrap();
            (*index, record.leaf_bytes(), proof)
        })
        .collect();
    let tail = writer.tail(&waiting, proofs).unwrap();
    Stood { writer, ledger, waiting, tail, pins }
}

impl Stood {
    fn read(&self, tail: &[u8]) -> Result<Tail, TailError> {
        let tree = &self.ledger.tree;
        StoreWriter::from_tail(b"genesis", tail, tree.size(), tree.root())
    }
}

#[test]
fn writer_from_a_tail_writes_the_same_files_as_the_one_that_gave_it() {
    for (published, waiting) in
        [(0, 0), (0, 3), (1, 0), (8, 5), (255, 1), (256, 0), (256, 300), (700, 20), (1_030, 600)]
    {
        let mut first = stood(published, waiting);
        let mut second = first.read(&first.tail).unwrap();
        assert_eq!(second.waiting, first.waiting);
        assert_eq!(second.tree.root(), first.ledger.tree.root());
        let pinned: Vec<(u64, Record)> = second.pinned.clone().into_iter().collect();
        assert_eq!(pinned, first.pins, "{published} + {waiting}");
        for more in [0_u64, 1, 255, 257] {
            let mut records = std::mem::take(&mut first.waiting);
            for _ in 0..more {
                let time = casemate_proto::UnixMillis(first.ledger.tree.size());
                let record = first.ledger.apply_entry(time, b"later").record;
                second.tree.append(record.leaf_hash());
                records.push(record);
            }
            for record in &records {
                first.writer.append(record).unwrap();
                second.writer.append(record).unwrap();
            }
            let size = first.ledger.tree.size();
            if size == 0 {
                continue;
            }
            let note = note(&first.ledger.checkpoint(), &[2, 3], false);
            let files = first.writer.commit(&note).unwrap();
            assert_eq!(second.writer.commit(&note).unwrap(), files, "{published} + {waiting}");
            for (index, record) in &first.pins {
                let proof = second.tree.inclusion_proof(*index, size).unwrap();
                assert_eq!(first.ledger.tree.inclusion_proof(*index, size), Ok(proof));
                assert_eq!(record.index(), *index);
            }
        }
    }
}

#[test]
fn tail_tells_roots_and_proofs_from_the_published_size_on() {
    let stood = stood(300, 40);
    let tail = stood.read(&stood.tail).unwrap();
    for size in 300..=340 {
        assert_eq!(tail.tree.root_at(size), stood.ledger.tree.root_at(size));
    }
    assert!(tail.tree.root_at(299).is_err());
    let checkpoint = Checkpoint::new(&origin(), 320, tail.tree.root_at(320).unwrap());
    let mut writer = tail.writer;
    tail.waiting.iter().take(20).for_each(|record| writer.append(record).unwrap());
    let files = writer.commit(&note(&checkpoint, &[2, 3], false)).unwrap();
    assert!(files.iter().any(|(path, _)| path == "checkpoint"));
    assert!(files.iter().any(|(path, _)| path.starts_with("attachments/")));
}

#[test]
fn no_tail_is_given_between_a_record_and_its_checkpoint() {
    let mut stood = stood(5, 1);
    stood.writer.append(&stood.waiting[0]).unwrap();
    assert_eq!(stood.writer.tail([], []), None);
}

#[test]
fn every_byte_flipped_is_refused_but_in_what_the_reader_must_check() {
    let stood = stood(20, 3);
    let policy = stood.tail.windows(8).position(|w| w == b"a policy").unwrap();
    let name = stood.tail.windows(32).position(|w| w == [9; 32]).unwrap();
    for at in 0..stood.tail.len() {
        let mut bent = stood.tail.clone();
        bent[at] ^= 1 << (at % 8);
        let attached = (policy..policy + 8).contains(&at) || (name..name + 32).contains(&at);
        assert_eq!(stood.read(&bent).is_err(), !attached, "byte {at}");
    }
    for cut in 0..stood.tail.len() {
        assert!(stood.read(&stood.tail[..cut]).is_err());
    }
}

/// A tail laid open.
#[derive(Clone, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Open {
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
    pinned: BTreeMap<u64, Proved>,
}

#[derive(Clone, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Proved {
    #[n(0)]
    leaf: ByteVec,
    #[n(1)]
    proof: Vec<Hash32>,
}

#[test]
fn tail_whose_parts_do_not_fit_is_refused_with_its_reason() {
    let stood = stood(300, 4);
    let open: Open = casemate_proto::cbor::decode(&stood.tail, 1 << 20).unwrap();
    let refused = |what: &str, change: &dyn Fn(&mut Open)| {
        let mut bent = open.clone();
        change(&mut bent);
        stood.read(&casemate_proto::cbor::encode(&bent)).expect_err(what)
    };
    let shape = |error| matches!(error, TailError::Shape { .. });
    assert!(shape(refused("a level more", &|o| o.edge.push(Vec::new()))));
    assert!(shape(refused("a hash more", &|o| o.edge[3].push(Hash32::new([1; 32])))));
    assert!(shape(refused("a leaf less", &|o| drop(o.leaves.pop()))));
    assert!(shape(refused("a record less", &|o| drop(o.waiting.pop()))));
    assert!(shape(refused("a record more", &|o| o.waiting.push(o.waiting[0].clone()))));
    assert!(shape(refused("another size", &|o| o.published = 301)));
    let ahead = refused("more than there is", &|o| o.published = 305);
    assert_eq!(ahead, TailError::Ahead { published: 305, size: 304 });
    let other = refused("another leaf", &|o| o.leaves.swap(0, 1));
    assert_eq!(other, TailError::OtherLeaf { index: 256 });
    let order = refused("another order", &|o| o.waiting.swap(0, 1));
    assert!(matches!(order, TailError::Write(_)), "{order:?}");
    let both = refused("another leaf with its hash", &|o| {
        o.leaves[1] = o.leaves[0].clone();
        o.edge[0][1] = o.edge[0][0];
    });
    assert!(matches!(both, TailError::Write(_)), "the next record names the root: {both:?}");
    let proof = refused("another proof", &|o| o.pinned.get_mut(&7).unwrap().proof.swap(0, 1));
    assert!(matches!(proof, TailError::Proof { index: 7, .. }), "{proof:?}");
    let leaf = refused("another record", &|o| {
        o.pinned.get_mut(&7).unwrap().leaf = o.pinned[&0].leaf.clone();
    });
    assert!(matches!(leaf, TailError::Proof { index: 7, .. }), "{leaf:?}");
    let garbage = refused("no record", &|o| o.waiting[3] = vec![1, 2, 3].into());
    assert!(matches!(garbage, TailError::Record { index: 303, .. }), "{garbage:?}");
    let tree = &stood.ledger.tree;
    let other = StoreWriter::from_tail(b"", &stood.tail, tree.size(), Hash32::new([0; 32]));
    assert!(matches!(other, Err(TailError::OtherTree { size: 304, .. })));
}
