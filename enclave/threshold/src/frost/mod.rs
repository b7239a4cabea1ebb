//! The Zcash Foundation's FROST, driven once for every scheme that it signs with.
//!
//! `frost-core` has the protocols (RFC 9591 and the key generation, refresh and repair beside it);
//! a [`Suite`] is one of its ciphersuites with what Casemate adds: the scheme, the form of its
//! public keys, how children are derived, and a verification that is not the library's own.
//!
//! No change of t: FROST's library refreshes shares and gives a lost one back, both at the same
//! threshold.

mod children;
mod derive;
mod keygen;
mod repair;
mod sign;
mod suite;

use std::collections::BTreeMap;

use frost_core::{
    Identifier,
    keys::{KeyPackage, PublicKeyPackage},
};

pub use keygen::FrostKeygen;
pub use repair::{FrostPublic, FrostRepair};
pub use sign::{FrostSign, FrostSignature};
pub use suite::{Suite, TaskNames};

use children::Children;

use crate::{
    error::{Abort, Misbehaviour, Misuse, RunError},
    key,
    party::{Participants, PartyId},
    run::sealed::Sealed,
};

/// A share of a key, with everybody's public shares.
pub struct FrostShare<S: Suite> {
    /// Zeroises itself.
    pub(crate) package: KeyPackage<S>,
    pub(crate) public: PublicKeyPackage<S>,
    /// The group's public key.
    pub(crate) verifying_key: S::PublicKey,
    children: Children<S>,
}

impl<S: Suite> std::fmt::Debug for FrostShare<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrostShare({}, <redacted>)", S::SCHEME.name())
    }
}

impl<S: Suite> FrostShare<S> {
    pub(crate) fn new(
        package: KeyPackage<S>,
        public: PublicKeyPackage<S>,
    ) -> Result<Self, RunError> {
        let verifying_key = encode_key(&public)?;
        Ok(Self { package, public, verifying_key, children: Children::default() })
    }
}

fn encode_key<S: Suite>(public: &PublicKeyPackage<S>) -> Result<S::PublicKey, RunError> {
    let bytes = public.verifying_key().serialize().map_err(|e| Abort::library(&e))?;
    S::PublicKey::try_from(bytes).map_err(|_| Abort::library(&"a public key of another length"))
}

/// The group's key and everybody's public share: what all holders must agree on.
fn public_bytes<S: Suite>(public: &PublicKeyPackage<S>) -> Result<Vec<u8>, RunError> {
    public.serialize().map_err(|e| Abort::library(&e))
}

impl<S: Suite> Sealed for FrostShare<S> {}

impl<S: Suite> key::Share for FrostShare<S> {
    const SCHEME: casemate_proto::Scheme = S::SCHEME;

    fn public_key(&self) -> Vec<u8> {
        self.verifying_key.as_ref().to_vec()
    }

    fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        S::verify(&self.verifying_key, digest, signature)
    }
}

/// The library's identifiers of these parties.
fn identifiers<S: Suite>(
    participants: &Participants,
) -> Result<BTreeMap<Identifier<S>, PartyId>, Misuse> {
    participants.parties().map(|p| Ok((p.to_frost()?, p))).collect()
}

/// The library's error, with the parties it names and what they did.
fn blame<S: Suite>(error: &frost_core::Error<S>, participants: &Participants) -> RunError {
    use frost_core::Error;
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
