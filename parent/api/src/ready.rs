//! Whether a node can serve, and what is in the way.

use casemate_proto::{BootId, GenesisId, NodeName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is in the way of serving: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failing {
    /// The enclave is not connected, or has not said how it is for too long.
    Enclave,
    /// The enclave has halted.
    Halted,
    /// The enclave refuses its configuration.
    Configuration,
    /// The enclave is not a member of its cluster.
    Member,
    /// A majority has not been heard from recently.
    Majority,
    /// The store cannot be written.
    Store,
}

/// The body of `/readyz`, with status 200 if the node is ready and 503 if not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Whether it can serve.
    pub ready: bool,
    /// What is in the way.
    pub failing: Vec<Failing>,
    /// The same for a person, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// How its enclave is, as far as it said so. Nothing of it is signed.
    pub enclave: Option<EnclaveStatus>,
}

/// How an enclave says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnclaveStatus {
    /// `waiting`, `birth`, `joining`, `recovering`, `member` or `halted`.
    pub phase: String,
    /// Its boot.
    #[schema(value_type = Option<String>)]
    pub boot: Option<BootId>,
    /// Its cluster.
    #[schema(value_type = Option<String>)]
    pub genesis_id: Option<GenesisId>,
    /// Entries applied.
    pub size: u64,
    /// Records given to the store.
    pub published: u64,
    /// The node that leads replication.
    #[schema(value_type = Option<String>)]
    pub leader: Option<NodeName>,
    /// Milliseconds since a majority was last heard from.
    pub majority_age_ms: Option<u64>,
    /// Nodes whose channel is up.
    #[schema(value_type = Vec<String>)]
    pub linked: Vec<NodeName>,
    /// Live keys.
    pub keys: u64,
    /// Live keys that this boot holds a share of.
    pub shares: u64,
    /// Pairs of triples in stock.
    pub triples: u64,
    /// Whether a freeze is obeyed.
    pub frozen: bool,
}
