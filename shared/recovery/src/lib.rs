//! What nodes seal for a cold recovery, and how governors release it.
//!
//! An enclave seals its key shares under a secret that it makes for that one blob, splits the secret
//! k of m, encrypts one part to each governor and forgets it. What comes out is a public file, the
//! [`SealedBlob`]. Only a recovery certificate opens it again: it names the boot and the blob, and each
//! governor's tool turns its part into a [`Release`], encrypted to that boot's recovery key.
//!
//! ```text
//! sealing     part of governor i     HPKE to governor i's key     info: part ‖ header      aad: i
//! recovery    the same part          HPKE to the boot's key       info: release ‖ header   aad: certificate ‖ blob ‖ boot ‖ i
//! ```
//!
//! Here are the outer forms and the governors' side, which hold no share and open no blob. How the
//! secret is made and split, and what is inside a blob, is `casemate-seal`'s.
//!
//! HPKE (RFC 9180) is `hpke`'s: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, base mode.
//! It does not say who encrypted; a part proves itself against the commitments in its blob, and a blob is
//! signed by the boot that sealed it.

pub mod blob;
pub mod key;
pub mod release;

pub use blob::{Header, Kind, MAX_BLOB, MAX_KEYS, Part, SealedBlob, SealedKey};
pub use key::{Encrypted, KeyError, PartSecret, RecoverySecretKey, encrypt};
pub use release::{MAX_RELEASE, Release, ReleaseError};
