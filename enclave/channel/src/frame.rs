//! The frames of a channel.
//!
//! A frame is one Noise message: sealed under the channel's key for its direction and a counter
//! that is not sent. Sealed inside is one byte, 0 where the message goes on and 1 where it ends,
//! then the message's bytes. Every frame but a message's last is as long as a frame can be, so
//! that a message has one form and cannot be stretched over frames that carry nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use snow::StatelessTransportState;
use zeroize::{Zeroize, Zeroizing};

use crate::Broken;
use crate::noise::TAG;

/// Most bytes of a frame.
pub const MAX_FRAME: usize = 65_535;
/// Most bytes of a message.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// How many frames one channel seals in each direction, far below where its nonces would end.
/// Then it ends and the nodes dial anew, with fresh keys and a fresh attestation.
pub const MAX_FRAMES: u64 = 1 << 32;

/// The byte before a message's bytes.
const HEADER: usize = 1;
const MORE: u8 = 0;
const LAST: u8 = 1;
/// Least bytes of a frame: that of an empty message.
const MIN_FRAME: usize = HEADER + TAG;
/// Bytes of a message in each of its frames but the last, and most in that.
const CHUNK: usize = MAX_FRAME - MIN_FRAME;

/// A channel to an attested peer.
pub struct Channel {
    sealer: Sealer,
    opener: Opener,
}

/// The half of a channel that sends.
pub struct Sealer {
    shared: Arc<Shared>,
    next: u64,
}

/// The half of a channel that receives.
pub struct Opener {
    shared: Arc<Shared>,
    next: u64,
    /// The beginning of a message that goes on.
    partial: Zeroizing<Vec<u8>>,
}

/// What both halves hold; the last of them to go zeroises the keys.
struct Shared {
    noise: StatelessTransportState,
    ended: AtomicBool,
}

impl Shared {
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), Broken> {
        if self.ended.load(Ordering::Acquire) { Err(Broken::Ended) } else { Ok(()) }
    }
}

impl Channel {
    pub(crate) fn new(noise: StatelessTransportState) -> Self {
        let shared = Arc::new(Shared { noise, ended: AtomicBool::new(false) });
        Self {
            sealer: Sealer { shared: Arc::clone(&shared), next: 0 },
            opener: Opener { shared, next: 0, partial: Zeroizing::default() },
        }
    }

    /// See [`Sealer::seal`].
    ///
    /// # Errors
    /// As there.
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
        self.sealer.seal(message)
    }

    /// See [`Opener::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        self.opener.open(frame)
    }

    /// The two halves, for two tasks. An error in one ends the other.
    #[must_use]
    pub fn split(self) -> (Sealer, Opener) {
        (self.sealer, self.opener)
    }
}

impl Sealer {
    /// Seals a message of at most [`MAX_MESSAGE`] bytes: frames to send in this order, all of
    /// them, and no other between them.
    ///
    /// # Errors
    /// If the message is too long, which leaves the channel as it was, or the channel has ended or
    /// ends with this.
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
        self.shared.check()?;
        if message.len() > MAX_MESSAGE {
            return Err(Broken::TooLong { len: message.len(), max: MAX_MESSAGE });
        }
        let sealed = self.seal_all(message);
        if sealed.is_err() {
            self.shared.end();
        }
        sealed
    }

    fn seal_all(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
        let mut frames = Vec::new();
        let mut rest = message;
        loop {
            let (chunk, after) = rest.split_at_checked(CHUNK).unwrap_or((rest, &[]));
            let kind = if after.is_empty() { LAST } else { MORE };
            frames.push(self.seal_frame(kind, chunk)?);
            if after.is_empty() {
                return Ok(frames);
            }
            rest = after;
        }
    }

    fn seal_frame(&mut self, kind: u8, chunk: &[u8]) -> Result<Vec<u8>, Broken> {
        let frame = self.next;
        let next = following(frame)?;
        let mut plain = Zeroizing::new(Vec::with_capacity(chunk.len().saturating_add(HEADER)));
        plain.push(kind);
        plain.extend_from_slice(chunk);
        let mut sealed = vec![0; plain.len().saturating_add(TAG)];
        let len = self.shared.noise.write_message(frame, &plain, &mut sealed);
        if len.ok() != Some(sealed.len()) {
            // nothing of what may stand there leaves
            sealed.zeroize();
            return Err(Broken::Frame { frame, reason: "could not be sealed" });
        }
        self.next = next;
        Ok(sealed)
    }

    /// How many frames were sealed.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.next
    }
}

impl Opener {
    /// Opens the next frame: the message, if it is complete with it.
    ///
    /// # Errors
    /// If the frame is not the next one of the peer's, or carries what it must not, or the channel
    /// has ended. Any error ends the channel.
    pub fn open(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        self.shared.check()?;
        let opened = self.open_frame(frame);
        if opened.is_err() {
            self.shared.end();
            self.partial = Zeroizing::default();
        }
        opened
    }

    fn open_frame(&mut self, sealed: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        let frame = self.next;
        if !(MIN_FRAME..=MAX_FRAME).contains(&sealed.len()) {
            let (len, min, max) = (sealed.len(), MIN_FRAME, MAX_FRAME);
            return Err(Broken::FrameLength { frame, len, min, max });
        }
        let next = following(frame)?;
        let mut plain = Zeroizing::new(vec![0; sealed.len().saturating_sub(TAG)]);
        let len = self.shared.noise.read_message(frame, sealed, &mut plain);
        if len.ok() != Some(plain.len()) {
            return Err(Broken::NotAuthentic { frame });
        }
        self.next = next;
        let Some((kind, chunk)) = plain.split_first() else {
            return Err(Broken::Frame { frame, reason: "is empty" });
        };
        let len = self.partial.len().saturating_add(chunk.len());
        if len > MAX_MESSAGE {
            return Err(Broken::TooLong { len, max: MAX_MESSAGE });
        }
        match *kind {
            MORE if chunk.len() < CHUNK => {
                return Err(Broken::Frame { frame, reason: "goes on and is not full" });
            }
            MORE | LAST => {}
            _ => return Err(Broken::Frame { frame, reason: "is of no known kind" }),
        }
        if chunk.is_empty() && !self.partial.is_empty() {
            return Err(Broken::Frame { frame, reason: "ends a message and adds nothing" });
        }
        self.append(chunk, len);
        Ok((*kind == LAST).then(|| core::mem::take(&mut *self.partial)))
    }

    /// Adds to the message. What moves to a larger place leaves no copy.
    fn append(&mut self, chunk: &[u8], len: usize) {
        if len > self.partial.capacity() {
            let capacity = if self.partial.is_empty() { len } else { MAX_MESSAGE };
            let mut grown = Zeroizing::new(Vec::with_capacity(capacity));
            grown.extend_from_slice(&self.partial);
            self.partial = grown;
        }
        self.partial.extend_from_slice(chunk);
    }

    /// How many frames were opened.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.next
    }
}

/// The number after this one, if the keys may serve this one.
fn following(frame: u64) -> Result<u64, Broken> {
    match frame.checked_add(1) {
        Some(next) if frame < MAX_FRAMES => Ok(next),
        _ => Err(Broken::Exhausted { frames: frame }),
    }
}

impl core::fmt::Debug for Channel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Channel")
            .field("sealed", &self.sealer.next)
            .field("opened", &self.opener.next)
            .field("keys", &"<redacted>")
            .finish()
    }
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sealer").field("sealed", &self.next).field("keys", &"<redacted>").finish()
    }
}

impl core::fmt::Debug for Opener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opener").field("opened", &self.next).field("keys", &"<redacted>").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::handshake;
    use crate::wire::{PROLOGUE, Side};

    /// Two ends of a channel between keys that nobody attested.
    fn pair() -> (Channel, Channel) {
        let side = |side, key| {
            let ephemeral = Zeroizing::new([key ^ 0x80; 32]);
            handshake(side, PROLOGUE, &Zeroizing::new([key; 32]), ephemeral).unwrap()
        };
        let (mut a, mut b) = (side(Side::Dial, 1), side(Side::Accept, 2));
        for _ in 0..3 {
            let (mut message, mut payload) = ([0; 200], [0; 200]);
            let len = a.write_message(&[], &mut message).unwrap();
            b.read_message(&message[..len], &mut payload).unwrap();
            core::mem::swap(&mut a, &mut b);
        }
        let channel = |noise: snow::HandshakeState| {
            Channel::new(noise.into_stateless_transport_mode().unwrap())
        };
        (channel(b), channel(a))
    }

    #[test]
    fn keys_serve_a_set_number_of_frames_and_no_more() {
        let (mut a, mut b) = pair();
        a.sealer.next = MAX_FRAMES - 1;
        b.opener.next = MAX_FRAMES - 1;
        let last = a.seal(b"the last").unwrap();
        assert_eq!(b.open(&last[0]), Ok(Some(b"the last".to_vec())));
        assert_eq!(a.seal(b"one more"), Err(Broken::Exhausted { frames: MAX_FRAMES }));
        assert_eq!(a.seal(b"one more"), Err(Broken::Ended));
        assert_eq!(b.open(&last[0]), Err(Broken::Exhausted { frames: MAX_FRAMES }));
        assert_eq!(b.seal(b"an answer"), Err(Broken::Ended));
    }

    #[test]
    fn a_message_that_cannot_be_sealed_whole_is_not_sent_in_part() {
        let (mut a, _) = pair();
        a.sealer.next = MAX_FRAMES - 1;
        assert_eq!(a.seal(&vec![0; 2 * CHUNK]), Err(Broken::Exhausted { frames: MAX_FRAMES }));
        assert_eq!(a.seal(b""), Err(Broken::Ended));
    }

    #[test]
    fn no_more_is_held_than_a_message_may_have() {
        let (mut a, mut b) = pair();
        for frame in a.seal(&vec![9; MAX_MESSAGE]).unwrap() {
            b.open(&frame).unwrap();
            assert!(b.opener.partial.capacity() <= MAX_MESSAGE);
        }
        assert_eq!(b.opener.partial.capacity(), 0);
    }
}
