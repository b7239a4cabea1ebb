//! Heartbeats that nobody waits for.
//!
//! openraft sends one append at a time to each follower and waits for its answer, a heartbeat's too.
//! An entry that comes a moment after a heartbeat would wait for a whole round trip before it is
//! sent. So a heartbeat to a follower that answered well a moment ago counts as answered when it is
//! sent. Its own answer is noted when it comes; one that is not a plain yes, or none at all for two
//! heartbeats' time, and the next heartbeat is waited for again.
//!
//! Nothing is committed by it: a heartbeat acknowledges no entry that was not acknowledged before.
//! What becomes less exact, by those two heartbeats, is how old a leader's majority is said to be.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_proto::BootId;
use tokio::time::Instant;

use crate::types::LogPosition;

/// What is known of one follower in one term.
#[derive(Clone, Copy, Debug)]
struct Follower {
    term: u64,
    /// When it last said yes.
    answered: Instant,
    /// The number of the heartbeat whose answer is still to come.
    beat: Option<u64>,
    /// Up to where it was told, or knows by itself, that the log is committed.
    told: Option<LogPosition>,
}

/// What is known of the followers.
#[derive(Debug)]
pub(crate) struct Beats {
    followers: Mutex<BTreeMap<BootId, Follower>>,
    patience: Duration,
}

impl Beats {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self { followers: Mutex::default(), patience: heartbeat.saturating_mul(2) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BootId, Follower>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A follower said yes to an append of this term that was waited for.
    pub(crate) fn answered(&self, of: BootId, term: u64, told: Option<LogPosition>) {
        let mut followers = self.lock();
        followers.retain(|_, follower| follower.term == term);
        let now = Instant::now();
        let fresh = Follower { term, answered: now, beat: None, told };
        let follower = followers.entry(of).or_insert(fresh);
        follower.answered = now;
        follower.told = follower.told.max(told);
    }

    /// Whether a follower said yes in this term a moment ago.
    pub(crate) fn is_there(&self, of: &BootId, term: u64) -> bool {
        self.lock().get(of).is_some_and(|follower| {
            follower.term == term && follower.answered.elapsed() <= self.patience
        })
    }

    /// Whether a follower was not told of this yet; from now on it was.
    pub(crate) fn tell(&self, of: &BootId, committed: Option<LogPosition>) -> bool {
        let mut followers = self.lock();
        let Some(follower) = followers.get_mut(of) else { return true };
        let is_news = follower.told < committed;
        follower.told = follower.told.max(committed);
        is_news
    }

    /// A heartbeat goes out that nobody waits for.
    pub(crate) fn sent(&self, of: &BootId, id: u64) {
        if let Some(follower) = self.lock().get_mut(of) {
            follower.beat = Some(id);
        }
    }

    /// An answer came that nobody waits for. Whether it was a heartbeat's.
    pub(crate) fn take(&self, of: &BootId, id: u64, is_yes: bool) -> bool {
        let mut followers = self.lock();
        let Some(follower) = followers.get_mut(of).filter(|f| f.beat == Some(id)) else {
            return false;
        };
        follower.beat = None;
        follower.answered = Instant::now();
        if !is_yes {
            followers.remove(of);
        }
        true
    }

    /// Its channel went down.
    pub(crate) fn forget(&self, of: &BootId) {
        self.lock().remove(of);
    }
}
