//! A chain code that nobody chose: each party commits to 32 random bytes, reveals them when all
//! have committed, and the chain code is the hash of all.
//!
//! BIP-32 wants it uniform. It is public (auditors derive child keys with it), so the commitment
//! is there only to keep the last party from choosing. That all saw the same commitments and the
//! same revelations follows from the transcript's echo.

use std::collections::BTreeMap;

use casemate_proto::{Hash32, hash::tagged_hash};

use crate::{
    context::RunId,
    error::{Misbehaviour, RunError},
    message::LaneLimit,
    party::{Participants, PartyId},
    run::Io,
};

pub(crate) const COMMIT_LANE: u8 = 13;
pub(crate) const REVEAL_LANE: u8 = 14;

pub(crate) const COMMIT_LIMIT: LaneLimit =
    LaneLimit { lane: COMMIT_LANE, max_bytes: 32, broadcasts: 1, privates: 0 };
pub(crate) const REVEAL_LIMIT: LaneLimit =
    LaneLimit { lane: REVEAL_LANE, max_bytes: 32, broadcasts: 1, privates: 0 };

fn commitment(run: RunId, party: PartyId, contribution: &[u8; 32]) -> Hash32 {
    tagged_hash(
        "casemate/threshold/chain-commit/v1",
        &[run.0.as_bytes(), &party.number().to_be_bytes(), contribution],
    )
}

pub(crate) struct ChainCode {
    mine: [u8; 32],
    committed: bool,
    revealed: bool,
    commitments: BTreeMap<PartyId, Hash32>,
    revelations: BTreeMap<PartyId, [u8; 32]>,
}

impl ChainCode {
    pub(crate) const fn new(contribution: [u8; 32]) -> Self {
        Self {
            mine: contribution,
            committed: false,
            revealed: false,
            commitments: BTreeMap::new(),
            revelations: BTreeMap::new(),
        }
    }

    pub(crate) fn deliver(
        &mut self,
        from: PartyId,
        lane: u8,
        bytes: &[u8],
    ) -> Result<(), RunError> {
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| RunError::PeerMisbehaved {
            parties: vec![from],
            what: Misbehaviour::Undecodable,
        })?;
        if lane == COMMIT_LANE {
            self.commitments.insert(from, Hash32::new(bytes));
        } else {
            self.revelations.insert(from, bytes);
        }
        Ok(())
    }

    /// The chain code, once all parties' contributions are in and are what they committed to.
    pub(crate) fn drive(&mut self, io: &mut Io<'_>) -> Result<Option<[u8; 32]>, RunError> {
        let (me, run) = (io.me(), io.context().id());
        if !self.committed {
            self.committed = true;
            let mine = commitment(run, me, &self.mine);
            self.commitments.insert(me, mine);
            io.broadcast(COMMIT_LANE, mine.as_bytes().to_vec());
        }
        let participants = io.context().participants();
        if self.commitments.len() < participants.len() {
            return Ok(None);
        }
        if !self.revealed {
            self.revealed = true;
            self.revelations.insert(me, self.mine);
            io.broadcast(REVEAL_LANE, self.mine.to_vec());
        }
        self.combine(run, io.context().participants())
    }

    fn combine(
        &self,
        run: RunId,
        participants: &Participants,
    ) -> Result<Option<[u8; 32]>, RunError> {
        let mut parts: Vec<&[u8]> = vec![run.0.as_bytes()];
        for party in participants.parties() {
            let (Some(committed), Some(revealed)) =
                (self.commitments.get(&party), self.revelations.get(&party))
            else {
                return Ok(None);
            };
            if commitment(run, party, revealed) != *committed {
                return Err(RunError::PeerMisbehaved {
                    parties: vec![party],
                    what: Misbehaviour::ChainCodeMismatch,
                });
            }
            parts.push(revealed);
        }
        Ok(Some(*tagged_hash("casemate/threshold/chain-code/v1", &parts).as_bytes()))
    }
}
