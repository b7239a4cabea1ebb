use casemate_client::Credential;
use casemate_proto::Algorithm;
use casemate_proto::recovery::LedgerName;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR: u64 = 3_600_000;

fn governor() -> CredentialId {
    Credential::from_secret(Algorithm::Ed25519, &[7; 32]).unwrap().id()
}

fn certificate(former: u64, incarnation: u64, root: u8) -> RecoveryCertificate {
    RecoveryCertificate {
        version: 1,
        genesis: GenesisId::new([1; 32]),
        former: Incarnation(former),
        incarnation: Incarnation(incarnation),
        at: NOW,
        expires: UnixMillis(NOW.0 + HOUR),
        ledger: LedgerName { size: 9, root: Hash32::new([root; 32]), state: Hash32::new([2; 32]) },
        policy: None,
        images: Vec::new(),
        revoked: Vec::new(),
        boots: Vec::new(),
    }
}

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(after: u64) -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        let genesis = GenesisId::new([1; 32]);
        Record::new(genesis, governor(), Incarnation(after)).create(&desk.path()).unwrap();
        desk
    }
    fn path(&self) -> PathBuf {
        self.folder.path().join("record")
    }
    fn serve(&self, certificate: &RecoveryCertificate) -> Result<Serving, RecoverError> {
        serve(&self.path(), governor(), certificate, &[], NOW)
    }
    #[track_caller]
    fn refuses(&self, certificate: &RecoveryCertificate, words: &str) {
        let before = std::fs::read(self.path()).ok();
        let error = self.serve(certificate).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(std::fs::read(self.path()).ok(), before, "a refusal writes nothing");
    }
}

#[test]
fn i7_second_certificate_for_an_incarnation_is_refused_for_ever_and_the_same_one_is_not() {
    let desk = Desk::new(0);
    let first = certificate(0, 1, 1);
    assert_eq!(desk.serve(&first).unwrap(), Serving::First);
    assert_eq!(desk.serve(&first).unwrap(), Serving::Again);
    let second = certificate(0, 1, 2);
    desk.refuses(&second, "refused for ever");
    // not when the first has ended, and whatever is said
    let later = UnixMillis(NOW.0 + 100 * HOUR);
    let said = [Abandoned::Certificate(first.id()), Abandoned::Lost];
    let error = serve(&desk.path(), governor(), &second, &said, later).unwrap_err().to_string();
    assert!(
        error.contains("refused for ever") && error.contains(&first.id().to_string()),
        "{error}"
    );
    // what goes on from it is another matter
    assert_eq!(desk.serve(&certificate(1, 2, 3)).unwrap(), Serving::First);
    desk.refuses(&certificate(0, 1, 4), "incarnation 2 already");
}

#[test]
fn i7_another_number_for_what_was_taken_up_waits_for_the_firsts_end_and_for_a_word() {
    let desk = Desk::new(0);
    let first = certificate(0, 1, 1);
    desk.serve(&first).unwrap();
    let other = certificate(0, 2, 1);
    desk.refuses(&other, "boots may begin with it until");
    let said = [Abandoned::Certificate(first.id())];
    let serve_at = |at: u64, said: &[Abandoned]| {
        serve(&desk.path(), governor(), &other, said, UnixMillis(NOW.0 + at))
    };
    assert!(serve_at(HOUR - 1, &said).is_err(), "a word does not end it");
    let error = serve_at(HOUR, &[]).unwrap_err().to_string();
    assert!(error.contains(&format!("--abandon {}", first.id())), "{error}");
    assert!(serve_at(HOUR, &[Abandoned::Lost]).is_err(), "the word is for a certificate");
    assert_eq!(serve_at(HOUR, &said).unwrap(), Serving::First);
}

#[test]
fn i7_record_that_is_lost_refuses_and_one_begun_anew_refuses_what_may_have_been() {
    let desk = Desk::new(0);
    desk.serve(&certificate(0, 1, 1)).unwrap();
    std::fs::remove_file(desk.path()).unwrap();
    desk.refuses(
        &certificate(0, 1, 2),
        "is missing: without a governor's record nothing is signed",
    );
    assert!(!desk.path().exists());
    let desk = Desk::new(1);
    desk.refuses(&certificate(0, 1, 2), "refused for ever");
    desk.refuses(&certificate(0, 2, 2), "--abandon lost");
    let other = certificate(0, 2, 2);
    let served = serve(&desk.path(), governor(), &other, &[Abandoned::Lost], NOW).unwrap();
    assert_eq!(served, Serving::First);
}

#[test]
fn i7_record_that_is_torn_anywhere_or_changed_refuses() {
    let desk = Desk::new(0);
    desk.serve(&certificate(0, 1, 1)).unwrap();
    let whole = std::fs::read(desk.path()).unwrap();
    let next = certificate(1, 2, 2);
    for length in 0..whole.len() - 1 {
        std::fs::write(desk.path(), &whole[..length]).unwrap();
        desk.refuses(&next, "is not a whole record");
    }
    let text = String::from_utf8(whole.clone()).unwrap();
    for (from, to) in [
        ("\"incarnation\": 1", "\"incarnation\": 0"),
        ("\"former\": 0", "\"former\": 1"),
        ("\"after\": 0", "\"after\": 7"),
        ("casemate.recoveries/1", "casemate.recoveries/2"),
        ("\"after\": 0,", ""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        std::fs::write(desk.path(), changed).unwrap();
        desk.refuses(&next, "is not a whole record");
    }
    std::fs::write(desk.path(), whole).unwrap();
    assert_eq!(desk.serve(&next).unwrap(), Serving::First);
}

#[test]
fn record_of_another_cluster_or_governor_refuses() {
    let desk = Desk::new(0);
    let mut other = certificate(0, 1, 1);
    other.genesis = GenesisId::new([9; 32]);
    desk.refuses(&other, "the record is of cluster");
    let somebody = CredentialId(Hash32::new([5; 32]));
    let error = serve(&desk.path(), somebody, &certificate(0, 1, 1), &[], NOW).unwrap_err();
    assert!(error.to_string().contains("the record is of governor"), "{error}");
}

#[test]
fn record_that_others_can_change_or_another_process_holds_refuses() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new(0);
    let lock = File::create(desk.folder.path().join("record.lock")).unwrap();
    lock.lock().unwrap();
    desk.refuses(&certificate(0, 1, 1), "in use by another process");
    drop(lock);
    std::fs::set_permissions(desk.path(), std::fs::Permissions::from_mode(0o620)).unwrap();
    desk.refuses(&certificate(0, 1, 1), "chmod 600");
}

#[test]
fn record_is_never_begun_in_the_place_of_another() {
    let desk = Desk::new(0);
    desk.serve(&certificate(0, 1, 1)).unwrap();
    let fresh = Record::new(GenesisId::new([1; 32]), governor(), Incarnation(0));
    assert!(fresh.create(&desk.path()).unwrap_err().to_string().contains("exists"));
    desk.refuses(&certificate(0, 1, 2), "refused for ever");
    // and nothing of a write is left beside it
    assert_eq!(std::fs::read_dir(desk.folder.path()).unwrap().count(), 2);
}
