//! The state that entries build: everything that a later decision depends on, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use casemate_audit::Frontier;
use casemate_policy::{ChargeBook, Policy, Requirement, Slack};
use casemate_proto::governance::ChangeEnvelope;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, GenesisRecord, Manifest, ManifestError, Measurement};
use casemate_proto::{
    BootId, CredentialId, Denial, DerivationPath, GenesisId, GrantId, Incarnation, KeyName, Millis,
    NodeName, PrincipalId, RequestId, Scheme, UnixMillis,
};
use minicbor::{Decode, Encode};

use crate::children::Children;

/// How many of the newest tree roots are kept, to check heartbeats against.
pub const KEPT_ROOTS: usize = 4096;
/// Names that begin so are the cluster's own keys and cannot be asked to sign.
pub const RESERVED_PREFIX: &str = "casemate.";

/// A node's current boot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BootState {
    /// The boot's id.
    #[n(0)]
    pub id: BootId,
    /// Its Ed25519 key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// The highest version of `apply` that it has.
    #[n(2)]
    pub apply_version: u64,
    /// The image that it attested.
    #[n(3)]
    pub measurement: Measurement,
    /// When it was admitted.
    #[n(4)]
    pub admitted: UnixMillis,
    /// Until when what its node's admissions cost is paid off: see [`crate::admission`].
    #[n(5)]
    pub paid_off: UnixMillis,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyState {
    /// Its scheme.
    #[n(0)]
    pub scheme: Scheme,
    /// What is known once it is live.
    #[n(1)]
    pub live: Option<LiveKey>,
}

/// A live key's public facts. Name, scheme, public key and chain code never change (I13).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LiveKey {
    /// 33 bytes SEC1 or 32 bytes Ed25519.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// For derivation.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub chain_code: [u8; 32],
    /// The current epoch.
    #[n(2)]
    pub epoch: u64,
    /// The index of the entry that made this epoch live.
    #[n(3)]
    pub index: u64,
    /// The boots that hold a share of this epoch: those that were current when it went live. One
    /// that was admitted since has none.
    #[n(4)]
    pub holders: BTreeMap<NodeName, BootId>,
    /// Whether this epoch's shares have nothing in common with those that boots held before which
    /// are gone. Where FROST gave shares back they are what they were, until they are refreshed.
    #[n(5)]
    pub is_fresh: bool,
    /// The transcript of the run that made this epoch's shares, which all holders echoed.
    #[n(6)]
    pub transcript: Hash32,
}

/// What is remembered of a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RequestState {
    /// SHA-256 of its body.
    #[n(0)]
    pub body_hash: Hash32,
    /// The entry that decided last.
    #[n(1)]
    pub index: u64,
    /// Until when it is remembered.
    #[n(2)]
    pub forget_at: UnixMillis,
    /// Where it stands.
    #[n(3)]
    pub status: RequestStatus,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RequestStatus {
    /// Waits for approvals or a delay.
    #[n(0)]
    Pending(#[n(0)] PendingRequest),
    /// Allowed and charged; not signed yet, or never if τ has passed.
    #[n(1)]
    Allowed(#[n(0)] AllowedRequest),
    /// Signed.
    #[n(2)]
    Signed {
        /// What was allowed.
        #[n(0)]
        allowed: AllowedRequest,
        /// The signature.
        #[cbor(n(1), with = "minicbor::bytes")]
        signature: Vec<u8>,
        /// The index of the entry that holds it.
        #[n(2)]
        signed_index: u64,
    },
    /// Denied.
    #[n(3)]
    Denied(#[n(0)] Denial),
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PendingRequest {
    /// Its body, to be evaluated again.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Who asked.
    #[n(1)]
    pub principal: PrincipalId,
    /// When it was first seen.
    #[n(2)]
    pub first_seen: UnixMillis,
    /// The approval document's hash.
    #[n(3)]
    pub document: Hash32,
    /// The policy that the document names.
    #[n(4)]
    pub policy: Hash32,
    /// What it still needs.
    #[n(5)]
    pub requirement: Requirement,
    /// Who approved so far, in the order of approval.
    #[n(6)]
    pub approvals: Vec<ApprovalState>,
    /// When it expires.
    #[n(7)]
    pub expires: UnixMillis,
}

/// An approval that was given.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ApprovalState {
    /// Who.
    #[n(0)]
    pub principal: PrincipalId,
    /// With which credential.
    #[n(1)]
    pub credential: CredentialId,
    /// Whether it was a passkey.
    #[n(2)]
    pub passkey: bool,
    /// When.
    #[n(3)]
    pub at: UnixMillis,
}

/// What was allowed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AllowedRequest {
    /// Who asked.
    #[n(0)]
    pub principal: PrincipalId,
    /// By which grant.
    #[n(1)]
    pub grant: GrantId,
    /// Which key.
    #[n(2)]
    pub key: KeyName,
    /// Which child.
    #[n(3)]
    pub path: DerivationPath,
    /// What is signed.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// Until when shares may be released; zero where a recovery came before it was known to be signed.
    #[n(5)]
    pub release_by: UnixMillis,
}

impl AllowedRequest {
    /// Whether a recovery came before it was known to be signed. The former incarnation may have
    /// signed it; this one never does.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.release_by.0 == 0
    }
}

/// A change that waits for its delay.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PendingChange {
    /// The change.
    #[n(0)]
    pub envelope: ChangeEnvelope,
    /// The index of the entry that proposed it.
    #[n(1)]
    pub index: u64,
    /// When somebody outside showed that it was seen; the delay counts from then.
    #[n(2)]
    pub seen_at: Option<UnixMillis>,
    /// The policy's canonical form, for a change that sets one.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub policy: Vec<u8>,
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FreezeState {
    /// Who froze; `None` when the dead man's time ran out.
    #[n(0)]
    pub by: Option<CredentialId>,
    /// When it was applied.
    #[n(1)]
    pub at: UnixMillis,
}

/// What one credential uses of the shared tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct CredentialUse {
    /// Remembered requests.
    #[n(0)]
    pub(crate) requests: u64,
    /// Of those, pending.
    #[n(1)]
    pub(crate) pending: u64,
    /// The minute that denials are counted in.
    #[n(2)]
    pub(crate) minute: u64,
    /// Denials recorded in that minute.
    #[n(3)]
    pub(crate) denials: u64,
}

/// The policy in force.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    pub(crate) policy: Policy,
    pub(crate) hash: Hash32,
}

pub(crate) type RequestKey = (CredentialId, RequestId);

/// The applied state.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) version: u64,
    pub(crate) genesis: GenesisId,
    pub(crate) incarnation: Incarnation,
    pub(crate) manifest: Manifest,
    pub(crate) boots: BTreeMap<NodeName, BootState>,
    pub(crate) retired_boots: BTreeSet<BootId>,
    pub(crate) images: BTreeSet<Measurement>,
    pub(crate) retired_images: BTreeSet<Measurement>,
    pub(crate) time: UnixMillis,
    pub(crate) tree: Frontier,
    pub(crate) roots: VecDeque<(u64, Hash32)>,
    pub(crate) policy: Option<InForce>,
    pub(crate) charges: ChargeBook,
    pub(crate) confirmed: bool,
    pub(crate) change_head: Hash32,
    pub(crate) changes: BTreeMap<Hash32, PendingChange>,
    pub(crate) revoked: BTreeSet<CredentialId>,
    pub(crate) freezes: BTreeMap<Hash32, FreezeState>,
    pub(crate) lifted: BTreeSet<Hash32>,
    pub(crate) heard: UnixMillis,
    pub(crate) keys: BTreeMap<KeyName, KeyState>,
    pub(crate) requests: BTreeMap<RequestKey, RequestState>,
    pub(crate) forget: BTreeSet<(UnixMillis, RequestKey)>,
    pub(crate) uses: BTreeMap<CredentialId, CredentialUse>,
    /// No part of what it says: see [`crate::children`].
    pub(crate) children: Children,
}

/// Why a state cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The genesis record's encoding.
    #[error("genesis record: {0}")]
    Encoding(#[from] casemate_proto::cbor::CborError),
    /// The genesis record contradicts itself.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A boot's evidence was refused.
    #[error("genesis: boot of node `{node}`: {reason}")]
    Evidence {
        /// Whose.
        node: NodeName,
        /// Why.
        reason: String,
    },
    /// A snapshot's content contradicts itself.
    #[error("snapshot: {reason}")]
    Snapshot {
        /// What is wrong.
        reason: String,
    },
}

impl State {
    /// The state before the first entry: a checked genesis with verified evidence, an empty log.
    ///
    /// # Errors
    /// If the record is malformed, contradicts itself, or a boot's evidence is refused.
    pub fn birth(record: &GenesisRecord) -> Result<Self, StateError> {
        record.check()?;
        let manifest = &record.manifest;
        let scope = GenesisRecord::manifest_hash(manifest);
        let images: BTreeSet<Measurement> = manifest.measurements.iter().cloned().collect();
        let mut boots = BTreeMap::new();
        for boot in &record.boots {
            let measurement = crate::admission::verify_boot(
                boot, &scope, manifest, &images, record.at,
            )
            .map_err(|error| StateError::Evidence {
                node: boot.node.clone(),
                reason: error.to_string(),
            })?;
            boots.insert(boot.node.clone(), BootState::of(boot, measurement, record.at));
        }
        let genesis = record.id();
        Ok(Self {
            version: crate::APPLY_VERSION,
            genesis,
            incarnation: Incarnation(0),
            manifest: manifest.clone(),
            boots,
            retired_boots: BTreeSet::new(),
            images,
            retired_images: BTreeSet::new(),
            time: record.at,
            tree: Frontier::new(),
            roots: VecDeque::new(),
            policy: None,
            charges: ChargeBook::new(window_slack(manifest)),
            confirmed: false,
            change_head: Hash32::new(*genesis.as_bytes()),
            changes: BTreeMap::new(),
            revoked: BTreeSet::new(),
            freezes: BTreeMap::new(),
            lifted: BTreeSet::new(),
            heard: record.at,
            keys: BTreeMap::new(),
            requests: BTreeMap::new(),
            forget: BTreeSet::new(),
            uses: BTreeMap::new(),
            children: Children::default(),
        })
    }

    /// The cluster.
    #[must_use]
    pub const fn genesis(&self) -> GenesisId {
        self.genesis
    }
    /// Its incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
    /// The manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// The ledger's time: never goes back.
    #[must_use]
    pub const fn time(&self) -> UnixMillis {
        self.time
    }
    /// How many entries were applied; the next entry's index.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }
    /// The root of the tree over all records so far.
    #[must_use]
    pub fn root(&self) -> Hash32 {
        self.tree.root()
    }
    /// What windows are lengthened by.
    #[must_use]
    pub const fn slack(&self) -> Millis {
        self.manifest.limits.slack()
    }
    /// The same, as the policy engine takes it.
    #[must_use]
    pub fn window_slack(&self) -> Slack {
        window_slack(&self.manifest)
    }
    /// Whether a freeze is in force.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        !self.freezes.is_empty()
    }
    /// The freezes in force, by id.
    #[must_use]
    pub const fn freezes(&self) -> &BTreeMap<Hash32, FreezeState> {
        &self.freezes
    }
    /// The policy in force and its hash.
    #[must_use]
    pub fn policy(&self) -> Option<(&Policy, Hash32)> {
        self.policy.as_ref().map(|p| (&p.policy, p.hash))
    }
    /// Every charge that is still remembered.
    #[must_use]
    pub const fn charges(&self) -> &ChargeBook {
        &self.charges
    }
    /// The id of the newest accepted change, which the next one must name.
    #[must_use]
    pub const fn change_head(&self) -> Hash32 {
        self.change_head
    }
    /// The changes that wait.
    #[must_use]
    pub const fn pending_changes(&self) -> &BTreeMap<Hash32, PendingChange> {
        &self.changes
    }
    /// The keys.
    #[must_use]
    pub const fn keys(&self) -> &BTreeMap<KeyName, KeyState> {
        &self.keys
    }
    /// What is remembered of a request.
    #[must_use]
    pub fn request(&self, credential: &CredentialId, id: &RequestId) -> Option<&RequestState> {
        self.requests.get(&(*credential, *id))
    }
    /// Whether a request's signature is known.
    #[must_use]
    pub fn is_signed(&self, credential: &CredentialId, id: &RequestId) -> bool {
        self.request(credential, id)
            .is_some_and(|r| matches!(r.status, RequestStatus::Signed { .. }))
    }
    /// A key's epoch, if it is live.
    #[must_use]
    pub fn key_epoch(&self, name: &KeyName) -> Option<u64> {
        self.keys.get(name)?.live.as_ref().map(|live| live.epoch)
    }
    /// A node's current boot.
    #[must_use]
    pub fn current_boot(&self, node: &NodeName) -> Option<BootId> {
        self.boots.get(node).map(|boot| boot.id)
    }
    /// The Ed25519 key of a node's current boot.
    #[must_use]
    pub fn current_boot_key(&self, node: &NodeName) -> Option<[u8; 32]> {
        self.boots.get(node).map(|boot| boot.key)
    }
    /// What is known of a node's current boot.
    #[must_use]
    pub fn boot(&self, node: &NodeName) -> Option<&BootState> {
        self.boots.get(node)
    }
    /// Whether a node's current boot holds a share of a key's current epoch.
    #[must_use]
    pub fn is_holder(&self, key: &KeyName, node: &NodeName) -> bool {
        let live = self.keys.get(key).and_then(|key| key.live.as_ref());
        let holder = live.and_then(|live| live.holders.get(node));
        holder.is_some_and(|holder| self.current_boot(node) == Some(*holder))
    }
    /// The version of `apply` that the next entry is applied with.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }
    /// Whether governance confirmed the genesis.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }
    /// The credentials that are never accepted again.
    #[must_use]
    pub const fn revoked(&self) -> &BTreeSet<CredentialId> {
        &self.revoked
    }
    /// The images whose boots are admitted.
    #[must_use]
    pub const fn images(&self) -> &BTreeSet<Measurement> {
        &self.images
    }
    /// The requests that wait for approvals or a delay.
    pub fn pending_requests(
        &self,
    ) -> impl Iterator<Item = (&CredentialId, &RequestId, &PendingRequest)> {
        self.requests.iter().filter_map(|((credential, id), request)| match &request.status {
            RequestStatus::Pending(pending) if pending.expires > self.time => {
                Some((credential, id, pending))
            }
            _ => None,
        })
    }
    /// Whether a boot is its node's current one.
    #[must_use]
    pub fn is_current(&self, boot: &BootId) -> bool {
        self.boots.values().any(|b| b.id == *boot)
    }

    pub(crate) fn note_root(&mut self) {
        if self.roots.len() >= KEPT_ROOTS {
            self.roots.pop_front();
        }
        self.roots.push_back((self.tree.size(), self.tree.root()));
    }

    /// The newest sizes and roots, oldest first, at most `most` of them.
    pub fn recent_roots(&self, most: usize) -> impl Iterator<Item = (u64, Hash32)> + '_ {
        self.roots.iter().skip(self.roots.len().saturating_sub(most)).copied()
    }
    /// Every node's current boot.
    #[must_use]
    pub fn current_boots(&self) -> BTreeMap<NodeName, BootId> {
        self.boots.iter().map(|(node, boot)| (node.clone(), boot.id)).collect()
    }
    /// From when on the ledger takes another boot of each node.
    #[must_use]
    pub fn admits_from(&self) -> BTreeMap<NodeName, UnixMillis> {
        let from = |boot: &BootState| crate::admission::admits_from(boot);
        self.boots.iter().map(|(node, boot)| (node.clone(), from(boot))).collect()
    }
    /// The boots that were current once and never will be again.
    #[must_use]
    pub const fn retired_boots(&self) -> &BTreeSet<BootId> {
        &self.retired_boots
    }

    pub(crate) fn root_at(&self, size: u64) -> Option<Hash32> {
        let at = self.roots.binary_search_by_key(&size, |(s, _)| *s).ok()?;
        self.roots.get(at).map(|(_, root)| *root)
    }
}

pub(crate) fn window_slack(manifest: &Manifest) -> Slack {
    if casemate_proto::sabotaged!("windows_without_slack") {
        return Slack::ZERO;
    }
    Slack::new(manifest.limits.tau, manifest.limits.delta)
}

impl BootState {
    pub(crate) fn of(boot: &BootRecord, measurement: Measurement, at: UnixMillis) -> Self {
        Self {
            id: boot.id(),
            key: boot.key,
            apply_version: boot.apply_version,
            measurement,
            admitted: at,
            paid_off: at,
        }
    }
}
