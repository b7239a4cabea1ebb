//! Ed25519 (RFC 8032) by `frost-ed25519` 3.

use casemate_proto::{
    DerivationPath, Hash32, Scheme,
    derive::{DeriveError, derive_ed25519},
};
use frost_ed25519::Ed25519Sha512;

use crate::{
    frost::{
        FrostKeygen, FrostPublic, FrostRepair, FrostShare, FrostSign, FrostSignature, Suite,
        TaskNames,
    },
    key,
    purpose::ed25519_subject,
    run::{Driven, sealed::Sealed},
};

/// A share of an Ed25519 key, with everybody's public shares.
pub type Ed25519Share = FrostShare<Ed25519Sha512>;
/// An Ed25519 key that may not sign yet.
pub type PendingEd25519Key = key::PendingKey<Ed25519Share>;
/// An Ed25519 key that signs, given a permit.
pub type LiveEd25519Key = key::LiveKey<Ed25519Share>;
/// What is public about an Ed25519 key: the compressed point and the chain code.
pub type Ed25519Public = FrostPublic<[u8; 32]>;
/// A verified signature, with the compressed point under which it verifies.
pub type Ed25519Signature = FrostSignature<[u8; 32]>;

/// Generates or refreshes an Ed25519 key; yields a [`PendingEd25519Key`].
pub type Ed25519KeygenRun = Driven<FrostKeygen<Ed25519Sha512>>;
/// Gives a lost share back; yields a [`PendingEd25519Key`] to every holder.
pub type Ed25519RepairRun = Driven<FrostRepair<Ed25519Sha512>>;
/// Signs one message with one child key; yields an [`Ed25519Signature`].
pub type Ed25519SignRun = Driven<FrostSign<Ed25519Sha512>>;

impl Sealed for Ed25519Sha512 {}

impl Suite for Ed25519Sha512 {
    const SCHEME: Scheme = Scheme::Ed25519;
    const NAMES: TaskNames = TaskNames {
        keygen: "ed25519-keygen",
        refresh: "ed25519-refresh",
        repair: "ed25519-repair",
        sign: "ed25519-sign",
        test: "ed25519-test",
    };

    type PublicKey = [u8; 32];

    fn subject(message: &[u8]) -> Hash32 {
        ed25519_subject(message)
    }

    fn derive(
        public_key: &[u8; 32],
        chain_code: &[u8; 32],
        path: &DerivationPath,
    ) -> Result<([u8; 32], [u8; 32]), DeriveError> {
        derive_ed25519(public_key, chain_code, path).map(|child| (child.public_key, child.tweak))
    }

    fn verify(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        verify_ed25519(public_key, message, signature)
    }
}

/// Whether `signature` (R‖S) is valid for a message, by the strict rules: no point of small order,
/// S reduced, no cofactor.
#[must_use]
pub fn verify_ed25519(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(public_key) else { return false };
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}
