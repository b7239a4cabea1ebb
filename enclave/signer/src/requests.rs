//! What is submitted from outside: checked before it may become an entry, answered when its entry
//! is applied or its signature is shown to be in the log.
//!
//! What fails authentication never becomes an entry. What this node can answer from its state (the
//! same request again) costs no entry either. Denials carry this boot's signature. Nothing waits
//! without a cap, and whoever does not fit is told to come back.

use std::collections::BTreeMap;

use casemate_ledger::EntryBody;
use casemate_ledger::payload::{self, Form};
use casemate_ledger::requests::Outcome;
use casemate_ledger::state::RequestStatus;
use casemate_ledger::{Attachment, Verdict};
use casemate_proto::governance::{
    Change, FreezerStatement, MAX_CHANGE, MAX_POLICY, SignedChange, SignedStatement,
};
use casemate_proto::hash::{sha256, tagged_hash};
use casemate_proto::ids::Hash32;
use casemate_proto::request::SignRequest;
use casemate_proto::stamp::Stamp;
use casemate_proto::{CredentialId, Denial, DenialCode, Millis, RequestId, Scheme, UnixMillis};
use casemate_tx::EvmSignature;

use crate::answer::{Answer, PendingAnswer, Signed, SignedDenial, Submission, Ticket};
use crate::node::{Node, Output, cap};
use crate::peer::PeerMessage;

/// What a client is told to wait when there is no room.
const RETRY_AFTER: Millis = Millis(1_000);
/// How long a submission waits for its entry to commit.
const COMMIT_PATIENCE: Millis = Millis(20_000);
/// How often a proposal is made again that has not committed.
const PROPOSE_AGAIN: Millis = Millis(5_000);
/// Most pending requests whose requirements are remembered for answers.
const MAX_REMEMBERED: usize = 4_096;

/// What a submission waits for.
type Subject = Hash32;

/// Somebody who waits for a request.
struct Waiter {
    ticket: Ticket,
    since: UnixMillis,
}

/// A request that somebody waits for.
struct Waiting {
    credential: CredentialId,
    request_id: RequestId,
    body: Vec<u8>,
    stamp: Option<Stamp>,
    waiters: Vec<Waiter>,
    proposed_at: UnixMillis,
    /// Whether the entry is applied and only the signature is missing.
    applied: bool,
}

/// Anything else that somebody waits for: by the hash of its entry's body.
struct Other {
    ticket: Ticket,
    subject: Subject,
    credential: Option<CredentialId>,
    since: UnixMillis,
}

/// A signed request that waits for a cosigned checkpoint.
struct Proving {
    credential: CredentialId,
    request_id: RequestId,
    body: Option<Vec<u8>>,
    tickets: Vec<Ticket>,
}

/// Who waits for what.
#[derive(Default)]
pub(crate) struct Requests {
    /// By credential and SHA-256 of the body.
    waiting: BTreeMap<(CredentialId, Hash32), Waiting>,
    others: BTreeMap<Hash32, Vec<Other>>,
    proving: Vec<Proving>,
    /// What was last said of pending requests.
    pending: BTreeMap<(CredentialId, RequestId), casemate_ledger::verdict::Pending>,
    /// When this node last asked for an entry that only moves the ledger's time.
    time_wanted_at: UnixMillis,
}

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.others.is_empty() && self.proving.is_empty()
    }
    fn len(&self) -> usize {
        let waiting: usize =
            self.waiting.values().fold(0, |sum, w| sum.saturating_add(w.waiters.len()));
        let others: usize = self.others.values().fold(0, |sum, o| sum.saturating_add(o.len()));
        let proving: usize =
            self.proving.iter().fold(0, |sum, p| sum.saturating_add(p.tickets.len()));
        waiting.saturating_add(others).saturating_add(proving)
    }
    /// The highest index of a signature whose proof somebody waits for.
    pub(crate) fn wants_proof(&self) -> bool {
        !self.proving.is_empty()
    }
}

fn other_key(body: &EntryBody) -> Hash32 {
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
        if self.requests.len() >= self.config.max_waiting {
            return self.busy(ticket);
        }
        match submission {
            Submission::Request { stamp, body } => self.submit_request(ticket, stamp, body, now),
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
            Submission::Governance { signed, attachment } => {
                self.submit_change(ticket, signed, attachment, now);
            }
            Submission::Statement(signed) => self.submit_statement(ticket, signed, now),
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
                let body = Some((stamp, body));
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
        self.wait_for_entry(ticket, credential, request_id, stamp, body, now);
    }

    /// Whether asking again can change how a waiting request stands: its delay has passed, or the
    /// policy changed and made its approvals void.
    fn is_due_again(&self, credential: &CredentialId, id: &RequestId, now: UnixMillis) -> bool {
        let Some(Outcome::Pending(pending)) = self.state.outcome(credential, id, now) else {
            return false;
        };
        let policy = self.state.policy().map(|(_, hash)| hash);
        let last = self.requests.pending.get(&(*credential, *id));
        policy.is_some_and(|hash| hash != pending.policy)
            || last.is_some_and(|p| p.not_before.is_some_and(|t| t <= now) && p.have >= p.need)
    }

    fn wait_for_entry(
        &mut self,
        ticket: Ticket,
        credential: CredentialId,
        request_id: RequestId,
        stamp: Stamp,
        body: Vec<u8>,
        now: UnixMillis,
    ) {
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
                waiters: vec![waiter],
                proposed_at: now,
                applied: false,
            },
        );
        self.out.push(Output::Propose { body: entry, attachment: None });
    }

    /// A request that the state knows, with this very body: what stands is the answer.
    fn answer_known(
        &mut self,
        ticket: Ticket,
        credential: CredentialId,
        request_id: RequestId,
        subject: Hash32,
        body: Option<(Stamp, Vec<u8>)>,
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
            Some(Outcome::Denied(denial)) => {
                let (denial, index) = (
                    denial.clone(),
                    self.state.request(&credential, &request_id).map(|request| request.index),
                );
                return self.deny(ticket, Some(credential), subject, denial, index, now);
            }
            Some(Outcome::Pending(pending)) => {
                let last = self.requests.pending.get(&(credential, request_id));
                Answer::Pending(PendingAnswer {
                    document: pending.document,
                    grant: last.map(|p| p.grant.clone()),
                    have: last.map_or(0, |p| p.have),
                    need: last.map_or(0, |p| p.need),
                    not_before: last.and_then(|p| p.not_before),
                    expires: pending.expires,
                })
            }
            Some(Outcome::Signed { .. }) => {
                let body = body.map(|(_, body)| body);
                let tickets = vec![ticket];
                self.requests.proving.push(Proving { credential, request_id, body, tickets });
                return self.drive_checkpoints(now);
            }
            Some(Outcome::Allowed(_)) => {
                let Some((_, body)) = body else {
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

    /// How a request stands by the ledger's time: what is `expired` here is so for ever.
    fn standing(&self, credential: &CredentialId, id: &RequestId) -> Option<Outcome<'_>> {
        match &self.state.request(credential, id)?.status {
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
            Some(Attachment::Genesis(_)) => usize::MAX,
            None => 0,
        };
        let refused = if size > MAX_CHANGE || beside > MAX_POLICY {
            Some(format!("the change has {size} bytes, and {beside} beside it"))
        } else {
            check_beside(&signed, attachment.as_ref()).err()
        };
        let refused = refused
            .map(|reason| Denial::new(DenialCode::GovernanceRefused, reason))
            .or_else(|| self.state.authenticate_change(&signed, now).err());
        if let Some(denial) = refused {
            return self.deny(ticket, None, subject, denial, None, now);
        }
        if self.publisher.is_full() {
            return self.busy(ticket);
        }
        self.propose_other(ticket, EntryBody::Governance(signed), attachment, subject, None, now);
    }

    fn submit_statement(&mut self, ticket: Ticket, signed: SignedStatement, now: UnixMillis) {
        let subject = signed.id();
        if let Err(denial) = self.state.authenticate_statement(&signed, now) {
            return self.deny(ticket, None, subject, denial, None, now);
        }
        self.obey_freeze(&signed, true, now);
        self.propose_other(ticket, EntryBody::Statement(signed), None, subject, None, now);
    }

    fn check_statement(&self, signed: &SignedStatement) -> Result<(), String> {
        if signed.genesis != self.state.genesis() || signed.incarnation != self.state.incarnation()
        {
            return Err("the statement is for another cluster or another incarnation".to_owned());
        }
        signed.verify(self.state.manifest()).map(drop).map_err(|error| error.to_string())
    }

    /// Obeys a valid freeze now, before it commits, and passes it on. Nothing is released until
    /// the entry is applied, and after that for as long as the freeze is in force.
    pub(crate) fn obey_freeze(
        &mut self,
        signed: &SignedStatement,
        first_hand: bool,
        now: UnixMillis,
    ) {
        let id = signed.id();
        if !matches!(signed.statement, FreezerStatement::Freeze { .. })
            || self.early_freezes.contains_key(&id)
            || self.state.freezes().contains_key(&id)
            || self.state.is_lifted(&id)
            || self.early_freezes.len() >= self.state.manifest().freezers.len().saturating_mul(4)
            || self.check_statement(signed).is_err()
        {
            return;
        }
        self.early_freezes.insert(id, (signed.clone(), now));
        self.burn_signing(now);
        let others = self.roster.others();
        self.send_others(&others, &PeerMessage::Freeze(signed.clone()));
        if !first_hand {
            // whoever received it first may be cut off: this node proposes it too
            let body = EntryBody::Statement(signed.clone());
            self.out.push(Output::Propose { body, attachment: None });
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
        let waiting = self.requests.others.entry(other_key(&body)).or_default();
        let is_first = waiting.is_empty();
        waiting.push(Other { ticket, subject, credential, since: now });
        if is_first {
            self.out.push(Output::Propose { body, attachment });
        }
    }

    fn busy(&mut self, ticket: Ticket) {
        let answer = Answer::Busy { retry_after: RETRY_AFTER };
        self.out.push(Output::Answer { ticket, answer });
    }

    fn signed_denial(
        &self,
        credential: Option<CredentialId>,
        subject: Subject,
        denial: Denial,
        index: Option<u64>,
        now: UnixMillis,
    ) -> SignedDenial {
        let boot = self.boot_id;
        let mut signed =
            SignedDenial { credential, subject, denial, at: now, index, boot, signature: [0; 64] };
        signed.signature = self.boot.sign(&signed.signing_bytes(&self.state.genesis()));
        signed
    }

    fn deny(
        &mut self,
        ticket: Ticket,
        credential: Option<CredentialId>,
        subject: Subject,
        denial: Denial,
        index: Option<u64>,
        now: UnixMillis,
    ) {
        let denial = self.signed_denial(credential, subject, denial, index, now);
        self.out.push(Output::Answer { ticket, answer: Answer::Denied(Box::new(denial)) });
    }

    /// An entry is applied: whoever waited for it and needs nothing more is answered.
    pub(crate) fn answer_entry(
        &mut self,
        body: &EntryBody,
        index: u64,
        verdict: &Verdict,
        now: UnixMillis,
    ) {
        if let Verdict::Pending(pending) = verdict {
            self.remember_pending(body, pending);
        }
        if let EntryBody::Request { stamp, body } = body {
            let key = (stamp.credential, Hash32::new(sha256(body)));
            return self.answer_request(key, index, verdict, now);
        }
        let Some(waiting) = self.requests.others.remove(&other_key(body)) else { return };
        for other in waiting {
            match verdict {
                Verdict::Denied(denial) => self.deny(
                    other.ticket,
                    other.credential,
                    other.subject,
                    denial.clone(),
                    Some(index),
                    now,
                ),
                _ => {
                    let verdict = verdict.clone();
                    let answer = Answer::Accepted { index, verdict };
                    self.out.push(Output::Answer { ticket: other.ticket, answer });
                }
            }
        }
    }

    fn remember_pending(&mut self, body: &EntryBody, pending: &casemate_ledger::verdict::Pending) {
        let key = match body {
            EntryBody::Request { stamp, body } => {
                SignRequest::parse(body).ok().map(|r| (stamp.credential, r.request_id))
            }
            EntryBody::Approval { body, .. } => casemate_proto::request::ApprovalBody::parse(body)
                .ok()
                .map(|a| (a.credential, a.request_id)),
            _ => None,
        };
        if let Some(key) = key {
            self.requests.pending.insert(key, pending.clone());
            cap(&mut self.requests.pending, MAX_REMEMBERED);
        }
    }

    fn answer_request(
        &mut self,
        key: (CredentialId, Hash32),
        index: u64,
        verdict: &Verdict,
        now: UnixMillis,
    ) {
        let Some(waiting) = self.requests.waiting.get_mut(&key) else { return };
        let (credential, request_id) = (waiting.credential, waiting.request_id);
        match verdict {
            Verdict::Allowed(_) => waiting.applied = true,
            Verdict::Denied(denial) => {
                let denial = denial.clone();
                let Some(waiting) = self.requests.waiting.remove(&key) else { return };
                for waiter in waiting.waiters {
                    let (subject, at) = (key.1, Some(index));
                    self.deny(waiter.ticket, Some(credential), subject, denial.clone(), at, now);
                }
            }
            Verdict::Pending(_) | Verdict::Repeated { .. } | Verdict::Accepted { .. } => {
                let Some(waiting) = self.requests.waiting.remove(&key) else { return };
                for waiter in waiting.waiters {
                    let body = waiting.stamp.clone().map(|stamp| (stamp, waiting.body.clone()));
                    self.answer_known(waiter.ticket, credential, request_id, key.1, body, now);
                }
            }
        }
    }

    /// A signature is in the log: who waits for it now waits for the proof.
    pub(crate) fn wait_for_receipt(&mut self, credential: CredentialId, request_id: RequestId) {
        let Some(request) = self.state.request(&credential, &request_id) else { return };
        let key = (credential, request.body_hash);
        self.requests.pending.remove(&(credential, request_id));
        if let Some(waiting) = self.requests.waiting.remove(&key) {
            self.requests.proving.push(Proving {
                credential,
                request_id,
                body: Some(waiting.body),
                tickets: waiting.waiters.iter().map(|w| w.ticket).collect(),
            });
        }
    }

    /// A checkpoint of `size` leaves is cosigned: answers whose records it covers go out.
    pub(crate) fn prove(&mut self, note: &str, size: u64, now: UnixMillis) {
        for proving in std::mem::take(&mut self.requests.proving) {
            let (credential, request_id) = (proving.credential, proving.request_id);
            let status = self.state.request(&credential, &request_id).map(|r| (r.index, &r.status));
            let Some((index, RequestStatus::Signed { signed_index, .. })) = status else {
                // forgotten meanwhile
                for ticket in proving.tickets {
                    self.out.push(Output::Answer { ticket, answer: Answer::Unknown });
                }
                continue;
            };
            let signed_index = *signed_index;
            if signed_index >= size {
                self.requests.proving.push(proving);
                continue;
            }
            let answer = self
                .signed_answer(&credential, &request_id, proving.body.as_deref(), note, size)
                .unwrap_or(Answer::Recorded { index, signed_index });
            if let (Answer::Signed(signed), true) = (&answer, self.config.publish_receipts) {
                self.publisher.receipts(&signed.receipt);
            }
            for ticket in proving.tickets {
                self.out.push(Output::Answer { ticket, answer: answer.clone() });
            }
        }
        self.publish_receipts(now);
    }

    fn signed_answer(
        &self,
        credential: &CredentialId,
        request_id: &RequestId,
        body: Option<&[u8]>,
        note: &str,
        size: u64,
    ) -> Option<Answer> {
        let request = self.state.request(credential, request_id)?;
        let RequestStatus::Signed { allowed, signature, signed_index } = &request.status else {
            return None;
        };
        let receipt = crate::answer::Receipt {
            allowed: self.inclusion(request.index, size, note)?,
            signed: self.inclusion(*signed_index, size, note)?,
        };
        let key = self.state.keys().get(&allowed.key)?;
        let child = payload::child(key.scheme, key.live.as_ref()?, &allowed.path).ok()?;
        let raw_transaction =
            body.and_then(|body| self.raw_transaction(key.scheme, body, signature));
        Some(Answer::Signed(Box::new(Signed {
            digest: allowed.digest,
            signature: signature.clone(),
            public_key: child.public_key,
            raw_transaction,
            receipt,
        })))
    }

    fn raw_transaction(&self, scheme: Scheme, body: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
        if scheme != Scheme::EcdsaSecp256k1 {
            return None;
        }
        let request = SignRequest::parse(body).ok()?;
        let decoded = payload::decode(&self.state.genesis(), &request.payload).ok()?;
        let Form::Evm(transaction) = decoded.form else { return None };
        let (r_s, v) = signature.split_first_chunk::<64>()?;
        let signature = EvmSignature::new(r_s, v.first() == Some(&1)).ok()?;
        Some(transaction.raw_signed(&signature))
    }

    /// Who has waited too long is told so; what has not committed is proposed again.
    pub(crate) fn drive_requests(&mut self, now: UnixMillis) {
        let state = &self.state;
        let mut wants_time = false;
        let mut over = Vec::new();
        for (key, waiting) in self.requests.waiting.iter().filter(|(_, w)| w.applied) {
            match state.request(&waiting.credential, &waiting.request_id).map(|r| &r.status) {
                Some(RequestStatus::Allowed(allowed)) => {
                    let until = state.record_by(allowed);
                    if state.time() > until {
                        over.push(*key);
                    } else {
                        wants_time |= now > until;
                    }
                }
                _ => over.push(*key),
            }
        }
        for key in over {
            if let Some(waiting) = self.requests.waiting.remove(&key) {
                for waiter in waiting.waiters {
                    let (credential, id) = (waiting.credential, waiting.request_id);
                    self.answer_known(waiter.ticket, credential, id, key.1, None, now);
                }
            }
        }
        let impatient = |since: UnixMillis| now.since(since) >= COMMIT_PATIENCE;
        let mut tickets: Vec<Ticket> = Vec::new();
        let mut again = Vec::new();
        self.requests.waiting.retain(|_, waiting| {
            if waiting.applied {
                return true;
            }
            tickets
                .extend(waiting.waiters.extract_if(.., |w| impatient(w.since)).map(|w| w.ticket));
            if now.since(waiting.proposed_at) >= PROPOSE_AGAIN
                && let Some(stamp) = &waiting.stamp
                && !waiting.waiters.is_empty()
            {
                waiting.proposed_at = now;
                let (stamp, body) = (stamp.clone(), waiting.body.clone());
                again.push(EntryBody::Request { stamp, body });
            }
            !waiting.waiters.is_empty()
        });
        self.requests.others.retain(|_, others| {
            tickets.extend(others.extract_if(.., |o| impatient(o.since)).map(|o| o.ticket));
            !others.is_empty()
        });
        for ticket in tickets {
            self.busy(ticket);
        }
        for (statement, proposed_at) in self.early_freezes.values_mut() {
            if now.since(*proposed_at) >= PROPOSE_AGAIN {
                *proposed_at = now;
                again.push(EntryBody::Statement(statement.clone()));
            }
        }
        // nobody is told `expired` before the ledger's own time says so
        if wants_time && now.since(self.requests.time_wanted_at) >= RETRY_AFTER {
            self.requests.time_wanted_at = now;
            again.push(EntryBody::Tick);
        }
        for body in again {
            self.out.push(Output::Propose { body, attachment: None });
        }
    }
}
