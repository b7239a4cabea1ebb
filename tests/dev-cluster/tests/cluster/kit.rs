//! People, a policy and a cluster for the tests.

use std::sync::{Arc, Mutex};

use casemate_audit::{CheckpointPolicy, CosignerSet, Origin, verify_receipt};
use casemate_dev::in_process::{Cluster, ClusterConfig, ManualClock, Progress, ReadClock as _};
use casemate_ledger::Attachment;
use casemate_ledger::EntryBody;
use casemate_ledger::entry::ApprovalProof;
use casemate_ledger::keys::verify_signature;
use casemate_policy::Policy;
use casemate_proto::DenialCode;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, NamedSignature, SignedChange, SignedStatement,
};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::Governance;
use casemate_proto::request::{ApprovalBody, Payload, SignRequest};
use casemate_proto::stamp::{Method, Stamp};
use casemate_proto::{
    Algorithm, DerivationPath, KeyName, Millis, NodeName, PublicKey, RequestId, Scheme, UnixMillis,
};
use casemate_signer::{Answer, Output, PeerMessage, Signed, Submission, Ticket};
use ed25519_dalek::{Signer, SigningKey};

/// 2026-11-20T10:00:00Z.
pub const START: UnixMillis = UnixMillis(1_795_168_800_000);
pub const PAYEE: &str = "0x1111111111111111111111111111111111111111";
pub const POLICY: &str = include_str!("policy.toml");

#[derive(Clone)]
pub struct Person {
    pub key: SigningKey,
    pub public: PublicKey,
}

impl Person {
    pub fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::new(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap();
        Self { key, public }
    }
    pub fn sign(&self, message: &[u8]) -> NamedSignature {
        NamedSignature {
            credential: self.public.id(),
            signature: self.key.sign(message).to_bytes(),
        }
    }
    fn hex(&self) -> String {
        format!("0x{}", hex::encode(self.public.as_bytes()))
    }
}

pub struct Kit {
    pub cluster: Cluster,
    pub clock: ManualClock,
    pub governors: Vec<Person>,
    pub freezer: Person,
    pub agent: Person,
    pub operator: Person,
    pub approvers: Vec<Person>,
    pub progress: Arc<Mutex<Vec<Progress>>>,
    counter: u64,
}

pub fn key_name(text: &str) -> KeyName {
    KeyName::new(text).unwrap()
}

impl Kit {
    /// A cluster that is born and nothing more.
    pub fn born(change: impl FnOnce(&mut ClusterConfig)) -> Self {
        let governors: Vec<Person> = (1..=3).map(Person::new).collect();
        let freezer = Person::new(9);
        let governance = Governance {
            quorum: 2,
            keys: governors.iter().map(|g| g.public.clone()).collect(),
            loosening_delay: Millis(3_600_000),
        };
        let mut config = ClusterConfig::new("kit", governance);
        config.freezers = vec![freezer.public.clone()];
        config.node.publish_receipts = true;
        config.node.triple_stock = 1;
        change(&mut config);
        let clock = ManualClock::at(START);
        let mut cluster = Cluster::up(config, Box::new(clock.clone())).unwrap();
        let progress = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&progress);
        cluster.watch(move |what| seen.lock().unwrap().push(what));
        Self {
            cluster,
            clock,
            governors,
            freezer,
            agent: Person::new(20),
            operator: Person::new(22),
            approvers: (30..34).map(Person::new).collect(),
            progress,
            counter: 0,
        }
    }

    /// Confirmed, with the log's key and keys of both schemes, and a policy.
    pub fn ready() -> Self {
        Self::ready_with(|_| ())
    }
    pub fn ready_with(change: impl FnOnce(&mut ClusterConfig)) -> Self {
        Self::with_keys(&["casemate.log", "notary", "agent-7"], change)
    }
    /// The same with the log's and an Ed25519 key only, which takes a third of the time.
    pub fn for_messages() -> Self {
        Self::with_keys(&["casemate.log", "notary"], |_| ())
    }
    pub fn with_keys(names: &[&str], change: impl FnOnce(&mut ClusterConfig)) -> Self {
        let mut kit = Self::born(change);
        kit.govern(Change::ConfirmGenesis, None);
        for name in names {
            let scheme = match *name {
                "agent-7" => Scheme::EcdsaSecp256k1,
                "btc" => Scheme::Bip340Secp256k1,
                _ => Scheme::Ed25519,
            };
            kit.govern(Change::CreateKey { name: key_name(name), scheme }, None);
            kit.until_live(name);
        }
        let policy = kit.policy();
        kit.govern(
            Change::SetPolicy { policy: policy.policy_hash() },
            Some(Attachment::Policy(policy.canonical_bytes())),
        );
        kit
    }

    pub fn policy(&self) -> Policy {
        let mut text = POLICY.to_owned();
        let second = Person::new(21);
        for (name, person) in [
            ("$AGENT", &self.agent),
            ("$SECOND", &second),
            ("$OPERATOR", &self.operator),
            ("$APPROVER0", &self.approvers[0]),
            ("$APPROVER1", &self.approvers[1]),
            ("$APPROVER2", &self.approvers[2]),
            ("$OUTSIDER", &self.approvers[3]),
        ] {
            text = text.replace(name, &person.hex());
        }
        Policy::from_toml(&text).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn name(&self, at: usize) -> NodeName {
        self.cluster.names()[at].clone()
    }

    pub fn until_live(&mut self, name: &str) {
        let name = key_name(name);
        self.cluster
            .work_until("live key", |cluster| {
                cluster.running().iter().all(|node| {
                    cluster.state(node).is_some_and(|state| state.key_epoch(&name).is_some())
                })
            })
            .unwrap();
    }

    pub fn signed_change(&self, change: Change) -> SignedChange {
        let state = self.cluster.any_state().unwrap();
        let envelope = ChangeEnvelope {
            genesis: state.genesis(),
            incarnation: state.incarnation(),
            predecessor: state.change_head(),
            expires: self.clock.now().saturating_add(Millis(600_000)),
            change,
        };
        let message = envelope.signing_bytes();
        let signatures = self.governors[..2].iter().map(|g| g.sign(&message)).collect();
        SignedChange { envelope, signatures }
    }

    pub fn govern(&mut self, change: Change, attachment: Option<Attachment>) {
        let signed = self.signed_change(change);
        let node = self.cluster.running()[0].clone();
        let answer =
            self.cluster.ask(&node, Submission::Governance { signed, attachment }).unwrap();
        assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    }

    pub fn freeze(&self, nonce: u8) -> SignedStatement {
        let state = self.cluster.any_state().unwrap();
        let (genesis, incarnation, at) = (state.genesis(), state.incarnation(), self.clock.now());
        let statement = FreezerStatement::Freeze { nonce: [nonce; 16] };
        let id = SignedStatement::id_of(&genesis, incarnation, at, &statement);
        let by = self.freezer.sign(&SignedStatement::signing_bytes(&id));
        SignedStatement { genesis, incarnation, at, statement, by }
    }

    pub fn stamp(&self, who: &Person, method: Method, body: &[u8]) -> Stamp {
        let state = self.cluster.any_state().unwrap();
        let (credential, at) = (who.public.id(), self.clock.now());
        let expires_at = at.saturating_add(Millis(120_000));
        let nonce = [5; 16];
        let scope = state.stamp_scope(method);
        let preimage = Stamp::preimage(&scope, &credential, at, expires_at, &nonce, body);
        let signature = who.key.sign(&preimage).to_bytes();
        Stamp { credential, issued_at: at, expires_at, nonce, signature }
    }

    pub fn request(&mut self, key: &str, payload: Payload) -> SignRequest {
        self.counter += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.counter.to_be_bytes());
        let request_id = RequestId::new(id);
        SignRequest { request_id, key: key_name(key), path: DerivationPath::root(), payload }
    }

    pub fn message(&mut self, text: &str) -> SignRequest {
        self.request("notary", Payload::Message(text.as_bytes().to_vec()))
    }

    /// A USDC payment on Base in base units, from the key's own address.
    pub fn payment(&mut self, units: u64) -> SignRequest {
        let state = self.cluster.any_state().unwrap();
        let live = state.keys()[&key_name("agent-7")].live.clone().unwrap();
        let from = casemate_tx::evm_address_from_sec1(&live.public_key).unwrap();
        let seconds = self.clock.now().0 / 1_000;
        let (after, before, nonce) = (seconds - 600, seconds + 300, self.counter + 1);
        let json = format!(
            r#"{{"types":{{"EIP712Domain":[{{"name":"name","type":"string"}},{{"name":"version","type":"string"}},{{"name":"chainId","type":"uint256"}},{{"name":"verifyingContract","type":"address"}}],"TransferWithAuthorization":[{{"name":"from","type":"address"}},{{"name":"to","type":"address"}},{{"name":"value","type":"uint256"}},{{"name":"validAfter","type":"uint256"}},{{"name":"validBefore","type":"uint256"}},{{"name":"nonce","type":"bytes32"}}]}},"primaryType":"TransferWithAuthorization","domain":{{"name":"USD Coin","version":"2","chainId":8453,"verifyingContract":"0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"}},"message":{{"from":"{from}","to":"{PAYEE}","value":"{units}","validAfter":"{after}","validBefore":"{before}","nonce":"0x{nonce:064x}"}}}}"#
        );
        self.request("agent-7", Payload::TypedData(json))
    }

    pub fn submission(&self, who: &Person, request: &SignRequest) -> Submission {
        let body = request.to_body().into_bytes();
        let stamp = self.stamp(who, Method::CreateRequest, &body);
        Submission::Request { stamp, body }
    }

    pub fn submit(&mut self, at: usize, who: &Person, request: &SignRequest) -> Ticket {
        let submission = self.submission(who, request);
        let node = self.name(at);
        self.cluster.submit(&node, submission).unwrap()
    }

    pub fn ask(&mut self, at: usize, who: &Person, request: &SignRequest) -> Answer {
        let ticket = self.submit(at, who, request);
        self.cluster.wait(ticket).unwrap()
    }

    pub fn agent_asks(&mut self, at: usize, request: &SignRequest) -> Answer {
        let agent = self.agent.clone();
        self.ask(at, &agent, request)
    }

    pub fn approval(
        &self,
        who: &Person,
        requester: &Person,
        request: &SignRequest,
        document: Hash32,
    ) -> Submission {
        let credential = requester.public.id();
        let body = ApprovalBody { credential, request_id: request.request_id, document }
            .to_body()
            .into_bytes();
        let stamp = self.stamp(who, Method::CreateApproval, &body);
        Submission::Approval { body, proof: ApprovalProof::Stamp(stamp) }
    }

    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Records every output of every node; what `keep` answers `false` for is lost.
    pub fn watch_outputs(
        &mut self,
        keep: impl Fn(&Seen) -> bool + Send + 'static,
    ) -> Arc<Mutex<Vec<(NodeName, Seen)>>> {
        let all = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&all);
        self.cluster.intercept(Box::new(move |name, output| {
            let seen = Seen::of(output);
            let kept = keep(&seen);
            into.lock().unwrap().push((name.clone(), seen));
            kept
        }));
        all
    }

    /// Has a request allowed and committed, and keeps every attempt at it from starting.
    pub fn commit_unsigned(&mut self, request: &SignRequest) -> u64 {
        self.watch_outputs(|seen| {
            !seen.is_run() && !matches!(seen, Seen::Peer(PeerMessage::StartSign { .. }))
        });
        let agent = self.agent.clone();
        self.submit(0, &agent, request);
        self.pass(200);
        let state = self.cluster.any_state().unwrap();
        state.request(&agent.public.id(), &request.request_id).expect("committed").index
    }

    pub fn halted(&self) -> bool {
        let progress = self.progress.lock().unwrap();
        progress.iter().any(|what| matches!(what, Progress::Halted { .. }))
    }

    /// Lets this long pass in steps in which the nodes work.
    pub fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(50) {
            self.clock.pass(50);
            while self.cluster.pump() {}
        }
    }
}

pub fn signed(answer: Answer) -> Signed {
    match answer {
        Answer::Signed(signed) => *signed,
        other => panic!("not signed: {other:?}"),
    }
}

pub fn code(answer: Answer) -> DenialCode {
    match answer {
        Answer::Denied(denial) => denial.denial.code,
        other => panic!("not denied: {other:?}"),
    }
}

/// How many entries there are.
pub fn entries(kit: &Kit) -> u64 {
    kit.cluster.any_state().unwrap().size()
}

/// Checks everything that a client can check of an answer.
pub fn check(kit: &Kit, scheme: Scheme, answer: &Signed) {
    let plain = answer.signature.first_chunk::<64>().unwrap();
    assert!(verify_signature(scheme, &answer.public_key, &answer.digest, plain));
    let state = kit.cluster.any_state().unwrap();
    let origin = Origin { genesis: state.genesis(), incarnation: state.incarnation() };
    let policy = CheckpointPolicy {
        origin: origin.to_string(),
        log_key: None,
        cosigners: CosignerSet::new(kit.cluster.cosigners(), 2).unwrap(),
    };
    let allowed = verify_receipt(&answer.receipt.allowed, &policy).unwrap();
    let recorded = verify_receipt(&answer.receipt.signed, &policy).unwrap();
    assert!(allowed.record().index() < recorded.record().index());
    let entry = casemate_ledger::Entry::decode(&recorded.record().fields().entry).unwrap();
    match entry.body {
        EntryBody::Signed { signature, .. } => assert_eq!(signature, answer.signature),
        other => panic!("{other:?}"),
    }
}

/// An output as a host would like to see it.
#[derive(Clone, Debug)]
pub enum Seen {
    Peer(PeerMessage),
    Signed(EntryBody),
    Proposed(EntryBody),
    /// What leaves the enclave in the clear.
    Outside(Vec<u8>),
    /// For another boot.
    Handover,
    Halt,
}

impl Seen {
    pub fn of(output: &Output) -> Self {
        match output {
            Output::Send { bytes, .. } => {
                Self::Peer(PeerMessage::decode(bytes.as_slice()).unwrap())
            }
            Output::Propose { body: body @ EntryBody::Signed { .. }, .. } => {
                Self::Signed(body.clone())
            }
            Output::Propose { body, .. } => Self::Proposed(body.clone()),
            Output::Publish(files) => {
                Self::Outside(files.iter().flat_map(|(_, bytes)| bytes.clone()).collect())
            }
            Output::Answer { answer: Answer::Signed(signed), .. } => Self::Outside(
                [
                    signed.signature.clone(),
                    signed.raw_transaction.clone().unwrap_or_default(),
                    signed.receipt.allowed.leaf.clone(),
                    signed.receipt.signed.leaf.clone(),
                ]
                .concat(),
            ),
            Output::Answer { .. } => Self::Outside(Vec::new()),
            Output::Reply { reply, .. } => {
                Self::Outside(reply.as_ref().map(|r| r.reply.clone()).unwrap_or_default())
            }
            Output::Handover(_) => Self::Handover,
            Output::Halt { .. } => Self::Halt,
        }
    }
    pub fn is_statement(&self) -> bool {
        matches!(self, Self::Proposed(EntryBody::Statement(_)))
    }
    pub fn is_run(&self) -> bool {
        matches!(self, Self::Peer(PeerMessage::Run(_)))
    }
}
