//! Signatures as entries: a signature proves itself, is uncharged, and the first one stays.

use casemate_proto::signature::VerifiedSignature;
use casemate_proto::{CredentialId, Denial, DenialCode, RequestId};

use crate::apply::{Effect, Step};
use crate::memory::remember;
use crate::state::{AllowedRequest, RequestState, RequestStatus, State};
use crate::verdict::Verdict;

/// A signature proves itself: it must verify under the child's key over the allowed digest. It
/// is uncharged, and the first one stays.
pub(crate) fn apply_signed(
    state: &mut State,
    credential: &CredentialId,
    request_id: &RequestId,
    signature: &[u8],
    step: &mut Step,
) -> Verdict {
    let refuse = |reason: &str| {
        Verdict::Denied(Denial::new(
            DenialCode::UnknownRequest,
            format_args!("request {request_id}: {reason}"),
        ))
    };
    let key = (*credential, *request_id);
    let Some(request) = state.requests.get(&key) else {
        return refuse("it is not known");
    };
    let allowed = match &request.status {
        RequestStatus::Allowed(allowed) => allowed.clone(),
        RequestStatus::Signed { signed_index, .. } => {
            return Verdict::Repeated { index: *signed_index };
        }
        _ => return refuse("it is not allowed"),
    };
    if step.now > state.record_by(&allowed) {
        return refuse("it was not signed in time, and may have been answered `expired` since");
    }
    if !signature_fits(state, &allowed, signature, step.known.signature.as_ref()) {
        return refuse("the signature does not verify");
    }
    let (body_hash, index, forget_at) = (request.body_hash, request.index, request.forget_at);
    let status =
        RequestStatus::Signed { allowed, signature: signature.to_vec(), signed_index: step.index };
    remember(state, key, RequestState { body_hash, index, forget_at, status });
    step.effects.push(Effect::SignatureRecorded { credential: key.0, request_id: key.1 });
    Verdict::accepted()
}

fn signature_fits(
    state: &State,
    allowed: &AllowedRequest,
    signature: &[u8],
    known: Option<&VerifiedSignature>,
) -> bool {
    let Some(key) = state.keys.get(&allowed.key) else { return false };
    let Some(live) = &key.live else { return false };
    let Ok(child) = state.child(key.scheme, live, &allowed.path) else { return false };
    let Some((plain, rest)) = signature.split_first_chunk::<64>() else { return false };
    let (scheme, public_key, digest) = (key.scheme, &child.public_key, &allowed.digest);
    signature.len() == scheme.signature_len()
        && (known.is_some_and(|known| known.is_of(scheme, public_key, digest, plain))
            || crate::keys::verify_signature(scheme, public_key, digest, plain))
        && rest.iter().all(|v| recovers(&child.public_key, &allowed.digest, plain, *v))
}

/// Whether the recovery id `v` gives exactly this public key.
fn recovers(public_key: &[u8], digest: &[u8; 32], plain: &[u8; 64], v: u8) -> bool {
    let (Ok(signature), Some(id)) = (
        k256::ecdsa::Signature::from_slice(plain),
        Some(v).filter(|v| *v <= 1).and_then(k256::ecdsa::RecoveryId::from_byte),
    ) else {
        return false;
    };
    k256::ecdsa::VerifyingKey::recover_from_prehash(digest, &signature, id)
        .is_ok_and(|key| key.to_encoded_point(true).as_bytes() == public_key)
}
