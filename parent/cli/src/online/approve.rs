//! `casemate approve`: shows what would be approved, made again here of the request's own body, and approves it.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_client::{Review, Role, review};
use casemate_door::PendingRequestView;
use casemate_policy::Policy;
use casemate_proto::{CredentialId, Hash32, Millis, RequestId};
use clap::Args;
use serde_json::{Value, json};

use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, Session, duration, out, parse_length, run as run_online};

/// The arguments of `casemate approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The request's id.
    #[arg(value_name = "REQUEST", value_parser = RequestId::from_hex)]
    request: RequestId,
    /// The requester's credential, where two requests have that id.
    #[arg(long, value_name = "HEX", value_parser = parse_credential)]
    requester: Option<CredentialId>,
    /// Who approves: a principal in the cluster file.
    #[arg(long = "as", value_name = "PRINCIPAL", required_unless_present = "credential")]
    principal: Option<String>,
    /// Who approves: a key file.
    #[arg(long, value_name = "FILE")]
    credential: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// How long to wait until the approval is recorded.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "60s")]
    timeout: Millis,
    /// Print JSON; needs `--yes`.
    #[arg(long, requires = "yes")]
    json: bool,
}

/// Parses a credential's id.
pub(super) fn parse_credential(text: &str) -> Result<CredentialId, String> {
    Hash32::from_hex(text).map(CredentialId).map_err(|error| error.to_string())
}

/// Runs `casemate approve`.
pub(crate) fn run(args: ApproveArgs) -> ExitCode {
    run_online(args.json, async move { approve(&args).await })
}

async fn approve(args: &ApproveArgs) -> Result<u8, CliError> {
    let session = args.cluster.open()?;
    let signer = session.credential(
        args.credential.as_deref(),
        args.principal.as_deref(),
        Role::Approver,
    )?;
    let finding = find(&session, &args.request, args.requester.as_ref());
    let view = waiting("asking for the request", finding).await?;
    let (reviewed, policy) = waiting("reading the policy", reviewed(&session, view)).await?;
    if !args.json {
        out::text(&describe(&reviewed, Some(&policy)))?;
    }
    if !args.yes {
        out::confirm("Approve exactly this?")?;
    }
    let approving = session.client.approve(reviewed.view(), &signer, duration(args.timeout));
    waiting("submitting the approval", approving).await?;
    if args.json {
        out::object(&json!({
            "schema": "casemate.approve/1",
            "approved": review_json(&reviewed),
            "by": signer.id().to_string(),
        }))?;
    } else {
        out::text("approved\n")?;
    }
    Ok(DONE)
}

/// The pending request of this id, from a node that has it.
pub(super) async fn find(
    session: &Session,
    id: &RequestId,
    requester: Option<&CredentialId>,
) -> Result<PendingRequestView, CliError> {
    let (node, list) = session.client.pending().await?;
    let of_id = |view: &PendingRequestView| {
        view.request_id == *id && requester.is_none_or(|requester| view.credential == *requester)
    };
    let mut found = list.into_iter().filter(of_id);
    match (found.next(), found.next()) {
        (Some(view), None) => Ok(view),
        (Some(_), Some(_)) => Err(CliError::input(
            id,
            "two requesters have a request of that id: name one with `--requester`",
        )),
        (None, _) => Err(CliError::input(
            id,
            format_args!("no request of that id waits, node `{node}` says"),
        )),
    }
}

/// A pending request with its document made again, under the policy that the nodes say is in force.
pub(super) async fn reviewed(
    session: &Session,
    view: PendingRequestView,
) -> Result<(Review, Policy), CliError> {
    let client = &session.client;
    let belief = client.belief(true).await?;
    let hash = belief
        .policy()
        .flatten()
        .ok_or_else(|| CliError::Usage("the nodes do not agree on a policy in force".to_owned()))?;
    let policy = client.policy(&hash).await?;
    let id = view.request_id;
    let review = review(client.genesis_id(), belief.incarnation(), &policy, view)
        .map_err(|error| CliError::input(id, error))?;
    Ok((review, policy))
}

/// What would be approved, for a person.
pub(super) fn describe(review: &Review, policy: Option<&Policy>) -> String {
    let mut text = String::new();
    let view = review.view();
    out::line(&mut text, "request", view.request_id);
    out::line(&mut text, "asked by", format_args!("{} ({})", view.principal, view.credential));
    out::intent(&mut text, review.request(), review.decoded(), policy);
    out::line(&mut text, "grant", format_args!("{}, tier {}", review.grant(), review.tier()));
    if let Some(needs) = review.needs().and_then(|tier| tier.approvals.as_ref()) {
        let how = if needs.passkey { " by passkey" } else { "" };
        let line = format!("{} of {} of @{}{how}", view.have, needs.needed, needs.of);
        out::line(&mut text, "approvals", line);
    }
    if !view.approved_by.is_empty() {
        let by: Vec<&str> = view.approved_by.iter().map(|by| by.as_str()).collect();
        out::line(&mut text, "approved by", by.join(", "));
    }
    if let Some(delay) = review.needs().and_then(|tier| tier.delay) {
        out::line(&mut text, "delay", delay);
    }
    out::line(&mut text, "expires", view.expires);
    out::line(&mut text, "policy", review.policy());
    out::line(&mut text, "document", format_args!("{}  made again here", view.document));
    text
}

/// The same for a program.
pub(super) fn review_json(review: &Review) -> Value {
    let view = review.view();
    json!({
        "request_id": view.request_id,
        "credential": view.credential.to_string(),
        "principal": view.principal,
        "intent": out::intent_json(review.request(), review.decoded()),
        "grant": review.grant(),
        "tier": review.tier(),
        "have": view.have,
        "need": review.needs().and_then(|tier| tier.approvals.as_ref()).map(|needs| needs.needed),
        "approved_by": view.approved_by,
        "expires": view.expires.to_rfc3339(),
        "policy": review.policy(),
        "document": view.document,
    })
}
