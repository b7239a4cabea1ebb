//! Time, always an argument: this crate reads no clock.

use core::{fmt, time::Duration};

use der::DateTime;

/// Milliseconds since 1970-01-01T00:00:00Z, the unit of a document's own `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// A time from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn new(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// RFC 3339 in UTC, with milliseconds.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_secs(self.0 / 1000);
        match DateTime::from_unix_duration(seconds) {
            Ok(date) => {
                let (year, month, day) = (date.year(), date.month(), date.day());
                let (hour, minute, second) = (date.hour(), date.minutes(), date.seconds());
                let millisecond = self.0 % 1000;
                write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
                write!(f, ".{millisecond:03}Z")
            }
            // Beyond the year 9999.
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// The time at which a document is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The present: certificates are valid now and the document is as fresh as `freshness` asks.
    Now {
        /// The verifier's own clock.
        now: UnixMillis,
        /// How far the document's timestamp may lie from `now`.
        freshness: Freshness,
    },
    /// The document's own timestamp, for archives.
    ///
    /// Whoever learnt an old leaf key can date a document back, so this proves nothing about time by
    /// itself: it needs outside evidence that the document existed then, such as a checkpoint that
    /// covers it.
    Document,
}

/// How far a document's timestamp may lie from the verifier's clock.
///
/// A leaf certificate is reused for up to three hours, so the expiry of certificates alone lets a
/// document of that age pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The greatest accepted `now - timestamp`, in milliseconds. `None` leaves the age to the expiry
    /// of the certificates.
    pub max_age_ms: Option<u64>,
    /// The greatest accepted `timestamp - now`, in milliseconds: the tolerance between two clocks.
    pub future_tolerance_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_prints_as_rfc_3339() {
        assert_eq!(UnixMillis::new(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMillis::new(1_668_034_320_696).to_string(), "2022-11-09T22:52:00.696Z");
        assert_eq!(UnixMillis::new(1_709_164_800_007).to_string(), "2024-02-29T00:00:00.007Z");
        assert_eq!(UnixMillis::new(u64::MAX).to_string(), format!("{} ms", u64::MAX));
    }
}
