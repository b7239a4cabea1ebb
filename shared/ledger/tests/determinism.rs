//! Determinism: replay and snapshots give the same state, byte for byte.

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

use casemate_audit::Record;
use casemate_ledger::replay::Replayer;
use casemate_ledger::{Committed, EntryBody, State};
use casemate_proto::{Amount, Millis};
use kit::{Kit, OTHER_PAYEE, PAYEE, second};
use proptest::prelude::*;

fn lived() -> Kit {
    let mut kit = Kit::ready();
    let (agent, operator) = (kit.agent.clone(), kit.operator.clone());
    kit.pay(5_000_000);
    let request = kit.payment(OTHER_PAYEE, 1);
    kit.ask(&agent, &request);
    let request = kit.payment(PAYEE, 50_000_000);
    kit.ask(&operator, &request);
    kit.pass(second(10));
    kit.heartbeat();
    kit.freeze(3);
    kit.pay(1);
    kit
}

#[test]
fn replay_of_the_log_gives_the_same_records() {
    let kit = lived();
    let mut replayer = Replayer::from_genesis(&casemate_proto::cbor::encode(&kit.genesis)).unwrap();
    for (_, attachment, leaf) in &kit.applied {
        let record = Record::parse(leaf).unwrap();
        let again = replayer.step(&record, attachment.clone()).unwrap();
        assert_eq!(again.record.leaf_bytes(), leaf.as_slice());
    }
    assert_eq!(replayer.state().root(), kit.state.root());
    assert_eq!(replayer.state().to_snapshot(), kit.state.to_snapshot());
    assert!(kit.applied.len() > 10);
}

#[test]
fn snapshot_restores_the_same_state_and_the_same_future() {
    let mut kit = lived();
    let snapshot = kit.state.to_snapshot();
    let mut restored = State::from_snapshot(&snapshot).unwrap();
    assert_eq!(restored.to_snapshot(), snapshot);
    for units in [1_u64, 5_000_000, 6_000_000] {
        kit.pass(second(1));
        kit.pay(units);
        let (entry, attachment, leaf) = kit.applied.last().unwrap().clone();
        let again = restored.apply(&Committed::dangerous_assume(entry, attachment)).unwrap();
        assert_eq!(again.record.leaf_bytes(), leaf.as_slice());
    }
    assert_eq!(restored.to_snapshot(), kit.state.to_snapshot());
}

#[test]
fn snapshot_with_a_flipped_byte_is_refused_or_has_another_hash() {
    let kit = lived();
    let snapshot = kit.state.to_snapshot();
    let hash = State::snapshot_hash(&snapshot);
    for at in (0..snapshot.len()).step_by(97) {
        let mut wrong = snapshot.clone();
        wrong[at] ^= 1;
        if let Ok(state) = State::from_snapshot(&wrong) {
            assert_ne!(State::snapshot_hash(&state.to_snapshot()), hash, "byte {at}");
        }
    }
}

#[test]
fn every_record_names_the_root_before_it() {
    let kit = lived();
    let mut tree = casemate_audit::Frontier::new();
    for (_, _, leaf) in &kit.applied {
        let record = Record::parse(leaf).unwrap();
        assert_eq!(record.fields().previous_root, tree.root());
        assert_eq!(record.index(), tree.size());
        tree.append(record.leaf_hash());
    }
    assert_eq!(tree.root(), kit.state.root());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against a model that knows only the list of what was allowed and when.
    #[test]
    fn i5_no_interval_of_a_window_holds_more_than_the_limit(
        steps in prop::collection::vec((0_u64..30_000_000, 1_u64..6_000_000), 1..60)
    ) {
        let mut kit = Kit::ready();
        let mut allowed: Vec<(u64, u64)> = Vec::new();
        for (wait, units) in steps {
            kit.pass(Millis(wait));
            if kit::is_allowed(&kit.pay(units)) {
                allowed.push((kit.now.0, units));
            }
        }
        let window = 86_400_000 + kit.state.slack().0;
        for (start, _) in &allowed {
            let sum: u64 = allowed
                .iter()
                .filter(|(at, _)| at >= start && *at - start < window)
                .map(|(_, units)| units)
                .sum();
            prop_assert!(Amount::from(sum) <= Amount::from(20_000_000));
        }
    }

    #[test]
    fn arbitrary_bytes_are_never_an_entry_that_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(entry) = casemate_ledger::Entry::decode(&bytes) {
            let mut kit = Kit::ready();
            kit.apply(entry.body);
        }
        let mut kit = Kit::unborn(|_| {});
        kit.accept(EntryBody::Genesis { id: kit.state.genesis() });
    }
}
