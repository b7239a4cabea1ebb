//! `casemate recover start`: hands over to the nodes what they begin with.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_ledger::Verdict;
use casemate_ledger::recovery::commit;
use casemate_proto::cbor;
use casemate_proto::recovery::RecoveryGranted;
use casemate_proto::{Incarnation, Millis, NodeName};
use casemate_recovery::{MAX_RELEASE, Release};
use clap::Args;

use super::bundle::Bundle;
use super::files::{self, For, list};
use super::node::{NodeFolder, check_names, genesis_of, parse_node};
use super::{Pin, RecoverError, now};
use crate::online::{duration, out, parse_length};

/// How often is looked whether a node has begun.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pin: Pin,
    /// The bundle, signed and with the releases.
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// A node and its parent's folder; once for each at this machine.
    #[arg(long = "node", value_name = "NAME=FOLDER", value_parser = parse_node, required = true)]
    nodes: Vec<NodeFolder>,
    /// How long to wait until these nodes have begun.
    #[arg(long, value_name = "LENGTH", value_parser = parse_length, default_value = "60s")]
    timeout: Millis,
    /// Do not wait.
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

/// What a node is handed beside what all are.
struct Handed<'a> {
    node: &'a NodeFolder,
    blob: Option<Vec<u8>>,
    releases: Vec<(String, Vec<u8>)>,
    begun: bool,
}

/// Runs `casemate recover start`.
pub(super) fn run(args: &StartArgs) -> Result<(), RecoverError> {
    let pin = args.pin.genesis()?;
    let at = now()?;
    let bundle = Bundle::load(&args.bundle, pin, at)?;
    check_names(&args.nodes, bundle.manifest())?;
    let granted = bundle.granted(at)?;
    rehearse(&bundle, &granted)?;
    let incarnation = bundle.certificate.incarnation;
    // every node is looked at before anything is written to one
    let handed: Vec<Handed<'_>> = args
        .nodes
        .iter()
        .map(|node| prepare(node, &bundle, &granted))
        .collect::<Result<_, RecoverError>>()?;
    let certificate = cbor::encode(granted.signed());
    let mut text = String::new();
    for handed in &handed {
        if handed.begun {
            out::line(&mut text, "has begun", handed.node);
            continue;
        }
        hand_over(handed, &bundle, &certificate)?;
        out::line(&mut text, "handed over", handed.node);
    }
    out::text(&text)?;
    if args.no_wait {
        return Ok(());
    }
    let mut text = String::new();
    let since = Instant::now();
    for handed in &handed {
        wait(handed.node, incarnation, since, args.timeout)?;
        let node = &handed.node.name;
        out::line(&mut text, "begun", format_args!("{node}: incarnation {incarnation}, FROZEN"));
    }
    out::text(&text)?;
    let id = bundle.certificate.id();
    out::note(&format!("the governance quorum lifts the freeze with `casemate unfreeze {id}`"))?;
    Ok(())
}

/// What every boot and every auditor will do with the certificate, done once before.
fn rehearse(bundle: &Bundle, granted: &RecoveryGranted) -> Result<(), RecoverError> {
    let mut state = bundle.state.clone();
    match state.apply(&commit(granted)) {
        Ok(applied) => match applied.verdict {
            Verdict::Denied(denial) => Err(RecoverError::Refused(denial.to_string())),
            _ => Ok(()),
        },
        Err(error) => Err(RecoverError::Refused(error.to_string())),
    }
}

/// Looks whether a node's folder is ready for it, and what it is handed.
fn prepare<'a>(
    node: &'a NodeFolder,
    bundle: &Bundle,
    granted: &RecoveryGranted,
) -> Result<Handed<'a>, RecoverError> {
    let certificate = &bundle.certificate;
    let path = node.path("genesis.cbor");
    let missing = "the genesis record: is that the folder of the node's parent?";
    genesis_of(&path, certificate.genesis)?
        .ok_or(RecoverError::Missing { path: path.clone(), what: missing })?;
    let (wanted, current) = (certificate.incarnation, node.incarnation()?);
    if current == wanted {
        return Ok(Handed { node, blob: None, releases: Vec::new(), begun: true });
    }
    if current > wanted {
        return Err(RecoverError::NotLater { path: node.folder.clone(), current, wanted });
    }
    let prepared = node.prepared()?.ok_or_else(|| RecoverError::Missing {
        path: node.recovery("incarnation"),
        what: "the node is not prepared: `casemate recover prepare`",
    })?;
    if prepared != wanted {
        return Err(RecoverError::PreparedApart {
            node: node.name.clone(),
            found: format!("incarnation {prepared}"),
            expected: wanted,
        });
    }
    let offered = node.offer(certificate.genesis, wanted)?.record.id();
    let named = certificate.boot(&node.name).map(|boot| boot.offer.record.id());
    if named != Some(offered) {
        return Err(RecoverError::OtherBoot {
            node: node.name.clone(),
            offered: offered.to_string(),
            named: named.map_or_else(|| "none".to_owned(), |named| named.to_string()),
        });
    }
    let blob = bundle.blobs.get(&node.name);
    let releases = match blob {
        Some(_) => releases(&node.name, bundle, granted)?,
        None => Vec::new(),
    };
    Ok(Handed {
        node,
        blob: blob.map(casemate_recovery::SealedBlob::encode),
        releases,
        begun: false,
    })
}

/// The releases of a node's blob that are for this recovery; whether a part is right only its enclave can see.
fn releases(
    node: &NodeName,
    bundle: &Bundle,
    granted: &RecoveryGranted,
) -> Result<Vec<(String, Vec<u8>)>, RecoverError> {
    let named = bundle.certificate.boot(node).and_then(|boot| boot.sealed);
    let (mut good, mut bad, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for path in list(&bundle.releases(node), "cbor")? {
        let bytes = casemate_client::files::read(&path, MAX_RELEASE)?;
        let fits = Release::decode(&bytes).ok().filter(|release| {
            release.certificate == granted.id()
                && Some(release.blob) == named
                && release.node == *node
                && usize::from(release.governor) < bundle.manifest().governance.keys.len()
        });
        match fits {
            Some(release) => {
                places.push(release.governor);
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                good.push((name, bytes));
            }
            None => bad.push(format!("`{}`", path.display())),
        }
    }
    places.sort_unstable();
    places.dedup();
    let need = bundle.manifest().governance.quorum;
    if u64::try_from(places.len()).unwrap_or(0) < need {
        let (node, have, bad) = (node.clone(), places.len(), bad.join(", "));
        return Err(RecoverError::TooFewReleases { node, have, need, bad });
    }
    Ok(good)
}

/// Writes what the parent hands to its enclave: the certificate last, since with it the rest is taken.
fn hand_over(handed: &Handed<'_>, bundle: &Bundle, certificate: &[u8]) -> Result<(), RecoverError> {
    let node = handed.node;
    let remove = |path: PathBuf| match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RecoverError::Write { path, error })
        }
        _ => Ok(()),
    };
    // what an earlier try has left is not to be mixed with this one
    remove(node.recovery("certificate.cbor"))?;
    remove(node.recovery("blob.cbor"))?;
    let folder = node.recovery("releases");
    for path in list(&folder, "cbor")? {
        remove(path)?;
    }
    let put = |name: &str, bytes: &[u8]| files::replace(&node.recovery(name), bytes, For::All);
    put("snapshot.cbor", &bundle.snapshot)?;
    put("tail.cbor", &bundle.tail)?;
    if let Some(blob) = &handed.blob {
        put("blob.cbor", blob)?;
    }
    files::make_folder(&folder)?;
    for (name, release) in &handed.releases {
        files::replace(&folder.join(name), release, For::All)?;
    }
    put("certificate.cbor", certificate)
}

/// Waits until a node's parent notes that its enclave has begun.
fn wait(
    node: &NodeFolder,
    wanted: Incarnation,
    since: Instant,
    timeout: Millis,
) -> Result<(), RecoverError> {
    while node.incarnation()? < wanted {
        if since.elapsed() > duration(timeout) {
            return Err(RecoverError::NotBegun {
                node: node.name.clone(),
                waited: timeout,
                hint: "is its parent running, and its enclave the one that offered itself?"
                    .to_owned(),
            });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
