//! One step: an entry, applied.

use casemate_audit::{Counter, Record, RecordFields};
use casemate_proto::ids::Hash32;
use casemate_proto::signature::VerifiedSignature;
use casemate_proto::stamp::VerifiedStamp;
use casemate_proto::{
    BootId, CredentialId, Denial, DenialCode, KeyName, NodeName, RequestId, Scheme, UnixMillis,
};

use crate::entry::{Attachment, Entry, EntryBody};
use crate::permit::Permit;
use crate::state::State;
use crate::verdict::Verdict;

/// The name of the cluster's own key that signs checkpoints.
pub const LOG_KEY: &str = "casemate.log";

/// An entry that a majority holds. Replication makes it, and nothing else may.
#[derive(Debug)]
pub struct Committed {
    entry: Entry,
    attachment: Option<Attachment>,
}

impl Committed {
    /// States that the entry is committed. Only replication knows that; an auditor that replays
    /// a log says it of what a cosigned checkpoint covers.
    #[must_use]
    pub const fn dangerous_assume(entry: Entry, attachment: Option<Attachment>) -> Self {
        Self { entry, attachment }
    }
    /// The entry.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }
    /// What travels beside it.
    #[must_use]
    pub const fn attachment(&self) -> Option<&Attachment> {
        self.attachment.as_ref()
    }
}

/// What whoever applies an entry has verified of it before: proofs, which only the checks make. Each is
/// compared with the entry whole, and saves nothing but doing the same again.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// A request's stamp, verified when the request came in.
    pub stamp: Option<VerifiedStamp>,
    /// The signature that is recorded, verified when it was made.
    pub signature: Option<VerifiedSignature>,
}

/// What a step makes a node do.
#[derive(Debug)]
pub enum Effect {
    /// Take part in signing.
    Sign(Permit),
    /// A request that was pending, allowed or denied now stands otherwise; answer who waits.
    Decided {
        /// Whose.
        credential: CredentialId,
        /// Which.
        request_id: RequestId,
    },
    /// A signature is in the log; answer who waits.
    SignatureRecorded {
        /// Whose.
        credential: CredentialId,
        /// Which.
        request_id: RequestId,
    },
    /// The governors confirmed the genesis.
    GenesisConfirmed,
    /// Take part in generating a key.
    GenerateKey {
        /// Its name.
        name: KeyName,
        /// Its scheme.
        scheme: Scheme,
    },
    /// A key's epoch is live: the pending share becomes current, older ones are deleted.
    KeyLive {
        /// Its name.
        name: KeyName,
        /// The epoch.
        epoch: u64,
        /// The transcript that the pending share must be of.
        transcript: Hash32,
    },
    /// A policy came into force.
    PolicyInForce {
        /// Its hash.
        policy: Hash32,
    },
    /// A freeze came into force.
    Frozen {
        /// Its id.
        freeze: Hash32,
    },
    /// A freeze was lifted.
    Unfrozen {
        /// Its id.
        freeze: Hash32,
    },
    /// A boot is its node's current one now.
    BootAdmitted {
        /// The node.
        node: NodeName,
        /// The boot.
        boot: BootId,
    },
    /// A boot is no longer current: close its channels, burn its runs.
    BootRetired {
        /// The node.
        node: NodeName,
        /// The boot.
        boot: BootId,
    },
    /// The version of `apply` rose.
    VersionRaised {
        /// To which.
        to: u64,
    },
}

/// What came of a step.
#[derive(Debug)]
pub struct Applied {
    /// The leaf.
    pub record: Record,
    /// What was decided.
    pub verdict: Verdict,
    /// What to do.
    pub effects: Vec<Effect>,
}

/// Why a step cannot be taken at all. The state is as before; a node that meets one halts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The ledger is at a version that this code does not have.
    #[error("the ledger is at version {ledger} of apply, and this program has {own}")]
    Version {
        /// The ledger's.
        ledger: u64,
        /// Ours.
        own: u64,
    },
    /// The record is too large: an entry beyond the caps was let in.
    #[error("the entry has no record: {0}")]
    Record(#[from] casemate_audit::RecordError),
}

impl State {
    /// Applies one committed entry.
    ///
    /// # Errors
    /// If this program cannot apply the ledger's next step at all.
    pub fn apply(&mut self, committed: &Committed) -> Result<Applied, StepError> {
        self.apply_knowing(committed, Known::default())
    }

    /// The same by whoever has verified something of the entry before. What comes of it is the same.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_knowing(
        &mut self,
        committed: &Committed,
        known: Known,
    ) -> Result<Applied, StepError> {
        if self.version > crate::APPLY_VERSION {
            return Err(StepError::Version { ledger: self.version, own: crate::APPLY_VERSION });
        }
        let entry = committed.entry();
        let encoded = entry.encode();
        if encoded.len() > crate::entry::MAX_ENTRY {
            return Err(StepError::Record(casemate_audit::RecordError::TooLarge {
                part: "entry",
                size: encoded.len(),
                max: crate::entry::MAX_ENTRY,
            }));
        }
        let index = self.size();
        let previous_root = self.root();
        let before = matches!(entry.body, EntryBody::Recover { .. })
            .then(|| Self::snapshot_hash(&self.to_snapshot()));
        let time = if casemate_proto::sabotaged!("time_goes_back") { entry.at } else { self.time };
        let now = entry.at.max(time);
        self.time = now;
        let mut step = Step {
            index,
            now,
            entry: entry.hash(),
            known,
            effects: Vec::new(),
            counters: Vec::new(),
        };
        let recovery = match (&entry.body, before) {
            (EntryBody::Recover { certificate }, Some(before)) => Some((certificate, before)),
            _ => None,
        };
        let verdict = if let Some((certificate, before)) = recovery {
            // what was due in the former incarnation is due no more
            let beside = committed.attachment();
            crate::recovery::apply_recover(
                self,
                certificate,
                beside,
                before,
                (time, now),
                &mut step.effects,
            )
        } else {
            crate::memory::forget_due(self, now);
            crate::governance::activate_due(self, now, &mut step.effects);
            crate::freeze::dead_man(self, now, &mut step.effects);
            self.decide(committed, &mut step)
        };
        let record = Record::new(RecordFields {
            index,
            time: now,
            kind: entry.body.kind().to_owned(),
            entry: encoded,
            verdict: casemate_proto::cbor::encode(&verdict),
            policy: self.policy.as_ref().map(|p| p.hash),
            counters: step.counters,
            previous_root,
        })?;
        self.tree.append(record.leaf_hash());
        self.note_root();
        Ok(Applied { record, verdict, effects: step.effects })
    }

    fn decide(&mut self, committed: &Committed, step: &mut Step) -> Verdict {
        let Step { index, now, .. } = *step;
        match &committed.entry().body {
            EntryBody::Genesis { id } if index == 0 && *id == self.genesis => Verdict::accepted(),
            EntryBody::Genesis { .. } => {
                refused("a genesis is the first entry, and this log's own")
            }
            _ if index == 0 => refused("the first entry is the genesis"),
            EntryBody::Request { stamp, body } => {
                crate::requests::apply_request(self, stamp, body, step)
            }
            EntryBody::Approval { body, proof } => {
                crate::approvals::apply_approval(self, body, proof, step)
            }
            EntryBody::Governance(signed) => crate::governance::apply_change(
                self,
                signed,
                committed.attachment(),
                index,
                now,
                &mut step.effects,
            ),
            EntryBody::Statement(signed) => {
                crate::freeze::apply_statement(self, signed, now, &mut step.effects)
            }
            EntryBody::KeyLive(live) => {
                crate::keys::apply_key_live(self, live, index, &mut step.effects)
            }
            EntryBody::Signed { credential, request_id, signature } => {
                crate::signatures::apply_signed(self, credential, request_id, signature, step)
            }
            EntryBody::Admit(boot) => {
                crate::admission::apply_admit(self, boot, now, &mut step.effects)
            }
            EntryBody::Tick => Verdict::accepted(),
            // taken before what is due: see `apply`
            EntryBody::Recover { .. } => refused("a recovery is no step of an incarnation"),
            EntryBody::RaiseVersion { to } => self.raise_version(*to, &mut step.effects),
        }
    }

    fn raise_version(&mut self, to: u64, effects: &mut Vec<Effect>) -> Verdict {
        if to <= self.version {
            return refused("the version is not above the current one");
        }
        if self.boots.values().any(|boot| boot.apply_version < to) {
            return refused("a current boot does not have that version");
        }
        self.version = to;
        effects.push(Effect::VersionRaised { to });
        Verdict::accepted()
    }
}

/// What the parts of one step share.
pub(crate) struct Step {
    pub(crate) index: u64,
    pub(crate) now: UnixMillis,
    pub(crate) entry: Hash32,
    pub(crate) known: Known,
    pub(crate) effects: Vec<Effect>,
    pub(crate) counters: Vec<Counter>,
}

fn refused(reason: &str) -> Verdict {
    Verdict::Denied(Denial::new(DenialCode::GovernanceRefused, reason))
}
