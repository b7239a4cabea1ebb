//! `casemate recover prepare`: a node's next enclave is to begin another incarnation. `casemate recover join`: it
//! is to join one that the others have begun without it.

use std::path::{Path, PathBuf};

use casemate_proto::Incarnation;
use clap::Args;

use super::files::{self, For};
use super::node::{NodeFolder, check_names, genesis_of, parse_node};
use super::{Pin, RecoverError};
use crate::online::out;

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    #[command(flatten)]
    pin: Pin,
    /// A node and the folder of its parent (`folder` in its configuration); once for each at this machine.
    #[arg(long = "node", value_name = "NAME=FOLDER", value_parser = parse_node, required = true)]
    nodes: Vec<NodeFolder>,
    /// The incarnation that is to begin [default: the next one].
    #[arg(long, value_name = "NUMBER")]
    incarnation: Option<u64>,
    /// A store with the cluster's genesis record: for a folder that has lost its own.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    pin: Pin,
    /// A node that has not begun, and its parent's folder; once for each at this machine.
    #[arg(long = "node", value_name = "NAME=FOLDER", value_parser = parse_node, required = true)]
    nodes: Vec<NodeFolder>,
    /// The incarnation that a majority of the others has begun.
    #[arg(long, value_name = "NUMBER")]
    incarnation: u64,
}

/// Runs `casemate recover join`.
pub(super) fn join(args: &JoinArgs) -> Result<(), RecoverError> {
    let expected = args.pin.genesis()?;
    let wanted = Incarnation(args.incarnation);
    for node in &args.nodes {
        let path = node.path("genesis.cbor");
        let missing = "the genesis record: is that the folder of the node's parent?";
        let (genesis, _) = genesis_of(&path, expected)?
            .ok_or(RecoverError::Missing { path: path.clone(), what: missing })?;
        check_names(&args.nodes, &genesis.manifest)?;
        let (path, current) = (node.folder.clone(), node.incarnation()?);
        if wanted <= current {
            return Err(RecoverError::NotLater { path, current, wanted });
        }
    }
    let mut text = String::new();
    for node in &args.nodes {
        if let Some(prepared) = node.prepared()? {
            give_up(node, prepared, &mut text)?;
        }
        let number = format!("{wanted}\n");
        files::replace(&node.path("incarnation"), number.as_bytes(), For::All)?;
        out::line(&mut text, "joins", format_args!("{node}: incarnation {wanted}"));
    }
    out::text(&text)?;
    out::note("start the node's enclave anew: the others admit it and give it its shares")?;
    Ok(())
}

pub(super) fn run(args: &PrepareArgs) -> Result<(), RecoverError> {
    let expected = args.pin.genesis()?;
    // everything is looked at before anything is written
    let mut genesis = None;
    let mut lost = Vec::new();
    let mut current = Incarnation(0);
    let elsewhere = args.store.iter().cloned();
    for place in elsewhere.chain(args.nodes.iter().map(|node| node.folder.join("store"))) {
        if genesis.is_none() {
            genesis = genesis_of(&place.join("genesis.cbor"), expected)?;
        }
    }
    for node in &args.nodes {
        must_be_folder(&node.folder)?;
        match genesis_of(&node.path("genesis.cbor"), expected)? {
            Some(found) => genesis = Some(found),
            None => lost.push(node),
        }
        current = current.max(node.incarnation()?);
    }
    let missing =
        "the genesis record; where a folder has lost it, `--store DIR` names a store that has it";
    let Some((record, bytes)) = genesis else {
        let path = args.nodes.first().map(|node| node.path("genesis.cbor")).unwrap_or_default();
        return Err(RecoverError::Missing { path, what: missing });
    };
    check_names(&args.nodes, &record.manifest)?;
    if record.manifest.recovery.is_none() {
        return Err(casemate_proto::recovery::RecoveryError::NoRecovery.into());
    }
    let next = Incarnation(current.0.saturating_add(1));
    let wanted = args.incarnation.map_or(next, Incarnation);
    for node in &args.nodes {
        let (path, current) = (node.folder.clone(), node.incarnation()?);
        if wanted <= current {
            return Err(RecoverError::NotLater { path, current, wanted });
        }
        match node.prepared()? {
            Some(prepared)
                if prepared > wanted || (prepared < wanted && args.incarnation.is_none()) =>
            {
                return Err(RecoverError::PreparedOtherwise { path, prepared });
            }
            _ => {}
        }
    }
    let mut text = String::new();
    out::line(&mut text, "cluster", expected);
    for node in lost {
        files::create(&node.path("genesis.cbor"), &bytes, For::All)?;
        out::line(&mut text, "genesis", format_args!("{node}: written, it was lost"));
    }
    for node in &args.nodes {
        prepare(node, wanted, &mut text)?;
    }
    out::text(&text)?;
    out::note(
        "see that no enclave of the cluster runs any more: one that is only paused goes on when it wakes",
    )?;
    out::note(
        "then start each node's enclave anew, and its parent; each offers itself within seconds (`recovery/offer.cbor`)",
    )?;
    Ok(())
}

fn must_be_folder(path: &Path) -> Result<(), RecoverError> {
    match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => Ok(()),
        Ok(_) => Err(RecoverError::NoFolder { path: path.to_owned(), reason: "it is a file" }),
        Err(error) => {
            Err(casemate_client::files::ReadError::Unreadable { path: path.to_owned(), error }
                .into())
        }
    }
}

fn prepare(node: &NodeFolder, wanted: Incarnation, text: &mut String) -> Result<(), RecoverError> {
    match node.prepared()? {
        Some(prepared) if prepared == wanted => {
            out::line(
                text,
                "prepared",
                format_args!("{node}: it was already, for incarnation {wanted}"),
            );
            return Ok(());
        }
        Some(earlier) => {
            give_up(node, earlier, text)?;
        }
        None => {}
    }
    files::make_folder(&node.path("recovery"))?;
    let number = format!("{wanted}\n");
    files::replace(&node.recovery("incarnation"), number.as_bytes(), For::All)?;
    out::line(text, "prepared", format_args!("{node}: for incarnation {wanted}"));
    Ok(())
}

/// Puts aside what was offered and drawn up for another recovery: it is not to be mixed with this one.
fn give_up(node: &NodeFolder, earlier: Incarnation, text: &mut String) -> Result<(), RecoverError> {
    let aside = aside(node, earlier);
    let path = node.path("recovery");
    std::fs::rename(&path, &aside)
        .map_err(|error| RecoverError::Write { path: aside.clone(), error })?;
    let aside = aside.display();
    out::line(text, "given up", format_args!("{node}: incarnation {earlier}, see `{aside}`"));
    Ok(())
}

/// Where what was prepared for an incarnation is put aside.
fn aside(node: &NodeFolder, earlier: Incarnation) -> PathBuf {
    let name = format!("given-up-{earlier}");
    let mut path = node.path(&name);
    let mut number = 1_u32;
    while path.exists() {
        number = number.saturating_add(1);
        path = node.path(&format!("{name}-{number}"));
    }
    path
}
