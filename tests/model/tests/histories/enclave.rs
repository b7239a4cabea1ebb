//! One enclave: the real node, replication and join protocol, wired as `enclave/runtime` wires them.
//!
//! Two things differ from there. The node has no thread of its own: it takes an event and is done
//! with it before anything else happens. And what the host pauses is all but openraft's own tasks,
//! which go on beside it, cut off: what comes in and what they want waits until the enclave resumes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use casemate_ledger::State;
use casemate_proto::manifest::{BootRecord, GenesisRecord};
use casemate_proto::{BootId, Millis, NodeName, UnixMillis};
use casemate_recovery::RecoverySecretKey;
use casemate_replication::genesis::GenesisRun;
use casemate_replication::join::{Handovers, JoinRun};
use casemate_replication::{
    AppliedView, CommittedAt, Config, Out, ReadClock, Replication, Start, StartAt, Timing,
};
use casemate_signer::{BootSecret, Node, NodeConfig, Submission, Ticket};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Names an enclave for as long as a history lasts.
pub type Eid = u32;

/// 2026-11-20T10:00:00Z.
pub const EPOCH: UnixMillis = UnixMillis(1_795_168_800_000);

/// An enclave's clock: simulated time, and by how much the host has it wrong.
pub struct SimClock {
    start: Instant,
    wrong_by: AtomicI64,
}

impl SimClock {
    pub fn new(start: Instant, wrong_by: i64) -> Arc<Self> {
        Arc::new(Self { start, wrong_by: AtomicI64::new(wrong_by) })
    }
    pub fn set(&self, wrong_by: i64) {
        self.wrong_by.store(wrong_by, Ordering::Relaxed);
    }
    pub fn wrong_by(&self) -> i64 {
        self.wrong_by.load(Ordering::Relaxed)
    }
}

impl ReadClock for SimClock {
    fn now(&self) -> UnixMillis {
        let elapsed = self.start.elapsed().as_millis() as u64;
        UnixMillis((EPOCH.0 + elapsed).saturating_add_signed(self.wrong_by()))
    }
}

/// What a message between enclaves is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Genesis,
    Raft,
    Node,
    Join,
}

/// What a link is for: messages of the birth go over one between boots that are attested under the
/// manifest's hash, all others over one between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Birth,
    Cluster,
}

impl Kind {
    pub const fn scope(self) -> Scope {
        match self {
            Self::Genesis => Scope::Birth,
            Self::Raft | Self::Node | Self::Join => Scope::Cluster,
        }
    }
}

/// What happens to an enclave.
#[derive(Debug)]
pub enum Input {
    Tick,
    Up { node: NodeName, boot: BootId, scope: Scope },
    Down { node: NodeName, boot: BootId, scope: Scope },
    Message { node: NodeName, boot: BootId, kind: Kind, bytes: Vec<u8> },
    Submit { ticket: Ticket, submission: Submission },
    Raft(Out),
}

/// Where an enclave stands.
pub enum Phase {
    Birth {
        run: GenesisRun,
        secret: Option<BootSecret>,
        record: BootRecord,
        /// When its evidence was made.
        attested: u64,
    },
    /// It waits for what a certificate grants it.
    Recovering {
        secret: Option<BootSecret>,
        key: RecoverySecretKey,
    },
    Joining {
        run: JoinRun,
        secret: Option<BootSecret>,
        short_since: Option<UnixMillis>,
    },
    Member(Box<Member>),
    /// It has halted, or its keys were used up.
    Over,
}

pub struct Member {
    pub node: Node,
    pub replication: Replication,
    pub applied: watch::Sender<AppliedView>,
    pub handovers: Handovers,
    pub admitted: BTreeMap<BootId, CommittedAt>,
    /// Who appended what commits now, as the node was last told.
    pub leader: Option<BootId>,
    /// Each node's boot, as the node and replication were last told.
    pub boots: Arc<BTreeMap<NodeName, BootId>>,
    /// Of a boot that was there at the birth.
    pub birth: Option<GenesisRun>,
    /// Since when it is a member.
    pub since: u64,
    /// When it was last asked whether it has something to seal.
    pub sealed_at: u64,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.replication.stop();
    }
}

pub struct Enclave {
    pub id: Eid,
    /// Its node's place in the roster.
    pub place: usize,
    pub name: NodeName,
    pub boot: BootId,
    /// The cluster that it is, or asks to be, a member of; none before its birth.
    pub cluster: Option<usize>,
    /// When the host started it.
    pub born: u64,
    pub clock: Arc<SimClock>,
    pub raft: Config,
    pub phase: Phase,
    pub paused: bool,
    pub held: VecDeque<Input>,
}

impl Enclave {
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }
    pub const fn is_member(&self) -> bool {
        matches!(self.phase, Phase::Member(_))
    }
    pub const fn is_joining(&self) -> bool {
        matches!(self.phase, Phase::Joining { .. })
    }
    pub const fn is_recovering(&self) -> bool {
        matches!(self.phase, Phase::Recovering { .. })
    }
    pub const fn is_in_birth(&self) -> bool {
        matches!(self.phase, Phase::Birth { .. })
    }
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }
    pub fn member(&self) -> Option<&Member> {
        match &self.phase {
            Phase::Member(member) => Some(member),
            _ => None,
        }
    }
    pub fn state(&self) -> Option<&State> {
        self.member().map(|member| member.node.state())
    }
    /// Whether this enclave knows that a boot was retired.
    pub fn knows_retired(&self, boot: &BootId) -> bool {
        self.state().is_some_and(|state| state.retired_boots().contains(boot))
    }
}

/// How every node of the simulation works: times short, so that a history sees many of them pass.
pub fn node_config() -> NodeConfig {
    NodeConfig {
        triple_stock: 1,
        triple_runs: 1,
        attempt_timeout: Millis(2_000),
        triple_timeout: Millis(5_000),
        keygen_timeout: Millis(8_000),
        checkpoint_interval: Millis(2_000),
        publish_receipts: false,
        max_waiting: 256,
        max_unsigned: 64,
    }
}

/// openraft draws its election timeouts from the thread's own generator; from a range of one there is
/// nothing to draw, and each boot gets another one of the dice.
pub fn raft_config(delta: Millis, election: u64) -> Config {
    Config {
        timing: Timing {
            heartbeat: Millis(150),
            election_min: Millis(election),
            election_max: Millis(election + 1),
        },
        gone_after: Millis(2_000),
        ..Config::new(delta)
    }
}

/// Starts replication for a node; what it wants comes to `out` with this enclave's id.
pub async fn start_member(
    node: Node,
    at: StartAt,
    genesis: &GenesisRecord,
    enclave: (Eid, BootId, NodeName),
    config: Config,
    clock: Arc<SimClock>,
    out: mpsc::UnboundedSender<(Eid, Out)>,
) -> Member {
    let (id, me, name) = enclave;
    let clock_ms = clock.start.elapsed().as_millis() as u64;
    let (applied, view) = watch::channel(AppliedView::of(node.state()));
    let (replication_out, mut from_replication) = mpsc::channel(1_024);
    let start = Start {
        at,
        genesis: genesis.clone(),
        me,
        node: name,
        config,
        clock,
        out: replication_out,
        applied: view,
    };
    let replication = Replication::start(start).await.unwrap();
    tokio::spawn(async move {
        while let Some(wanted) = from_replication.recv().await {
            if out.send((id, wanted)).is_err() {
                return;
            }
        }
    });
    let boots = Arc::new(node.state().current_boots());
    Member {
        node,
        replication,
        applied,
        handovers: Handovers::new(),
        admitted: BTreeMap::new(),
        leader: None,
        boots,
        birth: None,
        since: clock_ms,
        sealed_at: clock_ms,
    }
}
