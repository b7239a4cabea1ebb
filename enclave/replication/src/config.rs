//! How replication works, and its times.

use casemate_proto::Millis;

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
    /// For nodes within a few tens of milliseconds of each other.
    #[must_use]
    pub const fn near() -> Self {
        Self { heartbeat: Millis(150), election_min: Millis(600), election_max: Millis(1_200) }
    }

    /// For nodes on several continents: round trips of up to half a second.
    #[must_use]
    pub const fn far() -> Self {
        Self { heartbeat: Millis(600), election_min: Millis(2_000), election_max: Millis(4_000) }
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
    pub const fn new(delta: Millis) -> Self {
        Self {
            timing: Timing::near(),
            delta,
            gone_after: Millis(2_000),
            kept_entries: 50_000,
            kept_bytes: 64 * 1024 * 1024,
        }
    }
}
