//! Messages of runs that this node has not started yet.
//!
//! Nodes apply an entry at different moments, so a peer's first message may come before the run
//! exists here. Every sender has a budget of its own, so that one cannot crowd out another, and
//! what is not fetched in time goes.

use std::collections::BTreeMap;

use casemate_proto::{Millis, UnixMillis};

use crate::{
    context::RunId,
    error::Refusal,
    message::{MAX_MESSAGE_BYTES, peek_run},
    party::PartyId,
};

/// Why an early message was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EarlyError {
    /// Not an envelope.
    #[error("{0}")]
    Refused(Refusal),
    /// The sender has used up its share of the space.
    #[error("party {from} has {messages} messages of {bytes} bytes waiting, which is the most")]
    Full {
        /// Who sent it.
        from: PartyId,
        /// How many of its messages wait.
        messages: usize,
        /// Their bytes.
        bytes: usize,
    },
}

struct Early {
    from: PartyId,
    bytes: Vec<u8>,
    until: UnixMillis,
}

/// A bounded store of messages for runs to come.
#[derive(Default)]
pub struct EarlyMessages {
    runs: BTreeMap<RunId, Vec<Early>>,
    budgets: BTreeMap<PartyId, (usize, usize)>,
}

impl std::fmt::Debug for EarlyMessages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EarlyMessages").field("budgets", &self.budgets).finish_non_exhaustive()
    }
}

impl EarlyMessages {
    /// Most messages that wait for one sender.
    pub const MAX_MESSAGES: usize = 256;
    /// Most bytes that wait for one sender.
    pub const MAX_BYTES: usize = 4 * MAX_MESSAGE_BYTES;
    /// How long a message waits.
    pub const LIFETIME: Millis = Millis(10_000);

    /// Nothing waiting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a message that the channel authenticated as `from`'s until its run starts.
    ///
    /// # Errors
    /// If it is no envelope, or the sender's budget is used up.
    pub fn hold(
        &mut self,
        from: PartyId,
        bytes: Vec<u8>,
        now: UnixMillis,
    ) -> Result<(), EarlyError> {
        self.expire(now);
        let run = peek_run(&bytes).map_err(EarlyError::Refused)?;
        let (messages, total) = self.budgets.get(&from).copied().unwrap_or_default();
        let more = total.saturating_add(bytes.len());
        if messages >= Self::MAX_MESSAGES || more > Self::MAX_BYTES {
            return Err(EarlyError::Full { from, messages, bytes: total });
        }
        self.budgets.insert(from, (messages.saturating_add(1), more));
        let until = now.saturating_add(Self::LIFETIME);
        self.runs.entry(run).or_default().push(Early { from, bytes, until });
        Ok(())
    }

    /// Hands over what waits for a run that has just started, in the order of arrival.
    #[must_use]
    pub fn take(&mut self, run: RunId) -> Vec<(PartyId, Vec<u8>)> {
        let early = self.runs.remove(&run).unwrap_or_default();
        early
            .into_iter()
            .map(|message| {
                release(&mut self.budgets, &message);
                (message.from, message.bytes)
            })
            .collect()
    }

    /// Drops what has waited too long.
    pub fn expire(&mut self, now: UnixMillis) {
        let Self { runs, budgets } = self;
        runs.retain(|_, early| {
            early.retain(|message| {
                let keep = now <= message.until;
                if !keep {
                    release(budgets, message);
                }
                keep
            });
            !early.is_empty()
        });
    }
}

fn release(budgets: &mut BTreeMap<PartyId, (usize, usize)>, message: &Early) {
    if let Some((messages, bytes)) = budgets.get_mut(&message.from) {
        *messages = messages.saturating_sub(1);
        *bytes = bytes.saturating_sub(message.bytes.len());
        if *messages == 0 {
            budgets.remove(&message.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use casemate_proto::{Hash32, cbor};

    use super::*;
    use crate::message::{Chunk, RunMessage, VERSION};

    fn message(run: u8, size: usize) -> Vec<u8> {
        let party = PartyId::new(0).unwrap();
        cbor::encode(&RunMessage {
            version: VERSION,
            run: RunId(Hash32::new([run; 32])),
            from: party,
            to: party,
            sequence: 0,
            chunks: vec![Chunk { lane: 0, private: false, bytes: vec![0; size] }],
        })
    }

    #[test]
    fn early_messages_come_out_for_their_run_in_order() {
        let (a, b) = (PartyId::new(1).unwrap(), PartyId::new(2).unwrap());
        let mut early = EarlyMessages::new();
        early.hold(a, message(1, 1), UnixMillis(0)).unwrap();
        early.hold(b, message(2, 2), UnixMillis(0)).unwrap();
        early.hold(b, message(1, 3), UnixMillis(0)).unwrap();
        let run = RunId(Hash32::new([1; 32]));
        assert_eq!(early.take(run), [(a, message(1, 1)), (b, message(1, 3))]);
        assert!(early.take(run).is_empty());
    }

    #[test]
    fn i12_one_sender_cannot_crowd_out_another() {
        let (a, b) = (PartyId::new(1).unwrap(), PartyId::new(2).unwrap());
        let mut early = EarlyMessages::new();
        let mut held = 0;
        while early.hold(a, message(1, 1), UnixMillis(0)).is_ok() {
            held += 1;
        }
        assert_eq!(held, EarlyMessages::MAX_MESSAGES);
        assert!(early.hold(b, message(1, 1), UnixMillis(0)).is_ok());
        let mut early = EarlyMessages::new();
        let mut held = 0;
        while early.hold(a, message(1, MAX_MESSAGE_BYTES - 100), UnixMillis(0)).is_ok() {
            held += 1;
        }
        assert_eq!(held, 4);
    }

    #[test]
    fn i12_what_waits_too_long_goes_and_frees_its_budget() {
        let a = PartyId::new(1).unwrap();
        let mut early = EarlyMessages::new();
        while early.hold(a, message(1, 1), UnixMillis(0)).is_ok() {}
        assert!(early.hold(a, message(1, 1), UnixMillis(10_000)).is_err());
        assert!(early.hold(a, message(2, 1), UnixMillis(10_001)).is_ok());
        assert!(early.take(RunId(Hash32::new([1; 32]))).is_empty());
    }

    #[test]
    fn garbage_does_not_wait() {
        let a = PartyId::new(1).unwrap();
        let error = EarlyMessages::new().hold(a, vec![0xff; 9], UnixMillis(0)).unwrap_err();
        assert!(matches!(error, EarlyError::Refused(Refusal::Malformed(_))));
    }
}
