//! Who talks to a cluster from outside: governors, freezers, requesters, and somebody unknown.
//!
//! Their keys are the same in every history; what they say is the dice's.

use casemate_ledger::{Attachment, State};
use casemate_policy::Policy;
use casemate_proto::governance::{
    Change, ChangeEnvelope, FreezerStatement, NamedSignature, SignedChange, SignedStatement,
};
use casemate_proto::manifest::Manifest;
use casemate_proto::recovery::{RecoveryCertificate, SignedCertificate};
use casemate_proto::stamp::{Method, Stamp};
use casemate_proto::{Algorithm, Millis, PublicKey, UnixMillis};
use casemate_recovery::{RecoverySecretKey, Release, SealedBlob};
use casemate_signer::Submission;
use ed25519_dalek::{Signer as _, SigningKey};

use crate::dice::Dice;

/// The key that most requests are for: Ed25519, limited by count.
pub const NOTARY: &str = "notary";
/// BIP-340, limited by count, for some histories.
pub const COLD: &str = "cold";
/// ECDSA, limited by sum, for one history in twenty.
pub const PAYER: &str = "payer";
/// The log's own.
pub const LOG: &str = "casemate.log";
/// Whom payments go to.
pub const PAYEE: &str = "0x1111111111111111111111111111111111111111";
/// What a payment is of: USDC on Base.
pub const TOKEN: &str = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";

#[derive(Clone)]
pub struct Person {
    key: SigningKey,
    pub public: PublicKey,
}

impl Person {
    fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::new(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap();
        Self { key, public }
    }
    fn sign(&self, message: &[u8]) -> NamedSignature {
        NamedSignature {
            credential: self.public.id(),
            signature: self.key.sign(message).to_bytes(),
        }
    }
    fn hex(&self) -> String {
        format!("0x{}", hex::encode(self.public.as_bytes()))
    }

    /// A stamp of this person over a request's body.
    pub fn stamp(&self, state: &State, body: &[u8], at: UnixMillis, nonce: [u8; 16]) -> Stamp {
        let credential = self.public.id();
        let expires_at = at.saturating_add(Millis(120_000));
        let scope = state.stamp_scope(Method::CreateRequest);
        let preimage = Stamp::preimage(&scope, &credential, at, expires_at, &nonce, body);
        let signature = self.key.sign(&preimage).to_bytes();
        Stamp { credential, issued_at: at, expires_at, nonce, signature }
    }
}

/// Everybody.
pub struct People {
    pub governors: Vec<Person>,
    pub freezers: Vec<Person>,
    pub agents: Vec<Person>,
    /// In no policy.
    pub stranger: Person,
    /// What each governor opens sealed shares with.
    pub recovery: Vec<RecoverySecretKey>,
}

/// What a policy of a history allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Names of grants carry it: another number renames them all.
    pub name: u64,
    /// Messages in a window, for each key.
    pub count: u64,
    /// Whole units of the token in a window.
    pub sum: u64,
    /// The window.
    pub window: Millis,
}

impl People {
    pub fn new() -> Self {
        Self {
            governors: (1..=3).map(Person::new).collect(),
            freezers: (9..=10).map(Person::new).collect(),
            agents: (20..=21).map(Person::new).collect(),
            stranger: Person::new(40),
            recovery: (0..3)
                .map(|seed| RecoverySecretKey::generate(&mut Dice::new(seed).entropy()).unwrap())
                .collect(),
        }
    }

    pub fn policy(&self, terms: &Terms) -> Policy {
        let Terms { name, count, sum, window } = terms;
        let seconds = window.0 / 1_000;
        let mut text = format!(
            r#"
version = 1
name = "model"
expires = "2027-11-20T00:00:00Z"

[asset.usdc]
chain = "eip155:8453"
token = "{TOKEN}"
decimals = 6
domain = {{ name = "USD Coin", version = "2" }}

[list.payees.known]
"eip155:8453" = ["{PAYEE}"]

[[grant]]
id = "notes-{name}"
key = "{NOTARY}"
principals = ["agent:one"]
allow = ["message"]
limits = [{{ count = {count}, window = "{seconds}s" }}]

[[grant]]
id = "more-notes-{name}"
key = "{NOTARY}"
principals = ["agent:two"]
allow = ["message"]
limits = [{{ count = {count}, window = "{seconds}s" }}]

[[grant]]
id = "cold-notes-{name}"
key = "{COLD}"
principals = ["agent:one", "agent:two"]
allow = ["message"]
limits = [{{ count = {count}, window = "{seconds}s" }}]

[[grant]]
id = "payments-{name}"
key = "{PAYER}"
principals = ["agent:one"]
allow = ["eip3009.transfer_with_authorization"]
asset = "usdc"
to = "@payees.known"
limits = [{{ sum = "{sum}", window = "{seconds}s" }}]
valid_for_max = "10m"
"#
        );
        for (at, agent) in self.agents.iter().enumerate() {
            let id = ["agent:one", "agent:two"][at];
            text.push_str(&format!(
                "\n[[principal]]\nid = \"{id}\"\ncredentials = [{{ alg = \"ed25519\", public_key = \"{}\" }}]\n",
                agent.hex()
            ));
        }
        Policy::from_toml(&text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A change with the signatures of as many governors.
    pub fn change(
        &self,
        state: &State,
        at: UnixMillis,
        change: Change,
        governors: usize,
    ) -> SignedChange {
        let envelope = ChangeEnvelope {
            genesis: state.genesis(),
            incarnation: state.incarnation(),
            predecessor: state.change_head(),
            expires: at.saturating_add(Millis(600_000)),
            change,
        };
        let message = envelope.signing_bytes();
        let signatures = self.governors[..governors].iter().map(|g| g.sign(&message)).collect();
        SignedChange { envelope, signatures }
    }

    /// A certificate with the signatures of as many governors.
    pub fn certify(&self, certificate: RecoveryCertificate, governors: usize) -> SignedCertificate {
        let message = certificate.signing_bytes();
        let signatures = self.governors[..governors].iter().map(|g| g.sign(&message)).collect();
        SignedCertificate { certificate, signatures }
    }

    /// What that many governors release of a blob for the boot that a certificate names.
    pub fn release(
        &self,
        signed: &SignedCertificate,
        manifest: &Manifest,
        blob: &SealedBlob,
        dice: &mut Dice,
    ) -> Vec<Release> {
        let granted = signed.verify(signed.certificate.genesis, manifest, None).unwrap();
        let make = |key| Release::make(&granted, manifest, blob, key, &mut dice.entropy()).unwrap();
        self.recovery[1..].iter().map(make).collect()
    }

    /// The change to a policy with these terms.
    pub fn set_policy(&self, state: &State, at: UnixMillis, terms: &Terms) -> Submission {
        let policy = self.policy(terms);
        let change = Change::SetPolicy { policy: policy.policy_hash() };
        let attachment = Some(Attachment::Policy(policy.canonical_bytes()));
        Submission::Governance { signed: self.change(state, at, change, 2), attachment }
    }

    /// What a freezer, or with `forged` somebody who says to be one, states.
    pub fn statement(
        &self,
        state: &State,
        at: UnixMillis,
        statement: FreezerStatement,
        who: usize,
        forged: bool,
    ) -> SignedStatement {
        let (genesis, incarnation) = (state.genesis(), state.incarnation());
        let id = SignedStatement::id_of(&genesis, incarnation, at, &statement);
        let signer = if forged { &self.stranger } else { &self.freezers[who] };
        let mut by = signer.sign(&SignedStatement::signing_bytes(&id));
        by.credential = self.freezers[who].public.id();
        SignedStatement { genesis, incarnation, at, statement, by }
    }
}
