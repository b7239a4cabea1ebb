//! A client against hosts that lie about signatures.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

mod kit;

use std::collections::BTreeSet;
use std::time::Duration;

use casemate_client::{
    Asked, Client, ClientError, Credential, Fault, NodeFault, Outcome, ReceiptFault, Sign as _,
    SignOptions, Unsettled, VerifiedSignature,
};
use casemate_door::{Answer, Signed};
use casemate_ledger::{EntryBody, Verdict};
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{
    Algorithm, Denial, DenialCode, DerivationPath, KeyName, Millis, RequestId, UnixMillis,
};
use kit::{Fake, KEY, World};

fn request(message: &[u8]) -> SignRequest {
    SignRequest {
        request_id: RequestId::new(kit::random()),
        key: KeyName::new(KEY).unwrap(),
        path: DerivationPath::root(),
        payload: Payload::Message(message.to_vec()),
    }
}

struct Setting {
    fake: Fake,
    client: Client,
    signer: Credential,
    asked: Asked,
}

fn setting() -> Setting {
    let fake = Fake::start();
    let client = fake.client();
    let asked = Asked::new(&client.genesis_id(), &request(b"pay the baker")).unwrap();
    Setting { client, signer: Credential::generate(Algorithm::P256).unwrap(), asked, fake }
}

/// For what succeeds, however busy the machine is.
fn patient() -> SignOptions {
    SignOptions { deadline: Duration::from_secs(20), wait_for_approval: false }
}

/// For what never succeeds: some tries at each node.
fn impatient() -> SignOptions {
    SignOptions { deadline: Duration::from_millis(400), wait_for_approval: false }
}

impl Setting {
    async fn sign(&self) -> Result<Outcome, ClientError> {
        // what takes long the first time
        self.client.key(&self.asked.request().key).await?;
        self.client.sign(&self.asked, &self.signer, &impatient()).await
    }
    async fn signed(&self) -> VerifiedSignature {
        match self.client.sign(&self.asked, &self.signer, &patient()).await.unwrap() {
            Outcome::Signed(signature) => *signature,
            other => panic!("{other:?}"),
        }
    }
    /// Every node lies about its signature; the client says why it does not believe it.
    async fn refused(
        &self,
        lie: impl Fn(&World, &mut Signed) + Send + Sync + 'static,
    ) -> ReceiptFault {
        self.fake.lie(move |world, answer| match answer {
            Answer::Signed(mut signed) => {
                lie(world, &mut signed);
                Answer::Signed(signed)
            }
            other => other,
        });
        match self.sign().await {
            Err(ClientError::NotSettled { last: Unsettled::Node(failure), .. }) => {
                match failure.fault {
                    NodeFault::Receipt(fault) => fault,
                    other => panic!("{other}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_signature_is_handed_out_with_its_proofs_checked() {
    let setting = setting();
    let signature = setting.signed().await;
    assert_eq!(signature.digest(), &setting.asked.decoded().digest);
    assert_eq!(signature.public_key(), setting.fake.with(|world| world.public_key()));
    assert!(signature.index() < signature.signed_index());
    assert!(matches!(signature.wallet_signature()[64], 27 | 28));
    // asked again, the same
    assert_eq!(setting.signed().await.signature(), signature.signature());
}

#[tokio::test]
async fn i10_a_receipt_that_too_few_current_boots_cosigned_is_refused() {
    let setting = setting();
    let fault = setting
        .refused(|world, signed| {
            let one = vec![world.nodes.values().next().unwrap()];
            let index = world.leaves.len() as u64 - 1;
            signed.receipt.signed = world.inclusion_by(index, &one);
        })
        .await;
    assert!(matches!(fault, ReceiptFault::Signed(_)), "{fault}");
}

#[tokio::test]
async fn i10_a_receipt_cosigned_by_boots_that_nobody_knows_is_refused() {
    let setting = setting();
    let other = Fake::start();
    let fault = setting
        .refused(move |world, signed| {
            other.with(|other| {
                let strangers: Vec<&kit::Node> = other.nodes.values().collect();
                let index = world.leaves.len() as u64 - 1;
                signed.receipt.signed = world.inclusion_by(index, &strangers);
            });
        })
        .await;
    assert!(matches!(fault, ReceiptFault::Signed(_)), "{fault}");
}

#[tokio::test]
async fn i10_a_record_that_is_not_in_the_tree_is_refused() {
    let setting = setting();
    let fault = setting
        .refused(|_, signed| {
            signed.receipt.signed.proof[0] = casemate_proto::Hash32::new([1; 32]);
        })
        .await;
    assert!(matches!(fault, ReceiptFault::Signed(_)), "{fault}");
}

#[tokio::test]
async fn a_receipt_of_another_request_is_refused() {
    let setting = setting();
    let other = Asked::new(&setting.client.genesis_id(), &request(b"pay the thief")).unwrap();
    let outcome = setting.client.sign(&other, &setting.signer, &patient()).await.unwrap();
    let Outcome::Signed(stolen) = outcome else { panic!("{outcome:?}") };
    let receipt = stolen.receipt().clone();
    let again = receipt.clone();
    let fault = setting
        .refused(move |_, signed| {
            // the other request's records, whole and proved
            signed.receipt = again.clone();
            signed.signature = stolen.signature().to_vec();
        })
        .await;
    assert_eq!(fault, ReceiptFault::OtherRequest);
    // and only the record of the signature
    let fault =
        setting.refused(move |_, signed| signed.receipt.signed = receipt.signed.clone()).await;
    assert_eq!(fault, ReceiptFault::OtherRequest);
}

#[tokio::test]
async fn a_receipt_of_another_body_under_the_same_id_is_refused() {
    let setting = setting();
    let asked = SignRequest {
        payload: Payload::Message(b"pay the thief".to_vec()),
        ..setting.asked.request().clone()
    };
    let other = Asked::new(&setting.client.genesis_id(), &asked).unwrap();
    setting.client.sign(&other, &setting.signer, &patient()).await.unwrap();
    // the cluster answers with what it signed under this id
    let fault = setting.refused(|_, _| {}).await;
    assert_eq!(fault, ReceiptFault::OtherRequest);
}

#[tokio::test]
async fn a_signature_under_another_key_is_refused() {
    let setting = setting();
    let digest = setting.asked.decoded().digest;
    let thief = k256::ecdsa::SigningKey::from_slice(&[8; 32]).unwrap();
    let forged = World::ecdsa(&thief, &digest);
    let public_key = thief.verifying_key().to_encoded_point(true).as_bytes().to_vec();
    let signature = forged.clone();
    let fault = setting.refused(move |_, signed| signed.signature = signature.clone()).await;
    assert_eq!(fault, ReceiptFault::OtherSignature);
    let fault = setting.refused(move |_, signed| signed.public_key = public_key.clone()).await;
    assert_eq!(fault, ReceiptFault::OtherPublicKey);
    // even if it is on record: t broken enclaves could do that, and still pass nothing off as the key's
    let stamped = setting.fake.sent()[0].0.credential;
    let id = setting.asked.request().request_id;
    setting.fake.with(|world| {
        let entry =
            EntryBody::Signed { credential: stamped, request_id: id, signature: forged.clone() };
        let index = world.append(entry, Verdict::accepted());
        let known = world.signed.get_mut(&(stamped, id)).unwrap();
        (known.2, known.3) = (index, forged.clone());
    });
    let fault = setting.refused(|_, _| {}).await;
    assert_eq!(fault, ReceiptFault::BadSignature);
}

#[tokio::test]
async fn a_wrong_recovery_id_is_refused() {
    let setting = setting();
    setting.signed().await;
    setting.fake.with(|world| {
        let known = world.signed.values_mut().next().unwrap();
        known.3[64] ^= 1;
        let (stamp, id) = (
            world.nodes.values().find_map(|n| n.asked.first().cloned()).unwrap().0,
            *world.signed.keys().next().unwrap(),
        );
        let signature = world.signed[&id].3.clone();
        let entry = EntryBody::Signed { credential: stamp.credential, request_id: id.1, signature };
        let index = world.append(entry, Verdict::accepted());
        world.signed.get_mut(&id).unwrap().2 = index;
    });
    assert_eq!(setting.refused(|_, _| {}).await, ReceiptFault::BadSignature);
}

#[tokio::test]
async fn another_digest_in_the_answer_is_refused() {
    let setting = setting();
    let fault = setting.refused(|_, signed| signed.digest = [1; 32]).await;
    assert_eq!(fault, ReceiptFault::OtherDigest);
}

#[tokio::test]
async fn a_record_that_was_denied_is_no_receipt() {
    let setting = setting();
    setting.signed().await;
    setting.fake.with(|world| {
        let known = *world.signed.keys().next().unwrap();
        let signature = world.signed[&known].3.clone();
        let entry = EntryBody::Signed { credential: known.0, request_id: known.1, signature };
        let denied = Verdict::Denied(Denial::new(DenialCode::UnknownRequest, "too late"));
        let index = world.append(entry, denied);
        world.signed.get_mut(&known).unwrap().2 = index;
    });
    let fault = setting.refused(|_, _| {}).await;
    assert_eq!(fault, ReceiptFault::Verdict { found: "denied" });
}

#[tokio::test]
async fn records_in_the_wrong_places_are_refused() {
    let setting = setting();
    let fault = setting
        .refused(|_, signed| {
            std::mem::swap(&mut signed.receipt.allowed, &mut signed.receipt.signed);
        })
        .await;
    assert_eq!(fault, ReceiptFault::Kind { expected: "request", found: "signed".to_owned() });
}

#[tokio::test]
async fn a_host_that_pretends_a_failure_gets_the_same_request_again_and_one_signature() {
    let setting = setting();
    for status in [400, 403, 404, 409, 410, 500, 503, 504] {
        setting.fake.take_over(move |asked, stream| {
            let refuse = asked.method == "POST";
            if refuse {
                kit::respond(stream, status, "", b"{\"code\":\"denied\",\"status\":403}");
            }
            refuse
        });
        let error = setting.sign().await.unwrap_err();
        assert!(matches!(error, ClientError::NotSettled { .. }), "{status}: {error}");
        assert!(!error.is_settled() && error.fault() == Fault::Nodes, "{status}");
    }
    setting.fake.each(|node| node.takeover = None);
    // the answer is lost after the cluster has signed
    setting.fake.lie(|_, _| Answer::Busy { retry_after: Millis(1) });
    assert!(setting.sign().await.is_err());
    setting.fake.each(|node| node.answers = None);
    let signature = setting.signed().await;
    let sent = setting.fake.sent();
    assert!(sent.len() > 2);
    assert!(sent.iter().all(|(_, body)| body == setting.asked.body()));
    let nonces: BTreeSet<[u8; 16]> = sent.iter().map(|(stamp, _)| stamp.nonce).collect();
    assert_eq!(nonces.len(), sent.len(), "a fresh stamp each time");
    assert_eq!(setting.fake.with(|world| world.signed.len()), 1);
    assert_eq!(
        setting.fake.with(|world| world.signed.values().next().unwrap().3.clone()),
        signature.signature()
    );
}

#[tokio::test]
async fn one_node_that_lies_or_is_down_does_not_matter() {
    let setting = setting();
    setting.fake.node(kit::REGIONS[0], |node| {
        node.answers = Some(std::sync::Arc::new(|_, answer| match answer {
            Answer::Signed(mut signed) => {
                signed.digest = [1; 32];
                Answer::Signed(signed)
            }
            other => other,
        }));
    });
    for _ in 0..3 {
        setting.signed().await;
    }
    setting.fake.node(kit::REGIONS[0], |node| {
        node.takeover = Some(std::sync::Arc::new(|_, _| true));
    });
    let fresh = Setting { client: setting.fake.client(), ..setting };
    for _ in 0..3 {
        fresh.signed().await;
    }
}

#[tokio::test]
async fn pending_is_believed_of_a_boot_only() {
    let setting = setting();
    let pending = casemate_door::PendingAnswer {
        document: casemate_proto::Hash32::new([1; 32]),
        grant: None,
        have: 0,
        need: 1,
        not_before: None,
        expires: UnixMillis(kit::now().0 + 1000),
    };
    setting.fake.lie(move |_, _| Answer::Pending(pending.clone()));
    let error = setting.sign().await.unwrap_err();
    assert!(matches!(error, ClientError::NotSettled { last: Unsettled::Pending, .. }), "{error}");
    assert_eq!(error.fault(), Fault::Waiting);
    let view = casemate_door::PendingRequestView {
        credential: setting.signer.public_key().id(),
        request_id: setting.asked.request().request_id,
        principal: casemate_proto::PrincipalId::new("agent:research").unwrap(),
        body: setting.asked.body().to_vec(),
        document: casemate_proto::Hash32::new([1; 32]),
        have: 0,
        approved_by: Vec::new(),
        expires: UnixMillis(kit::now().0 + 1000),
    };
    setting.fake.with(|world| world.pending = vec![view.clone()]);
    let outcome = setting.client.sign(&setting.asked, &setting.signer, &patient()).await.unwrap();
    assert_eq!(outcome, Outcome::Pending(Box::new(view)));
}

#[tokio::test]
async fn what_no_enclave_would_sign_is_not_sent() {
    let setting = setting();
    let genesis = setting.client.genesis_id();
    assert!(matches!(Asked::from_body(&genesis, b"{}".to_vec()), Err(ClientError::Body(_))));
    let unreadable = SignRequest {
        payload: Payload::Tx { chain: "eip155:1".parse().unwrap(), unsigned: vec![2, 0xc0] },
        ..request(b"")
    };
    let error = Asked::new(&genesis, &unreadable).unwrap_err();
    assert!(matches!(error, ClientError::WouldBeDenied(_)) && error.is_settled(), "{error}");
    let unknown = SignRequest { key: KeyName::new("none").unwrap(), ..request(b"x") };
    let asked = Asked::new(&genesis, &unknown).unwrap();
    let error = setting.client.sign(&asked, &setting.signer, &patient()).await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownKey { .. }), "{error}");
    assert!(setting.fake.sent().is_empty());
}

#[tokio::test]
async fn a_childs_signature_verifies_under_the_child_that_the_client_derives() {
    let mut setting = setting();
    let path = DerivationPath::parse("m/0/7").unwrap();
    let asked = SignRequest { path, ..request(b"child") };
    setting.asked = Asked::new(&setting.client.genesis_id(), &asked).unwrap();
    // the fake signs with the parent
    assert_eq!(setting.refused(|_, _| {}).await, ReceiptFault::OtherPublicKey);
}

#[tokio::test]
async fn a_signature_that_nodes_have_no_longer_at_hand_is_found_and_proved_in_their_stores() {
    let setting = setting();
    // on both sides of a tile's edge, and far from the end
    let signature = setting.signed().await;
    for more in [0, 300, 700] {
        setting.fake.with(|world| {
            for _ in 0..more {
                world.append(EntryBody::Tick, Verdict::accepted());
            }
            let (_, index, signed_index, _) = world.signed.values().next().unwrap().clone();
            for node in world.nodes.values_mut() {
                node.answers =
                    Some(std::sync::Arc::new(move |_, _| Answer::Recorded { index, signed_index }));
            }
        });
        let found = setting.signed().await;
        assert_eq!(found.signature(), signature.signature());
        assert_eq!(found.signed_index(), signature.signed_index());
    }
}

#[tokio::test]
async fn a_store_that_has_another_record_there_is_not_believed() {
    let setting = setting();
    setting.signed().await;
    let other = Asked::new(&setting.client.genesis_id(), &request(b"pay the thief")).unwrap();
    setting.client.sign(&other, &setting.signer, &patient()).await.unwrap();
    let id = other.request().request_id;
    setting.fake.with(|world| {
        let found = world.signed.iter().find(|((_, known), _)| *known == id).unwrap();
        let (index, signed_index) = (found.1.1, found.1.2);
        for node in world.nodes.values_mut() {
            node.answers =
                Some(std::sync::Arc::new(move |_, _| Answer::Recorded { index, signed_index }));
        }
    });
    let error = setting.sign().await.unwrap_err();
    assert!(
        matches!(error, ClientError::NotSettled { last: Unsettled::InStoreOnly { .. }, .. }),
        "{error}"
    );
}
