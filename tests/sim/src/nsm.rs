//! The simulated host and the security modules of its enclaves.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use der::pem::LineEnding;
use sha2::{Digest, Sha384};

use crate::{
    CertificateSpec, ChainSpec, DocumentSpec, IssuedChain, PayloadSpec, PcrBytes, SimError, cbor,
};

/// The device's limits, in bytes.
const MAX_PUBLIC_KEY_BYTES: usize = 1024;
const MAX_USER_DATA_BYTES: usize = 512;
const MAX_NONCE_BYTES: usize = 512;

/// The number of PCRs in a simulated document, as in most genuine ones.
const PCRS: u8 = 16;

/// An enclave as its host describes it when it starts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveSpec {
    /// The parent instance, for example `i-0123456789abcdef0`; measured into PCR4.
    pub instance_id: String,
    /// The enclave on that instance, for example `enc0123456789abcdef`.
    pub enclave_id: String,
    /// The region, for example `eu-west-1`.
    pub region: String,
    /// The parent instance's role, measured into PCR3; zero without one.
    pub role_arn: Option<String>,
    /// PCR0, PCR1 and PCR2; all zero is debug mode.
    pub measurement: [PcrBytes; 3],
    /// PCR8, of the certificate that signed the image; zero without one.
    pub signer: Option<PcrBytes>,
}

impl EnclaveSpec {
    /// The `number`th enclave of a fleet, on an instance and with a role of its own.
    #[must_use]
    pub fn numbered(number: u32, region: &str, measurement: [PcrBytes; 3]) -> Self {
        Self {
            instance_id: format!("i-{number:017x}"),
            enclave_id: format!("enc{number:016x}"),
            region: region.to_owned(),
            role_arn: Some(format!("arn:aws:iam::000000000000:role/casemate-node-{number}")),
            measurement,
            signer: None,
        }
    }

    /// The document's `module_id`: instance and enclave.
    #[must_use]
    pub fn module_id(&self) -> String {
        format!("{}-{}", self.instance_id, self.enclave_id)
    }

    /// All PCRs by index, those that are zero included.
    #[must_use]
    pub fn pcrs(&self) -> Vec<(u8, PcrBytes)> {
        const ZERO: PcrBytes = [0; 48];
        let [zero, one, two] = self.measurement;
        (0..PCRS)
            .map(|index| {
                let value = match index {
                    0 => zero,
                    1 => one,
                    2 => two,
                    3 => self.role_arn.as_deref().map_or(ZERO, extend_zero),
                    4 => extend_zero(&self.instance_id),
                    8 => self.signer.unwrap_or(ZERO),
                    _ => ZERO,
                };
                (index, value)
            })
            .collect()
    }
}

/// `SHA384(0^48 ‖ content)`: a PCR extended once.
fn extend_zero(content: &str) -> PcrBytes {
    let mut hash = Sha384::new();
    hash.update([0; 48]);
    hash.update(content.as_bytes());
    hash.finalize().into()
}

/// Stands for AWS: a root of its own, and the enclaves started under it.
#[derive(Clone, Debug)]
pub struct SimHost {
    root: Arc<CertificateSpec>,
    root_der: Arc<[u8]>,
}

impl SimHost {
    /// A host with a new root.
    ///
    /// # Errors
    /// When a key cannot be made.
    pub fn new() -> Result<Self, SimError> {
        let root = ChainSpec::root()?;
        let root_der = root.sign(&root.key)?;
        Ok(Self { root: Arc::new(root), root_der: root_der.into() })
    }

    /// The root certificate in DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// The root certificate in PEM.
    ///
    /// # Errors
    /// Never for a root that was encoded before.
    pub fn root_pem(&self) -> Result<String, SimError> {
        let pem = der::pem::encode_string("CERTIFICATE", LineEnding::LF, &self.root_der);
        pem.map_err(|error| SimError::Der(error.into()))
    }

    /// Starts an enclave and gives its security module.
    #[must_use]
    pub fn start(&self, enclave: EnclaveSpec) -> SimNsm {
        SimNsm { host: self.clone(), enclave, chain: Mutex::new(None) }
    }

    /// The chain of an enclave at this time, before it is signed. The root's bytes differ from
    /// [`SimHost::root_der`] if it is signed again, since signatures are randomised:
    /// [`SimHost::issue`] puts the first ones back.
    ///
    /// # Errors
    /// When a key cannot be made or a time has no encoding.
    pub fn chain(&self, enclave: &EnclaveSpec, now_ms: u64) -> Result<ChainSpec, SimError> {
        ChainSpec::below(CertificateSpec::clone(&self.root), enclave, now_ms)
    }

    /// Signs a chain below this root.
    ///
    /// # Errors
    /// As [`ChainSpec::issue`].
    pub fn issue(&self, chain: &ChainSpec) -> Result<IssuedChain, SimError> {
        let mut issued = chain.issue()?;
        if let Some(root) = issued.certificates.first_mut() {
            *root = self.root_der.to_vec();
        }
        Ok(issued)
    }
}

/// Stands for the security module of one enclave.
pub struct SimNsm {
    host: SimHost,
    enclave: EnclaveSpec,
    /// Certificates are used again until one expires, as the device's are.
    chain: Mutex<Option<IssuedChain>>,
}

impl SimNsm {
    /// The enclave that this module belongs to.
    #[must_use]
    pub fn enclave(&self) -> &EnclaveSpec {
        &self.enclave
    }

    /// The root certificate in PEM.
    ///
    /// # Errors
    /// As [`SimHost::root_pem`].
    pub fn root_pem(&self) -> Result<String, SimError> {
        self.host.root_pem()
    }

    /// An attestation document that binds these fields at this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// When a field is longer than the device takes, or the time is beyond 2049.
    pub fn attest(
        &self,
        user_data: Option<&[u8]>,
        nonce: Option<&[u8]>,
        public_key: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<Vec<u8>, SimError> {
        let chain = self.chain_at(now_ms)?;
        let mut payload =
            PayloadSpec::new(&self.enclave.module_id(), now_ms, &self.enclave.pcrs(), &chain);
        for (field, value, limit) in [
            ("public_key", public_key, MAX_PUBLIC_KEY_BYTES),
            ("user_data", user_data, MAX_USER_DATA_BYTES),
            ("nonce", nonce, MAX_NONCE_BYTES),
        ] {
            let found = value.map_or(0, <[u8]>::len);
            if found > limit {
                return Err(SimError::InputTooLarge { field, found, limit });
            }
            payload.set(field, cbor::optional_bytes(value));
        }
        DocumentSpec::new(payload).sign(&chain.leaf_key)
    }

    fn chain_at(&self, now_ms: u64) -> Result<IssuedChain, SimError> {
        let mut cached = self.chain.lock().map_err(|_| SimError::Poisoned)?;
        if let Some(chain) = cached.as_ref().filter(|chain| chain.covers(now_ms)) {
            return Ok(chain.clone());
        }
        let chain = self.host.issue(&self.host.chain(&self.enclave, now_ms)?)?;
        *cached = Some(chain.clone());
        Ok(chain)
    }
}

impl fmt::Debug for SimNsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNsm").field("enclave", &self.enclave).finish_non_exhaustive()
    }
}
