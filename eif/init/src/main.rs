//! `casemate-init`: process 1 of an enclave.

use std::io::Write as _;
use std::process::ExitCode;

use casemate_init::{run, system};
use rustix::process::{Pid, getpid};

fn main() -> ExitCode {
    // elsewhere it would mount over what is there, and restart the machine
    if getpid() != Pid::INIT {
        let _ = writeln!(
            std::io::stderr().lock(),
            "error: casemate-init is process 1 of an enclave and nothing else"
        );
        return ExitCode::from(2);
    }
    match run() {
        Ok(ended) => system::say(&format!("the signer ended: {ended}")),
        Err(error) => system::say(&format!("refused: {error}")),
    }
    system::end_enclave();
    ExitCode::FAILURE
}
