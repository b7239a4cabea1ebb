//! A bundle: what the operator draws up, governors add to, and nodes are handed.
//!
//! ```text
//! genesis.cbor                     the genesis record
//! certificate.cbor                 the certificate, unsigned
//! snapshot.cbor, tail.cbor         the ledger that it takes up, and the right edge of its store
//! nodes/NAME/blob.cbor             the blob that the node's boot opens; none where it has lost its shares
//! nodes/NAME/releases/PLACE.cbor   what the governor at that place of the manifest released of it
//! signatures/CREDENTIAL.json       a governor's signature
//! ```
//!
//! Everything in it is public. Whoever gets a bundle checks it: nothing in it is believed for having been
//! checked before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use casemate_audit::StoreWriter;
use casemate_ledger::State;
use casemate_ledger::recovery::examine;
use casemate_ledger::snapshot::MAX_SNAPSHOT;
use casemate_proto::cbor;
use casemate_proto::governance::{NamedSignature, QuorumError};
use casemate_proto::ids::parse_hex;
use casemate_proto::manifest::{GenesisRecord, Manifest};
use casemate_proto::recovery::{
    MAX_CERTIFICATE, RecoveryCertificate, RecoveryError, RecoveryGranted, SignedCertificate,
};
use casemate_proto::{CredentialId, GenesisId, Hash32, NodeName, UnixMillis};
use casemate_recovery::SealedBlob;
use serde::{Deserialize, Serialize};

use super::RecoverError;
use super::boots::fault;
use super::error::BlobFault;
use super::files::{self, For};
use super::node::{genesis_of, read_blob};

/// Most bytes of the right edge of a store.
const MAX_TAIL: usize = 64 * 1024 * 1024;
/// The schema of a signature's file.
const SIGNATURE: &str = "casemate.recovery-signature/1";
/// Most bytes of a signature's file.
const MAX_SIGNATURE: usize = 4096;
/// How far ahead another's clock may be.
const CLOCKS_APART: u64 = 120_000;

/// A bundle whose parts fit one another, and the ledger.
#[derive(Debug)]
pub(super) struct Bundle {
    dir: PathBuf,
    pub(super) genesis: GenesisRecord,
    pub(super) certificate: RecoveryCertificate,
    pub(super) state: State,
    pub(super) snapshot: Vec<u8>,
    pub(super) tail: Vec<u8>,
    pub(super) blobs: BTreeMap<NodeName, SealedBlob>,
}

/// What a new bundle is made of.
pub(super) struct Parts<'a> {
    pub(super) genesis: &'a [u8],
    pub(super) certificate: &'a RecoveryCertificate,
    pub(super) snapshot: &'a [u8],
    pub(super) tail: &'a [u8],
    pub(super) blobs: &'a BTreeMap<NodeName, SealedBlob>,
}

fn blob_path(dir: &Path, node: &NodeName) -> PathBuf {
    dir.join("nodes").join(node.as_str()).join("blob.cbor")
}

/// Writes a bundle where there is none.
pub(super) fn write(dir: &Path, parts: &Parts<'_>) -> Result<(), RecoverError> {
    files::create_folder(dir, |dir| {
        let put = |name: &str, bytes: &[u8]| files::replace(&dir.join(name), bytes, For::All);
        put("genesis.cbor", parts.genesis)?;
        put("certificate.cbor", &cbor::encode(parts.certificate))?;
        put("snapshot.cbor", parts.snapshot)?;
        put("tail.cbor", parts.tail)?;
        files::make_folder(&dir.join("signatures"))?;
        for (node, blob) in parts.blobs {
            let path = blob_path(dir, node);
            files::make_folder(&path.with_file_name("releases"))?;
            files::replace(&path, &blob.encode(), For::All)?;
        }
        Ok(())
    })
}

impl Bundle {
    /// Reads a bundle of the cluster that is meant, and checks that its parts fit: the certificate by itself, its ledger,
    /// its boots' evidence, its blobs, and that it is good now.
    pub(super) fn load(dir: &Path, pin: GenesisId, now: UnixMillis) -> Result<Self, RecoverError> {
        let needed = |name: &str, max, what| {
            let path = dir.join(name);
            match files::read(&path, max)? {
                Some(bytes) => Ok((path, bytes)),
                None => Err(RecoverError::Missing { path, what }),
            }
        };
        let path = dir.join("genesis.cbor");
        let what = "the genesis record: is that a bundle, as `casemate recover certify` writes it?";
        let (genesis, _) =
            genesis_of(&path, pin)?.ok_or(RecoverError::Missing { path: path.clone(), what })?;
        let (path, bytes) = needed("certificate.cbor", MAX_CERTIFICATE, "the certificate")?;
        let certificate: RecoveryCertificate =
            cbor::decode(&bytes, MAX_CERTIFICATE).map_err(|error| RecoverError::Malformed {
                path,
                what: "a recovery certificate",
                error,
            })?;
        certificate.check(pin, &genesis.manifest)?;
        if certificate.at.0 > now.0.saturating_add(CLOCKS_APART) {
            return Err(RecoverError::FromLater { at: certificate.at, now });
        }
        if now >= certificate.expires {
            let expires = certificate.expires;
            return Err(RecoveryError::Expired { expires, now }.into());
        }
        let (path, snapshot) = needed("snapshot.cbor", MAX_SNAPSHOT, "the ledger's state")?;
        let (named, found) = (certificate.ledger.state, State::snapshot_hash(&snapshot));
        if named != found {
            return Err(RecoverError::OtherSnapshot { path, named, found });
        }
        let state = State::from_snapshot(&snapshot)
            .map_err(|error| RecoverError::Snapshot { path: path.clone(), error })?;
        if state.genesis() != pin || *state.manifest() != genesis.manifest {
            let found = state.genesis();
            return Err(RecoverError::OtherCluster { path, found, expected: pin });
        }
        examine(&state, found, &certificate)?;
        let (path, tail) = needed("tail.cbor", MAX_TAIL, "the right edge of the store")?;
        StoreWriter::from_tail(&cbor::encode(&genesis), &tail, state.size(), state.root())
            .map_err(|error| RecoverError::OtherTail { path, reason: error.to_string() })?;
        let blobs = read_blobs(dir, &certificate, &state)?;
        Ok(Self { dir: dir.to_owned(), genesis, certificate, state, snapshot, tail, blobs })
    }

    pub(super) const fn manifest(&self) -> &Manifest {
        &self.genesis.manifest
    }

    /// Where what governors release of a node's blob lies.
    pub(super) fn releases(&self, node: &NodeName) -> PathBuf {
        blob_path(&self.dir, node).with_file_name("releases")
    }

    /// Puts a signature into it; where.
    pub(super) fn add_signature(
        &self,
        signature: &NamedSignature,
    ) -> Result<PathBuf, RecoverError> {
        let NamedSignature { credential, signature } = signature;
        let id: String = hex::encode(credential.0.as_bytes()).chars().take(8).collect();
        let folder = self.dir.join("signatures");
        files::make_folder(&folder)?;
        let path = folder.join(format!("{id}.json"));
        let file = SignatureFile {
            schema: SIGNATURE.to_owned(),
            certificate: self.certificate.id(),
            credential: credential.0,
            signature: format!("0x{}", hex::encode(signature)),
        };
        let mut json =
            serde_json::to_string_pretty(&file).map_err(crate::online::CliError::from)?;
        json.push('\n');
        files::replace(&path, json.as_bytes(), For::All)?;
        Ok(path)
    }

    /// The signatures in it. Each is a governor's and under this certificate.
    pub(super) fn signatures(&self) -> Result<Vec<NamedSignature>, RecoverError> {
        let message = self.certificate.signing_bytes();
        let mut signatures: Vec<NamedSignature> = Vec::new();
        for path in files::list(&self.dir.join("signatures"), "json")? {
            let named = self.signature(&path)?;
            let NamedSignature { credential, signature } = &named;
            let wrong = |error| RecoverError::Signature { path: path.clone(), error };
            let key = self
                .manifest()
                .governor(credential)
                .ok_or_else(|| wrong(QuorumError::NotAGovernor { credential: *credential }))?;
            key.verify(&message, signature).map_err(|error| wrong(error.into()))?;
            if signatures.iter().any(|other| other.credential == *credential) {
                return Err(wrong(QuorumError::Twice { credential: *credential }));
            }
            signatures.push(named);
        }
        Ok(signatures)
    }

    fn signature(&self, path: &Path) -> Result<NamedSignature, RecoverError> {
        let json = |reason: String| RecoverError::Json {
            path: path.to_owned(),
            what: "a signature under a recovery certificate",
            reason,
        };
        let bytes = casemate_client::files::read(path, MAX_SIGNATURE)?;
        let file: SignatureFile =
            serde_json::from_slice(&bytes).map_err(|error| json(error.to_string()))?;
        if file.schema != SIGNATURE {
            return Err(json("it is of another schema".to_owned()));
        }
        let (found, expected) = (file.certificate, self.certificate.id());
        if found != expected {
            return Err(RecoverError::OtherSignature { path: path.to_owned(), found, expected });
        }
        let signature = parse_hex("signature", &file.signature)
            .map_err(|_| json("its signature is not `0x` and 64 bytes of hex".to_owned()))?;
        Ok(NamedSignature { credential: CredentialId(file.credential), signature })
    }

    /// The certificate with its signatures, which must carry it.
    pub(super) fn granted(&self, now: UnixMillis) -> Result<RecoveryGranted, RecoverError> {
        let signatures = self.signatures()?;
        let signed = SignedCertificate { certificate: self.certificate.clone(), signatures };
        Ok(signed.verify(self.genesis.id(), self.manifest(), Some(now))?)
    }
}

/// The blob of each node that the certificate gives one.
fn read_blobs(
    dir: &Path,
    certificate: &RecoveryCertificate,
    state: &State,
) -> Result<BTreeMap<NodeName, SealedBlob>, RecoverError> {
    let mut blobs = BTreeMap::new();
    for boot in &certificate.boots {
        let node = &boot.offer.record.node;
        let Some(named) = boot.sealed else { continue };
        let path = blob_path(dir, node);
        let blob = read_blob(&path)?;
        let bad = |reason| RecoverError::BadBlob { path: path.clone(), reason };
        if blob.hash() != named {
            return Err(bad(BlobFault::NotNamed(node.clone())));
        }
        if let Some(reason) = fault(state, node, &blob) {
            return Err(bad(reason));
        }
        blobs.insert(node.clone(), blob);
    }
    Ok(blobs)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFile {
    schema: String,
    certificate: Hash32,
    credential: Hash32,
    signature: String,
}
