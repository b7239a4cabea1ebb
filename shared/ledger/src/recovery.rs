//! Cold recovery: another incarnation of a cluster, with boots that a certificate names.
//!
//! One entry takes the ledger over. It names a certificate, which travels beside it, and is accepted
//! where the certificate names exactly this ledger as it stood before the entry: its size, its root
//! and the state that its entries built. So every boot of the recovery, and every auditor after it,
//! comes to the same state from the same records.
//!
//! What the entry changes:
//!
//! - **boots**: those of the certificate, with their evidence verified as of its time; all former ones
//!   are retired for ever;
//! - **incarnation**: stamps, approvals, changes and freezers' statements are bound to it, so that none of the
//!   former counts;
//! - **what waits**: pending requests are forgotten, uncharged as they are; pending changes are dropped,
//!   since a veto may be in what was lost; what was allowed and is not signed never is;
//! - **limits**: of charges up to the certificate's end nobody knows, so every window is full until
//!   it lies wholly behind that;
//! - **frozen**, by a freeze that has the certificate's id and that the quorum lifts;
//! - **keys**: their holders are the boots that open a blob in the place of one that was a holder.
//!   Public keys and epochs stay (I13).

use casemate_proto::ids::Hash32;
use casemate_proto::recovery::{
    LedgerName, MAX_SIGNED_CERTIFICATE, RecoveryBoot, RecoveryCertificate, RecoveryGranted,
    SignedCertificate,
};
use casemate_proto::{Denial, DenialCode, Incarnation, NodeName, UnixMillis};

use crate::admission::AdmissionError;
use crate::apply::{Committed, Effect};
use crate::entry::{Attachment, Entry, EntryBody};
use crate::state::{BootState, FreezeState, RequestStatus, State};
use crate::verdict::Verdict;

/// The entry that takes a ledger over, and what travels beside it: the same bytes at every boot.
#[must_use]
pub fn recovery_entry(signed: &SignedCertificate) -> (Entry, Attachment) {
    let certificate = signed.certificate.id();
    let entry = Entry { at: signed.certificate.at, body: EntryBody::Recover { certificate } };
    (entry, Attachment::Recovery(casemate_proto::cbor::encode(signed)))
}

/// The same, committed: what a quorum of governors signed needs no majority of enclaves, of which there is
/// none. Each boot that the certificate names applies it first, before there is anything to replicate.
#[must_use]
pub fn commit(granted: &RecoveryGranted) -> Committed {
    let (entry, attachment) = recovery_entry(granted.signed());
    Committed::dangerous_assume(entry, Some(attachment))
}

/// Why a ledger is not the one that a certificate takes up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Another incarnation.
    #[error("it takes up incarnation {named}, and this is {here}")]
    Incarnation {
        /// The certificate's.
        named: Incarnation,
        /// The ledger's.
        here: Incarnation,
    },
    /// Another size, root or state.
    #[error(
        "it takes up another ledger: {} entries with root {}, and here are {} with {}",
        .named.size, .named.root, .here.size, .here.root
    )]
    Ledger {
        /// The certificate's.
        named: LedgerName,
        /// The ledger's.
        here: LedgerName,
    },
    /// Another policy, other images or revocations.
    #[error("its policy, images or revocations are not the ledger's")]
    InForce,
    /// A boot that this ledger does not take.
    #[error("the boot of node `{node}`: {reason}")]
    Boot {
        /// Whose.
        node: NodeName,
        /// Why not.
        reason: BootRefused,
    },
}

/// Why a boot is not taken into a recovery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootRefused {
    /// It is one of the former.
    #[error("it was a boot of this cluster before")]
    Former,
    /// Its image is too old.
    #[error("its image has version {boot} of apply, and the ledger is at {ledger}")]
    Version {
        /// The image's.
        boot: u64,
        /// The ledger's.
        ledger: u64,
    },
    /// Its attestation does not hold.
    #[error(transparent)]
    Evidence(#[from] AdmissionError),
}

/// Compares what a certificate says of a ledger with the ledger; `hash` is that of the ledger's state. Who signed it is
/// not asked: for whoever draws one up or is to sign it, and for what follows the signatures.
///
/// # Errors
/// Naming the first thing that does not fit.
pub fn examine(
    state: &State,
    hash: Hash32,
    certificate: &RecoveryCertificate,
) -> Result<Vec<BootState>, Unfit> {
    let RecoveryCertificate { former, ledger, policy, images, revoked, .. } = certificate;
    let again = casemate_proto::sabotaged!("certificate_accepted_twice");
    let older = again || casemate_proto::sabotaged!("older_ledger_recovered");
    if *former != state.incarnation && !again {
        return Err(Unfit::Incarnation { named: *former, here: state.incarnation });
    }
    let here = LedgerName { size: state.size(), root: state.root(), state: hash };
    if *ledger != here && !older {
        return Err(Unfit::Ledger { named: *ledger, here });
    }
    if *policy != state.policy.as_ref().map(|policy| policy.hash)
        || !images.iter().eq(&state.images)
        || !revoked.iter().eq(&state.revoked)
    {
        return Err(Unfit::InForce);
    }
    let take = |boot: &RecoveryBoot| {
        let record = &boot.offer.record;
        let id = record.id();
        if (state.retired_boots.contains(&id) || state.is_current(&id)) && !again {
            return Err(BootRefused::Former);
        }
        if record.apply_version < state.version {
            return Err(BootRefused::Version { boot: record.apply_version, ledger: state.version });
        }
        let (scope, at) = (certificate.scope(), certificate.at);
        let measurement =
            crate::admission::verify_boot(record, &scope, &state.manifest, &state.images, at)?;
        Ok(BootState::of(record, measurement, at.max(state.time)))
    };
    let boots = certificate.boots.iter().map(|boot| {
        take(boot).map_err(|reason| Unfit::Boot { node: boot.offer.record.node.clone(), reason })
    });
    boots.collect()
}

/// The certificate that travels beside an entry, compared with the ledger.
fn check(
    state: &State,
    named: &Hash32,
    attachment: Option<&Attachment>,
    before: Hash32,
) -> Result<(RecoveryGranted, Vec<BootState>), String> {
    let Some(Attachment::Recovery(bytes)) = attachment else {
        return Err("the certificate does not travel beside it".to_owned());
    };
    let signed: SignedCertificate = casemate_proto::cbor::decode(bytes, MAX_SIGNED_CERTIFICATE)
        .map_err(|error| error.to_string())?;
    // its time is the boots' to check, before they begin; an auditor reads it years later
    let granted =
        signed.verify(state.genesis, &state.manifest, None).map_err(|error| error.to_string())?;
    if granted.id() != *named {
        return Err("another certificate travels beside it".to_owned());
    }
    let boots = examine(state, before, granted.certificate()).map_err(|error| error.to_string())?;
    Ok((granted, boots))
}

/// `before` is the hash of the state before this entry, `then` its time.
pub(crate) fn apply_recover(
    state: &mut State,
    named: &Hash32,
    attachment: Option<&Attachment>,
    before: Hash32,
    (then, now): (UnixMillis, UnixMillis),
    effects: &mut Vec<Effect>,
) -> Verdict {
    let (granted, boots) = match check(state, named, attachment, before) {
        Ok(checked) => checked,
        Err(reason) => {
            return Verdict::Denied(Denial::new(
                DenialCode::GovernanceRefused,
                format_args!("recovery: {reason}"),
            ));
        }
    };
    let (id, certificate) = (granted.id(), granted.certificate());
    hand_over_keys(state, certificate);
    for boot in boots {
        let Some(node) = certificate
            .boots
            .iter()
            .map(|named| &named.offer.record)
            .find(|record| record.id() == boot.id)
            .map(|record| record.node.clone())
        else {
            continue;
        };
        let entered = boot.id;
        if let Some(former) = state.boots.insert(node.clone(), boot) {
            state.retired_boots.insert(former.id);
            effects.push(Effect::BootRetired { node: node.clone(), boot: former.id });
        }
        effects.push(Effect::BootAdmitted { node, boot: entered });
    }
    if !casemate_proto::sabotaged!("incarnation_not_raised") {
        state.incarnation = certificate.incarnation;
    }
    state.change_head = id;
    state.changes.clear();
    state.heard = now;
    // by the ledger's time, should it have run ahead of the certificate's
    let ahead = then.since(certificate.at);
    if !casemate_proto::sabotaged!("windows_open_after_recovery") {
        state.charges.mark_unproven(certificate.expires.saturating_add(ahead));
    }
    forget_what_waits(state, then, now);
    if !casemate_proto::sabotaged!("recovered_unfrozen") {
        state.freezes.insert(id, FreezeState { by: None, at: now });
    }
    effects.push(Effect::Frozen { freeze: id });
    Verdict::Accepted { id: Some(id), effective: None }
}

/// Who held a share and has a successor with a blob is a holder by that successor.
fn hand_over_keys(state: &mut State, certificate: &RecoveryCertificate) {
    let boots = &state.boots;
    for live in state.keys.values_mut().filter_map(|key| key.live.as_mut()) {
        let former = core::mem::take(&mut live.holders);
        live.holders = former
            .into_iter()
            .filter(|(node, boot)| boots.get(node).is_some_and(|current| current.id == *boot))
            .filter_map(|(node, _)| {
                let successor = certificate.boot(&node).filter(|boot| boot.sealed.is_some())?;
                Some((node, successor.offer.record.id()))
            })
            .collect();
        live.is_fresh = false;
    }
}

/// Pending requests go: nothing was charged for them, and their approvals are void. What was allowed
/// and not signed stays, charged, and is never signed again. If its signature could still be recorded
/// after `then`, the former incarnation may have done so in what was lost: nobody is told `expired`
/// of it, since a client that believes it pays again.
fn forget_what_waits(state: &mut State, then: UnixMillis, now: UnixMillis) {
    let pending: Vec<_> = state
        .requests
        .iter()
        .filter(|(_, request)| matches!(request.status, RequestStatus::Pending(_)))
        .map(|(key, _)| *key)
        .collect();
    for key in pending {
        crate::memory::forget(state, key, now);
    }
    let slack = state.slack();
    for request in state.requests.values_mut() {
        if let RequestStatus::Allowed(allowed) = &mut request.status
            && allowed.release_by.saturating_add(slack) >= then
        {
            allowed.release_by = UnixMillis(0);
        }
    }
}
