//! What stands for AWS: a simulated root, and the instance, role and image of each node.

use std::fs;
use std::path::Path;

use casemate_attestation_verify::{AWS_NITRO_ENCLAVES_G1_PEM, TrustRoot};
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

/// What the nodes run: their image, or what stands for one.
fn measured(plan: &Plan) -> Result<Measurement, DevError> {
    let Some(guests) = &plan.guests else { return Ok(image()) };
    guests
        .measurement()
        .map_err(|reason| DevError::Malformed { path: guests.image.clone(), reason })
}

/// A node's instance: each with a role of its own.
///
/// # Errors
/// If its image's measurement is none.
pub fn enclave(plan: &Plan, node: &PlannedNode) -> Result<EnclaveSpec, DevError> {
    let image = measured(plan)?;
    let measurement = [image.pcr0, image.pcr1, image.pcr2];
    Ok(EnclaveSpec::numbered(node.number, &node.region, measurement))
}

/// What the cluster is to be.
///
/// # Errors
/// If its image's measurement is none.
pub fn manifest(
    plan: &Plan,
    host: &SimHost,
    governance: Governance,
    freezers: Vec<casemate_proto::PublicKey>,
    limits: Limits,
) -> Result<Manifest, DevError> {
    let spec = |node: &PlannedNode| {
        let pcrs = enclave(plan, node)?.pcrs();
        let pcr3 = pcrs.into_iter().find_map(|(index, value)| (index == 3).then_some(value));
        Ok::<_, DevError>(NodeSpec {
            name: node.name.clone(),
            region: node.region.clone(),
            pcr3: pcr3.unwrap_or([0; 48]),
        })
    };
    let claims_nitro = plan.guests.as_ref().is_some_and(|guests| guests.claims_nitro);
    let (hardware, trust_root) = if claims_nitro {
        let aws = TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM)?;
        (Hardware::Nitro, Hash32::new(*aws.fingerprint()))
    } else {
        (Hardware::Simulated, Hash32::new(sha256(host.root_der())))
    };
    Ok(Manifest {
        version: 1,
        name: "casemate-dev".to_owned(),
        threshold: plan.threshold,
        nodes: plan.nodes.iter().map(spec).collect::<Result<_, _>>()?,
        measurements: vec![measured(plan)?],
        governance,
        freezers,
        limits,
        // regions and roles differ, and each node's documents say so; that all of it is simulated is said
        // by the next line
        independence: Independence::Regions,
        hardware,
        trust_root,
        relying_party: None,
        recovery: None,
    })
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
    root_at(&home.root_key())
}

/// Reads a root with its secret key.
///
/// # Errors
/// If it is not there or is none.
pub fn root_at(path: &Path) -> Result<SimHost, DevError> {
    let bytes = fs::read(path).map_err(DevError::file("read", path))?;
    SimHost::from_secret_der(&bytes)
        .map_err(|error| DevError::Malformed { path: path.to_owned(), reason: error.to_string() })
}

/// Makes a root, for images to be built under: `root.der` with its secret key, and `root.pem`.
///
/// # Errors
/// If a file cannot be written.
pub fn make_root(dir: &Path) -> Result<(), DevError> {
    let host = SimHost::new()?;
    fs::create_dir_all(dir).map_err(DevError::file("make", dir))?;
    write(&dir.join("root.der"), &host.to_secret_der()?)?;
    write(&dir.join("root.pem"), host.root_pem()?.as_bytes())
}
