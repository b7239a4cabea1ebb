//! The pitfalls of the two libraries, each shown closed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;
#[path = "pitfalls/frost.rs"]
mod frost;
#[path = "pitfalls/permits.rs"]
mod permits;

use std::collections::BTreeMap;

use casemate_proto::{BootId, Hash32, UnixMillis, cbor, hash::tagged_hash};
use casemate_threshold::{
    Abort, Authorised, ConfirmError, EcdsaKeygenRun, EcdsaSignRun, Ed25519KeygenRun,
    Ed25519SignRun, KeyEpoch, Misbehaviour, Misuse, Participants, PartyId, Purpose, Refusal, Run,
    RunContext, RunError, RunMessage, RunRegistry, TripleStock, covering_subsets,
    ecdsa::StockError, ed25519_subject,
};
use common::{
    DEADLINE, End, KeygenRun, LATE, NOW, Net, Packet, Purposes, World, key_ref, participant,
    participants, party,
};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

fn edit(packet: &Packet, change: impl FnOnce(&mut RunMessage)) -> Vec<u8> {
    let mut message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
    change(&mut message);
    cbor::encode(&message)
}

/// Parties 0 and 1 in an Ed25519 signing run, and party 1's first message to party 0.
fn one_message(seed: u64) -> (World, Net<Ed25519SignRun>, Packet) {
    let mut world = World::new(3, 2, seed);
    let keys = world.ed25519_live("cold");
    let runs = world.frost_sign_runs(&keys, &participants(&[0, 1]), "m", b"x");
    let mut net = Net::new(runs, seed);
    net.start();
    let at = net.queue.iter().position(|p| p.from == party(1)).unwrap();
    let packet = net.queue.swap_remove(at);
    (world, net, packet)
}

fn refusal(net: &mut Net<Ed25519SignRun>, from: u16, bytes: &[u8]) -> Refusal {
    let run = net.runs.get_mut(&party(0)).unwrap();
    match run.receive(party(from), bytes, NOW).unwrap_err() {
        RunError::Refused { from: named, why } => {
            assert_eq!(named, party(from));
            why
        }
        other => panic!("{other}"),
    }
}

#[test]
fn pitfall_0_triples_of_another_set_are_refused() {
    let mut world = World::new(4, 2, 1);
    let keys = world.ecdsa_live("hot");
    let (ours, theirs) = (participants(&[0, 1]), participants(&[0, 2]));
    let pair = world.triples(&theirs).remove(&party(0)).unwrap();
    let purpose = Purpose::EcdsaSign {
        key: key_ref("hot", 0),
        path: casemate_proto::DerivationPath::root(),
        digest: [1; 32],
        triples: pair.id(),
    };
    let context = world.context(purpose, &ours, 2);
    let claim = world.claim(&context, party(0));
    let error = EcdsaSignRun::new(claim, &keys[&party(0)], pair).unwrap_err();
    assert_eq!(error, RunError::Misuse(Misuse::WrongTriples));
}

#[test]
fn pitfall_0_triples_of_another_name_are_refused() {
    let mut world = World::new(3, 2, 2);
    let keys = world.ecdsa_live("hot");
    let set = participants(&[0, 1]);
    let named = world.triples(&set).remove(&party(0)).unwrap();
    let other = world.triples(&set).remove(&party(0)).unwrap();
    let purpose = Purpose::EcdsaSign {
        key: key_ref("hot", 0),
        path: casemate_proto::DerivationPath::root(),
        digest: [1; 32],
        triples: named.id(),
    };
    let context = world.context(purpose, &set, 2);
    let claim = world.claim(&context, party(0));
    let error = EcdsaSignRun::new(claim, &keys[&party(0)], other).unwrap_err();
    assert_eq!(error, RunError::Misuse(Misuse::WrongTriples));
}

#[test]
fn pitfall_1_a_message_of_another_run_is_refused() {
    let mut world = World::new(3, 2, 3);
    let keys = world.ed25519_live("cold");
    let set = participants(&[0, 1]);
    // the same message, key, path and parties: two entries of the ledger, or two attempts
    let mut nets = [0, 1].map(|_| {
        let mut net = Net::new(world.frost_sign_runs(&keys, &set, "m", b"x"), 3);
        net.start();
        net
    });
    let id = nets[1].runs[&party(1)].context().id();
    let foreign = nets[1].queue.iter().find(|p| p.from == party(1)).unwrap().bytes.clone();
    assert_eq!(refusal(&mut nets[0], 1, &foreign), Refusal::WrongRun { named: id });
}

#[test]
fn pitfall_1_sender_and_receiver_are_bound() {
    let (_, mut net, packet) = one_message(5);
    // relayed in party 1's channel but written by party 2, and the other way round
    let forged = edit(&packet, |m| m.from = party(2));
    assert_eq!(refusal(&mut net, 1, &forged), Refusal::WrongSender { named: party(2) });
    assert_eq!(refusal(&mut net, 2, &packet.bytes), Refusal::NotAParticipant);
    let misdirected = edit(&packet, |m| m.to = party(2));
    assert_eq!(refusal(&mut net, 1, &misdirected), Refusal::WrongReceiver { named: party(2) });
    assert_eq!(refusal(&mut net, 0, &packet.bytes), Refusal::FromSelf);
}

#[test]
fn pitfall_1_a_repeated_sequence_is_refused() {
    let (_, mut net, packet) = one_message(6);
    let run = net.runs.get_mut(&party(0)).unwrap();
    assert!(run.receive(party(1), &packet.bytes, NOW).is_ok());
    let sequence = cbor::decode::<RunMessage>(&packet.bytes, 1 << 20).unwrap().sequence;
    assert_eq!(refusal(&mut net, 1, &packet.bytes), Refusal::Repeated { sequence });
}

/// Runs a keygen in which party 2 lies: `lie` changes what it sends to party 1.
fn keygen_with_a_liar<R: Run>(
    runs: Vec<R>,
    mut lie: impl FnMut(&mut RunMessage),
) -> BTreeMap<PartyId, End<R::Output>> {
    let mut net = Net::new(runs, 7);
    net.start();
    net.pump(|_, mut packet| {
        if packet.from == party(2) && packet.to == party(1) {
            packet.bytes = edit(&packet, &mut lie);
        }
        vec![packet]
    });
    net.ends()
}

fn ecdsa_keygen_runs(world: &mut World) -> (RunContext, Vec<EcdsaKeygenRun>) {
    let all = world.all.clone();
    let context = world.context(Purpose::EcdsaKeygen { key: key_ref("k", 0) }, &all, world.t);
    let runs = all
        .parties()
        .map(|p| EcdsaKeygenRun::generate(world.claim(&context, p), [9; 32]).unwrap())
        .collect();
    (context, runs)
}

#[test]
fn pitfall_2_two_chain_codes_from_one_party_end_the_keygen_for_all() {
    let mut world = World::new(3, 2, 8);
    let (context, runs) = ecdsa_keygen_runs(&mut world);
    let other = [6; 32];
    let committed = tagged_hash(
        "casemate/threshold/chain-commit/v1",
        &[context.id().0.as_bytes(), &party(2).number().to_be_bytes(), &other],
    );
    let ends = keygen_with_a_liar(runs, |message| {
        for chunk in &mut message.chunks {
            match chunk.lane {
                13 => chunk.bytes = committed.as_bytes().to_vec(),
                14 => chunk.bytes = other.to_vec(),
                _ => {}
            }
        }
    });
    assert!(ends.values().all(|end| !end.is_done()), "{ends:?}");
    assert!(ends.values().any(|end| matches!(
        end,
        End::Failed(RunError::Aborted { what: Abort::EchoMismatch { .. } })
    )));
}

#[test]
fn pitfall_2_a_revealed_chain_code_that_was_not_committed_to_is_blamed() {
    let mut world = World::new(3, 2, 9);
    let (_, runs) = ecdsa_keygen_runs(&mut world);
    let ends = keygen_with_a_liar(runs, |message| {
        for chunk in message.chunks.iter_mut().filter(|chunk| chunk.lane == 14) {
            chunk.bytes = vec![1; 32];
        }
    });
    let End::Failed(error) = &ends[&party(1)] else { panic!("{ends:?}") };
    assert_eq!(error.culprits(), [party(2)]);
    assert!(matches!(
        error,
        RunError::PeerMisbehaved { what: Misbehaviour::ChainCodeMismatch, .. }
    ));
}

#[test]
fn pitfall_2_two_sets_of_frost_commitments_from_one_party_end_the_keygen_for_all() {
    let mut world = World::new(3, 2, 10);
    let all = world.all.clone();
    let context = world.context(Purpose::Ed25519Keygen { key: key_ref("k", 0) }, &all, 2);
    let mut honest = Vec::new();
    for p in [party(0), party(1)] {
        let claim = world.claim(&context, p);
        honest.push(Ed25519KeygenRun::generate(claim, [9; 32], &mut world.rng).unwrap());
    }
    // party 2 runs twice, each time honestly: once towards party 0, once towards party 1
    let mut liars = Vec::new();
    for _ in 0..2 {
        let me = participant(2, 0);
        let claim = RunRegistry::new(me.party, me.boot).claim(context.clone(), DEADLINE).unwrap();
        liars.push(Ed25519KeygenRun::generate(claim, [9; 32], &mut world.rng).unwrap());
    }
    let mut queue: Vec<(Packet, usize)> = Vec::new();
    let mut ends = BTreeMap::new();
    for (i, run) in honest.iter_mut().chain(&mut liars).enumerate() {
        let from = run.me();
        for out in run.start(NOW).unwrap().send {
            queue.push((Packet { from, to: out.to, bytes: out.bytes }, i));
        }
    }
    while let Some((packet, i)) = queue.pop() {
        let deliver =
            |run: &mut Ed25519KeygenRun, queue: &mut Vec<(Packet, usize)>, j: usize| match run
                .receive(packet.from, &packet.bytes, NOW)
            {
                Ok(step) => {
                    for out in step.send {
                        queue.push((Packet { from: run.me(), to: out.to, bytes: out.bytes }, j));
                    }
                    step.done.is_some()
                }
                Err(error) => {
                    if error.burns() && j < 2 {
                        ends.entry(run.me()).or_insert(error);
                    }
                    false
                }
            };
        let mut deliver = deliver;
        // the liar towards party 0 is run 2, towards party 1 run 3
        if i >= 2 {
            let audience = if i == 2 { party(0) } else { party(1) };
            if packet.to == audience {
                let j = usize::from(packet.to.number());
                assert!(!deliver(&mut honest[j], &mut queue, j), "a key from two transcripts");
            }
        } else if packet.to == party(2) {
            for (k, liar) in liars.iter_mut().enumerate() {
                let _ = deliver(liar, &mut queue, k + 2);
            }
        } else {
            let j = usize::from(packet.to.number());
            assert!(!deliver(&mut honest[j], &mut queue, j), "a key from two transcripts");
        }
    }
    assert!(
        ends.values()
            .any(|error| matches!(error, RunError::Aborted { what: Abort::EchoMismatch { .. } })),
        "{ends:?}"
    );
}

#[test]
fn pitfall_2_a_key_goes_live_only_with_all_echoes_and_covering_test_signatures() {
    let mut world = World::new(3, 2, 11);
    let fresh = |world: &mut World| {
        let mut pending = world.ed25519_keygen("cold");
        let tests: Vec<_> = covering_subsets(&world.all.clone(), 2)
            .iter()
            .map(|set| world.frost_test(&pending, set))
            .collect();
        let echoes: BTreeMap<_, _> = pending.iter().map(|(p, k)| (*p, k.echo())).collect();
        (pending.remove(&party(0)).unwrap(), echoes, tests)
    };

    let (key, echoes, tests) = fresh(&mut world);
    assert!(key.confirm(&echoes, &tests).is_ok());

    let (key, mut echoes, tests) = fresh(&mut world);
    echoes.remove(&party(2));
    assert_eq!(
        key.confirm(&echoes, &tests).unwrap_err(),
        ConfirmError::EchoMissing { expected: 3 }
    );

    let (key, mut echoes, tests) = fresh(&mut world);
    echoes.insert(party(2), Hash32::new([0; 32]));
    assert!(matches!(key.confirm(&echoes, &tests).unwrap_err(), ConfirmError::EchoMismatch { .. }));

    let (key, echoes, mut tests) = fresh(&mut world);
    tests.pop();
    assert_eq!(key.confirm(&echoes, &tests).unwrap_err(), ConfirmError::NotCovered(party(2)));

    let (key, echoes, mut tests) = fresh(&mut world);
    tests[0].signature[40] ^= 1;
    assert!(matches!(
        key.confirm(&echoes, &tests).unwrap_err(),
        ConfirmError::WrongSignature { .. }
    ));

    // one set's signature in another set's name
    let (key, echoes, mut tests) = fresh(&mut world);
    tests[1].signers = participants(&[1, 2]);
    assert!(matches!(
        key.confirm(&echoes, &tests).unwrap_err(),
        ConfirmError::WrongSignature { .. }
    ));

    // a test signature of an earlier keygen of the same name
    let (_, _, old) = fresh(&mut world);
    let (key, echoes, _) = fresh(&mut world);
    assert!(matches!(key.confirm(&echoes, &old).unwrap_err(), ConfirmError::WrongSignature { .. }));

    let (key, echoes, mut tests) = fresh(&mut world);
    tests[0].signers = world.all.clone();
    assert_eq!(
        key.confirm(&echoes, &tests).unwrap_err(),
        ConfirmError::WrongSubset { threshold: 2 }
    );
}

#[test]
fn pitfall_3_a_taken_pair_is_gone_and_never_comes_back() {
    let mut world = World::new(3, 2, 15);
    let set = participants(&[0, 1]);
    let mut stock = TripleStock::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let pair = world.triples(&set).remove(&party(0)).unwrap();
        ids.push(pair.id());
        stock.put(pair).unwrap();
    }
    assert_eq!(stock.count(&set), 3);
    let taken = stock.take(&set, &ids[1]).unwrap();
    assert_eq!(taken.id(), ids[1]);
    assert!(stock.take(&set, &ids[1]).is_none());
    assert_eq!(stock.put(taken), Err(StockError::Known(ids[1])));
    assert!(stock.take(&set, &ids[1]).is_none());
    assert_eq!(stock.count(&set), 2);
}

#[test]
fn pitfall_3_a_run_is_burned_at_its_deadline_whoever_asks() {
    let mut world = World::new(3, 2, 16);
    let keys = world.ed25519_live("cold");
    for case in 0..3 {
        let runs = world.frost_sign_runs(&keys, &participants(&[0, 1]), "m", b"x");
        let mut net = Net::new(runs, 16);
        net.start();
        let packet = net.queue.iter().find(|p| p.to == party(0)).unwrap().clone();
        let run = net.runs.get_mut(&party(0)).unwrap();
        let id = run.context().id();
        let permit = Authorised::dangerous_assert_committed_and_allowed(
            id,
            ed25519_subject(b"x"),
            UnixMillis(u64::MAX),
        );
        let error = match case {
            0 => run.receive(packet.from, &packet.bytes, LATE).unwrap_err(),
            1 => run.authorise(permit, LATE).unwrap_err(),
            _ => run.start(LATE).unwrap_err(),
        };
        assert_eq!(error, RunError::Expired { deadline: DEADLINE, now: LATE });
        // time that goes back does not bring it back
        let again = run.receive(packet.from, &packet.bytes, NOW).unwrap_err();
        assert_eq!(again, RunError::Burned);
    }
}

#[test]
fn pitfall_3_an_abort_burns_the_run() {
    let (_, mut net, packet) = one_message(17);
    let garbage = edit(&packet, |m| m.chunks[0].bytes = vec![7; 40]);
    let run = net.runs.get_mut(&party(0)).unwrap();
    let error = run.receive(party(1), &garbage, NOW).unwrap_err();
    assert_eq!(error.culprits(), [party(1)]);
    assert!(error.burns());
    assert_eq!(run.receive(party(1), &packet.bytes, NOW).unwrap_err(), RunError::Burned);
}

#[test]
fn pitfall_4_a_stale_epoch_signs_nothing() {
    let mut world = World::new(3, 2, 18);
    let keys = world.ecdsa_live("hot");
    let set = participants(&[0, 1]);
    let pair = world.triples(&set).remove(&party(0)).unwrap();
    let purpose = Purpose::EcdsaSign {
        key: key_ref("hot", 1),
        path: casemate_proto::DerivationPath::root(),
        digest: [1; 32],
        triples: pair.id(),
    };
    let context = world.context(purpose, &set, 2);
    let claim = world.claim(&context, party(0));
    assert_eq!(keys[&party(0)].facts().key.epoch, KeyEpoch(0));
    let error = EcdsaSignRun::new(claim, &keys[&party(0)], pair).unwrap_err();
    assert_eq!(error, RunError::Misuse(Misuse::WrongKey));
}

#[test]
fn pitfall_4_a_run_of_the_old_epoch_is_burned_by_its_owner_and_triples_are_cleared() {
    let mut world = World::new(3, 2, 19);
    let keys = world.ecdsa_live("hot");
    let set = participants(&[0, 1]);
    let mut run = world.ecdsa_sign_runs(&keys, &set, "m", [1; 32]).remove(0);
    run.burn();
    assert_eq!(run.start(NOW).unwrap_err(), RunError::Burned);
    let mut stock = TripleStock::new();
    let pair = world.triples(&set).remove(&party(0)).unwrap();
    let id = pair.id();
    stock.put(pair).unwrap();
    assert_eq!(stock.clear(), 1);
    assert!(stock.take(&set, &id).is_none());
}

#[test]
fn pitfall_5_another_set_gets_nothing_and_a_retired_boot_takes_its_triples_with_it() {
    let mut world = World::new(3, 2, 20);
    let (with_one, with_two) = (participants(&[0, 1]), participants(&[0, 2]));
    let mut stock = TripleStock::new();
    let pair = world.triples(&with_one).remove(&party(0)).unwrap();
    let (one, retired) = (pair.id(), pair.set().as_slice()[1].boot);
    stock.put(pair).unwrap();
    let pair = world.triples(&with_two).remove(&party(0)).unwrap();
    let two = pair.id();
    stock.put(pair).unwrap();
    assert!(stock.take(&with_two, &one).is_none());
    let other_boot = Participants::new(vec![participant(0, 0), participant(1, 9)]).unwrap();
    assert!(stock.take(&other_boot, &one).is_none());
    assert_eq!(stock.retain_boots(|boot: &BootId| *boot != retired), 1);
    assert!(stock.take(&with_one, &one).is_none());
    assert_eq!(stock.ids(&with_two).collect::<Vec<_>>(), [two]);
    assert!(stock.take(&with_two, &two).is_some());
}

#[test]
fn pitfall_6_unknown_lanes_sizes_and_counts_are_refused_unread() {
    let (_, mut net, packet) = one_message(21);
    let unknown = edit(&packet, |m| m.chunks[0].lane = 9);
    assert_eq!(refusal(&mut net, 1, &unknown), Refusal::UnknownLane { lane: 9 });
    let large = edit(&packet, |m| m.chunks[0].bytes = vec![0; 129]);
    assert_eq!(refusal(&mut net, 1, &large), Refusal::ChunkSize { size: 129, max: 128 });
    let empty = edit(&packet, |m| m.chunks[0].bytes.clear());
    assert!(matches!(refusal(&mut net, 1, &empty), Refusal::ChunkSize { size: 0, .. }));
    let nothing = edit(&packet, |m| m.chunks.clear());
    assert!(matches!(refusal(&mut net, 1, &nothing), Refusal::ChunkSize { size: 0, .. }));
    let twice = edit(&packet, |m| m.chunks.push(m.chunks[0].clone()));
    assert_eq!(refusal(&mut net, 1, &twice), Refusal::TooMany { lane: 0, max: 1 });
    let private = edit(&packet, |m| m.chunks[0].private = true);
    assert_eq!(refusal(&mut net, 1, &private), Refusal::TooMany { lane: 0, max: 0 });
    let version = edit(&packet, |m| m.version = 2);
    assert_eq!(refusal(&mut net, 1, &version), Refusal::WrongVersion { version: 2 });
    let huge = vec![0; casemate_threshold::message::MAX_MESSAGE_BYTES + 1];
    assert!(matches!(refusal(&mut net, 1, &huge), Refusal::Malformed(_)));
    let mut trailing = packet.bytes.clone();
    trailing.push(0);
    assert!(matches!(refusal(&mut net, 1, &trailing), Refusal::Malformed(_)));
    // all of that left no trace: the honest message still counts
    let run = net.runs.get_mut(&party(0)).unwrap();
    assert!(run.receive(party(1), &packet.bytes, NOW).is_ok());
    let second = edit(&packet, |m| m.sequence = 7);
    assert_eq!(refusal(&mut net, 1, &second), Refusal::TooMany { lane: 0, max: 1 });
}

fn randomness_is_the_callers<S: Purposes>() {
    let mut world = World::new(3, 2, 22);
    let all = world.all.clone();
    let context = world.context(S::keygen(key_ref("k", 0)), &all, 2);
    let me = participant(0, 0);
    let first_messages = |seed: u64| {
        let claim = RunRegistry::new(me.party, me.boot).claim(context.clone(), DEADLINE).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut run = KeygenRun::<S>::generate(claim, [1; 32], &mut rng).unwrap();
        run.start(NOW).unwrap().send
    };
    assert_eq!(first_messages(1), first_messages(1));
    assert_ne!(first_messages(1), first_messages(2));

    let keys = world.frost_live::<S>("signs");
    let commitments = |world: &mut World, seed: u64| {
        world.rng = ChaCha20Rng::seed_from_u64(seed);
        let runs = world.frost_sign_runs(&keys, &participants(&[0, 1]), "m", b"x");
        let mut net = Net::new(runs, 0);
        net.start();
        let chunk = |p: &Packet| {
            cbor::decode::<RunMessage>(&p.bytes, 1 << 20).unwrap().chunks[0].bytes.clone()
        };
        net.queue.iter().map(chunk).collect::<Vec<_>>()
    };
    assert_eq!(commitments(&mut world, 1), commitments(&mut world, 1));
    assert_ne!(commitments(&mut world, 1), commitments(&mut world, 2));
}

#[test]
fn pitfall_7_frost_draws_all_its_randomness_from_the_caller() {
    randomness_is_the_callers::<Ed25519Sha512>();
    randomness_is_the_callers::<Secp256K1Sha256TR>();
}

#[test]
fn i1_nothing_secret_is_printed() {
    let mut world = World::new(3, 2, 26);
    let pending = world.ecdsa_keygen("hot");
    let text = format!("{:?}", pending[&party(0)]);
    assert!(text.contains("share: \"<redacted>\""), "{text}");
    let live = world.ed25519_live("cold");
    let text = format!("{:?}", live[&party(0)]);
    assert!(text.contains("share: \"<redacted>\""), "{text}");
    let pair = world.triples(&participants(&[0, 1])).remove(&party(0)).unwrap();
    let text = format!("{pair:?}");
    assert!(text.contains("shares: \"<redacted>\"") && !text.contains("Scalar"), "{text}");
    let (_, mut net, packet) = one_message(27);
    let run = net.runs.remove(&party(0)).unwrap();
    assert!(format!("{run:?}").contains("state: \"<redacted>\""));
    let message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
    assert!(format!("{message:?}").contains("bytes: \"<redacted>\""));
}
