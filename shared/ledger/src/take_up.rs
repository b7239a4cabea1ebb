//! A ledger out of a store: what a recovery takes up, made of nothing but public files.
//!
//! The records are executed again from the genesis on, up to the newest checkpoint. What comes out is the
//! state that a certificate names by its hash, and the right edge of the store, with which a boot
//! goes on writing where the store ends. Whether that checkpoint is to be believed is a question that
//! [`casemate_audit::verify_store`] answers, and is asked first.

use std::collections::BTreeMap;

use casemate_audit::store::{
    CHECKPOINT, GENESIS, MAX_ATTACHMENT, StoreRead, StoreWriter, attachment_path, read_tile,
};
use casemate_audit::tile::{TileKind, parse_bundle, tiles_for};
use casemate_audit::{Record, Replay as _, Tree};
use casemate_proto::manifest::MAX_GENESIS;
use casemate_proto::recovery::LedgerName;

use crate::replay::Replayer;
use crate::state::State;

/// What a recovery takes up.
#[derive(Debug)]
pub struct TakenUp {
    /// The state after the store's last record.
    pub state: State,
    /// The same, as bytes.
    pub snapshot: Vec<u8>,
    /// The right edge of the store.
    pub tail: Vec<u8>,
}

/// Why a store gives no ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeUpError {
    /// A file is missing, malformed or cannot be read.
    #[error("`{path}`: {reason}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A record is not what its entry gives when it is executed again.
    #[error("record {index}: {reason}")]
    Record {
        /// Which.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// The records do not lead to the checkpoint.
    #[error("the records do not lead to the store's checkpoint")]
    OtherRoot,
}

fn read<S: StoreRead>(store: &S, path: &str, max: usize) -> Result<Vec<u8>, TakeUpError> {
    let wrong = |reason: String| TakeUpError::File { path: path.to_owned(), reason };
    match store.read(path, max) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(wrong("it is missing".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Executes a store's records again, up to its newest checkpoint.
///
/// # Errors
/// If one is missing or does not come out as it stands there.
pub fn take_up<S: StoreRead>(store: &S) -> Result<TakenUp, TakeUpError> {
    let file = |path: &str, reason: &dyn core::fmt::Display| TakeUpError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let genesis = read(store, GENESIS, MAX_GENESIS)?;
    let mut replayer = Replayer::from_genesis(&genesis).map_err(|error| file(GENESIS, &error))?;
    let writer = StoreWriter::resume(store).map_err(|error| file(CHECKPOINT, &error))?;
    let size = writer.size();
    let mut tree = Tree::new();
    let mut key_records: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for tile in tiles_for(0, size).filter(|tile| tile.kind() == TileKind::Entries) {
        let path = tile.to_string();
        let (found, bytes) = read_tile(store, tile)
            .map_err(|error| file(&path, &error))?
            .ok_or_else(|| file(&path, &"it is missing"))?;
        let leaves = parse_bundle(found, &bytes).map_err(|error| file(&path, &error))?;
        for leaf in leaves.into_iter().take(usize::from(tile.width())) {
            let index = tree.size();
            let wrong = |reason: &dyn core::fmt::Display| TakeUpError::Record {
                index,
                reason: reason.to_string(),
            };
            let record = Record::parse(leaf).map_err(|error| wrong(&error))?;
            // an entry whose attachment never came was denied for that
            let beside = replayer.attachment(&record).and_then(|name| {
                store.read(&attachment_path(&name), MAX_ATTACHMENT).ok().flatten()
            });
            let outcome = replayer.apply(&record, beside).map_err(|error| wrong(&error))?;
            if outcome.record.leaf_bytes() != leaf {
                return Err(wrong(&"its entry gives another record when it is executed again"));
            }
            tree.append(record.leaf_hash());
            if record.fields().kind == "key_live" {
                key_records.insert(index, leaf.to_vec());
            }
        }
    }
    let state = replayer.state().clone();
    if (state.size(), state.root()) != (size, tree.root()) {
        return Err(TakeUpError::OtherRoot);
    }
    let live = state.keys().values().filter_map(|key| key.live.as_ref());
    let pinned: Option<Vec<_>> = live
        .map(|live| {
            let leaf = key_records.get(&live.index)?;
            Some((live.index, leaf.as_slice(), tree.inclusion_proof(live.index, size).ok()?))
        })
        .collect();
    let tail = pinned
        .and_then(|pinned| writer.tail(core::iter::empty(), pinned))
        .ok_or(TakeUpError::OtherRoot)?;
    Ok(TakenUp { snapshot: state.to_snapshot(), state, tail })
}

impl TakenUp {
    /// What a certificate calls this ledger.
    #[must_use]
    pub fn name(&self) -> LedgerName {
        LedgerName {
            size: self.state.size(),
            root: self.state.root(),
            state: State::snapshot_hash(&self.snapshot),
        }
    }
}
