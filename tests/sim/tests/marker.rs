//! Whatever simulates carries the marker by which the image builder knows it.
#![allow(clippy::unwrap_used, missing_docs)]

use casemate_sim::SimHost;

/// This program names the marker in two halves only, so that what is found in it came with the simulator.
#[test]
fn program_that_simulates_carries_the_marker() {
    assert!(!SimHost::new().unwrap().root_der().is_empty());
    let wanted = [&b"casemate-"[..], b"marker:simulator"].concat();
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(program.windows(wanted.len()).any(|window| window == wanted));
}
