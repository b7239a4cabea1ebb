//! Proposals: from a node to whoever leads, and there into the log.
//!
//! A proposal may be lost on the way; whoever made it proposes again, and `apply` gives the same
//! result twice. The leader stamps the time and appends. What cannot become a ledger entry, or only
//! one that every node would deny, is refused before that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use casemate_ledger::entry::{AttachmentError, MAX_ENTRY};
use casemate_ledger::{Attachment, Entry, EntryBody};
use casemate_proto::{BootId, NodeName, UnixMillis};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::core::Core;
use crate::types::{NodeId, Payload};
use crate::wire::Message;

/// Most proposals that wait for a leader.
const MAX_QUEUED: usize = 2_048;
/// Most bytes of proposals of one boot, this one's own included, that are on their way into the log.
const MAX_BYTES: usize = 24 * 1024 * 1024;
/// What a proposal counts at least.
const MIN_BYTES: usize = 2 * 1024;
/// Boots whose share is kept.
const MAX_PROPOSERS: usize = 64;
/// How long the leader does not append a second admission of a boot.
const ADMISSION_MEMORY: Duration = Duration::from_secs(5);

/// Why a proposal is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalRefused {
    /// The entry would be too large.
    #[error("the entry would have {size} bytes; at most {MAX_ENTRY} are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// What belongs beside the entry is missing, too large, or something else.
    #[error(transparent)]
    Attachment(#[from] AttachmentError),
    /// Nobody proposes a genesis: the first leader appends it.
    #[error("a genesis is not proposed")]
    Genesis,
    /// Nor a recovery: the boots that it names apply it before there is anything to replicate.
    #[error("a recovery is not proposed")]
    Recovery,
    /// Too much is on its way already.
    #[error("too many proposals wait")]
    Busy,
    /// Replication has stopped.
    #[error("replication has stopped")]
    Stopped,
}

/// Checks what can be checked of a proposal at once. Whether an attachment is what the entry names
/// takes a while and is looked at by the leader before it appends.
fn check(body: &EntryBody, attachment: Option<&Attachment>) -> Result<usize, ProposalRefused> {
    if matches!(body, EntryBody::Genesis { .. }) {
        return Err(ProposalRefused::Genesis);
    }
    if matches!(body, EntryBody::Recover { .. }) {
        return Err(ProposalRefused::Recovery);
    }
    // the stamp is not known yet: the largest has the longest encoding
    let entry = Entry { at: UnixMillis(u64::MAX), body: body.clone() };
    let size = entry.encode().len();
    if size > MAX_ENTRY {
        return Err(ProposalRefused::TooLarge { size });
    }
    body.expects(attachment)?;
    let beside = match attachment {
        None => 0,
        Some(
            Attachment::Genesis(bytes) | Attachment::Policy(bytes) | Attachment::Recovery(bytes),
        ) => bytes.len(),
    };
    Ok(size.saturating_add(beside))
}

/// A proposal that was checked.
#[derive(Debug)]
pub(crate) struct Proposal {
    body: EntryBody,
    attachment: Option<Attachment>,
    /// By when it has to be stamped.
    until: Option<UnixMillis>,
    /// Another boot's, which had it forwarded here: it goes no further.
    is_forwarded: bool,
    since: Instant,
    _room: OwnedSemaphorePermit,
}

/// The queue of proposals.
#[derive(Debug)]
pub(crate) struct Proposals {
    me: BootId,
    queue: mpsc::Sender<Proposal>,
    room: Mutex<BTreeMap<BootId, Arc<Semaphore>>>,
    /// Boots whose admission this leader appended a moment ago, with the ones that they replace.
    admitting: Mutex<BTreeMap<BootId, (BootId, Instant)>>,
    /// The latest time that this leader has stamped, and in which term: what it stamped in another may
    /// never have become an entry, and its clock may have been wrong then.
    stamped: Mutex<(u64, UnixMillis)>,
}

impl Proposals {
    pub(crate) fn new(me: BootId) -> (Self, mpsc::Receiver<Proposal>) {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED);
        let proposals = Self {
            me,
            queue,
            room: Mutex::default(),
            admitting: Mutex::default(),
            stamped: Mutex::default(),
        };
        (proposals, waiting)
    }

    /// Takes this node's own proposal.
    pub(crate) fn own(
        &self,
        body: EntryBody,
        attachment: Option<Attachment>,
        until: Option<UnixMillis>,
    ) -> Result<(), ProposalRefused> {
        self.queue(self.me, body, attachment, until)
    }

    /// Takes what another boot forwarded to this leader.
    pub(crate) fn forwarded(
        &self,
        from: BootId,
        body: EntryBody,
        attachment: Option<Attachment>,
        until: Option<UnixMillis>,
    ) {
        if let Err(error) = self.queue(from, body, attachment, until) {
            tracing::warn!(%from, %error, "a forwarded proposal is refused");
        }
    }

    fn queue(
        &self,
        from: BootId,
        body: EntryBody,
        attachment: Option<Attachment>,
        until: Option<UnixMillis>,
    ) -> Result<(), ProposalRefused> {
        let size = check(&body, attachment.as_ref())?;
        let room = self.room(from, size)?;
        let proposal = Proposal {
            body,
            attachment,
            until,
            is_forwarded: from != self.me,
            since: Instant::now(),
            _room: room,
        };
        self.queue.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposalRefused::Busy,
            mpsc::error::TrySendError::Closed(_) => ProposalRefused::Stopped,
        })
    }

    fn room(&self, of: BootId, size: usize) -> Result<OwnedSemaphorePermit, ProposalRefused> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if !room.contains_key(&of) && room.len() >= MAX_PROPOSERS {
            // those of retired boots; what is under way holds its own
            room.retain(|boot, share| *boot == self.me || share.available_permits() < MAX_BYTES);
        }
        let share = room.entry(of).or_insert_with(|| Arc::new(Semaphore::new(MAX_BYTES)));
        let bytes = u32::try_from(size.max(MIN_BYTES)).map_err(|_| ProposalRefused::Busy)?;
        Arc::clone(share).try_acquire_many_owned(bytes).map_err(|_| ProposalRefused::Busy)
    }

    /// Whether this leader may append the admission of a boot in another's place; notes that it does. Not
    /// twice in a row; and not where too few of the voters would be left to make it one itself.
    fn admits(&self, boot: BootId, former: BootId, voters: &Voters<'_>) -> bool {
        let mut admitting = self.admitting.lock().unwrap_or_else(PoisonError::into_inner);
        admitting.retain(|_, (_, at)| at.elapsed() < ADMISSION_MEMORY);
        if admitting.len() >= MAX_PROPOSERS || admitting.contains_key(&boot) {
            return false;
        }
        let leaving: BTreeSet<BootId> =
            admitting.values().map(|(former, _)| *former).chain([former]).collect();
        if !voters.remain_without(&leaving) {
            tracing::info!(%boot, "not admitted yet: the members must change before another boot is retired");
            return false;
        }
        admitting.insert(boot, (former, Instant::now()));
        true
    }
}

/// Who votes, and who of them is current. An admission retires the boot that it replaces, which stops
/// answering when it learns so. The new one votes only when the members have changed, and that takes a
/// majority of those who voted before: so whoever retires a majority of them at once has nobody left to
/// change the members with.
struct Voters<'a> {
    /// One set, or two while they change; each needs a majority of its own.
    sets: &'a [BTreeSet<NodeId>],
    current: &'a BTreeMap<NodeName, BootId>,
}

impl Voters<'_> {
    /// Whether a majority of each set is current and not among those who leave.
    fn remain_without(&self, leaving: &BTreeSet<BootId>) -> bool {
        self.sets.iter().all(|set| {
            let remains = |id: &&NodeId| {
                !leaving.contains(&id.0) && self.current.values().any(|boot| *boot == id.0)
            };
            set.iter().filter(remains).count() > set.len() / 2
        })
    }
}

impl Core {
    /// Works off the queue, until replication stops.
    pub(crate) async fn run_proposals(self: Arc<Self>, mut waiting: mpsc::Receiver<Proposal>) {
        loop {
            let next = tokio::select! {
                () = self.halt.raised() => return,
                next = waiting.recv() => next,
            };
            let Some(proposal) = next else { return };
            self.place(proposal).await;
        }
    }

    /// Appends, forwards, or waits for a leader, up to its patience.
    async fn place(self: &Arc<Self>, proposal: Proposal) {
        let mut metrics = self.raft.metrics();
        // a leader that is lost is replaced within two of the longest waits for an election, mostly
        let patience = Duration::from_millis(self.config.timing.election_max.0).saturating_mul(3);
        loop {
            let leader = metrics.borrow_and_update().current_leader.map(|id| id.0);
            match leader {
                Some(leader) if leader == self.me => {
                    // nothing goes before the genesis
                    if self.view.borrow().size > 0 {
                        return self.append(proposal).await;
                    }
                }
                Some(_) if proposal.is_forwarded => return,
                Some(leader) if self.peers.is_up(&leader) => {
                    let Proposal { body, attachment, until, .. } = proposal;
                    self.peers.outbox.send(leader, &Message::Propose { body, attachment, until });
                    return;
                }
                Some(_) | None => {}
            }
            if proposal.since.elapsed() >= patience {
                tracing::debug!(kind = proposal.body.kind(), "no leader took a proposal");
                return;
            }
            let pause = tokio::time::sleep(Duration::from_millis(50));
            tokio::select! {
                () = self.halt.raised() => return,
                _ = metrics.changed() => {}
                () = pause => {}
            }
        }
    }

    async fn append(self: &Arc<Self>, proposal: Proposal) {
        let mut turn = None;
        if let EntryBody::Admit(record) = &proposal.body {
            // whoever asks is heard again a moment later
            turn = Arc::clone(&self.turn).try_lock_owned().ok();
            if turn.is_none() || !self.may_admit(record.id(), &record.node) {
                return;
            }
        }
        let Proposal { body, attachment, until, _room, .. } = proposal;
        let (body, attachment) = match attachment {
            None => (body, None),
            Some(attachment) => {
                // a large policy is read for some tenths of a second
                let checked = self.runtime.spawn_blocking(move || {
                    body.check_attachment(Some(&attachment)).map(|()| (body, attachment))
                });
                match checked.await {
                    Ok(Ok((body, attachment))) => (body, Some(attachment)),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "a proposal is refused");
                        return;
                    }
                    Err(_) => return,
                }
            }
        };
        let at = self.clock.now();
        if !self.stamps_in_time(at, until) {
            tracing::debug!(kind = body.kind(), "a proposal has come too late to be an entry");
            return;
        }
        let entry = Entry { at, body };
        let core = Arc::clone(self);
        match self.raft.client_write_ff(Payload::new(entry, attachment)).await {
            Ok(written) => {
                // its share is taken until it is applied, or lost with this boot's leadership
                self.runtime.spawn(async move {
                    let (_room, _turn) = (_room, turn);
                    tokio::select! {
                        () = core.halt.raised() => {}
                        _ = written => {}
                    }
                });
            }
            Err(fatal) => self.stopped(&openraft::error::RaftError::Fatal(fatal)),
        }
    }

    /// Whether the ledger's time at an entry that this leader stamps now is not past `until`: the stamps of
    /// all that goes before it count, applied or not. Notes the stamp.
    fn stamps_in_time(&self, at: UnixMillis, until: Option<UnixMillis>) -> bool {
        let term = self.raft.metrics().borrow().current_term;
        let mut stamped = self.proposals.stamped.lock().unwrap_or_else(PoisonError::into_inner);
        if stamped.0 != term {
            *stamped = (term, UnixMillis(0));
        }
        let before = self.log.latest_unapplied_stamp().max(self.view.borrow().time);
        let time = at.max(stamped.1).max(before);
        if until.is_some_and(|until| time > until) {
            return false;
        }
        stamped.1 = stamped.1.max(at);
        true
    }

    /// Whether this leader appends a boot's admission: not while it reaches the boot that the new one
    /// would replace, or did a moment ago, not twice in a row, and not where it would retire the majority.
    fn may_admit(&self, boot: BootId, node: &NodeName) -> bool {
        let view = self.view.borrow().clone();
        if view.is_current(&boot) || view.retired.contains(&boot) {
            return false;
        }
        let Some(former) = view.boots.get(node) else { return false };
        // one that the ledger would refuse does not fill the log
        if view.admits_from.get(node).is_some_and(|from| self.clock.now() < *from) {
            tracing::warn!(%node, "a new boot is not admitted: the node was restarted too often");
            return false;
        }
        let gone_after = Duration::from_millis(self.config.gone_after.0);
        // a member that is there answers every heartbeat, whatever its channel looks like
        let ten_beats = Duration::from_millis(self.config.timing.heartbeat.0).saturating_mul(10);
        let silent_after = gone_after.saturating_add(ten_beats);
        let is_gone = *former != self.me
            && match self.peers.link(former) {
                Some(link) if link.up => link.heard.unwrap_or(link.since).elapsed() >= silent_after,
                Some(link) => link.since.elapsed() >= gone_after,
                None => self.started.elapsed() >= gone_after,
            };
        if !is_gone {
            tracing::info!(%node, "a new boot is not admitted: the current one is there");
            return false;
        }
        let metrics = self.raft.metrics().borrow().clone();
        let sets = metrics.membership_config.membership().get_joint_config().clone();
        let voters = Voters { sets: &sets, current: &view.boots };
        self.proposals.admits(boot, *former, &voters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(byte: u8) -> BootId {
        BootId::new([byte; 32])
    }
    fn set(bytes: &[u8]) -> BTreeSet<NodeId> {
        bytes.iter().map(|byte| NodeId(boot(*byte))).collect()
    }
    fn current(bytes: &[u8]) -> BTreeMap<NodeName, BootId> {
        let name = |at: usize| NodeName::new(&format!("n{at}")).unwrap();
        bytes.iter().enumerate().map(|(at, byte)| (name(at), boot(*byte))).collect()
    }
    fn remain(sets: &[&[u8]], now: &[u8], leaving: &[u8]) -> bool {
        let sets: Vec<_> = sets.iter().map(|bytes| set(bytes)).collect();
        let leaving = leaving.iter().map(|byte| boot(*byte)).collect();
        Voters { sets: &sets, current: &current(now) }.remain_without(&leaving)
    }

    #[test]
    fn admission_that_would_retire_a_majority_of_the_voters_waits() {
        assert!(remain(&[&[1, 2, 3]], &[1, 2, 3], &[1]));
        // the first's new boot is admitted and does not vote yet
        assert!(!remain(&[&[1, 2, 3]], &[11, 2, 3], &[2]));
        assert!(!remain(&[&[1, 2, 3]], &[1, 2, 3], &[1, 2]));
        // it votes now
        assert!(remain(&[&[11, 2, 3]], &[11, 2, 3], &[2]));
        // in the midst of that, both sets count
        assert!(!remain(&[&[1, 2, 3], &[11, 2, 3]], &[11, 2, 3], &[2]));
        assert!(remain(&[&[1, 2, 3, 4, 5]], &[11, 2, 3, 4, 5], &[2]));
        assert!(!remain(&[&[1, 2, 3, 4, 5]], &[11, 12, 3, 4, 5], &[3]));
    }

    #[test]
    fn new_boot_that_fails_before_it_votes_can_be_replaced() {
        assert!(remain(&[&[1, 2, 3]], &[11, 2, 3], &[11]));
    }

    #[test]
    fn admissions_under_way_count_and_none_is_made_twice() {
        let (proposals, _queue) = Proposals::new(boot(3));
        let (sets, current) = ([set(&[1, 2, 3])], current(&[1, 2, 3]));
        let voters = Voters { sets: &sets, current: &current };
        assert!(proposals.admits(boot(11), boot(1), &voters));
        assert!(!proposals.admits(boot(11), boot(1), &voters));
        assert!(!proposals.admits(boot(12), boot(2), &voters));
        // another boot of the first node, which was started twice
        assert!(proposals.admits(boot(13), boot(1), &voters));
    }
}
