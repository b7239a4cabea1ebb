//! `casemate audit`: what an auditor does with a store folder, offline.
//!
//! `verify` believes nothing in the folder: it executes the log again from its genesis, and checks
//! every hash and signature. The one thing that the folder cannot vouch for is which cluster it is
//! of: that is the genesis id, which the auditor must know from elsewhere. Without it, the command
//! says that the store agrees with itself and no more.
//!
//! With `--cluster` the store is fetched from a node first, the genesis id is the pinned one, and the
//! heads that the nodes' enclaves sign now are looked for in it.
//!
//! Status 0 only if what was asked for was done and nothing was found; 4 if no node can be reached; 1
//! otherwise.

mod custody;
mod folder;
mod live;
mod print;
mod show;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_attestation_verify::{RootError, TrustRoot};
use casemate_audit::reconcile::{Seen, SeenError, reconcile};
use casemate_audit::store::GENESIS;
use casemate_audit::{Expectations, Report, StoreRead, verify_store};
use casemate_ledger::StateError;
use casemate_ledger::replay::Replayer;
use casemate_proto::manifest::MAX_GENESIS;
use casemate_proto::{GenesisId, Hash32, ids::parse_hex};
use clap::{Args, Subcommand};
use thiserror::Error;

pub(crate) use self::folder::Folder;
use self::folder::FolderError;
use self::live::{Compared, Live};
pub(crate) use self::show::each_leaf;
use crate::online::{self, CliError, OneNodeArgs};

/// Most bytes of a list of what was seen on a chain.
const MAX_SEEN_BYTES: u64 = 256 * 1024 * 1024;

/// Most bytes of a root as PEM.
const MAX_ROOT_BYTES: u64 = 16 * 1024;

/// The arguments of `casemate audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Verify a store: every record executed again, every hash and signature checked.
    ///
    /// Status 0 only if nothing was found. Give --genesis: without it the store is shown to agree
    /// with itself, not to be of your cluster.
    Verify(VerifyArgs),
    /// Show the records of a store, without verifying them.
    Show(show::ShowArgs),
    /// Name what was seen on a chain and has no record.
    ///
    /// The store is verified first. Status 0 only if it is sound and everything seen has a record.
    Reconcile(ReconcileArgs),
    /// Answer the five questions: who holds each share; whether the application server can sign
    /// alone; what it can sign once compromised; where custody sits; how the owner leaves.
    ///
    /// The store is verified first.
    Custody(CustodyArgs),
    /// Copy a node's store over HTTP; a copy that was broken off goes on.
    Fetch(online::fetch::FetchArgs),
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// The store: a folder with `genesis.cbor`, `checkpoint` and `tile/`. With `--cluster`: where to
    /// keep the copy.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The cluster's genesis id, known from elsewhere.
    #[arg(long, value_name = "HEX", value_parser = GenesisId::from_hex, conflicts_with = "cluster")]
    genesis: Option<GenesisId>,
    /// Fetch the store of a node of this cluster first [default without `--store`: the environment's
    /// CASEMATE_CLUSTER].
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Which node's store to fetch: its name or URL in the cluster file.
    #[arg(long, value_name = "NAME|URL", conflicts_with = "genesis")]
    node: Option<String>,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The log's own key, if known.
    #[arg(long, value_name = "HEX", value_parser = parse_log_key)]
    log_key: Option<LogKey>,
    /// Refuse a newest checkpoint that the log's own key did not sign.
    #[arg(long)]
    require_log_signature: bool,
    /// Ask for more cosigners of each checkpoint than the cluster's threshold.
    #[arg(long, value_name = "NUMBER")]
    min_cosigners: Option<usize>,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReconcileArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// What was seen, one a line in hex: signatures (64 or 65 bytes), hashes of transactions
    /// (32 bytes) or signed EVM transactions; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    seen: PathBuf,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CustodyArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Of a cluster under a simulated root: that root, PEM, to say which image each node attests. It shows
    /// no hardware. Nitro enclaves are judged under the root of AWS, whatever is given.
    #[arg(long, value_name = "FILE")]
    trust_root: Option<PathBuf>,
    /// Print the answers as JSON.
    #[arg(long)]
    json: bool,
}

/// A key given in hex.
#[derive(Clone, Copy, Debug)]
struct LogKey([u8; 32]);

fn parse_log_key(text: &str) -> Result<LogKey, casemate_proto::ids::IdError> {
    parse_hex("log key", text).map(LogKey)
}

/// Why the command did not come to a good end.
#[derive(Debug, Error)]
pub(crate) enum AuditError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("`{path}` is missing: is that a store's folder?")]
    Missing { path: String },
    #[error("`{path}`: {error}")]
    Genesis { path: String, error: StateError },
    #[error("the store is of cluster {found}, not {expected}")]
    OtherCluster { expected: GenesisId, found: GenesisId },
    #[error("cannot read `{path}`: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error("`{path}` line {line}: {error}")]
    Seen { path: String, line: usize, error: SeenError },
    #[error("`{path}` names nothing")]
    NothingSeen { path: String },
    #[error("`{path}`: {error}")]
    Root { path: String, error: RootError },
    #[error("the manifest names another root, with the fingerprint {manifest}")]
    OtherRoot { manifest: Hash32 },
    #[error("the store's checkpoint: {0}")]
    Checkpoint(#[from] casemate_audit::CheckpointError),
    #[error("`{path}`: {error}")]
    Tile { path: String, error: casemate_audit::tile::TileError },
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("no store is named: give `--store DIR`, or `--cluster FILE` to fetch one")]
    NoStore,
    #[error(transparent)]
    Online(#[from] CliError),
}

impl AuditError {
    fn status(&self) -> u8 {
        match self {
            Self::Online(error) => error.status(),
            _ => online::FAILED,
        }
    }
}

/// Runs `casemate audit`.
pub(crate) fn run(args: AuditArgs) -> ExitCode {
    let (outcome, json) = match args.command {
        AuditCommand::Verify(args) => (run_verify(&args), args.json),
        AuditCommand::Show(args) => (show::run(&args), args.is_json()),
        AuditCommand::Reconcile(args) => (run_reconcile(&args), args.json),
        AuditCommand::Custody(args) => (run_custody(&args), args.json),
        AuditCommand::Fetch(args) => return online::fetch::run(args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // nothing is left to tell it to if this fails
            let _ = print::error(&error, json);
            ExitCode::from(error.status())
        }
    }
}

/// A store with the ledger at its genesis, ready to execute the log again.
struct Opened {
    folder: Folder,
    replayer: Replayer,
    /// Whether the genesis id was given, and not taken from the store itself.
    pinned: bool,
    /// Where it was fetched from.
    live: Option<Live>,
}

fn open(args: &StoreArgs) -> Result<Opened, AuditError> {
    let live = match (&args.store, &args.cluster, &args.node) {
        (Some(_), None, None) => None,
        (None, None, _) if !online::is_cluster_in_environment() => return Err(AuditError::NoStore),
        (keep, cluster, node) => {
            let node = OneNodeArgs::of(cluster.clone(), node.clone());
            Some(Live::fetch(&node, keep.as_deref())?)
        }
    };
    let store = match (&live, &args.store) {
        (Some(live), _) => live.path().to_owned(),
        (None, Some(store)) => store.clone(),
        (None, None) => return Err(AuditError::NoStore),
    };
    let given = live.as_ref().map(Live::genesis).or(args.genesis);
    let folder = Folder::open(&store)?;
    let path = || store.join(GENESIS).display().to_string();
    let bytes =
        folder.read(GENESIS, MAX_GENESIS)?.ok_or_else(|| AuditError::Missing { path: path() })?;
    let replayer = Replayer::from_genesis(&bytes)
        .map_err(|error| AuditError::Genesis { path: path(), error })?;
    let found = replayer.state().genesis();
    if let Some(expected) = given
        && expected != found
    {
        return Err(AuditError::OtherCluster { expected, found });
    }
    Ok(Opened { folder, replayer, pinned: given.is_some(), live })
}

impl Opened {
    /// Verifies the store; the ledger is at its end afterwards, as far as it is sound.
    fn verify(&mut self, change: impl FnOnce(&mut Expectations)) -> Report {
        let mut expectations = Expectations::of(self.replayer.state().genesis());
        change(&mut expectations);
        verify_store(&self.folder, &expectations, &mut self.replayer)
    }

    /// The nodes' heads looked for in what was verified, where the store was fetched.
    fn compare(&self, report: &Report) -> Result<Option<Compared>, AuditError> {
        let Some(live) = &self.live else { return Ok(None) };
        Ok(Some(live.compare(&self.folder, report.size().unwrap_or(0))?))
    }
}

/// Whether nothing was found, in the store and beside it.
fn is_clean(report: &Report, compared: Option<&Compared>) -> bool {
    report.is_verified() && compared.is_none_or(Compared::is_one_history)
}

fn run_verify(args: &VerifyArgs) -> Result<bool, AuditError> {
    let mut opened = open(&args.store)?;
    let report = opened.verify(|expectations| {
        expectations.log_key = args.log_key.map(|key| key.0);
        expectations.require_log_signature = args.require_log_signature;
        expectations.min_cosigners = args.min_cosigners;
    });
    let compared = opened.compare(&report)?;
    print::report(&report, opened.pinned, compared.as_ref(), args.json)?;
    Ok(is_clean(&report, compared.as_ref()))
}

fn run_reconcile(args: &ReconcileArgs) -> Result<bool, AuditError> {
    let seen = read_seen(&args.seen)?;
    let mut opened = open(&args.store)?;
    let report = opened.verify(|_| ());
    let found = reconcile(seen, report.signatures());
    let compared = opened.compare(&report)?;
    print::reconciliation(&found, &report, opened.pinned, compared.as_ref(), args.json)?;
    Ok(is_clean(&report, compared.as_ref()) && found.is_clean())
}

fn read_seen(path: &Path) -> Result<Vec<Seen>, AuditError> {
    let name = path.display().to_string();
    let unreadable = |error| AuditError::Unreadable { path: name.clone(), error };
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(unreadable)?)
    };
    let mut seen = Vec::new();
    for (line, text) in (1..).zip(BufReader::new(input.take(MAX_SEEN_BYTES)).lines()) {
        let text = text.map_err(unreadable)?;
        if text.trim().is_empty() {
            continue;
        }
        let parsed = Seen::parse(&text);
        seen.push(parsed.map_err(|error| AuditError::Seen { path: name.clone(), line, error })?);
    }
    if seen.is_empty() { Err(AuditError::NothingSeen { path: name }) } else { Ok(seen) }
}

fn read_root(path: &Path) -> Result<TrustRoot, AuditError> {
    let name = path.display().to_string();
    let unreadable = |error| AuditError::Unreadable { path: name.clone(), error };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_ROOT_BYTES).read_to_string(&mut text))
        .map_err(unreadable)?;
    TrustRoot::from_pem(&text).map_err(|error| AuditError::Root { path: name, error })
}

fn run_custody(args: &CustodyArgs) -> Result<bool, AuditError> {
    let mut opened = open(&args.store)?;
    let report = opened.verify(|_| ());
    let root = args.trust_root.as_deref().map(read_root).transpose()?;
    let size = report.size().unwrap_or(0);
    let custody = custody::report(&opened.folder, &opened.replayer, size, root.as_ref())?;
    let compared = opened.compare(&report)?;
    print::custody(&custody, &report, opened.pinned, compared.as_ref(), args.json)?;
    Ok(is_clean(&report, compared.as_ref()))
}
