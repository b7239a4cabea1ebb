//! What may be chosen, and how much is measured.

use std::time::Duration;

use casemate_proto::Scheme;
use clap::{Parser, ValueEnum};

use crate::scheme;

/// Measures what the whole system costs over the bare libraries, what it does under load, and how many
/// round trips a signature takes. Prints tables; takes about fifteen minutes where nothing else runs.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo bench -p casemate-bench --", version)]
pub struct Options {
    /// A few signatures of each kind, to see that it works. Its figures mean little.
    #[arg(long)]
    pub quick: bool,
    /// Put the tables and the drawing into docs/.
    #[arg(long, conflicts_with = "quick")]
    pub write: bool,
    /// Requests under way at one time, one measurement for each number.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 4, 16, 64, 256],
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: Vec<u32>,
    /// What bytes take one way between two parents when round trips are counted, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 40,
          value_parser = clap::value_parser!(u64).range(10..=60))]
    pub delay_ms: u64,
    /// What is measured.
    #[arg(long, value_name = "PART,…", value_delimiter = ',', conflicts_with = "write",
          default_values_t = [Part::Load, Part::Latency, Part::Restart])]
    pub parts: Vec<Part>,
    /// The schemes that are measured: `ecdsa`, `ed25519`, `bip340`.
    #[arg(long, value_name = "SCHEME,…", value_delimiter = ',', conflicts_with = "write",
          value_parser = scheme::named, default_values = ["ecdsa", "ed25519", "bip340"])]
    pub schemes: Vec<Scheme>,
    /// Signatures of a scheme without triples in one measurement of CPU time; of one with triples it is
    /// an eighth of that.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=100_000))]
    pub signatures: Option<u32>,
    /// Entries in the ledger when a node is restarted.
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=190_000))]
    pub entries: u64,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU time, throughput, latency and memory with so many requests at a time.
    Load,
    /// Latency at rest, without delay and in round trips.
    Latency,
    /// How long a node is away that is killed and started again.
    Restart,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Latency => "latency",
            Self::Restart => "restart",
        })
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Signatures of each scheme before anything is measured.
    pub warm_up: u32,
    /// How long the idle cluster is looked at.
    pub idle: Duration,
    /// CPU time of the bare library, each time.
    pub library: Duration,
    /// Requests of which latencies are taken without delay and with it, of a scheme that needs triples and
    /// of one that does not: multiples of three, since three nodes take turns to lead a signature.
    near: (u32, u32),
    far: (u32, u32),
    ecdsa: u32,
    frost: u32,
}

impl Options {
    /// The delay one way.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// How much is measured.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let sizes = self.usual_sizes();
        match self.signatures {
            Some(frost) => Sizes { ecdsa: frost / 8, frost, ..sizes },
            None => sizes,
        }
    }

    const fn usual_sizes(&self) -> Sizes {
        let millis = Duration::from_millis;
        if self.quick {
            Sizes {
                warm_up: 1,
                idle: millis(2_000),
                library: millis(300),
                near: (3, 3),
                far: (3, 3),
                ecdsa: 3,
                frost: 20,
            }
        } else {
            Sizes {
                warm_up: 12,
                idle: millis(8_000),
                library: millis(1_000),
                near: (30, 102),
                far: (6, 9),
                ecdsa: 36,
                frost: 300,
            }
        }
    }
}

impl Sizes {
    /// How many signatures are asked for, so many at one time. Enough that a tick of the CPU clock,
    /// which is 10 ms, is little beside what they take.
    #[must_use]
    pub fn signatures(&self, scheme: Scheme, at_once: u32) -> u32 {
        let count = if scheme == Scheme::EcdsaSecp256k1 { self.ecdsa } else { self.frost };
        count.max(at_once.saturating_mul(if scheme == Scheme::EcdsaSecp256k1 { 2 } else { 6 }))
    }

    /// How many latencies are taken without delay.
    #[must_use]
    pub fn near(&self, scheme: Scheme) -> u32 {
        Self::of(self.near, scheme)
    }

    /// How many latencies are taken with the delay.
    #[must_use]
    pub fn far(&self, scheme: Scheme) -> u32 {
        Self::of(self.far, scheme)
    }

    fn of((with_triples, without): (u32, u32), scheme: Scheme) -> u32 {
        if scheme == Scheme::EcdsaSecp256k1 { with_triples } else { without }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_one_that_clap_takes() {
        Options::command().debug_assert();
        let options = Options::parse_from(["x", "--bench"]);
        assert_eq!(options.concurrency, [1, 4, 16, 64, 256]);
        assert_eq!(options.schemes, scheme::SCHEMES);
        assert_eq!(options.parts, [Part::Load, Part::Latency, Part::Restart]);
        let options = Options::parse_from(["x", "--parts", "latency", "--schemes", "bip340"]);
        assert_eq!(options.schemes, [Scheme::Bip340Secp256k1]);
        assert_eq!(options.parts, [Part::Latency]);
        assert!(Options::try_parse_from(["x", "--schemes", "rsa"]).is_err());
        let options = Options::parse_from(["x", "--concurrency", "2,8", "--bench", "--quick"]);
        assert_eq!(options.concurrency, [2, 8]);
        assert!(Options::try_parse_from(["x", "--quick", "--write"]).is_err());
        assert!(Options::try_parse_from(["x", "--concurrency", "0"]).is_err());
    }
}
