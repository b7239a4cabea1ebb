//! RFC 6962 Merkle tree hashing over SHA-256, and the verification of proofs (RFC 9162, sections
//! 2.1.3.2 and 2.1.4.2).
//!
//! A leaf is hashed with the prefix 0x00, an inner node with 0x01, so that neither can pass for
//! the other. The empty tree's root is SHA-256 of nothing.

use casemate_proto::Hash32;
use sha2::{Digest, Sha256};

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf would be outside the tree.
    #[error("leaf {index} is outside a tree of {size} leaves")]
    IndexOutside {
        /// The leaf's index.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The earlier tree is larger than the later one.
    #[error("a tree of {from} leaves cannot be the beginning of one of {to}")]
    SizesReversed {
        /// The earlier tree's size.
        from: u64,
        /// The later tree's size.
        to: u64,
    },
    /// Every tree extends the empty one, so a proof of that says nothing.
    #[error("the empty tree is the beginning of every tree: there is nothing to prove")]
    FromEmpty,
    /// Fewer or more hashes than a proof between these sizes has.
    #[error("the proof has {hashes} hashes, which does not fit the sizes")]
    WrongLength {
        /// How many it has.
        hashes: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to root {computed}, not to {expected}")]
    RootMismatch {
        /// Where it leads.
        computed: Hash32,
        /// Where it should.
        expected: Hash32,
    },
}

/// The hash of a leaf: SHA-256(0x00 ‖ leaf).
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(leaf);
    Hash32::new(hasher.finalize().into())
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    Hash32::new(hasher.finalize().into())
}

/// The root of the tree without leaves.
#[must_use]
pub fn empty_root() -> Hash32 {
    Hash32::new(Sha256::digest([]).into())
}

/// Checks that the leaf with hash `leaf` is number `index` of the tree with `size` leaves and
/// this root. The proof lists siblings from the leaf up.
///
/// # Errors
/// If it is not shown to be.
pub fn verify_inclusion(
    leaf: &Hash32,
    index: u64,
    size: u64,
    proof: &[Hash32],
    root: &Hash32,
) -> Result<(), ProofError> {
    let last = size
        .checked_sub(1)
        .filter(|&last| index <= last)
        .ok_or(ProofError::IndexOutside { index, size })?;
    let wrong_length = ProofError::WrongLength { hashes: proof.len() };
    let (mut node, mut edge) = (index, last);
    let mut computed = *leaf;
    for sibling in proof {
        if edge == 0 {
            return Err(wrong_length);
        }
        if is_odd(node) || node == edge {
            computed = node_hash(sibling, &computed);
            // at the right edge, levels where the node is the only child are passed over
            skip_lone_levels(&mut node, &mut edge);
        } else {
            computed = node_hash(&computed, sibling);
        }
        node >>= 1;
        edge >>= 1;
    }
    if edge != 0 {
        return Err(wrong_length);
    }
    expect_root(computed, root)
}

/// Checks that the tree of `from` leaves with root `from_root` is the beginning of the tree of
/// `to` leaves with root `to_root`.
///
/// # Errors
/// If it is not shown to be. A proof from the empty tree is refused, as it says nothing.
pub fn verify_consistency(
    from: u64,
    to: u64,
    proof: &[Hash32],
    from_root: &Hash32,
    to_root: &Hash32,
) -> Result<(), ProofError> {
    if from > to {
        return Err(ProofError::SizesReversed { from, to });
    }
    let (Some(mut node), Some(mut edge)) = (from.checked_sub(1), to.checked_sub(1)) else {
        return Err(ProofError::FromEmpty);
    };
    let wrong_length = ProofError::WrongLength { hashes: proof.len() };
    if from == to {
        return if proof.is_empty() { expect_root(*from_root, to_root) } else { Err(wrong_length) };
    }
    let (mut computed_from, rest) = match proof.split_first() {
        None => return Err(wrong_length),
        // a complete tree is itself the first node of the later one
        Some(_) if from.is_power_of_two() => (*from_root, proof),
        Some((first, rest)) => (*first, rest),
    };
    let mut computed_to = computed_from;
    while is_odd(node) {
        node >>= 1;
        edge >>= 1;
    }
    for sibling in rest {
        if edge == 0 {
            return Err(wrong_length);
        }
        if is_odd(node) || node == edge {
            computed_from = node_hash(sibling, &computed_from);
            computed_to = node_hash(sibling, &computed_to);
            skip_lone_levels(&mut node, &mut edge);
        } else {
            computed_to = node_hash(&computed_to, sibling);
        }
        node >>= 1;
        edge >>= 1;
    }
    if edge != 0 {
        return Err(wrong_length);
    }
    expect_root(computed_from, from_root)?;
    expect_root(computed_to, to_root)
}

const fn is_odd(number: u64) -> bool {
    number & 1 == 1
}

const fn skip_lone_levels(node: &mut u64, edge: &mut u64) {
    while !is_odd(*node) && *node != 0 {
        *node >>= 1;
        *edge >>= 1;
    }
}

fn expect_root(computed: Hash32, expected: &Hash32) -> Result<(), ProofError> {
    if computed == *expected {
        Ok(())
    } else {
        Err(ProofError::RootMismatch { computed, expected: *expected })
    }
}
