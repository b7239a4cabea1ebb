//! A cluster that is none: three nodes on TCP sockets with real attestation documents under a simulated
//! root, a log of their own, and one key that they simply have. Each can be told to lie.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod govern;
mod http;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_api::{Rendered, ReplyKind, reply};
use casemate_audit::note::UnixSeconds;
use casemate_audit::{
    Checkpoint, InclusionReceipt, NoteSignature, Origin, Record, RecordFields, SignedNote, Tree,
};
use casemate_client::{Client, Cluster, Credential, Endpoint, Settings};
use casemate_door::query::LiveKeyView;
use casemate_door::{
    Answer, BootView, ClusterView, KeyView, PendingRequestView, Receipt, Reply, Signed,
    SignedDenial, SignedReply,
};
use casemate_ledger::entry::KeyLive;
use casemate_ledger::verdict::Allowed;
use casemate_ledger::{Entry, EntryBody, Verdict, payload};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement,
    NodeSpec,
};
use casemate_proto::request::SignRequest;
use casemate_proto::stamp::Stamp;
use casemate_proto::{
    Algorithm, CredentialId, Denial, DenialCode, GenesisId, GrantId, Incarnation, KeyName,
    NodeName, PrincipalId, RequestId, Scheme, UnixMillis, cbor, hash::sha256,
};
use casemate_sim::{EnclaveSpec, SimHost, SimNsm};
use ed25519_dalek::Signer as _;

pub use http::{Asked, respond};

pub const REGIONS: [&str; 3] = ["ap-southeast-1", "eu-west-1", "us-east-1"];

pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

pub fn random<const N: usize>() -> [u8; N] {
    casemate_client::credential::random()
}

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn image(byte: u8) -> Measurement {
    Measurement { pcr0: [byte; 48], pcr1: [byte + 1; 48], pcr2: [byte + 2; 48] }
}

/// One boot's keys.
#[derive(Clone)]
pub struct Boot {
    pub key: ed25519_dalek::SigningKey,
    pub channel_key: [u8; 32],
    pub nonce: [u8; 32],
}

impl Boot {
    pub fn new() -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&random());
        Self { key, channel_key: random(), nonce: random() }
    }
    pub fn record(&self, node: &NodeName, evidence: Vec<u8>) -> BootRecord {
        BootRecord {
            node: node.clone(),
            key: self.key.verifying_key().to_bytes(),
            channel_key: self.channel_key,
            nonce: self.nonce,
            apply_version: 1,
            evidence,
        }
    }
}

/// What a node answers in place of the truth.
pub type Lie<T> = Option<Arc<dyn Fn(&World, T) -> T + Send + Sync>>;
/// Takes over a whole connection; `false` leaves it to the node.
pub type Takeover = Option<Arc<dyn Fn(&Asked, &mut std::net::TcpStream) -> bool + Send + Sync>>;

/// One node.
pub struct Node {
    pub name: NodeName,
    pub boot: Boot,
    pub nsm: Arc<SimNsm>,
    pub address: SocketAddr,
    pub answers: Lie<Answer>,
    pub replies: Lie<Reply>,
    pub takeover: Takeover,
    /// The requests that came, with their stamps.
    pub asked: Vec<(Stamp, Vec<u8>)>,
}

/// A signed request: its body, the records that allowed it and that hold it, the signature.
pub type OnRecord = (Vec<u8>, u64, u64, Vec<u8>);

/// The whole cluster.
pub struct World {
    pub genesis: GenesisRecord,
    pub id: GenesisId,
    pub root_pem: String,
    pub host: SimHost,
    pub nodes: BTreeMap<NodeName, Node>,
    pub key: k256::ecdsa::SigningKey,
    pub chain_code: [u8; 32],
    pub key_live: u64,
    pub tree: Tree,
    pub leaves: Vec<Vec<u8>>,
    pub signed: BTreeMap<(CredentialId, RequestId), OnRecord>,
    pub pending: Vec<PendingRequestView>,
    pub change_head: Hash32,
    pub freezes: Vec<casemate_door::FreezeView>,
    pub clock_ahead_ms: u64,
    pub images: Vec<Measurement>,
    pub policy: Option<(Hash32, Vec<u8>)>,
    pub made_keys: Vec<(KeyName, Scheme)>,
    pub approved: Vec<CredentialId>,
    /// The store's files that were asked for.
    pub fetched: Vec<String>,
    /// Whoever governs and freezes.
    pub governor: Credential,
}

/// A running cluster; its threads end with the test's process.
#[derive(Clone)]
pub struct Fake(pub Arc<Mutex<World>>);

pub const KEY: &str = "agent-7";

impl Fake {
    pub fn start() -> Self {
        let host = SimHost::new().unwrap();
        let accepted = image(1);
        let measurement = [accepted.pcr0, accepted.pcr1, accepted.pcr2];
        let nsms: Vec<Arc<SimNsm>> = (0_u32..)
            .zip(REGIONS)
            .map(|(at, region)| {
                Arc::new(host.start(EnclaveSpec::numbered(at, region, measurement)))
            })
            .collect();
        let governor = Credential::generate(Algorithm::Ed25519).unwrap();
        let manifest = Manifest {
            version: 1,
            name: "fake".to_owned(),
            threshold: 2,
            nodes: REGIONS
                .iter()
                .zip(&nsms)
                .map(|(region, nsm)| NodeSpec {
                    name: name(region),
                    region: (*region).to_owned(),
                    pcr3: nsm.enclave().pcrs()[3].1,
                })
                .collect(),
            measurements: vec![accepted.clone()],
            governance: Governance {
                quorum: 1,
                keys: vec![casemate_client::Sign::public_key(&governor).clone()],
                loosening_delay: casemate_proto::Millis(1000),
            },
            freezers: vec![casemate_client::Sign::public_key(&governor).clone()],
            limits: Limits::default(),
            independence: Independence::None,
            hardware: Hardware::Simulated,
            trust_root: Hash32::new(sha256(host.root_der())),
            relying_party: None,
            recovery: None,
        };
        let boots: Vec<Boot> = REGIONS.iter().map(|_| Boot::new()).collect();
        let scope = GenesisRecord::manifest_hash(&manifest);
        let records = REGIONS.iter().zip(&boots).zip(&nsms).map(|((region, boot), nsm)| {
            let record = boot.record(&name(region), Vec::new());
            let user_data = record.user_data(&scope);
            let evidence = nsm.attest(Some(user_data.as_bytes()), None, None, now().0).unwrap();
            BootRecord { evidence, ..record }
        });
        let boots_attested = records.collect();
        let genesis = GenesisRecord { manifest, boots: boots_attested, at: now() };
        let id = genesis.id();
        let mut world = World {
            id,
            root_pem: host.root_pem().unwrap(),
            host,
            nodes: BTreeMap::new(),
            key: k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap(),
            chain_code: [9; 32],
            key_live: 0,
            tree: Tree::new(),
            leaves: Vec::new(),
            signed: BTreeMap::new(),
            pending: Vec::new(),
            change_head: Hash32::new(*id.as_bytes()),
            freezes: Vec::new(),
            clock_ahead_ms: 0,
            images: vec![accepted],
            policy: None,
            made_keys: Vec::new(),
            approved: Vec::new(),
            fetched: Vec::new(),
            governor,
            genesis,
        };
        world.append(EntryBody::Genesis { id }, Verdict::accepted());
        let live = world.live_entry();
        world.key_live = world.append(EntryBody::KeyLive(live), Verdict::accepted());
        let fake = Self(Arc::new(Mutex::new(world)));
        for ((region, boot), nsm) in REGIONS.iter().zip(boots).zip(nsms) {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let node = Node {
                name: name(region),
                boot,
                nsm,
                address: listener.local_addr().unwrap(),
                answers: None,
                replies: None,
                takeover: None,
                asked: Vec::new(),
            };
            fake.0.lock().unwrap().nodes.insert(node.name.clone(), node);
            http::serve(listener, fake.clone(), name(region));
        }
        fake
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
    pub fn each(&self, act: impl Fn(&mut Node)) {
        self.with(|world| world.nodes.values_mut().for_each(act));
    }
    pub fn node(&self, node: &str, act: impl FnOnce(&mut Node)) {
        self.with(|world| act(world.nodes.get_mut(&name(node)).unwrap()));
    }
    /// What every node answers in place of the truth.
    pub fn lie(&self, lie: impl Fn(&World, Answer) -> Answer + Send + Sync + 'static) {
        let lie: Lie<Answer> = Some(Arc::new(lie));
        self.each(move |node| node.answers = lie.clone());
    }
    pub fn lie_in_replies(&self, lie: impl Fn(&World, Reply) -> Reply + Send + Sync + 'static) {
        let lie: Lie<Reply> = Some(Arc::new(lie));
        self.each(move |node| node.replies = lie.clone());
    }
    pub fn take_over(
        &self,
        takeover: impl Fn(&Asked, &mut std::net::TcpStream) -> bool + Send + Sync + 'static,
    ) {
        let takeover: Takeover = Some(Arc::new(takeover));
        self.each(move |node| node.takeover = takeover.clone());
    }

    pub fn cluster(&self) -> Cluster {
        self.with(|world| {
            let root = casemate_attestation_verify::TrustRoot::from_pem(&world.root_pem).unwrap();
            let endpoint = |node: &Node| {
                Endpoint::new(Some(node.name.clone()), &format!("http://{}", node.address)).unwrap()
            };
            Cluster::new(world.id, root, world.nodes.values().map(endpoint).collect()).unwrap()
        })
    }
    pub fn client(&self) -> Client {
        Client::new(self.cluster(), settings()).unwrap()
    }
    /// How often each request id was sent with which body.
    pub fn sent(&self) -> Vec<(Stamp, Vec<u8>)> {
        self.with(|world| world.nodes.values().flat_map(|node| node.asked.clone()).collect())
    }
}

/// Short enough for tests.
pub fn settings() -> Settings {
    Settings {
        connect: Duration::from_millis(500),
        reply: Duration::from_millis(1500),
        answer: Duration::from_millis(800),
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        ..Settings::default()
    }
}

impl World {
    pub fn now(&self) -> UnixMillis {
        UnixMillis(now().0 + self.clock_ahead_ms)
    }
    pub fn origin(&self) -> Origin {
        Origin { genesis: self.id, incarnation: Incarnation(0) }
    }

    pub fn live_entry(&self) -> KeyLive {
        KeyLive {
            name: KeyName::new(KEY).unwrap(),
            scheme: Scheme::EcdsaSecp256k1,
            epoch: 0,
            public_key: self.public_key(),
            chain_code: self.chain_code,
            transcript: Hash32::new([3; 32]),
            tests: Vec::new(),
            confirmations: Vec::new(),
            replaces: None,
        }
    }

    pub fn public_key(&self) -> Vec<u8> {
        self.key.verifying_key().to_encoded_point(true).as_bytes().to_vec()
    }

    pub fn append(&mut self, body: EntryBody, verdict: Verdict) -> u64 {
        let index = self.tree.size();
        let entry = Entry { at: self.now(), body };
        let record = Record::new(RecordFields {
            index,
            time: entry.at,
            kind: entry.body.kind().to_owned(),
            entry: entry.encode(),
            verdict: cbor::encode(&verdict),
            policy: None,
            counters: Vec::new(),
            previous_root: self.tree.root(),
        })
        .unwrap();
        self.leaves.push(record.leaf_bytes().to_vec());
        self.tree.append(record.leaf_hash());
        index
    }

    /// A checkpoint of the tree as it is, cosigned by these boots.
    pub fn note(&self, cosigners: &[&Node]) -> String {
        let checkpoint = Checkpoint::new(&self.origin(), self.tree.size(), self.tree.root());
        let time = UnixSeconds::from(now());
        let lines: Vec<NoteSignature> = cosigners
            .iter()
            .map(|node| {
                let id = node.boot.record(&node.name, Vec::new()).id();
                let key = node.boot.key.verifying_key().to_bytes();
                let key = self.origin().boot_key(&id, &key).unwrap();
                let signature = node.boot.key.sign(&checkpoint.cosignature_message(time));
                NoteSignature::cosignature(&key, time, &signature.to_bytes())
            })
            .collect();
        SignedNote::assemble(&checkpoint.body(), &lines).unwrap().to_string()
    }

    pub fn inclusion(&self, index: u64) -> InclusionReceipt {
        let two: Vec<&Node> = self.nodes.values().take(2).collect();
        self.inclusion_by(index, &two)
    }
    pub fn inclusion_by(&self, index: u64, cosigners: &[&Node]) -> InclusionReceipt {
        InclusionReceipt {
            leaf: self.leaves[usize::try_from(index).unwrap()].clone(),
            proof: self.tree.inclusion_proof(index, self.tree.size()).unwrap(),
            checkpoint: self.note(cosigners),
        }
    }

    pub fn ecdsa(key: &k256::ecdsa::SigningKey, digest: &[u8; 32]) -> Vec<u8> {
        let (signature, id) = key.sign_prehash_recoverable(digest).unwrap();
        [&signature.to_bytes()[..], &[id.to_byte()]].concat()
    }

    /// Signs as an honest cluster would: once for each request id.
    pub fn sign(&mut self, stamp: &Stamp, body: &[u8]) -> Answer {
        let request = SignRequest::parse(body).unwrap();
        let at = (stamp.credential, request.request_id);
        let digest = payload::decode(&self.id, &request.payload).unwrap().digest;
        if !self.signed.contains_key(&at) {
            let allowed = Verdict::Allowed(Allowed {
                principal: PrincipalId::new("agent:research").unwrap(),
                grant: GrantId::new("payments").unwrap(),
                key: request.key.clone(),
                path: request.path.clone(),
                epoch: 0,
                digest,
                release_by: now(),
            });
            let entry = EntryBody::Request { stamp: stamp.clone(), body: body.to_vec() };
            let index = self.append(entry, allowed);
            let signature = Self::ecdsa(&self.key, &digest);
            let entry = EntryBody::Signed {
                credential: at.0,
                request_id: at.1,
                signature: signature.clone(),
            };
            let signed_index = self.append(entry, Verdict::accepted());
            self.signed.insert(at, (body.to_vec(), index, signed_index, signature));
        }
        let (_, index, signed_index, signature) = self.signed[&at].clone();
        Answer::Signed(Box::new(Signed {
            digest,
            signature,
            public_key: self.public_key(),
            raw_transaction: None,
            receipt: Receipt {
                allowed: self.inclusion(index),
                signed: self.inclusion(signed_index),
            },
        }))
    }

    /// A denial in a node's hand.
    pub fn denial(&self, node: &Node, about: (&Stamp, &[u8]), code: DenialCode) -> SignedDenial {
        let (credential, subject) = (Some(about.0.credential), Hash32::new(sha256(about.1)));
        self.denial_of(&node.name, credential, subject, Denial::new(code, "denied by a test"))
    }

    pub fn denial_of(
        &self,
        node: &NodeName,
        credential: Option<CredentialId>,
        subject: Hash32,
        denial: Denial,
    ) -> SignedDenial {
        let node = &self.nodes[node];
        let mut denial = SignedDenial {
            credential,
            subject,
            denial,
            at: self.now(),
            index: Some(5),
            boot: node.boot.record(&node.name, Vec::new()).id(),
            signature: [0; 64],
        };
        denial.signature = node.boot.key.sign(&denial.signing_bytes(&self.id)).to_bytes();
        denial
    }

    pub fn key_view(&self) -> KeyView {
        KeyView {
            name: KeyName::new(KEY).unwrap(),
            scheme: Scheme::EcdsaSecp256k1,
            live: Some(LiveKeyView {
                public_key: self.public_key(),
                chain_code: self.chain_code,
                epoch: 0,
                index: self.key_live,
                receipt: Some(self.inclusion(self.key_live)),
                without_share: Vec::new(),
            }),
        }
    }

    fn cluster_view(&self, node: &Node) -> ClusterView {
        ClusterView {
            genesis: self.id,
            incarnation: Incarnation(0),
            node: node.name.clone(),
            now: self.now(),
            ledger_time: self.now(),
            size: self.tree.size(),
            root: self.tree.root(),
            version: 1,
            confirmed: true,
            change_head: self.change_head,
            policy: self.policy.as_ref().map(|(hash, _)| *hash),
            pending_changes: Vec::new(),
            freezes: self.freezes.clone(),
            boots: self
                .nodes
                .values()
                .map(|node| BootView {
                    node: node.name.clone(),
                    boot: node.boot.record(&node.name, Vec::new()).id(),
                    key: node.boot.key.verifying_key().to_bytes(),
                    measurement: self.images[0].clone(),
                    admitted: now(),
                    reachable: true,
                })
                .collect(),
            images: self.images.clone(),
        }
    }

    /// A node's reply under a nonce.
    pub fn reply(&self, node: &Node, kind: ReplyKind, nonce: &[u8; 32]) -> Vec<u8> {
        let reply = match kind {
            ReplyKind::Attestation => Reply::Attested(Box::new(self.attested(node, nonce))),
            ReplyKind::Cluster => Reply::Cluster(Box::new(self.cluster_view(node))),
            ReplyKind::Keys => {
                let made = self.made_keys.iter().map(|(name, scheme)| KeyView {
                    name: name.clone(),
                    scheme: *scheme,
                    live: self.key_view().live.map(|live| LiveKeyView { receipt: None, ..live }),
                });
                Reply::Keys(std::iter::once(self.key_view()).chain(made).collect())
            }
            ReplyKind::PendingRequests => Reply::PendingRequests(self.pending.clone()),
        };
        let reply = match &node.replies {
            Some(lie) => lie(self, reply),
            None => reply,
        };
        let bytes = cbor::encode(&reply);
        let boot = node.boot.record(&node.name, Vec::new()).id();
        let message = SignedReply::signing_bytes(&self.id, nonce, &boot, &bytes);
        let signature = node.boot.key.sign(&message).to_bytes();
        reply::body(kind, &SignedReply { reply: bytes, boot, signature }).unwrap()
    }

    pub fn attested(&self, node: &Node, nonce: &[u8; 32]) -> BootRecord {
        let scope = Hash32::new(*self.id.as_bytes());
        let user_data = node.boot.record(&node.name, Vec::new()).user_data(&scope);
        let evidence =
            node.nsm.attest(Some(user_data.as_bytes()), Some(nonce), None, now().0).unwrap();
        node.boot.record(&node.name, evidence)
    }

    /// What a node answers to a stamped request.
    pub fn answer(&mut self, node: &NodeName, stamp: Stamp, body: Vec<u8>) -> Rendered {
        let honest = self.sign(&stamp, &body);
        let lie = {
            let node = self.nodes.get_mut(node).unwrap();
            node.asked.push((stamp, body));
            node.answers.clone()
        };
        let answer = match lie {
            Some(lie) => lie(self, honest),
            None => honest,
        };
        Rendered::of(&answer).unwrap()
    }
}
