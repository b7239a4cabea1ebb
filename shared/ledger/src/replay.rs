//! Replay: the same steps, run by an auditor over a store's records. This is how
//! [`casemate_audit::verify_store`] executes a log again.

use std::collections::BTreeMap;

use casemate_audit::{Authority, Origin, Record, RecordedSignature, Replay, ReplayOutcome};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{GenesisRecord, MAX_GENESIS};

use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{CredentialId, RequestId, Scheme};
use casemate_tx::{EvmSignature, decode_evm};

use crate::apply::{Applied, Committed, LOG_KEY, StepError};
use crate::entry::{Attachment, Entry, EntryBody};
use crate::state::{AllowedRequest, RequestStatus, State, StateError};
use crate::verdict::Verdict;

/// Applies a log's entries again, from its genesis.
#[derive(Clone, Debug)]
pub struct Replayer {
    state: State,
    record: GenesisRecord,
    /// Unsigned transactions that may be signed yet: their hash is known once they are.
    transactions: BTreeMap<(CredentialId, RequestId), Vec<u8>>,
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
        Ok(Self { state: State::birth(&record)?, record, transactions: BTreeMap::new() })
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

    /// The name of what must travel beside a record's entry: a policy's hash where it sets one, a
    /// certificate's id where it is a recovery.
    #[must_use]
    pub fn needs(record: &Record) -> Option<Hash32> {
        use casemate_proto::governance::Change;
        match Entry::decode(&record.fields().entry).ok()?.body {
            EntryBody::Recover { certificate } => Some(certificate),
            EntryBody::Governance(signed) => match signed.envelope.change {
                Change::SetPolicy { policy } => Some(policy),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Replayer {
    /// Keeps the transaction of a request that may be signed.
    fn note_request(&mut self, body: &EntryBody, verdict: &Verdict) {
        let EntryBody::Request { stamp, body } = body else { return };
        if !matches!(verdict, Verdict::Allowed(_) | Verdict::Pending(_)) {
            return;
        }
        let Ok(request) = SignRequest::parse(body) else { return };
        if let Payload::Tx { unsigned, .. } = request.payload {
            self.transactions.insert((stamp.credential, request.request_id), unsigned);
        }
    }

    /// The signature that an accepted entry put on record.
    fn signature_of(
        &mut self,
        index: u64,
        body: &EntryBody,
        verdict: &Verdict,
    ) -> Option<RecordedSignature> {
        let EntryBody::Signed { credential, request_id, signature } = body else { return None };
        if !matches!(verdict, Verdict::Accepted { .. }) {
            return None;
        }
        let unsigned = self.transactions.remove(&(*credential, *request_id));
        let request = self.state.request(credential, request_id)?;
        let RequestStatus::Signed { allowed, .. } = &request.status else { return None };
        let AllowedRequest { key, digest, .. } = allowed;
        let (r_s, rest) = signature.split_first_chunk::<64>()?;
        let transaction = unsigned.and_then(|unsigned| {
            let signature = EvmSignature::new(r_s, rest.first() == Some(&1)).ok()?;
            Some(Hash32::new(decode_evm(&unsigned).ok()?.tx_hash(&signature)))
        });
        Some(RecordedSignature {
            index,
            scheme: self.state.keys().get(key)?.scheme,
            signature: *r_s,
            digest: Hash32::new(*digest),
            transaction,
        })
    }
}

impl Replay for Replayer {
    type Error = ReplayError;

    fn attachment(&self, record: &Record) -> Option<Hash32> {
        Self::needs(record)
    }

    fn apply(
        &mut self,
        record: &Record,
        attachment: Option<Vec<u8>>,
    ) -> Result<ReplayOutcome, ReplayError> {
        let body = Entry::decode(&record.fields().entry)?.body;
        let beside = match &body {
            EntryBody::Recover { .. } => Attachment::Recovery,
            _ => Attachment::Policy,
        };
        let applied = self.step(record, attachment.map(beside))?;
        self.note_request(&body, &applied.verdict);
        let signature = self.signature_of(applied.record.index(), &body, &applied.verdict);
        Ok(ReplayOutcome { record: applied.record, signatures: signature.into_iter().collect() })
    }

    fn authority(&self) -> Authority {
        let state = &self.state;
        let boots = state.manifest().nodes.iter().filter_map(|node| {
            Some((state.current_boot(&node.name)?, state.current_boot_key(&node.name)?))
        });
        let log_key = state
            .keys()
            .iter()
            .find(|(name, key)| name.as_str() == LOG_KEY && key.scheme == Scheme::Ed25519)
            .and_then(|(_, key)| key.live.as_ref())
            .and_then(|live| <[u8; 32]>::try_from(live.public_key.as_slice()).ok());
        Authority {
            origin: Origin { genesis: state.genesis(), incarnation: state.incarnation() },
            log_key,
            boots: boots.collect(),
            threshold: usize::try_from(state.manifest().threshold).unwrap_or(usize::MAX),
        }
    }
}
