//! What can be read of a node, and replies that a host cannot make up.
//!
//! A reader chooses a nonce. The reply is signed by the boot's key, which the reader knows from
//! an attestation document over a nonce of its own ([`Query::Attest`]); so what a parent shows of
//! its enclave is either what the enclave said, and said now, or refused.

use casemate_audit::InclusionReceipt;
use casemate_proto::governance::ChangeEnvelope;
use casemate_proto::hash::{sha256, tagged_hash};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, Measurement};
use casemate_proto::{
    BootId, CredentialId, GenesisId, Incarnation, KeyName, NodeName, PrincipalId, RequestId,
    Scheme, UnixMillis,
};
use minicbor::{Decode, Encode};

/// Most bytes of an encoded [`Reply`].
pub const MAX_REPLY: usize = 8 * 1024 * 1024;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// Attest: a document over the asker's nonce and this boot's keys.
    #[n(0)]
    Attest {
        /// The asker's, fresh.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 32],
    },
    /// The cluster as this node has applied it.
    #[n(1)]
    Cluster {
        /// The asker's, fresh.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 32],
    },
    /// The live keys with their proofs.
    #[n(2)]
    Keys {
        /// The asker's, fresh.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 32],
    },
    /// The requests that wait for approvals.
    #[n(3)]
    PendingRequests {
        /// The asker's, fresh.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 32],
    },
}

/// What is replied.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// To [`Query::Attest`]: the boot whose keys the document binds, by
    /// [`BootRecord::user_data`] under the genesis id; its `evidence` is that document, and the
    /// document's nonce is the asker's.
    #[n(0)]
    Attested(#[n(0)] Box<BootRecord>),
    /// To [`Query::Cluster`].
    #[n(1)]
    Cluster(#[n(0)] Box<ClusterView>),
    /// To [`Query::Keys`].
    #[n(2)]
    Keys(#[n(0)] Vec<KeyView>),
    /// To [`Query::PendingRequests`].
    #[n(3)]
    PendingRequests(#[n(0)] Vec<PendingRequestView>),
}

/// A reply in its boot's hand.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedReply {
    /// An encoded [`Reply`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub reply: Vec<u8>,
    /// The boot.
    #[n(1)]
    pub boot: BootId,
    /// 64 bytes, Ed25519 by the boot's key over [`Self::signing_bytes`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl SignedReply {
    /// What the boot signs: genesis, the asker's nonce, its own id and the reply.
    #[must_use]
    pub fn signing_bytes(
        genesis: &GenesisId,
        nonce: &[u8; 32],
        boot: &BootId,
        reply: &[u8],
    ) -> Vec<u8> {
        let hash = tagged_hash(
            "casemate/reply/v1",
            &[genesis.as_bytes(), nonce, boot.as_bytes(), &sha256(reply)],
        );
        [b"casemate/reply/v1\0".as_slice(), hash.as_bytes()].concat()
    }

    /// The reply, if the boot with this Ed25519 key gave it for this nonce.
    #[must_use]
    pub fn open(
        &self,
        genesis: &GenesisId,
        nonce: &[u8; 32],
        boot_key: &[u8; 32],
    ) -> Option<Reply> {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        let message = Self::signing_bytes(genesis, nonce, &self.boot, &self.reply);
        let key = ed25519_dalek::VerifyingKey::from_bytes(boot_key).ok()?;
        key.verify_strict(&message, &signature).ok()?;
        casemate_proto::cbor::decode(&self.reply, MAX_REPLY).ok()
    }
}

/// The cluster as a node has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ClusterView {
    /// Which cluster.
    #[n(0)]
    pub genesis: GenesisId,
    /// Its incarnation.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The node that says this.
    #[n(2)]
    pub node: NodeName,
    /// Its own time.
    #[n(3)]
    pub now: UnixMillis,
    /// The ledger's time.
    #[n(4)]
    pub ledger_time: UnixMillis,
    /// Entries applied.
    #[n(5)]
    pub size: u64,
    /// The tree's root at that size.
    #[n(6)]
    pub root: Hash32,
    /// Version of `apply`.
    #[n(7)]
    pub version: u64,
    /// Whether governance confirmed the genesis.
    #[n(8)]
    pub confirmed: bool,
    /// The newest accepted governance change; the genesis id before the first.
    #[n(9)]
    pub change_head: Hash32,
    /// The policy in force.
    #[n(10)]
    pub policy: Option<Hash32>,
    /// Changes that wait.
    #[n(11)]
    pub pending_changes: Vec<PendingChangeView>,
    /// Freezes in force.
    #[n(12)]
    pub freezes: Vec<FreezeView>,
    /// Each node's current boot, in the roster's order.
    #[n(13)]
    pub boots: Vec<BootView>,
    /// Accepted images.
    #[n(14)]
    pub images: Vec<Measurement>,
}

/// A change that waits for its delay.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PendingChangeView {
    /// Its id.
    #[n(0)]
    pub id: Hash32,
    /// The change.
    #[n(1)]
    pub envelope: ChangeEnvelope,
    /// The entry that proposed it.
    #[n(2)]
    pub index: u64,
    /// When somebody outside showed that it was seen; the delay counts from then.
    #[n(3)]
    pub seen_at: Option<UnixMillis>,
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FreezeView {
    /// Its id, which an unfreeze names.
    #[n(0)]
    pub id: Hash32,
    /// Who froze; left out when the dead man's time ran out.
    #[n(1)]
    pub by: Option<CredentialId>,
    /// When it was applied.
    #[n(2)]
    pub at: UnixMillis,
}

/// A node's current boot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BootView {
    /// The node.
    #[n(0)]
    pub node: NodeName,
    /// Its boot.
    #[n(1)]
    pub boot: BootId,
    /// The boot's Ed25519 key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// What was attested of its image.
    #[n(3)]
    pub measurement: Measurement,
    /// When it was admitted.
    #[n(4)]
    pub admitted: UnixMillis,
    /// Whether the replying node reaches it.
    #[n(5)]
    pub reachable: bool,
}

/// A key. A host cannot show a false one: the record that made it live is proved (I13).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyView {
    /// Its name.
    #[n(0)]
    pub name: KeyName,
    /// Its scheme.
    #[n(1)]
    pub scheme: Scheme,
    /// Left out while it is being generated.
    #[n(2)]
    pub live: Option<LiveKeyView>,
}

/// What is public about a live key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LiveKeyView {
    /// 33 bytes SEC 1 or 32 bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// For derivation.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub chain_code: [u8; 32],
    /// The current epoch of its shares.
    #[n(2)]
    pub epoch: u64,
    /// The entry that made this epoch live.
    #[n(3)]
    pub index: u64,
    /// The proof of that entry's record, while the node has it at hand; the auditors' store has
    /// every record.
    #[n(4)]
    pub receipt: Option<InclusionReceipt>,
    /// Nodes whose current boot holds no share of it yet.
    #[n(5)]
    pub without_share: Vec<NodeName>,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PendingRequestView {
    /// Whose.
    #[n(0)]
    pub credential: CredentialId,
    /// Which.
    #[n(1)]
    pub request_id: RequestId,
    /// Who asked.
    #[n(2)]
    pub principal: PrincipalId,
    /// Its body.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// The approval document's hash: what approvers sign.
    #[n(4)]
    pub document: Hash32,
    /// Approvals so far.
    #[n(5)]
    pub have: u64,
    /// Who approved.
    #[n(6)]
    pub approved_by: Vec<PrincipalId>,
    /// When it expires.
    #[n(7)]
    pub expires: UnixMillis,
}
