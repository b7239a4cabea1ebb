//! What a bundle is, for people: before they draw it up, sign it, or start it.

use std::path::PathBuf;

use casemate_proto::recovery::RecoveryCertificate;
use clap::Args;

use super::boots::holders_left;
use super::bundle::Bundle;
use super::{Pin, RecoverError, now};
use crate::online::out;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pin: Pin,
    /// The bundle.
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
}

/// Runs `casemate recover show`.
pub(super) fn run(args: &ShowArgs) -> Result<(), RecoverError> {
    let bundle = Bundle::load(&args.bundle, args.pin.genesis()?, now()?)?;
    let mut text = String::new();
    describe(&mut text, &bundle);
    let need = bundle.manifest().governance.quorum;
    let signatures = bundle.signatures()?;
    for signature in &signatures {
        out::line(&mut text, "signed by", signature.credential);
    }
    let have = u64::try_from(signatures.len()).unwrap_or(u64::MAX);
    if have < need {
        out::line(&mut text, "TO SIGN", format_args!("{have} of {need} governors have signed"));
    }
    Ok(out::text(&text)?)
}

/// What the certificate of a checked bundle says and does.
pub(super) fn describe(text: &mut String, bundle: &Bundle) {
    let (certificate, state) = (&bundle.certificate, &bundle.state);
    let RecoveryCertificate { genesis, former, incarnation, at, expires, ledger, .. } = certificate;
    out::line(text, "certificate", certificate.id());
    out::line(text, "cluster", genesis);
    out::line(
        text,
        "takes up",
        format_args!(
            "incarnation {former}: {} entries, the last of {}, root {}",
            ledger.size,
            state.time(),
            ledger.root
        ),
    );
    out::line(
        text,
        "begins",
        format_args!("incarnation {incarnation}, FROZEN; {former} is over for ever"),
    );
    match &certificate.policy {
        Some(policy) => out::line(text, "policy", policy),
        None => out::line(text, "policy", "none"),
    }
    let revoked = certificate.revoked.len();
    out::line(
        text,
        "images",
        format_args!("{} accepted; {revoked} credentials revoked", certificate.images.len()),
    );
    out::line(text, "drawn up", at);
    out::line(
        text,
        "good until",
        format_args!("{expires}; every window is full until it lies behind that"),
    );
    for boot in &certificate.boots {
        let record = &boot.offer.record;
        let (node, id) = (&record.node, record.id());
        match bundle.blobs.get(node) {
            Some(blob) => {
                let (shares, size) = (blob.header.keys.len(), blob.header.size);
                let hash = blob.hash();
                out::line(
                    text,
                    "boot",
                    format_args!(
                        "{node}: {id}, opens blob {hash} ({shares} shares, sealed at {size} entries)"
                    ),
                );
            }
            None => out::line(
                text,
                "boot",
                format_args!("{node}: {id}, WITHOUT A BLOB: the others give it its shares"),
            ),
        }
    }
    let need = bundle.manifest().threshold;
    for (key, have) in holders_left(state, bundle.blobs.keys()) {
        let enough = u64::try_from(have).unwrap_or(u64::MAX) >= need;
        let (name, what) = if enough { ("key", "") } else { ("KEY LOST", ": too few") };
        out::line(text, name, format_args!("{key}: {have} shares, {need} sign{what}"));
    }
}
