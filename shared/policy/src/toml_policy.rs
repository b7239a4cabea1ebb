//! A policy's text to its data: the bundle, the registry, principals, lists and deny rules. Grants
//! are read in `toml_grant`.

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{
    Algorithm, AssetId, ChainId, GrantId, KeyName, ListId, PrincipalId, PublicKey, UnixMillis,
};
use casemate_tx::{Action, EvmAddress};
use toml::de::DeTable;

use crate::{
    error::{MAX_ERRORS, PolicyError, PolicyErrors, Problem},
    model::{Actions, Asset, DenyRule, Payee, Payees, PinnedDomain, PolicyDoc},
    pattern::PrincipalPattern,
    policy::{MAX_TOML_BYTES, Policy},
    reader::{Fields, Reader, Value, form, join},
    toml_grant, validate,
};

const BUNDLE: &[&str] =
    &["version", "name", "expires", "unlimited", "asset", "principal", "list", "deny", "grant"];

pub(crate) fn read(text: &str) -> Result<Policy, PolicyErrors> {
    if text.len() > MAX_TOML_BYTES {
        let problem = Problem::TooMany { what: "bytes", found: text.len(), max: MAX_TOML_BYTES };
        let error = PolicyError { line: None, place: String::new(), problem };
        return Err(PolicyErrors { errors: vec![error] });
    }
    let mut reader = Reader::new(text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let errors = syntax.iter().take(MAX_ERRORS).map(|error| PolicyError {
            line: error.span().map(|span| reader.line_at(span.start)),
            place: String::new(),
            problem: Problem::Syntax { message: error.message().to_owned() },
        });
        return Err(PolicyErrors { errors: errors.collect() });
    }
    let doc = bundle(&mut reader, table.get_ref());
    if reader.errors().is_empty() {
        return Policy::new(doc).map_err(|found| with_lines(&reader, found.errors));
    }
    // what could not be read would be reported again as missing wherever it is used
    let unread: BTreeSet<&str> = reader.errors().iter().map(|e| item(&e.place)).collect();
    let follows = |problem: &Problem| {
        matches!(problem, Problem::Unknown { .. } | Problem::Rule(crate::error::Rule::NoNative))
    };
    let more = validate::check(&doc)
        .into_iter()
        .filter(|e| !unread.contains(item(&e.place)) && !follows(&e.problem));
    Err(with_lines(&reader, reader.errors().iter().cloned().chain(more).collect()))
}

/// The item that a place is in: `grant[x402]` of `grant[x402].limits[0].window`.
fn item(place: &str) -> &str {
    place.find(']').and_then(|end| place.get(..=end)).unwrap_or(place)
}

fn with_lines(reader: &Reader, mut errors: Vec<PolicyError>) -> PolicyErrors {
    for error in &mut errors {
        error.line = error.line.or_else(|| reader.line_of(&error.place));
    }
    errors.sort_by_key(|error| error.line);
    errors.truncate(MAX_ERRORS);
    PolicyErrors { errors }
}

fn bundle(reader: &mut Reader, table: &DeTable<'_>) -> PolicyDoc {
    let fields = reader.fields("", table, BUNDLE);
    let version = reader.required("", &fields, "version");
    let name = reader.required("", &fields, "name");
    let mut doc = PolicyDoc {
        version: version.and_then(|v| reader.number("version", v)).unwrap_or_default(),
        name: name.and_then(|v| reader.string("name", v)).unwrap_or_default().to_owned(),
        expires: reader.optional("", &fields, "expires", time),
        unlimited: flag(reader, "", &fields, "unlimited"),
        assets: BTreeMap::new(),
        principals: BTreeMap::new(),
        payees: BTreeMap::new(),
        approvers: BTreeMap::new(),
        deny: BTreeMap::new(),
        grants: BTreeMap::new(),
    };
    if let Some(value) = fields.get("asset") {
        for (name, value) in reader.entries("asset", value) {
            let place = format!("asset[{name}]");
            reader.note(&place, value);
            let id = named(reader, &place, name, AssetId::new);
            if let (Some(id), Some(asset)) = (id, asset(reader, &place, value)) {
                doc.assets.insert(id, asset);
            }
        }
    }
    if let Some(value) = fields.get("principal") {
        for (i, value) in reader.array("principal", value).into_iter().enumerate() {
            principal(reader, &mut doc, i, value);
        }
    }
    if let Some(value) = fields.get("list") {
        lists(reader, &mut doc, value);
    }
    if let Some(value) = fields.get("deny") {
        for (i, value) in reader.array("deny", value).into_iter().enumerate() {
            deny(reader, &mut doc, i, value);
        }
    }
    if let Some(value) = fields.get("grant") {
        for (i, value) in reader.array("grant", value).into_iter().enumerate() {
            toml_grant::grant(reader, &mut doc, i, value);
        }
    }
    doc
}

pub(crate) fn time(text: &str) -> Result<UnixMillis, Problem> {
    UnixMillis::from_rfc3339(text).map_err(Problem::Time)
}

pub(crate) fn flag(reader: &mut Reader, place: &str, fields: &Fields<'_>, name: &str) -> bool {
    let value = fields.get(name).copied();
    value.and_then(|v| reader.boolean(&join(place, name), v)).unwrap_or_default()
}

fn named<T>(
    reader: &mut Reader,
    place: &str,
    name: &str,
    parse: fn(&str) -> Result<T, casemate_proto::ids::IdError>,
) -> Option<T> {
    parse(name).map_err(|error| reader.add(place, Problem::Id(error))).ok()
}

/// The `id` of an element of an array of tables, and the place that is called after it.
pub(crate) fn identified<T: core::fmt::Display>(
    reader: &mut Reader,
    kind: &str,
    index: usize,
    value: Value<'_>,
    fields: &Fields<'_>,
    parse: fn(&str) -> Result<T, casemate_proto::ids::IdError>,
) -> Option<(T, String)> {
    let place = format!("{kind}[{index}]");
    let id = reader.required(&place, fields, "id")?;
    let id = reader.parse(&join(&place, "id"), id, |text| parse(text).map_err(Problem::Id))?;
    let place = format!("{kind}[{id}]");
    reader.note(&place, value);
    for (name, value) in fields {
        reader.note(&join(&place, name), value);
    }
    Some((id, place))
}

fn asset(reader: &mut Reader, place: &str, value: Value<'_>) -> Option<Asset> {
    let fields = reader.table(place, value, &["chain", "token", "native", "decimals", "domain"])?;
    let chain = reader.required(place, &fields, "chain");
    let chain = chain.and_then(|v| reader.parse(&join(place, "chain"), v, chain_id));
    let decimals = reader.required(place, &fields, "decimals");
    let decimals = decimals.and_then(|v| {
        let number = reader.number(&join(place, "decimals"), v)?;
        let fits = u8::try_from(number).ok();
        if fits.is_none() {
            reader.add(&join(place, "decimals"), form(&number.to_string(), "at most 36"));
        }
        fits
    });
    let token = reader.optional(place, &fields, "token", account);
    let native = flag(reader, place, &fields, "native");
    if native == fields.contains_key("token") {
        let problem = form(place, "either a token with its contract, or `native = true`");
        reader.add(place, problem);
        return None;
    }
    let domain = match fields.get("domain") {
        None => None,
        Some(value) => {
            let place = join(place, "domain");
            let fields = reader.table(&place, value, &["name", "version"])?;
            let name = reader.required(&place, &fields, "name");
            let version = reader.required(&place, &fields, "version");
            let name = name.and_then(|v| reader.string(&join(&place, "name"), v));
            let version = version.and_then(|v| reader.string(&join(&place, "version"), v));
            Some(PinnedDomain { name: name?.to_owned(), version: version?.to_owned() })
        }
    };
    if !native && token.is_none() {
        return None;
    }
    Some(Asset { chain: chain?, token, decimals: decimals?, domain })
}

pub(crate) fn chain_id(text: &str) -> Result<ChainId, Problem> {
    let chain = ChainId::new(text).map_err(Problem::Id)?;
    if chain.as_eip155().is_none() {
        return Err(form(text, "an EVM chain such as `eip155:8453`"));
    }
    Ok(chain)
}

pub(crate) fn account(text: &str) -> Result<Payee, Problem> {
    EvmAddress::parse(text).map(Payee).ok_or_else(|| {
        form(text, "an account: `0x` and 40 hex digits, in one case or with a correct checksum")
    })
}

fn principal(reader: &mut Reader, doc: &mut PolicyDoc, index: usize, value: Value<'_>) {
    let at = format!("principal[{index}]");
    let Some(fields) = reader.table(&at, value, &["id", "credentials"]) else { return };
    let Some((id, place)) =
        identified(reader, "principal", index, value, &fields, PrincipalId::new)
    else {
        return;
    };
    let mut keys = BTreeSet::new();
    if let Some(value) = reader.required(&place, &fields, "credentials") {
        let place = join(&place, "credentials");
        for (i, value) in reader.array(&place, value).into_iter().enumerate() {
            let place = format!("{place}[{i}]");
            if let Some(key) = credential(reader, &place, value)
                && !keys.insert(key.clone())
            {
                let name = format!("{key:?}");
                reader.add(&place, Problem::Repeated { what: "credential", name });
            }
        }
    }
    if doc.principals.insert(id.clone(), keys).is_some() {
        reader.add(&place, Problem::Repeated { what: "principal", name: id.to_string() });
    }
}

fn credential(reader: &mut Reader, place: &str, value: Value<'_>) -> Option<PublicKey> {
    let fields = reader.table(place, value, &["alg", "public_key"])?;
    let alg = reader.required(place, &fields, "alg");
    let alg = alg.and_then(|v| {
        reader.parse(&join(place, "alg"), v, |text| {
            Algorithm::from_name(text)
                .ok_or_else(|| form(text, "an algorithm: p256, ed25519 or webauthn-p256"))
        })
    });
    let key = reader.required(place, &fields, "public_key")?;
    let alg = alg?;
    reader.parse(&join(place, "public_key"), key, |text| {
        PublicKey::from_hex(alg, text).map_err(Problem::Key)
    })
}

fn lists(reader: &mut Reader, doc: &mut PolicyDoc, value: Value<'_>) {
    let Some(kinds) = reader.table("list", value, &["payees", "approvers"]) else { return };
    if let Some(value) = kinds.get("payees") {
        for (name, value) in reader.entries("list.payees", value) {
            let place = format!("list.payees[{name}]");
            let Some(id) = named(reader, &place, name, ListId::new) else { continue };
            let mut chains = BTreeMap::new();
            for (chain, value) in reader.entries(&place, value) {
                let place = format!("{place}[{chain}]");
                reader.note(&place, value);
                match chain_id(chain) {
                    Ok(chain) => chains.insert(chain, accounts(reader, &place, value)),
                    Err(problem) => {
                        reader.add(&place, problem);
                        None
                    }
                };
            }
            doc.payees.insert(id, chains);
        }
    }
    if let Some(value) = kinds.get("approvers") {
        for (name, value) in reader.entries("list.approvers", value) {
            let place = format!("list.approvers[{name}]");
            let Some(id) = named(reader, &place, name, ListId::new) else { continue };
            let members = approvers(reader, &place, value).unwrap_or_default();
            doc.approvers.insert(id, members);
        }
    }
}

fn accounts(reader: &mut Reader, place: &str, value: Value<'_>) -> BTreeSet<Payee> {
    let mut set = BTreeSet::new();
    for (i, value) in reader.array(place, value).into_iter().enumerate() {
        let place = format!("{place}[{i}]");
        let line = value;
        if let Some(payee) = reader.parse(&place, value, account)
            && !set.insert(payee)
        {
            reader.note(&place, line);
            reader.add(&place, Problem::Repeated { what: "account", name: payee.0.to_string() });
        }
    }
    set
}

fn approvers(reader: &mut Reader, place: &str, value: Value<'_>) -> Option<BTreeSet<PrincipalId>> {
    let fields = reader.table(place, value, &["members"])?;
    let value = reader.required(place, &fields, "members")?;
    let place = join(place, "members");
    let values = reader.array(&place, value);
    Some(unique(reader, &place, "member", values, |text| {
        PrincipalId::new(text).map_err(Problem::Id)
    }))
}

/// A set of what strings stand for; one that is there twice is a mistake.
pub(crate) fn unique<T: Ord + Clone + core::fmt::Debug>(
    reader: &mut Reader,
    place: &str,
    what: &'static str,
    values: Vec<Value<'_>>,
    parse: impl Fn(&str) -> Result<T, Problem>,
) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    for value in values {
        if let Some(parsed) = reader.parse(place, value, &parse)
            && !set.insert(parsed.clone())
        {
            let name = reader.string(place, value).unwrap_or_default().chars().take(80).collect();
            reader.add(place, Problem::Repeated { what, name });
        }
    }
    set
}

pub(crate) fn principal_pattern(text: &str) -> Result<PrincipalPattern, Problem> {
    PrincipalPattern::parse(text)
        .ok_or_else(|| form(text, "a principal, or a prefix such as `operator:*`"))
}

pub(crate) fn actions(reader: &mut Reader, place: &str, value: Value<'_>) -> Actions {
    let values = reader.one_or_many(value);
    Actions(unique(reader, place, "action", values, |text| {
        Action::from_name(text).ok_or_else(|| {
            let known: Vec<_> = Action::ALL.iter().map(|a| a.name()).collect();
            let name = format!("{}`; there are: `{}", clip(text), known.join(", "));
            Problem::Unknown { what: "action", name }
        })
    }))
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

pub(crate) fn asset_ids(reader: &mut Reader, place: &str, value: Value<'_>) -> BTreeSet<AssetId> {
    let values = reader.one_or_many(value);
    unique(reader, place, "asset", values, |text| AssetId::new(text).map_err(Problem::Id))
}

/// Payees: accounts, lists (`@payees.x402`), or `*` alone for anybody.
pub(crate) fn payees(reader: &mut Reader, place: &str, value: Value<'_>) -> Option<Payees> {
    if value.get_ref().as_str() == Some("*") {
        return Some(Payees::Anybody);
    }
    let (mut accounts, mut lists) = (BTreeSet::new(), BTreeSet::new());
    for value in reader.one_or_many(value) {
        let text = reader.string(place, value)?;
        let fresh = if let Some(list) = text.strip_prefix("@payees.") {
            let list = named(reader, place, list, ListId::new)?;
            lists.insert(list)
        } else if text.starts_with('@') {
            reader.add(place, form(text, "a list of payees, such as `@payees.x402`"));
            continue;
        } else if text == "*" {
            reader.add(place, form(text, "an account or a list: `to = \"*\"` stands alone"));
            continue;
        } else {
            let Some(payee) = reader.parse(place, value, account) else { continue };
            accounts.insert(payee)
        };
        if !fresh {
            reader.add(place, Problem::Repeated { what: "payee", name: clip(text) });
        }
    }
    Some(Payees::Only { accounts, lists })
}

fn deny(reader: &mut Reader, doc: &mut PolicyDoc, index: usize, value: Value<'_>) {
    let at = format!("deny[{index}]");
    let known = &["id", "key", "principal", "to", "action", "asset"];
    let Some(fields) = reader.table(&at, value, known) else { return };
    let Some((id, place)) = identified(reader, "deny", index, value, &fields, GrantId::new) else {
        return;
    };
    let mut rule = DenyRule::default();
    if let Some(value) = fields.get("key") {
        let place = join(&place, "key");
        let values = reader.one_or_many(value);
        rule.keys =
            unique(reader, &place, "key", values, |text| KeyName::new(text).map_err(Problem::Id));
    }
    if let Some(value) = fields.get("principal") {
        let place = join(&place, "principal");
        let values = reader.one_or_many(value);
        rule.principals = unique(reader, &place, "principal", values, principal_pattern);
    }
    if let Some(value) = fields.get("action") {
        rule.actions = actions(reader, &join(&place, "action"), value);
    }
    if let Some(value) = fields.get("asset") {
        rule.assets = asset_ids(reader, &join(&place, "asset"), value);
    }
    if let Some(value) = fields.get("to") {
        rule.to = payees(reader, &join(&place, "to"), value);
    }
    // a field that is there and empty would widen the rule to everything
    for (name, value) in &fields {
        if value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
            reader.add(&join(&place, name), Problem::Rule(crate::error::Rule::Empty));
        }
    }
    if doc.deny.insert(id.clone(), rule).is_some() {
        reader.add(&place, Problem::Repeated { what: "deny rule", name: id.to_string() });
    }
}
