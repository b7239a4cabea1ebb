//! What openraft is instantiated with, and the same things as they are named outside of it.
//!
//! A member is a *boot*: its id in openraft is the boot's 32 bytes, so a restarted node is another
//! member and brings no votes of its former life. A log entry holds a ledger entry with what travels
//! beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use casemate_ledger::{Attachment, Entry};
use casemate_proto::manifest::MAX_NODES;
use casemate_proto::{BootId, NodeName};
use minicbor::{Decode, Decoder, Encode, Encoder};

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type RaftEntry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, Member>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;

/// No term and no index goes above this, so that adding to one never overflows.
pub(crate) const MAX_COUNT: u64 = 1 << 62;

/// How openraft is instantiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = ();
    type NodeId = NodeId;
    type Node = Member;
    type Entry = RaftEntry;
    // no snapshot ever travels: see the module `machine`
    type SnapshotData = ();
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder = openraft::impls::OneshotResponder<Self>;
}

/// A member's id: its boot. The default, all zeros, is nobody; openraft needs one for the votes and
/// the log id that stand before the first election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) BootId);

impl Default for NodeId {
    fn default() -> Self {
        Self(BootId::new([0; 32]))
    }
}
impl core::fmt::Display for NodeId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let hex = self.0.to_hex();
        f.write_str(hex.get(..10).unwrap_or(&hex))
    }
}
impl core::fmt::Debug for NodeId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// What is kept of a member beside its id: which node it is a boot of. The default is nobody's and
/// passes no check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member(pub(crate) Option<NodeName>);

/// A ledger entry in the log. Cheap to clone: the log, its readers and the state machine share it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(Arc<Ledgered>);

#[derive(PartialEq, Eq)]
struct Ledgered {
    entry: Entry,
    attachment: Option<Attachment>,
    size: usize,
}

impl core::fmt::Debug for Payload {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {} bytes", self.entry().body.kind(), self.size())
    }
}

impl Payload {
    pub(crate) fn new(entry: Entry, attachment: Option<Attachment>) -> Self {
        let beside = match &attachment {
            None => 0,
            Some(
                Attachment::Genesis(bytes)
                | Attachment::Policy(bytes)
                | Attachment::Recovery(bytes),
            ) => bytes.len(),
        };
        // the heads of the CBOR items around the two are a few bytes
        let size = entry.encode().len().saturating_add(beside).saturating_add(32);
        Self(Arc::new(Ledgered { entry, attachment, size }))
    }
    pub(crate) fn entry(&self) -> &Entry {
        &self.0.entry
    }
    pub(crate) fn attachment(&self) -> Option<&Attachment> {
        self.0.attachment.as_ref()
    }
    /// About how many bytes it has on the wire.
    pub(crate) fn size(&self) -> usize {
        self.0.size
    }
}

impl<C> Encode<C> for Payload {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?;
        Encode::encode(&self.0.entry, e, ctx)?;
        self.0.attachment.encode(e, ctx)
    }
}
impl<'b, C> Decode<'b, C> for Payload {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(2) {
            return Err(minicbor::decode::Error::message("not an entry with its attachment"));
        }
        let entry = Decode::decode(d, ctx)?;
        let attachment = Decode::decode(d, ctx)?;
        Ok(Self::new(entry, attachment))
    }
}

/// How much memory an entry of the log takes, roughly.
pub(crate) fn weight(entry: &RaftEntry) -> usize {
    const FIXED: usize = 256;
    const MEMBERSHIP: usize = 8 * 1024;
    match &entry.payload {
        openraft::EntryPayload::Normal(payload) => payload.size().saturating_add(FIXED),
        openraft::EntryPayload::Blank => FIXED,
        openraft::EntryPayload::Membership(_) => MEMBERSHIP,
    }
}

/// The id of an entry of the log: where it is, and who put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct LogPosition {
    /// The term of the leader that appended it.
    #[n(0)]
    pub term: u64,
    /// That leader. All zeros for the very first entry, which no leader appended.
    #[n(1)]
    pub leader: BootId,
    /// Its index in the log, which counts also entries that are none of the ledger's.
    #[n(2)]
    pub index: u64,
}

impl LogPosition {
    pub(crate) fn of(id: &LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id.0, index: id.index }
    }
    pub(crate) fn id(&self) -> LogId {
        LogId::new(openraft::LeaderId::new(self.term, NodeId(self.leader)), self.index)
    }
    /// Whether adding to its numbers cannot overflow.
    pub(crate) const fn is_sane(&self) -> bool {
        self.term < MAX_COUNT && self.index < MAX_COUNT
    }
}

/// Who votes and who only listens, in the form that boots tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MembershipRecord {
    /// One set of voters; two while a change is under way.
    #[n(0)]
    pub voters: Vec<BTreeSet<BootId>>,
    /// Every voter and every listener, with its node.
    #[n(1)]
    pub members: BTreeMap<BootId, NodeName>,
}

impl MembershipRecord {
    /// Exactly these boots vote, and nobody listens.
    #[must_use]
    pub fn of_boots(boots: &BTreeMap<NodeName, BootId>) -> Self {
        Self {
            voters: vec![boots.values().copied().collect()],
            members: boots.iter().map(|(node, boot)| (*boot, node.clone())).collect(),
        }
    }

    pub(crate) fn of(membership: &Membership) -> Self {
        Self {
            voters: membership
                .get_joint_config()
                .iter()
                .map(|set| set.iter().map(|id| id.0).collect())
                .collect(),
            members: membership
                .nodes()
                .filter_map(|(id, member)| Some((id.0, member.0.clone()?)))
                .collect(),
        }
    }

    pub(crate) fn membership(&self) -> Membership {
        let voters = self
            .voters
            .iter()
            .map(|set| set.iter().copied().map(NodeId).collect::<BTreeSet<NodeId>>())
            .collect();
        let members: BTreeMap<NodeId, Member> = self
            .members
            .iter()
            .map(|(boot, node)| (NodeId(*boot), Member(Some(node.clone()))))
            .collect();
        Membership::new(voters, members)
    }

    /// Whether it has the shape that every membership has, whoever is in it: one or two sets of
    /// voters, not empty, each with at most one boot for each node, and nobody without a node.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let most = MAX_NODES.saturating_mul(3);
        if self.voters.is_empty() || self.voters.len() > 2 || self.members.len() > most {
            return false;
        }
        self.voters.iter().all(|set| {
            let nodes: Option<BTreeSet<&NodeName>> =
                set.iter().map(|boot| self.members.get(boot)).collect();
            !set.is_empty()
                && set.len() <= MAX_NODES
                && nodes.is_some_and(|nodes| nodes.len() == set.len())
        })
    }
}

/// Where in the log an entry was committed, with the membership in force there. The same at every
/// node, so that nodes can agree on it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Position {
    /// The entry.
    #[n(0)]
    pub log: LogPosition,
    /// The last membership at or before it.
    #[n(1)]
    pub membership: MembershipRecord,
    /// Where in the log that membership stands.
    #[n(2)]
    pub membership_at: LogPosition,
}

impl Position {
    pub(crate) fn stored_membership(&self) -> StoredMembership {
        StoredMembership::new(Some(self.membership_at.id()), self.membership.membership())
    }

    /// Whether it can be started from: sane numbers, in order, and a well-formed membership.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.log.is_sane()
            && self.membership_at.is_sane()
            && self.membership_at.index <= self.log.index
            && self.membership.is_well_formed()
    }
}
