//! Puts the rooms together: starts openraft over them, and the tasks beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use casemate_ledger::{Attachment, Entry, EntryBody};
use casemate_proto::manifest::GenesisRecord;
use casemate_proto::{BootId, Millis, NodeName};
use openraft::SnapshotPolicy;
use openraft::error::{InitializeError, RaftError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Out;
use crate::config::Config;
use crate::fatal::{FatalReason, Halt};
use crate::inbound::Inbound;
use crate::log_store::{Herald, LogStore};
use crate::machine::{Machine, MachineParts};
use crate::network::{Factory, Peers};
use crate::pieces::Outbox;
use crate::proposals::Proposals;
use crate::roots::Roots;
use crate::time::{ReadClock, Stamps};
use crate::types::{LogId, Member, NodeId, Payload, Position, Raft};
use crate::view::AppliedView;
use crate::wire::MAX_ENTRIES;

/// Where a boot starts.
#[derive(Clone, Debug)]
pub enum StartAt {
    /// At its cluster's birth, with an empty log.
    Genesis,
    /// Right behind the entry that admitted it.
    Snapshot(Position),
    /// With an empty log behind the entry that began an incarnation, which every boot of the recovery
    /// applied by itself.
    Recovery,
}

/// Everything that replication is started with.
pub struct Start {
    /// Where to start.
    pub at: StartAt,
    /// The cluster's birth: who it is made of, and its first entry.
    pub genesis: GenesisRecord,
    /// This boot.
    pub me: BootId,
    /// The node that it is a boot of.
    pub node: NodeName,
    /// How to work.
    pub config: Config,
    /// This node's clock.
    pub clock: Arc<dyn ReadClock>,
    /// What is to be done. Give it room for a thousand or so: messages for which there is none are
    /// lost, and a large policy is some seventy of them for each peer.
    pub out: mpsc::Sender<Out>,
    /// What the node has applied. Its size must be that of the state that this boot starts from.
    pub applied: watch::Receiver<AppliedView>,
}

/// Why replication cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Raft's times contradict each other.
    #[error("the times of replication: {reason}")]
    Timing {
        /// What openraft says of them.
        reason: String,
    },
    /// The place to start at is malformed.
    #[error("the place in the log to start at is malformed")]
    Position,
    /// The applied state does not fit the place to start at.
    #[error("replication starts with {size} entries applied at {place}")]
    Size {
        /// Entries applied.
        size: u64,
        /// Where it starts.
        place: &'static str,
    },
    /// This boot is not current in the state that it starts from.
    #[error("boot `{boot}` is not node `{node}`'s current one")]
    NotCurrent {
        /// This boot.
        boot: BootId,
        /// Its node.
        node: NodeName,
    },
    /// openraft does not start.
    #[error("replication does not start: {reason}")]
    Raft {
        /// What it says.
        reason: String,
    },
}

/// What the tasks of one boot's replication share.
pub(crate) struct Core {
    pub(crate) me: BootId,
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) halt: Halt,
    pub(crate) peers: Arc<Peers>,
    pub(crate) inbound: Inbound,
    pub(crate) proposals: Proposals,
    pub(crate) stamps: Stamps,
    pub(crate) roots: Mutex<Roots>,
    pub(crate) clock: Arc<dyn ReadClock>,
    pub(crate) view: watch::Receiver<AppliedView>,
    pub(crate) out: mpsc::Sender<Out>,
    pub(crate) runtime: Handle,
    pub(crate) started: Instant,
    pub(crate) genesis: GenesisRecord,
    majority: Mutex<Option<(Instant, Millis)>>,
    /// Whoever has it may append an admission, until that is applied, or change the members: one that
    /// is changed behind an admission may be retired by it.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

impl Core {
    pub(crate) async fn start(start: Start) -> Result<Arc<Self>, StartError> {
        let Start { at, genesis, me, node, config, clock, out, applied } = start;
        let view = applied.borrow().clone();
        if view.boots.get(&node) != Some(&me) {
            return Err(StartError::NotCurrent { boot: me, node });
        }
        let position = match at {
            StartAt::Genesis if view.size > 0 => {
                return Err(StartError::Size { size: view.size, place: "the birth" });
            }
            StartAt::Recovery if view.size == 0 => {
                return Err(StartError::Size { size: 0, place: "a recovery" });
            }
            StartAt::Snapshot(_) if view.size == 0 => {
                return Err(StartError::Size { size: 0, place: "an admission" });
            }
            StartAt::Snapshot(position) if !position.is_well_formed() => {
                return Err(StartError::Position);
            }
            StartAt::Genesis | StartAt::Recovery => None,
            StartAt::Snapshot(position) => Some(position),
        };
        let begins = position.is_none();
        let halt = Halt::new();
        let herald = Herald { me, out: out.clone(), view: applied.clone() };
        let log = LogStore::new(position.as_ref().map(|position| position.log.id()), halt.clone())
            .with_herald(herald);
        let machine = Machine::new(MachineParts {
            out: out.clone(),
            view: applied.clone(),
            log: log.clone(),
            halt: halt.clone(),
            roster: genesis.manifest.nodes.iter().map(|node| node.name.clone()).collect(),
            genesis: genesis.id(),
            start: position,
        });
        let backoff = Duration::from_millis(config.timing.heartbeat.0);
        let outbox = Outbox::new(out.clone());
        let peers = Arc::new(Peers::new(me, outbox, log.clone(), applied.clone(), backoff));
        let raft = Raft::new(
            NodeId(me),
            Arc::new(raft_config(&config)?),
            Factory(Arc::clone(&peers)),
            log.clone(),
            machine,
        )
        .await
        .map_err(|error| StartError::Raft { reason: error.to_string() })?;
        let (proposals, queued) = Proposals::new(me);
        let core = Arc::new(Self {
            me,
            config,
            raft,
            log,
            halt,
            peers,
            inbound: Inbound::default(),
            proposals,
            stamps: Stamps::new(config.delta),
            roots: Mutex::default(),
            clock,
            view: applied,
            out,
            runtime: Handle::current(),
            started: Instant::now(),
            genesis,
            majority: Mutex::default(),
            turn: Arc::default(),
        });
        core.watch_roots(&view);
        if begins {
            core.initialize(&view.boots).await?;
        }
        let handle = core.runtime.clone();
        handle.spawn(Arc::clone(&core).run_proposals(queued));
        handle.spawn(Arc::clone(&core).run_membership());
        handle.spawn(Arc::clone(&core).run_views());
        handle.spawn(Arc::clone(&core).run_elections());
        handle.spawn(Arc::clone(&core).run_genesis());
        handle.spawn(Arc::clone(&core).run_purge());
        handle.spawn(Arc::clone(&core).run_metrics());
        handle.spawn(Arc::clone(&core).run_end());
        Ok(core)
    }

    /// Makes the boots that begin, at the birth or in a recovery, the first members. Every boot does so with the very same entry, so it
    /// does not matter who is first.
    async fn initialize(&self, boots: &BTreeMap<NodeName, BootId>) -> Result<(), StartError> {
        let members: BTreeMap<NodeId, Member> =
            boots.iter().map(|(node, boot)| (NodeId(*boot), Member(Some(node.clone())))).collect();
        match self.raft.initialize(members).await {
            // another leads already, with the same first entry
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(StartError::Raft { reason: error.to_string() }),
        }
    }

    /// The first leader appends the genesis, which is always and only the first ledger entry.
    async fn run_genesis(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        let mut view = self.view.clone();
        while view.borrow_and_update().size == 0 && !self.halt.is_raised() {
            let leads = metrics.borrow_and_update().current_leader == Some(NodeId(self.me));
            // one that a former leader appended is committed with this one's first entry
            if leads && !self.log.has_unapplied_ledger_entry() {
                let id = self.genesis.id();
                let record = casemate_proto::cbor::encode(&self.genesis);
                let entry = Entry { at: self.clock.now(), body: EntryBody::Genesis { id } };
                let payload = Payload::new(entry, Some(Attachment::Genesis(record)));
                // lost with the leadership: the next leader does it again
                tokio::select! {
                    () = self.halt.raised() => return,
                    _ = self.raft.client_write::<tokio::sync::oneshot::error::RecvError>(payload) => {}
                }
            }
            tokio::select! {
                () = self.halt.raised() => return,
                changed = view.changed() => if changed.is_err() { return },
                changed = metrics.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Follows what the node applies.
    async fn run_views(self: Arc<Self>) {
        let mut view = self.view.clone();
        loop {
            tokio::select! {
                () = self.halt.raised() => return,
                changed = view.changed() => if changed.is_err() {
                    return self.halt.raise(FatalReason::ApplierGone);
                },
            }
            let now = view.borrow_and_update().clone();
            self.inbound.forget_all(&now.retired);
            for mismatch in self.watch_roots(&now) {
                self.tell(mismatch).await;
            }
        }
    }

    fn watch_roots(&self, view: &AppliedView) -> Vec<crate::roots::Mismatch> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).absorb(view)
    }

    /// Forgets log entries beyond what is kept. openraft forgets only below a snapshot, so it is given
    /// a marker first.
    async fn run_purge(self: Arc<Self>) {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.halt.raised() => return,
                _ = interval.tick() => {}
            }
            let excess = self.log.excess(self.config.kept_entries, self.config.kept_bytes);
            let Some(upto) = excess else { continue };
            let made = self.raft.trigger().snapshot().await;
            let covers = |id: &Option<LogId>| id.is_some_and(|id| id.index >= upto);
            let marked = self
                .raft
                .wait(Some(Duration::from_secs(1)))
                .metrics(|metrics| covers(&metrics.snapshot), "a marker")
                .await;
            if made.is_ok() && marked.is_ok() && self.raft.trigger().purge_log(upto).await.is_ok() {
                tracing::debug!(upto, "log entries are forgotten");
            }
        }
    }

    /// Follows openraft's own state: how fresh its majority is, and whether it still runs.
    async fn run_metrics(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                if let Err(error) = &now.running_state
                    && !self.halt.is_raised()
                {
                    self.halt.raise(FatalReason::Stopped { reason: error.to_string() });
                }
                let age = now.millis_since_quorum_ack.map(Millis);
                let age = age.filter(|_| now.current_leader == Some(NodeId(self.me)));
                self.peers.set_majority(age);
                *self.majority.lock().unwrap_or_else(PoisonError::into_inner) =
                    age.map(|age| (Instant::now(), age));
            }
            tokio::select! {
                () = self.halt.raised() => return,
                changed = metrics.changed() => if changed.is_err() {
                    let reason = "its task ended".to_owned();
                    return self.halt.raise(FatalReason::Stopped { reason });
                },
            }
        }
    }

    /// Ends openraft when replication halts, and says why.
    async fn run_end(self: Arc<Self>) {
        self.halt.raised().await;
        if self.raft.shutdown().await.is_err() {
            tracing::warn!("a task of replication did not end well");
        }
        if let Some(reason) = self.halt.reason() {
            // where nobody takes it, the node is gone
            let _ = self.out.send(Out::Fatal(reason)).await;
        }
    }

    /// How long ago a majority was heard: by this leader itself, or by the one that it follows.
    pub(crate) fn majority_age(&self, is_leader: bool) -> Option<Millis> {
        if !is_leader {
            return self.inbound.majority_age();
        }
        let (at, age) = (*self.majority.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(age.saturating_add(Millis(since)))
    }

    /// Whether this boot leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.raft.metrics().borrow().current_leader == Some(NodeId(self.me))
    }

    /// Who is a member now, voters and learners.
    pub(crate) fn members(&self) -> BTreeSet<BootId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().nodes().map(|(id, _)| id.0).collect()
    }
}

fn raft_config(config: &Config) -> Result<openraft::Config, StartError> {
    let timing = config.timing;
    openraft::Config {
        cluster_name: "casemate".to_owned(),
        heartbeat_interval: timing.heartbeat.0,
        election_timeout_min: timing.election_min.0,
        election_timeout_max: timing.election_max.0,
        max_payload_entries: u64::try_from(MAX_ENTRIES).unwrap_or(u64::MAX),
        snapshot_policy: SnapshotPolicy::Never,
        // until `run_elections` lets it
        enable_elect: false,
        // nothing is forgotten but what `run_purge` says
        max_in_snapshot_log_to_keep: u64::MAX,
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| StartError::Timing { reason: error.to_string() })
}
