//! What changes from one policy to the next, and whether it only tightens.
//!
//! Loosening waits for the delay in force; tightening does not. So only a closed list of changes
//! counts as tightening: deleting a grant, an action, a payee, a principal or a credential, and
//! lowering a number that caps something. **Everything else is loosening**, also what looks
//! narrower: a new limit, a new deny rule, a later `not_before`. And some deletions loosen: of a
//! deny rule and what it names, of a limit, of a grant whose charges a shared limit of another one
//! counts, of one of two grants that contradicted each other.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{ListId, UnixMillis};
use serde::Serialize;

use crate::{
    model::{Cap, Grant, Limit, Payees, Per, PolicyDoc, Tier},
    overlap::overlaps,
    policy::Policy,
};

/// Which way a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// On the closed list of what can only allow less.
    Tightening,
    /// Anything else.
    Loosening,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Where: `grant[x402].limits`.
    pub place: String,
    /// What, for people.
    pub change: String,
    /// Which way it goes.
    pub effect: Effect,
}

/// All changes, by place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Empty if the two are one policy.
    pub changes: Vec<Change>,
}

impl Diff {
    /// Whether it only tightens: nothing waits for a delay.
    #[must_use]
    pub fn is_tightening(&self) -> bool {
        self.changes.iter().all(|change| change.effect == Effect::Tightening)
    }

    fn add(&mut self, effect: Effect, place: impl Into<String>, change: impl Into<String>) {
        self.changes.push(Change { place: place.into(), change: change.into(), effect });
    }

    /// A number that caps something.
    fn cap<T: PartialOrd + core::fmt::Display>(
        &mut self,
        place: String,
        old: Option<T>,
        new: Option<T>,
    ) {
        match (old, new) {
            (Some(old), Some(new)) if new < old => {
                self.add(Effect::Tightening, place, format!("lowered from {old} to {new}"));
            }
            (Some(old), Some(new)) if new > old => {
                self.add(Effect::Loosening, place, format!("raised from {old} to {new}"));
            }
            (Some(old), None) => self.add(Effect::Loosening, place, format!("{old} removed")),
            (None, Some(new)) => self.add(Effect::Loosening, place, format!("{new} added")),
            _ => {}
        }
    }

    /// A set that allows what is in it.
    fn set<T: Ord + core::fmt::Display>(
        &mut self,
        place: &str,
        old: &BTreeSet<T>,
        new: &BTreeSet<T>,
        on_delete: Effect,
    ) {
        for gone in old.difference(new) {
            self.add(on_delete, place, format!("`{gone}` deleted"));
        }
        for added in new.difference(old) {
            self.add(Effect::Loosening, place, format!("`{added}` added"));
        }
    }

    fn other<T: PartialEq>(&mut self, place: String, old: &T, new: &T) {
        if old != new {
            self.add(Effect::Loosening, place, "changed");
        }
    }
}

/// Compares two policies.
#[must_use]
pub fn diff(old: &Policy, new: &Policy) -> Diff {
    let mut out = Diff::default();
    let (a, b) = (old.doc(), new.doc());
    out.other("name".to_owned(), &a.name, &b.name);
    out.other("version".to_owned(), &a.version, &b.version);
    out.cap("expires".to_owned(), a.expires, b.expires);
    flag(&mut out, "unlimited", a.unlimited, b.unlimited);
    assets(&mut out, a, b);
    principals(&mut out, a, b);
    lists(&mut out, a, b);
    out.other_deny(a, b);
    grants(&mut out, a, b);
    // two grants that contradicted each other denied what both matched
    let after = overlaps(b);
    let before = overlaps(a);
    if !before.complete {
        let change = "too many grants alike to tell which no longer contradict each other";
        out.add(Effect::Loosening, "grant", change);
    }
    for (first, second) in &before.pairs {
        if !after.pairs.contains(&(first.clone(), second.clone())) {
            let change = format!("no longer contradicts grant `{second}`");
            out.add(Effect::Loosening, format!("grant[{first}]"), change);
        }
    }
    out.changes.sort();
    out
}

fn flag(out: &mut Diff, place: &str, old: bool, new: bool) {
    match (old, new) {
        (true, false) => out.add(Effect::Tightening, place, "revoked"),
        (false, true) => out.add(Effect::Loosening, place, "set"),
        _ => {}
    }
}

fn assets(out: &mut Diff, old: &PolicyDoc, new: &PolicyDoc) {
    for (id, asset) in &old.assets {
        let place = format!("asset[{id}]");
        match new.assets.get(id) {
            None => out.add(Effect::Tightening, place, "deleted"),
            Some(now) => out.other(place, asset, now),
        }
    }
    for id in new.assets.keys().filter(|id| !old.assets.contains_key(*id)) {
        out.add(Effect::Loosening, format!("asset[{id}]"), "added");
    }
}

fn principals(out: &mut Diff, old: &PolicyDoc, new: &PolicyDoc) {
    let ids = |keys: &BTreeSet<casemate_proto::PublicKey>| {
        keys.iter().map(casemate_proto::PublicKey::id).collect::<BTreeSet<_>>()
    };
    for (id, keys) in &old.principals {
        let place = format!("principal[{id}]");
        match new.principals.get(id) {
            None => out.add(Effect::Tightening, place, "deleted"),
            Some(now) => {
                out.set(&format!("{place}.credentials"), &ids(keys), &ids(now), Effect::Tightening)
            }
        }
    }
    for id in new.principals.keys().filter(|id| !old.principals.contains_key(*id)) {
        out.add(Effect::Loosening, format!("principal[{id}]"), "added");
    }
}

fn lists(out: &mut Diff, old: &PolicyDoc, new: &PolicyDoc) {
    let empty = BTreeMap::new();
    let names: BTreeSet<&ListId> = old.payees.keys().chain(new.payees.keys()).collect();
    for name in names {
        let on_delete = if denied_by(old, name) { Effect::Loosening } else { Effect::Tightening };
        let (a, b) =
            (old.payees.get(name).unwrap_or(&empty), new.payees.get(name).unwrap_or(&empty));
        let all = |chains: &BTreeMap<casemate_proto::ChainId, BTreeSet<crate::model::Payee>>| {
            let each = chains.iter().flat_map(|(chain, set)| {
                set.iter().map(move |payee| format!("{chain}:{}", payee.0))
            });
            each.collect::<BTreeSet<String>>()
        };
        out.set(&format!("list.payees[{name}]"), &all(a), &all(b), on_delete);
    }
    let none = BTreeSet::new();
    let names: BTreeSet<&ListId> = old.approvers.keys().chain(new.approvers.keys()).collect();
    for name in names {
        let (a, b) =
            (old.approvers.get(name).unwrap_or(&none), new.approvers.get(name).unwrap_or(&none));
        out.set(&format!("list.approvers[{name}]"), a, b, Effect::Tightening);
    }
}

/// Whether a deny rule names the list: then what is deleted from it is denied no more.
fn denied_by(doc: &PolicyDoc, list: &ListId) -> bool {
    let names = |to: &Payees| matches!(to, Payees::Only { lists, .. } if lists.contains(list));
    doc.deny.values().filter_map(|rule| rule.to.as_ref()).any(names)
}

impl Diff {
    fn other_deny(&mut self, old: &PolicyDoc, new: &PolicyDoc) {
        for (id, rule) in &old.deny {
            let place = format!("deny[{id}]");
            match new.deny.get(id) {
                None => self.add(Effect::Loosening, place, "deleted"),
                Some(now) => self.other(place, rule, now),
            }
        }
        for id in new.deny.keys().filter(|id| !old.deny.contains_key(*id)) {
            self.add(Effect::Loosening, format!("deny[{id}]"), "added");
        }
    }
}

fn grants(out: &mut Diff, old: &PolicyDoc, new: &PolicyDoc) {
    for (id, grant) in &old.grants {
        let place = format!("grant[{id}]");
        match new.grants.get(id) {
            Some(now) => change(out, &place, grant, now, new),
            None => {
                let effect = if counted_elsewhere(grant, new) {
                    Effect::Loosening
                } else {
                    Effect::Tightening
                };
                out.add(effect, place, "deleted");
            }
        }
    }
    for id in new.grants.keys().filter(|id| !old.grants.contains_key(*id)) {
        out.add(Effect::Loosening, format!("grant[{id}]"), "added");
    }
}

/// Whether a shared limit of this grant lives on in the new policy: without the grant it counts
/// less.
fn counted_elsewhere(grant: &Grant, new: &PolicyDoc) -> bool {
    let names: BTreeSet<&ListId> = grant.limits.iter().filter_map(|l| l.shared.as_ref()).collect();
    let mut limits = new.grants.values().flat_map(|g| &g.limits);
    limits.any(|limit| limit.shared.as_ref().is_some_and(|name| names.contains(name)))
}

fn change(out: &mut Diff, place: &str, old: &Grant, new: &Grant, all: &PolicyDoc) {
    let at = |field: &str| format!("{place}.{field}");
    out.other(at("key"), &old.key, &new.key);
    out.other(at("path"), &old.path, &new.path);
    out.set(&at("principals"), &old.principals, &new.principals, Effect::Tightening);
    out.set(&at("allow"), &old.allow.names(), &new.allow.names(), Effect::Tightening);
    let on_delete =
        if counted_elsewhere(old, all) { Effect::Loosening } else { Effect::Tightening };
    out.set(&at("asset"), &old.assets, &new.assets, on_delete);
    payees(out, &at("to"), old.to.as_ref(), new.to.as_ref());
    out.cap(at("max_per_tx"), old.max_per_tx, new.max_per_tx);
    limits(out, &at("limits"), old, new);
    for (asset, cap) in &old.max_fee_per_tx {
        match new.max_fee_per_tx.get(asset) {
            // without a cap, no fee on that chain is allowed
            None => out.add(Effect::Tightening, at("max_fee_per_tx"), format!("`{asset}` deleted")),
            now => out.cap(at("max_fee_per_tx"), Some(*cap), now.copied()),
        }
    }
    for asset in new.max_fee_per_tx.keys().filter(|a| !old.max_fee_per_tx.contains_key(*a)) {
        out.add(Effect::Loosening, at("max_fee_per_tx"), format!("`{asset}` added"));
    }
    fee_limits(out, &at("fee_limits"), old, new);
    out.other(at("hours"), &old.hours, &new.hours);
    out.cap(at("valid_for_max"), old.valid_for_max, new.valid_for_max);
    out.other(at("not_before"), &old.not_before, &new.not_before);
    out.cap::<UnixMillis>(at("expires"), old.expires, new.expires);
    tiers(out, &at("tiers"), &old.tiers, &new.tiers);
    flag(out, &at("unlimited"), old.unlimited, new.unlimited);
}

fn payees(out: &mut Diff, place: &str, old: Option<&Payees>, new: Option<&Payees>) {
    match (old, new) {
        (
            Some(Payees::Only { accounts, lists }),
            Some(Payees::Only { accounts: now, lists: now_lists }),
        ) => {
            let text = |set: &BTreeSet<crate::model::Payee>| {
                set.iter().map(|payee| payee.0.to_string()).collect::<BTreeSet<_>>()
            };
            out.set(place, &text(accounts), &text(now), Effect::Tightening);
            out.set(place, lists, now_lists, Effect::Tightening);
        }
        (old, new) => out.other(place.to_owned(), &old, &new),
    }
}

/// What makes a limit the same one with another number.
type Which<'a> = (bool, casemate_proto::Millis, Per, Option<&'a ListId>);

fn by_which(grant: &Grant) -> BTreeMap<Which<'_>, Vec<&Limit>> {
    let mut out: BTreeMap<_, Vec<&Limit>> = BTreeMap::new();
    for limit in &grant.limits {
        let is_sum = matches!(limit.cap, Cap::Sum(_));
        out.entry((is_sum, limit.window, limit.per, limit.shared.as_ref()))
            .or_default()
            .push(limit);
    }
    out
}

fn describe(limit: &Limit) -> String {
    match limit.cap {
        Cap::Sum(sum) => format!("sum {sum} over {} per {}", limit.window, limit.per.name()),
        Cap::Count(count) => {
            format!("count {count} over {} per {}", limit.window, limit.per.name())
        }
    }
}

fn limits(out: &mut Diff, place: &str, old: &Grant, new: &Grant) {
    let (before, after) = (by_which(old), by_which(new));
    for (which, limits) in &before {
        // of several over one window the smallest is the one that counts
        let Some(least) = limits.iter().map(|l| l.cap).min() else { continue };
        let named = limits.first().map(|l| describe(l)).unwrap_or_default();
        match after.get(which).and_then(|now| now.iter().map(|l| l.cap).min()) {
            None => out.add(Effect::Loosening, place, format!("{named} removed")),
            Some(now) if now < least => {
                let to = cap_text(now);
                out.add(Effect::Tightening, place, format!("{named} lowered to {to}"));
            }
            Some(now) if now > least => {
                let to = cap_text(now);
                out.add(Effect::Loosening, place, format!("{named} raised to {to}"));
            }
            Some(_) => {}
        }
    }
    for (which, limits) in &after {
        if !before.contains_key(which) {
            let named = limits.first().map(|l| describe(l)).unwrap_or_default();
            out.add(Effect::Loosening, place, format!("{named} added"));
        }
    }
}

fn cap_text(cap: Cap) -> String {
    match cap {
        Cap::Sum(sum) => sum.to_string(),
        Cap::Count(count) => count.to_string(),
    }
}

fn fee_limits(out: &mut Diff, place: &str, old: &Grant, new: &Grant) {
    let by = |grant: &Grant| {
        let mut map = BTreeMap::new();
        for (asset, limits) in &grant.fee_limits {
            for limit in limits {
                let least =
                    map.entry((asset.clone(), limit.window, limit.per)).or_insert(limit.sum);
                *least = (*least).min(limit.sum);
            }
        }
        map
    };
    let (before, after) = (by(old), by(new));
    for (which, sum) in &before {
        let place = format!("{place}[{} over {}]", which.0, which.1);
        let gone = !after.contains_key(which) && !new.max_fee_per_tx.contains_key(&which.0);
        if gone {
            out.add(Effect::Tightening, place, "deleted with its fee cap");
        } else {
            out.cap(place, Some(*sum), after.get(which).copied());
        }
    }
    for (which, sum) in after.iter().filter(|(which, _)| !before.contains_key(*which)) {
        out.cap(format!("{place}[{} over {}]", which.0, which.1), None, Some(*sum));
    }
}

/// Whether what needs the second needs at least what the first needs.
fn at_least(first: &Tier, second: &Tier) -> bool {
    let approvals = match (&first.approvals, &second.approvals) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => a.of == b.of && b.needed >= a.needed && (b.passkey || !a.passkey),
    };
    approvals && second.delay >= first.delay
}

fn tiers(out: &mut Diff, place: &str, old: &[Tier], new: &[Tier]) {
    if old == new {
        return;
    }
    let same_needs = old.len() == new.len()
        && old.iter().zip(new).all(|(a, b)| a.approvals == b.approvals && a.delay == b.delay);
    // a lower `upto` moves amounts to the next tier, which must not ask for less
    let lowered = same_needs
        && old.iter().zip(new).enumerate().all(|(i, (a, b))| {
            let next = old.get(i.saturating_add(1));
            b.upto == a.upto || (b.upto < a.upto && next.is_none_or(|next| at_least(a, next)))
        });
    if lowered {
        out.add(Effect::Tightening, place, "lowered");
    } else {
        out.add(Effect::Loosening, place, "changed");
    }
}
