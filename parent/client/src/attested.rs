//! Which boot answers at a node: its attestation document, over a nonce of the client's own.
//!
//! The document must chain to the pinned root, be of an accepted image, in its node's region and role,
//! and bind the boot's keys under the genesis id ([`BootRecord::user_data`]). Then everything
//! that this boot signs for a nonce is what an enclave said, and said now.

use casemate_attestation_verify as attestation;
use casemate_attestation_verify::TrustRoot;
use casemate_door::{Reply, SignedReply, query::MAX_REPLY};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, MAX_EVIDENCE, Manifest, Measurement};
use casemate_proto::{BootId, GenesisId, NodeName, UnixMillis, cbor};

use crate::fault::NodeFault;

/// How far a document's own time may lie from this machine's. The nonce shows that the document is
/// fresh; this only keeps a clock that is far off from being believed.
const TOLERANCE_MS: u64 = 30 * 60_000;

/// A boot whose keys an attestation document was found to bind. Only [`Client::attest`](crate::Client::attest)
/// and what builds on it make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestedBoot {
    node: NodeName,
    boot: BootId,
    key: [u8; 32],
    measurement: Measurement,
    region: String,
    module_id: String,
    attested_at: UnixMillis,
    document: Vec<u8>,
}

impl AttestedBoot {
    /// The node that it is a boot of.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }
    /// Its id.
    #[must_use]
    pub const fn boot(&self) -> BootId {
        self.boot
    }
    /// Its Ed25519 key.
    #[must_use]
    pub const fn key(&self) -> &[u8; 32] {
        &self.key
    }
    /// Its image.
    #[must_use]
    pub const fn measurement(&self) -> &Measurement {
        &self.measurement
    }
    /// The region that its document's chain names.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }
    /// The enclave's id: instance and enclave.
    #[must_use]
    pub fn module_id(&self) -> &str {
        &self.module_id
    }
    /// When the hypervisor made the document.
    #[must_use]
    pub const fn attested_at(&self) -> UnixMillis {
        self.attested_at
    }
    /// The document itself.
    #[must_use]
    pub fn document(&self) -> &[u8] {
        &self.document
    }
}

/// What an attestation is judged by.
pub(crate) struct Judge<'a> {
    pub(crate) genesis: GenesisId,
    pub(crate) manifest: &'a Manifest,
    pub(crate) root: &'a TrustRoot,
    pub(crate) images: &'a [Measurement],
    /// The node that is meant to be there, where the client knows.
    pub(crate) expected: Option<&'a NodeName>,
    pub(crate) now: UnixMillis,
}

fn measurement(of: &Measurement) -> attestation::Measurement {
    let pcr = attestation::Pcr::new;
    attestation::Measurement { pcr0: pcr(of.pcr0), pcr1: pcr(of.pcr1), pcr2: pcr(of.pcr2) }
}

/// Checks the signed reply to an attestation query with this nonce.
pub(crate) fn verify(
    signed: &SignedReply,
    nonce: &[u8; 32],
    judge: &Judge<'_>,
) -> Result<AttestedBoot, NodeFault> {
    // read before it is believed: the keys that the signature is checked with are inside it
    let claimed: Reply = cbor::decode(&signed.reply, MAX_REPLY)
        .map_err(|error| NodeFault::Cbor { what: "reply", error })?;
    let Reply::Attested(record) = claimed else { return Err(NodeFault::OtherReply) };
    let record: BootRecord = *record;
    if let Some(expected) = judge.expected
        && *expected != record.node
    {
        let (expected, found) = (expected.clone(), record.node);
        return Err(NodeFault::OtherNode { expected, found });
    }
    let spec = judge
        .manifest
        .node(&record.node)
        .ok_or_else(|| NodeFault::NotInRoster { found: record.node.clone() })?;
    if record.evidence.len() > MAX_EVIDENCE {
        return Err(NodeFault::TooLarge { max: MAX_EVIDENCE });
    }
    let user_data = record.user_data(&Hash32::new(*judge.genesis.as_bytes()));
    let expectations = attestation::Expectations::measured_as(judge.images.iter().map(measurement))
        .with_pcr(3, attestation::Pcr::new(spec.pcr3))
        .with_region(spec.region.clone())
        .with_nonce(nonce.as_slice())
        .with_user_data(user_data.as_bytes().to_vec());
    let at = attestation::At::Now {
        now: attestation::UnixMillis::new(judge.now.0),
        freshness: attestation::Freshness {
            max_age_ms: Some(TOLERANCE_MS),
            future_tolerance_ms: TOLERANCE_MS,
        },
    };
    let evidence = attestation::verify(&record.evidence, judge.root, &expectations, at)
        .map_err(|refusal| NodeFault::Attestation(Box::new(refusal)))?;
    let boot = record.id();
    if signed.boot != boot || signed.open(&judge.genesis, nonce, &record.key).is_none() {
        return Err(NodeFault::NotTheBoot);
    }
    let found = evidence.measurement();
    Ok(AttestedBoot {
        node: record.node,
        boot,
        key: record.key,
        measurement: Measurement {
            pcr0: *found.pcr0.as_bytes(),
            pcr1: *found.pcr1.as_bytes(),
            pcr2: *found.pcr2.as_bytes(),
        },
        region: evidence.region().to_owned(),
        module_id: evidence.module_id().to_owned(),
        attested_at: UnixMillis(evidence.timestamp().get()),
        document: record.evidence,
    })
}
