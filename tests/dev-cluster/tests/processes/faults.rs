//! Clusters that lose processes: killed by hand, by command, or with whoever started them.

use std::process::{Command, Stdio};

use casemate_dev::processes::Part;
use casemate_door::Answer;
use nix::sys::signal::Signal;

use crate::kit::{Background, Cluster, alone, folders, is_alive, refuse, succeed, wait_until};

#[test]
fn node_killed_by_hand_is_not_missed_and_signs_when_it_is_back() {
    let _alone = alone();
    let mut cluster = Cluster::up(&["--keys"]);
    let (first, last) = (cluster.name(0), cluster.name(2));
    cluster.sign(2, &cluster.payment());
    let before = cluster.boot(2);

    // killed as a crash would, both processes
    cluster.kill(2, Part::Parent);
    cluster.kill(2, Part::Enclave);
    cluster.up.as_mut().unwrap().wait_for(&format!("enclave of node {last}: ended (signal 9)"));
    let while_gone = cluster.payment();
    let signature = cluster.sign(0, &while_gone);

    // started by hand, with the lines that `up` wrote down
    let mut by_hand = Vec::new();
    for part in Part::ALL {
        let line = cluster.command_line(2, part);
        let null = || Stdio::null();
        let command = Command::new("sh")
            .args(["-c", &format!("exec {line}")])
            .stdin(null())
            .stdout(null())
            .stderr(null())
            .spawn();
        by_hand.push(command.unwrap());
    }
    cluster.wait_until_whole(2);
    assert_ne!(cluster.boot(2), before, "a start is another boot");
    cluster.up.as_mut().unwrap().wait_for(&format!("enclave of node {last}: runs again"));
    // it knows what was signed without it, though it does not have the record at hand
    match cluster.settle(2, &while_gone) {
        Answer::Signed(signed) => assert_eq!(signed.signature, signature),
        Answer::Recorded { index, signed_index } => assert!(index < signed_index),
        other => panic!("{other:?}"),
    }
    cluster.assert_charged_and_signed_once(2, &while_gone);

    // nobody is left who could sign without it
    let said =
        succeed(&["node", "stop", "--kill", "--dir", cluster.dir(), "--node", first.as_str()]);
    assert!(said.contains("parent and enclave killed"), "{said}");
    cluster.sign(2, &cluster.payment());
    cluster.sign(1, &cluster.report());
    let said = succeed(&["node", "start", "--dir", cluster.dir(), "--node", first.as_str()]);
    assert!(said.contains("serves, with 6 key shares"), "{said}");

    // Ctrl-C ends all of it, whoever started it
    let pids = cluster.pids();
    assert_eq!(pids.len(), 6);
    let up = cluster.up.take().unwrap();
    up.signal(Signal::SIGINT);
    assert!(up.wait().success());
    for mut process in by_hand {
        process.wait().unwrap();
    }
    assert_eq!(cluster.pids(), Vec::<u32>::new());
    wait_until("every process is gone", || !pids.iter().any(|pid| is_alive(*pid)));

    // and with it the keys
    refuse(&["up", "--dir", cluster.dir()], &["its keys are gone", "--fresh"]);
    let said = succeed(&["up", "--dir", cluster.dir(), "--fresh", "--detach"]);
    assert!(said.contains("ready: 2 of 3 nodes sign"), "{said}");
    assert_eq!(cluster.pids().len(), 6);
    let said = succeed(&["down", "--dir", cluster.dir()]);
    assert!(said.contains("stopped"), "{said}");
    assert_eq!(cluster.pids(), Vec::<u32>::new());
    assert!(succeed(&["down", "--dir", cluster.dir()]).contains("nothing of it runs"));
}

#[test]
fn i5_parent_that_disappears_in_the_middle_of_a_request_leaves_one_result_charged_once() {
    let _alone = alone();
    let cluster = Cluster::up(&["--keys"]);
    let name = cluster.name(1);
    let (dir, node) = (cluster.dir().to_owned(), name.as_str());
    let boot = cluster.boot(1);
    let payment = cluster.payment();
    cluster.ask_and_go(1, &payment);
    std::thread::sleep(std::time::Duration::from_millis(15));
    cluster.kill(1, Part::Parent);
    let signature = cluster.sign(0, &payment);
    assert_eq!(cluster.sign(2, &payment), signature);

    // a second of anything is refused, in one line
    refuse(&["up", "--dir", &dir], &["runs in", "`casemate-dev up` is process"]);
    refuse(&["up", "--dir", &dir, "--fresh"], &["runs in"]);
    refuse(&["enclave", "--dir", &dir, "--node", node], &["enclave", "runs already"]);
    refuse(
        &["node", "start", "--only", "enclave", "--dir", &dir, "--node", node],
        &["runs already"],
    );
    refuse(&["node", "stop", "--only", "parent", "--dir", &dir, "--node", node], &["does not run"]);

    // somebody took its port meanwhile
    let taken = std::net::TcpListener::bind(cluster.plan.nodes[1].http).unwrap();
    let start = ["node", "start", "--only", "parent", "--dir", &dir, "--node", node];
    refuse(
        &start,
        &["parent of node", "cannot listen on", &taken.local_addr().unwrap().to_string()],
    );
    drop(taken);

    // its enclave never noticed: the same boot, with what it had
    succeed(&start);
    cluster.wait_until_whole(1);
    assert_eq!(cluster.boot(1), boot);
    assert_eq!(cluster.sign(1, &payment), signature);
    cluster.sign(1, &cluster.payment());
    cluster.assert_charged_and_signed_once(1, &payment);
}

#[test]
fn runbook_names_only_metrics_that_a_node_has() {
    let _alone = alone();
    let cluster = Cluster::up(&[]);
    let metrics = cluster.get(0, "/metrics");
    let runbook = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/RUNBOOK.md");
    let runbook = std::fs::read_to_string(runbook).unwrap();
    let quoted = runbook.split('`').skip(1).step_by(2);
    let names: Vec<&str> = quoted.filter(|name| name.starts_with("casemate_")).collect();
    assert!(names.len() > 10, "{names:?}");
    // these have labels, and no line before something was counted
    let labelled =
        ["casemate_answers_total", "casemate_links_failed_total", "casemate_http_refused_total"];
    for name in names.into_iter().filter(|name| !name.ends_with('_') && !labelled.contains(name)) {
        let family = name.strip_suffix("_total").unwrap_or(name);
        let line = format!("# TYPE {family} ");
        assert!(metrics.contains(&line), "{name} is none of a node's metrics");
    }
}

#[test]
fn up_that_is_killed_leaves_no_process_behind() {
    let _alone = alone();
    let cluster = Cluster::up(&[]);
    let pids = cluster.pids();
    assert_eq!(pids.len(), 6);
    cluster.up.as_ref().unwrap().signal(Signal::SIGKILL);
    wait_until("every process is gone", || cluster.pids().is_empty());
    wait_until("every process is gone", || !pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn demo_that_is_killed_leaves_no_process_behind() {
    let _alone = alone();
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Background::start(&["demo"], temporary.path());
    demo.wait_for("governance:");
    let folder = folders(temporary.path()).pop().expect("the demo's folder");
    let (home, plan) = casemate_dev::processes::Home::open(&folder).unwrap();
    let running = || {
        let both = |node: &casemate_dev::processes::PlannedNode| {
            Part::ALL.map(|part| home.pid(&node.name, part).unwrap())
        };
        plan.nodes.iter().flat_map(both).flatten().count()
    };
    assert_eq!(running(), 6);
    demo.signal(Signal::SIGKILL);
    wait_until("every process is gone", || running() == 0);
}
