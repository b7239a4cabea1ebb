//! `casemate-dev`: a local cluster and the demo.
fn main() {}
