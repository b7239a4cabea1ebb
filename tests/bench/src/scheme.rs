//! The schemes, what stands for each, and what is asked of it.

use casemate_proto::Scheme;

/// All of them, in the order of the tables.
pub const SCHEMES: [Scheme; 3] = [Scheme::EcdsaSecp256k1, Scheme::Ed25519, Scheme::Bip340Secp256k1];

/// As the tables call it.
#[must_use]
pub const fn title(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::EcdsaSecp256k1 => "ECDSA",
        Scheme::Ed25519 => "Ed25519",
        Scheme::Bip340Secp256k1 => "BIP-340",
    }
}

/// What is asked of it: what such a key mostly signs.
#[must_use]
pub const fn asked(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::EcdsaSecp256k1 => "an x402 payment (EIP-3009)",
        Scheme::Ed25519 | Scheme::Bip340Secp256k1 => "a message",
    }
}

/// The bare library and what is counted of it.
#[must_use]
pub const fn library(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::EcdsaSecp256k1 => "cait-sith: two triples, presign, sign",
        Scheme::Ed25519 => "frost-ed25519: commit, sign, aggregate once",
        Scheme::Bip340Secp256k1 => "frost-secp256k1-tr: commit, sign, aggregate once",
    }
}

/// The key's name in the cluster.
#[must_use]
pub const fn key(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::EcdsaSecp256k1 => "bench-ecdsa",
        Scheme::Ed25519 => "bench-ed25519",
        Scheme::Bip340Secp256k1 => "bench-bip340",
    }
}

/// A scheme by its name on the command line.
///
/// # Errors
/// If there is none of that name.
pub fn named(name: &str) -> Result<Scheme, String> {
    match name {
        "ecdsa" => Ok(Scheme::EcdsaSecp256k1),
        "ed25519" => Ok(Scheme::Ed25519),
        "bip340" => Ok(Scheme::Bip340Secp256k1),
        _ => Err("schemes are `ecdsa`, `ed25519` and `bip340`".to_owned()),
    }
}
