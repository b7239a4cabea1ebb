//! Verdicts, one case at a time.
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

use casemate_policy::Decision;
use casemate_proto::{
    Amount, ChainId, DenialCode, Millis, UnixMillis,
    denial::LimitRef,
    time::{DAY, HOUR},
};
use casemate_tx::{Action, AssetRef, Domain, EvmAddress, Validity};
use common::*;

fn agent() -> World {
    World::new(X402, "agent-7", "agent:research")
}

fn units(text: &str) -> u64 {
    u64::try_from(Amount::from_decimal(text, 6).unwrap().to_u128().unwrap()).unwrap()
}

fn wei(text: &str) -> Amount {
    Amount::from_decimal(text, 18).unwrap()
}

#[test]
fn payment_within_everything_is_allowed_and_charged() {
    let mut world = agent();
    let allowance = world.allow(&x402(units("5"), world.now));
    assert_eq!(allowance.grant().as_str(), "x402-research-agent");
    assert_eq!(allowance.charges().len(), 1);
    let counters: Vec<_> = allowance.counters().iter().map(|c| (c.before, c.after)).collect();
    assert_eq!(
        counters,
        [(Amount::ZERO, Amount::from(units("5"))), (Amount::ZERO, Amount::from(1)),]
    );
    assert_eq!(world.book.len(), 1);
}

#[test]
fn amount_over_the_cap_is_denied_with_the_cap() {
    let world = agent();
    let denial = world.denied(&x402(units("5") + 1, world.now));
    assert_eq!(denial.code, DenialCode::OverPerTxCap);
    assert_eq!(denial.limit, Some(LimitRef::PerTx { max: Amount::from(units("5")) }));
    assert_eq!(denial.grant.unwrap().as_str(), "x402-research-agent");
    assert_eq!(denial.resets_at, None);
}

#[test]
fn window_that_is_full_denies_and_says_when_it_has_room() {
    let mut world = agent();
    let start = world.now;
    for i in 0..40 {
        world.now = UnixMillis(start.0 + i * 60_000);
        world.sign(&x402(units("5"), world.now));
    }
    let denial = world.denied(&x402(units("5"), world.now));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.remaining, Some(Amount::ZERO));
    assert_eq!(denial.limit, Some(LimitRef::Sum { max: Amount::from(units("200")), window: DAY }));
    // the first leaves the window exactly a day later, which is within the hours
    let again = denial.resets_at.unwrap();
    assert_eq!(again, UnixMillis(start.0 + DAY.0));
    world.now = UnixMillis(again.0 - 1);
    world.denied(&x402(units("5"), world.now));
    world.now = again;
    world.sign(&x402(units("5"), world.now));
    world.denied(&x402(units("5"), world.now));
}

#[test]
fn what_can_never_fit_has_no_time_at_which_it_would() {
    let mut world = World::new(SETTLEMENT, "refund", "workflow:settlement");
    for _ in 0..4 {
        world.sign(&usdt(1, units("500")));
    }
    let denial = world.denied(&usdt(1, 1));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.resets_at, Some(UnixMillis(world.now.0 + DAY.0)));

    let text = X402.replace("max_per_tx = \"5\"", "max_per_tx = \"500\"");
    let world = World::new(&text, "agent-7", "agent:research");
    let denial = world.denied(&x402(units("201"), world.now));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.remaining, Some(Amount::from(units("200"))));
    assert_eq!(denial.resets_at, None);
}

#[test]
fn reset_time_waits_for_the_hours_to_open() {
    let mut world = agent();
    world.now = time("2026-11-20T09:30:00Z");
    for _ in 0..40 {
        world.sign(&x402(units("5"), world.now));
    }
    // charged once more in the evening of the day before, so to say: too late for the hours
    let denial = world.denied(&x402(units("5"), world.now));
    assert_eq!(denial.resets_at, Some(time("2026-11-21T09:30:00Z")));
    world.now = time("2026-11-20T18:00:00Z");
    let denial = world.denied(&x402(units("5"), world.now));
    assert_eq!(denial.code, DenialCode::OutsideHours);
    assert_eq!(denial.resets_at, Some(time("2026-11-21T09:00:00Z")));
}

#[test]
fn count_limit_denies_and_reports_a_number() {
    let text = X402.replace("count = 120", "count = 2");
    let mut world = World::new(&text, "agent-7", "agent:research");
    world.sign(&x402(1, world.now));
    world.sign(&x402(1, world.now));
    let denial = world.denied(&x402(1, world.now));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.limit, Some(LimitRef::Count { max: 2, window: HOUR }));
    assert_eq!(denial.remaining, Some(Amount::ZERO));
    assert_eq!(denial.resets_at, Some(UnixMillis(world.now.0 + HOUR.0)));
}

#[test]
fn payee_off_the_list_is_denied_with_the_grant_that_would_do() {
    let world = agent();
    let mut intent = x402(1, world.now);
    intent.to = Some(EvmAddress([7; 20]));
    let denial = world.denied(&intent);
    assert_eq!(denial.code, DenialCode::PayeeNotListed);
    assert_eq!(denial.grant.unwrap().as_str(), "x402-research-agent");
}

#[test]
fn listed_payee_of_another_chain_is_not_listed() {
    let text = SETTLEMENT.replace(
        "\"eip155:137\" = [\"0x4444444444444444444444444444444444444444\"]",
        "\"eip155:137\" = [\"0x5555555555555555555555555555555555555555\"]",
    );
    let world = World::new(&text, "payout", "workflow:settlement");
    assert_eq!(world.denied(&usdt(137, 1)).code, DenialCode::PayeeNotListed);
}

#[test]
fn deny_rule_comes_before_any_grant() {
    let world = agent();
    let mut intent = x402(1, world.now);
    intent.to = Some(EvmAddress([0x22; 20]));
    assert_eq!(world.denied(&intent).code, DenialCode::DenyRule);
}

#[test]
fn domain_that_is_not_pinned_is_denied() {
    let world = agent();
    for (name, version) in [("USDC", "2"), ("USD Coin", "1"), ("", "")] {
        let mut intent = x402(1, world.now);
        intent.domain = Some(Domain { name: name.to_owned(), version: version.to_owned() });
        let denial = world.denied(&intent);
        assert_eq!(denial.code, DenialCode::DomainMismatch);
        assert!(denial.grant.is_some());
    }
    let mut intent = x402(1, world.now);
    intent.domain = None;
    assert_eq!(world.denied(&intent).code, DenialCode::DomainMismatch);
}

#[test]
fn payer_that_is_not_the_signer_is_denied() {
    let world = agent();
    for payer in [None, Some(EvmAddress([8; 20]))] {
        let mut intent = x402(1, world.now);
        intent.payer = payer;
        assert_eq!(world.denied(&intent).code, DenialCode::WrongPayer);
    }
}

#[test]
fn validity_is_measured_from_now_and_a_past_valid_after_adds_nothing() {
    let world = agent();
    let with = |after: u64, before: u64| {
        let mut intent = x402(1, world.now);
        intent.validity = Some(Validity { after: UnixMillis(after), before: UnixMillis(before) });
        intent
    };
    let now = world.now.0;
    for after in [0, now - 600_000, now + 1] {
        assert!(matches!(world.ask(&with(after, now + 600_000)), Decision::Allow(_)));
    }
    for (after, before, code) in [
        (0, now + 600_001, DenialCode::ValidityTooLong),
        (0, u64::MAX, DenialCode::ValidityTooLong),
        (0, now, DenialCode::Expired),
        (0, 0, DenialCode::Expired),
        (now + 5, now + 5, DenialCode::ValidityTooLong),
        (now + 9, now + 5, DenialCode::ValidityTooLong),
    ] {
        assert_eq!(world.denied(&with(after, before)).code, code, "{after} {before}");
    }
    let mut intent = x402(1, world.now);
    intent.validity = None;
    assert_eq!(world.denied(&intent).code, DenialCode::Malformed);
}

#[test]
fn grant_and_policy_expire() {
    let mut world = agent();
    world.now = time("2027-03-01T12:00:00Z");
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::GrantExpired);
    world.now = time("2027-06-01T00:00:00Z");
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::PolicyExpired);
    let text = X402.replace("hours =", "not_before = \"2026-12-01T00:00:00Z\"\nhours =");
    let world = World::new(&text, "agent-7", "agent:research");
    let denial = world.denied(&x402(1, world.now));
    assert_eq!(denial.code, DenialCode::GrantExpired);
    assert_eq!(denial.resets_at, Some(time("2026-12-01T09:00:00Z")));
}

#[test]
fn other_key_path_principal_or_credential_is_denied() {
    let mut world = agent();
    world.path = "m/0";
    let denial = world.denied(&x402(1, world.now));
    assert_eq!(denial.code, DenialCode::BadPath);
    assert!(denial.grant.is_some());
    world.path = "m";
    world.key = "agent-8";
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::NoGrant);
    let mut world = World::new(TREASURY, "treasury", "treasurer:carol");
    let intent = eth(wei("1"), wei("0.01"));
    assert_eq!(world.denied(&intent).code, DenialCode::NoGrant);
    // a credential of somebody else, a passkey, and one that nobody has
    world.principal = "operator:alice".to_owned();
    for other in [
        credential(&world.policy, "operator:bob"),
        passkey(&world.policy, "treasurer:dan"),
        credential(&policy(X402), "agent:research"),
    ] {
        let Decision::Deny(denial) = world.ask_with(&intent, &other) else { panic!() };
        assert_eq!(denial.code, DenialCode::UnknownCredential);
    }
}

#[test]
fn i2_what_no_grant_names_is_denied_by_its_own_code() {
    let world = World::new(SETTLEMENT, "payout", "workflow:settlement");
    for (action, code) in [
        (Action::RawHash, DenialCode::RawHash),
        (Action::Message, DenialCode::ActionNotAllowed),
        (Action::Erc20Approve, DenialCode::ActionNotAllowed),
        (Action::Erc20IncreaseAllowance, DenialCode::ActionNotAllowed),
        (Action::Erc20Permit, DenialCode::ActionNotAllowed),
        (Action::SetApprovalForAll, DenialCode::ActionNotAllowed),
        (Action::ContractCreation, DenialCode::ActionNotAllowed),
        (Action::ContractCall, DenialCode::ActionNotAllowed),
        (Action::OtherTypedData, DenialCode::ActionNotAllowed),
        (Action::EthNativeTransfer, DenialCode::NoGrant),
    ] {
        let mut intent = usdt(1, 0);
        intent.action = action;
        if matches!(action, Action::RawHash | Action::Message | Action::OtherTypedData) {
            intent.max_fee = None;
        }
        assert_eq!(world.denied(&intent).code, code, "{action:?}");
    }
    let mut intent = usdt(1, 1);
    intent.asset = Some(AssetRef::Token(EvmAddress([1; 20])));
    assert_eq!(world.denied(&intent).code, DenialCode::UnknownAsset);
    let mut intent = usdt(1, 1);
    intent.chain = Some(ChainId::eip155(10));
    assert_eq!(world.denied(&intent).code, DenialCode::UnknownAsset);
}

#[test]
fn i2_native_value_on_a_token_call_is_denied() {
    let world = World::new(SETTLEMENT, "payout", "workflow:settlement");
    let mut intent = usdt(1, 1);
    intent.native_value = Amount::from(1);
    assert_eq!(world.denied(&intent).code, DenialCode::ActionNotAllowed);
}

#[test]
fn i2_two_matching_grants_deny() {
    let twice =
        X402.replace("[[grant]]\nid = \"x402-research-agent\"", "[[grant]]\nid = \"second\"");
    let second = twice.split_once("[[grant]]").unwrap().1;
    let text = format!("{X402}\n[[grant]]{second}");
    let world = World::new(&text, "agent-7", "agent:research");
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::AmbiguousGrant);
}

#[test]
fn i2_overflowing_sum_denies() {
    let text = X402
        .replace("max_per_tx = \"5\"\n", "unlimited = true\n")
        .replace("    { sum = \"200\", window = \"24h\" },\n", "");
    let mut world = World::new(&text, "agent-7", "agent:research");
    let mut intent = x402(1, world.now);
    intent.amount = Amount::MAX;
    world.sign(&intent);
    // nothing sums, so nothing overflows: what is unlimited stays so
    world.sign(&intent);
    // a limit that is stated later sees them, and no sum of theirs fits 256 bits
    world.policy = policy(X402);
    let denial = world.denied(&x402(1, world.now));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.remaining, Some(Amount::ZERO));
}

#[test]
fn fee_is_capped_and_summed_in_the_native_asset() {
    let mut world = World::new(TREASURY, "treasury", "operator:alice");
    let denial = world.denied(&eth(wei("1"), wei("0.0500001")));
    assert_eq!(denial.code, DenialCode::FeeTooHigh);
    assert_eq!(denial.limit, Some(LimitRef::Fee { max: wei("0.05") }));
    for _ in 0..10 {
        let allowance = world.allow(&eth(wei("1"), wei("0.05")));
        assert_eq!(allowance.charges().len(), 2);
    }
    let denial = world.denied(&eth(wei("1"), wei("0.05")));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.limit, Some(LimitRef::FeeSum { max: wei("0.5"), window: DAY }));
    assert_eq!(denial.resets_at, Some(UnixMillis(world.now.0 + DAY.0)));
    let mut intent = eth(wei("1"), wei("0"));
    intent.max_fee = None;
    assert_eq!(world.denied(&intent).code, DenialCode::Malformed);
}

#[test]
fn shared_limit_counts_every_key_and_asset_of_its_group() {
    let mut world = World::new(SETTLEMENT, "payout", "workflow:settlement");
    for chain in [1, 137, 1, 137, 1] {
        world.sign(&usdt(chain, units("2500")));
    }
    world.sign(&usdt(1, units("2400")));
    // 100 are left of 15,000, for either key
    world.key = "refund";
    let denial = world.denied(&usdt(1, units("101")));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.remaining, Some(Amount::from(units("100"))));
    world.sign(&usdt(1, units("100")));
    world.key = "payout";
    assert_eq!(world.denied(&usdt(137, 1)).remaining, Some(Amount::ZERO));
}

#[test]
fn limit_counts_charges_of_other_grants_of_its_scope() {
    let second = X402
        .split_once("[[grant]]")
        .unwrap()
        .1
        .replace("x402-research-agent", "wide")
        .replace("\"@payees.x402\"", "\"0x6666666666666666666666666666666666666666\"")
        .replace("sum = \"200\"", "sum = \"300\"");
    let text = format!("{X402}\n[[grant]]{second}");
    let mut world = World::new(&text, "agent-7", "agent:research");
    let mut wide = x402(units("5"), world.now);
    wide.to = Some(EvmAddress([0x66; 20]));
    for _ in 0..40 {
        world.sign(&wide);
    }
    // the narrower grant's limit of 200 is full of what the wider one allowed
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::LimitExceeded);
    world.sign(&wide);
}

#[test]
fn small_tier_needs_nobody_and_larger_ones_people() {
    let mut world = World::new(TREASURY, "treasury", "operator:alice");
    assert_eq!(world.allow(&eth(wei("1"), wei("0.01"))).tier(), Some(0));
    let ten = eth(wei("10"), wei("0.01"));
    let Decision::Pending(requirement) = world.ask(&ten) else { panic!() };
    assert_eq!((requirement.tier, requirement.needed, requirement.have), (1, 1, 0));
    assert_eq!(requirement.of.unwrap().as_str(), "treasurers");
    // the requester, another operator, and an approval from the future do not count
    world.approve("operator:alice", false);
    world.approve("operator:bob", false);
    world.approve("treasurer:carol", false);
    world.approvals[2].at = UnixMillis(world.now.0 + 1);
    let Decision::Pending(requirement) = world.ask(&ten) else { panic!() };
    assert_eq!(requirement.have, 0);
    world.approvals[2].at = world.now;
    assert_eq!(world.allow(&ten).tier(), Some(1));
}

#[test]
fn passkey_tier_counts_distinct_people_with_passkeys_only() {
    let mut world = World::new(TREASURY, "treasury", "operator:bob");
    let intent = eth(wei("250"), wei("0.01"));
    world.approve("treasurer:carol", false);
    world.approve("treasurer:dan", false);
    let Decision::Pending(requirement) = world.ask(&intent) else { panic!() };
    assert_eq!((requirement.have, requirement.passkey), (0, true));
    world.approve("treasurer:carol", true);
    world.approve("treasurer:carol", true);
    let Decision::Pending(requirement) = world.ask(&intent) else { panic!() };
    assert_eq!(requirement.have, 1);
    // a plain credential that claims to be a passkey
    world.approve("treasurer:dan", false);
    world.approvals.last_mut().unwrap().passkey = true;
    assert!(matches!(world.ask(&intent), Decision::Pending(_)));
    world.approve("treasurer:dan", true);
    assert_eq!(world.allow(&intent).tier(), Some(2));
}

#[test]
fn delay_counts_from_when_the_request_was_first_seen() {
    let mut world = World::new(TREASURY, "treasury", "operator:alice");
    let intent = eth(wei("300"), wei("0.01"));
    world.first_seen = Some(world.now);
    for name in ["treasurer:carol", "treasurer:dan", "treasurer:erin"] {
        world.approve(name, true);
    }
    let Decision::Pending(requirement) = world.ask(&intent) else { panic!() };
    assert_eq!(requirement.have, 3);
    let opens = UnixMillis(world.now.0 + HOUR.0);
    assert_eq!(requirement.not_before, Some(opens));
    world.now = UnixMillis(opens.0 - 1);
    assert!(matches!(world.ask(&intent), Decision::Pending(_)));
    world.now = opens;
    world.sign(&intent);
    let denial = world.denied(&eth(wei("501"), wei("0.01")));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
}

#[test]
fn amount_above_the_highest_tier_is_denied() {
    let text = TREASURY.replace("sum = \"500\"", "sum = \"5000\"");
    let world = World::new(&text, "treasury", "operator:alice");
    let denial = world.denied(&eth(wei("500.1"), wei("0.01")));
    assert_eq!(denial.code, DenialCode::OverTiers);
    assert_eq!(denial.remaining, Some(wei("500")));
}

#[test]
fn approver_whose_credential_was_revoked_no_longer_counts() {
    let mut world = World::new(TREASURY, "treasury", "operator:alice");
    world.approve("treasurer:carol", false);
    let intent = eth(wei("10"), wei("0.01"));
    assert!(matches!(world.ask(&intent), Decision::Allow(_)));
    let line = TREASURY
        .lines()
        .find(|l| l.contains("03b57c3cc6b9eb0cce2729b51ea1056ce28c4fb27f1b18804ed7aeef87a69dd51e"))
        .unwrap();
    world.policy = policy(&TREASURY.replace(line, ""));
    assert!(matches!(world.ask(&intent), Decision::Pending(_)));
}

#[test]
fn time_that_goes_back_and_slack_beyond_the_books_are_denied() {
    let mut world = agent();
    world.sign(&x402(1, world.now));
    world.slack = casemate_policy::Slack::new(Millis(1), Millis(0));
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::Malformed);
    world.slack = casemate_policy::Slack::ZERO;
    world.now = UnixMillis(world.now.0 - 1);
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::Malformed);
}

#[test]
fn full_book_denies() {
    let mut world = agent();
    world.book = casemate_policy::ChargeBook::with_cap(world.slack, 1);
    world.sign(&x402(1, world.now));
    assert_eq!(world.denied(&x402(1, world.now)).code, DenialCode::TableFull);
}
