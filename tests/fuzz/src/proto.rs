//! Wire types: stamps, bodies, manifest, genesis, governance, approvals by passkey.

use std::sync::LazyLock;

use casemate_proto::cbor;
use casemate_proto::governance::{MAX_CHANGE, SignedChange, SignedStatement};
use casemate_proto::manifest::{
    GenesisRecord, Governance, Hardware, Independence, Limits, MAX_GENESIS, MAX_MANIFEST, Manifest,
};
use casemate_proto::request::{ApprovalBody, SignRequest};
use casemate_proto::stamp::{Method, Stamp, StampScope};
use casemate_proto::webauthn::{Assertion, MAX_ASSERTION, RelyingParty};
use casemate_proto::{
    Algorithm, Denial, GenesisId, Hash32, Incarnation, Millis, PublicKey, UnixMillis,
};
use minicbor::{Decode, Encode};

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "stamp_header", run: stamp_header },
    Target { name: "request_body", run: request_body },
    Target { name: "approval_body", run: approval_body },
    Target { name: "manifest", run: manifest },
    Target { name: "genesis", run: genesis },
    Target { name: "governance_change", run: governance_change },
    Target { name: "freezer_statement", run: freezer_statement },
    Target { name: "webauthn_assertion", run: webauthn_assertion },
    Target { name: "denial", run: denial },
];

/// Keys that nobody has the secrets of here: the base points of the two curves.
const P256_POINT: &str = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
const ED25519_POINT: &str = "5866666666666666666666666666666666666666666666666666666666666666";

static KEYS: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
    [
        (Algorithm::P256, P256_POINT),
        (Algorithm::Ed25519, ED25519_POINT),
        (Algorithm::WebauthnP256, P256_POINT),
    ]
    .into_iter()
    .filter_map(|(algorithm, hex)| PublicKey::from_hex(algorithm, hex).ok())
    .collect()
});

/// A manifest whose governors and freezers are the plain ones of [`KEYS`].
static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
    let plain: Vec<PublicKey> =
        KEYS.iter().filter(|key| key.algorithm() != Algorithm::WebauthnP256).cloned().collect();
    Manifest {
        version: 1,
        name: String::new(),
        threshold: 2,
        nodes: Vec::new(),
        measurements: Vec::new(),
        governance: Governance { quorum: 2, keys: plain.clone(), loosening_delay: Millis(0) },
        freezers: plain,
        limits: Limits::default(),
        independence: Independence::None,
        hardware: Hardware::OneProcess,
        trust_root: Hash32::new([0; 32]),
        relying_party: None,
        recovery: None,
    }
});

/// What decodes, encodes to the bytes that it came from.
fn strict<T: for<'b> Decode<'b, ()> + Encode<()>>(data: &[u8], max: usize) -> Option<T> {
    let value: T = cbor::decode(data, max).ok()?;
    assert_eq!(cbor::encode(&value), data, "encodes to other bytes");
    assert!(data.len() <= max, "larger than its cap");
    Some(value)
}

/// A header that parses is the one text of its stamp, and nothing here can have signed it.
pub fn stamp_header(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(stamp) = Stamp::from_header(text) else { return };
    assert_eq!(stamp.to_header(), text, "a second text for one stamp");
    let scope = StampScope {
        genesis: GenesisId::new([1; 32]),
        incarnation: Incarnation(0),
        method: Method::CreateRequest,
    };
    for key in KEYS.iter() {
        for now in [0, stamp.issued_at.0, u64::MAX] {
            let verified = stamp.verify(&scope, key, data, UnixMillis(now), Millis(u64::MAX));
            assert!(verified.is_err(), "a forged stamp");
        }
    }
}

/// A request's body says the same when it is written again.
pub fn request_body(data: &[u8]) {
    let Ok(request) = SignRequest::parse(data) else { return };
    let again = request.to_body();
    assert_eq!(SignRequest::parse(again.as_bytes()), Ok(request), "{again}");
}

/// An approval's body says the same when it is written again.
pub fn approval_body(data: &[u8]) {
    let Ok(approval) = ApprovalBody::parse(data) else { return };
    let again = approval.to_body();
    assert_eq!(ApprovalBody::parse(again.as_bytes()), Ok(approval), "{again}");
}

/// A manifest is decoded strictly; its checks never panic.
pub fn manifest(data: &[u8]) {
    if let Some(manifest) = strict::<Manifest>(data, MAX_MANIFEST)
        && manifest.check().is_ok()
    {
        assert!(manifest.threshold >= 2, "one node could sign alone");
        assert!(!manifest.governance.keys.is_empty(), "nobody governs");
    }
}

/// A genesis is decoded strictly; its checks and its id never panic.
pub fn genesis(data: &[u8]) {
    if let Some(genesis) = strict::<GenesisRecord>(data, MAX_GENESIS) {
        let _id = genesis.id();
        if genesis.check().is_ok() {
            assert_eq!(genesis.boots.len(), genesis.manifest.nodes.len(), "not one boot each");
        }
    }
}

/// A change is decoded strictly, and nothing here can have signed it.
pub fn governance_change(data: &[u8]) {
    if let Some(change) = strict::<SignedChange>(data, MAX_CHANGE) {
        assert!(change.verify(&MANIFEST).is_err(), "a forged change");
    }
}

/// A freezer's statement is decoded strictly, and nothing here can have signed it.
pub fn freezer_statement(data: &[u8]) {
    if let Some(statement) = strict::<SignedStatement>(data, MAX_GENESIS) {
        assert!(statement.verify(&MANIFEST).is_err(), "a forged statement");
    }
}

/// An assertion is decoded strictly, and nothing here can have signed it.
pub fn webauthn_assertion(data: &[u8]) {
    let Some(mut assertion) = strict::<Assertion>(data, MAX_ASSERTION) else { return };
    let rp =
        RelyingParty { id: "example.org".to_owned(), origin: "https://example.org".to_owned() };
    for key in KEYS.iter() {
        assertion.credential = key.id();
        let verified = assertion.verify(key, &rp, &Hash32::new([0; 32]));
        assert!(verified.is_err(), "a forged assertion");
    }
}

/// A denial is decoded strictly and prints.
pub fn denial(data: &[u8]) {
    if let Some(denial) = strict::<Denial>(data, 4096) {
        assert!(denial.to_string().starts_with(denial.code.name()), "prints another code");
    }
}
