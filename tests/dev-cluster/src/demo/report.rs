//! What the demo found, as `--json` prints it. `docs/FORMATS.md` describes each field, so that a
//! program which shares no code with this one can check all of it.
//!
//! Hex is `0x` and lower case, amounts are decimal strings in base units, times RFC 3339 in UTC.

use casemate_audit::{InclusionReceipt, Record, RecordError};
use casemate_proto::denial::LimitRef;
use casemate_proto::request::Payload;
use casemate_proto::{Amount, Denial};
use serde::Serialize;
use serde_json::Value;

use super::cluster::{Cosigner, Receipt};
use super::session::KnownKey;
use crate::network::Counts;

/// The version of the shape.
pub const SCHEMA: &str = "casemate.demo/1";

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The cluster that ran.
    pub cluster: ClusterReport,
    /// Its keys.
    pub keys: Vec<KeyReport>,
    /// Every different request, in the order of asking. One that was sent again, to the same or
    /// another node, is here once.
    pub requests: Vec<RequestReport>,
    /// What the policy bounds.
    pub bounds: Vec<BoundReport>,
    /// What the attacker got.
    pub attack: AttackReport,
    /// The newest checkpoint: a signed note.
    pub checkpoint: String,
    /// The keys that cosign checkpoints, as verifier keys of signed notes: of every boot that was
    /// a member at some time.
    pub cosigners: Vec<String>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What was done to the processes; none where the nodes were threads of one.
    pub processes: Option<ProcessesReport>,
}

/// What was done to the nodes' processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessesReport {
    /// Every boot that was a member at some time, in the order of [`Report::cosigners`]. A node
    /// that was restarted has more than one.
    pub boots: Vec<BootReport>,
    /// What the hostile network did.
    pub network: NetworkReport,
}

/// A boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootReport {
    /// Its node.
    pub node: String,
    /// Its key for checkpoints, one of [`Report::cosigners`].
    pub cosigner: String,
}

/// What the hostile network did, in chunks of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkReport {
    /// What it does follows from this: a decimal number.
    pub seed: String,
    /// How often it did what.
    #[serde(flatten)]
    pub counts: Counts,
    /// How many payments asked for meanwhile were allowed and not signed in time.
    pub expired: u32,
}

/// The cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterReport {
    /// What names it.
    pub genesis_id: String,
    /// How often it was recovered cold.
    pub incarnation: u64,
    /// How many nodes sign.
    pub threshold: u64,
    /// The nodes' names.
    pub nodes: Vec<String>,
}

/// A key.
#[derive(Clone, Debug, Serialize)]
pub struct KeyReport {
    /// Its name.
    pub name: String,
    /// `ecdsa-secp256k1` or `ed25519`.
    pub scheme: &'static str,
    /// 33 bytes SEC 1, or 32 bytes.
    pub public_key: String,
    /// Its EVM address.
    pub address: Option<String>,
}

/// A request and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct RequestReport {
    /// The client's id for it.
    pub id: String,
    /// Which of the seven steps.
    pub step: u8,
    /// The key.
    pub key: String,
    /// The child of it.
    pub path: String,
    /// Who asked.
    pub principal: String,
    /// `tx`, `typed_data`, `message` or `hash`.
    pub kind: &'static str,
    /// Hex, or the object for typed data.
    pub input: Value,
    /// What came of it in the end.
    pub outcome: Outcome,
    /// Why it was denied.
    pub denial: Option<DenialReport>,
    /// What is signed for it, where the payload could be read.
    pub digest: Option<String>,
    /// r‖s‖v (65 bytes, v 27 or 28) or 64 bytes Ed25519.
    pub signature: Option<String>,
    /// The signed transaction.
    pub raw_transaction: Option<String>,
    /// The proof that it is in the log.
    pub receipt: Option<ReceiptReport>,
    /// Which record says so, of a denial that was recorded.
    #[serde(skip)]
    pub denied_at: Option<u64>,
}

/// A proof that a record is in the log; of a signature, that two are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptReport {
    /// The leaf: of the signature, or of the denied request. Strict CBOR.
    pub record: String,
    /// Its number.
    pub index: u64,
    /// Siblings from the leaf up, in the checkpoint's tree.
    pub proof: Vec<String>,
    /// The leaf of the request, or last approval, that was allowed; none for a denial.
    pub request_record: Option<String>,
    /// Its number.
    pub request_index: Option<u64>,
    /// Siblings from that leaf up, in the tree of `request_checkpoint`.
    pub request_proof: Option<Vec<String>>,
    /// The signed note that fixes the tree.
    pub checkpoint: String,
    /// The same for the request's record; it may be an earlier one.
    pub request_checkpoint: Option<String>,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Signed.
    Signed,
    /// Denied.
    Denied,
    /// Still waits for approvals.
    Pending,
    /// Allowed and charged, but not signed in time: it never will be.
    Expired,
    /// None of these: the cluster could not serve it.
    Error,
}

/// A denial.
#[derive(Clone, Debug, Serialize)]
pub struct DenialReport {
    /// One of a closed list.
    pub code: &'static str,
    /// The grant that decided.
    pub grant: Option<String>,
    /// What the limit that was hit is set to: base units, or a number of signatures.
    pub limit: Option<String>,
    /// What is left under it.
    pub remaining: Option<String>,
    /// When the same request could next pass.
    pub resets_at: Option<String>,
}

/// A bound of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BoundReport {
    /// The key.
    pub key: String,
    /// The asset's name in the policy.
    pub asset: String,
    /// The window's length.
    pub window: String,
    /// The most that can be signed for within any interval of that length.
    pub amount: String,
    /// Digits behind the point of one whole unit.
    pub decimals: u8,
}

/// What the attacker got of one key and asset, beside its bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttackReport {
    /// How often something was asked for, over all keys, repetitions included.
    pub asked: u64,
    /// The sum of everything signed for that key and asset.
    pub signed_total: String,
    /// The bound on it.
    pub bound: String,
}

/// Something that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
}

/// `0x` and lower-case hex.
#[must_use]
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

impl From<&KnownKey> for KeyReport {
    fn from(known: &KnownKey) -> Self {
        Self {
            name: known.key.name.to_string(),
            scheme: known.key.scheme.name(),
            public_key: hex(&known.key.public_key),
            address: known.address.map(|address| hex(address.0)),
        }
    }
}

impl From<&Cosigner> for BootReport {
    fn from(cosigner: &Cosigner) -> Self {
        Self { node: cosigner.node.to_string(), cosigner: cosigner.key.to_string() }
    }
}

impl From<&Denial> for DenialReport {
    fn from(denial: &Denial) -> Self {
        let limit = denial.limit.as_ref().map(|limit| match limit {
            LimitRef::PerTx { max }
            | LimitRef::Sum { max, .. }
            | LimitRef::Fee { max }
            | LimitRef::FeeSum { max, .. } => *max,
            LimitRef::Count { max, .. } => Amount::from(*max),
        });
        Self {
            code: denial.code.name(),
            grant: denial.grant.as_ref().map(ToString::to_string),
            limit: limit.map(|amount| amount.to_string()),
            remaining: denial.remaining.map(|amount| amount.to_string()),
            resets_at: denial.resets_at.map(casemate_proto::UnixMillis::to_rfc3339),
        }
    }
}

impl ReceiptReport {
    /// Of one record: a denial's.
    ///
    /// # Errors
    /// If the leaf is no record.
    pub fn of_record(receipt: &InclusionReceipt) -> Result<Self, RecordError> {
        Ok(Self {
            record: hex(&receipt.leaf),
            index: Record::parse(&receipt.leaf)?.index(),
            proof: receipt.proof.iter().map(ToString::to_string).collect(),
            request_record: None,
            request_index: None,
            request_proof: None,
            checkpoint: receipt.checkpoint.clone(),
            request_checkpoint: None,
        })
    }

    /// Of a signature.
    ///
    /// # Errors
    /// If a leaf is no record.
    pub fn of_signature(receipt: &Receipt) -> Result<Self, RecordError> {
        let allowed = Self::of_record(&receipt.allowed)?;
        Ok(Self {
            request_record: Some(allowed.record),
            request_index: Some(allowed.index),
            request_proof: Some(allowed.proof),
            request_checkpoint: Some(allowed.checkpoint),
            ..Self::of_record(&receipt.signed)?
        })
    }
}

/// A payload as it is printed.
///
/// # Errors
/// If typed data is not JSON at all, which the demo never asks for.
pub fn input_of(payload: &Payload) -> Result<Value, serde_json::Error> {
    Ok(match payload {
        Payload::Tx { unsigned, .. } => Value::String(hex(unsigned)),
        Payload::TypedData(json) => serde_json::from_str(json)?,
        Payload::Message(bytes) => Value::String(hex(bytes)),
        Payload::Hash(bytes) => Value::String(hex(bytes)),
    })
}

/// An amount for people: at least two digits behind the point.
#[must_use]
pub fn money(amount: Amount, decimals: u8) -> String {
    let text = amount.to_decimal(decimals);
    if decimals < 2 {
        return text;
    }
    match text.split_once('.') {
        None => format!("{text}.00"),
        Some((_, fraction)) if fraction.len() == 1 => format!("{text}0"),
        Some(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_at_least_two_digits_behind_the_point() {
        for (units, text) in
            [(200_000_000, "200.00"), (2_500_000, "2.50"), (1, "0.000001"), (1_230_000, "1.23")]
        {
            assert_eq!(money(Amount::from(units), 6), text);
        }
        assert_eq!(money(Amount::from(6), 0), "6");
    }
}
