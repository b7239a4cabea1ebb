use super::*;

fn regions(names: &[&str]) -> Vec<(NodeName, String)> {
    names.iter().map(|name| (NodeName::new(name).unwrap(), (*name).to_owned())).collect()
}

fn planned(path: &Path) -> (Home, Claim, Plan) {
    let (home, claim) = Home::create(path, false).unwrap();
    let plan = Plan::new(2, &regions(&["a", "b", "c"]), None).unwrap();
    home.write_plan(&plan).unwrap();
    (home, claim, plan)
}

#[test]
fn plan_gives_every_node_two_ports_of_its_own_and_a_route_to_every_other() {
    let folder = tempfile::tempdir().unwrap();
    let (home, _claim, plan) = planned(&folder.path().join("new/folder"));
    let mut ports: Vec<u16> =
        plan.nodes.iter().flat_map(|n| [n.http.port(), n.relay.port()]).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 6);
    for node in &plan.nodes {
        assert_eq!(node.peers.len(), 2);
        assert!(node.peers.iter().all(|route| route.to != node.name));
        assert!(home.node(&node.name).is_dir());
    }
    assert_eq!(Home::open(home.path()).unwrap(), (home, plan));
}

#[test]
fn port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Plan::new(2, &regions(&["a", "b", "c"]), Some(port)).unwrap_err();
    assert!(error.to_string().starts_with(&format!("port {port} of 127.0.0.1")), "{error}");
    let error = Plan::new(2, &regions(&["a", "b", "c"]), Some(65_533)).unwrap_err();
    // the three that there are may be taken by somebody else
    assert!(matches!(error, DevError::Ports { .. } | DevError::Port { .. }), "{error}");
}

#[test]
fn folder_with_something_else_in_it_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thesis.txt");
    fs::write(&file, "years of work").unwrap();
    for fresh in [false, true] {
        let error = Home::create(folder.path(), fresh).unwrap_err();
        assert!(matches!(error, DevError::Foreign { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(file).unwrap(), "years of work");
}

#[test]
fn second_start_in_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, claim, _) = planned(folder.path());
    let error = Home::create(folder.path(), true).unwrap_err();
    assert!(error.to_string().contains("`casemate-dev up` is process"), "{error}");
    drop(claim);
    assert!(Home::create(folder.path(), false).is_ok());
}

#[test]
fn folder_in_which_a_node_runs_is_refused_even_without_its_up() {
    let folder = tempfile::tempdir().unwrap();
    let (home, claim, plan) = planned(folder.path());
    drop(claim);
    let name = &plan.nodes[1].name;
    let _parent = Claim::take(&home.pid_file(name, Part::Parent)).unwrap().unwrap();
    let error = Home::create(folder.path(), true).unwrap_err();
    assert!(error.to_string().contains("the parent of node `b` is process"), "{error}");
}

#[test]
fn stopped_cluster_is_kept_until_a_fresh_one_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (home, claim, _) = planned(folder.path());
    drop(claim);
    write(&home.cluster_file(), b"{}").unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let error = Home::create(folder.path(), false).unwrap_err();
    assert!(error.to_string().contains("its keys are gone from"), "{error}");
    assert!(home.plan().exists() && home.cluster_file().exists());
    let (home, _claim) = Home::create(folder.path(), true).unwrap();
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(folder.path().join("notes.txt").exists());
}

#[test]
fn folder_of_no_cluster_is_named_by_what_it_lacks_or_has_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let error = Home::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("has no `dev.json`"), "{error}");
    let error = Home::open(&folder.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, DevError::NoCluster { .. }), "{error}");
    for (text, wanted) in [
        ("{", "EOF"),
        (r#"{"schema":"casemate.dev/2","threshold":2,"nodes":[]}"#, "casemate.dev/2"),
        (r#"{"schema":"casemate.dev/1","threshold":2,"nodes":[],"more":1}"#, "more"),
    ] {
        fs::write(folder.path().join("dev.json"), text).unwrap();
        let error = Home::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(Home::create(folder.path(), true).is_err(), "{text}");
    }
}

#[test]
fn full_disk_is_named_with_the_file_and_leaves_the_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.json");
    write(&path, b"old").unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("dev.json.new")).unwrap();
    let error = write(&path, &[0; 100]).unwrap_err().to_string();
    assert!(error.contains("dev.json") && error.contains("No space left"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn path_too_long_for_a_socket_is_refused_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("x".repeat(90));
    let error = Home::create(&deep, false).unwrap_err();
    assert!(matches!(error, DevError::LongPath { .. }), "{error}");
    assert!(!deep.exists());
}
