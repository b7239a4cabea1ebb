//! What goes to the auditors' store: records, tiles, checkpoints, policies, receipts.
//!
//! Nothing is published that a checkpoint with at least t cosignatures does not cover. Records wait
//! here until one comes; where too many wait, the node takes no new requests.

use std::collections::VecDeque;

use casemate_audit::store::{File, receipt_file};
use casemate_audit::{Record, SignedNote, StoreWriter};
use casemate_ledger::{Attachment, Committed, EntryBody};
use casemate_proto::UnixMillis;
use casemate_proto::governance::Change;

use crate::answer::Receipt;
use crate::event::{HaltReason, Output};
use crate::node::Node;

/// Most records that wait for a checkpoint.
const MAX_UNPUBLISHED: usize = 4_096;
/// Most bytes of leaves kept at hand for proofs.
const MAX_LEAF_BYTES: usize = 64 * 1024 * 1024;

/// Records on their way to the store, and the newest leaves.
pub(crate) struct Publisher {
    writer: StoreWriter,
    unpublished: VecDeque<Record>,
    receipts: Vec<File>,
    leaves: VecDeque<Vec<u8>>,
    first_leaf: u64,
    leaf_bytes: usize,
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
        let leaf = record.leaf_bytes().to_vec();
        self.leaf_bytes = self.leaf_bytes.saturating_add(leaf.len());
        self.leaves.push_back(leaf);
        while self.leaf_bytes > MAX_LEAF_BYTES {
            let Some(oldest) = self.leaves.pop_front() else { break };
            self.leaf_bytes = self.leaf_bytes.saturating_sub(oldest.len());
            self.first_leaf = self.first_leaf.saturating_add(1);
        }
        self.unpublished.push_back(record.clone());
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
        let at = usize::try_from(index.checked_sub(self.first_leaf)?).ok()?;
        self.leaves.get(at).map(Vec::as_slice)
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
