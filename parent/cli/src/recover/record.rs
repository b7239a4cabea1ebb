//! What a governor has signed, so as never to sign twice.
//!
//! Two certificates that take up one incarnation are two clusters with the same keys. Since k is more than
//! half of m, two of them need a governor who serves both; a governor's record is what keeps an honest one from it.
//! The rules:
//!
//! - a certificate that is in the record may be served again: it is the same one;
//! - an incarnation that is not later than every one in the record is refused, whatever is said;
//! - a certificate that takes up an incarnation which one in the record has ended is refused while that one is
//!   good. Afterwards its governor must say by name that nothing began with it (`--abandon`);
//! - a record that is missing, cut short or changed refuses everything. One that was lost is begun anew with
//!   `--after N`, which refuses all incarnations up to N; the next recovery then takes a later number.
//!
//! The record is on the disk before anything that it allows is made. It is JSON with a checksum, which is
//! there against accidents: who can write the file can also write another.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use casemate_proto::cbor;
use casemate_proto::hash::tagged_hash;
use casemate_proto::recovery::RecoveryCertificate;
use casemate_proto::{CredentialId, GenesisId, Hash32, Incarnation, UnixMillis};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::files::{self, For};
use super::governor::GovernorArgs;
use super::key::must_be_private;
use super::{Pin, RecoverError};
use crate::online::out;

/// The schema of a record.
const SCHEMA: &str = "casemate.recoveries/1";
/// Most bytes of a record.
const MAX_FILE: usize = 1024 * 1024;
/// What `--abandon` says of certificates that stood in a record which was lost.
const LOST: &str = "lost";

#[derive(Debug, Subcommand)]
pub(crate) enum RecordCommand {
    /// Begin a governor's record; never in the place of another.
    New {
        #[command(flatten)]
        pin: Pin,
        #[command(flatten)]
        governor: GovernorArgs,
        /// Refuse all incarnations up to this one: for a record that was lost, one later than any that
        /// may have been signed for.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
        /// Where to put it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show what a record holds.
    Show {
        /// The record.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) fn run(command: &RecordCommand) -> Result<(), RecoverError> {
    let record = match command {
        RecordCommand::New { pin, governor, after, out } => {
            let genesis = pin.genesis()?;
            let governor = governor.load(pin)?.id();
            let record = Record::new(genesis, governor, Incarnation(*after));
            record.create(out)?;
            record
        }
        RecordCommand::Show { file } => Record::load(file)?,
    };
    let mut text = String::new();
    out::line(&mut text, "cluster", record.genesis);
    out::line(&mut text, "governor", CredentialId(record.governor));
    out::line(&mut text, "refuses", format_args!("incarnations up to {}", record.newest()));
    for served in &record.served {
        let Served { former, incarnation, certificate, expires, .. } = served;
        let expires = UnixMillis(*expires);
        let line = format_args!(
            "{former} → {incarnation}, certificate {certificate}, good until {expires}"
        );
        out::line(&mut text, "served", line);
    }
    Ok(out::text(&text)?)
}

/// What `--abandon` says: a certificate's id, or `lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abandoned {
    Certificate(Hash32),
    Lost,
}

pub(super) fn parse_abandoned(text: &str) -> Result<Abandoned, String> {
    if text == LOST {
        return Ok(Abandoned::Lost);
    }
    Hash32::from_hex(text)
        .map(Abandoned::Certificate)
        .map_err(|error| format!("a certificate's id, or `{LOST}`: {error}"))
}

/// Why a governor's record forbids something.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is none.
    #[error(
        "`{}` is missing: without a governor's record nothing is signed. If it was lost, begin another that refuses what may have been signed: `casemate recover record new --after NUMBER`",
        path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is not whole.
    #[error(
        "`{}` is not a whole record ({reason}): nothing is signed with it. Put it aside, and begin another that refuses what may have been signed: `casemate recover record new --after NUMBER`",
        path.display()
    )]
    Torn {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else uses it.
    #[error("`{}` is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is of another cluster.
    #[error("the record is of cluster {record}, and the certificate of {certificate}")]
    OtherCluster {
        /// The record's.
        record: GenesisId,
        /// The certificate's.
        certificate: GenesisId,
    },
    /// It is another governor's.
    #[error("the record is of governor {record}, and this is {governor}")]
    OtherGovernor {
        /// The record's.
        record: CredentialId,
        /// Who is to sign or release.
        governor: CredentialId,
    },
    /// The number was used.
    #[error(
        "refused for ever: this governor's record has incarnation {newest} already{}, and the certificate is for {wanted}. A second certificate would be a second cluster with the same keys",
        by.map_or_else(String::new, |by| format!(", by certificate {by}"))
    )]
    Used {
        /// The newest incarnation in the record.
        newest: Incarnation,
        /// By which certificate.
        by: Option<Hash32>,
        /// What was asked for.
        wanted: Incarnation,
    },
    /// An earlier certificate that takes up the same is still good.
    #[error(
        "certificate {earlier} ends incarnation {former} as well, and boots may begin with it until {expires}: nothing else is signed before"
    )]
    StillGood {
        /// The earlier one.
        earlier: Hash32,
        /// What both take up.
        former: Incarnation,
        /// Until when.
        expires: UnixMillis,
    },
    /// An earlier certificate that takes up the same may have been used.
    #[error(
        "{what} may have begun a cluster that goes on from incarnation {former} too. Make sure that no boot began with it and that none runs; then say so: `--abandon {name}`"
    )]
    NotAbandoned {
        /// The earlier one.
        what: String,
        /// What both take up.
        former: Incarnation,
        /// How `--abandon` names it.
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Served {
    certificate: Hash32,
    former: u64,
    incarnation: u64,
    /// Until when a boot may begin with it, in milliseconds.
    expires: u64,
    /// When it was first served, in milliseconds.
    at: u64,
}

/// A governor's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    genesis: GenesisId,
    governor: Hash32,
    after: u64,
    served: Vec<Served>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    schema: String,
    genesis: GenesisId,
    governor: Hash32,
    after: u64,
    served: Vec<Served>,
    check: Hash32,
}

impl Record {
    /// An empty record that refuses all incarnations up to `after`.
    #[must_use]
    pub const fn new(genesis: GenesisId, governor: CredentialId, after: Incarnation) -> Self {
        Self { genesis, governor: governor.0, after: after.0, served: Vec::new() }
    }

    /// Writes it where there is none.
    ///
    /// # Errors
    /// If there is one, or it cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), RecoverError> {
        files::create(path, &self.to_bytes()?, For::Owner)
    }

    fn check(&self) -> Hash32 {
        let Self { genesis, governor, after, served } = self;
        let served: Vec<_> = served
            .iter()
            .map(|one| (one.certificate, one.former, one.incarnation, one.expires, one.at))
            .collect();
        let content = cbor::encode(&(*genesis, *governor, *after, served));
        tagged_hash("casemate/recoveries/v1", &[&content])
    }

    fn to_bytes(&self) -> Result<Vec<u8>, RecoverError> {
        let Self { genesis, governor, after, served } = self.clone();
        let check = self.check();
        let wire = Wire { schema: SCHEMA.to_owned(), genesis, governor, after, served, check };
        let mut text =
            serde_json::to_string_pretty(&wire).map_err(crate::online::CliError::from)?;
        text.push('\n');
        Ok(text.into_bytes())
    }

    /// Reads a record that is whole.
    pub(super) fn load(path: &Path) -> Result<Self, RecoverError> {
        let bytes = files::read(path, MAX_FILE)?
            .ok_or_else(|| RecordError::Missing { path: path.to_owned() })?;
        must_be_private(path)?;
        let torn = |reason: String| RecordError::Torn { path: path.to_owned(), reason };
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|error| torn(error.to_string()))?;
        let Wire { schema, genesis, governor, after, served, check } = wire;
        if schema != SCHEMA {
            return Err(torn("it is of another schema".to_owned()).into());
        }
        let record = Self { genesis, governor, after, served };
        if record.check() != check {
            return Err(torn("its checksum is wrong".to_owned()).into());
        }
        Ok(record)
    }

    fn newest(&self) -> u64 {
        self.served.iter().map(|served| served.incarnation).chain([self.after]).max().unwrap_or(0)
    }

    /// Whether a certificate may be served; `None` where it is in the record already.
    fn admit(
        &self,
        governor: CredentialId,
        certificate: &RecoveryCertificate,
        abandoned: &[Abandoned],
        now: UnixMillis,
    ) -> Result<Option<Served>, RecordError> {
        let RecoveryCertificate { genesis, former, incarnation, expires, .. } = certificate;
        if self.genesis != *genesis {
            return Err(RecordError::OtherCluster { record: self.genesis, certificate: *genesis });
        }
        if self.governor != governor.0 {
            return Err(RecordError::OtherGovernor {
                record: CredentialId(self.governor),
                governor,
            });
        }
        let id = certificate.id();
        if self.served.iter().any(|served| served.certificate == id) {
            return Ok(None);
        }
        let newest = self.newest();
        if incarnation.0 <= newest {
            let by = self.served.iter().find(|served| served.incarnation == newest);
            return Err(RecordError::Used {
                newest: Incarnation(newest),
                by: by.map(|served| served.certificate),
                wanted: *incarnation,
            });
        }
        // what began after the incarnation that this one takes up goes on from it too
        if former.0 < self.after && !abandoned.contains(&Abandoned::Lost) {
            return Err(RecordError::NotAbandoned {
                what: "a certificate in the record that was lost".to_owned(),
                former: *former,
                name: LOST.to_owned(),
            });
        }
        for served in self.served.iter().filter(|served| former.0 < served.incarnation) {
            let earlier = served.certificate;
            if now.0 < served.expires {
                let expires = UnixMillis(served.expires);
                return Err(RecordError::StillGood { earlier, former: *former, expires });
            }
            if !abandoned.contains(&Abandoned::Certificate(earlier)) {
                return Err(RecordError::NotAbandoned {
                    what: format!("certificate {earlier}"),
                    former: *former,
                    name: earlier.to_string(),
                });
            }
        }
        Ok(Some(Served {
            certificate: id,
            former: former.0,
            incarnation: incarnation.0,
            expires: expires.0,
            at: now.0,
        }))
    }
}

/// Notes in a governor's record that it serves a certificate, if it may; the note is on the disk when this
/// returns.
pub(super) fn serve(
    path: &Path,
    governor: CredentialId,
    certificate: &RecoveryCertificate,
    abandoned: &[Abandoned],
    now: UnixMillis,
) -> Result<Serving, RecoverError> {
    // the record itself is replaced: who holds this file writes it
    let mut lock = path.file_name().unwrap_or_default().to_owned();
    lock.push(".lock");
    let lock = path.with_file_name(lock);
    // a record that is not there is said to be missing, and leaves no lock behind
    Record::load(path)?;
    let file = File::options().write(true).create(true).truncate(false).open(&lock);
    let write = |error| RecoverError::Write { path: lock.clone(), error };
    let held = file.map_err(write)?;
    match held.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(RecordError::InUse { path: path.to_owned() }.into());
        }
        Err(TryLockError::Error(error)) => return Err(write(error)),
    }
    let mut record = Record::load(path)?;
    let Some(served) = record.admit(governor, certificate, abandoned, now)? else {
        return Ok(Serving::Again);
    };
    record.served.push(served);
    files::replace(path, &record.to_bytes()?, For::Owner)?;
    Ok(Serving::First)
}

/// Whether a certificate is served for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    First,
    Again,
}

#[cfg(test)]
mod tests;
