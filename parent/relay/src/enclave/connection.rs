//! One connection after the other: configure, then frames both ways until it breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_door::frame::Phase;
use casemate_door::{CONTROL_PORT, FromEnclave, MAX_FRAME, ToEnclave};
use casemate_proto::cbor;
use casemate_transport::{FrameError, FrameReader, Stream, connect, write_frames};
use tokio::io::{BufReader, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::publish::{Publisher, Rejected};
use super::{Link, MAX_OUTGOING, Shared, View};
use crate::backoff::Backoff;
use crate::folder::Genesis;

/// How long the enclave may take to take a frame.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the enclave may say nothing. It says how it is every second or so.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes that are read at one time: many frames, where many wait.
const READ_AHEAD: usize = 16 * 1024;
/// Most frames that are written together.
const TOGETHER: usize = 32;
/// How often the folder is looked at for what a recovery begins with.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A connection that held this long was a good one.
const HELD: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the enclave closed it")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the enclave took nothing for {WRITE_TIMEOUT:?}")]
    Stalled,
    #[error("the enclave said nothing for {SILENCE:?}")]
    Silent,
    #[error("a frame of the enclave is {0}")]
    Malformed(#[source] cbor::CborError),
    #[error("the enclave's genesis record is {0}")]
    Genesis(#[source] cbor::CborError),
    #[error("{0}")]
    Foreign(String),
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error("files of the store were passed over while the disk refused: they are asked for again")]
    PassedOver,
}

pub(super) async fn run(shared: &Arc<Shared>) {
    let mut backoff = Backoff::new();
    let mut told = String::new();
    loop {
        let began = Instant::now();
        match connect(&shared.address, CONTROL_PORT).await {
            Ok(stream) => {
                tracing::info!(address = %shared.address, "connected to the enclave");
                told.clear();
                shared.metrics.enclave_connections.inc();
                let ended = Open::new(shared).serve(stream).await;
                tracing::warn!(reason = %ended, "the connection to the enclave ended");
            }
            Err(error) => {
                // the same line once, not at every try
                let line = error.to_string();
                if line != told {
                    tracing::warn!(address = %shared.address, error = %line, "no enclave yet");
                    told = line;
                }
            }
        }
        if began.elapsed() >= HELD {
            backoff.reset();
        }
        sleep(backoff.wait()).await;
    }
}

/// A connection is open for as long as this lives; whoever waits on it is told when it ends.
struct Open<'a> {
    shared: &'a Arc<Shared>,
    outgoing: mpsc::Sender<Vec<u8>>,
    frames: mpsc::Receiver<Vec<u8>>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // dropping the senders within tells those who wait
        *self.shared.link() = None;
        self.shared.view.send_modify(|view| {
            view.connected = false;
            view.status = None;
        });
    }
}

impl<'a> Open<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        let (outgoing, frames) = mpsc::channel(MAX_OUTGOING);
        Self { shared, outgoing, frames }
    }

    async fn serve(mut self, stream: Stream) -> Ended {
        let (read, write) = tokio::io::split(stream);
        let read = BufReader::with_capacity(READ_AHEAD, read);
        let shared = self.shared;
        let genesis = shared.genesis().as_ref().map(|genesis| genesis.bytes.clone());
        let mut configuration = shared.configuration.clone();
        configuration.genesis = genesis;
        (configuration.incarnation, configuration.recovers) = match shared.folder.incarnation() {
            Ok(known) => known,
            Err(error) => return Ended::Foreign(error.to_string()),
        };
        let configure = cbor::encode(&ToEnclave::Configure(configuration));
        // into an empty queue, before anybody else knows of it: there is room
        let _ = self.outgoing.try_send(configure);
        *shared.link() = Some(Link {
            outgoing: self.outgoing.clone(),
            waiting: std::collections::BTreeMap::new(),
        });
        shared.view.send_modify(|view| {
            view.connected = true;
            view.status = None;
            view.refused = None;
            view.halted = None;
        });
        let outgoing = self.outgoing.clone();
        let publisher = Publisher::start(Arc::clone(shared), outgoing.clone());
        tokio::select! {
            ended = write_all(write, &mut self.frames) => ended,
            ended = read_all(shared, FrameReader::new(read, MAX_FRAME), &publisher) => ended,
            () = publisher.passed_over() => Ended::PassedOver,
            ended = hand_over(shared, &outgoing) => ended,
        }
    }
}

/// Hands over what a recovery begins with, once an operator has put it into the folder, and again when that
/// is other than what was handed over.
async fn hand_over(shared: &Arc<Shared>, outgoing: &mpsc::Sender<Vec<u8>>) -> Ended {
    let mut given = None;
    loop {
        sleep(LOOK_EVERY).await;
        let waits = |view: &View| {
            view.status.as_ref().is_some_and(|(status, _)| status.phase == Phase::Recovering)
        };
        if !waits(&shared.view.borrow()) {
            continue;
        }
        let folder = Arc::clone(&shared.folder);
        match tokio::task::spawn_blocking(move || folder.recovery_frames()).await {
            Ok(Ok(Some((frames, hash)))) if given != Some(hash) => {
                tracing::info!(frames = frames.len(), "handing over what the recovery begins with");
                given = Some(hash);
                for frame in frames {
                    if outgoing.send(frame).await.is_err() {
                        return Ended::Closed;
                    }
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the recovery cannot be handed over"),
            _ => {}
        }
    }
}

async fn write_all(mut stream: WriteHalf<Stream>, frames: &mut mpsc::Receiver<Vec<u8>>) -> Ended {
    let mut waiting = Vec::with_capacity(TOGETHER);
    while frames.recv_many(&mut waiting, TOGETHER).await > 0 {
        // who is about to ask something has its turn, and what it asks goes out with this
        tokio::task::yield_now().await;
        while waiting.len() < TOGETHER
            && let Ok(frame) = frames.try_recv()
        {
            waiting.push(frame);
        }
        let written = write_frames(&mut stream, waiting.drain(..), MAX_FRAME);
        match timeout(WRITE_TIMEOUT, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return Ended::Stalled,
        }
    }
    Ended::Closed
}

async fn read_all<R: tokio::io::AsyncRead + Unpin>(
    shared: &Shared,
    mut frames: FrameReader<R>,
    publisher: &Publisher,
) -> Ended {
    loop {
        let frame = match timeout(SILENCE, frames.next()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return Ended::Closed,
            Ok(Err(error)) => return error.into(),
            Err(_) => return Ended::Silent,
        };
        let said = match cbor::decode::<FromEnclave>(&frame, MAX_FRAME) {
            Ok(said) => said,
            Err(error) => return Ended::Malformed(error),
        };
        if let Err(ended) = hear(shared, said, publisher) {
            return ended;
        }
    }
}

fn hear(shared: &Shared, said: FromEnclave, publisher: &Publisher) -> Result<(), Ended> {
    match said {
        FromEnclave::Answer { ticket, answer } => shared.answered(ticket, answer),
        FromEnclave::Reply { ticket, reply } => shared.replied(ticket, reply),
        FromEnclave::Status(status) => shared.view.send_modify(|view| {
            view.status = Some((*status, Instant::now()));
        }),
        FromEnclave::Publish { batch, files } => publisher.publish(batch, files)?,
        FromEnclave::Genesis { record } => born(shared, record, publisher)?,
        FromEnclave::Offer { offer } => publisher.keep_offer(offer),
        FromEnclave::Sealed { blob } => publisher.keep_sealed(blob),
        FromEnclave::Recovered { incarnation } => publisher.keep_recovered(incarnation),
        FromEnclave::Refused { reason } => {
            tracing::error!(%reason, "the enclave refuses its configuration");
            shared.view.send_modify(|view| view.refused = Some(reason));
        }
        FromEnclave::Halted { reason } => {
            tracing::error!(%reason, "the enclave has halted");
            shared.view.send_modify(|view| view.halted = Some(reason));
        }
    }
    Ok(())
}

/// The enclave says which cluster it belongs to. The folder holds one cluster, once and for all.
fn born(shared: &Shared, record: Vec<u8>, publisher: &Publisher) -> Result<(), Ended> {
    let (genesis, manifest) = Genesis::parse(record).map_err(Ended::Genesis)?;
    let mut known = shared.genesis();
    let foreign = |reason: String| {
        tracing::error!(%reason, "the enclave is not of this cluster");
        shared.view.send_modify(|view| view.refused = Some(reason.clone()));
        Ended::Foreign(reason)
    };
    match known.as_ref() {
        Some(own) if *own == genesis => return Ok(()),
        Some(own) => {
            return Err(foreign(format!(
                "the enclave belongs to cluster {}, and the folder to {}",
                genesis.id, own.id
            )));
        }
        None if manifest != shared.manifest => {
            return Err(foreign(format!(
                "the enclave belongs to cluster {}, which has another manifest",
                genesis.id
            )));
        }
        None => {}
    }
    tracing::info!(genesis = %genesis.id, "the cluster is born");
    shared.view.send_modify(|view| view.genesis = Some(genesis.id));
    *known = Some(genesis.clone());
    publisher.keep(genesis);
    Ok(())
}
