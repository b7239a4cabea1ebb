//! A cluster that seals, governors who recover it, and the boots that they recover it to.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use casemate_proto::governance::NamedSignature;
use casemate_proto::manifest::{
    BootRecord, GenesisRecord, Governance, Hardware, Independence, Limits, Manifest, Measurement,
    NodeSpec, RecoveryKeys,
};
use casemate_proto::recovery::{
    LedgerName, RecoveryBoot, RecoveryCertificate, RecoveryGranted, RecoveryOffer,
    SignedCertificate, recovery_scope,
};
use casemate_proto::{
    Algorithm, BootId, Hash32, Incarnation, KeyName, Millis, NodeName, PublicKey, Scheme,
    UnixMillis,
};
use casemate_recovery::{RecoverySecretKey, Release, SealedBlob, SealedKey};
use casemate_seal::{DataKey, OpenError, OpenedShare, Opening, SealableShare, Sealing, open, seal};
use ed25519_dalek::{Signer as _, SigningKey};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use zeroize::Zeroizing;

pub const AT: UnixMillis = UnixMillis(1_795_200_000_000);

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn fixed(number: u8) -> RecoverySecretKey {
    RecoverySecretKey::from_bytes(Zeroizing::new([number; 32])).unwrap()
}

/// One boot's keys.
pub struct Boot {
    pub key: SigningKey,
    pub recovery: RecoverySecretKey,
    pub record: BootRecord,
}

impl Boot {
    /// Each number its own boot.
    pub fn new(node: &NodeName, number: u8) -> Self {
        let key = SigningKey::from_bytes(&[number; 32]);
        let record = BootRecord {
            node: node.clone(),
            key: key.verifying_key().to_bytes(),
            channel_key: *fixed(number).public().as_bytes(),
            nonce: [number; 32],
            apply_version: 1,
            evidence: vec![number; 40],
        };
        Self { key, recovery: fixed(number + 1), record }
    }

    pub fn id(&self) -> BootId {
        self.record.id()
    }

    pub fn offer(&self, scope: &Hash32) -> RecoveryOffer {
        let recovery_key = self.recovery.public();
        let message = RecoveryOffer::signing_bytes(scope, &self.id(), &recovery_key);
        RecoveryOffer {
            record: self.record.clone(),
            recovery_key,
            signature: self.key.sign(&message).to_bytes(),
        }
    }
}

/// The world of one recovery: three nodes `a`, `b`, `c` and two of three governors.
pub struct Kit {
    pub genesis: GenesisRecord,
    pub governors: Vec<(SigningKey, RecoverySecretKey)>,
    pub former: Vec<Boot>,
    pub new: Vec<Boot>,
    pub rng: ChaCha20Rng,
}

impl Kit {
    pub fn new() -> Self {
        Self::of(2, 3)
    }

    pub fn of(quorum: u8, governors: u8) -> Self {
        let governors: Vec<_> = (0..governors)
            .map(|i| (SigningKey::from_bytes(&[150 + i; 32]), fixed(200 + i)))
            .collect();
        let nodes = ["a", "b", "c"].map(name);
        let former: Vec<Boot> =
            (0..).step_by(4).zip(&nodes).map(|(i, node)| Boot::new(node, 10 + i)).collect();
        let new = (0..).step_by(4).zip(&nodes).map(|(i, node)| Boot::new(node, 50 + i)).collect();
        let spec = |node: &NodeName| NodeSpec {
            name: node.clone(),
            region: node.as_str().to_owned(),
            pcr3: [7; 48],
        };
        let plain = |(key, _): &(SigningKey, RecoverySecretKey)| {
            PublicKey::new(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap()
        };
        let manifest = Manifest {
            version: 1,
            name: "sealed".to_owned(),
            threshold: 2,
            nodes: nodes.iter().map(spec).collect(),
            measurements: vec![Measurement { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] }],
            governance: Governance {
                quorum: quorum.into(),
                keys: governors.iter().map(plain).collect(),
                loosening_delay: Millis(1000),
            },
            freezers: Vec::new(),
            limits: Limits::default(),
            independence: Independence::None,
            hardware: Hardware::Simulated,
            trust_root: Hash32::new([4; 32]),
            relying_party: None,
            recovery: Some(RecoveryKeys {
                keys: governors.iter().map(|(_, recovery)| recovery.public()).collect(),
            }),
        };
        let boots = former.iter().map(|boot| boot.record.clone()).collect();
        let genesis = GenesisRecord { manifest, boots, at: UnixMillis(AT.0 - 1_000_000) };
        genesis.manifest.check().unwrap();
        Self { genesis, governors, former, new, rng: ChaCha20Rng::from_seed([9; 32]) }
    }

    /// What a node seals, in incarnation 0.
    pub fn seal(&mut self, node: usize, shares: Vec<SealableShare>) -> SealedBlob {
        self.seal_with(node, shares, None)
    }

    pub fn seal_with(
        &mut self,
        node: usize,
        shares: Vec<SealableShare>,
        data_key: Option<DataKey>,
    ) -> SealedBlob {
        let boot = &self.former[node];
        let sealing = Sealing {
            manifest: &self.genesis.manifest,
            genesis: self.genesis.id(),
            incarnation: Incarnation(0),
            node: &boot.record.node,
            boot: boot.id(),
            number: 3,
            size: 40,
            root: Hash32::new([5; 32]),
            data_key,
        };
        let sign = |message: &[u8]| {
            assert!(message.starts_with(b"casemate/sealed-blob/"));
            Some(boot.key.sign(message).to_bytes())
        };
        seal(sealing, shares, &sign, &mut self.rng).unwrap()
    }

    /// A certificate that gives these blobs to the new boots.
    pub fn certificate(&self, blobs: &[Option<&SealedBlob>]) -> RecoveryCertificate {
        let scope = recovery_scope(&self.genesis.id(), Incarnation(1));
        let boots = self.new.iter().zip(blobs).map(|(boot, blob)| RecoveryBoot {
            offer: boot.offer(&scope),
            sealed: blob.map(SealedBlob::hash),
        });
        RecoveryCertificate {
            version: 1,
            genesis: self.genesis.id(),
            former: Incarnation(0),
            incarnation: Incarnation(1),
            at: AT,
            expires: UnixMillis(AT.0 + 3_600_000),
            ledger: LedgerName {
                size: 41,
                root: Hash32::new([5; 32]),
                state: Hash32::new([6; 32]),
            },
            policy: None,
            images: self.genesis.manifest.measurements.clone(),
            revoked: Vec::new(),
            boots: boots.collect(),
        }
    }

    pub fn grant(&self, certificate: RecoveryCertificate) -> RecoveryGranted {
        let message = certificate.signing_bytes();
        let quorum = usize::try_from(self.genesis.manifest.governance.quorum).unwrap();
        let keys = self.governors.iter().zip(&self.genesis.manifest.governance.keys);
        let sign = |((key, _), public): (&(SigningKey, RecoverySecretKey), &PublicKey)| {
            NamedSignature { credential: public.id(), signature: key.sign(&message).to_bytes() }
        };
        let signatures = keys.take(quorum).map(sign).collect();
        SignedCertificate { certificate, signatures }
            .verify(self.genesis.id(), &self.genesis.manifest, Some(AT))
            .unwrap()
    }

    /// What these governors release of a blob.
    pub fn releases(
        &mut self,
        granted: &RecoveryGranted,
        blob: &SealedBlob,
        by: &[usize],
    ) -> Vec<Release> {
        by.iter()
            .map(|governor| {
                let key = &self.governors[*governor].1;
                Release::make(granted, &self.genesis.manifest, blob, key, &mut self.rng).unwrap()
            })
            .collect()
    }

    /// How the new boot of a node opens.
    pub fn opening<'a>(&'a self, granted: &'a RecoveryGranted, node: usize) -> Opening<'a> {
        Opening {
            granted,
            manifest: &self.genesis.manifest,
            key: &self.new[node].recovery,
            former: self.former[node].id(),
            former_key: self.former[node].record.key,
            data_key: None,
        }
    }

    pub fn open(
        &self,
        granted: &RecoveryGranted,
        node: usize,
        blob: &SealedBlob,
        releases: &[Release],
    ) -> Result<Vec<OpenedShare>, OpenError> {
        open(&self.opening(granted, node), blob, releases)
    }
}

/// A share of bytes of one kind, for where it need not be one.
pub fn share(key: &str, epoch: u64, fill: u8, len: usize) -> SealableShare {
    let key = SealedKey {
        name: KeyName::new(key).unwrap(),
        epoch,
        scheme: Scheme::Ed25519,
        transcript: Hash32::new([fill ^ 0x80; 32]),
    };
    SealableShare::new(key, Zeroizing::new(vec![fill; len]))
}
