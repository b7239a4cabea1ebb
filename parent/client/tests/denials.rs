//! A client against hosts that forge, replay and twist denials: whoever believes one that does not stand
//! pays twice.
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

use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_client::{
    Asked, Client, ClientError, Credential, DenialFault, NodeFault, Outcome, SignOptions, Unsettled,
};
use casemate_door::{Answer, SignedDenial};
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{Algorithm, DenialCode, DerivationPath, KeyName, RequestId, UnixMillis};
use ed25519_dalek::Signer as _;
use kit::{Fake, KEY, Node, World};

struct Setting {
    fake: Fake,
    client: Client,
    signer: Credential,
    asked: Asked,
}

fn setting() -> Setting {
    let fake = Fake::start();
    let client = fake.client();
    let request = SignRequest {
        request_id: RequestId::new(kit::random()),
        key: KeyName::new(KEY).unwrap(),
        path: DerivationPath::root(),
        payload: Payload::Message(b"pay the baker".to_vec()),
    };
    let asked = Asked::new(&client.genesis_id(), &request).unwrap();
    let signer = Credential::generate(Algorithm::Ed25519).unwrap();
    Setting { fake, client, signer, asked }
}

impl Setting {
    async fn sign_within(&self, milliseconds: u64) -> Result<Outcome, ClientError> {
        self.client.key(&self.asked.request().key).await?;
        let deadline = Duration::from_millis(milliseconds);
        let options = SignOptions { deadline, wait_for_approval: false };
        self.client.sign(&self.asked, &self.signer, &options).await
    }

    /// Each node denies in its own hand, and may then twist it.
    fn deny(
        &self,
        code: DenialCode,
        twist: impl Fn(&World, &Node, &mut SignedDenial) + Send + Sync + 'static,
    ) {
        let twist = Arc::new(twist);
        self.fake.each(|node| {
            let (name, twist) = (node.name.clone(), Arc::clone(&twist));
            node.answers = Some(Arc::new(move |world, _| {
                let node = &world.nodes[&name];
                let (stamp, body) = node.asked.last().unwrap();
                let mut denial = world.denial(node, (stamp, body), code);
                twist(world, node, &mut denial);
                Answer::Denied(Box::new(denial))
            }));
        });
    }

    async fn not_believed(&self) -> DenialFault {
        match self.sign_within(400).await {
            Err(ClientError::NotSettled { last: Unsettled::Node(failure), .. }) => {
                match failure.fault {
                    NodeFault::Denial(fault) => fault,
                    other => panic!("{other}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn sign_again(world: &World, node: &Node, denial: &mut SignedDenial) {
    denial.signature = node.boot.key.sign(&denial.signing_bytes(&world.id)).to_bytes();
}

#[tokio::test]
async fn a_denial_of_t_attested_boots_settles_the_request_at_once() {
    let setting = setting();
    setting.deny(DenialCode::LimitExceeded, |_, _, _| {});
    let error = setting.sign_within(20_000).await.unwrap_err();
    assert!(matches!(error, ClientError::Denied(_)), "{error}");
    assert!(error.is_settled());
    assert_eq!(error.denial_code(), Some(DenialCode::LimitExceeded));
    let sent = setting.fake.sent();
    assert_eq!(sent.len(), 2);
    // a newer stamp could be used after what the first denial stands for is forgotten
    assert_eq!(sent[0].0, sent[1].0);
}

#[tokio::test]
async fn one_broken_boot_that_denies_does_not_settle_what_the_others_sign() {
    for liar in kit::REGIONS {
        let setting = setting();
        setting.deny(DenialCode::NoGrant, |_, _, _| {});
        for node in kit::REGIONS {
            if node != liar {
                setting.fake.node(node, |node| node.answers = None);
            }
        }
        for _ in 0..3 {
            let signed = setting.sign_within(20_000).await;
            assert!(matches!(signed, Ok(Outcome::Signed(_))), "{liar}: {signed:?}");
        }
    }
}

#[tokio::test]
async fn a_forged_denial_is_not_believed() {
    let setting = setting();
    setting.deny(DenialCode::LimitExceeded, |_, _, denial| denial.signature[0] ^= 1);
    assert_eq!(setting.not_believed().await, DenialFault::BadSignature);
    setting.deny(DenialCode::NoGrant, |_, _, denial| {
        denial.denial.code = DenialCode::LimitExceeded;
    });
    assert_eq!(setting.not_believed().await, DenialFault::BadSignature);
}

#[tokio::test]
async fn a_denial_by_another_boot_than_the_attested_one_is_not_believed() {
    let setting = setting();
    let stranger = kit::Boot::new();
    setting.deny(DenialCode::LimitExceeded, move |world, node, denial| {
        denial.boot = stranger.record(&node.name, Vec::new()).id();
        denial.signature = stranger.key.sign(&denial.signing_bytes(&world.id)).to_bytes();
    });
    assert!(matches!(setting.not_believed().await, DenialFault::OtherBoot { .. }));
}

#[tokio::test]
async fn a_denial_of_another_request_or_credential_is_not_believed() {
    let setting = setting();
    setting.deny(DenialCode::LimitExceeded, |world, node, denial| {
        denial.subject = casemate_proto::Hash32::new([1; 32]);
        sign_again(world, node, denial);
    });
    assert_eq!(setting.not_believed().await, DenialFault::OtherSubject);
    setting.deny(DenialCode::LimitExceeded, |world, node, denial| {
        denial.credential = None;
        sign_again(world, node, denial);
    });
    assert_eq!(setting.not_believed().await, DenialFault::OtherSubject);
}

#[tokio::test]
async fn a_denial_of_another_cluster_is_not_believed() {
    let setting = setting();
    setting.deny(DenialCode::LimitExceeded, |_, node, denial| {
        let other = casemate_proto::GenesisId::new([1; 32]);
        denial.signature = node.boot.key.sign(&denial.signing_bytes(&other)).to_bytes();
    });
    assert_eq!(setting.not_believed().await, DenialFault::BadSignature);
}

#[tokio::test]
async fn a_denial_older_than_the_newest_stamp_is_a_replay_and_settles_nothing() {
    let setting = setting();
    // genuine, kept by a host, and given again after the client made newer stamps
    setting.deny(DenialCode::LimitExceeded, |world, node, denial| {
        denial.at = UnixMillis(world.now().0 - 60_000);
        sign_again(world, node, denial);
    });
    assert_eq!(setting.not_believed().await, DenialFault::Replayed);
    setting.fake.each(|node| node.answers = None);
    assert!(matches!(setting.sign_within(20_000).await, Ok(Outcome::Signed(_))));
}

#[tokio::test]
async fn a_cluster_whose_clock_is_behind_or_ahead_is_understood() {
    for ahead in [0, 20_000, 240_000] {
        let setting = setting();
        setting.fake.with(|world| world.clock_ahead_ms = ahead);
        setting.deny(DenialCode::LimitExceeded, |_, _, _| {});
        let error = setting.sign_within(20_000).await.unwrap_err();
        assert!(matches!(error, ClientError::Denied(_)), "{ahead}: {error}");
        let now = setting.fake.with(|world| world.now());
        for (stamp, _) in setting.fake.sent() {
            assert!(stamp.issued_at <= now && stamp.expires_at > now, "{ahead}");
        }
    }
}

#[tokio::test]
async fn a_denial_that_does_not_stand_for_its_id_is_asked_about_at_another_node_and_not_settled() {
    let setting = setting();
    for code in [DenialCode::UnknownCredential, DenialCode::NoPolicy, DenialCode::RequestIdReused] {
        setting.deny(code, |_, _, _| {});
        let error = setting.sign_within(20_000).await.unwrap_err();
        let ClientError::DeniedForNow { until, .. } = &error else { panic!("{error}") };
        assert!(!error.is_settled() && until.0 > kit::now().0, "{error}");
        assert_eq!(error.denial_code(), Some(code));
        let is_taken = code == DenialCode::RequestIdReused;
        assert_eq!(error.advice().contains("another body's"), is_taken, "{}", error.advice());
    }
    let nodes = setting
        .fake
        .with(|world| world.nodes.values().filter(|node| !node.asked.is_empty()).count());
    assert!(nodes >= 2);
}

#[tokio::test]
async fn one_node_that_denies_for_now_does_not_keep_the_others_from_signing() {
    let setting = setting();
    setting.deny(DenialCode::UnknownCredential, |_, _, _| {});
    for node in &kit::REGIONS[1..] {
        setting.fake.node(node, |node| node.answers = None);
    }
    for _ in 0..3 {
        assert!(matches!(setting.sign_within(20_000).await, Ok(Outcome::Signed(_))));
    }
}

#[tokio::test]
async fn a_freeze_that_a_node_obeys_before_its_entry_does_not_settle_the_request() {
    let setting = setting();
    setting.deny(DenialCode::Frozen, |world, node, denial| {
        denial.index = None;
        sign_again(world, node, denial);
    });
    let error = setting.sign_within(20_000).await.unwrap_err();
    assert!(matches!(error, ClientError::DeniedForNow { .. }) && !error.is_settled(), "{error}");
    // on record it does
    setting.deny(DenialCode::Frozen, |_, _, _| {});
    assert!(setting.sign_within(20_000).await.unwrap_err().is_settled());
}

#[tokio::test]
async fn expired_settles_in_a_boots_hand_and_only_as_expired() {
    let setting = setting();
    let expire = |code: DenialCode| {
        setting.deny(code, |world, node, denial| {
            denial.index = None;
            sign_again(world, node, denial);
        });
        setting.fake.each(|node| {
            let denied = node.answers.clone().unwrap();
            node.answers = Some(Arc::new(move |world, answer| match denied(world, answer) {
                Answer::Denied(denial) => Answer::Expired(denial),
                other => other,
            }));
        });
    };
    expire(DenialCode::Expired);
    assert!(setting.sign_within(20_000).await.unwrap_err().is_settled());
    // a host that calls another denial an expiry
    expire(DenialCode::Frozen);
    assert!(!setting.sign_within(20_000).await.unwrap_err().is_settled());
}

#[tokio::test]
async fn a_passing_denial_is_waited_out() {
    let setting = setting();
    setting.deny(DenialCode::RateLimited, |_, _, _| {});
    let (fake, left) = (setting.fake.clone(), Arc::new(Mutex::new(6)));
    let honest: kit::Lie<Answer> = None;
    fake.each(|node| {
        let (deny, left) = (node.answers.clone().unwrap(), Arc::clone(&left));
        let _ = &honest;
        node.answers = Some(Arc::new(move |world, answer| {
            let mut left = left.lock().unwrap();
            if *left == 0 {
                return answer;
            }
            *left -= 1;
            deny(world, answer)
        }));
    });
    assert!(matches!(setting.sign_within(20_000).await, Ok(Outcome::Signed(_))));
    assert_eq!(setting.fake.sent().len(), 7);
}

#[tokio::test]
async fn a_restarted_node_is_attested_again_before_its_denial_is_believed() {
    let setting = setting();
    setting.client.belief(true).await.unwrap();
    for at in 0..3 {
        setting.client.attest(at, false).await.unwrap();
    }
    setting.fake.each(|node| node.boot = kit::Boot::new());
    setting.deny(DenialCode::LimitExceeded, |_, _, _| {});
    let error = setting.sign_within(20_000).await.unwrap_err();
    assert!(error.is_settled(), "{error}");
}
