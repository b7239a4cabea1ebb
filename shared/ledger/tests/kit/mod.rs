//! A ledger with whole keys in place of shares: everything but the threshold protocols is real.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use casemate_ledger::apply::{Applied, Effect};
use casemate_ledger::entry::{ApprovalProof, Confirmation, KeyLive, TestSignature};
use casemate_ledger::{Attachment, Committed, Entry, EntryBody, Permit, State, Verdict};
use casemate_policy::Policy;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, NamedSignature, SignedChange, SignedStatement,
};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement,
    NodeSpec,
};
use casemate_proto::request::{ApprovalBody, Payload, SignRequest};
use casemate_proto::stamp::{Method, Stamp};
use casemate_proto::{
    Algorithm, Denial, DenialCode, DerivationPath, KeyName, Millis, NodeName, PublicKey, RequestId,
    Scheme, UnixMillis,
};
use casemate_sim::{EnclaveSpec, SimHost, SimNsm};
use ed25519_dalek::{Signer, SigningKey};

/// The kit's first moment: 2026-11-20T10:00:00Z, inside the test policy's hours.
pub const START: UnixMillis = UnixMillis(1_795_168_800_000);

pub fn second(n: u64) -> Millis {
    Millis(n * 1_000)
}

/// A person with an Ed25519 key.
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

    pub fn hex(&self) -> String {
        format!("0x{}", hex::encode(self.public.as_bytes()))
    }
}

pub struct Kit {
    pub state: State,
    pub genesis: GenesisRecord,
    pub governors: Vec<Person>,
    pub freezer: Person,
    pub agent: Person,
    pub second_agent: Person,
    pub operator: Person,
    pub approvers: Vec<Person>,
    pub boots: Vec<SigningKey>,
    pub nsms: Vec<SimNsm>,
    pub ecdsa: k256::ecdsa::SigningKey,
    pub ed25519: SigningKey,
    pub bip340: k256::schnorr::SigningKey,
    pub now: UnixMillis,
    pub permits: Vec<Permit>,
    pub applied: Vec<(Entry, Option<Attachment>, Vec<u8>)>,
    counter: u64,
}

pub const REGIONS: [&str; 3] = ["ap-southeast-1", "eu-west-1", "us-east-1"];

pub fn node(index: usize) -> NodeName {
    NodeName::new(REGIONS[index]).unwrap()
}

pub fn key_name(text: &str) -> KeyName {
    KeyName::new(text).unwrap()
}

pub fn image(seed: u8) -> Measurement {
    Measurement { pcr0: [seed; 48], pcr1: [seed + 1; 48], pcr2: [seed + 2; 48] }
}

/// A boot of a node with evidence for `scope`.
pub fn boot(
    nsm: &SimNsm,
    name: &NodeName,
    key: &SigningKey,
    nonce: u8,
    scope: &Hash32,
    at: UnixMillis,
) -> BootRecord {
    let mut record = BootRecord {
        node: name.clone(),
        key: key.verifying_key().to_bytes(),
        channel_key: [nonce; 32],
        nonce: [nonce; 32],
        apply_version: casemate_ledger::APPLY_VERSION,
        evidence: Vec::new(),
    };
    let user_data = record.user_data(scope);
    record.evidence = nsm.attest(Some(user_data.as_bytes()), None, None, at.0).unwrap();
    record
}

impl Kit {
    /// A cluster of three with a manifest that `change` may alter, before any entry.
    pub fn unborn(change: impl FnOnce(&mut Manifest)) -> Self {
        let host = SimHost::new().unwrap();
        let governors: Vec<Person> = (1..=3).map(Person::new).collect();
        let freezer = Person::new(9);
        let image = image(0x10);
        let nsms: Vec<SimNsm> = (0_u32..)
            .zip(REGIONS)
            .map(|(i, region)| {
                let measurement = [image.pcr0, image.pcr1, image.pcr2];
                host.start(EnclaveSpec::numbered(i, region, measurement))
            })
            .collect();
        let nodes = REGIONS
            .iter()
            .zip(&nsms)
            .enumerate()
            .map(|(i, (region, nsm))| NodeSpec {
                name: node(i),
                region: (*region).to_owned(),
                pcr3: nsm.enclave().pcrs()[3].1,
            })
            .collect();
        let mut manifest = Manifest {
            version: 1,
            name: "kit".to_owned(),
            threshold: 2,
            nodes,
            measurements: vec![image],
            governance: Governance {
                quorum: 2,
                keys: governors.iter().map(|g| g.public.clone()).collect(),
                loosening_delay: second(3_600),
            },
            freezers: vec![freezer.public.clone()],
            limits: Limits::default(),
            independence: Independence::Regions,
            hardware: Hardware::Simulated,
            trust_root: Hash32::new(casemate_proto::hash::sha256(host.root_der())),
            relying_party: None,
            recovery: None,
        };
        change(&mut manifest);
        let scope = GenesisRecord::manifest_hash(&manifest);
        let boots: Vec<SigningKey> =
            (0..3).map(|i| SigningKey::from_bytes(&[0x40 + i; 32])).collect();
        let records = (0..3)
            .map(|i| boot(&nsms[i], &node(i), &boots[i], 0x50 + i as u8, &scope, START))
            .collect();
        let genesis = GenesisRecord { manifest, boots: records, at: START };
        let state = State::birth(&genesis).unwrap();
        Self {
            state,
            genesis,
            governors,
            freezer,
            agent: Person::new(20),
            second_agent: Person::new(21),
            operator: Person::new(22),
            approvers: (30..34).map(Person::new).collect(),
            boots,
            nsms,
            ecdsa: k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap(),
            ed25519: SigningKey::from_bytes(&[8; 32]),
            bip340: k256::schnorr::SigningKey::from_bytes(&[6; 32]).unwrap(),
            now: START,
            permits: Vec::new(),
            applied: Vec::new(),
            counter: 0,
        }
    }

    /// A cluster that is born, confirmed, has its keys and its policy.
    pub fn ready() -> Self {
        Self::ready_with(|_| {})
    }

    pub fn ready_with(change: impl FnOnce(&mut Manifest)) -> Self {
        let mut kit = Self::unborn(change);
        let id = kit.state.genesis();
        kit.accept(EntryBody::Genesis { id });
        kit.govern(Change::ConfirmGenesis);
        for (name, scheme) in [("agent-7", Scheme::EcdsaSecp256k1), ("notary", Scheme::Ed25519)] {
            kit.govern(Change::CreateKey { name: key_name(name), scheme });
            let live = kit.key_live(name, scheme, 0);
            kit.accept(EntryBody::KeyLive(live));
        }
        let policy = kit.policy(POLICY);
        kit.set_policy(&policy);
        kit
    }

    /// A confirmed cluster that was asked for one key, and has no policy yet.
    pub fn wanting(name: &str, scheme: Scheme) -> Self {
        let mut kit = Self::unborn(|_| {});
        let id = kit.state.genesis();
        kit.accept(EntryBody::Genesis { id });
        kit.govern(Change::ConfirmGenesis);
        kit.govern(Change::CreateKey { name: key_name(name), scheme });
        kit
    }

    /// The test policy with the kit's credentials filled in.
    pub fn policy(&self, text: &str) -> Policy {
        let mut text = text.to_owned();
        for (name, person) in [
            ("$AGENT", &self.agent),
            ("$SECOND", &self.second_agent),
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

    pub fn apply(&mut self, body: EntryBody) -> Verdict {
        self.apply_with(body, None).verdict
    }

    pub fn apply_with(&mut self, body: EntryBody, attachment: Option<Attachment>) -> Applied {
        let entry = Entry { at: self.now, body };
        let mut applied = self
            .state
            .apply(&Committed::dangerous_assume(entry.clone(), attachment.clone()))
            .unwrap();
        self.applied.push((entry, attachment, applied.record.leaf_bytes().to_vec()));
        let mut rest = Vec::new();
        for effect in applied.effects.drain(..) {
            match effect {
                Effect::Sign(permit) => self.permits.push(permit),
                other => rest.push(other),
            }
        }
        applied.effects = rest;
        applied
    }

    pub fn accept(&mut self, body: EntryBody) {
        let verdict = self.apply(body);
        assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
    }

    pub fn pass(&mut self, time: Millis) {
        self.now = self.now.saturating_add(time);
    }

    pub fn signed_change(&self, change: Change) -> SignedChange {
        let envelope = ChangeEnvelope {
            genesis: self.state.genesis(),
            incarnation: self.state.incarnation(),
            predecessor: self.state.change_head(),
            expires: self.now.saturating_add(second(600)),
            change,
        };
        let message = envelope.signing_bytes();
        let signatures = self.governors[..2].iter().map(|g| g.sign(&message)).collect();
        SignedChange { envelope, signatures }
    }

    pub fn govern(&mut self, change: Change) {
        let signed = self.signed_change(change);
        self.accept(EntryBody::Governance(signed));
    }

    pub fn propose_policy(&mut self, policy: &Policy) -> Verdict {
        let signed = self.signed_change(Change::SetPolicy { policy: policy.policy_hash() });
        let attachment = Attachment::Policy(policy.canonical_bytes());
        self.apply_with(EntryBody::Governance(signed), Some(attachment)).verdict
    }

    pub fn set_policy(&mut self, policy: &Policy) {
        let verdict = self.propose_policy(policy);
        assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
    }

    pub fn statement(&self, statement: FreezerStatement) -> SignedStatement {
        let (genesis, incarnation) = (self.state.genesis(), self.state.incarnation());
        let id = SignedStatement::id_of(&genesis, incarnation, self.now, &statement);
        let by = self.freezer.sign(&SignedStatement::signing_bytes(&id));
        SignedStatement { genesis, incarnation, at: self.now, statement, by }
    }

    pub fn heartbeat(&mut self) {
        let pending = self.state.pending_changes().keys().copied().collect();
        let statement = FreezerStatement::Heartbeat {
            size: self.state.size(),
            root: self.state.root(),
            pending,
        };
        let signed = self.statement(statement);
        self.accept(EntryBody::Statement(signed));
    }

    pub fn freeze(&mut self, nonce: u8) -> Hash32 {
        let signed = self.statement(FreezerStatement::Freeze { nonce: [nonce; 16] });
        let id = signed.id();
        self.accept(EntryBody::Statement(signed));
        id
    }

    pub fn public_key(&self, scheme: Scheme) -> Vec<u8> {
        match scheme {
            Scheme::EcdsaSecp256k1 => {
                self.ecdsa.verifying_key().to_encoded_point(true).as_bytes().to_vec()
            }
            Scheme::Ed25519 => self.ed25519.verifying_key().to_bytes().to_vec(),
            Scheme::Bip340Secp256k1 => {
                let x: [u8; 32] = self.bip340.verifying_key().to_bytes().into();
                [[2].as_slice(), x.as_slice()].concat()
            }
        }
    }

    pub fn sign_whole(&self, scheme: Scheme, digest: &[u8; 32]) -> Vec<u8> {
        match scheme {
            Scheme::EcdsaSecp256k1 => {
                let (signature, id) = self.ecdsa.sign_prehash_recoverable(digest).unwrap();
                [signature.to_bytes().to_vec(), vec![id.to_byte()]].concat()
            }
            Scheme::Ed25519 => self.ed25519.sign(digest).to_bytes().to_vec(),
            Scheme::Bip340Secp256k1 => {
                self.bip340.sign_raw(digest, &[0; 32]).unwrap().to_bytes().to_vec()
            }
        }
    }

    pub fn key_live(&self, name: &str, scheme: Scheme, epoch: u64) -> KeyLive {
        let mut live = KeyLive {
            name: key_name(name),
            scheme,
            epoch,
            public_key: self.public_key(scheme),
            chain_code: [0x66; 32],
            transcript: Hash32::new([0x77; 32]),
            tests: Vec::new(),
            confirmations: Vec::new(),
            replaces: self.state.key_epoch(&key_name(name)),
        };
        self.sign_key_live(&mut live, scheme);
        live
    }

    /// Gives an entry test signatures by the kit's key of a scheme, and every node's word.
    pub fn sign_key_live(&self, live: &mut KeyLive, scheme: Scheme) {
        live.tests = [[0, 1], [1, 2]]
            .iter()
            .map(|set| {
                let participants: Vec<NodeName> = set.iter().map(|i| node(*i)).collect();
                let digest = self.state.test_digest(live, &participants).unwrap();
                let signature = self.sign_whole(scheme, &digest)[..64].try_into().unwrap();
                TestSignature { participants, signature }
            })
            .collect();
        let message = live.confirm_message(&self.state.genesis());
        live.confirmations = (0..3)
            .map(|i| Confirmation {
                node: node(i),
                signature: self.boots[i].sign(&message).to_bytes(),
            })
            .collect();
    }

    pub fn next_id(&mut self) -> RequestId {
        self.counter += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.counter.to_be_bytes());
        RequestId::new(id)
    }

    pub fn stamp(&self, who: &Person, method: Method, body: &[u8]) -> Stamp {
        self.stamp_at(who, method, body, self.now)
    }

    pub fn stamp_at(&self, who: &Person, method: Method, body: &[u8], at: UnixMillis) -> Stamp {
        let credential = who.public.id();
        let expires_at = at.saturating_add(second(60));
        let nonce = [5; 16];
        let scope = self.state.stamp_scope(method);
        let preimage = Stamp::preimage(&scope, &credential, at, expires_at, &nonce, body);
        let signature = who.key.sign(&preimage).to_bytes();
        Stamp { credential, issued_at: at, expires_at, nonce, signature }
    }

    pub fn request_entry(&self, who: &Person, request: &SignRequest) -> EntryBody {
        let body = request.to_body().into_bytes();
        EntryBody::Request { stamp: self.stamp(who, Method::CreateRequest, &body), body }
    }

    pub fn request(&mut self, key: &str, payload: Payload) -> SignRequest {
        SignRequest {
            request_id: self.next_id(),
            key: key_name(key),
            path: DerivationPath::root(),
            payload,
        }
    }

    /// A USDC payment on Base as EIP-3009 typed data, from the kit's own key.
    pub fn payment(&mut self, to: &str, base_units: u64) -> SignRequest {
        self.payment_valid_for(to, base_units, 300)
    }

    pub fn payment_valid_for(&mut self, to: &str, base_units: u64, seconds: u64) -> SignRequest {
        let from = casemate_tx::evm_address_from_sec1(&self.public_key(Scheme::EcdsaSecp256k1))
            .unwrap()
            .to_string();
        let nonce = self.counter + 1;
        let json = typed_payment(&from, to, base_units, self.now, seconds, nonce);
        self.request("agent-7", Payload::TypedData(json))
    }

    pub fn pay(&mut self, base_units: u64) -> Verdict {
        let request = self.payment(PAYEE, base_units);
        let agent = self.agent.clone();
        self.ask(&agent, &request)
    }

    pub fn ask(&mut self, who: &Person, request: &SignRequest) -> Verdict {
        let entry = self.request_entry(who, request);
        self.apply(entry)
    }

    pub fn approval(
        &self,
        who: &Person,
        requester: &Person,
        request: &SignRequest,
        document: Hash32,
    ) -> EntryBody {
        let body = ApprovalBody {
            credential: requester.public.id(),
            request_id: request.request_id,
            document,
        }
        .to_body()
        .into_bytes();
        let stamp = self.stamp(who, Method::CreateApproval, &body);
        EntryBody::Approval { body, proof: ApprovalProof::Stamp(stamp) }
    }
}

pub const PAYEE: &str = "0x1111111111111111111111111111111111111111";
pub const OTHER_PAYEE: &str = "0x3333333333333333333333333333333333333333";

pub fn typed_payment(
    from: &str,
    to: &str,
    units: u64,
    now: UnixMillis,
    life: u64,
    nonce: u64,
) -> String {
    let seconds = now.0 / 1_000;
    let (after, before) = (seconds - 600, seconds + life);
    format!(
        r#"{{"types":{{"EIP712Domain":[{{"name":"name","type":"string"}},{{"name":"version","type":"string"}},{{"name":"chainId","type":"uint256"}},{{"name":"verifyingContract","type":"address"}}],"TransferWithAuthorization":[{{"name":"from","type":"address"}},{{"name":"to","type":"address"}},{{"name":"value","type":"uint256"}},{{"name":"validAfter","type":"uint256"}},{{"name":"validBefore","type":"uint256"}},{{"name":"nonce","type":"bytes32"}}]}},"primaryType":"TransferWithAuthorization","domain":{{"name":"USD Coin","version":"2","chainId":8453,"verifyingContract":"0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"}},"message":{{"from":"{from}","to":"{to}","value":"{units}","validAfter":"{after}","validBefore":"{before}","nonce":"0x{nonce:064x}"}}}}"#
    )
}

pub fn denial(verdict: Verdict) -> Denial {
    match verdict {
        Verdict::Denied(denial) => denial,
        other => panic!("not denied: {other:?}"),
    }
}

pub fn code(verdict: Verdict) -> DenialCode {
    denial(verdict).code
}

pub fn is_allowed(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Allowed(_))
}

pub const POLICY: &str = include_str!("policy.toml");
