//! The tree against a naive model of RFC 6962, and proofs against others' probes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

use casemate_audit::merkle::{
    empty_root, leaf_hash, node_hash, verify_consistency, verify_inclusion,
};
use casemate_audit::tree::{self, Frontier, Tree, TreeError};
use casemate_proto::{Hash32, cbor};
use proptest::prelude::*;

/// RFC 6962, 2.1, word for word.
fn mth(leaves: &[Vec<u8>]) -> Hash32 {
    match leaves {
        [] => empty_root(),
        [one] => leaf_hash(one),
        _ => {
            let k = leaves.len().next_power_of_two() / 2;
            node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
        }
    }
}

/// RFC 6962, 2.1.1.
fn path(m: usize, leaves: &[Vec<u8>]) -> Vec<Hash32> {
    if leaves.len() == 1 {
        return vec![];
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (mut out, sibling) = if m < k {
        (path(m, &leaves[..k]), mth(&leaves[k..]))
    } else {
        (path(m - k, &leaves[k..]), mth(&leaves[..k]))
    };
    out.push(sibling);
    out
}

/// RFC 6962, 2.1.2.
fn subproof(m: usize, leaves: &[Vec<u8>], complete: bool) -> Vec<Hash32> {
    if m == leaves.len() {
        return if complete { vec![] } else { vec![mth(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (mut out, sibling) = if m <= k {
        (subproof(m, &leaves[..k], complete), mth(&leaves[k..]))
    } else {
        (subproof(m - k, &leaves[k..], false), mth(&leaves[..k]))
    };
    out.push(sibling);
    out
}

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("leaf {i}").into_bytes()).collect()
}

fn grown(leaves: &[Vec<u8>]) -> Tree {
    let mut tree = Tree::new();
    for (index, leaf) in leaves.iter().enumerate() {
        assert_eq!(tree.append(leaf_hash(leaf)), index as u64);
    }
    tree
}

#[test]
fn roots_of_every_size_match_the_model() {
    let leaves = leaves(300);
    let tree = grown(&leaves);
    let mut frontier = Frontier::new();
    assert_eq!(tree.root_at(0), Ok(empty_root()));
    for size in 1..=leaves.len() {
        frontier.append(leaf_hash(&leaves[size - 1]));
        let root = mth(&leaves[..size]);
        assert_eq!(tree.root_at(size as u64), Ok(root), "size {size}");
        assert_eq!(frontier.root(), root, "size {size}");
    }
    assert_eq!(tree.root(), mth(&leaves));
    assert!(matches!(tree.root_at(301), Err(TreeError::SizeOutside { size: 301, have: 300 })));
}

#[test]
fn proofs_of_every_pair_match_the_model_and_verify() {
    let leaves = leaves(70);
    let tree = grown(&leaves);
    for size in 1..=leaves.len() {
        let root = mth(&leaves[..size]);
        for index in 0..size {
            let proof = tree.inclusion_proof(index as u64, size as u64).unwrap();
            assert_eq!(proof, path(index, &leaves[..size]));
            let leaf = leaf_hash(&leaves[index]);
            verify_inclusion(&leaf, index as u64, size as u64, &proof, &root).unwrap();
        }
        for from in 1..=size {
            let proof = tree.consistency_proof(from as u64, size as u64).unwrap();
            assert_eq!(proof, subproof(from, &leaves[..size], true));
            let from_root = mth(&leaves[..from]);
            verify_consistency(from as u64, size as u64, &proof, &from_root, &root).unwrap();
        }
    }
}

#[test]
fn asking_outside_the_tree_is_refused() {
    let tree = grown(&leaves(5));
    assert!(matches!(tree.inclusion_proof(5, 5), Err(TreeError::IndexOutside { .. })));
    assert!(matches!(tree.inclusion_proof(0, 6), Err(TreeError::SizeOutside { .. })));
    assert!(matches!(tree.consistency_proof(5, 4), Err(TreeError::IndexOutside { .. })));
    assert!(matches!(tree.consistency_proof(5, 6), Err(TreeError::SizeOutside { .. })));
    assert!(matches!(
        tree::inclusion_proof(&tree, 0, 6),
        Err(TreeError::Missing { level: 1, index: 2 })
    ));
    assert_eq!(tree.consistency_proof(0, 5), Ok(vec![]));
}

#[test]
fn frontier_of_another_size_is_refused() {
    let hash = Hash32::new([7; 32]);
    assert!(Frontier::from_parts(3, vec![hash, hash]).is_ok());
    for (size, count) in [(3, 1), (3, 3), (0, 1), (4, 2), (1 << 49, 1)] {
        let refused = Frontier::from_parts(size, vec![hash; count]);
        assert!(matches!(refused, Err(TreeError::NotAFrontier { .. })), "{size} {count}");
    }
    let mut bytes = cbor::encode(&Frontier::from_parts(3, vec![hash, hash]).unwrap());
    assert!(cbor::decode::<Frontier>(&bytes, 4096).is_ok());
    bytes[1] = 4;
    assert!(cbor::decode::<Frontier>(&bytes, 4096).is_err());
}

proptest! {
    /// A restored or pruned tree proves everything at or behind its base, exactly as a full one.
    #[test]
    fn tree_with_a_base_proves_like_a_full_one(base in 0_usize..140, more in 0_usize..140, forget in 0_usize..300) {
        let leaves = leaves(base + more);
        let full = grown(&leaves);
        let snapshot = cbor::encode(grown(&leaves[..base]).frontier());
        let mut tree = Tree::from_frontier(cbor::decode(&snapshot, 4096).unwrap());
        for leaf in &leaves[base..] {
            tree.append(leaf_hash(leaf));
        }
        prop_assert_eq!(tree.root(), full.root());
        tree.forget_before(forget as u64);
        prop_assert_eq!(tree.base(), forget.min(leaves.len()).max(base) as u64);
        let size = leaves.len() as u64;
        for at in tree.base()..=size {
            prop_assert_eq!(tree.root_at(at), full.root_at(at));
            prop_assert_eq!(tree.consistency_proof(at, size), full.consistency_proof(at, size));
            if at < size {
                prop_assert_eq!(tree.inclusion_proof(at, at + 1), full.inclusion_proof(at, at + 1));
                prop_assert_eq!(tree.inclusion_proof(at, size), full.inclusion_proof(at, size));
            }
        }
        // and goes on growing
        let mut longer = leaves.clone();
        longer.push(b"one more".to_vec());
        tree.append(leaf_hash(b"one more"));
        prop_assert_eq!(tree.root(), mth(&longer));
    }

    #[test]
    fn forged_proof_is_refused(size in 2_usize..100, pick: prop::sample::Index, at: prop::sample::Index, bit in 0_usize..256) {
        let leaves = leaves(size);
        let tree = grown(&leaves);
        let index = pick.index(size);
        let leaf = leaf_hash(&leaves[index]);
        let mut proof = tree.inclusion_proof(index as u64, size as u64).unwrap();
        let at = at.index(proof.len());
        let mut bytes = *proof[at].as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        proof[at] = Hash32::new(bytes);
        prop_assert!(verify_inclusion(&leaf, index as u64, size as u64, &proof, &tree.root()).is_err());
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    leaf_idx: u64,
    #[serde(default)]
    tree_size: u64,
    #[serde(default)]
    size1: u64,
    #[serde(default)]
    size2: u64,
    #[serde(default)]
    root: Option<String>,
    #[serde(default)]
    root1: Option<String>,
    #[serde(default)]
    root2: Option<String>,
    #[serde(default)]
    leaf_hash: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

/// A value of another length than 32 cannot reach the verifier: a hash stands in for it, so that
/// the probe is judged by the verifier and not by the type.
fn hash_or_stand_in(role: &str, text: Option<&String>) -> Hash32 {
    use base64::Engine as _;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(text.map_or("", String::as_str)).unwrap();
    let stand_in = casemate_proto::hash::tagged_hash(role, &[&bytes]);
    <[u8; 32]>::try_from(bytes.as_slice()).map_or(stand_in, Hash32::new)
}

#[test]
fn probes_of_transparency_dev_all_give_the_expected_answer() {
    let text = include_str!("../../../tests/vectors/tlog/rfc6962_merkle_probes.json");
    let probes: std::collections::BTreeMap<String, Probe> = serde_json::from_str(text).unwrap();
    let (mut ran, mut good) = (0, 0);
    for (name, probe) in &probes {
        let proof: Vec<Hash32> =
            probe.proof.iter().flatten().map(|p| hash_or_stand_in("proof", Some(p))).collect();
        let result = if name.starts_with("consistency/") {
            let roots = (
                hash_or_stand_in("root", probe.root1.as_ref()),
                hash_or_stand_in("root", probe.root2.as_ref()),
            );
            verify_consistency(probe.size1, probe.size2, &proof, &roots.0, &roots.1)
        } else {
            assert!(name.starts_with("inclusion/"), "{name}");
            let root = hash_or_stand_in("root", probe.root.as_ref());
            let leaf = hash_or_stand_in("leaf", probe.leaf_hash.as_ref());
            verify_inclusion(&leaf, probe.leaf_idx, probe.tree_size, &proof, &root)
        };
        assert_eq!(result.is_err(), probe.want_err, "{name}: {result:?}");
        ran += 1;
        good += usize::from(!probe.want_err);
    }
    assert_eq!((ran, good), (196, 12));
}

#[test]
fn pinned_leaves_are_proved_wherever_the_base_moves() {
    let leaves = leaves(300);
    let full = grown(&leaves);
    for pins in [vec![0], vec![5, 6], vec![77, 128, 255], vec![0, 63, 64, 127, 200]] {
        let mut tree = Tree::new();
        for (index, leaf) in leaves.iter().enumerate() {
            tree.append(leaf_hash(leaf));
            if pins.contains(&index) {
                tree.pin(index as u64).unwrap();
            }
            // as a node that keeps few leaves
            tree.forget_before((index as u64).saturating_sub(3));
            let size = index + 1;
            for pin in pins.iter().filter(|pin| **pin < size) {
                let expected = full.inclusion_proof(*pin as u64, size as u64);
                assert!(expected.is_ok());
                assert_eq!(tree.inclusion_proof(*pin as u64, size as u64), expected);
            }
        }
    }
}

#[test]
fn leaf_that_is_let_go_or_was_never_pinned_is_not_proved() {
    let leaves = leaves(200);
    let mut tree = grown(&leaves);
    tree.pin(10).unwrap();
    tree.pin(90).unwrap();
    tree.forget_before(150);
    assert!(matches!(tree.pin(11), Err(TreeError::Missing { .. })));
    assert!(matches!(tree.pin(200), Err(TreeError::IndexOutside { .. })));
    assert!(tree.inclusion_proof(40, 200).is_err());
    tree.unpin(10);
    assert!(tree.inclusion_proof(10, 200).is_err());
    assert_eq!(tree.inclusion_proof(90, 200), Ok(path(90, &leaves)));
}

#[test]
fn leaf_from_before_a_snapshot_is_pinned_by_its_proof_alone() {
    let leaves = leaves(260);
    let full = grown(&leaves);
    for base in [1, 2, 3, 64, 77, 100, 128, 255] {
        for pin in [0, 1, 31, 63, 76, 99, 127] {
            if pin >= base {
                continue;
            }
            let whole = grown(&leaves[..base]);
            let mut tree = Tree::from_frontier(whole.frontier().clone());
            let proof = whole.inclusion_proof(pin as u64, base as u64).unwrap();
            let leaf = leaf_hash(&leaves[pin]);
            let other = leaf_hash(b"another");
            assert!(tree.pin_proved(&other, pin as u64, &proof).is_err());
            assert!(tree.pin_proved(&leaf, pin as u64 + 1, &proof).is_err() || base == 1);
            if let Some(cut) = proof.len().checked_sub(1) {
                assert!(tree.pin_proved(&leaf, pin as u64, &proof[..cut]).is_err());
            }
            tree.pin_proved(&leaf, pin as u64, &proof).unwrap();
            for size in base..=leaves.len() {
                if size > base {
                    tree.append(leaf_hash(&leaves[size - 1]));
                }
                tree.forget_before(size as u64 - 1);
                assert_eq!(
                    tree.inclusion_proof(pin as u64, size as u64),
                    full.inclusion_proof(pin as u64, size as u64),
                    "leaf {pin} of {size} from a base of {base}"
                );
            }
        }
    }
}
