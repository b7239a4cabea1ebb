//! What a node counts, for whoever operates it. Names are of a closed list, nothing is derived
//! from a request, and nothing here decides anything.

use std::collections::BTreeMap;

use casemate_door::frame::{BUCKETS_MS, Phase};
use casemate_door::{Answer, Status};
use casemate_proto::{Millis, UnixMillis};

use crate::node::Node;
use crate::runs::Role;

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum $name { $($variant,)* }
        impl $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $text),)*];
        }
    };
}

closed_list!(
    /// What is counted.
    Count {
        Applied = "entries_applied",
        Submitted = "submissions",
        Signed = "answers_signed",
        Denied = "answers_denied",
        Pending = "answers_pending",
        Accepted = "answers_accepted",
        Expired = "answers_expired",
        Recorded = "answers_recorded",
        Unknown = "answers_unknown",
        Busy = "answers_busy",
        SignBegun = "sign_runs_begun",
        SignDone = "sign_runs_done",
        SignFailed = "sign_runs_failed",
        SignLate = "sign_runs_expired",
        TriplesBegun = "triple_runs_begun",
        TriplesDone = "triple_runs_done",
        TriplesFailed = "triple_runs_failed",
        TriplesLate = "triple_runs_expired",
        KeyBegun = "key_runs_begun",
        KeyDone = "key_runs_done",
        KeyFailed = "key_runs_failed",
        KeyLate = "key_runs_expired",
        LogBegun = "log_runs_begun",
        LogDone = "log_runs_done",
        LogFailed = "log_runs_failed",
        LogLate = "log_runs_expired",
        Recovered = "shares_recovered",
        Released = "shares_released",
        TallyRefused = "releases_refused_by_tally",
        Disputes = "root_disputes",
    }
);

closed_list!(
    /// What is timed.
    Timing {
        Answer = "submission_to_answer",
        Sign = "sign_run",
        Triples = "triple_run",
        Key = "key_run",
        Log = "log_run",
    }
);

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    Begun,
    Done,
    Failed,
    Late,
}

/// How long things of one kind took.
#[derive(Clone, Debug, Default)]
struct Durations {
    /// For each of [`BUCKETS_MS`], how many were at most that long.
    buckets: [u64; BUCKETS_MS.len()],
    count: u64,
    sum: u64,
}

/// What a node counted and timed since its boot.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    counts: BTreeMap<Count, u64>,
    timings: BTreeMap<Timing, Durations>,
}

impl Stats {
    pub(crate) fn count(&mut self, what: Count) {
        let count = self.counts.entry(what).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn time(&mut self, what: Timing, took: Millis) {
        let durations = self.timings.entry(what).or_default();
        for (bucket, most) in durations.buckets.iter_mut().zip(BUCKETS_MS) {
            *bucket = bucket.saturating_add(u64::from(took.0 <= most));
        }
        durations.count = durations.count.saturating_add(1);
        durations.sum = durations.sum.saturating_add(took.0);
    }

    pub(crate) fn answered(&mut self, answer: &Answer) {
        self.count(match answer {
            Answer::Signed(_) => Count::Signed,
            Answer::Denied(_) => Count::Denied,
            Answer::Pending(_) => Count::Pending,
            Answer::Accepted { .. } => Count::Accepted,
            Answer::Expired(_) => Count::Expired,
            Answer::Recorded { .. } => Count::Recorded,
            Answer::Unknown => Count::Unknown,
            Answer::Busy { .. } => Count::Busy,
        });
    }

    /// A run was begun, or ended after `took`.
    pub(crate) fn run(&mut self, role: &Role, went: Went, took: Millis) {
        let (counts, timing) = match role {
            Role::Sign { .. } => (
                [Count::SignBegun, Count::SignDone, Count::SignFailed, Count::SignLate],
                Timing::Sign,
            ),
            Role::Triples { .. } => (
                [Count::TriplesBegun, Count::TriplesDone, Count::TriplesFailed, Count::TriplesLate],
                Timing::Triples,
            ),
            Role::Key { .. } | Role::Test { .. } => {
                ([Count::KeyBegun, Count::KeyDone, Count::KeyFailed, Count::KeyLate], Timing::Key)
            }
            Role::Log { .. } => {
                ([Count::LogBegun, Count::LogDone, Count::LogFailed, Count::LogLate], Timing::Log)
            }
        };
        let [begun, done, failed, late] = counts;
        match went {
            Went::Begun => self.count(begun),
            Went::Done => {
                self.count(done);
                self.time(timing, took);
            }
            Went::Failed => self.count(failed),
            Went::Late => self.count(late),
        }
    }

    /// The counters, by name; all of the list, in its order.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        let of = |what| self.counts.get(what).copied().unwrap_or(0);
        Count::ALL.iter().map(|(what, name)| ((*name).to_owned(), of(what))).collect()
    }

    /// The durations in milliseconds, by name, as a [`Status`] has them.
    #[must_use]
    pub fn durations(&self) -> Vec<(String, Vec<u64>)> {
        let none = Durations::default();
        let of = |what| {
            let durations = self.timings.get(what).unwrap_or(&none);
            let mut list = durations.buckets.to_vec();
            list.extend([durations.count, durations.sum]);
            list
        };
        Timing::ALL.iter().map(|(what, name)| ((*name).to_owned(), of(what))).collect()
    }
}

impl Node {
    /// How this node is. What replication and the channels alone know (`leader`, `majority_age`) is
    /// left out, `linked` is who is not known to be gone, and a node is a member or has halted.
    #[must_use]
    pub fn status(&self, now: UnixMillis) -> Status {
        let (keys, shares) = self.keys();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut linked = self.roster.live(now);
        linked.retain(|name| name != self.roster.me());
        Status {
            phase: if self.halted { Phase::Halted } else { Phase::Member },
            boot: Some(self.boot_id),
            genesis: Some(self.state.genesis()),
            now,
            size: self.state.size(),
            published: self.published(),
            leader: None,
            majority_age: None,
            linked,
            keys,
            shares,
            triples: count(self.stocked(now)),
            frozen: self.is_frozen(),
            counters: self.stats.counters(),
            durations: self.stats.durations(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_cumulative_with_count_and_sum_last() {
        let mut stats = Stats::default();
        for took in [0, 3, 400, 60_000] {
            stats.time(Timing::Sign, Millis(took));
        }
        let all = stats.durations();
        let (_, sign) = all.iter().find(|(name, _)| name == "sign_run").unwrap();
        assert_eq!(*sign, [1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 60_403]);
        let (_, none) = all.iter().find(|(name, _)| name == "log_run").unwrap();
        assert_eq!(none.len(), BUCKETS_MS.len() + 2);
    }

    #[test]
    fn every_counter_has_a_name_of_its_own_and_begins_at_zero() {
        let names: std::collections::BTreeSet<String> =
            Stats::default().counters().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Count::ALL.len());
        assert!(Stats::default().counters().iter().all(|(_, count)| *count == 0));
    }
}
