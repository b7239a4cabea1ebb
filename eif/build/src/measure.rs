//! What an image measures to.
//!
//! PCRn = SHA384(0^48 ‖ SHA384(content)). PCR0 is over the kernel, its command line and all ramdisks,
//! PCR1 over kernel, command line and first ramdisk, PCR2 over the other ramdisks, PCR8 over the
//! certificate of the signature. The header and the metadata are in none of them.

use casemate_attestation_verify::{Measurement, PCR_BYTES, Pcr};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha384};

use crate::image::Image;
use crate::signature::{SignatureError, Signed};

/// The PCRs that follow from an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurements {
    /// PCR0, PCR1 and PCR2.
    pub image: Measurement,
    /// PCR8, where the image is signed.
    pub signer: Option<Pcr>,
}

impl Measurements {
    /// Measures an image; a signature must be good.
    ///
    /// # Errors
    /// If the image has a signature that is none over its PCR0.
    pub fn of(image: &Image<'_>) -> Result<Self, SignatureError> {
        let measured = measure(image.kernel, image.cmdline, &image.ramdisks);
        let signed = image.signature.map(|section| Signed::verify(section, &measured.pcr0));
        let signed = signed.transpose()?;
        let signer = signed.map(|signed| Pcr::of_signing_certificate(signed.certificate().der()));
        Ok(Self { image: measured, signer })
    }

    /// As `measurements.json` has it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("HashAlgorithm".to_owned(), "SHA384".into());
        for (name, pcr) in self.named() {
            object.insert(name.to_owned(), pcr.to_string().into());
        }
        Value::Object(object)
    }

    /// Each PCR with its name, in order.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Pcr)> {
        let Measurement { pcr0, pcr1, pcr2 } = self.image;
        let signer = self.signer.map(|pcr8| ("PCR8", pcr8));
        [("PCR0", pcr0), ("PCR1", pcr1), ("PCR2", pcr2)].into_iter().chain(signer)
    }
}

/// PCR0, PCR1 and PCR2 of an image of these parts.
#[must_use]
pub fn measure(kernel: &[u8], cmdline: &str, ramdisks: &[&[u8]]) -> Measurement {
    let boot = Sha384::new().chain_update(kernel).chain_update(cmdline);
    let mut measured = [boot.clone(), boot, Sha384::new()];
    let [whole, first, others] = &mut measured;
    for (index, ramdisk) in ramdisks.iter().enumerate() {
        whole.update(ramdisk);
        if index == 0 { &mut *first } else { &mut *others }.update(ramdisk);
    }
    let [pcr0, pcr1, pcr2] = measured.map(|hash| {
        let extended = Sha384::new().chain_update([0; PCR_BYTES]).chain_update(hash.finalize());
        Pcr::new(extended.finalize().into())
    });
    Measurement { pcr0, pcr1, pcr2 }
}
