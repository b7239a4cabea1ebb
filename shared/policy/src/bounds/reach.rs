//! What a host can get under one grant: how much at once, and which window constraints hold.

use std::collections::BTreeSet;

use casemate_proto::{
    Algorithm, Amount, AssetId, GrantId, ListId, Millis, PrincipalId, UnixMillis,
};

use crate::{
    charge::Slack,
    model::{Cap, Grant, Per, PolicyDoc, Tier},
};

/// Whose help the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// Every requester's plain credential, and nobody else's.
    Requesters,
    /// All approvals that a tier asks for.
    Approvers,
}

/// A constraint on what one grant signs.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// The window, lengthened by the slack.
    pub(crate) window: Millis,
    /// The most that it lets through in one; `None`: no figure follows from it.
    pub(crate) amount: Option<Amount>,
    /// Whether the limit counts every charge of the key in the asset, whichever grant allowed it.
    pub(crate) counts_all: bool,
    /// For a limit on the number of signatures, that number.
    pub(crate) count: Option<u64>,
    /// The name under which it is shared.
    pub(crate) shared: Option<ListId>,
    /// Over how many scopes of its own it was multiplied.
    pub(crate) scopes: u64,
}

/// One grant, as far as one (key, asset) is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Reach<'a> {
    pub(crate) id: &'a GrantId,
    pub(crate) grant: &'a Grant,
    /// Most at once; `None`: no cap.
    pub(crate) most: Option<Amount>,
    /// Whether every amount up to `most` can be had, at once.
    pub(crate) any_amount: bool,
    pub(crate) held: Vec<Held>,
    /// How long it is in force; `None`: for ever.
    pub(crate) life: Option<Millis>,
    /// How long from now until it ends; `None`: for ever.
    pub(crate) ends_in: Option<Millis>,
}

/// What a fully compromised host has to work with.
pub(crate) struct Host<'a> {
    pub(crate) doc: &'a PolicyDoc,
    pub(crate) requesters: BTreeSet<&'a PrincipalId>,
    pub(crate) help: Help,
    pub(crate) now: UnixMillis,
    pub(crate) slack: Slack,
}

/// Principals whose plain credentials a host may hold: all that some grant lets ask.
pub(crate) fn requesters(doc: &PolicyDoc) -> BTreeSet<&PrincipalId> {
    let mut all = BTreeSet::new();
    let mut patterns = BTreeSet::new();
    for pattern in doc.grants.values().flat_map(|g| &g.principals) {
        match pattern {
            crate::pattern::PrincipalPattern::Exact(id) => {
                all.extend(doc.principals.get_key_value(id).map(|(id, _)| id));
            }
            crate::pattern::PrincipalPattern::Prefix(_) => {
                patterns.insert(pattern);
            }
        }
    }
    for id in doc.principals.keys() {
        if patterns.iter().any(|p| p.matches(id)) {
            all.insert(id);
        }
    }
    all.into_iter().filter(|id| can_ask(doc, id)).collect()
}

pub(crate) fn can_ask(doc: &PolicyDoc, id: &PrincipalId) -> bool {
    let plain = |k: &casemate_proto::PublicKey| k.algorithm() != Algorithm::WebauthnP256;
    doc.principals.get(id).is_some_and(|keys| keys.iter().any(plain))
}

/// Those who may ask under a grant and can.
pub(crate) fn askers<'a>(doc: &'a PolicyDoc, grant: &Grant) -> Vec<&'a PrincipalId> {
    let mut out = BTreeSet::new();
    for pattern in &grant.principals {
        match pattern {
            crate::pattern::PrincipalPattern::Exact(id) => {
                out.extend(doc.principals.get_key_value(id).map(|(id, _)| id));
            }
            crate::pattern::PrincipalPattern::Prefix(_) => {
                out.extend(doc.principals.keys().filter(|id| pattern.matches(id)));
            }
        }
    }
    out.into_iter().filter(|id| can_ask(doc, id)).collect()
}

/// How long a grant is in force from `now` on, and how long until it ends.
fn life(doc: &PolicyDoc, grant: &Grant, now: UnixMillis) -> (Option<Millis>, Option<Millis>) {
    let begins = grant.not_before.map_or(now, |from| from.max(now));
    let end = [grant.expires, doc.expires].into_iter().flatten().min();
    (end.map(|end| end.since(begins)), end.map(|end| end.since(now)))
}

/// How many scopes of its own a limit has under a grant; `None`: too many to count.
fn scopes(grant: &Grant, per: Per, askers: &[&PrincipalId]) -> Option<u64> {
    match per {
        Per::Group | Per::Key => Some(1),
        Per::Path => grant.path.count(),
        Per::Principal => u64::try_from(askers.len()).ok(),
    }
}

impl<'a> Host<'a> {
    pub(crate) fn new(doc: &'a PolicyDoc, help: Help, now: UnixMillis, slack: Slack) -> Self {
        Self { doc, requesters: requesters(doc), help, now, slack }
    }

    /// Whether it gets what a tier asks for. Approvers who are requesters too are in its hands,
    /// but for their passkeys.
    fn obtains(&self, tier: &Tier, askers: &[&PrincipalId]) -> bool {
        let Some(approvals) = &tier.approvals else { return true };
        if self.help == Help::Approvers {
            return true;
        }
        let Some(list) = self.doc.approvers.get(&approvals.of) else { return false };
        if approvals.passkey {
            return false;
        }
        let held: BTreeSet<_> = list.iter().filter(|id| self.requesters.contains(id)).collect();
        let needed = usize::try_from(approvals.needed).unwrap_or(usize::MAX);
        // asking as somebody who is not on the list leaves all of them to approve
        let others =
            |asker: &&PrincipalId| held.len().saturating_sub(usize::from(held.contains(asker)));
        askers.iter().map(others).max().unwrap_or(0) >= needed
    }

    /// Most at once under the tiers that can be had, and whether all smaller amounts can be too,
    /// at once; `None` if no tier can.
    fn tiers(&self, grant: &Grant, askers: &[&PrincipalId]) -> Option<(Option<Amount>, bool)> {
        if grant.tiers.is_empty() {
            return Some((None, true));
        }
        let mut highest = None;
        let mut any_amount = true;
        let mut gap = false;
        for tier in &grant.tiers {
            if !self.obtains(tier, askers) {
                gap = true;
                continue;
            }
            highest = Some(tier.upto);
            any_amount = any_amount && !gap && tier.delay.is_none();
        }
        highest.map(|highest| (Some(highest), any_amount))
    }

    /// Whether it gets anything under a grant.
    pub(crate) fn reaches(&self, grant: &Grant) -> bool {
        let askers = askers(self.doc, grant);
        !askers.is_empty() && self.tiers(grant, &askers).is_some()
    }

    /// Amounts of an asset under a grant; `None` where it gets nothing by it.
    pub(crate) fn amounts(&self, id: &'a GrantId, grant: &'a Grant) -> Option<Reach<'a>> {
        let askers = askers(self.doc, grant);
        if askers.is_empty() {
            return None;
        }
        let (tier_cap, any_amount) = self.tiers(grant, &askers)?;
        let most = [tier_cap, grant.max_per_tx].into_iter().flatten().min();
        let mut held = Vec::new();
        for limit in &grant.limits {
            let Some(scopes) = scopes(grant, limit.per, &askers) else { continue };
            let (one, count) = match limit.cap {
                Cap::Sum(sum) => (Some(sum), None),
                Cap::Count(count) => (most.and_then(|most| most.checked_mul(count)), Some(count)),
            };
            // a number of signatures of any size is kept all the same: what is reached depends
            // on it
            let amount = one.and_then(|one| one.checked_mul(scopes));
            held.push(Held {
                window: self.slack.lengthen(limit.window),
                amount,
                counts_all: matches!(limit.per, Per::Group | Per::Key),
                count,
                shared: limit.shared.clone(),
                scopes,
            });
        }
        let (life, ends_in) = life(self.doc, grant, self.now);
        Some(Reach { id, grant, most, any_amount, held, life, ends_in })
    }

    /// Fees in a native asset under a grant; `None` where it gets nothing by it.
    pub(crate) fn fees(
        &self,
        id: &'a GrantId,
        grant: &'a Grant,
        native: &AssetId,
    ) -> Option<Reach<'a>> {
        let cap = *grant.max_fee_per_tx.get(native)?;
        if !self.reaches(grant) {
            return None;
        }
        let askers = askers(self.doc, grant);
        let mut held = Vec::new();
        for limit in grant.fee_limits.get(native).into_iter().flatten() {
            let Some(scopes) = scopes(grant, limit.per, &askers) else { continue };
            held.push(Held {
                window: self.slack.lengthen(limit.window),
                amount: limit.sum.checked_mul(scopes),
                counts_all: limit.per == Per::Key,
                count: None,
                shared: None,
                scopes,
            });
        }
        // a limit on signatures is one on fees; each asset of the chain has its own unless it is
        // shared
        let chain = self.doc.assets.get(native).map(|a| &a.chain);
        let on_chain = |id: &&AssetId| self.doc.assets.get(*id).map(|a| &a.chain) == chain;
        let assets = u64::try_from(grant.assets.iter().filter(on_chain).count()).ok()?;
        for limit in &grant.limits {
            let Cap::Count(count) = limit.cap else { continue };
            let times = if limit.shared.is_some() { 1 } else { assets };
            let amount = scopes(grant, limit.per, &askers)
                .and_then(|n| cap.checked_mul(count)?.checked_mul(times)?.checked_mul(n));
            let window = self.slack.lengthen(limit.window);
            held.push(Held {
                window,
                amount,
                counts_all: false,
                count: Some(count),
                shared: None,
                scopes: 1,
            });
        }
        let (life, ends_in) = life(self.doc, grant, self.now);
        Some(Reach { id, grant, most: Some(cap), any_amount: true, held, life, ends_in })
    }
}
