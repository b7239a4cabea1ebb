//! BIP-340 keys in the ledger: born like others, sign messages alone, and a signature is recorded
//! only if it is one of BIP-340's under the child's x coordinate.
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

use casemate_ledger::entry::{EntryBody, KeyLive};
use casemate_ledger::payload;
use casemate_ledger::verdict::Verdict;
use casemate_proto::hash::message_digest;
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{DenialCode, DerivationPath, Scheme, bip340, derive::derive_bip340};
use k256::elliptic_curve::{PrimeField, ops::Neg};
use k256::{Scalar, schnorr};
use kit::{Kit, code, key_name};

const SCHEME: Scheme = Scheme::Bip340Secp256k1;

/// Grants more than such a key can do, so that the scheme is what denies.
const POLICY: &str = r#"
version = 1
name = "bip340"
expires = "2027-06-01T00:00:00Z"
unlimited = true

[[principal]]
id = "agent:research"
credentials = [{ alg = "ed25519", public_key = "$AGENT" }]

[[grant]]
id = "messages"
key = "btc"
path = "m/0/*"
principals = ["agent:research"]
allow = ["message"]
limits = [{ count = 3, window = "24h" }]

[[grant]]
id = "root"
key = "btc"
principals = ["agent:research"]
allow = ["message"]
limits = [{ count = 100, window = "24h" }]

[[grant]]
id = "hashes"
key = "btc"
path = "m/1"
principals = ["agent:research"]
allow = ["raw_hash"]
limits = [{ count = 100, window = "24h" }]
"#;

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// A cluster with a live BIP-340 key `btc` and the policy in force.
fn with_key() -> Kit {
    let mut kit = Kit::wanting("btc", SCHEME);
    let live = kit.key_live("btc", SCHEME, 0);
    kit.accept(EntryBody::KeyLive(live));
    let policy = kit.policy(POLICY);
    kit.set_policy(&policy);
    kit
}

fn message(kit: &mut Kit, path: &str, text: &[u8]) -> SignRequest {
    let mut request = kit.request("btc", Payload::Message(text.to_vec()));
    request.path = DerivationPath::parse(path).unwrap();
    request
}

fn ask(kit: &mut Kit, request: &SignRequest) -> Verdict {
    let agent = kit.agent.clone();
    kit.ask(&agent, request)
}

fn signed(kit: &Kit, request: &SignRequest, signature: Vec<u8>) -> EntryBody {
    let credential = kit.agent.public.id();
    EntryBody::Signed { credential, request_id: request.request_id, signature }
}

/// The child's public key, whether it had to be made even, and a signature that its secret makes: what the enclaves come to with
/// their shares.
fn sign_as_child(kit: &Kit, path: &DerivationPath, digest: &[u8; 32]) -> (Vec<u8>, bool, Vec<u8>) {
    let live = kit.state.keys()[&key_name("btc")].live.clone().unwrap();
    let parent: [u8; 33] = live.public_key.as_slice().try_into().unwrap();
    let child = derive_bip340(&parent, &live.chain_code, path).unwrap();
    let tweak = Scalar::from_repr(child.tweak.into()).unwrap();
    // the parent's secret is even already, the child's is made so by the library
    let secret = *kit.bip340.as_nonzero_scalar().as_ref() + tweak;
    let secret = schnorr::SigningKey::from_bytes(&secret.to_bytes()).unwrap();
    let signature = secret.sign_raw(digest, &[0; 32]).unwrap().to_bytes().to_vec();
    (child.public_key.to_vec(), child.negated, signature)
}

#[test]
fn key_goes_live_with_the_even_point_of_its_x_coordinate() {
    let kit = with_key();
    let key = &kit.state.keys()[&key_name("btc")];
    assert_eq!(key.scheme, SCHEME);
    let live = key.live.as_ref().unwrap();
    assert!(bip340::x_only(&live.public_key).is_some());
}

#[test]
fn key_that_is_no_even_point_does_not_go_live() {
    let mut kit = Kit::wanting("btc", SCHEME);
    let good = kit.key_live("btc", SCHEME, 0);
    let with_key = |bytes: Vec<u8>| KeyLive { public_key: bytes, ..good.clone() };
    let x = &good.public_key[1..];
    // BIP-340's example of an x coordinate on no point
    let off_curve = hex("02eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34");
    let cases = [
        ("odd", with_key([&[3], x].concat())),
        ("32 bytes", with_key(x.to_vec())),
        ("on no point", with_key(off_curve)),
        ("too large", with_key([[2].as_slice(), &[0xff; 32]].concat())),
        ("uncompressed", with_key(vec![4; 65])),
        ("empty", with_key(Vec::new())),
    ];
    for (case, mut live) in cases {
        // its test signatures and confirmations are over this very key
        kit.sign_key_live(&mut live, SCHEME);
        assert!(matches!(kit.apply(EntryBody::KeyLive(live)), Verdict::Denied(_)), "{case}");
    }
    kit.accept(EntryBody::KeyLive(good));
}

#[test]
fn key_of_another_scheme_does_not_go_live_in_its_place() {
    let mut kit = Kit::wanting("btc", SCHEME);
    for scheme in [Scheme::EcdsaSecp256k1, Scheme::Ed25519] {
        let live = kit.key_live("btc", scheme, 0);
        assert!(matches!(kit.apply(EntryBody::KeyLive(live)), Verdict::Denied(_)));
    }
    // ECDSA test signatures under a BIP-340 key's name
    let mut live = kit.key_live("btc", SCHEME, 0);
    live.public_key = kit.public_key(Scheme::EcdsaSecp256k1);
    live.public_key[0] = bip340::EVEN;
    kit.sign_key_live(&mut live, Scheme::EcdsaSecp256k1);
    assert!(matches!(kit.apply(EntryBody::KeyLive(live)), Verdict::Denied(_)));
}

#[test]
fn messages_are_signed_under_the_tag_and_the_signature_recorded_once() {
    let mut kit = with_key();
    let mut odd = 0;
    for (path, text) in [("m", b"one".as_slice()), ("m/0/1", b"two"), ("m/0/2", b"three")] {
        let request = message(&mut kit, path, text);
        let Verdict::Allowed(allowed) = ask(&mut kit, &request) else { panic!("allowed") };
        assert_eq!(allowed.digest, message_digest(&kit.state.genesis(), text));
        let (public_key, negated, signature) = sign_as_child(&kit, &request.path, &allowed.digest);
        let live = kit.state.keys()[&key_name("btc")].live.clone().unwrap();
        let child = payload::child(SCHEME, &live, &request.path).unwrap();
        assert_eq!((child.public_key, child.address), (public_key, None));
        odd += usize::from(negated);
        for at in [0, 31, 32, 63] {
            let mut wrong = signature.clone();
            wrong[at] ^= 1;
            let entry = signed(&kit, &request, wrong);
            assert!(matches!(kit.apply(entry), Verdict::Denied(_)), "byte {at}");
        }
        let entry = signed(&kit, &request, signature);
        kit.accept(entry.clone());
        assert!(matches!(kit.apply(entry), Verdict::Repeated { .. }));
    }
    assert!(odd > 0, "no path is of a child that is made even");
}

#[test]
fn signature_that_is_none_of_bip_340s_is_not_recorded() {
    let mut kit = with_key();
    let request = message(&mut kit, "m", b"one");
    let Verdict::Allowed(allowed) = ask(&mut kit, &request) else { panic!("allowed") };
    let digest = allowed.digest;
    let good = kit.sign_whole(SCHEME, &digest);
    let ecdsa = kit.sign_whole(Scheme::EcdsaSecp256k1, &digest);
    // the same secret as the BIP-340 key's, by ECDSA
    let secret = k256::ecdsa::SigningKey::from(*kit.bip340.as_nonzero_scalar());
    let (own, id) = secret.sign_prehash_recoverable(&digest).unwrap();
    let own = own.to_bytes().to_vec();
    let negated_s = {
        let s = Scalar::from_repr(<[u8; 32]>::try_from(&good[32..]).unwrap().into()).unwrap();
        [&good[..32], &<[u8; 32]>::from(s.neg().to_bytes())].concat()
    };
    let order = hex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    let field = hex("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f");
    let (_, _, childs) = sign_as_child(&kit, &DerivationPath::parse("m/0/1").unwrap(), &digest);
    let other_message = kit.sign_whole(SCHEME, &message_digest(&kit.state.genesis(), b"two"));
    let cases = [
        ("another key's ECDSA", ecdsa[..64].to_vec()),
        ("another key's ECDSA with v", ecdsa),
        ("the key's own ECDSA", own.clone()),
        ("the key's own ECDSA with v", [own, vec![id.to_byte()]].concat()),
        ("Ed25519", kit.sign_whole(Scheme::Ed25519, &digest)),
        ("with a byte behind", [good.clone(), vec![0]].concat()),
        ("cut", good[..63].to_vec()),
        ("empty", Vec::new()),
        ("s negated", negated_s),
        ("s is the order", [&good[..32], &order].concat()),
        ("r is the field's size", [&field, &good[32..]].concat()),
        ("zeros", vec![0; 64]),
        ("a child's", childs),
        ("of another message", other_message),
    ];
    for (case, signature) in cases {
        let entry = signed(&kit, &request, signature);
        assert!(matches!(kit.apply(entry), Verdict::Denied(_)), "{case}");
    }
    let entry = signed(&kit, &request, good);
    kit.accept(entry);
}

#[test]
fn whatever_is_no_message_is_denied_as_the_wrong_scheme() {
    let mut kit = with_key();
    let typed = kit::typed_payment(kit::OTHER_PAYEE, kit::PAYEE, 1, kit.now, 300, 1);
    let payloads = [
        Payload::Hash([1; 32]),
        Payload::Tx { chain: casemate_proto::ChainId::eip155(1), unsigned: vec![2, 0xc0] },
        Payload::TypedData(typed),
    ];
    for payload in payloads {
        let kind = payload.kind();
        let mut request = kit.request("btc", payload);
        request.path = DerivationPath::parse("m/1").unwrap();
        let denial = kit::denial(ask(&mut kit, &request));
        assert_eq!(denial.code, DenialCode::WrongScheme, "{kind}: {denial:?}");
    }
    assert!(kit.permits.is_empty());
}

#[test]
fn count_limits_hold_over_all_paths_of_the_key() {
    let mut kit = with_key();
    let asked = [("m/0/1", true), ("m/0/2", true), ("m", true), ("m/0/3", false), ("m/0/1", false)];
    for (path, allowed) in asked {
        let request = message(&mut kit, path, path.as_bytes());
        let verdict = ask(&mut kit, &request);
        assert_eq!(kit::is_allowed(&verdict), allowed, "{path}: {verdict:?}");
        if !allowed {
            assert_eq!(code(verdict), DenialCode::LimitExceeded);
        }
    }
}

#[test]
fn permit_names_the_scheme_and_the_message() {
    let mut kit = with_key();
    let request = message(&mut kit, "m/0/1", b"hello");
    assert!(kit::is_allowed(&ask(&mut kit, &request)));
    let [permit] = kit.permits.as_slice() else { panic!("{:?}", kit.permits.len()) };
    assert_eq!(permit.scheme(), SCHEME);
}
