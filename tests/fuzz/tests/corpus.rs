//! Runs every fuzz target over its corpus, every file cut short and changed in many places, and a
//! bounded number of seeded mutations. `CASEMATE_FUZZ_SECONDS` sets how long each target's
//! mutations may take; the default keeps `cargo test` short.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use casemate_fuzz::{TARGETS, Target};

/// Mutations of a target's corpus, unless its time is up before.
const MUTATIONS: usize = 20_000;

fn folder(parts: &[&str]) -> PathBuf {
    parts.iter().fold(PathBuf::from(env!("CARGO_MANIFEST_DIR")), |path, part| path.join(part))
}

fn targets() -> Vec<Target> {
    TARGETS.iter().copied().flatten().copied().collect()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = folder(&["corpus", name]);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs one input; a panic becomes its message with the input.
fn run(target: Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}: {message}\ninput, {} bytes: {hex}", target.name, input.len())
    })
}

/// xorshift64*, so that a failure comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// Values at which lengths, counts and tags turn.
const EDGES: &[&[u8]] = &[
    &[0],
    &[0xff],
    &[0x7f],
    &[0x80],
    &[0x17],
    &[0x18, 0x18],
    &[0x5f],
    &[0x9f],
    &[0xbf],
    &[0xf6],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xb8, 0xff, 0xff, 0xff],
    &[0xc0],
    b"\"",
    b"{",
    b"[",
    b"0x",
    b".",
    b"-1",
    b"1e999",
    b"\\u0000",
    b"null",
    "\u{10ffff}".as_bytes(),
];

/// A change or a few to one input of the corpus, now and then with a part of another.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = at + random.below(input.len() - at + 1).min(1 + random.below(32));
        match random.below(7) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = u8::try_from(random.below(256)).unwrap(),
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                let edge = EDGES[random.below(EDGES.len())];
                let over = if random.below(2) == 0 { at } else { end };
                input.splice(at..over, edge.iter().copied());
            }
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1).min(64);
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    input
}

/// What a target was run with.
#[derive(Default)]
struct Ran {
    files: usize,
    inputs: usize,
}

fn attack(target: Target, corpus: &[Vec<u8>], time: Duration) -> Result<Ran, String> {
    let mut ran = Ran { files: corpus.len(), inputs: 0 };
    let mut one = |input: &[u8]| {
        ran.inputs += 1;
        run(target, input)
    };
    one(&[])?;
    for input in corpus {
        one(input)?;
        // whole for short inputs, some two hundred places of long ones
        for at in (0..input.len()).step_by(input.len() / 200 + 1) {
            one(&input[..at])?;
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut changed = input.clone();
                changed[at] ^= flip;
                one(&changed)?;
            }
        }
    }
    let (start, mut random) = (Instant::now(), Random(0x9e37_79b9_7f4a_7c15));
    for _ in 0..MUTATIONS {
        if start.elapsed() > time {
            break;
        }
        one(&mutate(&mut random, corpus))?;
    }
    Ok(ran)
}

fn seconds() -> Option<u64> {
    std::env::var("CASEMATE_FUZZ_SECONDS").ok().map(|text| text.parse().expect("whole seconds"))
}

#[test]
fn no_target_panics_over_its_corpus_and_its_mutations() {
    let time = Duration::from_millis(seconds().map_or(1_200, |seconds| seconds * 1_000));
    let queue = Mutex::new(targets());
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(target) = queue.lock().unwrap().pop() else { break };
                    let corpus = corpus(target.name);
                    match attack(target, &corpus, time) {
                        Ok(ran) => {
                            assert!(ran.files > 0, "{}: an empty corpus", target.name);
                            println!("{}: {} files, {} inputs", target.name, ran.files, ran.inputs);
                        }
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

#[test]
fn names_are_unique_and_every_corpus_has_a_target() {
    let names: BTreeSet<String> = targets().iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), targets().len());
    let folders: BTreeSet<String> = std::fs::read_dir(folder(&["corpus"]))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(folders, names);
}

/// The harness can fail: it finds a panic that only a mutation reaches, and names the input.
#[test]
fn a_planted_panic_is_found_with_an_input_that_brings_it_again() {
    fn planted(data: &[u8]) {
        let doubled = data.windows(4).any(|window| window == b"aXaX");
        assert!(!doubled, "planted");
    }
    let target = Target { name: "planted", run: planted };
    let corpus = [b"aXbc".to_vec(), b"....".to_vec()];
    corpus.iter().for_each(|input| planted(input));
    let failure = attack(target, &corpus, Duration::from_secs(60)).err().expect("a failure");
    assert!(failure.starts_with("planted: planted\ninput, "), "{failure}");
    let digits = failure.rsplit(' ').next().unwrap();
    let input: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    assert!(run(target, &input).is_err());
}
