//! Freezes: anybody on the freeze list stops signing; only the quorum lets it go on; a cluster
//! that its freezers cannot reach for long enough stops by itself.

use casemate_proto::governance::{FreezerStatement, SignedStatement, VerifiedStatement};
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::{Denial, DenialCode, UnixMillis};

use crate::apply::Effect;
use crate::state::{FreezeState, State};
use crate::verdict::Verdict;

/// Most freezes of one freezer that are in force at one time. More than one, since a freeze that is
/// given while the quorum lifts an earlier one must outlast it.
pub const MAX_FREEZES: usize = 4;

/// The dead man's switch: freezes if no freezer was heard for the time that the manifest sets.
pub(crate) fn dead_man(state: &mut State, now: UnixMillis, effects: &mut Vec<Effect>) {
    if casemate_proto::sabotaged!("dead_man_asleep") {
        return;
    }
    let Some(patience) = state.manifest.limits.dead_man else { return };
    if now.since(state.heard) <= patience {
        return;
    }
    // one freeze for each silence: named by when the freezers were last heard
    let id = tagged_hash(
        "casemate/dead-man/v1",
        &[state.genesis.as_bytes(), &state.heard.0.to_be_bytes()],
    );
    // while one is in force another would only be another to lift
    let in_force = state.freezes.values().any(|freeze| freeze.by.is_none());
    if !state.lifted.contains(&id) && !in_force {
        state.freezes.insert(id, FreezeState { by: None, at: now });
        effects.push(Effect::Frozen { freeze: id });
    }
}

fn refuse(reason: impl core::fmt::Display) -> Denial {
    Denial::new(DenialCode::GovernanceRefused, format_args!("freezer's statement: {reason}"))
}

/// Everything that must hold for a statement to change anything.
fn check(
    state: &State,
    signed: &SignedStatement,
    now: UnixMillis,
) -> Result<VerifiedStatement, Denial> {
    if signed.genesis != state.genesis || signed.incarnation != state.incarnation {
        return Err(refuse("it is for another cluster or another incarnation"));
    }
    let verified = signed.verify(&state.manifest).map_err(refuse)?;
    let id = verified.id();
    match &signed.statement {
        FreezerStatement::Freeze { .. } => {
            if state.lifted.contains(&id) {
                return Err(refuse("this freeze was lifted; a new one takes a new nonce"));
            }
            let by = Some(signed.by.credential);
            let own = state.freezes.values().filter(|f| f.by == by).count();
            if state.freezes.contains_key(&id) || own >= MAX_FREEZES {
                return Err(refuse("this freezer's freeze is in force already"));
            }
        }
        FreezerStatement::Veto { change } => {
            if !state.changes.contains_key(change) {
                return Err(refuse(format_args!("no pending change {change}")));
            }
        }
        FreezerStatement::Heartbeat { size, root, pending } => {
            // of heartbeats only: one of the future could be kept back and make a later silence
            // look like presence, and a freezer whose clock is fast must be able to freeze
            if signed.at > now.saturating_add(state.manifest.limits.delta) {
                return Err(refuse(format_args!(
                    "it is of {}, and the ledger's time is {now}",
                    signed.at
                )));
            }
            if state.root_at(*size) != Some(*root) {
                return Err(refuse(format_args!(
                    "its checkpoint of size {size} is not one of the newest {} of this log",
                    crate::state::KEPT_ROOTS
                )));
            }
            let unseen = |id: &Hash32| state.changes.get(id).is_some_and(|c| c.seen_at.is_none());
            if signed.at <= state.heard && !pending.iter().any(unseen) {
                return Err(refuse("a later heartbeat was heard, and it shows nothing new"));
            }
        }
    }
    Ok(verified)
}

impl State {
    /// Checks a statement as far as it can be without applying it: what would change nothing never
    /// becomes an entry, so that nobody can fill the log with old statements.
    ///
    /// # Errors
    /// The denial to answer with.
    pub fn authenticate_statement(
        &self,
        signed: &SignedStatement,
        now: UnixMillis,
    ) -> Result<(), Denial> {
        check(self, signed, now).map(drop)
    }
}

pub(crate) fn apply_statement(
    state: &mut State,
    signed: &SignedStatement,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Verdict {
    let id = match check(state, signed, now) {
        Ok(verified) => verified.id(),
        Err(denial) => return Verdict::Denied(denial),
    };
    match &signed.statement {
        FreezerStatement::Freeze { .. } => {
            let by = Some(signed.by.credential);
            state.freezes.insert(id, FreezeState { by, at: now });
            effects.push(Effect::Frozen { freeze: id });
            Verdict::Accepted { id: Some(id), effective: None }
        }
        FreezerStatement::Veto { change } => {
            state.changes.remove(change);
            Verdict::Accepted { id: Some(*change), effective: None }
        }
        FreezerStatement::Heartbeat { size, pending, .. } => {
            hear(state, signed.at, now, *size, pending);
            Verdict::accepted()
        }
    }
}

/// What a heartbeat makes known: that a freezer was there at its own time, and that it saw the
/// changes it lists, in a log that held them. Delays count from now, not from the freezer's time.
fn hear(state: &mut State, at: UnixMillis, now: UnixMillis, size: u64, pending: &[Hash32]) {
    state.heard = state.heard.max(at.min(now));
    for id in pending {
        if let Some(change) = state.changes.get_mut(id)
            && change.seen_at.is_none()
            && change.index < size
        {
            change.seen_at = Some(now);
        }
    }
}
