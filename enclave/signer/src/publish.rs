//! What goes to the auditors' store: records, tiles, checkpoints, policies, receipts.
//!
//! Nothing is published that a checkpoint with at least t cosignatures does not cover. Records wait
//! here until one comes; where too many wait, the node takes no new requests.

use std::collections::{BTreeMap, VecDeque};

use casemate_audit::store::{File, receipt_file};
use casemate_audit::{Record, SignedNote, StoreWriter, Tail, Tree};
use casemate_ledger::{Attachment, Committed, EntryBody, State};
use casemate_proto::governance::Change;
use casemate_proto::manifest::GenesisRecord;
use casemate_proto::recovery::{MAX_SIGNED_CERTIFICATE, SignedCertificate};
use casemate_proto::{KeyName, UnixMillis};

use crate::answer::Receipt;
use crate::event::{HaltReason, JoinError, Output};
use crate::node::Node;

/// Most records that wait for a checkpoint.
const MAX_UNPUBLISHED: usize = 4_096;
/// Most bytes of leaves kept at hand for proofs.
const MAX_LEAF_BYTES: usize = 64 * 1024 * 1024;

/// Records on their way to the store, the newest leaves, and those that made a key live.
pub(crate) struct Publisher {
    writer: StoreWriter,
    unpublished: VecDeque<Record>,
    receipts: Vec<File>,
    leaves: VecDeque<Vec<u8>>,
    first_leaf: u64,
    leaf_bytes: usize,
    /// With their indices; they stay, and are pinned in the tree.
    keys: BTreeMap<KeyName, (u64, Vec<u8>)>,
}

impl Publisher {
    pub(crate) const fn new(writer: StoreWriter) -> Self {
        Self {
            writer,
            unpublished: VecDeque::new(),
            receipts: Vec::new(),
            leaves: VecDeque::new(),
            first_leaf: 0,
            leaf_bytes: 0,
            keys: BTreeMap::new(),
        }
    }

    /// Goes on where a peer stands, if what it says leads to the state's tree, every policy is what
    /// its name says, and every live key's record is there.
    pub(crate) fn from_tail(
        genesis: &GenesisRecord,
        tail: &[u8],
        state: &State,
    ) -> Result<(Self, Tree), JoinError> {
        let genesis = casemate_proto::cbor::encode(genesis);
        let Tail { writer, waiting, tree, pinned } =
            StoreWriter::from_tail(&genesis, tail, state.size(), state.root())?;
        let wrong = |reason| JoinError::TailContent { reason };
        for (name, bytes) in writer.attached() {
            let certificate =
                casemate_proto::cbor::decode::<SignedCertificate>(bytes, MAX_SIGNED_CERTIFICATE);
            if certificate.is_ok_and(|signed| signed.certificate.id() == *name) {
                continue;
            }
            let policy = casemate_policy::Policy::from_canonical(bytes)
                .map_err(|error| wrong(format!("policy {name}: {error}")))?;
            if policy.policy_hash() != *name {
                return Err(wrong(format!("what is called {name} is {}", policy.policy_hash())));
            }
        }
        let (mut tree, mut pinned, mut keys) = (tree, pinned, BTreeMap::new());
        for (name, key) in state.keys() {
            let Some(live) = &key.live else { continue };
            let record = pinned.remove(&live.index).ok_or_else(|| {
                wrong(format!("the record that made key `{name}` live is missing"))
            })?;
            keys.insert(name.clone(), (live.index, record.leaf_bytes().to_vec()));
        }
        for index in pinned.into_keys() {
            tree.unpin(index);
        }
        let mut publisher = Self { first_leaf: writer.size(), keys, ..Self::new(writer) };
        for record in &waiting {
            publisher.keep_leaf(record);
        }
        publisher.unpublished = waiting;
        Ok((publisher, tree))
    }

    /// What another boot needs to go on from here.
    pub(crate) fn tail(&self, tree: &Tree) -> Option<Vec<u8>> {
        let size = tree.size();
        let pinned: Option<Vec<_>> = self
            .keys
            .values()
            .map(|(index, leaf)| {
                Some((*index, leaf.as_slice(), tree.inclusion_proof(*index, size).ok()?))
            })
            .collect();
        self.writer.tail(&self.unpublished, pinned?)
    }

    /// The record of a live key's newest epoch stays; that of the epoch before goes.
    pub(crate) fn keep_key(&mut self, tree: &mut Tree, name: &KeyName, record: &Record) {
        let index = record.index();
        if let Err(error) = tree.pin(index) {
            tracing::error!(key = %name, index, %error, "a key's record will not be proved");
            return;
        }
        let kept = (index, record.leaf_bytes().to_vec());
        if let Some((former, _)) = self.keys.insert(name.clone(), kept) {
            tree.unpin(former);
        }
    }

    /// Takes an applied entry's record.
    pub(crate) fn record(&mut self, record: &Record, committed: &Committed) {
        if let (EntryBody::Governance(signed), Some(Attachment::Policy(canonical))) =
            (&committed.entry().body, committed.attachment())
            && let Change::SetPolicy { policy } = &signed.envelope.change
        {
            self.writer.attach(policy, canonical);
        }
        if let (EntryBody::Recover { certificate }, Some(Attachment::Recovery(signed))) =
            (&committed.entry().body, committed.attachment())
        {
            self.writer.attach(certificate, signed);
        }
        self.keep_leaf(record);
        self.unpublished.push_back(record.clone());
    }

    fn keep_leaf(&mut self, record: &Record) {
        let leaf = record.leaf_bytes().to_vec();
        self.leaf_bytes = self.leaf_bytes.saturating_add(leaf.len());
        self.leaves.push_back(leaf);
        while self.leaf_bytes > MAX_LEAF_BYTES {
            let Some(oldest) = self.leaves.pop_front() else { break };
            self.leaf_bytes = self.leaf_bytes.saturating_sub(oldest.len());
            self.first_leaf = self.first_leaf.saturating_add(1);
        }
    }

    /// Whether as many records wait as may.
    pub(crate) fn is_full(&self) -> bool {
        self.unpublished.len() >= MAX_UNPUBLISHED
    }
    /// How many records are published.
    pub(crate) const fn published(&self) -> u64 {
        self.writer.size()
    }
    /// A leaf, while it is at hand.
    pub(crate) fn leaf(&self, index: u64) -> Option<&[u8]> {
        let newest = index.checked_sub(self.first_leaf);
        let leaf = newest.and_then(|at| self.leaves.get(usize::try_from(at).ok()?));
        leaf.map(Vec::as_slice)
    }
    /// The leaf of the record that made a key's current epoch live.
    pub(crate) fn key_leaf(&self, name: &KeyName) -> Option<(u64, &[u8])> {
        self.keys.get(name).map(|(index, leaf)| (*index, leaf.as_slice()))
    }
    /// Keeps receipts that were given out.
    pub(crate) fn receipts(&mut self, receipt: &Receipt) {
        for receipt in [&receipt.allowed, &receipt.signed] {
            if let Ok(record) = Record::parse(&receipt.leaf) {
                self.receipts.push(receipt_file(record.index(), receipt));
            }
        }
    }

    /// The files that bring the store to this checkpoint.
    fn commit(&mut self, note: &SignedNote, size: u64) -> Result<Vec<File>, String> {
        while self.unpublished.front().is_some_and(|record| record.index() < size) {
            if let Some(record) = self.unpublished.pop_front() {
                self.writer.append(&record).map_err(|error| error.to_string())?;
            }
        }
        self.writer.commit(note).map_err(|error| error.to_string())
    }
}

impl Node {
    /// Writes the store up to a checkpoint that was found good and is this node's own.
    pub(crate) fn publish(&mut self, note: &SignedNote, size: u64) {
        match self.publisher.commit(note, size) {
            Ok(files) => self.out.push(Output::Publish(files)),
            Err(reason) => self.halt(HaltReason::Store(reason)),
        }
    }

    pub(crate) fn publish_receipts(&mut self, _now: UnixMillis) {
        let files = std::mem::take(&mut self.publisher.receipts);
        if !files.is_empty() {
            self.out.push(Output::Publish(files));
        }
    }
}
