//! The rules for the payload, each broken alone in an otherwise good document.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_attestation_verify::{Kind, Malformed, Part, Refusal};
use casemate_sim::{DocumentSpec, cbor};
use common::{
    forge::{Forge, NOW},
    parts::{Parts, assert_broken, assert_field, assert_malformed},
};

const FIELDS: [(&str, Part); 9] = [
    ("module_id", Part::ModuleId),
    ("digest", Part::Digest),
    ("timestamp", Part::Timestamp),
    ("pcrs", Part::Pcrs),
    ("certificate", Part::Certificate),
    ("cabundle", Part::Cabundle),
    ("public_key", Part::PublicKey),
    ("user_data", Part::UserData),
    ("nonce", Part::Nonce),
];
const REQUIRED: usize = 6;

#[test]
fn the_payloads_map_may_be_of_either_length_and_in_any_order() {
    let forge = Forge::new();
    for indefinite in [true, false] {
        for turn in 0..9 {
            forge
                .with_document(|document| {
                    document.payload.indefinite = indefinite;
                    document.payload.entries.rotate_left(turn);
                })
                .unwrap();
        }
    }
}

#[test]
fn maps_and_arrays_within_the_payload_may_be_of_indefinite_length() {
    let forge = Forge::new();
    let issued = forge.host.issue(&forge.chain()).unwrap();
    let pcrs: Vec<_> = forge
        .enclave
        .pcrs()
        .into_iter()
        .map(|(index, value)| (cbor::unsigned(u64::from(index)), cbor::bytes(&value)))
        .collect();
    let bundle: Vec<_> = issued.cabundle().iter().map(|bytes| cbor::bytes(bytes)).collect();
    let mut document = DocumentSpec::new(forge.payload(&issued));
    document.payload.set("pcrs", cbor::map_indefinite(&pcrs));
    document.payload.set("cabundle", cbor::array_indefinite(&bundle));
    document.payload.set("timestamp", cbor::head_sized(0, NOW, 8));
    forge.judge(&document.sign(&issued.leaf_key).unwrap()).unwrap();
}

#[test]
fn integers_longer_than_needed_are_accepted() {
    let forge = Forge::new();
    let pcrs: Vec<_> = forge
        .enclave
        .pcrs()
        .into_iter()
        .zip([1, 2, 4, 8].into_iter().cycle())
        .map(|((index, value), size)| {
            (cbor::head_sized(0, u64::from(index), size), cbor::bytes(&value))
        })
        .collect();
    forge.with_document(|document| document.payload.set("pcrs", cbor::map(&pcrs))).unwrap();
}

#[test]
fn every_key_may_occur_once_only() {
    for (key, part) in FIELDS {
        assert_broken(Malformed::DuplicateKey { part }, |document| {
            let again = document.payload.entries.clone();
            let again = again.into_iter().find(|(present, _)| *present == cbor::text(key));
            document.payload.entries.extend(again);
            document.payload.indefinite = true;
        });
    }
}

#[test]
fn a_null_does_not_excuse_a_repeated_key() {
    assert_broken(Malformed::DuplicateKey { part: Part::UserData }, |document| {
        document.payload.push("user_data", cbor::bytes(b"second"));
    });
    assert_broken(Malformed::DuplicateKey { part: Part::Nonce }, |document| {
        document.payload.push("nonce", cbor::null());
    });
}

#[test]
fn every_key_but_the_three_optional_ones_is_required() {
    for (index, (key, part)) in FIELDS.into_iter().enumerate() {
        let outcome = Forge::new().with_document(|document| document.payload.remove(key));
        if index < REQUIRED {
            assert_malformed(outcome, Malformed::MissingKey { part });
        } else {
            outcome.unwrap();
        }
    }
}

#[test]
fn null_absent_and_empty_fields_are_all_absent() {
    let forge = Forge::new();
    for (key, _) in &FIELDS[REQUIRED..] {
        let null = forge.with_document(|document| document.payload.set(key, cbor::null()));
        let absent = forge.with_document(|document| document.payload.remove(key));
        let empty = forge.with_document(|document| document.payload.set(key, cbor::bytes(&[])));
        for evidence in [null, absent, empty].map(Result::unwrap) {
            assert_eq!(evidence.public_key(), None);
            assert_eq!(evidence.user_data(), None);
            assert_eq!(evidence.nonce(), None);
        }
    }
}

#[test]
fn null_is_no_value_for_a_required_key() {
    for ((key, part), expected) in FIELDS[..REQUIRED].iter().zip([
        Kind::Text,
        Kind::Text,
        Kind::Unsigned,
        Kind::Map,
        Kind::Bytes,
        Kind::Array,
    ]) {
        let (part, found) = (*part, Kind::Null);
        assert_field(key, cbor::null(), Malformed::WrongType { part, found, expected });
    }
}

#[test]
fn undefined_is_not_null() {
    for (key, part) in &FIELDS[REQUIRED..] {
        let (part, found, expected) = (*part, Kind::Other, Kind::Bytes);
        assert_field(key, vec![0xf7], Malformed::WrongType { part, found, expected });
    }
}

#[test]
fn values_of_another_type_are_refused() {
    for (key, value, part, found, expected) in [
        ("module_id", cbor::bytes(b"i-1"), Part::ModuleId, Kind::Bytes, Kind::Text),
        ("digest", cbor::unsigned(1), Part::Digest, Kind::Unsigned, Kind::Text),
        ("timestamp", cbor::text("0"), Part::Timestamp, Kind::Text, Kind::Unsigned),
        ("timestamp", vec![0x20], Part::Timestamp, Kind::Negative, Kind::Unsigned),
        ("timestamp", vec![0xf9, 0x3c, 0x00], Part::Timestamp, Kind::Other, Kind::Unsigned),
        ("timestamp", vec![0xc2, 0x41, 1], Part::Timestamp, Kind::Tag, Kind::Unsigned),
        ("pcrs", cbor::array(&[]), Part::Pcrs, Kind::Array, Kind::Map),
        ("certificate", cbor::text("MII"), Part::Certificate, Kind::Text, Kind::Bytes),
        ("cabundle", cbor::bytes(&[1]), Part::Cabundle, Kind::Bytes, Kind::Array),
        (
            "cabundle",
            cbor::array(&[cbor::array(&[])]),
            Part::CabundleEntry,
            Kind::Array,
            Kind::Bytes,
        ),
        ("public_key", cbor::text("key"), Part::PublicKey, Kind::Text, Kind::Bytes),
        ("user_data", cbor::text("data"), Part::UserData, Kind::Text, Kind::Bytes),
        ("nonce", cbor::unsigned(7), Part::Nonce, Kind::Unsigned, Kind::Bytes),
        ("nonce", vec![0xd8, 0x18, 0x41, 1], Part::Nonce, Kind::Tag, Kind::Bytes),
    ] {
        assert_field(key, value, Malformed::WrongType { part, found, expected });
    }
    let part = Part::PayloadKey;
    let expected = Malformed::WrongType { part, found: Kind::Bytes, expected: Kind::Text };
    assert_broken(expected, |document| {
        document.payload.entries[0].0 = cbor::bytes(b"module_id");
    });
}

#[test]
fn a_payload_that_is_no_map_is_refused() {
    let forge = Forge::new();
    let part = Part::Payload;
    for (payload, expected) in [
        (vec![], Malformed::Truncated { part }),
        (cbor::array(&[]), Malformed::WrongType { part, found: Kind::Array, expected: Kind::Map }),
        (cbor::head(6, 24), Malformed::WrongType { part, found: Kind::Tag, expected: Kind::Map }),
        (cbor::map(&[]), Malformed::MissingKey { part: Part::Digest }),
    ] {
        let parts = Parts { payload: cbor::bytes(&payload), ..Parts::new(&forge) };
        assert_malformed(forge.judge(&cbor::array(&parts.items())), expected);
    }
}

#[test]
fn unknown_keys_are_refused() {
    for key in ["", "pcr", "PCRS", "module_id ", "uri"] {
        let expected = Malformed::UnknownKey { key: key.to_owned() };
        assert_broken(expected, |document| document.payload.push(key, cbor::null()));
    }
    let expected = Malformed::TooLong { part: Part::PayloadKey, found: 33, limit: 32 };
    assert_broken(expected, |document| document.payload.push(&"k".repeat(33), cbor::null()));
}

#[test]
fn documents_of_a_nitro_tpm_are_refused() {
    assert_broken(Malformed::NitroTpm, |document| {
        let pcrs = document.payload.entries.iter_mut();
        for (key, _) in pcrs.filter(|(key, _)| *key == cbor::text("pcrs")) {
            *key = cbor::text("nitrotpm_pcrs");
        }
    });
    assert_broken(Malformed::NitroTpm, |document| {
        document.payload.push("nitrotpm_pcrs", cbor::map(&[]));
    });
}

#[test]
fn a_digest_other_than_sha384_is_refused() {
    for digest in ["", "sha384", "SHA256", "SHA512", "SHA384 "] {
        let found = digest.to_owned();
        assert_field("digest", cbor::text(digest), Malformed::Digest { found });
    }
}

#[test]
fn a_timestamp_of_zero_is_refused() {
    for size in [0, 1, 2, 4, 8] {
        assert_field("timestamp", cbor::head_sized(0, 0, size), Malformed::TimestampZero);
    }
}

#[test]
fn the_greatest_timestamp_overflows_nothing() {
    let outcome = Forge::new().with_document(|document| {
        document.payload.set("timestamp", cbor::unsigned(u64::MAX));
    });
    assert!(matches!(outcome, Err(Refusal::Unmet(_))));
}

#[test]
fn a_module_id_that_is_empty_or_not_visible_ascii_is_refused() {
    assert_field("module_id", cbor::text(""), Malformed::Empty { part: Part::ModuleId });
    for module_id in ["i-1 enc", "i-1\u{1b}[2J", "i-1\n", "і-1"] {
        let found = module_id.to_owned();
        assert_field("module_id", cbor::text(module_id), Malformed::ModuleId { found });
    }
    let invalid = [cbor::head(3, 2), vec![0xc3, 0x28]].concat();
    assert_field("module_id", invalid, Malformed::NotUtf8 { part: Part::ModuleId });
}

#[test]
fn pcrs_may_be_any_one_to_32_of_32_and_no_others() {
    let entry = |index: u64| (cbor::unsigned(index), cbor::bytes(&[1; 48]));
    let forge = Forge::new();
    for count in [17, 24, 32] {
        let evidence = forge
            .with_document(|document| {
                let mut pcrs = forge.enclave.pcrs();
                pcrs.extend((16..count).map(|index| (index, [index; 48])));
                let entries: Vec<_> = pcrs
                    .iter()
                    .map(|(index, value)| (cbor::unsigned((*index).into()), cbor::bytes(value)))
                    .collect();
                document.payload.set("pcrs", cbor::map(&entries));
            })
            .unwrap();
        assert_eq!(evidence.pcrs().count(), usize::from(count));
    }
    assert_field("pcrs", cbor::map(&[]), Malformed::Empty { part: Part::Pcrs });
    for index in [32, 255, 256, u64::MAX] {
        assert_field("pcrs", cbor::map(&[entry(index)]), Malformed::PcrIndex { index });
    }
    let negative = cbor::map(&[(vec![0x20], cbor::bytes(&[1; 48]))]);
    let (part, found, expected) = (Part::PcrIndex, Kind::Negative, Kind::Unsigned);
    assert_field("pcrs", negative, Malformed::WrongType { part, found, expected });
    let many: Vec<_> = (0..33).map(entry).collect();
    let expected = Malformed::TooLong { part: Part::Pcrs, found: 33, limit: 32 };
    assert_field("pcrs", cbor::map(&many), expected);
    assert_field("pcrs", cbor::map_indefinite(&many), Malformed::PcrIndex { index: 32 });
}

#[test]
fn a_pcr_that_occurs_twice_is_refused() {
    let forge = Forge::new();
    for size in [0, 1, 8] {
        let pcrs: Vec<_> = forge
            .enclave
            .pcrs()
            .into_iter()
            .map(|(index, value)| (cbor::unsigned(index.into()), cbor::bytes(&value)))
            .chain([(cbor::head_sized(0, 3, size), cbor::bytes(&[9; 48]))])
            .collect();
        assert_field("pcrs", cbor::map(&pcrs), Malformed::DuplicatePcr { index: 3 });
    }
}

#[test]
fn a_pcr_of_any_length_but_48_is_refused() {
    for found in [0, 20, 32, 47, 49, 64] {
        let pcrs = cbor::map(&[(cbor::unsigned(5), cbor::bytes(&vec![1; found]))]);
        assert_field("pcrs", pcrs, Malformed::PcrLength { index: 5, found });
    }
}

// Sizes.

#[test]
fn every_field_is_accepted_at_its_limit_and_refused_beyond() {
    let forge = Forge::new();
    for (key, part, limit) in [
        ("public_key", Part::PublicKey, 1024),
        ("user_data", Part::UserData, 512),
        ("nonce", Part::Nonce, 512),
    ] {
        let filled =
            |length| forge.with_document(|d| d.payload.set(key, cbor::bytes(&vec![7; length])));
        filled(limit).unwrap();
        let found = u64::try_from(limit + 1).unwrap();
        let expected = Malformed::TooLong { part, found, limit: found - 1 };
        assert_malformed(filled(limit + 1), expected);
    }
}

#[test]
fn certificates_are_1_to_1024_bytes_each() {
    let limit = 1024;
    assert_field("certificate", cbor::bytes(&[]), Malformed::Empty { part: Part::Certificate });
    let bundle = |bytes: &[u8]| cbor::array(&[cbor::bytes(bytes)]);
    assert_field("cabundle", bundle(&[]), Malformed::Empty { part: Part::CabundleEntry });
    assert_field("cabundle", cbor::array(&[]), Malformed::Empty { part: Part::Cabundle });
    let expected = |part| Malformed::TooLong { part, found: 1025, limit };
    assert_field("certificate", cbor::bytes(&[0x30; 1025]), expected(Part::Certificate));
    assert_field("cabundle", bundle(&[0x30; 1025]), expected(Part::CabundleEntry));
}

#[test]
fn a_bundle_of_more_than_8_certificates_is_refused() {
    let (part, limit) = (Part::Cabundle, 8);
    let nine = vec![cbor::bytes(&[0x30; 100]); 9];
    assert_field("cabundle", cbor::array(&nine), Malformed::TooLong { part, found: 9, limit });
    let expected = Malformed::TooLong { part, found: 9, limit };
    assert_field("cabundle", cbor::array_indefinite(&nine), expected);
}

#[test]
fn a_document_or_payload_beyond_its_limit_is_refused() {
    let forge = Forge::new();
    let limit = 16 * 1024 + 256;
    let found = limit + 1;
    let outcome = forge.judge(&vec![0x84; usize::try_from(found).unwrap()]);
    assert_malformed(outcome, Malformed::TooLong { part: Part::Document, found, limit });
    let parts = Parts { payload: cbor::bytes(&[0; 16 * 1024 + 1]), ..Parts::new(&forge) };
    let (found, limit) = (16 * 1024 + 1, 16 * 1024);
    assert_malformed(
        forge.judge(&cbor::array(&parts.items())),
        Malformed::TooLong { part: Part::Payload, found, limit },
    );
}

#[test]
fn declared_lengths_beyond_the_input_are_refused() {
    let forge = Forge::new();
    for major in [2, 3] {
        for length in [5000, u64::from(u32::MAX), u64::MAX] {
            let head = cbor::head(major, length);
            let key = if major == 2 { "nonce" } else { "module_id" };
            let outcome = forge.with_document(|document| document.payload.set(key, head));
            assert!(
                matches!(outcome, Err(Refusal::Malformed(Malformed::Truncated { .. }))),
                "{major} {length}: {outcome:?}"
            );
        }
    }
    let (found, limit) = (u64::MAX, 32);
    let expected = Malformed::TooLong { part: Part::Pcrs, found, limit };
    assert_field("pcrs", cbor::head(5, found), expected);
    let expected = Malformed::TooLong { part: Part::Cabundle, found, limit: 8 };
    assert_field("cabundle", cbor::head(4, found), expected);
    let parts = Parts { payload: cbor::bytes(&cbor::head(5, found)), ..Parts::new(&forge) };
    let expected = Malformed::TooLong { part: Part::Payload, found, limit: 9 };
    assert_malformed(forge.judge(&cbor::array(&parts.items())), expected);
}

#[test]
fn deep_nesting_is_refused_where_it_begins() {
    let deep = [vec![0x81; 4000], vec![0x00]].concat();
    let expected =
        Malformed::WrongType { part: Part::UserData, found: Kind::Array, expected: Kind::Bytes };
    assert_field("user_data", deep.clone(), expected);
    let forge = Forge::new();
    let expected =
        Malformed::WrongType { part: Part::Document, found: Kind::Map, expected: Kind::Array };
    assert_malformed(forge.judge(&vec![0xa1; 10_000]), expected);
    let expected = Malformed::NotFourElements { found: 1 };
    assert_malformed(forge.judge(&deep), expected);
}
