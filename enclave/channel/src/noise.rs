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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// Cacophony's vector for these parameters, as snow carries it: payload and message.
    const MESSAGES: [(&str, &str); 6] = [
        (
            "4c756477696720766f6e204d69736573",
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573",
        ),
        (
            "4d757272617920526f746862617264",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884381cbad1f276e038c48378ffce2b65285e08d6b68aaa3629a5a8639392490e5b9bd5269c2f1e4f488ed8831161f19b7815528f8982ffe09be9b5c412f8a0db50f8814c7194e83f23dbd8d162c9326ad",
        ),
        (
            "462e20412e20486179656b",
            "c7195ffacac1307ff99046f219750fc47693e23c3cb08b89c2af808b444850a80ae475b9df0f169ae80a89be0865b57f58c9fea0d4ec82a286427402f113e4b6ae769a1d95941d49b25030",
        ),
        ("4361726c204d656e676572", "96763ed773f8e47bb3712f0e29b3060ffc956ffc146cee53d5e1df"),
        (
            "4a65616e2d426170746973746520536179",
            "3e40f15f6f3a46ae446b253bf8b1d9ffb6ed9b174d272328ff91a7e2e5c79c07f5",
        ),
        (
            "457567656e2042f6686d20766f6e2042617765726b",
            "eb3f3515110702e047a6c9da4478b6ead94873c11c0f2d710ddb3f09fce024b3a58502ae3f",
        ),
    ];

    #[test]
    fn the_published_vector_is_met_to_the_byte() {
        let prologue: [u8; 9] = bytes("4a6f686e2047616c74");
        let side = |side, secret, ephemeral| {
            let secret = Zeroizing::new(bytes(secret));
            handshake(side, &prologue, &secret, Zeroizing::new(bytes(ephemeral))).unwrap()
        };
        let mut dialler = side(
            Side::Dial,
            "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
            "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
        );
        let mut acceptor = side(
            Side::Accept,
            "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
            "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
        );
        let mut met = 0;
        for (payload, expected) in &MESSAGES[..3] {
            let payload = hex::decode(payload).unwrap();
            let mut message = [0; 300];
            let len = dialler.write_message(&payload, &mut message).unwrap();
            assert_eq!(hex::encode(&message[..len]), *expected);
            let mut read = [0; 300];
            let len = acceptor.read_message(&message[..len], &mut read).unwrap();
            assert_eq!(&read[..len], payload);
            core::mem::swap(&mut dialler, &mut acceptor);
            met += 1;
        }
        let hash = "c8e5f64e846193be2a834104c2a009868d6c9f3bd3c186299888b488b2f1f58e";
        assert_eq!(hex::encode(acceptor.get_handshake_hash()), hash);
        // after three messages the two have changed places
        let initiator = acceptor.into_stateless_transport_mode().unwrap();
        assert!(initiator.is_initiator());
        for (number, (payload, expected)) in (0_u64..).zip(&MESSAGES[3..]) {
            // the responder sends the first of them
            if number % 2 == 0 {
                let mut read = [0; 300];
                let sealed = hex::decode(expected).unwrap();
                let len = initiator.read_message(number / 2, &sealed, &mut read).unwrap();
                assert_eq!(hex::encode(&read[..len]), *payload);
            } else {
                let mut sealed = [0; 300];
                let payload = hex::decode(payload).unwrap();
                let len = initiator.write_message(number / 2, &payload, &mut sealed).unwrap();
                assert_eq!(hex::encode(&sealed[..len]), *expected);
            }
            met += 1;
        }
        assert_eq!(met, 6);
    }

    #[test]
    fn an_ephemeral_key_is_given_once() {
        let mut once = Once(Some(Zeroizing::new([7; 32])));
        let mut drawn = [0; 32];
        once.try_fill_bytes(&mut drawn).unwrap();
        assert_eq!(drawn, [7; 32]);
        assert_eq!(once.try_fill_bytes(&mut drawn), Err(Error::Rng));
        let mut other = Once(Some(Zeroizing::new([7; 32])));
        assert_eq!(other.try_fill_bytes(&mut [0; 31]), Err(Error::Rng));
    }

    #[test]
    fn a_cipher_seals_nothing_where_it_does_not_fit() {
        let cipher = ChaChaPoly::default();
        let mut small = [0; 19];
        assert_eq!(cipher.encrypt(0, b"", b"abcd", &mut small), 0);
        assert_eq!(cipher.decrypt(0, b"", &[0; 15], &mut small), Err(Error::Decrypt));
        assert_eq!(cipher.decrypt(0, b"", &[0; 36], &mut small), Err(Error::Decrypt));
    }
}
