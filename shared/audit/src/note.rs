//! C2SP `signed-note`: a text with signature lines below it.
//!
//! ```text
//! <text, ending in a newline>
//!
//! — <key name> base64(32-bit key id ‖ signature)
//! ```
//!
//! Two of its signature types are used: 0x01, Ed25519 over the text (the log's key), and 0x04,
//! the timestamped Ed25519 cosignature of C2SP `tlog-cosignature` (each enclave boot's key, and
//! witnesses'). Lines of other keys are carried along and prove nothing.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

/// Most bytes of a note.
pub const MAX_NOTE: usize = 32_768;
/// Most signature lines of a note.
pub const MAX_SIGNATURES: usize = 64;
/// Most bytes of a key name.
pub const MAX_KEY_NAME: usize = 255;

const LINE_START: &str = "— ";

/// Why bytes are not a signed note, or a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than a note may be.
    #[error("the note has {size} bytes where at most {max} are allowed", max = MAX_NOTE)]
    TooLarge {
        /// How many it has.
        size: usize,
    },
    /// Not UTF-8, or with control characters.
    #[error("the note is not plain text: byte {at} is a control character or not UTF-8")]
    NotText {
        /// Where.
        at: usize,
    },
    /// No blank line between text and signatures, or no text, or no signatures.
    #[error("the note has no text, no signatures, or no blank line between them")]
    NoSignatures,
    /// The other note is over another text.
    #[error("the two notes are over different texts")]
    OtherText,
    /// More lines than allowed.
    #[error("the note has more than {max} signature lines", max = MAX_SIGNATURES)]
    TooManySignatures,
    /// A signature line of another form.
    #[error("signature line {line} is not `— <name> <base64>`")]
    BadLine {
        /// From 1.
        line: usize,
    },
    /// Not a key's name.
    #[error(
        "`{input}` is not a key name: 1 to {max} bytes without spaces, `+` or control characters",
        max = MAX_KEY_NAME
    )]
    BadKeyName {
        /// The beginning of the text.
        input: String,
    },
    /// Not a verifier key.
    #[error("`{input}` is not a verifier key `<name>+<key id>+<base64>` of a known type")]
    BadVerifierKey {
        /// The beginning of the text.
        input: String,
    },
    /// Not a public key that signatures can be checked with.
    #[error("the key of `{name}` is not a valid Ed25519 public key")]
    WeakKey {
        /// Whose.
        name: NoteKeyName,
    },
}

/// The name of a key in a note: not empty, no spaces, no `+`, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteKeyName(String);

impl NoteKeyName {
    /// Parses a name.
    ///
    /// # Errors
    /// If it has another form.
    pub fn new(text: &str) -> Result<Self, NoteError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if text.is_empty() || text.len() > MAX_KEY_NAME || text.contains(bad) {
            return Err(NoteError::BadKeyName { input: clip(text) });
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NoteKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for NoteKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureKind {
    /// The note's text (type 0x01).
    Ed25519,
    /// A time and the note's text (type 0x04).
    CosignatureV1,
}

impl SignatureKind {
    const fn code(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }
}

/// Seconds since the Unix epoch, as cosignatures state them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

impl From<casemate_proto::UnixMillis> for UnixSeconds {
    fn from(time: casemate_proto::UnixMillis) -> Self {
        Self(time.0 / 1000)
    }
}

/// A public key with the name that it signs notes under.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: NoteKeyName,
    kind: SignatureKind,
    id: [u8; 4],
    key: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    /// From a name, a kind and an Ed25519 public key.
    ///
    /// # Errors
    /// If the key is not a point, or one of small order.
    pub fn new(name: NoteKeyName, kind: SignatureKind, key: &[u8; 32]) -> Result<Self, NoteError> {
        match ed25519_dalek::VerifyingKey::from_bytes(key) {
            Ok(valid) if !valid.is_weak() => {
                let id = key_id(&name, kind, key);
                Ok(Self { name, kind, id, key: valid })
            }
            _ => Err(NoteError::WeakKey { name }),
        }
    }

    /// Parses `<name>+<key id as 8 hex digits>+<base64(type ‖ key)>`.
    ///
    /// # Errors
    /// If it has another form, or the id is not the key's.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::BadVerifierKey { input: clip(text) };
        if text.len() > MAX_KEY_NAME.saturating_add(100) {
            return Err(wrong());
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let data = BASE64.decode(data).map_err(|_| wrong())?;
        let (code, key) = data.split_first().ok_or_else(wrong)?;
        let kind = [SignatureKind::Ed25519, SignatureKind::CosignatureV1]
            .into_iter()
            .find(|kind| kind.code() == *code)
            .ok_or_else(wrong)?;
        let key = <[u8; 32]>::try_from(key).map_err(|_| wrong())?;
        let parsed = Self::new(NoteKeyName::new(name)?, kind, &key)?;
        if parsed.to_string() == text { Ok(parsed) } else { Err(wrong()) }
    }

    /// The name it signs under.
    #[must_use]
    pub const fn name(&self) -> &NoteKeyName {
        &self.name
    }
    /// What it signs.
    #[must_use]
    pub const fn kind(&self) -> SignatureKind {
        self.kind
    }
    /// The key itself, 32 bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }
    /// The four bytes that point at it in a signature line: SHA-256(name ‖ 0x0A ‖ type ‖ key),
    /// cut off.
    #[must_use]
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Whether a signature line names this key.
    #[must_use]
    pub fn is_named_by(&self, line: &NoteSignature) -> bool {
        line.name == self.name && line.id == self.id
    }

    /// Strict verification (RFC 8032: canonical encodings, no key of small order).
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.key.verify_strict(message, &signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = [&[self.kind.code()][..], self.public_key()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id), BASE64.encode(data))
    }
}
impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn key_id(name: &NoteKeyName, kind: SignatureKind, key: &[u8; 32]) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name.as_str());
    hasher.update([b'\n', kind.code()]);
    hasher.update(key);
    let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
    [a, b, c, d]
}

/// One signature line of a note, not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: NoteKeyName,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// The line of a key that signed the text itself.
    #[must_use]
    pub fn ed25519(key: &VerifierKey, signature: &[u8; 64]) -> Self {
        Self { name: key.name.clone(), id: key.id, bytes: signature.to_vec() }
    }

    /// The line of a key that signed [`cosignature_message`] at `time`.
    #[must_use]
    pub fn cosignature(key: &VerifierKey, time: UnixSeconds, signature: &[u8; 64]) -> Self {
        let bytes = [&time.0.to_be_bytes()[..], signature].concat();
        Self { name: key.name.clone(), id: key.id, bytes }
    }

    /// The name of the key that the line names.
    #[must_use]
    pub const fn name(&self) -> &NoteKeyName {
        &self.name
    }

    /// The signature's bytes as an Ed25519 signature.
    pub(crate) fn as_ed25519(&self) -> Option<[u8; 64]> {
        <[u8; 64]>::try_from(self.bytes.as_slice()).ok()
    }

    /// The signature's bytes as a cosignature: its time, at most 2⁶³ − 1, and the signature.
    pub(crate) fn as_cosignature(&self) -> Option<(UnixSeconds, [u8; 64])> {
        let (time, signature) = self.bytes.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        i64::try_from(time).ok()?;
        Some((UnixSeconds(time), <[u8; 64]>::try_from(signature).ok()?))
    }
}

/// What a cosigner signs: a header, the time, and the whole text of the note (C2SP
/// `tlog-cosignature`, Ed25519).
#[must_use]
pub fn cosignature_message(text: &str, time: UnixSeconds) -> Vec<u8> {
    format!("cosignature/v1\ntime {}\n{text}", time.0).into_bytes()
}

/// A text with signature lines, well-formed, none of them checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Puts a text and its signature lines together.
    ///
    /// # Errors
    /// If the result would not be a note: see [`Self::parse`].
    pub fn assemble(text: &str, signatures: &[NoteSignature]) -> Result<Self, NoteError> {
        let note = Self { text: text.to_owned(), signatures: signatures.to_vec() };
        Self::parse(note.to_string().as_bytes())
    }

    /// Parses a note.
    ///
    /// # Errors
    /// If it is too long, not plain text, or not of a note's form.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLarge { size: bytes.len() });
        }
        let note = core::str::from_utf8(bytes)
            .map_err(|error| NoteError::NotText { at: error.valid_up_to() })?;
        if let Some(at) = note.bytes().position(|b| b < 0x20 && b != b'\n') {
            return Err(NoteError::NotText { at });
        }
        // the last blank line ends the text: no signature line is empty
        let (text, lines) = note
            .rfind("\n\n")
            .and_then(|at| note.split_at_checked(at.saturating_add(1)))
            .ok_or(NoteError::NoSignatures)?;
        let lines = lines
            .strip_prefix('\n')
            .and_then(|lines| lines.strip_suffix('\n'))
            .filter(|lines| !lines.is_empty())
            .ok_or(NoteError::NoSignatures)?;
        let mut signatures = Vec::new();
        for (number, line) in (1..).zip(lines.split('\n')) {
            if number > MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(parse_line(line).ok_or(NoteError::BadLine { line: number })?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Whether this key, one that signs texts themselves, signed this one.
    #[must_use]
    pub fn text_is_signed_by(&self, key: &VerifierKey) -> bool {
        key.kind == SignatureKind::Ed25519
            && self
                .signatures
                .iter()
                .filter(|line| key.is_named_by(line))
                .filter_map(NoteSignature::as_ed25519)
                .any(|signature| key.verifies(self.text.as_bytes(), &signature))
    }

    /// This note with the lines of `other`, a note over the same text, that it does not have.
    ///
    /// # Errors
    /// If the texts differ, or there would be too many lines.
    pub fn merged(&self, other: &Self) -> Result<Self, NoteError> {
        if self.text != other.text {
            return Err(NoteError::OtherText);
        }
        let mut signatures = self.signatures.clone();
        for line in &other.signatures {
            if !signatures.iter().any(|have| have.name == line.name && have.id == line.id) {
                signatures.push(line.clone());
            }
        }
        Self::assemble(&self.text, &signatures)
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| {
            let data = [&line.id[..], &line.bytes].concat();
            writeln!(f, "{LINE_START}{} {}", line.name, BASE64.encode(data))
        })
    }
}

fn parse_line(line: &str) -> Option<NoteSignature> {
    let (name, data) = line.strip_prefix(LINE_START)?.split_once(' ')?;
    let data = BASE64.decode(data).ok()?;
    let (id, bytes) = data.split_first_chunk::<4>()?;
    if bytes.is_empty() {
        return None;
    }
    Some(NoteSignature { name: NoteKeyName::new(name).ok()?, id: *id, bytes: bytes.to_vec() })
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
