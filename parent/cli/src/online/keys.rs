//! `casemate keys`: makes keys, and lists those that are proved.

use std::process::ExitCode;

use casemate_client::{KeyState, PinnedKey};
use casemate_proto::governance::Change;
use casemate_proto::{KeyName, Scheme};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::govern::GovernArgs;
use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, NOT_REACHED, Session, duration, out, run as run_online};

/// The arguments of `casemate keys`.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key: a governance change, then a key generation among the nodes.
    ///
    /// Waits until it is live, and prints its public key and address as its record proves them.
    Create {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// `ecdsa-secp256k1`, `ed25519` or `bip340-secp256k1`.
        #[arg(long, value_parser = parse_scheme)]
        scheme: Scheme,
        /// Its name, for ever.
        #[arg(long, value_parser = KeyName::new)]
        name: KeyName,
        #[command(flatten)]
        govern: GovernArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the keys, each proved by its record or by enough nodes.
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn parse_scheme(text: &str) -> Result<Scheme, String> {
    Scheme::from_name(text).ok_or_else(|| {
        let names: Vec<String> =
            Scheme::ALL.iter().map(|scheme| format!("`{}`", scheme.name())).collect();
        format!("it is one of {}", names.join(", "))
    })
}

/// Runs `casemate keys`.
pub(crate) fn run(args: KeysArgs) -> ExitCode {
    match args.command {
        KeysCommand::Create { cluster, scheme, name, govern, json } => run_online(
            json,
            async move { create(&cluster.open()?, scheme, name, &govern, json).await },
        ),
        KeysCommand::List { cluster, json } => {
            run_online(json, async move { list(&cluster.open()?, json).await })
        }
    }
}

async fn create(
    session: &Session,
    scheme: Scheme,
    name: KeyName,
    govern: &GovernArgs,
    json: bool,
) -> Result<u8, CliError> {
    let started = Instant::now();
    let change = Change::CreateKey { name: name.clone(), scheme };
    if !govern.govern(session, change).await? {
        return Ok(DONE);
    }
    let live = async {
        loop {
            let states = session.client.keys().await?;
            if let Some(KeyState::Live(key)) = states.into_iter().find(|key| *key.name() == name) {
                return Ok::<_, CliError>(Some(key));
            }
            if started.elapsed() >= duration(govern.timeout()) {
                return Ok(None);
            }
            sleep(std::time::Duration::from_millis(250)).await;
        }
    };
    match waiting("the nodes generate the key", live).await? {
        Some(key) => {
            print(&[KeyState::Live(key)], json)?;
            Ok(DONE)
        }
        None => {
            out::note(&format!(
                "casemate: key `{name}` is being generated and not live after {}; see `casemate keys list`",
                govern.timeout()
            ))?;
            Ok(NOT_REACHED)
        }
    }
}

async fn list(session: &Session, json: bool) -> Result<u8, CliError> {
    let keys = waiting("asking the nodes for their keys", session.client.keys()).await?;
    print(&keys, json)?;
    Ok(DONE)
}

/// What verifiers take: of a BIP-340 key the x coordinate.
pub(super) fn public_key(scheme: Scheme, bytes: &[u8]) -> String {
    let shown = match scheme {
        Scheme::Bip340Secp256k1 => casemate_proto::bip340::x_only(bytes).map(|x| x.to_vec()),
        Scheme::EcdsaSecp256k1 | Scheme::Ed25519 => None,
    };
    format!("0x{}", hex::encode(shown.as_deref().unwrap_or(bytes)))
}

fn print(keys: &[KeyState], json: bool) -> Result<(), CliError> {
    if json {
        let keys: Vec<Value> = keys.iter().map(key_json).collect();
        return out::object(&json!({ "schema": "casemate.keys/1", "keys": keys }));
    }
    let mut text = String::new();
    if keys.is_empty() {
        text.push_str("no keys\n");
    }
    for state in keys {
        match state {
            KeyState::Live(key) => live(&mut text, key),
            KeyState::Generating { name, scheme } => {
                out::line(&mut text, "key", name);
                out::line(&mut text, "scheme", scheme.name());
                out::line(&mut text, "state", "being generated");
            }
            KeyState::Unproven { name } => {
                out::line(&mut text, "key", name);
                out::line(
                    &mut text,
                    "state",
                    "NOT PROVED: too few nodes show it; do not pay to it",
                );
            }
        }
        text.push('\n');
    }
    out::text(text.strip_suffix("\n\n").map_or(text.as_str(), |_| text.trim_end_matches('\n')))?;
    out::text("\n")
}

fn live(text: &mut String, key: &PinnedKey) {
    out::line(text, "key", key.name());
    out::line(text, "scheme", key.scheme().name());
    out::line(text, "public key", public_key(key.scheme(), key.public_key()));
    if let Some(address) = key.address() {
        out::line(text, "address", address);
    }
    out::line(text, "chain code", format_args!("0x{}", hex::encode(key.chain_code())));
    if !key.without_share().is_empty() {
        let nodes: Vec<&str> = key.without_share().iter().map(|node| node.as_str()).collect();
        out::line(text, "no share at", nodes.join(", "));
    }
}

fn key_json(state: &KeyState) -> Value {
    match state {
        KeyState::Live(key) => json!({
            "name": key.name(),
            "scheme": key.scheme().name(),
            "state": "live",
            "public_key": public_key(key.scheme(), key.public_key()),
            "address": key.address(),
            "chain_code": format!("0x{}", hex::encode(key.chain_code())),
            "epoch": key.epoch(),
            "without_share": key.without_share(),
        }),
        KeyState::Generating { name, scheme } => {
            json!({ "name": name, "scheme": scheme.name(), "state": "generating" })
        }
        KeyState::Unproven { name } => json!({ "name": name, "state": "unproven" }),
    }
}
