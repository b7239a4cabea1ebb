//! `casemate freeze` and `casemate unfreeze`: one freezer stops the cluster, the quorum lets it go on.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_client::Role;
use casemate_client::credential::random;
use casemate_proto::governance::{Change, FreezerStatement};
use casemate_proto::{Hash32, Millis};
use clap::Args;
use serde_json::json;

use super::govern::GovernArgs;
use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, duration, out, parse_length, run as run_online};

/// The arguments of `casemate freeze`.
#[derive(Debug, Args)]
pub(crate) struct FreezeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The freezer: a name in the cluster file [default: the only freezer there].
    #[arg(long = "as", value_name = "PRINCIPAL", conflicts_with = "key")]
    principal: Option<String>,
    /// The freezer's key file.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How long to wait until enough nodes show the freeze.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "30s")]
    timeout: Millis,
    /// Print JSON.
    #[arg(long)]
    json: bool,
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

/// Runs `casemate freeze`.
pub(crate) fn run_freeze(args: FreezeArgs) -> ExitCode {
    run_online(args.json, async move { freeze(&args).await })
}

async fn freeze(args: &FreezeArgs) -> Result<u8, CliError> {
    let session = args.cluster.open()?;
    let freezer = match (&args.key, &args.principal, &session.file) {
        (None, None, Some(file)) => {
            let mut freezers = file.credentials_as(Role::Freezer)?.into_iter();
            match (freezers.next(), freezers.next()) {
                (Some(only), None) => only,
                _ => {
                    return Err(CliError::Usage(
                        "who freezes? give `--as PRINCIPAL` or `--key FILE`".to_owned(),
                    ));
                }
            }
        }
        (key, principal, _) => {
            session.credential(key.as_deref(), principal.as_deref(), Role::Freezer)?
        }
    };
    let statement = FreezerStatement::Freeze { nonce: random() };
    let client = &session.client;
    let signed =
        waiting("asking the nodes for the time", client.statement(&freezer, statement)).await?;
    let telling = client.submit_statement(&signed, duration(args.timeout));
    waiting("telling every node", telling).await?;
    let id = signed.id();
    if args.json {
        out::object(&json!({ "schema": "casemate.freeze/1", "freeze": id }))?;
    } else {
        let mut text = String::new();
        out::line(&mut text, "frozen", id);
        out::text(&text)?;
        out::note(&format!("the governance quorum lifts it with `casemate unfreeze {id}`"))?;
    }
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
