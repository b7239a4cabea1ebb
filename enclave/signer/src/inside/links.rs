//! Links that go and come: nobody waits for what cannot come any more.

use casemate_threshold::RunId;

use super::*;
use crate::runs::Role;

impl Trio {
    fn name(&self, at: usize) -> NodeName {
        self.nodes[at].name().clone()
    }

    /// Nothing goes between two nodes from here on; they are not told.
    fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// Tells two nodes how the link between them is.
    fn tell(&mut self, a: usize, b: usize, up: bool) {
        for (at, of) in [(a, b), (b, a)] {
            let node = self.name(of);
            self.inboxes[at].push_back(Event::Link { node, up });
        }
    }

    /// A node says something of its own accord.
    fn say(&mut self, from: usize, to: usize, message: &PeerMessage) {
        let (from, bytes) = (self.name(from), Bytes::new(message.encode()));
        self.inboxes[to].push_back(Event::Peer { from, bytes });
    }

    fn is_live(&self) -> bool {
        self.state().key_epoch(&notary()).is_some()
    }

    fn create_notary_in(&mut self, milliseconds: u64) {
        self.govern(Change::CreateKey { name: notary(), scheme: Scheme::Ed25519 }, None);
        self.work(milliseconds);
    }

    /// Who leads a key's run here, and the two others.
    fn leader_and_others(&self) -> (usize, [usize; 2]) {
        let leads = |at: &usize| {
            let me = self.name(*at);
            let is_mine = |role: &Role| matches!(role, Role::Key { leader, .. } if *leader == me);
            self.nodes[*at].runs.iter().any(|(_, slot)| is_mine(&slot.role))
        };
        let leader = (0..3).find(leads).expect("nobody leads");
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        (leader, [others[0], others[1]])
    }

    /// The runs of a kind at a node, with who takes part.
    fn runs(&self, at: usize, kind: fn(&Role) -> bool) -> Vec<(RunId, Vec<usize>)> {
        let node = &self.nodes[at];
        let of = |names: Vec<NodeName>| {
            (0..3).filter(|at| names.contains(&self.name(*at))).collect::<Vec<usize>>()
        };
        let found = node.runs.iter().filter(|(_, slot)| kind(&slot.role));
        found.map(|(id, slot)| (*id, of(node.roster.names_of(&slot.participants)))).collect()
    }

    /// The runs whose shares are pending at a node.
    fn pending(&self, at: usize) -> Vec<RunId> {
        let jobs = self.nodes[at].keygen.jobs.values();
        jobs.flat_map(|job| job.candidates.iter().map(|c| c.run)).collect()
    }
}

#[test]
fn checkpoint_that_a_node_missed_reaches_it_though_nothing_more_is_applied() {
    let mut trio = Trio::up();
    trio.work(3_000);
    for other in [0, 1] {
        trio.cut(other, 2);
        trio.tell(other, 2, false);
    }
    let before = trio.nodes[2].published();
    trio.create_notary();
    trio.work(5_000);
    let size = trio.state().size();
    let published = |trio: &Trio| [0, 1, 2].map(|at| trio.nodes[at].published());
    assert_eq!(published(&trio), [size, size, before]);
    trio.cut.clear();
    // a key is asked for: without its run nothing more is applied
    trio.lose = |message| matches!(message, PeerMessage::StartKey(_));
    for other in [0, 1] {
        trio.tell(other, 2, true);
    }
    trio.work(3_000);
    assert_eq!(trio.state().size(), size);
    assert_eq!(published(&trio), [size; 3]);
}

#[test]
fn key_run_is_not_begun_before_the_others_are_linked_with_each_other() {
    for pair in [(0, 1), (0, 2), (1, 2)] {
        let mut trio = Trio::up();
        trio.cut(pair.0, pair.1);
        trio.tell(pair.0, pair.1, false);
        trio.create_notary_in(3_000);
        assert!(!trio.is_live());
        assert!((0..3).all(|at| trio.runs(at, |_| true).is_empty()), "nothing waits");
        trio.cut.clear();
        trio.tell(pair.0, pair.1, true);
        trio.work(2_500);
        assert!(trio.is_live(), "{pair:?}");
    }
}

#[test]
fn key_run_that_loses_a_link_between_two_others_ends_for_all_and_begins_anew_at_once() {
    let mut trio = Trio::up();
    trio.lose = |message| matches!(message, PeerMessage::Run(_));
    trio.create_notary_in(1_000);
    let (leader, [one, other]) = trio.leader_and_others();
    let run = trio.runs(leader, |role| matches!(role, Role::Key { .. }));
    trio.tell(one, other, false);
    trio.work(50);
    assert!((0..3).all(|at| !trio.runs(at, |_| true).contains(&run[0])), "the leader was told");
    trio.lose = |_| false;
    trio.tell(one, other, true);
    trio.work(1_500);
    assert!(trio.is_live());
}

#[test]
fn shares_that_one_node_did_not_get_are_dropped_by_all_and_made_anew_at_once() {
    let mut trio = Trio::up();
    trio.lose = |message| matches!(message, PeerMessage::StartTest(_));
    trio.create_notary_in(1_000);
    let made = trio.pending(0);
    assert_eq!(made.len(), 1);
    trio.say(2, 0, &PeerMessage::RunEnded { run: made[0] });
    trio.work(50);
    assert!((0..2).all(|at| !trio.pending(at).contains(&made[0])), "the third heard of it too");
    trio.lose = |_| false;
    trio.work(1_500);
    assert!(trio.is_live());
}

#[test]
fn i12_word_that_a_run_ended_does_not_take_away_a_share_that_was_confirmed() {
    let mut trio = Trio::up();
    trio.lose = |message| matches!(message, PeerMessage::Confirmed { .. });
    trio.create_notary_in(1_000);
    let made = trio.pending(0);
    assert_eq!(made.len(), 1);
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        trio.say(from, to, &PeerMessage::RunEnded { run: made[0] });
    }
    trio.work(50);
    assert!((0..3).all(|at| trio.pending(at) == made));
    trio.lose = |_| false;
    trio.work(4_000);
    assert!(trio.is_live());
}

#[test]
fn i12_word_of_a_node_that_takes_no_part_in_a_run_does_not_end_it() {
    let mut trio = Trio::up();
    trio.lose = |message| matches!(message, PeerMessage::StartTest(_));
    trio.create_notary_in(1_000);
    let is_test = |role: &Role| matches!(role, Role::Test { .. });
    let leader = (0..3).find(|at| !trio.runs(*at, is_test).is_empty()).unwrap();
    let (run, set) = trio.runs(leader, is_test).remove(0);
    let stranger = (0..3).find(|at| !set.contains(at)).unwrap();
    let partner = set.iter().copied().find(|at| *at != leader).unwrap();
    let has = |trio: &Trio| trio.runs(leader, is_test).iter().any(|(id, _)| *id == run);
    trio.say(stranger, leader, &PeerMessage::RunEnded { run });
    trio.work(50);
    assert!(has(&trio));
    trio.say(partner, leader, &PeerMessage::RunEnded { run });
    trio.work(50);
    assert!(!has(&trio));
}

#[test]
fn i12_word_that_a_run_ended_does_not_spend_an_attempt_at_a_signature() {
    let mut trio = Trio::up();
    trio.create_notary();
    trio.permit_notes();
    trio.lose = |message| matches!(message, PeerMessage::StartSign { .. });
    trio.ask_for_note();
    let is_sign = |role: &Role| matches!(role, Role::Sign { .. });
    let leader = (0..3).find(|at| !trio.runs(*at, is_sign).is_empty()).unwrap();
    let (run, set) = trio.runs(leader, is_sign).remove(0);
    let partner = set.iter().copied().find(|at| *at != leader).unwrap();
    trio.say(partner, leader, &PeerMessage::RunEnded { run });
    trio.work(50);
    assert!(trio.runs(leader, is_sign).iter().any(|(id, _)| *id == run));
}
