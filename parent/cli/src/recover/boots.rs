//! Which blob a node opens: whether one fits the ledger that is taken up, as the enclave asks too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use casemate_ledger::State;
use casemate_proto::{KeyName, NodeName};
use casemate_recovery::SealedBlob;

use super::RecoverError;
use super::error::BlobFault;
use super::node::NodeFolder;

/// What is wrong with a blob for this node in this ledger, if anything.
pub(super) fn fault(state: &State, node: &NodeName, blob: &SealedBlob) -> Option<BlobFault> {
    let header = &blob.header;
    if header.version != 1 {
        return Some(BlobFault::Version);
    }
    if header.genesis != state.genesis() {
        return Some(BlobFault::Cluster(header.genesis));
    }
    if header.incarnation != state.incarnation() {
        return Some(BlobFault::Incarnation(header.incarnation));
    }
    if header.node != *node {
        return Some(BlobFault::Node(header.node.clone()));
    }
    let former = state.boot(node).filter(|former| former.id == header.boot);
    let Some(former) = former else { return Some(BlobFault::Boot) };
    if !blob.is_signed_by(&former.key) {
        return Some(BlobFault::Unsigned);
    }
    let held = state.keys().iter().filter(|(name, _)| state.is_holder(name, node));
    for (name, live) in held.filter_map(|(name, key)| Some((name, key.live.as_ref()?))) {
        let has = header.keys.iter().any(|sealed| {
            (&sealed.name, sealed.epoch, sealed.transcript) == (name, live.epoch, live.transcript)
        });
        if !has {
            return Some(BlobFault::WithoutShare { key: name.clone(), epoch: live.epoch });
        }
    }
    None
}

/// The newest blob in a node's folder that fits, and what is said of those that do not.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) blob: Option<(PathBuf, SealedBlob)>,
    pub(super) others: Vec<String>,
}

/// Looks for it. `older` allows blobs that were sealed after the ledger's end.
pub(super) fn find(state: &State, node: &NodeFolder, older: bool) -> Result<Found, RecoverError> {
    let mut found = Found::default();
    for (path, blob) in node.blobs()? {
        let blob = match blob {
            Ok(blob) => blob,
            Err(error) => {
                found.others.push(error.to_string());
                continue;
            }
        };
        refuse_newer(state, &path, &blob, older)?;
        match fault(state, &node.name, &blob) {
            Some(fault) => {
                found.others.push(RecoverError::BadBlob { path, reason: fault }.to_string());
            }
            None => {
                let number = |(_, blob): &(_, SealedBlob)| blob.header.number;
                if found.blob.as_ref().is_none_or(|best| number(best) < blob.header.number) {
                    found.blob = Some((path, blob));
                }
            }
        }
    }
    Ok(found)
}

/// A blob of this ledger that was sealed after its end says that there was more.
fn refuse_newer(
    state: &State,
    path: &Path,
    blob: &SealedBlob,
    older: bool,
) -> Result<(), RecoverError> {
    let header = &blob.header;
    let same = (header.genesis, header.incarnation) == (state.genesis(), state.incarnation());
    if same && header.size > state.size() && !older {
        return Err(RecoverError::OlderLedger {
            path: path.to_owned(),
            sealed: header.size,
            size: state.size(),
        });
    }
    Ok(())
}

/// How many holders each live key keeps, if these nodes have blobs.
pub(super) fn holders_left<'a>(
    state: &State,
    with_blob: impl Iterator<Item = &'a NodeName> + Clone,
) -> BTreeMap<KeyName, usize> {
    let live = state.keys().iter().filter(|(_, key)| key.live.is_some());
    live.map(|(name, _)| {
        (name.clone(), with_blob.clone().filter(|node| state.is_holder(name, node)).count())
    })
    .collect()
}
