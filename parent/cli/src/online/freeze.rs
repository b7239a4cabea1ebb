//! What freezers say: `casemate freeze` stops the cluster, `heartbeat` shows that somebody watches, `veto`
//! stops a change that waits. Only the quorum lets a frozen cluster go on: `casemate unfreeze`.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_client::credential::random;
use casemate_client::{Credential, Role};
use casemate_proto::governance::{Change, FreezerStatement, MAX_LISTED};
use casemate_proto::{Hash32, Millis};
use clap::Args;
use serde_json::json;

use super::govern::GovernArgs;
use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, Session, duration, out, parse_length, run as run_online};

/// Who speaks.
#[derive(Debug, Args)]
struct FreezerArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The freezer: a name in the cluster file [default: the only freezer there].
    #[arg(long = "as", value_name = "PRINCIPAL", conflicts_with = "key")]
    principal: Option<String>,
    /// The freezer's key file.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How long to wait until enough nodes show it.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "30s")]
    timeout: Millis,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The arguments of `casemate freeze`.
#[derive(Debug, Args)]
pub(crate) struct FreezeArgs {
    #[command(flatten)]
    freezer: FreezerArgs,
}

/// The arguments of `casemate heartbeat`.
#[derive(Debug, Args)]
pub(crate) struct HeartbeatArgs {
    #[command(flatten)]
    freezer: FreezerArgs,
    /// Say so without asking: for a program that watches.
    #[arg(long)]
    yes: bool,
}

/// The arguments of `casemate veto`.
#[derive(Debug, Args)]
pub(crate) struct VetoArgs {
    #[command(flatten)]
    freezer: FreezerArgs,
    /// The change, as `casemate status` names it.
    #[arg(value_name = "CHANGE-ID", value_parser = Hash32::from_hex)]
    change: Hash32,
}

/// The arguments of `casemate unfreeze`.
#[derive(Debug, Args)]
pub(crate) struct UnfreezeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The freeze, as `casemate status` names it.
    #[arg(value_name = "FREEZE-ID", value_parser = Hash32::from_hex)]
    freeze: Hash32,
    #[command(flatten)]
    govern: GovernArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl FreezerArgs {
    fn freezer(&self, session: &Session) -> Result<Credential, CliError> {
        let (None, None, Some(file)) = (&self.key, &self.principal, &session.file) else {
            let (key, principal) = (self.key.as_deref(), self.principal.as_deref());
            return session.credential(key, principal, Role::Freezer);
        };
        let mut freezers = file.credentials_as(Role::Freezer)?.into_iter();
        match (freezers.next(), freezers.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(CliError::Usage(
                "which freezer? give `--as PRINCIPAL` or `--key FILE`".to_owned(),
            )),
        }
    }

    /// Signs a statement as of now, and tells every node; gives its id.
    async fn say(
        &self,
        session: &Session,
        freezer: &Credential,
        statement: FreezerStatement,
    ) -> Result<Hash32, CliError> {
        let client = &session.client;
        let signing = client.statement(freezer, statement);
        let signed = waiting("asking the nodes for the time", signing).await?;
        let telling = client.submit_statement(&signed, duration(self.timeout));
        waiting("telling every node", telling).await?;
        Ok(signed.id())
    }
}

/// Runs `casemate freeze`.
pub(crate) fn run_freeze(args: FreezeArgs) -> ExitCode {
    run_online(args.freezer.json, async move { freeze(&args.freezer).await })
}

async fn freeze(args: &FreezerArgs) -> Result<u8, CliError> {
    let session = args.cluster.open()?;
    let freezer = args.freezer(&session)?;
    let statement = FreezerStatement::Freeze { nonce: random() };
    let id = args.say(&session, &freezer, statement).await?;
    if args.json {
        out::object(&json!({ "schema": "casemate.freeze/1", "freeze": id }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    out::line(&mut text, "frozen", id);
    out::text(&text)?;
    out::note(&format!("the governance quorum lifts it with `casemate unfreeze {id}`"))?;
    Ok(DONE)
}

/// Runs `casemate heartbeat`.
pub(crate) fn run_heartbeat(args: HeartbeatArgs) -> ExitCode {
    run_online(args.freezer.json, async move { heartbeat(&args).await })
}

async fn heartbeat(args: &HeartbeatArgs) -> Result<u8, CliError> {
    let session = args.freezer.cluster.open()?;
    let freezer = args.freezer.freezer(&session)?;
    let belief = waiting("asking what waits", session.client.belief(true)).await?;
    // what the one that is most behind has applied, the others have too
    let views = belief.views().iter().map(|given| &given.view);
    let view = views
        .min_by_key(|view| view.size)
        .ok_or_else(|| CliError::Usage("no node says what it has applied".to_owned()))?;
    let mut text = String::new();
    out::line(&mut text, "applied", format_args!("{} entries, root {}", view.size, view.root));
    for change in &view.pending_changes {
        let name = change.envelope.change.name();
        out::line(&mut text, "SEEN", format_args!("{name} {}", change.id));
    }
    if !args.freezer.json {
        out::text(&text)?;
    }
    if !args.yes && !view.pending_changes.is_empty() {
        out::confirm("The delay of what you have seen begins. Say so?")?;
    }
    let mut pending: Vec<Hash32> = view.pending_changes.iter().map(|change| change.id).collect();
    pending.sort_unstable();
    pending.truncate(MAX_LISTED);
    let (size, root) = (view.size, view.root);
    let statement = FreezerStatement::Heartbeat { size, root, pending: pending.clone() };
    args.freezer.say(&session, &freezer, statement).await?;
    if args.freezer.json {
        out::object(&json!({
            "schema": "casemate.heartbeat/1",
            "size": size,
            "root": root,
            "seen": pending,
        }))?;
        return Ok(DONE);
    }
    out::text("heard\n")?;
    Ok(DONE)
}

/// Runs `casemate veto`.
pub(crate) fn run_veto(args: VetoArgs) -> ExitCode {
    run_online(args.freezer.json, async move { veto(&args).await })
}

async fn veto(args: &VetoArgs) -> Result<u8, CliError> {
    let session = args.freezer.cluster.open()?;
    let freezer = args.freezer.freezer(&session)?;
    let change = args.change;
    let belief = waiting("asking what waits", session.client.belief(true)).await?;
    let waits = |id: &Hash32| {
        let mut views = belief.views().iter().map(|given| &given.view);
        views.any(|view| view.pending_changes.iter().any(|change| change.id == *id))
    };
    if !waits(&change) {
        return Err(CliError::input(change, "no such change waits"));
    }
    args.freezer.say(&session, &freezer, FreezerStatement::Veto { change }).await?;
    if args.freezer.json {
        out::object(&json!({ "schema": "casemate.veto/1", "vetoed": change }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    out::line(&mut text, "vetoed", change);
    out::text(&text)?;
    Ok(DONE)
}

/// Runs `casemate unfreeze`.
pub(crate) fn run_unfreeze(args: UnfreezeArgs) -> ExitCode {
    run_online(args.json, async move { unfreeze(&args).await })
}

async fn unfreeze(args: &UnfreezeArgs) -> Result<u8, CliError> {
    let session = args.cluster.open()?;
    let change = Change::Unfreeze { freeze: args.freeze };
    if !args.govern.govern(&session, change).await? {
        return Ok(DONE);
    }
    let belief = session.client.belief(false).await?;
    let views = belief.views().iter().map(|given| &given.view);
    let left: Vec<Hash32> = views
        .max_by_key(|view| view.size)
        .map(|view| &view.freezes)
        .into_iter()
        .flatten()
        .map(|freeze| freeze.id)
        .collect();
    if args.json {
        out::object(&json!({
            "schema": "casemate.unfreeze/1",
            "lifted": args.freeze,
            "still_in_force": left,
        }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    out::line(&mut text, "lifted", args.freeze);
    for freeze in &left {
        out::line(&mut text, "STILL FROZEN", freeze);
    }
    out::text(&text)?;
    Ok(DONE)
}
