//! What holds for any transaction, any calldata and any bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEip2930, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_sol_types::{SolCall, sol};
use casemate_proto::Amount;
use casemate_tx::evm::{MAX_CHAIN_ID, MAX_GAS_LIMIT};
use casemate_tx::{
    Action, EvmAddress, EvmSignature, decode_evm, decode_signed_evm, decode_typed_data,
};
use common::{TOKEN, calldata, recover, token_call};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

sol! {
    function transfer(address to, uint256 amount);
    function transferFrom(address from, address to, uint256 amount);
    function approve(address spender, uint256 amount);
    function increaseAllowance(address spender, uint256 amount);
    function permit(address o, address s, uint256 v, uint256 d, uint8 y, bytes32 r, bytes32 t);
    function setApprovalForAll(address operator, bool approved);
}

#[derive(Clone, Debug)]
struct Fields {
    chain_id: u64,
    nonce: u64,
    fee: u128,
    tip: u128,
    gas_limit: u64,
    to: TxKind,
    value: U256,
    input: Bytes,
    access_list: AccessList,
}

fn access_list() -> impl Strategy<Value = AccessList> {
    let item = (any::<[u8; 20]>(), vec(any::<[u8; 32]>(), 0..3)).prop_map(|(address, keys)| {
        AccessListItem {
            address: Address::from(address),
            storage_keys: keys.into_iter().map(B256::from).collect(),
        }
    });
    vec(item, 0..3).prop_map(AccessList)
}

fn fields() -> impl Strategy<Value = Fields> {
    let to = proptest::option::weighted(0.8, any::<[u8; 20]>())
        .prop_map(|to| to.map_or(TxKind::Create, |a| TxKind::Call(Address::from(a))));
    // past the intrinsic gas of the longest input below
    let gas_limit = 200_000..=MAX_GAS_LIMIT;
    (
        1..=MAX_CHAIN_ID,
        0..u64::MAX,
        any::<[u128; 2]>(),
        gas_limit,
        to,
        any::<u128>(),
        vec(any::<u8>(), 0..200),
        access_list(),
    )
        .prop_map(|(chain_id, nonce, [a, b], gas_limit, to, value, input, access_list)| {
            Fields {
                chain_id,
                nonce,
                fee: a.max(b),
                tip: a.min(b),
                gas_limit,
                to,
                value: U256::from(value),
                input: input.into(),
                access_list,
            }
        })
}

/// The unsigned bytes of one type, by the library that wallets use.
fn unsigned(f: &Fields, ty: u8) -> Vec<u8> {
    let Fields { chain_id, nonce, fee, tip, gas_limit, to, value, .. } = f.clone();
    let (input, access_list) = (f.input.clone(), f.access_list.clone());
    match ty {
        0 => {
            let chain_id = Some(chain_id);
            let tx = TxLegacy { chain_id, nonce, gas_price: fee, gas_limit, to, value, input };
            tx.encoded_for_signing()
        }
        1 => {
            TxEip2930 { chain_id, nonce, gas_price: fee, gas_limit, to, value, access_list, input }
                .encoded_for_signing()
        }
        _ => TxEip1559 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: fee,
            max_priority_fee_per_gas: tip,
            to,
            value,
            access_list,
            input,
        }
        .encoded_for_signing(),
    }
}

/// Typed data of an EIP-3009 transfer, with the amount as given.
fn transfer(from: [u8; 20], to: [u8; 20], value: &serde_json::Value, times: (u64, u64)) -> Vec<u8> {
    let address = |a: [u8; 20]| EvmAddress(a).to_checksum();
    json!({
        "types": { "TransferWithAuthorization": [
            { "name": "from", "type": "address" },
            { "name": "to", "type": "address" },
            { "name": "value", "type": "uint256" },
            { "name": "validAfter", "type": "uint256" },
            { "name": "validBefore", "type": "uint256" },
            { "name": "nonce", "type": "bytes32" },
        ] },
        "primaryType": "TransferWithAuthorization",
        "domain": {
            "name": "USD Coin", "version": "2", "chainId": 8453, "verifyingContract": address(TOKEN),
        },
        "message": {
            "from": address(from), "to": address(to), "value": value,
            "validAfter": times.0, "validBefore": times.1, "nonce": format!("0x{}", "5a".repeat(32)),
        },
    })
    .to_string()
    .into_bytes()
}

proptest! {
    #[test]
    fn i3_transactions_round_trip_and_say_what_they_do(f in fields(), ty in 0_u8..=2) {
        let bytes = unsigned(&f, ty);
        let tx = decode_evm(&bytes).unwrap();
        prop_assert_eq!(tx.unsigned(), bytes.clone());
        prop_assert_eq!(tx.signing_hash(), keccak256(&bytes).0);
        prop_assert_eq!(tx.chain_id(), f.chain_id);
        let intent = tx.intent();
        let fee = U256::from(f.fee) * U256::from(f.gas_limit);
        prop_assert_eq!(intent.max_fee, Some(Amount::from_u256(fee)));
        prop_assert_eq!(intent.to, f.to.to().map(|a| EvmAddress(a.into_array())));
        let moved = intent.amount.checked_add(intent.native_value).unwrap();
        prop_assert_eq!(moved, Amount::from_u256(f.value));
        let action = match (f.to, f.input.is_empty()) {
            (TxKind::Create, _) => Action::ContractCreation,
            (_, true) => Action::EthNativeTransfer,
            (_, false) => Action::ContractCall,
        };
        prop_assert_eq!(intent.action, action);
    }

    #[test]
    fn signatures_go_in_and_come_out(f in fields(), ty in 0_u8..=2, secret in 1_u128..) {
        let mut key = [0; 32];
        key[16..].copy_from_slice(&secret.to_be_bytes());
        let key = k256::ecdsa::SigningKey::from_slice(&key).unwrap();
        let signer = casemate_tx::evm_address_from_sec1(&key.verifying_key().to_sec1_bytes()).unwrap();
        let tx = decode_evm(&unsigned(&f, ty)).unwrap();
        let (r_s, id) = key.sign_prehash_recoverable(&tx.signing_hash()).unwrap();
        let signature = EvmSignature::new(&r_s.to_bytes().into(), id.is_y_odd()).unwrap();
        let raw = tx.raw_signed(&signature);
        prop_assert_eq!(tx.tx_hash(&signature), keccak256(&raw).0);
        let apart = decode_signed_evm(&raw).unwrap();
        prop_assert_eq!(recover(apart.transaction.signing_hash(), &apart.signature), signer);
        prop_assert_eq!(apart.transaction, tx);
        prop_assert!(decode_evm(&raw).is_err());
    }

    /// A changed byte gives a refusal or a transaction that is the changed bytes, never the old one.
    #[test]
    fn i3_a_changed_byte_never_keeps_the_digest(
        f in fields(), ty in 0_u8..=2, at: prop::sample::Index, flip in 1_u8..,
    ) {
        let mut bytes = unsigned(&f, ty);
        let before = keccak256(&bytes).0;
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(tx) = decode_evm(&bytes) {
            prop_assert_eq!(tx.unsigned(), bytes);
            prop_assert_ne!(tx.signing_hash(), before);
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..400), ty in 0_u8..6) {
        for input in [bytes.clone(), [vec![ty], bytes].concat()] {
            if let Ok(tx) = decode_evm(&input) {
                prop_assert_eq!(tx.unsigned(), input.clone());
            }
            if let Ok(signed) = decode_signed_evm(&input) {
                prop_assert_eq!(signed.transaction.raw_signed(&signed.signature), input.clone());
            }
            let _ = decode_typed_data(&input);
        }
    }

    /// Our reading of the token calls against alloy-sol-types': the same calls are accepted, but
    /// for bytes behind the arguments, which only it allows.
    #[test]
    fn calldata_agrees_with_alloy(
        call in 0_usize..6,
        words in vec(prop_oneof![
            any::<[u8; 20]>().prop_map(common::address_word),
            any::<[u8; 32]>(),
            (0_u64..300).prop_map(common::number_word),
        ], 0..8),
        extra in vec(any::<u8>(), 0..2),
    ) {
        let (selector, arguments) = [
            (transferCall::SELECTOR, 2), (transferFromCall::SELECTOR, 3),
            (approveCall::SELECTOR, 2), (increaseAllowanceCall::SELECTOR, 2),
            (permitCall::SELECTOR, 7), (setApprovalForAllCall::SELECTOR, 2),
        ][call];
        let data = [calldata(selector, &words), extra].concat();
        let theirs = match call {
            0 => transferCall::abi_decode_validate(&data).map(|c| (c.to, c.amount)),
            1 => transferFromCall::abi_decode_validate(&data).map(|c| (c.to, c.amount)),
            2 => approveCall::abi_decode_validate(&data).map(|c| (c.spender, c.amount)),
            3 => increaseAllowanceCall::abi_decode_validate(&data).map(|c| (c.spender, c.amount)),
            4 => permitCall::abi_decode_validate(&data).map(|c| (c.s, c.v)),
            _ => setApprovalForAllCall::abi_decode_validate(&data)
                .map(|c| (c.operator, if c.approved { U256::MAX } else { U256::ZERO })),
        };
        let exact = data.len() == 4 + 32 * arguments;
        match decode_evm(&token_call(&data)) {
            Ok(tx) => {
                let (to, amount) = theirs.unwrap();
                prop_assert!(exact);
                prop_assert_eq!(tx.intent().to, Some(EvmAddress(to.into_array())));
                prop_assert_eq!(tx.intent().amount, Amount::from_u256(amount));
                prop_assert_ne!(tx.intent().action, Action::ContractCall);
            }
            Err(error) => prop_assert!(theirs.is_err() || !exact, "{error}"),
        }
    }

    #[test]
    fn authorizations_say_what_they_do_in_any_spelling(
        from: [u8; 20], to: [u8; 20], high: u128, low: u128,
        after in 0..=u64::MAX / 1_000, before in 0..=u64::MAX / 1_000,
    ) {
        let value: U256 = (U256::from(high) << 128_usize) | U256::from(low);
        let decimal = transfer(from, to, &value.to_string().into(), (after, before));
        let typed = decode_typed_data(&decimal).unwrap();
        let hex = transfer(from, to, &format!("{value:#x}").into(), (after, before));
        prop_assert_eq!(&decode_typed_data(&hex).unwrap(), &typed);
        let intent = typed.intent();
        prop_assert_eq!(intent.payer, Some(EvmAddress(from)));
        prop_assert_eq!(intent.to, Some(EvmAddress(to)));
        prop_assert_eq!(intent.amount, Amount::from_u256(value));
        let validity = intent.validity.unwrap();
        prop_assert_eq!((validity.after.0, validity.before.0), (after * 1_000, before * 1_000));
    }

    /// A changed character gives a refusal, or says so in the digest, unless it only changed the
    /// spelling of what is hashed.
    #[test]
    fn i3_a_changed_character_is_refused_or_hashed(
        at: prop::sample::Index, to in prop::char::range(' ', '~'),
    ) {
        let text = transfer([1; 20], [2; 20], &10_000.into(), (5, 6));
        let original = decode_typed_data(&text).unwrap();
        let mut changed = text;
        let at = at.index(changed.len());
        changed[at] = u8::try_from(to).unwrap();
        if let Ok(typed) = decode_typed_data(&changed) {
            let same_digest = typed.digest() == original.digest();
            prop_assert_eq!(same_digest, typed == original);
        }
    }
}
