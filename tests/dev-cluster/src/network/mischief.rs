//! What a hostile network does, how often, and the dice for it.

use rand_chacha::rand_core::RngCore;
use serde::Serialize;

/// One thing that is done to a chunk of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// One bit of it is flipped.
    Flip,
    /// It is lost.
    Drop,
    /// It comes twice.
    Repeat,
    /// Bytes that passed before come ahead of it, perhaps of another connection.
    Replay,
    /// The next one comes before it.
    Swap,
    /// It comes late.
    Delay,
    /// The connection is cut off.
    Cut,
}

impl Mischief {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Flip, Self::Drop, Self::Repeat, Self::Replay, Self::Swap, Self::Delay, Self::Cut];
}

/// How many of a thousand chunks meet what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// [`Mischief::Flip`].
    pub flip: u32,
    /// [`Mischief::Drop`].
    pub drop: u32,
    /// [`Mischief::Repeat`].
    pub repeat: u32,
    /// [`Mischief::Replay`].
    pub replay: u32,
    /// [`Mischief::Swap`].
    pub swap: u32,
    /// [`Mischief::Delay`].
    pub delay: u32,
    /// [`Mischief::Cut`].
    pub cut: u32,
    /// The longest delay, in milliseconds.
    pub delay_ms: u32,
}

impl Rates {
    /// Harm enough that hardly any channel lives long, and little enough that some come up and are
    /// harmed while requests go through them.
    pub const DEMO: Self = Self {
        flip: 15,
        drop: 15,
        repeat: 15,
        replay: 15,
        swap: 15,
        delay: 100,
        cut: 5,
        delay_ms: 200,
    };

    const fn of(&self, what: Mischief) -> u32 {
        match what {
            Mischief::Flip => self.flip,
            Mischief::Drop => self.drop,
            Mischief::Repeat => self.repeat,
            Mischief::Replay => self.replay,
            Mischief::Swap => self.swap,
            Mischief::Delay => self.delay,
            Mischief::Cut => self.cut,
        }
    }

    /// What the next chunk meets, mostly nothing.
    pub(super) fn pick(&self, dice: &mut impl RngCore) -> Option<Mischief> {
        let mut rolled = roll(dice, 1_000);
        for what in Mischief::ALL {
            match rolled.checked_sub(self.of(what)) {
                Some(rest) => rolled = rest,
                None => return Some(what),
            }
        }
        None
    }
}

/// A number below `bound`; 0 if that is 0. That it is not perfectly even is no matter here.
pub(super) fn roll(dice: &mut impl RngCore, bound: u32) -> u32 {
    dice.next_u32().checked_rem(bound).unwrap_or_default()
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Bits flipped.
    pub flipped: u64,
    /// Chunks lost.
    pub dropped: u64,
    /// Chunks sent twice.
    pub repeated: u64,
    /// Old chunks sent again.
    pub replayed: u64,
    /// Chunks sent behind the next one.
    pub swapped: u64,
    /// Chunks sent late.
    pub delayed: u64,
    /// Connections cut off.
    pub cut: u64,
}

impl Counts {
    pub(super) const fn set(&mut self, what: Mischief, count: u64) {
        let place = match what {
            Mischief::Flip => &mut self.flipped,
            Mischief::Drop => &mut self.dropped,
            Mischief::Repeat => &mut self.repeated,
            Mischief::Replay => &mut self.replayed,
            Mischief::Swap => &mut self.swapped,
            Mischief::Delay => &mut self.delayed,
            Mischief::Cut => &mut self.cut,
        };
        *place = count;
    }

    /// How often something was done that harms: delays alone do not.
    #[must_use]
    pub fn harm(&self) -> u64 {
        let all =
            [self.flipped, self.dropped, self.repeated, self.replayed, self.swapped, self.cut];
        all.into_iter().fold(0, u64::saturating_add)
    }

    /// Whether bytes were flipped, lost, repeated or replayed, and reordered.
    #[must_use]
    pub const fn every_kind(&self) -> bool {
        self.flipped > 0
            && self.dropped > 0
            && (self.repeated > 0 || self.replayed > 0)
            && self.swapped > 0
    }
}
