//! What a run is for, and the id that binds every one of its messages to that.
//!
//! Neither library puts a session into its messages, so a message of one run would be taken for
//! one of another. Here every message carries the run's id, a domain-separated hash of everything
//! that tells one run from another, and [`RunRegistry`] hands out each id once.

use std::{collections::BTreeSet, fmt};

use casemate_proto::{
    BootId, DerivationPath, GenesisId, Hash32, Incarnation, KeyName, Scheme, UnixMillis,
    hash::tagged_hash,
};

use crate::{
    error::Misuse,
    party::{Participant, Participants, PartyId},
};

const RUN_ID_TAG: &str = "casemate/threshold/run/v1";
const ED25519_MESSAGE_TAG: &str = "casemate/threshold/ed25519-message/v1";
const BIP340_MESSAGE_TAG: &str = "casemate/threshold/bip340-message/v1";

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

/// How often a key's shares have been replaced; 0 for those of its generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyEpoch(pub u64);

/// One key in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRef {
    /// The key's name.
    pub name: KeyName,
    /// Its epoch.
    pub epoch: KeyEpoch,
}

/// The hash that names a pair of triples: of the run that made it and of both public parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TriplePairId(pub Hash32);

/// What a run is for, with all that is particular to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Generate a secp256k1 key among all holders.
    EcdsaKeygen {
        /// The key to be, in epoch 0.
        key: KeyRef,
    },
    /// Replace a secp256k1 key's shares, the public key staying: among the same holders (a
    /// refresh), others, or with another threshold.
    EcdsaReshare {
        /// The key in its new epoch.
        key: KeyRef,
        /// The old holders that give: each with the boot that holds the old share.
        from: Participants,
        /// The old threshold.
        from_threshold: u16,
    },
    /// Make two triples among exactly t boots.
    Triples,
    /// Sign a digest with a live secp256k1 key.
    EcdsaSign {
        /// The key.
        key: KeyRef,
        /// The child that signs.
        path: DerivationPath,
        /// What is signed: 32 bytes, computed by this node from its own entry.
        digest: [u8; 32],
        /// The triples that the run uses up.
        triples: TriplePairId,
    },
    /// Sign the test message of a pending secp256k1 key.
    EcdsaTest {
        /// The key in its pending epoch.
        key: KeyRef,
        /// The triples that the run uses up.
        triples: TriplePairId,
    },
    /// Generate an Ed25519 key among all holders.
    Ed25519Keygen {
        /// The key to be, in epoch 0.
        key: KeyRef,
    },
    /// Replace an Ed25519 key's shares among the same parties and with the same threshold.
    Ed25519Refresh {
        /// The key in its new epoch.
        key: KeyRef,
    },
    /// Give a party its share of an Ed25519 key again.
    Ed25519Repair {
        /// The key in its new epoch; the shares are those of the epoch before.
        key: KeyRef,
        /// The parties whose shares are computed anew, ascending.
        lost: Vec<PartyId>,
    },
    /// Sign a message with a live Ed25519 key.
    Ed25519Sign {
        /// The key.
        key: KeyRef,
        /// The child that signs.
        path: DerivationPath,
        /// [`ed25519_subject`] of the message.
        subject: Hash32,
    },
    /// Sign the test message of a pending Ed25519 key.
    Ed25519Test {
        /// The key in its pending epoch.
        key: KeyRef,
    },
    /// Generate a BIP-340 key among all holders.
    Bip340Keygen {
        /// The key to be, in epoch 0.
        key: KeyRef,
    },
    /// Replace a BIP-340 key's shares among the same parties and with the same threshold.
    Bip340Refresh {
        /// The key in its new epoch.
        key: KeyRef,
    },
    /// Give a party its share of a BIP-340 key again.
    Bip340Repair {
        /// The key in its new epoch; the shares are those of the epoch before.
        key: KeyRef,
        /// The parties whose shares are computed anew, ascending.
        lost: Vec<PartyId>,
    },
    /// Sign a message with a live BIP-340 key.
    Bip340Sign {
        /// The key.
        key: KeyRef,
        /// The child that signs.
        path: DerivationPath,
        /// [`bip340_subject`] of the message.
        subject: Hash32,
    },
    /// Sign the test message of a pending Bip340 key.
    Bip340Test {
        /// The key in its pending epoch.
        key: KeyRef,
    },
}

/// The hash by which runs and permits name an Ed25519 message.
#[must_use]
pub fn ed25519_subject(message: &[u8]) -> Hash32 {
    tagged_hash(ED25519_MESSAGE_TAG, &[message])
}

/// The hash by which runs and permits name a BIP-340 message.
#[must_use]
pub fn bip340_subject(message: &[u8]) -> Hash32 {
    tagged_hash(BIP340_MESSAGE_TAG, &[message])
}

/// What a run does with a key of one of FROST's schemes.
pub(crate) enum Task<'a> {
    Keygen { key: &'a KeyRef },
    Refresh { key: &'a KeyRef },
    Repair { key: &'a KeyRef, lost: &'a [PartyId] },
    Sign { path: &'a DerivationPath, subject: &'a Hash32 },
    Test,
}

impl Purpose {
    /// The purpose's name, unique to its kind.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::EcdsaKeygen { .. } => "ecdsa-keygen",
            Self::EcdsaReshare { .. } => "ecdsa-reshare",
            Self::Triples => "triples",
            Self::EcdsaSign { .. } => "ecdsa-sign",
            Self::EcdsaTest { .. } => "ecdsa-test",
            Self::Ed25519Keygen { .. } => "ed25519-keygen",
            Self::Ed25519Refresh { .. } => "ed25519-refresh",
            Self::Ed25519Repair { .. } => "ed25519-repair",
            Self::Ed25519Sign { .. } => "ed25519-sign",
            Self::Ed25519Test { .. } => "ed25519-test",
            Self::Bip340Keygen { .. } => "bip340-keygen",
            Self::Bip340Refresh { .. } => "bip340-refresh",
            Self::Bip340Repair { .. } => "bip340-repair",
            Self::Bip340Sign { .. } => "bip340-sign",
            Self::Bip340Test { .. } => "bip340-test",
        }
    }

    /// The key and epoch the run is about; none for triples, which belong to no key.
    #[must_use]
    pub const fn key(&self) -> Option<&KeyRef> {
        match self {
            Self::Triples => None,
            Self::EcdsaKeygen { key }
            | Self::EcdsaReshare { key, .. }
            | Self::EcdsaSign { key, .. }
            | Self::EcdsaTest { key, .. }
            | Self::Ed25519Keygen { key }
            | Self::Ed25519Refresh { key }
            | Self::Ed25519Repair { key, .. }
            | Self::Ed25519Sign { key, .. }
            | Self::Ed25519Test { key }
            | Self::Bip340Keygen { key }
            | Self::Bip340Refresh { key }
            | Self::Bip340Repair { key, .. }
            | Self::Bip340Sign { key, .. }
            | Self::Bip340Test { key } => Some(key),
        }
    }

    /// What a run for this purpose does with a key of `scheme`; none for another scheme's purpose.
    pub(crate) const fn task(&self, scheme: Scheme) -> Option<Task<'_>> {
        Some(match (scheme, self) {
            (Scheme::Ed25519, Self::Ed25519Keygen { key })
            | (Scheme::Bip340Secp256k1, Self::Bip340Keygen { key }) => Task::Keygen { key },
            (Scheme::Ed25519, Self::Ed25519Refresh { key })
            | (Scheme::Bip340Secp256k1, Self::Bip340Refresh { key }) => Task::Refresh { key },
            (Scheme::Ed25519, Self::Ed25519Repair { key, lost })
            | (Scheme::Bip340Secp256k1, Self::Bip340Repair { key, lost }) => {
                Task::Repair { key, lost: lost.as_slice() }
            }
            (Scheme::Ed25519, Self::Ed25519Sign { path, subject, .. })
            | (Scheme::Bip340Secp256k1, Self::Bip340Sign { path, subject, .. }) => {
                Task::Sign { path, subject }
            }
            (Scheme::Ed25519, Self::Ed25519Test { .. })
            | (Scheme::Bip340Secp256k1, Self::Bip340Test { .. }) => Task::Test,
            _ => return None,
        })
    }

    /// Whether the run must be among exactly t parties.
    const fn wants_exactly_threshold(&self) -> bool {
        matches!(
            self,
            Self::Triples
                | Self::EcdsaSign { .. }
                | Self::EcdsaTest { .. }
                | Self::Ed25519Sign { .. }
                | Self::Ed25519Test { .. }
                | Self::Bip340Sign { .. }
                | Self::Bip340Test { .. }
        )
    }

    /// What the purpose's own fields add to the run's id, each with its length.
    fn hash(&self) -> Hash32 {
        let none: &[u8] = &[];
        let (a, b, c): (Vec<u8>, &[u8], Vec<u8>) = match self {
            Self::EcdsaReshare { from, from_threshold, .. } => {
                (from.to_bytes(), none, from_threshold.to_be_bytes().to_vec())
            }
            Self::EcdsaSign { path, digest, triples, .. } => {
                (path.to_string().into_bytes(), digest, triples.0.as_bytes().to_vec())
            }
            Self::EcdsaTest { triples, .. } => (Vec::new(), none, triples.0.as_bytes().to_vec()),
            Self::Ed25519Repair { lost, .. } | Self::Bip340Repair { lost, .. } => {
                (lost.iter().flat_map(|p| p.number().to_be_bytes()).collect(), none, Vec::new())
            }
            Self::Ed25519Sign { path, subject, .. } | Self::Bip340Sign { path, subject, .. } => {
                (path.to_string().into_bytes(), subject.as_bytes(), Vec::new())
            }
            Self::EcdsaKeygen { .. }
            | Self::Triples
            | Self::Ed25519Keygen { .. }
            | Self::Ed25519Refresh { .. }
            | Self::Ed25519Test { .. }
            | Self::Bip340Keygen { .. }
            | Self::Bip340Refresh { .. }
            | Self::Bip340Test { .. } => (Vec::new(), none, Vec::new()),
        };
        let (name, epoch) =
            self.key().map_or((none, 0), |k| (k.name.as_str().as_bytes(), k.epoch.0));
        let parts: [&[u8]; 6] = [self.name().as_bytes(), name, &epoch.to_be_bytes(), &a, b, &c];
        tagged_hash(RUN_ID_TAG, &parts)
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
    use super::*;

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
    fn a_purpose_is_of_one_scheme_and_has_a_name_of_its_own() {
        let (key, lost) = (key("k", 0), vec![PartyId::new(0).unwrap()]);
        let (path, subject) = (DerivationPath::root(), Hash32::new([1; 32]));
        let triples = TriplePairId(Hash32::new([3; 32]));
        let all = [
            (None, Purpose::EcdsaKeygen { key: key.clone() }),
            (None, Purpose::EcdsaTest { key: key.clone(), triples }),
            (None, Purpose::Triples),
            (Some(Scheme::Ed25519), Purpose::Ed25519Keygen { key: key.clone() }),
            (Some(Scheme::Ed25519), Purpose::Ed25519Refresh { key: key.clone() }),
            (
                Some(Scheme::Ed25519),
                Purpose::Ed25519Repair { key: key.clone(), lost: lost.clone() },
            ),
            (
                Some(Scheme::Ed25519),
                Purpose::Ed25519Sign { key: key.clone(), path: path.clone(), subject },
            ),
            (Some(Scheme::Ed25519), Purpose::Ed25519Test { key: key.clone() }),
            (Some(Scheme::Bip340Secp256k1), Purpose::Bip340Keygen { key: key.clone() }),
            (Some(Scheme::Bip340Secp256k1), Purpose::Bip340Refresh { key: key.clone() }),
            (Some(Scheme::Bip340Secp256k1), Purpose::Bip340Repair { key: key.clone(), lost }),
            (
                Some(Scheme::Bip340Secp256k1),
                Purpose::Bip340Sign { key: key.clone(), path, subject },
            ),
            (Some(Scheme::Bip340Secp256k1), Purpose::Bip340Test { key }),
        ];
        let mut names = BTreeSet::new();
        for (scheme, purpose) in &all {
            assert!(names.insert(purpose.name()), "{}", purpose.name());
            for asked in Scheme::ALL {
                let is_its = purpose.task(asked).is_some();
                assert_eq!(is_its, Some(asked) == *scheme, "{} {asked:?}", purpose.name());
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
