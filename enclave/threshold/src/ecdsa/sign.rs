//! One ECDSA signature: presign, wait for the permit, sign.
//!
//! Presigning may overlap the ledger's commit: what it broadcasts (two rounds' worth in one) is of
//! no use without the share of s, and that share waits for an [`Authorised`]. Digest and path are
//! bound into the run's id before presigning starts, so no presignature ever waits for an attacker
//! to choose what it signs: the attacks on presignatures with derived keys (Groth and Shoup,
//! "On the security of ECDSA with additive key derivation and presignatures", 2021) need that.
//!
//! The child key's tweak is added to this party's share and to the public key before presigning: a
//! constant added to every share is added to the secret.
//!
//! Shares of s that arrive before the permit are kept, one for each sender. What comes out has been
//! verified under the derived key.

use cait_sith::{
    FullSignature, KeygenOutput, PresignArguments, PresignOutput, presign, sign,
    triples::TriplePub, triples::TripleShare,
};
use casemate_proto::{Hash32, UnixMillis, derive::derive_secp256k1};
use k256::{
    AffinePoint, PublicKey, Scalar, Secp256k1, U256,
    ecdsa::{RecoveryId, Signature, VerifyingKey},
    elliptic_curve::{PrimeField, ops::Reduce, point::AffineCoordinates},
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    EcdsaShare, LiveEcdsaKey, PendingEcdsaKey, TriplePair, sec1, triples::Triple, verify_ecdsa,
};
use crate::{
    cait::Lane,
    context::Claim,
    error::{Abort, Misuse, RunError},
    key::{KeyFacts, test_digest},
    message::{Chunk, LaneLimit},
    party::{Participants, PartyId},
    permit::Authorised,
    purpose::{Purpose, TriplePairId},
    run::{Driven, Io, Machine, Step, sealed::Sealed},
};

const PRESIGN_LANE: u8 = 0;
const SIGN_LANE: u8 = 1;

const LANES: &[LaneLimit] = &[
    LaneLimit { lane: PRESIGN_LANE, max_bytes: 512, broadcasts: 2, privates: 0 },
    LaneLimit { lane: SIGN_LANE, max_bytes: 512, broadcasts: 1, privates: 0 },
];

/// A verified signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcdsaSignature {
    /// r‖s, s in the lower half of the order.
    pub r_s: [u8; 64],
    /// 0 to 3; Ethereum's y parity where it is 0 or 1.
    pub recovery_id: u8,
    /// The derived public key under which it verifies: SEC1, compressed.
    pub public_key: [u8; 33],
}

/// k and σ are this party's shares; with them and one signature the key would be known.
struct Presigned(PresignOutput<Secp256k1>);

impl Drop for Presigned {
    fn drop(&mut self) {
        self.0.k.zeroize();
        self.0.sigma.zeroize();
    }
}

enum Phase {
    Presigning(Lane<PresignOutput<Secp256k1>>),
    /// Presigned, no permit yet.
    Waiting(Presigned),
    Signing(Lane<FullSignature<Secp256k1>>),
    /// Between two phases; a run found here has failed in between.
    Spent,
}

/// The protocol of [`EcdsaSignRun`].
pub struct EcdsaSign {
    set: Participants,
    public: AffinePoint,
    digest: [u8; 32],
    permitted: bool,
    phase: Phase,
    /// Shares of s that came before this party was ready for them.
    early: Vec<(PartyId, Vec<u8>)>,
}

/// Signs one digest with one child key; yields an [`EcdsaSignature`].
pub type EcdsaSignRun = Driven<EcdsaSign>;

impl EcdsaSignRun {
    /// Starts presigning with a live key. The triples are used up, whatever comes of the run.
    ///
    /// # Errors
    /// If the claim is for another purpose; if key, epoch, threshold or holders are not the
    /// claim's; if the triples are not those that the claim names, made by its participants.
    #[expect(clippy::arithmetic_side_effects, reason = "arithmetic in a group does not overflow")]
    pub fn new(claim: Claim, key: &LiveEcdsaKey, pair: TriplePair) -> Result<Self, RunError> {
        let context = &claim.context;
        let Purpose::EcdsaSign { path, digest, triples, .. } = &context.spec().purpose else {
            return Err(context.wrong_purpose("ecdsa-sign").into());
        };
        let no_child = || Misuse::NoSuchChild(path.clone());
        let derived = derive_secp256k1(&key.share.sec1(), &key.facts.chain_code, path)
            .map_err(|_| no_child())?;
        let tweak =
            Option::<Scalar>::from(Scalar::from_repr(derived.tweak.into())).ok_or_else(no_child)?;
        let public = PublicKey::from_sec1_bytes(&derived.public_key).map_err(|_| no_child())?;
        let share = EcdsaShare {
            secret: Zeroizing::new(*key.share.secret + tweak),
            public: *public.as_affine(),
        };
        let (digest, triples) = (*digest, *triples);
        Self::begin(claim, &key.facts, &share, pair, triples, digest, false)
    }

    /// Signs a pending key's own test message, which needs no permit.
    ///
    /// # Errors
    /// As [`EcdsaSignRun::new`].
    pub fn test(claim: Claim, key: &PendingEcdsaKey, pair: TriplePair) -> Result<Self, RunError> {
        let context = &claim.context;
        let Purpose::EcdsaTest { triples, .. } = &context.spec().purpose else {
            return Err(context.wrong_purpose("ecdsa-test").into());
        };
        let triples = *triples;
        let digest = test_digest(&key.facts, &key.share, context.participants());
        Self::begin(claim, &key.facts, &key.share, pair, triples, digest, true)
    }

    fn begin(
        claim: Claim,
        facts: &KeyFacts,
        share: &EcdsaShare,
        pair: TriplePair,
        triples: TriplePairId,
        digest: [u8; 32],
        permitted: bool,
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        facts.admits(context)?;
        let is_theirs = pair.set == *context.participants()
            || casemate_proto::sabotaged!("triple_outside_its_set");
        if pair.id != triples || !is_theirs {
            return Err(Misuse::WrongTriples.into());
        }
        let set = context.participants().clone();
        let arguments = PresignArguments {
            triple0: library_triple(&pair.first),
            triple1: library_triple(&pair.second),
            keygen_out: KeygenOutput { private_share: *share.secret, public_key: share.public },
            threshold: usize::from(context.threshold()),
        };
        let lane = Lane::new(
            PRESIGN_LANE,
            presign::<Secp256k1>(&set.to_cait_sith(), claim.me.to_cait_sith(), arguments),
        )?;
        let machine = EcdsaSign {
            set,
            public: share.public,
            digest,
            permitted,
            phase: Phase::Presigning(lane),
            early: Vec::new(),
        };
        Ok(Self::open(claim, machine))
    }

    /// Gives the permit; the share of s goes out as soon as presigning is done.
    ///
    /// # Errors
    /// If the permit is for another run or digest, has ended, or is the second one.
    pub fn authorise(
        &mut self,
        permit: Authorised,
        now: UnixMillis,
    ) -> Result<Step<EcdsaSignature>, RunError> {
        let run = crate::run::Run::context(self).id();
        let release_by = permit.release_by();
        let step = self.step(now, |machine| {
            permit.check(run, Hash32::new(machine.digest), machine.permitted, now)?;
            machine.permitted = true;
            Ok(())
        })?;
        // what the permit lets out later, once the peers have answered, ends with it too (I4)
        self.end_by(release_by);
        Ok(step)
    }
}

fn library_triple(triple: &Triple) -> (TripleShare<Secp256k1>, TriplePub<Secp256k1>) {
    (triple.share.clone(), triple.public.clone())
}

impl EcdsaSign {
    /// Makes the one message that makes a signature possible.
    fn start_signing(&mut self, me: PartyId, presigned: &Presigned) -> Result<(), RunError> {
        let mut lane = Lane::new(
            SIGN_LANE,
            sign::<Secp256k1>(
                &self.set.to_cait_sith(),
                me.to_cait_sith(),
                self.public,
                presigned.0.clone(),
                <Scalar as Reduce<U256>>::reduce_bytes(&self.digest.into()),
            ),
        )?;
        for (from, mut bytes) in std::mem::take(&mut self.early) {
            lane.deliver(from, &mut bytes);
        }
        self.phase = Phase::Signing(lane);
        Ok(())
    }

    /// The library's signature in the form that chains take, verified once more by the code that
    /// verifies for everybody else.
    fn finish(&self, full: &FullSignature<Secp256k1>) -> Option<EcdsaSignature> {
        let r = <Scalar as Reduce<U256>>::reduce_bytes(&full.big_r.x());
        let signature = Signature::from_scalars(r, full.s).ok()?;
        let r_s: [u8; 64] = signature.to_bytes().into();
        let public_key = sec1(&self.public);
        if !verify_ecdsa(&public_key, &self.digest, &r_s) {
            return None;
        }
        let key = VerifyingKey::from_sec1_bytes(&public_key).ok()?;
        let recovery_id =
            RecoveryId::trial_recovery_from_prehash(&key, &self.digest, &signature).ok()?;
        Some(EcdsaSignature { r_s, recovery_id: recovery_id.to_byte(), public_key })
    }
}

impl Sealed for EcdsaSign {}

impl Machine for EcdsaSign {
    type Output = EcdsaSignature;

    fn lanes(&self) -> &'static [LaneLimit] {
        LANES
    }

    fn deliver(&mut self, from: PartyId, mut chunk: Chunk) -> Result<(), RunError> {
        match (chunk.lane, &mut self.phase) {
            (PRESIGN_LANE, Phase::Presigning(lane)) => lane.deliver(from, &mut chunk.bytes),
            (SIGN_LANE, Phase::Signing(lane)) => lane.deliver(from, &mut chunk.bytes),
            (SIGN_LANE, _) => self.early.push((from, std::mem::take(&mut chunk.bytes))),
            _ => {}
        }
        Ok(())
    }

    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<EcdsaSignature>, RunError> {
        if let Phase::Presigning(lane) = &mut self.phase
            && let Some(output) = lane.drive(io)?
        {
            self.phase = Phase::Waiting(Presigned(output));
        }
        if self.permitted && matches!(self.phase, Phase::Waiting(_)) {
            let phase = std::mem::replace(&mut self.phase, Phase::Spent);
            if let Phase::Waiting(presigned) = phase {
                self.start_signing(io.me(), &presigned)?;
            }
        }
        let Phase::Signing(lane) = &mut self.phase else { return Ok(None) };
        let Some(full) = lane.drive(io)? else { return Ok(None) };
        self.finish(&full).map(Some).ok_or(RunError::Aborted { what: Abort::WrongSignature })
    }
}
