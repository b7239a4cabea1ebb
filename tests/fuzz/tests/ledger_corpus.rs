//! The corpus of the ledger's targets comes from the ledger's own test kit:
//! `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test ledger_corpus` writes it. Its
//! attestation documents are new each time, so what is there is run and not compared.
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

use std::collections::BTreeSet;
use std::path::PathBuf;

use casemate_fuzz::ledger::ready;
use casemate_ledger::{Committed, Entry, EntryBody, Verdict};
use casemate_proto::governance::{Change, FreezerStatement};
use casemate_proto::request::Payload;
use casemate_proto::{CredentialId, Hash32, Scheme};
use kit::{Kit, PAYEE, key_name};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Entries that the cluster can meet next, by what they are.
fn entries(kit: &mut Kit) -> Vec<(&'static str, EntryBody)> {
    let (agent, operator) = (kit.agent.clone(), kit.operator.clone());
    let payment = kit.payment(PAYEE, 1_000_000);
    let over = kit.payment(PAYEE, 1_000_000_000);
    let hash = kit.request("agent-7", Payload::Hash([1; 32]));
    let message = kit.request("notary", Payload::Message(b"hello".to_vec()));
    let change = |kit: &Kit, change| EntryBody::Governance(kit.signed_change(change));
    let state = |kit: &Kit, statement| EntryBody::Statement(kit.statement(statement));
    let root = kit.state.root();
    let heartbeat = FreezerStatement::Heartbeat { size: kit.state.size(), root, pending: vec![] };
    let create = Change::CreateKey { name: key_name("spare"), scheme: Scheme::Ed25519 };
    let revoke = Change::RevokeCredential { credential: CredentialId(Hash32::new([4; 32])) };
    let measurement = kit::image(0x30);
    vec![
        ("payment", kit.request_entry(&agent, &payment)),
        ("over-cap", kit.request_entry(&agent, &over)),
        ("raw-hash", kit.request_entry(&agent, &hash)),
        ("message", kit.request_entry(&operator, &message)),
        ("approval", kit.approval(&operator, &agent, &payment, Hash32::new([3; 32]))),
        ("create-key", change(kit, create)),
        ("revoke", change(kit, revoke)),
        ("accept-image", change(kit, Change::AcceptImage { measurement })),
        ("policy-alone", change(kit, Change::SetPolicy { policy: Hash32::new([5; 32]) })),
        ("freeze", state(kit, FreezerStatement::Freeze { nonce: [6; 16] })),
        ("heartbeat", state(kit, heartbeat)),
        ("key-live", EntryBody::KeyLive(kit.key_live("agent-7", Scheme::EcdsaSecp256k1, 1))),
        (
            "signed",
            EntryBody::Signed {
                credential: agent.public.id(),
                request_id: payment.request_id,
                signature: vec![7; 65],
            },
        ),
        ("admit", EntryBody::Admit(kit.genesis.boots[0].clone())),
        ("raise-version", EntryBody::RaiseVersion { to: 2 }),
        ("genesis", EntryBody::Genesis { id: kit.state.genesis() }),
        ("recover", EntryBody::Recover { certificate: Hash32::new([7; 32]) }),
        ("tick", EntryBody::Tick),
    ]
}

fn write() {
    let mut kit = Kit::ready();
    let entry = |kit: &Kit, body| Entry { at: kit.now, body };
    for target in ["ledger_entry", "ledger_snapshot"] {
        std::fs::create_dir_all(folder(target)).unwrap();
    }
    std::fs::write(folder("ledger_snapshot").join("ready"), kit.state.to_snapshot()).unwrap();
    let unborn = Kit::unborn(|_| {}).state.to_snapshot();
    std::fs::write(folder("ledger_snapshot").join("unborn"), unborn).unwrap();
    for (name, body) in entries(&mut kit) {
        let bytes = entry(&kit, body).encode();
        std::fs::write(folder("ledger_entry").join(name), bytes).unwrap();
    }
    assert!(matches!(kit.pay(2_000_000), Verdict::Allowed(_)));
    kit.freeze(1);
    std::fs::write(folder("ledger_snapshot").join("frozen"), kit.state.to_snapshot()).unwrap();
}

/// Without a state to apply them to, and seeds that get past the first check, the targets would
/// try next to nothing.
#[test]
fn the_corpus_of_the_ledger_is_accepted_and_reaches_every_verdict() {
    if std::env::var_os("CASEMATE_WRITE_CORPUS").is_some() {
        write();
        return;
    }
    let mut verdicts = BTreeSet::new();
    for file in std::fs::read_dir(folder("ledger_entry")).unwrap() {
        let path = file.unwrap().path();
        let entry = Entry::decode(&std::fs::read(&path).unwrap());
        let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut state = ready().expect("the snapshot is of this version: write the corpus again");
        let applied = state.apply(&Committed::dangerous_assume(entry, None)).unwrap();
        println!("{}: {:?}", path.display(), applied.verdict);
        verdicts.insert(applied.verdict.name());
    }
    assert!(verdicts.is_superset(&["accepted", "allowed", "denied"].into()), "{verdicts:?}");
}
