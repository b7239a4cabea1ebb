//! A small ledger and the store of its log, to test verification with.
//!
//! Entries: `sign <n>` holds signature n; `admit <n>` replaces the first boot by boot n;
//! `attach <hash>` has an attachment; anything else changes nothing. The verdict is a hash chain, so that an entry changed anywhere shows.

#![allow(dead_code)]

use std::collections::BTreeMap;

use casemate_audit::note::UnixSeconds;
use casemate_audit::record::RecordFields;
use casemate_audit::store::{File, StoreWriter};
use casemate_audit::tree::Tree;
use casemate_audit::verify::{Authority, Replay, ReplayOutcome};
use casemate_audit::{
    Checkpoint, InclusionReceipt, NoteSignature, Origin, Record, RecordedSignature, SignedNote,
};
use casemate_proto::hash::tagged_hash;
use casemate_proto::{BootId, GenesisId, Hash32, Incarnation, Scheme, UnixMillis};
use ed25519_dalek::{Signer, SigningKey};

pub(crate) type Store = BTreeMap<String, Vec<u8>>;

pub(crate) const TIME: UnixSeconds = UnixSeconds(1_795_165_200);
pub(crate) const LOG: u8 = 100;

pub(crate) fn origin() -> Origin {
    Origin { genesis: GenesisId::new([0xab; 32]), incarnation: Incarnation(0) }
}

pub(crate) fn secret(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn public(number: u8) -> [u8; 32] {
    secret(number).verifying_key().to_bytes()
}

pub(crate) fn boot(number: u8) -> BootId {
    BootId::new([number; 32])
}

pub(crate) fn cosign(number: u8, checkpoint: &Checkpoint) -> NoteSignature {
    let key = origin().boot_key(&boot(number), &public(number)).unwrap();
    let signature = secret(number).sign(&checkpoint.cosignature_message(TIME)).to_bytes();
    NoteSignature::cosignature(&key, TIME, &signature)
}

pub(crate) fn note(checkpoint: &Checkpoint, boots: &[u8], log: bool) -> SignedNote {
    let mut lines: Vec<NoteSignature> =
        boots.iter().map(|boot| cosign(*boot, checkpoint)).collect();
    if log {
        let key = origin().log_key(&public(LOG)).unwrap();
        let signature = secret(LOG).sign(checkpoint.body().as_bytes()).to_bytes();
        lines.push(NoteSignature::ed25519(&key, &signature));
    }
    SignedNote::assemble(&checkpoint.body(), &lines).unwrap()
}

/// The ledger: a hash chain, and the boots.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) state: Hash32,
    pub(crate) tree: Tree,
    pub(crate) boots: Vec<u8>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { state: Hash32::new([0; 32]), tree: Tree::new(), boots: vec![1, 2, 3] }
    }
}

impl Ledger {
    pub(crate) fn apply_entry(&mut self, time: UnixMillis, entry: &[u8]) -> ReplayOutcome {
        self.state = tagged_hash("test/state", &[self.state.as_bytes(), entry]);
        let text = String::from_utf8_lossy(entry).into_owned();
        let (word, number) = text.split_once(' ').unwrap_or((&text, ""));
        let index = self.tree.size();
        let record = Record::new(RecordFields {
            index,
            time,
            kind: word.to_owned(),
            entry: entry.to_vec(),
            verdict: self.state.as_bytes().to_vec(),
            policy: None,
            counters: vec![],
            previous_root: self.tree.root(),
        })
        .unwrap();
        self.tree.append(record.leaf_hash());
        let mut signatures = vec![];
        match word {
            "sign" => signatures.push(RecordedSignature {
                index,
                scheme: Scheme::Ed25519,
                signature: [number.parse().unwrap(); 64],
                digest: Hash32::new([0; 32]),
                transaction: None,
            }),
            "admit" => self.boots[0] = number.parse().unwrap(),
            _ => {}
        }
        ReplayOutcome { record, signatures }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(&origin(), self.tree.size(), self.tree.root())
    }
}

impl Replay for Ledger {
    type Error = String;

    fn attachment(&self, record: &Record) -> Option<Hash32> {
        let entry = String::from_utf8_lossy(&record.fields().entry).into_owned();
        Hash32::from_hex(entry.strip_prefix("attach ")?).ok()
    }

    fn apply(
        &mut self,
        record: &Record,
        attachment: Option<Vec<u8>>,
    ) -> Result<ReplayOutcome, String> {
        if self.attachment(record).is_some_and(|name| {
            attachment.is_none_or(|bytes| tagged_hash("test/attachment", &[&bytes]) != name)
        }) {
            return Err("the attachment is another".to_owned());
        }
        if record.fields().entry.starts_with(b"impossible") {
            return Err("the entry is impossible".to_owned());
        }
        Ok(self.apply_entry(record.fields().time, &record.fields().entry))
    }

    fn authority(&self) -> Authority {
        Authority {
            origin: origin(),
            log_key: Some(public(LOG)),
            boots: self.boots.iter().map(|number| (boot(*number), public(*number))).collect(),
            threshold: 2,
        }
    }
}

/// A node's parent: the ledger, and the store as it grows.
pub(crate) struct Node {
    pub(crate) ledger: Ledger,
    pub(crate) writer: StoreWriter,
    pub(crate) store: Store,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            writer: StoreWriter::new(b"genesis"),
            store: Store::new(),
        }
    }

    pub(crate) fn enter(&mut self, entry: &[u8]) -> Record {
        let time = UnixMillis(self.ledger.tree.size() * 1000);
        let record = self.ledger.apply_entry(time, entry).record;
        self.writer.append(&record).unwrap();
        record
    }

    pub(crate) fn attach(&mut self, bytes: &[u8]) -> Hash32 {
        let name = tagged_hash("test/attachment", &[bytes]);
        self.enter(format!("attach {name}").as_bytes());
        self.writer.attach(&name, bytes);
        name
    }

    pub(crate) fn fill(&mut self, count: usize) {
        (0..count).for_each(|_| drop(self.enter(b"tick")));
    }

    /// Commits a checkpoint of the present tree, cosigned by the last two current boots.
    pub(crate) fn commit(&mut self) -> SignedNote {
        let note = note(&self.ledger.checkpoint(), &self.ledger.boots[1..], true);
        let files = self.writer.commit(&note).unwrap();
        self.put(files);
        note
    }

    pub(crate) fn put(&mut self, files: impl IntoIterator<Item = File>) {
        self.store.extend(files);
    }

    pub(crate) fn receipt(&self, record: &Record, boots: &[u8]) -> InclusionReceipt {
        let checkpoint = self.ledger.checkpoint();
        InclusionReceipt {
            leaf: record.leaf_bytes().to_vec(),
            proof: self.ledger.tree.inclusion_proof(record.index(), checkpoint.size).unwrap(),
            checkpoint: note(&checkpoint, boots, false).to_string(),
        }
    }
}
