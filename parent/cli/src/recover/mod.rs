//! `casemate recover`: a cluster again out of what its nodes sealed, after a majority of its enclaves was lost.
//!
//! ```text
//! operator   prepare    tells each node's folder which incarnation its next enclave is to begin
//! enclaves   start, attest themselves for that one recovery, and offer themselves
//! operator   certify    takes up the newest sound ledger, picks each node's blob, draws the certificate up: a BUNDLE
//! governors  sign       k of m, each with a durable record of what it signed
//! governors  release    k of m, each its part of each blob, encrypted to the boots that are named
//! operator   start      hands certificate, ledger, blob and releases to each node
//! governors  unfreeze   (`casemate unfreeze`): until then nothing is signed
//! ```
//!
//! Nobody in this list believes the one before: governors check again what the operator drew up, enclaves what
//! the governors signed. What is written is there whole or not at all.

mod boots;
mod bundle;
mod certify;
mod describe;
mod error;
mod files;
mod governor;
mod key;
mod ledger;
mod node;
mod prepare;
mod record;
mod release;
mod sign;
mod start;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use casemate_proto::{GenesisId, UnixMillis};
use clap::{Args, Subcommand};

pub use self::error::RecoverError;
pub use self::key::RecoveryKey;
pub use self::record::Record;

use crate::online::{self, CliError, ClusterArgs, DONE};

/// The arguments of `casemate recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(subcommand)]
    command: RecoverCommand,
}

#[derive(Debug, Subcommand)]
enum RecoverCommand {
    /// A governor's recovery key: its public half goes into the manifest, in the order of the governors.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// A governor's record of the certificates that it has signed: without it nothing is signed.
    #[command(subcommand)]
    Record(record::RecordCommand),
    /// Operator, at each node: the enclave that is started next is to begin another incarnation.
    Prepare(prepare::PrepareArgs),
    /// Operator: take up the newest ledger, and draw up the certificate that governors sign.
    Certify(certify::CertifyArgs),
    /// Governor: check a certificate and sign it; never a second one for an incarnation.
    Sign(sign::SignArgs),
    /// Governor: release one's part of what is sealed, to the boots that a signed certificate names.
    Release(release::ReleaseArgs),
    /// Operator: hand everything over; the enclaves check it all and begin, frozen.
    Start(start::StartArgs),
    /// Operator: a node that has not begun is to join the incarnation that the others have begun.
    Join(prepare::JoinArgs),
    /// Show what a bundle holds, and check it.
    Show(describe::ShowArgs),
}

/// Runs `casemate recover`.
pub(crate) fn run(args: RecoverArgs) -> ExitCode {
    let outcome = match args.command {
        RecoverCommand::Key(command) => key::run(&command),
        RecoverCommand::Record(command) => record::run(&command),
        RecoverCommand::Prepare(args) => prepare::run(&args),
        RecoverCommand::Certify(args) => certify::run(&args),
        RecoverCommand::Sign(args) => sign::run(&args),
        RecoverCommand::Release(args) => release::run(&args),
        RecoverCommand::Start(args) => start::run(&args),
        RecoverCommand::Join(args) => prepare::join(&args),
        RecoverCommand::Show(args) => describe::run(&args),
    };
    online::finish(false, outcome.map(|()| DONE).map_err(CliError::from))
}

/// Which cluster is meant: known from elsewhere, and from nothing that is to be checked.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pin {
    /// The cluster's genesis id.
    #[arg(long, value_name = "HEX", value_parser = GenesisId::from_hex, conflicts_with = "cluster")]
    genesis: Option<GenesisId>,
    /// The cluster file, which pins it [default: the environment's CASEMATE_CLUSTER]. Nothing is
    /// asked of the cluster.
    #[arg(long, value_name = "FILE")]
    cluster: Option<std::path::PathBuf>,
}

impl Pin {
    fn file(&self) -> Result<Option<casemate_client::ClusterFile>, RecoverError> {
        Ok(ClusterArgs::of_file(self.cluster.clone()).file()?)
    }

    fn genesis(&self) -> Result<GenesisId, RecoverError> {
        match self.genesis {
            Some(genesis) => Ok(genesis),
            None => Ok(self.file()?.ok_or(RecoverError::NotPinned)?.genesis_id),
        }
    }
}

fn now() -> Result<UnixMillis, RecoverError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| RecoverError::Clock)?;
    u64::try_from(since.as_millis()).map(UnixMillis).map_err(|_| RecoverError::Clock)
}
