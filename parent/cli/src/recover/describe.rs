//! What a bundle is, for people: before they draw it up, sign it, or start it.

use std::path::PathBuf;

use casemate_proto::manifest::Measurement;
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

/// The first image that a certificate accepts and the manifest does not name.
///
/// The manifest is pinned by the genesis id; what was accepted since is in the ledger, and who has not
/// looked at that has only the bundle's word for it.
pub(super) fn unnamed_image<'a>(
    accepted: &'a [Measurement],
    named: &[Measurement],
) -> Option<&'a Measurement> {
    accepted.iter().find(|image| !named.contains(image))
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
    for image in &certificate.images {
        // every enclave of these images could be given the shares: whoever signs must know them
        let is_named = bundle.manifest().measurements.contains(image);
        let (name, since) = if is_named {
            ("image", "named by the manifest")
        } else {
            ("OTHER IMAGE", "not in the manifest: accepted since, if this ledger is the cluster's")
        };
        let [pcr0, pcr1, pcr2] = [&image.pcr0, &image.pcr1, &image.pcr2].map(hex::encode);
        out::line(text, name, format_args!("{since}\n{:13}PCR0 {pcr0}", ""));
        out::line(text, "", format_args!("PCR1 {pcr1}\n{:13}PCR2 {pcr2}", ""));
    }
    out::line(text, "revoked", format_args!("{} credentials", certificate.revoked.len()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_that_only_a_ledger_could_show_to_be_accepted_is_found() {
        let image = |byte| Measurement { pcr0: [byte; 48], pcr1: [1; 48], pcr2: [1; 48] };
        let named = [image(1), image(2)];
        assert_eq!(unnamed_image(&named[..1], &named), None);
        assert_eq!(unnamed_image(&named, &named), None);
        assert_eq!(unnamed_image(&[image(1), image(3)], &named), Some(&image(3)));
        let other = Measurement { pcr2: [9; 48], ..image(1) };
        assert_eq!(unnamed_image(std::slice::from_ref(&other), &named), Some(&other));
    }
}
