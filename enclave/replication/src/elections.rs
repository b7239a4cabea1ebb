//! Who may stand for election.
//!
//! openraft lets a node stand once it has not heard a leader for a while, and each time raises the
//! term. A node that its host cuts off and lets back would come back with a later term than the
//! others', who could not lead it any more: their leader falls, though the candidate never had a
//! chance. One host could so keep the whole cluster from having a leader. Here a node asks the others
//! first whether they miss a leader too (Raft's pre-vote), and openraft may stand only while a majority
//! does, this node included.
//!
//! One that refuses its leader for its clock does not wait for the others: it stands once, and so ends
//! that term for itself.
//!
//! It is a question of service only: whom openraft lets win is not decided here, and a peer that lies
//! brings about no more than an election, which it could stand for itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use casemate_proto::{BootId, Millis};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::core::Core;
use crate::types::{LogPosition, NodeId};

impl Core {
    /// How long a leader may say nothing before it is missed.
    fn patience(&self) -> Millis {
        self.config.timing.election_min
    }

    /// Whether this boot has no leader that it knows to be there. One that leads misses its majority.
    pub(crate) fn misses_leader(&self) -> bool {
        let silence = match self.leads() {
            true => self.majority_age(true),
            false => self.inbound.leader_silence(),
        };
        silence.is_none_or(|silence| silence >= self.patience())
    }

    /// Whether a candidate whose log ends there would have this boot's consent.
    pub(crate) fn would_elect(&self, last: Option<LogPosition>) -> bool {
        let own = self.log.last();
        let is_behind = own.as_ref().map(LogPosition::of) > last;
        !is_behind && self.misses_leader()
    }

    /// Whether the leader of the term that this boot is in is ahead of its clock.
    fn refuses_leader(&self) -> bool {
        let own = self.log.vote().map_or(0, |held| held.leader_id.term);
        self.stamps.refused_term().is_some_and(|refused| own <= refused)
    }

    /// Lets openraft stand for election while a majority misses a leader, and only then.
    pub(crate) async fn run_elections(self: Arc<Self>) {
        let every = Duration::from_millis(self.config.timing.heartbeat.0);
        loop {
            let may = !self.leads()
                && self.misses_leader()
                && (self.refuses_leader() || self.majority_misses_leader().await);
            self.raft.runtime_config().elect(may);
            tokio::select! {
                () = self.halt.raised() => return,
                () = sleep(every) => {}
            }
        }
    }

    async fn majority_misses_leader(self: &Arc<Self>) -> bool {
        let configs: Vec<BTreeSet<BootId>> = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let joint = metrics.membership_config.membership().get_joint_config();
            joint.iter().map(|voters| voters.iter().map(|NodeId(boot)| *boot).collect()).collect()
        };
        let last = self.log.last().as_ref().map(LogPosition::of);
        let mut asked = JoinSet::new();
        for boot in configs.iter().flatten().copied().collect::<BTreeSet<_>>() {
            if boot != self.me {
                let peers = Arc::clone(&self.peers);
                asked.spawn_on(
                    async move { (boot, peers.ask_consent(boot, last).await) },
                    &self.runtime,
                );
            }
        }
        let mut willing = BTreeSet::from([self.me]);
        let is_majority = |willing: &BTreeSet<BootId>| {
            configs.iter().all(|voters| {
                voters.intersection(willing).count() > voters.len().checked_div(2).unwrap_or(0)
            })
        };
        let answers = async {
            while !is_majority(&willing) {
                match asked.join_next().await {
                    Some(Ok((boot, true))) => drop(willing.insert(boot)),
                    Some(_) => {}
                    None => return false,
                }
            }
            true
        };
        let patience = Duration::from_millis(self.patience().0);
        timeout(patience, answers).await.unwrap_or(false)
    }
}
