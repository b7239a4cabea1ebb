//! What the enclave publishes, on its way to the disk.
//!
//! Batches are written in order by one task, which tries again for as long as the disk refuses, and
//! acknowledges a batch when all of it is on the disk. What waits is bounded in bytes. Beyond that
//! batches are passed over, and once the disk takes files again the connection is made anew: the
//! enclave then sends again what was not acknowledged. So a full disk holds up neither answers nor
//! memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use casemate_door::{StoreFile, ToEnclave};
use casemate_proto::{Incarnation, cbor};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::Shared;
use crate::backoff::Backoff;
use crate::folder::Genesis;
use crate::store::{BadPath, Put, StorePath};

/// Most bytes that wait for the disk: three of the largest batches.
const MAX_WAITING: usize = 3 * casemate_door::MAX_FRAME;

/// A batch that could never be stored.
#[derive(Debug, thiserror::Error)]
#[error("the enclave publishes in batch {batch}: {error}")]
pub(super) struct Rejected {
    batch: u64,
    #[source]
    error: BadPath,
}

enum Work {
    Genesis(Genesis),
    Sealed(Vec<u8>),
    Offer(Vec<u8>),
    Recovered(Incarnation),
    Batch { number: u64, files: Vec<(StorePath, Vec<u8>)>, _room: OwnedSemaphorePermit },
}

#[derive(Default)]
struct Passed {
    over: AtomicBool,
    drained: Notify,
}

/// Takes what is to be kept. What it has not written when it is dropped is left.
pub(super) struct Publisher {
    work: mpsc::UnboundedSender<Work>,
    room: Arc<Semaphore>,
    passed: Arc<Passed>,
    task: AbortHandle,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher {
    pub(super) fn start(shared: Arc<Shared>, outgoing: mpsc::Sender<Vec<u8>>) -> Self {
        let (work, receiver) = mpsc::unbounded_channel();
        let passed = Arc::<Passed>::default();
        let task = tokio::spawn(keep_all(shared, receiver, outgoing, Arc::clone(&passed)));
        Self {
            work,
            room: Arc::new(Semaphore::new(MAX_WAITING)),
            passed,
            task: task.abort_handle(),
        }
    }

    /// Keeps a batch, in its turn.
    pub(super) fn publish(&self, number: u64, files: Vec<StoreFile>) -> Result<(), Rejected> {
        let mut size = 1_u32;
        let mut checked = Vec::with_capacity(files.len());
        for file in files {
            let path =
                StorePath::parse(&file.path).map_err(|error| Rejected { batch: number, error })?;
            size = size.saturating_add(u32::try_from(file.bytes.len()).unwrap_or(u32::MAX));
            checked.push((path, file.bytes));
        }
        // a batch after one that was passed over would be acknowledged in its stead
        if self.passed.over.load(Ordering::Acquire) {
            return Ok(());
        }
        match Arc::clone(&self.room).try_acquire_many_owned(size) {
            Ok(room) => {
                // refused only when the task has ended, and the connection ends with it
                let _ = self.work.send(Work::Batch { number, files: checked, _room: room });
            }
            Err(_) => {
                self.passed.over.store(true, Ordering::Release);
                // all was written between the two: nobody else will say so
                if self.room.available_permits() == MAX_WAITING {
                    self.passed.drained.notify_one();
                }
            }
        }
        Ok(())
    }

    /// Keeps the genesis.
    pub(super) fn keep(&self, genesis: Genesis) {
        let _ = self.work.send(Work::Genesis(genesis));
    }

    /// Keeps a blob that the enclave sealed.
    pub(super) fn keep_sealed(&self, blob: Vec<u8>) {
        let _ = self.work.send(Work::Sealed(blob));
    }

    /// Keeps what the enclave offers for a recovery.
    pub(super) fn keep_offer(&self, offer: Vec<u8>) {
        let _ = self.work.send(Work::Offer(offer));
    }

    /// Notes that the enclave has begun an incarnation.
    pub(super) fn keep_recovered(&self, incarnation: Incarnation) {
        let _ = self.work.send(Work::Recovered(incarnation));
    }

    /// Returns when everything is written but for batches that were passed over.
    pub(super) async fn passed_over(&self) {
        self.passed.drained.notified().await;
    }
}

async fn keep_all(
    shared: Arc<Shared>,
    mut work: mpsc::UnboundedReceiver<Work>,
    outgoing: mpsc::Sender<Vec<u8>>,
    passed: Arc<Passed>,
) {
    while let Some(item) = work.recv().await {
        let number = if let Work::Batch { number, .. } = &item { Some(*number) } else { None };
        until_kept(&shared, item).await;
        if let Some(batch) = number {
            let stored = cbor::encode(&ToEnclave::Stored { batch });
            if outgoing.send(stored).await.is_err() {
                return;
            }
        }
        if work.is_empty() && passed.over.load(Ordering::Acquire) {
            passed.drained.notify_one();
        }
    }
}

/// Tries for as long as the disk refuses.
async fn until_kept(shared: &Arc<Shared>, item: Work) {
    let item = Arc::new(item);
    let mut backoff = Backoff::new();
    loop {
        let (on, what) = (Arc::clone(shared), Arc::clone(&item));
        let kept = tokio::task::spawn_blocking(move || keep(&on, &what)).await;
        let error = match kept {
            Ok(Ok(())) => {
                shared.view.send_if_modified(|view| view.store_error.take().is_some());
                return;
            }
            Ok(Err(error)) => error,
            Err(error) => error.to_string(),
        };
        shared.metrics.store_errors.inc();
        shared.view.send_if_modified(|view| {
            let new = view.store_error.as_ref() != Some(&error);
            if new {
                tracing::error!(%error, "the disk refuses; trying again");
                view.store_error = Some(error.clone());
            }
            new
        });
        sleep(backoff.wait()).await;
    }
}

fn keep(shared: &Shared, item: &Work) -> Result<(), String> {
    match item {
        Work::Genesis(genesis) => shared
            .folder
            .keep_genesis(genesis)
            .map_err(|error| format!("cannot write `genesis.cbor`: {error}")),
        Work::Sealed(blob) => shared
            .folder
            .keep_sealed(blob)
            .map_err(|error| format!("cannot keep a sealed blob: {error}")),
        Work::Offer(offer) => shared
            .folder
            .keep_offer(offer)
            .map_err(|error| format!("cannot write `recovery/offer.cbor`: {error}")),
        Work::Recovered(incarnation) => shared
            .folder
            .keep_recovered(*incarnation)
            .map_err(|error| format!("cannot write `incarnation`: {error}")),
        Work::Batch { files, .. } => {
            for (path, bytes) in files {
                let put = shared.store.put(path, bytes).map_err(|error| error.to_string())?;
                let result = match put {
                    Put::Written => "written",
                    Put::Same => "same",
                    Put::Older => "older",
                    Put::Conflict => {
                        tracing::error!(%path, "a file of the store had other bytes; kept aside");
                        "conflict"
                    }
                };
                shared.metrics.store_files.get_or_create(&[("result", result)]).inc();
            }
            Ok(())
        }
    }
}
