//! This enclave's clock, kept to the security module's.
//!
//! Everything that a time decides (τ, windows, stamps, evidence) is asked of the system's clock, which is
//! checked against the security module before the signer runs. An enclave runs for months and has no
//! network to set its clock by. So it is compared again every half minute, and where it has gone
//! astray the attested time is followed from there on.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use casemate_nsm::{Attest, attested_time};
use casemate_proto::{Millis, UnixMillis};
use casemate_replication::ReadClock;

/// How often it is compared.
const EVERY: Duration = Duration::from_secs(30);
/// How far it may be off. Less than any δ that is of use.
const TOLERANCE: Millis = Millis(250);
/// What took longer than this tells too little.
const SLOW: Millis = Millis(1_000);

/// A clock with what it is off by.
pub(crate) struct KeptClock {
    clock: Arc<dyn ReadClock>,
    /// Milliseconds to add to what it says.
    offset: AtomicI64,
}

impl ReadClock for KeptClock {
    fn now(&self) -> UnixMillis {
        let offset = self.offset.load(Ordering::Relaxed);
        UnixMillis(self.clock.now().0.saturating_add_signed(offset))
    }
}

impl KeptClock {
    pub(crate) fn new(clock: Arc<dyn ReadClock>) -> Self {
        Self { clock, offset: AtomicI64::new(0) }
    }

    /// Takes an attested time into account that was asked for and given between these two of the system's
    /// clock.
    fn keep(&self, before: UnixMillis, attested: UnixMillis, after: UnixMillis) {
        let now = self.now();
        let took = after.since(before);
        let off = match attested > now {
            true => attested.since(now),
            false => now.since(attested),
        };
        if took > SLOW || after < before || off <= TOLERANCE.saturating_add(took) {
            return;
        }
        let (Ok(attested), Ok(after)) = (i64::try_from(attested.0), i64::try_from(after.0)) else {
            return;
        };
        let offset = attested.saturating_sub(after);
        tracing::error!(off = off.0, offset, "the clock is off: the attested time is followed");
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Compares it, again and again.
    pub(crate) async fn keep_to(self: Arc<Self>, module: Arc<dyn Attest>) -> Infallible {
        loop {
            let (this, module) = (Arc::clone(&self), Arc::clone(&module));
            // the device takes its time, and nobody else is to wait for it
            let compared = tokio::task::spawn_blocking(move || {
                let before = this.clock.now();
                match attested_time(module.as_ref()) {
                    Ok(attested) => this.keep(before, UnixMillis(attested), this.clock.now()),
                    Err(error) => tracing::warn!(%error, "the clock was not compared"),
                }
            });
            if compared.await.is_err() {
                tracing::error!("the clock was not compared");
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(u64);

    impl ReadClock for At {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0)
        }
    }

    fn kept(system: u64, before: u64, attested: u64) -> u64 {
        let clock = KeptClock::new(Arc::new(At(system)));
        clock.keep(UnixMillis(before), UnixMillis(attested), UnixMillis(system));
        clock.now().0
    }

    #[test]
    fn clock_that_has_gone_astray_follows_the_attested_time_either_way() {
        assert_eq!(kept(100_000, 99_990, 400_000), 400_000);
        assert_eq!(kept(400_000, 399_990, 100_000), 100_000);
        assert_eq!(kept(400_000, 399_990, 398_000), 398_000);
    }

    #[test]
    fn clock_that_is_right_as_far_as_can_be_told_is_left_alone() {
        assert_eq!(kept(400_000, 399_990, 399_995), 400_000);
        assert_eq!(kept(400_000, 399_990, 399_800), 400_000);
        assert_eq!(kept(400_000, 399_200, 399_000), 400_000, "it took most of the difference");
        assert_eq!(kept(400_000, 300_000, 100_000), 400_000, "paused meanwhile");
    }
}
