//! The corpus of the audit log's targets is made here, so that it follows the formats:
//! `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test audit_corpus` writes it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, missing_docs)]

use std::path::PathBuf;

use casemate_audit::merkle::leaf_hash;
use casemate_audit::note::{NoteSignature, SignedNote, UnixSeconds};
use casemate_audit::reconcile::Seen;
use casemate_audit::tile::{Tile, TileKind, encode_bundle, parse_bundle};
use casemate_audit::{
    Checkpoint, Counter, InclusionReceipt, Record, RecordFields, StoreWriter, Tree, VerifierKey,
};
use casemate_fuzz::audit::{ORIGIN, TAIL_OF, log};
use casemate_proto::{Amount, BootId, Hash32, UnixMillis};
use ed25519_dalek::{Signer, SigningKey};

type Seed = (&'static str, &'static str, Vec<u8>);

const TIME: UnixSeconds = UnixSeconds(1_795_165_200);

/// The example of C2SP tlog-cosignature.
const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

/// The example of EIP-155.
const LEGACY: &str = "0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83";

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn key() -> VerifierKey {
    ORIGIN.boot_key(&BootId::new([1; 32]), &secret().verifying_key().to_bytes()).unwrap()
}

fn note(size: u64, root: Hash32) -> SignedNote {
    let checkpoint = Checkpoint::new(&ORIGIN, size, root);
    let signature = secret().sign(&checkpoint.cosignature_message(TIME)).to_bytes();
    let line = NoteSignature::cosignature(&key(), TIME, &signature);
    SignedNote::assemble(&checkpoint.body(), &[line]).unwrap()
}

fn record(index: u64, previous_root: Hash32) -> Record {
    let counter = Counter {
        scope: "sum per=key asset=usdc_base window=24h".to_owned(),
        before: Amount::ZERO,
        after: Amount::from_u128(5_000_000),
    };
    Record::new(RecordFields {
        index,
        time: UnixMillis(1_795_165_200_000),
        kind: "request".to_owned(),
        entry: vec![1, 2, 3],
        verdict: vec![4],
        policy: (index > 0).then(|| Hash32::new([5; 32])),
        counters: if index > 0 { vec![counter] } else { vec![] },
        previous_root,
    })
    .unwrap()
}

fn receipt() -> InclusionReceipt {
    let mut tree = Tree::new();
    let mut leaf = Vec::new();
    for index in 0..5 {
        let record = record(index, tree.root());
        tree.append(record.leaf_hash());
        leaf = if index == 3 { record.leaf_bytes().to_vec() } else { leaf };
    }
    let proof = tree.inclusion_proof(3, 5).unwrap();
    InclusionReceipt { leaf, proof, checkpoint: note(5, tree.root()).to_string() }
}

/// Size minus one, index or first size, and the proof.
fn proof(size: u64, index: u64, consistency: bool) -> Vec<u8> {
    let mut tree = Tree::new();
    for index in 0..size {
        tree.append(leaf_hash(&index.to_be_bytes()));
    }
    let hashes = if consistency {
        tree.consistency_proof(index, size).unwrap()
    } else {
        tree.inclusion_proof(index, size).unwrap()
    };
    let mut out = vec![u8::try_from(size - 1).unwrap(), u8::try_from(index).unwrap()];
    out.extend(hashes.iter().flat_map(|hash| *hash.as_bytes()));
    out
}

/// A tail after so many published records, with the second one's proof.
fn tail(published: usize) -> Vec<u8> {
    let (records, tree) = log(TAIL_OF);
    let (before, waiting) = records.split_at(published);
    let mut writer = StoreWriter::new(b"genesis");
    before.iter().for_each(|record| writer.append(record).unwrap());
    if let Some(last) = before.last() {
        let size = last.index() + 1;
        writer.commit(&note(size, tree.root_at(size).unwrap())).unwrap();
    }
    writer.attach(&Hash32::new([8; 32]), b"a policy");
    let pinned = records.get(1).unwrap();
    let proof = tree.inclusion_proof(1, TAIL_OF).unwrap();
    writer.tail(waiting, [(1, pinned.leaf_bytes(), proof)]).unwrap()
}

/// Target, file name, bytes.
fn seeds() -> Vec<Seed> {
    let root = Hash32::new([9; 32]);
    let leaves = [record(0, root).leaf_bytes().to_vec(), vec![], vec![7; 300]];
    let bundle = [vec![3], encode_bundle(&leaves).unwrap()].concat();
    let paths =
        ["tile/0/000", "tile/0/x001/x234/067", "tile/1/017.p/255", "tile/entries/x001/000.p/7"];
    let names = ["first", "long", "partial", "entries"];
    let mut seeds = vec![
        ("checkpoint_note", "specification", EXAMPLE.as_bytes().to_vec()),
        ("checkpoint_note", "cosigned", note(300, root).to_string().into_bytes()),
        ("checkpoint_note", "verifier-key", key().to_string().into_bytes()),
        ("record", "bare", record(0, root).leaf_bytes().to_vec()),
        ("record", "full", record(1, root).leaf_bytes().to_vec()),
        ("inclusion_proof", "one", proof(1, 0, false)),
        ("inclusion_proof", "inclusion", proof(200, 77, false)),
        ("inclusion_proof", "inclusion-last", proof(256, 255, false)),
        ("inclusion_proof", "consistency", proof(200, 77, true)),
        ("inclusion_proof", "consistency-complete", proof(200, 128, true)),
        ("entry_bundle", "three", bundle),
        ("receipt", "receipt", receipt().to_bytes()),
        ("seen_on_chain", "legacy", LEGACY.as_bytes().to_vec()),
        ("seen_on_chain", "signature", format!("0x{}1b", "11".repeat(64)).into_bytes()),
        ("seen_on_chain", "hash", "22".repeat(32).into_bytes()),
        ("store_tail", "nothing-published", tail(0)),
        ("store_tail", "some-published", tail(6)),
        ("store_tail", "all-published", tail(9)),
    ];
    let paths = names.into_iter().zip(paths);
    seeds.extend(paths.map(|(name, path)| ("tile_path", name, path.as_bytes().to_vec())));
    seeds
}

#[test]
fn the_corpus_of_the_audit_log_is_current() {
    let write = std::env::var_os("CASEMATE_WRITE_CORPUS").is_some();
    for (target, name, bytes) in seeds() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let file = folder.join(name);
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let found = std::fs::read(&file).unwrap_or_default();
        assert_eq!(hex::encode(found), hex::encode(bytes), "{}", file.display());
    }
}

/// A seed that its decoder refuses would leave most of the decoder untried.
#[test]
fn every_seed_is_accepted_by_its_decoder() {
    for (target, name, bytes) in seeds() {
        let text = || core::str::from_utf8(&bytes).unwrap();
        let accepted = match target {
            "checkpoint_note" if name == "verifier-key" => VerifierKey::parse(text()).is_ok(),
            "checkpoint_note" => SignedNote::parse(&bytes).is_ok(),
            "record" => Record::parse(&bytes).is_ok(),
            // checked by the target itself, which knows the tree
            "inclusion_proof" => bytes.len() % 32 == 2,
            "tile_path" => Tile::parse(text()).is_ok(),
            "entry_bundle" => {
                let tile = Tile::new(TileKind::Entries, 0, 3).unwrap();
                parse_bundle(tile, bytes.get(1..).unwrap()).is_ok()
            }
            "receipt" => InclusionReceipt::parse(&bytes).is_ok(),
            "seen_on_chain" => Seen::parse(text()).is_ok(),
            "store_tail" => {
                let root = log(TAIL_OF).1.root();
                StoreWriter::from_tail(b"genesis", &bytes, TAIL_OF, root).is_ok()
            }
            other => panic!("{other}"),
        };
        assert!(accepted, "{target}/{name}");
    }
}
