//! `casemate credential`: makes the key pairs that requesters, approvers, governors and freezers sign with.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_client::{Credential, Sign as _};
use casemate_proto::Algorithm;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, DONE, finish, out};

/// The arguments of `casemate credential`.
#[derive(Debug, Args)]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Make a key pair; the file is readable by its owner alone and never overwritten.
    ///
    /// Prints the id and the public key, which go into the policy or the manifest.
    New {
        /// `ed25519` or `p256`.
        #[arg(long, value_parser = parse_algorithm)]
        algorithm: Algorithm,
        /// Where to put the secret key.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the id and the public key of a key file.
    Show {
        /// The key file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    [Algorithm::Ed25519, Algorithm::P256]
        .into_iter()
        .find(|algorithm| algorithm.name() == text)
        .ok_or_else(|| "it is `ed25519` or `p256`".to_owned())
}

/// Runs `casemate credential`.
pub(crate) fn run(args: &CredentialArgs) -> ExitCode {
    let (outcome, json) = match &args.command {
        CredentialCommand::New { algorithm, out, json } => {
            let made = || -> Result<Credential, CliError> {
                let credential = Credential::generate(*algorithm)?;
                credential.create(out)?;
                Ok(credential)
            };
            (made(), *json)
        }
        CredentialCommand::Show { file, json } => {
            (Credential::load(file).map_err(CliError::from), *json)
        }
    };
    finish(json, outcome.and_then(|credential| print(&credential, json)))
}

fn print(credential: &Credential, json: bool) -> Result<u8, CliError> {
    let public_key = format!("0x{}", hex::encode(credential.public_key().as_bytes()));
    if json {
        out::object(&json!({
            "schema": "casemate.credential.public/1",
            "id": credential.id().to_string(),
            "algorithm": credential.algorithm().name(),
            "public_key": public_key,
        }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    out::line(&mut text, "id", credential.id());
    out::line(&mut text, "algorithm", credential.algorithm().name());
    out::line(&mut text, "public key", public_key);
    out::text(&text)?;
    Ok(DONE)
}
