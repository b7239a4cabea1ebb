//! Shares of every scheme, and the runs that make, test and use them. Here alone the schemes are
//! told apart.

use std::collections::BTreeMap;

use casemate_proto::ids::Hash32;
use casemate_proto::signature::VerifiedSignature;
use casemate_proto::{DerivationPath, Scheme, UnixMillis};
use casemate_recovery::SealedKey;
use casemate_seal::{OpenedShare, SealableShare};
use casemate_threshold::Purpose;
use casemate_threshold::ecdsa::TriplePair;
use casemate_threshold::{
    Authorised, Bip340KeygenRun, Bip340Public, Bip340RepairRun, Bip340SignRun, Claim, ConfirmError,
    EcdsaKeygenRun, EcdsaPublic, EcdsaSignRun, Ed25519KeygenRun, Ed25519Public, Ed25519RepairRun,
    Ed25519SignRun, KeyFacts, KeyRef, LiveBip340Key, LiveEcdsaKey, LiveEd25519Key, Misuse,
    Participants, PartyId, PendingBip340Key, PendingEcdsaKey, PendingEd25519Key, RecoverError,
    Recovered, Run as _, RunError, Step, TestSignature, TripleRun, bip340_subject, ed25519_subject,
};
use zeroize::Zeroizing;

use crate::boot::Entropy;

/// A share that may not sign yet.
pub(crate) enum Pending {
    Ecdsa(Box<PendingEcdsaKey>),
    Ed25519(Box<PendingEd25519Key>),
    Bip340(Box<PendingBip340Key>),
}

/// A share that signs, given a permit.
pub(crate) enum Live {
    Ecdsa(Box<LiveEcdsaKey>),
    Ed25519(Box<LiveEd25519Key>),
    Bip340(Box<LiveBip340Key>),
}

/// A run of any kind.
pub(crate) enum AnyRun {
    Triples(Box<TripleRun>),
    EcdsaSign(Box<EcdsaSignRun>),
    EcdsaKey(Box<EcdsaKeygenRun>),
    Ed25519Sign(Box<Ed25519SignRun>),
    Ed25519Key(Box<Ed25519KeygenRun>),
    Ed25519Repair(Box<Ed25519RepairRun>),
    Bip340Sign(Box<Bip340SignRun>),
    Bip340Key(Box<Bip340KeygenRun>),
    Bip340Repair(Box<Bip340RepairRun>),
}

/// What a run made.
pub(crate) enum Made {
    Pair(Box<TriplePair>),
    /// 65 bytes r‖s‖v for ECDSA, 64 for the others; and the proof that it was verified, where the run gives one.
    Signature(Vec<u8>, Option<VerifiedSignature>),
    Share(Pending),
}

/// One call's result, of any kind.
pub(crate) struct AnyStep {
    pub(crate) send: Vec<casemate_threshold::Outgoing>,
    pub(crate) done: Option<Made>,
}

impl AnyStep {
    fn of<T>(step: Step<T>, made: impl FnOnce(T) -> Made) -> Self {
        Self { send: step.send, done: step.done.map(made) }
    }
}

fn pair(pair: TriplePair) -> Made {
    Made::Pair(Box::new(pair))
}
fn ecdsa(signature: casemate_threshold::EcdsaSignature) -> Made {
    let mut bytes = signature.r_s.to_vec();
    bytes.push(signature.recovery_id);
    Made::Signature(bytes, None)
}
fn ed25519(signature: casemate_threshold::Ed25519Signature) -> Made {
    Made::Signature(signature.bytes.to_vec(), Some(signature.verified))
}
fn bip340(signature: casemate_threshold::Bip340Signature) -> Made {
    Made::Signature(signature.bytes.to_vec(), Some(signature.verified))
}
fn ecdsa_share(key: PendingEcdsaKey) -> Made {
    Made::Share(Pending::Ecdsa(Box::new(key)))
}
fn ed25519_share(key: PendingEd25519Key) -> Made {
    Made::Share(Pending::Ed25519(Box::new(key)))
}
fn bip340_share(key: PendingBip340Key) -> Made {
    Made::Share(Pending::Bip340(Box::new(key)))
}

/// A call that makes a step, in every kind of run.
macro_rules! step {
    ($self:expr, $run:ident => $call:expr) => {
        match $self {
            AnyRun::Triples($run) => $call.map(|step| AnyStep::of(step, pair)),
            AnyRun::EcdsaSign($run) => $call.map(|step| AnyStep::of(step, ecdsa)),
            AnyRun::EcdsaKey($run) => $call.map(|step| AnyStep::of(step, ecdsa_share)),
            AnyRun::Ed25519Sign($run) => $call.map(|step| AnyStep::of(step, ed25519)),
            AnyRun::Ed25519Key($run) => $call.map(|step| AnyStep::of(step, ed25519_share)),
            AnyRun::Ed25519Repair($run) => $call.map(|step| AnyStep::of(step, ed25519_share)),
            AnyRun::Bip340Sign($run) => $call.map(|step| AnyStep::of(step, bip340)),
            AnyRun::Bip340Key($run) => $call.map(|step| AnyStep::of(step, bip340_share)),
            AnyRun::Bip340Repair($run) => $call.map(|step| AnyStep::of(step, bip340_share)),
        }
    };
}

/// A call that gives the same for every kind of run or share.
macro_rules! each {
    ($kind:ident, $self:expr, $it:ident => $call:expr) => {
        each!(@$kind $self, $it => $call)
    };
    (@AnyRun $self:expr, $it:ident => $call:expr) => {
        match $self {
            AnyRun::Triples($it) => $call,
            AnyRun::EcdsaSign($it) => $call,
            AnyRun::EcdsaKey($it) => $call,
            AnyRun::Ed25519Sign($it) => $call,
            AnyRun::Ed25519Key($it) => $call,
            AnyRun::Ed25519Repair($it) => $call,
            AnyRun::Bip340Sign($it) => $call,
            AnyRun::Bip340Key($it) => $call,
            AnyRun::Bip340Repair($it) => $call,
        }
    };
    (@Pending $self:expr, $it:ident => $call:expr) => {
        match $self {
            Pending::Ecdsa($it) => $call,
            Pending::Ed25519($it) => $call,
            Pending::Bip340($it) => $call,
        }
    };
    (@Live $self:expr, $it:ident => $call:expr) => {
        match $self {
            Live::Ecdsa($it) => $call,
            Live::Ed25519($it) => $call,
            Live::Bip340($it) => $call,
        }
    };
}

impl AnyRun {
    pub(crate) fn start(&mut self, now: UnixMillis) -> Result<AnyStep, RunError> {
        step!(self, run => run.start(now))
    }
    pub(crate) fn receive(
        &mut self,
        from: PartyId,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<AnyStep, RunError> {
        step!(self, run => run.receive(from, bytes, now))
    }
    /// Gives a signing run its permit; other runs take none.
    pub(crate) fn authorise(
        &mut self,
        permit: Authorised,
        now: UnixMillis,
    ) -> Result<AnyStep, RunError> {
        match self {
            Self::EcdsaSign(run) => Ok(AnyStep::of(run.authorise(permit, now)?, ecdsa)),
            Self::Ed25519Sign(run) => Ok(AnyStep::of(run.authorise(permit, now)?, ed25519)),
            Self::Bip340Sign(run) => Ok(AnyStep::of(run.authorise(permit, now)?, bip340)),
            _ => Err(Misuse::WrongKey.into()),
        }
    }
    /// Has a run that signs leave out its last step, which tells nobody anything, where it has one.
    pub(crate) fn leave_last_step(&mut self) {
        match self {
            Self::Ed25519Sign(run) => run.leave_last_step(),
            Self::Bip340Sign(run) => run.leave_last_step(),
            _ => {}
        }
    }
    /// Whether nothing is missing but the last step that was left out.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Ed25519Sign(run) => run.is_complete(),
            Self::Bip340Sign(run) => run.is_complete(),
            _ => false,
        }
    }
    /// Makes the last step of a run that [`Self::is_complete`].
    pub(crate) fn finish(&mut self, now: UnixMillis) -> Result<AnyStep, RunError> {
        match self {
            Self::Ed25519Sign(run) => Ok(AnyStep::of(run.finish(now)?, ed25519)),
            Self::Bip340Sign(run) => Ok(AnyStep::of(run.finish(now)?, bip340)),
            _ => Err(Misuse::WrongKey.into()),
        }
    }
    pub(crate) fn deadline(&self) -> UnixMillis {
        each!(AnyRun, self, run => run.deadline())
    }
    pub(crate) fn is_over(&mut self, now: UnixMillis) -> bool {
        each!(AnyRun, self, run => run.expire(now))
    }
    pub(crate) fn burn(&mut self) {
        each!(AnyRun, self, run => run.burn());
    }
}

impl Pending {
    /// This share, to be sealed.
    pub(crate) fn to_sealable(&self) -> Option<SealableShare> {
        each!(Pending, self, key => key.to_sealable())
    }
    /// What a blob says of it.
    pub(crate) fn sealed_key(&self) -> SealedKey {
        sealed_key(self.scheme(), self.facts())
    }
    pub(crate) fn facts(&self) -> &KeyFacts {
        each!(Pending, self, key => key.facts())
    }
    pub(crate) fn public_key(&self) -> Vec<u8> {
        each!(Pending, self, key => key.public_key())
    }
    pub(crate) const fn scheme(&self) -> Scheme {
        match self {
            Self::Ecdsa(_) => Scheme::EcdsaSecp256k1,
            Self::Ed25519(_) => Scheme::Ed25519,
            Self::Bip340(_) => Scheme::Bip340Secp256k1,
        }
    }

    /// The run that signs the test message.
    pub(crate) fn test(
        &self,
        claim: Claim,
        pair: Option<TriplePair>,
        mut rng: &mut dyn Entropy,
    ) -> Result<AnyRun, RunError> {
        match (self, pair) {
            (Self::Ecdsa(key), Some(pair)) => {
                Ok(AnyRun::EcdsaSign(Box::new(EcdsaSignRun::test(claim, key, pair)?)))
            }
            (Self::Ed25519(key), None) => {
                Ok(AnyRun::Ed25519Sign(Box::new(Ed25519SignRun::test(claim, key, &mut rng)?)))
            }
            (Self::Bip340(key), None) => {
                Ok(AnyRun::Bip340Sign(Box::new(Bip340SignRun::test(claim, key, &mut rng)?)))
            }
            _ => Err(Misuse::WrongTriples.into()),
        }
    }

    /// The share that signs from here on, given everybody's echo and tests that cover everybody.
    pub(crate) fn confirm(
        self,
        echoes: &BTreeMap<PartyId, Hash32>,
        tests: &[TestSignature],
    ) -> Result<Live, ConfirmError> {
        match self {
            Self::Ecdsa(key) => key.confirm(echoes, tests).map(|key| Live::Ecdsa(Box::new(key))),
            Self::Ed25519(key) => {
                key.confirm(echoes, tests).map(|key| Live::Ed25519(Box::new(key)))
            }
            Self::Bip340(key) => key.confirm(echoes, tests).map(|key| Live::Bip340(Box::new(key))),
        }
    }
}

fn sealed_key(scheme: Scheme, facts: &KeyFacts) -> SealedKey {
    SealedKey {
        name: facts.key.name.clone(),
        epoch: facts.key.epoch.0,
        scheme,
        transcript: facts.transcript,
    }
}

impl Live {
    /// The key of a share that a recovery opened.
    pub(crate) fn recovered(share: OpenedShare, of: &Recovered<'_>) -> Result<Self, RecoverError> {
        Ok(match share.key().scheme {
            Scheme::EcdsaSecp256k1 => Self::Ecdsa(Box::new(LiveEcdsaKey::recovered(share, of)?)),
            Scheme::Ed25519 => Self::Ed25519(Box::new(LiveEd25519Key::recovered(share, of)?)),
            Scheme::Bip340Secp256k1 => Self::Bip340(Box::new(LiveBip340Key::recovered(share, of)?)),
        })
    }
    /// This share, to be sealed.
    pub(crate) fn to_sealable(&self) -> Option<SealableShare> {
        each!(Live, self, key => key.to_sealable())
    }
    /// What a blob says of it.
    pub(crate) fn sealed_key(&self) -> SealedKey {
        let scheme = match self {
            Self::Ecdsa(_) => Scheme::EcdsaSecp256k1,
            Self::Ed25519(_) => Scheme::Ed25519,
            Self::Bip340(_) => Scheme::Bip340Secp256k1,
        };
        sealed_key(scheme, self.facts())
    }
    pub(crate) fn facts(&self) -> &KeyFacts {
        each!(Live, self, key => key.facts())
    }
    pub(crate) const fn wants_triples(&self) -> bool {
        matches!(self, Self::Ecdsa(_))
    }

    /// The run that signs: for ECDSA the digest of its purpose, else `message`.
    pub(crate) fn sign(
        &self,
        claim: Claim,
        pair: Option<TriplePair>,
        message: Vec<u8>,
        mut rng: &mut dyn Entropy,
    ) -> Result<AnyRun, RunError> {
        match (self, pair) {
            (Self::Ecdsa(key), Some(pair)) => {
                Ok(AnyRun::EcdsaSign(Box::new(EcdsaSignRun::new(claim, key, pair)?)))
            }
            (Self::Ed25519(key), None) => {
                let run = Ed25519SignRun::new(claim, key, message, &mut rng)?;
                Ok(AnyRun::Ed25519Sign(Box::new(run)))
            }
            (Self::Bip340(key), None) => {
                let run = Bip340SignRun::new(claim, key, message, &mut rng)?;
                Ok(AnyRun::Bip340Sign(Box::new(run)))
            }
            _ => Err(Misuse::WrongTriples.into()),
        }
    }
}

/// Whether a scheme's signatures use up triples.
pub(crate) const fn wants_triples(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::EcdsaSecp256k1)
}

/// The hash by which runs and permits name what is signed.
pub(crate) fn subject(scheme: Scheme, digest: &[u8; 32]) -> Hash32 {
    match scheme {
        Scheme::EcdsaSecp256k1 => Hash32::new(*digest),
        Scheme::Ed25519 => ed25519_subject(digest),
        Scheme::Bip340Secp256k1 => bip340_subject(digest),
    }
}

/// What a run is for that signs.
pub(crate) fn sign_purpose(
    scheme: Scheme,
    key: KeyRef,
    path: DerivationPath,
    digest: [u8; 32],
    pair: Option<&TriplePair>,
) -> Result<Purpose, Misuse> {
    match (scheme, pair) {
        (Scheme::EcdsaSecp256k1, Some(pair)) => {
            Ok(Purpose::EcdsaSign { key, path, digest, triples: pair.id() })
        }
        (Scheme::Ed25519, None) => {
            Ok(Purpose::Ed25519Sign { key, path, subject: subject(scheme, &digest) })
        }
        (Scheme::Bip340Secp256k1, None) => {
            Ok(Purpose::Bip340Sign { key, path, subject: subject(scheme, &digest) })
        }
        _ => Err(Misuse::WrongTriples),
    }
}

/// What a run is for that tests a pending share.
pub(crate) fn test_purpose(
    scheme: Scheme,
    key: KeyRef,
    pair: Option<&TriplePair>,
) -> Result<Purpose, Misuse> {
    match (scheme, pair) {
        (Scheme::EcdsaSecp256k1, Some(pair)) => Ok(Purpose::EcdsaTest { key, triples: pair.id() }),
        (Scheme::Ed25519, None) => Ok(Purpose::Ed25519Test { key }),
        (Scheme::Bip340Secp256k1, None) => Ok(Purpose::Bip340Test { key }),
        _ => Err(Misuse::WrongTriples),
    }
}

/// What shares are made of: nothing, or the shares of a live key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// A new key.
    Generate,
    /// The next epoch of a live key, for nodes of which some lost their share; or, where nobody did,
    /// other shares of it, since FROST's were given back as they had been.
    Recover(Recovery),
}

/// What is known of a live key whose shares are recovered: everything from the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Its epoch so far.
    pub(crate) epoch: u64,
    pub(crate) public_key: Vec<u8>,
    pub(crate) chain_code: [u8; 32],
    /// Who holds a share of that epoch, with the boots that do.
    pub(crate) holders: Participants,
    /// Who has lost it.
    pub(crate) lost: Vec<PartyId>,
}

impl Recovery {
    fn public<const N: usize>(&self) -> Result<[u8; N], Misuse> {
        <[u8; N]>::try_from(self.public_key.as_slice()).map_err(|_| Misuse::WrongKey)
    }
}

impl Task {
    /// What a run is for that makes shares.
    pub(crate) fn purpose(
        &self,
        scheme: Scheme,
        key: KeyRef,
        threshold: u16,
    ) -> Result<Purpose, Misuse> {
        Ok(match (self, scheme) {
            (Self::Generate, Scheme::EcdsaSecp256k1) => Purpose::EcdsaKeygen { key },
            (Self::Generate, Scheme::Ed25519) => Purpose::Ed25519Keygen { key },
            (Self::Generate, Scheme::Bip340Secp256k1) => Purpose::Bip340Keygen { key },
            (Self::Recover(of), Scheme::EcdsaSecp256k1) => {
                let from = of.holders.clone();
                Purpose::EcdsaReshare { key, from, from_threshold: threshold }
            }
            (Self::Recover(of), Scheme::Ed25519) if of.lost.is_empty() => {
                Purpose::Ed25519Refresh { key }
            }
            (Self::Recover(of), Scheme::Bip340Secp256k1) if of.lost.is_empty() => {
                Purpose::Bip340Refresh { key }
            }
            (Self::Recover(of), Scheme::Ed25519) => {
                Purpose::Ed25519Repair { key, lost: of.lost.clone() }
            }
            (Self::Recover(of), Scheme::Bip340Secp256k1) => {
                Purpose::Bip340Repair { key, lost: of.lost.clone() }
            }
        })
    }

    /// The run that makes shares. `old` is this boot's share of the epoch before, if it has one.
    pub(crate) fn run(
        &self,
        scheme: Scheme,
        claim: Claim,
        old: Option<&Live>,
        mut rng: &mut dyn Entropy,
    ) -> Result<AnyRun, RunError> {
        let of = match self {
            Self::Generate => return generate(scheme, claim, rng),
            Self::Recover(of) => of,
        };
        let chain_code = of.chain_code;
        Ok(match (scheme, old) {
            (Scheme::EcdsaSecp256k1, None | Some(Live::Ecdsa(_))) => {
                let known = EcdsaPublic { public_key: of.public()?, chain_code };
                let old = if let Some(Live::Ecdsa(old)) = old { Some(&**old) } else { None };
                AnyRun::EcdsaKey(Box::new(EcdsaKeygenRun::reshare(claim, &known, old)?))
            }
            (Scheme::Ed25519, Some(Live::Ed25519(old))) if of.lost.is_empty() => {
                AnyRun::Ed25519Key(Box::new(Ed25519KeygenRun::refresh(claim, old, &mut rng)?))
            }
            (Scheme::Bip340Secp256k1, Some(Live::Bip340(old))) if of.lost.is_empty() => {
                AnyRun::Bip340Key(Box::new(Bip340KeygenRun::refresh(claim, old, &mut rng)?))
            }
            (Scheme::Ed25519, None | Some(Live::Ed25519(_))) => {
                let known = Ed25519Public { public_key: of.public()?, chain_code };
                let old = if let Some(Live::Ed25519(old)) = old { Some(&**old) } else { None };
                let run = Ed25519RepairRun::new(claim, known, old, &mut rng)?;
                AnyRun::Ed25519Repair(Box::new(run))
            }
            (Scheme::Bip340Secp256k1, None | Some(Live::Bip340(_))) => {
                let known = Bip340Public { public_key: of.public()?, chain_code };
                let old = if let Some(Live::Bip340(old)) = old { Some(&**old) } else { None };
                let run = Bip340RepairRun::new(claim, known, old, &mut rng)?;
                AnyRun::Bip340Repair(Box::new(run))
            }
            _ => return Err(Misuse::WrongKey.into()),
        })
    }
}

fn generate(scheme: Scheme, claim: Claim, mut rng: &mut dyn Entropy) -> Result<AnyRun, RunError> {
    let mut contribution = Zeroizing::new([0; 32]);
    rng.fill_bytes(contribution.as_mut());
    Ok(match scheme {
        Scheme::EcdsaSecp256k1 => {
            AnyRun::EcdsaKey(Box::new(EcdsaKeygenRun::generate(claim, *contribution)?))
        }
        Scheme::Ed25519 => {
            let run = Ed25519KeygenRun::generate(claim, *contribution, &mut rng)?;
            AnyRun::Ed25519Key(Box::new(run))
        }
        Scheme::Bip340Secp256k1 => {
            let run = Bip340KeygenRun::generate(claim, *contribution, &mut rng)?;
            AnyRun::Bip340Key(Box::new(run))
        }
    })
}
