//! Cold recovery: what the entry takes up, what it voids, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]
mod kit;

use casemate_ledger::apply::Applied;
use casemate_ledger::recovery::recovery_entry;
use casemate_ledger::replay::Replayer;
use casemate_ledger::requests::Outcome;
use casemate_ledger::state::RequestStatus;
use casemate_ledger::{Attachment, Committed, EntryBody, PermitError, State, Verdict};
use casemate_proto::governance::{Change, FreezerStatement};
use casemate_proto::manifest::RecoveryKeys;
use casemate_proto::recovery::{
    LedgerName, RecoveryBoot, RecoveryCertificate, RecoveryOffer, RecoveryPublicKey,
    SignedCertificate,
};
use casemate_proto::{DenialCode, Hash32, Incarnation, Millis, UnixMillis};
use ed25519_dalek::{Signer as _, SigningKey};
use kit::{Kit, boot, code, denial, is_allowed, key_name, node, second};

/// A cluster that can be recovered.
fn ready() -> Kit {
    Kit::ready_with(|manifest| {
        let keys = (0..3).map(|i| RecoveryPublicKey::new([0x21 + i; 32]).unwrap()).collect();
        manifest.recovery = Some(RecoveryKeys { keys });
    })
}

fn offer(kit: &Kit, index: usize, seed: u8, scope: &Hash32) -> RecoveryOffer {
    let seed = seed + index as u8;
    let key = SigningKey::from_bytes(&[seed; 32]);
    let record = boot(&kit.nsms[index], &node(index), &key, seed, scope, kit.now);
    let recovery_key = RecoveryPublicKey::new([seed + 0x20; 32]).unwrap();
    let message = RecoveryOffer::signing_bytes(scope, &record.id(), &recovery_key);
    RecoveryOffer { record, recovery_key, signature: key.sign(&message).to_bytes() }
}

/// A certificate for the ledger as it stands, with new boots of all nodes that all open blobs.
fn certificate(kit: &Kit) -> RecoveryCertificate {
    certificate_to(kit, kit.state.incarnation().0 + 1, 0x80)
}

fn certificate_to(kit: &Kit, incarnation: u64, seed: u8) -> RecoveryCertificate {
    let state = &kit.state;
    let mut certificate = RecoveryCertificate {
        version: 1,
        genesis: state.genesis(),
        former: state.incarnation(),
        incarnation: Incarnation(incarnation),
        at: kit.now,
        expires: kit.now.saturating_add(second(7_200)),
        ledger: LedgerName {
            size: state.size(),
            root: state.root(),
            state: State::snapshot_hash(&state.to_snapshot()),
        },
        policy: state.policy().map(|(_, hash)| hash),
        images: state.images().iter().cloned().collect(),
        revoked: state.revoked().iter().copied().collect(),
        boots: Vec::new(),
    };
    let scope = certificate.scope();
    certificate.boots = (0..3)
        .map(|index| RecoveryBoot {
            offer: offer(kit, index, seed, &scope),
            sealed: Some(Hash32::new([0x30 + index as u8; 32])),
        })
        .collect();
    certificate
}

fn signed(kit: &Kit, certificate: RecoveryCertificate) -> SignedCertificate {
    let message = certificate.signing_bytes();
    let signatures = kit.governors[..2].iter().map(|governor| governor.sign(&message)).collect();
    SignedCertificate { certificate, signatures }
}

fn recover(kit: &mut Kit, signed: &SignedCertificate) -> Applied {
    let (entry, attachment) = recovery_entry(signed);
    assert_eq!(entry.body.check_attachment(Some(&attachment)), Ok(()));
    let now = kit.now;
    kit.now = entry.at;
    let applied = kit.apply_with(entry.body, Some(attachment));
    kit.now = now;
    applied
}

/// Recovers with the certificate for the ledger as it stands.
fn recovered(kit: &mut Kit) -> SignedCertificate {
    let signed = signed(kit, certificate(kit));
    let applied = recover(kit, &signed);
    assert!(matches!(applied.verdict, Verdict::Accepted { .. }), "{:?}", applied.verdict);
    kit.boots = (0..3).map(|index| SigningKey::from_bytes(&[0x80 + index; 32])).collect();
    signed
}

fn unfreeze(kit: &mut Kit, signed: &SignedCertificate) {
    kit.govern(Change::Unfreeze { freeze: signed.certificate.id() });
    assert!(!kit.state.is_frozen());
}

/// Why a certificate with this change is denied.
fn denied_for(kit: &mut Kit, change: impl FnOnce(&mut RecoveryCertificate)) -> String {
    let mut certificate = certificate(kit);
    change(&mut certificate);
    let signed = signed(kit, certificate);
    let before = kit.state.incarnation();
    let denial = denial(recover(kit, &signed).verdict);
    assert_eq!((denial.code, kit.state.incarnation()), (DenialCode::GovernanceRefused, before));
    assert!(!kit.state.is_frozen());
    denial.detail
}

#[test]
fn i6_recovered_ledger_is_frozen_under_new_boots_with_its_keys_and_charges() {
    let mut kit = ready();
    assert!(is_allowed(&kit.pay(1_000_000)));
    let former = kit.state.clone();
    let signed = recovered(&mut kit);
    let state = &kit.state;
    assert_eq!((state.incarnation(), state.size()), (Incarnation(1), former.size() + 1));
    assert_eq!(state.freezes().keys().collect::<Vec<_>>(), [&signed.certificate.id()]);
    assert_eq!(state.change_head(), signed.certificate.id());
    assert_eq!(state.charges().len(), former.charges().len());
    for index in 0..3 {
        let now = state.current_boot(&node(index)).unwrap();
        assert_eq!(now, signed.certificate.boots[index].offer.record.id());
        assert!(state.retired_boots().contains(&former.current_boot(&node(index)).unwrap()));
        assert!(state.is_holder(&key_name("agent-7"), &node(index)));
    }
    // I13: name, public key, chain code and epoch are what they were
    for (name, key) in former.keys() {
        let (then, now) = (key.live.as_ref().unwrap(), state.keys()[name].live.as_ref().unwrap());
        assert_eq!(
            (&then.public_key, then.chain_code, then.epoch, then.index),
            (&now.public_key, now.chain_code, now.epoch, now.index)
        );
        assert!(!now.is_fresh);
    }
}

#[test]
fn the_quorum_lifts_the_recoverys_freeze_and_nobody_signs_before() {
    let mut kit = ready();
    let signed = recovered(&mut kit);
    assert_eq!(code(kit.pay(1)), DenialCode::Frozen);
    unfreeze(&mut kit, &signed);
}

#[test]
fn a_freeze_from_before_outlasts_the_recovery() {
    let mut kit = ready();
    let former = kit.freeze(3);
    let signed = recovered(&mut kit);
    kit.govern(Change::Unfreeze { freeze: signed.certificate.id() });
    assert!(kit.state.is_frozen());
    kit.govern(Change::Unfreeze { freeze: former });
    assert!(!kit.state.is_frozen());
}

#[test]
fn i6_older_snapshot_than_the_ledger_is_refused_and_a_newer_ledger_too() {
    let mut kit = ready();
    let older = signed(&kit, certificate(&kit));
    kit.accept(EntryBody::Tick);
    // the certificate of yesterday, for today's ledger
    let detail = denial(recover(&mut kit, &older).verdict).detail;
    assert!(detail.contains("another ledger"), "{detail}");
    // the same size with another root, the same root with another state
    assert!(
        denied_for(&mut kit, |c| c.ledger.root = Hash32::new([1; 32])).contains("another ledger")
    );
    assert!(
        denied_for(&mut kit, |c| c.ledger.state = Hash32::new([1; 32])).contains("another ledger")
    );
    assert!(denied_for(&mut kit, |c| c.ledger.size -= 1).contains("another ledger"));
}

#[test]
fn i7_replayed_certificate_is_refused() {
    let mut kit = ready();
    let signed = recovered(&mut kit);
    let detail = denial(recover(&mut kit, &signed).verdict).detail;
    assert!(detail.contains("incarnation 0, and this is 1"), "{detail}");
    // nor does it bring its boots into a later recovery
    let later = certificate_to(&kit, 2, 0x80);
    let later = self::signed(&kit, later);
    let detail = denial(recover(&mut kit, &later).verdict).detail;
    assert!(detail.contains("it was a boot of this cluster before"), "{detail}");
}

#[test]
fn i7_former_boots_do_not_come_back_by_a_recovery() {
    let mut kit = ready();
    // the boots that are current, attested anew under the recovery's scope
    let mut certificate = certificate(&kit);
    let scope = certificate.scope();
    for index in 0..3 {
        let key = kit.boots[index].clone();
        let nonce = 0x50 + index as u8;
        let record = boot(&kit.nsms[index], &node(index), &key, nonce, &scope, kit.now);
        let recovery_key = certificate.boots[index].offer.recovery_key;
        let message = RecoveryOffer::signing_bytes(&scope, &record.id(), &recovery_key);
        let signature = key.sign(&message).to_bytes();
        certificate.boots[index].offer = RecoveryOffer { record, recovery_key, signature };
    }
    let signed = signed(&kit, certificate);
    let detail = denial(recover(&mut kit, &signed).verdict).detail;
    assert!(detail.contains("it was a boot of this cluster before"), "{detail}");
}

#[test]
fn i9_boots_whose_evidence_does_not_hold_are_refused() {
    let mut kit = ready();
    // attested for a join, not for this recovery
    let genesis = Hash32::new(*kit.state.genesis().as_bytes());
    let joining = offer(&kit, 1, 0x80, &genesis);
    let detail =
        denied_for(&mut kit, |c| c.boots[1].offer.record.evidence = joining.record.evidence);
    assert!(detail.contains("attestation is refused"), "{detail}");
    // older than an admission takes
    let mut stale = certificate(&kit);
    stale.at = stale.at.saturating_add(second(3_600));
    stale.expires = stale.at.saturating_add(second(10));
    let stale = signed(&kit, stale);
    let detail = denial(recover(&mut kit, &stale).verdict).detail;
    assert!(detail.contains("attestation is refused"), "{detail}");
    // another node's enclave: another region and role
    let scope = certificate(&kit).scope();
    let other = {
        let key = SigningKey::from_bytes(&[0x81; 32]);
        boot(&kit.nsms[0], &node(1), &key, 0x81, &scope, kit.now)
    };
    let detail = denied_for(&mut kit, |c| c.boots[1].offer.record.evidence = other.evidence);
    assert!(detail.contains("attestation is refused"), "{detail}");
}

#[test]
fn i11_recovery_without_the_quorum_or_of_a_cluster_without_recovery_is_refused() {
    let mut kit = ready();
    let mut alone = signed(&kit, certificate(&kit));
    alone.signatures.truncate(1);
    let detail = denial(recover(&mut kit, &alone).verdict).detail;
    assert!(detail.contains("1 of 2 governors signed"), "{detail}");
    let mut without = Kit::ready();
    let detail = denied_for(&mut without, |_| ());
    assert!(detail.contains("no recovery keys"), "{detail}");
}

#[test]
fn i11_policy_images_and_revocations_are_the_ledgers() {
    let mut kit = ready();
    let gone = kit.second_agent.public.id();
    kit.govern(Change::RevokeCredential { credential: gone });
    let wrong = "policy, images or revocations";
    assert!(denied_for(&mut kit, |c| c.revoked.clear()).contains(wrong));
    assert!(denied_for(&mut kit, |c| c.policy = None).contains(wrong));
    assert!(denied_for(&mut kit, |c| c.images.push(kit::image(0x60))).contains(wrong));
    recovered(&mut kit);
    assert!(kit.state.revoked().contains(&gone));
}

#[test]
fn certificate_that_does_not_travel_with_its_entry_is_refused() {
    let mut kit = ready();
    let signed = signed(&kit, certificate(&kit));
    let (entry, attachment) = recovery_entry(&signed);
    let detail = denial(kit.apply_with(entry.body.clone(), None).verdict).detail;
    assert!(detail.contains("does not travel"), "{detail}");
    let mut other = signed.clone();
    other.certificate.expires.0 += 1;
    let Attachment::Recovery(bytes) = recovery_entry(&other).1 else { panic!() };
    assert!(entry.body.check_attachment(Some(&Attachment::Recovery(bytes))).is_err());
    assert!(entry.body.check_attachment(None).is_err());
    assert!(EntryBody::Tick.check_attachment(Some(&attachment)).is_err());
}

#[test]
fn i6_stamps_changes_and_statements_of_the_former_incarnation_are_void() {
    let mut kit = ready();
    let payment = kit.payment(kit::PAYEE, 1_000_000);
    let agent = kit.agent.clone();
    let request = kit.request_entry(&agent, &payment);
    let change = kit.signed_change(Change::CreateKey {
        name: key_name("late"),
        scheme: casemate_proto::Scheme::Ed25519,
    });
    let freeze = kit.statement(FreezerStatement::Freeze { nonce: [8; 16] });
    let signed = recovered(&mut kit);
    unfreeze(&mut kit, &signed);
    kit.pass(Millis(1));
    let refused = kit.apply(request);
    assert!(matches!(refused, Verdict::Denied(_)), "{refused:?}");
    assert_ne!(code(refused), DenialCode::LimitExceeded);
    assert_eq!(code(kit.apply(EntryBody::Governance(change))), DenialCode::GovernanceRefused);
    assert_eq!(code(kit.apply(EntryBody::Statement(freeze))), DenialCode::GovernanceRefused);
    assert!(!kit.state.is_frozen());
}

#[test]
fn i5_every_window_is_full_until_it_lies_behind_the_certificates_end() {
    let mut kit = ready();
    let signed = recovered(&mut kit);
    unfreeze(&mut kit, &signed);
    kit.pass(second(60));
    let full = denial(kit.pay(1));
    assert_eq!(full.code, DenialCode::LimitExceeded);
    assert_eq!(full.remaining, Some(casemate_proto::Amount::ZERO));
    let opens = full.resets_at.unwrap();
    let end = signed.certificate.expires;
    // the longest window of the grant, lengthened, from the certificate's end on
    assert!(opens > end.saturating_add(kit.state.slack()), "{opens}");
    kit.now = UnixMillis(opens.0 - 1);
    assert_eq!(code(kit.pay(1)), DenialCode::LimitExceeded);
    kit.now = opens;
    assert!(is_allowed(&kit.pay(1)));
}

#[test]
fn what_waited_is_dropped_and_what_was_allowed_is_never_signed() {
    let mut kit = ready();
    assert!(is_allowed(&kit.pay(1_000_000)));
    kit.govern(Change::AcceptImage { measurement: kit::image(0x60) });
    assert_eq!(kit.state.pending_changes().len(), 1);
    kit.heartbeat();
    // its delay has run out when the cluster is recovered: a veto may be in what was lost
    kit.pass(second(86_400));
    let signed = recovered(&mut kit);
    assert_eq!(kit.state.pending_changes().len(), 0);
    assert!(!kit.state.images().contains(&kit::image(0x60)));
    unfreeze(&mut kit, &signed);
    let (credential, id) = kit.permits[0].request();
    let request = kit.state.request(&credential, &id).unwrap();
    let RequestStatus::Allowed(allowed) = &request.status else { panic!("{request:?}") };
    assert!(allowed.is_lost());
}

#[test]
fn what_had_expired_before_the_lost_end_of_the_log_stays_expired() {
    let mut kit = ready();
    assert!(is_allowed(&kit.pay(1_000_000)));
    kit.pass(second(3_600));
    kit.accept(EntryBody::Tick);
    assert!(is_allowed(&kit.pay(1_000_000)));
    recovered(&mut kit);
    let outcome = |at: usize| {
        let (credential, id) = kit.permits[at].request();
        kit.state.outcome(&credential, &id, kit.now).unwrap()
    };
    assert!(matches!(outcome(0), Outcome::Expired), "{:?}", outcome(0));
    assert!(matches!(outcome(1), Outcome::Lost), "{:?}", outcome(1));
}

#[test]
fn i5_windows_of_a_ledger_whose_time_ran_ahead_are_full_beyond_what_it_may_have_charged() {
    let mut kit = ready();
    let ahead = second(20_000);
    let true_time = kit.now;
    kit.now = true_time.saturating_add(ahead);
    assert!(is_allowed(&kit.pay(1_000_000)));
    let ledger_time = kit.now;
    kit.now = true_time;
    // the certificate's time is the boots'; what was lost was charged at the ledger's
    let signed = recovered(&mut kit);
    assert!(signed.certificate.expires < ledger_time);
    kit.now = ledger_time;
    unfreeze(&mut kit, &signed);
    let window = second(86_400).saturating_add(kit.state.slack());
    let life = signed.certificate.expires.since(signed.certificate.at);
    kit.now = ledger_time.saturating_add(window);
    assert_eq!(code(kit.pay(1)), DenialCode::LimitExceeded);
    kit.now = kit.now.saturating_add(life).saturating_add(second(1));
    assert!(is_allowed(&kit.pay(1)));
}

#[test]
fn i8_a_permit_of_a_former_boot_gives_no_attempt_after_the_recovery() {
    // the originals were paused only, and applied the entry when they woke
    let mut kit = ready();
    assert!(is_allowed(&kit.pay(1_000_000)));
    let former = kit.state.current_boot(&node(0)).unwrap();
    let signed = recovered(&mut kit);
    unfreeze(&mut kit, &signed);
    let (state, now) = (&kit.state, kit.now);
    let refused = kit.permits[0].attempt(state, &former, &[node(0), node(1)], 0, now);
    assert!(matches!(refused, Err(PermitError::NotCurrent)), "{refused:?}");
}

#[test]
fn a_node_without_a_blob_holds_no_share_and_one_that_held_none_gets_none() {
    let mut kit = ready();
    let mut partial = certificate(&kit);
    partial.boots[2].sealed = None;
    let signed = signed(&kit, partial);
    let applied = recover(&mut kit, &signed);
    assert!(matches!(applied.verdict, Verdict::Accepted { .. }));
    let key = key_name("agent-7");
    assert!(kit.state.is_holder(&key, &node(0)) && kit.state.is_holder(&key, &node(1)));
    assert!(!kit.state.is_holder(&key, &node(2)));
}

#[test]
fn an_auditor_replays_a_recovery_and_a_second_one() {
    let mut kit = ready();
    assert!(is_allowed(&kit.pay(1_000_000)));
    let first = recovered(&mut kit);
    unfreeze(&mut kit, &first);
    kit.pass(second(30));
    let second_one = certificate_to(&kit, 3, 0xb0);
    let second_one = signed(&kit, second_one);
    let applied = recover(&mut kit, &second_one);
    assert!(matches!(applied.verdict, Verdict::Accepted { .. }), "{:?}", applied.verdict);
    assert_eq!(kit.state.incarnation(), Incarnation(3));

    let record = casemate_proto::cbor::encode(&kit.genesis);
    let mut replayer = Replayer::from_genesis(&record).unwrap();
    let mut recoveries = 0;
    for (entry, attachment, leaf) in &kit.applied {
        let record = casemate_audit::Record::parse(leaf).unwrap();
        let named = casemate_audit::Replay::attachment(&replayer, &record);
        if let EntryBody::Recover { certificate } = &entry.body {
            recoveries += 1;
            assert_eq!(named, Some(*certificate));
        }
        let bytes = attachment.clone().map(|attachment| match attachment {
            Attachment::Policy(bytes)
            | Attachment::Recovery(bytes)
            | Attachment::Genesis(bytes) => bytes,
        });
        let outcome = casemate_audit::Replay::apply(&mut replayer, &record, bytes).unwrap();
        assert_eq!(outcome.record.leaf_bytes(), leaf.as_slice());
    }
    assert_eq!(recoveries, 2);
    assert_eq!(replayer.state().to_snapshot(), kit.state.to_snapshot());
}

#[test]
fn a_recovered_state_survives_its_snapshot_with_its_windows_full() {
    let mut kit = ready();
    let signed = recovered(&mut kit);
    let again = State::from_snapshot(&kit.state.to_snapshot()).unwrap();
    assert_eq!(again.to_snapshot(), kit.state.to_snapshot());
    kit.state = again;
    unfreeze(&mut kit, &signed);
    kit.pass(second(60));
    assert_eq!(code(kit.pay(1)), DenialCode::LimitExceeded);
}

#[test]
fn keys_get_new_epochs_from_the_boots_of_the_recovery() {
    let mut kit = ready();
    recovered(&mut kit);
    let live = kit.key_live("agent-7", casemate_proto::Scheme::EcdsaSecp256k1, 1);
    kit.accept(EntryBody::KeyLive(live));
    assert_eq!(kit.state.key_epoch(&key_name("agent-7")), Some(1));
}

#[test]
fn the_entry_is_the_same_at_every_boot() {
    let kit = ready();
    let signed = signed(&kit, certificate(&kit));
    let root = || {
        let mut state = State::from_snapshot(&kit.state.to_snapshot()).unwrap();
        let (entry, attachment) = recovery_entry(&signed);
        state.apply(&Committed::dangerous_assume(entry, Some(attachment))).unwrap();
        state.root()
    };
    assert_eq!(root(), root());
}
