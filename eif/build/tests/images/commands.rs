//! `casemate-eif` as a person runs it: status, one line, nothing half-written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use casemate_sim::SimHost;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::kit::{kernel, program, vector};

fn casemate_eif(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_casemate-eif")).args(args).output().unwrap()
}

/// A folder with inputs that serve.
fn inputs() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in
        [("kernel", kernel()), ("init", program(b"init")), ("enclave", program(b"enclave"))]
    {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    for name in ["cert.pem", "key.pem", "other-key.pem"] {
        std::fs::write(folder.path().join(name), vector(&format!("signer/{name}"))).unwrap();
    }
    folder
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn build(folder: &TempDir, out: &str, more: &[(&str, &str)]) -> Output {
    let mut named: Vec<(String, String)> = ["kernel", "init", "enclave"]
        .map(|name| (format!("--{name}"), path(folder, name)))
        .to_vec();
    named.push(("--source".to_owned(), source().to_str().unwrap().to_owned()));
    for (name, value) in more {
        named.retain(|(known, _)| known != name);
        named.push(((*name).to_owned(), (*value).to_owned()));
    }
    let out = path(folder, out);
    let mut args = vec!["build", "--out", &out];
    args.extend(named.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    casemate_eif(&args)
}

/// The one line that says why, of a command that ended with this status.
fn refusal(output: &Output, status: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text.trim_end().strip_prefix("error: ").unwrap().to_owned()
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn two_builds_in_two_folders_give_the_same_bytes() {
    let (one, other) = (inputs(), inputs());
    let signed = |folder: &TempDir| {
        let (cert, key) = (path(folder, "cert.pem"), path(folder, "key.pem"));
        let built = build(folder, "out", &[("--sign-cert", &cert), ("--sign-key", &key)]);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        built.stdout
    };
    assert_eq!(signed(&one), signed(&other));
    let (one, other) = (one.path().join("out"), other.path().join("out"));
    let files = ["casemate.eif", "measurements.json", "sbom.cdx.json"];
    assert_eq!(entries(&one), files);
    assert_eq!(entries(&other), files);
    for name in files {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(!read(&one).is_empty() && read(&one) == read(&other), "{name}");
    }
}

#[test]
fn image_that_was_built_measures_to_what_was_said_and_is_shown() {
    let folder = inputs();
    let host = SimHost::new().unwrap();
    std::fs::write(folder.path().join("root.pem"), host.root_pem().unwrap()).unwrap();
    let root = path(&folder, "root.pem");
    let built = build(&folder, "out", &[("--trust-root", &root), ("--parent-cid", "2")]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let (image, said) = (path(&folder, "out/casemate.eif"), path(&folder, "out/measurements.json"));
    let measured = casemate_eif(&["measure", &image, "--expect", &said]);
    assert!(measured.status.success());
    assert_eq!(measured.stdout, built.stdout);
    assert_eq!(measured.stdout, std::fs::read(&said).unwrap());

    let shown = casemate_eif(&["inspect", &image, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(report["sections"][0]["release"], "6.12.57");
    let settings = &report["sections"][4]["entries"];
    assert_eq!(settings[4]["name"], "etc/casemate/parent-cid");
    assert_eq!(settings[4]["size"], 2);
    assert_eq!((&settings[3]["says"], &settings[4]["says"]), (&"simulated".into(), &2.into()));
    let fingerprint = hex::encode(Sha256::digest(host.root_der()));
    assert_eq!(settings[5]["certificate_sha256"], fingerprint);
    let text = String::from_utf8(casemate_eif(&["inspect", &image]).stdout).unwrap();
    assert!(text.contains("      name: etc/casemate/trust-root.pem\n"), "{text}");
}

#[test]
fn image_that_measures_to_something_else_is_refused() {
    let folder = inputs();
    assert!(build(&folder, "out", &[]).status.success());
    assert!(build(&folder, "other", &[("--cmdline", "quiet")]).status.success());
    let (image, other) =
        (path(&folder, "out/casemate.eif"), path(&folder, "other/measurements.json"));
    let refused = refusal(&casemate_eif(&["measure", &image, "--expect", &other]), 1);
    assert!(refused.starts_with("PCR0 is `"), "{refused}");
    std::fs::write(&other, "{}").unwrap();
    let refused = refusal(&casemate_eif(&["measure", &image, "--expect", &other]), 1);
    assert!(refused.ends_with("is no file of measurements"), "{refused}");
}

#[test]
fn image_of_aws_is_measured_and_its_ramdisks_are_not_opened() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("signed.eif"), vector("signed.eif")).unwrap();
    let image = path(&folder, "signed.eif");
    let text = String::from_utf8(casemate_eif(&["measure", &image]).stdout).unwrap();
    assert!(text.contains("\"PCR8\": \"a41633223072"), "{text}");
    let text = String::from_utf8(casemate_eif(&["inspect", &image]).stdout).unwrap();
    assert!(text.contains("not_opened: ") && text.contains("certificate_sha256: "), "{text}");
}

#[test]
fn bad_inputs_are_refused_in_one_line_and_nothing_is_written() {
    let folder = inputs();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        path(&folder, name)
    };
    let cut = kernel();
    let (cert, other_key) = (path(&folder, "cert.pem"), path(&folder, "other-key.pem"));
    let cases: Vec<(Vec<(&str, String)>, &str)> = vec![
        (vec![("--kernel", file("text", b"no kernel"))], "the kernel is no bzImage"),
        (vec![("--kernel", file("cut", &cut[..cut.len() - 1]))], "the kernel is cut short"),
        (vec![("--kernel", path(&folder, "nowhere"))], "cannot be read"),
        (vec![("--kernel", folder.path().to_str().unwrap().to_owned())], "cannot be read"),
        (vec![("--enclave", file("script", b"#!/bin/sh\n"))], "the enclave program is no ELF"),
        (
            vec![("--enclave", std::env::current_exe().unwrap().to_str().unwrap().to_owned())],
            "the enclave program is not static",
        ),
        (
            vec![("--init", file("marked", &program(b"casemate-marker:simulator")))],
            "the init program carries `casemate-marker:simulator`",
        ),
        (vec![("--trust-root", file("no.pem", b"no PEM"))], "not one PEM block"),
        (vec![("--trust-root", cert.clone())], "the root"),
        (vec![("--trust-root", file("binary", b"\xff\xfe"))], "is not text"),
        (vec![("--cmdline", "console=\u{7}".to_owned())], "the command line has the byte 0x07"),
        (
            vec![("--sign-cert", cert), ("--sign-key", other_key)],
            "the signing key is not the one of the signing certificate",
        ),
        (vec![("--source", folder.path().to_str().unwrap().to_owned())], "Cargo.lock"),
    ];
    let before = entries(folder.path());
    for (more, expected) in cases {
        let more: Vec<(&str, &str)> =
            more.iter().map(|(name, value)| (*name, &value[..])).collect();
        let refused = refusal(&build(&folder, "out", &more), 1);
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(entries(folder.path()), before, "{expected}");
    }
}

#[test]
fn folder_that_is_not_empty_is_left_alone() {
    let folder = inputs();
    std::fs::create_dir(folder.path().join("out")).unwrap();
    std::fs::write(folder.path().join("out/mine"), b"mine").unwrap();
    let refused = refusal(&build(&folder, "out", &[]), 1);
    assert!(refused.contains("is there already"), "{refused}");
    assert_eq!(entries(&folder.path().join("out")), ["mine"]);
    std::fs::remove_file(folder.path().join("out/mine")).unwrap();
    assert!(build(&folder, "out", &[]).status.success());
}

#[test]
fn folder_in_no_folder_is_refused() {
    let folder = inputs();
    let refused = refusal(&build(&folder, "no/where/out", &[]), 1);
    assert!(refused.contains("cannot be written"), "{refused}");
}

#[test]
fn file_that_is_no_image_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let file = vector("unsigned.eif");
    std::fs::write(folder.path().join("cut.eif"), &file[..file.len() - 1]).unwrap();
    for command in ["measure", "inspect"] {
        let refused = refusal(&casemate_eif(&[command, &path(&folder, "cut.eif")]), 1);
        assert!(refused.contains("the file is cut short"), "{refused}");
    }
}

#[test]
fn wrong_usage_has_a_status_of_its_own() {
    let usages: [&[&str]; 4] =
        [&[], &["build"], &["build", "--parent-cid", "0"], &["measure", "a.eif", "b.eif"]];
    for args in usages {
        assert_eq!(casemate_eif(args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(casemate_eif(&["--version"]).status.code(), Some(0));
}
