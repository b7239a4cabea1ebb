//! Who takes part: governors, a freezer, requesters and approvers, each with a key of their own,
//! made of the operating system's randomness for this one run.

use std::path::Path;

use casemate_cli::recover::{Record, RecoverError, RecoveryKey};
use casemate_client::credential::{self, Credential};
use casemate_client::{FileCredential, Role, Scope, Sign as _};
use casemate_proto::governance::{Change, ChangeEnvelope, SignedChange};
use casemate_proto::hash::tagged_hash;
use casemate_proto::manifest::RecoveryKeys;
use casemate_proto::stamp::{Method, Stamp};
use casemate_proto::{
    Algorithm, GenesisId, Hash32, Incarnation, Millis, PrincipalId, PublicKey, RequestId,
    UnixMillis,
};

use super::DemoError;

pub use casemate_client::credential::random;

/// How long the stamps of this program live.
const STAMP_LIFE: Millis = Millis(120_000);
/// How long the governors' changes may be submitted.
const CHANGE_LIFE: Millis = Millis(3_600_000);

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
    /// One for each governor; none where nothing is to be sealed.
    recovery: Vec<RecoveryKey>,
    freezer: Credential,
    persons: Vec<(Who, Person)>,
}

fn failed(error: RecoverError) -> DemoError {
    DemoError::Recovery(Box::new(error))
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
                let algorithm = match who {
                    Who::Alice | Who::Bob | Who::Carol => Algorithm::Ed25519,
                    _ => Algorithm::P256,
                };
                let credential = Credential::generate(algorithm)?;
                Ok((who, Person { principal: who.principal(), credential }))
            })
            .collect::<Result<_, DemoError>>()?;
        let governors = [Algorithm::Ed25519, Algorithm::P256, Algorithm::Ed25519]
            .into_iter()
            .map(Credential::generate)
            .collect::<Result<_, _>>()?;
        let freezer = Credential::generate(Algorithm::Ed25519)?;
        Ok(Self { governors, recovery: Vec::new(), freezer, persons })
    }

    /// The same, with a recovery key for each governor: their cluster seals its shares.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_recovery() -> Result<Self, DemoError> {
        let mut people = Self::new()?;
        people.recovery = people
            .governors
            .iter()
            .map(|_| RecoveryKey::generate())
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        Ok(people)
    }

    /// The governors' recovery keys, for the manifest.
    #[must_use]
    pub fn recovery_keys(&self) -> Option<RecoveryKeys> {
        let keys = self.recovery.iter().map(RecoveryKey::public).collect();
        (!self.recovery.is_empty()).then_some(RecoveryKeys { keys })
    }

    /// Writes each governor's recovery key and its empty record of recoveries into a folder: what a
    /// development cluster gives away.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_recovery(&self, folder: &Path, genesis: GenesisId) -> Result<(), DemoError> {
        let file = |error| DemoError::File { path: folder.to_owned(), error };
        std::fs::create_dir_all(folder).map_err(file)?;
        for ((governor, key), number) in self.governors.iter().zip(&self.recovery).zip(1_u32..) {
            let path = |kind: &str| folder.join(format!("governor-{number}.{kind}"));
            key.create(&path("recovery-key")).map_err(failed)?;
            let record = Record::new(genesis, governor.id(), Incarnation(0));
            record.create(&path("record")).map_err(failed)?;
        }
        Ok(())
    }

    /// The governors' public keys.
    #[must_use]
    pub fn governors(&self) -> Vec<PublicKey> {
        self.governors.iter().map(|governor| governor.public_key().clone()).collect()
    }
    /// The freezers' public keys.
    #[must_use]
    pub fn freezers(&self) -> Vec<PublicKey> {
        vec![self.freezer.public_key().clone()]
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

    /// Everybody's keys, for a cluster file: what a development cluster gives away.
    ///
    /// # Errors
    /// Never: every principal is a name.
    pub fn file_credentials(&self) -> Result<Vec<FileCredential>, DemoError> {
        let mut all = Vec::new();
        for (who, person) in &self.persons {
            let roles = match who {
                Who::Alice => vec![Role::Requester, Role::Approver],
                Who::Bob | Who::Carol => vec![Role::Approver],
                _ => vec![Role::Requester],
            };
            let principal = PrincipalId::new(person.principal)?;
            all.push(FileCredential::new(principal, roles, &person.credential));
        }
        for (governor, number) in self.governors.iter().zip(1_u32..) {
            let name = PrincipalId::new(&format!("governor:{number}"))?;
            all.push(FileCredential::new(name, vec![Role::Governor], governor));
        }
        let name = PrincipalId::new("freezer:1")?;
        all.push(FileCredential::new(name, vec![Role::Freezer], &self.freezer));
        Ok(all)
    }

    /// A change that exactly a quorum signed.
    ///
    /// # Errors
    /// Never: the keys are in memory.
    pub fn sign_change(
        &self,
        scope: Scope,
        predecessor: Hash32,
        change: Change,
        now: UnixMillis,
    ) -> Result<SignedChange, DemoError> {
        let envelope = ChangeEnvelope {
            genesis: scope.genesis,
            incarnation: scope.incarnation,
            predecessor,
            expires: now.saturating_add(CHANGE_LIFE),
            change,
        };
        let quorum = usize::try_from(QUORUM).unwrap_or(usize::MAX);
        let signatures = self
            .governors
            .iter()
            .take(quorum)
            .map(|governor| credential::sign_change(governor, &envelope))
            .collect::<Result<_, _>>()?;
        Ok(SignedChange { envelope, signatures })
    }
}

/// A stamp over a body: what the `Casemate-Stamp` header carries.
///
/// # Errors
/// Never: the key is in memory.
pub fn stamp(
    who: &Credential,
    scope: Scope,
    method: Method,
    body: &[u8],
    now: UnixMillis,
) -> Result<Stamp, DemoError> {
    Ok(credential::stamp(who, scope, method, body, now, STAMP_LIFE)?)
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
