//! A governor's recovery key, and the file that keeps it.
//!
//! ```json
//! {"schema": "casemate.recovery-key/1", "public_key": "0x…32 bytes", "secret": "0x…32 bytes"}
//! ```
//!
//! The key is X25519's; the public half stands in the manifest at the governor's place. Back the file up:
//! without k of them nothing that was sealed is ever opened.

use std::path::{Path, PathBuf};

use casemate_client::files as client_files;
use casemate_proto::ids::parse_hex;
use casemate_proto::recovery::RecoveryPublicKey;
use casemate_recovery::RecoverySecretKey;
use clap::Subcommand;
use rand_core::OsRng;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::RecoverError;
use super::files::{self, For};
use crate::online::out;

/// The schema of a recovery key's file.
const SCHEMA: &str = "casemate.recovery-key/1";
/// Most bytes of such a file.
const MAX_FILE: usize = 4096;
/// What such a file is called in errors.
const WHAT: &str = "a governor's recovery key";

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; the file is readable by its owner alone and never overwritten.
    New {
        /// Where to put it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the public half.
    Show {
        /// The key file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) fn run(command: &KeyCommand) -> Result<(), RecoverError> {
    let key = match command {
        KeyCommand::New { out } => {
            let key = RecoveryKey::generate()?;
            key.create(out)?;
            key
        }
        KeyCommand::Show { file } => RecoveryKey::load(file)?,
    };
    let mut text = String::new();
    out::line(&mut text, "public key", hex_text(key.public().as_bytes()));
    Ok(out::text(&text)?)
}

/// A governor's recovery key. It prints no secret and overwrites it in the end.
#[derive(Debug)]
pub struct RecoveryKey(RecoverySecretKey);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFile {
    schema: String,
    public_key: String,
    secret: String,
}

fn hex_text(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

impl RecoveryKey {
    /// A fresh key, of the system's randomness.
    ///
    /// # Errors
    /// Never with randomness worth the name.
    pub fn generate() -> Result<Self, RecoverError> {
        Ok(Self(RecoverySecretKey::generate(&mut OsRng)?))
    }

    /// The public half, for the manifest.
    #[must_use]
    pub const fn public(&self) -> RecoveryPublicKey {
        self.0.public()
    }

    pub(super) const fn secret(&self) -> &RecoverySecretKey {
        &self.0
    }

    /// Writes the file, which must not exist.
    ///
    /// # Errors
    /// If it exists or cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), RecoverError> {
        let secret = Zeroizing::new(hex::encode(self.0.dangerous_bytes()));
        let public = hex_text(self.public().as_bytes());
        let text = Zeroizing::new(format!(
            "{{\n  \"schema\": \"{SCHEMA}\",\n  \"public_key\": \"{public}\",\n  \"secret\": \"0x{}\"\n}}\n",
            *secret
        ));
        files::create(path, text.as_bytes(), For::Owner)
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// If it cannot be read, others may read it, or it is none.
    pub fn load(path: &Path) -> Result<Self, RecoverError> {
        let bytes = Zeroizing::new(client_files::read(path, MAX_FILE)?);
        must_be_private(path)?;
        let json =
            |reason: String| RecoverError::Json { path: path.to_owned(), what: WHAT, reason };
        let WireFile { schema, public_key, secret } =
            serde_json::from_slice(&bytes).map_err(|error| {
                // the parser's words can hold a part of a secret that stands in the wrong field
                json(format!("malformed at line {} column {}", error.line(), error.column()))
            })?;
        let secret = Zeroizing::new(secret);
        if schema != SCHEMA {
            return Err(json("it is of another schema".to_owned()));
        }
        let secret = parse_hex("secret", &secret)
            .map(Zeroizing::new)
            .map_err(|_| json("its secret is not `0x` and 32 bytes of hex".to_owned()))?;
        let key = Self(RecoverySecretKey::from_bytes(secret)?);
        if public_key != hex_text(key.public().as_bytes()) {
            return Err(RecoverError::OtherPublicKey { path: path.to_owned() });
        }
        Ok(key)
    }
}

/// Refuses a file that others than its owner may read or change.
pub(super) fn must_be_private(path: &Path) -> Result<(), RecoverError> {
    #[cfg(unix)]
    {
        let error = |error| client_files::ReadError::Unreadable { path: path.to_owned(), error };
        if client_files::is_open_to_others(path).map_err(error)? {
            return Err(RecoverError::OpenToOthers { path: path.to_owned() });
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_comes_back_from_its_file_and_prints_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = RecoveryKey::generate().unwrap();
        key.create(&path).unwrap();
        let again = RecoveryKey::load(&path).unwrap();
        assert_eq!(again.public(), key.public());
        let secret = hex::encode(key.0.dangerous_bytes());
        assert!(!format!("{again:?}").contains(&secret));
        assert!(key.create(&path).unwrap_err().to_string().contains("exists"));
        assert_eq!(RecoveryKey::load(&path).unwrap().public(), key.public());
    }

    #[test]
    fn file_that_is_no_key_or_open_to_others_is_refused_without_its_content() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        RecoveryKey::generate().unwrap().create(&path).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let secret = whole.split("\"secret\": \"0x").nth(1).unwrap()[..64].to_owned();
        let other = RecoveryKey::generate().unwrap();
        let other = hex_text(other.public().as_bytes());
        let public = whole.split("\"public_key\": \"").nth(1).unwrap()[..66].to_owned();
        for (text, reason) in [
            (whole[..whole.len() / 2].to_owned(), "malformed at line"),
            (String::new(), "malformed at line"),
            (whole.replace("recovery-key/1", "recovery-key/2"), "another schema"),
            (whole.replace("0x", "0y"), "32 bytes of hex"),
            (whole.replace(&public, &other), "not that of its secret"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = RecoveryKey::load(&path).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains(&secret), "{error}");
        }
        std::fs::write(&path, whole).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(RecoveryKey::load(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
