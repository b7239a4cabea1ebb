//! What the client is given to know a cluster by.

use std::collections::BTreeSet;

use casemate_attestation_verify::TrustRoot;
use casemate_proto::manifest::{GenesisRecord, Measurement};
use casemate_proto::{GenesisId, NodeName};
use reqwest::Url;

use crate::cluster_file::{self, ClusterFile, ClusterFileError};

/// Most nodes that are asked.
const MAX_ENDPOINTS: usize = 64;

/// A node's parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    name: Option<NodeName>,
    url: Url,
}

impl Endpoint {
    /// From a URL and the name of the node that is meant to be there. Without a name, whichever node
    /// of the roster attests itself there is taken.
    ///
    /// # Errors
    /// If it is not a plain `http` or `https` URL.
    pub fn new(name: Option<NodeName>, url: &str) -> Result<Self, ClusterError> {
        let wrong = |reason: &str| ClusterError::Url {
            url: url.chars().take(200).collect(),
            reason: reason.to_owned(),
        };
        let mut parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(wrong("it begins with `http://` or `https://` and a host"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("no user or password belongs in it"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(wrong("no `?` or `#` belongs in it"));
        }
        if !parsed.path().ends_with('/') {
            let path = format!("{}/", parsed.path());
            parsed.set_path(&path);
        }
        Ok(Self { name, url: parsed })
    }

    /// The node that is meant to be there.
    #[must_use]
    pub const fn name(&self) -> Option<&NodeName> {
        self.name.as_ref()
    }
    /// Its URL, which ends in `/`.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }
    /// How it is called in errors: by its name, or its URL.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.url.to_string(), ToString::to_string)
    }
}

/// What the client knows a cluster by: pinned, and not to be changed by anything a node says.
#[derive(Clone, Debug)]
pub struct Cluster {
    genesis_id: GenesisId,
    record: Option<GenesisRecord>,
    root: TrustRoot,
    images: Vec<Measurement>,
    endpoints: Vec<Endpoint>,
}

/// Why a cluster cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A URL is none.
    #[error("`{url}` is not a node's URL: {reason}")]
    Url {
        /// Its beginning.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// No nodes, too many, or one twice.
    #[error("nodes: {reason}")]
    Nodes {
        /// What is wrong.
        reason: String,
    },
    /// The genesis record is another cluster's, or contradicts itself.
    #[error("{reason}")]
    Genesis {
        /// What is wrong.
        reason: String,
    },
    /// The pinned root is not the one that the cluster's manifest names.
    #[error(
        "the attestation root that is pinned has fingerprint 0x{pinned}, and the cluster's manifest names {manifest}"
    )]
    OtherRoot {
        /// Of the pinned one, hex.
        pinned: String,
        /// What the manifest names.
        manifest: String,
    },
}

impl Cluster {
    /// From what is pinned and where the nodes are.
    ///
    /// # Errors
    /// If there are no nodes, too many, or one is named twice.
    pub fn new(
        genesis_id: GenesisId,
        root: TrustRoot,
        endpoints: Vec<Endpoint>,
    ) -> Result<Self, ClusterError> {
        let nodes = |reason: String| Err(ClusterError::Nodes { reason });
        if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
            let count = endpoints.len();
            return nodes(format!("{count} are given; 1 to {MAX_ENDPOINTS} are asked"));
        }
        let (mut names, mut urls) = (BTreeSet::new(), BTreeSet::new());
        for endpoint in &endpoints {
            let again = endpoint.name().is_some_and(|name| !names.insert(name.clone()));
            if again || !urls.insert(endpoint.url().clone()) {
                return nodes(format!("`{}` is given twice", endpoint.label()));
            }
        }
        Ok(Self { genesis_id, record: None, root, images: Vec::new(), endpoints })
    }

    /// From a cluster file.
    ///
    /// # Errors
    /// If something in it is malformed or contradicts something else.
    pub fn from_file(file: &ClusterFile) -> Result<Self, ClusterFileError> {
        let field = |error: ClusterError| ClusterFileError::Field {
            field: "nodes",
            reason: error.to_string(),
        };
        let endpoints = file
            .nodes
            .iter()
            .map(|node| Endpoint::new(Some(node.name.clone()), &node.url))
            .collect::<Result<_, _>>()
            .map_err(field)?;
        let mut cluster =
            Self::new(file.genesis_id, file.trust_root()?, endpoints).map_err(field)?;
        cluster.images = file.images.iter().map(|image| image.0.clone()).collect();
        if let Some(record) = file.genesis_record()? {
            cluster = cluster.with_genesis(record).map_err(|error| ClusterFileError::Field {
                field: "genesis",
                reason: error.to_string(),
            })?;
        }
        Ok(cluster)
    }

    /// With the genesis record, which must be the pinned one and name the pinned root.
    ///
    /// # Errors
    /// If it is another cluster's, contradicts itself, or names another root.
    pub fn with_genesis(mut self, record: GenesisRecord) -> Result<Self, ClusterError> {
        self.check_genesis(&record)?;
        self.record = Some(record);
        Ok(self)
    }

    pub(crate) fn check_genesis(&self, record: &GenesisRecord) -> Result<(), ClusterError> {
        cluster_file::pinned(record, self.genesis_id)
            .map_err(|error| ClusterError::Genesis { reason: error.to_string() })?;
        let manifest = record.manifest.trust_root;
        if self.root.fingerprint() != manifest.as_bytes() {
            let pinned = hex::encode(self.root.fingerprint());
            return Err(ClusterError::OtherRoot { pinned, manifest: manifest.to_string() });
        }
        Ok(())
    }

    /// With images that were accepted since the genesis.
    #[must_use]
    pub fn with_images(mut self, images: impl IntoIterator<Item = Measurement>) -> Self {
        self.images.extend(images);
        self
    }

    /// Which cluster.
    #[must_use]
    pub const fn genesis_id(&self) -> GenesisId {
        self.genesis_id
    }
    /// The nodes.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }
    pub(crate) const fn record(&self) -> Option<&GenesisRecord> {
        self.record.as_ref()
    }
    pub(crate) const fn root(&self) -> &TrustRoot {
        &self.root
    }
    pub(crate) fn images(&self) -> &[Measurement] {
        &self.images
    }
}
