//! What a client keeps of a signature or an answer: the record, the proof that it is a leaf, and
//! the checkpoint that the signing enclaves cosigned. It verifies by itself, with the cosigners'
//! keys and nothing else.

use casemate_proto::{Hash32, cbor};
use minicbor::{Decode, Encode};

use crate::checkpoint::{CheckpointError, CheckpointPolicy, VerifiedCheckpoint, verify_checkpoint};
use crate::merkle::{ProofError, leaf_hash, verify_inclusion};
use crate::note::{MAX_NOTE, NoteError, SignedNote};
use crate::record::{MAX_LEAF, Record, RecordError};

/// Most bytes of an encoded receipt: leaf, note, and 64 hashes with their lengths.
pub const MAX_RECEIPT: usize = MAX_LEAF + MAX_NOTE + 64 * 34 + 100;

/// A record with the proof that it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InclusionReceipt {
    /// The leaf: the encoded record.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub leaf: Vec<u8>,
    /// Siblings from the leaf up, in the checkpoint's tree.
    #[n(1)]
    pub proof: Vec<Hash32>,
    /// The signed note.
    #[n(2)]
    pub checkpoint: String,
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not strict CBOR of a receipt.
    #[error("not a receipt: {0}")]
    Cbor(#[from] cbor::CborError),
    /// The leaf is not a record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The checkpoint is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The checkpoint is not one to rely on.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The record is not shown to be in the checkpoint's tree.
    #[error("the record is not shown to be in the log: {0}")]
    Proof(#[from] ProofError),
}

impl InclusionReceipt {
    /// Its strict CBOR.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// From its strict CBOR.
    ///
    /// # Errors
    /// If the bytes are too many or not a receipt.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        Ok(cbor::decode(bytes, MAX_RECEIPT)?)
    }
}

/// A record that is in a log whose cosigners vouch for it; only [`verify_receipt`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRecord {
    record: Record,
    checkpoint: VerifiedCheckpoint,
}

impl VerifiedRecord {
    /// The record.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }
    /// The checkpoint that covers it.
    #[must_use]
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }
}

/// Checks a receipt: enough of the cosigners signed the checkpoint, and the record is the leaf of
/// its own index in that tree.
///
/// # Errors
/// If any of it is not shown.
pub fn verify_receipt(
    receipt: &InclusionReceipt,
    policy: &CheckpointPolicy,
) -> Result<VerifiedRecord, ReceiptError> {
    let record = Record::parse(&receipt.leaf)?;
    let note = SignedNote::parse(receipt.checkpoint.as_bytes())?;
    let checkpoint = verify_checkpoint(&note, policy)?;
    let tree = checkpoint.checkpoint();
    let leaf = leaf_hash(&receipt.leaf);
    verify_inclusion(&leaf, record.index(), tree.size, &receipt.proof, &tree.root)?;
    Ok(VerifiedRecord { record, checkpoint })
}
