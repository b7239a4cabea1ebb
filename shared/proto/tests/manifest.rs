//! Every refusal of a manifest and of a genesis, and what their ids are bound to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use casemate_proto::manifest::{
    GenesisRecord, Hardware, Independence, Limits, MAX_EVIDENCE, MAX_GENESIS, MAX_MANIFEST,
    MAX_NODES, Manifest, ManifestError,
};
use casemate_proto::webauthn::RelyingParty;
use casemate_proto::{Algorithm, Hash32, Millis, NodeName, PublicKey, UnixMillis, cbor};
use common::{Secret, genesis, manifest};

/// The field that is named when `change` has broken a manifest that was in order.
fn refused(change: impl FnOnce(&mut Manifest)) -> &'static str {
    let mut manifest = manifest();
    assert_eq!(manifest.check(), Ok(()));
    change(&mut manifest);
    match manifest.check() {
        Err(ManifestError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// What `change` makes of a manifest is still in order.
fn accepted(change: impl FnOnce(&mut Manifest)) {
    let mut manifest = manifest();
    change(&mut manifest);
    assert_eq!(manifest.check(), Ok(()));
}

fn passkey() -> PublicKey {
    PublicKey::new(Algorithm::WebauthnP256, Secret::new(20).public().as_bytes()).unwrap()
}

#[test]
fn another_version_is_refused() {
    assert_eq!(refused(|m| m.version = 0), "version");
    assert_eq!(refused(|m| m.version = 2), "version");
}

#[test]
fn a_long_name_is_refused() {
    accepted(|m| m.name = "a".repeat(100));
    assert_eq!(refused(|m| m.name = "a".repeat(101)), "name");
}

#[test]
fn a_threshold_below_two_is_refused() {
    assert_eq!(refused(|m| m.threshold = 0), "threshold");
    assert_eq!(refused(|m| m.threshold = 1), "threshold");
}

#[test]
fn a_threshold_of_all_nodes_or_more_is_refused() {
    assert_eq!(refused(|m| m.threshold = 3), "nodes");
    assert_eq!(refused(|m| m.threshold = 4), "nodes");
    assert_eq!(refused(|m| m.threshold = u64::MAX), "nodes");
}

#[test]
fn fewer_than_three_nodes_are_refused() {
    assert_eq!(refused(|m| m.nodes.truncate(2)), "nodes");
    assert_eq!(refused(|m| m.nodes.clear()), "nodes");
}

/// `count` nodes with different names, regions and roles.
fn roster(manifest: &mut Manifest, count: usize) {
    let node = manifest.nodes[0].clone();
    manifest.nodes = (0..count)
        .map(|number| {
            let mut node = node.clone();
            node.region = format!("region-{number:02}");
            node.name = NodeName::new(&node.region).unwrap();
            node.pcr3 = [u8::try_from(number).unwrap(); 48];
            node
        })
        .collect();
}

#[test]
fn too_many_nodes_are_refused() {
    accepted(|m| roster(m, MAX_NODES));
    assert_eq!(refused(|m| roster(m, MAX_NODES + 1)), "nodes");
}

#[test]
fn two_nodes_of_one_name_are_refused() {
    assert_eq!(refused(|m| m.nodes[1].name = m.nodes[0].name.clone()), "nodes");
}

#[test]
fn a_roster_out_of_order_is_refused() {
    assert_eq!(refused(|m| m.nodes.reverse()), "nodes");
}

#[test]
fn an_empty_or_long_region_is_refused() {
    assert_eq!(refused(|m| m.nodes[2].region.clear()), "nodes");
    assert_eq!(refused(|m| m.nodes[2].region = "r".repeat(33)), "nodes");
}

#[test]
fn two_nodes_in_one_region_are_refused_unless_no_independence_is_claimed() {
    let together = |m: &mut Manifest| m.nodes[1].region = m.nodes[0].region.clone();
    assert_eq!(refused(together), "nodes");
    accepted(|m| {
        together(m);
        m.independence = Independence::None;
    });
}

#[test]
fn two_nodes_with_one_role_are_refused_unless_no_independence_is_claimed() {
    let alike = |m: &mut Manifest| m.nodes[1].pcr3 = m.nodes[0].pcr3;
    assert_eq!(refused(alike), "nodes");
    accepted(|m| {
        alike(m);
        m.independence = Independence::None;
    });
}

#[test]
fn no_image_or_too_many_images_are_refused() {
    assert_eq!(refused(|m| m.measurements.clear()), "measurements");
    accepted(|m| m.measurements = vec![m.measurements[0].clone(); 16]);
    assert_eq!(refused(|m| m.measurements = vec![m.measurements[0].clone(); 17]), "measurements");
}

#[test]
fn a_debug_enclaves_measurement_is_refused() {
    assert_eq!(refused(|m| m.measurements[0].pcr0 = [0; 48]), "measurements");
    assert_eq!(refused(|m| m.measurements[0].pcr1 = [0; 48]), "measurements");
    assert_eq!(refused(|m| m.measurements[0].pcr2 = [0; 48]), "measurements");
}

#[test]
fn a_quorum_of_half_or_less_is_refused() {
    for quorum in [0, 1, 2] {
        assert_eq!(refused(|m| m.governance.quorum = quorum), "governance");
    }
    accepted(|m| m.governance.quorum = 5);
    assert_eq!(
        refused(|m| {
            m.governance.keys.truncate(4);
            m.governance.quorum = 2;
        }),
        "governance"
    );
}

#[test]
fn a_quorum_above_the_number_of_governors_is_refused() {
    assert_eq!(refused(|m| m.governance.quorum = 6), "governance");
    assert_eq!(refused(|m| m.governance.quorum = u64::MAX), "governance");
}

#[test]
fn no_governor_or_too_many_are_refused() {
    assert_eq!(refused(|m| m.governance.keys.clear()), "governance");
    let many = |count| (0..count).map(|n| Secret::new(n).public()).collect::<Vec<_>>();
    accepted(|m| {
        m.governance.keys = many(32);
        m.governance.quorum = 17;
    });
    assert_eq!(
        refused(|m| {
            m.governance.keys = many(33);
            m.governance.quorum = 17;
        }),
        "governance"
    );
}

#[test]
fn one_governor_twice_is_refused() {
    assert_eq!(refused(|m| m.governance.keys[1] = m.governance.keys[0].clone()), "governance");
}

#[test]
fn a_passkey_as_governor_or_freezer_is_refused() {
    assert_eq!(refused(|m| m.governance.keys[0] = passkey()), "governance");
    assert_eq!(refused(|m| m.freezers[0] = passkey()), "freezers");
}

#[test]
fn one_freezer_twice_or_too_many_are_refused() {
    assert_eq!(refused(|m| m.freezers[1] = m.freezers[0].clone()), "freezers");
    assert_eq!(
        refused(|m| m.freezers = (0..33).map(|n| Secret::new(n).public()).collect()),
        "freezers"
    );
}

#[test]
fn limits_out_of_bounds_are_refused() {
    let limits = |change: fn(&mut Limits)| refused(|m| change(&mut m.limits));
    assert_eq!(limits(|l| l.tau = Millis(0)), "limits");
    assert_eq!(limits(|l| l.tau = Millis(600_001)), "limits");
    assert_eq!(limits(|l| l.delta = Millis(60_001)), "limits");
    assert_eq!(limits(|l| l.max_requests = 0), "limits");
    assert_eq!(limits(|l| l.max_requests = 10_000_001), "limits");
}

#[test]
fn a_dead_mans_time_without_freezers_is_refused() {
    accepted(|m| m.limits.dead_man = Some(Millis(1)));
    assert_eq!(
        refused(|m| {
            m.limits.dead_man = Some(Millis(1));
            m.freezers.clear();
        }),
        "limits"
    );
}

#[test]
fn a_relying_party_whose_origin_is_elsewhere_is_refused() {
    let party = |id: &str, origin: &str| {
        Some(RelyingParty { id: id.to_owned(), origin: origin.to_owned() })
    };
    accepted(|m| m.relying_party = party("example.org", "https://approve.example.org"));
    assert_eq!(
        refused(|m| m.relying_party = party("example.org", "https://example.com")),
        "relying_party"
    );
}

#[test]
fn windows_are_lengthened_by_tau_and_twice_delta() {
    let limits = Limits { tau: Millis(30_000), delta: Millis(2_000), ..Limits::default() };
    assert_eq!(limits.slack(), Millis(34_000));
}

#[test]
fn nodes_governors_and_freezers_are_found_by_name_and_id_only() {
    let manifest = manifest();
    let name = |text| NodeName::new(text).unwrap();
    assert_eq!(manifest.node(&name("eu-west-1")).unwrap().pcr3, [2; 48]);
    assert_eq!(manifest.node(&name("eu-west-2")), None);
    let (governor, freezer) = (Secret::new(0), Secret::new(10));
    assert_eq!(manifest.governor(&governor.id()), Some(&governor.public()));
    assert_eq!(manifest.freezer(&freezer.id()), Some(&freezer.public()));
    assert_eq!(manifest.governor(&freezer.id()), None);
    assert_eq!(manifest.freezer(&governor.id()), None);
}

/// Why a genesis is refused that was in order before `change`.
fn refused_genesis(change: impl FnOnce(&mut GenesisRecord)) -> String {
    let mut genesis = genesis();
    assert_eq!(genesis.check(), Ok(()));
    change(&mut genesis);
    match genesis.check() {
        Err(ManifestError::Boots { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_genesis_with_a_bad_manifest_is_refused() {
    let mut genesis = genesis();
    genesis.manifest.threshold = 1;
    assert!(matches!(genesis.check(), Err(ManifestError::Field { field: "threshold", .. })));
}

#[test]
fn i7_a_genesis_without_exactly_one_boot_for_each_node_is_refused() {
    assert!(refused_genesis(|g| drop(g.boots.pop())).contains("exactly the roster"));
    assert!(refused_genesis(|g| g.boots.clear()).contains("exactly the roster"));
    assert!(refused_genesis(|g| g.boots.swap(0, 1)).contains("exactly the roster"));
    assert!(refused_genesis(|g| g.boots.push(g.boots[0].clone())).contains("exactly the roster"));
    let twin = refused_genesis(|g| g.boots[1].node = g.boots[0].node.clone());
    assert!(twin.contains("exactly the roster"));
}

#[test]
fn i7_two_boots_with_one_key_or_nonce_are_refused() {
    assert!(refused_genesis(|g| g.boots[1].key = g.boots[0].key).contains("share"));
    assert!(refused_genesis(|g| g.boots[1].nonce = g.boots[0].nonce).contains("share"));
}

#[test]
fn two_boots_with_one_channel_key_are_refused() {
    let channel = refused_genesis(|g| g.boots[1].channel_key = g.boots[0].channel_key);
    assert!(channel.contains("share"));
}

#[test]
fn oversized_evidence_is_refused() {
    let reason = refused_genesis(|g| g.boots[2].evidence = vec![0; MAX_EVIDENCE + 1]);
    assert!(reason.contains("us-east-1"), "{reason}");
}

#[test]
fn i7_the_genesis_id_is_bound_to_every_boot_and_to_the_manifest() {
    let changes: [fn(&mut GenesisRecord); 8] = [
        |g| g.boots[0].key[0] ^= 1,
        |g| g.boots[1].channel_key[0] ^= 1,
        |g| g.boots[2].nonce[0] ^= 1,
        |g| g.boots[0].apply_version += 1,
        |g| g.boots[0].evidence.push(0),
        |g| g.manifest.name.push('x'),
        |g| g.manifest.hardware = Hardware::Nitro,
        |g| g.at = UnixMillis(g.at.0 + 1),
    ];
    let mut ids = vec![genesis().id()];
    for change in changes {
        let mut genesis = genesis();
        change(&mut genesis);
        ids.push(genesis.id());
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn i9_attested_user_data_is_bound_to_scope_node_keys_and_version() {
    let boot = || genesis().boots[0].clone();
    let scope = Hash32::new([1; 32]);
    let mut seen = vec![boot().user_data(&scope), boot().user_data(&Hash32::new([2; 32]))];
    let changes: [fn(&mut casemate_proto::manifest::BootRecord); 4] = [
        |b| b.node = NodeName::new("eu-west-1").unwrap(),
        |b| b.key[0] ^= 1,
        |b| b.channel_key[0] ^= 1,
        |b| b.apply_version += 1,
    ];
    for change in changes {
        let mut boot = boot();
        change(&mut boot);
        seen.push(boot.user_data(&scope));
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[test]
fn manifests_and_geneses_survive_their_encoding_within_their_caps() {
    let mut genesis = genesis();
    genesis.manifest.relying_party = Some(RelyingParty {
        id: "localhost".to_owned(),
        origin: "http://localhost:3000".to_owned(),
    });
    let bytes = cbor::encode(&genesis);
    assert_eq!(cbor::decode::<GenesisRecord>(&bytes, MAX_GENESIS), Ok(genesis.clone()));
    let bytes = cbor::encode(&genesis.manifest);
    assert_eq!(cbor::decode::<Manifest>(&bytes, MAX_MANIFEST), Ok(genesis.manifest));
}

/// The largest genesis that the checks let through still fits the decoder's cap.
#[test]
fn the_largest_genesis_fits_its_cap() {
    let mut genesis = genesis();
    let manifest = &mut genesis.manifest;
    roster(manifest, MAX_NODES);
    manifest.nodes.iter_mut().for_each(|node| node.region = "r".repeat(32));
    manifest.independence = Independence::None;
    manifest.name = "n".repeat(100);
    manifest.measurements = vec![manifest.measurements[0].clone(); 16];
    manifest.governance.keys = (0..32).map(|n| Secret::new(n).public()).collect();
    manifest.governance.quorum = 32;
    manifest.freezers = (32..64).map(|n| Secret::new(n).public()).collect();
    manifest.relying_party = Some(RelyingParty {
        id: format!("{}.org", ["a".repeat(62), "b".repeat(62), "c".repeat(62)].join(".")),
        origin: String::new(),
    });
    let party = manifest.relying_party.as_mut().unwrap();
    party.origin = format!("https://{}", party.id);
    let boot = genesis.boots[0].clone();
    genesis.boots = (1..)
        .zip(&genesis.manifest.nodes)
        .map(|(number, node)| {
            let mut boot = boot.clone();
            boot.node = node.name.clone();
            (boot.key, boot.channel_key, boot.nonce) = ([number; 32], [number; 32], [number; 32]);
            boot.evidence = vec![0; MAX_EVIDENCE];
            boot
        })
        .collect();
    assert_eq!(genesis.check(), Ok(()));
    assert!(cbor::encode(&genesis.manifest).len() <= MAX_MANIFEST);
    assert!(cbor::encode(&genesis).len() <= MAX_GENESIS);
}
