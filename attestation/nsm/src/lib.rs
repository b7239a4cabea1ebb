//! The Nitro security module, and what stands for it in a simulation.
//!
//! A capability, not a configuration: what runs an enclave is handed something that can
//! [`Attest`]. In a real enclave that is `/dev/nsm`; a simulator brings its own from `tests/`.

pub mod device;
mod time;

pub use time::attested_time;

/// Most bytes of a document's user data and nonce, as the device has it.
pub const MAX_USER_DATA: usize = 512;
/// Most bytes of a document's public key, as the device has it.
pub const MAX_PUBLIC_KEY: usize = 1_024;

/// What the enclave wants attested. Each field at most as long as the device takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Bound as `user_data`.
    pub user_data: Option<&'a [u8]>,
    /// Bound as `nonce`.
    pub nonce: Option<&'a [u8]>,
    /// Bound as `public_key`.
    pub public_key: Option<&'a [u8]>,
}

/// Why the security module did not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NsmError {
    /// There is no device: this is no Nitro enclave.
    #[error("there is no `{path}`: this is not a Nitro enclave, or its kernel lacks the driver")]
    NoDevice {
        /// Where it was looked for.
        path: &'static str,
    },
    /// A field is longer than the device takes.
    #[error("{field} has {len} bytes; the security module takes at most {max}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The most.
        max: usize,
    },
    /// The device answered with an error or with something else than was asked for.
    #[error("the security module failed to {what}: {reason}")]
    Failed {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        reason: String,
    },
}

/// Can have a document signed that names this enclave's image and what it wants bound.
pub trait Attest: Send + Sync {
    /// An attestation document: COSE_Sign1 as the Nitro hypervisor signs it.
    ///
    /// # Errors
    /// If a field is too long or the device fails.
    fn attest(&self, wanted: Wanted<'_>) -> Result<Vec<u8>, NsmError>;
}
