//! Runs that start before their entry is committed.

use super::*;

/// What a node sent: to which node, and what.
type Sent = Vec<(usize, PeerMessage)>;

impl Trio {
    /// The node that leads replication, and takes the turn to sign.
    const LEADER: usize = 0;

    fn led() -> Self {
        let mut trio = Self::up();
        trio.create_notary();
        trio.permit_notes();
        let boot = trio.nodes[Self::LEADER].boot_id();
        for node in &mut trio.nodes {
            assert!(node.handle(Event::Leader(boot), trio.now).is_empty());
        }
        trio
    }

    /// A request of now, as the leader appends it.
    fn entry(&mut self) -> Entry {
        Entry { at: self.now, body: self.ask().0 }
    }

    fn handle(&mut self, at: usize, event: Event) -> (Sent, Vec<EntryBody>) {
        let (mut sent, mut proposed) = (Vec::new(), Vec::new());
        for output in self.nodes[at].handle(event, self.now) {
            match output {
                Output::Send { to, bytes } => {
                    let to = REGIONS.iter().position(|region| *region == to.as_str()).unwrap();
                    sent.push((to, PeerMessage::decode(bytes.as_slice()).unwrap()));
                }
                Output::Propose { body, .. } => proposed.push(body),
                Output::Halt { reason } => panic!("{reason}"),
                _ => {}
            }
        }
        (sent, proposed)
    }

    fn append(&mut self, entry: &Entry) -> Sent {
        let index = self.nodes[Self::LEADER].state().size();
        let (sent, proposed) =
            self.handle(Self::LEADER, Event::Appended { index, entry: Box::new(entry.clone()) });
        assert!(proposed.is_empty());
        sent
    }

    fn commit(&mut self, at: usize, entry: &Entry) -> (Sent, Vec<EntryBody>) {
        let committed = Committed::dangerous_assume(entry.clone(), None);
        self.handle(at, Event::Committed(committed))
    }

    /// Delivers what one node sent to another.
    fn deliver(&mut self, from: usize, to: usize, sent: &Sent) -> (Sent, Vec<EntryBody>) {
        let name = self.nodes[from].name().clone();
        let (mut all, mut proposed) = (Vec::new(), Vec::new());
        for (_, message) in sent.iter().filter(|(at, _)| *at == to) {
            let bytes = Bytes::new(message.encode());
            let (sent, more) = self.handle(to, Event::Peer { from: name.clone(), bytes });
            all.extend(sent);
            proposed.extend(more);
        }
        (all, proposed)
    }
}

fn runs(sent: &Sent) -> usize {
    sent.iter().filter(|(_, message)| matches!(message, PeerMessage::Run(_))).count()
}

fn joined(sent: &Sent) -> bool {
    sent.iter().any(|(_, message)| matches!(message, PeerMessage::JoinedAhead { .. }))
}

fn signed(proposed: &[EntryBody]) -> bool {
    proposed.iter().any(|body| matches!(body, EntryBody::Signed { .. }))
}

#[test]
fn signature_is_there_one_way_after_its_entry_commits_at_a_participant() {
    let mut trio = Trio::led();
    let entry = trio.entry();
    let ahead = trio.append(&entry);
    assert!(matches!(ahead.first(), Some((1, PeerMessage::StartAhead { .. }))));
    assert_eq!((ahead.len(), runs(&ahead)), (2, 1), "the start, and then the commitments");
    // i4: the participant says nothing before it has applied the entry, the leader gives no share
    let (early, _) = trio.deliver(0, 1, &ahead);
    assert!(early.is_empty());
    let (answer, _) = trio.commit(1, &entry);
    assert!(joined(&answer));
    assert_eq!(runs(&answer), 2, "its commitments, and its share");
    let (before, proposed) = trio.deliver(1, 0, &answer);
    assert!(before.is_empty() && proposed.is_empty(), "i4: not before it is applied here");
    let (share, proposed) = trio.commit(0, &entry);
    assert_eq!(runs(&share), 1);
    assert!(signed(&proposed), "with all shares there, the signature is there at once");
    let (_, proposed) = trio.deliver(0, 1, &share);
    assert!(proposed.is_empty(), "the leader proposes it");
    assert_eq!(trio.commit(2, &entry).0, [], "and nobody else leads");
}

#[test]
fn i4_leader_that_applies_first_gives_no_share_before_the_others_roots_are_its_own() {
    let mut trio = Trio::led();
    let entry = trio.entry();
    let ahead = trio.append(&entry);
    let (sent, _) = trio.commit(0, &entry);
    assert!(sent.is_empty());
    trio.deliver(0, 1, &ahead);
    let (mut answer, _) = trio.commit(1, &entry);
    for (_, message) in &mut answer {
        if let PeerMessage::JoinedAhead { root, .. } = message {
            *root = Hash32::new([7; 32]);
        }
    }
    let (share, proposed) = trio.deliver(1, 0, &answer);
    assert_eq!((runs(&share), proposed.len()), (0, 0));
    assert_eq!(trio.nodes[0].disputes().len(), 1);
    assert_eq!(trio.nodes[0].runs.iter().count(), 0, "burned");
}

#[test]
fn run_started_ahead_outlives_an_entry_that_is_applied_before_the_others_have_joined() {
    let mut trio = Trio::led();
    let entry = trio.entry();
    let ahead = trio.append(&entry);
    trio.commit(0, &entry);
    let next = Entry { at: trio.now, body: EntryBody::Tick };
    trio.commit(0, &next);
    trio.deliver(0, 1, &ahead);
    let (answer, _) = trio.commit(1, &entry);
    let (share, proposed) = trio.deliver(1, 0, &answer);
    assert_eq!(runs(&share), 1);
    assert!(signed(&proposed), "with the first attempt");
}

#[test]
fn i8_what_went_ahead_of_an_entry_that_never_commits_is_burned() {
    let mut trio = Trio::led();
    let entry = trio.entry();
    let lost = trio.append(&entry);
    trio.deliver(0, 1, &lost);
    assert_eq!(trio.nodes[0].runs.iter().count(), 1);
    // another leader's entry took the index
    let other = Entry { at: trio.now, body: EntryBody::Tick };
    for at in 0..3 {
        trio.commit(at, &other);
    }
    assert_eq!(trio.nodes[0].runs.iter().count(), 0);
    // the same request comes later, at another index: nothing of the former run is in it
    let again = trio.append(&entry);
    assert_eq!(runs(&again), 1);
    let bytes = |sent: &Sent| -> Vec<Vec<u8>> {
        let messages = sent.iter().filter_map(|(_, message)| match message {
            PeerMessage::Run(bytes) => Some(bytes.clone()),
            _ => None,
        });
        messages.collect()
    };
    assert_ne!(bytes(&lost), bytes(&again));
    trio.deliver(0, 1, &again);
    let (answer, _) = trio.commit(1, &entry);
    trio.deliver(1, 0, &answer);
    let (_, proposed) = trio.commit(0, &entry);
    assert!(signed(&proposed));
}

#[test]
fn i8_what_went_ahead_is_burned_when_its_time_is_over() {
    let mut trio = Trio::led();
    let entry = trio.entry();
    trio.append(&entry);
    trio.now = trio.now.saturating_add(Millis(5_001));
    trio.handle(0, Event::Tick);
    assert_eq!(trio.nodes[0].runs.iter().count(), 0);
    // it commits after all: led again, under another number
    for at in [2, 1, 0] {
        let (sent, _) = trio.commit(at, &entry);
        let starts = sent.iter().filter_map(|(_, message)| match message {
            PeerMessage::StartSign { attempt, .. } => Some(*attempt),
            _ => None,
        });
        assert_eq!(starts.collect::<Vec<u8>>(), if at == 0 { vec![1] } else { Vec::new() });
    }
}

#[test]
fn i4_entry_that_is_not_allowed_is_not_started_ahead() {
    let mut trio = Trio::led();
    let entry = trio.entry();
    let EntryBody::Request { stamp, body } = &entry.body else { panic!() };
    let forged = casemate_proto::stamp::Stamp { signature: [0; 64], ..stamp.clone() };
    let forged =
        Entry { at: entry.at, body: EntryBody::Request { stamp: forged, body: body.clone() } };
    assert_eq!(trio.append(&forged), []);
    // beyond the limit of two
    for _ in 0..2 {
        assert_eq!(trio.note(), (true, true));
    }
    let third = trio.entry();
    assert_eq!(trio.append(&third), []);
    // nor by a node that does not lead, nor ahead of entries that are not applied
    let size = trio.state().size();
    let event = |index| Event::Appended { index, entry: Box::new(entry.clone()) };
    assert_eq!(trio.handle(1, event(size)).0, []);
    assert_eq!(trio.handle(0, event(size + 1)).0, []);
}

#[test]
fn i4_start_ahead_of_another_entry_than_the_one_that_committed_is_declined() {
    let mut trio = Trio::led();
    let (entry, other) = (trio.entry(), trio.entry());
    let ahead = trio.append(&entry);
    trio.deliver(0, 1, &ahead);
    let (answer, _) = trio.commit(1, &other);
    assert_eq!(runs(&answer), 0);
    assert!(matches!(answer.as_slice(), [(0, PeerMessage::Declined { .. })]));
    // whoever led it gives it up at once
    trio.deliver(1, 0, &answer);
    assert_eq!(trio.nodes[0].runs.iter().count(), 0);
}

#[test]
fn cosignatures_come_unasked_when_nothing_else_is_unsigned() {
    let mut trio = Trio::led();
    let entry = trio.entry();
    let ahead = trio.append(&entry);
    trio.deliver(0, 1, &ahead);
    let (answer, _) = trio.commit(1, &entry);
    trio.deliver(1, 0, &answer);
    let (_, mut proposed) = trio.commit(0, &entry);
    trio.commit(2, &entry);
    let done = Entry { at: trio.now, body: proposed.pop().unwrap() };
    let size = trio.state().size() + 1;
    for at in 0..3 {
        let (sent, _) = trio.commit(at, &done);
        let to: Vec<usize> = sent
            .iter()
            .filter(|(_, m)| matches!(m, PeerMessage::Cosigned { size: of, .. } if *of == size))
            .map(|(to, _)| *to)
            .collect();
        assert_eq!(to, (0..3).filter(|other| *other != at).collect::<Vec<_>>());
    }
}
