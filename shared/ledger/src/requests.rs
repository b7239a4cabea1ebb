//! Requests for signatures: from a stamped body to a verdict, and what is remembered of them.
//!
//! ```text
//! stamp ok? → parse → seen? → rate → frozen? → room? → key → decode → evaluate → charge → permit
//! ```
//!
//! A request id is used once by its credential: the same body again gets the same outcome,
//! another body is an error, until no stamp could still be valid and longer. A full table denies
//! and never evicts.

use casemate_policy::{Allowance, Approved, Ask, Decision, Requirement, evaluate};
use casemate_proto::ids::Hash32;
use casemate_proto::request::SignRequest;
use casemate_proto::stamp::{Method, Stamp, StampScope, VerifiedStamp};
use casemate_proto::{
    CredentialId, Denial, DenialCode, PrincipalId, PublicKey, RequestId, Scheme, UnixMillis,
};

use crate::apply::{Effect, Step};
use crate::memory::{Life, check_room, count_denial, remember, replayable_until};
use crate::payload::{self, Decoded};
use crate::permit::Permit;
use crate::state::{
    AllowedRequest, ApprovalState, PendingRequest, RequestKey, RequestState, RequestStatus, State,
};
use crate::verdict::{Allowed, Pending, Verdict};

/// A stamped body whose credential is registered: who asks, for what.
#[derive(Debug)]
pub struct Authentic {
    stamp: VerifiedStamp,
    principal: PrincipalId,
    request: SignRequest,
}

impl Authentic {
    /// Who asks.
    #[must_use]
    pub const fn principal(&self) -> &PrincipalId {
        &self.principal
    }
    /// For what.
    #[must_use]
    pub const fn request(&self) -> &SignRequest {
        &self.request
    }
    /// With which credential.
    #[must_use]
    pub const fn credential(&self) -> CredentialId {
        self.stamp.credential()
    }
    /// The proof that the stamp was verified.
    #[must_use]
    pub const fn stamp(&self) -> &VerifiedStamp {
        &self.stamp
    }
}

impl State {
    /// The scope that stamps of this cluster must have.
    #[must_use]
    pub const fn stamp_scope(&self, method: Method) -> StampScope {
        StampScope { genesis: self.genesis, incarnation: self.incarnation, method }
    }

    /// The principal and key of a credential that the policy registers and nobody revoked.
    ///
    /// # Errors
    /// `no_policy`, `policy_expired` or `unknown_credential`.
    pub fn registered(
        &self,
        credential: &CredentialId,
        now: UnixMillis,
    ) -> Result<(PrincipalId, PublicKey), Denial> {
        let in_force = self.policy.as_ref().ok_or_else(|| {
            Denial::new(DenialCode::NoPolicy, "no policy is in force; governance sets one")
        })?;
        if in_force.policy.has_expired(now) {
            return Err(Denial::new(DenialCode::PolicyExpired, "the policy in force has expired"));
        }
        let unknown = |why: &str| {
            Denial::new(
                DenialCode::UnknownCredential,
                format_args!("credential {credential} {why}"),
            )
        };
        if self.revoked.contains(credential) {
            return Err(unknown("was revoked"));
        }
        in_force
            .policy
            .credential(credential)
            .map(|(principal, key)| (principal.clone(), key.clone()))
            .ok_or_else(|| unknown("is not registered in the policy"))
    }

    /// Checks a stamped request as far as it can be without the ledger's next index: what fails
    /// here never becomes an entry.
    ///
    /// # Errors
    /// The denial to answer with.
    pub fn authenticate(
        &self,
        stamp: &Stamp,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<Authentic, Denial> {
        self.authenticate_knowing(None, stamp, body, now)
    }

    /// The same where the stamp's signature may have been verified before.
    pub(crate) fn authenticate_knowing(
        &self,
        known: Option<&VerifiedStamp>,
        stamp: &Stamp,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<Authentic, Denial> {
        if body.len() > casemate_proto::request::MAX_BODY {
            return Err(Denial::new(
                DenialCode::TooLarge,
                format_args!("the body has {} bytes", body.len()),
            ));
        }
        let (principal, key) = self.registered(&stamp.credential, now)?;
        let scope = self.stamp_scope(Method::CreateRequest);
        let verified = stamp
            .verify_knowing(known, &scope, &key, body, (now, self.manifest.limits.delta))
            .map_err(|error| Denial::new(DenialCode::BadStamp, error))?;
        let request =
            SignRequest::parse(body).map_err(|error| Denial::new(DenialCode::Malformed, error))?;
        Ok(Authentic { stamp: verified, principal, request })
    }

    /// Where a remembered request stands now: `Allowed` whose τ has passed is `expired`.
    #[must_use]
    pub fn outcome(
        &self,
        credential: &CredentialId,
        id: &RequestId,
        now: UnixMillis,
    ) -> Option<Outcome<'_>> {
        let request = self.request(credential, id)?;
        Some(match &request.status {
            RequestStatus::Pending(pending) if pending.expires <= now => Outcome::Expired,
            RequestStatus::Pending(pending) => Outcome::Pending(pending),
            RequestStatus::Allowed(allowed) if allowed.is_lost() => Outcome::Lost,
            RequestStatus::Allowed(allowed) if allowed.release_by < now => Outcome::Expired,
            RequestStatus::Allowed(allowed) => Outcome::Allowed(allowed),
            RequestStatus::Signed { allowed, signature, signed_index } => {
                Outcome::Signed { allowed, signature, signed_index: *signed_index }
            }
            RequestStatus::Denied(denial) => Outcome::Denied(denial),
        })
    }
}

impl State {
    /// Until when, by the ledger's time, a signature made within τ is still recorded. Only when
    /// the ledger's time is past this may anybody be told for good that an allowed request was
    /// never signed: a client that believes it pays again.
    #[must_use]
    pub fn record_by(&self, allowed: &AllowedRequest) -> UnixMillis {
        if casemate_proto::sabotaged!("expired_told_early") {
            return allowed.release_by;
        }
        allowed.release_by.saturating_add(self.slack())
    }

    /// The same of a permit's request.
    #[must_use]
    pub fn record_until(&self, permit: &Permit) -> UnixMillis {
        permit.release_by().saturating_add(self.slack())
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'s> {
    /// Waits for approvals or a delay.
    Pending(&'s PendingRequest),
    /// Allowed, not signed yet.
    Allowed(&'s AllowedRequest),
    /// Signed.
    Signed {
        /// What was allowed.
        allowed: &'s AllowedRequest,
        /// The signature.
        signature: &'s [u8],
        /// The entry that holds it.
        signed_index: u64,
    },
    /// Denied.
    Denied(&'s Denial),
    /// Too late: charged perhaps, but never signed.
    Expired,
    /// Allowed before a recovery, which knows of no signature. There may be one all the same.
    Lost,
}

pub(crate) fn apply_request(
    state: &mut State,
    stamp: &Stamp,
    body: &[u8],
    step: &mut Step,
) -> Verdict {
    let known = step.known.stamp.as_ref();
    let authentic = match state.authenticate_knowing(known, stamp, body, step.now) {
        Ok(authentic) => authentic,
        Err(denial) => return Verdict::Denied(denial),
    };
    let credential = authentic.credential();
    let key = (credential, authentic.request.request_id);
    if state.requests.contains_key(&key) && !casemate_proto::sabotaged!("ids_not_looked_up") {
        let until = replayable_until(state, stamp, step.now);
        return apply_again(state, key, until, &authentic, step);
    }
    if state.is_rate_limited(&credential, step.now) {
        return Verdict::Denied(Denial::new(
            DenialCode::RateLimited,
            "too many denied requests of this credential in this minute",
        ));
    }
    if let Err(denial) = check_room(state, &credential) {
        return Verdict::Denied(denial);
    }
    let until = replayable_until(state, stamp, step.now);
    let fresh = Fresh { key, authentic, body, until };
    decide_fresh(state, &fresh, step)
}

/// A request that was not seen before.
struct Fresh<'a> {
    key: RequestKey,
    authentic: Authentic,
    body: &'a [u8],
    /// When no stamp under its id can be valid any more.
    until: UnixMillis,
}

fn decide_fresh(state: &mut State, fresh: &Fresh<'_>, step: &mut Step) -> Verdict {
    let asked = Asked {
        key: fresh.key,
        body_hash: fresh.authentic.stamp.body_hash(),
        principal: &fresh.authentic.principal,
        request: &fresh.authentic.request,
        body: fresh.body,
        first_seen: step.now,
        approvals: &[],
        life: Life { until: fresh.until, floor: UnixMillis(0) },
    };
    let verdict = evaluate_asked(state, &asked, step);
    if matches!(verdict, Verdict::Denied(_)) {
        count_denial(state, fresh.key.0, step.now);
    }
    verdict
}

/// What a request that was not seen before would be allowed to have signed, and by which scheme, if
/// it were applied now.
pub(crate) fn foresee_request(
    state: &State,
    stamp: &Stamp,
    body: &[u8],
    now: UnixMillis,
) -> Option<(SignRequest, Scheme, [u8; 32])> {
    let authentic = state.authenticate(stamp, body, now).ok()?;
    let key = (authentic.credential(), authentic.request.request_id);
    if state.requests.contains_key(&key)
        || state.is_rate_limited(&key.0, now)
        || check_room(state, &key.0).is_err()
    {
        return None;
    }
    let asked = Asked {
        key,
        body_hash: authentic.stamp.body_hash(),
        principal: &authentic.principal,
        request: &authentic.request,
        body,
        first_seen: now,
        approvals: &[],
        life: Life { until: now, floor: UnixMillis(0) },
    };
    let (decision, decoded) = judge(state, &asked, now).ok()?;
    let Decision::Allow(_) = decision else { return None };
    let scheme = state.keys.get(&authentic.request.key)?.scheme;
    Some((authentic.request, scheme, decoded.digest))
}

/// The same id again. Another body is an error; the same body gets the outcome that stands. A
/// request that waits is looked at again, since its delay may have passed.
fn apply_again(
    state: &mut State,
    key: RequestKey,
    until: UnixMillis,
    authentic: &Authentic,
    step: &mut Step,
) -> Verdict {
    let Some(mut seen) = state.requests.get(&key).cloned() else {
        return Verdict::Denied(Denial::new(
            DenialCode::UnknownRequest,
            "the request is forgotten",
        ));
    };
    if seen.body_hash != authentic.stamp.body_hash() {
        return Verdict::Denied(Denial::new(
            DenialCode::RequestIdReused,
            format_args!(
                "request id {} was used for another body; a new request takes a new id",
                key.1
            ),
        ));
    }
    if until > seen.forget_at {
        seen.forget_at = until;
        remember(state, key, seen.clone());
    }
    match seen.status {
        RequestStatus::Pending(ref pending) if pending.expires > step.now => {
            let life = Life { until, floor: seen.forget_at };
            evaluate_pending(state, key, seen.body_hash, pending, life, step)
        }
        RequestStatus::Denied(denial) => Verdict::Denied(denial),
        _ => {
            step.effects.push(Effect::Decided { credential: key.0, request_id: key.1 });
            Verdict::Repeated { index: seen.index }
        }
    }
}

pub(crate) fn evaluate_pending(
    state: &mut State,
    key: RequestKey,
    body_hash: Hash32,
    pending: &PendingRequest,
    life: Life,
    step: &mut Step,
) -> Verdict {
    let request = match SignRequest::parse(&pending.body) {
        Ok(request) => request,
        Err(error) => return Verdict::Denied(Denial::new(DenialCode::Malformed, error)),
    };
    let approvals = standing(state, pending);
    let asked = Asked {
        key,
        body_hash,
        principal: &pending.principal,
        request: &request,
        body: &pending.body,
        first_seen: pending.first_seen,
        approvals: &approvals,
        life,
    };
    evaluate_asked(state, &asked, step)
}

/// The approvals that still stand: given under the policy in force, since the document that was
/// signed names it, and with credentials that nobody revoked since.
pub(crate) fn standing(state: &State, pending: &PendingRequest) -> Vec<ApprovalState> {
    if state.policy.as_ref().map(|policy| policy.hash) != Some(pending.policy) {
        return Vec::new();
    }
    let stands = |a: &&ApprovalState| !state.revoked.contains(&a.credential);
    pending.approvals.iter().filter(stands).cloned().collect()
}

fn approved(a: &ApprovalState) -> Approved {
    Approved {
        principal: a.principal.clone(),
        credential: a.credential,
        passkey: a.passkey,
        at: a.at,
    }
}

/// Everything that one evaluation depends on, besides the state.
struct Asked<'a> {
    key: RequestKey,
    body_hash: Hash32,
    principal: &'a PrincipalId,
    request: &'a SignRequest,
    body: &'a [u8],
    first_seen: UnixMillis,
    approvals: &'a [ApprovalState],
    life: Life,
}

fn evaluate_asked(state: &mut State, asked: &Asked<'_>, step: &mut Step) -> Verdict {
    let verdict = match judge(state, asked, step.now) {
        Ok((Decision::Allow(allowance), decoded)) => allow(state, asked, allowance, &decoded, step),
        Ok((Decision::Pending(requirement), decoded)) => {
            hold(state, asked, &requirement, &decoded, step)
        }
        Ok((Decision::Deny(denial), _)) | Err(denial) => Err(denial),
    };
    let verdict = verdict.unwrap_or_else(|denial| deny(state, asked, denial, step));
    step.effects.push(Effect::Decided { credential: asked.key.0, request_id: asked.key.1 });
    verdict
}

fn judge(state: &State, asked: &Asked<'_>, now: UnixMillis) -> Result<(Decision, Decoded), Denial> {
    if state.is_frozen() {
        return Err(Denial::new(
            DenialCode::Frozen,
            "the cluster is frozen; the governance quorum can lift it",
        ));
    }
    if state.revoked.contains(&asked.key.0) {
        // it may have been revoked while its request waited for approvals
        return Err(Denial::new(
            DenialCode::UnknownCredential,
            format_args!("credential {} was revoked", asked.key.0),
        ));
    }
    let request = asked.request;
    let (scheme, live) = payload::requested_key(state, request)?;
    payload::check_scheme(&request.key, scheme, &request.payload)?;
    let decoded = payload::decode(&state.genesis, &request.payload)?;
    let child = state.child(scheme, live, &request.path)?;
    let in_force = state
        .policy
        .as_ref()
        .ok_or_else(|| Denial::new(DenialCode::NoPolicy, "no policy is in force"))?;
    let approvals: Vec<Approved> = asked.approvals.iter().map(approved).collect();
    let ask = Ask {
        key: &request.key,
        path: &request.path,
        principal: asked.principal,
        credential: &asked.key.0,
        signer: child.address,
        intent: &decoded.intent,
        approvals: &approvals,
        first_seen: asked.first_seen,
    };
    let decision = evaluate(&in_force.policy, &state.charges, &ask, now, state.window_slack());
    Ok((decision, decoded))
}

/// Charges, remembers, and gives the permit: charge before permit, in this order (I4).
fn allow(
    state: &mut State,
    asked: &Asked<'_>,
    allowance: Allowance,
    decoded: &Decoded,
    step: &mut Step,
) -> Result<Verdict, Denial> {
    let request = asked.request;
    let key_state = state
        .keys
        .get(&request.key)
        .and_then(|key| key.live.as_ref().map(|live| (key.scheme, live.epoch)));
    let Some((scheme, epoch)) = key_state else {
        return Err(Denial::new(DenialCode::KeyNotLive, "the key is not live"));
    };
    let tau = state.manifest.limits.tau;
    let late = if casemate_proto::sabotaged!("released_late") { 4 } else { 1 };
    let release_by = step.now.saturating_add(tau.saturating_mul(late));
    let grant = allowance.grant().clone();
    step.counters.extend(crate::verdict::counters_of(&allowance));
    let charges: &[_] =
        if casemate_proto::sabotaged!("nothing_charged") { &[] } else { allowance.charges() };
    state.charges.record(charges).map_err(|error| {
        Denial::new(DenialCode::TableFull, format_args!("the charge cannot be recorded: {error}"))
    })?;
    let allowed = AllowedRequest {
        principal: asked.principal.clone(),
        grant: grant.clone(),
        key: request.key.clone(),
        path: request.path.clone(),
        digest: decoded.digest,
        release_by,
    };
    let memory = state.manifest.limits.request_memory;
    let forget_at = asked.life.with_memory(release_by, memory);
    remember(
        state,
        asked.key,
        RequestState {
            body_hash: asked.body_hash,
            index: step.index,
            forget_at,
            status: RequestStatus::Allowed(allowed),
        },
    );
    step.effects.push(Effect::Sign(Permit {
        index: step.index,
        entry: step.entry,
        credential: asked.key.0,
        request_id: asked.key.1,
        key: request.key.clone(),
        scheme,
        path: request.path.clone(),
        digest: decoded.digest,
        grant: grant.clone(),
        charges: allowance.charges().to_vec(),
        at: step.now,
        release_by,
        used: [false; 3],
    }));
    Ok(Verdict::Allowed(Allowed {
        principal: asked.principal.clone(),
        grant,
        key: request.key.clone(),
        path: request.path.clone(),
        epoch,
        digest: decoded.digest,
        release_by,
    }))
}

fn hold(
    state: &mut State,
    asked: &Asked<'_>,
    requirement: &Requirement,
    decoded: &Decoded,
    step: &mut Step,
) -> Result<Verdict, Denial> {
    let limits = state.manifest.limits;
    let known = state.requests.get(&asked.key);
    let own = state.uses.get(&asked.key.0).map_or(0, |used| used.pending);
    if known.is_none() && own >= limits.max_pending_per_credential {
        return Err(Denial::new(
            DenialCode::RateLimited,
            format_args!("{own} requests of this credential wait for approval already"),
        ));
    }
    let policy = state.policy.as_ref().map_or(Hash32::new([0; 32]), |p| p.hash);
    let expires = asked.first_seen.saturating_add(limits.approval_life);
    let document = crate::approvals::Document {
        genesis: state.genesis,
        incarnation: state.incarnation,
        credential: asked.key.0,
        request_id: asked.key.1,
        principal: asked.principal,
        key: &asked.request.key,
        path: &asked.request.path,
        body_hash: asked.body_hash,
        digest: decoded.digest,
        intent: &decoded.intent,
        policy,
        grant: &requirement.grant,
        tier: u64::from(requirement.tier),
        expires,
    }
    .hash();
    let index = known.map_or(step.index, |request| request.index);
    remember(
        state,
        asked.key,
        RequestState {
            body_hash: asked.body_hash,
            index,
            forget_at: asked.life.with_memory(expires, limits.request_memory),
            status: RequestStatus::Pending(PendingRequest {
                body: asked.body.to_vec(),
                principal: asked.principal.clone(),
                first_seen: asked.first_seen,
                document,
                policy,
                requirement: requirement.clone(),
                approvals: asked.approvals.to_vec(),
                expires,
            }),
        },
    );
    Ok(Verdict::Pending(Pending {
        grant: requirement.grant.clone(),
        document,
        have: u64::from(requirement.have),
        need: u64::from(requirement.needed),
        not_before: requirement.not_before,
        expires,
    }))
}

/// A denial is remembered for as long as its stamp could be replayed, so that a host cannot turn
/// it into a signature once a limit has room again.
fn deny(state: &mut State, asked: &Asked<'_>, denial: Denial, step: &Step) -> Verdict {
    if casemate_proto::sabotaged!("denials_forgotten") {
        return Verdict::Denied(denial);
    }
    remember(
        state,
        asked.key,
        RequestState {
            body_hash: asked.body_hash,
            index: step.index,
            forget_at: asked.life.until.max(asked.life.floor),
            status: RequestStatus::Denied(denial.clone()),
        },
    );
    Verdict::Denied(denial)
}
