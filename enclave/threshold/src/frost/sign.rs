//! One signature by FROST, with no coordinator.
//!
//! Everybody broadcasts nonce commitments, which may overlap the ledger's commit; when all are in
//! and the permit has come, everybody broadcasts its share; everybody aggregates and verifies. The
//! message, the participants, the path and the key come from the node's own entry, never from a
//! message, so there is nothing that a coordinator could lie about. With its share each party sends
//! the hash of the commitments it saw: where somebody told different parties different
//! commitments, honest shares fail to verify, and must not be blamed.
//!
//! The child key's tweak is added to this party's share and to every public share and key.
//!
//! Nonces are made when the run is, used once by value, and gone before the share is sent.
//!
//! Aggregating tells nobody anything, and costs as much as all before it. A participant that expects another to
//! show the signature may leave it out until it is asked for: [`Driven::leave_last_step`].

use std::{collections::BTreeMap, sync::Arc};

use casemate_proto::{
    DerivationPath, Hash32, UnixMillis, hash::tagged_hash, signature::VerifiedSignature,
};
use frost_core::{
    CheaterDetection, Identifier, SigningPackage,
    round1::{self, SigningCommitments, SigningNonces},
    round2::{self, SignatureShare},
};
use rand_core::{CryptoRng, RngCore};

use super::{FrostShare, Suite, blame, undecodable};
use crate::{
    context::Claim,
    error::{Abort, Misuse, RunError},
    key::{LiveKey, PendingKey, test_digest},
    message::{Chunk, LaneLimit},
    party::PartyId,
    permit::Authorised,
    purpose::Task,
    run::{Driven, Io, Machine, Run, Step, sealed::Sealed},
};

const COMMITMENT_LANE: u8 = 0;
const SHARE_LANE: u8 = 1;

const LANES: &[LaneLimit] = &[
    LaneLimit { lane: COMMITMENT_LANE, max_bytes: 128, broadcasts: 1, privates: 0 },
    LaneLimit { lane: SHARE_LANE, max_bytes: 64, broadcasts: 1, privates: 0 },
];

/// A verified signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrostSignature<K> {
    /// R‖S.
    pub bytes: [u8; 64],
    /// The derived public key under which it verifies.
    pub public_key: K,
    /// That it does.
    pub verified: VerifiedSignature,
}

/// The protocol of a run that signs.
pub struct FrostSign<S: Suite> {
    share: Arc<FrostShare<S>>,
    message: Vec<u8>,
    subject: Hash32,
    permitted: bool,
    /// Whether aggregating waits until it is asked for.
    last_step_left: bool,
    /// Taken to make the share; none afterwards.
    nonces: Option<SigningNonces<S>>,
    mine: SigningCommitments<S>,
    /// The same as it was sent; none before.
    announced: Option<Vec<u8>>,
    /// What the others sent, with its bytes: to encode points again costs more than to keep them.
    theirs: BTreeMap<PartyId, (SigningCommitments<S>, Vec<u8>)>,
    /// What is signed by whom with which commitments, and the commitments' hash, once fixed.
    package: Option<(SigningPackage<S>, Hash32)>,
    shares: BTreeMap<PartyId, (Hash32, SignatureShare<S>)>,
}

impl<S: Suite> Driven<FrostSign<S>> {
    /// Makes the nonces. `message` is what this node's own entry says.
    ///
    /// # Errors
    /// If the claim is for another purpose or message; if key, epoch, threshold or holders are not
    /// the claim's.
    pub fn new(
        claim: Claim,
        key: &LiveKey<FrostShare<S>>,
        message: Vec<u8>,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        let Some(Task::Sign { path, subject }) = context.spec().purpose.task(S::SCHEME) else {
            return Err(context.wrong_purpose(S::NAMES.sign).into());
        };
        if S::subject(&message) != *subject {
            return Err(Misuse::WrongMessage.into());
        }
        key.facts.admits(context)?;
        let share = key.share.child(&key.facts.chain_code, path)?;
        Ok(Self::begin(claim, share, message, false, rng))
    }

    /// Signs a pending key's own test message, which needs no permit.
    ///
    /// # Errors
    /// As for a live key.
    pub fn test(
        claim: Claim,
        key: &PendingKey<FrostShare<S>>,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        let Some(Task::Test) = context.spec().purpose.task(S::SCHEME) else {
            return Err(context.wrong_purpose(S::NAMES.test).into());
        };
        key.facts.admits(context)?;
        let message = test_digest(&key.facts, &key.share, context.participants()).to_vec();
        let share = key.share.child(&key.facts.chain_code, &DerivationPath::root())?;
        Ok(Self::begin(claim, share, message, true, rng))
    }

    fn begin(
        claim: Claim,
        share: Arc<FrostShare<S>>,
        message: Vec<u8>,
        permitted: bool,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Self {
        let (nonces, mine) = round1::commit(share.package.signing_share(), rng);
        let machine = FrostSign {
            share,
            subject: S::subject(&message),
            message,
            permitted,
            last_step_left: false,
            nonces: Some(nonces),
            mine,
            announced: None,
            theirs: BTreeMap::new(),
            package: None,
            shares: BTreeMap::new(),
        };
        Self::open(claim, machine)
    }

    /// Gives the permit; the share goes out as soon as all commitments are in.
    ///
    /// # Errors
    /// If the permit is for another run or message, has ended, or is the second one.
    pub fn authorise(
        &mut self,
        permit: Authorised,
        now: UnixMillis,
    ) -> Result<Step<FrostSignature<S::PublicKey>>, RunError> {
        let run = Run::context(self).id();
        let release_by = permit.release_by();
        let step = self.step(now, |machine| {
            permit.check(run, machine.subject, machine.permitted, now)?;
            machine.permitted = true;
            Ok(())
        })?;
        // what the permit lets out later, once the peers have answered, ends with it too (I4)
        self.end_by(release_by);
        Ok(step)
    }

    /// Has the run stop before it aggregates, when all shares are in: [`Self::finish`] goes on from there.
    /// Nothing that others wait for is left out.
    pub fn leave_last_step(&mut self) {
        if let Some(machine) = self.machine_mut() {
            machine.last_step_left = true;
        }
    }

    /// Whether nothing is missing but the step that was left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.machine().is_some_and(Machine::is_complete)
    }

    /// Makes the step that was left, now or as soon as it can be. Once the run is complete no deadline ends it: all
    /// of its messages are out, and this makes none.
    ///
    /// # Errors
    /// If the run has ended, or what came is not a signature.
    pub fn finish(
        &mut self,
        now: UnixMillis,
    ) -> Result<Step<FrostSignature<S::PublicKey>>, RunError> {
        self.step(now, |machine| {
            machine.last_step_left = false;
            Ok(())
        })
    }
}

impl<S: Suite> FrostSign<S> {
    /// Whether all shares are in, this party's among them.
    fn has_all_shares(&self) -> bool {
        let signers = self.theirs.len().saturating_add(1);
        self.package.is_some() && self.shares.len() == signers
    }

    /// Makes this party's share, once: the nonces are moved out and dropped.
    fn sign_share(&mut self, io: &mut Io<'_>) -> Result<(), RunError> {
        let participants = io.context().participants().clone();
        let others = participants.len().saturating_sub(1);
        if !self.permitted || self.theirs.len() != others {
            return Ok(());
        }
        let Some(announced) = &self.announced else { return Ok(()) };
        let padded = |(_, bytes): &&(_, Vec<u8>)| bytes.len() != announced.len();
        if let Some((party, _)) = self.theirs.iter().find(|(_, sent)| padded(sent)) {
            // the library reads over bytes behind the commitments; nobody honest sends any
            return Err(undecodable(*party));
        }
        let Some(nonces) = self.nonces.take() else { return Ok(()) };
        let mut commitments = BTreeMap::from([(io.me().to_frost()?, self.mine)]);
        let mut sent = BTreeMap::from([(io.me().to_frost()?, announced)]);
        for (party, (theirs, bytes)) in &self.theirs {
            let identifier: Identifier<S> = party.to_frost()?;
            commitments.insert(identifier, *theirs);
            sent.insert(identifier, bytes);
        }
        // Each is a part of its own. Strung together, two signers could place theirs so that others, who were
        // sent other commitments, see the same string: one of those would be blamed for its honest share.
        let mut seen = vec![io.context().id().0.as_bytes().to_vec()];
        for (identifier, bytes) in sent {
            seen.push(identifier.serialize());
            seen.push(bytes.clone());
        }
        let parts: Vec<&[u8]> = seen.iter().map(Vec::as_slice).collect();
        let hash = tagged_hash("casemate/threshold/commitments/v2", &parts);
        let package = SigningPackage::new(commitments, &self.message);
        let share = round2::sign(&package, &nonces, &self.share.package);
        drop(nonces);
        let share = share.map_err(|e| blame(&e, &participants))?;
        let mut bytes = hash.as_bytes().to_vec();
        bytes.extend_from_slice(&share.serialize());
        io.broadcast(SHARE_LANE, bytes);
        self.shares.insert(io.me(), (hash, share));
        self.package = Some((package, hash));
        Ok(())
    }

    fn aggregate(&self, io: &Io<'_>) -> Result<Option<FrostSignature<S::PublicKey>>, RunError> {
        let participants = io.context().participants();
        let Some((package, hash)) = &self.package else { return Ok(None) };
        if self.shares.len() != participants.len() {
            return Ok(None);
        }
        if self.shares.values().any(|(theirs, _)| theirs != hash) {
            return Err(RunError::Aborted { what: Abort::CommitmentsDiffer });
        }
        let mut shares = BTreeMap::new();
        for (party, (_, share)) in &self.shares {
            shares.insert(party.to_frost()?, *share);
        }
        let signature = frost_core::aggregate_custom(
            package,
            &shares,
            &self.share.public,
            CheaterDetection::AllCheaters,
        )
        .map_err(|e| blame(&e, participants))?;
        let wrong = || RunError::Aborted { what: Abort::WrongSignature };
        let bytes = signature.serialize().map_err(|e| Abort::library(&e))?;
        let bytes = <[u8; 64]>::try_from(bytes).map_err(|_| wrong())?;
        let public_key = self.share.verifying_key;
        // by other code than the library that signs
        let verified =
            VerifiedSignature::verify(S::SCHEME, public_key.as_ref(), &self.message, &bytes)
                .ok_or_else(wrong)?;
        Ok(Some(FrostSignature { bytes, public_key, verified }))
    }
}

impl<S: Suite> Sealed for FrostSign<S> {}

impl<S: Suite> Machine for FrostSign<S> {
    type Output = FrostSignature<S::PublicKey>;

    fn lanes(&self) -> &'static [LaneLimit] {
        LANES
    }

    fn deliver(&mut self, from: PartyId, chunk: Chunk) -> Result<(), RunError> {
        if chunk.lane == COMMITMENT_LANE {
            let commitments =
                SigningCommitments::deserialize(&chunk.bytes).map_err(|_| undecodable(from))?;
            self.theirs.insert(from, (commitments, chunk.bytes.clone()));
            return Ok(());
        }
        let (hash, share) = chunk.bytes.split_at_checked(32).ok_or_else(|| undecodable(from))?;
        let hash = <[u8; 32]>::try_from(hash).map_err(|_| undecodable(from))?;
        let share = SignatureShare::deserialize(share).map_err(|_| undecodable(from))?;
        self.shares.insert(from, (Hash32::new(hash), share));
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.last_step_left && self.has_all_shares()
    }

    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<Self::Output>, RunError> {
        if self.announced.is_none() {
            let bytes = self.mine.serialize().map_err(|e| Abort::library(&e))?;
            io.broadcast(COMMITMENT_LANE, bytes.clone());
            self.announced = Some(bytes);
        }
        self.sign_share(io)?;
        if self.last_step_left {
            return Ok(None);
        }
        self.aggregate(io)
    }
}
