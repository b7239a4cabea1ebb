//! The wire format: an untagged COSE_Sign1 (RFC 9052) around a CBOR map of nine keys.
//!
//! Everything here borrows from the input and nothing recurses: unknown keys are refused, so no item
//! of unknown shape is ever walked over, and the only allocations are the two bounded collections of
//! [`Statement`]. Canonical encoding is *not* required: since 2025-09 the payload's map has an
//! indefinite length, and what is verified is the payload as received, never a re-encoding of it.
//!
//! Limits are those of the NSM API (`user_data` and `nonce`: 512 bytes, although the CDDL in
//! `docs/attestation_process.md` says 1024), and of that document's section 3 for the rest.

use std::collections::BTreeMap;

use minicbor::{Decoder, data::Type};

use crate::{
    pcr::{PCR_BYTES, PCR_COUNT, Pcr},
    refusal::{Kind, Malformed, Part},
    time::UnixMillis,
};

/// The greatest accepted payload in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 16 * 1024;
/// The greatest accepted document in bytes: the payload, both headers and the signature.
pub(crate) const MAX_DOCUMENT_BYTES: usize = MAX_PAYLOAD_BYTES + 256;
/// The greatest accepted certificate in bytes.
pub(crate) const MAX_CERTIFICATE_BYTES: usize = 1024;
/// The greatest accepted number of certificates in `cabundle`. Genuine chains have four.
pub(crate) const MAX_CABUNDLE: usize = 8;
const MAX_PROTECTED_HEADER_BYTES: usize = 32;
const MAX_KEY_BYTES: usize = 32;
const MAX_MODULE_ID_BYTES: usize = 128;
const MAX_DIGEST_BYTES: usize = 16;
const MAX_PUBLIC_KEY_BYTES: usize = 1024;
const MAX_USER_DATA_BYTES: usize = 512;
const MAX_NONCE_BYTES: usize = 512;
const PAYLOAD_KEYS: usize = 9;

/// The length of an ES384 signature: r and s, big-endian, 48 bytes each.
pub(crate) const SIGNATURE_BYTES: usize = 96;

/// COSE's header label for the algorithm, and ES384's number in IANA's registry.
const LABEL_ALGORITHM: i64 = 1;
const ES384: i64 = -35;

/// The COSE_Sign1 envelope, decoded and not yet verified.
pub(crate) struct Envelope<'b> {
    /// The protected header as received.
    pub(crate) protected: &'b [u8],
    /// The payload as received.
    pub(crate) payload: &'b [u8],
    pub(crate) signature: &'b [u8; SIGNATURE_BYTES],
}

impl<'b> Envelope<'b> {
    pub(crate) fn decode(document: &'b [u8]) -> Result<Self, Malformed> {
        within(Part::Document, document.len(), MAX_DOCUMENT_BYTES)?;
        let mut reader = Reader::new(document);
        if reader.kind(Part::Document)? == Kind::Tag {
            return Err(Malformed::Tagged { tag: reader.tag(Part::Document)? });
        }
        let mut elements = reader.array(Part::Document)?;
        if let Some(found) = elements.declared()
            && found != 4
        {
            return Err(Malformed::NotFourElements { found });
        }

        reader.element(&mut elements, 0)?;
        let protected = reader.bytes(Part::ProtectedHeader, MAX_PROTECTED_HEADER_BYTES)?;
        require_es384(protected)?;
        reader.element(&mut elements, 1)?;
        let mut unprotected = reader.map(Part::UnprotectedHeader)?;
        if reader.next(&mut unprotected, Part::UnprotectedHeader)? {
            return Err(Malformed::UnprotectedHeader);
        }
        reader.element(&mut elements, 2)?;
        let payload = reader.bytes(Part::Payload, MAX_PAYLOAD_BYTES)?;
        reader.element(&mut elements, 3)?;
        let signature = reader.bytes(Part::Signature, MAX_PAYLOAD_BYTES)?;
        let signature = signature
            .try_into()
            .map_err(|_| Malformed::SignatureLength { found: signature.len() })?;
        if reader.next(&mut elements, Part::Document)? {
            return Err(Malformed::NotFourElements { found: 5 });
        }
        reader.finish(Part::Document)?;
        Ok(Self { protected, payload, signature })
    }
}

/// Accepts `{1: -35}` in any encoding, alone. Genuine documents have `a1 01 38 22`.
fn require_es384(header: &[u8]) -> Result<(), Malformed> {
    let part = Part::ProtectedHeader;
    let other = || Malformed::NotEs384 { found: header.to_vec() };
    let mut reader = Reader::new(header);
    let mut entries = reader.map(part)?;
    if !reader.next(&mut entries, part)? {
        return Err(other());
    }
    if reader.integer(part)? != LABEL_ALGORITHM || reader.integer(part)? != ES384 {
        return Err(other());
    }
    if reader.next(&mut entries, part)? {
        return Err(other());
    }
    reader.finish(part)
}

/// The payload, decoded and not yet verified.
pub(crate) struct Statement<'b> {
    pub(crate) module_id: &'b str,
    pub(crate) timestamp: UnixMillis,
    /// One to 32 PCRs.
    pub(crate) pcrs: BTreeMap<u8, Pcr>,
    pub(crate) certificate: &'b [u8],
    /// Root first; not empty.
    pub(crate) cabundle: Vec<&'b [u8]>,
    pub(crate) public_key: Option<&'b [u8]>,
    pub(crate) user_data: Option<&'b [u8]>,
    pub(crate) nonce: Option<&'b [u8]>,
}

impl<'b> Statement<'b> {
    pub(crate) fn decode(payload: &'b [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::default();
        let mut reader = Reader::new(payload);
        let mut entries = reader.map(Part::Payload)?;
        if let Some(found) = entries.declared() {
            within_count(Part::Payload, found, PAYLOAD_KEYS)?;
        }
        while reader.next(&mut entries, Part::Payload)? {
            fields.read_entry(&mut reader)?;
        }
        reader.finish(Part::Payload)?;

        // Only presence counts here: its value was checked as it was read.
        let ((), module_id, timestamp, pcrs, certificate, cabundle) = (
            required(fields.digest, Part::Digest)?,
            required(fields.module_id, Part::ModuleId)?,
            required(fields.timestamp, Part::Timestamp)?,
            required(fields.pcrs, Part::Pcrs)?,
            required(fields.certificate, Part::Certificate)?,
            required(fields.cabundle, Part::Cabundle)?,
        );
        Ok(Self {
            module_id,
            timestamp,
            pcrs,
            certificate,
            cabundle,
            public_key: fields.public_key.flatten(),
            user_data: fields.user_data.flatten(),
            nonce: fields.nonce.flatten(),
        })
    }
}

/// The payload's keys as they are met: the outer `Option` says whether the key was there.
#[derive(Default)]
struct Fields<'b> {
    module_id: Option<&'b str>,
    digest: Option<()>,
    timestamp: Option<UnixMillis>,
    pcrs: Option<BTreeMap<u8, Pcr>>,
    certificate: Option<&'b [u8]>,
    cabundle: Option<Vec<&'b [u8]>>,
    public_key: Option<Option<&'b [u8]>>,
    user_data: Option<Option<&'b [u8]>>,
    nonce: Option<Option<&'b [u8]>>,
}

impl<'b> Fields<'b> {
    fn read_entry(&mut self, reader: &mut Reader<'b>) -> Result<(), Malformed> {
        match reader.text(Part::PayloadKey, MAX_KEY_BYTES)? {
            "module_id" => once(&mut self.module_id, Part::ModuleId, || read_module_id(reader)),
            "digest" => once(&mut self.digest, Part::Digest, || read_digest(reader)),
            "timestamp" => once(&mut self.timestamp, Part::Timestamp, || read_timestamp(reader)),
            "pcrs" => once(&mut self.pcrs, Part::Pcrs, || read_pcrs(reader)),
            "certificate" => once(&mut self.certificate, Part::Certificate, || {
                read_certificate(reader, Part::Certificate)
            }),
            "cabundle" => once(&mut self.cabundle, Part::Cabundle, || read_cabundle(reader)),
            "public_key" => once(&mut self.public_key, Part::PublicKey, || {
                reader.optional_bytes(Part::PublicKey, MAX_PUBLIC_KEY_BYTES)
            }),
            "user_data" => once(&mut self.user_data, Part::UserData, || {
                reader.optional_bytes(Part::UserData, MAX_USER_DATA_BYTES)
            }),
            "nonce" => once(&mut self.nonce, Part::Nonce, || {
                reader.optional_bytes(Part::Nonce, MAX_NONCE_BYTES)
            }),
            "nitrotpm_pcrs" => Err(Malformed::NitroTpm),
            unknown => Err(Malformed::UnknownKey { key: unknown.to_owned() }),
        }
    }
}

fn read_module_id<'b>(reader: &mut Reader<'b>) -> Result<&'b str, Malformed> {
    let module_id = reader.text(Part::ModuleId, MAX_MODULE_ID_BYTES)?;
    if module_id.is_empty() {
        return Err(Malformed::Empty { part: Part::ModuleId });
    }
    // It ends up in logs and on terminals.
    if !module_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Malformed::ModuleId { found: module_id.to_owned() });
    }
    Ok(module_id)
}

fn read_digest(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.text(Part::Digest, MAX_DIGEST_BYTES)? {
        "SHA384" => Ok(()),
        found => Err(Malformed::Digest { found: found.to_owned() }),
    }
}

fn read_timestamp(reader: &mut Reader<'_>) -> Result<UnixMillis, Malformed> {
    match reader.unsigned(Part::Timestamp)? {
        0 => Err(Malformed::TimestampZero),
        milliseconds => Ok(UnixMillis::new(milliseconds)),
    }
}

fn read_pcrs(reader: &mut Reader<'_>) -> Result<BTreeMap<u8, Pcr>, Malformed> {
    let mut pcrs = BTreeMap::new();
    let mut entries = reader.map(Part::Pcrs)?;
    if let Some(found) = entries.declared() {
        within_count(Part::Pcrs, found, usize::from(PCR_COUNT))?;
    }
    while reader.next(&mut entries, Part::Pcrs)? {
        let index = reader.unsigned(Part::PcrIndex)?;
        let index = u8::try_from(index)
            .ok()
            .filter(|index| *index < PCR_COUNT)
            .ok_or(Malformed::PcrIndex { index })?;
        let value = reader.bytes(Part::PcrValue, MAX_PAYLOAD_BYTES)?;
        let value = <[u8; PCR_BYTES]>::try_from(value)
            .map_err(|_| Malformed::PcrLength { index, found: value.len() })?;
        if pcrs.insert(index, Pcr::new(value)).is_some() {
            return Err(Malformed::DuplicatePcr { index });
        }
    }
    if pcrs.is_empty() {
        return Err(Malformed::Empty { part: Part::Pcrs });
    }
    Ok(pcrs)
}

fn read_certificate<'b>(reader: &mut Reader<'b>, part: Part) -> Result<&'b [u8], Malformed> {
    let certificate = reader.bytes(part, MAX_CERTIFICATE_BYTES)?;
    if certificate.is_empty() {
        return Err(Malformed::Empty { part });
    }
    Ok(certificate)
}

fn read_cabundle<'b>(reader: &mut Reader<'b>) -> Result<Vec<&'b [u8]>, Malformed> {
    let mut bundle = Vec::with_capacity(MAX_CABUNDLE);
    let mut elements = reader.array(Part::Cabundle)?;
    if let Some(found) = elements.declared() {
        within_count(Part::Cabundle, found, MAX_CABUNDLE)?;
    }
    while reader.next(&mut elements, Part::Cabundle)? {
        within(Part::Cabundle, bundle.len().saturating_add(1), MAX_CABUNDLE)?;
        bundle.push(read_certificate(reader, Part::CabundleEntry)?);
    }
    if bundle.is_empty() {
        return Err(Malformed::Empty { part: Part::Cabundle });
    }
    Ok(bundle)
}

/// Fills a key's slot, refusing the key a second time before its value is read.
fn once<T>(
    slot: &mut Option<T>,
    part: Part,
    read: impl FnOnce() -> Result<T, Malformed>,
) -> Result<(), Malformed> {
    if slot.is_some() {
        return Err(Malformed::DuplicateKey { part });
    }
    *slot = Some(read()?);
    Ok(())
}

fn required<T>(slot: Option<T>, part: Part) -> Result<T, Malformed> {
    slot.ok_or(Malformed::MissingKey { part })
}

fn within(part: Part, found: usize, limit: usize) -> Result<(), Malformed> {
    within_count(part, u64::try_from(found).unwrap_or(u64::MAX), limit)
}

fn within_count(part: Part, found: u64, limit: usize) -> Result<(), Malformed> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    if found > limit { Err(Malformed::TooLong { part, found, limit }) } else { Ok(()) }
}

/// What is left of an array or a map.
enum Remaining {
    Definite { declared: u64, left: u64 },
    Indefinite,
}

impl Remaining {
    fn new(length: Option<u64>) -> Self {
        match length {
            Some(declared) => Self::Definite { declared, left: declared },
            None => Self::Indefinite,
        }
    }

    fn declared(&self) -> Option<u64> {
        match self {
            Self::Definite { declared, .. } => Some(*declared),
            Self::Indefinite => None,
        }
    }
}

/// A pull decoder that names the part it fails in.
struct Reader<'b> {
    decoder: Decoder<'b>,
}

impl<'b> Reader<'b> {
    fn new(input: &'b [u8]) -> Self {
        Self { decoder: Decoder::new(input) }
    }

    fn datatype(&self, part: Part) -> Result<Type, Malformed> {
        self.decoder.datatype().map_err(|_| Malformed::Truncated { part })
    }

    fn kind(&self, part: Part) -> Result<Kind, Malformed> {
        Ok(match self.datatype(part)? {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => Kind::Unsigned,
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => Kind::Negative,
            Type::Bytes => Kind::Bytes,
            Type::String => Kind::Text,
            Type::BytesIndef | Type::StringIndef => return Err(Malformed::Chunked { part }),
            Type::Array | Type::ArrayIndef => Kind::Array,
            Type::Map | Type::MapIndef => Kind::Map,
            Type::Tag => Kind::Tag,
            Type::Null => Kind::Null,
            Type::Break => Kind::Break,
            _ => Kind::Other,
        })
    }

    fn expect(&self, part: Part, expected: Kind) -> Result<(), Malformed> {
        let found = self.kind(part)?;
        if found == expected { Ok(()) } else { Err(Malformed::WrongType { part, found, expected }) }
    }

    /// Turns a decoder's error into ours. The type was looked at before, so what is left is the end
    /// of the input, or what `otherwise` says.
    fn read<T>(
        &mut self,
        part: Part,
        otherwise: Malformed,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, minicbor::decode::Error>,
    ) -> Result<T, Malformed> {
        read(&mut self.decoder).map_err(|error| {
            if error.is_end_of_input() { Malformed::Truncated { part } } else { otherwise }
        })
    }

    fn tag(&mut self, part: Part) -> Result<u64, Malformed> {
        self.read(part, Malformed::OutOfRange { part }, |d| d.tag().map(|tag| tag.as_u64()))
    }

    fn unsigned(&mut self, part: Part) -> Result<u64, Malformed> {
        self.expect(part, Kind::Unsigned)?;
        self.read(part, Malformed::OutOfRange { part }, Decoder::u64)
    }

    fn integer(&mut self, part: Part) -> Result<i64, Malformed> {
        if self.kind(part)? != Kind::Negative {
            self.expect(part, Kind::Unsigned)?;
        }
        self.read(part, Malformed::OutOfRange { part }, Decoder::i64)
    }

    fn bytes(&mut self, part: Part, limit: usize) -> Result<&'b [u8], Malformed> {
        self.expect(part, Kind::Bytes)?;
        let bytes = self.read(part, Malformed::OutOfRange { part }, Decoder::bytes)?;
        within(part, bytes.len(), limit)?;
        Ok(bytes)
    }

    fn text(&mut self, part: Part, limit: usize) -> Result<&'b str, Malformed> {
        self.expect(part, Kind::Text)?;
        let text = self.read(part, Malformed::NotUtf8 { part }, Decoder::str)?;
        within(part, text.len(), limit)?;
        Ok(text)
    }

    /// An optional field: null and a string of no bytes (which genuine documents hold in `public_key`)
    /// count as absent.
    fn optional_bytes(&mut self, part: Part, limit: usize) -> Result<Option<&'b [u8]>, Malformed> {
        if self.kind(part)? == Kind::Null {
            self.read(part, Malformed::OutOfRange { part }, Decoder::null)?;
            return Ok(None);
        }
        Ok(Some(self.bytes(part, limit)?).filter(|bytes| !bytes.is_empty()))
    }

    fn array(&mut self, part: Part) -> Result<Remaining, Malformed> {
        self.expect(part, Kind::Array)?;
        self.read(part, Malformed::OutOfRange { part }, Decoder::array).map(Remaining::new)
    }

    fn map(&mut self, part: Part) -> Result<Remaining, Malformed> {
        self.expect(part, Kind::Map)?;
        self.read(part, Malformed::OutOfRange { part }, Decoder::map).map(Remaining::new)
    }

    /// Whether another element or entry follows. The end of an indefinite length is consumed.
    fn next(&mut self, remaining: &mut Remaining, part: Part) -> Result<bool, Malformed> {
        match remaining {
            Remaining::Definite { left, .. } => match left.checked_sub(1) {
                Some(fewer) => {
                    *left = fewer;
                    Ok(true)
                }
                None => Ok(false),
            },
            Remaining::Indefinite if self.datatype(part)? == Type::Break => {
                self.decoder.set_position(self.decoder.position().saturating_add(1));
                Ok(false)
            }
            Remaining::Indefinite => Ok(true),
        }
    }

    /// Requires a further element of the COSE array, of which `read` were read.
    fn element(&mut self, remaining: &mut Remaining, read: u64) -> Result<(), Malformed> {
        if self.next(remaining, Part::Document)? {
            Ok(())
        } else {
            Err(Malformed::NotFourElements { found: read })
        }
    }

    fn finish(&self, part: Part) -> Result<(), Malformed> {
        match self.decoder.input().len().saturating_sub(self.decoder.position()) {
            0 => Ok(()),
            count => Err(Malformed::TrailingBytes { part, count }),
        }
    }
}
