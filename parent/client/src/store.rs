//! A node's store over HTTP, for auditors. Nothing of it is believed here: `casemate_audit` verifies it.

use casemate_api::route;
use casemate_audit::store::attachment_path;
use casemate_policy::Policy;
use casemate_proto::governance::MAX_POLICY;
use casemate_proto::ids::Hash32;

use crate::client::Client;
use crate::error::ClientError;
use crate::fault::NodeFault;
use crate::http::Bounds;

impl Client {
    /// A file of a node's store, `None` if it has none at that path.
    ///
    /// # Errors
    /// If the node cannot be heard, or the file is larger than `max` bytes.
    pub async fn store_file(
        &self,
        at: usize,
        path: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        let failed = |fault| ClientError::Node(self.failure(at, fault));
        let url = self.url(at, &format!("{}/{path}", route::STORE)).map_err(failed)?;
        let bounds = Bounds { body: max, time: self.settings().answer };
        let response = self.http().get(url, bounds).await.map_err(failed)?;
        match response.status {
            200 => Ok(Some(response.body)),
            404 => Ok(None),
            status => Err(failed(crate::client::status_fault(status, &response.body))),
        }
    }

    /// The policy of this hash, from whichever node's store has it; what another hash has is not
    /// taken.
    ///
    /// # Errors
    /// If no node gives it.
    pub async fn policy(&self, hash: &Hash32) -> Result<Policy, ClientError> {
        let mut failures = Vec::new();
        for at in self.rotation() {
            let wrong = |reason: String| self.failure(at, NodeFault::Body { reason });
            match self.store_file(at, &attachment_path(hash), MAX_POLICY).await {
                Ok(Some(bytes)) => match Policy::from_canonical(&bytes) {
                    Ok(policy) if policy.policy_hash() == *hash => return Ok(policy),
                    Ok(_) => failures.push(wrong("another policy than was asked for".to_owned())),
                    Err(error) => failures.push(wrong(error.to_string())),
                },
                Ok(None) => failures.push(wrong("its store does not have the policy".to_owned())),
                Err(ClientError::Node(failure)) => failures.push(failure),
                Err(other) => return Err(other),
            }
        }
        Err(ClientError::TooFewNodes { have: 0, need: 1, failures })
    }
}
