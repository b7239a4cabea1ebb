//! `casemate-dev`: a local cluster and the demo.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use casemate_dev::demo::{DemoError, Options, Tell, run};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "casemate-dev", version, about = "A local Casemate cluster, and what it does.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the main job: payments signed and denied, approvals, an attack, the audit.
    ///
    /// Starts a cluster in this process, with keys that it generates among its nodes and forgets
    /// when it ends, and goes through seven steps. Exits with 0 only if every check holds.
    Demo(DemoArgs),
}

#[derive(Args)]
struct DemoArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: u16,
    /// How many of them must sign; more than half of them if not said.
    #[arg(long, value_name = "T")]
    threshold: Option<u16>,
    /// Print the report as JSON, and nothing else, on standard output.
    #[arg(long)]
    json: bool,
    /// Leave the auditor's store in this folder, which must be empty or new.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// Progress goes to standard error, the story to standard output unless that is for JSON.
struct Terminal {
    json: bool,
    since: Instant,
}

impl Tell for Terminal {
    fn progress(&mut self, line: &str) {
        // where both streams are one terminal, the story itself shows how far it is
        if self.json || !std::io::stdout().is_terminal() {
            err(&format!("{} {line}", seconds(self.since.elapsed())));
        }
    }
    fn say(&mut self, line: &str) {
        if !self.json {
            out(line);
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version come as errors too, and are none
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let Command::Demo(args) = cli.command;
    match demo(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            err(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn demo(args: DemoArgs) -> Result<bool, DemoError> {
    let majority = (args.nodes / 2).saturating_add(1);
    let options = Options::new(args.nodes, args.threshold.unwrap_or(majority), args.store)?;
    let mut terminal = Terminal { json: args.json, since: Instant::now() };
    let report = run(&options, &mut terminal)?;
    let failed: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    if args.json {
        out(&serde_json::to_string_pretty(&report)?);
    } else {
        let (checks, took) = (report.checks.len(), terminal.since.elapsed());
        out(&format!(
            "\n{checks} checks, {} failed, {} s",
            failed.len(),
            seconds(took).trim_start()
        ));
    }
    for check in &failed {
        err(&format!("failed: {}", check.name));
    }
    Ok(failed.is_empty())
}

fn seconds(time: Duration) -> String {
    format!("{:>4}.{}", time.as_secs(), time.subsec_millis() / 100)
}

// a reader that has gone away (`| head`) wants no more of it, and that is no reason to stop

fn out(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn err(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
