//! Snapshots: the whole state as one canonical value, and back.
//!
//! A snapshot is only as good as whoever vouches for its hash; that question is replication's.
//! What is checked here is that it is canonical and does not contradict itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use casemate_audit::Frontier;
use casemate_policy::{ChargeBook, Policy};
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{Manifest, Measurement};
use casemate_proto::{BootId, CredentialId, GenesisId, Incarnation, KeyName, NodeName, UnixMillis};
use minicbor::{Decode, Encode};

use crate::state::{
    BootState, CredentialUse, FreezeState, InForce, KeyState, PendingChange, RequestKey,
    RequestState, State, StateError,
};

/// Most bytes of a snapshot.
pub const MAX_SNAPSHOT: usize = 1 << 30;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u64,
    #[n(1)]
    genesis: GenesisId,
    #[n(2)]
    incarnation: Incarnation,
    #[n(3)]
    manifest: Manifest,
    #[n(4)]
    boots: BTreeMap<NodeName, BootState>,
    #[n(5)]
    retired_boots: BTreeSet<BootId>,
    #[n(6)]
    images: BTreeSet<Measurement>,
    #[n(7)]
    retired_images: BTreeSet<Measurement>,
    #[n(8)]
    time: UnixMillis,
    #[n(9)]
    size: u64,
    #[n(10)]
    frontier: Vec<Hash32>,
    #[n(11)]
    roots: VecDeque<(u64, Hash32)>,
    #[cbor(n(12), with = "minicbor::bytes")]
    policy: Vec<u8>,
    #[cbor(n(13), with = "minicbor::bytes")]
    charges: Vec<u8>,
    #[n(14)]
    confirmed: bool,
    #[n(15)]
    change_head: Hash32,
    #[n(16)]
    changes: BTreeMap<Hash32, PendingChange>,
    #[n(17)]
    revoked: BTreeSet<CredentialId>,
    #[n(18)]
    freezes: BTreeMap<Hash32, FreezeState>,
    #[n(19)]
    lifted: BTreeSet<Hash32>,
    #[n(20)]
    heard: UnixMillis,
    #[n(21)]
    keys: BTreeMap<KeyName, KeyState>,
    #[n(22)]
    requests: BTreeMap<RequestKey, RequestState>,
    #[n(23)]
    uses: BTreeMap<CredentialId, CredentialUse>,
}

impl State {
    /// The state as bytes. Equal states give equal bytes.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        casemate_proto::cbor::encode(&Wire {
            version: self.version,
            genesis: self.genesis,
            incarnation: self.incarnation,
            manifest: self.manifest.clone(),
            boots: self.boots.clone(),
            retired_boots: self.retired_boots.clone(),
            images: self.images.clone(),
            retired_images: self.retired_images.clone(),
            time: self.time,
            size: self.tree.size(),
            frontier: self.tree.hashes().to_vec(),
            roots: self.roots.clone(),
            policy: self.policy.as_ref().map_or(Vec::new(), |p| p.policy.canonical_bytes()),
            charges: self.charges.to_snapshot(),
            confirmed: self.confirmed,
            change_head: self.change_head,
            changes: self.changes.clone(),
            revoked: self.revoked.clone(),
            freezes: self.freezes.clone(),
            lifted: self.lifted.clone(),
            heard: self.heard,
            keys: self.keys.clone(),
            requests: self.requests.clone(),
            uses: self.uses.clone(),
        })
    }

    /// The hash that names a snapshot.
    #[must_use]
    pub fn snapshot_hash(snapshot: &[u8]) -> Hash32 {
        tagged_hash("casemate/snapshot/v1", &[snapshot])
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// If it is not canonical or contradicts itself.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, StateError> {
        let wrong =
            |reason: &dyn core::fmt::Display| StateError::Snapshot { reason: reason.to_string() };
        let wire: Wire =
            casemate_proto::cbor::decode(bytes, MAX_SNAPSHOT).map_err(|error| wrong(&error))?;
        wire.manifest.check()?;
        let policy = if wire.policy.is_empty() {
            None
        } else {
            let policy = Policy::from_canonical(&wire.policy).map_err(|error| wrong(&error))?;
            let hash = policy.policy_hash();
            Some(InForce { policy, hash })
        };
        let charges = ChargeBook::from_snapshot(&wire.charges, MAX_SNAPSHOT)
            .map_err(|error| wrong(&error))?;
        let tree = Frontier::from_parts(wire.size, wire.frontier).map_err(|error| wrong(&error))?;
        let roster = wire.manifest.nodes.iter().map(|node| &node.name);
        if !roster.eq(wire.boots.keys()) {
            return Err(wrong(&"its boots are not the roster's"));
        }
        if wire.boots.values().any(|boot| wire.retired_boots.contains(&boot.id)) {
            return Err(wrong(&"a current boot is retired"));
        }
        if wire
            .roots
            .back()
            .is_some_and(|(size, root)| *size != tree.size() || *root != tree.root())
        {
            return Err(wrong(&"its newest root is not its tree's"));
        }
        let requests = match casemate_proto::sabotaged!("ids_forgotten_by_restart") {
            true => BTreeMap::new(),
            false => wire.requests,
        };
        let forget = requests.iter().map(|(key, r)| (r.forget_at, *key)).collect();
        Ok(Self {
            version: wire.version,
            genesis: wire.genesis,
            incarnation: wire.incarnation,
            manifest: wire.manifest,
            boots: wire.boots,
            retired_boots: wire.retired_boots,
            images: wire.images,
            retired_images: wire.retired_images,
            time: wire.time,
            tree,
            roots: wire.roots,
            policy,
            charges,
            confirmed: wire.confirmed,
            change_head: wire.change_head,
            changes: wire.changes,
            revoked: wire.revoked,
            freezes: wire.freezes,
            lifted: wire.lifted,
            heard: wire.heard,
            keys: wire.keys,
            requests,
            forget,
            uses: wire.uses,
            children: crate::children::Children::default(),
        })
    }
}
