//! Links between nodes: bytes between this node's enclave and another node's parent.
//!
//! Of two nodes the one whose name sorts lower dials. Its parent connects to the other's relay
//! address, says `casemate-relay/1\n`, opens its own enclave's peer port with *dial*, and pipes; the
//! other parent opens its enclave's peer port with *accept* and pipes. When any end ends, all of it
//! ends, and the dialling side begins again: after a while that grows, and at once when its own enclave
//! has come to stand elsewhere, since that is why links end or could not be made.
//!
//! The parents see a Noise handshake and then ciphertext. Whoever connects here reaches as far as the
//! first message of a handshake that it cannot complete; the enclave closes on it.

mod pipe;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_door::frame::Phase;
use casemate_door::{PEER_PORT, PeerHello};
use casemate_proto::{GenesisId, NodeName, cbor};
use casemate_transport::{Address, Stream, connect, write_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::admit::Admission;
use crate::backoff::Backoff;
use crate::config::{Limits, Peer};
use crate::enclave::View;
use crate::metrics::Metrics;

/// What a dialling parent says first.
pub const PREAMBLE: &[u8] = b"casemate-relay/1\n";
/// How long connecting, and everything that is said before the bytes of a channel, may take.
const OPENING: Duration = Duration::from_secs(5);
/// A link that held this long was a good one.
const HELD: Duration = Duration::from_secs(5);
/// Most bytes of the first frame to the enclave.
const MAX_HELLO: usize = 64;

/// What links need.
#[derive(Debug)]
pub struct Links {
    /// Which node this is.
    pub node: NodeName,
    /// Where its enclave's door is.
    pub enclave: Address,
    /// What bounds them.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How the enclave is.
    pub view: watch::Receiver<View>,
}

/// Where the enclave stands, as far as links depend on it.
type Standing = (bool, Option<Phase>, Option<GenesisId>);

fn standing(view: &View) -> Standing {
    (view.connected, view.status.as_ref().map(|(status, _)| status.phase), view.genesis)
}

/// Returns when the enclave stands elsewhere than it did.
async fn turned(view: &mut watch::Receiver<View>, was: &Standing) {
    if view.wait_for(|view| standing(view) != *was).await.is_err() {
        // nobody watches the enclave any more
        std::future::pending().await
    }
}

/// Why a link was not made.
#[derive(Debug, thiserror::Error)]
enum NoLink {
    #[error("the other parent does not answer: {0}")]
    Peer(#[source] std::io::Error),
    #[error("took longer than {OPENING:?} to open")]
    Timeout,
    #[error("the enclave's peer port: {0}")]
    Enclave(#[source] casemate_transport::hybrid::ConnectError),
    #[error("the enclave's peer port: {0}")]
    Hello(#[source] casemate_transport::FrameError),
    #[error("what connected is no parent")]
    Preamble,
}

impl NoLink {
    const fn name(&self) -> &'static str {
        match self {
            Self::Peer(_) => "peer",
            Self::Timeout => "timeout",
            Self::Enclave(_) | Self::Hello(_) => "enclave",
            Self::Preamble => "preamble",
        }
    }
}

impl Links {
    /// Keeps a link to another node, for ever. The caller sees to it that this node is the one that
    /// dials.
    pub async fn dial(&self, to: &NodeName, peer: &Peer) {
        let mut backoff = Backoff::new();
        let mut told = "";
        let mut view = self.view.clone();
        loop {
            let began = Instant::now();
            let was = standing(&view.borrow_and_update());
            match timeout(OPENING, self.open(to, peer)).await.unwrap_or(Err(NoLink::Timeout)) {
                Ok((enclave, peer)) => {
                    told = "";
                    tracing::info!(%to, "link open");
                    let ended = self.pipe("dialled", enclave, peer).await;
                    tracing::info!(%to, reason = ended.name(), "link closed");
                }
                Err(error) => {
                    self.failed(&error);
                    // the same reason once, not at every try
                    if error.name() != told {
                        told = error.name();
                        tracing::warn!(%to, %error, "no link");
                    }
                }
            }
            if began.elapsed() >= HELD {
                backoff.reset();
            }
            tokio::select! {
                () = sleep(backoff.wait()) => {}
                () = turned(&mut view, &was) => backoff.reset(),
            }
        }
    }

    async fn open(&self, to: &NodeName, peer: &Peer) -> Result<(Stream, TcpStream), NoLink> {
        let mut peer = TcpStream::connect(&peer.relay).await.map_err(NoLink::Peer)?;
        let _ = peer.set_nodelay(true);
        peer.write_all(PREAMBLE).await.map_err(NoLink::Peer)?;
        let enclave = self.enclave(&PeerHello::Dial { to: to.clone() }).await?;
        Ok((enclave, peer))
    }

    /// Serves the links that other parents dial, for ever.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        let limits = &self.limits;
        let admission =
            Admission::new(limits.relay_connections, limits.relay_connections_per_address);
        let mut links = JoinSet::new();
        loop {
            // those that ended are taken out as new ones come
            while links.try_join_next().is_some() {}
            let (peer, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // of one connection, or of too many open files: both pass
                    tracing::warn!(%error, "cannot accept a link");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match admission.admit(from.ip()) {
                Err(full) => {
                    self.metrics.links_failed.get_or_create(&[("reason", full.name())]).inc();
                }
                Ok(admitted) => {
                    let own = Arc::clone(&self);
                    links.spawn(async move {
                        own.serve(peer, from).await;
                        drop(admitted);
                    });
                }
            }
        }
    }

    async fn serve(&self, peer: TcpStream, from: SocketAddr) {
        match timeout(OPENING, self.greet(peer)).await.unwrap_or(Err(NoLink::Timeout)) {
            Ok((enclave, peer)) => {
                tracing::debug!(%from, "link accepted");
                let ended = self.pipe("accepted", enclave, peer).await;
                tracing::debug!(%from, reason = ended.name(), "link closed");
            }
            Err(error) => {
                self.failed(&error);
                tracing::debug!(%from, %error, "link refused");
            }
        }
    }

    async fn greet(&self, mut peer: TcpStream) -> Result<(Stream, TcpStream), NoLink> {
        let _ = peer.set_nodelay(true);
        let mut said = [0; PREAMBLE.len()];
        peer.read_exact(&mut said).await.map_err(|_| NoLink::Preamble)?;
        if said != PREAMBLE {
            return Err(NoLink::Preamble);
        }
        Ok((self.enclave(&PeerHello::Accept).await?, peer))
    }

    async fn enclave(&self, hello: &PeerHello) -> Result<Stream, NoLink> {
        let mut enclave = connect(&self.enclave, PEER_PORT).await.map_err(NoLink::Enclave)?;
        let hello = cbor::encode(hello);
        write_frame(&mut enclave, &hello, MAX_HELLO).await.map_err(NoLink::Hello)?;
        Ok(enclave)
    }

    async fn pipe(&self, direction: &'static str, enclave: Stream, peer: TcpStream) -> pipe::Ended {
        self.metrics.links_made.get_or_create(&[("direction", direction)]).inc();
        self.metrics.links.inc();
        let count =
            |direction| self.metrics.link_bytes.get_or_create_owned(&[("direction", direction)]);
        let ended =
            pipe::pipe(enclave, peer, self.limits.link_idle, &count("out"), &count("in")).await;
        self.metrics.links.dec();
        ended
    }

    fn failed(&self, error: &NoLink) {
        self.metrics.links_failed.get_or_create(&[("reason", error.name())]).inc();
    }
}
