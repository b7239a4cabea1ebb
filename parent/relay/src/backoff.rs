//! When to try again: 100 ms, doubling to 2 s, less up to a half by chance, so that two
//! parents that lost each other do not fall into step.

use std::time::Duration;

use rand_core::{OsRng, RngCore as _};

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(2);

/// How long to wait before the next try.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// What was tried held: begin again with the first wait.
    pub(crate) const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(LONGEST);
        let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
        let less = u64::from(OsRng.next_u32()).checked_rem(millis / 2).unwrap_or(0);
        whole.saturating_sub(Duration::from_millis(less))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new();
        for whole in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            let wait = backoff.wait().as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
