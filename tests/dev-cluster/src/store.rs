//! A store's files in a folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};

use casemate_audit::StoreRead;

use crate::demo::DemoError;

/// A folder that is read as a store.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The store in this folder.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A path within the folder, whatever the text says.
    fn place(&self, path: &str) -> Result<PathBuf, DemoError> {
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
        if Path::new(path).components().all(inside) {
            return Ok(self.root.join(path));
        }
        Err(DemoError::Missing { what: "place in a store for", name: path.to_owned() })
    }
}

fn failed(path: &Path, error: std::io::Error) -> DemoError {
    DemoError::File { path: path.to_owned(), error }
}

impl StoreRead for Folder {
    type Error = DemoError;

    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, DemoError> {
        let path = self.place(path)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, error)),
        };
        let mut bytes = Vec::new();
        let cap = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(cap).read_to_end(&mut bytes).map_err(|error| failed(&path, error))?;
        if bytes.len() > max {
            let error = std::io::Error::other(format!("more than {max} bytes"));
            return Err(failed(&path, error));
        }
        Ok(Some(bytes))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DemoError> {
        let path = self.place(folder)?;
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&path, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&path, error))?;
            if entry.file_type().map_err(|error| failed(&path, error))?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Checks that a store can be written to a folder without touching what is there.
///
/// # Errors
/// If it is no folder, or there is something in it.
pub fn check_empty(root: &Path) -> Result<(), DemoError> {
    match std::fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(root, error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(failed(root, std::io::Error::other("the folder is not empty"))),
        },
    }
}

/// Writes a store's files into a folder, which is made if it is not there.
///
/// # Errors
/// If a file cannot be written.
pub fn write(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), DemoError> {
    let folder = Folder::new(root);
    for (name, bytes) in files {
        let path = folder.place(name)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        std::fs::write(&path, bytes).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        let folder = Folder::new(Path::new("/nowhere"));
        for path in ["../x", "/etc/passwd", "a/../../b", "a/./b/.."] {
            assert!(folder.read(path, 10).is_err(), "{path}");
            assert!(folder.list(path).is_err(), "{path}");
        }
        assert!(folder.read("tile/0/000", 10).unwrap().is_none());
    }
}
