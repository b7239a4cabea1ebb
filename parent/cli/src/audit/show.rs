//! `casemate audit show`: the records of a store as it says them, not verified.

use std::io::{self, Write};
use std::path::PathBuf;

use casemate_audit::note::MAX_NOTE;
use casemate_audit::ocsf::{Activity, OcsfDetail, Outcome, ocsf_line};
use casemate_audit::store::{CHECKPOINT, read_tile};
use casemate_audit::tile::{TileKind, parse_bundle, tiles_for};
use casemate_audit::{Checkpoint, CheckpointError, Record, SignedNote, StoreRead};
use casemate_ledger::{Entry, EntryBody, Verdict};
use casemate_proto::cbor;
use clap::Args;
use serde_json::{Value, json};

use super::AuditError;
use super::folder::Folder;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The first record.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// The most records.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Only records of this kind: `request`, `approval`, `governance`, `signed`, …
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Print each record as a line of JSON.
    #[arg(long)]
    json: bool,
    /// Print each record as a line of JSON for a SIEM (OCSF, class API Activity).
    #[arg(long, conflicts_with = "json")]
    ocsf: bool,
}

impl ShowArgs {
    pub(super) const fn is_json(&self) -> bool {
        self.json || self.ocsf
    }
}

pub(super) fn run(args: &ShowArgs) -> Result<bool, AuditError> {
    let folder = Folder::open(&args.store)?;
    let bytes = folder
        .read(CHECKPOINT, MAX_NOTE)?
        .ok_or_else(|| AuditError::Missing { path: CHECKPOINT.to_owned() })?;
    let note = SignedNote::parse(&bytes).map_err(CheckpointError::from)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    let mut out = io::stdout().lock();
    let mut left = args.count.unwrap_or(u64::MAX);
    each_leaf(&folder, args.from, checkpoint.size, |index, leaf| {
        let line = match Record::parse(leaf) {
            Ok(record) if args.kind.as_ref().is_some_and(|kind| *kind != record.fields().kind) => {
                return Ok(true);
            }
            Ok(record) if args.ocsf => ocsf_line(&checkpoint.origin, &record, &detail(&record)),
            Ok(record) if args.json => json_line(&record).to_string(),
            Ok(record) => text_line(&record),
            Err(error) if args.is_json() => {
                json!({ "index": index, "error": error.to_string() }).to_string()
            }
            Err(error) => format!("{index:>8}  {error}"),
        };
        if left == 0 {
            return Ok(false);
        }
        left = left.saturating_sub(1);
        writeln!(out, "{line}")?;
        Ok(true)
    })?;
    if !args.is_json() {
        writeln!(
            io::stderr().lock(),
            "as the store says, not verified: see `casemate audit verify`"
        )?;
    }
    Ok(true)
}

/// Shows the leaves from `from` on until `size`, or until `show` says no more.
pub(crate) fn each_leaf(
    folder: &Folder,
    from: u64,
    size: u64,
    mut show: impl FnMut(u64, &[u8]) -> Result<bool, AuditError>,
) -> Result<(), AuditError> {
    // bundles before the one that holds `from` need not be read
    let start = from.min(size) & !0xff;
    for tile in tiles_for(start, size).filter(|tile| tile.kind() == TileKind::Entries) {
        let path = tile.to_string();
        let (found, bytes) =
            read_tile(folder, tile)?.ok_or_else(|| AuditError::Missing { path: path.clone() })?;
        let leaves =
            parse_bundle(found, &bytes).map_err(|error| AuditError::Tile { path, error })?;
        let first = tile.index().saturating_mul(256);
        for (index, leaf) in (first..).zip(leaves).take(usize::from(tile.width())) {
            if index >= from && !show(index, leaf)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn verdict(record: &Record) -> Option<Verdict> {
    let bytes = &record.fields().verdict;
    cbor::decode(bytes, casemate_audit::record::MAX_VERDICT).ok()
}

fn text_line(record: &Record) -> String {
    let fields = record.fields();
    let verdict = verdict(record);
    let name = verdict.as_ref().map_or("unreadable", Verdict::name);
    let said = verdict.as_ref().map_or_else(String::new, describe);
    let line =
        format!("{:>8}  {}  {:<13} {name:<9} {said}", fields.index, fields.time, fields.kind);
    line.trim_end().to_owned()
}

fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allowed(allowed) => format!(
            "{} by grant {}, key {} {}",
            allowed.principal, allowed.grant, allowed.key, allowed.path
        ),
        Verdict::Pending(pending) => {
            format!("grant {}, {} of {} approvals", pending.grant, pending.have, pending.need)
        }
        Verdict::Denied(denial) => denial.to_string(),
        Verdict::Repeated { index } => format!("as record {index}"),
        Verdict::Accepted { id, effective } => {
            let id = id.map(|id| id.to_string());
            let effective = effective.map(|time| format!("from {time}"));
            id.into_iter().chain(effective).collect::<Vec<_>>().join(" ")
        }
    }
}

fn json_line(record: &Record) -> Value {
    let fields = record.fields();
    let verdict = verdict(record);
    let counters: Vec<Value> = fields
        .counters
        .iter()
        .map(|c| json!({ "scope": c.scope, "before": c.before, "after": c.after }))
        .collect();
    json!({
        "index": fields.index,
        "time": fields.time.to_rfc3339(),
        "kind": fields.kind,
        "verdict": verdict.as_ref().map(Verdict::name),
        "detail": verdict.as_ref().map(describe),
        "policy": fields.policy,
        "counters": counters,
        "leaf_hash": record.leaf_hash(),
        "previous_root": fields.previous_root,
        "entry": format!("0x{}", hex::encode(&fields.entry)),
    })
}

/// A record in a SIEM's words.
fn detail(record: &Record) -> OcsfDetail {
    let entry = Entry::decode(&record.fields().entry).ok().map(|entry| entry.body);
    let verdict = verdict(record);
    let (principal, resource) = match &verdict {
        Some(Verdict::Allowed(allowed)) => {
            (Some(allowed.principal.to_string()), Some(allowed.key.to_string()))
        }
        _ => (None, None),
    };
    let (activity, credential, request) = match &entry {
        Some(EntryBody::Request { stamp, .. }) => (Activity::Create, Some(stamp.credential), None),
        Some(EntryBody::Approval { proof, .. }) => {
            (Activity::Update, Some(proof.credential()), None)
        }
        Some(EntryBody::Signed { credential, request_id, .. }) => {
            (Activity::Create, Some(*credential), Some(*request_id))
        }
        Some(
            EntryBody::KeyLive(_)
            | EntryBody::Admit(_)
            | EntryBody::Genesis { .. }
            | EntryBody::Recover { .. },
        ) => (Activity::Create, None, None),
        Some(
            EntryBody::Governance(_) | EntryBody::Statement(_) | EntryBody::RaiseVersion { .. },
        ) => (Activity::Update, None, None),
        _ => (Activity::Other, None, None),
    };
    OcsfDetail {
        activity,
        outcome: match verdict {
            Some(Verdict::Denied(denial)) => Outcome::Denied(denial.code.name().to_owned()),
            Some(Verdict::Pending(_)) => Outcome::Pending,
            _ => Outcome::Success,
        },
        principal,
        credential: credential.map(|credential| credential.to_string()),
        request: request.map(|request| request.to_string()),
        resource,
    }
}
