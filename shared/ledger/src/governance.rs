//! Governance: changes that a quorum signed, in one chain from the genesis on (I11).
//!
//! Tightening is in force at once; loosening waits. What counts as tightening is a closed list.
//! A delay counts from the moment somebody outside showed that the proposal was seen (a freezer's
//! heartbeat), so that a host cannot let it run out in the dark; a cluster without freezers
//! counts from the proposal itself.

use casemate_policy::{Policy, diff};
use casemate_proto::governance::{Change, SignedChange, VerifiedChange};
use casemate_proto::ids::Hash32;
use casemate_proto::{CredentialId, Denial, DenialCode, Millis, PublicKey, Scheme, UnixMillis};

use crate::apply::Effect;
use crate::entry::Attachment;
use crate::state::{InForce, KeyState, PendingChange, State};
use crate::verdict::Verdict;

/// Longest time from its application that a change's expiry may lie ahead.
pub const MAX_CHANGE_LIFE: Millis = Millis(31 * 86_400_000);
/// Most images that are accepted at one time.
pub const MAX_IMAGES: usize = 16;
/// Most changes that wait at one time.
pub const MAX_PENDING: usize = 16;

fn refuse(reason: impl core::fmt::Display) -> Denial {
    Denial::new(DenialCode::GovernanceRefused, reason)
}

pub(crate) fn apply_change(
    state: &mut State,
    signed: &SignedChange,
    attachment: Option<&Attachment>,
    index: u64,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Verdict {
    match accept(state, signed, attachment, index, now, effects) {
        Ok(verdict) => verdict,
        Err(denial) => Verdict::Denied(denial),
    }
}

fn accept(
    state: &mut State,
    signed: &SignedChange,
    attachment: Option<&Attachment>,
    index: u64,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<Verdict, Denial> {
    let verified = check(state, signed, now)?;
    let effective = take_effect(state, &verified, attachment, index, now, effects)?;
    state.change_head = verified.id();
    Ok(Verdict::Accepted { id: Some(verified.id()), effective })
}

/// Everything that can be checked of a change before it is an entry: its signatures and what it is
/// bound to.
fn check(state: &State, signed: &SignedChange, now: UnixMillis) -> Result<VerifiedChange, Denial> {
    if !crate::entry::within_cap(&signed.signatures) {
        return Err(refuse("too many signatures"));
    }
    let verified = signed.verify(&state.manifest).map_err(refuse)?;
    if let Some(named) = signed.signatures.iter().find(|s| state.revoked.contains(&s.credential)) {
        return Err(refuse(format_args!("governor {} was revoked", named.credential)));
    }
    check_binding(state, &verified, now)?;
    Ok(verified)
}

impl State {
    /// Checks a change as far as it can be without applying it: what fails here never becomes an
    /// entry, so that nobody can fill the log with old changes.
    ///
    /// # Errors
    /// The denial to answer with.
    pub fn authenticate_change(
        &self,
        signed: &SignedChange,
        now: UnixMillis,
    ) -> Result<(), Denial> {
        check(self, signed, now).map(drop)
    }
}

fn check_binding(state: &State, verified: &VerifiedChange, now: UnixMillis) -> Result<(), Denial> {
    let envelope = verified.envelope();
    if envelope.genesis != state.genesis || envelope.incarnation != state.incarnation {
        return Err(refuse("the change is for another cluster or another incarnation"));
    }
    if envelope.predecessor != state.change_head {
        return Err(refuse(format_args!(
            "the change follows {}, and the newest accepted change is {}",
            envelope.predecessor, state.change_head
        )));
    }
    if envelope.expires <= now {
        return Err(refuse(format_args!("the change expired at {}", envelope.expires)));
    }
    if envelope.expires > now.saturating_add(MAX_CHANGE_LIFE) {
        return Err(refuse(format_args!(
            "the change expires at {}, more than 31 days ahead",
            envelope.expires
        )));
    }
    match (&envelope.change, state.confirmed) {
        (Change::ConfirmGenesis, true) => Err(refuse("the genesis is confirmed already")),
        (Change::ConfirmGenesis, false) | (_, true) => Ok(()),
        (_, false) => Err(refuse("the first change confirms the genesis")),
    }
}

/// Makes a change true now or puts it among those that wait; `Some(time)` where the time from
/// which it will be in force is known already.
fn take_effect(
    state: &mut State,
    verified: &VerifiedChange,
    attachment: Option<&Attachment>,
    index: u64,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<Option<UnixMillis>, Denial> {
    match &verified.envelope().change {
        Change::ConfirmGenesis => {
            state.confirmed = true;
            effects.push(Effect::GenesisConfirmed);
        }
        Change::SetPolicy { policy } => {
            let (parsed, canonical) = attached_policy(*policy, attachment, now)?;
            // a newer decision on the policy replaces one that still waits
            let waiting =
                |change: &PendingChange| matches!(change.envelope.change, Change::SetPolicy { .. });
            let tightens = match &state.policy {
                None => true,
                Some(current) => diff(&current.policy, &parsed).is_tightening(),
            };
            if !tightens {
                let others = state.changes.values().filter(|change| !waiting(change)).count();
                check_room(others)?;
            }
            state.changes.retain(|_, change| !waiting(change));
            if !tightens {
                return Ok(Some(wait(state, verified, canonical, index, now)));
            }
            set_policy(state, parsed, *policy, effects);
        }
        Change::CreateKey { name, scheme } => {
            if state.keys.contains_key(name) {
                return Err(refuse(format_args!("there is a key `{name}` already")));
            }
            let reserved = name.as_str().starts_with(crate::state::RESERVED_PREFIX);
            if reserved && name.as_str() != crate::apply::LOG_KEY {
                return Err(refuse(format_args!(
                    "names beginning with `{}` are the cluster's own",
                    crate::state::RESERVED_PREFIX
                )));
            }
            if reserved && *scheme != Scheme::Ed25519 {
                return Err(refuse("the log's key is an Ed25519 key"));
            }
            if state.keys.len() >= crate::keys::MAX_KEYS {
                return Err(refuse(format_args!("there are {} keys already", state.keys.len())));
            }
            state.keys.insert(name.clone(), KeyState { scheme: *scheme, live: None });
            effects.push(Effect::GenerateKey { name: name.clone(), scheme: *scheme });
        }
        Change::Unfreeze { freeze } => {
            if state.freezes.remove(freeze).is_none() {
                return Err(refuse(format_args!("no freeze {freeze} is in force")));
            }
            state.lifted.insert(*freeze);
            // the quorum being here counts as having been heard, or the dead man would freeze
            // again at once under the same name
            state.heard = state.heard.max(now);
            effects.push(Effect::Unfrozen { freeze: *freeze });
        }
        Change::RevokeCredential { credential } => {
            check_quorum_without(state, credential)?;
            if !state.revoked.insert(*credential) {
                return Err(refuse(format_args!("credential {credential} is revoked already")));
            }
        }
        Change::AcceptImage { measurement } => {
            if state.retired_images.contains(measurement) {
                return Err(refuse("a retired image never returns"));
            }
            if state.images.contains(measurement) || state.images.len() >= MAX_IMAGES {
                return Err(refuse("the image is accepted already, or 16 are"));
            }
            check_room(state.changes.len())?;
            return Ok(Some(wait(state, verified, Vec::new(), index, now)));
        }
        Change::RetireImage { measurement } => {
            if state.boots.values().any(|boot| boot.measurement == *measurement) {
                return Err(refuse("a current boot still runs this image"));
            }
            if !state.images.remove(measurement) {
                return Err(refuse("the image is not accepted"));
            }
            state.retired_images.insert(measurement.clone());
        }
        Change::Withdraw { change } => {
            if state.changes.remove(change).is_none() {
                return Err(refuse(format_args!("no change {change} waits")));
            }
        }
    }
    Ok(None)
}

/// A revoked governor signs nothing any more; what is left must still be able to govern.
fn check_quorum_without(state: &State, credential: &CredentialId) -> Result<(), Denial> {
    let governance = &state.manifest.governance;
    let ids = governance.keys.iter().map(PublicKey::id);
    let left = ids.filter(|id| id != credential && !state.revoked.contains(id)).count();
    if u64::try_from(left).unwrap_or(u64::MAX) < governance.quorum {
        return Err(refuse(format_args!(
            "{left} governors would be left, and {} must sign",
            governance.quorum
        )));
    }
    Ok(())
}

fn attached_policy(
    named: Hash32,
    attachment: Option<&Attachment>,
    now: UnixMillis,
) -> Result<(Policy, Vec<u8>), Denial> {
    let Some(Attachment::Policy(bytes)) = attachment else {
        return Err(refuse(format_args!("the policy {named} did not come with the change")));
    };
    if bytes.len() > casemate_proto::governance::MAX_POLICY {
        return Err(refuse(format_args!("the policy has {} bytes", bytes.len())));
    }
    let policy = Policy::from_canonical(bytes).map_err(refuse)?;
    if policy.policy_hash() != named {
        return Err(refuse(format_args!(
            "the policy that came is {}, not {named}",
            policy.policy_hash()
        )));
    }
    if policy.has_expired(now) {
        return Err(refuse("the policy has expired"));
    }
    Ok((policy, bytes.clone()))
}

fn set_policy(state: &mut State, policy: Policy, hash: Hash32, effects: &mut Vec<Effect>) {
    if casemate_proto::sabotaged!("charges_reset_by_policy") {
        state.charges = casemate_policy::ChargeBook::new(state.window_slack());
    }
    state.policy = Some(InForce { policy, hash });
    effects.push(Effect::PolicyInForce { policy: hash });
}

fn wait(
    state: &mut State,
    verified: &VerifiedChange,
    policy: Vec<u8>,
    index: u64,
    now: UnixMillis,
) -> UnixMillis {
    let watched = !state.manifest.freezers.is_empty();
    state.changes.insert(
        verified.id(),
        PendingChange {
            envelope: verified.envelope().clone(),
            index,
            seen_at: (!watched).then_some(now),
            policy,
        },
    );
    now.saturating_add(state.manifest.governance.loosening_delay)
}

fn check_room(waiting: usize) -> Result<(), Denial> {
    if waiting >= MAX_PENDING {
        return Err(refuse(format_args!("{MAX_PENDING} changes wait already; withdraw one")));
    }
    Ok(())
}

impl State {
    /// The waiting changes whose delay is over at a time: the next entry puts them in force.
    pub fn due_changes(&self, now: UnixMillis) -> impl Iterator<Item = Hash32> + '_ {
        let delay = self.manifest.governance.loosening_delay;
        let due = move |seen: UnixMillis| now >= seen.saturating_add(delay);
        self.changes
            .iter()
            .filter(move |(_, change)| change.seen_at.is_some_and(due))
            .map(|(id, _)| *id)
    }
}

/// Puts in force what has waited long enough. Run at the start of every entry.
pub(crate) fn activate_due(state: &mut State, now: UnixMillis, effects: &mut Vec<Effect>) {
    let due: Vec<Hash32> = state.due_changes(now).collect();
    for id in due {
        let Some(change) = state.changes.remove(&id) else { continue };
        match &change.envelope.change {
            Change::SetPolicy { policy } => {
                // it was checked when it was proposed; what does not parse now is not put in force
                if let Ok(parsed) = Policy::from_canonical(&change.policy) {
                    set_policy(state, parsed, *policy, effects);
                }
            }
            Change::AcceptImage { measurement }
                if !state.retired_images.contains(measurement)
                    && state.images.len() < MAX_IMAGES =>
            {
                state.images.insert(measurement.clone());
            }
            _ => {}
        }
    }
}
