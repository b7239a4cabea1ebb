//! C2SP `tlog-checkpoint`: a signed note that fixes the log's size and root.
//!
//! ```text
//! casemate/<genesis id, 64 hex digits>/<incarnation>
//! <size>
//! <root, base64>
//!
//! — <origin> …                       the log's key, fixed for the genesis (type 0x01)
//! — <origin>/<boot id> …             one line for each boot that cosigned (type 0x04)
//! — witness.example/w1 …             witnesses outside (type 0x04)
//! ```
//!
//! There are no extension lines, and a note that has some is refused: `tlog-checkpoint` advises
//! against them, nothing in the tree could vouch for them, and without them all enclaves derive
//! the same bytes from the same tree and can cosign without agreeing on anything else. The time is
//! in the cosignatures.
//!
//! An Ed25519 cosignature does not commit to the cosigner's name. So a set of cosigners in which
//! one key stands under two names is refused: it would count twice.

use core::fmt;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use casemate_proto::{BootId, GenesisId, Hash32, Incarnation};

use crate::note::{
    MAX_KEY_NAME, NoteError, NoteKeyName, SignatureKind, SignedNote, UnixSeconds, VerifierKey,
    cosignature_message,
};

/// Which log: one incarnation of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The cluster.
    pub genesis: GenesisId,
    /// How often it was recovered cold.
    pub incarnation: Incarnation,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "casemate/{}/{}", hex::encode(self.genesis.as_bytes()), self.incarnation)
    }
}

impl Origin {
    /// Parses `casemate/<64 hex digits>/<decimal>`.
    ///
    /// # Errors
    /// If the text has another form.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let parse = || {
            let (genesis, incarnation) = text.strip_prefix("casemate/")?.split_once('/')?;
            let genesis = GenesisId::from_hex(&format!("0x{genesis}")).ok()?;
            let origin = Self { genesis, incarnation: Incarnation(incarnation.parse().ok()?) };
            (origin.to_string() == text).then_some(origin)
        };
        parse().ok_or_else(|| CheckpointError::BadOrigin { input: clip(text) })
    }

    /// The name that this log's own key signs under: the origin itself.
    ///
    /// # Errors
    /// None that can occur: the text fits a key name.
    pub fn log_key(&self, key: &[u8; 32]) -> Result<VerifierKey, NoteError> {
        VerifierKey::new(NoteKeyName::new(&self.to_string())?, SignatureKind::Ed25519, key)
    }

    /// A boot's cosigning key under its name, `<origin>/<boot id>`.
    ///
    /// # Errors
    /// If the key is not a point, or one of small order.
    pub fn boot_key(&self, boot: &BootId, key: &[u8; 32]) -> Result<VerifierKey, NoteError> {
        let name = format!("{self}/{}", hex::encode(boot.as_bytes()));
        VerifierKey::new(NoteKeyName::new(&name)?, SignatureKind::CosignatureV1, key)
    }
}

/// Why a note is not a checkpoint, or not one to rely on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not three lines.
    #[error("a checkpoint has three lines, each ended by a newline; this has {lines}")]
    WrongLines {
        /// How many there are.
        lines: usize,
    },
    /// The origin is empty or too long.
    #[error("`{input}` is not an origin")]
    BadOrigin {
        /// The beginning of the text.
        input: String,
    },
    /// The size is not a plain decimal number.
    #[error("`{input}` is not a tree size")]
    BadSize {
        /// The beginning of the text.
        input: String,
    },
    /// The root is not 32 bytes of base64.
    #[error("`{input}` is not a root hash: base64 of 32 bytes")]
    BadRoot {
        /// The beginning of the text.
        input: String,
    },
    /// A checkpoint of another log.
    #[error("the checkpoint is of log `{found}`, not `{expected}`")]
    OtherLog {
        /// The one expected.
        expected: String,
        /// The one found.
        found: String,
    },
    /// A signature under a known key's name and id that is not by that key.
    #[error("the signature of `{name}` does not verify")]
    BadSignature {
        /// Whose.
        name: NoteKeyName,
    },
    /// The log's own signature is missing.
    #[error("the signature of the log's key `{name}` is missing")]
    LogSignatureMissing {
        /// The key's name.
        name: NoteKeyName,
    },
    /// Too few cosigners.
    #[error("{found} known cosigners signed where {needed} are needed")]
    TooFewCosigners {
        /// How many signed.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A set of cosigners that would prove less than it says.
    #[error("`{name}` is a second name or key of one cosigner, or not a cosigner's key")]
    CosignerRepeated {
        /// The key's name.
        name: NoteKeyName,
    },
    /// A number of cosigners that cannot be asked for.
    #[error("{needed} of {known} cosigners cannot be asked for")]
    BadThreshold {
        /// How many are needed.
        needed: usize,
        /// How many are known.
        known: usize,
    },
}

/// The size and root of a log, not signed or not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, without a newline.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The tree's root at that size.
    pub root: Hash32,
}

impl Checkpoint {
    /// For one of our own logs.
    #[must_use]
    pub fn new(origin: &Origin, size: u64, root: Hash32) -> Self {
        Self { origin: origin.to_string(), size, root }
    }

    /// The text that is signed: three lines.
    #[must_use]
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// Parses the text of a note.
    ///
    /// # Errors
    /// If it is not exactly a checkpoint's three lines in their one form.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<&str> = text.splitn(5, '\n').collect();
        let [origin, size_text, root_text, ""] = lines.as_slice() else {
            return Err(CheckpointError::WrongLines { lines: text.matches('\n').count() });
        };
        if origin.is_empty() || origin.len() > MAX_KEY_NAME || origin.contains(char::is_control) {
            return Err(CheckpointError::BadOrigin { input: clip(origin) });
        }
        let size = size_text
            .parse::<u64>()
            .ok()
            .filter(|size| size.to_string() == *size_text)
            .ok_or_else(|| CheckpointError::BadSize { input: clip(size_text) })?;
        let root = BASE64
            .decode(root_text)
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| CheckpointError::BadRoot { input: clip(root_text) })?;
        Ok(Self { origin: (*origin).to_owned(), size, root: Hash32::new(root) })
    }

    /// What a cosigner signs at `time`.
    #[must_use]
    pub fn cosignature_message(&self, time: UnixSeconds) -> Vec<u8> {
        cosignature_message(&self.body(), time)
    }
}

/// The cosigners that count, and how many of them are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignerSet {
    keys: Vec<VerifierKey>,
    needed: usize,
}

impl CosignerSet {
    /// From cosigning keys, of which at least `needed` must have signed.
    ///
    /// # Errors
    /// If a name or a key occurs twice, a key is not for cosigning, or `needed` is zero or more
    /// than there are.
    pub fn new(keys: Vec<VerifierKey>, needed: usize) -> Result<Self, CheckpointError> {
        let (mut names, mut public_keys) = (BTreeSet::new(), BTreeSet::new());
        for key in &keys {
            let new = names.insert(key.name().clone()) && public_keys.insert(*key.public_key());
            if !new || key.kind() != SignatureKind::CosignatureV1 {
                return Err(CheckpointError::CosignerRepeated { name: key.name().clone() });
            }
        }
        if needed == 0 || needed > keys.len() {
            return Err(CheckpointError::BadThreshold { needed, known: keys.len() });
        }
        Ok(Self { keys, needed })
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }
    /// How many must have signed.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }
}

/// What a checkpoint must show to be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// The log's origin line.
    pub origin: String,
    /// The log's own key, if its signature is required: checkpoints for witnesses have it, the
    /// checkpoint of a receipt has only the signing boots' cosignatures.
    pub log_key: Option<VerifierKey>,
    /// Whose cosignatures count.
    pub cosigners: CosignerSet,
}

/// One cosigner's statement that its tree had this root at this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// The cosigner's name.
    pub name: NoteKeyName,
    /// When, by the cosigner's clock.
    pub time: UnixSeconds,
}

/// A checkpoint whose signatures were checked; only [`verify_checkpoint`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    cosignatures: Vec<Cosignature>,
    log_signed: bool,
}

impl VerifiedCheckpoint {
    /// The size and root.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
    /// The known cosigners that signed, each once.
    #[must_use]
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }
    /// Whether the log's own key was asked for, and signed.
    #[must_use]
    pub const fn is_log_signed(&self) -> bool {
        self.log_signed
    }
}

/// Checks a signed checkpoint against what it must show.
///
/// As the specification advises, a signature in a known key's name that does not verify refuses
/// the whole note; lines of unknown keys are ignored.
///
/// # Errors
/// If the text is not a checkpoint of that log, a known key's signature is wrong, or one that is
/// needed is missing.
pub fn verify_checkpoint(
    note: &SignedNote,
    policy: &CheckpointPolicy,
) -> Result<VerifiedCheckpoint, CheckpointError> {
    let checkpoint = Checkpoint::parse(note.text())?;
    if checkpoint.origin != policy.origin {
        return Err(CheckpointError::OtherLog {
            expected: policy.origin.clone(),
            found: checkpoint.origin,
        });
    }
    let mut log_signed = false;
    if let Some(key) = &policy.log_key {
        for line in note.signatures().iter().filter(|line| key.is_named_by(line)) {
            let signed =
                line.as_ed25519().is_some_and(|s| key.verifies(note.text().as_bytes(), &s));
            if !signed || key.kind() != SignatureKind::Ed25519 {
                return Err(CheckpointError::BadSignature { name: key.name().clone() });
            }
            log_signed = true;
        }
        if !log_signed {
            return Err(CheckpointError::LogSignatureMissing { name: key.name().clone() });
        }
    }
    let cosignatures = cosignatures(note, &policy.cosigners)?;
    let (found, needed) = (cosignatures.len(), policy.cosigners.needed);
    if found < needed {
        return Err(CheckpointError::TooFewCosigners { found, needed });
    }
    Ok(VerifiedCheckpoint { checkpoint, cosignatures, log_signed })
}

/// The known cosigners that signed, each once, with its newest time.
fn cosignatures(
    note: &SignedNote,
    cosigners: &CosignerSet,
) -> Result<Vec<Cosignature>, CheckpointError> {
    let mut out = Vec::new();
    for key in &cosigners.keys {
        let mut newest = None;
        for line in note.signatures().iter().filter(|line| key.is_named_by(line)) {
            let time = line
                .as_cosignature()
                .filter(|(time, s)| key.verifies(&cosignature_message(note.text(), *time), s))
                .map(|(time, _)| time)
                .ok_or_else(|| CheckpointError::BadSignature { name: key.name().clone() })?;
            newest = newest.max(Some(time));
        }
        out.extend(newest.map(|time| Cosignature { name: key.name().clone(), time }));
    }
    Ok(out)
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
