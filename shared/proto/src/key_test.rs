//! What is signed to test a new key's shares before they are live: one definition for the enclaves
//! that sign it and for the ledger that checks it.

use crate::hash::tagged_hash;
use crate::ids::Hash32;
use crate::{BootId, GenesisId, Incarnation, KeyName, Scheme};

/// A test of one set of shares by one set of signers.
#[derive(Clone, Copy, Debug)]
pub struct KeyTest<'a> {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The key's scheme.
    pub scheme: Scheme,
    /// The key's name.
    pub name: &'a KeyName,
    /// The epoch of the shares.
    pub epoch: u64,
    /// 33 bytes SEC1 (for BIP-340 the even one) or 32 bytes Ed25519.
    pub public_key: &'a [u8],
    /// For derivation.
    pub chain_code: &'a [u8; 32],
    /// The transcript that all holders echoed.
    pub transcript: &'a Hash32,
    /// The signers: places in the roster, ascending, with their boots.
    pub signers: &'a [(u16, BootId)],
}

impl KeyTest<'_> {
    /// The digest that is signed: a hash that is nothing else.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let signers: Vec<u8> = self
            .signers
            .iter()
            .flat_map(|(number, boot)| {
                [number.to_be_bytes().as_slice(), boot.as_bytes().as_slice()].concat()
            })
            .collect();
        *tagged_hash(
            "casemate/key-test/v1",
            &[
                self.genesis.as_bytes(),
                &self.incarnation.0.to_be_bytes(),
                self.scheme.name().as_bytes(),
                self.name.as_str().as_bytes(),
                &self.epoch.to_be_bytes(),
                self.public_key,
                self.chain_code,
                self.transcript.as_bytes(),
                &signers,
            ],
        )
        .as_bytes()
    }
}
