//! Step 7: the log, verified from the files of the store alone, as an auditor does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use casemate_audit::custody::{Bounds, CustodyEvidence, CustodyReport, Exit};
use casemate_audit::note::MAX_NOTE;
use casemate_audit::reconcile::{Seen, reconcile};
use casemate_audit::store::{CHECKPOINT, GENESIS, read_tile};
use casemate_audit::tile::{TileKind, parse_bundle, tiles_for};
use casemate_audit::{
    Checkpoint, Expectations, InclusionReceipt, SignedNote, StoreRead, Tree, leaf_hash,
    verify_checkpoint, verify_store,
};
use casemate_ledger::State;
use casemate_ledger::replay::Replayer;
use casemate_proto::manifest::{Hardware, MAX_GENESIS};

use crate::demo::DemoError;
use crate::demo::bounds::Bound;
use crate::demo::proof::verify_under;
use crate::demo::report::{BoundReport, ReceiptReport};
use crate::demo::session::Session;
use crate::demo::temporary::Temporary;
use crate::store::{Folder, write};

/// What the report takes from here.
pub(crate) struct Audited {
    /// The newest checkpoint.
    pub(crate) checkpoint: String,
}

pub(crate) fn run(
    session: &mut Session<'_>,
    bounds: &[Bound],
    kept: Option<&Path>,
) -> Result<Audited, DemoError> {
    session.begin(7, "the audit: the log, from the store's files alone");
    let files = session.nodes().store()?;
    let temporary = if kept.is_none() { Some(Temporary::new()?) } else { None };
    let path = match (&kept, &temporary) {
        (Some(path), _) => *path,
        (None, Some(temporary)) => temporary.path(),
        (None, None) => {
            return Err(DemoError::Missing { what: "folder", name: "store".to_owned() });
        }
    };
    write(path, &files)?;
    let store = Folder::new(path);
    let (audited, replayer) = verify(session, &store)?;
    prove_denials(session, &store, &audited)?;
    custody(session, replayer.state(), bounds);
    if let Some(path) = kept {
        let (store, genesis) = (path.display(), session.nodes().scope().genesis);
        session.say(format!("the store is in {store}; to verify it as an auditor does:"));
        session.say(format!("casemate audit verify --store {store} --genesis {genesis}"));
    }
    Ok(audited)
}

fn required(store: &Folder, path: &str, max: usize) -> Result<Vec<u8>, DemoError> {
    store
        .read(path, max)?
        .ok_or(DemoError::Missing { what: "file in the store", name: path.to_owned() })
}

fn verify(session: &mut Session<'_>, store: &Folder) -> Result<(Audited, Replayer), DemoError> {
    let genesis = required(store, GENESIS, MAX_GENESIS)?;
    let mut replay = Replayer::from_genesis(&genesis).map_err(|error| DemoError::Cluster {
        what: format!("has a genesis that is none: {error}"),
    })?;
    let expectations = Expectations::of(session.nodes().scope().genesis);
    let report = verify_store(store, &expectations, &mut replay);
    for finding in report.findings().iter().take(5) {
        session.say(format!("✗ {finding}"));
    }
    let counts = report.counts().clone();
    session.say(format!(
        "{} records, every one executed again with the same verdict; {} checkpoints, {} tiles",
        counts.records, counts.checkpoints, counts.tiles
    ));
    session.check("the log is verified from the store alone", report.is_verified());
    session.check(
        "every verdict comes out again when its entry is executed again",
        counts.replayed == counts.records && counts.records > 0,
    );
    let in_log: BTreeSet<[u8; 64]> = report.signatures().iter().map(|s| s.signature).collect();
    let held = session.signatures();
    let all = held.iter().all(|signature| in_log.contains(signature));
    session.say(format!(
        "{} signatures given out, {} in the log; each has its record, its proof and a checkpoint that {} nodes cosigned",
        held.len(),
        in_log.len(),
        report.needed_cosigners()
    ));
    let proven = session.tally().unproven() == 0;
    session.check("every signature has its leaf, proof and cosigned checkpoint", all && proven);
    session.check("the log has no signature that was not given out", held.len() == in_log.len());
    let checkpoint = String::from_utf8_lossy(&required(store, CHECKPOINT, MAX_NOTE)?).into_owned();
    let seen = held
        .iter()
        .filter_map(|signature| Seen::parse(&format!("0x{}", hex::encode(signature))).ok());
    let reconciled = reconcile(seen, report.signatures());
    let found = reconciled.recorded.len();
    session.say(format!("{found} signatures seen outside, as on a chain: each has its record"));
    session.check(
        "reconciling what was given out with the log leaves nothing over on either side",
        reconciled.is_clean() && reconciled.not_seen == 0 && found == held.len(),
    );
    let note = SignedNote::parse(checkpoint.as_bytes())?;
    let mut policies = session.receipt_policies().iter().rev();
    let cosigned = policies.any(|policy| verify_checkpoint(&note, policy).is_ok());
    session.check("the newest checkpoint is cosigned", cosigned);
    Ok((Audited { checkpoint }, replay))
}

/// Gives each recorded denial its proof, under the newest checkpoint.
fn prove_denials(
    session: &mut Session<'_>,
    store: &Folder,
    audited: &Audited,
) -> Result<(), DemoError> {
    let note = SignedNote::parse(audited.checkpoint.as_bytes())?;
    let size = Checkpoint::parse(note.text())?.size;
    let (mut tree, mut leaves) = (Tree::new(), Vec::new());
    for tile in tiles_for(0, size).filter(|tile| tile.kind() == TileKind::Entries) {
        let Some((found, bytes)) = read_tile(store, tile)? else { continue };
        let bundle = parse_bundle(found, &bytes).map_err(|error| DemoError::Cluster {
            what: format!("has a bundle of records that is none: {error}"),
        })?;
        for leaf in bundle.into_iter().take(usize::from(tile.width())) {
            tree.append(leaf_hash(leaf));
            leaves.push(leaf.to_vec());
        }
    }
    let policies = session.receipt_policies().to_vec();
    let mut proven = true;
    let mut receipts = BTreeMap::new();
    for (place, index) in session.denied() {
        let leaf = usize::try_from(index).ok().and_then(|index| leaves.get(index));
        let (Some(leaf), Ok(proof)) = (leaf, tree.inclusion_proof(index, size)) else {
            proven = false;
            continue;
        };
        let checkpoint = audited.checkpoint.clone();
        let receipt = InclusionReceipt { leaf: leaf.clone(), proof, checkpoint };
        proven &= verify_under(&receipt, &policies).is_ok();
        receipts.insert(place, ReceiptReport::of_record(&receipt)?);
    }
    session.say(format!("{} denials are in the log too, each with its proof", receipts.len()));
    session.check("every recorded denial has its leaf and proof", proven && !receipts.is_empty());
    session.attach_receipts(receipts);
    Ok(())
}

/// The five questions, answered from the log that was verified: what `casemate audit custody`
/// prints of the same folder.
fn custody(session: &mut Session<'_>, state: &State, bounds: &[Bound]) {
    let lines = bounds.iter().map(|bound| {
        let BoundReport { key, asset, window, decimals, .. } = &bound.report;
        let amount = bound.amount.to_decimal(*decimals);
        format!("key {key}: at most {amount} {asset} in any {window}")
    });
    let lines = lines.collect();
    let bounds = state.policy().map(|(_, policy)| Bounds { policy, lines });
    let mut evidence = CustodyEvidence::from_manifest(
        state.manifest(),
        state.genesis(),
        state.incarnation(),
        bounds,
        Exit::TransferOnly,
    );
    evidence.policy_in_force = state.policy().is_some();
    let report = CustodyReport::new(&evidence);
    session.say("");
    for line in report.to_string().lines() {
        session.say(line);
    }
    let truth = match state.manifest().hardware {
        Hardware::Nitro => "every share in an attested enclave",
        Hardware::Simulated => "simulated security modules, no hardware",
        Hardware::OneProcess => "one process, no hardware",
    };
    let honest = report.answers().len() == 5 && report.hardware() == truth;
    session.check(format!("the custody report says what this is: {truth}"), honest);
}
