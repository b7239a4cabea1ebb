//! Lint and diff.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    unreachable_pub
)]

mod common;

use casemate_policy::{Diff, Finding, Severity, diff, diff::Effect, lint};
use common::*;

fn found(text: &str) -> Vec<Finding> {
    lint(&policy(text), noon())
}

#[track_caller]
fn finds(text: &str, severity: Severity, code: &str, place: &str) {
    let all = found(text);
    assert!(
        all.iter().any(|f| f.severity == severity && f.code == code && f.place.starts_with(place)),
        "no {code} at {place} in {all:#?}"
    );
}

fn with_grant(text: &str, id: &str, change: &[(&str, &str)]) -> String {
    let mut grant = text.split_once("[[grant]]").unwrap().1.to_owned();
    let first = grant.lines().find(|l| l.starts_with("id = ")).unwrap().to_owned();
    grant = grant.replacen(&first, &format!("id = \"{id}\""), 1);
    for (from, to) in change {
        assert!(grant.contains(from), "{from}");
        grant = grant.replacen(from, to, 1);
    }
    format!("{text}\n[[grant]]{grant}")
}

#[test]
fn example_policies_have_no_errors() {
    for text in [X402, TREASURY, SETTLEMENT] {
        let all = found(text);
        assert!(all.iter().all(|f| f.severity == Severity::Warning), "{all:#?}");
    }
    assert_eq!(found(X402), []);
}

#[test]
fn grants_that_both_match_something_are_found() {
    let same = with_grant(X402, "second", &[]);
    finds(&same, Severity::Error, "ambiguous", "grant[second]");
    // a prefix and an exact principal; a list and one of its accounts; a star and a step
    for change in [
        [("[\"agent:research\"]", "[\"agent:*\"]")],
        [("\"@payees.x402\"", "\"0x1111111111111111111111111111111111111111\"")],
        [("\"@payees.x402\"", "\"*\"")],
    ] {
        let text = with_grant(X402, "second", &change);
        finds(&text, Severity::Error, "ambiguous", "grant[second]");
    }
    for change in [
        [("key = \"agent-7\"", "key = \"agent-8\"")],
        [("key = \"agent-7\"", "key = \"agent-7\"\npath = \"m/*\"")],
        [("\"@payees.x402\"", "\"0x7777777777777777777777777777777777777777\"")],
    ] {
        let text = with_grant(X402, "second", &change);
        assert!(found(&text).iter().all(|f| f.code != "ambiguous"), "{change:?}");
    }
}

#[test]
fn each_kind_of_finding_is_found() {
    let warn = Severity::Warning;
    let error = Severity::Error;
    finds(
        &X402.replace("\"2027-06-01T00:00:00Z\"", "\"2026-06-01T00:00:00Z\""),
        error,
        "expired",
        "expires",
    );
    finds(&X402.replace("2027-03-01", "2026-03-01"), warn, "expired", "grant[x402");
    finds(&X402.replace("2027-03-01", "2028-03-01"), warn, "expired", "grant[x402");
    finds(&X402.replace("valid_for_max = \"10m\"\n", ""), warn, "wide", "grant[x402");
    finds(&X402.replace("\"@payees.x402\"", "\"*\""), warn, "wide", "grant[x402");
    finds(&X402.replace("\"@payees.x402\"", "\"*\""), warn, "unused", "list.payees[x402]");
    finds(&X402.replace("sum = \"200\"", "sum = \"2000000\""), warn, "large", "grant[x402");
    finds(&X402.replace("sum = \"200\"", "sum = \"4\""), warn, "unreachable", "grant[x402");
    finds(&X402.replace("sum = \"200\"", "sum = \"0\""), warn, "unreachable", "grant[x402");
    finds(
        &X402.replace(
            "to = [\"0x2222222222222222222222222222222222222222\"]",
            "to = \"@payees.x402\"",
        ),
        error,
        "shadowed",
        "grant[x402",
    );
    finds(
        &X402.replace("to = [\"0x2222222222222222222222222222222222222222\"]", "key = \"agent-7\""),
        error,
        "shadowed",
        "grant[x402",
    );
    finds(
        &X402.replace("[\"agent:research\"]", "[\"robot:*\"]"),
        error,
        "unreachable",
        "grant[x402",
    );
    finds(
        &X402.replace("[\"agent:research\"]", "[\"robot:*\"]"),
        warn,
        "unused",
        "principal[agent:research]",
    );
    finds(
        &X402.replace("\"eip155:8453\" = [", "\"eip155:1\" = ["),
        error,
        "unreachable",
        "grant[x402",
    );
    finds(
        &X402
            .replace("key = \"agent-7\"", "key = \"agent-7\"\npath = \"m/*\"")
            .replace("window = \"24h\" }", "window = \"24h\", per = \"path\" }"),
        warn,
        "wide",
        "grant[x402",
    );
    finds(
        &TREASURY.replace("3 of @treasurers", "4 of @treasurers"),
        error,
        "unreachable",
        "grant[treasury-eth].tiers[3]",
    );
    finds(
        &TREASURY.replace("tiers = [", "max_per_tx = \"9\"\ntiers = ["),
        warn,
        "unreachable",
        "grant[treasury-eth].tiers[2]",
    );
    finds(
        &TREASURY.replace("tiers = [", "max_per_tx = \"900\"\ntiers = ["),
        warn,
        "unreachable",
        "grant[treasury-eth]",
    );
    finds(
        &TREASURY.replace("[\"operator:*\"]", "[\"treasurer:*\"]"),
        warn,
        "approver_is_requester",
        "grant[treasury-eth].tiers[1]",
    );
    finds(
        &TREASURY.replace(
            "limits = [{ sum = \"500\", window = \"7d\" }, {",
            "unlimited = true\nlimits = [{",
        ),
        warn,
        "unlimited",
        "grant[treasury-eth]",
    );
    let raw = format!(
        "{X402}\n[[grant]]\nid = \"raw\"\nkey = \"agent-7\"\nprincipals = [\"agent:research\"]\nallow = [\"raw_hash\"]\nlimits = [{{ count = 3, window = \"24h\" }}]\n"
    );
    finds(&raw, warn, "unlimited", "grant[raw]");
}

fn changes(old: &str, new: &str) -> Diff {
    diff(&policy(old), &policy(new))
}

#[track_caller]
fn effect(text: &str, from: &str, to: &str) -> Effect {
    assert!(text.contains(from), "{from}");
    let found = changes(text, &text.replacen(from, to, 1));
    assert!(!found.changes.is_empty(), "no change from `{from}`");
    if found.is_tightening() { Effect::Tightening } else { Effect::Loosening }
}

#[test]
fn one_policy_has_no_changes() {
    assert_eq!(changes(TREASURY, TREASURY), Diff::default());
    assert!(Diff::default().is_tightening());
}

#[test]
fn only_the_closed_list_tightens() {
    let tightening = [
        (X402, "\"200\"", "\"199\""),
        (X402, "count = 120", "count = 1"),
        (X402, "max_per_tx = \"5\"", "max_per_tx = \"4.9\""),
        (X402, "\"10m\"", "\"9m\""),
        (X402, "2027-06-01", "2027-05-01"),
        (X402, "2027-03-01", "2027-02-01"),
        (X402, "    \"0x1111111111111111111111111111111111111111\",\n", ""),
        (TREASURY, "max_fee_per_tx = \"0.05\"", "max_fee_per_tx = \"0.04\""),
        (TREASURY, "sum = \"0.5\"", "sum = \"0.4\""),
        (TREASURY, "upto = \"1\"", "upto = \"0.5\""),
        (TREASURY, "upto = \"500\"", "upto = \"400\""),
        (
            TREASURY,
            "    { alg = \"ed25519\", public_key = \"a57bc021883adb6d9fd27fa3632c5c3f2757984b09033ea2bd6d6933905f6189\" },\n",
            "",
        ),
        (TREASURY, "\"treasurer:dan\", ", ""),
    ];
    for (text, from, to) in tightening {
        assert_eq!(effect(text, from, to), Effect::Tightening, "`{from}` to `{to}`");
        // and the other way round it loosens
        let (old, new) = (text.replacen(from, to, 1), text);
        assert!(!changes(&old, new).is_tightening(), "`{to}` to `{from}`");
    }
    let loosening = [
        (X402, "\"24h\"", "\"23h\""),
        (X402, "\"24h\"", "\"25h\""),
        (X402, "    { count = 120, window = \"1h\" },\n", ""),
        (
            X402,
            "    { count = 120, window = \"1h\" },\n",
            "    { count = 120, window = \"1h\" },\n    { count = 1, window = \"2h\" },\n",
        ),
        (X402, "max_per_tx = \"5\"\n", ""),
        (X402, "valid_for_max = \"10m\"\n", ""),
        (X402, "hours = { utc = \"09:00-18:00\" }\n", ""),
        (X402, "09:00-18:00", "10:00-17:00"),
        (
            X402,
            "[[deny]]\nid = \"sanctioned\"\nto = [\"0x2222222222222222222222222222222222222222\"]\n",
            "",
        ),
        (
            X402,
            "\"0x2222222222222222222222222222222222222222\"",
            "\"0x2222222222222222222222222222222222222222\", \"0x1212121212121212121212121212121212121212\"",
        ),
        (X402, "name = \"USD Coin\"", "name = \"USDC\""),
        (X402, "decimals = 6", "decimals = 7"),
        (X402, "key = \"agent-7\"", "key = \"agent-8\""),
        (X402, "id = \"x402-research-agent\"", "id = \"x\""),
        (X402, "\"@payees.x402\"", "\"*\""),
        (TREASURY, "\"1 of @treasurers\"", "\"2 of @treasurers\""),
        (TREASURY, "\"2 of @treasurers\"", "\"1 of @treasurers\""),
        (TREASURY, "delay = \"1h\"", "delay = \"30m\""),
        (TREASURY, ", passkey = true }", " }"),
        (TREASURY, "{ upto = \"1\" },", ""),
    ];
    for (text, from, to) in loosening {
        assert_eq!(effect(text, from, to), Effect::Loosening, "`{from}` to `{to}`");
    }
}

#[test]
fn deleting_a_grant_tightens_but_not_where_a_shared_limit_counted_it() {
    let gone = X402.split_once("[[grant]]").unwrap().0;
    assert!(changes(X402, gone).is_tightening());
    let (head, refunds) = SETTLEMENT.rsplit_once("[[grant]]").unwrap();
    assert!(refunds.contains("refunds-usdt"));
    assert!(!changes(SETTLEMENT, head).is_tightening());
}

#[test]
fn a_lower_tier_loosens_where_the_next_one_asks_for_less() {
    let odd =
        TREASURY.replace("{ upto = \"1\" }", "{ upto = \"1\", approvals = \"3 of @treasurers\" }");
    assert_eq!(effect(&odd, "upto = \"1\"", "upto = \"0.5\""), Effect::Loosening);
}

#[test]
fn deleting_one_of_two_contradicting_grants_loosens() {
    let both = with_grant(X402, "second", &[]);
    assert!(!changes(&both, X402).is_tightening());
}

#[test]
fn deleting_a_payee_that_a_deny_rule_names_loosens() {
    let text = X402
        .replace("to = [\"0x2222222222222222222222222222222222222222\"]", "to = \"@payees.x402\"");
    assert_eq!(
        effect(&text, "    \"0x1111111111111111111111111111111111111111\",\n", ""),
        Effect::Loosening
    );
}
