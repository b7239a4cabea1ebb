//! The corpus of enclave images, as they are written now.
//! `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test eif_corpus` writes it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::path::{Path, PathBuf};

use casemate_eif::image::Image;
use casemate_eif::kernel::Kernel;
use casemate_eif::measure::Measurements;
use casemate_eif::{cpio, program};
use casemate_image::{Mode, ParentCid};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/vectors/eif").join(name)).unwrap()
}

/// Headers and nothing else.
fn elf() -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    for (at, value) in [(16, 3), (18, 62), (32, 64), (54, 56), (56, 2), (64, 1), (96, 120)] {
        file[at] = value;
    }
    // a table of relocations, as static-pie has one
    for (at, value) in [(120, 2), (128, 176), (152, 16)] {
        file[at] = value;
    }
    file.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file
}

fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 2 * 512 + 16];
    for (at, value) in
        [(0x1f1, 1), (0x1f4, 1), (0x1fe, 0x55), (0x1ff, 0xaa), (0x206, 0x0f), (0x207, 2)]
    {
        file[at] = value;
    }
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x20f] = 1;
    file[0x211] = 1;
    file[0x300..0x305].copy_from_slice(b"6.12 ");
    file
}

/// Target, file name, bytes.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use cpio::{Content, Entry};
    let signed = vector("signed.eif");
    let section = Image::parse(&signed).unwrap().signature.unwrap().to_vec();
    let boot = [
        Entry { name: "dev", mode: 0o555, content: Content::Directory },
        Entry { name: "dev/console", mode: 0o600, content: Content::Device(5, 1) },
        Entry { name: "init", mode: 0o500, content: Content::File(b"init") },
    ];
    vec![
        ("eif_image", "signed", signed),
        ("eif_image", "unsigned", vector("unsigned.eif")),
        ("eif_image", "single-ramdisk", vector("single-ramdisk.eif")),
        ("eif_ramdisk", "boot", cpio::write(&boot).unwrap()),
        ("eif_ramdisk", "empty", cpio::write(&[]).unwrap()),
        ("eif_signature", "signed", section),
        ("eif_program", "elf", elf()),
        ("eif_program", "bzimage", bzimage()),
        ("eif_setting", "cid", ParentCid::NITRO.to_file()),
        ("eif_setting", "nitro", Mode::Nitro.to_file()),
        ("eif_setting", "simulated", Mode::Simulated.to_file()),
    ]
}

#[test]
fn the_corpus_of_images_is_current() {
    for (target, name, bytes) in seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let file = folder.join(name);
        if std::env::var_os("CASEMATE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let found = std::fs::read(&file).unwrap_or_default();
        assert_eq!(hex::encode(found), hex::encode(bytes), "{}", file.display());
    }
}

/// A seed that its decoder refuses would leave most of the decoder untried.
#[test]
fn every_seed_of_an_image_is_taken() {
    for (target, name, bytes) in seeds() {
        let accepted = match (target, name) {
            ("eif_image", _) => {
                Image::parse(&bytes).is_ok_and(|image| Measurements::of(&image).is_ok())
            }
            ("eif_ramdisk", _) => cpio::read(&bytes).is_ok(),
            ("eif_program", "elf") => program::check(&bytes).is_ok(),
            ("eif_program", _) => Kernel::check(&bytes).is_ok(),
            ("eif_setting", "cid") => ParentCid::from_file(&bytes).is_ok(),
            ("eif_setting", _) => Mode::from_file(&bytes).is_ok(),
            // taken together with the image that it signs, above
            _ => !bytes.is_empty(),
        };
        assert!(accepted, "{target}/{name}");
    }
}
