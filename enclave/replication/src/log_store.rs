//! The log and the vote, in memory, at arm's length from openraft.
//!
//! Each thing that openraft asks for is checked against what Raft may do, whatever openraft's reason
//! for asking: entries follow each other in index and in term; the vote never falls; nothing that is
//! committed is cut; nothing that is not applied is forgotten. Where a check fails this boot is over
//! ([`FatalReason`]): a log of its own memory that broke one of these may have taken part in forgetting
//! what was spent (I6) or in two histories (I7).
//!
//! A restart begins with an empty store under another member's id, so nothing here outlives a boot.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casemate_ledger::EntryBody;
use casemate_proto::{BootId, UnixMillis};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, StorageIOError};

use tokio::sync::{mpsc, watch};

use crate::Out;
use crate::fatal::{FatalReason, Halt};
use crate::types::{
    LogId, LogPosition, MembershipRecord, RaftEntry, StorageError, TypeConfig, Vote, weight,
};
use crate::view::AppliedView;
use crate::wire::{APPEND_BYTES, MAX_ENTRIES};

/// The log of one boot. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    log: Arc<Mutex<Log>>,
    halt: Halt,
    herald: Option<Herald>,
}

/// Tells the node what this boot appends as the leader.
#[derive(Clone, Debug)]
pub(crate) struct Herald {
    pub(crate) me: BootId,
    pub(crate) out: mpsc::Sender<Out>,
    pub(crate) view: watch::Receiver<AppliedView>,
}

#[derive(Debug, Default)]
struct Log {
    vote: Option<Vote>,
    /// The last entry that was forgotten, or that was never here: where a new boot's snapshot ends.
    purged: Option<LogId>,
    /// What follows `purged`, without a gap.
    entries: VecDeque<RaftEntry>,
    committed: Option<LogId>,
    applied: Option<LogId>,
    weight: usize,
    /// The membership that was applied last, and where it stands.
    membership: Option<Arc<(MembershipRecord, LogPosition)>>,
}

impl Log {
    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |id| id.index.saturating_add(1))
    }

    fn first_index(&self) -> u64 {
        self.purged.map_or(0, |id| id.index.saturating_add(1))
    }

    /// The place in `entries` of the entry with this index.
    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first_index())?).ok()
    }

    fn id_at(&self, index: u64) -> Option<LogId> {
        if self.purged.is_some_and(|id| id.index == index) {
            return self.purged;
        }
        self.entries.get(self.place(index)?).map(|entry| entry.log_id)
    }

    fn append(&mut self, entry: RaftEntry) -> Result<(), FatalReason> {
        let wanted = self.next_index();
        let id = entry.log_id;
        if id.index != wanted {
            return Err(FatalReason::Gap { wanted, found: id.index });
        }
        if self.last().is_some_and(|last| id.leader_id < last.leader_id) {
            return Err(FatalReason::Backwards { index: id.index });
        }
        self.weight = self.weight.saturating_add(weight(&entry));
        self.entries.push_back(entry);
        Ok(())
    }

    fn cut(&mut self, from: LogId) -> Result<(), FatalReason> {
        let held = self.committed.max(self.applied).max(self.purged);
        if let Some(held) = held.filter(|held| from.index <= held.index) {
            return Err(FatalReason::CommittedCut { from: from.index, committed: held.index });
        }
        let Some(place) = self.place(from.index) else {
            return Err(FatalReason::Gap { wanted: self.first_index(), found: from.index });
        };
        while self.entries.len() > place {
            if let Some(entry) = self.entries.pop_back() {
                self.weight = self.weight.saturating_sub(weight(&entry));
            }
        }
        Ok(())
    }

    fn purge(&mut self, upto: LogId) -> Result<(), FatalReason> {
        if self.purged.is_some_and(|purged| upto.index <= purged.index) {
            return Ok(());
        }
        let applied = self.applied.map(|id| id.index);
        if applied.is_none_or(|applied| upto.index > applied) || self.id_at(upto.index).is_none() {
            return Err(FatalReason::UnappliedPurge { upto: upto.index, applied });
        }
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            if let Some(entry) = self.entries.pop_front() {
                self.weight = self.weight.saturating_sub(weight(&entry));
                self.purged = Some(entry.log_id);
            }
        }
        Ok(())
    }

    fn commit(&mut self, id: LogId) -> Result<(), FatalReason> {
        if Some(id) <= self.committed {
            return Ok(());
        }
        if self.id_at(id.index) != Some(id) {
            return Err(FatalReason::UnknownCommit { index: id.index });
        }
        self.committed = Some(id);
        Ok(())
    }

    fn save_vote(&mut self, vote: Vote) -> Result<(), FatalReason> {
        if let Some(held) = self.vote
            && (vote < held)
        {
            let (held, offered) = (held.leader_id.term, vote.leader_id.term);
            return Err(FatalReason::VoteFell { held, offered });
        }
        self.vote = Some(vote);
        Ok(())
    }
}

impl LogStore {
    /// An empty log that begins behind `start`: nothing at a birth, the admission's entry for a boot
    /// that starts from a snapshot.
    pub(crate) fn new(start: Option<LogId>, halt: Halt) -> Self {
        let log = Log { purged: start, committed: start, applied: start, ..Log::default() };
        Self { log: Arc::new(Mutex::new(log)), halt, herald: None }
    }

    /// The same log, which tells the node of what is appended to it.
    pub(crate) fn with_herald(self, herald: Herald) -> Self {
        Self { herald: Some(herald), ..self }
    }

    /// Tells the node of the last entry, if it is a request of this leader's with nothing before it
    /// that is not applied.
    fn announce(&self) {
        let Some(herald) = &self.herald else { return };
        let log = self.lock();
        let is_ledgers = |entry: &&RaftEntry| matches!(entry.payload, EntryPayload::Normal(_));
        let mut open = log
            .entries
            .iter()
            .rev()
            .take_while(|entry| Some(entry.log_id) > log.applied)
            .filter(is_ledgers);
        let (Some(last), None) = (open.next(), open.next()) else { return };
        let is_own = last.log_id.leader_id.node_id.0 == herald.me;
        if let EntryPayload::Normal(payload) = &last.payload
            && matches!(payload.entry().body, EntryBody::Request { .. })
            && is_own
        {
            let (index, entry) = (herald.view.borrow().size, Box::new(payload.entry().clone()));
            // a hint: where there is no room, the node learns it when it is committed
            let _ = herald.out.try_send(Out::Appended { index, entry });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn halted(&self, reason: FatalReason) -> StorageError {
        let error = StorageIOError::write_logs(openraft::AnyError::error(&reason));
        self.halt.raise(reason);
        error.into()
    }

    /// Records that the state machine has applied up to here.
    pub(crate) fn note_applied(&self, id: LogId) {
        let mut log = self.lock();
        log.applied = log.applied.max(Some(id));
        log.committed = log.committed.max(Some(id));
    }

    /// The vote that is held.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.lock().vote
    }

    /// The last entry's id.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.lock().last()
    }

    /// The last entry that is not here any more, or never was.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.lock().purged
    }

    /// Looks whether a leader's log differs from what is committed here. Gives the first index at
    /// which it does. Of what is forgotten only the order is
    /// known.
    pub(crate) fn fork<'i>(&self, theirs: impl IntoIterator<Item = &'i LogId>) -> Option<u64> {
        let log = self.lock();
        let committed = log.committed.max(log.applied)?;
        theirs
            .into_iter()
            .take_while(|id| id.index <= committed.index)
            // what is forgotten was at least not of a later leader than what came after it
            .find(|id| **id > committed || log.id_at(id.index).is_some_and(|ours| ours != **id))
            .map(|id| id.index)
    }

    /// Whether this very entry is here, or is the last that was forgotten.
    pub(crate) fn holds(&self, at: &LogPosition) -> bool {
        self.lock().id_at(at.index) == Some(at.id())
    }

    /// Records the membership that is applied.
    pub(crate) fn note_membership(&self, membership: Arc<(MembershipRecord, LogPosition)>) {
        self.lock().membership = Some(membership);
    }

    /// The membership in force, if it is applied and the log has no other behind it.
    pub(crate) fn settled_membership(&self) -> Option<MembershipRecord> {
        let log = self.lock();
        let settled = log.membership.as_ref()?;
        let is_last = log
            .entries
            .iter()
            .rev()
            .take_while(|entry| Some(entry.log_id) > log.applied)
            .filter(|entry| matches!(entry.payload, EntryPayload::Membership(_)))
            .all(|entry| entry.log_id.index <= settled.1.index);
        is_last.then(|| settled.0.clone())
    }

    /// The latest stamp in the log of what is not applied yet; nothing of that, the beginning of time.
    pub(crate) fn latest_unapplied_stamp(&self) -> UnixMillis {
        let log = self.lock();
        let open = log.entries.iter().rev().take_while(|entry| Some(entry.log_id) > log.applied);
        let stamps = open.filter_map(|entry| match &entry.payload {
            EntryPayload::Normal(payload) => Some(payload.entry().at),
            _ => None,
        });
        stamps.max().unwrap_or_default()
    }

    /// Whether a ledger entry is in the log that is not applied yet.
    pub(crate) fn has_unapplied_ledger_entry(&self) -> bool {
        let log = self.lock();
        log.entries
            .iter()
            .rev()
            .take_while(|entry| Some(entry.log_id) > log.applied)
            .any(|entry| matches!(entry.payload, EntryPayload::Normal(_)))
    }

    /// Whether the log has an admission that is not applied: who is current changes with it.
    pub(crate) fn has_unapplied_admission(&self) -> bool {
        let log = self.lock();
        let is_admission = |entry: &RaftEntry| match &entry.payload {
            EntryPayload::Normal(payload) => matches!(payload.entry().body, EntryBody::Admit(_)),
            _ => false,
        };
        let open = log.entries.iter().rev().take_while(|entry| Some(entry.log_id) > log.applied);
        open.into_iter().any(is_admission)
    }

    /// Up to where to forget so that at most so many entries and bytes are kept; `None` while they
    /// are within it. Only what is applied counts: the rest must be kept. Goes a quarter below the
    /// caps, so as not to be asked for one entry at a time.
    pub(crate) fn excess(&self, entries: usize, bytes: usize) -> Option<u64> {
        let log = self.lock();
        if log.entries.len() <= entries && log.weight <= bytes {
            return None;
        }
        let lower = |cap: usize| cap.saturating_sub(cap / 4);
        let (mut count, mut weighs, mut upto) = (log.entries.len(), log.weight, None);
        for entry in &log.entries {
            if (count <= lower(entries) && weighs <= lower(bytes))
                || Some(entry.log_id) > log.applied
            {
                break;
            }
            count = count.saturating_sub(1);
            weighs = weighs.saturating_sub(weight(entry));
            upto = Some(entry.log_id.index);
        }
        upto
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + core::fmt::Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, StorageError> {
        let log = self.lock();
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let skip = usize::try_from(from.saturating_sub(log.first_index())).unwrap_or(usize::MAX);
        let entries = log.entries.iter().skip(skip);
        Ok(entries.take_while(|entry| range.contains(&entry.log_id.index)).cloned().collect())
    }

    /// As much as fits a message; at least one entry, however large.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, StorageError> {
        let log = self.lock();
        let skip = usize::try_from(start.saturating_sub(log.first_index())).unwrap_or(usize::MAX);
        let mut bytes = 0_usize;
        let entries = log.entries.iter().skip(skip).take(MAX_ENTRIES).enumerate();
        Ok(entries
            .take_while(|(place, entry)| {
                bytes = bytes.saturating_add(weight(entry));
                entry.log_id.index < end && (*place == 0 || bytes <= APPEND_BYTES)
            })
            .map(|(_, entry)| entry.clone())
            .collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let log = self.lock();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let result = self.lock().save_vote(*vote);
        result.map_err(|reason| self.halted(reason))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.vote())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let result = committed.map_or(Ok(()), |id| self.lock().commit(id));
        result.map_err(|reason| self.halted(reason))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let result = {
            let mut log = self.lock();
            entries.into_iter().try_for_each(|entry| log.append(entry))
        };
        result.map_err(|reason| self.halted(reason))?;
        callback.log_io_completed(Ok(()));
        self.announce();
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let result = self.lock().cut(log_id);
        result.map_err(|reason| self.halted(reason))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let result = self.lock().purge(log_id);
        result.map_err(|reason| self.halted(reason))
    }
}
