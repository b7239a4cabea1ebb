//! Approvals by passkey, from the browser's bytes to the permit.

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

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use casemate_ledger::entry::ApprovalProof;
use casemate_ledger::{EntryBody, Verdict};
use casemate_proto::hash::sha256;
use casemate_proto::manifest::Manifest;
use casemate_proto::request::{ApprovalBody, SignRequest};
use casemate_proto::stamp::{Method, Stamp};
use casemate_proto::webauthn::{Assertion, RelyingParty, approval_challenge};
use casemate_proto::{Algorithm, DenialCode, Hash32, PublicKey};
use kit::{Kit, PAYEE, code, is_allowed, second};
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;

const ORIGIN: &str = "https://approve.example.org";

fn rp() -> RelyingParty {
    RelyingParty { id: "example.org".to_owned(), origin: ORIGIN.to_owned() }
}

/// A security key with its owner's browser.
struct Passkey(SigningKey);

impl Passkey {
    fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    fn public(&self) -> PublicKey {
        let point = self.0.verifying_key().to_encoded_point(true);
        PublicKey::new(Algorithm::WebauthnP256, point.as_bytes()).unwrap()
    }

    fn assertion(&self, document: &Hash32, origin: &str) -> Assertion {
        let challenge = URL_SAFE_NO_PAD.encode(approval_challenge(document));
        let client_data = format!(
            r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"{origin}","crossOrigin":false}}"#
        );
        // user present and verified, counter 0
        let authenticator_data = [&sha256(rp().id.as_bytes())[..], &[5, 0, 0, 0, 0]].concat();
        let message = [&authenticator_data[..], &sha256(client_data.as_bytes())].concat();
        let signature: p256::ecdsa::DerSignature = self.0.sign(&message);
        Assertion {
            credential: self.public().id(),
            authenticator_data,
            client_data: client_data.into_bytes(),
            signature: signature.as_bytes().to_vec(),
        }
    }
}

/// A cluster where the treasurers a and b hold passkeys, which the first tier asks for.
fn ready(change: impl FnOnce(&mut Manifest)) -> (Kit, [Passkey; 2]) {
    let mut kit = Kit::ready_with(change);
    let passkeys = [Passkey::new(61), Passkey::new(62)];
    let mut text = kit::POLICY.replace(
        r#"{ upto = "100", approvals = "2 of @treasurers" }"#,
        r#"{ upto = "100", approvals = "2 of @treasurers", passkey = true }"#,
    );
    for (number, passkey) in passkeys.iter().enumerate() {
        let hex: String = passkey.public().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        text = text.replace(
            &format!(r#"{{ alg = "ed25519", public_key = "$APPROVER{number}" }}"#),
            &format!(r#"{{ alg = "webauthn-p256", public_key = "0x{hex}" }}"#),
        );
    }
    let policy = kit.policy(&text);
    kit.set_policy(&policy);
    // other credentials loosen, so the change waits, and its time runs from when it was seen
    kit.heartbeat();
    kit.pass(second(3_601));
    kit.apply(EntryBody::Tick);
    assert_eq!(kit.state.policy().unwrap().1, policy.policy_hash());
    (kit, passkeys)
}

fn with_party(manifest: &mut Manifest) {
    manifest.relying_party = Some(rp());
}

fn pending(kit: &mut Kit) -> (SignRequest, Hash32) {
    let operator = kit.operator.clone();
    let request = kit.payment(PAYEE, 50_000_000);
    match kit.ask(&operator, &request) {
        Verdict::Pending(pending) => (request, pending.document),
        other => panic!("{other:?}"),
    }
}

fn approve(
    kit: &mut Kit,
    passkey: &Passkey,
    request: &SignRequest,
    document: Hash32,
    assertion: Assertion,
) -> Verdict {
    let credential = kit.operator.public.id();
    let body = ApprovalBody { credential, request_id: request.request_id, document };
    let proof = ApprovalProof::Passkey { credential: passkey.public().id(), assertion };
    kit.apply(EntryBody::Approval { body: body.to_body().into_bytes(), proof })
}

#[test]
fn two_passkeys_make_a_request_signable() {
    let (mut kit, [a, b]) = ready(with_party);
    let (request, document) = pending(&mut kit);
    let first = approve(&mut kit, &a, &request, document, a.assertion(&document, ORIGIN));
    assert!(matches!(first, Verdict::Pending(p) if p.have == 1));
    assert!(kit.permits.is_empty());
    let second = approve(&mut kit, &b, &request, document, b.assertion(&document, ORIGIN));
    assert!(is_allowed(&second), "{second:?}");
    assert_eq!(kit.permits.len(), 1);
}

#[test]
fn one_passkey_counts_once() {
    let (mut kit, [a, _]) = ready(with_party);
    let (request, document) = pending(&mut kit);
    approve(&mut kit, &a, &request, document, a.assertion(&document, ORIGIN));
    let again = approve(&mut kit, &a, &request, document, a.assertion(&document, ORIGIN));
    assert_eq!(code(again), DenialCode::ApproverNotAllowed);
}

#[test]
fn a_stamp_does_not_count_where_a_passkey_is_asked_for() {
    let (mut kit, _) = ready(with_party);
    let (request, document) = pending(&mut kit);
    let (operator, treasurer) = (kit.operator.clone(), kit.approvers[2].clone());
    let entry = kit.approval(&treasurer, &operator, &request, document);
    assert_eq!(code(kit.apply(entry)), DenialCode::ApproverNotAllowed);
}

#[test]
fn an_assertion_for_another_document_is_refused() {
    let (mut kit, [a, _]) = ready(with_party);
    let (request, document) = pending(&mut kit);
    let (_, other) = pending(&mut kit);
    assert_ne!(document, other);
    let replayed = approve(&mut kit, &a, &request, document, a.assertion(&other, ORIGIN));
    assert_eq!(code(replayed), DenialCode::BadStamp);
    let renamed = approve(&mut kit, &a, &request, other, a.assertion(&other, ORIGIN));
    assert_eq!(code(renamed), DenialCode::ApprovalMismatch);
}

#[test]
fn an_assertion_from_another_site_is_refused() {
    let (mut kit, [a, _]) = ready(with_party);
    let (request, document) = pending(&mut kit);
    let elsewhere = a.assertion(&document, "https://example.org");
    let refused = approve(&mut kit, &a, &request, document, elsewhere);
    assert_eq!(code(refused), DenialCode::BadStamp);
}

#[test]
fn another_passkeys_assertion_is_refused() {
    let (mut kit, [a, b]) = ready(with_party);
    let (request, document) = pending(&mut kit);
    let refused = approve(&mut kit, &a, &request, document, b.assertion(&document, ORIGIN));
    assert_eq!(code(refused), DenialCode::BadStamp);
}

#[test]
fn no_passkey_approves_where_the_manifest_names_no_relying_party() {
    let (mut kit, [a, _]) = ready(|_| {});
    let (request, document) = pending(&mut kit);
    let refused = approve(&mut kit, &a, &request, document, a.assertion(&document, ORIGIN));
    assert_eq!(code(refused), DenialCode::BadStamp);
}

#[test]
fn a_passkey_does_not_stamp() {
    let (mut kit, [a, _]) = ready(with_party);
    let (request, document) = pending(&mut kit);
    let credential = kit.operator.public.id();
    let body = ApprovalBody { credential, request_id: request.request_id, document }.to_body();
    let (credential, expires_at) = (a.public().id(), kit.now.saturating_add(second(60)));
    let scope = kit.state.stamp_scope(Method::CreateApproval);
    let preimage =
        Stamp::preimage(&scope, &credential, kit.now, expires_at, &[5; 16], body.as_bytes());
    let signature: p256::ecdsa::Signature = a.0.sign(&preimage);
    let stamp = Stamp {
        credential,
        issued_at: kit.now,
        expires_at,
        nonce: [5; 16],
        signature: signature.to_bytes().into(),
    };
    let proof = ApprovalProof::Stamp(stamp);
    let refused = kit.apply(EntryBody::Approval { body: body.into_bytes(), proof });
    assert_eq!(code(refused), DenialCode::BadStamp);
}
