//! Whole clusters: election, order, failures, hostile networks, and boots that take others' places.
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

use std::time::Duration;

use casemate_ledger::{Attachment, EntryBody};
use casemate_policy::Policy;
use casemate_proto::governance::Change;
use casemate_proto::{BootId, Millis};
use casemate_replication::{FatalReason, MAX_MESSAGE, ProposalRefused, Timing};
use kit::{Cluster, Weather};

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn three_nodes_elect_a_leader_and_begin_with_the_genesis() {
    let cluster = Cluster::born(3, 2).await;
    cluster.led().await;
    for from in 0..3 {
        cluster.ticks(from, 20, &[0, 1, 2]).await;
    }
    cluster.agree(&[0, 1, 2]).await;
    assert_eq!(cluster.boots[0].size(), 61);
    assert_eq!(cluster.boots[0].entries(), cluster.boots[1].entries());
    assert_eq!(cluster.boots[0].entries(), cluster.boots[2].entries());
    let status = cluster.boots[0].replication.status();
    assert_eq!(status.fatal, None);
    assert!(status.leader.is_some());
}

#[tokio::test(start_paused = true)]
async fn every_node_knows_that_a_majority_is_there_and_notices_when_it_is_not() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    pause(2_000).await;
    for boot in &cluster.boots {
        let age = boot.replication.status().majority_age.unwrap();
        assert!(age < Millis(1_000), "{}: {age:?}", boot.name);
    }
    for other in cluster.others(leader) {
        cluster.isolate(other, false);
    }
    pause(10_000).await;
    for boot in &cluster.boots {
        let age = boot.replication.status().majority_age;
        assert!(age.is_none_or(|age| age > Millis(8_000)), "{}: {age:?}", boot.name);
    }
}

#[tokio::test(start_paused = true)]
async fn five_nodes_survive_two() {
    let cluster = Cluster::born(5, 3).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(0, 10, &[0, 1, 2, 3, 4]).await;
    cluster.net.remove(cluster.boots[leader].id);
    let rest = cluster.others(leader);
    cluster.until("a leader among four", |c| rest.iter().any(|i| c.boots[*i].leads())).await;
    let second = *rest.iter().find(|i| cluster.boots[**i].leads()).unwrap();
    cluster.net.remove(cluster.boots[second].id);
    let rest: Vec<usize> = rest.into_iter().filter(|i| *i != second).collect();
    cluster.ticks(rest[0], 10, &rest).await;
    cluster.agree(&rest).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced_and_what_it_committed_stays() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(leader, 30, &[0, 1, 2]).await;
    let before = cluster.boots[leader].entries();
    cluster.net.remove(cluster.boots[leader].id);
    let rest = cluster.others(leader);
    cluster.ticks(rest[0], 30, &rest).await;
    cluster.agree(&rest).await;
    assert_eq!(cluster.boots[rest[0]].entries()[..before.len()], before);
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_commits_nothing_and_follows_when_the_partition_heals() {
    for told in [true, false] {
        let cluster = Cluster::born(3, 2).await;
        let old = cluster.place(cluster.led().await.id);
        cluster.ticks(old, 5, &[0, 1, 2]).await;
        cluster.isolate(old, told);
        let size = cluster.boots[old].size();
        for _ in 0..20 {
            let _ = cluster.boots[old].replication.propose(EntryBody::Tick, None);
        }
        let rest = cluster.others(old);
        cluster.until("another leader", |c| rest.iter().any(|i| c.boots[*i].leads())).await;
        cluster.ticks(rest[0], 20, &rest).await;
        assert_eq!(cluster.boots[old].size(), size);
        cluster.net.heal();
        cluster.agree(&[0, 1, 2]).await;
        cluster.ticks(old, 5, &[0, 1, 2]).await;
        cluster.agree(&[0, 1, 2]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_loses_reorders_and_flips_bytes_ends_nobody_and_order_holds() {
    for seed in 0..3 {
        let cluster = Cluster::born(3, 2).await;
        cluster.led().await;
        cluster.net.weather(Weather {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(40 + 10 * seed),
            lost: 100,
            flipped: 50,
            reorders: true,
            ..Weather::default()
        });
        for round in 0..20 {
            let _ = cluster.boots[round % 3].replication.propose(EntryBody::Tick, None);
            pause(300).await;
        }
        cluster.net.weather(Weather::default());
        cluster.ticks(0, 5, &[0, 1, 2]).await;
        cluster.agree(&[0, 1, 2]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_three_a_follower_applies_when_it_holds_and_the_leader_a_round_trip_after_it_appends() {
    let cluster = Cluster::born(3, 2).await;
    cluster.led().await;
    cluster.net.weather(Weather { delay: Duration::from_millis(50), ..Weather::default() });
    cluster.ticks(0, 2, &[0, 1, 2]).await;
    let leader = cluster.place(cluster.led().await.id);
    let follower = cluster.others(leader)[0];
    for _ in 0..5 {
        // whatever heartbeats are under way
        pause(70).await;
        let size = cluster.boots[leader].size();
        let sizes = |cluster: &Cluster| [leader, follower].map(|i| cluster.boots[i].size() - size);
        cluster.boots[leader].replication.propose(EntryBody::Tick, None).unwrap();
        pause(60).await;
        assert_eq!(sizes(&cluster), [0, 1]);
        pause(50).await;
        assert_eq!(sizes(&cluster), [1, 1]);
        // the next one does not wait until the followers were told of the last
        cluster.boots[leader].replication.propose(EntryBody::Tick, None).unwrap();
        pause(60).await;
        assert_eq!(sizes(&cluster), [1, 2]);
        pause(50).await;
        assert_eq!(sizes(&cluster), [2, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_five_nobody_applies_what_only_two_hold() {
    let cluster = Cluster::born(5, 3).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(leader, 3, &[0, 1, 2, 3, 4]).await;
    let others = cluster.others(leader);
    let size = cluster.boots[leader].size();
    for far in &others[1..] {
        cluster.isolate(*far, false);
    }
    cluster.boots[leader].replication.propose(EntryBody::Tick, None).unwrap();
    pause(500).await;
    assert_eq!([leader, others[0]].map(|i| cluster.boots[i].size()), [size; 2]);
}

#[tokio::test(start_paused = true)]
async fn nodes_on_several_continents_commit() {
    let cluster = Cluster::born_with(3, 2, |config| config.timing = Timing::far()).await;
    cluster.net.weather(Weather {
        delay: Duration::from_millis(120),
        jitter: Duration::from_millis(30),
        ..Weather::default()
    });
    cluster.led().await;
    let term = cluster.boots[0].replication.status().term;
    cluster.ticks(0, 20, &[0, 1, 2]).await;
    cluster.ticks(1, 20, &[0, 1, 2]).await;
    cluster.agree(&[0, 1, 2]).await;
    assert_eq!(cluster.boots[0].replication.status().term, term);
}

/// A policy of some megabytes: all that it has is a long list of payees.
fn large_policy() -> Policy {
    let payees: Vec<String> = (1..=50_000).map(|n| format!("\"0x{n:040x}\"")).collect();
    let text = format!(
        "version = 1\nname = \"large\"\nexpires = \"2027-11-20T00:00:00Z\"\n\n[list.payees.all]\n\"eip155:8453\" = [{}]\n",
        payees.join(", ")
    );
    Policy::from_toml(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// Has a follower propose a large policy; gives the leader's term before and after.
async fn policy_over(weather: Weather) -> (u64, u64) {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    let follower = cluster.others(leader)[0];
    let policy = large_policy();
    let bytes = policy.canonical_bytes();
    assert!(bytes.len() > MAX_MESSAGE, "{}", bytes.len());
    let change = |change: Change| {
        let node = cluster.boots[follower].applier.lock().unwrap();
        let now = casemate_replication::ReadClock::now(&*cluster.boots[follower].clock);
        cluster.world.change(&node.state, now, change)
    };
    let propose = |body: EntryBody, attachment: Option<Attachment>| {
        cluster.boots[follower].replication.propose(body, attachment).unwrap();
    };
    propose(change(Change::ConfirmGenesis), None);
    cluster.until("the genesis is confirmed", |c| c.boots.iter().all(|b| b.size() == 2)).await;
    let term = cluster.boots[leader].replication.status().term;
    cluster.net.weather(weather);
    let set = change(Change::SetPolicy { policy: policy.policy_hash() });
    propose(set, Some(Attachment::Policy(bytes)));
    cluster.within(180, "the policy is applied", |c| c.boots.iter().all(|b| b.size() == 3)).await;
    for boot in &cluster.boots {
        let node = boot.applier.lock().unwrap();
        assert_eq!(node.state.policy().map(|(_, hash)| hash), Some(policy.policy_hash()));
    }
    assert!(cluster.net.sent().1 <= MAX_MESSAGE);
    cluster.ticks(0, 3, &[0, 1, 2]).await;
    cluster.agree(&[0, 1, 2]).await;
    (term, cluster.boots[leader].replication.status().term)
}

#[tokio::test(start_paused = true)]
async fn a_large_policy_is_forwarded_and_appended_in_pieces() {
    let (before, after) = policy_over(Weather::default()).await;
    assert_eq!(before, after);
}

#[tokio::test(start_paused = true)]
async fn a_large_policy_over_a_slow_line_costs_no_leader_its_place() {
    // seconds each way, where an election waits for less than two and an append for a sixth
    let slow = Weather { bytes_per_ms: Some(400), ..Weather::default() };
    let (before, after) = policy_over(slow).await;
    assert_eq!(before, after);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_no_entry_is_refused_before_it_is_one() {
    let cluster = Cluster::born(3, 2).await;
    cluster.led().await;
    let replication = &cluster.boots[0].replication;
    let genesis = EntryBody::Genesis { id: cluster.genesis.id() };
    let record = casemate_proto::cbor::encode(&cluster.genesis);
    assert_eq!(
        replication.propose(genesis, Some(Attachment::Genesis(record))),
        Err(ProposalRefused::Genesis)
    );
    let unwanted = replication.propose(EntryBody::Tick, Some(Attachment::Policy(vec![1])));
    assert!(matches!(unwanted, Err(ProposalRefused::Attachment(_))));
    let missing = {
        let state = cluster.boots[0].applier.lock().unwrap();
        let policy = casemate_proto::Hash32::new([1; 32]);
        cluster.world.change(&state.state, kit::START, Change::SetPolicy { policy })
    };
    assert!(matches!(
        replication.propose(missing.clone(), None),
        Err(ProposalRefused::Attachment(_))
    ));
    // another policy than the change names: the leader looks, and appends nothing
    let size = cluster.boots[0].size();
    assert_eq!(replication.propose(missing, Some(Attachment::Policy(vec![0xa0]))), Ok(()));
    pause(2_000).await;
    assert_eq!(cluster.boots[0].size(), size);
    let (record, _) = cluster.world.boot(0, &cluster.world.birth_scope(), kit::START);
    let record = casemate_proto::manifest::BootRecord { evidence: vec![0; 60_000], ..record };
    assert!(matches!(
        replication.propose(EntryBody::Admit(record), None),
        Err(ProposalRefused::TooLarge { .. })
    ));
    replication.stop();
    assert_eq!(replication.propose(EntryBody::Tick, None), Err(ProposalRefused::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_runs_ahead_is_refused_and_replaced() {
    let cluster = Cluster::born(3, 2).await;
    let ahead = cluster.place(cluster.led().await.id);
    cluster.ticks(0, 3, &[0, 1, 2]).await;
    let (size, term) =
        (cluster.boots[ahead].size(), cluster.boots[ahead].replication.status().term);
    let delta = cluster.config.delta.0 as i64;
    cluster.boots[ahead].clock.shift(delta + 60_000);
    let _ = cluster.boots[ahead].replication.propose(EntryBody::Tick, None);
    let rest = cluster.others(ahead);
    cluster.until("another leader", |c| rest.iter().any(|i| c.boots[*i].leads())).await;
    assert!(cluster.boots[rest[0]].replication.status().term > term);
    assert_eq!(cluster.boots[rest[0]].size(), size);
    cluster.ticks(rest[0], 5, &rest).await;
    cluster.agree(&[0, 1, 2]).await;
    // within δ it is nobody's business
    cluster.boots[ahead].clock.shift(0);
    let lead = cluster.place(cluster.leader().unwrap().id);
    let term = cluster.boots[lead].replication.status().term;
    cluster.boots[lead].clock.shift(delta - 100);
    cluster.ticks(lead, 5, &[0, 1, 2]).await;
    assert_eq!(cluster.boots[lead].replication.status().term, term);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_ran_behind_follows_again_when_it_is_right() {
    let cluster = Cluster::born(3, 2).await;
    let lead = cluster.place(cluster.led().await.id);
    let rest = cluster.others(lead);
    let (behind, on_time) = (rest[0], rest[1]);
    cluster.ticks(lead, 3, &[0, 1, 2]).await;
    cluster.boots[behind].clock.shift(-60_000);
    cluster.ticks(lead, 3, &[lead, on_time]).await;
    cluster.boots[behind].clock.shift(0);
    cluster.ticks(lead, 3, &[lead, on_time]).await;
    cluster.agree(&[0, 1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_is_kept_within_its_bounds_and_the_cluster_goes_on() {
    let cluster = Cluster::born_with(3, 2, |config| config.kept_entries = 64).await;
    cluster.led().await;
    for _ in 0..6 {
        cluster.ticks(0, 60, &[0, 1, 2]).await;
        pause(1_500).await;
    }
    cluster.agree(&[0, 1, 2]).await;
    let leader = cluster.place(cluster.leader().unwrap().id);
    cluster.net.remove(cluster.boots[leader].id);
    let rest = cluster.others(leader);
    cluster.ticks(rest[0], 10, &rest).await;
    cluster.agree(&rest).await;
}

#[tokio::test(start_paused = true)]
async fn i6_a_node_that_lacks_what_the_leader_has_forgotten_halts() {
    let cluster = Cluster::born_with(3, 2, |config| config.kept_entries = 40).await;
    let leader = cluster.place(cluster.led().await.id);
    let behind = cluster.others(leader)[0];
    let rest = cluster.others(behind);
    cluster.isolate(behind, true);
    for _ in 0..5 {
        cluster.ticks(rest[0], 60, &rest).await;
        pause(1_500).await;
    }
    cluster.net.heal();
    cluster.until("it halts", |c| c.boots[behind].fatal().is_some()).await;
    assert!(matches!(cluster.boots[behind].fatal(), Some(FatalReason::FellBehind { .. })));
    cluster.ticks(rest[0], 5, &rest).await;
    cluster.agree(&rest).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_less_catches_up() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    let behind = cluster.others(leader)[0];
    let rest = cluster.others(behind);
    cluster.isolate(behind, true);
    cluster.ticks(rest[0], 600, &rest).await;
    cluster.net.heal();
    cluster.agree(&[0, 1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_applied_something_else_is_told_of() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(0, 3, &[0, 1, 2]).await;
    let other = cluster.others(leader)[0];
    // memory gone wrong at one node: its next root differs from everybody's
    {
        let mut node = cluster.boots[other].applier.lock().unwrap();
        let mut forked = casemate_ledger::State::birth(&cluster.genesis).unwrap();
        for entry in 0..node.state.size() {
            let body = match entry {
                0 => EntryBody::Genesis { id: cluster.genesis.id() },
                _ => EntryBody::RaiseVersion { to: 0 },
            };
            let entry = casemate_ledger::Entry { at: kit::START, body };
            forked.apply(&casemate_ledger::Committed::dangerous_assume(entry, None)).unwrap();
        }
        node.state = forked;
    }
    cluster.ticks(leader, 3, &[0, 1, 2]).await;
    cluster
        .until("the difference is told", |c| {
            !c.boots[other].applier.lock().unwrap().mismatches.is_empty()
        })
        .await;
    let told = cluster.boots[other].applier.lock().unwrap().mismatches.clone();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, cluster.boots[leader].id);
    // the third has the leader's root
    let third = cluster.others(leader)[1];
    assert!(cluster.boots[third].applier.lock().unwrap().mismatches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_is_not_current_does_not_start() {
    let cluster = Cluster::born(3, 2).await;
    let state = casemate_ledger::State::birth(&cluster.genesis).unwrap();
    let (_views, applied) =
        tokio::sync::watch::channel(casemate_replication::AppliedView::of(&state));
    let (out, _inbox) = tokio::sync::mpsc::channel(8);
    let start = casemate_replication::Start {
        at: casemate_replication::StartAt::Genesis,
        genesis: cluster.genesis.clone(),
        me: BootId::new([7; 32]),
        node: cluster.world.names[0].clone(),
        config: cluster.config,
        clock: kit::SimClock::new(cluster.start),
        out,
        applied,
    };
    let refused = casemate_replication::Replication::start(start).await;
    assert!(matches!(refused, Err(casemate_replication::StartError::NotCurrent { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_threads_and_in_real_time_it_is_the_same() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    for from in 0..3 {
        cluster.ticks(from, 100, &[0, 1, 2]).await;
    }
    cluster.net.remove(cluster.boots[leader].id);
    let rest = cluster.others(leader);
    cluster.ticks(rest[0], 10, &rest).await;
    cluster.agree(&rest).await;
}
