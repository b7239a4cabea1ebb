//! After an attack: the log as an auditor verifies it, held against what clients were given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use casemate_api::route;
use casemate_audit::store::GENESIS;
use casemate_audit::tile::{Tile, parse_bundle};
use casemate_audit::{Expectations, Record, verify_store};
use casemate_client::credential::random;
use casemate_dev::processes::api::RemoteStore;
use casemate_ledger::replay::Replayer;
use casemate_ledger::{Entry, EntryBody, Verdict};
use casemate_proto::request::SignRequest;
use casemate_proto::{CredentialId, DerivationPath, RequestId, UnixMillis};

use crate::field::{Field, LIMIT, TAU, wait_until};
use crate::load::Fate;

/// How long after the release of its last share a signature may be recorded: the way to the leader and
/// a change of leader.
const RECORDED_WITHIN: u64 = 15_000;

type Id = (CredentialId, RequestId);

/// What the log says of requests.
#[derive(Default)]
struct Log {
    /// Allowed ones, and when.
    allowed: BTreeMap<Id, (UnixMillis, DerivationPath)>,
    /// Signed ones, and when.
    signed: BTreeMap<Id, (UnixMillis, Vec<u8>)>,
}

impl Field {
    /// Verifies a node's whole store and everything that clients were given up to now. Of a round that
    /// was squeezed the limit is used up to the last unit.
    pub fn judge(&self, attack: &str, node: usize, squeezed: Option<u32>) {
        let since = Instant::now();
        self.settle();
        let log = self.verified_log(node);
        self.compare(&log);
        if let Some(round) = squeezed {
            assert_eq!(self.charged(&log, round), LIMIT, "{attack}");
        }
        let (signed, allowed) = (log.signed.len(), log.allowed.len());
        println!(
            "{attack}: {signed} signatures of {allowed} allowed requests, each in the log once; \
             verified at node {node} in {:.1?}",
            since.elapsed()
        );
    }

    /// How many entries a node has applied by now.
    fn applied(&self, node: usize) -> Option<u64> {
        let path = route::with_nonce(route::CLUSTER, &random());
        let (_, view) = self.runtime.block_on(self.api(node).get(&path, 1 << 20)).ok()?;
        serde_json::from_slice::<serde_json::Value>(&view).ok()?["cluster"]["size"].as_u64()
    }

    /// A node's store, verified as `casemate audit verify` does, once it has all that was applied.
    fn verified_log(&self, node: usize) -> Log {
        let sizes = (0..3).filter_map(|node| self.applied(node));
        let goal = sizes.max().expect("a node that says how much it has applied");
        let api = self.api(node);
        let store = RemoteStore::new(&api, &self.runtime);
        wait_until("the store has all of the log", || store.size().is_ok_and(|has| has >= goal));
        let files = store.copy().unwrap();
        let mut replay = Replayer::from_genesis(&files[GENESIS]).unwrap();
        let expectations = Expectations::of(self.file.genesis_id);
        let report = verify_store(&files, &expectations, &mut replay);
        assert!(report.is_verified(), "node {node}: {:?}", report.findings());
        let mut records = BTreeMap::new();
        for (path, bundle) in files.iter().filter(|(path, _)| path.starts_with("tile/entries/")) {
            for leaf in parse_bundle(Tile::parse(path).unwrap(), bundle).unwrap() {
                let record = Record::parse(leaf).unwrap();
                records.insert(record.index(), record);
            }
        }
        assert!(records.len() as u64 >= goal, "{} of {goal} records", records.len());
        let log = read(records.into_values());
        assert_eq!(log.signed.len(), report.signatures().len(), "the auditor counts them too");
        log
    }

    fn compare(&self, log: &Log) {
        let book = self.book.all();
        for (id, (at, signature)) in &log.signed {
            let given = book.get(id).expect("nobody asked for this");
            let (allowed_at, path) = log.allowed.get(id).expect("never allowed");
            assert_eq!(*path, given.request.path);
            assert!(!matches!(given.fate, Fate::Denied(_)), "denied, and signed: {given:?}");
            let took = at.since(*allowed_at).0;
            assert!(took <= TAU.0 + RECORDED_WITHIN, "signed {took} ms after its entry");
            if let Fate::Signed(held) = &given.fate {
                assert_eq!(held, signature, "two signatures for one request");
            }
        }
        let mut spent: BTreeMap<&DerivationPath, (u64, u64)> = BTreeMap::new();
        for (id, given) in &book {
            let (allowed, signed) = (log.allowed.contains_key(id), log.signed.contains_key(id));
            assert_eq!(signed, matches!(given.fate, Fate::Signed(_) | Fate::InStore), "{given:?}");
            let path = spent.entry(&given.request.path).or_default();
            path.0 += if allowed { given.usdt } else { 0 };
            path.1 += if signed { given.usdt } else { 0 };
        }
        for (path, (charged, signed)) in spent {
            assert!(signed <= charged && charged <= LIMIT, "{path}: {signed} of {charged}");
        }
    }

    /// What was allowed on a round's path.
    fn charged(&self, log: &Log, round: u32) -> u64 {
        let path = DerivationPath::new(&[round]).unwrap();
        let book = self.book.all();
        book.iter()
            .filter(|(id, given)| given.request.path == path && log.allowed.contains_key(id))
            .map(|(_, given)| given.usdt)
            .sum()
    }
}

fn read(records: impl Iterator<Item = Record>) -> Log {
    let mut log = Log::default();
    let mut indexes = BTreeSet::new();
    for record in records {
        assert!(indexes.insert(record.index()));
        let fields = record.fields();
        let verdict: Verdict =
            casemate_proto::cbor::decode(&fields.verdict, fields.verdict.len()).unwrap();
        match (Entry::decode(&fields.entry).unwrap().body, verdict) {
            (EntryBody::Request { stamp, body }, Verdict::Allowed(_)) => {
                let request = SignRequest::parse(&body).unwrap();
                let what = (fields.time, request.path);
                let id = (stamp.credential, request.request_id);
                assert!(log.allowed.insert(id, what).is_none(), "allowed twice");
            }
            (EntryBody::Signed { credential, request_id, signature }, Verdict::Accepted { .. }) => {
                let id = (credential, request_id);
                assert!(log.signed.insert(id, (fields.time, signature)).is_none(), "signed twice");
            }
            _ => {}
        }
    }
    log
}
