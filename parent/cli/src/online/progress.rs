//! Says what is waited for, once it takes more than a second.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// After how long something is said at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for `work`. On a terminal one line counts the seconds; elsewhere a line comes now and then.
pub(super) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let terminal = io::stderr().is_terminal();
    let first = started.checked_add(PATIENCE).unwrap_or(started);
    let mut ticks = interval_at(first, PATIENCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(work);
    let (mut said, mut next) = (false, 1_u64);
    loop {
        tokio::select! {
            done = &mut work => {
                if said && terminal {
                    let _ = write!(io::stderr(), "\r\x1b[K");
                }
                return done;
            }
            _ = ticks.tick() => {
                let seconds = started.elapsed().as_secs();
                if terminal {
                    let _ = write!(io::stderr(), "\r\x1b[K{what} … {seconds} s");
                    let _ = io::stderr().flush();
                    said = true;
                } else if seconds >= next {
                    let _ = writeln!(io::stderr(), "{what} … {seconds} s");
                    next = seconds.saturating_mul(3);
                }
            }
        }
    }
}
