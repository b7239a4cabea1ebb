//! Ed25519 by the Zcash Foundation's FROST (RFC 9591), `frost-ed25519` 3.
//!
//! No change of t: FROST's library refreshes shares and gives a lost one back, both at the same
//! threshold.

mod keygen;
mod repair;
mod sign;

use std::collections::BTreeMap;

use casemate_proto::DerivationPath;
use frost_ed25519::{
    Identifier,
    keys::{KeyPackage, PublicKeyPackage},
};

pub use keygen::{Ed25519Keygen, Ed25519KeygenRun};
pub use repair::{Ed25519Public, Ed25519Repair, Ed25519RepairRun};
pub use sign::{Ed25519Sign, Ed25519SignRun, Ed25519Signature};

use crate::{
    error::{Abort, Misbehaviour, Misuse, RunError},
    key,
    party::{Participants, PartyId},
    run::sealed::Sealed,
};

/// A share of an Ed25519 key, with everybody's public shares.
pub struct Ed25519Share {
    /// Zeroises itself.
    pub(crate) package: KeyPackage,
    pub(crate) public: PublicKeyPackage,
    /// The group's public key.
    pub(crate) verifying_key: [u8; 32],
}

/// An Ed25519 key that may not sign yet.
pub type PendingEd25519Key = key::PendingKey<Ed25519Share>;
/// An Ed25519 key that signs, given a permit.
pub type LiveEd25519Key = key::LiveKey<Ed25519Share>;

impl std::fmt::Debug for Ed25519Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ed25519Share(<redacted>)")
    }
}

impl Ed25519Share {
    pub(crate) fn new(package: KeyPackage, public: PublicKeyPackage) -> Result<Self, RunError> {
        let verifying_key = encode_key(&public)?;
        Ok(Self { package, public, verifying_key })
    }
}

fn encode_key(public: &PublicKeyPackage) -> Result<[u8; 32], RunError> {
    let bytes = public.verifying_key().serialize().map_err(|e| Abort::library(&e))?;
    <[u8; 32]>::try_from(bytes).map_err(|_| Abort::library(&"a public key of another length"))
}

/// The group's key and everybody's public share: what all holders must agree on.
fn public_bytes(public: &PublicKeyPackage) -> Result<Vec<u8>, RunError> {
    public.serialize().map_err(|e| Abort::library(&e))
}

impl Sealed for Ed25519Share {}

impl key::Share for Ed25519Share {
    const SCHEME: casemate_proto::Scheme = casemate_proto::Scheme::Ed25519;

    fn public_key(&self) -> Vec<u8> {
        self.verifying_key.to_vec()
    }

    fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        verify_ed25519(&self.verifying_key, digest, signature)
    }
}

/// Whether `signature` (R‖S) is valid for a message, by the strict rules: no point of small order,
/// S reduced, no cofactor.
#[must_use]
pub fn verify_ed25519(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(public_key) else { return false };
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

/// The library's identifiers of these parties.
fn identifiers(participants: &Participants) -> Result<BTreeMap<Identifier, PartyId>, Misuse> {
    participants.parties().map(|p| Ok((p.to_frost()?, p))).collect()
}

/// The library's error, with the parties it names and what they did.
fn blame(error: &frost_ed25519::Error, participants: &Participants) -> RunError {
    use frost_ed25519::Error;
    let what = match error {
        Error::InvalidProofOfKnowledge { .. } => Misbehaviour::WrongProof,
        Error::InvalidSecretShare { .. } => Misbehaviour::WrongShare,
        Error::InvalidSignatureShare { .. } => Misbehaviour::WrongSignatureShare,
        _ => return Abort::library(error),
    };
    let known = identifiers(participants).unwrap_or_default();
    let parties: Vec<PartyId> =
        error.culprits().iter().filter_map(|id| known.get(id).copied()).collect();
    if parties.is_empty() {
        return Abort::library(error);
    }
    RunError::PeerMisbehaved { parties, what }
}

fn undecodable(from: PartyId) -> RunError {
    RunError::PeerMisbehaved { parties: vec![from], what: Misbehaviour::Undecodable }
}

fn no_child(path: &DerivationPath) -> RunError {
    Misuse::NoSuchChild(path.clone()).into()
}
