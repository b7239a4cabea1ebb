//! Limits over windows: checked against the book, with what is left and when more will be.

use casemate_proto::{
    Amount, Denial, DenialCode, DerivationPath, GrantId, KeyName, Millis, PrincipalId, UnixMillis,
    denial::LimitRef,
};

use crate::{
    book::{ChargeBook, Scope, Total, to_total},
    charge::{Charge, ChargeKind, Slack},
    decision::Counter,
    evaluate::{Refused, human, refuse},
    model::{AssetKey, Cap, Grant, Per},
    policy::Policy,
};

/// What limits are checked against.
pub(crate) struct Against<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) book: &'a ChargeBook,
    pub(crate) key: &'a KeyName,
    pub(crate) path: &'a DerivationPath,
    pub(crate) principal: &'a PrincipalId,
    pub(crate) amount: Amount,
    pub(crate) now: UnixMillis,
    pub(crate) slack: Slack,
    pub(crate) id: &'a GrantId,
    pub(crate) grant: &'a Grant,
}

/// One limit, whatever it caps.
struct Line<'a> {
    limit: LimitRef,
    window: Millis,
    per: Per,
    shared: Option<casemate_proto::ListId>,
    kind: ChargeKind,
    asset: Option<&'a AssetKey>,
    /// What is asked, in the limit's own unit.
    asked: Amount,
    max: Amount,
    counts: bool,
    pairs: &'a [(KeyName, Option<AssetKey>)],
}

/// Every limit of the grant holds with what is asked; their counters, before and after.
pub(crate) fn check(
    against: &Against<'_>,
    asset: Option<&AssetKey>,
    fee: Option<&(AssetKey, Amount)>,
) -> Result<Vec<Counter>, Refused> {
    let own = [(against.key.clone(), asset.cloned())];
    let native = [(against.key.clone(), fee.map(|(native, _)| native.clone()))];
    let lines = lines(against, asset, fee, &own, &native);
    let mut counters = Vec::with_capacity(lines.len());
    let mut failed = None;
    // what fails in several limits fits again when it fits in all of them
    let mut fits_at = Some(against.now);
    for line in &lines {
        let window = against.slack.lengthen(line.window);
        let known_from = against.book.known_from(window);
        if against.now < known_from {
            // what was charged in it is not known, so that nothing is left of it
            let when = fits_again(against, line, window);
            fits_at = fits_at.and_then(|at| when.map(|when| at.max(when).max(known_from)));
            failed.get_or_insert((line, Amount::ZERO));
            continue;
        }
        let used = against.book.used(&scope(against, line), window, against.now);
        let before = if line.counts { Some(Amount::from(used.count)) } else { used.sum };
        let after = before.and_then(|before| before.checked_add(line.asked));
        match (before, after) {
            (Some(before), Some(after)) if after <= line.max => counters.push(Counter {
                limit: line.limit.clone(),
                per: line.per,
                shared: line.shared.clone(),
                asset: line.asset.cloned(),
                before,
                after,
            }),
            _ => {
                let when = fits_again(against, line, window);
                fits_at = fits_at.and_then(|at| when.map(|when| at.max(when)));
                let left = before.map_or(Amount::ZERO, |used| line.max.saturating_sub(used));
                failed.get_or_insert((line, left));
            }
        }
    }
    let Some((line, left)) = failed else { return Ok(counters) };
    let mut denial = over(against, line, left);
    denial.resets_at = fits_at.and_then(|at| next_opening(against.policy, against.grant, at));
    Err(Box::new(denial))
}

/// Whether what was allowed and charged once is within every limit of the grant that allowed it,
/// as the policy has that grant now, beside what *another* book holds. All charges are one
/// signature's.
///
/// # Errors
/// The denial, if a limit would be exceeded, or if the policy has expired or has no such grant.
pub fn within_limits(
    policy: &Policy,
    id: &GrantId,
    charges: &[Charge],
    book: &ChargeBook,
    now: UnixMillis,
    slack: Slack,
) -> Result<(), Denial> {
    let grant = policy.doc().grants.get(id);
    let grant = grant.filter(|_| !policy.has_expired(now));
    let of = |kind| charges.iter().find(|charge: &&Charge| charge.kind == kind);
    let (Some(grant), Some(main)) = (grant, of(ChargeKind::Amount)) else {
        let detail = format_args!("grant `{id}` is not in force any more");
        return Err(*refuse(DenialCode::GrantExpired, detail));
    };
    if now < book.latest() || slack > book.slack() {
        let detail = format_args!("the book of charges is at {}, later than {now}", book.latest());
        return Err(*refuse(DenialCode::Malformed, detail));
    }
    let fee = of(ChargeKind::Fee).and_then(|fee| Some((fee.asset.clone()?, fee.amount)));
    let against = Against {
        policy,
        book,
        key: &main.key,
        path: &main.path,
        principal: &main.principal,
        amount: main.amount,
        now,
        slack,
        id,
        grant,
    };
    check(&against, main.asset.as_ref(), fee.as_ref()).map(drop).map_err(|denial| *denial)
}

fn lines<'a>(
    against: &'a Against<'_>,
    asset: Option<&'a AssetKey>,
    fee: Option<&'a (AssetKey, Amount)>,
    own: &'a [(KeyName, Option<AssetKey>)],
    native: &'a [(KeyName, Option<AssetKey>)],
) -> Vec<Line<'a>> {
    let amount = against.amount;
    let mut lines: Vec<Line<'a>> = Vec::new();
    for limit in &against.grant.limits {
        let window = limit.window;
        let (what, asked, max, counts) = match limit.cap {
            Cap::Sum(max) => (LimitRef::Sum { max, window }, amount, max, false),
            Cap::Count(max) => {
                (LimitRef::Count { max, window }, Amount::from(1), Amount::from(max), true)
            }
        };
        lines.push(Line {
            limit: what,
            window,
            per: limit.per,
            shared: limit.shared.clone(),
            kind: ChargeKind::Amount,
            asset,
            asked,
            max,
            counts,
            pairs: against.policy.counted(limit, own),
        });
    }
    let Some((key, fee)) = fee else { return lines };
    let limits = against
        .policy
        .asset(key)
        .and_then(|(id, _)| against.grant.fee_limits.get(id))
        .into_iter()
        .flatten();
    for limit in limits {
        let (max, window) = (limit.sum, limit.window);
        lines.push(Line {
            limit: LimitRef::FeeSum { max, window },
            window,
            per: limit.per,
            shared: None,
            kind: ChargeKind::Fee,
            asset: Some(key),
            asked: *fee,
            max,
            counts: false,
            pairs: native,
        });
    }
    lines
}

fn scope<'a>(against: &'a Against<'_>, line: &'a Line<'_>) -> Scope<'a> {
    Scope {
        kind: line.kind,
        per: line.per,
        key: against.key,
        path: against.path,
        principal: against.principal,
        pairs: line.pairs,
    }
}

fn fits_again(against: &Against<'_>, line: &Line<'_>, window: Millis) -> Option<UnixMillis> {
    let room = to_total(line.max.checked_sub(line.asked)?);
    let fits = |count: u64, sum: Total| {
        if line.counts { Total::from(count) <= room } else { sum <= room }
    };
    against.book.when_fits(&scope(against, line), window, against.now, fits)
}

/// The earliest time from `at` on at which the grant is open: within its hours, before it or its
/// policy expires.
pub(crate) fn next_opening(policy: &Policy, grant: &Grant, at: UnixMillis) -> Option<UnixMillis> {
    let open = grant.hours.map_or(Some(at), |hours| hours.next(at))?;
    let ends = [grant.expires, policy.doc().expires].into_iter().flatten();
    ends.into_iter().all(|end| open < end).then_some(open)
}

fn over(against: &Against<'_>, line: &Line<'_>, left: Amount) -> Denial {
    let window = line.window;
    let of = match (line.per, &line.shared) {
        (per, Some(name)) => format!("shared limit `{name}`, per {}", per.name()),
        (per, None) => format!("per {}", per.name()),
    };
    let detail = if line.counts {
        format!("more than {} signatures in {window}, {of}", line.max)
    } else {
        let show = |amount| human(against.policy, line.asset, amount);
        let what = if line.kind == ChargeKind::Fee { "fees of up to " } else { "" };
        let (asked, rest, max) = (show(line.asked), show(left), show(line.max));
        format!("{what}{asked} is more than the {rest} left of {max} in {window}, {of}")
    };
    let mut denial = refuse(DenialCode::LimitExceeded, detail).by(against.id);
    denial.limit = Some(line.limit.clone());
    denial.remaining = Some(left);
    denial
}
