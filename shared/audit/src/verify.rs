//! Offline verification of a store: nothing but the store, the cluster's genesis id, and the code
//! that executes entries is needed, and nothing that the host wrote is believed.
//!
//! 1. The records are read in order and hashed; at each size for which a signed checkpoint is
//!    there, the root must be that of the records (so every checkpoint is consistent with every
//!    other), and enough of the boots that are current at that size must have signed it.
//! 2. Each record must come out, byte for byte, when its entry is executed again. Who is current
//!    comes from there too: from the genesis, and from admissions that were verified when they
//!    were executed.
//! 3. Every tile must hold the hashes of the records; every receipt's record must be the one here.
//!
//! Two sufficiently signed checkpoints that cannot both be true are reported with both notes.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{BootId, GenesisId, Hash32, UnixMillis};

use crate::checkpoint::{
    Checkpoint, CheckpointError, CheckpointPolicy, CosignerSet, Origin, VerifiedCheckpoint,
    verify_checkpoint,
};
use crate::merkle::{leaf_hash, verify_inclusion};
use crate::note::{MAX_NOTE, SignedNote};
use crate::receipt::{InclusionReceipt, MAX_RECEIPT};
use crate::record::Record;
pub use crate::report::{Counts, Finding, RecordedSignature, Report};
use crate::report::{NewestCosigner, UnixMillisText};
use crate::store::{
    CHECKPOINT, CHECKPOINTS, MAX_ATTACHMENT, RECEIPTS, StoreRead, attachment_path, checkpoint_path,
    read_tile,
};
use crate::tile::{Tile, TileKind, parse_bundle, tile_bytes, tiles_for};
use crate::tree::{HashStore, MAX_SIZE, Tree};

/// Who may speak for the log at some point of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Which log.
    pub origin: Origin,
    /// The log's own key, once there is one.
    pub log_key: Option<[u8; 32]>,
    /// The current boots, with their keys for cosigning.
    pub boots: Vec<(BootId, [u8; 32])>,
    /// How many of them must have cosigned.
    pub threshold: usize,
}

impl Authority {
    /// What a checkpoint must show at this point.
    ///
    /// # Errors
    /// If the keys are not keys, or one stands under two names.
    pub fn policy(&self, with_log_key: bool) -> Result<CheckpointPolicy, CheckpointError> {
        let boots = self.boots.iter().map(|(boot, key)| self.origin.boot_key(boot, key));
        let keys = boots.collect::<Result<Vec<_>, _>>()?;
        let log_key = self.log_key.filter(|_| with_log_key);
        Ok(CheckpointPolicy {
            origin: self.origin.to_string(),
            log_key: log_key.map(|key| self.origin.log_key(&key)).transpose()?,
            cosigners: CosignerSet::new(keys, self.threshold)?,
        })
    }
}

/// What executing a record's entry again gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// The record as it must be.
    pub record: Record,
    /// The signatures that it holds.
    pub signatures: Vec<RecordedSignature>,
}

/// Executes the log again: the ledger, from its genesis.
pub trait Replay {
    /// Why an entry cannot be executed.
    type Error: fmt::Display;

    /// The hash by which the record's entry calls an attachment, if it has one.
    fn attachment(&self, record: &Record) -> Option<Hash32>;

    /// Applies the entry of the next record and says what the record must be. Nothing of `record`
    /// but its entry may be taken as true, and of `attachment` nothing: whether it has the hash
    /// by which the entry calls it is for the ledger to check.
    ///
    /// # Errors
    /// If the entry is not one that can come next.
    fn apply(
        &mut self,
        record: &Record,
        attachment: Option<Vec<u8>>,
    ) -> Result<ReplayOutcome, Self::Error>;

    /// Who may speak for the log after the records applied so far.
    fn authority(&self) -> Authority;
}

/// What whoever verifies knows from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectations {
    /// The cluster; it pins the manifest, the first boots and the threshold.
    pub genesis: GenesisId,
    /// The log's own key, if known.
    pub log_key: Option<[u8; 32]>,
    /// Whether the newest checkpoint must be signed by the log's own key too.
    pub require_log_signature: bool,
    /// Fewest cosigners, if more than the cluster's threshold are to be asked for.
    pub min_cosigners: Option<usize>,
}

impl Expectations {
    /// Only the cluster is known.
    #[must_use]
    pub const fn of(genesis: GenesisId) -> Self {
        Self { genesis, log_key: None, require_log_signature: false, min_cosigners: None }
    }
}

/// A signed checkpoint found in the store, and where.
struct Claim {
    path: String,
    note: SignedNote,
    checkpoint: Checkpoint,
}

/// A receipt's record: its index and hash.
struct Receipt {
    path: String,
    index: u64,
    leaf: Hash32,
}

type Attachment = (Option<Vec<u8>>, Option<String>);

/// Verifies everything in a store.
pub fn verify_store<S: StoreRead, R: Replay>(
    store: &S,
    expectations: &Expectations,
    replay: &mut R,
) -> Report {
    let mut run = Run {
        store,
        expectations,
        report: Report::new(expectations.genesis),
        claims: BTreeMap::new(),
        receipts: Vec::new(),
        forged: Vec::new(),
        tree: Tree::new(),
        sound: true,
    };
    run.go(replay);
    run.report.verified = run.report.findings.is_empty();
    run.report
}

struct Run<'a, S> {
    store: &'a S,
    expectations: &'a Expectations,
    report: Report,
    /// By size and text of the note, so that a checkpoint of many receipts is checked once.
    claims: BTreeMap<(u64, String), Claim>,
    receipts: Vec<Receipt>,
    /// Signed checkpoints that are not of these records, to be shown beside the newest one.
    forged: Vec<Claim>,
    tree: Tree,
    /// Whether all records so far came out of their entries: who may sign is known only then.
    sound: bool,
}

impl<S: StoreRead> Run<'_, S> {
    fn go<R: Replay>(&mut self, replay: &mut R) {
        let authority = replay.authority();
        if authority.origin.genesis != self.expectations.genesis {
            return self.report.add(Finding::OtherCluster {
                expected: self.expectations.genesis,
                found: authority.origin.genesis,
            });
        }
        let Some(newest) = self.read_newest() else { return };
        self.read_claims(newest.size);
        self.read_receipts(newest.size);
        self.read_records(newest.size, replay);
        if self.tree.size() == newest.size {
            self.check_newest(&newest, &replay.authority());
            self.check_tiles(newest.size);
            self.check_receipts();
        }
    }

    fn read(&mut self, path: &str, max: usize) -> Option<Vec<u8>> {
        match self.store.read(path, max) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => self.report.add(Finding::Missing { path: path.to_owned() }),
            Err(error) => self.unreadable(path, &error),
        }
        None
    }

    fn unreadable(&mut self, path: &str, error: &S::Error) {
        let (path, reason) = (path.to_owned(), error.to_string());
        self.report.add(Finding::Unreadable { path, reason });
    }

    fn malformed(&mut self, path: &str, reason: impl fmt::Display) {
        let (path, reason) = (path.to_owned(), reason.to_string());
        self.report.add(Finding::Malformed { path, reason });
    }

    fn list(&mut self, folder: &str) -> Vec<String> {
        self.store.list(folder).unwrap_or_else(|error| {
            self.unreadable(folder, &error);
            Vec::new()
        })
    }

    fn read_claim(&mut self, path: &str, bytes: &[u8]) -> Option<Checkpoint> {
        let parsed = SignedNote::parse(bytes)
            .map_err(CheckpointError::from)
            .and_then(|note| Ok((Checkpoint::parse(note.text())?, note)));
        match parsed {
            Ok((checkpoint, note)) => {
                let claim = Claim { path: path.to_owned(), note, checkpoint: checkpoint.clone() };
                let key = (checkpoint.size, claim.note.to_string());
                self.claims.entry(key).or_insert(claim);
                Some(checkpoint)
            }
            Err(error) => {
                self.malformed(path, error);
                None
            }
        }
    }

    fn read_newest(&mut self) -> Option<Checkpoint> {
        let bytes = self.read(CHECKPOINT, MAX_NOTE)?;
        let newest = self.read_claim(CHECKPOINT, &bytes)?;
        if newest.size > MAX_SIZE {
            self.malformed(CHECKPOINT, "more leaves than a log can have");
            return None;
        }
        self.report.origin = Some(newest.origin.clone());
        self.report.size = Some(newest.size);
        self.report.root = Some(newest.root);
        Some(newest)
    }

    fn check_not_behind(&mut self, path: &str, size: u64, newest: u64) {
        if size > newest {
            let path = path.to_owned();
            self.report.add(Finding::StoreIsBehind { path, size, newest });
        }
    }

    fn read_claims(&mut self, newest: u64) {
        for name in self.list(CHECKPOINTS) {
            let path = format!("{CHECKPOINTS}/{name}");
            let Some(bytes) = self.read(&path, MAX_NOTE) else { continue };
            let Some(claim) = self.read_claim(&path, &bytes) else { continue };
            if checkpoint_path(claim.size, &claim.root) != path {
                self.malformed(&path, "the name is not that of the checkpoint in it");
            }
            self.check_not_behind(&path, claim.size, newest);
        }
    }

    fn read_receipts(&mut self, newest: u64) {
        for name in self.list(RECEIPTS) {
            let path = format!("{RECEIPTS}/{name}");
            let Some(bytes) = self.read(&path, MAX_RECEIPT) else { continue };
            self.report.counts.receipts = self.report.counts.receipts.saturating_add(1);
            let receipt = match InclusionReceipt::parse(&bytes) {
                Ok(receipt) => receipt,
                Err(error) => {
                    self.malformed(&path, error);
                    continue;
                }
            };
            let Some(tree) = self.read_claim(&path, receipt.checkpoint.as_bytes()) else {
                continue;
            };
            self.check_not_behind(&path, tree.size, newest);
            let leaf = leaf_hash(&receipt.leaf);
            let shown = Record::parse(&receipt.leaf).map_err(|error| error.to_string()).and_then(
                |record| {
                    let index = record.index();
                    verify_inclusion(&leaf, index, tree.size, &receipt.proof, &tree.root)
                        .map_err(|error| error.to_string())?;
                    Ok(index)
                },
            );
            match shown {
                Ok(index) => self.receipts.push(Receipt { path, index, leaf }),
                Err(reason) => self.report.add(Finding::BadReceipt { path, reason }),
            }
        }
    }

    /// Reads, hashes and executes the records up to `size`, and checks each checkpoint when the
    /// tree has its size. Stops where a record is missing.
    fn read_records<R: Replay>(&mut self, size: u64, replay: &mut R) {
        self.check_claims(replay);
        let mut last_time = UnixMillis(0);
        for tile in tiles_for(0, size).filter(|tile| tile.kind() == TileKind::Entries) {
            let Some(bundle) = self.read_bundle(tile) else { return };
            for leaf in bundle {
                let index = self.tree.size();
                let before = self.tree.root();
                if self.sound {
                    match self.check_record(index, before, &leaf, last_time, replay) {
                        Ok(time) => {
                            last_time = time;
                            self.report.last_time = Some(UnixMillisText(time));
                        }
                        Err(finding) => {
                            self.report.add(finding);
                            self.sound = false;
                        }
                    }
                }
                self.tree.append(leaf_hash(&leaf));
                self.report.counts.records = self.tree.size();
                self.check_claims(replay);
            }
        }
    }

    /// The leaves of a bundle, cut to the width that the tree's size gives it.
    fn read_bundle(&mut self, tile: Tile) -> Option<Vec<Vec<u8>>> {
        let path = tile.to_string();
        let (found, bytes) = match read_tile(self.store, tile) {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.report.add(Finding::Missing { path });
                return None;
            }
            Err(error) => {
                self.unreadable(&path, &error);
                return None;
            }
        };
        match parse_bundle(found, &bytes) {
            Ok(leaves) => {
                self.report.counts.bundles = self.report.counts.bundles.saturating_add(1);
                let width = usize::from(tile.width());
                Some(leaves.into_iter().take(width).map(<[u8]>::to_vec).collect())
            }
            Err(error) => {
                self.malformed(&path, error);
                None
            }
        }
    }

    fn check_record<R: Replay>(
        &mut self,
        index: u64,
        root: Hash32,
        leaf: &[u8],
        last_time: UnixMillis,
        replay: &mut R,
    ) -> Result<UnixMillis, Finding> {
        let bad = |reason: String| Finding::BadRecord { index, reason };
        let record = Record::parse(leaf).map_err(|error| bad(error.to_string()))?;
        let fields = record.fields();
        if fields.index != index {
            return Err(bad(format!("it says that it is record {}", fields.index)));
        }
        if fields.previous_root != root {
            return Err(bad(format!(
                "it extends a tree with root {}, not {root}",
                fields.previous_root
            )));
        }
        if fields.time < last_time {
            return Err(bad(format!("its time {} is before the last, {last_time}", fields.time)));
        }
        let (attachment, missing) = self.read_attachment(replay.attachment(&record))?;
        let outcome = replay.apply(&record, attachment).map_err(|error| error.to_string());
        let outcome = outcome
            .and_then(|outcome| {
                let same = outcome.record.leaf_bytes() == leaf;
                if same { Ok(outcome) } else { Err(difference(&outcome.record, &record)) }
            })
            .map_err(|reason| {
                // an entry whose attachment never came was denied for that, and is in order
                if let Some(path) = missing {
                    self.report.add(Finding::Missing { path });
                }
                Finding::ReplayMismatch { index, reason }
            })?;
        let counts = &mut self.report.counts;
        counts.replayed = counts.replayed.saturating_add(1);
        let kind = counts.kinds.entry(fields.kind.clone()).or_insert(0);
        *kind = kind.saturating_add(1);
        let found = u64::try_from(outcome.signatures.len()).unwrap_or(u64::MAX);
        counts.signatures = counts.signatures.saturating_add(found);
        self.report.signatures.extend(outcome.signatures);
        Ok(fields.time)
    }

    /// What travels beside an entry, and where it should be if it is not there.
    fn read_attachment(&self, name: Option<Hash32>) -> Result<Attachment, Finding> {
        let Some(path) = name.map(|name| attachment_path(&name)) else { return Ok((None, None)) };
        match self.store.read(&path, MAX_ATTACHMENT) {
            Ok(Some(bytes)) => Ok((Some(bytes), None)),
            Ok(None) => Ok((None, Some(path))),
            Err(error) => Err(Finding::Unreadable { path, reason: error.to_string() }),
        }
    }

    /// Checks the checkpoints of the size that the tree has now. A signed one with another root
    /// than the records' is shown beside one that is signed too and has theirs.
    fn check_claims<R: Replay>(&mut self, replay: &R) {
        let size = self.tree.size();
        let here: Vec<_> = self
            .claims
            .range((size, String::new())..)
            .take_while(|((at, _), _)| *at == size)
            .map(|(key, _)| key.clone())
            .collect();
        if here.is_empty() {
            return;
        }
        let authority = replay.authority();
        let computed = self.tree.root();
        let mut honest: Option<Claim> = None;
        let mut forged = Vec::new();
        for key in here {
            let Some(claim) = self.claims.remove(&key) else { continue };
            self.report.counts.checkpoints = self.report.counts.checkpoints.saturating_add(1);
            let signed = self.check_signatures(&claim, &authority);
            if claim.checkpoint.root == computed {
                honest = honest.or(signed.then_some(claim));
                continue;
            }
            let (path, found) = (claim.path.clone(), claim.checkpoint.root);
            self.report.add(Finding::OtherRoot { path, size, found, computed });
            if signed {
                forged.push(claim);
            }
        }
        match honest {
            Some(honest) => {
                for forged in forged {
                    self.split_view(&honest, &forged);
                }
            }
            // the newest checkpoint commits to the root at this size too
            None => self.forged.extend(forged),
        }
    }

    fn split_view(&mut self, honest: &Claim, forged: &Claim) {
        self.report.add(Finding::SplitView {
            size: forged.checkpoint.size,
            first_path: honest.path.clone(),
            first: honest.note.to_string(),
            second_path: forged.path.clone(),
            second: forged.note.to_string(),
        });
    }

    /// Whether enough of the boots that are current here signed. Without sound records it is not
    /// known who they are; the report is not verified in any case.
    fn check_signatures(&mut self, claim: &Claim, authority: &Authority) -> bool {
        if !self.sound {
            return false;
        }
        match self.verified(claim, authority, false) {
            Ok(_) => true,
            Err(error) => {
                self.bad_checkpoint(claim, &error);
                false
            }
        }
    }

    fn verified(
        &self,
        claim: &Claim,
        authority: &Authority,
        with_log_key: bool,
    ) -> Result<VerifiedCheckpoint, CheckpointError> {
        let threshold = authority.threshold.max(self.expectations.min_cosigners.unwrap_or(0));
        let authority = Authority { threshold, ..authority.clone() };
        verify_checkpoint(&claim.note, &authority.policy(with_log_key)?)
    }

    fn bad_checkpoint(&mut self, claim: &Claim, error: &CheckpointError) {
        let (path, size) = (claim.path.clone(), claim.checkpoint.size);
        self.report.add(Finding::BadCheckpoint { path, size, reason: error.to_string() });
    }

    /// What is said of the newest checkpoint beyond its root: who cosigned, and the log's key.
    fn check_newest(&mut self, newest: &Checkpoint, authority: &Authority) {
        self.report.needed_cosigners =
            authority.threshold.max(self.expectations.min_cosigners.unwrap_or(0));
        if !self.sound {
            return;
        }
        if let Some(expected) = self.expectations.log_key
            && authority.log_key != Some(expected)
        {
            let found = authority.log_key.map_or_else(|| "none".to_owned(), hex::encode);
            self.report.add(Finding::OtherLogKey { expected: hex::encode(expected), found });
        }
        let Some(bytes) = self.read(CHECKPOINT, MAX_NOTE) else { return };
        let Ok(note) = SignedNote::parse(&bytes) else { return };
        let (path, checkpoint) = (CHECKPOINT.to_owned(), newest.clone());
        let claim = Claim { path, note, checkpoint };
        let by_log = authority.log_key.map(|_| self.verified(&claim, authority, true));
        match by_log {
            Some(Ok(_)) => self.report.log_signed = true,
            // a wrong signature in the log's name is never harmless; a missing one may be
            Some(Err(error)) if !matches!(error, CheckpointError::LogSignatureMissing { .. }) => {
                self.bad_checkpoint(&claim, &error);
            }
            _ if self.expectations.require_log_signature => {
                let reason = "the log's own signature is missing".to_owned();
                let (path, size) = (claim.path.clone(), newest.size);
                self.report.add(Finding::BadCheckpoint { path, size, reason });
            }
            _ => {}
        }
        if let Ok(verified) = self.verified(&claim, authority, false) {
            let cosigners = verified.cosignatures().iter().map(|cosignature| NewestCosigner {
                name: cosignature.name.to_string(),
                time: cosignature.time.0,
            });
            self.report.cosigners = cosigners.collect();
            let same = |forged: &Claim| forged.note == claim.note;
            for forged in core::mem::take(&mut self.forged).iter().filter(|forged| !same(forged)) {
                self.split_view(&claim, forged);
            }
        }
    }

    fn check_tiles(&mut self, size: u64) {
        for tile in tiles_for(0, size).filter(|tile| tile.kind() != TileKind::Entries) {
            let path = tile.to_string();
            let (found, bytes) = match read_tile(self.store, tile) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.report.add(Finding::Missing { path });
                    continue;
                }
                Err(error) => {
                    self.unreadable(&path, &error);
                    continue;
                }
            };
            self.report.counts.tiles = self.report.counts.tiles.saturating_add(1);
            let expected = tile_bytes(&self.tree, tile);
            let sized = bytes.len() == usize::from(found.width()).saturating_mul(32);
            if !sized || !expected.is_ok_and(|expected| bytes.starts_with(&expected)) {
                self.report.add(Finding::WrongTile { path });
            }
        }
    }

    fn check_receipts(&mut self) {
        let mut proven = BTreeSet::new();
        for receipt in core::mem::take(&mut self.receipts) {
            if self.tree.hash(0, receipt.index) == Some(receipt.leaf) {
                proven.insert(receipt.index);
            } else {
                let reason = format!("record {} is another here", receipt.index);
                self.report.add(Finding::BadReceipt { path: receipt.path, reason });
            }
        }
        let with_receipt =
            self.report.signatures.iter().filter(|signature| proven.contains(&signature.index));
        let count = u64::try_from(with_receipt.count()).unwrap_or(u64::MAX);
        self.report.counts.signatures_with_receipt = count;
    }
}

/// Names the first part of a record that is not as it must be.
fn difference(expected: &Record, found: &Record) -> String {
    let (a, b) = (expected.fields(), found.fields());
    let part = [
        ("index", a.index == b.index),
        ("time", a.time == b.time),
        ("kind", a.kind == b.kind),
        ("entry", a.entry == b.entry),
        ("verdict", a.verdict == b.verdict),
        ("policy hash", a.policy == b.policy),
        ("counters", a.counters == b.counters),
        ("previous root", a.previous_root == b.previous_root),
    ]
    .into_iter()
    .find_map(|(part, same)| (!same).then_some(part));
    format!("the {} differs", part.unwrap_or("encoding"))
}
