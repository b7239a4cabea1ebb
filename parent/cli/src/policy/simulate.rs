//! `casemate policy simulate`: one request, decided as the enclaves would.

use std::path::{Path, PathBuf};

use casemate_policy::{
    Approved, Ask, Charge, ChargeBook, ChargeKind, Decision, Policy, Slack, evaluate,
};
use casemate_proto::{
    Algorithm, Amount, AssetId, CredentialId, DerivationPath, KeyName, Millis, PrincipalId,
    UnixMillis,
    request::{MAX_BODY, Payload, SignRequest},
};
use casemate_tx::{Action, EvmAddress, Intent, decode_evm, decode_typed_data};
use clap::Args;
use serde::Deserialize;

use super::{
    DONE, PolicyCliError, load, now, output, parse_length, parse_time, print, print_json, read,
};

const DENIED: u8 = 2;
const PENDING: u8 = 3;
/// Most bytes of a history.
const MAX_HISTORY: usize = 64 << 20;

/// The arguments of `casemate policy simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The policy.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The request's body: {"kind": "tx", "chain": …, "input": …}. `request_id`, `key` and `path`
    /// may be left out.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// Who asks.
    #[arg(long, value_parser = parse_principal)]
    principal: PrincipalId,
    /// The key, where the request names none.
    #[arg(long, value_parser = parse_key)]
    key: Option<KeyName>,
    /// The path below it, where the request names none [default: m].
    #[arg(long, value_parser = parse_path)]
    path: Option<DerivationPath>,
    /// The key's address at that path [default: the payer that the payload names].
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    signer: Option<EvmAddress>,
    /// The time [default: this machine's clock].
    #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
    at: Option<UnixMillis>,
    /// When the request was first seen [default: the time].
    #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
    first_seen: Option<UnixMillis>,
    /// Who has approved, with a plain credential; may be repeated.
    #[arg(long, value_name = "PRINCIPAL", value_parser = parse_principal)]
    approved_by: Vec<PrincipalId>,
    /// Who has approved with a passkey; may be repeated.
    #[arg(long, value_name = "PRINCIPAL", value_parser = parse_principal)]
    approved_by_passkey: Vec<PrincipalId>,
    /// What was charged before, as JSON: [{"at": RFC3339, "key", "path", "principal", "asset",
    /// "kind": "amount"|"fee", "amount": base units}, …].
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// By how much windows are lengthened (τ + 2δ); none unless it is given.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length)]
    slack: Option<Millis>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

fn parse_principal(text: &str) -> Result<PrincipalId, String> {
    PrincipalId::new(text).map_err(|error| error.to_string())
}
fn parse_key(text: &str) -> Result<KeyName, String> {
    KeyName::new(text).map_err(|error| error.to_string())
}
fn parse_path(text: &str) -> Result<DerivationPath, String> {
    DerivationPath::parse(text).map_err(|error| error.to_string())
}
fn parse_address(text: &str) -> Result<EvmAddress, String> {
    EvmAddress::parse(text).ok_or_else(|| format!("`{text}` is not an address"))
}

pub(super) fn run(args: &SimulateArgs) -> Result<u8, PolicyCliError> {
    let policy = load(&args.policy)?;
    let at = args.at.map_or_else(now, Ok)?;
    let wrong = |reason: String| PolicyCliError::Input { path: args.request.clone(), reason };
    let request = request(args)?;
    let slack = Slack::new(args.slack.unwrap_or_default(), Millis(0));
    let mut book = ChargeBook::new(slack);
    if let Some(path) = &args.history {
        fill(&mut book, &policy, path)?;
    }
    let credential = credential(&policy, &args.principal, false)?;
    let approvals = approvals(&policy, args, at)?;
    let decision = match intent(&request.payload) {
        Err(denial) => Decision::Deny(*denial),
        Ok(intent) => {
            let ask = Ask {
                key: &request.key,
                path: &request.path,
                principal: &args.principal,
                credential: &credential,
                signer: args.signer.or(intent.payer),
                intent: &intent,
                approvals: &approvals,
                first_seen: args.first_seen.unwrap_or(at),
            };
            if book.latest() > at {
                return Err(wrong(format!("the history goes on after {at}")));
            }
            evaluate(&policy, &book, &ask, at, slack)
        }
    };
    if args.json {
        print_json(&output::decision(&policy, &decision))?;
    } else {
        print(&output::decision_text(&policy, &decision))?;
    }
    Ok(match decision {
        Decision::Allow(_) => DONE,
        Decision::Pending(_) => PENDING,
        Decision::Deny(_) => DENIED,
    })
}

/// The request, its missing parts taken from the command line. They are added to its text and not
/// to a parsed value: typed data is read from the very bytes.
fn request(args: &SimulateArgs) -> Result<SignRequest, PolicyCliError> {
    #[derive(Deserialize)]
    struct Named {
        request_id: Option<serde::de::IgnoredAny>,
        key: Option<KeyName>,
        path: Option<DerivationPath>,
    }
    let wrong = |reason: String| PolicyCliError::Input { path: args.request.clone(), reason };
    let body = read(&args.request, MAX_BODY)?;
    let text = String::from_utf8(body).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
    let named: Named =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not a request: {error}")))?;
    let mut added = String::new();
    if named.request_id.is_none() {
        added.push_str(r#""request_id":"0x00000000000000000000000000000000","#);
    }
    match (&named.key, &args.key) {
        (Some(key), Some(other)) if key != other => {
            return Err(PolicyCliError::Usage(format!(
                "the request is for key `{key}`, not `{other}`"
            )));
        }
        (None, None) => {
            return Err(PolicyCliError::Usage("the request names no key: give --key".to_owned()));
        }
        (None, Some(key)) => added.push_str(&format!(r#""key":"{key}","#)),
        (Some(_), _) => {}
    }
    match (&named.path, &args.path) {
        (Some(path), Some(other)) if path != other => {
            let usage = format!("the request is for path `{path}`, not `{other}`");
            return Err(PolicyCliError::Usage(usage));
        }
        (None, Some(path)) => added.push_str(&format!(r#""path":"{path}","#)),
        _ => {}
    }
    let whole = text.replacen('{', &format!("{{{added}"), 1);
    SignRequest::parse(whole.as_bytes()).map_err(|error| wrong(error.to_string()))
}

/// What the payload does; a payload that no enclave reads is denied, as they would.
fn intent(payload: &Payload) -> Result<Intent, Box<casemate_proto::Denial>> {
    let refused = |error: casemate_tx::TxError| {
        Box::new(casemate_proto::Denial::new(error.denial_code(), error))
    };
    match payload {
        Payload::Tx { chain, unsigned } => {
            let intent = decode_evm(unsigned).map_err(refused)?.intent().clone();
            if intent.chain.as_ref() != Some(chain) {
                let detail = format!("the transaction is not for `{chain}`");
                let code = casemate_proto::DenialCode::Malformed;
                return Err(Box::new(casemate_proto::Denial::new(code, detail)));
            }
            Ok(intent)
        }
        Payload::TypedData(text) => {
            Ok(decode_typed_data(text.as_bytes()).map_err(refused)?.intent().clone())
        }
        Payload::Message(_) => Ok(bare(Action::Message)),
        Payload::Hash(_) => Ok(bare(Action::RawHash)),
    }
}

const fn bare(action: Action) -> Intent {
    Intent {
        action,
        chain: None,
        asset: None,
        payer: None,
        to: None,
        amount: Amount::ZERO,
        native_value: Amount::ZERO,
        max_fee: None,
        domain: None,
        validity: None,
    }
}

/// A credential of a principal that is, or is not, a passkey.
fn credential(
    policy: &Policy,
    principal: &PrincipalId,
    passkey: bool,
) -> Result<CredentialId, PolicyCliError> {
    let keys = policy.doc().principals.get(principal);
    let keys = keys.ok_or_else(|| {
        PolicyCliError::Usage(format!("no principal `{principal}` in this policy"))
    })?;
    let is_passkey = |algorithm| algorithm == Algorithm::WebauthnP256;
    let found = keys.iter().find(|key| is_passkey(key.algorithm()) == passkey);
    let what = if passkey { "passkey" } else { "credential that is no passkey" };
    found
        .map(casemate_proto::PublicKey::id)
        .ok_or_else(|| PolicyCliError::Usage(format!("`{principal}` has no {what}")))
}

fn approvals(
    policy: &Policy,
    args: &SimulateArgs,
    at: UnixMillis,
) -> Result<Vec<Approved>, PolicyCliError> {
    let plain = args.approved_by.iter().map(|p| (p, false));
    let keys = args.approved_by_passkey.iter().map(|p| (p, true));
    plain
        .chain(keys)
        .map(|(principal, passkey)| {
            let credential = credential(policy, principal, passkey)?;
            Ok(Approved { principal: principal.clone(), credential, passkey, at })
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: String,
    key: KeyName,
    #[serde(default)]
    path: DerivationPath,
    principal: PrincipalId,
    asset: Option<AssetId>,
    kind: LineKind,
    amount: Amount,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineKind {
    Amount,
    Fee,
}

fn fill(book: &mut ChargeBook, policy: &Policy, path: &Path) -> Result<(), PolicyCliError> {
    let wrong = |reason: String| PolicyCliError::Input { path: path.to_owned(), reason };
    let bytes = read(path, MAX_HISTORY)?;
    let lines: Vec<Line> =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let mut charges = Vec::with_capacity(lines.len());
    for (i, line) in lines.into_iter().enumerate() {
        let at = UnixMillis::from_rfc3339(&line.at)
            .map_err(|error| wrong(format!("[{i}].at: {error}")))?;
        let asset = match &line.asset {
            None => None,
            Some(id) => Some(
                policy
                    .doc()
                    .assets
                    .get(id)
                    .ok_or_else(|| wrong(format!("[{i}].asset: no asset `{id}` in the policy")))?
                    .key(),
            ),
        };
        let kind = match line.kind {
            LineKind::Amount => ChargeKind::Amount,
            LineKind::Fee => ChargeKind::Fee,
        };
        let (key, path, principal, amount) = (line.key, line.path, line.principal, line.amount);
        charges.push(Charge { at, key, path, principal, asset, kind, amount });
    }
    charges.sort_by_key(|charge| charge.at);
    book.record(&charges).map_err(|error| wrong(error.to_string()))
}
