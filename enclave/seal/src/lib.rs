//! Sealing: a node's key shares as a blob that only a recovery opens. Bytes and randomness in, bytes
//! out.
//!
//! ```text
//! secret      a fresh scalar for each blob, split k of m (Feldman) and forgotten
//! parts       each governor's, encrypted to it (HPKE): casemate-recovery
//! key         HKDF-SHA256(salt, 1 ‖ data key ‖ secret, or 0 ‖ secret; info: header)
//! ciphertext  ChaCha20-Poly1305(key, shares; aad: header, parts and commitments)
//! signature   by the boot that seals, whose key the ledger knows
//! ```
//!
//! The secret exists in the enclave for as long as [`seal`] runs. Afterwards nobody has it: not the
//! host, which has the blob; not KMS, whose data key is half of what the key is made of; not another
//! enclave of the same image, nor this one. [`open`] puts it together again from k parts that governors
//! released to one boot, and asks for a [`RecoveryGranted`], which only a certificate that the
//! governance quorum signed gives.
//!
//! **I1.** A share gets into a [`SealableShare`] where it is made and never out of it but encrypted: the
//! type has no accessor. An [`OpenedShare`] comes out of [`open`] only.
//!
//! The sharing is `frost-core`'s dealer (Feldman's scheme over edwards25519), the rest RustCrypto's.
//!
//! [`RecoveryGranted`]: casemate_proto::recovery::RecoveryGranted

mod content;
mod envelope;
mod error;
mod open;
mod seal;
mod share;
mod split;

pub use envelope::DataKey;
pub use error::{OpenError, SealError};
pub use open::{Opening, open};
pub use seal::{Sealing, seal};
pub use share::{OpenedShare, SealableShare};
