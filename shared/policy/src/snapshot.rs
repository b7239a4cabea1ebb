//! Snapshots of the book: names in sorted tables, facts by their place in them.

use casemate_proto::{Amount, DerivationPath, Hash32, KeyName, PrincipalId, UnixMillis, cbor};
use minicbor::{Decode, Encode};

use crate::{
    book::{BookError, ChargeBook},
    charge::{Charge, ChargeKind, Slack},
    model::AssetKey,
};

#[derive(Encode, Decode)]
#[cbor(map)]
struct Snapshot {
    #[n(0)]
    version: u64,
    #[n(1)]
    slack: Slack,
    #[n(2)]
    cap: u64,
    #[n(3)]
    latest: UnixMillis,
    #[n(4)]
    chain: Hash32,
    #[n(5)]
    pruned: u64,
    #[n(6)]
    keys: Vec<KeyName>,
    #[n(7)]
    paths: Vec<DerivationPath>,
    #[n(8)]
    principals: Vec<PrincipalId>,
    #[n(9)]
    assets: Vec<Option<AssetKey>>,
    #[n(10)]
    facts: Vec<Row>,
    #[n(11)]
    unproven: UnixMillis,
}

#[derive(Encode, Decode)]
struct Row {
    #[n(0)]
    at: u64,
    #[n(1)]
    key: u32,
    #[n(2)]
    path: u32,
    #[n(3)]
    principal: u32,
    #[n(4)]
    asset: u32,
    #[n(5)]
    kind: ChargeKind,
    #[n(6)]
    amount: Amount,
}

const VERSION: u64 = 1;

impl ChargeBook {
    /// The book as bytes. Two books with one [`Self::root`] have the same bytes.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let (keys, key_places) = self.keys.table();
        let (paths, path_places) = self.paths.table();
        let (principals, principal_places) = self.principals.table();
        let (assets, asset_places) = self.assets.table();
        let facts = self.log.iter().filter_map(|fact| {
            Some(Row {
                at: fact.at,
                key: *key_places.get(&fact.key)?,
                path: *path_places.get(&fact.path)?,
                principal: *principal_places.get(&fact.principal)?,
                asset: *asset_places.get(&fact.asset)?,
                kind: fact.kind,
                amount: fact.amount,
            })
        });
        cbor::encode(&Snapshot {
            version: VERSION,
            slack: self.slack,
            cap: u64::try_from(self.cap).unwrap_or(u64::MAX),
            latest: self.latest,
            chain: self.chain,
            pruned: self.pruned,
            keys,
            paths,
            principals,
            assets,
            facts: facts.collect(),
            unproven: self.unproven,
        })
    }

    /// The book that these bytes, at most `max_bytes`, are a snapshot of.
    ///
    /// # Errors
    /// If they are not one, in its only form.
    pub fn from_snapshot(bytes: &[u8], max_bytes: usize) -> Result<Self, BookError> {
        let wrong = |reason| BookError::Snapshot { reason };
        let snapshot: Snapshot = cbor::decode(bytes, max_bytes)?;
        if snapshot.version != VERSION {
            return Err(wrong("it is of another version"));
        }
        let cap = usize::try_from(snapshot.cap).map_err(|_| wrong("its cap is too large"))?;
        if snapshot.facts.len() > cap {
            return Err(wrong("it holds more charges than its cap"));
        }
        let mut book = Self::with_cap(snapshot.slack, cap);
        let mut latest = 0;
        for row in &snapshot.facts {
            if row.at < latest || row.at > snapshot.latest.0 {
                return Err(wrong("its charges are not in the order of time"));
            }
            latest = row.at;
            let charge = Charge {
                at: UnixMillis(row.at),
                key: pick(&snapshot.keys, row.key)?,
                path: pick(&snapshot.paths, row.path)?,
                principal: pick(&snapshot.principals, row.principal)?,
                asset: pick(&snapshot.assets, row.asset)?,
                kind: row.kind,
                amount: row.amount,
            };
            book.push(&charge);
        }
        book.latest = snapshot.latest;
        book.chain = snapshot.chain;
        book.pruned = snapshot.pruned;
        book.unproven = snapshot.unproven;
        // tables unsorted, with repeats or with names that no charge uses come out otherwise
        if book.to_snapshot() != bytes {
            return Err(wrong("its tables are not in canonical form"));
        }
        Ok(book)
    }
}

fn pick<T: Clone>(table: &[T], place: u32) -> Result<T, BookError> {
    usize::try_from(place)
        .ok()
        .and_then(|place| table.get(place))
        .cloned()
        .ok_or(BookError::Snapshot { reason: "a charge names what is not in its tables" })
}
