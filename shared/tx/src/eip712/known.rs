//! Types whose meaning is known: EIP-3009's transfer and EIP-2612's permit.
//!
//! The known type is compiled in. A message of that name is read into it field by field and
//! hashed by an encoder of its own (alloy-sol-types), which shares neither types nor values with
//! the general one; both must arrive at one digest.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{Eip712Domain, SolStruct};
use casemate_proto::{Amount, ChainId, UnixMillis};
use serde_json::Value;

use crate::{Action, AssetRef, EvmAddress, Intent, Validity};

use super::domain::{ParsedDomain, TokenDomain};
use super::error::TypedDataError;
use super::json::Path;
use super::types::Types;
use super::value::{address, bytes32, closed_object, uint};

#[allow(missing_docs, unreachable_pub, reason = "what the macro generates")]
mod sol_types {
    alloy_sol_types::sol! {
        // EIP-3009
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
        // EIP-2612
        struct Permit {
            address owner;
            address spender;
            uint256 value;
            uint256 nonce;
            uint256 deadline;
        }
        // EIP-712, as both of the above are used
        struct EIP712Domain {
            string name;
            string version;
            uint256 chainId;
            address verifyingContract;
        }
    }
}

/// What a known type says, and the digest of its own encoder.
pub(super) struct Known {
    pub(super) intent: Intent,
    pub(super) digest: [u8; 32],
    pub(super) domain_separator: [u8; 32],
}

/// Reads a message of a known type; `None` for any other name.
///
/// # Errors
/// If the name is known and its fields, its domain or its values are others.
pub(super) fn read(
    primary: &str,
    types: &Types,
    domain: &ParsedDomain,
    message: &Value,
) -> Result<Option<Known>, TypedDataError> {
    if primary == sol_types::TransferWithAuthorization::NAME {
        require_type::<sol_types::TransferWithAuthorization>(types)?;
        return transfer(&domain.require_four_fields()?, domain, message).map(Some);
    }
    if primary == sol_types::Permit::NAME {
        require_type::<sol_types::Permit>(types)?;
        return permit(&domain.require_four_fields()?, domain, message).map(Some);
    }
    Ok(None)
}

fn require_type<S: SolStruct>(types: &Types) -> Result<(), TypedDataError> {
    let (declared, expected) = (types.type_string(S::NAME), S::eip712_encode_type());
    if declared == expected {
        return Ok(());
    }
    let (name, expected) = (S::NAME, expected.into_owned());
    Err(TypedDataError::KnownTypeDiffers { name, declared, expected })
}

fn transfer(
    token: &TokenDomain,
    domain: &ParsedDomain,
    message: &Value,
) -> Result<Known, TypedDataError> {
    let path = Path::Key(&Path::Root, "message");
    let names = ["from", "to", "value", "validAfter", "validBefore", "nonce"];
    let [from, to, value, after, before, nonce] = closed_object(message, path, names)?;
    let from = address(from, Path::Key(&path, "from"))?;
    let to = address(to, Path::Key(&path, "to"))?;
    let value = uint(value, Path::Key(&path, "value"), 256)?;
    let after = uint(after, Path::Key(&path, "validAfter"), 256)?;
    let before = uint(before, Path::Key(&path, "validBefore"), 256)?;
    let typed = sol_types::TransferWithAuthorization {
        from: Address::from(from.0),
        to: Address::from(to.0),
        value,
        validAfter: after,
        validBefore: before,
        nonce: B256::from(bytes32(nonce, Path::Key(&path, "nonce"))?),
    };
    let mut intent = token_intent(Action::Eip3009Transfer, token, from, to, value);
    intent.validity = Some(Validity {
        after: seconds(after, "/message/validAfter")?,
        before: seconds(before, "/message/validBefore")?,
    });
    Ok(hashed(intent, &typed, token, &domain.to_alloy()))
}

fn permit(
    token: &TokenDomain,
    domain: &ParsedDomain,
    message: &Value,
) -> Result<Known, TypedDataError> {
    let path = Path::Key(&Path::Root, "message");
    let names = ["owner", "spender", "value", "nonce", "deadline"];
    let [owner, spender, value, nonce, deadline] = closed_object(message, path, names)?;
    let owner = address(owner, Path::Key(&path, "owner"))?;
    let spender = address(spender, Path::Key(&path, "spender"))?;
    let value = uint(value, Path::Key(&path, "value"), 256)?;
    let deadline = uint(deadline, Path::Key(&path, "deadline"), 256)?;
    let typed = sol_types::Permit {
        owner: Address::from(owner.0),
        spender: Address::from(spender.0),
        value,
        nonce: uint(nonce, Path::Key(&path, "nonce"), 256)?,
        deadline,
    };
    let mut intent = token_intent(Action::Erc20Permit, token, owner, spender, value);
    // the deadline is the last second in which it holds, and it holds from the beginning of time;
    // one that never comes (2²⁵⁶ − 1 is common) is the latest time there is
    let before = deadline.saturating_add(U256::ONE).saturating_mul(U256::from(1_000));
    intent.validity = Some(Validity {
        after: UnixMillis(0),
        before: UnixMillis(u64::try_from(before).unwrap_or(u64::MAX)),
    });
    Ok(hashed(intent, &typed, token, &domain.to_alloy()))
}

fn token_intent(
    action: Action,
    token: &TokenDomain,
    payer: EvmAddress,
    to: EvmAddress,
    value: U256,
) -> Intent {
    Intent {
        action,
        chain: Some(ChainId::eip155(token.chain_id)),
        asset: Some(AssetRef::Token(token.verifying_contract)),
        payer: Some(payer),
        to: Some(to),
        amount: Amount::from_u256(value),
        native_value: Amount::ZERO,
        max_fee: None,
        domain: Some(token.domain.clone()),
        validity: None,
    }
}

fn seconds(value: U256, at: &'static str) -> Result<UnixMillis, TypedDataError> {
    u64::try_from(value)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000))
        .map(UnixMillis)
        .ok_or_else(|| TypedDataError::TimeOverflow { at, input: value.to_string() })
}

fn hashed<S: SolStruct>(
    intent: Intent,
    typed: &S,
    token: &TokenDomain,
    domain: &Eip712Domain,
) -> Known {
    let separator = sol_types::EIP712Domain {
        name: token.domain.name.clone(),
        version: token.domain.version.clone(),
        chainId: U256::from(token.chain_id),
        verifyingContract: Address::from(token.verifying_contract.0),
    }
    .eip712_hash_struct();
    let digest = typed.eip712_signing_hash(domain);
    Known { intent, digest: digest.0, domain_separator: separator.0 }
}
