//! The book of charges, and exact sliding windows over it.
//!
//! A limit over a window of length W holds over *any* interval of that length (invariant I5) if,
//! at the time t of each charge, what was charged in (t − W, t] with it included is within the
//! limit: take any interval and the last charge in it. Windows are therefore sums over exactly
//! that half-open interval, with W lengthened by the [`Slack`], and never over buckets.
//!
//! **Cost.** Each charge is a member of three series (its key's, its path's, its principal's, in
//! its asset and kind), each an array of (time, running total): a window is two lookups by
//! bisection. A charge takes about 210 bytes; the default cap of a million, about 210 MB.

use std::collections::{BTreeMap, VecDeque};

use casemate_proto::{
    Amount, DerivationPath, Hash32, KeyName, Millis, PrincipalId, UnixMillis, cbor,
    hash::tagged_hash,
};
use ruint::Uint;

use crate::{
    charge::{Charge, ChargeKind, MAX_WINDOW, Slack},
    intern::Names,
    model::{AssetKey, Per},
};

/// A running total. 2⁶⁴ charges of 2²⁵⁶ fit, so that it never overflows.
pub(crate) type Total = Uint<320, 5>;

pub(crate) fn to_total(amount: Amount) -> Total {
    Total::from(amount.to_u256())
}

fn to_amount(total: Total) -> Option<Amount> {
    let bytes = total.to_be_bytes::<40>();
    let (high, low) = bytes.split_at_checked(8)?;
    if high.iter().any(|b| *b != 0) {
        return None;
    }
    ruint::aliases::U256::try_from_be_slice(low).map(Amount::from_u256)
}

/// Why charges were not recorded. None of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Time does not go back.
    #[error("a charge at `{at}` comes after one at `{latest}`")]
    TimeWentBack {
        /// The charge's time.
        at: UnixMillis,
        /// The book's.
        latest: UnixMillis,
    },
    /// Full: nothing more is signed until old charges leave.
    #[error("the book holds {cap} charges, as many as it may")]
    Full {
        /// Its cap.
        cap: usize,
    },
    /// Not a snapshot.
    #[error("not a snapshot of charges: {0}")]
    Encoding(#[from] cbor::CborError),
    /// A snapshot that contradicts itself.
    #[error("a snapshot of charges that contradicts itself: {reason}")]
    Snapshot {
        /// In what.
        reason: &'static str,
    },
}

/// A fact of the book, its names interned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fact {
    pub(crate) at: u64,
    pub(crate) key: u32,
    pub(crate) path: u32,
    pub(crate) principal: u32,
    pub(crate) asset: u32,
    pub(crate) kind: ChargeKind,
    pub(crate) amount: Amount,
}

/// Which charges a series holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesId {
    key: u32,
    asset: u32,
    kind: ChargeKind,
    of: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    All,
    Path(u32),
    Principal(u32),
}

impl Fact {
    fn series(&self) -> [SeriesId; 3] {
        [Part::All, Part::Path(self.path), Part::Principal(self.principal)].map(|of| SeriesId {
            key: self.key,
            asset: self.asset,
            kind: self.kind,
            of,
        })
    }
}

#[derive(Clone, Debug, Default)]
struct Series {
    /// The running total just before the first entry.
    base: Total,
    /// Time, and running total with this charge.
    entries: VecDeque<(u64, Total)>,
}

impl Series {
    fn push(&mut self, at: u64, amount: Amount) {
        let before = self.entries.back().map_or(self.base, |(_, total)| *total);
        self.entries.push_back((at, before.wrapping_add(to_total(amount))));
    }

    fn pop(&mut self) {
        if let Some((_, total)) = self.entries.pop_front() {
            self.base = total;
        }
    }

    /// Number and sum of what is later than `after`, or of everything.
    fn later_than(&self, after: Option<u64>) -> (u64, Total) {
        let first = after.map_or(0, |after| self.entries.partition_point(|(at, _)| *at <= after));
        let before = match first.checked_sub(1) {
            None => self.base,
            Some(last) => self.entries.get(last).map_or(self.base, |(_, total)| *total),
        };
        let all = self.entries.back().map_or(self.base, |(_, total)| *total);
        let count = self.entries.len().saturating_sub(first);
        (u64::try_from(count).unwrap_or(u64::MAX), all.wrapping_sub(before))
    }
}

/// Whose charges a window sums.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Amounts or fees.
    pub kind: ChargeKind,
    /// Of `pairs`, which.
    pub per: Per,
    /// The key that is asked for.
    pub key: &'a KeyName,
    /// The path that is asked for.
    pub path: &'a DerivationPath,
    /// Who asks.
    pub principal: &'a PrincipalId,
    /// (key, asset) pairs; those of other keys than `key` count for [`Per::Group`] and
    /// [`Per::Principal`] only.
    pub pairs: &'a [(KeyName, Option<AssetKey>)],
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// How many charges.
    pub count: u64,
    /// Their sum; `None` where it does not fit 256 bits.
    pub sum: Option<Amount>,
}

/// The charges of the longest window and its slack.
#[derive(Clone, Debug)]
pub struct ChargeBook {
    pub(crate) slack: Slack,
    pub(crate) cap: usize,
    pub(crate) latest: UnixMillis,
    /// Hash over every charge ever recorded, in order.
    pub(crate) chain: Hash32,
    pub(crate) pruned: u64,
    /// Until when charges may be missing; zero where none are.
    pub(crate) unproven: UnixMillis,
    pub(crate) log: VecDeque<Fact>,
    pub(crate) keys: Names<KeyName>,
    pub(crate) paths: Names<DerivationPath>,
    pub(crate) principals: Names<PrincipalId>,
    pub(crate) assets: Names<Option<AssetKey>>,
    series: BTreeMap<SeriesId, Series>,
}

/// How many charges a book holds unless it is told.
pub const DEFAULT_CAP: usize = 1_000_000;

impl ChargeBook {
    /// An empty book whose windows are lengthened by at most `slack`, for [`DEFAULT_CAP`] charges.
    #[must_use]
    pub fn new(slack: Slack) -> Self {
        Self::with_cap(slack, DEFAULT_CAP)
    }

    /// An empty book for at most `cap` charges.
    #[must_use]
    pub fn with_cap(slack: Slack, cap: usize) -> Self {
        Self {
            slack,
            cap,
            latest: UnixMillis(0),
            chain: tagged_hash("casemate/charges/v1", &[]),
            pruned: 0,
            unproven: UnixMillis(0),
            log: VecDeque::new(),
            keys: Names::default(),
            paths: Names::default(),
            principals: Names::default(),
            assets: Names::default(),
            series: BTreeMap::new(),
        }
    }

    /// How long charges are kept: the longest window and the slack.
    #[must_use]
    pub const fn retention(&self) -> Millis {
        self.slack.lengthen(MAX_WINDOW)
    }
    /// The slack it was made for.
    #[must_use]
    pub const fn slack(&self) -> Slack {
        self.slack
    }
    /// The latest time it has seen.
    #[must_use]
    pub const fn latest(&self) -> UnixMillis {
        self.latest
    }
    /// How many charges it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.log.len()
    }
    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Says that charges of times up to this one may be missing: those of a cluster that was recovered
    /// from a ledger which may not be its last. Windows that reach back before it are full.
    pub fn mark_unproven(&mut self, until: UnixMillis) {
        self.unproven = self.unproven.max(until);
    }
    /// From when on a window of this length, lengthened by the slack, lies wholly in what is known.
    #[must_use]
    pub const fn known_from(&self, window: Millis) -> UnixMillis {
        match self.unproven {
            UnixMillis(0) => UnixMillis(0),
            until => until.saturating_add(window),
        }
    }

    /// A hash that two books share only if the same charges were recorded, in the same order, as
    /// many of them pruned, and the same is known to be missing. It costs the same however many there are.
    #[must_use]
    pub fn root(&self) -> Hash32 {
        let kept = u64::try_from(self.log.len()).unwrap_or(u64::MAX);
        tagged_hash(
            "casemate/charges-root/v1",
            &[
                self.chain.as_bytes(),
                &self.pruned.to_be_bytes(),
                &kept.to_be_bytes(),
                &self.latest.0.to_be_bytes(),
                &self.slack.length().0.to_be_bytes(),
                &self.unproven.0.to_be_bytes(),
            ],
        )
    }

    /// Whether `more` charges fit at `now`, once those that no window reaches are gone.
    #[must_use]
    pub fn has_room(&self, more: usize, now: UnixMillis) -> bool {
        let gone = self.out_of_reach(now);
        let kept = self.log.len().saturating_sub(gone);
        kept.checked_add(more).is_some_and(|total| total <= self.cap)
    }

    fn out_of_reach(&self, now: UnixMillis) -> usize {
        match now.0.checked_sub(self.retention().0) {
            None => 0,
            Some(horizon) => self.log.partition_point(|fact| fact.at <= horizon),
        }
    }

    /// Records charges, all or none, after pruning what their time leaves behind.
    ///
    /// # Errors
    /// If their times go back, or there is no room.
    pub fn record(&mut self, charges: &[Charge]) -> Result<(), BookError> {
        let mut latest = self.latest;
        for charge in charges {
            if charge.at < latest {
                return Err(BookError::TimeWentBack { at: charge.at, latest });
            }
            latest = charge.at;
        }
        let first = charges.first().map_or(latest, |c| c.at);
        if !self.has_room(charges.len(), first) {
            return Err(BookError::Full { cap: self.cap });
        }
        self.prune(first);
        for charge in charges {
            self.chain =
                tagged_hash("casemate/charges/v1", &[self.chain.as_bytes(), &cbor::encode(charge)]);
            self.push(charge);
        }
        Ok(())
    }

    /// Adds to the log and the series, without a check and without touching the chain.
    pub(crate) fn push(&mut self, charge: &Charge) {
        let fact = Fact {
            at: charge.at.0,
            key: self.keys.hold(&charge.key),
            path: self.paths.hold(&charge.path),
            principal: self.principals.hold(&charge.principal),
            asset: self.assets.hold(&charge.asset),
            kind: charge.kind,
            amount: charge.amount,
        };
        for id in fact.series() {
            self.series.entry(id).or_default().push(fact.at, fact.amount);
        }
        self.log.push_back(fact);
        self.latest = self.latest.max(charge.at);
    }

    /// Lets go of charges that no window reaches at `now` or later, and moves the book's time on.
    pub fn prune(&mut self, now: UnixMillis) {
        let now = now.max(self.latest);
        self.latest = now;
        for _ in 0..self.out_of_reach(now) {
            let Some(fact) = self.log.pop_front() else { return };
            for id in fact.series() {
                // the log and each series are in one order, so that the oldest fact is the
                // oldest entry of its three series
                let emptied = self.series.get_mut(&id).is_some_and(|series| {
                    series.pop();
                    series.entries.is_empty()
                });
                if emptied {
                    self.series.remove(&id);
                }
            }
            self.keys.release(fact.key);
            self.paths.release(fact.path);
            self.principals.release(fact.principal);
            self.assets.release(fact.asset);
            self.pruned = self.pruned.saturating_add(1);
        }
    }

    /// What was charged later than `after`, or ever where it is `None`.
    fn later_than(&self, scope: &Scope<'_>, after: Option<u64>) -> (u64, Total) {
        let mut count = 0_u64;
        let mut sum = Total::ZERO;
        for (key, asset) in scope.pairs {
            if matches!(scope.per, Per::Key | Per::Path) && key != scope.key {
                continue;
            }
            let of = match scope.per {
                Per::Group | Per::Key => Some(Part::All),
                Per::Path => self.paths.find(scope.path).map(Part::Path),
                Per::Principal => self.principals.find(scope.principal).map(Part::Principal),
            };
            // a name that no charge has is a sum of zero
            let (Some(of), Some(key), Some(asset)) =
                (of, self.keys.find(key), self.assets.find(asset))
            else {
                continue;
            };
            let id = SeriesId { key, asset, kind: scope.kind, of };
            if let Some(series) = self.series.get(&id) {
                let (n, total) = series.later_than(after);
                count = count.saturating_add(n);
                sum = sum.saturating_add(total);
            }
        }
        (count, sum)
    }

    /// What is in the window of length `window` that ends at `now`: (now − window, now]. The
    /// caller lengthens the window by the slack.
    #[must_use]
    pub fn used(&self, scope: &Scope<'_>, window: Millis, now: UnixMillis) -> Used {
        let (count, sum) = self.later_than(scope, now.0.checked_sub(window.0));
        Used { count, sum: to_amount(sum) }
    }

    /// The earliest time from `now` on at which `fits(count, sum)` holds for the window, if nothing
    /// more is charged. `fits` must hold for less whenever it holds for more.
    pub(crate) fn when_fits(
        &self,
        scope: &Scope<'_>,
        window: Millis,
        now: UnixMillis,
        fits: impl Fn(u64, Total) -> bool,
    ) -> Option<UnixMillis> {
        let holds = |t: u64| {
            let (count, sum) = self.later_than(scope, t.checked_sub(window.0));
            fits(count, sum)
        };
        // everything has left the window by now + window
        let (mut low, mut high) = (now.0, now.0.checked_add(window.0)?);
        if !holds(high) {
            return None;
        }
        while low < high {
            let middle = low.midpoint(high);
            if holds(middle) {
                high = middle;
            } else {
                low = middle.saturating_add(1);
            }
        }
        Some(UnixMillis(low))
    }

    /// Its charges, oldest first.
    pub fn charges(&self) -> impl Iterator<Item = Charge> + '_ {
        self.log.iter().filter_map(|fact| {
            Some(Charge {
                at: UnixMillis(fact.at),
                key: self.keys.name(fact.key)?.clone(),
                path: self.paths.name(fact.path)?.clone(),
                principal: self.principals.name(fact.principal)?.clone(),
                asset: self.assets.name(fact.asset)?.clone(),
                kind: fact.kind,
                amount: fact.amount,
            })
        })
    }
}
