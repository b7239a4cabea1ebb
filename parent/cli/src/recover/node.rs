//! A node's folder, as its parent keeps it: what a recovery finds there and puts there.
//!
//! The layout is the parent's (`casemate-parent`, its `folder` and `recovery` modules); the folder may be a copy of
//! it, where it is only read.

use std::fmt;
use std::path::{Path, PathBuf};

use casemate_proto::cbor;
use casemate_proto::manifest::{GenesisRecord, MAX_EVIDENCE, MAX_GENESIS, Manifest};
use casemate_proto::recovery::{RecoveryOffer, recovery_scope};
use casemate_proto::{GenesisId, Incarnation, NodeName};
use casemate_recovery::{MAX_BLOB, SealedBlob};

use super::RecoverError;
use super::files::{list, read};

/// Most bytes of an offer.
const MAX_OFFER: usize = MAX_EVIDENCE + 4096;
/// Most bytes of a file that holds a number.
const MAX_NUMBER: usize = 64;

/// A node and its parent's folder.
#[derive(Clone, Debug)]
pub(crate) struct NodeFolder {
    pub(super) name: NodeName,
    pub(super) folder: PathBuf,
}

/// A blob's file, and the blob, or why it is none.
pub(super) type Kept = (PathBuf, Result<SealedBlob, RecoverError>);

/// Parses `NAME=FOLDER`.
pub(super) fn parse_node(text: &str) -> Result<NodeFolder, String> {
    let (name, folder) = text.split_once('=').ok_or("it is `NAME=FOLDER`")?;
    let name = NodeName::new(name).map_err(|error| error.to_string())?;
    match folder {
        "" => Err("it is `NAME=FOLDER`".to_owned()),
        folder => Ok(NodeFolder { name, folder: folder.into() }),
    }
}

/// A genesis record at a path; `None` where there is none.
pub(super) fn read_genesis(path: &Path) -> Result<Option<(GenesisRecord, Vec<u8>)>, RecoverError> {
    let Some(bytes) = read(path, MAX_GENESIS)? else { return Ok(None) };
    let record: GenesisRecord = cbor::decode(&bytes, MAX_GENESIS).map_err(|error| {
        RecoverError::Malformed { path: path.to_owned(), what: "a genesis record", error }
    })?;
    Ok(Some((record, bytes)))
}

/// The same, of one cluster.
pub(super) fn genesis_of(
    path: &Path,
    expected: GenesisId,
) -> Result<Option<(GenesisRecord, Vec<u8>)>, RecoverError> {
    let found = read_genesis(path)?;
    match &found {
        Some((record, _)) if record.id() != expected => {
            Err(RecoverError::OtherCluster { path: path.to_owned(), found: record.id(), expected })
        }
        _ => Ok(found),
    }
}

impl NodeFolder {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
    pub(super) fn recovery(&self, name: &str) -> PathBuf {
        self.folder.join("recovery").join(name)
    }

    fn number(path: &Path) -> Result<Option<Incarnation>, RecoverError> {
        let Some(bytes) = read(path, MAX_NUMBER)? else { return Ok(None) };
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        number.map(|number| Some(Incarnation(number))).ok_or_else(|| RecoverError::Json {
            path: path.to_owned(),
            what: "a number",
            reason: "it is one in digits and a line's end".to_owned(),
        })
    }

    /// Which incarnation its cluster is in, as far as it knows.
    pub(super) fn incarnation(&self) -> Result<Incarnation, RecoverError> {
        Ok(Self::number(&self.path("incarnation"))?.unwrap_or_default())
    }

    /// Which one its enclave is to begin.
    pub(super) fn prepared(&self) -> Result<Option<Incarnation>, RecoverError> {
        Self::number(&self.recovery("incarnation"))
    }

    /// What its enclave offers for that.
    pub(super) fn offer(
        &self,
        genesis: GenesisId,
        incarnation: Incarnation,
    ) -> Result<RecoveryOffer, RecoverError> {
        let path = self.recovery("offer.cbor");
        let missing = "the node's enclave has not offered itself: prepare the folder, then start the enclave anew, and its parent";
        let bytes = read(&path, MAX_OFFER)?
            .ok_or_else(|| RecoverError::Missing { path: path.clone(), what: missing })?;
        let offer: RecoveryOffer = cbor::decode(&bytes, MAX_OFFER).map_err(|error| {
            RecoverError::Malformed { path: path.clone(), what: "an enclave's offer", error }
        })?;
        let bad = |reason| RecoverError::BadOffer { path: path.clone(), reason };
        if offer.record.node != self.name {
            return Err(bad("the offer is another node's"));
        }
        if !offer.is_signed(&recovery_scope(&genesis, incarnation)) {
            return Err(bad("the offer is for another recovery, or was changed"));
        }
        Ok(offer)
    }

    /// The blobs that it keeps, newest first; of what is none, why.
    pub(super) fn blobs(&self) -> Result<Vec<Kept>, RecoverError> {
        let paths = list(&self.path("sealed"), "cbor")?;
        Ok(paths.into_iter().rev().map(|path| (path.clone(), read_blob(&path))).collect())
    }
}

/// A blob at a path.
pub(super) fn read_blob(path: &Path) -> Result<SealedBlob, RecoverError> {
    let bytes = read(path, MAX_BLOB)?.ok_or_else(|| RecoverError::Missing {
        path: path.to_owned(),
        what: "the sealed blob that the certificate names",
    })?;
    SealedBlob::decode(&bytes).map_err(|error| RecoverError::Malformed {
        path: path.to_owned(),
        what: "a sealed blob",
        error,
    })
}

/// Refuses names that are not in the roster, or twice in the list.
pub(super) fn check_names(nodes: &[NodeFolder], manifest: &Manifest) -> Result<(), RecoverError> {
    for (at, node) in nodes.iter().enumerate() {
        if manifest.node(&node.name).is_none() {
            let roster = roster(manifest);
            return Err(RecoverError::NoSuchNode { node: node.name.clone(), roster });
        }
        if nodes.iter().skip(at.saturating_add(1)).any(|other| other.name == node.name) {
            return Err(RecoverError::NamedTwice { node: node.name.clone() });
        }
    }
    Ok(())
}

fn roster(manifest: &Manifest) -> String {
    let names: Vec<&str> = manifest.nodes.iter().map(|node| node.name.as_str()).collect();
    names.join(", ")
}

impl fmt::Display for NodeFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.folder.display())
    }
}
