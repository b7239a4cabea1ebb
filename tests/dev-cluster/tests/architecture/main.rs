//! The architecture, held over `cargo metadata`, the crates' manifests and their sources:
//! which zone may depend on which, what pure code may name, and what no crate may bring in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod planted;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};
use source::{Token, released, starts_with};

/// What the rules look at of one crate.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    /// Folder from the workspace's root, such as `shared/proto`.
    folder: String,
    dependencies: Vec<Dependency>,
    features: Vec<String>,
    /// Its Cargo.toml.
    manifest: String,
}

#[derive(Clone, Debug)]
struct Dependency {
    name: String,
    kind: DependencyKind,
    /// Where a dependency by path is, from the workspace's root.
    folder: Option<String>,
    /// The registry, where it is not by path.
    source: Option<String>,
}

/// A rule that a crate breaks, for a person.
type Violation = String;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn workspace() -> Vec<Member> {
    let root = root();
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap();
    let folder = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| Member {
            name: package.name.to_string(),
            folder: folder(package.manifest_path.parent().unwrap().as_std_path()),
            dependencies: package
                .dependencies
                .iter()
                .map(|dependency| Dependency {
                    name: dependency.name.clone(),
                    kind: dependency.kind,
                    folder: dependency.path.as_ref().map(|path| folder(path.as_std_path())),
                    source: dependency.source.as_ref().map(ToString::to_string),
                })
                .collect(),
            features: package.features.keys().cloned().collect(),
            manifest: std::fs::read_to_string(&package.manifest_path).unwrap(),
        })
        .collect()
}

/// `shared`, `attestation`, `enclave`, `parent`, `eif` or `tests`.
fn zone(folder: &str) -> &str {
    folder.split('/').next().unwrap()
}

/// Crates that take bytes, randomness and time as arguments.
fn is_pure(folder: &str) -> bool {
    matches!(
        folder,
        "attestation/verify"
            | "enclave/seal"
            | "enclave/threshold"
            | "enclave/signer"
            | "enclave/channel"
    ) || (zone(folder) == "shared" && folder != "shared/transport")
}

/// Whether a crate of `from` may depend on one of `to`, as the layout of the design says.
fn may_depend(from: &str, to: &str, kind: DependencyKind) -> bool {
    if kind == DependencyKind::Development && to == "tests/sim" {
        return true;
    }
    match (zone(from), zone(to)) {
        ("tests", _) | ("shared" | "enclave" | "parent", "shared") => true,
        // the builder and the first program; neither knows the signer, whose binary is a file to them
        ("eif", "shared" | "attestation") => true,
        ("shared", "attestation") => from == "shared/ledger" && to == "attestation/verify",
        ("attestation" | "enclave" | "parent", "attestation") => true,
        ("enclave", "enclave") | ("parent", "parent") => true,
        _ => false,
    }
}

fn arrow_violations(members: &[Member]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in members {
        if !["shared", "attestation", "enclave", "parent", "eif", "tests"]
            .contains(&zone(&member.folder))
        {
            violations.push(format!("{}: `{}` is in no zone", member.name, member.folder));
        }
        for dependency in &member.dependencies {
            if let Some(to) = &dependency.folder
                && !may_depend(&member.folder, to, dependency.kind)
            {
                violations.push(format!("`{}` may not depend on `{to}`", member.folder));
            }
        }
    }
    violations
}

/// What no crate may name as its own dependency, and why. `deny.toml` bans some of them from the
/// whole graph.
const FORBIDDEN: &[(&str, &str)] = &[
    ("serde_cbor", "unmaintained; docs/decisions/0001-packages.md"),
    ("ciborium", "one CBOR: minicbor"),
    ("openssl", "a second cryptography in C"),
    ("native-tls", "a second cryptography in C"),
    ("ring", "a second copy of what aws-lc-rs does"),
    ("rand", "randomness comes from rand_core, so that it is an argument"),
    ("chrono", "casemate-proto has the time that is needed"),
    ("lazy_static", "std has LazyLock"),
    ("anyhow", "errors are typed"),
];

/// What pure crates may not depend on: it reads, waits, or asks the system.
const IMPURE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "socket2",
    "libc",
    "nix",
    "rustix",
    "getrandom",
    "hyper",
    "reqwest",
    "ureq",
    "tempfile",
    "walkdir",
    "clap",
    "openraft",
    "vsock",
    "tokio-vsock",
    "aws-nitro-enclaves-nsm-api",
    "time",
    "uuid",
    "tracing-subscriber",
    "crossbeam",
    "rayon",
    "parking_lot",
    "num_cpus",
    "dirs",
    "memmap2",
];

fn dependency_violations(members: &[Member]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in members {
        for dependency in &member.dependencies {
            let name = dependency.name.as_str();
            let mut wrong =
                |why: &str| violations.push(format!("`{}` on `{name}`: {why}", member.folder));
            if let Some((_, why)) = FORBIDDEN.iter().find(|(forbidden, _)| *forbidden == name) {
                wrong(why);
            }
            let released = dependency.kind != DependencyKind::Development;
            if released && is_pure(&member.folder) && IMPURE.contains(&name) {
                wrong("a pure crate does no I/O, reads no clock and draws no randomness");
            }
            let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
            if dependency.source.as_deref().is_some_and(|source| source != crates_io) {
                wrong("not from crates.io");
            }
        }
    }
    violations
}

/// Words that a released feature's name may not have: the simulator is a crate, not a feature.
const TEST_WORDS: &[&str] =
    &["mock", "sim", "simulator", "test", "tests", "testing", "fake", "insecure"];

fn manifest_violations(members: &[Member]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in members {
        let lines: Vec<&str> = member.manifest.lines().map(str::trim).collect();
        let mut wrong = |what: String| violations.push(format!("`{}`: {what}", member.folder));
        if !lines.windows(2).any(|pair| pair == ["[lints]", "workspace = true"]) {
            wrong("does not inherit the workspace's lints".to_owned());
        }
        for field in ["version", "edition", "rust-version", "license", "publish"] {
            if !lines.contains(&format!("{field}.workspace = true").as_str()) {
                wrong(format!("does not inherit the workspace's `{field}`"));
            }
        }
        if !lines.iter().any(|line| line.starts_with("description = ")) {
            wrong("has no description".to_owned());
        }
        if zone(&member.folder) != "tests" {
            for feature in &member.features {
                if feature.split(['-', '_']).any(|word| TEST_WORDS.contains(&word)) {
                    wrong(format!("feature `{feature}` in a released crate"));
                }
            }
        }
    }
    violations
}

/// What pure code may not name, as a word anywhere.
const IMPURE_WORDS: &[&str] = &[
    "SystemTime",
    "Instant",
    "tokio",
    "OsRng",
    "thread_rng",
    "getrandom",
    "ThreadRng",
    "HashMap",
    "HashSet",
    "RandomState",
    "println",
    "eprintln",
];

/// What pure code may not name of the standard library.
const IMPURE_STD: &[&str] = &["fs", "net", "env", "process", "thread", "os"];

/// Where pure code does name one, and why that is allowed. An exception that nothing needs fails.
const EXCEPTIONS: &[(&str, &str)] = &[
    // only where a bug is planted on purpose: which of them is awake
    ("shared/proto/src/sabotage.rs", "env"),
];

/// Lints that released code may only `expect`, with a reason, and never `allow`.
const STRICT_LINTS: &[&str] = &[
    "unwrap_used",
    "expect_used",
    "panic",
    "indexing_slicing",
    "arithmetic_side_effects",
    "as_conversions",
    "unreachable",
    "unsafe_code",
    "float_arithmetic",
];

/// The names directly under `std` (or `core`, `alloc`) in a `use` tree or a path at `at`.
fn names_of_std(tokens: &[Token], at: usize) -> Vec<&Token> {
    if !tokens[at].is("std") || !starts_with(&tokens[at + 1..], &[":", ":"]) {
        return Vec::new();
    }
    let Some(next) = tokens.get(at + 3) else { return Vec::new() };
    if !next.is("{") {
        return vec![next];
    }
    let (mut depth, mut names, mut first) = (0, Vec::new(), false);
    for token in &tokens[at + 3..] {
        match token.text.as_str() {
            "{" => (depth, first) = (depth + 1, true),
            "}" => depth -= 1,
            "," => first = true,
            _ if depth == 1 && first => {
                names.push(token);
                first = false;
            }
            _ => first = false,
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// What one file of a pure crate names that it may not.
fn impure_names(tokens: &[Token]) -> Vec<&Token> {
    let words = tokens.iter().filter(|token| IMPURE_WORDS.contains(&token.text.as_str()));
    let of_std = (0..tokens.len())
        .flat_map(|at| names_of_std(tokens, at))
        .filter(|token| IMPURE_STD.contains(&token.text.as_str()));
    words.chain(of_std).collect()
}

/// Lints that one file of released code allows and may not.
fn allowed_lints(tokens: &[Token]) -> Vec<&Token> {
    let allows = (0..tokens.len()).filter(|at| starts_with(&tokens[*at..], &["allow", "("]));
    allows
        .flat_map(|at| tokens[at..].iter().take_while(|token| !token.is(")")))
        .filter(|token| STRICT_LINTS.contains(&token.text.as_str()))
        .collect()
}

/// Every file of released code below `folder/src`, with its tokens.
fn sources(root: &Path, folder: &str) -> Vec<(String, Vec<Token>)> {
    let mut files = Vec::new();
    let mut folders = vec![root.join(folder).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read: Vec<_> = files
        .iter()
        .map(|path| (path, released(&std::fs::read_to_string(path).unwrap())))
        .collect();
    // a module declared under cfg(test) in `a.rs` is `a/tests.rs`; in `lib.rs`, `tests.rs`
    let for_tests: BTreeSet<PathBuf> = read
        .iter()
        .flat_map(|(path, file)| {
            let stem = path.file_stem().unwrap();
            let beside = path.parent().unwrap();
            let own = ["lib", "main", "mod"].iter().any(|name| stem == *name);
            let folder = if own { beside.to_owned() } else { beside.join(stem) };
            file.test_modules.iter().map(move |name| folder.join(name))
        })
        .collect();
    read.into_iter()
        .filter(|(path, _)| !path.ancestors().any(|up| for_tests.contains(&up.with_extension(""))))
        .map(|(path, file)| {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (name, file.tokens)
        })
        .collect()
}

fn none(violations: &[Violation]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn zones_depend_on_each_other_only_as_the_design_says() {
    let members = workspace();
    assert!(members.len() >= 12, "{} members", members.len());
    none(&arrow_violations(&members));
}

#[test]
fn no_crate_names_a_forbidden_dependency() {
    none(&dependency_violations(&workspace()));
}

#[test]
fn every_crate_inherits_the_workspaces_lints_and_has_no_feature_for_tests() {
    none(&manifest_violations(&workspace()));
}

#[test]
fn pure_crates_name_no_clock_no_file_no_randomness_and_no_unordered_map() {
    let (root, mut files, mut violations) = (root(), 0, Vec::new());
    let mut unused: BTreeSet<&(&str, &str)> = EXCEPTIONS.iter().collect();
    for member in workspace().iter().filter(|member| is_pure(&member.folder)) {
        for (file, tokens) in sources(&root, &member.folder) {
            files += 1;
            for token in impure_names(&tokens) {
                let exception = EXCEPTIONS.iter().find(|(at, word)| *at == file && token.is(word));
                match exception {
                    Some(exception) => drop(unused.remove(exception)),
                    None => violations.push(format!("{file}:{}: `{}`", token.line, token.text)),
                }
            }
        }
    }
    assert!(files >= 15, "{files} files");
    violations.extend(unused.iter().map(|(file, word)| format!("{file} needs no `{word}`")));
    none(&violations);
}

#[test]
fn released_code_allows_none_of_the_lints_that_carry_policy() {
    let (root, mut violations) = (root(), Vec::new());
    for member in workspace().iter().filter(|member| zone(&member.folder) != "tests") {
        for (file, tokens) in sources(&root, &member.folder) {
            for token in allowed_lints(&tokens) {
                violations.push(format!("{file}:{}: allow({})", token.line, token.text));
            }
        }
    }
    none(&violations);
}

/// Who may say that an entry is committed, and that a run may release a share (I4): replication, of
/// what Raft committed; one place for what the ledger allowed and one for the log's own checkpoints; the
/// definitions; replay; and what a quorum of governors signed in place of a majority that is gone.
const MAY_ASSERT: [(&str, &str); 7] = [
    ("enclave/replication/src/machine.rs", "dangerous_assume"),
    ("shared/ledger/src/apply.rs", "dangerous_assume"),
    ("shared/ledger/src/recovery.rs", "dangerous_assume"),
    ("shared/ledger/src/replay.rs", "dangerous_assume"),
    ("enclave/threshold/src/permit.rs", "dangerous_assert_committed_and_allowed"),
    ("enclave/signer/src/signing.rs", "dangerous_assert_committed_and_allowed"),
    ("enclave/signer/src/log_signature.rs", "dangerous_assert_committed_and_allowed"),
];

#[test]
fn i4_leave_to_release_a_share_is_given_where_it_is_meant_and_nowhere_else() {
    let root = root();
    let mut found = Vec::new();
    for member in workspace().iter().filter(|member| zone(&member.folder) != "tests") {
        for (file, tokens) in sources(&root, &member.folder) {
            for (_, word) in MAY_ASSERT {
                let times = tokens.iter().filter(|token| token.is(word)).count();
                if times > 0 && !found.contains(&(file.clone(), word, times)) {
                    found.push((file.clone(), word, times));
                }
            }
        }
    }
    found.sort();
    let mut meant: Vec<_> = MAY_ASSERT.map(|(file, word)| (file.to_owned(), word, 1_usize)).into();
    meant.sort();
    assert_eq!(found, meant);
}

/// Who turns a share into bytes, and bytes into a share (I1): one file, of which the bytes go into
/// `SealableShare`, which has no way out but sealed; and the sealer, where what was opened comes from.
const MAY_HOLD_BYTES: [(&str, &str); 4] = [
    ("enclave/seal/src/open.rs", "OpenedShare::new"),
    ("enclave/seal/src/share.rs", "dangerous_secret"),
    ("enclave/threshold/src/sealed.rs", "SealableShare::new"),
    ("enclave/threshold/src/sealed.rs", "dangerous_secret"),
];

#[test]
fn i1_a_share_is_written_where_it_is_sealed_and_read_where_it_was_opened() {
    let root = root();
    let mut found = Vec::new();
    for member in workspace().iter().filter(|member| zone(&member.folder) != "tests") {
        for (file, tokens) in sources(&root, &member.folder) {
            for (_, what) in MAY_HOLD_BYTES {
                let words: Vec<&str> = what.split("::").collect();
                let pattern: Vec<&str> = match words.as_slice() {
                    [owner, method] => vec![owner, ":", ":", method],
                    _ => words,
                };
                let times =
                    (0..tokens.len()).filter(|at| starts_with(&tokens[*at..], &pattern)).count();
                if times > 0 && !found.contains(&(file.clone(), what, times)) {
                    found.push((file.clone(), what, times));
                }
            }
        }
    }
    found.sort();
    let mut meant: Vec<_> =
        MAY_HOLD_BYTES.map(|(file, what)| (file.to_owned(), what, 1_usize)).into();
    meant.sort();
    assert_eq!(found, meant);
}
