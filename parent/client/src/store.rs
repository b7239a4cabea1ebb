//! A node's store over HTTP, for auditors. Nothing of it is believed here: `casemate_audit` verifies it.

use casemate_api::reply::StoreListing;
use casemate_api::route;
use casemate_audit::store::attachment_path;
use casemate_policy::Policy;
use casemate_proto::governance::MAX_POLICY;
use casemate_proto::ids::Hash32;

use crate::client::Client;
use crate::error::ClientError;
use crate::fault::NodeFault;
use crate::http::Bounds;

/// Most bytes of a listing.
const MAX_LISTING: usize = 4 * 1024 * 1024;
/// Most bytes of a file's path within a store.
const MAX_PATH: usize = 200;

/// Whether a path is one within a store: parts of letters, digits, `-`, `.` and `_` with `/` between, none of
/// them `.` or `..`.
#[must_use]
pub fn is_store_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    path.len() <= MAX_PATH
        && path.split('/').all(|part| {
            !part.is_empty() && part.bytes().all(plain) && part.bytes().any(|b| b != b'.')
        })
}

impl Client {
    /// The names of some files in a folder of a node's store, in order, from the one behind `after` on;
    /// and where to go on.
    ///
    /// # Errors
    /// If the node cannot be heard, or its names are none.
    pub async fn store_list(
        &self,
        at: usize,
        folder: &str,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), ClientError> {
        let failed = |fault| ClientError::Node(self.failure(at, fault));
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let path = format!("{}?folder={folder}{after}", route::STORE);
        let response = self.fetch(at, &path, MAX_LISTING).await.map_err(failed)?;
        let body = |reason: String| failed(NodeFault::Body { reason });
        let listing: StoreListing =
            serde_json::from_slice(&response.body).map_err(|error| body(error.to_string()))?;
        let names = listing.names.iter().chain(&listing.next);
        if let Some(bad) = names.clone().find(|name| !is_store_path(name) || name.contains('/')) {
            let bad: String = bad.chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(body(format!("`{bad}` is not a file's name in a store")));
        }
        // a list that does not go forward would be asked for without end
        if listing.next.as_deref().is_some_and(|next| names.clone().any(|name| **name > *next))
            || !listing.names.is_sorted()
        {
            return Err(body("a listing that does not go forward".to_owned()));
        }
        Ok((listing.names, listing.next))
    }

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
