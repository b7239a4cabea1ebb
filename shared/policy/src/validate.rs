//! The rules that every policy keeps, whether it came as text or in its canonical form.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{AssetId, ChainId, GrantId, ListId, Millis};

use crate::{
    actions::{Class, class, has_payee},
    charge::{MAX_WINDOW, MIN_WINDOW},
    error::{MAX_ERRORS, PolicyError, Problem, Rule},
    model::{Asset, DenyRule, Payees, PolicyDoc, VERSION},
    pattern::PrincipalPattern,
    validate_grant,
};

/// Most grants.
pub const MAX_GRANTS: usize = 10_000;
/// Most deny rules.
pub const MAX_DENY_RULES: usize = 1_000;
/// Most assets in the registry.
pub const MAX_ASSETS: usize = 1_000;
/// Most principals.
pub const MAX_PRINCIPALS: usize = 20_000;
/// Most credentials of one principal.
pub const MAX_CREDENTIALS: usize = 16;
/// Most lists of a kind.
pub const MAX_LISTS: usize = 1_000;
/// Most payees on one list, over all chains.
pub const MAX_PAYEES: usize = 100_000;
/// Most payees on all lists.
pub const MAX_ALL_PAYEES: usize = 300_000;
/// Most people on a list of approvers.
pub const MAX_APPROVERS: usize = 100;
/// Most assets, and most actions' worth of anything else, in one grant or rule.
pub const MAX_PER_GRANT: usize = 64;
/// Most principals or accounts named one by one in one grant or rule.
pub const MAX_NAMED: usize = 1_000;
/// Most limits, and most fee limits of an asset, and most tiers in a grant.
pub const MAX_LIMITS: usize = 16;
/// Most principals named one by one in all grants together.
pub const MAX_ALL_NAMED: usize = 200_000;
/// Most (key, asset) pairs that one shared limit counts.
pub const MAX_SHARED_PAIRS: usize = 256;
/// Most characters of a name for people, or of a domain's name or version.
pub const MAX_TEXT: usize = 100;
/// Most decimals of an asset.
pub const MAX_DECIMALS: u8 = 36;
/// Longest `valid_for_max` and `delay`.
pub const MAX_LENGTH: Millis = Millis(366 * 86_400_000);

/// Collects what is wrong, in the order of the places.
pub(crate) struct Report {
    errors: Vec<PolicyError>,
}

impl Report {
    pub(crate) const fn new() -> Self {
        Self { errors: Vec::new() }
    }
    pub(crate) fn add(&mut self, place: impl Into<String>, problem: Problem) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(PolicyError { line: None, place: place.into(), problem });
        }
    }
    pub(crate) fn rule(&mut self, place: impl Into<String>, rule: Rule) {
        self.add(place, Problem::Rule(rule));
    }
    pub(crate) fn at_most(&mut self, place: &str, what: &'static str, found: usize, max: usize) {
        if found > max {
            self.add(place, Problem::TooMany { what, found, max });
        }
    }
    pub(crate) fn length(&mut self, place: String, length: Millis, min: Millis, max: Millis) {
        if length < min || length > max {
            self.add(place, Problem::LengthOutOfRange { length, min, max });
        }
    }
    pub(crate) fn window(&mut self, place: String, window: Millis) {
        self.length(place, window, MIN_WINDOW, MAX_WINDOW);
    }
    pub(crate) fn unknown(&mut self, place: impl Into<String>, what: &'static str, name: &str) {
        self.add(place, Problem::Unknown { what, name: name.to_owned() });
    }
    pub(crate) fn into_errors(self) -> Vec<PolicyError> {
        self.errors
    }
}

/// Everything that is wrong with a policy.
pub(crate) fn check(doc: &PolicyDoc) -> Vec<PolicyError> {
    let mut report = Report::new();
    bundle(doc, &mut report);
    for (id, asset) in &doc.assets {
        check_asset(id, asset, &mut report);
    }
    unique_assets(doc, &mut report);
    credentials(doc, &mut report);
    lists(doc, &mut report);
    for (id, rule) in &doc.deny {
        check_deny(doc, id, rule, &mut report);
    }
    for (id, grant) in &doc.grants {
        validate_grant::check(doc, id, grant, &mut report);
    }
    shared_limits(doc, &mut report);
    report.into_errors()
}

fn bundle(doc: &PolicyDoc, report: &mut Report) {
    if doc.version != VERSION {
        report.add("version", Problem::Version { found: doc.version });
    }
    text("name", &doc.name, report);
    if doc.expires.is_none() && !doc.unlimited {
        report.rule("expires", Rule::NoExpiry);
    }
    report.at_most("asset", "assets", doc.assets.len(), MAX_ASSETS);
    report.at_most("principal", "principals", doc.principals.len(), MAX_PRINCIPALS);
    report.at_most("list.payees", "lists", doc.payees.len(), MAX_LISTS);
    report.at_most("list.approvers", "lists", doc.approvers.len(), MAX_LISTS);
    report.at_most("deny", "deny rules", doc.deny.len(), MAX_DENY_RULES);
    report.at_most("grant", "grants", doc.grants.len(), MAX_GRANTS);
    let named = doc.grants.values().map(|g| g.principals.len()).sum();
    report.at_most("grant", "principals in all grants", named, MAX_ALL_NAMED);
}

pub(crate) fn text(place: &str, text: &str, report: &mut Report) {
    let length = text.chars().count();
    report.at_most(place, "characters", length, MAX_TEXT);
    if length == 0 || text.chars().any(char::is_control) {
        let input = text.chars().take(80).collect();
        report.add(place, Problem::Form { input, expected: "a line of text" });
    }
}

fn check_asset(id: &AssetId, asset: &Asset, report: &mut Report) {
    let place = |field: &str| format!("asset[{id}].{field}");
    chain(place("chain"), &asset.chain, report);
    if asset.decimals > MAX_DECIMALS {
        report.at_most(
            &place("decimals"),
            "decimals",
            usize::from(asset.decimals),
            usize::from(MAX_DECIMALS),
        );
    }
    if asset.token.is_some_and(|t| t.0.0 == [0; 20]) {
        report.rule(place("token"), Rule::ZeroAddress);
    }
    if let Some(domain) = &asset.domain {
        if asset.token.is_none() {
            report.rule(place("domain"), Rule::NativeDomain);
        }
        text(&place("domain.name"), &domain.name, report);
        text(&place("domain.version"), &domain.version, report);
    }
}

pub(crate) fn chain(place: String, chain: &ChainId, report: &mut Report) {
    if chain.as_eip155().is_none() {
        let input = chain.to_string();
        report.add(place, Problem::Form { input, expected: "an EVM chain such as `eip155:8453`" });
    }
}

/// Two names of one asset would be two budgets for it.
fn unique_assets(doc: &PolicyDoc, report: &mut Report) {
    let mut seen = BTreeMap::new();
    for (id, asset) in &doc.assets {
        if let Some(first) = seen.insert(asset.key(), id) {
            let name = format!("{}, as {first} and {id}", asset.key());
            report.add(format!("asset[{id}]"), Problem::Repeated { what: "asset", name });
        }
    }
}

fn credentials(doc: &PolicyDoc, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for (id, keys) in &doc.principals {
        let place = format!("principal[{id}].credentials");
        report.at_most(&place, "credentials", keys.len(), MAX_CREDENTIALS);
        for key in keys {
            // one key under two algorithms would be one holder counted as two
            if !seen.insert(key.as_bytes().to_vec()) {
                let name = format!("0x{}", hex::encode(key.as_bytes()));
                report.add(place.clone(), Problem::Repeated { what: "public key", name });
            }
        }
    }
}

fn list_name(kind: &str, id: &ListId, report: &mut Report) {
    if id.as_str().contains('.') {
        let input = id.to_string();
        let expected = "a list's name: `a-z 0-9 - _`, no point";
        report.add(format!("list.{kind}[{id}]"), Problem::Form { input, expected });
    }
}

fn lists(doc: &PolicyDoc, report: &mut Report) {
    let mut all = 0_usize;
    for (id, chains) in &doc.payees {
        list_name("payees", id, report);
        let place = format!("list.payees[{id}]");
        let mut count = 0_usize;
        for (on, payees) in chains {
            chain(place.clone(), on, report);
            count = count.saturating_add(payees.len());
            if payees.iter().any(|p| p.0.0 == [0; 20]) {
                report.rule(format!("{place}[{on}]"), Rule::ZeroAddress);
            }
        }
        report.at_most(&place, "payees", count, MAX_PAYEES);
        all = all.saturating_add(count);
    }
    report.at_most("list.payees", "payees on all lists", all, MAX_ALL_PAYEES);
    for (id, members) in &doc.approvers {
        list_name("approvers", id, report);
        let place = format!("list.approvers[{id}].members");
        report.at_most(&place, "approvers", members.len(), MAX_APPROVERS);
        for member in members.iter().filter(|m| !doc.principals.contains_key(*m)) {
            report.unknown(place.clone(), "principal", member.as_str());
        }
    }
}

fn check_deny(doc: &PolicyDoc, id: &GrantId, rule: &DenyRule, report: &mut Report) {
    let place = |field: &str| format!("deny[{id}].{field}");
    let states_nothing = rule.keys.is_empty()
        && rule.principals.is_empty()
        && rule.actions.0.is_empty()
        && rule.assets.is_empty()
        && rule.to.is_none();
    if states_nothing {
        report.rule(format!("deny[{id}]"), Rule::DenyAll);
    }
    report.at_most(&place("key"), "keys", rule.keys.len(), MAX_NAMED);
    principals(doc, &place("principal"), &rule.principals, report);
    assets(doc, &place("asset"), &rule.assets, report);
    if let Some(to) = &rule.to {
        payees(doc, &place("to"), to, report);
    }
}

pub(crate) fn principals(
    doc: &PolicyDoc,
    place: &str,
    patterns: &BTreeSet<PrincipalPattern>,
    report: &mut Report,
) {
    report.at_most(place, "principals", patterns.len(), MAX_NAMED);
    for pattern in patterns {
        if let PrincipalPattern::Exact(id) = pattern
            && !doc.principals.contains_key(id)
        {
            report.unknown(place, "principal", id.as_str());
        }
    }
}

pub(crate) fn assets(doc: &PolicyDoc, place: &str, ids: &BTreeSet<AssetId>, report: &mut Report) {
    report.at_most(place, "assets", ids.len(), MAX_PER_GRANT);
    for id in ids.iter().filter(|id| !doc.assets.contains_key(*id)) {
        report.unknown(place, "asset", id.as_str());
    }
}

pub(crate) fn payees(doc: &PolicyDoc, place: &str, to: &Payees, report: &mut Report) {
    let Payees::Only { accounts, lists } = to else { return };
    if accounts.is_empty() && lists.is_empty() {
        report.rule(place, Rule::Empty);
    }
    report.at_most(place, "accounts", accounts.len(), MAX_NAMED);
    report.at_most(place, "lists", lists.len(), MAX_PER_GRANT);
    if accounts.iter().any(|a| a.0.0 == [0; 20]) {
        report.rule(place, Rule::ZeroAddress);
    }
    for list in lists.iter().filter(|l| !doc.payees.contains_key(*l)) {
        report.unknown(place, "list of payees", list.as_str());
    }
}

/// A limit that several grants share is one limit: they state the same.
fn shared_limits(doc: &PolicyDoc, report: &mut Report) {
    let mut first: BTreeMap<&ListId, (&GrantId, &crate::model::Limit)> = BTreeMap::new();
    let mut pairs: BTreeMap<&ListId, BTreeSet<_>> = BTreeMap::new();
    for (id, grant) in &doc.grants {
        for limit in &grant.limits {
            let Some(name) = &limit.shared else { continue };
            let place = format!("grant[{id}].limits");
            let (other, stated) = first.entry(name).or_insert((id, limit));
            if *stated != limit {
                let problem = if *other == id {
                    Problem::Rule(Rule::SharedTwice)
                } else {
                    Problem::SharedDiffers { name: name.to_string(), other: other.to_string() }
                };
                report.add(place, problem);
                continue;
            }
            let group = pairs.entry(name).or_default();
            if grant.assets.is_empty() {
                group.insert((&grant.key, None));
            }
            group.extend(grant.assets.iter().map(|asset| (&grant.key, Some(asset))));
        }
    }
    for (name, group) in pairs {
        let place =
            first.get(name).map_or_else(String::new, |(id, _)| format!("grant[{id}].limits"));
        report.at_most(
            &place,
            "(key, asset) pairs in a shared limit",
            group.len(),
            MAX_SHARED_PAIRS,
        );
        let is_sum = first
            .get(name)
            .is_some_and(|(_, limit)| matches!(limit.cap, crate::model::Cap::Sum(_)));
        if is_sum {
            let assets: BTreeSet<&AssetId> = group.iter().filter_map(|(_, a)| *a).collect();
            same_decimals(doc, &place, &assets, report);
        }
    }
}

/// One amount for several assets must mean the same in each.
pub(crate) fn same_decimals(
    doc: &PolicyDoc,
    place: &str,
    ids: &BTreeSet<&AssetId>,
    report: &mut Report,
) {
    let known: Vec<_> = ids.iter().filter_map(|id| doc.assets.get_key_value(*id)).collect();
    let Some((first, a)) = known.first() else { return };
    if let Some((second, b)) = known.iter().find(|(_, b)| b.decimals != a.decimals) {
        let problem = Problem::Decimals {
            first: first.to_string(),
            first_decimals: a.decimals,
            second: second.to_string(),
            second_decimals: b.decimals,
        };
        report.add(place, problem);
    }
}

/// Whether every action is of one class; the first two that are not.
pub(crate) fn class_of(
    actions: &crate::model::Actions,
) -> Result<Option<Class>, (casemate_tx::Action, casemate_tx::Action)> {
    let mut found: Option<casemate_tx::Action> = None;
    for action in &actions.0 {
        match found {
            Some(first) if class(first) != class(*action) => return Err((first, *action)),
            _ => found = Some(*action),
        }
    }
    Ok(found.map(class))
}

pub(crate) fn any_payee(actions: &crate::model::Actions) -> bool {
    actions.0.iter().any(|a| has_payee(*a))
}
