//! The rules for extensions and path lengths, each broken alone in an otherwise good document.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_attestation_verify::ExtensionFault;
use casemate_sim::{
    KeyUsageBits, SimKey,
    x509_cert::{der::asn1::ObjectIdentifier, ext::pkix::KeyUsages},
};
use common::{
    chain::{INSTANCE, LEAF, REGIONAL, ZONAL, assert_broken, assert_fault},
    forge::Forge,
};

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
const PRIVATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.99999.1");

#[test]
fn basic_constraints_must_be_critical() {
    for index in 1..=LEAF {
        assert_broken(index, ExtensionFault::BasicConstraintsNotCritical, |certificate| {
            certificate.set_basic_constraints(false, index != LEAF, None).unwrap();
        });
    }
}

#[test]
fn basic_constraints_must_be_there() {
    for index in 1..=LEAF {
        assert_broken(index, ExtensionFault::BasicConstraintsMissing, |certificate| {
            certificate.remove_extension(BASIC_CONSTRAINTS);
        });
    }
}

#[test]
fn no_extensions_at_all_are_refused() {
    assert_broken(LEAF, ExtensionFault::BasicConstraintsMissing, |certificate| {
        certificate.tbs.extensions = None;
    });
}

#[test]
fn every_certificate_of_the_bundle_must_be_an_authority() {
    for index in 1..LEAF {
        assert_broken(index, ExtensionFault::NotAuthority, |certificate| {
            certificate.set_basic_constraints(true, false, None).unwrap();
        });
    }
}

#[test]
fn an_authority_must_be_allowed_to_sign_certificates() {
    for index in 1..LEAF {
        assert_broken(index, ExtensionFault::AuthorityMayNotSignCertificates, |certificate| {
            certificate.set_key_usage(true, KeyUsages::DigitalSignature).unwrap();
        });
    }
}

#[test]
fn a_leaf_that_is_an_authority_is_refused() {
    assert_broken(LEAF, ExtensionFault::LeafIsAuthority, |certificate| {
        certificate.set_basic_constraints(true, true, None).unwrap();
    });
}

#[test]
fn a_leaf_must_be_allowed_to_sign_and_not_to_sign_certificates() {
    assert_broken(LEAF, ExtensionFault::LeafMayNotSign, |certificate| {
        certificate.set_key_usage(false, KeyUsages::NonRepudiation).unwrap();
    });
    assert_broken(LEAF, ExtensionFault::LeafMayNotSign, |certificate| {
        certificate.set_key_usage(false, KeyUsageBits::default()).unwrap();
    });
    assert_broken(LEAF, ExtensionFault::LeafMaySignCertificates, |certificate| {
        let usages = KeyUsages::DigitalSignature | KeyUsages::KeyCertSign;
        certificate.set_key_usage(false, usages).unwrap();
    });
}

#[test]
fn key_usage_must_be_there() {
    for index in 1..=LEAF {
        assert_broken(index, ExtensionFault::KeyUsageMissing, |certificate| {
            certificate.remove_extension(KEY_USAGE);
        });
    }
}

#[test]
fn key_usage_is_accepted_critical_and_not() {
    let forge = Forge::new();
    for critical in [true, false] {
        forge
            .with_chain(|chain| {
                for (index, certificate) in chain.certificates.iter_mut().enumerate().skip(1) {
                    let usage = if index == LEAF {
                        KeyUsages::DigitalSignature
                    } else {
                        KeyUsages::KeyCertSign
                    };
                    certificate.set_key_usage(critical, usage).unwrap();
                }
            })
            .unwrap();
    }
}

#[test]
fn a_path_length_that_is_exceeded_is_refused() {
    for (index, allowed, found) in [(REGIONAL, 1, 2), (REGIONAL, 0, 2), (ZONAL, 0, 1)] {
        let fault = ExtensionFault::PathLengthExceeded { allowed, found };
        assert_broken(index, fault, |certificate| {
            certificate.set_basic_constraints(true, true, Some(allowed)).unwrap();
        });
    }
    let outcome = Forge::new().with_chain_and_its_root(|chain| {
        chain.certificates[0].set_basic_constraints(true, true, Some(2)).unwrap();
    });
    assert_fault(outcome, 0, ExtensionFault::PathLengthExceeded { allowed: 2, found: 3 });
}

#[test]
fn an_authority_below_one_that_allows_none_is_refused() {
    // The instance allows no authority below it; a fifth is put there with its own key.
    let outcome = Forge::new().with_chain(|chain| {
        let mut rogue = chain.certificates[INSTANCE].clone();
        rogue.set_key(SimKey::p384().unwrap()).unwrap();
        rogue.set_subject("CN=rogue.eu-central-1.aws.nitro-enclaves").unwrap();
        chain.certificates.insert(LEAF, rogue);
        chain.link_names();
    });
    // Every authority above is exceeded too; the first is named.
    assert_fault(outcome, REGIONAL, ExtensionFault::PathLengthExceeded { allowed: 2, found: 3 });
}

#[test]
fn a_path_length_beyond_any_chain_is_refused_and_does_not_wrap() {
    for found in [9, 255, 256, u64::from(u32::MAX), u64::MAX] {
        let fault = ExtensionFault::PathLengthOutOfRange { found, limit: 8 };
        assert_broken(REGIONAL, fault, |certificate| {
            certificate.set_basic_constraints(true, true, Some(found)).unwrap();
        });
    }
    // 2^64, and -1: an integer that no width of ours holds.
    for integer in [&[0x02, 0x09, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0x02, 0x01, 0xff]] {
        let length = u8::try_from(3 + integer.len()).unwrap();
        let value = [&[0x30, length, 0x01, 0x01, 0xff], integer].concat();
        assert_broken(REGIONAL, ExtensionFault::BasicConstraintsMalformed, |certificate| {
            certificate.set_extension(BASIC_CONSTRAINTS, true, &value).unwrap();
        });
    }
}

#[test]
fn authorities_without_a_path_length_are_accepted() {
    Forge::new()
        .with_chain(|chain| {
            for certificate in &mut chain.certificates[REGIONAL..LEAF] {
                certificate.set_basic_constraints(true, true, None).unwrap();
            }
        })
        .unwrap();
}

#[test]
fn a_path_length_on_a_leaf_is_refused() {
    assert_broken(LEAF, ExtensionFault::PathLengthWithoutAuthority, |certificate| {
        certificate.set_basic_constraints(true, false, Some(0)).unwrap();
    });
}

#[test]
fn unknown_critical_extensions_are_refused_and_others_accepted() {
    for oid in [PRIVATE, EXTENDED_KEY_USAGE, NAME_CONSTRAINTS] {
        for index in 1..=LEAF {
            let fault = ExtensionFault::UnknownCritical { oid: oid.to_string() };
            assert_broken(index, fault, |certificate| {
                certificate.set_extension(oid, true, &[0x05, 0x00]).unwrap();
            });
            Forge::new()
                .with_chain(|chain| {
                    chain.certificates[index].set_extension(oid, false, &[0x05, 0x00]).unwrap();
                })
                .unwrap();
        }
    }
}

#[test]
fn an_extension_that_occurs_twice_is_refused() {
    for oid in [BASIC_CONSTRAINTS, KEY_USAGE] {
        for index in 1..=LEAF {
            let fault = ExtensionFault::Duplicate { oid: oid.to_string() };
            assert_broken(index, fault, |certificate| {
                let extensions = certificate.tbs.extensions.as_mut().unwrap();
                let again = extensions.iter().find(|e| e.extn_id == oid).unwrap().clone();
                extensions.push(again);
            });
        }
    }
}

#[test]
fn extensions_that_are_not_strict_der_are_refused() {
    // `cA FALSE` spelled out, `cA` neither 00 nor ff, a length in long form, bytes after the value.
    for value in [
        &[0x30, 0x03, 0x01, 0x01, 0x00][..],
        &[0x30, 0x03, 0x01, 0x01, 0x01],
        &[0x30, 0x81, 0x00],
        &[0x30, 0x00, 0x00],
        &[],
    ] {
        assert_broken(LEAF, ExtensionFault::BasicConstraintsMalformed, |certificate| {
            certificate.set_extension(BASIC_CONSTRAINTS, true, value).unwrap();
        });
    }
    // Trailing zero bits of a named bit list, set unused bits, no bit string.
    for value in
        [&[0x03, 0x02, 0x00, 0x80][..], &[0x03, 0x02, 0x07, 0x81], &[0x04, 0x01, 0x80], &[]]
    {
        assert_broken(LEAF, ExtensionFault::KeyUsageMalformed, |certificate| {
            certificate.set_extension(KEY_USAGE, false, value).unwrap();
        });
    }
}
