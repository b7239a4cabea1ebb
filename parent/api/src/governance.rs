//! Governance: `{"change": "0x…", "policy": "0x…"}` or `{"statement": "0x…"}`, each of them strict
//! CBOR, since that is what was signed.

use casemate_door::Submission;
use casemate_ledger::Attachment;
use casemate_proto::cbor::{self, CborError};
use casemate_proto::governance::{MAX_CHANGE, MAX_POLICY, SignedChange, SignedStatement};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::MAX_GOVERNANCE_BODY;
use crate::text::Hex;

/// The body of `POST /v1/governance`: a change, with the policy beside one that sets it, or a
/// freezer's statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GovernanceBody {
    /// Strict CBOR of a signed change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Hex>,
    /// A policy's canonical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Hex>,
    /// Strict CBOR of a freezer's signed statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Hex>,
}

/// Why a body submits nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GovernanceError {
    /// Too large.
    #[error("the body has {size} bytes; at most {MAX_GOVERNANCE_BODY} are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not the JSON that is expected.
    #[error("the body is malformed: {reason}")]
    Malformed {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// Neither or both.
    #[error("exactly one of `change` and `statement` is needed")]
    NotOne,
    /// A policy without a change that sets it.
    #[error("`policy` goes with `change` only")]
    PolicyAlone,
    /// A part is no strict CBOR of what it should be.
    #[error("field `{field}`: {error}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        #[source]
        error: CborError,
    },
}

impl GovernanceBody {
    /// The body that submits this; `None` for what is submitted elsewhere.
    #[must_use]
    pub fn of(submission: &Submission) -> Option<Self> {
        match submission {
            Submission::Governance { signed, attachment } => Some(Self {
                change: Some(Hex(cbor::encode(signed))),
                policy: match attachment {
                    Some(Attachment::Policy(bytes)) => Some(Hex::from(bytes)),
                    Some(Attachment::Genesis(_) | Attachment::Recovery(_)) | None => None,
                },
                statement: None,
            }),
            Submission::Statement(signed) => {
                Some(Self { statement: Some(Hex(cbor::encode(signed))), ..Self::default() })
            }
            Submission::Request { .. } | Submission::Approval { .. } | Submission::Query { .. } => {
                None
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        crate::to_json(self)
    }

    /// What a body submits.
    ///
    /// # Errors
    /// If it is too large, malformed, or submits nothing or two things.
    pub fn parse(body: &[u8]) -> Result<Submission, GovernanceError> {
        if body.len() > MAX_GOVERNANCE_BODY {
            return Err(GovernanceError::TooLarge { size: body.len() });
        }
        let body: Self =
            crate::from_json(body).map_err(|reason| GovernanceError::Malformed { reason })?;
        match (body.change, body.statement, body.policy) {
            (Some(change), None, policy) => {
                let signed: SignedChange = decode("change", &change.0)?;
                let attachment = match policy {
                    None => None,
                    Some(Hex(bytes)) if bytes.len() > MAX_POLICY => {
                        let error = CborError::TooLarge { size: bytes.len(), max: MAX_POLICY };
                        return Err(GovernanceError::Field { field: "policy", error });
                    }
                    Some(Hex(bytes)) => Some(Attachment::Policy(bytes)),
                };
                Ok(Submission::Governance { signed, attachment })
            }
            (None, Some(statement), None) => {
                let signed: SignedStatement = decode("statement", &statement.0)?;
                Ok(Submission::Statement(signed))
            }
            (None, Some(_), Some(_)) => Err(GovernanceError::PolicyAlone),
            (None, None, _) | (Some(_), Some(_), _) => Err(GovernanceError::NotOne),
        }
    }
}

fn decode<'b, T: minicbor::Decode<'b, ()> + minicbor::Encode<()>>(
    field: &'static str,
    bytes: &'b [u8],
) -> Result<T, GovernanceError> {
    cbor::decode(bytes, MAX_CHANGE).map_err(|error| GovernanceError::Field { field, error })
}
