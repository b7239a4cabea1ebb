//! A signature whose last step a participant has left to the leader of its run.

use super::*;
use crate::runs::Role;
use crate::signing::Phase;

/// Who led the run, and who has left its last step.
struct Left {
    leader: usize,
    partner: usize,
    request: RequestId,
}

impl Trio {
    fn signing_runs(&self, at: usize) -> usize {
        let runs = self.nodes[at].runs.iter();
        runs.filter(|(_, slot)| matches!(slot.role, Role::Sign { .. })).count()
    }

    /// A note is asked for and signed, and nobody hears the leader say so.
    fn left() -> (Self, Left) {
        let mut trio = Self::up();
        trio.create_notary();
        trio.permit_notes();
        trio.mute = vec![0, 1, 2];
        let request = trio.ask_for_note();
        let is_made = |at: &usize| {
            let mut jobs = trio.nodes[*at].signing.jobs.values();
            jobs.any(|job| matches!(job.phase, Phase::Made { .. }))
        };
        let leader = (0..3).find(is_made).expect("nobody made it");
        let partner = (0..3).find(|at| trio.signing_runs(*at) == 1).expect("nobody left it");
        assert_ne!(leader, partner);
        trio.mute = vec![leader];
        (trio, Left { leader, partner, request })
    }

    fn is_note_signed(&self, request: &RequestId) -> bool {
        self.state().is_signed(&person(20).1.id(), request)
    }
}

#[test]
fn participant_ends_its_run_when_the_leaders_signature_is_recorded() {
    let mut trio = Trio::up();
    trio.create_notary();
    trio.permit_notes();
    let request = trio.ask_for_note();
    assert!(trio.is_note_signed(&request));
    assert!((0..3).all(|at| trio.signing_runs(at) == 0 && trio.nodes[at].is_idle()));
}

#[test]
fn participant_makes_and_proposes_the_signature_where_the_leader_does_not() {
    let (mut trio, left) = Trio::left();
    trio.work(1_800);
    assert!(!trio.is_note_signed(&left.request), "the leader has its time");
    trio.work(400);
    assert!(trio.is_note_signed(&left.request));
    assert_eq!(trio.signing_runs(left.partner), 0);
}

#[test]
fn participant_has_the_signature_still_when_the_leader_is_cut_off() {
    let (mut trio, left) = Trio::left();
    let gone = trio.nodes[left.leader].name().clone();
    for at in (0..3).filter(|at| *at != left.leader) {
        trio.cut.insert((at.min(left.leader), at.max(left.leader)));
        trio.inboxes[at].push_back(Event::Link { node: gone.clone(), up: false });
    }
    let before = trio.run_messages;
    trio.work(50);
    assert_eq!(trio.signing_runs(left.partner), 0);
    trio.work(2_200);
    assert!(trio.is_note_signed(&left.request));
    assert_eq!(trio.run_messages, before, "no second attempt");
}
