//! Runs histories, each in a process of its own, as many at a time as there are processors.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::history;
use crate::reference::STUCK;

/// Where the seeds of a run begin if nothing else is said.
const FIRST_SEED: u64 = 1;
/// How many histories `cargo test` runs.
const BY_DEFAULT: u64 = 40;
/// How long one history may take in real time.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
struct Asked {
    seed: u64,
    histories: u64,
    jobs: usize,
    tell: bool,
    /// Runs each seed twice and compares the traces.
    twice: bool,
    /// This process is to run one history and report it.
    one: bool,
    /// Go on when a history fails.
    keep_going: bool,
}

fn asked() -> Result<Asked, String> {
    let number = |text: Option<String>, what: &str| {
        let text = text.ok_or(format!("`{what}` wants a number"))?;
        text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"))
    };
    let from_environment = std::env::var("CASEMATE_HISTORIES").ok();
    let histories = match from_environment {
        Some(text) => number(Some(text), "CASEMATE_HISTORIES")?,
        None => BY_DEFAULT,
    };
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut asked = Asked {
        seed: FIRST_SEED,
        histories,
        jobs,
        tell: false,
        twice: false,
        one: false,
        keep_going: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => asked.seed = number(arguments.next(), "--seed")?,
            "--histories" => asked.histories = number(arguments.next(), "--histories")?,
            "--jobs" => asked.jobs = number(arguments.next(), "--jobs")?.max(1) as usize,
            "--tell" => asked.tell = true,
            "--twice" => asked.twice = true,
            "--one" => asked.one = true,
            "--keep-going" => asked.keep_going = true,
            // what `cargo test` hands to every test program
            "--nocapture" | "--quiet" | "-q" | "--include-ignored" => {}
            other => return Err(format!("no such option: `{other}`")),
        }
    }
    Ok(asked)
}

pub fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    if asked.one { one(&asked) } else { many(&asked) }
}

/// The seed of the history with this number: neighbours have nothing in common.
fn spread(number: u64) -> u64 {
    Dice::new(number).roll()
}

fn one(asked: &Asked) -> ExitCode {
    if asked.tell && std::env::var_os("CASEMATE_LOG").is_some() {
        let level = tracing::Level::DEBUG;
        tracing_subscriber::fmt().with_max_level(level).without_time().init();
    }
    let outcome = history::run(spread(asked.seed), asked.tell);
    let counts: Vec<String> =
        outcome.counts.iter().map(|(what, count)| format!("{what}={count}")).collect();
    println!(
        "@history {} {:016x} {} {} {} {}",
        if outcome.violation.is_some() { "violated" } else { "held" },
        outcome.trace,
        outcome.simulated,
        outcome.signatures,
        outcome.entries,
        counts.join(";")
    );
    if let Some(violation) = outcome.violation {
        println!("@violation {}", violation.0);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[derive(Debug, Default)]
struct Sum {
    histories: u64,
    simulated: u64,
    signatures: u64,
    entries: u64,
    counts: BTreeMap<String, u64>,
    failed: Vec<(u64, String)>,
    stuck: Vec<u64>,
    differed: Vec<u64>,
}

struct Report {
    trace: String,
    numbers: [u64; 3],
    counts: Vec<(String, u64)>,
}

/// Runs one history in a process of its own.
fn run(seed: u64, tell: bool) -> Result<Report, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["--one", "--seed", &seed.to_string()]);
    if tell {
        command.arg("--tell");
    }
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawned.spawn().map_err(|error| error.to_string())?;
    let (id, done) = (child.id(), AtomicBool::new(false));
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let began = Instant::now();
    let (text, errors, status) = std::thread::scope(|scope| {
        let errors = scope.spawn(move || {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut err, &mut text);
            text
        });
        let lines = scope.spawn(move || {
            let mut text = String::new();
            let mut reader = std::io::BufReader::new(&mut out);
            let mut line = String::new();
            while std::io::BufRead::read_line(&mut reader, &mut line).is_ok_and(|read| read > 0) {
                if tell && !line.starts_with('@') {
                    print!("{line}");
                }
                text.push_str(&line);
                line.clear();
            }
            text
        });
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if began.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break Err(format!("it did not end within {} s", PATIENCE.as_secs()));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(3)),
                Err(error) => break Err(error.to_string()),
            }
        };
        done.store(true, Ordering::Relaxed);
        (lines.join().unwrap(), errors.join().unwrap(), status)
    });
    let _ = id;
    let status = status?;
    if let Some(at) = text.find("@violation ") {
        return Err(text[at + 11..].trim_end().to_owned());
    }
    let line = text.lines().find_map(|line| line.strip_prefix("@history held "));
    let Some(line) = line.filter(|_| status.success()) else {
        return Err(format!("it ended with {status}: {}", errors.trim_end()));
    };
    let mut words = line.splitn(5, ' ');
    let trace = words.next().unwrap_or_default().to_owned();
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let numbers = [number(), number(), number()];
    let counts = words.next().unwrap_or_default();
    let counts = counts
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .map(|(what, count)| (what.to_owned(), count.parse().unwrap_or(0)))
        .collect();
    Ok(Report { trace, numbers, counts })
}

fn many(asked: &Asked) -> ExitCode {
    let sum = Mutex::new(Sum::default());
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs.min(asked.histories.max(1) as usize) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= asked.histories {
                        return;
                    }
                    let seed = asked.seed.wrapping_add(at);
                    let report = run(seed, asked.tell);
                    let again = (asked.twice && report.is_ok()).then(|| run(seed, false));
                    let mut sum = sum.lock().unwrap();
                    sum.histories += 1;
                    match report {
                        Ok(report) => {
                            if let Some(again) = again
                                && again.map(|again| again.trace).as_ref() != Ok(&report.trace)
                            {
                                sum.differed.push(seed);
                            }
                            sum.simulated += report.numbers[0];
                            sum.signatures += report.numbers[1];
                            sum.entries += report.numbers[2];
                            for (what, count) in report.counts {
                                *sum.counts.entry(what).or_default() += count;
                            }
                        }
                        Err(reason) if reason.starts_with(STUCK) => {
                            println!("\nseed {seed} {reason}\n    replay: {}", replay(seed));
                            sum.stuck.push(seed);
                        }
                        Err(reason) => {
                            println!(
                                "\nseed {seed} FAILED after {} histories: {reason}",
                                sum.histories
                            );
                            println!("    replay: {}", replay(seed));
                            sum.failed.push((seed, reason));
                            if !asked.keep_going {
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                    if sum.histories % 100 == 0 {
                        println!(
                            "{} of {} histories, {} s",
                            sum.histories,
                            asked.histories,
                            began.elapsed().as_secs()
                        );
                        let _ = std::io::stdout().flush();
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    print(asked, &sum, began.elapsed());
    // a host that is to leave the cluster a majority may misjudge it: see docs/SIMULATION.md
    let is_rare = sum.stuck.len() as u64 <= sum.histories / 100;
    if sum.failed.is_empty() && sum.differed.is_empty() && is_rare {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(seed: u64) -> String {
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    format!(
        "cargo test{release} -p casemate-model --test histories -- --seed {seed} --histories 1 --tell"
    )
}

fn print(asked: &Asked, sum: &Sum, took: Duration) {
    println!(
        "\n{} histories from seed {} in {:.1} s: {} simulated minutes, {} entries, {} signatures",
        sum.histories,
        asked.seed,
        took.as_secs_f64(),
        sum.simulated / 60_000,
        sum.entries,
        sum.signatures
    );
    for (what, count) in &sum.counts {
        println!("    {count:>9}  {what}");
    }
    if asked.twice {
        println!("    {:>9}  whose two runs differed: {:?}", sum.differed.len(), sum.differed);
    }
    println!("    {:>9}  stuck: {:?}", sum.stuck.len(), sum.stuck);
    println!(
        "    {:>9}  failed: {:?}",
        sum.failed.len(),
        sum.failed.iter().map(|f| f.0).collect::<Vec<_>>()
    );
}
