//! The parent's configuration: one TOML file.
//!
//! ```toml
//! node = "eu-west-1"              # which node of the manifest this is
//! manifest = "manifest.cbor"      # the cluster's manifest; paths are relative to this file
//! folder = "data"                 # what this parent keeps: genesis, auditors' store
//! enclave = "vsock:16"            # or `unix:PATH`, hybrid vsock
//! http = "127.0.0.1:8080"         # where the API listens
//! relay = "0.0.0.0:7000"          # where other parents connect
//! triple_stock = 8                # optional: pairs of triples to keep for each set of signers
//! round_trip_ms = 250             # optional: the longest round trip between any two nodes
//!
//! [peers.us-east-1]               # every other node of the manifest
//! relay = "10.0.1.5:7000"
//! http = "http://10.0.1.5:8080"   # optional: files of the store are fetched there after a restart
//!
//! [limits]                        # optional, as is each of them
//! http_connections = 512
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_proto::manifest::{MAX_MANIFEST, Manifest, ManifestError};
use casemate_proto::{NodeName, cbor};
use casemate_transport::Address;
use reqwest::Url;
use serde::Deserialize;

/// Most bytes of a configuration file.
const MAX_CONFIG: u64 = 256 * 1024;
/// Most pairs of triples that may be asked for.
const MAX_TRIPLE_STOCK: u64 = 10_000;

/// The longest round trip that may be said to lie between two nodes.
const MAX_ROUND_TRIP_MS: u64 = 2_000;

/// What a parent is told at its start, checked as far as it can be before anything runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which node of the manifest this is.
    pub node: NodeName,
    /// The cluster's manifest.
    pub manifest: Manifest,
    /// What this parent keeps.
    pub folder: PathBuf,
    /// Where the enclave's door is.
    pub enclave: Address,
    /// Where the API listens.
    pub http: SocketAddr,
    /// Where other parents connect.
    pub relay: SocketAddr,
    /// Every other node of the manifest.
    pub peers: BTreeMap<NodeName, Peer>,
    /// Pairs of triples to keep in stock for each set of signers.
    pub triple_stock: Option<u64>,
    /// The longest round trip between any two nodes, in milliseconds; the same at every node.
    pub round_trip_ms: Option<u64>,
    /// What bounds everything.
    pub limits: Limits,
}

/// Another node's parent.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where its relay listens: `host:port`.
    pub relay: String,
    /// Where its API is.
    pub http: Option<Url>,
}

/// What bounds everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// HTTP connections at a time.
    pub http_connections: usize,
    /// HTTP connections at a time from one address.
    pub http_connections_per_address: usize,
    /// How long a request's headers may take to arrive, an idle connection included.
    pub header_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may leave a response unread.
    pub write_timeout: Duration,
    /// Submissions and queries that wait for the enclave at a time.
    pub in_flight: usize,
    /// Governance submissions, which can be large, at a time.
    pub governance_in_flight: usize,
    /// Connections from other parents at a time.
    pub relay_connections: usize,
    /// Connections from other parents at a time from one address.
    pub relay_connections_per_address: usize,
    /// How long a link may be silent.
    pub link_idle: Duration,
    /// How recently a majority must have been heard from for the node to be ready.
    pub majority_age: Duration,
    /// How long requests under way may take to end when the parent is told to stop.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http_connections: 512,
            http_connections_per_address: 256,
            header_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            in_flight: 1_024,
            governance_in_flight: 2,
            relay_connections: 128,
            relay_connections_per_address: 64,
            link_idle: Duration::from_secs(30),
            majority_age: Duration::from_secs(5),
            shutdown: Duration::from_secs(5),
        }
    }
}

/// Why there is no configuration. Each is one line that names the file or the field.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {error}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file that is too large to be what it should be.
    #[error("`{}` has {size} bytes or more; at most {max} are accepted", .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The cap.
        max: u64,
    },
    /// Not TOML, an unknown field, a missing one, or one of another type.
    #[error("`{}`, line {line}: {reason}", .path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A field's content is wrong.
    #[error("`{}`: field `{field}`: {reason}", .path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The manifest is not strict CBOR.
    #[error("the manifest `{}`: {error}", .path.display())]
    Encoding {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: cbor::CborError,
    },
    /// The manifest is refused.
    #[error("the manifest `{}`: {error}", .path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: ManifestError,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireConfig {
    node: String,
    manifest: PathBuf,
    folder: PathBuf,
    enclave: String,
    http: String,
    relay: String,
    #[serde(default)]
    peers: BTreeMap<String, WirePeer>,
    triple_stock: Option<u64>,
    round_trip_ms: Option<u64>,
    #[serde(default)]
    limits: WireLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePeer {
    relay: String,
    http: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLimits {
    http_connections: Option<u64>,
    http_connections_per_address: Option<u64>,
    header_timeout_ms: Option<u64>,
    body_timeout_ms: Option<u64>,
    write_timeout_ms: Option<u64>,
    in_flight: Option<u64>,
    governance_in_flight: Option<u64>,
    relay_connections: Option<u64>,
    relay_connections_per_address: Option<u64>,
    link_idle_ms: Option<u64>,
    majority_age_ms: Option<u64>,
    shutdown_ms: Option<u64>,
}

impl Config {
    /// Reads a configuration file, and the manifest that it names.
    ///
    /// # Errors
    /// Naming the file, and the field or the line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = read_capped(path, MAX_CONFIG)?;
        let toml = |line, reason| ConfigError::Toml { path: path.to_owned(), line, reason };
        let text = String::from_utf8(bytes).map_err(|_| toml(1, "not UTF-8".to_owned()))?;
        let wire: WireConfig = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..at).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
            toml(line, error.message().chars().take(200).collect())
        })?;
        Fields { path }.config(wire)
    }
}

fn read_capped(path: &Path, max: u64) -> Result<Vec<u8>, ConfigError> {
    let read = |error| ConfigError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(read)?;
    let declared = file.metadata().map_err(read)?.len();
    // a device or a pipe declares nothing
    let most = max.saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(read)?;
    match u64::try_from(bytes.len()) {
        Ok(size) if size <= max => Ok(bytes),
        _ => {
            let size = declared.max(most);
            Err(ConfigError::TooLarge { path: path.to_owned(), size, max })
        }
    }
}

/// Turns what was written into what is meant, naming the field where it cannot.
struct Fields<'a> {
    path: &'a Path,
}

impl Fields<'_> {
    fn wrong(&self, field: impl Into<String>, reason: impl core::fmt::Display) -> ConfigError {
        let (path, field) = (self.path.to_owned(), field.into());
        ConfigError::Field { path, field, reason: reason.to_string() }
    }

    fn config(&self, wire: WireConfig) -> Result<Config, ConfigError> {
        let node: NodeName = wire.node.parse().map_err(|error| self.wrong("node", error))?;
        let manifest = self.manifest(&wire.manifest)?;
        if manifest.node(&node).is_none() {
            let names: Vec<&str> = manifest.nodes.iter().map(|node| node.name.as_str()).collect();
            let reason = format!(
                "`{node}` is not a node of the manifest, which has `{}`",
                names.join("`, `")
            );
            return Err(self.wrong("node", reason));
        }
        let enclave = match wire.enclave.parse() {
            Ok(Address::Unix(path)) => {
                Address::unix(self.beside(&path)).map_err(|error| self.wrong("enclave", error))?
            }
            Ok(address) => address,
            Err(error) => return Err(self.wrong("enclave", error)),
        };
        let stock = wire.triple_stock;
        if stock.is_some_and(|stock| stock > MAX_TRIPLE_STOCK) {
            let reason = format!("more than {MAX_TRIPLE_STOCK} pairs");
            return Err(self.wrong("triple_stock", reason));
        }
        if wire.round_trip_ms.is_some_and(|ms| ms == 0 || ms > MAX_ROUND_TRIP_MS) {
            let reason = format!("not 1 to {MAX_ROUND_TRIP_MS} ms");
            return Err(self.wrong("round_trip_ms", reason));
        }
        Ok(Config {
            peers: self.peers(&node, &manifest, wire.peers)?,
            node,
            manifest,
            folder: self.beside(&wire.folder),
            enclave,
            http: self.socket("http", &wire.http)?,
            relay: self.socket("relay", &wire.relay)?,
            triple_stock: stock,
            round_trip_ms: wire.round_trip_ms,
            limits: self.limits(&wire.limits)?,
        })
    }

    /// A path that is relative to the configuration file.
    fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    fn manifest(&self, path: &Path) -> Result<Manifest, ConfigError> {
        let path = self.beside(path);
        let max = u64::try_from(MAX_MANIFEST).unwrap_or(u64::MAX);
        let bytes = read_capped(&path, max)?;
        let manifest: Manifest = match cbor::decode(&bytes, MAX_MANIFEST) {
            Ok(manifest) => manifest,
            Err(error) => return Err(ConfigError::Encoding { path, error }),
        };
        match manifest.check() {
            Ok(()) => Ok(manifest),
            Err(error) => Err(ConfigError::Manifest { path, error }),
        }
    }

    fn socket(&self, field: &str, text: &str) -> Result<SocketAddr, ConfigError> {
        let wrong = |_| {
            let reason = format!("`{text}` is not an address to listen on, such as `0.0.0.0:8080`");
            self.wrong(field, reason)
        };
        text.parse().map_err(wrong)
    }

    fn peers(
        &self,
        own: &NodeName,
        manifest: &Manifest,
        wire: BTreeMap<String, WirePeer>,
    ) -> Result<BTreeMap<NodeName, Peer>, ConfigError> {
        let mut peers = BTreeMap::new();
        for (text, peer) in wire {
            let field = format!("peers.{text}");
            let known = |name: &NodeName| *name != *own && manifest.node(name).is_some();
            let Some(name) = text.parse::<NodeName>().ok().filter(known) else {
                return Err(self.wrong(field, "not another node of the manifest"));
            };
            let port = peer.relay.rsplit_once(':').and_then(|(host, port)| {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                (!host.is_empty()).then_some(port)?.parse::<u16>().ok()
            });
            if port.is_none_or(|port| port == 0) {
                let reason = format!("`{}` is not of the form `host:port`", peer.relay);
                return Err(self.wrong(format!("{field}.relay"), reason));
            }
            let http = match peer.http {
                None => None,
                Some(text) => Some(self.mirror(&format!("{field}.http"), &text)?),
            };
            peers.insert(name, Peer { relay: peer.relay, http });
        }
        let names = manifest.nodes.iter().map(|node| &node.name);
        match names.into_iter().find(|name| *name != own && !peers.contains_key(*name)) {
            Some(name) => Err(self.wrong(format!("peers.{name}"), "missing")),
            None => Ok(peers),
        }
    }

    fn mirror(&self, field: &str, text: &str) -> Result<Url, ConfigError> {
        let url = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
        });
        url.ok_or_else(|| {
            self.wrong(field, format!("`{text}` is not of the form `http://host:port`"))
        })
    }

    fn limits(&self, wire: &WireLimits) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let count = |field: &str, value: Option<u64>, default: usize| match value {
            None => Ok(default),
            Some(value @ 1..=100_000) => Ok(usize::try_from(value).unwrap_or(default)),
            Some(value) => {
                Err(self.wrong(format!("limits.{field}"), format!("{value} is not 1 to 100000")))
            }
        };
        let time = |field: &str, value: Option<u64>, default: Duration| match value {
            None => Ok(default),
            Some(value @ 1..=600_000) => Ok(Duration::from_millis(value)),
            Some(value) => {
                Err(self.wrong(format!("limits.{field}"), format!("{value} is not 1 to 600000")))
            }
        };
        Ok(Limits {
            http_connections: count(
                "http_connections",
                wire.http_connections,
                default.http_connections,
            )?,
            http_connections_per_address: count(
                "http_connections_per_address",
                wire.http_connections_per_address,
                default.http_connections_per_address,
            )?,
            header_timeout: time(
                "header_timeout_ms",
                wire.header_timeout_ms,
                default.header_timeout,
            )?,
            body_timeout: time("body_timeout_ms", wire.body_timeout_ms, default.body_timeout)?,
            write_timeout: time("write_timeout_ms", wire.write_timeout_ms, default.write_timeout)?,
            in_flight: count("in_flight", wire.in_flight, default.in_flight)?,
            governance_in_flight: count(
                "governance_in_flight",
                wire.governance_in_flight,
                default.governance_in_flight,
            )?,
            relay_connections: count(
                "relay_connections",
                wire.relay_connections,
                default.relay_connections,
            )?,
            relay_connections_per_address: count(
                "relay_connections_per_address",
                wire.relay_connections_per_address,
                default.relay_connections_per_address,
            )?,
            link_idle: time("link_idle_ms", wire.link_idle_ms, default.link_idle)?,
            majority_age: time("majority_age_ms", wire.majority_age_ms, default.majority_age)?,
            shutdown: time("shutdown_ms", wire.shutdown_ms, default.shutdown)?,
        })
    }
}
