//! Governance messages: what k of m people sign to change a cluster, and what one freezer signs
//! to stop it.
//!
//! Every change names the genesis, the incarnation and its predecessor, so that changes form one
//! chain from the genesis id on, and an old or a competing change cannot be replayed.

use minicbor::{Decode, Encode};

use crate::credential::CredentialError;
use crate::hash::tagged_hash;
use crate::ids::Hash32;
use crate::manifest::{Manifest, Measurement};
use crate::{CredentialId, GenesisId, Incarnation, KeyName, Scheme, UnixMillis};

/// Most bytes of an encoded change.
pub const MAX_CHANGE: usize = 16 * 1024;
/// Most bytes of a policy's canonical form: 10,000 grants fit.
pub const MAX_POLICY: usize = 8 * 1024 * 1024;

/// Most pending changes that a heartbeat lists; fewer can wait at one time.
pub const MAX_LISTED: usize = 64;

/// What is changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// The first change: this genesis is the one that the governors mean.
    #[n(0)]
    ConfirmGenesis,
    /// Another policy. The first is in force at once. Its canonical form travels beside the
    /// change, since it is larger than a log entry may be.
    #[n(1)]
    SetPolicy {
        /// The policy's hash.
        #[n(0)]
        policy: Hash32,
    },
    /// Generate a key. Its name, scheme and public key never change (I13).
    #[n(2)]
    CreateKey {
        /// Its name.
        #[n(0)]
        name: KeyName,
        /// Its scheme.
        #[n(1)]
        scheme: Scheme,
    },
    /// End one freeze, by its id.
    #[n(3)]
    Unfreeze {
        /// Which freeze.
        #[n(0)]
        freeze: Hash32,
    },
    /// A credential is never accepted again, whatever a policy says: not its requests, not its
    /// approvals, those given included, and no change that its owner signs as a governor. What
    /// its owner says as a freezer is still heard, since fewer brakes would be a loosening.
    #[n(4)]
    RevokeCredential {
        /// Which.
        #[n(0)]
        credential: CredentialId,
    },
    /// Accept another image.
    #[n(5)]
    AcceptImage {
        /// Its measurements.
        #[n(0)]
        measurement: Measurement,
    },
    /// Never accept an image again.
    #[n(6)]
    RetireImage {
        /// Its measurements.
        #[n(0)]
        measurement: Measurement,
    },
    /// Drop a pending change.
    #[n(7)]
    Withdraw {
        /// Which change.
        #[n(0)]
        change: Hash32,
    },
}

impl Change {
    /// For people and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ConfirmGenesis => "confirm_genesis",
            Self::SetPolicy { .. } => "set_policy",
            Self::CreateKey { .. } => "create_key",
            Self::Unfreeze { .. } => "unfreeze",
            Self::RevokeCredential { .. } => "revoke_credential",
            Self::AcceptImage { .. } => "accept_image",
            Self::RetireImage { .. } => "retire_image",
            Self::Withdraw { .. } => "withdraw",
        }
    }
}

/// A change with what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChangeEnvelope {
    /// The cluster.
    #[n(0)]
    pub genesis: GenesisId,
    /// Its incarnation.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The id of the change accepted before; the genesis id for the first.
    #[n(2)]
    pub predecessor: Hash32,
    /// Until when it may be submitted.
    #[n(3)]
    pub expires: UnixMillis,
    /// What is changed.
    #[n(4)]
    pub change: Change,
}

impl ChangeEnvelope {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> Hash32 {
        tagged_hash("casemate/change/v1", &[&crate::cbor::encode(self)])
    }

    /// The bytes that a governor signs: the tag and the id, which binds every byte of it.
    #[must_use]
    pub fn signing_bytes(&self) -> Vec<u8> {
        [b"casemate/governance/v1\0".as_slice(), self.id().as_bytes()].concat()
    }
}

/// One signature with whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct NamedSignature {
    /// Whose.
    #[n(0)]
    pub credential: CredentialId,
    /// 64 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A change and the signatures under it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedChange {
    /// The change.
    #[n(0)]
    pub envelope: ChangeEnvelope,
    /// At most one from each governor.
    #[n(1)]
    pub signatures: Vec<NamedSignature>,
}

/// Why the signatures under a change do not carry it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// Signed by somebody who is not a governor.
    #[error("credential {credential} is not a governor of this cluster")]
    NotAGovernor {
        /// Who.
        credential: CredentialId,
    },
    /// Two signatures of one governor.
    #[error("governor {credential} signed twice")]
    Twice {
        /// Who.
        credential: CredentialId,
    },
    /// A signature does not verify.
    #[error(transparent)]
    Signature(#[from] CredentialError),
    /// Too few.
    #[error("{have} of {need} governors signed")]
    TooFew {
        /// How many did.
        have: usize,
        /// How many must.
        need: u64,
    },
    /// A heartbeat lists more changes than can be pending: its entry would be too large.
    #[error("the heartbeat lists {count} changes; at most {MAX_LISTED} are accepted")]
    TooManyListed {
        /// How many.
        count: usize,
    },
}

/// A change that carries a quorum's valid signatures. Made by [`SignedChange::verify`] only.
#[derive(Clone, Debug)]
pub struct VerifiedChange {
    envelope: ChangeEnvelope,
    id: Hash32,
}

impl VerifiedChange {
    /// The change with what it is bound to.
    #[must_use]
    pub const fn envelope(&self) -> &ChangeEnvelope {
        &self.envelope
    }
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Hash32 {
        self.id
    }
}

impl SignedChange {
    /// Checks that a quorum of different governors signed exactly this.
    ///
    /// # Errors
    /// If not. Every signature must verify: one bad signature refuses the whole.
    pub fn verify(&self, manifest: &Manifest) -> Result<VerifiedChange, QuorumError> {
        let message = self.envelope.signing_bytes();
        let mut seen = std::collections::BTreeSet::new();
        for named in &self.signatures {
            let credential = named.credential;
            let key =
                manifest.governor(&credential).ok_or(QuorumError::NotAGovernor { credential })?;
            if !seen.insert(credential) {
                return Err(QuorumError::Twice { credential });
            }
            key.verify(&message, &named.signature)?;
        }
        let quorum = manifest.governance.quorum;
        let need = if crate::sabotaged!("one_governor_suffices") { 1 } else { quorum };
        if u64::try_from(seen.len()).unwrap_or(0) < need {
            return Err(QuorumError::TooFew { have: seen.len(), need });
        }
        Ok(VerifiedChange { envelope: self.envelope.clone(), id: self.envelope.id() })
    }
}

/// What one freezer says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FreezerStatement {
    /// Stop signing. Takes a fresh nonce, so that each freeze has its own id.
    #[n(0)]
    Freeze {
        /// 16 bytes.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 16],
    },
    /// Stop a pending change.
    #[n(1)]
    Veto {
        /// Which change.
        #[n(0)]
        change: Hash32,
    },
    /// I am here, and this is what I saw: the newest checkpoint and the pending changes in it.
    #[n(2)]
    Heartbeat {
        /// The checkpoint's tree size.
        #[n(0)]
        size: u64,
        /// Its root.
        #[n(1)]
        root: Hash32,
        /// Ids of the changes that it shows as pending, in order; at most [`MAX_LISTED`].
        #[n(2)]
        pending: Vec<Hash32>,
    },
}

/// A freezer's statement, signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedStatement {
    /// The cluster.
    #[n(0)]
    pub genesis: GenesisId,
    /// Its incarnation.
    #[n(1)]
    pub incarnation: Incarnation,
    /// When the freezer said it.
    #[n(2)]
    pub at: UnixMillis,
    /// What.
    #[n(3)]
    pub statement: FreezerStatement,
    /// Whose signature.
    #[n(4)]
    pub by: NamedSignature,
}

impl SignedStatement {
    /// The statement's id; a freeze is named by it.
    #[must_use]
    pub fn id_of(
        genesis: &GenesisId,
        incarnation: Incarnation,
        at: UnixMillis,
        statement: &FreezerStatement,
    ) -> Hash32 {
        tagged_hash(
            "casemate/freezer/v1",
            &[
                genesis.as_bytes(),
                &incarnation.0.to_be_bytes(),
                &at.0.to_be_bytes(),
                &crate::cbor::encode(statement),
            ],
        )
    }

    /// This statement's id.
    #[must_use]
    pub fn id(&self) -> Hash32 {
        Self::id_of(&self.genesis, self.incarnation, self.at, &self.statement)
    }

    /// The bytes that a freezer signs.
    #[must_use]
    pub fn signing_bytes(id: &Hash32) -> Vec<u8> {
        [b"casemate/freezer-statement/v1\0".as_slice(), id.as_bytes()].concat()
    }

    /// Checks that a freezer of this cluster signed exactly this, within its caps.
    ///
    /// # Errors
    /// If not.
    pub fn verify(&self, manifest: &Manifest) -> Result<VerifiedStatement, QuorumError> {
        if let FreezerStatement::Heartbeat { pending, .. } = &self.statement
            && pending.len() > MAX_LISTED
        {
            return Err(QuorumError::TooManyListed { count: pending.len() });
        }
        let credential = self.by.credential;
        let key = manifest.freezer(&credential).ok_or(QuorumError::NotAGovernor { credential })?;
        key.verify(&Self::signing_bytes(&self.id()), &self.by.signature)?;
        Ok(VerifiedStatement { statement: self.clone(), id: self.id() })
    }
}

/// A statement that a freezer of this cluster signed. Made by [`SignedStatement::verify`] only.
#[derive(Clone, Debug)]
pub struct VerifiedStatement {
    statement: SignedStatement,
    id: Hash32,
}

impl VerifiedStatement {
    /// What was said.
    #[must_use]
    pub const fn statement(&self) -> &SignedStatement {
        &self.statement
    }
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Hash32 {
        self.id
    }
}
