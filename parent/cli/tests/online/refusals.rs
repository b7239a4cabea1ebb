//! Bad input, and clusters that are not there or not the one that is meant: one clear line each.

use super::*;

#[test]
fn a_node_that_lists_paths_outside_the_store_is_refused() {
    let setting = setting();
    setting.fake.take_over(|asked, stream| {
        let listing = asked.path.starts_with("/v1/store?");
        if listing {
            let body = br#"{"folder":"attachments","names":["../../escape"],"next":null}"#;
            kit::respond(stream, 200, "", body);
        }
        listing
    });
    let output = setting.casemate(&["audit", "fetch", "--out", "store"]);
    exits(&output, 1);
    assert!(err(&output).contains("not a file's name"), "{}", err(&output));
    assert!(!setting.path("escape").exists());
}

#[test]
fn no_cluster_a_missing_file_and_another_schema_are_one_clear_line() {
    let setting = setting();
    let run = |cluster: &str| casemate_in(setting.folder.path(), cluster, &["status"]);
    let output = run("");
    exits(&output, 1);
    assert!(err(&output).contains("--cluster FILE"), "{}", err(&output));
    let output = run("missing.json");
    exits(&output, 1);
    assert!(err(&output).contains("`missing.json`"), "{}", err(&output));
    let text = std::fs::read_to_string(setting.path("cluster.json")).unwrap();
    for (bad, named) in [
        (text.replace("cluster/1", "cluster/9"), "casemate.cluster/9"),
        (text.replace("\"nodes\"", "\"knots\""), "knots"),
        ("[]".to_owned(), "not a cluster file"),
        (text.replace("http://", "ftp://"), "is not a node's URL"),
        (text.replace("BEGIN CERTIFICATE", "BEGIN NOTHING"), "trust_root_pem"),
    ] {
        std::fs::write(setting.path("bad.json"), bad).unwrap();
        let output = run("bad.json");
        exits(&output, 1);
        assert!(err(&output).contains(named), "{named}: {}", err(&output));
        assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    }
}

#[test]
fn a_machine_without_root_certificates_asks_nodes_without_tls() {
    let setting = setting();
    let output = Command::new(env!("CARGO_BIN_EXE_casemate"))
        .args(["keys", "list"])
        .env("CASEMATE_CLUSTER", setting.text("cluster.json"))
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", setting.folder.path())
        .output()
        .unwrap();
    exits(&output, 0);
}

#[test]
fn a_cluster_file_of_another_cluster_is_refused() {
    let (setting, other) = (setting(), setting());
    let nodes = other.fake.with(|world| {
        world.nodes.values().map(|node| format!("http://{}", node.address)).collect::<Vec<_>>()
    });
    setting.write_cluster(|file| {
        for (node, url) in file.nodes.iter_mut().zip(nodes) {
            node.url = url;
        }
    });
    let message = setting.message("hello");
    let args = ["sign", "--key", KEY, "--as", ALICE, "--message", &message, "--timeout", "1s"];
    let output = setting.casemate(&args);
    assert_ne!(output.status.code(), Some(0));
    assert!(err(&output).contains("is pinned"), "{}", err(&output));
    assert!(other.fake.sent().is_empty());
    let output = setting.casemate(&["status"]);
    exits(&output, 1);
}

#[test]
fn nodes_that_are_not_there_are_a_status_of_their_own() {
    let setting = setting();
    setting.write_cluster(|file| {
        for node in &mut file.nodes {
            // nobody listens there: bound for a moment to find a free port
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            node.url = format!("http://{free}");
        }
    });
    for args in [
        &["status"][..],
        &["keys", "list"],
        &["attest", "fetch", "--node", REGIONS[0]],
        &["audit", "verify"],
        &["requests", "show"],
    ] {
        let output = setting.casemate(args);
        exits(&output, 4);
        assert!(err(&output).contains("not reachable"), "{args:?}: {}", err(&output));
    }
}

#[test]
fn unknown_principals_wrong_roles_and_wrong_files_are_named() {
    let setting = setting();
    let message = setting.message("hello");
    for (args, named) in [
        (vec!["--as", "operator:mallory", "--message", &message], "operator:mallory"),
        (vec!["--as", CAROL, "--message", &message], "as requester"),
        (vec!["--as", ALICE, "--message", "missing"], "`missing`"),
        (vec!["--as", ALICE, "--tx", &message], "`"),
        (vec!["--as", ALICE, "--typed-data", &message], "`"),
        (vec!["--as", ALICE, "--hash", "0x12"], "32 bytes"),
        (vec!["--credential", &message, "--message", &message], "`"),
        (vec!["--message", &message], "--as"),
    ] {
        let output = setting.casemate(&[&["sign", "--key", KEY][..], &args].concat());
        exits(&output, 1);
        assert!(err(&output).contains(named), "{args:?}: {}", err(&output));
    }
    assert!(setting.fake.sent().is_empty());
    let output = setting.casemate(&["sign", "--key", "none", "--as", ALICE, "--message", &message]);
    exits(&output, 1);
    assert!(err(&output).contains("no live key `none`"), "{}", err(&output));
}

#[test]
fn a_new_credential_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| casemate_in(folder.path(), "", args);
    let args = ["credential", "new", "--algorithm", "p256", "--out", "a.key"];
    let output = run(&args);
    exits(&output, 0);
    let shown = run(&["credential", "show", "a.key"]);
    exits(&shown, 0);
    assert_eq!(out(&shown), out(&output));
    let secret = std::fs::read_to_string(folder.path().join("a.key")).unwrap();
    let secret =
        serde_json::from_str::<Value>(&secret).unwrap()["secret"].as_str().unwrap().to_owned();
    assert!(!out(&output).contains(&secret[2..]));
    let again = run(&args);
    exits(&again, 1);
    assert!(err(&again).contains("a.key"), "{}", err(&again));
    let mut open = std::fs::metadata(folder.path().join("a.key")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o644);
    std::fs::set_permissions(folder.path().join("a.key"), open).unwrap();
    let output = run(&["credential", "show", "a.key"]);
    exits(&output, 1);
    assert!(err(&output).contains("chmod 600"), "{}", err(&output));
    exits(&run(&["credential", "new", "--algorithm", "rsa", "--out", "b.key"]), 1);
}
