//! Genuine documents altered by whoever carries them.
//!
//! What of a document no signature covers: the envelope's own encoding, and the choice between a
//! signature and its twin (r, n - s). Neither changes what the document says. A single altered byte
//! never gets that far: all of them are refused, without exception.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use std::thread;

use casemate_attestation_verify::{At, CertificateFault, Position, Refusal, verify};
use casemate_sim::cbor;
use common::{Genuine, anything, aws, genuine};

/// How each byte is altered: the masks for the byte at an index.
type Masks = fn(usize) -> Vec<u8>;

/// Refuses a document altered by every mask at every one of its bytes; says how many it tried.
fn refuse_flips(document: &Genuine, masks: Masks) -> usize {
    let (root, expected) = (aws(), anything());
    let mut altered = document.bytes.clone();
    let mut tried = 0;
    for index in 0..altered.len() {
        for mask in masks(index) {
            altered[index] ^= mask;
            let outcome = verify(&altered, &root, &expected, At::Document);
            assert!(
                outcome.is_err(),
                "{}: byte {index} altered by {mask:#04x} verifies",
                document.known.name
            );
            altered[index] ^= mask;
            tried += 1;
        }
    }
    assert_eq!(altered, document.bytes);
    tried
}

/// Runs over the documents on all processors.
fn on_all(documents: &[Genuine], masks: Masks) -> usize {
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let share = documents.len().div_ceil(workers).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = documents
            .chunks(share)
            .map(|documents| {
                scope.spawn(move || {
                    documents.iter().map(|document| refuse_flips(document, masks)).sum::<usize>()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    })
}

#[test]
fn every_byte_of_every_genuine_document_flipped_is_refused() {
    // Another bit from byte to byte, so that all bits are met in every field.
    let tried = on_all(&genuine(), |index| vec![1 << (index % 8)]);
    assert!(tried > 80_000, "{tried}");
}

#[test]
fn every_bit_of_a_genuine_document_flipped_is_refused() {
    let document = common::named("turnkey-2025-indefmap-a");
    let tried = on_all(&[document], |_| (0..8).map(|bit| 1 << bit).collect());
    assert!(tried > 35_000, "{tried}");
}

#[test]
fn every_genuine_document_cut_short_or_continued_is_refused() {
    for document in genuine() {
        let bytes = &document.bytes;
        for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            assert!(verify(&bytes[..length], &aws(), &anything(), At::Document).is_err());
        }
        for tail in [&[0][..], &[0xff], &[0xa0], &bytes[..]] {
            let continued = [&bytes[..], tail].concat();
            assert!(verify(&continued, &aws(), &anything(), At::Document).is_err());
        }
    }
}

/// A genuine document's items and the ranges of its certificates, found by their bytes.
struct Taken {
    payload: Vec<u8>,
    signature: Vec<u8>,
    bundle: Vec<Vec<u8>>,
    leaf: Vec<u8>,
}

fn take(document: &[u8]) -> Taken {
    let mut decoder = minicbor::Decoder::new(document);
    decoder.array().unwrap();
    decoder.bytes().unwrap();
    decoder.map().unwrap();
    let payload = decoder.bytes().unwrap();
    let signature = decoder.bytes().unwrap().to_vec();
    let find = |name: &str| {
        let name = cbor::text(name);
        payload.windows(name.len()).position(|window| window == name).unwrap() + name.len()
    };
    let leaf = minicbor::Decoder::new(&payload[find("certificate")..]).bytes().unwrap().to_vec();
    let mut decoder = minicbor::Decoder::new(&payload[find("cabundle")..]);
    let count = decoder.array().unwrap().unwrap();
    let bundle = (0..count).map(|_| decoder.bytes().unwrap().to_vec()).collect();
    Taken { payload: payload.to_vec(), signature, bundle, leaf }
}

impl Taken {
    /// The document with other certificates in place of its own.
    fn with(&self, bundle: &[Vec<u8>], leaf: &[u8]) -> Vec<u8> {
        let encode = |bundle: &[Vec<u8>]| {
            let items: Vec<_> = bundle.iter().map(|bytes| cbor::bytes(bytes)).collect();
            [cbor::text("cabundle"), cbor::array(&items)].concat()
        };
        let leaf_entry = |leaf: &[u8]| [cbor::text("certificate"), cbor::bytes(leaf)].concat();
        let payload = replace(&self.payload, &encode(&self.bundle), &encode(bundle));
        let payload = replace(&payload, &leaf_entry(&self.leaf), &leaf_entry(leaf));
        envelope(&cbor::map(&[]), &payload, &self.signature)
    }
}

fn envelope(unprotected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    cbor::array(&[
        cbor::bytes(&casemate_sim::PROTECTED_ES384),
        unprotected.to_vec(),
        cbor::bytes(payload),
        cbor::bytes(signature),
    ])
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn genuine_certificates_dropped_swapped_or_repeated_are_refused_for_that_reason() {
    for document in genuine() {
        let taken = take(&document.bytes);
        assert_eq!(taken.with(&taken.bundle, &taken.leaf), document.bytes);
        let judge = |bundle: &[Vec<u8>], leaf: &[u8]| {
            verify(&taken.with(bundle, leaf), &aws(), &anything(), At::Document).unwrap_err()
        };
        let count = taken.bundle.len();
        for index in 1..count {
            let mut dropped = taken.bundle.clone();
            dropped.remove(index);
            let position =
                if index == count - 1 { Position::Leaf } else { Position::Cabundle(index) };
            let expected = Refusal::Certificate { position, fault: CertificateFault::Issuer };
            assert_eq!(judge(&dropped, &taken.leaf), expected);

            let mut repeated = taken.bundle.clone();
            repeated.insert(index, taken.bundle[index].clone());
            assert!(matches!(judge(&repeated, &taken.leaf), Refusal::Certificate { .. }));
        }
        let mut headless = taken.bundle.clone();
        headless.remove(0);
        assert!(matches!(judge(&headless, &taken.leaf), Refusal::Root { .. }));
        for first in 0..count {
            for second in first + 1..count {
                let mut swapped = taken.bundle.clone();
                swapped.swap(first, second);
                let refusal = judge(&swapped, &taken.leaf);
                assert!(matches!(refusal, Refusal::Certificate { .. } | Refusal::Root { .. }));
            }
        }
        let mut twice = taken.bundle.clone();
        twice.insert(1, taken.bundle[0].clone());
        let position = Position::Cabundle(1);
        let expected = Refusal::Certificate { position, fault: CertificateFault::SelfIssued };
        assert_eq!(judge(&twice, &taken.leaf), expected);
        // The instance's authority in the leaf's place.
        assert!(matches!(
            judge(&taken.bundle, &taken.bundle[count - 1]),
            Refusal::Certificate { position: Position::Leaf, .. }
        ));
    }
}

#[test]
fn certificates_of_one_genuine_document_do_not_serve_another() {
    let documents = genuine();
    let mut tried = 0;
    for (one, other) in documents.iter().zip(documents.iter().skip(1)) {
        let (one, other) = (take(&one.bytes), take(&other.bytes));
        let whole = one.with(&other.bundle, &other.leaf);
        assert!(verify(&whole, &aws(), &anything(), At::Document).is_err());
        let leaf = one.with(&one.bundle, &other.leaf);
        assert!(verify(&leaf, &aws(), &anything(), At::Document).is_err());
        let signature = envelope(&cbor::map(&[]), &one.payload, &other.signature);
        let refusal = verify(&signature, &aws(), &anything(), At::Document);
        assert_eq!(refusal, Err(Refusal::Signature));
        tried += 1;
    }
    assert!(tried >= 17);
}

#[test]
fn a_genuine_document_has_twins_that_say_the_same() {
    // So the hash of a document is no identifier of it.
    for document in genuine() {
        let known = verify(&document.bytes, &aws(), &anything(), At::Document).unwrap();
        let taken = take(&document.bytes);
        let (r, s) = taken.signature.split_at(48);
        let other_s = [r, &order_minus(s)].concat();
        let twins = [
            envelope(&cbor::map(&[]), &taken.payload, &other_s),
            envelope(&cbor::map_indefinite(&[]), &taken.payload, &taken.signature),
        ];
        for twin in twins {
            assert_ne!(twin, document.bytes);
            assert_eq!(verify(&twin, &aws(), &anything(), At::Document), Ok(known.clone()));
        }
    }
}

/// `n - s` for the order n of P-384's group (SEC 2, section 2.5.1).
fn order_minus(s: &[u8]) -> Vec<u8> {
    const ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffff\
                         c7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let order = hex::decode(ORDER).unwrap();
    let mut difference = vec![0; 48];
    let mut borrow = 0;
    for index in (0..48).rev() {
        let digit = i16::from(order[index]) - i16::from(s[index]) - borrow;
        borrow = i16::from(digit < 0);
        difference[index] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    difference
}
