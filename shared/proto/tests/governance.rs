//! What carries a governance change and what does not, and what a freezer can say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use casemate_proto::credential::CredentialError;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, MAX_CHANGE, QuorumError, SignedChange,
    SignedStatement,
};
use casemate_proto::{GenesisId, Hash32, Incarnation, KeyName, Scheme, UnixMillis, cbor};
use common::{Secret, freezers, governors, manifest};

fn envelope() -> ChangeEnvelope {
    ChangeEnvelope {
        genesis: GenesisId::new([1; 32]),
        incarnation: Incarnation(0),
        predecessor: Hash32::new([1; 32]),
        expires: UnixMillis(1_795_165_200_000),
        change: Change::CreateKey {
            name: KeyName::new("treasury").unwrap(),
            scheme: Scheme::EcdsaSecp256k1,
        },
    }
}

/// A change signed by the governors of these numbers.
fn signed_by(numbers: &[usize]) -> SignedChange {
    let (envelope, governors) = (envelope(), governors());
    let message = envelope.signing_bytes();
    let signatures = numbers.iter().map(|&n| governors[n].named(&message)).collect();
    SignedChange { envelope, signatures }
}

fn verify(signed: &SignedChange) -> Result<Hash32, QuorumError> {
    signed.verify(&manifest()).map(|verified| verified.id())
}

#[test]
fn i11_a_quorum_of_different_governors_carries_a_change_in_any_order() {
    for numbers in [&[0, 1, 2][..], &[4, 2, 0], &[0, 1, 2, 3, 4]] {
        let signed = signed_by(numbers);
        let verified = signed.verify(&manifest()).unwrap();
        assert_eq!(verified.id(), envelope().id());
        assert_eq!(verified.envelope(), &envelope());
    }
}

#[test]
fn i11_too_few_signatures_are_refused() {
    assert_eq!(verify(&signed_by(&[])), Err(QuorumError::TooFew { have: 0, need: 3 }));
    assert_eq!(verify(&signed_by(&[0, 1])), Err(QuorumError::TooFew { have: 2, need: 3 }));
}

#[test]
fn i11_one_governor_twice_does_not_make_a_quorum() {
    let credential = governors()[1].id();
    assert_eq!(verify(&signed_by(&[0, 1, 1])), Err(QuorumError::Twice { credential }));
    assert_eq!(verify(&signed_by(&[0, 1, 2, 1])), Err(QuorumError::Twice { credential }));
}

#[test]
fn i11_one_governor_twice_with_two_different_signatures_is_refused() {
    let mut signed = signed_by(&[0, 1, 0]);
    let signature = p256::ecdsa::Signature::from_slice(&signed.signatures[2].signature).unwrap();
    let (r, s) = signature.split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(*r, -*s).unwrap();
    signed.signatures[2].signature = other.to_bytes().into();
    let credential = governors()[0].id();
    assert_eq!(verify(&signed), Err(QuorumError::Twice { credential }));
}

#[test]
fn i11_a_stranger_or_a_freezer_among_the_signers_refuses_the_whole() {
    for outsider in [Secret::new(7), Secret::new(10)] {
        let mut signed = signed_by(&[0, 1, 2]);
        signed.signatures.push(outsider.named(&envelope().signing_bytes()));
        let credential = outsider.id();
        assert_eq!(verify(&signed), Err(QuorumError::NotAGovernor { credential }));
    }
}

#[test]
fn i11_one_bad_signature_refuses_the_whole() {
    for number in 0..4 {
        let mut signed = signed_by(&[0, 1, 2, 3]);
        signed.signatures[number].signature[40] ^= 1;
        let credential = governors()[number].id();
        assert_eq!(
            verify(&signed),
            Err(QuorumError::Signature(CredentialError::BadSignature { credential }))
        );
    }
}

#[test]
fn i11_a_signature_under_another_governors_name_is_refused() {
    let mut signed = signed_by(&[0, 1, 2]);
    signed.signatures[2].credential = governors()[4].id();
    assert!(matches!(verify(&signed), Err(QuorumError::Signature(_))));
}

#[test]
fn i11_a_change_altered_after_signing_is_refused() {
    let changes: [fn(&mut ChangeEnvelope); 6] = [
        |e| e.genesis = GenesisId::new([2; 32]),
        |e| e.incarnation = Incarnation(1),
        |e| e.predecessor = Hash32::new([2; 32]),
        |e| e.expires.0 += 1,
        |e| e.change = Change::ConfirmGenesis,
        |e| {
            e.change = Change::CreateKey {
                name: KeyName::new("treasury").unwrap(),
                scheme: Scheme::Ed25519,
            };
        },
    ];
    let mut ids = vec![envelope().id()];
    for change in changes {
        let mut signed = signed_by(&[0, 1, 2]);
        change(&mut signed.envelope);
        assert!(matches!(verify(&signed), Err(QuorumError::Signature(_))), "{signed:?}");
        ids.push(signed.envelope.id());
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "every field changes the id");
}

#[test]
fn a_signature_over_the_bare_id_is_refused() {
    let (envelope, governors) = (envelope(), governors());
    let signatures = governors[..3].iter().map(|g| g.named(envelope.id().as_bytes())).collect();
    assert!(matches!(
        verify(&SignedChange { envelope, signatures }),
        Err(QuorumError::Signature(_))
    ));
}

#[test]
fn each_kind_of_change_has_its_own_id_and_survives_its_encoding() {
    let hash = Hash32::new([3; 32]);
    let measurement = manifest().measurements[0].clone();
    let changes = [
        Change::ConfirmGenesis,
        Change::SetPolicy { policy: hash },
        envelope().change,
        Change::Unfreeze { freeze: hash },
        Change::RevokeCredential { credential: casemate_proto::CredentialId(hash) },
        Change::AcceptImage { measurement: measurement.clone() },
        Change::RetireImage { measurement },
        Change::Withdraw { change: hash },
    ];
    let (mut ids, mut names) = (Vec::new(), Vec::new());
    for change in changes {
        let mut signed = signed_by(&[0, 1, 2]);
        signed.envelope.change = change;
        names.push(signed.envelope.change.name());
        ids.push(signed.envelope.id());
        let bytes = cbor::encode(&signed);
        assert_eq!(cbor::decode::<SignedChange>(&bytes, MAX_CHANGE), Ok(signed));
    }
    ids.sort();
    ids.dedup();
    names.sort_unstable();
    names.dedup();
    assert_eq!((ids.len(), names.len()), (8, 8));
}

/// A statement signed by a freezer.
fn stated(statement: FreezerStatement) -> SignedStatement {
    let (genesis, incarnation, at) =
        (GenesisId::new([1; 32]), Incarnation(0), UnixMillis(1_795_165_200_000));
    let id = SignedStatement::id_of(&genesis, incarnation, at, &statement);
    let by = freezers()[0].named(&SignedStatement::signing_bytes(&id));
    SignedStatement { genesis, incarnation, at, statement, by }
}

fn freeze() -> SignedStatement {
    stated(FreezerStatement::Freeze { nonce: [5; 16] })
}

#[test]
fn i11_any_one_freezer_may_freeze_veto_and_send_heartbeats() {
    for statement in [
        FreezerStatement::Freeze { nonce: [5; 16] },
        FreezerStatement::Veto { change: Hash32::new([3; 32]) },
        FreezerStatement::Heartbeat { size: 9, root: Hash32::new([4; 32]), pending: vec![] },
    ] {
        let signed = stated(statement.clone());
        let verified = signed.verify(&manifest()).unwrap();
        assert_eq!(verified.statement().statement, statement);
        assert_eq!(verified.id(), signed.id());
        let bytes = cbor::encode(&signed);
        assert_eq!(cbor::decode::<SignedStatement>(&bytes, 4096), Ok(signed));
    }
}

#[test]
fn a_governor_who_is_no_freezer_cannot_freeze() {
    let mut signed = freeze();
    signed.by = governors()[0].named(&SignedStatement::signing_bytes(&signed.id()));
    let credential = governors()[0].id();
    assert_eq!(signed.verify(&manifest()).map(drop), Err(QuorumError::NotAGovernor { credential }));
}

#[test]
fn a_statement_altered_after_signing_is_refused() {
    let changes: [fn(&mut SignedStatement); 6] = [
        |s| s.genesis = GenesisId::new([2; 32]),
        |s| s.incarnation = Incarnation(1),
        |s| s.at.0 += 1,
        |s| s.statement = FreezerStatement::Freeze { nonce: [6; 16] },
        |s| s.statement = FreezerStatement::Veto { change: Hash32::new([5; 32]) },
        |s| s.by.signature[0] ^= 1,
    ];
    for change in changes {
        let mut signed = freeze();
        assert!(signed.verify(&manifest()).is_ok());
        change(&mut signed);
        assert!(matches!(signed.verify(&manifest()), Err(QuorumError::Signature(_))), "{signed:?}");
    }
}

#[test]
fn two_freezes_have_two_ids() {
    let again = stated(FreezerStatement::Freeze { nonce: [6; 16] });
    assert_ne!(freeze().id(), again.id());
}

/// A freezer who is a governor too cannot have one signature read as the other.
#[test]
fn a_freezers_signature_never_counts_as_a_governors() {
    let id = envelope().id();
    let freezing = SignedStatement::signing_bytes(&id);
    assert_ne!(freezing, envelope().signing_bytes());
    let signatures = governors()[..3].iter().map(|g| g.named(&freezing)).collect();
    assert!(matches!(
        verify(&SignedChange { envelope: envelope(), signatures }),
        Err(QuorumError::Signature(_))
    ));
}
