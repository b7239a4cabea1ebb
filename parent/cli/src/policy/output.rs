//! Verdicts and errors as JSON and for people.

use std::io::{self, Write as _};

use casemate_policy::{Counter, Decision, Policy};
use casemate_proto::{Amount, Denial, denial::LimitRef};
use serde_json::{Value, json};

use super::PolicyCliError;

/// Prints an error: as JSON too where JSON was asked for.
pub(super) fn error(error: &PolicyCliError, json: bool) -> io::Result<()> {
    let mut stderr = io::stderr();
    if !json {
        return writeln!(stderr, "error: {error}");
    }
    let places = match error {
        PolicyCliError::Policy { source, .. } => source
            .errors
            .iter()
            .map(|e| json!({ "line": e.line, "place": e.place, "problem": e.problem.to_string() }))
            .collect(),
        _ => Vec::new(),
    };
    let value = json!({ "error": error.to_string(), "errors": places });
    writeln!(io::stdout(), "{value:#}")
}

pub(super) fn limit(limit: &LimitRef) -> Value {
    match limit {
        LimitRef::PerTx { max } => json!({ "kind": "per_tx", "max": max }),
        LimitRef::Sum { max, window } => {
            json!({ "kind": "sum", "max": max, "window": window.to_text() })
        }
        LimitRef::Count { max, window } => {
            json!({ "kind": "count", "max": max.to_string(), "window": window.to_text() })
        }
        LimitRef::Fee { max } => json!({ "kind": "fee", "max": max }),
        LimitRef::FeeSum { max, window } => {
            json!({ "kind": "fee_sum", "max": max, "window": window.to_text() })
        }
    }
}

pub(super) fn denial(denial: &Denial) -> Value {
    json!({
        "code": denial.code.name(),
        "grant": denial.grant,
        "limit": denial.limit.as_ref().map(limit),
        "remaining": denial.remaining,
        "resets_at": denial.resets_at.map(|at| at.to_rfc3339()),
        "detail": denial.detail,
    })
}

fn counter(policy: &Policy, counter: &Counter) -> Value {
    let asset = counter.asset.as_ref().and_then(|key| policy.asset(key)).map(|(id, _)| id);
    json!({
        "limit": limit(&counter.limit),
        "per": counter.per.name(),
        "shared": counter.shared,
        "asset": asset,
        "before": counter.before,
        "after": counter.after,
    })
}

/// A verdict as JSON.
pub(super) fn decision(policy: &Policy, decision: &Decision) -> Value {
    match decision {
        Decision::Allow(allowance) => json!({
            "outcome": "allowed",
            "grant": allowance.grant(),
            "tier": allowance.tier(),
            "counters": allowance.counters().iter().map(|c| counter(policy, c)).collect::<Vec<_>>(),
        }),
        Decision::Pending(requirement) => json!({
            "outcome": "pending",
            "grant": requirement.grant,
            "tier": requirement.tier,
            "needed": requirement.needed,
            "of": requirement.of,
            "passkey": requirement.passkey,
            "have": requirement.have,
            "not_before": requirement.not_before.map(|at| at.to_rfc3339()),
        }),
        Decision::Deny(found) => json!({ "outcome": "denied", "denial": denial(found) }),
    }
}

fn amount(policy: &Policy, counter: &Counter, amount: Amount) -> String {
    let counts = matches!(counter.limit, LimitRef::Count { .. });
    match counter.asset.as_ref().and_then(|key| policy.asset(key)) {
        Some((id, asset)) if !counts => format!("{} {id}", amount.to_decimal(asset.decimals)),
        _ => amount.to_string(),
    }
}

/// A verdict for people.
pub(super) fn decision_text(policy: &Policy, decision: &Decision) -> String {
    match decision {
        Decision::Allow(allowance) => {
            let mut text = format!("allowed by grant {}", allowance.grant());
            if let Some(tier) = allowance.tier() {
                text.push_str(&format!(", tier {tier}"));
            }
            text.push('\n');
            for c in allowance.counters() {
                let (what, max, window) = match &c.limit {
                    LimitRef::Sum { max, window } => ("sum", *max, window),
                    LimitRef::FeeSum { max, window } => ("fees", *max, window),
                    LimitRef::Count { max, window } => ("count", Amount::from(*max), window),
                    LimitRef::PerTx { .. } | LimitRef::Fee { .. } => continue,
                };
                text.push_str(&format!(
                    "  {what} in {window}, per {}: {} → {} of {}\n",
                    c.per.name(),
                    amount(policy, c, c.before),
                    amount(policy, c, c.after),
                    amount(policy, c, max),
                ));
            }
            text
        }
        Decision::Pending(r) => {
            let mut text = format!("pending by grant {}, tier {}", r.grant, r.tier);
            if let Some(of) = &r.of {
                let how = if r.passkey { " by passkey" } else { "" };
                text.push_str(&format!(": {} of {} approvals{how} of @{of}", r.have, r.needed));
            }
            if let Some(at) = r.not_before {
                text.push_str(&format!("; not before {at}"));
            }
            text.push('\n');
            text
        }
        Decision::Deny(found) => {
            let mut text = format!("denied: {found}\n");
            if let Some(grant) = &found.grant {
                text.push_str(&format!("  grant: {grant}\n"));
            }
            if let Some(at) = found.resets_at {
                text.push_str(&format!("  fits again at {at}\n"));
            }
            text
        }
    }
}
