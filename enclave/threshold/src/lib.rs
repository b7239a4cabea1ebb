//! Drivers over the threshold signing libraries, without I/O: key generation, triples, signing,
//! refresh, resharing and repair.
//!
//! No threshold cryptography is written here. cait-sith (ECDSA) and FROST (Ed25519, BIP-340) are *driven*,
//! *checked* and *bounded*:
//!
//! - a run is named by a hash of everything that tells it from another ([`context`]), every message
//!   carries that name, its sender and its receiver, and nothing else reaches a library
//!   ([`message`]);
//! - a run is a state machine: messages in, messages out, time as an argument ([`run`]);
//! - what everybody must have seen alike is echoed n of n before a share can be used, and a key goes
//!   live only after test signatures that cover every holder ([`key`]);
//! - triples, presignatures and nonces move by value, are used once and die with their run
//!   ([`ecdsa::TripleStock`], I8);
//! - the one message that makes a signature possible waits for an [`Authorised`] (I4);
//! - a library that panics, never rests or never ends costs one run.
//!
//! Randomness: FROST's is an argument; cait-sith draws from the operating system itself, whose
//! generator the enclave seeds from the NSM first.

pub mod bip340;
pub mod context;
pub mod early;
pub mod ecdsa;
pub mod ed25519;
pub mod error;
pub mod frost;
pub mod key;
pub mod message;
pub mod party;
pub mod purpose;
pub mod run;

mod cait;
mod chain_code;
mod echo;
mod permit;
mod sealed;

pub use bip340::{
    Bip340KeygenRun, Bip340Public, Bip340RepairRun, Bip340SignRun, Bip340Signature, LiveBip340Key,
    PendingBip340Key, verify_bip340,
};
pub use context::{Claim, RunContext, RunId, RunRegistry, RunSpec};
pub use early::{EarlyError, EarlyMessages};
pub use ecdsa::{
    EcdsaKeygenRun, EcdsaPublic, EcdsaSignRun, EcdsaSignature, LiveEcdsaKey, PendingEcdsaKey,
    TriplePair, TripleRun, TripleStock, verify_ecdsa,
};
pub use ed25519::{
    Ed25519KeygenRun, Ed25519Public, Ed25519RepairRun, Ed25519SignRun, Ed25519Signature,
    LiveEd25519Key, PendingEd25519Key, verify_ed25519,
};
pub use error::{Abort, ConfirmError, Misbehaviour, Misuse, Refusal, RunError};
pub use key::{KeyFacts, LiveKey, PendingKey, TestSignature};
pub use message::{RunMessage, peek_run};
pub use party::{Participant, Participants, PartyId, covering_subsets};
pub use permit::Authorised;
pub use purpose::{KeyEpoch, KeyRef, Purpose, TriplePairId, bip340_subject, ed25519_subject};
pub use run::{Outgoing, Run, Step};
pub use sealed::{RecoverError, Recovered};
