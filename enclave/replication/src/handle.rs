//! The handle: what the rest of the enclave calls.

use std::sync::Arc;

use casemate_ledger::{Attachment, EntryBody};
use casemate_proto::{BootId, Millis, NodeName, UnixMillis};

use crate::core::{Core, Start, StartError};
use crate::fatal::FatalReason;
use crate::proposals::ProposalRefused;
use crate::types::{LogPosition, NodeId};

/// One boot's replication. Clones are handles to the same.
#[derive(Clone)]
pub struct Replication(Arc<Core>);

impl core::fmt::Debug for Replication {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Replication").field("me", &self.0.me).finish_non_exhaustive()
    }
}

/// How replication is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftStatus {
    /// The node that leads, as far as this one knows.
    pub leader: Option<NodeName>,
    /// Time since a majority is known to have stood behind the leader; `None`: never, or there is no
    /// leader.
    pub majority_age: Option<Millis>,
    /// Whether this node leads.
    pub is_leader: bool,
    /// The last entry of the log that is applied.
    pub last_applied: Option<LogPosition>,
    /// The current term.
    pub term: u64,
    /// Whether this boot votes, in a membership that is committed and is no transition to another. Until
    /// then a majority may still be counted with the boot whose place this one takes.
    pub is_voter: bool,
    /// Why it has stopped, if it has.
    pub fatal: Option<FatalReason>,
}

impl Replication {
    /// Starts, within a tokio runtime.
    ///
    /// # Errors
    /// If what it is started with contradicts itself.
    pub async fn start(start: Start) -> Result<Self, StartError> {
        Core::start(start).await.map(Self)
    }

    /// Proposes an entry: queued, forwarded to the leader, stamped and appended there. It may be lost
    /// on the way; whoever wants it proposes again.
    ///
    /// # Errors
    /// If it can never become an entry that is accepted, or there is no room.
    pub fn propose(
        &self,
        body: EntryBody,
        attachment: Option<Attachment>,
    ) -> Result<(), ProposalRefused> {
        self.propose_until(body, attachment, None)
    }

    /// The same of what is not to be an entry if the ledger's time would be past `until` there. Whatever
    /// is appended is published; so what is worth nothing later must not be appended later.
    ///
    /// # Errors
    /// As above.
    pub fn propose_until(
        &self,
        body: EntryBody,
        attachment: Option<Attachment>,
        until: Option<UnixMillis>,
    ) -> Result<(), ProposalRefused> {
        if self.0.halt.is_raised() {
            return Err(ProposalRefused::Stopped);
        }
        self.0.proposals.own(body, attachment, until)
    }

    /// Takes what the channel to that boot delivered.
    pub fn receive(&self, from: BootId, bytes: &[u8]) {
        self.0.receive(from, bytes);
    }

    /// The channel to that boot, which attested itself as that node's, came up or went down.
    pub fn link(&self, boot: BootId, node: NodeName, up: bool) {
        if !up {
            self.0.inbound.forget(&boot);
        }
        self.0.peers.set_link(boot, node, up);
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader;
        let is_leader = leader == Some(NodeId(self.0.me));
        let name = leader.and_then(|id| {
            metrics.membership_config.membership().get_node(&id).and_then(|member| member.0.clone())
        });
        RaftStatus {
            leader: name,
            majority_age: leader.and_then(|_| self.0.majority_age(is_leader)),
            is_leader,
            last_applied: metrics.last_applied.as_ref().map(LogPosition::of),
            term: metrics.current_term,
            is_voter: {
                let stored = &metrics.membership_config;
                let joint = stored.membership().get_joint_config();
                let me = NodeId(self.0.me);
                joint.len() == 1
                    && joint.iter().all(|voters| voters.contains(&me))
                    && stored.log_id().as_ref() <= metrics.last_applied.as_ref()
            },
            fatal: self.0.halt.reason(),
        }
    }

    /// Who is a member of Raft now, voters and learners.
    #[must_use]
    pub fn members(&self) -> std::collections::BTreeSet<BootId> {
        self.0.members()
    }

    /// Stops, without a reason.
    pub fn stop(&self) {
        self.0.halt.stop();
    }
}
