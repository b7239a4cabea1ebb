//! The stock of triples: made when idle, and on demand when a request waits for some.
//!
//! A pair serves exactly the t boots that made it, once. Two nodes that lead at the same time must
//! not name the same pair; so a pair is *led* by the node that asked for it, and only that node
//! names it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use casemate_proto::hash::tagged_hash;
use casemate_proto::{BootId, Millis, NodeName, UnixMillis};
use casemate_threshold::Purpose;
use casemate_threshold::ecdsa::TriplePair;
use casemate_threshold::{
    Participants, RunContext, RunError, RunSpec, TriplePairId, TripleRun, TripleStock,
};

use crate::node::Node;
use crate::peer::PeerMessage;
use crate::runs::Role;
use crate::shares::AnyRun;

/// Most triple runs of one other leader that this node takes part in at one time.
const MAX_JOINED: usize = 16;
/// Most pairs of one set that peers may have this node stock.
const MAX_OF_SET: usize = 1_024;
/// How far another node's size may lie from this one's when it asks for triples.
const MAX_DRIFT: u64 = 100_000;
/// How long a node waits after a failure before it makes triples for its stock again.
const PAUSE: Millis = Millis(1_000);

/// The stock and what is being made.
#[derive(Default)]
pub(crate) struct Triples {
    stock: TripleStock,
    /// The pairs that this node leads, oldest first.
    own: BTreeMap<Participants, VecDeque<TriplePairId>>,
    /// How many pairs are under way, by leader and set.
    making: BTreeMap<(NodeName, Participants), usize>,
    paused_until: UnixMillis,
}

impl Triples {
    /// Takes the oldest pair that this node leads for this set; only its name.
    pub(crate) fn take_own(&mut self, set: &Participants) -> Option<TriplePairId> {
        self.own.get_mut(set)?.pop_front()
    }
    /// A name that was taken and not used, if its pair is still there.
    pub(crate) fn give_back(&mut self, set: Participants, id: TriplePairId) {
        if self.has(&set, &id) {
            self.own.entry(set).or_default().push_front(id);
        }
    }
    pub(crate) fn take(&mut self, set: &Participants, id: &TriplePairId) -> Option<TriplePair> {
        self.stock.take(set, id)
    }
    pub(crate) fn has(&self, set: &Participants, id: &TriplePairId) -> bool {
        self.stock.ids(set).any(|known| known == *id)
    }
    pub(crate) fn ready(&self, set: &Participants) -> usize {
        self.own.get(set).map_or(0, VecDeque::len)
    }
    /// How many pairs are under way that a node leads.
    fn led_by(&self, leader: &NodeName) -> usize {
        let of = self.making.iter().filter(|((by, _), _)| by == leader);
        of.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
    /// Whether a pair is being made among exactly these.
    pub(crate) fn is_making(&self, set: &Participants) -> bool {
        self.making.keys().any(|(_, among)| among == set)
    }
    pub(crate) fn retain_boots(&mut self, is_current: impl Fn(&BootId) -> bool) {
        self.own.retain(|set, _| set.as_slice().iter().all(|p| is_current(&p.boot)));
        self.stock.retain_boots(is_current);
    }
    fn begun(&mut self, leader: &NodeName, set: &Participants) {
        let count = self.making.entry((leader.clone(), set.clone())).or_default();
        *count = count.saturating_add(1);
    }
    fn ended(&mut self, leader: &NodeName, set: &Participants) {
        let key = (leader.clone(), set.clone());
        if let Some(count) = self.making.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.making.remove(&key);
            }
        }
    }
}

impl Node {
    /// A request waits for triples of this set: makes one more pair than are under way, within the
    /// number of runs that a node leads at one time.
    pub(crate) fn triples_wanted(&mut self, set: Vec<NodeName>, now: UnixMillis) {
        let waiting = self.signing.len();
        let under_way = self.triples.led_by(self.roster.me());
        if under_way < self.config.triple_runs && under_way < waiting.max(1) {
            self.lead_triples(set, now);
        }
    }

    /// Makes triples in advance, one pair at a time, when nothing else runs here.
    pub(crate) fn fill_stock(&mut self, now: UnixMillis) {
        let has_ecdsa = self.keygen.has_ecdsa();
        let busy = self.runs.which(|slot| !matches!(slot.role, Role::Triples { .. })).len();
        if !has_ecdsa
            || busy > 0
            || self.triples.led_by(self.roster.me()) > 0
            || now < self.triples.paused_until
        {
            return;
        }
        if let Some(set) = self.stocking_set(now)
            && let Some(boots) = self.run_participants(&set)
            && self.triples.ready(&boots) < self.config.triple_stock
        {
            self.lead_triples(set, now);
        }
    }

    /// The set that this node makes triples for in advance.
    pub(crate) fn stocking_set(&self, now: UnixMillis) -> Option<Vec<NodeName>> {
        let t = usize::from(self.threshold);
        self.roster.own_set(t, &BTreeSet::new(), now, |name| self.holds_ecdsa(name))
    }

    pub(crate) fn lead_triples(&mut self, set: Vec<NodeName>, now: UnixMillis) {
        let (size, number) = (self.state.size(), self.fresh_number());
        let me = self.roster.me().clone();
        match self.begin_triples(&me, size, number, &set, now) {
            Ok(()) => self.send_first(
                &set,
                &PeerMessage::StartTriples { size, number, participants: set.clone() },
            ),
            Err(error) => tracing::debug!(%error, "triples not begun"),
        }
    }

    /// Somebody asks for triples with this node.
    pub(crate) fn join_triples(
        &mut self,
        from: &NodeName,
        size: u64,
        number: u64,
        participants: Vec<NodeName>,
        now: UnixMillis,
    ) {
        if !participants.contains(from)
            || !participants.contains(self.roster.me())
            || self.triples.led_by(from) >= MAX_JOINED
            || size.abs_diff(self.state.size()) > MAX_DRIFT
        {
            return;
        }
        let set = self.run_participants(&participants);
        if set.is_none_or(|set| self.triples.stock.count(&set) >= MAX_OF_SET) {
            return;
        }
        if let Err(error) = self.begin_triples(from, size, number, &participants, now) {
            tracing::debug!(%from, %error, "triples not begun");
        }
    }

    fn begin_triples(
        &mut self,
        leader: &NodeName,
        size: u64,
        number: u64,
        set: &[NodeName],
        now: UnixMillis,
    ) -> Result<(), RunError> {
        use casemate_threshold::Misuse;
        let participants = self.run_participants(set).ok_or(Misuse::NotParticipating)?;
        let boot = self.state.current_boot(leader).ok_or(Misuse::NotParticipating)?;
        let context = RunContext::new(RunSpec {
            genesis: self.state.genesis(),
            incarnation: self.state.incarnation(),
            purpose: Purpose::Triples,
            participants: participants.clone(),
            threshold: self.threshold,
            log_index: size,
            // no entry causes it: the boot that asks keeps its numbers apart from the others'
            entry: tagged_hash("casemate/triples-by/v1", &[boot.as_bytes()]),
            attempt: number,
        })?;
        let deadline = now.saturating_add(self.config.triple_timeout);
        self.triples.begun(leader, &participants);
        let begun = self.begin_run(
            context,
            deadline,
            Role::Triples { leader: leader.clone() },
            now,
            |_, claim| Ok(AnyRun::Triples(Box::new(TripleRun::new(claim)?))),
            |_, _| Ok(None),
        );
        if begun.is_err() {
            self.triples.ended(leader, &participants);
        }
        begun.map(drop)
    }

    pub(crate) fn pair_made(&mut self, pair: TriplePair, leader: &NodeName, now: UnixMillis) {
        let (set, id) = (pair.set().clone(), pair.id());
        self.triples.ended(leader, &set);
        match self.triples.stock.put(pair) {
            Ok(()) if leader == self.roster.me() => {
                self.triples.own.entry(set).or_default().push_back(id);
            }
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "triples not stocked"),
        }
        self.resume_early_starts(now);
        self.resume_early_keygen(now);
        self.drive_tests(now);
        self.drive_signing(now);
    }

    pub(crate) fn pair_failed(&mut self, leader: &NodeName, set: &Participants, now: UnixMillis) {
        self.triples.ended(leader, set);
        self.triples.paused_until = now.saturating_add(PAUSE);
    }
}
