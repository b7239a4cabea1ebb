//! Sealing.

use casemate_proto::ids::Hash32;
use casemate_proto::manifest::Manifest;
use casemate_proto::{BootId, GenesisId, Incarnation, NodeName};
use casemate_recovery::{Header, Kind, MAX_BLOB, MAX_KEYS, SealedBlob};
use rand_core::{CryptoRng, RngCore};

use crate::content;
use crate::envelope::{DataKey, Envelope};
use crate::error::SealError;
use crate::share::SealableShare;
use crate::split;

/// Bytes of a blob beyond its shares and their names: header, parts and commitments.
const OUTSIDE: usize = 64 * 1024;
/// Bytes that the header takes for one share.
const LISTED: usize = 128;

/// What a boot seals, and for which governors.
#[derive(Debug)]
pub struct Sealing<'a> {
    /// The cluster's manifest, which says who can release it.
    pub manifest: &'a Manifest,
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The node that seals.
    pub node: &'a NodeName,
    /// Its boot.
    pub boot: BootId,
    /// How many blobs this boot has sealed before.
    pub number: u64,
    /// How many entries it has applied.
    pub size: u64,
    /// The root over their records.
    pub root: Hash32,
    /// A data key of KMS, where the cluster uses one.
    pub data_key: Option<DataKey>,
}

/// Seals shares: makes a secret for this one blob, shares it among the governors and forgets it.
/// `sign` signs with the boot's Ed25519 key; what is handed to it begins with
/// `casemate/sealed-blob/`.
///
/// # Errors
/// If the manifest names no recovery keys, shares repeat or are too large. Nothing is sealed then.
pub fn seal(
    what: Sealing<'_>,
    mut shares: Vec<SealableShare>,
    sign: &dyn Fn(&[u8]) -> Option<[u8; 64]>,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<SealedBlob, SealError> {
    let library = |what| SealError::Library { what };
    let governors = what.manifest.recovery.as_ref().map_or(&[][..], |recovery| &recovery.keys);
    let quorum = what.manifest.governance.quorum;
    let unshareable = || SealError::Quorum { quorum, governors: governors.len() };
    let of = u16::try_from(governors.len()).map_err(|_| unshareable())?;
    let threshold = u16::try_from(quorum).map_err(|_| unshareable())?;
    if threshold < 2 || threshold > of {
        return Err(unshareable());
    }
    shares.sort_by(|a, b| a.key.cmp(&b.key));
    for (share, next) in shares.iter().zip(shares.iter().skip(1)) {
        if share.key == next.key {
            return Err(SealError::Twice { name: share.key.name.clone(), epoch: share.key.epoch });
        }
    }
    let listed = shares.len().saturating_mul(LISTED).saturating_add(OUTSIDE);
    let size = content::size(&shares).saturating_add(listed);
    if shares.len() > MAX_KEYS || size > MAX_BLOB {
        return Err(SealError::TooLarge { count: shares.len(), size, max: MAX_BLOB });
    }

    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    let header = Header {
        version: 1,
        genesis: what.genesis,
        incarnation: what.incarnation,
        node: what.node.clone(),
        boot: what.boot,
        kind: Kind::Shares,
        number: what.number,
        size: what.size,
        root: what.root,
        keys: shares.iter().map(|share| share.key.clone()).collect(),
        data_key: what.data_key.as_ref().map(|key| key.encrypted.clone()),
        salt,
    };
    let split = split::make(threshold, of, rng).map_err(|_| library("splitting the secret"))?;
    let mut parts = Vec::new();
    for ((governor, key), part) in (0_u16..).zip(governors).zip(&split.parts) {
        let part = header
            .encrypt_part(governor, key, part, rng)
            .map_err(|reason| SealError::Governor { governor, reason })?;
        parts.push(part);
    }
    let outside = SealedBlob::outside(&header, &parts, &split.commitments);
    let content = content::write(&shares).ok_or(library("writing the shares"))?;
    let data_key = what.data_key.as_ref().map(|key| &key.plain);
    let ciphertext = Envelope::new(&header, data_key, &split.secret)
        .and_then(|envelope| envelope.seal(&outside, content))
        .map_err(|_| library("encrypting"))?;
    let mut blob = SealedBlob {
        header,
        parts,
        commitments: split.commitments,
        ciphertext,
        signature: [0; 64],
    };
    blob.signature = sign(&SealedBlob::signing_bytes(&blob.hash())).ok_or(library("signing"))?;
    Ok(blob)
}
