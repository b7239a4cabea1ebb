//! What the simulator makes is what Nitro makes, byte for byte where bytes are fixed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use casemate_attestation_verify::{At, Expectations, Measurement, Pcr, TrustRoot, verify};
use casemate_sim::{
    EnclaveSpec, SimHost,
    x509_cert::{Certificate, der::Decode, ext::Extension},
};

const NOW: u64 = 1_768_478_400_000;
const MEASUREMENT: [[u8; 48]; 3] = [[1; 48], [2; 48], [3; 48]];

/// The payload's keys in order, the kind of map, and the certificates, root first.
struct Layout {
    start: Vec<u8>,
    keys: Vec<String>,
    indefinite: bool,
    certificates: Vec<Vec<u8>>,
}

fn layout(document: &[u8]) -> Layout {
    let mut envelope = minicbor::Decoder::new(document);
    assert_eq!(envelope.array().unwrap(), Some(4));
    envelope.bytes().unwrap();
    envelope.map().unwrap();
    let start = document[..envelope.position()].to_vec();
    let payload = envelope.bytes().unwrap();
    assert_eq!(envelope.bytes().unwrap().len(), 96);
    assert_eq!(envelope.position(), document.len());

    let mut decoder = minicbor::Decoder::new(payload);
    let indefinite = decoder.map().unwrap().is_none();
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        let key = decoder.str().unwrap().to_owned();
        match key.as_str() {
            "certificate" => certificates.push(decoder.bytes().unwrap().to_vec()),
            "cabundle" => {
                let leaf = certificates.pop().unwrap();
                for _ in 0..decoder.array().unwrap().unwrap() {
                    certificates.push(decoder.bytes().unwrap().to_vec());
                }
                certificates.push(leaf);
            }
            _ => decoder.skip().unwrap(),
        }
        keys.push(key);
    }
    Layout { start, keys, indefinite, certificates }
}

/// What two certificates of one place in the chain have in common.
fn profile(certificate: &[u8]) -> (String, Vec<(String, bool)>, Vec<u8>, u64) {
    let certificate = Certificate::from_der(certificate).unwrap();
    let body = certificate.tbs_certificate;
    let extensions = body.extensions.unwrap();
    let listed = |extension: &Extension| (extension.extn_id.to_string(), extension.critical);
    // Basic constraints and key usage, whose values are fixed.
    let fixed = extensions
        .iter()
        .filter(|extension| matches!(listed(extension).0.as_str(), "2.5.29.19" | "2.5.29.15"))
        .flat_map(|extension| extension.extn_value.as_bytes().to_vec())
        .collect();
    let lifetime = body
        .validity
        .not_after
        .to_unix_duration()
        .saturating_sub(body.validity.not_before.to_unix_duration());
    let mut listed: Vec<_> = extensions.iter().map(listed).collect();
    listed.sort();
    let days = lifetime.as_secs() / 86_400;
    (certificate.signature_algorithm.oid.to_string(), listed, fixed, days)
}

#[test]
fn a_document_has_the_layout_of_a_genuine_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../vectors/attestation/turnkey-2026-06-32pcrs.bin");
    let genuine = layout(&std::fs::read(path).unwrap());
    let host = SimHost::new().unwrap();
    let nsm = host.start(EnclaveSpec::numbered(1, "us-east-1", MEASUREMENT));
    let ours = layout(&nsm.attest(None, None, None, NOW).unwrap());
    assert_eq!(ours.start, genuine.start);
    assert_eq!(ours.keys, genuine.keys);
    assert_eq!(ours.indefinite, genuine.indefinite);
    assert_eq!(ours.certificates.len(), genuine.certificates.len());
    for (index, (ours, genuine)) in ours.certificates.iter().zip(&genuine.certificates).enumerate()
    {
        let (ours, genuine) = (profile(ours), profile(genuine));
        assert_eq!((&ours.0, &ours.1, &ours.2), (&genuine.0, &genuine.1, &genuine.2), "{index}");
        assert!(ours.3.abs_diff(genuine.3) <= 1, "{index}: {} and {} days", ours.3, genuine.3);
    }
}

#[test]
fn enclaves_of_one_host_share_its_root_and_differ_in_all_that_names_them() {
    let host = SimHost::new().unwrap();
    let root = TrustRoot::from_pem(&host.root_pem().unwrap()).unwrap();
    let [pcr0, pcr1, pcr2] = MEASUREMENT.map(Pcr::new);
    let expected = Expectations::measured_as([Measurement { pcr0, pcr1, pcr2 }]);
    let evidence: Vec<_> = [(1, "us-east-1"), (2, "eu-west-1"), (3, "ap-southeast-1")]
        .into_iter()
        .map(|(number, region)| {
            let nsm = host.start(EnclaveSpec::numbered(number, region, MEASUREMENT));
            let document = nsm.attest(Some(b"x"), Some(&[7; 32]), None, NOW).unwrap();
            assert_eq!(nsm.root_pem().unwrap(), host.root_pem().unwrap());
            verify(&document, &root, &expected.clone().with_region(region), At::Document).unwrap()
        })
        .collect();
    for (index, one) in evidence.iter().enumerate() {
        for other in evidence.iter().skip(index).skip(1) {
            assert_ne!(one.module_id(), other.module_id());
            assert_ne!(one.region(), other.region());
            assert_ne!(one.pcr(3), other.pcr(3));
            assert_ne!(one.pcr(4), other.pcr(4));
            assert_eq!(one.measurement(), other.measurement());
        }
    }
}

#[test]
fn two_hosts_have_two_roots() {
    let (one, other) = (SimHost::new().unwrap(), SimHost::new().unwrap());
    assert_ne!(one.root_der(), other.root_der());
    let nsm = other.start(EnclaveSpec::numbered(1, "us-east-1", MEASUREMENT));
    let document = nsm.attest(None, None, None, NOW).unwrap();
    let root = TrustRoot::from_der(one.root_der()).unwrap();
    let expected = Expectations::dangerous_any_measurement();
    assert!(verify(&document, &root, &expected, At::Document).is_err());
}
