//! A store of a real log is verified by executing it again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod kit;

use std::collections::BTreeMap;

use casemate_audit::note::{NoteSignature, SignedNote, UnixSeconds};
use casemate_audit::reconcile::{Seen, reconcile};
use casemate_audit::{
    Checkpoint, Expectations, Finding, Origin, Record, Report, StoreWriter, verify_store,
};
use casemate_ledger::replay::Replayer;
use casemate_ledger::take_up::{TakeUpError, take_up};
use casemate_ledger::{Attachment, EntryBody, State, Verdict};
use casemate_proto::Scheme;
use casemate_proto::request::Payload;
use ed25519_dalek::Signer;
use kit::{Kit, OTHER_PAYEE, PAYEE, second};

/// A grant of messages by a key `btc`.
const MESSAGES: &str = r#"
version = 1
name = "messages"
expires = "2027-06-01T00:00:00Z"

[[principal]]
id = "agent:research"
credentials = [{ alg = "ed25519", public_key = "$AGENT" }]

[[grant]]
id = "messages"
key = "btc"
principals = ["agent:research"]
allow = ["message"]
limits = [{ count = 2, window = "24h" }]
"#;

type Store = BTreeMap<String, Vec<u8>>;

/// A log with a signature, a denial, a pending request and a freeze; and the signature.
fn lived() -> (Kit, Vec<u8>) {
    let mut kit = Kit::ready();
    let (agent, operator) = (kit.agent.clone(), kit.operator.clone());
    let request = kit.payment(PAYEE, 5_000_000);
    let Verdict::Allowed(allowed) = kit.ask(&agent, &request) else { panic!("allowed") };
    let signature = kit.sign_whole(Scheme::EcdsaSecp256k1, &allowed.digest);
    kit.accept(EntryBody::Signed {
        credential: agent.public.id(),
        request_id: request.request_id,
        signature: signature.clone(),
    });
    let request = kit.payment(OTHER_PAYEE, 1);
    kit.ask(&agent, &request);
    let request = kit.payment(PAYEE, 50_000_000);
    kit.ask(&operator, &request);
    kit.pass(second(10));
    kit.freeze(3);
    (kit, signature)
}

fn cosigned(kit: &Kit, boots: &[usize]) -> SignedNote {
    let origin = Origin { genesis: kit.state.genesis(), incarnation: kit.state.incarnation() };
    let checkpoint = Checkpoint::new(&origin, kit.state.size(), kit.state.root());
    let time = UnixSeconds::from(kit.now);
    let message = checkpoint.cosignature_message(time);
    let lines: Vec<NoteSignature> = boots
        .iter()
        .map(|boot| {
            let id = kit.genesis.boots[*boot].id();
            let secret = &kit.boots[*boot];
            let key = origin.boot_key(&id, &secret.verifying_key().to_bytes()).unwrap();
            NoteSignature::cosignature(&key, time, &secret.sign(&message).to_bytes())
        })
        .collect();
    SignedNote::assemble(&checkpoint.body(), &lines).unwrap()
}

fn store(kit: &Kit, boots: &[usize]) -> Store {
    let mut writer = StoreWriter::new(&casemate_proto::cbor::encode(&kit.genesis));
    for (_, attachment, leaf) in &kit.applied {
        let record = Record::parse(leaf).unwrap();
        writer.append(&record).unwrap();
        if let Some(Attachment::Policy(bytes)) = attachment {
            writer.attach(&Replayer::needs(&record).unwrap(), bytes);
        }
    }
    writer.commit(&cosigned(kit, boots)).unwrap().into_iter().collect()
}

fn verify(kit: &Kit, store: &Store) -> Report {
    let mut replayer = Replayer::from_genesis(&store["genesis.cbor"]).unwrap();
    verify_store(store, &Expectations::of(kit.state.genesis()), &mut replayer)
}

#[test]
fn i10_log_is_verified_from_its_store_alone() {
    let (kit, signature) = lived();
    let report = verify(&kit, &store(&kit, &[0, 2]));
    assert!(report.is_verified(), "{:#?}", report.findings());
    assert_eq!(report.counts().replayed, kit.state.size());
    assert_eq!(report.counts().signatures, 1);
    assert_eq!(report.signatures()[0].signature, signature[..64]);
    let seen = [
        Seen::parse(&hex::encode(&signature)).unwrap(),
        Seen::parse(&hex::encode([7; 64])).unwrap(),
    ];
    let found = reconcile(seen, report.signatures());
    assert_eq!(found.recorded[0].index, report.signatures()[0].index);
    assert_eq!(found.unrecorded, [hex::encode([7; 64])[..80].to_owned()]);
}

#[test]
fn i10_bip340_signature_is_verified_from_the_store_and_reconciled() {
    let mut kit = Kit::wanting("btc", Scheme::Bip340Secp256k1);
    let live = kit.key_live("btc", Scheme::Bip340Secp256k1, 0);
    kit.accept(EntryBody::KeyLive(live));
    let policy = kit.policy(MESSAGES);
    kit.set_policy(&policy);
    let agent = kit.agent.clone();
    let request = kit.request("btc", Payload::Message(b"hello".to_vec()));
    let Verdict::Allowed(allowed) = kit.ask(&agent, &request) else { panic!("allowed") };
    let signature = kit.sign_whole(Scheme::Bip340Secp256k1, &allowed.digest);
    let credential = agent.public.id();
    let request_id = request.request_id;
    kit.accept(EntryBody::Signed { credential, request_id, signature: signature.clone() });

    let report = verify(&kit, &store(&kit, &[0, 2]));
    assert!(report.is_verified(), "{:#?}", report.findings());
    let [recorded] = report.signatures() else { panic!("{:?}", report.signatures()) };
    assert_eq!(recorded.scheme, Scheme::Bip340Secp256k1);
    assert_eq!(recorded.signature, signature.as_slice());
    assert_eq!(recorded.transaction, None);
    let seen = [hex::encode(&signature), hex::encode([7; 64])].map(|s| Seen::parse(&s).unwrap());
    let found = reconcile(seen, report.signatures());
    assert_eq!((found.recorded.len(), found.unrecorded.len(), found.not_seen), (1, 1, 0));
}

#[test]
fn one_cosigner_of_two_is_not_enough() {
    let (kit, _) = lived();
    let report = verify(&kit, &store(&kit, &[1]));
    assert!(matches!(report.findings(), [Finding::BadCheckpoint { .. }]));
}

#[test]
fn verdict_that_apply_does_not_give_is_named() {
    let (mut kit, _) = lived();
    // a denial that the host would like to be an approval, with all hashes made to fit
    let at = kit.applied.iter().position(|(entry, ..)| entry.body.kind() == "signed").unwrap() + 1;
    let mut tree = casemate_audit::Frontier::new();
    for (index, (_, _, leaf)) in kit.applied.iter_mut().enumerate() {
        let mut fields = Record::parse(leaf).unwrap().fields().clone();
        fields.previous_root = tree.root();
        if index == at {
            assert_ne!(fields.verdict, casemate_proto::cbor::encode(&Verdict::accepted()));
            fields.verdict = casemate_proto::cbor::encode(&Verdict::accepted());
        }
        let record = Record::new(fields).unwrap();
        tree.append(record.leaf_hash());
        *leaf = record.leaf_bytes().to_vec();
    }
    let honest = cosigned(&kit, &[0, 1]);
    let mut writer = StoreWriter::new(&casemate_proto::cbor::encode(&kit.genesis));
    for (_, attachment, leaf) in &kit.applied {
        let record = Record::parse(leaf).unwrap();
        writer.append(&record).unwrap();
        if let Some(Attachment::Policy(bytes)) = attachment {
            writer.attach(&Replayer::needs(&record).unwrap(), bytes);
        }
    }
    let origin = Origin { genesis: kit.state.genesis(), incarnation: kit.state.incarnation() };
    let forged = Checkpoint::new(&origin, tree.size(), tree.root());
    // the host has no key to sign with: it can only put old signatures under the new text
    let forged = SignedNote::assemble(&forged.body(), honest.signatures()).unwrap();
    let store: Store = writer.commit(&forged).unwrap().into_iter().collect();
    let report = verify(&kit, &store);
    let at = at as u64;
    assert!(matches!(
        &report.findings()[0],
        Finding::ReplayMismatch { index, reason } if *index == at && reason == "the verdict differs"
    ));
}

#[test]
fn policy_that_is_missing_or_another_is_found() {
    let (kit, _) = lived();
    let store = store(&kit, &[0, 1]);
    let path = store.keys().find(|path| path.starts_with("attachments/")).unwrap().clone();
    let mut gone = store.clone();
    gone.remove(&path);
    assert!(matches!(&verify(&kit, &gone).findings()[0], Finding::Missing { .. }));
    let mut other = store;
    other.get_mut(&path).unwrap()[10] ^= 1;
    assert!(matches!(&verify(&kit, &other).findings()[0], Finding::ReplayMismatch { .. }));
}

#[test]
fn ledger_is_taken_up_from_its_store_as_it_was() {
    let (kit, _) = lived();
    let store = store(&kit, &[0, 2]);
    let taken = take_up(&store).unwrap();
    assert_eq!(taken.snapshot, kit.state.to_snapshot());
    let name = taken.name();
    assert_eq!((name.size, name.root), (kit.state.size(), kit.state.root()));
    assert_eq!(name.state, State::snapshot_hash(&taken.snapshot));
    // whoever goes on from there proves every key and writes on where the store ends
    let genesis = &store["genesis.cbor"];
    let tail = StoreWriter::from_tail(genesis, &taken.tail, name.size, name.root).unwrap();
    assert_eq!(tail.writer.size(), kit.state.size());
    assert_eq!(tail.pinned.len(), kit.state.keys().len());
}

#[test]
fn ledger_is_not_taken_up_from_a_store_that_lacks_or_alters_a_record() {
    let (kit, _) = lived();
    let whole = store(&kit, &[0, 2]);
    let bundle = whole.keys().find(|path| path.starts_with("tile/entries/")).unwrap().clone();
    let mut lacking = whole.clone();
    lacking.remove(&bundle);
    assert!(matches!(take_up(&lacking), Err(TakeUpError::File { .. })));
    let mut altered = whole.clone();
    let bytes = altered.get_mut(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(take_up(&altered).is_err());
    let mut policyless = whole;
    policyless.retain(|path, _| !path.starts_with("attachments/"));
    assert!(matches!(take_up(&policyless), Err(TakeUpError::Record { .. })));
}
