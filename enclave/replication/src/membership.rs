//! Membership: whoever leads makes the voters what the ledger calls current.
//!
//! Once a second: a current boot that is not a member becomes a learner; when it has caught up, one
//! change puts it in its node's former boot's place, which is kept on as nothing. A boot that does not
//! catch up keeps no other out. The ledger decides who is current, so it does not matter which
//! leader finishes what another began.

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
    /// These become the voters, and whoever was one and is not goes.
    Swap(BTreeSet<NodeId>),
}

fn next_step(metrics: &RaftMetrics<NodeId, Member>, current: &BTreeMap<NodeName, BootId>) -> Step {
    let membership = metrics.membership_config.membership();
    let members: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| *id).collect();
    let voters = match membership.get_joint_config().as_slice() {
        [voters] => voters,
        // a change that was left half-way is finished first
        [_, last] => return Step::Swap(last.clone()),
        _ => return Step::Wait,
    };
    if let Some((node, boot)) = current.iter().find(|(_, boot)| !members.contains(&NodeId(**boot)))
    {
        return Step::Learn(NodeId(*boot), Member(Some(node.clone())));
    }
    let last = metrics.last_log_index.unwrap_or(0);
    let is_near = |id: &NodeId| {
        let matched = metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        matched.is_some_and(|matched| matched.index.saturating_add(NEAR) >= last)
    };
    let voter_of = |node: &NodeName| {
        let of = |id: &&NodeId| membership.get_node(id).is_some_and(|m| m.0.as_ref() == Some(node));
        voters.iter().find(of).copied()
    };
    let next: BTreeSet<NodeId> = current
        .iter()
        .filter_map(|(node, boot)| {
            let boot = NodeId(*boot);
            if voters.contains(&boot) || is_near(&boot) { Some(boot) } else { voter_of(node) }
        })
        .collect();
    if next != *voters {
        return Step::Swap(next);
    }
    let current: BTreeSet<NodeId> = current.values().copied().map(NodeId).collect();
    let stale = members.iter().filter(|id| !current.contains(id) && !voters.contains(id));
    let stale: BTreeSet<NodeId> = stale.copied().collect();
    match (stale.is_empty(), next == current) {
        (false, _) => Step::Drop(stale),
        (true, true) => Step::Done,
        (true, false) => Step::Wait,
    }
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
        let Ok(_turn) = self.turn.try_lock() else { return false };
        // what is current is known only when the admissions in the log are applied
        if self.log.has_unapplied_admission() {
            return false;
        }
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
                    tracing::info!(?wanted, "the voters change");
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openraft::LeaderId;

    use super::*;
    use crate::types::{LogId, Membership, StoredMembership};

    const LAST: u64 = 1_000;

    fn id(n: u8) -> NodeId {
        NodeId(BootId::new([n; 32]))
    }

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn set(ids: &[u8]) -> BTreeSet<NodeId> {
        ids.iter().map(|n| id(*n)).collect()
    }

    /// The step with these sets of voters, these members with their nodes, these learners at those
    /// indices, and these current boots of a, b and c.
    fn step(voters: &[&[u8]], members: &[(u8, &str)], at: &[(u8, u64)], current: [u8; 3]) -> Step {
        let members: BTreeMap<NodeId, Member> =
            members.iter().map(|(n, node)| (id(*n), Member(Some(name(node))))).collect();
        let membership = Membership::new(voters.iter().map(|ids| set(ids)).collect(), members);
        let log_id = |index| LogId::new(LeaderId::new(1, id(1)), index);
        let mut metrics = RaftMetrics::new_initial(id(1));
        metrics.last_log_index = Some(LAST);
        metrics.membership_config = Arc::new(StoredMembership::new(Some(log_id(1)), membership));
        metrics.replication =
            Some(at.iter().map(|(n, index)| (id(*n), Some(log_id(*index)))).collect());
        let current = ["a", "b", "c"].map(name).into_iter().zip(current.map(|n| id(n).0)).collect();
        next_step(&metrics, &current)
    }

    const ABC: [(u8, &str); 3] = [(1, "a"), (2, "b"), (3, "c")];

    #[test]
    fn nothing_is_done_where_the_voters_are_current() {
        assert_eq!(step(&[&[1, 2, 3]], &ABC, &[], [1, 2, 3]), Step::Done);
    }

    #[test]
    fn a_current_boot_learns_is_waited_for_and_takes_its_nodes_place() {
        let learn = Step::Learn(id(4), Member(Some(name("b"))));
        assert_eq!(step(&[&[1, 2, 3]], &ABC, &[], [1, 4, 3]), learn);
        let members = [ABC.as_slice(), &[(4, "b")]].concat();
        assert_eq!(step(&[&[1, 2, 3]], &members, &[], [1, 4, 3]), Step::Wait);
        assert_eq!(step(&[&[1, 2, 3]], &members, &[(4, 100)], [1, 4, 3]), Step::Wait);
        let swap = Step::Swap(set(&[1, 4, 3]));
        assert_eq!(step(&[&[1, 2, 3]], &members, &[(4, LAST - 100)], [1, 4, 3]), swap);
    }

    #[test]
    fn a_boot_that_does_not_catch_up_keeps_no_other_out() {
        let members = [ABC.as_slice(), &[(4, "b"), (5, "c")]].concat();
        let swap = Step::Swap(set(&[1, 2, 5]));
        assert_eq!(step(&[&[1, 2, 3]], &members, &[(4, 0), (5, LAST)], [1, 4, 5]), swap);
        let members = [(1, "a"), (2, "b"), (5, "c"), (4, "b")];
        assert_eq!(step(&[&[1, 2, 5]], &members, &[(4, 0)], [1, 4, 5]), Step::Wait);
    }

    #[test]
    fn a_change_that_was_left_half_way_is_finished_first() {
        let members = [ABC.as_slice(), &[(4, "b")]].concat();
        let swap = Step::Swap(set(&[1, 4, 3]));
        assert_eq!(step(&[&[1, 2, 3], &[1, 4, 3]], &members, &[], [1, 6, 3]), swap);
    }

    #[test]
    fn a_listener_that_was_retired_before_it_voted_goes() {
        let members = [ABC.as_slice(), &[(4, "b"), (5, "b")]].concat();
        assert_eq!(step(&[&[1, 2, 3]], &members, &[], [1, 5, 3]), Step::Drop(set(&[4])));
    }
}
