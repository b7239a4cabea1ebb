//! How a parent's process is told to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// A future that ends at SIGTERM or SIGINT. From this call on, not from the first look at the future,
/// neither ends the process by itself: one that comes while the parent still starts is not lost, and
/// stops it as soon as it serves.
///
/// To be called within a runtime of tokio.
///
/// # Errors
/// If the system lets no signal be waited for.
pub fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
