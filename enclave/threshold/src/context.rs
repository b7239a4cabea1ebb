//! What a run is for, and the id that binds every one of its messages to that.
//!
//! Neither library puts a session into its messages, so a message of one run would be taken for
//! one of another. Here every message carries the run's id, a domain-separated hash of everything
//! that tells one run from another, and [`RunRegistry`] hands out each id once.

use std::{collections::BTreeSet, fmt};

use casemate_proto::{BootId, GenesisId, Hash32, Incarnation, UnixMillis, hash::tagged_hash};

use crate::{
    error::Misuse,
    party::{Participant, Participants, PartyId},
    purpose::Purpose,
};

pub(crate) const RUN_ID_TAG: &str = "casemate/threshold/run/v1";

/// The id of a run: [`RunContext::id`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct RunId(#[n(0)] pub Hash32);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({})", self.0)
    }
}

/// Everything that tells one run from another; all participants must agree on every field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// What the run is for.
    pub purpose: Purpose,
    /// Who takes part, boots included.
    pub participants: Participants,
    /// The threshold of the key or of the triples.
    pub threshold: u16,
    /// Index in the ledger of the entry that causes the run; for triples, which no entry causes,
    /// the index last applied by whoever proposes the run.
    pub log_index: u64,
    /// The hash of that entry.
    pub entry: Hash32,
    /// Which attempt this is, or any number that was not used with the other fields before.
    pub attempt: u64,
}

/// A run's specification that holds together, with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunContext {
    spec: RunSpec,
    id: RunId,
}

impl RunContext {
    /// Checks the thresholds and computes the id.
    ///
    /// # Errors
    /// If t is below 2 or above the number of participants, or if triples or a signature are to be
    /// made by any other number than t.
    pub fn new(spec: RunSpec) -> Result<Self, Misuse> {
        let participants = spec.participants.len();
        let threshold = spec.threshold;
        if threshold < 2 || usize::from(threshold) > participants {
            return Err(Misuse::Threshold { threshold, participants });
        }
        if spec.purpose.wants_exactly_threshold() && usize::from(threshold) != participants {
            return Err(Misuse::NotExactlyThreshold { threshold, participants });
        }
        if let Purpose::EcdsaReshare { from, from_threshold, .. } = &spec.purpose
            && (*from_threshold < 2 || usize::from(*from_threshold) > from.len())
        {
            return Err(Misuse::Threshold { threshold: *from_threshold, participants: from.len() });
        }
        let id = tagged_hash(
            RUN_ID_TAG,
            &[
                spec.genesis.as_bytes(),
                &spec.incarnation.0.to_be_bytes(),
                spec.purpose.hash().as_bytes(),
                &spec.participants.to_bytes(),
                &threshold.to_be_bytes(),
                &spec.log_index.to_be_bytes(),
                spec.entry.as_bytes(),
                &spec.attempt.to_be_bytes(),
            ],
        );
        Ok(Self { spec, id: RunId(id) })
    }

    /// The run's id.
    #[must_use]
    pub const fn id(&self) -> RunId {
        self.id
    }

    /// The specification.
    #[must_use]
    pub const fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// Who takes part.
    #[must_use]
    pub const fn participants(&self) -> &Participants {
        &self.spec.participants
    }

    /// The threshold.
    #[must_use]
    pub const fn threshold(&self) -> u16 {
        self.spec.threshold
    }

    pub(crate) const fn wrong_purpose(&self, expected: &'static str) -> Misuse {
        Misuse::WrongPurpose { purpose: self.spec.purpose.name(), expected }
    }
}

/// The right to start one run once: made by [`RunRegistry::claim`] alone, and used up by the run.
#[derive(Debug)]
pub struct Claim {
    pub(crate) context: RunContext,
    pub(crate) me: PartyId,
    pub(crate) deadline: UnixMillis,
}

impl Claim {
    /// The run that it starts.
    #[must_use]
    pub const fn context(&self) -> &RunContext {
        &self.context
    }
}

/// Hands out every run id once, for as long as this boot lasts.
///
/// Memory is bounded without forgetting: when the table is full, the oldest log index goes, and
/// from then on no run caused at or below that index is handed out.
#[derive(Debug)]
pub struct RunRegistry {
    me: Participant,
    claimed: BTreeSet<(u64, RunId)>,
    /// Runs caused below this log index are refused.
    floor: u64,
    capacity: usize,
}

impl RunRegistry {
    /// How many run ids are remembered, at about 64 bytes each.
    pub const CAPACITY: usize = 65_536;

    /// For this boot of this node.
    #[must_use]
    pub const fn new(party: PartyId, boot: BootId) -> Self {
        Self {
            me: Participant { party, boot },
            claimed: BTreeSet::new(),
            floor: 0,
            capacity: Self::CAPACITY,
        }
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> Participant {
        self.me
    }

    /// Takes a run's id for good. After `deadline` any call burns the run.
    ///
    /// # Errors
    /// If this boot is not a participant, or the id was claimed before or is too old to tell.
    pub fn claim(&mut self, context: RunContext, deadline: UnixMillis) -> Result<Claim, Misuse> {
        if !context.participants().contains(&self.me) {
            return Err(Misuse::NotParticipating);
        }
        let (index, id) = (context.spec.log_index, context.id);
        if index < self.floor || !self.claimed.insert((index, id)) {
            return Err(Misuse::RunRepeated(id));
        }
        while self.claimed.len() > self.capacity {
            let Some(&(oldest, _)) = self.claimed.first() else { break };
            self.floor = oldest.saturating_add(1);
            self.claimed = self.claimed.split_off(&(self.floor, RunId(Hash32::new([0; 32]))));
        }
        Ok(Claim { context, me: self.me.party, deadline })
    }
}

#[cfg(test)]
mod tests {
    use casemate_proto::{DerivationPath, KeyName};

    use super::*;
    use crate::purpose::{KeyEpoch, KeyRef, TriplePairId};

    fn participants(count: u16) -> Participants {
        let list = (0..count).map(|n| {
            let mut boot = [0; 32];
            boot[..2].copy_from_slice(&n.to_be_bytes());
            Participant { party: PartyId::new(n).unwrap(), boot: BootId::new(boot) }
        });
        Participants::new(list.collect()).unwrap()
    }

    fn key(name: &str, epoch: u64) -> KeyRef {
        KeyRef { name: KeyName::new(name).unwrap(), epoch: KeyEpoch(epoch) }
    }

    fn sign() -> RunSpec {
        RunSpec {
            genesis: GenesisId::new([1; 32]),
            incarnation: Incarnation(0),
            purpose: Purpose::EcdsaSign {
                key: key("hot", 3),
                path: DerivationPath::parse("m/0/7").unwrap(),
                digest: [2; 32],
                triples: TriplePairId(Hash32::new([3; 32])),
            },
            participants: participants(2),
            threshold: 2,
            log_index: 40,
            entry: Hash32::new([4; 32]),
            attempt: 0,
        }
    }

    fn id(spec: &RunSpec) -> RunId {
        RunContext::new(spec.clone()).unwrap().id()
    }

    #[test]
    fn every_field_changes_the_run_id() {
        let base = sign();
        let edit = |f: fn(&mut RunSpec)| {
            let mut spec = sign();
            f(&mut spec);
            id(&spec)
        };
        fn purpose(
            spec: &mut RunSpec,
            f: fn(&mut KeyRef, &mut DerivationPath, &mut [u8; 32], &mut TriplePairId),
        ) {
            if let Purpose::EcdsaSign { key, path, digest, triples } = &mut spec.purpose {
                f(key, path, digest, triples);
            }
        }
        let ids = [
            id(&base),
            edit(|s| s.genesis = GenesisId::new([9; 32])),
            edit(|s| s.incarnation = Incarnation(1)),
            edit(|s| s.log_index = 41),
            edit(|s| s.entry = Hash32::new([9; 32])),
            edit(|s| s.attempt = 1),
            edit(|s| {
                s.participants = participants(3);
                s.threshold = 3;
            }),
            edit(|s| {
                let mut list = s.participants.as_slice().to_vec();
                list[1].boot = BootId::new([9; 32]);
                s.participants = Participants::new(list).unwrap();
            }),
            edit(|s| purpose(s, |k, _, _, _| k.epoch = KeyEpoch(4))),
            edit(|s| purpose(s, |k, _, _, _| k.name = KeyName::new("cold").unwrap())),
            edit(|s| purpose(s, |_, p, _, _| *p = DerivationPath::parse("m/0/8").unwrap())),
            edit(|s| purpose(s, |_, _, d, _| d[31] ^= 1)),
            edit(|s| purpose(s, |_, _, _, t| t.0 = Hash32::new([9; 32]))),
            edit(|s| {
                s.purpose = Purpose::EcdsaTest {
                    key: key("hot", 3),
                    triples: TriplePairId(Hash32::new([3; 32])),
                }
            }),
            edit(|s| s.purpose = Purpose::Triples),
            edit(|s| s.purpose = Purpose::EcdsaKeygen { key: key("hot", 3) }),
            edit(|s| s.purpose = Purpose::Ed25519Keygen { key: key("hot", 3) }),
            edit(|s| s.purpose = Purpose::Ed25519Test { key: key("hot", 3) }),
            edit(|s| s.purpose = Purpose::Ed25519Refresh { key: key("hot", 3) }),
            edit(|s| s.purpose = Purpose::Bip340Keygen { key: key("hot", 3) }),
            edit(|s| s.purpose = Purpose::Bip340Test { key: key("hot", 3) }),
            edit(|s| s.purpose = Purpose::Bip340Refresh { key: key("hot", 3) }),
        ];
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(id(&sign()), ids[0]);
    }

    #[test]
    fn pitfall_8_thresholds_below_two_and_above_n_are_refused() {
        for (t, purpose) in [
            (0, Purpose::EcdsaKeygen { key: key("k", 0) }),
            (1, Purpose::EcdsaKeygen { key: key("k", 0) }),
            (1, Purpose::Ed25519Keygen { key: key("k", 0) }),
            (4, Purpose::Ed25519Keygen { key: key("k", 0) }),
            (1, Purpose::Bip340Keygen { key: key("k", 0) }),
            (4, Purpose::Bip340Keygen { key: key("k", 0) }),
            (1, Purpose::Triples),
        ] {
            let spec = RunSpec { purpose, participants: participants(3), threshold: t, ..sign() };
            assert_eq!(
                RunContext::new(spec),
                Err(Misuse::Threshold { threshold: t, participants: 3 })
            );
        }
    }

    #[test]
    fn pitfall_0_triples_and_signatures_among_more_than_t_are_refused() {
        let base = sign();
        for purpose in [
            Purpose::Triples,
            base.purpose.clone(),
            Purpose::EcdsaTest { key: key("k", 0), triples: TriplePairId(Hash32::new([0; 32])) },
        ] {
            for n in [3, 4] {
                let spec = RunSpec {
                    purpose: purpose.clone(),
                    participants: participants(n),
                    ..base.clone()
                };
                assert_eq!(
                    RunContext::new(spec),
                    Err(Misuse::NotExactlyThreshold { threshold: 2, participants: usize::from(n) })
                );
            }
        }
    }

    #[test]
    fn pitfall_1_a_run_id_is_handed_out_once() {
        let context = RunContext::new(sign()).unwrap();
        let me = context.participants().as_slice()[0];
        let mut registry = RunRegistry::new(me.party, me.boot);
        assert!(registry.claim(context.clone(), UnixMillis(9)).is_ok());
        let again = registry.claim(context.clone(), UnixMillis(9)).unwrap_err();
        assert_eq!(again, Misuse::RunRepeated(context.id()));
    }

    #[test]
    fn i12_a_full_registry_refuses_what_it_no_longer_remembers() {
        let me = participants(2).as_slice()[0];
        let mut registry = RunRegistry { capacity: 4, ..RunRegistry::new(me.party, me.boot) };
        let at = |index: u64| RunContext::new(RunSpec { log_index: index, ..sign() }).unwrap();
        for index in 0..100 {
            assert!(registry.claim(at(index), UnixMillis(9)).is_ok());
            assert!(registry.claimed.len() <= 4);
        }
        for index in 0..100 {
            assert!(registry.claim(at(index), UnixMillis(9)).is_err(), "{index}");
        }
    }

    #[test]
    fn another_boot_of_this_party_cannot_claim() {
        let context = RunContext::new(sign()).unwrap();
        let me = context.participants().as_slice()[0];
        let mut registry = RunRegistry::new(me.party, BootId::new([8; 32]));
        assert_eq!(registry.claim(context, UnixMillis(9)).unwrap_err(), Misuse::NotParticipating);
    }
}
