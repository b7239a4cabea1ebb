//! One boot of a node: its keys, made of fresh randomness and never stored, and what is attested
//! of them.

use casemate_proto::ids::Hash32;
use casemate_proto::manifest::BootRecord;
use casemate_proto::{BootId, NodeName};
use curve25519_dalek::montgomery::MontgomeryPoint;
use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

/// Where randomness comes from: in an enclave the NSM and the kernel's generator that it seeds, in
/// a simulation a generator that can be run again.
pub trait Entropy: RngCore + CryptoRng + Send {}
impl<T: RngCore + CryptoRng + Send> Entropy for T {}

/// Something else was to be signed as the echo of a genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is not an echo of a genesis")]
pub struct NotAnEcho;

/// Something else was to be signed as an offer for a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is not an offer for a recovery")]
pub struct NotAnOffer;

/// The keys of one boot. They live in its memory and end with it: a restart is another boot.
pub struct BootSecret {
    /// Zeroises itself.
    key: SigningKey,
    channel: Zeroizing<[u8; 32]>,
    nonce: [u8; 32],
}

impl core::fmt::Debug for BootSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "BootSecret(<redacted>)")
    }
}

impl BootSecret {
    /// Fresh keys and a fresh nonce.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill_bytes(seed.as_mut());
        let mut channel = Zeroizing::new([0; 32]);
        entropy.fill_bytes(channel.as_mut());
        let mut nonce = [0; 32];
        entropy.fill_bytes(&mut nonce);
        Self { key: SigningKey::from_bytes(&seed), channel, nonce }
    }

    /// The record of this boot with `evidence`, the attestation document over
    /// [`BootRecord::user_data`]. To learn what that is, make the record with no evidence first.
    #[must_use]
    pub fn record(&self, node: &NodeName, evidence: Vec<u8>) -> BootRecord {
        BootRecord {
            node: node.clone(),
            key: self.key.verifying_key().to_bytes(),
            channel_key: MontgomeryPoint::mul_base_clamped(*self.channel).to_bytes(),
            nonce: self.nonce,
            apply_version: casemate_ledger::APPLY_VERSION,
            evidence,
        }
    }

    /// What this boot's attestation document must bind: see [`BootRecord::user_data`].
    #[must_use]
    pub fn user_data(&self, node: &NodeName, scope: &Hash32) -> Hash32 {
        self.record(node, Vec::new()).user_data(scope)
    }

    /// The boot's id.
    #[must_use]
    pub fn id(&self, node: &NodeName) -> BootId {
        self.record(node, Vec::new()).id()
    }

    /// The secret (X25519) behind the record's channel key: it goes into the boot's channels, where
    /// Noise proves it, and nowhere else.
    #[must_use]
    pub fn dangerous_channel_secret(&self) -> Zeroizing<[u8; 32]> {
        self.channel.clone()
    }

    /// Its Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Its X25519 secret: the static key of this boot's channels.
    #[must_use]
    pub const fn channel_secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.channel
    }

    /// Its nonce.
    #[must_use]
    pub const fn nonce(&self) -> [u8; 32] {
        self.nonce
    }

    /// Signs what a boot says at its cluster's birth, before there is a node: the echo of a
    /// genesis. The message must name its purpose first; everything else that this key signs
    /// does.
    ///
    /// # Errors
    /// If the message does not begin with `casemate/genesis-echo/`.
    pub fn sign_genesis_echo(&self, message: &[u8]) -> Result<[u8; 64], NotAnEcho> {
        if message.starts_with(b"casemate/genesis-echo/") {
            Ok(self.sign(message))
        } else {
            Err(NotAnEcho)
        }
    }

    /// Signs the offer of this boot for a recovery, which binds its recovery key to it.
    ///
    /// # Errors
    /// If the message does not begin with `casemate/recovery-offer/`.
    pub fn sign_recovery_offer(&self, message: &[u8]) -> Result<[u8; 64], NotAnOffer> {
        if message.starts_with(b"casemate/recovery-offer/") {
            Ok(self.sign(message))
        } else {
            Err(NotAnOffer)
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_differ_and_print_no_secret() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([7; 32]);
        use rand_chacha::rand_core::SeedableRng as _;
        let (a, b) = (BootSecret::generate(&mut rng), BootSecret::generate(&mut rng));
        let node = NodeName::new("a").unwrap();
        assert_ne!(a.id(&node), b.id(&node));
        assert_eq!(format!("{a:?}"), "BootSecret(<redacted>)");
        let scope = Hash32::new([1; 32]);
        assert_eq!(a.user_data(&node, &scope), a.record(&node, vec![1]).user_data(&scope));
    }
}
