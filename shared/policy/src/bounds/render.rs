//! Bounds in plain English and as JSON.

use core::fmt::{self, Write as _};

use casemate_proto::{Amount, Millis};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::bounds::{Bound, Bounds, Cluster, SharedBound, Span, Unbounded};

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(window) => write!(f, "{window}"),
            Self::UntilExpiry(Some(end)) => write!(f, "until {end}"),
            Self::UntilExpiry(None) => f.write_str("for ever"),
        }
    }
}

impl Span {
    fn in_words(&self) -> String {
        match self {
            Self::Window(window) => format!("in any {window}"),
            other => other.to_string(),
        }
    }
}

const UNLIMITED: &str = "**UNLIMITED**";

fn show(amount: Option<Amount>, decimals: u8) -> String {
    amount.map_or_else(|| UNLIMITED.to_owned(), |amount| amount.to_decimal(decimals))
}

impl Bounds {
    /// In plain English, a line for each figure.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // writing to a String does not fail
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "policy `{}`, {}", self.policy_name, self.policy_hash)?;
        writeln!(out, "counted from {}", self.setting.now)?;
        writeln!(out)?;
        writeln!(
            out,
            "With every host, every network and every requester's credential in an attacker's"
        )?;
        writeln!(out, "hands, and no approver's, this and no more is signed away:")?;
        for found in &self.unbounded {
            Self::write_unbounded(found, out)?;
        }
        let mut key = None;
        for row in &self.rows {
            if key != Some(&row.key) {
                key = Some(&row.key);
                writeln!(out)?;
                writeln!(out, "key {}", row.key)?;
            }
            self.write_row(row, out)?;
        }
        if self.rows.is_empty() {
            writeln!(out, "  nothing: no grant moves an amount")?;
        }
        if !self.shared.is_empty() {
            writeln!(out)?;
            writeln!(out, "shared limits, over all that they count")?;
        }
        for shared in &self.shared {
            let amount = show(shared.amount, shared.decimals);
            let what: Vec<_> = shared.counts.iter().map(|(k, a)| format!("{k}/{a}")).collect();
            writeln!(
                out,
                "  {}: {amount} {} ({}){}",
                shared.name,
                shared.span.in_words(),
                what.join(", "),
                reached(shared.attained)
            )?;
        }
        self.write_cluster(out)
    }

    fn write_row(&self, row: &Bound, out: &mut String) -> fmt::Result {
        let amount = show(row.amount, row.decimals);
        write!(out, "  {amount} {} {}", row.asset, row.span.in_words())?;
        if let Some(fees) = row.fees.filter(|fees| !fees.is_zero()) {
            write!(out, ", {} of it in fees", fees.to_decimal(row.decimals))?;
        }
        write!(out, "{}", reached(row.attained))?;
        if row.with_approvals != row.amount {
            let helped = show(row.with_approvals, row.decimals);
            write!(out, "; {helped} if every approver approves")?;
        }
        match row.wallets {
            Some(1) => {}
            Some(n) => write!(out, "; over {n} wallets, each with limits of its own")?,
            None => write!(out, "; over any number of wallets, each with limits of its own")?,
        }
        if let Some(grant) = &row.unbounded_by {
            write!(out, "; grant {grant} signs what no amount bounds")?;
        }
        writeln!(out)
    }

    fn write_unbounded(found: &Unbounded, out: &mut String) -> fmt::Result {
        let actions = found.actions.join(", ");
        write!(
            out,
            "\n  {UNLIMITED}: grant {} signs {actions} with key {}, which can move anything that the key holds",
            found.grant, found.key
        )?;
        if found.signatures.is_empty() {
            write!(out, ", any number of times")?;
        }
        for (count, window) in &found.signatures {
            write!(out, ", at most {count} times in {window}")?;
        }
        writeln!(out)
    }

    fn write_cluster(&self, out: &mut String) -> fmt::Result {
        writeln!(out)?;
        let Some(cluster) = &self.setting.cluster else {
            return writeln!(
                out,
                "Broken enclaves, freezes and recoveries depend on the cluster: give its parameters."
            );
        };
        let (n, t) = (cluster.nodes, cluster.threshold);
        for (b, times) in cluster.broken() {
            let s = if b == 1 { "" } else { "s" };
            writeln!(
                out,
                "If {b} enclave{s} of {n} (threshold {t}) is itself broken: at most {times} times each figure; each restart of another enclave within the window counts as one enclave more ({n} - {b} + restarts, divided by {t} - {b})."
            )?;
        }
        match cluster.freeze_held_back() {
            Some(length) => writeln!(
                out,
                "A host can hold a freeze back for at most {length} after the last heartbeat that any freezer signed: who wants a freeze has all of them fall silent."
            )?,
            None => writeln!(
                out,
                "A host can hold a freeze back FOR EVER: the manifest sets no dead man's limit."
            )?,
        }
        match cluster.lease {
            Some(lease) => writeln!(
                out,
                "A cold recovery adds nothing: the recovered cluster signs only {lease} after the old one's lease ended."
            ),
            None => writeln!(
                out,
                "Each cold recovery, were the old enclaves paused and not dead, adds one limit to each window."
            ),
        }
    }
}

const fn reached(attained: bool) -> &'static str {
    if attained { " (reached exactly)" } else { "" }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A figure multiplied for broken enclaves.
#[derive(Serialize)]
struct Broken {
    enclaves: u32,
    times: u32,
    amount: Option<Amount>,
}

fn broken(cluster: Option<&Cluster>, amount: Option<Amount>) -> Vec<Broken> {
    let each = cluster.map(Cluster::broken).unwrap_or_default();
    each.into_iter()
        .map(|(enclaves, times)| Broken {
            enclaves,
            times,
            amount: amount.and_then(|amount| amount.checked_mul(u64::from(times))),
        })
        .collect()
}

struct Row<'a>(&'a Bound, Option<&'a Cluster>);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Self(row, cluster) = self;
        let mut out = s.serialize_struct("bound", 14)?;
        out.serialize_field("key", &row.key)?;
        out.serialize_field("asset", &row.asset)?;
        out.serialize_field("window", &row.span)?;
        out.serialize_field("amount", &row.amount)?;
        out.serialize_field("decimals", &row.decimals)?;
        out.serialize_field("unlimited", &row.amount.is_none())?;
        out.serialize_field("fees", &row.fees)?;
        out.serialize_field("with_approvals", &row.with_approvals)?;
        out.serialize_field("attained", &row.attained)?;
        out.serialize_field("wallets", &row.wallets)?;
        out.serialize_field("grants", &row.grants)?;
        out.serialize_field("unbounded_by", &row.unbounded_by)?;
        out.serialize_field("if_broken", &broken(*cluster, row.amount))?;
        out.end()
    }
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a casemate_proto::KeyName,
    asset: &'a casemate_proto::AssetId,
}

impl Serialize for SharedBound {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let counts: Vec<_> = self.counts.iter().map(|(key, asset)| Pair { key, asset }).collect();
        let mut out = s.serialize_struct("shared", 7)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("counts", &counts)?;
        out.serialize_field("window", &self.span)?;
        out.serialize_field("amount", &self.amount)?;
        out.serialize_field("decimals", &self.decimals)?;
        out.serialize_field("unlimited", &self.amount.is_none())?;
        out.serialize_field("attained", &self.attained)?;
        out.end()
    }
}

#[derive(Serialize)]
struct Signatures {
    count: u64,
    window: String,
}

impl Serialize for Unbounded {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let signatures: Vec<_> = self
            .signatures
            .iter()
            .map(|(count, window)| Signatures { count: *count, window: window.to_text() })
            .collect();
        let mut out = s.serialize_struct("unbounded", 4)?;
        out.serialize_field("grant", &self.grant)?;
        out.serialize_field("key", &self.key)?;
        out.serialize_field("actions", &self.actions)?;
        out.serialize_field("signatures", &signatures)?;
        out.end()
    }
}

/// JSON: amounts are decimal strings in base units, `null` for what is unlimited.
impl Serialize for Bounds {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let cluster = self.setting.cluster.as_ref();
        let rows: Vec<_> = self.rows.iter().map(|row| Row(row, cluster)).collect();
        let text = |length: Option<Millis>| length.map(Millis::to_text);
        let mut out = s.serialize_struct("bounds", 8)?;
        out.serialize_field("policy", &self.policy_hash)?;
        out.serialize_field("from", &self.setting.now.to_rfc3339())?;
        out.serialize_field("bounds", &rows)?;
        out.serialize_field("shared", &self.shared)?;
        out.serialize_field("unbounded", &self.unbounded)?;
        out.serialize_field(
            "freeze_held_back",
            &cluster.and_then(|cluster| text(cluster.freeze_held_back())),
        )?;
        out.serialize_field("lease", &cluster.and_then(|cluster| text(cluster.lease)))?;
        out.serialize_field(
            "extra_limits_per_recovery",
            &cluster.map(|cluster| u32::from(cluster.lease.is_none())),
        )?;
        out.end()
    }
}
