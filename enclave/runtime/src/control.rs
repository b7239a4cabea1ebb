//! The control connection: the parent's words in, the enclave's words out.
//!
//! There is one at a time; a newer one takes the older one's place, so that a parent that restarted is
//! served at once. A parent that does not read is cut off when its queue is full.

use casemate_door::{FromEnclave, MAX_FRAME, ToEnclave};
use casemate_transport::Stream;
use casemate_transport::frame::{read_frame, write_frames};
use tokio::io::BufReader;
use tokio::sync::mpsc;

/// Most words that wait for the parent to read them.
const QUEUE: usize = 4_096;
/// Bytes that are read at one time: many words, where many wait.
const READ_AHEAD: usize = 16 * 1024;
/// Most words that are written together.
const TOGETHER: usize = 32;

/// What comes of a control connection.
#[derive(Debug)]
pub(crate) enum FromControl {
    /// A parent connected; it takes the place of any before.
    Up(ControlSender),
    /// It says something.
    Said {
        /// Which connection.
        connection: u64,
        /// What.
        message: Box<ToEnclave>,
    },
    /// It is gone.
    Down {
        /// Which connection.
        connection: u64,
    },
}

/// Words to a parent.
#[derive(Clone, Debug)]
pub(crate) struct ControlSender {
    pub(crate) connection: u64,
    queue: mpsc::Sender<FromEnclave>,
}

impl ControlSender {
    /// Queues a word. `false` if the parent does not keep up or is gone.
    pub(crate) fn send(&self, message: FromEnclave) -> bool {
        self.queue.try_send(message).is_ok()
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve(connection: u64, stream: Stream, out: mpsc::Sender<FromControl>) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
    let (queue, mut words) = mpsc::channel(QUEUE);
    if out.send(FromControl::Up(ControlSender { connection, queue })).await.is_err() {
        return;
    }
    let write = async {
        let mut waiting = Vec::with_capacity(TOGETHER);
        while words.recv_many(&mut waiting, TOGETHER).await > 0 {
            // who is about to say something has its turn, and what it says goes out with this
            tokio::task::yield_now().await;
            while waiting.len() < TOGETHER
                && let Ok(word) = words.try_recv()
            {
                waiting.push(word);
            }
            let frames = waiting.drain(..).map(|word| casemate_proto::cbor::encode(&word));
            if let Err(error) = write_frames(&mut writer, frames, MAX_FRAME).await {
                tracing::info!(%error, "the parent's connection ended");
                return;
            }
        }
    };
    let read = async {
        loop {
            let bytes = match read_frame(&mut reader, MAX_FRAME).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, "the parent's connection ended");
                    return;
                }
            };
            let message = match casemate_proto::cbor::decode::<ToEnclave>(&bytes, MAX_FRAME) {
                Ok(message) => Box::new(message),
                Err(error) => {
                    tracing::warn!(%error, "the parent said something malformed");
                    return;
                }
            };
            if out.send(FromControl::Said { connection, message }).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    let _ = out.send(FromControl::Down { connection }).await;
}
