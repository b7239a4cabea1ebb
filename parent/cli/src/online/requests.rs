//! `casemate requests`: what waits for approval, and how a request stands.

use std::process::ExitCode;

use casemate_client::{ClientError, Review, ReviewError, Role, Standing, review};
use casemate_door::PendingRequestView;
use casemate_policy::Policy;
use casemate_proto::{CredentialId, RequestId};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::approve::{describe, parse_credential, review_json};
use super::progress::waiting;
use super::{
    CliError, ClusterArgs, DENIED, DONE, FAILED, PENDING, Session, out, run as run_online,
};

/// The arguments of `casemate requests`.
#[derive(Debug, Args)]
pub(crate) struct RequestsArgs {
    #[command(subcommand)]
    command: RequestsCommand,
}

#[derive(Debug, Subcommand)]
enum RequestsCommand {
    /// Show the requests that wait for approval, or how one request stands.
    ///
    /// Status 0: signed, or the list is shown; 2: denied; 3: waits for approval.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The request's id.
    #[arg(value_name = "ID", value_parser = RequestId::from_hex)]
    id: Option<RequestId>,
    /// Whose: a principal in the cluster file.
    #[arg(long = "of", value_name = "PRINCIPAL", requires = "id")]
    principal: Option<String>,
    /// Whose: a credential's id.
    #[arg(long, value_name = "HEX", value_parser = parse_credential, requires = "id")]
    requester: Option<CredentialId>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `casemate requests`.
pub(crate) fn run(args: RequestsArgs) -> ExitCode {
    let RequestsCommand::Show(args) = args.command;
    run_online(args.json, async move { show(&args).await })
}

async fn show(args: &ShowArgs) -> Result<u8, CliError> {
    let session = args.cluster.open()?;
    let pending = waiting("asking for the pending requests", session.client.pending());
    let (node, list) = pending.await?;
    let policy = policy(&session).await?;
    let belief = session.client.belief(false).await?;
    let reviewed = |view: PendingRequestView| {
        let policy = policy.as_ref()?;
        let genesis = session.client.genesis_id();
        Some(review(genesis, belief.incarnation(), policy, view))
    };
    let Some(id) = &args.id else {
        let reviewed: Vec<(PendingRequestView, Option<Result<Review, ReviewError>>)> =
            list.into_iter().map(|view| (view.clone(), reviewed(view))).collect();
        print_list(node.as_str(), &reviewed, policy.as_ref(), args.json)?;
        return Ok(DONE);
    };
    let requester = requester(args, &session)?;
    let of_id = |view: &&PendingRequestView| {
        view.request_id == *id && requester.is_none_or(|requester| view.credential == requester)
    };
    if let Some(view) = list.iter().find(of_id) {
        let reviewed = [(view.clone(), reviewed(view.clone()))];
        print_list(node.as_str(), &reviewed, policy.as_ref(), args.json)?;
        return Ok(PENDING);
    }
    let Some(credential) = requester else {
        let reason = format!(
            "no request of that id waits, node `{node}` says; to see one that is decided, say whose it is with `--of` or `--requester`"
        );
        return Err(CliError::input(id, reason));
    };
    let standing = session.client.standing(&credential, id);
    let standing = waiting("asking how the request stands", standing).await?;
    print_standing(id, &standing, args.json)
}

/// The policy in force, if there is one that can be read.
async fn policy(session: &Session) -> Result<Option<Policy>, CliError> {
    let belief = session.client.belief(true).await?;
    let Some(hash) = belief.policy().flatten() else { return Ok(None) };
    match session.client.policy(&hash).await {
        Ok(policy) => Ok(Some(policy)),
        Err(ClientError::TooFewNodes { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

fn requester(args: &ShowArgs, session: &Session) -> Result<Option<CredentialId>, CliError> {
    match (&args.requester, &args.principal) {
        (Some(id), _) => Ok(Some(*id)),
        (None, Some(principal)) => {
            Ok(Some(session.credential(None, Some(principal), Role::Requester)?.id()))
        }
        (None, None) => Ok(None),
    }
}

fn print_list(
    node: &str,
    list: &[(PendingRequestView, Option<Result<Review, ReviewError>>)],
    policy: Option<&Policy>,
    json: bool,
) -> Result<(), CliError> {
    if json {
        let requests: Vec<Value> = list
            .iter()
            .map(|(view, reviewed)| match reviewed {
                Some(Ok(review)) => review_json(review),
                other => json!({
                    "request_id": view.request_id,
                    "credential": view.credential.to_string(),
                    "principal": view.principal,
                    "error": match other {
                        Some(Err(error)) => error.to_string(),
                        _ => "the policy in force is not at hand".to_owned(),
                    },
                }),
            })
            .collect();
        return out::object(&json!({
            "schema": "casemate.requests/1",
            "node": node,
            "pending": requests,
        }));
    }
    if list.is_empty() {
        return out::text("no request waits for approval\n");
    }
    let texts: Vec<String> = list
        .iter()
        .map(|(view, reviewed)| match reviewed {
            Some(Ok(review)) => describe(review, policy),
            other => {
                let mut text = String::new();
                out::line(&mut text, "request", view.request_id);
                out::line(&mut text, "asked by", &view.principal);
                let why = match other {
                    Some(Err(error)) => error.to_string(),
                    _ => "the policy in force is not at hand".to_owned(),
                };
                out::line(&mut text, "NOT REVIEWED", why);
                text
            }
        })
        .collect();
    out::text(&texts.join("\n"))
}

fn print_standing(id: &RequestId, standing: &Standing, json: bool) -> Result<u8, CliError> {
    let (outcome, detail, proved, status) = match standing {
        Standing::Signed(signature) => {
            ("signed", format!("0x{}", hex::encode(signature.wallet_signature())), true, DONE)
        }
        Standing::InLog { index, signed_index } => {
            ("signed", format!("records {index} and {signed_index}"), true, DONE)
        }
        Standing::Denied(denial) => (
            "denied",
            format!("{} (about the body with SHA-256 {})", denial.denial, denial.subject),
            true,
            DENIED,
        ),
        Standing::Pending { have, need, expires } => {
            ("pending", format!("{have} of {need} approvals, until {expires}"), false, PENDING)
        }
        Standing::InStoreOnly { signed_index } => {
            ("signed", format!("long ago: see record {signed_index} in the store"), false, DONE)
        }
        Standing::Unknown => ("unknown", "no such request is remembered".to_owned(), false, FAILED),
        Standing::Working => ("working", "a node works on it".to_owned(), false, PENDING),
    };
    if json {
        out::object(&json!({
            "schema": "casemate.request/1",
            "request_id": id,
            "outcome": outcome,
            "detail": detail,
            "proved": proved,
        }))?;
        return Ok(status);
    }
    let mut text = String::new();
    out::line(&mut text, "request", id);
    out::line(&mut text, outcome, out::plain(&detail));
    if !proved {
        out::line(&mut text, "not proved", "a host's word");
    }
    out::text(&text)?;
    Ok(status)
}
