//! Chains that are wrong in one place, and the fault that is found there.

use casemate_attestation_verify::{CertificateFault, Evidence, Position, Refusal};
use casemate_sim::CertificateSpec;

use super::forge::Forge;

/// The places in a chain.
pub const REGIONAL: usize = 1;
pub const ZONAL: usize = 2;
pub const INSTANCE: usize = 3;
pub const LEAF: usize = 4;

pub fn position(index: usize) -> Position {
    if index == LEAF { Position::Leaf } else { Position::Cabundle(index) }
}

#[track_caller]
pub fn assert_fault(
    outcome: Result<Evidence, Refusal>,
    index: usize,
    fault: impl Into<CertificateFault>,
) {
    let expected = Refusal::Certificate { position: position(index), fault: fault.into() };
    assert_eq!(outcome, Err(expected));
}

/// Changes one certificate and expects that fault of it.
#[track_caller]
pub fn assert_broken(
    index: usize,
    fault: impl Into<CertificateFault>,
    change: impl FnOnce(&mut CertificateSpec),
) {
    let outcome = Forge::new().with_chain(|chain| change(&mut chain.certificates[index]));
    assert_fault(outcome, index, fault);
}
