//! BIP-340 keys in a cluster: generated, signed with, limited, audited, and given back after a
//! restart.

use casemate_audit::reconcile::{Seen, reconcile};
use casemate_audit::{Expectations, verify_store};
use casemate_ledger::payload;
use casemate_ledger::replay::Replayer;
use casemate_proto::hash::message_digest;
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{ChainId, DenialCode, DerivationPath, Scheme, bip340};
use casemate_signer::Signed;

use crate::kit::{Kit, check, code, key_name, signed};
use crate::restart::until_all_hold_shares;

const SCHEME: Scheme = Scheme::Bip340Secp256k1;

fn ask(kit: &mut Kit, path: &str, payload: Payload) -> SignRequest {
    let mut request = kit.request("btc", payload);
    request.path = DerivationPath::parse(path).unwrap();
    request
}

fn message(kit: &mut Kit, path: &str, text: &str) -> SignRequest {
    ask(kit, path, Payload::Message(text.as_bytes().to_vec()))
}

/// What somebody checks who has the key's line in the log and a library of BIP-340.
fn check_independently(kit: &Kit, request: &SignRequest, text: &str, answer: &Signed) {
    let state = kit.cluster.any_state().unwrap();
    let live = state.keys()[&key_name("btc")].live.clone().unwrap();
    let child = payload::child(SCHEME, &live, &request.path).unwrap();
    assert_eq!(answer.public_key, child.public_key);
    assert_eq!(answer.digest, message_digest(&state.genesis(), text.as_bytes()));
    let key = k256::schnorr::VerifyingKey::from_bytes(&child.public_key[1..]).unwrap();
    let signature = k256::schnorr::Signature::try_from(answer.signature.as_slice()).unwrap();
    assert_eq!(answer.signature.len(), 64);
    key.verify_raw(&answer.digest, &signature).unwrap();
}

#[test]
fn messages_are_signed_under_children_within_the_limit_and_the_audit_verifies_them() {
    let mut kit = Kit::with_keys(&["casemate.log", "btc"], |_| ());
    let state = kit.cluster.any_state().unwrap();
    let key = state.keys()[&key_name("btc")].clone();
    assert_eq!(key.scheme, SCHEME);
    assert!(bip340::x_only(&key.live.unwrap().public_key).is_some());

    let mut signatures = Vec::new();
    for (at, path) in [(0, "m/0/1"), (1, "m/0/2"), (2, "m/0/2147483647")] {
        let request = message(&mut kit, path, path);
        let answer = signed(kit.agent_asks(at, &request));
        check(&kit, SCHEME, &answer);
        check_independently(&kit, &request, path, &answer);
        // the same again is the same, and is not counted
        assert_eq!(signed(kit.agent_asks(0, &request)).signature, answer.signature);
        signatures.push(answer.signature);
    }
    for path in ["m/0/1", "m/0/3"] {
        let request = message(&mut kit, path, "one too many");
        assert_eq!(code(kit.agent_asks(0, &request)), DenialCode::LimitExceeded, "{path}");
    }

    kit.pass(3_000);
    let store = kit.cluster.store().unwrap().clone();
    let genesis = kit.cluster.any_state().unwrap().genesis();
    let mut replayer = Replayer::from_genesis(&store["genesis.cbor"]).unwrap();
    let report = verify_store(&store, &Expectations::of(genesis), &mut replayer);
    assert!(report.is_verified(), "{:#?}", report.findings());
    assert_eq!(report.counts().signatures, 3);
    let seen = signatures.iter().map(|bytes| Seen::parse(&hex::encode(bytes)).unwrap());
    let found = reconcile(seen, report.signatures());
    assert!(found.is_clean(), "{found:?}");
    assert_eq!(found.not_seen, 0);
    assert!(!kit.halted());
}

#[test]
fn whatever_is_no_message_is_denied_and_nothing_is_run_for_it() {
    // no key of the log's own, whose runs would be seen too
    let mut kit = Kit::with_keys(&["btc"], |_| ());
    let seen = kit.watch_outputs(|_| true);
    for payload in [
        Payload::Hash([1; 32]),
        Payload::Tx { chain: ChainId::eip155(1), unsigned: vec![2, 0xc0] },
        Payload::TypedData("{}".to_owned()),
    ] {
        let kind = payload.kind();
        let request = ask(&mut kit, "m/0/1", payload);
        assert_eq!(code(kit.agent_asks(1, &request)), DenialCode::WrongScheme, "{kind}");
    }
    // a path that no grant has
    let request = message(&mut kit, "m/1/1", "x");
    assert_eq!(code(kit.agent_asks(1, &request)), DenialCode::BadPath);
    let runs = seen.lock().unwrap().iter().filter(|(_, seen)| seen.is_run()).count();
    assert_eq!(runs, 0);
}

#[test]
fn restarted_node_gets_its_share_back_and_signs_under_the_same_key() {
    let mut kit = Kit::with_keys(&["casemate.log", "btc"], |_| ());
    let [a, b, c] = [0, 1, 2].map(|at| kit.name(at));
    let live =
        |kit: &Kit| kit.cluster.any_state().unwrap().keys()[&key_name("btc")].live.clone().unwrap();
    let before = live(&kit);
    kit.cluster.stop_node(&c).unwrap();
    kit.cluster.restart_node(&c).unwrap();
    until_all_hold_shares(&mut kit);
    let after = live(&kit);
    assert_eq!(
        (&after.public_key, after.chain_code, after.epoch > before.epoch),
        (&before.public_key, before.chain_code, true)
    );
    // a node that never restarted is gone: nobody can sign without the share that came back
    kit.cluster.stop_node(&b).unwrap();
    for (node, path) in [(&a, "m/0/1"), (&c, "m/0/2")] {
        let request = message(&mut kit, path, path);
        let submission = kit.submission(&kit.agent.clone(), &request);
        let answer = signed(kit.cluster.ask(node, submission).unwrap());
        check(&kit, SCHEME, &answer);
        check_independently(&kit, &request, path, &answer);
    }
    assert!(!kit.halted());
}
