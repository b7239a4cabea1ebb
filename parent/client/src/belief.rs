//! What a client believes of the cluster: what at least t attested nodes say alike.
//!
//! Fewer than t enclaves are assumed to be broken, so among t that agree is one that is honest. It may
//! be behind: a host can show a client nodes that were cut off from the others, or boots that were
//! retired and do not know it. That makes a view old, never false, and no old view signs anything:
//! nothing is committed without a majority of current boots.
//!
//! From it follow whose cosignatures count under a receipt's checkpoint: one boot for each node,
//! each said to be current by t nodes.

use std::collections::BTreeMap;

use casemate_audit::{CheckpointPolicy, CosignerSet, Origin, VerifierKey};
use casemate_door::ClusterView;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{Manifest, Measurement};
use casemate_proto::{BootId, GenesisId, Incarnation, NodeName, UnixMillis};

use crate::error::ClientError;

/// A view with who gave it and when it came.
#[derive(Clone, Debug)]
pub struct GivenView {
    /// The attested node that gave it.
    pub node: NodeName,
    /// The view.
    pub view: ClusterView,
    /// When it was asked for, by this machine's clock.
    pub asked_at: UnixMillis,
    /// When it came, by this machine's clock.
    pub came_at: UnixMillis,
}

/// What at least t attested nodes say alike.
#[derive(Clone, Debug)]
pub struct Belief {
    genesis: GenesisId,
    threshold: usize,
    incarnation: Incarnation,
    cosigners: BTreeMap<NodeName, (BootId, VerifierKey)>,
    images: Vec<Measurement>,
    change_head: Option<Hash32>,
    policy: Option<Option<Hash32>>,
    /// The cluster's clock minus this machine's, in milliseconds.
    clock_offset: i64,
    made_at: UnixMillis,
    views: Vec<GivenView>,
}

/// The value that at least `t` of these give, each node once; of two, the one that more give.
fn agreed<T: Ord + Clone>(values: impl Iterator<Item = T>, t: usize) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        let count = counts.entry(value).or_default();
        *count = count.saturating_add(1);
    }
    let best = counts.into_iter().max_by_key(|(_, count)| *count)?;
    (best.1 >= t).then_some(best.0)
}

impl Belief {
    /// From the views of attested nodes, at most one of each node.
    ///
    /// # Errors
    /// If they are too few, or too few of them agree.
    pub(crate) fn of(
        genesis: GenesisId,
        manifest: &Manifest,
        views: Vec<GivenView>,
        made_at: UnixMillis,
    ) -> Result<Self, ClientError> {
        let threshold = usize::try_from(manifest.threshold).unwrap_or(usize::MAX);
        let disagree = |what| ClientError::Disagreement { what };
        let views: Vec<GivenView> = views
            .into_iter()
            .filter(|given| given.view.genesis == genesis && given.view.node == given.node)
            .collect();
        let said = || views.iter().map(|given| &given.view);
        let incarnation = agreed(said().map(|view| view.incarnation), threshold)
            .ok_or_else(|| disagree("the cluster's incarnation"))?;
        let origin = Origin { genesis, incarnation };
        let mut cosigners = BTreeMap::new();
        for node in manifest.nodes.iter().map(|node| &node.name) {
            let current = said().filter_map(|view| {
                view.boots.iter().find(|boot| boot.node == *node).map(|boot| (boot.boot, boot.key))
            });
            if let Some((boot, key)) = agreed(current, threshold)
                && let Ok(verifier) = origin.boot_key(&boot, &key)
            {
                cosigners.insert(node.clone(), (boot, verifier));
            }
        }
        if cosigners.len() < threshold {
            return Err(disagree("which boots are current"));
        }
        let mut counts: BTreeMap<&Measurement, usize> = BTreeMap::new();
        for view in said() {
            let mut images: Vec<&Measurement> = view.images.iter().collect();
            images.sort_unstable();
            images.dedup();
            for image in images {
                let count = counts.entry(image).or_default();
                *count = count.saturating_add(1);
            }
        }
        let images = counts
            .into_iter()
            .filter(|(_, count)| *count >= threshold)
            .map(|(image, _)| image.clone())
            .collect();
        Ok(Self {
            genesis,
            threshold,
            incarnation,
            cosigners,
            images,
            change_head: agreed(said().map(|view| view.change_head), threshold),
            policy: agreed(said().map(|view| view.policy), threshold),
            clock_offset: clock_offset(&views),
            made_at,
            views,
        })
    }

    /// The incarnation that stamps name.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
    /// The newest accepted change, which the next one names as its predecessor.
    #[must_use]
    pub const fn change_head(&self) -> Option<Hash32> {
        self.change_head
    }
    /// The policy in force: the outer `None` where too few agree, the inner where there is none.
    #[must_use]
    pub const fn policy(&self) -> Option<Option<Hash32>> {
        self.policy
    }
    /// The images accepted now.
    #[must_use]
    pub fn images(&self) -> &[Measurement] {
        &self.images
    }
    /// Current boots by node, as far as enough nodes agree.
    pub fn boots(&self) -> impl Iterator<Item = (&NodeName, BootId)> {
        self.cosigners.iter().map(|(node, (boot, _))| (node, *boot))
    }
    /// The cosigners' keys as auditors take them.
    pub fn cosigners(&self) -> impl Iterator<Item = &VerifierKey> {
        self.cosigners.values().map(|(_, key)| key)
    }
    /// What each node said.
    #[must_use]
    pub fn views(&self) -> &[GivenView] {
        &self.views
    }
    /// When it was made, by this machine's clock.
    pub(crate) const fn made_at(&self) -> UnixMillis {
        self.made_at
    }
    /// A time of this machine's clock by the cluster's.
    pub(crate) const fn cluster_time(&self, local: UnixMillis) -> UnixMillis {
        UnixMillis(local.0.saturating_add_signed(self.clock_offset))
    }

    /// What a receipt's checkpoint must show.
    ///
    /// # Errors
    /// If one key stands under two names, or there are too few.
    pub(crate) fn checkpoint_policy(&self) -> Result<CheckpointPolicy, ClientError> {
        let origin = Origin { genesis: self.genesis, incarnation: self.incarnation };
        let cosigners = CosignerSet::new(self.cosigners().cloned().collect(), self.threshold)
            .map_err(|_| ClientError::Disagreement { what: "which boots are current" })?;
        Ok(CheckpointPolicy { origin: origin.to_string(), log_key: None, cosigners })
    }
}

/// The middle one of the nodes' clocks minus this machine's. A broken enclave's clock is one among
/// them; and a wrong time makes stamps that are refused, or that a host may hold back for longer,
/// under a request id that signs one thing only.
fn clock_offset(views: &[GivenView]) -> i64 {
    let mut offsets: Vec<i64> = views
        .iter()
        .map(|given| {
            let half = given.came_at.0.saturating_sub(given.asked_at.0) / 2;
            let local = i64::try_from(given.asked_at.0.saturating_add(half)).unwrap_or(i64::MAX);
            i64::try_from(given.view.now.0).unwrap_or(i64::MAX).saturating_sub(local)
        })
        .collect();
    offsets.sort_unstable();
    // of an even number the lower one: stamps are better too early than too late
    let middle = offsets.len().saturating_sub(1) / 2;
    offsets.get(middle).copied().unwrap_or(0)
}
