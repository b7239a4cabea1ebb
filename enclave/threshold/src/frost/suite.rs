//! What one scheme's keys have of their own.

use casemate_proto::{DerivationPath, Hash32, Scheme, derive::DeriveError};
use frost_core::{
    Ciphersuite, Field, Group,
    keys::{KeyPackage, PublicKeyPackage},
};
use zeroize::Zeroize;

use crate::run::sealed::Sealed;

/// The names of a scheme's purposes, for errors.
#[derive(Clone, Copy, Debug)]
pub struct TaskNames {
    /// Generates a key.
    pub keygen: &'static str,
    /// Replaces its shares.
    pub refresh: &'static str,
    /// Gives a share back.
    pub repair: &'static str,
    /// Signs.
    pub sign: &'static str,
    /// Signs a pending key's test message.
    pub test: &'static str,
}

/// A FROST ciphersuite as this crate drives it. Only this crate implements it.
pub trait Suite:
    Ciphersuite<Group: Group<Field: Field<Scalar: Zeroize, Serialization: Zeroize>>> + Sealed
{
    /// The scheme.
    const SCHEME: Scheme;
    /// The names of its purposes.
    const NAMES: TaskNames;

    /// A public key as ledgers have it.
    type PublicKey: Copy + Eq + std::fmt::Debug + AsRef<[u8]> + TryFrom<Vec<u8>>;

    /// The hash by which runs and permits name a message.
    fn subject(message: &[u8]) -> Hash32;

    /// The child's public key, and the scalar to add to the parent's, in the suite's own encoding.
    ///
    /// # Errors
    /// If the key is none or has no child there.
    fn derive(
        public_key: &Self::PublicKey,
        chain_code: &[u8; 32],
        path: &DerivationPath,
    ) -> Result<(Self::PublicKey, [u8; 32]), DeriveError>;

    /// Whether `signature` is valid for `message`, by other code than the library that signs.
    fn verify(public_key: &Self::PublicKey, message: &[u8], signature: &[u8; 64]) -> bool;

    /// The one form that a key of this scheme is kept in.
    fn normal(
        package: KeyPackage<Self>,
        public: PublicKeyPackage<Self>,
    ) -> (KeyPackage<Self>, PublicKeyPackage<Self>) {
        (package, public)
    }
}
