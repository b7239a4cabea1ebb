//! What nodes say is their genesis, before anything about the cluster is pinned but its manifest.
//!
//! A host can start two enclaves for each node, and so two clusters of one manifest. Which of them is meant is
//! decided once, by people: every node must say the same record, its boots' attestation must hold under
//! the manifest's root, roles and images, and what was found is then pinned by its hash.

use casemate_api::reply::GenesisJson;
use casemate_api::route;
use casemate_ledger::{State, StateError};
use casemate_proto::cbor;
use casemate_proto::manifest::{GenesisRecord, MAX_GENESIS, Manifest};

use crate::client::{MAX_GENESIS_BODY, Settings, status_fault};
use crate::cluster::Endpoint;
use crate::error::ClientError;
use crate::fault::{NodeFailure, NodeFault};
use crate::http::{Bounds, Http};

/// Why no genesis can be pinned.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncedError {
    /// Not every node of the manifest was asked, or another one was.
    #[error("nodes: {reason}")]
    Nodes {
        /// What is wrong.
        reason: String,
    },
    /// A node did not say. All must, since one that is left out could be of another cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is born from another manifest.
    #[error(
        "node `{node}` is of a cluster with another manifest: its hash is 0x{found}, and 0x{expected} is yours"
    )]
    OtherManifest {
        /// Which node.
        node: String,
        /// The hash of yours.
        expected: String,
        /// The hash of its.
        found: String,
    },
    /// Two nodes are of two clusters.
    #[error(
        "nodes `{first}` and `{second}` are of two clusters: {a} and {b}. Stop all enclaves and start each once"
    )]
    Differ {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// Its genesis id.
        a: String,
        /// The other's.
        b: String,
    },
    /// The boots' attestation does not hold.
    #[error("the genesis record is refused: {0}")]
    Record(#[from] StateError),
}

/// The genesis that all nodes of a manifest say, with every boot's attestation verified at the record's
/// own time.
///
/// # Errors
/// If one node is missing, silent or says another; if evidence does not hold.
pub async fn announced(
    manifest: &Manifest,
    endpoints: &[Endpoint],
    settings: &Settings,
) -> Result<GenesisRecord, AnnouncedError> {
    let nodes = |reason: String| AnnouncedError::Nodes { reason };
    for node in &manifest.nodes {
        let of_node = endpoints.iter().filter(|endpoint| endpoint.name() == Some(&node.name));
        match of_node.count() {
            1 => {}
            0 => return Err(nodes(format!("the URL of `{}` is missing", node.name))),
            _ => return Err(nodes(format!("`{}` is given twice", node.name))),
        }
    }
    let known =
        |endpoint: &&Endpoint| endpoint.name().is_some_and(|name| manifest.node(name).is_some());
    if let Some(other) = endpoints.iter().find(|endpoint| !known(endpoint)) {
        return Err(nodes(format!("`{}` is not a node of the manifest", other.label())));
    }
    let tls = endpoints.iter().any(|endpoint| endpoint.url().scheme() == "https");
    let http = Http::new(settings.connect, tls).map_err(|reason| ClientError::Http { reason })?;
    let mut first: Option<(&Endpoint, GenesisRecord)> = None;
    for endpoint in endpoints {
        let failed = |fault| ClientError::Node(NodeFailure { node: endpoint.label(), fault });
        let record = ask(&http, endpoint, settings).await.map_err(failed)?;
        if record.manifest != *manifest {
            let hash = |manifest| hex::encode(GenesisRecord::manifest_hash(manifest).as_bytes());
            let (expected, found) = (hash(manifest), hash(&record.manifest));
            return Err(AnnouncedError::OtherManifest { node: endpoint.label(), expected, found });
        }
        match &first {
            None => first = Some((endpoint, record)),
            Some((_, same)) if *same == record => {}
            Some((other, another)) => {
                let (first, second) = (other.label(), endpoint.label());
                let (a, b) = (another.id().to_string(), record.id().to_string());
                return Err(AnnouncedError::Differ { first, second, a, b });
            }
        }
    }
    let (_, record) = first.ok_or_else(|| nodes("none is given".to_owned()))?;
    // verifies every boot's evidence against the manifest's root, images, roles and regions
    State::birth(&record)?;
    Ok(record)
}

async fn ask(
    http: &Http,
    endpoint: &Endpoint,
    settings: &Settings,
) -> Result<GenesisRecord, NodeFault> {
    let url = endpoint.url().join(route::GENESIS.trim_start_matches('/'));
    let url = url.map_err(|error| NodeFault::Unreachable { reason: error.to_string() })?;
    let bounds = Bounds { body: MAX_GENESIS_BODY, time: settings.reply };
    let response = http.get(url, bounds).await?;
    if response.status != 200 {
        return Err(status_fault(response.status, &response.body));
    }
    let json: GenesisJson = serde_json::from_slice(&response.body)
        .map_err(|error| NodeFault::Body { reason: error.to_string() })?;
    cbor::decode(&json.record.0, MAX_GENESIS)
        .map_err(|error| NodeFault::Cbor { what: "genesis record", error })
}
