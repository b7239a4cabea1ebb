//! The corpus of messages between nodes: each kind once, as it is encoded now.
//! `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test signer_corpus` writes it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;

use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, KeyName, NodeName, UnixMillis};
use casemate_signer::{PeerMessage, StartKey, StartTest};

fn messages() -> Vec<(&'static str, PeerMessage)> {
    let node = |name: &str| NodeName::new(name).unwrap();
    let participants = || vec![node("eu-west-1"), node("us-east-1")];
    let (hash, other) = (Hash32::new([1; 32]), Hash32::new([2; 32]));
    let name = || KeyName::new("agent-7").unwrap();
    vec![
        ("run", PeerMessage::Run(vec![1, 2, 3])),
        (
            "start_triples",
            PeerMessage::StartTriples { size: 9, number: 4, participants: participants() },
        ),
        (
            "start_sign",
            PeerMessage::StartSign {
                index: 8,
                attempt: 1,
                participants: participants(),
                triples: Some(hash),
                root: other,
                epoch: 3,
            },
        ),
        ("declined", PeerMessage::Declined { index: 8, attempt: 1, next: 2 }),
        (
            "start_key",
            PeerMessage::StartKey(StartKey {
                name: name(),
                epoch: 3,
                size: 9,
                number: 4,
                boots: vec![BootId::new([3; 32]), BootId::new([4; 32])],
            }),
        ),
        ("key_declined", PeerMessage::KeyDeclined { name: name(), number: 4, next: 5 }),
        (
            "start_test",
            PeerMessage::StartTest(StartTest {
                name: name(),
                transcript: hash,
                participants: participants(),
                triples: Some(other),
                size: 9,
                number: 6,
            }),
        ),
        ("here", PeerMessage::Here),
        (
            "tested",
            PeerMessage::Tested {
                name: name(),
                transcript: hash,
                participants: participants(),
                signature: [7; 64],
            },
        ),
        (
            "confirmed",
            PeerMessage::Confirmed { name: name(), transcript: hash, signature: [7; 64] },
        ),
        ("cosign", PeerMessage::Cosign { size: 9, root: other }),
        ("cosigned", PeerMessage::Cosigned { size: 9, at: UnixMillis(1_000), signature: [7; 64] }),
        (
            "start_log_signature",
            PeerMessage::StartLogSignature {
                size: 9,
                root: other,
                participants: participants(),
                number: 5,
                epoch: 3,
            },
        ),
        ("checkpoint", PeerMessage::Checkpoint("casemate/0x00/0\n1\nAA==\n".to_owned())),
    ]
}

#[test]
fn corpus_is_what_is_encoded_now() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/peer_message");
    for (name, message) in messages() {
        let file = folder.join(format!("{name}.cbor"));
        let bytes = message.encode();
        if std::env::var_os("CASEMATE_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), bytes, "{name}");
        assert_eq!(PeerMessage::decode(&bytes), Ok(message));
    }
}
