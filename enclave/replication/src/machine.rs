//! The state machine's side: hands committed entries to the node, in order and each once, and waits
//! until the node has applied them.
//!
//! openraft believes an entry applied only when the node says so, by the size of its
//! [`AppliedView`]. At most [`RECENT_ROOTS`] entries are handed over ahead of that. A membership is
//! checked when everything before it is applied, against the boots that the ledger then calls current.
//!
//! Snapshots: none is ever made, sent or installed through openraft. It forgets log entries only below
//! a snapshot, so it is given a marker with no content when the log is to be forgotten; and where
//! it wants to install one, this boot fell behind and is over. A boot that lacks entries comes back
//! as a new boot, whose snapshot t other nodes vouch for ([`crate::join`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use casemate_ledger::{Committed, EntryBody};
use casemate_proto::{GenesisId, NodeName};
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageIOError,
};
use tokio::sync::{mpsc, watch};

use crate::Out;
use crate::fatal::{FatalReason, Halt, MembershipFault};
use crate::log_store::LogStore;
use crate::types::{
    LogId, LogPosition, MembershipRecord, Payload, Position, RaftEntry, StorageError,
    StoredMembership, TypeConfig,
};
use crate::view::{AppliedView, RECENT_ROOTS};

/// Where a committed entry stands. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedAt {
    log: LogPosition,
    membership: Arc<(MembershipRecord, LogPosition)>,
}

impl CommittedAt {
    /// What a boot that starts right behind this entry must be told.
    #[must_use]
    pub fn position(&self) -> Position {
        let (membership, membership_at) = self.membership.as_ref().clone();
        Position { log: self.log, membership, membership_at }
    }
    /// The entry's place in the log.
    #[must_use]
    pub const fn log(&self) -> LogPosition {
        self.log
    }
}

/// What a machine is made of.
pub(crate) struct MachineParts {
    pub(crate) out: mpsc::Sender<Out>,
    pub(crate) view: watch::Receiver<AppliedView>,
    pub(crate) log: LogStore,
    pub(crate) halt: Halt,
    pub(crate) roster: BTreeSet<NodeName>,
    pub(crate) genesis: GenesisId,
    /// For a boot that starts from a snapshot.
    pub(crate) start: Option<Position>,
}

/// The state machine as openraft has it.
pub(crate) struct Machine {
    out: mpsc::Sender<Out>,
    view: watch::Receiver<AppliedView>,
    log: LogStore,
    halt: Halt,
    roster: BTreeSet<NodeName>,
    genesis: GenesisId,
    /// How many ledger entries the node was handed, those of its snapshot included.
    handed: u64,
    /// The membership in force and where it stands; before the first, the genesis boots'.
    membership: Arc<(MembershipRecord, LogPosition)>,
    marker: Arc<Mutex<Marker>>,
}

/// What of the state machine openraft asks back for.
#[derive(Clone, Debug, Default)]
struct Marker {
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Up to where the last marker went.
    snapshot: Option<SnapshotMeta<crate::types::NodeId, crate::types::Member>>,
}

impl Machine {
    pub(crate) fn new(parts: MachineParts) -> Self {
        let MachineParts { out, view, log, halt, roster, genesis, start } = parts;
        let (handed, boots) = {
            let view = view.borrow();
            (view.size, Arc::clone(&view.boots))
        };
        let zero = LogPosition { term: 0, leader: crate::types::NodeId::default().0, index: 0 };
        let (marker, membership) = match start {
            None => (Marker::default(), (MembershipRecord::of_boots(&boots), zero)),
            Some(position) => {
                let marker = Marker {
                    applied: Some(position.log.id()),
                    membership: position.stored_membership(),
                    snapshot: None,
                };
                (marker, (position.membership, position.membership_at))
            }
        };
        let membership = Arc::new(membership);
        log.note_membership(Arc::clone(&membership));
        Self {
            out,
            view,
            log,
            halt,
            roster,
            genesis,
            handed,
            membership,
            marker: Arc::new(Mutex::new(marker)),
        }
    }

    async fn take(&mut self, entry: RaftEntry) -> Result<(), FatalReason> {
        let id = entry.log_id;
        let wanted = self.applied().map_or(0, |last| last.index.saturating_add(1));
        if id.index != wanted {
            return Err(FatalReason::ApplyGap { wanted, found: id.index });
        }
        let mut membership = None;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(payload) => self.hand(&payload, &id).await?,
            EntryPayload::Membership(next) => {
                // what is current is what the ledger says at exactly this place
                self.applied_within(0).await?;
                let record = MembershipRecord::of(&next);
                let complete = record.members.len() == next.nodes().count();
                let view = self.view.borrow().clone();
                let checked = if complete {
                    check_membership(&record, &self.membership.0, &view, &self.roster)
                } else {
                    Err(MembershipFault::Malformed)
                };
                checked
                    .map_err(|reason| FatalReason::ForeignMembership { index: id.index, reason })?;
                self.membership = Arc::new((record, LogPosition::of(&id)));
                self.log.note_membership(Arc::clone(&self.membership));
                membership = Some(StoredMembership::new(Some(id), next));
            }
        }
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        marker.applied = Some(id);
        if let Some(membership) = membership {
            marker.membership = membership;
        }
        Ok(())
    }

    fn applied(&self) -> Option<LogId> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner).applied
    }

    async fn hand(&mut self, payload: &Payload, id: &LogId) -> Result<(), FatalReason> {
        let is_genesis =
            matches!(payload.entry().body, EntryBody::Genesis { id } if id == self.genesis);
        if self.handed == 0 && !is_genesis {
            return Err(FatalReason::NotGenesis);
        }
        // openraft applies what a majority holds, and this is where it applies
        let (entry, attachment) = (payload.entry().clone(), payload.attachment().cloned());
        let committed = Box::new(Committed::dangerous_assume(entry, attachment));
        let at = CommittedAt { log: LogPosition::of(id), membership: Arc::clone(&self.membership) };
        // a view carries this many roots: between two of them none is missed
        self.applied_within(RECENT_ROOTS.saturating_sub(1)).await?;
        tokio::select! {
            () = self.halt.raised() => return Err(FatalReason::ApplierGone),
            sent = self.out.send(Out::Committed { committed, at }) => {
                sent.map_err(|_| FatalReason::ApplierGone)?;
            }
        }
        self.handed = self.handed.saturating_add(1);
        Ok(())
    }

    /// Waits until all but `behind` of what was handed over is applied.
    async fn applied_within(&mut self, behind: usize) -> Result<(), FatalReason> {
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        let wanted = self.handed.saturating_sub(behind);
        let found = tokio::select! {
            () = self.halt.raised() => return Err(FatalReason::ApplierGone),
            view = self.view.wait_for(|view| view.size >= wanted) => {
                view.map_err(|_| FatalReason::ApplierGone)?.size
            }
        };
        if found > self.handed {
            return Err(FatalReason::ApplierAhead { wanted: self.handed, found });
        }
        Ok(())
    }

    fn halted(&self, reason: FatalReason) -> StorageError {
        let error = StorageIOError::write_state_machine(AnyError::error(&reason));
        self.halt.raise(reason);
        error.into()
    }
}

/// Whether a membership may follow another: its voters are one boot for each node of the roster, in
/// each of its sets; and everybody in it is current, or was in the one before and is being replaced.
pub(crate) fn check_membership(
    next: &MembershipRecord,
    former: &MembershipRecord,
    view: &AppliedView,
    roster: &BTreeSet<NodeName>,
) -> Result<(), MembershipFault> {
    if !next.is_well_formed() {
        return Err(MembershipFault::Malformed);
    }
    for voters in &next.voters {
        let nodes: BTreeSet<&NodeName> =
            voters.iter().filter_map(|boot| next.members.get(boot)).collect();
        if !nodes.into_iter().eq(roster) {
            return Err(MembershipFault::NotTheRoster);
        }
    }
    for (boot, node) in &next.members {
        let current = view.boots.get(node) == Some(boot);
        let replaced = former.members.get(boot) == Some(node);
        if !current && !replaced {
            return Err(MembershipFault::Stranger { boot: *boot });
        }
    }
    Ok(())
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = MarkerBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((marker.applied, marker.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        let count = entries.len();
        for entry in entries {
            self.take(entry).await.map_err(|reason| self.halted(reason))?;
        }
        self.applied_within(0).await.map_err(|reason| self.halted(reason))?;
        if let Some(applied) = self.applied() {
            self.log.note_applied(applied);
        }
        Ok(vec![(); count])
    }

    async fn get_snapshot_builder(&mut self) -> MarkerBuilder {
        MarkerBuilder(Arc::clone(&self.marker))
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<()>, StorageError> {
        Ok(Box::new(()))
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta<crate::types::NodeId, crate::types::Member>,
        _snapshot: Box<()>,
    ) -> Result<(), StorageError> {
        let last = self.log.last().map(|id| id.index);
        Err(self.halted(FatalReason::FellBehind { last, kept: None }))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(marker.snapshot.clone().map(|meta| Snapshot { meta, snapshot: Box::new(()) }))
    }
}

/// Makes a marker of what is applied: a snapshot without content.
pub(crate) struct MarkerBuilder(Arc<Mutex<Marker>>);

impl RaftSnapshotBuilder<TypeConfig> for MarkerBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let mut marker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = SnapshotMeta {
            last_log_id: marker.applied,
            last_membership: marker.membership.clone(),
            snapshot_id: marker.applied.map_or_else(String::new, |id| id.to_string()),
        };
        marker.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: Box::new(()) })
    }
}
