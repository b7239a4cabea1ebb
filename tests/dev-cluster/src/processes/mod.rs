//! A cluster of real processes on this machine: for each node an enclave and a parent.
//!
//! Simulated is only what a laptop lacks: the Nitro hardware, for which `casemate-sim` signs documents
//! under a root of its own, and the vsock device, in whose place is a UNIX socket. Everything else is
//! what is deployed: the enclave's runtime behind its one door, and the parent's relay, API and store.
//!
//! Rooms: [`home`] the cluster's folder; [`claim`] who runs in it; [`process`] starting and stopping
//! one; [`up`] from nothing to a cluster that serves; [`control`] `down` and `node`; [`enclave`] and
//! [`parent`] what the processes do; [`guest`] an enclave that is no process but an image in a machine.

pub mod api;
pub mod birth;
pub mod claim;
pub mod control;
pub mod enclave;
pub mod error;
pub mod guest;
pub mod home;
pub mod machine;
pub mod parent;
pub mod process;
pub mod remote;
pub mod running;
pub mod up;

pub use error::DevError;
pub use guest::Guests;
pub use home::{Home, Plan, PlannedNode, Route};
pub use process::{Child, Program};
pub use remote::Remote;
pub use running::Running;

use core::fmt;

/// One of the two processes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// In the enclave.
    Enclave,
    /// Beside it.
    Parent,
}

impl Part {
    /// Both, in the order in which they are started.
    pub const ALL: [Self; 2] = [Self::Enclave, Self::Parent];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enclave => "enclave",
            Self::Parent => "parent",
        })
    }
}
