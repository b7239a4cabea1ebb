//! What people decide: approvals, keys, policies, freezes.

use super::*;

#[test]
fn approve_shows_what_is_approved_and_approves_only_what_makes_the_document() {
    let setting = setting();
    let view = pending(&setting);
    let id = view.request_id.to_string();
    let output = setting.casemate(&["requests", "show"]);
    exits(&output, 0);
    for part in [
        "2 eth",
        "0x3333333333333333333333333333333333333333",
        "treasury-eth, tier 1",
        "1 of @treasurers",
        ALICE,
    ] {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    // nobody at a terminal, and nobody said yes
    let output = setting.casemate(&["approve", &id, "--as", CAROL]);
    exits(&output, 1);
    assert!(err(&output).contains("--yes"), "{}", err(&output));
    assert!(setting.fake.with(|world| world.approved.is_empty()));
    // a node that shows another body than the document's, another expiry, another policy
    for (alter, named) in [("body", "document"), ("expires", "document"), ("request", "request")] {
        setting.fake.with(|world| {
            let shown = &mut world.pending[0];
            *shown = view.clone();
            match alter {
                "body" => {
                    let text = String::from_utf8(view.body.clone()).unwrap();
                    shown.body = text.replace("881bc16d674ec8", "881bc16d674ec9").into_bytes();
                }
                "expires" => shown.expires = UnixMillis(1),
                _ => {
                    shown.body = String::from_utf8(view.body.clone())
                        .unwrap()
                        .replace("0707", "0708")
                        .into_bytes()
                }
            }
        });
        let output = setting.casemate(&["approve", &id, "--as", CAROL, "--yes"]);
        exits(&output, 1);
        assert!(err(&output).contains(named), "{alter}: {}", err(&output));
    }
    assert!(setting.fake.with(|world| world.approved.is_empty()));
    setting.fake.with(|world| world.pending = vec![view.clone()]);
    let output = setting.casemate(&["approve", &id, "--as", CAROL, "--yes"]);
    exits(&output, 0);
    assert!(
        out(&output).contains("2 eth") && out(&output).ends_with("approved\n"),
        "{}",
        out(&output)
    );
    assert_eq!(setting.fake.with(|world| world.approved.len()), 1);
    let output = setting.casemate(&["approve", &id, "--as", CAROL, "--yes"]);
    exits(&output, 1);
    assert!(err(&output).contains("no request of that id waits"), "{}", err(&output));
}

#[test]
fn keys_are_listed_proved_and_made_by_the_governors_in_the_cluster_file() {
    let setting = setting();
    let output = setting.casemate(&["keys", "list", "--json"]);
    exits(&output, 0);
    let value = json(&output);
    assert_eq!(value["keys"][0]["name"], KEY);
    assert_eq!(
        value["keys"][0]["public_key"],
        format!("0x{}", hex::encode(setting.fake.with(|world| world.public_key())))
    );
    let args = ["keys", "create", "--scheme", "ecdsa-secp256k1", "--name", "deposit"];
    let output = setting.casemate(&args);
    exits(&output, 0);
    for part in ["key          deposit", "public key   0x", "address      0x"] {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    let output = setting.casemate(&["keys", "create", "--scheme", "rsa", "--name", "deposit"]);
    exits(&output, 1);
    assert!(err(&output).contains("bip340-secp256k1"), "{}", err(&output));
    setting.write_cluster(|file| file.credentials.clear());
    let output = setting.casemate(&args);
    exits(&output, 1);
    assert!(err(&output).contains("--governor FILE"), "{}", err(&output));
}

#[test]
fn policy_goes_from_its_text_over_signed_files_into_force() {
    let setting = setting();
    pending(&setting);
    let governor = setting.path("governor.key");
    setting.fake.with(|world| world.governor.create(&governor).unwrap());
    let bytes = setting.fake.with(|world| world.policy.clone().unwrap().1);
    let mut doc = Policy::from_canonical(&bytes).unwrap().doc().clone();
    let grant = doc.grants.values_mut().next().unwrap();
    *grant.max_fee_per_tx.values_mut().next().unwrap() = casemate_proto::Amount::from(1);
    let stricter = Policy::new(doc).unwrap();
    std::fs::write(setting.path("stricter.cbor"), stricter.canonical_bytes()).unwrap();

    let output = setting.casemate(&["policy", "propose", "stricter.cbor"]);
    exits(&output, 0);
    for part in
        ["tightens", "in force as soon as it is accepted", "1 of 1 governors", "change.cbor"]
    {
        assert!(out(&output).contains(part), "{part}: {}", out(&output));
    }
    let key = governor.to_str().unwrap();
    let output = setting.casemate(&[
        "policy",
        "sign",
        "change.cbor",
        "--key",
        key,
        "--policy",
        "stricter.cbor",
    ]);
    exits(&output, 1);
    assert!(err(&output).contains("--yes"), "{}", err(&output));
    let output = setting.casemate(&[
        "policy",
        "sign",
        "change.cbor",
        "--key",
        key,
        "--policy",
        "stricter.cbor",
        "--yes",
        "--out",
        "a.sig",
    ]);
    exits(&output, 0);
    let hash = stricter.policy_hash().to_string();
    assert!(out(&output).contains(&format!("sets policy {hash}")), "{}", out(&output));

    let output = setting.casemate(&["policy", "submit", "change.cbor", "a.sig"]);
    exits(&output, 1);
    assert!(err(&output).contains("is not among the files"), "{}", err(&output));
    let output = setting.casemate(&["policy", "submit", "change.cbor", "stricter.cbor", "a.sig"]);
    exits(&output, 0);
    assert!(out(&output).contains("in force     now"), "{}", out(&output));
    assert_eq!(setting.fake.with(|world| world.policy.clone().unwrap().0), stricter.policy_hash());
    // again: it is in force already, and no harm is done
    let output = setting.casemate(&["policy", "submit", "change.cbor", "stricter.cbor", "a.sig"]);
    exits(&output, 0);
    // a signature of somebody else, or under another change
    let stranger = Credential::generate(Algorithm::P256).unwrap();
    stranger.create(&setting.path("stranger.key")).unwrap();
    let args =
        ["policy", "sign", "change.cbor", "--key", "stranger.key", "--yes", "--out", "b.sig"];
    exits(&setting.casemate(&args), 0);
    let output = setting.casemate(&["policy", "submit", "change.cbor", "stricter.cbor", "b.sig"]);
    exits(&output, 1);
    assert!(err(&output).contains("not a governor"), "{}", err(&output));
    exits(&setting.casemate(&["policy", "propose", "stricter.cbor", "--out", "other.cbor"]), 0);
    let output = setting.casemate(&["policy", "submit", "other.cbor", "stricter.cbor", "a.sig"]);
    exits(&output, 1);
    assert!(err(&output).contains("it is under change"), "{}", err(&output));
}

#[test]
fn a_freeze_is_told_to_every_node_and_lifted_by_its_id() {
    let setting = setting();
    let output = setting.casemate(&["freeze", "--json"]);
    exits(&output, 0);
    let id = json(&output)["freeze"].as_str().unwrap().to_owned();
    let output = setting.casemate(&["status"]);
    exits(&output, 0);
    assert!(out(&output).contains(&format!("FROZEN       {id}")), "{}", out(&output));
    let output = setting.casemate(&["unfreeze", &id]);
    exits(&output, 0);
    assert!(!out(&output).contains("STILL FROZEN"), "{}", out(&output));
    assert!(setting.fake.with(|world| world.freezes.is_empty()));
    let output = setting.casemate(&["unfreeze", "0x12"]);
    exits(&output, 1);
    // the same freezer is heard, and has nothing to veto
    let output = setting.casemate(&["heartbeat"]);
    exits(&output, 0);
    assert!(out(&output).ends_with("heard\n"), "{}", out(&output));
    let output = setting.casemate(&["veto", &id]);
    exits(&output, 1);
    assert!(err(&output).contains("no such change waits"), "{}", err(&output));
}
