//! The node: an enclave's part in a cluster, as a state machine without I/O.
//!
//! It applies the ledger's committed entries, and what an entry allows it signs together with
//! `t - 1` others; it generates keys, stocks triples, cosigns checkpoints and answers. What it needs
//! from outside comes in as an [`Event`] with the time, what it wants done goes out as an
//! [`Output`]; randomness is an argument of its birth.
//!
//! Rooms: [`boot`] keys of one boot; [`node`] dispatch; [`peer`] messages between enclaves;
//! [`answer`] what is asked and answered; `requests`, `signing`, `triples`, `keygen`,
//! `checkpoints`, `publish` its parts; `runs` protocol runs in progress; `roster` who is there.

pub mod answer;
pub mod boot;
pub mod node;
pub mod peer;

mod checkpoints;
mod keygen;
mod publish;
mod requests;
mod roster;
mod runs;
mod signing;
mod triples;

pub use answer::{Answer, PendingAnswer, Receipt, Signed, SignedDenial, Submission, Ticket};
pub use boot::{BootSecret, Entropy};
pub use node::{BirthError, Bytes, Event, HaltReason, Node, NodeConfig, Output};
pub use peer::PeerMessage;
