//! What is long goes in pieces, one transfer at a time between two boots.
//!
//! The sender hands all pieces of a transfer to the channel one behind the other, and a channel keeps
//! the order. So a receiver keeps one unfinished transfer for each peer and drops it when anything
//! but its next piece comes: whoever sent it sends it again.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use std::sync::{Mutex, PoisonError};

use casemate_proto::BootId;

use crate::Out;
use crate::wire::{MAX_PIECE, Message, VoteRecord, WHOLE_UP_TO};

/// Where messages to other boots leave.
#[derive(Debug)]
pub(crate) struct Outbox {
    out: mpsc::Sender<Out>,
    /// The number of the next transfer. Held while a message is handed over, so that the pieces of
    /// two transfers never mix.
    transfer: Mutex<u64>,
}

impl Outbox {
    pub(crate) const fn new(out: mpsc::Sender<Out>) -> Self {
        Self { out, transfer: Mutex::new(0) }
    }

    /// Hands a message over, whole or in pieces. `false` if there is no room: it is lost, as it might
    /// be on the way.
    pub(crate) fn send(&self, to: BootId, message: &Message) -> bool {
        let bytes = message.encode();
        let mut transfer = self.transfer.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() <= WHOLE_UP_TO {
            return self.put(to, bytes);
        }
        *transfer = transfer.saturating_add(1);
        let vote = match message {
            Message::Append { append, .. } => Some(append.vote),
            _ => None,
        };
        split(&bytes, *transfer, vote).all(|piece| self.put(to, piece.encode()))
    }

    fn put(&self, to: BootId, bytes: Vec<u8>) -> bool {
        match self.out.try_send(Out::Send { to, bytes }) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                tracing::warn!(%to, "a message is dropped: nobody takes what is sent");
                false
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

fn split(
    bytes: &[u8],
    transfer: u64,
    vote: Option<VoteRecord>,
) -> impl Iterator<Item = Message> + '_ {
    let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    bytes.chunks(MAX_PIECE).scan(0_u64, move |next, chunk| {
        let offset = *next;
        *next = next.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        Some(Message::Piece { transfer, total, offset, vote, bytes: chunk.to_vec() })
    })
}

/// The unfinished transfer of one peer.
#[derive(Debug, Default)]
pub(crate) struct Reassembly(Option<Unfinished>);

#[derive(Debug)]
struct Unfinished {
    transfer: u64,
    total: u64,
    bytes: Vec<u8>,
}

impl Reassembly {
    /// Takes a piece that was decoded, so within its caps. Gives the whole when it was the last.
    pub(crate) fn take(
        &mut self,
        transfer: u64,
        total: u64,
        offset: u64,
        piece: &[u8],
    ) -> Option<Vec<u8>> {
        if offset == 0 {
            self.0 = Some(Unfinished { transfer, total, bytes: Vec::new() });
        }
        let held = self.0.as_mut()?;
        let have = u64::try_from(held.bytes.len()).unwrap_or(u64::MAX);
        if (held.transfer, held.total, have) != (transfer, total, offset) {
            self.0 = None;
            return None;
        }
        held.bytes.extend_from_slice(piece);
        let have = u64::try_from(held.bytes.len()).unwrap_or(u64::MAX);
        if have < total {
            return None;
        }
        self.0.take().map(|done| done.bytes)
    }
}
