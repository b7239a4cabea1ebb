//! openraft's network over channels that somebody else owns: requests out through the outbox,
//! answers matched by number *and* by the boot they were asked of.
//!
//! An answer is not believed further than it can be right. openraft trusts its followers: an answer
//! that takes back what was acknowledged, that conflicts where nothing was named, or that names a
//! promise to this boot itself would panic it or make a leader of nobody's choosing. Such answers are
//! dropped here as if they had not come.
//!
//! A heartbeat to a follower that is there is not waited for: see [`crate::beats`].
//!
//! openraft gives an append one heartbeat's time and then sends it again. What takes longer, since it
//! is large, is not sent twice: the same append asked for again goes on waiting for the first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_proto::{BootId, Millis, NodeName};
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::beats::Beats;
use crate::log_store::LogStore;
use crate::pairs;
use crate::pieces::Outbox;
use crate::types::{LogPosition, Member, NodeId, RaftEntry, TypeConfig, Vote, weight};
use crate::view::AppliedView;
use crate::wire::{Answer, Append, LogEntry, Message, VoteRecord, position};

/// Most requests to one boot that wait for an answer.
const MAX_WAITING: usize = 32;
/// How long an append that is asked for again goes on waiting for the first, at least.
const PATIENCE: Duration = Duration::from_secs(5);
/// And a second longer for each so many bytes of it.
const SLOWEST_LINE: usize = 64 * 1024;
/// How long before a follower is told again that it fell behind.
const TELL_AGAIN: Duration = Duration::from_secs(1);

type Failure = RPCError<NodeId, Member, RaftError<NodeId>>;

/// Why a request brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoAnswer {
    #[error("no channel to that boot is up")]
    NoLink,
    #[error("that boot was retired")]
    Retired,
    #[error("too many requests to that boot wait")]
    Crowded,
    #[error("the channel to that boot went down")]
    Lost,
    #[error("that boot does not follow this leader's clock")]
    AheadOfTime,
    #[error("the answer cannot be right")]
    Wrong,
    #[error("that boot fell behind and was told")]
    FellBehind,
}

/// What an answer brought.
#[derive(Debug)]
pub(crate) enum Reply {
    Appended(Answer),
    Voted { vote: VoteRecord, granted: bool, last: Option<LogPosition> },
    Consent(bool),
}

#[derive(Debug)]
struct Waiting {
    of: BootId,
    reply: oneshot::Sender<Reply>,
}

/// A channel to a boot.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) node: NodeName,
    pub(crate) up: bool,
    /// When it came up or went down.
    pub(crate) since: Instant,
    /// When something last came through it.
    pub(crate) heard: Option<Instant>,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) me: BootId,
    pub(crate) outbox: Outbox,
    pub(crate) log: LogStore,
    view: watch::Receiver<AppliedView>,
    /// How long ago a majority acknowledged this leader, as last reported.
    majority: Mutex<Option<(Instant, Millis)>>,
    links: Mutex<BTreeMap<BootId, Link>>,
    waiting: Mutex<Requests>,
    /// The last entry that each follower acknowledged, with the term of this boot's leadership.
    acknowledged: Mutex<BTreeMap<BootId, (u64, LogPosition)>>,
    beats: Beats,
    backoff: Duration,
}

#[derive(Debug, Default)]
struct Requests {
    next: u64,
    open: BTreeMap<u64, Waiting>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    pub(crate) fn new(
        me: BootId,
        outbox: Outbox,
        log: LogStore,
        view: watch::Receiver<AppliedView>,
        backoff: Duration,
    ) -> Self {
        Self {
            me,
            outbox,
            log,
            view,
            majority: Mutex::default(),
            links: Mutex::default(),
            waiting: Mutex::default(),
            acknowledged: Mutex::default(),
            beats: Beats::new(backoff),
            backoff,
        }
    }

    pub(crate) fn set_majority(&self, age: Option<Millis>) {
        *locked(&self.majority) = age.map(|age| (Instant::now(), age));
    }

    fn majority_age(&self) -> Option<u64> {
        let (at, age) = (*locked(&self.majority))?;
        let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(age.0.saturating_add(since))
    }

    /// A channel came up or went down. What waits for an answer through one that went down fails.
    pub(crate) fn set_link(&self, boot: BootId, node: NodeName, up: bool) {
        let mut links = locked(&self.links);
        // a node's former boots that are gone are of no use; what is kept is one for each node and
        // whatever is up
        links.retain(|other, link| *other == boot || link.up || link.node != node);
        if up || !self.view.borrow().retired.contains(&boot) {
            links.insert(boot, Link { node, up, since: Instant::now(), heard: None });
        } else {
            links.remove(&boot);
        }
        drop(links);
        if !up {
            self.beats.forget(&boot);
            locked(&self.waiting).open.retain(|_, waiting| waiting.of != boot);
        }
    }

    pub(crate) fn link(&self, boot: &BootId) -> Option<Link> {
        locked(&self.links).get(boot).cloned()
    }

    /// Something came from a boot.
    pub(crate) fn heard(&self, boot: &BootId) {
        if let Some(link) = locked(&self.links).get_mut(boot) {
            link.heard = Some(Instant::now());
        }
    }

    pub(crate) fn is_up(&self, boot: &BootId) -> bool {
        self.link(boot).is_some_and(|link| link.up)
    }

    /// Takes an answer. It counts only from the boot that was asked.
    pub(crate) fn answered(&self, from: BootId, id: u64, reply: Reply) {
        if self.beats.take(&from, id, matches!(reply, Reply::Appended(Answer::Done))) {
            return;
        }
        let mut waiting = locked(&self.waiting);
        if waiting.open.get(&id).is_none_or(|asked| asked.of != from) {
            return;
        }
        if let Some(asked) = waiting.open.remove(&id) {
            // whoever asked may have given up
            let _ = asked.reply.send(reply);
        }
    }

    /// Asks a boot whether it would elect one whose log ends there. `false` where it does not say.
    pub(crate) async fn ask_consent(
        self: &Arc<Self>,
        of: BootId,
        last: Option<LogPosition>,
    ) -> bool {
        match self.ask(of, |id| Message::AskConsent { id, last }) {
            Ok(mut asked) => matches!((&mut asked.answer).await, Ok(Reply::Consent(true))),
            Err(_) => false,
        }
    }

    fn ask(
        self: &Arc<Self>,
        of: BootId,
        message: impl FnOnce(u64) -> Message,
    ) -> Result<Asked, NoAnswer> {
        if self.view.borrow().retired.contains(&of) {
            return Err(NoAnswer::Retired);
        }
        if !self.is_up(&of) {
            return Err(NoAnswer::NoLink);
        }
        let (reply, answer) = oneshot::channel();
        let id = {
            let mut waiting = locked(&self.waiting);
            if waiting.open.values().filter(|asked| asked.of == of).count() >= MAX_WAITING {
                return Err(NoAnswer::Crowded);
            }
            let id = waiting.next;
            waiting.next = waiting.next.wrapping_add(1);
            waiting.open.insert(id, Waiting { of, reply });
            id
        };
        let asked = Asked { id, answer, peers: Arc::clone(self) };
        if self.outbox.send(of, &message(id)) { Ok(asked) } else { Err(NoAnswer::Lost) }
    }
}

/// A request that waits for its answer. Forgotten when it is dropped.
#[derive(Debug)]
struct Asked {
    id: u64,
    answer: oneshot::Receiver<Reply>,
    peers: Arc<Peers>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        locked(&self.peers.waiting).open.remove(&self.id);
    }
}

/// Makes clients.
pub(crate) struct Factory(pub(crate) Arc<Peers>);

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, _node: &Member) -> Client {
        Client { to: target.0, peers: Arc::clone(&self.0), under_way: None }
    }
}

/// Speaks to one boot.
pub(crate) struct Client {
    to: BootId,
    peers: Arc<Peers>,
    under_way: Option<UnderWay>,
}

/// An append that was sent and whose answer is still waited for.
struct UnderWay {
    what: (VoteRecord, Option<LogPosition>, Option<LogPosition>),
    until: Instant,
    asked: Asked,
}

/// How long an append of these entries may be on its way.
fn patience(entries: &[RaftEntry]) -> Duration {
    let bytes = entries.iter().map(weight).fold(0, usize::saturating_add);
    let seconds = u64::try_from(bytes / SLOWEST_LINE).unwrap_or(u64::MAX);
    PATIENCE.saturating_add(Duration::from_secs(seconds))
}

fn unreachable(error: NoAnswer) -> Failure {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl Client {
    fn append(&self, rpc: &AppendEntriesRequest<TypeConfig>) -> Append {
        let view = self.peers.view.borrow();
        Append {
            vote: VoteRecord::of(&rpc.vote),
            prev: position(rpc.prev_log_id.as_ref()),
            commit: position(rpc.leader_commit.as_ref()),
            entries: rpc.entries.iter().map(LogEntry::of).collect(),
            size: view.size,
            root: view.root,
            majority_age: self.peers.majority_age(),
        }
    }

    /// Sends a heartbeat that need not be waited for, if this is one. One that only says what the
    /// follower knows by itself is not even sent.
    fn beat(&self, rpc: &AppendEntriesRequest<TypeConfig>) -> bool {
        let (peers, term) = (&self.peers, rpc.vote.leader_id.term);
        let held = locked(&peers.acknowledged).get(&self.to).copied();
        let prev = position(rpc.prev_log_id.as_ref());
        let asks_nothing = rpc.entries.is_empty()
            && prev.is_some()
            && held.is_some_and(|(of, held)| of == term && prev <= Some(held));
        if !asks_nothing
            || !peers.beats.is_there(&self.to, term)
            || !peers.is_up(&self.to)
            || peers.view.borrow().retired.contains(&self.to)
        {
            return false;
        }
        let commit = position(rpc.leader_commit.as_ref());
        let is_news = peers.beats.tell(&self.to, commit);
        let knows = commit.is_some_and(|at| at.term == term && at.leader == peers.me)
            && commit <= held.map(|(_, held)| held)
            && peers
                .log
                .settled_membership()
                .is_some_and(|membership| pairs::are_majority(&membership, &peers.me, &self.to));
        if is_news && knows {
            return true;
        }
        let id = {
            let mut waiting = locked(&peers.waiting);
            let id = waiting.next;
            waiting.next = waiting.next.wrapping_add(1);
            id
        };
        peers.beats.sent(&self.to, id);
        peers.outbox.send(self.to, &Message::Append { id, append: self.append(rpc) })
    }

    /// Makes an answer to an append one that openraft may see.
    fn believe(
        &self,
        answer: Answer,
        vote: &Vote,
        (prev, last, commit): (Option<LogPosition>, Option<LogPosition>, Option<LogPosition>),
    ) -> Result<AppendEntriesResponse<NodeId>, NoAnswer> {
        let term = vote.leader_id.term;
        match answer {
            Answer::Done => {
                if let Some(matching) = last.or(prev) {
                    let mut acknowledged = locked(&self.peers.acknowledged);
                    acknowledged.retain(|_, (of, _)| *of == term);
                    let held = acknowledged.entry(self.to).or_insert((term, matching));
                    held.1 = held.1.max(matching);
                }
                self.peers.beats.answered(self.to, term, commit);
                Ok(AppendEntriesResponse::Success)
            }
            Answer::Conflict => {
                let held = locked(&self.peers.acknowledged).get(&self.to).copied();
                let takes_back = match (prev, held) {
                    (None, _) => true,
                    (Some(prev), Some((of, held))) => of == term && prev.index <= held.index,
                    (Some(_), None) => false,
                };
                if takes_back {
                    tracing::warn!(boot = %self.to, "a follower takes back what it acknowledged");
                    return Err(NoAnswer::Wrong);
                }
                Ok(AppendEntriesResponse::Conflict)
            }
            Answer::HigherVote(higher) => {
                let higher = self.promise(higher).ok_or(NoAnswer::Wrong)?;
                if higher > *vote {
                    Ok(AppendEntriesResponse::HigherVote(higher))
                } else {
                    Err(NoAnswer::Wrong)
                }
            }
            Answer::AheadOfTime { at, now } => {
                tracing::warn!(
                    boot = %self.to, stamp = at.0, clock = now.0,
                    "a follower's clock refuses this leader"
                );
                Err(NoAnswer::AheadOfTime)
            }
        }
    }

    /// A promise that another boot says it has given. Nobody else knows a later one of this boot's
    /// own than itself; and that somebody leads is believed of himself only. Whom it was given to does
    /// not matter, a boot that was retired since included: who gave it follows nobody below it, and
    /// would stay out for ever if no leader heard of it. One that nobody misses deposes nobody for
    /// long: it does not come to an election (see [`crate::elections`]).
    fn promise(&self, record: VoteRecord) -> Option<Vote> {
        let own = self.peers.log.vote().map_or(0, |vote| vote.leader_id.term);
        (record.boot != self.peers.me && crate::inbound::is_term_plausible(record.term, own))
            .then(|| VoteRecord { leads: false, ..record }.vote())
    }
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failure> {
        if self.beat(&rpc) {
            return Ok(AppendEntriesResponse::Success);
        }
        let prev = position(rpc.prev_log_id.as_ref());
        let last = rpc.entries.last().map(|entry| LogPosition::of(&entry.log_id));
        let what = (VoteRecord::of(&rpc.vote), prev, last);
        let same = self.under_way.take().filter(|under_way| {
            last.is_some() && under_way.what == what && Instant::now() < under_way.until
        });
        let fresh = match same {
            Some(under_way) => under_way,
            None => {
                let append = self.append(&rpc);
                let asked = self.peers.ask(self.to, |id| Message::Append { id, append });
                let until = Instant::now().checked_add(patience(&rpc.entries));
                let until = until.unwrap_or_else(Instant::now);
                if asked.is_err() && casemate_proto::sabotaged!("unreachable_agree") {
                    return Ok(AppendEntriesResponse::Success);
                }
                UnderWay { what, until, asked: asked.map_err(unreachable)? }
            }
        };
        // kept in `self` while it is waited for: openraft drops this future when its time is over
        let under_way = self.under_way.insert(fresh);
        let reply = (&mut under_way.asked.answer).await;
        self.under_way = None;
        match reply {
            Ok(Reply::Appended(answer)) => {
                let commit = position(rpc.leader_commit.as_ref());
                self.believe(answer, &rpc.vote, (prev, last, commit)).map_err(unreachable)
            }
            Ok(Reply::Voted { .. } | Reply::Consent(_)) => Err(unreachable(NoAnswer::Wrong)),
            Err(_) => Err(RPCError::Network(NetworkError::new(&NoAnswer::Lost))),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failure> {
        let asked = VoteRecord::of(&rpc.vote);
        let last = position(rpc.last_log_id.as_ref());
        let mut waiting = self
            .peers
            .ask(self.to, |id| Message::Vote { id, vote: asked, last })
            .map_err(unreachable)?;
        match (&mut waiting.answer).await {
            Ok(Reply::Voted { vote, granted, last }) => {
                let last = last.map(|last| last.id());
                if vote == asked {
                    return Ok(VoteResponse::new(rpc.vote, last, granted));
                }
                // what it promised before and holds to, since it refuses: perhaps to this very boot, in
                // an election that this one lost. It moves no vote here; what counts is how far its
                // log goes, since a boot that lags behind must leave the election to others.
                let held = if vote.term < asked.term {
                    Vote::new(vote.term, NodeId(vote.boot))
                } else {
                    self.promise(vote).ok_or_else(|| unreachable(NoAnswer::Wrong))?
                };
                Ok(VoteResponse::new(held, last, false))
            }
            Ok(Reply::Appended(_) | Reply::Consent(_)) => Err(unreachable(NoAnswer::Wrong)),
            Err(_) => Err(RPCError::Network(NetworkError::new(&NoAnswer::Lost))),
        }
    }

    /// Sends none: tells the follower that it fell behind, and waits before it may be told again.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        _snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let told = async {
            if let Some(purged) = self.peers.log.purged().as_ref().map(LogPosition::of) {
                let own = VoteRecord::of(&vote);
                let message = |id| Message::TooFarBehind { id, vote: own, purged };
                if let Ok(mut asked) = self.peers.ask(self.to, message)
                    && let Ok(Reply::Appended(Answer::HigherVote(higher))) =
                        (&mut asked.answer).await
                    && let Some(higher) = self.promise(higher).filter(|higher| *higher > vote)
                {
                    return SnapshotResponse::new(higher);
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            higher = told => Ok(higher),
            () = tokio::time::sleep(TELL_AGAIN) => {
                Err(StreamingError::Unreachable(Unreachable::new(&NoAnswer::FellBehind)))
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.peers.backoff))
    }
}
