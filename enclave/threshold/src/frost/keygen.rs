//! Shares of a FROST key: a new key's by FROST's distributed key generation, or a kept key's
//! for its next epoch by its refresh.
//!
//! Round 1 broadcasts commitments with a proof of knowledge, round 2 sends each party its share.
//! The library asks for a consistent broadcast in round 1; the echo at the end is it: where one
//! party was told something else than the others, no share is ever used. (What honest parties send
//! in round 2 are values of their own polynomials, which a lie in round 1 does not change.) Beside
//! this runs the chain code's commit and reveal for a new key.
//!
//! A refresh adds shares of zero. The same parties take part, with the same threshold.
//!
//! What the library makes of a new key goes through [`Suite::normal`], so that a scheme whose keys
//! have one of two forms has it from here on; a refresh keeps it.

use std::collections::BTreeMap;

use frost_core::{
    Identifier,
    keys::{
        KeyPackage, PublicKeyPackage,
        dkg::{self, round1, round2},
        refresh,
    },
};
use rand_core::{CryptoRng, RngCore};

use super::{FrostShare, Suite, blame, encode_key, identifiers, public_bytes, undecodable};
use crate::{
    chain_code::{COMMIT_LANE, COMMIT_LIMIT, ChainCode, REVEAL_LANE, REVEAL_LIMIT},
    context::Claim,
    echo::{ECHO_LIMIT, Echo},
    error::{Abort, Misuse, RunError},
    key::{KeyFacts, LiveKey, PendingKey, result_hash},
    message::{Chunk, LaneLimit},
    party::PartyId,
    purpose::{KeyRef, Task},
    run::{Driven, ECHO_LANE, Io, Machine, sealed::Sealed},
};

const ROUND_1_LANE: u8 = 0;
const ROUND_2_LANE: u8 = 1;

/// Round 1 is t points and a proof; round 2 is one scalar.
const LANES: &[LaneLimit] = &[
    LaneLimit { lane: ROUND_1_LANE, max_bytes: 1024, broadcasts: 1, privates: 0 },
    LaneLimit { lane: ROUND_2_LANE, max_bytes: 128, broadcasts: 0, privates: 1 },
    COMMIT_LIMIT,
    REVEAL_LIMIT,
    ECHO_LIMIT,
];

/// What differs between a new key and a refresh.
enum Kind<S: Suite> {
    Generate(ChainCode),
    Refresh { chain_code: [u8; 32], old: Box<(KeyPackage<S>, PublicKeyPackage<S>)> },
}

enum Phase<S: Suite> {
    /// Round 1's package has not gone out yet.
    Ready(Box<(round1::SecretPackage<S>, round1::Package<S>)>),
    Round1(round1::SecretPackage<S>),
    Round2(round2::SecretPackage<S>),
    Done(Box<FrostShare<S>>),
    /// Between two phases; a run found here has failed in between.
    Spent,
}

/// The protocol of a run that generates or refreshes a key.
pub struct FrostKeygen<S: Suite> {
    key: KeyRef,
    kind: Kind<S>,
    phase: Phase<S>,
    first: BTreeMap<Identifier<S>, round1::Package<S>>,
    second: BTreeMap<Identifier<S>, round2::Package<S>>,
    echo: Echo,
}

impl<S: Suite> Driven<FrostKeygen<S>> {
    /// Generates a key among all participants. `contribution` is 32 fresh random bytes, this
    /// party's part of the chain code.
    ///
    /// # Errors
    /// If the claim is for another purpose or the library refuses the parameters.
    pub fn generate(
        claim: Claim,
        contribution: [u8; 32],
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        let Some(Task::Keygen { key }) = context.spec().purpose.task(S::SCHEME) else {
            return Err(context.wrong_purpose(S::NAMES.keygen).into());
        };
        let (n, t) = counts(&claim)?;
        let (secret, package) =
            dkg::part1(claim.me.to_frost()?, n, t, rng).map_err(|e| library(&e))?;
        let kind = Kind::Generate(ChainCode::new(contribution));
        let machine = FrostKeygen::new(key.clone(), kind, secret, package);
        Ok(Self::open(claim, machine))
    }

    /// Makes the next epoch's shares among the same parties, each with the boot that holds the old
    /// share, with the same threshold.
    ///
    /// # Errors
    /// If the claim is for another purpose, or not among exactly `old`'s holders with `old`'s
    /// threshold for a later epoch.
    pub fn refresh(
        claim: Claim,
        old: &LiveKey<FrostShare<S>>,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        let spec = context.spec();
        let Some(Task::Refresh { key }) = spec.purpose.task(S::SCHEME) else {
            return Err(context.wrong_purpose(S::NAMES.refresh).into());
        };
        let facts = &old.facts;
        if !facts.precedes(&spec.purpose)
            || facts.genesis != spec.genesis
            || facts.holders != spec.participants
            || facts.threshold != spec.threshold
        {
            return Err(Misuse::WrongKey.into());
        }
        let (n, t) = counts(&claim)?;
        let (secret, package) =
            refresh::refresh_dkg_part1(claim.me.to_frost()?, n, t, rng).map_err(|e| library(&e))?;
        let kind = Kind::Refresh {
            chain_code: facts.chain_code,
            old: Box::new((old.share.package.clone(), old.share.public.clone())),
        };
        let machine = FrostKeygen::new(key.clone(), kind, secret, package);
        Ok(Self::open(claim, machine))
    }
}

fn library<S: Suite>(error: &frost_core::Error<S>) -> Misuse {
    Misuse::Library(error.to_string())
}

fn counts(claim: &Claim) -> Result<(u16, u16), Misuse> {
    let count = claim.context.participants().len();
    let n = u16::try_from(count).map_err(|_| Misuse::ParticipantCount { count })?;
    Ok((n, claim.context.threshold()))
}

impl<S: Suite> FrostKeygen<S> {
    fn new(
        key: KeyRef,
        kind: Kind<S>,
        secret: round1::SecretPackage<S>,
        package: round1::Package<S>,
    ) -> Self {
        Self {
            key,
            kind,
            phase: Phase::Ready(Box::new((secret, package))),
            first: BTreeMap::new(),
            second: BTreeMap::new(),
            echo: Echo::new(),
        }
    }

    /// Sends the shares when all commitments are in.
    fn second_round(
        &self,
        secret: round1::SecretPackage<S>,
        io: &mut Io<'_>,
    ) -> Result<round2::SecretPackage<S>, RunError> {
        let participants = io.context().participants().clone();
        let (secret, packages) = match &self.kind {
            Kind::Generate(_) => dkg::part2(secret, &self.first),
            Kind::Refresh { .. } => refresh::refresh_dkg_part2(secret, &self.first),
        }
        .map_err(|e| blame(&e, &participants))?;
        let known = identifiers(&participants)?;
        for (identifier, package) in &packages {
            let to = known.get(identifier).ok_or_else(|| Abort::library(&"an unknown receiver"))?;
            io.send(*to, ROUND_2_LANE, package.serialize().map_err(|e| Abort::library(&e))?);
        }
        Ok(secret)
    }

    fn finish(
        &self,
        secret: &round2::SecretPackage<S>,
        io: &Io<'_>,
    ) -> Result<FrostShare<S>, RunError> {
        let (package, public) = match &self.kind {
            Kind::Generate(_) => dkg::part3(secret, &self.first, &self.second)
                .map(|(package, public)| S::normal(package, public)),
            Kind::Refresh { old, .. } => {
                let (package, public) = old.as_ref().clone();
                refresh::refresh_dkg_shares(secret, &self.first, &self.second, public, package)
            }
        }
        .map_err(|e| blame(&e, io.context().participants()))?;
        if let Kind::Refresh { old, .. } = &self.kind
            && encode_key(&old.1)? != encode_key(&public)?
        {
            return Err(RunError::Aborted { what: Abort::PublicKeyChanged });
        }
        FrostShare::new(package, public)
    }

    /// Goes as far as what has come in allows.
    fn drive(&mut self, io: &mut Io<'_>) -> Result<(), RunError> {
        let others = io.context().participants().len().saturating_sub(1);
        let mut phase = std::mem::replace(&mut self.phase, Phase::Spent);
        if let Phase::Ready(ready) = phase {
            let (secret, package) = *ready;
            io.broadcast(ROUND_1_LANE, package.serialize().map_err(|e| Abort::library(&e))?);
            phase = Phase::Round1(secret);
        }
        phase = match phase {
            Phase::Round1(secret) if self.first.len() == others => {
                Phase::Round2(self.second_round(secret, io)?)
            }
            phase => phase,
        };
        phase = match phase {
            Phase::Round2(secret) if self.second.len() == others => {
                Phase::Done(Box::new(self.finish(&secret, io)?))
            }
            phase => phase,
        };
        self.phase = phase;
        Ok(())
    }
}

impl<S: Suite> Sealed for FrostKeygen<S> {}

impl<S: Suite> Machine for FrostKeygen<S> {
    type Output = PendingKey<FrostShare<S>>;

    fn lanes(&self) -> &'static [LaneLimit] {
        LANES
    }

    fn deliver(&mut self, from: PartyId, chunk: Chunk) -> Result<(), RunError> {
        let bytes = &chunk.bytes;
        match (chunk.lane, &mut self.kind) {
            (COMMIT_LANE | REVEAL_LANE, Kind::Generate(chain)) => {
                chain.deliver(from, chunk.lane, bytes)?;
            }
            (ECHO_LANE, _) => self.echo.deliver(from, bytes)?,
            (ROUND_1_LANE, _) => {
                let package = round1::Package::deserialize(bytes).map_err(|_| undecodable(from))?;
                self.first.insert(from.to_frost()?, package);
            }
            (ROUND_2_LANE, _) => {
                let package = round2::Package::deserialize(bytes).map_err(|_| undecodable(from))?;
                self.second.insert(from.to_frost()?, package);
            }
            // a contribution to a chain code that is known already
            _ => return Err(undecodable(from)),
        }
        Ok(())
    }

    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<Self::Output>, RunError> {
        self.drive(io)?;
        let chain_code = match &mut self.kind {
            Kind::Generate(chain) => chain.drive(io)?,
            Kind::Refresh { chain_code, .. } => Some(*chain_code),
        };
        let (Phase::Done(share), Some(chain_code)) = (&self.phase, chain_code) else {
            return Ok(None);
        };
        let transcript = result_hash(io.transcript(), &public_bytes(&share.public)?, &chain_code);
        if !self.echo.drive(io, transcript)? {
            return Ok(None);
        }
        let facts = KeyFacts::of(io.context(), self.key.clone(), chain_code, transcript);
        match std::mem::replace(&mut self.phase, Phase::Spent) {
            Phase::Done(share) => Ok(Some(PendingKey { facts, share: *share })),
            _ => Ok(None),
        }
    }
}
