//! What a run is for: to make a key, to renew its shares, to sign with it.

use casemate_proto::{DerivationPath, Hash32, KeyName, Scheme, hash::tagged_hash};

use crate::{
    context::RUN_ID_TAG,
    party::{Participants, PartyId},
};

const ED25519_MESSAGE_TAG: &str = "casemate/threshold/ed25519-message/v1";
const BIP340_MESSAGE_TAG: &str = "casemate/threshold/bip340-message/v1";

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
    pub(crate) const fn wants_exactly_threshold(&self) -> bool {
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
    pub(crate) fn hash(&self) -> Hash32 {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_purpose_is_of_one_scheme_and_has_a_name_of_its_own() {
        let key = KeyRef { name: KeyName::new("k").unwrap(), epoch: KeyEpoch(0) };
        let lost = vec![PartyId::new(0).unwrap()];
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
}
