//! `casemate policy`: reads policies and says what they mean, before governance signs them.
//!
//! Status 0: done, or allowed; 1: error, a lint error included; 2: denied; 3: pending approval.

mod output;
mod simulate;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use casemate_policy::{
    MAX_CANONICAL_BYTES, MAX_TOML_BYTES, Policy, PolicyErrors, Severity,
    bounds::{Cluster, Setting, bounds},
    diff, lint, lint_schemes,
};
use casemate_proto::{KeyName, Millis, Scheme, UnixMillis};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use thiserror::Error;

/// The arguments of `casemate policy`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

/// What is asked of a cluster, or signed for one.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    #[command(flatten)]
    Offline(OfflineCommand),
    /// Write a change that sets a policy, against what is in force; say what it tightens and loosens.
    Propose(crate::online::policy::ProposeArgs),
    /// Sign a change as a governor, offline, after showing what it is.
    Sign(crate::online::policy::SignArgs),
    /// Hand in a change with its policy and the governors' signatures, and wait until it is applied.
    Submit(crate::online::policy::SubmitArgs),
}

/// What can be asked about policies. A FILE is a policy's text (TOML), or its canonical form if it
/// ends in `.cbor`.
#[derive(Debug, Subcommand)]
pub(crate) enum OfflineCommand {
    /// Load policies and look for what contradicts itself, is never used, or is wider than it looks.
    ///
    /// Status 1 if one does not load or has an error; warnings leave it 0.
    Lint {
        /// The policies.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A key and its scheme, to look for what it never signs; as often as there are keys.
        #[arg(long = "key", value_name = "NAME=SCHEME", value_parser = parse_key)]
        keys: Vec<(KeyName, Scheme)>,
        /// The time to look from [default: this machine's clock].
        #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
        at: Option<UnixMillis>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the most that an attacker gets who has every host and every requester's credential.
    ///
    /// A figure for each key, asset and window, and until expiry; figures with approvers, with
    /// broken enclaves, and for how long a freeze can be held back where the cluster is described.
    Bounds {
        /// The policies.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The time to count from [default: this machine's clock].
        #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
        at: Option<UnixMillis>,
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compare two policies: each change, and whether it tightens or loosens.
    ///
    /// Only a closed list of changes is tightening, which does not wait for governance's delay:
    /// deleting a grant, an action, a payee, a principal or a credential, and lowering a cap.
    Diff {
        /// The policy in force.
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The policy proposed.
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Decide on a request as the enclaves would, with a given history, at a given time.
    ///
    /// Status 0: allowed; 2: denied; 3: pending approval or a delay.
    Simulate(Box<simulate::SimulateArgs>),
    /// Print the hash of each policy's canonical form: what governance signs.
    Hash {
        /// The policies.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What a cluster's manifest says that bounds depend on.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// How many nodes the cluster has.
    #[arg(long, requires = "threshold")]
    nodes: Option<u32>,
    /// How many of them sign.
    #[arg(long, requires = "nodes")]
    threshold: Option<u32>,
    /// τ: how long after its entry's time a signature may leave.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, requires = "nodes", default_value = "10s")]
    tau: Millis,
    /// δ: by how much two clocks may differ.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, requires = "nodes", default_value = "1s")]
    delta: Millis,
    /// Without a freezer's heartbeat for so long, the cluster freezes itself.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, requires = "nodes")]
    dead_man: Option<Millis>,
    /// How long the outside witnesses' lease lasts.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, requires = "nodes")]
    lease: Option<Millis>,
}

impl ClusterArgs {
    fn cluster(&self) -> Result<Option<Cluster>, PolicyCliError> {
        let (Some(nodes), Some(threshold)) = (self.nodes, self.threshold) else { return Ok(None) };
        if nodes < 3 || threshold == 0 || threshold >= nodes {
            return Err(PolicyCliError::Cluster { nodes, threshold });
        }
        Ok(Some(Cluster {
            nodes,
            threshold,
            tau: self.tau,
            delta: self.delta,
            dead_man: self.dead_man,
            lease: self.lease,
        }))
    }
}

fn parse_time(text: &str) -> Result<UnixMillis, String> {
    UnixMillis::from_rfc3339(text).map_err(|error| error.to_string())
}

fn parse_length(text: &str) -> Result<Millis, String> {
    Millis::from_text(text).map_err(|error| error.to_string())
}

fn parse_key(text: &str) -> Result<(KeyName, Scheme), String> {
    let (name, scheme) = text.split_once('=').ok_or("not of the form `name=scheme`")?;
    let name = KeyName::new(name).map_err(|error| error.to_string())?;
    let known = || Scheme::ALL.map(Scheme::name).join(", ");
    let scheme = Scheme::from_name(scheme)
        .ok_or_else(|| format!("`{scheme}` is no scheme; there are {}", known()))?;
    Ok((name, scheme))
}

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub(crate) enum PolicyCliError {
    #[error("`{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}`: {size} bytes or more where at most {max} are read", path.display())]
    TooLarge { path: PathBuf, size: u64, max: usize },
    #[error("`{}`: not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("`{}` is not a policy:\n{source}", path.display())]
    Policy { path: PathBuf, source: PolicyErrors },
    #[error("threshold {threshold} of {nodes} nodes: a cluster has at least 3, and more than sign")]
    Cluster { nodes: u32, threshold: u32 },
    #[error("`{}`: {reason}", path.display())]
    Input { path: PathBuf, reason: String },
    #[error("{0}")]
    Usage(String),
    #[error("this machine's clock is before 1970")]
    Clock,
    #[error("could not print: {0}")]
    Print(#[from] io::Error),
    #[error("could not print: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs the command.
pub(crate) fn run(args: PolicyArgs) -> ExitCode {
    use crate::online::{self, policy as change};
    let command = match args.command {
        PolicyCommand::Propose(args) => {
            return online::run(args.json(), async move { change::propose(&args).await });
        }
        PolicyCommand::Sign(args) => return online::finish(false, change::sign(&args)),
        PolicyCommand::Submit(args) => {
            return online::run(args.json(), async move { change::submit(&args).await });
        }
        PolicyCommand::Offline(command) => command,
    };
    let json = command.json();
    match execute(command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = output::error(&error, json);
            ExitCode::FAILURE
        }
    }
}

const DONE: u8 = 0;
const FAILED: u8 = 1;

impl OfflineCommand {
    const fn json(&self) -> bool {
        match self {
            Self::Lint { json, .. }
            | Self::Bounds { json, .. }
            | Self::Diff { json, .. }
            | Self::Hash { json, .. } => *json,
            Self::Simulate(args) => args.json,
        }
    }
}

fn execute(command: OfflineCommand) -> Result<u8, PolicyCliError> {
    match command {
        OfflineCommand::Lint { files, keys, at, json } => {
            run_lint(&files, &keys.into_iter().collect(), at, json)
        }
        OfflineCommand::Bounds { files, at, cluster, json } => {
            run_bounds(&files, at, &cluster, json)
        }
        OfflineCommand::Diff { old, new, json } => run_diff(&old, &new, json),
        OfflineCommand::Simulate(args) => simulate::run(&args),
        OfflineCommand::Hash { files, json } => run_hash(&files, json),
    }
}

fn run_lint(
    files: &[PathBuf],
    schemes: &BTreeMap<KeyName, Scheme>,
    at: Option<UnixMillis>,
    json: bool,
) -> Result<u8, PolicyCliError> {
    let now = at.map_or_else(now, Ok)?;
    let mut status = DONE;
    let mut out = Vec::new();
    let mut text = String::new();
    for path in files {
        let policy = load(path)?;
        let mut findings = lint(&policy, now);
        findings.extend(lint_schemes(&policy, schemes));
        findings.sort();
        if findings.iter().any(|f| f.severity == Severity::Error) {
            status = FAILED;
        }
        for finding in &findings {
            text.push_str(&format!("{}: {finding}\n", path.display()));
        }
        if findings.is_empty() {
            text.push_str(&format!("{}: nothing found\n", path.display()));
        }
        out.push(json!({ "file": path.display().to_string(), "findings": findings }));
    }
    if json {
        print_json(&Value::Array(out))?
    } else {
        print(&text)?
    }
    Ok(status)
}

fn run_bounds(
    files: &[PathBuf],
    at: Option<UnixMillis>,
    cluster: &ClusterArgs,
    json: bool,
) -> Result<u8, PolicyCliError> {
    let now = at.map_or_else(now, Ok)?;
    let cluster = cluster.cluster()?;
    let mut out = Vec::new();
    let mut text = Vec::new();
    for path in files {
        let found = bounds(&load(path)?, Setting { now, cluster });
        text.push(found.to_text());
        let mut value = serde_json::to_value(&found)?;
        if let Value::Object(object) = &mut value {
            object.insert("file".to_owned(), json!(path.display().to_string()));
        }
        out.push(value);
    }
    match (json, out.len()) {
        (true, 1) => print_json(&out.pop().unwrap_or_default())?,
        (true, _) => print_json(&Value::Array(out))?,
        (false, _) => print(&text.join("\n"))?,
    }
    Ok(DONE)
}

fn run_diff(old: &Path, new: &Path, json: bool) -> Result<u8, PolicyCliError> {
    let (old, new) = (load(old)?, load(new)?);
    let found = diff(&old, &new);
    if json {
        print_json(&json!({
            "old": old.policy_hash(),
            "new": new.policy_hash(),
            "tightening": found.is_tightening(),
            "changes": found.changes,
        }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    for change in &found.changes {
        let effect = match change.effect {
            casemate_policy::diff::Effect::Tightening => "tightens",
            casemate_policy::diff::Effect::Loosening => "LOOSENS ",
        };
        text.push_str(&format!("{effect}  {}: {}\n", change.place, change.change));
    }
    text.push_str(match (found.changes.is_empty(), found.is_tightening()) {
        (true, _) => "no change\n",
        (false, true) => "tightening only: takes effect without the delay\n",
        (false, false) => "loosening: waits for the delay in force\n",
    });
    print(&text)?;
    Ok(DONE)
}

fn run_hash(files: &[PathBuf], json: bool) -> Result<u8, PolicyCliError> {
    let mut out = Vec::new();
    let mut text = String::new();
    for path in files {
        let policy = load(path)?;
        let (hash, file) = (policy.policy_hash(), path.display().to_string());
        text.push_str(&format!("{hash}  {file}\n"));
        out.push(json!({
            "file": file,
            "hash": hash,
            "canonical_bytes": policy.canonical_bytes().len(),
        }));
    }
    if json {
        print_json(&Value::Array(out))?
    } else {
        print(&text)?
    }
    Ok(DONE)
}

fn now() -> Result<UnixMillis, PolicyCliError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| PolicyCliError::Clock)?;
    u64::try_from(since.as_millis()).map(UnixMillis).map_err(|_| PolicyCliError::Clock)
}

fn read(path: &Path, max: usize) -> Result<Vec<u8>, PolicyCliError> {
    let wrong = |source| PolicyCliError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(wrong)?;
    let declared = file.metadata().map_err(wrong)?.len();
    // a device or a pipe declares nothing
    let most = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() > max {
        let size = declared.max(most);
        return Err(PolicyCliError::TooLarge { path: path.to_owned(), size, max });
    }
    Ok(bytes)
}

fn load(path: &Path) -> Result<Policy, PolicyCliError> {
    let wrong = |source| PolicyCliError::Policy { path: path.to_owned(), source };
    if path.extension().is_some_and(|e| e == "cbor") {
        return Policy::from_canonical(&read(path, MAX_CANONICAL_BYTES)?).map_err(wrong);
    }
    let text = String::from_utf8(read(path, MAX_TOML_BYTES)?)
        .map_err(|_| PolicyCliError::NotText { path: path.to_owned() })?;
    Policy::from_toml(&text).map_err(wrong)
}

fn print(text: &str) -> Result<(), PolicyCliError> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn print_json(value: &Value) -> Result<(), PolicyCliError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}
