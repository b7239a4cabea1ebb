//! Attestation documents, and the certificates in them.

use std::sync::LazyLock;

use casemate_attestation_verify::{
    AWS_NITRO_ENCLAVES_G1_PEM, At, Expectations, Freshness, Refusal, Revocation, TrustRoot,
    UnixMillis, Unmet, verify,
};

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "attestation_document", run: attestation_document },
    Target { name: "attestation_certificate", run: attestation_certificate },
];

static AWS: LazyLock<Option<TrustRoot>> =
    LazyLock::new(|| TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM).ok());

/// More than any reason takes that quotes a bounded part of its input.
const MAX_REASON_BYTES: usize = 2048;

/// Only Nitro makes documents, so one that verifies is a seed or says the same as one; it meets no
/// expectation that it should not, and a reason for a refusal is one short printable line.
pub fn attestation_document(data: &[u8]) {
    let Some(root) = &*AWS else { return };
    let anything = Expectations::dangerous_any_measurement().dangerous_allow_debug();
    match verify(data, root, &anything, At::Document) {
        Ok(evidence) => {
            assert!(!evidence.module_id().is_empty(), "no module id");
            assert!(
                evidence.timestamp() < evidence.leaf_not_after(),
                "made after its leaf expired"
            );
            assert!(evidence.chain_not_after() <= evidence.leaf_not_after(), "not the earliest");
            assert!((3..=32).contains(&evidence.pcrs().count()), "number of PCRs");
            let nothing = Expectations::measured_as([]).dangerous_allow_debug();
            let outcome = verify(data, root, &nothing, At::Document);
            assert_eq!(outcome, Err(Refusal::Unmet(Unmet::NothingAccepted)));
            let listed = Expectations::measured_as([evidence.measurement()]);
            let outcome = verify(data, root, &listed, At::Document);
            assert_eq!(outcome.is_err(), evidence.is_debug(), "debug mode");
            let freshness = Freshness { max_age_ms: None, future_tolerance_ms: u64::MAX };
            let expired = At::Now { now: evidence.chain_not_after(), freshness };
            assert!(verify(data, root, &anything, expired).is_err(), "expired");
            let early = At::Now { now: UnixMillis::new(0), freshness };
            assert!(verify(data, root, &anything, early).is_err(), "not yet valid");
        }
        Err(refusal) => {
            let reason = refusal.to_string();
            assert!(reason.len() <= MAX_REASON_BYTES, "a reason of {} bytes", reason.len());
            assert!(!reason.contains(char::is_control), "a control character in {reason:?}");
        }
    }
}

/// A certificate that can be a root can be revoked, and is its own.
pub fn attestation_certificate(data: &[u8]) {
    let revocation = Revocation::of_certificate(data);
    match TrustRoot::from_der(data) {
        Ok(root) => {
            assert_eq!(TrustRoot::from_fingerprint(*root.fingerprint()), root);
            assert!(revocation.is_ok(), "a root that cannot be revoked");
        }
        Err(error) => assert!(error.to_string().len() <= MAX_REASON_BYTES, "{error}"),
    }
    if let Ok(text) = core::str::from_utf8(data) {
        let _ = TrustRoot::from_pem(text);
    }
}
