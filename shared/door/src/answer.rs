//! What a node answers, with the proofs that make it worth believing.

use casemate_audit::InclusionReceipt;
use casemate_ledger::Verdict;
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, CredentialId, Denial, GenesisId, GrantId, Millis, UnixMillis};
use minicbor::{Decode, Encode};

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Signed, and shown to be in the log.
    #[n(0)]
    Signed(#[n(0)] Box<Signed>),
    /// Denied, in the node's own hand.
    #[n(1)]
    Denied(#[n(0)] Box<SignedDenial>),
    /// Waits for approvals or for a delay.
    #[n(2)]
    Pending(#[n(0)] PendingAnswer),
    /// Recorded, for anything but a request: what came of it.
    #[n(3)]
    Accepted {
        /// The entry's index.
        #[n(0)]
        index: u64,
        /// What was decided.
        #[n(1)]
        verdict: Verdict,
    },
    /// Allowed and perhaps charged, but too late to be signed ever; or a pending request that
    /// waited too long. A new try needs a new id. In the node's own hand, since a client that
    /// believes it pays again.
    #[n(4)]
    Expired(#[n(0)] Box<SignedDenial>),
    /// Signed so long ago that the node no longer has the record at hand; the auditors' store has.
    #[n(5)]
    Recorded {
        /// The entry that allowed it.
        #[n(0)]
        index: u64,
        /// The entry that holds the signature.
        #[n(1)]
        signed_index: u64,
    },
    /// No request of that id is remembered. The reply to a query.
    #[n(6)]
    Unknown,
    /// Not now.
    #[n(7)]
    Busy {
        /// When to ask again.
        #[n(0)]
        retry_after: Millis,
    },
}

/// A signature with its proofs. The only way in which a signature leaves a node (I10).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Signed {
    /// What was signed.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// 65 bytes r‖s‖v (v 0 or 1) for ECDSA, 64 for Ed25519.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The key that it verifies under: 33 bytes SEC1 or 32 bytes Ed25519.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// For a transaction: what to send to the chain. Left out in the reply to a query, which has
    /// no body to make it of.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub raw_transaction: Option<Vec<u8>>,
    /// The proofs.
    #[n(4)]
    pub receipt: Receipt,
}

/// Proofs that the record of the verdict and the record of the signature are in the log, under one
/// checkpoint that at least t boots cosigned.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// The record that allowed the request: its own, or that of the last approval it needed.
    #[n(0)]
    pub allowed: InclusionReceipt,
    /// The record of the signature.
    #[n(1)]
    pub signed: InclusionReceipt,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PendingAnswer {
    /// The approval document's hash: what approvers sign.
    #[n(0)]
    pub document: Hash32,
    /// The grant that asks for approval, where the node still knows.
    #[n(1)]
    pub grant: Option<GrantId>,
    /// Approvals so far that count.
    #[n(2)]
    pub have: u64,
    /// Approvals needed; 0 where the node no longer knows.
    #[n(3)]
    pub need: u64,
    /// Not before this time even with all approvals.
    #[n(4)]
    pub not_before: Option<UnixMillis>,
    /// When it expires.
    #[n(5)]
    pub expires: UnixMillis,
}

/// A denial signed by the boot that gives it, so that a host cannot make one up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedDenial {
    /// Who asked, where that is known.
    #[n(0)]
    pub credential: Option<CredentialId>,
    /// What was asked: SHA-256 of a request's or approval's body, a change's or statement's id.
    #[n(1)]
    pub subject: Hash32,
    /// The denial.
    #[n(2)]
    pub denial: Denial,
    /// The node's time.
    #[n(3)]
    pub at: UnixMillis,
    /// The entry that holds it, if it was recorded.
    #[n(4)]
    pub index: Option<u64>,
    /// The boot that says so.
    #[n(5)]
    pub boot: BootId,
    /// 64 bytes, Ed25519 by the boot's key over [`Self::signing_bytes`].
    #[cbor(n(6), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl SignedDenial {
    /// What the boot signs: everything but the signature.
    #[must_use]
    pub fn signing_bytes(&self, genesis: &GenesisId) -> Vec<u8> {
        let bare = Self { signature: [0; 64], ..self.clone() };
        let hash = tagged_hash(
            "casemate/denial/v1",
            &[genesis.as_bytes(), &casemate_proto::cbor::encode(&bare)],
        );
        [b"casemate/denial/v1\0".as_slice(), hash.as_bytes()].concat()
    }

    /// Whether the boot with this Ed25519 key signed it.
    #[must_use]
    pub fn verify(&self, genesis: &GenesisId, boot_key: &[u8; 32]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        ed25519_dalek::VerifyingKey::from_bytes(boot_key)
            .is_ok_and(|key| key.verify_strict(&self.signing_bytes(genesis), &signature).is_ok())
    }
}
