//! Two triples for one signature, made among exactly the t boots that will use them.
//!
//! A triple made among 2t or more parties can be used by two disjoint sets of t, each unaware of
//! the other; the two signatures then share secrets, and the private key falls out. So the run's
//! context admits exactly t, the pair remembers which, and a pair moves: it is neither copied nor
//! written anywhere.
//!
//! Two of cait-sith's triple generations run side by side, then an echo of both public parts, so
//! that a pair is stocked by all or by none (but for a last message lost).

use cait_sith::triples::{TripleGenerationOutput, TriplePub, TripleShare, generate_triple};
use casemate_proto::hash::tagged_hash;
use k256::Secp256k1;
use zeroize::Zeroize;

use super::sec1;
use crate::{
    cait::Lane,
    context::{Claim, RunId},
    echo::{ECHO_LIMIT, Echo},
    error::RunError,
    message::{Chunk, LaneLimit},
    party::{Participants, PartyId},
    purpose::{Purpose, TriplePairId},
    run::{Driven, ECHO_LANE, Io, Machine, sealed::Sealed},
};

const FIRST_LANE: u8 = 0;
const SECOND_LANE: u8 = 1;

/// Six broadcasts and a few private messages, but for 128 one-point messages of the base oblivious
/// transfer with each party; the largest is a 128 × 896 bit matrix or 2 × 384 pairs of scalars.
const LANES: &[LaneLimit] = &[
    LaneLimit { lane: FIRST_LANE, max_bytes: 64 * 1024, broadcasts: 6, privates: 140 },
    LaneLimit { lane: SECOND_LANE, max_bytes: 64 * 1024, broadcasts: 6, privates: 140 },
    ECHO_LIMIT,
];

pub(crate) struct Triple {
    pub(crate) share: TripleShare<Secp256k1>,
    pub(crate) public: TriplePub<Secp256k1>,
}

impl Drop for Triple {
    fn drop(&mut self) {
        self.share.a.zeroize();
        self.share.b.zeroize();
        self.share.c.zeroize();
    }
}

/// Two triples that serve one signature by one set of boots, once.
///
/// ```compile_fail
/// fn twice(pair: casemate_threshold::ecdsa::TriplePair) {
///     let _ = pair.clone();
/// }
/// ```
pub struct TriplePair {
    pub(crate) id: TriplePairId,
    pub(crate) set: Participants,
    pub(crate) first: Triple,
    pub(crate) second: Triple,
}

impl TriplePair {
    /// Its name, which all of the set agree on.
    #[must_use]
    pub const fn id(&self) -> TriplePairId {
        self.id
    }

    /// The boots that made it and alone may use it.
    #[must_use]
    pub const fn set(&self) -> &Participants {
        &self.set
    }
}

impl std::fmt::Debug for TriplePair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TriplePair")
            .field("id", &self.id)
            .field("set", &self.set)
            .field("shares", &"<redacted>")
            .finish()
    }
}

/// The protocol of [`TripleRun`].
pub struct Triples {
    set: Participants,
    lanes: [Lane<TripleGenerationOutput<Secp256k1>>; 2],
    done: [Option<Triple>; 2],
    echo: Echo,
}

/// Makes a [`TriplePair`] among exactly t boots.
pub type TripleRun = Driven<Triples>;

impl TripleRun {
    /// Starts among the claim's participants, who are exactly t.
    ///
    /// # Errors
    /// If the claim is for another purpose or the library refuses the parameters.
    pub fn new(claim: Claim) -> Result<Self, RunError> {
        let context = &claim.context;
        if context.spec().purpose != Purpose::Triples {
            return Err(context.wrong_purpose("triples").into());
        }
        let set = context.participants().clone();
        let lane = |lane| {
            Lane::new(
                lane,
                generate_triple::<Secp256k1>(
                    &set.to_cait_sith(),
                    claim.me.to_cait_sith(),
                    usize::from(context.threshold()),
                ),
            )
        };
        let lanes = [lane(FIRST_LANE)?, lane(SECOND_LANE)?];
        let machine = Triples { set, lanes, done: [None, None], echo: Echo::new() };
        Ok(Self::open(claim, machine))
    }
}

fn pair_id(run: RunId, first: &Triple, second: &Triple) -> TriplePairId {
    let mut points = Vec::new();
    for public in [&first.public, &second.public] {
        for point in [&public.big_a, &public.big_b, &public.big_c] {
            points.extend_from_slice(&sec1(point));
        }
    }
    TriplePairId(tagged_hash("casemate/threshold/triples/v1", &[run.0.as_bytes(), &points]))
}

impl Sealed for Triples {}

impl Machine for Triples {
    type Output = TriplePair;

    fn lanes(&self) -> &'static [LaneLimit] {
        LANES
    }

    fn deliver(&mut self, from: PartyId, mut chunk: Chunk) -> Result<(), RunError> {
        let [first, second] = &mut self.lanes;
        match chunk.lane {
            ECHO_LANE => return self.echo.deliver(from, &chunk.bytes),
            FIRST_LANE => first.deliver(from, &mut chunk.bytes),
            _ => second.deliver(from, &mut chunk.bytes),
        }
        Ok(())
    }

    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<TriplePair>, RunError> {
        for (lane, done) in self.lanes.iter_mut().zip(&mut self.done) {
            if let Some((share, public)) = lane.drive(io)? {
                *done = Some(Triple { share, public });
            }
        }
        let [Some(first), Some(second)] = &self.done else { return Ok(None) };
        let id = pair_id(io.context().id(), first, second);
        if !self.echo.drive(io, id.0)? {
            return Ok(None);
        }
        let [first, second] = &mut self.done;
        let (Some(first), Some(second)) = (first.take(), second.take()) else { return Ok(None) };
        Ok(Some(TriplePair { id, set: self.set.clone(), first, second }))
    }
}
