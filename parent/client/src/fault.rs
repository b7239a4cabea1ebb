//! What can be wrong with a node, or with whoever answers in its place.

use std::time::Duration;

use casemate_attestation_verify::Refusal;
use casemate_audit::{ReceiptError, RecordError};
use casemate_proto::cbor::CborError;
use casemate_proto::{BootId, GenesisId, KeyName, NodeName, RequestId};

/// Why an answer of a node is worth nothing. None of it says that the enclave is at fault: all of
/// it can be made by its host or by the network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NodeFault {
    /// No connection, or it broke.
    #[error("not reachable: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// It took too long, to connect or to its last byte.
    #[error("no whole answer within {} ms", after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// A redirect, which is never followed.
    #[error("answered with a redirect ({status}), which is never followed")]
    Redirect {
        /// The status.
        status: u16,
    },
    /// A body above its cap.
    #[error("answered with more than {max} bytes")]
    TooLarge {
        /// The cap.
        max: usize,
    },
    /// A status that means nothing here, with what it says of it; unsigned.
    #[error("answered {status}: {detail}")]
    Status {
        /// The status.
        status: u16,
        /// The beginning of what it says.
        detail: String,
    },
    /// Not now.
    #[error("is busy, not ready, or still at work")]
    Busy {
        /// When to ask again, if it says so.
        retry_after: Option<Duration>,
    },
    /// A body that is not what is expected.
    #[error("answered with a malformed body: {reason}")]
    Body {
        /// What is wrong.
        reason: String,
    },
    /// Strict CBOR that is none.
    #[error("answered with malformed {what}: {error}")]
    Cbor {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        error: CborError,
    },
    /// Its genesis record is another cluster's.
    #[error("its genesis record is of cluster {found}, and {expected} is pinned")]
    OtherCluster {
        /// The one pinned.
        expected: GenesisId,
        /// The record's.
        found: GenesisId,
    },
    /// Its attestation document is refused.
    #[error("its attestation is refused: {0}")]
    Attestation(Box<Refusal>),
    /// It attests another node than the one asked.
    #[error("attests node `{found}` where `{expected}` is meant to be")]
    OtherNode {
        /// The one asked.
        expected: NodeName,
        /// The one attested.
        found: NodeName,
    },
    /// It attests a node that the roster does not have.
    #[error("attests node `{found}`, which is not in the roster")]
    NotInRoster {
        /// The one attested.
        found: NodeName,
    },
    /// Its reply is not signed by the boot that it attested.
    #[error("its reply is not signed by the boot that it attested")]
    NotTheBoot,
    /// A reply to another question.
    #[error("replied to another question")]
    OtherReply,
    /// A receipt that proves nothing.
    #[error("its receipt is refused: {0}")]
    Receipt(#[from] ReceiptFault),
    /// A denial that proves nothing.
    #[error("its denial is refused: {0}")]
    Denial(#[from] DenialFault),
    /// A key whose proof is none.
    #[error("what it shows as key `{name}` is refused: {fault}")]
    Key {
        /// Which.
        name: KeyName,
        /// Why.
        fault: KeyFault,
    },
}

impl NodeFault {
    /// Whether it only says that the node could not be heard, now.
    #[must_use]
    pub const fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Busy { .. })
    }
}

/// Why a receipt does not show that this request was signed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReceiptFault {
    /// The record of the signature is not shown to be in the log.
    #[error("record of the signature: {0}")]
    Signed(ReceiptError),
    /// The record of the allowance is not shown to be in the log.
    #[error("record of the allowance: {0}")]
    Allowed(ReceiptError),
    /// A record's entry or verdict is malformed.
    #[error("the record's {part} is malformed: {error}")]
    Malformed {
        /// `entry` or `verdict`.
        part: &'static str,
        /// What is wrong.
        error: CborError,
    },
    /// A record is malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record is of another kind.
    #[error("a record of kind `{found}` where one of kind `{expected}` is needed")]
    Kind {
        /// What is needed.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The record is of another request.
    #[error("the record is not of this request")]
    OtherRequest,
    /// The record's verdict does not allow it.
    #[error("the record's verdict is `{found}`")]
    Verdict {
        /// The verdict.
        found: &'static str,
    },
    /// The record allows another key or path.
    #[error("the record allows another key or path")]
    OtherKey,
    /// The record or the answer has another digest than follows from what was asked for.
    #[error("the digest is not that of what was asked for")]
    OtherDigest,
    /// The answer's signature is not the record's.
    #[error("the signature is not the one on record")]
    OtherSignature,
    /// The signature does not verify under the key that was expected.
    #[error("the signature does not verify under the key")]
    BadSignature,
    /// The answer names another public key.
    #[error("the public key is not the one that was expected")]
    OtherPublicKey,
    /// The allowance comes after the signature.
    #[error("the signature's record comes before the allowance's")]
    Order,
}

/// Why a denial is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenialFault {
    /// By a boot that was not attested.
    #[error("it is by boot {found}, and {attested} was attested")]
    OtherBoot {
        /// The boot it names.
        found: BootId,
        /// The one attested.
        attested: BootId,
    },
    /// Not signed by that boot.
    #[error("it is not signed by the boot that it names")]
    BadSignature,
    /// Of something else than was asked.
    #[error("it is not about what was asked")]
    OtherSubject,
    /// Older than what was asked.
    #[error("it is older than what was asked")]
    Replayed,
}

/// Why a key is not believed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum KeyFault {
    /// Its record is not shown to be in the log.
    #[error("{0}")]
    Proof(ReceiptError),
    /// Its record is malformed, or of something else.
    #[error("its record is not that of this key becoming live")]
    OtherRecord,
    /// The key itself is none.
    #[error("it is not a public key of its scheme")]
    NotAKey,
    /// It is listed twice.
    #[error("it is listed twice")]
    Twice,
}

/// A node with what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFailure {
    /// Which: its name, or its URL while the name is not known.
    pub node: String,
    /// What.
    pub fault: NodeFault,
}

impl core::fmt::Display for NodeFailure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "node `{}` {}", self.node, self.fault)
    }
}

/// Prints a list of failures on one line.
pub(crate) fn list(failures: &[NodeFailure]) -> String {
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "no node was asked".to_owned() } else { texts.join("; ") }
}

/// For errors that name a request.
pub(crate) fn of_request(id: &RequestId) -> String {
    format!("request {id}")
}
