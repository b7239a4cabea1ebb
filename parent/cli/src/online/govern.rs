//! What every governance change goes through: put together against the newest accepted one, signed by
//! a quorum, submitted, and seen to be applied.
//!
//! `casemate change` makes those that have no command of their own.
//!
//! Where not all governors' keys are at this machine, `--out` writes the change unsigned; each governor
//! signs it with `casemate policy sign`, and `casemate policy submit` hands it in.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_client::credential::sign_change;
use casemate_client::{Credential, Role};
use casemate_proto::governance::{Change, ChangeEnvelope, NamedSignature, SignedChange};
use casemate_proto::manifest::Measurement;
use casemate_proto::{CredentialId, Hash32, Millis, cbor};
use clap::{Args, Subcommand};

use super::progress::waiting;
use super::{CliError, ClusterArgs, DONE, Session, duration, out, parse_length};

/// The arguments of `casemate change`.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(subcommand)]
    command: ChangeCommand,
}

#[derive(Debug, Subcommand)]
enum ChangeCommand {
    /// Confirm that this genesis is the one that is meant: the first change of every cluster.
    ConfirmGenesis(Handing),
    /// Never accept a credential again.
    Revoke {
        /// Its id.
        #[arg(value_name = "CREDENTIAL", value_parser = super::approve::parse_credential)]
        credential: CredentialId,
        #[command(flatten)]
        handing: Handing,
    },
    /// Drop a change that waits.
    Withdraw {
        /// The change, as `casemate status` names it.
        #[arg(value_name = "CHANGE-ID", value_parser = Hash32::from_hex)]
        change: Hash32,
        #[command(flatten)]
        handing: Handing,
    },
    /// Accept another image, after the delay.
    AcceptImage {
        #[command(flatten)]
        image: ImageArgs,
        #[command(flatten)]
        handing: Handing,
    },
    /// Never accept an image again; no current boot may run it.
    RetireImage {
        #[command(flatten)]
        image: ImageArgs,
        #[command(flatten)]
        handing: Handing,
    },
}

#[derive(Debug, Args)]
struct Handing {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    govern: GovernArgs,
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// PCR0: the whole image.
    #[arg(long, value_name = "HEX", value_parser = parse_pcr)]
    pcr0: Pcr,
    /// PCR1: kernel and boot ramdisk.
    #[arg(long, value_name = "HEX", value_parser = parse_pcr)]
    pcr1: Pcr,
    /// PCR2: the application.
    #[arg(long, value_name = "HEX", value_parser = parse_pcr)]
    pcr2: Pcr,
}

#[derive(Clone, Copy, Debug)]
struct Pcr([u8; 48]);

fn parse_pcr(text: &str) -> Result<Pcr, String> {
    let mut pcr = [0; 48];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut pcr)
        .map_err(|_| "a PCR is 48 bytes of hex".to_owned())?;
    Ok(Pcr(pcr))
}

impl ImageArgs {
    const fn measurement(&self) -> Measurement {
        Measurement { pcr0: self.pcr0.0, pcr1: self.pcr1.0, pcr2: self.pcr2.0 }
    }
}

/// Runs `casemate change`.
pub(crate) fn run(args: ChangeArgs) -> ExitCode {
    let (change, handing) = match args.command {
        ChangeCommand::ConfirmGenesis(handing) => (Change::ConfirmGenesis, handing),
        ChangeCommand::Revoke { credential, handing } => {
            (Change::RevokeCredential { credential }, handing)
        }
        ChangeCommand::Withdraw { change, handing } => (Change::Withdraw { change }, handing),
        ChangeCommand::AcceptImage { image, handing } => {
            (Change::AcceptImage { measurement: image.measurement() }, handing)
        }
        ChangeCommand::RetireImage { image, handing } => {
            (Change::RetireImage { measurement: image.measurement() }, handing)
        }
    };
    super::run(false, async move {
        let session = handing.cluster.open()?;
        let name = change.name();
        if handing.govern.govern(&session, change).await? {
            let mut text = String::new();
            out::line(&mut text, "accepted", name);
            out::text(&text)?;
            out::note("`casemate status` says whether it waits")?;
        }
        Ok(DONE)
    })
}

/// How a change is signed and handed in.
#[derive(Debug, Args)]
pub(crate) struct GovernArgs {
    /// A governor's key file; once for each [default: those in the cluster file].
    #[arg(long, value_name = "FILE")]
    governor: Vec<PathBuf>,
    /// Write the change here, unsigned, and do nothing more: for governors elsewhere.
    #[arg(long, value_name = "FILE", conflicts_with = "governor")]
    out: Option<PathBuf>,
    /// Until when, from now, the change may be handed in.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "24h")]
    life: Millis,
    /// How long to wait until it is applied.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "60s")]
    timeout: Millis,
}

impl GovernArgs {
    /// How long to wait.
    pub(super) const fn timeout(&self) -> Millis {
        self.timeout
    }

    /// Makes the change true, or writes it; whether it was handed in.
    pub(super) async fn govern(&self, session: &Session, change: Change) -> Result<bool, CliError> {
        let client = &session.client;
        // keys first: a missing one is known before anything is asked
        let governors = match &self.out {
            Some(_) => Vec::new(),
            None => self.governors(session)?,
        };
        let envelope =
            waiting("asking the nodes for the newest change", client.envelope(change, self.life))
                .await?;
        if let Some(path) = &self.out {
            write_change(path, &envelope)?;
            return Ok(false);
        }
        let manifest = &client.genesis().await?.manifest;
        let quorum = usize::try_from(manifest.governance.quorum).unwrap_or(usize::MAX);
        let ours = governors.iter().filter(|key| manifest.governor(&key.id()).is_some());
        let signatures = ours
            .take(quorum)
            .map(|governor| sign_change(governor, &envelope))
            .collect::<Result<Vec<NamedSignature>, _>>()?;
        if signatures.len() < quorum {
            return Err(CliError::Usage(format!(
                "{} of the keys given are governors' of this cluster, and {quorum} must sign",
                signatures.len()
            )));
        }
        let signed = SignedChange { envelope, signatures };
        let what = format!("submitting {}", signed.envelope.change.name());
        waiting(&what, client.submit_change(&signed, None, duration(self.timeout))).await?;
        Ok(true)
    }

    fn governors(&self, session: &Session) -> Result<Vec<Credential>, CliError> {
        if !self.governor.is_empty() {
            return self.governor.iter().map(|path| Ok(Credential::load(path)?)).collect();
        }
        let found = match &session.file {
            Some(file) => file.credentials_as(Role::Governor)?,
            None => Vec::new(),
        };
        if found.is_empty() {
            return Err(CliError::Usage(
                "no governor's key is at hand: give `--governor FILE` for each, or `--out FILE` to have it signed elsewhere"
                    .to_owned(),
            ));
        }
        Ok(found)
    }
}

/// Writes a change, to be signed.
pub(super) fn write_change(path: &Path, envelope: &ChangeEnvelope) -> Result<(), CliError> {
    std::fs::write(path, cbor::encode(envelope))
        .map_err(|error| CliError::Write { path: path.to_owned(), error })?;
    let mut text = String::new();
    describe(&mut text, envelope);
    out::line(&mut text, "written", path.display());
    out::text(&text)
}

/// What a change is, for whoever is to sign it.
pub(super) fn describe(text: &mut String, envelope: &ChangeEnvelope) {
    out::line(text, "change", envelope.id());
    out::line(text, "cluster", envelope.genesis);
    out::line(text, "incarnation", envelope.incarnation);
    out::line(text, "follows", envelope.predecessor);
    out::line(text, "expires", envelope.expires);
    let what = match &envelope.change {
        Change::ConfirmGenesis => "confirms that this genesis is the one that is meant".to_owned(),
        Change::SetPolicy { policy } => format!("sets policy {policy}"),
        Change::CreateKey { name, scheme } => format!("makes key `{name}`, {}", scheme.name()),
        Change::Unfreeze { freeze } => format!("LIFTS freeze {freeze}"),
        Change::RevokeCredential { credential } => {
            format!("revokes credential {credential} for ever")
        }
        Change::AcceptImage { measurement } => {
            format!("ACCEPTS image with PCR0 {}", hex::encode(measurement.pcr0))
        }
        Change::RetireImage { measurement } => {
            format!("retires image with PCR0 {} for ever", hex::encode(measurement.pcr0))
        }
        Change::Withdraw { change } => format!("drops pending change {change}"),
    };
    out::line(text, "what", what);
}
