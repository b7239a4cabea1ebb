//! Published transaction and RLP vectors: ethers, ethereum/tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use std::collections::BTreeMap;

use alloy_primitives::keccak256;
use alloy_rlp::{Encodable as _, Header};
use casemate_proto::Amount;
use casemate_tx::evm::{CalldataError, RlpProblem};
use casemate_tx::{Action, EvmAddress, EvmError, EvmSignature, decode_evm, decode_signed_evm};
use common::{evm_error, hex, read_gz, read_json, recover};
use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// ethers writes numbers as JSON numbers or as 0x strings, and leaves zeros out.
fn number(value: &Value) -> Amount {
    match value {
        Value::Null => Amount::ZERO,
        Value::Number(n) => n.as_u64().unwrap().into(),
        other => {
            let digits = text(other).strip_prefix("0x").unwrap();
            Amount::from_u256(alloy_primitives::U256::from_str_radix(digits, 16).unwrap())
        }
    }
}

fn small(value: &Value) -> u64 {
    u64::try_from(number(value).to_u256()).unwrap()
}

fn signature(value: &Value) -> EvmSignature {
    let r_s = [hex(text(&value["r"])), hex(text(&value["s"]))].concat();
    // 0 and 1 in typed transactions, 27 and 28 or 35 + 2 × chain id + parity in legacy ones
    let v = small(&value["v"]);
    let parity = if v < 2 { v == 1 } else { v.is_multiple_of(2) };
    EvmSignature::new(r_s.as_slice().try_into().unwrap(), parity).unwrap()
}

/// Gas before the first instruction, counted from the vector's JSON.
fn intrinsic_gas(transaction: &Value, with_access_list: bool) -> u64 {
    let data = transaction["data"].as_str().map(hex).unwrap_or_default();
    let calldata: u64 = data.iter().map(|&b| if b == 0 { 4 } else { 16 }).sum();
    let list = transaction["accessList"].as_array().map(Vec::as_slice).unwrap_or_default();
    let accessed: u64 = list
        .iter()
        .map(|item| {
            let slots = item["storageKeys"].as_array().unwrap().len();
            2_400 + 1_900 * u64::try_from(slots).unwrap()
        })
        .sum();
    21_000 + calldata + if with_access_list { accessed } else { 0 }
}

#[test]
fn ethers_transactions_decode_sign_and_reassemble() {
    let cases = read_gz("ethereum/ethers_transactions_first120.json.gz");
    let (mut decoded, mut low_gas) = (0, 0);
    for case in cases.as_array().unwrap() {
        let name = text(&case["name"]);
        let transaction = &case["transaction"];
        let secret = k256::ecdsa::SigningKey::from_slice(&hex(text(&case["privateKey"]))).unwrap();
        let signer =
            casemate_tx::evm_address_from_sec1(&secret.verifying_key().to_sec1_bytes()).unwrap();
        for (kind, typed) in [("Eip155", false), ("Berlin", true), ("London", true)] {
            let unsigned = hex(text(&case[format!("unsigned{kind}")]));
            let signed = hex(text(&case[format!("signed{kind}")]));
            let signature = signature(&case[format!("signature{kind}")]);

            assert!(
                matches!(evm_error(decode_evm(&signed)), EvmError::AlreadySigned { .. }),
                "{name} {kind}"
            );
            assert!(
                matches!(evm_error(decode_signed_evm(&unsigned)), EvmError::NotSigned { .. }),
                "{name} {kind}"
            );

            let gas_limit = small(&transaction["gasLimit"]);
            let intrinsic = intrinsic_gas(transaction, typed);
            if gas_limit < intrinsic {
                let expected = EvmError::GasLimitBelowIntrinsic { gas_limit, intrinsic };
                assert_eq!(evm_error(decode_evm(&unsigned)), expected, "{name} {kind}");
                assert_eq!(evm_error(decode_signed_evm(&signed)), expected, "{name} {kind}");
                low_gas += 1;
                continue;
            }

            let tx = decode_evm(&unsigned).unwrap_or_else(|e| panic!("{name} {kind}: {e}"));
            assert_eq!(tx.unsigned(), unsigned, "{name} {kind}");
            assert_eq!(tx.signing_hash(), keccak256(&unsigned).0, "{name} {kind}");
            assert_eq!(recover(tx.signing_hash(), &signature), signer, "{name} {kind}");
            assert_eq!(tx.raw_signed(&signature), signed, "{name} {kind}");
            assert_eq!(tx.tx_hash(&signature), keccak256(&signed).0, "{name} {kind}");

            let summary = tx.summary();
            assert_eq!(summary.nonce, number(&transaction["nonce"]), "{name} {kind}");
            assert_eq!(summary.chain_id, number(&transaction["chainId"]), "{name} {kind}");
            assert_eq!(tx.chain_id(), small(&transaction["chainId"]), "{name} {kind}");
            assert_eq!(summary.value, number(&transaction["value"]), "{name} {kind}");
            let price = if kind == "London" { "maxFeePerGas" } else { "gasPrice" };
            let price = number(&transaction[price]);
            assert_eq!(summary.max_fee_per_gas, price, "{name} {kind}");
            assert_eq!(tx.intent().max_fee, price.checked_mul(gas_limit), "{name} {kind}");
            let to = EvmAddress::parse(text(&transaction["to"])).unwrap();
            assert_eq!(tx.intent().to, Some(to), "{name} {kind}");
            let expected = match transaction["data"].as_str() {
                None | Some("0x") => Action::EthNativeTransfer,
                Some(_) => Action::ContractCall,
            };
            assert_eq!(tx.intent().action, expected, "{name} {kind}");

            let apart = decode_signed_evm(&signed).unwrap();
            assert_eq!((apart.transaction, apart.signature), (tx, signature), "{name} {kind}");
            decoded += 1;
        }
    }
    assert_eq!((decoded, low_gas), (238, 122));
}

#[test]
fn ethers_transactions_before_eip155_and_with_blobs_are_refused() {
    let cases = read_gz("ethereum/ethers_transactions_first120.json.gz");
    let mut count = 0;
    for case in cases.as_array().unwrap() {
        let bytes = |member: &str| hex(text(&case[member]));
        let refused = evm_error(decode_evm(&bytes("unsignedLegacy")));
        assert_eq!(refused, EvmError::NotReplayProtected);
        assert!(matches!(
            evm_error(decode_evm(&bytes("signedLegacy"))),
            EvmError::AlreadySigned { .. }
        ));
        assert_eq!(
            evm_error(decode_signed_evm(&bytes("signedLegacy"))),
            EvmError::NotReplayProtected
        );
        for member in ["unsignedCancun", "signedCancun"] {
            let refused = evm_error(decode_evm(&bytes(member)));
            assert!(matches!(refused, EvmError::UnsupportedType { ty: 3, .. }), "{refused}");
        }
        count += 1;
    }
    assert_eq!(count, 120);
}

/// Signed transactions of ethereum/tests. Each that no fork accepts must be refused by the signed
/// decoder, but for those that are invalid only because the runner's chain is number 1 and theirs
/// is not. One that is accepted must have the stated hash and sender, and its unsigned form must
/// decode to the same transaction.
#[test]
fn ethereum_tests_transactions() {
    let cases = read_json("ethereum/transaction_tests.json");
    let mut accepted = Vec::new();
    let mut refused_valid: BTreeMap<&str, usize> = BTreeMap::new();
    let mut refused_invalid = 0;
    let mut other_chain = 0;
    let mut zero_signatures = Vec::new();
    for (name, case) in cases.as_object().unwrap() {
        let raw = hex(text(&case["txbytes"]));
        let forks = case["result"].as_object().unwrap();
        let valid = forks.values().rev().find(|fork| fork.get("exception").is_none());
        let only_other_chain =
            forks.values().all(|fork| fork["exception"] == "TransactionException.INVALID_CHAINID");
        // what is signed is never taken for something to sign; only a "signature" of zeros is, byte
        // for byte, the unsigned form for the chain of that number
        if let Ok(tx) = decode_evm(&raw) {
            assert!(raw.ends_with(&[0x80, 0x80]), "{name}");
            zero_signatures.push((name.as_str(), tx.chain_id()));
        }
        match decode_signed_evm(&raw) {
            Ok(signed) => {
                let sender = recover(signed.transaction.signing_hash(), &signed.signature);
                let hash = signed.transaction.tx_hash(&signed.signature).to_vec();
                match valid {
                    Some(fork) => {
                        assert_eq!(
                            Some(sender),
                            EvmAddress::parse(text(&fork["sender"])),
                            "{name}"
                        );
                        assert_eq!(hash, hex(text(&fork["hash"])), "{name}");
                        accepted.push(name.as_str());
                    }
                    None => {
                        assert!(only_other_chain, "{name} is invalid on every fork");
                        other_chain += 1;
                    }
                }
                let again = decode_evm(&signed.transaction.unsigned()).unwrap();
                assert_eq!(again, signed.transaction, "{name}");
            }
            Err(error) if valid.is_some() => {
                let reason = match evm_error(Err::<(), _>(error)) {
                    EvmError::NotReplayProtected => "before EIP-155",
                    EvmError::Rlp { problem: RlpProblem::TooLarge, .. } => {
                        "gas or price past 64 or 128 bits"
                    }
                    other => panic!("{name}: {other}"),
                };
                *refused_valid.entry(reason).or_default() += 1;
            }
            Err(_) => refused_invalid += 1,
        }
    }
    let chains: Vec<u64> = zero_signatures.iter().map(|(_, chain_id)| *chain_id).collect();
    assert_eq!(chains, [27, 1, 2, 3, 4, 5], "{zero_signatures:?}");
    assert_eq!(accepted.len(), 15, "{accepted:?}");
    let expected = [("before EIP-155", 34), ("gas or price past 64 or 128 bits", 3)];
    assert_eq!(refused_valid, expected.into());
    assert_eq!((refused_invalid, other_chain), (147, 11));
}

/// An EIP-1559 transaction whose `data` is this RLP item, whatever it is.
fn with_data_item(item: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    8_453_u64.encode(&mut fields); // chainId
    0_u64.encode(&mut fields); // nonce
    1_u64.encode(&mut fields); // maxPriorityFeePerGas
    2_u64.encode(&mut fields); // maxFeePerGas
    30_000_000_u64.encode(&mut fields); // gasLimit
    [0x22_u8; 20].encode(&mut fields); // to
    0_u64.encode(&mut fields); // value
    fields.extend_from_slice(item);
    fields.push(0xc0); // accessList
    let mut out = vec![0x02];
    Header { list: true, payload_length: fields.len() }.encode(&mut out);
    out.extend_from_slice(&fields);
    out
}

#[test]
fn ethereum_tests_invalid_rlp_is_refused_as_a_transaction_and_as_a_field() {
    let cases = read_json("ethereum/invalidRLPTest.json");
    let mut count = 0;
    for (name, case) in cases.as_object().unwrap() {
        let item = hex(text(&case["out"]));
        assert!(decode_evm(&item).is_err(), "{name}");
        assert!(decode_signed_evm(&item).is_err(), "{name}");
        for ty in [1, 2] {
            assert!(decode_evm(&[&[ty], item.as_slice()].concat()).is_err(), "{name}");
        }
        assert!(decode_evm(&with_data_item(&item)).is_err(), "{name}");
        count += 1;
    }
    assert_eq!(count, 26);
}

#[test]
fn published_rlp_strings_are_calldata_and_lists_are_not() {
    let mut items = Vec::new();
    for (name, case) in read_json("ethereum/rlptest.json").as_object().unwrap() {
        items.push((name.clone(), case["in"].is_array(), hex(text(&case["out"]))));
    }
    for case in read_gz("ethereum/ethers_rlp.json.gz").as_array().unwrap() {
        let name = text(&case["name"]).to_owned();
        items.push((name, case["decoded"].is_array(), hex(text(&case["encoded"]))));
    }
    let (mut strings, mut lists) = (0, 0);
    for (name, is_list, item) in items {
        let result = decode_evm(&with_data_item(&item));
        if is_list {
            let error = evm_error(result);
            assert!(
                matches!(
                    error,
                    EvmError::Rlp { field: "data", problem: RlpProblem::NotAString, .. }
                ),
                "{name}: {error}"
            );
            lists += 1;
        } else {
            let tx = result.unwrap_or_else(|e| panic!("{name}: {e}"));
            let action =
                if item == [0x80] { Action::EthNativeTransfer } else { Action::ContractCall };
            assert_eq!(tx.intent().action, action, "{name}");
            strings += 1;
        }
    }
    assert_eq!((strings, lists), (69, 20));
}

/// The published encoding of `(uint256, address)` is read as arguments of `transfer`, whose types
/// are the other way round but have the same layout.
#[test]
fn published_abi_words_are_read_in_place() {
    let cases = read_json("ethereum/basic_abi_tests.json");
    let call = |case: &str| {
        let mut data = vec![0xa9, 0x05, 0x9c, 0xbb];
        data.extend(hex(text(&cases[case]["result"])));
        let mut item = Vec::new();
        data.as_slice().encode(&mut item);
        decode_evm(&with_data_item(&item))
    };
    let tx = call("IntegerAndAddress").unwrap();
    let args = cases["IntegerAndAddress"]["args"].as_array().unwrap();
    let to = tx.intent().to.unwrap();
    assert_eq!(u64::from_be_bytes(to.0[12..].try_into().unwrap()), args[0].as_u64().unwrap());
    assert_eq!(tx.intent().amount, number(&args[1]));
    for case in ["SingleInteger", "GithubWikiTest"] {
        let refused = evm_error(call(case));
        assert!(
            matches!(refused, EvmError::Calldata(CalldataError::Length { expected: 68, .. })),
            "{case}: {refused}"
        );
    }
}

#[test]
fn eip7702_authorization_preimage_is_refused() {
    let case = read_json("ethereum/eip7702_authorization.json");
    let mut fields = Vec::new();
    case["chain_id"].as_u64().unwrap().encode(&mut fields);
    hex(text(&case["address"])).as_slice().encode(&mut fields);
    case["nonce"].as_u64().unwrap().encode(&mut fields);
    let mut preimage = vec![0x05];
    Header { list: true, payload_length: fields.len() }.encode(&mut preimage);
    preimage.extend(fields);
    // it is the right preimage, and it is refused
    assert_eq!(keccak256(&preimage).to_vec(), hex(text(&case["authorization_hash"])));
    assert!(matches!(evm_error(decode_evm(&preimage)), EvmError::UnsupportedType { ty: 5, .. }));
}
