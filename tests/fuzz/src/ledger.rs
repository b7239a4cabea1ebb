//! Ledger entries, applied to a cluster that is ready to sign, and snapshots.

use std::sync::LazyLock;

use casemate_ledger::{Committed, Entry, EntryBody, State, Verdict};
use casemate_proto::UnixMillis;

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "ledger_entry", run: ledger_entry },
    Target { name: "ledger_snapshot", run: ledger_snapshot },
];

/// A cluster with keys and a policy, made by `tests/ledger_corpus.rs`.
static READY: LazyLock<Option<State>> =
    LazyLock::new(|| State::from_snapshot(include_bytes!("../corpus/ledger_snapshot/ready")).ok());

/// The cluster that entries are applied to.
#[must_use]
pub fn ready() -> Option<State> {
    READY.clone()
}

/// An entry is decoded strictly, and applying it is the same everywhere: it takes the log one
/// record further or leaves the state as it was, and time never goes back.
pub fn ledger_entry(data: &[u8]) {
    let Ok(entry) = Entry::decode(data) else { return };
    assert_eq!(entry.encode(), data, "encodes to other bytes");
    let (Some(mut one), Some(mut other)) = (ready(), ready()) else { return };
    let (before, size, time) = (one.to_snapshot(), one.size(), one.time());
    let committed = Committed::dangerous_assume(entry, None);
    let applied = one.apply(&committed);
    let again = other.apply(&committed);
    assert_eq!(one.to_snapshot(), other.to_snapshot(), "depends on more than state and entry");
    match (applied, again) {
        (Ok(applied), Ok(again)) => {
            assert_eq!(applied.record, again.record, "another record");
            assert_eq!(one.size().checked_sub(size), Some(1), "not one record further");
            assert!(one.time() >= time, "time went back");
            let signs = matches!(applied.verdict, Verdict::Allowed(_));
            assert!(signs || !applied.effects.iter().any(is_sign), "a permit without a verdict");
            let restored = State::from_snapshot(&one.to_snapshot());
            assert!(restored.is_ok_and(|state| state.root() == one.root()), "no way back");
        }
        (Err(_), Err(_)) => assert_eq!(one.to_snapshot(), before, "changed by a refused step"),
        (one, other) => assert_eq!(one.is_ok(), other.is_ok(), "applied once, refused once"),
    }
}

fn is_sign(effect: &casemate_ledger::apply::Effect) -> bool {
    matches!(effect, casemate_ledger::apply::Effect::Sign(_))
}

/// A snapshot that is accepted has one encoding, and goes on.
pub fn ledger_snapshot(data: &[u8]) {
    let Ok(mut state) = State::from_snapshot(data) else { return };
    assert!(state.to_snapshot() == data, "encodes to other bytes");
    let tick = Entry { at: UnixMillis(u64::MAX), body: EntryBody::Tick };
    if state.apply(&Committed::dangerous_assume(tick, None)).is_ok() {
        assert!(State::from_snapshot(&state.to_snapshot()).is_ok(), "no way back");
    }
}
