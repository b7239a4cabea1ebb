//! Cold recovery as an operator and governors do it: real processes, killed at once, and the commands of
//! `casemate recover` over what they left on their disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod hostile;
mod kit;
mod recovered;
