//! Processes stopped and continued: to those inside, time leaps.

use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_dev::processes::Part;
use nix::sys::signal::Signal;

use crate::field::{Field, TAU, wait_until};

/// Longer than τ, than any run, than a silence on a link or a door.
const PAUSE: Duration = Duration::from_secs(32);

#[test]
fn i4_enclaves_paused_for_longer_than_anything_waits_release_nothing_late() {
    assert!(PAUSE > Duration::from_millis(TAU.0) * 3);
    let mut field = Field::born_beside_others();
    let load = field.load(1);
    sleep(Duration::from_secs(1));
    let leader = field.leader();
    field.signal(leader, Part::Enclave, Signal::SIGSTOP);
    let (paused, before) = (Instant::now(), field.book.signed());
    let took = wait_until("the others sign", || field.book.signed() > before + 5);
    println!("the leader's enclave paused: the others sign within {took:.1?}");
    sleep(PAUSE.saturating_sub(paused.elapsed()));
    field.signal(leader, Part::Enclave, Signal::SIGCONT);
    // it may have halted: a node whose enclave has is started again by who runs it
    sleep(Duration::from_secs(1));
    if field.home.pid(&field.name(leader), Part::Enclave).unwrap().is_none() {
        println!("it has halted");
        field.running.take_ended();
        field.start(leader, &[Part::Enclave]);
    }
    field.back("the leader's enclave paused");
    load.end(&field);
    field.squeeze(1);
    field.judge("the leader's enclave paused", leader, Some(1));

    // two of three: the one that is left signs nothing
    let load = field.load(2);
    sleep(Duration::from_millis(500));
    let left = field.roll(3) as usize;
    let two = [(left + 1) % 3, (left + 2) % 3];
    for node in two {
        field.signal(node, Part::Enclave, Signal::SIGSTOP);
    }
    // what was on its way has arrived
    sleep(Duration::from_secs(1));
    let before = field.book.signed();
    sleep(Duration::from_secs(6));
    assert_eq!(field.book.signed(), before, "signed without a majority");
    for node in two {
        field.signal(node, Part::Enclave, Signal::SIGCONT);
    }
    field.back("two enclaves of three paused");
    load.end(&field);
    field.squeeze(2);
    field.judge("two enclaves of three paused", two[0], Some(2));
}
