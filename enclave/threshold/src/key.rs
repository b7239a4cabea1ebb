//! Key shares: pending until everybody has seen the same and test signatures verify, then live.
//!
//! A run that makes shares yields a [`PendingKey`], with which nothing can be signed but its own
//! test message. [`PendingKey::confirm`] turns it into the [`LiveKey`] that signing needs, given
//! every holder's transcript hash (as the ledger's entry records them) and test signatures by sets
//! of exactly t that together cover every holder.

use std::{collections::BTreeMap, fmt};

use casemate_proto::{
    GenesisId, Hash32, Incarnation, Scheme, hash::tagged_hash, key_test::KeyTest,
};

use crate::{
    context::RunContext,
    error::{ConfirmError, Misuse},
    party::{Participants, PartyId},
    purpose::{KeyRef, Purpose},
};

/// What is public about a key's shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The key and the epoch of its shares.
    pub key: KeyRef,
    /// Who holds a share, with the boot that holds it.
    pub holders: Participants,
    /// How many holders sign.
    pub threshold: u16,
    /// The chain code, which auditors derive child keys with.
    pub chain_code: [u8; 32],
    /// Hash of everything broadcast in the run that made the shares, and of its result.
    pub transcript: Hash32,
}

/// A scheme's share.
pub trait Share: crate::run::sealed::Sealed {
    /// The scheme, bound into test messages.
    const SCHEME: Scheme;

    /// The group's public key: 33 bytes SEC1 (for BIP-340 the even one) or 32 bytes Ed25519.
    fn public_key(&self) -> Vec<u8>;

    /// Whether `signature` is valid for `digest` under the group's public key.
    fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool;
}

/// A signature that a set of t holders made of a pending key's test message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestSignature {
    /// Who made it.
    pub signers: Participants,
    /// r‖s, R‖S or R.x‖s.
    pub signature: [u8; 64],
}

/// A share that may not sign yet.
pub struct PendingKey<S> {
    pub(crate) facts: KeyFacts,
    pub(crate) share: S,
}

/// A share that signs, given a permit.
pub struct LiveKey<S> {
    pub(crate) facts: KeyFacts,
    pub(crate) share: S,
}

/// What is signed to test a pending key: a hash that is nothing else, for one key, epoch,
/// transcript and set of signers.
pub(crate) fn test_digest<S: Share>(
    facts: &KeyFacts,
    share: &S,
    signers: &Participants,
) -> [u8; 32] {
    let signers: Vec<_> = signers.as_slice().iter().map(|p| (p.party.number(), p.boot)).collect();
    KeyTest {
        genesis: facts.genesis,
        incarnation: facts.incarnation,
        scheme: S::SCHEME,
        name: &facts.key.name,
        epoch: facts.key.epoch.0,
        public_key: &share.public_key(),
        chain_code: &facts.chain_code,
        transcript: &facts.transcript,
        signers: &signers,
    }
    .digest()
}

impl<S: Share> PendingKey<S> {
    /// What is public about it.
    #[must_use]
    pub const fn facts(&self) -> &KeyFacts {
        &self.facts
    }

    /// The group's public key.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.share.public_key()
    }

    /// This party's transcript hash, to be recorded in the ledger with everybody's.
    #[must_use]
    pub const fn echo(&self) -> Hash32 {
        self.facts.transcript
    }

    /// Makes the key live.
    ///
    /// # Errors
    /// If a holder's transcript hash is missing or differs, or the test signatures are not by sets
    /// of exactly t holders, do not verify or do not cover every holder. The share is dropped: an
    /// aborted epoch is never tried again.
    pub fn confirm(
        self,
        echoes: &BTreeMap<PartyId, Hash32>,
        tests: &[TestSignature],
    ) -> Result<LiveKey<S>, ConfirmError> {
        let facts = &self.facts;
        if !facts.holders.parties().eq(echoes.keys().copied()) {
            return Err(ConfirmError::EchoMissing { expected: facts.holders.len() });
        }
        let ours = facts.transcript;
        if let Some((&party, &theirs)) = echoes.iter().find(|(_, theirs)| **theirs != ours) {
            return Err(ConfirmError::EchoMismatch { party, theirs, ours });
        }
        for test in tests {
            let signers = test.signers.as_slice();
            if signers.len() != usize::from(facts.threshold)
                || !signers.iter().all(|p| facts.holders.contains(p))
            {
                return Err(ConfirmError::WrongSubset { threshold: facts.threshold });
            }
            let digest = test_digest(facts, &self.share, &test.signers);
            if !self.share.verifies(&digest, &test.signature) {
                return Err(ConfirmError::WrongSignature {
                    subset: test.signers.parties().collect(),
                });
            }
        }
        for holder in facts.holders.as_slice() {
            if !tests.iter().any(|test| test.signers.contains(holder)) {
                return Err(ConfirmError::NotCovered(holder.party));
            }
        }
        Ok(LiveKey { facts: self.facts, share: self.share })
    }
}

impl<S: Share> LiveKey<S> {
    /// What is public about it.
    #[must_use]
    pub const fn facts(&self) -> &KeyFacts {
        &self.facts
    }

    /// The group's public key.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.share.public_key()
    }
}

impl KeyFacts {
    /// The facts of the shares that a run makes.
    pub(crate) fn of(
        context: &RunContext,
        key: KeyRef,
        chain_code: [u8; 32],
        transcript: Hash32,
    ) -> Self {
        let spec = context.spec();
        Self {
            genesis: spec.genesis,
            incarnation: spec.incarnation,
            key,
            holders: spec.participants.clone(),
            threshold: spec.threshold,
            chain_code,
            transcript,
        }
    }

    /// That a signing run is of this key, epoch, cluster and threshold, and among its holders.
    pub(crate) fn admits(&self, context: &RunContext) -> Result<(), Misuse> {
        let spec = context.spec();
        if spec.purpose.key() != Some(&self.key)
            || spec.genesis != self.genesis
            || spec.incarnation != self.incarnation
            || spec.threshold != self.threshold
        {
            return Err(Misuse::WrongKey);
        }
        self.holders_include(&spec.participants)
    }

    pub(crate) fn holders_include(&self, participants: &Participants) -> Result<(), Misuse> {
        participants
            .as_slice()
            .iter()
            .find(|p| !self.holders.contains(p))
            .map_or(Ok(()), |p| Err(Misuse::NotAHolder(p.party)))
    }

    /// That a run replaces this epoch's shares by the next one's, or by a later one's: the numbers
    /// of aborted epochs are not used again.
    pub(crate) fn precedes(&self, purpose: &Purpose) -> bool {
        purpose.key().is_some_and(|k| k.name == self.key.name && k.epoch > self.key.epoch)
    }
}

impl<S> fmt::Debug for PendingKey<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingKey")
            .field("facts", &self.facts)
            .field("share", &"<redacted>")
            .finish()
    }
}
impl<S> fmt::Debug for LiveKey<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveKey").field("facts", &self.facts).field("share", &"<redacted>").finish()
    }
}

/// The hash that holders compare: everything broadcast, and what came of it.
pub(crate) fn result_hash(transcript: Hash32, public: &[u8], chain_code: &[u8; 32]) -> Hash32 {
    tagged_hash("casemate/threshold/result/v1", &[transcript.as_bytes(), public, chain_code])
}
