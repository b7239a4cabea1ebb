//! Signatures, status, attestation and the store.

use super::*;

#[test]
fn sign_prints_a_signature_that_verifies_and_the_same_id_gives_the_same() {
    let setting = setting();
    let message = setting.message("hello");
    let args = ["sign", "--key", KEY, "--as", ALICE, "--message", &message];
    let output = setting.casemate(&args);
    exits(&output, 0);
    assert!(out(&output).starts_with("signature    0x"), "{}", out(&output));
    let receipt = setting.text("receipt.json");
    let args =
        [&args[..], &["--idempotency-key", "order-1", "--json", "--receipt", &receipt]].concat();
    let (first, second) = (setting.casemate(&args), setting.casemate(&args));
    exits(&first, 0);
    let value = json(&first);
    assert_eq!(value["outcome"], "signed");
    assert_eq!(value["signature"], json(&second)["signature"]);
    assert_eq!(value["signature"].as_str().unwrap().len(), 132);
    let kept: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    assert_eq!(kept["record"], value["receipt"]["record"]);
    assert_eq!(setting.fake.with(|world| world.signed.len()), 2);
}

#[test]
fn denied_pending_and_unsettled_have_statuses_of_their_own() {
    let setting = setting();
    let message = setting.message("hello");
    let args = ["sign", "--key", KEY, "--as", ALICE, "--message", &message, "--json"];
    setting.fake.each(|node| {
        let name = node.name.clone();
        node.answers = Some(Arc::new(move |world, _| {
            let node = &world.nodes[&name];
            let (stamp, body) = node.asked.last().unwrap();
            let code = DenialCode::LimitExceeded;
            Answer::Denied(Box::new(world.denial(node, (stamp, body), code)))
        }));
    });
    let output = setting.casemate(&args);
    exits(&output, 2);
    let value = json(&output);
    assert_eq!((&value["code"], &value["settled"]), (&"limit_exceeded".into(), &true.into()));

    setting.fake.lie(|_, _| Answer::Busy { retry_after: casemate_proto::Millis(1) });
    let output = setting.casemate(&[&args[..], &["--timeout", "1s"]].concat());
    exits(&output, 4);
    assert_eq!(json(&output)["settled"], false);

    let view = pending(&setting);
    setting.fake.lie(|_, _| {
        Answer::Pending(casemate_door::PendingAnswer {
            document: Hash32::new([1; 32]),
            grant: None,
            have: 0,
            need: 1,
            not_before: None,
            expires: UnixMillis(1),
        })
    });
    let signer = setting.path("alice.key");
    let alice = Credential::generate(Algorithm::Ed25519).unwrap();
    alice.create(&signer).unwrap();
    setting.fake.with(|world| {
        world.pending = vec![PendingRequestView { credential: alice.id(), ..view.clone() }];
    });
    let tx = setting.text("tx");
    let Payload::Tx { unsigned, .. } = SignRequest::parse(&view.body).unwrap().payload else {
        panic!()
    };
    std::fs::write(&tx, format!("0x{}\n", hex::encode(unsigned))).unwrap();
    let id = view.request_id.to_string();
    let output = setting.casemate(&[
        "sign",
        "--key",
        KEY,
        "--credential",
        signer.to_str().unwrap(),
        "--tx",
        &tx,
        "--request-id",
        &id,
    ]);
    exits(&output, 3);
    assert!(out(&output).starts_with("pending"), "{}", out(&output));
    assert!(err(&output).contains(&format!("casemate approve {id}")), "{}", err(&output));
}

#[test]
fn status_says_who_is_there_and_what_more_can_be_lost() {
    let setting = setting();
    let output = setting.casemate(&["status"]);
    exits(&output, 0);
    for part in [
        "boot         attested, current",
        "NONE IN FORCE",
        "one more node lost",
        "host says    NOT READY, failing: majority",
    ] {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    setting.fake.node(REGIONS[2], |node| {
        node.takeover = Some(Arc::new(|_, _| true));
    });
    let output = setting.casemate(&["status", "--json"]);
    exits(&output, 0);
    let value = json(&output);
    assert_eq!(value["survives_more_nodes_lost"], 0);
    assert_eq!(value["nodes"][2]["verified"], false);
    assert!(value["nodes"][2]["error"].as_str().unwrap().contains("not reachable"), "{value}");
    setting.fake.node(REGIONS[1], |node| {
        node.takeover = Some(Arc::new(|_, _| true));
    });
    let output = setting.casemate(&["status"]);
    exits(&output, 4);
    assert!(out(&output).contains("NOT VERIFIED"), "{}", out(&output));
    assert!(out(&output).contains("host says"), "{}", out(&output));
}

#[test]
fn attest_fetch_names_node_or_url_and_refuses_what_is_not_attested() {
    let setting = setting();
    let document = setting.text("document");
    let output = setting.casemate(&["attest", "fetch", "--node", REGIONS[1], "--out", &document]);
    exits(&output, 0);
    assert!(out(&output).contains(&format!("node {}", REGIONS[1])), "{}", out(&output));
    let (url, genesis, root) = setting.fake.with(|world| {
        let address = world.nodes[&kit::name(REGIONS[0])].address;
        (format!("http://{address}"), world.id.to_hex(), world.root_pem.clone())
    });
    let output = setting.casemate(&["attest", "fetch", "--node", &url, "--json"]);
    exits(&output, 0);
    assert_eq!(json(&output)["node"], REGIONS[0]);
    // by flags alone
    std::fs::write(setting.path("root.pem"), root).unwrap();
    let by_flags =
        ["attest", "fetch", "--node", &url, "--genesis", &genesis, "--trust-root", "root.pem"];
    exits(&setting.casemate(&by_flags), 0);
    // AWS's root is not the simulated one
    let output = setting.casemate(&by_flags[..6]);
    exits(&output, 1);
    assert!(err(&output).contains("root"), "{}", err(&output));
    let output = setting.casemate(&["attest", "fetch", "--node", "mars"]);
    exits(&output, 1);
    assert!(
        err(&output).contains("`mars`") && err(&output).contains(REGIONS[2]),
        "{}",
        err(&output)
    );
    setting.fake.node(REGIONS[1], |node| node.boot.nonce = [0; 32]);
    let nonce = setting.fake.with(|world| world.nodes[&kit::name(REGIONS[1])].boot.nonce);
    assert_eq!(nonce, [0; 32]);
    let host = casemate_sim::SimHost::new().unwrap();
    setting.fake.node(REGIONS[1], |node| {
        node.nsm = Arc::new(host.start(node.nsm.enclave().clone()));
    });
    let output = setting.casemate(&["attest", "fetch", "--node", REGIONS[1]]);
    exits(&output, 1);
    assert!(err(&output).contains("attestation is refused"), "{}", err(&output));
}

#[test]
fn audit_fetch_copies_a_store_and_goes_on_where_it_was_broken_off() {
    let setting = setting();
    pending(&setting);
    let message = setting.message("hello");
    exits(&setting.casemate(&["sign", "--key", KEY, "--as", ALICE, "--message", &message]), 0);
    setting.fake.with(|world| world.fetched.clear());
    let args = ["audit", "fetch", "--node", REGIONS[0], "--out", "store", "--json"];
    let output = setting.casemate(&args);
    exits(&output, 0);
    let store = setting.fake.with(|world| world.store());
    assert_eq!(json(&output)["size"], 4);
    for (path, bytes) in &store {
        if path != "checkpoint" && !path.starts_with("checkpoints/") {
            assert_eq!(&std::fs::read(setting.path("store").join(path)).unwrap(), bytes, "{path}");
        }
    }
    // one file is lost; nothing else is asked for again
    let tile = setting.path("store").join("tile/entries/000.p/4");
    std::fs::remove_file(&tile).unwrap();
    setting.fake.with(|world| world.fetched.clear());
    exits(&setting.casemate(&args), 0);
    assert!(tile.is_file());
    assert_eq!(
        setting.fake.with(|world| world.fetched.clone()),
        ["checkpoint", "tile/entries/000.p/4"]
    );
}
