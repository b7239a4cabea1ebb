//! The n-of-n echo: everybody says what they saw, and one difference ends the run.
//!
//! Neither library makes a broadcast consistent. Each party hashes everything broadcast in the run
//! with the result (public key, chain code), sends the hash to all and waits for all.

use std::collections::BTreeMap;

use casemate_proto::Hash32;

use crate::{
    error::{Abort, Misbehaviour, RunError},
    message::LaneLimit,
    party::PartyId,
    run::{ECHO_LANE, Io},
};

pub(crate) const ECHO_LIMIT: LaneLimit =
    LaneLimit { lane: ECHO_LANE, max_bytes: 32, broadcasts: 1, privates: 0 };

pub(crate) struct Echo {
    mine: Option<Hash32>,
    theirs: BTreeMap<PartyId, Hash32>,
}

impl Echo {
    pub(crate) const fn new() -> Self {
        Self { mine: None, theirs: BTreeMap::new() }
    }

    pub(crate) fn deliver(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), RunError> {
        let hash = <[u8; 32]>::try_from(bytes).map_err(|_| RunError::PeerMisbehaved {
            parties: vec![from],
            what: Misbehaviour::Undecodable,
        })?;
        self.theirs.insert(from, Hash32::new(hash));
        Ok(())
    }

    /// Says `mine` once; whether everybody else said the same.
    pub(crate) fn drive(&mut self, io: &mut Io<'_>, mine: Hash32) -> Result<bool, RunError> {
        if self.mine.is_none() {
            self.mine = Some(mine);
            io.broadcast(ECHO_LANE, mine.as_bytes().to_vec());
        }
        for (party, theirs) in &self.theirs {
            if *theirs != mine {
                let (party, theirs) = (*party, *theirs);
                let what = Abort::EchoMismatch { party, theirs, ours: mine };
                return Err(RunError::Aborted { what });
            }
        }
        let others = io.context().participants().len().saturating_sub(1);
        Ok(self.theirs.len() == others)
    }
}
