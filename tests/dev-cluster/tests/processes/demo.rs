//! The demo as processes, from end to end.

use std::collections::BTreeSet;

use casemate_dev::demo::{Mode, Options, Tell, run};
use casemate_dev::processes::Program;

use crate::kit::{PROGRAM, alone};

#[derive(Default)]
struct Listener(Vec<String>);

impl Tell for Listener {
    fn progress(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
    fn say(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

#[test]
fn i5_i6_i9_i10_demo_holds_with_nodes_that_are_processes() {
    let _alone = alone();
    let mut listener = Listener::default();
    let mode = Mode::Processes(Program::new(PROGRAM.into()));
    let report = run(&Options::new(3, 2, None).unwrap(), &mode, &mut listener);
    let said = listener.0.join("\n");
    let report = report.unwrap_or_else(|error| panic!("{error}\n{said}"));
    let failed: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{said}");
    for wanted in [
        "a killed node comes back with a share of every key, in a new epoch",
        "the node that came back co-signs, ECDSA and Ed25519, with nobody left who could without it",
        "under a hostile network nothing is signed that is not allowed",
        "no process died and no node lost its place under a hostile network",
        "service resumes when the network is quiet",
        "the attacker got exactly the bound, no more",
        "the log is verified from the store alone",
    ] {
        assert!(report.checks.iter().any(|check| check.name == wanted), "{wanted}\n{said}");
    }
    let processes = report.processes.unwrap();
    let nodes: BTreeSet<&str> = processes.boots.iter().map(|boot| boot.node.as_str()).collect();
    assert_eq!(nodes.len(), 3);
    assert_eq!(processes.boots.len(), 5, "two nodes were started twice");
    assert!(processes.network.counts.every_kind());
    assert!(said.contains("simulated security modules, no hardware"));
}
