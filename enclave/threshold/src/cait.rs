//! A cait-sith protocol as one lane of a run.
//!
//! cait-sith's `Protocol` is a future on an executor of its own. Each `poke` yields one action; a
//! protocol is at rest when it says `Wait`. What all pokes of one step yield is gathered here into
//! one message for each receiver.

use cait_sith::protocol::{Action, InitializationError, Protocol, ProtocolError};

use crate::{
    error::{Abort, Misuse, RunError},
    party::PartyId,
    run::Io,
};

/// More actions than any step of an honest run has: two triples among 16 take some 5,000.
const MAX_ACTIONS: usize = 50_000;

pub(crate) struct Lane<T> {
    lane: u8,
    protocol: Option<Box<dyn Protocol<Output = T> + Send>>,
}

impl<T> Lane<T> {
    pub(crate) fn new<P>(
        lane: u8,
        protocol: Result<P, InitializationError>,
    ) -> Result<Self, RunError>
    where
        P: Protocol<Output = T> + Send + 'static,
    {
        let protocol = protocol.map_err(|e| Misuse::Library(e.to_string()))?;
        Ok(Self { lane, protocol: Some(Box::new(protocol)) })
    }

    /// Hands over a message whose sender, size and number have been checked.
    pub(crate) fn deliver(&mut self, from: PartyId, bytes: &mut Vec<u8>) {
        if let Some(protocol) = &mut self.protocol {
            protocol.message(from.to_cait_sith(), std::mem::take(bytes));
        }
    }

    /// Lets the protocol go until it waits; its output, once.
    pub(crate) fn drive(&mut self, io: &mut Io<'_>) -> Result<Option<T>, RunError> {
        let Some(protocol) = &mut self.protocol else { return Ok(None) };
        for _ in 0..MAX_ACTIONS {
            match protocol.poke().map_err(abort)? {
                Action::Wait => return Ok(None),
                Action::SendMany(bytes) => io.broadcast(self.lane, bytes),
                Action::SendPrivate(to, bytes) => {
                    let number = u16::try_from(u32::from(to)).unwrap_or(u16::MAX);
                    io.send(PartyId::new(number)?, self.lane, bytes);
                }
                Action::Return(output) => {
                    self.protocol = None;
                    return Ok(Some(output));
                }
            }
        }
        Err(RunError::Aborted { what: Abort::Restless })
    }
}

fn abort(error: ProtocolError) -> RunError {
    Abort::library(&error)
}
