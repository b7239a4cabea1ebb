//! Why the client could not do what was asked: whose fault it is, and what to do.

use std::time::Duration;

use casemate_proto::request::BodyError;
use casemate_proto::{Denial, DenialCode, GenesisId, KeyName, RequestId, UnixMillis};

use crate::cluster::ClusterError;
use crate::credential::SignError;
use crate::denial::VerifiedDenial;
use crate::fault::{NodeFailure, list, of_request};

/// Who is to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever asked: what was asked for, or with what, is wrong.
    Caller,
    /// The cluster's operators: nodes are down, or lie.
    Nodes,
    /// The cluster decided so.
    Policy,
    /// Nobody: it takes time, or somebody's approval.
    Waiting,
}

/// Why the client could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// What the client was given to know the cluster by is wrong.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// HTTP cannot be spoken here.
    #[error("cannot make an HTTP client: {reason}")]
    Http {
        /// Why.
        reason: String,
    },
    /// This machine's clock is before 1970.
    #[error("this machine's clock is before 1970")]
    Clock,
    /// The request's body is malformed.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// What is to be signed is not what an enclave would sign: it is not sent.
    #[error("the request would be denied: {0}")]
    WouldBeDenied(Box<Denial>),
    /// The signer did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The cluster has no live key of that name.
    #[error("the cluster has no live key `{name}`")]
    UnknownKey {
        /// Which.
        name: KeyName,
    },
    /// A node shows another key under a name that the client has pinned. Keys never change (I13).
    #[error(
        "key `{name}` was {pinned} and is shown as {shown}: a key never changes, so somebody lies"
    )]
    KeyChanged {
        /// Which.
        name: KeyName,
        /// The public key that was pinned, hex.
        pinned: String,
        /// The one shown now, hex.
        shown: String,
    },
    /// Fewer nodes than the threshold could be heard and verified.
    #[error(
        "{have} nodes were verified where {need} are needed to believe anything: {}",
        list(.failures)
    )]
    TooFewNodes {
        /// How many.
        have: usize,
        /// How many are needed.
        need: usize,
        /// What was wrong with the others.
        failures: Vec<NodeFailure>,
    },
    /// The nodes that were heard contradict each other.
    #[error("the nodes do not agree on {what}, and too few say the same")]
    Disagreement {
        /// On what.
        what: &'static str,
    },
    /// No node of that name or URL.
    #[error("there is no node `{name}`; known are {known}")]
    UnknownNode {
        /// The name or URL.
        name: String,
        /// Those that are known.
        known: String,
    },
    /// A node could not be heard, or said what is not to be believed.
    #[error("{0}")]
    Node(NodeFailure),
    /// Denied for good: this request id will not be signed.
    #[error("denied: {}", .0.denial().denial)]
    Denied(Box<VerifiedDenial>),
    /// Denied, but the same id may still be decided otherwise.
    #[error(
        "denied for now: {}; {} may still be signed until its stamp expires at {until}: ask again under the same id, never under another before that",
        .denial.denial().denial, of_request(.request_id)
    )]
    DeniedForNow {
        /// The denial.
        denial: Box<VerifiedDenial>,
        /// Which request.
        request_id: RequestId,
        /// When the newest stamp made for it expires.
        until: UnixMillis,
    },
    /// The cluster decided about something that has no request id.
    #[error("refused: {}", .0.denial().denial)]
    Refused(Box<VerifiedDenial>),
    /// No answer that settles it came in time.
    #[error(
        "{} is not settled after {} ms: {last}; it may have been signed: ask again under the same id",
        of_request(.request_id), waited.as_millis()
    )]
    NotSettled {
        /// Which request.
        request_id: RequestId,
        /// How long was asked.
        waited: Duration,
        /// What came last.
        last: Unsettled,
    },
    /// What was submitted is not seen to have taken effect in time.
    #[error("{what} is not seen to be in force after {} ms: {last}", waited.as_millis())]
    NotSeen {
        /// What was submitted.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
        /// What came last.
        last: String,
    },
    /// The change is signed by too few, or for another cluster.
    #[error("the change is refused before it is sent: {reason}")]
    Change {
        /// Why.
        reason: String,
    },
    /// The genesis record that was learnt is another cluster's.
    #[error("no node gave the genesis record of cluster {expected}: {}", list(.failures))]
    NoGenesis {
        /// The pinned id.
        expected: GenesisId,
        /// What was wrong.
        failures: Vec<NodeFailure>,
    },
}

/// What came last of a request that is not settled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unsettled {
    /// Nothing came.
    #[error("no node answered")]
    Nothing,
    /// A node says that it waits for approval.
    #[error("it waits for approval")]
    Pending,
    /// A node no longer has its record at hand.
    #[error(
        "it was signed so long ago that only the auditors' store has it, record {signed_index}"
    )]
    InStoreOnly {
        /// The record of the signature, as a node says.
        signed_index: u64,
    },
    /// A denial that is not final.
    #[error("denied for now: {}", .0.denial().denial)]
    Denied(Box<VerifiedDenial>),
    /// A node failed, or was not to be believed.
    #[error("{0}")]
    Node(NodeFailure),
    /// The cluster could not be verified.
    #[error("{0}")]
    Cluster(Box<ClientError>),
}

impl ClientError {
    /// Who is to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Cluster(_)
            | Self::Http { .. }
            | Self::Clock
            | Self::Body(_)
            | Self::WouldBeDenied(_)
            | Self::Sign(_)
            | Self::UnknownKey { .. }
            | Self::UnknownNode { .. }
            | Self::Change { .. } => Fault::Caller,
            Self::Denied(_) | Self::DeniedForNow { .. } | Self::Refused(_) => Fault::Policy,
            Self::NotSettled { last: Unsettled::Pending, .. } => Fault::Waiting,
            Self::KeyChanged { .. }
            | Self::TooFewNodes { .. }
            | Self::Disagreement { .. }
            | Self::Node(_)
            | Self::NotSettled { .. }
            | Self::NotSeen { .. }
            | Self::NoGenesis { .. } => Fault::Nodes,
        }
    }

    /// Whether it is certain that the request was not signed and will not be, so that whoever asked
    /// may ask for the same under another id.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Denied(_) => true,
            // never sent
            Self::Body(_) | Self::WouldBeDenied(_) | Self::Sign(_) | Self::UnknownKey { .. } => {
                true
            }
            _ => false,
        }
    }

    /// The denial's code, where there is a denial.
    #[must_use]
    pub fn denial_code(&self) -> Option<DenialCode> {
        match self {
            Self::Denied(denial)
            | Self::Refused(denial)
            | Self::DeniedForNow { denial, .. }
            | Self::NotSettled { last: Unsettled::Denied(denial), .. } => {
                Some(denial.denial().denial.code)
            }
            Self::WouldBeDenied(denial) => Some(denial.code),
            _ => None,
        }
    }

    /// One line of what to do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Cluster(_) | Self::UnknownNode { .. } => "check the cluster file",
            Self::Body(_) | Self::WouldBeDenied(_) | Self::Change { .. } => {
                "correct what is asked for"
            }
            Self::Sign(_) => "check the credential",
            Self::UnknownKey { .. } => "see which keys there are",
            Self::KeyChanged { .. } => "do not pay to the key shown; tell the cluster's operators",
            Self::TooFewNodes { .. }
            | Self::Disagreement { .. }
            | Self::Node(_)
            | Self::NoGenesis { .. } => {
                "see whether the nodes run, and whether the cluster file is of this cluster"
            }
            Self::Denied(_) | Self::Refused(_) => "see what the policy allows",
            Self::DeniedForNow { denial, .. }
                if denial.denial().denial.code == DenialCode::RequestIdReused =>
            {
                "the id is another body's: send that one, or take another id once this stamp has expired"
            }
            Self::DeniedForNow { denial, .. }
                if denial.denial().denial.code == DenialCode::OutcomeUnknown =>
            {
                "it may have been signed: look for it on its chain before paying under another id"
            }
            Self::DeniedForNow { .. } | Self::NotSettled { .. } => "ask again under the same id",
            Self::NotSeen { .. } => "see the cluster's status",
            Self::Http { .. } | Self::Clock => "check this machine",
        }
    }
}
