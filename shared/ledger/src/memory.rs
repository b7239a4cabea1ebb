//! What is remembered of requests, for how long, and how much of the tables one credential may use.
//!
//! A full table denies and never evicts; each credential has its own share, so that one cannot deny
//! the others.

use casemate_proto::stamp::{MAX_LIFE, Stamp};
use casemate_proto::{CredentialId, Denial, DenialCode, Millis, UnixMillis};

use crate::state::{RequestKey, RequestState, RequestStatus, State};

/// A minute, in which recorded denials of one credential are counted.
const MINUTE_MS: u64 = 60_000;

impl State {
    /// Whether a credential has used up its recorded denials of this minute; then the node
    /// refuses by itself, with no entry.
    #[must_use]
    pub fn is_rate_limited(&self, credential: &CredentialId, now: UnixMillis) -> bool {
        let most = self.manifest.limits.max_denials_per_minute;
        let minute = now.0 / MINUTE_MS;
        self.uses.get(credential).is_some_and(|u| u.minute == minute && u.denials >= most)
    }
}

/// How long an outcome is remembered at least.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    /// When no stamp that the decision is about can be valid any more.
    pub(crate) until: UnixMillis,
    /// Until when the request is remembered already. Asking again must not add to it, or a host
    /// that repeats one stamp would fill the table for good.
    pub(crate) floor: UnixMillis,
}

impl Life {
    /// Until when what could end at `end` is remembered, with the manifest's memory on top.
    pub(crate) fn with_memory(self, end: UnixMillis, memory: Millis) -> UnixMillis {
        self.floor.max(self.until.max(end).saturating_add(memory))
    }
}

/// Until when a stamp under this id could still be valid: this one, or one that its client made
/// before it could know what is decided now and that a host has kept back.
pub(crate) fn replayable_until(state: &State, stamp: &Stamp, now: UnixMillis) -> UnixMillis {
    stamp.expires_at.max(now.saturating_add(MAX_LIFE)).saturating_add(state.slack())
}

/// Forgets requests whose time has come. Run at the start of every entry.
pub(crate) fn forget_due(state: &mut State, now: UnixMillis) {
    while let Some(&(at, key)) = state.forget.first() {
        if at > now {
            return;
        }
        state.forget.pop_first();
        forget(state, key, now);
    }
}

/// Forgets one request.
pub(crate) fn forget(state: &mut State, key: RequestKey, now: UnixMillis) {
    let Some(request) = state.requests.remove(&key) else { return };
    state.forget.remove(&(request.forget_at, key));
    let was_pending = matches!(request.status, RequestStatus::Pending(_));
    if let Some(used) = state.uses.get_mut(&key.0) {
        used.requests = used.requests.saturating_sub(1);
        used.pending = used.pending.saturating_sub(u64::from(was_pending));
        if used.requests == 0 && used.minute < now.0 / MINUTE_MS {
            state.uses.remove(&key.0);
        }
    }
}

pub(crate) fn remember(state: &mut State, key: RequestKey, request: RequestState) {
    let is_pending = matches!(request.status, RequestStatus::Pending(_));
    let forget_at =
        if casemate_proto::sabotaged!("ids_forgotten") { UnixMillis(0) } else { request.forget_at };
    let former = state.requests.insert(key, request);
    let was_pending =
        former.as_ref().is_some_and(|f| matches!(f.status, RequestStatus::Pending(_)));
    if let Some(former) = &former {
        state.forget.remove(&(former.forget_at, key));
    }
    state.forget.insert((forget_at, key));
    let used = state.uses.entry(key.0).or_default();
    used.requests = used.requests.saturating_add(u64::from(former.is_none()));
    used.pending =
        used.pending.saturating_add(u64::from(is_pending)).saturating_sub(u64::from(was_pending));
}

pub(crate) fn count_denial(state: &mut State, credential: CredentialId, now: UnixMillis) {
    let minute = now.0 / MINUTE_MS;
    let used = state.uses.entry(credential).or_default();
    if used.minute != minute {
        used.minute = minute;
        used.denials = 0;
    }
    used.denials = used.denials.saturating_add(1);
}

pub(crate) fn check_room(state: &State, credential: &CredentialId) -> Result<(), Denial> {
    let limits = &state.manifest.limits;
    let total = u64::try_from(state.requests.len()).unwrap_or(u64::MAX);
    let own = state.uses.get(credential).map_or(0, |used| used.requests);
    if total >= limits.max_requests || own >= limits.max_requests_per_credential {
        return Err(Denial::new(
            DenialCode::TableFull,
            format_args!(
                "{total} requests are remembered, {own} of this credential; ask again later"
            ),
        ));
    }
    Ok(())
}
