//! Children of a share that were worked out before.
//!
//! A child costs more than a signature with it, and a key mostly signs with a few of them. What is kept is
//! as secret as the share, lives no longer and zeroises itself as it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use casemate_proto::DerivationPath;

use super::{FrostShare, Suite, derive::derive_share};
use crate::error::RunError;

/// Most children kept of one share.
const MOST: usize = 64;

/// The child of a share depends on these and nothing else.
type Which = ([u8; 32], DerivationPath);

/// The children that are kept.
pub(super) struct Children<S: Suite>(Mutex<BTreeMap<Which, Arc<FrostShare<S>>>>);

impl<S: Suite> Default for Children<S> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<S: Suite> FrostShare<S> {
    /// The share of the child at `path`.
    ///
    /// # Errors
    /// If there is no such child.
    pub(super) fn child(
        &self,
        chain_code: &[u8; 32],
        path: &DerivationPath,
    ) -> Result<Arc<Self>, RunError> {
        let which = (*chain_code, path.clone());
        // what is in it is whole even if a thread ended while it held the lock
        let mut children = self.children.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = children.get(&which) {
            return Ok(Arc::clone(child));
        }
        let child = Arc::new(derive_share(self, chain_code, path)?);
        if children.len() >= MOST {
            children.pop_first();
        }
        children.insert(which, Arc::clone(&child));
        Ok(child)
    }
}

#[cfg(test)]
mod tests {
    use frost_core::keys::{IdentifierList, KeyPackage, generate_with_dealer};
    use frost_ed25519::Ed25519Sha512;
    use rand_core::OsRng;

    use super::*;

    fn share() -> FrostShare<Ed25519Sha512> {
        let (shares, public) =
            generate_with_dealer(3, 2, IdentifierList::Default, &mut OsRng).unwrap();
        let package = KeyPackage::try_from(shares.into_values().next().unwrap()).unwrap();
        FrostShare::new(package, public).unwrap()
    }

    fn kept(share: &FrostShare<Ed25519Sha512>) -> usize {
        share.children.0.lock().unwrap().len()
    }

    #[test]
    fn child_is_the_same_when_it_is_asked_for_again_and_another_by_path_and_chain_code() {
        let share = share();
        let path = |step| DerivationPath::new(&[step]).unwrap();
        let first = share.child(&[1; 32], &path(1)).unwrap();
        assert_eq!(
            first.verifying_key,
            derive_share(&share, &[1; 32], &path(1)).unwrap().verifying_key
        );
        assert!(Arc::ptr_eq(&first, &share.child(&[1; 32], &path(1)).unwrap()));
        for other in [share.child(&[1; 32], &path(2)), share.child(&[2; 32], &path(1))] {
            assert_ne!(first.verifying_key, other.unwrap().verifying_key);
        }
        assert_eq!(kept(&share), 3);
    }

    #[test]
    fn only_so_many_children_are_kept() {
        let share = share();
        for step in 0..70 {
            share.child(&[1; 32], &DerivationPath::new(&[step]).unwrap()).unwrap();
        }
        assert_eq!(kept(&share), MOST);
    }
}
