//! The demo from end to end, as a newcomer runs it, and its report held to what it promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeMap;
use std::process::Command;

use casemate_dev::demo::report::{Outcome, Report, RequestReport};
use casemate_dev::demo::{DemoError, Mode, Options, Tell, run};

/// Keeps what was said.
#[derive(Default)]
struct Listener(Vec<String>);

impl Tell for Listener {
    fn progress(&mut self, _: &str) {}
    fn say(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

fn demo(nodes: u16, threshold: u16) -> (Report, String) {
    let options = Options::new(nodes, threshold, None).unwrap();
    let mut listener = Listener::default();
    let report = run(&options, &Mode::InProcess, &mut listener).unwrap();
    (report, listener.0.join("\n"))
}

fn of_step(report: &Report, step: u8) -> Vec<&RequestReport> {
    report.requests.iter().filter(|request| request.step == step).collect()
}

fn codes(report: &Report, step: u8) -> Vec<&str> {
    let denials = of_step(report, step).into_iter().filter_map(|r| r.denial.as_ref());
    denials.map(|denial| denial.code).collect()
}

fn units(text: &str) -> u128 {
    text.parse().unwrap()
}

fn holds(report: &Report, said: &str, nodes: usize, threshold: u64) {
    let failed: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{said}");
    assert!(report.checks.len() > 30, "{}", report.checks.len());
    assert_eq!(report.cluster.nodes.len(), nodes);
    assert_eq!(report.cluster.threshold, threshold);
    assert_eq!(report.cosigners.len(), nodes);
    assert_eq!(report.keys.len(), 5);

    // 1
    let paid = of_step(report, 1);
    assert_eq!(paid.len(), 1);
    assert_eq!((paid[0].kind, paid[0].outcome), ("typed_data", Outcome::Signed));
    // 2
    let expected = [
        "over_per_tx_cap",
        "payee_not_listed",
        "outside_hours",
        "domain_mismatch",
        "malformed",
        "limit_exceeded",
    ];
    assert_eq!(codes(report, 2), expected);
    let denials = of_step(report, 2).into_iter().rev().find_map(|r| r.denial.as_ref());
    let window = denials.unwrap();
    assert_eq!(window.limit.as_deref(), Some("8000000"));
    assert_eq!(window.remaining.as_deref(), Some("500000"));
    assert!(window.resets_at.is_some());
    // 3
    let settled = of_step(report, 3);
    assert_eq!(settled.len(), 23);
    assert!(settled.iter().all(|request| request.outcome == Outcome::Signed));
    assert_eq!(settled.iter().filter(|request| request.raw_transaction.is_some()).count(), 22);
    // 4
    let approved = of_step(report, 4);
    let outcomes: Vec<_> = approved.iter().map(|request| request.outcome).collect();
    assert_eq!(outcomes, [Outcome::Pending, Outcome::Signed]);
    assert_eq!(approved[0].id, approved[1].id);
    // 5
    assert_eq!(codes(report, 5), ["raw_hash", "action_not_allowed", "action_not_allowed"]);
    // 6
    assert_eq!(report.attack.signed_total, report.attack.bound);
    assert_eq!(report.attack.bound, "200000000");
    assert!(said.contains("bound 200.00 USDC/24h · attacker got 200.00"), "{said}");
    let attack = of_step(report, 6);
    assert!(report.attack.asked >= u64::try_from(attack.len()).unwrap());
    let got: u128 = attack
        .iter()
        .filter(|request| request.key == "agent-9" && request.outcome == Outcome::Signed)
        .map(|request| units(request.input["message"]["value"].as_str().unwrap()))
        .sum();
    assert_eq!(got, units(&report.attack.signed_total));
    // 7
    assert!(said.contains("one process, no hardware"));

    every_request_is_whole(report);
}

fn every_request_is_whole(report: &Report) {
    let mut signed_ids: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for request in &report.requests {
        let is_signed = request.outcome == Outcome::Signed;
        assert_eq!(request.signature.is_some(), is_signed, "{request:?}");
        assert_eq!(request.denial.is_some(), request.outcome == Outcome::Denied, "{request:?}");
        assert_ne!(request.outcome, Outcome::Error, "{request:?}");
        assert_eq!(request.raw_transaction.is_some(), is_signed && request.kind == "tx");
        if !is_signed {
            continue;
        }
        let receipt = request.receipt.as_ref().unwrap();
        assert!(receipt.request_record.is_some() && receipt.checkpoint.contains("\n\n"));
        assert!(request.digest.is_some());
        let digits = if request.key == "notary" { 128 } else { 130 };
        assert_eq!(request.signature.as_ref().unwrap().len(), digits + 2);
        *signed_ids.entry((&request.principal, &request.id)).or_default() += 1;
    }
    assert!(signed_ids.len() > 40, "{}", signed_ids.len());
    assert!(signed_ids.values().all(|count| *count == 1));
}

#[test]
fn i5_i10_demo_holds_with_two_of_three() {
    let (report, said) = demo(3, 2);
    holds(&report, &said, 3, 2);
}

#[test]
fn i5_i10_demo_holds_with_three_of_five() {
    let (report, said) = demo(5, 3);
    holds(&report, &said, 5, 3);
}

#[test]
fn numbers_that_no_cluster_can_have_are_refused_by_name() {
    for (nodes, threshold, option) in [
        (2, 2, "--nodes"),
        (0, 2, "--nodes"),
        (100, 3, "--nodes"),
        (3, 1, "--threshold"),
        (3, 3, "--threshold"),
        (3, 5, "--threshold"),
    ] {
        match Options::new(nodes, threshold, None) {
            Err(DemoError::Option { option: found, .. }) => assert_eq!(found, option),
            other => panic!("{nodes} {threshold}: {other:?}"),
        }
    }
    assert!(Options::new(3, 2, None).is_ok() && Options::new(5, 3, None).is_ok());
}

#[test]
fn program_refuses_nonsense_with_status_one_and_says_why() {
    for (arguments, wanted) in [
        (&["demo", "--nodes", "2"][..], "--nodes 2"),
        (&["demo", "--threshold", "5", "--nodes", "3"], "--threshold 5"),
        (&["demo", "--threshold", "1"], "--threshold 1"),
        (&["demo", "--nodes", "many"], "many"),
        (&["demo", "--unknown"], "--unknown"),
        (&["dance"], "dance"),
        (&["demo", "--store", "Cargo.toml"], "Cargo.toml"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_casemate-dev"))
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}
