//! Noise by `snow`, with keys of our own holding.
//!
//! snow's own X25519 and ChaCha20-Poly1305 leave their keys in memory when they are dropped, its
//! generator is the operating system's, and it takes a shared secret of zero. These here are the
//! same functions of the same libraries, zeroised, with the one ephemeral key given to them, and
//! with points of low order refused. What snow itself copies stays out of reach: the chaining key
//! of a finished handshake and the outputs of Diffie-Hellman on its stack.

use core::cell::Cell;

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use curve25519_dalek::montgomery::MontgomeryPoint;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use crate::wire::Side;

/// The pattern and the functions.
pub(crate) const PARAMETERS: &str = "Noise_XX_25519_ChaChaPoly_SHA256";
/// Bytes that sealing adds.
pub(crate) const TAG: usize = 16;
/// Bytes of a key.
const KEY: usize = 32;

/// A handshake of this side with these keys.
pub(crate) fn handshake(
    side: Side,
    prologue: &[u8],
    secret: &Zeroizing<[u8; KEY]>,
    ephemeral: Zeroizing<[u8; KEY]>,
) -> Result<HandshakeState, Error> {
    let parameters: NoiseParams = PARAMETERS.parse()?;
    let resolver = Resolver { ephemeral: Cell::new(Some(ephemeral)) };
    let builder = Builder::with_resolver(parameters, Box::new(resolver))
        .prologue(prologue)?
        .local_private_key(secret.as_slice())?;
    match side {
        Side::Dial => builder.build_initiator(),
        Side::Accept => builder.build_responder(),
    }
}

struct Resolver {
    ephemeral: Cell<Option<Zeroizing<[u8; KEY]>>>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(self.ephemeral.take())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::<X25519>::default()),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::<ChaChaPoly>::default()),
            _ => None,
        }
    }
}

/// The ephemeral key's bytes, once.
struct Once(Option<Zeroizing<[u8; KEY]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, wanted: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().ok_or(Error::Rng)?;
        let wanted: &mut [u8; KEY] = wanted.try_into().map_err(|_| Error::Rng)?;
        wanted.copy_from_slice(bytes.as_slice());
        Ok(())
    }
}

/// X25519 (RFC 7748).
#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; KEY]>,
    public: [u8; KEY],
}

impl X25519 {
    fn take(&mut self, secret: Zeroizing<[u8; KEY]>) {
        self.public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        self.secret = secret;
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY
    }

    fn priv_len(&self) -> usize {
        KEY
    }

    fn set(&mut self, secret: &[u8]) {
        // another length cannot come: the only caller has an array
        if let Some(secret) = secret.first_chunk() {
            self.take(Zeroizing::new(*secret));
        }
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; KEY]);
        random.try_fill_bytes(secret.as_mut_slice())?;
        self.take(secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_slice()
    }

    fn dh(&self, public: &[u8], shared: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk().ok_or(Error::Dh)?;
        let shared = shared.first_chunk_mut::<KEY>().ok_or(Error::Dh)?;
        let product = MontgomeryPoint(*public).mul_clamped(*self.secret);
        *shared = product.to_bytes();
        // a point of low order: the "shared" secret would be everybody's
        if *shared == [0; KEY] { Err(Error::Dh) } else { Ok(()) }
    }
}

/// ChaCha20-Poly1305 (RFC 8439) with Noise's nonces.
struct ChaChaPoly(ChaCha20Poly1305);

impl Default for ChaChaPoly {
    fn default() -> Self {
        Self(ChaCha20Poly1305::new(&[0; KEY].into()))
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY]) {
        self.0 = ChaCha20Poly1305::new(key.into());
    }

    /// Gives 0 where it cannot be done, which no caller takes for a sealed message.
    fn encrypt(&self, nonce: u64, associated: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let Some((body, rest)) = out.split_at_mut_checked(plain.len()) else { return 0 };
        let Some(tag_out) = rest.first_chunk_mut::<TAG>() else { return 0 };
        body.copy_from_slice(plain);
        match self.0.encrypt_in_place_detached(&nonce_of(nonce), associated, body) {
            Ok(tag) => {
                *tag_out = tag.into();
                plain.len().saturating_add(TAG)
            }
            Err(_) => {
                body.zeroize();
                0
            }
        }
    }

    fn decrypt(
        &self,
        nonce: u64,
        associated: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(body);
        self.0
            .decrypt_in_place_detached(&nonce_of(nonce), associated, out, &Tag::from(*tag))
            .map_err(|_| Error::Decrypt)?;
        Ok(body.len())
    }
}

/// 32 bits of zero, then the counter in little-endian (Noise, section 12.3).
fn nonce_of(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    for (byte, counter) in nonce.iter_mut().skip(4).zip(counter.to_le_bytes()) {
        *byte = counter;
    }
    nonce
}
