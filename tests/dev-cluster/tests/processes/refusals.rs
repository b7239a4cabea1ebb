//! What is refused: each with one line that says why, and status 1.

use std::fs;

use crate::kit::{refuse, taken_port};

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn folder_with_something_else_in_it_is_refused_and_not_touched() {
    let (folder, path) = folder();
    fs::write(folder.path().join("thesis.txt"), "years").unwrap();
    refuse(&["up", "--dir", &path], &["is not empty", &path]);
    refuse(&["up", "--dir", &path, "--fresh"], &["is not empty", &path]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn file_in_the_place_of_the_folder_is_refused() {
    let (folder, _) = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    refuse(&["up", "--dir", file.to_str().unwrap()], &["cannot make", "file"]);
}

#[test]
fn port_in_use_is_named_and_nothing_is_left_running() {
    let (folder, path) = folder();
    let (port, _listener) = taken_port();
    refuse(
        &["up", "--dir", &path, "--first-port", &port.to_string()],
        &[&format!("port {port} of 127.0.0.1"), "in use"],
    );
    assert!(!folder.path().join("cluster.json").exists());
}

#[test]
fn folder_of_no_cluster_is_refused_by_every_command() {
    let (_folder, path) = folder();
    for arguments in [
        &["down", "--dir", &path][..],
        &["node", "stop", "--dir", &path, "--node", "a"],
        &["node", "start", "--dir", &path, "--node", "a"],
        &["enclave", "--dir", &path, "--node", "a"],
    ] {
        refuse(arguments, &["is not the folder of a cluster", "dev.json"]);
    }
    refuse(&["down", "--dir", "/nowhere/at/all"], &["is not the folder of a cluster"]);
}

#[test]
fn foreign_plan_is_refused_with_the_reason() {
    let (folder, path) = folder();
    for (text, word) in [
        ("not json", "expected"),
        (r#"{"schema":"somebody.else/3","threshold":2,"nodes":[]}"#, "somebody.else/3"),
    ] {
        fs::write(folder.path().join("dev.json"), text).unwrap();
        refuse(&["up", "--dir", &path, "--fresh"], &["dev.json", word]);
        refuse(&["down", "--dir", &path], &["dev.json", word]);
    }
}

#[test]
fn node_is_not_started_in_a_folder_without_its_cluster_file() {
    let (folder, path) = folder();
    let plan = r#"{"schema":"casemate.dev/1","threshold":2,"nodes":[{"name":"a","region":"a",
        "number":0,"http":"127.0.0.1:1","relay":"127.0.0.1:2","peers":[]}]}"#;
    fs::write(folder.path().join("dev.json"), plan).unwrap();
    refuse(&["node", "start", "--dir", &path, "--node", "a"], &["cluster.json"]);
    refuse(&["node", "start", "--dir", &path, "--node", "b"], &["no node `b`", "there are a"]);
    refuse(&["node", "stop", "--dir", &path, "--node", "a"], &["does not run"]);
}

#[test]
fn parent_without_a_configuration_says_which_file_it_lacks() {
    let (folder, _) = folder();
    let file = folder.path().join("parent.toml");
    refuse(&["parent", "--config", file.to_str().unwrap()], &["cannot read", "parent.toml"]);
    fs::write(&file, "node = 7\n").unwrap();
    refuse(&["parent", "--config", file.to_str().unwrap()], &["parent.toml", "line 1"]);
}

#[test]
fn numbers_that_no_cluster_can_have_are_refused() {
    let (_folder, path) = folder();
    refuse(&["up", "--dir", &path, "--nodes", "2"], &["--nodes 2"]);
    refuse(&["up", "--dir", &path, "--threshold", "3"], &["--threshold 3"]);
}
