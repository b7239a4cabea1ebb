//! Files that are there whole or not at all, and survive a loss of power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use casemate_client::files::{self, ReadError};

use super::RecoverError;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Its owner alone: a secret, or a record that only its owner may change.
    Owner,
    /// Whoever the system lets: what is handed to a parent, which may run as another user.
    All,
}

impl For {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        }
    }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    let path = path.to_owned();
    move |error| RecoverError::Write { path, error }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

/// Flushes a folder, so that the names in it survive.
fn sync_folder(of: &Path) -> io::Result<()> {
    match of.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn placed(
    path: &Path,
    bytes: &[u8],
    reader: For,
    into_place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let new = beside(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, reader.mode());
    let write = || {
        let mut file = options.open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    let done = write().and_then(|()| into_place(&new)).and_then(|()| sync_folder(path));
    if done.is_err() {
        // what failed is told; the remains have a name that nothing reads
        let _ = fs::remove_file(&new);
    }
    done
}

/// Writes a file in the place of an older one.
pub(super) fn replace(path: &Path, bytes: &[u8], reader: For) -> Result<(), RecoverError> {
    placed(path, bytes, reader, |new| fs::rename(new, path)).map_err(write_error(path))
}

/// Writes a file where there is none.
pub(super) fn create(path: &Path, bytes: &[u8], reader: For) -> Result<(), RecoverError> {
    let link = |new: &Path| {
        fs::hard_link(new, path)?;
        fs::remove_file(new)
    };
    placed(path, bytes, reader, link).map_err(write_error(path))
}

/// Makes a folder, and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), RecoverError> {
    fs::create_dir_all(path).map_err(write_error(path))
}

/// Fills a new folder and gives it its name when it is complete.
pub(super) fn create_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), RecoverError>,
) -> Result<(), RecoverError> {
    let taken = || write_error(path)(ErrorKind::AlreadyExists.into());
    if fs::symlink_metadata(path).is_ok() {
        return Err(taken());
    }
    let new = beside(path);
    fs::create_dir(&new).map_err(write_error(path))?;
    let rename = || {
        // over an empty folder that came meanwhile a rename would go; over anything else it does not
        fs::rename(&new, path).and_then(|()| sync_folder(path)).map_err(write_error(path))
    };
    let done = fill(&new).and_then(|()| rename());
    if done.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    done
}

/// Reads a file of at most `max` bytes; `None` where there is none.
pub(super) fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, RecoverError> {
    match files::read(path, max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::Unreadable { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The files with this extension in a folder, in order; none where there is no folder.
pub(super) fn list(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, RecoverError> {
    /// Far more than any of these folders has.
    const MOST: usize = 10_000;
    let unreadable = |error| ReadError::Unreadable { path: folder.to_owned(), error };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error).into()),
    };
    let mut paths = Vec::new();
    for entry in entries.take(MOST) {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
