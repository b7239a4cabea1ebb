//! Actions that need a grant which names them, through the evaluator; and how selection scales.
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
    Policy,
    bounds::{Setting, bounds},
};
use casemate_proto::{
    Amount, ChainId, DenialCode, GrantId, PrincipalId, PublicKey, denial::LimitRef,
};
use casemate_tx::{Action, EvmAddress, Intent};
use common::*;

/// The settlement's first grant, for another action.
fn with_action(action: &str) -> String {
    SETTLEMENT.replacen("[\"erc20.transfer\"]", &format!("[\"{action}\"]"), 1)
}

fn payout(text: &str) -> World {
    World::new(text, "payout", "workflow:settlement")
}

fn doing(action: Action, units: Amount) -> Intent {
    let mut intent = usdt(1, 0);
    intent.action = action;
    intent.amount = units;
    intent
}

#[test]
fn an_approval_charges_what_it_lets_be_spent() {
    let mut world = payout(&with_action("erc20.approve"));
    let most = Amount::from_decimal("2500", 6).unwrap();
    world.sign(&doing(Action::Erc20Approve, most));
    assert_eq!(world.book.charges().next().unwrap().amount, most);
    let denial = world.denied(&doing(Action::Erc20Approve, Amount::MAX));
    assert_eq!(denial.code, DenialCode::OverPerTxCap);
    // transfers of the other key share its budget
    for _ in 0..5 {
        world.sign(&doing(Action::Erc20Approve, most));
    }
    world.key = "refund";
    assert_eq!(world.denied(&usdt(1, 1)).code, DenialCode::LimitExceeded);
}

#[test]
fn approving_everything_fits_no_sum_and_taking_it_back_does() {
    let text = with_action("nft.set_approval_for_all").replacen("max_per_tx = \"2500\"\n", "", 1);
    let mut world = payout(&text);
    let denial = world.denied(&doing(Action::SetApprovalForAll, Amount::MAX));
    assert_eq!(denial.code, DenialCode::LimitExceeded);
    assert_eq!(denial.resets_at, None);
    world.sign(&doing(Action::SetApprovalForAll, Amount::ZERO));
}

#[test]
fn transfer_from_spends_anothers_funds_and_counts() {
    let mut world = payout(&with_action("erc20.transfer_from"));
    let mut intent = doing(Action::Erc20TransferFrom, Amount::from(7));
    intent.payer = Some(EvmAddress([0x77; 20]));
    world.sign(&intent);
    assert_eq!(world.book.charges().next().unwrap().amount, Amount::from(7));
    // a plain transfer that names another payer is not what it says it is
    let mut world = payout(SETTLEMENT);
    intent.action = Action::Erc20Transfer;
    assert_eq!(world.denied(&intent).code, DenialCode::WrongPayer);
    intent.payer = None;
    world.sign(&intent);
}

#[test]
fn permit_as_typed_data_needs_the_pinned_domain_and_its_own_signer() {
    let text = X402.replace("eip3009.transfer_with_authorization", "erc20.permit");
    let mut world = World::new(&text, "agent-7", "agent:research");
    let mut intent = x402(1, world.now);
    intent.action = Action::Erc20Permit;
    world.sign(&intent);
    let mut other = intent.clone();
    other.domain.as_mut().unwrap().name = "USDC".to_owned();
    assert_eq!(world.denied(&other).code, DenialCode::DomainMismatch);
    let mut other = intent.clone();
    other.payer = Some(EvmAddress([1; 20]));
    assert_eq!(world.denied(&other).code, DenialCode::WrongPayer);
    let mut other = intent;
    other.validity = None;
    assert_eq!(world.denied(&other).code, DenialCode::ValidityTooLong);
}

fn bare(action: Action) -> Intent {
    let mut intent = usdt(1, 0);
    intent.action = action;
    (intent.chain, intent.asset, intent.to, intent.max_fee) = (None, None, None, None);
    intent
}

#[test]
fn messages_and_hashes_are_signed_as_often_as_a_grant_says() {
    for (name, action) in [("message", Action::Message), ("raw_hash", Action::RawHash)] {
        let text = format!(
            "{SETTLEMENT}\n[[grant]]\nid = \"other\"\nkey = \"payout\"\nprincipals = [\"workflow:settlement\"]\nallow = [\"{name}\"]\nlimits = [{{ count = 2, window = \"1h\" }}]\n"
        );
        let mut world = payout(&text);
        world.sign(&bare(action));
        world.sign(&bare(action));
        let denial = world.denied(&bare(action));
        assert_eq!(denial.code, DenialCode::LimitExceeded);
        assert!(matches!(denial.limit, Some(LimitRef::Count { max: 2, .. })));
        // what is signed under the other grants is none of theirs
        world.sign(&usdt(1, 1));
    }
}

#[test]
fn contract_calls_are_on_a_listed_contract_without_value_and_bounded_by_nothing() {
    let text = format!(
        "{SETTLEMENT}\n[[grant]]\nid = \"calls\"\nkey = \"payout\"\nprincipals = [\"workflow:settlement\"]\nallow = [\"eth.contract_call\"]\nasset = \"eth\"\nto = \"0x4545454545454545454545454545454545454545\"\nlimits = [{{ count = 2, window = \"1h\" }}]\nmax_fee_per_tx = \"0.01\"\nfee_limits = [{{ sum = \"1\", window = \"1h\" }}]\n"
    );
    let mut world = payout(&text);
    let mut call = usdt(1, 0);
    (call.action, call.asset, call.to) = (Action::ContractCall, None, Some(EvmAddress([0x45; 20])));
    world.sign(&call);
    let mut other = call.clone();
    other.native_value = Amount::from(1);
    assert_eq!(world.denied(&other).code, DenialCode::ActionNotAllowed);
    let mut other = call.clone();
    other.to = Some(EvmAddress([0x46; 20]));
    assert_eq!(world.denied(&other).code, DenialCode::PayeeNotListed);
    let mut other = call;
    other.chain = Some(ChainId::eip155(137));
    assert_eq!(world.denied(&other).code, DenialCode::NoGrant);
    let found = bounds(&world.policy, Setting { now: noon(), cluster: None });
    let unlimited = |asset: &str| {
        let mut rows =
            found.rows.iter().filter(|r| r.key.as_str() == "payout" && r.asset.as_str() == asset);
        rows.all(|row| row.amount.is_none())
    };
    assert!(unlimited("usdt_eth") && unlimited("eth"));
    // what is on another chain stays bounded
    assert!(!unlimited("usdt_pol"));
}

/// Ten thousand agents, each with a grant of its own on one key.
#[test]
fn ten_thousand_grants_select_and_lint() {
    let one = policy(X402);
    let mut doc = one.doc().clone();
    let (_, grant) = doc.grants.pop_first().unwrap();
    let (_, credentials) = doc.principals.first_key_value().unwrap();
    let credential = credentials.first().unwrap().clone();
    for i in 0..10_000 {
        let id = PrincipalId::new(&format!("agent:{i}")).unwrap();
        let mut grant = grant.clone();
        grant.principals = [casemate_policy::pattern::PrincipalPattern::Exact(id.clone())].into();
        doc.grants.insert(GrantId::new(&format!("g{i}")).unwrap(), grant);
        doc.principals.insert(id, std::collections::BTreeSet::<PublicKey>::new());
    }
    doc.principals.insert(PrincipalId::new("agent:research").unwrap(), [].into());
    doc.principals.insert(PrincipalId::new("agent:7777").unwrap(), [credential].into());
    let policy = Policy::new(doc).unwrap();
    assert_eq!(Policy::from_canonical(&policy.canonical_bytes()).unwrap(), policy);
    let mut world = World::new(X402, "agent-7", "agent:7777");
    world.policy = policy;
    for _ in 0..100 {
        let allowance = world.allow(&x402(1, world.now));
        assert_eq!(allowance.grant().as_str(), "g7777");
    }
    let found = casemate_policy::lint(&world.policy, world.now);
    assert!(found.iter().all(|f| f.code != "ambiguous"));
    let found = bounds(&world.policy, Setting { now: noon(), cluster: None });
    assert_eq!(found.rows.len(), 3);
}
