//! Which links are up, and to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use casemate_proto::{BootId, Hash32, NodeName};
use casemate_replication::Timing;
use tokio::time::Instant;

use crate::envelope::{self, Kind};
use crate::links::Link;

/// How often a boot says on a link that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// How long a peer may say nothing on a link that is up before it counts as gone: this, or so many of
/// replication's heartbeats where nodes are far apart.
const SILENT: Duration = Duration::from_secs(5);
const SILENT_HEARTBEATS: u64 = 4;

/// The links that are up, the newest for each boot and scope: what goes between members is not
/// understood on a link of the birth, and would be lost.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: BTreeMap<u64, Link>,
    newest: BTreeMap<(BootId, Hash32), u64>,
    said_alive: Option<Instant>,
}

/// A boot that no link of a scope is left to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    pub(crate) node: NodeName,
    pub(crate) boot: BootId,
    pub(crate) scope: Hash32,
}

impl Links {
    pub(crate) fn add(&mut self, link: Link) {
        self.newest.insert((link.peer.boot(), link.scope), link.number);
        self.links.insert(link.number, link);
    }
    /// Forgets a link, and thereby closes it. Who is cut off by that, if anybody.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Cut> {
        self.retain(|link| link.number != number).pop_first()
    }
    /// The link that something was heard on now.
    pub(crate) fn heard(&mut self, number: u64) -> Option<Link> {
        let link = self.links.get_mut(&number)?;
        link.heard = Instant::now();
        Some(link.clone())
    }
    /// The newest link to a boot under a scope.
    pub(crate) fn to(&self, boot: &BootId, scope: &Hash32) -> Option<&Link> {
        self.links.get(self.newest.get(&(*boot, *scope))?)
    }
    /// Every link.
    pub(crate) fn up(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }
    /// The newest link of each boot and scope.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Link> {
        self.newest.values().filter_map(|number| self.links.get(number))
    }
    /// Closes all links but those that `keep` wants. Who is cut off by that. What was queued on them
    /// still goes out.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Link) -> bool) -> BTreeSet<Cut> {
        let mut closed = BTreeSet::new();
        self.links.retain(|_, link| {
            let kept = keep(link);
            if !kept {
                let (node, boot) = (link.peer.node().clone(), link.peer.boot());
                closed.insert(Cut { node, boot, scope: link.scope });
            }
            kept
        });
        let links = &self.links;
        self.newest.retain(|_, number| links.contains_key(number));
        // an older link to the same boot takes the place of the one that went
        for link in links.values().rev() {
            self.newest.entry((link.peer.boot(), link.scope)).or_insert(link.number);
        }
        closed.retain(|cut| !self.newest.contains_key(&(cut.boot, cut.scope)));
        closed
    }
    /// Says on every link that this boot is there, once a second, and gives up those that say
    /// nothing: a peer that is paused counts as gone, and is dialled again. Those given up.
    pub(crate) fn keep_alive(&mut self, raft: Timing) -> Vec<u64> {
        let heartbeats = raft.heartbeat.saturating_mul(SILENT_HEARTBEATS);
        let patience = SILENT.max(Duration::from_millis(heartbeats.0));
        let now = Instant::now();
        if self.said_alive.is_none_or(|at| now.duration_since(at) >= ALIVE_EVERY) {
            self.said_alive = Some(now);
            for link in self.links.values() {
                link.send(envelope::seal(Kind::Alive, &[]));
            }
        }
        let silent = self.links.values().filter(|link| now.duration_since(link.heard) > patience);
        silent.map(|link| link.number).collect()
    }
    /// Sends to a boot under a scope, if its link is up and keeps up.
    pub(crate) fn send(&self, to: &BootId, scope: &Hash32, kind: Kind, message: &[u8]) -> bool {
        self.to(to, scope).is_some_and(|link| link.send(envelope::seal(kind, message)))
    }
}
