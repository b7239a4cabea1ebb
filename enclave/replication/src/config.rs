//! How replication works, and its times.

use casemate_proto::Millis;

/// The longest round trip that times are made for.
const LONGEST_ROUND_TRIP: Millis = Millis(2_000);
/// More often than this nobody needs to say that it is there.
const SHORTEST_HEARTBEAT: Millis = Millis(150);

/// Raft's times.
///
/// openraft gives each append one heartbeat's time for its answer, so a heartbeat must be longer than
/// a round trip between any two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader says that it is there.
    pub heartbeat: Millis,
    /// A node waits at least so long for a leader before it stands for election itself.
    pub election_min: Millis,
    /// And at most so long; each node draws its own time between the two.
    pub election_max: Millis,
}

impl Timing {
    /// For nodes whose round trips take at most so long, with as much again and a little more to spare.
    /// What is said to lie between them is held to at most two seconds.
    #[must_use]
    pub fn for_round_trip(round_trip: Millis) -> Self {
        let heartbeat =
            round_trip.min(LONGEST_ROUND_TRIP).saturating_mul(2).max(SHORTEST_HEARTBEAT);
        Self {
            heartbeat,
            election_min: heartbeat.saturating_mul(4),
            election_max: heartbeat.saturating_mul(8),
        }
    }

    /// For nodes within a few tens of milliseconds of each other.
    #[must_use]
    pub fn near() -> Self {
        Self::for_round_trip(Millis(75))
    }

    /// For nodes on several continents: round trips of up to 300 milliseconds.
    #[must_use]
    pub fn far() -> Self {
        Self::for_round_trip(Millis(300))
    }

    /// The same, so many times slower: for machines that are emulated or shared.
    #[must_use]
    pub const fn slower(self, factor: u64) -> Self {
        Self {
            heartbeat: self.heartbeat.saturating_mul(factor),
            election_min: self.election_min.saturating_mul(factor),
            election_max: self.election_max.saturating_mul(factor),
        }
    }
}

/// How replication works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Raft's times.
    pub timing: Timing,
    /// δ: how far ahead of this node's clock an entry's stamp may lie.
    pub delta: Millis,
    /// How long a node's boot must have been out of reach before another is admitted in its place.
    pub gone_after: Millis,
    /// Most entries of the log that are kept once they are applied. A node that lacks more than these
    /// comes back as a new boot.
    pub kept_entries: usize,
    /// Most bytes of them.
    pub kept_bytes: usize,
}

impl Config {
    /// The usual settings for this δ.
    #[must_use]
    pub fn new(delta: Millis) -> Self {
        Self {
            timing: Timing::near(),
            delta,
            gone_after: Millis(2_000),
            kept_entries: 50_000,
            kept_bytes: 64 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_outlasts_the_round_trip_and_an_election_several_heartbeats() {
        for round_trip in [0, 1, 75, 76, 230, 300, 2_000] {
            let timing = Timing::for_round_trip(Millis(round_trip));
            assert!(timing.heartbeat.0 > round_trip && timing.heartbeat.0 >= 150);
            assert!(timing.election_min.0 >= timing.heartbeat.0 * 4);
            assert!(timing.election_max.0 >= timing.election_min.0 + timing.heartbeat.0);
        }
    }

    #[test]
    fn what_a_host_says_of_the_round_trip_makes_no_endless_election() {
        let timing = Timing::for_round_trip(Millis(u64::MAX));
        assert_eq!(timing, Timing::for_round_trip(Millis(2_000)));
        assert!(timing.election_max.0 <= 32_000);
    }
}
