//! Permits: the proof that an entry was applied and allowed, and the only way to a signature.
//!
//! *Knowing that an entry is committed is not permission.* A permit comes out of applying an
//! entry; turning it into an attempt asks the applied state again, at the moment of release:
//! is the cluster frozen, are this boot and every participant's boot current and holders of the
//! key's current epoch, is it still within τ of the entry's time, is this attempt's number fresh. An
//! attempt is one use: it cannot be cloned, and the signing run consumes it (invariants I4, I6, I8).
//! A permit outlives its key's epoch, since the key stays what it was; each attempt is bound to the
//! epoch that is current when it begins.

use std::collections::BTreeSet;

use casemate_policy::Charge;
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::{
    BootId, CredentialId, DerivationPath, GenesisId, GrantId, Incarnation, KeyName, NodeName,
    RequestId, Scheme, UnixMillis,
};

use crate::state::State;

/// How often one entry may be driven, each time with fresh one-time values.
pub const MAX_ATTEMPTS: u8 = 3;

/// Leave to sign what one applied entry allowed. Made by applying an entry only; not `Clone`.
#[derive(Debug)]
pub struct Permit {
    pub(crate) index: u64,
    pub(crate) entry: Hash32,
    pub(crate) credential: CredentialId,
    pub(crate) request_id: RequestId,
    pub(crate) key: KeyName,
    pub(crate) scheme: Scheme,
    pub(crate) path: DerivationPath,
    pub(crate) digest: [u8; 32],
    pub(crate) grant: GrantId,
    pub(crate) charges: Vec<Charge>,
    pub(crate) at: UnixMillis,
    pub(crate) release_by: UnixMillis,
    /// Which attempts' numbers are used up: one place for each of [`MAX_ATTEMPTS`].
    pub(crate) used: [bool; 3],
}

/// What one protocol run is bound to. Two runs never share it: the attempt's number is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunBinding {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The entry's index in the log.
    pub index: u64,
    /// The entry's hash: another entry at this index is another run.
    pub entry: Hash32,
    /// The key.
    pub key: KeyName,
    /// Its epoch.
    pub epoch: u64,
    /// The child.
    pub path: DerivationPath,
    /// Exactly t nodes with their current boots, in the roster's order.
    pub participants: Vec<(NodeName, BootId)>,
    /// 0, 1 or 2.
    pub attempt: u8,
}

impl RunBinding {
    /// One hash over all of it.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        if casemate_proto::sabotaged!("runs_named_by_index") {
            return tagged_hash("casemate/run/v1", &[&self.index.to_be_bytes()]);
        }
        let participants: Vec<u8> = self
            .participants
            .iter()
            .flat_map(|(name, boot)| {
                [casemate_proto::cbor::encode(name), boot.as_bytes().to_vec()].concat()
            })
            .collect();
        tagged_hash(
            "casemate/run/v1",
            &[
                self.genesis.as_bytes(),
                &self.incarnation.0.to_be_bytes(),
                &self.index.to_be_bytes(),
                self.entry.as_bytes(),
                self.key.as_str().as_bytes(),
                &self.epoch.to_be_bytes(),
                self.path.to_string().as_bytes(),
                &participants,
                &[self.attempt],
            ],
        )
    }
}

/// Leave for one protocol run. Consumed by it.
#[derive(Debug)]
pub struct Attempt {
    binding: RunBinding,
    scheme: Scheme,
    digest: [u8; 32],
    release_by: UnixMillis,
}

impl Attempt {
    /// What the run is bound to.
    #[must_use]
    pub const fn binding(&self) -> &RunBinding {
        &self.binding
    }
    /// The key's scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// What is signed.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }
    /// Until when a share may be released.
    #[must_use]
    pub const fn release_by(&self) -> UnixMillis {
        self.release_by
    }
}

/// Why a permit gives no attempt now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// A freeze is in force.
    #[error("the cluster is frozen")]
    Frozen,
    /// τ has passed.
    #[error("the entry allowed release until {release_by}, and it is {now}")]
    TooLate {
        /// Until when.
        release_by: UnixMillis,
        /// Now.
        now: UnixMillis,
    },
    /// The clock is before the entry's time by more than the tolerance.
    #[error("the entry is of {at}, and it is only {now}")]
    TooEarly {
        /// The entry's time.
        at: UnixMillis,
        /// Now.
        now: UnixMillis,
    },
    /// This boot is not its node's current one.
    #[error("this boot is not the current boot of its node")]
    NotCurrent,
    /// The participants are not exactly t different nodes of the roster with this one among them.
    #[error("the participants are not exactly {threshold} different nodes, this one among them")]
    WrongParticipants {
        /// t.
        threshold: u64,
    },
    /// The key is not live.
    #[error("key `{key}` is not live")]
    NotLive {
        /// The key.
        key: KeyName,
    },
    /// A participant's current boot has no share of the key's current epoch.
    #[error("node `{node}` holds no share of epoch {epoch} of key `{key}`")]
    WithoutShare {
        /// The node.
        node: NodeName,
        /// The key.
        key: KeyName,
        /// Its current epoch.
        epoch: u64,
    },
    /// The attempt's number was used, or is beyond the last.
    #[error("attempt {number} is not fresh: the next is {next} of {MAX_ATTEMPTS}")]
    AttemptUsed {
        /// The number asked for.
        number: u8,
        /// The next that may be used.
        next: u8,
    },
    /// The signature is known already.
    #[error("the entry is signed already")]
    AlreadySigned,
}

impl Permit {
    /// The entry's index.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }
    /// The entry's hash.
    #[must_use]
    pub const fn entry(&self) -> Hash32 {
        self.entry
    }
    /// Which request.
    #[must_use]
    pub const fn request(&self) -> (CredentialId, RequestId) {
        (self.credential, self.request_id)
    }
    /// The entry's time.
    #[must_use]
    pub const fn at(&self) -> UnixMillis {
        self.at
    }
    /// Until when.
    #[must_use]
    pub const fn release_by(&self) -> UnixMillis {
        self.release_by
    }
    /// The key.
    #[must_use]
    pub const fn key(&self) -> &KeyName {
        &self.key
    }
    /// The key's scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// The grant that allowed it.
    #[must_use]
    pub const fn grant(&self) -> &GrantId {
        &self.grant
    }
    /// What was charged for it.
    #[must_use]
    pub fn charges(&self) -> &[Charge] {
        &self.charges
    }
    /// The lowest fresh number from `least` on; [`MAX_ATTEMPTS`] if there is none.
    #[must_use]
    pub fn next_attempt(&self, least: u8) -> u8 {
        (least..MAX_ATTEMPTS).find(|number| self.is_fresh(*number)).unwrap_or(MAX_ATTEMPTS)
    }

    fn is_fresh(&self, number: u8) -> bool {
        self.used.get(usize::from(number)) == Some(&false)
    }

    /// Leave for attempt `number` among `participants` at `now`, this node's own clock.
    ///
    /// # Errors
    /// If the applied state does not allow it now. Asking does not use the number up unless it
    /// succeeds.
    pub fn attempt(
        &mut self,
        state: &State,
        me: &BootId,
        participants: &[NodeName],
        number: u8,
        now: UnixMillis,
    ) -> Result<Attempt, PermitError> {
        if state.is_frozen() && !casemate_proto::sabotaged!("freeze_ignored") {
            return Err(PermitError::Frozen);
        }
        if now > self.release_by {
            return Err(PermitError::TooLate { release_by: self.release_by, now });
        }
        if now.saturating_add(state.manifest().limits.delta) < self.at {
            return Err(PermitError::TooEarly { at: self.at, now });
        }
        if state.is_signed(&self.credential, &self.request_id) {
            return Err(PermitError::AlreadySigned);
        }
        let what = (self.index, self.entry, &self.key, &self.path);
        let binding = bind(state, me, participants, what, number)?;
        // whoever leads names the number, so a high one must not use up those below it
        let used = self.used.get_mut(usize::from(number)).filter(|used| !**used);
        let Some(used) = used else {
            return Err(PermitError::AttemptUsed { number, next: self.next_attempt(0) });
        };
        *used = true;
        Ok(Attempt {
            binding,
            scheme: self.scheme,
            digest: self.digest,
            release_by: self.release_by,
        })
    }
}

/// What a run for an entry is bound to, by the state as it is: index, entry, key and path are the
/// entry's.
pub(crate) fn bind(
    state: &State,
    me: &BootId,
    participants: &[NodeName],
    (index, entry, key, path): (u64, Hash32, &KeyName, &DerivationPath),
    attempt: u8,
) -> Result<RunBinding, PermitError> {
    let epoch = state.key_epoch(key).ok_or_else(|| PermitError::NotLive { key: key.clone() })?;
    let participants = current_participants(state, me, participants)?;
    if let Some((node, _)) = participants.iter().find(|(node, _)| !state.is_holder(key, node)) {
        let (node, key) = (node.clone(), key.clone());
        return Err(PermitError::WithoutShare { node, key, epoch });
    }
    Ok(RunBinding {
        genesis: state.genesis(),
        incarnation: state.incarnation(),
        index,
        entry,
        key: key.clone(),
        epoch,
        path: path.clone(),
        participants,
        attempt,
    })
}

/// Exactly t different nodes of the roster with their current boots, `me` among them.
///
/// # Errors
/// If they are not.
pub fn current_participants(
    state: &State,
    me: &BootId,
    participants: &[NodeName],
) -> Result<Vec<(NodeName, BootId)>, PermitError> {
    let threshold = state.manifest().threshold;
    let wrong = PermitError::WrongParticipants { threshold };
    let different: BTreeSet<&NodeName> = participants.iter().collect();
    if different.len() != participants.len()
        || u64::try_from(participants.len()).unwrap_or(0) != threshold
    {
        return Err(wrong);
    }
    let current: Option<Vec<(NodeName, BootId)>> = different
        .into_iter()
        .map(|name| state.current_boot(name).map(|boot| (name.clone(), boot)))
        .collect();
    let current = current.ok_or_else(|| wrong.clone())?;
    let takes_part = current.iter().any(|(_, boot)| boot == me);
    if takes_part || casemate_proto::sabotaged!("fenced_boot_permitted") {
        Ok(current)
    } else if state.is_current(me) {
        Err(wrong)
    } else {
        Err(PermitError::NotCurrent)
    }
}
