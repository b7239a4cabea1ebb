//! Documents under a simulated root, each wrong in one place.

use casemate_attestation_verify::{
    At, Evidence, Expectations, Freshness, Measurement, Pcr, Refusal, TrustRoot, UnixMillis, verify,
};
use casemate_sim::{ChainSpec, DocumentSpec, EnclaveSpec, IssuedChain, PayloadSpec, SimHost};
use sha2::{Digest, Sha256};

/// 2026-01-15T12:00:00Z.
pub const NOW: u64 = 1_768_478_400_000;
pub const REGION: &str = "eu-central-1";

pub struct Forge {
    pub host: SimHost,
    pub enclave: EnclaveSpec,
}

impl Forge {
    pub fn new() -> Self {
        let enclave = EnclaveSpec::numbered(7, REGION, [[0xa0; 48], [0xa1; 48], [0xa2; 48]]);
        Self { host: SimHost::new().unwrap(), enclave }
    }

    pub fn root(&self) -> TrustRoot {
        TrustRoot::from_der(self.host.root_der()).unwrap()
    }

    pub fn measurement(&self) -> Measurement {
        let [pcr0, pcr1, pcr2] = self.enclave.measurement.map(Pcr::new);
        Measurement { pcr0, pcr1, pcr2 }
    }

    pub fn expected(&self) -> Expectations {
        Expectations::measured_as([self.measurement()])
    }

    pub fn chain(&self) -> ChainSpec {
        self.host.chain(&self.enclave, NOW).unwrap()
    }

    pub fn payload(&self, chain: &IssuedChain) -> PayloadSpec {
        PayloadSpec::new(&self.enclave.module_id(), NOW, &self.enclave.pcrs(), chain)
    }

    pub fn judge(&self, document: &[u8]) -> Result<Evidence, Refusal> {
        verify(document, &self.root(), &self.expected(), now(NOW))
    }

    /// Judges a document whose chain was changed before it was signed.
    pub fn with_chain(&self, change: impl FnOnce(&mut ChainSpec)) -> Result<Evidence, Refusal> {
        let mut chain = self.chain();
        change(&mut chain);
        self.with_issued(self.host.issue(&chain).unwrap())
    }

    /// Judges a document whose chain, root included, was changed, with that root pinned.
    pub fn with_chain_and_its_root(
        &self,
        change: impl FnOnce(&mut ChainSpec),
    ) -> Result<Evidence, Refusal> {
        let mut chain = self.chain();
        change(&mut chain);
        let issued = chain.issue().unwrap();
        let root = TrustRoot::from_fingerprint(Sha256::digest(issued.root()).into());
        let document = DocumentSpec::new(self.payload(&issued)).sign(&issued.leaf_key).unwrap();
        verify(&document, &root, &self.expected(), now(NOW))
    }

    /// Judges a document that carries these signed certificates.
    pub fn with_issued(&self, issued: IssuedChain) -> Result<Evidence, Refusal> {
        let document = DocumentSpec::new(self.payload(&issued));
        self.judge(&document.sign(&issued.leaf_key).unwrap())
    }

    /// A document that was changed before it was signed.
    pub fn document(&self, change: impl FnOnce(&mut DocumentSpec)) -> Vec<u8> {
        let issued = self.host.issue(&self.chain()).unwrap();
        let mut document = DocumentSpec::new(self.payload(&issued));
        change(&mut document);
        document.sign(&issued.leaf_key).unwrap()
    }

    /// Judges a document that was changed before it was signed.
    pub fn with_document(
        &self,
        change: impl FnOnce(&mut DocumentSpec),
    ) -> Result<Evidence, Refusal> {
        self.judge(&self.document(change))
    }
}

pub fn now(ms: u64) -> At {
    let freshness = Freshness { max_age_ms: Some(1000), future_tolerance_ms: 0 };
    At::Now { now: UnixMillis::new(ms), freshness }
}
