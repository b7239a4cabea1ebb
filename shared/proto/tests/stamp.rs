//! Stamps against the vectors of `tests/vectors/stamp`, which `generate.py` there makes without
//! any code of this crate, and named cases over a stamp made here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use casemate_proto::stamp::{MAX_LIFE, Method, Stamp, StampError, StampScope};
use casemate_proto::{
    Algorithm, CredentialId, GenesisId, Incarnation, Millis, PublicKey, UnixMillis,
};
use common::Secret;

#[derive(serde::Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    result: String,
    algorithm: String,
    public_key: String,
    genesis_id: String,
    incarnation: u64,
    method: String,
    issued_at: u64,
    expires_at: u64,
    nonce: String,
    body: String,
    now: u64,
    tolerance: u64,
    credential: String,
    signed_preimage: String,
    signature: String,
    header: String,
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

impl Case {
    fn scope(&self) -> StampScope {
        StampScope {
            genesis: GenesisId::new(unhex(&self.genesis_id)),
            incarnation: Incarnation(self.incarnation),
            method: [Method::CreateRequest, Method::CreateApproval]
                .into_iter()
                .find(|method| method.name() == self.method)
                .unwrap(),
        }
    }

    fn key(&self) -> PublicKey {
        let algorithm = Algorithm::from_name(&self.algorithm).unwrap();
        PublicKey::from_hex(algorithm, &self.public_key).unwrap()
    }

    fn body(&self) -> Vec<u8> {
        hex::decode(&self.body).unwrap()
    }

    /// What the verifier says, in the words of the vectors.
    fn outcome(&self) -> String {
        let verified = Stamp::from_header(&self.header).and_then(|stamp| {
            stamp.verify(
                &self.scope(),
                &self.key(),
                &self.body(),
                UnixMillis(self.now),
                Millis(self.tolerance),
            )
        });
        match verified {
            Ok(verified) => {
                assert_eq!(hex::encode(verified.credential().0.as_bytes()), self.credential);
                assert_eq!(verified.method().name(), self.method);
                assert_eq!(
                    *verified.body_hash().as_bytes(),
                    casemate_proto::hash::sha256(&self.body())
                );
                "valid".to_owned()
            }
            Err(error) => reason(&error),
        }
    }
}

fn reason(error: &StampError) -> String {
    use casemate_proto::credential::CredentialError;
    match error {
        StampError::Malformed { field, .. } => format!("malformed: {field}"),
        StampError::Backwards { .. } => "backwards".to_owned(),
        StampError::LifeTooLong { .. } => "life_too_long".to_owned(),
        StampError::NotYet { .. } => "not_yet".to_owned(),
        StampError::Expired { .. } => "expired".to_owned(),
        StampError::OtherCredential { .. } => "other_credential".to_owned(),
        StampError::Signature(CredentialError::BadSignature { .. }) => "bad_signature".to_owned(),
        StampError::Signature(CredentialError::PasskeyOnly { .. }) => "passkey_only".to_owned(),
        StampError::Signature(CredentialError::BadKey { .. }) => "bad_key".to_owned(),
    }
}

fn cases(json: &str) -> Vec<Case> {
    serde_json::from_str::<File>(json).unwrap().cases
}

fn valid() -> Vec<Case> {
    cases(include_str!("../../../tests/vectors/stamp/valid.json"))
}

fn refused() -> Vec<Case> {
    cases(include_str!("../../../tests/vectors/stamp/refused.json"))
}

#[test]
fn valid_vectors_verify_and_give_the_same_preimage_and_header() {
    let cases = valid();
    for case in &cases {
        assert_eq!(case.outcome(), "valid", "{}", case.name);
        let credential = CredentialId(casemate_proto::Hash32::new(unhex(&case.credential)));
        assert_eq!(case.key().id(), credential, "{}", case.name);
        let preimage = Stamp::preimage(
            &case.scope(),
            &credential,
            UnixMillis(case.issued_at),
            UnixMillis(case.expires_at),
            &unhex(&case.nonce),
            &case.body(),
        );
        assert_eq!(hex::encode(preimage), case.signed_preimage, "{}", case.name);
        let stamp = Stamp {
            credential,
            issued_at: UnixMillis(case.issued_at),
            expires_at: UnixMillis(case.expires_at),
            nonce: unhex(&case.nonce),
            signature: unhex(&case.signature),
        };
        assert_eq!(stamp.to_header(), case.header, "{}", case.name);
        assert_eq!(Stamp::from_header(&case.header), Ok(stamp), "{}", case.name);
    }
    assert_eq!(cases.len(), 19);
}

#[test]
fn refused_vectors_are_refused_for_their_reason() {
    let cases = refused();
    for case in &cases {
        assert_eq!(case.outcome(), case.result, "{}", case.name);
        assert_ne!(case.result, "valid", "{}", case.name);
    }
    assert_eq!(cases.len(), 87);
}

/// Every refused vector but the malformed ones is refused at each bit of what it changes only: a
/// flip anywhere in a valid header is refused too, whatever part it hits.
#[test]
fn every_flipped_bit_of_a_header_is_refused() {
    let mut flips = 0;
    for mut case in valid().into_iter().filter(|case| case.name.ends_with(": a request")) {
        let genuine = case.header.clone();
        for at in 0..genuine.len() {
            for bit in 0..7 {
                let mut bytes = genuine.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                case.header = String::from_utf8(bytes).unwrap();
                assert_ne!(case.outcome(), "valid", "{}", case.header);
                flips += 1;
            }
        }
    }
    assert!(flips > 2_000, "{flips}");
}

const NOW: UnixMillis = UnixMillis(1_795_165_200_000);
const BODY: &[u8] = br#"{"any":"body"}"#;

fn scope() -> StampScope {
    StampScope {
        genesis: GenesisId::new([1; 32]),
        incarnation: Incarnation(3),
        method: Method::CreateRequest,
    }
}

/// A stamp over [`BODY`] in [`scope`], valid for a minute from [`NOW`].
fn stamped(secret: &Secret) -> Stamp {
    let expires_at = NOW.saturating_add(Millis(60_000));
    let preimage = Stamp::preimage(&scope(), &secret.id(), NOW, expires_at, &[9; 16], BODY);
    Stamp {
        credential: secret.id(),
        issued_at: NOW,
        expires_at,
        nonce: [9; 16],
        signature: secret.sign(&preimage),
    }
}

/// The result of checking `stamp` with everything in order but what `change` turned.
fn check(change: impl Fn(&mut Stamp, &mut StampScope, &mut Vec<u8>)) -> Vec<String> {
    (0..2)
        .map(|number| {
            let secret = Secret::new(number);
            let (mut stamp, mut scope, mut body) = (stamped(&secret), scope(), BODY.to_vec());
            change(&mut stamp, &mut scope, &mut body);
            match stamp.verify(&scope, &secret.public(), &body, NOW, Millis(0)) {
                Ok(_) => "valid".to_owned(),
                Err(error) => reason(&error),
            }
        })
        .collect()
}

const BAD: [&str; 2] = ["bad_signature"; 2];

#[test]
fn a_stamp_verifies_over_its_own_body_and_scope() {
    assert_eq!(check(|_, _, _| ()), ["valid"; 2]);
}

#[test]
fn another_body_is_refused() {
    assert_eq!(check(|_, _, body| body[0] ^= 1), BAD);
    assert_eq!(check(|_, _, body| body.push(b' ')), BAD);
    assert_eq!(check(|_, _, body| body.clear()), BAD);
}

#[test]
fn another_method_is_refused() {
    assert_eq!(check(|_, scope, _| scope.method = Method::CreateApproval), BAD);
}

#[test]
fn another_genesis_is_refused() {
    assert_eq!(check(|_, scope, _| scope.genesis = GenesisId::new([2; 32])), BAD);
}

#[test]
fn another_incarnation_is_refused() {
    assert_eq!(check(|_, scope, _| scope.incarnation = Incarnation(4)), BAD);
}

#[test]
fn a_lengthened_life_is_refused() {
    assert_eq!(check(|stamp, _, _| stamp.expires_at.0 += 1), BAD);
}

#[test]
fn another_nonce_is_refused() {
    assert_eq!(check(|stamp, _, _| stamp.nonce[15] ^= 1), BAD);
}

#[test]
fn another_credential_in_the_stamp_is_refused() {
    let renamed = check(|stamp, _, _| stamp.credential = Secret::new(7).id());
    assert_eq!(renamed, ["other_credential"; 2]);
}

#[test]
fn an_expired_stamp_is_refused_from_its_last_millisecond_on() {
    let stamp = stamped(&Secret::new(0));
    let at = |now| stamp.check_times(UnixMillis(now), Millis(0));
    assert_eq!(at(stamp.expires_at.0 - 1), Ok(()));
    assert!(matches!(at(stamp.expires_at.0), Err(StampError::Expired { .. })));
    assert!(matches!(at(u64::MAX), Err(StampError::Expired { .. })));
}

#[test]
fn a_tolerance_helps_a_clock_that_is_ahead_and_never_an_expired_stamp() {
    let stamp = stamped(&Secret::new(0));
    let at = |now, tolerance| stamp.check_times(UnixMillis(now), Millis(tolerance));
    assert!(matches!(at(NOW.0 - 1, 0), Err(StampError::NotYet { .. })));
    assert_eq!(at(NOW.0 - 1, 1), Ok(()));
    assert!(matches!(at(NOW.0 - 2, 1), Err(StampError::NotYet { .. })));
    assert!(matches!(at(stamp.expires_at.0, u64::MAX), Err(StampError::Expired { .. })));
}

#[test]
fn a_life_above_five_minutes_is_refused_before_any_signature_is_checked() {
    let mut stamp = stamped(&Secret::new(0));
    stamp.expires_at = NOW.saturating_add(MAX_LIFE);
    assert_eq!(stamp.check_times(NOW, Millis(0)), Ok(()));
    stamp.expires_at.0 += 1;
    assert!(matches!(stamp.check_times(NOW, Millis(0)), Err(StampError::LifeTooLong { .. })));
    stamp.expires_at.0 = u64::MAX;
    assert!(matches!(stamp.check_times(NOW, Millis(0)), Err(StampError::LifeTooLong { .. })));
}

#[test]
fn a_stamp_that_ends_as_it_begins_is_refused() {
    let mut stamp = stamped(&Secret::new(0));
    stamp.expires_at = stamp.issued_at;
    assert!(matches!(stamp.check_times(NOW, Millis(0)), Err(StampError::Backwards { .. })));
}

#[test]
fn a_high_s_signature_is_accepted_as_a_stamp_is_no_identifier() {
    let secret = Secret::new(0);
    let mut stamp = stamped(&secret);
    let signature = p256::ecdsa::Signature::from_slice(&stamp.signature).unwrap();
    let (r, s) = signature.split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(*r, -*s).unwrap();
    stamp.signature = other.to_bytes().into();
    assert!(stamp.verify(&scope(), &secret.public(), BODY, NOW, Millis(0)).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_text_that_parses_is_the_one_text_of_its_stamp(text in ".{0,320}") {
        if let Ok(stamp) = Stamp::from_header(&text) {
            proptest::prop_assert_eq!(stamp.to_header(), text);
        }
    }

    #[test]
    fn headers_round_trip(
        credential: [u8; 32], issued: u64, expires: u64, nonce: [u8; 16], half: [u8; 32],
    ) {
        let stamp = Stamp {
            credential: CredentialId(casemate_proto::Hash32::new(credential)),
            issued_at: UnixMillis(issued),
            expires_at: UnixMillis(expires),
            nonce,
            signature: [half, half].concat().try_into().unwrap(),
        };
        proptest::prop_assert_eq!(Stamp::from_header(&stamp.to_header()), Ok(stamp));
    }
}
