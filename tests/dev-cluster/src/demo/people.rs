//! Who takes part: governors, a freezer, requesters and approvers, each with a key of their own,
//! made of the operating system's randomness for this one run.

use casemate_proto::governance::{Change, ChangeEnvelope, NamedSignature, SignedChange};
use casemate_proto::hash::tagged_hash;
use casemate_proto::stamp::{Method, Stamp, StampScope};
use casemate_proto::{
    Algorithm, CredentialId, GenesisId, Hash32, Incarnation, Millis, PublicKey, RequestId,
    UnixMillis,
};
use ed25519_dalek::Signer as _;
use rand_core::{OsRng, RngCore as _};

use super::DemoError;

/// How long the stamps of this program live.
const STAMP_LIFE: Millis = Millis(120_000);
/// How long the governors' changes may be submitted.
const CHANGE_LIFE: Millis = Millis(3_600_000);

enum Secret {
    P256(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

/// A key pair that somebody signs stamps, approvals or governance with.
pub struct Credential {
    secret: Secret,
    public: PublicKey,
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Credential({}, <redacted>)", self.public.id())
    }
}

/// `N` fresh bytes.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

impl Credential {
    fn p256() -> Result<Self, DemoError> {
        let key = p256::ecdsa::SigningKey::random(&mut OsRng);
        let point = key.verifying_key().to_encoded_point(true);
        let public = PublicKey::new(Algorithm::P256, point.as_bytes())?;
        Ok(Self { secret: Secret::P256(key), public })
    }

    fn ed25519() -> Result<Self, DemoError> {
        let key = ed25519_dalek::SigningKey::from_bytes(&random());
        let public = PublicKey::new(Algorithm::Ed25519, key.verifying_key().as_bytes())?;
        Ok(Self { secret: Secret::Ed25519(key), public })
    }

    /// Its public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }
    /// Its id.
    #[must_use]
    pub fn id(&self) -> CredentialId {
        self.public.id()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        match &self.secret {
            Secret::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().into()
            }
            Secret::Ed25519(key) => key.sign(message).to_bytes(),
        }
    }
}

/// A requester or approver: a principal of the policy with one credential.
#[derive(Debug)]
pub struct Person {
    /// As the policy names it.
    pub principal: &'static str,
    /// What it signs with.
    pub credential: Credential,
}

/// Whose word it is. The policy says what each may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Pays for what it reads, by x402, with key `agent-7`.
    Research,
    /// The same key, at hours that exclude the present.
    Nightly,
    /// Pays by x402 with key `agent-9`: the one that will be taken over.
    Shopper,
    /// Pays merchants in USDT.
    Settlement,
    /// Moves the treasury; also one of the treasurers.
    Alice,
    /// A treasurer.
    Bob,
    /// A treasurer.
    Carol,
    /// Has reports signed, with an Ed25519 key.
    Reports,
}

impl Who {
    /// Everybody whom the policy lets ask. The attacker has all of these.
    pub const REQUESTERS: [Self; 6] = [
        Self::Research,
        Self::Nightly,
        Self::Shopper,
        Self::Settlement,
        Self::Alice,
        Self::Reports,
    ];
    const ALL: [Self; 8] = [
        Self::Research,
        Self::Nightly,
        Self::Shopper,
        Self::Settlement,
        Self::Alice,
        Self::Bob,
        Self::Carol,
        Self::Reports,
    ];

    /// Its principal in the policy.
    #[must_use]
    pub const fn principal(self) -> &'static str {
        match self {
            Self::Research => "agent:research",
            Self::Nightly => "agent:nightly",
            Self::Shopper => "agent:shopper",
            Self::Settlement => "workflow:settlement",
            Self::Alice => "operator:alice",
            Self::Bob => "operator:bob",
            Self::Carol => "operator:carol",
            Self::Reports => "workflow:reports",
        }
    }
}

/// Everybody.
#[derive(Debug)]
pub struct People {
    governors: Vec<Credential>,
    freezer: Credential,
    persons: Vec<(Who, Person)>,
}

/// How many of the governors must sign a change.
pub const QUORUM: u64 = 2;

impl People {
    /// Makes everybody's keys.
    ///
    /// # Errors
    /// Never in practice: if the operating system's randomness gave no valid key.
    pub fn new() -> Result<Self, DemoError> {
        let persons = Who::ALL
            .into_iter()
            .map(|who| {
                // both algorithms are in use: programs with P-256, people with Ed25519
                let credential = match who {
                    Who::Alice | Who::Bob | Who::Carol => Credential::ed25519()?,
                    _ => Credential::p256()?,
                };
                Ok((who, Person { principal: who.principal(), credential }))
            })
            .collect::<Result<_, DemoError>>()?;
        Ok(Self {
            governors: vec![Credential::ed25519()?, Credential::p256()?, Credential::ed25519()?],
            freezer: Credential::ed25519()?,
            persons,
        })
    }

    /// The governors' public keys.
    #[must_use]
    pub fn governors(&self) -> Vec<PublicKey> {
        self.governors.iter().map(|governor| governor.public.clone()).collect()
    }
    /// The freezers' public keys.
    #[must_use]
    pub fn freezers(&self) -> Vec<PublicKey> {
        vec![self.freezer.public.clone()]
    }
    /// The persons, in a fixed order.
    pub fn persons(&self) -> impl Iterator<Item = &Person> {
        self.persons.iter().map(|(_, person)| person)
    }
    /// One of them.
    ///
    /// # Errors
    /// Never: everybody is there.
    pub fn person(&self, who: Who) -> Result<&Person, DemoError> {
        self.persons
            .iter()
            .find_map(|(is, person)| (*is == who).then_some(person))
            .ok_or(DemoError::Missing { what: "person", name: who.principal().to_owned() })
    }

    /// A change that exactly a quorum signed.
    #[must_use]
    pub fn sign_change(
        &self,
        scope: Scope,
        predecessor: Hash32,
        change: Change,
        now: UnixMillis,
    ) -> SignedChange {
        let envelope = ChangeEnvelope {
            genesis: scope.genesis,
            incarnation: scope.incarnation,
            predecessor,
            expires: now.saturating_add(CHANGE_LIFE),
            change,
        };
        let message = envelope.signing_bytes();
        let quorum = usize::try_from(QUORUM).unwrap_or(usize::MAX);
        let signatures = self
            .governors
            .iter()
            .take(quorum)
            .map(|governor| NamedSignature {
                credential: governor.id(),
                signature: governor.sign(&message),
            })
            .collect();
        SignedChange { envelope, signatures }
    }
}

/// What everything that is signed names: the cluster and its incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The cluster.
    pub genesis: GenesisId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

impl Credential {
    /// A stamp over a body: what the `Casemate-Stamp` header would carry.
    #[must_use]
    pub fn stamp(&self, scope: Scope, method: Method, body: &[u8], now: UnixMillis) -> Stamp {
        let scope = StampScope { genesis: scope.genesis, incarnation: scope.incarnation, method };
        let (credential, nonce) = (self.id(), random());
        let expires_at = now.saturating_add(STAMP_LIFE);
        let preimage = Stamp::preimage(&scope, &credential, now, expires_at, &nonce, body);
        Stamp { credential, issued_at: now, expires_at, nonce, signature: self.sign(&preimage) }
    }
}

/// A request's id and an EIP-3009 nonce, both made of the caller's own name for the payment: a
/// retry after a crash asks for the same payment again and can never pay twice.
#[must_use]
pub fn idempotent(scope: Scope, who: &Credential, name: &str) -> (RequestId, [u8; 32]) {
    let who = who.id();
    let parts: [&[u8]; 3] = [scope.genesis.as_bytes(), who.0.as_bytes(), name.as_bytes()];
    let nonce = *tagged_hash("casemate-dev/eip3009-nonce/v1", &parts).as_bytes();
    let id = tagged_hash("casemate-dev/request-id/v1", &parts);
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(id.as_bytes()) {
        *to = *from;
    }
    (RequestId::new(short), nonce)
}
