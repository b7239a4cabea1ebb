//! BIP-340 Schnorr signatures over secp256k1 by `frost-secp256k1-tr` 3.
//!
//! The library's plain `sign` is used, which adds no Taproot tweak: it makes key, nonces and shares
//! even where BIP-340 wants that, and what comes out is a BIP-340 signature under the x coordinate
//! of the key it was given. `sign_with_tweak` is for outputs on chain, which these keys do not sign
//! for.
//!
//! Its key generation does add a tweak (BIP-341's for no script, so that no party can hide a script
//! in the key), after which the key is even or odd. It is made even once, before anything is
//! hashed, echoed or derived, by negating every share and public share: [`Suite::normal`]. So a
//! key's public key is the 33 bytes of an even point for good, children are derived from it as
//! BIP-32 says, and a child that is odd is negated in the same way before it signs.

use casemate_proto::{
    DerivationPath, Hash32, Scheme, bip340,
    derive::{DeriveError, derive_bip340},
};
use frost_secp256k1_tr::{
    Secp256K1Sha256TR,
    keys::{EvenY, KeyPackage, PublicKeyPackage},
};

use crate::{
    frost::{
        FrostKeygen, FrostPublic, FrostRepair, FrostShare, FrostSign, FrostSignature, Suite,
        TaskNames,
    },
    key,
    purpose::bip340_subject,
    run::{Driven, sealed::Sealed},
};

/// A share of a BIP-340 key, with everybody's public shares.
pub type Bip340Share = FrostShare<Secp256K1Sha256TR>;
/// A BIP-340 key that may not sign yet.
pub type PendingBip340Key = key::PendingKey<Bip340Share>;
/// A BIP-340 key that signs, given a permit.
pub type LiveBip340Key = key::LiveKey<Bip340Share>;
/// What is public about a BIP-340 key: the even point (SEC1, compressed) and the chain code.
pub type Bip340Public = FrostPublic<[u8; 33]>;
/// A verified signature, with the even point under whose x coordinate it verifies.
pub type Bip340Signature = FrostSignature<[u8; 33]>;

/// Generates or refreshes a BIP-340 key; yields a [`PendingBip340Key`].
pub type Bip340KeygenRun = Driven<FrostKeygen<Secp256K1Sha256TR>>;
/// Gives a lost share back; yields a [`PendingBip340Key`] to every holder.
pub type Bip340RepairRun = Driven<FrostRepair<Secp256K1Sha256TR>>;
/// Signs one message with one child key; yields a [`Bip340Signature`].
pub type Bip340SignRun = Driven<FrostSign<Secp256K1Sha256TR>>;

impl Sealed for Secp256K1Sha256TR {}

impl Suite for Secp256K1Sha256TR {
    const SCHEME: Scheme = Scheme::Bip340Secp256k1;
    const NAMES: TaskNames = TaskNames {
        keygen: "bip340-keygen",
        refresh: "bip340-refresh",
        repair: "bip340-repair",
        sign: "bip340-sign",
        test: "bip340-test",
    };

    type PublicKey = [u8; 33];

    fn subject(message: &[u8]) -> Hash32 {
        bip340_subject(message)
    }

    fn derive(
        public_key: &[u8; 33],
        chain_code: &[u8; 32],
        path: &DerivationPath,
    ) -> Result<([u8; 33], [u8; 32]), DeriveError> {
        derive_bip340(public_key, chain_code, path).map(|child| (child.public_key, child.tweak))
    }

    fn verify(public_key: &[u8; 33], message: &[u8], signature: &[u8; 64]) -> bool {
        verify_bip340(public_key, message, signature)
    }

    fn normal(package: KeyPackage, public: PublicKeyPackage) -> (KeyPackage, PublicKeyPackage) {
        (package.into_even_y(None), public.into_even_y(None))
    }
}

/// Whether `signature` (R.x‖s) is valid for a message under a key as ledgers have it: the 33 bytes
/// of an even point. An odd point is no key.
#[must_use]
pub fn verify_bip340(public_key: &[u8; 33], message: &[u8], signature: &[u8; 64]) -> bool {
    bip340::x_only(public_key).is_some_and(|x| bip340::verify(&x, message, signature))
}
