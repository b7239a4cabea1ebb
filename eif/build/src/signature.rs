//! The signature of an image: PCR0 under the key of a certificate, which PCR8 then names.
//!
//! ```text
//! section     = [ { "signing_certificate": bytes, "signature": bytes } ]
//! signature   = COSE_Sign1 (ES384, untagged) over { "register_index": 0, "register_value": bytes }
//! ```
//!
//! in CBOR, where AWS's library writes `bytes` as an array of numbers; so does this module. The
//! certificate is PEM. One form is read: what is decoded, encoded again, gives the bytes that came.
//!
//! Signing is deterministic (RFC 6979), so that the same inputs give the same file.

use casemate_attestation_verify::Pcr;
use coset::{CborSerializable as _, CoseSign1, CoseSign1Builder, HeaderBuilder, iana::Algorithm};
use der::{Decode as _, referenced::OwnedToRef as _};
use minicbor::{Decoder, Encoder, data::Type};
use p384::ecdsa::signature::{Signer as _, Verifier as _};
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use p384::pkcs8::DecodePrivateKey as _;
use x509_cert::Certificate as X509;

/// Most bytes of the section, as CBOR.
pub const MAX_SECTION: usize = 64 * 1_024;
/// Most bytes of a certificate's PEM.
pub const MAX_CERTIFICATE: usize = 16 * 1_024;
/// Most bytes of a private key's PEM.
pub const MAX_KEY: usize = 16 * 1_024;
/// Most bytes of the COSE_Sign1.
const MAX_SIGNATURE: usize = 4 * 1_024;

const CERTIFICATE: &str = "signing_certificate";
const SIGNATURE: &str = "signature";

/// Why a signature, a certificate or a key does not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The section is not of the one form.
    #[error("the signature section is not one signature in the form that AWS's tools write")]
    Section,
    /// The signature is no COSE_Sign1 with ES384 and nothing else in its headers.
    #[error("the signature is no COSE_Sign1 with ES384")]
    Cose,
    /// What was signed is not the image's PCR0.
    #[error("the signature is over something else than this image's PCR0")]
    Payload,
    /// The signature does not verify.
    #[error("the signature does not verify under its certificate")]
    Wrong,
    /// Not one certificate as PEM.
    #[error("the signing certificate is not one PEM block labelled `CERTIFICATE`")]
    CertificatePem,
    /// Not a certificate, or one of a key that is not P-384.
    #[error("the signing certificate is no X.509 certificate of a P-384 key")]
    Certificate,
    /// Not a P-384 key as PEM.
    #[error("the signing key is no P-384 key as PEM: `PRIVATE KEY` or `EC PRIVATE KEY`")]
    Key,
    /// The key and the certificate are two pairs' halves.
    #[error("the signing key is not the one of the signing certificate")]
    OtherKey,
}

/// A certificate of a P-384 key.
#[derive(Clone, Debug)]
pub struct Certificate {
    pem: Vec<u8>,
    der: Vec<u8>,
    key: VerifyingKey,
    subject: String,
}

impl Certificate {
    /// Reads one certificate as PEM.
    ///
    /// # Errors
    /// If it is not one, or of another kind of key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SignatureError> {
        if pem.len() > MAX_CERTIFICATE {
            return Err(SignatureError::CertificatePem);
        }
        let Ok(("CERTIFICATE", der)) = der::pem::decode_vec(pem) else {
            return Err(SignatureError::CertificatePem);
        };
        let parsed = X509::from_der(&der).map_err(|_| SignatureError::Certificate)?;
        let spki = parsed.tbs_certificate.subject_public_key_info.owned_to_ref();
        let key = p384::PublicKey::try_from(spki).map_err(|_| SignatureError::Certificate)?;
        let subject = parsed.tbs_certificate.subject.to_string();
        Ok(Self { pem: pem.to_vec(), der, key: key.into(), subject })
    }

    /// The certificate's DER, which PCR8 is over.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whose it is, as RFC 4514 writes names. Nobody vouches for it.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// A certificate and its key.
pub struct Signer {
    certificate: Certificate,
    key: SigningKey,
}

impl core::fmt::Debug for Signer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Signer")
            .field("certificate", &self.certificate)
            .field("key", &"<redacted>")
            .finish()
    }
}

impl Signer {
    /// Reads the pair from PEM.
    ///
    /// # Errors
    /// If either is not what it should be, or they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, SignatureError> {
        let certificate = Certificate::from_pem(certificate)?;
        if key.len() > MAX_KEY {
            return Err(SignatureError::Key);
        }
        let text = core::str::from_utf8(key).map_err(|_| SignatureError::Key)?;
        let secret = p384::SecretKey::from_pkcs8_pem(text)
            .ok()
            .or_else(|| p384::SecretKey::from_sec1_pem(text).ok())
            .ok_or(SignatureError::Key)?;
        let key = SigningKey::from(secret);
        if *key.verifying_key() != certificate.key {
            return Err(SignatureError::OtherKey);
        }
        Ok(Self { certificate, key })
    }

    /// The certificate that PCR8 names.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The signature section of an image with this PCR0.
    ///
    /// # Errors
    /// If the key does not sign.
    pub fn sign(&self, pcr0: &Pcr) -> Result<Vec<u8>, SignatureError> {
        let payload = payload(pcr0)?;
        let signed = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(Algorithm::ES384).build())
            .payload(payload)
            .try_create_signature(&[], |message| {
                let signature: Signature = self.key.try_sign(message)?;
                Ok(signature.to_bytes().to_vec())
            })
            .map_err(|_: p384::ecdsa::Error| SignatureError::Wrong)?
            .build();
        let signature = signed.to_vec().map_err(|_| SignatureError::Cose)?;
        encode(&self.certificate.pem, &signature)
    }
}

/// A signature over an image's PCR0 that was verified.
#[derive(Clone, Debug)]
pub struct Signed {
    certificate: Certificate,
}

impl Signed {
    /// Verifies an image's signature section. The certificate is believed by nobody for itself: PCR8
    /// names it, and whoever accepts an image says which PCR8.
    ///
    /// # Errors
    /// If it is no signature section, or not over this PCR0.
    pub fn verify(section: &[u8], pcr0: &Pcr) -> Result<Self, SignatureError> {
        let (certificate, signature) = decode(section)?;
        let certificate = Certificate::from_pem(&certificate)?;
        let signed = CoseSign1::from_slice(&signature).map_err(|_| SignatureError::Cose)?;
        let header = HeaderBuilder::new().algorithm(Algorithm::ES384).build();
        let again = signed.clone().to_vec().map_err(|_| SignatureError::Cose)?;
        if signed.protected.header != header || !signed.unprotected.is_empty() || again != signature
        {
            return Err(SignatureError::Cose);
        }
        if signed.payload.as_ref() != Some(&payload(pcr0)?) {
            return Err(SignatureError::Payload);
        }
        let verified = signed.verify_signature(&[], |signature, message| {
            certificate.key.verify(message, &Signature::from_slice(signature)?)
        });
        match verified {
            Ok(()) => Ok(Self { certificate }),
            Err(_) => Err(SignatureError::Wrong),
        }
    }

    /// The certificate under whose key the signature is.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

type Out = Encoder<Vec<u8>>;
type EncodeError = minicbor::encode::Error<core::convert::Infallible>;

fn numbers(out: &mut Out, bytes: &[u8]) -> Result<(), EncodeError> {
    out.array(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    for byte in bytes {
        out.u8(*byte)?;
    }
    Ok(())
}

fn encoded(
    write: impl FnOnce(&mut Out) -> Result<(), EncodeError>,
) -> Result<Vec<u8>, SignatureError> {
    let mut out = Encoder::new(Vec::new());
    // nothing fails on the way to a vector
    write(&mut out).map_err(|_| SignatureError::Section)?;
    Ok(out.into_writer())
}

/// What is signed.
fn payload(pcr0: &Pcr) -> Result<Vec<u8>, SignatureError> {
    encoded(|out| {
        out.map(2)?.str("register_index")?.u8(0)?.str("register_value")?;
        numbers(out, pcr0.as_bytes())
    })
}

fn encode(certificate: &[u8], signature: &[u8]) -> Result<Vec<u8>, SignatureError> {
    encoded(|out| {
        out.array(1)?.map(2)?.str(CERTIFICATE)?;
        numbers(out, certificate)?;
        out.str(SIGNATURE)?;
        numbers(out, signature)
    })
}

fn decode(section: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SignatureError> {
    let mut input = Decoder::new(section);
    let decoded = (section.len() <= MAX_SECTION).then(|| parts(&mut input)).flatten();
    let (certificate, signature) = decoded.ok_or(SignatureError::Section)?;
    // a second encoding of the same, and whatever follows it, is another section
    if encode(&certificate, &signature)? != section {
        return Err(SignatureError::Section);
    }
    Ok((certificate, signature))
}

fn parts(input: &mut Decoder<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let outer = (input.array().ok()?, input.map().ok()?);
    if outer != (Some(1), Some(2)) || input.str().ok()? != CERTIFICATE {
        return None;
    }
    let certificate = read_numbers(input, MAX_CERTIFICATE)?;
    if input.str().ok()? != SIGNATURE {
        return None;
    }
    Some((certificate, read_numbers(input, MAX_SIGNATURE)?))
}

fn read_numbers(input: &mut Decoder<'_>, most: usize) -> Option<Vec<u8>> {
    let length = usize::try_from(input.array().ok()??).ok()?;
    if length > most {
        return None;
    }
    let number = |input: &mut Decoder<'_>| match input.datatype().ok()? {
        Type::U8 => input.u8().ok(),
        _ => None,
    };
    (0..length).map(|_| number(input)).collect()
}
