//! What a client checks of what it gets, with public data alone: that a signature is by the key
//! over the digest of what was asked, and that its record is in a log that the nodes cosigned.

use std::collections::BTreeMap;

use casemate_audit::{CheckpointPolicy, InclusionReceipt, VerifiedRecord, verify_receipt};
use casemate_ledger::entry::{Entry, EntryBody};
use casemate_ledger::verdict::Verdict;
use casemate_policy::AssetKey;
use casemate_proto::hash::message_digest;
use casemate_proto::request::Payload;
use casemate_proto::{Amount, CredentialId, GenesisId, RequestId, Scheme, bip340, cbor};
use casemate_tx::{AssetRef, Intent, decode_evm, decode_signed_evm, decode_typed_data};
use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey as Ed25519Key};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};

use super::cluster::Signed;
use super::session::KnownKey;

/// A payload as the one who asks reads it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What is signed.
    pub digest: [u8; 32],
    /// How much is moved.
    pub amount: Amount,
    /// Of what; `None` for messages and raw hashes.
    pub asset: Option<AssetKey>,
    /// The most that it costs, in the chain's native asset.
    pub fee: Option<(AssetKey, Amount)>,
}

/// Reads a payload; `None` where it cannot be read.
#[must_use]
pub fn decode(genesis: &GenesisId, payload: &Payload) -> Option<Decoded> {
    let of = |digest, intent: &Intent| {
        let token = match intent.asset {
            Some(AssetRef::Token(token)) => Some(token),
            Some(AssetRef::Native) | None => None,
        };
        let asset = |token| intent.chain.clone().map(|chain| AssetKey { chain, token });
        let fee = asset(None).zip(intent.max_fee);
        Decoded { digest, amount: intent.amount, asset: asset(token), fee }
    };
    let bare = |digest| Decoded { digest, amount: Amount::ZERO, asset: None, fee: None };
    match payload {
        Payload::Tx { unsigned, .. } => {
            let transaction = decode_evm(unsigned).ok()?;
            Some(of(transaction.signing_hash(), transaction.intent()))
        }
        Payload::TypedData(json) => {
            let typed = decode_typed_data(json.as_bytes()).ok()?;
            Some(of(typed.digest(), typed.intent()))
        }
        Payload::Message(bytes) => Some(bare(message_digest(genesis, bytes))),
        Payload::Hash(hash) => Some(bare(*hash)),
    }
}

/// Checks a signature, and a raw transaction with it, against the key.
///
/// # Errors
/// Saying what does not fit.
pub fn check_signature(key: &KnownKey, decoded: &Decoded, signed: &Signed) -> Result<(), String> {
    let public_key = key.key.public_key.as_slice();
    match key.key.scheme {
        Scheme::EcdsaSecp256k1 => {
            let recovered = recover(&decoded.digest, &signed.signature)?;
            if recovered.to_encoded_point(true).as_bytes() != public_key {
                return Err("the signature recovers to another key".to_owned());
            }
        }
        Scheme::Ed25519 => {
            let parsed = <[u8; 32]>::try_from(public_key)
                .ok()
                .and_then(|bytes| Ed25519Key::from_bytes(&bytes).ok());
            let signature = Ed25519Signature::from_slice(&signed.signature).ok();
            let verifies = parsed.zip(signature).is_some_and(|(key, signature)| {
                key.verify_strict(&decoded.digest, &signature).is_ok()
            });
            if !verifies {
                return Err("the signature does not verify".to_owned());
            }
        }
        Scheme::Bip340Secp256k1 => {
            let x_only = bip340::x_only(public_key);
            let signature = <[u8; 64]>::try_from(signed.signature.as_slice()).ok();
            let verifies = x_only.zip(signature).is_some_and(|(x_only, signature)| {
                bip340::verify(&x_only, &decoded.digest, &signature)
            });
            if !verifies {
                return Err("the signature does not verify".to_owned());
            }
        }
    }
    let Some(raw) = &signed.raw_transaction else { return Ok(()) };
    let transaction = decode_signed_evm(raw).map_err(|error| error.to_string())?;
    let same = transaction.transaction.signing_hash() == decoded.digest
        && signed.signature.get(..64) == Some(transaction.signature.r_s().as_slice());
    if same { Ok(()) } else { Err("the raw transaction is another".to_owned()) }
}

fn recover(digest: &[u8; 32], r_s_v: &[u8]) -> Result<VerifyingKey, String> {
    let parsed = || {
        let (v, r_s) = r_s_v.split_last()?;
        let signature = Signature::from_slice(r_s).ok()?;
        let id = RecoveryId::from_byte(v.checked_sub(27)?).filter(|id| !id.is_x_reduced())?;
        VerifyingKey::recover_from_prehash(digest, &signature, id).ok()
    };
    parsed().ok_or_else(|| "the signature is not r‖s‖v, or recovers to no key".to_owned())
}

/// Checks the proof that comes with a signature: the record that allowed exactly this, and the
/// record of exactly this signature, under checkpoints that t nodes cosigned, each while its boot was
/// current by one of these policies.
///
/// # Errors
/// Saying what is not shown.
pub fn check_receipt(
    policies: &[CheckpointPolicy],
    (credential, request_id): (CredentialId, RequestId),
    decoded: &Decoded,
    signed: &Signed,
) -> Result<(), String> {
    let read = |receipt| {
        let record = verify_under(receipt, policies)?;
        let fields = record.record().fields().clone();
        let entry = Entry::decode(&fields.entry).map_err(|error| error.to_string())?;
        Ok::<_, String>((entry, fields))
    };
    let (entry, fields) = read(&signed.receipt.signed)?;
    let EntryBody::Signed { credential: whose, request_id: which, signature } = entry.body else {
        return Err(format!("the record is of kind `{}`", fields.kind));
    };
    if (whose, which) != (credential, request_id) {
        return Err("the record is of another request".to_owned());
    }
    if signature.get(..64) != signed.signature.get(..64) {
        return Err("the record is of another signature".to_owned());
    }
    let (_, fields) = read(&signed.receipt.allowed)?;
    let verdict: Verdict =
        cbor::decode(&fields.verdict, fields.verdict.len()).map_err(|error| error.to_string())?;
    match verdict {
        Verdict::Allowed(allowed) if allowed.digest == decoded.digest => Ok(()),
        other => Err(format!("the record before it says `{}`", other.name())),
    }
}

/// Checks a receipt under whichever of these policies it fits; the newest is the likeliest.
///
/// # Errors
/// Saying why it does not fit the newest, if it fits none.
pub fn verify_under(
    receipt: &InclusionReceipt,
    policies: &[CheckpointPolicy],
) -> Result<VerifiedRecord, String> {
    let mut problem = None;
    for policy in policies.iter().rev() {
        match verify_receipt(receipt, policy) {
            Ok(record) => return Ok(record),
            Err(error) => problem = problem.or(Some(error.to_string())),
        }
    }
    Err(problem.unwrap_or_else(|| "nobody is known who could have cosigned it".to_owned()))
}

/// What was signed for, by key and asset, fees included.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    sums: BTreeMap<(String, AssetKey), Amount>,
    unproven: u64,
}

impl Tally {
    /// Adds what a signature moves and may cost; `proven` says whether it and its receipt were
    /// found good.
    pub fn add(&mut self, key: &str, decoded: Option<&Decoded>, proven: bool) {
        self.unproven = self.unproven.saturating_add(u64::from(!proven));
        let Some(decoded) = decoded else { return };
        let moved = decoded.asset.clone().map(|asset| (asset, decoded.amount));
        for (asset, amount) in moved.into_iter().chain(decoded.fee.clone()) {
            let sum = self.sums.entry((key.to_owned(), asset)).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    /// The sum of an asset that a key signed for.
    #[must_use]
    pub fn of(&self, key: &str, asset: &AssetKey) -> Amount {
        self.sums.get(&(key.to_owned(), asset.clone())).copied().unwrap_or_default()
    }
    /// How many signatures were not found good.
    #[must_use]
    pub const fn unproven(&self) -> u64 {
        self.unproven
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[allow(clippy::unreachable, reason = "a test's own payload")]
mod tests;
