//! Replay: the same steps, run by an auditor over a store's records.

use casemate_audit::Record;
use casemate_proto::manifest::{GenesisRecord, MAX_GENESIS};

use crate::apply::{Applied, Committed, StepError};
use crate::entry::{Attachment, Entry, EntryBody};
use crate::state::{State, StateError};

/// Applies a log's entries again, from its genesis.
#[derive(Clone, Debug)]
pub struct Replayer {
    state: State,
    record: GenesisRecord,
}

/// Why a record cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Its entry is malformed.
    #[error("its entry is malformed: {0}")]
    Entry(#[from] casemate_proto::cbor::CborError),
    /// The step cannot be taken.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl Replayer {
    /// From the encoded genesis record.
    ///
    /// # Errors
    /// If it is malformed, contradicts itself, or its evidence is refused.
    pub fn from_genesis(bytes: &[u8]) -> Result<Self, StateError> {
        let record: GenesisRecord = casemate_proto::cbor::decode(bytes, MAX_GENESIS)?;
        Ok(Self { state: State::birth(&record)?, record })
    }

    /// The state so far.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The genesis record.
    #[must_use]
    pub const fn genesis(&self) -> &GenesisRecord {
        &self.record
    }

    /// Applies the entry of a record, with what travels beside it, and gives what this program
    /// makes of it; the caller compares.
    ///
    /// # Errors
    /// If the entry is malformed or the step cannot be taken.
    pub fn step(
        &mut self,
        record: &Record,
        attachment: Option<Attachment>,
    ) -> Result<Applied, ReplayError> {
        let entry = Entry::decode(&record.fields().entry)?;
        Ok(self.state.apply(&Committed::dangerous_assume(entry, attachment))?)
    }

    /// The hash of the policy that must travel beside a record's entry, if it is one that sets a
    /// policy.
    #[must_use]
    pub fn needs_policy(record: &Record) -> Option<casemate_proto::ids::Hash32> {
        use casemate_proto::governance::Change;
        match Entry::decode(&record.fields().entry).ok()?.body {
            EntryBody::Governance(signed) => match signed.envelope.change {
                Change::SetPolicy { policy } => Some(policy),
                _ => None,
            },
            _ => None,
        }
    }
}
