//! Whole clusters: election, order, failures, and boots that take others' places.
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

use kit::Cluster;

#[tokio::test(start_paused = true)]
async fn three_nodes_elect_a_leader_and_begin_with_the_genesis() {
    let cluster = Cluster::born(3, 2).await;
    cluster.led().await;
    cluster.ticks(0, 20, &[0, 1, 2]).await;
    cluster.ticks(1, 20, &[0, 1, 2]).await;
    cluster.ticks(2, 20, &[0, 1, 2]).await;
    cluster.agree(&[0, 1, 2]).await;
    assert_eq!(cluster.boots[0].size(), 61);
    assert_eq!(cluster.boots[0].entries(), cluster.boots[1].entries());
    assert_eq!(cluster.boots[0].entries(), cluster.boots[2].entries());
}
