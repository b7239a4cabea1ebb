//! Opening, in a recovery.

use std::collections::BTreeMap;

use casemate_proto::BootId;
use casemate_proto::manifest::Manifest;
use casemate_proto::recovery::RecoveryGranted;
use casemate_recovery::release::check_blob;
use casemate_recovery::{RecoverySecretKey, Release, SealedBlob};
use zeroize::Zeroizing;

use crate::content;
use crate::envelope::Envelope;
use crate::error::OpenError;
use crate::share::OpenedShare;
use crate::split::{Commitments, combine};

/// What a boot opens its blob with.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The recovery, as the quorum granted it.
    pub granted: &'a RecoveryGranted,
    /// The cluster's manifest.
    pub manifest: &'a Manifest,
    /// This boot's recovery key.
    pub key: &'a RecoverySecretKey,
    /// The node's last boot, as the ledger that is taken up has it.
    pub former: BootId,
    /// That boot's Ed25519 key, as the ledger has it.
    pub former_key: [u8; 32],
    /// The blob's data key as KMS decrypted it, where it has one.
    pub data_key: Option<&'a Zeroizing<[u8; 32]>>,
}

/// Opens a blob with the parts that governors released to this boot.
///
/// The certificate must give exactly this blob to this boot, and the boot that the ledger has last for
/// the node must have sealed and signed it: so neither an older blob nor one of somebody's own making
/// opens. Releases that are not for this, and parts that are not what was sealed, are left out;
/// more than enough parts do no harm.
///
/// # Errors
/// Naming what does not fit; where parts are wrong, whose.
pub fn open(
    opening: &Opening<'_>,
    blob: &SealedBlob,
    releases: &[Release],
) -> Result<Vec<OpenedShare>, OpenError> {
    let (_, recovery_key) = check_blob(opening.granted, blob)?;
    if recovery_key != opening.key.public() {
        return Err(OpenError::OtherKey);
    }
    check_sealer(opening, blob)?;
    if blob.header.data_key.is_some() != opening.data_key.is_some() {
        return Err(OpenError::DataKey { needed: blob.header.data_key.is_some() });
    }
    let quorum = opening.manifest.governance.quorum;
    let governors = opening.manifest.recovery.as_ref().map_or(0, |recovery| recovery.keys.len());
    let shared = (blob.commitments.len(), blob.parts.len());
    if u64::try_from(shared.0).ok() != Some(quorum) || shared.1 != governors || quorum < 2 {
        return Err(OpenError::Sharing {
            quorum: shared.0,
            governors: shared.1,
            expected_quorum: quorum,
            expected_governors: governors,
        });
    }
    let commitments = Commitments::read(&blob.commitments).map_err(|_| OpenError::Content)?;
    let mut good = BTreeMap::new();
    let mut bad = Vec::new();
    for release in releases.iter().filter(|release| usize::from(release.governor) < governors) {
        // whoever can write to the host's folders can put a release there that is none
        let part = release
            .open(opening.granted, blob, opening.key)
            .ok()
            .and_then(|(place, part)| commitments.check(place, &part).ok());
        match part {
            Some(part) => {
                good.insert(release.governor, part);
            }
            None => bad.push(release.governor),
        }
    }
    if u64::try_from(good.len()).unwrap_or(0) < quorum {
        bad.sort_unstable();
        bad.dedup();
        return Err(OpenError::TooFewParts { have: good.len(), need: quorum, bad });
    }
    let secret = combine(good.into_values().collect()).map_err(|_| OpenError::Content)?;
    let outside = SealedBlob::outside(&blob.header, &blob.parts, &blob.commitments);
    let plain = Envelope::new(&blob.header, opening.data_key, &secret)
        .and_then(|envelope| envelope.open(&outside, &blob.ciphertext))
        .map_err(|_| OpenError::Damaged)?;
    let keys = &blob.header.keys;
    let secrets = content::read(&plain, keys.len()).ok_or(OpenError::Content)?;
    Ok(keys
        .iter()
        .cloned()
        .zip(secrets)
        .map(|(key, secret)| OpenedShare::new(key, secret))
        .collect())
}

/// That the boot which the ledger has last for the node sealed this.
fn check_sealer(opening: &Opening<'_>, blob: &SealedBlob) -> Result<(), OpenError> {
    if blob.header.boot != opening.former {
        return Err(OpenError::OtherSealer { sealed: blob.header.boot, former: opening.former });
    }
    blob.is_signed_by(&opening.former_key).then_some(()).ok_or(OpenError::Unsigned)
}
