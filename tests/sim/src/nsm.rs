//! The simulated host and the security modules of its enclaves.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use casemate_nsm::{Attest, MAX_PUBLIC_KEY, MAX_USER_DATA, NsmError, Wanted};
use der::{Decode, Encode, Sequence, asn1::OctetStringRef, pem::LineEnding};
use sha2::{Digest, Sha384};
use x509_cert::Certificate;
use zeroize::Zeroizing;

use crate::{
    CertificateSpec, ChainSpec, DocumentSpec, IssuedChain, PayloadSpec, PcrBytes, SimError, SimKey,
    cbor,
};

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

    /// The root's key and certificate, so that other processes can have this very host: keep it
    /// where only they read it. Whoever has it makes documents that this root vouches for.
    ///
    /// # Errors
    /// When the key has no encoding.
    pub fn to_secret_der(&self) -> Result<Zeroizing<Vec<u8>>, SimError> {
        let key = self.root.key.to_secret_der()?;
        let stored = StoredRoot {
            key: OctetStringRef::new(&key)?,
            certificate: OctetStringRef::new(&self.root_der)?,
        };
        Ok(Zeroizing::new(stored.to_der()?))
    }

    /// The host whose root [`SimHost::to_secret_der`] wrote.
    ///
    /// # Errors
    /// When the bytes are not what it writes, or the certificate is another key's.
    pub fn from_secret_der(bytes: &[u8]) -> Result<Self, SimError> {
        let stored = StoredRoot::from_der(bytes)?;
        let key = SimKey::from_p384_secret_der(stored.key.as_bytes())?;
        let root_der = stored.certificate.as_bytes();
        let certificate = Certificate::from_der(root_der)?;
        if certificate.tbs_certificate.subject_public_key_info != key.subject_public_key_info()? {
            return Err(SimError::ForeignKey);
        }
        let root = CertificateSpec {
            tbs: certificate.tbs_certificate,
            outer_algorithm: certificate.signature_algorithm,
            key,
        };
        Ok(Self { root: Arc::new(root), root_der: root_der.into() })
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

/// What [`SimHost::to_secret_der`] writes.
#[derive(Sequence)]
struct StoredRoot<'a> {
    /// PKCS #8.
    key: OctetStringRef<'a>,
    /// X.509.
    certificate: OctetStringRef<'a>,
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
            ("public_key", public_key, MAX_PUBLIC_KEY),
            ("user_data", user_data, MAX_USER_DATA),
            ("nonce", nonce, MAX_USER_DATA),
        ] {
            let found = value.map_or(0, <[u8]>::len);
            if found > limit {
                return Err(SimError::InputTooLarge { field, found, limit });
            }
            payload.set(field, cbor::optional_bytes(value));
        }
        DocumentSpec::new(payload).sign(&chain.leaf_key)
    }

    /// This module with a clock that says when documents are made: what an enclave is handed in
    /// place of its device.
    #[must_use]
    pub fn with_clock(self, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> ClockedNsm {
        ClockedNsm { nsm: self, now_ms: Box::new(now_ms) }
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

/// A [`SimNsm`] with a clock.
pub struct ClockedNsm {
    nsm: SimNsm,
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl ClockedNsm {
    /// The module without its clock.
    #[must_use]
    pub fn nsm(&self) -> &SimNsm {
        &self.nsm
    }
}

impl Attest for ClockedNsm {
    fn attest(&self, wanted: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
        let Wanted { user_data, nonce, public_key } = wanted;
        self.nsm.attest(user_data, nonce, public_key, (self.now_ms)()).map_err(
            |error| match error {
                SimError::InputTooLarge { field, found, limit } => {
                    NsmError::TooLong { field, len: found, max: limit }
                }
                error => NsmError::Failed { what: "attest", reason: error.to_string() },
            },
        )
    }
}

impl fmt::Debug for ClockedNsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nsm.fmt(f)
    }
}
