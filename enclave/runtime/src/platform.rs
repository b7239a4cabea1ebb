//! What the machine gives an enclave: attestation, time, randomness.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_nsm::{Attest, NsmError};
use casemate_proto::manifest::{Hardware, Manifest};
use casemate_proto::{Hash32, UnixMillis};
use casemate_replication::{ReadClock, Timing};
use casemate_signer::{Entropy, NodeConfig};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_core::{OsRng, RngCore as _};
use zeroize::Zeroizing;

use crate::core::Refusal;

/// Makes generators fit for keys.
pub type MakeEntropy = Box<dyn Fn() -> Result<Box<dyn Entropy>, NsmError> + Send + Sync>;

/// What the machine gives.
pub struct Platform {
    /// The security module.
    pub attest: Arc<dyn Attest>,
    /// The clock.
    pub clock: Arc<dyn ReadClock>,
    /// A generator fit for keys, seeded anew at each call.
    pub entropy: MakeEntropy,
    /// Whose documents this enclave believes: no manifest that names another root is taken.
    pub trust: Trust,
    /// Sizes and times.
    pub settings: Settings,
}

impl core::fmt::Debug for Platform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Platform").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whose documents an enclave believes. In an image both follow from the root that is measured into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// SHA-256 of the root certificate's DER.
    pub root: Hash32,
    /// What such documents vouch for.
    pub hardware: Hardware,
}

impl Trust {
    /// A manifest comes from the host. What it says of the root is compared with what is measured into this
    /// enclave, so that no host chooses whose documents are believed.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<(), Refusal> {
        if manifest.trust_root != self.root {
            return Err(format!(
                "the manifest trusts the root {}, and this enclave believes {} only",
                manifest.trust_root.to_hex(),
                self.root.to_hex()
            ));
        }
        if manifest.hardware != self.hardware {
            return Err(format!(
                "the manifest says {} of its nodes' hardware, and this enclave's root vouches for {}",
                named(manifest.hardware),
                named(self.hardware)
            ));
        }
        Ok(())
    }
}

const fn named(hardware: Hardware) -> &'static str {
    match hardware {
        Hardware::Nitro => "`nitro`",
        Hardware::Simulated => "`simulated`",
        Hardware::OneProcess => "`one process`",
    }
}

/// Sizes and times of one enclave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's.
    pub node: NodeConfig,
    /// Replication's heartbeats and elections, where the parent says nothing of distances.
    pub raft: Timing,
    /// How often the node is told that time passes.
    pub tick: Duration,
    /// How often the parent is told how the enclave is.
    pub status: Duration,
    /// How long a handshake may take.
    pub handshake: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: NodeConfig::default(),
            raft: Timing::far(),
            tick: Duration::from_millis(50),
            status: Duration::from_secs(1),
            handshake: Duration::from_secs(10),
        }
    }
}

/// The system's clock. In a Nitro enclave it is the hypervisor's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl ReadClock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A generator for keys in an enclave: the kernel's, with the security module's own randomness mixed in,
/// so that either of them suffices.
///
/// # Errors
/// If the security module gives none.
pub fn mixed_entropy(
    random: &dyn Fn(&mut [u8]) -> Result<(), NsmError>,
) -> Result<Box<dyn Entropy>, NsmError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    OsRng.fill_bytes(seed.as_mut());
    let mut module = Zeroizing::new([0_u8; 32]);
    random(module.as_mut())?;
    for (mixed, other) in seed.iter_mut().zip(module.iter()) {
        *mixed ^= other;
    }
    Ok(Box::new(ChaCha20Rng::from_seed(*seed)))
}
