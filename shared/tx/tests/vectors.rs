//! Published vectors: ethers' transactions and typed data, ethereum/tests, x402.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use casemate_tx::{Action, AssetRef, EvmAddress, EvmSignature, decode_typed_data};
use common::{hex, read_json, recover};
use serde_json::{Value, json};

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
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let address = |v: &Value| EvmAddress::parse(v.as_str().unwrap());
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

    let signature = hex(case["signature"].as_str().unwrap());
    let parity = signature[64] == 28;
    let ours = EvmSignature::new(signature[..64].try_into().unwrap(), parity).unwrap();
    assert_eq!(ours.r_s_v().to_vec(), signature);
    assert_eq!(Some(recover(typed.digest(), &ours)), address(&case["signer"]));
}
