//! Keys, a manifest and a genesis that are in order, for tests to break.
#![allow(dead_code, reason = "each test binary uses its part")]

use casemate_proto::governance::NamedSignature;
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement,
    NodeSpec,
};
use casemate_proto::{Algorithm, CredentialId, Hash32, Millis, NodeName, PublicKey, UnixMillis};
use ed25519_dalek::Signer as _;

/// A credential with its secret key.
pub(crate) enum Secret {
    P256(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl Secret {
    /// Both algorithms in turn, each number its own key.
    pub(crate) fn new(number: u8) -> Self {
        let seed = [number.checked_add(1).unwrap(); 32];
        if number.is_multiple_of(2) {
            Self::P256(p256::ecdsa::SigningKey::from_slice(&seed).unwrap())
        } else {
            Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed))
        }
    }

    pub(crate) fn public(&self) -> PublicKey {
        match self {
            Self::P256(key) => {
                let point = key.verifying_key().to_encoded_point(true);
                PublicKey::new(Algorithm::P256, point.as_bytes()).unwrap()
            }
            Self::Ed25519(key) => {
                PublicKey::new(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap()
            }
        }
    }

    pub(crate) fn id(&self) -> CredentialId {
        self.public().id()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().into()
            }
            Self::Ed25519(key) => key.sign(message).to_bytes(),
        }
    }

    pub(crate) fn named(&self, message: &[u8]) -> NamedSignature {
        NamedSignature { credential: self.id(), signature: self.sign(message) }
    }
}

/// Five governors, of whom three must sign.
pub(crate) fn governors() -> Vec<Secret> {
    (0..5).map(Secret::new).collect()
}

/// Two freezers, who are not governors.
pub(crate) fn freezers() -> Vec<Secret> {
    (10..12).map(Secret::new).collect()
}

/// A manifest that passes its checks.
pub(crate) fn manifest() -> Manifest {
    let node = |name: &str, role: u8| NodeSpec {
        name: NodeName::new(name).unwrap(),
        region: name.to_owned(),
        pcr3: [role; 48],
    };
    Manifest {
        version: 1,
        name: "payments".to_owned(),
        threshold: 2,
        nodes: vec![node("ap-southeast-1", 1), node("eu-west-1", 2), node("us-east-1", 3)],
        measurements: vec![Measurement { pcr0: [4; 48], pcr1: [5; 48], pcr2: [6; 48] }],
        governance: Governance {
            quorum: 3,
            keys: governors().iter().map(Secret::public).collect(),
            loosening_delay: Millis(86_400_000),
        },
        freezers: freezers().iter().map(Secret::public).collect(),
        limits: Limits::default(),
        independence: Independence::Regions,
        hardware: Hardware::Simulated,
        trust_root: Hash32::new([7; 32]),
        relying_party: None,
        recovery: None,
    }
}

/// A genesis that passes its checks.
pub(crate) fn genesis() -> GenesisRecord {
    let manifest = manifest();
    let boots = (1..=3_u8)
        .zip(&manifest.nodes)
        .map(|(number, node)| BootRecord {
            node: node.name.clone(),
            key: [number; 32],
            channel_key: [number + 10; 32],
            nonce: [number + 20; 32],
            apply_version: 1,
            evidence: vec![number; 100],
        })
        .collect();
    GenesisRecord { manifest, boots, at: UnixMillis(1_795_165_200_000) }
}
