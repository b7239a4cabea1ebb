//! What happened, as one hash that two runs of a seed can be compared by, and in words if wanted.

use crate::enclave::Eid;

/// The trace of a history.
pub struct Trace {
    hash: u64,
    steps: u64,
    tells: bool,
}

impl Trace {
    pub const fn new(tells: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, steps: 0, tells }
    }

    fn absorb(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Something that is the same whenever this seed is run.
    pub fn step(&mut self, at: u64, what: &str, who: Eid, number: u64) {
        self.steps += 1;
        self.absorb(&at.to_le_bytes());
        self.absorb(what.as_bytes());
        self.absorb(&who.to_le_bytes());
        self.absorb(&number.to_le_bytes());
    }

    /// The same in words, for people.
    pub fn note(&mut self, at: u64, what: core::fmt::Arguments<'_>) {
        self.absorb(what.to_string().as_bytes());
        if self.tells {
            println!("{:>8.3} s  {what}", at as f64 / 1_000.0);
        }
    }

    pub const fn hash(&self) -> u64 {
        self.hash
    }
}
