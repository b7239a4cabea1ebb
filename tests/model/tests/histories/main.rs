//! Histories of whole clusters under a hostile host: see `docs/SIMULATION.md`.
//!
//! ```text
//! cargo test -p casemate-model                                     a bounded number of histories
//! cargo test -p casemate-model --test histories -- --seed S --histories 1 --tell
//!                                                                  one history again, told
//! cargo test --release -p casemate-model --test histories -- --histories N --seed S
//! ```
//!
//! Each history has a process of its own, so that one that hangs or dies is named by its seed, and so
//! that nothing of one history is in the next.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::float_arithmetic,
    clippy::large_enum_variant,
    missing_docs,
    unreachable_pub
)]

mod births;
mod dice;
mod digest;
mod enclave;
mod history;
mod host;
mod people;
mod recovery;
mod reference;
mod runner;
mod setup;
mod trace;
mod world;

fn main() -> std::process::ExitCode {
    runner::main()
}
