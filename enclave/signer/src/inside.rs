//! Three nodes seen from inside: what only a test can bring about.

mod left;
mod links;
mod recovery;

use std::collections::{BTreeSet, VecDeque};

use casemate_ledger::{Attachment, Committed, Entry, EntryBody, State};
use casemate_policy::{ChargeBook, Policy};
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, NamedSignature, SignedChange, SignedStatement,
};
use casemate_proto::hash::sha256;
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{
    GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement, NodeSpec,
    RecoveryKeys,
};
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::stamp::{Method, Stamp};
use casemate_proto::{
    Algorithm, DerivationPath, KeyName, Millis, NodeName, PublicKey, RequestId, Scheme, UnixMillis,
};
use casemate_sim::{EnclaveSpec, SimHost, SimNsm};
use casemate_threshold::Purpose;
use casemate_threshold::{KeyEpoch, KeyRef, RunContext, RunRegistry, RunSpec};
use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::OsRng;

use crate::answer::{Answer, Submission, Ticket};
use crate::{BootSecret, Bytes, Event, Node, NodeConfig, Output, PeerMessage};

mod ahead;

const REGIONS: [&str; 3] = ["eu-west-1", "sa-east-1", "us-east-1"];
const POLICY: &str = r#"
version = 1
name = "inside"
expires = "2027-11-20T00:00:00Z"

[[principal]]
id = "agent:one"
credentials = [{ alg = "ed25519", public_key = "$AGENT" }]

[[grant]]
id = "notes"
key = "notary"
principals = ["agent:one"]
allow = ["message"]
limits = [{ count = 2, window = "1h" }]
"#;

fn person(seed: u8) -> (SigningKey, PublicKey) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let public = PublicKey::new(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap();
    (key, public)
}

fn notary() -> KeyName {
    KeyName::new("notary").unwrap()
}

struct Trio {
    nodes: Vec<Node>,
    inboxes: Vec<VecDeque<Event>>,
    proposals: VecDeque<(EntryBody, Option<Attachment>)>,
    now: UnixMillis,
    /// Pairs between which nothing goes, whatever the nodes know of it.
    cut: BTreeSet<(usize, usize)>,
    /// Messages that get lost.
    lose: fn(&PeerMessage) -> bool,
    /// Nodes whose proposals get lost.
    mute: Vec<usize>,
    /// Messages of runs that nodes sent.
    run_messages: usize,
    requests: u8,
    nsms: Vec<SimNsm>,
    genesis: GenesisRecord,
}

impl Trio {
    fn up() -> Self {
        let keys = [101, 102, 103].map(|seed| {
            let bytes = zeroize::Zeroizing::new([seed; 32]);
            casemate_recovery::RecoverySecretKey::from_bytes(bytes).unwrap().public()
        });
        Self::with_recovery(Some(RecoveryKeys { keys: keys.to_vec() }))
    }

    fn without_recovery() -> Self {
        Self::with_recovery(None)
    }

    fn with_recovery(recovery: Option<RecoveryKeys>) -> Self {
        let now = UnixMillis(1_795_168_800_000);
        let host = SimHost::new().unwrap();
        let image = Measurement { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] };
        let started: Vec<_> = (0_u32..)
            .zip(REGIONS)
            .map(|(number, region)| {
                let spec = EnclaveSpec::numbered(number, region, [[1; 48], [2; 48], [3; 48]]);
                (NodeName::new(region).unwrap(), host.start(spec))
            })
            .collect();
        let manifest = Manifest {
            version: 1,
            name: "inside".to_owned(),
            threshold: 2,
            nodes: started
                .iter()
                .map(|(name, nsm)| NodeSpec {
                    name: name.clone(),
                    region: name.to_string(),
                    pcr3: nsm.enclave().pcrs().into_iter().find(|(i, _)| *i == 3).unwrap().1,
                })
                .collect(),
            measurements: vec![image],
            governance: Governance {
                quorum: 2,
                keys: (1..=3).map(|seed| person(seed).1).collect(),
                loosening_delay: Millis(3_600_000),
            },
            freezers: vec![person(40).1],
            limits: Limits::default(),
            independence: Independence::None,
            hardware: Hardware::OneProcess,
            trust_root: Hash32::new(sha256(host.root_der())),
            relying_party: None,
            recovery,
        };
        let scope = GenesisRecord::manifest_hash(&manifest);
        let secrets: Vec<BootSecret> =
            started.iter().map(|_| BootSecret::generate(&mut OsRng)).collect();
        let boots = started
            .iter()
            .zip(&secrets)
            .map(|((name, nsm), secret)| {
                let user_data = secret.user_data(name, &scope);
                let document = nsm.attest(Some(user_data.as_bytes()), None, None, now.0).unwrap();
                secret.record(name, document)
            })
            .collect();
        let genesis = GenesisRecord { manifest, boots, at: now };
        let nodes: Vec<Node> = started
            .iter()
            .zip(secrets)
            .map(|((name, _), secret)| {
                let config = NodeConfig::default();
                Node::birth(secret, name, &genesis, config, Box::new(OsRng)).unwrap()
            })
            .collect();
        let first = EntryBody::Genesis { id: genesis.id() };
        let beside = Attachment::Genesis(casemate_proto::cbor::encode(&genesis));
        let mut trio = Self {
            inboxes: nodes.iter().map(|_| VecDeque::new()).collect(),
            nodes,
            proposals: VecDeque::from([(first, Some(beside))]),
            now,
            cut: BTreeSet::new(),
            lose: |_| false,
            mute: Vec::new(),
            run_messages: 0,
            requests: 0,
            nsms: started.into_iter().map(|(_, nsm)| nsm).collect(),
            genesis,
        };
        trio.work(100);
        trio.govern(Change::ConfirmGenesis, None);
        trio
    }

    fn state(&self) -> &State {
        self.nodes[0].state()
    }

    /// Works for so long, in steps of 50 ms.
    fn work(&mut self, milliseconds: u64) {
        let until = self.now.saturating_add(Millis(milliseconds));
        while self.now < until {
            self.now = self.now.saturating_add(Millis(50));
            self.inboxes.iter_mut().for_each(|inbox| inbox.push_back(Event::Tick));
            while self.round() {}
        }
    }

    fn round(&mut self) -> bool {
        for (body, beside) in std::mem::take(&mut self.proposals) {
            let entry = Entry { at: self.now, body };
            for inbox in &mut self.inboxes {
                let committed = Committed::dangerous_assume(entry.clone(), beside.clone());
                inbox.push_back(Event::Committed(committed));
            }
        }
        let mut worked = false;
        for at in 0..self.nodes.len() {
            for event in std::mem::take(&mut self.inboxes[at]) {
                worked = true;
                let from = self.nodes[at].name().clone();
                for output in self.nodes[at].handle(event, self.now) {
                    self.route(&from, output);
                }
            }
        }
        worked
    }

    fn route(&mut self, from: &NodeName, output: Output) {
        match output {
            Output::Propose { body, attachment, .. } => {
                let by = REGIONS.iter().position(|region| *region == from.as_str()).unwrap();
                if !self.mute.contains(&by) {
                    self.proposals.push_back((body, attachment));
                }
            }
            Output::Send { to, bytes } => {
                let message = PeerMessage::decode(bytes.as_slice()).unwrap();
                if matches!(message, PeerMessage::Run(_)) {
                    self.run_messages = self.run_messages.saturating_add(1);
                }
                let place = |of: &str| REGIONS.iter().position(|region| *region == of).unwrap();
                let (at, by) = (place(to.as_str()), place(from.as_str()));
                if self.cut.contains(&(at.min(by), at.max(by))) || (self.lose)(&message) {
                    return;
                }
                let bytes = Bytes::new(message.encode());
                self.inboxes[at].push_back(Event::Peer { from: from.clone(), bytes });
            }
            Output::Halt { reason } => panic!("{reason}"),
            _ => {}
        }
    }

    fn propose(&mut self, body: EntryBody, beside: Option<Attachment>) {
        self.proposals.push_back((body, beside));
        self.work(50);
    }

    /// What one says who may freeze.
    fn freeze(&self, seed: u8, nonce: u8) -> SignedStatement {
        let (key, public) = person(seed);
        let (genesis, incarnation) = (self.state().genesis(), self.state().incarnation());
        let statement = FreezerStatement::Freeze { nonce: [nonce; 16] };
        let id = SignedStatement::id_of(&genesis, incarnation, self.now, &statement);
        let signature = key.sign(&SignedStatement::signing_bytes(&id)).to_bytes();
        let by = NamedSignature { credential: public.id(), signature };
        SignedStatement { genesis, incarnation, at: self.now, statement, by }
    }

    fn govern(&mut self, change: Change, beside: Option<Attachment>) {
        let signed = self.signed_change(change);
        self.propose(EntryBody::Governance(signed), beside);
    }

    fn signed_change(&self, change: Change) -> SignedChange {
        let state = self.state();
        let envelope = ChangeEnvelope {
            genesis: state.genesis(),
            incarnation: state.incarnation(),
            predecessor: state.change_head(),
            expires: self.now.saturating_add(Millis(600_000)),
            change,
        };
        let message = envelope.signing_bytes();
        let sign = |seed| {
            let (key, public) = person(seed);
            NamedSignature { credential: public.id(), signature: key.sign(&message).to_bytes() }
        };
        let signatures = vec![sign(1), sign(2)];
        SignedChange { envelope, signatures }
    }

    fn create_notary(&mut self) {
        self.govern(Change::CreateKey { name: notary(), scheme: Scheme::Ed25519 }, None);
        self.work(500);
    }

    fn permit_notes(&mut self) {
        let (_, agent) = person(20);
        let text = POLICY.replace("$AGENT", &format!("0x{}", hex::encode(agent.as_bytes())));
        let policy = Policy::from_toml(&text).unwrap();
        let beside = Attachment::Policy(policy.canonical_bytes());
        self.govern(Change::SetPolicy { policy: policy.policy_hash() }, Some(beside));
    }

    /// Has a message committed. Whether it is allowed, and signed in the end.
    fn note(&mut self) -> (bool, bool) {
        let id = self.ask_for_note();
        let (credential, known) = (person(20).1.id(), self.state());
        let known = known.request(&credential, &id).unwrap();
        let denied = matches!(known.status, casemate_ledger::state::RequestStatus::Denied(_));
        self.work(20_000);
        (!denied, self.state().is_signed(&credential, &id))
    }

    /// Has a message committed.
    fn ask_for_note(&mut self) -> RequestId {
        let (entry, id) = self.ask();
        self.propose(entry, None);
        id
    }

    /// A fresh request to sign a message.
    fn ask(&mut self) -> (EntryBody, RequestId) {
        self.requests = self.requests.saturating_add(1);
        let (key, public) = person(20);
        let request = SignRequest {
            request_id: RequestId::new([self.requests; 16]),
            key: notary(),
            path: DerivationPath::root(),
            payload: Payload::Message(vec![self.requests]),
        };
        let body = request.to_body().into_bytes();
        let (credential, issued_at) = (public.id(), self.now);
        let expires_at = issued_at.saturating_add(Millis(120_000));
        let scope = self.state().stamp_scope(Method::CreateRequest);
        let preimage = Stamp::preimage(&scope, &credential, issued_at, expires_at, &[5; 16], &body);
        let signature = key.sign(&preimage).to_bytes();
        let stamp = Stamp { credential, issued_at, expires_at, nonce: [5; 16], signature };
        (EntryBody::Request { stamp, body }, request.request_id)
    }

    /// The same states, but that nothing was ever charged: replication that lies.
    fn forget_charges(&mut self) {
        for node in &mut self.nodes {
            let empty = ChargeBook::new(node.state.window_slack());
            let (full, bare) = (node.state.charges().to_snapshot(), empty.to_snapshot());
            let as_cbor = |bytes: &[u8]| {
                let mut out = Vec::new();
                minicbor::Encoder::new(&mut out).bytes(bytes).unwrap();
                out
            };
            let (full, bare) = (as_cbor(&full), as_cbor(&bare));
            let snapshot = node.state.to_snapshot();
            let at = snapshot.windows(full.len()).position(|w| w == full).unwrap();
            let (before, behind) = snapshot.split_at(at);
            let altered = [before, &bare, behind.strip_prefix(full.as_slice()).unwrap()].concat();
            node.state = State::from_snapshot(&altered).unwrap();
            assert!(node.state.charges().is_empty());
        }
    }
}

#[test]
fn i5_boot_stops_at_a_limit_by_itself_where_the_ledger_forgot_what_was_charged() {
    let mut trio = Trio::up();
    trio.create_notary();
    trio.permit_notes();
    assert_eq!(
        [trio.note(), trio.note(), trio.note()],
        [(true, true), (true, true), (false, false)]
    );
    // each boot releases two shares and a signature takes two of the three: three in all, whatever
    // the ledger says
    let mut more = 0;
    for _ in 0..4 {
        trio.forget_charges();
        let (allowed, signed) = trio.note();
        assert!(allowed, "the ledger has forgotten");
        more += usize::from(signed);
    }
    assert!(more <= 1, "{more} more than the limit");
    let before = trio.run_messages;
    trio.forget_charges();
    assert_eq!(trio.note(), (true, false));
    assert_eq!(trio.run_messages, before, "not one message of a run");
    for node in &trio.nodes {
        let counters = node.stats().counters();
        let refused =
            counters.iter().find(|(name, _)| name == "releases_refused_by_tally").unwrap().1;
        assert!(refused > 0, "{}", node.name());
    }
    // the window passes, for the tally as well
    trio.now = trio.now.saturating_add(Millis(3_600_000));
    trio.work(50);
    assert_eq!(trio.note(), (true, true));
}

/// Uses up a registry's whole memory with runs of a late entry.
fn flood(
    registry: &mut RunRegistry,
    trio: &State,
    participants: &casemate_threshold::Participants,
) {
    let late = 1_000_000;
    for number in 0..=u64::try_from(RunRegistry::CAPACITY).unwrap() {
        let context = RunContext::new(RunSpec {
            genesis: trio.genesis(),
            incarnation: trio.incarnation(),
            purpose: Purpose::Ed25519Test { key: KeyRef { name: notary(), epoch: KeyEpoch(0) } },
            participants: participants.clone(),
            threshold: 2,
            log_index: if number == 0 { late - 1 } else { late },
            entry: Hash32::new([0; 32]),
            attempt: number,
        });
        registry.claim(context.unwrap(), UnixMillis(0)).unwrap();
    }
}

#[test]
fn key_is_generated_and_tested_however_many_runs_of_later_entries_there_were() {
    let mut trio = Trio::up();
    for (at, pair) in [[0, 1], [1, 2], [0, 2]].into_iter().enumerate() {
        let pair = pair.map(|of: usize| NodeName::new(REGIONS[of]).unwrap());
        let node = &mut trio.nodes[at];
        let participants = node.run_participants(&pair).unwrap();
        let state = node.state.clone();
        flood(&mut node.registry, &state, &participants);
    }
    trio.create_notary();
    assert_eq!(trio.state().key_epoch(&notary()), Some(0));
    assert!(trio.nodes.iter().all(|node| node.keys() == (1, 1)));
}

#[test]
fn freeze_and_change_are_taken_where_nothing_else_is_and_everybody_who_asks_waits() {
    let mut trio = Trio::up();
    trio.create_notary();
    trio.permit_notes();
    let most = trio.nodes[0].config.max_waiting;
    let (request, _) = trio.ask();
    let EntryBody::Request { stamp, body } = request else { panic!() };
    let submit = |trio: &mut Trio, ticket: u64, submission: Submission| {
        let (ticket, now) = (Ticket(ticket), trio.now);
        trio.nodes[0].handle(Event::Submit { ticket, submission }, now)
    };
    let is_busy = |out: &[Output]| {
        out.iter().any(|o| matches!(o, Output::Answer { answer: Answer::Busy { .. }, .. }))
    };
    let proposes = |out: &[Output]| out.iter().any(|o| matches!(o, Output::Propose { .. }));
    for ticket in 0..u64::try_from(most).unwrap() {
        let submission = Submission::Request { stamp: stamp.clone(), body: body.clone() };
        assert!(!is_busy(&submit(&mut trio, ticket, submission)), "{ticket}");
    }
    let submission = Submission::Request { stamp, body };
    assert!(is_busy(&submit(&mut trio, 5_000, submission)), "full");

    // who signs for nothing is refused for that
    let forged = trio.freeze(41, 1);
    let out = submit(&mut trio, 5_001, Submission::Statement(forged));
    assert!(!trio.nodes[0].is_frozen() && !proposes(&out) && !is_busy(&out));
    let change = Change::RevokeCredential { credential: person(20).1.id() };
    let signed = trio.signed_change(change);
    let submission = Submission::Governance { signed, attachment: None };
    assert!(proposes(&submit(&mut trio, 5_002, submission)));
    let freeze = trio.freeze(40, 1);
    let out = submit(&mut trio, 5_003, Submission::Statement(freeze));
    assert!(trio.nodes[0].is_frozen(), "obeyed at once");
    assert!(proposes(&out) && out.iter().any(|o| matches!(o, Output::Send { .. })), "passed on");
    // those who wait for one statement are bounded too, and what they say is obeyed
    for ticket in 6_000..6_200 {
        let again = trio.freeze(40, 1);
        let _ = submit(&mut trio, ticket, Submission::Statement(again));
    }
    assert!(trio.nodes[0].requests.len() <= most + crate::requests::MAX_URGENT);
}

#[test]
fn what_a_leader_that_is_gone_did_not_append_is_proposed_to_the_next_at_once() {
    let mut trio = Trio::up();
    trio.create_notary();
    trio.permit_notes();
    let (request, _) = trio.ask();
    let EntryBody::Request { stamp, body } = request.clone() else { panic!() };
    let (now, submission) = (trio.now, Submission::Request { stamp, body });
    let ticket = Ticket(1);
    let proposes = |out: &[Output]| {
        out.iter().any(|o| matches!(o, Output::Propose { body, .. } if *body == request))
    };
    assert!(proposes(&trio.nodes[0].handle(Event::Submit { ticket, submission }, now)));
    // and is lost; meanwhile nobody is asked again
    let later = now.saturating_add(Millis(1_000));
    assert!(!proposes(&trio.nodes[0].handle(Event::Tick, later)));
    assert!(proposes(&trio.nodes[0].handle(Event::Elected, later)));
    assert!(!proposes(&trio.nodes[0].handle(Event::Tick, later)), "once");
}

#[test]
fn runs_and_entries_are_counted() {
    let mut trio = Trio::up();
    trio.create_notary();
    for node in &trio.nodes {
        let status = node.status(trio.now);
        let count = |name: &str| status.counters.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(count("entries_applied"), status.size);
        assert!(count("key_runs_done") >= 2, "a generation and a test");
        assert_eq!((status.keys, status.shares), (1, 1));
        let (_, took) = status.durations.iter().find(|(name, _)| name == "key_run").unwrap();
        assert_eq!(took[12], count("key_runs_done"));
    }
}

#[test]
fn replication_s_word_of_another_root_counts_like_a_peer_s_own() {
    let mut trio = Trio::up();
    let (now, size, root) = (trio.now, trio.state().size(), trio.state().root());
    let [first, second] = [1, 2].map(|at| NodeName::new(REGIONS[at]).unwrap());
    let dispute = |from: &NodeName, size, root| Event::Dispute { from: from.clone(), size, root };
    let other = Hash32::new([7; 32]);
    let node = &mut trio.nodes[0];
    let _ = node.handle(dispute(&first, size, root), now);
    let _ = node.handle(dispute(&first, size + 1, other), now);
    let _ = node.handle(dispute(&NodeName::new("mars-1").unwrap(), size, other), now);
    assert!(node.disputes().is_empty(), "the same root, a size that is not there, a stranger");
    let _ = node.handle(dispute(&first, size, other), now);
    let _ = node.handle(dispute(&first, size, other), now);
    assert!(!node.is_halted(), "one peer halts nobody");
    let out = node.handle(dispute(&second, size, other), now);
    assert!(matches!(out.as_slice(), [Output::Halt { .. }]) && node.is_halted());
}
