//! The one encoding of everything that is hashed, signed or stored: deterministic CBOR.
//!
//! Strictness comes from one rule instead of many: what was decoded is encoded again and must
//! give the very bytes that came in. So unknown or repeated fields, longer-than-needed integers,
//! indefinite lengths, chunked strings, tags and floats are all refused, without a list of them.

use minicbor::{Decode, Encode};

/// Why bytes are not a value of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// More bytes than this type may have.
    #[error("{size} bytes where at most {max} are allowed")]
    TooLarge {
        /// How many came.
        size: usize,
        /// How many may.
        max: usize,
    },
    /// Malformed, of another type, or with a missing field.
    #[error("malformed at byte {at}: {reason}")]
    Malformed {
        /// Offset, 0 where the decoder does not say.
        at: usize,
        /// What the decoder says.
        reason: String,
    },
    /// Bytes behind the value.
    #[error("{extra} bytes behind the value, which ends at byte {at}")]
    Trailing {
        /// Where the value ends.
        at: usize,
        /// How many bytes follow.
        extra: usize,
    },
    /// Not in canonical form: an unknown or repeated field, or a longer encoding than needed.
    #[error(
        "not in canonical form from byte {at}: unknown or repeated field, or a longer encoding than needed"
    )]
    NotCanonical {
        /// First byte that differs from the canonical form.
        at: usize,
    },
}

/// Encodes a value canonically.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    // most values have a few hundred bytes; grown from nothing they would be moved six times
    let mut out = Vec::with_capacity(512);
    match minicbor::encode(value, &mut out) {
        Ok(()) => {
            // what is kept, or waits in a queue that counts bytes, takes no more than it is
            out.shrink_to_fit();
            out
        }
        // writing to a Vec cannot fail, and no type of ours makes an encoder error of its own;
        // an empty encoding decodes as nothing, so even then nothing would be accepted
        Err(_) => Vec::new(),
    }
}

/// Decodes exactly one canonical value from at most `max` bytes.
///
/// # Errors
/// If the bytes are too many, malformed, not canonical or more than one value.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(
    bytes: &'b [u8],
    max: usize,
) -> Result<T, CborError> {
    if bytes.len() > max {
        return Err(CborError::TooLarge { size: bytes.len(), max });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = T::decode(&mut decoder, &mut ()).map_err(|error| CborError::Malformed {
        at: error.position().unwrap_or_else(|| decoder.position()),
        reason: error.to_string().chars().take(120).collect(),
    })?;
    let end = decoder.position();
    let extra = bytes.len().saturating_sub(end);
    if extra > 0 {
        return Err(CborError::Trailing { at: end, extra });
    }
    let mut again = Same { expected: bytes, at: 0, differs: false };
    // what cannot be encoded, or to more or fewer bytes, is not the canonical form either
    let encoded = minicbor::encode(&value, &mut again).is_ok();
    if !encoded || again.differs || again.at != bytes.len() {
        return Err(CborError::NotCanonical { at: again.at });
    }
    Ok(value)
}

/// Takes exactly the expected bytes, and stops at the first other one. Nothing is kept: a comparison with what
/// came in needs no second copy of it.
struct Same<'a> {
    expected: &'a [u8],
    at: usize,
    differs: bool,
}

/// Another byte than expected was written.
#[derive(Debug)]
struct Differs;

impl minicbor::encode::Write for Same<'_> {
    type Error = Differs;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Differs> {
        let left = self.expected.get(self.at..).unwrap_or_default();
        if !self.differs && left.starts_with(bytes) {
            self.at = self.at.saturating_add(bytes.len());
            return Ok(());
        }
        if !self.differs {
            let same = left.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            self.at = self.at.saturating_add(same);
        }
        // stays so, should an encoder go on after an error
        self.differs = true;
        Err(Differs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Sample {
        #[n(0)]
        number: u64,
        #[cbor(n(1), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    }

    fn hex(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    #[test]
    fn canonical_value_is_accepted() {
        let value = Sample { number: 7, bytes: vec![1, 2] };
        assert_eq!(encode(&value), hex("a2 00 07 01 42 0102"));
        assert_eq!(decode::<Sample>(&encode(&value), 100), Ok(value));
    }

    #[test]
    fn unknown_field_is_refused() {
        assert_eq!(
            decode::<Sample>(&hex("a3 00 07 01 42 0102 02 00"), 100),
            Err(CborError::NotCanonical { at: 0 })
        );
    }

    /// Whatever one byte is turned to: what is taken is a value in its own encoding.
    #[test]
    fn nothing_is_taken_but_what_an_encoder_writes() {
        let canonical = encode(&Sample { number: 7, bytes: vec![1, 2, 3] });
        for at in 0..canonical.len() {
            for other in 0..=u8::MAX {
                let mut bytes = canonical.clone();
                bytes[at] = other;
                match decode::<Sample>(&bytes, 100) {
                    Ok(value) => assert_eq!(encode(&value), bytes),
                    Err(CborError::NotCanonical { at: told }) => assert!(told <= at, "{bytes:?}"),
                    Err(_) => {}
                }
            }
        }
    }

    /// Writes over what differs, as an encoder would that goes on after an error.
    #[test]
    fn comparison_that_failed_stays_failed() {
        use minicbor::encode::Write as _;
        let mut same = Same { expected: &[1, 2, 3], at: 0, differs: false };
        assert!(same.write_all(&[1, 2]).is_ok());
        assert!(same.write_all(&[4]).is_err());
        assert!(same.write_all(&[3]).is_err());
        assert_eq!(same.at, 2);
        let mut same = Same { expected: &[1], at: 0, differs: false };
        assert!(same.write_all(&[1, 2]).is_err());
        assert_eq!((same.at, same.differs), (1, true));
    }

    #[test]
    fn repeated_field_is_refused() {
        assert!(decode::<Sample>(&hex("a3 00 07 00 07 01 42 0102"), 100).is_err());
    }

    #[test]
    fn long_integer_is_refused() {
        assert_eq!(
            decode::<Sample>(&hex("a2 00 1807 01 42 0102"), 100),
            Err(CborError::NotCanonical { at: 2 })
        );
    }

    #[test]
    fn indefinite_map_and_chunked_bytes_are_refused() {
        assert!(decode::<Sample>(&hex("bf 00 07 01 42 0102 ff"), 100).is_err());
        assert!(decode::<Sample>(&hex("a2 00 07 01 5f 41 01 41 02 ff"), 100).is_err());
    }

    #[test]
    fn trailing_missing_wrong_and_oversized_are_refused() {
        assert!(matches!(
            decode::<Sample>(&hex("a2 00 07 01 42 0102 00"), 100),
            Err(CborError::Trailing { extra: 1, .. })
        ));
        assert!(matches!(
            decode::<Sample>(&hex("a1 00 07"), 100),
            Err(CborError::Malformed { .. })
        ));
        assert!(matches!(
            decode::<Sample>(&hex("a2 00 f9 3c00 01 42 0102"), 100),
            Err(CborError::Malformed { .. })
        ));
        assert!(matches!(
            decode::<Sample>(&hex("a2 00 07 01 42 0102"), 5),
            Err(CborError::TooLarge { .. })
        ));
        // a length far beyond the input must fail without allocating it
        assert!(decode::<Sample>(&hex("a2 00 07 01 5b 7fffffffffffffff"), 100).is_err());
    }
}
