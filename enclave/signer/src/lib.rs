//! The node: an enclave's part in a cluster, as a state machine without I/O.
//!
//! It applies the ledger's committed entries, and what an entry allows it signs together with
//! `t - 1` others; it generates keys, stocks triples, cosigns checkpoints and answers. What it needs
//! from outside comes in as an [`Event`] with the time, what it wants done goes out as an
//! [`Output`]; randomness is an argument of its birth.
//!
//! Rooms: [`boot`] keys of one boot; [`event`] what happens and what is wanted; [`node`] dispatch;
//! [`peer`] messages between enclaves; [`answer`] what is asked and answered; `requests` and
//! `replies` both sides of that; `views` what can be read; `signing` permits to signatures; `ahead` what of it goes before the commit;
//! `tally` what this boot released; `triples` their stock; `keygen` and `key_tests` new keys, and shares for nodes that lost theirs;
//! `shares` the schemes; `checkpoints`, `cosigners` and `publish` the log; `runs` protocol runs in progress;
//! `roster` who is there; `stats` counters; `bounded` caps.

pub mod answer;
pub mod boot;
pub mod event;
pub mod node;
pub mod peer;

mod ahead;
mod applying;
mod bounded;
mod checkpoints;
mod cosigners;
mod key_tests;
mod keygen;
mod log_signature;
mod publish;
mod recovery;
mod replies;
mod requests;
mod roster;
mod runs;
mod shares;
mod signing;
mod starts;
mod stats;
mod tally;
mod triples;
mod views;

#[cfg(test)]
mod inside;

pub use answer::{
    Answer, PendingAnswer, Query, Receipt, Reply, Signed, SignedDenial, SignedReply, Submission,
    Ticket,
};
pub use boot::{BootSecret, Entropy, NotAnEcho, NotAnOffer};
pub use event::{BirthError, Bytes, Event, HaltReason, Handover, JoinError, NodeConfig, Output};
pub use node::Node;
pub use peer::{PeerMessage, StartKey, StartTest};
pub use recovery::{NotRecovered, RecoveryParts};
pub use stats::Stats;
