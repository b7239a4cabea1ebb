//! A cold recovery, from the side of a boot that is to begin the next incarnation: see
//! `docs/decisions/0009-sealing.md`.
//!
//! It attests itself for the one recovery, offers itself, and waits. What its host hands over comes in
//! pieces and is checked as a whole when the host says that it is complete; where it does not fit it is
//! thrown away, the host is told why, and others can be handed over. Once it fits, the boot is a member.

use casemate_channel::Expected;
use casemate_door::RecoveryPiece;
use casemate_ledger::snapshot::MAX_SNAPSHOT;
use casemate_proto::cbor;
use casemate_proto::manifest::{BootRecord, GenesisRecord, MAX_GENESIS, Manifest};
use casemate_proto::recovery::{
    MAX_SIGNED_CERTIFICATE, RecoveryOffer, SignedCertificate, recovery_scope,
};
use casemate_proto::{Hash32, Incarnation, NodeName};
use casemate_recovery::{MAX_BLOB, MAX_RELEASE, RecoverySecretKey, Release, SealedBlob};
use casemate_replication::StartAt;
use casemate_replication::join::MAX_TAIL;
use casemate_signer::{BootSecret, Node, NodeConfig, RecoveryParts};
use tokio::time::Instant;

use crate::birth::{boot, identity};
use crate::core::{Common, Refusal};
use crate::joining::{EVIDENCE_LIFE, images};
use crate::links::LinkPolicy;
use crate::member::{Beginning, Member};

/// Most releases; a manifest has at most 32 governors.
const MAX_RELEASES: usize = 64;

/// This boot, waiting for a certificate that names it.
pub(crate) struct Recovering {
    node: NodeName,
    config: NodeConfig,
    genesis: GenesisRecord,
    incarnation: Incarnation,
    secret: Option<BootSecret>,
    record: BootRecord,
    key: RecoverySecretKey,
    attested: Instant,
    given: Given,
}

/// What was handed over so far.
#[derive(Default)]
struct Given {
    certificate: Vec<u8>,
    snapshot: Vec<u8>,
    tail: Vec<u8>,
    blob: Vec<u8>,
    releases: Vec<Vec<u8>>,
}

impl Recovering {
    pub(crate) fn begin(
        node: &NodeName,
        manifest: &Manifest,
        (genesis, incarnation): (&[u8], Incarnation),
        config: NodeConfig,
        common: &Common,
    ) -> Result<Self, Refusal> {
        let genesis: GenesisRecord =
            cbor::decode(genesis, MAX_GENESIS).map_err(|error| format!("genesis: {error}"))?;
        genesis.check().map_err(|error| error.to_string())?;
        if genesis.manifest != *manifest {
            return Err("the genesis is of another manifest".to_owned());
        }
        if manifest.recovery.is_none() {
            return Err("the manifest has no recovery keys: this cluster seals nothing".to_owned());
        }
        let id = genesis.id();
        let (secret, record) = boot(node, &recovery_scope(&id, incarnation), common)?;
        let mut entropy = (common.platform.entropy)().map_err(|error| error.to_string())?;
        let key = RecoverySecretKey::generate(&mut entropy).map_err(|error| error.to_string())?;
        let images = images(manifest, &record, common.platform.clock.now())?;
        common.set_policy(LinkPolicy {
            identity: identity(&secret, &record)?,
            expected: Expected::in_cluster(manifest.clone(), images, &id, incarnation),
            birth: None,
        });
        tracing::info!(%node, boot = %record.id(), %incarnation, "born; offers itself for a recovery");
        Ok(Self {
            node: node.clone(),
            config,
            genesis,
            incarnation,
            secret: Some(secret),
            record,
            key,
            attested: Instant::now(),
            given: Given::default(),
        })
    }

    fn scope(&self) -> Hash32 {
        recovery_scope(&self.genesis.id(), self.incarnation)
    }

    /// What this boot offers, for its host to show to the governors.
    pub(crate) fn offer(&self) -> Option<Vec<u8>> {
        let recovery_key = self.key.public();
        let message = RecoveryOffer::signing_bytes(&self.scope(), &self.record.id(), &recovery_key);
        let signature = self.secret.as_ref()?.sign_recovery_offer(&message).ok()?;
        let record = self.record.clone();
        Some(cbor::encode(&RecoveryOffer { record, recovery_key, signature }))
    }

    /// The offer with newer evidence, when that is due: a certificate is drawn up with fresh evidence.
    pub(crate) fn tick(&mut self, common: &Common) -> Option<Vec<u8>> {
        if self.attested.elapsed() <= EVIDENCE_LIFE {
            return None;
        }
        self.attested = Instant::now();
        let made = crate::birth::evidence(self.secret.as_ref()?, &self.node, &self.scope(), common);
        match made {
            Ok(record) => self.record = record,
            Err(error) => tracing::error!(%error, "no attestation"),
        }
        self.offer()
    }

    /// Takes a piece. Whether it was the last.
    pub(crate) fn take(&mut self, piece: RecoveryPiece) -> Result<bool, Refusal> {
        let given = &mut self.given;
        let (what, to, bytes, max) = match piece {
            RecoveryPiece::Begin => {
                *given = Given::default();
                return Ok(false);
            }
            RecoveryPiece::End => return Ok(true),
            RecoveryPiece::Release(release) => {
                if release.len() > MAX_RELEASE {
                    return Err(format!("a release is larger than {MAX_RELEASE} bytes"));
                }
                if given.releases.len() >= MAX_RELEASES {
                    return Err(format!("more than {MAX_RELEASES} releases"));
                }
                given.releases.push(release);
                return Ok(false);
            }
            RecoveryPiece::Certificate(bytes) => {
                ("certificate", &mut given.certificate, bytes, MAX_SIGNED_CERTIFICATE)
            }
            RecoveryPiece::Snapshot(bytes) => {
                ("snapshot", &mut given.snapshot, bytes, MAX_SNAPSHOT)
            }
            RecoveryPiece::Tail(bytes) => ("tail", &mut given.tail, bytes, MAX_TAIL),
            RecoveryPiece::Blob(bytes) => ("blob", &mut given.blob, bytes, MAX_BLOB),
        };
        if to.len().saturating_add(bytes.len()) > max {
            self.given = Given::default();
            return Err(format!("the {what} is larger than {max} bytes"));
        }
        to.extend_from_slice(&bytes);
        Ok(false)
    }

    /// Begins the next incarnation with what was handed over, if it fits. Otherwise it is thrown away, and
    /// this boot waits for other pieces.
    pub(crate) fn node(&mut self, common: &Common) -> Result<Node, Refusal> {
        let given = core::mem::take(&mut self.given);
        let wrong = |what: &'static str| {
            move |error: cbor::CborError| format!("the {what} is malformed: {error}")
        };
        let certificate: SignedCertificate =
            cbor::decode(&given.certificate, MAX_SIGNED_CERTIFICATE)
                .map_err(wrong("certificate"))?;
        let blob = match given.blob.as_slice() {
            [] => None,
            bytes => Some(SealedBlob::decode(bytes).map_err(wrong("blob"))?),
        };
        // whoever can write to the host's folders can put something among them that is none
        let releases: Vec<Release> =
            given.releases.iter().filter_map(|bytes| Release::decode(bytes).ok()).collect();
        let parts = RecoveryParts {
            certificate: &certificate,
            snapshot: &given.snapshot,
            tail: &given.tail,
            blob: blob.as_ref(),
            releases: &releases,
            data_key: None,
        };
        let entropy = (common.platform.entropy)().map_err(|error| error.to_string())?;
        let now = common.platform.clock.now();
        let with = (self.config, entropy);
        Node::recover(&mut self.secret, &self.key, &self.node, &self.genesis, &parts, with, now)
            .map_err(|error| error.to_string())
    }

    /// That node, as a member.
    pub(crate) async fn member(&self, node: Node, common: &Common) -> Result<Member, String> {
        let beginning = Beginning {
            node,
            start: StartAt::Recovery,
            record: self.genesis.clone(),
            boot: BootRecord { evidence: Vec::new(), ..self.record.clone() },
            birth: None,
        };
        Member::start(beginning, common).await
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}
