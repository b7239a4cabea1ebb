//! The tables, and the document that keeps them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_proto::Scheme;

use crate::cluster::{Idle, NODES, THRESHOLD};
use crate::figures::{Hundredths, each, mebibytes, millis};
use crate::library::Measured;
use crate::load::Load;
use crate::restart::Restart;
use crate::scheme::{asked, library, title};
use crate::trips::Trips;
use crate::{BenchError, chart};

/// Between these lines of the document stand the figures.
const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";
/// The drawing, beside the document.
const DRAWING: &str = "performance.svg";

/// Where it was measured: as little as absolute times need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// How many cores there are to use.
    pub cores: usize,
    /// Their architecture.
    pub architecture: &'static str,
    /// How many threads wanted a core at the beginning, on average over a minute: above a fraction of
    /// one, others were at work.
    pub load: Option<String>,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let load = fs::read_to_string("/proc/loadavg").ok();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            architecture: std::env::consts::ARCH,
            load: load.and_then(|text| text.split_ascii_whitespace().next().map(str::to_owned)),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores of {}", self.cores, self.architecture)?;
        match &self.load {
            Some(load) => write!(f, ", with a load of {load} when it began"),
            None => Ok(()),
        }
    }
}

/// What a scheme costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Which.
    pub scheme: Scheme,
    /// The bare library.
    pub library: Measured,
    /// The whole system.
    pub loads: Vec<Load>,
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Whether it was a smoke run.
    pub quick: bool,
    /// What the cluster uses idle.
    pub idle: Option<Idle>,
    /// CPU time.
    pub costs: Vec<Cost>,
    /// The delay one way.
    pub delay: Duration,
    /// Round trips.
    pub trips: Vec<Trips>,
    /// How long the bare protocol takes in one process, without what can be made before.
    pub bare: Vec<(Scheme, Duration)>,
    /// A node that is killed and started again.
    pub restart: Option<Restart>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Three nodes, of which two sign, on one machine: {}.", self.machine)?;
        if self.quick {
            writeln!(f, "A smoke run: too little was measured for these to mean much.")?;
        }
        if let Some(idle) = &self.idle {
            self.costs(idle, f)?;
            self.loads(f)?;
        }
        if !self.trips.is_empty() {
            self.near(f)?;
            self.round_trips(f)?;
        }
        self.restart(f)
    }
}

impl Report {
    fn costs(&self, idle: &Idle, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n### CPU time of one signature\n\n\
             | scheme | at a time | **whole system ÷ library** | whole system | library | signatures \
             | pairs of triples for each |\n\
             |---|--:|--:|--:|--:|--:|--:|"
        )?;
        for cost in &self.costs {
            for load in &cost.loads {
                let system = load.each(idle.within(load.time));
                let ratio = Hundredths::of(system, cost.library.each());
                let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.to_string());
                let pairs = Hundredths::of_counts(load.pairs, u64::from(load.signatures));
                let pairs = pairs.filter(|_| cost.scheme == Scheme::EcdsaSecp256k1);
                let pairs = pairs.map_or_else(|| "–".to_owned(), |pairs| pairs.to_string());
                writeln!(
                    f,
                    "| {} | {} | **{ratio}** | {} | {} | {} | {pairs} |",
                    title(cost.scheme),
                    load.at_once,
                    millis(system),
                    millis(cost.library.each()),
                    load.signatures,
                )?;
            }
        }
        let processes = NODES.saturating_mul(2);
        let second = each(idle.cpu, u32::try_from(idle.time.as_millis()).unwrap_or(1));
        writeln!(
            f,
            "\nIdle, the {processes} processes together use {} of CPU time in a second, measured over {} s \
             beforehand; it is taken off.",
            millis(second.saturating_mul(1_000)),
            idle.time.as_secs(),
        )?;
        for cost in &self.costs {
            writeln!(
                f,
                "{}: {}; the library is {}, among {THRESHOLD} parties.  ",
                title(cost.scheme),
                asked(cost.scheme),
                library(cost.scheme),
            )?;
        }
        Ok(())
    }

    fn restart(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(restart) = &self.restart else { return Ok(()) };
        writeln!(
            f,
            "\n### A node that is killed and started again\n\n\
             | entries in the ledger | member again after | its share of every key after | signed by the \
             others meanwhile |\n\
             |--:|--:|--:|--:|\n\
             | {} | {} | {} | {} |",
            restart.entries,
            millis(restart.member),
            millis(restart.whole),
            restart.signatures,
        )
    }

    fn loads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n### Under load\n\n\
             | scheme | at a time | signatures a second | latency, median | 99 of 100 within | memory of an \
             enclave | of a parent |\n\
             |---|--:|--:|--:|--:|--:|--:|"
        )?;
        for (cost, load) in self.costs.iter().flat_map(|c| c.loads.iter().map(move |l| (c, l))) {
            let throughput = load.throughput().map_or_else(|| "–".to_owned(), |t| t.to_string());
            writeln!(
                f,
                "| {} | {} | {throughput} | {} | {} | {} MiB | {} MiB |",
                title(cost.scheme),
                load.at_once,
                millis(load.latency.half),
                millis(load.latency.most),
                mebibytes(load.memory.enclave),
                mebibytes(load.memory.parent),
            )?;
        }
        writeln!(f, "\n![Throughput, latency and memory under load]({DRAWING})")
    }

    fn near(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n### Latency without delay, of one request at rest\n\n\
             | scheme | asked at | bare protocol | median | **added** | 99 of 100 within | **added** |\n\
             |---|---|--:|--:|--:|--:|--:|"
        )?;
        for trips in &self.trips {
            let of_scheme = self.bare.iter().find(|(scheme, _)| *scheme == trips.scheme);
            let bare = of_scheme.map_or(Duration::ZERO, |(_, bare)| *bare);
            writeln!(
                f,
                "| {} | {} | {} | {} | **{}** | {} | **{}** |",
                title(trips.scheme),
                trips.at.title(),
                millis(bare),
                millis(trips.near.half),
                millis(trips.near.half.saturating_sub(bare)),
                millis(trips.near.most),
                millis(trips.near.most.saturating_sub(bare)),
            )?;
        }
        Ok(())
    }

    fn round_trips(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n### Round trips of one request at rest\n\n\
             | scheme | asked at | **round trips**, median | fastest | slowest | without delay | with {} ms \
             one way |\n\
             |---|---|--:|--:|--:|--:|--:|",
            self.delay.as_millis(),
        )?;
        for trips in &self.trips {
            writeln!(
                f,
                "| {} | {} | **{}** | {} | {} | {} | {} |",
                title(trips.scheme),
                trips.at.title(),
                trips.middle,
                trips.least,
                trips.most,
                millis(trips.near.half),
                millis(trips.far),
            )?;
        }
        Ok(())
    }

    /// Puts the tables in their place in the document, and the drawing beside it.
    ///
    /// # Errors
    /// If it is not there, has no such place, or cannot be written.
    pub fn write(&self, document: &Path) -> Result<(), BenchError> {
        let failed = |reason: String| BenchError::Document { path: document.to_owned(), reason };
        let text = fs::read_to_string(document).map_err(|error| failed(error.to_string()))?;
        let new = replaced(&text, &self.to_string())
            .ok_or_else(|| failed(format!("it has no lines `{BEGIN}` and `{END}`")))?;
        fs::write(document, new).map_err(|error| failed(error.to_string()))?;
        let path = document.with_file_name(DRAWING);
        let failed = |error: std::io::Error| BenchError::Document {
            path: path.clone(),
            reason: error.to_string(),
        };
        fs::write(&path, chart::drawn(&self.costs)).map_err(failed)
    }
}

/// The document that keeps the figures.
#[must_use]
pub fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PERFORMANCE.md")
}

fn replaced(text: &str, figures: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Memory;
    use crate::figures::Within;
    use crate::trips::At;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn report() -> Report {
        let load = |at_once| Load {
            signatures: 10,
            at_once,
            cpu: ms(4_000),
            time: ms(20_000),
            signing: ms(15_000),
            pairs: 11,
            latency: Within { half: ms(1_500), most: ms(1_900) },
            memory: Memory { enclave: 30 << 20, parent: 12 << 20 },
        };
        let library = Measured { signatures: 4, cpu: ms(600) };
        let scheme = Scheme::EcdsaSecp256k1;
        Report {
            machine: Machine { cores: 2, architecture: "x86_64", load: None },
            quick: false,
            idle: Some(Idle { cpu: ms(400), time: ms(8_000) }),
            costs: vec![Cost { scheme, library, loads: vec![load(1), load(16)] }],
            delay: ms(40),
            trips: vec![Trips {
                scheme,
                at: At::Leader,
                middle: Hundredths(250),
                least: Hundredths(200),
                most: Hundredths(350),
                near: Within { half: ms(30), most: ms(42) },
                far: ms(230),
            }],
            bare: vec![(scheme, ms(10))],
            restart: Some(Restart {
                entries: 100_001,
                member: ms(2_500),
                whole: ms(4_000),
                signatures: 77,
            }),
        }
    }

    #[test]
    fn table_has_the_ratio_of_what_is_left_without_idle_time() {
        let text = report().to_string();
        // (4000 − 400·20/8) / 10 = 300 ms over 600 / 4 = 150 ms
        let row = "| ECDSA | 16 | **2.00** | 300 ms | 150 ms | 10 | 1.10 |";
        assert!(text.lines().any(|line| line == row), "{text}");
        assert!(text.contains("50.0 ms of CPU time in a second"), "{text}");
        let row = "| ECDSA | leader | **2.50** | 2.00 | 3.50 | 30.0 ms | 230 ms |";
        assert!(text.lines().any(|line| line == row), "{text}");
        assert!(!text.contains("smoke"), "{text}");
        let row = "| ECDSA | 16 | 0.67 | 1500 ms | 1900 ms | 30 MiB | 12 MiB |";
        assert!(text.lines().any(|line| line == row), "{text}");
        let row = "| 100001 | 2500 ms | 4000 ms | 77 |";
        assert!(text.lines().any(|line| line == row), "{text}");
        let row = "| ECDSA | leader | 10.0 ms | 30.0 ms | **20.0 ms** | 42.0 ms | **32.0 ms** |";
        assert!(text.lines().any(|line| line == row), "{text}");
    }

    #[test]
    fn figures_replace_those_before_and_nothing_else() {
        let text = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nmore\n");
        let new = replaced(&text, "\nnew\n").unwrap();
        assert_eq!(new, format!("# Title\n\n{BEGIN}\nnew\n{END}\n\nmore\n"));
        assert_eq!(replaced(&new, "new"), Some(new));
        assert_eq!(replaced("no place", "new"), None);
    }

    #[test]
    fn document_has_a_place_for_the_figures() {
        let text = fs::read_to_string(document()).unwrap();
        assert!(replaced(&text, "x").is_some());
    }
}
