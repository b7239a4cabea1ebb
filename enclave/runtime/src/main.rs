//! `casemate-enclave`.

fn main() {}
