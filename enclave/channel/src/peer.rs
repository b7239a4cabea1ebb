//! The proof that a peer was attested.

use casemate_proto::manifest::{BootRecord, Measurement};
use casemate_proto::{BootId, Hash32, NodeName, UnixMillis};

/// A boot of another enclave, attested in a handshake with this one. Only a handshake makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestedPeer {
    /// Without evidence.
    pub(crate) boot: BootRecord,
    pub(crate) scope: Hash32,
    pub(crate) measurement: Measurement,
    pub(crate) attested: UnixMillis,
}

impl AttestedPeer {
    /// Its node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.boot.node
    }

    /// Its boot.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot.id()
    }

    /// Its boot's Ed25519 key.
    #[must_use]
    pub fn boot_key(&self) -> &[u8; 32] {
        &self.boot.key
    }

    /// Its channel's static key, which Noise proved.
    #[must_use]
    pub fn channel_key(&self) -> &[u8; 32] {
        &self.boot.channel_key
    }

    /// The highest version of `apply` that its image has.
    #[must_use]
    pub fn apply_version(&self) -> u64 {
        self.boot.apply_version
    }

    /// The image that it runs.
    #[must_use]
    pub fn measurement(&self) -> &Measurement {
        &self.measurement
    }

    /// The scope that it was attested for: the manifest's hash or the genesis id.
    #[must_use]
    pub fn scope(&self) -> &Hash32 {
        &self.scope
    }

    /// When the hypervisor made its document.
    #[must_use]
    pub fn attested(&self) -> UnixMillis {
        self.attested
    }

    /// Whether this record is of the very boot that was attested: node, keys, nonce and version.
    /// Its evidence is another document, for whoever was not there, and is not looked at.
    #[must_use]
    pub fn is_of(&self, record: &BootRecord) -> bool {
        let BootRecord { node, key, channel_key, nonce, apply_version, evidence: _ } = record;
        *node == self.boot.node
            && *key == self.boot.key
            && *channel_key == self.boot.channel_key
            && *nonce == self.boot.nonce
            && *apply_version == self.boot.apply_version
    }
}
