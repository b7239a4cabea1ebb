//! One Ed25519 signature by FROST, with no coordinator.
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

use std::collections::BTreeMap;

use casemate_proto::{
    DerivationPath, Hash32, UnixMillis, derive::derive_ed25519, hash::tagged_hash,
};
use curve25519_dalek::{EdwardsPoint, Scalar, edwards::CompressedEdwardsY};
use frost_ed25519::{
    CheaterDetection, Identifier, SigningPackage, VerifyingKey,
    keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare},
    round1::{self, SigningCommitments, SigningNonces},
    round2::{self, SignatureShare},
};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::{
    Ed25519Share, LiveEd25519Key, PendingEd25519Key, blame, no_child, undecodable, verify_ed25519,
};
use crate::{
    context::{Claim, Purpose, ed25519_subject},
    error::{Abort, Misuse, RunError},
    key::test_digest,
    message::{Chunk, LaneLimit},
    party::PartyId,
    permit::Authorised,
    run::{Driven, Io, Machine, Run, Step, sealed::Sealed},
};

const COMMITMENT_LANE: u8 = 0;
const SHARE_LANE: u8 = 1;

const LANES: &[LaneLimit] = &[
    LaneLimit { lane: COMMITMENT_LANE, max_bytes: 128, broadcasts: 1, privates: 0 },
    LaneLimit { lane: SHARE_LANE, max_bytes: 64, broadcasts: 1, privates: 0 },
];

/// A verified signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ed25519Signature {
    /// R‖S.
    pub bytes: [u8; 64],
    /// The derived public key under which it verifies.
    pub public_key: [u8; 32],
}

/// The protocol of [`Ed25519SignRun`].
pub struct Ed25519Sign {
    share: Ed25519Share,
    message: Vec<u8>,
    subject: Hash32,
    permitted: bool,
    announced: bool,
    /// Taken to make the share; none afterwards.
    nonces: Option<SigningNonces>,
    mine: SigningCommitments,
    theirs: BTreeMap<PartyId, SigningCommitments>,
    /// What is signed by whom with which commitments, and the commitments' hash, once fixed.
    package: Option<(SigningPackage, Hash32)>,
    shares: BTreeMap<PartyId, (Hash32, SignatureShare)>,
}

/// Signs one message with one child key; yields an [`Ed25519Signature`].
pub type Ed25519SignRun = Driven<Ed25519Sign>;

impl Ed25519SignRun {
    /// Makes the nonces. `message` is what this node's own entry says.
    ///
    /// # Errors
    /// If the claim is for another purpose or message; if key, epoch, threshold or holders are not
    /// the claim's.
    pub fn new(
        claim: Claim,
        key: &LiveEd25519Key,
        message: Vec<u8>,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        let Purpose::Ed25519Sign { path, subject, .. } = &context.spec().purpose else {
            return Err(context.wrong_purpose("ed25519-sign").into());
        };
        if ed25519_subject(&message) != *subject {
            return Err(Misuse::WrongMessage.into());
        }
        key.facts.admits(context)?;
        let share = derive_share(&key.share, &key.facts.chain_code, path)?;
        Ok(Self::begin(claim, share, message, false, rng))
    }

    /// Signs a pending key's own test message, which needs no permit.
    ///
    /// # Errors
    /// As [`Ed25519SignRun::new`].
    pub fn test(
        claim: Claim,
        key: &PendingEd25519Key,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        if !matches!(context.spec().purpose, Purpose::Ed25519Test { .. }) {
            return Err(context.wrong_purpose("ed25519-test").into());
        }
        key.facts.admits(context)?;
        let message = test_digest(&key.facts, &key.share, context.participants()).to_vec();
        let share = derive_share(&key.share, &key.facts.chain_code, &DerivationPath::root())?;
        Ok(Self::begin(claim, share, message, true, rng))
    }

    fn begin(
        claim: Claim,
        share: Ed25519Share,
        message: Vec<u8>,
        permitted: bool,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Self {
        let (nonces, mine) = round1::commit(share.package.signing_share(), rng);
        let machine = Ed25519Sign {
            share,
            subject: ed25519_subject(&message),
            message,
            permitted,
            announced: false,
            nonces: Some(nonces),
            mine,
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
    ) -> Result<Step<Ed25519Signature>, RunError> {
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
}

/// The child's share: the tweak added to the secret share, to all public shares and to the key.
///
/// A constant added to every value of a polynomial is added to the polynomial, so to the secret.
#[expect(clippy::arithmetic_side_effects, reason = "arithmetic in a group does not overflow")]
fn derive_share(
    parent: &Ed25519Share,
    chain_code: &[u8; 32],
    path: &DerivationPath,
) -> Result<Ed25519Share, RunError> {
    let failed = |e: frost_ed25519::Error| Abort::library(&e);
    let derived =
        derive_ed25519(&parent.verifying_key, chain_code, path).map_err(|_| no_child(path))?;
    let tweak = scalar(&derived.tweak).ok_or_else(|| no_child(path))?;
    let offset = EdwardsPoint::mul_base(&tweak);

    let secret = Zeroizing::new(parent.package.signing_share().serialize());
    let secret = scalar(&secret).ok_or_else(|| no_child(path))?;
    let secret = Zeroizing::new((*secret + *tweak).to_bytes());
    let signing_share = SigningShare::deserialize(secret.as_slice()).map_err(failed)?;

    let mut verifying_shares = BTreeMap::new();
    for (identifier, share) in parent.public.verifying_shares() {
        let shifted =
            shift(&share.serialize().map_err(failed)?, &offset).ok_or_else(|| no_child(path))?;
        verifying_shares
            .insert(*identifier, VerifyingShare::deserialize(&shifted).map_err(failed)?);
    }
    let verifying_key = VerifyingKey::deserialize(&derived.public_key).map_err(failed)?;
    let identifier = *parent.package.identifier();
    let verifying_share =
        *verifying_shares.get(&identifier).ok_or_else(|| Abort::library(&"no public share"))?;
    let threshold = *parent.package.min_signers();
    let package =
        KeyPackage::new(identifier, signing_share, verifying_share, verifying_key, threshold);
    let public = PublicKeyPackage::new(verifying_shares, verifying_key, Some(threshold));
    Ed25519Share::new(package, public)
}

fn scalar(bytes: &[u8]) -> Option<Zeroizing<Scalar>> {
    let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes).ok()?);
    Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes)).map(Zeroizing::new)
}

#[expect(clippy::arithmetic_side_effects, reason = "arithmetic in a group does not overflow")]
fn shift(point: &[u8], offset: &EdwardsPoint) -> Option<[u8; 32]> {
    let point = CompressedEdwardsY(<[u8; 32]>::try_from(point).ok()?).decompress()?;
    Some((point + offset).compress().to_bytes())
}

impl Ed25519Sign {
    /// Makes this party's share, once: the nonces are moved out and dropped.
    fn sign_share(&mut self, io: &mut Io<'_>) -> Result<(), RunError> {
        let participants = io.context().participants().clone();
        let others = participants.len().saturating_sub(1);
        if !self.permitted || self.theirs.len() != others {
            return Ok(());
        }
        let Some(nonces) = self.nonces.take() else { return Ok(()) };
        let mut commitments: BTreeMap<Identifier, SigningCommitments> =
            BTreeMap::from([(io.me().to_frost()?, self.mine)]);
        for (party, theirs) in &self.theirs {
            commitments.insert(party.to_frost()?, *theirs);
        }
        let mut seen = Vec::new();
        for (identifier, commitments) in &commitments {
            seen.extend_from_slice(&identifier.serialize());
            seen.extend_from_slice(&commitments.serialize().map_err(|e| Abort::library(&e))?);
        }
        let run = io.context().id();
        let hash = tagged_hash("casemate/threshold/commitments/v1", &[run.0.as_bytes(), &seen]);
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

    fn aggregate(&self, io: &Io<'_>) -> Result<Option<Ed25519Signature>, RunError> {
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
        let signature = frost_ed25519::aggregate_custom(
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
        if !verify_ed25519(&public_key, &self.message, &bytes) {
            return Err(wrong());
        }
        Ok(Some(Ed25519Signature { bytes, public_key }))
    }
}

impl Sealed for Ed25519Sign {}

impl Machine for Ed25519Sign {
    type Output = Ed25519Signature;

    fn lanes(&self) -> &'static [LaneLimit] {
        LANES
    }

    fn deliver(&mut self, from: PartyId, chunk: Chunk) -> Result<(), RunError> {
        if chunk.lane == COMMITMENT_LANE {
            let commitments =
                SigningCommitments::deserialize(&chunk.bytes).map_err(|_| undecodable(from))?;
            self.theirs.insert(from, commitments);
            return Ok(());
        }
        let (hash, share) = chunk.bytes.split_at_checked(32).ok_or_else(|| undecodable(from))?;
        let hash = <[u8; 32]>::try_from(hash).map_err(|_| undecodable(from))?;
        let share = SignatureShare::deserialize(share).map_err(|_| undecodable(from))?;
        self.shares.insert(from, (Hash32::new(hash), share));
        Ok(())
    }

    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<Ed25519Signature>, RunError> {
        if !self.announced {
            self.announced = true;
            let bytes = self.mine.serialize().map_err(|e| Abort::library(&e))?;
            io.broadcast(COMMITMENT_LANE, bytes);
        }
        self.sign_share(io)?;
        self.aggregate(io)
    }
}
