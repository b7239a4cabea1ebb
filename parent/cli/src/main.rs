//! `casemate`: the operator's and the auditor's tool.
fn main() {}
