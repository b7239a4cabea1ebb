//! Bytes to intent: what a payload does, read inside the enclave (invariant I3).

pub mod intent;

pub use intent::{Action, AssetRef, Domain, EvmAddress, Intent, Validity};
