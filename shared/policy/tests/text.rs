//! Policies as text and in their canonical form.
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

use casemate_policy::{
    Policy, PolicyErrors, Problem, Rule,
    model::{Per, VERSION},
    validate::{MAX_GRANTS, MAX_PAYEES},
};
use casemate_proto::{GrantId, ListId, cbor};
use common::*;
use proptest::prelude::*;

fn errors(text: &str) -> PolicyErrors {
    match Policy::from_toml(text) {
        Err(errors) => errors,
        Ok(_) => panic!("loaded:\n{text}"),
    }
}

/// The one error of a text in which `from` was replaced.
#[track_caller]
fn one_error(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in the text");
    let found = errors(&text.replacen(from, to, 1));
    assert_eq!(found.errors.len(), 1, "{found}");
    found.to_string()
}

#[test]
fn example_policies_load_and_survive_their_canonical_form() {
    for text in [X402, TREASURY, SETTLEMENT] {
        let loaded = policy(text);
        let bytes = loaded.canonical_bytes();
        let again = Policy::from_canonical(&bytes).unwrap();
        assert_eq!(again, loaded);
        assert_eq!(again.policy_hash(), loaded.policy_hash());
        assert_eq!(again.canonical_bytes(), bytes);
    }
}

#[test]
fn hash_does_not_depend_on_the_order_of_tables_and_entries() {
    let halves: Vec<&str> = SETTLEMENT.split("\n[[grant]]\n").collect();
    let [head, first, second] = halves.as_slice() else { panic!() };
    let turned = format!("{head}\n[[grant]]\n{second}\n[[grant]]\n{first}")
        .replace("[\"usdt_eth\", \"usdt_pol\"]", "[\"usdt_pol\", \"usdt_eth\"]");
    assert_eq!(policy(&turned).policy_hash(), policy(SETTLEMENT).policy_hash());
    let limits = X402.replace(
        "    { sum = \"200\", window = \"24h\" },\n    { count = 120, window = \"1h\" },\n",
        "    { count = 120, window = \"60m\" },\n    { sum = \"200.0\", window = \"1d\", per = \"key\" },\n",
    );
    assert_eq!(policy(&limits).policy_hash(), policy(X402).policy_hash());
    let case = X402.replace(
        "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
        "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
    );
    assert_eq!(policy(&case).policy_hash(), policy(X402).policy_hash());
}

#[test]
fn hash_depends_on_every_number() {
    let hash = policy(X402).policy_hash();
    for (from, to) in [
        ("\"200\"", "\"201\""),
        ("count = 120", "count = 121"),
        ("max_per_tx = \"5\"", "max_per_tx = \"6\""),
        ("\"10m\"", "\"11m\""),
        ("18:00", "18:01"),
        ("window = \"24h\"", "window = \"25h\""),
        ("version = \"2\"", "version = \"3\""),
        ("2027-03-01", "2027-03-02"),
    ] {
        assert_ne!(policy(&X402.replacen(from, to, 1)).policy_hash(), hash, "{from}");
    }
}

#[test]
fn policy_without_expiry_loads_only_if_it_says_unlimited() {
    let line = "expires = \"2027-06-01T00:00:00Z\"\n";
    let error = one_error(X402, line, "");
    assert!(error.contains("expires: a policy needs `expires`"), "{error}");
    policy(&X402.replacen(line, "unlimited = true\n", 1));
}

#[test]
fn grant_without_a_sum_loads_only_if_it_says_unlimited() {
    let line = "    { sum = \"200\", window = \"24h\" },\n";
    let error = one_error(X402, line, "");
    assert!(
        error.contains("grant[x402-research-agent].limits: a grant needs at least one `sum`"),
        "{error}"
    );
    let without = X402.replacen(line, "", 1);
    policy(&without.replace("max_per_tx = \"5\"", "unlimited = true"));
    policy(&without.replacen("version = 1", "version = 1\nunlimited = true", 1));
}

#[test]
fn grant_for_transactions_needs_a_fee_cap_and_a_fee_limit() {
    let error = one_error(TREASURY, "max_fee_per_tx = \"0.05\"\n", "");
    assert!(error.contains("grant[treasury-eth].max_fee_per_tx: "), "{error}");
    let error = one_error(TREASURY, "fee_limits = [{ sum = \"0.5\", window = \"24h\" }]\n", "");
    assert!(error.contains("grant[treasury-eth].fee_limits: "), "{error}");
    // a fee where there is no transaction is a mistake too
    let error = one_error(X402, "hours =", "max_fee_per_tx = \"1\"\nhours =");
    assert!(error.contains("no native asset"), "{error}");
}

#[test]
fn amounts_are_strings_and_every_number_is_refused_with_its_line() {
    let error = one_error(X402, "max_per_tx = \"5\"", "max_per_tx = 5");
    let line = X402.lines().position(|l| l.starts_with("max_per_tx")).unwrap() + 1;
    assert_eq!(
        error,
        format!(
            "line {line}: grant[x402-research-agent].max_per_tx: amounts are written as decimal strings: `\"5\"`, not as the integer 5"
        )
    );
    let error = one_error(X402, "sum = \"200\"", "sum = 200.0");
    assert!(error.contains("limits[0].sum: ") && error.contains("the float 200.0"), "{error}");
}

#[test]
fn wrong_fields_are_refused_by_name_and_place() {
    let cases = [
        (X402, "max_per_tx", "max_per_transaction", "unknown field `max_per_transaction`"),
        (X402, "domain = {", "domain = { salt = \"1\",", "unknown field `salt`"),
        (X402, "window = \"24h\" }", "window = \"24h\", whom = \"x\" }", "unknown field `whom`"),
        (X402, "max_per_tx = \"5\"", "max_per_tx = \"-5\"", "`-5` is not a decimal amount"),
        (X402, "max_per_tx = \"5\"", "max_per_tx = \"1e3\"", "`1e3` is not a decimal amount"),
        (X402, "max_per_tx = \"5\"", "max_per_tx = \"0.0000001\"", "more than 6 digits"),
        (X402, "\"24h\"", "\"32d\"", "is not between 1s and 31d"),
        (X402, "\"24h\"", "\"999ms\"", "is not between 1s and 31d"),
        (X402, "\"24h\"", "\"1 day\"", "is not a length of time"),
        (X402, "09:00-18:00", "9-18", "is not hours"),
        (X402, "09:00-18:00", "09:00-09:00", "begin and end at the same minute"),
        (
            X402,
            "\"eip3009.transfer_with_authorization\"",
            "\"tron.trc20.transfer\"",
            "no action `tron.trc20.transfer",
        ),
        (X402, "asset = \"usdc_base\"", "asset = \"usdc\"", "no asset `usdc` in this policy"),
        (X402, "to = \"@payees.x402\"", "to = \"@payees.other\"", "no list of payees `other`"),
        (X402, "to = \"@payees.x402\"", "to = \"@x402\"", "is not a list of payees"),
        (X402, "to = \"@payees.x402\"\n", "", "field `to` is missing"),
        (X402, "[\"agent:research\"]", "[\"agent:other\"]", "no principal `agent:other`"),
        (X402, "[\"agent:research\"]", "[\"*\"]", "is not a principal"),
        (X402, "[\"agent:research\"]", "\"agent:research\"", "expected an array, found string"),
        (X402, "count = 120", "count = \"120\"", "expected a whole number, found string"),
        (X402, "count = 120", "count = -1", "is not a whole number from 0 on"),
        (X402, "count = 120,", "count = 120, sum = \"1\",", "exactly one of `sum` and `count`"),
        (X402, "count = 120,", "", "exactly one of `sum` and `count`"),
        (
            X402,
            "window = \"1h\" }",
            "window = \"1h\", per = \"wallet\" }",
            "`wallet` is not `key`, `path`",
        ),
        (
            X402,
            "window = \"1h\" }",
            "window = \"1h\", per = \"group\" }",
            "is for limits with `shared`",
        ),
        (
            X402,
            "domain = { name = \"USD Coin\", version = \"2\" }",
            "",
            "needs the token's `domain` pinned",
        ),
        (X402, "version = 1\n", "version = 2\n", "version `2` is not known"),
        (X402, "version = 1\n", "version = \"1\"\n", "expected a whole number"),
        (
            X402,
            "\"2027-06-01T00:00:00Z\"",
            "2027-06-01T00:00:00Z",
            "expected a string, found datetime",
        ),
        (X402, "\"2027-06-01T00:00:00Z\"", "\"2027-06-01\"", "is not a UTC time"),
        (X402, "key = \"agent-7\"", "key = \"Agent 7\"", "is not a key name"),
        (X402, "key = \"agent-7\"", "key = \"agent-7\"\npath = \"m/0'\"", "is not a path"),
        (X402, "alg = \"p256\"", "alg = \"rsa\"", "is not an algorithm"),
        (X402, "02ef525f", "ffffffff", "is not a p256 public key"),
        (X402, "0x2222222222222222222222222222222222222222", "0x22", "is not an account"),
        (
            X402,
            "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
            "0x833589fCd6eDb6E08f4c7C32D4f71b54bdA02913",
            "with a correct checksum",
        ),
        (
            X402,
            "0x1111111111111111111111111111111111111111",
            "0x209693bc6afc0c5328ba36faf03c514ef312287c",
            "is there twice",
        ),
        (
            X402,
            "0x1111111111111111111111111111111111111111",
            "0x0000000000000000000000000000000000000000",
            "the zero address",
        ),
        (
            X402,
            "\"eip155:8453\" = [",
            "\"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp\" = [",
            "is not an EVM chain",
        ),
        (
            X402,
            "to = [\"0x2222222222222222222222222222222222222222\"]\n",
            "",
            "a deny rule must state at least one",
        ),
        (
            X402,
            "to = [\"0x2222222222222222222222222222222222222222\"]\n",
            "to = []\n",
            "at least one is needed",
        ),
        (TREASURY, "native = true\n", "", "either a token with its contract, or `native = true`"),
        (TREASURY, "\"1 of @treasurers\"", "\"1 of treasurers\"", "is not approvals such as"),
        (TREASURY, "\"1 of @treasurers\"", "\"0 of @treasurers\"", "must be at least one"),
        (TREASURY, "\"1 of @treasurers\"", "\"1 of @nobody\"", "no list of approvers `nobody`"),
        (TREASURY, "\"1 of @treasurers\"", "\"01 of @treasurers\"", "is not approvals such as"),
        (TREASURY, "{ upto = \"1\" }", "{ upto = \"11\" }", "tiers must ascend"),
        (
            TREASURY,
            "{ upto = \"1\" }",
            "{ upto = \"1\", passkey = true }",
            "`passkey` needs `approvals`",
        ),
        (
            TREASURY,
            "\"treasurer:dan\", \"treasurer:erin\"]",
            "\"treasurer:dan\", \"treasurer:fred\"]",
            "no principal `treasurer:fred`",
        ),
        (
            TREASURY,
            "[\"eth.native_transfer\"]",
            "[\"eth.native_transfer\", \"message\"]",
            "cannot be in one grant",
        ),
        (
            TREASURY,
            "[\"eth.native_transfer\"]",
            "[\"erc20.transfer\"]",
            "native asset, which none of these actions moves",
        ),
        (
            SETTLEMENT,
            "decimals = 6\n\n[asset.usdt_pol]",
            "decimals = 5\n\n[asset.usdt_pol]",
            "one amount cannot be meant for both",
        ),
        (
            SETTLEMENT,
            "{ sum = \"15000\", window = \"24h\", shared = \"usdt-settlement\" }]",
            "{ sum = \"15001\", window = \"24h\", shared = \"usdt-settlement\" }]",
            "is stated otherwise",
        ),
        (
            SETTLEMENT,
            "0xc2132d05d31c914a87c6611c10748aeb04b58e8f\"\ndecimals",
            "0xc2132d05d31c914a87c6611c10748aeb04b58e8f\"\nnative = true\ndecimals",
            "either a token",
        ),
        (
            SETTLEMENT,
            "max_fee_per_tx = { eth = \"0.02\", pol = \"5\" }",
            "max_fee_per_tx = \"5\"",
            "is not one asset: say which",
        ),
        (
            SETTLEMENT,
            "pol = \"5\"",
            "pol = \"5\", usdt_pol = \"5\"",
            "fees are in the native asset",
        ),
    ];
    for (text, from, to, expected) in cases {
        assert!(text.contains(from), "`{from}` is not in the text");
        let found = errors(&text.replacen(from, to, 1)).to_string();
        assert!(found.contains(expected), "`{from}` to `{to}` gave: {found}");
        assert!(found.contains("line "), "no line: {found}");
    }
}

#[test]
fn every_mistake_is_listed_in_the_order_of_the_text() {
    let text = X402
        .replace("decimals = 6", "decimals = 300")
        .replace("max_per_tx = \"5\"", "max_per_tx = 5")
        .replace("\"10m\"", "\"soon\"")
        .replace("principals =", "principal =");
    let found = errors(&text);
    let places: Vec<_> = found.errors.iter().map(|e| e.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "asset[usdc_base].decimals",
            "grant[x402-research-agent]",
            "grant[0]",
            "grant[x402-research-agent].max_per_tx",
            "grant[x402-research-agent].valid_for_max",
        ]
    );
    let lines: Vec<_> = found.errors.iter().map(|e| e.line.unwrap()).collect();
    assert!(lines.is_sorted());
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    for bad in ["version =", "[asset", "a = 1\na = 2", "\u{0}"] {
        let found = errors(bad);
        assert!(found.errors.iter().all(|e| matches!(e.problem, Problem::Syntax { .. })), "{bad}");
        assert_eq!(found.errors[0].line, Some(1 + bad.matches('\n').count()), "{bad}");
    }
    assert!(!errors("").errors.is_empty());
}

#[test]
fn messages_and_raw_hashes_need_a_count_and_have_no_asset_or_payee() {
    let with = |body: &str| {
        format!(
            "{X402}\n[[grant]]\nid = \"other\"\nkey = \"agent-7\"\nprincipals = [\"agent:research\"]\n{body}\n"
        )
    };
    policy(&with("allow = [\"raw_hash\"]\nlimits = [{ count = 1, window = \"1h\" }]"));
    policy(&with("allow = [\"message\"]\nunlimited = true"));
    for (body, expected) in [
        ("allow = [\"message\"]", "needs a `count` limit"),
        (
            "allow = [\"message\"]\nlimits = [{ sum = \"1\", window = \"1h\" }]",
            "limit them with `count`",
        ),
        (
            "allow = [\"raw_hash\"]\nasset = \"usdc_base\"\nlimits = [{ count = 1, window = \"1h\" }]",
            "have no asset",
        ),
        (
            "allow = [\"raw_hash\"]\nto = \"*\"\nlimits = [{ count = 1, window = \"1h\" }]",
            "have no payee",
        ),
        (
            "allow = [\"raw_hash\"]\nmax_per_tx = \"1\"\nlimits = [{ count = 1, window = \"1h\" }]",
            "move no counted amount",
        ),
        ("allow = []\nlimits = [{ count = 1, window = \"1h\" }]", "at least one is needed"),
    ] {
        let found = errors(&with(body)).to_string();
        assert!(found.contains(expected), "{body}: {found}");
    }
}

#[test]
fn i12_numbers_of_everything_are_capped() {
    let mut doc = policy(X402).doc().clone();
    let grant = doc.grants.values().next().unwrap().clone();
    for i in 0..MAX_GRANTS {
        doc.grants.insert(GrantId::new(&format!("g{i}")).unwrap(), grant.clone());
    }
    let found = Policy::new(doc).unwrap_err().to_string();
    assert!(found.contains("10001 grants where at most 10000"), "{found}");

    let mut doc = policy(X402).doc().clone();
    let list = doc.payees.get_mut(&ListId::new("x402").unwrap()).unwrap();
    let set = list.values_mut().next().unwrap();
    for i in 0..=MAX_PAYEES {
        let mut bytes = [1; 20];
        bytes[..8].copy_from_slice(&u64::try_from(i).unwrap().to_be_bytes());
        set.insert(casemate_policy::model::Payee(casemate_tx::EvmAddress(bytes)));
    }
    assert!(Policy::new(doc).unwrap_err().to_string().contains("payees where at most 100000"));
}

#[test]
fn canonical_form_keeps_the_same_rules_as_the_text() {
    let mut doc = policy(X402).doc().clone();
    doc.version = VERSION + 1;
    assert!(Policy::from_canonical(&cbor::encode(&doc)).is_err());
    let mut doc = policy(X402).doc().clone();
    doc.expires = None;
    let found = Policy::from_canonical(&cbor::encode(&doc)).unwrap_err();
    assert_eq!(found.errors[0].problem, Problem::Rule(Rule::NoExpiry));
    let mut doc = policy(X402).doc().clone();
    let grant = doc.grants.values_mut().next().unwrap();
    let mut limit = grant.limits.pop_first().unwrap();
    limit.per = Per::Group;
    grant.limits.insert(limit);
    let found = Policy::from_canonical(&cbor::encode(&doc)).unwrap_err().to_string();
    assert!(found.contains("is for limits with `shared`"), "{found}");
}

proptest! {
    /// Bytes that differ are refused, or are another policy's canonical form.
    #[test]
    fn changed_canonical_bytes_are_refused_or_another_policys(
        at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let original = policy(TREASURY);
        let mut bytes = original.canonical_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != value);
        bytes[at] = value;
        if let Ok(other) = Policy::from_canonical(&bytes) {
            prop_assert_eq!(other.canonical_bytes(), bytes);
            prop_assert_ne!(other.policy_hash(), original.policy_hash());
        }
    }

    /// No text makes the reader panic, and what loads survives its canonical form.
    #[test]
    fn texts_with_a_piece_cut_out_or_doubled_are_read_or_refused(
        from in any::<prop::sample::Index>(), length in 0_usize..60, double in any::<bool>(),
    ) {
        let text = TREASURY;
        let from = from.index(text.len());
        let to = (from + length).min(text.len());
        let changed = if double {
            format!("{}{}{}", &text[..to], &text[from..to], &text[to..])
        } else {
            format!("{}{}", &text[..from], &text[to..])
        };
        match Policy::from_toml(&changed) {
            Ok(loaded) => {
                prop_assert_eq!(Policy::from_canonical(&loaded.canonical_bytes()).unwrap(), loaded);
            }
            Err(errors) => prop_assert!(!errors.errors.is_empty()),
        }
    }
}
