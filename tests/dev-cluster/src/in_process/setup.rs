//! From a configuration to booted nodes and their genesis.

use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement,
    NodeSpec,
};
use casemate_proto::webauthn::RelyingParty;
use casemate_proto::{GenesisId, Hash32, NodeName, PublicKey, UnixMillis, hash::sha256};
use casemate_signer::{BootSecret, Entropy, Node, NodeConfig};
use casemate_sim::{EnclaveSpec, SimHost, SimNsm};
use rand_core::OsRng;

use super::ClusterError;

/// The regions that nodes are put in and named after, the first ones first.
pub const REGIONS: [&str; 16] = [
    "us-east-1",
    "eu-west-1",
    "ap-southeast-1",
    "us-west-2",
    "eu-central-1",
    "ap-northeast-1",
    "sa-east-1",
    "ca-central-1",
    "eu-north-1",
    "ap-south-1",
    "us-east-2",
    "eu-west-2",
    "ap-southeast-2",
    "af-south-1",
    "eu-west-3",
    "us-west-1",
];

/// What a cluster in one process is to be.
pub struct ClusterConfig {
    /// For people.
    pub name: String,
    /// How many nodes, 3 to 16.
    pub nodes: usize,
    /// How many of them sign.
    pub threshold: u64,
    /// Who governs.
    pub governance: Governance,
    /// Who may freeze.
    pub freezers: Vec<PublicKey>,
    /// Times and sizes.
    pub limits: Limits,
    /// The site whose passkeys may approve.
    pub relying_party: Option<RelyingParty>,
    /// How each node works.
    pub node: NodeConfig,
    /// Whether the nodes of a round work on threads of their own.
    pub parallel: bool,
    /// Each node's randomness, by its place in the roster.
    pub entropy: fn(usize) -> Box<dyn Entropy>,
}

impl core::fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("name", &self.name)
            .field("nodes", &self.nodes)
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

impl ClusterConfig {
    /// Two of three, with the operating system's randomness and everything else as usual.
    #[must_use]
    pub fn new(name: &str, governance: Governance) -> Self {
        Self {
            name: name.to_owned(),
            nodes: 3,
            threshold: 2,
            governance,
            freezers: Vec::new(),
            limits: Limits::default(),
            relying_party: None,
            node: NodeConfig::default(),
            parallel: false,
            entropy: |_| Box::new(OsRng),
        }
    }
}

/// An image that nobody measured: the hash of what it is.
fn image() -> Measurement {
    let pcr = |part: &str| {
        let half = sha256(format!("casemate-dev, not an image: {part}").as_bytes());
        let mut pcr = [0; 48];
        pcr.iter_mut().zip(half.iter().cycle()).for_each(|(to, from)| *to = *from);
        pcr
    };
    Measurement { pcr0: pcr("PCR0"), pcr1: pcr("PCR1"), pcr2: pcr("PCR2") }
}

/// Boots every node under one simulated host and makes the genesis of them.
pub(super) fn boot(
    config: ClusterConfig,
    now: UnixMillis,
) -> Result<(Vec<(Node, SimNsm)>, GenesisRecord), ClusterError> {
    let mut regions: Vec<&str> = REGIONS.iter().copied().take(config.nodes).collect();
    if config.nodes < 3 || regions.len() != config.nodes {
        return Err(ClusterError::Nodes { nodes: config.nodes });
    }
    regions.sort_unstable();
    let host = SimHost::new()?;
    let image = image();
    let started: Vec<(NodeName, &str, SimNsm)> = regions
        .into_iter()
        .zip(0_u32..)
        .filter_map(|(region, number)| {
            let measurement = [image.pcr0, image.pcr1, image.pcr2];
            let nsm = host.start(EnclaveSpec::numbered(number, region, measurement));
            Some((NodeName::new(region).ok()?, region, nsm))
        })
        .collect();
    let manifest = Manifest {
        version: 1,
        name: config.name,
        threshold: config.threshold,
        nodes: started.iter().map(|(name, region, nsm)| spec(name, region, nsm)).collect(),
        measurements: vec![image],
        governance: config.governance,
        freezers: config.freezers,
        limits: config.limits,
        independence: Independence::None,
        hardware: Hardware::OneProcess,
        trust_root: Hash32::new(sha256(host.root_der())),
        relying_party: config.relying_party,
        recovery: None,
    };
    let scope = GenesisRecord::manifest_hash(&manifest);
    let mut secrets = Vec::new();
    let mut boots = Vec::new();
    for (at, (name, _, nsm)) in started.iter().enumerate() {
        let mut entropy = (config.entropy)(at);
        let secret = BootSecret::generate(entropy.as_mut());
        let user_data = secret.user_data(name, &scope);
        let evidence = nsm.attest(Some(user_data.as_bytes()), None, None, now.0)?;
        boots.push(secret.record(name, evidence));
        secrets.push((name.clone(), secret, entropy));
    }
    let genesis = GenesisRecord { manifest, boots, at: now };
    let nodes = secrets
        .into_iter()
        .map(|(name, secret, entropy)| Node::birth(secret, &name, &genesis, config.node, entropy))
        .collect::<Result<Vec<Node>, _>>()?;
    let nsms = started.into_iter().map(|(_, _, nsm)| nsm);
    Ok((nodes.into_iter().zip(nsms).collect(), genesis))
}

/// Another boot of a node, attested for a cluster that exists: what a restart asks to have
/// admitted.
pub(super) fn new_boot(
    name: &NodeName,
    nsm: &SimNsm,
    genesis: GenesisId,
    now: UnixMillis,
    entropy: &mut dyn Entropy,
) -> Result<(BootSecret, BootRecord), ClusterError> {
    let secret = BootSecret::generate(entropy);
    let user_data = secret.user_data(name, &Hash32::new(*genesis.as_bytes()));
    let evidence = nsm.attest(Some(user_data.as_bytes()), None, None, now.0)?;
    let record = secret.record(name, evidence);
    Ok((secret, record))
}

fn spec(name: &NodeName, region: &str, nsm: &SimNsm) -> NodeSpec {
    let pcr3 = nsm
        .enclave()
        .pcrs()
        .into_iter()
        .find_map(|(index, value)| (index == 3).then_some(value))
        .unwrap_or([0; 48]);
    NodeSpec { name: name.clone(), region: region.to_owned(), pcr3 }
}
