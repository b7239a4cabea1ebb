//! The evaluator: (policy, charges, ask, now) to verdict, pure and deterministic.
//!
//! Nothing is allowed but by exactly one grant (invariant I2). The order is fixed, so that every
//! node gives the same code: the policy's expiry, the credential, deny rules, the payload's own
//! consistency, selection (with the pinned domain, the payer, the payee), the grant's times and
//! hours and the authorization's validity, the cap on one transaction, fees, limits, tiers. Any
//! error, overflow or ambiguity denies.

use casemate_proto::{Amount, Denial, DenialCode, GrantId, KeyName, UnixMillis, denial::LimitRef};
use casemate_tx::{Action, AssetRef, EvmAddress, Intent};

use crate::{
    actions::{Class, Form, class, form, has_validity, is_dangerous, needs_domain},
    approve,
    book::ChargeBook,
    charge::{Charge, ChargeKind, Slack},
    decision::{Allowance, Ask, Decision},
    limits::{self, Against},
    model::{AssetKey, DenyRule, Grant, PolicyDoc},
    policy::Policy,
};

pub(crate) type Refused = Box<Denial>;

pub(crate) fn refuse(code: DenialCode, detail: impl core::fmt::Display) -> Refused {
    Box::new(Denial::new(code, detail))
}

/// Decides on a request at ledger time `now`, its windows lengthened by `slack`.
///
/// An [`Decision::Allow`] is worth something only once its charges are recorded in the same book,
/// at the same `now`, before anything else is evaluated.
#[must_use]
pub fn evaluate(
    policy: &Policy,
    charges: &ChargeBook,
    ask: &Ask<'_>,
    now: UnixMillis,
    slack: Slack,
) -> Decision {
    decide(policy, charges, ask, now, slack).unwrap_or_else(|denial| Decision::Deny(*denial))
}

fn decide(
    policy: &Policy,
    book: &ChargeBook,
    ask: &Ask<'_>,
    now: UnixMillis,
    slack: Slack,
) -> Result<Decision, Refused> {
    if policy.has_expired(now) {
        let at = policy.doc().expires.unwrap_or_default();
        return Err(refuse(DenialCode::PolicyExpired, format_args!("the policy expired at {at}")));
    }
    if now < book.latest() || slack > book.slack() {
        // what the book has let go of could be within such a window
        let detail = format_args!("the book of charges is at {}, later than {now}", book.latest());
        return Err(refuse(DenialCode::Malformed, detail));
    }
    speaks(policy, ask)?;
    let asset = asset_key(ask.intent);
    for (id, rule) in &policy.doc().deny {
        if denies(policy, rule, ask, asset.as_ref()) {
            let detail = format_args!("deny rule `{id}` matches");
            return Err(refuse(DenialCode::DenyRule, detail));
        }
    }
    well_formed(ask.intent)?;
    let (id, grant) = select(policy, ask, asset.as_ref())?;
    in_force(policy, id, grant, ask.intent, now)?;
    per_tx(policy, id, grant, ask.intent, asset.as_ref())?;
    let fee = fee(policy, id, grant, ask.intent)?;
    let against = Against {
        policy,
        book,
        key: ask.key,
        path: ask.path,
        principal: ask.principal,
        amount: ask.intent.amount,
        now,
        slack,
        id,
        grant,
    };
    let counters = limits::check(&against, asset.as_ref(), fee.as_ref())?;
    let tier = match approve::check(policy, id, grant, ask, now)? {
        approve::Outcome::Enough(tier) => tier,
        approve::Outcome::Missing(requirement) => return Ok(Decision::Pending(requirement)),
    };
    let charges = charges(ask, asset, fee, now);
    if !book.has_room(charges.len(), now) {
        let detail = "the book of charges is full until old charges leave it";
        return Err(Box::new(refuse(DenialCode::TableFull, detail).by(id)));
    }
    Ok(Decision::Allow(Allowance::new(id.clone(), tier, charges, counters)))
}

/// The grant under which something would be decided, if it is: its times, hours, limits and tiers
/// aside.
pub(crate) fn selected<'a>(policy: &'a Policy, ask: &Ask<'_>) -> Option<&'a GrantId> {
    let asset = asset_key(ask.intent);
    let denied = policy.doc().deny.values().any(|rule| denies(policy, rule, ask, asset.as_ref()));
    if denied || speaks(policy, ask).is_err() || well_formed(ask.intent).is_err() {
        return None;
    }
    select(policy, ask, asset.as_ref()).ok().map(|(id, _)| id)
}

/// What charges of an intent are kept under. What acts on a chain without an amount is kept under
/// the chain's native asset; what names no chain, under nothing.
pub(crate) fn asset_key(intent: &Intent) -> Option<AssetKey> {
    let chain = intent.chain.clone()?;
    let token = match (class(intent.action), intent.asset) {
        (Class::OffChain, _) => return None,
        (Class::Opaque, _) | (Class::Valued, Some(AssetRef::Native)) => None,
        (Class::Valued, Some(AssetRef::Token(token))) => Some(token),
        (Class::Valued, None) => return None,
    };
    Some(AssetKey { chain, token })
}

fn charges(
    ask: &Ask<'_>,
    asset: Option<AssetKey>,
    fee: Option<(AssetKey, Amount)>,
    now: UnixMillis,
) -> Vec<Charge> {
    let charge = |asset, kind, amount| Charge {
        at: now,
        key: ask.key.clone(),
        path: ask.path.clone(),
        principal: ask.principal.clone(),
        asset,
        kind,
        amount,
    };
    let mut out = vec![charge(asset, ChargeKind::Amount, ask.intent.amount)];
    if let Some((native, fee)) = fee {
        out.push(charge(Some(native), ChargeKind::Fee, fee));
    }
    out
}

/// The credential speaks for the principal, and is one that may ask.
fn speaks(policy: &Policy, ask: &Ask<'_>) -> Result<(), Refused> {
    let unknown = |why: &str| {
        let detail = format_args!("credential `{}` {why}", ask.credential);
        Err(refuse(DenialCode::UnknownCredential, detail))
    };
    match policy.credential(ask.credential) {
        None => unknown("is not registered"),
        Some((principal, _)) if principal != ask.principal => {
            unknown("speaks for another principal")
        }
        Some((_, key)) if key.algorithm() == casemate_proto::Algorithm::WebauthnP256 => {
            unknown("is a passkey, which signs approvals only")
        }
        Some(_) => Ok(()),
    }
}

fn denies(policy: &Policy, rule: &DenyRule, ask: &Ask<'_>, asset: Option<&AssetKey>) -> bool {
    let intent = ask.intent;
    let named = asset.and_then(|key| policy.asset(key)).map(|(id, _)| id);
    // a transaction spends the native asset in fees, so a rule about that asset is about it too
    let native = intent
        .max_fee
        .and(intent.chain.as_ref())
        .and_then(|chain| policy.native(chain))
        .map(|(id, _)| id);
    let about_asset = rule.assets.is_empty()
        || [named, native].into_iter().flatten().any(|id| rule.assets.contains(id));
    let about_payee = rule.to.as_ref().is_none_or(|payees| {
        intent.to.is_some_and(|to| policy.pays(payees, intent.chain.as_ref(), to))
    });
    (rule.keys.is_empty() || rule.keys.contains(ask.key))
        && (rule.principals.is_empty() || rule.principals.iter().any(|p| p.matches(ask.principal)))
        && (rule.actions.0.is_empty() || rule.actions.0.contains(&intent.action))
        && about_asset
        && about_payee
}

/// An intent that its decoder could not have made denies, whoever made it.
fn well_formed(intent: &Intent) -> Result<(), Refused> {
    let malformed = |detail: &str| Err(refuse(DenialCode::Malformed, detail));
    let class = class(intent.action);
    if class == Class::Valued && (intent.asset.is_none() || intent.chain.is_none()) {
        return malformed("the payload moves an amount of nothing");
    }
    if class != Class::Valued && !intent.amount.is_zero() {
        return malformed("the payload moves an amount that its kind cannot have");
    }
    if !intent.native_value.is_zero() {
        let detail = format_args!(
            "`{}` sends {} of the native asset along, which is counted by no limit",
            intent.action.name(),
            intent.native_value
        );
        return Err(refuse(DenialCode::ActionNotAllowed, detail));
    }
    match (form(intent.action), intent.max_fee) {
        (Form::Transaction, None) => malformed("the transaction states no fee"),
        (Form::Signature, Some(_)) => malformed("a payload that is no transaction states a fee"),
        _ => Ok(()),
    }
}

/// The one grant that allows this key, path, principal, action, asset and payee.
fn select<'a>(
    policy: &'a Policy,
    ask: &Ask<'_>,
    asset: Option<&AssetKey>,
) -> Result<(&'a GrantId, &'a Grant), Refused> {
    let intent = ask.intent;
    let doc = policy.doc();
    let asking = policy.grants_for(ask.key, ask.principal);
    let acting: Vec<_> =
        asking.into_iter().filter(|(_, g)| g.allow.0.contains(&intent.action)).collect();
    if acting.is_empty() {
        return Err(no_action(ask));
    }
    let of_asset: Vec<_> =
        acting.into_iter().filter(|(_, g)| covers_asset(doc, g, intent, asset)).collect();
    if of_asset.is_empty() {
        return Err(no_asset(policy, ask.key, intent, asset));
    }
    let but_payee: Vec<_> = of_asset.iter().filter(|(_, g)| g.covers_path(ask.path)).collect();
    if but_payee.is_empty() {
        let detail = format_args!("no grant that fits otherwise covers path `{}`", ask.path);
        let denial = refuse(DenialCode::BadPath, detail);
        return Err(only(&of_asset).map_or(denial.clone(), |id| Box::new(denial.by(id))));
    }
    // neither depends on the grant, but only a grant makes them matter
    let one = if let [(id, _)] = but_payee.as_slice() { Some(*id) } else { None };
    domain_and_payer(policy, ask, asset).map_err(|denial| name(denial, one))?;
    let matching: Vec<_> = but_payee
        .iter()
        .filter(|(_, g)| match (&g.to, intent.to) {
            (None, None) => true,
            (Some(payees), Some(to)) => policy.pays(payees, intent.chain.as_ref(), to),
            _ => false,
        })
        .collect();
    match matching.as_slice() {
        [(id, grant)] => Ok((*id, *grant)),
        [] => Err(name(no_payee(intent.to), one)),
        [(first, _), (second, _), ..] => {
            let detail = format_args!("grants `{first}` and `{second}` both match");
            Err(refuse(DenialCode::AmbiguousGrant, detail))
        }
    }
}

fn only<'a>(grants: &[(&'a GrantId, &Grant)]) -> Option<&'a GrantId> {
    if let [(id, _)] = grants { Some(*id) } else { None }
}

fn name(denial: Refused, grant: Option<&GrantId>) -> Refused {
    match grant {
        Some(id) => Box::new(denial.by(id)),
        None => denial,
    }
}

fn covers_asset(doc: &PolicyDoc, grant: &Grant, intent: &Intent, asset: Option<&AssetKey>) -> bool {
    if class(intent.action) == Class::OffChain {
        return grant.assets.is_empty();
    }
    let Some(asset) = asset else { return false };
    let is =
        |a: &crate::model::Asset| a.chain == asset.chain && a.token.map(|t| t.0) == asset.token;
    grant.assets.iter().filter_map(|id| doc.assets.get(id)).any(is)
}

fn no_action(ask: &Ask<'_>) -> Refused {
    let action = ask.intent.action;
    let detail = format_args!(
        "no grant lets `{}` do `{}` with key `{}`",
        ask.principal,
        action.name(),
        ask.key
    );
    let code = match action {
        Action::RawHash => DenialCode::RawHash,
        _ if is_dangerous(action) => DenialCode::ActionNotAllowed,
        _ => DenialCode::NoGrant,
    };
    refuse(code, detail)
}

fn no_asset(policy: &Policy, key: &KeyName, intent: &Intent, asset: Option<&AssetKey>) -> Refused {
    match asset {
        Some(asset) if policy.asset(asset).is_none() => {
            refuse(DenialCode::UnknownAsset, format_args!("`{asset}` is not in the registry"))
        }
        Some(asset) => {
            let action = intent.action.name();
            let detail = format_args!("no grant allows `{action}` of `{asset}` with key `{key}`");
            refuse(DenialCode::NoGrant, detail)
        }
        None => refuse(DenialCode::UnknownAsset, "the payload names no chain"),
    }
}

fn no_payee(to: Option<EvmAddress>) -> Refused {
    match to {
        Some(to) => refuse(DenialCode::PayeeNotListed, format_args!("`{to}` is not listed")),
        None => refuse(DenialCode::PayeeNotListed, "the payload names no payee"),
    }
}

/// Typed data of a token is in the domain that the registry pins, and what is moved is the
/// signer's own, but for `transferFrom`, whose payer is by its nature another: it counts all the
/// same.
fn domain_and_payer(
    policy: &Policy,
    ask: &Ask<'_>,
    asset: Option<&AssetKey>,
) -> Result<(), Refused> {
    let intent = ask.intent;
    let typed = intent.max_fee.is_none();
    if typed && needs_domain(intent.action) {
        let pinned = asset.and_then(|key| policy.asset(key)).and_then(|(_, a)| a.domain.as_ref());
        let (Some(pinned), Some(domain)) = (pinned, &intent.domain) else {
            return Err(refuse(
                DenialCode::DomainMismatch,
                "the domain is not stated or not pinned",
            ));
        };
        if pinned.name != domain.name || pinned.version != domain.version {
            let detail = format_args!(
                "domain `{}` version `{}` is not the pinned `{}` version `{}`",
                domain.name, domain.version, pinned.name, pinned.version
            );
            return Err(refuse(DenialCode::DomainMismatch, detail));
        }
    }
    let anothers = matches!(intent.action, Action::Erc20TransferFrom)
        || (intent.action == Action::Erc20Permit && !typed);
    let must_name = matches!(intent.action, Action::Eip3009Transfer | Action::Erc20Permit);
    match (intent.payer, ask.signer) {
        _ if anothers => Ok(()),
        (Some(payer), Some(signer)) if payer == signer => Ok(()),
        (None, _) if !must_name => Ok(()),
        (Some(payer), _) => {
            let detail = format_args!("the payer `{payer}` is not this key's address");
            Err(refuse(DenialCode::WrongPayer, detail))
        }
        (None, _) => Err(refuse(DenialCode::WrongPayer, "the payload names no payer")),
    }
}

/// The grant's term, the authorization's validity, the hours.
fn in_force(
    policy: &Policy,
    id: &GrantId,
    grant: &Grant,
    intent: &Intent,
    now: UnixMillis,
) -> Result<(), Refused> {
    let by = |code, detail: core::fmt::Arguments<'_>| Box::new(refuse(code, detail).by(id));
    if let Some(from) = grant.not_before.filter(|from| *from > now) {
        let mut denial = by(DenialCode::GrantExpired, format_args!("in force from {from}"));
        denial.resets_at = limits::next_opening(policy, grant, from);
        return Err(denial);
    }
    if let Some(to) = grant.expires.filter(|to| *to <= now) {
        return Err(by(DenialCode::GrantExpired, format_args!("expired at {to}")));
    }
    valid(grant, intent, now).map_err(|denial| Box::new(denial.by(id)))?;
    if let Some(hours) = grant.hours.filter(|hours| !hours.contains(now)) {
        let mut denial = by(DenialCode::OutsideHours, format_args!("{now} is not in {hours} UTC"));
        denial.resets_at = limits::next_opening(policy, grant, now);
        return Err(denial);
    }
    Ok(())
}

/// How long an authorization can still be used is measured from now to its `validBefore`, and not
/// from its `validAfter`: x402 clients set that ten minutes into the past, others to zero, and a
/// time gone by adds nothing to what an attacker can do.
fn valid(grant: &Grant, intent: &Intent, now: UnixMillis) -> Result<(), Refused> {
    let Some(validity) = intent.validity else {
        if intent.action == Action::Eip3009Transfer {
            return Err(refuse(DenialCode::Malformed, "the authorization states no validity"));
        }
        if intent.action == Action::Erc20Permit
            && intent.max_fee.is_none()
            && grant.valid_for_max.is_some()
        {
            return Err(refuse(DenialCode::ValidityTooLong, "the permit states no deadline"));
        }
        return Ok(());
    };
    if !has_validity(intent.action) {
        return Err(refuse(DenialCode::Malformed, "this kind of payload has no validity"));
    }
    if validity.before <= now {
        let detail = format_args!("the authorization was valid before {}", validity.before);
        return Err(refuse(DenialCode::Expired, detail));
    }
    if validity.after >= validity.before {
        let detail = format_args!(
            "the authorization is valid after {} but only before {}",
            validity.after, validity.before
        );
        return Err(refuse(DenialCode::ValidityTooLong, detail));
    }
    let length = validity.before.since(now);
    match grant.valid_for_max {
        Some(max) if length > max => {
            let detail = format_args!("valid for another {length} where at most {max} is allowed");
            Err(refuse(DenialCode::ValidityTooLong, detail))
        }
        _ => Ok(()),
    }
}

pub(crate) fn human(policy: &Policy, asset: Option<&AssetKey>, amount: Amount) -> String {
    match asset.and_then(|key| policy.asset(key)) {
        Some((id, asset)) => format!("{} {id}", amount.to_decimal(asset.decimals)),
        None => amount.to_string(),
    }
}

fn per_tx(
    policy: &Policy,
    id: &GrantId,
    grant: &Grant,
    intent: &Intent,
    asset: Option<&AssetKey>,
) -> Result<(), Refused> {
    let Some(max) = grant.max_per_tx.filter(|max| intent.amount > *max) else { return Ok(()) };
    let (asked, cap) = (human(policy, asset, intent.amount), human(policy, asset, max));
    let detail = format_args!("{asked} is more than {cap}, the most for one signature");
    let mut denial = refuse(DenialCode::OverPerTxCap, detail).by(id);
    denial.limit = Some(LimitRef::PerTx { max });
    denial.remaining = Some(max);
    Err(Box::new(denial))
}

/// The fee to charge, in the native asset of the payload's chain.
fn fee(
    policy: &Policy,
    id: &GrantId,
    grant: &Grant,
    intent: &Intent,
) -> Result<Option<(AssetKey, Amount)>, Refused> {
    let Some(fee) = intent.max_fee else { return Ok(None) };
    let uncapped = || {
        let detail = "the grant caps no fee on this chain";
        Box::new(refuse(DenialCode::FeeTooHigh, detail).by(id))
    };
    let chain = intent.chain.as_ref().ok_or_else(uncapped)?;
    let (native, asset) = policy.native(chain).ok_or_else(uncapped)?;
    let max = *grant.max_fee_per_tx.get(native).ok_or_else(uncapped)?;
    if fee > max {
        let (asked, cap) = (fee.to_decimal(asset.decimals), max.to_decimal(asset.decimals));
        let detail = format_args!("a fee of up to {asked} {native} is more than {cap}");
        let mut denial = refuse(DenialCode::FeeTooHigh, detail).by(id);
        denial.limit = Some(LimitRef::Fee { max });
        denial.remaining = Some(max);
        return Err(Box::new(denial));
    }
    Ok(Some((asset.key(), fee)))
}
