//! Signed images: AWS's and ours, and signatures that are none.

use casemate_attestation_verify::Pcr;
use casemate_eif::image::Image;
use casemate_eif::measure::Measurements;
use casemate_eif::signature::{SignatureError, Signed, Signer};
use sha2::{Digest as _, Sha384};

use crate::kit::{built, signer, vector};

/// Where a byte string begins that stands in the section as an array of numbers.
fn place(section: &[u8], bytes: &[u8]) -> usize {
    let encoded: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| if *byte < 24 { vec![*byte] } else { vec![0x18, *byte] })
        .collect();
    section.windows(encoded.len()).position(|window| window == encoded).unwrap()
}

fn aws_section() -> (Vec<u8>, Pcr) {
    let file = vector("signed.eif");
    let image = Image::parse(&file).unwrap();
    let pcr0 = Measurements::of(&image).unwrap().image.pcr0;
    (image.signature.unwrap().to_vec(), pcr0)
}

#[test]
fn signature_that_awss_library_made_verifies() {
    let (section, pcr0) = aws_section();
    let signed = Signed::verify(&section, &pcr0).unwrap();
    let (_, der) =
        der::pem::decode_vec(&vector("cert.pem")).map(|(l, d)| (l.to_owned(), d)).unwrap();
    assert_eq!(signed.certificate().der(), der);
}

#[test]
fn our_section_has_awss_form() {
    let (section, pcr0) = aws_section();
    let ours = signer().sign(&pcr0).unwrap();
    let names = |section: &[u8]| (section[..23].to_vec(), section.len() > 1_000);
    assert_eq!(names(&ours), names(&section));
    // protected header, no unprotected one, and the payload's beginning are in both alike
    let start =
        b"\x84\x44\xa1\x01\x38\x22\xa0\x58\x7a\xa2\x6eregister_index\x00\x6eregister_value\x98\x30";
    place(&section, start);
    place(&ours, start);
}

#[test]
fn image_that_is_signed_has_the_pcrs_of_the_unsigned_one_and_pcr8() {
    let signer = signer();
    let unsigned = built(|_| {});
    let signed = built(|inputs| inputs.signer = Some(&signer));
    assert_eq!(signed.measurements.image, unsigned.measurements.image);
    assert_eq!(unsigned.measurements.signer, None);
    let mut expected = Sha384::new();
    expected.update([0; 48]);
    expected.update(Sha384::digest(signer.certificate().der()));
    let pcr8 = Pcr::new(expected.finalize().into());
    assert_eq!(signed.measurements.signer, Some(pcr8));
}

#[test]
fn key_as_sec1_signs_the_same() {
    let sec1 = Signer::from_pem(&vector("signer/cert.pem"), &vector("signer/sec1.pem")).unwrap();
    let pcr0 = Pcr::new([7; 48]);
    assert_eq!(sec1.sign(&pcr0), signer().sign(&pcr0));
}

#[test]
fn signature_over_another_image_is_refused() {
    let (section, _) = aws_section();
    let error = Signed::verify(&section, &Pcr::new([7; 48])).unwrap_err();
    assert_eq!(error, SignatureError::Payload);
    let file = vector("signed.eif");
    let mut moved = Image::parse(&file).unwrap();
    moved.cmdline = "another";
    assert_eq!(Measurements::of(&moved), Err(SignatureError::Payload));
}

#[test]
fn signature_under_another_certificate_is_refused() {
    let (section, pcr0) = aws_section();
    let at = place(&section, &vector("cert.pem"));
    let ours = signer().sign(&pcr0).unwrap();
    let own = place(&ours, &vector("signer/cert.pem"));
    // theirs up to the certificate, ours with its length from there to its end, theirs behind it
    let theirs_end = section.windows(9).rposition(|window| window == b"signature").unwrap() - 1;
    let ours_end = ours.windows(9).rposition(|window| window == b"signature").unwrap() - 1;
    let mixed = [&section[..at - 3], &ours[own - 3..ours_end], &section[theirs_end..]].concat();
    assert_eq!(Signed::verify(&mixed, &pcr0).unwrap_err(), SignatureError::Wrong);
}

#[test]
fn changed_signature_is_refused() {
    let pcr0 = Pcr::new([7; 48]);
    let section = signer().sign(&pcr0).unwrap();
    assert!(Signed::verify(&section, &pcr0).is_ok());
    for back in 1..=90 {
        let mut changed = section.clone();
        let at = changed.len() - back;
        changed[at] ^= 1;
        assert!(Signed::verify(&changed, &pcr0).is_err(), "{back} from the end");
    }
}

#[test]
fn section_in_another_form_is_refused() {
    let pcr0 = Pcr::new([7; 48]);
    let section = signer().sign(&pcr0).unwrap();
    let refused = |section: &[u8]| Signed::verify(section, &pcr0).unwrap_err();
    for end in 0..section.len() {
        assert_eq!(refused(&section[..end]), SignatureError::Section, "{end}");
    }
    // a second signature, a length in more bytes than it needs, and a byte behind the end
    assert_eq!(refused(&[b"\x82", &section[1..], &section[1..]].concat()), SignatureError::Section);
    assert_eq!(refused(&[b"\x98\x01", &section[1..]].concat()), SignatureError::Section);
    assert_eq!(refused(&[&section[..], b"\0"].concat()), SignatureError::Section);
    assert_eq!(refused(&vec![0x81; 64 * 1_024 + 1]), SignatureError::Section);
}

#[test]
fn key_that_is_not_the_certificates_is_refused() {
    let (cert, key) = (vector("signer/cert.pem"), vector("signer/key.pem"));
    let refused = |cert: &[u8], key: &[u8]| Signer::from_pem(cert, key).unwrap_err();
    assert_eq!(refused(&cert, &vector("signer/other-key.pem")), SignatureError::OtherKey);
    assert_eq!(refused(&vector("cert.pem"), &key), SignatureError::OtherKey);
}

#[test]
fn certificate_or_key_that_is_none_is_refused() {
    let (cert, key) = (vector("signer/cert.pem"), vector("signer/key.pem"));
    let refused = |cert: &[u8], key: &[u8]| Signer::from_pem(cert, key).unwrap_err();
    assert_eq!(refused(&key, &key), SignatureError::CertificatePem);
    assert_eq!(refused(b"", &key), SignatureError::CertificatePem);
    assert_eq!(refused(&cert[..cert.len() / 2], &key), SignatureError::CertificatePem);
    assert_eq!(refused(&[&cert[..], &cert].concat(), &key), SignatureError::CertificatePem);
    assert_eq!(refused(&vector("signer/p256-cert.pem"), &key), SignatureError::Certificate);
    assert_eq!(refused(&cert, &cert), SignatureError::Key);
    assert_eq!(refused(&cert, b"\xff"), SignatureError::Key);
    assert_eq!(refused(&cert, &vector("signer/p256-key.pem")), SignatureError::Key);
}

#[test]
fn signing_key_is_not_printed() {
    assert!(format!("{:?}", signer()).contains("key: \"<redacted>\""));
}
