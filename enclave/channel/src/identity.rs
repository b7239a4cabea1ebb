//! Who this side is, and whom it accepts.

use std::collections::BTreeSet;

use casemate_proto::manifest::{BootRecord, GenesisRecord, Manifest, Measurement};
use casemate_proto::{BootId, GenesisId, Hash32, Incarnation, NodeName};
use curve25519_dalek::montgomery::MontgomeryPoint;
use zeroize::Zeroizing;

use crate::IdentityError;

/// This boot, as its channels prove it.
pub struct LocalIdentity {
    /// Without its evidence: each handshake makes its own.
    pub(crate) boot: BootRecord,
    pub(crate) secret: Zeroizing<[u8; 32]>,
}

impl LocalIdentity {
    /// The identity of this boot. `secret` is the X25519 secret behind the record's channel key;
    /// the record's evidence plays no part.
    ///
    /// # Errors
    /// If the secret is another key's: what the boot attests would not be what Noise proves.
    pub fn new(boot: BootRecord, secret: Zeroizing<[u8; 32]>) -> Result<Self, IdentityError> {
        if MontgomeryPoint::mul_base_clamped(*secret).to_bytes() != boot.channel_key {
            return Err(IdentityError::ForeignSecret { node: boot.node });
        }
        Ok(Self { boot: BootRecord { evidence: Vec::new(), ..boot }, secret })
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.boot.node
    }

    /// The boot's id.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot.id()
    }
}

impl core::fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LocalIdentity")
            .field("node", &self.boot.node)
            .field("boot", &self.boot.id())
            .field("secret", &"<redacted>")
            .finish()
    }
}

/// Whom this boot accepts now: taken anew for each handshake, since images come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The roster with regions and roles, the trust root, the tolerance between clocks.
    pub manifest: Manifest,
    /// The images accepted now.
    pub images: BTreeSet<Measurement>,
    /// The manifest's hash at birth, the genesis id afterwards.
    pub scope: Hash32,
    /// The cluster's incarnation.
    pub incarnation: Incarnation,
}

impl Expected {
    /// Before there is a genesis: the manifest's own images, under its hash.
    #[must_use]
    pub fn at_birth(manifest: Manifest) -> Self {
        Self {
            images: manifest.measurements.iter().cloned().collect(),
            scope: GenesisRecord::manifest_hash(&manifest),
            incarnation: Incarnation::default(),
            manifest,
        }
    }

    /// In the cluster that this genesis began, with the images that its ledger accepts now.
    #[must_use]
    pub fn in_cluster(
        manifest: Manifest,
        images: BTreeSet<Measurement>,
        genesis: &GenesisId,
        incarnation: Incarnation,
    ) -> Self {
        Self { manifest, images, scope: Hash32::new(*genesis.as_bytes()), incarnation }
    }
}
