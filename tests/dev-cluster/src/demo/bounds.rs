//! The policy's bounds, as the report gives them.

use casemate_policy::bounds::{Cluster, Setting, Span, bounds};
use casemate_policy::{AssetKey, Policy};
use casemate_proto::manifest::Manifest;
use casemate_proto::{Amount, Millis, UnixMillis};

use super::report::BoundReport;

/// A bound with what it is a bound on.
#[derive(Clone, Debug)]
pub struct Bound {
    /// As it is reported.
    pub report: BoundReport,
    /// The asset.
    pub asset: AssetKey,
    /// The window.
    pub window: Millis,
    /// The amount, fees included.
    pub amount: Amount,
    /// Whether an attacker gets exactly that.
    pub attained: bool,
}

/// The bounds for each window, by key and asset: what `casemate policy bounds` prints.
#[must_use]
pub fn of(policy: &Policy, manifest: &Manifest, now: UnixMillis) -> Vec<Bound> {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let cluster = Cluster {
        nodes: small(manifest.nodes.len()),
        threshold: u32::try_from(manifest.threshold).unwrap_or(u32::MAX),
        tau: manifest.limits.tau,
        delta: manifest.limits.delta,
        dead_man: manifest.limits.dead_man,
        lease: None,
    };
    let all = bounds(policy, Setting { now, cluster: Some(cluster) });
    all.rows
        .into_iter()
        .filter_map(|row| {
            let Span::Window(window) = row.span else { return None };
            let amount = row.amount?;
            let report = BoundReport {
                key: row.key.to_string(),
                asset: row.asset.to_string(),
                window: window.to_text(),
                amount: amount.to_string(),
                decimals: row.decimals,
            };
            let asset = policy.doc().assets.get(&row.asset)?.key();
            Some(Bound { report, asset, window, amount, attained: row.attained })
        })
        .collect()
}
