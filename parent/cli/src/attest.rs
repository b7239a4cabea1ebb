//! `casemate attest verify`: judges an attestation document and says what it proves.
//!
//! Status 0 only if the document is genuine and every expectation given holds. What was *not* checked
//! is said in warnings: a genuine document of an unknown image proves little.

mod input;
mod report;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use casemate_attestation_verify::{
    AWS_NITRO_ENCLAVES_G1_PEM, At, Evidence, Expectations, Freshness, Pcr, Refusal, RootError,
    TrustRoot, UnixMillis, verify,
};
use clap::{Arg, ArgMatches, Args, FromArgMatches, Subcommand, ValueEnum};
use thiserror::Error;

use self::input::{InputError, parse_hex, parse_pcr};

/// How far a document's timestamp may lie after this machine's clock, in milliseconds.
const FUTURE_TOLERANCE_MS: u64 = 60_000;
const MS_PER_SECOND: u64 = 1000;

/// The arguments of `casemate attest`.
#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    #[command(subcommand)]
    command: AttestCommand,
}

#[derive(Debug, Subcommand)]
enum AttestCommand {
    /// Verify a document: signature, chain to the root, and everything expected of it.
    ///
    /// Status 0 only if the document is genuine and every expectation given holds, 1 otherwise, with
    /// one line that names what failed and both values. Without --pcr0 the image is not checked, and
    /// the command says so.
    Verify(Box<VerifyArgs>),
    /// Ask a node to attest itself over a nonce made here, and judge what comes: the pinned root, an
    /// accepted image, the node's region and role, and its boot's keys under the genesis id.
    ///
    /// Status 0 only if all of it holds; 1 if not; 4 if the node cannot be reached.
    Fetch(crate::online::attest::FetchArgs),
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The document: binary, base64 or hex; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    document: PathBuf,
    /// The trust root, PEM or DER [default: the AWS Nitro Enclaves root G1].
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    pcrs: PcrArgs,
    /// The nonce expected, at least 16 bytes.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    nonce: Option<HexBytes>,
    /// The user data expected.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    user_data: Option<HexBytes>,
    /// The public key expected.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    public_key: Option<HexBytes>,
    /// The time of judgement: this machine's clock, or the document's own timestamp (for archives; it
    /// proves nothing about time without outside evidence).
    #[arg(long, value_enum, default_value_t = AtArg::Now)]
    at: AtArg,
    /// The greatest age accepted; needs `--at now`.
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u64>,
    /// Accept an enclave in debug mode, whose host reads its console.
    #[arg(long)]
    allow_debug: bool,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AtArg {
    Now,
    Document,
}

/// Bytes given in hex.
#[derive(Debug, Clone)]
struct HexBytes(Vec<u8>);

/// `--pcr0` to `--pcr31`.
#[derive(Debug, Default)]
struct PcrArgs(Vec<(u8, Pcr)>);

/// clap wants names that live as long as the program.
const PCR_NAMES: [&str; 32] = [
    "pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr5", "pcr6", "pcr7", "pcr8", "pcr9", "pcr10",
    "pcr11", "pcr12", "pcr13", "pcr14", "pcr15", "pcr16", "pcr17", "pcr18", "pcr19", "pcr20",
    "pcr21", "pcr22", "pcr23", "pcr24", "pcr25", "pcr26", "pcr27", "pcr28", "pcr29", "pcr30",
    "pcr31",
];

/// What a PCR measures; those without help are accepted and not listed.
fn pcr_help(name: &str) -> Option<&'static str> {
    Some(match name {
        "pcr0" => "PCR0 expected: the whole image",
        "pcr1" => "PCR1 expected: kernel, command line and first ramdisk",
        "pcr2" => "PCR2 expected: the other ramdisks",
        "pcr3" => "PCR3 expected: the parent instance's IAM role",
        "pcr4" => "PCR4 expected: the parent instance's id",
        "pcr8" => "PCR8 expected: the image's signing certificate; any --pcr5 to --pcr31 likewise",
        _ => return None,
    })
}

impl Args for PcrArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        PCR_NAMES.into_iter().fold(command, |command, name| {
            let arg = Arg::new(name).long(name).value_name("HEX").value_parser(parse_pcr);
            command.arg(match pcr_help(name) {
                Some(help) => arg.help(help),
                None => arg.hide(true),
            })
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PcrArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut pcrs = Self::default();
        pcrs.update_from_arg_matches(matches)?;
        Ok(pcrs)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = (0u8..)
            .zip(PCR_NAMES)
            .filter_map(|(index, name)| Some((index, *matches.get_one::<Pcr>(name)?)))
            .collect();
        Ok(())
    }
}

/// Why the command did not come to a good end.
#[derive(Debug, Error)]
enum AttestError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("`--root`: {0}")]
    Root(#[from] RootError),
    #[error("`--max-age` needs `--at now`: at its own time a document has no age")]
    MaxAgeAtDocument,
    #[error("`--max-age` is too large")]
    MaxAgeTooLarge,
    #[error("this machine's clock is before 1970")]
    Clock,
    #[error("refused: {0}")]
    Refused(Box<Refusal>),
}

/// Runs `casemate attest`.
pub(crate) fn run(args: AttestArgs) -> ExitCode {
    let args = match args.command {
        AttestCommand::Verify(args) => args,
        AttestCommand::Fetch(args) => return crate::online::attest::run(args),
    };
    let outcome = judge(&args);
    let warnings = match &outcome {
        Ok(judged) => warnings(&args, &judged.evidence),
        Err(_) => Vec::new(),
    };
    let printed = if args.json {
        report::print_json(&outcome, &warnings)
    } else {
        report::print_text(&outcome, &warnings)
    };
    if outcome.is_ok() && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A document that met every expectation.
struct Judged {
    evidence: Evidence,
    root: TrustRoot,
    judged_at: UnixMillis,
    /// The indices of the PCRs that were compared.
    pcrs_checked: Vec<u8>,
}

fn judge(args: &VerifyArgs) -> Result<Judged, AttestError> {
    let at = at(args)?;
    let root = match &args.root {
        Some(path) => input::read_root(path)?,
        None => TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM)?,
    };
    let document = input::read_document(&args.document)?;
    let evidence = verify(&document, &root, &expectations(args), at)
        .map_err(|refusal| AttestError::Refused(Box::new(refusal)))?;
    Ok(Judged {
        judged_at: match at {
            At::Now { now, .. } => now,
            At::Document => evidence.timestamp(),
        },
        pcrs_checked: args.pcrs.0.iter().map(|(index, _)| *index).collect(),
        evidence,
        root,
    })
}

fn at(args: &VerifyArgs) -> Result<At, AttestError> {
    match (args.at, args.max_age) {
        (AtArg::Document, Some(_)) => Err(AttestError::MaxAgeAtDocument),
        (AtArg::Document, None) => Ok(At::Document),
        (AtArg::Now, max_age) => {
            let max_age_ms = max_age
                .map(|seconds| {
                    seconds.checked_mul(MS_PER_SECOND).ok_or(AttestError::MaxAgeTooLarge)
                })
                .transpose()?;
            let elapsed =
                SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| AttestError::Clock)?;
            let now = u64::try_from(elapsed.as_millis()).map_err(|_| AttestError::Clock)?;
            Ok(At::Now {
                now: UnixMillis::new(now),
                freshness: Freshness { max_age_ms, future_tolerance_ms: FUTURE_TOLERANCE_MS },
            })
        }
    }
}

fn expectations(args: &VerifyArgs) -> Expectations {
    // An operator may know a single PCR, so each given one is expected by itself; that PCR0 was not
    // among them is warned of.
    let mut expected = Expectations::dangerous_any_measurement();
    if args.allow_debug {
        expected = expected.dangerous_allow_debug();
    }
    for (index, value) in &args.pcrs.0 {
        expected = expected.with_pcr(*index, *value);
    }
    if let Some(HexBytes(nonce)) = &args.nonce {
        expected = expected.with_nonce(nonce.as_slice());
    }
    if let Some(HexBytes(user_data)) = &args.user_data {
        expected = expected.with_user_data(user_data.as_slice());
    }
    if let Some(HexBytes(public_key)) = &args.public_key {
        expected = expected.with_public_key(public_key.as_slice());
    }
    expected
}

/// What a good outcome does not prove.
fn warnings(args: &VerifyArgs, evidence: &Evidence) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if !args.pcrs.0.iter().any(|(index, _)| *index == 0) {
        warnings.push(
            "MEASUREMENT NOT CHECKED: without `--pcr0` any image passes, and anybody can run one",
        );
    }
    if evidence.is_debug() {
        warnings
            .push("DEBUG MODE: the host reads this enclave's console, and its image is unknown");
    }
    match args.at {
        AtArg::Document => warnings
            .push("judged at the document's own time: needs outside evidence that it existed then"),
        AtArg::Now if args.nonce.is_none() && args.max_age.is_none() => warnings
            .push("neither `--nonce` nor `--max-age`: the document may be hours old, or a replay"),
        AtArg::Now => {}
    }
    warnings
}
