//! `casemate manifest`: what a cluster is to be, from a text that people read; and which of the clusters
//! that could be born of it is the one that is meant.
//!
//! ```text
//! cluster.toml + measurements.json ── build ──► manifest.cbor     every parent is given the same
//!                                     show  ──► as people read it, with its hash
//! nodes, started ────────────────── adopt ──► cluster.json      the genesis id, pinned for clients
//! ```

mod file;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_attestation_verify::{AWS_NITRO_ENCLAVES_G1_PEM, TrustRoot};
use casemate_client::announced::announced;
use casemate_client::cluster_file::{Blob, ClusterFile, NodeAddress, SCHEMA};
use casemate_client::{Settings, files};
use casemate_proto::manifest::{
    GenesisRecord, Hardware, Independence, MAX_MANIFEST, Manifest, Measurement,
};
use casemate_proto::{PublicKey, cbor};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::online::{self, CliError, DONE, out};

/// Most bytes of a text that is read.
const MAX_TEXT: usize = 256 * 1024;

/// The arguments of `casemate manifest`.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

#[derive(Debug, Subcommand)]
enum ManifestCommand {
    /// Make the manifest of a new cluster from its description.
    Build {
        /// The description: TOML, see docs/FORMATS.md.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// An accepted image's `measurements.json`, as `casemate-eif build` writes it; once for each.
        #[arg(long, value_name = "FILE", required = true)]
        measurements: Vec<PathBuf>,
        /// The root of attestation [default: AWS's]. Under any other the nodes are simulated, and the
        /// manifest says so.
        #[arg(long, value_name = "PEM")]
        trust_root: Option<PathBuf>,
        /// Where to put the manifest; never over another file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print a manifest, with the hash by which people compare it.
    Show {
        /// The manifest.
        #[arg(value_name = "FILE")]
        manifest: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask every node of a cluster that was just started for its genesis, verify it, and write the cluster
    /// file that pins it.
    ///
    /// All nodes must say the same one. Compare the id that is printed with the other governors before
    /// `casemate change confirm-genesis`: a cluster signs nothing until they have confirmed it.
    Adopt {
        /// The manifest that the parents were given.
        #[arg(value_name = "FILE")]
        manifest: PathBuf,
        /// NAME=URL of a node; once for each of the manifest.
        #[arg(long, value_name = "NAME=URL", required = true)]
        node: Vec<String>,
        /// The root of attestation, which the manifest must name [default: AWS's].
        #[arg(long, value_name = "PEM")]
        trust_root: Option<PathBuf>,
        /// Where to put the cluster file; never over another file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Runs `casemate manifest`.
pub(crate) fn run(args: ManifestArgs) -> ExitCode {
    match args.command {
        ManifestCommand::Build { file, measurements, trust_root, out } => {
            online::finish(false, build(&file, &measurements, trust_root.as_deref(), &out))
        }
        ManifestCommand::Show { manifest, json } => online::finish(json, show(&manifest, json)),
        ManifestCommand::Adopt { manifest, node, trust_root, out } => online::run(
            false,
            async move { adopt(&manifest, &node, trust_root.as_deref(), &out).await },
        ),
    }
}

/// The root that is meant, as PEM and as what it is.
fn root(path: Option<&Path>) -> Result<(String, TrustRoot), CliError> {
    let pem = match path {
        None => AWS_NITRO_ENCLAVES_G1_PEM.to_owned(),
        Some(path) => text(path)?,
    };
    let root = TrustRoot::from_pem(&pem)?;
    Ok((pem, root))
}

/// What follows from the root: nodes under any but AWS's are simulated.
fn hardware(root: &TrustRoot) -> Result<Hardware, CliError> {
    let aws = TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM)?;
    let is_aws = root.fingerprint() == aws.fingerprint();
    Ok(if is_aws { Hardware::Nitro } else { Hardware::Simulated })
}

fn read(path: &Path, max: usize) -> Result<Vec<u8>, CliError> {
    files::read(path, max).map_err(|error| CliError::input(path.display(), error))
}

fn text(path: &Path) -> Result<String, CliError> {
    String::from_utf8(read(path, MAX_TEXT)?)
        .map_err(|_| CliError::input(path.display(), "it is not UTF-8"))
}

/// Where nothing may be lost: a file that is there stays.
fn create(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    files::create_private(path, bytes)
        .map_err(|error| CliError::Write { path: path.to_owned(), error })
}

fn build(
    path: &Path,
    measurements: &[PathBuf],
    trust_root: Option<&Path>,
    out: &Path,
) -> Result<u8, CliError> {
    let (_, root) = root(trust_root)?;
    let mut images = Vec::new();
    for path in measurements {
        let image = file::measurement(&text(path)?)
            .map_err(|reason| CliError::input(path.display(), reason))?;
        if images.contains(&image) {
            return Err(CliError::input(path.display(), "the same image is given twice"));
        }
        images.push(image);
    }
    let manifest = file::manifest(&text(path)?, images, hardware(&root)?, root.fingerprint())
        .map_err(|reason| CliError::input(path.display(), reason))?;
    manifest.check().map_err(|error| CliError::input(path.display(), error))?;
    let bytes = cbor::encode(&manifest);
    if bytes.len() > MAX_MANIFEST {
        let reason = format!("its manifest has {} bytes; at most {MAX_MANIFEST}", bytes.len());
        return Err(CliError::input(path.display(), reason));
    }
    create(out, &bytes)?;
    online::out::text(&described(&manifest))?;
    Ok(DONE)
}

fn load(path: &Path) -> Result<Manifest, CliError> {
    let bytes = read(path, MAX_MANIFEST)?;
    let manifest: Manifest = cbor::decode(&bytes, MAX_MANIFEST)
        .map_err(|error| CliError::input(path.display(), error))?;
    manifest.check().map_err(|error| CliError::input(path.display(), error))?;
    Ok(manifest)
}

fn show(path: &Path, json: bool) -> Result<u8, CliError> {
    let manifest = load(path)?;
    if json {
        out::object(&as_json(&manifest))?;
    } else {
        out::text(&described(&manifest))?;
    }
    Ok(DONE)
}

async fn adopt(
    path: &Path,
    nodes: &[String],
    trust_root: Option<&Path>,
    out: &Path,
) -> Result<u8, CliError> {
    let manifest = load(path)?;
    let (pem, root) = root(trust_root)?;
    if root.fingerprint() != manifest.trust_root.as_bytes() {
        let reason = format!(
            "it names the root with fingerprint 0x{}, and the one given here has 0x{}",
            hex::encode(manifest.trust_root.as_bytes()),
            hex::encode(root.fingerprint())
        );
        return Err(CliError::input(path.display(), reason));
    }
    if out.exists() {
        return Err(CliError::input(out.display(), "it is there already, and stays as it is"));
    }
    let endpoints: Vec<_> =
        nodes.iter().map(|text| online::endpoint(text)).collect::<Result<_, _>>()?;
    let record = announced(&manifest, &endpoints, &Settings::default())
        .await
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let addresses = endpoints.iter().filter_map(|endpoint| {
        let (name, url) = (endpoint.name()?.clone(), endpoint.url().to_string());
        Some(NodeAddress { name, url, folder: None })
    });
    let file = ClusterFile {
        schema: SCHEMA.to_owned(),
        name: manifest.name.clone(),
        genesis_id: record.id(),
        genesis: Some(Blob::inline(&cbor::encode(&record))),
        manifest: None,
        trust_root_pem: pem,
        images: Vec::new(),
        nodes: addresses.collect(),
        credentials: Vec::new(),
    };
    file.save(out)?;
    let mut text = String::new();
    online::out::line(&mut text, "genesis", record.id());
    online::out::line(&mut text, "manifest", format_args!("0x{}", hash(&manifest)));
    online::out::line(&mut text, "born", record.at.to_rfc3339());
    for boot in &record.boots {
        let spec = manifest.node(&boot.node);
        let region = spec.map_or("", |node| node.region.as_str());
        let what = format_args!("{}  {region}  boot {}  attested", boot.node, boot.id());
        online::out::line(&mut text, "node", what);
    }
    online::out::line(&mut text, "written", out.display());
    text.push_str(
        "\nCompare the genesis id with the other governors; then `casemate change confirm-genesis`.\n",
    );
    online::out::text(&text)?;
    Ok(DONE)
}

fn hash(manifest: &Manifest) -> String {
    hex::encode(GenesisRecord::manifest_hash(manifest).as_bytes())
}

const fn independence(manifest: &Manifest) -> &'static str {
    match manifest.independence {
        Independence::Regions => "regions",
        Independence::None => "none",
    }
}

const fn hardware_name(hardware: Hardware) -> &'static str {
    match hardware {
        Hardware::Nitro => "nitro",
        Hardware::Simulated => "simulated",
        Hardware::OneProcess => "one process",
    }
}

fn key(key: &PublicKey) -> String {
    format!("{} 0x{}", key.algorithm().name(), hex::encode(key.as_bytes()))
}

/// A manifest as people read it.
fn described(manifest: &Manifest) -> String {
    let (mut text, limits) = (String::new(), &manifest.limits);
    let mut line = |name: &str, value: String| out::line(&mut text, name, value);
    line("manifest", format!("0x{}", hash(manifest)));
    line("name", out::plain(&manifest.name).to_string());
    line("threshold", format!("{} of {}", manifest.threshold, manifest.nodes.len()));
    for node in &manifest.nodes {
        let pcr3 = hex::encode(node.pcr3);
        line("node", format!("{}  region {}  PCR3 {pcr3}", node.name, out::plain(&node.region)));
    }
    line("independent", independence(manifest).to_owned());
    for image in &manifest.measurements {
        for (name, pcr) in pcrs(image) {
            line(name, hex::encode(pcr));
        }
    }
    line("hardware", hardware_name(manifest.hardware).to_owned());
    line("trust root", format!("0x{}", hex::encode(manifest.trust_root.as_bytes())));
    let governance = &manifest.governance;
    let quorum = format!(
        "{} of {}, loosening waits {}",
        governance.quorum,
        governance.keys.len(),
        governance.loosening_delay
    );
    line("governance", quorum);
    for (number, governor) in governance.keys.iter().enumerate() {
        let recovery = manifest.recovery.as_ref().and_then(|all| all.keys.get(number));
        let recovery = recovery
            .map(|key| format!("  recovery 0x{}", hex::encode(key.as_bytes())))
            .unwrap_or_default();
        line("governor", format!("{}{recovery}", key(governor)));
    }
    for freezer in &manifest.freezers {
        line("freezer", key(freezer));
    }
    line("tau, delta", format!("{}, {}", limits.tau, limits.delta));
    let dead_man = limits.dead_man.map_or_else(|| "never".to_owned(), |time| time.to_string());
    line("dead man", dead_man);
    if manifest.recovery.is_none() {
        line(
            "recovery",
            "none: with a majority of enclaves gone at once, the keys are gone".into(),
        );
    }
    text
}

const fn pcrs(image: &Measurement) -> [(&'static str, &[u8; 48]); 3] {
    [("PCR0", &image.pcr0), ("PCR1", &image.pcr1), ("PCR2", &image.pcr2)]
}

fn as_json(manifest: &Manifest) -> serde_json::Value {
    let limits = &manifest.limits;
    json!({
        "schema": "casemate.manifest.show/1",
        "hash": format!("0x{}", hash(manifest)),
        "name": manifest.name,
        "threshold": manifest.threshold,
        "nodes": manifest.nodes.iter().map(|node| json!({
            "name": node.name, "region": node.region, "pcr3": hex::encode(node.pcr3),
        })).collect::<Vec<_>>(),
        "independence": independence(manifest),
        "measurements": manifest.measurements.iter().map(|image| json!({
            "pcr0": hex::encode(image.pcr0),
            "pcr1": hex::encode(image.pcr1),
            "pcr2": hex::encode(image.pcr2),
        })).collect::<Vec<_>>(),
        "hardware": hardware_name(manifest.hardware),
        "trust_root": format!("0x{}", hex::encode(manifest.trust_root.as_bytes())),
        "governance": {
            "quorum": manifest.governance.quorum,
            "loosening_delay": manifest.governance.loosening_delay.to_string(),
            "keys": manifest.governance.keys.iter().map(key).collect::<Vec<_>>(),
        },
        "recovery": manifest.recovery.as_ref().map(|recovery| {
            let key = |key: &casemate_proto::recovery::RecoveryPublicKey| {
                format!("0x{}", hex::encode(key.as_bytes()))
            };
            recovery.keys.iter().map(key).collect::<Vec<_>>()
        }),
        "freezers": manifest.freezers.iter().map(key).collect::<Vec<_>>(),
        "limits": {
            "tau": limits.tau.to_string(),
            "delta": limits.delta.to_string(),
            "dead_man": limits.dead_man.map(|time| time.to_string()),
            "max_requests": limits.max_requests,
            "max_requests_per_credential": limits.max_requests_per_credential,
            "max_pending_per_credential": limits.max_pending_per_credential,
            "max_denials_per_minute": limits.max_denials_per_minute,
            "approval_life": limits.approval_life.to_string(),
            "request_memory": limits.request_memory.to_string(),
        },
        "relying_party": manifest.relying_party.as_ref().map(|party| json!({
            "id": party.id, "origin": party.origin,
        })),
    })
}
