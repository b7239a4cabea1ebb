//! What openraft may never do: each ends this boot, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use casemate_ledger::{Entry, EntryBody};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::BootRecord;
use casemate_proto::{BootId, GenesisId, NodeName, UnixMillis};
use openraft::RaftLogReader as _;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::{EntryPayload, LeaderId, RaftSnapshotBuilder as _};
use tokio::sync::{mpsc, watch};

use crate::fatal::{FatalReason, Halt, MembershipFault};
use crate::log_store::LogStore;
use crate::machine::{Machine, MachineParts, check_membership};
use crate::types::{
    LogId, LogPosition, MembershipRecord, NodeId, Payload, Position, RaftEntry, Vote,
};
use crate::view::AppliedView;
use crate::{Out, RECENT_ROOTS};

fn boot(n: u8) -> BootId {
    BootId::new([n; 32])
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, NodeId(boot(1))), index)
}

fn blank(term: u64, index: u64) -> RaftEntry {
    RaftEntry { log_id: id(term, index), payload: EntryPayload::Blank }
}

fn ledger(term: u64, index: u64, body: EntryBody) -> RaftEntry {
    let entry = Entry { at: UnixMillis(index), body };
    RaftEntry { log_id: id(term, index), payload: EntryPayload::Normal(Payload::new(entry, None)) }
}

/// A log with entries 0 to 4 of term 1, and its halt.
async fn five() -> (LogStore, Halt) {
    let halt = Halt::new();
    let mut log = LogStore::new(None, halt.clone());
    log.blocking_append((0..5).map(|index| blank(1, index))).await.unwrap();
    assert_eq!(halt.reason(), None);
    (log, halt)
}

#[tokio::test]
async fn members_wait_for_an_admission_that_is_in_the_log_and_not_applied() {
    let (mut log, _halt) = five().await;
    log.note_applied(id(1, 4));
    assert!(!log.has_unapplied_admission());
    let record = BootRecord {
        node: NodeName::new("a").unwrap(),
        key: [1; 32],
        channel_key: [2; 32],
        nonce: [3; 32],
        apply_version: 1,
        evidence: Vec::new(),
    };
    let entries = [ledger(1, 5, EntryBody::Admit(record)), ledger(1, 6, EntryBody::Tick)];
    log.blocking_append(entries).await.unwrap();
    assert!(log.has_unapplied_admission());
    log.note_applied(id(1, 5));
    assert!(!log.has_unapplied_admission());
}

#[tokio::test]
async fn i6_a_cut_at_or_below_what_is_applied_halts() {
    for at in [0, 2] {
        let (mut log, halt) = five().await;
        log.note_applied(id(1, 2));
        assert!(log.truncate(id(1, at)).await.is_err());
        assert_eq!(halt.reason(), Some(FatalReason::CommittedCut { from: at, committed: 2 }));
        assert_eq!(log.last(), Some(id(1, 4)));
    }
}

#[tokio::test]
async fn i6_a_cut_below_what_is_committed_and_not_yet_applied_halts() {
    let (mut log, halt) = five().await;
    log.save_committed(Some(id(1, 3))).await.unwrap();
    assert!(log.truncate(id(1, 3)).await.is_err());
    assert_eq!(halt.reason(), Some(FatalReason::CommittedCut { from: 3, committed: 3 }));
}

#[tokio::test]
async fn a_cut_above_what_is_committed_is_made() {
    let (mut log, halt) = five().await;
    log.note_applied(id(1, 2));
    log.truncate(id(1, 3)).await.unwrap();
    assert_eq!(log.last(), Some(id(1, 2)));
    log.blocking_append([blank(2, 3)]).await.unwrap();
    assert_eq!(log.last(), Some(id(2, 3)));
    assert_eq!(halt.reason(), None);
}

#[tokio::test]
async fn i7_a_vote_that_falls_halts() {
    for lower in [Vote::new(2, NodeId(boot(9))), Vote::new(3, NodeId(boot(4)))] {
        let (mut log, halt) = five().await;
        let held = Vote::new_committed(3, NodeId(boot(5)));
        log.save_vote(&held).await.unwrap();
        assert!(log.save_vote(&lower).await.is_err());
        let offered = lower.leader_id.term;
        assert_eq!(halt.reason(), Some(FatalReason::VoteFell { held: 3, offered }));
        assert_eq!(log.vote(), Some(held));
    }
}

#[tokio::test]
async fn i7_a_leader_that_becomes_a_mere_candidate_of_its_term_halts() {
    let (mut log, halt) = five().await;
    log.save_vote(&Vote::new_committed(3, NodeId(boot(5)))).await.unwrap();
    assert!(log.save_vote(&Vote::new(3, NodeId(boot(5)))).await.is_err());
    assert_eq!(halt.reason(), Some(FatalReason::VoteFell { held: 3, offered: 3 }));
}

#[tokio::test]
async fn i7_a_gap_or_an_overlap_in_the_log_halts() {
    for found in [4, 6] {
        let (mut log, halt) = five().await;
        assert!(log.blocking_append([blank(1, found)]).await.is_err());
        assert_eq!(halt.reason(), Some(FatalReason::Gap { wanted: 5, found }));
    }
}

#[tokio::test]
async fn i7_an_entry_older_than_the_one_before_it_halts() {
    let (mut log, halt) = five().await;
    log.blocking_append([blank(3, 5)]).await.unwrap();
    assert!(log.blocking_append([blank(2, 6)]).await.is_err());
    assert_eq!(halt.reason(), Some(FatalReason::Backwards { index: 6 }));
}

#[tokio::test]
async fn i6_forgetting_what_is_not_applied_halts() {
    let (mut log, halt) = five().await;
    log.note_applied(id(1, 2));
    log.purge(id(1, 2)).await.unwrap();
    assert!(log.purge(id(1, 3)).await.is_err());
    let applied = Some(2);
    assert_eq!(halt.reason(), Some(FatalReason::UnappliedPurge { upto: 3, applied }));
    let (mut log, halt) = five().await;
    assert!(log.purge(id(1, 0)).await.is_err());
    assert_eq!(halt.reason(), Some(FatalReason::UnappliedPurge { upto: 0, applied: None }));
}

#[tokio::test]
async fn a_forgotten_log_keeps_its_place_and_reads_what_is_left() {
    let (mut log, halt) = five().await;
    log.note_applied(id(1, 4));
    log.purge(id(1, 2)).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(id(1, 2)));
    assert_eq!(state.last_log_id, Some(id(1, 4)));
    let indices = |entries: Vec<RaftEntry>| -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    };
    assert_eq!(indices(log.try_get_log_entries(3..5).await.unwrap()), [3, 4]);
    assert_eq!(indices(log.limited_get_log_entries(4, 5).await.unwrap()), [4]);
    assert_eq!(log.excess(2, usize::MAX), None);
    assert_eq!(log.excess(1, usize::MAX), Some(3));
    assert_eq!(halt.reason(), None);
}

#[tokio::test]
async fn only_applied_entries_are_in_excess() {
    let (log, _) = five().await;
    assert_eq!(log.excess(0, 0), None);
    log.note_applied(id(1, 1));
    assert_eq!(log.excess(0, 0), Some(1));
}

#[tokio::test]
async fn one_append_takes_as_many_entries_as_fit_a_message_and_at_least_one() {
    let mut log = LogStore::new(None, Halt::new());
    let large = || EntryBody::Approval {
        body: vec![7; 40_000],
        proof: casemate_ledger::entry::ApprovalProof::Stamp(stamp()),
    };
    log.blocking_append((0..60).map(|index| ledger(1, index, large()))).await.unwrap();
    let read = log.limited_get_log_entries(0, 60).await.unwrap();
    assert!((4..8).contains(&read.len()), "{}", read.len());
    let bytes: usize = read.iter().map(crate::types::weight).sum();
    assert!(bytes <= crate::wire::WHOLE_UP_TO);
}

fn stamp() -> casemate_proto::stamp::Stamp {
    casemate_proto::stamp::Stamp {
        credential: casemate_proto::PublicKey::new(
            casemate_proto::Algorithm::Ed25519,
            ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().as_bytes(),
        )
        .unwrap()
        .id(),
        issued_at: UnixMillis(0),
        expires_at: UnixMillis(1),
        nonce: [0; 16],
        signature: [0; 64],
    }
}

#[tokio::test]
async fn i7_a_leaders_log_that_differs_in_what_is_committed_is_found() {
    let (log, _) = five().await;
    log.note_applied(id(1, 3));
    assert_eq!(log.fork(&[id(1, 1), id(1, 2), id(1, 3)]), None);
    assert_eq!(log.fork(&[id(1, 2), id(2, 3)]), Some(3));
    // what is not committed may differ, and what is unknown may follow
    assert_eq!(log.fork(&[id(2, 4), id(2, 5), id(2, 9)]), None);
}

// --- the state machine ---

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn view(size: u64, boots: &[(&str, u8)]) -> AppliedView {
    AppliedView {
        size,
        root: Hash32::new([size as u8; 32]),
        recent: Vec::new(),
        boots: Arc::new(boots.iter().map(|(node, n)| (name(node), boot(*n))).collect()),
        retired: Arc::new(BTreeSet::new()),
        admits_from: Arc::default(),
        time: UnixMillis(0),
        images: Arc::default(),
        version: 1,
    }
}

const THREE: [(&str, u8); 3] = [("a", 1), ("b", 2), ("c", 3)];

fn genesis() -> GenesisId {
    GenesisId::new([8; 32])
}

struct Bench {
    machine: Machine,
    halt: Halt,
    out: mpsc::Receiver<Out>,
    view: watch::Sender<AppliedView>,
    log: LogStore,
}

fn bench(start: Option<Position>, size: u64) -> Bench {
    let halt = Halt::new();
    let (sender, out) = mpsc::channel(256);
    let (view, applied) = watch::channel(view(size, &THREE));
    let log = LogStore::new(start.as_ref().map(|position| position.log.id()), halt.clone());
    let machine = Machine::new(MachineParts {
        out: sender,
        view: applied,
        log: log.clone(),
        halt: halt.clone(),
        roster: THREE.iter().map(|(node, _)| name(node)).collect(),
        genesis: genesis(),
        start,
    });
    Bench { machine, halt, out, view, log }
}

fn first() -> RaftEntry {
    ledger(1, 0, EntryBody::Genesis { id: genesis() })
}

#[tokio::test]
async fn i7_a_first_entry_that_is_not_this_clusters_genesis_halts() {
    for body in [EntryBody::Tick, EntryBody::Genesis { id: GenesisId::new([9; 32]) }] {
        let mut bench = bench(None, 0);
        assert!(bench.machine.apply([ledger(1, 0, body)]).await.is_err());
        assert_eq!(bench.halt.reason(), Some(FatalReason::NotGenesis));
        assert!(bench.out.try_recv().is_err());
    }
}

#[tokio::test]
async fn i7_entries_applied_out_of_order_halt() {
    for found in [0, 3] {
        let mut bench = bench(None, 0);
        bench.machine.apply([blank(1, 0), blank(1, 1)]).await.unwrap();
        assert!(bench.machine.apply([blank(1, found)]).await.is_err());
        assert_eq!(bench.halt.reason(), Some(FatalReason::ApplyGap { wanted: 2, found }));
    }
}

#[tokio::test]
async fn i6_a_snapshot_is_never_installed() {
    let mut bench = bench(None, 0);
    let meta = bench.machine.get_snapshot_builder().await.build_snapshot().await.unwrap().meta;
    assert!(bench.machine.install_snapshot(&meta, Box::new(())).await.is_err());
    assert!(matches!(bench.halt.reason(), Some(FatalReason::FellBehind { .. })));
}

#[tokio::test]
async fn a_node_that_is_gone_or_applies_what_it_was_not_handed_halts() {
    let mut gone = bench(None, 0);
    drop(gone.view);
    assert!(gone.machine.apply([first()]).await.is_err());
    assert_eq!(gone.halt.reason(), Some(FatalReason::ApplierGone));
    let mut ahead = bench(None, 0);
    ahead.view.send_replace(view(5, &THREE));
    assert!(ahead.machine.apply([first()]).await.is_err());
    assert_eq!(ahead.halt.reason(), Some(FatalReason::ApplierAhead { wanted: 0, found: 5 }));
}

#[tokio::test]
async fn entries_are_applied_only_when_the_node_says_so_and_few_are_handed_ahead() {
    let Bench { mut machine, mut out, view: views, log, .. } = bench(None, 0);
    let entries =
        (1..200).map(|index| ledger(1, index, EntryBody::Tick)).collect::<Vec<RaftEntry>>();
    let all = [vec![first()], entries].concat();
    let apply = tokio::spawn(async move { machine.apply(all).await.map(|done| done.len()) });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let mut handed = 0;
    while out.try_recv().is_ok() {
        handed += 1;
    }
    assert_eq!(handed, RECENT_ROOTS);
    assert!(!apply.is_finished());
    for size in 1..=200 {
        views.send_replace(view(size, &THREE));
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(apply.await.unwrap().unwrap(), 200);
    while out.try_recv().is_ok() {
        handed += 1;
    }
    assert_eq!(handed, 200);
    assert_eq!(log.fork(&[id(1, 0)]), None);
}

#[tokio::test]
async fn where_an_entry_stands_names_the_membership_in_force_there() {
    let mut bench = bench(None, 0);
    let boots: BTreeMap<NodeName, BootId> =
        THREE.iter().map(|(node, n)| (name(node), boot(*n))).collect();
    let record = MembershipRecord::of_boots(&boots);
    let membership = RaftEntry {
        log_id: LogId::default(),
        payload: EntryPayload::Membership(record.membership()),
    };
    let genesis = ledger(1, 1, EntryBody::Genesis { id: genesis() });
    bench.view.send_replace(view(0, &THREE));
    let views = bench.view;
    let mut machine = bench.machine;
    let apply = tokio::spawn(async move { machine.apply([membership, genesis]).await });
    let Some(Out::Committed { at, .. }) = bench.out.recv().await else { panic!("no entry") };
    views.send_replace(view(1, &THREE));
    apply.await.unwrap().unwrap();
    let position = at.position();
    assert_eq!(position.log, LogPosition { term: 1, leader: boot(1), index: 1 });
    assert_eq!(position.membership, record);
    assert_eq!(position.membership_at.index, 0);
    assert!(position.is_well_formed());
}

fn member_of(voters: &[&[u8]], members: &[(u8, &str)]) -> MembershipRecord {
    MembershipRecord {
        voters: voters.iter().map(|set| set.iter().map(|n| boot(*n)).collect()).collect(),
        members: members.iter().map(|(n, node)| (boot(*n), name(node))).collect(),
    }
}

fn checked(next: &MembershipRecord, current: &[(&str, u8)]) -> Result<(), MembershipFault> {
    let former = member_of(&[&[1, 2, 3]], &[(1, "a"), (2, "b"), (3, "c")]);
    let roster = THREE.iter().map(|(node, _)| name(node)).collect();
    check_membership(next, &former, &view(9, current), &roster)
}

#[test]
fn a_swap_of_a_retired_boot_for_the_current_one_passes_step_by_step() {
    let now = [("a", 4), ("b", 2), ("c", 3)];
    let learner = member_of(&[&[1, 2, 3]], &[(1, "a"), (2, "b"), (3, "c"), (4, "a")]);
    assert_eq!(checked(&learner, &now), Ok(()));
    let joint = member_of(&[&[1, 2, 3], &[4, 2, 3]], &[(1, "a"), (2, "b"), (3, "c"), (4, "a")]);
    assert_eq!(checked(&joint, &now), Ok(()));
    let swapped = member_of(&[&[4, 2, 3]], &[(2, "b"), (3, "c"), (4, "a")]);
    assert_eq!(checked(&swapped, &now), Ok(()));
}

#[test]
fn i7_a_membership_with_a_boot_that_the_ledger_does_not_know_is_refused() {
    let joint = member_of(&[&[1, 2, 3], &[4, 2, 3]], &[(1, "a"), (2, "b"), (3, "c"), (4, "a")]);
    assert_eq!(checked(&joint, &THREE), Err(MembershipFault::Stranger { boot: boot(4) }));
    // current, but of another node
    let elsewhere = member_of(&[&[1, 2, 3]], &[(1, "b"), (2, "a"), (3, "c")]);
    assert!(matches!(checked(&elsewhere, &THREE), Err(MembershipFault::Stranger { .. })));
}

#[test]
fn i7_a_membership_with_two_boots_of_one_node_or_a_node_missing_is_refused() {
    let two = member_of(&[&[1, 2, 3, 4]], &[(1, "a"), (2, "b"), (3, "c"), (4, "a")]);
    assert_eq!(checked(&two, &THREE), Err(MembershipFault::Malformed));
    let missing = member_of(&[&[1, 2]], &[(1, "a"), (2, "b")]);
    assert_eq!(checked(&missing, &THREE), Err(MembershipFault::NotTheRoster));
    let other = member_of(&[&[1, 2, 5]], &[(1, "a"), (2, "b"), (5, "d")]);
    assert_eq!(checked(&other, &THREE), Err(MembershipFault::NotTheRoster));
    let nobody = member_of(&[], &[(1, "a"), (2, "b"), (3, "c")]);
    assert_eq!(checked(&nobody, &THREE), Err(MembershipFault::Malformed));
}

#[tokio::test]
async fn i7_a_committed_membership_with_a_stranger_halts() {
    let mut bench = bench(None, 0);
    let record = member_of(&[&[1, 2, 7]], &[(1, "a"), (2, "b"), (7, "c")]);
    let entry =
        RaftEntry { log_id: id(1, 0), payload: EntryPayload::Membership(record.membership()) };
    assert!(bench.machine.apply([entry]).await.is_err());
    let reason = MembershipFault::Stranger { boot: boot(7) };
    assert_eq!(bench.halt.reason(), Some(FatalReason::ForeignMembership { index: 0, reason }));
}

#[tokio::test]
async fn i7_a_commit_that_names_another_entry_than_the_logs_halts() {
    for unknown in [id(2, 3), id(1, 9)] {
        let (mut log, halt) = five().await;
        assert!(log.save_committed(Some(unknown)).await.is_err());
        let index = unknown.index;
        assert_eq!(halt.reason(), Some(FatalReason::UnknownCommit { index }));
    }
}

#[tokio::test]
async fn i7_a_later_leaders_entry_below_what_is_forgotten_is_a_fork() {
    let (mut log, _) = five().await;
    log.note_applied(id(1, 4));
    log.purge(id(1, 3)).await.unwrap();
    assert_eq!(log.fork(&[id(1, 1)]), None);
    assert_eq!(log.fork(&[id(2, 1)]), Some(1));
}
