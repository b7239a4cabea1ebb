//! A parent in front of an enclave that speaks the door's protocol and does what a test says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub,
    missing_docs
)]

mod answers;
mod api_document;
mod connection;
mod files;
mod limits;
mod links;
mod mirror;
mod program;
mod publishing;
mod support;
