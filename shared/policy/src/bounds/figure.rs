//! From what several grants hold to the most that all of them let through together.

use casemate_proto::{Amount, Millis};

use crate::bounds::{
    cover::{Constraint, Covered, cover},
    reach::{Held, Reach},
};

/// The most in an interval, and which grants reach it alone.
#[derive(Clone, Debug)]
pub(crate) struct Figure<'r, 'a> {
    /// `None`: not bounded.
    pub(crate) amount: Option<Amount>,
    pub(crate) reached_by: Vec<&'r Reach<'a>>,
}

/// The shorter of an interval and a life; `None`: for ever.
fn shorter(length: Option<Millis>, life: Option<Millis>) -> Option<Millis> {
    [length, life].into_iter().flatten().min()
}

/// What one grant lets through in an interval.
pub(crate) fn single(reach: &Reach<'_>, length: Option<Millis>) -> Covered {
    if reach.most.is_some_and(Amount::is_zero) {
        return Covered { amount: Some(Amount::ZERO), exact: true };
    }
    let Some(length) = shorter(length, reach.life) else {
        return Covered { amount: None, exact: true };
    };
    let constraints: Vec<_> = reach.held.iter().filter_map(Held::constraint).collect();
    cover(&constraints, length)
}

impl Held {
    fn constraint(&self) -> Option<Constraint> {
        self.amount.map(|amount| Constraint { window: self.window, amount })
    }
}

/// What grants on one key and asset let through together.
pub(crate) fn together<'r, 'a>(reaches: &'r [Reach<'a>], length: Option<Millis>) -> Figure<'r, 'a> {
    let singles: Vec<Covered> = reaches.iter().map(|r| single(r, length)).collect();
    let sum = singles.iter().try_fold(Amount::ZERO, |sum, s| sum.checked_add(s.amount?));
    let amount = [sum, union(reaches, length)].into_iter().flatten().min();
    let reached_by = reaches
        .iter()
        .zip(&singles)
        .filter(|(reach, single)| {
            amount.is_some() && single.amount == amount && reached(reach, single, length)
        })
        .map(|(reach, _)| reach)
        .collect();
    Figure { amount, reached_by }
}

/// A limit of one grant counts what the others charge, so that it bounds all of them at the
/// moment of its own grant's last charge. Of grants that each have such a limit over a window w or
/// a longer one, all together let through the largest of these limits in any interval w. What
/// other grants let through comes on top.
fn union(reaches: &[Reach<'_>], length: Option<Millis>) -> Option<Amount> {
    let ends = reaches.iter().map(|r| shorter(length, r.ends_in)).collect::<Option<Vec<_>>>();
    let length = ends?.into_iter().max()?;
    let largest = reaches.iter().map(|r| r.most).collect::<Option<Vec<_>>>();
    let largest = largest.and_then(|all| all.into_iter().max());
    let mut windows: Vec<Millis> =
        reaches.iter().flat_map(|r| &r.held).map(|held| held.window).collect();
    windows.sort();
    windows.dedup();
    let constraints: Vec<Constraint> = windows
        .into_iter()
        .filter_map(|window| {
            let amount = within(reaches, window, largest)?;
            Some(Constraint { window, amount })
        })
        .collect();
    cover(&constraints, length).amount
}

/// The most that all of them let through in any interval of one length.
fn within(reaches: &[Reach<'_>], window: Millis, largest: Option<Amount>) -> Option<Amount> {
    let least = |reach: &Reach<'_>, amount: &dyn Fn(&Held) -> Option<Amount>| {
        reach.held.iter().filter(|held| held.window >= window).filter_map(amount).min()
    };
    // for each grant, the least that bounds all of them at its last charge, and the least that
    // bounds itself
    let mut each: Vec<(Option<Amount>, Option<Amount>)> = reaches
        .iter()
        .map(|reach| {
            let all = least(reach, &|held| match (held.counts_all, held.count) {
                (false, _) => None,
                (true, None) => held.amount,
                (true, Some(count)) => largest.and_then(|largest| largest.checked_mul(count)),
            });
            (all, least(reach, &|held| held.amount))
        })
        .collect();
    each.sort_by_key(|(all, _)| (all.is_none(), *all));
    // the first so many bound one another, the rest are added up
    let mut best: Option<Amount> = None;
    for joined in 0..=each.len() {
        let (first, rest) = each.split_at(joined);
        let joint = match first.last() {
            None => Some(Amount::ZERO),
            Some((all, _)) => *all,
        };
        let total = rest.iter().try_fold(joint, |total, (_, own)| {
            Some(total.and_then(|total| total.checked_add((*own)?)))
        });
        if let Some(Some(total)) = total {
            best = Some(best.map_or(total, |best| best.min(total)));
        }
    }
    best
}

/// Whether an attacker who asks under this grant alone, for all that is left at every moment, gets
/// exactly this. What is not certain is not claimed.
fn reached(reach: &Reach<'_>, single: &Covered, length: Option<Millis>) -> bool {
    let Some(target) = single.amount else { return false };
    if target.is_zero() {
        return true;
    }
    if shorter(length, reach.life).is_none_or(|life| life.0 == 0) || !reach.any_amount {
        return false;
    }
    let sums = || reach.held.iter().filter(|held| held.count.is_none());
    let counts = || reach.held.iter().filter_map(|held| held.count);
    // each scope of a limit is one more attacker; scopes of different kinds interfere
    let scopes = reach.held.first().map_or(1, |held| held.scopes);
    if scopes > MOST_SCOPES || reach.held.iter().any(|held| held.scopes != scopes) {
        return false;
    }
    // a book holds so many charges; nobody gets what takes more signatures
    let each = reach.most.filter(|most| !most.is_zero()).unwrap_or(Amount::MAX);
    if target.checked_div(each).is_none_or(|n| n > Amount::from(MOST_SIGNATURES)) {
        return false;
    }
    at_once(reach, target, scopes, sums().filter_map(|s| s.amount).min(), counts().min())
        || (single.exact && reach.grant.hours.is_none() && in_steps(reach, scopes))
}

/// Beyond so many wallets, nobody has tried.
const MOST_SCOPES: u64 = 1_000;

/// What takes more signatures than this is not claimed to be reached.
const MOST_SIGNATURES: u64 = 500_000;

/// All of it in one moment, whatever the hours.
fn at_once(
    reach: &Reach<'_>,
    target: Amount,
    scopes: u64,
    least_sum: Option<Amount>,
    least_count: Option<u64>,
) -> bool {
    if least_sum != Some(target) {
        return false;
    }
    let Some(signatures) = least_count else { return true };
    let Some(one) = target.checked_div(Amount::from(scopes)) else { return false };
    let most = reach.most.unwrap_or(Amount::MAX);
    let needed = one
        .checked_sub(Amount::from(1))
        .and_then(|below| below.checked_div(most))
        .and_then(|full| full.checked_add(Amount::from(1)));
    needed.is_some_and(|needed| needed <= Amount::from(signatures))
}

/// Again and again, as windows free up: with any number of signatures, or with each one full.
fn in_steps(reach: &Reach<'_>, scopes: u64) -> bool {
    if reach.held.iter().all(|held| held.count.is_none()) {
        return true;
    }
    let Some(most) = reach.most.filter(|most| !most.is_zero()) else { return false };
    let full = |held: &Held| {
        let each = held.amount.and_then(|a| a.checked_div(Amount::from(scopes)));
        let times = each.and_then(|each| each.checked_div(most));
        times.and_then(|times| times.checked_mul_amount(most)) == each
    };
    reach.held.iter().filter(|held| held.count.is_none()).all(full)
}
