//! Grants for keys that sign messages only: what lint says of them, and what bounds print.
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

use std::collections::BTreeMap;

use casemate_policy::{Finding, Severity, bounds, bounds::Setting, lint, lint_schemes};
use casemate_proto::{KeyName, Scheme};
use common::*;

const HEAD: &str = r#"
version = 1
name = "notes"
expires = "2027-06-01T00:00:00Z"

[[principal]]
id = "agent:notes"
credentials = [
    { alg = "p256", public_key = "02ef525fb807a67e96d9352cb087026365763a916e561c19b1850185b21111fbc1" },
]
"#;

/// A grant of `key` for these actions.
fn grant(id: &str, key: &str, allow: &str) -> String {
    format!(
        "[[grant]]\nid = \"{id}\"\nkey = \"{key}\"\nprincipals = [\"agent:notes\"]\n\
         allow = [{allow}]\nlimits = [{{ count = 20, window = \"24h\" }}]\n"
    )
}

fn schemes(all: &[(&str, Scheme)]) -> BTreeMap<KeyName, Scheme> {
    all.iter().map(|(name, scheme)| (KeyName::new(name).unwrap(), *scheme)).collect()
}

fn found(grants: &str, keys: &[(&str, Scheme)]) -> Vec<Finding> {
    lint_schemes(&policy(&format!("{HEAD}{grants}")), &schemes(keys))
}

#[test]
fn message_grants_of_messages_only_keys_are_in_order() {
    let grants = [grant("a", "btc", "\"message\""), grant("b", "ed", "\"message\"")].concat();
    let keys = [("btc", Scheme::Bip340Secp256k1), ("ed", Scheme::Ed25519)];
    assert_eq!(found(&grants, &keys), []);
}

#[test]
fn grants_of_anything_else_are_errors_that_name_key_scheme_and_action() {
    for (name, scheme) in
        [("bip340-secp256k1", Scheme::Bip340Secp256k1), ("ed25519", Scheme::Ed25519)]
    {
        let all = found(&grant("hashes", "btc", "\"message\", \"raw_hash\""), &[("btc", scheme)]);
        let [finding] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!((finding.severity, finding.code), (Severity::Error, "wrong_scheme"));
        assert_eq!(finding.place, "grant[hashes].allow");
        assert_eq!(
            finding.message,
            format!("key `btc` is {name}, which signs messages only: `raw_hash` is always denied")
        );
    }
}

#[test]
fn every_action_of_a_payment_policy_is_found_for_a_key_that_cannot_pay() {
    for (text, key) in [(X402, "agent-7"), (TREASURY, "treasury"), (SETTLEMENT, "payout")] {
        let all = lint_schemes(&policy(text), &schemes(&[(key, Scheme::Bip340Secp256k1)]));
        assert_eq!(all.len(), 1, "{all:#?}");
        assert!(lint_schemes(&policy(text), &schemes(&[(key, Scheme::EcdsaSecp256k1)])).is_empty());
    }
}

#[test]
fn keys_of_unknown_scheme_and_ecdsa_keys_are_passed_over() {
    let hashes = grant("hashes", "btc", "\"raw_hash\"");
    assert_eq!(found(&hashes, &[]), []);
    assert_eq!(found(&hashes, &[("other", Scheme::Bip340Secp256k1)]), []);
    assert_eq!(found(&hashes, &[("btc", Scheme::EcdsaSecp256k1)]), []);
}

#[test]
fn bounds_of_a_message_grant_say_that_nothing_is_moved() {
    let policy = policy(&format!("{HEAD}{}", grant("notes", "btc", "\"message\"")));
    assert!(lint(&policy, noon()).iter().all(|f| f.severity == Severity::Warning));
    let text = bounds(&policy, Setting { now: noon(), cluster: None }).to_text();
    assert!(text.contains("nothing: no grant moves an amount"), "{text}");
    assert!(!text.contains("UNLIMITED"), "{text}");
}
