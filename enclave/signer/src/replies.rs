//! Answers: what goes back to whoever waits, and when.

use casemate_ledger::payload::{self, Form};
use casemate_ledger::state::RequestStatus;
use casemate_ledger::{EntryBody, Verdict};
use casemate_proto::hash::sha256;
use casemate_proto::ids::Hash32;
use casemate_proto::request::SignRequest;
use casemate_proto::{CredentialId, Denial, Millis, RequestId, Scheme, UnixMillis};
use casemate_tx::EvmSignature;

use crate::answer::{Answer, Receipt, Signed, SignedDenial, Ticket};
use crate::event::Output;
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::requests::{Proving, Subject, other_key};
use crate::signing::Phase;

/// What a client is told to wait when there is no room.
pub(crate) const RETRY_AFTER: Millis = Millis(1_000);
/// How long a submission waits for its entry to commit.
const COMMIT_PATIENCE: Millis = Millis(20_000);
/// How often a proposal is made again that has not committed.
const PROPOSE_AGAIN: Millis = Millis(5_000);

impl Node {
    pub(crate) fn busy(&mut self, ticket: Ticket) {
        let answer = Answer::Busy { retry_after: RETRY_AFTER };
        self.out.push(Output::Answer { ticket, answer });
    }

    pub(crate) fn signed_denial(
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

    pub(crate) fn deny(
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

    fn answer_request(
        &mut self,
        key: (CredentialId, Hash32),
        index: u64,
        verdict: &Verdict,
        now: UnixMillis,
    ) {
        let Some(waiting) = self.requests.waiting.get_mut(&key) else { return };
        let (credential, request_id) = (waiting.credential, waiting.request_id);
        let stands = self.state.request(&credential, &request_id).is_some_and(|request| {
            request.body_hash == key.1 && matches!(request.status, RequestStatus::Allowed(_))
        });
        match verdict {
            Verdict::Allowed(_) => waiting.applied = true,
            // the same body came twice, and the entry that counts is another: that one answers
            Verdict::Denied(_) | Verdict::Repeated { .. } if stands => waiting.applied = true,
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
                    let body = Some(waiting.body.clone());
                    self.answer_known(waiter.ticket, credential, request_id, key.1, body, now);
                }
            }
        }
    }

    /// A signature is in the log: who waits for it now waits for the proof.
    pub(crate) fn wait_for_receipt(&mut self, credential: CredentialId, request_id: RequestId) {
        let Some(request) = self.state.request(&credential, &request_id) else { return };
        let key = (credential, request.body_hash);
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
        self.prove_keys(note, size);
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
        let receipt = Receipt {
            allowed: self.inclusion(request.index, size, note)?,
            signed: self.inclusion(*signed_index, size, note)?,
        };
        let key = self.state.keys().get(&allowed.key)?;
        let child = self.state.child(key.scheme, key.live.as_ref()?, &allowed.path).ok()?;
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

    /// Proposes at once what has not committed.
    pub(crate) fn propose_again(&mut self, now: UnixMillis) {
        for waiting in self.requests.waiting.values_mut() {
            waiting.proposed_at = UnixMillis(0);
        }
        for (_, proposed_at) in self.early_freezes.values_mut() {
            *proposed_at = UnixMillis(0);
        }
        self.finish_what_was_left(now);
        for job in self.signing.jobs.values_mut() {
            if let Phase::Made { propose_at, .. } = &mut job.phase {
                *propose_at = now;
            }
        }
        self.drive_requests(now);
        self.drive_signing(now);
    }

    /// Who has waited too long is told so; what has not committed is proposed again; where the ledger's
    /// time must go on, that is.
    pub(crate) fn drive_requests(&mut self, now: UnixMillis) {
        let state = &self.state;
        // in a quiet cluster nothing else would put a change in force whose delay is over
        let mut wants_time = state.due_changes(now).next().is_some();
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
        let mut freezes = Vec::new();
        for (statement, proposed_at) in self.early_freezes.values_mut() {
            if now.since(*proposed_at) >= PROPOSE_AGAIN {
                *proposed_at = now;
                again.push(EntryBody::Statement(statement.clone()));
                freezes.push(PeerMessage::Freeze(statement.clone()));
            }
        }
        // a peer whose queue was full has not obeyed it yet
        let others = self.roster.others();
        for freeze in freezes {
            self.send_others(&others, &freeze);
        }
        // nobody is told `expired` before the ledger's own time says so
        if wants_time && now.since(self.requests.time_wanted_at) >= RETRY_AFTER {
            self.requests.time_wanted_at = now;
            again.push(EntryBody::Tick);
        }
        for body in again {
            self.out.push(Output::Propose { body, attachment: None, until: None });
        }
    }
}
