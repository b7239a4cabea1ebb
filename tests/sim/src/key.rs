//! Keys that sign certificates and documents.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
        ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair,
    },
};
use der::{
    Any,
    asn1::{BitString, ObjectIdentifier},
    pem::LineEnding,
};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

use crate::SimError;

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A key pair of the simulation; clones are the same key.
#[derive(Clone)]
pub struct SimKey(Arc<Pair>);

struct Pair {
    curve: ObjectIdentifier,
    /// One key, in the two signature formats: DER for certificates, r ‖ s for COSE.
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl SimKey {
    /// A new key on P-384, signing with SHA-384, as in every genuine certificate.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn p384() -> Result<Self, SimError> {
        Self::new(SECP384R1, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    /// A new key on P-256, signing with SHA-256, as in no genuine certificate.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn p256() -> Result<Self, SimError> {
        Self::new(SECP256R1, &ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    fn new(
        curve: ObjectIdentifier,
        asn1: &'static EcdsaSigningAlgorithm,
        fixed: &'static EcdsaSigningAlgorithm,
    ) -> Result<Self, SimError> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(asn1, &SystemRandom::new()).map_err(|_| SimError::Key)?;
        Self::from_pkcs8(curve, asn1, fixed, pkcs8.as_ref())
    }

    fn from_pkcs8(
        curve: ObjectIdentifier,
        asn1: &'static EcdsaSigningAlgorithm,
        fixed: &'static EcdsaSigningAlgorithm,
        pkcs8: &[u8],
    ) -> Result<Self, SimError> {
        let pair =
            |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).map_err(|_| SimError::Key);
        Ok(Self(Arc::new(Pair { curve, asn1: pair(asn1)?, fixed: pair(fixed)? })))
    }

    /// The key of a P-384 pair as PKCS #8: what [`SimKey::from_p384_secret_der`] takes.
    ///
    /// # Errors
    /// When it has no encoding.
    pub(crate) fn to_secret_der(&self) -> Result<Zeroizing<Vec<u8>>, SimError> {
        let pkcs8 = self.0.asn1.to_pkcs8v1().map_err(|_| SimError::Key)?;
        Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    /// The key of a P-384 pair as PKCS #8 in PEM, for a signer that is another program.
    ///
    /// # Errors
    /// When it has no encoding.
    pub fn to_secret_pem(&self) -> Result<Zeroizing<String>, SimError> {
        let der = self.to_secret_der()?;
        let pem = der::pem::encode_string("PRIVATE KEY", LineEnding::LF, &der);
        pem.map(Zeroizing::new).map_err(|error| SimError::Der(error.into()))
    }

    /// A key on P-384 from PKCS #8.
    ///
    /// # Errors
    /// When the bytes are no such key.
    pub(crate) fn from_p384_secret_der(pkcs8: &[u8]) -> Result<Self, SimError> {
        Self::from_pkcs8(
            SECP384R1,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            &ECDSA_P384_SHA384_FIXED_SIGNING,
            pkcs8,
        )
    }

    /// The public key: an uncompressed SEC1 point.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.0.asn1.public_key().as_ref()
    }

    /// The public key as certificates carry it.
    ///
    /// # Errors
    /// Never for a key that this module made.
    pub fn subject_public_key_info(&self) -> Result<SubjectPublicKeyInfoOwned, SimError> {
        Ok(SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: ID_EC_PUBLIC_KEY,
                parameters: Some(Any::encode_from(&self.0.curve)?),
            },
            subject_public_key: BitString::from_bytes(self.public_key())?,
        })
    }

    /// Signs in DER, as in a certificate.
    ///
    /// # Errors
    /// When the signer fails.
    pub fn sign_asn1(&self, message: &[u8]) -> Result<Vec<u8>, SimError> {
        sign(&self.0.asn1, message)
    }

    /// Signs as r ‖ s, as in COSE.
    ///
    /// # Errors
    /// When the signer fails.
    pub fn sign_fixed(&self, message: &[u8]) -> Result<Vec<u8>, SimError> {
        sign(&self.0.fixed, message)
    }
}

fn sign(pair: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, SimError> {
    crate::carry_marker();
    let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| SimError::Key)?;
    Ok(signature.as_ref().to_vec())
}

impl fmt::Debug for SimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimKey(<redacted>)")
    }
}
