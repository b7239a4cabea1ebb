//! Peers that lie: greetings, proofs and messages that no honest node makes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod kit;

use casemate_attestation_verify::{BoundField, Unmet};
use casemate_channel::wire::{Hello, MAX_ANSWER, MAX_HELLO, MAX_PROOF, Proof};
use casemate_channel::{MAX_HANDSHAKE_MESSAGE, Progress, Refused};
use casemate_proto::manifest::Independence;
use casemate_proto::{Hash32, Incarnation};
use kit::forger::{self, Bound, Forger, Forgery, truthful};
use kit::*;

/// A forger in the first node's place dials the second; one in the second's is dialled by the first.
fn both_ways(forgery: impl Fn(usize) -> Forgery<'static>) -> [Result<(), Refused>; 2] {
    [
        forger::dial(forgery(0), &Party::honest(1)).map(drop),
        forger::accept(forgery(1), &Party::honest(0), "bravo").map(drop),
    ]
}

/// Documents of the right enclave for the right nonce that bind something else.
#[track_caller]
fn not_bound(bound: &'static dyn Fn(&mut Bound)) {
    let [dialled, answered] = both_ways(|number| Forgery { bound, ..truthful(number) });
    assert_eq!(dialled, Err(Refused::NotBound { node: name("alpha") }));
    assert_eq!(answered, Err(Refused::NotBound { node: name("bravo") }));
}

/// Greetings that mean something else: what the acceptor and the dialler refuse them for.
fn greeted(hello: &'static dyn Fn(&mut Hello)) -> [Refused; 2] {
    both_ways(|number| Forgery { hello, ..truthful(number) }).map(Result::unwrap_err)
}

#[test]
fn forger_that_tells_the_truth_is_accepted() {
    // so what the cases below change is what they are refused for; and snow's own functions and
    // the document's format written out once more agree with ours
    assert_eq!(both_ways(truthful), [Ok(()), Ok(())]);
}

#[test]
fn i9_document_for_another_key_is_refused() {
    not_bound(&|bound| bound.boot = *boot(2, 3).0.id().as_bytes());
}

#[test]
fn i9_document_for_another_boots_record_is_refused() {
    not_bound(&|bound| bound.boot_data[0] ^= 1);
}

#[test]
fn i9_document_for_the_other_direction_is_refused() {
    not_bound(&|bound| bound.side = if bound.side == "dial" { "accept" } else { "dial" });
}

#[test]
fn i9_document_for_another_genesis_is_refused() {
    not_bound(&|bound| bound.scope = Hash32::new([1; 32]));
}

#[test]
fn i9_document_for_another_incarnation_is_refused() {
    not_bound(&|bound| bound.incarnation += 1);
}

#[test]
fn i9_document_of_another_node_is_refused() {
    not_bound(&|bound| bound.own = name("charlie"));
}

#[test]
fn i9_document_for_another_node_is_refused() {
    not_bound(&|bound| bound.other = name("charlie"));
}

#[test]
fn i9_document_with_the_nodes_exchanged_is_refused() {
    not_bound(&|bound| core::mem::swap(&mut bound.own, &mut bound.other));
}

#[test]
fn i9_document_for_another_nonce_of_the_dialler_is_refused() {
    not_bound(&|bound| bound.dial_nonce[31] ^= 1);
}

#[test]
fn i9_document_for_another_nonce_of_the_acceptor_is_refused() {
    not_bound(&|bound| bound.accept_nonce[31] ^= 1);
}

#[test]
fn i9_document_for_another_conversation_is_refused() {
    not_bound(&|bound| bound.transcript[0] ^= 1);
}

#[test]
fn i9_proof_of_a_key_that_the_document_does_not_bind_is_refused() {
    let forge = |proof: &'static dyn Fn(&mut Proof)| {
        both_ways(|number| Forgery { proof, ..truthful(number) }).map(Result::unwrap_err)
    };
    let refused = [
        forge(&|proof| proof.key[0] ^= 1),
        forge(&|proof| proof.nonce[0] ^= 1),
        forge(&|proof| proof.apply_version += 1),
    ];
    for [dialled, answered] in refused {
        assert_eq!(dialled, Refused::NotBound { node: name("alpha") });
        assert_eq!(answered, Refused::NotBound { node: name("bravo") });
    }
}

#[test]
fn i9_document_with_another_nonce_is_refused() {
    let refused = both_ways(|number| Forgery { nonce: &|nonce| nonce[0] ^= 1, ..truthful(number) });
    for refused in refused.map(Result::unwrap_err) {
        assert!(matches!(unmet(refused).1, Unmet::Field { field: BoundField::Nonce, .. }));
    }
}

#[test]
fn i9_bytes_that_are_no_document_are_refused() {
    for document in [&[][..], &[0x84], &[0xff; 16 * 1024]] {
        let proof = move |proof: &mut Proof| proof.document = document.to_vec();
        let forgery = Forgery { proof: &proof, ..truthful(0) };
        let refused = forger::dial(forgery, &Party::honest(1)).map(drop).unwrap_err();
        assert!(matches!(refused, Refused::Attestation { .. }), "{refused}");
    }
}

#[test]
fn i9_a_nodes_own_document_replayed_to_the_acceptor_is_refused() {
    let [_, victim, _] = of_one_role();
    // one connection in which the victim waits for a proof
    let (mut forger, first) = Forger::dial(truthful(0), &victim);
    let answered = victim.receive(victim.accept(), &first).unwrap();
    let Progress::Continue { handshake, send } = answered else { panic!("a channel") };
    let theirs = forger.read_answer(&send).hello;
    // another in which it is asked for a document under the very nonce that the first one wants
    let nonce = theirs.nonce;
    let asked = move |hello: &mut Hello| hello.nonce = nonce;
    let (mut asking, first) = Forger::dial(Forgery { hello: &asked, ..truthful(0) }, &victim);
    let other = Party { seed: 9, ..victim_again(1) };
    let answered = other.receive(other.accept(), &first).unwrap();
    let Progress::Continue { send, .. } = answered else { panic!("a channel") };
    let own = Replay(asking.read_answer(&send).proof.document);
    let mut forger = forger.attested_by(&own);
    let third = forger.prove(&theirs);
    let refused = victim.receive(handshake, &third).map(drop).unwrap_err();
    assert_eq!(refused, Refused::NotBound { node: name("alpha") });
}

#[test]
fn i9_a_nodes_own_document_replayed_to_the_dialler_is_refused() {
    let [victim, ..] = of_one_role();
    let (dialling, first) = victim.dial("bravo").unwrap();
    let nonce = victim_nonce(&first);
    // the victim, dialled meanwhile, gives its document under the nonce of its own greeting
    let asked = move |hello: &mut Hello| hello.nonce = nonce;
    let (mut asking, greeting) = Forger::dial(Forgery { hello: &asked, ..truthful(1) }, &victim);
    let other = Party { seed: 9, ..victim_again(0) };
    let answered = other.receive(other.accept(), &greeting).unwrap();
    let Progress::Continue { send, .. } = answered else { panic!("a channel") };
    let own = Replay(asking.read_answer(&send).proof.document);
    let (_, second) = Forger::answer(Forgery { attest: &own, ..truthful(1) }, &victim, &first);
    let refused = victim.receive(dialling, &second).map(drop).unwrap_err();
    assert_eq!(refused, Refused::NotBound { node: name("bravo") });
}

#[test]
fn i9_document_fetched_from_the_real_node_by_somebody_in_the_middle_is_refused() {
    let (alpha, bravo) = (Party::honest(0), Party::honest(1));
    let (dialling, first) = alpha.dial("bravo").unwrap();
    // the one in the middle greets the real node as alpha, with alpha's own nonce
    let nonce = victim_nonce(&first);
    let asked = move |hello: &mut Hello| hello.nonce = nonce;
    let (mut asking, greeting) = Forger::dial(Forgery { hello: &asked, ..truthful(0) }, &bravo);
    let answered = bravo.receive(bravo.accept(), &greeting).unwrap();
    let Progress::Continue { send, .. } = answered else { panic!("a channel") };
    let fetched = asking.read_answer(&send).proof;
    // and answers alpha with the real node's words under a key of its own
    let proof = move |proof: &mut Proof| *proof = fetched.clone();
    let middle = Forgery { proof: &proof, ..truthful(1) };
    let mut middle = Forger::begin(middle, &alpha, &[0x42; 32]);
    let second = middle.reply(&first);
    let refused = alpha.receive(dialling, &second).map(drop).unwrap_err();
    assert_eq!(refused, Refused::NotBound { node: name("bravo") });
}

#[test]
fn i9_another_node_that_answers_is_refused() {
    let refused = forger::accept(truthful(2), &Party::honest(0), "bravo").map(drop).unwrap_err();
    let (dialled, found) = (name("bravo"), name("charlie"));
    assert_eq!(refused, Refused::OtherNode { dialled, found });
}

#[test]
fn i9_another_node_that_answers_under_the_dialled_name_is_refused() {
    let forgery = Forgery { hello: &|hello| hello.from = name("bravo"), ..truthful(2) };
    let refused = forger::accept(forgery, &Party::honest(0), "bravo").map(drop).unwrap_err();
    let (node, unmet) = unmet(refused);
    assert_eq!(node, name("bravo"));
    assert!(matches!(unmet, Unmet::Pcr { index: 3, .. }), "{unmet}");
}

#[test]
fn i9_greetings_of_another_genesis_are_refused() {
    for refused in greeted(&|hello| hello.scope = Hash32::new([1; 32])) {
        let (found, ours) = (Hash32::new([1; 32]), expected().scope);
        assert_eq!(refused, Refused::Scope { found, ours });
    }
}

#[test]
fn i9_greetings_of_another_incarnation_are_refused() {
    for refused in greeted(&|hello| hello.incarnation = Incarnation(7)) {
        let (found, ours) = (Incarnation(7), Incarnation(0));
        assert_eq!(refused, Refused::Incarnation { found, ours });
    }
}

#[test]
fn i9_greetings_of_a_node_outside_the_roster_are_refused() {
    for refused in greeted(&|hello| hello.from = name("delta")) {
        assert_eq!(refused, Refused::UnknownNode { node: name("delta") });
    }
}

#[test]
fn i9_greetings_in_the_nodes_own_name_are_refused() {
    let [dialled, answered] = greeted(&|hello| hello.from = hello.to.clone());
    assert_eq!(dialled, Refused::Oneself { node: name("bravo") });
    assert_eq!(answered, Refused::Oneself { node: name("alpha") });
}

#[test]
fn i9_greetings_for_another_node_are_refused() {
    let [dialled, answered] = greeted(&|hello| hello.to = name("charlie"));
    let found = name("charlie");
    assert_eq!(dialled, Refused::Misrouted { found: found.clone(), ours: name("bravo") });
    assert_eq!(answered, Refused::Misrouted { found, ours: name("alpha") });
}

#[test]
fn i9_a_nonce_given_back_is_refused() {
    let victim = Party::honest(0);
    let (dialling, first) = victim.dial("bravo").unwrap();
    let nonce = victim_nonce(&first);
    let back = move |hello: &mut Hello| hello.nonce = nonce;
    let (_, second) = Forger::answer(Forgery { hello: &back, ..truthful(1) }, &victim, &first);
    assert_eq!(victim.receive(dialling, &second).unwrap_err(), Refused::ReflectedNonce);
}

#[test]
fn i9_a_peer_that_shows_this_boots_own_key_is_refused() {
    let own = boot(1, 2).0.key;
    let proof = move |proof: &mut Proof| proof.key = own;
    let forgery = Forgery { proof: &proof, ..truthful(0) };
    let refused = forger::dial(forgery, &Party::honest(1)).map(drop).unwrap_err();
    assert_eq!(refused, Refused::Oneself { node: name("alpha") });
}

#[test]
fn i9_a_peer_that_proves_this_boots_own_channel_key_is_refused() {
    let victim = Party::honest(0);
    let (dialling, first) = victim.dial("bravo").unwrap();
    let mut twin = Forger::begin(truthful(1), &victim, &boot(0, 1).1);
    let second = twin.reply(&first);
    let refused = victim.receive(dialling, &second).map(drop).unwrap_err();
    assert_eq!(refused, Refused::Oneself { node: name("bravo") });
}

#[test]
fn another_version_is_named_even_if_the_rest_cannot_be_read() {
    let victim = Party::honest(1);
    let mut later = forger::hello();
    later.version = 2;
    let refused = forger::greet(&victim, &later.encode()).unwrap_err();
    assert_eq!(refused, Refused::Version { found: 2, ours: 1 });
    // {0: 2, 1: {}}
    let refused = forger::greet(&victim, &[0xa2, 0, 2, 1, 0xa0]).unwrap_err();
    assert_eq!(refused, Refused::Version { found: 2, ours: 1 });
    for refused in greeted(&|hello| hello.version = 2) {
        assert_eq!(refused, Refused::Version { found: 2, ours: 1 });
    }
}

#[test]
fn what_is_no_greeting_is_refused() {
    let victim = Party::honest(1);
    let good = forger::hello().encode();
    assert!(forger::greet(&victim, &good).is_ok(), "the greeting itself is good");
    let trailing = [good.as_slice(), &[0]].concat();
    let short = &good[..good.len() - 1];
    let indefinite = [&[0xbf], &good[1..], &[0xff]].concat();
    // version 1 as two bytes
    let long = [&good[..2], &[0x18, 1], &good[3..]].concat();
    for payload in [&[][..], &[0xa0], b"hello", &trailing, short, &indefinite, &long] {
        let refused = forger::greet(&victim, payload).unwrap_err();
        assert!(matches!(refused, Refused::Malformed { message: 1, .. }), "{payload:?}: {refused}");
    }
}

#[test]
fn i12_oversized_handshake_messages_are_refused_before_they_are_read() {
    let (alpha, bravo) = (Party::honest(0), Party::honest(1));
    let (dialling, first) = alpha.dial("bravo").unwrap();
    let oversized = |message, len: usize, max| Refused::Oversized { message, len, max };

    let max = 32 + MAX_HELLO;
    let long = [first.as_slice(), &[0; 4096]].concat();
    let refused = bravo.receive(bravo.accept(), &long[..=max]).unwrap_err();
    assert_eq!(refused, oversized(1, max + 1, max));
    let refused = bravo.receive(bravo.accept(), &long[..max]).unwrap_err();
    assert!(matches!(refused, Refused::Malformed { message: 1, .. }), "{refused}");

    let answered = bravo.receive(bravo.accept(), &first).unwrap();
    let Progress::Continue { handshake, .. } = answered else { panic!("a channel") };
    let max = 32 + 48 + MAX_ANSWER + 16;
    assert_eq!(max, MAX_HANDSHAKE_MESSAGE);
    let refused = alpha.receive(dialling, &vec![0; max + 1]).unwrap_err();
    assert_eq!(refused, oversized(2, max + 1, max));

    let max = 48 + MAX_PROOF + 16;
    let refused = bravo.receive(handshake, &vec![0; max + 1]).unwrap_err();
    assert_eq!(refused, oversized(3, max + 1, max));
}

#[test]
fn truncated_handshake_messages_are_refused() {
    let (alpha, bravo) = (Party::honest(0), Party::honest(1));
    let (_, first) = alpha.dial("bravo").unwrap();
    for len in 0..first.len() {
        bravo.receive(bravo.accept(), &first[..len]).expect_err("a greeting cut short");
    }
    let answered = bravo.receive(bravo.accept(), &first).unwrap();
    let Progress::Continue { send: second, .. } = answered else { panic!("a channel") };
    for len in [0, 1, 31, 32, 79, 80, 96, second.len() / 2, second.len() - 1] {
        let (dialling, _) = alpha.dial("bravo").unwrap();
        let refused = alpha.receive(dialling, &second[..len]).unwrap_err();
        assert_eq!(refused, Refused::NotAuthentic { message: 2 }, "{len}");
    }
    let (dialling, _) = alpha.dial("bravo").unwrap();
    let done = alpha.receive(dialling, &second).unwrap();
    let Progress::Done { send: Some(third), .. } = done else { panic!("no channel") };
    for len in [0, 1, 47, 48, 64, third.len() / 2, third.len() - 1] {
        let answered = bravo.receive(bravo.accept(), &first).unwrap();
        let Progress::Continue { handshake, .. } = answered else { panic!("a channel") };
        let refused = bravo.receive(handshake, &third[..len]).unwrap_err();
        assert_eq!(refused, Refused::NotAuthentic { message: 3 }, "{len}");
    }
}

#[test]
fn keys_of_low_order_are_refused() {
    // u = 0, u = 1, and a point of order 8: with each, every secret gives zero (RFC 7748, section 6.1)
    let mut one = [0; 32];
    one[0] = 1;
    let eight = hex::decode("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    let eight: [u8; 32] = eight.unwrap().try_into().unwrap();
    let (alpha, bravo) = (Party::honest(0), Party::honest(1));
    for point in [[0; 32], one, eight] {
        let first = [point.as_slice(), &forger::hello().encode()].concat();
        let refused = bravo.receive(bravo.accept(), &first).unwrap_err();
        assert_eq!(refused, Refused::WeakKey { message: 1 });
        let (dialling, _) = alpha.dial("bravo").unwrap();
        let second = [point.as_slice(), &[0; 600]].concat();
        let refused = alpha.receive(dialling, &second).unwrap_err();
        assert_eq!(refused, Refused::WeakKey { message: 2 });
    }
}

/// Three nodes in one region and role, so that nothing but what a document binds tells them apart.
fn of_one_role() -> [Party<'static>; 3] {
    [victim_again(0), victim_again(1), victim_again(2)]
}

fn victim_again(number: usize) -> Party<'static> {
    let mut party = Party::honest(number).attested_by(nsm(0));
    let manifest = &mut party.expected.manifest;
    manifest.independence = Independence::None;
    let (region, pcr3) = (manifest.nodes[0].region.clone(), manifest.nodes[0].pcr3);
    for node in &mut manifest.nodes {
        node.region.clone_from(&region);
        node.pcr3 = pcr3;
    }
    manifest.check().unwrap();
    party
}

/// The nonce in a dialler's first message, which anybody on the way reads.
fn victim_nonce(first: &[u8]) -> [u8; 32] {
    Hello::decode(&first[32..]).unwrap().nonce
}
