//! The documents against the code: what they name must exist.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_api::ready::Failing;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Names of functions that have a test attribute on one of the lines before them.
fn test_names() -> BTreeSet<String> {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let mut is_test = false;
        for line in fs::read_to_string(&file).unwrap().lines().map(str::trim) {
            if line == "#[test]" || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(rest) =
                line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")
            {
                if is_test {
                    names.insert(rest.split('(').next().unwrap().to_owned());
                }
                is_test = false;
            }
        }
    }
    names
}

/// What stands between backticks and looks like a test's name.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| {
        word.matches('_').count() >= 2
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

fn missing(text: &str, names: &BTreeSet<String>) -> Vec<String> {
    quoted(text).filter(|name| !names.contains(*name)).map(str::to_owned).collect()
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let names = test_names();
    let text = fs::read_to_string(root().join("docs/THREAT-MODEL.md")).unwrap();
    assert!(quoted(&text).count() > 60, "the threat model names its tests");
    assert_eq!(missing(&text, &names), Vec::<String>::new());
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let text = "| threat | answer | `no_such_test_anywhere` |";
    assert_eq!(missing(text, &test_names()), ["no_such_test_anywhere"]);
}

#[test]
fn every_file_that_the_documents_link_to_exists() {
    let mut checked = 0;
    for document in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/THREAT-MODEL.md",
        "docs/RUNBOOK.md",
        "CONTRIBUTING.md",
    ] {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let target = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{document} links to {link}");
            checked += 1;
        }
    }
    assert!(checked > 5, "{checked} links");
}

#[test]
fn runbook_has_a_line_for_everything_that_readyz_can_say_is_in_the_way() {
    let text = fs::read_to_string(root().join("docs/RUNBOOK.md")).unwrap();
    for failing in [
        Failing::Enclave,
        Failing::Halted,
        Failing::Configuration,
        Failing::Member,
        Failing::Majority,
        Failing::Store,
    ] {
        // a new one does not compile here until it has its line there
        match failing {
            Failing::Enclave
            | Failing::Halted
            | Failing::Configuration
            | Failing::Member
            | Failing::Majority
            | Failing::Store => {}
        }
        let name = serde_json::to_value(failing).unwrap();
        let line = format!("\n| `{}` |", name.as_str().unwrap());
        assert_eq!(text.matches(&line).count(), 1, "{line}");
    }
}
