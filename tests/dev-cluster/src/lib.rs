//! A local cluster and the demo: what `casemate-dev` is made of.

pub mod in_process;
