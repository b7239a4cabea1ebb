//! Children of keys that were worked out before.
//!
//! Whose child a request names is asked when it is judged, when its signature is recorded and when it is
//! answered, and the checks of the parent alone cost more than a signature. A child follows from scheme, public key, chain code and
//! path and from nothing else, and all four are what it is kept by: what is kept is what would be worked
//! out again. It is no part of the state: no snapshot has it, and no verdict depends on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use casemate_proto::{Denial, DerivationPath, Scheme};

use crate::payload::{self, ChildKey};
use crate::state::{LiveKey, State};

/// Most children kept; the oldest go first. More than may be waiting for their signatures at one time.
const MOST: usize = 1_024;

type Which = (Scheme, Vec<u8>, [u8; 32], DerivationPath);

/// The children that are kept.
#[derive(Default)]
pub(crate) struct Children(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    children: BTreeMap<Which, ChildKey>,
    oldest: VecDeque<Which>,
}

impl core::fmt::Debug for Children {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Children").finish_non_exhaustive()
    }
}

impl Clone for Children {
    /// Begins without any.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Children {
    fn child(
        &self,
        scheme: Scheme,
        live: &LiveKey,
        path: &DerivationPath,
    ) -> Result<ChildKey, Denial> {
        let which = (scheme, live.public_key.clone(), live.chain_code, path.clone());
        // what is in it is whole even if a thread ended while it held the lock
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = kept.children.get(&which) {
            return Ok(child.clone());
        }
        let child = payload::child(scheme, live, path)?;
        if kept.oldest.len() >= MOST
            && let Some(oldest) = kept.oldest.pop_front()
        {
            kept.children.remove(&oldest);
        }
        kept.oldest.push_back(which.clone());
        kept.children.insert(which, child.clone());
        Ok(child)
    }
}

impl State {
    /// The child of a live key at a path, as [`payload::child`] gives it.
    ///
    /// # Errors
    /// As there.
    pub fn child(
        &self,
        scheme: Scheme,
        live: &LiveKey,
        path: &DerivationPath,
    ) -> Result<ChildKey, Denial> {
        self.children.child(scheme, live, path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use casemate_proto::Hash32;
    use ed25519_dalek::SigningKey;

    use super::*;

    fn live(secret: u8, chain_code: u8) -> LiveKey {
        LiveKey {
            public_key: SigningKey::from_bytes(&[secret; 32]).verifying_key().to_bytes().to_vec(),
            chain_code: [chain_code; 32],
            epoch: 0,
            index: 0,
            holders: BTreeMap::new(),
            is_fresh: true,
            transcript: Hash32::new([0; 32]),
        }
    }

    fn path(step: u32) -> DerivationPath {
        DerivationPath::new(&[step]).unwrap()
    }

    #[test]
    fn child_is_what_it_would_be_if_it_were_worked_out_again() {
        let children = Children::default();
        let mut seen = Vec::new();
        for _ in 0..2 {
            for (secret, chain_code, step) in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)] {
                let (live, path) = (live(secret, chain_code), path(step));
                let child = children.child(Scheme::Ed25519, &live, &path).unwrap();
                assert_eq!(child, payload::child(Scheme::Ed25519, &live, &path).unwrap());
                seen.push(child.public_key);
            }
        }
        let (first, again) = seen.split_at(4);
        assert_eq!(first, again);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn key_of_another_scheme_is_refused_although_its_bytes_are_kept() {
        let children = Children::default();
        let live = live(7, 0);
        children.child(Scheme::Ed25519, &live, &path(0)).unwrap();
        assert!(children.child(Scheme::EcdsaSecp256k1, &live, &path(0)).is_err());
        assert!(children.child(Scheme::Bip340Secp256k1, &live, &path(0)).is_err());
    }

    #[test]
    fn only_so_many_are_kept_and_the_oldest_go_first() {
        let children = Children::default();
        let (live, most) = (live(3, 3), u32::try_from(MOST).unwrap());
        for step in 0..=most {
            children.child(Scheme::Ed25519, &live, &path(step)).unwrap();
        }
        let kept = children.0.lock().unwrap();
        assert_eq!((kept.children.len(), kept.oldest.len()), (MOST, MOST));
        let paths: Vec<&DerivationPath> = kept.children.keys().map(|which| &which.3).collect();
        assert!(!paths.contains(&&path(0)) && paths.contains(&&path(most)));
    }
}
