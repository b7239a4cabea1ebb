//! What is suspicious in a policy that loads: what can never match or always contradicts, what is
//! not used, what is wider than it looks.

use std::collections::BTreeSet;

use casemate_proto::{Amount, ListId, PrincipalId, UnixMillis};
use casemate_tx::Action;
use serde::Serialize;

use crate::{
    actions::{Class, class},
    bounds::{askers, requesters},
    model::{Cap, DenyRule, Grant, Payees, Per, PolicyDoc},
    overlap::{overlaps, sets},
    pattern::PrincipalPattern,
    policy::Policy,
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Requests that the policy seems to allow are denied.
    Error,
    /// Worth a look.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of finding, for programs: `ambiguous`, `unused`, `unlimited`, …
    pub code: &'static str,
    /// Where: `grant[x402]`.
    pub place: String,
    /// For people.
    pub message: String,
}

impl core::fmt::Display for Finding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}] {}: {}", self.code, self.place, self.message)
    }
}

/// A sum of so many whole units or more is called large.
const LARGE_WHOLE_UNITS: u64 = 1_000_000;
/// Most findings that are listed.
const MAX_FINDINGS: usize = 2_000;

struct Lint<'a> {
    policy: &'a Policy,
    doc: &'a PolicyDoc,
    now: UnixMillis,
    found: Vec<Finding>,
}

/// Looks a policy over, as of `now`.
#[must_use]
pub fn lint(policy: &Policy, now: UnixMillis) -> Vec<Finding> {
    let mut lint = Lint { policy, doc: policy.doc(), now, found: Vec::new() };
    lint.bundle();
    lint.ambiguous();
    let requesters = requesters(lint.doc);
    for (id, grant) in &policy.doc().grants {
        let place = format!("grant[{id}]");
        lint.grant(&place, grant);
        lint.width(&place, grant);
        lint.tiers(&place, grant, &requesters);
        lint.shadowed(&place, grant);
    }
    lint.unused();
    lint.found.sort();
    lint.found.truncate(MAX_FINDINGS);
    lint.found
}

impl Lint<'_> {
    fn add(&mut self, severity: Severity, code: &'static str, place: &str, message: String) {
        self.found.push(Finding { severity, code, place: place.to_owned(), message });
    }
    fn warn(&mut self, code: &'static str, place: &str, message: impl Into<String>) {
        self.add(Severity::Warning, code, place, message.into());
    }
    fn error(&mut self, code: &'static str, place: &str, message: impl Into<String>) {
        self.add(Severity::Error, code, place, message.into());
    }

    fn bundle(&mut self) {
        match self.doc.expires {
            Some(end) if end <= self.now => {
                self.error("expired", "expires", format!("the policy expired at {end}"));
            }
            None => self.warn("unlimited", "expires", "the policy never expires"),
            Some(_) => {}
        }
        if self.doc.grants.is_empty() {
            self.warn("unreachable", "grant", "no grant: nothing is ever signed");
        }
    }

    fn ambiguous(&mut self) {
        let found = overlaps(self.doc);
        for (first, second) in &found.pairs {
            let message = format!(
                "grant `{second}` matches some of the same requests: what both match is denied"
            );
            self.error("ambiguous", &format!("grant[{first}]"), message);
        }
        if !found.complete {
            let message = "too many grants alike to compare all of them: there may be more pairs";
            self.warn("ambiguous", "grant", message);
        }
    }

    fn grant(&mut self, place: &str, grant: &Grant) {
        let askers = askers(self.doc, grant);
        if askers.is_empty() {
            self.error("unreachable", place, "no principal with a credential that may ask matches");
        }
        for pattern in &grant.principals {
            let matches = match pattern {
                PrincipalPattern::Exact(id) => self.doc.principals.contains_key(id),
                PrincipalPattern::Prefix(_) => {
                    self.doc.principals.keys().any(|id| pattern.matches(id))
                }
            };
            if !matches {
                self.warn("unreachable", place, format!("`{pattern}` matches no principal"));
            }
        }
        if let Some(end) = grant.expires.filter(|end| *end <= self.now) {
            self.warn("expired", place, format!("expired at {end}"));
        }
        if let (Some(own), Some(all)) = (grant.expires, self.doc.expires)
            && own > all
        {
            self.warn("expired", place, format!("outlives the policy, which expires at {all}"));
        }
        if let Some(to) = &grant.to {
            for id in &grant.assets {
                let chain = self.doc.assets.get(id).map(|a| &a.chain);
                let anybody = matches!(to, Payees::Anybody);
                if !anybody && sets(self.doc, to, chain).iter().all(|set| set.is_empty()) {
                    let message = format!("no payee on the chain of asset `{id}`");
                    self.error("unreachable", place, message);
                }
            }
        }
        for limit in &grant.limits {
            let nothing = match limit.cap {
                Cap::Sum(sum) => sum.is_zero(),
                Cap::Count(count) => count == 0,
            };
            if nothing {
                let message = format!("the limit over {} lets nothing through", limit.window);
                self.warn("unreachable", place, message);
            }
            if let (Cap::Sum(sum), Some(max)) = (limit.cap, grant.max_per_tx)
                && max > sum
            {
                let message = format!("`max_per_tx` is more than the sum over {}", limit.window);
                self.warn("unreachable", place, message);
            }
        }
    }

    fn width(&mut self, place: &str, grant: &Grant) {
        if matches!(grant.to, Some(Payees::Anybody)) {
            self.warn("wide", place, "pays anybody: `to = \"*\"`");
        }
        let valued = grant.allow.0.iter().any(|a| class(*a) == Class::Valued);
        let no_sum = !grant.limits.iter().any(|l| matches!(l.cap, Cap::Sum(_)));
        if valued && no_sum {
            self.warn("unlimited", place, "no `sum` limit: what it moves is **UNLIMITED**");
        }
        for action in &grant.allow.0 {
            if class(*action) == Class::Opaque || *action == Action::RawHash {
                let message = format!(
                    "`{}` is signed unread: it can move anything that key `{}` holds, **UNLIMITED**",
                    action.name(),
                    grant.key
                );
                self.warn("unlimited", place, message);
            }
        }
        if grant.allow.0.contains(&Action::Eip3009Transfer) && grant.valid_for_max.is_none() {
            let message = "no `valid_for_max`: authorizations can be kept and used all at once";
            self.warn("wide", place, message);
        }
        let per_wallet = |l: &crate::model::Limit| l.per == Per::Path;
        let some_per_key = grant
            .limits
            .iter()
            .any(|l| matches!(l.cap, Cap::Sum(_)) && !per_wallet(l) && l.per != Per::Principal);
        if grant.path.count() != Some(1) && valued && !some_per_key {
            let message = format!(
                "each wallet of `{}` has limits of its own, and nothing limits the key as a whole",
                grant.path
            );
            self.warn("wide", place, message);
        }
        let decimals =
            grant.assets.iter().find_map(|id| self.doc.assets.get(id)).map(|a| a.decimals);
        let large = decimals
            .and_then(|d| Amount::from_decimal(&LARGE_WHOLE_UNITS.to_string(), d).ok())
            .unwrap_or(Amount::MAX);
        for limit in &grant.limits {
            if let Cap::Sum(sum) = limit.cap
                && sum >= large
            {
                let whole = sum.to_decimal(decimals.unwrap_or_default());
                let message = format!("a limit of {whole} over {} is very large", limit.window);
                self.warn("large", place, message);
            }
        }
    }

    fn tiers(&mut self, place: &str, grant: &Grant, requesters: &BTreeSet<&PrincipalId>) {
        let mut below = None;
        for (i, tier) in grant.tiers.iter().enumerate() {
            let at = format!("{place}.tiers[{i}]");
            if let (Some(max), Some(below)) = (grant.max_per_tx, below)
                && max <= below
            {
                self.warn("unreachable", &at, "`max_per_tx` ends below this tier");
            }
            below = Some(tier.upto);
            let Some(approvals) = &tier.approvals else { continue };
            let Some(list) = self.doc.approvers.get(&approvals.of) else { continue };
            let can = list.iter().filter(|id| self.can_approve(id, approvals.passkey)).count();
            let needed = usize::try_from(approvals.needed).unwrap_or(usize::MAX);
            if needed > can {
                let message = format!(
                    "needs {needed} approvals, and {can} of list `{}` can give one",
                    approvals.of
                );
                self.error("unreachable", &at, message);
            }
            self.shared_roles(&at, &approvals.of, list, requesters, approvals.passkey);
        }
        if let (Some(max), Some(top)) = (grant.max_per_tx, grant.tiers.last())
            && max > top.upto
        {
            self.warn("unreachable", place, "`max_per_tx` is above the highest tier");
        }
    }

    fn shared_roles(
        &mut self,
        at: &str,
        list: &ListId,
        members: &BTreeSet<PrincipalId>,
        requesters: &BTreeSet<&PrincipalId>,
        passkey: bool,
    ) {
        let both: Vec<&str> =
            members.iter().filter(|id| requesters.contains(id)).map(PrincipalId::as_str).collect();
        if both.is_empty() {
            return;
        }
        let who = both.join(", ");
        let message = if passkey {
            format!("{who} of list `{list}` may ask too, and cannot approve what they ask for")
        } else {
            format!(
                "{who} of list `{list}` may ask too: who holds their requesters' credentials approves without them"
            )
        };
        self.warn("approver_is_requester", at, message);
    }

    fn can_approve(&self, id: &PrincipalId, passkey: bool) -> bool {
        let keys = self.doc.principals.get(id).into_iter().flatten();
        keys.into_iter()
            .any(|k| !passkey || k.algorithm() == casemate_proto::Algorithm::WebauthnP256)
    }

    fn shadowed(&mut self, place: &str, grant: &Grant) {
        let policy = self.policy;
        for (id, rule) in &policy.doc().deny {
            if shadows(policy.doc(), rule, grant) {
                let message = format!("deny rule `{id}` denies all that it allows");
                self.error("shadowed", place, message);
            }
        }
    }

    fn unused(&mut self) {
        let doc = self.doc;
        let mut assets = BTreeSet::new();
        let mut lists = BTreeSet::new();
        let mut approvers = BTreeSet::new();
        let mut people: BTreeSet<&PrincipalId> = requesters(doc);
        for grant in doc.grants.values() {
            assets.extend(&grant.assets);
            assets.extend(grant.max_fee_per_tx.keys());
            approvers
                .extend(grant.tiers.iter().filter_map(|t| t.approvals.as_ref()).map(|a| &a.of));
        }
        let named = doc.grants.values().filter_map(|g| g.to.as_ref());
        for to in named.chain(doc.deny.values().filter_map(|r| r.to.as_ref())) {
            if let Payees::Only { lists: of, .. } = to {
                lists.extend(of);
            }
        }
        assets.extend(doc.deny.values().flat_map(|r| &r.assets));
        people.extend(approvers.iter().filter_map(|l| doc.approvers.get(*l)).flatten());
        let mut unused = Vec::new();
        unused.extend(
            doc.assets.keys().filter(|a| !assets.contains(a)).map(|a| format!("asset[{a}]")),
        );
        unused.extend(
            doc.payees.keys().filter(|l| !lists.contains(l)).map(|l| format!("list.payees[{l}]")),
        );
        unused.extend(
            doc.approvers
                .keys()
                .filter(|l| !approvers.contains(l))
                .map(|l| format!("list.approvers[{l}]")),
        );
        unused.extend(
            doc.principals
                .keys()
                .filter(|p| !people.contains(p))
                .map(|p| format!("principal[{p}]")),
        );
        for place in unused {
            self.warn("unused", &place, "used by no grant");
        }
    }
}

/// Whether a deny rule matches all that a grant allows.
fn shadows(doc: &PolicyDoc, rule: &DenyRule, grant: &Grant) -> bool {
    let principals = rule.principals.is_empty()
        || grant.principals.iter().all(|p| rule.principals.iter().any(|q| q.covers(p)));
    let assets = rule.assets.is_empty()
        || (!grant.assets.is_empty() && grant.assets.is_subset(&rule.assets));
    let payees = match (&rule.to, &grant.to) {
        (None, _) | (Some(Payees::Anybody), Some(_)) => true,
        (Some(to), Some(of @ Payees::Only { .. })) => grant.assets.iter().all(|id| {
            let chain = doc.assets.get(id).map(|a| &a.chain);
            let denied = sets(doc, to, chain);
            sets(doc, of, chain)
                .into_iter()
                .flatten()
                .all(|payee| denied.iter().any(|set| set.contains(payee)))
        }),
        _ => false,
    };
    (rule.keys.is_empty() || rule.keys.contains(&grant.key))
        && principals
        && (rule.actions.0.is_empty() || grant.allow.0.is_subset(&rule.actions.0))
        && assets
        && payees
}
