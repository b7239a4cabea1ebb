//! Time, always an argument: this crate reads no clock.

use core::fmt;

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

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
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
