//! One certificate: strict DER to the few facts that the chain's rules need.
//!
//! The profile is Nitro's (`docs/attestation_process.md`, section 3.2.3) within RFC 5280: version 3,
//! ecdsa-with-SHA384 inside and outside, an uncompressed P-384 key, exactly one common name, critical
//! basic constraints, a key usage, and no critical extension besides those two.

use der::{
    AnyRef, Decode, Encode, Reader, Sequence,
    asn1::{BitStringRef, ObjectIdentifier, UintRef},
};
use x509_cert::{
    attr::AttributeTypeAndValue,
    ext::{Extension, pkix::KeyUsage},
    name::Name,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::Time,
};

use crate::{
    refusal::{CertificateFault, ExtensionFault},
    signature::{Backend, PublicKey, VerifyEs384},
    time::UnixMillis,
    wire::{MAX_CABUNDLE, SIGNATURE_BYTES},
};

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// Half of an ES384 signature: one scalar.
const SCALAR_BYTES: usize = SIGNATURE_BYTES / 2;

/// The greatest path length accepted: no longer chain fits into a document.
const MAX_PATH_LENGTH: u64 = 8;
const _: () = assert!(MAX_CABUNDLE == 8);

/// A certificate in the profile, its signature not yet verified.
pub(crate) struct Certificate<'a> {
    /// The bytes that are signed, as received.
    tbs: &'a [u8],
    signature: [u8; SIGNATURE_BYTES],
    key: PublicKey,
    /// DER of the issuer's and the subject's names; equal names are equal bytes.
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    /// The serial number's bytes, big-endian, without leading zeroes.
    pub(crate) serial: Vec<u8>,
    pub(crate) common_name: String,
    pub(crate) not_before: UnixMillis,
    pub(crate) not_after: UnixMillis,
    pub(crate) authority: bool,
    pub(crate) path_length: Option<u64>,
    pub(crate) may_sign: bool,
    pub(crate) may_sign_certificates: bool,
}

impl<'a> Certificate<'a> {
    /// Decodes a certificate of the profile.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, CertificateFault> {
        let encoding = |_: der::Error| CertificateFault::Encoding;
        let certificate = x509_cert::Certificate::from_der(bytes).map_err(encoding)?;
        // The decoder sorts sets and drops nothing else that DER forbids; what encodes to other bytes
        // was not DER.
        if certificate.to_der().map_err(encoding)? != bytes {
            return Err(CertificateFault::Encoding);
        }
        let (tbs, signature) = AnyRef::from_der(bytes)
            .and_then(|outer| {
                outer.sequence(|reader| {
                    let tbs = reader.tlv_bytes()?;
                    reader.tlv_bytes()?;
                    Ok((tbs, BitStringRef::decode(reader)?))
                })
            })
            .map_err(encoding)?;

        let body = certificate.tbs_certificate;
        if body.version != x509_cert::Version::V3 {
            return Err(CertificateFault::Version);
        }
        if body.issuer_unique_id.is_some() || body.subject_unique_id.is_some() {
            return Err(CertificateFault::UniqueIdentifier);
        }
        require_algorithm(&body.signature, &certificate.signature_algorithm)?;
        let extensions = Extensions::read(body.extensions.as_deref().unwrap_or_default())?;
        Ok(Self {
            tbs,
            signature: fixed_signature(signature).ok_or(CertificateFault::Encoding)?,
            key: p384_key(&body.subject_public_key_info).ok_or(CertificateFault::Key)?,
            issuer: body.issuer.to_der().map_err(encoding)?,
            subject: body.subject.to_der().map_err(encoding)?,
            serial: without_leading_zeroes(body.serial_number.as_bytes()).to_vec(),
            common_name: common_name(&body.subject)?,
            not_before: milliseconds(&body.validity.not_before)?,
            not_after: milliseconds(&body.validity.not_after)?,
            authority: extensions.basic.ca,
            path_length: extensions.basic.path_length,
            may_sign: extensions.usage.digital_signature(),
            may_sign_certificates: extensions.usage.key_cert_sign(),
        })
    }

    /// Whether `issuer`'s key signed this certificate.
    pub(crate) fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        Backend::verify(&issuer.key, self.tbs, &self.signature)
    }

    /// Whether this certificate's key made the ES384 signature over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        Backend::verify(&self.key, message, signature)
    }
}

/// A serial number in the form in which two are compared.
pub(crate) fn without_leading_zeroes(serial: &[u8]) -> &[u8] {
    let zeroes = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeroes..).unwrap_or_default()
}

fn require_algorithm(
    inner: &AlgorithmIdentifierOwned,
    outer: &AlgorithmIdentifierOwned,
) -> Result<(), CertificateFault> {
    if inner != outer {
        return Err(CertificateFault::AlgorithmsDiffer);
    }
    // RFC 5758, section 3.2: the parameters are absent, not null.
    if inner.oid != ECDSA_WITH_SHA384 || inner.parameters.is_some() {
        return Err(CertificateFault::SignatureAlgorithm { found: inner.oid.to_string() });
    }
    Ok(())
}

/// `Ecdsa-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER }` (RFC 5480) as r ‖ s.
fn fixed_signature(signature: BitStringRef<'_>) -> Option<[u8; SIGNATURE_BYTES]> {
    let (r, s) = AnyRef::from_der(signature.as_bytes()?)
        .and_then(|value| {
            value.sequence(|reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?)))
        })
        .ok()?;
    let mut fixed = [0; SIGNATURE_BYTES];
    let (left, right) = fixed.split_at_mut(SCALAR_BYTES);
    copy_to_end(left, r.as_bytes())?;
    copy_to_end(right, s.as_bytes())?;
    Some(fixed)
}

fn copy_to_end(into: &mut [u8], bytes: &[u8]) -> Option<()> {
    let start = into.len().checked_sub(bytes.len())?;
    into.get_mut(start..)?.copy_from_slice(bytes);
    Some(())
}

fn p384_key(info: &SubjectPublicKeyInfoOwned) -> Option<PublicKey> {
    let curve = info.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
    if info.algorithm.oid != ID_EC_PUBLIC_KEY || curve != SECP384R1 {
        return None;
    }
    PublicKey::from_uncompressed(info.subject_public_key.as_bytes()?)
}

fn common_name(subject: &Name) -> Result<String, CertificateFault> {
    let mut names = subject
        .0
        .iter()
        .flat_map(|relative| relative.0.iter())
        .filter(|attribute| attribute.oid == COMMON_NAME);
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(CertificateFault::CommonName);
    };
    directory_string(name).ok_or(CertificateFault::CommonName)
}

/// RFC 5280 has authorities use `PrintableString` or `UTF8String`; the others of its `DirectoryString`
/// are kept for old ones only.
fn directory_string(attribute: &AttributeTypeAndValue) -> Option<String> {
    use der::{Tag, Tagged, asn1::PrintableStringRef, asn1::Utf8StringRef};
    match attribute.value.tag() {
        Tag::Utf8String => {
            Some(Utf8StringRef::try_from(&attribute.value).ok()?.as_str().to_owned())
        }
        Tag::PrintableString => {
            Some(PrintableStringRef::try_from(&attribute.value).ok()?.as_str().to_owned())
        }
        _ => None,
    }
}

fn milliseconds(time: &Time) -> Result<UnixMillis, CertificateFault> {
    time.to_unix_duration()
        .as_secs()
        .checked_mul(1000)
        .map(UnixMillis::new)
        .ok_or(CertificateFault::Encoding)
}

/// `BasicConstraints` (RFC 5280, section 4.2.1.9). The path length is read at full width and then
/// bounded: an audited validator of these documents let it wrap.
#[derive(Clone, Copy, Sequence)]
struct BasicConstraints {
    #[asn1(default = "Default::default")]
    ca: bool,
    #[asn1(optional = "true")]
    path_length: Option<u64>,
}

struct Extensions {
    basic: BasicConstraints,
    usage: KeyUsage,
}

impl Extensions {
    fn read(extensions: &[Extension]) -> Result<Self, ExtensionFault> {
        let (mut basic, mut usage) = (None, None);
        for (index, extension) in extensions.iter().enumerate() {
            let oid = extension.extn_id;
            if extensions.iter().take(index).any(|earlier| earlier.extn_id == oid) {
                return Err(ExtensionFault::Duplicate { oid: oid.to_string() });
            }
            match oid {
                BASIC_CONSTRAINTS => basic = Some(read_basic_constraints(extension)?),
                KEY_USAGE => {
                    usage = Some(
                        strict::<KeyUsage>(extension).ok_or(ExtensionFault::KeyUsageMalformed)?,
                    );
                }
                _ if extension.critical => {
                    return Err(ExtensionFault::UnknownCritical { oid: oid.to_string() });
                }
                _ => {}
            }
        }
        Ok(Self {
            basic: basic.ok_or(ExtensionFault::BasicConstraintsMissing)?,
            usage: usage.ok_or(ExtensionFault::KeyUsageMissing)?,
        })
    }
}

fn read_basic_constraints(extension: &Extension) -> Result<BasicConstraints, ExtensionFault> {
    let basic =
        strict::<BasicConstraints>(extension).ok_or(ExtensionFault::BasicConstraintsMalformed)?;
    if !extension.critical {
        return Err(ExtensionFault::BasicConstraintsNotCritical);
    }
    match basic.path_length {
        Some(_) if !basic.ca => Err(ExtensionFault::PathLengthWithoutAuthority),
        Some(found) if found > MAX_PATH_LENGTH => {
            Err(ExtensionFault::PathLengthOutOfRange { found, limit: MAX_PATH_LENGTH })
        }
        _ => Ok(basic),
    }
}

/// Decodes an extension's value, and encodes it again to be sure it was DER.
fn strict<T: for<'d> Decode<'d> + Encode>(extension: &Extension) -> Option<T> {
    let bytes = extension.extn_value.as_bytes();
    let value = T::from_der(bytes).ok()?;
    (value.to_der().ok()? == bytes).then_some(value)
}
