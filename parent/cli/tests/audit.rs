//! `casemate audit`, run as a program over a store of a real ledger's log.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

#[path = "../../../shared/ledger/tests/kit/mod.rs"]
mod kit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use casemate_audit::note::{NoteSignature, SignedNote, UnixSeconds};
use casemate_audit::store::receipt_file;
use casemate_audit::{Checkpoint, InclusionReceipt, Origin, Record, StoreWriter, Tree};
use casemate_ledger::replay::Replayer;
use casemate_ledger::{Attachment, EntryBody, Verdict};
use casemate_proto::Scheme;
use casemate_proto::manifest::Hardware;
use ed25519_dalek::Signer;
use kit::{Kit, OTHER_PAYEE, PAYEE};
use serde_json::Value;

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("casemate-audit-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn file(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let file = folder.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

struct Made {
    folder: Folder,
    genesis: String,
    signature: String,
}

/// A log with a signature and a denial, in a folder, with the signature's receipt.
fn made(name: &str) -> Made {
    let mut kit = Kit::ready_with(|manifest| manifest.hardware = Hardware::OneProcess);
    let agent = kit.agent.clone();
    let request = kit.payment(PAYEE, 5_000_000);
    let Verdict::Allowed(allowed) = kit.ask(&agent, &request) else { panic!("allowed") };
    let signature = kit.sign_whole(Scheme::EcdsaSecp256k1, &allowed.digest);
    let (credential, request_id) = (agent.public.id(), request.request_id);
    kit.accept(EntryBody::Signed { credential, request_id, signature: signature.clone() });
    let signed = kit.state.size() - 1;
    let request = kit.payment(OTHER_PAYEE, 1);
    kit.ask(&agent, &request);

    let folder = Folder::new(name);
    let mut writer = StoreWriter::new(&casemate_proto::cbor::encode(&kit.genesis));
    let mut tree = Tree::new();
    for (_, attachment, leaf) in &kit.applied {
        let record = Record::parse(leaf).unwrap();
        writer.append(&record).unwrap();
        tree.append(record.leaf_hash());
        if let Some(Attachment::Policy(bytes)) = attachment {
            writer.attach(&Replayer::needs(&record).unwrap(), bytes);
        }
    }
    let note = cosigned(&kit);
    for (path, bytes) in writer.commit(&note).unwrap() {
        write(&folder.0, &path, &bytes);
    }
    let receipt = InclusionReceipt {
        leaf: kit.applied[signed as usize].2.clone(),
        proof: tree.inclusion_proof(signed, tree.size()).unwrap(),
        checkpoint: note.to_string(),
    };
    let (path, bytes) = receipt_file(signed, &receipt);
    write(&folder.0, &path, &bytes);
    Made { folder, genesis: kit.state.genesis().to_hex(), signature: hex::encode(signature) }
}

fn cosigned(kit: &Kit) -> SignedNote {
    let origin = Origin { genesis: kit.state.genesis(), incarnation: kit.state.incarnation() };
    let checkpoint = Checkpoint::new(&origin, kit.state.size(), kit.state.root());
    let time = UnixSeconds::from(kit.now);
    let message = checkpoint.cosignature_message(time);
    let lines: Vec<NoteSignature> = [0, 2]
        .iter()
        .map(|boot| {
            let secret = &kit.boots[*boot];
            let id = kit.genesis.boots[*boot].id();
            let key = origin.boot_key(&id, &secret.verifying_key().to_bytes()).unwrap();
            NoteSignature::cosignature(&key, time, &secret.sign(&message).to_bytes())
        })
        .collect();
    SignedNote::assemble(&checkpoint.body(), &lines).unwrap()
}

fn casemate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_casemate")).arg("audit").args(args).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn sound_store_of_the_named_cluster_is_verified() {
    let made = made("sound");
    let args = ["verify", "--store", made.folder.text(), "--genesis", &made.genesis];
    let output = casemate(&args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.starts_with("verified     yes\n"), "{out}");
    assert!(out.contains("signatures   1 on record, 1 of them with a receipt here"), "{out}");
    assert_eq!(err, "");
    let output = casemate(&[&args[..], &["--json"]].concat());
    let value = json(&output);
    assert_eq!(value["schema"], "casemate.audit.verify/1");
    assert_eq!(value["report"]["verified"], true);
    assert_eq!(value["genesis_pinned"], true);
    assert_eq!(value["report"]["counts"]["receipts"], 1);
}

#[test]
fn without_the_genesis_id_the_command_says_what_is_not_shown() {
    let made = made("unpinned");
    let output = casemate(&["verify", "--store", made.folder.text()]);
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("the genesis id was not given"));
}

#[test]
fn store_of_another_cluster_is_refused() {
    let made = made("other");
    let other = format!("0x{}", "11".repeat(32));
    let output = casemate(&["verify", "--store", made.folder.text(), "--genesis", &other]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not 0x1111"), "{}", text(&output.stderr));
}

#[test]
fn changed_record_is_named_with_its_index() {
    let made = made("changed");
    let bundle = fs::read_dir(made.folder.file("tile/entries/000.p")).unwrap().next().unwrap();
    let path = bundle.unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    // the last byte of the last record is the last of the root before it
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let args = ["verify", "--store", made.folder.text(), "--genesis", &made.genesis];
    let output = casemate(&args);
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    assert!(err.contains("not verified") && err.contains("· record "), "{err}");
    let value = json(&casemate(&[&args[..], &["--json"]].concat()));
    assert_eq!(value["report"]["verified"], false);
    assert_eq!(value["report"]["findings"][0]["finding"], "bad_record");
}

#[test]
fn what_is_no_store_is_an_error() {
    let folder = Folder::new("empty");
    for (args, said) in [
        (vec!["verify", "--store", folder.text()], "is that a store's folder?"),
        (vec!["verify", "--store", "/nowhere/at/all"], "cannot read `/nowhere/at/all`"),
        (vec!["show", "--store", folder.text()], "`checkpoint` is missing"),
    ] {
        let output = casemate(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

#[test]
fn records_are_shown_as_text_json_and_ocsf() {
    let made = made("show");
    let store = made.folder.text();
    let output = casemate(&["show", "--store", store]);
    let out = text(&output.stdout);
    assert!(out.contains("genesis"), "{out}");
    assert!(out.contains("by grant x402, key agent-7 m"), "{out}");
    assert!(out.contains("denied"), "{out}");
    assert!(text(&output.stderr).contains("not verified"));
    let all = out.lines().count();

    let output = casemate(&["show", "--store", store, "--json", "--from", "1", "--count", "2"]);
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["index"], 1);
    assert_eq!(text(&output.stderr), "");

    let output = casemate(&["show", "--store", store, "--ocsf"]);
    let out = text(&output.stdout);
    assert_eq!(out.lines().count(), all);
    let denied = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["status_id"] == 2)
        .expect("a denial");
    assert_eq!(denied["class_uid"], 6003);
    assert_eq!(denied["status_code"], "payee_not_listed");

    let output = casemate(&["show", "--store", store, "--kind", "signed"]);
    assert_eq!(text(&output.stdout).lines().count(), 1);
}

#[test]
fn i10_signature_without_a_record_is_named() {
    let made = made("reconcile");
    let seen = made.folder.file("seen.txt");
    let stranger = "33".repeat(65);
    let args = [
        "reconcile",
        "--store",
        made.folder.text(),
        "--genesis",
        &made.genesis,
        "--seen",
        seen.to_str().unwrap(),
    ];
    fs::write(&seen, format!("0x{}\n\n", made.signature)).unwrap();
    let output = casemate(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1 seen have a record, 0 have none; 0 on record"));

    fs::write(&seen, format!("{}\n{stranger}\n", made.signature)).unwrap();
    let output = casemate(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("NO RECORD        3333"));
    let value = json(&casemate(&[&args[..], &["--json"]].concat()));
    assert_eq!(value["reconciliation"]["unrecorded"].as_array().unwrap().len(), 1);

    fs::write(&seen, format!("{}\nnonsense\n", made.signature)).unwrap();
    let output = casemate(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("line 2: `nonsense` is not hex"));
}

#[test]
fn custody_under_another_root_than_the_manifests_is_refused() {
    let made = made("custody-root");
    let root = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../attestation/verify/roots/aws-nitro-enclaves-g1.pem"
    );
    let args = ["custody", "--store", made.folder.text(), "--genesis", &made.genesis];
    let output = casemate(&[&args[..], &["--trust-root", root]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("the manifest names another root"), "{said}");
    let nothing = casemate(&[&args[..], &["--trust-root", "/nowhere.pem"]].concat());
    assert_eq!(nothing.status.code(), Some(1));
    assert!(text(&nothing.stderr).contains("`/nowhere.pem`"), "{}", text(&nothing.stderr));
}

#[test]
fn custody_in_one_process_is_called_that() {
    let made = made("custody");
    let args = ["custody", "--store", made.folder.text(), "--genesis", &made.genesis];
    let output = casemate(&args);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(out.contains("one process, no hardware"), "{out}");
    assert!(out.contains("key agent-7: at most 20 usdc_base in any 24h"), "{out}");
    assert_eq!(out.matches('?').count(), 5, "{out}");
    let value = json(&casemate(&[&args[..], &["--json"]].concat()));
    assert_eq!(value["custody"]["hardware"], "one process, no hardware");
    assert_eq!(value["custody"]["split"], false);
    assert_eq!(value["log_verified"], true);
}
