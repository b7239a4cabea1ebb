//! A folder for one run.

use std::path::{Path, PathBuf};

use super::DemoError;
use super::people::random;

/// A folder that is gone when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    /// A new one among the system's temporary folders.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self, DemoError> {
        let path = std::env::temp_dir().join(format!("casemate-{}", hex::encode(random::<8>())));
        std::fs::create_dir(&path)
            .map_err(|error| DemoError::File { path: path.clone(), error })?;
        Ok(Self { path, kept: false })
    }
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Leaves it there, and tells where.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // what cannot be removed is left to the system's own cleaning of its temporary folder
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
