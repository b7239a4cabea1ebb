//! Notes and checkpoints: others' examples, round trips, and what must be refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use casemate_audit::note::{UnixSeconds, cosignature_message};
use casemate_audit::{
    Checkpoint, CheckpointError, CheckpointPolicy, CosignerSet, NoteError, NoteKeyName,
    NoteSignature, Origin, SignatureKind, SignedNote, VerifierKey, verify_checkpoint,
};
use casemate_proto::{BootId, GenesisId, Hash32, Incarnation};
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;

const TIME: UnixSeconds = UnixSeconds(1_795_165_200);

fn origin() -> Origin {
    Origin { genesis: GenesisId::new([0xab; 32]), incarnation: Incarnation(0) }
}

fn secret(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn boot_key(number: u8) -> VerifierKey {
    let public = secret(number).verifying_key().to_bytes();
    origin().boot_key(&BootId::new([number; 32]), &public).unwrap()
}

fn log_key() -> VerifierKey {
    origin().log_key(&secret(100).verifying_key().to_bytes()).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint::new(&origin(), 42, Hash32::new([9; 32]))
}

fn cosign(number: u8, checkpoint: &Checkpoint, time: UnixSeconds) -> NoteSignature {
    let signature = secret(number).sign(&checkpoint.cosignature_message(time)).to_bytes();
    NoteSignature::cosignature(&boot_key(number), time, &signature)
}

fn log_sign(checkpoint: &Checkpoint) -> NoteSignature {
    NoteSignature::ed25519(&log_key(), &secret(100).sign(checkpoint.body().as_bytes()).to_bytes())
}

fn note(lines: &[NoteSignature]) -> SignedNote {
    SignedNote::assemble(&checkpoint().body(), lines).unwrap()
}

/// Two of the boots 1, 2, 3, and the log's key where asked for.
fn policy(log: bool) -> CheckpointPolicy {
    CheckpointPolicy {
        origin: origin().to_string(),
        log_key: log.then(log_key),
        cosigners: CosignerSet::new((1..=3).map(boot_key).collect(), 2).unwrap(),
    }
}

/// golang.org/x/mod/sumdb/note, example_test.go.
#[test]
fn note_of_the_go_library_verifies() {
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let key = VerifierKey::parse(key).unwrap();
    assert_eq!((key.kind(), key.id()), (SignatureKind::Ed25519, [0xc7, 0x4f, 0x20, 0xa3]));
    let text = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n\n\
                — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let note = SignedNote::parse(text.as_bytes()).unwrap();
    assert_eq!(note.to_string(), text);
    assert!(key.is_named_by(&note.signatures()[0]));
    assert!(note.text_is_signed_by(&key));
    let other = SignedNote::parse(text.replace("answer", "Answer").as_bytes()).unwrap();
    assert!(!other.text_is_signed_by(&key));
}

/// The example of C2SP `tlog-cosignature` and `tlog-checkpoint`.
#[test]
fn checkpoint_of_the_specification_parses() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let note = SignedNote::parse(text.as_bytes()).unwrap();
    let checkpoint = Checkpoint::parse(note.text()).unwrap();
    assert_eq!(
        (checkpoint.origin.as_str(), checkpoint.size),
        ("example.com/behind-the-sofa", 20_852_163)
    );
    assert_eq!(note.signatures().len(), 2);
    assert_eq!(note.to_string(), text);
    let message = cosignature_message(note.text(), UnixSeconds(1_679_315_147));
    assert_eq!(
        String::from_utf8(message).unwrap(),
        "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n\
         CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    );
}

/// A checkpoint of a public log (arche2025h1, staging) with the cosignatures of public witnesses,
/// whose keys their operators publish.
const PUBLIC: &str = "arche2025h1.staging.ct.transparency.dev\n1432088532\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\n\
    — arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=\n\
    — arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=\n\
    — transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==\n\
    — witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==\n\
    — remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n\
    — witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==\n";

/// The keys of the witnesses of [`PUBLIC`], and one of a witness that did not sign.
const WITNESSES: [&str; 5] = [
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
    "rgdd.se/poc-witness+db03732e+BCjJKlo6BU0xfIb8LutqerIFTWIXEA0L5n3tW3QyPFgG",
];

#[test]
fn genuine_checkpoint_of_a_public_log_and_its_witnesses_verifies() {
    let log = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f";
    let witnesses = || WITNESSES.iter().map(|key| VerifierKey::parse(key).unwrap()).collect();
    let policy = |needed| CheckpointPolicy {
        origin: "arche2025h1.staging.ct.transparency.dev".to_owned(),
        log_key: Some(VerifierKey::parse(log).unwrap()),
        cosigners: CosignerSet::new(witnesses(), needed).unwrap(),
    };
    let note = SignedNote::parse(PUBLIC.as_bytes()).unwrap();
    assert_eq!(note.to_string(), PUBLIC);
    let verified = verify_checkpoint(&note, &policy(4)).unwrap();
    assert_eq!(verified.checkpoint().size, 1_432_088_532);
    assert!(verified.is_log_signed());
    assert_eq!(verified.cosignatures().len(), 4);
    assert!(verified.cosignatures().iter().all(|c| c.time == UnixSeconds(1_779_573_024)));
    assert!(matches!(
        verify_checkpoint(&note, &policy(5)),
        Err(CheckpointError::TooFewCosigners { found: 4, needed: 5 })
    ));
    let other = SignedNote::parse(PUBLIC.replace("1432088532", "1432088533").as_bytes()).unwrap();
    assert!(matches!(
        verify_checkpoint(&other, &policy(1)),
        Err(CheckpointError::BadSignature { .. })
    ));
}

#[test]
fn i10_checkpoint_with_enough_cosigners_is_verified() {
    let note = note(&[cosign(1, &checkpoint(), TIME), cosign(3, &checkpoint(), TIME)]);
    let parsed = SignedNote::parse(note.to_string().as_bytes()).unwrap();
    let verified = verify_checkpoint(&parsed, &policy(false)).unwrap();
    assert_eq!(verified.checkpoint(), &checkpoint());
    assert_eq!(verified.cosignatures().len(), 2);
    assert_eq!(verified.cosignatures()[0].time, TIME);
    assert!(!verified.is_log_signed());
}

#[test]
fn log_key_is_required_where_the_policy_names_it() {
    let boots = [cosign(1, &checkpoint(), TIME), cosign(2, &checkpoint(), TIME)];
    assert!(matches!(
        verify_checkpoint(&note(&boots), &policy(true)),
        Err(CheckpointError::LogSignatureMissing { .. })
    ));
    let all = [&boots[..], &[log_sign(&checkpoint())]].concat();
    assert!(verify_checkpoint(&note(&all), &policy(true)).unwrap().is_log_signed());
    let other = Checkpoint { size: 43, ..checkpoint() };
    let wrong = [&boots[..], &[log_sign(&other)]].concat();
    assert!(matches!(
        verify_checkpoint(&note(&wrong), &policy(true)),
        Err(CheckpointError::BadSignature { .. })
    ));
}

#[test]
fn one_cosigner_twice_counts_once() {
    let later = UnixSeconds(TIME.0 + 1);
    let note = note(&[cosign(1, &checkpoint(), TIME), cosign(1, &checkpoint(), later)]);
    assert_eq!(
        verify_checkpoint(&note, &policy(false)),
        Err(CheckpointError::TooFewCosigners { found: 1, needed: 2 })
    );
}

#[test]
fn unknown_cosigner_does_not_count_and_does_not_harm() {
    let stranger = cosign(7, &checkpoint(), TIME);
    let few = note(&[cosign(1, &checkpoint(), TIME), stranger.clone()]);
    assert!(matches!(
        verify_checkpoint(&few, &policy(false)),
        Err(CheckpointError::TooFewCosigners { found: 1, needed: 2 })
    ));
    let enough = note(&[stranger, cosign(1, &checkpoint(), TIME), cosign(2, &checkpoint(), TIME)]);
    assert!(verify_checkpoint(&enough, &policy(false)).is_ok());
}

#[test]
fn wrong_signature_of_a_known_cosigner_refuses_the_note() {
    let other = Checkpoint { size: 43, ..checkpoint() };
    let good = [cosign(1, &checkpoint(), TIME), cosign(2, &checkpoint(), TIME)];
    // over another checkpoint; with another time than was signed; as a plain Ed25519 signature
    let signature = secret(3).sign(&checkpoint().cosignature_message(TIME)).to_bytes();
    for bad in [
        cosign(3, &other, TIME),
        NoteSignature::cosignature(&boot_key(3), UnixSeconds(TIME.0 + 1), &signature),
        NoteSignature::ed25519(&boot_key(3), &signature),
        NoteSignature::cosignature(&boot_key(3), UnixSeconds(1 << 63), &signature),
    ] {
        let note = note(&[&good[..], &[bad]].concat());
        assert!(matches!(
            verify_checkpoint(&note, &policy(false)),
            Err(CheckpointError::BadSignature { .. })
        ));
    }
}

#[test]
fn cosignature_does_not_pass_for_a_log_signature() {
    let signature = secret(100).sign(&checkpoint().cosignature_message(TIME)).to_bytes();
    let line = NoteSignature::ed25519(&log_key(), &signature);
    let note = note(&[cosign(1, &checkpoint(), TIME), cosign(2, &checkpoint(), TIME), line]);
    assert!(matches!(
        verify_checkpoint(&note, &policy(true)),
        Err(CheckpointError::BadSignature { .. })
    ));
}

#[test]
fn checkpoint_of_another_cluster_or_incarnation_is_refused() {
    let note = note(&[cosign(1, &checkpoint(), TIME), cosign(2, &checkpoint(), TIME)]);
    let later = Origin { incarnation: Incarnation(1), ..origin() };
    let stranger = Origin { genesis: GenesisId::new([0xac; 32]), ..origin() };
    for other in [later, stranger] {
        let policy = CheckpointPolicy { origin: other.to_string(), ..policy(false) };
        assert!(matches!(verify_checkpoint(&note, &policy), Err(CheckpointError::OtherLog { .. })));
    }
}

#[test]
fn one_key_under_two_names_is_no_cosigner_set() {
    let key = secret(1).verifying_key().to_bytes();
    let twin = origin().boot_key(&BootId::new([9; 32]), &key).unwrap();
    for bad in [vec![boot_key(1), twin], vec![boot_key(1), boot_key(1)], vec![log_key()]] {
        assert!(matches!(CosignerSet::new(bad, 1), Err(CheckpointError::CosignerRepeated { .. })));
    }
    for needed in [0, 3] {
        assert!(matches!(
            CosignerSet::new(vec![boot_key(1), boot_key(2)], needed),
            Err(CheckpointError::BadThreshold { .. })
        ));
    }
    assert!(matches!(CosignerSet::new(vec![], 0), Err(CheckpointError::BadThreshold { .. })));
}

#[test]
fn checkpoint_of_another_form_is_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let good = format!("o\n7\n{root}\n");
    assert_eq!(Checkpoint::parse(&good).unwrap().body(), good);
    for bad in [
        String::new(),
        format!("o\n7\n{root}"),
        format!("o\n7\n{root}\nextension\n"),
        format!("o\n7\n{root}\n\n"),
        format!("\n7\n{root}\n"),
        format!("o\n07\n{root}\n"),
        format!("o\n+7\n{root}\n"),
        format!("o\n-7\n{root}\n"),
        format!("o\n7 \n{root}\n"),
        format!("o\n18446744073709551616\n{root}\n"),
        format!("o\n7\n{}\n", root.trim_end_matches('=')),
        format!("o\n7\n{}\n", root.replace("2I=", "2J=")),
        "o\n7\nAAAA\n".to_owned(),
        format!("o\n7\n{root}A\n"),
    ] {
        assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn note_of_another_form_is_refused() {
    let good = note(&[cosign(1, &checkpoint(), TIME)]).to_string();
    assert!(SignedNote::parse(good.as_bytes()).is_ok());
    let body = checkpoint().body();
    for bad in [
        String::new(),
        "\n\n".to_owned(),
        body.clone(),
        format!("{body}\n"),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        good.replace('—', "-"),
        good.replace("— ", "—"),
        good.replace("— ", "—  "),
        format!("{body}\n— a\n"),
        format!("{body}\n— a AAAA\n"),
        format!("{body}\n— a AAAAAAA\n"),
        format!("{body}\n— a+b AAAAAAAA\n"),
        format!("{body}\n— a\u{a0}b AAAAAAAA\n"),
        good.replace("42", "4\t2"),
        good.replace("42", "4\r2"),
    ] {
        assert!(SignedNote::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(matches!(SignedNote::parse(b"a\xff\n\n"), Err(NoteError::NotText { at: 1 })));
    let many = "— a AAAAAAA=\n".repeat(65);
    assert_eq!(
        SignedNote::parse(format!("{body}\n{many}").as_bytes()),
        Err(NoteError::TooManySignatures)
    );
    let huge = format!("{}\n\n— a AAAAAAA=\n", "x".repeat(40_000));
    assert!(matches!(SignedNote::parse(huge.as_bytes()), Err(NoteError::TooLarge { .. })));
}

#[test]
fn verifier_keys_have_one_form() {
    for key in [boot_key(1), log_key()] {
        assert_eq!(VerifierKey::parse(&key.to_string()), Ok(key));
    }
    let good = log_key().to_string();
    for bad in [
        good.replacen('+', "+0", 1),
        good.replacen('+', "", 1),
        good.to_uppercase(),
        format!("{good}="),
        "a+00000000+AQ==".to_owned(),
        String::new(),
    ] {
        assert!(VerifierKey::parse(&bad).is_err(), "{bad}");
    }
    // the neutral element would verify anything
    let mut weak = [0; 32];
    weak[0] = 1;
    let name = NoteKeyName::new("a").unwrap();
    assert!(matches!(
        VerifierKey::new(name, SignatureKind::Ed25519, &weak),
        Err(NoteError::WeakKey { .. })
    ));
}

#[test]
fn origins_have_one_form() {
    let text = origin().to_string();
    assert_eq!(Origin::parse(&text), Ok(origin()));
    for bad in ["", "casemate/ab/0", &format!("{text}0"), &text.to_uppercase(), &text[1..]] {
        let refused = Origin::parse(bad);
        // an incarnation of 00 is another way to write 0
        assert!(matches!(refused, Err(CheckpointError::BadOrigin { .. })), "{bad}");
    }
}

#[test]
fn notes_over_one_text_merge_and_others_do_not() {
    let (a, b) = (cosign(1, &checkpoint(), TIME), cosign(2, &checkpoint(), TIME));
    let merged = note(std::slice::from_ref(&a)).merged(&note(&[a.clone(), b.clone()])).unwrap();
    assert_eq!(merged, note(&[a.clone(), b]));
    let other = Checkpoint { size: 43, ..checkpoint() };
    let other = SignedNote::assemble(&other.body(), &[cosign(1, &other, TIME)]).unwrap();
    assert!(merged.merged(&other).is_err());
}

proptest! {
    #[test]
    fn what_parses_as_a_note_prints_the_same(text in "[a-c\n —+]{0,40}", tail in "(— [ab] AAAAAAA=\n){0,3}") {
        let input = format!("{text}\n\n{tail}");
        if let Ok(note) = SignedNote::parse(input.as_bytes()) {
            prop_assert_eq!(note.to_string(), input);
        }
    }

    #[test]
    fn flipped_byte_of_a_note_never_verifies(at: prop::sample::Index, flip in 1_u8..=255) {
        let good = note(&[cosign(1, &checkpoint(), TIME), cosign(2, &checkpoint(), TIME)]).to_string();
        let mut bytes = good.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(note) = SignedNote::parse(&bytes) {
            prop_assert!(verify_checkpoint(&note, &policy(false)).is_err());
        }
    }
}
