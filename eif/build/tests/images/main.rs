//! Images as a whole: against AWS's own, hostile ones, built ones, and by the program's commands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod building;
mod commands;
mod hostile;
mod kit;
mod materials;
mod signing;
mod vectors;
