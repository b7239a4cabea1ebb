//! `casemate status`: every node, what is frozen or waits, and what the cluster survives now.
//!
//! What a boot signed is shown as it is; what only a host says (the phase, the leader, the stock) stands
//! after `host says`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use casemate_api::Ready;
use casemate_client::{Belief, Client, ClientError, GivenView, KeyState, NodeFailure};
use casemate_door::ClusterView;
use casemate_proto::manifest::Manifest;
use casemate_proto::{NodeName, UnixMillis};
use clap::Args;
use serde_json::{Value, json};

use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, out, run as run_online};

/// How long is waited for the nodes that are not needed.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// The arguments of `casemate status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `casemate status`.
pub(crate) fn run(args: StatusArgs) -> ExitCode {
    run_online(args.json, async move { status(&args).await })
}

/// Each node with what is wrong with it, where too few could be verified.
fn unverified(client: &Client, error: &ClientError, ready: &[Option<Ready>]) -> String {
    let failures = match error {
        ClientError::TooFewNodes { failures, .. } | ClientError::NoGenesis { failures, .. } => {
            failures.as_slice()
        }
        _ => &[],
    };
    let mut text = String::new();
    for (endpoint, ready) in client.cluster().endpoints().iter().zip(ready) {
        out::line(&mut text, "node", endpoint.label());
        out::line(&mut text, "url", endpoint.url());
        if let Some(failure) = failures.iter().find(|failure| failure.node == endpoint.label()) {
            out::line(&mut text, "NOT VERIFIED", out::plain(&failure.fault.to_string()));
        }
        if let Some(ready) = ready {
            out::line(&mut text, "host says", host_says(ready));
        }
        text.push('\n');
    }
    text
}

/// One node of the roster.
struct NodeStatus {
    name: NodeName,
    url: Option<String>,
    view: Option<GivenView>,
    failure: Option<NodeFailure>,
    ready: Option<Ready>,
    current: bool,
    without_share: Vec<String>,
}

async fn status(args: &StatusArgs) -> Result<u8, CliError> {
    let session = args.cluster.open()?;
    let client = &session.client;
    let gathering = async {
        let surveyed = client.survey(STRAGGLERS).await;
        let keys = match &surveyed {
            Ok(_) => client.keys().await.map_err(|error| error.to_string()),
            Err(_) => Ok(Vec::new()),
        };
        let mut ready = Vec::new();
        for at in 0..client.cluster().endpoints().len() {
            let asked = tokio::time::timeout(STRAGGLERS, client.readiness(at)).await;
            ready.push(asked.ok().and_then(Result::ok));
        }
        (surveyed, keys, ready)
    };
    let (surveyed, keys, ready) = waiting("asking every node", gathering).await;
    let (belief, failures) = match surveyed {
        Ok(surveyed) => surveyed,
        Err(error) => {
            // nothing is believed then; what is in the way is told all the same
            if !args.json {
                out::text(&unverified(client, &error, &ready))?;
            }
            return Err(error.into());
        }
    };
    let genesis = client.genesis().await?;
    let keys_error = keys.as_ref().err().cloned();
    let keys = keys.unwrap_or_default();
    let nodes = nodes(client, &genesis.manifest, &belief, &failures, &ready, &keys);
    let newest = belief.views().iter().max_by_key(|given| given.view.size);
    let view = newest.map(|given| &given.view);
    let survives = survives(&genesis.manifest, &nodes);
    let time = belief.views().iter().map(|given| given.view.now).max();
    let newest_of = time.zip(view.map(|view| view.size));
    if args.json {
        print_json(client, &genesis.manifest, &nodes, view, &keys, &survives)?;
        return Ok(DONE);
    }
    let mut text = String::new();
    let manifest = &genesis.manifest;
    out::line(
        &mut text,
        "cluster",
        format_args!("{}  {}", out::plain(&manifest.name), client.genesis_id()),
    );
    out::line(
        &mut text,
        "signs",
        format_args!("{} of {} nodes", manifest.threshold, manifest.nodes.len()),
    );
    for node in &nodes {
        text.push('\n');
        print_node(&mut text, node, newest_of);
    }
    text.push('\n');
    if let Some(view) = view {
        print_cluster(&mut text, view, manifest);
    }
    for key in &keys {
        print_key(&mut text, key);
    }
    if let Some(error) = keys_error {
        out::line(&mut text, "KEYS", error);
    }
    out::line(&mut text, "survives now", survives.text);
    out::text(&text)?;
    Ok(DONE)
}

fn nodes(
    client: &Client,
    manifest: &Manifest,
    belief: &Belief,
    failures: &[NodeFailure],
    ready: &[Option<Ready>],
    keys: &[KeyState],
) -> Vec<NodeStatus> {
    let endpoints = client.cluster().endpoints();
    let current: BTreeSet<_> = belief.boots().collect();
    manifest
        .nodes
        .iter()
        .map(|spec| {
            let name = &spec.name;
            let at = endpoints.iter().position(|endpoint| endpoint.name() == Some(name));
            let view = belief.views().iter().find(|given| given.node == *name).cloned();
            let own = view.as_ref().and_then(|given| {
                given.view.boots.iter().find(|boot| boot.node == *name).map(|boot| boot.boot)
            });
            let lacking = |state: &KeyState| match state {
                KeyState::Live(key) if key.without_share().contains(name) => {
                    Some(key.name().to_string())
                }
                _ => None,
            };
            NodeStatus {
                name: name.clone(),
                url: at.and_then(|at| endpoints.get(at)).map(|e| e.url().to_string()),
                failure: failures.iter().find(|failure| failure.node == name.as_str()).cloned(),
                ready: at.and_then(|at| ready.get(at)).cloned().flatten(),
                current: own.is_some_and(|boot| current.contains(&(name, boot))),
                without_share: keys.iter().filter_map(lacking).collect(),
                view,
            }
        })
        .collect()
}

/// What the cluster survives, counted over the nodes that were verified now.
struct Survives {
    more: Option<usize>,
    text: String,
}

fn survives(manifest: &Manifest, nodes: &[NodeStatus]) -> Survives {
    let n = manifest.nodes.len();
    let t = usize::try_from(manifest.threshold).unwrap_or(usize::MAX);
    let majority = (n / 2).saturating_add(1);
    let up = nodes.iter().filter(|node| node.current).count();
    let sharing = nodes.iter().filter(|node| node.current && node.without_share.is_empty()).count();
    // the ledger needs a majority, a signature t shares
    let more = match (up.checked_sub(majority), sharing.checked_sub(t)) {
        (Some(ledger), Some(shares)) => Some(ledger.min(shares)),
        _ => None,
    };
    let text = match more {
        None if up < majority => {
            format!(
                "NOTHING IS SIGNED NOW: {up} of {n} nodes are there, and {majority} are a majority"
            )
        }
        None => {
            format!("NOT EVERY KEY SIGNS NOW: {sharing} nodes hold a share of each, and {t} sign")
        }
        Some(0) => "no more: one node lost, and signing stops until it is back".to_owned(),
        Some(1) => "one more node lost".to_owned(),
        Some(more) => format!("{more} more nodes lost"),
    };
    Survives { more, text }
}

/// How many entries a node may be behind another before it is said.
const LAG: u64 = 64;

fn print_node(text: &mut String, node: &NodeStatus, newest: Option<(UnixMillis, u64)>) {
    out::line(text, "node", &node.name);
    if let Some(url) = &node.url {
        out::line(text, "url", url);
    }
    match (&node.view, &node.failure) {
        (Some(given), _) => {
            let current = if node.current { "current" } else { "NOT CURRENT by the others" };
            out::line(text, "boot", format_args!("attested, {current}"));
            out::line(
                text,
                "applied",
                format_args!("{} entries, root {}", given.view.size, given.view.root),
            );
            let unreachable: Vec<&str> = given
                .view
                .boots
                .iter()
                .filter(|boot| !boot.reachable && boot.node != node.name)
                .map(|boot| boot.node.as_str())
                .collect();
            if !unreachable.is_empty() {
                out::line(text, "NO LINK to", unreachable.join(", "));
            }
            let (time, size) = newest.unwrap_or((given.view.now, given.view.size));
            let missing = size.saturating_sub(given.view.size);
            if missing > LAG || (missing > 0 && given.view.size == 0) {
                out::line(text, "BEHIND", format_args!("{missing} entries"));
            }
            let behind = time.since(given.view.now);
            if behind.0 > 5_000 {
                out::line(text, "CLOCK", format_args!("{behind} behind another node's"));
            }
        }
        (None, Some(failure)) => {
            out::line(text, "NOT VERIFIED", out::plain(&failure.fault.to_string()))
        }
        (None, None) if node.url.is_none() => {
            out::line(text, "NOT ASKED", "no address is known");
        }
        (None, None) => out::line(text, "NOT VERIFIED", "no answer in time"),
    }
    if !node.without_share.is_empty() {
        out::line(text, "NO SHARE of", node.without_share.join(", "));
    }
    if let Some(ready) = &node.ready {
        out::line(text, "host says", host_says(ready));
    }
}

fn host_says(ready: &Ready) -> String {
    let mut says = vec![if ready.ready { "ready".to_owned() } else { "NOT READY".to_owned() }];
    if !ready.failing.is_empty() {
        let failing = serde_json::to_value(&ready.failing).unwrap_or_default();
        let names: Vec<&str> =
            failing.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        says.push(format!("failing: {}", names.join(", ")));
    }
    if let Some(detail) = &ready.detail {
        says.push(out::plain(detail));
    }
    if let Some(enclave) = &ready.enclave {
        says.push(format!("phase {}", out::plain(&enclave.phase)));
        if let Some(leader) = &enclave.leader {
            says.push(format!("leader {leader}"));
        }
        says.push(format!("{} triples", enclave.triples));
    }
    says.join(", ")
}

fn print_cluster(text: &mut String, view: &ClusterView, manifest: &Manifest) {
    if !view.confirmed {
        out::line(text, "GENESIS", "not confirmed by governance yet");
    }
    match view.policy {
        Some(policy) => out::line(text, "policy", policy),
        None => out::line(text, "policy", "NONE IN FORCE: nothing is signed"),
    }
    for freeze in &view.freezes {
        // where no freezer was heard for too long, and after a recovery
        let by = freeze.by.map_or_else(|| "the cluster itself".to_owned(), |by| by.to_string());
        out::line(text, "FROZEN", format_args!("{}  since {}, by {by}", freeze.id, freeze.at));
    }
    for change in &view.pending_changes {
        let when = match change.seen_at {
            Some(seen) => {
                let from = seen.saturating_add(manifest.governance.loosening_delay);
                format!("in force from {from}")
            }
            None => "waits for a freezer's heartbeat, then its delay".to_owned(),
        };
        let name = change.envelope.change.name();
        out::line(text, "pending", format_args!("{name} {}  {when}", change.id));
    }
}

fn print_key(text: &mut String, key: &KeyState) {
    match key {
        KeyState::Live(_) => {}
        KeyState::Generating { name, .. } => {
            out::line(text, "key", format_args!("{name} is being generated"));
        }
        KeyState::Unproven { name } => {
            out::line(text, "KEY", format_args!("{name} IS NOT PROVED: too few nodes show it"));
        }
    }
}

fn print_json(
    client: &Client,
    manifest: &Manifest,
    nodes: &[NodeStatus],
    view: Option<&ClusterView>,
    keys: &[KeyState],
    survives: &Survives,
) -> Result<(), CliError> {
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|node| {
            let view = node.view.as_ref().map(|given| &given.view);
            json!({
                "name": node.name,
                "url": node.url,
                "verified": node.view.is_some(),
                "current": node.current,
                "error": node.failure.as_ref().map(|failure| failure.fault.to_string()),
                "size": view.map(|view| view.size),
                "root": view.map(|view| view.root),
                "now": view.map(|view| view.now.to_rfc3339()),
                "without_share": node.without_share,
                "host_says": node.ready,
            })
        })
        .collect();
    out::object(&json!({
        "schema": "casemate.status/1",
        "name": manifest.name,
        "genesis_id": client.genesis_id(),
        "threshold": manifest.threshold,
        "nodes": nodes,
        "incarnation": view.map(|view| view.incarnation),
        "confirmed": view.map(|view| view.confirmed),
        "size": view.map(|view| view.size),
        "policy": view.and_then(|view| view.policy),
        "change_head": view.map(|view| view.change_head),
        "freezes": view.map(|view| {
            view.freezes
                .iter()
                .map(|freeze| json!({
                    "id": freeze.id,
                    "by": freeze.by.map(|by| by.to_string()),
                    "at": freeze.at.to_rfc3339(),
                }))
                .collect::<Vec<_>>()
        }),
        "pending_changes": view.map(|view| {
            view.pending_changes
                .iter()
                .map(|change| json!({
                    "id": change.id,
                    "change": change.envelope.change.name(),
                    "seen_at": change.seen_at.map(|at| at.to_rfc3339()),
                    "in_force_from": change.seen_at.map(|seen| {
                        seen.saturating_add(manifest.governance.loosening_delay).to_rfc3339()
                    }),
                }))
                .collect::<Vec<_>>()
        }),
        "keys": keys.iter().map(|key| key.name().as_str()).collect::<Vec<_>>(),
        "signs_now": survives.more.is_some(),
        "survives_more_nodes_lost": survives.more,
    }))
}
