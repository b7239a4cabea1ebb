//! The rules can fail: each finds what is planted.

use super::*;

fn member(folder: &str) -> Member {
    let name = format!("casemate-{}", folder.split('/').nth(1).unwrap());
    let manifest = "[package]\ndescription = \"x\"\nversion.workspace = true\n\
        edition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true\n\
        publish.workspace = true\n[lints]\nworkspace = true\n";
    Member {
        name,
        folder: folder.to_owned(),
        dependencies: Vec::new(),
        features: Vec::new(),
        manifest: manifest.to_owned(),
    }
}

fn on(folder: &str, to: &str, kind: DependencyKind) -> Vec<Violation> {
    let mut member = member(folder);
    let folder = Some(to.to_owned());
    let dependency = Dependency { name: "casemate-x".to_owned(), kind, folder, source: None };
    member.dependencies.push(dependency);
    arrow_violations(&[member])
}

#[test]
fn an_arrow_the_wrong_way_is_found() {
    use DependencyKind::{Build, Development, Normal};
    for (from, to, kind) in [
        ("parent/cli", "enclave/signer", Normal),
        ("parent/cli", "enclave/threshold", Development),
        ("enclave/signer", "parent/cli", Normal),
        ("shared/ledger", "enclave/threshold", Normal),
        ("shared/policy", "attestation/verify", Normal),
        ("attestation/verify", "shared/proto", Normal),
        ("attestation/verify", "enclave/signer", Normal),
        ("attestation/verify", "parent/cli", Normal),
        ("enclave/signer", "tests/sim", Normal),
        ("enclave/signer", "tests/sim", Build),
        ("enclave/signer", "tests/dev-cluster", Development),
        ("eif/init", "enclave/runtime", Normal),
        ("eif/build", "parent/cli", Normal),
        ("eif/build", "eif/init", Normal),
        ("eif/build", "tests/sim", Normal),
        ("enclave/runtime", "eif/init", Normal),
        ("shared/image", "eif/build", Normal),
        ("elsewhere/x", "shared/proto", Normal),
    ] {
        assert!(!on(from, to, kind).is_empty(), "{from} -> {to}");
    }
    for (from, to, kind) in [
        ("shared/ledger", "attestation/verify", Normal),
        ("enclave/signer", "enclave/threshold", Normal),
        ("parent/cli", "shared/policy", Normal),
        ("attestation/verify", "tests/sim", Development),
        ("eif/build", "attestation/verify", Normal),
        ("eif/build", "tests/sim", Development),
        ("eif/init", "attestation/nsm", Normal),
        ("enclave/runtime", "shared/image", Normal),
        ("tests/fuzz", "eif/build", Normal),
        ("tests/dev-cluster", "enclave/signer", Normal),
    ] {
        none(&on(from, to, kind));
    }
}

#[test]
fn a_forbidden_dependency_is_found() {
    let with = |folder: &str, name: &str, kind, source: &str| {
        let mut member = member(folder);
        let source = Some(source.to_owned());
        let dependency = Dependency { name: name.to_owned(), kind, folder: None, source };
        member.dependencies.push(dependency);
        dependency_violations(&[member])
    };
    use DependencyKind::{Development, Normal};
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    assert_eq!(with("tests/sim", "serde_cbor", Development, crates_io).len(), 1);
    assert_eq!(with("shared/proto", "tokio", Normal, crates_io).len(), 1);
    assert_eq!(with("shared/proto", "hex", Normal, "git+https://example.com").len(), 1);
    none(&with("shared/proto", "tokio", Development, crates_io));
    none(&with("parent/cli", "tokio", Normal, crates_io));
}

#[test]
fn a_manifest_of_its_own_and_a_feature_for_tests_are_found() {
    none(&manifest_violations(&[member("shared/proto")]));
    let mut bad = member("shared/proto");
    bad.manifest = bad.manifest.replace("[lints]\nworkspace = true", "[lints.clippy]");
    assert_eq!(manifest_violations(&[bad]).len(), 1);
    let mut bad = member("shared/proto");
    bad.manifest = bad.manifest.replace("edition.workspace", "#edition.workspace");
    assert_eq!(manifest_violations(&[bad]).len(), 1);
    let mut bad = member("enclave/signer");
    bad.features = ["default", "mock-nsm", "attest", "sim"].map(str::to_owned).to_vec();
    assert_eq!(manifest_violations(&[bad.clone()]).len(), 2);
    bad.folder = "tests/sim".to_owned();
    none(&manifest_violations(&[bad]));
}

#[test]
fn impure_names_are_found_and_pure_ones_are_not() {
    let found = |source: &str| {
        let tokens = released(source).tokens;
        impure_names(&tokens).iter().map(|token| token.text.clone()).collect::<Vec<_>>()
    };
    for (source, names) in [
        ("fn f() { std::fs::read(x); }", vec!["fs"]),
        (
            "use std::{collections::{BTreeMap, HashMap}, env, fmt::{self, Write}};",
            vec!["HashMap", "env"],
        ),
        ("use std::time::{Duration, Instant};", vec!["Instant"]),
        ("use std::{thread::{self, spawn}};", vec!["thread"]),
        ("let now = std::time::SystemTime::now();", vec!["SystemTime"]),
        ("let mut rng = rand_core::OsRng;", vec!["OsRng"]),
        ("use ::std::net::TcpStream;", vec!["net"]),
    ] {
        assert_eq!(found(source), names, "{source}");
    }
    for source in [
        "use std::collections::BTreeMap; use core::fmt;",
        "// std::fs\nfn f() { let env = 1; net(env); }",
        "use std::{fmt::{net, env}};",
        "#[cfg(test)] mod tests { use std::fs; }",
    ] {
        assert!(found(source).is_empty(), "{source}");
    }
}

#[test]
fn an_allowed_lint_is_found_and_an_expected_one_is_not() {
    let found = |source: &str| allowed_lints(&released(source).tokens).len();
    assert_eq!(found("#![allow(missing_docs, clippy::unwrap_used)]"), 1);
    assert_eq!(found("#[allow(clippy::panic, clippy::expect_used)] fn f() {}"), 2);
    assert_eq!(found("#[expect(clippy::expect_used, reason = \"x\")] fn f() {}"), 0);
    assert_eq!(found("#[cfg(test)] #[allow(clippy::panic)] mod tests {}"), 0);
}
