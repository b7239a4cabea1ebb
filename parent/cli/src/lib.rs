//! `casemate`: the operator's and the auditor's tool, as a library: the program is [`run`], and a
//! local cluster writes its governors' files with what is in [`recover`].
//!
//! Status 0: done; 1: error or finding, usage included; 2: denied by policy; 3: pending approval;
//! 4: not reachable, or not in time.

mod attest;
mod audit;
mod manifest;
mod online;
mod policy;
pub mod recover;

use std::ffi::OsString;
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
    /// Policies: lint, bounds, diff, simulate, hash; propose, sign, submit.
    Policy(policy::PolicyArgs),
    /// What a new cluster is to be: build its manifest, show it, pin the genesis that came of it.
    Manifest(manifest::ManifestArgs),
    /// The nodes of a cluster, and what it survives now.
    Status(online::status::StatusArgs),
    /// A cluster's keys: create, list.
    Keys(online::keys::KeysArgs),
    /// Ask for a signature.
    ///
    /// Status 0: signed, and its receipt verified; 2: denied; 3: waits for approval; 4: not settled in
    /// time, so ask again under the same id.
    Sign(Box<online::sign::SignArgs>),
    /// Approve a pending request, after showing what it is.
    Approve(online::approve::ApproveArgs),
    /// Requests that wait for approval, and how one stands.
    Requests(online::requests::RequestsArgs),
    /// Stop signing: one freezer can.
    Freeze(online::freeze::FreezeArgs),
    /// Lift one freeze: the governance quorum can.
    Unfreeze(online::freeze::UnfreezeArgs),
    /// Say as a freezer that somebody is there, and which waiting changes were seen.
    Heartbeat(online::freeze::HeartbeatArgs),
    /// Stop a change that waits: one freezer can.
    Veto(online::freeze::VetoArgs),
    /// Governance changes: confirm the genesis, revoke, withdraw, accept and retire images.
    Change(online::govern::ChangeArgs),
    /// Key pairs of requesters, approvers, governors and freezers.
    Credential(online::credential::CredentialArgs),
    /// Cold recovery: the cluster again, out of sealed shares, after a majority of its enclaves was lost.
    ///
    /// In this order: `prepare`, `certify`, `sign`, `release`, `start`. docs/RUNBOOK.md goes through it.
    Recover(recover::RecoverArgs),
}

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
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
        Command::Audit(args) => audit::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Manifest(args) => manifest::run(args),
        Command::Status(args) => online::status::run(args),
        Command::Keys(args) => online::keys::run(args),
        Command::Sign(args) => online::sign::run(*args),
        Command::Approve(args) => online::approve::run(args),
        Command::Requests(args) => online::requests::run(args),
        Command::Freeze(args) => online::freeze::run_freeze(args),
        Command::Unfreeze(args) => online::freeze::run_unfreeze(args),
        Command::Heartbeat(args) => online::freeze::run_heartbeat(args),
        Command::Veto(args) => online::freeze::run_veto(args),
        Command::Change(args) => online::govern::run(args),
        Command::Credential(args) => online::credential::run(&args),
        Command::Recover(args) => recover::run(args),
    }
}
