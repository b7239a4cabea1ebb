//! Shares on their way into a sealed blob, and keys made of what came out of one.
//!
//! The only place where a share becomes bytes (I1). They are written straight into a
//! [`SealableShare`], which has no accessor: whoever asks for it can have it sealed and nothing else. The
//! way back begins with an [`OpenedShare`], which only a recovery that a quorum granted yields.
//!
//! What is written besides the share is what the ledger says of it, so that a share of another key,
//! epoch, threshold or cluster is noticed when it comes back.

use casemate_proto::recovery::RecoveryGranted;
use casemate_proto::{BootId, GenesisId, Incarnation, KeyName};
use casemate_recovery::SealedKey;
use casemate_seal::{OpenedShare, SealableShare};
use frost_core::keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare};
use k256::elliptic_curve::PrimeField as _;
use k256::{AffinePoint, PublicKey, Scalar};
use minicbor::{Decoder, Encoder};
use zeroize::{Zeroize as _, Zeroizing};

use crate::ecdsa::EcdsaShare;
use crate::frost::{FrostShare, Suite};
use crate::key::{KeyFacts, LiveKey, PendingKey, Share};
use crate::party::{Participant, Participants, PartyId};
use crate::purpose::{KeyEpoch, KeyRef};

/// Bytes of a written share beyond its secret and public part, with sixteen holders: room for all,
/// so that the buffer never moves.
const ROOM: usize = 1024;

/// What a share is written as: the secret and what is public of it.
type Parts = (Zeroizing<Vec<u8>>, Vec<u8>);

/// A scheme's share as bytes. Only this crate can name it.
pub trait ByteForm: Share + Sized {
    #[doc(hidden)]
    fn write(&self) -> Option<Parts>;
    #[doc(hidden)]
    fn read(me: PartyId, threshold: u16, secret: &[u8], public: &[u8]) -> Option<Self>;
    /// Which holders the public part is of, where it says.
    #[doc(hidden)]
    fn is_of(&self, holders: &Participants) -> bool;
}

impl ByteForm for EcdsaShare {
    fn write(&self) -> Option<Parts> {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(self.secret.to_bytes().into());
        Some((Zeroizing::new(bytes.to_vec()), self.sec1().to_vec()))
    }

    fn read(_: PartyId, _: u16, secret: &[u8], public: &[u8]) -> Option<Self> {
        let mut bytes = <[u8; 32]>::try_from(secret).ok()?;
        let scalar = Option::<Scalar>::from(Scalar::from_repr(bytes.into()));
        bytes.zeroize();
        let public: AffinePoint = *PublicKey::from_sec1_bytes(public).ok()?.as_affine();
        Some(Self { secret: Zeroizing::new(scalar?), public })
    }

    // the library keeps no public shares: a wrong one shows in the first signature
    fn is_of(&self, _: &Participants) -> bool {
        !bool::from(self.secret.is_zero())
    }
}

impl<S: Suite> ByteForm for FrostShare<S> {
    fn write(&self) -> Option<Parts> {
        let secret = Zeroizing::new(self.package.signing_share().serialize());
        Some((secret, self.public.serialize().ok()?))
    }

    fn read(me: PartyId, threshold: u16, secret: &[u8], public: &[u8]) -> Option<Self> {
        let public = PublicKeyPackage::<S>::deserialize(public).ok()?;
        let secret = SigningShare::deserialize(secret).ok()?;
        let identifier = me.to_frost().ok()?;
        let own = VerifyingShare::from(secret);
        let fits = public.verifying_shares().get(&identifier) == Some(&own)
            && public.min_signers() == Some(threshold);
        let key = *public.verifying_key();
        let package = KeyPackage::new(identifier, secret, own, key, threshold);
        Self::new(package, public).ok().filter(|_| fits)
    }

    fn is_of(&self, holders: &Participants) -> bool {
        let wanted: Option<std::collections::BTreeSet<_>> =
            holders.parties().map(|party| party.to_frost::<S>().ok()).collect();
        wanted.is_some_and(|wanted| wanted.iter().eq(self.public.verifying_shares().keys()))
    }
}

/// Why a share that was opened makes no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// What is written is no share.
    #[error("what was sealed of key `{name}` is no share of it")]
    NoShare {
        /// Which key.
        name: KeyName,
    },
    /// It contradicts the ledger or the certificate.
    #[error("the sealed share of key `{name}`: its {field} is not the ledger's")]
    Other {
        /// Which key.
        name: KeyName,
        /// In what.
        field: &'static str,
    },
}

/// What a recovered key must be, as the ledger that is taken up says.
#[derive(Clone, Debug)]
pub struct Recovered<'a> {
    /// The recovery.
    pub granted: &'a RecoveryGranted,
    /// This node's place in the roster.
    pub me: PartyId,
    /// The current epoch.
    pub epoch: KeyEpoch,
    /// The group's public key.
    pub public_key: &'a [u8],
    /// For derivation.
    pub chain_code: [u8; 32],
    /// How many sign.
    pub threshold: u16,
    /// The boots that held shares of this epoch.
    pub former: &'a Participants,
    /// Those that the certificate puts into their places.
    pub holders: &'a Participants,
}

fn write<S: ByteForm>(facts: &KeyFacts, share: &S) -> Option<SealableShare> {
    let (secret, public) = share.write()?;
    let room = secret.len().checked_add(public.len())?.checked_add(ROOM)?;
    let mut out = Zeroizing::new(Vec::with_capacity(room));
    let mut e = Encoder::new(&mut *out);
    e.array(9).ok()?;
    e.bytes(facts.genesis.as_bytes()).ok()?.u64(facts.incarnation.0).ok()?;
    e.str(facts.key.name.as_str()).ok()?.u64(facts.key.epoch.0).ok()?;
    e.u16(facts.threshold).ok()?.bytes(&facts.chain_code).ok()?;
    e.array(u64::try_from(facts.holders.len()).ok()?).ok()?;
    for holder in facts.holders.as_slice() {
        e.array(2).ok()?.u16(holder.party.number()).ok()?.bytes(holder.boot.as_bytes()).ok()?;
    }
    e.bytes(&secret).ok()?.bytes(&public).ok()?;
    let key = SealedKey {
        name: facts.key.name.clone(),
        epoch: facts.key.epoch.0,
        scheme: S::SCHEME,
        transcript: facts.transcript,
    };
    Some(SealableShare::new(key, out))
}

/// What was written beside the shares of a key.
struct Read<S> {
    genesis: GenesisId,
    incarnation: Incarnation,
    key: KeyRef,
    threshold: u16,
    chain_code: [u8; 32],
    holders: Participants,
    share: S,
}

fn read<S: ByteForm>(me: PartyId, bytes: &[u8]) -> Option<Read<S>> {
    let mut d = Decoder::new(bytes);
    let array = |d: &mut Decoder<'_>| <[u8; 32]>::try_from(d.bytes().ok()?).ok();
    if d.array().ok()? != Some(9) {
        return None;
    }
    let genesis = GenesisId::new(array(&mut d)?);
    let incarnation = Incarnation(d.u64().ok()?);
    let name = KeyName::new(d.str().ok()?).ok()?;
    let key = KeyRef { name, epoch: KeyEpoch(d.u64().ok()?) };
    let threshold = d.u16().ok()?;
    let chain_code = array(&mut d)?;
    let mut holders = Vec::new();
    for _ in 0..d.array().ok()?.filter(|count| *count <= 16)? {
        if d.array().ok()? != Some(2) {
            return None;
        }
        let party = PartyId::new(d.u16().ok()?).ok()?;
        holders.push(Participant { party, boot: BootId::new(array(&mut d)?) });
    }
    let holders = Participants::new(holders).ok()?;
    let share = S::read(me, threshold, d.bytes().ok()?, d.bytes().ok()?)?;
    (d.position() == bytes.len() && share.is_of(&holders)).then_some(Read {
        genesis,
        incarnation,
        key,
        threshold,
        chain_code,
        holders,
        share,
    })
}

impl<S: ByteForm> LiveKey<S> {
    /// This share, to be sealed. `None` where the library does not write what it made.
    #[must_use]
    pub fn to_sealable(&self) -> Option<SealableShare> {
        write(&self.facts, &self.share)
    }

    /// The key of a share that a recovery opened: of the same epoch, held by the boots that the
    /// certificate names, in its incarnation.
    ///
    /// The ledger says that the epoch is live, and the boot that sealed the share held it then. An ECDSA
    /// share proves nothing by itself: one that is wrong shows in the first signature, which is
    /// verified before it leaves.
    ///
    /// # Errors
    /// If it is not the share that the ledger says this node held.
    pub fn recovered(opened: OpenedShare, of: &Recovered<'_>) -> Result<Self, RecoverError> {
        let SealedKey { name, epoch, scheme, transcript } = opened.key().clone();
        let bytes = opened.dangerous_secret();
        let other = |field| Err(RecoverError::Other { name: name.clone(), field });
        if scheme != S::SCHEME {
            return other("scheme");
        }
        let Some(read) = read::<S>(of.me, &bytes) else {
            return Err(RecoverError::NoShare { name });
        };
        let certificate = of.granted.certificate();
        if read.genesis != certificate.genesis || read.incarnation != certificate.former {
            return other("cluster or incarnation");
        }
        if read.key.name != name || read.key.epoch.0 != epoch || read.key.epoch != of.epoch {
            return other("epoch");
        }
        if read.threshold != of.threshold || read.chain_code != of.chain_code {
            return other("threshold or chain code");
        }
        if read.share.public_key() != of.public_key {
            return other("public key");
        }
        let places = |holders: &Participants| holders.parties().collect::<Vec<_>>();
        let held = places(&read.holders);
        if read.holders != *of.former || !held.contains(&of.me) {
            return other("set of holders");
        }
        if !of.holders.contains_party(of.me)
            || !places(of.holders).iter().all(|place| held.contains(place))
        {
            return other("successors");
        }
        // as after a restart: in the place of one that has lost its share its former boot stands, with which
        // nobody signs, until the others have given the share back
        let successor = |former: &Participant| {
            let mut holders = of.holders.as_slice().iter();
            *holders.find(|holder| holder.party == former.party).unwrap_or(former)
        };
        let Ok(holders) = Participants::new(of.former.as_slice().iter().map(successor).collect())
        else {
            return other("successors");
        };
        let facts = KeyFacts {
            genesis: read.genesis,
            incarnation: certificate.incarnation,
            key: read.key,
            holders,
            threshold: read.threshold,
            chain_code: read.chain_code,
            transcript,
        };
        Ok(Self { facts, share: read.share })
    }
}

impl<S: ByteForm> PendingKey<S> {
    /// This share, to be sealed before its epoch is live: so that there is no moment at which the ledger
    /// knows an epoch of which no blob has a share.
    #[must_use]
    pub fn to_sealable(&self) -> Option<SealableShare> {
        write(&self.facts, &self.share)
    }
}
