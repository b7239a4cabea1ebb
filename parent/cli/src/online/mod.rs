//! The commands that ask a cluster: which one, how long, and what is said of it.
//!
//! A cluster is named by `--cluster FILE`, by the environment's `CASEMATE_CLUSTER`, or by `--genesis`,
//! `--trust-root` and one `--node` for each node. Nothing a node says is printed that was not
//! verified, unless the line says so.

pub(crate) mod approve;
pub(crate) mod attest;
pub(crate) mod credential;
pub(crate) mod fetch;
pub(crate) mod freeze;
pub(crate) mod govern;
pub(crate) mod keys;
pub(crate) mod out;
pub(crate) mod policy;
mod progress;
pub(crate) mod requests;
pub(crate) mod sign;
pub(crate) mod status;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use casemate_attestation_verify::{AWS_NITRO_ENCLAVES_G1_PEM, RootError, TrustRoot};
use casemate_client::credential::Credential;
use casemate_client::{
    Client, ClientError, Cluster, ClusterError, ClusterFile, ClusterFileError, CredentialFileError,
    Endpoint, NodeFailure, Role, SignError, Unsettled, files,
};
use casemate_proto::{GenesisId, Millis, NodeName};
use clap::Args;
use thiserror::Error;

/// Names the cluster file where `--cluster` does not.
const CLUSTER_VARIABLE: &str = "CASEMATE_CLUSTER";
/// Most bytes of a root certificate.
const MAX_ROOT: usize = 64 * 1024;

/// Status: not reachable, or not in time.
pub(crate) const NOT_REACHED: u8 = 4;
/// Status: it waits for approval.
pub(crate) const PENDING: u8 = 3;
/// Status: the policy denies it.
pub(crate) const DENIED: u8 = 2;
/// Status: anything else that is wrong.
pub(crate) const FAILED: u8 = 1;
/// Status: done.
pub(crate) const DONE: u8 = 0;

/// Which cluster is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArgs {
    /// The cluster file [default: the environment's CASEMATE_CLUSTER].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node", "genesis", "trust_root"])]
    cluster: Option<PathBuf>,
    /// A node's URL, or NAME=URL; once for each node.
    #[arg(long, value_name = "URL", requires = "genesis")]
    node: Vec<String>,
    /// The cluster's genesis id.
    #[arg(long, value_name = "HEX", value_parser = GenesisId::from_hex, requires = "node")]
    genesis: Option<GenesisId>,
    /// The attestation root: a certificate's file, or its SHA-256 fingerprint [default: AWS's].
    #[arg(long, value_name = "FILE|HEX", requires = "genesis")]
    trust_root: Option<String>,
}

/// Which cluster is asked, and which node of it.
#[derive(Clone, Debug, Args)]
pub(crate) struct OneNodeArgs {
    /// The cluster file [default: the environment's CASEMATE_CLUSTER].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["genesis", "trust_root"])]
    cluster: Option<PathBuf>,
    /// Which node: its name or URL in the cluster file, or with `--genesis` any URL.
    #[arg(long, value_name = "NAME|URL")]
    node: Option<String>,
    /// The cluster's genesis id.
    #[arg(long, value_name = "HEX", value_parser = GenesisId::from_hex, requires = "node")]
    genesis: Option<GenesisId>,
    /// The attestation root: a certificate's file, or its SHA-256 fingerprint [default: AWS's].
    #[arg(long, value_name = "FILE|HEX", requires = "genesis")]
    trust_root: Option<String>,
}

impl OneNodeArgs {
    /// From a cluster file or the environment, and a node of it.
    pub(crate) const fn of(cluster: Option<PathBuf>, node: Option<String>) -> Self {
        Self { cluster, node, genesis: None, trust_root: None }
    }

    /// Reads what names the cluster, and finds the node where one is named.
    pub(crate) fn open(&self) -> Result<(Session, Option<usize>), CliError> {
        let by_flags = self.genesis.is_some();
        let cluster = ClusterArgs {
            cluster: self.cluster.clone(),
            node: self.node.iter().filter(|_| by_flags).cloned().collect(),
            genesis: self.genesis,
            trust_root: self.trust_root.clone(),
        };
        let session = cluster.open()?;
        let at = match &self.node {
            Some(_) if by_flags => Some(0),
            Some(name) => Some(session.client.find(name)?),
            None => None,
        };
        Ok((session, at))
    }
}

/// Why a command did not come to a good end.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    #[error(
        "no cluster is named: give `--cluster FILE`, set `{CLUSTER_VARIABLE}`, or give `--genesis` and `--node`"
    )]
    NoCluster,
    #[error(transparent)]
    File(#[from] ClusterFileError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("`--trust-root`: {0}")]
    Root(#[from] RootError),
    #[error("`--trust-root`: {0}")]
    RootFile(files::ReadError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Credential(#[from] CredentialFileError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("`{input}`: {reason}")]
    Input { input: String, reason: String },
    #[error("{0}")]
    Usage(String),
    #[error("not done: it was not confirmed")]
    NotConfirmed,
    #[error("cannot write `{}`: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("cannot print: {0}")]
    Json(#[from] serde_json::Error),
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Recover(Box<crate::recover::RecoverError>),
}

impl CliError {
    pub(crate) fn input(input: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Input { input: input.to_string(), reason: reason.to_string() }
    }

    /// The exit status: see the program's head.
    pub(crate) fn status(&self) -> u8 {
        let silent = |failures: &[NodeFailure]| {
            !failures.is_empty() && failures.iter().all(|failure| failure.fault.is_silence())
        };
        match self {
            Self::Client(error) => match error {
                ClientError::Denied(_)
                | ClientError::DeniedForNow { .. }
                | ClientError::Refused(_)
                | ClientError::WouldBeDenied(_) => DENIED,
                ClientError::NotSettled { last: Unsettled::Pending, .. } => PENDING,
                ClientError::NotSettled { last: Unsettled::Denied(_), .. } => DENIED,
                ClientError::NotSettled { .. } | ClientError::NotSeen { .. } => NOT_REACHED,
                ClientError::TooFewNodes { failures, .. }
                | ClientError::NoGenesis { failures, .. }
                    if silent(failures) =>
                {
                    NOT_REACHED
                }
                ClientError::Node(failure) if failure.fault.is_silence() => NOT_REACHED,
                _ => FAILED,
            },
            _ => FAILED,
        }
    }
}

/// A cluster that is asked, and what its file holds beside it.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) file: Option<ClusterFile>,
}

impl ClusterArgs {
    /// The one of a cluster file, or of the environment.
    pub(crate) const fn of_file(cluster: Option<PathBuf>) -> Self {
        Self { cluster, node: Vec::new(), genesis: None, trust_root: None }
    }

    /// Reads what names the cluster. Asks nothing.
    pub(crate) fn open(&self) -> Result<Session, CliError> {
        let settings = casemate_client::Settings::default();
        if let Some(genesis) = self.genesis {
            let endpoints =
                self.node.iter().map(|text| endpoint(text)).collect::<Result<_, _>>()?;
            let cluster = Cluster::new(genesis, self.root()?, endpoints)?;
            return Ok(Session { client: Client::new(cluster, settings)?, file: None });
        }
        let file = self.file()?.ok_or(CliError::NoCluster)?;
        let client = Client::new(Cluster::from_file(&file)?, settings)?;
        Ok(Session { client, file: Some(file) })
    }

    /// The cluster file alone, if one is named.
    pub(crate) fn file(&self) -> Result<Option<ClusterFile>, CliError> {
        let path = self.cluster.clone().or_else(variable);
        Ok(path.map(|path| ClusterFile::load(&path)).transpose()?)
    }

    fn root(&self) -> Result<TrustRoot, CliError> {
        let Some(text) = &self.trust_root else {
            return Ok(TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM)?);
        };
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut fingerprint = [0; 32];
        if hex::decode_to_slice(digits, &mut fingerprint).is_ok() {
            return Ok(TrustRoot::from_fingerprint(fingerprint));
        }
        let bytes = files::read(Path::new(text), MAX_ROOT).map_err(CliError::RootFile)?;
        Ok(match std::str::from_utf8(&bytes) {
            Ok(text) => TrustRoot::from_pem(text)?,
            Err(_) => TrustRoot::from_der(&bytes)?,
        })
    }
}

/// Whether the environment names a cluster file.
pub(crate) fn is_cluster_in_environment() -> bool {
    variable().is_some()
}

fn variable() -> Option<PathBuf> {
    std::env::var_os(CLUSTER_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

pub(crate) fn endpoint(text: &str) -> Result<Endpoint, CliError> {
    let (name, url) = match text.split_once('=') {
        Some((name, url)) if !name.contains('/') => {
            let name = NodeName::new(name).map_err(|error| CliError::input(text, error))?;
            (Some(name), url)
        }
        _ => (None, text),
    };
    Ok(Endpoint::new(name, url)?)
}

impl Session {
    /// The credential that is meant: a key file, or a principal's in the cluster file.
    pub(crate) fn credential(
        &self,
        file: Option<&Path>,
        principal: Option<&str>,
        role: Role,
    ) -> Result<Credential, CliError> {
        credential(self.file.as_ref(), file, principal, role)
    }
}

/// The same without a cluster to ask.
pub(crate) fn credential(
    cluster: Option<&ClusterFile>,
    file: Option<&Path>,
    principal: Option<&str>,
    role: Role,
) -> Result<Credential, CliError> {
    match (file, principal) {
        (Some(path), _) => Ok(Credential::load(path)?),
        (None, Some(principal)) => match cluster {
            Some(cluster) => Ok(cluster.credential(principal, Some(role))?),
            None => Err(CliError::Usage(format!(
                "`{principal}`: without a cluster file that holds its credential, give a key file"
            ))),
        },
        (None, None) => Err(CliError::Usage("no credential is named".to_owned())),
    }
}

/// Runs what asks a cluster, and prints the error if there is one.
pub(crate) fn run<F>(json: bool, command: F) -> ExitCode
where
    F: Future<Output = Result<u8, CliError>>,
{
    let outcome =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => {
                let outcome = runtime.block_on(async {
                    tokio::select! {
                        outcome = command => outcome,
                        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
                    }
                });
                // what is still asked is not waited for
                runtime.shutdown_background();
                outcome
            }
            Err(error) => Err(CliError::Runtime(error)),
        };
    finish(json, outcome)
}

/// The exit status of an outcome; prints the error if it is one.
pub(crate) fn finish(json: bool, outcome: Result<u8, CliError>) -> ExitCode {
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // nothing is left to tell it to if this fails
            let _ = out::error(&error, json);
            ExitCode::from(error.status())
        }
    }
}

/// Parses a length of time, such as `30s`.
pub(crate) fn parse_length(text: &str) -> Result<Millis, String> {
    Millis::from_text(text).map_err(|error| error.to_string())
}

pub(crate) const fn duration(length: Millis) -> Duration {
    Duration::from_millis(length.0)
}
