//! Which governor acts: its credential.

use std::path::PathBuf;

use casemate_client::{Credential, Role};
use clap::Args;

use super::{Pin, RecoverError};
use crate::online::credential;

/// A governor's credential.
#[derive(Clone, Debug, Args)]
pub(crate) struct GovernorArgs {
    /// The governor's key file.
    #[arg(long, value_name = "FILE", required_unless_present = "principal")]
    key: Option<PathBuf>,
    /// The governor: a name in the cluster file, for development.
    #[arg(long = "as", value_name = "PRINCIPAL", conflicts_with = "key")]
    principal: Option<String>,
}

impl GovernorArgs {
    pub(super) fn load(&self, pin: &Pin) -> Result<Credential, RecoverError> {
        let file = match self.key {
            Some(_) => None,
            None => pin.file()?,
        };
        let (key, principal) = (self.key.as_deref(), self.principal.as_deref());
        Ok(credential(file.as_ref(), key, principal, Role::Governor)?)
    }
}
