//! Hours of the day, in UTC.

use casemate_proto::{
    UnixMillis,
    time::{DAY, MINUTE},
};

use crate::model::Hours;

impl Hours {
    /// Parses `09:00-18:00`; `24:00` is the end of a day.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let digits = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
            if !digits(hour) || !digits(minute) {
                return None;
            }
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            let whole = hour.checked_mul(60)?.checked_add(minute)?;
            (minute < 60 && whole <= 1_440).then_some(whole)
        };
        Some(Self { from: minute(from)?, to: minute(to)? })
    }

    fn minute_of_day(at: UnixMillis) -> u64 {
        at.0 % DAY.0 / MINUTE.0
    }

    /// Whether `at` is within them.
    #[must_use]
    pub fn contains(&self, at: UnixMillis) -> bool {
        let minute = Self::minute_of_day(at);
        let (from, to) = (u64::from(self.from), u64::from(self.to));
        if from < to { minute >= from && minute < to } else { minute >= from || minute < to }
    }

    /// The earliest time from `at` on that is within them.
    #[must_use]
    pub fn next(&self, at: UnixMillis) -> Option<UnixMillis> {
        if self.contains(at) {
            return Some(at);
        }
        let midnight = at.0.checked_sub(at.0 % DAY.0)?;
        let opens = midnight.checked_add(u64::from(self.from).checked_mul(MINUTE.0)?)?;
        let opens = if opens >= at.0 { opens } else { opens.checked_add(DAY.0)? };
        Some(UnixMillis(opens))
    }
}

impl core::fmt::Display for Hours {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis::from_rfc3339(&format!("2026-11-20T{text}Z")).unwrap()
    }

    #[test]
    fn hours_include_their_first_minute_and_not_their_last() {
        let hours = Hours::parse("09:00-18:00").unwrap();
        assert_eq!(hours.to_string(), "09:00-18:00");
        for (time, inside) in [
            ("08:59:59.999", false),
            ("09:00:00", true),
            ("17:59:59.999", true),
            ("18:00:00", false),
        ] {
            assert_eq!(hours.contains(at(time)), inside, "{time}");
        }
        assert_eq!(hours.next(at("08:00:00")), Some(at("09:00:00")));
        let tomorrow = UnixMillis::from_rfc3339("2026-11-21T09:00:00Z").unwrap();
        assert_eq!(hours.next(at("18:00:00")), Some(tomorrow));
    }

    #[test]
    fn hours_wrap_midnight() {
        let hours = Hours::parse("22:00-06:00").unwrap();
        for (time, inside) in
            [("21:59:59", false), ("22:00:00", true), ("05:59:59", true), ("06:00:00", false)]
        {
            assert_eq!(hours.contains(at(time)), inside, "{time}");
        }
        assert_eq!(hours.next(at("06:00:00")), Some(at("22:00:00")));
    }

    #[test]
    fn hours_have_one_form() {
        for bad in ["", "9:00-18:00", "09:00", "09:60-18:00", "25:00-26:00", "09:00 - 18:00"] {
            assert!(Hours::parse(bad).is_none(), "{bad}");
        }
        assert!(Hours::parse("00:00-24:00").is_some());
    }
}
