//! Why a document was refused. The enums are exhaustive on purpose: a caller that decides on them is
//! told by the compiler when a reason is added.

use core::fmt;

use thiserror::Error;

use crate::{
    pcr::{Hex, Measurement, Pcr},
    time::UnixMillis,
};

/// Why a document is not evidence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The bytes are not an attestation document.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The first certificate of the bundle is not the pinned root.
    #[error("the chain's root has fingerprint `{}`, the pinned root has `{}`", Hex(.found), Hex(.pinned))]
    Root {
        /// SHA-256 of `cabundle[0]`.
        found: [u8; 32],
        /// SHA-256 of the pinned root certificate.
        pinned: [u8; 32],
    },
    /// One certificate of the chain is not as it must be.
    #[error("certificate `{position}` {fault}")]
    Certificate {
        /// Which one.
        position: Position,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// The certificates are valid and do not belong to what the document says.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
    /// The document's signature does not verify under the key of its `certificate`.
    #[error("the document's signature does not verify under the key of its `certificate`")]
    Signature,
    /// The document is genuine, and is not what was expected.
    #[error(transparent)]
    Unmet(#[from] Unmet),
}

/// A part of the document, named as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The COSE_Sign1 array.
    Document,
    /// COSE's protected header.
    ProtectedHeader,
    /// COSE's unprotected header.
    UnprotectedHeader,
    /// The signed payload.
    Payload,
    /// COSE's signature.
    Signature,
    /// A key of the payload's map.
    PayloadKey,
    /// `module_id`.
    ModuleId,
    /// `digest`.
    Digest,
    /// `timestamp`.
    Timestamp,
    /// `pcrs`.
    Pcrs,
    /// A key of the map `pcrs`.
    PcrIndex,
    /// A value of the map `pcrs`.
    PcrValue,
    /// `certificate`.
    Certificate,
    /// `cabundle`.
    Cabundle,
    /// One certificate of `cabundle`.
    CabundleEntry,
    /// `public_key`.
    PublicKey,
    /// `user_data`.
    UserData,
    /// `nonce`.
    Nonce,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Document => "the document",
            Self::ProtectedHeader => "the protected header",
            Self::UnprotectedHeader => "the unprotected header",
            Self::Payload => "the payload",
            Self::Signature => "the signature",
            Self::PayloadKey => "a key of the payload",
            Self::ModuleId => "`module_id`",
            Self::Digest => "`digest`",
            Self::Timestamp => "`timestamp`",
            Self::Pcrs => "`pcrs`",
            Self::PcrIndex => "an index in `pcrs`",
            Self::PcrValue => "a value in `pcrs`",
            Self::Certificate => "`certificate`",
            Self::Cabundle => "`cabundle`",
            Self::CabundleEntry => "a certificate in `cabundle`",
            Self::PublicKey => "`public_key`",
            Self::UserData => "`user_data`",
            Self::Nonce => "`nonce`",
        })
    }
}

/// The kind of a CBOR item, as far as this format tells kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Major type 0.
    Unsigned,
    /// Major type 1.
    Negative,
    /// Major type 2, of definite length.
    Bytes,
    /// Major type 3, of definite length.
    Text,
    /// Major type 4, of any length.
    Array,
    /// Major type 5, of any length.
    Map,
    /// Major type 6.
    Tag,
    /// The simple value `null`.
    Null,
    /// The end of an item of indefinite length, where none was open.
    Break,
    /// Floats, booleans, other simple values, reserved encodings.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "an unsigned integer",
            Self::Negative => "a negative integer",
            Self::Bytes => "a byte string",
            Self::Text => "a text string",
            Self::Array => "an array",
            Self::Map => "a map",
            Self::Tag => "a tag",
            Self::Null => "null",
            Self::Break => "a stray break",
            Self::Other => "another CBOR item",
        })
    }
}

/// How bytes fail to be an attestation document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A part is longer than the format allows.
    #[error("{part} has {found} bytes or elements, at most {limit} are allowed")]
    TooLong {
        /// Which part.
        part: Part,
        /// Its length: bytes of a string, elements of an array or map.
        found: u64,
        /// The greatest allowed length.
        limit: u64,
    },
    /// A part that may not be empty is.
    #[error("{part} is empty")]
    Empty {
        /// Which part.
        part: Part,
    },
    /// The input ends within a part.
    #[error("the input ends within {part}")]
    Truncated {
        /// Which part.
        part: Part,
    },
    /// A part is of another CBOR type.
    #[error("{part} is {found}, {expected} is required")]
    WrongType {
        /// Which part.
        part: Part,
        /// The type it has.
        found: Kind,
        /// The type it must have.
        expected: Kind,
    },
    /// A string is sent in chunks of indefinite length.
    #[error("{part} is a string in chunks of indefinite length")]
    Chunked {
        /// Which part.
        part: Part,
    },
    /// A text string is not UTF-8.
    #[error("{part} is not valid UTF-8")]
    NotUtf8 {
        /// Which part.
        part: Part,
    },
    /// An integer is outside its range.
    #[error("{part} is an integer out of range")]
    OutOfRange {
        /// Which part.
        part: Part,
    },
    /// The document is wrapped in a CBOR tag; genuine ones are not.
    #[error("the document carries CBOR tag `{tag}`, genuine ones are untagged")]
    Tagged {
        /// The tag's number.
        tag: u64,
    },
    /// The COSE array does not have exactly four elements.
    #[error("the document is an array of {found} elements, not of 4")]
    NotFourElements {
        /// How many it has, or declares; 5 stands for any more in an array of indefinite length.
        found: u64,
    },
    /// Bytes follow a part that must be the last.
    #[error("{count} bytes follow the end of {part}")]
    TrailingBytes {
        /// The part that should have ended the input.
        part: Part,
        /// How many bytes follow it.
        count: usize,
    },
    /// The protected header is not exactly `{1: -35}`: algorithm ES384 and nothing else.
    #[error("the protected header `{}` is not exactly the algorithm ES384", Hex(.found))]
    NotEs384 {
        /// The header's bytes.
        found: Vec<u8>,
    },
    /// The unprotected header, which no signature covers, is not empty.
    #[error("the unprotected header is not empty")]
    UnprotectedHeader,
    /// The signature is not 96 bytes long.
    #[error("the signature has {found} bytes, not 96")]
    SignatureLength {
        /// How many it has.
        found: usize,
    },
    /// A key occurs twice in the payload.
    #[error("{part} occurs twice in the payload")]
    DuplicateKey {
        /// Which one.
        part: Part,
    },
    /// An index occurs twice in `pcrs`.
    #[error("index `{index}` occurs twice in `pcrs`")]
    DuplicatePcr {
        /// Which one.
        index: u8,
    },
    /// The payload holds a key that the format does not have.
    #[error("the payload holds the unknown key {key:?}")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// The document comes from a NitroTPM, whose documents chain to the same root and say nothing of
    /// an enclave.
    #[error("the payload holds `nitrotpm_pcrs`: a NitroTPM's document, not an enclave's")]
    NitroTpm,
    /// The payload lacks a key.
    #[error("{part} is missing from the payload")]
    MissingKey {
        /// Which one.
        part: Part,
    },
    /// `digest` is not `SHA384`.
    #[error("`digest` is {found:?}, not `SHA384`")]
    Digest {
        /// What it is.
        found: String,
    },
    /// `timestamp` is zero.
    #[error("`timestamp` is zero")]
    TimestampZero,
    /// `module_id` holds anything but visible ASCII.
    #[error("`module_id` {found:?} holds more than visible ASCII")]
    ModuleId {
        /// What it is.
        found: String,
    },
    /// An index in `pcrs` is not below 32.
    #[error("`pcrs` holds the index `{index}`, indices are below 32")]
    PcrIndex {
        /// The index.
        index: u64,
    },
    /// A PCR is not 48 bytes long.
    #[error("PCR{index} has {found} bytes, not 48")]
    PcrLength {
        /// Which PCR.
        index: u8,
        /// How many bytes it has.
        found: usize,
    },
}

/// A certificate's place in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// `cabundle[n]`; 0 is the root.
    Cabundle(usize),
    /// `certificate`: the leaf, whose key signs the document.
    Leaf,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cabundle(index) => write!(f, "cabundle[{index}]"),
            Self::Leaf => f.write_str("certificate"),
        }
    }
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateFault {
    /// Not a certificate in strict DER.
    #[error("is not an X.509 certificate in strict DER")]
    Encoding,
    /// Not version 3.
    #[error("is not of version 3")]
    Version,
    /// It carries an issuer's or subject's unique identifier, which RFC 5280 forbids.
    #[error("carries a unique identifier")]
    UniqueIdentifier,
    /// The signed algorithm and the one beside the signature differ.
    #[error("names two different signature algorithms")]
    AlgorithmsDiffer,
    /// The signature's algorithm is not ecdsa-with-SHA384.
    #[error("is signed by algorithm `{found}`, not by ecdsa-with-SHA384")]
    SignatureAlgorithm {
        /// The algorithm's object identifier.
        found: String,
    },
    /// The subject's key is not an uncompressed point on P-384.
    #[error("does not hold an uncompressed P-384 key")]
    Key,
    /// The subject does not hold exactly one common name.
    #[error("does not have exactly one common name")]
    CommonName,
    /// An extension is wrong.
    #[error(transparent)]
    Extension(#[from] ExtensionFault),
    /// `at` is before `notBefore`.
    #[error("is not valid before `{not_before}`, judged at `{at}`")]
    NotYetValid {
        /// The certificate's `notBefore`.
        not_before: UnixMillis,
        /// The time of judgement.
        at: UnixMillis,
    },
    /// `at` is at or after `notAfter`.
    #[error("expired at `{not_after}`, judged at `{at}`")]
    Expired {
        /// The certificate's `notAfter`.
        not_after: UnixMillis,
        /// The time of judgement.
        at: UnixMillis,
    },
    /// Its (issuer, serial) stands in the revocation list.
    #[error("with serial `{}` is revoked", Hex(.serial))]
    Revoked {
        /// The certificate's serial number, without leading zeroes.
        serial: Vec<u8>,
    },
    /// A certificate after the root names itself as its issuer.
    #[error("names itself as its issuer")]
    SelfIssued,
    /// Its issuer is not the subject of the certificate before it.
    #[error("was not issued by the subject of the certificate before it")]
    Issuer,
    /// Its signature does not verify under the key of the certificate before it.
    #[error("does not verify under the key of the certificate before it")]
    Signature,
}

/// What is wrong with a certificate's extensions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExtensionFault {
    /// An extension occurs twice.
    #[error("holds extension `{oid}` twice")]
    Duplicate {
        /// The extension's object identifier.
        oid: String,
    },
    /// A critical extension that this verifier does not process.
    #[error("holds the unknown critical extension `{oid}`")]
    UnknownCritical {
        /// The extension's object identifier.
        oid: String,
    },
    /// There are no basic constraints.
    #[error("has no basic constraints")]
    BasicConstraintsMissing,
    /// The basic constraints are not strict DER.
    #[error("has malformed basic constraints")]
    BasicConstraintsMalformed,
    /// The basic constraints are not critical.
    #[error("has basic constraints that are not critical")]
    BasicConstraintsNotCritical,
    /// The path length is beyond any chain this verifier accepts.
    #[error("has the path length `{found}`, beyond the greatest allowed, {limit}")]
    PathLengthOutOfRange {
        /// The path length.
        found: u64,
        /// The greatest allowed.
        limit: u64,
    },
    /// A certificate that is no authority has a path length.
    #[error("has a path length and is no authority")]
    PathLengthWithoutAuthority,
    /// More authorities follow than the path length allows.
    #[error("allows {allowed} further authorities, {found} follow")]
    PathLengthExceeded {
        /// The certificate's path length.
        allowed: u64,
        /// The authorities between it and the leaf.
        found: u64,
    },
    /// A certificate of `cabundle` is no authority.
    #[error("is no certificate authority")]
    NotAuthority,
    /// The leaf is an authority.
    #[error("is a certificate authority, and signs the document")]
    LeafIsAuthority,
    /// There is no key usage.
    #[error("has no key usage")]
    KeyUsageMissing,
    /// The key usage is not strict DER.
    #[error("has a malformed key usage")]
    KeyUsageMalformed,
    /// An authority's key may not sign certificates.
    #[error("is an authority whose key may not sign certificates")]
    AuthorityMayNotSignCertificates,
    /// The leaf's key may not make digital signatures.
    #[error("holds a key that may not make digital signatures")]
    LeafMayNotSign,
    /// The leaf's key may sign certificates.
    #[error("holds a key that may sign certificates, and signs the document")]
    LeafMaySignCertificates,
}

/// How the chain does not belong to what the document says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityFault {
    /// The leaf's common name does not start with `module_id`.
    #[error("the leaf's common name {common_name:?} does not start with `module_id` {module_id:?}")]
    ModuleId {
        /// The leaf's common name.
        common_name: String,
        /// The document's `module_id`.
        module_id: String,
    },
    /// No authority below the root names a region.
    #[error("no authority in `cabundle` names a region")]
    RegionMissing,
    /// Two certificates name different regions.
    #[error("certificate `{position}` names region {found:?}, those before it {expected:?}")]
    RegionsDiffer {
        /// The first that differs.
        position: Position,
        /// Its region.
        found: String,
        /// The region of those before it.
        expected: String,
    },
}

/// A field that an enclave fills freely when it asks for a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundField {
    /// `public_key`.
    PublicKey,
    /// `user_data`.
    UserData,
    /// `nonce`.
    Nonce,
}

impl fmt::Display for BoundField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PublicKey => "`public_key`",
            Self::UserData => "`user_data`",
            Self::Nonce => "`nonce`",
        })
    }
}

/// Which expectation a genuine document does not meet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unmet {
    /// The list of accepted measurements is empty, so no document meets it.
    #[error("the list of accepted measurements is empty")]
    NothingAccepted,
    /// The enclave runs in debug mode: its host reads its console, and its measurement is zero.
    #[error("the enclave runs in debug mode: {found}")]
    Debug {
        /// PCR0, PCR1 and PCR2.
        found: Box<Measurement>,
    },
    /// A PCR that is needed is not in the document.
    #[error("PCR{index} is missing")]
    PcrMissing {
        /// Which one.
        index: u8,
    },
    /// The measurement is not on the list.
    #[error("the measurement is none of the {accepted} accepted: {found}")]
    Measurement {
        /// PCR0, PCR1 and PCR2.
        found: Box<Measurement>,
        /// How many measurements the list holds.
        accepted: usize,
    },
    /// A PCR has another value.
    #[error("PCR{index} is `{found}`, expected `{expected}`")]
    Pcr {
        /// Which one.
        index: u8,
        /// The document's value.
        found: Box<Pcr>,
        /// The expected value.
        expected: Box<Pcr>,
    },
    /// The expected nonce is too short to be unguessable.
    #[error("the expected nonce has {found} bytes, at least {least} are required")]
    NonceTooShort {
        /// Its length in bytes.
        found: usize,
        /// The least accepted length in bytes.
        least: usize,
    },
    /// A field that the enclave filled is missing or has another value.
    #[error("{field} is {}, expected `{}`", OrAbsent(.found), Hex(.expected))]
    Field {
        /// Which field.
        field: BoundField,
        /// The document's value.
        found: Option<Vec<u8>>,
        /// The expected value.
        expected: Vec<u8>,
    },
    /// The enclave runs in another region.
    #[error("the region is {found:?}, expected {expected:?}")]
    Region {
        /// The region in the chain's subjects.
        found: String,
        /// The expected region.
        expected: String,
    },
    /// The document is too old.
    #[error("`timestamp` is `{timestamp}`, more than {max_age_ms} ms before `{now}`")]
    TooOld {
        /// The document's timestamp.
        timestamp: UnixMillis,
        /// The verifier's clock.
        now: UnixMillis,
        /// The greatest accepted age in milliseconds.
        max_age_ms: u64,
    },
    /// The document is from the future.
    #[error("`timestamp` is `{timestamp}`, more than {tolerance_ms} ms after `{now}`")]
    FromTheFuture {
        /// The document's timestamp.
        timestamp: UnixMillis,
        /// The verifier's clock.
        now: UnixMillis,
        /// The accepted lead in milliseconds.
        tolerance_ms: u64,
    },
}

struct OrAbsent<'a>(&'a Option<Vec<u8>>);

impl fmt::Display for OrAbsent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "`{}`", Hex(bytes)),
            None => f.write_str("absent"),
        }
    }
}
