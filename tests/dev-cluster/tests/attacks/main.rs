//! Attacks on a cluster of real processes while clients ask it: what a host can do to processes,
//! folders, disks and the network, and after each that nothing was lost but time.
//!
//! Clients ask all nodes at once, each request again under its id until it is settled. After an attack
//! the service is back ([`field`]), and the log is verified and held against what the clients were
//! given ([`judge`]): every signature has one record and was allowed once, no limit is passed and none
//! is eaten, nothing is released later than τ. What is left to chance follows from a seed, which is
//! printed; `CASEMATE_ATTACK_SEED` sets it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

mod clones;
mod field;
mod hosts;
mod judge;
mod kills;
mod load;
mod pauses;
