//! Names and hashes that identify things, each its own type, so that one is never taken for
//! another.

use core::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Why a text or a byte string is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name outside the alphabet or the length.
    #[error("`{input}` is not a {what}: 1 to {max} characters of {alphabet}")]
    BadName {
        /// What was expected.
        what: &'static str,
        /// The beginning of the text.
        input: String,
        /// Most characters.
        max: usize,
        /// The characters allowed.
        alphabet: &'static str,
    },
    /// Hex of another length, without `0x`, or with upper-case digits.
    #[error("`{input}` is not a {what}: `0x` and {digits} lower-case hex digits")]
    BadHex {
        /// What was expected.
        what: &'static str,
        /// The beginning of the text.
        input: String,
        /// How many digits follow `0x`.
        digits: usize,
    },
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Parses `0x` and exactly `N` bytes of lower-case hex.
///
/// # Errors
/// If the text has another form.
pub fn parse_hex<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let wrong = || IdError::BadHex { what, input: clip(text), digits: N.saturating_mul(2) };
    let digits = text.strip_prefix("0x").ok_or_else(wrong)?;
    if digits.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(wrong());
    }
    let mut out = [0; N];
    hex::decode_to_slice(digits, &mut out).map_err(|_| wrong())?;
    Ok(out)
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// From its bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
            /// Parses `0x` and lower-case hex.
            ///
            /// # Errors
            /// If the text has another form.
            pub fn from_hex(text: &str) -> Result<Self, IdError> {
                parse_hex($what, text).map(Self)
            }
            /// `0x` and lower-case hex.
            #[must_use]
            pub fn to_hex(&self) -> String {
                format!("0x{}", hex::encode(self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_hex())
            }
        }
        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let at = d.position();
                <[u8; $len]>::try_from(d.bytes()?)
                    .map(Self)
                    .map_err(|_| decode::Error::message(concat!("wrong length for a ", $what)).at(at))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.to_hex())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::from_hex(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

byte_id!(
    /// A 32-byte hash that has no more particular name.
    Hash32, 32, "32-byte hash"
);
byte_id!(
    /// What names a cluster: the hash of its manifest and of every initial boot.
    GenesisId, 32, "genesis id"
);
byte_id!(
    /// One boot of one enclave: the hash of its attested boot key.
    BootId, 32, "boot id"
);
byte_id!(
    /// A client's own id for a request, unique for its credential.
    RequestId, 16, "request id"
);

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $alphabet:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Most characters.
            pub const MAX_LEN: usize = $max;

            /// Parses a name.
            ///
            /// # Errors
            /// If it is empty, too long or has a character outside the alphabet.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let ok: fn(u8) -> bool = $ok;
                if text.is_empty() || text.len() > $max || !text.bytes().all(ok) {
                    return Err(IdError::BadName {
                        what: $what,
                        input: clip(text),
                        max: $max,
                        alphabet: $alphabet,
                    });
                }
                Ok(Self(text.to_owned()))
            }
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let at = d.position();
                Self::new(d.str()?)
                    .map_err(|_| decode::Error::message(concat!("not a ", $what)).at(at))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
        impl core::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

const fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

name_id!(
    /// A key's name, fixed for its life.
    KeyName, "key name", 64, "`a-z 0-9 - _ .`", |b| lower(b) || matches!(b, b'-' | b'_' | b'.')
);
name_id!(
    /// Who asks or approves: `agent:research`, `operator:alice`.
    PrincipalId, "principal", 64, "`a-z 0-9 - _ . : @`",
    |b| lower(b) || matches!(b, b'-' | b'_' | b'.' | b':' | b'@')
);
name_id!(
    /// A grant's name within a policy.
    GrantId, "grant name", 64, "`a-z 0-9 - _ .`", |b| lower(b) || matches!(b, b'-' | b'_' | b'.')
);
name_id!(
    /// An asset's name within a policy's registry.
    AssetId, "asset name", 32, "`a-z 0-9 _`", |b| lower(b) || b == b'_'
);
name_id!(
    /// A list's name within a policy: `payees.x402`.
    ListId, "list name", 64, "`a-z 0-9 - _ .`", |b| lower(b) || matches!(b, b'-' | b'_' | b'.')
);
name_id!(
    /// A node's name within a manifest: `us-east-1`.
    NodeName, "node name", 32, "`a-z 0-9 -`", |b| lower(b) || b == b'-'
);
name_id!(
    /// A chain in CAIP-2 form: `eip155:8453`.
    ChainId, "chain id", 41, "`a-z A-Z 0-9 - _ :`, in CAIP-2 form",
    |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':')
);

impl ChainId {
    /// The EVM chain of this number.
    #[must_use]
    pub fn eip155(number: u64) -> Self {
        Self(format!("eip155:{number}"))
    }
    /// The number of an EVM chain, in its one canonical form.
    #[must_use]
    pub fn as_eip155(&self) -> Option<u64> {
        let number: u64 = self.0.strip_prefix("eip155:")?.parse().ok()?;
        (Self::eip155(number) == *self).then_some(number)
    }
}

/// How often a cluster has been recovered cold: 0 at birth, then one more each time.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Incarnation(#[n(0)] pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet_and_length() {
        assert!(KeyName::new("agent-7").is_ok());
        for bad in ["", "Agent", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(KeyName::new(bad).is_err(), "{bad}");
        }
        assert!(PrincipalId::new("agent:research").is_ok());
    }

    #[test]
    fn hex_ids_have_one_form() {
        let id = RequestId::new([7; 16]);
        assert_eq!(RequestId::from_hex(&id.to_hex()), Ok(id));
        for bad in [
            "",
            "0x",
            "07070707070707070707070707070707",
            "0x07070707070707070707070707070",
            "0x0707070707070707070707070707070A",
            "0X07070707070707070707070707070707",
        ] {
            assert!(RequestId::from_hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn eip155_has_one_form() {
        assert_eq!(ChainId::eip155(8453).as_eip155(), Some(8453));
        for bad in ["eip155:08453", "eip155:", "solana:1"] {
            assert_eq!(ChainId::new(bad).unwrap().as_eip155(), None, "{bad}");
        }
    }
}
