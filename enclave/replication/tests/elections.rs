//! Who stands for election: nobody whom a majority would not have.
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

use kit::Cluster;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_and_goes_does_not_take_the_others_their_leader() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(leader, 2, &[0, 1, 2]).await;
    let term = || cluster.boots[leader].replication.status().term;
    let (flapping, before) = (cluster.others(leader)[0], term());
    for told in [true, false, true, false] {
        cluster.isolate(flapping, told);
        sleep(Duration::from_millis(4_000)).await;
        cluster.net.heal();
        sleep(Duration::from_millis(2_000)).await;
        assert!(cluster.boots[leader].leads());
    }
    assert_eq!(term(), before, "nobody stood for election");
    cluster.ticks(flapping, 2, &[0, 1, 2]).await;
    cluster.agree(&[0, 1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_host_lets_nothing_in_is_replaced() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(leader, 2, &[0, 1, 2]).await;
    let others = cluster.others(leader);
    for other in &others {
        cluster.net.deafen(cluster.boots[leader].id, cluster.boots[*other].id);
    }
    let leads = |c: &Cluster| others.iter().any(|other| c.boots[*other].leads());
    cluster.within(10, "another leader", leads).await;
    cluster.ticks(others[0], 2, &others).await;
    // it follows once it hears again
    cluster.net.heal();
    cluster.within(20, "all agree", |c| c.boots[leader].size() == c.boots[others[0]].size()).await;
    cluster.agree(&[0, 1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_heard_nobody_for_a_while_goes_on_with_the_one_that_is_left() {
    let cluster = Cluster::born(3, 2).await;
    let leader = cluster.place(cluster.led().await.id);
    cluster.ticks(leader, 2, &[0, 1, 2]).await;
    let others = cluster.others(leader);
    cluster.isolate(others[1], true);
    for _ in 0..3 {
        cluster.net.deafen(cluster.boots[leader].id, cluster.boots[others[0]].id);
        sleep(Duration::from_millis(2_500)).await;
        cluster.net.heal();
        cluster.isolate(others[1], true);
        let both = [leader.min(others[0]), leader.max(others[0])];
        cluster.within(15, "a leader of two", |c| both.iter().any(|i| c.boots[*i].leads())).await;
        cluster.ticks(others[0], 1, &both).await;
    }
}
