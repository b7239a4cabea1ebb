//! The auditors' store: what the enclave publishes, as files that anybody may read.
//!
//! The enclave says what to write and in which order; a batch is acknowledged when all of it is on
//! the disk. The same batch can come twice, so a file that is there already is not written again.
//! A file never changes once it is there, but for `checkpoint`, which goes forward only, and
//! `checkpoints/…`, to which cosignatures may be added. If the enclave ever gives other bytes for another
//! file, the disk was altered behind its back: its bytes are written, and what was there is kept
//! under `conflicts/` for whoever looks into it.

mod path;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use casemate_audit::store::{CHECKPOINT, CHECKPOINTS};
use casemate_audit::{Checkpoint, SignedNote, StoreRead};

pub use path::{BadPath, MAX_PATH, StorePath};

use crate::folder::{Folder, sync_parent};

/// Most bytes of a file that is read to be compared or served: a full tile of records.
pub const MAX_FILE: usize = casemate_audit::store::MAX_TILE;

/// What became of a file that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is on the disk.
    Written,
    /// It was there already.
    Same,
    /// A newer checkpoint was there already.
    Older,
    /// It is on the disk; other bytes were there before.
    Conflict,
}

/// Why a file was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refuses.
    #[error("cannot {doing} `{path}` in the store: {error}")]
    Disk {
        /// `read`, `write` or `list`.
        doing: &'static str,
        /// Which file.
        path: String,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// Larger than was asked for.
    #[error("`{path}` in the store has more than {max} bytes")]
    TooLarge {
        /// Which file.
        path: String,
        /// The most it may have.
        max: usize,
    },
    /// Not a path within the store.
    #[error(transparent)]
    Path(#[from] BadPath),
}

/// The auditors' store of a folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Arc<Folder>,
    root: PathBuf,
    /// One writer at a time: a batch that comes again while it is still being written waits.
    writing: Arc<Mutex<()>>,
}

impl Store {
    /// The store of this folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: Arc<Folder>) -> io::Result<Self> {
        let root = folder.root().join("store");
        fs::create_dir_all(&root)?;
        sync_parent(&root)?;
        Ok(Self { folder, root, writing: Arc::default() })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes what the enclave published. When this returns it survives a loss of power.
    ///
    /// # Errors
    /// If the disk refuses; it may be tried again.
    pub fn put(&self, path: &StorePath, bytes: &[u8]) -> Result<Put, StoreError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_alone(path, bytes).map_err(|error| disk("write", path.as_str(), error))
    }

    fn put_alone(&self, path: &StorePath, bytes: &[u8]) -> io::Result<Put> {
        let target = self.root.join(path.as_str());
        let found = match fs::metadata(&target) {
            Ok(metadata) if metadata.is_file() => {
                // other bytes of the same length are told by reading; other lengths without
                let same_size = u64::try_from(bytes.len()).is_ok_and(|size| size == metadata.len());
                if same_size && fs::read(&target)? == bytes {
                    return Ok(Put::Same);
                }
                true
            }
            Ok(_) => return Err(io::ErrorKind::IsADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if path.as_str() == CHECKPOINT && found && is_older(bytes, &fs::read(&target)?) {
            return Ok(Put::Older);
        }
        let conflict = found && !may_change(path);
        if conflict {
            self.set_aside(path, &target)?;
        }
        self.make_folder(&target)?;
        self.folder.files().write(&target, bytes)?;
        Ok(if conflict { Put::Conflict } else { Put::Written })
    }

    /// Writes what came from elsewhere and was verified; what is there stays. Says whether it wrote.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn fill(&self, path: &StorePath, bytes: &[u8]) -> Result<bool, StoreError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let target = self.root.join(path.as_str());
        self.make_folder(&target)
            .and_then(|()| self.folder.files().write_new(&target, bytes))
            .map_err(|error| disk("write", path.as_str(), error))
    }

    /// Whether there is a file.
    #[must_use]
    pub fn has(&self, path: &StorePath) -> bool {
        self.root.join(path.as_str()).is_file()
    }

    /// The bytes of a file, `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read or has more than `max` bytes.
    pub fn get(&self, path: &StorePath, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let target = self.root.join(path.as_str());
        let read = || -> io::Result<Option<Vec<u8>>> {
            let file = match fs::File::open(&target) {
                Ok(file) if file.metadata()?.is_file() => file,
                Ok(_) => return Ok(None),
                Err(error) if is_missing(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
            let mut bytes = Vec::new();
            file.take(limit).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        match read() {
            Ok(Some(bytes)) if bytes.len() > max => {
                Err(StoreError::TooLarge { path: path.to_string(), max })
            }
            Ok(found) => Ok(found),
            Err(error) => Err(disk("read", path.as_str(), error)),
        }
    }

    /// The first `limit` names of files in a folder behind `after`, in order, and whether there
    /// are more.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn names(
        &self,
        folder: &StorePath,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<String>, bool), StoreError> {
        let fail = |error| disk("list", folder.as_str(), error);
        let entries = match fs::read_dir(self.root.join(folder.as_str())) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok((Vec::new(), false)),
            Err(error) => return Err(fail(error)),
        };
        let (mut names, mut more) = (BTreeSet::new(), false);
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.as_str() <= after || !entry.file_type().map_err(fail)?.is_file() {
                continue;
            }
            names.insert(name);
            if names.len() > limit {
                names.pop_last();
                more = true;
            }
        }
        Ok((names.into_iter().collect(), more))
    }

    /// The newest checkpoint, if there is one that can be read.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let path = StorePath::parse(CHECKPOINT)?;
        let bytes = self.get(&path, casemate_audit::note::MAX_NOTE)?;
        Ok(bytes.and_then(|bytes| checkpoint_of(&bytes)))
    }

    fn make_folder(&self, target: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut folder = target.parent();
        while let Some(path) = folder.filter(|path| path.starts_with(&self.root) && !path.is_dir())
        {
            missing.push(path);
            folder = path.parent();
        }
        for path in missing.into_iter().rev() {
            fs::create_dir(path)?;
            sync_parent(path)?;
        }
        Ok(())
    }

    fn set_aside(&self, path: &StorePath, target: &Path) -> io::Result<()> {
        let folder = self.folder.root().join("conflicts");
        fs::create_dir_all(&folder)?;
        let name = path.as_str().replace('/', "_");
        for number in 0_u32..1_000 {
            let aside = folder.join(format!("{name}.{number}"));
            match fs::hard_link(target, &aside) {
                Ok(()) => return sync_parent(&aside),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

fn disk(doing: &'static str, path: &str, error: io::Error) -> StoreError {
    StoreError::Disk { doing, path: path.to_owned(), error }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn may_change(path: &StorePath) -> bool {
    let below = |rest: &str| rest.starts_with('/');
    path.as_str() == CHECKPOINT || path.as_str().strip_prefix(CHECKPOINTS).is_some_and(below)
}

fn checkpoint_of(bytes: &[u8]) -> Option<Checkpoint> {
    Checkpoint::parse(SignedNote::parse(bytes).ok()?.text()).ok()
}

/// Whether one checkpoint is of an earlier state of the same log than another.
fn is_older(bytes: &[u8], than: &[u8]) -> bool {
    checkpoint_of(bytes)
        .zip(checkpoint_of(than))
        .is_some_and(|(new, old)| new.origin == old.origin && new.size < old.size)
}

impl StoreRead for Store {
    type Error = StoreError;

    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&StorePath::parse(path)?, max)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.names(&StorePath::parse(folder)?, "", usize::MAX)?.0)
    }
}

#[cfg(test)]
mod tests {
    use casemate_audit::{NoteKeyName, NoteSignature, SignatureKind, VerifierKey};
    use casemate_proto::ids::Hash32;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Arc::new(Folder::open(dir.path()).unwrap())).unwrap();
        (dir, store)
    }

    fn at(path: &str) -> StorePath {
        StorePath::parse(path).unwrap()
    }

    fn checkpoint(size: u64) -> Vec<u8> {
        let checkpoint =
            Checkpoint { origin: "casemate/test".to_owned(), size, root: Hash32::new([1; 32]) };
        let name = NoteKeyName::new("casemate/test").unwrap();
        // the generator's encoding: a valid point
        let key = hex::decode("5866666666666666666666666666666666666666666666666666666666666666");
        let key = VerifierKey::new(name, SignatureKind::Ed25519, &key.unwrap().try_into().unwrap())
            .unwrap();
        let signature = NoteSignature::ed25519(&key, &[0; 64]);
        SignedNote::assemble(&checkpoint.body(), &[signature]).unwrap().to_string().into_bytes()
    }

    #[test]
    fn file_is_written_once() {
        let (_dir, store) = store();
        let path = at("tile/0/000");
        assert_eq!(store.put(&path, b"abc").unwrap(), Put::Written);
        let inode = || {
            std::os::unix::fs::MetadataExt::ino(
                &fs::metadata(store.root().join(path.as_str())).unwrap(),
            )
        };
        let first = inode();
        assert_eq!(store.put(&path, b"abc").unwrap(), Put::Same);
        assert_eq!(inode(), first);
        assert_eq!(store.get(&path, 10).unwrap().unwrap(), b"abc");
    }

    #[test]
    fn other_bytes_from_the_enclave_are_written_and_the_former_kept_aside() {
        let (dir, store) = store();
        let path = at("tile/0/000");
        store.put(&path, b"abc").unwrap();
        assert_eq!(store.put(&path, b"abd").unwrap(), Put::Conflict);
        assert_eq!(store.put(&path, b"abcd").unwrap(), Put::Conflict);
        assert_eq!(store.get(&path, 10).unwrap().unwrap(), b"abcd");
        assert_eq!(fs::read(dir.path().join("conflicts/tile_0_000.0")).unwrap(), b"abc");
        assert_eq!(fs::read(dir.path().join("conflicts/tile_0_000.1")).unwrap(), b"abd");
    }

    #[test]
    fn checkpoint_goes_forward_only() {
        let (dir, store) = store();
        let path = at("checkpoint");
        assert_eq!(store.put(&path, &checkpoint(7)).unwrap(), Put::Written);
        assert_eq!(store.put(&path, &checkpoint(9)).unwrap(), Put::Written);
        assert_eq!(store.put(&path, &checkpoint(8)).unwrap(), Put::Older);
        assert_eq!(store.checkpoint().unwrap().unwrap().size, 9);
        assert!(!dir.path().join("conflicts").exists());
    }

    #[test]
    fn filling_in_never_overwrites() {
        let (_dir, store) = store();
        let path = at("tile/0/000");
        assert!(store.fill(&path, b"abc").unwrap());
        assert!(!store.fill(&path, b"abd").unwrap());
        assert_eq!(store.get(&path, 10).unwrap().unwrap(), b"abc");
    }

    #[test]
    fn refusing_disk_is_told_with_the_file_and_works_again_later() {
        let (_dir, store) = store();
        // a file where a folder should be: as good as a full disk, and works for root too
        fs::write(store.root().join("tile"), "").unwrap();
        let error = store.put(&at("tile/0/000"), b"abc").unwrap_err().to_string();
        assert!(error.starts_with("cannot write `tile/0/000` in the store: "), "{error}");
        fs::remove_file(store.root().join("tile")).unwrap();
        assert_eq!(store.put(&at("tile/0/000"), b"abc").unwrap(), Put::Written);
    }

    #[test]
    fn folder_is_no_file_and_a_missing_file_is_none() {
        let (_dir, store) = store();
        store.put(&at("tile/0/000"), b"abc").unwrap();
        assert!(store.put(&at("tile/0"), b"abc").is_err());
        for path in ["tile/0", "tile/1/000", "tile/0/000/x", "nothing"] {
            assert_eq!(store.get(&at(path), 10).unwrap(), None, "{path}");
        }
    }

    #[test]
    fn file_over_the_cap_is_not_read() {
        let (_dir, store) = store();
        store.put(&at("a"), b"abcd").unwrap();
        assert!(matches!(store.get(&at("a"), 3), Err(StoreError::TooLarge { max: 3, .. })));
        assert_eq!(store.get(&at("a"), 4).unwrap().unwrap(), b"abcd");
    }

    #[test]
    fn names_come_in_order_a_part_at_a_time_and_without_folders() {
        let (_dir, store) = store();
        for name in ["c", "a", "d", "b", "x/y"] {
            store.put(&at(&format!("receipts/{name}")), b"").unwrap();
        }
        let names = |after: &str, limit| store.names(&at("receipts"), after, limit).unwrap();
        assert_eq!(names("", 3), (vec!["a".into(), "b".into(), "c".into()], true));
        assert_eq!(names("c", 3), (vec!["d".into()], false));
        assert_eq!(names("d", 3), (Vec::new(), false));
        assert_eq!(store.names(&at("nothing"), "", 3).unwrap(), (Vec::new(), false));
        assert_eq!(store.list("receipts").unwrap().len(), 4);
    }
}
