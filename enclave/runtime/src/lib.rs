//! `casemate-enclave`: a node behind its one door.
//!
//! The parts are elsewhere: the node ([`casemate_signer`]), replication ([`casemate_replication`]),
//! channels ([`casemate_channel`]), the door's words ([`casemate_door`]). Here they meet: tasks, queues
//! and their bounds. What is particular to hardware comes in as a [`Platform`], so that a simulator runs
//! this very code under a security module of its own.
//!
//! Rooms: [`platform`] what the machine gives; [`measured`] what the image says; [`serve`](mod@serve) the door's connections; `core`
//! the one task that knows where this boot stands, with `birth`, `joining`, `recovering` and `member` for its
//! phases; `links` channels to peers; `envelope` what goes through them; `thread` the node's own thread;
//! `outbox` files on their way to the parent; `status` how it is.
//!
//! Everything that waits is bounded. Where a queue is full, what came last is refused or dropped:
//! replication and protocol runs repeat themselves, and clients are told that the node is busy.

pub mod measured;
pub mod platform;
pub mod serve;
pub mod telemetry;

mod birth;
mod clock;
mod connected;
mod control;
mod core;
mod envelope;
mod joining;
mod links;
mod member;
mod outbox;
mod recovering;
mod status;
mod thread;
mod tickets;

pub use platform::{Platform, Settings, SystemClock, Trust};
pub use serve::{ServeError, serve, tasks};
