//! A store's folder on disk. Nothing is read beyond its cap, and no path leaves the folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use casemate_audit::StoreRead;
use thiserror::Error;

/// Most files that are listed in one folder.
const MAX_FILES: usize = 1 << 20;

/// Why a store's file cannot be read.
#[derive(Debug, Error)]
pub(crate) enum FolderError {
    #[error("cannot read `{path}`: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error("`{path}` is larger than {max} bytes")]
    TooLarge { path: String, max: usize },
    #[error("`{path}` has more than {max} files", max = MAX_FILES)]
    TooMany { path: String },
    #[error("`{path}` is not a path within a store")]
    Outside { path: String },
}

/// A store on disk.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Opens a folder.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let error = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return Ok(Self(path.to_owned())),
            Ok(_) => io::ErrorKind::NotADirectory.into(),
            Err(error) => error,
        };
        Err(FolderError::Unreadable { path: path.display().to_string(), error })
    }

    fn place(&self, path: &str) -> Result<PathBuf, FolderError> {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if inside { Ok(self.0.join(path)) } else { Err(FolderError::Outside { path: path.into() }) }
    }
}

impl StoreRead for Folder {
    type Error = FolderError;

    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, FolderError> {
        let unreadable = |error| FolderError::Unreadable { path: path.to_owned(), error };
        let file = match File::open(self.place(path)?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let most = u64::try_from(max).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > max {
            return Err(FolderError::TooLarge { path: path.to_owned(), max });
        }
        Ok(Some(bytes))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, FolderError> {
        let unreadable = |error| FolderError::Unreadable { path: folder.to_owned(), error };
        let entries = match std::fs::read_dir(self.place(folder)?) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            if names.len() == MAX_FILES {
                return Err(FolderError::TooMany { path: folder.to_owned() });
            }
            names.push(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}
