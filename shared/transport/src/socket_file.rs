//! The file of a UNIX socket that one process listens on.
//!
//! A process that dies leaves its socket's file behind, and nothing can be bound where a file is.
//! Whether somebody still listens is told by a lock on a file beside it, which the kernel drops with
//! its owner; a listener that takes no lock (another program's) is told by connecting to it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::address::{AddressError, check_path};

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Not a UNIX socket's path.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A live process listens there.
    #[error("`{}` is in use: another process listens there", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file is there that is no socket. It is left alone.
    #[error("`{}` exists and is not a socket", .path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on `{place}`: {error}")]
    System {
        /// Where.
        place: String,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

/// A listener's file; it goes when this does.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Held, not used: closing it drops the lock.
    _lock: File,
}

impl SocketFile {
    /// Binds a socket for this user alone; replaces the file of a process that is gone.
    pub(crate) fn bind(path: &Path) -> Result<(UnixListener, Self), BindError> {
        check_path(path)?;
        let place = || path.display().to_string();
        let system = |error| BindError::System { place: place(), error };
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(system)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BindError::InUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(system(error)),
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(system)?;
        let file = Self { path: path.to_owned(), _lock: lock };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(system)?;
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // the lock is still held, so the file is ours; at worst it is found stale next time
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let system = |error| BindError::System { place: path.display().to_string(), error };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system)
        }
        // connected; or not, for a reason that only a live listener gives
        _ => Err(BindError::InUse { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn file_of_a_dead_process_is_replaced() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        // std's listener leaves its file behind, as a killed process does
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, _file) = SocketFile::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn live_listener_is_refused_in_one_clear_line_and_goes_on() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        let (_listener, _file) = SocketFile::bind(&path).unwrap();
        let error = SocketFile::bind(&path).unwrap_err();
        let line = format!("`{}` is in use: another process listens there", path.display());
        assert_eq!(error.to_string(), line);
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn live_listener_without_a_lock_is_refused_too() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = SocketFile::bind(&path).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn file_that_is_no_socket_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        let error = SocketFile::bind(&path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn socket_is_for_its_user_alone_and_goes_with_its_listener() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        let (listener, file) = SocketFile::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop((listener, file));
        assert!(!path.exists());
        let _again = SocketFile::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn folder_that_is_missing_is_named() {
        let folder = folder();
        let path = folder.path().join("missing/a.sock");
        let error = SocketFile::bind(&path).unwrap_err().to_string();
        assert!(error.contains("missing/a.sock"), "{error}");
    }
}
