//! `casemate`: the operator's and the auditor's tool. What it does is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_cli::run(std::env::args_os())
}
