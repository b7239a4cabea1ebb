//! What is sealed comes out in a recovery, and in nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod kit;

use casemate_proto::recovery::RecoveryGranted;
use casemate_proto::{Hash32, Incarnation, UnixMillis};
use casemate_recovery::{MAX_BLOB, PartSecret, Release, ReleaseError, SealedBlob};
use casemate_seal::{DataKey, OpenError, Opening, SealError, Sealing, open, seal};
use ed25519_dalek::Signer as _;
use kit::{AT, Boot, Kit, name, share};
use zeroize::Zeroizing;

/// Blobs of all three nodes, of two keys each, and the recovery that gives them to the new boots.
fn sealed() -> (Kit, [SealedBlob; 3], RecoveryGranted) {
    let mut kit = Kit::new();
    let blobs = [0, 1, 2].map(|node| {
        let fill = u8::try_from(node).unwrap();
        kit.seal(node, vec![share("hot", 4, 60 + fill, 300), share("cold", 0, fill, 33)])
    });
    let granted = kit.grant(kit.certificate(&[Some(&blobs[0]), Some(&blobs[1]), Some(&blobs[2])]));
    (kit, blobs, granted)
}

/// Signed anew by the boot that sealed it, as if that had made it so.
fn signed_again(kit: &Kit, node: usize, mut blob: SealedBlob) -> SealedBlob {
    let message = SealedBlob::signing_bytes(&blob.hash());
    blob.signature = kit.former[node].key.sign(&message).to_bytes();
    blob
}

/// A blob in the place of node `a`'s, with a certificate that names it and all governors' releases.
fn opened(kit: &mut Kit, blob: &SealedBlob) -> Result<usize, OpenError> {
    let other = [1, 2].map(|node| kit.seal(node, vec![share("hot", 4, 1, 40)]));
    let granted = kit.grant(kit.certificate(&[Some(blob), Some(&other[0]), Some(&other[1])]));
    let releases: Vec<Release> = (0..3)
        .filter_map(|governor| {
            let key = &kit.governors[governor].1;
            Release::make(&granted, &kit.genesis.manifest, blob, key, &mut kit.rng).ok()
        })
        .collect();
    kit.open(&granted, 0, blob, &releases).map(|shares| shares.len())
}

#[test]
fn shares_come_back_as_they_were_with_the_parts_of_any_quorum() {
    let (mut kit, blobs, granted) = sealed();
    for by in [vec![0, 1], vec![0, 2], vec![2, 1], vec![0, 1, 2]] {
        let releases = kit.releases(&granted, &blobs[1], &by);
        let decoded = SealedBlob::decode(&blobs[1].encode()).unwrap();
        let shares = kit.open(&granted, 1, &decoded, &releases).unwrap();
        let got: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let key = share.key().clone();
                (key.name.as_str().to_owned(), key.epoch, share.dangerous_secret().to_vec())
            })
            .collect();
        assert_eq!(
            got,
            [("cold".to_owned(), 0, vec![1; 33]), ("hot".to_owned(), 4, vec![61; 300])]
        );
    }
}

#[test]
fn a_node_without_keys_seals_none_and_opens_none() {
    let mut kit = Kit::new();
    let blob = kit.seal(0, Vec::new());
    assert_eq!(opened(&mut kit, &blob), Ok(0));
}

#[test]
fn i1_a_blob_shows_no_byte_of_a_share_and_no_two_are_alike() {
    let (mut kit, blobs, _) = sealed();
    let bytes = blobs[0].encode();
    assert!(!bytes.windows(16).any(|window| window == [60; 16]));
    let again = kit.seal(0, vec![share("hot", 4, 60, 300), share("cold", 0, 0, 33)]);
    assert_ne!(again.ciphertext, blobs[0].ciphertext);
    assert_ne!(again.commitments, blobs[0].commitments);
    assert_ne!(again.header.salt, blobs[0].header.salt);
}

#[test]
fn i1_nothing_of_a_share_a_part_or_a_key_is_printed() {
    let (mut kit, blobs, granted) = sealed();
    let sealable = format!("{:?}", share("hot", 4, 60, 300));
    assert!(sealable.contains("secret: \"<redacted>\"") && !sealable.contains("60, 60"));
    let releases = kit.releases(&granted, &blobs[0], &[0, 1]);
    let opened = format!("{:?}", kit.open(&granted, 0, &blobs[0], &releases).unwrap());
    assert!(opened.contains("secret: \"<redacted>\"") && !opened.contains("60, 60"));
    assert_eq!(format!("{:?}", PartSecret::new(Zeroizing::new([1; 32]))), "PartSecret(<redacted>)");
    let key = format!("{:?}", kit.governors[0].1);
    assert!(key.ends_with("<redacted>)") && !key.contains(&"c8".repeat(4)), "{key}");
    let data = DataKey { plain: Zeroizing::new([77; 32]), encrypted: vec![1] };
    assert!(!format!("{data:?}").contains("77"));
}

#[test]
fn one_part_fewer_than_the_quorum_opens_nothing() {
    let (mut kit, blobs, granted) = sealed();
    for by in [vec![], vec![1], vec![2, 2, 2]] {
        let releases = kit.releases(&granted, &blobs[0], &by);
        assert!(matches!(
            kit.open(&granted, 0, &blobs[0], &releases),
            Err(OpenError::TooFewParts { need: 2, .. })
        ));
    }
}

#[test]
fn a_wrong_part_is_left_out_and_its_governor_is_named() {
    let (mut kit, blobs, granted) = sealed();
    let mut releases = kit.releases(&granted, &blobs[0], &[0, 1, 2]);
    releases[1].part.ciphertext[3] ^= 1;
    assert!(kit.open(&granted, 0, &blobs[0], &releases).is_ok());
    assert_eq!(
        kit.open(&granted, 0, &blobs[0], &releases[..2]).unwrap_err(),
        OpenError::TooFewParts { have: 1, need: 2, bad: vec![1] }
    );
}

#[test]
fn a_governor_who_releases_anothers_number_or_a_made_up_part_is_found_out() {
    let (mut kit, blobs, granted) = sealed();
    let mut releases = kit.releases(&granted, &blobs[0], &[0, 1]);
    // encrypted to the right boot, bound to everything, and not what was sealed: as a governor who
    // made up its part would send it
    let made_up = {
        let mut forged = blobs[0].clone();
        let (key, part) = (kit.governors[1].1.public(), PartSecret::new(Zeroizing::new([3; 32])));
        forged.parts[1] = forged.header.encrypt_part(1, &key, &part, &mut kit.rng).unwrap();
        forged
    };
    let other = kit.grant(kit.certificate(&[Some(&made_up), Some(&blobs[1]), Some(&blobs[2])]));
    let forged = kit.releases(&other, &made_up, &[1]).remove(0);
    releases[1] = Release { certificate: granted.id(), blob: blobs[0].hash(), ..forged };
    assert!(matches!(
        kit.open(&granted, 0, &blobs[0], &releases),
        Err(OpenError::TooFewParts { have: 1, bad, .. }) if bad == [1]
    ));
    releases[1].governor = 200;
    assert!(kit.open(&granted, 0, &blobs[0], &releases).is_err());
}

#[test]
fn i7_a_twin_of_the_same_image_opens_nothing() {
    let (mut kit, blobs, granted) = sealed();
    let releases = kit.releases(&granted, &blobs[0], &[0, 1, 2]);
    let twin = Boot::new(&name("a"), 90);
    let opening = Opening { key: &twin.recovery, ..kit.opening(&granted, 0) };
    assert_eq!(open(&opening, &blobs[0], &releases).unwrap_err(), OpenError::OtherKey);
}

#[test]
fn i7_releases_serve_one_recovery_one_blob_and_one_boot() {
    let (mut kit, blobs, granted) = sealed();
    let wanted = kit.releases(&granted, &blobs[0], &[0, 1]);
    // of another recovery of the same boots
    let mut certificate = granted.certificate().clone();
    certificate.expires = UnixMillis(certificate.expires.0 + 1);
    let later = kit.grant(certificate);
    let of_later = kit.releases(&later, &blobs[0], &[0, 1]);
    let of_another_node = kit.releases(&granted, &blobs[1], &[0, 1]);
    for wrong in [&of_later, &of_another_node] {
        assert!(matches!(
            kit.open(&granted, 0, &blobs[0], wrong),
            Err(OpenError::TooFewParts { have: 0, .. })
        ));
        // and not where what they say of themselves is changed to fit
        let dressed: Vec<Release> = wrong
            .iter()
            .zip(&wanted)
            .map(|(wrong, right)| Release { part: wrong.part.clone(), ..right.clone() })
            .collect();
        assert!(matches!(
            kit.open(&granted, 0, &blobs[0], &dressed),
            Err(OpenError::TooFewParts { have: 0, .. })
        ));
    }
}

#[test]
fn i6_an_older_blob_than_the_certificate_names_opens_nothing_and_is_not_released() {
    let (mut kit, blobs, granted) = sealed();
    let old = kit.seal(0, vec![share("hot", 3, 9, 300)]);
    let releases = kit.releases(&granted, &blobs[0], &[0, 1]);
    let named = |error: &ReleaseError| matches!(error, ReleaseError::OtherBlob { .. });
    let error = kit.open(&granted, 0, &old, &releases).unwrap_err();
    assert!(matches!(error, OpenError::NotGranted(error) if named(&error)));
    let key = &kit.governors[0].1;
    let refused = Release::make(&granted, &kit.genesis.manifest, &old, key, &mut kit.rng);
    assert!(named(&refused.unwrap_err()));
}

#[test]
fn i6_a_blob_of_another_incarnation_or_cluster_is_not_opened_whatever_names_it() {
    for field in ["incarnation", "cluster", "version", "node"] {
        let mut kit = Kit::new();
        let mut blob = kit.seal(0, vec![share("hot", 4, 60, 300)]);
        match field {
            "incarnation" => blob.header.incarnation = Incarnation(1),
            "cluster" => blob.header.genesis = casemate_proto::GenesisId::new([1; 32]),
            "version" => blob.header.version = 2,
            _ => blob.header.node = name("nowhere"),
        }
        let blob = signed_again(&kit, 0, blob);
        assert_eq!(
            opened(&mut kit, &blob),
            Err(OpenError::NotGranted(ReleaseError::OtherHeader { field }))
        );
    }
}

#[test]
fn i6_a_blob_of_a_boot_that_is_not_the_nodes_last_is_not_opened() {
    let (mut kit, blobs, granted) = sealed();
    let releases = kit.releases(&granted, &blobs[0], &[0, 1]);
    let successor = Boot::new(&name("a"), 99);
    let opening = Opening {
        former: successor.id(),
        former_key: successor.record.key,
        ..kit.opening(&granted, 0)
    };
    assert!(matches!(open(&opening, &blobs[0], &releases), Err(OpenError::OtherSealer { .. })));
}

#[test]
fn a_blob_of_somebody_elses_making_is_not_opened_even_where_a_certificate_names_it() {
    // whoever can write to the store can seal shares of its own choice: everything it needs is public
    let mut kit = Kit::new();
    let forger = Boot::new(&name("a"), 120);
    let sealing = Sealing {
        manifest: &kit.genesis.manifest,
        genesis: kit.genesis.id(),
        incarnation: Incarnation(0),
        node: &name("a"),
        boot: kit.former[0].id(),
        number: 4,
        size: 40,
        root: Hash32::new([5; 32]),
        data_key: None,
    };
    let sign = |message: &[u8]| Some(forger.key.sign(message).to_bytes());
    let blob = seal(sealing, vec![share("hot", 4, 66, 300)], &sign, &mut kit.rng).unwrap();
    assert_eq!(opened(&mut kit, &blob), Err(OpenError::Unsigned));
}

#[test]
fn a_blob_shared_otherwise_than_the_manifest_says_is_not_opened() {
    let mut kit = Kit::new();
    let whole = kit.seal(0, vec![share("hot", 4, 60, 300)]);
    let mut fewer = whole.clone();
    fewer.commitments.truncate(1);
    let mut short = whole.clone();
    short.parts.truncate(2);
    for blob in [fewer, short] {
        let blob = signed_again(&kit, 0, blob);
        assert!(matches!(opened(&mut kit, &blob), Err(OpenError::Sharing { .. })));
    }
}

#[test]
fn every_changed_part_of_a_blob_is_noticed() {
    let mut kit = Kit::new();
    let blob = kit.seal(0, vec![share("hot", 4, 60, 300)]);
    let changes: [fn(&mut SealedBlob); 8] = [
        |b| b.ciphertext[7] ^= 1,
        |b| b.ciphertext.truncate(b.ciphertext.len() - 1),
        |b| b.header.size += 1,
        |b| b.header.number += 1,
        |b| b.header.keys[0].epoch += 1,
        |b| b.header.salt[0] ^= 1,
        |b| b.commitments.swap(0, 1),
        |b| b.parts.swap(0, 1),
    ];
    for change in changes {
        let mut changed = blob.clone();
        change(&mut changed);
        // by the host: the signature does not fit
        assert_eq!(opened(&mut kit, &changed), Err(OpenError::Unsigned));
        // and not even with the signature made again does it open
        let changed = signed_again(&kit, 0, changed);
        assert!(matches!(
            opened(&mut kit, &changed),
            Err(OpenError::Damaged | OpenError::TooFewParts { .. })
        ));
    }
}

#[test]
fn a_data_key_is_needed_where_one_was_used_and_only_there() {
    let mut kit = Kit::new();
    let plain = Zeroizing::new([33; 32]);
    let data_key = DataKey { plain: plain.clone(), encrypted: b"as KMS gave it".to_vec() };
    let blob = kit.seal_with(0, vec![share("hot", 4, 60, 300)], Some(data_key));
    let without = kit.seal(1, vec![share("hot", 4, 61, 300)]);
    let granted = kit.grant(kit.certificate(&[Some(&blob), Some(&without), None]));
    let releases = kit.releases(&granted, &blob, &[0, 1]);
    let with = |key: Option<&Zeroizing<[u8; 32]>>| {
        let opening = Opening { data_key: key, ..kit.opening(&granted, 0) };
        open(&opening, &blob, &releases).map(|shares| shares.len())
    };
    assert_eq!(with(Some(&plain)), Ok(1));
    assert_eq!(with(Some(&Zeroizing::new([34; 32]))), Err(OpenError::Damaged));
    assert_eq!(with(None), Err(OpenError::DataKey { needed: true }));
    let releases = kit.releases(&granted, &without, &[0, 1]);
    let opening = Opening { data_key: Some(&plain), ..kit.opening(&granted, 1) };
    assert_eq!(
        open(&opening, &without, &releases).unwrap_err(),
        OpenError::DataKey { needed: false }
    );
}

#[test]
fn a_stranger_to_the_manifest_releases_nothing() {
    let (mut kit, blobs, granted) = sealed();
    let stranger = Boot::new(&name("a"), 130).recovery;
    let manifest = &kit.genesis.manifest;
    assert_eq!(
        Release::make(&granted, manifest, &blobs[0], &stranger, &mut kit.rng).unwrap_err(),
        ReleaseError::NotAGovernor
    );
}

#[test]
fn a_cluster_without_recovery_keys_and_shares_beyond_the_cap_are_not_sealed() {
    let mut kit = Kit::new();
    let mut bare = kit.genesis.manifest.clone();
    bare.recovery = None;
    let refuse = |_: &[u8]| -> Option<[u8; 64]> { panic!("nothing to sign") };
    let mut attempt = |manifest: &casemate_proto::manifest::Manifest, shares| {
        let sealing = Sealing {
            manifest,
            genesis: kit.genesis.id(),
            incarnation: Incarnation(0),
            node: &name("a"),
            boot: kit.former[0].id(),
            number: 0,
            size: 1,
            root: Hash32::new([5; 32]),
            data_key: None,
        };
        seal(sealing, shares, &refuse, &mut kit.rng).unwrap_err()
    };
    assert!(matches!(
        attempt(&bare, vec![share("hot", 0, 1, 10)]),
        SealError::Quorum { governors: 0, .. }
    ));
    let manifest = Kit::new().genesis.manifest;
    assert!(matches!(
        attempt(&manifest, vec![share("hot", 0, 1, MAX_BLOB)]),
        SealError::TooLarge { .. }
    ));
    assert!(matches!(
        attempt(&manifest, vec![share("hot", 0, 1, 10), share("hot", 0, 1, 10)]),
        SealError::Twice { .. }
    ));
}

#[test]
fn larger_quorums_share_and_open() {
    let mut kit = Kit::of(17, 32);
    let blobs = [0, 1].map(|node| kit.seal(node, vec![share("hot", 4, 60, 300)]));
    let granted = kit.grant(kit.certificate(&[Some(&blobs[0]), Some(&blobs[1]), None]));
    let by: Vec<usize> = (15..32).collect();
    let releases = kit.releases(&granted, &blobs[0], &by);
    assert_eq!(kit.open(&granted, 0, &blobs[0], &releases).unwrap().len(), 1);
    assert!(kit.open(&granted, 0, &blobs[0], &releases[1..]).is_err());
    assert!(granted.certificate().expires > AT);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_of_any_size_come_back(sizes in proptest::collection::vec(0_usize..2000, 0..8)) {
            let mut kit = Kit::new();
            let shares = sizes
                .iter()
                .enumerate()
                .map(|(at, size)| share(&format!("k{at}"), 1, u8::try_from(at).unwrap(), *size))
                .collect();
            let blob = kit.seal(0, shares);
            let other = kit.seal(1, Vec::new());
            let granted = kit.grant(kit.certificate(&[Some(&blob), Some(&other), None]));
            let releases = kit.releases(&granted, &blob, &[1, 2]);
            let got: Vec<usize> = kit
                .open(&granted, 0, &blob, &releases)
                .unwrap()
                .into_iter()
                .map(|share| share.dangerous_secret().len())
                .collect();
            prop_assert_eq!(got, sizes);
        }

        #[test]
        fn no_flipped_bit_of_a_file_opens(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let (mut kit, blobs, granted) = sealed();
            let releases = kit.releases(&granted, &blobs[0], &[0, 1, 2]);
            let mut bytes = blobs[0].encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(blob) = SealedBlob::decode(&bytes) {
                prop_assert!(kit.open(&granted, 0, &blob, &releases).is_err());
            }
        }

        #[test]
        fn no_flipped_bit_of_a_release_counts(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let (mut kit, blobs, granted) = sealed();
            let releases = kit.releases(&granted, &blobs[0], &[0, 1]);
            let mut bytes = casemate_proto::cbor::encode(&releases[0]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(release) = Release::decode(&bytes) {
                let given = [release, releases[1].clone()];
                prop_assert!(kit.open(&granted, 0, &blobs[0], &given).is_err());
            }
        }
    }
}
