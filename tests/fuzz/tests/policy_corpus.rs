//! The corpus of the policy's targets is the example policies, as text and in their canonical
//! form. `CASEMATE_WRITE_CORPUS=1 cargo test -p casemate-fuzz --test policy_corpus` writes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::path::PathBuf;

use casemate_policy::Policy;

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn corpus_is_the_example_policies() {
    let mut count = 0;
    for entry in fs::read_dir(here("../../docs/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let policy = Policy::from_toml(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().unwrap().to_str().unwrap();
        let files = [
            (here("corpus/policy_toml").join(format!("{name}.toml")), text.into_bytes()),
            (here("corpus/policy_canonical").join(name), policy.canonical_bytes()),
        ];
        for (file, bytes) in files {
            if std::env::var_os("CASEMATE_WRITE_CORPUS").is_some() {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, &bytes).unwrap();
            }
            assert_eq!(fs::read(&file).unwrap_or_default(), bytes, "{}", file.display());
            count += 1;
        }
    }
    assert!(count > 0, "no example policies");
}
