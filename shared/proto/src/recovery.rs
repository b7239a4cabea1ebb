//! Cold recovery: what k of m governors sign when a majority of a cluster's enclaves is gone at once.
//!
//! A **recovery certificate** takes up one ledger of one cluster and gives it to exactly the boots that
//! it names, as another incarnation:
//!
//! ```text
//! new boot  → parent     Offer        its record, attested under (genesis id, r + 1), and a key to
//!                                     which shares of its recovery secret can be released
//! operator  → governors  Certificate  the ledger's size, root and hash; policy, images, revocations;
//!                                     the boots; for each the hash of the blob that it is to open
//! k of m governors       sign it, one certificate for each incarnation and no second ever
//! ```
//!
//! [`SignedCertificate::verify`] turns it into a [`RecoveryGranted`], which is what opening a sealed
//! blob and beginning another incarnation ask for, and which nothing else makes. Whether the ledger
//! that it names is the one at hand, and whether the boots' evidence holds, is asked by whoever
//! has that ledger (`State::apply`).
//!
//! Since k is more than half of m, two certificates for one incarnation need a governor who signs
//! twice; each governor's tool keeps a durable record so as not to.

use std::collections::BTreeSet;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::governance::{NamedSignature, QuorumError};
use crate::hash::tagged_hash;
use crate::ids::Hash32;
use crate::manifest::{BootRecord, MAX_EVIDENCE, MAX_NODES, Manifest, Measurement};
use crate::{BootId, CredentialId, GenesisId, Incarnation, Millis, NodeName, UnixMillis};

/// Most bytes of an encoded certificate, without its signatures.
pub const MAX_CERTIFICATE: usize = MAX_NODES * (MAX_EVIDENCE + 1024) + 384 * 1024;
/// Most bytes of an encoded certificate with its signatures.
pub const MAX_SIGNED_CERTIFICATE: usize = MAX_CERTIFICATE + 8 * 1024;
/// Longest life of a certificate: governors who live apart sign within it.
pub const MAX_LIFE: Millis = Millis(31 * 24 * 3_600_000);
/// Most images that a certificate names.
const MAX_IMAGES: usize = 256;
/// Most revoked credentials that it names.
pub const MAX_REVOKED: usize = 8_192;

/// An X25519 public key to which shares of recovery secrets are encrypted: a governor's, or a boot's.
/// Not of low order, so that what is encrypted to it is not readable by everybody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecoveryPublicKey([u8; 32]);

impl RecoveryPublicKey {
    /// From its 32 bytes. `None` where they are of low order.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Option<Self> {
        use curve25519_dalek::MontgomeryPoint;
        // whatever is clamped is a multiple of 8, which takes low order to zero and nothing else
        let multiple = MontgomeryPoint(bytes).mul_clamped([1; 32]);
        (multiple != MontgomeryPoint([0; 32])).then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl core::fmt::Debug for RecoveryPublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RecoveryPublicKey({})", hex::encode(self.0))
    }
}
impl<C> Encode<C> for RecoveryPublicKey {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}
impl<'b, C> Decode<'b, C> for RecoveryPublicKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        <[u8; 32]>::try_from(d.bytes()?)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| decode::Error::message("not an X25519 key").at(at))
    }
}

/// What a boot that is started for a recovery attests itself under: the cluster and the incarnation
/// that it is to begin. Evidence for a birth, for a join or for another recovery does not fit.
#[must_use]
pub fn recovery_scope(genesis: &GenesisId, incarnation: Incarnation) -> Hash32 {
    tagged_hash("casemate/recovery-scope/v1", &[genesis.as_bytes(), &incarnation.0.to_be_bytes()])
}

/// A boot that offers itself for a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryOffer {
    /// The boot, attested under [`recovery_scope`].
    #[n(0)]
    pub record: BootRecord,
    /// To which shares of its recovery secret are released; made for this, and used for nothing else.
    #[n(1)]
    pub recovery_key: RecoveryPublicKey,
    /// By the boot's attested Ed25519 key over [`Self::signing_bytes`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl RecoveryOffer {
    /// What a boot signs to bind its recovery key to itself and to one recovery.
    #[must_use]
    pub fn signing_bytes(scope: &Hash32, boot: &BootId, key: &RecoveryPublicKey) -> Vec<u8> {
        let tag = "casemate/recovery-offer/v1";
        let hash = tagged_hash(tag, &[scope.as_bytes(), boot.as_bytes(), key.as_bytes()]);
        [tag.as_bytes(), &[0], hash.as_bytes()].concat()
    }

    /// Whether the boot's key signed its recovery key for this recovery. Whether the boot is to be
    /// believed at all is what its evidence says.
    #[must_use]
    pub fn is_signed(&self, scope: &Hash32) -> bool {
        let message = Self::signing_bytes(scope, &self.record.id(), &self.recovery_key);
        ed25519_dalek::VerifyingKey::from_bytes(&self.record.key).is_ok_and(|key| {
            let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
            key.verify_strict(&message, &signature).is_ok()
        })
    }
}

/// A boot of the recovered cluster, and what it opens.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryBoot {
    /// What it offered.
    #[n(0)]
    pub offer: RecoveryOffer,
    /// The hash of the sealed blob that it opens; `None` where its node has lost its shares, which
    /// the others give back once the cluster stands.
    #[n(1)]
    pub sealed: Option<Hash32>,
}

/// The ledger that is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LedgerName {
    /// How many entries it has.
    #[n(0)]
    pub size: u64,
    /// The root of the tree over their records.
    #[n(1)]
    pub root: Hash32,
    /// The hash of the state that they build (`State::snapshot_hash`).
    #[n(2)]
    pub state: Hash32,
}

/// What the governors sign.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryCertificate {
    /// Format version, 1.
    #[n(0)]
    pub version: u64,
    /// The cluster.
    #[n(1)]
    pub genesis: GenesisId,
    /// The incarnation whose ledger is taken up.
    #[n(2)]
    pub former: Incarnation,
    /// The incarnation that begins; later than the former.
    #[n(3)]
    pub incarnation: Incarnation,
    /// When it was drawn up: the time of the first entry of the incarnation, and the time at which
    /// the boots' evidence must be fresh.
    #[n(4)]
    pub at: UnixMillis,
    /// Until when a boot may begin with it.
    #[n(5)]
    pub expires: UnixMillis,
    /// The ledger that is taken up.
    #[n(6)]
    pub ledger: LedgerName,
    /// The policy in force in it.
    #[n(7)]
    pub policy: Option<Hash32>,
    /// The images accepted in it, in order.
    #[n(8)]
    pub images: Vec<Measurement>,
    /// The credentials revoked in it, in order.
    #[n(9)]
    pub revoked: Vec<CredentialId>,
    /// Exactly one boot for each node of the roster, in its order.
    #[n(10)]
    pub boots: Vec<RecoveryBoot>,
}

/// A certificate and the signatures under it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedCertificate {
    /// The certificate.
    #[n(0)]
    pub certificate: RecoveryCertificate,
    /// At most one from each governor.
    #[n(1)]
    pub signatures: Vec<NamedSignature>,
}

/// Why a certificate grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// A field contradicts another, the genesis or a bound.
    #[error("recovery certificate, `{field}`: {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It is of another cluster.
    #[error("the certificate is of cluster {certificate}, and this is {here}")]
    OtherCluster {
        /// The certificate's.
        certificate: GenesisId,
        /// This one.
        here: GenesisId,
    },
    /// The cluster's manifest names nobody to recover it.
    #[error("the manifest has no recovery keys: this cluster seals nothing")]
    NoRecovery,
    /// A boot did not sign its recovery key for this recovery.
    #[error("the boot of node `{node}` did not sign its recovery key for this recovery")]
    Offer {
        /// Whose boot.
        node: NodeName,
    },
    /// A revoked credential signed.
    #[error("credential {credential} signed and is revoked")]
    Revoked {
        /// Whose.
        credential: CredentialId,
    },
    /// The signatures do not carry it.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// It came too late.
    #[error("the certificate was good until {expires}, and it is {now}")]
    Expired {
        /// Until when.
        expires: UnixMillis,
        /// The time it was checked at.
        now: UnixMillis,
    },
    /// This boot is not one that it names.
    #[error("the certificate names another boot of node `{node}`")]
    OtherBoot {
        /// The node.
        node: NodeName,
    },
}

impl RecoveryCertificate {
    /// Its id: a hash of every byte of it.
    #[must_use]
    pub fn id(&self) -> Hash32 {
        tagged_hash("casemate/recovery-certificate/v1", &[&crate::cbor::encode(self)])
    }

    /// The bytes that a governor signs. They are neither a change's nor a freezer's.
    #[must_use]
    pub fn signing_bytes(&self) -> Vec<u8> {
        [b"casemate/recovery/v1\0".as_slice(), self.id().as_bytes()].concat()
    }

    /// What its boots attest themselves under.
    #[must_use]
    pub fn scope(&self) -> Hash32 {
        recovery_scope(&self.genesis, self.incarnation)
    }

    /// The boot of a node.
    #[must_use]
    pub fn boot(&self, node: &NodeName) -> Option<&RecoveryBoot> {
        self.boots.iter().find(|boot| boot.offer.record.node == *node)
    }

    /// Checks everything that can be checked without the ledger and without the signatures.
    ///
    /// # Errors
    /// Naming the first thing that is wrong.
    pub fn check(&self, here: GenesisId, manifest: &Manifest) -> Result<(), RecoveryError> {
        let fail =
            |field, reason: &str| Err(RecoveryError::Field { field, reason: reason.to_owned() });
        if self.genesis != here {
            return Err(RecoveryError::OtherCluster { certificate: self.genesis, here });
        }
        if manifest.recovery.is_none() {
            return Err(RecoveryError::NoRecovery);
        }
        if self.version != 1 {
            return fail("version", "only version 1 is known");
        }
        if self.incarnation <= self.former {
            return fail("incarnation", "it is not later than the former");
        }
        if self.expires <= self.at || self.expires > self.at.saturating_add(MAX_LIFE) {
            return fail("expires", "it is after `at`, by 31 days at most");
        }
        if self.ledger.size == 0 {
            return fail("ledger", "an empty ledger is a birth and no recovery");
        }
        if self.images.is_empty()
            || self.images.len() > MAX_IMAGES
            || !strictly_ascending(&self.images)
        {
            return fail("images", "1 to 256 different ones, in order");
        }
        if self.revoked.len() > MAX_REVOKED || !strictly_ascending(&self.revoked) {
            return fail("revoked", "at most 8,192 different ones, in order");
        }
        let roster = manifest.nodes.iter().map(|node| &node.name);
        if !roster.eq(self.boots.iter().map(|boot| &boot.offer.record.node)) {
            return fail("boots", "they are not exactly the roster's nodes, in order");
        }
        // a key that serves as two keys would let one stand for another
        let mut keys = BTreeSet::new();
        let mut nonces = BTreeSet::new();
        for boot in &self.boots {
            let RecoveryOffer { record, recovery_key, .. } = &boot.offer;
            let own = [record.key, record.channel_key, *recovery_key.as_bytes()];
            if !own.into_iter().all(|key| keys.insert(key)) || !nonces.insert(record.nonce) {
                return fail("boots", "two of them share a key or a nonce");
            }
            if record.evidence.len() > MAX_EVIDENCE {
                return fail("boots", "the evidence of one is too large");
            }
            if !boot.offer.is_signed(&self.scope()) {
                return Err(RecoveryError::Offer { node: record.node.clone() });
            }
        }
        let blobs: BTreeSet<Hash32> = self.boots.iter().filter_map(|boot| boot.sealed).collect();
        let holders = self.boots.iter().filter(|boot| boot.sealed.is_some()).count();
        if blobs.len() != holders {
            return fail("boots", "two of them open one blob");
        }
        if u64::try_from(holders).unwrap_or(0) < manifest.threshold {
            return fail("boots", "fewer than t of them have shares to open");
        }
        Ok(())
    }
}

fn strictly_ascending<T: Ord>(items: &[T]) -> bool {
    items.iter().zip(items.iter().skip(1)).all(|(a, b)| a < b)
}

impl SignedCertificate {
    /// Checks the certificate against the cluster that it is of, and that a quorum of governors who
    /// are not revoked signed exactly this. `now` is the checker's time; `None` for somebody who
    /// reads about a recovery that was. The manifest is the one that `genesis` is made of.
    ///
    /// # Errors
    /// If not. Every signature must verify: one bad signature refuses the whole.
    pub fn verify(
        &self,
        genesis: GenesisId,
        manifest: &Manifest,
        now: Option<UnixMillis>,
    ) -> Result<RecoveryGranted, RecoveryError> {
        let certificate = &self.certificate;
        certificate.check(genesis, manifest)?;
        if let Some(now) = now.filter(|now| *now >= certificate.expires) {
            return Err(RecoveryError::Expired { expires: certificate.expires, now });
        }
        let message = certificate.signing_bytes();
        let mut seen = BTreeSet::new();
        for NamedSignature { credential, signature } in &self.signatures {
            let key = manifest
                .governor(credential)
                .ok_or(QuorumError::NotAGovernor { credential: *credential })?;
            if certificate.revoked.contains(credential) {
                return Err(RecoveryError::Revoked { credential: *credential });
            }
            if !seen.insert(*credential) {
                return Err(QuorumError::Twice { credential: *credential }.into());
            }
            key.verify(&message, signature).map_err(QuorumError::from)?;
        }
        let need = manifest.governance.quorum;
        if u64::try_from(seen.len()).unwrap_or(0) < need {
            return Err(QuorumError::TooFew { have: seen.len(), need }.into());
        }
        Ok(RecoveryGranted { id: certificate.id(), signed: self.clone() })
    }
}

/// A certificate that a quorum of its cluster's governors signed. Made by
/// [`SignedCertificate::verify`] only.
#[derive(Clone, Debug)]
pub struct RecoveryGranted {
    id: Hash32,
    signed: SignedCertificate,
}

impl RecoveryGranted {
    /// The certificate's id.
    #[must_use]
    pub const fn id(&self) -> Hash32 {
        self.id
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &RecoveryCertificate {
        &self.signed.certificate
    }

    /// The certificate with the signatures that carry it.
    #[must_use]
    pub const fn signed(&self) -> &SignedCertificate {
        &self.signed
    }

    /// What is granted to this boot.
    ///
    /// # Errors
    /// If the certificate does not name exactly this boot for its node.
    pub fn to_boot(&self, node: &NodeName, boot: BootId) -> Result<&RecoveryBoot, RecoveryError> {
        self.certificate()
            .boot(node)
            .filter(|named| named.offer.record.id() == boot)
            .ok_or_else(|| RecoveryError::OtherBoot { node: node.clone() })
    }
}
