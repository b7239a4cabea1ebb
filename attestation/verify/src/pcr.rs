//! Platform configuration registers, and how Nitro derives those that depend on the deployment.
//!
//! Every PCR of a running enclave is `SHA384(0^48 ‖ content)`: the register starts as 48 zero bytes
//! and is extended once. Source: the NSM API's `docs/attestation_process.md`; the derivations of PCR3,
//! PCR4 and PCR8 are confirmed on genuine documents (`tests/genuine.rs`).

use core::fmt;

use sha2::{Digest, Sha384};

/// Length of a PCR in bytes: SHA-384.
pub const PCR_BYTES: usize = 48;

/// The number of PCRs an NSM has; indices are below it.
pub const PCR_COUNT: u8 = 32;

/// The value of one PCR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcr([u8; PCR_BYTES]);

impl Pcr {
    /// The value that PCR0, PCR1 and PCR2 show when an enclave runs in debug mode.
    pub const ZERO: Self = Self([0; PCR_BYTES]);

    /// A PCR from its 48 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; PCR_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 48 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PCR_BYTES] {
        &self.0
    }

    /// Whether all 48 bytes are zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// PCR3 of an enclave whose parent instance has this IAM role: `SHA384(0^48 ‖ role ARN)`.
    #[must_use]
    pub fn of_role_arn(role_arn: &str) -> Self {
        Self::extend_zero(role_arn.as_bytes())
    }

    /// PCR4 of an enclave on this instance: `SHA384(0^48 ‖ instance id)`.
    #[must_use]
    pub fn of_instance_id(instance_id: &str) -> Self {
        Self::extend_zero(instance_id.as_bytes())
    }

    /// PCR8 of an image signed under this certificate: `SHA384(0^48 ‖ SHA384(DER))`.
    #[must_use]
    pub fn of_signing_certificate(certificate_der: &[u8]) -> Self {
        Self::extend_zero(&Sha384::digest(certificate_der))
    }

    fn extend_zero(content: &[u8]) -> Self {
        let mut hash = Sha384::new();
        hash.update([0; PCR_BYTES]);
        hash.update(content);
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

/// What an enclave image measures to: PCR0 (whole image), PCR1 (kernel, command line and first
/// ramdisk) and PCR2 (the other ramdisks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measurement {
    /// PCR0: the whole image.
    pub pcr0: Pcr,
    /// PCR1: the kernel, its command line and the first ramdisk.
    pub pcr1: Pcr,
    /// PCR2: the ramdisks after the first.
    pub pcr2: Pcr,
}

impl Measurement {
    /// Whether this is what debug mode shows.
    ///
    /// Debug mode zeroes PCR0, PCR1 and PCR2 and no other. No image measures to zero, so a single
    /// zero among the three already says that the measurement is not there.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.pcr0.is_zero() || self.pcr1.is_zero() || self.pcr2.is_zero()
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR0 `{}`, PCR1 `{}`, PCR2 `{}`", self.pcr0, self.pcr1, self.pcr2)
    }
}

/// Prints bytes as lower-case hex.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(pcr0: Pcr, pcr1: Pcr, pcr2: Pcr) -> Measurement {
        Measurement { pcr0, pcr1, pcr2 }
    }

    #[test]
    fn a_single_zero_among_the_first_three_is_debug() {
        let one = Pcr::new([1; 48]);
        assert!(!measurement(one, one, one).is_debug());
        assert!(measurement(Pcr::ZERO, one, one).is_debug());
        assert!(measurement(one, Pcr::ZERO, one).is_debug());
        assert!(measurement(one, one, Pcr::ZERO).is_debug());
    }

    #[test]
    fn a_pcr_prints_as_hex() {
        assert_eq!(Pcr::new([0xab; 48]).to_string(), "ab".repeat(48));
        assert_eq!(format!("{:?}", Pcr::ZERO), "0".repeat(96));
    }
}
