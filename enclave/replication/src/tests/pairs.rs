//! What a follower may hold for committed without being told.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_ledger::{Entry, EntryBody};
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, NodeName, UnixMillis};
use openraft::storage::RaftLogStorageExt as _;

use crate::fatal::Halt;
use crate::log_store::LogStore;
use crate::pairs::{are_majority, committed_by};
use crate::types::{LogPosition, MembershipRecord, Payload};
use crate::wire::{Append, Content, LogEntry, VoteRecord};

const ME: BootId = BootId::new([1; 32]);
const LEADER: BootId = BootId::new([2; 32]);
const TERM: u64 = 4;

fn members(count: u8) -> MembershipRecord {
    let boots = (1..=count).map(|n| {
        let name = NodeName::new(&format!("node-{n}")).unwrap();
        (name, BootId::new([n; 32]))
    });
    MembershipRecord::of_boots(&boots.collect())
}

fn at(index: u64) -> LogPosition {
    LogPosition { term: TERM, leader: LEADER, index }
}

/// A log whose last entry, forgotten since, is the fifth, and that has this membership.
fn log(membership: MembershipRecord) -> LogStore {
    let log = LogStore::new(Some(at(5).id()), Halt::new());
    log.note_membership(Arc::new((membership, at(3))));
    log
}

fn tick(index: u64) -> LogEntry {
    let entry = Entry { at: UnixMillis(1), body: EntryBody::Tick };
    LogEntry { at: at(index), content: Content::Ledger(Payload::new(entry, None)) }
}

fn append(prev: u64, entries: Vec<LogEntry>) -> Append {
    Append {
        vote: VoteRecord { term: TERM, boot: LEADER, leads: true },
        prev: Some(at(prev)),
        commit: None,
        entries,
        size: 0,
        root: Hash32::new([0; 32]),
        majority_age: None,
    }
}

#[test]
fn of_three_the_leader_and_one_follower_commit() {
    let log = log(members(3));
    assert_eq!(committed_by(&log, &ME, &append(5, vec![tick(6), tick(7)])), Some(at(7)));
    assert_eq!(committed_by(&log, &ME, &append(5, Vec::new())), Some(at(5)));
}

#[test]
fn of_four_or_more_two_commit_nothing() {
    for count in [4, 5, 7] {
        assert_eq!(committed_by(&log(members(count)), &ME, &append(5, vec![tick(6)])), None);
    }
}

#[test]
fn i7_a_former_terms_entry_is_not_committed_by_two() {
    let log = log(members(3));
    let mut old = append(5, vec![tick(6)]);
    old.vote.term = TERM + 1;
    assert_eq!(committed_by(&log, &ME, &old), None);
    let mut none = append(5, Vec::new());
    none.vote.term = TERM + 1;
    assert_eq!(committed_by(&log, &ME, &none), None);
    let mut other = append(5, vec![tick(6)]);
    other.vote.boot = BootId::new([3; 32]);
    assert_eq!(committed_by(&log, &ME, &other), None);
}

#[test]
fn i7_what_follows_an_entry_that_is_not_here_is_not_committed_by_two() {
    assert_eq!(committed_by(&log(members(3)), &ME, &append(6, vec![tick(7)])), None);
    let mut first = append(5, vec![tick(6)]);
    first.prev = None;
    assert_eq!(committed_by(&log(members(3)), &ME, &first), None);
}

#[test]
fn i7_while_the_membership_changes_the_leader_counts() {
    let changed = LogEntry { at: at(6), content: Content::Membership(members(3)) };
    let log3 = log(members(3));
    assert_eq!(committed_by(&log3, &ME, &append(5, vec![changed, tick(7)])), None);
    let mut joint = members(3);
    joint.voters.push([ME, LEADER].into());
    assert_eq!(committed_by(&log(joint), &ME, &append(5, vec![tick(6)])), None);
    // the adapter has not said which membership is in force
    let unsettled = LogStore::new(Some(at(5).id()), Halt::new());
    assert_eq!(committed_by(&unsettled, &ME, &append(5, vec![tick(6)])), None);
}

#[tokio::test]
async fn i7_a_membership_in_the_log_that_is_not_applied_has_the_leader_count() {
    let mut log = log(members(3));
    let changed = LogEntry { at: at(6), content: Content::Membership(members(3)) };
    log.blocking_append([changed.entry(), tick(7).entry()]).await.unwrap();
    assert_eq!(committed_by(&log, &ME, &append(7, vec![tick(8)])), None);
    log.note_membership(Arc::new((members(3), at(6))));
    assert_eq!(committed_by(&log, &ME, &append(7, vec![tick(8)])), Some(at(8)));
}

#[test]
fn whoever_does_not_vote_makes_no_pair() {
    let three = members(3);
    assert!(are_majority(&three, &ME, &LEADER));
    assert!(!are_majority(&three, &ME, &ME));
    assert!(!are_majority(&three, &ME, &BootId::new([9; 32])));
    let alone: BTreeSet<BootId> = [ME].into();
    assert!(!are_majority(&MembershipRecord { voters: vec![alone], ..three }, &ME, &LEADER));
}
