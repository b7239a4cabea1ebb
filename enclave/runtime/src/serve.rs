//! The door: accepts the parent's connections and gives each to the room that it is for.

use std::sync::Arc;

use casemate_door::{CONTROL_PORT, PEER_PORT};
use casemate_transport::Listener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::KeptClock;
use crate::core::Core;
use crate::links::LinkRoom;
use crate::platform::Platform;

/// Most connections on the peers' port at one time, handshakes included.
const MAX_PEER_CONNECTIONS: usize = 64;
/// Most control connections that are being served; all but the newest are on their way out.
const MAX_CONTROL_CONNECTIONS: usize = 4;
/// Most words of connections that wait for the core.
const QUEUE: usize = 1_024;

/// Why an enclave stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The door cannot be listened on any more.
    #[error("the door is gone: {0}")]
    Door(#[from] std::io::Error),
    /// Something happened that must not.
    #[error("halted: {reason}")]
    Halted {
        /// What.
        reason: String,
    },
}

/// What an enclave's tasks run on: one thread, beside the node's own. They only hand on what is small;
/// what computes for long is the node's, or is given a thread of its own. So none has to wake another
/// thread to hand something on.
///
/// # Errors
/// If the system gives none.
pub fn tasks() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs one boot of a node until it halts, on [`tasks`].
///
/// # Errors
/// Always, in the end: with what ended it.
pub async fn serve(mut door: Listener, platform: Platform) -> Result<(), ServeError> {
    let clock = Arc::new(KeptClock::new(Arc::clone(&platform.clock)));
    let kept = Arc::clone(&clock).keep_to(Arc::clone(&platform.attest));
    let platform = Arc::new(Platform { clock, ..platform });
    let (control_in, control) = mpsc::channel(QUEUE);
    let (link_in, links) = mpsc::channel(QUEUE);
    let (policy_in, policy) = watch::channel(None);
    let core = Core::new(Arc::clone(&platform), policy_in);
    let room = Arc::new(LinkRoom::new(Arc::clone(&platform), policy, link_in));
    let peers = Arc::new(Semaphore::new(MAX_PEER_CONNECTIONS));
    let controls = Arc::new(Semaphore::new(MAX_CONTROL_CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept = async {
        let mut number = 0_u64;
        loop {
            let (port, stream) = match door.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            number = number.wrapping_add(1);
            if port == CONTROL_PORT {
                let Ok(permit) = Arc::clone(&controls).try_acquire_owned() else { continue };
                let out = control_in.clone();
                connections.spawn(async move {
                    crate::control::serve(number, stream, out).await;
                    drop(permit);
                });
            } else if port == PEER_PORT {
                let Ok(permit) = Arc::clone(&peers).try_acquire_owned() else { continue };
                let room = Arc::clone(&room);
                connections.spawn(async move {
                    room.serve(number, stream).await;
                    drop(permit);
                });
            } else {
                tracing::info!(port, "nothing listens on that port");
            }
        }
    };
    tokio::select! {
        () = accept => Ok(()),
        never = kept => match never {},
        reason = core.run(control, links) => Err(ServeError::Halted { reason }),
    }
}
