//! The measured settings, as the image builder laid them down.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use casemate_image::{MAX_SETTING, MODE_PATH, Mode, PARENT_CID_PATH, ParentCid, TRUST_ROOT_PATH};

use crate::InitError;

/// What the image says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose root the image trusts.
    pub mode: Mode,
    /// Where the parent is.
    pub parent_cid: ParentCid,
}

impl Settings {
    /// Reads them below a folder, which is `/` in an enclave. The trust root is the signer's to read;
    /// here it must only be there.
    ///
    /// # Errors
    /// If one is missing or not in its one form.
    pub fn read(root: impl AsRef<Path>) -> Result<Self, InitError> {
        let root = root.as_ref();
        let most = u64::try_from(MAX_SETTING).unwrap_or_default();
        if !root.join(MODE_PATH.trim_start_matches('/')).exists() {
            return Err(InitError::NoSettings { path: MODE_PATH });
        }
        let mode = Mode::from_file(&read(root, MODE_PATH, most)?)?;
        let parent_cid = ParentCid::from_file(&read(root, PARENT_CID_PATH, most)?)?;
        if read(root, TRUST_ROOT_PATH, MAX_TRUST_ROOT)?.is_empty() {
            return Err(InitError::NoTrustRoot { path: TRUST_ROOT_PATH.to_owned() });
        }
        Ok(Self { mode, parent_cid })
    }
}

/// Most bytes of a trust root as PEM.
const MAX_TRUST_ROOT: u64 = 16 * 1_024;

fn read(root: &Path, path: &str, limit: u64) -> Result<Vec<u8>, InitError> {
    let full = root.join(path.trim_start_matches('/'));
    let failed = |error| InitError::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(full).map_err(failed)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        Ok(bytes)
    } else {
        Err(InitError::TooLong { path: path.to_owned(), limit })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn image(mode: &[u8], cid: &[u8], root: &[u8]) -> TempDir {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir_all(folder.path().join("etc/casemate")).unwrap();
        for (path, bytes) in [(MODE_PATH, mode), (PARENT_CID_PATH, cid), (TRUST_ROOT_PATH, root)] {
            std::fs::write(folder.path().join(&path[1..]), bytes).unwrap();
        }
        folder
    }

    fn refused(mode: &[u8], cid: &[u8], root: &[u8]) -> String {
        Settings::read(image(mode, cid, root).path()).unwrap_err().to_string()
    }

    #[test]
    fn settings_of_an_image_are_read() {
        let image = image(b"simulated\n", b"2\n", b"-----BEGIN");
        let read = Settings::read(image.path()).unwrap();
        assert_eq!((read.mode, read.parent_cid.get()), (Mode::Simulated, 2));
    }

    #[test]
    fn setting_that_is_none_ends_the_boot() {
        assert_eq!(
            refused(b"debug\n", b"3\n", b"-"),
            "`debug\\n` is no mode: `nitro` or `simulated`"
        );
        assert!(refused(b"nitro\n", b"0\n", b"-").contains("is no parent's CID"));
        assert_eq!(refused(b"nitro\n", b"3\n", b""), "`/etc/casemate/trust-root.pem` is empty");
    }

    #[test]
    fn setting_that_is_too_long_ends_the_boot() {
        let long = refused(b"nitro\n", &[b'3'; 17], b"-");
        assert_eq!(long, "`/etc/casemate/parent-cid` has more than 16 bytes");
        assert!(refused(b"nitro\n", b"3\n", &[b'-'; 16_385]).contains("more than 16384 bytes"));
    }

    #[test]
    fn image_without_its_second_ramdisk_ends_the_boot_with_the_likely_reason() {
        let empty = TempDir::new().unwrap();
        let error = Settings::read(empty.path()).unwrap_err().to_string();
        assert!(error.starts_with("`/etc/casemate/mode` is not there"), "{error}");
        assert!(error.ends_with("too little memory"), "{error}");
    }

    #[test]
    fn missing_setting_ends_the_boot() {
        let image = image(b"nitro\n", b"3\n", b"-");
        std::fs::remove_file(image.path().join(&TRUST_ROOT_PATH[1..])).unwrap();
        let error = Settings::read(image.path()).unwrap_err().to_string();
        assert!(error.starts_with("`/etc/casemate/trust-root.pem`: "), "{error}");
    }
}
