//! Expectations of a genuine document, each unmet alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_attestation_verify::{
    At, BoundField, Evidence, Expectations, Freshness, Measurement, Pcr, Refusal, UnixMillis,
    Unmet, verify,
};
use casemate_sim::{EnclaveSpec, cbor};
use common::forge::{Forge, NOW, REGION, now};

const NONCE: [u8; 32] = [0x4e; 32];

/// A document that binds all three fields, judged by `expected` at `at`.
fn judge_at(forge: &Forge, expected: &Expectations, at: At) -> Result<Evidence, Refusal> {
    let nsm = forge.host.start(forge.enclave.clone());
    let document = nsm.attest(Some(b"user data"), Some(&NONCE), Some(b"public key"), NOW).unwrap();
    verify(&document, &forge.root(), expected, at)
}

fn judge(forge: &Forge, expected: &Expectations) -> Result<Evidence, Refusal> {
    judge_at(forge, expected, now(NOW))
}

#[track_caller]
fn assert_unmet(outcome: Result<Evidence, Refusal>, unmet: Unmet) {
    assert_eq!(outcome, Err(Refusal::Unmet(unmet)));
}

#[test]
fn everything_met_gives_the_evidence() {
    let forge = Forge::new();
    let role = forge.enclave.role_arn.clone().unwrap();
    let expected = forge
        .expected()
        .with_pcr(3, Pcr::of_role_arn(&role))
        .with_pcr(4, Pcr::of_instance_id(&forge.enclave.instance_id))
        .with_nonce(NONCE)
        .with_user_data(*b"user data")
        .with_public_key(*b"public key")
        .with_region(REGION);
    let evidence = judge(&forge, &expected).unwrap();
    assert_eq!(evidence.module_id(), forge.enclave.module_id());
    assert_eq!(evidence.region(), REGION);
    assert_eq!(evidence.timestamp(), UnixMillis::new(NOW));
    assert_eq!(evidence.measurement(), forge.measurement());
    assert_eq!(evidence.pcr(4), Some(Pcr::of_instance_id(&forge.enclave.instance_id)));
    assert_eq!(evidence.pcr(16), None);
    assert_eq!(evidence.nonce(), Some(&NONCE[..]));
    assert_eq!(evidence.user_data(), Some(&b"user data"[..]));
    assert_eq!(evidence.public_key(), Some(&b"public key"[..]));
    assert_eq!(evidence.chain_not_after(), evidence.leaf_not_after());
    assert!(!evidence.is_debug());
}

// The measurement.

#[test]
fn an_empty_list_of_measurements_accepts_nothing() {
    assert_unmet(judge(&Forge::new(), &Expectations::measured_as([])), Unmet::NothingAccepted);
}

#[test]
fn a_measurement_that_differs_in_any_pcr_is_refused() {
    let forge = Forge::new();
    let found = forge.measurement();
    let other = Pcr::new([0x5a; 48]);
    for differing in [
        Measurement { pcr0: other, ..found },
        Measurement { pcr1: other, ..found },
        Measurement { pcr2: other, ..found },
    ] {
        let unmet = Unmet::Measurement { found: Box::new(found), accepted: 1 };
        assert_unmet(judge(&forge, &Expectations::measured_as([differing])), unmet);
    }
}

#[test]
fn pcrs_of_two_accepted_measurements_do_not_mix() {
    let forge = Forge::new();
    let found = forge.measurement();
    let other = Pcr::new([0x5a; 48]);
    let halves = [Measurement { pcr0: other, ..found }, Measurement { pcr2: other, ..found }];
    let unmet = Unmet::Measurement { found: Box::new(found), accepted: 2 };
    assert_unmet(judge(&forge, &Expectations::measured_as(halves)), unmet);
    judge(&forge, &Expectations::measured_as([halves[0], halves[1], found])).unwrap();
}

#[test]
fn any_measurement_is_accepted_only_where_it_is_named_dangerous() {
    judge(&Forge::new(), &Expectations::dangerous_any_measurement()).unwrap();
}

#[test]
fn pcr0_pcr1_and_pcr2_must_be_there_whatever_is_expected() {
    let forge = Forge::new();
    for index in [0, 1, 2] {
        let document = forge.document(|document| {
            let pcrs: Vec<_> = forge
                .enclave
                .pcrs()
                .into_iter()
                .filter(|(present, _)| *present != index)
                .map(|(index, value)| (cbor::unsigned(index.into()), cbor::bytes(&value)))
                .collect();
            document.payload.set("pcrs", cbor::map(&pcrs));
        });
        for expected in [forge.expected(), common::anything()] {
            let outcome = verify(&document, &forge.root(), &expected, At::Document);
            assert_unmet(outcome, Unmet::PcrMissing { index });
        }
    }
}

#[test]
fn debug_mode_is_refused_even_if_its_zeroes_are_on_the_list() {
    let enclave = EnclaveSpec { measurement: [[0; 48]; 3], ..Forge::new().enclave };
    let forge = Forge { enclave, ..Forge::new() };
    assert!(forge.enclave.pcrs().iter().any(|(_, value)| *value != [0; 48]));
    let unmet = || Unmet::Debug { found: Box::new(forge.measurement()) };
    assert_unmet(judge(&forge, &forge.expected()), unmet());
    assert_unmet(judge(&forge, &Expectations::dangerous_any_measurement()), unmet());
    let evidence = judge(&forge, &forge.expected().dangerous_allow_debug()).unwrap();
    assert!(evidence.is_debug());
}

#[test]
fn allowing_debug_mode_does_not_accept_another_measurement() {
    let enclave = EnclaveSpec { measurement: [[0; 48]; 3], ..Forge::new().enclave };
    let forge = Forge { enclave, ..Forge::new() };
    let expected = Forge::new().expected().dangerous_allow_debug();
    let found = Box::new(forge.measurement());
    assert_unmet(judge(&forge, &expected), Unmet::Measurement { found, accepted: 1 });
}

// Single PCRs.

#[test]
fn another_value_of_any_pcr_is_refused_with_both_values() {
    let forge = Forge::new();
    let expected = Pcr::new([0x5a; 48]);
    for (index, value) in forge.enclave.pcrs() {
        let unmet =
            Unmet::Pcr { index, found: Box::new(Pcr::new(value)), expected: Box::new(expected) };
        let text = unmet.to_string();
        assert!(text.contains(&expected.to_string()), "{text}");
        assert!(text.contains(&Pcr::new(value).to_string()), "{text}");
        assert_unmet(judge(&forge, &forge.expected().with_pcr(index, expected)), unmet);
    }
}

#[test]
fn an_expected_pcr_that_is_missing_is_refused_even_if_zero_is_expected() {
    let forge = Forge::new();
    for index in [16, 31, 32, 255] {
        let expected = forge.expected().with_pcr(index, Pcr::ZERO);
        assert_unmet(judge(&forge, &expected), Unmet::PcrMissing { index });
    }
}

#[test]
fn pcr8_is_that_of_the_signing_certificate() {
    let certificate = b"any DER";
    let pcr8 = Pcr::of_signing_certificate(certificate);
    let enclave = EnclaveSpec { signer: Some(*pcr8.as_bytes()), ..Forge::new().enclave };
    let forge = Forge { enclave, ..Forge::new() };
    judge(&forge, &forge.expected().with_pcr(8, pcr8)).unwrap();
    let other = Pcr::of_signing_certificate(b"another");
    assert!(judge(&forge, &forge.expected().with_pcr(8, other)).is_err());
}

// The enclave's own fields.

#[test]
fn another_nonce_user_data_or_public_key_is_refused() {
    let forge = Forge::new();
    let other = vec![0x5a; 32];
    for (field, expected, found) in [
        (BoundField::Nonce, forge.expected().with_nonce(other.clone()), NONCE.to_vec()),
        (
            BoundField::UserData,
            forge.expected().with_user_data(other.clone()),
            b"user data".to_vec(),
        ),
        (
            BoundField::PublicKey,
            forge.expected().with_public_key(other.clone()),
            b"public key".to_vec(),
        ),
    ] {
        let unmet = Unmet::Field { field, found: Some(found), expected: other.clone() };
        assert_unmet(judge(&forge, &expected), unmet);
    }
}

#[test]
fn a_nonce_that_is_a_prefix_or_longer_is_refused() {
    let forge = Forge::new();
    for length in [16, 31, 33, 64] {
        let expected = vec![0x4e; length];
        let unmet = Unmet::Field {
            field: BoundField::Nonce,
            found: Some(NONCE.to_vec()),
            expected: expected.clone(),
        };
        assert_unmet(judge(&forge, &forge.expected().with_nonce(expected)), unmet);
    }
}

#[test]
fn an_expected_nonce_of_less_than_16_bytes_is_refused_even_if_it_matches() {
    let forge = Forge::new();
    let nsm = forge.host.start(forge.enclave.clone());
    for found in [0, 1, 15, 16] {
        let nonce = vec![0x4e; found];
        let document = nsm.attest(None, Some(&nonce), None, NOW).unwrap();
        let expected = forge.expected().with_nonce(nonce);
        let outcome = verify(&document, &forge.root(), &expected, now(NOW));
        if found < 16 {
            assert_unmet(outcome, Unmet::NonceTooShort { found, least: 16 });
        } else {
            outcome.unwrap();
        }
    }
}

#[test]
fn an_absent_field_meets_no_expectation_not_even_an_empty_one() {
    let forge = Forge::new();
    let nsm = forge.host.start(forge.enclave.clone());
    for empty in [None, Some(&[][..])] {
        let document = nsm.attest(empty, empty, empty, NOW).unwrap();
        for (field, expected, value) in [
            (BoundField::UserData, forge.expected().with_user_data([]), vec![]),
            (BoundField::PublicKey, forge.expected().with_public_key([]), vec![]),
            (BoundField::Nonce, forge.expected().with_nonce(NONCE), NONCE.to_vec()),
        ] {
            let outcome = verify(&document, &forge.root(), &expected, now(NOW));
            assert_unmet(outcome, Unmet::Field { field, found: None, expected: value });
        }
    }
}

#[test]
fn another_region_is_refused() {
    let forge = Forge::new();
    let unmet = Unmet::Region { found: REGION.to_owned(), expected: "us-east-1".to_owned() };
    assert_unmet(judge(&forge, &forge.expected().with_region("us-east-1")), unmet);
}

// Time.

fn at(now: u64, max_age_ms: Option<u64>, future_tolerance_ms: u64) -> At {
    let freshness = Freshness { max_age_ms, future_tolerance_ms };
    At::Now { now: UnixMillis::new(now), freshness }
}

#[test]
fn a_document_older_than_the_greatest_age_is_refused() {
    let forge = Forge::new();
    let judge = |age, max_age| judge_at(&forge, &forge.expected(), at(NOW + age, max_age, 0));
    judge(0, Some(0)).unwrap();
    judge(5000, Some(5000)).unwrap();
    judge(5000, None).unwrap();
    let (timestamp, now) = (UnixMillis::new(NOW), UnixMillis::new(NOW + 5001));
    assert_unmet(judge(5001, Some(5000)), Unmet::TooOld { timestamp, now, max_age_ms: 5000 });
}

#[test]
fn a_document_from_the_future_is_refused_beyond_the_tolerance() {
    let forge = Forge::new();
    // The leaf is dated back by three seconds, so it is valid already.
    let judge =
        |lead, tolerance| judge_at(&forge, &forge.expected(), at(NOW - lead, None, tolerance));
    judge(0, 0).unwrap();
    judge(500, 500).unwrap();
    let (timestamp, now) = (UnixMillis::new(NOW), UnixMillis::new(NOW - 501));
    assert_unmet(judge(501, 500), Unmet::FromTheFuture { timestamp, now, tolerance_ms: 500 });
}

#[test]
fn a_leaf_outlives_the_document_that_a_greatest_age_refuses() {
    let forge = Forge::new();
    let hour = 3_600_000;
    let hours_old = |max_age| judge_at(&forge, &forge.expected(), at(NOW + 2 * hour, max_age, 0));
    hours_old(None).unwrap();
    assert!(matches!(hours_old(Some(60_000)), Err(Refusal::Unmet(Unmet::TooOld { .. }))));
    let expired = judge_at(&forge, &forge.expected(), at(NOW + 3 * hour, None, 0));
    assert!(matches!(expired, Err(Refusal::Certificate { .. })));
    judge_at(&forge, &forge.expected(), At::Document).unwrap();
}

#[test]
fn expectations_are_judged_only_on_genuine_documents() {
    let forge = Forge::new();
    let nsm = forge.host.start(forge.enclave.clone());
    let mut document = nsm.attest(None, None, None, NOW).unwrap();
    *document.last_mut().unwrap() ^= 1;
    let nothing = Expectations::measured_as([]);
    let outcome = verify(&document, &forge.root(), &nothing, at(NOW + 60_000, Some(0), 0));
    assert_eq!(outcome, Err(Refusal::Signature));
}

// The crate itself.

#[test]
fn no_feature_of_the_crate_can_switch_a_check_off() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let manifest = manifest.unwrap();
    assert!(!manifest.contains("[features]") && !manifest.contains("optional"));
}

#[test]
fn the_simulator_renews_certificates_and_refuses_what_the_device_refuses() {
    let forge = Forge::new();
    let nsm = forge.host.start(forge.enclave.clone());
    let hour = 3_600_000;
    let mut expiries = std::collections::BTreeSet::new();
    for elapsed in [0, 1, 2, 4, 30, 200, 24 * 30] {
        let time = NOW + elapsed * hour;
        let document = nsm.attest(None, Some(&NONCE), None, time).unwrap();
        let expected = forge.expected().with_nonce(NONCE);
        let evidence = verify(&document, &forge.root(), &expected, now(time)).unwrap();
        assert_eq!(evidence.timestamp(), UnixMillis::new(time));
        expiries.insert(evidence.leaf_not_after());
    }
    assert_eq!(expiries.len(), 5, "the first three share a leaf");
    assert!(nsm.attest(Some(&[0; 513]), None, None, NOW).is_err());
    assert!(nsm.attest(None, Some(&[0; 513]), None, NOW).is_err());
    assert!(nsm.attest(None, None, Some(&[0; 1025]), NOW).is_err());
}
