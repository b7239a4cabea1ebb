//! What `casemate attest` prints: a text for people, or one JSON object on standard output.

use std::io::{self, Write};

use casemate_attestation_verify::{BoundField, Evidence, Pcr, Refusal, Unmet};
use serde_json::{Value, json};

use super::{AttestError, Judged};

/// The schema of the JSON object, raised when a field changes its meaning.
const SCHEMA: &str = "casemate.attest/1";

/// Prints the outcome: the evidence on standard output, warnings and the reason of a refusal on
/// standard error.
pub(super) fn print_text(
    outcome: &Result<Judged, AttestError>,
    warnings: &[&str],
) -> io::Result<()> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    match outcome {
        Ok(judged) => print_evidence(&mut out, judged)?,
        Err(error) => writeln!(err, "casemate: {error}")?,
    }
    for warning in warnings {
        writeln!(err, "warning: {warning}")?;
    }
    out.flush()
}

fn print_evidence(out: &mut impl Write, judged: &Judged) -> io::Result<()> {
    let evidence = &judged.evidence;
    writeln!(out, "genuine      signature and chain verified, judged at {}", judged.judged_at)?;
    writeln!(out, "root         {}", hex::encode(judged.root.fingerprint()))?;
    writeln!(out, "module_id    {}", evidence.module_id())?;
    writeln!(out, "region       {}", evidence.region())?;
    writeln!(out, "timestamp    {}", evidence.timestamp())?;
    writeln!(out, "expires      {}", evidence.chain_not_after())?;
    writeln!(out, "debug mode   {}", if evidence.is_debug() { "YES" } else { "no" })?;
    for (index, pcr) in evidence.pcrs() {
        let expected = judged.pcrs_checked.contains(&index);
        if expected || index < 3 || !pcr.is_zero() {
            let name = format!("PCR{index}");
            writeln!(out, "{name:<12} {pcr}{}", if expected { "  as expected" } else { "" })?;
        }
    }
    for (name, field) in fields(evidence) {
        match field {
            Some(bytes) => {
                writeln!(out, "{name:<12} {} ({} bytes)", hex::encode(bytes), bytes.len())?;
            }
            None => writeln!(out, "{name:<12} absent")?,
        }
    }
    Ok(())
}

fn fields(evidence: &Evidence) -> [(&'static str, Option<&[u8]>); 3] {
    [
        ("public_key", evidence.public_key()),
        ("user_data", evidence.user_data()),
        ("nonce", evidence.nonce()),
    ]
}

/// Prints the outcome as one JSON object: hex with `0x`, times in milliseconds since 1970.
pub(super) fn print_json(
    outcome: &Result<Judged, AttestError>,
    warnings: &[&str],
) -> io::Result<()> {
    let (evidence, failure) = match outcome {
        Ok(judged) => (evidence_json(judged), Value::Null),
        Err(error) => (Value::Null, failure_json(error)),
    };
    let report = json!({
        "schema": SCHEMA,
        "ok": outcome.is_ok(),
        "evidence": evidence,
        "warnings": warnings,
        "failure": failure,
    });
    let mut out = io::stdout().lock();
    writeln!(out, "{report:#}")?;
    out.flush()
}

fn evidence_json(judged: &Judged) -> Value {
    let evidence = &judged.evidence;
    let pcrs: serde_json::Map<String, Value> =
        evidence.pcrs().map(|(index, pcr)| (index.to_string(), pcr_json(&pcr))).collect();
    let mut object = json!({
        "judged_at_ms": judged.judged_at.get(),
        "root_sha256": prefixed(judged.root.fingerprint()),
        "module_id": evidence.module_id(),
        "region": evidence.region(),
        "timestamp_ms": evidence.timestamp().get(),
        "leaf_not_after_ms": evidence.leaf_not_after().get(),
        "chain_not_after_ms": evidence.chain_not_after().get(),
        "debug": evidence.is_debug(),
        "pcrs": pcrs,
        "pcrs_checked": judged.pcrs_checked,
    });
    if let Some(object) = object.as_object_mut() {
        for (name, field) in fields(evidence) {
            object.insert(name.to_owned(), field.map_or(Value::Null, prefixed));
        }
    }
    object
}

fn prefixed(bytes: &[u8]) -> Value {
    Value::String(format!("0x{}", hex::encode(bytes)))
}

fn pcr_json(pcr: &Pcr) -> Value {
    prefixed(pcr.as_bytes())
}

fn failure_json(error: &AttestError) -> Value {
    let mut failure = json!({ "kind": kind(error), "message": error.to_string() });
    if let (Some(failure), AttestError::Refused(refusal)) = (failure.as_object_mut(), error)
        && let Refusal::Unmet(unmet) = &**refusal
    {
        let (expectation, expected, found) = values(unmet);
        failure.insert("expectation".to_owned(), Value::String(expectation));
        failure.insert("expected".to_owned(), expected);
        failure.insert("found".to_owned(), found);
    }
    failure
}

/// An expectation that is not met, and both values; null stands for what is not there.
fn values(unmet: &Unmet) -> (String, Value, Value) {
    match unmet {
        Unmet::NothingAccepted => ("measurement".to_owned(), Value::Null, Value::Null),
        Unmet::Measurement { found, .. } => {
            ("measurement".to_owned(), Value::Null, Value::String(found.to_string()))
        }
        Unmet::Debug { .. } => ("debug".to_owned(), json!(false), json!(true)),
        Unmet::PcrMissing { index } => (format!("pcr{index}"), Value::Null, Value::Null),
        Unmet::Pcr { index, found, expected } => {
            (format!("pcr{index}"), pcr_json(expected), pcr_json(found))
        }
        Unmet::NonceTooShort { found, least } => {
            ("nonce_bytes".to_owned(), json!(least), json!(found))
        }
        Unmet::Field { field, found, expected } => {
            let name = match field {
                BoundField::PublicKey => "public_key",
                BoundField::UserData => "user_data",
                BoundField::Nonce => "nonce",
            };
            let found = found.as_deref().map_or(Value::Null, prefixed);
            (name.to_owned(), prefixed(expected), found)
        }
        Unmet::Region { found, expected } => ("region".to_owned(), json!(expected), json!(found)),
        Unmet::TooOld { timestamp, now, max_age_ms } => {
            let age = now.get().saturating_sub(timestamp.get());
            ("max_age_ms".to_owned(), json!(max_age_ms), json!(age))
        }
        Unmet::FromTheFuture { timestamp, now, tolerance_ms } => {
            let lead = timestamp.get().saturating_sub(now.get());
            ("future_tolerance_ms".to_owned(), json!(tolerance_ms), json!(lead))
        }
    }
}

/// The kind of a failure, for programs; the message is for people and may change.
fn kind(error: &AttestError) -> &'static str {
    match error {
        AttestError::Input(_) => "input",
        AttestError::Root(_) => "root",
        AttestError::MaxAgeAtDocument | AttestError::MaxAgeTooLarge => "usage",
        AttestError::Clock => "clock",
        AttestError::Refused(refusal) => match **refusal {
            Refusal::Malformed(_) => "malformed",
            Refusal::Root { .. } => "untrusted_root",
            Refusal::Certificate { .. } => "certificate",
            Refusal::Identity(_) => "identity",
            Refusal::Signature => "signature",
            Refusal::Unmet(_) => "expectation",
        },
    }
}
