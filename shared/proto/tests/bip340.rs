//! BIP-340's own vectors, and children of its keys.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use casemate_proto::bip340::{self, EVEN};
use casemate_proto::derive::{DeriveError, derive_bip340, derive_secp256k1};
use casemate_proto::{DerivationPath, Scheme};

const VECTORS: &str = include_str!("../../../tests/vectors/bitcoin/bip340_test_vectors.csv");

#[test]
fn the_bips_verdicts_are_ours() {
    let (mut valid, mut invalid, mut no_key) = (0, 0, 0);
    for line in VECTORS.lines().skip(1) {
        let fields: Vec<&str> = line.splitn(8, ',').collect();
        let unhex = |at: usize| hex::decode(fields[at]).unwrap();
        let x: [u8; 32] = unhex(2).try_into().unwrap();
        let message = unhex(4);
        let signature: [u8; 64] = unhex(5).try_into().unwrap();
        let expected = match fields[6] {
            "TRUE" => true,
            "FALSE" => false,
            other => panic!("{other}"),
        };
        assert_eq!(bip340::verify(&x, &message, &signature), expected, "{line}");
        let sec1 = [&[EVEN], x.as_slice()].concat();
        if fields[7].starts_with("public key") {
            assert_eq!(bip340::x_only(&sec1), None, "{line}");
            no_key += 1;
        } else {
            assert_eq!(bip340::x_only(&sec1), Some(x), "{line}");
        }
        *(if expected { &mut valid } else { &mut invalid }) += 1;
    }
    assert_eq!((valid, invalid, no_key), (9, 10, 2));
}

/// The x coordinate of vector 0, the key 3.
fn key() -> [u8; 33] {
    let x =
        hex::decode("f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9").unwrap();
    [&[EVEN], x.as_slice()].concat().try_into().unwrap()
}

#[test]
fn x_only_takes_even_points_of_the_curve_alone() {
    let x: [u8; 32] = key()[1..].try_into().unwrap();
    assert_eq!(bip340::x_only(&key()), Some(x));
    for first in [0, 1, 3, 4, 5] {
        let mut other = key();
        other[0] = first;
        assert_eq!(bip340::x_only(&other), None, "first byte {first}");
    }
    assert_eq!(bip340::x_only(&x), None, "32 bytes");
    assert_eq!(bip340::x_only(&[]), None);
    assert_eq!(bip340::x_only(&[key().as_slice(), &[0]].concat()), None);
}

#[test]
fn children_are_bip32s_made_even() {
    let mut odd = 0;
    for step in 0..20 {
        let path = DerivationPath::new(&[step, 7]).unwrap();
        let plain = derive_secp256k1(&key(), &[7; 32], &path).unwrap();
        let child = derive_bip340(&key(), &[7; 32], &path).unwrap();
        assert_eq!(child.public_key[0], EVEN);
        assert_eq!(child.public_key[1..], plain.public_key[1..]);
        assert_eq!(child.tweak, plain.tweak);
        assert_eq!(child.negated, plain.public_key[0] == 3);
        odd += usize::from(child.negated);
    }
    assert!((1..20).contains(&odd), "{odd}");
}

/// Computed by a program that shares no code with this one.
const PINNED_CHILD: &str = "d6ba4f1b7c8dec0c8b7ff77e2af20ddb63d5fef623763988f6970b86f273c2c6";

#[test]
fn the_child_of_a_two_step_path_is_pinned() {
    let path = DerivationPath::parse("m/0/7").unwrap();
    let child = derive_bip340(&key(), &[7; 32], &path).unwrap();
    assert_eq!(hex::encode(&child.public_key[1..]), PINNED_CHILD);
}

#[test]
fn the_root_path_is_the_key_itself() {
    let child = derive_bip340(&key(), &[7; 32], &DerivationPath::root()).unwrap();
    assert_eq!((child.public_key, child.tweak, child.negated), (key(), [0; 32], false));
}

#[test]
fn keys_that_are_no_even_point_have_no_children() {
    let mut odd = key();
    odd[0] = 3;
    // the x coordinate of vector 5 is on no point
    let x =
        hex::decode("eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34").unwrap();
    let off_curve: [u8; 33] = [&[EVEN], x.as_slice()].concat().try_into().unwrap();
    for bad in [odd, off_curve, [0; 33], [0xff; 33]] {
        for path in ["m", "m/0"] {
            let path = DerivationPath::parse(path).unwrap();
            assert_eq!(derive_bip340(&bad, &[7; 32], &path), Err(DeriveError::NotAKey));
        }
    }
}

#[test]
fn scheme_names_and_numbers_are_fixed() {
    let all: Vec<(&str, Vec<u8>)> =
        Scheme::ALL.iter().map(|s| (s.name(), casemate_proto::cbor::encode(s))).collect();
    assert_eq!(
        all,
        [("ecdsa-secp256k1", vec![0]), ("ed25519", vec![1]), ("bip340-secp256k1", vec![2])]
    );
    for scheme in Scheme::ALL {
        assert_eq!(Scheme::from_name(scheme.name()), Some(scheme));
    }
    assert_eq!(Scheme::from_name("bip340"), None);
}
