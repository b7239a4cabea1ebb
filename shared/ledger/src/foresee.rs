//! What the next entry would allow, before it is committed.
//!
//! The leader of replication knows an entry a round trip before it knows that it is committed. What of
//! a protocol run may go ahead meanwhile (nonce commitments, a presignature: nothing that makes a
//! signature possible) needs to know what will be signed. A [`Foreseen`] says so. It is no permit and
//! becomes none: the run that it was used for waits for an [`Attempt`](crate::Attempt), which only the
//! applied entry gives, and is burned if that is bound to anything else.

use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, DerivationPath, KeyName, NodeName, Scheme, UnixMillis};

use crate::entry::{Entry, EntryBody};
use crate::permit::{PermitError, RunBinding, bind};
use crate::state::State;

/// What an entry would allow if it were the next one that is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    index: u64,
    entry: Hash32,
    key: KeyName,
    scheme: Scheme,
    path: DerivationPath,
    digest: [u8; 32],
    at: UnixMillis,
    release_by: UnixMillis,
}

impl Foreseen {
    /// Where the entry would stand.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }
    /// The entry's hash.
    #[must_use]
    pub const fn entry(&self) -> Hash32 {
        self.entry
    }
    /// The key that would sign.
    #[must_use]
    pub const fn key(&self) -> &KeyName {
        &self.key
    }
    /// By which scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// What would be signed.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }
    /// The entry's time.
    #[must_use]
    pub const fn at(&self) -> UnixMillis {
        self.at
    }
    /// Until when a share could be released.
    #[must_use]
    pub const fn release_by(&self) -> UnixMillis {
        self.release_by
    }

    /// What the first attempt among these would be bound to.
    ///
    /// # Errors
    /// As [`Permit::attempt`](crate::Permit::attempt), as far as it asks who takes part.
    pub fn binding(
        &self,
        state: &State,
        me: &BootId,
        participants: &[NodeName],
    ) -> Result<RunBinding, PermitError> {
        bind(state, me, participants, (self.index, self.entry, &self.key, &self.path), 0)
    }
}

impl State {
    /// What `entry` would allow if it were applied now: `None` unless it is a request that was not
    /// seen before and is allowed at once, and nothing else would happen before it.
    #[must_use]
    pub fn foresee(&self, entry: &Entry) -> Option<Foreseen> {
        let EntryBody::Request { stamp, body } = &entry.body else { return None };
        let now = entry.at.max(self.time);
        let limits = self.manifest.limits;
        let is_silent = limits.dead_man.is_some_and(|patience| now.since(self.heard) > patience);
        if self.version > crate::APPLY_VERSION
            || self.is_frozen()
            || is_silent
            || self.due_changes(now).next().is_some()
        {
            return None;
        }
        let (request, scheme, digest) = crate::requests::foresee_request(self, stamp, body, now)?;
        Some(Foreseen {
            index: self.size(),
            entry: entry.hash(),
            key: request.key,
            scheme,
            path: request.path,
            digest,
            at: now,
            release_by: now.saturating_add(limits.tau),
        })
    }
}
