//! Governance, freezes, keys and admission.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]
mod kit;

use casemate_ledger::{Attachment, EntryBody, Verdict};
use casemate_proto::governance::{Change, FreezerStatement};
use casemate_proto::ids::Hash32;
use casemate_proto::{DenialCode, Incarnation, Millis, Scheme};
use ed25519_dalek::SigningKey;
use kit::{Kit, boot, code, image, is_allowed, key_name, node, second};

fn loosened(kit: &Kit) -> casemate_policy::Policy {
    kit.policy(&kit::POLICY.replace(r#"sum = "20""#, r#"sum = "40""#))
}

#[test]
fn i11_first_change_confirms_the_genesis() {
    let mut kit = Kit::unborn(|_| {});
    let id = kit.state.genesis();
    kit.accept(EntryBody::Genesis { id });
    let change = Change::CreateKey { name: key_name("k"), scheme: Scheme::Ed25519 };
    let signed = kit.signed_change(change);
    assert_eq!(code(kit.apply(EntryBody::Governance(signed))), DenialCode::GovernanceRefused);
    kit.govern(Change::ConfirmGenesis);
}

#[test]
fn first_entry_is_the_genesis_and_no_other_is() {
    let mut kit = Kit::unborn(|_| {});
    assert!(matches!(kit.apply(EntryBody::Tick), Verdict::Denied(_)));
    let id = kit.state.genesis();
    assert!(matches!(kit.apply(EntryBody::Genesis { id }), Verdict::Denied(_)));
}

#[test]
fn i11_loosening_waits_for_a_seen_checkpoint_and_the_delay() {
    let mut kit = Kit::ready();
    let policy = loosened(&kit);
    let before = kit.state.policy().unwrap().1;
    assert!(matches!(kit.propose_policy(&policy), Verdict::Accepted { effective: Some(_), .. }));
    // nobody outside has seen it: the delay does not even begin
    kit.pass(second(7_200));
    kit.accept(EntryBody::Tick);
    assert_eq!(kit.state.policy().unwrap().1, before);
    kit.heartbeat();
    kit.pass(second(3_599));
    kit.accept(EntryBody::Tick);
    assert_eq!(kit.state.policy().unwrap().1, before);
    kit.pass(second(1));
    kit.accept(EntryBody::Tick);
    assert_eq!(kit.state.policy().unwrap().1, policy.policy_hash());
}

#[test]
fn i11_freezer_vetoes_a_waiting_change() {
    let mut kit = Kit::ready();
    let before = kit.state.policy().unwrap().1;
    let policy = loosened(&kit);
    kit.propose_policy(&policy);
    kit.heartbeat();
    let change = *kit.state.pending_changes().keys().next().unwrap();
    let veto = kit.statement(FreezerStatement::Veto { change });
    kit.accept(EntryBody::Statement(veto));
    kit.pass(second(7_200));
    kit.accept(EntryBody::Tick);
    assert_eq!(kit.state.policy().unwrap().1, before);
}

#[test]
fn heartbeat_that_does_not_list_a_change_does_not_start_its_delay() {
    let mut kit = Kit::ready();
    kit.pass(second(1));
    let policy = loosened(&kit);
    kit.propose_policy(&policy);
    let heartbeat = FreezerStatement::Heartbeat {
        size: kit.state.size(),
        root: kit.state.root(),
        pending: Vec::new(),
    };
    let signed = kit.statement(heartbeat);
    kit.accept(EntryBody::Statement(signed));
    kit.pass(second(7_200));
    kit.accept(EntryBody::Tick);
    assert_ne!(kit.state.policy().unwrap().1, policy.policy_hash());
}

#[test]
fn heartbeat_over_another_root_is_refused() {
    let mut kit = Kit::ready();
    let heartbeat = FreezerStatement::Heartbeat {
        size: kit.state.size(),
        root: Hash32::new([1; 32]),
        pending: Vec::new(),
    };
    let signed = kit.statement(heartbeat);
    assert!(matches!(kit.apply(EntryBody::Statement(signed)), Verdict::Denied(_)));
}

#[test]
fn heartbeat_that_shows_nothing_new_is_not_taken_twice() {
    let mut kit = Kit::ready();
    kit.pass(second(1));
    kit.heartbeat();
    let again = kit.applied.last().unwrap().0.body.clone();
    assert!(matches!(kit.apply(again), Verdict::Denied(_)));
}

#[test]
fn what_governance_or_a_freezer_said_before_never_becomes_an_entry_again() {
    let mut kit = Kit::ready();
    let create = Change::CreateKey { name: key_name("a"), scheme: Scheme::Ed25519 };
    let change = kit.signed_change(create);
    assert!(kit.state.authenticate_change(&change, kit.now).is_ok());
    kit.accept(EntryBody::Governance(change.clone()));
    assert!(kit.state.authenticate_change(&change, kit.now).is_err());
    let freeze = kit.statement(FreezerStatement::Freeze { nonce: [1; 16] });
    assert!(kit.state.authenticate_statement(&freeze, kit.now).is_ok());
    kit.accept(EntryBody::Statement(freeze.clone()));
    assert!(kit.state.authenticate_statement(&freeze, kit.now).is_err());
}

#[test]
fn new_policy_sees_what_was_spent_before() {
    let mut kit = Kit::ready();
    for _ in 0..4 {
        assert!(is_allowed(&kit.pay(5_000_000)));
    }
    // the grant renamed and loosened: the delay, then the former spending still counts
    let renamed = kit.policy(
        &kit::POLICY
            .replace(r#"id = "x402""#, r#"id = "renamed""#)
            .replace(r#"sum = "20""#, r#"sum = "21""#),
    );
    kit.propose_policy(&renamed);
    kit.heartbeat();
    kit.pass(second(3_600));
    assert!(is_allowed(&kit.pay(1_000_000)));
    assert_eq!(kit.state.policy().unwrap().1, renamed.policy_hash());
    assert_eq!(code(kit.pay(1)), DenialCode::LimitExceeded);
}

#[test]
fn change_replayed_forked_foreign_or_expired_is_refused() {
    let mut kit = Kit::ready();
    let create = |name: &str| Change::CreateKey { name: key_name(name), scheme: Scheme::Ed25519 };
    let first = kit.signed_change(create("a"));
    let fork = kit.signed_change(create("b"));
    kit.accept(EntryBody::Governance(first.clone()));
    for (name, signed) in [("replayed", first), ("forked", fork)] {
        assert!(matches!(kit.apply(EntryBody::Governance(signed)), Verdict::Denied(_)), "{name}");
    }
    let late = kit.signed_change(create("c"));
    kit.pass(second(600));
    assert!(matches!(kit.apply(EntryBody::Governance(late)), Verdict::Denied(_)));
    let mut foreign = kit.signed_change(create("d"));
    foreign.envelope.incarnation = Incarnation(1);
    let message = foreign.envelope.signing_bytes();
    foreign.signatures = kit.governors[..2].iter().map(|g| g.sign(&message)).collect();
    assert!(matches!(kit.apply(EntryBody::Governance(foreign)), Verdict::Denied(_)));
}

#[test]
fn one_governor_is_no_quorum() {
    let mut kit = Kit::ready();
    let mut signed =
        kit.signed_change(Change::CreateKey { name: key_name("x"), scheme: Scheme::Ed25519 });
    signed.signatures.truncate(1);
    assert!(matches!(kit.apply(EntryBody::Governance(signed.clone())), Verdict::Denied(_)));
    signed.signatures.push(signed.signatures[0].clone());
    assert!(matches!(kit.apply(EntryBody::Governance(signed)), Verdict::Denied(_)));
}

#[test]
fn policy_other_than_the_one_signed_for_is_refused() {
    let mut kit = Kit::ready();
    let (signed_for, brought) = (loosened(&kit), kit.policy(kit::POLICY));
    let signed = kit.signed_change(Change::SetPolicy { policy: signed_for.policy_hash() });
    for attachment in [
        None,
        Some(Attachment::Policy(brought.canonical_bytes())),
        Some(Attachment::Policy(vec![0])),
    ] {
        let verdict = kit.apply_with(EntryBody::Governance(signed.clone()), attachment).verdict;
        assert!(matches!(verdict, Verdict::Denied(_)), "{verdict:?}");
    }
    assert!(kit.state.pending_changes().is_empty());
}

#[test]
fn revoked_credential_is_refused_whatever_the_policy_says() {
    let mut kit = Kit::ready();
    let credential = kit.agent.public.id();
    kit.govern(Change::RevokeCredential { credential });
    assert_eq!(code(kit.pay(1)), DenialCode::UnknownCredential);
    let again = kit.policy(&kit::POLICY.replace(r#"sum = "20""#, r#"sum = "19""#));
    kit.set_policy(&again);
    assert_eq!(code(kit.pay(1)), DenialCode::UnknownCredential);
}

#[test]
fn any_freezer_freezes_and_only_the_quorum_unfreezes_by_name() {
    let mut kit = Kit::ready();
    let statement = kit.statement(FreezerStatement::Freeze { nonce: [1; 16] });
    let freeze = statement.id();
    kit.accept(EntryBody::Statement(statement.clone()));
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
    let signed = kit.signed_change(Change::Unfreeze { freeze: Hash32::new([1; 32]) });
    assert!(matches!(kit.apply(EntryBody::Governance(signed)), Verdict::Denied(_)));
    kit.govern(Change::Unfreeze { freeze });
    assert!(is_allowed(&kit.pay(1)));
    // the old statement, replayed by a host, does not freeze again
    assert!(matches!(kit.apply(EntryBody::Statement(statement)), Verdict::Denied(_)));
    assert!(is_allowed(&kit.pay(1)));
    kit.freeze(2);
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
}

#[test]
fn stranger_cannot_freeze() {
    let mut kit = Kit::ready();
    let stranger = kit::Person::new(77);
    let mut signed = kit.statement(FreezerStatement::Freeze { nonce: [1; 16] });
    signed.by =
        stranger.sign(&casemate_proto::governance::SignedStatement::signing_bytes(&signed.id()));
    assert!(matches!(kit.apply(EntryBody::Statement(signed)), Verdict::Denied(_)));
    assert!(is_allowed(&kit.pay(1)));
}

#[test]
fn cluster_out_of_reach_of_its_freezers_freezes_itself() {
    let mut kit = Kit::ready_with(|m| m.limits.dead_man = Some(second(3_600)));
    kit.pass(second(3_000));
    kit.heartbeat();
    kit.pass(second(3_600));
    assert!(is_allowed(&kit.pay(1)));
    kit.pass(Millis(1));
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
    // a heartbeat alone does not thaw it
    kit.heartbeat();
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
    let freeze = *kit.state.freezes().keys().next().unwrap();
    kit.govern(Change::Unfreeze { freeze });
    assert!(is_allowed(&kit.pay(1)));
}

#[test]
fn heartbeat_held_back_by_a_host_counts_from_when_it_was_signed() {
    let mut kit = Kit::ready_with(|m| m.limits.dead_man = Some(second(3_600)));
    kit.pass(second(1));
    let held = kit.statement(FreezerStatement::Heartbeat {
        size: kit.state.size(),
        root: kit.state.root(),
        pending: Vec::new(),
    });
    kit.pass(second(3_500));
    kit.accept(EntryBody::Statement(held));
    kit.pass(second(200));
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
}

#[test]
fn i13_live_key_never_changes_and_epochs_only_rise() {
    let mut kit = Kit::ready();
    let next = kit.key_live("agent-7", Scheme::EcdsaSecp256k1, 1);
    let mut other = next.clone();
    other.chain_code = [1; 32];
    assert!(matches!(kit.apply(EntryBody::KeyLive(other)), Verdict::Denied(_)));
    // made from the same epoch, under a number of its own: only one of the two can go live
    let twin = kit.key_live("agent-7", Scheme::EcdsaSecp256k1, 2);
    kit.accept(EntryBody::KeyLive(next.clone()));
    assert!(matches!(kit.apply(EntryBody::KeyLive(next)), Verdict::Denied(_)));
    assert!(matches!(kit.apply(EntryBody::KeyLive(twin)), Verdict::Denied(_)));
    kit.ecdsa = k256::ecdsa::SigningKey::from_slice(&[9; 32]).unwrap();
    let swapped = kit.key_live("agent-7", Scheme::EcdsaSecp256k1, 2);
    assert!(matches!(kit.apply(EntryBody::KeyLive(swapped)), Verdict::Denied(_)));
}

#[test]
fn key_needs_every_node_and_tests_that_cover_every_node() {
    let mut kit = Kit::ready();
    kit.govern(Change::CreateKey { name: key_name("new"), scheme: Scheme::EcdsaSecp256k1 });
    let good = kit.key_live("new", Scheme::EcdsaSecp256k1, 0);
    let mut unconfirmed = good.clone();
    unconfirmed.confirmations.pop();
    let mut doubled = good.clone();
    doubled.confirmations[2] = doubled.confirmations[0].clone();
    let mut uncovered = good.clone();
    uncovered.tests.pop();
    let mut forged = good.clone();
    forged.tests[0].signature[5] ^= 1;
    let unasked = kit.key_live("unasked", Scheme::EcdsaSecp256k1, 0);
    let scheme = kit.key_live("new", Scheme::Ed25519, 0);
    for (name, live) in [
        ("unconfirmed", unconfirmed),
        ("doubled", doubled),
        ("uncovered", uncovered),
        ("forged", forged),
        ("unasked", unasked),
        ("scheme", scheme),
    ] {
        assert!(matches!(kit.apply(EntryBody::KeyLive(live)), Verdict::Denied(_)), "{name}");
    }
    kit.accept(EntryBody::KeyLive(good));
}

fn rebooted(kit: &Kit, seed: u8) -> casemate_proto::manifest::BootRecord {
    let scope = Hash32::new(*kit.state.genesis().as_bytes());
    boot(&kit.nsms[0], &node(0), &SigningKey::from_bytes(&[seed; 32]), seed, &scope, kit.now)
}

#[test]
fn i6_restarted_node_is_admitted_as_a_new_boot_and_the_old_one_is_retired() {
    let mut kit = Kit::ready();
    let old = kit.state.current_boot(&node(0)).unwrap();
    kit.pass(second(5));
    let new = rebooted(&kit, 0x71);
    kit.accept(EntryBody::Admit(new.clone()));
    assert!(!kit.state.is_current(&old));
    assert_eq!(kit.state.current_boot(&node(0)), Some(new.id()));
    kit.pass(second(5));
    assert!(matches!(kit.apply(EntryBody::Admit(new)), Verdict::Denied(_)));
}

#[test]
fn i12_node_that_is_restarted_without_end_is_kept_out_for_half_an_hour_each_time() {
    let mut kit = Kit::ready();
    let begun = kit.now;
    let (mut admitted, mut seed) = (0, 0_u16);
    let mut restart = |kit: &mut Kit| {
        seed += 1;
        let mut key = [0x71; 32];
        key[..2].copy_from_slice(&seed.to_be_bytes());
        let scope = Hash32::new(*kit.state.genesis().as_bytes());
        let key = SigningKey::from_bytes(&key);
        let new = boot(&kit.nsms[0], &node(0), &key, 0x71, &scope, kit.now);
        let due = kit.state.admits_from()[&node(0)] <= kit.now;
        let taken = matches!(kit.apply(EntryBody::Admit(new)), Verdict::Accepted { .. });
        assert_eq!(taken, due);
        taken
    };
    for _ in 0..60 {
        kit.pass(second(5));
        admitted += u64::from(restart(&mut kit));
    }
    assert_eq!(admitted, 48);
    while kit.now.since(begun) < second(24 * 3_600) {
        kit.pass(second(600));
        admitted += u64::from(restart(&mut kit));
    }
    assert!((90..=96).contains(&admitted), "{admitted}");
    // the others' are not in its way
    let new = {
        let scope = Hash32::new(*kit.state.genesis().as_bytes());
        boot(&kit.nsms[1], &node(1), &SigningKey::from_bytes(&[9; 32]), 9, &scope, kit.now)
    };
    kit.accept(EntryBody::Admit(new));
}

#[test]
fn i7_retired_boot_never_returns() {
    let mut kit = Kit::ready();
    kit.pass(second(5));
    let first = rebooted(&kit, 0x71);
    kit.accept(EntryBody::Admit(first.clone()));
    kit.pass(second(5));
    let second_boot = rebooted(&kit, 0x72);
    kit.accept(EntryBody::Admit(second_boot));
    kit.pass(second(5));
    assert!(matches!(kit.apply(EntryBody::Admit(first)), Verdict::Denied(_)));
}

#[test]
fn i9_boot_with_wrong_evidence_is_refused() {
    let mut kit = Kit::ready();
    kit.pass(second(5));
    let good = rebooted(&kit, 0x71);
    let mut other_node = good.clone();
    other_node.node = node(1);
    let mut other_key = good.clone();
    other_key.key[0] ^= 1;
    let mut none = good.clone();
    none.evidence.clear();
    let mut old_version = good.clone();
    old_version.apply_version = 0;
    let manifest_scope =
        casemate_proto::manifest::GenesisRecord::manifest_hash(kit.state.manifest());
    let other_scope = boot(
        &kit.nsms[0],
        &node(0),
        &SigningKey::from_bytes(&[0x71; 32]),
        0x71,
        &manifest_scope,
        kit.now,
    );
    for (name, record) in [
        ("other node", other_node),
        ("other key", other_key),
        ("none", none),
        ("old version", old_version),
        ("other scope", other_scope),
    ] {
        assert!(matches!(kit.apply(EntryBody::Admit(record)), Verdict::Denied(_)), "{name}");
    }
    kit.pass(second(700));
    assert!(matches!(kit.apply(EntryBody::Admit(good)), Verdict::Denied(_)), "stale evidence");
}

#[test]
fn image_in_use_is_not_retired_and_a_retired_one_never_returns() {
    let mut kit = Kit::ready();
    let used = image(0x10);
    let signed = kit.signed_change(Change::RetireImage { measurement: used });
    assert!(matches!(kit.apply(EntryBody::Governance(signed)), Verdict::Denied(_)));
    let next = image(0x20);
    kit.govern(Change::AcceptImage { measurement: next.clone() });
    kit.heartbeat();
    kit.pass(second(3_600));
    kit.accept(EntryBody::Tick);
    kit.govern(Change::RetireImage { measurement: next.clone() });
    let signed = kit.signed_change(Change::AcceptImage { measurement: next });
    assert!(matches!(kit.apply(EntryBody::Governance(signed)), Verdict::Denied(_)));
}

#[test]
fn version_rises_only_to_what_every_boot_has() {
    let mut kit = Kit::ready();
    for to in [0, 1, 2] {
        assert!(matches!(kit.apply(EntryBody::RaiseVersion { to }), Verdict::Denied(_)), "{to}");
    }
}

#[test]
fn share_given_back_by_frost_is_fresh_only_once_the_same_boots_made_another() {
    let mut kit = Kit::ready();
    kit.govern(Change::CreateKey { name: key_name("cold"), scheme: Scheme::Ed25519 });
    let first = kit.key_live("cold", Scheme::Ed25519, 0);
    kit.accept(EntryBody::KeyLive(first));
    let fresh = |kit: &Kit, name: &str| {
        kit.state.keys()[&key_name(name)].live.as_ref().map(|live| live.is_fresh)
    };
    assert_eq!(fresh(&kit, "cold"), Some(true), "new");
    kit.pass(second(2));
    let key = SigningKey::from_bytes(&[0x71; 32]);
    let scope = Hash32::new(*kit.state.genesis().as_bytes());
    let new = boot(&kit.nsms[1], &node(1), &key, 0x71, &scope, kit.now);
    kit.accept(EntryBody::Admit(new));
    kit.boots[1] = key;
    for (epoch, is_fresh) in [(1, false), (2, true)] {
        let live = kit.key_live("cold", Scheme::Ed25519, epoch);
        kit.accept(EntryBody::KeyLive(live));
        assert_eq!(fresh(&kit, "cold"), Some(is_fresh), "epoch {epoch}");
    }
    let live = kit.key_live("agent-7", Scheme::EcdsaSecp256k1, 1);
    kit.accept(EntryBody::KeyLive(live));
    assert_eq!(fresh(&kit, "agent-7"), Some(true), "reshared");
}
