//! What an approver approves: read from the request's own body, and shown to be what the document that
//! is signed is about.
//!
//! The view that a node gives names a document's hash. That hash is made here again of the body, the
//! policy in force and the view's other fields. The grant and its tier are not in the view: they are
//! the ones of the policy that give the hash, so that none that is shown can be another.

use casemate_door::PendingRequestView;
use casemate_ledger::approvals::Document;
use casemate_ledger::payload::{self, Decoded};
use casemate_policy::Policy;
use casemate_policy::model::Tier;
use casemate_proto::ids::Hash32;
use casemate_proto::request::{BodyError, SignRequest};
use casemate_proto::{Denial, GenesisId, GrantId, Incarnation, RequestId};

/// A pending request whose document was made again and found the same. Made by [`review`] only.
#[derive(Clone, Debug)]
pub struct Review {
    view: PendingRequestView,
    request: SignRequest,
    decoded: Decoded,
    grant: GrantId,
    tier: u64,
    needs: Option<Tier>,
    policy: Hash32,
}

/// Why a pending request is not what its view says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// Its body is malformed.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Its body is of another request.
    #[error("the body is of request {found}, not of {shown}")]
    OtherRequest {
        /// The body's.
        found: RequestId,
        /// The view's.
        shown: RequestId,
    },
    /// Its payload cannot be read.
    #[error("the payload cannot be read: {0}")]
    Payload(Box<Denial>),
    /// The document is of something else.
    #[error(
        "no grant of policy {policy} makes document {document} of this body: what is shown is not what would be approved"
    )]
    OtherDocument {
        /// The document named.
        document: Hash32,
        /// The policy that was tried.
        policy: Hash32,
    },
}

/// Makes the document of a pending request again.
///
/// # Errors
/// If the body is not of the request that the view names, or the document is not of the body.
pub fn review(
    genesis: GenesisId,
    incarnation: Incarnation,
    policy: &Policy,
    view: PendingRequestView,
) -> Result<Review, ReviewError> {
    let request = SignRequest::parse(&view.body)?;
    if request.request_id != view.request_id {
        let (found, shown) = (request.request_id, view.request_id);
        return Err(ReviewError::OtherRequest { found, shown });
    }
    let decoded = payload::decode(&genesis, &request.payload)
        .map_err(|denial| ReviewError::Payload(Box::new(denial)))?;
    let document = |grant, tier| {
        Document {
            genesis,
            incarnation,
            credential: view.credential,
            request_id: view.request_id,
            principal: &view.principal,
            key: &request.key,
            path: &request.path,
            body_hash: Hash32::new(casemate_proto::hash::sha256(&view.body)),
            digest: decoded.digest,
            intent: &decoded.intent,
            policy: policy.policy_hash(),
            grant,
            tier,
            expires: view.expires,
        }
        .hash()
    };
    let candidates = policy.doc().grants.iter().filter(|(_, grant)| grant.key == request.key);
    let found = candidates
        .flat_map(|(id, grant)| (0_u64..).zip(&grant.tiers).map(move |(at, tier)| (id, at, tier)))
        .find(|(id, at, _)| document(*id, *at) == view.document);
    let Some((grant, tier, needs)) = found else {
        let (document, policy) = (view.document, policy.policy_hash());
        return Err(ReviewError::OtherDocument { document, policy });
    };
    let (grant, needs) = (grant.clone(), Some(needs.clone()));
    Ok(Review { request, decoded, grant, tier, needs, policy: policy.policy_hash(), view })
}

impl Review {
    /// The view.
    #[must_use]
    pub const fn view(&self) -> &PendingRequestView {
        &self.view
    }
    /// What is asked for.
    #[must_use]
    pub const fn request(&self) -> &SignRequest {
        &self.request
    }
    /// What its payload does.
    #[must_use]
    pub const fn decoded(&self) -> &Decoded {
        &self.decoded
    }
    /// The grant that asks for approval.
    #[must_use]
    pub const fn grant(&self) -> &GrantId {
        &self.grant
    }
    /// Its tier, from 0.
    #[must_use]
    pub const fn tier(&self) -> u64 {
        self.tier
    }
    /// What that tier needs.
    #[must_use]
    pub const fn needs(&self) -> Option<&Tier> {
        self.needs.as_ref()
    }
    /// The policy that it was reviewed under.
    #[must_use]
    pub const fn policy(&self) -> Hash32 {
        self.policy
    }
}
