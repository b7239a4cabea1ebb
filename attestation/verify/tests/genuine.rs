//! Genuine documents, made by Nitro from 2021 to 2026, verify under AWS's root with exactly the fields
//! that other implementations read from them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use casemate_attestation_verify::{
    At, Expectations, Freshness, Measurement, Pcr, Refusal, TrustRoot, UnixMillis, Unmet, verify,
};
use common::{anything, aws, genuine};
use sha2::{Digest, Sha256};

#[test]
fn every_genuine_document_verifies_with_the_known_fields() {
    let mut verified = 0;
    for document in genuine() {
        let known = &document.known;
        let evidence = verify(&document.bytes, &aws(), &anything(), At::Document)
            .unwrap_or_else(|refusal| panic!("{}: {refusal}", known.name));
        assert_eq!(evidence.module_id(), known.module_id);
        assert_eq!(evidence.timestamp(), UnixMillis::new(known.timestamp_ms));
        assert_eq!(evidence.region(), known.region);
        assert_eq!(evidence.pcrs().collect::<Vec<_>>(), Vec::from_iter(known.pcrs()));
        assert_eq!(evidence.public_key(), known.fields.public_key.value().as_deref());
        assert_eq!(evidence.user_data(), known.fields.user_data.value().as_deref());
        assert_eq!(evidence.nonce(), known.fields.nonce.value().as_deref());
        assert_eq!(evidence.is_debug(), known.debug_pcr0_1_2_all_zero);
        assert_eq!(evidence.leaf_not_after(), time(&known.leaf_not_after));
        let earliest = known.chain_not_after.iter().map(|text| time(text)).min().unwrap();
        assert_eq!(evidence.chain_not_after(), earliest);
        verified += 1;
    }
    assert!(verified >= 18, "{verified} documents");
}

#[test]
fn the_documents_cover_what_differs_between_them() {
    let documents = genuine();
    let count = |holds: fn(&common::Known) -> bool| {
        documents.iter().filter(|document| holds(&document.known)).count()
    };
    assert!(count(|known| known.payload_map_indefinite_length) >= 2);
    assert!(count(|known| known.high_s) >= 5);
    assert!(count(|known| !known.high_s) >= 5);
    assert!(count(|known| known.pcrs.len() == 32) >= 1);
    assert!(count(|known| known.debug_pcr0_1_2_all_zero) >= 5);
    assert!(count(|known| !known.debug_pcr0_1_2_all_zero) >= 10);
}

#[test]
fn every_genuine_document_meets_all_its_own_values_as_expectations() {
    let mut met = 0;
    for document in genuine() {
        let known = &document.known;
        let pcrs = known.pcrs();
        let measurement = Measurement { pcr0: pcrs[&0], pcr1: pcrs[&1], pcr2: pcrs[&2] };
        let other = Measurement { pcr0: Pcr::new([7; 48]), ..measurement };
        let mut expected =
            Expectations::measured_as([other, measurement]).with_region(&known.region);
        if known.debug_pcr0_1_2_all_zero {
            expected = expected.dangerous_allow_debug();
        }
        for (index, value) in pcrs {
            expected = expected.with_pcr(index, value);
        }
        if let Some(nonce) = known.fields.nonce.value() {
            expected = expected.with_nonce(nonce);
        }
        if let Some(user_data) = known.fields.user_data.value() {
            expected = expected.with_user_data(user_data);
        }
        if let Some(public_key) = known.fields.public_key.value() {
            expected = expected.with_public_key(public_key);
        }
        let now = At::Now {
            now: UnixMillis::new(known.timestamp_ms),
            freshness: Freshness { max_age_ms: Some(0), future_tolerance_ms: 0 },
        };
        for at in [At::Document, now] {
            verify(&document.bytes, &aws(), &expected, at)
                .unwrap_or_else(|refusal| panic!("{}: {refusal}", known.name));
        }
        met += 1;
    }
    assert!(met >= 18);
}

#[test]
fn debug_documents_are_refused_unless_allowed() {
    let mut refused = 0;
    for document in genuine().iter().filter(|document| document.known.debug_pcr0_1_2_all_zero) {
        let zeroes = Measurement { pcr0: Pcr::ZERO, pcr1: Pcr::ZERO, pcr2: Pcr::ZERO };
        // Debug mode leaves the other registers alone, so "all PCRs are zero" would miss it.
        assert!(document.known.pcrs().values().any(|pcr| !pcr.is_zero()));
        for expected in
            [Expectations::dangerous_any_measurement(), Expectations::measured_as([zeroes])]
        {
            let refusal = verify(&document.bytes, &aws(), &expected, At::Document).unwrap_err();
            assert_eq!(refusal, Refusal::Unmet(Unmet::Debug { found: Box::new(zeroes) }));
            let allowed = expected.dangerous_allow_debug();
            verify(&document.bytes, &aws(), &allowed, At::Document).unwrap();
        }
        refused += 1;
    }
    assert!(refused >= 5, "{refused} debug documents");
}

#[test]
fn a_document_whose_signature_was_altered_at_its_source_is_refused() {
    let altered = common::named("NEGATIVE-veracruz-2022-badsig");
    assert!(!altered.known.verified);
    assert_eq!(verify(&altered.bytes, &aws(), &anything(), At::Document), Err(Refusal::Signature));
}

#[test]
fn the_pinned_root_has_the_published_fingerprint() {
    const PUBLISHED: &str = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";
    assert_eq!(hex::encode(aws().fingerprint()), PUBLISHED);
    let pinned: [u8; 32] = hex::decode(PUBLISHED).unwrap().try_into().unwrap();
    assert_eq!(TrustRoot::from_fingerprint(pinned), aws());
    let beside = std::fs::read(common::folder().join("aws-nitro-root-g1.pem")).unwrap();
    let ours = casemate_attestation_verify::AWS_NITRO_ENCLAVES_G1_PEM;
    assert_eq!(Sha256::digest(beside), Sha256::digest(ours));
}

#[test]
fn pcr4_is_derived_from_the_instance_id_in_every_genuine_document() {
    for document in genuine() {
        let (instance, _) = document.known.module_id.split_once("-enc").unwrap();
        assert_eq!(Pcr::of_instance_id(instance), document.known.pcrs()[&4], "{instance}");
    }
}

#[test]
fn a_genuine_document_is_refused_once_its_leaf_expires_and_before_it_is_valid() {
    for document in genuine() {
        let expiry = time(&document.known.leaf_not_after).get();
        let at = |now| At::Now {
            now: UnixMillis::new(now),
            freshness: Freshness { max_age_ms: None, future_tolerance_ms: u64::MAX },
        };
        let judge = |now| verify(&document.bytes, &aws(), &anything(), at(now));
        assert!(judge(expiry.checked_sub(1).unwrap()).is_ok());
        assert!(matches!(judge(expiry), Err(Refusal::Certificate { .. })));
        assert!(matches!(judge(0), Err(Refusal::Certificate { .. })));
        assert!(matches!(judge(u64::MAX), Err(Refusal::Certificate { .. })));
    }
}

/// The fixtures' times: `2022-11-10T01:52:00+00:00`.
fn time(text: &str) -> UnixMillis {
    use der::{DateTime, asn1::GeneralizedTime};
    let zulu = text.replace("+00:00", "Z");
    let date: DateTime = zulu.parse().unwrap();
    let seconds = GeneralizedTime::from_date_time(date).to_unix_duration().as_secs();
    UnixMillis::new(seconds.checked_mul(1000).unwrap())
}
