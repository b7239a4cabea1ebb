//! What a hostile peer or host can send: nothing of it panics, leads, or ends another boot but where
//! going on would be worse.

use std::time::Duration;

use casemate_ledger::{Attachment, Entry, EntryBody};
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, Millis, UnixMillis};
use proptest::prelude::{any, prop_assert};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::kit::{Cluster, START};
use crate::fatal::FatalReason;
use crate::pieces::Reassembly;
use crate::types::{LogPosition, MembershipRecord, Payload};
use crate::wire::{
    Append, Content, LogEntry, MAX_PIECE, MAX_WHOLE, Message, VoteRecord, WireError,
};

fn boot(n: u8) -> BootId {
    BootId::new([n; 32])
}

fn at(term: u64, leader: BootId, index: u64) -> LogPosition {
    LogPosition { term, leader, index }
}

fn append_of(leader: BootId, term: u64) -> Append {
    Append {
        vote: VoteRecord { term, boot: leader, leads: true },
        prev: None,
        commit: None,
        entries: Vec::new(),
        size: 0,
        root: Hash32::new([0; 32]),
        majority_age: None,
    }
}

fn tick_at(stamp: UnixMillis) -> Content {
    Content::Ledger(Payload::new(Entry { at: stamp, body: EntryBody::Tick }, None))
}

fn refused(append: Append) -> bool {
    let bytes = Message::Append { id: 0, append }.encode();
    matches!(Message::decode(&bytes), Err(WireError::Senseless { .. }))
}

#[test]
fn an_append_comes_back_as_it_went() {
    let mut append = append_of(boot(1), 3);
    append.prev = Some(at(1, boot(2), 4));
    append.entries = vec![
        LogEntry { at: at(1, boot(2), 5), content: Content::Blank },
        LogEntry { at: at(3, boot(1), 6), content: tick_at(START) },
        LogEntry {
            at: at(3, boot(1), 7),
            content: Content::Membership(MembershipRecord {
                voters: vec![[boot(1)].into()],
                members: [(boot(1), casemate_proto::NodeName::new("a").unwrap())].into(),
            }),
        },
    ];
    let message = Message::Append { id: 9, append };
    assert_eq!(Message::decode(&message.encode()), Ok(message));
}

#[test]
fn an_append_of_a_leader_that_does_not_lead_is_refused() {
    let mut append = append_of(boot(1), 3);
    append.vote.leads = false;
    assert!(refused(append));
}

#[test]
fn an_append_with_terms_or_indices_beyond_all_others_is_refused() {
    assert!(refused(append_of(boot(1), u64::MAX)));
    let mut append = append_of(boot(1), 3);
    append.prev = Some(at(1, boot(1), u64::MAX));
    assert!(refused(append));
    let mut append = append_of(boot(1), 3);
    append.commit = Some(at(1 << 62, boot(1), 0));
    assert!(refused(append));
}

#[test]
fn an_append_whose_entries_do_not_follow_each_other_is_refused() {
    for indices in [[5, 7], [6, 5], [4, 5], [5, 5]] {
        let mut append = append_of(boot(1), 3);
        append.prev = Some(at(1, boot(1), 4));
        append.entries = indices
            .map(|index| LogEntry { at: at(3, boot(1), index), content: Content::Blank })
            .into();
        assert!(refused(append), "{indices:?}");
    }
}

#[test]
fn an_append_whose_entries_go_back_in_term_or_are_later_than_their_leader_is_refused() {
    for terms in [[2, 1], [3, 4], [4, 4]] {
        let mut append = append_of(boot(1), 3);
        append.entries = (0..)
            .zip(terms)
            .map(|(index, term)| LogEntry { at: at(term, boot(1), index), content: Content::Blank })
            .collect();
        assert!(refused(append), "{terms:?}");
    }
}

#[test]
fn an_append_that_builds_on_or_commits_a_later_leaders_entry_is_refused() {
    for later in [at(4, boot(1), 9), at(3, boot(2), 9)] {
        let mut append = append_of(boot(1), 3);
        append.prev = Some(later);
        assert!(refused(append));
        let mut append = append_of(boot(1), 3);
        append.commit = Some(later);
        assert!(refused(append));
    }
}

#[test]
fn an_entry_beyond_its_caps_is_refused() {
    let body = EntryBody::Signed {
        credential: casemate_proto::PublicKey::new(
            casemate_proto::Algorithm::Ed25519,
            ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().as_bytes(),
        )
        .unwrap()
        .id(),
        request_id: casemate_proto::RequestId::new([0; 16]),
        signature: vec![0; casemate_ledger::entry::MAX_ENTRY],
    };
    let large = Content::Ledger(Payload::new(Entry { at: START, body }, None));
    let entry = Entry { at: START, body: EntryBody::Tick };
    let beside = Attachment::Policy(vec![0; casemate_proto::governance::MAX_POLICY + 1]);
    let attached = Content::Ledger(Payload::new(entry, Some(beside)));
    for content in [large, attached] {
        let mut append = append_of(boot(1), 3);
        append.entries = vec![LogEntry { at: at(3, boot(1), 0), content }];
        let bytes = Message::Append { id: 0, append }.encode();
        assert!(matches!(Message::decode_whole(&bytes), Err(WireError::Senseless { .. })));
    }
}

#[test]
fn pieces_out_of_bounds_are_refused() {
    let piece = |total, offset, length: usize| {
        let bytes = vec![0; length];
        Message::decode(&Message::Piece { transfer: 0, total, offset, vote: None, bytes }.encode())
    };
    assert!(piece(10, 0, 10).is_ok());
    assert!(piece(10, 1, 10).is_err());
    assert!(piece(10, u64::MAX, 10).is_err());
    assert!(piece(10, 0, 0).is_err());
    assert!(piece(MAX_WHOLE as u64 + 1, 0, 10).is_err());
    assert!(piece(MAX_WHOLE as u64, 0, MAX_PIECE).is_ok());
    assert!(piece(MAX_WHOLE as u64, 0, MAX_PIECE + 1).is_err());
}

#[test]
fn pieces_that_do_not_follow_each_other_make_no_whole() {
    let mut peer = Reassembly::default();
    assert_eq!(peer.take(1, 4, 0, &[1, 2]), None);
    assert_eq!(peer.take(1, 4, 2, &[3, 4]), Some(vec![1, 2, 3, 4]));
    // another transfer, another length, a gap, the same again: what was there is dropped
    for (transfer, total, offset) in [(2, 4, 2), (1, 5, 2), (1, 4, 3), (1, 4, 1)] {
        let mut peer = Reassembly::default();
        assert_eq!(peer.take(1, 4, 0, &[1, 2]), None);
        assert_eq!(peer.take(transfer, total, offset, &[9]), None);
        assert_eq!(peer.take(1, 4, 2, &[3, 4]), None);
    }
    // one transfer at a time: a new one takes the place of the old
    let mut peer = Reassembly::default();
    assert_eq!(peer.take(1, 4, 0, &[1, 2]), None);
    assert_eq!(peer.take(2, 2, 0, &[5, 6]), Some(vec![5, 6]));
}

#[test]
fn what_needs_no_pieces_does_not_come_in_pieces() {
    let bytes = Message::Vote {
        id: 0,
        vote: VoteRecord { term: 1, boot: boot(1), leads: false },
        last: None,
    }
    .encode();
    assert!(Message::decode(&bytes).is_ok());
    assert!(Message::decode_whole(&bytes).is_err());
}

/// A cluster that runs, with the place of its leader and of a follower.
async fn led() -> (Cluster, usize, usize) {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(0, 3, &[0, 1, 2]).await;
    let follower = cluster.others(leader)[0];
    (cluster, leader, follower)
}

async fn unshaken(cluster: &Cluster) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.ticks(0, 3, &[0, 1, 2]).await;
    cluster.agree(&[0, 1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn i7_an_append_or_a_vote_in_anothers_name_is_dropped() {
    let (cluster, leader, follower) = led().await;
    let third = cluster.others(leader)[1];
    let term = cluster.boots[leader].replication.status().term;
    let forged = Message::Append { id: 0, append: append_of(cluster.boots[leader].id, term + 5) };
    let forged_vote = Message::Vote {
        id: 0,
        vote: VoteRecord { term: term + 5, boot: cluster.boots[leader].id, leads: false },
        last: Some(at(term + 5, boot(1), 1_000)),
    };
    for message in [forged, forged_vote] {
        cluster.boots[follower].replication.receive(cluster.boots[third].id, &message.encode());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cluster.boots[follower].replication.status().term, term);
    assert!(cluster.boots[leader].leads());
    unshaken(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn i7_a_retired_boot_is_not_heard_whatever_it_says() {
    let (cluster, leader, gone) = led().await;
    let retired = cluster.boots[gone].id;
    cluster.net.remove(retired);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let now = casemate_replication::ReadClock::now(&*cluster.boots[leader].clock);
    let scope = Hash32::new(*cluster.genesis.id().as_bytes());
    let (record, _) = cluster.world.boot(gone, &scope, now);
    let rest = cluster.others(gone);
    let size = cluster.boots[leader].size() + 1;
    cluster.boots[leader].replication.propose(EntryBody::Admit(record), None).unwrap();
    cluster.until("it is retired", |c| rest.iter().all(|i| c.boots[*i].size() == size)).await;
    let term = cluster.boots[leader].replication.status().term;
    for message in [
        Message::Append { id: 0, append: append_of(retired, term + 1) },
        Message::TooFarBehind {
            id: 0,
            vote: VoteRecord { term: term + 1, boot: retired, leads: true },
            purged: at(term, retired, 1_000),
        },
    ] {
        for at in &rest {
            cluster.boots[*at].replication.receive(retired, &message.encode());
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for at in &rest {
        assert_eq!(cluster.boots[*at].replication.status().term, term);
        assert_eq!(cluster.boots[*at].fatal(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_term_that_leaps_beyond_belief_is_dropped() {
    let (cluster, leader, follower) = led().await;
    let third = cluster.boots[cluster.others(leader)[1]].id;
    let term = cluster.boots[leader].replication.status().term;
    let message = Message::Append { id: 0, append: append_of(third, term + (1 << 33)) };
    cluster.boots[follower].replication.receive(third, &message.encode());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cluster.boots[follower].replication.status().term, term);
    unshaken(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn i7_a_leader_with_another_entry_where_one_is_committed_ends_the_follower() {
    let (cluster, leader, follower) = led().await;
    let third = cluster.boots[cluster.others(leader)[1]].id;
    let term = cluster.boots[leader].replication.status().term + 1;
    let mut append = append_of(third, term);
    append.entries = vec![
        LogEntry { at: at(0, BootId::new([0; 32]), 0), content: Content::Blank },
        LogEntry { at: at(term, third, 1), content: tick_at(START) },
    ];
    let message = Message::Append { id: 0, append };
    cluster.boots[follower].replication.receive(third, &message.encode());
    cluster.until("a fork is told", |c| c.boots[follower].fatal().is_some()).await;
    assert_eq!(cluster.boots[follower].fatal(), Some(FatalReason::Fork { from: third, index: 1 }));
    // the others go on
    let rest = cluster.others(follower);
    cluster.ticks(rest[0], 3, &rest).await;
}

#[tokio::test(start_paused = true)]
async fn a_former_leaders_other_entries_are_no_fork() {
    let (cluster, leader, follower) = led().await;
    let third = cluster.boots[cluster.others(leader)[1]].id;
    let mut append = append_of(third, 0);
    append.entries = vec![LogEntry { at: at(0, third, 0), content: Content::Blank }];
    let message = Message::Append { id: 0, append };
    cluster.boots[follower].replication.receive(third, &message.encode());
    unshaken(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn that_a_boot_fell_behind_is_believed_of_a_leader_ahead_of_it_only() {
    let (cluster, leader, follower) = led().await;
    let third = cluster.boots[cluster.others(leader)[1]].id;
    let term = cluster.boots[leader].replication.status().term;
    let told = |by: BootId, term, index| Message::TooFarBehind {
        id: 0,
        vote: VoteRecord { term, boot: by, leads: true },
        purged: at(1, by, index),
    };
    let lead = cluster.boots[leader].id;
    for (from, message) in [
        // of a term that is over, in another's name, and where nothing is missing
        (third, told(third, 0, 1_000)),
        (third, told(lead, term, 1_000)),
        (lead, told(lead, term, 1)),
    ] {
        cluster.boots[follower].replication.receive(from, &message.encode());
    }
    unshaken(&cluster).await;
    let term = cluster.boots[leader].replication.status().term;
    cluster.boots[follower].replication.receive(lead, &told(lead, term, 1_000).encode());
    cluster.until("it ends", |c| c.boots[follower].fatal().is_some()).await;
    assert!(matches!(cluster.boots[follower].fatal(), Some(FatalReason::FellBehind { .. })));
}

#[tokio::test(start_paused = true)]
async fn i11_proposal_that_comes_too_late_to_be_an_entry_is_not_appended() {
    let (cluster, leader, _) = led().await;
    let lead = &cluster.boots[leader];
    let size = lead.size();
    let peer = cluster.boots[cluster.others(leader)[0]].id;
    let now = lead.applier.lock().unwrap().state.time();
    let tick = |until| Message::Propose { body: EntryBody::Tick, attachment: None, until };
    // the ledger's time is past it already, whatever the leader's clock says
    let late = UnixMillis(now.0 - 1);
    lead.replication.receive(peer, &tick(Some(late)).encode());
    assert_eq!(lead.replication.propose_until(EntryBody::Tick, None, Some(late)), Ok(()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lead.size(), size);
    let soon = UnixMillis(now.0 + 3_600_000);
    lead.replication.receive(peer, &tick(Some(soon)).encode());
    assert_eq!(lead.replication.propose_until(EntryBody::Tick, None, Some(soon)), Ok(()));
    cluster.until("both are applied", |c| c.boots[leader].size() == size + 2).await;
}

#[tokio::test(start_paused = true)]
async fn proposals_of_strangers_and_of_entries_that_cannot_be_are_dropped() {
    let (cluster, leader, _) = led().await;
    let size = cluster.boots[leader].size();
    let tick = Message::Propose { body: EntryBody::Tick, attachment: None, until: None };
    cluster.boots[leader].replication.receive(boot(0x77), &tick.encode());
    let genesis = Message::Propose {
        body: EntryBody::Genesis { id: cluster.genesis.id() },
        attachment: Some(Attachment::Genesis(casemate_proto::cbor::encode(&cluster.genesis))),
        until: None,
    };
    let unwanted = Message::Propose {
        body: EntryBody::Tick,
        attachment: Some(Attachment::Policy(vec![1])),
        until: None,
    };
    let peer = cluster.boots[cluster.others(leader)[0]].id;
    for message in [genesis, unwanted] {
        cluster.boots[leader].replication.receive(peer, &message.encode());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.boots[leader].size(), size);
    cluster.boots[leader].replication.receive(peer, &tick.encode());
    cluster.until("a current boot's proposal", |c| c.boots[leader].size() == size + 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_proposes_without_end_does_not_crowd_out_this_node() {
    let (cluster, leader, _) = led().await;
    let peer = cluster.boots[cluster.others(leader)[0]].id;
    // nothing commits, so nothing makes room again
    cluster.isolate(leader, false);
    let tick = Message::Propose { body: EntryBody::Tick, attachment: None, until: None }.encode();
    for _ in 0..20_000 {
        cluster.boots[leader].replication.receive(peer, &tick);
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.boots[leader].replication.propose(EntryBody::Tick, None), Ok(()));
}

/// A runtime with paused time, to be used once for each case.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn hostile_bytes_never_panic_nor_end_a_boot() {
    let runtime = runtime();
    let (cluster, leader, follower) = runtime.block_on(led());
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    let config = Config { cases: 512, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&(bytes, 0_u8..8), |(mut bytes, kind)| {
        // half of them begin like a message
        if kind < 7 && bytes.len() > 2 {
            bytes[0] = 0x80 | (bytes[0] & 7);
            bytes[1] = kind;
        }
        runtime.block_on(async {
            let from = cluster.boots[leader].id;
            cluster.boots[follower].replication.receive(from, &bytes);
            tokio::task::yield_now().await;
        });
        prop_assert!(cluster.boots[follower].fatal().is_none());
        Ok::<(), TestCaseError>(())
    });
    result.unwrap();
    runtime.block_on(unshaken(&cluster));
}

#[test]
fn messages_with_a_flipped_bit_never_panic() {
    let runtime = runtime();
    let (cluster, leader, follower) = runtime.block_on(led());
    let (lead, term) = (cluster.boots[leader].id, cluster.boots[leader].replication.status().term);
    let mut append = append_of(lead, term);
    append.prev = Some(at(term, lead, 3));
    append.entries = vec![LogEntry { at: at(term, lead, 4), content: tick_at(START) }];
    let messages = [
        Message::Append { id: 1, append },
        Message::Vote {
            id: 2,
            vote: VoteRecord { term: term + 1, boot: lead, leads: false },
            last: Some(at(term, lead, 9)),
        },
        Message::Voted {
            id: 0,
            vote: VoteRecord { term, boot: lead, leads: true },
            granted: true,
            last: None,
        },
        Message::Propose { body: EntryBody::Tick, attachment: None, until: None },
    ]
    .map(|message| message.encode());
    let config = Config { cases: 512, failure_persistence: None, ..Config::default() };
    let flips = (0..messages.len(), any::<usize>(), 0_u8..8);
    TestRunner::new(config)
        .run(&flips, |(which, at, bit)| {
            let mut bytes = messages[which].clone();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            runtime.block_on(async {
                cluster.boots[follower].replication.receive(lead, &bytes);
                tokio::task::yield_now().await;
            });
            // a broken leader may end it, by a fork or a gap; it does not panic
            if let Some(FatalReason::Stopped { reason }) = cluster.boots[follower].fatal() {
                return Err(TestCaseError::fail(reason));
            }
            Ok(())
        })
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stamp_ahead_of_time_ends_the_leaders_term_here_and_not_its_successors() {
    let (cluster, leader, follower) = led().await;
    let lead = cluster.boots[leader].id;
    let term = cluster.boots[leader].replication.status().term;
    let now = casemate_replication::ReadClock::now(&*cluster.boots[follower].clock);
    let delta = cluster.config.delta;
    let last = cluster.boots[leader].replication.status().last_applied.unwrap();
    let next = |stamp: UnixMillis| {
        let mut append = append_of(lead, term);
        append.prev = Some(last);
        append.entries =
            vec![LogEntry { at: at(term, lead, last.index + 1), content: tick_at(stamp) }];
        Message::Append { id: 0, append }.encode()
    };
    let ahead = now.saturating_add(delta).saturating_add(Millis(10));
    cluster.boots[follower].replication.receive(lead, &next(ahead));
    // the leader's heartbeats are refused from here on: the follower stands for election until the
    // cluster has another term
    cluster
        .until("another term", |c| {
            c.leader().is_some_and(|leader| leader.replication.status().term > term)
                || c.boots[follower].replication.status().term > term
        })
        .await;
}
