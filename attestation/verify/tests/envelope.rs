//! The rules for the COSE envelope, each broken alone in an otherwise good document.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_attestation_verify::{Kind, Malformed, Part, Refusal};
use casemate_sim::{PROTECTED_ES384, PayloadSpec, cbor, sig_structure};
use common::{
    forge::Forge,
    parts::{Parts, assert_broken, assert_field, assert_malformed},
};

#[test]
fn an_unchanged_document_is_accepted() {
    Forge::new().with_document(|_| {}).unwrap();
}

#[test]
fn a_tagged_document_is_refused() {
    for tag in [18, 61, 55799] {
        assert_broken(Malformed::Tagged { tag }, |document| document.tag = Some(tag));
    }
}

#[test]
fn an_array_of_any_number_but_four_is_refused() {
    let forge = Forge::new();
    let items = Parts::new(&forge).items();
    for count in 0..4 {
        let found = u64::try_from(count).unwrap();
        for array in [cbor::array, cbor::array_indefinite] {
            let outcome = forge.judge(&array(&items[..count]));
            assert_malformed(outcome, Malformed::NotFourElements { found });
        }
    }
    let five = [&items[..], &[cbor::null()]].concat();
    for array in [cbor::array, cbor::array_indefinite] {
        assert_malformed(forge.judge(&array(&five)), Malformed::NotFourElements { found: 5 });
    }
    let found = u64::MAX;
    let huge = [cbor::head(4, found), items.concat()].concat();
    assert_malformed(forge.judge(&huge), Malformed::NotFourElements { found });
}

#[test]
fn encodings_that_are_not_the_shortest_are_accepted() {
    let forge = Forge::new();
    let parts = Parts::new(&forge);
    forge.judge(&cbor::array_indefinite(&parts.items())).unwrap();
    forge.judge(&[cbor::head_sized(4, 4, 8), parts.items().concat()].concat()).unwrap();
    let indefinite = Parts { unprotected: cbor::map_indefinite(&[]), ..Parts::new(&forge) };
    forge.judge(&cbor::array(&indefinite.items())).unwrap();
    // The algorithm, too, may be spelled longer; it is signed as spelled.
    for protected in [&[0xa1, 0x18, 0x01, 0x39, 0x00, 0x22][..], &[0xbf, 0x01, 0x38, 0x22, 0xff]] {
        forge.with_document(|document| document.protected = protected.to_vec()).unwrap();
    }
}

#[test]
fn a_protected_header_other_than_es384_is_refused() {
    let es384 = |found: &[u8]| Malformed::NotEs384 { found: found.to_vec() };
    for header in [
        // Nothing; ES256; ES512; EdDSA; the algorithm under another label; another algorithm second.
        &[0xa0][..],
        &[0xa1, 0x01, 0x26],
        &[0xa1, 0x01, 0x38, 0x23],
        &[0xa1, 0x01, 0x27],
        &[0xa1, 0x02, 0x38, 0x22],
        &[0xa2, 0x01, 0x38, 0x22, 0x01, 0x26],
        &[0xa2, 0x01, 0x38, 0x22, 0x02, 0x81, 0x01],
        &[0xa1, 0x01, 0x18, 0x23],
    ] {
        assert_broken(es384(header), |document| document.protected = header.to_vec());
    }
    let part = Part::ProtectedHeader;
    assert_broken(Malformed::Truncated { part }, |document| document.protected.clear());
    assert_broken(Malformed::TrailingBytes { part, count: 1 }, |d| d.protected.push(0));
    // An algorithm named by text, which COSE allows.
    let expected = Malformed::WrongType { part, found: Kind::Text, expected: Kind::Unsigned };
    assert_broken(expected, |document| {
        document.protected = cbor::map(&[(cbor::unsigned(1), cbor::text("ES384"))]);
    });
    let expected = Malformed::TooLong { part, found: 33, limit: 32 };
    assert_broken(expected, |document| document.protected = vec![0xa1; 33]);
}

#[test]
fn an_unprotected_header_that_is_not_empty_is_refused() {
    assert_broken(Malformed::UnprotectedHeader, |document| {
        document.unprotected = cbor::map(&[(cbor::unsigned(4), cbor::bytes(b"kid"))]);
    });
    assert_broken(Malformed::UnprotectedHeader, |document| {
        document.unprotected = cbor::map_indefinite(&[(cbor::unsigned(4), cbor::null())]);
    });
}

#[test]
fn items_of_another_type_in_the_array_are_refused() {
    let forge = Forge::new();
    let parts = [Part::ProtectedHeader, Part::UnprotectedHeader, Part::Payload, Part::Signature];
    for (index, part) in parts.into_iter().enumerate() {
        let expected = if index == 1 { Kind::Map } else { Kind::Bytes };
        for (item, found) in [
            (cbor::null(), Kind::Null),
            (cbor::unsigned(1), Kind::Unsigned),
            (vec![0x20], Kind::Negative),
            (cbor::text("a"), Kind::Text),
            (cbor::array(&[]), Kind::Array),
            (cbor::head(6, 24), Kind::Tag),
            (vec![0xf5], Kind::Other),
            (vec![0xf7], Kind::Other),
            (vec![0xfb, 0, 0, 0, 0, 0, 0, 0, 0], Kind::Other),
            (vec![cbor::BREAK], Kind::Break),
            (vec![0x1c], Kind::Other),
        ] {
            let mut items = Parts::new(&forge).items();
            items[index] = item;
            let outcome = forge.judge(&cbor::array(&items));
            assert_malformed(outcome, Malformed::WrongType { part, found, expected });
        }
    }
}

#[test]
fn a_signature_of_any_length_but_96_is_refused() {
    let forge = Forge::new();
    for found in [0, 1, 64, 95, 97, 104, 132] {
        let parts = Parts { signature: cbor::bytes(&vec![1; found]), ..Parts::new(&forge) };
        let outcome = forge.judge(&cbor::array(&parts.items()));
        assert_malformed(outcome, Malformed::SignatureLength { found });
    }
}

#[test]
fn a_detached_payload_is_refused() {
    let forge = Forge::new();
    let parts = Parts { payload: cbor::null(), ..Parts::new(&forge) };
    let expected =
        Malformed::WrongType { part: Part::Payload, found: Kind::Null, expected: Kind::Bytes };
    assert_malformed(forge.judge(&cbor::array(&parts.items())), expected);
}

#[test]
fn trailing_bytes_after_the_document_and_after_the_payload_are_refused() {
    for trailing in [&[0][..], &[0xff], &[0xf6, 0xf6], b"\n"] {
        let count = trailing.len();
        assert_broken(Malformed::TrailingBytes { part: Part::Document, count }, |document| {
            document.trailing = trailing.to_vec();
        });
        assert_broken(Malformed::TrailingBytes { part: Part::Payload, count }, |document| {
            document.payload.trailing = trailing.to_vec();
        });
    }
    let forge = Forge::new();
    let twice = [forge.document(|_| {}), forge.document(|_| {})].concat();
    assert!(matches!(
        forge.judge(&twice),
        Err(Refusal::Malformed(Malformed::TrailingBytes { part: Part::Document, .. }))
    ));
}

#[test]
fn a_document_cut_short_anywhere_is_refused() {
    let forge = Forge::new();
    let document = forge.document(|_| {});
    for length in 0..document.len() {
        let outcome = forge.judge(&document[..length]);
        assert!(
            matches!(outcome, Err(Refusal::Malformed(Malformed::Truncated { .. }))),
            "{length}: {outcome:?}"
        );
    }
}

#[test]
fn a_payload_cut_short_anywhere_is_refused_although_its_signature_is_good() {
    let forge = Forge::new();
    let issued = forge.host.issue(&forge.chain()).unwrap();
    let payload = forge.payload(&issued).encode();
    for length in 0..payload.len() {
        let cut = &payload[..length];
        // Never verified: the format is refused first. So any signature will do.
        let document = cbor::array(&[
            cbor::bytes(&PROTECTED_ES384),
            cbor::map(&[]),
            cbor::bytes(cut),
            cbor::bytes(&[1; 96]),
        ]);
        let outcome = forge.judge(&document);
        assert!(
            matches!(outcome, Err(Refusal::Malformed(Malformed::Truncated { .. }))),
            "{length}: {outcome:?}"
        );
    }
}

#[test]
fn strings_in_chunks_are_refused_everywhere() {
    let forge = Forge::new();
    let Parts { protected, unprotected, payload, signature } = Parts::new(&forge);
    let chunks = |item: &[u8], head: usize| cbor::chunked(2, &[&item[head..], &[]]);
    for (part, items) in [
        (
            Part::ProtectedHeader,
            [chunks(&protected, 1), unprotected.clone(), payload.clone(), signature.clone()],
        ),
        (
            Part::Payload,
            [protected.clone(), unprotected.clone(), chunks(&payload, 3), signature.clone()],
        ),
        (
            Part::Signature,
            [protected.clone(), unprotected.clone(), payload.clone(), chunks(&signature, 2)],
        ),
    ] {
        assert_malformed(forge.judge(&cbor::array(&items)), Malformed::Chunked { part });
    }

    let issued = forge.host.issue(&forge.chain()).unwrap();
    let module_id = forge.enclave.module_id();
    let text = |text: &str| cbor::chunked(3, &[text.as_bytes()]);
    for (key, value, part) in [
        ("module_id", text(&module_id), Part::ModuleId),
        ("digest", text("SHA384"), Part::Digest),
        ("certificate", cbor::chunked(2, &[issued.leaf()]), Part::Certificate),
        ("cabundle", cbor::array(&[cbor::chunked(2, &[issued.root()])]), Part::CabundleEntry),
        (
            "pcrs",
            cbor::map(&[(cbor::unsigned(0), cbor::chunked(2, &[&[1; 24], &[1; 24]]))]),
            Part::PcrValue,
        ),
        ("public_key", cbor::chunked(2, &[b"key"]), Part::PublicKey),
        ("user_data", cbor::chunked(2, &[]), Part::UserData),
        ("nonce", cbor::chunked(2, &[&[1; 32]]), Part::Nonce),
    ] {
        assert_field(key, value, Malformed::Chunked { part });
    }
    assert_broken(Malformed::Chunked { part: Part::PayloadKey }, |document| {
        document.payload.entries[0].0 = text("module_id");
    });
}

// What is signed.

#[test]
fn the_payload_is_verified_as_received() {
    // The same content in another encoding, under the first one's signature.
    let forge = Forge::new();
    let issued = forge.host.issue(&forge.chain()).unwrap();
    let mut payload = forge.payload(&issued);
    let signed = sig_structure(&PROTECTED_ES384, &payload.encode());
    let signature = issued.leaf_key.sign_fixed(&signed).unwrap();
    let assemble = |payload: &PayloadSpec| {
        cbor::array(&[
            cbor::bytes(&PROTECTED_ES384),
            cbor::map(&[]),
            cbor::bytes(&payload.encode()),
            cbor::bytes(&signature),
        ])
    };
    forge.judge(&assemble(&payload)).unwrap();
    payload.indefinite = false;
    assert_eq!(forge.judge(&assemble(&payload)), Err(Refusal::Signature));
}

#[test]
fn the_protected_header_is_verified_as_received() {
    let forge = Forge::new();
    let parts =
        Parts { protected: cbor::bytes(&[0xa1, 0x01, 0x39, 0x00, 0x22]), ..Parts::new(&forge) };
    assert_eq!(forge.judge(&cbor::array(&parts.items())), Err(Refusal::Signature));
}

#[test]
fn a_signature_over_the_payload_alone_or_in_another_context_is_refused() {
    let forge = Forge::new();
    let issued = forge.host.issue(&forge.chain()).unwrap();
    let payload = forge.payload(&issued).encode();
    let signature1 = sig_structure(&PROTECTED_ES384, &payload);
    let counter = cbor::array(&[
        cbor::text("CounterSignature"),
        cbor::bytes(&PROTECTED_ES384),
        cbor::bytes(&[]),
        cbor::bytes(&payload),
    ]);
    let with_aad = cbor::array(&[
        cbor::text("Signature1"),
        cbor::bytes(&PROTECTED_ES384),
        cbor::bytes(b"aad"),
        cbor::bytes(&payload),
    ]);
    let judge = |message: &[u8]| {
        forge.judge(&cbor::array(&[
            cbor::bytes(&PROTECTED_ES384),
            cbor::map(&[]),
            cbor::bytes(&payload),
            cbor::bytes(&issued.leaf_key.sign_fixed(message).unwrap()),
        ]))
    };
    judge(&signature1).unwrap();
    for message in [&payload, &counter, &with_aad] {
        assert_eq!(judge(message), Err(Refusal::Signature));
    }
}
