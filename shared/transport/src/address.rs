//! Where an enclave's door is: `unix:PATH` or `vsock:CID`.

use core::fmt;
use core::str::FromStr;
use std::path::{Path, PathBuf};

/// Most bytes of a UNIX socket's path; the kernel's field has one more, for the final zero.
pub const MAX_SOCKET_PATH: usize = 107;
/// The context id that stands for every one of a machine's own: `vsock:any`.
pub const ANY_CID: u32 = u32::MAX;

/// Where an enclave's door is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Hybrid vsock: `unix:PATH`, a UNIX socket whose ports are named in a first line.
    Unix(PathBuf),
    /// Vsock: `vsock:CID`, or `vsock:any` for a listener.
    Vsock {
        /// The machine's context id; an enclave's is what `nitro-cli` shows.
        cid: u32,
    },
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Of no known kind.
    #[error("`{input}` is not an address; the forms are `unix:PATH` and `vsock:CID`")]
    Unknown {
        /// Its beginning.
        input: String,
    },
    /// No number.
    #[error("`{input}` is not a vsock context id: a number, or `any`")]
    BadCid {
        /// Its beginning.
        input: String,
    },
    /// An empty path.
    #[error("the address `unix:` names no path")]
    NoPath,
    /// A path that no UNIX socket can have.
    #[error(
        "the socket's path `{}` has {size} bytes; the kernel allows {MAX_SOCKET_PATH}",
        .path.display()
    )]
    LongPath {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        size: usize,
    },
}

impl Address {
    /// The hybrid vsock at this path.
    ///
    /// # Errors
    /// If the path is empty, or longer than a UNIX socket's may be.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, AddressError> {
        let path = path.into();
        check_path(&path)?;
        Ok(Self::Unix(path))
    }
}

/// Holds a path against what a UNIX socket can have. A relative path is measured as it stands.
pub(crate) fn check_path(path: &Path) -> Result<(), AddressError> {
    let size = path.as_os_str().len();
    if size == 0 {
        return Err(AddressError::NoPath);
    }
    if size > MAX_SOCKET_PATH {
        return Err(AddressError::LongPath { path: path.to_owned(), size });
    }
    Ok(())
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let clip = |text: &str| text.chars().take(80).collect::<String>();
        match text.split_once(':') {
            Some(("unix", path)) => Self::unix(path),
            Some(("vsock", "any")) => Ok(Self::Vsock { cid: ANY_CID }),
            Some(("vsock", cid)) => match cid.parse::<u32>() {
                // one text for one address: neither `+3` nor `003`
                Ok(number) if number.to_string() == cid => Ok(Self::Vsock { cid: number }),
                _ => Err(AddressError::BadCid { input: clip(cid) }),
            },
            _ => Err(AddressError::Unknown { input: clip(text) }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: ANY_CID } => f.write_str("vsock:any"),
            Self::Vsock { cid } => write!(f, "vsock:{cid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_printed_alike() {
        for text in ["unix:/run/casemate/a.sock", "unix:door", "vsock:16", "vsock:any", "vsock:0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_neither_form_is_refused_and_named() {
        for (text, message) in [
            ("", "`` is not an address; the forms are `unix:PATH` and `vsock:CID`"),
            ("/run/a.sock", "`/run/a.sock` is not an address"),
            ("tcp:localhost:80", "`tcp:localhost:80` is not an address"),
            ("unix:", "the address `unix:` names no path"),
            ("vsock:", "`` is not a vsock context id"),
            ("vsock:-1", "`-1` is not a vsock context id"),
            ("vsock:016", "`016` is not a vsock context id"),
            ("vsock:4294967296", "`4294967296` is not a vsock context id"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }

    #[test]
    fn path_that_no_socket_can_have_is_refused_before_it_is_tried() {
        let fits = format!("unix:/{}", "a".repeat(MAX_SOCKET_PATH - 1));
        assert!(fits.parse::<Address>().is_ok());
        let error = format!("{fits}a").parse::<Address>().unwrap_err();
        assert!(matches!(error, AddressError::LongPath { size: 108, .. }), "{error}");
    }
}
