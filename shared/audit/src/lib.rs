//! The audit log: what a record is, the tree over the records, the checkpoints that enclaves
//! cosign, the proofs that a client keeps, and the verification of all of it offline.
//!
//! Nothing here knows the ledger. A record's entry and verdict are opaque bytes, and whoever can
//! execute them again enters through [`verify::Replay`]. Nothing here reads a clock, draws
//! randomness or does I/O: signatures are made elsewhere, over bytes from here, and files go
//! through [`store::StoreRead`] and lists of (path, bytes).
//!
//! The formats are others': RFC 6962 (and 9162) for the tree, C2SP `tlog-tiles`, `signed-note`,
//! `tlog-checkpoint` and `tlog-cosignature` for everything that is published, so that existing
//! witnesses and monitors can read it.

pub mod checkpoint;
pub mod custody;
pub mod merkle;
pub mod note;
pub mod ocsf;
pub mod receipt;
pub mod reconcile;
pub mod record;
pub mod report;
pub mod store;
pub mod tail;
pub mod tile;
pub mod tree;
pub mod verify;

pub use checkpoint::{
    Checkpoint, CheckpointError, CheckpointPolicy, CosignerSet, Origin, VerifiedCheckpoint,
    verify_checkpoint,
};
pub use merkle::{ProofError, leaf_hash, verify_consistency, verify_inclusion};
pub use note::{NoteError, NoteKeyName, NoteSignature, SignatureKind, SignedNote, VerifierKey};
pub use receipt::{InclusionReceipt, ReceiptError, VerifiedRecord, verify_receipt};
pub use record::{Counter, Record, RecordError, RecordFields};
pub use report::{Finding, RecordedSignature, Report};
pub use store::{File, StoreRead, StoreWriter};
pub use tail::{Tail, TailError};
pub use tree::{Frontier, HashStore, Tree, TreeError};
pub use verify::{Authority, Expectations, Replay, ReplayOutcome, verify_store};
