//! Clusters of real nodes in one process: what they sign, and what they refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    unreachable_pub,
    missing_docs
)]

mod bip340;
mod faults;
mod hostile;
mod kit;
mod proofs;
mod queries;
mod restart;
mod signing;
