//! All three end at once, and a recovery begins them anew.

use casemate_ledger::state::RequestStatus;
use casemate_proto::recovery::{
    LedgerName, RecoveryBoot, RecoveryCertificate, RecoveryError, RecoveryGranted, RecoveryOffer,
    SignedCertificate, recovery_scope,
};
use casemate_proto::{DenialCode, Incarnation};
use casemate_recovery::{RecoverySecretKey, Release, SealedBlob};
use casemate_seal::OpenError;
use zeroize::Zeroizing;

use super::*;
use crate::{NotRecovered, RecoveryParts};

/// What is left of a cluster: what its hosts and its auditors have on disks.
struct Remains {
    genesis: GenesisRecord,
    nsms: Vec<SimNsm>,
    snapshot: Vec<u8>,
    tail: Vec<u8>,
    blobs: Vec<SealedBlob>,
    now: UnixMillis,
}

/// A boot that was started for a recovery.
struct Fresh {
    secret: Option<BootSecret>,
    key: RecoverySecretKey,
    offer: RecoveryOffer,
}

fn hot() -> KeyName {
    KeyName::new("hot").unwrap()
}

fn governors_key(seed: u8) -> RecoverySecretKey {
    RecoverySecretKey::from_bytes(Zeroizing::new([seed; 32])).unwrap()
}

/// A cluster with keys of two schemes and a policy.
fn working() -> Trio {
    let mut trio = Trio::up();
    trio.create_notary();
    trio.govern(Change::CreateKey { name: hot(), scheme: Scheme::EcdsaSecp256k1 }, None);
    for _ in 0..20 {
        if trio.state().key_epoch(&hot()).is_none() {
            trio.work(1_000);
        }
    }
    trio.set_policy();
    trio
}

impl Trio {
    fn set_policy(&mut self) {
        let (_, agent) = person(20);
        let text = POLICY.replace("$AGENT", &format!("0x{}", hex::encode(agent.as_bytes())));
        let policy = Policy::from_toml(&text).unwrap();
        let beside = Attachment::Policy(policy.canonical_bytes());
        self.govern(Change::SetPolicy { policy: policy.policy_hash() }, Some(beside));
    }

    fn public_key(&self, name: &KeyName) -> Vec<u8> {
        self.state().keys()[name].live.as_ref().unwrap().public_key.clone()
    }

    /// All end at once.
    fn end(mut self) -> Remains {
        let blobs = self.nodes.iter_mut().map(|node| node.seal().unwrap()).collect();
        let node = &self.nodes[0];
        Remains {
            snapshot: node.state.to_snapshot(),
            tail: node.publisher.tail(&node.tree).unwrap(),
            blobs,
            genesis: self.genesis,
            nsms: self.nsms,
            now: self.now,
        }
    }
}

impl Remains {
    fn fresh(&self, to: Incarnation) -> Vec<Fresh> {
        let scope = recovery_scope(&self.genesis.id(), to);
        let one = |(spec, nsm): (&NodeSpec, &SimNsm)| {
            let secret = BootSecret::generate(&mut OsRng);
            let key = RecoverySecretKey::generate(&mut OsRng).unwrap();
            let user_data = secret.user_data(&spec.name, &scope);
            let at = self.now.0;
            let document = nsm.attest(Some(user_data.as_bytes()), None, None, at).unwrap();
            let record = secret.record(&spec.name, document);
            let message = RecoveryOffer::signing_bytes(&scope, &record.id(), &key.public());
            let signature = secret.sign_recovery_offer(&message).unwrap();
            let offer = RecoveryOffer { record, recovery_key: key.public(), signature };
            Fresh { secret: Some(secret), key, offer }
        };
        self.genesis.manifest.nodes.iter().zip(&self.nsms).map(one).collect()
    }

    fn certificate(&self, fresh: &[Fresh], to: Incarnation) -> RecoveryCertificate {
        let state = State::from_snapshot(&self.snapshot).unwrap();
        let boots = fresh.iter().zip(&self.blobs).map(|(fresh, blob)| RecoveryBoot {
            offer: fresh.offer.clone(),
            sealed: Some(blob.hash()),
        });
        RecoveryCertificate {
            version: 1,
            genesis: self.genesis.id(),
            former: state.incarnation(),
            incarnation: to,
            at: self.now,
            expires: self.now.saturating_add(Millis(600_000)),
            ledger: LedgerName {
                size: state.size(),
                root: state.root(),
                state: State::snapshot_hash(&self.snapshot),
            },
            policy: state.policy().map(|(_, hash)| hash),
            images: state.images().iter().cloned().collect(),
            revoked: state.revoked().iter().copied().collect(),
            boots: boots.collect(),
        }
    }

    fn signed(certificate: RecoveryCertificate) -> SignedCertificate {
        let message = certificate.signing_bytes();
        let sign = |seed| {
            let (key, public) = person(seed);
            NamedSignature { credential: public.id(), signature: key.sign(&message).to_bytes() }
        };
        SignedCertificate { certificate, signatures: vec![sign(1), sign(3)] }
    }

    fn granted(&self, signed: &SignedCertificate) -> RecoveryGranted {
        signed.verify(self.genesis.id(), &self.genesis.manifest, Some(self.now)).unwrap()
    }

    fn releases(&self, signed: &SignedCertificate, blob: &SealedBlob) -> Vec<Release> {
        let granted = self.granted(signed);
        let manifest = &self.genesis.manifest;
        [101, 102]
            .map(|seed| {
                Release::make(&granted, manifest, blob, &governors_key(seed), &mut OsRng).unwrap()
            })
            .to_vec()
    }

    fn parts<'a>(
        &'a self,
        certificate: &'a SignedCertificate,
        blob: Option<&'a SealedBlob>,
        releases: &'a [Release],
    ) -> RecoveryParts<'a> {
        let (snapshot, tail) = (self.snapshot.as_slice(), self.tail.as_slice());
        RecoveryParts { certificate, snapshot, tail, blob, releases, data_key: None }
    }

    fn begin(
        &self,
        fresh: &mut Fresh,
        parts: &RecoveryParts<'_>,
        now: UnixMillis,
    ) -> Result<Node, NotRecovered> {
        let name = fresh.offer.record.node.clone();
        let entropy: Box<dyn crate::Entropy> = Box::new(OsRng);
        let with = (NodeConfig::default(), entropy);
        Node::recover(&mut fresh.secret, &fresh.key, &name, &self.genesis, parts, with, now)
    }

    /// Everything in order: three nodes of the next incarnation.
    fn recover(self) -> (Trio, SignedCertificate) {
        self.recover_without(None)
    }

    /// The same, with one node that has lost its blob.
    fn recover_without(self, lost: Option<usize>) -> (Trio, SignedCertificate) {
        let former = State::from_snapshot(&self.snapshot).unwrap().incarnation();
        let to = Incarnation(former.0.checked_add(1).unwrap());
        let mut fresh = self.fresh(to);
        let mut certificate = self.certificate(&fresh, to);
        if let Some(boot) = lost.and_then(|lost| certificate.boots.get_mut(lost)) {
            boot.sealed = None;
        }
        let signed = Self::signed(certificate);
        let nodes: Vec<Node> = fresh
            .iter_mut()
            .zip(&self.blobs)
            .enumerate()
            .map(|(at, (fresh, blob))| {
                let blob = (lost != Some(at)).then_some(blob);
                let releases = blob.map(|blob| self.releases(&signed, blob)).unwrap_or_default();
                self.begin(fresh, &self.parts(&signed, blob, &releases), self.now).unwrap()
            })
            .collect();
        let mut trio = Trio {
            inboxes: nodes.iter().map(|_| VecDeque::new()).collect(),
            nodes,
            proposals: VecDeque::new(),
            now: self.now,
            cut: BTreeSet::new(),
            lose: |_| false,
            mute: Vec::new(),
            run_messages: 0,
            requests: 100,
            nsms: self.nsms,
            genesis: self.genesis,
        };
        trio.work(100);
        (trio, signed)
    }
}

/// One boot of a recovery in which everything but what `change` does is in order.
fn refused(
    change: impl FnOnce(&mut Remains, &mut Vec<Fresh>, &mut RecoveryCertificate),
) -> NotRecovered {
    let mut remains = with_notary().end();
    let mut fresh = remains.fresh(Incarnation(1));
    let mut certificate = remains.certificate(&fresh, Incarnation(1));
    change(&mut remains, &mut fresh, &mut certificate);
    let signed = Remains::signed(certificate);
    let releases = remains.releases(&signed, &remains.blobs[0]);
    let parts = remains.parts(&signed, Some(&remains.blobs[0]), &releases);
    let error = remains.begin(&mut fresh[0], &parts, remains.now).unwrap_err();
    assert!(fresh[0].secret.is_some(), "the boot can be handed other parts");
    error
}

/// A cluster with one key and a policy.
fn with_notary() -> Trio {
    let mut trio = Trio::up();
    trio.create_notary();
    trio.set_policy();
    trio
}

#[test]
fn all_enclaves_end_at_once_and_the_keys_sign_again_after_a_recovery() {
    let trio = working();
    let (notary_key, hot_key) = (trio.public_key(&notary()), trio.public_key(&hot()));
    let epoch = trio.state().key_epoch(&hot()).unwrap();
    let (mut trio, signed) = trio.end().recover();
    assert_eq!(trio.state().incarnation(), Incarnation(1));
    for node in &trio.nodes {
        assert!(node.state().is_frozen());
        assert_eq!(node.state().root(), trio.state().root());
        assert_eq!(node.keys(), (2, 2), "{}", node.name());
    }
    assert_eq!(trio.note(), (false, false), "frozen");

    // shares that old enclaves held are worth nothing once the new ones have made others
    let is_fresh =
        |trio: &Trio| trio.state().keys().values().all(|key| key.live.as_ref().unwrap().is_fresh);
    for _ in 0..30 {
        if !is_fresh(&trio) {
            trio.work(1_000);
        }
    }
    assert!(is_fresh(&trio) && trio.state().key_epoch(&hot()).unwrap() > epoch);
    assert_eq!(trio.public_key(&notary()), notary_key);
    assert_eq!(trio.public_key(&hot()), hot_key);

    trio.govern(Change::Unfreeze { freeze: signed.certificate.id() }, None);
    assert!(!trio.state().is_frozen());
    assert_eq!(trio.note(), (false, false), "what was charged in the window is not known");
    let window = Millis(3_600_000).saturating_add(trio.state().slack());
    trio.now = signed.certificate.expires.saturating_add(window);
    trio.work(50);
    assert_eq!(trio.note(), (true, true));
}

#[test]
fn node_without_a_blob_gets_its_share_of_every_key_from_the_others() {
    let (mut trio, signed) = working().end().recover_without(Some(1));
    let with_blob = signed.certificate.boots.iter().filter(|boot| boot.sealed.is_some());
    assert_eq!(with_blob.count(), 2);
    for _ in 0..60 {
        if trio.nodes[1].keys() != (2, 2) {
            trio.work(1_000);
        }
    }
    for node in &trio.nodes {
        assert_eq!(node.keys(), (2, 2), "{}", node.name());
    }
}

#[test]
fn a_recovered_cluster_is_recovered_again() {
    let (trio, _) = with_notary().end().recover();
    let (mut trio, signed) = trio.end().recover();
    assert_eq!(trio.state().incarnation(), Incarnation(2));
    trio.govern(Change::Unfreeze { freeze: signed.certificate.id() }, None);
    // that of the first recovery was never lifted
    assert!(trio.state().is_frozen());
}

#[test]
fn i6_an_older_snapshot_than_the_certificate_names_begins_nothing() {
    let old = Trio::up().state().to_snapshot();
    let error = refused(|remains, _, _| remains.snapshot.clone_from(&old));
    assert!(matches!(error, NotRecovered::OtherSnapshot { .. }), "{error}");
}

#[test]
fn i6_a_certificate_for_another_root_than_the_snapshots_begins_nothing() {
    let error = refused(|_, _, certificate| certificate.ledger.root = Hash32::new([1; 32]));
    let NotRecovered::Refused(denial) = &error else { panic!("{error}") };
    assert!(denial.detail.contains("another ledger"), "{error}");
}

#[test]
fn i7_a_boot_that_the_certificate_does_not_name_begins_nothing() {
    let error = refused(|remains, fresh, _| {
        fresh[0] = remains.fresh(Incarnation(1)).remove(0);
    });
    assert!(matches!(error, NotRecovered::Certificate(RecoveryError::OtherBoot { .. })), "{error}");
}

#[test]
fn i7_a_boot_with_another_recovery_key_begins_nothing() {
    let error = refused(|_, fresh, _| fresh[0].key = governors_key(7));
    assert_eq!(error, NotRecovered::OtherKey);
}

#[test]
fn i7_a_certificate_begins_one_cluster_however_often_it_is_given() {
    let remains = with_notary().end();
    let mut fresh = remains.fresh(Incarnation(1));
    let signed = Remains::signed(remains.certificate(&fresh, Incarnation(1)));
    let releases = remains.releases(&signed, &remains.blobs[0]);
    let parts = remains.parts(&signed, Some(&remains.blobs[0]), &releases);
    let expires = signed.certificate.expires;
    // not after its end
    let late = remains.begin(&mut fresh[0], &parts, expires).unwrap_err();
    assert!(matches!(late, NotRecovered::Certificate(RecoveryError::Expired { .. })), "{late}");
    remains.begin(&mut fresh[0], &parts, remains.now).unwrap();
    // the same boot a second time
    let again = remains.begin(&mut fresh[0], &parts, remains.now).unwrap_err();
    assert!(matches!(again, NotRecovered::Join(_)), "{again}");
    // the same snapshot and blobs with other boots
    let mut others = remains.fresh(Incarnation(1));
    let other = remains.begin(&mut others[0], &parts, remains.now).unwrap_err();
    assert!(matches!(other, NotRecovered::Certificate(RecoveryError::OtherBoot { .. })), "{other}");
}

#[test]
fn a_blob_that_is_missing_another_nodes_or_without_enough_parts_begins_nothing() {
    let remains = with_notary().end();
    let mut fresh = remains.fresh(Incarnation(1));
    let signed = Remains::signed(remains.certificate(&fresh, Incarnation(1)));
    let releases = remains.releases(&signed, &remains.blobs[0]);
    let mut attempt = |blob, releases: &[Release]| {
        let parts = remains.parts(&signed, blob, releases);
        remains.begin(&mut fresh[0], &parts, remains.now).map(|node| node.keys())
    };
    assert_eq!(attempt(None, &releases), Err(NotRecovered::Blob { needed: true }));
    let wrong = attempt(Some(&remains.blobs[1]), &releases);
    assert!(matches!(wrong, Err(NotRecovered::Open(_))), "{wrong:?}");
    let short = attempt(Some(&remains.blobs[0]), &releases[..1]);
    assert!(
        matches!(short, Err(NotRecovered::Open(OpenError::TooFewParts { have: 1, .. }))),
        "{short:?}"
    );
    assert_eq!(attempt(Some(&remains.blobs[0]), &releases), Ok((1, 1)));
}

#[test]
fn i6_a_blob_from_before_the_keys_epoch_begins_nothing_even_where_governors_sign_for_it() {
    let mut trio = Trio::up();
    let early = trio.nodes[0].seal().unwrap();
    trio.create_notary();
    let remains = trio.end();
    let mut fresh = remains.fresh(Incarnation(1));
    let mut certificate = remains.certificate(&fresh, Incarnation(1));
    certificate.boots[0].sealed = Some(early.hash());
    let signed = Remains::signed(certificate);
    let releases = remains.releases(&signed, &early);
    let parts = remains.parts(&signed, Some(&early), &releases);
    let error = remains.begin(&mut fresh[0], &parts, remains.now).unwrap_err();
    assert!(matches!(error, NotRecovered::MissingShare { .. }), "{error}");
}

#[test]
fn i6_a_tail_of_another_log_begins_nothing() {
    let other = with_notary().end().tail;
    let error = refused(|remains, _, _| remains.tail.clone_from(&other));
    assert!(matches!(error, NotRecovered::Join(_)), "{error}");
}

#[test]
fn i6_requests_that_were_stamped_for_the_former_incarnation_are_refused() {
    let trio = with_notary();
    let scope = trio.state().stamp_scope(Method::CreateRequest);
    let (key, public) = person(20);
    let (mut trio, signed) = trio.end().recover();
    trio.govern(Change::Unfreeze { freeze: signed.certificate.id() }, None);
    let request = SignRequest {
        request_id: RequestId::new([77; 16]),
        key: notary(),
        path: DerivationPath::root(),
        payload: Payload::Message(vec![1]),
    };
    let body = request.to_body().into_bytes();
    let (credential, issued_at) = (public.id(), trio.now);
    let expires_at = issued_at.saturating_add(Millis(120_000));
    let preimage = Stamp::preimage(&scope, &credential, issued_at, expires_at, &[5; 16], &body);
    let signature = key.sign(&preimage).to_bytes();
    let stamp = Stamp { credential, issued_at, expires_at, nonce: [5; 16], signature };
    trio.propose(EntryBody::Request { stamp, body }, None);
    let known = trio.state().request(&credential, &request.request_id);
    // for its stamp, and not for a window that is full
    let for_its_stamp = |status: &RequestStatus| matches!(status, RequestStatus::Denied(denial) if denial.code != DenialCode::LimitExceeded);
    assert!(known.is_none_or(|known| for_its_stamp(&known.status)), "{known:?}");
}

/// What a node answers to a request's own body, stamped anew.
fn answer_to(trio: &mut Trio, request: &EntryBody) -> Answer {
    let EntryBody::Request { body, .. } = request else { panic!("no request") };
    let (key, public) = person(20);
    let (credential, issued_at) = (public.id(), trio.now);
    let expires_at = issued_at.saturating_add(Millis(120_000));
    let scope = trio.state().stamp_scope(Method::CreateRequest);
    let preimage = Stamp::preimage(&scope, &credential, issued_at, expires_at, &[6; 16], body);
    let signature = key.sign(&preimage).to_bytes();
    let stamp = Stamp { credential, issued_at, expires_at, nonce: [6; 16], signature };
    let submission = Submission::Request { stamp, body: body.clone() };
    let now = trio.now;
    let out = trio.nodes[0].handle(Event::Submit { ticket: Ticket(9), submission }, now);
    let answers = out.into_iter().filter_map(|output| match output {
        Output::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    answers.last().unwrap()
}

#[test]
fn i6_request_whose_signature_may_be_in_the_lost_end_of_the_log_is_never_called_unsigned() {
    let mut trio = with_notary();
    let (request, id) = trio.ask();
    trio.lose = |_| true;
    trio.propose(request.clone(), None);
    let credential = person(20).1.id();
    let before = trio.state().to_snapshot();
    let tail = trio.nodes[0].publisher.tail(&trio.nodes[0].tree).unwrap();
    // its signature is made, and recorded in what no store is given
    trio.lose = |_| false;
    trio.work(20_000);
    assert!(trio.state().is_signed(&credential, &id));
    let mut remains = trio.end();
    (remains.snapshot, remains.tail) = (before, tail);

    let (mut trio, signed) = remains.recover();
    trio.govern(Change::Unfreeze { freeze: signed.certificate.id() }, None);
    for later in [0, 3_600_000] {
        trio.now = trio.now.saturating_add(Millis(later));
        trio.work(50);
        // whoever is told that it was never signed pays again
        let answer = answer_to(&mut trio, &request);
        let Answer::Denied(denial) = &answer else { panic!("{answer:?}") };
        assert_eq!(denial.denial.code, DenialCode::OutcomeUnknown);
        assert!(!denial.denial.code.is_final());
    }
}

#[test]
fn a_node_seals_when_its_shares_are_others_and_only_then() {
    let mut trio = Trio::up();
    trio.create_notary();
    let node = &mut trio.nodes[0];
    let first = node.seal().unwrap();
    assert_eq!(node.seal(), None);
    assert_eq!((first.header.number, first.header.boot), (0, node.boot_id()));
    let names: Vec<&str> = first.header.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["notary"]);
    trio.govern(Change::CreateKey { name: hot(), scheme: Scheme::Ed25519 }, None);
    trio.work(1_000);
    let second = trio.nodes[0].seal().unwrap();
    let names: Vec<&str> = second.header.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!((second.header.number, names), (1, vec!["hot", "notary"]));
}

#[test]
fn a_cluster_without_recovery_keys_seals_nothing() {
    let mut trio = Trio::without_recovery();
    trio.create_notary();
    assert!(trio.nodes.iter_mut().all(|node| node.seal().is_none()));
}
