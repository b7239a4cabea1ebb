//! The corpus of a recovery: a blob, the certificate that names it, a release.
//! `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test recovery_corpus` writes it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::arithmetic_side_effects, clippy::expect_used)]

#[path = "../../../enclave/seal/tests/kit/mod.rs"]
mod kit;

use std::fs;
use std::path::Path;

use casemate_proto::cbor;
use casemate_proto::governance::NamedSignature;
use casemate_proto::recovery::SignedCertificate;
use ed25519_dalek::Signer as _;
use kit::{Kit, share};

#[test]
fn corpus_is_what_is_encoded_now() {
    let mut kit = Kit::new();
    let blobs =
        [0, 1].map(|node| kit.seal(node, vec![share("hot", 4, 60, 40), share("cold", 0, 9, 33)]));
    let certificate = kit.certificate(&[Some(&blobs[0]), Some(&blobs[1]), None]);
    let granted = kit.grant(certificate.clone());
    let release = kit.releases(&granted, &blobs[0], &[0]).remove(0);
    let message = certificate.signing_bytes();
    let signatures = kit
        .governors
        .iter()
        .zip(&kit.genesis.manifest.governance.keys)
        .map(|((key, _), public)| NamedSignature {
            credential: public.id(),
            signature: key.sign(&message).to_bytes(),
        })
        .collect();
    let signed = SignedCertificate { certificate, signatures };
    for (target, bytes) in [
        ("sealed_blob", blobs[0].encode()),
        ("recovery_certificate", cbor::encode(&signed)),
        ("recovery_release", cbor::encode(&release)),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let file = folder.join("one.cbor");
        if std::env::var_os("CASEMATE_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), bytes, "{target}");
    }
}
