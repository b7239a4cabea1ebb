//! `casemate-parent`: what stands between an enclave and the world.
//!
//! Status 0: told to stop; 1: could not start or go on; 2: wrong usage or configuration.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use casemate_relay::{Config, Parent, StartError, told_to_stop};
use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What stands between an enclave and the world: peer relay, request API, auditors' store.
#[derive(Parser)]
#[command(name = "casemate-parent", version)]
struct Cli {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How the log is written, to standard error.
    #[arg(long, value_enum, default_value_t = Log::Text)]
    log: Log,
    /// What is logged: `error`, `warn`, `info`, `debug`, or by module.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Wrong usage or configuration, as clap has it.
const USAGE: u8 = 2;

fn fail(status: u8, line: &dyn core::fmt::Display) -> ExitCode {
    // nothing is left to tell it to if this fails
    let _ = writeln!(std::io::stderr(), "casemate-parent: {line}");
    ExitCode::from(status)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = match cli.log_level.parse::<EnvFilter>() {
        Ok(filter) => filter,
        Err(error) => return fail(USAGE, &format_args!("`--log-level`: {error}")),
    };
    let config = match Config::read(&cli.config) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log {
        Log::Text => log.with_ansi(false).init(),
        Log::Json => log.json().init(),
    }
    let tasks = match casemate_relay::tasks() {
        Ok(tasks) => tasks,
        Err(error) => return fail(1, &format_args!("cannot start: {error}")),
    };
    match tasks.block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

async fn serve(config: Config) -> Result<(), StartError> {
    let told = told_to_stop().map_err(StartError::Signals)?;
    let parent = Parent::bind(config).await?;
    parent.run(told).await
}
