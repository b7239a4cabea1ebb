//! What verification allocates, in a binary of its own so that nothing else is counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::alloc::System;

use casemate_attestation_verify::{At, verify};
use casemate_sim::cbor;
use common::{anything, aws, genuine};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// In all of a verification, freed or not: a bound on what is held at any moment.
const MOST_BYTES: usize = 256 * 1024;

fn allocated(document: &[u8]) -> usize {
    let (root, expected) = (aws(), anything());
    let region = Region::new(ALLOCATOR);
    let _ = verify(document, &root, &expected, At::Document);
    region.change().bytes_allocated
}

#[test]
fn allocation_is_bounded_by_the_format_and_not_by_what_a_document_declares() {
    // One at a time: the counter is the whole program's.
    for document in genuine() {
        let bytes = allocated(&document.bytes);
        assert!(bytes > 0, "the counter does not count");
        assert!(bytes < MOST_BYTES, "{}: {bytes} bytes", document.known.name);
    }

    let envelope = |payload: &[u8]| {
        cbor::array(&[
            cbor::bytes(&casemate_sim::PROTECTED_ES384),
            cbor::map(&[]),
            cbor::bytes(payload),
            cbor::bytes(&[1; 96]),
        ])
    };
    let entry = |key: &str, value: Vec<u8>| cbor::map_indefinite(&[(cbor::text(key), value)]);
    for (name, document) in [
        ("a hundred megabytes", vec![0x84; 100_000_000]),
        ("an array of 2^64 - 1", cbor::head(4, u64::MAX)),
        ("a string of 2^64 - 1", [cbor::head(4, 4), cbor::head(2, u64::MAX)].concat()),
        ("a string of 2^32", [cbor::head(4, 4), cbor::head(2, 1 << 32)].concat()),
        ("a payload of 2^40 entries", envelope(&cbor::head(5, 1 << 40))),
        ("2^32 PCRs", envelope(&entry("pcrs", cbor::head(5, 1 << 32)))),
        ("2^32 certificates", envelope(&entry("cabundle", cbor::head(4, 1 << 32)))),
        ("user data of 2^32", envelope(&entry("user_data", cbor::head(2, 1 << 32)))),
        ("16 KiB of arrays", envelope(&[0x81; 16 * 1024])),
        ("16 KiB of open arrays", envelope(&[0x9f; 16 * 1024])),
        ("16 KiB of maps", envelope(&[0xbf; 16 * 1024])),
        ("arrays without an envelope", vec![0x9f; 16 * 1024]),
        (
            "thousands of certificates",
            envelope(&entry("cabundle", cbor::array_indefinite(&vec![cbor::bytes(&[1]); 5000]))),
        ),
        ("a long unknown key", envelope(&entry(&"k".repeat(16_000), cbor::null()))),
    ] {
        let bytes = allocated(&document);
        assert!(bytes < 4 * 1024, "{name}: {bytes} bytes");
    }
}
