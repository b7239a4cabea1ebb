//! Rust client: verifies before it believes.

pub mod cluster_file;
pub mod credential;
pub mod files;

pub use cluster_file::{ClusterFile, ClusterFileError, FileCredential, NodeAddress, Role};
pub use credential::{Credential, CredentialFileError, Scope, Sign, SignError};
