//! What somebody outside asks of a node.

use casemate_ledger::Attachment;
use casemate_ledger::entry::ApprovalProof;
use casemate_proto::governance::{SignedChange, SignedStatement};
use casemate_proto::stamp::Stamp;
use casemate_proto::{CredentialId, RequestId};
use minicbor::{Decode, Encode};

/// Names one submission to one node; the caller chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Ticket(#[n(0)] pub u64);

/// What somebody outside asks of a node. None of it is believed before it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Submission {
    /// A request for a signature.
    #[n(0)]
    Request {
        /// The requester's stamp over the body.
        #[n(0)]
        stamp: Stamp,
        /// The body's bytes, as they were stamped.
        #[cbor(n(1), with = "minicbor::bytes")]
        body: Vec<u8>,
    },
    /// An approval of a pending request.
    #[n(1)]
    Approval {
        /// The approval's body.
        #[cbor(n(0), with = "minicbor::bytes")]
        body: Vec<u8>,
        /// Who says so.
        #[n(1)]
        proof: ApprovalProof,
    },
    /// A change by the governance quorum.
    #[n(2)]
    Governance {
        /// The change.
        #[n(0)]
        signed: SignedChange,
        /// The policy, beside a change that sets one.
        #[n(1)]
        attachment: Option<Attachment>,
    },
    /// A freezer's word.
    #[n(3)]
    Statement(#[n(0)] SignedStatement),
    /// How does a request stand?
    #[n(4)]
    Query {
        /// Whose.
        #[n(0)]
        credential: CredentialId,
        /// Which.
        #[n(1)]
        request_id: RequestId,
    },
}
