//! `casemate recover certify`: takes up the newest ledger, and draws up what the governors sign.

use std::collections::BTreeMap;
use std::path::PathBuf;

use casemate_ledger::State;
use casemate_ledger::recovery::examine;
use casemate_proto::manifest::{GenesisRecord, MAX_GENESIS};
use casemate_proto::recovery::{MAX_LIFE, RecoveryBoot, RecoveryCertificate};
use casemate_proto::{Incarnation, KeyName, Millis, NodeName, cbor};
use casemate_recovery::SealedBlob;
use clap::Args;

use super::boots::{find, holders_left};
use super::bundle::{self, Bundle, Parts};
use super::describe::describe;
use super::ledger::{Newest, newest};
use super::node::{NodeFolder, check_names, parse_node};
use super::{Pin, RecoverError, now};
use crate::online::{out, parse_length};

#[derive(Debug, Args)]
pub(crate) struct CertifyArgs {
    #[command(flatten)]
    pin: Pin,
    /// A node and its parent's folder, or a copy of it; once for every node of the roster.
    #[arg(long = "node", value_name = "NAME=FOLDER", value_parser = parse_node, required = true)]
    nodes: Vec<NodeFolder>,
    /// A store beside those in the nodes' folders; once for each. The newest sound ledger is taken up.
    #[arg(long = "store", value_name = "DIR")]
    stores: Vec<PathBuf>,
    /// How long boots may begin with the certificate. Every window is full until it lies behind that.
    #[arg(long, value_name = "LENGTH", value_parser = parse_life, default_value = "1h")]
    life: Millis,
    /// Take up this ledger though something shows that there was a newer one. What that one knew is
    /// forgotten.
    #[arg(long)]
    older_ledger: bool,
    /// Go on without this key, of which too few blobs are left; once for each. It signs no more.
    #[arg(long = "lose-key", value_name = "NAME", value_parser = parse_key)]
    lose_keys: Vec<KeyName>,
    /// Where to put the bundle: a folder that is not there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn parse_key(text: &str) -> Result<KeyName, String> {
    KeyName::new(text).map_err(|error| error.to_string())
}

fn parse_life(text: &str) -> Result<Millis, String> {
    match parse_length(text)? {
        life if life > MAX_LIFE => Err(format!("more than {MAX_LIFE}")),
        life => Ok(life),
    }
}

/// Runs `casemate recover certify`.
pub(super) fn run(args: &CertifyArgs) -> Result<(), RecoverError> {
    let pin = args.pin.genesis()?;
    let own = args.nodes.iter().map(|node| node.path("store")).filter(|path| path.exists());
    let stores: Vec<PathBuf> = args.stores.iter().cloned().chain(own).collect();
    let Newest { store, taken, genesis, others } = newest(pin, &stores, args.older_ledger)?;
    let state = &taken.state;
    check_names(&args.nodes, state.manifest())?;
    let (nodes, incarnation) = ordered(&args.nodes, state)?;

    let mut text = String::new();
    out::line(&mut text, "ledger of", format_args!("`{}`", store.display()));
    for line in others {
        out::line(&mut text, "other store", line);
    }
    let mut blobs: BTreeMap<NodeName, SealedBlob> = BTreeMap::new();
    for node in &nodes {
        let found = find(state, node, args.older_ledger)?;
        match found.blob {
            Some((_, blob)) => {
                blobs.insert(node.name.clone(), blob);
            }
            // with one that fits, those of former boots and epochs are nothing to speak of
            None => {
                for line in found.others {
                    out::line(&mut text, "NOT TAKEN", line);
                }
            }
        }
    }
    check_keys(state, &blobs, &args.lose_keys)?;

    let boot = |node: &NodeFolder| {
        let offer = node.offer(pin, incarnation)?;
        Ok(RecoveryBoot { offer, sealed: blobs.get(&node.name).map(SealedBlob::hash) })
    };
    let at = now()?;
    let certificate = RecoveryCertificate {
        version: 1,
        genesis: pin,
        former: state.incarnation(),
        incarnation,
        at,
        expires: at.saturating_add(args.life),
        ledger: taken.name(),
        policy: state.policy().map(|(_, hash)| hash),
        images: state.images().iter().cloned().collect(),
        revoked: state.revoked().iter().copied().collect(),
        boots: nodes.iter().copied().map(boot).collect::<Result<_, RecoverError>>()?,
    };
    certificate.check(pin, state.manifest())?;
    examine(state, certificate.ledger.state, &certificate)?;
    let genesis_record: GenesisRecord =
        cbor::decode(&genesis, MAX_GENESIS).map_err(|error| RecoverError::Malformed {
            path: store.join("genesis.cbor"),
            what: "a genesis record",
            error,
        })?;
    let parts = Parts {
        genesis: &cbor::encode(&genesis_record),
        certificate: &certificate,
        snapshot: &taken.snapshot,
        tail: &taken.tail,
        blobs: &blobs,
    };
    bundle::write(&args.out, &parts)?;
    // what was written is what is shown
    let bundle = Bundle::load(&args.out, pin, at)?;
    describe(&mut text, &bundle);
    let governance = &state.manifest().governance;
    let (k, m) = (governance.quorum, governance.keys.len());
    out::line(&mut text, "to sign", format_args!("{k} of {m} governors"));
    out::line(&mut text, "written", args.out.display());
    Ok(out::text(&text)?)
}

/// The nodes in the roster's order, and the incarnation that all of them are prepared for.
fn ordered<'a>(
    given: &'a [NodeFolder],
    state: &State,
) -> Result<(Vec<&'a NodeFolder>, Incarnation), RecoverError> {
    let mut nodes = Vec::new();
    let mut all: Option<Incarnation> = None;
    for spec in &state.manifest().nodes {
        let node = given
            .iter()
            .find(|node| node.name == spec.name)
            .ok_or_else(|| RecoverError::NotNamed { node: spec.name.clone() })?;
        let found = node.prepared()?.ok_or_else(|| RecoverError::Missing {
            path: node.recovery("incarnation"),
            what: "the node is not prepared: `casemate recover prepare`",
        })?;
        match all {
            Some(expected) if expected != found => {
                let found = format!("incarnation {found}");
                return Err(RecoverError::PreparedApart {
                    node: node.name.clone(),
                    found,
                    expected,
                });
            }
            _ => all = Some(found),
        }
        nodes.push(node);
    }
    Ok((nodes, all.unwrap_or_default()))
}

/// Refuses to lose a key that was not named.
fn check_keys(
    state: &State,
    blobs: &BTreeMap<NodeName, SealedBlob>,
    lose: &[KeyName],
) -> Result<(), RecoverError> {
    let need = state.manifest().threshold;
    for (key, have) in holders_left(state, blobs.keys()) {
        let enough = u64::try_from(have).unwrap_or(u64::MAX) >= need;
        if !enough && !lose.contains(&key) {
            return Err(RecoverError::KeyLost { key, have, need });
        }
    }
    Ok(())
}
