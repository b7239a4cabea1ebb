//! `casemate attest fetch`: asks a node to attest itself over a nonce made here, and judges the answer.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::progress::waiting;
use super::{CliError, DONE, OneNodeArgs, out, run as run_online};

/// The arguments of `casemate attest fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    node: OneNodeArgs,
    /// Write the document here, to be verified again with `casemate attest verify`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `casemate attest fetch`.
pub(crate) fn run(args: FetchArgs) -> ExitCode {
    run_online(args.json, async move { fetch(&args).await })
}

async fn fetch(args: &FetchArgs) -> Result<u8, CliError> {
    let (session, at) = args.node.open()?;
    let client = &session.client;
    let at = match (at, client.cluster().endpoints()) {
        (Some(at), _) => at,
        (None, [_]) => 0,
        (None, _) => {
            return Err(CliError::Usage("which node? give `--node NAME` or its URL".to_owned()));
        }
    };
    let boot = waiting("the node attests itself", client.attest(at, true)).await?;
    if let Some(path) = &args.out {
        std::fs::write(path, boot.document())
            .map_err(|error| CliError::Write { path: path.clone(), error })?;
    }
    let image = boot.measurement();
    let pcrs = [("PCR0", &image.pcr0), ("PCR1", &image.pcr1), ("PCR2", &image.pcr2)];
    if args.json {
        let pcrs: serde_json::Map<String, serde_json::Value> =
            pcrs.iter().map(|(name, pcr)| (name.to_lowercase(), json!(hex::encode(pcr)))).collect();
        out::object(&json!({
            "schema": "casemate.attest.fetch/1",
            "node": boot.node(),
            "boot": boot.boot(),
            "key": format!("0x{}", hex::encode(boot.key())),
            "region": boot.region(),
            "module_id": boot.module_id(),
            "attested_at": boot.attested_at().to_rfc3339(),
            "pcrs": pcrs,
            "document": format!("0x{}", hex::encode(boot.document())),
        }))?;
        return Ok(DONE);
    }
    let mut text = String::new();
    out::line(&mut text, "attested", format_args!("node {}, over a nonce made here", boot.node()));
    out::line(&mut text, "boot", boot.boot());
    out::line(&mut text, "key", format_args!("0x{}", hex::encode(boot.key())));
    out::line(&mut text, "region", boot.region());
    out::line(&mut text, "module_id", out::plain(boot.module_id()));
    out::line(&mut text, "attested at", boot.attested_at());
    for (name, pcr) in pcrs {
        out::line(&mut text, name, format_args!("{}  accepted", hex::encode(pcr)));
    }
    out::text(&text)?;
    Ok(DONE)
}
