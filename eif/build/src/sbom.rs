//! The bill of materials of an image: CycloneDX 1.5, as JSON.
//!
//! It names the kernel, the two programs and the trust root by their hashes, and every crate that the
//! two programs are made of, with the checksum of the lock file and its licence. The crates are what
//! cargo resolves for the image's target from the two programs on, without what only builds or tests
//! them. There is no time and no random number in it, and lists are sorted: the same inputs give the
//! same bytes.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The crates whose programs are in an image.
pub const PROGRAMS: [&str; 2] = ["casemate-init", "casemate-runtime"];

/// Why a bill of materials cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SbomError {
    /// The source is not the one of the programs.
    #[error("the source has no crate `{name}`")]
    NoProgram {
        /// The crate.
        name: &'static str,
    },
    /// What cargo says does not hang together.
    #[error("cargo does not say what `{id}` depends on")]
    Unresolved {
        /// The package.
        id: String,
    },
    /// The lock file is not one.
    #[error("the lock file is not one that cargo writes")]
    Lock,
    /// A crate from a registry without a checksum.
    #[error("the lock file has no checksum for `{name}` {version}")]
    NoChecksum {
        /// The crate.
        name: String,
        /// Its version.
        version: String,
    },
}

/// How a crate states its licence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Licence {
    /// As an SPDX expression.
    Expression(String),
    /// In a file of its package.
    File(String),
}

impl Licence {
    fn of(package: &Package) -> Option<Self> {
        match (&package.license, &package.license_file) {
            // a slash is the form of before SPDX expressions
            (Some(licence), _) => Some(Self::Expression(licence.replace('/', " OR "))),
            (None, Some(file)) => Some(Self::File(file.file_name()?.to_owned())),
            (None, None) => None,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Expression(expression) => json!([{ "expression": expression }]),
            Self::File(name) => {
                json!([{ "license": { "name": format!("in the package's file {name}") } }])
            }
        }
    }
}

/// A crate in the image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: Option<Licence>,
    /// SHA-256 of the package, where it is from a registry.
    checksum: Option<String>,
}

/// The crates of the image's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crates(BTreeSet<Crate>);

impl Crates {
    /// Collects them from what `cargo metadata` says and from the lock file.
    ///
    /// # Errors
    /// If either is not about this workspace.
    pub fn collect(metadata: &Metadata, lock: &str) -> Result<Self, SbomError> {
        let checksums = checksums(lock)?;
        let packages: BTreeMap<&PackageId, &Package> =
            metadata.packages.iter().map(|package| (&package.id, package)).collect();
        let mut waiting = Vec::new();
        for name in PROGRAMS {
            let own = metadata.workspace_packages();
            let program = own.iter().find(|package| package.name.as_str() == name);
            waiting.push(program.ok_or(SbomError::NoProgram { name })?.id.clone());
        }
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let nodes: BTreeMap<&PackageId, _> = nodes.map(|node| (&node.id, node)).collect();
        let (mut seen, mut crates) = (BTreeSet::new(), BTreeSet::new());
        while let Some(id) = waiting.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let unresolved = || SbomError::Unresolved { id: id.to_string() };
            let node = nodes.get(&id).ok_or_else(unresolved)?;
            let package = packages.get(&id).ok_or_else(unresolved)?;
            crates.insert(described(package, &checksums)?);
            let runs = node.deps.iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            });
            waiting.extend(runs.map(|dependency| dependency.pkg.clone()));
        }
        Ok(Self(crates))
    }
}

fn described(
    package: &Package,
    checksums: &BTreeMap<(String, String), String>,
) -> Result<Crate, SbomError> {
    let (name, version) = (package.name.to_string(), package.version.to_string());
    let key = (name, version);
    let checksum = checksums.get(&key).cloned();
    let (name, version) = key;
    if package.source.is_some() && checksum.is_none() {
        return Err(SbomError::NoChecksum { name, version });
    }
    Ok(Crate { name, version, licence: Licence::of(package), checksum })
}

/// Name and version to checksum.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>, SbomError> {
    let lock: toml::Table = toml::from_str(lock).map_err(|_| SbomError::Lock)?;
    let packages = lock.get("package").and_then(toml::Value::as_array).ok_or(SbomError::Lock)?;
    let mut checksums = BTreeMap::new();
    for package in packages {
        let text = |field| package.get(field).and_then(toml::Value::as_str);
        let (Some(name), Some(version)) = (text("name"), text("version")) else {
            return Err(SbomError::Lock);
        };
        if let Some(checksum) = text("checksum") {
            checksums.insert((name.to_owned(), version.to_owned()), checksum.to_owned());
        }
    }
    Ok(checksums)
}

/// A file that went into the image.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What it is called in the bill.
    pub name: &'a str,
    /// Its version, where it has one.
    pub version: Option<&'a str>,
    /// CycloneDX's type: `application`, `operating-system` or `data`.
    pub kind: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The bill of an image.
#[must_use]
pub fn bill(version: &str, image: &[u8], parts: &[Part<'_>], crates: &Crates) -> Value {
    let mut components: Vec<Value> = parts.iter().map(part).collect();
    components.extend(crates.0.iter().map(component));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": part(&Part {
                name: "casemate.eif",
                version: Some(version),
                kind: "firmware",
                bytes: image,
            }),
        },
        "components": components,
    })
}

fn sha256(bytes: &[u8]) -> Value {
    json!([{ "alg": "SHA-256", "content": hex::encode(Sha256::digest(bytes)) }])
}

fn part(part: &Part<'_>) -> Value {
    let mut value = json!({ "type": part.kind, "bom-ref": part.name, "name": part.name });
    if let (Some(object), Some(version)) = (value.as_object_mut(), part.version) {
        object.insert("version".to_owned(), version.into());
    }
    if let Some(object) = value.as_object_mut() {
        object.insert("hashes".to_owned(), sha256(part.bytes));
    }
    value
}

fn component(of: &Crate) -> Value {
    let reference = format!("{}@{}", of.name, of.version);
    let mut value = json!({
        "type": "library",
        "bom-ref": reference,
        "name": of.name,
        "version": of.version,
    });
    let Some(object) = value.as_object_mut() else { return value };
    if let Some(checksum) = &of.checksum {
        object.insert("purl".to_owned(), format!("pkg:cargo/{reference}").into());
        object.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": checksum }]));
    }
    if let Some(licence) = &of.licence {
        object.insert("licenses".to_owned(), licence.to_json());
    }
    value
}
