//! Membership: whoever leads makes the voters what the ledger calls current.
//!
//! Once a second: a current boot that is not a member becomes a learner; when it has caught up, one
//! change makes exactly the current boots voters, and whoever is none is kept on as nothing. The ledger
//! decides who is current, so it does not matter which leader finishes what another began.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use casemate_proto::{BootId, NodeName};
use openraft::{ChangeMembers, RaftMetrics};

use crate::core::Core;
use crate::types::{Member, NodeId};

/// How often a leader looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one change may take before it is looked at again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many entries behind the leader a learner may be to become a voter.
const NEAR: u64 = 128;

/// What a leader does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: the voters are the current boots, and nobody else is there.
    Done,
    /// Nothing yet: a learner has not caught up.
    Wait,
    /// Listeners that are not current go.
    Drop(BTreeSet<NodeId>),
    /// A current boot becomes a learner.
    Learn(NodeId, Member),
    /// The current boots become the voters.
    Swap(BTreeSet<NodeId>),
}

fn next_step(metrics: &RaftMetrics<NodeId, Member>, current: &BTreeMap<NodeName, BootId>) -> Step {
    let membership = metrics.membership_config.membership();
    let wanted: BTreeSet<NodeId> = current.values().copied().map(NodeId).collect();
    let members: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| *id).collect();
    let configs = membership.get_joint_config();
    if let Some((node, boot)) = current.iter().find(|(_, boot)| !members.contains(&NodeId(**boot)))
    {
        // a change of voters that another leader left half-way is finished first
        if let [_, last] = configs.as_slice() {
            return Step::Swap(last.clone());
        }
        return Step::Learn(NodeId(*boot), Member(Some(node.clone())));
    }
    if configs.as_slice() != std::slice::from_ref(&wanted) {
        let last = metrics.last_log_index.unwrap_or(0);
        let is_near = |id: &NodeId| {
            membership.voter_ids().any(|voter| voter == *id)
                || metrics
                    .replication
                    .as_ref()
                    .and_then(|all| all.get(id).copied().flatten())
                    .is_some_and(|matched| matched.index.saturating_add(NEAR) >= last)
        };
        return if wanted.iter().all(is_near) { Step::Swap(wanted) } else { Step::Wait };
    }
    let stale: BTreeSet<NodeId> = members.difference(&wanted).copied().collect();
    if stale.is_empty() { Step::Done } else { Step::Drop(stale) }
}

impl Core {
    /// Reconciles once a second, until replication stops.
    pub(crate) async fn run_membership(self: Arc<Self>) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.halt.raised() => return,
                _ = interval.tick() => {}
            }
            // a few steps in a row; what does not end is looked at again a second later
            for _ in 0..4 {
                if !self.reconcile().await {
                    break;
                }
            }
        }
    }

    /// Takes one step. Whether there may be another.
    async fn reconcile(&self) -> bool {
        let metrics = self.raft.metrics().borrow().clone();
        if metrics.current_leader != Some(NodeId(self.me)) {
            return false;
        }
        let (size, boots) = {
            let view = self.view.borrow();
            (view.size, Arc::clone(&view.boots))
        };
        if size == 0 {
            return false;
        }
        let change = async {
            match next_step(&metrics, &boots) {
                Step::Done | Step::Wait => return Ok(false),
                Step::Drop(stale) => {
                    tracing::info!(?stale, "listeners that are not current go");
                    self.raft.change_membership(ChangeMembers::RemoveNodes(stale), false).await
                }
                Step::Learn(id, member) => {
                    tracing::info!(%id, ?member, "a current boot becomes a learner");
                    self.raft.add_learner(id, member, false).await
                }
                Step::Swap(wanted) => {
                    tracing::info!(?wanted, "the current boots become the voters");
                    self.raft
                        .change_membership(ChangeMembers::ReplaceAllVoters(wanted), false)
                        .await
                }
            }
            .map(|_| true)
        };
        match tokio::time::timeout(PATIENCE, change).await {
            Ok(Ok(more)) => more,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the membership is not changed yet");
                false
            }
            Err(_) => {
                tracing::warn!("the membership is not changed yet: no majority answers");
                false
            }
        }
    }
}
