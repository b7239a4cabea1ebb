//! Keys: born by a governance change and a key generation that every node confirmed; a live key's
//! name, scheme and public key never change (I13).

use std::collections::{BTreeMap, BTreeSet};

use casemate_proto::{BootId, Denial, DenialCode, NodeName, Scheme, signature};

use crate::apply::Effect;
use crate::entry::KeyLive;
use crate::state::{LiveKey, State};
use crate::verdict::Verdict;

/// Most keys of a cluster; wallets are children of keys, without number.
pub const MAX_KEYS: usize = 10_000;
/// Most test signatures in one entry.
const MAX_TESTS: usize = 16;

/// Checks a plain signature of a digest: see [`signature::verify`].
#[must_use]
pub fn verify_signature(
    scheme: Scheme,
    public_key: &[u8],
    digest: &[u8; 32],
    plain: &[u8; 64],
) -> bool {
    signature::verify(scheme, public_key, digest, plain)
}

impl State {
    /// What a test signature of these nodes is over: their places in the roster and their current
    /// boots are in it. `None` if one of them is not in the roster.
    #[must_use]
    pub fn test_digest(&self, live: &KeyLive, participants: &[NodeName]) -> Option<[u8; 32]> {
        let mut signers = participants
            .iter()
            .map(|name| {
                let at = self.boots.keys().position(|node| node == name)?;
                Some((u16::try_from(at).ok()?, self.boots.get(name)?.id))
            })
            .collect::<Option<Vec<_>>>()?;
        signers.sort_unstable();
        Some(live.test_digest(self.genesis, self.incarnation, &signers))
    }
}

fn check(state: &State, live: &KeyLive) -> Result<(), String> {
    let key = state.keys.get(&live.name).ok_or("governance asked for no such key")?;
    if key.scheme != live.scheme {
        return Err(format!("its scheme is {}", key.scheme.name()));
    }
    match &key.live {
        None if live.epoch != 0 => return Err("a new key begins with epoch 0".to_owned()),
        Some(now) if now.public_key != live.public_key || now.chain_code != live.chain_code => {
            return Err("a live key's public key and chain code never change".to_owned());
        }
        Some(now) if live.epoch <= now.epoch => {
            return Err(format!("epoch {} is not above the current {}", live.epoch, now.epoch));
        }
        now if live.replaces != now.as_ref().map(|now| now.epoch) => {
            return Err("it does not take the place of the current epoch".to_owned());
        }
        _ => {}
    }
    let roster: BTreeSet<&NodeName> = state.boots.keys().collect();
    if live.tests.len() > MAX_TESTS || live.confirmations.len() > roster.len() {
        return Err("too many signatures".to_owned());
    }
    let mut covered = BTreeSet::new();
    for test in &live.tests {
        let names: BTreeSet<&NodeName> = test.participants.iter().collect();
        if names.len() != test.participants.len()
            || u64::try_from(names.len()).unwrap_or(0) != state.manifest.threshold
            || !names.is_subset(&roster)
        {
            return Err("a test's participants are not t nodes of the roster".to_owned());
        }
        let digest = state
            .test_digest(live, &test.participants)
            .ok_or("a test's participant has no boot")?;
        if !verify_signature(live.scheme, &live.public_key, &digest, &test.signature) {
            return Err("a test signature does not verify".to_owned());
        }
        covered.extend(names);
    }
    if covered != roster {
        return Err("the test signatures do not cover every node".to_owned());
    }
    let message = live.confirm_message(&state.genesis);
    let mut confirmed = BTreeSet::new();
    for confirmation in &live.confirmations {
        let key = state
            .current_boot_key(&confirmation.node)
            .and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(&key).ok())
            .ok_or("a confirmation is of no node of the roster")?;
        let signature = ed25519_dalek::Signature::from_bytes(&confirmation.signature);
        if key.verify_strict(&message, &signature).is_err() {
            return Err(format!(
                "the confirmation of node `{}` does not verify",
                confirmation.node
            ));
        }
        confirmed.insert(&confirmation.node);
    }
    if confirmed != roster {
        return Err("not every node has confirmed".to_owned());
    }
    Ok(())
}

pub(crate) fn apply_key_live(
    state: &mut State,
    live: &KeyLive,
    index: u64,
    effects: &mut Vec<Effect>,
) -> Verdict {
    if let Err(reason) = check(state, live) {
        return Verdict::Denied(Denial::new(
            DenialCode::GovernanceRefused,
            format_args!("key `{}`, epoch {}: {reason}", live.name, live.epoch),
        ));
    }
    // every one of them has just confirmed
    let holders: BTreeMap<NodeName, BootId> =
        state.boots.iter().map(|(node, boot)| (node.clone(), boot.id)).collect();
    if let Some(key) = state.keys.get_mut(&live.name) {
        key.live = Some(LiveKey {
            public_key: live.public_key.clone(),
            chain_code: live.chain_code,
            epoch: live.epoch,
            index,
            // between the same boots there is nothing to give back, so that they were refreshed
            is_fresh: live.scheme == Scheme::EcdsaSecp256k1
                || key.live.as_ref().is_none_or(|former| former.holders == holders),
            holders,
            transcript: live.transcript,
        });
    }
    effects.push(Effect::KeyLive {
        name: live.name.clone(),
        epoch: live.epoch,
        transcript: live.transcript,
    });
    Verdict::accepted()
}
