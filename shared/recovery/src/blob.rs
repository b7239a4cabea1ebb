//! A sealed blob's outer form: everything of it that anybody may read.

use casemate_proto::cbor::{self, CborError};
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::recovery::RecoveryPublicKey;
use casemate_proto::{BootId, GenesisId, Incarnation, KeyName, NodeName, Scheme};
use minicbor::{Decode, Encode};
use rand_core::{CryptoRng, RngCore};

use crate::key::{Encrypted, KeyError, PartSecret, RecoverySecretKey, encrypt};

/// Most bytes of an encoded blob: it fits a frame of the door.
pub const MAX_BLOB: usize = 16 * 1024 * 1024;
/// Most shares in a blob; a cluster has as many keys at most.
pub const MAX_KEYS: usize = 10_000;
/// Most bytes of a data key as KMS encrypted it.
const MAX_DATA_KEY: usize = 6 * 1024;
/// Most governors, as in a manifest.
const MAX_PARTS: usize = 32;

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// A node's shares of keys.
    #[n(0)]
    Shares,
}

/// One share in a blob, by what is public about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct SealedKey {
    /// The key.
    #[n(0)]
    pub name: KeyName,
    /// The epoch of its shares.
    #[n(1)]
    pub epoch: u64,
    /// The key's scheme.
    #[n(2)]
    pub scheme: Scheme,
    /// The transcript of the run that made the shares.
    #[n(3)]
    pub transcript: Hash32,
}

/// What a blob is, and what its content is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Header {
    /// Format version, 1.
    #[n(0)]
    pub version: u64,
    /// The cluster.
    #[n(1)]
    pub genesis: GenesisId,
    /// Its incarnation.
    #[n(2)]
    pub incarnation: Incarnation,
    /// Whose.
    #[n(3)]
    pub node: NodeName,
    /// The boot that sealed it.
    #[n(4)]
    pub boot: BootId,
    /// What it holds.
    #[n(5)]
    pub kind: Kind,
    /// How many this boot has sealed before.
    #[n(6)]
    pub number: u64,
    /// How many entries the boot had applied.
    #[n(7)]
    pub size: u64,
    /// The root over their records.
    #[n(8)]
    pub root: Hash32,
    /// The shares that it holds, in order.
    #[n(9)]
    pub keys: Vec<SealedKey>,
    /// The data key as KMS encrypted it, where one is needed beside the recovery secret.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub data_key: Option<Vec<u8>>,
    /// Fresh for each blob.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub salt: [u8; 32],
}

impl Header {
    /// A hash of every byte of it.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        tagged_hash("casemate/sealed-header/v1", &[&cbor::encode(self)])
    }
}

/// A governor's part of a blob's recovery secret.
pub type Part = Encrypted;

/// A sealed blob: a public file that only a recovery opens.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SealedBlob {
    /// What it is.
    #[n(0)]
    pub header: Header,
    /// One part for each governor, in the manifest's order.
    #[n(1)]
    pub parts: Vec<Part>,
    /// Commitments to the polynomial that the parts lie on, constant first: what a part proves
    /// itself against.
    #[n(2)]
    pub commitments: Vec<Commitment>,
    /// The shares, encrypted.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
    /// By the sealing boot's Ed25519 key over [`Self::signing_bytes`]: so that nobody can put shares
    /// of their own choice into a recovery.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A compressed Edwards point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Commitment(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl SealedBlob {
    /// Decodes a blob within its caps. Nothing in it is believed yet.
    ///
    /// # Errors
    /// If it is malformed or too large in a part.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let blob: Self = cbor::decode(bytes, MAX_BLOB)?;
        let too_large = |size, max| Err(CborError::TooLarge { size, max });
        let Header { keys, data_key, .. } = &blob.header;
        if keys.len() > MAX_KEYS {
            return too_large(keys.len(), MAX_KEYS);
        }
        if let Some(data_key) = data_key.as_ref().filter(|key| key.len() > MAX_DATA_KEY) {
            return too_large(data_key.len(), MAX_DATA_KEY);
        }
        if blob.parts.len() > MAX_PARTS || blob.commitments.len() > MAX_PARTS {
            return too_large(blob.parts.len().max(blob.commitments.len()), MAX_PARTS);
        }
        Ok(blob)
    }

    /// Its file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// What its ciphertext is bound to: everything outside it.
    #[must_use]
    pub fn outside(header: &Header, parts: &[Part], commitments: &[Commitment]) -> Hash32 {
        tagged_hash(
            "casemate/sealed-outside/v1",
            &[
                header.hash().as_bytes(),
                &cbor::encode(&parts.to_vec()),
                &cbor::encode(&commitments.to_vec()),
            ],
        )
    }

    /// What names it, and what its boot signs a hash of: every byte but the signature.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let outside = Self::outside(&self.header, &self.parts, &self.commitments);
        tagged_hash("casemate/sealed-blob/v1", &[outside.as_bytes(), &self.ciphertext])
    }

    /// The bytes that the sealing boot signs.
    #[must_use]
    pub fn signing_bytes(hash: &Hash32) -> Vec<u8> {
        [b"casemate/sealed-blob/v1\0".as_slice(), hash.as_bytes()].concat()
    }

    /// Whether the boot with this Ed25519 key sealed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &[u8; 32]) -> bool {
        let message = Self::signing_bytes(&self.hash());
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        ed25519_dalek::VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(&message, &signature).is_ok())
    }
}

fn part_binding(header: &Header, governor: u16) -> (Vec<u8>, [u8; 2]) {
    let info = [b"casemate/recovery-part/v1\0".as_slice(), header.hash().as_bytes()].concat();
    (info, governor.to_be_bytes())
}

impl Header {
    /// Encrypts the part of the governor at this place of the manifest.
    ///
    /// # Errors
    /// If the governor's key is none.
    pub fn encrypt_part(
        &self,
        governor: u16,
        key: &RecoveryPublicKey,
        part: &PartSecret,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Part, KeyError> {
        let (info, aad) = part_binding(self, governor);
        encrypt(key, (&info, &aad), part, rng)
    }

    /// Decrypts the part of the governor at this place.
    ///
    /// # Errors
    /// If it is not this key's, or of another blob or place.
    pub(crate) fn decrypt_part(
        &self,
        governor: u16,
        key: &RecoverySecretKey,
        part: &Part,
    ) -> Result<PartSecret, KeyError> {
        let (info, aad) = part_binding(self, governor);
        key.decrypt((&info, &aad), part)
    }
}
