//! What else a host can do: bytes on the way, a parent that answers nothing, a disk that takes
//! nothing.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use casemate_api::ready::Failing;
use casemate_dev::processes::{Part, Program};
use nix::sys::signal::Signal;

use crate::field::{Field, wait_until};

#[test]
fn i5_i9_network_that_mangles_and_a_parent_that_answers_nothing_cost_time_and_nothing_else() {
    let mut field = Field::born();
    let load = field.load(1);
    sleep(Duration::from_millis(500));
    field.network.set_hostile(true);
    sleep(Duration::from_secs(8));
    field.network.set_hostile(false);
    let harm = field.network.counts();
    assert!(harm.every_kind(), "{harm:?}");
    field.back("a network that mangles");
    load.end(&field);
    field.squeeze(1);
    field.judge("a network that mangles", 0, Some(1));

    let load = field.load(2);
    let leader = field.leader();
    field.signal(leader, Part::Parent, Signal::SIGSTOP);
    let before = field.book.signed();
    let took = wait_until("the others sign", || field.book.signed() > before + 5);
    println!("the leader's parent answers nothing: the others sign within {took:.1?}");
    sleep(Duration::from_secs(4));
    field.signal(leader, Part::Parent, Signal::SIGCONT);
    field.back("a parent that answered nothing");
    load.end(&field);
    field.squeeze(2);
    field.judge("a parent that answered nothing", leader, Some(2));
}

#[test]
fn i10_disk_that_takes_nothing_more_is_said_and_costs_no_record() {
    let mut field = Field::born();
    let node = field.roll(3) as usize;
    let name = field.name(node);
    let load = field.load(1);
    sleep(Duration::from_millis(500));
    field.kill(node, Part::Parent);
    // no file of this parent's can grow beyond 4 KiB: what a full disk is to who writes
    let program = Program::new(env!("CARGO_BIN_EXE_casemate-dev").into());
    let line = program.command_line(&field.home, &name, Part::Parent);
    let mut parent = Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f 8; exec {line}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let took = wait_until("it says so", || {
        field.ready(node).is_some_and(|ready| ready.failing.contains(&Failing::Store))
    });
    println!("`readyz` says that the store cannot be written after {took:.1?}");
    let before = field.book.signed();
    wait_until("the others sign", || field.book.signed() > before + 10);
    parent.kill().unwrap();
    parent.wait().unwrap();
    field.start(node, &[Part::Parent]);
    field.back("a full disk");
    load.end(&field);
    field.squeeze(1);
    // the store that was cut short has all of it now
    field.judge("a full disk", node, Some(1));
}
