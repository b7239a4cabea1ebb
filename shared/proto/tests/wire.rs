//! Every wire type against arbitrary bytes and its own round trip: decoding never panics, and
//! what is accepted is the one encoding of its value.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use casemate_proto::cbor::{self, CborError};
use casemate_proto::denial::LimitRef;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, NamedSignature, SignedChange, SignedStatement,
};
use casemate_proto::manifest::{BootRecord, GenesisRecord, Manifest};
use casemate_proto::request::{ApprovalBody, Payload, SignRequest};
use casemate_proto::stamp::Stamp;
use casemate_proto::webauthn::{Assertion, RelyingParty};
use casemate_proto::{
    Amount, ChainId, CredentialId, Denial, DenialCode, DerivationPath, GenesisId, GrantId, Hash32,
    Incarnation, KeyName, Millis, PublicKey, RequestId, Scheme, UnixMillis,
};
use minicbor::{Decode, Encode};
use proptest::prelude::*;

const MAX: usize = 64 * 1024;

/// Decodes; what decodes must encode to the same bytes again.
fn decode_strictly<T: for<'b> Decode<'b, ()> + Encode<()>>(bytes: &[u8]) -> bool {
    match cbor::decode::<T>(bytes, MAX) {
        Ok(value) => {
            assert_eq!(cbor::encode(&value), bytes);
            true
        }
        Err(_) => false,
    }
}

/// Every wire type with CBOR, by name.
type Decoder = (&'static str, fn(&[u8]) -> bool);
const DECODERS: &[Decoder] = &[
    ("amount", decode_strictly::<Amount>),
    ("assertion", decode_strictly::<Assertion>),
    ("boot record", decode_strictly::<BootRecord>),
    ("change", decode_strictly::<Change>),
    ("change envelope", decode_strictly::<ChangeEnvelope>),
    ("denial", decode_strictly::<Denial>),
    ("derivation path", decode_strictly::<DerivationPath>),
    ("freezer statement", decode_strictly::<FreezerStatement>),
    ("genesis record", decode_strictly::<GenesisRecord>),
    ("hash", decode_strictly::<Hash32>),
    ("key name", decode_strictly::<KeyName>),
    ("limit", decode_strictly::<LimitRef>),
    ("manifest", decode_strictly::<Manifest>),
    ("named signature", decode_strictly::<NamedSignature>),
    ("public key", decode_strictly::<PublicKey>),
    ("relying party", decode_strictly::<RelyingParty>),
    ("scheme", decode_strictly::<Scheme>),
    ("signed change", decode_strictly::<SignedChange>),
    ("signed statement", decode_strictly::<SignedStatement>),
    ("stamp", decode_strictly::<Stamp>),
    ("time", decode_strictly::<UnixMillis>),
];

/// One valid encoding of each of the types that hold the others.
fn seeds() -> Vec<Vec<u8>> {
    let governor = common::Secret::new(0);
    let envelope = ChangeEnvelope {
        genesis: GenesisId::new([1; 32]),
        incarnation: Incarnation(2),
        predecessor: Hash32::new([3; 32]),
        expires: UnixMillis(4),
        change: Change::SetPolicy { policy: Hash32::new([5; 32]) },
    };
    let by = governor.named(&envelope.signing_bytes());
    let statement = SignedStatement {
        genesis: GenesisId::new([1; 32]),
        incarnation: Incarnation(2),
        at: UnixMillis(3),
        statement: FreezerStatement::Heartbeat {
            size: 300,
            root: Hash32::new([4; 32]),
            pending: vec![Hash32::new([5; 32])],
        },
        by: by.clone(),
    };
    let assertion = Assertion {
        credential: governor.id(),
        authenticator_data: vec![1; 37],
        client_data: b"{}".to_vec(),
        signature: vec![2; 70],
    };
    let stamp = Stamp {
        credential: governor.id(),
        issued_at: UnixMillis(1),
        expires_at: UnixMillis(2),
        nonce: [3; 16],
        signature: [4; 64],
    };
    let limit = LimitRef::Sum { max: Amount::from_u128(1 << 70), window: Millis(86_400_000) };
    let mut denial =
        Denial::new(DenialCode::LimitExceeded, "too much").by(&GrantId::new("x402").unwrap());
    denial.limit = Some(limit);
    denial.remaining = Some(Amount::ZERO);
    vec![
        cbor::encode(&common::genesis()),
        cbor::encode(&common::manifest()),
        cbor::encode(&SignedChange { envelope, signatures: vec![by] }),
        cbor::encode(&statement),
        cbor::encode(&assertion),
        cbor::encode(&stamp),
        cbor::encode(&denial),
    ]
}

#[test]
fn every_seed_is_accepted_by_one_decoder() {
    for seed in seeds() {
        let accepted = DECODERS.iter().filter(|(_, decode)| decode(&seed)).count();
        assert_eq!(accepted, 1);
    }
}

#[test]
fn every_seed_cut_short_or_with_a_byte_behind_is_refused() {
    for seed in seeds() {
        for length in 0..seed.len() {
            assert!(DECODERS.iter().all(|(_, decode)| !decode(&seed[..length])), "{length}");
        }
        let longer = [seed.as_slice(), &[0]].concat();
        assert!(DECODERS.iter().all(|(_, decode)| !decode(&longer)));
    }
}

#[test]
fn a_cap_is_checked_before_anything_is_decoded() {
    let seed = &seeds()[0];
    assert_eq!(
        cbor::decode::<GenesisRecord>(seed, seed.len() - 1),
        Err(CborError::TooLarge { size: seed.len(), max: seed.len() - 1 })
    );
}

/// A count far beyond the input must fail at the input's end, not allocate for it.
#[test]
fn a_huge_count_is_refused_without_its_memory() {
    // a path, a signed change's signatures and a heartbeat's list, each of 2^63 - 1 elements
    let count = [0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(!decode_strictly::<DerivationPath>(&count));
    let seeds = seeds();
    let signatures = seeds[2].iter().rposition(|&byte| byte == 0x81).unwrap();
    let hostile = [&seeds[2][..signatures], &count].concat();
    assert!(!decode_strictly::<SignedChange>(&hostile));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for (_, decode) in DECODERS {
            decode(&bytes);
        }
        let _ = SignRequest::parse(&bytes);
        let _ = ApprovalBody::parse(&bytes);
        let _ = PublicKey::from_hex(casemate_proto::Algorithm::P256, &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn changed_bytes_never_panic_and_never_have_two_encodings(
        which in 0..7_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = seeds()[which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (_, decode) in DECODERS {
            decode(&bytes);
        }
    }

    #[test]
    fn changes_round_trip(
        genesis: [u8; 32], incarnation: u64, predecessor: [u8; 32], expires: u64,
        policy: [u8; 32], signature: [u8; 32],
    ) {
        let credential = CredentialId(Hash32::new(predecessor));
        let signature = [signature, signature].concat().try_into().unwrap();
        let signed = SignedChange {
            envelope: ChangeEnvelope {
                genesis: GenesisId::new(genesis),
                incarnation: Incarnation(incarnation),
                predecessor: Hash32::new(predecessor),
                expires: UnixMillis(expires),
                change: Change::SetPolicy { policy: Hash32::new(policy) },
            },
            signatures: vec![NamedSignature { credential, signature }],
        };
        prop_assert_eq!(cbor::decode::<SignedChange>(&cbor::encode(&signed), MAX), Ok(signed));
    }

    #[test]
    fn denials_round_trip(
        code in prop::sample::select(DenialCode::ALL), detail in ".{0,400}",
        max: u128, window: u64, remaining: Option<u128>, resets_at: Option<u64>,
    ) {
        let mut denial = Denial::new(code, detail);
        denial.limit = Some(LimitRef::Sum { max: Amount::from_u128(max), window: Millis(window) });
        denial.remaining = remaining.map(Amount::from_u128);
        denial.resets_at = resets_at.map(UnixMillis);
        prop_assert_eq!(cbor::decode::<Denial>(&cbor::encode(&denial), MAX), Ok(denial));
    }

    #[test]
    fn request_bodies_round_trip(
        request_id: [u8; 16], key in "[a-z0-9._-]{1,64}", steps in prop::collection::vec(0..=0x7fff_ffff_u32, 0..=8),
        which in 0..4, bytes in prop::collection::vec(any::<u8>(), 0..200), hash: [u8; 32], number: u64,
    ) {
        let payload = match which {
            0 => Payload::Tx { chain: ChainId::eip155(number), unsigned: bytes },
            1 => Payload::TypedData(format!(r#"{{"message":{{"value":"{number}"}}}}"#)),
            2 => Payload::Message(bytes),
            _ => Payload::Hash(hash),
        };
        let request = SignRequest {
            request_id: RequestId::new(request_id),
            key: KeyName::new(&key).unwrap(),
            path: DerivationPath::new(&steps).unwrap(),
            payload,
        };
        prop_assert_eq!(SignRequest::parse(request.to_body().as_bytes()), Ok(request));
    }

    #[test]
    fn changed_request_bodies_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let request = SignRequest {
            request_id: RequestId::new([1; 16]),
            key: KeyName::new("agent-7").unwrap(),
            path: DerivationPath::new(&[0, 7]).unwrap(),
            payload: Payload::Tx { chain: ChainId::eip155(8453), unsigned: vec![2; 40] },
        };
        let mut body = request.to_body().into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(request) = SignRequest::parse(&body) {
            prop_assert_eq!(SignRequest::parse(request.to_body().as_bytes()), Ok(request));
        }
    }
}
