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

/// How hostile a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Temper {
    /// How many of a thousand chunks are harmed or delayed.
    pub per_mille: u32,
    /// What they meet, in turn, so that nothing on the list is left to chance.
    pub kinds: &'static [Mischief],
    /// The longest delay, in milliseconds.
    pub delay_ms: u32,
}

impl Temper {
    /// Harm enough that hardly any channel lives long, and little enough that some come up and are
    /// harmed while requests go through them.
    pub const DEMO: Self = Self {
        per_mille: 150,
        kinds: &[
            Mischief::Flip,
            Mischief::Delay,
            Mischief::Drop,
            Mischief::Swap,
            Mischief::Delay,
            Mischief::Replay,
            Mischief::Repeat,
            Mischief::Delay,
            Mischief::Cut,
        ],
        delay_ms: 200,
    };

    /// Whether the next chunk meets something, and what as the `turn`th.
    pub(super) fn pick(
        &self,
        dice: &mut impl RngCore,
        turn: impl FnOnce() -> usize,
    ) -> Option<Mischief> {
        if roll(dice, 1_000) >= self.per_mille {
            return None;
        }
        let at = turn().checked_rem(self.kinds.len())?;
        self.kinds.get(at).copied()
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
