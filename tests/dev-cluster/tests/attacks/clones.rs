//! Old folders put back, and two of one node.

use std::time::Duration;

use casemate_dev::processes::running::write_configurations;
use casemate_dev::processes::{Home, Part, Program};
use nix::sys::signal::Signal;

use crate::field::{Field, copy_folder, wait_until};

#[test]
fn i6_folder_of_an_earlier_day_put_back_brings_nothing_back() {
    let mut field = Field::born();
    let node = field.roll(3) as usize;
    let load = field.load(1);
    std::thread::sleep(Duration::from_secs(2));
    let old = field.beside("old");
    copy_folder(&field.data(node), &old);
    field.squeeze(1);
    load.end(&field);
    let load = field.load(1);
    for part in Part::ALL {
        field.kill(node, part);
    }
    std::fs::remove_dir_all(field.data(node)).unwrap();
    copy_folder(&old, &field.data(node));
    field.start(node, &Part::ALL);
    field.back("an old folder put back");
    // what was used up still is, also for the node that has forgotten it
    field.squeeze(1);
    load.end(&field);
    field.judge("an old folder put back", node, Some(1));

    // an empty one: it does not know which cluster it is of, and disturbs nobody
    let load = field.load(2);
    for part in Part::ALL {
        field.kill(node, part);
    }
    std::fs::remove_dir_all(field.data(node)).unwrap();
    field.start(node, &Part::ALL);
    let before = field.book.signed();
    wait_until("the others sign", || field.book.signed() > before + 5);
    let ready = field.ready(node);
    assert!(!ready.is_some_and(|ready| ready.ready), "it has not been admitted");
    for part in Part::ALL {
        field.kill(node, part);
    }
    std::fs::remove_dir_all(field.data(node)).unwrap();
    copy_folder(&old, &field.data(node));
    field.start(node, &Part::ALL);
    field.back("an empty folder");
    load.end(&field);
    field.judge("an empty folder", node, None);
}

#[test]
fn i7_second_enclave_of_a_node_is_kept_out_while_the_first_answers_and_fences_it_afterwards() {
    let mut field = Field::born();
    // of two nodes the first by name dials: the twin reaches the others by itself
    let (node, name) = (0, field.name(0));
    let load = field.load(1);
    let boot = field.boot(node).unwrap();
    let (home, claim) = Home::create(&field.beside("t"), false).unwrap();
    let mut plan = field.plan.clone();
    let ports = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    plan.nodes[node].http = ports[0].local_addr().unwrap();
    plan.nodes[node].relay = ports[1].local_addr().unwrap();
    drop(ports);
    home.write_plan(&plan).unwrap();
    std::fs::copy(field.home.root_key(), home.root_key()).unwrap();
    write_configurations(&home, &plan, &field.genesis.manifest).unwrap();
    copy_folder(&field.data(node), &home.node(&name).join("data"));
    let program = Program::new(env!("CARGO_BIN_EXE_casemate-dev").into());
    let twin: Vec<_> = Part::ALL
        .map(|part| {
            let mut child = program.start(&home, &name, part, true).unwrap();
            child.wait_for_claim().unwrap();
            child
        })
        .into();
    let api = casemate_dev::processes::api::Api::new(plan.nodes[node].url()).unwrap();
    let twin_is_member = |field: &Field| {
        let ready = field.runtime.block_on(api.ready());
        ready.is_ok_and(|ready| ready.enclave.is_some_and(|enclave| enclave.phase == "member"))
    };
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(200));
        assert!(!twin_is_member(&field), "the first answers");
    }
    assert_eq!(field.boot(node), Some(boot));

    // the first falls silent: whoever comes after it takes its place
    field.signal(node, Part::Enclave, Signal::SIGSTOP);
    let took = wait_until("the twin is a member", || twin_is_member(&field));
    println!("the twin is a member {took:.1?} after the first fell silent");
    field.signal(node, Part::Enclave, Signal::SIGCONT);
    let note = Field::report(2);
    for _ in 0..10 {
        assert!(!field.ask(node, &note), "a fenced boot has signed");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!field.ready(node).is_some_and(|ready| ready.ready), "it is fenced");

    // both go, and the node comes back as a third
    twin.into_iter().for_each(casemate_dev::processes::Child::kill);
    for part in Part::ALL {
        field.kill(node, part);
    }
    field.start(node, &Part::ALL);
    field.back("a node started twice");
    assert_ne!(field.boot(node), Some(boot));
    field.squeeze(1);
    load.end(&field);
    field.judge("a node started twice", node, Some(1));
    drop(claim);
}
