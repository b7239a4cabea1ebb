//! Time as data: a point in milliseconds since the Unix epoch, and a length in milliseconds.

use minicbor::{Decode, Encode};

/// A point in time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct UnixMillis(#[n(0)] pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Millis(#[n(0)] pub u64);

/// One second.
pub const SECOND: Millis = Millis(1_000);
/// One minute.
pub const MINUTE: Millis = Millis(60_000);
/// One hour.
pub const HOUR: Millis = Millis(3_600_000);
/// One day.
pub const DAY: Millis = Millis(86_400_000);

impl UnixMillis {
    /// The largest time that prints as a four-digit year: 9999-12-31T23:59:59.999Z.
    pub const MAX_PRINTABLE: Self = Self(253_402_300_799_999);

    /// `self + length`, at most the largest `u64`.
    #[must_use]
    pub const fn saturating_add(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.0))
    }

    /// `self - length`, at least the epoch.
    #[must_use]
    pub const fn saturating_sub(self, length: Millis) -> Self {
        Self(self.0.saturating_sub(length.0))
    }

    /// `self + length`, or `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, length: Millis) -> Option<Self> {
        match self.0.checked_add(length.0) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC with milliseconds, for example `2026-11-20T09:00:00.000Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let clamped = self.min(Self::MAX_PRINTABLE).0;
        let (days, in_day) = (clamped / DAY.0, clamped % DAY.0);
        let (year, month, day) = civil_from_days(days);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            in_day / HOUR.0,
            in_day % HOUR.0 / MINUTE.0,
            in_day % MINUTE.0 / SECOND.0,
            in_day % SECOND.0
        )
    }

    /// Parses RFC 3339 in UTC: `YYYY-MM-DDTHH:MM:SS[.mmm]Z`. No other offset is accepted.
    ///
    /// # Errors
    /// If the text has another form or names a day or time that does not exist.
    pub fn from_rfc3339(text: &str) -> Result<Self, TimeError> {
        parse_rfc3339(text).ok_or_else(|| TimeError::NotUtc { input: clip(text) })
    }
}

impl Millis {
    /// `self + other`, at most the largest `u64`.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self * factor`, at most the largest `u64`.
    #[must_use]
    pub const fn saturating_mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// Parses a whole number with one unit: `500ms`, `30s`, `10m`, `24h`, `7d`.
    ///
    /// # Errors
    /// If the text has another form, or is zero or too long to represent.
    pub fn from_text(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::NotALength { input: clip(text) };
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (digits, unit) = text.split_at(digits_end);
        let unit = match unit {
            "ms" => 1,
            "s" => SECOND.0,
            "m" => MINUTE.0,
            "h" => HOUR.0,
            "d" => DAY.0,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        match number.checked_mul(unit) {
            Some(value) if value > 0 => Ok(Self(value)),
            _ => Err(wrong()),
        }
    }

    /// The shortest exact text, for example `24h`, `7d`, `1500ms`.
    #[must_use]
    pub fn to_text(self) -> String {
        // 24h reads better than 1d, as limits are written
        if self == DAY {
            return "24h".to_owned();
        }
        for (unit, name) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")] {
            if let (Some(count), true) = (self.0.checked_div(unit.0), self.0.is_multiple_of(unit.0))
                && count > 0
            {
                return format!("{count}{name}");
            }
        }
        format!("{}ms", self.0)
    }
}

impl core::fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl core::fmt::Display for Millis {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Why a text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not a UTC time of the accepted form.
    #[error("`{input}` is not a UTC time such as `2027-03-01T00:00:00Z`")]
    NotUtc {
        /// The beginning of the text.
        input: String,
    },
    /// Not a length of the accepted form.
    #[error("`{input}` is not a length of time such as `10m`, `24h` or `7d`")]
    NotALength {
        /// The beginning of the text.
        input: String,
    },
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

fn digits(text: &str, from: usize, to: usize) -> Option<u64> {
    let part = text.get(from..to)?;
    if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None }
}

fn parse_rfc3339(text: &str) -> Option<UnixMillis> {
    let bytes = text.as_bytes();
    let fixed = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if fixed.iter().any(|&(at, byte)| bytes.get(at) != Some(&byte)) {
        return None;
    }
    let year = digits(text, 0, 4)?;
    let month = digits(text, 5, 7)?;
    let day = digits(text, 8, 10)?;
    let hour = digits(text, 11, 13)?;
    let minute = digits(text, 14, 16)?;
    let second = digits(text, 17, 19)?;
    let millis = match text.get(19..)? {
        "Z" => 0,
        rest if rest.len() == 5 && rest.starts_with('.') && rest.ends_with('Z') => {
            digits(text, 20, 23)?
        }
        _ => return None,
    };
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    days.checked_mul(DAY.0)?
        .checked_add(hour.checked_mul(HOUR.0)?)?
        .checked_add(minute.checked_mul(MINUTE.0)?)?
        .checked_add(second.checked_mul(SECOND.0)?)?
        .checked_add(millis)
        .map(UnixMillis)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

const fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

/// Days since 1970-01-01 of a day that exists, by counting: the range is 8,030 years at most.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let years: u64 = (1970..year).map(days_in_year).sum();
    let months: u64 = (1..month).map(|m| days_in_month(year, m)).sum();
    years.checked_add(months)?.checked_add(day.checked_sub(1)?)
}

fn civil_from_days(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= days_in_year(year) {
        days = days.saturating_sub(days_in_year(year));
        year = year.saturating_add(1);
    }
    let mut month = 1;
    while days >= days_in_month(year, month) {
        days = days.saturating_sub(days_in_month(year, month));
        month = month.saturating_add(1);
    }
    (year, month, days.saturating_add(1))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trips_known_points() {
        for (text, millis) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T12:34:56.789Z", 951_827_696_789),
            ("2026-11-20T09:00:00.000Z", 1_795_165_200_000),
            ("9999-12-31T23:59:59.999Z", UnixMillis::MAX_PRINTABLE.0),
        ] {
            assert_eq!(UnixMillis::from_rfc3339(text), Ok(UnixMillis(millis)), "{text}");
            assert_eq!(UnixMillis(millis).to_rfc3339(), text);
        }
    }

    #[test]
    fn rfc3339_refuses_what_does_not_exist() {
        for text in [
            "",
            "2026-11-20",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T09:00:00+01:00",
            "2026-11-20T09:00:00.1Z",
            "2026-11-20T09:00:60Z",
            "1969-12-31T23:59:59Z",
            "２026-11-20T09:00:00Z",
        ] {
            assert!(UnixMillis::from_rfc3339(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_parse_and_print() {
        for (text, millis) in
            [("24h", DAY.0), ("7d", 7 * DAY.0), ("90s", 90_000), ("1500ms", 1_500)]
        {
            assert_eq!(Millis::from_text(text), Ok(Millis(millis)));
            assert_eq!(Millis(millis).to_text(), text);
        }
        for text in ["", "0s", "10", "h", "1.5h", "-1h", "1w", "99999999999999999999d"] {
            assert!(Millis::from_text(text).is_err(), "{text}");
        }
    }
}
