//! `casemate-eif measure` and `inspect`.

use std::fmt::Write as _;
use std::path::PathBuf;

use casemate_eif::contents::MeasuredRoot;
use casemate_eif::cpio::{self, Content};
use casemate_eif::image::{Image, Kind, MAX_IMAGE, Section};
use casemate_eif::kernel::Kernel;
use casemate_eif::measure::Measurements;
use casemate_eif::signature::Signed;
use casemate_image::{MODE_PATH, Mode, PARENT_CID_PATH, ParentCid, TRUST_ROOT_PATH};
use clap::Args;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{CliError, named, pretty, read};

const MAX_EXPECTED: usize = 64 * 1_024;

#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// The image.
    image: PathBuf,
    /// Measurements that it must have: a `measurements.json`.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The image.
    image: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn measure(args: &MeasureArgs) -> Result<String, CliError> {
    let path = named(&args.image);
    let file = read(&args.image, MAX_IMAGE)?;
    let image =
        Image::parse(&file).map_err(|error| CliError::Image { path: path.clone(), error })?;
    let measured =
        Measurements::of(&image).map_err(|error| CliError::Signature { path, error })?.to_json();
    if let Some(expect) = &args.expect {
        let wrong = || CliError::Expected { path: named(expect) };
        let expected = serde_json::from_slice(&read(expect, MAX_EXPECTED)?).map_err(|_| wrong())?;
        let (Value::Object(expected), Value::Object(found)) = (expected, &measured) else {
            return Err(wrong());
        };
        if expected.is_empty() {
            return Err(wrong());
        }
        compare(found, &expected)?;
    }
    Ok(pretty(&measured))
}

/// Every field of both sides is the same.
fn compare(found: &Map<String, Value>, expected: &Map<String, Value>) -> Result<(), CliError> {
    for name in expected.keys().chain(found.keys()) {
        let (found, expected) = (found.get(name), expected.get(name));
        if found != expected {
            let text = |value: Option<&Value>| match value {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => "not there".to_owned(),
            };
            let (found, expected) = (text(found), text(expected));
            return Err(CliError::Differs { name: name.clone(), found, expected });
        }
    }
    Ok(())
}

pub(crate) fn inspect(args: &InspectArgs) -> Result<String, CliError> {
    let path = named(&args.image);
    let file = read(&args.image, MAX_IMAGE)?;
    let image =
        Image::parse(&file).map_err(|error| CliError::Image { path: path.clone(), error })?;
    let measurements =
        Measurements::of(&image).map_err(|error| CliError::Signature { path, error })?;
    let sections: Vec<Value> =
        image.sections().iter().map(|section| described(section, &measurements)).collect();
    let report = json!({
        "default_memory": image.default_memory,
        "default_cpus": image.default_cpus,
        "sections": sections,
        "measurements": measurements.to_json(),
    });
    Ok(if args.json { pretty(&report) } else { text(&report) })
}

fn described(section: &Section<'_>, measurements: &Measurements) -> Value {
    let bytes = section.bytes;
    let mut object = Map::new();
    let mut say = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    say("type", section.kind.name().into());
    say("offset", section.offset.into());
    say("size", bytes.len().into());
    say("sha256", hash(bytes));
    match section.kind {
        Kind::Kernel => {
            say("release", Kernel::check(bytes).map_or(Value::Null, |it| it.release.into()))
        }
        Kind::Cmdline => say("text", String::from_utf8_lossy(bytes).into()),
        Kind::Metadata => say("json", serde_json::from_slice(bytes).unwrap_or_default()),
        Kind::Ramdisk => match cpio::read(bytes) {
            Ok(entries) => say("entries", entries.iter().map(entry).collect()),
            Err(error) => say("not_opened", error.to_string().into()),
        },
        Kind::Signature => {
            if let Ok(signed) = Signed::verify(bytes, &measurements.image.pcr0) {
                say("subject", signed.certificate().subject().into());
                say("certificate_sha256", hash(signed.certificate().der()));
            }
        }
    }
    Value::Object(object)
}

fn hash(bytes: &[u8]) -> Value {
    hex::encode(Sha256::digest(bytes)).into()
}

fn entry(entry: &cpio::Entry<'_>) -> Value {
    let mode = format!("{:04o}", entry.mode);
    match entry.content {
        Content::Directory => json!({ "name": format!("{}/", entry.name), "mode": mode }),
        Content::Device(major, minor) => {
            json!({ "name": entry.name, "mode": mode, "device": format!("{major}:{minor}") })
        }
        Content::File(bytes) => {
            let mut value = json!({
                "name": entry.name,
                "mode": mode,
                "size": bytes.len(),
                "sha256": hash(bytes),
            });
            if let (Some(object), Some((name, says))) =
                (value.as_object_mut(), setting(entry, bytes))
            {
                object.insert(name.to_owned(), says);
            }
            value
        }
    }
}

/// What a measured setting says. One that is none says nothing.
fn setting(entry: &cpio::Entry<'_>, bytes: &[u8]) -> Option<(&'static str, Value)> {
    match format!("/{}", entry.name).as_str() {
        MODE_PATH => Some(("says", Mode::from_file(bytes).ok()?.name().into())),
        PARENT_CID_PATH => Some(("says", ParentCid::from_file(bytes).ok()?.get().into())),
        TRUST_ROOT_PATH => {
            let root = MeasuredRoot::from_pem(core::str::from_utf8(bytes).ok()?).ok()?;
            Some(("certificate_sha256", hex::encode(root.fingerprint()).into()))
        }
        _ => None,
    }
}

/// The same for a person: a line for each field, indented by depth. Texts are of the file, so whatever
/// could move a terminal's cursor is escaped.
fn text(report: &Value) -> String {
    let mut out = String::new();
    lines(&mut out, report, 0);
    out
}

fn lines(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let mut line = |name: &str, value: &Value| match value {
        Value::Object(_) | Value::Array(_) => {
            let _ = writeln!(out, "{indent}{name}:");
            lines(out, value, depth.saturating_add(1));
        }
        Value::String(text) => {
            let _ = writeln!(out, "{indent}{name}: {}", text.escape_debug());
        }
        value => {
            let _ = writeln!(out, "{indent}{name}: {value}");
        }
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| line(name, value)),
        Value::Array(values) => (0..).zip(values).for_each(|(index, value): (u32, _)| {
            line(&index.to_string(), value);
        }),
        _ => {}
    }
}
