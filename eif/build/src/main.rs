//! `casemate-eif`: builds, measures and inspects enclave images.
//!
//! Status 0: done; 1: refused, or another measurement than expected; 2: usage.

mod cli;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, measures and inspects enclave images.
#[derive(Parser)]
#[command(name = "casemate-eif", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an image: casemate.eif, measurements.json and sbom.cdx.json.
    ///
    /// The same inputs give the same bytes. Nothing is written unless all of it is.
    Build(Box<cli::build::BuildArgs>),
    /// Say what an image measures to.
    ///
    /// Status 0 only if the file is whole and, with --expect, measures to that.
    Measure(cli::read::MeasureArgs),
    /// Show an image's sections and what is in them.
    Inspect(cli::read::InspectArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let done = match cli.command {
        Command::Build(args) => cli::build::run(&args),
        Command::Measure(args) => cli::read::measure(&args),
        Command::Inspect(args) => cli::read::inspect(&args),
    };
    let said = done.and_then(|text| {
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(cli::CliError::Output)
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // nothing is left to tell it to if this fails
            let _ = writeln!(std::io::stderr().lock(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
