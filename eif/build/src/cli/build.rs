//! `casemate-eif build`.

use std::path::{Path, PathBuf};

use cargo_metadata::{CargoOpt, MetadataCommand};
use casemate_eif::contents::MeasuredRoot;
use casemate_eif::kernel::MAX_KERNEL;
use casemate_eif::program::MAX_PROGRAM;
use casemate_eif::sbom::{Crates, Part, bill};
use casemate_eif::signature::{MAX_CERTIFICATE, MAX_KEY, Signer};
use casemate_eif::{DEFAULT_CMDLINE, Inputs, assemble};
use casemate_image::ParentCid;
use clap::Args;

use super::{CliError, free, pretty, read, read_text, write_folder};

/// The target that the programs of an image are built for.
const TARGET: &str = "x86_64-unknown-linux-musl";
const MAX_TRUST_ROOT: usize = 16 * 1_024;
const MAX_LOCK: usize = 4 * 1_024 * 1_024;

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The folder to make, with all three files in it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The signer, a static program.
    #[arg(long, value_name = "FILE")]
    enclave: PathBuf,
    /// The program that starts first, static too.
    #[arg(long, value_name = "FILE")]
    init: PathBuf,
    /// The kernel, a bzImage.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = DEFAULT_CMDLINE)]
    cmdline: String,
    /// The root under which peers are believed, PEM [default: the AWS Nitro Enclaves root G1].
    #[arg(long, value_name = "FILE")]
    trust_root: Option<PathBuf>,
    /// The parent's vsock number: 3 on AWS.
    #[arg(long, value_name = "CID", default_value = "3", value_parser = parent_cid)]
    parent_cid: ParentCid,
    /// Sign the image under this certificate, PEM of a P-384 key: PCR8 will name it.
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    sign_cert: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long, value_name = "FILE", requires = "sign_cert")]
    sign_key: Option<PathBuf>,
    /// The source that the programs were built from, for the bill of materials.
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
}

fn parent_cid(text: &str) -> Result<ParentCid, String> {
    // the file's form is the one form of a number here too
    ParentCid::from_file(format!("{text}\n").as_bytes()).map_err(|error| error.to_string())
}

pub(crate) fn run(args: &BuildArgs) -> Result<String, CliError> {
    free(&args.out)?;
    let kernel = read(&args.kernel, MAX_KERNEL)?;
    let init = read(&args.init, MAX_PROGRAM)?;
    let enclave = read(&args.enclave, MAX_PROGRAM)?;
    let trust_root = trust_root(args.trust_root.as_deref())?;
    let signer = match (&args.sign_cert, &args.sign_key) {
        (Some(certificate), Some(key)) => {
            Some(Signer::from_pem(&read(certificate, MAX_CERTIFICATE)?, &read(key, MAX_KEY)?)?)
        }
        _ => None,
    };
    let built = assemble(&Inputs {
        kernel: &kernel,
        cmdline: &args.cmdline,
        init: &init,
        enclave: &enclave,
        trust_root: &trust_root,
        parent_cid: args.parent_cid,
        version: env!("CARGO_PKG_VERSION"),
        signer: signer.as_ref(),
    })?;
    let version = Some(env!("CARGO_PKG_VERSION"));
    let parts = [
        Part {
            name: "linux",
            version: Some(&built.kernel.release),
            kind: "operating-system",
            bytes: &kernel,
        },
        Part { name: "casemate-init", version, kind: "application", bytes: &init },
        Part { name: "casemate-enclave", version, kind: "application", bytes: &enclave },
        Part {
            name: "trust-root",
            version: None,
            kind: "data",
            bytes: trust_root.pem().as_bytes(),
        },
    ];
    let bill = bill(env!("CARGO_PKG_VERSION"), &built.image, &parts, &crates(&args.source)?);
    let measurements = pretty(&built.measurements.to_json());
    write_folder(
        &args.out,
        &[
            ("casemate.eif", &built.image),
            ("measurements.json", measurements.as_bytes()),
            ("sbom.cdx.json", pretty(&bill).as_bytes()),
        ],
    )?;
    Ok(measurements)
}

fn trust_root(path: Option<&Path>) -> Result<MeasuredRoot, CliError> {
    let Some(path) = path else { return Ok(MeasuredRoot::aws()?) };
    let pem = read_text(path, MAX_TRUST_ROOT)?;
    MeasuredRoot::from_pem(&pem)
        .map_err(|error| CliError::TrustRoot { path: super::named(path), error })
}

/// What the programs are made of, from cargo and from the lock file, without the network.
fn crates(source: &Path) -> Result<Crates, CliError> {
    let lock = read_text(&source.join("Cargo.lock"), MAX_LOCK)?;
    let offline = ["--offline", "--locked", "--filter-platform", TARGET];
    let metadata = MetadataCommand::new()
        .manifest_path(source.join("Cargo.toml"))
        .features(CargoOpt::SomeFeatures(Vec::new()))
        .other_options(offline.map(str::to_owned))
        .exec()
        .map_err(|error| {
            let text = error.to_string();
            // the last line of what cargo says is the reason
            let reason = text.lines().map(str::trim).rfind(|line| !line.is_empty());
            CliError::Cargo(reason.unwrap_or_default().to_owned())
        })?;
    Ok(Crates::collect(&metadata, &lock)?)
}
