//! `casemate`: the operator's and the auditor's tool.
//!
//! Status 0: done; 1: error, usage included; 2: denied by policy; 3: pending approval.

mod attest;
mod audit;
mod policy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The operator's and the auditor's tool.
#[derive(Parser)]
#[command(name = "casemate", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Attestation documents of Nitro enclaves.
    Attest(attest::AttestArgs),
    /// The audit log of a cluster, from its store, offline.
    Audit(audit::AuditArgs),
    /// Policies: lint, bounds, diff, simulate, hash.
    Policy(policy::PolicyArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell it to if this fails.
            let _ = error.print();
            // clap's own status for usage is 2, which here means denied by policy.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Attest(args) => attest::run(args),
        Command::Audit(args) => audit::run(&args),
        Command::Policy(args) => policy::run(args),
    }
}
