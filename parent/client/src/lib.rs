//! Rust client: verifies before it believes.
//!
//! A [`Client`] is made of a [`Cluster`]: a pinned genesis id, a pinned attestation root and the
//! nodes' URLs. Everything between it and the enclaves is taken to be hostile: hosts, networks, name
//! services. What follows from that:
//!
//! ```text
//! genesis record   believed if its hash is the pinned id
//! node             attested over a fresh nonce before anything is sent to it (attested)
//! the cluster      what at least t attested nodes say alike (belief)
//! a key            proved by its record, or shown by t nodes; then pinned (keys)
//! a signature      with its receipt, for this very request, under that key (request)
//! a denial         in an attested boot's hand, about this request, not older than it (denial)
//! everything else  asked again, under the same id, at any node, until a deadline
//! ```

pub mod announced;
pub mod attested;
pub mod belief;
pub mod client;
pub mod cluster;
pub mod cluster_file;
pub mod credential;
pub mod denial;
pub mod error;
pub mod fault;
pub mod files;
mod govern;
mod http;
pub mod idempotency;
pub mod keys;
mod recover;
pub mod request;
pub mod review;
mod sign;
mod stand;
pub mod store;

pub use attested::AttestedBoot;
pub use belief::{Belief, GivenView};
pub use client::{Client, Settings};
pub use cluster::{Cluster, ClusterError, Endpoint};
pub use cluster_file::{ClusterFile, ClusterFileError, FileCredential, NodeAddress, Role};
pub use credential::{Credential, CredentialFileError, Scope, Sign, SignError};
pub use denial::VerifiedDenial;
pub use error::{ClientError, Fault, Unsettled};
pub use fault::{DenialFault, KeyFault, NodeFailure, NodeFault, ReceiptFault};
pub use idempotency::IdempotencyKey;
pub use keys::{KeyState, PinnedKey};
pub use request::{Asked, VerifiedSignature};
pub use review::{Review, ReviewError, review};
pub use sign::{Outcome, SignOptions};
pub use stand::Standing;
