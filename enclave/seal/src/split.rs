//! A recovery secret: a scalar, shared k of m with commitments, and put together again.
//!
//! This is `frost-core`'s trusted dealer, whose "signing key" is the secret. Nothing is ever signed
//! with it. The commitments make a wrong part visible, and whose it is.

use casemate_recovery::PartSecret;
use casemate_recovery::blob::Commitment;
use frost_ed25519::keys::{
    IdentifierList, KeyPackage, SecretShare, SigningShare, VerifiableSecretSharingCommitment,
    reconstruct, split,
};
use frost_ed25519::{Identifier, SigningKey};
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize as _, Zeroizing};

/// A fresh secret with the parts of all governors.
pub(crate) struct Split {
    pub(crate) secret: Zeroizing<[u8; 32]>,
    pub(crate) parts: Vec<PartSecret>,
    pub(crate) commitments: Vec<Commitment>,
}

/// The library's error says nothing that an operator could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SplitFailed;

fn identifier(place: u16) -> Result<Identifier, SplitFailed> {
    let number = place.checked_add(1).ok_or(SplitFailed)?;
    Identifier::try_from(number).map_err(|_| SplitFailed)
}

fn bytes(mut from: Vec<u8>) -> Result<Zeroizing<[u8; 32]>, SplitFailed> {
    let mut out = Zeroizing::new([0; 32]);
    let fits = from.len() == out.len();
    if fits {
        out.copy_from_slice(&from);
    }
    from.zeroize();
    fits.then_some(out).ok_or(SplitFailed)
}

/// Makes a secret of which `quorum` of `of` parts, 2 at least, are needed.
pub(crate) fn make(
    quorum: u16,
    of: u16,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Split, SplitFailed> {
    let key = SigningKey::new(rng);
    let (shares, _) =
        split(&key, of, quorum, IdentifierList::Default, rng).map_err(|_| SplitFailed)?;
    let mut parts = Vec::new();
    let mut commitments = Vec::new();
    for place in 0..of {
        let share = shares.get(&identifier(place)?).ok_or(SplitFailed)?;
        parts.push(PartSecret::new(bytes(share.signing_share().serialize())?));
        if commitments.is_empty() {
            for point in share.commitment().serialize().map_err(|_| SplitFailed)? {
                commitments.push(Commitment(point.try_into().map_err(|_| SplitFailed)?));
            }
        }
    }
    Ok(Split { secret: bytes(key.serialize())?, parts, commitments })
}

/// What parts are checked against.
pub(crate) struct Commitments(VerifiableSecretSharingCommitment);

/// A part that is what its governor was given.
pub(crate) struct GoodPart(KeyPackage);

impl Commitments {
    pub(crate) fn read(points: &[Commitment]) -> Result<Self, SplitFailed> {
        VerifiableSecretSharingCommitment::deserialize(points.iter().map(|point| point.0))
            .map(Self)
            .map_err(|_| SplitFailed)
    }

    /// Checks the part of the governor at this place.
    pub(crate) fn check(&self, place: u16, part: &PartSecret) -> Result<GoodPart, SplitFailed> {
        let share = SigningShare::deserialize(part.dangerous_bytes()).map_err(|_| SplitFailed)?;
        let share = SecretShare::new(identifier(place)?, share, self.0.clone());
        KeyPackage::try_from(share).map(GoodPart).map_err(|_| SplitFailed)
    }
}

/// The secret of parts of different governors, as many as the quorum at least.
pub(crate) fn combine(parts: Vec<GoodPart>) -> Result<Zeroizing<[u8; 32]>, SplitFailed> {
    let packages: Vec<KeyPackage> = parts.into_iter().map(|part| part.0).collect();
    let key = reconstruct(&packages).map_err(|_| SplitFailed)?;
    bytes(key.serialize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    #[test]
    fn any_quorum_gives_the_secret_and_one_part_fewer_gives_none() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for (quorum, of) in [(2, 2), (2, 3), (3, 5), (17, 32)] {
            let split = make(quorum, of, &mut rng).unwrap();
            assert_eq!(split.commitments.len(), usize::from(quorum));
            let commitments = Commitments::read(&split.commitments).unwrap();
            let good = |places: &[u16]| {
                let check = |place: &u16| {
                    commitments.check(*place, &split.parts[usize::from(*place)]).unwrap()
                };
                places.iter().map(check).collect::<Vec<_>>()
            };
            let first: Vec<u16> = (0..quorum).collect();
            let last: Vec<u16> = (of - quorum..of).collect();
            assert_eq!(combine(good(&first)).unwrap(), split.secret);
            assert_eq!(combine(good(&last)).unwrap(), split.secret);
            assert!(combine(good(&last[1..])).is_err());
        }
    }

    #[test]
    fn part_of_another_place_or_secret_is_not_good() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let (ours, other) = (make(2, 3, &mut rng).unwrap(), make(2, 3, &mut rng).unwrap());
        let commitments = Commitments::read(&ours.commitments).unwrap();
        assert!(commitments.check(0, &ours.parts[0]).is_ok());
        assert!(commitments.check(1, &ours.parts[0]).is_err());
        assert!(commitments.check(0, &other.parts[0]).is_err());
        assert!(commitments.check(0, &PartSecret::new(Zeroizing::new([0xff; 32]))).is_err());
    }

    #[test]
    fn secrets_differ_each_time() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let (a, b) = (make(2, 3, &mut rng).unwrap(), make(2, 3, &mut rng).unwrap());
        assert_ne!(a.secret, b.secret);
        assert_ne!(a.commitments, b.commitments);
    }
}
