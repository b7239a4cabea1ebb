//! What a host hands to a boot in a recovery, and an operator to a governor's tool.

use casemate_proto::cbor;
use casemate_proto::recovery::{MAX_SIGNED_CERTIFICATE, SignedCertificate};
use casemate_recovery::{Release, SealedBlob};

use crate::Target;

/// The targets of this module.
#[rustfmt::skip] // a line each
pub const TARGETS: &[Target] = &[
    Target { name: "recovery_certificate", run: certificate },
    Target { name: "recovery_release", run: release },
    Target { name: "sealed_blob", run: blob },
];

/// A certificate is decoded strictly, and what is decoded has one id.
///
/// # Panics
/// If not.
pub fn certificate(data: &[u8]) {
    if let Ok(signed) = cbor::decode::<SignedCertificate>(data, MAX_SIGNED_CERTIFICATE) {
        assert_eq!(cbor::encode(&signed), data, "two encodings of one certificate");
        for boot in &signed.certificate.boots {
            let _ = boot.offer.is_signed(&signed.certificate.scope());
        }
        let _ = signed.certificate.signing_bytes();
    }
}

/// A blob's outer form is decoded strictly, and its hash is of all of it but the signature.
///
/// # Panics
/// If not.
pub fn blob(data: &[u8]) {
    if let Ok(blob) = SealedBlob::decode(data) {
        assert_eq!(blob.encode(), data, "two encodings of one blob");
        let mut unsigned = blob.clone();
        unsigned.signature = [0; 64];
        assert_eq!(unsigned.hash(), blob.hash());
        assert_ne!(SealedBlob::signing_bytes(&blob.hash()), Vec::<u8>::new());
    }
}

/// A release is decoded strictly.
///
/// # Panics
/// If not.
pub fn release(data: &[u8]) {
    if let Ok(release) = Release::decode(data) {
        assert_eq!(cbor::encode(&release), data, "two encodings of one release");
    }
}
