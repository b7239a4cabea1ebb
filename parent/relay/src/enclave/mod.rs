//! The control connection to the enclave.
//!
//! One connection at a time is kept, and made anew when it breaks. It begins with the
//! configuration; then submissions and queries go in under tickets, and answers come out under the
//! same. A ticket is never used twice in the life of the process, so an answer that comes late, of a
//! request that nobody waits for any more or of a connection that is gone, is never taken for
//! another's.
//!
//! What waits is bounded. When the connection breaks, everything that waits is told so; the client
//! asks again under its own request id, which the enclave knows if it had got that far.

mod connection;
mod publish;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use casemate_door::frame::Phase;
use casemate_door::{
    Answer, Configuration, MAX_FRAME, Query, SignedReply, Status, Submission, Ticket, ToEnclave,
};
use casemate_proto::{GenesisId, Incarnation, NodeName, cbor};
use casemate_transport::Address;
use tokio::sync::{mpsc, oneshot, watch};

use crate::folder::{Folder, Genesis};
use crate::metrics::Metrics;
use crate::store::Store;

/// Frames that wait to be written to the enclave.
const MAX_OUTGOING: usize = 256;

/// How the enclave is, as far as it said so.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether there is a connection.
    pub connected: bool,
    /// What it said last on this connection, and when.
    pub status: Option<(Status, Instant)>,
    /// Why it refuses its configuration, or belongs to another cluster than the folder.
    pub refused: Option<String>,
    /// Why it has halted.
    pub halted: Option<String>,
    /// Why the disk does not take what is to be kept.
    pub store_error: Option<String>,
    /// The cluster, where it has been born.
    pub genesis: Option<GenesisId>,
}

impl View {
    /// Whether the enclave said that it is a member.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.status.as_ref().is_some_and(|(status, _)| status.phase == Phase::Member)
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("the enclave is not connected")]
    NotConnected,
    /// Too much waits already.
    #[error("too much waits for the enclave")]
    Overloaded,
    /// The connection broke after the question was sent: it may have been heard.
    #[error("the enclave went away while it worked on this")]
    WentAway,
    /// Larger than a frame.
    #[error("too large for the enclave's door")]
    TooLarge,
    /// The enclave is not a member of its cluster yet.
    #[error("the enclave is not a member of its cluster yet")]
    NotAMember,
}

/// Who waits for what.
#[derive(Debug)]
enum Waiter {
    Answer(oneshot::Sender<Answer>),
    Reply(oneshot::Sender<Option<SignedReply>>),
}

/// A connection as those see it who ask.
#[derive(Debug)]
struct Link {
    outgoing: mpsc::Sender<Vec<u8>>,
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    configuration: Configuration,
    manifest: casemate_proto::manifest::Manifest,
    folder: Arc<Folder>,
    store: Store,
    metrics: Arc<Metrics>,
    most_waiting: usize,
    next_ticket: AtomicU64,
    link: Mutex<Option<Link>>,
    genesis: Mutex<Option<Genesis>>,
    view: watch::Sender<View>,
}

/// What an [`Enclave`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where its door is.
    pub address: Address,
    /// Which node it is.
    pub node: NodeName,
    /// The manifest.
    pub manifest: casemate_proto::manifest::Manifest,
    /// Pairs of triples to keep.
    pub triple_stock: Option<u64>,
    /// The longest round trip between any two nodes, in milliseconds.
    pub round_trip_ms: Option<u64>,
    /// The genesis, where it is known.
    pub genesis: Option<Genesis>,
    /// Where the genesis goes.
    pub folder: Arc<Folder>,
    /// Where everything that is published goes.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How much may wait.
    pub most_waiting: usize,
    /// How it is.
    pub view: watch::Sender<View>,
}

/// The enclave, for those who ask it.
#[derive(Clone, Debug)]
pub struct Enclave(Arc<Shared>);

impl Enclave {
    /// Not connected yet: [`Self::run`] does that.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let id = parts.genesis.as_ref().map(|genesis| genesis.id);
        parts.view.send_modify(|view| view.genesis = id);
        Self(Arc::new(Shared {
            address: parts.address,
            configuration: Configuration {
                node: parts.node,
                manifest: cbor::encode(&parts.manifest),
                genesis: None,
                triple_stock: parts.triple_stock,
                round_trip_ms: parts.round_trip_ms,
                // what the folder says at each connection
                incarnation: Incarnation(0),
                recovers: false,
            },
            manifest: parts.manifest,
            folder: parts.folder,
            store: parts.store,
            metrics: parts.metrics,
            most_waiting: parts.most_waiting,
            next_ticket: AtomicU64::new(0),
            link: Mutex::new(None),
            genesis: Mutex::new(parts.genesis),
            view: parts.view,
        }))
    }

    /// Keeps a connection to the enclave, for ever. Dropped, it closes it.
    pub async fn run(&self) {
        connection::run(&self.0).await;
    }

    /// How it is.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<View> {
        self.0.view.subscribe()
    }

    /// The genesis record, where the cluster has been born.
    #[must_use]
    pub fn genesis(&self) -> Option<Genesis> {
        self.0.genesis().clone()
    }

    /// Submits something and waits for the answer, for as long as the caller does.
    ///
    /// # Errors
    /// If there will be none.
    pub async fn submit(&self, submission: Submission) -> Result<Answer, AskError> {
        let ticket = self.0.ticket();
        let frame = ToEnclave::Submit { ticket, submission };
        let (sender, receiver) = oneshot::channel();
        let _waits = self.0.ask(ticket, &frame, Waiter::Answer(sender))?;
        receiver.await.map_err(|_| AskError::WentAway)
    }

    /// Asks something and waits for the reply, for as long as the caller does.
    ///
    /// # Errors
    /// If there will be none.
    pub async fn ask(&self, query: Query) -> Result<SignedReply, AskError> {
        let ticket = self.0.ticket();
        let frame = ToEnclave::Ask { ticket, query };
        let (sender, receiver) = oneshot::channel();
        let _waits = self.0.ask(ticket, &frame, Waiter::Reply(sender))?;
        receiver.await.map_err(|_| AskError::WentAway)?.ok_or(AskError::NotAMember)
    }
}

/// Somebody waits under a ticket; nobody does once this is dropped.
struct Waits<'a> {
    shared: &'a Shared,
    ticket: Ticket,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.shared.link().as_mut() {
            link.waiting.remove(&self.ticket.0);
        }
        self.shared.metrics.waiting.dec();
    }
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn genesis(&self) -> MutexGuard<'_, Option<Genesis>> {
        self.genesis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed))
    }

    fn ask(
        &self,
        ticket: Ticket,
        frame: &ToEnclave,
        waiter: Waiter,
    ) -> Result<Waits<'_>, AskError> {
        let frame = cbor::encode(frame);
        if frame.len() > MAX_FRAME {
            return Err(AskError::TooLarge);
        }
        let mut guard = self.link();
        let link = guard.as_mut().ok_or(AskError::NotConnected)?;
        if link.waiting.len() >= self.most_waiting {
            return Err(AskError::Overloaded);
        }
        link.outgoing.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => AskError::NotConnected,
        })?;
        link.waiting.insert(ticket.0, waiter);
        self.metrics.waiting.inc();
        Ok(Waits { shared: self, ticket })
    }

    /// Gives an answer to whoever waits for it under this ticket.
    fn answered(&self, ticket: Ticket, answer: Answer) {
        let kind = match answer {
            Answer::Signed(_) => "signed",
            Answer::Denied(_) => "denied",
            Answer::Pending(_) => "pending",
            Answer::Accepted { .. } => "accepted",
            Answer::Expired(_) => "expired",
            Answer::Recorded { .. } => "recorded",
            Answer::Unknown => "unknown",
            Answer::Busy { .. } => "busy",
        };
        self.metrics.answers.get_or_create(&[("outcome", kind)]).inc();
        let taken = self.take(ticket, |waiter| matches!(waiter, Waiter::Answer(_)));
        let given = match taken {
            Some(Waiter::Answer(sender)) => sender.send(answer).is_ok(),
            _ => false,
        };
        if !given {
            self.metrics.late_answers.inc();
        }
    }

    /// Gives a reply to whoever waits for it under this ticket.
    fn replied(&self, ticket: Ticket, reply: Option<SignedReply>) {
        let taken = self.take(ticket, |waiter| matches!(waiter, Waiter::Reply(_)));
        let given = match taken {
            Some(Waiter::Reply(sender)) => sender.send(reply).is_ok(),
            _ => false,
        };
        if !given {
            self.metrics.late_answers.inc();
        }
    }

    /// Takes who waits under a ticket, if it is for this kind of answer.
    fn take(&self, ticket: Ticket, fits: impl FnOnce(&Waiter) -> bool) -> Option<Waiter> {
        let mut guard = self.link();
        let waiting = &mut guard.as_mut()?.waiting;
        if waiting.get(&ticket.0).is_some_and(fits) { waiting.remove(&ticket.0) } else { None }
    }
}
