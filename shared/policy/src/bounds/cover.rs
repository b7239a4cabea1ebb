//! How much fits an interval under several window limits.
//!
//! Let each limit i say that any interval of length Wᵢ holds at most Sᵢ, and F(T) be the most that
//! an interval of length T holds. Then F(T) ≤ minᵢ (Sᵢ + F(T − Wᵢ)) and F(T ≤ 0) = 0: split the
//! interval at Wᵢ before the last charge. Unrolled, that is the cheapest way to cover T with
//! windows: min Σ nᵢSᵢ over whole nᵢ with Σ nᵢWᵢ ≥ T. An attacker who takes, at every moment, all
//! that is left reaches it, if any amount can be asked for: its running total A satisfies
//! A(t) = minᵢ (Sᵢ + A(t − Wᵢ)).

use casemate_proto::{Amount, Millis};

/// At most `amount` in any interval of length `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constraint {
    pub(crate) window: Millis,
    pub(crate) amount: Amount,
}

/// The most in an interval, and whether it is the least such figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Covered {
    /// `None`: not bounded, or beyond 256 bits.
    pub(crate) amount: Option<Amount>,
    /// Whether the search was finished.
    pub(crate) exact: bool,
}

/// Most steps of one search. What is found by then is still a bound.
const BUDGET: u32 = 50_000;

/// The most that an interval of this length holds under these constraints.
pub(crate) fn cover(constraints: &[Constraint], length: Millis) -> Covered {
    if length.0 == 0 {
        return Covered { amount: Some(Amount::ZERO), exact: true };
    }
    let useful = undominated(constraints);
    let mut search = Search { useful: &useful, best: None, left: BUDGET };
    if let Some(last) = useful.len().checked_sub(1) {
        // each limit alone is a cover, and a first bound to prune with
        for only in &useful {
            let alone = length.0.div_ceil(only.window.0.max(1));
            search.offer(only.amount.checked_mul(alone));
        }
        search.go(last, length.0, Amount::ZERO);
    }
    Covered { amount: search.best, exact: search.left > 0 }
}

/// By ascending window, without those that a longer window with a smaller amount implies.
fn undominated(constraints: &[Constraint]) -> Vec<Constraint> {
    let mut sorted: Vec<_> = constraints.iter().copied().filter(|c| c.window.0 > 0).collect();
    sorted.sort_by_key(|c| (core::cmp::Reverse(c.window), c.amount));
    let mut out: Vec<Constraint> = Vec::new();
    for c in sorted {
        if out.last().is_none_or(|last| c.amount < last.amount) {
            out.push(c);
        }
    }
    out.reverse();
    out
}

struct Search<'a> {
    useful: &'a [Constraint],
    best: Option<Amount>,
    left: u32,
}

impl Search<'_> {
    fn offer(&mut self, cost: Option<Amount>) {
        if let Some(cost) = cost {
            self.best = Some(self.best.map_or(cost, |best| best.min(cost)));
        }
    }

    /// Covers what remains with windows up to number `last`, most of the longest ones first.
    fn go(&mut self, last: usize, remaining: u64, cost: Amount) {
        self.left = self.left.saturating_sub(1);
        if remaining == 0 {
            return self.offer(Some(cost));
        }
        if self.left == 0 || !self.may_improve(last, remaining, cost) {
            return;
        }
        let Some(c) = self.useful.get(last) else { return };
        let most = remaining.div_ceil(c.window.0);
        let Some(shorter) = last.checked_sub(1) else {
            let all = c.amount.checked_mul(most);
            return self.offer(all.and_then(|all| cost.checked_add(all)));
        };
        let mut number = most;
        loop {
            let covered = c.window.0.saturating_mul(number);
            let spent = c.amount.checked_mul(number).and_then(|s| cost.checked_add(s));
            if let Some(spent) = spent {
                self.go(shorter, remaining.saturating_sub(covered), spent);
            }
            match number.checked_sub(1) {
                Some(next) if self.left > 0 => number = next,
                _ => return,
            }
        }
    }

    /// Whether the best price for time that is left, unrounded, could beat the best found.
    fn may_improve(&self, last: usize, remaining: u64, cost: Amount) -> bool {
        let Some(best) = self.best else { return true };
        let floor = self
            .useful
            .iter()
            .take(last.saturating_add(1))
            .map(|c| {
                c.amount
                    .checked_mul(remaining)
                    .and_then(|product| product.checked_div(Amount::from(c.window.0)))
                    .unwrap_or(Amount::ZERO)
            })
            .min()
            .unwrap_or(Amount::ZERO);
        cost.checked_add(floor).is_some_and(|least| least < best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(limits: &[(u64, u64)], length: u64) -> Option<u128> {
        let constraints: Vec<_> = limits
            .iter()
            .map(|&(amount, window)| Constraint {
                window: Millis(window),
                amount: Amount::from(amount),
            })
            .collect();
        let covered = cover(&constraints, Millis(length));
        assert!(covered.exact);
        covered.amount.map(|a| a.to_u128().unwrap())
    }

    #[test]
    fn one_limit_holds_as_often_as_its_window_begins() {
        assert_eq!(f(&[(200, 24)], 24), Some(200));
        assert_eq!(f(&[(200, 24)], 25), Some(400));
        assert_eq!(f(&[(200, 24)], 1), Some(200));
        assert_eq!(f(&[(200, 24)], 0), Some(0));
        assert_eq!(f(&[], 1), None);
    }

    #[test]
    fn shorter_windows_fill_the_remainder() {
        assert_eq!(f(&[(10, 1), (100, 24)], 25), Some(110));
        assert_eq!(f(&[(10, 1), (100, 24)], 5), Some(50));
        assert_eq!(f(&[(10, 1), (100, 24), (300, 168)], 169), Some(310));
        assert_eq!(f(&[(7, 5), (10, 8)], 16), Some(20));
        assert_eq!(f(&[(7, 5), (10, 8)], 13), Some(17));
    }

    proptest::proptest! {
        /// Against the recursion itself, step by step.
        #[test]
        fn cover_is_the_recursion(
            limits in proptest::collection::vec((0_u64..50, 1_u64..12), 1..4),
            length in 0_u64..60,
        ) {
            let mut table = vec![0_u64];
            for t in 1..=usize::try_from(length).unwrap() {
                let best = limits.iter().map(|&(s, w)| {
                    s.saturating_add(table[t.saturating_sub(usize::try_from(w).unwrap())])
                });
                table.push(best.min().unwrap());
            }
            let expected = u128::from(*table.last().unwrap());
            proptest::prop_assert_eq!(f(&limits, length), Some(expected));
        }
    }
}
