//! One run: asks in somebody's name, waits, writes down what came of it, and checks every
//! signature as the one who asked would.

use std::collections::{BTreeMap, BTreeSet};

use casemate_audit::{CheckpointPolicy, CosignerSet, Origin};
use casemate_ledger::entry::ApprovalProof;
use casemate_proto::request::{ApprovalBody, Payload, SignRequest};
use casemate_proto::stamp::Method;
use casemate_proto::{
    CredentialId, Denial, DerivationPath, Hash32, KeyName, Millis, RequestId, Scheme,
};
use casemate_tx::{EvmAddress, evm_address_from_sec1};

use super::cluster::{Answer, Cosigner, Key, Nodes, Signed, Submission, Ticket};
use super::people::{People, Who, idempotent, random, stamp};
use super::proof::{self, Decoded};
use super::report::{
    Check, DenialReport, Outcome as Label, ReceiptReport, RequestReport, hex, input_of,
};
use super::{DemoError, Tell};

/// How often a request is sent again, to the next node, while nodes are busy.
const PATIENCE: u32 = 12;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// By whom.
    pub who: Who,
    /// Of which key.
    pub key: &'static str,
    /// For what.
    pub payload: Payload,
    /// The request's id, where the one who asks has chosen it.
    pub id: Option<RequestId>,
}

impl Ask {
    /// A request with a fresh id.
    #[must_use]
    pub const fn new(who: Who, key: &'static str, payload: Payload) -> Self {
        Self { who, key, payload, id: None }
    }
}

/// A request with its id, ready to be stamped and sent, as often as it takes.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// By whom.
    pub who: Who,
    /// What.
    pub request: SignRequest,
    body: Vec<u8>,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Signed.
    Signed(Signed),
    /// Denied.
    Denied(Denial),
    /// Waits for approvals of this document.
    Pending(Hash32),
    /// Allowed, not signed in time, and never to be.
    Expired,
    /// Not served.
    Failed(String),
}

impl Outcome {
    /// The code, if it was denied.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Denied(denial) => Some(denial.code.name()),
            _ => None,
        }
    }
    /// The signature, if there is one.
    #[must_use]
    pub const fn signed(&self) -> Option<&Signed> {
        match self {
            Self::Signed(signed) => Some(signed),
            _ => None,
        }
    }
}

/// A key with its address.
#[derive(Clone, Debug)]
pub struct KnownKey {
    /// The key.
    pub key: Key,
    /// Its EVM address.
    pub address: Option<EvmAddress>,
}

/// One run of the demo against one cluster.
pub struct Session<'a> {
    nodes: &'a mut dyn Nodes,
    people: &'a People,
    tell: &'a mut dyn Tell,
    keys: BTreeMap<String, KnownKey>,
    receipts: Vec<CheckpointPolicy>,
    cosigners: Vec<Cosigner>,
    running: Vec<usize>,
    turn: usize,
    step: u8,
    requests: Vec<RequestReport>,
    checks: Vec<Check>,
    tally: proof::Tally,
    signatures: BTreeSet<[u8; 64]>,
    nonces: BTreeMap<&'static str, u64>,
}

impl<'a> Session<'a> {
    /// Learns the keys and who cosigns.
    ///
    /// # Errors
    /// If no node answers.
    pub fn new(
        nodes: &'a mut dyn Nodes,
        people: &'a People,
        tell: &'a mut dyn Tell,
    ) -> Result<Self, DemoError> {
        let mut keys = BTreeMap::new();
        for key in nodes.keys()? {
            let address = match key.scheme {
                Scheme::EcdsaSecp256k1 => Some(evm_address_from_sec1(&key.public_key)?),
                Scheme::Ed25519 | Scheme::Bip340Secp256k1 => None,
            };
            keys.insert(key.name.as_str().to_owned(), KnownKey { key, address });
        }
        let running = (0..nodes.names().len()).collect();
        let mut session = Self {
            nodes,
            people,
            tell,
            keys,
            receipts: Vec::new(),
            cosigners: Vec::new(),
            running,
            turn: 0,
            step: 0,
            requests: Vec::new(),
            checks: Vec::new(),
            tally: proof::Tally::default(),
            signatures: BTreeSet::new(),
            nonces: BTreeMap::new(),
        };
        session.learn_cosigners()?;
        Ok(session)
    }

    /// Learns whose boots are current. A receipt is checked against one such set, whole: a boot that
    /// was retired does not count beside the one in its place.
    ///
    /// # Errors
    /// If no node answers.
    pub fn learn_cosigners(&mut self) -> Result<(), DemoError> {
        let scope = self.nodes.scope();
        let origin = Origin { genesis: scope.genesis, incarnation: scope.incarnation };
        let threshold = usize::try_from(self.nodes.threshold()).unwrap_or(usize::MAX);
        let current = self.nodes.cosigners()?;
        let keys = current.iter().map(|cosigner| cosigner.key.clone()).collect();
        let policy = CheckpointPolicy {
            origin: origin.to_string(),
            log_key: None,
            cosigners: CosignerSet::new(keys, threshold)?,
        };
        if self.receipts.last() != Some(&policy) {
            self.receipts.push(policy);
        }
        for cosigner in current {
            if !self.cosigners.contains(&cosigner) {
                self.cosigners.push(cosigner);
            }
        }
        Ok(())
    }

    /// Begins a step.
    pub fn begin(&mut self, step: u8, title: &str) {
        self.step = step;
        self.tell.progress(&format!("step {step} of 7: {title}"));
        self.tell.say("");
        self.tell.say(&format!("{step}. {title}"));
    }
    /// Begins a further part of a step.
    pub fn go_on(&mut self, title: &str) {
        self.tell.progress(&format!("step {} of 7, further: {title}", self.step));
        self.tell.say("");
        self.tell.say(&format!("   {title}"));
    }
    /// Tells somebody who waits how far it is.
    pub fn progress(&mut self, line: impl AsRef<str>) {
        self.tell.progress(line.as_ref());
    }
    /// Says something to the reader.
    pub fn say(&mut self, line: impl AsRef<str>) {
        self.tell.say(&format!("   {}", line.as_ref()));
    }
    /// Notes whether something holds, and says so where it does not.
    pub fn check(&mut self, name: impl Into<String>, ok: bool) {
        let name = name.into();
        if !ok {
            self.say(format!("✗ {name}"));
        }
        self.checks.push(Check { name, ok });
    }

    /// The cluster.
    pub fn nodes(&mut self) -> &mut dyn Nodes {
        self.nodes
    }
    /// The people.
    #[must_use]
    pub const fn people(&self) -> &'a People {
        self.people
    }
    /// The keys by name.
    #[must_use]
    pub const fn keys(&self) -> &BTreeMap<String, KnownKey> {
        &self.keys
    }
    /// What a receipt's checkpoint must show: one of these.
    #[must_use]
    pub fn receipt_policies(&self) -> &[CheckpointPolicy] {
        &self.receipts
    }
    /// Everybody who cosigned at some time, in the order in which they were learned of.
    #[must_use]
    pub fn cosigners(&self) -> &[Cosigner] {
        &self.cosigners
    }
    /// What was signed so far.
    #[must_use]
    pub const fn tally(&self) -> &proof::Tally {
        &self.tally
    }
    /// The numbers of the nodes that run.
    #[must_use]
    pub fn running(&self) -> &[usize] {
        &self.running
    }
    /// The signatures that were given out, each once: r‖s or R‖S.
    #[must_use]
    pub fn signatures(&self) -> BTreeSet<[u8; 64]> {
        self.signatures.clone()
    }
    /// The denials that are in the log: their places among the requests, and their records.
    #[must_use]
    pub fn denied(&self) -> Vec<(usize, u64)> {
        let places = self.requests.iter().enumerate();
        places.filter_map(|(place, request)| Some((place, request.denied_at?))).collect()
    }
    /// Gives requests, by their places, their receipts.
    pub fn attach_receipts(&mut self, mut receipts: BTreeMap<usize, ReceiptReport>) {
        for (place, request) in self.requests.iter_mut().enumerate() {
            if let Some(receipt) = receipts.remove(&place) {
                request.receipt = Some(receipt);
            }
        }
    }
    /// The requests and checks so far.
    #[must_use]
    pub fn into_parts(self) -> (Vec<RequestReport>, Vec<Check>) {
        (self.requests, self.checks)
    }

    /// A key's address.
    ///
    /// # Errors
    /// If there is no such key, or it has none.
    pub fn address(&self, key: &str) -> Result<EvmAddress, DemoError> {
        self.keys
            .get(key)
            .and_then(|known| known.address)
            .ok_or(DemoError::Missing { what: "key with an address", name: key.to_owned() })
    }

    /// The next nonce of a key's account.
    pub fn next_nonce(&mut self, key: &'static str) -> u64 {
        let next = self.nonces.entry(key).or_insert(0);
        let nonce = *next;
        *next = next.saturating_add(1);
        nonce
    }

    /// A request's id and an EIP-3009 nonce from the caller's own name for the payment.
    ///
    /// # Errors
    /// Never: everybody is there.
    pub fn idempotent(&self, who: Who, name: &str) -> Result<(RequestId, [u8; 32]), DemoError> {
        Ok(idempotent(self.nodes.scope(), &self.people.person(who)?.credential, name))
    }

    /// The node whose turn it is.
    ///
    /// # Errors
    /// If none runs.
    pub fn next_node(&mut self) -> Result<usize, DemoError> {
        let count = self.running.len();
        let at = self.turn.checked_rem(count).ok_or(DemoError::NoNode)?;
        self.turn = self.turn.wrapping_add(1);
        self.running.get(at).copied().ok_or(DemoError::NoNode)
    }

    /// Stops a node, whatever it is doing.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop(&mut self, node: usize) -> Result<(), DemoError> {
        self.nodes.stop(node)?;
        self.running.retain(|running| *running != node);
        Ok(())
    }

    /// Notes that a node serves again.
    pub fn serves_again(&mut self, node: usize) {
        self.running.push(node);
        self.running.sort_unstable();
        self.running.dedup();
    }

    /// Gives a request its id and its body.
    ///
    /// # Errors
    /// If a name is no name.
    pub fn prepare(&self, ask: Ask) -> Result<Prepared, DemoError> {
        let request = SignRequest {
            request_id: ask.id.unwrap_or_else(|| RequestId::new(random())),
            key: KeyName::new(ask.key)?,
            path: DerivationPath::root(),
            payload: ask.payload,
        };
        let body = request.to_body().into_bytes();
        Ok(Prepared { who: ask.who, request, body })
    }

    /// Stamps a request afresh and sends it.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn submit(&mut self, prepared: &Prepared, node: usize) -> Result<Ticket, DemoError> {
        let credential = &self.people.person(prepared.who)?.credential;
        let (scope, now) = (self.nodes.scope(), self.nodes.now());
        let stamp = stamp(credential, scope, Method::CreateRequest, &prepared.body, now)?;
        self.nodes.submit(node, Submission::Request { stamp, body: prepared.body.clone() })
    }

    /// Waits for what came of a request. A node that is busy or gone is no answer: the same
    /// request goes to the next one, which cannot sign it twice.
    ///
    /// # Errors
    /// If no node runs.
    pub fn wait(&mut self, prepared: &Prepared, ticket: Ticket) -> Result<Answer, DemoError> {
        let mut answer = self.nodes.wait(ticket)?;
        for _ in 0..PATIENCE {
            let Answer::Busy { retry_after, .. } = answer else { break };
            self.nodes.work(retry_after);
            let node = self.next_node()?;
            let ticket = self.submit(prepared, node)?;
            answer = self.nodes.wait(ticket)?;
        }
        Ok(answer)
    }

    /// Asks, waits and writes down.
    ///
    /// # Errors
    /// If no node runs.
    pub fn ask(&mut self, ask: Ask) -> Result<(Prepared, Outcome), DemoError> {
        let prepared = self.prepare(ask)?;
        let node = self.next_node()?;
        let ticket = self.submit(&prepared, node)?;
        let answer = self.wait(&prepared, ticket)?;
        let outcome = self.record(&prepared, answer)?;
        Ok((prepared, outcome))
    }

    /// Sends a request that was made before once more.
    ///
    /// # Errors
    /// If no node runs.
    pub fn again(&mut self, prepared: &Prepared) -> Result<Answer, DemoError> {
        let node = self.next_node()?;
        let ticket = self.submit(prepared, node)?;
        self.wait(prepared, ticket)
    }

    /// Sends a request that was approved once more, until no node waits for the approvals any more: a
    /// node may learn of them later than the one that was told.
    ///
    /// # Errors
    /// If no node runs.
    pub fn again_when_approved(&mut self, prepared: &Prepared) -> Result<Answer, DemoError> {
        for _ in 0..PATIENCE {
            match self.again(prepared)? {
                Answer::Pending { .. } => self.nodes.work(Millis(100)),
                answer => return Ok(answer),
            }
        }
        self.again(prepared)
    }

    /// Has somebody approve a request.
    ///
    /// # Errors
    /// If no node runs.
    pub fn approve(
        &mut self,
        approver: Who,
        of: &Prepared,
        document: Hash32,
    ) -> Result<Answer, DemoError> {
        let requester = self.people.person(of.who)?.credential.id();
        let body =
            ApprovalBody { credential: requester, request_id: of.request.request_id, document };
        let body = body.to_body().into_bytes();
        let credential = &self.people.person(approver)?.credential;
        let (scope, now) = (self.nodes.scope(), self.nodes.now());
        let stamp = stamp(credential, scope, Method::CreateApproval, &body, now)?;
        let node = self.next_node()?;
        let proof = ApprovalProof::Stamp(stamp);
        let ticket = self.nodes.submit(node, Submission::Approval { body, proof })?;
        self.nodes.wait(ticket)
    }

    /// The credential of somebody.
    ///
    /// # Errors
    /// Never: everybody is there.
    pub fn credential(&self, who: Who) -> Result<CredentialId, DemoError> {
        Ok(self.people.person(who)?.credential.id())
    }

    /// Writes down what came of a request, checking a signature and its proof.
    ///
    /// # Errors
    /// If the request cannot be printed.
    pub fn record(&mut self, prepared: &Prepared, answer: Answer) -> Result<Outcome, DemoError> {
        let report = self.report(prepared, &answer)?;
        self.requests.push(report);
        Ok(outcome(answer))
    }

    fn report(&mut self, prepared: &Prepared, answer: &Answer) -> Result<RequestReport, DemoError> {
        let request = &prepared.request;
        let decoded = proof::decode(&self.nodes.scope().genesis, &request.payload);
        let mut report = RequestReport {
            id: request.request_id.to_hex(),
            step: self.step,
            key: request.key.to_string(),
            path: request.path.to_string(),
            principal: prepared.who.principal().to_owned(),
            kind: request.payload.kind(),
            input: input_of(&request.payload)?,
            outcome: Label::Error,
            denial: None,
            digest: decoded.as_ref().map(|decoded| hex(decoded.digest)),
            signature: None,
            raw_transaction: None,
            receipt: None,
            denied_at: None,
        };
        match answer {
            Answer::Signed(signed) => {
                report.outcome = Label::Signed;
                report.signature = Some(hex(&signed.signature));
                report.raw_transaction = signed.raw_transaction.as_ref().map(hex);
                report.receipt = Some(ReceiptReport::of_signature(&signed.receipt)?);
                self.count(prepared, decoded.as_ref(), signed)?;
            }
            Answer::Denied { denial, index } => {
                report.outcome = Label::Denied;
                report.denial = Some(DenialReport::from(denial));
                report.denied_at = *index;
            }
            Answer::Pending { .. } => report.outcome = Label::Pending,
            Answer::Expired => report.outcome = Label::Expired,
            Answer::Accepted | Answer::Busy { .. } => {}
        }
        Ok(report)
    }

    /// Checks a signature and its receipt with public data alone, and adds what it moves.
    fn count(
        &mut self,
        prepared: &Prepared,
        decoded: Option<&Decoded>,
        signed: &Signed,
    ) -> Result<(), DemoError> {
        let request = &prepared.request;
        let credential = self.credential(prepared.who)?;
        let key = self.keys.get(request.key.as_str());
        let result = match (key, decoded) {
            (Some(known), Some(decoded)) => proof::check_signature(known, decoded, signed)
                .and_then(|()| {
                    let whose = (credential, request.request_id);
                    proof::check_receipt(&self.receipts, whose, decoded, signed)
                }),
            _ => Err("signed what cannot be read, or with a key that is not known".to_owned()),
        };
        if let Err(problem) = &result {
            self.say(format!("✗ request {}: {problem}", request.request_id));
        }
        self.signatures.extend(signed.signature.first_chunk::<64>());
        self.tally.add(request.key.as_str(), decoded, result.is_ok());
        Ok(())
    }
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Signed(signed) => Outcome::Signed(signed),
        Answer::Denied { denial, .. } => Outcome::Denied(denial),
        Answer::Pending { document, .. } => Outcome::Pending(document),
        Answer::Accepted => Outcome::Failed("accepted, which is no answer to a request".to_owned()),
        Answer::Expired => Outcome::Expired,
        Answer::Busy { reason, .. } => Outcome::Failed(reason),
    }
}
