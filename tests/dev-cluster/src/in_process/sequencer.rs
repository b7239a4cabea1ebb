//! What stands in for replication: one order of entries, committed while a majority runs.
//!
//! In one process every running node has an entry as soon as it is appended, so appended by a
//! majority and committed are one step. Nothing is ever truncated.

use std::collections::VecDeque;

use casemate_ledger::{Attachment, Committed, Entry, EntryBody};
use casemate_proto::UnixMillis;
use casemate_proto::manifest::GenesisRecord;

/// Most proposals that wait; what is beyond is dropped, and whoever proposed it tries again.
const MAX_PROPOSALS: usize = 16_384;

pub(super) struct Sequencer {
    proposals: VecDeque<(EntryBody, Option<Attachment>)>,
    next: u64,
    time: UnixMillis,
}

/// States that an entry is committed: the sequencer alone knows.
pub(super) fn committed(entry: &Entry, attachment: Option<&Attachment>) -> Committed {
    Committed::dangerous_assume(entry.clone(), attachment.cloned())
}

impl Sequencer {
    /// Whose first entry is the genesis.
    pub(super) fn new(genesis: &GenesisRecord) -> Self {
        let body = EntryBody::Genesis { id: genesis.id() };
        let attachment = Attachment::Genesis(casemate_proto::cbor::encode(genesis));
        Self { proposals: VecDeque::from([(body, Some(attachment))]), next: 0, time: genesis.at }
    }

    pub(super) fn propose(&mut self, body: EntryBody, attachment: Option<Attachment>) {
        if self.proposals.len() < MAX_PROPOSALS {
            self.proposals.push_back((body, attachment));
        }
    }

    /// The entries that are committed now, with their indices; none unless more than half of all
    /// nodes run.
    pub(super) fn commit(
        &mut self,
        running: usize,
        all: usize,
        now: UnixMillis,
    ) -> Vec<(u64, Entry, Option<Attachment>)> {
        if running.saturating_mul(2) <= all {
            return Vec::new();
        }
        self.time = self.time.max(now);
        let at = self.time;
        std::mem::take(&mut self.proposals)
            .into_iter()
            .map(|(body, attachment)| {
                let index = self.next;
                self.next = self.next.saturating_add(1);
                (index, Entry { at, body }, attachment)
            })
            .collect()
    }
}
