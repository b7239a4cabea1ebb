//! The way of a request through the cluster.

use casemate_audit::{CheckpointPolicy, CosignerSet, Origin, verify_receipt};
use casemate_ledger::keys::verify_signature;
use casemate_proto::Scheme;
use casemate_signer::Signed;

use crate::kit::{Kit, key_name, signed};

/// Checks everything that a client can check of an answer.
pub fn check(kit: &Kit, scheme: Scheme, answer: &Signed) {
    let plain = answer.signature.first_chunk::<64>().unwrap();
    assert!(verify_signature(scheme, &answer.public_key, &answer.digest, plain));
    let state = kit.cluster.any_state().unwrap();
    let origin = Origin { genesis: state.genesis(), incarnation: state.incarnation() };
    let policy = CheckpointPolicy {
        origin: origin.to_string(),
        log_key: None,
        cosigners: CosignerSet::new(kit.cluster.cosigners(), 2).unwrap(),
    };
    let allowed = verify_receipt(&answer.receipt.allowed, &policy).unwrap();
    let recorded = verify_receipt(&answer.receipt.signed, &policy).unwrap();
    assert!(allowed.record().index() < recorded.record().index());
}

#[test]
fn message_is_signed_with_ed25519() {
    let mut kit = Kit::ready();
    let request = kit.message("a report");
    let answer = signed(kit.agent_asks(0, &request));
    check(&kit, Scheme::Ed25519, &answer);
    assert!(!kit.halted());
}

#[test]
fn typed_data_is_signed_with_ecdsa() {
    let mut kit = Kit::ready();
    let request = kit.payment(1_000_000);
    let answer = signed(kit.agent_asks(1, &request));
    check(&kit, Scheme::EcdsaSecp256k1, &answer);
    assert_eq!(answer.signature.len(), 65);
    let live = kit.cluster.any_state().unwrap().keys()[&key_name("agent-7")].live.clone().unwrap();
    assert_eq!(answer.public_key, live.public_key);
    assert!(!kit.halted());
}
