//! Published EIP-712 vectors: ethers, the x402 specification.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_tx::{
    Action, AssetRef, EvmAddress, EvmSignature, TxError, TypedDataError, decode_typed_data,
};
use common::{hex, read_gz, read_json, recover};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn address(value: &Value) -> Option<EvmAddress> {
    EvmAddress::parse(value.as_str().unwrap())
}

const DOMAIN_FIELDS: [(&str, &str); 5] = [
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
    ("salt", "bytes32"),
];

#[test]
fn ethers_typed_data_has_the_stated_digest() {
    let cases = read_gz("ethereum/ethers_typed_data.json.gz");
    let (mut decoded, mut empty_domain) = (0, 0);
    for case in cases.as_array().unwrap() {
        let name = text(&case["name"]);
        let document = |types: &Value| {
            json!({
                "types": types, "primaryType": case["primaryType"],
                "domain": case["domain"], "message": case["data"],
            })
            .to_string()
        };
        // as ethers passes it, and as eth_signTypedData_v4 has it
        let mut declared = case["types"].clone();
        declared["EIP712Domain"] = DOMAIN_FIELDS
            .iter()
            .filter(|(field, _)| case["domain"].get(field).is_some())
            .map(|(field, ty)| json!({ "name": field, "type": ty }))
            .collect();
        for types in [&case["types"], &declared] {
            match decode_typed_data(document(types).as_bytes()) {
                Ok(typed) => {
                    assert_eq!(typed.digest().to_vec(), hex(text(&case["digest"])), "{name}");
                    assert_eq!(typed.intent().action, Action::OtherTypedData, "{name}");
                    decoded += 1;
                }
                Err(TxError::TypedData(TypedDataError::EmptyDomain)) => {
                    empty_domain += 1;
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
    // seven of the 130 have a domain without any field, which is refused
    assert_eq!((decoded, empty_domain), (2 * 123, 2 * 7));
}

#[test]
fn x402_example_digest_and_signer() {
    let case = read_json("x402/spec_v2_exact_eip3009.json");
    let document = json!({
        "types": case["types"], "primaryType": case["primaryType"],
        "domain": case["domain"], "message": case["message"],
    });
    let typed = decode_typed_data(document.to_string().as_bytes()).unwrap();
    assert_eq!(
        typed.digest().to_vec(),
        hex("0xf256992871671abcb27ff92885a7afa46218724e5fc0bac35d050115aa1d22e6")
    );
    let intent = typed.intent();
    assert_eq!(intent.action, Action::Eip3009Transfer);
    assert_eq!(intent.chain.as_ref().unwrap().as_eip155(), Some(84_532));
    let token = address(&case["domain"]["verifyingContract"]).unwrap();
    assert_eq!(intent.asset, Some(AssetRef::Token(token)));
    assert_eq!(intent.payer, address(&case["message"]["from"]));
    assert_eq!(intent.to, address(&case["message"]["to"]));
    assert_eq!(intent.amount.to_string(), text(&case["message"]["value"]));
    assert_eq!(intent.domain.as_ref().unwrap().name, "USDC");
    assert_eq!(intent.domain.as_ref().unwrap().version, "2");
    let validity = intent.validity.unwrap();
    assert_eq!((validity.after.0, validity.before.0), (1_740_672_089_000, 1_740_672_154_000));

    let signature = hex(text(&case["signature"]));
    let parity = signature[64] == 28;
    let ours = EvmSignature::new(signature[..64].try_into().unwrap(), parity).unwrap();
    assert_eq!(ours.r_s_v().to_vec(), signature);
    assert_eq!(Some(recover(typed.digest(), &ours)), address(&case["signer"]));
}

/// Every object that is a payment: what was accepted, and the payload.
fn payments<'v>(value: &'v Value, out: &mut Vec<(&'v Value, &'v Value)>) {
    match value {
        Value::Object(members) => {
            if let (Some(accepted), Some(payload)) =
                (members.get("accepted"), members.get("payload"))
            {
                out.push((accepted, payload));
            }
            members.values().for_each(|v| payments(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| payments(v, out)),
        _ => {}
    }
}

#[test]
fn x402_specification_payments_decode_and_its_other_json_is_no_typed_data() {
    let documents = read_json("x402/spec_json_examples.json");
    let example = read_json("x402/spec_v2_exact_eip3009.json");
    let (mut blocks, mut transfers, mut placeholders) = (0, 0, 0);
    for block in documents.as_object().unwrap().values().flat_map(|v| v.as_array().unwrap()) {
        blocks += 1;
        // strict JSON, but not typed data
        let refused = decode_typed_data(block.to_string().as_bytes());
        assert!(matches!(refused, Err(TxError::TypedData(TypedDataError::Missing { .. }))));
        let mut found = Vec::new();
        payments(block, &mut found);
        for (accepted, payload) in found {
            let chain = text(&accepted["network"]).strip_prefix("eip155:");
            if let (Some(chain), Some(authorization)) = (chain, payload.get("authorization")) {
                let document = json!({
                    "types": example["types"],
                    "primaryType": "TransferWithAuthorization",
                    "domain": {
                        "name": accepted["extra"]["name"],
                        "version": accepted["extra"]["version"],
                        "chainId": chain,
                        "verifyingContract": accepted["asset"],
                    },
                    "message": authorization,
                });
                let decoded = decode_typed_data(document.to_string().as_bytes());
                if authorization["from"] == "0x..." {
                    // some examples have a placeholder for each value
                    assert!(decoded.is_err());
                    placeholders += 1;
                    continue;
                }
                let typed = decoded.unwrap();
                assert_eq!(typed.intent().action, Action::Eip3009Transfer);
                assert_eq!(typed.intent().to, address(&accepted["payTo"]));
                transfers += 1;
            }
        }
    }
    assert_eq!((blocks, transfers, placeholders), (37, 4, 1));
}
