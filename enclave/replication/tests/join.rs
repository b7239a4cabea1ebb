//! The two sides of an admission alone: who is asked, who is believed, what is given to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::print_stderr,
    missing_docs
)]

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;

use casemate_ledger::{EntryBody, State};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::BootRecord;
use casemate_proto::{BootId, Millis, NodeName, UnixMillis};
use casemate_replication::join::{HandedOver, Handovers, JoinRefused, JoinRun};
use casemate_replication::{LogPosition, MembershipRecord, Position};
use kit::{START, World};
use proptest::prelude::any;
use proptest::test_runner::{Config, TestRunner};

fn later(millis: u64) -> UnixMillis {
    START.saturating_add(Millis(millis))
}

struct Table {
    world: World,
    record: BootRecord,
    run: JoinRun,
}

fn table(n: usize, t: u64) -> Table {
    let world = World::new(n, t);
    let (record, _) = world.boot(0, &Hash32::new([5; 32]), START);
    let mut run = JoinRun::new(record.clone(), t);
    for name in &world.names[1..] {
        run.connected(name);
    }
    Table { world, record, run }
}

fn place() -> Position {
    let leader = BootId::new([4; 32]);
    Position {
        log: LogPosition { term: 1, leader, index: 7 },
        membership: MembershipRecord {
            voters: vec![[leader].into()],
            members: [(leader, NodeName::new("node-b").unwrap())].into(),
        },
        membership_at: LogPosition { term: 0, leader: BootId::new([0; 32]), index: 0 },
    }
}

impl Table {
    fn handed(&self, snapshot: &[u8]) -> HandedOver {
        HandedOver {
            boot: self.record.id(),
            node: self.record.node.clone(),
            size: 9,
            hash: State::snapshot_hash(snapshot),
            snapshot: Arc::from(snapshot),
            tail: Arc::from(b"tail".as_slice()),
            position: place(),
        }
    }

    fn name(&self, index: usize) -> NodeName {
        self.world.names[index].clone()
    }
}

/// Hands messages to and fro until nothing is said any more.
fn talk(
    table: &mut Table,
    desks: &mut BTreeMap<NodeName, Handovers>,
    mut out: Vec<(NodeName, Vec<u8>)>,
    now: UnixMillis,
) -> Vec<JoinRefused> {
    let mut refused = Vec::new();
    while let Some((to, bytes)) = out.pop() {
        let Some(desk) = desks.get_mut(&to) else { continue };
        let who = (&table.record.node, table.record.id());
        match desk.receive(who, (Some(table.record.id()), false), &bytes, now) {
            Ok(action) => {
                for reply in action.send {
                    match table.run.receive(&to, &reply, now) {
                        Ok(more) => out.extend(more),
                        Err(error) => refused.push(error),
                    }
                }
            }
            Err(error) => refused.push(error),
        }
    }
    refused
}

#[test]
fn i6_fewer_than_t_nodes_are_not_believed() {
    let mut table = table(5, 3);
    let mut desks: BTreeMap<NodeName, Handovers> = BTreeMap::new();
    let snapshot = vec![7; 2_000_000];
    for index in 1..3 {
        let mut desk = Handovers::new();
        let word = desk.put(table.handed(&snapshot), START);
        assert_eq!(table.run.receive(&table.name(index), &word, START), Ok(vec![]));
        desks.insert(table.name(index), desk);
    }
    assert_eq!(table.run.confirmed(), 2);
    let out = table.run.tick(later(1_000));
    talk(&mut table, &mut desks, out, later(1_000));
    assert!(!table.run.is_done());
    // the same node's word twice is one word
    let mut again = Handovers::new();
    let word = again.put(table.handed(&snapshot), START);
    assert_eq!(table.run.receive(&table.name(2), &word, later(1_000)), Ok(vec![]));
    assert_eq!(table.run.confirmed(), 2);
    let mut desk = Handovers::new();
    let word = desk.put(table.handed(&snapshot), START);
    let out = table.run.receive(&table.name(3), &word, later(2_000)).unwrap();
    desks.insert(table.name(3), desk);
    assert_eq!(talk(&mut table, &mut desks, out, later(2_000)), vec![]);
    let joined = table.run.take().unwrap();
    assert_eq!(joined.snapshot, snapshot);
    assert_eq!(joined.tail, b"tail");
    assert_eq!(joined.position, place());
}

#[test]
fn i6_nodes_that_say_different_things_do_not_add_up() {
    for differ in 0..4 {
        let mut table = table(4, 2);
        let one = Handovers::new().put(table.handed(&[1; 100]), START);
        let mut other = table.handed(&[1; 100]);
        match differ {
            0 => other.size = 10,
            1 => other.hash = Hash32::new([1; 32]),
            2 => other.position.log.index = 8,
            _ => other.position.membership.members.clear(),
        }
        let two = Handovers::new().put(other, START);
        let (a, b) = (table.name(1), table.name(2));
        table.run.receive(&a, &one, START).unwrap();
        let said = table.run.receive(&b, &two, START);
        assert!(said == Ok(vec![]) || said == Err(JoinRefused::Position), "{said:?}");
        assert_eq!(table.run.confirmed(), 1, "{differ}");
        let asked = table.run.tick(later(2_000));
        assert!(asked.iter().all(|(_, bytes)| bytes[1] == 0), "something is fetched");
    }
}

#[test]
fn i6_bytes_that_are_not_what_t_nodes_confirmed_are_thrown_away() {
    let mut table = table(4, 2);
    let mut desks: BTreeMap<NodeName, Handovers> = BTreeMap::new();
    let right = vec![3; 700_000];
    let mut wrong = right.clone();
    wrong[600_000] ^= 1;
    let mut out = Vec::new();
    for index in 1..4 {
        // the first is asked first, and lies
        let mut handed = table.handed(&right);
        if index == 1 {
            handed.snapshot = Arc::from(wrong.as_slice());
        }
        let mut desk = Handovers::new();
        let word = desk.put(handed, START);
        let name = table.name(index);
        desks.insert(name.clone(), desk);
        out.extend(table.run.receive(&name, &word, START).unwrap());
    }
    let node = table.name(1);
    let refused = talk(&mut table, &mut desks, out, START);
    assert_eq!(refused, vec![JoinRefused::Snapshot { node: node.clone() }]);
    assert!(!table.run.is_done());
    let out = table.run.tick(later(100));
    assert!(out.iter().all(|(to, _)| *to != node));
    assert_eq!(talk(&mut table, &mut desks, out, later(100)), vec![]);
    let joined = table.run.take().unwrap();
    assert_eq!(joined.snapshot, right);
    assert_ne!(joined.from, node);
}

#[test]
fn a_node_that_brings_nothing_is_left_for_another() {
    let mut table = table(4, 2);
    let mut desks: BTreeMap<NodeName, Handovers> = BTreeMap::new();
    let mut first = Vec::new();
    for index in 1..4 {
        let mut desk = Handovers::new();
        let word = desk.put(table.handed(&[3; 10]), START);
        let name = table.name(index);
        first.extend(table.run.receive(&name, &word, START).unwrap());
        desks.insert(name, desk);
    }
    let silent = first[0].0.clone();
    let out = table.run.tick(later(3_500));
    assert!(!out.is_empty() && out.iter().all(|(to, _)| *to != silent));
    talk(&mut table, &mut desks, out, later(3_500));
    assert!(table.run.is_done());
}

#[test]
fn what_does_not_fit_is_asked_of_another_node() {
    let mut table = table(4, 2);
    let mut desks: BTreeMap<NodeName, Handovers> = BTreeMap::new();
    let mut out = Vec::new();
    for index in 1..4 {
        let mut desk = Handovers::new();
        let word = desk.put(table.handed(&[3; 10]), START);
        let name = table.name(index);
        out.extend(table.run.receive(&name, &word, START).unwrap());
        desks.insert(name, desk);
    }
    talk(&mut table, &mut desks, out, START);
    let first = table.run.take().unwrap();
    table.run.refuse(&first.from);
    let out = table.run.tick(later(10));
    talk(&mut table, &mut desks, out, later(10));
    let second = table.run.take().unwrap();
    assert_ne!(first.from, second.from);
    assert_eq!(first.snapshot, second.snapshot);
}

#[test]
fn an_admission_of_another_boot_or_out_of_bounds_is_refused() {
    let mut table = table(4, 2);
    let name = table.name(1);
    let mut other = table.handed(&[1]);
    other.boot = BootId::new([9; 32]);
    let word = Handovers::new().put(other, START);
    assert!(matches!(table.run.receive(&name, &word, START), Err(JoinRefused::OtherBoot { .. })));
    let empty = Handovers::new().put(table.handed(&[]), START);
    assert!(matches!(table.run.receive(&name, &empty, START), Err(JoinRefused::Sizes { .. })));
    let mut nowhere = table.handed(&[1]);
    nowhere.position.log.index = u64::MAX;
    let word = Handovers::new().put(nowhere, START);
    assert_eq!(table.run.receive(&name, &word, START), Err(JoinRefused::Position));
    // of its own node it hears nothing
    let own = table.record.node.clone();
    let word = Handovers::new().put(table.handed(&[1]), START);
    assert_eq!(table.run.receive(&own, &word, START), Err(JoinRefused::OtherSide));
}

/// What a new boot says when it asks.
fn ask(record: &BootRecord) -> Vec<u8> {
    let mut run = JoinRun::new(record.clone(), 2);
    run.connected(&NodeName::new("node-z").unwrap());
    run.tick(START).remove(0).1
}

#[test]
fn i7_an_ask_is_heard_of_the_boot_itself_and_only_where_its_former_is_not_reached() {
    let table = table(3, 2);
    let (node, boot) = (table.record.node.clone(), table.record.id());
    let former = Some(BootId::new([1; 32]));
    let bytes = ask(&table.record);
    let mut desk = Handovers::new();
    let still = desk.receive((&node, boot), (former, true), &bytes, START);
    assert!(matches!(still, Err(JoinRefused::StillThere { .. })));
    for (of, by) in [(table.name(1), boot), (node.clone(), BootId::new([2; 32]))] {
        let foreign = desk.receive((&of, by), (former, false), &bytes, START);
        assert!(matches!(foreign, Err(JoinRefused::OtherBoot { .. })));
    }
    let action = desk.receive((&node, boot), (former, false), &bytes, START).unwrap();
    assert_eq!(action.propose, Some(EntryBody::Admit(table.record.clone())));
    // not again at once
    let action = desk.receive((&node, boot), (former, false), &bytes, later(1_000)).unwrap();
    assert_eq!(action.propose, None);
    let action = desk.receive((&node, boot), (former, false), &bytes, later(2_000)).unwrap();
    assert!(action.propose.is_some());
    // nor once it is current
    let action = desk.receive((&node, boot), (Some(boot), false), &bytes, later(9_000)).unwrap();
    assert_eq!(action.propose, None);
}

#[test]
fn an_ask_with_too_much_evidence_is_refused() {
    let table = table(3, 2);
    let record = BootRecord { evidence: vec![0; 17 * 1024], ..table.record.clone() };
    let asked =
        Handovers::new().receive((&record.node, record.id()), (None, false), &ask(&record), START);
    assert!(asked.is_err());
}

#[test]
fn a_handover_is_given_to_its_boot_alone_and_not_without_end() {
    let mut table = table(3, 2);
    let mut desk = Handovers::new();
    let word = desk.put(table.handed(&[3; 100_000]), START);
    let (a, b) = (table.name(1), table.name(2));
    table.run.receive(&a, &word, START).unwrap();
    let fetch = table.run.receive(&b, &word, START).unwrap().remove(0).1;
    let (node, boot) = (table.record.node.clone(), table.record.id());
    let other = BootId::new([8; 32]);
    assert_eq!(
        desk.receive((&node, other), (Some(boot), false), &fetch, START).unwrap_err(),
        JoinRefused::Unasked
    );
    let mut given = 0;
    while desk.receive((&node, boot), (Some(boot), false), &fetch, START).is_ok() {
        given += 1;
        assert!(given < 100);
    }
    assert_eq!(given, 8);
}

#[test]
fn handovers_are_bounded_in_age_and_one_for_each_node() {
    let table = table(3, 2);
    let (node, boot) = (table.record.node.clone(), table.record.id());
    let mut desk = Handovers::new();
    let _ = desk.put(table.handed(&[3; 100]), START);
    let asked = |desk: &mut Handovers, boot: BootId, now| {
        let record = BootRecord { ..table.record.clone() };
        desk.receive((&node, boot), (Some(boot), false), &ask(&record), now)
            .map_or(0, |action| action.send.len())
    };
    assert_eq!(asked(&mut desk, boot, START), 1);
    let mut newer = table.handed(&[4; 100]);
    newer.boot = BootId::new([6; 32]);
    let _ = desk.put(newer, later(1));
    assert_eq!(asked(&mut desk, boot, later(2)), 0);
    let mut desk = Handovers::new();
    let _ = desk.put(table.handed(&[3; 100]), START);
    let mut unrelated = table.handed(&[5; 100]);
    unrelated.node = table.name(1);
    let _ = desk.put(unrelated, later(31 * 60_000));
    assert_eq!(asked(&mut desk, boot, later(31 * 60_000)), 0);
}

#[test]
fn hostile_bytes_never_panic_either_side_of_an_admission() {
    let table = table(3, 2);
    let (node, boot, peer) = (table.record.node.clone(), table.record.id(), table.name(1));
    let sides = std::cell::RefCell::new((table.run, Handovers::new()));
    let valid = ask(&table.record);
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(bytes, any::<usize>(), 0_u8..8), |(bytes, at, bit)| {
            let mut flipped = valid.clone();
            let at = at % flipped.len();
            flipped[at] ^= 1 << bit;
            let (run, desk) = &mut *sides.borrow_mut();
            for bytes in [bytes, flipped] {
                let _ = run.receive(&peer, &bytes, START);
                let _ = desk.receive((&node, boot), (None, false), &bytes, START);
            }
            Ok(())
        })
        .unwrap();
}
