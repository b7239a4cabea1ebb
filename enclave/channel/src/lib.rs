//! Attested, encrypted channels between enclaves (I9).
//!
//! A channel is Noise (`Noise_XX_25519_ChaChaPoly_SHA256`) between two boots, each of which shows
//! the other an attestation document made for this very handshake. The relays in between see a
//! plain greeting, then ciphertext and sizes.
//!
//! ```text
//! dialler                                                        acceptor
//!    e, Hello{version, scope, incarnation, from, to, nonce}  ->
//!                                          <-  e, ee, s, es, Answer{Hello, Proof}
//!    s, se, Proof                                            ->
//!    frames                                                 <->  frames
//! ```
//!
//! - **Greeting.** Each side says which cluster, which incarnation and which nodes it means. What
//!   does not fit is refused by name before any key is used; the handshake's hash covers it.
//! - **Proof.** A document whose nonce is the other side's fresh nonce and whose user data is a
//!   hash over the scope, the incarnation, the direction, both nodes, the boot with its keys, both
//!   nonces, and the handshake's hash so far ([`wire`] has it to the byte). So it serves one
//!   direction of one handshake, and not its own maker. The measurement, role (PCR3) and region
//!   must be those of the node that it claims, under the manifest's trust root, and its timestamp
//!   no older than [`MAX_PROOF_AGE`].
//! - **The key.** The boot's id in that hash is taken from the static key that Noise has just
//!   proved, not from anything that the peer says: a document for another key cannot match.
//! - **Frames.** Sealed under consecutive nonces, so that one that is dropped, repeated, moved or
//!   changed does not open. Long messages are split; what is put together is bounded.
//!
//! Everything here is a pure state machine: bytes, randomness, time and the capability to attest
//! are arguments. Any error ends the handshake or the channel; the caller closes the stream and
//! dials anew.

mod error;
mod frame;
mod handshake;
mod identity;
mod noise;
mod peer;
pub mod wire;

pub use error::{Broken, IdentityError, Refused};
pub use frame::{Channel, MAX_FRAME, MAX_FRAMES, MAX_MESSAGE, Opener, Sealer};
pub use handshake::{Handshake, MAX_HANDSHAKE_MESSAGE, MAX_PROOF_AGE, Progress};
pub use identity::{Expected, LocalIdentity};
pub use peer::AttestedPeer;
