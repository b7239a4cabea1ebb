//! Channels to peers: a connection of the parent's, a handshake, then frames both ways.
//!
//! What the parent relays here is whatever it likes. A link is worth something only once the handshake
//! has made an [`AttestedPeer`]; from then on every message is that boot's, in order, or the link
//! is dead.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use casemate_channel::wire::Hello;
use casemate_channel::{
    AttestedPeer, Channel, Expected, Handshake, LocalIdentity, Opener, Progress, Sealer,
};
use casemate_door::{MAX_PEER_FRAME, PeerHello};
use casemate_proto::{BootId, Hash32, NodeName};
use casemate_transport::Stream;
use casemate_transport::frame::{read_frame, write_frame, write_frames};
use tokio::io::{BufReader, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::platform::Platform;

/// Most handshakes at one time, either way: each costs a signature of the security module and five of P-384 to
/// verify.
const MAX_HANDSHAKES: usize = 8;
/// Most bytes of a parent's first frame.
const MAX_HELLO: usize = 256;
/// Bytes of the key that a handshake's first message begins with.
const NOISE_KEY: usize = 32;
/// Most messages that wait for a link's connection, and most bytes of them.
const QUEUE: usize = 1_024;
const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that are read at one time: many messages, where many wait.
const READ_AHEAD: usize = 16 * 1024;
/// Most messages that are sealed and written together.
const TOGETHER: usize = 32;

type Reader = BufReader<ReadHalf<Stream>>;

/// Who this boot is to its peers, and whom it takes for one.
#[derive(Clone, Debug)]
pub(crate) struct LinkPolicy {
    pub(crate) identity: Arc<LocalIdentity>,
    /// What this boot goes by now.
    pub(crate) expected: Expected,
    /// What initial boots went by before their genesis had an id. A peer that did not hear the last
    /// echo still does; over such a link only the birth's messages go.
    pub(crate) birth: Option<Expected>,
}

impl LinkPolicy {
    fn expected(&self, scope: &Hash32) -> Option<&Expected> {
        [Some(&self.expected), self.birth.as_ref()]
            .into_iter()
            .flatten()
            .find(|expected| expected.scope == *scope)
    }
}

/// A link that is up.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) number: u64,
    /// The boot that this enclave was in the handshake.
    pub(crate) own: BootId,
    pub(crate) peer: Arc<AttestedPeer>,
    /// What both went by in the handshake.
    pub(crate) scope: Hash32,
    pub(crate) up_since: Instant,
    /// When something last came on it.
    pub(crate) heard: Instant,
    queue: mpsc::Sender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
}

impl Link {
    /// Queues a message. `false` if the peer does not keep up, or the link is gone: the message is
    /// lost.
    pub(crate) fn send(&self, message: Vec<u8>) -> bool {
        let len = message.len();
        if self.queued.fetch_add(len, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.queued.fetch_sub(len, Ordering::Relaxed);
            return false;
        }
        let taken = self.queue.try_send(message).is_ok();
        if !taken {
            self.queued.fetch_sub(len, Ordering::Relaxed);
        }
        taken
    }
}

/// What comes of links.
#[derive(Debug)]
pub(crate) enum FromLink {
    /// A peer is attested and its link is up.
    Up(Link),
    /// It said something.
    Said {
        /// On which link.
        link: u64,
        /// What.
        message: Vec<u8>,
    },
    /// A link is gone.
    Down {
        /// Which.
        link: u64,
    },
}

/// Serves connections on the peers' port.
pub(crate) struct LinkRoom {
    platform: Arc<Platform>,
    policy: watch::Receiver<Option<Arc<LinkPolicy>>>,
    out: mpsc::Sender<FromLink>,
    dialling: Semaphore,
    accepting: Semaphore,
    /// Nodes that refused this boot's cluster when they were dialled last: they may still be at the
    /// birth, and are dialled for that next.
    at_birth: Mutex<BTreeSet<NodeName>>,
}

/// Why a connection became no link, or a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("this boot has no cluster yet")]
    NotReady,
    #[error("the parent's first frame is malformed: {0}")]
    Hello(casemate_proto::cbor::CborError),
    #[error("the handshake took too long")]
    Slow,
    #[error("the connection ended")]
    Ended,
    #[error(transparent)]
    Frame(#[from] casemate_transport::FrameError),
    #[error(transparent)]
    Refused(#[from] casemate_channel::Refused),
    #[error(transparent)]
    Nsm(#[from] casemate_nsm::NsmError),
    #[error(transparent)]
    Broken(#[from] casemate_channel::Broken),
}

impl LinkRoom {
    pub(crate) fn new(
        platform: Arc<Platform>,
        policy: watch::Receiver<Option<Arc<LinkPolicy>>>,
        out: mpsc::Sender<FromLink>,
    ) -> Self {
        Self {
            platform,
            policy,
            out,
            dialling: Semaphore::new(MAX_HANDSHAKES),
            accepting: Semaphore::new(MAX_HANDSHAKES),
            at_birth: Mutex::new(BTreeSet::new()),
        }
    }

    /// Serves one connection until it ends.
    pub(crate) async fn serve(&self, number: u64, stream: Stream) {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
        let patience = self.platform.settings.handshake;
        let shaken = tokio::time::timeout(patience, self.shake(&mut reader, &mut writer)).await;
        let Shaken { channel, peer, own, scope } = match shaken.unwrap_or(Err(LinkError::Slow)) {
            Ok(shaken) => shaken,
            Err(error @ (LinkError::Ended | LinkError::NotReady)) => {
                tracing::debug!(link = number, %error, "no link");
                return;
            }
            Err(error) => {
                tracing::warn!(link = number, %error, "no link");
                return;
            }
        };
        tracing::info!(link = number, node = %peer.node(), "link up");
        let (sealer, opener) = channel.split();
        let (queue, messages) = mpsc::channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let peer = Arc::new(peer);
        let link = Link {
            number,
            own,
            peer: Arc::clone(&peer),
            scope,
            up_since: Instant::now(),
            heard: Instant::now(),
            queue,
            queued: Arc::clone(&queued),
        };
        if self.out.send(FromLink::Up(link)).await.is_err() {
            return;
        }
        let end = tokio::select! {
            end = write_messages(writer, sealer, messages, &queued) => end,
            end = self.read_messages(number, reader, opener) => end,
        };
        tracing::info!(link = number, node = %peer.node(), error = %end, "link down");
        let _ = self.out.send(FromLink::Down { link: number }).await;
    }

    async fn shake(
        &self,
        reader: &mut Reader,
        writer: &mut WriteHalf<Stream>,
    ) -> Result<Shaken, LinkError> {
        let hello = read_frame(reader, MAX_HELLO).await?.ok_or(LinkError::Ended)?;
        let hello: PeerHello =
            casemate_proto::cbor::decode(&hello, MAX_HELLO).map_err(LinkError::Hello)?;
        let policy = self.policy.borrow().clone().ok_or(LinkError::NotReady)?;
        let own = policy.identity.boot();
        let mut entropy = (self.platform.entropy)()?;
        let _permit;
        let (handshake, scope) = match hello {
            PeerHello::Dial { to } => {
                let _permit = self.dialling.acquire().await.map_err(|_| LinkError::NotReady)?;
                let expected = self.expected_of(&to, &policy);
                let scope = expected.scope;
                let (handshake, first) =
                    Handshake::dial(&policy.identity, expected, &to, entropy.as_mut())?;
                write_frame(writer, &first, MAX_PEER_FRAME).await?;
                let shaken = self.rest(reader, writer, handshake).await;
                let is_member = policy.birth.is_some();
                if shaken.is_err() && is_member && scope == policy.expected.scope {
                    self.at_birth.lock().unwrap_or_else(PoisonError::into_inner).insert(to);
                }
                return shaken.map(|(channel, peer)| Shaken { channel, peer, own, scope });
            }
            PeerHello::Accept => {
                let first = read_frame(reader, MAX_PEER_FRAME).await?.ok_or(LinkError::Ended)?;
                // a place is taken by who has said something: idle connections take none from others
                _permit = self.accepting.acquire().await.map_err(|_| LinkError::NotReady)?;
                // read here to choose what to expect; the handshake reads and refuses it itself
                let scope = first.get(NOISE_KEY..).and_then(|hello| Hello::decode(hello).ok());
                let expected = scope
                    .and_then(|hello| policy.expected(&hello.scope))
                    .unwrap_or(&policy.expected)
                    .clone();
                let scope = expected.scope;
                let handshake = Handshake::accept(&policy.identity, expected, entropy.as_mut())?;
                match self.step(handshake, &first, writer).await? {
                    Step::Again(handshake) => (handshake, scope),
                    Step::Done(channel, peer) => {
                        return Ok(Shaken { channel, peer: *peer, own, scope });
                    }
                }
            }
        };
        let (channel, peer) = self.rest(reader, writer, handshake).await?;
        Ok(Shaken { channel, peer, own, scope })
    }

    /// What to expect of a node that is dialled.
    fn expected_of(&self, to: &NodeName, policy: &LinkPolicy) -> Expected {
        let mut at_birth = self.at_birth.lock().unwrap_or_else(PoisonError::into_inner);
        match &policy.birth {
            Some(birth) if at_birth.remove(to) => birth.clone(),
            _ => policy.expected.clone(),
        }
    }

    async fn rest(
        &self,
        reader: &mut Reader,
        writer: &mut WriteHalf<Stream>,
        mut handshake: Handshake,
    ) -> Result<(Channel, AttestedPeer), LinkError> {
        loop {
            let message = read_frame(reader, MAX_PEER_FRAME).await?.ok_or(LinkError::Ended)?;
            match self.step(handshake, &message, writer).await? {
                Step::Again(next) => handshake = next,
                Step::Done(channel, peer) => return Ok((channel, *peer)),
            }
        }
    }

    async fn step(
        &self,
        handshake: Handshake,
        message: &[u8],
        writer: &mut WriteHalf<Stream>,
    ) -> Result<Step, LinkError> {
        let now = self.platform.clock.now();
        match handshake.receive(message, self.platform.attest.as_ref(), now)? {
            Progress::Continue { handshake, send } => {
                write_frame(writer, &send, MAX_PEER_FRAME).await?;
                Ok(Step::Again(handshake))
            }
            Progress::Done { channel, peer, send } => {
                if let Some(send) = send {
                    write_frame(writer, &send, MAX_PEER_FRAME).await?;
                }
                Ok(Step::Done(channel, peer))
            }
        }
    }

    async fn read_messages(&self, link: u64, mut reader: Reader, mut opener: Opener) -> LinkError {
        loop {
            let frame = match read_frame(&mut reader, MAX_PEER_FRAME).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return LinkError::Ended,
                Err(error) => return error.into(),
            };
            match opener.open(&frame) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    if self.out.send(FromLink::Said { link, message }).await.is_err() {
                        return LinkError::Ended;
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }
}

/// What a handshake makes.
struct Shaken {
    channel: Channel,
    peer: AttestedPeer,
    own: BootId,
    scope: Hash32,
}

enum Step {
    Again(Handshake),
    Done(Channel, Box<AttestedPeer>),
}

async fn write_messages(
    mut writer: WriteHalf<Stream>,
    mut sealer: Sealer,
    mut messages: mpsc::Receiver<Vec<u8>>,
    queued: &AtomicUsize,
) -> LinkError {
    let mut waiting = Vec::with_capacity(TOGETHER);
    while messages.recv_many(&mut waiting, TOGETHER).await > 0 {
        // who is about to say something has its turn, and what it says goes out with this; nobody waits for it
        tokio::task::yield_now().await;
        while waiting.len() < TOGETHER
            && let Ok(message) = messages.try_recv()
        {
            waiting.push(message);
        }
        let mut frames = Vec::new();
        for message in waiting.drain(..) {
            queued.fetch_sub(message.len(), Ordering::Relaxed);
            match sealer.seal(&message) {
                Ok(sealed) => frames.extend(sealed),
                Err(error) => return error.into(),
            }
        }
        if let Err(error) = write_frames(&mut writer, &frames, MAX_PEER_FRAME).await {
            return error.into();
        }
    }
    LinkError::Ended
}
