//! `casemate-parent`.

fn main() {}
