//! Rows of bounds: by key and asset, and by shared limit.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{Amount, AssetId, GrantId, KeyName, ListId, Millis, UnixMillis};
use casemate_tx::{Action, AssetRef, Domain, EvmAddress, Intent, Validity};

use crate::{
    actions::{Class, Form, class, form, has_validity, needs_domain},
    bounds::{
        Bound, Bounds, Setting, SharedBound, Span, Unbounded,
        figure::{Figure, together},
        reach::{Help, Host, Reach, askers},
    },
    charge::Slack,
    decision::Ask,
    evaluate,
    model::{Asset, Cap, Grant, Limit, Payees, Per},
    policy::Policy,
};

/// A grant's signature that cannot be read, for any chain or for one.
struct Opaque<'a> {
    id: &'a GrantId,
    grant: &'a Grant,
    everywhere: bool,
}

pub(super) fn all(policy: &Policy, setting: Setting) -> Bounds {
    let slack = setting.cluster.map_or(Slack::ZERO, |cluster| cluster.slack());
    let alone = Host::new(policy.doc(), Help::Requesters, setting.now, slack);
    let helped = Host::new(policy.doc(), Help::Approvers, setting.now, slack);
    let mut by_key: BTreeMap<&KeyName, Vec<(&GrantId, &Grant)>> = BTreeMap::new();
    for (id, grant) in &policy.doc().grants {
        by_key.entry(&grant.key).or_default().push((id, grant));
    }
    let mut rows = Vec::new();
    for (key, grants) in &by_key {
        let computing = Rows { policy, alone: &alone, helped: &helped, slack, key, grants };
        computing.push(&mut rows);
    }
    Bounds {
        policy_hash: policy.policy_hash(),
        policy_name: policy.doc().name.clone(),
        setting,
        rows,
        shared: shared(policy, &alone, slack),
        unbounded: unbounded(policy, &alone),
    }
}

struct Rows<'a> {
    policy: &'a Policy,
    alone: &'a Host<'a>,
    helped: &'a Host<'a>,
    slack: Slack,
    key: &'a KeyName,
    grants: &'a [(&'a GrantId, &'a Grant)],
}

impl<'a> Rows<'a> {
    fn push(&self, rows: &mut Vec<Bound>) {
        let doc = self.policy.doc();
        let mut assets: BTreeSet<&AssetId> = BTreeSet::new();
        for (_, grant) in self.grants {
            if valued(grant) {
                assets.extend(&grant.assets);
            }
            assets.extend(grant.max_fee_per_tx.keys());
        }
        for (id, asset) in assets.into_iter().filter_map(|id| doc.assets.get_key_value(id)) {
            self.asset(id, asset, rows);
        }
    }

    fn moving(&self, asset: &AssetId) -> Vec<(&'a GrantId, &'a Grant)> {
        let moves = |g: &Grant| valued(g) && g.assets.contains(asset);
        self.grants.iter().copied().filter(|(_, g)| moves(g)).collect()
    }

    fn asset(&self, id: &'a AssetId, asset: &'a Asset, rows: &mut Vec<Bound>) {
        let moving = self.moving(id);
        let paying: Vec<(&GrantId, &Grant)> = self
            .grants
            .iter()
            .copied()
            .filter(|(_, g)| g.max_fee_per_tx.contains_key(id))
            .collect();
        let reaches = |host: &Host<'a>| -> (Vec<Reach<'a>>, Vec<Reach<'a>>) {
            (
                moving.iter().filter_map(|(id, grant)| host.amounts(id, grant)).collect(),
                paying.iter().filter_map(|(g, grant)| host.fees(g, grant, id)).collect(),
            )
        };
        let (amounts, fees) = reaches(self.alone);
        let (helped_amounts, helped_fees) = reaches(self.helped);
        let opaque = self.opaque(self.alone, asset);
        let helped_opaque = self.opaque(self.helped, asset);
        let grants: BTreeSet<&GrantId> = moving.iter().chain(&paying).map(|(id, _)| *id).collect();
        let askable = |reached: &Figure<'_, '_>| {
            reached.amount.is_some_and(Amount::is_zero)
                || reached.reached_by.iter().any(|reach| self.is_asked(reach, asset))
        };
        for span in self.spans(id, &moving, &paying) {
            let length = self.length(span);
            let moved = together(&amounts, length);
            let paid = together(&fees, length);
            let helped = add(
                together(&helped_amounts, length).amount,
                together(&helped_fees, length).amount,
            );
            let total = add(moved.amount, paid.amount).filter(|_| opaque.is_none());
            rows.push(Bound {
                key: self.key.clone(),
                asset: id.clone(),
                decimals: asset.decimals,
                span,
                amount: total,
                fees: paid.amount,
                with_approvals: helped.filter(|_| helped_opaque.is_none()),
                attained: total.is_some()
                    && paid.amount.is_some_and(Amount::is_zero)
                    && askable(&moved),
                wallets: wallets(&moving),
                grants: grants.iter().map(|id| (*id).clone()).collect(),
                unbounded_by: opaque.cloned(),
            });
        }
    }

    /// Each window in use, and until expiry.
    fn spans(
        &self,
        asset: &AssetId,
        moving: &[(&GrantId, &Grant)],
        paying: &[(&GrantId, &Grant)],
    ) -> Vec<Span> {
        let mut spans = BTreeSet::new();
        for (_, grant) in moving {
            spans.extend(grant.limits.iter().map(|limit| Span::Window(limit.window)));
        }
        for (_, grant) in paying {
            let limits = grant.fee_limits.get(asset).into_iter().flatten();
            spans.extend(limits.map(|limit| Span::Window(limit.window)));
        }
        spans.insert(Span::UntilExpiry(last_end(
            self.policy,
            moving.iter().chain(paying).map(|(_, grant)| *grant),
        )));
        spans.into_iter().collect()
    }

    fn length(&self, span: Span) -> Option<Millis> {
        length(span, self.slack)
    }

    /// A grant of this key whose signatures could move the asset without anybody reading it.
    fn opaque(&self, host: &Host<'a>, asset: &Asset) -> Option<&'a GrantId> {
        let doc = self.policy.doc();
        let of_chain = |grant: &Grant| {
            grant.assets.iter().filter_map(|id| doc.assets.get(id)).any(|a| a.chain == asset.chain)
        };
        self.grants
            .iter()
            .filter_map(|(id, grant)| opaque(id, grant))
            .find(|found| host.reaches(found.grant) && (found.everywhere || of_chain(found.grant)))
            .map(|found| found.id)
    }

    /// Whether something can be asked for under this very grant, deny rules and ambiguity
    /// considered. Of many principals and payees, the first hundred are tried.
    fn is_asked(&self, reach: &Reach<'_>, asset: &Asset) -> bool {
        let doc = self.policy.doc();
        let grant = reach.grant;
        let payees: Vec<EvmAddress> = match &grant.to {
            None => Vec::new(),
            Some(Payees::Anybody) => vec![EvmAddress([0x5a; 20])],
            Some(Payees::Only { accounts, lists }) => accounts
                .iter()
                .chain(lists.iter().flat_map(|list| {
                    doc.payees.get(list).and_then(|by| by.get(&asset.chain)).into_iter().flatten()
                }))
                .map(|payee| payee.0)
                .take(100)
                .collect(),
        };
        let Some(path) = some_path(&grant.path) else { return false };
        let signer = EvmAddress([0xa5; 20]);
        askers(doc, grant).into_iter().take(100).any(|principal| {
            let Some(credential) = doc.principals.get(principal).and_then(|keys| {
                keys.iter().find(|k| k.algorithm() != casemate_proto::Algorithm::WebauthnP256)
            }) else {
                return false;
            };
            grant.allow.0.iter().any(|action| {
                payees.iter().any(|to| {
                    let intent = intent(*action, asset, *to, signer);
                    let ask = Ask {
                        key: self.key,
                        path: &path,
                        principal,
                        credential: &credential.id(),
                        signer: Some(signer),
                        intent: &intent,
                        approvals: &[],
                        first_seen: self.alone.now,
                    };
                    evaluate::selected(self.policy, &ask).is_some_and(|id| id == reach.id)
                })
            })
        })
    }
}

fn some_path(pattern: &crate::pattern::PathPattern) -> Option<casemate_proto::DerivationPath> {
    casemate_proto::DerivationPath::parse(&pattern.to_string().replace('*', "0")).ok()
}

/// A payload as its decoder would read it, for trying whether a grant can be used.
fn intent(action: Action, asset: &Asset, to: EvmAddress, signer: EvmAddress) -> Intent {
    let typed = form(action) != Form::Transaction;
    Intent {
        action,
        chain: Some(asset.chain.clone()),
        asset: Some(asset.token.map_or(AssetRef::Native, |t| AssetRef::Token(t.0))),
        payer: (typed || action == Action::Erc20TransferFrom).then_some(signer),
        to: Some(to),
        amount: Amount::from(1),
        native_value: Amount::ZERO,
        max_fee: (!typed).then_some(Amount::ZERO),
        domain: asset
            .domain
            .as_ref()
            .filter(|_| needs_domain(action))
            .map(|d| Domain { name: d.name.clone(), version: d.version.clone() }),
        validity: has_validity(action)
            .then_some(Validity { after: UnixMillis(0), before: UnixMillis(u64::MAX) }),
    }
}

pub(super) fn valued(grant: &Grant) -> bool {
    grant.allow.0.iter().any(|action| class(*action) == Class::Valued)
}

fn opaque<'a>(id: &'a GrantId, grant: &'a Grant) -> Option<Opaque<'a>> {
    let everywhere = grant.allow.0.contains(&Action::RawHash);
    let on_chain = grant.allow.0.iter().any(|action| class(*action) == Class::Opaque);
    (everywhere || on_chain).then_some(Opaque { id, grant, everywhere })
}

fn wallets(grants: &[(&GrantId, &Grant)]) -> Option<u64> {
    let per_path = |g: &Grant| {
        g.limits.iter().any(|limit| limit.per == Per::Path && g.path.count() != Some(1))
    };
    if !grants.iter().any(|(_, g)| per_path(g)) {
        return Some(1);
    }
    let paths: BTreeSet<_> = grants.iter().map(|(_, g)| &g.path).collect();
    paths.into_iter().try_fold(0_u64, |n, path| n.checked_add(path.count()?))
}

fn add(a: Option<Amount>, b: Option<Amount>) -> Option<Amount> {
    a?.checked_add(b?)
}

/// Charges can be in an interval that is longer by the slack than the window in which their
/// signatures leave; until expiry, nothing is added.
fn length(span: Span, slack: Slack) -> Option<Millis> {
    match span {
        Span::Window(window) => Some(slack.lengthen(window)),
        Span::UntilExpiry(_) => None,
    }
}

fn last_end<'a>(policy: &Policy, grants: impl Iterator<Item = &'a Grant>) -> Option<UnixMillis> {
    grants
        .map(|g| [g.expires, policy.doc().expires].into_iter().flatten().min())
        .collect::<Option<Vec<_>>>()
        .and_then(|ends| ends.into_iter().max())
}

fn unbounded(policy: &Policy, host: &Host<'_>) -> Vec<Unbounded> {
    let found = policy.doc().grants.iter().filter_map(|(id, grant)| opaque(id, grant));
    found
        .filter(|found| host.reaches(found.grant))
        .map(|found| Unbounded {
            grant: found.id.clone(),
            key: found.grant.key.clone(),
            actions: found.grant.allow.names().into_iter().collect(),
            signatures: found
                .grant
                .limits
                .iter()
                .filter_map(|limit| match limit.cap {
                    Cap::Count(count) => Some((count, limit.window)),
                    Cap::Sum(_) => None,
                })
                .collect(),
        })
        .collect()
}

fn shared(policy: &Policy, host: &Host<'_>, slack: Slack) -> Vec<SharedBound> {
    let doc = policy.doc();
    let mut sums: BTreeMap<&ListId, &Limit> = BTreeMap::new();
    for limit in doc.grants.values().flat_map(|g| &g.limits) {
        if let (Some(name), Cap::Sum(_)) = (&limit.shared, limit.cap) {
            sums.insert(name, limit);
        }
    }
    let mut out = Vec::new();
    for (name, limit) in sums {
        let members: Vec<_> = doc
            .grants
            .iter()
            .filter(|(_, g)| g.limits.iter().any(|l| l.shared.as_ref() == Some(name)))
            .collect();
        let counts: BTreeSet<(&KeyName, &AssetId)> = members
            .iter()
            .flat_map(|(_, g)| g.assets.iter().map(|asset| (&g.key, asset)))
            .collect();
        let assets = counts.iter().filter_map(|(_, asset)| doc.assets.get(*asset));
        let Some(decimals) = assets.map(|asset| asset.decimals).next() else { continue };
        let end = last_end(policy, members.iter().map(|(_, g)| *g));
        for span in [Span::Window(limit.window), Span::UntilExpiry(end)] {
            let (amount, attained) = group(policy, host, name, &counts, length(span, slack));
            out.push(SharedBound {
                name: name.clone(),
                counts: counts.iter().map(|(k, a)| ((*k).clone(), (*a).clone())).collect(),
                decimals,
                span,
                amount,
                attained,
            });
        }
    }
    out
}

/// The most of a shared limit's group: pair by pair, or as one where the limit counts everything.
fn group(
    policy: &Policy,
    host: &Host<'_>,
    name: &ListId,
    counts: &BTreeSet<(&KeyName, &AssetId)>,
    length: Option<Millis>,
) -> (Option<Amount>, bool) {
    let doc = policy.doc();
    let is_shared = |limit: &Limit| limit.shared.as_ref() == Some(name);
    let mut by_pair = Some(Amount::ZERO);
    let mut others = Some(Amount::ZERO);
    let mut members: BTreeMap<&GrantId, Reach<'_>> = BTreeMap::new();
    for (key, asset) in counts {
        let on_pair = || {
            doc.grants
                .iter()
                .filter(|(_, g)| g.key == **key && valued(g) && g.assets.contains(*asset))
        };
        let reaches: Vec<Reach<'_>> =
            on_pair().filter_map(|(id, grant)| host.amounts(id, grant)).collect();
        by_pair = add(by_pair, together(&reaches, length).amount);
        for reach in reaches {
            if reach.grant.limits.iter().any(is_shared) {
                members.entry(reach.id).or_insert(reach);
            } else {
                others = add(others, together(&[reach], length).amount);
            }
        }
    }
    // what a member's other limits hold is one asset's or one key's; only the shared one is all's
    let joint: Vec<Reach<'_>> = members
        .into_values()
        .map(|mut reach| {
            reach.held.retain(|held| held.shared.as_ref() == Some(name));
            reach
        })
        .filter(|reach| reach.held.iter().all(|held| held.counts_all && held.count.is_none()))
        .collect();
    let is_group = doc
        .grants
        .values()
        .flat_map(|g| &g.limits)
        .any(|limit| is_shared(limit) && limit.per == Per::Group);
    let joint = together(&joint, length).amount.filter(|_| is_group);
    let as_one = add(joint, others);
    let amount = [by_pair, as_one].into_iter().flatten().min();
    // reached where one pair reaches it alone
    let attained = amount.is_some()
        && counts.iter().any(|(key, asset)| {
            let grants: Vec<_> = doc.grants.iter().filter(|(_, g)| g.key == **key).collect();
            let rows =
                Rows { policy, alone: host, helped: host, slack: host.slack, key, grants: &grants };
            let Some(found) = doc.assets.get(*asset) else { return false };
            let moving = rows.moving(asset);
            let reaches: Vec<_> =
                moving.iter().filter_map(|(id, grant)| host.amounts(id, grant)).collect();
            let figure = together(&reaches, length);
            figure.amount == amount
                && figure.reached_by.iter().any(|reach| rows.is_asked(reach, found))
        });
    (amount, attained)
}
