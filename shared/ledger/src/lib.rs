//! The ledger: entries, and `apply`, which every enclave runs and every auditor runs again.
//!
//! `apply` is pure and deterministic: the same entries in the same order give the same state,
//! verdicts and records everywhere. It reads no clock (an entry carries its time), draws no
//! randomness, uses no floats and no hash-map order. What it decides is the only source of a
//! [`Permit`], and a permit is the only way to a signature share (invariant I4).
//!
//! Rooms: [`entry`] what can be appended; [`state`] what is kept; [`apply`] one step;
//! [`requests`] (with what is remembered of them), [`approvals`], [`governance`], [`freeze`], [`keys`], [`admission`], [`recovery`] its parts;
//! [`permit`] what a step allows a node to do; [`foresee`] what the next one would; [`payload`] bytes to digest and intent (`children`: of which key);
//! [`replay`] the same steps for an auditor.

pub mod admission;
pub mod apply;
pub mod approvals;
mod children;
pub mod entry;
pub mod foresee;
pub mod freeze;
pub mod governance;
pub mod keys;
mod memory;
pub mod payload;
pub mod permit;
pub mod recovery;
pub mod replay;
pub mod requests;
mod signatures;
pub mod snapshot;
pub mod state;
pub mod take_up;
pub mod verdict;

pub use apply::{Applied, Committed, Effect, Known};
pub use entry::{Attachment, Entry, EntryBody};
pub use foresee::Foreseen;
pub use permit::{Attempt, Permit, PermitError, RunBinding};
pub use state::{State, StateError};
pub use verdict::Verdict;

/// The version of `apply` that this code has. Raised with every change of what it decides.
pub const APPLY_VERSION: u64 = 1;
