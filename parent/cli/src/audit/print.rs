//! What `casemate audit` prints: a text for people, or one JSON object on standard output.

use std::io::{self, Write};

use casemate_audit::Report;
use casemate_audit::custody::CustodyReport;
use casemate_audit::reconcile::Reconciliation;
use serde_json::{Value, json};

use super::AuditError;
use super::live::Compared;

/// Said where the genesis id was taken from the store itself.
const NOT_PINNED: &str = "the genesis id was not given (--genesis): the store agrees with itself, \
     which does not show that it is of your cluster";

pub(super) fn error(error: &AuditError, json: bool) -> io::Result<()> {
    if json {
        let object = json!({ "schema": "casemate.audit.error/1", "error": error.to_string() });
        return writeln!(io::stdout().lock(), "{object}");
    }
    writeln!(io::stderr().lock(), "casemate: {error}")
}

fn warnings(pinned: bool) -> Vec<&'static str> {
    if pinned { Vec::new() } else { vec![NOT_PINNED] }
}

fn print_json(
    schema: &str,
    parts: impl IntoIterator<Item = (&'static str, serde_json::Result<Value>)>,
    pinned: bool,
    compared: Option<&Compared>,
) -> io::Result<()> {
    let mut object = serde_json::Map::new();
    object.insert("schema".to_owned(), json!(schema));
    for (name, part) in parts {
        object.insert(name.to_owned(), part.map_err(io::Error::other)?);
    }
    if let Some(compared) = compared {
        object.insert("live".to_owned(), compared.json());
    }
    object.insert("genesis_pinned".to_owned(), json!(pinned));
    object.insert("warnings".to_owned(), json!(warnings(pinned)));
    writeln!(io::stdout().lock(), "{}", Value::Object(object))
}

/// What was found, on standard error.
fn print_findings(report: &Report, pinned: bool) -> io::Result<()> {
    let mut err = io::stderr().lock();
    if !report.is_verified() {
        let found = report.findings().len();
        writeln!(err, "casemate: not verified: {found} findings, in the order they were met")?;
    }
    for finding in report.findings() {
        writeln!(err, "  · {finding}")?;
    }
    if report.more_findings() > 0 {
        writeln!(err, "  · and {} more", report.more_findings())?;
    }
    for warning in warnings(pinned) {
        writeln!(err, "warning: {warning}")?;
    }
    Ok(())
}

/// What was found by comparing with the nodes, on standard output.
fn print_compared(compared: Option<&Compared>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, line) in compared.map(Compared::lines).unwrap_or_default() {
        writeln!(out, "{name:<12} {line}")?;
    }
    Ok(())
}

pub(super) fn report(
    report: &Report,
    pinned: bool,
    compared: Option<&Compared>,
    json: bool,
) -> io::Result<()> {
    if json {
        let parts = [("report", serde_json::to_value(report))];
        return print_json("casemate.audit.verify/1", parts, pinned, compared);
    }
    print_report(&mut io::stdout().lock(), report)?;
    print_compared(compared)?;
    print_findings(report, pinned)
}

fn print_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let counts = report.counts();
    writeln!(out, "{:<12} {}", "verified", if report.is_verified() { "yes" } else { "NO" })?;
    writeln!(out, "{:<12} {}", "cluster", report.genesis())?;
    if let (Some(size), Some(root)) = (report.size(), report.root()) {
        writeln!(out, "{:<12} {size} records, root {root}", "checkpoint")?;
    }
    for cosigner in report.cosigners() {
        writeln!(out, "{:<12} {}", "cosigned by", cosigner.name)?;
    }
    let log = if report.is_log_signed() { "signed the newest checkpoint" } else { "did not sign" };
    writeln!(out, "{:<12} {log}", "log key")?;
    if let Some(time) = report.last_time() {
        writeln!(out, "{:<12} {time}", "last entry")?;
    }
    writeln!(out, "{:<12} {} of {} records", "executed", counts.replayed, counts.records)?;
    writeln!(
        out,
        "{:<12} {} checkpoints, {} bundles, {} tiles, {} receipts",
        "checked", counts.checkpoints, counts.bundles, counts.tiles, counts.receipts
    )?;
    writeln!(
        out,
        "{:<12} {} on record, {} of them with a receipt here",
        "signatures", counts.signatures, counts.signatures_with_receipt
    )?;
    for (kind, count) in &counts.kinds {
        writeln!(out, "{:<12} {count} {kind}", "")?;
    }
    Ok(())
}

pub(super) fn reconciliation(
    found: &Reconciliation,
    report: &Report,
    pinned: bool,
    compared: Option<&Compared>,
    json: bool,
) -> io::Result<()> {
    if json {
        let parts = [
            ("reconciliation", serde_json::to_value(found)),
            ("report", serde_json::to_value(report)),
        ];
        return print_json("casemate.audit.reconcile/1", parts, pinned, compared);
    }
    let mut out = io::stdout().lock();
    for matched in &found.recorded {
        writeln!(out, "record {:>8}  {}", matched.index, matched.seen)?;
    }
    for seen in &found.unrecorded {
        writeln!(out, "NO RECORD        {seen}")?;
    }
    writeln!(
        out,
        "{} seen have a record, {} have none; {} on record were not seen",
        found.recorded.len(),
        found.unrecorded.len(),
        found.not_seen
    )?;
    drop(out);
    print_compared(compared)?;
    print_findings(report, pinned)
}

pub(super) fn custody(
    custody: &CustodyReport,
    report: &Report,
    pinned: bool,
    compared: Option<&Compared>,
    json: bool,
) -> io::Result<()> {
    if json {
        let parts = [
            ("custody", serde_json::to_value(custody)),
            ("log_verified", Ok(json!(report.is_verified()))),
        ];
        return print_json("casemate.audit.custody/1", parts, pinned, compared);
    }
    write!(io::stdout().lock(), "{custody}")?;
    print_compared(compared)?;
    print_findings(report, pinned)
}
