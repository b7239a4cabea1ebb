//! The cluster manifest, and the genesis that makes one cluster of it.
//!
//! The manifest alone does not name a cluster: a host could start two enclaves for each node.
//! The genesis id is the hash of the manifest and of every initial boot's id, keys and fresh
//! nonce, so that a boot that joined one genesis cannot be counted in another.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::credential::PublicKey;
use crate::hash::tagged_hash;
use crate::ids::Hash32;
use crate::recovery::RecoveryPublicKey;
use crate::webauthn::RelyingParty;
use crate::{BootId, CredentialId, GenesisId, Millis, NodeName, UnixMillis};

/// Most nodes of a cluster.
pub const MAX_NODES: usize = 16;
/// Most bytes of an attestation document carried as evidence.
pub const MAX_EVIDENCE: usize = 16 * 1024;
/// Most bytes of an encoded manifest.
pub const MAX_MANIFEST: usize = 32 * 1024;
/// Most bytes of an encoded genesis record.
pub const MAX_GENESIS: usize = MAX_MANIFEST + MAX_NODES * (MAX_EVIDENCE + 1024);

/// Whether the nodes are claimed to fail and fall independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Independence {
    /// Attested regions and roles are distinct, and a roster where they are not is refused.
    #[n(0)]
    Regions,
    /// None is claimed, by name: `independence = "none"`.
    #[n(1)]
    None,
}

/// Where the boots' attestation comes from: a measured setting, never a flag of the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Hardware {
    /// Nitro enclaves; documents chain to the trust root pinned in the manifest.
    #[n(0)]
    Nitro,
    /// Simulated NSMs under a simulated root.
    #[n(1)]
    Simulated,
    /// All nodes in one process, with no hardware: demonstration and simulation only.
    #[n(2)]
    OneProcess,
}

/// One node of the roster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeSpec {
    /// Its name.
    #[n(0)]
    pub name: NodeName,
    /// The region that its attestation must come from, such as `eu-west-1`.
    #[n(1)]
    pub region: String,
    /// Its role's PCR3, 48 bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub pcr3: [u8; 48],
}

/// An accepted image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Measurement {
    /// PCR0: the whole image.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub pcr0: [u8; 48],
    /// PCR1: kernel and boot ramdisk.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub pcr1: [u8; 48],
    /// PCR2: the application.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub pcr2: [u8; 48],
}

/// The governance quorum: k of the keys listed, with k > m/2.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Governance {
    /// How many must sign.
    #[n(0)]
    pub quorum: u64,
    /// Who may: P-256 or Ed25519 keys, all different.
    #[n(1)]
    pub keys: Vec<PublicKey>,
    /// How long a loosening change waits.
    #[n(2)]
    pub loosening_delay: Millis,
}

/// Times and sizes that bound everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Limits {
    /// τ: how long after its entry's time a signature share may still be released.
    #[n(0)]
    pub tau: Millis,
    /// δ: how far two nodes' clocks may lie apart.
    #[n(1)]
    pub delta: Millis,
    /// Without a freezer's heartbeat for this long the cluster freezes itself; `None`: never.
    #[n(2)]
    pub dead_man: Option<Millis>,
    /// Most remembered requests.
    #[n(3)]
    pub max_requests: u64,
    /// Most pending requests of one credential.
    #[n(4)]
    pub max_pending_per_credential: u64,
    /// Most recorded denials of one credential in a minute.
    #[n(5)]
    pub max_denials_per_minute: u64,
    /// How long a pending request waits for approvals before it expires.
    #[n(6)]
    pub approval_life: Millis,
    /// How long a request's id is remembered after its stamp has expired.
    #[n(7)]
    pub request_memory: Millis,
    /// Most remembered requests of one credential, so that one cannot deny the others.
    #[n(8)]
    pub max_requests_per_credential: u64,
}

impl Limits {
    /// What windows are lengthened by, so that the time of release cannot matter: τ + 2δ.
    #[must_use]
    pub const fn slack(&self) -> Millis {
        self.tau.saturating_add(self.delta.saturating_mul(2))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tau: Millis(30_000),
            delta: Millis(2_000),
            dead_man: None,
            max_requests: 200_000,
            max_pending_per_credential: 64,
            max_denials_per_minute: 600,
            approval_life: Millis(24 * 3_600_000),
            request_memory: Millis(24 * 3_600_000),
            max_requests_per_credential: 50_000,
        }
    }
}

/// What a cluster is to be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// Format version, 1.
    #[n(0)]
    pub version: u64,
    /// For people.
    #[n(1)]
    pub name: String,
    /// How many shares sign.
    #[n(2)]
    pub threshold: u64,
    /// The roster, by name.
    #[n(3)]
    pub nodes: Vec<NodeSpec>,
    /// Accepted images, not empty.
    #[n(4)]
    pub measurements: Vec<Measurement>,
    /// Who governs.
    #[n(5)]
    pub governance: Governance,
    /// Who may freeze.
    #[n(6)]
    pub freezers: Vec<PublicKey>,
    /// Limits.
    #[n(7)]
    pub limits: Limits,
    /// What is claimed of the nodes' independence.
    #[n(8)]
    pub independence: Independence,
    /// What the nodes run on.
    #[n(9)]
    pub hardware: Hardware,
    /// SHA-256 fingerprint of the attestation root certificate.
    #[n(10)]
    pub trust_root: Hash32,
    /// The site whose passkeys may approve; `None`: no approval by passkey.
    #[n(11)]
    pub relying_party: Option<RelyingParty>,
    /// To whom the nodes seal what a cold recovery needs; `None`: they seal nothing, and where a
    /// majority of enclaves ends at once their shares are gone.
    #[n(12)]
    pub recovery: Option<RecoveryKeys>,
}

/// The keys that sealed shares can be opened with: a quorum of them, and only for a recovery that the
/// governance quorum grants.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryKeys {
    /// Each governor's, in the order of [`Governance::keys`]; all different.
    #[n(0)]
    pub keys: Vec<RecoveryPublicKey>,
}

/// Why a manifest or a genesis is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A field contradicts another or a bound.
    #[error("manifest field `{field}`: {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The boots are not exactly one for each node of the roster.
    #[error("genesis: {reason}")]
    Boots {
        /// What is wrong.
        reason: String,
    },
}

fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

impl Manifest {
    /// Checks everything that can be checked of a manifest alone.
    ///
    /// # Errors
    /// Naming the first field that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        let fail = |field, reason: String| Err(ManifestError::Field { field, reason });
        let n = self.nodes.len();
        let t = usize::try_from(self.threshold).unwrap_or(usize::MAX);
        if self.version != 1 {
            return fail("version", format!("`{}` is not 1", self.version));
        }
        if self.name.len() > 100 {
            return fail("name", format!("{} bytes; at most 100", self.name.len()));
        }
        if t < 2 {
            return fail("threshold", format!("`{t}` is below 2: one node could sign alone"));
        }
        if n < 3 || n <= t || n > MAX_NODES {
            return fail(
                "nodes",
                format!(
                    "{n} nodes with threshold {t}; 3 to {MAX_NODES} are needed, and more than the threshold"
                ),
            );
        }
        if !distinct(self.nodes.iter().map(|node| &node.name))
            || !self.nodes.is_sorted_by_key(|node| &node.name)
        {
            return fail("nodes", "names must differ and be in order".to_owned());
        }
        if self.nodes.iter().any(|node| node.region.is_empty() || node.region.len() > 32) {
            return fail("nodes", "a region has 1 to 32 characters".to_owned());
        }
        if self.independence == Independence::Regions
            && !(distinct(self.nodes.iter().map(|node| &node.region))
                && distinct(self.nodes.iter().map(|node| &node.pcr3)))
        {
            return fail(
                "nodes",
                "two nodes share a region or a role; say `independence = \"none\"` if that is meant"
                    .to_owned(),
            );
        }
        if self.measurements.is_empty() || self.measurements.len() > 16 {
            return fail("measurements", "1 to 16 accepted images are needed".to_owned());
        }
        if self
            .measurements
            .iter()
            .any(|m| m.pcr0 == [0; 48] || m.pcr1 == [0; 48] || m.pcr2 == [0; 48])
        {
            return fail("measurements", "an all-zero PCR is a debug enclave's".to_owned());
        }
        let m = self.governance.keys.len();
        let k = usize::try_from(self.governance.quorum).unwrap_or(usize::MAX);
        if m == 0 || m > 32 || k > m || k.saturating_mul(2) <= m {
            return fail(
                "governance",
                format!("quorum {k} of {m}: more than half of 1 to 32 keys is needed"),
            );
        }
        let plain = |keys: &[PublicKey]| {
            distinct(keys.iter().map(PublicKey::id))
                && keys.iter().all(|key| key.algorithm() != crate::Algorithm::WebauthnP256)
        };
        if !plain(&self.governance.keys) {
            return fail("governance", "keys must differ and be P-256 or Ed25519".to_owned());
        }
        if self.freezers.len() > 32 || !plain(&self.freezers) {
            return fail("freezers", "at most 32 different keys, P-256 or Ed25519".to_owned());
        }
        let limits = &self.limits;
        if limits.tau.0 == 0 || limits.tau.0 > 600_000 || limits.delta.0 > 60_000 {
            return fail("limits", "tau is 1 ms to 10 min, delta at most 1 min".to_owned());
        }
        if limits.dead_man.is_some() && self.freezers.is_empty() {
            return fail(
                "limits",
                "a dead man's time without freezers would freeze for good".to_owned(),
            );
        }
        if limits.approval_life.0 == 0
            || limits.approval_life > crate::time::DAY.saturating_mul(31)
            || limits.request_memory > crate::time::DAY.saturating_mul(31)
        {
            return fail(
                "limits",
                "approval_life and request_memory are at most 31 days".to_owned(),
            );
        }
        if limits.max_requests == 0 || limits.max_requests > 10_000_000 {
            return fail("limits", "max_requests is 1 to 10,000,000".to_owned());
        }
        if let Some(Err(reason)) = self.relying_party.as_ref().map(RelyingParty::check) {
            return fail("relying_party", reason);
        }
        if let Some(recovery) = &self.recovery {
            if recovery.keys.len() != m || !distinct(&recovery.keys) {
                return fail("recovery", format!("{m} different keys: one for each governor"));
            }
            if k < 2 {
                return fail(
                    "recovery",
                    "with a quorum of one, one person and a stolen disk would be every key"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The governance key of this id.
    #[must_use]
    pub fn governor(&self, id: &CredentialId) -> Option<&PublicKey> {
        self.governance.keys.iter().find(|key| key.id() == *id)
    }

    /// The freezer's key of this id.
    #[must_use]
    pub fn freezer(&self, id: &CredentialId) -> Option<&PublicKey> {
        self.freezers.iter().find(|key| key.id() == *id)
    }
}

/// One boot of one node: what its attestation document binds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BootRecord {
    /// Which node it is a boot of.
    #[n(0)]
    pub node: NodeName,
    /// Its Ed25519 key, for cosignatures and confirmations; made at boot, never stored.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Its channel's static key (X25519).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub channel_key: [u8; 32],
    /// 32 fresh bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The highest version of `apply` that its image has.
    #[n(4)]
    pub apply_version: u64,
    /// The attestation document that binds [`Self::user_data`].
    #[cbor(n(5), with = "minicbor::bytes")]
    pub evidence: Vec<u8>,
}

impl BootRecord {
    /// The boot's id: the hash of its keys.
    #[must_use]
    pub fn id(&self) -> BootId {
        let hash = tagged_hash("casemate/boot/v1", &[&self.key, &self.channel_key]);
        BootId::new(*hash.as_bytes())
    }

    /// What the attestation document's `user_data` must be: node, keys, nonce and version under a hash
    /// with `scope`, which is the manifest's hash at genesis and the genesis id afterwards.
    #[must_use]
    pub fn user_data(&self, scope: &Hash32) -> Hash32 {
        tagged_hash(
            "casemate/attested-boot/v1",
            &[
                scope.as_bytes(),
                self.node.as_str().as_bytes(),
                self.id().as_bytes(),
                &self.nonce,
                &self.apply_version.to_be_bytes(),
            ],
        )
    }
}

/// How a cluster begins: its manifest and exactly one boot for each node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GenesisRecord {
    /// The manifest.
    #[n(0)]
    pub manifest: Manifest,
    /// The initial boots, in the roster's order.
    #[n(1)]
    pub boots: Vec<BootRecord>,
    /// When.
    #[n(2)]
    pub at: UnixMillis,
}

impl GenesisRecord {
    /// The hash of the manifest alone: what initial boots attest, before there is a genesis id.
    #[must_use]
    pub fn manifest_hash(manifest: &Manifest) -> Hash32 {
        tagged_hash("casemate/manifest/v1", &[&crate::cbor::encode(manifest)])
    }

    /// The genesis id.
    #[must_use]
    pub fn id(&self) -> GenesisId {
        let hash = tagged_hash("casemate/genesis/v1", &[&crate::cbor::encode(self)]);
        GenesisId::new(*hash.as_bytes())
    }

    /// Checks the manifest, and that there is exactly one boot for each node, all different.
    /// The boots' evidence is checked by whoever has the trust root.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        self.manifest.check()?;
        let fail = |reason: String| Err(ManifestError::Boots { reason });
        let roster = self.manifest.nodes.iter().map(|node| &node.name);
        if !roster.eq(self.boots.iter().map(|boot| &boot.node)) {
            return fail("the boots are not exactly the roster's nodes, in order".to_owned());
        }
        if !distinct(self.boots.iter().map(|boot| boot.nonce))
            || !distinct(self.boots.iter().map(|boot| boot.key))
            || !distinct(self.boots.iter().map(|boot| boot.channel_key))
        {
            return fail("two boots share a key or a nonce".to_owned());
        }
        if let Some(boot) = self.boots.iter().find(|boot| boot.evidence.len() > MAX_EVIDENCE) {
            return fail(format!("the evidence of node `{}` is too large", boot.node));
        }
        Ok(())
    }
}
