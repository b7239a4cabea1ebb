//! The bill of materials.

use std::path::Path;
use std::sync::LazyLock;

use cargo_metadata::{Metadata, MetadataCommand};
use casemate_eif::sbom::{Crates, Part, SbomError, bill};
use serde_json::Value;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What cargo says of this workspace, and its lock file.
static WORKSPACE: LazyLock<(Metadata, String)> = LazyLock::new(|| {
    let offline = ["--offline", "--filter-platform", "x86_64-unknown-linux-musl"];
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(offline.map(str::to_owned))
        .exec()
        .unwrap();
    (metadata, std::fs::read_to_string(root().join("Cargo.lock")).unwrap())
});

fn bill_of(crates: &Crates) -> Value {
    let part = Part { name: "linux", version: Some("6"), kind: "operating-system", bytes: b"k" };
    bill("0.1.0", b"image", &[part], crates)
}

#[test]
fn bill_names_what_is_in_the_programs_and_nothing_that_only_tests_them() {
    let (metadata, lock) = &*WORKSPACE;
    let bill = bill_of(&Crates::collect(metadata, lock).unwrap());
    let components = bill["components"].as_array().unwrap();
    let names: Vec<&str> = components.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "linux");
    for name in ["casemate-init", "casemate-runtime", "casemate-ledger", "openraft", "rustix"] {
        assert!(names.contains(&name), "{name}");
    }
    for name in
        ["casemate-sim", "casemate-eif", "casemate-dev", "casemate-cli", "tempfile", "cmake"]
    {
        assert!(!names.contains(&name), "{name}");
    }
    assert!(names[1..].is_sorted());
}

#[test]
fn every_crate_has_a_licence_and_every_foreign_one_its_checksum() {
    let (metadata, lock) = &*WORKSPACE;
    let bill = bill_of(&Crates::collect(metadata, lock).unwrap());
    let components = bill["components"].as_array().unwrap();
    assert!(components.len() > 100, "{}", components.len());
    for component in &components[1..] {
        let name = component["name"].as_str().unwrap();
        let licence = &component["licenses"][0];
        let stated = licence["expression"].as_str().or(licence["license"]["name"].as_str());
        assert!(stated.is_some_and(|text| !text.contains('/')), "{name}");
        let own = name.starts_with("casemate-");
        let checksum = component["hashes"][0]["content"].as_str();
        assert_eq!(checksum.map(str::len), (!own).then_some(64), "{name}");
        assert_eq!(component["purl"].is_string(), !own, "{name}");
    }
}

#[test]
fn bill_is_the_same_every_time_and_has_no_path_of_this_machine() {
    let (metadata, lock) = &*WORKSPACE;
    let text = bill_of(&Crates::collect(metadata, lock).unwrap()).to_string();
    assert_eq!(text, bill_of(&Crates::collect(metadata, lock).unwrap()).to_string());
    let here = root().canonicalize().unwrap();
    assert!(!text.contains(here.to_str().unwrap()) && !text.contains("file://"));
}

#[test]
fn lock_file_that_lacks_a_checksum_or_is_none_is_refused() {
    let (metadata, lock) = &*WORKSPACE;
    let refused = |lock: &str| Crates::collect(metadata, lock).unwrap_err();
    let without: String = lock
        .lines()
        .filter(|line| !line.starts_with("checksum"))
        .flat_map(|it| [it, "\n"])
        .collect();
    assert!(matches!(refused(&without), SbomError::NoChecksum { .. }));
    assert_eq!(refused("[[package]]\n"), SbomError::Lock);
    assert_eq!(refused("no lock"), SbomError::Lock);
    assert_eq!(refused(""), SbomError::Lock);
}

#[test]
fn source_without_the_programs_is_refused() {
    let (mut metadata, lock) = WORKSPACE.clone();
    metadata.packages.retain(|package| package.name.as_str() != "casemate-init");
    let refused = Crates::collect(&metadata, &lock).unwrap_err();
    assert_eq!(refused, SbomError::NoProgram { name: "casemate-init" });
}
