//! Permits: what must hold at the moment of release.

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

use casemate_ledger::permit::MAX_ATTEMPTS;
use casemate_ledger::{EntryBody, PermitError};
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, Millis, NodeName, Scheme};
use ed25519_dalek::SigningKey;
use kit::{Kit, boot, node, second};

fn allowed() -> (Kit, BootId, Vec<NodeName>) {
    let mut kit = Kit::ready();
    kit.pay(1_000_000);
    let me = kit.state.current_boot(&node(0)).unwrap();
    (kit, me, vec![node(0), node(1)])
}

fn attempt(
    kit: &mut Kit,
    me: &BootId,
    set: &[NodeName],
    number: u8,
) -> Result<Hash32, PermitError> {
    let now = kit.now;
    let state = &kit.state;
    kit.permits[0].attempt(state, me, set, number, now).map(|a| a.binding().hash())
}

#[test]
fn i8_attempt_numbers_are_used_once_and_give_different_runs() {
    let (mut kit, me, set) = allowed();
    let mut runs = Vec::new();
    for number in 0..MAX_ATTEMPTS {
        runs.push(attempt(&mut kit, &me, &set, number).unwrap());
        assert!(matches!(
            attempt(&mut kit, &me, &set, number),
            Err(PermitError::AttemptUsed { .. })
        ));
    }
    runs.sort();
    runs.dedup();
    assert_eq!(runs.len(), usize::from(MAX_ATTEMPTS));
    assert!(matches!(
        attempt(&mut kit, &me, &set, MAX_ATTEMPTS),
        Err(PermitError::AttemptUsed { .. })
    ));
}

#[test]
fn i8_high_attempt_number_leaves_the_lower_ones_fresh_and_all_are_used_once() {
    let (mut kit, me, set) = allowed();
    for number in [2, 0, 1] {
        attempt(&mut kit, &me, &set, number).unwrap();
    }
    for number in 0..MAX_ATTEMPTS {
        let again = attempt(&mut kit, &me, &set, number);
        assert!(matches!(again, Err(PermitError::AttemptUsed { next: MAX_ATTEMPTS, .. })));
    }
}

#[test]
fn i4_nothing_is_released_after_tau() {
    let (mut kit, me, set) = allowed();
    let tau = kit.state.manifest().limits.tau;
    kit.pass(tau);
    attempt(&mut kit, &me, &set, 0).unwrap();
    kit.pass(Millis(1));
    assert!(matches!(attempt(&mut kit, &me, &set, 1), Err(PermitError::TooLate { .. })));
}

#[test]
fn nothing_is_released_for_an_entry_of_the_future() {
    let (mut kit, me, set) = allowed();
    kit.now = kit.now.saturating_sub(second(10));
    assert!(matches!(attempt(&mut kit, &me, &set, 0), Err(PermitError::TooEarly { .. })));
}

#[test]
fn freeze_after_the_entry_stops_its_release() {
    let (mut kit, me, set) = allowed();
    kit.freeze(1);
    assert_eq!(attempt(&mut kit, &me, &set, 0), Err(PermitError::Frozen));
}

#[test]
fn i6_retired_boot_gets_no_attempt_and_is_no_participant() {
    let (mut kit, me, set) = allowed();
    kit.pass(second(2));
    let scope = Hash32::new(*kit.state.genesis().as_bytes());
    let new =
        boot(&kit.nsms[0], &node(0), &SigningKey::from_bytes(&[0x71; 32]), 0x71, &scope, kit.now);
    kit.accept(EntryBody::Admit(new.clone()));
    assert_eq!(attempt(&mut kit, &me, &set, 0), Err(PermitError::NotCurrent));
    let refused = attempt(&mut kit, &new.id(), &set, 0);
    assert!(matches!(refused, Err(PermitError::WithoutShare { .. })), "{refused:?}");
}

#[test]
fn participants_are_exactly_t_different_nodes_with_this_one() {
    let (mut kit, me, _) = allowed();
    for set in [
        vec![],
        vec![node(0)],
        vec![node(0), node(0)],
        vec![node(1), node(2)],
        vec![node(0), node(1), node(2)],
        vec![node(0), NodeName::new("elsewhere").unwrap()],
    ] {
        let refused = attempt(&mut kit, &me, &set, 0);
        assert!(
            matches!(refused, Err(PermitError::WrongParticipants { .. })),
            "{set:?}: {refused:?}"
        );
    }
}

#[test]
fn permit_follows_its_key_into_a_new_epoch_with_other_runs() {
    let (mut kit, me, set) = allowed();
    let now = kit.now;
    let before = kit.permits[0].attempt(&kit.state, &me, &set, 0, now).unwrap();
    let live = kit.key_live("agent-7", Scheme::EcdsaSecp256k1, 3);
    kit.accept(EntryBody::KeyLive(live));
    let after = kit.permits[0].attempt(&kit.state, &me, &set, 1, now).unwrap();
    assert_eq!((before.binding().epoch, after.binding().epoch), (0, 3));
    assert_ne!(before.binding().hash(), after.binding().hash());
}

#[test]
fn i6_admitted_boot_signs_only_once_an_epoch_names_it_a_holder() {
    let (mut kit, me, set) = allowed();
    kit.pass(second(2));
    let scope = Hash32::new(*kit.state.genesis().as_bytes());
    let key = SigningKey::from_bytes(&[0x71; 32]);
    let new = boot(&kit.nsms[1], &node(1), &key, 0x71, &scope, kit.now);
    kit.accept(EntryBody::Admit(new));
    let refused = attempt(&mut kit, &me, &set, 0);
    assert!(
        matches!(&refused, Err(PermitError::WithoutShare { node: n, epoch: 0, .. }) if *n == node(1)),
        "{refused:?}"
    );
    attempt(&mut kit, &me, &[node(0), node(2)], 0).unwrap();
    kit.boots[1] = key;
    let live = kit.key_live("agent-7", Scheme::EcdsaSecp256k1, 1);
    kit.accept(EntryBody::KeyLive(live));
    attempt(&mut kit, &me, &set, 1).unwrap();
}

#[test]
fn participants_order_does_not_make_another_run() {
    let (mut kit, me, set) = allowed();
    let now = kit.now;
    let mut other = Kit::ready();
    other.pay(1_000_000);
    let reversed: Vec<NodeName> = set.iter().rev().cloned().collect();
    let a = attempt(&mut kit, &me, &set, 0).unwrap();
    let b = attempt(&mut kit, &me, &reversed, 1);
    assert!(b.is_ok());
    assert_ne!(Ok(a), b);
    assert_eq!(now, kit.now);
}
