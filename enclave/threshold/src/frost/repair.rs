//! Gives parties their shares of a FROST key again, after their boots lost them.
//!
//! FROST's repairable threshold scheme (<https://eprint.iacr.org/2017/1155>): t old holders, the
//! *helpers*, each split a weighted value of their share into random parts for each other; each
//! sums the parts it got and sends the sum to the party that lost its share, for which the sums add
//! up to it. Where several lost theirs, this is done for each of them in the same messages, with
//! parts of its own. Shares stay what they were, so a refresh should follow. All holders take part
//! in the run, because the new epoch's set of boots is new for all: those that are no helpers carry
//! their share over, and everybody echoes the public shares.
//!
//! A party that lost its share learns the public shares from everybody who did not, and takes only
//! what all sent alike, what gives the public key that the ledger has, and what its own share fits.

use std::collections::BTreeMap;

use frost_core::{
    Identifier,
    keys::{
        KeyPackage, PublicKeyPackage,
        repairable::{Delta, Sigma, repair_share_part1, repair_share_part2, repair_share_part3},
    },
};
use rand_core::{CryptoRng, RngCore};

use super::{FrostShare, Suite, encode_key, public_bytes, undecodable};
use crate::{
    context::{Claim, RunSpec},
    echo::{ECHO_LIMIT, Echo},
    error::{Abort, Misuse, RunError},
    key::{KeyFacts, LiveKey, PendingKey, result_hash},
    message::{Chunk, LaneLimit},
    party::PartyId,
    purpose::{KeyRef, Task},
    run::{Driven, ECHO_LANE, Io, Machine, sealed::Sealed},
};

const PUBLIC_LANE: u8 = 0;
const DELTA_LANE: u8 = 1;
const SIGMA_LANE: u8 = 2;

/// The public shares of 16 holders are about 1.1 KiB; parts are one scalar for each party that lost
/// its share, sums one.
const LANES: &[LaneLimit] = &[
    LaneLimit { lane: PUBLIC_LANE, max_bytes: 2048, broadcasts: 1, privates: 0 },
    LaneLimit { lane: DELTA_LANE, max_bytes: 32 * 14, broadcasts: 0, privates: 1 },
    LaneLimit { lane: SIGMA_LANE, max_bytes: 32, broadcasts: 0, privates: 1 },
    ECHO_LIMIT,
];

/// What is public about a key whose share is given back, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrostPublic<K> {
    /// The group's public key.
    pub public_key: K,
    /// The chain code.
    pub chain_code: [u8; 32],
}

/// One helper's parts of what goes to one party, by the helper that they are for.
type Parts<S> = BTreeMap<Identifier<S>, Delta<S>>;

/// What a party has and does.
enum Role<S: Suite> {
    /// Gives: with the parts it made for each party that lost its share, until they are sent.
    Helper { package: KeyPackage<S>, parts: Vec<Parts<S>>, summed: bool },
    /// Keeps its share.
    Holder { package: KeyPackage<S> },
    /// Gets its share.
    Lost,
}

/// The protocol of a run that gives a lost share back.
pub struct FrostRepair<S: Suite> {
    key: KeyRef,
    known: FrostPublic<S::PublicKey>,
    lost: Vec<PartyId>,
    helpers: Vec<PartyId>,
    role: Role<S>,
    started: bool,
    public: BTreeMap<PartyId, Vec<u8>>,
    /// From each helper one for each party that lost its share.
    deltas: BTreeMap<PartyId, Vec<Delta<S>>>,
    sigmas: BTreeMap<PartyId, Sigma<S>>,
    share: Option<FrostShare<S>>,
    echo: Echo,
}

impl<S: Suite> Driven<FrostRepair<S>> {
    /// Starts among all holders of the new epoch. All but the parties that lost their share pass
    /// it. The helpers are the t lowest-numbered of them.
    ///
    /// # Errors
    /// If the claim is for another purpose; if `old` is not of this key, threshold and an earlier
    /// epoch, or is given by a party that lost its share, or is not given by another; if another
    /// party's boot is not the one that holds the old share; if fewer than t have theirs.
    pub fn new(
        claim: Claim,
        known: FrostPublic<S::PublicKey>,
        old: Option<&LiveKey<FrostShare<S>>>,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        let spec = context.spec();
        let Some(Task::Repair { key, lost }) = spec.purpose.task(S::SCHEME) else {
            return Err(context.wrong_purpose(S::NAMES.repair).into());
        };
        if let Some(stranger) = lost.iter().find(|p| !spec.participants.contains_party(**p)) {
            return Err(Misuse::NotAHolder(*stranger).into());
        }
        if lost.is_empty() || !lost.is_sorted_by(|a, b| a < b) {
            return Err(Misuse::ParticipantCount { count: lost.len() }.into());
        }
        let kept = spec.participants.parties().filter(|party| !lost.contains(party));
        let helpers: Vec<PartyId> = kept.take(usize::from(spec.threshold)).collect();
        if helpers.len() < usize::from(spec.threshold) {
            let (threshold, participants) = (spec.threshold, helpers.len());
            return Err(Misuse::Threshold { threshold, participants }.into());
        }
        let role = match old {
            None if lost.contains(&claim.me) => Role::Lost,
            Some(old) if !lost.contains(&claim.me) => {
                check_old(old, spec, lost, &known)?;
                role_of_holder(claim.me, lost, &helpers, &old.share.package, rng)?
            }
            _ => return Err(Misuse::NotAHolder(claim.me).into()),
        };
        let mut public = BTreeMap::new();
        if let Some(old) = old {
            public.insert(claim.me, public_bytes(&old.share.public)?);
        }
        let machine = FrostRepair {
            key: key.clone(),
            known,
            lost: lost.to_vec(),
            helpers,
            role,
            started: false,
            public,
            deltas: BTreeMap::new(),
            sigmas: BTreeMap::new(),
            share: None,
            echo: Echo::new(),
        };
        Ok(Self::open(claim, machine))
    }
}

/// That `old` is this key's share of an earlier epoch, and that only boots of parties that lost
/// theirs are new.
fn check_old<S: Suite>(
    old: &LiveKey<FrostShare<S>>,
    spec: &RunSpec,
    lost: &[PartyId],
    known: &FrostPublic<S::PublicKey>,
) -> Result<(), Misuse> {
    let facts = &old.facts;
    if !facts.precedes(&spec.purpose)
        || facts.genesis != spec.genesis
        || facts.threshold != spec.threshold
        || facts.chain_code != known.chain_code
        || old.share.verifying_key != known.public_key
        || !facts.holders.parties().eq(spec.participants.parties())
    {
        return Err(Misuse::WrongKey);
    }
    let participants = spec.participants.as_slice();
    participants
        .iter()
        .find(|p| !lost.contains(&p.party) && !facts.holders.contains(p))
        .map_or(Ok(()), |changed| Err(Misuse::NotAHolder(changed.party)))
}

fn role_of_holder<S: Suite>(
    me: PartyId,
    lost: &[PartyId],
    helpers: &[PartyId],
    package: &KeyPackage<S>,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Role<S>, Misuse> {
    let package = package.clone();
    if !helpers.contains(&me) {
        return Ok(Role::Holder { package });
    }
    let identifiers: Vec<Identifier<S>> =
        helpers.iter().map(|p| p.to_frost()).collect::<Result<_, _>>()?;
    let mut parts = Vec::with_capacity(lost.len());
    for party in lost {
        let of = repair_share_part1(&identifiers, &package, rng, party.to_frost()?)
            .map_err(|e| Misuse::Library(e.to_string()))?;
        parts.push(of);
    }
    Ok(Role::Helper { package, parts, summed: false })
}

impl<S: Suite> FrostRepair<S> {
    fn start(&mut self, io: &mut Io<'_>) -> Result<(), RunError> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        if let Some(mine) = self.public.get(&io.me()) {
            io.broadcast(PUBLIC_LANE, mine.clone());
        }
        let Role::Helper { parts, .. } = &mut self.role else { return Ok(()) };
        let mut parts = std::mem::take(parts);
        for &helper in &self.helpers {
            let identifier = helper.to_frost()?;
            let mine: Option<Vec<Delta<S>>> =
                parts.iter_mut().map(|parts| parts.remove(&identifier)).collect();
            let mine = mine.ok_or_else(|| Abort::library(&"no part for a helper"))?;
            if helper == io.me() {
                self.deltas.insert(helper, mine);
            } else {
                io.send(helper, DELTA_LANE, mine.iter().flat_map(Delta::serialize).collect());
            }
        }
        Ok(())
    }

    fn sum(&mut self, io: &mut Io<'_>) {
        let Role::Helper { summed, .. } = &mut self.role else { return };
        if *summed || self.deltas.len() != self.helpers.len() {
            return;
        }
        *summed = true;
        let mut parts: Vec<_> =
            std::mem::take(&mut self.deltas).into_values().map(Vec::into_iter).collect();
        for &lost in &self.lost {
            let of: Vec<Delta<S>> = parts.iter_mut().filter_map(Iterator::next).collect();
            io.send(lost, SIGMA_LANE, repair_share_part2(&of).serialize());
        }
    }

    /// The public shares, once everybody that has them has sent them alike.
    fn agreed(&self, io: &Io<'_>) -> Result<Option<PublicKeyPackage<S>>, RunError> {
        let changed = || RunError::Aborted { what: Abort::PublicKeyChanged };
        let holders = io.context().participants();
        if self.public.len() != holders.len().saturating_sub(self.lost.len()) {
            return Ok(None);
        }
        let mut all = self.public.values();
        let Some(bytes) = all.next() else { return Ok(None) };
        if all.any(|other| other != bytes) {
            return Err(changed());
        }
        let public = PublicKeyPackage::<S>::deserialize(bytes).map_err(|e| Abort::library(&e))?;
        if public.verifying_shares().len() != holders.len()
            || public.min_signers() != Some(io.context().threshold())
            || encode_key(&public)? != self.known.public_key
        {
            return Err(changed());
        }
        for party in holders.parties() {
            if !public.verifying_shares().contains_key(&party.to_frost()?) {
                return Err(changed());
            }
        }
        Ok(Some(public))
    }

    fn finish(&self, io: &Io<'_>) -> Result<Option<FrostShare<S>>, RunError> {
        let Some(public) = self.agreed(io)? else { return Ok(None) };
        let package = match &self.role {
            Role::Helper { summed: false, .. } => return Ok(None),
            Role::Helper { package, .. } | Role::Holder { package } => package.clone(),
            Role::Lost if self.sigmas.len() != self.helpers.len() => return Ok(None),
            Role::Lost => {
                let sigmas: Vec<Sigma<S>> = self.sigmas.values().copied().collect();
                let me = io.me().to_frost()?;
                let package =
                    repair_share_part3(&sigmas, me, &public).map_err(|e| Abort::library(&e))?;
                // the library does not compare
                if public.verifying_shares().get(&me) != Some(package.verifying_share()) {
                    return Err(RunError::Aborted { what: Abort::PublicKeyChanged });
                }
                package
            }
        };
        FrostShare::new(package, public).map(Some)
    }
}

impl<S: Suite> Sealed for FrostRepair<S> {}

impl<S: Suite> Machine for FrostRepair<S> {
    type Output = PendingKey<FrostShare<S>>;

    fn lanes(&self) -> &'static [LaneLimit] {
        LANES
    }

    fn deliver(&mut self, from: PartyId, chunk: Chunk) -> Result<(), RunError> {
        let bytes = &chunk.bytes;
        let helper = self.helpers.contains(&from);
        match (chunk.lane, &self.role) {
            (ECHO_LANE, _) => self.echo.deliver(from, bytes)?,
            (PUBLIC_LANE, _) if !self.lost.contains(&from) => {
                self.public.insert(from, bytes.clone());
            }
            (DELTA_LANE, Role::Helper { .. }) if helper => {
                let (scalars, rest) = bytes.as_chunks::<32>();
                if scalars.len() != self.lost.len() || !rest.is_empty() {
                    return Err(undecodable(from));
                }
                let deltas = scalars.iter().map(|scalar| Delta::deserialize(scalar));
                let deltas: Result<Vec<Delta<S>>, _> = deltas.collect();
                self.deltas.insert(from, deltas.map_err(|_| undecodable(from))?);
            }
            (SIGMA_LANE, Role::Lost) if helper => {
                let sigma = Sigma::deserialize(bytes).map_err(|_| undecodable(from))?;
                self.sigmas.insert(from, sigma);
            }
            _ => return Err(undecodable(from)),
        }
        Ok(())
    }

    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<Self::Output>, RunError> {
        self.start(io)?;
        self.sum(io);
        if self.share.is_none() {
            self.share = self.finish(io)?;
        }
        let Some(share) = &self.share else { return Ok(None) };
        let chain_code = self.known.chain_code;
        let transcript = result_hash(io.transcript(), &public_bytes(&share.public)?, &chain_code);
        if !self.echo.drive(io, transcript)? {
            return Ok(None);
        }
        let facts = KeyFacts::of(io.context(), self.key.clone(), chain_code, transcript);
        Ok(self.share.take().map(|share| PendingKey { facts, share }))
    }
}
