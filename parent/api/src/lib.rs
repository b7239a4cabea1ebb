//! The HTTP API that a parent offers in front of its enclave: what is in each body, header and
//! problem, read and written in one place for both ends.
//!
//! A parent is not trusted, so nothing here is believed because a parent said it. What matters
//! is in bytes that an enclave signed or that the log proves, and travels whole: a [`Signed`] answer is
//! rebuilt from its JSON to the last bit, denials and replies carry their strict CBOR in hex. The
//! readable fields beside them are for people and simple tools.
//!
//! Conventions: hex is `0x` and lower case; amounts are decimal strings in base units; times are
//! RFC 3339 in UTC with milliseconds. Bodies of requests are strict, so that a misspelt field is
//! an error and not a different wish. In what a parent answers unknown fields are ignored, so that a
//! newer one can say more. Errors are RFC 9457 problems with a code of a closed list.
//!
//! [`Signed`]: casemate_door::Signed

pub mod answer;
pub mod governance;
pub mod header;
pub mod problem;
pub mod ready;
pub mod receipt;
pub mod reply;
pub mod route;
pub mod text;

pub use answer::{Outcome, ReadError, Rendered};
pub use governance::GovernanceBody;
pub use header::{PASSKEY_HEADER, STAMP_HEADER};
pub use problem::{ParentCode, Problem, ProblemCode};
pub use ready::Ready;
pub use receipt::{InclusionJson, ReceiptJson};
pub use reply::ReplyKind;

/// Most bytes of the body of a request for a signature or of an approval.
pub const MAX_BODY: usize = casemate_proto::request::MAX_BODY;
/// Most bytes of the body of a governance submission: a policy's hex, with the change beside it.
pub const MAX_GOVERNANCE_BODY: usize =
    2 * (casemate_proto::governance::MAX_POLICY + casemate_proto::governance::MAX_CHANGE) + 1024;
/// Most bytes of the body that answers a request, an approval or a change.
pub const MAX_ANSWER: usize = 1024 * 1024;
/// Most bytes of the body that answers a query: a signed reply's hex, and the same for people.
pub const MAX_REPLY_BODY: usize = 6 * casemate_door::query::MAX_REPLY;

/// The media type of a body of JSON.
pub const JSON: &str = "application/json";
/// The media type of an RFC 9457 problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Serialises what cannot fail to be serialised: structures of strings, numbers and lists.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // only a map with keys that are no strings, or a `Serialize` that fails, gives an error; were
    // there one after all, an empty body reads as malformed at the other end
    serde_json::to_vec(value).unwrap_or_default()
}

/// Parses a body that is one JSON object; the reason names the place.
pub(crate) fn from_json<'b, T: serde::Deserialize<'b>>(body: &'b [u8]) -> Result<T, String> {
    // serde would also take a structure's fields from an array, by their order
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("not a JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string().chars().take(200).collect())
}
