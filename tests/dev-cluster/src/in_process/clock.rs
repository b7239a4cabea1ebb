//! Clocks for a cluster in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_proto::UnixMillis;

/// Tells the time, and passes it when nothing is to be done.
pub trait ReadClock: Send {
    /// The time.
    fn now(&self) -> UnixMillis;
    /// Nothing is to be done now.
    fn idle(&self);
}

/// The computer's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl ReadClock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
    fn idle(&self) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A clock that moves when it is told to, and by 10 ms when nothing is to be done. Clones share
/// the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// At this time.
    #[must_use]
    pub fn at(time: UnixMillis) -> Self {
        Self(Arc::new(AtomicU64::new(time.0)))
    }
    /// Lets this many milliseconds pass.
    pub fn pass(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

impl ReadClock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
    fn idle(&self) {
        self.pass(10);
    }
}
