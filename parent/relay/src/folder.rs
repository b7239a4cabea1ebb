//! The folder that a parent keeps, one process at a time.
//!
//! ```text
//! lock            held by the process that uses the folder
//! genesis.cbor    the cluster that the enclave was born into; given back to it at its next start
//! sealed/, incarnation, recovery/, recovered-<incarnation>/    for a cold recovery, see `recovery`
//! store/          the auditors' store, see `store`
//! conflicts/      what the enclave replaced in the store, see `store`
//! tmp/            files on their way
//! ```
//!
//! A file is there whole or not at all: it is written beside, flushed to the disk, renamed, and the
//! rename is flushed too.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use casemate_proto::manifest::{GenesisRecord, MAX_GENESIS};
use casemate_proto::{GenesisId, cbor};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process uses it.
    #[error("folder `{}` is in use by another `casemate-parent`", .path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("folder `{}`: {error}", .path.display())]
    System {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// The genesis in it is none.
    #[error("`{}` is not a genesis record: {error}", .path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: cbor::CborError,
    },
    /// The genesis in it is of another manifest.
    #[error(
        "`{}` is the genesis {genesis} of another manifest than the one configured",
        .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its id.
        genesis: GenesisId,
    },
}

/// A genesis record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Its id.
    pub id: GenesisId,
    /// Its strict CBOR.
    pub bytes: Vec<u8>,
}

impl Genesis {
    /// Reads a genesis record; gives the manifest that it is of beside it.
    ///
    /// # Errors
    /// If the bytes are not strict CBOR of one.
    pub fn parse(
        bytes: Vec<u8>,
    ) -> Result<(Self, casemate_proto::manifest::Manifest), cbor::CborError> {
        let record: GenesisRecord = cbor::decode(&bytes, MAX_GENESIS)?;
        Ok((Self { id: record.id(), bytes }, record.manifest))
    }
}

/// A folder that this process holds.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: Files,
    /// Held, not used: closing it drops the lock.
    _lock: File,
}

impl Folder {
    /// Takes the folder; makes it if it is not there.
    ///
    /// # Errors
    /// If another process holds it, or it cannot be written.
    pub fn open(root: &Path) -> Result<Self, FolderError> {
        let system = |path: &Path| {
            let path = path.to_owned();
            move |error| FolderError::System { path, error }
        };
        fs::create_dir_all(root).map_err(system(root))?;
        let lock_path = root.join("lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(system(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::InUse { path: root.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(system(&lock_path)(error)),
        }
        let files = Files::open(&root.join("tmp")).map_err(system(&root.join("tmp")))?;
        Ok(Self { root: root.to_owned(), files, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes files on its disk.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    fn genesis_path(&self) -> PathBuf {
        self.root.join("genesis.cbor")
    }

    /// The genesis, where the cluster has been born.
    ///
    /// # Errors
    /// If the file cannot be read, is none, or is of another manifest.
    pub fn genesis(
        &self,
        manifest: &casemate_proto::manifest::Manifest,
    ) -> Result<Option<Genesis>, FolderError> {
        let path = self.genesis_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FolderError::System { path, error }),
        };
        match Genesis::parse(bytes) {
            Err(error) => Err(FolderError::Genesis { path, error }),
            Ok((genesis, of)) if of != *manifest => {
                Err(FolderError::Foreign { path, genesis: genesis.id })
            }
            Ok((genesis, _)) => Ok(Some(genesis)),
        }
    }

    /// Keeps the genesis, so that it is there after a loss of power.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn keep_genesis(&self, genesis: &Genesis) -> io::Result<()> {
        self.files.write(&self.genesis_path(), &genesis.bytes)
    }
}

/// Writes whole files that survive a loss of power.
#[derive(Debug)]
pub struct Files {
    tmp: PathBuf,
    next: AtomicU64,
}

impl Files {
    /// Begins with an empty folder for files on their way; what a former process left there goes.
    fn open(tmp: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(tmp) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir(tmp)?;
        Ok(Self { tmp: tmp.to_owned(), next: AtomicU64::new(0) })
    }

    /// Puts a file at `target`, in place of what is there.
    ///
    /// # Errors
    /// If the disk refuses; what was at `target` is then still there.
    pub fn write(&self, target: &Path, bytes: &[u8]) -> io::Result<()> {
        self.place(bytes, |tmp| fs::rename(tmp, target))?;
        sync_parent(target)
    }

    /// Puts a file at `target` unless there is one. Says whether it did.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write_new(&self, target: &Path, bytes: &[u8]) -> io::Result<bool> {
        let placed = self.place(bytes, |tmp| {
            fs::hard_link(tmp, target)?;
            fs::remove_file(tmp)
        });
        match placed {
            Ok(()) => sync_parent(target).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn place(
        &self,
        bytes: &[u8],
        into_place: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let tmp = self.tmp.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let write = || {
            let mut file = File::options().write(true).create_new(true).open(&tmp)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let done = write().and_then(|()| into_place(&tmp));
        if done.is_err() {
            // what failed is told; that the remains stay until the next start is not worth more
            let _ = fs::remove_file(&tmp);
        }
        done
    }
}

/// Flushes the entry of a file in its folder.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_start_in_a_folder_is_refused_in_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let held = Folder::open(dir.path()).unwrap();
        let error = Folder::open(dir.path()).unwrap_err();
        let line =
            format!("folder `{}` is in use by another `casemate-parent`", dir.path().display());
        assert_eq!(error.to_string(), line);
        drop(held);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Folder::open(&file.join("data")).unwrap_err().to_string();
        assert!(error.contains("file/data"), "{error}");
    }

    #[test]
    fn file_is_replaced_whole_or_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let target = dir.path().join("a");
        folder.files().write(&target, b"one").unwrap();
        folder.files().write(&target, b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert!(!folder.files().write_new(&target, b"three").unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert!(folder.files().write_new(&dir.path().join("b"), b"three").unwrap());
        assert!(folder.files().write(&dir.path().join("missing/c"), b"").is_err());
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_former_process_left_on_its_way_goes() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path()).unwrap());
        fs::write(dir.path().join("tmp/0"), "half").unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        folder.files().write(&dir.path().join("a"), b"whole").unwrap();
    }
}
