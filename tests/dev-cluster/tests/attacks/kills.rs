//! `kill -9` at any moment.

use std::thread::sleep;
use std::time::Duration;

use casemate_dev::processes::Part;

use crate::field::Field;

/// How often somebody is killed.
const ROUNDS: u32 = 4;

#[test]
fn i5_i6_processes_killed_at_random_moments_under_load_cost_time_and_nothing_else() {
    let mut field = Field::born();
    for round in 1..=ROUNDS {
        let load = field.load(round);
        let node = field.roll(3) as usize;
        let parts: &[Part] = match round {
            // whatever the seed says, each is killed once by itself
            1 => &[Part::Enclave],
            2 => &[Part::Parent],
            _ => &Part::ALL,
        };
        field.wait_a_while(2_500);
        parts.iter().for_each(|part| field.kill(node, *part));
        field.wait_a_while(1_500);
        field.start(node, parts);
        // and once more, wherever its way back has led it to
        if field.roll(2) == 0 {
            field.wait_a_while(3_000);
            parts.iter().for_each(|part| field.kill(node, *part));
            field.start(node, parts);
        }
        let attack = format!("{parts:?} of node {node} killed");
        field.back(&attack);
        sleep(Duration::from_millis(300));
        load.end(&field);
        field.squeeze(round);
        field.judge(&attack, node, Some(round));
    }
}
