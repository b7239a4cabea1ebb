//! How a request stands, for whoever has its id and not its body; and how a node says that it is.

use casemate_api::{MAX_ANSWER, Ready, route};
use casemate_audit::verify_receipt;
use casemate_door::{Answer, SignedDenial};
use casemate_ledger::{Entry, EntryBody};
use casemate_proto::{CredentialId, RequestId, UnixMillis};

use crate::client::Client;
use crate::denial::{self, AskedOf};
use crate::error::ClientError;
use crate::fault::{NodeFault, ReceiptFault};
use crate::http::Bounds;
use crate::request::{Asked, Expected, VerifiedSignature, verify};

/// Most bytes of what a node says of its readiness.
const MAX_READY: usize = 64 * 1024;

/// How a request stands. What is `claimed` is a host's word.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Signed: proved whole, with the body that is on record.
    Signed(Box<VerifiedSignature>),
    /// Signed: both records are proved to be in the log, and the body is not in them.
    InLog {
        /// The record that allowed it.
        index: u64,
        /// The record of the signature.
        signed_index: u64,
    },
    /// Denied or expired, in an attested boot's hand, about the body whose SHA-256 is its `subject`.
    /// That this is the body of the request asked about is claimed: whoever has it compares, and
    /// only [`Client::sign`] settles anything.
    Denied(Box<SignedDenial>),
    /// Claimed: it waits for approvals.
    Pending {
        /// Approvals so far.
        have: u64,
        /// Approvals needed; 0 where the node does not know.
        need: u64,
        /// When it expires.
        expires: UnixMillis,
    },
    /// Claimed: signed long ago; the auditors' store has it.
    InStoreOnly {
        /// The record of the signature.
        signed_index: u64,
    },
    /// Claimed: no such request is remembered.
    Unknown,
    /// Claimed: it is being worked on.
    Working,
}

impl Client {
    /// How a request stands at the first node that can be heard.
    ///
    /// # Errors
    /// If none can.
    pub async fn standing(
        &self,
        credential: &CredentialId,
        id: &RequestId,
    ) -> Result<Standing, ClientError> {
        let mut failures = Vec::new();
        for at in self.rotation() {
            match self.standing_at(at, credential, id).await {
                Ok(found) => return Ok(found),
                Err(ClientError::Node(failure)) => failures.push(failure),
                Err(other) => return Err(other),
            }
        }
        Err(ClientError::TooFewNodes { have: 0, need: 1, failures })
    }

    async fn standing_at(
        &self,
        at: usize,
        credential: &CredentialId,
        id: &RequestId,
    ) -> Result<Standing, ClientError> {
        let failed = |fault| ClientError::Node(self.failure(at, fault));
        let genesis = self.genesis().await?;
        let boot = self.attested(at, &genesis, false).await.map_err(failed)?;
        let url = self.url(at, &route::request(id, credential)).map_err(failed)?;
        let bounds = Bounds { body: MAX_ANSWER, time: self.settings().answer };
        let response = self.http().get(url, bounds).await.map_err(failed)?;
        let denied = |denial: Box<SignedDenial>| {
            let asked = AskedOf {
                genesis: self.genesis_id(),
                credential: Some(*credential),
                subject: denial.subject,
                newest: UnixMillis(0),
            };
            denial::verify(*denial.clone(), false, &boot, &asked)
                .map(|_| Standing::Denied(denial))
                .map_err(|fault| failed(fault.into()))
        };
        match Self::answer(&response).map_err(failed)? {
            Answer::Signed(signed) => self.prove(at, *signed, credential, id).await,
            Answer::Denied(denial) | Answer::Expired(denial) => denied(denial),
            Answer::Pending(pending) => {
                let (have, need, expires) = (pending.have, pending.need, pending.expires);
                Ok(Standing::Pending { have, need, expires })
            }
            Answer::Recorded { signed_index, .. } => Ok(Standing::InStoreOnly { signed_index }),
            Answer::Unknown => Ok(Standing::Unknown),
            Answer::Busy { .. } => Ok(Standing::Working),
            Answer::Accepted { .. } => Err(failed(NodeFault::OtherReply)),
        }
    }

    async fn prove(
        &self,
        at: usize,
        signed: casemate_door::Signed,
        credential: &CredentialId,
        id: &RequestId,
    ) -> Result<Standing, ClientError> {
        let failed = |fault: ReceiptFault| ClientError::Node(self.failure(at, fault.into()));
        let checkpoint = self.belief(true).await?.checkpoint_policy()?;
        let allowed = verify_receipt(&signed.receipt.allowed, &checkpoint)
            .map_err(|error| failed(ReceiptFault::Allowed(error)))?;
        let recorded = verify_receipt(&signed.receipt.signed, &checkpoint)
            .map_err(|error| failed(ReceiptFault::Signed(error)))?;
        let (index, signed_index) = (allowed.record().index(), recorded.record().index());
        let entry = Entry::decode(&recorded.record().fields().entry)
            .map_err(|error| failed(ReceiptFault::Malformed { part: "entry", error }))?;
        match entry.body {
            EntryBody::Signed { credential: of, request_id, .. }
                if of == *credential && request_id == *id => {}
            _ => return Err(failed(ReceiptFault::OtherRequest)),
        }
        let entry = Entry::decode(&allowed.record().fields().entry)
            .map_err(|error| failed(ReceiptFault::Malformed { part: "entry", error }))?;
        let EntryBody::Request { body, .. } = entry.body else {
            return Ok(Standing::InLog { index, signed_index });
        };
        let asked = Asked::from_body(&self.genesis_id(), body)?;
        let key = self.key(&asked.request().key).await?;
        let (credential, asked) = (*credential, &asked);
        let expected = Expected { credential, asked, key: &key, checkpoint: &checkpoint };
        let verified = verify(signed, &expected).map_err(failed)?;
        Ok(Standing::Signed(Box::new(verified)))
    }

    /// What a node's parent says of how it is. Nothing of it is signed.
    ///
    /// # Errors
    /// If it cannot be heard.
    pub async fn readiness(&self, at: usize) -> Result<Ready, ClientError> {
        let failed = |fault| ClientError::Node(self.failure(at, fault));
        let url = self.url(at, route::READYZ).map_err(failed)?;
        let bounds = Bounds { body: MAX_READY, time: self.settings().reply };
        let response = self.http().get(url, bounds).await.map_err(failed)?;
        if !matches!(response.status, 200 | 503) {
            return Err(failed(crate::client::status_fault(response.status, &response.body)));
        }
        serde_json::from_slice(&response.body)
            .map_err(|error| failed(NodeFault::Body { reason: error.to_string() }))
    }
}
