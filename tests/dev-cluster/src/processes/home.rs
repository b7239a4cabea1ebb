//! The folder of a cluster: what is where, what was decided when it was made, who runs in it.
//!
//! ```text
//! cluster.json          what a client must know; with the keys of everybody, so for development only
//! dev.json              nodes, ports and routes, as `up` chose them
//! root.der              the simulated root with its secret key
//! manifest.cbor         what the cluster is to be
//! policy.toml           the policy that was in force first
//! governors/            each governor's recovery key and record, so for development only
//! README                how to start and stop each process by hand
//! up.pid                `up`, while it runs
//! NODE/enclave.sock     the enclave's door
//! NODE/enclave.log, NODE/parent.log, NODE/enclave.pid, NODE/parent.pid
//! NODE/parent.toml      the parent's configuration
//! NODE/nsm-*.pem        with what an image's security module signs, in a cluster of images
//! NODE/data/            what the parent keeps: the genesis record, and the log for auditors
//! ```

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use casemate_proto::NodeName;
use casemate_transport::address::MAX_SOCKET_PATH;
use serde::{Deserialize, Serialize};

use super::claim::{Claim, holder};
use super::guest::Guests;
use super::{DevError, Part};
use crate::in_process::REGIONS;

/// The version of `dev.json`.
const SCHEMA: &str = "casemate.dev/1";
/// An enclave's door in its node's folder.
const SOCKET: &str = "enclave.sock";
/// Most bytes of a file of ours that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// What `up` decided when it made the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    schema: String,
    /// How many nodes sign.
    pub threshold: u64,
    /// The roster, by name.
    pub nodes: Vec<PlannedNode>,
    /// What the enclaves are, where they are images in machines and not processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<Guests>,
}

/// A node as it was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedNode {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: String,
    /// Which instance and role of the simulated fleet it is.
    pub number: u32,
    /// Where its parent serves HTTP.
    pub http: SocketAddr,
    /// Where its parent takes other parents' connections.
    pub relay: SocketAddr,
    /// Where its parent reaches the nodes that it dials: their relay addresses, or proxies before
    /// them.
    pub peers: Vec<Route>,
}

/// A way to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The peer.
    pub to: NodeName,
    /// Where it is reached.
    pub address: SocketAddr,
}

impl PlannedNode {
    /// The URL of its HTTP API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }
}

impl Plan {
    /// A plan for nodes of these names and regions, each with an address for HTTP and one for
    /// other parents.
    ///
    /// # Errors
    /// If the ports cannot be had.
    pub fn new(
        threshold: u64,
        regions: &[(NodeName, String)],
        first_port: Option<u16>,
    ) -> Result<Self, DevError> {
        let mut ports = ports(regions.len().saturating_mul(2), first_port)?.into_iter();
        let mut address = || {
            let port = ports.next().ok_or(DevError::Ports { first: 0, needed: 1 })?;
            Ok::<_, DevError>(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        };
        let mut nodes = Vec::new();
        for ((name, region), number) in regions.iter().zip(0_u32..) {
            let (http, relay) = (address()?, address()?);
            let (name, region) = (name.clone(), region.clone());
            nodes.push(PlannedNode { name, region, number, http, relay, peers: Vec::new() });
        }
        let relays: Vec<Route> =
            nodes.iter().map(|n| Route { to: n.name.clone(), address: n.relay }).collect();
        for node in &mut nodes {
            node.peers = relays.iter().filter(|route| route.to != node.name).cloned().collect();
        }
        Ok(Self { schema: SCHEMA.to_owned(), threshold, nodes, guests: None })
    }

    /// The same with enclaves that are images.
    #[must_use]
    pub fn with_guests(self, guests: Option<Guests>) -> Self {
        Self { guests, ..self }
    }

    /// How many times as long as usual is waited.
    #[must_use]
    pub fn patience(&self) -> u32 {
        self.guests.as_ref().map_or(1, |guests| guests.patience)
    }

    /// A node by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn node(&self, name: &str) -> Result<&PlannedNode, DevError> {
        self.nodes.iter().find(|node| node.name.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            DevError::NoNode { name: name.chars().take(80).collect(), known: names.join(", ") }
        })
    }
}

/// Ports that are free: from `first` on, or any.
fn ports(count: usize, first: Option<u16>) -> Result<Vec<u16>, DevError> {
    let too_many = || DevError::Ports { first: first.unwrap_or(0), needed: count };
    // all are held until all are found, so that they differ
    let mut listeners = Vec::new();
    for number in 0..count {
        let port = match first {
            None => 0,
            Some(first) => {
                let number = u16::try_from(number).map_err(|_| too_many())?;
                first.checked_add(number).ok_or_else(too_many)?
            }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| DevError::Port { port, error })?;
        listeners.push(listener);
    }
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let ports: io::Result<Vec<u16>> = listeners.iter().map(port).collect();
    ports.map_err(|error| DevError::Port { port: 0, error })
}

/// A cluster's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The cluster's folder at this path, which must be one.
    ///
    /// # Errors
    /// If it is none.
    pub fn open(path: &Path) -> Result<(Self, Plan), DevError> {
        let missing = |missing| DevError::NoCluster { path: path.to_owned(), missing };
        let root = match path.canonicalize() {
            Ok(root) => root,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing("dev.json")),
            Err(error) => return Err(DevError::file("open", path)(error)),
        };
        let home = Self { root };
        let plan = home.read_plan()?.ok_or_else(|| missing("dev.json"))?;
        Ok((home, plan))
    }

    /// The folder for a new cluster: made if it is not there. A stopped cluster in it is removed if
    /// `fresh` says so, or if it never was born. With it comes the lock of the one `up` in it.
    ///
    /// # Errors
    /// If there is something else in it, or a cluster that runs or holds something.
    pub fn create(path: &Path, fresh: bool) -> Result<(Self, Claim), DevError> {
        check_length(path)?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(DevError::file("make", path))?;
        let root = path.canonicalize().map_err(DevError::file("open", path))?;
        let home = Self { root };
        let plan = home.read_plan()?;
        if plan.is_none() && !home.is_empty()? {
            return Err(DevError::Foreign { path: path.to_owned() });
        }
        let running =
            |what: String, pid| Err(DevError::Running { path: path.to_owned(), what, pid });
        let claim = match Claim::take(&home.up_pid())? {
            Ok(claim) => claim,
            Err(pid) => return running("`casemate-dev up`".to_owned(), pid),
        };
        let Some(plan) = plan else { return Ok((home, claim)) };
        for node in &plan.nodes {
            for part in Part::ALL {
                if let Some(pid) = home.pid(&node.name, part)? {
                    return running(format!("the {part} of node `{}`", node.name), pid);
                }
            }
        }
        if !fresh && home.cluster_file().exists() {
            return Err(DevError::Stopped { path: path.to_owned() });
        }
        home.clear(&plan)?;
        Ok((home, claim))
    }

    fn is_empty(&self) -> Result<bool, DevError> {
        let entries = fs::read_dir(&self.root).map_err(DevError::file("list", &self.root))?;
        for entry in entries {
            let entry = entry.map_err(DevError::file("list", &self.root))?;
            // what a start that failed at once has left
            if entry.file_name() != "up.pid" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what a cluster of this plan has in its folder, and nothing else.
    fn clear(&self, plan: &Plan) -> Result<(), DevError> {
        let nodes = plan.nodes.iter().map(|node| self.node(&node.name));
        for folder in nodes.chain([self.governors()]) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(DevError::file("remove", &folder)(error));
                }
                _ => {}
            }
        }
        // the plan last: without it the rest would be nobody's
        for path in
            [self.cluster_file(), self.root_key(), self.policy(), self.readme(), self.plan()]
        {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(DevError::file("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_plan(&self) -> Result<Option<Plan>, DevError> {
        let path = self.plan();
        let size = match fs::metadata(&path) {
            Ok(about) => about.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DevError::file("read", &path)(error)),
        };
        let malformed = |reason: String| DevError::Malformed { path: path.clone(), reason };
        if size > MAX_FILE {
            return Err(malformed(format!("it has {size} bytes")));
        }
        let text = fs::read(&path).map_err(DevError::file("read", &path))?;
        let plan: Plan =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if plan.schema != SCHEMA {
            return Err(malformed(format!("its schema is `{}`", plan.schema)));
        }
        Ok(Some(plan))
    }

    /// Writes the plan, and makes the nodes' folders.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), DevError> {
        let path = self.plan();
        let text = serde_json::to_string_pretty(plan)
            .map_err(|error| DevError::file("write", &path)(io::Error::other(error)))?;
        write(&path, format!("{text}\n").as_bytes())?;
        for node in &plan.nodes {
            let folder = self.node(&node.name);
            fs::create_dir_all(&folder).map_err(DevError::file("make", &folder))?;
        }
        Ok(())
    }

    /// Who runs a node's part; `None`: nobody.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn pid(&self, node: &NodeName, part: Part) -> Result<Option<u32>, DevError> {
        holder(&self.pid_file(node, part))
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }
    /// What `up` decided.
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.root.join("dev.json")
    }
    /// What a client must know.
    #[must_use]
    pub fn cluster_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }
    /// The simulated root.
    #[must_use]
    pub fn root_key(&self) -> PathBuf {
        self.root.join("root.der")
    }
    /// The policy that `up` sets.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.root.join("policy.toml")
    }
    /// The governors' recovery keys and records.
    #[must_use]
    pub fn governors(&self) -> PathBuf {
        self.root.join("governors")
    }
    /// How to start and stop what by hand.
    #[must_use]
    pub fn readme(&self) -> PathBuf {
        self.root.join("README")
    }
    /// The lock of `up`.
    #[must_use]
    pub fn up_pid(&self) -> PathBuf {
        self.root.join("up.pid")
    }
    /// A node's folder.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> PathBuf {
        self.root.join(name.as_str())
    }
    /// An enclave's door.
    #[must_use]
    pub fn socket(&self, name: &NodeName) -> PathBuf {
        self.node(name).join(SOCKET)
    }
    /// A parent's configuration.
    #[must_use]
    pub fn parent_config(&self, name: &NodeName) -> PathBuf {
        self.node(name).join("parent.toml")
    }
    /// What the cluster is to be.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.cbor")
    }
    /// A process's log.
    #[must_use]
    pub fn log(&self, name: &NodeName, part: Part) -> PathBuf {
        self.node(name).join(format!("{part}.log"))
    }
    /// The lock of a process.
    #[must_use]
    pub fn pid_file(&self, name: &NodeName, part: Part) -> PathBuf {
        self.node(name).join(format!("{part}.pid"))
    }
}

/// Whether every node's socket can be in it.
fn check_length(path: &Path) -> Result<(), DevError> {
    let path = std::path::absolute(path).map_err(DevError::file("open", path))?;
    let longest = REGIONS.iter().map(|name| name.len()).max().unwrap_or_default();
    let socket = path.join("n".repeat(longest)).join(SOCKET).as_os_str().len();
    match socket.checked_sub(MAX_SOCKET_PATH) {
        None | Some(0) => Ok(()),
        Some(over) => {
            let most = path.as_os_str().len().saturating_sub(over);
            Err(DevError::LongPath { path, most })
        }
    }
}

/// Writes a file that only its owner may read, in the place of an older one.
///
/// # Errors
/// If it cannot be written; an older one is then as it was.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DevError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!("{name}.new"));
    let mut options = fs::OpenOptions::new();
    let open = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
    open.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path))
        .map_err(DevError::file("write", path))
}

#[cfg(test)]
mod tests;
