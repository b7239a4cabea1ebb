//! `casemate recover sign`: a governor checks a certificate, notes it, and signs it.

use std::path::PathBuf;

use casemate_client::Sign as _;
use casemate_proto::governance::NamedSignature;
use casemate_proto::recovery::RecoveryError;
use clap::Args;

use super::bundle::Bundle;
use super::describe::{describe, unnamed_image};
use super::governor::GovernorArgs;
use super::ledger::newest;
use super::record::{Abandoned, Serving, parse_abandoned, serve};
use super::{Pin, RecoverError, now};
use crate::online::out;

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    pin: Pin,
    #[command(flatten)]
    governor: GovernorArgs,
    /// The governor's record of what it has signed.
    #[arg(long, value_name = "FILE")]
    record: PathBuf,
    /// The bundle.
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// A store of one's own, or a copy that one trusts to be the newest: its newest sound ledger must be the
    /// certificate's. Once for each.
    #[arg(long = "store", value_name = "DIR", required_unless_present = "without_store")]
    stores: Vec<PathBuf>,
    /// Sign without having looked whether this is the newest ledger, or one of this cluster at all. Refused
    /// where an image would be believed that the manifest does not name.
    #[arg(long, conflicts_with = "stores")]
    without_store: bool,
    /// Say that nothing began with an earlier certificate that this one contradicts: its id, or `lost`
    /// for those in a record that was lost.
    #[arg(long, value_name = "ID", value_parser = parse_abandoned)]
    abandon: Vec<Abandoned>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs `casemate recover sign`.
pub(super) fn run(args: &SignArgs) -> Result<(), RecoverError> {
    let pin = args.pin.genesis()?;
    let governor = args.governor.load(&args.pin)?;
    let bundle = Bundle::load(&args.bundle, pin, now()?)?;
    let id = governor.id();
    if bundle.manifest().governor(&id).is_none() {
        return Err(RecoverError::NotAGovernor { credential: id });
    }
    if bundle.certificate.revoked.contains(&id) {
        return Err(RecoveryError::Revoked { credential: id }.into());
    }
    let unnamed = unnamed_image(&bundle.certificate.images, &bundle.manifest().measurements);
    if let Some(image) = unnamed.filter(|_| args.without_store) {
        return Err(RecoverError::UnnamedImage { pcr0: hex::encode(image.pcr0) });
    }
    let mut text = String::new();
    describe(&mut text, &bundle);
    if args.without_store {
        out::line(&mut text, "NOT CHECKED", "whether this is the cluster's newest ledger");
    } else {
        let found = newest(pin, &args.stores, false)?;
        let (named, name) = (bundle.certificate.ledger, found.taken.name());
        if named != name {
            return Err(RecoverError::OtherLedger {
                path: found.store,
                named: Box::new(named),
                found: Box::new(name),
            });
        }
        let store = found.store.display();
        out::line(&mut text, "checked", format_args!("it is the newest ledger of `{store}`"));
    }
    out::line(&mut text, "signing as", id);
    out::text(&text)?;
    if !args.yes {
        out::confirm("Sign exactly this, and never another one for this incarnation?")?;
    }
    // on the disk before there is a signature
    let serving = serve(&args.record, id, &bundle.certificate, &args.abandon, now()?)?;
    let signature = governor.sign(&bundle.certificate.signing_bytes())?;
    let path = bundle.add_signature(&NamedSignature { credential: id, signature })?;
    let mut text = String::new();
    if serving == Serving::Again {
        out::line(&mut text, "again", "this certificate is in the record already");
    }
    out::line(&mut text, "written", path.display());
    Ok(out::text(&text)?)
}
