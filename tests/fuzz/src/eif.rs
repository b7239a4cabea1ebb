//! Enclave images and what is in them: files of anybody, which auditors measure and inspect.

use casemate_attestation_verify::Pcr;
use casemate_eif::image::{HEADER_BYTES, Image, crc};
use casemate_eif::kernel::Kernel;
use casemate_eif::measure::Measurements;
use casemate_eif::signature::Signed;
use casemate_eif::{cpio, program};
use casemate_image::{Mode, ParentCid};

use crate::Target;

/// The targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "eif_image", run: eif_image },
    Target { name: "eif_ramdisk", run: eif_ramdisk },
    Target { name: "eif_signature", run: eif_signature },
    Target { name: "eif_program", run: eif_program },
    Target { name: "eif_setting", run: eif_setting },
];

/// PCR0 of `tests/vectors/eif/signed.eif`, so that a mutation can get as far as its signature.
const SIGNED_PCR0: &str = "5c9e2cdcb411f17024b47f0bb4a1f5c1503677c212e7fd9fecb3f411ea6670573de3f4026d8532730714ff483cab0e8b";

/// Whatever is taken is what would be written: no two readers can differ over it.
fn eif_image(data: &[u8]) {
    let mut file = data.to_vec();
    // a file with its CRC set right gets past it
    let crc = crc(data).to_be_bytes();
    let field = file.iter_mut().skip(HEADER_BYTES.saturating_sub(crc.len()));
    field.zip(crc).for_each(|(byte, of_crc)| *byte = of_crc);
    for file in [data, &file] {
        if let Ok(image) = Image::parse(file) {
            assert_eq!(image.encode().as_deref(), Ok(file));
            let _ = Measurements::of(&image);
        }
    }
}

fn eif_ramdisk(data: &[u8]) {
    if let Ok(entries) = cpio::read(data) {
        assert_eq!(cpio::write(&entries).as_deref(), Ok(data));
    }
}

fn eif_signature(data: &[u8]) {
    let mut pcr0 = [0; 48];
    let digits = SIGNED_PCR0.as_bytes().chunks(2);
    for (byte, digits) in pcr0.iter_mut().zip(digits) {
        let text = core::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    let _ = Signed::verify(data, &Pcr::new(pcr0));
}

fn eif_program(data: &[u8]) {
    let _ = program::check(data);
    let _ = Kernel::check(data);
}

fn eif_setting(data: &[u8]) {
    if let Ok(cid) = ParentCid::from_file(data) {
        assert_eq!(cid.to_file(), data);
    }
    if let Ok(mode) = Mode::from_file(data) {
        assert_eq!(mode.to_file(), data);
    }
}
