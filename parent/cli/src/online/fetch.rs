//! `casemate audit fetch`: copies a node's store over HTTP, so that it can be verified here.
//!
//! What is here already and can never change is not asked for again, so that a copy that was broken off
//! goes on where it ended. The checkpoint is written last: a folder with one holds all of its tree. The
//! genesis is the pinned one and not the host's.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_audit::note::MAX_NOTE;
use casemate_audit::receipt::MAX_RECEIPT;
use casemate_audit::store::{CHECKPOINT, CHECKPOINTS, GENESIS, MAX_ATTACHMENT, MAX_TILE, RECEIPTS};
use casemate_audit::tile::{Tile, tiles_for};
use casemate_audit::{Checkpoint, Origin, SignedNote};
use casemate_client::{Client, ClientError, NodeFault};
use casemate_proto::cbor;
use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;

use super::progress::waiting;
use super::{CliError, DONE, OneNodeArgs, Session, out, run as run_online};

/// The folder of what entries only name.
const ATTACHMENTS: &str = "attachments";
/// How many files are asked for at a time.
const AT_A_TIME: usize = 8;
/// Most files of one folder.
const MAX_FILES: usize = 1 << 20;
/// How often a copy begins again when the store has moved on under it.
const TRIES: usize = 5;

/// The arguments of `casemate audit fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    node: OneNodeArgs,
    /// Where to put the copy; one that was broken off goes on.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fetched {
    /// Leaves of the checkpoint.
    pub(crate) size: u64,
    /// Files that were asked for.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Runs `casemate audit fetch`.
pub(crate) fn run(args: FetchArgs) -> ExitCode {
    run_online(args.json, async move {
        let (session, at) = args.node.open()?;
        let (node, fetched) = fetch(&session, at, &args.out).await?;
        if args.json {
            out::object(&json!({
                "schema": "casemate.audit.fetch/1",
                "node": node,
                "store": args.out.display().to_string(),
                "size": fetched.size,
                "files": fetched.files,
                "bytes": fetched.bytes,
            }))?;
            return Ok(DONE);
        }
        let mut text = String::new();
        out::line(&mut text, "copied", format_args!("{} records of node {node}", fetched.size));
        out::line(
            &mut text,
            "asked for",
            format_args!("{} files, {} bytes", fetched.files, fetched.bytes),
        );
        out::line(&mut text, "store", args.out.display());
        out::text(&text)?;
        out::note("not verified: see `casemate audit verify`")?;
        Ok(DONE)
    })
}

/// Copies the store of this node, or of the first that can be heard. Gives the node's label.
pub(crate) async fn fetch(
    session: &Session,
    at: Option<usize>,
    folder: &Path,
) -> Result<(String, Fetched), CliError> {
    let client = &session.client;
    let places: Vec<usize> = match at {
        Some(at) => vec![at],
        None => (0..client.cluster().endpoints().len()).collect(),
    };
    let mut failures = Vec::new();
    for at in places {
        let label = client.cluster().endpoints().get(at).map(|e| e.label()).unwrap_or_default();
        let copying = copy(client, at, folder);
        match waiting(&format!("copying the store of {label}"), copying).await {
            Ok(fetched) => return Ok((label, fetched)),
            Err(CliError::Client(ClientError::Node(failure))) => failures.push(failure),
            Err(other) => return Err(other),
        }
    }
    Err(ClientError::TooFewNodes { have: 0, need: 1, failures }.into())
}

async fn copy(client: &Client, at: usize, folder: &Path) -> Result<Fetched, CliError> {
    let genesis = client.genesis().await?;
    write(folder, GENESIS, &cbor::encode(&*genesis)).await?;
    let mut fetched = Fetched::default();
    for _ in 0..TRIES {
        let note = client
            .store_file(at, CHECKPOINT, MAX_NOTE)
            .await?
            .ok_or_else(|| nothing(at, client, "has published no checkpoint yet"))?;
        let wrong = |reason: String| nothing(at, client, &reason);
        let parsed = SignedNote::parse(&note).map_err(|error| wrong(error.to_string()))?;
        let checkpoint = Checkpoint::parse(parsed.text()).map_err(|e| wrong(e.to_string()))?;
        let found = Origin::parse(&checkpoint.origin).map_err(|e| wrong(e.to_string()))?;
        if found.genesis != client.genesis_id() {
            return Err(wrong(format!("publishes log `{}`", checkpoint.origin)));
        }
        fetched.size = checkpoint.size;
        if !tiles(client, at, folder, checkpoint.size, &mut fetched).await? {
            // a partial tile is gone: the store has moved on, and so must the checkpoint
            continue;
        }
        for (name, max) in
            [(ATTACHMENTS, MAX_ATTACHMENT), (CHECKPOINTS, MAX_NOTE), (RECEIPTS, MAX_RECEIPT)]
        {
            listed(client, at, folder, name, max, &mut fetched).await?;
        }
        write(folder, CHECKPOINT, &note).await?;
        return Ok(fetched);
    }
    Err(nothing(at, client, "moves on faster than its store can be copied"))
}

fn nothing(at: usize, client: &Client, reason: &str) -> CliError {
    let node = client.cluster().endpoints().get(at).map(|e| e.label()).unwrap_or_default();
    let fault = NodeFault::Body { reason: reason.to_owned() };
    ClientError::Node(casemate_client::NodeFailure { node, fault }).into()
}

/// Copies the tiles of a tree; `false` if one is not there any more.
async fn tiles(
    client: &Client,
    at: usize,
    folder: &Path,
    size: u64,
    fetched: &mut Fetched,
) -> Result<bool, CliError> {
    // hash tiles can be made of the entries, and an auditor's are checked against them
    let wanted = tiles_for(0, size).filter(|tile| !is_here(folder, *tile));
    let paths: Vec<String> = wanted.map(|tile| tile.to_string()).collect();
    download(client, at, folder, paths, MAX_TILE, fetched).await
}

fn is_here(folder: &Path, tile: Tile) -> bool {
    // written whole or not at all, and of one tree a tile of one width never changes
    folder.join(tile.to_string()).is_file()
}

/// Copies the files of one folder that are not here.
async fn listed(
    client: &Client,
    at: usize,
    folder: &Path,
    name: &'static str,
    max: usize,
    fetched: &mut Fetched,
) -> Result<(), CliError> {
    let (mut after, mut seen) = (None, 0_usize);
    loop {
        let (names, next) = client.store_list(at, name, after.as_deref()).await?;
        seen = seen.saturating_add(names.len());
        if seen > MAX_FILES {
            return Err(nothing(
                at,
                client,
                &format!("lists more than {MAX_FILES} files in {name}"),
            ));
        }
        let missing = names.into_iter().map(|file| format!("{name}/{file}"));
        let missing = missing.filter(|path| !folder.join(path).is_file()).collect();
        download(client, at, folder, missing, max, fetched).await?;
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Copies files, some at a time; `false` if one of them was not there.
async fn download(
    client: &Client,
    at: usize,
    folder: &Path,
    paths: Vec<String>,
    max: usize,
    fetched: &mut Fetched,
) -> Result<bool, CliError> {
    let (mut left, mut whole) = (paths.into_iter(), true);
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_A_TIME
            && let Some(path) = left.next()
        {
            let client = client.clone();
            running.spawn(async move {
                let found = client.store_file(at, &path, max).await;
                (path, found)
            });
        }
        match running.join_next().await {
            None => return Ok(whole),
            Some(Ok((path, found))) => match found? {
                Some(bytes) => {
                    write(folder, &path, &bytes).await?;
                    fetched.files = fetched.files.saturating_add(1);
                    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    fetched.bytes = fetched.bytes.saturating_add(size);
                }
                None => whole = false,
            },
            Some(Err(error)) => return Err(CliError::Runtime(io::Error::other(error))),
        }
    }
}

/// Writes a file whole or not at all. The path is one within a store.
async fn write(folder: &Path, path: &str, bytes: &[u8]) -> Result<(), CliError> {
    let to = folder.join(path);
    let wrong = |error| CliError::Write { path: to.clone(), error };
    if !casemate_client::store::is_store_path(path) {
        return Err(wrong(io::ErrorKind::InvalidFilename.into()));
    }
    if let Some(parent) = to.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(wrong)?;
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = to.with_file_name(name);
    tokio::fs::write(&beside, bytes).await.map_err(wrong)?;
    tokio::fs::rename(&beside, &to).await.map_err(wrong)
}

/// What the nodes say now, to be compared with a copied store.
pub(crate) async fn live(
    session: &Session,
) -> Result<BTreeSet<(u64, casemate_proto::Hash32)>, CliError> {
    let belief = session.client.belief(true).await?;
    Ok(belief.views().iter().map(|given| (given.view.size, given.view.root)).collect())
}
