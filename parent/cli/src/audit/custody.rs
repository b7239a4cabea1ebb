//! The evidence for `casemate audit custody`: manifest, admitted boots, and their attestation.
//!
//! A node counts as attested only if its current boot's document verifies here under *AWS's* root
//! and binds that boot. The manifest's own trust root may be a simulated one: documents under it
//! prove nothing about hardware. Given that root, they are verified all the same, so that the report says
//! which image each names; a share in it counts as apart from no other.

use std::collections::BTreeMap;

use casemate_attestation_verify::{
    AWS_NITRO_ENCLAVES_G1_PEM, At, Evidence, Expectations, TrustRoot, verify,
};
use casemate_audit::custody::{
    Boundary, Bounds, CustodyEvidence, CustodyReport, Exit, UnixMillisText,
};
use casemate_audit::store::attachment_path;
use casemate_audit::{Record, StoreRead as _};
use casemate_ledger::replay::Replayer;
use casemate_ledger::{Entry, EntryBody, State};
use casemate_policy::bounds::{Bound, Cluster, Setting, Span, bounds};
use casemate_proto::ids::Hash32;
use casemate_proto::manifest::{BootRecord, GenesisRecord, Hardware};
use casemate_proto::recovery::{MAX_SIGNED_CERTIFICATE, SignedCertificate};
use casemate_proto::{NodeName, UnixMillis, cbor};

use super::AuditError;
use super::folder::Folder;
use super::show::each_leaf;

/// Answers for the state that the ledger is in after the log was verified.
pub(super) fn report(
    folder: &Folder,
    replayer: &Replayer,
    size: u64,
    simulated: Option<&TrustRoot>,
) -> Result<CustodyReport, AuditError> {
    let state = replayer.state();
    let manifest = state.manifest();
    let mut evidence = CustodyEvidence::from_manifest(
        manifest,
        state.genesis(),
        state.incarnation(),
        policy_bounds(state),
        Exit::TransferOnly,
    );
    evidence.policy_in_force = state.policy().is_some();
    if let Some(root) = simulated
        && root.fingerprint() != manifest.trust_root.as_bytes()
    {
        return Err(AuditError::OtherRoot { manifest: manifest.trust_root });
    }
    // whether an enclave is one is AWS's to say, whatever root was given
    let judge: Option<Judge<'_>> = match (manifest.hardware, simulated) {
        (Hardware::Nitro, _) => Some(Box::new(attested)),
        (Hardware::Simulated, Some(root)) => {
            Some(Box::new(move |boot, scope| simulated_image(boot, scope, root)))
        }
        _ => None,
    };
    if let Some(judge) = judge {
        let boots = current_boots(folder, replayer, size);
        for node in &mut evidence.nodes {
            let found = boots.get(&node.name).and_then(|(boot, scope)| judge(boot, scope));
            if let Some(boundary) = found {
                node.boundary = boundary;
            }
        }
    }
    Ok(CustodyReport::new(&evidence))
}

type Judge<'a> = Box<dyn Fn(&BootRecord, &Hash32) -> Option<Boundary> + 'a>;

/// The bounds of the policy in force, counted from the ledger's time.
fn policy_bounds(state: &State) -> Option<Bounds> {
    let (policy, hash) = state.policy()?;
    let manifest = state.manifest();
    let cluster = Cluster {
        nodes: u32::try_from(manifest.nodes.len()).unwrap_or(u32::MAX),
        threshold: u32::try_from(manifest.threshold).unwrap_or(u32::MAX),
        tau: manifest.limits.tau,
        delta: manifest.limits.delta,
        dead_man: manifest.limits.dead_man,
        lease: None,
    };
    let found = bounds(policy, Setting { now: state.time(), cluster: Some(cluster) });
    let rows = found.rows.iter().map(row);
    let unbounded = found.unbounded.iter().map(|grant| {
        format!(
            "key {}: WITHOUT LIMIT: grant {} signs {}",
            grant.key,
            grant.grant,
            grant.actions.join(", ")
        )
    });
    Some(Bounds { policy: hash, lines: unbounded.chain(rows).collect() })
}

fn row(row: &Bound) -> String {
    let span = match row.span {
        Span::Window(window) => format!("in any {window}"),
        other @ Span::UntilExpiry(_) => other.to_string(),
    };
    match row.amount {
        Some(amount) => {
            let amount = amount.to_decimal(row.decimals);
            format!("key {}: at most {amount} {} {span}", row.key, row.asset)
        }
        None => format!("key {}: {} WITHOUT LIMIT {span}", row.key, row.asset),
    }
}

/// The current boot of each node, and what its document's user data is bound to.
fn current_boots(
    folder: &Folder,
    replayer: &Replayer,
    size: u64,
) -> BTreeMap<NodeName, (BootRecord, Hash32)> {
    let state = replayer.state();
    let genesis = replayer.genesis();
    let born = GenesisRecord::manifest_hash(&genesis.manifest);
    let admitted = Hash32::new(*state.genesis().as_bytes());
    let mut boots = BTreeMap::new();
    let mut keep = |boot: &BootRecord, scope: Hash32| {
        if state.current_boot(&boot.node) == Some(boot.id()) {
            boots.insert(boot.node.clone(), (boot.clone(), scope));
        }
    };
    genesis.boots.iter().for_each(|boot| keep(boot, born));
    // a record that cannot be read here was a finding of the verification before
    let _ = each_leaf(folder, 0, size, |_, leaf| {
        let entry = Record::parse(leaf).map(|record| Entry::decode(&record.fields().entry));
        match entry {
            Ok(Ok(Entry { body: EntryBody::Admit(boot), .. })) => keep(&boot, admitted),
            Ok(Ok(Entry { body: EntryBody::Recover { certificate }, .. })) => {
                let beside = folder.read(&attachment_path(&certificate), MAX_SIGNED_CERTIFICATE);
                let signed = beside.ok().flatten().and_then(|bytes| {
                    cbor::decode::<SignedCertificate>(&bytes, MAX_SIGNED_CERTIFICATE).ok()
                });
                if let Some(SignedCertificate { certificate, .. }) = signed {
                    let scope = certificate.scope();
                    certificate.boots.iter().for_each(|boot| keep(&boot.offer.record, scope));
                }
            }
            _ => {}
        }
        Ok(true)
    });
    boots
}

fn attested(boot: &BootRecord, scope: &Hash32) -> Option<Boundary> {
    let root = TrustRoot::from_pem(AWS_NITRO_ENCLAVES_G1_PEM).ok()?;
    let evidence = evidence(boot, scope, &root)?;
    Some(Boundary::Attested {
        pcr0: evidence.pcr(0)?.to_string(),
        at: UnixMillisText(UnixMillis(evidence.timestamp().get())),
        attested_region: Some(evidence.region().to_owned()),
    })
}

fn simulated_image(boot: &BootRecord, scope: &Hash32, root: &TrustRoot) -> Option<Boundary> {
    let evidence = evidence(boot, scope, root)?;
    Some(Boundary::SimulatedImage {
        pcr0: evidence.pcr(0)?.to_string(),
        at: UnixMillisText(UnixMillis(evidence.timestamp().get())),
    })
}

fn evidence(boot: &BootRecord, scope: &Hash32, root: &TrustRoot) -> Option<Evidence> {
    // which image it is was for the roster to accept; here the question is whether it is one
    let expectations = Expectations::dangerous_any_measurement()
        .with_user_data(boot.user_data(scope).as_bytes().to_vec());
    verify(&boot.evidence, root, &expectations, At::Document).ok()
}
