//! `casemate policy`, run as a program over the example policies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};

fn example(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    folder.join(name).with_extension("toml").to_str().unwrap().to_owned()
}

/// A file of this test's own.
fn file(name: &str, content: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("policy");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn casemate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_casemate")).arg("policy").args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn value(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", out(output)))
}

#[cfg(unix)]
#[test]
fn i12_device_without_end_is_refused_and_not_read_to_the_end() {
    let output = casemate(&["bounds", "/dev/zero"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("bytes or more where at most"), "{}", err(&output));
}

const NOON: &str = "2026-11-20T12:00:00Z";
/// That noon in seconds.
const NOON_S: u64 = 1_795_176_000;

fn x402(name: &str, to: &str, units: u64, domain: &str) -> String {
    let member = |name: &str, kind: &str| json!({ "name": name, "type": kind });
    let body = json!({
        "kind": "typed_data",
        "input": {
            "types": {
                "EIP712Domain": [
                    member("name", "string"), member("version", "string"),
                    member("chainId", "uint256"), member("verifyingContract", "address"),
                ],
                "TransferWithAuthorization": [
                    member("from", "address"), member("to", "address"),
                    member("value", "uint256"), member("validAfter", "uint256"),
                    member("validBefore", "uint256"), member("nonce", "bytes32"),
                ],
            },
            "primaryType": "TransferWithAuthorization",
            "domain": {
                "name": domain, "version": "2", "chainId": 8453,
                "verifyingContract": "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
            },
            "message": {
                "from": "0x857b06519e91e3a54538791bdbb0e22373e36b66",
                "to": to,
                "value": units.to_string(),
                "validAfter": (NOON_S - 600).to_string(),
                "validBefore": (NOON_S + 60).to_string(),
                "nonce": format!("0x{}", "07".repeat(32)),
            },
        },
    });
    file(name, &body.to_string())
}

fn rlp(bytes: &[u8], list: bool) -> Vec<u8> {
    if !list && bytes.len() == 1 && bytes[0] < 0x80 {
        return bytes.to_vec();
    }
    let base = if list { 0xc0 } else { 0x80 };
    let mut out = match u8::try_from(bytes.len()).unwrap() {
        short @ 0..=55 => vec![base + short],
        long => vec![base + 56, long],
    };
    out.extend_from_slice(bytes);
    out
}

fn number(n: u128) -> Vec<u8> {
    let bytes = n.to_be_bytes();
    let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    rlp(&bytes[first..], false)
}

/// An EIP-1559 transfer of `wei` on Ethereum to the treasury's payee.
fn transfer(name: &str, wei: u128) -> String {
    let mut fields = Vec::new();
    for n in [1, 0, 1_000_000_000, 2_000_000_000, 21_000] {
        fields.extend(number(n));
    }
    fields.extend(rlp(&[0x33; 20], false));
    fields.extend(number(wei));
    fields.extend(rlp(&[], false));
    fields.extend(rlp(&[], true));
    let unsigned = [vec![2], rlp(&fields, true)].concat();
    let input: String = unsigned.iter().map(|b| format!("{b:02x}")).collect();
    let body = json!({
        "request_id": "0x000102030405060708090a0b0c0d0e0f",
        "key": "treasury",
        "kind": "tx",
        "chain": "eip155:1",
        "input": format!("0x{input}"),
    });
    file(name, &body.to_string())
}

const ETH: u128 = 1_000_000_000_000_000_000;
const PAYEE: &str = "0x209693bc6afc0c5328ba36faf03c514ef312287c";

fn simulate_agent(request: &str, more: &[&str]) -> Output {
    let policy = example("x402-agent");
    let mut args = vec![
        "simulate",
        "--policy",
        &policy,
        "--request",
        request,
        "--principal",
        "agent:research",
        "--key",
        "agent-7",
        "--at",
        NOON,
    ];
    args.extend(more);
    casemate(&args)
}

#[test]
fn lint_of_the_examples_is_done() {
    let files = ["x402-agent", "treasury", "settlement"].map(example);
    let output = casemate(&["lint", "--at", NOON, &files[0], &files[1], &files[2]]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("x402-agent.toml: nothing found"));
}

#[test]
fn lint_of_contradicting_grants_fails_and_names_them() {
    let text = fs::read_to_string(example("x402-agent")).unwrap();
    let grant = text.split_once("[[grant]]").unwrap().1.replace("x402-research-agent", "again");
    let path = file("ambiguous.toml", &format!("{text}\n[[grant]]{grant}"));
    let output = casemate(&["lint", "--at", NOON, "--json", &path]);
    assert_eq!(output.status.code(), Some(1));
    let finding = &value(&output)[0]["findings"][0];
    assert_eq!(finding["code"], "ambiguous");
    assert_eq!(finding["severity"], "error");
}

#[test]
fn policy_that_does_not_load_fails_with_line_and_field() {
    let text = fs::read_to_string(example("x402-agent")).unwrap();
    let text =
        text.replace("max_per_tx = \"5\"", "max_per_tx = 5.0").replace("\"10m\"", "\"long\"");
    let path = file("broken.toml", &text);
    let output = casemate(&["lint", &path]);
    assert_eq!(output.status.code(), Some(1));
    let text = err(&output);
    assert!(text.contains("line 36: grant[x402-research-agent].max_per_tx: "), "{text}");
    assert!(text.contains("grant[x402-research-agent].valid_for_max: `long`"), "{text}");
    let output = casemate(&["lint", "--json", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(value(&output)["errors"].as_array().unwrap().len(), 2);
}

#[test]
fn bounds_are_printed_in_english_and_as_json() {
    let path = example("x402-agent");
    let cluster = ["--nodes", "3", "--threshold", "2", "--dead-man", "10m"];
    let mut args = vec!["bounds", "--at", NOON, path.as_str()];
    args.extend(cluster);
    let output = casemate(&args);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    assert!(text.contains("200 usdc_base in any 24h (reached exactly)"), "{text}");
    assert!(text.contains("If 1 enclave of 3 (threshold 2) is itself broken: at most 2 times"));
    args.push("--json");
    let found = value(&casemate(&args));
    let day = found["bounds"].as_array().unwrap().iter().find(|b| b["window"] == "24h").unwrap();
    assert_eq!(day["key"], "agent-7");
    assert_eq!(day["asset"], "usdc_base");
    assert_eq!(day["amount"], "200000000");
    assert_eq!(day["decimals"], 6);
    assert_eq!(day["attained"], true);
    assert_eq!(day["if_broken"][0]["amount"], "400000000");
}

#[test]
fn bounds_of_a_cluster_that_cannot_be_fail() {
    let path = example("x402-agent");
    let output = casemate(&["bounds", &path, "--nodes", "3", "--threshold", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("threshold 3 of 3 nodes"));
}

#[test]
fn diff_says_which_way_it_goes() {
    let text = fs::read_to_string(example("x402-agent")).unwrap();
    let lower = file("lower.toml", &text.replace("\"200\"", "\"100\""));
    let output = casemate(&["diff", &example("x402-agent"), &lower]);
    assert_eq!(output.status.code(), Some(0));
    assert!(out(&output).contains("tightening only"), "{}", out(&output));
    let found = value(&casemate(&["diff", "--json", &lower, &example("x402-agent")]));
    assert_eq!(found["tightening"], false);
    assert_eq!(found["changes"][0]["effect"], "loosening");
    assert_eq!(found["changes"][0]["place"], "grant[x402-research-agent].limits");
}

#[test]
fn hash_does_not_depend_on_layout() {
    let text = fs::read_to_string(example("x402-agent")).unwrap();
    let spaced = file("spaced.toml", &text.replace('\n', "\n\n"));
    let found = value(&casemate(&["hash", "--json", &example("x402-agent"), &spaced]));
    assert_eq!(found[0]["hash"], found[1]["hash"]);
    assert_eq!(found[0]["hash"].as_str().unwrap().len(), 66);
}

#[test]
fn simulated_payment_is_allowed_with_its_counters() {
    let output = simulate_agent(&x402("ok.json", PAYEE, 5_000_000, "USD Coin"), &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", out(&output), err(&output));
    let found = value(&output);
    assert_eq!(found["outcome"], "allowed");
    assert_eq!(found["grant"], "x402-research-agent");
    assert_eq!(found["counters"][0]["after"], "5000000");
}

#[test]
fn simulated_denials_exit_with_2_and_say_why() {
    let cases = [
        ("over.json", PAYEE, 5_000_001, "USD Coin", "over_per_tx_cap"),
        ("domain.json", PAYEE, 1, "USDC", "domain_mismatch"),
        (
            "payee.json",
            "0x9999999999999999999999999999999999999999",
            1,
            "USD Coin",
            "payee_not_listed",
        ),
        ("deny.json", "0x2222222222222222222222222222222222222222", 1, "USD Coin", "deny_rule"),
    ];
    for (name, to, units, domain, code) in cases {
        let output = simulate_agent(&x402(name, to, units, domain), &["--json"]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", err(&output));
        assert_eq!(value(&output)["denial"]["code"], code, "{name}");
    }
    let bad = file("bad.json", r#"{"kind": "typed_data", "input": {"types": {}}}"#);
    let output = simulate_agent(&bad, &["--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert_eq!(value(&output)["denial"]["code"], "malformed");
    let night = ["--signer", "0x857b06519e91e3a54538791bdbb0e22373e36b66"];
    let request = x402("night.json", PAYEE, 1, "USD Coin");
    let policy = example("x402-agent");
    let mut args = vec![
        "simulate",
        "--policy",
        &policy,
        "--request",
        &request,
        "--principal",
        "agent:research",
        "--key",
        "agent-7",
        "--at",
        "2026-11-20T08:59:59Z",
    ];
    args.extend(night);
    let output = casemate(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(out(&output).starts_with("denied: "), "{}", out(&output));
}

#[test]
fn simulated_history_counts() {
    let lines: Vec<_> = (0..40)
        .map(|i| {
            json!({
                "at": format!("2026-11-20T09:{i:02}:00Z"), "key": "agent-7", "principal": "agent:research",
                "asset": "usdc_base", "kind": "amount", "amount": "5000000",
            })
        })
        .collect();
    let history = file("history.json", &Value::Array(lines).to_string());
    let request = x402("full.json", PAYEE, 1, "USD Coin");
    let output = simulate_agent(&request, &["--json", "--history", &history]);
    assert_eq!(output.status.code(), Some(2));
    let denial = &value(&output)["denial"];
    assert_eq!(denial["code"], "limit_exceeded");
    assert_eq!(denial["limit"], json!({ "kind": "sum", "max": "200000000", "window": "24h" }));
    assert_eq!(denial["remaining"], "0");
    assert_eq!(denial["resets_at"], "2026-11-21T09:00:00.000Z");
}

#[test]
fn simulated_tier_is_pending_until_it_is_approved() {
    let policy = example("treasury");
    let request = transfer("ten.json", 10 * ETH);
    let base = [
        "simulate",
        "--policy",
        &policy,
        "--request",
        &request,
        "--principal",
        "operator:alice",
        "--at",
        NOON,
    ];
    let output = casemate(&base);
    assert_eq!(output.status.code(), Some(3), "{}{}", out(&output), err(&output));
    assert!(out(&output).contains("0 of 1 approvals of @treasurers"), "{}", out(&output));
    let mut args = base.to_vec();
    args.extend(["--approved-by", "treasurer:dan", "--json"]);
    let output = casemate(&args);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(value(&output)["tier"], 1);
    let small = transfer("one.json", ETH);
    let mut args = base.to_vec();
    args[4] = &small;
    assert_eq!(casemate(&args).status.code(), Some(0));
}

#[test]
fn mistakes_on_the_command_line_exit_with_1() {
    let policy = example("treasury");
    let request = transfer("usage.json", ETH);
    for args in [
        vec!["frobnicate"],
        vec!["lint"],
        vec!["lint", "/nonexistent/policy.toml"],
        vec!["bounds", &policy, "--at", "yesterday"],
        vec!["simulate", "--policy", &policy, "--request", &request, "--principal", "nobody"],
        vec![
            "simulate",
            "--policy",
            &policy,
            "--request",
            &request,
            "--principal",
            "operator:alice",
            "--key",
            "other",
        ],
        vec![
            "simulate",
            "--policy",
            &policy,
            "--request",
            &policy,
            "--principal",
            "operator:alice",
            "--key",
            "treasury",
        ],
    ] {
        let output = casemate(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!err(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn help_is_helpful() {
    let output = casemate(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in ["lint", "bounds", "diff", "simulate", "hash"] {
        assert!(out(&output).contains(word), "{word}");
    }
}

#[test]
fn lint_names_grants_that_a_keys_scheme_never_signs() {
    let (file, at) = (example("x402-agent"), ["--at", NOON]);
    let lint = |key: &str| casemate(&[&["lint", &file, "--key", key], at.as_slice()].concat());
    let output = lint("agent-7=bip340-secp256k1");
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let line = "grant[x402-research-agent].allow: key `agent-7` is bip340-secp256k1, which signs \
                messages only: `eip3009.transfer_with_authorization` is always denied";
    assert!(out(&output).contains(line), "{}", out(&output));
    for key in ["agent-7=ecdsa-secp256k1", "another=bip340-secp256k1"] {
        assert_eq!(lint(key).status.code(), Some(0), "{key}");
    }
}

#[test]
fn lint_refuses_a_key_of_no_known_scheme() {
    for (key, said) in [
        ("agent-7=schnorr", "`schnorr` is no scheme"),
        ("agent-7", "not of the form `name=scheme`"),
        ("UPPER=ed25519", "UPPER"),
    ] {
        let output = casemate(&["lint", &example("x402-agent"), "--key", key]);
        assert_eq!(output.status.code(), Some(1), "{key}");
        assert!(err(&output).contains(said), "{key}: {}", err(&output));
    }
}
