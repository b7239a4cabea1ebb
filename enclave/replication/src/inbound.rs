//! What other boots send, taken for what its sender may say.
//!
//! The channel says which boot sent it. A leader's vote must be the sender's own and a candidate's too;
//! a boot that the ledger retired says nothing any more. What passes goes to openraft, a bounded
//! number at a time for each peer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use casemate_proto::{BootId, Millis};
use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::Out;
use crate::core::Core;
use crate::fatal::FatalReason;
use crate::network::Reply;
use crate::pairs;
use crate::pieces::Reassembly;
use crate::roots::Mismatch;
use crate::types::{LogId, LogPosition, MAX_COUNT};
use crate::wire::{Answer, Append, LogEntry, Message, VoteRecord, position};

/// Requests of one peer that are worked on at one time.
const MAX_AT_ONCE: usize = 16;
/// Peers whose state is kept. A cluster has at most 16 nodes, and two boots of each may be linked.
const MAX_PEERS: usize = 64;
/// How far a term may lie above this boot's own. Years of elections fit, and no peer can use up the
/// numbers in one leap.
const MAX_LEAP: u64 = 1 << 32;

/// Whether a term can be one that elections led to.
pub(crate) const fn is_term_plausible(term: u64, own: u64) -> bool {
    term < MAX_COUNT && term <= own.saturating_add(MAX_LEAP)
}

/// What is kept of the peers that send.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    peers: Mutex<BTreeMap<BootId, Arc<Peer>>>,
    /// When the leader was last heard, and how old its majority was then.
    heard: Mutex<Option<(Instant, Millis)>>,
    /// When a leader that this boot follows was last heard.
    leader: Mutex<Option<Instant>>,
    /// When something was last taken of a leader that had no majority.
    deaf: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Peer {
    reassembly: Mutex<Reassembly>,
    room: Arc<Semaphore>,
}

impl Inbound {
    fn peer(&self, boot: BootId) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if !peers.contains_key(&boot) && peers.len() >= MAX_PEERS {
            return None;
        }
        let fresh = || {
            Arc::new(Peer {
                reassembly: Mutex::default(),
                room: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            })
        };
        Some(Arc::clone(peers.entry(boot).or_insert_with(fresh)))
    }

    /// For how long the leader has said nothing; `None`: no leader was heard yet.
    pub(crate) fn leader_silence(&self) -> Option<Millis> {
        let at = (*self.leader.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(Millis(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether to take what a leader sends whose majority, it says, answered last so long ago. One whose
    /// host lets nothing in, and everything out, commits nothing, and as long as it is heard nobody else
    /// is elected. So it is heard only now and then: often enough to hear of it if the answers arrive
    /// again, and with time for an election in between.
    fn hears(&self, age: Option<Millis>, patience: Millis) -> bool {
        let mut deaf = self.deaf.lock().unwrap_or_else(PoisonError::into_inner);
        if age.is_none_or(|age| age < patience) {
            *deaf = None;
            return true;
        }
        let pause = Duration::from_millis(patience.saturating_mul(4).0);
        if deaf.is_some_and(|at| at.elapsed() < pause) {
            return false;
        }
        *deaf = Some(Instant::now());
        true
    }

    /// Whether the last that was heard is a leader without a majority.
    fn is_deaf(&self) -> bool {
        self.deaf.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn leader_heard(&self) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Forgets what a peer whose channel is gone has sent in part.
    pub(crate) fn forget(&self, boot: &BootId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).remove(boot);
    }

    /// Forgets boots that were retired: the room is for those that may still say something.
    pub(crate) fn forget_all(&self, retired: &BTreeSet<BootId>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|boot, _| !retired.contains(boot));
    }

    /// How long ago a majority stood behind the leader that this boot follows.
    pub(crate) fn majority_age(&self) -> Option<Millis> {
        let (at, age) = (*self.heard.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(age.saturating_add(Millis(since)))
    }
}

impl Core {
    /// Takes what a channel delivered from a boot.
    pub(crate) fn receive(self: &Arc<Self>, from: BootId, bytes: &[u8]) {
        if self.halt.is_raised() || from == self.me {
            return;
        }
        if self.view.borrow().retired.contains(&from) {
            tracing::debug!(%from, "a retired boot is not heard");
            return;
        }
        match Message::decode(bytes) {
            Ok(message) => {
                self.peers.heard(&from);
                self.take(from, message);
            }
            Err(error) => tracing::warn!(%from, %error, "malformed message dropped"),
        }
    }

    fn take(self: &Arc<Self>, from: BootId, message: Message) {
        match message {
            Message::Append { id, append } => self.take_append(from, id, append),
            Message::Appended { id, answer } => {
                self.peers.answered(from, id, Reply::Appended(answer));
            }
            Message::Vote { id, vote, last } => {
                if self.speaks_for_itself(from, vote) {
                    let last_log_id = last.map(|last| last.id());
                    self.take_vote(from, id, VoteRequest { vote: vote.vote(), last_log_id });
                }
            }
            Message::Voted { id, vote, granted, last } => {
                self.peers.answered(from, id, Reply::Voted { vote, granted, last });
            }
            Message::AskConsent { id, last } => {
                let given = self.would_elect(last);
                self.peers.outbox.send(from, &Message::Consent { id, given });
            }
            Message::Consent { id, given } => {
                self.peers.answered(from, id, Reply::Consent(given));
            }
            Message::Propose { body, attachment, until } => {
                // only current boots have a say, and only a leader is told; what another holds would
                // wait in the way of its own
                let is_current = self.view.borrow().is_current(&from);
                if is_current && self.leads() {
                    self.proposals.forwarded(from, body, attachment, until);
                }
            }
            Message::TooFarBehind { id, vote, purged } => {
                if self.speaks_for_itself(from, vote) {
                    self.take_too_far_behind(from, id, vote, purged);
                }
            }
            Message::Piece { transfer, total, offset, vote, bytes } => {
                let Some(peer) = self.inbound.peer(from) else { return };
                if let Some(vote) = vote
                    && self.speaks_for_itself(from, vote)
                    && vote.leads
                {
                    self.still_there(vote);
                }
                let whole = peer
                    .reassembly
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(transfer, total, offset, &bytes);
                match whole.map(|whole| Message::decode_whole(&whole)) {
                    Some(Ok(message)) => self.take(from, message),
                    Some(Err(error)) => {
                        tracing::warn!(%from, %error, "malformed message dropped");
                    }
                    None => {}
                }
            }
        }
    }

    /// Whether a vote that a boot speaks by is its own, in a term that can be.
    fn speaks_for_itself(&self, from: BootId, vote: VoteRecord) -> bool {
        let own = self.log.vote().map_or(0, |held| held.leader_id.term);
        let ok = vote.boot == from && is_term_plausible(vote.term, own);
        if !ok {
            tracing::warn!(%from, of = %vote.boot, term = vote.term, "a vote of another is dropped");
        }
        ok
    }

    fn take_append(self: &Arc<Self>, from: BootId, id: u64, append: Append) {
        if !self.speaks_for_itself(from, append.vote) {
            return;
        }
        if let Err(ahead) = self.stamps.check(&append, self.clock.now()) {
            let answer = Answer::AheadOfTime { at: ahead.at, now: ahead.now };
            self.peers.outbox.send(from, &Message::Appended { id, answer });
            return;
        }
        let age = append.majority_age.map(Millis);
        if !self.inbound.hears(age, self.config.timing.election_max) {
            tracing::debug!(%from, "a leader that hears nobody is not heard");
            return;
        }
        let ids: Vec<LogId> = append
            .prev
            .iter()
            .chain(append.entries.iter().map(|e| &e.at))
            .map(|p| p.id())
            .collect();
        // a leader of the past may well have other entries; openraft refuses it by its vote
        let leads = self.log.vote().is_none_or(|held| append.vote.vote() >= held);
        if let Some(index) = leads.then(|| self.log.fork(&ids)).flatten() {
            self.halt.raise(FatalReason::Fork { from, index });
            return;
        }
        self.claimed(from, &append);
        let Some(peer) = self.inbound.peer(from) else { return };
        let Ok(room) = Arc::clone(&peer.room).try_acquire_owned() else {
            tracing::warn!(%from, "too many requests at once: one is dropped");
            return;
        };
        let commit = append.commit.max(pairs::committed_by(&self.log, &self.me, &append));
        let commit = commit.map(|at| at.id());
        let commit = if casemate_proto::sabotaged!("applied_before_commit") {
            ids.last().copied()
        } else {
            commit
        };
        let request = AppendEntriesRequest {
            vote: append.vote.vote(),
            prev_log_id: append.prev.map(|at| at.id()),
            leader_commit: commit,
            entries: append.entries.into_iter().map(LogEntry::entry).collect(),
        };
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            let _room = room;
            let answer = match core.raft.append_entries(request).await {
                Ok(AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_)) => {
                    core.inbound.leader_heard();
                    if let Some(age) = age {
                        *core.inbound.heard.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some((Instant::now(), age));
                    }
                    Answer::Done
                }
                Ok(AppendEntriesResponse::Conflict) => {
                    core.inbound.leader_heard();
                    Answer::Conflict
                }
                Ok(AppendEntriesResponse::HigherVote(vote)) => {
                    Answer::HigherVote(VoteRecord::of(&vote))
                }
                Err(error) => return core.stopped(&error),
            };
            core.peers.outbox.send(from, &Message::Appended { id, answer });
        });
    }

    /// A leader no longer has what this boot lacks: it is over. Where this boot is promised to a later
    /// leader, or to itself after it was cut off, the sender must learn that first, as from an append.
    fn take_too_far_behind(&self, from: BootId, id: u64, vote: VoteRecord, purged: LogPosition) {
        if let Some(held) = self.log.vote().filter(|held| vote.vote() < *held) {
            let answer = Answer::HigherVote(VoteRecord::of(&held));
            self.peers.outbox.send(from, &Message::Appended { id, answer });
            return;
        }
        let last = self.log.last();
        if last.is_none_or(|last| last.index < purged.index) {
            let last = last.map(|last| last.index);
            self.halt.raise(FatalReason::FellBehind { last, kept: Some(purged) });
        }
    }

    /// A leader is there though what it sends is not all here yet: as good as a heartbeat.
    fn still_there(self: &Arc<Self>, vote: VoteRecord) {
        let refused = self.stamps.check_leader(vote.term, vote.boot, self.clock.now()).is_err();
        if refused || self.inbound.is_deaf() {
            return;
        }
        let request = AppendEntriesRequest {
            vote: vote.vote(),
            prev_log_id: None,
            leader_commit: None,
            entries: Vec::new(),
        };
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            match core.raft.append_entries(request).await {
                Ok(AppendEntriesResponse::HigherVote(_)) => {}
                Ok(_) => core.inbound.leader_heard(),
                Err(error) => core.stopped(&error),
            }
        });
    }

    fn take_vote(
        self: &Arc<Self>,
        from: BootId,
        id: u64,
        request: VoteRequest<crate::types::NodeId>,
    ) {
        let Some(peer) = self.inbound.peer(from) else { return };
        let Ok(room) = Arc::clone(&peer.room).try_acquire_owned() else { return };
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            let _room = room;
            match core.raft.vote(request).await {
                Ok(answer) => {
                    let message = Message::Voted {
                        id,
                        vote: VoteRecord::of(&answer.vote),
                        granted: answer.vote_granted,
                        last: position(answer.last_log_id.as_ref()),
                    };
                    core.peers.outbox.send(from, &message);
                }
                Err(error) => core.stopped(&error),
            }
        });
    }

    fn claimed(self: &Arc<Self>, from: BootId, append: &Append) {
        let mismatch = self.roots.lock().unwrap_or_else(PoisonError::into_inner).claim(
            from,
            append.size,
            append.root,
        );
        if let Some(mismatch) = mismatch {
            let core = Arc::clone(self);
            self.runtime.spawn(async move { core.tell(mismatch).await });
        }
    }

    /// Tells the node that a boot claims another root.
    pub(crate) async fn tell(&self, mismatch: Mismatch) {
        let Mismatch { from, size, theirs } = mismatch;
        tracing::error!(%from, size, "a boot has another root than this one");
        let node = self.peers.link(&from).map(|link| link.node);
        // where nobody takes it, the node is gone
        let _ = self.out.send(Out::RootMismatch { from, node, size, theirs }).await;
    }

    /// openraft answers nothing any more. The reason is the storage's where it has one.
    pub(crate) fn stopped(&self, error: &RaftError<crate::types::NodeId>) {
        if !self.halt.is_raised() {
            self.halt.raise(FatalReason::Stopped { reason: error.to_string() });
        }
    }
}
