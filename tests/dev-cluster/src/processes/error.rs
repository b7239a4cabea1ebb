//! Why a cluster of processes does not start, or does not do what it is told.

use std::io;
use std::path::{Path, PathBuf};

use casemate_proto::NodeName;

use super::Part;

/// Why not. Each is one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// There is something in the folder, and it is no cluster's.
    #[error("`{}` is not empty and not the folder of a cluster; nothing in it was touched", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// There is no cluster in the folder.
    #[error("`{}` is not the folder of a cluster: it has no `{missing}`", path.display())]
    NoCluster {
        /// The folder.
        path: PathBuf,
        /// The file that a cluster's has.
        missing: &'static str,
    },
    /// A file of the folder is not what was written there.
    #[error("`{}` is not what `casemate-dev up` writes: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A cluster runs in the folder.
    #[error("a cluster runs in `{}` already: {what} is process {pid}", path.display())]
    Running {
        /// The folder.
        path: PathBuf,
        /// Which process of it was found.
        what: String,
        /// Its id.
        pid: u32,
    },
    /// A cluster ran in the folder and has stopped.
    #[error(
        "the cluster in `{}` has stopped, and its keys are gone from the memory of its enclaves: `casemate recover` \
         brings it back from what they sealed, and `--fresh` removes it and starts another",
        path.display()
    )]
    Stopped {
        /// The folder.
        path: PathBuf,
    },
    /// There is no such node.
    #[error("there is no node `{name}`; there are {known}")]
    NoNode {
        /// What was asked for.
        name: String,
        /// The nodes.
        known: String,
    },
    /// A process of a node is there already.
    #[error("the {part} of node `{node}` runs already: process {pid}")]
    PartRuns {
        /// The node.
        node: NodeName,
        /// Enclave or parent.
        part: Part,
        /// Its id.
        pid: u32,
    },
    /// A process of a node is not there.
    #[error("the {part} of node `{node}` does not run")]
    PartStopped {
        /// The node.
        node: NodeName,
        /// Enclave or parent.
        part: Part,
    },
    /// A process ended that must not.
    #[error("the {part} of node `{node}` ended ({how}): {last}; its log is `{}`", log.display())]
    Ended {
        /// The node.
        node: NodeName,
        /// Enclave or parent.
        part: Part,
        /// With which status.
        how: String,
        /// The last line of its log.
        last: String,
        /// The log.
        log: PathBuf,
    },
    /// A process cannot be told to end.
    #[error("process {pid} cannot be stopped: {error}")]
    Signal {
        /// Which.
        pid: u32,
        /// Why.
        error: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start `{}`: {error}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Ports cannot be had.
    #[error("port {port} of 127.0.0.1 cannot be listened on: {error}")]
    Port {
        /// Which; 0 for any.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// More ports were asked for than there are.
    #[error("there are not {needed} ports from {first} on")]
    Ports {
        /// The first.
        first: u16,
        /// How many are needed.
        needed: usize,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} `{}`: {error}", path.display())]
    File {
        /// `read`, `write`, ….
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The path is too long for a node's socket.
    #[error("`{}` is too long a path: with a node's socket in it at most {most} bytes are possible", path.display())]
    LongPath {
        /// The folder.
        path: PathBuf,
        /// Most bytes of it.
        most: usize,
    },
    /// A process cannot do its work.
    #[error("the {part} of node `{node}`: {error}")]
    Serve {
        /// The node.
        node: NodeName,
        /// Enclave or parent.
        part: Part,
        /// Why.
        error: String,
    },
    /// A parent's configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// Something took too long.
    #[error("{what} after {seconds} s{hint}")]
    Patience {
        /// What did not come about.
        what: String,
        /// How long was waited.
        seconds: u64,
        /// Where to look, with a leading separator; or nothing.
        hint: String,
    },
    /// The runtime does not start.
    #[error("the runtime cannot start: {0}")]
    Runtime(io::Error),
    /// Whoever started this said to stop.
    #[error("stopped before it was ready")]
    Interrupted,
    /// The root of AWS, which is part of the verifier.
    #[error(transparent)]
    Root(#[from] casemate_attestation_verify::RootError),
    /// The simulated security module.
    #[error("simulated NSM: {0}")]
    Sim(#[from] casemate_sim::SimError),
}

impl DevError {
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { what, path, error }
    }
}
