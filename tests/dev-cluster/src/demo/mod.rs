//! The demo: a cluster from its genesis to an audited log, in seven steps that a newcomer can
//! follow, and that a program can check from the report.

pub mod bounds;
pub mod cluster;
mod images;
mod local;
pub mod payloads;
pub mod people;
pub mod policy;
mod processes;
pub mod proof;
pub mod report;
pub mod session;
pub(crate) mod setup;
pub mod steps;
pub mod temporary;

pub use images::{run_images, run_refusal};

use std::path::PathBuf;

use casemate_audit::{CheckpointError, NoteError, RecordError};
use casemate_client::{CredentialFileError, SignError};
use casemate_policy::PolicyErrors;
use casemate_proto::Millis;
use casemate_proto::ids::IdError;
use casemate_tx::SignatureError;

use report::{BootReport, ClusterReport, KeyReport, ProcessesReport, Report, SCHEMA};
use session::Session;

use crate::processes::Program;

/// What may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many nodes.
    pub nodes: u16,
    /// How many of them sign.
    pub threshold: u16,
    /// Where the auditor's store is left; nowhere if `None`.
    pub store: Option<PathBuf>,
}

/// How long after its entry a signature may still be made, in the demo's clusters: a slow machine
/// signs late rather than never.
pub(crate) const TAU: Millis = Millis(60_000);
/// The same where nodes are processes. What a hostile network keeps from being signed is known to be
/// expired only after it.
pub(crate) const TAU_OF_PROCESSES: Millis = Millis(30_000);
/// The same where nodes are images in emulated machines.
pub(crate) const TAU_OF_IMAGES: Millis = Millis(300_000);
/// How far the clocks of such nodes may be apart: an emulated machine begins with a battery clock, which
/// counts seconds.
pub(crate) const DELTA_OF_IMAGES: Millis = Millis(10_000);
/// Most nodes that the demo starts in one process.
pub const MAX_NODES: u16 = 7;

impl Options {
    /// Checks the numbers.
    ///
    /// # Errors
    /// Naming the one that is wrong.
    pub fn new(nodes: u16, threshold: u16, store: Option<PathBuf>) -> Result<Self, DemoError> {
        let wrong = |option, given, reason: String| {
            Err(DemoError::Option { option, given: u64::from(given), reason })
        };
        if !(3..=MAX_NODES).contains(&nodes) {
            return wrong(
                "--nodes",
                nodes,
                format!(
                    "3 to {MAX_NODES} nodes are started: with fewer, none may fail; more is for real machines"
                ),
            );
        }
        if threshold < 2 {
            return wrong(
                "--threshold",
                threshold,
                "one node could sign alone; at least 2".to_owned(),
            );
        }
        if threshold >= nodes {
            return wrong(
                "--threshold",
                threshold,
                format!(
                    "with {nodes} nodes it is at most {}, so that one may fail",
                    nodes.saturating_sub(1)
                ),
            );
        }
        // the ledger needs a majority, and so many nodes must be left when one has stopped
        Ok(Self { nodes, threshold, store })
    }
}

/// Why the demo cannot go on. What it shows to be wrong is no error but a check that fails.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A number that no cluster can have.
    #[error("`{option} {given}`: {reason}")]
    Option {
        /// Which option.
        option: &'static str,
        /// What was given.
        given: u64,
        /// Why not.
        reason: String,
    },
    /// Something that was expected is not there.
    #[error("there is no {what} `{name}`")]
    Missing {
        /// What.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// All nodes were stopped.
    #[error("no node runs any more")]
    NoNode,
    /// The cluster did not do what it must.
    #[error("the cluster {what}")]
    Cluster {
        /// What happened.
        what: String,
    },
    /// The cluster in this process.
    #[error(transparent)]
    InProcess(#[from] crate::in_process::ClusterError),
    /// The cluster's processes.
    #[error(transparent)]
    Processes(#[from] crate::processes::DevError),
    /// What was asked of the cluster by way of the client.
    #[error(transparent)]
    Client(Box<casemate_client::ClientError>),
    /// The cluster file.
    #[error(transparent)]
    ClusterFile(#[from] casemate_client::ClusterFileError),
    /// A file of the store.
    #[error("`{}`: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The policy.
    #[error("the demo's policy is wrong:\n{0}")]
    Policy(#[from] PolicyErrors),
    /// A key.
    #[error(transparent)]
    Credential(#[from] CredentialFileError),
    /// A governor's file for recoveries.
    #[error(transparent)]
    Recovery(Box<casemate_cli::recover::RecoverError>),
    /// A signature with one.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A key's point.
    #[error(transparent)]
    Key(#[from] SignatureError),
    /// A name.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Where what is said goes.
pub trait Tell {
    /// How far it is: for somebody who waits.
    fn progress(&mut self, line: &str);
    /// What happens and what it means: for somebody who reads.
    fn say(&mut self, line: &str);
}

/// What the nodes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Threads of this process.
    InProcess,
    /// An enclave and a parent each, which this program becomes.
    Processes(Program),
}

/// Runs the demo.
///
/// # Errors
/// If it cannot go on; what it finds wrong is in the report's checks.
pub fn run(options: &Options, mode: &Mode, tell: &mut dyn Tell) -> Result<Report, DemoError> {
    if let Some(folder) = &options.store {
        crate::store::check_empty(folder)?;
    }
    match mode {
        Mode::InProcess => {
            let people = people::People::new()?;
            tell.progress(&format!("starts {} nodes and their genesis", options.nodes));
            let mut nodes = local::InProcess::up(options, &people)?;
            show(&mut nodes, &people, options, tell)
        }
        Mode::Processes(program) => processes::run(options, program, tell),
    }
}

fn show(
    nodes: &mut dyn cluster::Nodes,
    people: &people::People,
    options: &Options,
    tell: &mut dyn Tell,
) -> Result<Report, DemoError> {
    let policy = policy::policy(people, nodes.now())?;
    let bounds = bounds::of(&policy, &nodes.manifest(), nodes.now());
    let names: Vec<String> = nodes.names().iter().map(ToString::to_string).collect();
    let scope = nodes.scope();
    let threshold = nodes.threshold();
    tell.say(&format!("{threshold} of {} nodes sign: {}", names.len(), names.join(", ")));
    tell.say(&format!("genesis {} · policy {}", scope.genesis, policy.policy_hash()));
    setup::confirm(nodes, people, &policy, tell)?;
    setup::create_keys(nodes, people, &policy::KEYS, &|| false, tell)?;
    let mut session = Session::new(nodes, people, tell)?;
    let keys: Vec<KeyReport> = session.keys().values().map(KeyReport::from).collect();
    session.say("keys, generated among the nodes: no node ever has a whole one");
    for key in &keys {
        let known_by = key.address.as_ref().unwrap_or(&key.public_key);
        session.say(format!("  {}: {} {known_by}", key.name, key.scheme));
    }
    steps::payment::run(&mut session)?;
    steps::denials::run(&mut session)?;
    steps::settlement::run(&mut session)?;
    let network = if session.nodes().faults().is_some() {
        steps::restart::run(&mut session)?;
        Some(steps::network::run(&mut session)?)
    } else {
        None
    };
    steps::approval::run(&mut session)?;
    steps::dangerous::run(&mut session)?;
    let spoils = steps::attack::run(&mut session)?;
    let attack = steps::attack::beside_bounds(&mut session, spoils, &bounds)?;
    let audited = steps::audit::run(&mut session, &bounds, options.store.as_deref())?;
    let boots: Vec<BootReport> = session.cosigners().iter().map(BootReport::from).collect();
    let (requests, checks) = session.into_parts();
    Ok(Report {
        schema: SCHEMA,
        cluster: ClusterReport {
            genesis_id: scope.genesis.to_hex(),
            incarnation: scope.incarnation.0,
            threshold,
            nodes: names,
        },
        keys,
        requests,
        bounds: bounds.into_iter().map(|bound| bound.report).collect(),
        attack,
        checkpoint: audited.checkpoint,
        cosigners: boots.iter().map(|boot| boot.cosigner.clone()).collect(),
        checks,
        processes: network.map(|network| ProcessesReport { boots, network }),
    })
}
