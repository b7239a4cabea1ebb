//! The envelope: the key of a blob, and its content under it.

use core::fmt;

use casemate_proto::ids::Hash32;
use casemate_recovery::Header;
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// A data key of KMS: what an enclave gets for its attestation, and what of it goes into the blob.
pub struct DataKey {
    /// 32 bytes.
    pub plain: Zeroizing<[u8; 32]>,
    /// As KMS encrypted it, with the cluster, node and epoch in the encryption context.
    pub encrypted: Vec<u8>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey")
            .field("plain", &"<redacted>")
            .field("encrypted", &self.encrypted.len())
            .finish()
    }
}

/// It did not open, or could not be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// The one key of one blob.
///
/// The salt is fresh and the secret too, so that no two blobs share a key, and the nonce is zero. A data
/// key stands before the secret with a byte that says so: a blob that needs one cannot be opened as
/// one that does not.
pub(crate) struct Envelope(ChaCha20Poly1305);

impl Envelope {
    pub(crate) fn new(
        header: &Header,
        data_key: Option<&Zeroizing<[u8; 32]>>,
        secret: &Zeroizing<[u8; 32]>,
    ) -> Result<Self, Failed> {
        let mut material = Zeroizing::new(Vec::with_capacity(65));
        material.push(u8::from(data_key.is_some()));
        if let Some(data_key) = data_key {
            material.extend_from_slice(data_key.as_ref());
        }
        material.extend_from_slice(secret.as_ref());
        let info = [b"casemate/sealed-key/v1\0".as_slice(), header.hash().as_bytes()].concat();
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(&header.salt), &material)
            .expand(&info, key.as_mut())
            .map_err(|_| Failed)?;
        let key: &Key = (&*key).into();
        Ok(Self(ChaCha20Poly1305::new(key)))
    }

    /// Encrypts in place, so that no plaintext stays behind.
    pub(crate) fn seal(
        self,
        outside: &Hash32,
        mut plain: Zeroizing<Vec<u8>>,
    ) -> Result<Vec<u8>, Failed> {
        // room for the tag, or the vector would move and leave a copy
        if plain.capacity() < plain.len().saturating_add(TAG) {
            let mut roomy = Zeroizing::new(Vec::with_capacity(plain.len().saturating_add(TAG)));
            roomy.extend_from_slice(&plain);
            plain = roomy;
        }
        let tag = self
            .0
            .encrypt_in_place_detached(&Nonce::default(), outside.as_bytes(), &mut plain)
            .map_err(|_| Failed)?;
        let mut out = core::mem::take(&mut *plain);
        out.extend_from_slice(&tag);
        Ok(out)
    }

    pub(crate) fn open(
        self,
        outside: &Hash32,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        self.0
            .decrypt_in_place(&Nonce::default(), outside.as_bytes(), &mut *plain)
            .map_err(|_| Failed)?;
        Ok(plain)
    }
}

/// Bytes of a tag.
pub(crate) const TAG: usize = 16;
