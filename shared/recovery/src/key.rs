//! Keys of governors and boots, and encryption to them.

use core::fmt;

use casemate_proto::recovery::RecoveryPublicKey;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use minicbor::{Decode, Encode};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::ChaCha20Poly1305;

/// Bytes of a ciphertext beyond its plaintext's.
const TAG: usize = 16;

/// A part of a recovery secret: a scalar of 32 bytes. Meaningless by itself; k of them are the secret.
pub struct PartSecret(Zeroizing<[u8; 32]>);

impl PartSecret {
    /// From its bytes.
    #[must_use]
    pub const fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }
    /// Its bytes.
    #[must_use]
    pub fn dangerous_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PartSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartSecret(<redacted>)")
    }
}

/// The secret half of a [`RecoveryPublicKey`]: a governor's, kept offline; or a boot's, which is made
/// for one recovery and dies with the boot.
pub struct RecoverySecretKey {
    bytes: Zeroizing<[u8; 32]>,
    public: RecoveryPublicKey,
}

impl fmt::Debug for RecoverySecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoverySecretKey({:?}, <redacted>)", self.public)
    }
}

/// Why something is not encrypted or decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The public key is none.
    #[error("the public key is no X25519 key of full order")]
    PublicKey,
    /// The secret key is none.
    #[error("the secret key is no X25519 key")]
    SecretKey,
    /// The library refuses to encrypt.
    #[error("it cannot be encrypted")]
    Encrypt,
    /// Encrypted to another key, bound to something else, or changed.
    #[error("it was encrypted to another key or for another purpose, or was changed")]
    Decrypt,
}

/// A part as it is encrypted to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Encrypted {
    /// HPKE's encapsulated key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub encapsulated: [u8; 32],
    /// The part and a tag.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub ciphertext: [u8; 32 + TAG],
}

/// Encrypts a part to a key. `info` says what it is for and `aad` what it is bound to.
///
/// # Errors
/// If the key or the library refuses.
pub fn encrypt(
    to: &RecoveryPublicKey,
    (info, aad): (&[u8], &[u8]),
    part: &PartSecret,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Encrypted, KeyError> {
    let to = <Kem as hpke::Kem>::PublicKey::from_bytes(to.as_bytes())
        .map_err(|_| KeyError::PublicKey)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal::<Aead, Kdf, Kem, _>(
        &OpModeS::Base,
        &to,
        info,
        part.dangerous_bytes(),
        aad,
        rng,
    )
    .map_err(|_| KeyError::Encrypt)?;
    let ciphertext = ciphertext.try_into().map_err(|_| KeyError::Encrypt)?;
    Ok(Encrypted { encapsulated: encapsulated.to_bytes().into(), ciphertext })
}

impl RecoverySecretKey {
    /// A fresh key.
    ///
    /// # Errors
    /// Never with randomness worth the name.
    pub fn generate(rng: &mut (impl RngCore + CryptoRng)) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self::from_bytes(bytes)
    }

    /// From its 32 bytes.
    ///
    /// # Errors
    /// If they are no key.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(bytes.as_ref())
            .map_err(|_| KeyError::SecretKey)?;
        let public: [u8; 32] = Kem::sk_to_pk(&secret).to_bytes().into();
        let public = RecoveryPublicKey::new(public).ok_or(KeyError::SecretKey)?;
        Ok(Self { bytes, public })
    }

    /// The bytes, for the file that a governor keeps.
    #[must_use]
    pub fn dangerous_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> RecoveryPublicKey {
        self.public
    }

    /// Decrypts a part.
    ///
    /// # Errors
    /// If it is not encrypted to this key, for this and bound to this.
    pub fn decrypt(
        &self,
        (info, aad): (&[u8], &[u8]),
        encrypted: &Encrypted,
    ) -> Result<PartSecret, KeyError> {
        let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(self.bytes.as_ref())
            .map_err(|_| KeyError::SecretKey)?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&encrypted.encapsulated)
            .map_err(|_| KeyError::Decrypt)?;
        let plain = hpke::single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            &secret,
            &encapsulated,
            info,
            &encrypted.ciphertext,
            aad,
        )
        .map(Zeroizing::new)
        .map_err(|_| KeyError::Decrypt)?;
        let mut part = Zeroizing::new([0; 32]);
        if plain.len() != part.len() {
            return Err(KeyError::Decrypt);
        }
        part.copy_from_slice(&plain);
        Ok(PartSecret(part))
    }
}
