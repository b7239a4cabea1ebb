//! Who waits for which answer.

use std::collections::BTreeMap;

use casemate_door::Ticket;

/// Most words that the parent was given and did not read; a parent that is further behind is cut off.
const MAX_TICKETS: usize = 8_192;
/// How many of freezers and governors beside them.
const MAX_URGENT: usize = 256;

/// Who asked what: the parent's tickets are its connection's own.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    next: u64,
    open: BTreeMap<Ticket, (u64, Ticket)>,
}

impl Tickets {
    /// One of ours for one of a connection's; none while too many wait.
    pub(crate) fn open(
        &mut self,
        connection: u64,
        theirs: Ticket,
        is_urgent: bool,
    ) -> Option<Ticket> {
        let most = if is_urgent { MAX_TICKETS.saturating_add(MAX_URGENT) } else { MAX_TICKETS };
        if self.open.len() >= most {
            return None;
        }
        let ours = Ticket(self.next);
        self.next = self.next.saturating_add(1);
        self.open.insert(ours, (connection, theirs));
        Some(ours)
    }
    /// The connection's own, if that is still the one that asked.
    pub(crate) fn close(&mut self, ours: Ticket, connection: u64) -> Option<Ticket> {
        let (of, theirs) = self.open.remove(&ours)?;
        (of == connection).then_some(theirs)
    }
    /// The connection is another: nobody hears the answers to what was asked on the former.
    pub(crate) fn close_all(&mut self) {
        self.open.clear();
    }
}
