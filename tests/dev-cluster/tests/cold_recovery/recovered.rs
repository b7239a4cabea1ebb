//! Clusters that come back: what they still know, what they refuse, and what they sign.

use std::thread::sleep;
use std::time::Duration;

use casemate_dev::processes::Part;
use casemate_dev::processes::birth::now;
use casemate_proto::UnixMillis;

use crate::kit::{Ground, Said, wait_until};

/// How long boots may begin with a certificate of these tests.
const LIFE: [&str; 2] = ["--life", "20s"];

/// Certified, signed by two, released by two, started. The certificate's id, and until when it is good.
fn recover(ground: &Ground, bundle: &str) -> (String, UnixMillis) {
    let drawn = ground.certify(bundle, &LIFE).done();
    for governor in [1, 2] {
        ground.sign(governor, bundle, &[]).done();
    }
    for governor in [2, 3] {
        ground.release(governor, bundle, &[]).done();
    }
    ground.hand_over(bundle, &[]).done();
    let good_until = Said::value(&drawn, "good until");
    let good_until = good_until.split(';').next().unwrap();
    (Said::value(&drawn, "certificate"), UnixMillis::from_rfc3339(good_until).unwrap())
}

fn sleep_until(time: UnixMillis) {
    sleep(Duration::from_millis(time.0.saturating_sub(now().0)));
}

#[test]
fn i5_i6_i7_all_enclaves_killed_at_once_are_recovered_by_the_commands_and_forget_nothing() {
    let mut ground = Ground::born();
    let keys = ground.keys();
    let paid = Ground::payment("m/2/7", 9);
    let signature = ground.ask(0, &paid, 0).unwrap();
    ground.ask(1, &Ground::payment("m/2/7", 9), 0).unwrap();
    let denied = ground.ask(2, &Ground::payment("m/2/7", 1), 0);
    assert_eq!(denied, Err("limit_exceeded".to_owned()), "its window is full");
    let kept_back = ground.stamped(&Ground::report(), 0);
    ground.wait_until_published();
    let size = ground.json(&["status"])["size"].as_u64().unwrap();

    ground.kill_all_enclaves();
    ground.offered();
    let (id, good_until) = recover(&ground, "bundle");

    // it is the same cluster, frozen, with the same keys
    (0..3).for_each(|node| ground.wait_until_whole(node));
    let status = ground.json(&["status"]);
    assert_eq!(status["incarnation"], 1);
    assert!(status["size"].as_u64().unwrap() > size, "{status}");
    assert_eq!(status["freezes"][0]["id"], id.as_str());
    assert_eq!(ground.keys(), keys);
    assert_eq!(ground.ask(0, &Ground::report(), 1), Err("frozen".to_owned()));
    ground.run(&["unfreeze", &id]).done();

    // nothing that was stamped before counts, and what was signed before is not signed again
    let former = ground.send(1, kept_back);
    let former = format!("{former:?}");
    assert!(former.contains("BadStamp") || former.contains("bad_stamp"), "{former}");
    let again = ground.ask(2, &paid, 1);
    assert!(again == Ok(signature) || again == Err("recorded".to_owned()), "{again:?}");
    // windows that reach back before the certificate's end are full: the one that was, and any other
    for path in ["m/2/7", "m/2/8", "m/1/1"] {
        let denied = ground.ask(0, &Ground::payment(path, 1), 1);
        assert_eq!(denied, Err("limit_exceeded".to_owned()), "{path}");
    }
    // and those that lie behind it are not
    sleep_until(good_until.saturating_add(casemate_proto::Millis(5_000 + 8_000 + 500)));
    ground.ask(1, &Ground::payment("m/1/1", 9), 1).unwrap();
    ground.ask(2, &Ground::report(), 1).unwrap();
    let denied = ground.ask(0, &Ground::payment("m/2/7", 1), 1);
    assert_eq!(denied, Err("limit_exceeded".to_owned()));

    // the log is one, before and after
    let verified = ground.run(&["audit", "verify"]).done();
    assert!(verified.contains("verified"), "{verified}");
    for node in 0..3 {
        let store = ground.data(node).join("store");
        let genesis = ground.file.genesis_id.to_string();
        let store = store.to_str().unwrap();
        wait_until("every store has the log", || {
            ground.run(&["audit", "verify", "--store", store, "--genesis", &genesis]).status
                == Some(0)
        });
    }
    // what the originals could have spent, had they only been paused, is said
    let policy = ground.text("policy.toml");
    let bounds = ["policy", "bounds", &policy, "--nodes", "3", "--threshold", "2"];
    let bounds = ground.run(&bounds).done();
    let words = "Each cold recovery, were the old enclaves paused and not dead, adds one limit";
    assert!(bounds.contains(words), "{bounds}");

    // a node that restarts now joins the incarnation that there is
    ground.kill(2, Part::Enclave);
    ground.kill(2, Part::Parent);
    ground.start(2, Part::Enclave);
    ground.start(2, Part::Parent);
    ground.wait_until_whole(2);
    ground.ask(2, &Ground::report(), 1).unwrap();
}

#[test]
fn cluster_of_which_one_node_has_lost_its_disk_as_well_is_recovered_from_the_others_folders() {
    let mut ground = Ground::born();
    let keys = ground.keys();
    ground.wait_until_published();
    ground.kill_all_enclaves();
    ground.kill(1, Part::Parent);
    std::fs::remove_dir_all(ground.data(1)).unwrap();
    std::fs::create_dir(ground.data(1)).unwrap();
    let prepared = ground.with_nodes(&[0, 1, 2], &["prepare"]).done();
    assert!(prepared.contains("it was lost"), "{prepared}");
    ground.start(1, Part::Parent);
    (0..3).for_each(|node| ground.start(node, Part::Enclave));
    ground.wait_for_offers();
    let (id, good_until) = recover(&ground, "bundle");
    (0..3).for_each(|node| ground.wait_until_whole(node));
    assert_eq!(ground.keys(), keys);
    ground.run(&["unfreeze", &id]).done();
    sleep_until(good_until.saturating_add(casemate_proto::Millis(5_000 + 8_000 + 500)));
    // the node that has its share from the others signs with each of them
    ground.kill(0, Part::Enclave);
    ground.ask(1, &Ground::report(), 1).unwrap();
    ground.ask(1, &Ground::payment("m/1/1", 9), 1).unwrap();
}
