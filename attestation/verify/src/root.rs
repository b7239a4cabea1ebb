//! The trust root is data: a certificate pinned by its fingerprint, and a revocation list.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    certificate::{Certificate, without_leading_zeroes},
    refusal::CertificateFault,
    wire::MAX_CERTIFICATE_BYTES,
};

/// The root of AWS Nitro Enclaves, generation 1, as published at
/// <https://aws-nitro-enclaves.amazonaws.com/AWS_NitroEnclaves_Root-G1.zip>.
pub const AWS_NITRO_ENCLAVES_G1_PEM: &str = include_str!("../roots/aws-nitro-enclaves-g1.pem");

/// The greatest accepted PEM file in bytes: a certificate in base64 and its two lines, with room for
/// text around them.
const MAX_PEM_BYTES: usize = 8 * 1024;

/// What a chain must start with, and which certificates are accepted no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRoot {
    fingerprint: [u8; 32],
    revoked: BTreeSet<Revocation>,
}

/// A revoked certificate, named by its issuer and serial number: serial numbers are unique for one
/// issuer only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revocation {
    issuer: Vec<u8>,
    serial: Vec<u8>,
}

/// Why a certificate is not a trust root.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootError {
    /// The text is not exactly one PEM block labelled `CERTIFICATE`.
    #[error("the root is not one PEM block labelled `CERTIFICATE`")]
    Pem,
    /// The certificate is larger than one in a document can be.
    #[error("the root has {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// Its length in bytes.
        found: usize,
        /// The greatest allowed.
        limit: usize,
    },
    /// The certificate is outside Nitro's profile.
    #[error("the root {0}")]
    Certificate(#[from] CertificateFault),
    /// The certificate is not self-signed.
    #[error("the root is not self-signed")]
    NotSelfSigned,
    /// The certificate is no authority that signs certificates.
    #[error("the root is no certificate authority")]
    NotAuthority,
}

impl TrustRoot {
    /// Pins the root certificate with this SHA-256 fingerprint (over its DER).
    #[must_use]
    pub fn from_fingerprint(sha256: [u8; 32]) -> Self {
        Self { fingerprint: sha256, revoked: BTreeSet::new() }
    }

    /// Pins a root certificate given as DER.
    ///
    /// # Errors
    /// When it is not a self-signed authority in Nitro's profile: such a root would verify nothing, and
    /// it is better to learn that here.
    pub fn from_der(certificate: &[u8]) -> Result<Self, RootError> {
        if certificate.len() > MAX_CERTIFICATE_BYTES {
            return Err(RootError::TooLong {
                found: certificate.len(),
                limit: MAX_CERTIFICATE_BYTES,
            });
        }
        let root = Certificate::decode(certificate)?;
        if root.issuer != root.subject || !root.is_signed_by(&root) {
            return Err(RootError::NotSelfSigned);
        }
        if !root.authority || !root.may_sign_certificates {
            return Err(RootError::NotAuthority);
        }
        Ok(Self::from_fingerprint(Sha256::digest(certificate).into()))
    }

    /// Pins a root certificate given as PEM, such as [`AWS_NITRO_ENCLAVES_G1_PEM`].
    ///
    /// # Errors
    /// As [`TrustRoot::from_der`], and when the text is not exactly one PEM certificate.
    pub fn from_pem(certificate: &str) -> Result<Self, RootError> {
        if certificate.len() > MAX_PEM_BYTES {
            return Err(RootError::TooLong { found: certificate.len(), limit: MAX_PEM_BYTES });
        }
        match der::pem::decode_vec(certificate.as_bytes()) {
            Ok(("CERTIFICATE", der)) => Self::from_der(&der),
            _ => Err(RootError::Pem),
        }
    }

    /// Adds certificates that are accepted no longer, at any place in a chain.
    #[must_use]
    pub fn with_revoked(mut self, revoked: impl IntoIterator<Item = Revocation>) -> Self {
        self.revoked.extend(revoked);
        self
    }

    /// SHA-256 of the root certificate's DER.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub(crate) fn revokes(&self, issuer: &[u8], serial: &[u8]) -> bool {
        // Lists are short; a lookup by borrowed parts is not worth a second key type.
        self.revoked.iter().any(|entry| entry.issuer == issuer && entry.serial == serial)
    }
}

impl Revocation {
    /// Names a certificate by the DER of its issuer's name and its serial number, big-endian; leading
    /// zeroes do not matter.
    #[must_use]
    pub fn new(issuer_der: &[u8], serial: &[u8]) -> Self {
        Self { issuer: issuer_der.to_vec(), serial: without_leading_zeroes(serial).to_vec() }
    }

    /// Names this certificate.
    ///
    /// # Errors
    /// When it is outside Nitro's profile.
    pub fn of_certificate(certificate_der: &[u8]) -> Result<Self, CertificateFault> {
        if certificate_der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateFault::Encoding);
        }
        let certificate = Certificate::decode(certificate_der)?;
        Ok(Self { issuer: certificate.issuer, serial: certificate.serial })
    }
}
