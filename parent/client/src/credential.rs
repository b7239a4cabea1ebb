//! Credentials: who signs stamps, approvals, changes and statements, and the file that keeps a key.
//!
//! A key file is JSON, readable by its owner alone:
//!
//! ```json
//! {"schema": "casemate.credential/1", "algorithm": "ed25519", "id": "0x…", "public_key": "0x…",
//!  "secret": "0x…32 bytes"}
//! ```
//!
//! The secret is the seed of Ed25519 (RFC 8032) or the scalar of P-256, big-endian. Id and public
//! key are there to be read by people; they are checked against the secret.

use std::io;
use std::path::{Path, PathBuf};

use casemate_proto::credential::CredentialError;
use casemate_proto::governance::{
    ChangeEnvelope, FreezerStatement, NamedSignature, SignedStatement,
};
use casemate_proto::stamp::{Method, Stamp, StampScope};
use casemate_proto::{
    Algorithm, CredentialId, GenesisId, Incarnation, Millis, PublicKey, UnixMillis,
};
use ed25519_dalek::Signer as _;
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cluster_file::SecretText;
use crate::files::{self, ReadError};

/// The schema of a key file.
pub const SCHEMA: &str = "casemate.credential/1";
/// Most bytes of a key file.
const MAX_FILE: usize = 4096;

/// Signs with one credential: a key in memory here, a token or a service elsewhere.
pub trait Sign: Send + Sync {
    /// The credential's public key.
    fn public_key(&self) -> &PublicKey;

    /// The plain signature over `message`, 64 bytes: r‖s over SHA-256(message) for P-256, RFC 8032
    /// for Ed25519.
    ///
    /// # Errors
    /// If it cannot sign now; the text says why.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError>;
}

/// Why a signer did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("credential {credential} cannot sign: {reason}")]
pub struct SignError {
    /// Whose.
    pub credential: CredentialId,
    /// Why.
    pub reason: String,
}

/// A credential whose key is in memory. It prints no secret and overwrites it in the end.
#[derive(Clone)]
pub struct Credential {
    secret: Secret,
    public: PublicKey,
}

/// Both kinds overwrite themselves when they are dropped.
#[derive(Clone)]
enum Secret {
    P256(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Credential({}, <redacted>)", self.public.id())
    }
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialFileError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Others may read it.
    #[error("`{}` holds a secret key and can be read by others: `chmod 600` it", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
    },
    /// Not a key file.
    #[error("`{}` is not a credential file of schema `{SCHEMA}`: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong. Never a part of the file.
        reason: String,
    },
    /// Not a secret key.
    #[error("the secret is not a private key of {}: `0x` and 32 bytes of hex", algorithm.name())]
    BadSecret {
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// A passkey's secret is in no file.
    #[error("a `{}` credential signs approvals in a browser; here `ed25519` and `p256` sign", Algorithm::WebauthnP256.name())]
    Passkey,
    /// The public part is not the secret's.
    #[error("`{}`: its {field} is not that of its secret", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// Which field.
        field: &'static str,
    },
    /// The file exists or cannot be written.
    #[error("cannot write `{}`: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A key that is none: one in 2¹²⁸.
    #[error(transparent)]
    Key(#[from] CredentialError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFile {
    schema: String,
    #[serde(with = "algorithm_name")]
    algorithm: Algorithm,
    id: String,
    public_key: String,
    secret: SecretText,
}

/// An algorithm by its name, as it stands in files.
pub(crate) mod algorithm_name {
    use casemate_proto::Algorithm;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(a: &Algorithm, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(a.name())
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Algorithm, D::Error> {
        let name = String::deserialize(d)?;
        Algorithm::from_name(&name).ok_or_else(|| {
            D::Error::custom(format_args!("`{name}` is not an algorithm: `ed25519` or `p256`"))
        })
    }
}

/// `N` fresh bytes of the operating system's randomness.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

impl Credential {
    /// A new key.
    ///
    /// # Errors
    /// For a passkey, whose key a browser makes.
    pub fn generate(algorithm: Algorithm) -> Result<Self, CredentialFileError> {
        loop {
            let secret = Zeroizing::new(random::<32>());
            match Self::from_secret(algorithm, &secret) {
                // not every 32 bytes are a P-256 scalar; nearly all are
                Err(CredentialFileError::BadSecret { .. }) => {}
                made => return made,
            }
        }
    }

    /// From a secret of 32 bytes.
    ///
    /// # Errors
    /// If it is no key of the algorithm.
    pub fn from_secret(
        algorithm: Algorithm,
        secret: &[u8; 32],
    ) -> Result<Self, CredentialFileError> {
        let (secret, public) = match algorithm {
            Algorithm::P256 => {
                let key = p256::ecdsa::SigningKey::from_slice(secret)
                    .map_err(|_| CredentialFileError::BadSecret { algorithm })?;
                let point = key.verifying_key().to_encoded_point(true);
                (Secret::P256(key), PublicKey::new(algorithm, point.as_bytes())?)
            }
            Algorithm::Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(secret);
                let public = PublicKey::new(algorithm, key.verifying_key().as_bytes())?;
                (Secret::Ed25519(key), public)
            }
            Algorithm::WebauthnP256 => return Err(CredentialFileError::Passkey),
        };
        Ok(Self { secret, public })
    }

    pub(crate) fn from_secret_text(
        algorithm: Algorithm,
        text: &SecretText,
    ) -> Result<Self, CredentialFileError> {
        let wrong = || CredentialFileError::BadSecret { algorithm };
        let digits = text.reveal().strip_prefix("0x").ok_or_else(wrong)?;
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, bytes.as_mut()).map_err(|_| wrong())?;
        Self::from_secret(algorithm, &bytes)
    }

    /// The secret as text, to be written to a file.
    pub(crate) fn dangerous_secret_text(&self) -> SecretText {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(match &self.secret {
            Secret::P256(key) => key.to_bytes().into(),
            Secret::Ed25519(key) => key.to_bytes(),
        });
        SecretText::new(format!("0x{}", hex::encode(bytes.as_slice())))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// If it cannot be read, others may read it, or it is not a key file.
    pub fn load(path: &Path) -> Result<Self, CredentialFileError> {
        let bytes = Zeroizing::new(files::read(path, MAX_FILE)?);
        #[cfg(unix)]
        if files::is_open_to_others(path)
            .map_err(|error| ReadError::Unreadable { path: path.to_owned(), error })?
        {
            return Err(CredentialFileError::OpenToOthers { path: path.to_owned() });
        }
        let json = |reason: String| CredentialFileError::Json { path: path.to_owned(), reason };
        let file: WireFile = serde_json::from_slice(&bytes).map_err(|error| {
            // the parser's words can hold a part of a secret that stands in the wrong field
            json(format!("malformed at line {} column {}", error.line(), error.column()))
        })?;
        if file.schema != SCHEMA {
            return Err(json("it is of another schema".to_owned()));
        }
        let credential = Self::from_secret_text(file.algorithm, &file.secret)?;
        let other = |field| CredentialFileError::OtherKey { path: path.to_owned(), field };
        if file.id != credential.public.id().to_string() {
            return Err(other("id"));
        }
        if file.public_key != hex_text(credential.public.as_bytes()) {
            return Err(other("public_key"));
        }
        Ok(credential)
    }

    /// Writes a key file, which must not exist.
    ///
    /// # Errors
    /// If it exists or cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), CredentialFileError> {
        let wrong = |error| CredentialFileError::Write { path: path.to_owned(), error };
        let file = WireFile {
            schema: SCHEMA.to_owned(),
            algorithm: self.algorithm(),
            id: self.id().to_string(),
            public_key: hex_text(self.public.as_bytes()),
            secret: self.dangerous_secret_text(),
        };
        let mut text = Zeroizing::new(
            serde_json::to_string_pretty(&file).map_err(|error| wrong(io::Error::other(error)))?,
        );
        text.push('\n');
        files::create_private(path, text.as_bytes()).map_err(wrong)
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.public.algorithm()
    }
    /// Its id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.public.id()
    }
}

impl Sign for Credential {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        Ok(match &self.secret {
            Secret::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().into()
            }
            Secret::Ed25519(key) => key.sign(message).to_bytes(),
        })
    }
}

/// What everything that is signed names: the cluster and its incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// A stamp over a body.
///
/// # Errors
/// If the signer does not sign.
pub fn stamp(
    signer: &dyn Sign,
    scope: Scope,
    method: Method,
    body: &[u8],
    issued_at: UnixMillis,
    life: Millis,
) -> Result<Stamp, SignError> {
    let scope = StampScope { genesis: scope.genesis, incarnation: scope.incarnation, method };
    let (credential, nonce) = (signer.public_key().id(), random());
    let expires_at = issued_at.saturating_add(life);
    let preimage = Stamp::preimage(&scope, &credential, issued_at, expires_at, &nonce, body);
    let signature = signer.sign(&preimage)?;
    Ok(Stamp { credential, issued_at, expires_at, nonce, signature })
}

/// A governor's signature under a change.
///
/// # Errors
/// If the signer does not sign.
pub fn sign_change(
    signer: &dyn Sign,
    envelope: &ChangeEnvelope,
) -> Result<NamedSignature, SignError> {
    let signature = signer.sign(&envelope.signing_bytes())?;
    Ok(NamedSignature { credential: signer.public_key().id(), signature })
}

/// A freezer's statement.
///
/// # Errors
/// If the signer does not sign.
pub fn sign_statement(
    signer: &dyn Sign,
    scope: Scope,
    statement: FreezerStatement,
    at: UnixMillis,
) -> Result<SignedStatement, SignError> {
    let id = SignedStatement::id_of(&scope.genesis, scope.incarnation, at, &statement);
    let signature = signer.sign(&SignedStatement::signing_bytes(&id))?;
    let by = NamedSignature { credential: signer.public_key().id(), signature };
    let Scope { genesis, incarnation } = scope;
    Ok(SignedStatement { genesis, incarnation, at, statement, by })
}

fn hex_text(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_file_survives_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let path = folder.path().join(algorithm.name());
            let made = Credential::generate(algorithm).unwrap();
            made.create(&path).unwrap();
            let read = Credential::load(&path).unwrap();
            assert_eq!(read.id(), made.id());
            let signature = read.sign(b"message").unwrap();
            assert_eq!(made.public_key().verify(b"message", &signature), Ok(()));
            assert!(matches!(made.create(&path), Err(CredentialFileError::Write { .. })));
        }
        assert!(matches!(
            Credential::generate(Algorithm::WebauthnP256),
            Err(CredentialFileError::Passkey)
        ));
    }

    #[cfg(unix)]
    #[test]
    fn key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        Credential::generate(Algorithm::Ed25519).unwrap().create(&path).unwrap();
        for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Credential::load(&path).is_ok(), fits, "{mode:o}");
        }
    }

    #[test]
    fn malformed_key_files_are_refused_and_their_secret_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let good = Credential::generate(Algorithm::Ed25519).unwrap();
        good.create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let secret = good.dangerous_secret_text().reveal().to_owned();
        let other = Credential::generate(Algorithm::Ed25519).unwrap();
        for (bad, wanted) in [
            (text.replace("credential/1", "credential/2"), "schema"),
            (text.replace(&good.id().to_string(), &other.id().to_string()), "id"),
            (text.replace(&hex_text(good.public.as_bytes()), "0x"), "public_key"),
            (text.replace(&secret, &secret[..60]), "secret"),
            (
                text.replace("\"algorithm\": \"ed25519\"", &format!("\"algorithm\": \"{secret}\"")),
                "line",
            ),
            ("{".to_owned(), "line"),
        ] {
            let path = folder
                .path()
                .join(format!("bad-{}", random::<4>().map(|b| b.to_string()).concat()));
            files::create_private(&path, bad.as_bytes()).unwrap();
            let error = Credential::load(&path).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
            assert!(!format!("{error} {error:?}").contains(&secret[2..60]), "{error:?}");
        }
        assert!(Credential::load(&folder.path().join("none")).is_err());
    }

    #[test]
    fn stamp_verifies_for_its_body_and_cluster_only() {
        let scope = Scope { genesis: GenesisId::new([1; 32]), incarnation: Incarnation(0) };
        let signer = Credential::generate(Algorithm::P256).unwrap();
        let now = UnixMillis(1_000_000);
        let made =
            stamp(&signer, scope, Method::CreateRequest, b"body", now, Millis(60_000)).unwrap();
        let verify = |genesis: u8, body: &[u8]| {
            let scope = StampScope {
                genesis: GenesisId::new([genesis; 32]),
                incarnation: Incarnation(0),
                method: Method::CreateRequest,
            };
            made.verify(&scope, signer.public_key(), body, now, Millis(0)).is_ok()
        };
        assert!(verify(1, b"body") && !verify(2, b"body") && !verify(1, b"other"));
    }
}
