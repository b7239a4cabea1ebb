//! Restarts: another boot of a node, admitted by the others, that goes on from what they hand over.

use casemate_ledger::{EntryBody, State};
use casemate_proto::NodeName;
use casemate_proto::manifest::BootRecord;
use casemate_signer::{BootSecret, Entropy, Event, Node};

use super::{Cluster, ClusterError, Progress, setup};

/// How often a boot asks to be admitted.
const ASK_AGAIN_MS: u64 = 500;

/// A boot that waits for its admission.
pub(super) struct Joining {
    pub(super) secret: BootSecret,
    pub(super) entropy: Box<dyn Entropy>,
    /// What is committed since it asked, with the indices.
    pub(super) entries: Vec<(u64, Event)>,
}

impl Cluster {
    /// Starts a node anew: another boot, which the running nodes admit in place of the former one
    /// and give the state to begin with. If the former one still runs, that one halts. The new boot
    /// is a member when this returns; its shares come back to it afterwards.
    ///
    /// Its store goes on where its peers' stand; what was written while it was down is copied from
    /// one of them, as its parent would.
    ///
    /// # Errors
    /// If there is no such node, no majority runs, or the new boot is refused.
    pub fn restart_node(&mut self, name: &NodeName) -> Result<(), ClusterError> {
        let record = self.begin_restart(name)?;
        let mut asked_at = self.now();
        let mut failed = None;
        self.work_until("admission", |cluster| {
            // a node's boots are admitted once in a while only
            let now = cluster.now();
            if now.since(asked_at).0 >= ASK_AGAIN_MS {
                asked_at = now;
                cluster.propose(EntryBody::Admit(record.clone()));
            }
            match cluster.finish_restart(name) {
                Ok(done) => done,
                Err(error) => {
                    failed = Some(error);
                    true
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn begin_restart(&mut self, name: &NodeName) -> Result<BootRecord, ClusterError> {
        let (genesis, now, entropy) = (self.genesis_id(), self.now(), self.entropy);
        let (at, member) = self.member(name)?;
        let mut entropy = entropy(at);
        let (secret, record) = setup::new_boot(name, &member.nsm, genesis, now, entropy.as_mut())?;
        member.joining = Some(Joining { secret, entropy, entries: Vec::new() });
        self.handovers.remove(name);
        self.propose(EntryBody::Admit(record.clone()));
        Ok(record)
    }

    /// Whether the admitted boot has begun.
    fn finish_restart(&mut self, name: &NodeName) -> Result<bool, ClusterError> {
        let (config, genesis) = (self.node_config, self.genesis.clone());
        let Some(handover) = self.handovers.remove(name) else { return Ok(false) };
        let (_, member) = self.member(name)?;
        let Some(Joining { secret, entropy, entries }) = member.joining.take() else {
            return Ok(false);
        };
        let state = State::from_snapshot(&handover.snapshot)?;
        let node = Node::join(secret, name, &genesis, state, &handover.tail, config, entropy)?;
        member.retired.extend(member.node.replace(node));
        member.inbox = entries
            .into_iter()
            .filter(|(index, _)| *index >= handover.size)
            .map(|(_, event)| event)
            .collect();
        self.fill_store(name);
        for other in self.members.iter_mut().filter(|m| m.name != *name && m.node.is_some()) {
            other.inbox.push_back(Event::Link { node: name.clone(), up: true });
        }
        self.tell_who_is_down(name);
        (self.watch)(Progress::Joined { node: name.clone() });
        Ok(true)
    }

    /// A node that has just begun learns which of its channels cannot be opened.
    fn tell_who_is_down(&mut self, name: &NodeName) {
        let stopped = self.members.iter().filter(|m| m.node.is_none()).map(|m| m.name.clone());
        let down: Vec<Event> = stopped.map(|node| Event::Link { node, up: false }).collect();
        if let Ok((_, member)) = self.member(name) {
            member.inbox.extend(down);
        }
    }

    /// Copies what a node's store lacks from another's.
    fn fill_store(&mut self, name: &NodeName) {
        let other = self.members.iter().filter(|m| m.name != *name && m.node.is_some());
        let newest = other.max_by_key(|member| member.node.as_ref().map_or(0, Node::published));
        let files = newest.map(|member| member.store.clone()).unwrap_or_default();
        if let Ok((_, member)) = self.member(name) {
            for (path, bytes) in files {
                if path == casemate_audit::store::CHECKPOINT {
                    member.store.insert(path, bytes);
                } else {
                    member.store.entry(path).or_insert(bytes);
                }
            }
        }
    }
}
