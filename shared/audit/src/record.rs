//! A record: one applied ledger entry with what came of it, and a leaf of the tree.
//!
//! The leaf is the record's strict CBOR itself, so that whoever holds the leaves holds the whole
//! log and can execute it again. C2SP `tlog-tiles` bundles give a leaf's length in 16 bits: a leaf
//! has at most 65,535 bytes, and the caps of its parts below add up to less. What is larger than
//! an entry may be (a policy with thousands of grants) travels beside it as an *attachment*, bound
//! by a hash within the entry; the store keeps it beside the tiles.

use casemate_proto::{Amount, Hash32, UnixMillis, cbor};
use minicbor::{Decode, Encode};

use crate::merkle::leaf_hash;

/// Most bytes of a leaf: its length is given in 16 bits.
pub const MAX_LEAF: usize = 65_535;
/// Most bytes of an entry.
pub const MAX_ENTRY: usize = 53_248;
/// Most bytes of a verdict.
pub const MAX_VERDICT: usize = 4_096;
/// Most counters.
pub const MAX_COUNTERS: usize = 20;
/// Most bytes of a counter's scope.
pub const MAX_SCOPE: usize = 256;
/// Most characters of a kind.
pub const MAX_KIND: usize = 32;

/// The version of the encoding.
const VERSION: u8 = 1;

/// Why something is not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not strict CBOR of a record.
    #[error("not a record: {0}")]
    Cbor(#[from] cbor::CborError),
    /// Written by another version.
    #[error("the record has version {version}, where {VERSION} is known")]
    Version {
        /// The version found.
        version: u8,
    },
    /// A part is larger than it may be.
    #[error("the record's {part} has size {size} where at most {max} is allowed")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its size.
        size: usize,
        /// The most it may have.
        max: usize,
    },
    /// Not a kind's name.
    #[error("`{input}` is not an entry's kind: 1 to {MAX_KIND} characters of `a-z 0-9 _`")]
    BadKind {
        /// The beginning of the text.
        input: String,
    },
}

/// A limit's counter before and after the entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Counter {
    /// What is counted, in the ledger's words: asset, scope and window.
    #[n(0)]
    pub scope: String,
    /// The sum before, in base units.
    #[n(1)]
    pub before: Amount,
    /// The sum after, in base units.
    #[n(2)]
    pub after: Amount,
}

/// What a record says, not yet within its caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFields {
    /// Number of the leaf, from 0.
    pub index: u64,
    /// The ledger's time.
    pub time: UnixMillis,
    /// The entry's kind: `request`, `approval`, `policy`, …
    pub kind: String,
    /// The entry as it was applied.
    pub entry: Vec<u8>,
    /// What came of it.
    pub verdict: Vec<u8>,
    /// The policy in force, if there was one.
    pub policy: Option<Hash32>,
    /// The counters that the entry was judged by.
    pub counters: Vec<Counter>,
    /// The root of the tree over the records before this one.
    pub previous_root: Hash32,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u8,
    #[n(1)]
    index: u64,
    #[n(2)]
    time: UnixMillis,
    #[n(3)]
    kind: String,
    #[cbor(n(4), with = "minicbor::bytes")]
    entry: Vec<u8>,
    #[cbor(n(5), with = "minicbor::bytes")]
    verdict: Vec<u8>,
    #[n(6)]
    policy: Option<Hash32>,
    #[n(7)]
    counters: Vec<Counter>,
    #[n(8)]
    previous_root: Hash32,
}

/// A record within its caps, with its leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    fields: RecordFields,
    leaf: Vec<u8>,
}

impl Record {
    /// From what it says.
    ///
    /// # Errors
    /// If a part is larger than it may be, or the kind is no name.
    pub fn new(fields: RecordFields) -> Result<Self, RecordError> {
        check_caps(&fields)?;
        let wire = Wire {
            version: VERSION,
            index: fields.index,
            time: fields.time,
            kind: fields.kind.clone(),
            entry: fields.entry.clone(),
            verdict: fields.verdict.clone(),
            policy: fields.policy,
            counters: fields.counters.clone(),
            previous_root: fields.previous_root,
        };
        Ok(Self { leaf: cbor::encode(&wire), fields })
    }

    /// From a leaf.
    ///
    /// # Errors
    /// If the bytes are not the strict CBOR of a record of this version, within its caps.
    pub fn parse(leaf: &[u8]) -> Result<Self, RecordError> {
        let wire: Wire = cbor::decode(leaf, MAX_LEAF)?;
        if wire.version != VERSION {
            return Err(RecordError::Version { version: wire.version });
        }
        let fields = RecordFields {
            index: wire.index,
            time: wire.time,
            kind: wire.kind,
            entry: wire.entry,
            verdict: wire.verdict,
            policy: wire.policy,
            counters: wire.counters,
            previous_root: wire.previous_root,
        };
        check_caps(&fields)?;
        Ok(Self { fields, leaf: leaf.to_vec() })
    }

    /// What it says.
    #[must_use]
    pub const fn fields(&self) -> &RecordFields {
        &self.fields
    }
    /// Number of its leaf.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.fields.index
    }
    /// The leaf, at most [`MAX_LEAF`] bytes.
    #[must_use]
    pub fn leaf_bytes(&self) -> &[u8] {
        &self.leaf
    }
    /// The leaf's hash in the tree.
    #[must_use]
    pub fn leaf_hash(&self) -> Hash32 {
        leaf_hash(&self.leaf)
    }
}

fn check_caps(fields: &RecordFields) -> Result<(), RecordError> {
    let kind = &fields.kind;
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if kind.is_empty() || kind.len() > MAX_KIND || !kind.bytes().all(lower) {
        return Err(RecordError::BadKind { input: kind.chars().take(80).collect() });
    }
    let scope = fields.counters.iter().map(|counter| counter.scope.len()).max().unwrap_or(0);
    for (part, size, max) in [
        ("entry", fields.entry.len(), MAX_ENTRY),
        ("verdict", fields.verdict.len(), MAX_VERDICT),
        ("list of counters", fields.counters.len(), MAX_COUNTERS),
        ("counter's scope", scope, MAX_SCOPE),
    ] {
        if size > max {
            return Err(RecordError::TooLarge { part, size, max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> RecordFields {
        RecordFields {
            index: 3,
            time: UnixMillis(1_795_165_200_000),
            kind: "request".to_owned(),
            entry: vec![1, 2, 3],
            verdict: vec![4],
            policy: Some(Hash32::new([5; 32])),
            counters: vec![Counter {
                scope: "usdc_base key=agent-7 24h".to_owned(),
                before: Amount::from(1),
                after: Amount::from(2),
            }],
            previous_root: Hash32::new([6; 32]),
        }
    }

    #[test]
    fn record_survives_its_leaf() {
        for policy in [None, fields().policy] {
            let record = Record::new(RecordFields { policy, ..fields() }).unwrap();
            assert_eq!(Record::parse(record.leaf_bytes()), Ok(record.clone()));
            assert_eq!(record.leaf_hash(), leaf_hash(record.leaf_bytes()));
        }
    }

    #[test]
    fn largest_record_fits_a_leaf() {
        let counter =
            Counter { scope: "s".repeat(MAX_SCOPE), before: Amount::MAX, after: Amount::MAX };
        let record = Record::new(RecordFields {
            index: u64::MAX,
            time: UnixMillis(u64::MAX),
            kind: "k".repeat(MAX_KIND),
            entry: vec![0xff; MAX_ENTRY],
            verdict: vec![0xff; MAX_VERDICT],
            counters: vec![counter; MAX_COUNTERS],
            ..fields()
        })
        .unwrap();
        assert!(record.leaf_bytes().len() <= MAX_LEAF, "{}", record.leaf_bytes().len());
        assert_eq!(Record::parse(record.leaf_bytes()), Ok(record));
    }

    #[test]
    fn part_above_its_cap_is_refused() {
        let counter = fields().counters.remove(0);
        let long_scope = Counter { scope: "s".repeat(MAX_SCOPE + 1), ..counter.clone() };
        for (part, bad) in [
            ("entry", RecordFields { entry: vec![0; MAX_ENTRY + 1], ..fields() }),
            ("verdict", RecordFields { verdict: vec![0; MAX_VERDICT + 1], ..fields() }),
            (
                "list of counters",
                RecordFields { counters: vec![counter; MAX_COUNTERS + 1], ..fields() },
            ),
            ("counter's scope", RecordFields { counters: vec![long_scope], ..fields() }),
        ] {
            match Record::new(bad) {
                Err(RecordError::TooLarge { part: found, .. }) => assert_eq!(found, part),
                other => panic!("{part}: {other:?}"),
            }
        }
        for kind in ["", "Request", "a b", "é", &"k".repeat(33)] {
            let bad = RecordFields { kind: kind.to_owned(), ..fields() };
            assert!(matches!(Record::new(bad), Err(RecordError::BadKind { .. })), "{kind}");
        }
    }

    #[test]
    fn caps_hold_for_what_is_parsed_too() {
        let mut wire = Wire {
            version: VERSION,
            index: 0,
            time: UnixMillis(0),
            kind: "request".to_owned(),
            entry: vec![],
            verdict: vec![0; MAX_VERDICT + 1],
            policy: None,
            counters: vec![],
            previous_root: Hash32::new([0; 32]),
        };
        let parsed = Record::parse(&cbor::encode(&wire));
        assert!(matches!(parsed, Err(RecordError::TooLarge { part: "verdict", .. })));
        wire.verdict.clear();
        wire.version = 2;
        let parsed = Record::parse(&cbor::encode(&wire));
        assert_eq!(parsed, Err(RecordError::Version { version: 2 }));
        wire.version = VERSION;
        let mut leaf = cbor::encode(&wire);
        assert!(Record::parse(&leaf).is_ok());
        leaf.push(0);
        assert!(matches!(Record::parse(&leaf), Err(RecordError::Cbor(_))));
    }
}
