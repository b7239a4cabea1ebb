//! The program where it must not run.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

/// Elsewhere it would mount over what is there and restart the machine.
#[test]
fn program_that_is_not_process_1_touches_nothing_and_says_so() {
    let mounts = || std::fs::read("/proc/self/mounts").unwrap();
    let before = mounts();
    let run = Command::new(env!("CARGO_BIN_EXE_casemate-init")).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(said, "error: casemate-init is process 1 of an enclave and nothing else\n");
    assert!(run.stdout.is_empty());
    assert_eq!(mounts(), before);
}
