//! All three enclaves end at once, and others begin their cluster's next incarnation.

use casemate_door::RecoveryPiece;
use casemate_ledger::take_up::{TakenUp, take_up};
use casemate_proto::cbor;
use casemate_proto::recovery::{
    RecoveryBoot, RecoveryCertificate, RecoveryOffer, SignedCertificate,
};
use casemate_recovery::{Release, SealedBlob};

use super::*;

fn key() -> KeyName {
    KeyName::new("notary").unwrap()
}

/// A cluster with a key of which every node has sealed its share, and with a store that says so.
async fn working() -> Bench {
    let mut bench = Bench::recoverable();
    bench.link();
    (0..3).for_each(|at| bench.start(at));
    bench.until("members", |bench| bench.are_members(&[0, 1, 2])).await;
    let create = Change::CreateKey { name: key(), scheme: Scheme::Ed25519 };
    bench.govern(0, vec![Change::ConfirmGenesis, create]).await;
    let is_sealed = |bench: &Bench, at: usize| {
        let live = bench.status(at).is_some_and(|status| (status.keys, status.shares) == (1, 1));
        let sealed = bench.nodes[at].known.lock().unwrap().sealed.clone();
        let blob = sealed.map(|bytes| SealedBlob::decode(&bytes).unwrap());
        live && blob.is_some_and(|blob| blob.header.keys.iter().any(|sealed| sealed.name == key()))
    };
    bench.until("sealed", |bench| (0..3).all(|at| is_sealed(bench, at))).await;
    let published = |bench: &Bench| {
        let files = bench.nodes[0].known.lock().unwrap().files.clone();
        take_up(&files).is_ok_and(|taken| taken.state.key_epoch(&key()).is_some())
    };
    bench.until("published", published).await;
    bench
}

struct Remains {
    taken: TakenUp,
    blobs: Vec<SealedBlob>,
}

impl Bench {
    async fn end(&mut self) -> Remains {
        for at in 0..3 {
            self.stop(at).await;
        }
        let files = self.nodes[0].known.lock().unwrap().files.clone();
        let blob = |node: &NodeUnderTest| {
            SealedBlob::decode(node.known.lock().unwrap().sealed.as_ref().unwrap()).unwrap()
        };
        Remains { taken: take_up(&files).unwrap(), blobs: self.nodes.iter().map(blob).collect() }
    }

    /// Starts enclaves that are to begin an incarnation; what they offer.
    async fn offers(&mut self, incarnation: u64) -> Vec<RecoveryOffer> {
        for at in 0..3 {
            self.nodes[at].incarnation = (incarnation, true);
            self.start(at);
        }
        let offered = |bench: &Bench| {
            bench.nodes.iter().all(|node| node.known.lock().unwrap().offer.is_some())
        };
        self.until("offered", offered).await;
        let offer = |node: &NodeUnderTest| {
            cbor::decode(node.known.lock().unwrap().offer.as_ref().unwrap(), MAX_FRAME).unwrap()
        };
        self.nodes.iter().map(offer).collect()
    }

    fn certificate(&self, remains: &Remains, offers: Vec<RecoveryOffer>) -> SignedCertificate {
        let state = &remains.taken.state;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let at = UnixMillis(u64::try_from(now.as_millis()).unwrap());
        let boots = offers
            .into_iter()
            .zip(&remains.blobs)
            .map(|(offer, blob)| RecoveryBoot { offer, sealed: Some(blob.hash()) });
        let certificate = RecoveryCertificate {
            version: 1,
            genesis: state.genesis(),
            former: state.incarnation(),
            incarnation: Incarnation(state.incarnation().0 + 1),
            at,
            expires: UnixMillis(at.0 + 600_000),
            ledger: remains.taken.name(),
            policy: None,
            images: state.images().iter().cloned().collect(),
            revoked: Vec::new(),
            boots: boots.collect(),
        };
        let message = certificate.signing_bytes();
        let signatures = governors()
            .iter()
            .map(|(key, public)| NamedSignature {
                credential: public.id(),
                signature: key.sign(&message).to_bytes(),
            })
            .collect();
        SignedCertificate { certificate, signatures }
    }

    fn hand_over(&self, at: usize, remains: &Remains, signed: &SignedCertificate) {
        let genesis = remains.taken.state.genesis();
        let granted = signed.verify(genesis, &self.manifest, None).unwrap();
        let blob = &remains.blobs[at];
        let mut pieces = vec![
            RecoveryPiece::Begin,
            RecoveryPiece::Certificate(cbor::encode(signed)),
            RecoveryPiece::Tail(remains.taken.tail.clone()),
            RecoveryPiece::Blob(blob.encode()),
        ];
        let halves = remains.taken.snapshot.chunks(1_000);
        pieces.extend(halves.map(|half| RecoveryPiece::Snapshot(half.to_vec())));
        for seed in [101, 102] {
            let key = recovery_key(seed);
            let release = Release::make(&granted, &self.manifest, blob, &key, &mut OsRng).unwrap();
            pieces.push(RecoveryPiece::Release(cbor::encode(&release)));
        }
        pieces.push(RecoveryPiece::End);
        for piece in pieces {
            self.nodes[at].ask.as_ref().unwrap().send(ToEnclave::Recover(piece)).unwrap();
        }
    }

    fn refused(&self, at: usize) -> Option<String> {
        self.nodes[at].known.lock().unwrap().refused.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_enclaves_end_at_once_and_a_certificate_brings_the_cluster_back_frozen() {
    let mut bench = working().await;
    let remains = bench.end().await;
    let offers = bench.offers(1).await;
    let signed = bench.certificate(&remains, offers);
    (0..3).for_each(|at| bench.hand_over(at, &remains, &signed));
    bench.until("recovered", |bench| bench.are_members(&[0, 1, 2])).await;
    for at in 0..3 {
        let status = bench.status(at).unwrap();
        assert!(status.frozen, "it comes up frozen");
        let known = bench.nodes[at].known.lock().unwrap();
        assert_eq!(known.recovered, Some(Incarnation(1)));
    }
    let shares = |bench: &Bench| {
        (0..3).all(|at| bench.status(at).is_some_and(|s| (s.keys, s.shares) == (1, 1)))
    };
    bench.until("with their shares", shares).await;

    // the quorum lets it go on
    let id = signed.certificate.id();
    bench.govern_after(0, Some(id), vec![Change::Unfreeze { freeze: id }]).await;
    let thawed = |bench: &Bench| (0..3).all(|at| bench.status(at).is_some_and(|s| !s.frozen));
    bench.until("unfrozen", thawed).await;

    // a node that restarts joins the incarnation that there is
    bench.stop(2).await;
    bench.nodes[2].incarnation = (1, false);
    bench.start(2);
    bench.until("admitted", |bench| bench.are_members(&[0, 1, 2])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_what_is_handed_over_for_another_boot_or_with_an_older_ledger_begins_nothing() {
    let mut bench = working().await;
    let mut remains = bench.end().await;
    let offers = bench.offers(1).await;
    let signed = bench.certificate(&remains, offers);
    // another enclave of the same image: the named one was replaced
    bench.stop(0).await;
    bench.start(0);
    let again = |bench: &Bench| bench.nodes[0].known.lock().unwrap().offer.is_some();
    bench.until("offered again", again).await;
    bench.hand_over(0, &remains, &signed);
    bench.until("refused", |bench| bench.refused(0).is_some()).await;
    assert!(bench.refused(0).unwrap().contains("names another boot"), "{:?}", bench.refused(0));
    // an older state than the certificate names
    let birth = bench.nodes[1].known.lock().unwrap().genesis.clone().unwrap();
    let birth: GenesisRecord = cbor::decode(&birth, MAX_FRAME).unwrap();
    let older = casemate_ledger::State::birth(&birth).unwrap().to_snapshot();
    let newest = std::mem::replace(&mut remains.taken.snapshot, older);
    bench.hand_over(1, &remains, &signed);
    bench.until("refused", |bench| bench.refused(1).is_some()).await;
    assert!(bench.refused(1).unwrap().contains("the snapshot is"), "{:?}", bench.refused(1));
    // I12: what is no release takes no room
    let large = RecoveryPiece::Release(vec![0; casemate_recovery::MAX_RELEASE + 1]);
    bench.nodes[1].known.lock().unwrap().refused = None;
    bench.nodes[1].ask.as_ref().unwrap().send(ToEnclave::Recover(large)).unwrap();
    bench.until("refused", |bench| bench.refused(1).is_some()).await;
    assert!(bench.refused(1).unwrap().contains("a release is larger"), "{:?}", bench.refused(1));
    // the right ones are taken by the same boot afterwards
    remains.taken.snapshot = newest;
    bench.hand_over(1, &remains, &signed);
    let begun = |bench: &Bench| bench.nodes[1].known.lock().unwrap().recovered.is_some();
    bench.until("begun", begun).await;
}
