//! What a caller expects of a genuine document.

use std::collections::BTreeMap;

use subtle::ConstantTimeEq;

use crate::{
    evidence::Evidence,
    pcr::{Measurement, Pcr},
    refusal::{BoundField, Unmet},
    time::At,
};

/// The least accepted length of an expected nonce in bytes.
pub const MIN_NONCE_BYTES: usize = 16;

/// What must hold of a document besides that it is genuine and valid at the time.
///
/// One that holds nothing cannot be made by accident: the constructors ask for the measurement.
///
/// A nonce is expected once: whoever makes one forgets it when the first document bearing it has been
/// judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectations {
    measurements: Measurements,
    pcrs: BTreeMap<u8, Pcr>,
    nonce: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
    region: Option<String>,
    debug_allowed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Measurements {
    Accepted(Vec<Measurement>),
    Any,
}

impl Expectations {
    /// Expects one of these measurements. An empty list accepts no document.
    #[must_use]
    pub fn measured_as(accepted: impl IntoIterator<Item = Measurement>) -> Self {
        Self::new(Measurements::Accepted(accepted.into_iter().collect()))
    }

    /// Accepts whatever image runs: the document then proves that *some* enclave said this, and anybody
    /// can start an enclave.
    #[must_use]
    pub fn dangerous_any_measurement() -> Self {
        Self::new(Measurements::Any)
    }

    fn new(measurements: Measurements) -> Self {
        Self {
            measurements,
            pcrs: BTreeMap::new(),
            nonce: None,
            user_data: None,
            public_key: None,
            region: None,
            debug_allowed: false,
        }
    }

    /// Expects this value of one PCR, for example PCR3 (role), PCR4 (instance) or PCR8 (signer). A
    /// document without that PCR is refused.
    #[must_use]
    pub fn with_pcr(mut self, index: u8, value: Pcr) -> Self {
        self.pcrs.insert(index, value);
        self
    }

    /// Expects this nonce, of at least [`MIN_NONCE_BYTES`]; with a shorter one no document is accepted.
    #[must_use]
    pub fn with_nonce(mut self, nonce: impl Into<Vec<u8>>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }

    /// Expects this user data. An absent field never meets an expectation, not even an empty one.
    #[must_use]
    pub fn with_user_data(mut self, user_data: impl Into<Vec<u8>>) -> Self {
        self.user_data = Some(user_data.into());
        self
    }

    /// Expects this public key, as the enclave gave it to the NSM.
    #[must_use]
    pub fn with_public_key(mut self, public_key: impl Into<Vec<u8>>) -> Self {
        self.public_key = Some(public_key.into());
        self
    }

    /// Expects this region in the subjects of the chain, for example `eu-west-1`.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Accepts an enclave in debug mode: its host reads its console, and its PCR0, PCR1 and PCR2 are
    /// zero, so that nothing is known of its image.
    #[must_use]
    pub fn dangerous_allow_debug(mut self) -> Self {
        self.debug_allowed = true;
        self
    }

    /// Judges a document whose signature and chain were verified.
    pub(crate) fn check(&self, evidence: &Evidence, at: At) -> Result<(), Unmet> {
        check_freshness(evidence, at)?;
        self.check_measurement(evidence)?;
        for (&index, expected) in &self.pcrs {
            let found = evidence.pcr(index).ok_or(Unmet::PcrMissing { index })?;
            if found != *expected {
                let (found, expected) = (Box::new(found), Box::new(*expected));
                return Err(Unmet::Pcr { index, found, expected });
            }
        }
        if let Some(nonce) = &self.nonce {
            if nonce.len() < MIN_NONCE_BYTES {
                return Err(Unmet::NonceTooShort { found: nonce.len(), least: MIN_NONCE_BYTES });
            }
            check_field(BoundField::Nonce, evidence.nonce(), nonce)?;
        }
        if let Some(user_data) = &self.user_data {
            check_field(BoundField::UserData, evidence.user_data(), user_data)?;
        }
        if let Some(public_key) = &self.public_key {
            check_field(BoundField::PublicKey, evidence.public_key(), public_key)?;
        }
        match &self.region {
            Some(expected) if expected != evidence.region() => Err(Unmet::Region {
                found: evidence.region().to_owned(),
                expected: expected.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn check_measurement(&self, evidence: &Evidence) -> Result<(), Unmet> {
        let found = evidence.measurement();
        if found.is_debug() && !self.debug_allowed {
            return Err(Unmet::Debug { found: Box::new(found) });
        }
        match &self.measurements {
            Measurements::Any => Ok(()),
            Measurements::Accepted(accepted) if accepted.is_empty() => Err(Unmet::NothingAccepted),
            Measurements::Accepted(accepted) if accepted.contains(&found) => Ok(()),
            Measurements::Accepted(accepted) => {
                Err(Unmet::Measurement { found: Box::new(found), accepted: accepted.len() })
            }
        }
    }
}

fn check_freshness(evidence: &Evidence, at: At) -> Result<(), Unmet> {
    let At::Now { now, freshness } = at else { return Ok(()) };
    let timestamp = evidence.timestamp();
    let (lead, age) =
        (timestamp.get().saturating_sub(now.get()), now.get().saturating_sub(timestamp.get()));
    if lead > freshness.future_tolerance_ms {
        return Err(Unmet::FromTheFuture {
            timestamp,
            now,
            tolerance_ms: freshness.future_tolerance_ms,
        });
    }
    match freshness.max_age_ms {
        Some(max_age_ms) if age > max_age_ms => Err(Unmet::TooOld { timestamp, now, max_age_ms }),
        _ => Ok(()),
    }
}

/// Compares in time that depends on the lengths only: a nonce may not be learnt by trying.
fn check_field(field: BoundField, found: Option<&[u8]>, expected: &[u8]) -> Result<(), Unmet> {
    if found.is_some_and(|found| bool::from(found.ct_eq(expected))) {
        return Ok(());
    }
    Err(Unmet::Field { field, found: found.map(<[u8]>::to_vec), expected: expected.to_vec() })
}
