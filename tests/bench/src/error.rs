//! Why there are no figures. Each is one line.

use std::path::PathBuf;

use casemate_client::ClientError;
use casemate_dev::demo::DemoError;
use casemate_dev::processes::DevError;
use casemate_dev::processes::api::ApiError;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no `casemate-dev` to measure.
    #[error("there is no `casemate-dev` to measure: {reason}")]
    Program {
        /// Why.
        reason: String,
    },
    /// What a process uses cannot be read.
    #[error("CPU time and memory are not to be had, which needs Linux: `{path}`: {reason}")]
    Cpu {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The bare library failed.
    #[error("the bare library of {scheme}: {reason}")]
    Library {
        /// Which.
        scheme: &'static str,
        /// What it says.
        reason: String,
    },
    /// The cluster did not do what is measured.
    #[error("the cluster {what}")]
    Cluster {
        /// What happened.
        what: String,
    },
    /// The cluster does not come up.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Its processes.
    #[error(transparent)]
    Processes(#[from] DevError),
    /// A signature was not given.
    #[error("{scheme}: {error}")]
    Sign {
        /// Of which scheme.
        scheme: &'static str,
        /// Why.
        error: Box<ClientError>,
    },
    /// A node's API.
    #[error("node `{node}`: {error}")]
    Api {
        /// Which.
        node: String,
        /// Why.
        error: ApiError,
    },
    /// The system has no thread, socket or folder for it.
    #[error("{what}: {error}")]
    System {
        /// What for.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// Too little was measured for a ratio.
    #[error("too little was measured for a ratio: {what}")]
    TooLittle {
        /// What.
        what: String,
    },
    /// The document cannot be brought up to date.
    #[error("`{}`: {reason}", path.display())]
    Document {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
