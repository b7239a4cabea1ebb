//! The recovery certificate: what it takes to be granted one, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use casemate_proto::cbor;
use casemate_proto::governance::QuorumError;
use casemate_proto::manifest::{BootRecord, GenesisRecord, RecoveryKeys};
use casemate_proto::recovery::{
    LedgerName, MAX_LIFE, RecoveryBoot, RecoveryCertificate, RecoveryError, RecoveryGranted,
    RecoveryOffer, RecoveryPublicKey, SignedCertificate, recovery_scope,
};
use casemate_proto::{Hash32, Incarnation, NodeName, UnixMillis};
use common::{Secret, genesis, governors};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::Signer as _;

const AT: UnixMillis = UnixMillis(1_795_200_000_000);
const EXPIRES: UnixMillis = UnixMillis(AT.0 + 86_400_000);

fn x25519(number: u8) -> RecoveryPublicKey {
    let point = MontgomeryPoint::mul_base_clamped([number; 32]);
    RecoveryPublicKey::new(point.to_bytes()).unwrap()
}

/// A genesis whose governors have recovery keys.
fn recoverable() -> GenesisRecord {
    let mut genesis = genesis();
    let keys = (0..5).map(|number| x25519(200 + number)).collect();
    genesis.manifest.recovery = Some(RecoveryKeys { keys });
    genesis
}

/// An offer of the boot of this number for a node.
fn offer(genesis: &GenesisRecord, node: &NodeName, number: u8, to: Incarnation) -> RecoveryOffer {
    let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
    let record = BootRecord {
        node: node.clone(),
        key: key.verifying_key().to_bytes(),
        channel_key: *x25519(number).as_bytes(),
        nonce: [number; 32],
        apply_version: 1,
        evidence: vec![number; 64],
    };
    let recovery_key = x25519(number + 1);
    let scope = recovery_scope(&genesis.id(), to);
    let message = RecoveryOffer::signing_bytes(&scope, &record.id(), &recovery_key);
    RecoveryOffer { record, recovery_key, signature: key.sign(&message).to_bytes() }
}

fn certificate(genesis: &GenesisRecord) -> RecoveryCertificate {
    let to = Incarnation(1);
    let boots = (0..).step_by(10).zip(&genesis.manifest.nodes).map(|(step, node)| RecoveryBoot {
        offer: offer(genesis, &node.name, 50 + step, to),
        sealed: Some(Hash32::new([step; 32])),
    });
    RecoveryCertificate {
        version: 1,
        genesis: genesis.id(),
        former: Incarnation(0),
        incarnation: to,
        at: AT,
        expires: EXPIRES,
        ledger: LedgerName { size: 7, root: Hash32::new([1; 32]), state: Hash32::new([2; 32]) },
        policy: Some(Hash32::new([3; 32])),
        images: genesis.manifest.measurements.clone(),
        revoked: Vec::new(),
        boots: boots.collect(),
    }
}

fn signed(certificate: RecoveryCertificate, by: &[&Secret]) -> SignedCertificate {
    let message = certificate.signing_bytes();
    let signatures = by.iter().map(|governor| governor.named(&message)).collect();
    SignedCertificate { certificate, signatures }
}

/// Signed by the quorum's first three.
fn by_quorum(certificate: RecoveryCertificate) -> SignedCertificate {
    let governors = governors();
    signed(certificate, &governors.iter().take(3).collect::<Vec<_>>())
}

fn granted(
    change: impl FnOnce(&mut RecoveryCertificate),
) -> Result<RecoveryGranted, RecoveryError> {
    let genesis = recoverable();
    let mut certificate = certificate(&genesis);
    change(&mut certificate);
    by_quorum(certificate).verify(genesis.id(), &genesis.manifest, Some(AT))
}

/// The field that a certificate with this change is refused for.
fn refused_for(change: impl FnOnce(&mut RecoveryCertificate)) -> &'static str {
    match granted(change) {
        Err(RecoveryError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn certificate_of_a_quorum_is_granted_and_comes_back_from_its_bytes() {
    let genesis = recoverable();
    let signed = by_quorum(certificate(&genesis));
    let bytes = cbor::encode(&signed);
    let again: SignedCertificate =
        cbor::decode(&bytes, casemate_proto::recovery::MAX_SIGNED_CERTIFICATE).unwrap();
    assert_eq!(again, signed);
    let granted = again.verify(genesis.id(), &genesis.manifest, Some(AT)).unwrap();
    assert_eq!(granted.id(), signed.certificate.id());
    let first = &signed.certificate.boots[0].offer.record;
    assert_eq!(granted.to_boot(&first.node, first.id()).unwrap(), &signed.certificate.boots[0]);
}

#[test]
fn certificate_grants_nothing_to_a_boot_that_it_does_not_name() {
    let genesis = recoverable();
    let granted = granted(|_| ()).unwrap();
    let boots = &granted.certificate().boots;
    let (first, second) = (&boots[0].offer.record, &boots[1].offer.record);
    // a twin of the same image, a boot of the genesis, another node's boot
    let twin = offer(&genesis, &first.node, 90, Incarnation(1)).record.id();
    for boot in [twin, genesis.boots[0].id(), second.id()] {
        assert!(matches!(granted.to_boot(&first.node, boot), Err(RecoveryError::OtherBoot { .. })));
    }
    let nowhere = NodeName::new("nowhere").unwrap();
    assert!(granted.to_boot(&nowhere, first.id()).is_err());
}

#[test]
fn i11_fewer_than_the_quorum_grant_nothing() {
    let genesis = recoverable();
    let governors = governors();
    let two = signed(certificate(&genesis), &[&governors[0], &governors[4]]);
    assert_eq!(
        two.verify(genesis.id(), &genesis.manifest, Some(AT)).unwrap_err(),
        RecoveryError::Quorum(QuorumError::TooFew { have: 2, need: 3 })
    );
}

#[test]
fn i11_one_governor_counts_once_and_a_stranger_refuses_the_whole() {
    let genesis = recoverable();
    let governors = governors();
    let twice = [&governors[0], &governors[1], &governors[0]];
    assert!(matches!(
        signed(certificate(&genesis), &twice).verify(genesis.id(), &genesis.manifest, Some(AT)),
        Err(RecoveryError::Quorum(QuorumError::Twice { .. }))
    ));
    let stranger = Secret::new(77);
    let with = [&governors[0], &governors[1], &governors[2], &stranger];
    assert!(matches!(
        signed(certificate(&genesis), &with).verify(genesis.id(), &genesis.manifest, Some(AT)),
        Err(RecoveryError::Quorum(QuorumError::NotAGovernor { .. }))
    ));
}

#[test]
fn i11_every_changed_field_voids_the_signatures() {
    let genesis = recoverable();
    let good = by_quorum(certificate(&genesis));
    let changes: [fn(&mut RecoveryCertificate); 8] = [
        |c| c.at.0 += 1,
        |c| c.expires.0 += 1,
        |c| c.ledger.size -= 1,
        |c| c.ledger.root = Hash32::new([9; 32]),
        |c| c.ledger.state = Hash32::new([9; 32]),
        |c| c.policy = None,
        |c| c.boots[1].sealed = None,
        |c| c.boots[0].offer.record.evidence.push(0),
    ];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed.certificate);
        assert!(matches!(
            changed.verify(genesis.id(), &genesis.manifest, Some(AT)),
            Err(RecoveryError::Quorum(QuorumError::Signature(_)))
        ));
    }
}

#[test]
fn i11_a_revoked_governor_grants_nothing() {
    let genesis = recoverable();
    let mut certificate = certificate(&genesis);
    certificate.revoked = vec![governors()[1].id()];
    assert_eq!(
        by_quorum(certificate).verify(genesis.id(), &genesis.manifest, Some(AT)).unwrap_err(),
        RecoveryError::Revoked { credential: governors()[1].id() }
    );
}

#[test]
fn signature_under_a_change_or_a_statement_is_none_under_a_certificate() {
    let genesis = recoverable();
    let certificate = certificate(&genesis);
    let other = [b"casemate/governance/v1\0".as_slice(), certificate.id().as_bytes()].concat();
    let signatures = governors().iter().take(3).map(|governor| governor.named(&other)).collect();
    let signed = SignedCertificate { certificate, signatures };
    assert!(matches!(
        signed.verify(genesis.id(), &genesis.manifest, Some(AT)),
        Err(RecoveryError::Quorum(_))
    ));
}

#[test]
fn i7_certificate_of_another_cluster_is_refused() {
    let genesis = recoverable();
    let mut other = recoverable();
    other.at.0 += 1;
    let signed = by_quorum(certificate(&genesis));
    assert!(matches!(
        signed.verify(other.id(), &other.manifest, Some(AT)),
        Err(RecoveryError::OtherCluster { .. })
    ));
}

#[test]
fn cluster_without_recovery_keys_grants_no_recovery() {
    let genesis = genesis();
    let signed = by_quorum(certificate(&genesis));
    assert_eq!(
        signed.verify(genesis.id(), &genesis.manifest, Some(AT)).unwrap_err(),
        RecoveryError::NoRecovery
    );
}

#[test]
fn certificate_ends_at_its_time_and_whoever_reads_later_may_still_check_it() {
    let genesis = recoverable();
    let signed = by_quorum(certificate(&genesis));
    assert!(
        signed.verify(genesis.id(), &genesis.manifest, Some(UnixMillis(EXPIRES.0 - 1))).is_ok()
    );
    assert_eq!(
        signed.verify(genesis.id(), &genesis.manifest, Some(EXPIRES)).unwrap_err(),
        RecoveryError::Expired { expires: EXPIRES, now: EXPIRES }
    );
    assert!(signed.verify(genesis.id(), &genesis.manifest, None).is_ok());
}

#[test]
fn i6_incarnation_that_is_not_later_is_refused() {
    for (former, incarnation) in [(1, 1), (2, 1), (5, 0)] {
        let field = refused_for(|c| {
            c.former = Incarnation(former);
            c.incarnation = Incarnation(incarnation);
        });
        assert_eq!(field, "incarnation");
    }
}

#[test]
fn fields_out_of_their_bounds_are_refused_by_name() {
    assert_eq!(refused_for(|c| c.version = 2), "version");
    assert_eq!(refused_for(|c| c.ledger.size = 0), "ledger");
    assert_eq!(refused_for(|c| c.expires = c.at), "expires");
    assert_eq!(refused_for(|c| c.expires = UnixMillis(c.at.0 + MAX_LIFE.0 + 1)), "expires");
    assert_eq!(refused_for(|c| c.images.clear()), "images");
    assert_eq!(refused_for(|c| c.images.push(c.images[0].clone())), "images");
    assert_eq!(refused_for(|c| c.revoked = vec![governors()[0].id(); 2]), "revoked");
}

#[test]
fn i7_boots_other_than_one_for_each_node_are_refused() {
    assert_eq!(refused_for(|c| drop(c.boots.pop())), "boots");
    assert_eq!(refused_for(|c| c.boots.swap(0, 1)), "boots");
    assert_eq!(refused_for(|c| c.boots.push(c.boots[2].clone())), "boots");
    // one boot for two nodes
    assert_eq!(
        refused_for(|c| {
            let node = c.boots[1].offer.record.node.clone();
            c.boots[1] = c.boots[0].clone();
            c.boots[1].offer.record.node = node;
        }),
        "boots"
    );
}

#[test]
fn blobs_for_fewer_than_t_boots_and_one_blob_for_two_are_refused() {
    assert!(granted(|c| c.boots[2].sealed = None).is_ok());
    let fewer = |c: &mut RecoveryCertificate| {
        c.boots[2].sealed = None;
        c.boots[1].sealed = None;
    };
    assert_eq!(refused_for(fewer), "boots");
    assert_eq!(refused_for(|c| c.boots[1].sealed = c.boots[0].sealed), "boots");
}

#[test]
fn recovery_key_that_its_boot_did_not_sign_for_this_recovery_is_refused() {
    let genesis = recoverable();
    let offer_error = |result: Result<_, RecoveryError>| {
        assert!(matches!(result, Err(RecoveryError::Offer { .. })), "{result:?}");
    };
    // a key put in the place of the boot's own
    offer_error(granted(|c| c.boots[0].offer.recovery_key = x25519(123)).map(drop));
    // an offer for a later recovery
    offer_error(
        granted(|c| {
            let node = c.boots[0].offer.record.node.clone();
            c.boots[0].offer = offer(&genesis, &node, 50, Incarnation(2));
        })
        .map(drop),
    );
}

#[test]
fn keys_of_low_order_are_no_recovery_keys() {
    let mut one = [0; 32];
    one[0] = 1;
    // u = p, which is zero in another form
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    for bytes in [[0; 32], one, p] {
        assert_eq!(RecoveryPublicKey::new(bytes), None);
        assert!(
            cbor::decode::<RecoveryPublicKey>(&[&[0x58, 32][..], &bytes].concat(), 64).is_err()
        );
    }
    assert!(RecoveryPublicKey::new(*x25519(1).as_bytes()).is_some());
}

#[test]
fn manifest_wants_one_recovery_key_for_each_governor_and_a_quorum_of_two() {
    let check = |change: fn(&mut casemate_proto::manifest::Manifest)| {
        let mut manifest = recoverable().manifest;
        change(&mut manifest);
        manifest.check()
    };
    assert_eq!(check(|_| ()), Ok(()));
    let keys = |m: &mut casemate_proto::manifest::Manifest| m.recovery.clone().unwrap().keys;
    assert!(check(|m| m.recovery.as_mut().unwrap().keys.truncate(4)).is_err());
    assert!(
        check(|m| {
            let first = m.recovery.as_ref().unwrap().keys[0];
            m.recovery.as_mut().unwrap().keys[1] = first;
        })
        .is_err()
    );
    let alone = check(|m| {
        m.governance.keys.truncate(1);
        m.governance.quorum = 1;
        m.recovery.as_mut().unwrap().keys.truncate(1);
    });
    assert!(alone.unwrap_err().to_string().contains("quorum of one"));
    assert_eq!(keys(&mut recoverable().manifest).len(), 5);
}

#[test]
fn manifest_without_recovery_has_the_genesis_id_that_it_had() {
    // an absent field takes no byte, so that clusters from before are what they were
    let without = cbor::encode(&genesis().manifest);
    assert!(without.len() < cbor::encode(&recoverable().manifest).len());
    assert_eq!(without[0], 0xab, "a map of eleven");
}
