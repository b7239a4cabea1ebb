//! The log key's signature under a published checkpoint: a run like any other, of this node's own tree's root.

use casemate_audit::Checkpoint;
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::{DerivationPath, NodeName, UnixMillis};
use casemate_threshold::{
    Authorised, KeyEpoch, KeyRef, Misuse, Purpose, RunContext, RunError, RunId, RunSpec,
    ed25519_subject,
};

use crate::checkpoints::{Early, LogPart, Own, log_key_name};
use crate::node::Node;
use crate::runs::Role;

/// A leader's word for a log signature, as it came.
#[derive(Clone, Debug)]
pub(crate) struct StartLog {
    pub(crate) size: u64,
    pub(crate) root: Hash32,
    pub(crate) participants: Vec<NodeName>,
    pub(crate) number: u64,
    pub(crate) epoch: u64,
}

/// The one place where the log key may sign: this node's own checkpoint, and nothing else.
fn authorise_checkpoint(checkpoint: &Checkpoint, run: RunId, until: UnixMillis) -> Authorised {
    let subject = ed25519_subject(checkpoint.body().as_bytes());
    Authorised::dangerous_assert_committed_and_allowed(run, subject, until)
}

impl Node {
    /// A peer leads a log signature with this node in it.
    pub(crate) fn join_log_signature(&mut self, from: &NodeName, start: StartLog, now: UnixMillis) {
        let named = |name: &NodeName| start.participants.contains(name);
        if !named(from) || !named(self.roster.me()) {
            return;
        }
        let epoch = self.log_key().map_or(0, |(_, epoch)| epoch);
        match self.own_checkpoint(from, start.size, start.root) {
            // its key went live in an entry that is not applied here yet
            Own::Is(_) if start.epoch > epoch => {
                self.checkpoints.early.push(from, Early::Log(start));
            }
            Own::Ahead => {
                self.checkpoints.early.push(from, Early::Log(start));
            }
            Own::Is(_) => {
                // one for each leader: the next one takes the place of the last
                let of = |role: &Role| matches!(role, Role::Log { leader, .. } if leader == from);
                for id in self.runs.which(|slot| of(&slot.role)) {
                    self.end_run(id, &RunError::Burned, now);
                }
                if let Err(error) = self.begin_log_signature(from, &start, now) {
                    tracing::debug!(%from, %error, "log signature not begun");
                }
            }
            Own::No => {}
        }
    }

    pub(crate) fn begin_log_signature(
        &mut self,
        leader: &NodeName,
        start: &StartLog,
        now: UnixMillis,
    ) -> Result<(), RunError> {
        let (size, number) = (start.size, start.number);
        let name = log_key_name().ok_or(Misuse::WrongKey)?;
        let (_, epoch) = self.log_key().ok_or(Misuse::WrongKey)?;
        let set = self.run_participants(&start.participants).ok_or(Misuse::NotParticipating)?;
        if start.epoch != epoch || !start.participants.iter().all(|node| self.holds(&name, node)) {
            return Err(Misuse::WrongKey.into());
        }
        let boot = self.state.current_boot(leader).ok_or(Misuse::NotParticipating)?;
        let root = self.tree.root_at(size).map_err(|_| Misuse::WrongMessage)?;
        let checkpoint = Checkpoint::new(&self.origin(), size, root);
        let message = checkpoint.body().into_bytes();
        let context = RunContext::new(RunSpec {
            genesis: self.state.genesis(),
            incarnation: self.state.incarnation(),
            purpose: Purpose::Ed25519Sign {
                key: KeyRef { name: name.clone(), epoch: KeyEpoch(epoch) },
                path: DerivationPath::root(),
                subject: ed25519_subject(&message),
            },
            participants: set,
            threshold: self.threshold,
            log_index: size,
            // no entry causes it: the leader's boot keeps its numbers apart from the others'
            entry: tagged_hash("casemate/log-signature-by/v1", &[boot.as_bytes()]),
            attempt: number,
        })?;
        let deadline = now.saturating_add(self.config.attempt_timeout);
        self.begin_run(
            context,
            deadline,
            Role::Log { size, leader: leader.clone() },
            now,
            move |node, claim| {
                let key = node.keygen.live.get(&name).ok_or(Misuse::WrongKey)?;
                key.sign(claim, None, message, node.entropy.as_mut())
            },
            move |run, id| {
                run.authorise(authorise_checkpoint(&checkpoint, id, deadline), now).map(Some)
            },
        )?;
        Ok(())
    }

    pub(crate) fn log_signature_made(
        &mut self,
        size: u64,
        led: bool,
        signature: [u8; 64],
        now: UnixMillis,
    ) {
        if led
            && let Some(gathering) = &mut self.checkpoints.for_publishing
            && gathering.checkpoint.size == size
        {
            gathering.log = LogPart::Have(signature);
            self.finish_gatherings(now);
        }
    }

    pub(crate) fn log_signature_failed(&mut self, size: u64, led: bool) {
        if led
            && self.checkpoints.for_publishing.as_ref().is_some_and(|g| g.checkpoint.size == size)
        {
            self.checkpoints.for_publishing = None;
        }
    }
}
