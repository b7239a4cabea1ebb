//! The commands, and what they share: files read within a bound, folders that appear whole.

pub(crate) mod build;
pub(crate) mod read;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use casemate_attestation_verify::RootError;
use casemate_eif::AssembleError;
use casemate_eif::image::FormatError;
use casemate_eif::sbom::SbomError;
use casemate_eif::signature::SignatureError;
use serde_json::Value;

/// Why a command did not do what was asked: one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("`{path}` cannot be read: {error}")]
    Read { path: String, error: io::Error },
    #[error("`{path}` has more than {limit} bytes")]
    TooLong { path: String, limit: usize },
    #[error("`{path}` is not text")]
    NotText { path: String },
    #[error("`{path}` is there already; an image goes to a folder of its own")]
    Exists { path: String },
    #[error("`{path}` cannot be written: {error}")]
    Write { path: String, error: io::Error },
    #[error("`{path}`: {error}")]
    TrustRoot { path: String, error: RootError },
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Signer(#[from] SignatureError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error("cargo does not say what the programs are made of: {0}")]
    Cargo(String),
    #[error(transparent)]
    Sbom(#[from] SbomError),
    #[error("`{path}`: {error}")]
    Image { path: String, error: FormatError },
    #[error("`{path}`: {error}")]
    Signature { path: String, error: SignatureError },
    #[error("`{path}` is no file of measurements")]
    Expected { path: String },
    #[error("{name} is `{found}`, and `{expected}` was expected")]
    Differs { name: String, found: String, expected: String },
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

fn named(path: &Path) -> String {
    path.display().to_string()
}

/// A whole file of at most so many bytes.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::Read { path: named(path), error };
    let file = File::open(path).map_err(failed)?;
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(one_more).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(CliError::TooLong { path: named(path), limit });
    }
    Ok(bytes)
}

fn read_text(path: &Path, limit: usize) -> Result<String, CliError> {
    String::from_utf8(read(path, limit)?).map_err(|_| CliError::NotText { path: named(path) })
}

/// JSON for a file or a terminal.
fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Whether a folder of this name can be made: there is nothing, or an empty folder.
fn free(folder: &Path) -> Result<(), CliError> {
    let exists = || CliError::Exists { path: named(folder) };
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(exists())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(exists()),
        Err(error) => Err(CliError::Read { path: named(folder), error }),
    }
}

/// Writes files into a folder that appears with all of them or not at all.
fn write_folder(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), CliError> {
    free(folder)?;
    let failed = |error| CliError::Write { path: named(folder), error };
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    // removed with what is in it unless it becomes the folder
    let unfinished = tempfile::Builder::new()
        .prefix(".casemate-eif-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(&parent)
        .map_err(failed)?;
    for (name, bytes) in files {
        let mut file = File::create_new(unfinished.path().join(name)).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    fs::rename(unfinished.path(), folder).map_err(failed)?;
    // there is nothing of this name any more
    let _ = unfinished.keep();
    File::open(&parent).and_then(|parent| parent.sync_all()).map_err(failed)
}
