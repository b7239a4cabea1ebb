//! From a payload's bytes to what is signed (invariant I3): decoded here, encoded again, hashed
//! here. No digest ever comes from outside but under a grant that says `raw_hash`.

use casemate_proto::derive::{derive_bip340, derive_ed25519, derive_secp256k1};
use casemate_proto::hash::message_digest;
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{
    Amount, ChainId, Denial, DenialCode, DerivationPath, GenesisId, KeyName, Scheme,
};
use casemate_tx::{
    Action, EvmAddress, EvmTransaction, Intent, TxError, TypedData, decode_evm, decode_typed_data,
    evm_address_from_sec1,
};

use crate::state::{LiveKey, State};

/// What was decoded, in its own form.
#[derive(Clone, Debug)]
pub enum Form {
    /// An EVM transaction.
    Evm(Box<EvmTransaction>),
    /// Typed data.
    TypedData(Box<TypedData>),
    /// A message, signed under Casemate's tag.
    Message,
    /// A raw hash.
    Hash,
}

/// A payload as the enclave reads it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What it does.
    pub intent: Intent,
    /// What is signed.
    pub digest: [u8; 32],
    /// What it is.
    pub form: Form,
}

/// A key's child with what it is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildKey {
    /// 33 bytes SEC1 (for BIP-340 the even point) or 32 bytes Ed25519.
    pub public_key: Vec<u8>,
    /// The EVM address, for ECDSA.
    pub address: Option<EvmAddress>,
}

const fn bare_intent(action: Action) -> Intent {
    Intent {
        action,
        chain: None,
        asset: None,
        payer: None,
        to: None,
        amount: Amount::ZERO,
        native_value: Amount::ZERO,
        max_fee: None,
        domain: None,
        validity: None,
    }
}

/// Decodes a payload and derives its digest.
///
/// # Errors
/// A denial that names what is malformed, or that the transaction is for another chain than the
/// request says.
pub fn decode(genesis: &GenesisId, payload: &Payload) -> Result<Decoded, Denial> {
    let refuse = |error: TxError| Denial::new(error.denial_code(), error);
    match payload {
        Payload::Tx { chain, unsigned } => {
            if chain.as_eip155().is_none() {
                return Err(Denial::new(
                    DenialCode::Malformed,
                    format_args!(
                        "chain `{chain}`: transactions of `eip155:…` chains are read here, and no others yet"
                    ),
                ));
            }
            let transaction = decode_evm(unsigned).map_err(refuse)?;
            let own = ChainId::eip155(transaction.chain_id());
            if own != *chain {
                return Err(Denial::new(
                    DenialCode::Malformed,
                    format_args!(
                        "the transaction is for chain `{own}`, and the request says `{chain}`"
                    ),
                ));
            }
            Ok(Decoded {
                intent: transaction.intent().clone(),
                digest: transaction.signing_hash(),
                form: Form::Evm(Box::new(transaction)),
            })
        }
        Payload::TypedData(json) => {
            let typed = decode_typed_data(json.as_bytes()).map_err(refuse)?;
            Ok(Decoded {
                intent: typed.intent().clone(),
                digest: typed.digest(),
                form: Form::TypedData(Box::new(typed)),
            })
        }
        Payload::Message(bytes) => Ok(Decoded {
            intent: bare_intent(Action::Message),
            digest: message_digest(genesis, bytes),
            form: Form::Message,
        }),
        Payload::Hash(hash) => {
            Ok(Decoded { intent: bare_intent(Action::RawHash), digest: *hash, form: Form::Hash })
        }
    }
}

/// Checks that a key of this scheme signs this kind of payload.
///
/// # Errors
/// `wrong_scheme` otherwise.
pub fn check_scheme(name: &KeyName, scheme: Scheme, payload: &Payload) -> Result<(), Denial> {
    if !scheme.signs_messages_only() || matches!(payload, Payload::Message(_)) {
        return Ok(());
    }
    Err(Denial::new(
        DenialCode::WrongScheme,
        format_args!(
            "key `{name}` is {}, which signs messages and no `{}`",
            scheme.name(),
            payload.kind()
        ),
    ))
}

/// The child of a live key at a path.
///
/// # Errors
/// `bad_path` in the negligible case that no key exists there.
pub fn child(scheme: Scheme, live: &LiveKey, path: &DerivationPath) -> Result<ChildKey, Denial> {
    let fail = |error: &dyn core::fmt::Display| {
        Denial::new(DenialCode::BadPath, format_args!("no key at path `{path}`: {error}"))
    };
    match scheme {
        Scheme::EcdsaSecp256k1 => {
            let parent =
                <[u8; 33]>::try_from(live.public_key.as_slice()).map_err(|error| fail(&error))?;
            let derived =
                derive_secp256k1(&parent, &live.chain_code, path).map_err(|error| fail(&error))?;
            let address =
                evm_address_from_sec1(&derived.public_key).map_err(|error| fail(&error))?;
            Ok(ChildKey { public_key: derived.public_key.to_vec(), address: Some(address) })
        }
        Scheme::Ed25519 => {
            let parent =
                <[u8; 32]>::try_from(live.public_key.as_slice()).map_err(|error| fail(&error))?;
            let derived =
                derive_ed25519(&parent, &live.chain_code, path).map_err(|error| fail(&error))?;
            Ok(ChildKey { public_key: derived.public_key.to_vec(), address: None })
        }
        Scheme::Bip340Secp256k1 => {
            let parent =
                <[u8; 33]>::try_from(live.public_key.as_slice()).map_err(|error| fail(&error))?;
            let derived =
                derive_bip340(&parent, &live.chain_code, path).map_err(|error| fail(&error))?;
            Ok(ChildKey { public_key: derived.public_key.to_vec(), address: None })
        }
    }
}

/// The live key that a request names.
///
/// # Errors
/// If there is none of that name, it is the cluster's own, or it is not live.
pub fn requested_key<'s>(
    state: &'s State,
    request: &SignRequest,
) -> Result<(Scheme, &'s LiveKey), Denial> {
    let name = &request.key;
    let reserved = name.as_str().starts_with(crate::state::RESERVED_PREFIX);
    let key = state.keys.get(name).filter(|_| !reserved).ok_or_else(|| {
        Denial::new(DenialCode::UnknownKey, format_args!("there is no key `{name}`"))
    })?;
    let live = key.live.as_ref().ok_or_else(|| {
        Denial::new(DenialCode::KeyNotLive, format_args!("key `{name}` is still being generated"))
    })?;
    Ok((key.scheme, live))
}
