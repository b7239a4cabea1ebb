//! `casemate manifest`: from a description to a cluster that clients have pinned.

use casemate_client::ClusterFile;
use casemate_proto::{UnixMillis, cbor};

use super::*;

/// The cluster's manifest and root as files, and `--node` for each of its nodes.
fn prepared(setting: &Setting) -> Vec<String> {
    setting.fake.with(|world| {
        std::fs::write(setting.path("manifest.cbor"), cbor::encode(&world.genesis.manifest))
            .unwrap();
        std::fs::write(setting.path("root.pem"), &world.root_pem).unwrap();
        let node = |node: &kit::Node| {
            ["--node".to_owned(), format!("{}=http://{}", node.name, node.address)]
        };
        world.nodes.values().flat_map(node).collect()
    })
}

fn adopt(setting: &Setting, nodes: &[String]) -> Output {
    let mut args = vec!["manifest", "adopt", "manifest.cbor", "--trust-root", "root.pem"];
    args.extend(["--out", "adopted.json"]);
    args.extend(nodes.iter().map(String::as_str));
    setting.casemate(&args)
}

fn refused(setting: &Setting, nodes: &[String], words: &[&str]) {
    let output = adopt(setting, nodes);
    assert_eq!(output.status.code(), Some(1), "{}{}", out(&output), err(&output));
    for word in words {
        assert!(err(&output).contains(word), "`{word}` is not in: {}", err(&output));
    }
    assert!(!setting.path("adopted.json").exists());
}

#[test]
fn a_genesis_that_all_nodes_say_is_pinned_and_its_cluster_can_be_asked() {
    let setting = setting();
    let nodes = prepared(&setting);
    let output = adopt(&setting, &nodes);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let id = setting.fake.with(|world| world.id);
    assert!(out(&output).contains(&id.to_string()), "{}", out(&output));
    assert_eq!(out(&output).matches("attested").count(), REGIONS.len());
    let file = ClusterFile::load(&setting.path("adopted.json")).unwrap();
    assert_eq!(file.genesis_id, id);
    let output = casemate_in(setting.folder.path(), &setting.text("adopted.json"), &["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    // and never in the place of another
    let before = std::fs::read(setting.path("adopted.json")).unwrap();
    let output = adopt(&setting, &nodes);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("`adopted.json`: it is there already"), "{}", err(&output));
    assert_eq!(std::fs::read(setting.path("adopted.json")).unwrap(), before);
}

#[test]
fn every_node_of_the_manifest_must_be_asked_and_answer() {
    let setting = setting();
    let nodes = prepared(&setting);
    refused(&setting, &nodes[2..], &["the URL of `", "` is missing"]);
    let mut silent = nodes.clone();
    silent[1] = format!("{}=http://127.0.0.1:1", nodes[1].split_once('=').unwrap().0);
    let output = adopt(&setting, &silent);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("127.0.0.1") || err(&output).contains("refused"));
    assert!(!setting.path("adopted.json").exists());
    let mut other = nodes.clone();
    other.extend(["--node".to_owned(), "moon=http://127.0.0.1:1".to_owned()]);
    refused(&setting, &other, &["`moon` is not a node of the manifest"]);
}

#[test]
fn i9_nodes_of_two_clusters_of_one_manifest_are_not_adopted() {
    let setting = setting();
    let mut nodes = prepared(&setting);
    let twin = Fake::start();
    let genesis = setting.fake.with(|world| world.genesis.clone());
    let address = twin.with(|world| {
        world.genesis = genesis;
        world.genesis.at = UnixMillis(world.genesis.at.0 + 1);
        world.nodes.values().next().unwrap().address
    });
    nodes[1] = format!("{}=http://{address}", nodes[1].split_once('=').unwrap().0);
    refused(&setting, &nodes, &["are of two clusters", "start each once"]);
}

#[test]
fn cluster_of_another_manifest_root_or_without_evidence_is_not_adopted() {
    let setting = setting();
    let nodes = prepared(&setting);
    let manifest = std::fs::read(setting.path("manifest.cbor")).unwrap();
    let mut other = setting.fake.with(|world| world.genesis.manifest.clone());
    other.name.push('2');
    std::fs::write(setting.path("manifest.cbor"), cbor::encode(&other)).unwrap();
    refused(&setting, &nodes, &["another manifest"]);
    std::fs::write(setting.path("manifest.cbor"), &manifest[1..]).unwrap();
    refused(&setting, &nodes, &["`manifest.cbor`: "]);
    std::fs::write(setting.path("manifest.cbor"), &manifest).unwrap();
    let another = Fake::start().with(|world| world.root_pem.clone());
    std::fs::write(setting.path("root.pem"), another).unwrap();
    refused(&setting, &nodes, &["it names the root with fingerprint 0x"]);
    prepared(&setting);
    setting.fake.with(|world| world.genesis.boots[0].nonce[0] ^= 1);
    refused(&setting, &nodes, &["the genesis record is refused", "attestation"]);
}

#[test]
fn description_and_measurements_become_a_manifest_that_is_shown_with_its_hash() {
    let setting = setting();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/cluster/cluster.toml");
    let pcr = "ab".repeat(48);
    let measurements = serde_json::json!({
        "HashAlgorithm": "SHA384", "PCR0": pcr, "PCR1": pcr, "PCR2": pcr,
    });
    std::fs::write(setting.path("m.json"), measurements.to_string()).unwrap();
    let build = ["manifest", "build", example, "--measurements", "m.json", "--out", "new.cbor"];
    let output = setting.casemate(&build);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let shown = setting.casemate(&["manifest", "show", "new.cbor"]);
    assert_eq!(out(&shown), out(&output));
    for words in ["hardware     nitro", "threshold    2 of 3", &pcr] {
        assert!(out(&shown).contains(words), "`{words}` is not in: {}", out(&shown));
    }
    let json = json(&setting.casemate(&["manifest", "show", "new.cbor", "--json"]));
    let hash = json["hash"].as_str().unwrap();
    assert!(out(&shown).starts_with(&format!("manifest     {hash}\n")), "{}", out(&shown));
    // what is there stays, and images are not the same twice
    let output = setting.casemate(&build);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("cannot write `new.cbor`"), "{}", err(&output));
    let mut twice = build.to_vec();
    twice.extend(["--measurements", "m.json"]);
    let output = setting.casemate(&twice);
    assert!(err(&output).contains("the same image is given twice"), "{}", err(&output));
    // another root is a simulated one, and says so
    prepared(&setting);
    let mut simulated = build.to_vec();
    simulated[6] = "simulated.cbor";
    simulated.extend(["--trust-root", "root.pem"]);
    let output = setting.casemate(&simulated);
    assert!(out(&output).contains("hardware     simulated"), "{}", err(&output));
}
