//! What a broken enclave can send to the others, and what comes of it.

use std::collections::BTreeSet;

use casemate_dev::in_process::Progress;
use casemate_proto::ids::Hash32;
use casemate_proto::request::SignRequest;
use casemate_proto::{Millis, NodeName};
use casemate_signer::{HaltReason, PeerMessage, StartKey};
use casemate_threshold::{RunId, peek_run};

use crate::kit::{Kit, Seen, check, key_name, signed};

/// A cluster in which nothing runs but what a test makes run.
fn quiet(key: &str) -> Kit {
    let mut kit = Kit::with_keys(&[key], |config| {
        config.node.checkpoint_interval = Millis(3_600_000);
        config.node.attempt_timeout = Millis(120_000);
        config.node.triple_stock = 0;
    });
    kit.pass(1_000);
    kit
}

struct Attack {
    kit: Kit,
    index: u64,
    /// Who leads the entry, and is broken.
    leader: NodeName,
    /// Who is asked.
    victim: NodeName,
    request: SignRequest,
}

/// An allowed entry that no attempt was started for, but by its leader alone.
fn allowed() -> Attack {
    let mut kit = quiet("notary");
    let request = kit.message("attacked");
    let index = kit.commit_unsigned(&request);
    let at = usize::try_from(index % 3).unwrap();
    let (leader, victim) = (kit.name(at), kit.name((at + 1) % 3));
    Attack { kit, index, leader, victim, request }
}

impl Attack {
    fn root(&self) -> Hash32 {
        let state = self.kit.cluster.any_state().unwrap();
        assert_eq!(state.size(), self.index + 1);
        state.root()
    }
    fn pair(&self) -> Vec<NodeName> {
        let mut pair = vec![self.leader.clone(), self.victim.clone()];
        pair.sort();
        pair
    }
    fn start(&self, attempt: u8) -> PeerMessage {
        PeerMessage::StartSign {
            index: self.index,
            attempt,
            participants: self.pair(),
            triples: None,
            root: self.root(),
            epoch: 0,
        }
    }
    /// The runs that the victim sends anything in after it received this.
    fn runs_after(&mut self, message: &PeerMessage) -> BTreeSet<RunId> {
        let (leader, victim) = (self.leader.clone(), self.victim.clone());
        runs_after(&mut self.kit, &leader, &victim, message)
    }
}

fn runs_after(
    kit: &mut Kit,
    from: &NodeName,
    victim: &NodeName,
    message: &PeerMessage,
) -> BTreeSet<RunId> {
    // the leader's own, honest node must not hear a refusal and try with somebody else
    let seen = kit.watch_outputs(|seen| !matches!(seen, Seen::Peer(PeerMessage::Declined { .. })));
    kit.cluster.inject(from, victim, message.encode());
    kit.pass(100);
    let seen = seen.lock().unwrap();
    seen.iter()
        .filter(|(name, _)| name == victim)
        .filter_map(|(_, seen)| match seen {
            Seen::Peer(PeerMessage::Run(bytes)) => peek_run(bytes).ok(),
            _ => None,
        })
        .collect()
}

#[test]
fn i4_no_share_before_commit() {
    let mut kit = quiet("notary");
    let (leader, victim) = (kit.name(0), kit.name(1));
    kit.watch_outputs(|seen| !matches!(seen, Seen::Proposed(_)));
    let agent = kit.agent.clone();
    let request = kit.message("never committed");
    kit.submit(1, &agent, &request);
    kit.pass(200);
    let state = kit.cluster.any_state().unwrap();
    let start = PeerMessage::StartSign {
        index: state.size(),
        attempt: 0,
        participants: vec![leader.clone(), victim.clone()],
        triples: None,
        root: state.root(),
        epoch: 0,
    };
    assert!(runs_after(&mut kit, &leader, &victim, &start).is_empty());
}

#[test]
fn i4_no_share_for_a_denied_entry_or_one_that_allows_nothing() {
    let mut kit = quiet("agent-7");
    let (leader, victim) = (kit.name(0), kit.name(1));
    let request = kit.payment(6_000_000);
    kit.agent_asks(0, &request);
    kit.pass(200);
    let state = kit.cluster.any_state().unwrap();
    let (size, root) = (state.size(), state.root());
    let start = PeerMessage::StartSign {
        index: size - 1,
        attempt: 0,
        participants: vec![leader.clone(), victim.clone()],
        triples: None,
        root,
        epoch: 0,
    };
    assert!(runs_after(&mut kit, &leader, &victim, &start).is_empty());
    assert!(!kit.halted());
}

#[test]
fn i4_no_share_after_tau() {
    for (late, shares) in [(0, 1), (1, 0)] {
        let mut attack = allowed();
        let start = attack.start(0);
        let credential = attack.kit.agent.public.id();
        let state = attack.kit.cluster.any_state().unwrap();
        let known = state.request(&credential, &attack.request.request_id).unwrap();
        let release_by = match &known.status {
            casemate_ledger::state::RequestStatus::Allowed(allowed) => allowed.release_by,
            other => panic!("{other:?}"),
        };
        let left = release_by.0 - attack.kit.now().0;
        attack.kit.clock.pass(left + late);
        let (leader, victim) = (attack.leader.clone(), attack.victim.clone());
        let seen = attack.kit.watch_outputs(|_| true);
        attack.kit.cluster.inject(&leader, &victim, start.encode());
        attack.kit.cluster.pump();
        let runs = seen.lock().unwrap().iter().filter(|(n, s)| *n == victim && s.is_run()).count();
        assert_eq!(runs, shares, "{late} ms after τ");
    }
}

#[test]
fn i8_attempt_numbers_are_used_once_and_one_peer_cannot_use_up_all() {
    let mut attack = allowed();
    let mut all = BTreeSet::new();
    // a high number leaves the ones below it fresh
    for attempt in [2, 0] {
        // the leader does not answer, so no attempt ends in a signature
        let start = attack.start(attempt);
        let runs = attack.runs_after(&start);
        assert_eq!(runs.len(), 1, "attempt {attempt}");
        assert!(all.is_disjoint(&runs), "another run for another attempt");
        all.extend(runs);
        let again = attack.start(attempt);
        assert!(attack.runs_after(&again).is_empty(), "attempt {attempt} again");
    }
    // 1 is left for somebody else, and there is no 3
    for attempt in [1, 3] {
        let start = attack.start(attempt);
        assert!(attack.runs_after(&start).is_empty(), "attempt {attempt}");
    }
}

#[test]
fn start_with_wrong_participants_is_refused() {
    let mut attack = allowed();
    let (leader, victim) = (attack.leader.clone(), attack.victim.clone());
    let third =
        attack.kit.cluster.names().into_iter().find(|n| *n != leader && *n != victim).unwrap();
    let stranger = NodeName::new("mars-1").unwrap();
    for participants in [
        vec![],
        vec![leader.clone()],
        vec![victim.clone()],
        vec![victim.clone(), victim.clone()],
        vec![leader.clone(), third.clone()],
        vec![victim.clone(), third.clone()],
        vec![victim.clone(), stranger],
        vec![leader.clone(), victim.clone(), third],
    ] {
        let start = PeerMessage::StartSign {
            index: attack.index,
            attempt: 0,
            participants: participants.clone(),
            triples: None,
            root: attack.root(),
            epoch: 0,
        };
        assert!(attack.runs_after(&start).is_empty(), "{participants:?}");
    }
    assert!(!attack.kit.halted());
    let good = attack.start(0);
    assert_eq!(attack.runs_after(&good).len(), 1, "none of them used the attempt up");
}

#[test]
fn start_from_a_node_that_is_not_in_the_roster_is_dropped() {
    let mut attack = allowed();
    attack.leader = NodeName::new("mars-1").unwrap();
    let start = attack.start(0);
    assert!(attack.runs_after(&start).is_empty());
}

fn other_root(attack: &Attack, from: &NodeName) -> PeerMessage {
    let mut participants = vec![from.clone(), attack.victim.clone()];
    participants.sort();
    PeerMessage::StartSign {
        index: attack.index,
        attempt: 0,
        participants,
        triples: None,
        root: Hash32::new([0xbb; 32]),
        epoch: 0,
    }
}

fn has_halted(attack: &Attack) -> bool {
    let progress = attack.kit.progress.lock().unwrap();
    progress.iter().any(|what| {
        matches!(
            what,
            Progress::Halted { node, reason: HaltReason::RootMismatch { .. } }
                if *node == attack.victim
        )
    })
}

#[test]
fn one_lying_peer_gets_no_share_and_halts_nobody() {
    let mut attack = allowed();
    let leader = attack.leader.clone();
    for _ in 0..5 {
        let start = other_root(&attack, &leader);
        assert!(attack.runs_after(&start).is_empty());
    }
    assert!(!has_halted(&attack));
}

#[test]
fn node_that_t_peers_contradict_halts_before_a_share() {
    let mut attack = allowed();
    let (leader, victim) = (attack.leader.clone(), attack.victim.clone());
    let third = (0..3).map(|i| attack.kit.name(i)).find(|n| *n != leader && *n != victim).unwrap();
    let start = other_root(&attack, &leader);
    assert!(attack.runs_after(&start).is_empty());
    let start = other_root(&attack, &third);
    assert!(runs_after(&mut attack.kit, &third, &victim, &start).is_empty());
    assert!(has_halted(&attack));
    attack.kit.cluster.intercept(Box::new(|_, _| true));
    let seen = attack.kit.watch_outputs(|_| true);
    attack.kit.pass(1_000);
    assert!(!seen.lock().unwrap().iter().any(|(name, _)| *name == victim), "it says nothing more");
}

#[test]
fn start_with_triples_that_nobody_made_is_declined() {
    let mut kit = quiet("agent-7");
    let request = kit.payment(1_000_000);
    let index = kit.commit_unsigned(&request);
    let at = usize::try_from(index % 3).unwrap();
    // not the leader: that one is making triples, and a start that names them would wait
    let (victim, from) = (kit.name((at + 1) % 3), kit.name((at + 2) % 3));
    let mut participants = vec![from.clone(), victim.clone()];
    participants.sort();
    let root = kit.cluster.any_state().unwrap().root();
    let triples = Some(Hash32::new([1; 32]));
    let start = PeerMessage::StartSign { index, attempt: 0, participants, triples, root, epoch: 0 };
    let seen = kit.watch_outputs(|_| true);
    kit.cluster.inject(&from, &victim, start.encode());
    kit.pass(100);
    let seen = seen.lock().unwrap();
    let of_victim: Vec<_> = seen.iter().filter(|(name, _)| *name == victim).collect();
    assert!(of_victim.iter().any(|(_, seen)| matches!(
        seen,
        Seen::Peer(PeerMessage::Declined { attempt: 0, next: 0, .. })
    )));
}

#[test]
fn mute_node_is_worked_around() {
    for mute in 0..3 {
        let mut kit = Kit::ready();
        let mute = kit.name(mute);
        let other = kit.cluster.names().into_iter().find(|name| *name != mute).unwrap();
        let silent = mute.clone();
        kit.cluster
            .intercept(Box::new(move |name, output| *name != silent || !Seen::of(output).is_run()));
        for _ in 0..3 {
            let request = kit.payment(100_000);
            let submission = kit.submission(&kit.agent.clone(), &request);
            let answer = signed(kit.cluster.ask(&other, submission).unwrap());
            check(&kit, casemate_proto::Scheme::EcdsaSecp256k1, &answer);
        }
        assert!(!kit.halted());
    }
}

#[test]
fn i12_garbage_and_floods_stop_nothing() {
    let mut kit = Kit::ready();
    let (from, to) = (kit.name(2), kit.name(0));
    // real messages, bent
    let seen = kit.watch_outputs(|_| true);
    for _ in 0..3 {
        let request = kit.payment(100_000);
        signed(kit.agent_asks(0, &request));
    }
    let runs: Vec<Vec<u8>> = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|(name, seen)| *name == from && seen.is_run())
        .filter_map(|(_, seen)| match seen {
            Seen::Peer(message) => Some(message.encode()),
            _ => None,
        })
        .take(50)
        .collect();
    assert!(!runs.is_empty());
    kit.cluster.intercept(Box::new(|_, _| true));
    for (i, bytes) in runs.iter().enumerate() {
        for at in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (i % 8);
            kit.cluster.inject(&from, &to, bent);
        }
        kit.cluster.inject(&from, &to, bytes[..bytes.len() / 2].to_vec());
        kit.cluster.inject(&from, &to, bytes.clone());
    }
    kit.cluster.inject(&from, &to, vec![0xff; 1_000_000]);
    kit.cluster.inject(&from, &to, Vec::new());
    // starts of what will never be
    let names = kit.cluster.names();
    for number in 0..2_000_u64 {
        let participants = vec![names[0].clone(), names[2].clone()];
        let messages = [
            PeerMessage::StartTriples {
                size: u64::MAX - number,
                number,
                participants: participants.clone(),
            },
            PeerMessage::StartSign {
                index: 1_000_000 + number,
                attempt: 0,
                participants: participants.clone(),
                triples: None,
                root: Hash32::new([0; 32]),
                epoch: 0,
            },
            PeerMessage::StartKey(StartKey {
                name: key_name("agent-7"),
                epoch: number,
                size: 1_000_000 + number,
                number,
                boots: Vec::new(),
            }),
            PeerMessage::Cosign { size: 1_000_000 + number, root: Hash32::new([0; 32]) },
        ];
        for message in messages {
            kit.cluster.inject(&from, &to, message.encode());
        }
    }
    kit.pass(500);
    assert!(!kit.halted());
    let request = kit.payment(100_000);
    let answer = signed(kit.agent_asks(0, &request));
    check(&kit, casemate_proto::Scheme::EcdsaSecp256k1, &answer);
}
