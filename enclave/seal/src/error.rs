//! Why nothing is sealed, and why nothing is opened.

use casemate_proto::{BootId, KeyName};
use casemate_recovery::{KeyError, ReleaseError};

/// Why nothing is sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A quorum that cannot be shared among the governors.
    #[error("a secret cannot be shared {quorum} of {governors}")]
    Quorum {
        /// How many are needed.
        quorum: u64,
        /// How many there are.
        governors: usize,
    },
    /// Two shares of one run.
    #[error("two shares of key `{name}`, epoch {epoch}, of one run")]
    Twice {
        /// Which key.
        name: KeyName,
        /// Which epoch.
        epoch: u64,
    },
    /// More than a blob holds.
    #[error("{size} bytes of {count} shares; at most {max} are sealed")]
    TooLarge {
        /// How many shares.
        count: usize,
        /// How many bytes.
        size: usize,
        /// Most bytes.
        max: usize,
    },
    /// A governor's key is refused.
    #[error("the recovery key of governor {governor}: {reason}")]
    Governor {
        /// Its place in the manifest.
        governor: u16,
        /// Why.
        reason: KeyError,
    },
    /// A library refuses what it never should.
    #[error("sealing failed: {what}")]
    Library {
        /// At what.
        what: &'static str,
    },
}

/// Why a blob stays closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The certificate does not give this blob to this boot.
    #[error(transparent)]
    NotGranted(#[from] ReleaseError),
    /// The recovery key at hand is not the one that the certificate names.
    #[error("the certificate names another boot's recovery key")]
    OtherKey,
    /// Sealed by another boot than the ledger names for the node.
    #[error(
        "the blob was sealed by boot {sealed}, and the ledger's last boot of the node is {former}"
    )]
    OtherSealer {
        /// The blob's.
        sealed: BootId,
        /// The ledger's.
        former: BootId,
    },
    /// The boot that the ledger names did not sign it.
    #[error("the blob is not signed by the boot that it says sealed it")]
    Unsigned,
    /// Shared otherwise than the manifest says.
    #[error(
        "the blob's secret is shared {quorum} of {governors}, and the manifest says {expected_quorum} of {expected_governors}"
    )]
    Sharing {
        /// The blob's quorum.
        quorum: usize,
        /// Its number of parts.
        governors: usize,
        /// The manifest's quorum.
        expected_quorum: u64,
        /// Its number of governors.
        expected_governors: usize,
    },
    /// Too few parts, or too few that are what was committed to.
    #[error("{have} of {need} parts; not what was sealed: the parts of governors {bad:?}")]
    TooFewParts {
        /// How many good parts there are.
        have: usize,
        /// How many are needed.
        need: u64,
        /// The places of the governors whose part is wrong.
        bad: Vec<u16>,
    },
    /// A data key is needed and missing, or there and not wanted.
    #[error("the blob {}", if *.needed { "needs its data key of KMS" } else { "was sealed without a data key" })]
    DataKey {
        /// Whether it needs one.
        needed: bool,
    },
    /// The content does not open: another data key, or changed bytes.
    #[error("the content does not open: another data key, or changed bytes")]
    Damaged,
    /// The content is not the shares that the header lists.
    #[error("the content is not the shares that the header lists")]
    Content,
}
