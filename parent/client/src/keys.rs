//! The cluster's keys, and how a client comes to know one (I13).
//!
//! A key is believed if the record that made it live is shown to be in the log, or, where a node no
//! longer has that record at hand, if at least t attested nodes show the same key. Once believed it is
//! pinned for the client's life: a key never changes, so whoever shows another one lies. Children
//! are derived here, never taken from an answer.

use std::collections::BTreeMap;

use casemate_audit::CheckpointPolicy;
use casemate_door::KeyView;
use casemate_door::query::LiveKeyView;
use casemate_ledger::payload::{self, ChildKey};
use casemate_ledger::state::LiveKey;
use casemate_ledger::{EntryBody, Verdict};
use casemate_proto::{Denial, DerivationPath, Hash32, KeyName, NodeName, Scheme};
use casemate_tx::EvmAddress;

use crate::error::ClientError;
use crate::fault::{KeyFault, NodeFault};
use crate::request::{ProofFault, proven};

/// A key that is believed. Made by this crate only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKey {
    name: KeyName,
    scheme: Scheme,
    live: LiveKey,
    without_share: Vec<NodeName>,
}

impl PinnedKey {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }
    /// Its scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// 33 bytes SEC 1 or 32 bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.live.public_key
    }
    /// For derivation.
    #[must_use]
    pub const fn chain_code(&self) -> &[u8; 32] {
        &self.live.chain_code
    }
    /// The epoch of its shares when it was last seen.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.live.epoch
    }
    /// The nodes that were last seen to hold no share of it, as a node says.
    #[must_use]
    pub fn without_share(&self) -> &[NodeName] {
        &self.without_share
    }
    /// Its EVM address, for secp256k1.
    #[must_use]
    pub fn address(&self) -> Option<EvmAddress> {
        self.child(&DerivationPath::root()).ok().and_then(|key| key.address)
    }
    /// The child at a path, derived here.
    ///
    /// # Errors
    /// In the negligible case that no key exists there.
    pub fn child(&self, path: &DerivationPath) -> Result<ChildKey, Denial> {
        payload::child(self.scheme, &self.live, path)
    }

    /// What never changes of it.
    fn identity(&self) -> (Scheme, &[u8], &[u8; 32]) {
        (self.scheme, &self.live.public_key, &self.live.chain_code)
    }
}

/// A key as the cluster shows it, live or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Believed.
    Live(PinnedKey),
    /// Being generated, as a node says.
    Generating {
        /// Its name.
        name: KeyName,
        /// Its scheme.
        scheme: Scheme,
    },
    /// Shown by fewer than t nodes, with no proof. Not to be paid to.
    Unproven {
        /// Its name.
        name: KeyName,
    },
}

impl KeyState {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        match self {
            Self::Live(key) => key.name(),
            Self::Generating { name, .. } | Self::Unproven { name } => name,
        }
    }
}

/// What one node showed, its proofs checked.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) node: NodeName,
    pub(crate) keys: Vec<(KeyView, bool)>,
}

/// Checks the proofs in one node's list. A proof that is there and does not hold refuses the whole.
pub(crate) fn check(
    node: &NodeName,
    keys: Vec<KeyView>,
    policy: &CheckpointPolicy,
) -> Result<Shown, NodeFault> {
    let mut names = std::collections::BTreeSet::new();
    if let Some(again) = keys.iter().find(|view| !names.insert(view.name.clone())) {
        // one node counts once for each key
        let (name, fault) = (again.name.clone(), KeyFault::Twice);
        return Err(NodeFault::Key { name, fault });
    }
    let keys = keys
        .into_iter()
        .map(|view| {
            let fault = |fault| NodeFault::Key { name: view.name.clone(), fault };
            let Some(live) = &view.live else { return Ok((view, false)) };
            let key = pinned(&view, live);
            // a point that is none would be found only when somebody derives from it
            key.child(&DerivationPath::root()).map_err(|_| fault(KeyFault::NotAKey))?;
            let proven = match &live.receipt {
                None => false,
                Some(receipt) => {
                    let record = proven(receipt, policy).map_err(|error| match error {
                        ProofFault::Receipt(error) => fault(KeyFault::Proof(error)),
                        ProofFault::Other(_) => fault(KeyFault::OtherRecord),
                    })?;
                    let EntryBody::KeyLive(entry) = &record.body else {
                        return Err(fault(KeyFault::OtherRecord));
                    };
                    let same = entry.name == view.name
                        && entry.scheme == view.scheme
                        && entry.public_key == live.public_key
                        && entry.chain_code == live.chain_code;
                    if !same || !matches!(record.verdict, Verdict::Accepted { .. }) {
                        return Err(fault(KeyFault::OtherRecord));
                    }
                    true
                }
            };
            Ok((view, proven))
        })
        .collect::<Result<_, NodeFault>>()?;
    Ok(Shown { node: node.clone(), keys })
}

fn pinned(view: &KeyView, live: &LiveKeyView) -> PinnedKey {
    PinnedKey {
        name: view.name.clone(),
        scheme: view.scheme,
        live: LiveKey {
            public_key: live.public_key.clone(),
            chain_code: live.chain_code,
            epoch: live.epoch,
            index: live.index,
            // which boots hold shares, of which run and since when, is for the enclaves
            holders: BTreeMap::new(),
            is_fresh: true,
            transcript: Hash32::new([0; 32]),
        },
        without_share: live.without_share.clone(),
    }
}

/// What follows from what several nodes showed, in the order of names.
pub(crate) fn conclude(
    shown: &[Shown],
    threshold: usize,
    known: &BTreeMap<KeyName, PinnedKey>,
) -> Result<Vec<KeyState>, ClientError> {
    let mut by_name: BTreeMap<&KeyName, Vec<&(KeyView, bool)>> = BTreeMap::new();
    for list in shown {
        for key in &list.keys {
            by_name.entry(&key.0.name).or_default().push(key);
        }
    }
    let mut out = Vec::new();
    for (name, views) in by_name {
        out.push(conclude_one(name, &views, threshold, known.get(name))?);
    }
    Ok(out)
}

fn conclude_one(
    name: &KeyName,
    views: &[&(KeyView, bool)],
    threshold: usize,
    known: Option<&PinnedKey>,
) -> Result<KeyState, ClientError> {
    // the newest epoch first: of one key, only its shares differ
    let mut candidates: Vec<(PinnedKey, bool)> = views
        .iter()
        .filter_map(|(view, proven)| Some((pinned(view, view.live.as_ref()?), *proven)))
        .collect();
    candidates.sort_by_key(|(key, _)| std::cmp::Reverse(key.live.epoch));
    if let Some(known) = known {
        if let Some((other, _)) =
            candidates.iter().find(|(key, _)| key.identity() != known.identity())
        {
            let hex = |key: &PinnedKey| format!("0x{}", hex::encode(key.public_key()));
            let (pinned, shown) = (hex(known), hex(other));
            return Err(ClientError::KeyChanged { name: name.clone(), pinned, shown });
        }
        let newest = candidates.into_iter().next().map_or_else(|| known.clone(), |(key, _)| key);
        return Ok(KeyState::Live(newest));
    }
    let believed = candidates.iter().find(|(key, proven)| {
        let same = candidates.iter().filter(|(other, _)| other.identity() == key.identity());
        *proven || same.count() >= threshold
    });
    Ok(match (believed, views.first()) {
        (Some((key, _)), _) => KeyState::Live(key.clone()),
        (None, Some((view, _))) if candidates.is_empty() => {
            KeyState::Generating { name: name.clone(), scheme: view.scheme }
        }
        _ => KeyState::Unproven { name: name.clone() },
    })
}
