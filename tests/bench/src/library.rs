//! The bare protocols: t parties in one process, by the libraries' own functions and nothing else.
//!
//! What is counted is one signature's whole work: for ECDSA the two triples that it uses up, the
//! presignature and the signature, at both parties; for FROST the commitments and shares of both
//! and one aggregation, which verifies. Keys are made before. No message is encoded, sent or
//! authenticated beyond what the libraries themselves do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use cait_sith::protocol::{Participant, Protocol, ProtocolError, run_protocol};
use cait_sith::triples::{TripleGenerationOutput, generate_triple};
use cait_sith::{KeygenOutput, PresignArguments, keygen, presign, sign};
use casemate_proto::Scheme;
use frost_core::keys::{IdentifierList, KeyPackage, PublicKeyPackage, generate_with_dealer};
use frost_core::{Ciphersuite, SigningPackage, round1, round2};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use k256::{AffinePoint, Scalar, Secp256k1};
use rand_core::OsRng;

use crate::figures::{Within, each};
use crate::{BenchError, cpu, scheme};

/// Who holds a share.
const HOLDERS: u16 = 3;
/// How many of them sign.
const THRESHOLD: u16 = 2;
/// Signatures by FROST between two looks at the clock, whose tick is longer than many of them.
const BATCH: u32 = 64;
/// Signatures of which the median time counts.
const ONLINE: usize = 25;
/// What is signed: any hash would do.
const DIGEST: [u8; 32] = [0x5a; 32];

/// What signatures took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// How many.
    pub signatures: u32,
    /// User and system time of all of them.
    pub cpu: Duration,
}

impl Measured {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            signatures: self.signatures.saturating_add(other.signatures),
            cpu: self.cpu.saturating_add(other.cpu),
        }
    }

    /// What one took.
    #[must_use]
    pub fn each(&self) -> Duration {
        each(self.cpu, self.signatures)
    }
}

/// Signs until that took so much CPU time.
///
/// # Errors
/// If the library fails, or CPU time cannot be read.
pub fn measure(scheme: Scheme, at_least: Duration) -> Result<Measured, BenchError> {
    let bare = Bare::new(scheme)?;
    // tables and memory that the first one needs
    bare.sign()?;
    let batch = if scheme == Scheme::EcdsaSecp256k1 { 1 } else { BATCH };
    let before = cpu::own()?;
    let mut measured = Measured { signatures: 0, cpu: Duration::ZERO };
    while measured.cpu < at_least {
        for _ in 0..batch {
            bare.sign()?;
        }
        measured.signatures = measured.signatures.saturating_add(batch);
        measured.cpu = cpu::own()?.saturating_sub(before);
    }
    Ok(measured)
}

/// The median time that one signature takes when everything that can be made beforehand is: for ECDSA the
/// triples.
///
/// # Errors
/// If the library fails.
pub fn latency(scheme: Scheme) -> Result<Duration, BenchError> {
    let bare = Bare::new(scheme)?;
    bare.online()?;
    let mut all = Vec::new();
    for _ in 0..ONLINE {
        all.push(bare.online()?);
    }
    Ok(Within::of(all).map_or(Duration::ZERO, |within| within.half))
}

enum Bare {
    Ecdsa(Ecdsa),
    Ed25519(Frost<Ed25519Sha512>),
    Bip340(Frost<Secp256K1Sha256TR>),
}

fn failed(scheme: Scheme) -> impl Fn(&dyn fmt::Display) -> BenchError {
    move |error| BenchError::Library { scheme: scheme::title(scheme), reason: error.to_string() }
}

impl Bare {
    fn new(scheme: Scheme) -> Result<Self, BenchError> {
        let failed = failed(scheme);
        Ok(match scheme {
            Scheme::EcdsaSecp256k1 => Self::Ecdsa(Ecdsa::new().map_err(|error| failed(&error))?),
            Scheme::Ed25519 => Self::Ed25519(Frost::new().map_err(|error| failed(&error))?),
            Scheme::Bip340Secp256k1 => Self::Bip340(Frost::new().map_err(|error| failed(&error))?),
        })
    }

    fn sign(&self) -> Result<(), BenchError> {
        match self {
            Self::Ecdsa(ecdsa) => {
                ecdsa.sign().map_err(|error| failed(Scheme::EcdsaSecp256k1)(&error))
            }
            Self::Ed25519(frost) => frost.sign().map_err(|error| failed(Scheme::Ed25519)(&error)),
            Self::Bip340(frost) => {
                frost.sign().map_err(|error| failed(Scheme::Bip340Secp256k1)(&error))
            }
        }
    }

    /// How long one signature takes, without the triples that it uses up.
    fn online(&self) -> Result<Duration, BenchError> {
        let Self::Ecdsa(ecdsa) = self else {
            let since = Instant::now();
            self.sign()?;
            return Ok(since.elapsed());
        };
        let failed = |reason: String| failed(Scheme::EcdsaSecp256k1)(&reason);
        let triples = (ecdsa.triples().map_err(failed)?, ecdsa.triples().map_err(failed)?);
        let since = Instant::now();
        ecdsa.sign_with(&triples.0, &triples.1).map_err(failed)?;
        Ok(since.elapsed())
    }
}

type Triple = TripleGenerationOutput<Secp256k1>;

/// cait-sith, as its own benchmark drives it.
struct Ecdsa {
    signers: Vec<Participant>,
    keys: Vec<KeygenOutput<Secp256k1>>,
    public_key: AffinePoint,
}

/// Runs a protocol among these, and gives each one's output in their order.
fn among<T, P: Protocol<Output = T> + 'static>(
    parties: &[Participant],
    mut begin: impl FnMut(usize, Participant) -> Result<P, String>,
) -> Result<Vec<T>, String> {
    let mut runs: Vec<(Participant, Box<dyn Protocol<Output = T>>)> = Vec::new();
    for (at, party) in parties.iter().enumerate() {
        runs.push((*party, Box::new(begin(at, *party)?)));
    }
    let mut ends = run_protocol(runs).map_err(|error: ProtocolError| error.to_string())?;
    ends.sort_by_key(|(party, _)| *party);
    Ok(ends.into_iter().map(|(_, output)| output).collect())
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

impl Ecdsa {
    fn new() -> Result<Self, String> {
        let holders: Vec<Participant> = (0..u32::from(HOLDERS)).map(Participant::from).collect();
        let threshold = usize::from(THRESHOLD);
        let mut keys =
            among(&holders, |_, me| keygen::<Secp256k1>(&holders, me, threshold).map_err(text))?;
        keys.truncate(threshold);
        let signers: Vec<Participant> = holders.into_iter().take(threshold).collect();
        let public_key = keys.first().ok_or("no key was made")?.public_key;
        Ok(Self { signers, keys, public_key })
    }

    fn triples(&self) -> Result<Vec<Triple>, String> {
        among(&self.signers, |_, me| {
            generate_triple::<Secp256k1>(&self.signers, me, usize::from(THRESHOLD)).map_err(text)
        })
    }

    fn sign(&self) -> Result<(), String> {
        self.sign_with(&self.triples()?, &self.triples()?)
    }

    fn sign_with(&self, first: &[Triple], second: &[Triple]) -> Result<(), String> {
        let missing = || "a party made nothing".to_owned();
        let presigned = among(&self.signers, |at, me| {
            let arguments = PresignArguments {
                triple0: first.get(at).cloned().ok_or_else(missing)?,
                triple1: second.get(at).cloned().ok_or_else(missing)?,
                keygen_out: self.keys.get(at).cloned().ok_or_else(missing)?,
                threshold: usize::from(THRESHOLD),
            };
            presign::<Secp256k1>(&self.signers, me, arguments).map_err(text)
        })?;
        // which digest does not matter to what it costs
        let digest = Scalar::from(u64::from_be_bytes([DIGEST[0]; 8]));
        let signatures = among(&self.signers, |at, me| {
            let presigned = presigned.get(at).cloned().ok_or_else(missing)?;
            sign::<Secp256k1>(&self.signers, me, self.public_key, presigned, digest).map_err(text)
        })?;
        // both verified theirs
        if signatures.len() == usize::from(THRESHOLD) { Ok(()) } else { Err(missing()) }
    }
}

/// FROST, with keys from a dealer: how they were made does not show in signing.
struct Frost<C: Ciphersuite> {
    signers: Vec<KeyPackage<C>>,
    public: PublicKeyPackage<C>,
}

impl<C: Ciphersuite> Frost<C> {
    fn new() -> Result<Self, frost_core::Error<C>> {
        let (shares, public) =
            generate_with_dealer::<C, _>(HOLDERS, THRESHOLD, IdentifierList::Default, &mut OsRng)?;
        let signers = shares.into_values().take(usize::from(THRESHOLD)).map(KeyPackage::try_from);
        Ok(Self { signers: signers.collect::<Result<_, _>>()?, public })
    }

    fn sign(&self) -> Result<(), frost_core::Error<C>> {
        let (mut nonces, mut commitments) = (Vec::new(), BTreeMap::new());
        for signer in &self.signers {
            let (secret, public) = round1::commit(signer.signing_share(), &mut OsRng);
            nonces.push(secret);
            commitments.insert(*signer.identifier(), public);
        }
        let package = SigningPackage::new(commitments, &DIGEST);
        let mut shares = BTreeMap::new();
        for (signer, nonces) in self.signers.iter().zip(&nonces) {
            shares.insert(*signer.identifier(), round2::sign(&package, nonces, signer)?);
        }
        frost_core::aggregate(&package, &shares, &self.public).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_signs_and_its_time_is_counted() {
        for scheme in scheme::SCHEMES {
            let measured = measure(scheme, Duration::from_millis(10)).unwrap();
            assert!(measured.signatures >= 1, "{scheme:?}");
            assert!(measured.cpu >= Duration::from_millis(10), "{scheme:?}");
            assert!(measured.each() > Duration::ZERO, "{scheme:?}");
            assert!(latency(scheme).unwrap() > Duration::ZERO, "{scheme:?}");
        }
    }

    #[test]
    fn measurements_add_up() {
        let one = Measured { signatures: 2, cpu: Duration::from_millis(30) };
        let other = Measured { signatures: 3, cpu: Duration::from_millis(20) };
        let both = one.and(other);
        assert_eq!((both.signatures, both.each()), (5, Duration::from_millis(10)));
    }
}
