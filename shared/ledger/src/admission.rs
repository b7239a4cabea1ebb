//! Admission: which boot speaks for a node.
//!
//! A restart comes back as a new boot and holds no authority until an entry that every node
//! verifies for itself puts it in its predecessor's place (I6, I7). A retired boot never returns.
//!
//! Each admission costs the others a handover and new shares of every key, a retired boot is remembered
//! for ever, and a restart may come back without what its former boot signed. So each costs its node
//! [`ADMISSION_COST`], and a node is never more than [`ADMISSION_CREDIT`] behind with it: 48 restarts
//! on end, then one each half hour, and never more than 96 in 24 hours.

use std::collections::BTreeSet;

use casemate_attestation_verify as attestation;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, Manifest, Measurement};
use casemate_proto::{Denial, DenialCode, Millis, NodeName, UnixMillis};

use crate::apply::Effect;
use crate::state::{BootState, State};
use crate::verdict::Verdict;

/// How old an attestation document may be when its boot is admitted.
pub const MAX_EVIDENCE_AGE: Millis = Millis(10 * 60_000);
/// A node's boots are admitted at most this often.
pub const ADMISSION_INTERVAL: Millis = Millis(1_000);
/// What an admission costs its node, in time.
pub const ADMISSION_COST: Millis = Millis(30 * 60_000);
/// How much of that a node may owe.
pub const ADMISSION_CREDIT: Millis = Millis(24 * 3_600_000);

/// Why a boot is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Its node is not in the roster.
    #[error("node `{node}` is not in the roster")]
    UnknownNode {
        /// Which.
        node: NodeName,
    },
    /// Its attestation document is refused.
    #[error("its attestation is refused: {0}")]
    Attestation(attestation::Refusal),
}

/// From when on another boot of a node is taken.
pub(crate) fn admits_from(former: &BootState) -> UnixMillis {
    let owed = former.paid_off.saturating_add(ADMISSION_COST);
    let paid = UnixMillis(owed.0.saturating_sub(ADMISSION_CREDIT.0));
    paid.max(former.admitted.saturating_add(ADMISSION_INTERVAL))
}

fn measurement_of(m: &Measurement) -> attestation::Measurement {
    attestation::Measurement {
        pcr0: attestation::Pcr::new(m.pcr0),
        pcr1: attestation::Pcr::new(m.pcr1),
        pcr2: attestation::Pcr::new(m.pcr2),
    }
}

/// Verifies a boot's evidence: the pinned root, an accepted image, its node's role and region,
/// and its keys in the document's user data. Returns the image.
///
/// # Errors
/// If one does not hold.
pub fn verify_boot(
    boot: &BootRecord,
    scope: &Hash32,
    manifest: &Manifest,
    images: &BTreeSet<Measurement>,
    now: UnixMillis,
) -> Result<Measurement, AdmissionError> {
    let node = manifest
        .node(&boot.node)
        .ok_or_else(|| AdmissionError::UnknownNode { node: boot.node.clone() })?;
    let expectations = attestation::Expectations::measured_as(images.iter().map(measurement_of))
        .with_pcr(3, attestation::Pcr::new(node.pcr3))
        .with_region(node.region.clone())
        .with_user_data(boot.user_data(scope).as_bytes().to_vec());
    let root = attestation::TrustRoot::from_fingerprint(*manifest.trust_root.as_bytes());
    let at = attestation::At::Now {
        now: attestation::UnixMillis::new(now.0),
        freshness: attestation::Freshness {
            max_age_ms: Some(MAX_EVIDENCE_AGE.0),
            future_tolerance_ms: manifest.limits.delta.0,
        },
    };
    let evidence = attestation::verify(&boot.evidence, &root, &expectations, at)
        .map_err(AdmissionError::Attestation)?;
    let attested = evidence.measurement();
    Ok(Measurement {
        pcr0: *attested.pcr0.as_bytes(),
        pcr1: *attested.pcr1.as_bytes(),
        pcr2: *attested.pcr2.as_bytes(),
    })
}

pub(crate) fn apply_admit(
    state: &mut State,
    boot: &BootRecord,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Verdict {
    let refuse = |reason: &dyn core::fmt::Display| {
        Verdict::Denied(Denial::new(
            DenialCode::GovernanceRefused,
            format_args!("admission of a boot of node `{}`: {reason}", boot.node),
        ))
    };
    let id = boot.id();
    if state.retired_boots.contains(&id) || state.is_current(&id) {
        return refuse(&"this boot was admitted before");
    }
    if boot.apply_version < state.version {
        return refuse(&format_args!(
            "its image has version {} of apply, and the ledger is at {}",
            boot.apply_version, state.version
        ));
    }
    if let Some(former) = state.boots.get(&boot.node)
        && now < admits_from(former)
    {
        return refuse(&format_args!(
            "the node was restarted too often; another boot is taken from {} on",
            admits_from(former)
        ));
    }
    let scope = Hash32::new(*state.genesis.as_bytes());
    let measurement = match verify_boot(boot, &scope, &state.manifest, &state.images, now) {
        Ok(measurement) => measurement,
        Err(error) => return refuse(&error),
    };
    let mut entering = BootState::of(boot, measurement, now);
    let owed = state.boots.get(&boot.node).map_or(now, |former| former.paid_off.max(now));
    entering.paid_off = owed.saturating_add(ADMISSION_COST);
    if let Some(former) = state.boots.insert(boot.node.clone(), entering) {
        state.retired_boots.insert(former.id);
        effects.push(Effect::BootRetired { node: boot.node.clone(), boot: former.id });
    }
    effects.push(Effect::BootAdmitted { node: boot.node.clone(), boot: id });
    Verdict::Accepted { id: Some(Hash32::new(*id.as_bytes())), effective: None }
}
