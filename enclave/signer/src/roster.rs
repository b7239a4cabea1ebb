//! The nodes as the manifest lists them, and which of them can be reached.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{BootId, Millis, NodeName, UnixMillis};
use casemate_threshold::{Participant, Participants, PartyId};

/// How long a node that did not answer is passed over.
const SUSPICION: Millis = Millis(30_000);

/// The roster. A node's place in it is its party number in every run.
#[derive(Debug)]
pub(crate) struct Roster {
    names: Vec<NodeName>,
    me: NodeName,
    /// Links that the transport says are down.
    down: BTreeSet<NodeName>,
    /// Nodes that did not answer, and until when they are passed over.
    silent: BTreeMap<NodeName, UnixMillis>,
}

impl Roster {
    pub(crate) fn new(names: Vec<NodeName>, me: NodeName) -> Self {
        Self { names, me, down: BTreeSet::new(), silent: BTreeMap::new() }
    }

    pub(crate) const fn me(&self) -> &NodeName {
        &self.me
    }
    pub(crate) fn names(&self) -> &[NodeName] {
        &self.names
    }
    pub(crate) fn others(&self) -> Vec<NodeName> {
        self.names.iter().filter(|name| **name != self.me).cloned().collect()
    }
    pub(crate) fn party(&self, name: &NodeName) -> Option<PartyId> {
        let at = self.names.iter().position(|n| n == name)?;
        PartyId::new(u16::try_from(at).ok()?).ok()
    }
    pub(crate) fn name(&self, party: PartyId) -> Option<&NodeName> {
        self.names.get(usize::from(party.number()))
    }

    /// Nodes with their boots as a run takes them.
    pub(crate) fn participants(&self, boots: &[(NodeName, BootId)]) -> Option<Participants> {
        let list: Option<Vec<Participant>> = boots
            .iter()
            .map(|(name, boot)| Some(Participant { party: self.party(name)?, boot: *boot }))
            .collect();
        Participants::new(list?).ok()
    }

    /// The names of a run's participants.
    pub(crate) fn names_of(&self, participants: &Participants) -> Vec<NodeName> {
        participants.parties().filter_map(|party| self.name(party).cloned()).collect()
    }

    pub(crate) fn set_link(&mut self, node: &NodeName, up: bool) {
        if up {
            self.down.remove(node);
            self.silent.remove(node);
        } else if self.names.contains(node) {
            self.down.insert(node.clone());
        }
    }
    /// Whether the channel to a node is up, as far as the transport said.
    pub(crate) fn is_linked(&self, node: &NodeName) -> bool {
        !self.down.contains(node)
    }
    /// A run with this node ended well. (That it says something is not enough: a node can answer
    /// everything but what matters.)
    pub(crate) fn proved_itself(&mut self, node: &NodeName) {
        self.silent.remove(node);
    }
    pub(crate) fn suspect(&mut self, node: &NodeName, now: UnixMillis) {
        if self.names.contains(node) && *node != self.me {
            self.silent.insert(node.clone(), now.saturating_add(SUSPICION));
        }
    }

    pub(crate) fn is_live(&self, node: &NodeName, now: UnixMillis) -> bool {
        *node == self.me
            || (!self.down.contains(node) && self.silent.get(node).is_none_or(|until| *until < now))
    }
    pub(crate) fn live(&self, now: UnixMillis) -> Vec<NodeName> {
        self.names.iter().filter(|name| self.is_live(name, now)).cloned().collect()
    }

    /// Who leads the `turn`th thing: live nodes that are able to take turns, so that work spreads
    /// alike.
    pub(crate) fn leader(
        &self,
        turn: u64,
        now: UnixMillis,
        able: impl Fn(&NodeName) -> bool,
    ) -> Option<NodeName> {
        let n = u64::try_from(self.names.len()).ok()?;
        let start = usize::try_from(turn.checked_rem(n)?).ok()?;
        self.from(start).find(|name| self.is_live(name, now) && able(name)).cloned()
    }

    /// This node and the `t - 1` linked and able ones after it, in the roster's cyclic order, those to
    /// avoid and then those that were silent last: the set that this node signs with when it leads. In
    /// the roster's order.
    pub(crate) fn own_set(
        &self,
        t: usize,
        avoid: &BTreeSet<NodeName>,
        now: UnixMillis,
        able: impl Fn(&NodeName) -> bool,
    ) -> Option<Vec<NodeName>> {
        let mine = self.names.iter().position(|name| *name == self.me)?;
        let mut ready: Vec<&NodeName> = self
            .from(mine)
            .filter(|name| (*name == &self.me || self.is_linked(name)) && able(name))
            .collect();
        ready.sort_by_key(|name| (!self.is_live(name, now), avoid.contains(*name)));
        let set: Vec<&NodeName> = ready.into_iter().take(t).collect();
        if set.len() < t || !set.contains(&&self.me) {
            return None;
        }
        Some(self.names.iter().filter(|name| set.contains(name)).cloned().collect())
    }

    /// Everybody once, in cyclic order.
    fn from(&self, start: usize) -> impl Iterator<Item = &NodeName> {
        self.names.iter().cycle().skip(start).take(self.names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(me: &str) -> Roster {
        let names = ["a", "b", "c"].map(|n| NodeName::new(n).unwrap()).to_vec();
        Roster::new(names, NodeName::new(me).unwrap())
    }
    fn set(roster: &Roster, now: u64) -> Option<Vec<String>> {
        let avoid = BTreeSet::new();
        let set = roster.own_set(2, &avoid, UnixMillis(now), |_| true)?;
        Some(set.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn own_sets_wrap_around_and_pass_over_who_is_gone() {
        let mut c = roster("c");
        assert_eq!(set(&c, 0).unwrap(), ["a", "c"]);
        c.set_link(&NodeName::new("a").unwrap(), false);
        assert_eq!(set(&c, 0).unwrap(), ["b", "c"]);
        c.suspect(&NodeName::new("b").unwrap(), UnixMillis(0));
        // one that was silent once is better than nobody
        assert_eq!(set(&c, 0).unwrap(), ["b", "c"]);
        assert_eq!(set(&c, SUSPICION.0 + 1).unwrap(), ["b", "c"]);
        c.set_link(&NodeName::new("b").unwrap(), false);
        assert_eq!(set(&c, 0), None);
        c.set_link(&NodeName::new("b").unwrap(), true);
        c.suspect(&NodeName::new("b").unwrap(), UnixMillis(0));
        c.set_link(&NodeName::new("a").unwrap(), true);
        assert_eq!(set(&c, 0).unwrap(), ["a", "c"]);
        let avoid = BTreeSet::from([NodeName::new("a").unwrap()]);
        let without = |at| c.own_set(2, &avoid, UnixMillis(at), |_| true).unwrap();
        // avoided, and not silent
        assert_eq!(without(0), ["a", "c"].map(|n| NodeName::new(n).unwrap()));
        assert_eq!(without(SUSPICION.0 + 1), ["b", "c"].map(|n| NodeName::new(n).unwrap()));
    }

    #[test]
    fn live_nodes_take_turns_to_lead() {
        let mut b = roster("b");
        let lead = |r: &Roster| {
            (0..3)
                .map(|i| r.leader(i, UnixMillis(0), |_| true).unwrap().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(lead(&b), ["a", "b", "c"]);
        b.set_link(&NodeName::new("c").unwrap(), false);
        assert_eq!(lead(&b), ["a", "b", "a"]);
        let a = NodeName::new("a").unwrap();
        assert_eq!(b.leader(0, UnixMillis(0), |name| *name != a).unwrap().as_str(), "b");
        assert_eq!(b.own_set(2, &BTreeSet::new(), UnixMillis(0), |name| *name != a), None);
    }
}
