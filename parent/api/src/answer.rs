//! What a node answered, as an HTTP response and back: [`Rendered::of`] at the parent, [`Outcome::read`] at
//! the client. Nothing is lost between the two, so that a client checks the very bytes that its node's
//! enclave signed or proved.
//!
//! | status | body | what it is |
//! |---|---|---|
//! | 200 | `outcome` `signed` | a signature with its receipt |
//! | 200 | `outcome` `accepted` | an approval or change that was recorded |
//! | 200 | `outcome` `recorded` | signed long ago: look in the auditors' store |
//! | 202 | `outcome` `pending` | waits for approvals or a delay |
//! | 403, 409, … | problem, `outcome` `denied` | denied, in the enclave's hand |
//! | 410 | problem, `outcome` `expired` | never to be signed, in the enclave's hand |
//! | 404 | problem `unknown_request` | no such request is remembered |
//! | 503 | problem `busy` | not now |

use casemate_door::{Answer, PendingAnswer, Signed, SignedDenial};
use casemate_ledger::Verdict;
use casemate_proto::cbor::{self, CborError};
use casemate_proto::ids::Hash32;
use casemate_proto::{DenialCode, GrantId, Millis};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::{MAX_SIGNED_DENIAL, Problem, ProblemCode, Refused};
use crate::receipt::{ReceiptJson, ReceiptJsonError};
use crate::text::{Hex, Time};
use crate::{JSON, MAX_ANSWER, PROBLEM_JSON};

/// Most bytes of an encoded verdict.
const MAX_VERDICT: usize = 8 * 1024;
/// What Ethereum's wallets add to a recovery id.
const WALLET_V: u8 = 27;

/// A signature with its proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedJson {
    /// The 32 bytes that are signed.
    pub digest: Hex,
    /// ECDSA: r‖s‖v, 65 bytes, low s, v 27 or 28. Ed25519 and BIP-340: 64 bytes over the digest.
    pub signature: Hex,
    /// What it verifies under, as the log has it: 33 bytes SEC 1 or 32 bytes Ed25519.
    pub public_key: Hex,
    /// The signed transaction; null for everything else, and where the request is only asked about.
    pub raw_transaction: Option<Hex>,
    /// The proof that it is in the log.
    pub receipt: ReceiptJson,
}

/// An approval, change or statement that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptedJson {
    /// The log's entry.
    pub index: u64,
    /// What was decided: `accepted`, `repeated`, `pending`, `allowed` or `denied`.
    pub decided: String,
    /// What it made true, by its id where it has one.
    #[schema(value_type = Option<String>)]
    pub id: Option<Hash32>,
    /// Not before this time, if it waits.
    pub effective: Option<Time>,
    /// The verdict itself: strict CBOR.
    pub verdict: Hex,
}

/// A request that was signed so long ago that the auditors' store has to be asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordedJson {
    /// The log's entry that allowed it.
    pub index: u64,
    /// The log's entry that holds the signature.
    pub signed_index: u64,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingJson {
    /// The approval document's hash: what approvers sign.
    #[schema(value_type = String)]
    pub document: Hash32,
    /// The grant that asks for approval.
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// Approvals so far that count.
    pub have: u64,
    /// Approvals needed; 0 where the node no longer knows.
    pub need: u64,
    /// Not before this time even with all approvals.
    pub not_before: Option<Time>,
    /// When it expires.
    pub expires: Time,
}

/// The body of a 200 or 202.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum AnswerJson {
    /// Signed.
    Signed(Box<SignedJson>),
    /// Recorded, for anything but a request.
    Accepted(AcceptedJson),
    /// Signed long ago.
    Recorded(RecordedJson),
    /// Waits.
    Pending(PendingJson),
}

impl AnswerJson {
    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Signed(_) | Self::Accepted(_) | Self::Recorded(_) => 200,
            Self::Pending(_) => 202,
        }
    }
}

/// A response, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The HTTP status.
    pub status: u16,
    /// The body's media type.
    pub content_type: &'static str,
    /// For `Retry-After`.
    pub retry_after: Option<Millis>,
    /// The body.
    pub body: Vec<u8>,
}

impl Rendered {
    /// What a node answered.
    ///
    /// # Errors
    /// If the answer holds a receipt for something that is no record.
    pub fn of(answer: &Answer) -> Result<Self, ReceiptJsonError> {
        let json = match answer {
            Answer::Signed(signed) => AnswerJson::Signed(Box::new(signed_json(signed)?)),
            Answer::Accepted { index, verdict } => {
                AnswerJson::Accepted(accepted_json(*index, verdict))
            }
            Answer::Recorded { index, signed_index } => {
                AnswerJson::Recorded(RecordedJson { index: *index, signed_index: *signed_index })
            }
            Answer::Pending(pending) => AnswerJson::Pending(pending.into()),
            Answer::Denied(signed) => {
                return Ok(Self::of_problem(&Problem::refused(Refused::Denied, signed)));
            }
            Answer::Expired(signed) => {
                return Ok(Self::of_problem(&Problem::refused(Refused::Expired, signed)));
            }
            Answer::Unknown => {
                let detail = "no request of this id and credential is remembered";
                return Ok(Self::of_problem(&Problem::new(DenialCode::UnknownRequest, detail)));
            }
            Answer::Busy { retry_after } => {
                let problem = Problem::new(DenialCode::Busy, "the node cannot serve this now");
                return Ok(Self::of_problem(&problem.retry_after(*retry_after)));
            }
        };
        Ok(Self {
            status: json.status(),
            content_type: JSON,
            retry_after: None,
            body: crate::to_json(&json),
        })
    }

    /// A problem.
    #[must_use]
    pub fn of_problem(problem: &Problem) -> Self {
        Self {
            status: problem.status,
            content_type: PROBLEM_JSON,
            retry_after: problem.retry_after_ms.map(Millis),
            body: problem.to_body(),
        }
    }
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What the enclave answered, as far as the parent is to be believed. Signatures, denials and expiries
    /// prove themselves and are to be checked; nothing else settles anything.
    Answer(Answer),
    /// What the parent said for itself.
    Problem(Box<Problem>),
}

/// Why a response is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too large.
    #[error("the response has {size} bytes; at most {max} are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The cap.
        max: usize,
    },
    /// Not the JSON that is expected.
    #[error("the response is malformed: {reason}")]
    Malformed {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// The status does not go with the body.
    #[error("the response has status {found}, and its body is one of status {expected}")]
    Status {
        /// The status of the response.
        found: u16,
        /// The status that goes with the body.
        expected: u16,
    },
    /// A field does not hold what it should.
    #[error("field `{field}` of the response: {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A field is no strict CBOR of what it should be.
    #[error("field `{field}` of the response: {error}")]
    Cbor {
        /// Which.
        field: &'static str,
        /// What is wrong.
        #[source]
        error: CborError,
    },
    /// A receipt that is none.
    #[error("the receipt: {0}")]
    Receipt(#[from] ReceiptJsonError),
    /// The readable part says something else than the signed part.
    #[error("the response's readable part contradicts its signed part")]
    Contradiction,
}

impl Outcome {
    /// Reads a response to a request, an approval, a change, or a question about a request.
    ///
    /// # Errors
    /// If it is too large, malformed, or contradicts itself.
    pub fn read(status: u16, body: &[u8]) -> Result<Self, ReadError> {
        if body.len() > MAX_ANSWER {
            return Err(ReadError::TooLarge { size: body.len(), max: MAX_ANSWER });
        }
        if matches!(status, 200 | 202) {
            let json: AnswerJson = parse(body)?;
            let expected = json.status();
            if expected != status {
                return Err(ReadError::Status { found: status, expected });
            }
            return read_answer(json).map(Self::Answer);
        }
        let problem: Problem = parse(body)?;
        if problem.status != status {
            return Err(ReadError::Status { found: status, expected: problem.status });
        }
        read_problem(problem)
    }
}

pub(crate) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ReadError> {
    crate::from_json(body).map_err(|reason| ReadError::Malformed { reason })
}

fn read_answer(json: AnswerJson) -> Result<Answer, ReadError> {
    Ok(match json {
        AnswerJson::Signed(json) => Answer::Signed(Box::new(read_signed(*json)?)),
        AnswerJson::Accepted(json) => {
            let verdict: Verdict = cbor::decode(&json.verdict.0, MAX_VERDICT)
                .map_err(|error| ReadError::Cbor { field: "verdict", error })?;
            if accepted_json(json.index, &verdict) != json {
                return Err(ReadError::Contradiction);
            }
            Answer::Accepted { index: json.index, verdict }
        }
        AnswerJson::Recorded(RecordedJson { index, signed_index }) => {
            Answer::Recorded { index, signed_index }
        }
        AnswerJson::Pending(json) => Answer::Pending(json.into()),
    })
}

fn read_problem(problem: Problem) -> Result<Outcome, ReadError> {
    let code = ProblemCode::from_name(&problem.code);
    match (problem.outcome, &problem.signed_denial) {
        (Some(outcome), Some(Hex(bytes))) => {
            let signed: SignedDenial = cbor::decode(bytes, MAX_SIGNED_DENIAL)
                .map_err(|error| ReadError::Cbor { field: "signed_denial", error })?;
            if Problem::refused(outcome, &signed) != problem {
                return Err(ReadError::Contradiction);
            }
            let signed = Box::new(signed);
            Ok(Outcome::Answer(match outcome {
                Refused::Denied => Answer::Denied(signed),
                Refused::Expired => Answer::Expired(signed),
            }))
        }
        (None, None) => Ok(match (code, problem.retry_after_ms) {
            (Some(ProblemCode::Denial(DenialCode::UnknownRequest)), _) => {
                Outcome::Answer(Answer::Unknown)
            }
            (Some(ProblemCode::Denial(DenialCode::Busy)), Some(after)) => {
                Outcome::Answer(Answer::Busy { retry_after: Millis(after) })
            }
            _ => Outcome::Problem(Box::new(problem)),
        }),
        (Some(_), None) | (None, Some(_)) => Err(ReadError::Contradiction),
    }
}

fn signed_json(signed: &Signed) -> Result<SignedJson, ReceiptJsonError> {
    Ok(SignedJson {
        digest: Hex::from(signed.digest),
        signature: Hex(wallet_form(&signed.signature)),
        public_key: Hex::from(&signed.public_key),
        raw_transaction: signed.raw_transaction.as_ref().map(Hex::from),
        receipt: ReceiptJson::try_from(&signed.receipt)?,
    })
}

fn read_signed(json: SignedJson) -> Result<Signed, ReadError> {
    let digest = <[u8; 32]>::try_from(json.digest.0)
        .map_err(|_| ReadError::Field { field: "digest", reason: "a digest has 32 bytes" })?;
    Ok(Signed {
        digest,
        signature: ledger_form(json.signature.0)?,
        public_key: json.public_key.0,
        raw_transaction: json.raw_transaction.map(|Hex(bytes)| bytes),
        receipt: json.receipt.try_into()?,
    })
}

/// r‖s‖v with v 27 or 28, as wallets have it; 64 bytes as they are.
fn wallet_form(signature: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    if let Some((v, [_, ..])) = bytes.split_last_mut().filter(|(_, rest)| rest.len() == 64) {
        *v = v.saturating_add(WALLET_V);
    }
    bytes
}

/// r‖s‖v with v 0 or 1, as the log has it.
fn ledger_form(mut signature: Vec<u8>) -> Result<Vec<u8>, ReadError> {
    let wrong = |reason| ReadError::Field { field: "signature", reason };
    match signature.as_mut_slice() {
        bytes if bytes.len() == 64 => {}
        [.., v] => {
            *v = v
                .checked_sub(WALLET_V)
                .filter(|v| *v <= 1)
                .ok_or_else(|| wrong("v is neither 27 nor 28"))?;
            if signature.len() != 65 {
                return Err(wrong("a signature has 64 or 65 bytes"));
            }
        }
        [] => return Err(wrong("a signature has 64 or 65 bytes")),
    }
    Ok(signature)
}

fn accepted_json(index: u64, verdict: &Verdict) -> AcceptedJson {
    let (id, effective) = match verdict {
        Verdict::Accepted { id, effective } => (*id, effective.map(Time)),
        _ => (None, None),
    };
    AcceptedJson {
        index,
        decided: verdict.name().to_owned(),
        id,
        effective,
        verdict: Hex(cbor::encode(verdict)),
    }
}

impl From<&PendingAnswer> for PendingJson {
    fn from(pending: &PendingAnswer) -> Self {
        Self {
            document: pending.document,
            grant: pending.grant.clone(),
            have: pending.have,
            need: pending.need,
            not_before: pending.not_before.map(Time),
            expires: Time(pending.expires),
        }
    }
}

impl From<PendingJson> for PendingAnswer {
    fn from(json: PendingJson) -> Self {
        Self {
            document: json.document,
            grant: json.grant,
            have: json.have,
            need: json.need,
            not_before: json.not_before.map(|Time(time)| time),
            expires: json.expires.0,
        }
    }
}
