//! The newest ledger that any of some stores has: verified, and executed again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use casemate_audit::note::{MAX_NOTE, SignedNote};
use casemate_audit::store::{CHECKPOINT, GENESIS};
use casemate_audit::{Checkpoint, Expectations, Frontier, StoreRead as _, leaf_hash, verify_store};
use casemate_ledger::replay::Replayer;
use casemate_ledger::take_up::{TakenUp, take_up};
use casemate_proto::manifest::MAX_GENESIS;
use casemate_proto::{GenesisId, Hash32};

use super::RecoverError;
use crate::audit::{Folder, each_leaf};

/// A store's ledger, and what became of the other stores.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) store: PathBuf,
    pub(super) taken: TakenUp,
    /// The genesis record's bytes.
    pub(super) genesis: Vec<u8>,
    /// Of every other store, a line.
    pub(super) others: Vec<String>,
}

/// What a store says of itself.
struct Claim {
    folder: Folder,
    path: PathBuf,
    size: u64,
    root: Hash32,
}

fn claim(path: &Path) -> Result<Claim, String> {
    let folder = Folder::open(path).map_err(|error| error.to_string())?;
    let bytes = folder.read(CHECKPOINT, MAX_NOTE).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("it has no checkpoint")?;
    let note = SignedNote::parse(&bytes).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    Ok(Claim { folder, path: path.to_owned(), size: checkpoint.size, root: checkpoint.root })
}

/// Verifies a store; its genesis record.
fn verify(claim: &Claim, genesis: GenesisId) -> Result<Vec<u8>, String> {
    let bytes = claim.folder.read(GENESIS, MAX_GENESIS).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("it has no genesis record")?;
    let mut replayer = Replayer::from_genesis(&bytes).map_err(|error| error.to_string())?;
    let found = replayer.state().genesis();
    if found != genesis {
        return Err(format!("it is of cluster {found}, and {genesis} is meant"));
    }
    let report = verify_store(&claim.folder, &Expectations::of(genesis), &mut replayer);
    match report.findings().first() {
        None if report.is_verified() => Ok(bytes),
        Some(finding) => Err(finding.to_string()),
        None => Err("it does not verify".to_owned()),
    }
}

/// The newest sound ledger of the cluster. `older` allows to pass over stores that claim more and are not sound.
pub(super) fn newest(
    genesis: GenesisId,
    stores: &[PathBuf],
    older: bool,
) -> Result<Newest, RecoverError> {
    let mut others = Vec::new();
    let mut claims = Vec::new();
    for path in stores {
        match claim(path) {
            Ok(claim) => claims.push(claim),
            Err(reason) => others.push(format!("`{}`: {reason}", path.display())),
        }
    }
    claims.sort_by(|a, b| (b.size, &a.path).cmp(&(a.size, &b.path)));
    let mut unsound: Option<(PathBuf, u64, String)> = None;
    let mut rest = claims.into_iter();
    let (chosen, bytes) = loop {
        let Some(claim) = rest.next() else {
            return Err(RecoverError::NoLedger { reasons: others.join("; ") });
        };
        match verify(&claim, genesis) {
            Ok(bytes) => break (claim, bytes),
            Err(reason) => {
                others.push(format!("`{}`: {reason}", claim.path.display()));
                unsound.get_or_insert((claim.path, claim.size, reason));
            }
        }
    };
    if let Some((path, claimed, reason)) = unsound.filter(|(_, size, _)| *size > chosen.size)
        && !older
    {
        return Err(RecoverError::NewerUnsound { path, claimed, reason, size: chosen.size });
    }
    let rest: Vec<Claim> = rest.collect();
    let roots = roots_at(&chosen, rest.iter().map(|claim| claim.size))?;
    for claim in rest {
        if roots.get(&claim.size) == Some(&claim.root) {
            let (path, size) = (claim.path.display(), claim.size);
            others.push(format!("`{path}`: {size} entries of the same history"));
            continue;
        }
        // signed by this cluster, it is another history; otherwise anybody's rubbish
        match verify(&claim, genesis) {
            Ok(_) => {
                let (one, other, size) = (chosen.path, claim.path, claim.size);
                return Err(RecoverError::SplitView { one, other, size });
            }
            Err(reason) => others.push(format!("`{}`: {reason}", claim.path.display())),
        }
    }
    let taken = take_up(&chosen.folder)?;
    Ok(Newest { store: chosen.path, taken, genesis: bytes, others })
}

/// The roots that a store has at some sizes.
fn roots_at(
    claim: &Claim,
    sizes: impl Iterator<Item = u64>,
) -> Result<BTreeMap<u64, Hash32>, RecoverError> {
    let mut roots: BTreeMap<u64, Hash32> = sizes.map(|size| (size, Hash32::new([0; 32]))).collect();
    if roots.is_empty() {
        return Ok(roots);
    }
    let mut frontier = Frontier::new();
    let mut note = |frontier: &Frontier| {
        if let Some(root) = roots.get_mut(&frontier.size()) {
            *root = frontier.root();
        }
    };
    note(&frontier);
    each_leaf(&claim.folder, 0, claim.size, |_, leaf| {
        frontier.append(leaf_hash(leaf));
        note(&frontier);
        Ok(true)
    })
    .map_err(|error| RecoverError::NoLedger {
        reasons: format!("`{}`: {error}", claim.path.display()),
    })?;
    Ok(roots)
}
