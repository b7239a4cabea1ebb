//! A network between parents that the demo can turn hostile.
//!
//! Every connection from one parent to another goes through a proxy of this process. As long as
//! it is quiet the proxy passes bytes on as they come. Hostile, it does to them what the owner of a
//! network can: it flips bits, drops, repeats, replays bytes of other connections, swaps, delays
//! and cuts connections off. What it does follows from a seed and the order of connections; how
//! often it did each is counted.

mod mischief;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use mischief::{Counts, Mischief, Temper};

use mischief::roll;

/// Most bytes that are passed on, or harmed, at one time. Small beside a long frame, so that frames
/// are harmed inside as well.
const CHUNK: usize = 2_048;
/// How long a chunk that is to be swapped with the next one waits for it.
const SWAP_WITHIN: Duration = Duration::from_millis(100);
/// How many chunks of all connections are kept for replaying.
const REMEMBERED: usize = 64;
/// How long a connection to a parent may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The proxies between the parents. They end when this is dropped.
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
    listening: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    hostile: AtomicBool,
    temper: Temper,
    seed: u64,
    connections: AtomicU64,
    /// How many chunks met something.
    turn: AtomicUsize,
    counts: [AtomicU64; Mischief::ALL.len()],
    seen: Mutex<VecDeque<Vec<u8>>>,
}

impl Network {
    /// A quiet network without routes. What it will do when it is hostile follows from the seed.
    #[must_use]
    pub fn new(seed: u64, temper: Temper) -> Self {
        let shared = Shared {
            hostile: AtomicBool::new(false),
            temper,
            seed,
            connections: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            counts: Default::default(),
            seen: Mutex::default(),
        };
        Self { shared: Arc::new(shared), listening: JoinSet::new() }
    }

    /// A way to this address: connections to the answered one are passed on. Must be called within
    /// a runtime.
    ///
    /// # Errors
    /// If there is no port to listen on.
    pub async fn route(&mut self, to: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        self.listening.spawn(listen(listener, to, Arc::clone(&self.shared)));
        Ok(address)
    }

    /// From here on it harms what passes, or no longer does.
    pub fn set_hostile(&self, hostile: bool) {
        self.shared.hostile.store(hostile, Ordering::Relaxed);
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (what, count) in Mischief::ALL.into_iter().zip(&self.shared.counts) {
            counts.set(what, count.load(Ordering::Relaxed));
        }
        counts
    }
}

async fn listen(listener: TcpListener, to: SocketAddr, shared: Arc<Shared>) {
    // they end with this task
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(pass(stream, to, Arc::clone(&shared)));
                }
                // no more descriptors, for the moment
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes one connection on until one end closes it; then both are closed.
async fn pass(from: TcpStream, to: SocketAddr, shared: Arc<Shared>) {
    let Ok(Ok(to)) = timeout(CONNECT_WITHIN, TcpStream::connect(to)).await else { return };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    let (from_read, from_write) = from.into_split();
    let (to_read, to_write) = to.into_split();
    tokio::select! {
        () = pump(from_read, to_write, shared.dice(number, 0), &shared) => {}
        () = pump(to_read, from_write, shared.dice(number, 1), &shared) => {}
    }
}

/// Carries bytes one way until an end is reached, a write fails, or it cuts the connection off.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut dice: ChaCha20Rng,
    shared: &Shared,
) {
    let mut buffer = [0; CHUNK];
    let mut held: Option<Vec<u8>> = None;
    loop {
        let read = if held.is_some() {
            timeout(SWAP_WITHIN, from.read(&mut buffer)).await
        } else {
            Ok(from.read(&mut buffer).await)
        };
        let chunk = match read {
            Ok(Ok(size)) => match buffer.get(..size) {
                Some(chunk) if size > 0 => chunk.to_vec(),
                _ => return,
            },
            Ok(Err(_)) => return,
            // nothing to swap with came
            Err(_) => Vec::new(),
        };
        let mut out = Vec::new();
        if !chunk.is_empty() {
            match shared.harm(&mut dice, chunk, held.is_some()).await {
                Harmed::Pass(chunks) => out.extend(chunks),
                Harmed::Hold(chunk) => {
                    held = Some(chunk);
                    continue;
                }
                Harmed::Cut => return,
            }
        }
        out.extend(held.take());
        for chunk in out {
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    }
}

/// What became of a chunk.
enum Harmed {
    /// These are passed on in its place.
    Pass(Vec<Vec<u8>>),
    /// It waits for the next one, which goes first.
    Hold(Vec<u8>),
    /// The connection ends here.
    Cut,
}

impl Shared {
    fn dice(&self, connection: u64, way: u8) -> ChaCha20Rng {
        let mut seed = [0; 32];
        let parts = self.seed.to_be_bytes().into_iter().chain(connection.to_be_bytes());
        for (to, from) in seed.iter_mut().zip(parts.chain([way])) {
            *to = from;
        }
        ChaCha20Rng::from_seed(seed)
    }

    fn count(&self, what: Mischief) {
        for (known, count) in Mischief::ALL.into_iter().zip(&self.counts) {
            if known == what {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Remembers a chunk, and gives one of those before it.
    fn replay(&self, chunk: &[u8], at: u32) -> Option<Vec<u8>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED {
            seen.pop_front();
        }
        let at = usize::try_from(at).ok().and_then(|at| at.checked_rem(seen.len()));
        let old = at.and_then(|at| seen.get(at).cloned());
        seen.push_back(chunk.to_vec());
        old
    }

    async fn harm(&self, dice: &mut ChaCha20Rng, mut chunk: Vec<u8>, holding: bool) -> Harmed {
        let old = self.replay(&chunk, roll(dice, u32::MAX));
        if !self.hostile.load(Ordering::Relaxed) {
            return Harmed::Pass(vec![chunk]);
        }
        let Some(mischief) = self.temper.pick(dice, || self.turn.fetch_add(1, Ordering::Relaxed))
        else {
            return Harmed::Pass(vec![chunk]);
        };
        let done = match mischief {
            Mischief::Flip => {
                let size = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
                let (at, bit) = (roll(dice, size), roll(dice, 8));
                if let Some(byte) = usize::try_from(at).ok().and_then(|at| chunk.get_mut(at)) {
                    *byte ^= 1_u8.checked_shl(bit).unwrap_or(1);
                }
                Harmed::Pass(vec![chunk])
            }
            Mischief::Drop => Harmed::Pass(Vec::new()),
            Mischief::Repeat => Harmed::Pass(vec![chunk.clone(), chunk]),
            Mischief::Replay => match old {
                Some(old) => Harmed::Pass(vec![old, chunk]),
                None => return Harmed::Pass(vec![chunk]),
            },
            // one is held already, and this one is what it is swapped with
            Mischief::Swap if holding => return Harmed::Pass(vec![chunk]),
            Mischief::Swap => Harmed::Hold(chunk),
            Mischief::Delay => {
                sleep(Duration::from_millis(u64::from(roll(dice, self.temper.delay_ms)))).await;
                Harmed::Pass(vec![chunk])
            }
            Mischief::Cut => Harmed::Cut,
        };
        self.count(mischief);
        done
    }
}

#[cfg(test)]
mod tests;
