//! Receipts: the proof that a record is in the log, as `docs/FORMATS.md` has it.

use casemate_audit::{InclusionReceipt, Record, RecordError};
use casemate_door::Receipt;
use casemate_proto::ids::Hash32;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::Hex;

/// A receipt's JSON that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptJsonError {
    /// A leaf is no record.
    #[error("field `{field}`: {error}")]
    Record {
        /// Which leaf.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        error: RecordError,
    },
    /// The index beside a leaf is another than the one in it.
    #[error("field `{field}` is {said}, and the record's own index is {own}")]
    Index {
        /// Which.
        field: &'static str,
        /// What it says.
        said: u64,
        /// What the record says.
        own: u64,
    },
    /// A signature's receipt without the record that allowed it.
    #[error("field `{field}` is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
}

fn index_of(field: &'static str, leaf: &[u8]) -> Result<u64, ReceiptJsonError> {
    Record::parse(leaf)
        .map(|record| record.index())
        .map_err(|error| ReceiptJsonError::Record { field, error })
}

fn check_index(
    (record, index): (&'static str, &'static str),
    leaf: &[u8],
    said: u64,
) -> Result<(), ReceiptJsonError> {
    let own = index_of(record, leaf)?;
    if own == said { Ok(()) } else { Err(ReceiptJsonError::Index { field: index, said, own }) }
}

/// The proof that one record is a leaf of the tree of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InclusionJson {
    /// The leaf: a record's strict CBOR.
    pub record: Hex,
    /// Its number.
    pub index: u64,
    /// Siblings from the leaf up.
    #[schema(value_type = Vec<String>)]
    pub proof: Vec<Hash32>,
    /// The signed note that fixes the tree.
    pub checkpoint: String,
}

impl TryFrom<&InclusionReceipt> for InclusionJson {
    type Error = ReceiptJsonError;

    fn try_from(receipt: &InclusionReceipt) -> Result<Self, ReceiptJsonError> {
        Ok(Self {
            record: Hex::from(&receipt.leaf),
            index: index_of("record", &receipt.leaf)?,
            proof: receipt.proof.clone(),
            checkpoint: receipt.checkpoint.clone(),
        })
    }
}

impl TryFrom<InclusionJson> for InclusionReceipt {
    type Error = ReceiptJsonError;

    fn try_from(json: InclusionJson) -> Result<Self, ReceiptJsonError> {
        check_index(("record", "index"), &json.record.0, json.index)?;
        Ok(Self { leaf: json.record.0, proof: json.proof, checkpoint: json.checkpoint })
    }
}

/// The proof that the record of a signature, and the record that allowed it, are in the log. Of a
/// denial there is one record only, and the fields that begin with `request_` are null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptJson {
    /// The leaf: of the signature, or of the denied request. Strict CBOR.
    pub record: Hex,
    /// Its number.
    pub index: u64,
    /// Siblings from the leaf up, in the checkpoint's tree.
    #[schema(value_type = Vec<String>)]
    pub proof: Vec<Hash32>,
    /// The leaf of the request, or last approval, that was allowed.
    pub request_record: Option<Hex>,
    /// Its number.
    pub request_index: Option<u64>,
    /// Siblings from that leaf up, in the tree of `request_checkpoint`.
    #[schema(value_type = Option<Vec<String>>)]
    pub request_proof: Option<Vec<Hash32>>,
    /// The signed note that fixes the tree.
    pub checkpoint: String,
    /// The same for the request's record; it may be an earlier one.
    pub request_checkpoint: Option<String>,
}

impl TryFrom<&Receipt> for ReceiptJson {
    type Error = ReceiptJsonError;

    fn try_from(receipt: &Receipt) -> Result<Self, ReceiptJsonError> {
        let (allowed, signed) = (&receipt.allowed, &receipt.signed);
        Ok(Self {
            record: Hex::from(&signed.leaf),
            index: index_of("record", &signed.leaf)?,
            proof: signed.proof.clone(),
            request_record: Some(Hex::from(&allowed.leaf)),
            request_index: Some(index_of("request_record", &allowed.leaf)?),
            request_proof: Some(allowed.proof.clone()),
            checkpoint: signed.checkpoint.clone(),
            request_checkpoint: Some(allowed.checkpoint.clone()),
        })
    }
}

impl TryFrom<ReceiptJson> for Receipt {
    type Error = ReceiptJsonError;

    fn try_from(json: ReceiptJson) -> Result<Self, ReceiptJsonError> {
        let missing = |field| ReceiptJsonError::Missing { field };
        check_index(("record", "index"), &json.record.0, json.index)?;
        let leaf = json.request_record.ok_or(missing("request_record"))?.0;
        let index = json.request_index.ok_or(missing("request_index"))?;
        check_index(("request_record", "request_index"), &leaf, index)?;
        let allowed = InclusionReceipt {
            leaf,
            proof: json.request_proof.ok_or(missing("request_proof"))?,
            checkpoint: json.request_checkpoint.ok_or(missing("request_checkpoint"))?,
        };
        let signed = InclusionReceipt {
            leaf: json.record.0,
            proof: json.proof,
            checkpoint: json.checkpoint,
        };
        Ok(Self { allowed, signed })
    }
}
