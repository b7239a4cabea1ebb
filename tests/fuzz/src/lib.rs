//! Every decoder's fuzz target.
//!
//! A target takes any bytes and panics where a promise of its decoder does not hold: it never
//! panics itself, and what it accepts has one encoding. `tests/corpus.rs` runs each over its
//! corpus and a bounded number of mutations of it with `cargo test`; `run` has libFuzzer run the same
//! functions, with coverage, for as long as one likes.

pub mod attestation;
pub mod audit;
pub mod channel;
pub mod eif;
pub mod ledger;
pub mod policy;
pub mod proto;
pub mod recovery;
pub mod signer;
pub mod threshold;
pub mod tx;

/// A decoder under attack.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// What is run with each input.
    pub run: fn(&[u8]),
}

/// Every target, by crate.
#[rustfmt::skip] // a line each
pub const TARGETS: &[&[Target]] = &[
    attestation::TARGETS,
    audit::TARGETS,
    channel::TARGETS,
    eif::TARGETS,
    ledger::TARGETS,
    policy::TARGETS,
    proto::TARGETS,
    recovery::TARGETS,
    signer::TARGETS,
    threshold::TARGETS,
    tx::TARGETS,
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().flatten().copied().find(|target| target.name == name)
}
