//! `cluster.json`: what a client must know of a cluster before it asks it anything.
//!
//! ```json
//! {
//!   "schema": "casemate.cluster/1",
//!   "name": "demo",
//!   "genesis_id": "0x…32 bytes",
//!   "genesis": "0x…CBOR of the genesis record, or a path",
//!   "manifest": "0x…CBOR of the manifest, or a path",
//!   "trust_root_pem": "-----BEGIN CERTIFICATE-----…",
//!   "nodes": [{"name": "eu-west-1", "url": "http://127.0.0.1:7001", "folder": "eu-west-1"}],
//!   "credentials": [{"principal": "operator:alice", "roles": ["requester", "approver"],
//!                    "algorithm": "ed25519", "secret": "0x…32 bytes"}]
//! }
//! ```
//!
//! What is pinned are the genesis id and the trust root; everything else follows from them or is
//! checked against them. `genesis`, `manifest`, `folder` and `credentials` may be left out: a
//! client fetches the genesis record and believes it only if its hash is the pinned id. The
//! manifest is inside the genesis record; it stands alone for a cluster that is not born yet.
//! Paths are relative to the file. `credentials` hold secret keys and are for development only.
//! `images` lists images that were accepted since the genesis, which a new client cannot learn of
//! when no node runs one of the manifest's any more.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use casemate_attestation_verify::{RootError, TrustRoot};
use casemate_proto::cbor::{self, CborError};
use casemate_proto::manifest::{
    GenesisRecord, MAX_GENESIS, MAX_MANIFEST, Manifest, ManifestError, Measurement,
};
use casemate_proto::{Algorithm, GenesisId, NodeName, PrincipalId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::credential::{Credential, CredentialFileError};
use crate::files::{self, ReadError};

/// The one schema that is read and written.
pub const SCHEMA: &str = "casemate.cluster/1";
/// Most bytes of the file: a genesis record and a manifest in hex, with room for the rest.
pub const MAX_FILE: usize = 2 * (MAX_GENESIS + MAX_MANIFEST) + 256 * 1024;

/// The file, well-formed; [`ClusterFile::cluster`](crate::Cluster::from_file) makes something to
/// ask of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// For people.
    pub name: String,
    /// Which cluster. Pinned: nothing that a node says can change it.
    pub genesis_id: GenesisId,
    /// The encoded genesis record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis: Option<Blob>,
    /// The encoded manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Blob>,
    /// The root certificate of attestation, PEM. Pinned.
    pub trust_root_pem: String,
    /// Images accepted since the genesis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// Where the nodes are.
    pub nodes: Vec<NodeAddress>,
    /// Development only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<FileCredential>,
}

/// Bytes in the file itself or in another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blob(pub String);

impl Blob {
    /// Bytes in the file itself.
    #[must_use]
    pub fn inline(bytes: &[u8]) -> Self {
        Self(format!("0x{}", hex::encode(bytes)))
    }
}

/// An image's measurements: PCR0, PCR1 and PCR2 in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(pub Measurement);

/// A node's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAddress {
    /// Its name in the roster.
    pub name: NodeName,
    /// Where its parent serves HTTP, such as `https://eu-west-1.example:7443`.
    pub url: String,
    /// Where a local cluster keeps the node's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Asks for signatures.
    Requester,
    /// Approves.
    Approver,
    /// Signs governance changes.
    Governor,
    /// Freezes.
    Freezer,
}

impl Role {
    /// The name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requester => "requester",
            Self::Approver => "approver",
            Self::Governor => "governor",
            Self::Freezer => "freezer",
        }
    }
}

/// A credential with its secret key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCredential {
    /// Whose, as the policy names requesters and approvers; a name for people for the others.
    pub principal: PrincipalId,
    /// What for.
    pub roles: Vec<Role>,
    /// `ed25519` or `p256`.
    #[serde(with = "crate::credential::algorithm_name")]
    pub algorithm: Algorithm,
    /// 32 bytes of hex.
    pub secret: SecretText,
}

/// A secret key as text; it prints as `<redacted>` and is overwritten when it is dropped.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Self::new)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireImage {
    pcr0: String,
    pcr1: String,
    pcr2: String,
}

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = |pcr: &[u8; 48]| format!("0x{}", hex::encode(pcr));
        let (pcr0, pcr1, pcr2) = (text(&self.0.pcr0), text(&self.0.pcr1), text(&self.0.pcr2));
        WireImage { pcr0, pcr1, pcr2 }.serialize(s)
    }
}
impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wire = WireImage::deserialize(d)?;
        let pcr = |text: &str| {
            casemate_proto::ids::parse_hex::<48>("PCR", text).map_err(serde::de::Error::custom)
        };
        let (pcr0, pcr1, pcr2) = (pcr(&wire.pcr0)?, pcr(&wire.pcr1)?, pcr(&wire.pcr2)?);
        Ok(Self(Measurement { pcr0, pcr1, pcr2 }))
    }
}

/// Why a file is not a cluster's.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not the JSON that is expected.
    #[error("`{}` is not a cluster file: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the place.
        reason: String,
    },
    /// Another schema.
    #[error("`{}`: schema `{found}` where `{SCHEMA}` is known", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: String,
    },
    /// A field is malformed or contradicts another.
    #[error("cluster file, field `{field}`: {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The trust root is none.
    #[error("cluster file, field `trust_root_pem`: {0}")]
    Root(#[from] RootError),
    /// The genesis record is another cluster's.
    #[error("the genesis record is of cluster {found}, and {expected} is pinned")]
    OtherGenesis {
        /// The id that is pinned.
        expected: GenesisId,
        /// The record's id.
        found: GenesisId,
    },
    /// A credential's secret is none.
    #[error("cluster file, credential of `{principal}`: {error}")]
    Credential {
        /// Whose.
        principal: PrincipalId,
        /// What is wrong.
        error: CredentialFileError,
    },
    /// No credential of that principal and role.
    #[error("cluster file: no credential of `{principal}`{}; it knows {known}", role_text(.role))]
    NoCredential {
        /// Who was asked for.
        principal: String,
        /// In which role.
        role: Option<Role>,
        /// Who is in it.
        known: String,
    },
    /// It cannot be written.
    #[error("cannot write `{}`: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn role_text(role: &Option<Role>) -> String {
    role.map_or_else(String::new, |role| format!(" as {}", role.name()))
}

fn field(field: &'static str, reason: impl fmt::Display) -> ClusterFileError {
    ClusterFileError::Field { field, reason: reason.to_string() }
}

impl ClusterFile {
    /// Parses the file's text. `path` is for errors.
    ///
    /// # Errors
    /// If it is not JSON of this schema.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, ClusterFileError> {
        // first the schema alone, so that another one is called that and not a list of unknown fields
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let wrong = |error: serde_json::Error| ClusterFileError::Json {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let head: Head = serde_json::from_slice(text).map_err(wrong)?;
        if head.schema != SCHEMA {
            return Err(ClusterFileError::Schema { path: path.to_owned(), found: head.schema });
        }
        serde_json::from_slice(text).map_err(wrong)
    }

    /// Reads the file, and what it names beside it: afterwards `genesis` and `manifest` hold bytes.
    ///
    /// # Errors
    /// If something cannot be read or is malformed.
    pub fn load(path: &Path) -> Result<Self, ClusterFileError> {
        let mut file = Self::parse(&files::read(path, MAX_FILE)?, path)?;
        let beside = path.parent().unwrap_or(Path::new("."));
        for (blob, max) in [(&mut file.genesis, MAX_GENESIS), (&mut file.manifest, MAX_MANIFEST)] {
            if let Some(Blob(text)) = blob
                && !text.starts_with("0x")
            {
                *blob = Some(Blob::inline(&files::read(&beside.join(&*text), max)?));
            }
        }
        Ok(file)
    }

    /// Writes the file, readable by its owner alone, in the place of an older one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ClusterFileError> {
        let wrong = |error| ClusterFileError::Write { path: path.to_owned(), error };
        let mut text =
            serde_json::to_string_pretty(self).map_err(|error| wrong(io::Error::other(error)))?;
        text.push('\n');
        let text = Zeroizing::new(text);
        files::write_private(path, text.as_bytes()).map_err(wrong)
    }

    /// The genesis record, if the file has it: checked to be the pinned one.
    ///
    /// # Errors
    /// If it is malformed or another cluster's.
    pub fn genesis_record(&self) -> Result<Option<GenesisRecord>, ClusterFileError> {
        let Some(blob) = &self.genesis else { return Ok(None) };
        let bytes = inline("genesis", blob)?;
        let record: GenesisRecord = decode("genesis", &bytes, MAX_GENESIS)?;
        pinned(&record, self.genesis_id)?;
        Ok(Some(record))
    }

    /// The manifest: the genesis record's, or the one beside it.
    ///
    /// # Errors
    /// If one is malformed, or the two differ.
    pub fn manifest(&self) -> Result<Option<Manifest>, ClusterFileError> {
        let alone: Option<Manifest> = match &self.manifest {
            Some(blob) => Some(decode("manifest", &inline("manifest", blob)?, MAX_MANIFEST)?),
            None => None,
        };
        match (self.genesis_record()?, alone) {
            (Some(genesis), Some(alone)) if genesis.manifest != alone => {
                Err(field("manifest", "it is not the genesis record's"))
            }
            (Some(genesis), _) => Ok(Some(genesis.manifest)),
            (None, alone) => Ok(alone),
        }
    }

    /// The pinned root.
    ///
    /// # Errors
    /// If it is no root certificate.
    pub fn trust_root(&self) -> Result<TrustRoot, ClusterFileError> {
        Ok(TrustRoot::from_pem(&self.trust_root_pem)?)
    }

    /// The credentials of a role, in the file's order.
    ///
    /// # Errors
    /// If a secret is malformed.
    pub fn credentials_as(&self, role: Role) -> Result<Vec<Credential>, ClusterFileError> {
        let of_role = self.credentials.iter().filter(|c| c.roles.contains(&role));
        of_role.map(FileCredential::credential).collect()
    }

    /// The credential of a principal, in that role where one is named.
    ///
    /// # Errors
    /// If there is none, or its secret is malformed.
    pub fn credential(
        &self,
        principal: &str,
        role: Option<Role>,
    ) -> Result<Credential, ClusterFileError> {
        let fits = |c: &&FileCredential| role.is_none_or(|role| c.roles.contains(&role));
        let mut candidates = self.credentials.iter().filter(fits);
        match candidates.find(|c| c.principal.as_str() == principal) {
            Some(found) => found.credential(),
            None => {
                let names = self.credentials.iter().filter(fits);
                let known: Vec<String> = names.map(|c| format!("`{}`", c.principal)).collect();
                let known = if known.is_empty() { "nobody".to_owned() } else { known.join(", ") };
                let principal = principal.chars().take(80).collect();
                Err(ClusterFileError::NoCredential { principal, role, known })
            }
        }
    }
}

impl FileCredential {
    /// From a credential: what a development cluster writes.
    #[must_use]
    pub fn new(principal: PrincipalId, roles: Vec<Role>, credential: &Credential) -> Self {
        Self {
            principal,
            roles,
            algorithm: credential.algorithm(),
            secret: credential.dangerous_secret_text(),
        }
    }

    /// The credential.
    ///
    /// # Errors
    /// If the secret is malformed.
    pub fn credential(&self) -> Result<Credential, ClusterFileError> {
        Credential::from_secret_text(self.algorithm, &self.secret).map_err(|error| {
            ClusterFileError::Credential { principal: self.principal.clone(), error }
        })
    }
}

/// Whether a genesis record is the pinned one, and contradicts itself nowhere.
pub(crate) fn pinned(record: &GenesisRecord, expected: GenesisId) -> Result<(), ClusterFileError> {
    let found = record.id();
    if found != expected {
        return Err(ClusterFileError::OtherGenesis { expected, found });
    }
    record.check().map_err(|error: ManifestError| field("genesis", error))
}

fn inline(name: &'static str, blob: &Blob) -> Result<Vec<u8>, ClusterFileError> {
    let digits = blob.0.strip_prefix("0x").ok_or_else(|| {
        field(name, "it is a path; a file that names others is read from where it lies")
    })?;
    hex::decode(digits).map_err(|error| field(name, format!("not hex: {error}").to_lowercase()))
}

fn decode<'b, T>(name: &'static str, bytes: &'b [u8], max: usize) -> Result<T, ClusterFileError>
where
    T: minicbor::Decode<'b, ()> + minicbor::Encode<()>,
{
    cbor::decode(bytes, max).map_err(|error: CborError| field(name, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> String {
        format!(
            r#"{{"schema":"{SCHEMA}","name":"demo","genesis_id":"0x{}","trust_root_pem":"",
                "nodes":[{{"name":"a","url":"http://127.0.0.1:1"}}],
                "credentials":[{{"principal":"operator:alice","roles":["requester","approver"],
                    "algorithm":"ed25519","secret":"0x{}"}}]}}"#,
            "11".repeat(32),
            "22".repeat(32),
        )
    }

    fn parse(text: &str) -> Result<ClusterFile, ClusterFileError> {
        ClusterFile::parse(text.as_bytes(), Path::new("cluster.json"))
    }

    #[test]
    fn file_survives_being_saved_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.json");
        let mut file = parse(&file()).unwrap();
        file.images.push(Image(Measurement { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] }));
        file.save(&path).unwrap();
        file.save(&path).unwrap();
        assert!(!files::is_open_to_others(&path).unwrap());
        let again = ClusterFile::load(&path).unwrap();
        assert_eq!(again.nodes, file.nodes);
        assert_eq!(again.images, file.images);
        let (a, b) = (again.credential("operator:alice", None), file.credentials[0].credential());
        assert_eq!(a.unwrap().id(), b.unwrap().id());
    }

    #[test]
    fn other_schema_unknown_field_and_bad_values_are_named() {
        for (from, to, wanted) in [
            ("cluster/1", "cluster/2", "casemate.cluster/2"),
            (r#""name":"demo""#, r#""name":"demo","trust_rot":1"#, "trust_rot"),
            (r#""genesis_id":"0x11"#, r#""genesis_id":"0x"#, "genesis id"),
            (r#""name":"a""#, r#""name":"A""#, "node name"),
            ("ed25519", "rsa", "rsa"),
            ("approver", "root", "root"),
        ] {
            let error = parse(&file().replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(parse("[]").is_err());
    }

    #[test]
    fn unknown_principal_and_wrong_role_name_who_is_known() {
        let file = parse(&file()).unwrap();
        let error = file.credential("operator:bob", None).unwrap_err().to_string();
        assert!(error.contains("operator:bob") && error.contains("operator:alice"), "{error}");
        let error = file.credential("operator:alice", Some(Role::Governor)).unwrap_err();
        assert!(error.to_string().contains("as governor; it knows nobody"), "{error}");
        assert_eq!(file.credentials_as(Role::Approver).unwrap().len(), 1);
    }

    #[test]
    fn genesis_record_of_another_cluster_is_refused() {
        let mut file = parse(&file()).unwrap();
        file.genesis = Some(Blob::inline(b"\x80"));
        assert!(matches!(file.genesis_record(), Err(ClusterFileError::Field { .. })));
        file.genesis = Some(Blob("beside.cbor".to_owned()));
        assert!(file.genesis_record().unwrap_err().to_string().contains("path"));
    }

    #[test]
    fn bytes_beside_the_file_are_read_from_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.json");
        std::fs::write(folder.path().join("genesis.cbor"), [0x80]).unwrap();
        let text = file().replace(r#""nodes""#, r#""genesis":"genesis.cbor","nodes""#);
        std::fs::write(&path, text).unwrap();
        assert_eq!(ClusterFile::load(&path).unwrap().genesis, Some(Blob::inline(&[0x80])));
        std::fs::remove_file(folder.path().join("genesis.cbor")).unwrap();
        let error = ClusterFile::load(&path).unwrap_err().to_string();
        assert!(error.contains("genesis.cbor"), "{error}");
    }

    #[test]
    fn secrets_print_redacted_and_wrong_ones_are_not_repeated() {
        let text = file();
        let file = parse(&text).unwrap();
        assert!(!format!("{file:?}").contains("2222"));
        let mut short = file.credentials[0].clone();
        short.secret = SecretText::new("0x3333".to_owned());
        let error = short.credential().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("3333"), "{error:?}");
    }
}
