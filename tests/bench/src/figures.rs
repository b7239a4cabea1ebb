//! Numbers for people: in whole numbers all the way, so that what is printed is what was divided.

use std::time::Duration;

/// A quotient, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hundredths(pub u64);

impl Hundredths {
    /// `part ÷ whole`, rounded; `None` if that is none.
    #[must_use]
    pub fn of(part: Duration, whole: Duration) -> Option<Self> {
        let scaled = part.as_nanos().checked_mul(100)?;
        let half = whole.as_nanos().checked_div(2)?;
        let rounded = scaled.checked_add(half)?.checked_div(whole.as_nanos())?;
        u64::try_from(rounded).ok().map(Self)
    }

    /// The same of counts.
    #[must_use]
    pub fn of_counts(part: u64, whole: u64) -> Option<Self> {
        Self::of(Duration::from_nanos(part), Duration::from_nanos(whole))
    }
}

impl std::fmt::Display for Hundredths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match whole {
            0..10 => write!(f, "{whole}.{rest:02}"),
            10..100 => write!(f, "{whole}.{}", rest / 10),
            _ => write!(f, "{whole}"),
        }
    }
}

/// One of `count` equal parts of a time.
#[must_use]
pub fn each(all: Duration, count: u32) -> Duration {
    all.checked_div(count).unwrap_or_default()
}

/// A time in milliseconds, with as many digits as mean something.
#[must_use]
pub fn millis(time: Duration) -> String {
    let hundredths = u64::try_from(time.as_micros() / 10).unwrap_or(u64::MAX);
    format!("{} ms", Hundredths(hundredths))
}

/// The middle one, and the two at the ends. `None` of nothing.
#[must_use]
pub fn spread(mut all: Vec<Duration>) -> Option<(Duration, Duration, Duration)> {
    all.sort_unstable();
    let middle = all.get(all.len() / 2)?;
    Some((*all.first()?, *middle, *all.last()?))
}

/// The latency that half of the requests were within, and the one that 99 of 100 were within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    /// Half of them.
    pub half: Duration,
    /// 99 of 100; of fewer than 100 requests, the slowest.
    pub most: Duration,
}

impl Within {
    /// Of these. `None` of nothing.
    #[must_use]
    pub fn of(mut all: Vec<Duration>) -> Option<Self> {
        all.sort_unstable();
        let nearly_all = all.len().checked_mul(99)?.div_ceil(100).checked_sub(1)?;
        Some(Self { half: *all.get(all.len() / 2)?, most: *all.get(nearly_all)? })
    }
}

/// Bytes in MiB, rounded up.
#[must_use]
pub const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn quotients_are_rounded_and_shown_with_three_digits_or_so() {
        for (part, whole, shown) in [
            (1, 3, "0.33"),
            (2, 3, "0.67"),
            (3, 2, "1.50"),
            (999, 100, "9.99"),
            (1_234, 100, "12.3"),
            (12_345, 100, "123"),
            (0, 5, "0.00"),
        ] {
            assert_eq!(Hundredths::of(ms(part), ms(whole)).unwrap().to_string(), shown);
            assert_eq!(Hundredths::of_counts(part, whole).unwrap().to_string(), shown);
        }
        assert_eq!(Hundredths::of(ms(1), ms(0)), None);
    }

    #[test]
    fn times_are_shown_in_milliseconds() {
        assert_eq!(millis(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(millis(ms(45)), "45.0 ms");
        assert_eq!(millis(ms(1_200)), "1200 ms");
    }

    #[test]
    fn spread_is_of_the_sorted_list() {
        assert_eq!(spread(vec![ms(5), ms(1), ms(3)]), Some((ms(1), ms(3), ms(5))));
        assert_eq!(spread(vec![ms(4)]), Some((ms(4), ms(4), ms(4))));
        assert_eq!(spread(Vec::new()), None);
    }

    #[test]
    fn half_and_nearly_all_are_of_the_sorted_list() {
        let of = |all: Vec<u64>| Within::of(all.into_iter().map(ms).collect());
        assert_eq!(of((1..=200).rev().collect()), Some(Within { half: ms(101), most: ms(198) }));
        assert_eq!(of(vec![5, 1, 3]), Some(Within { half: ms(3), most: ms(5) }));
        assert_eq!(of(vec![4]), Some(Within { half: ms(4), most: ms(4) }));
        assert_eq!(of(Vec::new()), None);
    }

    #[test]
    fn memory_is_rounded_up() {
        assert_eq!([0, 1, 1 << 20, (1 << 20) + 1].map(mebibytes), [0, 1, 1, 2]);
    }

    #[test]
    fn nothing_divided_among_nobody_is_nothing() {
        assert_eq!(each(ms(9), 3), ms(3));
        assert_eq!(each(ms(9), 0), Duration::ZERO);
    }
}
