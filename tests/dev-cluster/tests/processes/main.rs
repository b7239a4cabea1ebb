//! The built program, run as a user runs it: what it starts, what it survives, what it refuses, and
//! that nothing of it is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    unreachable_pub
)]

mod demo;
mod faults;
mod kit;
mod refusals;
