//! Shares of a secp256k1 key: a new key's, or a kept key's for its next epoch.
//!
//! cait-sith's `keygen` and `reshare` (2 rounds after the commitments), beside them the chain
//! code's commit and reveal for a new key, then the echo of the transcript, the public key and the
//! chain code. The library binds what a party reveals to what it committed to and lets all confirm
//! all commitments; the echo covers everything broadcast.
//!
//! Resharing keeps the public key, which the library checks, and may change the holders and the
//! threshold. A refresh is a resharing among the same. At least t old holders take part in the new
//! set; a node that lost its share takes part as one that never had any.

use cait_sith::KeygenOutput;
use k256::{AffinePoint, ProjectivePoint, PublicKey, Scalar, Secp256k1, elliptic_curve::Group};
use zeroize::{Zeroize, Zeroizing};

use super::{EcdsaShare, LiveEcdsaKey, PendingEcdsaKey, sec1};
use crate::{
    cait::Lane,
    chain_code::{COMMIT_LANE, COMMIT_LIMIT, ChainCode, REVEAL_LANE, REVEAL_LIMIT},
    context::Claim,
    echo::{ECHO_LIMIT, Echo},
    error::{Abort, Misuse, RunError},
    key::{KeyFacts, PendingKey, result_hash},
    message::{Chunk, LaneLimit},
    party::{Participants, PartyId},
    purpose::{KeyRef, Purpose},
    run::{Driven, ECHO_LANE, Io, Machine, sealed::Sealed},
};

const LIBRARY_LANE: u8 = 0;

/// Commitment, confirmation, opening; and one evaluation for each receiver.
const LANES: &[LaneLimit] = &[
    LaneLimit { lane: LIBRARY_LANE, max_bytes: 4096, broadcasts: 3, privates: 1 },
    COMMIT_LIMIT,
    REVEAL_LIMIT,
    ECHO_LIMIT,
];

/// What is public about a key that is being reshared, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcdsaPublic {
    /// SEC1, compressed.
    pub public_key: [u8; 33],
    /// The chain code.
    pub chain_code: [u8; 32],
}

enum Library {
    Generate(Lane<KeygenOutput<Secp256k1>>),
    Reshare(Lane<Scalar>, AffinePoint),
}

enum Chain {
    Generate(ChainCode),
    Known([u8; 32]),
}

/// The protocol of [`EcdsaKeygenRun`].
pub struct EcdsaKeygen {
    key: KeyRef,
    library: Library,
    chain: Chain,
    echo: Echo,
    share: Option<EcdsaShare>,
}

/// Generates or reshares a secp256k1 key; yields a [`PendingEcdsaKey`].
pub type EcdsaKeygenRun = Driven<EcdsaKeygen>;

impl EcdsaKeygenRun {
    /// Generates a key among all participants. `contribution` is 32 fresh random bytes, this
    /// party's part of the chain code.
    ///
    /// # Errors
    /// If the claim is for another purpose or the library refuses the parameters.
    pub fn generate(claim: Claim, contribution: [u8; 32]) -> Result<Self, RunError> {
        let context = &claim.context;
        let Purpose::EcdsaKeygen { key } = &context.spec().purpose else {
            return Err(context.wrong_purpose("ecdsa-keygen").into());
        };
        let library = Lane::new(
            LIBRARY_LANE,
            cait_sith::keygen::<Secp256k1>(
                &context.participants().to_cait_sith(),
                claim.me.to_cait_sith(),
                usize::from(context.threshold()),
            ),
        )?;
        let machine = EcdsaKeygen {
            key: key.clone(),
            library: Library::Generate(library),
            chain: Chain::Generate(ChainCode::new(contribution)),
            echo: Echo::new(),
            share: None,
        };
        Ok(Self::open(claim, machine))
    }

    /// Makes the next epoch's shares of `known`. Old holders named in the claim pass their share,
    /// everybody else passes none.
    ///
    /// # Errors
    /// If the claim is for another purpose; if `old` is not of this key and an earlier epoch, is
    /// missing, or is given by a party that the claim does not name as giver; if fewer than t old
    /// holders are among the participants with the boot that holds the share.
    pub fn reshare(
        claim: Claim,
        known: &EcdsaPublic,
        old: Option<&LiveEcdsaKey>,
    ) -> Result<Self, RunError> {
        let context = &claim.context;
        let purpose = &context.spec().purpose;
        let Purpose::EcdsaReshare { key, from, from_threshold } = purpose else {
            return Err(context.wrong_purpose("ecdsa-reshare").into());
        };
        let public = PublicKey::from_sec1_bytes(&known.public_key).map_err(|_| Misuse::WrongKey)?;
        let givers: Vec<_> = from
            .as_slice()
            .iter()
            .filter(|p| context.participants().contains(p))
            .copied()
            .collect();
        let givers = Participants::new(givers)?;
        if givers.len() < usize::from(*from_threshold) {
            let (threshold, participants) = (*from_threshold, givers.len());
            return Err(Misuse::Threshold { threshold, participants }.into());
        }
        let secret = match old {
            Some(old) if givers.contains_party(claim.me) => {
                let facts = &old.facts;
                facts.holders_include(from)?;
                if !facts.precedes(purpose)
                    || facts.genesis != context.spec().genesis
                    || facts.threshold != *from_threshold
                    || facts.chain_code != known.chain_code
                    || old.share.sec1() != known.public_key
                {
                    return Err(Misuse::WrongKey.into());
                }
                Some(*old.share.secret)
            }
            None if !givers.contains_party(claim.me) => None,
            _ => return Err(Misuse::NotAHolder(claim.me).into()),
        };
        let library = Lane::new(
            LIBRARY_LANE,
            cait_sith::reshare::<Secp256k1>(
                &givers.to_cait_sith(),
                usize::from(*from_threshold),
                &context.participants().to_cait_sith(),
                usize::from(context.threshold()),
                claim.me.to_cait_sith(),
                secret,
                *public.as_affine(),
            ),
        )?;
        let machine = EcdsaKeygen {
            key: key.clone(),
            library: Library::Reshare(library, *public.as_affine()),
            chain: Chain::Known(known.chain_code),
            echo: Echo::new(),
            share: None,
        };
        Ok(Self::open(claim, machine))
    }
}

impl Library {
    fn deliver(&mut self, from: PartyId, bytes: &mut Vec<u8>) {
        match self {
            Self::Generate(lane) => lane.deliver(from, bytes),
            Self::Reshare(lane, _) => lane.deliver(from, bytes),
        }
    }

    fn drive(&mut self, io: &mut Io<'_>) -> Result<Option<EcdsaShare>, RunError> {
        match self {
            Self::Generate(lane) => Ok(lane.drive(io)?.map(|mut output| {
                let secret = Zeroizing::new(output.private_share);
                output.private_share.zeroize();
                EcdsaShare { secret, public: output.public_key }
            })),
            Self::Reshare(lane, public) => Ok(lane
                .drive(io)?
                .map(|secret| EcdsaShare { secret: Zeroizing::new(secret), public: *public })),
        }
    }
}

impl Sealed for EcdsaKeygen {}

impl Machine for EcdsaKeygen {
    type Output = PendingEcdsaKey;

    fn lanes(&self) -> &'static [LaneLimit] {
        LANES
    }

    fn deliver(&mut self, from: PartyId, mut chunk: Chunk) -> Result<(), RunError> {
        match (chunk.lane, &mut self.chain) {
            (COMMIT_LANE | REVEAL_LANE, Chain::Generate(chain)) => {
                chain.deliver(from, chunk.lane, &chunk.bytes)
            }
            (ECHO_LANE, _) => self.echo.deliver(from, &chunk.bytes),
            _ => {
                self.library.deliver(from, &mut chunk.bytes);
                Ok(())
            }
        }
    }

    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<PendingEcdsaKey>, RunError> {
        if self.share.is_none() {
            self.share = self.library.drive(io)?;
        }
        let chain_code = match &mut self.chain {
            Chain::Generate(chain) => chain.drive(io)?,
            Chain::Known(chain_code) => Some(*chain_code),
        };
        let (Some(share), Some(chain_code)) = (&self.share, chain_code) else { return Ok(None) };
        if bool::from(ProjectivePoint::from(share.public).is_identity()) {
            return Err(RunError::Aborted { what: Abort::PublicKeyChanged });
        }
        let transcript = result_hash(io.transcript(), &sec1(&share.public), &chain_code);
        if !self.echo.drive(io, transcript)? {
            return Ok(None);
        }
        let facts = KeyFacts::of(io.context(), self.key.clone(), chain_code, transcript);
        Ok(self.share.take().map(|share| PendingKey { facts, share }))
    }
}
