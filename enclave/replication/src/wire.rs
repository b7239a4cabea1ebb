//! What boots say to each other to replicate, and its caps.
//!
//! One message is strict CBOR of at most [`MAX_MESSAGE`] bytes, which is what a channel carries. What is
//! long, an entry with a policy beside it, goes as a run of pieces ([`crate::pieces`]). A decoded message is within its caps and well formed; whether its sender may
//! say it is asked where it is taken.

use casemate_ledger::entry::MAX_ENTRY;
use casemate_ledger::{Attachment, EntryBody};
use casemate_proto::cbor::{self, CborError};
use casemate_proto::governance::MAX_POLICY;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::MAX_GENESIS;
use casemate_proto::{BootId, UnixMillis};
use minicbor::{Decode, Encode};
use openraft::EntryPayload;

use crate::types::{
    LogId, LogPosition, MAX_COUNT, MembershipRecord, NodeId, Payload, RaftEntry, Vote,
};

/// Most bytes of one message.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// Most bytes of what is sent in pieces.
pub(crate) const MAX_WHOLE: usize = 20 * 1024 * 1024;
/// What is longer than this goes in pieces, so that on a slow line nothing else waits for long behind
/// it and the leader is heard while it is on its way.
pub(crate) const WHOLE_UP_TO: usize = 256 * 1024;
/// Most bytes of a piece.
pub(crate) const MAX_PIECE: usize = 128 * 1024;
/// Most entries of an append.
pub(crate) const MAX_ENTRIES: usize = 512;
/// Most bytes of entries that are put into one append, unless a single one is larger.
pub(crate) const APPEND_BYTES: usize = WHOLE_UP_TO - 16 * 1024;

/// A message between two boots.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Message {
    /// The leader appends, or says that it is still there.
    #[n(0)]
    Append {
        #[n(0)]
        id: u64,
        #[n(1)]
        append: Append,
    },
    /// The answer.
    #[n(1)]
    Appended {
        #[n(0)]
        id: u64,
        #[n(1)]
        answer: Answer,
    },
    /// A candidate asks for a vote.
    #[n(2)]
    Vote {
        #[n(0)]
        id: u64,
        #[n(1)]
        vote: VoteRecord,
        #[n(2)]
        last: Option<LogPosition>,
    },
    /// The answer.
    #[n(3)]
    Voted {
        #[n(0)]
        id: u64,
        #[n(1)]
        vote: VoteRecord,
        #[n(2)]
        granted: bool,
        #[n(3)]
        last: Option<LogPosition>,
    },
    /// A node has the leader propose this.
    #[n(4)]
    Propose {
        #[n(0)]
        body: EntryBody,
        #[n(1)]
        attachment: Option<Attachment>,
        /// By when it has to be stamped: later it is not to be an entry.
        #[n(2)]
        until: Option<UnixMillis>,
    },
    /// The leader no longer has what the receiver lacks. Answered only by who is promised to another.
    #[n(5)]
    TooFarBehind {
        #[n(0)]
        id: u64,
        #[n(1)]
        vote: VoteRecord,
        #[n(2)]
        purged: LogPosition,
    },
    /// A piece of an encoded `Append` or `Propose`.
    #[n(6)]
    Piece {
        /// Which transfer; counts up at the sender.
        #[n(0)]
        transfer: u64,
        /// Bytes in all.
        #[n(1)]
        total: u64,
        /// Bytes before this piece.
        #[n(2)]
        offset: u64,
        /// The leader's vote, in pieces of an append: each says that the leader is still there.
        #[n(3)]
        vote: Option<VoteRecord>,
        #[cbor(n(4), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// Whether the receiver misses a leader, and would elect one whose log ends there.
    #[n(7)]
    AskConsent {
        #[n(0)]
        id: u64,
        #[n(1)]
        last: Option<LogPosition>,
    },
    /// The answer.
    #[n(8)]
    Consent {
        #[n(0)]
        id: u64,
        #[n(1)]
        given: bool,
    },
}

/// What a leader appends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Append {
    #[n(0)]
    pub(crate) vote: VoteRecord,
    /// The entry before the first.
    #[n(1)]
    pub(crate) prev: Option<LogPosition>,
    /// Up to where the log is committed.
    #[n(2)]
    pub(crate) commit: Option<LogPosition>,
    #[n(3)]
    pub(crate) entries: Vec<LogEntry>,
    /// How many ledger entries the leader has applied, and the root of its tree there.
    #[n(4)]
    pub(crate) size: u64,
    #[n(5)]
    pub(crate) root: Hash32,
    /// How long ago in milliseconds a majority acknowledged the leader.
    #[n(6)]
    pub(crate) majority_age: Option<u64>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct LogEntry {
    #[n(0)]
    pub(crate) at: LogPosition,
    #[n(1)]
    pub(crate) content: Content,
}

/// What an entry of the log holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Content {
    /// Nothing: the first of each leader.
    #[n(0)]
    Blank,
    /// A ledger entry.
    #[n(1)]
    Ledger(#[n(0)] Payload),
    /// Who votes from here on.
    #[n(2)]
    Membership(#[n(0)] MembershipRecord),
}

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Answer {
    /// Appended.
    #[n(0)]
    Done,
    /// The entry before the first is not here.
    #[n(1)]
    Conflict,
    /// This boot has promised itself to a later leader.
    #[n(2)]
    HigherVote(#[n(0)] VoteRecord),
    /// An entry is stamped too far ahead of this boot's clock; this leader is not followed any more.
    #[n(3)]
    AheadOfTime {
        /// The stamp.
        #[n(0)]
        at: UnixMillis,
        /// This boot's clock.
        #[n(1)]
        now: UnixMillis,
    },
}

/// Whom a boot has promised itself to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct VoteRecord {
    #[n(0)]
    pub(crate) term: u64,
    #[n(1)]
    pub(crate) boot: BootId,
    /// Whether a majority has granted it: the boot leads.
    #[n(2)]
    pub(crate) leads: bool,
}

impl VoteRecord {
    pub(crate) fn of(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, boot: vote.leader_id.node_id.0, leads: vote.committed }
    }
    pub(crate) fn vote(&self) -> Vote {
        let node = NodeId(self.boot);
        if self.leads { Vote::new_committed(self.term, node) } else { Vote::new(self.term, node) }
    }
}

/// Why bytes are no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// Of the right form, and yet nothing that a boot says.
    #[error("{what}")]
    Senseless { what: &'static str },
}

impl Message {
    /// One message as a channel delivers it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let message: Self = cbor::decode(bytes, MAX_MESSAGE)?;
        message.check()?;
        Ok(message)
    }

    /// One message that came in pieces.
    pub(crate) fn decode_whole(bytes: &[u8]) -> Result<Self, WireError> {
        let message: Self = cbor::decode(bytes, MAX_WHOLE)?;
        message.check()?;
        match message {
            Self::Append { .. } | Self::Propose { .. } => Ok(message),
            _ => Err(WireError::Senseless { what: "a message that has no need of pieces" }),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    fn check(&self) -> Result<(), WireError> {
        let sane = |what, ok: bool| if ok { Ok(()) } else { Err(WireError::Senseless { what }) };
        let position = |at: &Option<LogPosition>| at.as_ref().is_none_or(LogPosition::is_sane);
        let vote = |vote: &VoteRecord| vote.term < MAX_COUNT;
        match self {
            Self::Append { append, .. } => append.check(),
            Self::Appended { answer: Answer::HigherVote(higher), .. } => {
                sane("a vote beyond all terms", vote(higher))
            }
            Self::Appended { .. } | Self::Propose { .. } | Self::Consent { .. } => Ok(()),
            Self::AskConsent { last, .. } => sane("a log beyond all terms", position(last)),
            Self::Vote { vote: asked, last, .. } => {
                sane("a vote beyond all terms", vote(asked) && position(last))?;
                sane("a candidate that leads already", !asked.leads)
            }
            Self::Voted { vote: held, last, .. } => {
                sane("a vote beyond all terms", vote(held) && position(last))
            }
            Self::TooFarBehind { vote: held, purged, .. } => {
                sane("a vote beyond all terms", vote(held) && purged.is_sane())?;
                sane("a leader that does not lead", held.leads)
            }
            Self::Piece { total, offset, bytes, vote: held, .. } => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let most = u64::try_from(MAX_WHOLE).unwrap_or(0);
                sane(
                    "a piece out of bounds",
                    *total <= most
                        && !bytes.is_empty()
                        && bytes.len() <= MAX_PIECE
                        && offset.checked_add(length).is_some_and(|end| end <= *total),
                )?;
                sane("a vote beyond all terms", held.as_ref().is_none_or(vote))
            }
        }
    }
}

impl Append {
    /// What holds of every append, whoever sends it: its numbers are sane and its entries follow
    /// each other, no later than the leader itself.
    fn check(&self) -> Result<(), WireError> {
        let fail = |what| Err(WireError::Senseless { what });
        let position = |at: &Option<LogPosition>| at.as_ref().is_none_or(LogPosition::is_sane);
        if self.vote.term >= MAX_COUNT || !position(&self.prev) || !position(&self.commit) {
            return fail("a term or an index beyond all others");
        }
        if !self.vote.leads {
            return fail("a leader that does not lead");
        }
        if self.entries.len() > MAX_ENTRIES {
            return fail("too many entries");
        }
        let leader = (self.vote.term, self.vote.boot);
        let is_later =
            |at: &Option<LogPosition>| at.is_some_and(|at| (at.term, at.leader) > leader);
        if is_later(&self.prev) || is_later(&self.commit) {
            return fail("an entry of a later leader");
        }
        let mut before = self.prev;
        for entry in &self.entries {
            let wanted = before.map_or(0, |at| at.index.saturating_add(1));
            let by = (entry.at.term, entry.at.leader);
            if entry.at.index != wanted || !entry.at.is_sane() {
                return fail("entries that do not follow each other");
            }
            if by > leader || before.is_some_and(|at| by < (at.term, at.leader)) {
                return fail("entries out of their leaders' order");
            }
            entry.content.check()?;
            before = Some(entry.at);
        }
        Ok(())
    }
}

impl Content {
    fn check(&self) -> Result<(), WireError> {
        let ok = match self {
            Self::Blank => true,
            Self::Ledger(payload) => {
                payload.entry().encode().len() <= MAX_ENTRY
                    && match payload.attachment() {
                        None => true,
                        Some(Attachment::Policy(bytes)) => bytes.len() <= MAX_POLICY,
                        Some(Attachment::Genesis(bytes)) => bytes.len() <= MAX_GENESIS,
                        // what begins an incarnation is in nobody's log
                        Some(Attachment::Recovery(_)) => false,
                    }
            }
            Self::Membership(membership) => membership.is_well_formed(),
        };
        if ok { Ok(()) } else { Err(WireError::Senseless { what: "an entry beyond its caps" }) }
    }
}

impl LogEntry {
    pub(crate) fn of(entry: &RaftEntry) -> Self {
        let content = match &entry.payload {
            EntryPayload::Blank => Content::Blank,
            EntryPayload::Normal(payload) => Content::Ledger(payload.clone()),
            EntryPayload::Membership(membership) => {
                Content::Membership(MembershipRecord::of(membership))
            }
        };
        Self { at: LogPosition::of(&entry.log_id), content }
    }

    pub(crate) fn entry(self) -> RaftEntry {
        let payload = match self.content {
            Content::Blank => EntryPayload::Blank,
            Content::Ledger(payload) => EntryPayload::Normal(payload),
            Content::Membership(record) => EntryPayload::Membership(record.membership()),
        };
        RaftEntry { log_id: self.at.id(), payload }
    }
}

/// The position of an optional log id.
pub(crate) fn position(id: Option<&LogId>) -> Option<LogPosition> {
    id.map(LogPosition::of)
}
