//! What is in the two ramdisks.
//!
//! The first is what boots, so that PCR1 says with what kernel and init an image starts:
//!
//! ```text
//! dev/ dev/console proc/ sys/ init
//! ```
//!
//! The second is what runs, and PCR2 names it: the signer, and what differs between deployments.
//!
//! ```text
//! casemate-enclave  etc/ etc/casemate/ mode parent-cid trust-root.pem
//! ```
//!
//! Everything is root's, and nobody may write it.

use casemate_attestation_verify::{AWS_NITRO_ENCLAVES_G1_PEM, RootError, TrustRoot};
use casemate_image::{MODE_PATH, Mode, PARENT_CID_PATH, ParentCid, SIGNER_PATH, TRUST_ROOT_PATH};
use der::pem::LineEnding;

use crate::cpio::{self, Content, CpioError, Entry};

/// Major and minor number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

/// The root under which an image believes its peers, in the one form in which images carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredRoot {
    pem: String,
    fingerprint: [u8; 32],
    mode: Mode,
}

impl MeasuredRoot {
    /// The root of AWS Nitro Enclaves.
    ///
    /// # Errors
    /// Never: it is part of the program. The verifier's own check is not skipped for it.
    pub fn aws() -> Result<Self, RootError> {
        Self::from_pem(AWS_NITRO_ENCLAVES_G1_PEM)
    }

    /// A root given as PEM. Two files with one certificate give one image.
    ///
    /// # Errors
    /// If it is not one certificate that the verifier takes as a root.
    pub fn from_pem(pem: &str) -> Result<Self, RootError> {
        let fingerprint = *TrustRoot::from_pem(pem)?.fingerprint();
        let aws = *TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM)?.fingerprint();
        let (_, der) = der::pem::decode_vec(pem.as_bytes()).map_err(|_| RootError::Pem)?;
        let pem = der::pem::encode_string("CERTIFICATE", LineEnding::LF, &der)
            .map_err(|_| RootError::Pem)?;
        let mode = if fingerprint == aws { Mode::Nitro } else { Mode::Simulated };
        Ok(Self { pem, fingerprint, mode })
    }

    /// The certificate as the image carries it.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate's DER.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether it is AWS's.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// What goes into the ramdisks.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The program that starts first.
    pub init: &'a [u8],
    /// The signer.
    pub enclave: &'a [u8],
    /// Under which root peers are believed.
    pub trust_root: &'a MeasuredRoot,
    /// Where the parent is.
    pub parent_cid: ParentCid,
}

impl Contents<'_> {
    /// The two ramdisks.
    ///
    /// # Errors
    /// If a program is too long for the format.
    pub fn ramdisks(&self) -> Result<[Vec<u8>; 2], CpioError> {
        let folder = |name| Entry { name, mode: 0o555, content: Content::Directory };
        let file = |path: &'static str, mode, bytes| Entry {
            name: path.trim_start_matches('/'),
            mode,
            content: Content::File(bytes),
        };
        let console = Entry {
            name: "dev/console",
            mode: 0o600,
            content: Content::Device(CONSOLE.0, CONSOLE.1),
        };
        let boot = [
            folder("dev"),
            console,
            folder("proc"),
            folder("sys"),
            file("/init", 0o500, self.init),
        ];
        let (mode, parent_cid) = (self.trust_root.mode.to_file(), self.parent_cid.to_file());
        let run = [
            file(SIGNER_PATH, 0o555, self.enclave),
            folder("etc"),
            folder("etc/casemate"),
            file(MODE_PATH, 0o444, &mode),
            file(PARENT_CID_PATH, 0o444, &parent_cid),
            file(TRUST_ROOT_PATH, 0o444, self.trust_root.pem.as_bytes()),
        ];
        Ok([cpio::write(&boot)?, cpio::write(&run)?])
    }
}
