//! Frames: a length of four bytes, big endian, then that many bytes.
//!
//! ```text
//! frame = u32be length (1 ..= cap) ‖ bytes
//! ```
//!
//! The cap is the reader's, by what it expects; a longer frame ends the connection before any of it
//! is read. An empty frame means nothing in any of our protocols and is refused.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Memory set aside for a frame before any of it has arrived.
const FIRST_READ: usize = 16 * 1024;
/// A frame up to this size leaves in one write together with its length.
const ONE_WRITE: usize = 64 * 1024;

/// Why a frame could not be read or written. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than the cap.
    #[error("a frame of {size} bytes where at most {cap} are allowed")]
    TooLarge {
        /// How long it was said to be.
        size: usize,
        /// How long it may be.
        cap: usize,
    },
    /// A frame of no bytes.
    #[error("an empty frame")]
    Empty,
    /// The other end stopped within a frame.
    #[error("the connection ended within a frame, {missing} bytes early")]
    Truncated {
        /// How many bytes were still to come, as far as that is known.
        missing: usize,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
}

/// Reads frames, none of whose bytes are lost when a [`FrameReader::next`] is dropped half-way.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    cap: usize,
    /// The next frame's length, as far as it has arrived.
    head: Vec<u8>,
    /// The next frame's bytes, as far as they have arrived.
    body: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `cap` bytes.
    pub const fn new(stream: R, cap: usize) -> Self {
        Self { stream, cap, head: Vec::new(), body: Vec::new() }
    }

    /// The next frame; `None` where the other end closed between two frames.
    ///
    /// Cancel-safe: it may be dropped and called again, as in a `select!`.
    ///
    /// # Errors
    /// If the frame is longer than the cap, empty or cut off, or the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        fill(&mut self.stream, &mut self.head, 4).await?;
        let Some(head) = self.head.first_chunk::<4>() else {
            return match self.head.len() {
                0 => Ok(None),
                have => Err(FrameError::Truncated { missing: 4_usize.saturating_sub(have) }),
            };
        };
        // a length that the platform cannot even count is too large
        let size = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if size > self.cap {
            return Err(FrameError::TooLarge { size, cap: self.cap });
        }
        if size == 0 {
            return Err(FrameError::Empty);
        }
        fill(&mut self.stream, &mut self.body, size).await?;
        let missing = size.saturating_sub(self.body.len());
        if missing > 0 {
            return Err(FrameError::Truncated { missing });
        }
        self.head.clear();
        Ok(Some(core::mem::take(&mut self.body)))
    }

    /// The stream, for bytes that are no frames. What of a next frame has been read already is lost,
    /// so this belongs directly behind a [`Self::next`] that returned.
    pub fn into_inner(self) -> R {
        self.stream
    }
}

/// Reads until `buffer` holds `size` bytes or the stream ends. Every byte read is in the buffer when
/// this is dropped. The buffer grows with what arrives, at most to the double.
async fn fill<R: AsyncRead + Unpin>(
    stream: &mut R,
    buffer: &mut Vec<u8>,
    size: usize,
) -> Result<(), FrameError> {
    loop {
        let have = buffer.len();
        let missing = size.saturating_sub(have);
        if missing == 0 {
            return Ok(());
        }
        buffer.reserve_exact(missing.min(have.max(FIRST_READ)));
        let limit = u64::try_from(missing).unwrap_or(u64::MAX);
        match (&mut *stream).take(limit).read_buf(buffer).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FrameError::Broken(error)),
        }
    }
}

/// Reads one frame of at most `cap` bytes; `None` where the other end closed before it.
///
/// Not cancel-safe: what was read is lost when this is dropped. [`FrameReader`] is.
///
/// # Errors
/// If the frame is longer than the cap, empty or cut off, or the connection breaks.
pub async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    cap: usize,
) -> Result<Option<Vec<u8>>, FrameError> {
    FrameReader::new(stream, cap).next().await
}

/// Writes one frame of at most `cap` bytes and flushes it.
///
/// Not cancel-safe: dropped half-way, it leaves the connection of no further use.
///
/// # Errors
/// If the frame is longer than the cap or empty (nothing is written then), or the connection breaks.
pub async fn write_frame<W: AsyncWrite + Unpin>(
    stream: &mut W,
    bytes: &[u8],
    cap: usize,
) -> Result<(), FrameError> {
    write_frames(stream, [bytes], cap).await
}

/// Writes frames, each of at most `cap` bytes, with as few calls as they fit in, and flushes them.
///
/// Not cancel-safe, as [`write_frame`].
///
/// # Errors
/// If a frame is longer than the cap or empty (those before it may be written), or the connection
/// breaks.
pub async fn write_frames<W: AsyncWrite + Unpin>(
    stream: &mut W,
    frames: impl IntoIterator<Item = impl AsRef<[u8]>>,
    cap: usize,
) -> Result<(), FrameError> {
    let mut ready = Vec::new();
    for frame in frames {
        let bytes = frame.as_ref();
        let size = bytes.len();
        if size == 0 {
            return Err(FrameError::Empty);
        }
        let too_large = || FrameError::TooLarge { size, cap };
        if size > cap {
            return Err(too_large());
        }
        let head = u32::try_from(size).map_err(|_| too_large())?.to_be_bytes();
        if !ready.is_empty() && ready.len().saturating_add(size) > ONE_WRITE {
            put(stream, &ready).await?;
            ready.clear();
        }
        ready.extend_from_slice(&head);
        if size > ONE_WRITE {
            put(stream, &ready).await?;
            ready.clear();
            put(stream, bytes).await?;
        } else {
            ready.extend_from_slice(bytes);
        }
    }
    put(stream, &ready).await?;
    stream.flush().await.map_err(FrameError::Broken)
}

/// Writes all of it. Unlike tokio's `write_all` it goes on after an interrupted call.
async fn put<W: AsyncWrite + Unpin>(stream: &mut W, mut bytes: &[u8]) -> Result<(), FrameError> {
    while !bytes.is_empty() {
        match stream.write(bytes).await {
            Ok(0) => return Err(FrameError::Broken(io::ErrorKind::WriteZero.into())),
            Ok(wrote) => bytes = bytes.get(wrote..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FrameError::Broken(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use core::pin::Pin;
    use core::task::{Context, Poll};
    use std::collections::VecDeque;

    use tokio::io::ReadBuf;

    use super::*;

    /// A stream that gives and takes as it is told: some bytes, an interruption, or the end.
    #[derive(Default)]
    struct Moody {
        gives: VecDeque<io::Result<Vec<u8>>>,
        takes: VecDeque<io::Result<usize>>,
        taken: Vec<u8>,
    }

    impl AsyncRead for Moody {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.gives.pop_front() {
                None => Poll::Ready(Ok(())),
                Some(Err(error)) => Poll::Ready(Err(error)),
                Some(Ok(mut bytes)) => {
                    let rest = bytes.split_off(bytes.len().min(buffer.remaining()));
                    buffer.put_slice(&bytes);
                    if !rest.is_empty() {
                        self.gives.push_front(Ok(rest));
                    }
                    Poll::Ready(Ok(()))
                }
            }
        }
    }

    impl AsyncWrite for Moody {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            match self.takes.pop_front().unwrap_or(Ok(bytes.len())) {
                Ok(count) => {
                    let count = count.min(bytes.len());
                    self.taken.extend_from_slice(&bytes[..count]);
                    Poll::Ready(Ok(count))
                }
                Err(error) => Poll::Ready(Err(error)),
            }
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn interrupted<T>() -> io::Result<T> {
        Err(io::ErrorKind::Interrupted.into())
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_and_then_the_end() {
        let (mut a, b) = tokio::io::duplex(1 << 20);
        let large = vec![7; ONE_WRITE + 1];
        for bytes in [b"one".as_slice(), b"2", &large] {
            write_frame(&mut a, bytes, 1 << 20).await.unwrap();
        }
        drop(a);
        let mut reader = FrameReader::new(b, 1 << 20);
        assert_eq!(reader.next().await.unwrap().unwrap(), b"one");
        assert_eq!(reader.next().await.unwrap().unwrap(), b"2");
        assert_eq!(reader.next().await.unwrap().unwrap(), large);
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn frames_written_together_come_out_apart_and_small_ones_leave_in_one_write() {
        let large = vec![7; ONE_WRITE + 1];
        let frames = [b"one".as_slice(), b"2", &large, b"three"];
        let mut out = Vec::new();
        write_frames(&mut out, frames, 1 << 20).await.unwrap();
        let mut reader = FrameReader::new(out.as_slice(), 1 << 20);
        for frame in frames {
            assert_eq!(reader.next().await.unwrap().unwrap(), frame);
        }
        // all in the one write that is taken
        let mut stream = Moody { takes: [Ok(64), Ok(0)].into(), ..Moody::default() };
        write_frames(&mut stream, [b"one", b"two"], 10).await.unwrap();
        assert_eq!(stream.taken, b"\0\0\0\x03one\0\0\0\x03two");
        assert!(write_frames(&mut out, [b"one".as_slice(), b""], 10).await.is_err());
    }

    #[tokio::test]
    async fn bytes_behind_a_frame_stay_in_the_stream() {
        let mut stream: &[u8] = b"\0\0\0\x01ahello";
        assert_eq!(read_frame(&mut stream, 10).await.unwrap().unwrap(), b"a");
        assert_eq!(stream, b"hello");
    }

    #[tokio::test]
    async fn interrupted_and_partial_reads_lose_nothing() {
        let mut stream = Moody::default();
        for byte in b"\0\0\0\x03abc\0\0\0\x01d" {
            stream.gives.push_back(interrupted());
            stream.gives.push_back(Ok(vec![*byte]));
        }
        let mut reader = FrameReader::new(stream, 10);
        assert_eq!(reader.next().await.unwrap().unwrap(), b"abc");
        assert_eq!(reader.next().await.unwrap().unwrap(), b"d");
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn interrupted_and_partial_writes_lose_nothing() {
        let mut stream = Moody {
            takes: [interrupted(), Ok(1), interrupted(), Ok(2), Ok(1), Ok(1)].into(),
            ..Moody::default()
        };
        write_frame(&mut stream, b"abc", 10).await.unwrap();
        assert_eq!(stream.taken, b"\0\0\0\x03abc");
    }

    #[tokio::test]
    async fn write_that_takes_nothing_is_an_error_and_no_endless_loop() {
        let mut stream = Moody { takes: [Ok(0)].into(), ..Moody::default() };
        let error = write_frame(&mut stream, b"abc", 10).await.unwrap_err();
        assert!(matches!(error, FrameError::Broken(e) if e.kind() == io::ErrorKind::WriteZero));
    }

    #[tokio::test]
    async fn next_that_is_dropped_half_way_goes_on_where_it_was() {
        let (mut a, b) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(b, 10);
        for part in [b"\0\0".as_slice(), b"\0\x03a", b"b"] {
            a.write_all(part).await.unwrap();
            // polled once, it takes what is there; then it is dropped
            tokio::select! {
                biased;
                frame = reader.next() => panic!("{frame:?}"),
                () = std::future::ready(()) => {}
            }
        }
        a.write_all(b"c").await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), b"abc");
    }

    #[tokio::test]
    async fn i12_frame_over_the_cap_is_refused_before_it_is_read_or_memory_set_aside() {
        let mut stream: &[u8] = b"\xff\xff\xff\xffrest";
        let error = read_frame(&mut stream, 10).await.unwrap_err();
        assert_eq!(error.to_string(), "a frame of 4294967295 bytes where at most 10 are allowed");
        assert_eq!(stream, b"rest");
    }

    #[tokio::test]
    async fn i12_announced_frame_takes_no_memory_before_it_comes() {
        let (mut a, b) = tokio::io::duplex(64);
        a.write_all(b"\x01\0\0\0abc").await.unwrap();
        let mut reader = FrameReader::new(b, 1 << 24);
        tokio::select! {
            biased;
            frame = reader.next() => panic!("{frame:?}"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(reader.body, b"abc");
        assert!(reader.body.capacity() <= 2 * FIRST_READ, "{}", reader.body.capacity());
    }

    #[tokio::test]
    async fn frame_of_exactly_the_cap_is_read() {
        let mut stream: &[u8] = b"\0\0\0\x03abc";
        assert_eq!(read_frame(&mut stream, 3).await.unwrap().unwrap(), b"abc");
    }

    #[tokio::test]
    async fn empty_frame_is_refused_both_ways() {
        let mut stream: &[u8] = b"\0\0\0\0";
        assert!(matches!(read_frame(&mut stream, 3).await, Err(FrameError::Empty)));
        let mut out = Vec::new();
        assert!(matches!(write_frame(&mut out, b"", 3).await, Err(FrameError::Empty)));
        assert!(out.is_empty());
    }

    #[tokio::test]
    async fn frame_over_the_cap_is_not_begun_to_be_written() {
        let mut out = Vec::new();
        let error = write_frame(&mut out, b"abcd", 3).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { size: 4, cap: 3 }));
        assert!(out.is_empty());
    }

    #[tokio::test]
    async fn end_within_the_length_and_within_the_bytes_says_how_much_is_missing() {
        let mut stream: &[u8] = b"\0\0\0";
        let error = read_frame(&mut stream, 10).await.unwrap_err();
        assert!(matches!(error, FrameError::Truncated { missing: 1 }), "{error}");
        let mut stream: &[u8] = b"\0\0\0\x09abc";
        let error = read_frame(&mut stream, 10).await.unwrap_err();
        assert!(matches!(error, FrameError::Truncated { missing: 6 }), "{error}");
    }
}
