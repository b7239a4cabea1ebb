//! How bytes, times and ids are written in JSON.

use std::borrow::Cow;

use casemate_proto::ids::Hash32;
use casemate_proto::{CredentialId, UnixMillis};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// Bytes as `0x` and lower-case hex: one text for each value.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, pattern = "^0x([0-9a-f]{2})*$", example = "0x00ff")]
pub struct Hex(pub Vec<u8>);

impl Hex {
    /// Parses the text.
    ///
    /// # Errors
    /// Saying what is wrong, without repeating what may be long.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let digits = text.strip_prefix("0x").ok_or("hex begins with `0x`")?;
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("hex is lower case");
        }
        hex::decode(digits).map(Self).map_err(|_| "not an even number of hex digits")
    }
}

impl<T: AsRef<[u8]>> From<T> for Hex {
    fn from(bytes: T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("0x{}", hex::encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// A time as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-20T09:00:00.000Z")]
pub struct Time(pub UnixMillis);

impl From<UnixMillis> for Time {
    fn from(time: UnixMillis) -> Self {
        Self(time)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        UnixMillis::from_rfc3339(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A credential's id as hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, pattern = "^0x[0-9a-f]{64}$")]
pub struct Credential(pub CredentialId);

impl From<CredentialId> for Credential {
    fn from(id: CredentialId) -> Self {
        Self(id)
    }
}

impl Serialize for Credential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Hash32::deserialize(deserializer).map(|hash| Self(CredentialId(hash)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_one_form() {
        assert_eq!(serde_json::from_str::<Hex>(r#""0x00ff""#).unwrap(), Hex(vec![0, 255]));
        assert_eq!(serde_json::to_string(&Hex(vec![0, 255])).unwrap(), r#""0x00ff""#);
        assert_eq!(serde_json::from_str::<Hex>(r#""0x""#).unwrap(), Hex(Vec::new()));
        for bad in [r#""00ff""#, r#""0x00fF""#, r#""0x0""#, r#""0xzz""#, r#""0X00""#, "0", "null"] {
            assert!(serde_json::from_str::<Hex>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_credentials_go_through_json_unchanged() {
        let time = Time(UnixMillis(1_763_629_200_123));
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, r#""2025-11-20T09:00:00.123Z""#);
        assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
        assert!(serde_json::from_str::<Time>(r#""2025-11-20T09:00:00+01:00""#).is_err());

        let credential = Credential(CredentialId(Hash32::new([7; 32])));
        let text = serde_json::to_string(&credential).unwrap();
        assert_eq!(serde_json::from_str::<Credential>(&text).unwrap(), credential);
        assert!(serde_json::from_str::<Credential>(r#""0x07""#).is_err());
    }
}
