//! A restarted node comes back: what its new boot and the current nodes say to each other.
//!
//! ```text
//! new → each current    Ask       its boot, with evidence under the genesis id
//!       the current     propose `Admit`, where they do not reach the node's former boot
//! each current → new    Admitted  size, snapshot's hash, place in the log: as it applied them itself
//! new → one of them     Fetch     the snapshot, then the tail of the auditors' store, in pieces
//! one of them → new     Chunk
//! ```
//!
//! The new boot believes no single node. It takes a snapshot of which at least t other nodes, each over
//! a channel that it attested itself, say the same: one of them at least is honest, and says what it
//! applied (I6). Bytes it takes from any of them, since the hash names them. The tail is checked against
//! the state by whoever uses it, and taken from another node where it does not fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use casemate_ledger::snapshot::MAX_SNAPSHOT;
use casemate_ledger::{EntryBody, State};
use casemate_proto::cbor::{self, CborError};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, MAX_EVIDENCE, MAX_NODES};
use casemate_proto::{BootId, Millis, NodeName, UnixMillis};
use minicbor::{Decode, Encode};

use crate::types::Position;

/// Most bytes of one piece.
const MAX_CHUNK: usize = 512 * 1024;
/// Most bytes of a message.
pub const MAX_JOIN_MESSAGE: usize = MAX_CHUNK + 32 * 1024;
/// Most bytes of a tail: the records of a full bundle and of those that wait for a checkpoint.
pub const MAX_TAIL: usize = 64 * 1024 * 1024;
/// How long a handover is kept.
const KEPT: Millis = Millis(30 * 60_000);
/// Most bytes of all that are kept; the newest is kept whatever it weighs.
const MAX_KEPT_BYTES: usize = 1 << 30;
/// How many times over a handover is given: its boot may have begun anew with it.
const MAX_GIVEN: usize = 8;
/// How often an admission of one node's boots is proposed, at most.
const PROPOSE_EVERY: Millis = Millis(2_000);
/// How often a new boot asks again.
const ASK_EVERY: Millis = Millis(1_000);
/// How long a new boot waits for a piece before it asks another node.
const PIECE_PATIENCE: Millis = Millis(3_000);

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Message {
    #[n(0)]
    Ask(#[n(0)] BootRecord),
    #[n(1)]
    Admitted(#[n(0)] Admitted),
    #[n(2)]
    Fetch {
        #[n(0)]
        part: Part,
        #[n(1)]
        offset: u64,
    },
    #[n(3)]
    Chunk {
        #[n(0)]
        part: Part,
        #[n(1)]
        offset: u64,
        #[cbor(n(2), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Part {
    #[n(0)]
    Snapshot,
    #[n(1)]
    Tail,
}

/// What a current node says of an admission. All but the tail's length is the same at all of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Admitted {
    #[n(0)]
    boot: BootId,
    #[n(1)]
    size: u64,
    #[n(2)]
    hash: Hash32,
    #[n(3)]
    len: u64,
    #[n(4)]
    position: Position,
    #[n(5)]
    tail_len: u64,
}

impl Admitted {
    fn agrees(&self, other: &Self) -> bool {
        Self { tail_len: 0, ..self.clone() } == Self { tail_len: 0, ..other.clone() }
    }
}

/// Why a message is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// It is malformed.
    #[error("malformed: {0}")]
    Malformed(#[from] CborError),
    /// The record is of another boot than the channel attested.
    #[error("the record is not of the boot that node `{node}`'s channel attested")]
    OtherBoot {
        /// Whose.
        node: NodeName,
    },
    /// It is not for this side.
    #[error("a message for the other side")]
    OtherSide,
    /// The node's current boot still answers.
    #[error("node `{node}`'s current boot still answers")]
    StillThere {
        /// Which.
        node: NodeName,
    },
    /// Sizes that no handover has.
    #[error("a snapshot of {len} bytes with a tail of {tail_len}")]
    Sizes {
        /// The snapshot's.
        len: u64,
        /// The tail's.
        tail_len: u64,
    },
    /// A place in the log that no admission has.
    #[error("an admission at a place in the log that cannot be")]
    Position,
    /// A boot fetches what it was given many times over.
    #[error("node `{node}`'s boot was given its state many times over")]
    TooOften {
        /// Which.
        node: NodeName,
    },
    /// A piece that was not asked for.
    #[error("a piece that was not asked for")]
    Unasked,
    /// The snapshot's bytes are not what its hash names.
    #[error("the snapshot from node `{node}` is not what t nodes vouch for")]
    Snapshot {
        /// Who sent it.
        node: NodeName,
    },
}

/// What an admitted boot begins with, as one current node has it.
#[derive(Clone)]
pub struct HandedOver {
    /// The admitted boot.
    pub boot: BootId,
    /// Its node.
    pub node: NodeName,
    /// How many entries are applied, the admission the last.
    pub size: u64,
    /// The snapshot's hash.
    pub hash: Hash32,
    /// The state right after the admission.
    pub snapshot: Arc<[u8]>,
    /// The right edge of the auditors' store.
    pub tail: Arc<[u8]>,
    /// Where the log goes on.
    pub position: Position,
}

impl core::fmt::Debug for HandedOver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HandedOver")
            .field("node", &self.node)
            .field("boot", &self.boot)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The current nodes' side.
#[derive(Debug, Default)]
pub struct Handovers {
    kept: BTreeMap<NodeName, Kept>,
    proposed: BTreeMap<NodeName, UnixMillis>,
}

#[derive(Debug)]
struct Kept {
    handover: HandedOver,
    since: UnixMillis,
    /// Bytes that it was given in so far.
    given: usize,
}

/// What a message leads to.
#[must_use]
#[derive(Debug, Default)]
pub struct JoinAction {
    /// To send back, on the same link.
    pub send: Vec<Vec<u8>>,
    /// To propose.
    pub propose: Option<EntryBody>,
}

impl Handovers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A boot was admitted: keeps what it begins with, in place of what was kept for its node. What to
    /// send it if its link is up.
    pub fn put(&mut self, handover: HandedOver, now: UnixMillis) -> Vec<u8> {
        self.kept.retain(|_, kept| now.since(kept.since) < KEPT);
        let message = cbor::encode(&Message::Admitted(handover.admitted()));
        self.kept.remove(&handover.node);
        let weight = |kept: &Kept| kept.handover.weight();
        let others = |all: &BTreeMap<NodeName, Kept>| all.values().map(weight).sum::<usize>();
        while others(&self.kept).saturating_add(handover.weight()) > MAX_KEPT_BYTES
            || self.kept.len() >= MAX_NODES
        {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.since);
            let Some(node) = oldest.map(|(node, _)| node.clone()) else { break };
            self.kept.remove(&node);
        }
        let kept = Kept { since: now, given: 0, handover };
        self.kept.insert(kept.handover.node.clone(), kept);
        message
    }

    /// Takes a message over a channel that attested `boot` as one of `node`'s. `current` is the node's
    /// current boot in the applied state, `reached` whether that boot answers this node.
    ///
    /// # Errors
    /// If it is of no use.
    pub fn receive(
        &mut self,
        (node, boot): (&NodeName, BootId),
        (current, reached): (Option<BootId>, bool),
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<JoinAction, JoinRefused> {
        let mut action = JoinAction::default();
        match cbor::decode::<Message>(bytes, MAX_JOIN_MESSAGE)? {
            Message::Ask(record) => {
                let fits = record.evidence.len() <= MAX_EVIDENCE;
                if record.node != *node || record.id() != boot || !fits {
                    return Err(JoinRefused::OtherBoot { node: node.clone() });
                }
                if let Some(kept) = self.of(node, boot) {
                    action.send.push(cbor::encode(&Message::Admitted(kept.handover.admitted())));
                } else if current != Some(boot) {
                    if reached {
                        return Err(JoinRefused::StillThere { node: node.clone() });
                    }
                    let last = self.proposed.get(node).copied();
                    if last.is_none_or(|last| now.since(last) >= PROPOSE_EVERY) {
                        self.proposed.insert(node.clone(), now);
                        action.propose = Some(EntryBody::Admit(record));
                    }
                }
            }
            Message::Fetch { part, offset } => {
                let Some(kept) = self.of(node, boot) else { return Err(JoinRefused::Unasked) };
                let whole = match part {
                    Part::Snapshot => &kept.handover.snapshot,
                    Part::Tail => &kept.handover.tail,
                };
                let rest = usize::try_from(offset)
                    .ok()
                    .and_then(|from| whole.get(from..))
                    .ok_or(JoinRefused::Unasked)?;
                let bytes = rest.get(..rest.len().min(MAX_CHUNK)).unwrap_or_default().to_vec();
                kept.given = kept.given.saturating_add(bytes.len());
                if kept.given > kept.handover.weight().saturating_mul(MAX_GIVEN) {
                    return Err(JoinRefused::TooOften { node: node.clone() });
                }
                action.send.push(cbor::encode(&Message::Chunk { part, offset, bytes }));
            }
            Message::Admitted(_) | Message::Chunk { .. } => return Err(JoinRefused::OtherSide),
        }
        Ok(action)
    }

    fn of(&mut self, node: &NodeName, boot: BootId) -> Option<&mut Kept> {
        self.kept.get_mut(node).filter(|kept| kept.handover.boot == boot)
    }
}

impl HandedOver {
    fn weight(&self) -> usize {
        self.snapshot.len().saturating_add(self.tail.len())
    }

    fn admitted(&self) -> Admitted {
        let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Admitted {
            boot: self.boot,
            size: self.size,
            hash: self.hash,
            len: len(&self.snapshot),
            position: self.position.clone(),
            tail_len: len(&self.tail),
        }
    }
}

/// What a new boot was given, and t nodes vouch for.
#[derive(Debug)]
pub struct Joined {
    /// How many entries are applied.
    pub size: u64,
    /// The snapshot: its hash is the one that t nodes named.
    pub snapshot: Vec<u8>,
    /// One node's tail. Not vouched for.
    pub tail: Vec<u8>,
    /// Where the log goes on.
    pub position: Position,
    /// Whose tail it is.
    pub from: NodeName,
}

/// A download under way.
#[derive(Debug)]
struct Download {
    from: NodeName,
    what: Admitted,
    snapshot: Vec<u8>,
    tail: Vec<u8>,
    asked_at: UnixMillis,
}

/// The new boot's side.
#[derive(Debug)]
pub struct JoinRun {
    own: BootRecord,
    threshold: usize,
    /// Peers that are linked, and when they were last asked.
    linked: BTreeMap<NodeName, Option<UnixMillis>>,
    words: BTreeMap<NodeName, Admitted>,
    download: Option<Download>,
    /// Nodes that sent something that did not fit: asked last.
    poor: BTreeMap<NodeName, u64>,
    joined: Option<Joined>,
}

/// A message and to whom it goes.
pub type Outgoing = (NodeName, Vec<u8>);

impl JoinRun {
    /// Begins for this boot, whose record has evidence under the genesis id.
    #[must_use]
    pub fn new(own: BootRecord, threshold: u64) -> Self {
        Self {
            own,
            threshold: usize::try_from(threshold).unwrap_or(usize::MAX),
            linked: BTreeMap::new(),
            words: BTreeMap::new(),
            download: None,
            poor: BTreeMap::new(),
            joined: None,
        }
    }

    /// The same boot with newer evidence.
    pub fn renew(&mut self, record: BootRecord) {
        if record.id() == self.own.id() {
            self.own = record;
        }
    }

    /// A channel to a node came up.
    pub fn connected(&mut self, node: &NodeName) {
        if *node != self.own.node && self.linked.len() < MAX_NODES {
            self.linked.insert(node.clone(), None);
        }
    }

    /// A channel to a node went down.
    pub fn disconnected(&mut self, node: &NodeName) {
        self.linked.remove(node);
        if self.download.as_ref().is_some_and(|download| download.from == *node) {
            self.download = None;
        }
    }

    /// How many nodes have confirmed the admission alike, at most.
    #[must_use]
    pub fn confirmed(&self) -> usize {
        self.agreed().map_or(0, |(_, nodes)| nodes.len())
    }

    /// What was given, once it is complete. Given once; [`Self::refuse`] asks another node.
    pub fn take(&mut self) -> Option<Joined> {
        self.joined.take()
    }

    /// Whether it is complete.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.joined.is_some()
    }

    /// Whether some say that this boot is admitted, and fewer than t say so alike.
    #[must_use]
    pub fn is_short(&self) -> bool {
        !self.words.is_empty()
            && self.download.is_none()
            && self.joined.is_none()
            && self.confirmed() < self.threshold
    }

    /// What that node gave does not fit; another is asked next.
    pub fn refuse(&mut self, from: &NodeName) {
        let times = self.poor.entry(from.clone()).or_default();
        *times = times.saturating_add(1);
        self.download = None;
    }

    /// Time passes: asks who was not asked lately, and for the piece that is missing.
    pub fn tick(&mut self, now: UnixMillis) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for (node, asked) in &mut self.linked {
            if !self.words.contains_key(node) && asked.is_none_or(|at| now.since(at) >= ASK_EVERY) {
                *asked = Some(now);
                out.push((node.clone(), cbor::encode(&Message::Ask(self.own.clone()))));
            }
        }
        if let Some(download) = &self.download
            && now.since(download.asked_at) >= PIECE_PATIENCE
        {
            let from = download.from.clone();
            self.refuse(&from);
        }
        out.extend(self.begin_download(now));
        out
    }

    /// What at least t nodes say alike, and who.
    fn agreed(&self) -> Option<(&Admitted, Vec<&NodeName>)> {
        let groups = self.words.values().map(|word| {
            let nodes: Vec<&NodeName> =
                self.words.iter().filter(|(_, w)| w.agrees(word)).map(|(n, _)| n).collect();
            (word, nodes)
        });
        groups.max_by_key(|(_, nodes)| nodes.len())
    }

    fn begin_download(&mut self, now: UnixMillis) -> Option<Outgoing> {
        if self.download.is_some() || self.joined.is_some() {
            return None;
        }
        let need = match casemate_proto::sabotaged!("snapshot_of_one_believed") {
            true => 1,
            false => self.threshold,
        };
        let (_, nodes) = self.agreed().filter(|(_, nodes)| nodes.len() >= need)?;
        let from = nodes
            .into_iter()
            .filter(|node| self.linked.contains_key(*node))
            .min_by_key(|node| self.poor.get(*node).copied().unwrap_or(0))?
            .clone();
        let what = self.words.get(&from)?.clone();
        self.download =
            Some(Download { from, what, snapshot: Vec::new(), tail: Vec::new(), asked_at: now });
        self.next_piece(now)
    }

    fn next_piece(&mut self, now: UnixMillis) -> Option<Outgoing> {
        let download = self.download.as_mut()?;
        let had = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let (part, offset) = if had(&download.snapshot) < download.what.len {
            (Part::Snapshot, had(&download.snapshot))
        } else if had(&download.tail) < download.what.tail_len {
            (Part::Tail, had(&download.tail))
        } else {
            return None;
        };
        download.asked_at = now;
        Some((download.from.clone(), cbor::encode(&Message::Fetch { part, offset })))
    }

    /// Takes a message of a node, over a channel that this boot attested.
    ///
    /// # Errors
    /// If it is of no use.
    pub fn receive(
        &mut self,
        node: &NodeName,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<Vec<Outgoing>, JoinRefused> {
        if *node == self.own.node {
            return Err(JoinRefused::OtherSide);
        }
        match cbor::decode::<Message>(bytes, MAX_JOIN_MESSAGE)? {
            Message::Admitted(word) => {
                if word.boot != self.own.id() {
                    return Err(JoinRefused::OtherBoot { node: node.clone() });
                }
                let fits = |len: u64, max: usize| usize::try_from(len).is_ok_and(|len| len <= max);
                if word.size == 0 || !word.position.is_well_formed() {
                    return Err(JoinRefused::Position);
                }
                if word.len == 0 || !fits(word.len, MAX_SNAPSHOT) || !fits(word.tail_len, MAX_TAIL)
                {
                    let (len, tail_len) = (word.len, word.tail_len);
                    return Err(JoinRefused::Sizes { len, tail_len });
                }
                if self.words.len() < MAX_NODES || self.words.contains_key(node) {
                    self.words.insert(node.clone(), word);
                }
                Ok(self.begin_download(now).into_iter().collect())
            }
            Message::Chunk { part, offset, bytes } => {
                self.take_chunk(node, part, offset, bytes)?;
                let next = self.next_piece(now);
                if next.is_none() {
                    self.complete()?;
                }
                Ok(next.into_iter().collect())
            }
            Message::Ask(_) | Message::Fetch { .. } => Err(JoinRefused::OtherSide),
        }
    }

    fn take_chunk(
        &mut self,
        node: &NodeName,
        part: Part,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<(), JoinRefused> {
        let download = self
            .download
            .as_mut()
            .filter(|download| download.from == *node)
            .ok_or(JoinRefused::Unasked)?;
        let (whole, len) = match part {
            Part::Snapshot => (&mut download.snapshot, download.what.len),
            Part::Tail => (&mut download.tail, download.what.tail_len),
        };
        let had = u64::try_from(whole.len()).unwrap_or(u64::MAX);
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if bytes.is_empty() || offset != had || had.saturating_add(more) > len {
            return Err(JoinRefused::Unasked);
        }
        whole.extend_from_slice(&bytes);
        Ok(())
    }

    fn complete(&mut self) -> Result<(), JoinRefused> {
        let Some(download) = self.download.take() else { return Ok(()) };
        if State::snapshot_hash(&download.snapshot) != download.what.hash {
            let node = download.from;
            self.refuse(&node);
            return Err(JoinRefused::Snapshot { node });
        }
        self.joined = Some(Joined {
            size: download.what.size,
            snapshot: download.snapshot,
            tail: download.tail,
            position: download.what.position,
            from: download.from,
        });
        Ok(())
    }
}
