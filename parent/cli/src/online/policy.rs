//! `casemate policy propose`, `sign` and `submit`: from a policy's text to the policy in force.
//!
//! `propose` asks the cluster what is in force and writes a change against it; `sign` works offline and
//! shows what is signed; `submit` puts change, policy and signatures together and waits until
//! enough nodes show it.

use std::path::{Path, PathBuf};

use casemate_client::credential::sign_change;
use casemate_client::{Client, ClientError, Role, files};
use casemate_policy::diff::{Diff, Effect};
use casemate_policy::{MAX_CANONICAL_BYTES, MAX_TOML_BYTES, Policy, diff};
use casemate_proto::governance::{
    Change, ChangeEnvelope, MAX_CHANGE, NamedSignature, SignedChange,
};
use casemate_proto::ids::{Hash32, parse_hex};
use casemate_proto::{CredentialId, Millis, cbor};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::govern::{describe, write_change};
use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, credential, duration, out, parse_length};

/// The schema of a signature's file.
const SIGNATURE: &str = "casemate.signature/1";
/// Most bytes of a signature's file.
const MAX_SIGNATURE: usize = 4_096;

/// The arguments of `casemate policy propose`.
#[derive(Debug, Args)]
pub(crate) struct ProposeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The policy: its text, or its canonical form if it ends in `.cbor`.
    #[arg(value_name = "FILE")]
    policy: PathBuf,
    /// Where to write the change.
    #[arg(long, value_name = "FILE", default_value = "change.cbor")]
    out: PathBuf,
    /// Until when, from now, it may be handed in.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "7d")]
    life: Millis,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The arguments of `casemate policy sign`.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The change.
    #[arg(value_name = "CHANGE")]
    change: PathBuf,
    /// The governor's key file.
    #[arg(long, value_name = "FILE", required_unless_present = "principal")]
    key: Option<PathBuf>,
    /// The governor: a name in the cluster file, for development.
    #[arg(long = "as", value_name = "PRINCIPAL", requires = "cluster")]
    principal: Option<String>,
    /// The cluster file that holds that credential. Nothing is asked of the cluster.
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// The policy that the change sets, to see that it is the one that you mean.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where to write the signature [default: beside the change, named after the credential].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// The arguments of `casemate policy submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The change.
    #[arg(value_name = "CHANGE")]
    change: PathBuf,
    /// The policy where the change sets one, then the governors' signatures.
    #[arg(value_name = "POLICY SIGNATURE", required = true)]
    files: Vec<PathBuf>,
    /// How long to wait until it is applied.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "60s")]
    timeout: Millis,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ProposeArgs {
    pub(crate) const fn json(&self) -> bool {
        self.json
    }
}
impl SubmitArgs {
    pub(crate) const fn json(&self) -> bool {
        self.json
    }
}

fn load_policy(path: &Path) -> Result<Policy, CliError> {
    let wrong = |error: &dyn std::fmt::Display| CliError::input(path.display(), error);
    if path.extension().is_some_and(|extension| extension == "cbor") {
        let bytes = files::read(path, MAX_CANONICAL_BYTES)
            .map_err(|error| CliError::Usage(error.to_string()))?;
        return Policy::from_canonical(&bytes)
            .map_err(|error| wrong(&format_args!("not a policy:\n{error}")));
    }
    let bytes =
        files::read(path, MAX_TOML_BYTES).map_err(|error| CliError::Usage(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(&"not UTF-8 text"))?;
    Policy::from_toml(&text).map_err(|error| wrong(&format_args!("not a policy:\n{error}")))
}

fn load_change(path: &Path) -> Result<ChangeEnvelope, CliError> {
    let bytes =
        files::read(path, MAX_CHANGE).map_err(|error| CliError::Usage(error.to_string()))?;
    cbor::decode(&bytes, MAX_CHANGE)
        .map_err(|error| CliError::input(path.display(), format_args!("not a change: {error}")))
}

/// The policy in force now, if there is one.
async fn in_force(client: &Client) -> Result<Option<Policy>, CliError> {
    let belief = client.belief(true).await?;
    match belief.policy() {
        None => Err(ClientError::Disagreement { what: "the policy in force" }.into()),
        Some(None) => Ok(None),
        Some(Some(hash)) => Ok(Some(client.policy(&hash).await?)),
    }
}

/// Runs `casemate policy propose`.
pub(crate) async fn propose(args: &ProposeArgs) -> Result<u8, CliError> {
    let policy = load_policy(&args.policy)?;
    let session = args.cluster.open()?;
    let client = &session.client;
    let current = waiting("asking for the policy in force", in_force(client)).await?;
    let change = Change::SetPolicy { policy: policy.policy_hash() };
    let envelope = client.envelope(change, args.life).await?;
    let manifest = &client.genesis().await?.manifest;
    let found = current.as_ref().map(|current| diff(current, &policy));
    let tightens = found.as_ref().is_none_or(Diff::is_tightening);
    let effect = effect(tightens, current.is_some(), manifest, &envelope);
    if args.json {
        std::fs::write(&args.out, cbor::encode(&envelope))
            .map_err(|error| CliError::Write { path: args.out.clone(), error })?;
        out::object(&json!({
            "schema": "casemate.policy.propose/1",
            "change": envelope.id(),
            "policy": policy.policy_hash(),
            "in_force": current.as_ref().map(Policy::policy_hash),
            "predecessor": envelope.predecessor,
            "expires": envelope.expires.to_rfc3339(),
            "tightening": tightens,
            "effect": effect,
            "changes": found.as_ref().map(|found| &found.changes),
            "quorum": manifest.governance.quorum,
            "written": args.out.display().to_string(),
        }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    match (&current, &found) {
        (Some(current), Some(found)) => {
            out::line(&mut text, "in force", current.policy_hash());
            out::line(&mut text, "proposed", policy.policy_hash());
            for change in &found.changes {
                let effect = match change.effect {
                    Effect::Tightening => "tightens",
                    Effect::Loosening => "LOOSENS",
                };
                out::line(&mut text, effect, format_args!("{}: {}", change.place, change.change));
            }
            if found.changes.is_empty() {
                out::line(&mut text, "no change", "it says what the policy in force says");
            }
        }
        _ => {
            out::line(&mut text, "in force", "none");
            out::line(&mut text, "proposed", policy.policy_hash());
        }
    }
    out::line(&mut text, "effect", effect);
    out::line(
        &mut text,
        "to sign",
        format_args!(
            "{} of {} governors",
            manifest.governance.quorum,
            manifest.governance.keys.len()
        ),
    );
    out::text(&text)?;
    write_change(&args.out, &envelope)?;
    Ok(DONE)
}

fn effect(
    tightens: bool,
    replaces: bool,
    manifest: &casemate_proto::manifest::Manifest,
    envelope: &ChangeEnvelope,
) -> String {
    let delay = manifest.governance.loosening_delay;
    match (tightens, replaces) {
        (true, false) => "the first policy: in force as soon as it is accepted".to_owned(),
        (true, true) => "tightening only: in force as soon as it is accepted".to_owned(),
        (false, _) if manifest.freezers.is_empty() => {
            format!("loosening: in force {delay} after it is accepted")
        }
        (false, _) => format!(
            "loosening: in force {delay} after a freezer has seen it; until then any freezer may veto change {}",
            envelope.id()
        ),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFile {
    schema: String,
    change: Hash32,
    credential: Hash32,
    signature: String,
}

/// Runs `casemate policy sign`. Asks nothing of anybody but the person.
pub(crate) fn sign(args: &SignArgs) -> Result<u8, CliError> {
    let envelope = load_change(&args.change)?;
    let file = ClusterArgs::of_file(args.cluster.clone());
    let cluster = match &args.cluster {
        Some(_) => file.file()?,
        None => None,
    };
    let governor = credential(
        cluster.as_ref(),
        args.key.as_deref(),
        args.principal.as_deref(),
        Role::Governor,
    )?;
    let mut text = String::new();
    describe(&mut text, &envelope);
    match (&args.policy, &envelope.change) {
        (Some(path), Change::SetPolicy { policy }) => {
            let given = load_policy(path)?;
            if given.policy_hash() != *policy {
                let reason =
                    format!("its hash is {}, and the change sets {policy}", given.policy_hash());
                return Err(CliError::input(path.display(), reason));
            }
            out::line(&mut text, "policy", format_args!("`{}` is the one", path.display()));
        }
        (Some(path), _) => {
            return Err(CliError::input(path.display(), "the change sets no policy"));
        }
        (None, Change::SetPolicy { .. }) => {
            out::line(
                &mut text,
                "NOT SEEN",
                "the policy itself: give it with `--policy` to compare",
            );
        }
        (None, _) => {}
    }
    out::line(&mut text, "signing as", governor.id());
    out::text(&text)?;
    if !args.yes {
        out::confirm("Sign exactly this?")?;
    }
    let named = sign_change(&governor, &envelope)?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => {
            let id: String = hex::encode(named.credential.0.as_bytes()).chars().take(8).collect();
            args.change.with_extension(format!("{id}.sig"))
        }
    };
    let file = SignatureFile {
        schema: SIGNATURE.to_owned(),
        change: envelope.id(),
        credential: named.credential.0,
        signature: format!("0x{}", hex::encode(named.signature)),
    };
    let mut json = serde_json::to_string_pretty(&file)?;
    json.push('\n');
    std::fs::write(&path, json).map_err(|error| CliError::Write { path: path.clone(), error })?;
    let mut text = String::new();
    out::line(&mut text, "written", path.display());
    out::text(&text)?;
    Ok(DONE)
}

/// A signature's file; `None` for what is none.
fn load_signature(path: &Path, change: &Hash32) -> Result<Option<NamedSignature>, CliError> {
    let Ok(bytes) = files::read(path, MAX_SIGNATURE) else { return Ok(None) };
    let Ok(file) = serde_json::from_slice::<SignatureFile>(&bytes) else { return Ok(None) };
    if file.schema != SIGNATURE {
        return Ok(None);
    }
    if file.change != *change {
        let reason = format!("it is under change {}, not {change}", file.change);
        return Err(CliError::input(path.display(), reason));
    }
    let signature = parse_hex("signature", &file.signature)
        .map_err(|error| CliError::input(path.display(), error))?;
    Ok(Some(NamedSignature { credential: CredentialId(file.credential), signature }))
}

/// Runs `casemate policy submit`.
pub(crate) async fn submit(args: &SubmitArgs) -> Result<u8, CliError> {
    let envelope = load_change(&args.change)?;
    let id = envelope.id();
    let (mut policy, mut signatures) = (None, Vec::new());
    for path in &args.files {
        match load_signature(path, &id)? {
            Some(signature) => signatures.push(signature),
            None if policy.is_none() => policy = Some((path, load_policy(path)?)),
            None => {
                return Err(CliError::input(path.display(), "neither a signature nor the policy"));
            }
        }
    }
    let beside = match (&envelope.change, policy) {
        (Change::SetPolicy { policy: named }, Some((path, policy))) => {
            if policy.policy_hash() != *named {
                let reason =
                    format!("its hash is {}, and the change sets {named}", policy.policy_hash());
                return Err(CliError::input(path.display(), reason));
            }
            Some(policy.canonical_bytes())
        }
        (Change::SetPolicy { policy }, None) => {
            return Err(CliError::Usage(format!("the policy {policy} is not among the files")));
        }
        (_, Some((path, _))) => {
            return Err(CliError::input(path.display(), "the change sets no policy"));
        }
        (_, None) => None,
    };
    let session = args.cluster.open()?;
    let signed = SignedChange { envelope, signatures };
    let client = &session.client;
    let submitting = client.submit_change(&signed, beside, duration(args.timeout));
    let belief = waiting("submitting the change", submitting).await?;
    let views = belief.views().iter().map(|given| &given.view);
    let newest = views.max_by_key(|view| view.size);
    let waits = newest.and_then(|view| view.pending_changes.iter().find(|change| change.id == id));
    let delay = client.genesis().await?.manifest.governance.loosening_delay;
    let from = waits.map(|change| change.seen_at.map(|seen| seen.saturating_add(delay)));
    if args.json {
        out::object(&json!({
            "schema": "casemate.policy.submit/1",
            "change": id,
            "accepted": true,
            "in_force": waits.is_none(),
            "in_force_from": from.flatten().map(|from| from.to_rfc3339()),
        }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    out::line(&mut text, "accepted", id);
    let when = match from {
        None => "now".to_owned(),
        Some(Some(from)) => format!("from {from}"),
        Some(None) => format!("{delay} after a freezer's heartbeat has shown it"),
    };
    out::line(&mut text, "in force", when);
    out::text(&text)?;
    Ok(DONE)
}
