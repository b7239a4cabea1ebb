//! Why JSON is not typed data that Casemate signs.

use super::json::JsonError;
use super::types::TypesError;

/// Why JSON is refused as EIP-712 typed data. `at` is a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedDataError {
    /// More bytes than typed data may have.
    #[error("{size} bytes where at most {max} are allowed")]
    TooLarge {
        /// How many came.
        size: usize,
        /// How many may.
        max: usize,
    },
    /// Not strict JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The declared types are malformed.
    #[error(transparent)]
    Types(#[from] TypesError),
    /// A value of another JSON type than its place demands.
    #[error("`{at}` is {got} where {expected} is expected")]
    WrongJsonType {
        /// Where.
        at: String,
        /// What belongs there.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// A member that must be there is not.
    #[error("`{at}` has no member `{member}`")]
    Missing {
        /// Which object.
        at: String,
        /// Which member.
        member: String,
    },
    /// A member that nothing declares. EIP-712 would leave it out of the digest.
    #[error("`{at}` has a member `{member}` that is not declared")]
    Undeclared {
        /// Which object.
        at: String,
        /// Which member.
        member: String,
    },
    /// A value that its declared type does not have.
    #[error("`{at}`: `{input}` is not {expected}")]
    BadValue {
        /// Where.
        at: String,
        /// The beginning of what came.
        input: String,
        /// What it should be, with its form.
        expected: String,
    },
    /// An array of another length than its type declares.
    #[error("`{at}` has {got} elements where its type has {expected}")]
    ArrayLength {
        /// Where.
        at: String,
        /// How many its type has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// More structs in the message than are hashed.
    #[error("`/message` holds more than {max} structs")]
    TooManyStructs {
        /// How many may be there.
        max: usize,
    },
    /// The domain has no field at all, so the signature would hold in every domain like it.
    #[error("`/domain` is empty")]
    EmptyDomain,
    /// `types.EIP712Domain` is not made of the domain's fields in EIP-712's order.
    #[error("`/types/EIP712Domain` is `{declared}` where the domain's fields make it `{expected}`")]
    DomainType {
        /// What came.
        declared: String,
        /// What the fields make it.
        expected: String,
    },
    /// A well-known type's name with other fields.
    #[error("`{name}` is declared as `{declared}`, which is not the known `{expected}`")]
    KnownTypeDiffers {
        /// The type's name.
        name: &'static str,
        /// What came.
        declared: String,
        /// What it is known as.
        expected: String,
    },
    /// A time in seconds that does not fit 64 bits of milliseconds.
    #[error("`{at}`: `{input}` seconds are past the end of time, 2⁶⁴ milliseconds")]
    TimeOverflow {
        /// Where.
        at: &'static str,
        /// What came.
        input: String,
    },
    /// The general encoder refuses what passed every check.
    #[error("not encodable: {reason}")]
    NotEncodable {
        /// What the encoder says.
        reason: String,
    },
    /// Two independent encoders disagree on what is to be signed.
    #[error("two encoders disagree on the {what}")]
    EncodersDisagree {
        /// The digest or the domain's separator.
        what: &'static str,
    },
}
