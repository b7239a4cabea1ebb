//! A local cluster and the demo: what `casemate-dev` is made of.

pub mod demo;
pub mod in_process;
pub mod network;
pub mod processes;
pub mod store;
