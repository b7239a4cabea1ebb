//! `casemate attest verify`, run as a program over genuine documents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

const VERACRUZ: &str = "veracruz-2022-valid";
const DEBUG: &str = "nitriding-2022-debug-nonce";
const RSA: &str = "cubist-2024-pcr8-rsa";

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/attestation")
}

fn document(name: &str) -> PathBuf {
    vectors().join(name).with_extension("bin")
}

fn known(name: &str) -> Value {
    let text = fs::read_to_string(vectors().join(name).with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn pcr(name: &str, index: &str) -> String {
    known(name)["pcrs"][index].as_str().unwrap().to_owned()
}

fn field(name: &str, field: &str) -> String {
    known(name)["fields"][field]["hex"].as_str().unwrap().to_owned()
}

fn casemate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_casemate")).args(args).output().unwrap()
}

/// Judges a document at its own time.
fn archived(name: &str, args: &[&str]) -> Output {
    let path = document(name);
    let head = ["attest", "verify", "--at", "document", "--document", path.to_str().unwrap()];
    casemate(&[&head, args].concat())
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A single line that says what failed, and nothing on standard output.
fn refused(output: &Output) -> String {
    assert_eq!(status(output), 1);
    assert_eq!(stdout(output), "");
    let text = stderr(output);
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Standard input as the document.
fn piped(bytes: &[u8], args: &[&str]) -> Output {
    let head = ["attest", "verify", "--at", "document", "--document", "-"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_casemate"))
        .args([&head, args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may well exit before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

#[test]
fn every_expectation_met_is_status_0() {
    let (zero, one, two, four) = (
        pcr(VERACRUZ, "0"),
        pcr(VERACRUZ, "1"),
        pcr(VERACRUZ, "2"),
        pcr(VERACRUZ, "4").to_uppercase(),
    );
    let (nonce, user_data) = (field(VERACRUZ, "nonce"), field(VERACRUZ, "user_data"));
    let prefixed = format!("0x{nonce}");
    let output = archived(
        VERACRUZ,
        &[
            "--pcr0",
            &zero,
            "--pcr1",
            &one,
            "--pcr2",
            &two,
            "--pcr4",
            &four,
            "--pcr15",
            &"0".repeat(96),
            "--nonce",
            &prefixed,
            "--user-data",
            &user_data,
        ],
    );
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains(&format!("{zero}  as expected")));
    assert!(stdout(&output).contains("region       eu-west-1"));
    assert!(!stderr(&output).contains("MEASUREMENT NOT CHECKED"));
}

#[test]
fn without_pcr0_it_says_that_the_measurement_was_not_checked() {
    for args in [&[][..], &["--pcr1", &pcr(VERACRUZ, "1")]] {
        let output = archived(VERACRUZ, args);
        assert_eq!(status(&output), 0);
        assert!(stderr(&output).contains("warning: MEASUREMENT NOT CHECKED"));
    }
}

#[test]
fn another_pcr_is_status_1_with_both_values() {
    for index in ["0", "1", "2", "3", "4", "8", "15"] {
        let expected = "5a".repeat(48);
        let output = archived(VERACRUZ, &[&format!("--pcr{index}"), &expected]);
        let text = refused(&output);
        assert!(text.contains(&format!("PCR{index}")), "{text}");
        assert!(text.contains(&expected) && text.contains(&pcr(VERACRUZ, index)), "{text}");
    }
}

#[test]
fn a_pcr_that_the_document_lacks_is_status_1() {
    let output = archived(VERACRUZ, &["--pcr16", &"0".repeat(96)]);
    assert!(refused(&output).contains("PCR16 is missing"));
}

#[test]
fn another_nonce_user_data_or_public_key_is_status_1_with_both_values() {
    let expected = "5a".repeat(32);
    for (flag, name) in [("--nonce", "nonce"), ("--user-data", "user_data")] {
        let text = refused(&archived(VERACRUZ, &[flag, &expected]));
        assert!(text.contains(&format!("`{name}`")), "{text}");
        assert!(text.contains(&expected) && text.contains(&field(VERACRUZ, name)), "{text}");
    }
    let text = refused(&archived(VERACRUZ, &["--public-key", &expected]));
    assert!(text.contains("`public_key` is absent") && text.contains(&expected), "{text}");
    let text = refused(&archived(RSA, &["--public-key", &expected]));
    assert!(text.contains(&field(RSA, "public_key")), "{text}");
    assert_eq!(status(&archived(RSA, &["--public-key", &field(RSA, "public_key")])), 0);
}

#[test]
fn a_short_nonce_is_status_1_even_if_it_is_the_documents() {
    let text = refused(&archived(VERACRUZ, &["--nonce", &field(VERACRUZ, "nonce")[..30]]));
    assert!(text.contains("15 bytes"), "{text}");
}

#[test]
fn a_debug_document_needs_allow_debug() {
    let text = refused(&archived(DEBUG, &[]));
    assert!(text.contains("debug mode"), "{text}");
    let output = archived(DEBUG, &["--allow-debug"]);
    assert_eq!(status(&output), 0);
    assert!(stderr(&output).contains("warning: DEBUG MODE"));
}

#[test]
fn now_is_the_default_and_an_old_document_has_expired() {
    let path = document(VERACRUZ);
    let arguments = ["attest", "verify", "--document", path.to_str().unwrap()];
    for args in [&[][..], &["--at", "now"], &["--max-age", "4000000000"]] {
        let text = refused(&casemate(&[&arguments, args].concat()));
        assert!(text.contains("expired at `2022-11-"), "{text}");
    }
}

#[test]
fn a_maximum_age_at_the_documents_own_time_is_a_contradiction() {
    let text = refused(&archived(VERACRUZ, &["--max-age", "60"]));
    assert!(text.contains("--max-age"), "{text}");
}

#[test]
fn binary_base64_and_hex_are_read_from_files_and_standard_input() {
    let bytes = fs::read(document(VERACRUZ)).unwrap();
    let base64 = STANDARD.encode(&bytes);
    let url_safe = base64.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
    let hex = hex::encode(&bytes);
    let lines = |text: &str| {
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("{}\r\n", lines.join("\r\n")).into_bytes()
    };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let forms = [
        ("binary", bytes.clone()),
        ("base64", base64.clone().into_bytes()),
        ("base64-lines", lines(&base64)),
        ("base64-url", url_safe.into_bytes()),
        ("hex", hex.clone().into_bytes()),
        ("hex-lines", lines(&hex.to_uppercase())),
        ("hex-0x", format!("0x{hex}\n").into_bytes()),
    ];
    for (form, content) in forms {
        assert_eq!(status(&piped(&content, &[])), 0, "{form} on standard input");
        let path = folder.join(format!("attest-{form}"));
        fs::write(&path, &content).unwrap();
        let path = path.to_str().unwrap();
        let output = casemate(&["attest", "verify", "--at", "document", "--document", path]);
        assert_eq!(status(&output), 0, "{form} in a file");
    }
}

#[test]
fn a_document_that_is_none_is_status_1() {
    assert!(refused(&piped(b"", &[])).contains("is empty"));
    assert!(refused(&piped(b" \n", &[])).contains("is empty"));
    assert!(refused(&piped(b"not a document!", &[])).contains("neither binary nor base64 nor hex"));
    assert!(refused(&piped(b"8444", &[])).contains("ends within"));
    assert!(refused(&piped(&[0x84], &[])).contains("ends within"));
    assert!(refused(&piped(&[b'0'; 70_000], &[])).contains("larger than"));
    let missing = casemate(&["attest", "verify", "--document", "no/such/file"]);
    assert!(refused(&missing).contains("`no/such/file`"));
    let altered = archived("NEGATIVE-veracruz-2022-badsig", &[]);
    assert!(refused(&altered).contains("signature does not verify"));
}

#[test]
fn the_root_may_be_given_as_pem_or_der_and_must_be_the_chains() {
    let pem = vectors().join("aws-nitro-root-g1.pem");
    assert_eq!(status(&archived(VERACRUZ, &["--root", pem.to_str().unwrap()])), 0);
    let text = fs::read_to_string(&pem).unwrap();
    let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("root.der");
    fs::write(&der, STANDARD.decode(base64).unwrap()).unwrap();
    assert_eq!(status(&archived(VERACRUZ, &["--root", der.to_str().unwrap()])), 0);
    let own = document(VERACRUZ);
    assert!(refused(&archived(VERACRUZ, &["--root", own.to_str().unwrap()])).contains("--root"));
}

#[test]
fn json_holds_the_fields_that_others_read() {
    let output = archived(RSA, &["--json", "--pcr0", &pcr(RSA, "0"), "--pcr8", &pcr(RSA, "8")]);
    assert_eq!(status(&output), 0);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (evidence, known) = (&report["evidence"], known(RSA));
    assert_eq!(report["schema"], "casemate.attest/1");
    assert_eq!(report["ok"], true);
    assert_eq!(report["failure"], Value::Null);
    assert_eq!(evidence["module_id"], known["module_id"]);
    assert_eq!(evidence["region"], known["region"]);
    assert_eq!(evidence["timestamp_ms"], known["timestamp_ms"]);
    assert_eq!(evidence["judged_at_ms"], known["timestamp_ms"]);
    assert_eq!(evidence["debug"], false);
    assert_eq!(evidence["nonce"], Value::Null);
    assert_eq!(evidence["public_key"], format!("0x{}", field(RSA, "public_key")));
    assert_eq!(evidence["pcrs_checked"], serde_json::json!([0, 8]));
    let pcrs = evidence["pcrs"].as_object().unwrap();
    assert_eq!(pcrs.len(), 16);
    for (index, value) in pcrs {
        assert_eq!(value, &format!("0x{}", pcr(RSA, index)));
    }
}

#[test]
fn json_names_the_failure_and_keeps_status_1() {
    let report = |output: &Output| -> Value {
        assert_eq!(status(output), 1);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let failed = report(&archived(VERACRUZ, &["--json", "--pcr0", &"5a".repeat(48)]));
    assert_eq!(failed["ok"], false);
    assert_eq!(failed["evidence"], Value::Null);
    let failure = &failed["failure"];
    assert_eq!(failure["kind"], "expectation");
    assert_eq!(failure["expectation"], "pcr0");
    assert_eq!(failure["expected"], format!("0x{}", "5a".repeat(48)));
    assert_eq!(failure["found"], format!("0x{}", pcr(VERACRUZ, "0")));
    let failed = report(&archived(DEBUG, &["--json"]));
    assert_eq!(failed["failure"]["expectation"], "debug");
    let failed = report(&archived(RSA, &["--json", "--nonce", &"5a".repeat(16)]));
    assert_eq!(failed["failure"]["expectation"], "nonce");
    assert_eq!(failed["failure"]["found"], Value::Null);
    let failed = report(&archived("NEGATIVE-veracruz-2022-badsig", &["--json"]));
    assert_eq!(failed["failure"]["kind"], "signature");
    let failed = report(&piped(b"8444", &["--json"]));
    assert_eq!(failed["failure"]["kind"], "malformed");
}

#[test]
fn usage_errors_are_status_1_and_help_is_status_0() {
    for args in [
        &["attest", "verify"][..],
        &["attest", "verify", "--document", "-", "--pcr32", "00"],
        &["attest", "verify", "--document", "-", "--pcr0", "00"],
        &["attest", "verify", "--document", "-", "--nonce", "xyz"],
        &["attest", "verify", "--document", "-", "--user-data", ""],
        &["attest", "verify", "--document", "-", "--at", "noon"],
        &["attest"],
    ] {
        assert_eq!(status(&casemate(args)), 1, "{args:?}");
    }
    let help = casemate(&["attest", "verify", "--help"]);
    assert_eq!(status(&help), 0);
    for flag in ["--document", "--root", "--pcr0", "--pcr8", "--nonce", "--max-age", "--json"] {
        assert!(stdout(&help).contains(flag), "{flag}");
    }
}
