//! Releases: a governor's part, encrypted to the one boot that a certificate names.

use casemate_proto::cbor::{self, CborError};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::Manifest;
use casemate_proto::recovery::{RecoveryError, RecoveryGranted};
use casemate_proto::{BootId, NodeName};
use minicbor::{Decode, Encode};
use rand_core::{CryptoRng, RngCore};

use crate::blob::{Header, SealedBlob};
use crate::key::{Encrypted, KeyError, PartSecret, RecoverySecretKey, encrypt};

/// Most bytes of an encoded release.
pub const MAX_RELEASE: usize = 512;

/// One governor's part of one blob, for one boot of one recovery.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Release {
    /// The certificate's id.
    #[n(0)]
    pub certificate: Hash32,
    /// The blob's hash.
    #[n(1)]
    pub blob: Hash32,
    /// For which node's boot.
    #[n(2)]
    pub node: NodeName,
    /// The governor's place in the manifest.
    #[n(3)]
    pub governor: u16,
    /// The part, encrypted to the boot's recovery key.
    #[n(4)]
    pub part: Encrypted,
}

/// Why a part is not released, or a release is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Malformed.
    #[error(transparent)]
    Malformed(#[from] CborError),
    /// The certificate does not grant this.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The certificate says that the node opens another blob, or none.
    #[error("the certificate names another blob for node `{node}`")]
    OtherBlob {
        /// The node.
        node: NodeName,
    },
    /// The blob is of another cluster, incarnation or node than the certificate gives it to.
    #[error("the blob's {field} is not what the certificate says")]
    OtherHeader {
        /// Which field.
        field: &'static str,
    },
    /// The secret key is no governor's.
    #[error("the manifest names no governor with this recovery key")]
    NotAGovernor,
    /// The release is of another certificate, blob or node.
    #[error("the release's {field} is not this recovery's")]
    OtherRelease {
        /// Which field.
        field: &'static str,
    },
    /// Encryption or decryption.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Checks that a certificate gives this blob to a node's boot: the blob that it names, of its cluster,
/// of the incarnation that it takes up, and that node's. Returns the boot.
///
/// # Errors
/// Naming what does not fit.
pub fn check_blob(
    granted: &RecoveryGranted,
    blob: &SealedBlob,
) -> Result<(BootId, casemate_proto::recovery::RecoveryPublicKey), ReleaseError> {
    let certificate = granted.certificate();
    let Header { version, genesis, incarnation, node, .. } = &blob.header;
    if *version != 1 {
        return Err(ReleaseError::OtherHeader { field: "version" });
    }
    if *genesis != certificate.genesis {
        return Err(ReleaseError::OtherHeader { field: "cluster" });
    }
    if *incarnation != certificate.former {
        return Err(ReleaseError::OtherHeader { field: "incarnation" });
    }
    let named = certificate.boot(node).ok_or(ReleaseError::OtherHeader { field: "node" })?;
    if named.sealed != Some(blob.hash()) {
        return Err(ReleaseError::OtherBlob { node: node.clone() });
    }
    Ok((named.offer.record.id(), named.offer.recovery_key))
}

fn binding(
    header: &Header,
    (certificate, blob, boot, governor): (&Hash32, &Hash32, &BootId, u16),
) -> (Vec<u8>, Vec<u8>) {
    let info = [b"casemate/recovery-release/v1\0".as_slice(), header.hash().as_bytes()].concat();
    let aad = [
        certificate.as_bytes().as_slice(),
        blob.as_bytes(),
        boot.as_bytes(),
        &governor.to_be_bytes(),
    ]
    .concat();
    (info, aad)
}

impl Release {
    /// Decodes a release.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        cbor::decode(bytes, MAX_RELEASE)
    }

    /// The governor's side: decrypts the part of a blob and encrypts it to the boot that the
    /// certificate names, for that recovery and no other.
    ///
    /// # Errors
    /// If the certificate does not give this blob to a boot, or the key is no governor's.
    pub fn make(
        granted: &RecoveryGranted,
        manifest: &Manifest,
        blob: &SealedBlob,
        key: &RecoverySecretKey,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, ReleaseError> {
        let (boot, recovery_key) = check_blob(granted, blob)?;
        let keys = manifest.recovery.as_ref().ok_or(RecoveryError::NoRecovery)?;
        let place = keys.keys.iter().position(|governor| *governor == key.public());
        let place = place.ok_or(ReleaseError::NotAGovernor)?;
        let governor = u16::try_from(place).map_err(|_| ReleaseError::NotAGovernor)?;
        let part = blob.parts.get(place).ok_or(ReleaseError::NotAGovernor)?;
        let part = blob.header.decrypt_part(governor, key, part)?;
        let (certificate, hash) = (granted.id(), blob.hash());
        let (info, aad) = binding(&blob.header, (&certificate, &hash, &boot, governor));
        let part = encrypt(&recovery_key, (&info, &aad), &part, rng)?;
        let node = blob.header.node.clone();
        Ok(Self { certificate, blob: hash, node, governor, part })
    }

    /// The boot's side: the part, and at which place of the manifest its governor is.
    ///
    /// # Errors
    /// If the release is not for this recovery, blob, boot and key.
    pub fn open(
        &self,
        granted: &RecoveryGranted,
        blob: &SealedBlob,
        key: &RecoverySecretKey,
    ) -> Result<(u16, PartSecret), ReleaseError> {
        let (boot, recovery_key) = check_blob(granted, blob)?;
        let other = |field| Err(ReleaseError::OtherRelease { field });
        if self.certificate != granted.id() {
            return other("certificate");
        }
        if self.blob != blob.hash() {
            return other("blob");
        }
        if self.node != blob.header.node || recovery_key != key.public() {
            return other("boot");
        }
        let (info, aad) =
            binding(&blob.header, (&self.certificate, &self.blob, &boot, self.governor));
        Ok((self.governor, key.decrypt((&info, &aad), &self.part)?))
    }
}
