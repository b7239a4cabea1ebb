//! Bodies of requests and approvals: strict JSON, because people and their tools write it, and
//! signed as the bytes it is.
//!
//! ```json
//! {"request_id": "0x…16 bytes", "key": "agent-7", "path": "m/0/1", "kind": "tx",
//!  "chain": "eip155:8453", "input": "0x02f8…"}
//! ```
//!
//! `kind` is `tx` (`input`: the unsigned transaction as hex, `chain` required), `typed_data`
//! (`input`: the object of `eth_signTypedData_v4`), `message` (`input`: hex of at most 16 KiB) or
//! `hash` (`input`: 32 bytes of hex). `path` may be left out and is then `m`. Unknown or repeated
//! fields are refused.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::Hash32;
use crate::{ChainId, CredentialId, DerivationPath, KeyName, RequestId};

/// Most bytes of a request's or an approval's body.
pub const MAX_BODY: usize = 44 * 1024;
/// Most bytes of a message.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// What is to be signed, not yet decoded further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An unsigned transaction for a chain.
    Tx {
        /// The chain that the client means; must be the one in the transaction.
        chain: ChainId,
        /// The unsigned transaction's bytes.
        unsigned: Vec<u8>,
    },
    /// EIP-712 typed data, as the JSON text that came.
    TypedData(String),
    /// A message, signed under Casemate's own tag.
    Message(Vec<u8>),
    /// A raw hash.
    Hash([u8; 32]),
}

impl Payload {
    /// `tx`, `typed_data`, `message` or `hash`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tx { .. } => "tx",
            Self::TypedData(_) => "typed_data",
            Self::Message(_) => "message",
            Self::Hash(_) => "hash",
        }
    }
}

/// A request for a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest {
    /// The client's id for it.
    pub request_id: RequestId,
    /// Which key.
    pub key: KeyName,
    /// Which child of it.
    pub path: DerivationPath,
    /// What is to be signed.
    pub payload: Payload,
}

/// An approval of a pending request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalBody {
    /// The requester's credential.
    pub credential: CredentialId,
    /// The request's id.
    pub request_id: RequestId,
    /// The hash of the approval document that the approver saw.
    pub document: Hash32,
}

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than the cap.
    #[error("the body has {size} bytes; at most {MAX_BODY} are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not the JSON that is expected; the reason names the field and the place.
    #[error("the body is malformed: {reason}")]
    Malformed {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A field's content is wrong.
    #[error("field `{field}` is malformed: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Tx,
    TypedData,
    Message,
    Hash,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRequest<'a> {
    request_id: RequestId,
    key: KeyName,
    #[serde(default)]
    path: DerivationPath,
    kind: Kind,
    #[serde(default)]
    chain: Option<ChainId>,
    #[serde(borrow)]
    input: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireApproval {
    credential: Hash32,
    request_id: RequestId,
    document: Hash32,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    if body.len() > MAX_BODY {
        return Err(BodyError::TooLarge { size: body.len() });
    }
    serde_json::from_slice(body).map_err(|error| BodyError::Malformed {
        reason: error.to_string().chars().take(200).collect(),
    })
}

fn hex_input(raw: &RawValue, max: usize) -> Result<Vec<u8>, BodyError> {
    let field = |reason: String| BodyError::Field { field: "input", reason };
    let text: String = serde_json::from_str(raw.get())
        .map_err(|_| field("a string of hex is expected for this kind".to_owned()))?;
    let digits =
        text.strip_prefix("0x").ok_or_else(|| field("no `0x` before the hex".to_owned()))?;
    if digits.len() / 2 > max {
        return Err(field(format!("{} bytes where at most {max} are accepted", digits.len() / 2)));
    }
    hex::decode(digits).map_err(|error| field(error.to_string()))
}

impl SignRequest {
    /// Parses a request's body.
    ///
    /// # Errors
    /// If it is too large, malformed, or a field is.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let wire: WireRequest<'_> = parse(body)?;
        let chain_error =
            |reason: &str| BodyError::Field { field: "chain", reason: reason.to_owned() };
        if !matches!(wire.kind, Kind::Tx) && wire.chain.is_some() {
            return Err(chain_error("only a request of kind `tx` names a chain"));
        }
        let payload = match wire.kind {
            Kind::Tx => Payload::Tx {
                chain: wire.chain.ok_or_else(|| {
                    chain_error("missing; a transaction's chain is named, such as `eip155:8453`")
                })?,
                unsigned: hex_input(wire.input, MAX_BODY)?,
            },
            Kind::TypedData => Payload::TypedData(wire.input.get().to_owned()),
            Kind::Message => Payload::Message(hex_input(wire.input, MAX_MESSAGE)?),
            Kind::Hash => {
                let bytes = hex_input(wire.input, 32)?;
                let size = bytes.len();
                Payload::Hash(bytes.try_into().map_err(|_| BodyError::Field {
                    field: "input",
                    reason: format!("{size} bytes where a hash has 32"),
                })?)
            }
        };
        Ok(Self { request_id: wire.request_id, key: wire.key, path: wire.path, payload })
    }

    /// The body that asks for this: what [`Self::parse`] reads.
    #[must_use]
    pub fn to_body(&self) -> String {
        let (chain, input) = match &self.payload {
            Payload::Tx { chain, unsigned } => {
                (format!(r#","chain":"{chain}""#), format!(r#""0x{}""#, hex::encode(unsigned)))
            }
            Payload::TypedData(json) => (String::new(), json.clone()),
            Payload::Message(bytes) => (String::new(), format!(r#""0x{}""#, hex::encode(bytes))),
            Payload::Hash(bytes) => (String::new(), format!(r#""0x{}""#, hex::encode(bytes))),
        };
        // every text but the typed data is of an alphabet that needs no escape
        format!(
            r#"{{"request_id":"{}","key":"{}","path":"{}","kind":"{}"{chain},"input":{input}}}"#,
            self.request_id,
            self.key,
            self.path,
            self.payload.kind()
        )
    }
}

impl ApprovalBody {
    /// Parses an approval's body.
    ///
    /// # Errors
    /// If it is too large or malformed.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let wire: WireApproval = parse(body)?;
        Ok(Self {
            credential: CredentialId(wire.credential),
            request_id: wire.request_id,
            document: wire.document,
        })
    }

    /// The body that says this: what [`Self::parse`] reads.
    #[must_use]
    pub fn to_body(&self) -> String {
        format!(
            r#"{{"credential":"{}","request_id":"{}","document":"{}"}}"#,
            self.credential, self.request_id, self.document
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(input: &str) -> String {
        format!(r#"{{"request_id":"0x000102030405060708090a0b0c0d0e0f","key":"agent-7",{input}}}"#)
    }

    #[test]
    fn each_kind_parses_and_prints_back() {
        for input in [
            r#""kind":"tx","chain":"eip155:1","input":"0x02c0""#,
            r#""kind":"typed_data","input":{"b":1,"a":[1,2]}"#,
            r#""kind":"message","path":"m/0/7","input":"0x""#,
            r#""kind":"hash","input":"0x1111111111111111111111111111111111111111111111111111111111111111""#,
        ] {
            let request = SignRequest::parse(body(input).as_bytes()).unwrap();
            assert_eq!(SignRequest::parse(request.to_body().as_bytes()), Ok(request));
        }
    }

    #[test]
    fn malformed_bodies_are_refused_naming_field_and_place() {
        for (input, wanted) in [
            (r#""kind":"tx","input":"0x02""#, "chain"),
            (r#""kind":"message","chain":"eip155:1","input":"0x02""#, "chain"),
            (r#""kind":"hash","input":"0x1111""#, "2 bytes"),
            (r#""kind":"message","input":"00""#, "0x"),
            (r#""kind":"message","input":"0x0""#, "input"),
            (r#""kind":"message","input":5"#, "input"),
            (r#""kind":"other","input":"0x""#, "other"),
            (r#""kind":"message","input":"0x","extra":1"#, "extra"),
            (r#""kind":"message","kind":"hash","input":"0x""#, "duplicate field `kind`"),
            (r#""kind":"message","path":"m/0'","input":"0x""#, "m/0'"),
            (r#""kind":"message""#, "input"),
        ] {
            let error = SignRequest::parse(body(input).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{input}: {error}");
        }
        assert!(
            SignRequest::parse(
                format!("{} ", body(r#""kind":"message","input":"0x"}{"#)).as_bytes()
            )
            .is_err()
        );
        assert_eq!(
            SignRequest::parse(&vec![b' '; MAX_BODY + 1]),
            Err(BodyError::TooLarge { size: MAX_BODY + 1 })
        );
    }

    #[test]
    fn approval_parses_and_prints_back() {
        let approval = ApprovalBody {
            credential: CredentialId(Hash32::new([1; 32])),
            request_id: RequestId::new([2; 16]),
            document: Hash32::new([3; 32]),
        };
        assert_eq!(ApprovalBody::parse(approval.to_body().as_bytes()), Ok(approval));
    }
}
