//! What the verification of a store found.

use std::collections::BTreeMap;

use casemate_proto::{GenesisId, Hash32, Scheme, UnixMillis};
use serde::Serialize;

/// Most findings kept; the rest are counted.
pub const MAX_FINDINGS: usize = 100;

/// A signature that a record says was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordedSignature {
    /// The record that holds it.
    pub index: u64,
    /// Its scheme.
    #[serde(serialize_with = "scheme_name")]
    pub scheme: Scheme,
    /// r‖s, or R‖S: 64 bytes.
    #[serde(serialize_with = "hex_bytes")]
    pub signature: [u8; 64],
    /// What was signed: the digest of ECDSA, SHA-256 of Ed25519's message.
    pub digest: Hash32,
    /// The hash of the transaction that it makes valid, where it is one of a transaction.
    pub transaction: Option<Hash32>,
}

fn scheme_name<S: serde::Serializer>(scheme: &Scheme, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(scheme.name())
}

fn hex_bytes<S: serde::Serializer>(bytes: &[u8; 64], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format!("0x{}", hex::encode(bytes)))
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A file that must be there is not.
    #[error("`{path}` is missing")]
    Missing {
        /// Which.
        path: String,
    },
    /// A file that cannot be read.
    #[error("`{path}` cannot be read: {reason}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// A file that is not what its place says.
    #[error("`{path}`: {reason}")]
    Malformed {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The log of another cluster.
    #[error("the log is of cluster {found}, not {expected}")]
    OtherCluster {
        /// The one expected.
        expected: GenesisId,
        /// The one found.
        found: GenesisId,
    },
    /// The log's key is not the one expected.
    #[error("the log's key is {found}, not {expected}")]
    OtherLogKey {
        /// The one expected, as hex.
        expected: String,
        /// The one found, as hex, or `none`.
        found: String,
    },
    /// A checkpoint whose signatures do not suffice.
    #[error("checkpoint `{path}` of size {size}: {reason}")]
    BadCheckpoint {
        /// Where it is.
        path: String,
        /// Its size.
        size: u64,
        /// Why it cannot be relied on.
        reason: String,
    },
    /// A checkpoint was given out for more leaves than the newest one of the store has.
    #[error("checkpoint `{path}` has {size} leaves, the store's newest only {newest}")]
    StoreIsBehind {
        /// Where it is.
        path: String,
        /// Its size.
        size: u64,
        /// The size of the newest.
        newest: u64,
    },
    /// A checkpoint of a root that the records do not have.
    #[error("checkpoint `{path}` of size {size} has root {found}; the records have {computed}")]
    OtherRoot {
        /// Where it is.
        path: String,
        /// Its size.
        size: u64,
        /// Its root.
        found: Hash32,
        /// The root of the records.
        computed: Hash32,
    },
    /// Two checkpoints, both sufficiently signed, show different logs: the proof that enough
    /// cosigners lied. Keep both notes.
    #[error(
        "split view at size {size}: `{first_path}` and `{second_path}` are both signed and cannot both be true"
    )]
    SplitView {
        /// The size of the first.
        size: u64,
        /// Where the first is.
        first_path: String,
        /// The whole signed note.
        first: String,
        /// Where the second is.
        second_path: String,
        /// The whole signed note.
        second: String,
    },
    /// A record that is none, or not the one that belongs here.
    #[error("record {index}: {reason}")]
    BadRecord {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// Executing the entry again gives another record.
    #[error("record {index} does not come out of its entry: {reason}")]
    ReplayMismatch {
        /// Its index.
        index: u64,
        /// What is different.
        reason: String,
    },
    /// A tile that does not hold the records' hashes.
    #[error("tile `{path}` does not hold the hashes of the records")]
    WrongTile {
        /// Which.
        path: String,
    },
    /// A receipt that does not show what it should.
    #[error("receipt `{path}`: {reason}")]
    BadReceipt {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// How much was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records in the newest checkpoint's tree.
    pub records: u64,
    /// Records that were executed again with the same outcome.
    pub replayed: u64,
    /// Records of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Bundles of entries.
    pub bundles: u64,
    /// Tiles of hashes.
    pub tiles: u64,
    /// Signed checkpoints, those of receipts included, each once.
    pub checkpoints: u64,
    /// Receipts.
    pub receipts: u64,
    /// Signatures in the records.
    pub signatures: u64,
    /// Signatures whose record a receipt of the store proves.
    pub signatures_with_receipt: u64,
}

/// A cosigner of the newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewestCosigner {
    /// Its key's name.
    pub name: String,
    /// When it signed, in seconds since the Unix epoch, by its own clock.
    pub time: u64,
}

/// What the verification of a store found; only `verify_store` makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub(crate) verified: bool,
    pub(crate) genesis: GenesisId,
    pub(crate) origin: Option<String>,
    pub(crate) size: Option<u64>,
    pub(crate) root: Option<Hash32>,
    pub(crate) last_time: Option<UnixMillisText>,
    pub(crate) log_signed: bool,
    pub(crate) cosigners: Vec<NewestCosigner>,
    pub(crate) needed_cosigners: usize,
    pub(crate) counts: Counts,
    pub(crate) findings: Vec<Finding>,
    pub(crate) more_findings: u64,
    #[serde(skip)]
    pub(crate) signatures: Vec<RecordedSignature>,
}

/// A time, printed as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnixMillisText(pub(crate) UnixMillis);

impl Serialize for UnixMillisText {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_rfc3339())
    }
}

impl Report {
    pub(crate) fn new(genesis: GenesisId) -> Self {
        Self {
            verified: false,
            genesis,
            origin: None,
            size: None,
            root: None,
            last_time: None,
            log_signed: false,
            cosigners: Vec::new(),
            needed_cosigners: 0,
            counts: Counts::default(),
            findings: Vec::new(),
            more_findings: 0,
            signatures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings = self.more_findings.saturating_add(1);
        }
    }

    /// Whether everything was checked and nothing found.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        self.verified
    }
    /// The cluster.
    #[must_use]
    pub const fn genesis(&self) -> GenesisId {
        self.genesis
    }
    /// The newest checkpoint's origin line, if there is a checkpoint.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }
    /// How many records the newest checkpoint covers.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }
    /// The newest checkpoint's root.
    #[must_use]
    pub const fn root(&self) -> Option<Hash32> {
        self.root
    }
    /// The ledger's time at the last record.
    #[must_use]
    pub fn last_time(&self) -> Option<UnixMillis> {
        self.last_time.map(|time| time.0)
    }
    /// Whether the log's own key signed the newest checkpoint.
    #[must_use]
    pub const fn is_log_signed(&self) -> bool {
        self.log_signed
    }
    /// The boots that cosigned the newest checkpoint.
    #[must_use]
    pub fn cosigners(&self) -> &[NewestCosigner] {
        &self.cosigners
    }
    /// How many cosigners were asked for.
    #[must_use]
    pub const fn needed_cosigners(&self) -> usize {
        self.needed_cosigners
    }
    /// How much was checked.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }
    /// What is not as it must be, at most [`MAX_FINDINGS`] of it.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
    /// How many findings there are beyond those.
    #[must_use]
    pub const fn more_findings(&self) -> u64 {
        self.more_findings
    }
    /// The signatures that the records hold, as far as they could be executed again.
    #[must_use]
    pub fn signatures(&self) -> &[RecordedSignature] {
        &self.signatures
    }
}
