//! `casemate recover release`: a governor's part of each blob, encrypted to the boot that is to open it.

use std::path::PathBuf;

use casemate_proto::cbor;
use casemate_proto::recovery::RecoveryError;
use casemate_recovery::{Release, ReleaseError};
use clap::Args;
use rand_core::OsRng;

use super::bundle::Bundle;
use super::describe::describe;
use super::files::{self, For};
use super::key::RecoveryKey;
use super::record::{Abandoned, parse_abandoned, serve};
use super::{Pin, RecoverError, now};
use crate::online::out;

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pin: Pin,
    /// The governor's recovery key.
    #[arg(long, value_name = "FILE")]
    recovery_key: PathBuf,
    /// The governor's record of what it has signed.
    #[arg(long, value_name = "FILE")]
    record: PathBuf,
    /// The bundle, with the signatures of a quorum.
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// As in `sign`, for a governor who did not sign.
    #[arg(long, value_name = "ID", value_parser = parse_abandoned)]
    abandon: Vec<Abandoned>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs `casemate recover release`.
pub(super) fn run(args: &ReleaseArgs) -> Result<(), RecoverError> {
    let pin = args.pin.genesis()?;
    let key = RecoveryKey::load(&args.recovery_key)?;
    let at = now()?;
    let bundle = Bundle::load(&args.bundle, pin, at)?;
    let manifest = bundle.manifest();
    let keys = manifest.recovery.as_ref().ok_or(RecoveryError::NoRecovery)?;
    let place = keys.keys.iter().position(|governor| *governor == key.public());
    let place = place.ok_or(ReleaseError::NotAGovernor)?;
    let governor = manifest.governance.keys.get(place).ok_or(ReleaseError::NotAGovernor)?.id();
    if bundle.certificate.revoked.contains(&governor) {
        return Err(RecoveryError::Revoked { credential: governor }.into());
    }
    let granted = bundle.granted(at)?;
    let mut text = String::new();
    describe(&mut text, &bundle);
    for signature in &granted.signed().signatures {
        out::line(&mut text, "signed by", signature.credential);
    }
    out::line(&mut text, "releasing as", governor);
    out::text(&text)?;
    if !args.yes {
        out::confirm("Release to exactly these boots?")?;
    }
    // a second certificate that others signed is refused here as well
    serve(&args.record, governor, &bundle.certificate, &args.abandon, now()?)?;
    let mut releases = Vec::new();
    for (node, blob) in &bundle.blobs {
        let release = Release::make(&granted, manifest, blob, key.secret(), &mut OsRng)?;
        releases.push((bundle.releases(node), release));
    }
    let mut text = String::new();
    for (folder, release) in releases {
        files::make_folder(&folder)?;
        let path = folder.join(format!("{place:02}.cbor"));
        files::replace(&path, &cbor::encode(&release), For::All)?;
        out::line(&mut text, "written", path.display());
    }
    Ok(out::text(&text)?)
}
