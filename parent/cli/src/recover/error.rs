//! Why a step of a recovery is not taken.

use std::io;
use std::path::PathBuf;

use casemate_client::files::ReadError;
use casemate_client::{ClusterFileError, CredentialFileError, SignError};
use casemate_ledger::StateError;
use casemate_ledger::recovery::Unfit;
use casemate_ledger::take_up::TakeUpError;
use casemate_proto::cbor::CborError;
use casemate_proto::governance::QuorumError;
use casemate_proto::recovery::{LedgerName, RecoveryError};
use casemate_proto::{CredentialId, GenesisId, Hash32, Incarnation, KeyName, NodeName, UnixMillis};
use casemate_recovery::{KeyError, ReleaseError};

use crate::online::CliError;

/// Why a step of a recovery is not taken. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The cluster is not named.
    #[error("which cluster? give `--genesis HEX` or `--cluster FILE`")]
    NotPinned,
    /// An image that only a ledger could show to be accepted, and no ledger was looked at.
    #[error(
        "the image with PCR0 {pcr0} is not in the manifest, and without a store nothing shows that the \
         cluster accepted it: whoever made this bundle might take every key with it. Give `--store DIR`"
    )]
    UnnamedImage {
        /// Its PCR0, hex.
        pcr0: String,
    },
    /// The system's clock is no time.
    #[error("the system's clock is before 1970")]
    Clock,
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file cannot be written.
    #[error("cannot write `{}`: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file that is needed is not there.
    #[error("`{}` is missing: {what}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A file is not what it should be.
    #[error("`{}` is not {what}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        #[source]
        error: CborError,
    },
    /// A file in JSON is not what it should be.
    #[error("`{}` is not {what}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong; never a part of a secret.
        reason: String,
    },
    /// A secret can be read by others.
    #[error("`{}` can be read or changed by others: `chmod 600` it", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
    },
    /// Something is of another cluster.
    #[error("`{}` is of cluster {found}, and {expected} is meant", path.display())]
    OtherCluster {
        /// What.
        path: PathBuf,
        /// Its cluster.
        found: GenesisId,
        /// The one that is meant.
        expected: GenesisId,
    },
    /// A folder is not a node's.
    #[error("`{}` is no parent's folder: {reason}", path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The roster has no such node.
    #[error("the cluster has no node `{node}`; its nodes are {roster}")]
    NoSuchNode {
        /// The name that was given.
        node: NodeName,
        /// Those that there are.
        roster: String,
    },
    /// A node was named twice.
    #[error("node `{node}` is named twice")]
    NamedTwice {
        /// Which.
        node: NodeName,
    },
    /// A node was not named.
    #[error(
        "node `{node}` is not named: a certificate has a boot of every node, of those too that have lost everything (`--node {node}=FOLDER`)"
    )]
    NotNamed {
        /// Which.
        node: NodeName,
    },
    /// The incarnation is not later than the folder's.
    #[error(
        "`{}` is in incarnation {current} already: incarnation {wanted} is not later", path.display()
    )]
    NotLater {
        /// The folder.
        path: PathBuf,
        /// Its incarnation.
        current: Incarnation,
        /// What was asked for.
        wanted: Incarnation,
    },
    /// Another recovery is under way in the folder.
    #[error(
        "`{}` is prepared for incarnation {prepared}: `--incarnation` says which one is meant, and a later one gives the other up",
        path.display()
    )]
    PreparedOtherwise {
        /// The folder.
        path: PathBuf,
        /// What it is prepared for.
        prepared: Incarnation,
    },
    /// The nodes are prepared for different incarnations.
    #[error("node `{node}` is prepared for {found}, and others for incarnation {expected}")]
    PreparedApart {
        /// Which node.
        node: NodeName,
        /// For what.
        found: String,
        /// What the first is prepared for.
        expected: Incarnation,
    },
    /// No sound ledger was found.
    #[error("none of the stores holds a sound ledger of the cluster: {reasons}")]
    NoLedger {
        /// Each store with what is wrong with it.
        reasons: String,
    },
    /// A store that claims to have more is not sound.
    #[error(
        "`{}` claims {claimed} entries and is not sound ({reason}); the newest sound one has {size}: repair it from a copy, or take up the older one with `--older-ledger`",
        path.display()
    )]
    NewerUnsound {
        /// The store.
        path: PathBuf,
        /// How many it claims.
        claimed: u64,
        /// What is wrong with it.
        reason: String,
        /// How many the newest sound one has.
        size: u64,
    },
    /// A blob was sealed later than the ledger ends.
    #[error(
        "`{}` was sealed when the ledger had {sealed} entries, and this one ends with {size}: find the store of the node that has more, or take up the older one with `--older-ledger`",
        path.display()
    )]
    OlderLedger {
        /// The blob.
        path: PathBuf,
        /// When it was sealed.
        sealed: u64,
        /// How many entries the ledger has.
        size: u64,
    },
    /// Two stores hold two histories.
    #[error(
        "`{}` and `{}` hold two histories: they have different roots for {size} entries. Stop, and look: this must never be",
        one.display(), other.display()
    )]
    SplitView {
        /// One store.
        one: PathBuf,
        /// The other.
        other: PathBuf,
        /// Where they differ.
        size: u64,
    },
    /// A ledger cannot be executed again.
    #[error(transparent)]
    TakeUp(#[from] TakeUpError),
    /// A snapshot is none.
    #[error("`{}`: {error}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: StateError,
    },
    /// The snapshot in a bundle is not the one that its certificate names.
    #[error("`{}` is not the state that the certificate names: {named}, and it is {found}", path.display())]
    OtherSnapshot {
        /// The file.
        path: PathBuf,
        /// What the certificate names.
        named: Hash32,
        /// What it is.
        found: Hash32,
    },
    /// The right edge of the store does not fit.
    #[error("`{}` does not lead to the certificate's ledger: {reason}", path.display())]
    OtherTail {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The store that a governor checks against has another ledger.
    #[error(
        "the certificate takes up {} entries with root {}, and the newest of `{}` is {} entries with root {}",
        named.size, named.root, path.display(), found.size, found.root
    )]
    OtherLedger {
        /// The store.
        path: PathBuf,
        /// The certificate's.
        named: Box<LedgerName>,
        /// The store's.
        found: Box<LedgerName>,
    },
    /// Keys would be lost.
    #[error(
        "key `{key}` would be lost: {have} of the nodes have a blob with its share, and {need} must: find a blob of another node, or say `--lose-key {key}`"
    )]
    KeyLost {
        /// The key.
        key: KeyName,
        /// How many have one.
        have: usize,
        /// How many must.
        need: u64,
    },
    /// A blob is not what its node is to open.
    #[error("`{}`: {reason}", path.display())]
    BadBlob {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: BlobFault,
    },
    /// A certificate from a time to come.
    #[error("the certificate was drawn up at {at}, and it is {now}: which clock is wrong?")]
    FromLater {
        /// When it says that it was drawn up.
        at: UnixMillis,
        /// The time here.
        now: UnixMillis,
    },
    /// The certificate is wrong in itself, or its signatures do not carry it.
    #[error(transparent)]
    Certificate(#[from] RecoveryError),
    /// The certificate is not of this ledger.
    #[error("the ledger does not take this certificate: {0}")]
    Unfit(#[from] Unfit),
    /// The ledger refuses the signed certificate.
    #[error("the ledger refuses the recovery: {0}")]
    Refused(String),
    /// Not a governor's key.
    #[error("credential {credential} is not a governor of this cluster")]
    NotAGovernor {
        /// Whose.
        credential: CredentialId,
    },
    /// A signature in the bundle is not one.
    #[error("`{}`: {error}: take it out of the bundle", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: QuorumError,
    },
    /// A signature in the bundle is under something else.
    #[error("`{}` is under certificate {found}, and this is {expected}", path.display())]
    OtherSignature {
        /// The file.
        path: PathBuf,
        /// What it is under.
        found: Hash32,
        /// This certificate.
        expected: Hash32,
    },
    /// Too few have released their part of a blob.
    #[error(
        "{have} of the governors released their part of the blob of node `{node}`, and {need} must{}",
        if bad.is_empty() { String::new() } else { format!("; not taken: {bad}") }
    )]
    TooFewReleases {
        /// The node.
        node: NodeName,
        /// How many did.
        have: usize,
        /// How many must.
        need: u64,
        /// Files that are no release for this.
        bad: String,
    },
    /// A node offers another boot than the certificate names.
    #[error(
        "node `{node}`: its enclave is boot {offered}, and the certificate names {named}: it was started anew since; certify again"
    )]
    OtherBoot {
        /// The node.
        node: NodeName,
        /// What it offers.
        offered: String,
        /// What the certificate names.
        named: String,
    },
    /// An offer is for something else.
    #[error("`{}`: {reason}", path.display())]
    BadOffer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A node did not begin in time.
    #[error(
        "node `{node}` did not begin within {waited}; `readyz` of its parent says in `detail` what its enclave refuses: {hint}"
    )]
    NotBegun {
        /// The node.
        node: NodeName,
        /// How long it was waited.
        waited: casemate_proto::Millis,
        /// Where to look.
        hint: String,
    },
    /// The governor's record forbids it.
    #[error(transparent)]
    Record(#[from] super::record::RecordError),
    /// A key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A part is not released.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A recovery key's file has another public half than its secret's.
    #[error("`{}`: its public key is not that of its secret", path.display())]
    OtherPublicKey {
        /// The file.
        path: PathBuf,
    },
    /// A credential cannot be had.
    #[error(transparent)]
    Credential(#[from] CredentialFileError),
    /// A credential does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A cluster file is none.
    #[error(transparent)]
    ClusterFile(#[from] ClusterFileError),
    /// Anything that every command can fail with.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What a blob is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobFault {
    /// Another version.
    #[error("a blob of a version that is not known")]
    Version,
    /// Of another cluster.
    #[error("a blob of cluster {0}")]
    Cluster(GenesisId),
    /// Of another incarnation.
    #[error("a blob of incarnation {0}")]
    Incarnation(Incarnation),
    /// Another node's.
    #[error("a blob of node `{0}`")]
    Node(NodeName),
    /// Of another boot than the ledger has last.
    #[error("sealed by a boot that is not the node's last in this ledger")]
    Boot,
    /// Not signed by that boot.
    #[error("its boot did not sign it: it was changed or made up")]
    Unsigned,
    /// Without a share that the node held.
    #[error("it has no share of key `{key}`, epoch {epoch}, which the node held")]
    WithoutShare {
        /// The key.
        key: KeyName,
        /// Its epoch.
        epoch: u64,
    },
    /// Not the one that the certificate names.
    #[error("it is not the blob that the certificate names for node `{0}`")]
    NotNamed(NodeName),
}

/// What every command can fail with, beside what it is about.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CommandError(Box<CliError>);

impl From<CliError> for RecoverError {
    fn from(error: CliError) -> Self {
        Self::Command(CommandError(Box::new(error)))
    }
}

impl From<RecoverError> for CliError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Command(CommandError(error)) => *error,
            error => Self::Recover(Box::new(error)),
        }
    }
}
