//! Which grants can match one request both: what the evaluator would deny as ambiguous.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{AssetId, ChainId, GrantId, KeyName, PrincipalId};
use casemate_tx::Action;

use crate::{
    actions::has_payee,
    model::{Grant, Payee, Payees, PolicyDoc},
    pattern::PrincipalPattern,
};

/// Pairs of grants that both match some request, the first id the smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overlaps {
    pub(crate) pairs: BTreeSet<(GrantId, GrantId)>,
    /// Whether all pairs were looked at.
    pub(crate) complete: bool,
}

/// Most pairs that are compared, so that a policy of ten thousand alike grants does not take for
/// ever.
const MAX_COMPARED: u32 = 2_000_000;
/// Most pairs that are reported.
const MAX_PAIRS: usize = 1_000;

type Bucket<'a> = (&'a KeyName, Action, Option<&'a AssetId>);

/// Finds every pair.
pub(crate) fn overlaps(doc: &PolicyDoc) -> Overlaps {
    let mut buckets: BTreeMap<Bucket<'_>, Vec<(&GrantId, &Grant)>> = BTreeMap::new();
    for (id, grant) in &doc.grants {
        for action in &grant.allow.0 {
            let assets = grant.assets.iter().map(Some);
            let none = grant.assets.is_empty().then_some(None);
            for asset in assets.chain(none) {
                buckets.entry((&grant.key, *action, asset)).or_default().push((id, grant));
            }
        }
    }
    let mut search = Search { doc, left: MAX_COMPARED, found: Overlaps::default() };
    for ((_, action, asset), grants) in &buckets {
        search.bucket(*action, *asset, grants);
    }
    search.found.complete = search.left > 0;
    search.found
}

struct Search<'a> {
    doc: &'a PolicyDoc,
    left: u32,
    found: Overlaps,
}

impl Search<'_> {
    fn bucket(&mut self, action: Action, asset: Option<&AssetId>, grants: &[(&GrantId, &Grant)]) {
        // by principal first: ten thousand agents with a grant each have nothing to compare
        let mut exact: BTreeMap<&PrincipalId, Vec<(&GrantId, &Grant)>> = BTreeMap::new();
        let mut prefixed = Vec::new();
        for (id, grant) in grants {
            let mut has_prefix = false;
            for pattern in &grant.principals {
                match pattern {
                    PrincipalPattern::Exact(principal) => {
                        exact.entry(principal).or_default().push((*id, *grant));
                    }
                    PrincipalPattern::Prefix(_) => has_prefix = true,
                }
            }
            if has_prefix {
                prefixed.push((*id, *grant));
            }
        }
        let chain = asset.and_then(|id| self.doc.assets.get(id)).map(|a| &a.chain);
        for same in exact.values() {
            for (i, a) in same.iter().enumerate() {
                for b in same.iter().skip(i.saturating_add(1)) {
                    self.compare(action, chain, *a, *b);
                }
            }
        }
        for a in &prefixed {
            for b in grants {
                if a.0 != b.0 && share_principal(a.1, b.1) {
                    self.compare(action, chain, *a, *b);
                }
            }
        }
    }

    fn compare(
        &mut self,
        action: Action,
        chain: Option<&ChainId>,
        a: (&GrantId, &Grant),
        b: (&GrantId, &Grant),
    ) {
        if self.left == 0 || self.found.pairs.len() >= MAX_PAIRS {
            self.left = 0;
            return;
        }
        self.left = self.left.saturating_sub(1);
        if !a.1.path.overlaps(&b.1.path) {
            return;
        }
        // an action without a payee matches grants whatever they list
        let payees = !has_payee(action)
            || matches!((&a.1.to, &b.1.to), (Some(x), Some(y)) if share_payee(self.doc, x, y, chain));
        if payees {
            let (first, second) = if a.0 < b.0 { (a.0, b.0) } else { (b.0, a.0) };
            self.found.pairs.insert((first.clone(), second.clone()));
        }
    }
}

fn share_principal(a: &Grant, b: &Grant) -> bool {
    a.principals.iter().any(|p| b.principals.iter().any(|q| p.covers(q) || q.covers(p)))
}

fn share_payee(doc: &PolicyDoc, a: &Payees, b: &Payees, chain: Option<&ChainId>) -> bool {
    let (Payees::Only { lists: x, .. }, Payees::Only { lists: y, .. }) = (a, b) else {
        return true;
    };
    let on =
        |list| doc.payees.get(list).and_then(|by| by.get(chain?)).filter(|set| !set.is_empty());
    if x.intersection(y).any(|list| on(list).is_some()) {
        return true;
    }
    sets(doc, a, chain).iter().any(|p| sets(doc, b, chain).iter().any(|q| !p.is_disjoint(q)))
}

/// The sets of accounts that payees stand for on a chain.
pub(crate) fn sets<'a>(
    doc: &'a PolicyDoc,
    payees: &'a Payees,
    chain: Option<&ChainId>,
) -> Vec<&'a BTreeSet<Payee>> {
    let Payees::Only { accounts, lists } = payees else { return Vec::new() };
    let listed = lists.iter().filter_map(|list| doc.payees.get(list)?.get(chain?));
    listed.chain([accounts]).collect()
}
