//! The corpus of what comes in before there is a channel, as it is encoded now.
//! `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test channel_corpus` writes it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::path::Path;

use casemate_channel::Progress;
use casemate_channel::wire::{Answer, Hello, Proof};
use casemate_fuzz::channel::ENDS;

/// Target, file name, bytes.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let ends = ENDS.as_ref().unwrap();
    let (_, first) = ends.dial().unwrap();
    let Some(Progress::Continue { send: second, .. }) = ends.answer(&first) else {
        panic!("no answer")
    };
    let hello = Hello::decode(&first[32..]).unwrap();
    let later = Hello { version: 2, ..hello.clone() };
    let proof =
        Proof { key: [1; 32], nonce: [2; 32], apply_version: 1, document: vec![0x84; 4_000] };
    let answer = Answer {
        hello: Hello { from: hello.to.clone(), to: hello.from.clone(), ..hello.clone() },
        proof: Proof { document: vec![0x84; 64], ..proof.clone() },
    };
    vec![
        ("channel_hello", "hello", hello.encode()),
        ("channel_hello", "later-version", later.encode()),
        ("channel_answer", "answer", answer.encode()),
        ("channel_proof", "proof", proof.encode()),
        ("channel_message", "first", first),
        ("channel_message", "second", second),
    ]
}

#[test]
fn the_corpus_of_the_channel_is_current() {
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
fn every_seed_of_the_channel_is_what_it_is_named() {
    for (target, name, bytes) in seeds() {
        let accepted = match (target, name) {
            ("channel_hello", "later-version") => Hello::decode(&bytes).is_err(),
            ("channel_hello", _) => Hello::decode(&bytes).is_ok(),
            ("channel_answer", _) => Answer::decode(&bytes).is_ok(),
            ("channel_proof", _) => Proof::decode(&bytes).is_ok(),
            _ => bytes.len() > 32,
        };
        assert!(accepted, "{target}/{name}");
    }
}
