//! Problems: RFC 9457 with a code of a closed list.
//!
//! A problem has two sources. A *denial* is the enclave's word: it carries [`Problem::signed_denial`],
//! which a client checks with the boot's key. Everything else is the parent's own word and
//! settles nothing: a request that it says it could not read may still be in the ledger, so a client asks
//! again under the same id.

use casemate_door::SignedDenial;
use casemate_proto::denial::LimitRef;
use casemate_proto::{Amount, DenialCode, GrantId, Millis, cbor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::{Hex, Time};

/// Most bytes of an encoded signed denial.
pub const MAX_SIGNED_DENIAL: usize = 4 * 1024;
/// What every problem's `type` begins with; the code follows.
pub const TYPE_PREFIX: &str = "urn:casemate:problem:";

macro_rules! parent_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)+) => {
        /// What a parent says for itself: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ParentCode {
            $($(#[$doc])* $variant,)+
        }
        impl ParentCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// The code as users see it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }
        }
    };
}

parent_codes! {
    /// A header is missing or malformed.
    BadHeader = "bad_header", 400;
    /// A part of the URL is missing or malformed.
    BadQuery = "bad_query", 400;
    /// The body is not what it should be.
    BadBody = "bad_body", 400;
    /// Nothing is here.
    NotFound = "not_found", 404;
    /// Something is here that has no such method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408;
    /// The body is larger than it may be.
    BodyTooLarge = "body_too_large", 413;
    /// The body is not JSON by its media type.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// The parent failed. What was asked may have been done.
    Internal = "internal", 500;
    /// The node is not a member of its cluster now. Ask again, or ask another.
    NotReady = "not_ready", 503;
    /// The parent has too much to do. Ask again, or ask another.
    Overloaded = "overloaded", 503;
    /// The node still works on it. Ask again under the same id, here or at another node.
    Working = "working", 504;
}

/// A problem's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemCode {
    /// The enclave's.
    Denial(DenialCode),
    /// The parent's.
    Parent(ParentCode),
}

impl ProblemCode {
    /// Every code.
    pub fn all() -> impl Iterator<Item = Self> {
        let denials = DenialCode::ALL.iter().copied().map(Self::Denial);
        denials.chain(ParentCode::ALL.iter().copied().map(Self::Parent))
    }

    /// The code as users see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denial(code) => code.name(),
            Self::Parent(code) => code.name(),
        }
    }

    /// The code of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|code| code.name() == name)
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Denial(code) => denial_status(code),
            Self::Parent(code) => code.status(),
        }
    }
}

impl From<DenialCode> for ProblemCode {
    fn from(code: DenialCode) -> Self {
        Self::Denial(code)
    }
}
impl From<ParentCode> for ProblemCode {
    fn from(code: ParentCode) -> Self {
        Self::Parent(code)
    }
}

/// The HTTP status of a denial: what a client that knows no more than HTTP should make of it.
#[must_use]
pub const fn denial_status(code: DenialCode) -> u16 {
    match code {
        DenialCode::Malformed => 400,
        DenialCode::UnknownRequest => 404,
        DenialCode::RequestIdReused | DenialCode::OutcomeUnknown => 409,
        DenialCode::TooLarge => 413,
        DenialCode::RateLimited => 429,
        DenialCode::Busy => 503,
        _ => 403,
    }
}

/// What became of a request that a problem answers, where the enclave said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Refused {
    /// Denied.
    Denied,
    /// Allowed and perhaps charged, and never to be signed. A new try needs a new id.
    Expired,
}

/// A problem, as RFC 9457 has it, with more members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:casemate:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:casemate:problem:limit_exceeded")]
    pub type_uri: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong, with which input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// One of a closed list.
    #[schema(example = "limit_exceeded")]
    pub code: String,
    /// Milliseconds after which asking again can help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What became of the request; there exactly where `signed_denial` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Refused>,
    /// The grant that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// What the limit that was hit is set to: base units, or a number of signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub limit: Option<Amount>,
    /// What is left under it, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remaining: Option<Amount>,
    /// When the same request could next pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<Time>,
    /// The log's entry that holds the denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The denial in the hand of the boot that gave it: strict CBOR of a signed denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_denial: Option<Hex>,
}

impl Problem {
    /// A problem that nobody signed.
    #[must_use]
    pub fn new(code: impl Into<ProblemCode>, detail: impl core::fmt::Display) -> Self {
        let code = code.into();
        Self {
            type_uri: format!("{TYPE_PREFIX}{}", code.name()),
            title: code.name().replace('_', " "),
            status: code.status(),
            detail: Some(detail.to_string()),
            code: code.name().to_owned(),
            retry_after_ms: None,
            outcome: None,
            grant: None,
            limit: None,
            remaining: None,
            resets_at: None,
            index: None,
            signed_denial: None,
        }
    }

    /// The same, with the time after which asking again can help.
    #[must_use]
    pub const fn retry_after(mut self, after: Millis) -> Self {
        self.retry_after_ms = Some(after.0);
        self
    }

    /// What an enclave refused, in its own hand.
    #[must_use]
    pub fn refused(outcome: Refused, signed: &SignedDenial) -> Self {
        let denial = &signed.denial;
        let limit = denial.limit.as_ref().map(|limit| match limit {
            LimitRef::PerTx { max }
            | LimitRef::Sum { max, .. }
            | LimitRef::Fee { max }
            | LimitRef::FeeSum { max, .. } => *max,
            LimitRef::Count { max, .. } => Amount::from(*max),
        });
        let status = match outcome {
            Refused::Denied => denial_status(denial.code),
            Refused::Expired => 410,
        };
        Self {
            status,
            outcome: Some(outcome),
            grant: denial.grant.clone(),
            limit,
            remaining: denial.remaining,
            resets_at: denial.resets_at.map(Time),
            index: signed.index,
            signed_denial: Some(Hex(cbor::encode(signed))),
            ..Self::new(denial.code, &denial.detail)
        }
    }

    /// Its body.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        crate::to_json(self)
    }
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.code),
            None => f.write_str(&self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_differ_and_are_found_by_their_names() {
        let names: BTreeSet<&str> = ProblemCode::all().map(ProblemCode::name).collect();
        assert_eq!(names.len(), DenialCode::ALL.len() + ParentCode::ALL.len());
        for code in ProblemCode::all() {
            assert_eq!(ProblemCode::from_name(code.name()), Some(code));
            assert!((400..600).contains(&code.status()), "{}", code.name());
        }
        assert_eq!(ProblemCode::from_name("no_such_code"), None);
    }

    #[test]
    fn problem_has_the_members_of_rfc_9457_and_no_empty_ones() {
        let problem = Problem::new(ParentCode::BadBody, "field `change`: hex begins with `0x`");
        let json = String::from_utf8(problem.to_body()).unwrap();
        assert_eq!(
            json,
            r#"{"type":"urn:casemate:problem:bad_body","title":"bad body","status":400,"detail":"field `change`: hex begins with `0x`","code":"bad_body"}"#
        );
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
    }
}
