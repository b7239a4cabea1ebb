//! Approvals: other people's word for one exact request, under one exact policy.
//!
//! An approver signs the hash of a document that holds what the enclave decoded, not what a host
//! says of it. The policy's hash is in it: when the policy changes, approvals so far are void.

use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::request::ApprovalBody;
use casemate_proto::stamp::Method;
use casemate_proto::{
    Amount, ChainId, CredentialId, Denial, DenialCode, DerivationPath, GenesisId, GrantId,
    Incarnation, KeyName, PrincipalId, RequestId, UnixMillis,
};
use casemate_tx::{AssetRef, Intent};
use minicbor::Encode;

use crate::apply::Step;
use crate::entry::ApprovalProof;
use crate::memory::Life;
use crate::state::{ApprovalState, PendingRequest, RequestState, RequestStatus, State};
use crate::verdict::Verdict;

/// Most approvals that one request collects.
const MAX_APPROVALS: usize = 32;

/// What an approver approves. Approvers and their tools make the same of a request's body, and sign
/// only what gives the hash that they are asked to sign.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The requester's credential.
    pub credential: CredentialId,
    /// The request's id.
    pub request_id: RequestId,
    /// Who asks.
    pub principal: &'a PrincipalId,
    /// Which key.
    pub key: &'a KeyName,
    /// Which child of it.
    pub path: &'a DerivationPath,
    /// SHA-256 of the request's body.
    pub body_hash: Hash32,
    /// What is signed.
    pub digest: [u8; 32],
    /// What it does.
    pub intent: &'a Intent,
    /// The policy in force.
    pub policy: Hash32,
    /// The grant that asks for approval.
    pub grant: &'a GrantId,
    /// Its tier, from 0.
    pub tier: u64,
    /// When the request expires.
    pub expires: UnixMillis,
}

/// The approval document as it is hashed: a map with these fields, in this order.
#[derive(Encode)]
#[cbor(map)]
struct Wire<'a> {
    #[n(0)]
    genesis: GenesisId,
    #[n(1)]
    incarnation: Incarnation,
    #[n(2)]
    credential: CredentialId,
    #[n(3)]
    request_id: RequestId,
    #[n(4)]
    principal: &'a PrincipalId,
    #[n(5)]
    key: &'a KeyName,
    #[n(6)]
    path: &'a DerivationPath,
    #[n(7)]
    body: Hash32,
    #[n(8)]
    digest: Hash32,
    #[n(9)]
    action: &'static str,
    #[n(10)]
    chain: Option<ChainId>,
    #[n(11)]
    asset: Option<String>,
    #[n(12)]
    to: Option<String>,
    #[n(13)]
    amount: Amount,
    #[n(14)]
    policy: Hash32,
    #[n(15)]
    grant: &'a GrantId,
    #[n(16)]
    tier: u64,
    #[n(17)]
    expires: UnixMillis,
}

impl Document<'_> {
    /// The hash that approvers sign.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let intent = self.intent;
        let wire = Wire {
            genesis: self.genesis,
            incarnation: self.incarnation,
            credential: self.credential,
            request_id: self.request_id,
            principal: self.principal,
            key: self.key,
            path: self.path,
            body: self.body_hash,
            digest: Hash32::new(self.digest),
            action: intent.action.name(),
            chain: intent.chain.clone(),
            asset: intent.asset.map(|asset| match asset {
                AssetRef::Native => "native".to_owned(),
                AssetRef::Token(contract) => contract.to_string(),
            }),
            to: intent.to.map(|to| to.to_string()),
            amount: intent.amount,
            policy: self.policy,
            grant: self.grant,
            tier: self.tier,
            expires: self.expires,
        };
        tagged_hash("casemate/approval-document/v1", &[&casemate_proto::cbor::encode(&wire)])
    }
}

pub(crate) fn apply_approval(
    state: &mut State,
    body: &[u8],
    proof: &ApprovalProof,
    step: &mut Step,
) -> Verdict {
    let authentic = match state.authenticate_approval(body, proof, step.now) {
        Ok(authentic) => authentic,
        Err(denial) => return Verdict::Denied(denial),
    };
    match accept(state, authentic, proof.credential(), step) {
        Ok(verdict) => verdict,
        Err(denial) => {
            // a passkey's assertion does not expire, so that a host could repeat it for ever
            crate::memory::count_denial(state, proof.credential(), step.now);
            Verdict::Denied(denial)
        }
    }
}

impl State {
    /// Checks an approval's proof and body, as far as it can be without applying it: what fails
    /// here never becomes an entry.
    ///
    /// # Errors
    /// The denial to answer with.
    pub fn authenticate_approval(
        &self,
        body: &[u8],
        proof: &ApprovalProof,
        now: UnixMillis,
    ) -> Result<(ApprovalBody, PrincipalId, bool), Denial> {
        let approval =
            ApprovalBody::parse(body).map_err(|e| Denial::new(DenialCode::Malformed, e))?;
        let (principal, key) = self.registered(&proof.credential(), now)?;
        if self.is_rate_limited(&proof.credential(), now) {
            return Err(Denial::new(
                DenialCode::RateLimited,
                "too many refused approvals of this credential in this minute",
            ));
        }
        let bad = |error: &dyn core::fmt::Display| Denial::new(DenialCode::BadStamp, error);
        let passkey = match proof {
            ApprovalProof::Stamp(stamp) => {
                let scope = self.stamp_scope(Method::CreateApproval);
                stamp
                    .verify(&scope, &key, body, now, self.manifest.limits.delta)
                    .map_err(|error| bad(&error))?;
                false
            }
            ApprovalProof::Passkey { assertion, .. } => {
                let party = self
                    .manifest
                    .relying_party
                    .as_ref()
                    .ok_or_else(|| bad(&"the manifest names no relying party for passkeys"))?;
                assertion.verify(&key, party, &approval.document).map_err(|error| bad(&error))?;
                true
            }
        };
        Ok((approval, principal, passkey))
    }
}

fn accept(
    state: &mut State,
    (approval, approver, passkey): (ApprovalBody, PrincipalId, bool),
    credential: CredentialId,
    step: &mut Step,
) -> Result<Verdict, Denial> {
    if state.is_frozen() {
        return Err(Denial::new(DenialCode::Frozen, "the cluster is frozen"));
    }
    let key = (approval.credential, approval.request_id);
    let request = state.requests.get(&key).cloned().ok_or_else(|| {
        Denial::new(DenialCode::UnknownRequest, format_args!("there is no request {}", key.1))
    })?;
    let RequestState { body_hash, forget_at, status: RequestStatus::Pending(mut pending), .. } =
        request
    else {
        return Err(Denial::new(
            DenialCode::ApprovalMismatch,
            format_args!("request {} does not wait for approvals", key.1),
        ));
    };
    // before the check, so that whoever's credential was revoked may approve with another
    pending.approvals = crate::requests::standing(state, &pending);
    check(state, &pending, &approval, &approver, step.now)?;
    check_counts(state, &pending, &approver, &credential, passkey)?;
    pending.approvals.push(ApprovalState {
        principal: approver,
        credential,
        passkey,
        at: step.now,
    });
    if let Some(RequestState { status, .. }) = state.requests.get_mut(&key) {
        *status = RequestStatus::Pending(pending.clone());
    }
    let life = Life { until: step.now, floor: forget_at };
    Ok(crate::requests::evaluate_pending(state, key, body_hash, &pending, life, step))
}

/// An approval that would not count (not on the tier's list, no passkey where one is asked) is
/// refused and leaves the request as it was.
fn check_counts(
    state: &State,
    pending: &PendingRequest,
    approver: &PrincipalId,
    credential: &CredentialId,
    passkey: bool,
) -> Result<(), Denial> {
    let in_force = state
        .policy
        .as_ref()
        .ok_or_else(|| Denial::new(DenialCode::NoPolicy, "no policy is in force"))?;
    casemate_policy::check_approver(
        &in_force.policy,
        &pending.requirement,
        &pending.principal,
        approver,
        credential,
        passkey,
    )
    .map_err(|denial| *denial)
}

fn check(
    state: &State,
    pending: &PendingRequest,
    approval: &ApprovalBody,
    approver: &PrincipalId,
    now: UnixMillis,
) -> Result<(), Denial> {
    let mismatch =
        |reason: &dyn core::fmt::Display| Denial::new(DenialCode::ApprovalMismatch, reason);
    let not_allowed =
        |reason: &dyn core::fmt::Display| Denial::new(DenialCode::ApproverNotAllowed, reason);
    if pending.expires <= now {
        return Err(Denial::new(
            DenialCode::Expired,
            format_args!("the request expired at {}", pending.expires),
        ));
    }
    if state.policy.as_ref().map(|p| p.hash) != Some(pending.policy) {
        return Err(mismatch(&"the policy changed since the request was made; ask for it again"));
    }
    if approval.document != pending.document {
        return Err(mismatch(&format_args!(
            "the approval is for document {}, and the request's is {}",
            approval.document, pending.document
        )));
    }
    if *approver == pending.principal {
        return Err(not_allowed(&format_args!(
            "`{approver}` made the request and cannot approve it"
        )));
    }
    if pending.approvals.iter().any(|a| a.principal == *approver) {
        return Err(not_allowed(&format_args!("`{approver}` has approved already")));
    }
    if pending.approvals.len() >= MAX_APPROVALS {
        return Err(not_allowed(&"the request has all the approvals it can hold"));
    }
    Ok(())
}
