//! The rules for the chain and its certificates but for their extensions, each broken alone in an otherwise good document.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_attestation_verify::{
    At, CertificateFault, Evidence, ExtensionFault, IdentityFault, Position, Refusal, Revocation,
    RootError, TrustRoot, UnixMillis, verify,
};
use casemate_sim::{
    CertificateSpec, ChainSpec, IssuedChain, SimKey, sign_tbs,
    x509_cert::{
        Version,
        der::{
            Any, Encode, Tag,
            asn1::{BitString, ObjectIdentifier},
        },
        ext::pkix::KeyUsages,
        serial_number::SerialNumber,
    },
};
use common::{
    chain::{INSTANCE, LEAF, REGIONAL, ZONAL, assert_broken, assert_fault, position},
    forge::{Forge, NOW, REGION},
};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

fn resigned(change: impl FnOnce(&ChainSpec, &mut IssuedChain)) -> Result<Evidence, Refusal> {
    let forge = Forge::new();
    let chain = forge.chain();
    let mut issued = forge.host.issue(&chain).unwrap();
    change(&chain, &mut issued);
    forge.with_issued(issued)
}

#[test]
fn an_unchanged_chain_is_accepted() {
    let evidence = Forge::new().with_chain(|_| {}).unwrap();
    assert_eq!(evidence.region(), REGION);
}

// The root.

#[test]
fn another_root_of_the_same_name_is_refused() {
    let (ours, theirs) = (Forge::new(), Forge::new());
    let document = theirs.document(|_| {});
    let refusal = verify(&document, &ours.root(), &ours.expected(), At::Document).unwrap_err();
    let (found, pinned) = (*theirs.root().fingerprint(), *ours.root().fingerprint());
    assert_eq!(refusal, Refusal::Root { found, pinned });
}

#[test]
fn a_simulated_document_is_refused_under_the_aws_root() {
    let forge = Forge::new();
    let document = forge.document(|_| {});
    let refusal = verify(&document, &common::aws(), &forge.expected(), At::Document).unwrap_err();
    assert!(matches!(refusal, Refusal::Root { .. }));
}

#[test]
fn the_pinned_root_above_a_chain_of_another_is_refused() {
    let (ours, theirs) = (Forge::new(), Forge::new());
    let mut issued = theirs.host.issue(&theirs.chain()).unwrap();
    issued.certificates[0] = ours.host.root_der().to_vec();
    assert_fault(ours.with_issued(issued), REGIONAL, CertificateFault::Signature);
}

#[test]
fn a_root_that_is_no_authority_is_refused_even_if_pinned() {
    let outcome = Forge::new().with_chain_and_its_root(|chain| {
        chain.certificates[0].set_basic_constraints(true, false, None).unwrap();
    });
    assert_fault(outcome, 0, ExtensionFault::NotAuthority);
}

#[test]
fn an_expired_root_is_refused_even_if_pinned() {
    let outcome = Forge::new().with_chain_and_its_root(|chain| {
        chain.certificates[0].set_validity(NOW - 5000, NOW).unwrap();
    });
    let at = UnixMillis::new(NOW);
    assert_fault(outcome, 0, CertificateFault::Expired { not_after: at, at });
}

#[test]
fn a_trust_root_is_made_of_a_self_signed_authority_only() {
    let forge = Forge::new();
    assert_eq!(TrustRoot::from_pem(&forge.host.root_pem().unwrap()), Ok(forge.root()));
    let issued = forge.host.issue(&forge.chain()).unwrap();
    assert_eq!(TrustRoot::from_der(&issued.certificates[1]), Err(RootError::NotSelfSigned));

    let mut root = ChainSpec::root().unwrap();
    root.set_basic_constraints(true, false, None).unwrap();
    assert_eq!(TrustRoot::from_der(&root.sign(&root.key).unwrap()), Err(RootError::NotAuthority));
    let mut root = ChainSpec::root().unwrap();
    root.set_key_usage(true, KeyUsages::DigitalSignature).unwrap();
    assert_eq!(TrustRoot::from_der(&root.sign(&root.key).unwrap()), Err(RootError::NotAuthority));
    let root = ChainSpec::root().unwrap();
    let other = root.sign(&SimKey::p384().unwrap()).unwrap();
    assert_eq!(TrustRoot::from_der(&other), Err(RootError::NotSelfSigned));

    assert_eq!(TrustRoot::from_der(&[]), Err(RootError::Certificate(CertificateFault::Encoding)));
    assert!(matches!(TrustRoot::from_der(&[0x30; 1025]), Err(RootError::TooLong { .. })));
    let pem = forge.host.root_pem().unwrap();
    let key = pem.replace("CERTIFICATE", "PUBLIC KEY");
    for text in ["", "root", &key, &"x".repeat(9000)] {
        assert!(TrustRoot::from_pem(text).is_err());
    }
}

// Order and number.

#[test]
fn dropping_any_certificate_is_refused() {
    for index in 1..=INSTANCE {
        let outcome = resigned(|_, issued| {
            issued.certificates.remove(index);
        });
        // The one after it now follows a stranger.
        let next = if index == INSTANCE { LEAF } else { index };
        assert_fault(outcome, next, CertificateFault::Issuer);
    }
    // Without the root, the regional authority stands in its place.
    let outcome = resigned(|_, issued| {
        issued.certificates.remove(0);
    });
    assert!(matches!(outcome, Err(Refusal::Root { .. })));
}

#[test]
fn swapping_any_two_certificates_is_refused() {
    for first in 0..LEAF {
        for second in first + 1..=LEAF {
            let outcome = resigned(|_, issued| issued.certificates.swap(first, second));
            assert!(
                matches!(outcome, Err(Refusal::Certificate { .. } | Refusal::Root { .. })),
                "{first} and {second}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_bundle_in_reverse_order_is_refused() {
    let outcome = resigned(|_, issued| issued.certificates[..LEAF].reverse());
    assert!(matches!(outcome, Err(Refusal::Root { .. })));
}

#[test]
fn repeating_any_certificate_is_refused() {
    for index in 0..=INSTANCE {
        let outcome = resigned(|_, issued| {
            let again = issued.certificates[index].clone();
            issued.certificates.insert(index + 1, again);
        });
        assert!(matches!(outcome, Err(Refusal::Certificate { .. })), "{index}: {outcome:?}");
    }
}

#[test]
fn a_repeated_root_is_refused_although_it_verifies_under_itself() {
    let outcome = resigned(|_, issued| {
        let root = issued.certificates[0].clone();
        issued.certificates.insert(1, root);
    });
    assert_fault(outcome, 1, CertificateFault::SelfIssued);
}

#[test]
fn a_leaf_in_the_bundle_is_refused() {
    let outcome = resigned(|_, issued| {
        let leaf = issued.certificates[LEAF].clone();
        issued.certificates.insert(LEAF, leaf);
    });
    // As the fourth authority it exceeds what the instance's path length allows.
    assert!(matches!(outcome, Err(Refusal::Certificate { .. })));
}

#[test]
fn an_authority_as_the_leaf_is_refused() {
    let outcome = resigned(|chain, issued| {
        issued.certificates.remove(LEAF);
        issued.leaf_key = chain.certificates[INSTANCE].key.clone();
    });
    let expected = ExtensionFault::LeafIsAuthority.into();
    assert_eq!(outcome, Err(Refusal::Certificate { position: Position::Leaf, fault: expected }));
}

// Names and signatures.

#[test]
fn an_issuer_other_than_the_subject_before_is_refused() {
    for index in 1..=LEAF {
        assert_broken(index, CertificateFault::Issuer, |certificate| {
            let stranger = CertificateSpec::new("CN=s", "CN=stranger", [NOW, NOW]).unwrap();
            certificate.tbs.issuer = stranger.tbs.issuer;
        });
    }
}

#[test]
fn a_name_in_another_order_is_another_name() {
    let outcome = Forge::new().with_chain(|chain| {
        let reversed = chain.certificates[REGIONAL].tbs.subject.clone();
        chain.certificates[ZONAL].tbs.issuer.0 = reversed.0.into_iter().rev().collect();
    });
    assert_fault(outcome, ZONAL, CertificateFault::Issuer);
}

#[test]
fn a_certificate_signed_by_another_key_is_refused() {
    for index in 1..=LEAF {
        let outcome = resigned(|chain, issued| {
            let certificate = &chain.certificates[index];
            issued.certificates[index] = certificate.sign(&SimKey::p384().unwrap()).unwrap();
        });
        assert_fault(outcome, index, CertificateFault::Signature);
    }
}

#[test]
fn an_authority_with_a_key_other_than_its_certificates_is_refused() {
    for index in 1..LEAF {
        let outcome = Forge::new().with_chain(|chain| {
            chain.certificates[index].key = SimKey::p384().unwrap();
        });
        assert_fault(outcome, index + 1, CertificateFault::Signature);
    }
}

#[test]
fn a_document_signed_by_a_key_other_than_the_leafs_is_refused() {
    let outcome = resigned(|_, issued| issued.leaf_key = SimKey::p384().unwrap());
    assert_eq!(outcome, Err(Refusal::Signature));
}

// Algorithms.

#[test]
fn inner_and_outer_algorithm_must_be_equal() {
    for index in 1..=LEAF {
        assert_broken(index, CertificateFault::AlgorithmsDiffer, |certificate| {
            certificate.outer_algorithm.oid = ECDSA_WITH_SHA256;
        });
        assert_broken(index, CertificateFault::AlgorithmsDiffer, |certificate| {
            certificate.tbs.signature.oid = ECDSA_WITH_SHA256;
        });
    }
}

#[test]
fn an_algorithm_other_than_ecdsa_with_sha384_is_refused() {
    for index in 1..=LEAF {
        let fault = CertificateFault::SignatureAlgorithm { found: ECDSA_WITH_SHA256.to_string() };
        assert_broken(index, fault, |certificate| {
            certificate.outer_algorithm.oid = ECDSA_WITH_SHA256;
            certificate.tbs.signature.oid = ECDSA_WITH_SHA256;
        });
    }
}

#[test]
fn null_parameters_of_the_algorithm_are_refused() {
    let outcome = Forge::new().with_chain(|chain| {
        let certificate = &mut chain.certificates[LEAF];
        certificate.outer_algorithm.parameters = Some(Any::null());
        certificate.tbs.signature.parameters = Some(Any::null());
    });
    assert!(matches!(
        outcome,
        Err(Refusal::Certificate { fault: CertificateFault::SignatureAlgorithm { .. }, .. })
    ));
}

#[test]
fn a_key_on_another_curve_is_refused() {
    for index in 1..=LEAF {
        assert_broken(index, CertificateFault::Key, |certificate| {
            let other = SimKey::p256().unwrap().subject_public_key_info().unwrap();
            certificate.tbs.subject_public_key_info = other;
        });
        // A point of P-384 under the other curve's name.
        assert_broken(index, CertificateFault::Key, |certificate| {
            let other = SimKey::p256().unwrap().subject_public_key_info().unwrap();
            certificate.tbs.subject_public_key_info.algorithm = other.algorithm;
        });
    }
}

#[test]
fn a_key_in_compressed_or_hybrid_form_is_refused() {
    let form = |first: fn(u8) -> u8, length: usize| {
        move |certificate: &mut CertificateSpec| {
            let mut point = certificate.key.public_key()[..length].to_vec();
            point[0] = first(certificate.key.public_key()[96] & 1);
            let info = &mut certificate.tbs.subject_public_key_info;
            info.subject_public_key = BitString::from_bytes(&point).unwrap();
        }
    };
    assert_broken(LEAF, CertificateFault::Key, form(|odd| 2 + odd, 49));
    assert_broken(LEAF, CertificateFault::Key, form(|odd| 6 + odd, 97));
    assert_broken(LEAF, CertificateFault::Key, form(|_| 4, 96));
}

#[test]
fn a_key_off_the_curve_verifies_nothing() {
    let outcome = Forge::new().with_chain(|chain| {
        let info = &mut chain.certificates[LEAF].tbs.subject_public_key_info;
        let point = [&[4][..], &[0; 96]].concat();
        info.subject_public_key = BitString::from_bytes(&point).unwrap();
    });
    assert_eq!(outcome, Err(Refusal::Signature));
}

// The rest of the certificate.

#[test]
fn versions_other_than_3_are_refused() {
    for version in [Version::V1, Version::V2] {
        assert_broken(LEAF, CertificateFault::Version, |certificate| {
            certificate.tbs.version = version;
        });
    }
}

#[test]
fn unique_identifiers_are_refused() {
    assert_broken(LEAF, CertificateFault::UniqueIdentifier, |certificate| {
        certificate.tbs.issuer_unique_id = Some(BitString::from_bytes(&[1]).unwrap());
    });
    assert_broken(LEAF, CertificateFault::UniqueIdentifier, |certificate| {
        certificate.tbs.subject_unique_id = Some(BitString::from_bytes(&[1]).unwrap());
    });
}

#[test]
fn a_subject_without_exactly_one_common_name_is_refused() {
    assert_broken(LEAF, CertificateFault::CommonName, |certificate| {
        certificate.set_subject("O=Amazon").unwrap();
    });
    assert_broken(LEAF, CertificateFault::CommonName, |certificate| {
        let name = certificate.tbs.subject.to_string();
        certificate.set_subject(&format!("{name},CN=another")).unwrap();
    });
}

#[test]
fn bytes_that_are_no_certificate_or_not_strict_der_are_refused() {
    let alter = |change: &dyn Fn(&mut Vec<u8>)| {
        let outcome = resigned(|_, issued| change(&mut issued.certificates[LEAF]));
        assert_fault(outcome, LEAF, CertificateFault::Encoding);
    };
    alter(&|bytes| *bytes = vec![0x30, 0x00]);
    alter(&|bytes| *bytes = vec![0xff]);
    alter(&|bytes| bytes.push(0));
    alter(&|bytes| {
        bytes.pop();
    });
    // An indefinite length, which BER allows.
    alter(&|bytes| {
        let content = bytes[4..].to_vec();
        *bytes = [&[0x30, 0x80], &content[..], &[0, 0]].concat();
    });
    // A length in more bytes than it needs.
    alter(&|bytes| {
        let (length, content) = (bytes[2..4].to_vec(), bytes[4..].to_vec());
        *bytes = [&[0x30, 0x83, 0x00], &length[..], &content].concat();
    });
}

#[test]
fn a_body_that_is_not_strict_der_is_refused_although_its_signature_is_good() {
    // `critical FALSE` spelled out on the leaf's key usage.
    let outcome = resigned(|chain, issued| {
        let leaf = &chain.certificates[LEAF];
        let body = leaf.tbs.to_der().unwrap();
        let (header, content) = body.split_at(4);
        assert_eq!(header[..2], [0x30, 0x82]);
        let usage = [0x06, 0x03, 0x55, 0x1d, 0x0f];
        let at = content.windows(5).position(|window| window == usage).unwrap();
        let mut content = content.to_vec();
        content.splice(at + 5..at + 5, [0x01, 0x01, 0x00]);
        // The three enclosing lengths grow by as much: the extension's, the list's and that of `[3]`.
        let list = content[..at].windows(3).rposition(|w| w[0] == 0xa3 && w[2] == 0x30).unwrap();
        for length in [at - 1, list + 1, list + 3] {
            content[length] += 3;
        }
        let body = Any::new(Tag::Sequence, content).unwrap().to_der().unwrap();
        let issuer = &chain.certificates[INSTANCE].key;
        issued.certificates[LEAF] = sign_tbs(&body, &leaf.outer_algorithm, issuer).unwrap();
    });
    assert_fault(outcome, LEAF, CertificateFault::Encoding);
}

#[test]
fn a_serial_number_of_twenty_bytes_is_accepted() {
    let outcome = Forge::new().with_chain(|chain| {
        chain.certificates[LEAF].tbs.serial_number = SerialNumber::new(&[0x01; 20]).unwrap();
    });
    outcome.unwrap();
}

// Time.

#[test]
fn every_certificate_must_be_valid_at_the_time_used() {
    for index in 1..=LEAF {
        let at = UnixMillis::new(NOW);
        let fault = CertificateFault::Expired { not_after: at, at };
        assert_broken(index, fault, |certificate| {
            certificate.set_validity(NOW - 5000, NOW).unwrap();
        });
        let not_before = UnixMillis::new(NOW + 1000);
        assert_broken(index, CertificateFault::NotYetValid { not_before, at }, |certificate| {
            certificate.set_validity(NOW + 1000, NOW + 5000).unwrap();
        });
    }
}

#[test]
fn validity_includes_not_before_and_excludes_not_after() {
    let forge = Forge::new();
    for index in 1..=LEAF {
        let valid = |from, until| {
            forge.with_chain(|chain| chain.certificates[index].set_validity(from, until).unwrap())
        };
        assert!(valid(NOW, NOW + 1000).is_ok());
        assert!(valid(NOW - 1000, NOW).is_err());
    }
}

#[test]
fn revocation_goes_by_issuer_and_serial_number() {
    let forge = Forge::new();
    let issued = forge.host.issue(&forge.chain()).unwrap();
    let document =
        casemate_sim::DocumentSpec::new(forge.payload(&issued)).sign(&issued.leaf_key).unwrap();
    let judge = |root: TrustRoot| verify(&document, &root, &forge.expected(), At::Document);
    for (index, certificate) in issued.certificates.iter().enumerate() {
        let revocation = Revocation::of_certificate(certificate).unwrap();
        let outcome = judge(forge.root().with_revoked([revocation]));
        assert!(matches!(
            outcome,
            Err(Refusal::Certificate { position: at, fault: CertificateFault::Revoked { .. } })
                if at == position(index)
        ));
    }
    // The leaf's serial number under another issuer, and another number under its issuer.
    let chain = forge.chain();
    let serial = x509_serial(&issued.certificates[LEAF]);
    let (issuer, stranger) = (
        chain.certificates[LEAF].tbs.issuer.to_der().unwrap(),
        chain.certificates[ZONAL].tbs.subject.to_der().unwrap(),
    );
    let padded = [&[0][..], &serial].concat();
    judge(forge.root().with_revoked([Revocation::new(&stranger, &serial)])).unwrap();
    judge(forge.root().with_revoked([Revocation::new(&issuer, &[1, 2, 3])])).unwrap();
    judge(forge.root().with_revoked([Revocation::new(&issuer, &padded)])).unwrap_err();
}

fn x509_serial(certificate: &[u8]) -> Vec<u8> {
    use casemate_sim::x509_cert::{Certificate, der::Decode};
    let certificate = Certificate::from_der(certificate).unwrap();
    certificate.tbs_certificate.serial_number.as_bytes().to_vec()
}

// Identity.

#[test]
fn the_leafs_common_name_must_start_with_the_module_id() {
    let forge = Forge::new();
    let module_id = forge.enclave.module_id();
    for (name, accepted) in [
        (format!("{module_id}.{REGION}.aws"), true),
        (module_id.clone(), true),
        (format!("{module_id}0.{REGION}.aws"), false),
        (format!("x{module_id}.{REGION}.aws"), false),
        (format!("{}.{REGION}.aws", &module_id[..module_id.len() - 1]), false),
        (format!("{}.{REGION}.aws", module_id.to_uppercase()), false),
    ] {
        let outcome = forge.with_chain(|chain| {
            chain.certificates[LEAF].set_subject(&format!("CN={name}")).unwrap();
        });
        let expected = Err(Refusal::Identity(IdentityFault::ModuleId {
            common_name: name.clone(),
            module_id: module_id.clone(),
        }));
        if accepted {
            outcome.unwrap();
        } else {
            assert_eq!(outcome, expected);
        }
    }
}

#[test]
fn all_certificates_must_name_one_region() {
    for index in 1..=LEAF {
        let forge = Forge::new();
        let outcome = forge.with_chain(|chain| {
            let certificate = &mut chain.certificates[index];
            let name = certificate.tbs.subject.to_string().replace(REGION, "us-east-1");
            certificate.set_subject(&name).unwrap();
            chain.link_names();
        });
        assert!(
            matches!(outcome, Err(Refusal::Identity(IdentityFault::RegionsDiffer { .. }))),
            "{index}: {outcome:?}"
        );
    }
}

#[test]
fn a_chain_that_names_no_region_is_refused() {
    let forge = Forge::new();
    let rename = |suffix: &'static str| {
        move |chain: &mut ChainSpec| {
            for (index, certificate) in chain.certificates[1..LEAF].iter_mut().enumerate() {
                certificate.set_subject(&format!("CN=authority{index}{suffix}")).unwrap();
            }
            chain.link_names();
        }
    };
    for suffix in ["", ".aws.nitro-enclaves.example", ". .aws.nitro-enclaves"] {
        assert_eq!(
            forge.with_chain(rename(suffix)),
            Err(Refusal::Identity(IdentityFault::RegionMissing)),
            "{suffix}"
        );
    }
}
