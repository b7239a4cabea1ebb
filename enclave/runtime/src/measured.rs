//! What the image says: the root under which peers are believed, the mode, and where the parent is.
//!
//! Read once, before the door opens. The files are part of the image, so PCR0 and PCR2 name them, and there
//! is no other way to tell this program any of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use casemate_attestation_verify::{AWS_NITRO_ENCLAVES_G1_PEM, RootError, TrustRoot};
use casemate_image::{
    MAX_SETTING, MODE_PATH, Mode, PARENT_CID_PATH, ParentCid, SettingError, TRUST_ROOT_PATH,
};
use casemate_proto::Hash32;
use casemate_proto::manifest::Hardware;

use crate::platform::Trust;

/// Most bytes of a root as PEM.
const MAX_TRUST_ROOT: usize = 16 * 1_024;

/// Why an image does not say what it must.
#[derive(Debug, thiserror::Error)]
pub enum MeasuredError {
    /// A file cannot be read.
    #[error("`{path}`: {error}")]
    File {
        /// Which.
        path: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// A file is longer than it can be.
    #[error("`{path}` has more than {limit} bytes")]
    TooLong {
        /// Which.
        path: &'static str,
        /// The most.
        limit: usize,
    },
    /// A setting is not one.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// What should be the root is none.
    #[error("`{TRUST_ROOT_PATH}`: {0}")]
    Root(#[from] RootError),
    /// The mode is another root's.
    #[error("`{MODE_PATH}` says `{mode}`, and `{TRUST_ROOT_PATH}` is of the mode `{of_root}`")]
    Mode {
        /// What the image says.
        mode: Mode,
        /// What follows from its root.
        of_root: Mode,
    },
}

/// What the image says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Whose documents are believed.
    pub trust: Trust,
    /// The machine that the parent is on.
    pub parent_cid: ParentCid,
}

impl Measured {
    /// Reads it below a folder, which is `/` in an enclave.
    ///
    /// # Errors
    /// If a file is missing, is not in its one form, or contradicts another.
    pub fn read(root: impl AsRef<Path>) -> Result<Self, MeasuredError> {
        let root = root.as_ref();
        let mode = Mode::from_file(&read(root, MODE_PATH, MAX_SETTING)?)?;
        let parent_cid = ParentCid::from_file(&read(root, PARENT_CID_PATH, MAX_SETTING)?)?;
        let pem = read(root, TRUST_ROOT_PATH, MAX_TRUST_ROOT)?;
        let pem = String::from_utf8(pem).map_err(|_| RootError::Pem)?;
        let fingerprint = *TrustRoot::from_pem(&pem)?.fingerprint();
        let aws = *TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM)?.fingerprint();
        let (of_root, hardware) = if fingerprint == aws {
            (Mode::Nitro, Hardware::Nitro)
        } else {
            (Mode::Simulated, Hardware::Simulated)
        };
        if mode != of_root {
            return Err(MeasuredError::Mode { mode, of_root });
        }
        Ok(Self { trust: Trust { root: Hash32::new(fingerprint), hardware }, parent_cid })
    }
}

fn read(root: &Path, path: &'static str, limit: usize) -> Result<Vec<u8>, MeasuredError> {
    let failed = |error| MeasuredError::File { path, error };
    let file = File::open(root.join(path.trim_start_matches('/'))).map_err(failed)?;
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(MeasuredError::TooLong { path, limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use casemate_sim::SimHost;
    use tempfile::TempDir;

    use super::*;

    fn image(mode: &[u8], cid: &[u8], root: &str) -> TempDir {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir_all(folder.path().join("etc/casemate")).unwrap();
        let files = [(MODE_PATH, mode), (PARENT_CID_PATH, cid), (TRUST_ROOT_PATH, root.as_bytes())];
        for (path, bytes) in files {
            std::fs::write(folder.path().join(&path[1..]), bytes).unwrap();
        }
        folder
    }

    fn refused(image: &TempDir) -> String {
        Measured::read(image.path()).unwrap_err().to_string()
    }

    #[test]
    fn root_of_an_image_is_the_one_whose_documents_are_believed() {
        let host = SimHost::new().unwrap();
        let simulated = image(b"simulated\n", b"2\n", &host.root_pem().unwrap());
        let read = Measured::read(simulated.path()).unwrap();
        let root = Hash32::new(casemate_proto::hash::sha256(host.root_der()));
        assert_eq!(read.trust, Trust { root, hardware: Hardware::Simulated });
        assert_eq!(read.parent_cid.get(), 2);
        let released = image(b"nitro\n", b"3\n", AWS_NITRO_ENCLAVES_G1_PEM);
        let read = Measured::read(released.path()).unwrap();
        assert_eq!(read.trust.hardware, Hardware::Nitro);
        assert_ne!(read.trust.root, root);
    }

    #[test]
    fn mode_that_does_not_follow_from_the_root_is_refused() {
        let simulated = SimHost::new().unwrap().root_pem().unwrap();
        let said = refused(&image(b"nitro\n", b"3\n", &simulated));
        assert!(said.starts_with("`/etc/casemate/mode` says `nitro`"), "{said}");
        let said = refused(&image(b"simulated\n", b"3\n", AWS_NITRO_ENCLAVES_G1_PEM));
        assert!(said.ends_with("is of the mode `nitro`"), "{said}");
    }

    #[test]
    fn file_that_is_missing_malformed_or_too_long_is_named() {
        let aws = AWS_NITRO_ENCLAVES_G1_PEM;
        assert!(
            refused(&image(b"nitro\n", b"3\n", "")).starts_with("`/etc/casemate/trust-root.pem`")
        );
        assert!(refused(&image(b"debug\n", b"3\n", aws)).contains("is no mode"));
        assert!(refused(&image(b"nitro\n", b"0\n", aws)).contains("is no parent's CID"));
        let long = refused(&image(b"nitro\n", b"3\n", &"-".repeat(MAX_TRUST_ROOT + 1)));
        assert!(long.ends_with("has more than 16384 bytes"), "{long}");
        let two = refused(&image(b"nitro\n", b"3\n", &format!("{aws}{aws}")));
        assert!(two.contains("not one PEM block"), "{two}");
        let missing = image(b"nitro\n", b"3\n", aws);
        std::fs::remove_file(missing.path().join(&PARENT_CID_PATH[1..])).unwrap();
        assert!(refused(&missing).starts_with("`/etc/casemate/parent-cid`: "));
    }
}
