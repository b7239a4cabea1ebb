//! Replies to queries: `signed_reply`, the strict CBOR that a boot signed for the asker's nonce, and the
//! same for people beside it. A program reads `signed_reply` ([`read`]) and opens it with the
//! boot's key; whatever else is there, it does not believe.

use casemate_door::query::{LiveKeyView, MAX_REPLY};
use casemate_door::{
    BootView, ClusterView, FreezeView, KeyView, PendingChangeView, PendingRequestView, Reply,
    SignedReply,
};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, Measurement};
use casemate_proto::{
    BootId, GenesisId, Incarnation, KeyName, NodeName, PrincipalId, RequestId, Scheme, cbor,
};
use casemate_tx::evm_address_from_sec1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::{ReadError, parse};
use crate::receipt::InclusionJson;
use crate::text::{Credential, Hex, Time};
use crate::{MAX_REPLY_BODY, route};

/// Most bytes of an encoded signed reply: the reply, and what is around it.
pub const MAX_SIGNED_REPLY: usize = MAX_REPLY + 256;

/// What can be asked of a node under a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// `/v1/attestation`.
    Attestation,
    /// `/v1/cluster`.
    Cluster,
    /// `/v1/keys`.
    Keys,
    /// `/v1/requests`.
    PendingRequests,
}

impl ReplyKind {
    /// Where it is asked.
    #[must_use]
    pub const fn route(self) -> &'static str {
        match self {
            Self::Attestation => route::ATTESTATION,
            Self::Cluster => route::CLUSTER,
            Self::Keys => route::KEYS,
            Self::PendingRequests => route::REQUESTS,
        }
    }
}

/// A reply that cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the enclave's reply is not one to this query")]
pub struct NotAReply;

/// The body for a signed reply to a query of this kind.
///
/// # Errors
/// If it holds no reply, or one to another query.
pub fn body(kind: ReplyKind, signed: &SignedReply) -> Result<Vec<u8>, NotAReply> {
    let signed_reply = Hex(cbor::encode(signed));
    let reply: Reply = cbor::decode(&signed.reply, MAX_REPLY).map_err(|_| NotAReply)?;
    Ok(match (kind, reply) {
        (ReplyKind::Attestation, Reply::Attested(record)) => {
            crate::to_json(&AttestationJson { boot: AttestedBootJson::from(*record), signed_reply })
        }
        (ReplyKind::Cluster, Reply::Cluster(view)) => {
            crate::to_json(&ClusterReplyJson { cluster: ClusterJson::from(*view), signed_reply })
        }
        (ReplyKind::Keys, Reply::Keys(keys)) => {
            let keys = keys.into_iter().map(KeyJson::from).collect();
            crate::to_json(&KeysJson { keys, signed_reply })
        }
        (ReplyKind::PendingRequests, Reply::PendingRequests(requests)) => {
            let requests = requests.into_iter().map(PendingRequestJson::from).collect();
            crate::to_json(&PendingRequestsJson { requests, signed_reply })
        }
        _ => return Err(NotAReply),
    })
}

/// The signed reply in a body, not yet opened: [`SignedReply::open`] checks it.
///
/// # Errors
/// If the body is too large or malformed.
pub fn read(body: &[u8]) -> Result<SignedReply, ReadError> {
    #[derive(Deserialize)]
    struct Wire {
        signed_reply: Hex,
    }
    if body.len() > MAX_REPLY_BODY {
        return Err(ReadError::TooLarge { size: body.len(), max: MAX_REPLY_BODY });
    }
    let Wire { signed_reply } = parse(body)?;
    cbor::decode(&signed_reply.0, MAX_SIGNED_REPLY)
        .map_err(|error| ReadError::Cbor { field: "signed_reply", error })
}

/// The body of `GET /v1/attestation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AttestationJson {
    /// The boot, and the document that binds it.
    pub boot: AttestedBootJson,
    /// Strict CBOR of a signed reply; what a program reads.
    pub signed_reply: Hex,
}

/// A boot, and the document that binds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AttestedBootJson {
    /// Its id.
    #[schema(value_type = String)]
    pub id: BootId,
    /// The node that it is a boot of.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Its Ed25519 key.
    pub key: Hex,
    /// Its channel's static key (X25519).
    pub channel_key: Hex,
    /// Its own nonce, made when it booted; the asker's is in the document.
    pub nonce: Hex,
    /// The highest version of `apply` that its image has.
    pub apply_version: u64,
    /// The attestation document (COSE_Sign1).
    pub document: Hex,
}

impl From<BootRecord> for AttestedBootJson {
    fn from(record: BootRecord) -> Self {
        Self {
            id: record.id(),
            key: Hex::from(record.key),
            channel_key: Hex::from(record.channel_key),
            nonce: Hex::from(record.nonce),
            apply_version: record.apply_version,
            document: Hex(record.evidence),
            node: record.node,
        }
    }
}

/// The body of `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClusterReplyJson {
    /// The cluster as the node has applied it.
    pub cluster: ClusterJson,
    /// Strict CBOR of a signed reply; what a program reads.
    pub signed_reply: Hex,
}

/// The cluster as a node has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClusterJson {
    /// Which cluster.
    #[schema(value_type = String)]
    pub genesis_id: GenesisId,
    /// Its incarnation.
    #[schema(value_type = u64)]
    pub incarnation: Incarnation,
    /// The node that says this.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Its own time.
    pub now: Time,
    /// The ledger's time.
    pub ledger_time: Time,
    /// Entries applied.
    pub size: u64,
    /// The tree's root at that size.
    #[schema(value_type = String)]
    pub root: Hash32,
    /// Version of `apply`.
    pub version: u64,
    /// Whether governance confirmed the genesis.
    pub confirmed: bool,
    /// The newest accepted change; the genesis id before the first.
    #[schema(value_type = String)]
    pub change_head: Hash32,
    /// The hash of the policy in force.
    #[schema(value_type = Option<String>)]
    pub policy: Option<Hash32>,
    /// Changes that wait.
    pub pending_changes: Vec<PendingChangeJson>,
    /// Freezes in force.
    pub freezes: Vec<FreezeJson>,
    /// Each node's current boot.
    pub boots: Vec<BootJson>,
    /// Accepted images.
    pub images: Vec<MeasurementJson>,
}

impl From<ClusterView> for ClusterJson {
    fn from(view: ClusterView) -> Self {
        Self {
            genesis_id: view.genesis,
            incarnation: view.incarnation,
            node: view.node,
            now: Time(view.now),
            ledger_time: Time(view.ledger_time),
            size: view.size,
            root: view.root,
            version: view.version,
            confirmed: view.confirmed,
            change_head: view.change_head,
            policy: view.policy,
            pending_changes: view.pending_changes.into_iter().map(Into::into).collect(),
            freezes: view.freezes.into_iter().map(Into::into).collect(),
            boots: view.boots.into_iter().map(Into::into).collect(),
            images: view.images.iter().map(Into::into).collect(),
        }
    }
}

/// A change that waits for its delay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PendingChangeJson {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Hash32,
    /// What is changed: `set_policy`, `create_key`, …
    pub change: String,
    /// The change with what it is bound to: strict CBOR.
    pub envelope: Hex,
    /// The entry that proposed it.
    pub index: u64,
    /// When somebody outside showed that it was seen.
    pub seen_at: Option<Time>,
}

impl From<PendingChangeView> for PendingChangeJson {
    fn from(view: PendingChangeView) -> Self {
        Self {
            id: view.id,
            change: view.envelope.change.name().to_owned(),
            envelope: Hex(cbor::encode(&view.envelope)),
            index: view.index,
            seen_at: view.seen_at.map(Time),
        }
    }
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FreezeJson {
    /// Its id, which an unfreeze names.
    #[schema(value_type = String)]
    pub id: Hash32,
    /// Who froze; null when the dead man's time ran out.
    pub by: Option<Credential>,
    /// When.
    pub at: Time,
}

impl From<FreezeView> for FreezeJson {
    fn from(view: FreezeView) -> Self {
        Self { id: view.id, by: view.by.map(Credential), at: Time(view.at) }
    }
}

/// A node's current boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BootJson {
    /// The node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Its boot.
    #[schema(value_type = String)]
    pub boot: BootId,
    /// The boot's Ed25519 key.
    pub key: Hex,
    /// What was attested of its image.
    pub measurement: MeasurementJson,
    /// When it was admitted.
    pub admitted: Time,
    /// Whether the replying node reaches it.
    pub reachable: bool,
}

impl From<BootView> for BootJson {
    fn from(view: BootView) -> Self {
        Self {
            node: view.node,
            boot: view.boot,
            key: Hex::from(view.key),
            measurement: (&view.measurement).into(),
            admitted: Time(view.admitted),
            reachable: view.reachable,
        }
    }
}

/// An image's measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MeasurementJson {
    /// The whole image.
    pub pcr0: Hex,
    /// Kernel and boot ramdisk.
    pub pcr1: Hex,
    /// The application.
    pub pcr2: Hex,
}

impl From<&Measurement> for MeasurementJson {
    fn from(measurement: &Measurement) -> Self {
        Self {
            pcr0: Hex::from(measurement.pcr0),
            pcr1: Hex::from(measurement.pcr1),
            pcr2: Hex::from(measurement.pcr2),
        }
    }
}

/// The body of `GET /v1/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeysJson {
    /// The keys.
    pub keys: Vec<KeyJson>,
    /// Strict CBOR of a signed reply; what a program reads.
    pub signed_reply: Hex,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyJson {
    /// Its name.
    #[schema(value_type = String)]
    pub name: KeyName,
    /// `ecdsa-secp256k1`, `ed25519`, …
    pub scheme: String,
    /// Null while it is being generated.
    pub live: Option<LiveKeyJson>,
}

/// What is public about a live key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LiveKeyJson {
    /// 33 bytes SEC 1 or 32 bytes.
    pub public_key: Hex,
    /// The EVM address in lower case, of a secp256k1 key.
    pub address: Option<Hex>,
    /// For derivation.
    pub chain_code: Hex,
    /// The current epoch of its shares.
    pub epoch: u64,
    /// The entry that made this epoch live.
    pub index: u64,
    /// The proof of that entry's record; null where the node no longer has it at hand.
    pub receipt: Option<InclusionJson>,
    /// Nodes whose current boot holds no share of it yet.
    #[schema(value_type = Vec<String>)]
    pub without_share: Vec<NodeName>,
}

impl From<KeyView> for KeyJson {
    fn from(view: KeyView) -> Self {
        let scheme = view.scheme;
        Self {
            name: view.name,
            scheme: scheme.name().to_owned(),
            live: view.live.map(|live| live_key(scheme, live)),
        }
    }
}

fn live_key(scheme: Scheme, live: LiveKeyView) -> LiveKeyJson {
    let address = match scheme {
        Scheme::EcdsaSecp256k1 => evm_address_from_sec1(&live.public_key).ok(),
        _ => None,
    };
    LiveKeyJson {
        address: address.map(|address| Hex::from(address.0)),
        public_key: Hex(live.public_key),
        chain_code: Hex::from(live.chain_code),
        epoch: live.epoch,
        index: live.index,
        // one that cannot be shown is still in the signed reply, where a client refuses it
        receipt: live.receipt.as_ref().and_then(|receipt| InclusionJson::try_from(receipt).ok()),
        without_share: live.without_share,
    }
}

/// The body of `GET /v1/requests`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PendingRequestsJson {
    /// The requests that wait.
    pub requests: Vec<PendingRequestJson>,
    /// Strict CBOR of a signed reply; what a program reads.
    pub signed_reply: Hex,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PendingRequestJson {
    /// Whose.
    pub credential: Credential,
    /// Which.
    #[schema(value_type = String)]
    pub request_id: RequestId,
    /// Who asked.
    #[schema(value_type = String)]
    pub principal: PrincipalId,
    /// Its body, as it was stamped; null where it is no text.
    pub body: Option<String>,
    /// The approval document's hash: what approvers sign.
    #[schema(value_type = String)]
    pub document: Hash32,
    /// Approvals so far.
    pub have: u64,
    /// Who approved.
    #[schema(value_type = Vec<String>)]
    pub approved_by: Vec<PrincipalId>,
    /// When it expires.
    pub expires: Time,
}

impl From<PendingRequestView> for PendingRequestJson {
    fn from(view: PendingRequestView) -> Self {
        Self {
            credential: Credential(view.credential),
            request_id: view.request_id,
            principal: view.principal,
            body: String::from_utf8(view.body).ok(),
            document: view.document,
            have: view.have,
            approved_by: view.approved_by,
            expires: Time(view.expires),
        }
    }
}

/// The body of `GET /v1/genesis`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenesisJson {
    /// Its id, which names the cluster.
    #[schema(value_type = String)]
    pub genesis_id: GenesisId,
    /// The genesis record: strict CBOR. The id is a hash of it.
    pub record: Hex,
}

/// The body of `GET /v1/store`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreListing {
    /// The folder, within the store.
    pub folder: String,
    /// The names of the files in it, in order.
    pub names: Vec<String>,
    /// Where to go on, as `after`; null at the end.
    pub next: Option<String>,
}
