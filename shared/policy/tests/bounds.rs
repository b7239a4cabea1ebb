//! The bounds against attackers who go through the evaluator.
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

use std::fmt::Write as _;

use casemate_policy::{
    Ask, Charge, ChargeBook, Decision, Policy, Slack,
    bounds::{Bound, Cluster, Setting, Span, bounds},
    evaluate,
};
use casemate_proto::{
    Algorithm, Amount, ChainId, DerivationPath, KeyName, Millis, PrincipalId, UnixMillis,
};
use casemate_tx::{Action, AssetRef, Domain, EvmAddress, Intent, Validity};
use common::*;
use proptest::{prelude::*, strategy::ValueTree};

#[derive(Clone, Debug)]
struct Lim {
    sum: Option<u64>,
    count: u64,
    window: u64,
    per: &'static str,
    shared: bool,
}

#[derive(Clone, Debug)]
struct Gr {
    native: bool,
    max: Option<u64>,
    limits: Vec<Lim>,
    path: &'static str,
    everybody: bool,
    tiers: u8,
    hours: bool,
    life: u64,
    key: u8,
}

const NOW: &str = "2026-11-20T17:59:40Z";
const TOKEN: [u8; 20] = [0xaa; 20];

fn limit() -> impl Strategy<Value = Lim> {
    let per = prop_oneof![Just("key"), Just("path"), Just("principal")];
    (any::<bool>(), 0_u64..60, 1_u64..7, 1_u64..20, per).prop_map(
        |(is_sum, sum, count, window, per)| Lim {
            sum: is_sum.then_some(sum),
            count,
            window,
            per,
            shared: false,
        },
    )
}

fn grant() -> impl Strategy<Value = Gr> {
    (
        prop::bool::weighted(0.3),
        prop::option::weighted(0.7, 1_u64..30),
        prop::collection::vec(limit(), 1..4),
        prop_oneof![3 => Just("m"), 1 => Just("m/*")],
        any::<bool>(),
        prop_oneof![3 => Just(0_u8), 1 => 1_u8..5],
        prop::bool::weighted(0.2),
        20_u64..90,
        prop_oneof![4 => Just(1_u8), 1 => Just(2_u8)],
    )
        .prop_map(|(native, max, limits, path, everybody, tiers, hours, life, key)| Gr {
            native,
            max,
            limits,
            path,
            everybody,
            tiers,
            hours,
            life,
            key,
        })
}

fn grants() -> impl Strategy<Value = Vec<Gr>> {
    // a quarter of the policies share one limit between all grants of the token
    (prop::collection::vec(grant(), 1..4), prop::option::weighted(0.25, limit())).prop_map(
        |(mut grants, shared)| {
            if let Some(mut limit) = shared {
                limit.shared = true;
                for grant in &mut grants {
                    grant.limits.push(limit.clone());
                }
            }
            grants
        },
    )
}

fn render(grants: &[Gr]) -> String {
    let mut out = String::from(
        r#"
version = 1
name = "attacked"
expires = "2026-11-20T18:01:00Z"
[asset.eth]
chain = "eip155:1"
native = true
decimals = 0
[asset.tok]
chain = "eip155:1"
token = "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
decimals = 0
domain = { name = "T", version = "1" }
[[principal]]
id = "op:a"
credentials = [{ alg = "p256", public_key = "02ef525fb807a67e96d9352cb087026365763a916e561c19b1850185b21111fbc1" }]
[[principal]]
id = "op:b"
credentials = [{ alg = "p256", public_key = "03850a7508fd0fd58bd64f00c7ce9d3b43694615f34cb69aade2212a2d35135c05" }]
[[principal]]
id = "boss:c"
credentials = [{ alg = "p256", public_key = "03b57c3cc6b9eb0cce2729b51ea1056ce28c4fb27f1b18804ed7aeef87a69dd51e" }]
[list.approvers.mixed]
members = ["op:a", "op:b", "boss:c"]
"#,
    );
    for (i, g) in grants.iter().enumerate() {
        let payee = format!("0x{}", hex::encode([u8::try_from(i).unwrap() + 1; 20]));
        let principals = if g.everybody { "\"op:*\"" } else { "\"op:a\"" };
        let (action, asset) = if g.native {
            ("eth.native_transfer", "eth")
        } else {
            ("eip3009.transfer_with_authorization", "tok")
        };
        let end = parse_now().saturating_add(Millis(g.life * 1_000)).to_rfc3339();
        write!(
            out,
            "[[grant]]\nid = \"g{i}\"\nkey = \"k{}\"\npath = \"{}\"\nprincipals = [{principals}]\nallow = [\"{action}\"]\nasset = \"{asset}\"\nto = \"{payee}\"\nexpires = \"{end}\"\nunlimited = true\n",
            g.key, g.path
        )
        .unwrap();
        if let Some(max) = g.max {
            writeln!(out, "max_per_tx = \"{max}\"").unwrap();
        }
        if g.native {
            out.push_str(
                "max_fee_per_tx = \"2\"\nfee_limits = [{ sum = \"9\", window = \"7s\" }]\n",
            );
        }
        if g.hours {
            out.push_str("hours = { utc = \"09:00-18:00\" }\n");
        }
        let tiers = match g.tiers {
            0 => "",
            1 => "tiers = [{ upto = \"6\" }, { upto = \"20\", approvals = \"1 of @mixed\" }]\n",
            2 => "tiers = [{ upto = \"9\", approvals = \"2 of @mixed\" }]\n",
            3 => "tiers = [{ upto = \"6\" }, { upto = \"20\", approvals = \"3 of @mixed\" }]\n",
            _ => "tiers = [{ upto = \"6\", approvals = \"1 of @mixed\", passkey = true }]\n",
        };
        out.push_str(tiers);
        out.push_str("limits = [");
        let mut seen = std::collections::BTreeSet::new();
        for l in &g.limits {
            let cap = l.sum.map_or(format!("count = {}", l.count), |s| format!("sum = \"{s}\""));
            // a shared limit in a scope of its own, and one of the whole group
            let rest = match (l.shared, l.per) {
                (false, per) => format!("per = \"{per}\""),
                (true, "key") => "shared = \"s\"".to_owned(),
                (true, per) => format!("per = \"{per}\", shared = \"s\""),
            };
            let text = format!("{{ {cap}, window = \"{}s\", {rest} }}, ", l.window);
            if seen.insert(text.clone()) {
                out.push_str(&text);
            }
        }
        out.push_str("]\n");
    }
    out
}

fn parse_now() -> UnixMillis {
    time(NOW)
}

fn intent(g: &Gr, i: usize, amount: u64, fee: u64, now: UnixMillis) -> Intent {
    let to = EvmAddress([u8::try_from(i).unwrap() + 1; 20]);
    Intent {
        action: if g.native { Action::EthNativeTransfer } else { Action::Eip3009Transfer },
        chain: Some(ChainId::eip155(1)),
        asset: Some(if g.native { AssetRef::Native } else { AssetRef::Token(EvmAddress(TOKEN)) }),
        payer: (!g.native).then(signer),
        to: Some(to),
        amount: Amount::from(amount),
        native_value: Amount::ZERO,
        max_fee: g.native.then(|| Amount::from(fee)),
        domain: (!g.native).then(|| Domain { name: "T".to_owned(), version: "1".to_owned() }),
        validity: (!g.native)
            .then(|| Validity { after: UnixMillis(0), before: UnixMillis(now.0 + 1_000) }),
    }
}

/// A host that holds every requester's credential, and what it got.
struct Attacker<'a> {
    policy: &'a Policy,
    grants: &'a [Gr],
    book: ChargeBook,
    slack: Slack,
    now: UnixMillis,
    got: Vec<Charge>,
}

const PRINCIPALS: [&str; 2] = ["op:a", "op:b"];

impl<'a> Attacker<'a> {
    fn new(policy: &'a Policy, grants: &'a [Gr], slack: Slack) -> Self {
        let book = ChargeBook::new(slack);
        Self { policy, grants, book, slack, now: parse_now(), got: Vec::new() }
    }

    fn ask(&self, g: usize, who: usize, path: &str, amount: u64, fee: u64) -> Decision {
        let grant = &self.grants[g];
        let principal = PrincipalId::new(PRINCIPALS[who]).unwrap();
        let keys = &self.policy.doc().principals[&principal];
        let credential = keys.first().unwrap().id();
        // the other requesters approve: the host holds their credentials too; who may ask under no
        // grant is an approver only, and not in its hands
        let asks = |name: &&&str| **name == "op:a" || self.grants.iter().any(|g| g.everybody);
        let approvals: Vec<_> = PRINCIPALS
            .iter()
            .filter(asks)
            .map(|name| {
                let principal = PrincipalId::new(name).unwrap();
                let credential = self.policy.doc().principals[&principal].first().unwrap().id();
                casemate_policy::Approved { principal, credential, passkey: false, at: self.now }
            })
            .collect();
        let ask = Ask {
            key: &KeyName::new(&format!("k{}", grant.key)).unwrap(),
            path: &DerivationPath::parse(path).unwrap(),
            principal: &principal,
            credential: &credential,
            signer: Some(signer()),
            intent: &intent(grant, g, amount, fee, self.now),
            approvals: &approvals,
            first_seen: parse_now(),
        };
        evaluate(self.policy, &self.book, &ask, self.now, self.slack)
    }

    fn take(&mut self, g: usize, who: usize, path: &str, amount: u64, fee: u64) -> bool {
        let Decision::Allow(allowance) = self.ask(g, who, path, amount, fee) else { return false };
        self.book.record(allowance.charges()).unwrap();
        self.got.extend_from_slice(allowance.charges());
        true
    }

    /// All that this requester can have now, largest pieces first.
    fn take_all(&mut self, g: usize, who: usize, path: &str, fee: u64) {
        for _ in 0..400 {
            // whatever fits, a smaller amount fits too, but for tiers out of reach
            let (mut low, mut high) = (0, self.grants[g].max.unwrap_or(400));
            while low < high {
                let middle = (low + high).div_ceil(2);
                if matches!(self.ask(g, who, path, middle, fee), Decision::Allow(_)) {
                    low = middle;
                } else {
                    high = middle - 1;
                }
            }
            if low == 0 || !self.take(g, who, path, low, fee) {
                return;
            }
        }
    }

    fn paths(&self, g: usize) -> &'static [&'static str] {
        if self.grants[g].path == "m" { &["m"] } else { &["m/0", "m/1", "m/2"] }
    }
}

fn total(charges: &[Charge], row: &Bound, policy: &Policy) -> Vec<(u64, u128)> {
    let asset = policy.doc().assets[&row.asset].key();
    charges
        .iter()
        .filter(|c| c.key == row.key && c.asset.as_ref() == Some(&asset))
        .map(|c| (c.at.0, c.amount.to_u128().unwrap()))
        .collect()
}

/// The most in any interval (t − length, t].
fn worst(charges: &[(u64, u128)], length: Option<u64>) -> u128 {
    let Some(length) = length else { return charges.iter().map(|c| c.1).sum() };
    charges
        .iter()
        .map(|(end, _)| {
            let within = |at: u64| at <= *end && at + length > *end;
            charges.iter().filter(|c| within(c.0)).map(|c| c.1).sum()
        })
        .max()
        .unwrap_or(0)
}

fn length(span: Span, slack: Slack) -> Option<u64> {
    match span {
        Span::Window(window) => Some(slack.lengthen(window).0),
        Span::UntilExpiry(_) => None,
    }
}

fn setting(slack: u64) -> Setting {
    let cluster = Cluster {
        nodes: 3,
        threshold: 2,
        tau: Millis(slack),
        delta: Millis(0),
        dead_man: None,
        lease: None,
    };
    Setting { now: parse_now(), cluster: Some(cluster) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever attackers try, at random or greedily, no figure is exceeded.
    #[test]
    fn i5_no_attacker_exceeds_a_bound(
        grants in grants(),
        slack in prop_oneof![Just(0_u64), 1_u64..3_000],
        moves in prop::collection::vec((0_u64..4_000, 0_usize..4, 0_usize..2, 0_usize..3, 1_u64..60, 0_u64..3, 0_u8..4), 20..60),
    ) {
        let text = render(&grants);
        let policy = Policy::from_toml(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let slack_of = Slack::new(Millis(slack), Millis(0));
        let found = bounds(&policy, setting(slack));
        let mut attacker = Attacker::new(&policy, &grants, slack_of);
        for (wait, g, who, path, amount, fee, greedy) in moves {
            // half the moves are made at once
            attacker.now = UnixMillis(attacker.now.0 + if wait < 2_000 { 0 } else { wait });
            let g = g % grants.len();
            let path = attacker.paths(g)[path % attacker.paths(g).len()];
            if greedy == 0 {
                let _ = attacker.take(g, who, path, amount, fee);
            } else {
                attacker.take_all(g, who, path, fee);
            }
        }
        for row in &found.rows {
            let Some(bound) = row.amount else { continue };
            let got = worst(&total(&attacker.got, row, &policy), length(row.span, slack_of));
            prop_assert!(
                got <= bound.to_u128().unwrap(),
                "{got} of {bound} in {} by {}\n{text}", row.span, row.key
            );
        }
        for shared in &found.shared {
            let Some(bound) = shared.amount else { continue };
            let mut all: Vec<(u64, u128)> = Vec::new();
            for (key, asset) in &shared.counts {
                let asset = policy.doc().assets[asset].key();
                let of = attacker.got.iter().filter(|c| {
                    c.key == *key && c.asset.as_ref() == Some(&asset)
                        && c.kind == casemate_policy::ChargeKind::Amount
                });
                all.extend(of.map(|c| (c.at.0, c.amount.to_u128().unwrap())));
            }
            let got = worst(&all, length(shared.span, slack_of));
            prop_assert!(got <= bound.to_u128().unwrap(), "{got} of shared {bound} in {}\n{text}", shared.span);
        }
    }

    /// Where a row says `attained`, an attacker who takes all that is left whenever there is some
    /// gets exactly that.
    #[test]
    fn i5_greedy_attacker_reaches_what_is_said_to_be_attained(
        grants in grants(),
        slack in prop_oneof![Just(0_u64), 1_u64..3_000],
    ) {
        let text = render(&grants);
        let policy = Policy::from_toml(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let slack_of = Slack::new(Millis(slack), Millis(0));
        let found = bounds(&policy, setting(slack));
        for row in found.rows.iter().filter(|row| row.attained) {
            let best = grants
                .iter()
                .enumerate()
                .map(|(g, _)| {
                    let got = greedy(&policy, &grants, g, slack_of);
                    worst(&total(&got, row, &policy), length(row.span, slack_of))
                })
                .max()
                .unwrap();
            prop_assert_eq!(
                best, row.amount.unwrap().to_u128().unwrap(),
                "{} in {}\n{}", row.key, row.span, text
            );
        }
    }
}

/// The two tests above would hold of nothing if no row were attained or bounded.
#[test]
fn random_policies_have_rows_that_are_bounded_and_rows_that_are_attained() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut bounded, mut attained, mut unlimited) = (0, 0, 0);
    for _ in 0..100 {
        let grants = grants().new_tree(&mut runner).unwrap().current();
        for row in bounds(&policy(&render(&grants)), setting(0)).rows {
            bounded += usize::from(row.amount.is_some_and(|a| !a.is_zero()));
            unlimited += usize::from(row.amount.is_none());
            attained += usize::from(row.attained && row.amount.is_some_and(|a| !a.is_zero()));
        }
    }
    assert!(bounded > 100 && attained > 30 && unlimited > 0, "{bounded} {attained} {unlimited}");
}

/// All that one grant gives, from now until it ends.
fn greedy(policy: &Policy, grants: &[Gr], g: usize, slack: Slack) -> Vec<Charge> {
    let mut attacker = Attacker::new(policy, grants, slack);
    let end = parse_now().0 + 120_000;
    for _ in 0..400 {
        for who in 0..2 {
            for path in attacker.paths(g) {
                attacker.take_all(g, who, path, 0);
            }
        }
        let mut next = None;
        for who in 0..2 {
            for path in attacker.paths(g) {
                if let Decision::Deny(denial) = attacker.ask(g, who, path, 1, 0) {
                    next = [next, denial.resets_at].into_iter().flatten().min();
                }
            }
        }
        match next {
            Some(next) if next > attacker.now && next.0 < end => attacker.now = next,
            _ => break,
        }
    }
    attacker.got
}

fn rows(text: &str, now: &str) -> Vec<(String, String, String, Option<String>, bool)> {
    let policy = policy(text);
    let found = bounds(&policy, Setting { now: time(now), cluster: None });
    found
        .rows
        .iter()
        .map(|row| {
            let span = match row.span {
                Span::Window(window) => window.to_text(),
                Span::UntilExpiry(_) => "expiry".to_owned(),
            };
            let amount = row.amount.map(|a| a.to_decimal(row.decimals));
            (row.key.to_string(), row.asset.to_string(), span, amount, row.attained)
        })
        .collect()
}

fn row(
    key: &str,
    asset: &str,
    span: &str,
    amount: &str,
    attained: bool,
) -> (String, String, String, Option<String>, bool) {
    let own = ToOwned::to_owned;
    (own(key), own(asset), own(span), Some(own(amount)), attained)
}

#[test]
fn the_agents_bound_is_its_limit_and_is_reached() {
    let found = rows(X402, "2027-02-26T12:00:00Z");
    assert_eq!(
        found,
        [
            row("agent-7", "usdc_base", "1h", "200", true),
            row("agent-7", "usdc_base", "24h", "200", true),
            // two and a half days are three windows; within hours, that is not claimed to be reached
            row("agent-7", "usdc_base", "expiry", "600", false),
        ]
    );
}

#[test]
fn the_treasurys_bound_is_what_needs_nobody_and_its_fees() {
    let found = rows(TREASURY, "2027-05-01T00:00:00Z");
    assert_eq!(
        found,
        [
            // 50 signatures of 1, and half an ether of fees
            row("treasury", "eth", "24h", "50.5", false),
            row("treasury", "eth", "7d", "353.5", false),
            row("treasury", "eth", "expiry", "1565.5", false),
        ]
    );
    let policy = policy(TREASURY);
    let found = bounds(&policy, Setting { now: time("2027-05-01T00:00:00Z"), cluster: None });
    let helped: Vec<_> =
        found.rows.iter().map(|r| r.with_approvals.unwrap().to_decimal(18)).collect();
    assert_eq!(helped, ["500.5", "503.5", "2515.5"]);
}

#[test]
fn the_settlements_shared_limit_bounds_both_keys_together() {
    let policy = policy(SETTLEMENT);
    let found = bounds(&policy, Setting { now: time("2027-05-01T00:00:00Z"), cluster: None });
    let shared = &found.shared[0];
    assert_eq!(shared.name.as_str(), "usdt-settlement");
    assert_eq!(shared.counts.len(), 3);
    assert_eq!(shared.amount, Some(Amount::from_decimal("15000", 6).unwrap()));
    assert!(shared.attained);
    let refund =
        found.rows.iter().find(|r| r.key.as_str() == "refund" && r.asset.as_str() == "usdt_eth");
    assert_eq!(refund.unwrap().amount, Some(Amount::from_decimal("2000", 6).unwrap()));
}

#[test]
fn raw_hashes_make_everything_of_the_key_unlimited() {
    let text = format!(
        "{X402}\n[[grant]]\nid = \"raw\"\nkey = \"agent-7\"\nprincipals = [\"agent:research\"]\nallow = [\"raw_hash\"]\nlimits = [{{ count = 3, window = \"24h\" }}]\n"
    );
    let found = bounds(&policy(&text), Setting { now: noon(), cluster: None });
    assert!(!found.rows.is_empty());
    assert!(found.rows.iter().all(|row| row.amount.is_none() && row.unbounded_by.is_some()));
    assert_eq!(found.unbounded.len(), 1);
    assert!(found.to_text().contains("**UNLIMITED**: grant raw signs raw_hash with key agent-7"));
}

#[test]
fn figures_for_broken_enclaves_and_freezes_are_the_designs() {
    let cluster = |nodes, threshold| Cluster {
        nodes,
        threshold,
        tau: Millis(5_000),
        delta: Millis(500),
        dead_man: Some(Millis(600_000)),
        lease: None,
    };
    assert_eq!(cluster(3, 2).broken(), [(1, 2)]);
    assert_eq!(cluster(5, 2).broken(), [(1, 4)]);
    assert_eq!(cluster(5, 3).broken(), [(1, 2), (2, 3)]);
    assert_eq!(cluster(3, 2).freeze_held_back(), Some(Millis(606_000)));
    let found = bounds(&policy(X402), Setting { now: noon(), cluster: Some(cluster(3, 2)) });
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["bounds"][1]["amount"], "200000000");
    assert_eq!(json["bounds"][1]["window"], "24h");
    assert_eq!(json["bounds"][1]["decimals"], 6);
    assert_eq!(json["bounds"][1]["if_broken"][0]["amount"], "400000000");
    assert_eq!(json["freeze_held_back"], "606s");
    assert_eq!(json["extra_limits_per_recovery"], 1);
    let text = found.to_text();
    assert!(
        text.contains("If 1 enclave of 3 (threshold 2) is itself broken: at most 2 times"),
        "{text}"
    );
}

#[test]
fn approvers_who_are_requesters_do_not_protect() {
    let text = TREASURY
        .replace("principals = [\"operator:*\"]", "principals = [\"operator:*\", \"treasurer:*\"]");
    let found =
        bounds(&policy(&text), Setting { now: time("2027-05-30T00:00:00Z"), cluster: None });
    // one approval of a treasurer whose plain credential asks too; not the tiers with passkeys
    assert_eq!(found.rows[0].amount.unwrap().to_decimal(18), "500.5");
    assert_eq!(found.rows[0].grants.len(), 1);
    let text =
        text.replace("upto = \"10\", approvals = \"1 of", "upto = \"10\", approvals = \"3 of");
    let found =
        bounds(&policy(&text), Setting { now: time("2027-05-30T00:00:00Z"), cluster: None });
    // an operator asks, all three approve
    assert_eq!(found.rows[0].amount.unwrap().to_decimal(18), "500.5");
    let text = text.replace("\"operator:*\", ", "");
    let found =
        bounds(&policy(&text), Setting { now: time("2027-05-30T00:00:00Z"), cluster: None });
    // one of the three has to ask, and two are not enough
    assert_eq!(found.rows[0].amount.unwrap().to_decimal(18), "50.5");
}

#[test]
fn plain_credentials_exist_for_every_principal_of_the_tests() {
    let policy = policy(&render(&[]));
    let keys = policy.doc().principals.values().flatten();
    assert!(keys.clone().count() > 0);
    assert!(keys.into_iter().all(|k| k.algorithm() == Algorithm::P256));
}
