//! Certificates and chains, as genuine ones are and with every field open.

use std::{str::FromStr, time::Duration};

use der::{
    Decode, Encode, Sequence,
    asn1::{BitString, Ia5String, ObjectIdentifier, OctetString, UtcTime},
    flagset::FlagSet,
    pem::LineEnding,
};
use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate, TbsCertificate, Version,
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, CrlDistributionPoints, KeyUsage, KeyUsages,
            SubjectKeyIdentifier,
            crl::dp::DistributionPoint,
            name::{DistributionPointName, GeneralName},
        },
    },
    name::Name,
    serial_number::SerialNumber,
    spki::AlgorithmIdentifierOwned,
    time::{Time, Validity},
};

use crate::{SimError, SimKey, nsm::EnclaveSpec};

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
/// A new leaf is dated back by this much, as genuine ones are.
const BACKDATE: u64 = 3 * SECOND;
/// 2019-10-28T13:28:05Z and 2049-10-28T14:28:05Z, the lifetime of the genuine root.
const ROOT_VALIDITY_MS: [u64; 2] = [1_572_269_285_000, 2_519_044_085_000];

/// The usages that this format's certificates have.
pub type KeyUsageBits = FlagSet<KeyUsages>;

/// A certificate before it is signed.
#[derive(Clone, Debug)]
pub struct CertificateSpec {
    /// What will be signed.
    pub tbs: TbsCertificate,
    /// The algorithm beside the signature; the one inside is in `tbs`.
    pub outer_algorithm: AlgorithmIdentifierOwned,
    /// The subject's key. Changing it leaves the public key in `tbs` as it is: see
    /// [`CertificateSpec::set_key`].
    pub key: SimKey,
}

/// `BasicConstraints` with a path length of any width.
#[derive(Sequence)]
struct BasicConstraints {
    #[asn1(default = "Default::default")]
    ca: bool,
    #[asn1(optional = "true")]
    path_length: Option<u64>,
}

impl CertificateSpec {
    /// A certificate with no extensions and a new P-384 key, valid from and until these times in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// When the name or the times have no encoding.
    pub fn new(
        subject: &str,
        issuer: &str,
        [not_before_ms, not_after_ms]: [u64; 2],
    ) -> Result<Self, SimError> {
        let key = SimKey::p384()?;
        let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA384, parameters: None };
        // A positive number that differs from key to key, as RFC 5280 asks.
        let digest = Sha256::digest(key.public_key());
        let serial: Vec<u8> = [0x01].into_iter().chain(digest.iter().copied().take(15)).collect();
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&serial)?,
            signature: algorithm.clone(),
            issuer: Name::from_str(issuer)?,
            validity: Validity { not_before: time(not_before_ms)?, not_after: time(not_after_ms)? },
            subject: Name::from_str(subject)?,
            subject_public_key_info: key.subject_public_key_info()?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(Vec::new()),
        };
        Ok(Self { tbs, outer_algorithm: algorithm, key })
    }

    /// Gives the subject another key.
    ///
    /// # Errors
    /// When the key has no encoding.
    pub fn set_key(&mut self, key: SimKey) -> Result<(), SimError> {
        self.tbs.subject_public_key_info = key.subject_public_key_info()?;
        self.key = key;
        Ok(())
    }

    /// Sets the subject, an RFC 4514 string: the last part first.
    ///
    /// # Errors
    /// When it is no such string.
    pub fn set_subject(&mut self, subject: &str) -> Result<(), SimError> {
        self.tbs.subject = Name::from_str(subject)?;
        Ok(())
    }

    /// Sets the validity, in milliseconds since 1970; the encoding holds whole seconds.
    ///
    /// # Errors
    /// When a time is beyond 2049.
    pub fn set_validity(&mut self, not_before_ms: u64, not_after_ms: u64) -> Result<(), SimError> {
        self.tbs.validity =
            Validity { not_before: time(not_before_ms)?, not_after: time(not_after_ms)? };
        Ok(())
    }

    /// Sets the basic constraints.
    ///
    /// # Errors
    /// Never for values that fit the arguments.
    pub fn set_basic_constraints(
        &mut self,
        critical: bool,
        ca: bool,
        path_length: Option<u64>,
    ) -> Result<(), SimError> {
        let value = BasicConstraints { ca, path_length }.to_der()?;
        self.set_extension(BASIC_CONSTRAINTS, critical, &value)
    }

    /// Sets the key usage.
    ///
    /// # Errors
    /// Never for values that fit the arguments.
    pub fn set_key_usage(
        &mut self,
        critical: bool,
        usages: impl Into<KeyUsageBits>,
    ) -> Result<(), SimError> {
        self.set_extension(KEY_USAGE, critical, &KeyUsage(usages.into()).to_der()?)
    }

    /// Sets an extension to these bytes, in place of one with the same identifier.
    ///
    /// # Errors
    /// When the value is too long for DER.
    pub fn set_extension(
        &mut self,
        oid: ObjectIdentifier,
        critical: bool,
        value: &[u8],
    ) -> Result<(), SimError> {
        let extension = Extension { extn_id: oid, critical, extn_value: OctetString::new(value)? };
        let extensions = self.tbs.extensions.get_or_insert_default();
        match extensions.iter_mut().find(|present| present.extn_id == oid) {
            Some(present) => *present = extension,
            None => extensions.push(extension),
        }
        Ok(())
    }

    /// Removes an extension.
    pub fn remove_extension(&mut self, oid: ObjectIdentifier) {
        if let Some(extensions) = &mut self.tbs.extensions {
            extensions.retain(|present| present.extn_id != oid);
        }
    }

    fn set_key_identifiers(&mut self, issuer: Option<&SimKey>) -> Result<(), SimError> {
        let own = SubjectKeyIdentifier(key_identifier(&self.key)?).to_der()?;
        if let Some(issuer) = issuer {
            let authority = AuthorityKeyIdentifier {
                key_identifier: Some(key_identifier(issuer)?),
                ..AuthorityKeyIdentifier::default()
            };
            self.set_extension(AUTHORITY_KEY_IDENTIFIER, false, &authority.to_der()?)?;
        }
        self.set_extension(SUBJECT_KEY_IDENTIFIER, false, &own)
    }

    fn set_crl(&mut self, uri: &str) -> Result<(), SimError> {
        let uri = GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?);
        let points = CrlDistributionPoints(vec![DistributionPoint {
            distribution_point: Some(DistributionPointName::FullName(vec![uri])),
            reasons: None,
            crl_issuer: None,
        }]);
        self.set_extension(CRL_DISTRIBUTION_POINTS, false, &points.to_der()?)
    }

    /// Signs the certificate with its issuer's key.
    ///
    /// # Errors
    /// When it has no encoding.
    pub fn sign(&self, issuer: &SimKey) -> Result<Vec<u8>, SimError> {
        sign_tbs(&self.tbs.to_der()?, &self.outer_algorithm, issuer)
    }
}

/// Signs any bytes as a certificate's body and puts the certificate together; the body need not be DER.
///
/// # Errors
/// When the signer fails.
pub fn sign_tbs(
    tbs: &[u8],
    outer_algorithm: &AlgorithmIdentifierOwned,
    issuer: &SimKey,
) -> Result<Vec<u8>, SimError> {
    let signature = BitString::from_bytes(&issuer.sign_asn1(tbs)?)?;
    let content = [tbs, &outer_algorithm.to_der()?, &signature.to_der()?].concat();
    Ok(der::Any::new(der::Tag::Sequence, content)?.to_der()?)
}

/// A chain before it is signed: the root first, the leaf last.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    /// The certificates; each is signed by the one before it, the root by itself.
    pub certificates: Vec<CertificateSpec>,
}

/// A signed chain.
#[derive(Clone, Debug)]
pub struct IssuedChain {
    /// The certificates in DER, the root first, the leaf last.
    pub certificates: Vec<Vec<u8>>,
    /// The leaf's key, which signs documents.
    pub leaf_key: SimKey,
}

impl ChainSpec {
    /// A root as the genuine one is, under a name of its own.
    ///
    /// # Errors
    /// When a key cannot be made.
    pub fn root() -> Result<CertificateSpec, SimError> {
        const NAME: &str = "CN=simulated.nitro-enclaves,OU=Simulation,O=Casemate,C=US";
        let mut root = CertificateSpec::new(NAME, NAME, ROOT_VALIDITY_MS)?;
        root.set_basic_constraints(true, true, None)?;
        root.set_key_identifiers(None)?;
        root.set_key_usage(true, authority_usage())?;
        Ok(root)
    }

    /// The chain of an enclave as Nitro issues it at this time, below this root.
    ///
    /// # Errors
    /// When a key cannot be made or a name or time has no encoding.
    pub fn below(
        root: CertificateSpec,
        enclave: &EnclaveSpec,
        now_ms: u64,
    ) -> Result<Self, SimError> {
        let EnclaveSpec { region, instance_id, .. } = enclave;
        let lifetime = |before: u64, length: u64| {
            let not_before = now_ms.saturating_sub(before);
            [not_before, not_before.saturating_add(length)]
        };
        let amazon = "OU=AWS,O=Amazon,C=US";
        let seattle = "OU=AWS,O=Amazon,L=Seattle,ST=Washington,C=US";
        let names = [
            root.tbs.subject.to_string(),
            format!("CN=5133a1a0b1a7e000.{region}.aws.nitro-enclaves,{amazon}"),
            // Reversed in genuine zonal certificates too.
            format!(
                "L=Seattle,ST=WA,C=US,O=Amazon,OU=AWS,CN=2e0a1c1f00c0ffee.zonal.{region}.aws.nitro-enclaves"
            ),
            format!("CN={instance_id}.{region}.aws.nitro-enclaves,{seattle}"),
            format!("CN={}.{region}.aws,{seattle}", enclave.module_id()),
        ];
        let [root_name, regional_name, zonal_name, instance_name, leaf_name] = &names;
        let mut regional = CertificateSpec::new(regional_name, root_name, lifetime(DAY, 20 * DAY))?;
        regional.set_basic_constraints(true, true, Some(2))?;
        regional.set_key_identifiers(Some(&root.key))?;
        regional.set_key_usage(true, authority_usage())?;
        regional.set_crl("http://crl.example/regional.crl")?;
        let mut zonal =
            CertificateSpec::new(zonal_name, regional_name, lifetime(12 * HOUR, 6 * DAY))?;
        zonal.set_basic_constraints(true, true, Some(1))?;
        zonal.set_key_identifiers(Some(&regional.key))?;
        zonal.set_key_usage(true, authority_usage())?;
        zonal.set_crl("http://crl.example/zonal.crl")?;
        let mut instance = CertificateSpec::new(instance_name, zonal_name, lifetime(HOUR, DAY))?;
        instance.set_basic_constraints(true, true, Some(0))?;
        instance.set_key_usage(true, KeyUsages::KeyCertSign)?;
        instance.set_key_identifiers(Some(&zonal.key))?;
        let mut leaf =
            CertificateSpec::new(leaf_name, instance_name, lifetime(BACKDATE, 3 * HOUR))?;
        leaf.set_basic_constraints(true, false, None)?;
        leaf.set_key_usage(false, KeyUsages::DigitalSignature | KeyUsages::NonRepudiation)?;
        Ok(Self { certificates: vec![root, regional, zonal, instance, leaf] })
    }

    /// Names each certificate's issuer after the subject of the one before it.
    pub fn link_names(&mut self) {
        let subjects: Vec<Name> =
            self.certificates.iter().map(|certificate| certificate.tbs.subject.clone()).collect();
        for (certificate, subject) in self.certificates.iter_mut().skip(1).zip(subjects) {
            certificate.tbs.issuer = subject;
        }
    }

    /// Signs every certificate.
    ///
    /// # Errors
    /// When there are fewer than two, or one has no encoding.
    pub fn issue(&self) -> Result<IssuedChain, SimError> {
        let (Some(root), Some(leaf), 2..) =
            (self.certificates.first(), self.certificates.last(), self.certificates.len())
        else {
            return Err(SimError::ChainTooShort { found: self.certificates.len() });
        };
        let issuers = [root].into_iter().chain(&self.certificates);
        let certificates = self
            .certificates
            .iter()
            .zip(issuers)
            .map(|(certificate, issuer)| certificate.sign(&issuer.key))
            .collect::<Result<_, _>>()?;
        Ok(IssuedChain { certificates, leaf_key: leaf.key.clone() })
    }
}

impl IssuedChain {
    /// The root certificate in DER.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        self.certificates.first().map(Vec::as_slice).unwrap_or_default()
    }

    /// Everything but the leaf, root first: a document's `cabundle`.
    #[must_use]
    pub fn cabundle(&self) -> &[Vec<u8>] {
        self.certificates.split_last().map(|(_, authorities)| authorities).unwrap_or_default()
    }

    /// All certificates as PEM, the root first, the leaf last.
    ///
    /// # Errors
    /// Never for certificates that were encoded before.
    pub fn to_pem(&self) -> Result<String, SimError> {
        let pem = |der: &Vec<u8>| der::pem::encode_string("CERTIFICATE", LineEnding::LF, der);
        let all: Result<Vec<String>, _> = self.certificates.iter().map(pem).collect();
        all.map(|all| all.concat()).map_err(|error| SimError::Der(error.into()))
    }

    /// The leaf certificate in DER: a document's `certificate`.
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        self.certificates.last().map(Vec::as_slice).unwrap_or_default()
    }

    /// When the first of the certificates expires and the last became valid, in milliseconds.
    pub(crate) fn covers(&self, now_ms: u64) -> bool {
        self.certificates.iter().all(|bytes| {
            Certificate::from_der(bytes).is_ok_and(|certificate| {
                let validity = certificate.tbs_certificate.validity;
                let ms = |time: Time| time.to_unix_duration().as_millis();
                let now = u128::from(now_ms);
                ms(validity.not_before) <= now && now < ms(validity.not_after)
            })
        })
    }
}

fn authority_usage() -> KeyUsageBits {
    KeyUsages::DigitalSignature | KeyUsages::KeyCertSign | KeyUsages::CRLSign
}

fn key_identifier(key: &SimKey) -> Result<OctetString, SimError> {
    let digest = Sha256::digest(key.public_key());
    Ok(OctetString::new(digest.iter().copied().take(20).collect::<Vec<_>>())?)
}

fn time(ms: u64) -> Result<Time, SimError> {
    Ok(Time::UtcTime(UtcTime::from_unix_duration(Duration::from_secs(ms / SECOND))?))
}
