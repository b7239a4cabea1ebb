//! What stands for AWS: a simulated root, and the instance, role and image of each node.

use std::fs;

use casemate_proto::Hash32;
use casemate_proto::hash::sha256;
use casemate_proto::manifest::{
    Governance, Hardware, Independence, Limits, Manifest, Measurement, NodeSpec,
};
use casemate_sim::{EnclaveSpec, SimHost};

use super::home::write;
use super::{DevError, Home, Plan, PlannedNode};

/// An image that nobody measured: hashes of what it is. The same at every start, as a restarted
/// node's must be.
#[must_use]
pub fn image() -> Measurement {
    let pcr = |part: &str| {
        let half = sha256(format!("casemate-dev enclave, not an image: {part}").as_bytes());
        let mut pcr = [0; 48];
        pcr.iter_mut().zip(half.iter().cycle()).for_each(|(to, from)| *to = *from);
        pcr
    };
    Measurement { pcr0: pcr("PCR0"), pcr1: pcr("PCR1"), pcr2: pcr("PCR2") }
}

/// A node's instance: each with a role of its own.
#[must_use]
pub fn enclave(node: &PlannedNode) -> EnclaveSpec {
    let image = image();
    let measurement = [image.pcr0, image.pcr1, image.pcr2];
    EnclaveSpec::numbered(node.number, &node.region, measurement)
}

/// What the cluster is to be.
#[must_use]
pub fn manifest(
    plan: &Plan,
    host: &SimHost,
    governance: Governance,
    freezers: Vec<casemate_proto::PublicKey>,
    limits: Limits,
) -> Manifest {
    let spec = |node: &PlannedNode| {
        let pcrs = enclave(node).pcrs();
        let pcr3 = pcrs.into_iter().find_map(|(index, value)| (index == 3).then_some(value));
        NodeSpec {
            name: node.name.clone(),
            region: node.region.clone(),
            pcr3: pcr3.unwrap_or([0; 48]),
        }
    };
    Manifest {
        version: 1,
        name: "casemate-dev".to_owned(),
        threshold: plan.threshold,
        nodes: plan.nodes.iter().map(spec).collect(),
        measurements: vec![image()],
        governance,
        freezers,
        limits,
        // regions and roles differ, and each node's documents say so; that all of it is simulated is said
        // by the next line
        independence: Independence::Regions,
        hardware: Hardware::Simulated,
        trust_root: Hash32::new(sha256(host.root_der())),
        relying_party: None,
        recovery: None,
    }
}

/// Writes the root, with its secret key.
///
/// # Errors
/// If it cannot be written.
pub fn write_root(home: &Home, host: &SimHost) -> Result<(), DevError> {
    write(&home.root_key(), &host.to_secret_der()?)
}

/// Reads the root again.
///
/// # Errors
/// If it is not there or is none.
pub fn read_root(home: &Home) -> Result<SimHost, DevError> {
    let path = home.root_key();
    let bytes = fs::read(&path).map_err(DevError::file("read", &path))?;
    SimHost::from_secret_der(&bytes)
        .map_err(|error| DevError::Malformed { path, reason: error.to_string() })
}
