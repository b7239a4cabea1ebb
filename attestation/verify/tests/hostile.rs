//! Any bytes at all: no panic, no evidence, and memory bounded by the format's limits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use casemate_attestation_verify::{At, Revocation, TrustRoot, UnixMillis, verify};
use casemate_sim::cbor;
use common::{anything, aws, genuine};
use proptest::{collection::vec, prelude::*, sample::Index};

fn refused(document: &[u8]) -> bool {
    verify(document, &aws(), &anything(), At::Document).is_err()
}

/// CBOR of any shape, so that more than the first byte is looked at.
fn any_item() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        "(module_id|digest|timestamp|pcrs|certificate|cabundle|public_key|user_data|nonce)"
            .prop_map(|key| cbor::text(&key)),
        any::<u64>().prop_map(cbor::unsigned),
    ];
    let leaf = prop_oneof![
        any::<u64>().prop_map(cbor::unsigned),
        vec(any::<u8>(), 0..64).prop_map(|bytes| cbor::bytes(&bytes)),
        ".{0,16}".prop_map(|text| cbor::text(&text)),
        Just(cbor::text("SHA384")),
        Just(cbor::bytes(&[1; 48])),
        Just(cbor::null()),
        vec(any::<u8>(), 0..4),
        (0u8..8, any::<u64>(), 0usize..9)
            .prop_map(|(major, argument, size)| cbor::head_sized(major, argument, size)),
    ];
    leaf.prop_recursive(4, 64, 9, move |item| {
        prop_oneof![
            vec(item.clone(), 0..9).prop_map(|items| cbor::array(&items)),
            vec(item.clone(), 0..9).prop_map(|items| cbor::array_indefinite(&items)),
            vec((key.clone(), item.clone()), 0..9).prop_map(|entries| cbor::map(&entries)),
            vec((key.clone(), item), 0..9).prop_map(|entries| cbor::map_indefinite(&entries)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_are_refused(document in vec(any::<u8>(), 0..20_000)) {
        prop_assert!(refused(&document));
    }

    #[test]
    fn arbitrary_items_are_refused(item in any_item()) {
        prop_assert!(refused(&item));
    }

    #[test]
    fn arbitrary_payloads_are_refused(payload in any_item(), signature in vec(any::<u8>(), 96)) {
        let document = cbor::array(&[
            cbor::bytes(&casemate_sim::PROTECTED_ES384),
            cbor::map(&[]),
            cbor::bytes(&payload),
            cbor::bytes(&signature),
        ]);
        prop_assert!(refused(&document));
    }

    #[test]
    fn genuine_documents_with_arbitrary_pieces_are_refused(
        which in any::<Index>(),
        at in any::<Index>(),
        removed in 0usize..200,
        piece in vec(any::<u8>(), 0..200),
    ) {
        let documents = genuine();
        let original = &which.get(&documents).bytes;
        let at = at.index(original.len());
        let end = at.saturating_add(removed).min(original.len());
        prop_assume!(original[at..end] != piece);
        let document = [&original[..at], &piece, &original[end..]].concat();
        prop_assert!(refused(&document));
    }

    #[test]
    fn arbitrary_bytes_are_no_root_and_no_revocation(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert!(TrustRoot::from_der(&bytes).is_err());
        prop_assert!(Revocation::of_certificate(&bytes).is_err());
        prop_assert!(TrustRoot::from_pem(&String::from_utf8_lossy(&bytes)).is_err());
    }

    #[test]
    fn a_genuine_root_with_arbitrary_pieces_never_panics(
        at in any::<Index>(),
        removed in 0usize..60,
        piece in vec(any::<u8>(), 0..60),
    ) {
        let forge = common::forge::Forge::new();
        let original = forge.host.root_der();
        let at = at.index(original.len());
        let end = at.saturating_add(removed).min(original.len());
        prop_assume!(original[at..end] != piece);
        let altered = [&original[..at], &piece, &original[end..]].concat();
        prop_assert!(TrustRoot::from_der(&altered).is_err());
    }

    #[test]
    fn no_time_overflows(milliseconds in any::<u64>()) {
        let _ = UnixMillis::new(milliseconds).to_string();
    }
}
