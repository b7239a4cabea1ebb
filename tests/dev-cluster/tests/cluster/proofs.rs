//! What leaves a node, and with which proof.

use casemate_proto::{DenialCode, Scheme};
use casemate_signer::{Answer, PeerMessage};

use crate::kit::{Kit, Seen, check, signed};

#[test]
fn i10_signature_leaves_only_with_its_proof() {
    let mut kit = Kit::ready();
    kit.pass(2_000);
    let agent = kit.agent.clone();
    let request = kit.payment(1_000_000);
    // nobody cosigns
    let seen = kit.watch_outputs(|seen| {
        !matches!(seen, Seen::Peer(PeerMessage::Cosigned { .. } | PeerMessage::Checkpoint(_)))
    });
    let ticket = kit.submit(0, &agent, &request);
    kit.pass(10_000);
    let state = kit.cluster.any_state().unwrap();
    assert!(state.is_signed(&agent.public.id(), &request.request_id), "it is in the log");
    let signature = seen
        .lock()
        .unwrap()
        .iter()
        .find_map(|(_, seen)| match seen {
            Seen::Signed(casemate_ledger::EntryBody::Signed { signature, .. }) => {
                Some(signature.clone())
            }
            _ => None,
        })
        .unwrap();
    assert!(kit.cluster.answer(ticket).is_none());
    let leaked = seen.lock().unwrap().iter().any(|(_, seen)| match seen {
        Seen::Outside(bytes) => bytes.windows(32).any(|w| w == &signature[..32]),
        _ => false,
    });
    assert!(!leaked, "neither an answer nor a published file has it");
    kit.cluster.intercept(Box::new(|_, _| true));
    let answer = signed(kit.cluster.wait(ticket).unwrap());
    assert_eq!(answer.signature, signature);
    check(&kit, Scheme::EcdsaSecp256k1, &answer);
}

#[test]
fn denials_are_signed_by_the_boot_that_gives_them() {
    let mut kit = Kit::ready();
    let request = kit.payment(6_000_000);
    let node = kit.name(1);
    let Answer::Denied(denial) = kit.agent_asks(1, &request) else { panic!("denied") };
    let state = kit.cluster.state(&node).unwrap();
    assert_eq!(denial.denial.code, DenialCode::OverPerTxCap);
    assert!(denial.index.is_some(), "it is in the log");
    let (genesis, key) = (state.genesis(), state.current_boot_key(&node).unwrap());
    assert!(denial.verify(&genesis, &key));
    let other = state.current_boot_key(&kit.name(0)).unwrap();
    assert!(!denial.verify(&genesis, &other));
    let mut forged = denial.clone();
    forged.denial.code = DenialCode::Frozen;
    assert!(!forged.verify(&genesis, &key));
}

#[test]
fn stores_of_all_nodes_are_alike_up_to_their_checkpoints() {
    let mut kit = Kit::for_messages();
    for i in 0..5 {
        let request = kit.message(&format!("{i}"));
        signed(kit.agent_asks(i % 3, &request));
    }
    kit.pass(3_000);
    let first = kit.cluster.store().unwrap().clone();
    for name in kit.cluster.names() {
        let store = kit.cluster.store_of(&name).unwrap();
        for (path, bytes) in store.iter().filter(|(path, _)| !path.starts_with("receipts/")) {
            assert_eq!(first.get(path), Some(bytes), "{path}");
        }
        assert_eq!(store.get("checkpoint"), first.get("checkpoint"));
    }
    assert!(first.keys().any(|path| path.starts_with("attachments/")), "the policy is there");
    assert!(!kit.halted());
}

#[test]
fn newest_published_checkpoint_is_signed_by_the_log_key_and_by_t_boots() {
    use casemate_audit::{CheckpointPolicy, CosignerSet, Origin, SignedNote, verify_checkpoint};
    let mut kit = Kit::for_messages();
    let note = kit.cluster.store().unwrap()["checkpoint"].clone();
    let state = kit.cluster.any_state().unwrap();
    let origin = Origin { genesis: state.genesis(), incarnation: state.incarnation() };
    let live = state.keys()[&crate::kit::key_name("casemate.log")].live.clone().unwrap();
    let key = <[u8; 32]>::try_from(live.public_key.as_slice()).unwrap();
    let policy = CheckpointPolicy {
        origin: origin.to_string(),
        log_key: Some(origin.log_key(&key).unwrap()),
        cosigners: CosignerSet::new(kit.cluster.cosigners(), 2).unwrap(),
    };
    let verified = verify_checkpoint(&SignedNote::parse(&note).unwrap(), &policy).unwrap();
    assert!(verified.is_log_signed());
    assert_eq!(verified.checkpoint().size, state.size());
    assert_eq!(verified.checkpoint().root, state.root());
}
