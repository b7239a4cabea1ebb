//! Against images that AWS's own library made (`tests/vectors/eif/vectors.json`).

use casemate_eif::image::{Image, Kind};
use casemate_eif::measure::Measurements;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::kit::vector;

const IMAGES: [&str; 3] = ["unsigned.eif", "signed.eif", "single-ramdisk.eif"];

fn vectors() -> Value {
    serde_json::from_slice(&vector("vectors.json")).unwrap()
}

#[test]
fn pcrs_of_images_that_awss_library_made_are_those_that_it_gave() {
    let vectors = vectors();
    let mut compared = 0;
    for name in IMAGES {
        let file = vector(name);
        let stated = &vectors["eif"][name];
        assert_eq!(hex::encode(Sha256::digest(&file)), stated["sha256"].as_str().unwrap());
        let measured = Measurements::of(&Image::parse(&file).unwrap()).unwrap();
        let stated = stated["pcrs"].as_object().unwrap();
        for (pcr, value) in measured.named() {
            assert_eq!(value.to_string(), stated[pcr].as_str().unwrap(), "{name} {pcr}");
            compared += 1;
        }
        assert_eq!(measured.named().count(), stated.len() - 1, "{name}");
    }
    assert_eq!(compared, 10);
}

#[test]
fn image_of_the_same_parts_is_awss_to_the_byte() {
    for name in IMAGES {
        let file = vector(name);
        let (kernel, rd0, rd1) = (vector("kernel.bin"), vector("rd0.cpio"), vector("rd1.cpio"));
        let cmdline = String::from_utf8(vector("cmdline.txt")).unwrap();
        let theirs = Image::parse(&file).unwrap();
        let ramdisks = [&rd0[..], &rd1[..]][..theirs.ramdisks.len()].to_vec();
        let ours = Image {
            signature: theirs.signature,
            ..Image::new(&kernel, &cmdline, theirs.metadata, ramdisks)
        };
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(ours.encode().unwrap(), file, "{name}");
    }
}

#[test]
fn published_pcr2_of_images_with_one_ramdisk_is_ours() {
    let published = vectors()["published"][2]["pcr2"].as_str().unwrap().to_owned();
    let measured = Measurements::of(&Image::parse(&vector("single-ramdisk.eif")).unwrap()).unwrap();
    assert_eq!(measured.image.pcr2.to_string(), published);
    assert_eq!(measured.image.pcr0, measured.image.pcr1);
}

#[test]
fn sections_are_shown_in_the_order_of_the_file() {
    let file = vector("signed.eif");
    let image = Image::parse(&file).unwrap();
    let sections = image.sections();
    let kinds: Vec<Kind> = sections.iter().map(|section| section.kind).collect();
    use Kind::{Cmdline, Kernel, Metadata, Ramdisk, Signature};
    assert_eq!(kinds, [Kernel, Cmdline, Metadata, Ramdisk, Ramdisk, Signature]);
    for section in sections {
        let at = usize::try_from(section.offset).unwrap() + 12;
        assert_eq!(&file[at..at + section.bytes.len()], section.bytes);
    }
}
