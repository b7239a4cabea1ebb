//! Wire types that every side of Casemate uses: ids, amounts, time, requests, stamps, denials and
//! receipts, with one strict encoding.
//!
//! What arrives from a host or a network is *parsed* here, once: a value of a type of this crate
//! is within its caps and in its canonical form. Nothing here reads a clock, draws randomness or
//! does I/O.

pub mod amount;
pub mod bip340;
pub mod cbor;
pub mod credential;
pub mod denial;
pub mod derive;
pub mod governance;
pub mod hash;
pub mod ids;
pub mod key_test;
pub mod manifest;
pub mod path;
pub mod recovery;
pub mod request;
mod sabotage;
pub mod signature;
pub mod stamp;
pub mod time;
pub mod webauthn;

pub use amount::Amount;
pub use credential::{Algorithm, CredentialId, PublicKey};
pub use denial::{Denial, DenialCode};
pub use ids::{
    AssetId, BootId, ChainId, GenesisId, GrantId, Hash32, Incarnation, KeyName, ListId, NodeName,
    PrincipalId, RequestId,
};
pub use path::DerivationPath;
pub use time::{Millis, UnixMillis};

/// The schemes a key can have.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum Scheme {
    /// ECDSA over secp256k1; signatures are r‖s (low s) with a recovery id.
    #[n(0)]
    EcdsaSecp256k1,
    /// Ed25519 (RFC 8032), 64-byte signatures.
    #[n(1)]
    Ed25519,
    /// Schnorr over secp256k1 as BIP-340 has it, 64-byte signatures; see [`bip340`].
    #[n(2)]
    Bip340Secp256k1,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Self; 3] = [Self::EcdsaSecp256k1, Self::Ed25519, Self::Bip340Secp256k1];

    /// The name used in configuration and output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaSecp256k1 => "ecdsa-secp256k1",
            Self::Ed25519 => "ed25519",
            Self::Bip340Secp256k1 => "bip340-secp256k1",
        }
    }

    /// Whether keys of this scheme sign messages and nothing else.
    #[must_use]
    pub const fn signs_messages_only(self) -> bool {
        match self {
            Self::EcdsaSecp256k1 => false,
            Self::Ed25519 | Self::Bip340Secp256k1 => true,
        }
    }

    /// Bytes of a signature: r‖s‖v for ECDSA.
    #[must_use]
    pub const fn signature_len(self) -> usize {
        match self {
            Self::EcdsaSecp256k1 => 65,
            Self::Ed25519 | Self::Bip340Secp256k1 => 64,
        }
    }

    /// The scheme of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}
