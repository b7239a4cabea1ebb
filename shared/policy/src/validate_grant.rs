//! The rules of one grant.

use std::collections::BTreeSet;

use casemate_proto::{AssetId, ChainId, GrantId, Millis};
use casemate_tx::Action;

use crate::{
    actions::{Class, Form, form, has_validity, needs_domain},
    error::{Problem, Rule},
    model::{Cap, Grant, Limit, Per, PolicyDoc},
    validate::{
        MAX_LENGTH, MAX_LIMITS, Report, any_payee, assets, class_of, payees, principals,
        same_decimals,
    },
};

pub(crate) fn check(doc: &PolicyDoc, id: &GrantId, grant: &Grant, report: &mut Report) {
    let place = |field: &str| format!("grant[{id}].{field}");
    if grant.principals.is_empty() {
        report.rule(place("principals"), Rule::Empty);
    }
    principals(doc, &place("principals"), &grant.principals, report);
    if grant.allow.0.is_empty() {
        report.rule(place("allow"), Rule::Empty);
    }
    assets(doc, &place("asset"), &grant.assets, report);
    match class_of(&grant.allow) {
        Err((first, second)) => report.add(
            place("allow"),
            Problem::MixedActions {
                first: first.name(),
                second: second.name(),
                why: "what moves a counted amount, what does not, and what names no chain each need a grant of their own",
            },
        ),
        Ok(Some(class)) => check_class(doc, &place, grant, class, report),
        Ok(None) => {}
    }
    check_payees(doc, &place, grant, report);
    check_limits(&place, grant, report);
    check_fees(doc, &place, grant, report);
    check_times(&place, grant, report);
    check_tiers(doc, &place, grant, report);
}

type Place<'a> = &'a dyn Fn(&str) -> String;

fn check_class(
    doc: &PolicyDoc,
    place: Place<'_>,
    grant: &Grant,
    class: Class,
    report: &mut Report,
) {
    let said = grant.unlimited || doc.unlimited;
    let has = |sum: bool| grant.limits.iter().any(|l| matches!(l.cap, Cap::Sum(_)) == sum);
    if class == Class::OffChain {
        if !grant.assets.is_empty() {
            report.rule(place("asset"), Rule::AssetOfNothing);
        }
    } else if grant.assets.is_empty() {
        report.add(place("asset"), Problem::Missing { field: "asset" });
    }
    if class == Class::Valued {
        if !has(true) && !said {
            report.rule(place("limits"), Rule::NoSum);
        }
        let ids: BTreeSet<&AssetId> = grant.assets.iter().collect();
        same_decimals(doc, &place("asset"), &ids, report);
    } else {
        if has(true) {
            report.rule(place("limits"), Rule::SumOfNothing);
        }
        if !has(false) && !said {
            report.rule(place("limits"), Rule::NoCount);
        }
        if grant.max_per_tx.is_some() {
            report.rule(place("max_per_tx"), Rule::NoAmount);
        }
        if !grant.tiers.is_empty() {
            report.rule(place("tiers"), Rule::NoAmount);
        }
    }
    check_asset_kinds(doc, place, grant, class, report);
}

/// Each asset must be of some action, and each action of some asset: what can never match is a
/// mistake that would otherwise be found too late.
fn check_asset_kinds(
    doc: &PolicyDoc,
    place: Place<'_>,
    grant: &Grant,
    class: Class,
    report: &mut Report,
) {
    let wants_native =
        |a: &Action| class == Class::Opaque || matches!(a, Action::EthNativeTransfer);
    let natives = grant.allow.0.iter().any(wants_native);
    let tokens = grant.allow.0.iter().any(|a| !wants_native(a));
    let mut seen = (false, false);
    for id in &grant.assets {
        let Some(asset) = doc.assets.get(id) else { continue };
        let wrong = if asset.token.is_some() {
            seen.1 = true;
            (!tokens).then_some(("a token", "none of these actions is about; name native assets"))
        } else {
            seen.0 = true;
            (!natives).then_some(("a native asset", "none of these actions moves; name tokens"))
        };
        if let Some((kind, why)) = wrong {
            report.add(place("asset"), Problem::AssetKind { asset: id.to_string(), kind, why });
        }
        let typed = grant.allow.0.iter().any(|a| needs_domain(*a));
        if asset.token.is_some() && typed && asset.domain.is_none() {
            report.rule(format!("asset[{id}].domain"), Rule::NoDomain);
        }
    }
    if class == Class::OffChain || grant.assets.iter().any(|id| !doc.assets.contains_key(id)) {
        return;
    }
    for (needed, there, field) in [(natives, seen.0, "native"), (tokens, seen.1, "token")] {
        if needed && !there && !grant.assets.is_empty() {
            let kind = if field == "native" { "no native asset" } else { "no token" };
            let asset = grant.assets.iter().map(AssetId::as_str).collect::<Vec<_>>().join(", ");
            let why = "one of these actions needs";
            report.add(place("asset"), Problem::AssetKind { asset, kind, why });
        }
    }
}

fn check_payees(doc: &PolicyDoc, place: Place<'_>, grant: &Grant, report: &mut Report) {
    match (&grant.to, any_payee(&grant.allow)) {
        (Some(to), true) => payees(doc, &place("to"), to, report),
        (None, true) => report.rule(place("to"), Rule::NoPayee),
        (Some(_), false) if !grant.allow.0.is_empty() => {
            report.rule(place("to"), Rule::NoPayeeMeant);
        }
        (_, false) => {}
    }
}

fn check_limits(place: Place<'_>, grant: &Grant, report: &mut Report) {
    report.at_most(&place("limits"), "limits", grant.limits.len(), MAX_LIMITS);
    for Limit { window, per, shared, .. } in &grant.limits {
        report.window(place("limits.window"), *window);
        if *per == Per::Group && shared.is_none() {
            report.rule(place("limits.per"), Rule::GroupNotShared);
        }
    }
}

/// The chains of a grant's assets.
pub(crate) fn chains<'a>(doc: &'a PolicyDoc, grant: &Grant) -> BTreeSet<&'a ChainId> {
    grant.assets.iter().filter_map(|id| doc.assets.get(id)).map(|a| &a.chain).collect()
}

fn check_fees(doc: &PolicyDoc, place: Place<'_>, grant: &Grant, report: &mut Report) {
    let forms: Vec<Form> = grant.allow.0.iter().map(|a| form(*a)).collect();
    let stated = !grant.max_fee_per_tx.is_empty() || !grant.fee_limits.is_empty();
    if !forms.is_empty() && forms.iter().all(|f| *f == Form::Signature) {
        if stated {
            report.rule(place("max_fee_per_tx"), Rule::FeeOfNothing);
        }
        return;
    }
    let needed = forms.contains(&Form::Transaction) || stated;
    let native_of = |chain: &ChainId| {
        doc.assets.iter().find(|(_, a)| a.chain == *chain && a.token.is_none()).map(|(id, _)| id)
    };
    let mut natives = BTreeSet::new();
    for chain in chains(doc, grant).into_iter().filter(|_| needed) {
        let Some(native) = native_of(chain) else {
            report.rule(place(&format!("asset[{chain}]")), Rule::NoNative);
            continue;
        };
        natives.insert(native);
        if !grant.max_fee_per_tx.contains_key(native) {
            report.rule(place("max_fee_per_tx"), Rule::NoFeeCap);
        }
        if grant.fee_limits.get(native).is_none_or(BTreeSet::is_empty) {
            report.rule(place("fee_limits"), Rule::NoFeeLimit);
        }
    }
    for id in grant.max_fee_per_tx.keys().filter(|id| !natives.contains(*id)) {
        report.rule(place(&format!("max_fee_per_tx[{id}]")), Rule::FeeAsset);
    }
    for (id, limits) in &grant.fee_limits {
        if !natives.contains(id) {
            report.rule(place(&format!("fee_limits[{id}]")), Rule::FeeAsset);
        }
        report.at_most(&place("fee_limits"), "fee limits", limits.len(), MAX_LIMITS);
        for limit in limits {
            report.window(place("fee_limits.window"), limit.window);
            if limit.per == Per::Group {
                report.rule(place("fee_limits.per"), Rule::GroupNotShared);
            }
        }
    }
}

fn check_times(place: Place<'_>, grant: &Grant, report: &mut Report) {
    if let Some(length) = grant.valid_for_max {
        report.length(place("valid_for_max"), length, Millis(1_000), MAX_LENGTH);
        if !grant.allow.0.iter().any(|a| has_validity(*a)) {
            report.rule(place("valid_for_max"), Rule::NoValidity);
        }
    }
    if let Some(hours) = grant.hours {
        if hours.from >= 1_440 || hours.to == 0 || hours.to > 1_440 {
            let input = format!("{} to {}", hours.from, hours.to);
            report.add(place("hours"), Problem::Form { input, expected: "minutes of a day" });
        } else if hours.from == hours.to || (hours.from == 0 && hours.to == 1_440) {
            report.rule(place("hours"), Rule::EmptyHours);
        }
    }
    if let (Some(from), Some(to)) = (grant.not_before, grant.expires)
        && from >= to
    {
        report.rule(place("not_before"), Rule::NeverInForce);
    }
}

fn check_tiers(doc: &PolicyDoc, place: Place<'_>, grant: &Grant, report: &mut Report) {
    report.at_most(&place("tiers"), "tiers", grant.tiers.len(), MAX_LIMITS);
    let mut before = None;
    for (i, tier) in grant.tiers.iter().enumerate() {
        let at = |field: &str| place(&format!("tiers[{i}].{field}"));
        if before.is_some_and(|before| tier.upto <= before) {
            report.rule(at("upto"), Rule::TierOrder);
        }
        before = Some(tier.upto);
        if let Some(approvals) = &tier.approvals {
            if approvals.needed == 0 {
                report.rule(at("approvals"), Rule::NoApprovals);
            }
            if !doc.approvers.contains_key(&approvals.of) {
                report.unknown(at("approvals"), "list of approvers", approvals.of.as_str());
            }
        }
        if let Some(delay) = tier.delay {
            report.length(at("delay"), delay, Millis(1), MAX_LENGTH);
        }
    }
}
