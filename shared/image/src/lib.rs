//! What an enclave image tells the programs in it.
//!
//! Three small files of the image say what differs between deployments of one signer: which root signs
//! attestation documents, where the parent is, and whether the root is the one of AWS. They are part of
//! the image, so PCR0 names them: nobody outside can pass other ones in, and an image under another
//! root has another measurement.
//!
//! The image builder writes these files and the programs in the image read them, both by this crate.
//! Each file has one form, and anything else is refused.

use core::fmt;

/// Where the signer is in the image.
pub const SIGNER_PATH: &str = "/casemate-enclave";
/// Where the trust root is: one certificate as PEM.
pub const TRUST_ROOT_PATH: &str = "/etc/casemate/trust-root.pem";
/// Where the parent's CID is: see [`ParentCid`].
pub const PARENT_CID_PATH: &str = "/etc/casemate/parent-cid";
/// Where the mode is: see [`Mode`].
pub const MODE_PATH: &str = "/etc/casemate/mode";

/// The user and group that the signer runs as: nobody else in the image has them.
pub const SIGNER_ID: u32 = 1_000;

/// The port of the parent on which it waits to hear that an enclave came up.
pub const HEARTBEAT_PORT: u32 = 9_000;
/// What is said there, by both sides.
pub const HEARTBEAT: u8 = 0xb7;

/// Most bytes of the files of [`PARENT_CID_PATH`] and [`MODE_PATH`].
pub const MAX_SETTING: usize = 16;

/// Why a measured setting is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not a number of the one form, or not a machine's.
    #[error("`{input}` is no parent's CID: a number from 2 to 4294967294")]
    ParentCid {
        /// What is there, cut short.
        input: String,
    },
    /// Not the name of a mode.
    #[error("`{input}` is no mode: `nitro` or `simulated`")]
    Mode {
        /// What is there, cut short.
        input: String,
    },
}

/// The vsock number of the machine that an enclave's parent is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentCid(u32);

impl ParentCid {
    /// The parent's number on Nitro.
    pub const NITRO: Self = Self(3);
    /// The least that is a machine's: 0 is the hypervisor, 1 the machine itself.
    const MIN: u32 = 2;

    /// A parent's number.
    ///
    /// # Errors
    /// If it is the hypervisor's, the enclave's own, or the one that stands for all.
    pub fn new(cid: u32) -> Result<Self, SettingError> {
        if (Self::MIN..u32::MAX).contains(&cid) {
            Ok(Self(cid))
        } else {
            Err(SettingError::ParentCid { input: cid.to_string() })
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Reads the file that [`ParentCid::to_file`] makes.
    ///
    /// # Errors
    /// If it is not exactly that.
    pub fn from_file(bytes: &[u8]) -> Result<Self, SettingError> {
        let cid = line(bytes).and_then(|text| text.parse().ok()).map(Self::new);
        match cid {
            // one form: no sign, no leading zero
            Some(Ok(cid)) if cid.to_file() == bytes => Ok(cid),
            _ => Err(SettingError::ParentCid { input: shown(bytes) }),
        }
    }

    /// The file's bytes: the number in decimal, and a line's end.
    #[must_use]
    pub fn to_file(self) -> Vec<u8> {
        format!("{}\n", self.0).into_bytes()
    }
}

impl fmt::Display for ParentCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Under whose root an image was built. It follows from the trust root and cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The root of AWS Nitro Enclaves.
    Nitro,
    /// Any other root: no AWS machine vouches for such an enclave.
    Simulated,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Nitro, Self::Simulated];

    /// The mode's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::Simulated => "simulated",
        }
    }

    /// Reads the file that [`Mode::to_file`] makes.
    ///
    /// # Errors
    /// If it is not exactly that.
    pub fn from_file(bytes: &[u8]) -> Result<Self, SettingError> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.to_file() == bytes)
            .ok_or_else(|| SettingError::Mode { input: shown(bytes) })
    }

    /// The file's bytes: the name, and a line's end.
    #[must_use]
    pub fn to_file(self) -> Vec<u8> {
        format!("{}\n", self.name()).into_bytes()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn line(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_SETTING {
        return None;
    }
    core::str::from_utf8(bytes).ok()?.strip_suffix('\n')
}

/// A setting for a person: on one line, and not longer than a setting can be.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().take(MAX_SETTING).flat_map(|byte| byte.escape_ascii()).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_their_files() {
        for cid in [2, 3, 16, u32::MAX - 1] {
            let cid = ParentCid::new(cid).unwrap();
            assert_eq!(ParentCid::from_file(&cid.to_file()), Ok(cid));
            assert!(cid.to_file().len() <= MAX_SETTING);
        }
        for mode in Mode::ALL {
            assert_eq!(Mode::from_file(&mode.to_file()), Ok(mode));
            assert!(mode.to_file().len() <= MAX_SETTING);
        }
    }

    #[test]
    fn cid_in_any_other_form_is_refused() {
        for bytes in [
            &b""[..],
            b"3",
            b"3\n\n",
            b" 3\n",
            b"+3\n",
            b"03\n",
            b"0x3\n",
            b"3\r\n",
            b"-3\n",
            b"0\n",
            b"1\n",
            b"4294967295\n",
            b"4294967296\n",
            b"\xff\n",
            b"3\n\0",
            b"00000000000000003\n",
        ] {
            assert!(ParentCid::from_file(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn mode_in_any_other_form_is_refused_and_shown_on_one_line() {
        for bytes in [&b""[..], b"nitro", b"Nitro\n", b"nitro\n\n", b"simulator\n", b"\n"] {
            assert!(Mode::from_file(bytes).is_err(), "{bytes:?}");
        }
        let error = Mode::from_file(b"debug\x1b[2J\nand so on, for long").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`debug\\x1b[2J\\nand so` is no mode: `nitro` or `simulated`"
        );
    }
}
