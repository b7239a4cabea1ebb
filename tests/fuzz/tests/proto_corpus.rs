//! The corpus of the wire types' targets is made here, so that it follows the encodings:
//! `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test proto_corpus` writes it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, missing_docs)]

use std::path::PathBuf;

use casemate_proto::denial::LimitRef;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, NamedSignature, SignedChange, SignedStatement,
};
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement,
    NodeSpec,
};
use casemate_proto::request::{ApprovalBody, Payload, SignRequest};
use casemate_proto::stamp::Stamp;
use casemate_proto::webauthn::{Assertion, RelyingParty};
use casemate_proto::{
    Algorithm, Amount, ChainId, CredentialId, Denial, DenialCode, DerivationPath, GenesisId,
    GrantId, Hash32, Incarnation, KeyName, Millis, NodeName, PublicKey, RequestId, Scheme,
    UnixMillis, cbor,
};

type Seed = (&'static str, &'static str, Vec<u8>);

const HASH: Hash32 = Hash32::new([3; 32]);
const CREDENTIAL: CredentialId = CredentialId(HASH);

fn key(number: u8) -> PublicKey {
    let secret = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
    PublicKey::new(Algorithm::Ed25519, secret.verifying_key().as_bytes()).unwrap()
}

fn manifest() -> Manifest {
    let node = |name: &str, number| NodeSpec {
        name: NodeName::new(name).unwrap(),
        region: name.to_owned(),
        pcr3: [number; 48],
    };
    Manifest {
        version: 1,
        name: "payments".to_owned(),
        threshold: 2,
        nodes: vec![node("ap-southeast-1", 1), node("eu-west-1", 2), node("us-east-1", 3)],
        measurements: vec![Measurement { pcr0: [4; 48], pcr1: [5; 48], pcr2: [6; 48] }],
        governance: Governance {
            quorum: 2,
            keys: vec![key(1), key(2), key(3)],
            loosening_delay: Millis(86_400_000),
        },
        freezers: vec![key(4)],
        limits: Limits { dead_man: Some(Millis(3_600_000)), ..Limits::default() },
        independence: Independence::Regions,
        hardware: Hardware::Nitro,
        trust_root: HASH,
        relying_party: Some(RelyingParty {
            id: "example.org".to_owned(),
            origin: "https://approve.example.org".to_owned(),
        }),
        recovery: None,
    }
}

fn genesis() -> GenesisRecord {
    let manifest = manifest();
    let boots = (1_u8..)
        .zip(&manifest.nodes)
        .map(|(number, node)| BootRecord {
            node: node.name.clone(),
            key: [number; 32],
            channel_key: [number + 10; 32],
            nonce: [number + 20; 32],
            apply_version: 1,
            evidence: vec![number; 40],
        })
        .collect();
    GenesisRecord { manifest, boots, at: UnixMillis(1_795_165_200_000) }
}

fn change(change: Change) -> Vec<u8> {
    let envelope = ChangeEnvelope {
        genesis: GenesisId::new([1; 32]),
        incarnation: Incarnation(0),
        predecessor: HASH,
        expires: UnixMillis(1_795_165_200_000),
        change,
    };
    let named = |number| NamedSignature { credential: key(number).id(), signature: [number; 64] };
    cbor::encode(&SignedChange { envelope, signatures: vec![named(1), named(2)] })
}

fn statement(statement: FreezerStatement) -> Vec<u8> {
    cbor::encode(&SignedStatement {
        genesis: GenesisId::new([1; 32]),
        incarnation: Incarnation(0),
        at: UnixMillis(1_795_165_200_000),
        statement,
        by: NamedSignature { credential: key(4).id(), signature: [9; 64] },
    })
}

fn request(payload: Payload) -> Vec<u8> {
    let request = SignRequest {
        request_id: RequestId::new([1; 16]),
        key: KeyName::new("agent-7").unwrap(),
        path: DerivationPath::new(&[0, 7]).unwrap(),
        payload,
    };
    request.to_body().into_bytes()
}

fn denial(limit: Option<LimitRef>) -> Vec<u8> {
    let mut denial = Denial::new(DenialCode::LimitExceeded, "199 of 200 spent");
    denial.grant = Some(GrantId::new("x402").unwrap());
    denial.limit = limit;
    denial.remaining = Some(Amount::from_u128(1_000_000));
    denial.resets_at = Some(UnixMillis(1_795_165_200_000));
    cbor::encode(&denial)
}

/// Target, file name, bytes.
fn seeds() -> Vec<Seed> {
    let measurement = manifest().measurements.remove(0);
    let stamp = Stamp {
        credential: CREDENTIAL,
        issued_at: UnixMillis(1_795_165_200_000),
        expires_at: UnixMillis(1_795_165_260_000),
        nonce: [7; 16],
        signature: [8; 64],
    };
    let assertion = Assertion {
        credential: CREDENTIAL,
        authenticator_data: [&[1; 32][..], &[5, 0, 0, 0, 9]].concat(),
        client_data: br#"{"type":"webauthn.get","challenge":"AAAA","origin":"https://example.org","crossOrigin":false}"#.to_vec(),
        signature: [&[0x30, 0x44, 2, 0x20][..], &[1; 32], &[2, 0x20], &[2; 32]].concat(),
    };
    let approval = ApprovalBody {
        credential: CREDENTIAL,
        request_id: RequestId::new([1; 16]),
        document: HASH,
    };
    let typed_data = r#"{"types":{"A":[{"name":"x","type":"uint256"}]},"primaryType":"A","domain":{},"message":{"x":"1"}}"#;
    let small = Manifest {
        freezers: vec![],
        limits: Limits::default(),
        relying_party: None,
        recovery: None,
        hardware: Hardware::OneProcess,
        independence: Independence::None,
        ..manifest()
    };
    let (max, window) = (Amount::from_u128(200_000_000), Millis(86_400_000));
    vec![
        ("stamp_header", "stamp", stamp.to_header().into_bytes()),
        ("request_body", "hash", request(Payload::Hash([1; 32]))),
        ("request_body", "message", request(Payload::Message(b"hello".to_vec()))),
        ("request_body", "typed-data", request(Payload::TypedData(typed_data.to_owned()))),
        (
            "request_body",
            "tx",
            request(Payload::Tx { chain: ChainId::eip155(8453), unsigned: vec![2; 40] }),
        ),
        ("approval_body", "approval", approval.to_body().into_bytes()),
        ("manifest", "full", cbor::encode(&manifest())),
        ("manifest", "small", cbor::encode(&small)),
        ("genesis", "genesis", cbor::encode(&genesis())),
        ("governance_change", "confirm-genesis", change(Change::ConfirmGenesis)),
        ("governance_change", "set-policy", change(Change::SetPolicy { policy: HASH })),
        (
            "governance_change",
            "create-key",
            change(Change::CreateKey {
                name: KeyName::new("treasury").unwrap(),
                scheme: Scheme::Ed25519,
            }),
        ),
        ("governance_change", "unfreeze", change(Change::Unfreeze { freeze: HASH })),
        (
            "governance_change",
            "revoke",
            change(Change::RevokeCredential { credential: CREDENTIAL }),
        ),
        (
            "governance_change",
            "accept-image",
            change(Change::AcceptImage { measurement: measurement.clone() }),
        ),
        ("governance_change", "retire-image", change(Change::RetireImage { measurement })),
        ("governance_change", "withdraw", change(Change::Withdraw { change: HASH })),
        ("freezer_statement", "freeze", statement(FreezerStatement::Freeze { nonce: [5; 16] })),
        ("freezer_statement", "veto", statement(FreezerStatement::Veto { change: HASH })),
        (
            "freezer_statement",
            "heartbeat",
            statement(FreezerStatement::Heartbeat { size: 300, root: HASH, pending: vec![HASH] }),
        ),
        ("webauthn_assertion", "assertion", cbor::encode(&assertion)),
        ("denial", "sum", denial(Some(LimitRef::Sum { max, window }))),
        ("denial", "count", denial(Some(LimitRef::Count { max: 120, window }))),
        ("denial", "fee", denial(Some(LimitRef::Fee { max }))),
        ("denial", "none", denial(None)),
    ]
}

#[test]
fn the_corpus_of_the_wire_types_is_current() {
    let write = std::env::var_os("CASEMATE_WRITE_CORPUS").is_some();
    for (target, name, bytes) in seeds() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let file = folder.join(name);
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let found = std::fs::read(&file).unwrap_or_default();
        assert_eq!(hex::encode(found), hex::encode(bytes), "{}", file.display());
    }
}

/// A seed that its decoder refuses would leave most of the decoder untried.
#[test]
fn every_seed_is_accepted_by_its_decoder() {
    for (target, name, bytes) in seeds() {
        let accepted = match target {
            "stamp_header" => Stamp::from_header(core::str::from_utf8(&bytes).unwrap()).is_ok(),
            "request_body" => SignRequest::parse(&bytes).is_ok(),
            "approval_body" => ApprovalBody::parse(&bytes).is_ok(),
            "manifest" => {
                cbor::decode::<Manifest>(&bytes, 1 << 20).is_ok_and(|m| m.check().is_ok())
            }
            "genesis" => {
                cbor::decode::<GenesisRecord>(&bytes, 1 << 20).is_ok_and(|g| g.check().is_ok())
            }
            "governance_change" => cbor::decode::<SignedChange>(&bytes, 1 << 20).is_ok(),
            "freezer_statement" => cbor::decode::<SignedStatement>(&bytes, 1 << 20).is_ok(),
            "webauthn_assertion" => Assertion::decode(&bytes).is_ok(),
            "denial" => cbor::decode::<Denial>(&bytes, 1 << 20).is_ok(),
            other => panic!("{other}"),
        };
        assert!(accepted, "{target}/{name}");
    }
}
