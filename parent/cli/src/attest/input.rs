//! What `casemate attest` reads: documents, roots and hex.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use casemate_attestation_verify::{PCR_BYTES, Pcr, TrustRoot};
use thiserror::Error;

use super::{AttestError, HexBytes};

/// The greatest accepted file in bytes: twice the largest document, for hex, with room for line ends.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Files hold base64 with and without padding.
const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);

/// Why an input could not be read.
#[derive(Debug, Error)]
pub(super) enum InputError {
    #[error("cannot read `{path}`: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error("`{path}` is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: String },
    #[error("`{path}` is empty")]
    Empty { path: String },
    #[error("`{path}` is neither binary nor base64 nor hex")]
    NotDocument { path: String },
}

/// Reads a document, which a first byte beyond ASCII shows to be binary: a COSE array starts with one.
pub(super) fn read_document(path: &Path) -> Result<Vec<u8>, InputError> {
    let name = path.display().to_string();
    let bytes = read(path)?;
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    match text.first() {
        None => Err(InputError::Empty { path: name }),
        Some(first) if !first.is_ascii() => Ok(bytes),
        Some(_) => decode_text(&text).ok_or(InputError::NotDocument { path: name }),
    }
}

/// Hex first: a document in base64 begins with `h`, which is no hex digit, so neither is taken for the
/// other.
fn decode_text(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    hex::decode(digits)
        .ok()
        .or_else(|| STANDARD.decode(text).ok())
        .or_else(|| URL_SAFE.decode(text).ok())
}

/// Reads a root certificate, PEM or DER.
pub(super) fn read_root(path: &Path) -> Result<TrustRoot, AttestError> {
    let bytes = read(path)?;
    Ok(match std::str::from_utf8(&bytes) {
        Ok(text) => TrustRoot::from_pem(text)?,
        Err(_) => TrustRoot::from_der(&bytes)?,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, InputError> {
    let name = path.display().to_string();
    let limit = MAX_FILE_BYTES.saturating_add(1);
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    match read {
        Err(error) => Err(InputError::Unreadable { path: name, error }),
        Ok(length) if u64::try_from(length).is_ok_and(|length| length <= MAX_FILE_BYTES) => {
            Ok(bytes)
        }
        Ok(_) => Err(InputError::TooLarge { path: name }),
    }
}

/// Parses hex, with or without `0x`.
pub(super) fn parse_hex(text: &str) -> Result<HexBytes, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() {
        return Err("no bytes are given".to_owned());
    }
    hex::decode(digits).map(HexBytes).map_err(|error| format!("not hex: {error}").to_lowercase())
}

/// Parses a PCR, 48 bytes in hex.
pub(super) fn parse_pcr(text: &str) -> Result<Pcr, String> {
    let HexBytes(bytes) = parse_hex(text)?;
    let length = bytes.len();
    <[u8; PCR_BYTES]>::try_from(bytes)
        .map(Pcr::new)
        .map_err(|_| format!("a PCR has {PCR_BYTES} bytes, here are {length}"))
}
