//! A receipt proves a record by itself, and nothing less does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    dead_code
)]

mod support;

use casemate_audit::{
    CheckpointError, CheckpointPolicy, InclusionReceipt, ReceiptError, Replay, verify_receipt,
};
use support::*;

fn policy(node: &Node) -> CheckpointPolicy {
    node.ledger.authority().policy(false).unwrap()
}

fn made() -> (Node, InclusionReceipt) {
    let mut node = Node::new();
    node.fill(20);
    let record = node.enter(b"sign 7");
    node.fill(20);
    let receipt = node.receipt(&record, &[1, 2]);
    (node, receipt)
}

#[test]
fn i10_receipt_survives_its_bytes_and_proves_its_record() {
    let (node, receipt) = made();
    let parsed = InclusionReceipt::parse(&receipt.to_bytes()).unwrap();
    assert_eq!(parsed, receipt);
    let verified = verify_receipt(&parsed, &policy(&node)).unwrap();
    assert_eq!(verified.record().index(), 20);
    assert_eq!(verified.record().fields().kind, "sign");
    assert_eq!(verified.checkpoint().checkpoint().size, 41);
    assert_eq!(verified.checkpoint().cosignatures().len(), 2);
}

#[test]
fn i10_receipt_with_one_cosigner_proves_nothing() {
    let (node, receipt) = made();
    let few = InclusionReceipt {
        checkpoint: note(&node.ledger.checkpoint(), &[1], true).to_string(),
        ..receipt
    };
    assert!(matches!(
        verify_receipt(&few, &policy(&node)),
        Err(ReceiptError::Checkpoint(CheckpointError::TooFewCosigners { found: 1, needed: 2 }))
    ));
}

#[test]
fn i10_receipt_of_another_record_proves_nothing() {
    let (node, receipt) = made();
    let mut ledger = Ledger::default();
    let other = ledger.apply_entry(casemate_proto::UnixMillis(0), b"sign 8").record;
    let forged = InclusionReceipt { leaf: other.leaf_bytes().to_vec(), ..receipt.clone() };
    assert!(matches!(verify_receipt(&forged, &policy(&node)), Err(ReceiptError::Proof(_))));
    let mut shorter = receipt.clone();
    shorter.proof.pop();
    assert!(matches!(verify_receipt(&shorter, &policy(&node)), Err(ReceiptError::Proof(_))));
    let junk = InclusionReceipt { leaf: vec![1, 2, 3], ..receipt };
    assert!(matches!(verify_receipt(&junk, &policy(&node)), Err(ReceiptError::Record(_))));
}

#[test]
fn flipped_byte_of_a_receipt_proves_nothing() {
    let (node, receipt) = made();
    let bytes = receipt.to_bytes();
    let (mut parsed_anyway, policy) = (0, policy(&node));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        if let Ok(receipt) = InclusionReceipt::parse(&flipped) {
            parsed_anyway += 1;
            assert!(verify_receipt(&receipt, &policy).is_err(), "byte {at}");
        }
    }
    assert!(parsed_anyway > 0);
}
