//! Who takes part: numbered parties, each one boot of one enclave.

use std::fmt;

use casemate_proto::BootId;

use crate::error::Misuse;

/// Fewest and most participants of a run.
pub const PARTICIPANTS: std::ops::RangeInclusive<usize> = 2..=16;

/// A party's number: the node's place in the cluster's manifest, the same in every run of a key.
///
/// Both libraries evaluate polynomials at this number plus one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartyId(u16);

impl PartyId {
    /// The largest number.
    pub const MAX: u16 = 1023;

    /// The party of this number.
    ///
    /// # Errors
    /// If the number is over [`PartyId::MAX`].
    pub const fn new(number: u16) -> Result<Self, Misuse> {
        if number > Self::MAX { Err(Misuse::PartyNumber(number)) } else { Ok(Self(number)) }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    pub(crate) fn to_cait_sith(self) -> cait_sith::protocol::Participant {
        cait_sith::protocol::Participant::from(u32::from(self.0))
    }

    pub(crate) fn to_frost<S: frost_core::Ciphersuite>(
        self,
    ) -> Result<frost_core::Identifier<S>, Misuse> {
        frost_core::Identifier::try_from(self.0.saturating_add(1))
            .map_err(|_| Misuse::PartyNumber(self.0))
    }
}

impl fmt::Display for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Debug for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl<C> minicbor::Encode<C> for PartyId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(self.0)?.ok()
    }
}
impl<'b, C> minicbor::Decode<'b, C> for PartyId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        Self::new(d.u16()?)
            .map_err(|_| minicbor::decode::Error::message("party number too large").at(at))
    }
}

/// A party as it runs now: one boot of the node of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Participant {
    /// The node's number.
    pub party: PartyId,
    /// The boot of that node.
    pub boot: BootId,
}

/// Who takes part in a run, in the order of their numbers: 2 to 16 of them, no party and no boot
/// twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Participants(Vec<Participant>);

impl Participants {
    /// Sorts and checks.
    ///
    /// # Errors
    /// If there are fewer than 2 or more than 16, or a party or a boot occurs twice.
    pub fn new(mut participants: Vec<Participant>) -> Result<Self, Misuse> {
        if !PARTICIPANTS.contains(&participants.len()) {
            return Err(Misuse::ParticipantCount { count: participants.len() });
        }
        participants.sort();
        let mut boots = std::collections::BTreeSet::new();
        let mut parties = std::collections::BTreeSet::new();
        for p in &participants {
            if !parties.insert(p.party) {
                return Err(Misuse::DuplicateParty(p.party));
            }
            if !boots.insert(p.boot) {
                return Err(Misuse::DuplicateBoot(p.party));
            }
        }
        Ok(Self(participants))
    }

    /// The participants, in the order of their numbers.
    #[must_use]
    pub fn as_slice(&self) -> &[Participant] {
        &self.0
    }

    /// Their numbers, ascending.
    pub fn parties(&self) -> impl Iterator<Item = PartyId> + '_ {
        self.0.iter().map(|p| p.party)
    }

    /// Everybody's number but one.
    pub fn others(&self, me: PartyId) -> impl Iterator<Item = PartyId> + '_ {
        self.parties().filter(move |&p| p != me)
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there are always two at least")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a party of this number takes part.
    #[must_use]
    pub fn contains_party(&self, party: PartyId) -> bool {
        self.0.iter().any(|p| p.party == party)
    }

    /// Whether exactly this boot of this party takes part.
    #[must_use]
    pub fn contains(&self, participant: &Participant) -> bool {
        self.0.contains(participant)
    }

    pub(crate) fn to_cait_sith(&self) -> Vec<cait_sith::protocol::Participant> {
        self.parties().map(PartyId::to_cait_sith).collect()
    }

    /// The canonical bytes that are hashed into a run's id.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for p in &self.0 {
            out.extend_from_slice(&p.party.number().to_be_bytes());
            out.extend_from_slice(p.boot.as_bytes());
        }
        out
    }
}

/// Sets of `threshold` holders that together cover every holder: what to test-sign with before a
/// key goes live.
///
/// There are ⌈n/t⌉ sets; the last one is filled up from the beginning.
#[must_use]
pub fn covering_subsets(holders: &Participants, threshold: u16) -> Vec<Participants> {
    let t = usize::from(threshold);
    if t < 2 || t > holders.len() {
        return Vec::new();
    }
    let all = holders.as_slice();
    all.chunks(t)
        .map(|chunk| {
            let missing = t.saturating_sub(chunk.len());
            let mut set = chunk.to_vec();
            set.extend(all.iter().take(missing));
            set.sort();
            Participants(set)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn participant(n: u16) -> Participant {
        let mut boot = [0; 32];
        boot[..2].copy_from_slice(&n.to_be_bytes());
        Participant { party: PartyId::new(n).unwrap(), boot: BootId::new(boot) }
    }

    #[test]
    fn duplicate_parties_and_boots_are_refused() {
        let (a, b) = (participant(0), participant(1));
        assert_eq!(Participants::new(vec![a, b, a]), Err(Misuse::DuplicateParty(a.party)));
        let twin = Participant { boot: a.boot, ..b };
        assert_eq!(Participants::new(vec![a, twin]), Err(Misuse::DuplicateBoot(b.party)));
        let other_boot = Participant { boot: b.boot, ..a };
        assert_eq!(Participants::new(vec![a, other_boot]), Err(Misuse::DuplicateParty(a.party)));
    }

    #[test]
    fn one_participant_and_seventeen_are_refused() {
        for count in [0, 1, 17] {
            let list = (0..count).map(participant).collect();
            let count = usize::from(count);
            assert_eq!(Participants::new(list), Err(Misuse::ParticipantCount { count }));
        }
        assert!(Participants::new((0..16).map(participant).collect()).is_ok());
        assert!(PartyId::new(1024).is_err());
    }

    #[test]
    fn covering_subsets_cover_every_holder_with_exactly_t() {
        for n in 2..=16_u16 {
            let holders = Participants::new((0..n).map(participant).collect()).unwrap();
            for t in 2..=n {
                let sets = covering_subsets(&holders, t);
                for set in &sets {
                    assert_eq!(set.len(), usize::from(t));
                    assert_eq!(Participants::new(set.as_slice().to_vec()).as_ref(), Ok(set));
                }
                for p in holders.as_slice() {
                    assert!(sets.iter().any(|s| s.contains(p)), "{n} {t} {p:?}");
                }
                assert_eq!(sets.len(), usize::from(n.div_ceil(t)));
            }
            assert!(covering_subsets(&holders, 1).is_empty());
            assert!(covering_subsets(&holders, n + 1).is_empty());
        }
    }
}
