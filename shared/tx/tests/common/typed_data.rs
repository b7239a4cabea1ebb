//! Typed data to change for the worse.

use casemate_tx::eip712::TypesError;
use casemate_tx::{TxError, TypedData, TypedDataError, decode_typed_data};
use serde_json::{Value, json};

use super::typed_data_error;

pub const FROM: &str = "0x857b06519E91e3A54538791bDbb0E22373e36b66";
pub const TO: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
pub const TOKEN: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
pub const NONCE: &str = "0xf3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480";

pub fn fields(list: &[(&str, &str)]) -> Value {
    list.iter().map(|(name, ty)| json!({ "name": name, "type": ty })).collect()
}

/// The x402 specification's example, as `eth_signTypedData_v4` has it.
pub fn transfer() -> Value {
    json!({
        "types": {
            "EIP712Domain": fields(&[
                ("name", "string"),
                ("version", "string"),
                ("chainId", "uint256"),
                ("verifyingContract", "address"),
            ]),
            "TransferWithAuthorization": fields(&[
                ("from", "address"),
                ("to", "address"),
                ("value", "uint256"),
                ("validAfter", "uint256"),
                ("validBefore", "uint256"),
                ("nonce", "bytes32"),
            ]),
        },
        "primaryType": "TransferWithAuthorization",
        "domain": {
            "name": "USDC", "version": "2", "chainId": 84_532, "verifyingContract": TOKEN,
        },
        "message": {
            "from": FROM, "to": TO, "value": "10000",
            "validAfter": "1740672089", "validBefore": "1740672154", "nonce": NONCE,
        },
    })
}

/// A message of one struct of our own, in a domain with a name only.
pub fn custom(types: &[(&str, Value)], message: Value) -> Value {
    let types: serde_json::Map<String, Value> =
        types.iter().map(|(name, fields)| ((*name).to_owned(), fields.clone())).collect();
    json!({
        "types": types, "primaryType": "Mail", "domain": { "name": "Test" }, "message": message,
    })
}

pub fn decode(document: &Value) -> Result<TypedData, TxError> {
    decode_typed_data(document.to_string().as_bytes())
}

pub fn refused(document: &Value) -> TypedDataError {
    typed_data_error(decode(document))
}

/// The example with one change.
pub fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut document = transfer();
    change(&mut document);
    document
}

pub fn types_error(document: &Value) -> TypesError {
    match refused(document) {
        TypedDataError::Types(error) => error,
        other => panic!("{other}"),
    }
}
