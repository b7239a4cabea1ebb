//! Restarted nodes come back as other boots, from the ask to the vote, over running clusters.
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
use std::time::Duration;

use casemate_ledger::{EntryBody, State, Verdict};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::BootRecord;
use casemate_proto::{BootId, UnixMillis};
use casemate_replication::StartAt;
use casemate_replication::join::{HandedOver, Handovers, JoinRun, Joined};
use kit::Cluster;

fn scope(cluster: &Cluster) -> Hash32 {
    Hash32::new(*cluster.genesis.id().as_bytes())
}

/// The current nodes' side of a cluster, driven as their runtimes would.
struct Desks {
    handovers: BTreeMap<BootId, Handovers>,
    told: BTreeMap<BootId, usize>,
}

impl Desks {
    fn new() -> Self {
        Self { handovers: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// Keeps what was admitted since the last time.
    fn collect(&mut self, cluster: &Cluster, now: UnixMillis, words: &mut Vec<(BootId, Vec<u8>)>) {
        for boot in &cluster.boots {
            let node = boot.applier.lock().unwrap();
            let told = self.told.entry(boot.id).or_default();
            for (admitted, size, snapshot, at) in &node.admitted[*told..] {
                let (name, _) = node
                    .state
                    .current_boots()
                    .into_iter()
                    .find(|(_, current)| current == admitted)
                    .unwrap_or_else(|| (boot.name.clone(), *admitted));
                let handed = HandedOver {
                    boot: *admitted,
                    node: name,
                    size: *size,
                    hash: State::snapshot_hash(snapshot),
                    snapshot: Arc::from(snapshot.as_slice()),
                    tail: Arc::from(boot.name.as_str().as_bytes()),
                    position: at.position(),
                };
                let desk = self.handovers.entry(boot.id).or_default();
                words.push((boot.id, desk.put(handed, now)));
            }
            *told = node.admitted.len();
        }
    }
}

/// Drives a new boot of a node until it has joined, with the nodes in `serving` there for it.
async fn join(
    cluster: &Cluster,
    desks: &mut Desks,
    record: &BootRecord,
    serving: &[usize],
) -> Joined {
    let (node, boot) = (record.node.clone(), record.id());
    let threshold = cluster.world.manifest.threshold;
    let mut run = JoinRun::new(record.clone(), threshold);
    for at in serving {
        run.connected(&cluster.boots[*at].name);
    }
    for _ in 0..600 {
        let now = casemate_replication::ReadClock::now(&*cluster.boots[serving[0]].clock);
        let mut words = Vec::new();
        desks.collect(cluster, now, &mut words);
        let mut out = run.tick(now);
        for (from, word) in words {
            let from = &cluster.boots[cluster.place(from)];
            if serving.contains(&cluster.place(from.id)) && from.name != node {
                // a word of another's admission is refused
                out.extend(run.receive(&from.name, &word, now).unwrap_or_default());
            }
        }
        while let Some((to, bytes)) = out.pop() {
            let at = *serving.iter().find(|at| cluster.boots[**at].name == to).unwrap();
            let peer = &cluster.boots[at];
            let current = peer.applier.lock().unwrap().state.current_boot(&node);
            let desk = desks.handovers.entry(peer.id).or_default();
            let action = desk.receive((&node, boot), (current, false), &bytes, now).unwrap();
            if let Some(body) = action.propose {
                peer.replication.propose(body, None).unwrap();
            }
            for reply in action.send {
                out.extend(run.receive(&peer.name, &reply, now).unwrap());
            }
        }
        if let Some(joined) = run.take() {
            return joined;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the boot has not joined; {} confirmed", run.confirmed());
}

/// Kills a boot, has its node come back as another, and waits until it is a voter.
async fn come_back(cluster: &mut Cluster, desks: &mut Desks, index: usize) -> usize {
    let old = cluster
        .boots
        .iter()
        .rposition(|boot| boot.index == index && boot.fatal().is_none())
        .unwrap();
    cluster.net.remove(cluster.boots[old].id);
    let serving: Vec<usize> = current(cluster).into_iter().filter(|i| *i != old).collect();
    let now = casemate_replication::ReadClock::now(&*cluster.boots[serving[0]].clock);
    let (record, _) = cluster.world.boot(index, &scope(cluster), now);
    let joined = join(cluster, desks, &record, &serving).await;
    let state = State::from_snapshot(&joined.snapshot).unwrap();
    assert_eq!(state.genesis(), cluster.genesis.id());
    assert_eq!(state.current_boot(&record.node), Some(record.id()));
    assert_eq!(state.size(), joined.size);
    assert_eq!(joined.tail, joined.from.as_str().as_bytes());
    cluster.add(index, record.id(), state, StartAt::Snapshot(joined.position)).await;
    let new = cluster.boots.len() - 1;
    let at: Vec<usize> = [serving, vec![new]].concat();
    let wanted: std::collections::BTreeSet<BootId> =
        at.iter().map(|i| cluster.boots[*i].id).collect();
    cluster
        .until("the new boot is a member and the old one is not", |c| {
            at.iter().all(|i| c.boots[*i].replication.members() == wanted)
        })
        .await;
    new
}

/// The boots that are current.
fn current(cluster: &Cluster) -> Vec<usize> {
    let best = (0..cluster.boots.len()).max_by_key(|i| cluster.boots[*i].size()).unwrap();
    let boots = cluster.boots[best].applier.lock().unwrap().state.current_boots();
    (0..cluster.boots.len())
        .filter(|i| boots.values().any(|b| *b == cluster.boots[*i].id))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn i6_a_restarted_node_comes_back_as_another_boot_and_counts_again() {
    let mut cluster = Cluster::born(3, 2).await;
    let mut desks = Desks::new();
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(0, 10, &[0, 1, 2]).await;
    let restarted = cluster.others(leader)[0];
    let third = cluster.others(leader)[1];
    let new = come_back(&mut cluster, &mut desks, restarted).await;
    cluster.ticks(leader, 10, &[leader, third, new]).await;
    cluster.agree(&[leader, third, new]).await;
    // now one that never restarted is killed: the new boot and the last old one go on
    cluster.net.remove(cluster.boots[leader].id);
    cluster.ticks(third, 10, &[third, new]).await;
    cluster.ticks(new, 10, &[third, new]).await;
    cluster.agree(&[third, new]).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_leaders_node_comes_back_too_and_again_and_again() {
    let mut cluster = Cluster::born(3, 2).await;
    let mut desks = Desks::new();
    cluster.led().await;
    for round in 0..4 {
        cluster.until("a leader", |c| c.leader().is_some_and(|l| l.fatal().is_none())).await;
        let now = current(&cluster);
        let leads = *now.iter().find(|i| cluster.boots[**i].leads()).unwrap_or(&now[round % 3]);
        let index = cluster.boots[leads].index;
        come_back(&mut cluster, &mut desks, index).await;
        let now = current(&cluster);
        cluster.ticks(now[0], 10, &now).await;
        cluster.agree(&now).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_node_is_replaced_in_turn_and_the_ledger_stays_one() {
    let mut cluster = Cluster::born(5, 3).await;
    let mut desks = Desks::new();
    cluster.led().await;
    cluster.ticks(0, 5, &[0, 1, 2, 3, 4]).await;
    let genesis: Vec<BootId> = (0..5).map(|i| cluster.boots[i].id).collect();
    for index in 0..5 {
        come_back(&mut cluster, &mut desks, index).await;
    }
    let now = current(&cluster);
    assert!(now.iter().all(|i| !genesis.contains(&cluster.boots[*i].id)));
    cluster.ticks(now[0], 10, &now).await;
    cluster.agree(&now).await;
}

#[tokio::test(start_paused = true)]
async fn i7_a_retired_boot_that_wakes_up_is_not_heard_and_not_a_member() {
    let mut cluster = Cluster::born(3, 2).await;
    let mut desks = Desks::new();
    let leader = cluster.place(cluster.led().await.id);
    let paused = cluster.others(leader)[0];
    let third = cluster.others(leader)[1];
    cluster.ticks(0, 5, &[0, 1, 2]).await;
    // not dead: cut off, and it goes on standing for election
    cluster.isolate(paused, true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let serving = vec![leader, third];
    let now = casemate_replication::ReadClock::now(&*cluster.boots[leader].clock);
    let (record, _) = cluster.world.boot(paused, &scope(&cluster), now);
    let joined = join(&cluster, &mut desks, &record, &serving).await;
    let state = State::from_snapshot(&joined.snapshot).unwrap();
    cluster.add(paused, record.id(), state, StartAt::Snapshot(joined.position)).await;
    let new = cluster.boots.len() - 1;
    let retired = cluster.boots[paused].id;
    cluster
        .until("the swap", |c| {
            [leader, third, new]
                .iter()
                .all(|i| !c.boots[*i].replication.members().contains(&retired))
        })
        .await;
    cluster.ticks(leader, 5, &[leader, third, new]).await;
    let term = cluster.leader().unwrap().replication.status().term;
    let size = cluster.boots[paused].size();
    cluster.net.heal();
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.ticks(leader, 5, &[leader, third, new]).await;
    cluster.agree(&[leader, third, new]).await;
    assert_eq!(cluster.boots[leader].replication.status().term, term);
    assert!(cluster.boots[paused].size() <= size);
    let proposed = cluster.boots[paused].replication.propose(EntryBody::Tick, None);
    assert_eq!(proposed, Ok(()));
    let before = cluster.boots[leader].size();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.boots[leader].size(), before);
}

#[tokio::test(start_paused = true)]
async fn i7_a_new_boot_is_not_admitted_while_the_current_one_answers() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(0, 3, &[0, 1, 2]).await;
    let follower = cluster.others(leader)[0];
    let now = casemate_replication::ReadClock::now(&*cluster.boots[leader].clock);
    let size = cluster.boots[leader].size();
    for index in [leader, follower] {
        let (record, _) = cluster.world.boot(index, &scope(&cluster), now);
        for from in 0..3 {
            let body = EntryBody::Admit(record.clone());
            cluster.boots[from].replication.propose(body, None).unwrap();
        }
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.boots[leader].size(), size);
    // a channel that went down a moment ago says nothing yet
    let gone = cluster.others(leader)[1];
    let (record, _) = cluster.world.boot(gone, &scope(&cluster), now);
    cluster.net.remove(cluster.boots[gone].id);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    cluster.boots[leader].replication.propose(EntryBody::Admit(record.clone()), None).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.boots[leader].size(), size);
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..5 {
        let body = EntryBody::Admit(record.clone());
        cluster.boots[leader].replication.propose(body, None).unwrap();
    }
    cluster.until("it is admitted", |c| c.boots[leader].size() == size + 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // once, however often it is proposed
    assert_eq!(cluster.boots[leader].size(), size + 1);
    let verdict = cluster.boots[leader].applier.lock().unwrap().verdicts.last().cloned();
    assert!(matches!(verdict, Some(Verdict::Accepted { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_silent_boot_whose_channel_looks_up_is_replaced_all_the_same() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(0, 3, &[0, 1, 2]).await;
    let silent = cluster.others(leader)[0];
    cluster.isolate(silent, false);
    let size = cluster.boots[leader].size();
    let now = casemate_replication::ReadClock::now(&*cluster.boots[leader].clock);
    let (record, _) = cluster.world.boot(silent, &scope(&cluster), now);
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.boots[leader].replication.propose(EntryBody::Admit(record), None).unwrap();
    cluster.until("it is admitted", |c| c.boots[leader].size() == size + 1).await;
}

#[tokio::test(start_paused = true)]
async fn every_node_describes_an_admission_alike() {
    let mut cluster = Cluster::born(5, 3).await;
    let mut desks = Desks::new();
    cluster.led().await;
    for index in [1, 3] {
        come_back(&mut cluster, &mut desks, index).await;
    }
    let now = current(&cluster);
    cluster.agree(&now).await;
    let described: Vec<Vec<_>> = (0..5)
        .filter(|i| now.contains(i))
        .map(|i| {
            let node = cluster.boots[i].applier.lock().unwrap();
            node.admitted.iter().map(|(b, s, x, at)| (*b, *s, x.clone(), at.position())).collect()
        })
        .collect();
    assert!(described.len() >= 3);
    assert!(described.iter().all(|one| one == &described[0] && one.len() == 2));
}
