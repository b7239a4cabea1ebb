//! Time: the leader stamps entries, and no node follows a leader whose clock runs ahead.
//!
//! A stamp more than δ ahead of a node's own clock is refused before Raft sees it, and with it
//! everything of that leader in that term, heartbeats included. So the leader loses those who refuse
//! it, and with a majority of them its place. Late stamps are accepted: what they allow dies by τ.
//!
//! Where no majority refuses it, it was the refusing node's clock that ran behind. So a refusal ends
//! after a while: otherwise that node would follow nobody until the leader happens to change, however
//! right its clock is again by then.

use std::sync::{Mutex, PoisonError};

use casemate_proto::{BootId, Millis, UnixMillis};

use crate::wire::{Append, Content};

/// How long a leader's term is refused. A leader that a majority refuses has lost its place long before.
pub(crate) const REFUSED_FOR: Millis = Millis(10_000);

/// Reads this node's clock.
pub trait ReadClock: Send + Sync {
    /// Now.
    fn now(&self) -> UnixMillis;
}

/// An entry was stamped too far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AheadOfTime {
    pub(crate) at: UnixMillis,
    pub(crate) now: UnixMillis,
}

/// Whom this node does not follow for its clock.
#[derive(Debug)]
pub(crate) struct Stamps {
    delta: Millis,
    refused: Mutex<Option<(u64, BootId, AheadOfTime)>>,
}

impl Stamps {
    pub(crate) const fn new(delta: Millis) -> Self {
        Self { delta, refused: Mutex::new(None) }
    }

    /// Whether this leader's term is refused, by its stamps now or before.
    ///
    /// # Errors
    /// With the stamp that was refused.
    pub(crate) fn check(&self, append: &Append, now: UnixMillis) -> Result<(), AheadOfTime> {
        if casemate_proto::sabotaged!("leaders_clock_trusted") {
            return Ok(());
        }
        self.check_leader(append.vote.term, append.vote.boot, now)?;
        let latest = now.saturating_add(self.delta);
        let ahead = append.entries.iter().find_map(|entry| match &entry.content {
            Content::Ledger(payload) if payload.entry().at > latest => Some(payload.entry().at),
            _ => None,
        });
        let Some(at) = ahead else { return Ok(()) };
        let found = AheadOfTime { at, now };
        tracing::warn!(
            leader = %append.vote.boot, term = append.vote.term, stamp = at.0, clock = now.0,
            "an entry is stamped ahead of time: its leader is not followed any more"
        );
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((append.vote.term, append.vote.boot, found));
        Err(found)
    }

    /// The term whose leader was refused last.
    pub(crate) fn refused_term(&self) -> Option<u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).map(|(term, _, _)| term)
    }

    /// Whether this leader's term was refused a short while ago, by this node's own clock.
    ///
    /// # Errors
    /// With the stamp that was refused.
    pub(crate) fn check_leader(
        &self,
        term: u64,
        boot: BootId,
        now: UnixMillis,
    ) -> Result<(), AheadOfTime> {
        // one is enough to remember: a later refusal is of a later term, and Raft itself refuses the
        // terms before the one it is in
        match *self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((refused_term, refused, found))
                if (refused_term, refused) == (term, boot)
                    && now.since(found.now) < REFUSED_FOR =>
            {
                Err(found)
            }
            _ => Ok(()),
        }
    }
}
