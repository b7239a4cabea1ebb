//! Bytes both ways between two ends, until one ends, both are silent, or one takes nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes that are under way in one direction: more than a largest frame.
const BUFFER: usize = 72 * 1024;

/// Why a pipe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// An end closed or broke.
    Closed,
    /// Neither end said anything.
    Idle,
    /// An end took nothing of what the other said.
    Stalled,
}

impl Ended {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
        }
    }
}

/// Pipes until it ends; both ends are closed then. A channel has no half: one end's end ends both.
pub(super) async fn pipe<A, B>(
    enclave: A,
    peer: B,
    patience: Duration,
    out: &Counter,
    back: &Counter,
) -> Ended
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (enclave_read, enclave_write) = tokio::io::split(enclave);
    let (peer_read, peer_write) = tokio::io::split(peer);
    let heard = Heard::now();
    tokio::select! {
        ended = copy(enclave_read, peer_write, patience, &heard, out) => ended,
        ended = copy(peer_read, enclave_write, patience, &heard, back) => ended,
        () = heard.silence(patience) => Ended::Idle,
    }
}

async fn copy<R, W>(
    mut from: R,
    mut to: W,
    patience: Duration,
    heard: &Heard,
    count: &Counter,
) -> Ended
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => return Ended::Closed,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return Ended::Closed,
        };
        heard.again();
        count.inc_by(u64::try_from(read).unwrap_or(0));
        let bytes = buffer.get(..read).unwrap_or_default();
        let write = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        match timeout(patience, write).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ended::Closed,
            Err(_) => return Ended::Stalled,
        }
    }
}

/// When something was last heard of either end.
struct Heard {
    began: Instant,
    at_ms: AtomicU64,
}

impl Heard {
    fn now() -> Self {
        Self { began: Instant::now(), at_ms: AtomicU64::new(0) }
    }

    fn again(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at_ms.store(since, Ordering::Relaxed);
    }

    /// Returns when nothing was heard for this long.
    async fn silence(&self, patience: Duration) {
        loop {
            let last =
                self.began.checked_add(Duration::from_millis(self.at_ms.load(Ordering::Relaxed)));
            let Some(until) = last.and_then(|last| last.checked_add(patience)) else { return };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    struct Ends {
        enclave: DuplexStream,
        peer: DuplexStream,
        pipe: tokio::task::JoinHandle<Ended>,
        out: Counter,
    }

    fn ends() -> Ends {
        let (enclave, inner_enclave) = duplex(1024);
        let (peer, inner_peer) = duplex(1024);
        let out = Counter::default();
        let counted = out.clone();
        let pipe = tokio::spawn(async move {
            pipe(inner_enclave, inner_peer, PATIENCE, &counted, &Counter::default()).await
        });
        Ends { enclave, peer, pipe, out }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_unchanged_and_one_end_ends_both() {
        let mut ends = ends();
        let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        let (sent, mut got) = (bytes.clone(), vec![0; bytes.len()]);
        let (wrote, read) =
            tokio::join!(ends.enclave.write_all(&sent), ends.peer.read_exact(&mut got));
        assert!(wrote.is_ok() && read.is_ok());
        assert_eq!(got, bytes);
        assert_eq!(ends.out.get(), 200_000);
        ends.peer.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        ends.enclave.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
        drop(ends.peer);
        assert_eq!(ends.pipe.await.unwrap(), Ended::Closed);
        assert_eq!(ends.enclave.read(&mut back).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_link_ends_and_one_with_a_word_now_and_then_does_not() {
        let mut ends = ends();
        let mut byte = [0];
        for _ in 0..10 {
            tokio::time::sleep(PATIENCE / 2).await;
            ends.peer.write_all(b"x").await.unwrap();
            ends.enclave.read_exact(&mut byte).await.unwrap();
        }
        assert!(!ends.pipe.is_finished());
        let began = Instant::now();
        assert_eq!(ends.pipe.await.unwrap(), Ended::Idle);
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < PATIENCE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn end_that_takes_nothing_ends_the_link() {
        let mut ends = ends();
        // the other direction is busy, so the link is not idle
        let (mut read, mut write) = tokio::io::split(ends.enclave);
        let busy = tokio::spawn(async move {
            let mut buffer = [0; 64];
            while read.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
        let flood = tokio::spawn(async move { write.write_all(&vec![0; 1 << 20]).await });
        let chatter = tokio::spawn(async move {
            while ends.peer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        assert_eq!(ends.pipe.await.unwrap(), Ended::Stalled);
        assert!(flood.await.unwrap().is_err());
        busy.await.unwrap();
        chatter.await.unwrap();
    }
}
