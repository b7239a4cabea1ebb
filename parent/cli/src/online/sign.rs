//! `casemate sign`: asks for a signature, verifies what comes, prints it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_api::ReceiptJson;
use casemate_client::{
    Asked, ClientError, IdempotencyKey, Outcome, Role, Sign as _, SignOptions, VerifiedSignature,
    credential::random,
};
use casemate_door::PendingRequestView;
use casemate_proto::request::{MAX_BODY, Payload, SignRequest};
use casemate_proto::{ChainId, DerivationPath, KeyName, Millis, RequestId, Scheme};
use clap::Args;
use serde_json::json;

use super::keys::public_key;
use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, PENDING, duration, out, parse_length, run as run_online};

/// The arguments of `casemate sign`.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The key that signs.
    #[arg(long, value_parser = KeyName::new)]
    key: KeyName,
    /// Which child of it, such as `m/0/7`.
    #[arg(long, value_parser = DerivationPath::parse, default_value = "m")]
    path: DerivationPath,
    /// Who asks: a principal in the cluster file.
    #[arg(long = "as", value_name = "PRINCIPAL", required_unless_present = "credential")]
    principal: Option<String>,
    /// Who asks: a key file.
    #[arg(long, value_name = "FILE")]
    credential: Option<PathBuf>,
    #[command(flatten)]
    what: What,
    /// The chain of a transaction, such as `eip155:8453` [default: the one in the transaction].
    #[arg(long, requires = "tx")]
    chain: Option<ChainId>,
    /// The request's id; the same id gives the same outcome [default: a fresh one].
    #[arg(long, value_name = "HEX", value_parser = RequestId::from_hex)]
    request_id: Option<RequestId>,
    /// Derive the request's id from this, your own name for what is asked.
    #[arg(long, value_name = "KEY", conflicts_with = "request_id")]
    idempotency_key: Option<String>,
    /// How long to ask.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "60s")]
    timeout: Millis,
    /// Go on asking while it waits for approval.
    #[arg(long)]
    wait: bool,
    /// Write the receipt here, as JSON.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is to be signed; `-` reads standard input.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// An unsigned transaction, hex or bytes.
    #[arg(long, value_name = "FILE")]
    tx: Option<PathBuf>,
    /// The JSON of eth_signTypedData_v4.
    #[arg(long, value_name = "FILE")]
    typed_data: Option<PathBuf>,
    /// A message, as it is.
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
    /// A raw hash of 32 bytes, which only a grant that names it allows.
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    hash: Option<Hash>,
}

#[derive(Clone, Copy, Debug)]
struct Hash([u8; 32]);

fn parse_hash(text: &str) -> Result<Hash, String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut hash)
        .map_err(|_| "a hash is 32 bytes of hex".to_owned())?;
    Ok(Hash(hash))
}

/// Runs `casemate sign`.
pub(crate) fn run(args: SignArgs) -> ExitCode {
    run_online(args.json, async move { sign(&args).await })
}

async fn sign(args: &SignArgs) -> Result<u8, CliError> {
    let session = args.cluster.open()?;
    let signer = session.credential(
        args.credential.as_deref(),
        args.principal.as_deref(),
        Role::Requester,
    )?;
    let genesis = session.client.genesis_id();
    let request_id = match (&args.request_id, &args.idempotency_key) {
        (Some(id), _) => *id,
        (None, Some(key)) => IdempotencyKey::new(key.as_str())
            .map_err(|error| CliError::input(key, error))?
            .request_id(&genesis, &signer.public_key().id()),
        (None, None) => RequestId::new(random()),
    };
    let request = SignRequest {
        request_id,
        key: args.key.clone(),
        path: args.path.clone(),
        payload: payload(&args.what, args.chain.as_ref())?,
    };
    let asked = Asked::new(&genesis, &request)?;
    let options = SignOptions { deadline: duration(args.timeout), wait_for_approval: args.wait };
    let asking = session.client.sign(&asked, &signer, &options);
    match waiting("waiting for a signature", asking).await {
        Ok(Outcome::Signed(signature)) => {
            if let Some(path) = &args.receipt {
                write_receipt(path, &signature)?;
            }
            print(&request_id, &signature, args.json)?;
            Ok(DONE)
        }
        Ok(Outcome::Pending(view)) => pending(&view, args.json),
        Err(error) => {
            if !args.json && !error.is_settled() && !matches!(error, ClientError::Cluster(_)) {
                out::note(&format!("casemate: to ask again: `--request-id {request_id}`"))?;
            }
            Err(error.into())
        }
    }
}

fn payload(what: &What, chain: Option<&ChainId>) -> Result<Payload, CliError> {
    if let Some(path) = &what.tx {
        let unsigned = binary(path)?;
        let chain = match chain {
            Some(chain) => chain.clone(),
            None => ChainId::eip155(
                casemate_tx::decode_evm(&unsigned)
                    .map_err(|error| CliError::input(path.display(), error))?
                    .chain_id(),
            ),
        };
        return Ok(Payload::Tx { chain, unsigned });
    }
    if let Some(path) = &what.typed_data {
        let text = String::from_utf8(read(path)?)
            .map_err(|_| CliError::input(path.display(), "not UTF-8 text"))?;
        // one value and nothing behind it: the text goes into the body as it is
        serde_json::from_str::<&serde_json::value::RawValue>(&text)
            .map_err(|error| CliError::input(path.display(), error))?;
        return Ok(Payload::TypedData(text.trim().to_owned()));
    }
    if let Some(path) = &what.message {
        return Ok(Payload::Message(read(path)?));
    }
    match what.hash {
        Some(Hash(hash)) => Ok(Payload::Hash(hash)),
        None => Err(CliError::Usage("nothing to sign is given".to_owned())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let wrong = |error: io::Error| CliError::input(path.display(), error);
    let limit = u64::try_from(MAX_BODY).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(wrong)?;
    } else {
        let file = std::fs::File::open(path).map_err(wrong)?;
        file.take(limit).read_to_end(&mut bytes).map_err(wrong)?;
    }
    if bytes.len() > MAX_BODY {
        return Err(CliError::input(path.display(), format_args!("more than {MAX_BODY} bytes")));
    }
    Ok(bytes)
}

/// A transaction: its bytes, or hex of them.
fn binary(path: &Path) -> Result<Vec<u8>, CliError> {
    let bytes = read(path)?;
    let text: Vec<u8> = bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    match text.strip_prefix(b"0x") {
        Some(digits) => hex::decode(digits).map_err(|error| CliError::input(path.display(), error)),
        None => Ok(hex::decode(&text).unwrap_or(bytes)),
    }
}

fn write_receipt(path: &Path, signature: &VerifiedSignature) -> Result<(), CliError> {
    let wrong = |error: io::Error| CliError::Write { path: path.to_owned(), error };
    let json = ReceiptJson::try_from(signature.receipt())
        .map_err(|error| wrong(io::Error::other(error)))?;
    let mut text = serde_json::to_string_pretty(&json)?;
    text.push('\n');
    std::fs::write(path, text).map_err(wrong)
}

fn shown_signature(signature: &VerifiedSignature) -> String {
    let bytes = match signature.scheme() {
        Scheme::EcdsaSecp256k1 => signature.wallet_signature(),
        Scheme::Ed25519 | Scheme::Bip340Secp256k1 => signature.signature().to_vec(),
    };
    format!("0x{}", hex::encode(bytes))
}

fn print(id: &RequestId, signature: &VerifiedSignature, json: bool) -> Result<(), CliError> {
    let raw = signature.raw_transaction().map(|raw| format!("0x{}", hex::encode(raw)));
    let digest = format!("0x{}", hex::encode(signature.digest()));
    let key = public_key(signature.scheme(), signature.public_key());
    if json {
        let receipt = ReceiptJson::try_from(signature.receipt())
            .map_err(|error| CliError::Print(io::Error::other(error)))?;
        return out::object(&json!({
            "schema": "casemate.sign/1",
            "outcome": "signed",
            "request_id": id,
            "digest": digest,
            "signature": shown_signature(signature),
            "public_key": key,
            "address": signature.address(),
            "raw_transaction": raw,
            "index": signature.index(),
            "signed_index": signature.signed_index(),
            "receipt": receipt,
        }));
    }
    let mut text = String::new();
    out::line(&mut text, "signature", shown_signature(signature));
    if let Some(raw) = raw {
        out::line(&mut text, "transaction", raw);
    }
    out::line(&mut text, "digest", digest);
    out::line(&mut text, "public key", key);
    if let Some(address) = signature.address() {
        out::line(&mut text, "address", address);
    }
    out::line(&mut text, "request", id);
    out::line(
        &mut text,
        "in the log",
        format_args!("records {} and {}", signature.index(), signature.signed_index()),
    );
    out::text(&text)
}

fn pending(view: &PendingRequestView, json: bool) -> Result<u8, CliError> {
    let (id, document) = (view.request_id, view.document);
    if json {
        out::object(&json!({
            "schema": "casemate.sign/1",
            "outcome": "pending",
            "request_id": id,
            "credential": view.credential.to_string(),
            "document": document,
            "have": view.have,
            "approved_by": view.approved_by,
            "expires": view.expires.to_rfc3339(),
        }))?;
        return Ok(PENDING);
    }
    let mut text = String::new();
    out::line(&mut text, "pending", format_args!("waits for approval until {}", view.expires));
    out::line(&mut text, "request", id);
    out::line(&mut text, "approvals", view.have);
    out::line(&mut text, "document", document);
    out::text(&text)?;
    out::note(&format!(
        "approve with `casemate approve {id} --as PRINCIPAL`, then ask again with `--request-id {id}`"
    ))?;
    Ok(PENDING)
}
