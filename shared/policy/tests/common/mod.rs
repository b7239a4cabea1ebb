//! Policies, intents and asks that the tests share.
#![allow(dead_code, reason = "each test file uses some of it")]

use casemate_policy::{Allowance, Approved, Ask, ChargeBook, Decision, Policy, Slack, evaluate};
use casemate_proto::{
    Amount, ChainId, CredentialId, Denial, DerivationPath, KeyName, PrincipalId, UnixMillis,
};
use casemate_tx::{Action, AssetRef, Domain, EvmAddress, Intent, Validity};

pub const X402: &str = include_str!("../../../../docs/examples/x402-agent.toml");
pub const TREASURY: &str = include_str!("../../../../docs/examples/treasury.toml");
pub const SETTLEMENT: &str = include_str!("../../../../docs/examples/settlement.toml");

pub fn policy(text: &str) -> Policy {
    Policy::from_toml(text).unwrap_or_else(|errors| panic!("{errors}"))
}

pub fn time(text: &str) -> UnixMillis {
    UnixMillis::from_rfc3339(text).unwrap()
}

/// A Friday at noon.
pub fn noon() -> UnixMillis {
    time("2026-11-20T12:00:00Z")
}

pub fn address(text: &str) -> EvmAddress {
    EvmAddress::parse(text).unwrap()
}

pub fn signer() -> EvmAddress {
    EvmAddress([9; 20])
}

pub fn usdc_base() -> EvmAddress {
    address("0x833589fcd6edb6e08f4c7c32d4f71b54bda02913")
}

/// USDC on Base by EIP-3009, as an x402 client makes it at `now`.
pub fn x402(units: u64, now: UnixMillis) -> Intent {
    Intent {
        action: Action::Eip3009Transfer,
        chain: Some(ChainId::eip155(8453)),
        asset: Some(AssetRef::Token(usdc_base())),
        payer: Some(signer()),
        to: Some(address("0x209693bc6afc0c5328ba36faf03c514ef312287c")),
        amount: Amount::from(units),
        native_value: Amount::ZERO,
        max_fee: None,
        domain: Some(Domain { name: "USD Coin".to_owned(), version: "2".to_owned() }),
        validity: Some(Validity {
            after: UnixMillis(now.0 - 600_000),
            before: UnixMillis(now.0 + 60_000),
        }),
    }
}

pub fn eth(amount: Amount, fee: Amount) -> Intent {
    Intent {
        action: Action::EthNativeTransfer,
        chain: Some(ChainId::eip155(1)),
        asset: Some(AssetRef::Native),
        payer: None,
        to: Some(EvmAddress([0x33; 20])),
        amount,
        native_value: Amount::ZERO,
        max_fee: Some(fee),
        domain: None,
        validity: None,
    }
}

pub fn usdt(chain: u64, units: u64) -> Intent {
    let token = match chain {
        1 => "0xdac17f958d2ee523a2206206994597c13d831ec7",
        _ => "0xc2132d05d31c914a87c6611c10748aeb04b58e8f",
    };
    Intent {
        action: Action::Erc20Transfer,
        chain: Some(ChainId::eip155(chain)),
        asset: Some(AssetRef::Token(address(token))),
        payer: None,
        to: Some(EvmAddress([0x44; 20])),
        amount: Amount::from(units),
        native_value: Amount::ZERO,
        max_fee: Some(Amount::from_decimal("0.001", 18).unwrap()),
        domain: None,
        validity: None,
    }
}

/// The first plain credential of a principal.
pub fn credential(policy: &Policy, principal: &str) -> CredentialId {
    let keys = &policy.doc().principals[&PrincipalId::new(principal).unwrap()];
    keys.iter().find(|k| k.algorithm() != casemate_proto::Algorithm::WebauthnP256).unwrap().id()
}

pub fn passkey(policy: &Policy, principal: &str) -> CredentialId {
    let keys = &policy.doc().principals[&PrincipalId::new(principal).unwrap()];
    keys.iter().find(|k| k.algorithm() == casemate_proto::Algorithm::WebauthnP256).unwrap().id()
}

/// A policy in force, its book, and what is asked of them.
pub struct World {
    pub policy: Policy,
    pub book: ChargeBook,
    pub slack: Slack,
    pub now: UnixMillis,
    pub key: &'static str,
    pub path: &'static str,
    pub principal: String,
    pub approvals: Vec<Approved>,
    pub first_seen: Option<UnixMillis>,
}

impl World {
    pub fn new(text: &str, key: &'static str, principal: &str) -> Self {
        Self {
            policy: policy(text),
            book: ChargeBook::new(Slack::ZERO),
            slack: Slack::ZERO,
            now: noon(),
            key,
            path: "m",
            principal: principal.to_owned(),
            approvals: Vec::new(),
            first_seen: None,
        }
    }

    pub fn ask(&self, intent: &Intent) -> Decision {
        let credential = credential(&self.policy, &self.principal);
        self.ask_with(intent, &credential)
    }

    pub fn ask_with(&self, intent: &Intent, credential: &CredentialId) -> Decision {
        let ask = Ask {
            key: &KeyName::new(self.key).unwrap(),
            path: &DerivationPath::parse(self.path).unwrap(),
            principal: &PrincipalId::new(&self.principal).unwrap(),
            credential,
            signer: Some(signer()),
            intent,
            approvals: &self.approvals,
            first_seen: self.first_seen.unwrap_or(self.now),
        };
        evaluate(&self.policy, &self.book, &ask, self.now, self.slack)
    }

    pub fn denied(&self, intent: &Intent) -> Denial {
        match self.ask(intent) {
            Decision::Deny(denial) => denial,
            other => panic!("not denied: {other:?}"),
        }
    }

    /// Allowed, and charged.
    pub fn allow(&mut self, intent: &Intent) -> Allowance {
        match self.ask(intent) {
            Decision::Allow(allowance) => {
                self.book.record(allowance.charges()).unwrap();
                allowance
            }
            other => panic!("not allowed: {other:?}"),
        }
    }

    pub fn sign(&mut self, intent: &Intent) {
        drop(self.allow(intent));
    }

    pub fn approve(&mut self, principal: &str, with_passkey: bool) {
        let credential = if with_passkey {
            passkey(&self.policy, principal)
        } else {
            credential(&self.policy, principal)
        };
        self.approvals.push(Approved {
            principal: PrincipalId::new(principal).unwrap(),
            credential,
            passkey: with_passkey,
            at: self.now,
        });
    }
}
