//! Grants as text to data.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{Amount, AssetId, GrantId, KeyName, ListId, Millis};

use crate::{
    error::{Problem, Rule},
    model::{Approvals, Asset, Cap, FeeLimit, Grant, Hours, Limit, Per, PolicyDoc, Tier},
    pattern::PathPattern,
    reader::{Fields, Reader, Value, form, join},
    toml_policy::{actions, asset_ids, flag, identified, payees, principal_pattern, time, unique},
};

const GRANT: &[&str] = &[
    "id",
    "key",
    "path",
    "principals",
    "allow",
    "asset",
    "to",
    "max_per_tx",
    "limits",
    "max_fee_per_tx",
    "fee_limits",
    "hours",
    "valid_for_max",
    "not_before",
    "expires",
    "tiers",
    "unlimited",
];

pub(crate) fn grant(reader: &mut Reader, doc: &mut PolicyDoc, index: usize, value: Value<'_>) {
    let at = format!("grant[{index}]");
    let Some(fields) = reader.table(&at, value, GRANT) else { return };
    let Some((id, place)) = identified(reader, "grant", index, value, &fields, GrantId::new) else {
        return;
    };
    let Some(grant) = read(reader, &doc.assets, &place, &fields) else { return };
    if doc.grants.insert(id.clone(), grant).is_some() {
        reader.add(&place, Problem::Repeated { what: "grant", name: id.to_string() });
    }
}

type Assets = BTreeMap<AssetId, Asset>;

fn read(reader: &mut Reader, registry: &Assets, place: &str, fields: &Fields<'_>) -> Option<Grant> {
    let key = reader.required(place, fields, "key");
    let key = key.and_then(|v| {
        reader.parse(&join(place, "key"), v, |text| KeyName::new(text).map_err(Problem::Id))
    });
    let path = reader.optional(place, fields, "path", |text| {
        PathPattern::parse(text).ok_or_else(|| form(text, "a path such as `m`, `m/0/7` or `m/0/*`"))
    });
    let principals = match reader.required(place, fields, "principals") {
        None => BTreeSet::new(),
        Some(value) => {
            let place = join(place, "principals");
            let values = reader.array(&place, value);
            unique(reader, &place, "principal", values, principal_pattern)
        }
    };
    let allow = reader
        .required(place, fields, "allow")
        .map(|value| actions(reader, &join(place, "allow"), value));
    let assets = fields
        .get("asset")
        .map(|value| asset_ids(reader, &join(place, "asset"), value))
        .unwrap_or_default();
    let to = fields.get("to").and_then(|value| payees(reader, &join(place, "to"), value));
    let decimals = assets.iter().find_map(|id| registry.get(id)).map(|asset| asset.decimals);
    // with an asset that is not in the registry, amounts are read for nothing but their form
    let unit = decimals.or((!assets.is_empty()).then_some(crate::validate::MAX_DECIMALS));
    let natives = natives(registry, &assets);
    Some(Grant {
        path: path.unwrap_or_default(),
        principals,
        to,
        max_per_tx: amount(reader, place, fields, "max_per_tx", unit),
        limits: limits(reader, place, fields, unit),
        max_fee_per_tx: fee_caps(reader, place, fields, &natives),
        fee_limits: fee_limits(reader, place, fields, &natives),
        hours: hours(reader, place, fields),
        valid_for_max: reader.optional(place, fields, "valid_for_max", length),
        not_before: reader.optional(place, fields, "not_before", time),
        expires: reader.optional(place, fields, "expires", time),
        tiers: tiers(reader, place, fields, unit),
        unlimited: flag(reader, place, fields, "unlimited"),
        assets,
        key: key?,
        allow: allow?,
    })
}

fn length(text: &str) -> Result<Millis, Problem> {
    Millis::from_text(text).map_err(Problem::Time)
}

fn amount(
    reader: &mut Reader,
    place: &str,
    fields: &Fields<'_>,
    name: &str,
    unit: Option<u8>,
) -> Option<Amount> {
    let value = fields.get(name)?;
    let place = join(place, name);
    let Some(unit) = unit else {
        reader.add(&place, Problem::Rule(Rule::NoAmount));
        return None;
    };
    reader.amount(&place, value, unit)
}

/// The native assets of the chains of a grant's assets, with their decimals.
fn natives(registry: &Assets, assets: &BTreeSet<AssetId>) -> BTreeMap<AssetId, u8> {
    let chains: BTreeSet<_> =
        assets.iter().filter_map(|id| registry.get(id)).map(|asset| &asset.chain).collect();
    registry
        .iter()
        .filter(|(_, asset)| asset.token.is_none() && chains.contains(&asset.chain))
        .map(|(id, asset)| (id.clone(), asset.decimals))
        .collect()
}

fn elements<'t>(
    reader: &mut Reader,
    place: &str,
    fields: &Fields<'t>,
    name: &str,
) -> Vec<(String, Value<'t>)> {
    let Some(value) = fields.get(name) else { return Vec::new() };
    let place = join(place, name);
    let values = reader.array(&place, value);
    values.into_iter().enumerate().map(|(i, value)| (format!("{place}[{i}]"), value)).collect()
}

fn window(reader: &mut Reader, place: &str, fields: &Fields<'_>) -> Option<Millis> {
    let value = reader.required(place, fields, "window")?;
    reader.parse(&join(place, "window"), value, length)
}

fn per(reader: &mut Reader, place: &str, fields: &Fields<'_>, default: Per) -> Option<Per> {
    let Some(value) = fields.get("per") else { return Some(default) };
    reader.parse(&join(place, "per"), value, |text| {
        [Per::Group, Per::Key, Per::Path, Per::Principal]
            .into_iter()
            .find(|per| per.name() == text)
            .ok_or_else(|| form(text, "`key`, `path`, `principal`, or for shared limits `group`"))
    })
}

fn limits(
    reader: &mut Reader,
    place: &str,
    fields: &Fields<'_>,
    unit: Option<u8>,
) -> BTreeSet<Limit> {
    let mut out = BTreeSet::new();
    for (place, value) in elements(reader, place, fields, "limits") {
        let known = &["sum", "count", "window", "per", "shared"];
        let Some(fields) = reader.table(&place, value, known) else { continue };
        let shared = reader
            .optional(&place, &fields, "shared", |text| ListId::new(text).map_err(Problem::Id));
        let default = if fields.contains_key("shared") { Per::Group } else { Per::Key };
        let cap = match (fields.get("sum"), fields.get("count")) {
            (Some(_), None) if unit.is_none() => {
                reader.add(&join(&place, "sum"), Problem::Rule(Rule::SumOfNothing));
                None
            }
            (Some(_), None) => amount(reader, &place, &fields, "sum", unit).map(Cap::Sum),
            (None, Some(value)) => reader.number(&join(&place, "count"), value).map(Cap::Count),
            _ => {
                reader.add(&place, Problem::Rule(Rule::SumOrCount));
                None
            }
        };
        let per = per(reader, &place, &fields, default);
        let window = window(reader, &place, &fields);
        let (Some(cap), Some(window), Some(per)) = (cap, window, per) else { continue };
        if !out.insert(Limit { cap, window, per, shared }) {
            let name = window.to_text();
            reader.add(&place, Problem::Repeated { what: "limit over", name });
        }
    }
    out
}

/// `max_fee_per_tx = "0.05"` where the grant's chains have one native asset, and
/// `{ eth = "0.05", pol = "10" }` where they have several.
fn fee_caps(
    reader: &mut Reader,
    place: &str,
    fields: &Fields<'_>,
    natives: &BTreeMap<AssetId, u8>,
) -> BTreeMap<AssetId, Amount> {
    let mut caps = BTreeMap::new();
    let Some(value) = fields.get("max_fee_per_tx") else { return caps };
    let place = join(place, "max_fee_per_tx");
    if value.get_ref().is_table() {
        for (name, value) in reader.entries(&place, value) {
            let place = format!("{place}[{name}]");
            reader.note(&place, value);
            let native = AssetId::new(name).ok().and_then(|id| natives.get_key_value(&id));
            match native {
                None => reader.add(&place, Problem::Rule(Rule::FeeAsset)),
                Some((id, decimals)) => {
                    if let Some(cap) = reader.amount(&place, value, *decimals) {
                        caps.insert(id.clone(), cap);
                    }
                }
            }
        }
        return caps;
    }
    if let Some((id, decimals)) = the_native(reader, &place, natives)
        && let Some(cap) = reader.amount(&place, value, decimals)
    {
        caps.insert(id, cap);
    }
    caps
}

/// The one native asset that a fee is meant in where it is not named.
fn the_native(
    reader: &mut Reader,
    place: &str,
    natives: &BTreeMap<AssetId, u8>,
) -> Option<(AssetId, u8)> {
    let mut all = natives.iter();
    match (all.next(), all.next()) {
        (None, _) => reader.add(place, Problem::Rule(Rule::NoNative)),
        (Some((id, decimals)), None) => return Some((id.clone(), *decimals)),
        (Some((first, _)), Some((second, _))) => {
            let input = format!("{first}, {second}");
            let expected = "one asset: say which, as in { eth = \"0.05\", pol = \"10\" }";
            reader.add(place, Problem::Form { input, expected });
        }
    }
    None
}

fn fee_limits(
    reader: &mut Reader,
    place: &str,
    fields: &Fields<'_>,
    natives: &BTreeMap<AssetId, u8>,
) -> BTreeMap<AssetId, BTreeSet<FeeLimit>> {
    let mut out: BTreeMap<AssetId, BTreeSet<FeeLimit>> = BTreeMap::new();
    for (place, value) in elements(reader, place, fields, "fee_limits") {
        let Some(fields) = reader.table(&place, value, &["sum", "window", "per", "asset"]) else {
            continue;
        };
        let native = match fields.get("asset") {
            None => the_native(reader, &place, natives),
            Some(value) => {
                let at = join(&place, "asset");
                let id = reader.parse(&at, value, |text| AssetId::new(text).map_err(Problem::Id));
                let native = id.and_then(|id| Some((id.clone(), *natives.get(&id)?)));
                if native.is_none() {
                    reader.add(&at, Problem::Rule(Rule::FeeAsset));
                }
                native
            }
        };
        let sum = reader.required(&place, &fields, "sum");
        let window = window(reader, &place, &fields);
        let per = per(reader, &place, &fields, Per::Key);
        let (Some((id, decimals)), Some(sum)) = (native, sum) else { continue };
        let sum = reader.amount(&join(&place, "sum"), sum, decimals);
        let (Some(sum), Some(window), Some(per)) = (sum, window, per) else { continue };
        if !out.entry(id).or_default().insert(FeeLimit { sum, window, per }) {
            let name = window.to_text();
            reader.add(&place, Problem::Repeated { what: "limit over", name });
        }
    }
    out
}

fn hours(reader: &mut Reader, place: &str, fields: &Fields<'_>) -> Option<Hours> {
    let value = fields.get("hours")?;
    let place = join(place, "hours");
    let fields = reader.table(&place, value, &["utc"])?;
    let value = reader.required(&place, &fields, "utc")?;
    reader.parse(&join(&place, "utc"), value, |text| {
        Hours::parse(text).ok_or_else(|| form(text, "hours such as `09:00-18:00`"))
    })
}

fn tiers(reader: &mut Reader, place: &str, fields: &Fields<'_>, unit: Option<u8>) -> Vec<Tier> {
    let mut out = Vec::new();
    for (place, value) in elements(reader, place, fields, "tiers") {
        let known = &["upto", "approvals", "passkey", "delay"];
        let Some(fields) = reader.table(&place, value, known) else { continue };
        reader.required(&place, &fields, "upto");
        let upto = amount(reader, &place, &fields, "upto", unit);
        let passkey = flag(reader, &place, &fields, "passkey");
        let approvals = reader.optional(&place, &fields, "approvals", parse_approvals);
        if passkey && !fields.contains_key("approvals") {
            reader.add(&join(&place, "passkey"), Problem::Rule(Rule::PasskeyOfNobody));
        }
        let approvals = approvals.map(|(needed, of)| Approvals { needed, of, passkey });
        let delay = reader.optional(&place, &fields, "delay", length);
        if let Some(upto) = upto {
            out.push(Tier { upto, approvals, delay });
        }
    }
    out
}

/// `3 of @treasurers`.
fn parse_approvals(text: &str) -> Result<(u32, ListId), Problem> {
    let parsed = || {
        let (number, list) = text.split_once(" of @")?;
        let needed: u32 = number.parse().ok()?;
        (needed.to_string() == number).then_some(())?;
        Some((needed, ListId::new(list).ok().filter(|l| !l.as_str().contains('.'))?))
    };
    parsed().ok_or_else(|| form(text, "approvals such as `3 of @treasurers`"))
}
