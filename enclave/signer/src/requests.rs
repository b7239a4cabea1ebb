//! What is submitted from outside: checked before it may become an entry, answered when its entry
//! is applied or its signature is shown to be in the log.
//!
//! What fails authentication never becomes an entry. What this node can answer from its state (the
//! same request again) costs no entry either. Denials carry this boot's signature. Nothing waits
//! without a cap, and whoever does not fit is told to come back. What freezers and governors signed is
//! taken all the same: authenticated first, and with room of its own for those who wait.

use std::collections::BTreeMap;

use casemate_ledger::requests::Outcome;
use casemate_ledger::state::RequestStatus;
use casemate_ledger::{Attachment, EntryBody};
use casemate_proto::governance::{
    Change, FreezerStatement, MAX_CHANGE, MAX_POLICY, SignedChange, SignedStatement,
};
use casemate_proto::hash::{sha256, tagged_hash};
use casemate_proto::ids::Hash32;
use casemate_proto::stamp::{Stamp, VerifiedStamp};
use casemate_proto::{CredentialId, Denial, DenialCode, NodeName, RequestId, UnixMillis};

use crate::answer::{Answer, PendingAnswer, Submission, Ticket};
use crate::event::Output;
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::replies::RETRY_AFTER;

/// How many of those who change the policy or say stop may wait beside all that may wait at all.
pub(crate) const MAX_URGENT: usize = 64;

/// What a submission waits for.
pub(crate) type Subject = Hash32;

/// Somebody who waits for a request.
pub(crate) struct Waiter {
    pub(crate) ticket: Ticket,
    pub(crate) since: UnixMillis,
}

/// A request that somebody waits for.
pub(crate) struct Waiting {
    pub(crate) credential: CredentialId,
    pub(crate) request_id: RequestId,
    pub(crate) body: Vec<u8>,
    pub(crate) stamp: Option<Stamp>,
    /// The proof that the stamp was verified when it came.
    pub(crate) verified: Option<VerifiedStamp>,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) proposed_at: UnixMillis,
    /// Whether the entry is applied and only the signature is missing.
    pub(crate) applied: bool,
}

/// Anything else that somebody waits for: by the hash of its entry's body.
pub(crate) struct Other {
    pub(crate) ticket: Ticket,
    pub(crate) subject: Subject,
    pub(crate) credential: Option<CredentialId>,
    pub(crate) since: UnixMillis,
}

/// A signed request that waits for a cosigned checkpoint.
pub(crate) struct Proving {
    pub(crate) credential: CredentialId,
    pub(crate) request_id: RequestId,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) tickets: Vec<Ticket>,
}

/// Who waits for what.
#[derive(Default)]
pub(crate) struct Requests {
    /// By credential and SHA-256 of the body.
    pub(crate) waiting: BTreeMap<(CredentialId, Hash32), Waiting>,
    pub(crate) others: BTreeMap<Hash32, Vec<Other>>,
    pub(crate) proving: Vec<Proving>,
    /// When this node last asked for an entry that only moves the ledger's time.
    pub(crate) time_wanted_at: UnixMillis,
}

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.others.is_empty() && self.proving.is_empty()
    }
    pub(crate) fn len(&self) -> usize {
        let waiting: usize =
            self.waiting.values().fold(0, |sum, w| sum.saturating_add(w.waiters.len()));
        let others: usize = self.others.values().fold(0, |sum, o| sum.saturating_add(o.len()));
        let proving: usize =
            self.proving.iter().fold(0, |sum, p| sum.saturating_add(p.tickets.len()));
        waiting.saturating_add(others).saturating_add(proving)
    }
    /// Whether somebody waits for the proof of a signature.
    pub(crate) fn wants_proof(&self) -> bool {
        !self.proving.is_empty()
    }
}

pub(crate) fn other_key(body: &EntryBody) -> Hash32 {
    tagged_hash("casemate/submission/v1", &[&casemate_proto::cbor::encode(body)])
}

/// A policy comes beside the change that names it, and only there: an auditor must be able to
/// execute the entry again from what the store has under that name.
fn check_beside(signed: &SignedChange, beside: Option<&Attachment>) -> Result<(), String> {
    match (&signed.envelope.change, beside) {
        (Change::SetPolicy { policy }, Some(Attachment::Policy(canonical))) => {
            let parsed = casemate_policy::Policy::from_canonical(canonical)
                .map_err(|error| error.to_string())?;
            let found = parsed.policy_hash();
            if found == *policy {
                Ok(())
            } else {
                Err(format!("the policy that came is {found}, and the change names {policy}"))
            }
        }
        (Change::SetPolicy { policy }, _) => {
            Err(format!("the policy {policy} did not come with the change"))
        }
        (_, None) => Ok(()),
        (_, Some(_)) => Err("nothing belongs beside this change".to_owned()),
    }
}

impl Node {
    pub(crate) fn submit(&mut self, ticket: Ticket, submission: Submission, now: UnixMillis) {
        match submission {
            // who may say stop, or change what is signed, is heard however many others wait
            Submission::Statement(signed) => self.submit_statement(ticket, signed, now),
            Submission::Governance { signed, attachment } => {
                self.submit_change(ticket, signed, attachment, now);
            }
            _ if self.requests.len() >= self.config.max_waiting => self.busy(ticket),
            Submission::Request { stamp, body } => self.submit_request(ticket, stamp, body, now),
            Submission::Approval { .. } if self.publisher.is_full() => self.busy(ticket),
            Submission::Approval { body, proof } => {
                let credential = proof.credential();
                let subject = Hash32::new(sha256(&body));
                match self.state.authenticate_approval(&body, &proof, now) {
                    Ok(_) => {
                        let entry = EntryBody::Approval { body, proof };
                        self.propose_other(ticket, entry, None, subject, Some(credential), now);
                    }
                    Err(denial) => {
                        self.deny(ticket, Some(credential), subject, denial, None, now);
                    }
                }
            }
            Submission::Query { credential, request_id } => {
                self.query(ticket, credential, request_id, now);
            }
        }
    }

    fn submit_request(&mut self, ticket: Ticket, stamp: Stamp, body: Vec<u8>, now: UnixMillis) {
        let credential = stamp.credential;
        let subject = Hash32::new(sha256(&body));
        let deny = |node: &mut Self, denial: Denial| {
            node.deny(ticket, Some(credential), subject, denial, None, now);
        };
        let authentic = match self.state.authenticate(&stamp, &body, now) {
            Ok(authentic) => authentic,
            Err(denial) => return deny(self, denial),
        };
        let request_id = authentic.request().request_id;
        if let Some(known) = self.state.request(&credential, &request_id) {
            if known.body_hash != subject {
                return deny(
                    self,
                    Denial::new(
                        DenialCode::RequestIdReused,
                        format_args!(
                            "request id {request_id} was used for another body; a new request takes a new id"
                        ),
                    ),
                );
            }
            if !self.is_due_again(&credential, &request_id, now) {
                let body = Some(body);
                return self.answer_known(ticket, credential, request_id, subject, body, now);
            }
        }
        if self.is_frozen() {
            return deny(
                self,
                Denial::new(
                    DenialCode::Frozen,
                    "the cluster is frozen; the governance quorum can lift it",
                ),
            );
        }
        if self.state.is_rate_limited(&credential, now) {
            return deny(
                self,
                Denial::new(
                    DenialCode::RateLimited,
                    "too many denied requests of this credential in this minute",
                ),
            );
        }
        let unsigned = self.signing.len().saturating_add(self.requests.waiting.len());
        if unsigned >= self.config.max_unsigned || self.publisher.is_full() {
            return self.busy(ticket);
        }
        let verified = authentic.stamp().clone();
        self.wait_for_entry(ticket, request_id, (stamp, verified), body, now);
    }

    /// Whether asking again can change how a waiting request stands: its delay has passed, or the
    /// policy changed and made its approvals void.
    fn is_due_again(&self, credential: &CredentialId, id: &RequestId, now: UnixMillis) -> bool {
        let Some(Outcome::Pending(pending)) = self.state.outcome(credential, id, now) else {
            return false;
        };
        let policy = self.state.policy().map(|(_, hash)| hash);
        let needs = &pending.requirement;
        policy.is_some_and(|hash| hash != pending.policy)
            || (needs.not_before.is_some_and(|t| t <= now) && needs.have >= needs.needed)
    }

    fn wait_for_entry(
        &mut self,
        ticket: Ticket,
        request_id: RequestId,
        (stamp, verified): (Stamp, VerifiedStamp),
        body: Vec<u8>,
        now: UnixMillis,
    ) {
        let credential = stamp.credential;
        let key = (credential, Hash32::new(sha256(&body)));
        let waiter = Waiter { ticket, since: now };
        if let Some(waiting) = self.requests.waiting.get_mut(&key) {
            waiting.waiters.push(waiter);
            return;
        }
        let entry = EntryBody::Request { stamp: stamp.clone(), body: body.clone() };
        self.requests.waiting.insert(
            key,
            Waiting {
                credential,
                request_id,
                body,
                stamp: Some(stamp),
                verified: Some(verified),
                waiters: vec![waiter],
                proposed_at: now,
                applied: false,
            },
        );
        self.out.push(Output::Propose { body: entry, attachment: None, until: None });
    }

    /// A request that the state knows, with this very body: what stands is the answer.
    pub(crate) fn answer_known(
        &mut self,
        ticket: Ticket,
        credential: CredentialId,
        request_id: RequestId,
        subject: Hash32,
        body: Option<Vec<u8>>,
        now: UnixMillis,
    ) {
        let answer = match self.standing(&credential, &request_id) {
            None => Answer::Unknown,
            Some(Outcome::Expired) => {
                let denial = Denial::new(
                    DenialCode::Expired,
                    format_args!(
                        "request {request_id} was not signed in time and never will be; a new one takes a new id"
                    ),
                );
                Answer::Expired(Box::new(self.signed_denial(
                    Some(credential),
                    subject,
                    denial,
                    None,
                    now,
                )))
            }
            Some(Outcome::Lost) => {
                let denial = Denial::new(
                    DenialCode::OutcomeUnknown,
                    format_args!(
                        "request {request_id} was allowed before the cluster was recovered, and its signature may be in what was lost; look for it on its chain"
                    ),
                );
                return self.deny(ticket, Some(credential), subject, denial, None, now);
            }
            Some(Outcome::Denied(denial)) => {
                let (denial, index) = (
                    denial.clone(),
                    self.state.request(&credential, &request_id).map(|request| request.index),
                );
                return self.deny(ticket, Some(credential), subject, denial, index, now);
            }
            Some(Outcome::Pending(pending)) => {
                let needs = &pending.requirement;
                Answer::Pending(PendingAnswer {
                    document: pending.document,
                    grant: Some(needs.grant.clone()),
                    have: needs.have.into(),
                    need: needs.needed.into(),
                    not_before: needs.not_before,
                    expires: pending.expires,
                })
            }
            Some(Outcome::Signed { .. }) => {
                let tickets = vec![ticket];
                self.requests.proving.push(Proving { credential, request_id, body, tickets });
                return self.drive_checkpoints(now);
            }
            Some(Outcome::Allowed(_)) => {
                let Some(body) = body else {
                    return self.out.push(Output::Answer {
                        ticket,
                        answer: Answer::Busy { retry_after: RETRY_AFTER },
                    });
                };
                let waiter = Waiter { ticket, since: now };
                let waiting =
                    self.requests.waiting.entry((credential, subject)).or_insert_with(|| Waiting {
                        credential,
                        request_id,
                        body,
                        stamp: None,
                        verified: None,
                        waiters: Vec::new(),
                        proposed_at: now,
                        applied: true,
                    });
                waiting.waiters.push(waiter);
                return;
            }
        };
        self.out.push(Output::Answer { ticket, answer });
    }

    /// How a request stands by the ledger's time: what is `expired` here is so for ever. It is never said
    /// of what the former incarnation may have signed.
    fn standing(&self, credential: &CredentialId, id: &RequestId) -> Option<Outcome<'_>> {
        match &self.state.request(credential, id)?.status {
            RequestStatus::Allowed(allowed) if allowed.is_lost() => Some(Outcome::Lost),
            RequestStatus::Allowed(allowed)
                if self.state.time() > self.state.record_by(allowed) =>
            {
                Some(Outcome::Expired)
            }
            RequestStatus::Allowed(allowed) => Some(Outcome::Allowed(allowed)),
            _ => self.state.outcome(credential, id, self.state.time()),
        }
    }

    fn query(
        &mut self,
        ticket: Ticket,
        credential: CredentialId,
        request_id: RequestId,
        now: UnixMillis,
    ) {
        let subject = self
            .state
            .request(&credential, &request_id)
            .map_or(Hash32::new([0; 32]), |r| r.body_hash);
        self.answer_known(ticket, credential, request_id, subject, None, now);
    }

    fn submit_change(
        &mut self,
        ticket: Ticket,
        signed: SignedChange,
        attachment: Option<Attachment>,
        now: UnixMillis,
    ) {
        let subject = signed.envelope.id();
        let size = casemate_proto::cbor::encode(&signed).len();
        let beside = match &attachment {
            Some(Attachment::Policy(bytes)) => bytes.len(),
            Some(Attachment::Genesis(_) | Attachment::Recovery(_)) => usize::MAX,
            None => 0,
        };
        let refuse = |reason| Denial::new(DenialCode::GovernanceRefused, reason);
        // the quorum's signatures first: whoever is not they has no large policy parsed
        let refused = if size > MAX_CHANGE || beside > MAX_POLICY {
            Some(refuse(format!("the change has {size} bytes, and {beside} beside it")))
        } else {
            let changed = self.state.authenticate_change(&signed, now);
            let checked =
                changed.and_then(|()| check_beside(&signed, attachment.as_ref()).map_err(refuse));
            checked.err()
        };
        if let Some(denial) = refused {
            return self.deny(ticket, None, subject, denial, None, now);
        }
        self.propose_other(ticket, EntryBody::Governance(signed), attachment, subject, None, now);
    }

    fn submit_statement(&mut self, ticket: Ticket, signed: SignedStatement, now: UnixMillis) {
        let subject = signed.id();
        if let Err(denial) = self.state.authenticate_statement(&signed, now) {
            return self.deny(ticket, None, subject, denial, None, now);
        }
        self.obey_freeze(&signed, now);
        self.propose_other(ticket, EntryBody::Statement(signed), None, subject, None, now);
    }

    /// Obeys a valid freeze now, before it commits, and passes it on. Nothing is released until
    /// the entry is applied, and after that for as long as the freeze is in force. Whoever received
    /// it first may be cut off, so every node proposes it that does not see it applied in time.
    pub(crate) fn obey_freeze(&mut self, signed: &SignedStatement, now: UnixMillis) {
        let id = signed.id();
        if casemate_proto::sabotaged!("freeze_waits_for_commit")
            || !matches!(signed.statement, FreezerStatement::Freeze { .. })
            || self.early_freezes.contains_key(&id)
            || self.early_freezes.len() >= self.state.manifest().freezers.len().saturating_mul(4)
            || self.state.authenticate_statement(signed, now).is_err()
        {
            return;
        }
        self.early_freezes.insert(id, (signed.clone(), now));
        self.burn_signing(now);
        let others = self.roster.others();
        self.send_others(&others, &PeerMessage::Freeze(signed.clone()));
    }

    /// Tells a peer of the freezes that are obeyed here and not applied yet.
    pub(crate) fn pass_freezes_on(&mut self, to: &NodeName) {
        let early: Vec<SignedStatement> =
            self.early_freezes.values().map(|(signed, _)| signed.clone()).collect();
        for signed in early {
            self.send(to, &PeerMessage::Freeze(signed));
        }
    }

    fn propose_other(
        &mut self,
        ticket: Ticket,
        body: EntryBody,
        attachment: Option<Attachment>,
        subject: Subject,
        credential: Option<CredentialId>,
        now: UnixMillis,
    ) {
        let (key, most) = (other_key(&body), self.config.max_waiting.saturating_add(MAX_URGENT));
        let is_first = !self.requests.others.contains_key(&key);
        if self.requests.len() < most {
            let other = Other { ticket, subject, credential, since: now };
            self.requests.others.entry(key).or_default().push(other);
        } else {
            self.busy(ticket);
        }
        if is_first {
            self.out.push(Output::Propose { body, attachment, until: None });
        }
    }
}
