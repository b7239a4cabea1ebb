//! Things that grow by what others send, and their caps.

use std::collections::{BTreeMap, VecDeque};

use casemate_proto::NodeName;

/// What came from peers too early, in order, with an allowance for each: a peer that fills its own
/// takes no room from the others.
#[derive(Debug)]
pub(crate) struct PerPeer<T> {
    queues: BTreeMap<NodeName, VecDeque<T>>,
    most: usize,
}

impl<T> PerPeer<T> {
    /// At most `most` of each peer.
    pub(crate) const fn new(most: usize) -> Self {
        Self { queues: BTreeMap::new(), most }
    }
    /// Whether there was room.
    pub(crate) fn push(&mut self, from: &NodeName, item: T) -> bool {
        let queue = self.queues.entry(from.clone()).or_default();
        let room = queue.len() < self.most;
        if room {
            queue.push_back(item);
        }
        room
    }
    /// Everything, each peer's in order.
    pub(crate) fn take(&mut self) -> Vec<(NodeName, T)> {
        std::mem::take(&mut self.queues)
            .into_iter()
            .flat_map(|(from, items)| items.into_iter().map(move |item| (from.clone(), item)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_one_peer_cannot_take_the_room_of_another() {
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let mut queue = PerPeer::new(2);
        assert_eq!([1, 2, 3].map(|n| queue.push(&a, n)), [true, true, false]);
        assert!(queue.push(&b, 4));
        assert_eq!(queue.take(), [(a.clone(), 1), (a.clone(), 2), (b, 4)]);
        assert!(queue.push(&a, 5));
    }
}
