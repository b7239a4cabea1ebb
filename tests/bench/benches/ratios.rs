//! `cargo bench -p casemate-bench`: see the library.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;
use std::time::Instant;

use casemate_bench::{BenchError, Options, report, run};
use casemate_dev::demo::Tell;
use clap::Parser as _;

/// Whoever waits reads standard error, so that standard output is the tables. Each line begins with the
/// seconds since the start.
struct Progress {
    started: Instant,
}

impl Tell for Progress {
    fn progress(&mut self, line: &str) {
        let _ = writeln!(stderr(), "{:>4} s  {line}", self.started.elapsed().as_secs());
    }
    fn say(&mut self, line: &str) {
        self.progress(line);
    }
}

fn main() -> ExitCode {
    // `cargo test --benches` starts every benchmark without a word, to see that it starts
    if std::env::args_os().len() == 1 {
        let _ = writeln!(stdout(), "measures when `cargo bench -p casemate-bench` starts it");
        return ExitCode::SUCCESS;
    }
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), BenchError> {
    let mut progress = Progress { started: Instant::now() };
    let report = run(options, &mut progress)?;
    let _ = writeln!(stdout(), "{report}");
    progress.progress("done");
    if options.write {
        report.write(&report::document())?;
        progress.progress("wrote docs/PERFORMANCE.md");
    }
    Ok(())
}
