//! What an operator, a host or a governor may give the commands and what each is told: nothing begins by it, and
//! nothing is left half-written.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use casemate_dev::processes::Part;

use crate::kit::{Ground, Said, copy, wait_until};

/// Every file below a folder, with its bytes.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn cut_short(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn id_of(drawn: &str) -> String {
    Said::value(drawn, "certificate")
}

/// A cluster of which node 2 was restarted once, and what its folder and a store were before; killed.
fn killed_after_a_restart() -> Ground {
    let mut ground = Ground::born();
    copy(&ground.data(2), &ground.path("earlier"));
    let before = ground.newest_blob(0).unwrap().header.number;
    ground.kill(2, Part::Enclave);
    ground.start(2, Part::Enclave);
    (0..3).for_each(|node| ground.wait_until_whole(node));
    wait_until("the new epoch is sealed", || {
        let blobs: Vec<_> = (0..3).filter_map(|node| ground.newest_blob(node)).collect();
        let keys = &blobs[0].header.keys;
        blobs[0].header.number > before
            && blobs.len() == 3
            && keys.len() == 3
            && blobs.iter().all(|blob| blob.header.keys == *keys)
    });
    ground.wait_until_published();
    ground.kill_all_enclaves();
    ground
}

#[test]
fn i6_i7_i11_nothing_but_the_right_parts_in_the_right_hands_begins_a_recovery() {
    let mut ground = killed_after_a_restart();
    preparing_is_refused(&ground);
    ground.certify("none", &[]).refused(&["recovery/incarnation", "is missing", "prepare"]);
    ground.offered();
    certifying_is_refused(&ground);

    let life = ["--life", "1h"];
    let first = ground.certify("first", &life).done();
    let second = ground.certify("second", &["--life", "31d"]).done();
    assert_ne!(id_of(&first), id_of(&second));
    // one that has ended
    ground.certify("brief", &["--life", "1s"]).done();
    sleep(Duration::from_secs(1));
    ground.sign(1, "brief", &[]).refused(&["the certificate was good until"]);
    // a second one into the place of the first
    let before = content(&ground.path("first"));
    ground.certify("first", &life).refused(&["first", "exists"]);
    assert_eq!(content(&ground.path("first")), before);
    bundles_that_were_changed_are_refused(&ground);
    signing_is_refused(&ground);

    ground.sign(1, "first", &[]).done();
    ground.release(1, "first", &[]).refused(&["1 of 2 governors signed"]);
    ground.hand_over("first", &[]).refused(&["1 of 2 governors signed"]);
    ground.sign(2, "first", &[]).done();
    // a second certificate for the incarnation: whoever signed the first refuses it
    for governor in [1, 2] {
        let words = ["refused for ever", &id_of(&first), "a second cluster with the same keys"];
        ground.sign(governor, "second", &[]).refused(&words);
    }
    ground.sign(3, "second", &[]).done();
    ground.release(3, "second", &[]).refused(&["1 of 2 governors signed"]);
    // and who signed the other one releases nothing for this one
    ground.release(3, "first", &[]).refused(&["refused for ever", &id_of(&second)]);
    releasing_and_starting_is_refused(&ground, &id_of(&first));
    for governor in [1, 2] {
        ground.release(governor, "first", &[]).done();
    }
    replaced_enclave_begins_nothing(&mut ground);
    others_begin_without_it_and_it_joins(&mut ground, &id_of(&first));
}

fn preparing_is_refused(ground: &Ground) {
    let before = content(&ground.data(0));
    let folder = |name: &str| format!("{}={}", ground.name(0), ground.text(name));
    let prepare = |more: &[&str]| ground.recover(&[&["prepare"], more].concat());
    prepare(&["--node", &folder("nowhere")]).refused(&["nowhere", "No such file"]);
    fs::create_dir(ground.path("empty")).unwrap();
    prepare(&["--node", &folder("empty")]).refused(&["genesis.cbor", "is missing", "--store"]);
    let stranger = format!("mars-1={}", ground.data(0).display());
    prepare(&["--node", &stranger]).refused(&["no node `mars-1`", ground.name(1).as_str()]);
    let twice = ground.nodes(&[0]);
    prepare(&[&twice[0], &twice[1], &twice[0], &twice[1]]).refused(&["named twice"]);
    let other = format!("0x{}", "11".repeat(32));
    let mut with = ["prepare", "--genesis", &other].map(str::to_owned).to_vec();
    with.extend(ground.nodes(&[0]));
    let with: Vec<&str> = with.iter().map(String::as_str).collect();
    // the environment names a cluster file, which the id on the command line goes before
    ground.recover(&with).refused(&["is of cluster", &other]);
    ground.with_nodes(&[0], &["prepare", "--incarnation", "0"]).refused(&["is not later"]);
    assert_eq!(content(&ground.data(0)), before);
}

fn certifying_is_refused(ground: &Ground) {
    let before = content(&ground.data(1));
    let out = ground.text("none");
    let certify =
        |nodes: &[usize]| ground.with_nodes(nodes, &["certify", "--out", &out, "--life", "20s"]);
    certify(&[0, 1]).refused(&["is not named", ground.name(2).as_str()]);
    certify(&[0, 1, 1]).refused(&["named twice"]);

    // copies of the folders, each with something wrong
    let with = |wrong: &str, more: &[&str], change: &dyn Fn(&Path)| {
        let folder = ground.path("copies");
        let mut arguments = vec!["certify".to_owned(), "--out".to_owned(), out.clone()];
        for node in 0..3 {
            let data = folder.join(ground.name(node).as_str());
            copy(&ground.data(node), &data);
            arguments.push("--node".to_owned());
            arguments.push(format!("{}={}", ground.name(node), data.display()));
        }
        change(&folder);
        arguments.extend(more.iter().map(|one| (*one).to_owned()));
        let said = ground.recover(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        fs::remove_dir_all(&folder).unwrap();
        assert!(!ground.path("none").exists(), "{wrong}: nothing is written");
        said
    };
    let at =
        |folder: &Path, node: usize, name: &str| folder.join(ground.name(node).as_str()).join(name);
    with("an offer is missing", &[], &|folder| {
        fs::remove_file(at(folder, 1, "recovery/offer.cbor")).unwrap();
    })
    .refused(&["recovery/offer.cbor", "has not offered itself"]);
    with("an offer is cut short", &[], &|folder| cut_short(&at(folder, 1, "recovery/offer.cbor")))
        .refused(&["recovery/offer.cbor", "is not an enclave's offer"]);
    with("an offer is another node's", &[], &|folder| {
        fs::copy(at(folder, 0, "recovery/offer.cbor"), at(folder, 1, "recovery/offer.cbor"))
            .unwrap();
    })
    .refused(&["recovery/offer.cbor", "another node's"]);
    with("nodes prepared for two incarnations", &[], &|folder| {
        fs::write(at(folder, 2, "recovery/incarnation"), "5\n").unwrap();
    })
    .refused(&["incarnation 5", "others for incarnation 1"]);
    with("a number that is none", &[], &|folder| {
        fs::write(at(folder, 2, "recovery/incarnation"), "one\n").unwrap();
    })
    .refused(&["recovery/incarnation", "is not a number"]);
    with("an offer for another incarnation", &[], &|folder| {
        for node in 0..3 {
            fs::write(at(folder, node, "recovery/incarnation"), "7\n").unwrap();
        }
    })
    .refused(&["recovery/offer.cbor", "for another recovery"]);

    // ledgers
    with("no store is sound", &[], &|folder| {
        for node in 0..3 {
            cut_short(&at(folder, node, "store/checkpoint"));
        }
    })
    .refused(&["none of the stores holds a sound ledger"]);
    let earlier = ground.text("earlier/store");
    with("only an older store is left", &["--store", &earlier], &|folder| {
        (0..3).for_each(|node| fs::remove_dir_all(at(folder, node, "store")).unwrap());
    })
    .refused(&["was sealed when the ledger had", "--older-ledger"]);
    with("a newer store is not sound", &["--store", &earlier], &|folder| {
        for node in 0..3 {
            let tiles = at(folder, node, "store/tile/entries");
            // every width of the newest one that was ever written
            for (path, mut tile) in content(&tiles) {
                *tile.last_mut().unwrap() ^= 1;
                fs::write(path, tile).unwrap();
            }
        }
    })
    .refused(&["is not sound", "--older-ledger"]);
    let other = format!("0x{}", "11".repeat(32));
    let said = ground.with_nodes(&[0, 1, 2], &["certify", "--genesis", &other, "--out", &out]);
    said.refused(&["none of the stores", "it is of cluster"]);

    // blobs
    with("the blobs of two nodes are lost", &[], &|folder| {
        (0..2).for_each(|node| fs::remove_dir_all(at(folder, node, "sealed")).unwrap());
    })
    .refused(&["would be lost", "1 of the nodes have a blob", "2 must", "--lose-key"]);
    with(
        "the blobs of two nodes are of a former boot, or another's, or cut short",
        &[],
        &|folder| {
            let sealed = at(folder, 2, "sealed");
            fs::remove_dir_all(&sealed).unwrap();
            copy(&ground.path("earlier/sealed"), &sealed);
            let sealed = at(folder, 1, "sealed");
            for (path, _) in content(&sealed) {
                cut_short(Path::new(&path));
            }
        },
    )
    .refused(&["would be lost"]);
    assert_eq!(content(&ground.data(1)).len(), before.len());
    assert!(!ground.path("none").exists());
}

fn bundles_that_were_changed_are_refused(ground: &Ground) {
    let changed = |change: &dyn Fn(&Path)| {
        let bundle = ground.path("changed");
        copy(&ground.path("first"), &bundle);
        change(&bundle);
        let before = content(&bundle);
        let said = ground.sign(1, "changed", &[]);
        // the governor's record is as it was, and so is the bundle
        assert_eq!(content(&bundle), before);
        fs::remove_dir_all(&bundle).unwrap();
        said
    };
    let blob = format!("nodes/{}/blob.cbor", ground.name(0));
    for (file, words) in [
        ("genesis.cbor", "is not a genesis record"),
        ("certificate.cbor", "is not a recovery certificate"),
        ("snapshot.cbor", "is not the state that the certificate names"),
        ("tail.cbor", "does not lead to the certificate's ledger"),
        (blob.as_str(), "is not a sealed blob"),
    ] {
        changed(&|bundle| cut_short(&bundle.join(file))).refused(&[file, words]);
        changed(&|bundle| fs::remove_file(bundle.join(file)).unwrap())
            .refused(&[file, "is missing"]);
    }
    // a blob of another time
    let said = changed(&|bundle| {
        let (earlier, _) = content(&ground.path("earlier/sealed")).pop().unwrap();
        fs::copy(earlier, bundle.join(&blob)).unwrap();
    });
    said.refused(&["is not the blob that the certificate names"]);
    // a certificate of which one byte is another
    let mut flipped = fs::read(ground.path("first/certificate.cbor")).unwrap();
    let at = flipped.len() - 40;
    flipped[at] ^= 1;
    let said = changed(&|bundle| fs::write(bundle.join("certificate.cbor"), &flipped).unwrap());
    assert_eq!(said.status, Some(1), "{}{}", said.out, said.err);
}

/// A record as it was at first: what no governor does.
fn reset_record(ground: &Ground, number: usize) {
    let record = ground.governor(number, "record");
    let _ = fs::remove_file(&record);
    let who = format!("governor:{number}");
    let record = record.to_str().unwrap();
    ground.recover(&["record", "new", "--as", &who, "--out", record]).done();
}

fn signing_is_refused(ground: &Ground) {
    let before = content(&ground.path("first"));
    let bundle = ground.text("first");
    let record = ground.governor(1, "record");
    let kept = fs::read(&record).unwrap();
    // a key that is no governor's
    let key = ground.text("stranger");
    ground.run(&["credential", "new", "--algorithm", "ed25519", "--out", &key]).done();
    let text = record.to_str().unwrap();
    let sign = ["sign", "--key", &key, "--record", text, "--bundle", &bundle, "--without-store"];
    ground.recover(&[&sign[..], &["--yes"]].concat()).refused(&["is not a governor"]);
    // another cluster is meant
    let other = format!("0x{}", "11".repeat(32));
    let sign = ["sign", "--key", &key, "--record", text, "--bundle", &bundle, "--without-store"];
    ground
        .recover(&[&sign[..], &["--genesis", &other]].concat())
        .refused(&["is of cluster", &other]);
    // nobody says yes
    let store = ground.data(0).join("store");
    let sign = ["sign", "--as", "governor:1", "--record", text, "--bundle", &bundle, "--store"];
    let said = ground.recover(&[&sign[..], &[store.to_str().unwrap()]].concat());
    said.refused(&["Nobody is at a terminal", "--yes"]);
    // the governor's own copy of the store is of another time
    let earlier = ground.text("earlier/store");
    let sign = ["sign", "--as", "governor:1", "--record", text, "--bundle", &bundle, "--yes"];
    let said = ground.recover(&[&sign[..], &["--store", &earlier]].concat());
    said.refused(&["the certificate takes up", "and the newest of"]);
    // a record that is another's, torn, open to others, or lost
    let other = ground.governor(2, "record");
    let said = ground.recover(&[
        "sign",
        "--as",
        "governor:1",
        "--record",
        other.to_str().unwrap(),
        "--bundle",
        &bundle,
        "--without-store",
        "--yes",
    ]);
    said.refused(&["the record is of governor"]);
    fs::write(&record, &kept[..kept.len() / 2]).unwrap();
    ground.sign(1, "first", &[]).refused(&["is not a whole record", "record new --after"]);
    fs::remove_file(&record).unwrap();
    ground.sign(1, "first", &[]).refused(&["is missing", "nothing is signed"]);
    assert!(!record.exists());
    assert_eq!(content(&ground.path("first")), before);
    reset_record(ground, 1);
    let said = ground.recover(&["record", "new", "--as", "governor:1", "--out", text]);
    said.refused(&["exists"]);
}

fn releasing_and_starting_is_refused(ground: &Ground, first: &str) {
    let before = content(&ground.path("first"));
    let (bundle, record) = (ground.text("first"), ground.governor(1, "record"));
    let record = record.to_str().unwrap();
    let release = |key: &str| {
        let with =
            ["release", "--recovery-key", key, "--record", record, "--bundle", &bundle, "--yes"];
        ground.recover(&with)
    };
    let stranger = ground.text("stranger-recovery");
    ground.recover(&["key", "new", "--out", &stranger]).done();
    release(&stranger).refused(&["names no governor with this recovery key"]);
    release(&ground.text("stranger")).refused(&["is not a governor's recovery key"]);
    release(&ground.text("nowhere")).refused(&["cannot read", "nowhere"]);
    // the key of one governor with the record of another
    let other = ground.governor(2, "recovery-key");
    release(other.to_str().unwrap()).refused(&["the record is of governor"]);
    // a signature under another certificate, one cut short, and one that was changed
    let put = |name: &str, text: &str| {
        fs::write(ground.path("first/signatures").join(name), text).unwrap();
        let said = ground.release(1, "first", &[]);
        fs::remove_file(ground.path("first/signatures").join(name)).unwrap();
        said
    };
    let (_, foreign) = content(&ground.path("second/signatures")).pop().unwrap();
    let foreign = String::from_utf8(foreign).unwrap();
    put("x.json", &foreign).refused(&["x.json", "is under certificate", first]);
    put("x.json", &foreign[..40]).refused(&["x.json", "is not a signature"]);
    let second = Said::value(
        &ground.recover(&["show", "--bundle", &ground.text("second")]).done(),
        "certificate",
    );
    put("x.json", &foreign.replace(&second, first))
        .refused(&["x.json", "take it out of the bundle"]);
    assert_eq!(content(&ground.path("first")), before);
    // too few releases, and such as are for something else
    ground.hand_over("first", &[]).refused(&["0 of the governors released", "2 must"]);
    ground.release(1, "first", &[]).done();
    let node = ground.name(0);
    let releases = ground.path("first/nodes").join(node.as_str()).join("releases");
    let (_, own) = content(&releases).pop().unwrap();
    fs::write(releases.join("07.cbor"), &own).unwrap();
    fs::write(releases.join("08.cbor"), b"rubbish").unwrap();
    let words = ["1 of the governors released", "08.cbor"];
    ground.hand_over("first", &["--no-wait"]).refused(&words);
    fs::remove_file(releases.join("07.cbor")).unwrap();
    fs::remove_file(releases.join("08.cbor")).unwrap();
    for node in 0..3 {
        assert!(!ground.data(node).join("recovery/certificate.cbor").exists());
    }
}

/// The same snapshots, and the certificate as it was signed, with another enclave of the same image and node.
fn replaced_enclave_begins_nothing(ground: &mut Ground) {
    ground.kill(2, Part::Enclave);
    fs::remove_file(ground.data(2).join("recovery/offer.cbor")).unwrap();
    ground.start(2, Part::Enclave);
    ground.wait_for_offers();
    let words = ["its enclave is boot", "it was started anew since; certify again"];
    ground.hand_over("first", &[]).refused(&words);
    for node in 0..3 {
        assert!(!ground.data(node).join("recovery/certificate.cbor").exists());
    }
    // a host that hands it over all the same
    let recovery = ground.data(2).join("recovery");
    for name in ["snapshot.cbor", "tail.cbor"] {
        fs::copy(ground.path("first").join(name), recovery.join(name)).unwrap();
    }
    let node = ground.path("first/nodes").join(ground.name(2).as_str());
    fs::copy(node.join("blob.cbor"), recovery.join("blob.cbor")).unwrap();
    copy(&node.join("releases"), &recovery.join("releases"));
    fs::write(recovery.join("certificate.cbor"), signed(ground, "first")).unwrap();
    wait_until("the enclave has refused", || {
        let detail = ground.ready(2).map(|ready| format!("{ready:?}"));
        detail.is_some_and(|detail| detail.contains("names another boot"))
    });
    assert!(!ground.data(2).join("incarnation").exists());
}

/// A bundle's certificate with the signatures in it.
fn signed(ground: &Ground, bundle: &str) -> Vec<u8> {
    use casemate_proto::governance::NamedSignature;
    use casemate_proto::recovery::{RecoveryCertificate, SignedCertificate};
    use casemate_proto::{CredentialId, Hash32, cbor};
    let bytes = fs::read(ground.path(bundle).join("certificate.cbor")).unwrap();
    let certificate: RecoveryCertificate = cbor::decode(&bytes, bytes.len()).unwrap();
    let signatures =
        content(&ground.path(bundle).join("signatures")).into_iter().map(|(_, json)| {
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let credential =
                CredentialId(Hash32::from_hex(json["credential"].as_str().unwrap()).unwrap());
            let hex = json["signature"].as_str().unwrap();
            let signature = casemate_proto::ids::parse_hex("signature", hex).unwrap();
            NamedSignature { credential, signature }
        });
    let signatures = signatures.collect();
    cbor::encode(&SignedCertificate { certificate, signatures })
}

/// The majority that the certificate names begins; the node that missed it joins as after a restart.
fn others_begin_without_it_and_it_joins(ground: &mut Ground, first: &str) {
    let bundle = ground.text("first");
    let said = ground.with_nodes(&[0, 1], &["start", "--bundle", &bundle]).done();
    assert_eq!(said.matches("incarnation 1, FROZEN").count(), 2, "{said}");
    ground.with_nodes(&[0], &["join", "--incarnation", "1"]).refused(&["is not later"]);
    ground.with_nodes(&[2], &["join", "--incarnation", "1"]).done();
    assert!(ground.data(2).join("given-up-1/certificate.cbor").exists());
    assert!(!ground.data(2).join("recovery").exists());
    ground.kill(2, Part::Enclave);
    ground.start(2, Part::Enclave);
    (0..3).for_each(|node| ground.wait_until_whole(node));
    let status = ground.json(&["status"]);
    assert_eq!(status["incarnation"], 1);
    assert_eq!(status["freezes"][0]["id"], first);
    // handed over again, it changes nothing: a certificate begins one cluster
    let again = ground.hand_over("first", &[]).done();
    assert_eq!(again.matches("has begun").count(), 3, "{again}");
    ground.run(&["audit", "verify"]).done();
}
