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
