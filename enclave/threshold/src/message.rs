//! The envelope around everything a run sends, and the checks before anything in it is read.
//!
//! An envelope is for one receiver. It carries *chunks*: what one step of the sender has for that
//! receiver, each in a numbered *lane* (a library's protocol, a round, our echo), either the same
//! for everybody (a broadcast, which goes into the transcript) or private to the receiver.
//!
//! cait-sith keeps every message it is given for ever and indexes a map with the sender; FROST
//! says that consistent broadcast and authentication are the caller's. So nothing reaches them but
//! chunks of a known lane and a known size, from a participant, at most as many as an honest
//! participant sends.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::cbor;
use minicbor::{Decode, Encode};

use crate::{
    context::{RunContext, RunId},
    error::{Refusal, RunError},
    party::PartyId,
};

/// The envelope's version.
pub const VERSION: u8 = 1;

/// The largest envelope of any run in bytes: one that carries a step of two triples.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// What one party sends to another in one step of a run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RunMessage {
    /// [`VERSION`].
    #[n(0)]
    pub version: u8,
    /// The run.
    #[n(1)]
    pub run: RunId,
    /// The sender; must be who the channel says it is.
    #[n(2)]
    pub from: PartyId,
    /// The receiver.
    #[n(3)]
    pub to: PartyId,
    /// The sender's step. It grows, is the same for all receivers of a step, and is never repeated.
    #[n(4)]
    pub sequence: u32,
    /// What is sent.
    #[n(5)]
    pub chunks: Vec<Chunk>,
}

/// One message of one lane.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Chunk {
    /// Which of the run's conversations it belongs to.
    #[n(0)]
    pub lane: u8,
    /// Whether it is for the receiver alone; else everybody is sent the same.
    #[n(1)]
    pub private: bool,
    /// The lane's own encoding.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Chunk {
    /// Without the bytes of private chunks, which may be shares of a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("lane", &self.lane)
            .field("private", &self.private)
            .field("bytes", &"<redacted>")
            .field("len", &self.bytes.len())
            .finish()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.bytes);
    }
}

/// The run a message belongs to, for routing; nothing else about it has been checked.
///
/// # Errors
/// If the bytes are no envelope.
pub fn peek_run(bytes: &[u8]) -> Result<RunId, Refusal> {
    let message: RunMessage = cbor::decode(bytes, MAX_MESSAGE_BYTES).map_err(Refusal::Malformed)?;
    Ok(message.run)
}

/// What an honest sender sends in a lane over a whole run.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimit {
    pub(crate) lane: u8,
    /// Most bytes in a chunk.
    pub(crate) max_bytes: usize,
    /// Most broadcast chunks.
    pub(crate) broadcasts: usize,
    /// Most private chunks to one receiver.
    pub(crate) privates: usize,
}

/// A received envelope's chunks, checked against everything that can be checked without a library.
pub(crate) struct Opened {
    pub(crate) sequence: u32,
    pub(crate) chunks: Vec<Chunk>,
}

/// What has come in so far.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    sequences: BTreeSet<(PartyId, u32)>,
    counts: BTreeMap<(PartyId, u8, bool), usize>,
}

impl Inbox {
    /// Checks an envelope and counts it in; refused, it leaves no trace.
    pub(crate) fn open(
        &mut self,
        context: &RunContext,
        me: PartyId,
        lanes: &[LaneLimit],
        from: PartyId,
        bytes: &[u8],
    ) -> Result<Opened, RunError> {
        self.check(context, me, lanes, from, bytes).map_err(|why| RunError::Refused { from, why })
    }

    fn check(
        &mut self,
        context: &RunContext,
        me: PartyId,
        lanes: &[LaneLimit],
        from: PartyId,
        bytes: &[u8],
    ) -> Result<Opened, Refusal> {
        if from == me {
            return Err(Refusal::FromSelf);
        }
        if !context.participants().contains_party(from) {
            return Err(Refusal::NotAParticipant);
        }
        let message: RunMessage =
            cbor::decode(bytes, MAX_MESSAGE_BYTES).map_err(Refusal::Malformed)?;
        if message.version != VERSION {
            return Err(Refusal::WrongVersion { version: message.version });
        }
        if message.run != context.id() {
            return Err(Refusal::WrongRun { named: message.run });
        }
        if message.from != from {
            return Err(Refusal::WrongSender { named: message.from });
        }
        if message.to != me {
            return Err(Refusal::WrongReceiver { named: message.to });
        }
        let sequence = message.sequence;
        if self.sequences.contains(&(from, sequence)) {
            return Err(Refusal::Repeated { sequence });
        }
        // a message without chunks would grow the set of sequences for nothing
        if message.chunks.is_empty() {
            return Err(Refusal::ChunkSize { size: 0, max: MAX_MESSAGE_BYTES });
        }
        let mut counts: BTreeMap<(u8, bool), usize> = BTreeMap::new();
        for chunk in &message.chunks {
            let lane = chunk.lane;
            let limit = lanes
                .iter()
                .find(|limit| limit.lane == lane)
                .ok_or(Refusal::UnknownLane { lane })?;
            let size = chunk.bytes.len();
            if size == 0 || size > limit.max_bytes {
                return Err(Refusal::ChunkSize { size, max: limit.max_bytes });
            }
            let max = if chunk.private { limit.privates } else { limit.broadcasts };
            let before = self.counts.get(&(from, lane, chunk.private)).copied().unwrap_or(0);
            let here = counts.entry((lane, chunk.private)).or_insert(0);
            *here = here.saturating_add(1);
            if before.saturating_add(*here) > max {
                return Err(Refusal::TooMany { lane, max });
            }
        }
        for ((lane, private), more) in counts {
            let count = self.counts.entry((from, lane, private)).or_insert(0);
            *count = count.saturating_add(more);
        }
        self.sequences.insert((from, sequence));
        Ok(Opened { sequence, chunks: message.chunks })
    }
}
