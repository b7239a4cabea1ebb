//! What these commands print: lines for people, or one JSON object on standard output.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use casemate_client::ClientError;
use casemate_ledger::payload::{Decoded, Form};
use casemate_policy::Policy;
use casemate_proto::request::{Payload, SignRequest};
use casemate_tx::AssetRef;
use serde_json::{Value, json};

use super::CliError;

/// Most characters of a payload that is shown whole.
const MAX_SHOWN: usize = 50_000;

/// Prints an error: on standard error, as JSON on standard output too where that was asked for.
pub(super) fn error(error: &CliError, json: bool) -> io::Result<()> {
    let advice = match error {
        CliError::Client(error) => Some(error.advice()),
        _ => None,
    };
    if json {
        let client = match error {
            CliError::Client(error) => Some(error),
            _ => None,
        };
        let object = json!({
            "schema": "casemate.error/1",
            "error": error.to_string(),
            "code": client.and_then(ClientError::denial_code).map(|code| code.name()),
            "settled": client.map(ClientError::is_settled),
            "advice": advice,
        });
        return writeln!(io::stdout(), "{object}");
    }
    let mut err = io::stderr().lock();
    writeln!(err, "casemate: {error}")?;
    match advice {
        Some(advice) => writeln!(err, "          {advice}"),
        None => Ok(()),
    }
}

/// Prints a text on standard output.
pub(crate) fn text(text: &str) -> Result<(), CliError> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Says something on standard error, where it is not mixed with what a program reads.
pub(crate) fn note(text: &str) -> Result<(), CliError> {
    Ok(writeln!(io::stderr(), "{text}")?)
}

/// Prints one JSON object.
pub(crate) fn object(value: &Value) -> Result<(), CliError> {
    Ok(writeln!(io::stdout(), "{value:#}")?)
}

/// One line `name  value`, the names as wide as each other.
pub(crate) fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    out.push_str(&format!("{name:<12} {value}\n"));
}

/// Asks a person at the terminal; anything but `yes` is no.
pub(crate) fn confirm(question: &str) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(format!(
            "{question} Nobody is at a terminal to ask: give `--yes` to say so"
        )));
    }
    write!(io::stderr(), "{question} Type `yes`: ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(CliError::NotConfirmed) }
}

/// Text of others, on a terminal: no control characters, no marks that turn the writing's direction.
pub(crate) fn plain(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| {
            let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if c.is_control() || turns { '\u{fffd}' } else { c }
        })
        .take(MAX_SHOWN)
        .collect();
    if text.chars().count() > MAX_SHOWN { format!("{shown} …") } else { shown }
}

/// What a request does, as an enclave reads it; amounts in the policy's words where it has them.
pub(super) fn intent(
    out: &mut String,
    request: &SignRequest,
    decoded: &Decoded,
    policy: Option<&Policy>,
) {
    line(out, "key", format_args!("{} at {}", request.key, request.path));
    line(out, "kind", request.payload.kind());
    let intent = &decoded.intent;
    line(out, "action", intent.action.name());
    if let Some(chain) = &intent.chain {
        line(out, "chain", chain);
    }
    let asset_key = intent.asset.and_then(|asset| {
        let token = match asset {
            AssetRef::Native => None,
            AssetRef::Token(contract) => Some(contract),
        };
        Some(casemate_policy::AssetKey { chain: intent.chain.clone()?, token })
    });
    let known = asset_key.and_then(|key| policy?.asset(&key));
    match (known, intent.asset) {
        (Some((id, asset)), _) => {
            let amount = intent.amount.to_decimal(asset.decimals);
            line(out, "amount", format_args!("{amount} {id}"));
        }
        (None, Some(AssetRef::Native)) => {
            line(
                out,
                "amount",
                format_args!("{} of the chain's own asset, in base units", intent.amount),
            );
        }
        (None, Some(AssetRef::Token(contract))) => {
            line(out, "amount", format_args!("{} base units of token {contract}", intent.amount));
        }
        (None, None) => {}
    }
    if let Some(payer) = &intent.payer {
        line(out, "from", payer);
    }
    if let Some(to) = &intent.to {
        line(out, "to", to);
    }
    if !intent.native_value.is_zero() {
        line(out, "with value", format_args!("{} base units", intent.native_value));
    }
    if let Some(fee) = &intent.max_fee {
        let native = intent.chain.as_ref().and_then(|chain| policy?.native(chain));
        let fee = match native {
            Some((id, asset)) => format!("{} {id}", fee.to_decimal(asset.decimals)),
            None => format!("{fee} base units of the chain's own asset"),
        };
        line(out, "fee at most", fee);
    }
    if let Some(domain) = &intent.domain {
        line(
            out,
            "domain",
            format_args!("{}, version {}", plain(&domain.name), plain(&domain.version)),
        );
    }
    if let Some(validity) = &intent.validity {
        line(out, "valid", format_args!("after {}, before {}", validity.after, validity.before));
    }
    match (&request.payload, &decoded.form) {
        (Payload::Message(bytes), _) => match std::str::from_utf8(bytes) {
            Ok(message) => line(out, "message", format_args!("`{}`", plain(message))),
            Err(_) => line(out, "message", format_args!("0x{}", hex::encode(bytes))),
        },
        (Payload::TypedData(json), Form::TypedData(_)) => line(out, "typed data", plain(json)),
        (Payload::Hash(_), _) => {
            line(out, "RAW HASH", "nobody can see what it stands for");
        }
        _ => {}
    }
    line(out, "digest", format_args!("0x{}", hex::encode(decoded.digest)));
}

/// The same for a program.
pub(super) fn intent_json(request: &SignRequest, decoded: &Decoded) -> Value {
    let intent = &decoded.intent;
    json!({
        "key": request.key,
        "path": request.path,
        "kind": request.payload.kind(),
        "action": intent.action.name(),
        "chain": intent.chain,
        "asset": intent.asset.map(|asset| match asset {
            AssetRef::Native => "native".to_owned(),
            AssetRef::Token(contract) => contract.to_string(),
        }),
        "amount": intent.amount,
        "from": intent.payer,
        "to": intent.to,
        "native_value": intent.native_value,
        "max_fee": intent.max_fee,
        "digest": format!("0x{}", hex::encode(decoded.digest)),
    })
}
