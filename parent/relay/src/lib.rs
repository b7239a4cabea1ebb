//! casemate-parent: what stands between an enclave and the world, and is trusted with nothing.
//!
//! An enclave has no network and no disk. Its parent gives it both: it relays the bytes of the
//! channels between enclaves ([`links`]), which it cannot read; passes what clients ask in and what
//! the enclave answers out ([`http`], [`enclave`]), which it cannot make up; and keeps the files of
//! the auditors' store ([`store`], [`mirror`]), which everybody checks who reads them.
//!
//! A parent can stop service. That is all it can do, and all that its bounds are for: whatever
//! arrives from outside is capped in size, number and time, so that it also does not stop service
//! for somebody else.

mod admit;
mod backoff;
pub mod config;
pub mod enclave;
pub mod folder;
pub mod http;
pub mod links;
pub mod metrics;
pub mod mirror;
pub mod parent;
pub mod recovery;
mod stop;
pub mod store;

pub use config::{Config, ConfigError, Limits, Peer};
pub use parent::{Parent, StartError, tasks};
pub use stop::told_to_stop;
