//! A software NSM: documents in the genuine format, signed under a simulated root.
//!
//! [`SimHost`] stands for AWS: it has a root of its own and starts enclaves. [`SimNsm`] stands for the
//! security module of one enclave: [`SimNsm::attest`] answers as the device does, with the chain that
//! genuine documents carry (root, regional, zonal, instance, leaf) and the same extensions, lifetimes
//! and layout. The verifier accepts these documents when it is handed the simulated root, and never
//! otherwise: there is no switch in it for simulation.
//!
//! [`SimNsm::with_clock`] gives what an enclave is handed in place of its device. Processes that are to
//! stand on one simulated platform share the host's root by [`SimHost::to_secret_der`].
//!
//! [`ChainSpec`] and [`DocumentSpec`] are the same parts laid open, for tests that need a certificate or
//! a document that Nitro would never make: every field can be changed before it is signed.
//!
//! The encoders here share no code with the verifier's decoders. Keys come from aws-lc-rs's own
//! generator; time is an argument.

pub mod cbor;
mod chain;
mod document;
mod key;
mod nsm;

use thiserror::Error;
pub use x509_cert;

pub use crate::{
    chain::{CertificateSpec, ChainSpec, IssuedChain, KeyUsageBits, sign_tbs},
    document::{DocumentSpec, PROTECTED_ES384, PayloadSpec, sig_structure},
    key::SimKey,
    nsm::{ClockedNsm, EnclaveSpec, SimHost, SimNsm},
};

/// Stands in every program that has the simulator in it. The image builder looks for it and refuses
/// such a program (`eif/build/src/program.rs`).
pub const MARKER: &str = "casemate-marker:simulator";

#[used]
static CARRIED: &str = MARKER;

/// Makes the linker keep the marker wherever it keeps a simulated signature: an attribute alone would
/// not keep it where nothing refers to it.
fn carry_marker() {
    core::hint::black_box(&CARRIED);
}

/// The value of a PCR.
pub type PcrBytes = [u8; 48];

/// Why the simulator could not make what was asked for.
#[derive(Debug, Error)]
pub enum SimError {
    /// A key could not be made, or did not sign.
    #[error("the key generator or the signer failed")]
    Key,
    /// A value has no DER encoding, for example a time outside the years 1970 to 2049.
    #[error("not encodable as DER: {0}")]
    Der(#[from] der::Error),
    /// A field is longer than the NSM takes; the device answers `InputTooLarge`.
    #[error("`{field}` has {found} bytes, the device takes at most {limit}")]
    InputTooLarge {
        /// Which field.
        field: &'static str,
        /// Its length in bytes.
        found: usize,
        /// The greatest accepted.
        limit: usize,
    },
    /// A chain needs a root and a leaf.
    #[error("a chain of {found} certificates has no root and leaf")]
    ChainTooShort {
        /// How many certificates it has.
        found: usize,
    },
    /// A stored root's certificate is for another key than the one beside it.
    #[error("the stored root's certificate is for another key")]
    ForeignKey,
    /// Another thread panicked while it renewed the certificates.
    #[error("the cached certificates are lost")]
    Poisoned,
}
